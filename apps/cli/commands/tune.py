"""`circuits tune`: what units are tuned to, and a search for detectors by their tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, ImageOptions, Many, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.circuit_text import short
from apps.cli.output.console import clock, table
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.network.address import Unit
    from circuits.network.model import Model
    from circuits.stimuli import Stimuli
    from circuits.tuning import Tuning, UnitTuning
    from circuits.tuning.detectors import Detectors


@command(group="Analysis", order=90, summary="tuning curves of units, and a search for detectors by their tuning")
@dataclass(frozen=True, kw_only=True)
class Tune(ImageOptions):
    """Measure the tuning of units with parametric stimuli: which values they prefer.

    Takes units, latents (layer~basis:unit), or a layer for all its units. Angles are in degrees counter-clockwise as
    seen, 0 to the right: a line at 0 is horizontal, a curve at 0 opens to the right, like "(".

    With --search it looks through whole layers for detectors of a kind, and through an untrained network of the same
    make for what chance gives. Give --images too: then the stimuli must drive a detector as photographs do.

    Example:
        circuits tune scenes/mixed3a --stimuli curves
        circuits tune scenes/conv2d1:4 scenes/conv2d1:7 --stimuli gratings --out tuned
        circuits tune googlenet-bvlc/mixed3a googlenet-bvlc/mixed3b --search curve --images photos --out found
    """

    addresses: tyro.conf.Positional[tuple[str, ...]]
    """Units or layers: model/layer:unit, model/layer. Several units of one layer; with --search several layers."""
    stimuli: Literal["curves", "lines", "edges", "angles", "circles", "gratings", "high-low", "color-contrast"] = (
        "curves"
    )
    """The stimuli."""
    search: Literal["curve", "line", "high-low", "color-contrast"] | None = None
    """Look for detectors of this kind instead."""
    orientations: int = 24
    """How many orientations over the whole circle; with --search a multiple of 4."""
    reach: int = 1
    """Positions around the stimulus at which a unit is recorded too; the strongest counts."""
    pre: tyro.conf.FlagCreatePairsOff[bool] = False
    """Record units before their ReLU, so that inhibition is visible."""
    threshold: float = 0.5
    """Score from which a unit counts as a detector."""
    control: Literal["random", "shuffled", "none"] = "random"
    """What the search is compared with: new random weights, the trained weights shuffled, or nothing."""
    top: int = 12
    """How many units to show."""
    images: Many = field(default=())
    """Photographs to measure responses by in a search: a folder, an image, a manifest of `circuits images`, or
    scenes:500. May be repeated. By default none."""

    files: ClassVar[tuple[str, ...]] = ("*.png",)

    def run(self, session: Session) -> CommandResult:
        """Tuning of units, or the detectors found."""
        self._check()
        elapsed = clock()
        model, units = self.units_of(self.addresses)
        if self.search is not None:
            return self._searched(session, model, units, elapsed)
        from circuits.tuning import tune

        stimuli = _stimuli(self.stimuli, self.orientations)
        with session.progress(f"tuning {', '.join(map(short, self.addresses))[:40]}") as report:
            tuning = tune(model, units, stimuli=stimuli, pre=self.pre, reach=self.reach, **reporting(report))
        rows = tuning.rows()
        ranked = sorted(rows, key=lambda r: -r.peak)[: self.top]
        seconds = elapsed()
        document = {"model": model.name, **tuning.describe()}

        def show(console: Console) -> None:
            console.print(_tuned(ranked))
            silent = sum(r.peak <= 0 for r in rows)
            text = f"{len(rows)} units, {len(stimuli)} stimuli of {tuning.size[0]}x{tuning.size[1]} pixels"
            text += f"; {silent} responded to none" if silent else ""
            console.print(Text(f"{text}; {seconds:.1f} s", style="dim"))

        def write(folder: Path) -> None:
            _draw(tuning, [r.unit for r in ranked if r.peak > 0], stimuli, model, folder)

        return CommandResult(document, show, write)

    def _searched(self, session: Session, model: Model, units: Sequence[Unit], elapsed: Any) -> CommandResult:
        from circuits.tuning.detectors import find_detectors

        single = next((u for u in units if u.index is not None or u.basis is not None), None)
        if single is not None:
            raise UsageError(
                f"--search looks through whole layers: {model.name}/{single.layer}, not {short(str(single))}"
            )
        layers = [u.layer for u in units]
        images = self.open_images(model.name) if self.images else None
        assert self.search is not None
        with session.progress(f"searching {', '.join(layers)[:40]} for {self.search} detectors") as report:
            result = find_detectors(
                model,
                self.search,
                layers=layers,
                images=images,
                orientations=self.orientations,
                threshold=self.threshold,
                control=None if self.control == "none" else self.control,
                reach=self.reach,
                seed=self.seed,
                **reporting(report),
            )
        seconds = elapsed()
        document = {"model": model.name, **result.describe()}

        def show(console: Console) -> None:
            console.print(_detectors(result, self.top))
            console.print(_by_layer(result))
            more = len(result.rows) - self.top
            text = f"{more} more; " if more > 0 else ""
            beside = "" if images is not None else "; with --images responses are measured by what photographs arouse"
            console.print(Text(f"{text}{seconds:.1f} s{beside}", style="dim"))

        def write(folder: Path) -> None:
            from circuits import plot
            from circuits.plot.units.tuning import radial_tuning

            for layer in result.layers:
                curves = [d.curve for d in result.of(layer)[: min(self.top, 24)] if d.curve is not None]
                if curves:
                    title = f"{model.name} {layer}: {result.kind} detectors"
                    plot.save_figure(radial_tuning(curves, title=title), folder / f"{layer}.png")

        return CommandResult(document, show, write)

    def _check(self) -> None:
        if not self.addresses:
            raise UsageError("name a unit or a layer, for example scenes/mixed3a")
        for name, least in (("top", 1), ("reach", 0), ("orientations", 2)):
            self.check_least(name, least=least)
        if self.images and self.search is None:
            raise UsageError("--images goes with --search")
        if self.limit is not None and not self.images:
            raise UsageError("--limit goes with --images")
        if self.pre and self.search is not None:
            raise UsageError("--pre does not go with --search, whose tests are on activations")


def _stimuli(name: str, orientations: int) -> Stimuli:
    from circuits import stimuli

    half = max(2, orientations // 2)
    makers: dict[str, Any] = {
        "curves": lambda: stimuli.curves(orientations),
        "lines": lambda: stimuli.lines(half),
        "edges": lambda: stimuli.edges(orientations),
        "angles": lambda: stimuli.angle_to_curve(orientations),
        "circles": stimuli.circles,
        "gratings": lambda: stimuli.gratings(half),
        "high-low": lambda: stimuli.high_low(orientations),
        "color-contrast": lambda: stimuli.color_contrast(orientations),
    }
    chosen: Stimuli = makers[name]()
    return chosen


def _degrees(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _tuned(rows: Sequence[UnitTuning]) -> Any:
    oriented = any(r.orientation is not None for r in rows)
    others = [n for n in (rows[0].at if rows else {}) if n != "orientation"]
    columns = ["unit", "peak", "gray", "mod."]
    columns += ["angle", "width", "agree", "echo"] if oriented else []
    lines = []
    for r in rows:
        line: list[Any] = [Text(r.unit, style="bold"), r.peak, r.baseline, r.modulation if r.peak > 0 else None]
        if oriented:
            direction = r.direction if r.direction is not None else r.orientation
            line += [_degrees(direction if r.peak > 0 else None), _degrees(r.width)]
            line += [_share(r.concentration), _share(r.echo)]
        at = r.describe()["at"]
        lines.append([*line, *(at[n] if r.peak > 0 else "" for n in others)])
    return table([*columns, *others], lines, right=" rrr" + "rrrr" * oriented + "r" * len(others))


def _detectors(result: Detectors, top: int) -> Any:
    names = list(result.rows[0].tests) if result.rows else []
    others = list(result.rows[0].preferred) if result.rows else []
    lines = [
        [
            Text(d.unit, style="bold"), f"{d.score:.2f}", _degrees(d.orientation), *(d.preferred[n] for n in others),
            *(f"{d.tests[n]:.2f}" for n in names), d.p, d.false_discovery_rate,
        ]
        for d in result.rows[:top]
    ]  # fmt: skip
    columns = ["unit", "score", "degrees", *others, *names, "p", "FDR"]
    return table(columns, lines, right=" rr" + "r" * (len(others) + len(names) + 2))


def _by_layer(result: Detectors) -> Any:
    lines = []
    for entry in result.describe()["layers"]:
        share = entry["control_share"]
        chance = ["", ""] if share is None else [f"{entry['control_best']:.2f}", f"{100 * share:.1f} %"]
        lines.append(
            [
                entry["layer"], entry["units"], entry["detectors"], f"{entry['best']:.2f}",
                f"{entry['largest_gap']:.0f}" if entry["detectors"] else "", *chance,
            ]
        )  # fmt: skip
    columns = ["layer", "units", "detectors", "best", "gap", "untrained", "that pass"]
    return table(columns, lines, right=" rrrrrr")


def _draw(result: Tuning, units: list[str], stimuli: Stimuli, model: Model, folder: Path) -> None:
    from circuits import plot
    from circuits.plot.units import tuning as figures

    if model.input.channels in (1, 3):
        plot.save_figure(figures.stimuli_strip(stimuli, replace(model.input, size=result.size)), folder / "stimuli.png")
    if not units:
        return
    few = units[:24]
    axes = {a.name: a for a in result.axes}
    if "orientation" in axes and axes["orientation"].is_full_circle:
        plot.save_figure(figures.radial_tuning(result, few), folder / "radial.png")
        plot.save_figure(figures.tuning_curves(result, few), folder / "orientations.png")
    if sum(not a.average for a in result.axes) > 1:
        for unit in few:
            name = unit.rpartition("/")[2].replace(":", "-").replace("~", "-")
            plot.save_figure(figures.tuning_map(result, unit), folder / f"{name}.png")
