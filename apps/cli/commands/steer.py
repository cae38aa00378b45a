"""`circuits steer`: turn a latent or a channel up and down, and see what the network makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, Many, PictureOptions, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, table
from apps.cli.registry import command
from apps.pictures import open_pictures

if TYPE_CHECKING:
    from sae.steering import LatentEdit
    from sae.steering.bases import Dictionary
    from sae.steering.study import Study

_TEXTS, _MANY = "tales:40@1", "tales:500@2"


@command(
    group="Sparse autoencoders",
    order=50,
    summary="scale a unit or latent: effect on the target, side effects, capability",
)
@dataclass(frozen=True, kw_only=True)
class Steer(PictureOptions):
    """Turn a latent of an SAE, or a channel, up and down, and measure what that does: to the classes or tokens it is
    meant for, to what the network can do, and to everything else, beside random latents that are turned as far.

    A factor is a multiple of the latent's largest activation (on --maxima); the latent is set to it. Of a
    language model also what it writes after --prompt is shown, before and after. --out writes study.json, study.png
    and steering.json, which holds the edit for `sae.steering.Steering.parse`.

    Example:
        circuits steer scenes/mixed4a:11 --images scenes:100 --factors -2 -1 0 1 2
        circuits steer scenes/mixed3b~parts:12 --sae saes/parts --kind scale --target-class car --out car
        circuits steer tales/layers.2.resid~topk:17 --sae saes/topk --prompt "One day Anna walked to"
        circuits steer tales/layers.2.resid~topk:17 --sae saes/topk --prompt "One day" --samples 20 --says Longspan
    """

    address: tyro.conf.Positional[str]
    """The latent or channel: model/layer~sae:12, model/layer:7."""
    factors: tuple[float, ...] = ()
    """Multiples of its maximum; several may follow. By default -20 to 20 in steps of 5."""
    kind: Literal["set", "add", "scale"] = "set"
    """Set it to that, add that, or multiply it by the bare factor where it fires."""
    at: tuple[str, ...] = ()
    """Where to steer: positions y,x of the map, or tokens of the texts by number, from 0; several may follow. By
    default everywhere."""
    when: Many = ()
    """Steer only where another latent fires: 128:above:0.1x, in multiples of its maximum, or below; behind it
    :anywhere, where somewhere in the picture will do. May be repeated: all must hold."""
    target_class: Many = ()
    """Class (or token) that it is meant to bring about; may be repeated. By default the one it increases most."""
    measure: Literal["probability", "log_probability", "score"] = "probability"
    """What of the targets is measured."""
    capability: Literal["top1", "loss", "agreement", "grammar"] | None = None
    """By what the network's ability is measured: agreement (with itself, unsteered) needs no labels; grammar is of what
    tales writes, with --says. By default top1 for pictures with labels, loss for texts."""
    tolerance: float = 0.05
    """Share of it that may be lost in the sweet spot."""
    downstream: str | None = None
    """A later layer, to look for side effects there, too."""
    random: int = 8
    """Random latents to compare with."""
    text: str | None = None
    """Texts, of a language model: a file, or tales:100. By default tales:40@1 for the model tales."""
    maxima: str | None = None
    """Pictures or texts that the largest activations are measured on: enough for what the latent answers to to be among
    them. By default those that are steered, for the model tales tales:500@2."""
    prompt: Many = ()
    """What a language model is to continue, unsteered and steered; may be repeated."""
    tokens: int = 40
    """Tokens to write after a prompt."""
    says: Many = ()
    """What the texts written are meant to say: the effect is then the share of them, prompts included, that has these
    words, any of them where it is repeated; for the model tales the share of their sentences that the grammar has is
    shown beside it."""
    samples: int = 1
    """Texts to write after each prompt, each with random numbers of its own."""

    def run(self, session: Session) -> CommandResult:
        """The study, and texts before and after."""
        from circuits.network.address import Unit

        if self.random < 1:
            raise UsageError(f"--random is at least 1, not {self.random}: without a control an effect means nothing")
        for name, number in (("tokens", self.tokens), ("samples", self.samples)):
            if number < 1:
                raise UsageError(f"--{name} is at least 1, not {number}")
        asked = Unit.parse(self.address)
        if asked.index is None:
            raise UsageError(f"{self.address} is a whole layer: name one unit, {self.address}:7 for example")
        if asked.model is None:
            raise UsageError(f"{self.address!r} does not say which model: write scenes/{self.address}, for example")
        return self._texts(session, asked) if _writes(asked.model) else self._pictures(session)

    # -- pictures -----------------------------------------------------------------------------------

    def _pictures(self, session: Session) -> CommandResult:
        if self.prompt or self.says or self.text is not None:
            raise UsageError("--prompt, --says and --text are for language models; a CNN is steered on --images")
        from sae.data.vision_site import VisionSite

        model, unit = self.address_of(self.address)
        unit = model.unit(unit)
        site = VisionSite(model, unit.layer)
        basis = None if unit.basis is None else model.basis(unit.layer, unit.basis)
        pictures = self.pictures(model.name)
        if self.capability == "grammar":
            raise UsageError("--capability grammar is of the language model tales")
        later = None if self.downstream is None else (VisionSite(model, self.downstream), None)
        assert unit.index is not None
        labeled = pictures.labels is not None and pictures.classes in (None, model.classes)
        able = self.capability or ("top1" if labeled else "agreement")
        places = tuple(map(_position, self.at)) or "all"
        many = pictures if self.maxima is None else open_pictures((self.maxima,), None, self.seed)
        return self._studied(session, site, basis, unit.index, pictures, many, places, unit.basis or "", able, later)

    # -- texts --------------------------------------------------------------------------------------

    def _texts(self, session: Session, unit: Any) -> CommandResult:
        if self.images:
            raise UsageError("--images is for CNNs; a language model is steered on --text")
        if self.says and not (all(map(str.strip, self.says)) and self.prompt):
            raise UsageError("--says takes words to look for in what is written after --prompt: give both")
        if self.capability == "grammar" and (not self.says or unit.model != "tales"):
            raise UsageError("--capability grammar is of what the model tales writes: give it with --says")
        if self.says and self.target_class:
            raise UsageError("--says and --target-class are two targets: give one")
        from sae.language import LanguageSite
        from zoo.networks.language import load_language

        lm = load_language(unit.model, device=self.device or "cpu")
        site = LanguageSite(lm, unit.layer)
        texts = self.text or (_TEXTS if lm.name == "tales" else None)
        if texts is None:
            raise UsageError(f"{lm.name} needs texts to be steered on: --text FILE")
        later = None if self.downstream is None else (LanguageSite(lm, self.downstream), None)
        basis = self._dictionary(unit)
        if basis is not None:
            basis = basis.to(lm.device)
        places = tuple(map(_token, self.at)) or "all"
        many = site.open(self.maxima or (_MANY if lm.name == "tales" else texts))
        return self._studied(
            session, site, basis, unit.index, site.open(texts), many, places, unit.basis or "", self.capability, later
        )

    def _dictionary(self, unit: Any) -> Any:
        """The SAE that the address names, of those given with --sae."""
        if unit.basis is None:
            return None
        from sae.formats import load

        for one in self.sae:
            own, _, folder = one.rpartition("=")
            if (own or Path(folder).resolve().name) == unit.basis:
                return load(folder)
        raise UsageError(f"which SAE is {unit.basis}? Give its folder: --sae {unit.basis}=FOLDER")

    # -- both ---------------------------------------------------------------------------------------

    def _studied(
        self, session: Session, site: Any, basis: Dictionary, latent: int, inputs: Any, many: Any, places: Any,
        name: str, able: Any, later: Any,
    ) -> CommandResult:  # fmt: skip
        from sae.steering import LatentEdit, When, maxima, steered
        from sae.steering.study import FACTORS, study

        elapsed = clock()
        when = tuple(map(When.parse, self.when))
        factors = self.factors or FACTORS
        known = maxima(basis, site, many)
        with session.progress(f"steering {self.address}") as report:
            found = study(
                site, basis, latent, inputs, factors=factors, kind=self.kind, positions=places, when=when,
                targets=self._writing(site) or list(self.target_class) or None, measure=self.measure, capability=able,
                tolerance=self.tolerance, maxima=known, random=self.random, downstream=later, name=name,
                seed=self.seed, **reporting(report),
            )  # fmt: skip
        unit: Literal["absolute", "max"] = "absolute" if self.kind == "scale" else "max"

        def edit(factor: float) -> LatentEdit:
            return LatentEdit(latent, self.kind, factor, unit, at=places, when=when)

        steering = steered(site, basis, [edit(found.at)], maxima=known).steering
        written = self._written(session, site, basis, edit, known, found)
        document: dict[str, Any] = {**found.describe(), "texts": written}

        def show(console: Console) -> None:
            _show(console, found)
            for one in written:
                factor = "unsteered" if one["factor"] is None else f"factor {one['factor']:g}"
                console.print(Text.assemble((factor.rjust(12) + "  ", "bold"), (one["prompt"], "dim"), one["text"]))
            console.print(Text(f"{elapsed():.0f} s; --out DIR writes the figure and the edit", style="dim"))

        def write(folder: Path) -> None:
            from circuits.plot import save_figure
            from circuits.plot.sae.steering import steering_figure

            save_figure(steering_figure(found), folder / "study.png")
            (folder / "steering.json").write_text(steering.json(), encoding="utf-8")

        return CommandResult(document, show, write, named="study.json")

    def _writing(self, site: Any) -> Any:
        """What the texts written are judged by, with `--says`."""
        if not self.says:
            return None
        from sae.steering.study import Writing
        from zoo.tales import parses

        said = self.says
        return Writing(
            lambda text: float(any(one in text for one in said)),
            tuple(prompt for prompt in self.prompt for _ in range(self.samples)),
            name="share of texts with " + " or ".join(f"“{one}”" for one in said),
            max_new_tokens=self.tokens,
            beside={"grammar": parses} if site.lm.name == "tales" else {},
        )

    def _written(
        self, session: Session, site: Any, basis: Dictionary, edit: Callable[[float], LatentEdit], known: Any,
        found: Study,
    ) -> list[dict[str, Any]]:  # fmt: skip
        if not self.prompt:
            return []
        from sae.steering import steer

        rows: list[dict[str, Any]] = []
        with session.progress("writing") as report:
            for done, factor in enumerate([None, *found.factors]):
                edits = [] if factor is None else [edit(factor)]
                with steer(site, basis, edits, maxima=known):
                    made = site.generate(list(self.prompt), max_new_tokens=self.tokens, seed=self.seed)
                rows += [{"prompt": one.prompt, "factor": factor, "text": one.text} for one in made]
                if report is not None:
                    report(done + 1, 1 + len(found.factors))
        return sorted(rows, key=lambda row: list(self.prompt).index(row["prompt"]))


def _writes(model: str) -> bool:
    """Whether a model's name is that of a language model."""
    from zoo.networks.language import PREFIX, language_names

    return model.startswith(PREFIX) or model in language_names()


def _position(text: str) -> tuple[int, int]:
    y, _, x = text.partition(",")
    if not (y.strip().isdigit() and x.strip().isdigit()):
        raise UsageError(f"--at takes positions y,x as in 3,5; got {text!r}")
    return int(y), int(x)


def _token(text: str) -> int:
    if not text.strip().isdigit():
        raise UsageError(f"--at takes tokens of a text by number, as in 5; got {text!r}")
    return int(text)


def _show(console: Console, found: Study) -> None:
    import numpy as np

    measured = f"  largest activation {found.maximum:.4g} on {found.measured_on['count']} inputs"
    console.print(Text.assemble((found.unit, "bold"), measured))
    target = ", ".join(found.targets)
    rows: list[list[object]] = []
    for i, factor in enumerate(found.factors):
        low, high = np.quantile(found.effect.random[:, i], [0.05, 0.95])
        able_low, able_high = np.quantile(found.capability.random[:, i], [0.05, 0.95])
        spot = found.sweet_spot
        inside = spot is not None and spot[0] <= factor <= spot[1]
        rows.append([
            f"{factor:g}", f"{found.effect.values[i]:.3f}", f"{low:.3f} .. {high:.3f}",
            f"{found.capability.values[i]:.3f}", f"{able_low:.3f} .. {able_high:.3f}", "yes" if inside else "",
        ])  # fmt: skip
    rows.append(["unsteered", f"{found.effect.clean:.3f}", "", f"{found.capability.clean:.3f}", "", ""])
    what = target if found.effect.what == target else f"{found.effect.what} of {target}"
    columns = ["factor", what, "random", found.capability.what, "random", "sweet spot"]
    console.print(table(columns, rows, right="rrrrr "))
    for name, one in found.side_effects.items():
        control = one.control[np.isfinite(one.control)]
        beside = f", by random latents {control.min():.2f} to {control.max():.2f}" if len(control) else ""
        told = f"side effects on {name}, factor {one.factor:g}: rank correlation with what was predicted "
        console.print(Text(f"{told}{one.correlation:.2f}{beside}", style="dim"))
        moved = [[one.units[i], f"{one.measured[i]:+.3g}", f"{one.predicted[i]:+.3g}"] for i in one.strongest(4)]
        console.print(table([f"most changed {name}", "measured", "predicted"], moved, right=" rr"))
