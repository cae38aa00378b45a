"""`circuits sae eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, Many, ModelOptions, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, table
from apps.cli.registry import command
from apps.cli.sae_sites import described, drawn, inputs_for, reconstructions_table, site_at, split, trained_on

if TYPE_CHECKING:
    from sae.data.site import Site
    from sae.evaluation.evaluate import Evaluation
    from zoo.images.sources import Images


@command(
    group="Sparse autoencoders",
    order=20,
    summary="fidelity of an SAE: reconstruction, sparsity, accuracy or loss recovered",
)
@dataclass(frozen=True, kw_only=True)
class EvaluateSAE(ModelOptions):
    """What an SAE keeps: of the activations it reads, and of what the network predicts when its reconstruction takes
    their place everywhere. Beside it stand the network as it is, the layer's mean, zero, and the layer's own channels
    and random directions with as many active.

    By default on the pictures or texts it was trained on and, apart from them, on those held out.

    Example:
        circuits sae eval saes/mixed4c
        circuits sae eval saes/mixed4c --images other-photos --out evaluation
    """

    folder: tyro.conf.Positional[Path]
    """Folder of the SAE."""
    address: str | None = None
    """Where it reads, model/layer, if its file does not say."""
    images: Many = ()
    """Pictures to evaluate on, instead of those it was trained with; may be repeated."""
    text: str | None = None
    """A file of texts to evaluate a language model's SAE on, instead of those it was trained with."""
    limit: int | None = None
    """At most so many of a kind, drawn at random with --seed."""
    labels: Literal["auto", "order", "none"] = "auto"
    """The right classes: told by the pictures' names or manifest, in order (one picture per class), or unknown."""

    def run(self, session: Session) -> CommandResult:
        """The figures, on each set of pictures."""
        from sae.evaluation.evaluate import evaluate
        from sae.formats import load

        elapsed = clock()
        loaded = load(self.folder)
        site = site_at(self, self._address(loaded.metadata))
        found: dict[str, Evaluation] = {}
        for name, (inputs, labels) in self._sets(loaded.metadata, site).items():
            with session.progress(f"evaluating on {name} {described(site)}") as report:
                found[name] = evaluate(loaded, site, inputs, labels=labels, seed=self.seed, **reporting(report))
        document = {
            "sae": str(self.folder), "site": site.address,
            "evaluations": {name: one.describe() for name, one in found.items()},
        }  # fmt: skip

        def show(console: Console) -> None:
            for name, one in found.items():
                _show_evaluation(console, f"{name} {described(site)}", one)
            console.print(Text(f"{elapsed():.0f} s", style="dim"))

        return CommandResult(document, show)

    def _address(self, metadata: dict[str, Any]) -> str:
        """Where the SAE reads."""
        if self.address is not None:
            return self.address
        model, layer = (metadata.get(key) for key in ("model", "layer"))
        if not isinstance(model, str) or not isinstance(layer, str):
            raise UsageError(f"{self.folder} does not say where it reads: give --address MODEL/LAYER")
        return f"{model}/{layer}"

    def _sets(self, metadata: dict[str, Any], site: Site) -> dict[str, tuple[Any, list[int] | None]]:
        """What to evaluate on, by name, with the right classes of pictures."""
        given = self.images if self.text is None else (self.text,)
        if given:
            data = inputs_for(str(site.metadata["model"]), given, self.limit, self.seed).data
            return {"given": (data, self._labels(data, site))}
        known = metadata.get("data", {})
        data = trained_on(self.folder, metadata).data
        labels = self._labels(data, site)
        if labels is not None:
            data = _with_labels(data, labels)
        shown, kept = split(data, float(known["held_out"]), int(known["seed"]))
        sets = {"training": shown} | ({} if kept is None else {"held-out": kept})
        if self.limit is not None:
            few = {n: drawn(len(some), min(len(some), self.limit), self.seed) for n, some in sets.items()}
            sets = {n: some.subset(few[n]) for n, some in sets.items()}
        return {name: (some, None if labels is None else some.labels) for name, some in sets.items()}

    def _labels(self, data: Any, site: Site) -> list[int] | None:
        """The right class of each picture, -1 where unknown; None for texts, which have their own."""
        from zoo.images.classes import labels_by_name

        model = getattr(site, "model", None)
        if model is None:
            return None
        if self.labels == "none":
            return [-1] * len(data)
        if self.labels == "order":
            if len(data) != len(model.classes):
                counts = f"{len(data)} pictures, {len(model.classes)} classes"
                raise UsageError(f"--labels order takes one picture per class; {counts}")
            return list(range(len(data)))
        if data.labels is not None:
            fitting = data.classes is None or list(data.classes) == list(model.classes)
            return list(data.labels) if fitting else [-1] * len(data)
        return labels_by_name(data.ids, model.classes) or [-1] * len(data)


def _with_labels(pictures: Images, labels: list[int]) -> Images:
    import copy

    same = copy.copy(pictures)
    same.labels = labels
    return same


def _show_evaluation(console: Console, name: str, one: Evaluation) -> None:
    found = one.reconstruction
    console.print(Text.assemble((name, "bold"), f"  {one.inputs['count']}, {found.samples:,} positions"))
    console.print(reconstructions_table({name: found}))
    rows = []
    for way, said in one.ways.items():
        kept = "" if way in ("clean", "mean", "zero") else f"{100 * one.recovered('top1', way):.1f} %"
        loss = "" if way in ("clean", "mean", "zero") else f"{100 * one.recovered('loss', way):.1f} %"
        rows.append([way, f"{said.top1:.3f}", f"{said.top5:.3f}", kept, f"{said.loss:.3f}", loss,
                     f"{said.agreement:.3f}", f"{said.kl:.3f}"])  # fmt: skip
    columns = ["activations", "top-1", "top-5", "of it kept", "loss", "of it kept", "same choice", "KL"]
    console.print(table(columns, rows, right=" rrrrrrr"))
    if one.branches:
        console.print(
            table(
                ["branch", "FVU", "channels"],
                [[b, f"{v['sae']:.3f}", f"{v.get('channels', float('nan')):.3f}"] for b, v in one.branches.items()],
                right=" rr",
            )
        )
    console.print(Text("kept: of what replacing the layer by its mean loses", style="dim"))
