"""`circuits polysemantic`: units that respond to several unrelated features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, ImageOptions, Many, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, show_next, table
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.network.model import Model
    from circuits.units.polysemanticity import Cluster, Polysemanticities, Polysemanticity
    from circuits.units.pure_units import ClusterAblation
    from sae.evaluation.trust.cluster_separation import Separation
    from zoo.images.sources import Images


@command(group="Analysis", order=130, summary="polysemantic units, and the clusters of images that activate them")
@dataclass(frozen=True, kw_only=True)
class Polysemantic(ImageOptions):
    """Rank the units of a layer by how polysemantic they are; or decompose one unit.

    The top activating images of a unit are clustered by the contributions of the layer before. Clusters
    count when they beat the same procedure on parents shuffled over images and on one cloud of the same shape. The
    score combines how little the groups' parents have in common, how clear they are of the shuffled control, and a
    witness: the share of random assignments of the images to clusters that a deeper layer separates less well. For one
    unit the parents of each cluster are also ablated: its response should fall on that cluster's images only.

    With --sae the clusters of all split channels of a layer are compared with the latents that write to these channels,
    beside an untrained SAE, random directions, principal components, the other channels and shuffled clusters.

    Example:
        circuits polysemantic scenes/mixed4a --images scenes:1000 --out polysemantic
        circuits polysemantic scenes/mixed4a --images scenes:1000@7 --sae saes/parts --out separated
        circuits polysemantic googlenet-bvlc/mixed4e:55 --images photos --out cats-and-cars
    """

    address: tyro.conf.Positional[str]
    """A layer (googlenet-bvlc/mixed4c), a unit (googlenet-bvlc/mixed4e:55), or a latent of an attached basis."""
    top: int = 20
    """How many units to show."""
    n: int = 64
    """Top activating images to cluster for each unit."""
    clusters: int = 4
    """At most so many groups a unit."""
    draws: int = 50
    """Draws of each control."""
    sae: Many = ()
    """Folder of an SAE of the layer, to compare its latents with the clusters; may be repeated."""
    most: int | None = None
    """With --sae: at most so many of the split channels, the highest score first."""
    figures: int = 6
    """How many of the best units get a figure in --out."""

    files: ClassVar[tuple[str, ...]] = ("*.png",)

    def run(self, session: Session) -> CommandResult:
        """Units ranked, or one unit decomposed."""
        from circuits.units.polysemanticity import polysemantic

        for least, names in ((1, ("top", "draws", "most")), (10, ("n",)), (2, ("clusters",)), (0, ("figures",))):
            self.check_least(*names, least=least)
        elapsed = clock()
        model, unit = self.address_of(self.address)
        if self.sae and unit.index is not None:
            raise UsageError(f"--sae compares the split channels of a layer: {unit.layer}, not {unit.short}")
        images = self.open_images(model.name)
        with session.progress(f"clustering {unit.short}") as report:
            result = polysemantic(
                model, unit, images=images, n=self.n, most=self.clusters, draws=self.draws, seed=self.seed,
                **reporting(report),
            )  # fmt: skip
        ablation = None
        if unit.index is not None:
            if not result.rows:
                raise UsageError(
                    f"{unit} is active on fewer than 10 of the {len(images)} images of {images.name}: give more"
                )
            if result.best.split:
                from circuits.units.pure_units import ablate_clusters

                ablation = ablate_clusters(model, result.best, images, seed=self.seed)
        separated = self._separated(session, model, result, images) if self.sae else None
        seconds = elapsed()
        top_rows = result.rows[: self.top]
        document: dict[str, Any] = {
            "address": str(unit),
            "images": {"name": images.name, "count": len(images)},
            "units": len(result.rows),
            "split": result.split,
            "silent": list(result.silent),
            "rows": [row.describe() for row in top_rows],
            "ablation": None if ablation is None else ablation.describe(),
            "provenance": result.provenance,
        }
        if separated is not None:
            document["separation"] = separated.describe()

        def show(console: Console) -> None:
            if unit.index is not None:
                _show_unit(console, result.best, ablation)
            else:
                _show_ranking(console, result, top_rows)
                if separated is not None:
                    _show_separation(console, separated)
                if top_rows:
                    show_next(console, self.follow_up("polysemantic", top_rows[0].unit, *self.image_options))
            console.print(Text(f"{len(images)} images; {seconds:.1f} s", style="dim"))

        def write(folder: Path) -> None:
            from circuits import plot
            from circuits.plot.units.polysemanticity import ablation_table, polysemantic_ranking, polysemantic_unit

            if unit.index is None:
                figure = polysemantic_ranking(result, n=self.top, title=f"Polysemanticity in {unit}")
                plot.save_figure(figure, folder / "ranking.png")
            if separated is not None:
                plot.save_figure(separated.plot(), folder / "separation.png")
            for row in result.rows[: max(self.figures, 1 if unit.index is not None else 0)]:
                name = row.unit.rpartition("/")[2].replace(":", "-").replace("~", "-")
                plot.save_figure(polysemantic_unit(row, images, model.input), folder / f"{name}.png")
            if ablation is not None:
                plot.save_figure(ablation_table(ablation), folder / "ablation.png")

        return CommandResult(document, show, write)

    def _separated(
        self, session: Session, model: Model, result: Polysemanticities, images: Images
    ) -> Separation:  # fmt: skip
        from circuits.network.address import basis_name
        from sae.evaluation.trust.cluster_separation import separation
        from sae.formats import load

        folders = [Path(folder) for folder in self.sae]
        saes = {basis_name(folder): load(folder) for folder in folders}
        if len(saes) < len(folders):
            raise UsageError("--sae: two folders of one name; their names are those of the dictionaries")
        with session.progress("comparing with latents") as report:
            return separation(model, result, saes, images, most=self.most, seed=self.seed, **reporting(report))


def _show_separation(console: Console, separated: Separation) -> None:
    from sae.evaluation.trust.cluster_separation import MEASURES

    names = (*separated.dictionaries, *separated.controls)
    means = {(n, m): separated.mean(n, m) for n in names for m in MEASURES}
    measures = [m for m in MEASURES if any(means[n, m].value == means[n, m].value for n in names)]
    rows = [[n, *(str(v) if (v := means[n, m]).value == v.value else "" for m in measures)] for n in names]
    title = f"{len(separated.rows)} split channels: adjusted Rand index, mean and 95 % interval"
    console.print(table(["dictionary", *measures], rows, title=title))


def _show_ranking(console: Console, result: Polysemanticities, top_rows: tuple[Polysemanticity, ...]) -> None:
    lines = [
        [
            Text(r.unit, style="bold" if r.split else ""),
            f"{r.score:.2f}",
            len(r.clusters),
            f"{r.separation:.2f}",
            f"{r.clear:.2f}",
            "" if r.confirmed is None else f"{100 * r.confirmed:.0f} %",
            " + ".join(str(len(c.examples)) for c in r.clusters),
            " | ".join(_parents(c, 2) for c in r.clusters),
        ]
        for r in top_rows
    ]
    columns = ["unit", "score", "clusters", "separation", "clear", "witness", "examples", "parents"]
    console.print(table(columns, lines, right=" rrrrr"))
    text = f"{result.split} of {len(result.rows)} units are split"
    if result.silent:
        text += f"; {len(result.silent)} are active on too few images"
    console.print(Text(text, style="dim"))


def _show_unit(console: Console, row: Polysemanticity, ablation: ClusterAblation | None) -> None:
    verdict = f"{len(row.clusters)} clusters" if row.split else "one cluster: not split"
    console.print(Text.assemble((row.unit, "bold"), f"  score {row.score:.2f}, {verdict}"))
    lines = [
        [chr(65 + k), len(c.examples), f"{100 * c.share:.0f} %", f"{c.cohesion:.2f}", _parents(c, 6)]
        for k, c in enumerate(row.clusters)
    ]
    columns = ["cluster", "examples", "share", "cohesion", "parents, and their share of the excitation"]
    console.print(table(columns, lines, right=" rrr"))
    controls = f"mean silhouette {row.quality:.2f}; parents shuffled {row.shuffled:.2f}, one cloud {row.single:.2f}"
    console.print(Text(f"{controls} (95th percentiles)", style="dim"))
    if row.agreement is not None and row.confirmed is not None:
        beaten = f"{row.deeper} separates them better than {100 * row.confirmed:.0f} % of random assignments"
        text = f"{beaten}; clusters found there alone agree: adjusted Rand index {row.agreement:.2f}"
        console.print(Text(text, style="dim"))
    if ablation is None:
        return
    names = [chr(65 + k) for k in range(len(ablation.lost))]
    random = ablation.random.mean(axis=0)
    lost = [
        [f"{ablation.counts[i]} of {names[i]}", *(_percent(v) for v in table_[i])]
        for table_, i in [(ablation.lost, i) for i in range(len(names))]
    ]
    lost += [[f"{ablation.counts[i]} at random", *(_percent(v) for v in random[i])] for i in range(len(names))]
    titles = ["parents ablated", *(f"lost on {n}" for n in names)]
    console.print(table(titles, lost, right=" " + "r" * len(names)))


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %".replace("-0 %", "0 %")


def _parents(cluster: Cluster, n: int) -> str:
    return ", ".join(f"{p.unit.rpartition('/')[2]} {100 * p.here:.0f} %" for p in cluster.parents[:n])
