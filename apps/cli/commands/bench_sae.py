"""`circuits bench sae`: which metric of an SAE tells trained dictionaries from controls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import OF_SCENES, CommandResult, ImageOptions, Many, Session, figures, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import table
from apps.cli.registry import command
from apps.cli.sae_sites import split
from apps.images import open_sources

if TYPE_CHECKING:
    from sae.evaluation.trust.metric_table import MetricTable
    from zoo.images.sources import Images

OWN = "scenes-labels"
LAYERS = ("mixed3a", "mixed3b", "mixed4a", "mixed4b")


@command(group="Sparse autoencoders", order=60, summary="which SAE metric tells trained dictionaries from controls")
@dataclass(frozen=True, kw_only=True)
class BenchSAE(ImageOptions):
    """Train SAEs and their controls at some layers, and say which metric tells them apart.

    Controls are SAEs with a frozen random encoder or decoder, untrained, trained on shuffled activations or on the
    network with random weights, and the channels, principal and independent components, nonnegative components and
    clusters of the activations, all as sparse. Every metric is measured on held-out images; absorption and splitting on
    planted families of features, which dictionaries of each kind are trained on as well. The table has, of each metric
    and control, the probability that a trained SAE of the same layer scores higher: .5 is chance. With --out:
    bench_sae.json and a figure, metrics.png.

    Example:
        circuits bench sae --quick
        circuits bench sae scenes/mixed3b scenes/mixed4a --judge scenes-labels --seeds 3
        circuits bench sae googlenet-bvlc/mixed4c --images photos --latents 2048 --k 32 --seeds 3 --out bench
        circuits bench sae googlenet-bvlc/mixed4c --images photos --annotated cars --annotations parts.json
    """

    files: ClassVar[tuple[str, ...]] = ("metrics.png",)

    addresses: tyro.conf.Positional[tuple[str, ...]] = ()
    """Layers of one model: model/layer. By default four of the embedded scenes-labels, judged by scenes."""
    judge: str | None = None
    """Another network, in whose eyes the top images of a latent are alike or not; by default the model itself."""
    annotated: Path | None = None
    """Other images, whose parts are annotated: for the metrics of parts, where those of --images have none."""
    annotations: Path | None = None
    """COCO file with the outlines of the parts in the images of --annotated."""
    held_out: float = 0.4
    """Share of the images that nothing is trained on."""
    architecture: str = "topk"
    """Of the SAEs: topk or batchtopk."""
    latents: int | None = None
    """Of each SAE; by default four a channel."""
    k: int = 4
    """Active latents per position."""
    controls: Many = ()
    """A control; may be repeated. By default all."""
    seeds: int = 5
    """Dictionaries of each kind at each layer."""
    steps: int = 600
    """Steps of each training."""
    batch_size: int = 1024
    """Positions per step."""
    predicted: int | None = None
    """Held-out images on which the network predicts with each dictionary in place; by default all."""
    quick: bool = False
    """Two seeds, two layers, short trainings: a look, no result."""

    def run(self, session: Session) -> CommandResult:
        """The table."""
        self.check_least("latents", "k", "steps", "batch_size", "predicted")
        self.check_least("seeds", least=2)
        model, units = self.units_of(self.addresses or tuple(f"{OWN}/{layer}" for layer in LAYERS))
        if any(unit.index is not None for unit in units):
            raise UsageError("bench sae takes layers: model/layer")
        from circuits.network.model import load
        from sae.evaluation.trust.metric_table import CONTROLS, LEAST_IMAGES, metric_table

        layers = [unit.layer for unit in units]
        if unknown := [name for name in self.controls if name not in CONTROLS]:
            raise UsageError(f"--controls {unknown[0]}: known are {', '.join(CONTROLS)}")
        if self.images or model.name not in OF_SCENES:
            images = self.open_images(model.name)
        else:  # enough to hold 40 % of them out
            images = open_sources(("scenes:300" if self.quick else "scenes:1300",), self.limit, self.seed)
        training, held_out = split(images, self.held_out, self.seed)
        if held_out is None or len(held_out) < LEAST_IMAGES:
            there = 0 if held_out is None else len(held_out)
            raise UsageError(
                f"--held-out {self.held_out} of {len(images)} images leaves {there} to measure on; "
                f"{LEAST_IMAGES} at least are needed"
            )
        judge = self.judge or (None if self.addresses else "scenes")
        with session.progress("dictionaries") as report:
            result = metric_table(
                model, layers[:2] if self.quick else layers, training, held_out, annotated_images=self._annotated(),
                judge=None if judge is None else load(judge, device=self.device), configs=self._config,
                controls=self.controls or CONTROLS, seeds=2 if self.quick else self.seeds,
                steps=min(self.steps, 150) if self.quick else self.steps, batch_size=self.batch_size,
                predicted=self.predicted, scaling=True, planted=True, seed=self.seed, **reporting(report),
            )  # fmt: skip

        def show(console: Console) -> None:
            show_table(console, result)

        return CommandResult(result.describe(), show, figures(metrics=result.plot))

    def _annotated(self) -> Images | None:
        if (self.annotated is None) != (self.annotations is None):
            raise UsageError("--annotated, a folder of images, and --annotations, a COCO file, go together")
        if self.annotated is None or self.annotations is None:
            return None
        from zoo.images.coco import open_annotated

        return open_annotated(self.annotated, self.annotations)

    def _config(self, d: int) -> Any:
        from sae.architectures.base import ARCHITECTURES, config_from_dict

        if "k" not in ARCHITECTURES[self.architecture].Config.__dataclass_fields__:
            raise UsageError(f"--architecture {self.architecture} has no k, and controls are compared at equal k: topk")
        return config_from_dict({"architecture": self.architecture, "latents": self.latents or 4 * d, "k": self.k})


def show_table(console: Console, result: MetricTable) -> None:
    """Metrics by row, controls by column, and which metrics hold against each control."""
    controls = result.controls
    rows = [[row["metric"], *(_cell(row[name]) for name in ("trained", *controls))] for row in result.records()]
    title = f"{result.model}: AUROC of trained against each control, {', '.join(result.layers)}"
    console.print(table(["metric", "trained", *controls], rows, title=title, right=" " + "r" * (1 + len(controls))))
    for control in controls:
        trusted = ", ".join(result.trusted(control)) or "nothing"
        console.print(Text.assemble((control, "bold"), f"  separated by {trusted}"))
    console.print(Text(f"{result.seconds:.0f} s of CPU time", style="dim"))


def _cell(value: float) -> str:
    return f"{value:.2f}" if value == value else "-"
