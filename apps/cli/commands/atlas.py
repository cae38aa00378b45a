"""`circuits atlas`: the activation atlas of a layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import (
    CommandResult,
    ImageOptions,
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
    from circuits.activations.atlas import Atlas
    from circuits.network.model import Model
    from zoo.images.sources import Images


@command(group="Analysis", order=140, summary="activation atlas of a layer: a map of feature visualizations")
@dataclass(frozen=True, kw_only=True)
class DrawAtlas(ImageOptions):
    """Map the activations of a layer on many images, with a feature visualization for each region.

    Activation vectors at random positions of the images are projected to two dimensions so that similar
    vectors are near each other, averaged over the cells of a grid, and each average is visualized by optimization. The
    similarity of neighboring cells is compared with that of any two cells and of shuffled data.

    The folder gets atlas.png and a page, index.html, which lists the samples, units and classes of each cell.
    The same command again goes on where it was stopped.

    Example:
        circuits atlas scenes/mixed4a --images scenes:500 --grid 8 --out atlas
        circuits atlas googlenet-bvlc/mixed4c --images photos --out mixed4c
    """

    address: tyro.conf.Positional[str]
    """The layer: model/layer."""
    grid: int = 12
    """Cells a side."""
    icon: int = 64
    """Pixels of an icon."""
    steps: int = 128
    """Steps of the optimization of icons; the published atlases took 512."""
    per_image: int = 4
    """Positions sampled of each image."""
    least: int = 4
    """Cells with fewer samples are left empty."""
    plain_directions: tyro.conf.FlagCreatePairsOff[bool] = False
    """Visualize the mean activation of a cell without whitening."""
    batch_size: int | None = None
    """Icons at once."""

    replace: tyro.conf.FlagCreatePairsOff[bool] = False
    """Begin anew, where --out holds an atlas of ours, of whatever settings."""

    keeps_out: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("index.json", "*.safetensors", "index.html", "atlas.png")

    def known(self) -> Iterable[str]:
        """The files of an atlas that Python, or an earlier version, has begun there."""
        from circuits.activations.atlas_store import files_of

        return () if self.out is None else files_of(self.out)

    def run(self, session: Session) -> CommandResult:
        """Make the atlas, its image and its page."""
        from circuits.activations.atlas_builder import activation_atlas

        if self.out is None:
            raise UsageError("an atlas is written into a folder: --out DIR")
        self.check_least("grid", "icon", "steps", "per_image", "least", "batch_size")
        elapsed = clock()
        model, unit = self.address_of(self.address)
        images = self.open_images(model.name)
        with resumable(self.out), session.progress(f"atlas of {unit.short}") as report:
            atlas = activation_atlas(
                model, unit.short, images, **self._options(), store=self.out, seed=self.seed, **reporting(report)
            )
            document = atlas.describe()
            _write(self.out, model, atlas, images, document, session.invocation, self.python(model, unit.short))
        seconds = elapsed()
        out = self.out

        def show(console: Console) -> None:
            cells = document["cells"]
            console.print(Text.assemble((f"{model.name}/{atlas.layer}", "bold"), f"  {len(cells)} cells"))
            rows = [[row.quantity, row.neighbors, row.random, row.shuffled, row.pairs] for row in atlas.similarity]
            columns = ["similarity of", "neighbors", "any two", "shuffled", "pairs"]
            console.print(table(columns, rows, right=" rrrr"))
            fullest = sorted(cells, key=lambda c: -c["count"])[:8]
            lines = [
                [
                    f"{c['row']},{c['column']}",
                    c["count"],
                    ", ".join(short(u["unit"]).rpartition(":")[2] for u in c["units"][:4]),
                    ", ".join(label["class"].split(",")[0] for label in c["labels"][:3]),
                ]
                for c in fullest
            ]
            console.print()
            console.print(table(["fullest cells", "samples", "units", "classes pushed"], lines, right=" r"))
            summary = f"{document['samples']} samples of {document['pictures']} images, {seconds:.1f} s"
            console.print(Text(summary, style="dim"))
            console.print(Text(f"written: {out / 'index.html'}", style="dim"))

        return CommandResult(document, show)

    def _options(self) -> dict[str, Any]:
        return {
            "grid": self.grid,
            "size": self.icon,
            "steps": self.steps,
            "per_image": self.per_image,
            "least": self.least,
            "whiten": not self.plain_directions,
            "batch_size": self.batch_size,
        }

    def python(self, model: Model, layer: str) -> str:
        """The Python that does the same."""
        given = {
            **{k: v for k, v in self._options().items() if v is not None},
            "seed": self.seed,
            "store": str(self.out),
        }
        options = ", ".join(f"{k}={v!r}" for k, v in given.items())
        return (
            "import circuits\nfrom zoo import open_images\n\n"
            f"{loading_code(model.name, self.weights)}\n"
            f"images = {self.images_code}\n"
            f"atlas = circuits.activation_atlas(model, {layer!r}, images, {options})\n"
        )


def _write(
    out: Path, model: Model, atlas: Atlas, images: Images, document: dict[str, Any], command: str, python: str
) -> None:
    """The image, the page and the document; the atlas itself is there already."""
    from circuits import plot
    from circuits.plot.activations.atlas import atlas_figure, atlas_page, example_crops
    from zoo.common.files import write_text_atomically

    crops = example_crops(atlas, images, model.input)
    page = atlas_page(atlas, command=command, python=python, photographs=crops)
    for name, content in (("index.html", page), ("atlas.json", document_text("atlas", document))):
        write_text_atomically(out / name, content)
    plot.save_figure(atlas_figure(atlas), out / "atlas.png")
