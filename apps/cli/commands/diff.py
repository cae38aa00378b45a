"""`circuits diff`: two networks at a layer, or two traced circuits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import OF_SCENES, CommandResult, ImageOptions, Session, check_known, figures, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import table
from apps.cli.registry import command
from apps.images import open_sources

if TYPE_CHECKING:
    from circuits.tracing.circuit import CircuitDiff
    from sae.evaluation.diffing.results import ModelDiff


@command(
    group="Analysis", order=115, summary="what two networks share at a layer and only one has; or two traced circuits"
)
@dataclass(frozen=True, kw_only=True)
class DiffModels(ImageOptions):
    """Compare two networks at a layer: which features do they share, and which does only one of them have?

    A crosscoder, one dictionary of both networks, is trained on most of the images and judged on the others. A latent
    counts as one network's alone only if held-out images confirm it. Beside it stand the first network with itself,
    which must give none, and with --null another training of it: what these differ in means nothing. Given two
    circuit.json of `circuits trace`, the circuits are compared, without images.

    Example:
        circuits diff scenes-labels scenes --layer mixed4a --images scenes:300
        circuits diff scenes-labels scenes-labels --layer mixed4a --other-weights without-car.safetensors --out diff
        circuits diff first/circuit.json second/circuit.json
    """

    first: tyro.conf.Positional[str]
    """A network, as `circuits models` lists them; --weights is its weights file. Or a circuit.json."""
    second: tyro.conf.Positional[str]
    """The other network, or the other circuit.json."""
    layer: str | None = None
    """The layer of both networks."""
    other_layer: str | None = None
    """The layer of the second network, where it has another name."""
    other_weights: str | None = None
    """Weights file of the second network, or `random`."""
    null_weights: str | None = None
    """Weights file of another training of the first network, whose differences mean nothing."""
    latents: int = 256
    """Latents of the crosscoder."""
    k: int = 16
    """Active latents of a position, on average."""
    steps: int = 1500
    """Steps of its training."""
    top: int = 12
    """How many latents to show."""

    files: ClassVar[tuple[str, ...]] = ("diff.png", "index.html", "comparison.json")

    def run(self, session: Session) -> CommandResult:
        """The comparison."""
        if any(circuits := [name.endswith(".json") for name in (self.first, self.second)]):
            if not all(circuits) or any((self.layer, self.other_layer, self.other_weights, self.null_weights)):
                raise UsageError("diff compares two circuit.json, without layers and weights; or two networks")
            return self._circuits()
        if self.layer is None:
            raise UsageError("name the layer at which the networks are compared: --layer mixed4a, say")
        from circuits.network.model import load
        from sae.evaluation.diffing.diff import diff

        self.check_least("top")
        if not self.images and not {self.first, self.second} <= {*OF_SCENES}:
            raise UsageError("diff needs images to look at: --images FOLDER (or --images scenes:500)")
        images = open_sources(self.images or ("scenes:400",), self.limit, self.seed)
        model = self.load(self.first)
        check_known(self.second, None)
        other = load(self.second, weights=self.other_weights, device=self.device)
        null = None if self.null_weights is None else load(self.first, weights=self.null_weights, device=self.device)
        with session.progress(f"{self.first} and {self.second} at {self.layer}") as report:
            result = diff(
                model, other, layer=(self.layer, self.other_layer or self.layer), images=images, null=null,
                latents=self.latents, k=self.k, steps=self.steps, seed=self.seed, **reporting(report),
            )  # fmt: skip

        def write(folder: Path) -> None:
            figures(diff=result.plot)(folder)
            result.report(folder / "index.html")
            result.save(folder / "comparison.json")

        return CommandResult(result.describe(), lambda console: _show(console, result, self.top), write)

    def _circuits(self) -> CommandResult:
        from circuits.tracing.circuit import Circuit, diff

        result = diff(Circuit.load(self.first), Circuit.load(self.second))
        return CommandResult(result.describe(), lambda console: _show_circuits(console, result))


def _show(console: Console, result: ModelDiff, top: int) -> None:
    rows = [
        [
            Text(row.comparison), str(row.shared), str(row.only_first), str(row.only_second), str(row.not_confirmed),
            f"{row.fvu_first:.3f}", f"{row.fvu_second:.3f}",
        ]
        for row in (result.counts, *result.controls)
    ]  # fmt: skip
    columns = ["", "shared", "only first", "only second", "not confirmed", "FVU first", "FVU second"]
    console.print(table(columns, rows, right=" rrrrrr"))
    some = [latent for latent in result.latents if latent.kind in ("only first", "only second")][:top]
    if some:
        cells = [
            [
                str(latent.latent), latent.kind, latent.label or "", "" if latent.auc is None else f"{latent.auc:.2f}",
                f"{latent.share:.2f}", f"{latent.shrinkage:.2f}", f"{latent.twin_correlation:.2f}",
                f"{latent.size:.2f}",
            ]
            for latent in some
        ]  # fmt: skip
        console.print(
            table(["latent", "kind", "class", "AUC", "share", "shrinkage", "twin", "size"], cells, right="r  rrrrr")
        )
    for effect in result.effects[:3]:
        control = "" if effect.control is None else f" (control {effect.control:.2f})"
        console.print(
            Text(
                f"{effect.label} in {effect.network} without its {effect.latents} latents: accuracy "
                f"{effect.accuracy:.2f} to {effect.ablated:.2f}{control}",
                style="dim",
            )
        )


def _show_circuits(console: Console, result: CircuitDiff) -> None:
    for name, units in (("both", result.both), ("only first", result.only_first), ("only second", result.only_second)):
        console.print(Text(f"{name}: {', '.join(units) or 'none'}"))
