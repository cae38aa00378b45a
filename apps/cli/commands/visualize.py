"""`circuits visualize`: feature visualization."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import (
    CommandResult,
    ImageOptions,
    Many,
    Session,
    document_text,
    loading_code,
    reporting,
    resumable,
)
from apps.cli.errors import UsageError
from apps.cli.output.circuit_text import short
from apps.cli.output.console import clock, table
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.network.model import Model
    from circuits.visualization import Visualization
    from zoo.images.sources import Images


@command(group="Analysis", order=60, summary="feature visualization: images optimized to activate units")
@dataclass(frozen=True, kw_only=True)
class Visualize(ImageOptions):
    """Visualize features: images optimized to activate each unit as much as possible.

    Takes units, neurons (layer:unit@y,x), latents (layer~basis:unit), or a whole layer for all its units; all of one
    model, many at once. Such images can mislead, so with --images they come beside the photographs that activate the
    units most, with their percentile among them. A unit that no visualization activates is reported as dead.

    With --out each batch is written as it ends: PNGs, the exact images as safetensors, then a report, index.html.
    The same command again goes on where it was stopped, and makes nothing twice.

    Example:
        circuits visualize scenes/mixed4a:11
        circuits visualize scenes/mixed4a --images scenes:300 --out layer
        circuits visualize scenes/mixed4a:11 --layer --steps 128 --out units
        circuits visualize googlenet-bvlc/mixed4c:3 googlenet-bvlc/mixed4c:499 --steps 512 --variants 4 --out variants
    """

    addresses: tyro.conf.Positional[tuple[str, ...]]
    """Units or layers: model/layer:unit, model/layer:unit@y,x, model/layer; several of one model."""
    layer: tyro.conf.FlagCreatePairsOff[bool] = False
    """All units of the layers that the addresses lie in."""
    steps: int = 256
    """Steps of the optimization."""
    size: int | None = None
    """Pixels of the images; by default what the receptive field needs, at most 128."""
    optimum: Literal["positive", "negative"] = "positive"
    """Maximize the unit, or (before its ReLU) minimize it."""
    variants: int = 1
    """Images of each unit; several are made diverse."""
    params: Literal["fourier", "pixels", "cppn", "maco"] = "fourier"
    """What an image is made of: frequencies, pixels, a small network, or phases under natural magnitudes."""
    batch_size: int | None = None
    """Images at once; by default what memory allows."""
    precision: Literal["bf16", "fp16"] | None = None
    """Half precision for the network; by default its own."""
    retries: int = 2
    """Further attempts, from other seeds, for a unit that stays silent."""
    frames: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """A step after which to keep the image too; may be repeated."""
    images: Many = field(default=())
    """Photographs to compare with: a folder, an image, a manifest of `circuits images`, or scenes:500.
    May be repeated. By default none."""

    replace: tyro.conf.FlagCreatePairsOff[bool] = False
    """Begin anew, where --out holds images of ours, of whatever settings."""

    keeps_out: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("index.json", "*.safetensors", "*.png", "index.html")

    def known(self) -> Iterable[str]:
        """The files of a sweep that Python, or an earlier version, has begun there."""
        from circuits.visualization.sweeps.store import files_of

        return () if self.out is None else files_of(self.out)

    def run(self, session: Session) -> CommandResult:
        """Make the images, compare them with photographs, and write the report."""
        self._check()
        elapsed = clock()
        model, units = self._units()
        images = self.open_images(model.name) if self.images else None
        with resumable(self.out):
            results = self._visualized(session, model, units, images)
            document: dict[str, Any] = {
                "model": model.name,
                "weights": model.digest,
                "addresses": units,
                "options": {**self._options(), "params": self.params},
                "images": None if images is None else {"name": images.name, "count": len(images)},
                "results": [r.describe() for r in results],
            }
            if self.out is not None:
                _write(self.out, model, results, images, document, session.invocation, self.python(model, units))
        seconds = elapsed()

        def show(console: Console) -> None:
            columns = ["unit", "status", "response", "peak"] + ["stronger than"] * (images is not None)
            console.print(table(columns, [_row(r) for r in results], right="  rrr"))
            answered = sum(r.status == "ok" for r in results)
            count = f"{len(results)} image{'s' * (len(results) != 1)}"
            console.print(Text(f"{count}, {answered} activated their unit, {seconds:.1f} s", style="dim"))
            weak = [r for r in results if r.warning]
            for result in weak[:5]:
                console.print(f"{result.unit}: {result.warning}", markup=False, highlight=False)
            if len(weak) > 5:
                console.print(f"and {len(weak) - 5} more are weaker than their top activating images")
            end = "--out DIR writes the images and a report" if self.out is None else f"written: {self.out / _PAGE}"
            console.print(Text(end, style="dim"))

        return CommandResult(document, show)

    def _check(self) -> None:
        if not self.addresses:
            raise UsageError("name at least one unit, for example scenes/mixed4a:11")
        self.check_least("steps", "variants", "batch_size", "size")
        self.check_least("retries", least=0)
        if any(not 1 <= step <= self.steps for step in self.frames):
            raise UsageError(f"--frames are steps from 1 to {self.steps}, not {', '.join(map(str, self.frames))}")
        if self.images and self.optimum == "negative":
            raise UsageError("--images are compared by their top activations: leave them out with negative")
        if self.limit is not None and not self.images:
            raise UsageError("--limit goes with --images")
        if self.out is not None:
            from circuits.visualization.sweeps.store import SWEEPS

            SWEEPS.check_writable(self.out)

    def _units(self) -> tuple[Model, list[str]]:
        """The model, and what was asked of it."""
        model, units = self.units_of(self.addresses)
        if self.layer:
            units = [replace(u, index=None, at=None) for u in units]
        return model, list(dict.fromkeys(map(str, units)))

    def _visualized(
        self, session: Session, model: Model, units: list[str], images: Images | None
    ) -> list[Visualization]:
        from circuits.visualization import examine, params, visualize
        from circuits.visualization.sweeps.sweep import sweep

        options = {
            **self._options(),
            "params": getattr(params, _PARAMS[self.params])(),
            "batch_size": self.batch_size,
        }
        with session.progress(f"visualizing {', '.join(map(short, units))[:40]}, step") as report:
            if self.out is not None:
                return sweep(model, units, self.out, images=images, **options, **reporting(report))
            results = visualize(model, units, **options, **reporting(report))
        return results if images is None else examine(model, results, images)

    def _options(self) -> dict[str, Any]:
        """What `visualize` is given, but for the parametrization and the batch size."""
        same = ("steps", "size", "optimum", "variants", "precision", "retries")
        return {name: getattr(self, name) for name in same} | {"frames": sorted(set(self.frames)), "seed": self.seed}

    def python(self, model: Model, units: list[str]) -> str:
        """The Python that does the same."""
        defaults = {f.name: f.default for f in fields(self)} | {"steps": None, "seed": None, "frames": []}
        options = [f"{k}={v!r}" for k, v in self._options().items() if defaults[k] != v]
        if self.params != "fourier":
            options.append(f"params=params.{_PARAMS[self.params]}()")
        lines = [
            "import circuits",
            "from circuits.visualization import examine, params, visualize",
            "from zoo import open_images",
            "",
            loading_code(model.name, self.weights),
            f"units = {units!r}",
            f"results = visualize(model, units, {', '.join(options)})",
        ]
        if self.images:
            lines.append(f"results = examine(model, results, {self.images_code})")
        return "\n".join(lines) + "\n"


_PAGE = "index.html"
_PARAMS = {"fourier": "Fourier", "pixels": "Pixels", "cppn": "Cppn", "maco": "Maco"}
_MOST = 512
"""Images on a contact sheet; more make a figure too large to look at."""


def _row(result: Visualization) -> list[Any]:
    variant = f" variant {result.variant}" if result.variant else ""
    row = [Text(result.unit, style="bold") + Text(variant), result.status, result.response, result.peak]
    return row if result.evidence is None else [*row, f"{result.evidence.percentile:.0f} %"]


def _write(
    out: Path,
    model: Model,
    results: list[Visualization],
    images: Images | None,
    document: dict[str, Any],
    command: str,
    python: str,
) -> None:
    """The report, the contact sheet and the document; the images are there already."""
    from circuits import plot
    from circuits.attribution.class_scores import class_of
    from zoo.common.files import write_text_atomically

    labels = {r.unit: label for r in results if (label := class_of(model, r.unit)) is not None}
    exemplars = None if images is None else plot.exemplars(results, images, model.input)
    page = plot.visualization_report(
        results, model=model.name, command=command, python=python, photographs=exemplars, labels=labels
    )
    for name, content in ((_PAGE, page), ("visualize.json", document_text("visualize", document))):
        write_text_atomically(out / name, content)
    if len(results) <= _MOST:
        sheet = plot.visualization_sheet(results, columns=max(8, round(len(results) ** 0.5)), labels=labels)
        plot.save_figure(sheet, out / "sheet.png")
