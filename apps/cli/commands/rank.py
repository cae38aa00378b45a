"""`circuits rank`: the units that a target stands on, and how much of it circuits of each size keep."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.commands.trace import check_random
from apps.cli.common import CommandResult, ImageOptions, Many, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.circuit_text import short
from apps.cli.output.console import signed, table
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.tracing.curves.size_curve import SizeCurve
    from circuits.tracing.curves.smallest import SmallestCircuit
    from circuits.tracing.rankings.ranking import Ranking


@command(group="Analysis", order=25, summary="the units a target stands on, and what circuits of each size keep")
@dataclass(frozen=True, kw_only=True)
class Rank(ImageOptions):
    """Rank all units of earlier layers by how much they move a target, over all positions and images.

    Half of the images are ranked on. On the other half, circuits of the first n units are tried, all others at the
    baseline: the share kept for each n, beside random circuits. --keep also looks for the smallest circuit that keeps
    such a share. With --out: rank.json and, with the curve, size_curve.png.

    Example:
        circuits rank scenes/mixed4a:11
        circuits rank googlenet-bvlc/mixed4c:499 --images photos --method mask --keep 0.8 --out car
        circuits rank "scenes/logits:0-logits:3" --layers mixed4a --json
        circuits rank scenes/logits:0 --layers mixed3b --layers mixed4a --of edges --method integrated
    """

    address: tyro.conf.Positional[str]
    """The target: model/layer:unit, with @y,x for one position, a difference, model/logits:0-logits:3, or
    model/predictions: the divergence of the predictions."""
    layers: Many = ()
    """Layer whose units are ranked; may be repeated. LAYER~NAME takes the latents of an SAE (--sae), and as one more
    unit the error that it leaves over. By default the layer before the target's."""
    method: Literal["weights", "gradient", "integrated", "patching", "mask", "random"] = "gradient"
    """Weights, gradient and integrated cost seconds, patching and mask more; see docs/tracing.md."""
    of: Literal["units", "edges"] = "units"
    """Rank units, or the edges from each layer to the next and from the last to the target."""
    baseline: Literal["mean", "resample", "zero"] = "mean"
    """What an ablated unit is set to."""
    against: str | None = None
    """Folder of counterfactual images, one for each image in the order of their names, as the baseline."""
    measure: Literal["explained variance", "mean"] | None = None
    """What of the target's response counts; by default its mean with --against and for predictions, else the explained
    variance."""
    curve: bool = True
    """Do not try circuits of growing size on the images that were not ranked on."""
    random: int = 20
    """How many random circuits of each kind and size to compare with."""
    keep: float | None = None
    """Also look for the smallest circuit that keeps this share, between 0 and 1."""
    top: int = 20
    """How many units, or edges, to print."""

    files: ClassVar[tuple[str, ...]] = ("size_curve.png",)

    def run(self, session: Session) -> CommandResult:
        """Rank, measure the curve, look for the smallest circuit."""
        from circuits.tracing.curves.size_curve import size_curve
        from circuits.tracing.curves.smallest import smallest
        from circuits.tracing.rankings.ranking import rank

        check_random(self.random)
        if self.keep is not None and not 0 < self.keep <= 1:
            raise UsageError(f"--keep is a share above 0, at most 1, not {self.keep:g}")
        if self.of == "edges" and (self.keep is not None or self.method == "mask"):
            raise UsageError("--keep and --method mask are of units: leave out --of edges")
        if self.keep is not None and self.measure is not None:
            raise UsageError("--keep looks for the smallest circuit by the usual measure: leave out --measure")
        if self.against is not None and self.baseline != "mean":
            raise UsageError("--against gives the baseline: leave out --baseline")
        # the difference of two units is two addresses; names of models and layers may hold hyphens of their own
        difference = re.fullmatch(r"(.*:\d+(?:@\d+,\d+)?)-([^/]+:\d+(?:@\d+,\d+)?)", self.address)
        target: Any
        name, _, last = self.address.rpartition("/")
        if last == "predictions" and name:
            model, target = self.load(name), last
        else:
            model, unit = self.address_of(difference[1] if difference else self.address)
            target = unit if difference is None else (unit, difference[2])
        images = self.open_images(model.name)
        options: dict[str, Any] = {
            "layers": list(self.layers) or None, "baseline": self.baseline,
            "against": self.counterfactuals(self.against), "seed": self.seed,
        }  # fmt: skip
        with session.progress("ranking") as report:
            ranking = rank(
                model, target, images=images, method=self.method, of=self.of, measure=self.measure, **options,
                **reporting(report),
            )  # fmt: skip
        curve = None
        if self.curve:
            with session.progress("trying circuits") as report:
                curve = size_curve(model, ranking, random=self.random, seed=self.seed, **reporting(report))
        small = None
        if self.keep is not None:
            with session.progress("looking for the smallest circuit") as report:
                small = smallest(model, target, images=images, keep=self.keep, **options, **reporting(report))

        def show(console: Console) -> None:
            _show(console, ranking, curve, small, self.top)

        def write(folder: Path) -> None:
            from circuits import plot

            if curve is not None:
                plot.save_figure(plot.size_curve_figure(curve), folder / "size_curve.png")

        document = {
            "ranking": ranking.describe(),
            "curve": None if curve is None else curve.describe(),
            "smallest": None if small is None else small.describe(),
        }
        return CommandResult(document, show, write)


def _show(console: Console, ranking: Ranking, curve: SizeCurve | None, small: SmallestCircuit | None, top: int) -> None:
    from circuits.tracing.ablation.edge_ablation import ARROW

    console.print(Text.assemble((ranking.target, "bold"), f"  {len(ranking.units)} {ranking.of}, by {ranking.method}"))
    rows = [
        [" -> ".join(short(unit) for unit in name.split(ARROW)), signed(score), f"{magnitude:.3g}"]
        for name, score, magnitude in zip(
            ranking.units[:top], ranking.scores[:top], ranking.magnitudes[:top], strict=True
        )
    ]
    console.print(table([ranking.of.removesuffix("s"), "share", "magnitude"], rows, right=" rr"))
    note = f"{ranking.n_images} images, baseline {ranking.baseline}, measure {ranking.measure}, seed {ranking.seed}"
    console.print(Text(note, style="dim"))
    if curve is not None:
        console.print()
        medians = {
            kind: [sorted(column)[len(column) // 2] for column in null.f.T] for kind, null in curve.nulls.items()
        }
        lines = [
            [str(size), f, f"{low:.2f} to {high:.2f}", *(medians[kind][i] for kind in medians)]
            for i, (size, f, low, high) in enumerate(zip(curve.sizes, curve.f, curve.f_low, curve.f_high, strict=True))
        ]
        console.print(
            table([ranking.of, "kept", "95 %", *(f"random, {kind}" for kind in medians)], lines, right="rrrrrr")
        )
        areas = f"CPR {curve.cpr.value:.3f}, CMD {curve.cmd.value:.3f}, {curve.n_images} images not ranked on"
        if curve.percentile is not None:
            areas += f"; CPR above {curve.percentile:.0f} % of random curves among the strongest {ranking.of}"
        console.print(Text(areas, style="dim"))
    if small is not None:
        console.print()
        held_out = f"{small.held_out.value:.2f} ({small.held_out.low:.2f} to {small.held_out.high:.2f})"
        circuit = f"{len(small.units)} of {small.n_units} units keep {small.found_share:.2f}"
        units = ", ".join(short(unit) for unit in small.units)
        console.print(Text(f"{circuit}, on other images {held_out}: {units}"))
