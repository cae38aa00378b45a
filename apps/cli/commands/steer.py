"""`circuits steer`: scale a latent or a channel and measure the effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, ImageOptions, Many, Session, reporting, sae_option
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, table
from apps.cli.registry import command
from apps.cli.sae_sites import inputs_for
from apps.images import open_sources

if TYPE_CHECKING:
    from sae.steering import LatentEdit
    from sae.steering.bases import Dictionary
    from sae.steering.study_result import Study

_TEXTS, _MANY = "tales:40@1", "tales:500@2"


@command(
    group="Sparse autoencoders",
    order=50,
    summary="scale a unit or latent: effect on the target, side effects, capability",
)
@dataclass(frozen=True, kw_only=True)
class Steer(ImageOptions):
    """Steer a latent of an SAE, or a channel, and measure the effect on the target classes or tokens, on the network's
    capability, and on everything else, against random latents steered as strongly.

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
    """Set it to that, add that, or multiply it by the bare factor where it is active."""
    at: tuple[str, ...] = ()
    """Where to steer: positions y,x of the map, or tokens of the texts by number, from 0; several may follow. By
    default everywhere."""
    when: Many = ()
    """Steer only where another latent is active: 128:above:0.1x, in multiples of its maximum, or below; followed by
    :anywhere, where somewhere in the image will do. May be repeated: all must hold."""
    target_class: Many = ()
    """Class (or token) that it is meant to bring about; may be repeated. By default the one it increases most."""
    measure: Literal["probability", "log_probability", "score"] = "probability"
    """What of the targets is measured."""
    capability: Literal["top1", "loss", "agreement", "grammar"] | None = None
    """By what the network's ability is measured: agreement (with itself, unsteered) needs no labels; grammar is of what
    tales writes, with --says. By default top1 for images with labels, loss for texts."""
    tolerance: float = 0.05
    """Share of it that may be lost in the sweet spot."""
    downstream: str | None = None
    """A later layer, to look for side effects there, too."""
    random: int = 8
    """Random latents to compare with."""
    step: Literal["equal", "own"] = "equal"
    """What they are steered by: equal, a step as long as that of the unit at every position; or own, the same
    multiples of their own largest activations."""
    directions: int = 4
    """Random directions to compare with, in steps as long."""
    components: int = 2
    """Principal components of the activations to compare with, in steps as long."""
    text: str | None = None
    """Texts, of a language model: a file, or tales:100. By default tales:40@1 for the model tales."""
    maxima: str | None = None
    """Images or texts that the largest activations are measured on: enough for the latent to be active on
    some. By default those that are steered, for the model tales tales:500@2."""
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

    files: ClassVar[tuple[str, ...]] = ("study.json", "study.png", "steering.json")

    def run(self, session: Session) -> CommandResult:
        """The study, and texts before and after."""
        from circuits.network.address import Unit

        if self.random < 1:
            raise UsageError(f"--random is at least 1, not {self.random}: without a control an effect means nothing")
        self.check_least("tokens", "samples")
        self.check_least("directions", "components", least=0)
        unit = Unit.parse(self.address)
        if unit.index is None:
            raise UsageError(f"{self.address} is a whole layer: name one unit, {self.address}:7 for example")
        if unit.model is None:
            raise UsageError(f"{self.address!r} does not name its model: write scenes/{self.address}, for example")
        return self._on_texts(session, unit) if _writes(unit.model) else self._on_images(session)

    # -- images -----------------------------------------------------------------------------------

    def _on_images(self, session: Session) -> CommandResult:
        if self.prompt or self.says or self.text is not None:
            raise UsageError("--prompt, --says and --text are for language models; a CNN is steered on --images")
        from sae.data.vision_site import VisionSite

        model, unit = self.address_of(self.address)
        unit = model.unit(unit)
        site = VisionSite(model, unit.layer)
        basis = None if unit.basis is None else model.basis(unit.layer, unit.basis)
        images = self.open_images(model.name)
        if self.capability == "grammar":
            raise UsageError("--capability grammar is of the language model tales")
        later = None if self.downstream is None else (VisionSite(model, self.downstream), None)
        assert unit.index is not None
        labeled = images.labels is not None and images.classes in (None, model.classes)
        able = self.capability or ("top1" if labeled else "agreement")
        positions = tuple(map(_position, self.at)) or "all"
        many = images if self.maxima is None else open_sources((self.maxima,), None, self.seed)
        return self._studied(session, site, basis, unit.index, images, many, positions, unit.basis or "", able, later)

    # -- texts --------------------------------------------------------------------------------------

    def _on_texts(self, session: Session, unit: Any) -> CommandResult:
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
        positions = tuple(map(_token, self.at)) or "all"
        many = site.open(self.maxima or (_MANY if lm.name == "tales" else texts))
        chosen = inputs_for(lm.name, (texts,), self.limit, self.seed).data
        return self._studied(
            session,
            site,
            basis,
            unit.index,
            chosen,
            many,
            positions,
            unit.basis or "",
            self.capability,
            later,
        )

    def _dictionary(self, unit: Any) -> Any:
        """The SAE that the address names, of those given with --sae."""
        if unit.basis is None:
            return None
        from circuits.network.address import basis_name
        from sae.formats import load

        for name, folder in map(sae_option, self.sae):
            if (name or basis_name(folder)) == unit.basis:
                return load(folder)
        raise UsageError(f"which SAE is {unit.basis}? Give its folder: --sae {unit.basis}=FOLDER")

    # -- both ---------------------------------------------------------------------------------------

    def _studied(
        self, session: Session, site: Any, basis: Dictionary, latent: int, inputs: Any, many: Any, positions: Any,
        name: str, able: Any, later: Any,
    ) -> CommandResult:  # fmt: skip
        from sae.steering import LatentEdit, When, maxima, steered
        from sae.steering.study import study
        from sae.steering.study_settings import FACTORS

        elapsed = clock()
        when = tuple(map(When.parse, self.when))
        factors = self.factors or FACTORS
        maximum = maxima(basis, site, many)
        with session.progress(f"steering {self.address}") as report:
            result = study(
                site, basis, latent, inputs, factors=factors, kind=self.kind, positions=positions, when=when,
                targets=self._writing(site) or list(self.target_class) or None, measure=self.measure, capability=able,
                tolerance=self.tolerance, maxima=maximum, random=self.random, step=self.step,
                directions=self.directions, components=self.components, downstream=later, name=name, seed=self.seed,
                **reporting(report),
            )  # fmt: skip
        unit: Literal["absolute", "max"] = "absolute" if self.kind == "scale" else "max"

        def edit(factor: float) -> LatentEdit:
            return LatentEdit(latent, self.kind, factor, unit, at=positions, when=when)

        steering = steered(site, basis, [edit(result.at)], maxima=maximum).steering
        written = self._written(session, site, basis, edit, maximum, result)
        document: dict[str, Any] = {**result.describe(), "texts": written}

        def show(console: Console) -> None:
            _show(console, result)
            for row in written:
                factor = "unsteered" if row["factor"] is None else f"factor {row['factor']:g}"
                console.print(Text.assemble((factor.rjust(12) + "  ", "bold"), (row["prompt"], "dim"), row["text"]))
            end = "; --out DIR writes the figure and the edit" if self.out is None else ""
            console.print(Text(f"{elapsed():.0f} s{end}", style="dim"))

        def write(folder: Path) -> None:
            from circuits.plot import save_figure
            from circuits.plot.sae.steering import steering_figure

            save_figure(steering_figure(result), folder / "study.png")
            (folder / "steering.json").write_text(steering.json(), encoding="utf-8")

        return CommandResult(document, show, write, named="study.json")

    def _writing(self, site: Any) -> Any:
        """What the texts written are judged by, with `--says`."""
        if not self.says:
            return None
        from sae.steering.study_settings import Writing
        from zoo.tales import parses

        searched = self.says
        return Writing(
            lambda text: float(any(word in text for word in searched)),
            tuple(prompt for prompt in self.prompt for _ in range(self.samples)),
            name="share of texts with " + " or ".join(f"“{word}”" for word in searched),
            max_new_tokens=self.tokens,
            beside={"grammar": parses} if site.lm.name == "tales" else {},
        )

    def _written(
        self, session: Session, site: Any, basis: Dictionary, edit: Callable[[float], LatentEdit], maximum: Any,
        result: Study,
    ) -> list[dict[str, Any]]:  # fmt: skip
        if not self.prompt:
            return []
        from sae.steering import steer

        rows: list[dict[str, Any]] = []
        with session.progress("writing") as report:
            for index, factor in enumerate([None, *result.factors]):
                edits = [] if factor is None else [edit(factor)]
                with steer(site, basis, edits, maxima=maximum):
                    continuations = site.generate(list(self.prompt), max_new_tokens=self.tokens, seed=self.seed)
                rows += [
                    {"prompt": continuation.prompt, "factor": factor, "text": continuation.text}
                    for continuation in continuations
                ]
                if report is not None:
                    report(index + 1, 1 + len(result.factors))
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


def _controls(result: Study) -> str:
    text = f"random: {len(result.control)} random units, 5 to 95 %, "
    if result.step == "own":
        text += "by the same multiples of their own largest activations"
    else:
        text += "in steps as long at every position"
    components = sum(name.startswith("principal") for name in result.directions)
    if result.directions:
        text += f"; directions: {len(result.directions) - components} random, {components} principal components"
        text += ", in steps as long"
    return text


def _show(console: Console, result: Study) -> None:
    import numpy as np

    measured = f"  largest activation {result.maximum:.4g} on {result.measured_on['count']} inputs"
    console.print(Text.assemble((result.unit, "bold"), measured))
    target = ", ".join(result.targets)
    rows: list[list[object]] = []
    for i, factor in enumerate(result.factors):
        low, high = np.quantile(result.effect.random[:, i], [0.05, 0.95])
        able_low, able_high = np.quantile(result.capability.random[:, i], [0.05, 0.95])
        aside = [row[i] for row in result.effect.directions]
        spot = result.sweet_spot
        inside = spot is not None and spot[0] <= factor <= spot[1]
        rows.append([
            f"{factor:g}", f"{result.effect.values[i]:.3f}", f"{low:.3f} .. {high:.3f}",
            *([f"{min(aside):.3f} .. {max(aside):.3f}"] if aside else []),
            f"{result.capability.values[i]:.3f}", f"{able_low:.3f} .. {able_high:.3f}", "yes" if inside else "",
        ])  # fmt: skip
    between = [""] * bool(result.directions)
    rows.append(["unsteered", f"{result.effect.clean:.3f}", "", *between, f"{result.capability.clean:.3f}", "", ""])
    label = target if result.effect.what == target else f"{result.effect.what} of {target}"
    named = ["directions"] * bool(result.directions)
    columns = ["factor", label, "random", *named, result.capability.what, "random", "sweet spot"]
    console.print(table(columns, rows, right="rrr" + "r" * len(named) + "rr "))
    console.print(Text(_controls(result), style="dim"))
    for name, effects in result.side_effects.items():
        control = effects.control[np.isfinite(effects.control)]
        beside = f", by random latents {control.min():.2f} to {control.max():.2f}" if len(control) else ""
        summary = f"side effects on {name}, factor {effects.factor:g}: rank correlation with what was predicted "
        console.print(Text(f"{summary}{effects.correlation:.2f}{beside}", style="dim"))
        moved = [
            [effects.units[i], f"{effects.measured[i]:+.3g}", f"{effects.predicted[i]:+.3g}"]
            for i in effects.strongest(4)
        ]
        console.print(table([f"most changed {name}", "measured", "predicted"], moved, right=" rr"))
