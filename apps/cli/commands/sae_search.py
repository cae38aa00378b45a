"""`circuits sae search`: latents of a language model's SAE that separate two sets of texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, Many, ModelOptions, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, show_next, table
from apps.cli.registry import command
from apps.cli.sae_sites import inputs_for, is_language, model_of, site_at

if TYPE_CHECKING:
    from sae.language import Texts


@command(group="Sparse autoencoders", order=40, summary="latents that separate some texts from others, by AUC")
@dataclass(frozen=True, kw_only=True)
class SearchLatents(ModelOptions):
    """Find latents that separate texts about something from other texts, to steer or inspect.

    Every latent is evaluated on all texts and ranked by the AUC of its largest activation on each (0.5 is chance, 1 is
    always). Give two files of texts; or one, and words: then those with any of the words stand against those without.
    For latents of a CNN there is `circuits find MODEL --sae FOLDER`.

    Example:
        circuits sae search saes/topk --says Longspan
        circuits sae search saes/stories --text stories.txt --says dog --says puppy
        circuits sae search saes/stories --text about.txt --against other.txt --top 3 --json
    """

    folder: tyro.conf.Positional[Path]
    """Folder of the SAE."""
    text: str | None = None
    """Texts: a file, or tales:2000. By default tales:2000 for the model tales."""
    says: Many = ()
    """Words: texts with any of them stand against those without; may be repeated."""
    against: str | None = None
    """Texts without it, instead of --says: a file, or tales:500."""
    top: int = 10
    """How many latents to show."""
    limit: int | None = None
    """At most so many texts of each file, drawn at random with --seed."""

    files: ClassVar[tuple[str, ...]] = ("search.json",)

    def run(self, session: Session) -> CommandResult:
        """Latents, best first."""
        self.check_least("top")
        if bool(self.says) == (self.against is not None):
            raise UsageError("say what to search for: --says WORD, or a second file of texts with --against")
        if not all(map(str.strip, self.says)):
            raise UsageError("--says takes words")
        from circuits.network.address import basis_name
        from sae.formats import load
        from sae.language import LanguageSite, promoted
        from sae.steering import search

        elapsed = clock()
        loaded = load(self.folder)
        model_name = model_of(self.folder, loaded.metadata)
        if not is_language(model_name):
            find = ("find", model_name, "--sae", self.folder, "--positive", "FOLDER", "--negative", "FOLDER")
            raise UsageError(f"{self.folder} is of {model_name}, which reads images: {self.follow_up(*find)}")
        site = site_at(self, f"{model_name}/{loaded.metadata['layer']}")
        assert isinstance(site, LanguageSite)
        own = basis_name(self.folder)
        positive, negative = self._sets(model_name)
        with session.progress(f"searching {site.address}") as report:
            result = search(
                loaded.to(site.lm.device), site, positive, negative, top=self.top, name=own, seed=self.seed,
                **reporting(report),
            )  # fmt: skip
        promotions = promoted(site, loaded.write[[row.latent for row in result.rows]])
        rows = [
            {**row.describe(), "latent": row.latent, "promoted": [list(pair) for pair in tokens]}
            for row, tokens in zip(result.rows, promotions, strict=True)
        ]
        document: dict[str, Any] = {
            "sae": str(self.folder), "site": site.address, "latents": loaded.latents, "says": list(self.says),
            "positive": {"name": positive.name, "count": len(positive)},
            "negative": {"name": negative.name, "count": len(negative)},
            "chance": result.chance, "rows": rows, "provenance": result.provenance,
        }  # fmt: skip

        def show(console: Console) -> None:
            lines = [
                [Text(row.unit, style="bold"), f"{row.auc:.3f}", f"{row.mean_positive:.3g}", f"{row.mean_negative:.3g}",
                 " ".join(word.strip() for word, _ in tokens)]
                for row, tokens in zip(result.rows, promotions, strict=True)
            ]  # fmt: skip
            console.print(
                table(["latent", "AUC", "mean with", "mean without", "promoted tokens"], lines, right=" rrr ")
            )
            sets = f"{len(positive)} texts with, {len(negative)} without; {loaded.latents} latents by their maximum"
            chance = f"with texts shuffled the best AUC is {result.chance:.3f}"
            console.print(Text(f"{sets}; {chance}; {elapsed():.1f} s", style="dim"))
            texts = [] if self.text is None else ["--text", self.text]
            prompt = " ".join(positive[0].split()[:4])
            options = ("--sae", self.folder, *texts, "--prompt", prompt)
            show_next(console, self.follow_up("steer", result.best.unit, *options))

        return CommandResult(document, show, named="search.json")

    def _sets(self, model: str) -> tuple[Texts, Texts]:
        """Texts with it, and without."""
        texts: Texts = self._opened(model, self.text)
        if self.against is not None:
            return texts, self._opened(model, self.against)
        holds = [any(word in text for word in self.says) for text in texts]
        if all(holds) or not any(holds):
            searched = " or ".join(map(repr, self.says))
            raise UsageError(f"{'all' if all(holds) else 'none'} of {len(texts)} texts of {texts.name} say {searched}")
        with_it, without = ([i for i, hit in enumerate(holds) if hit is value] for value in (True, False))
        return texts.subset(with_it), texts.subset(without)

    def _opened(self, model: str, source: str | None) -> Any:
        return inputs_for(model, () if source is None else (source,), self.limit, self.seed).data
