"""`circuits find`: which units know a concept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.commands.label import show_units
from apps.cli.commands.scan import STORE
from apps.cli.common import OF_SCENES, CommandResult, ImageOptions, Many, Session, figures, options_for, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, show_next, table
from apps.cli.output.part_names import concept, stored_labels
from apps.cli.registry import command
from apps.images import open_sources

if TYPE_CHECKING:
    from zoo.images.sources import Images


@command(group="Analysis", order=10, summary="units that separate images of a concept from images without it, by AUC")
@dataclass(frozen=True, kw_only=True)
class Find(ImageOptions):
    """Find the units that separate images of a concept from images without it.

    Every unit of the chosen layers is evaluated on both sets, in one pass, and ranked by its AUC: how often an image
    of the concept activates it more than an image without it (0.5 is chance, 1 is always). One half of the images
    ranks the units; the AUC, its interval and the top images are of the other half. Give two sets of images; or, where
    images have labels (drawn scenes do), one set and the name of a class or part. With --part, the units are those
    that detect a part of a thing, by the labels of `circuits label`; no images are needed.

    Example:
        circuits find scenes --concept car --images scenes:500
        circuits find googlenet-bvlc --part wheel --layers mixed4b
        circuits find googlenet-bvlc --positive cars --negative photos --layers mixed4c --pool mean --top 5
    """

    model: tyro.conf.Positional[str]
    """Name of a model, as `circuits models` lists them."""
    positive: Many = ()
    """Images of the concept: a folder, image or manifest; may be repeated."""
    negative: Many = ()
    """Images without it; may be repeated."""
    concept: str | None = None
    """A class or part in the labels of --images, instead of --positive and --negative."""
    part: str | None = None
    """A part that `circuits label` judged by masks, in the store."""
    store: Path | None = None
    """Folder that the part labels were kept in; with --part, by default `store`."""
    layers: Many = ()
    """Layers to search; may be repeated. By default the whole trunk."""
    pool: Literal["max", "mean"] = "max"
    """A unit's response to an image: its maximum over positions, or its mean."""
    top: int = 10
    """How many units to show."""

    files: ClassVar[tuple[str, ...]] = ("find.png",)

    def run(self, session: Session) -> CommandResult:
        """Units ranked by AUC."""
        from circuits import plot
        from circuits.dataset.concept_search import find

        self.check_least("top")
        if self.part is not None:
            return self._by_part(self.part)
        if self.store is not None:
            raise UsageError("--store has the part labels for --part NAME; give that too")
        elapsed = clock()
        self._check_sets()
        model = self.load(self.model)
        layers = [model.resolve(name).space for name in self.layers] or model.trunk
        positive, negative = self._sets(model.name)
        with session.progress(f"searching {len(layers)} layers of {model.name}") as report:
            findings = find(
                model,
                positive=positive,
                negative=negative,
                layers=layers,
                pool=self.pool,
                seed=self.seed,
                intervals=self.top,
                **reporting(report),
            )
        seconds = elapsed()
        rows = [row.describe() for row in findings.rows[: self.top]]
        document: dict[str, Any] = {
            "model": model.name,
            "layers": layers,
            "pool": self.pool,
            "positive": {"name": positive.name, "count": len(positive)},
            "negative": {"name": negative.name, "count": len(negative)},
            "units": len(findings.rows),
            "chance": findings.chance,
            "rows": rows,
            "provenance": findings.provenance,
        }

        def show(console: Console) -> None:
            lines = [
                [
                    Text(r["unit"], style="bold"),
                    f"{r['auc']:.3f}",
                    f"{r['low']:.3f} .. {r['high']:.3f}",
                    f"{sum(t['positive'] for t in r['top'])} of {len(r['top'])}",
                    r["mean_positive"],
                    r["mean_negative"],
                ]
                for r in rows
            ]
            columns = ["unit", "AUC", "95 % interval", "top images with it", "mean with", "mean without"]
            console.print(table(columns, lines, right=" r rrr"))
            if rows:
                console.print(
                    Text("top images of the first: " + ", ".join(_named(t) for t in rows[0]["top"]), style="dim")
                )
            sets = (
                f"{len(positive)} images with, {len(negative)} without; {len(findings.rows)} units by their {self.pool}"
            )
            chance = f"with images shuffled the best AUC is {findings.chance:.3f}"
            console.print(Text(f"{sets}; {chance}; {seconds:.1f} s", style="dim"))
            console.print(Text("best first by one half of the images; all figures are of the other half", style="dim"))
            if rows:
                # units of the first layer read the image itself, which trace refuses
                first = model.trunk[0] if model.trunk else ""
                deeper = next((row for row in findings.rows if model.resolve(row.unit).layer != first), None)
                sources = self.image_options if self.concept else options_for("--images", self.positive)
                verb = ("weights", rows[0]["unit"]) if deeper is None else ("trace", deeper.unit, *sources)
                show_next(console, self.follow_up(*verb))

        title = f"{self.concept or positive.name} in {model.name}"
        ranked: Any = findings.rows[: self.top]  # these have intervals
        return CommandResult(document, show, figures(find=lambda: plot.auc_table(ranked, n=self.top, title=title)))

    def _by_part(self, part: str) -> CommandResult:
        """The units that detect a part best, by the stored labels."""
        store = STORE if self.store is None else self.store
        if self.positive or self.negative or self.concept is not None or self.images:
            raise UsageError("--part takes the labels of the store; leave images and --concept out")
        model = self.load(self.model)
        labels = stored_labels(store, model.name, model.digest)
        layers = [model.resolve(name).space for name in self.layers] or list(labels.layers)
        units = labels.best(part, layers=layers, top=self.top)
        document: dict[str, Any] = {
            "model": model.name,
            "part": part,
            "layers": layers,
            "store": str(store),
            "rows": [unit.describe() for unit in units],
            "controls": {layer: labels.controls(part, layer) for layer in layers},
            "provenance": labels.provenance,
        }

        def show(console: Console) -> None:
            show_units(console, part, units, labels)
            sources = (labels.images.get("origin") or {}).get("sources", ())
            if sources or model.name in OF_SCENES:
                images = options_for("--images", sources)
                show_next(console, self.follow_up("trace", units[0].unit, *images, "--store", store))

        return CommandResult(document, show)

    def _check_sets(self) -> None:
        if self.concept is not None and (self.positive or self.negative):
            raise UsageError("give either --concept with --images, or --positive and --negative")
        if self.concept is None and not (self.positive and self.negative):
            raise UsageError("find needs --positive and --negative images, or --concept NAME with labeled --images")
        if self.concept is None and self.images:
            raise UsageError("--images goes with --concept; with --positive and --negative leave it out")

    def _sets(self, model: str) -> tuple[Images, Images]:
        if self.concept is not None:
            return concept(self.open_images(model), self.concept)
        return (
            open_sources(self.positive, self.limit, self.seed),
            open_sources(self.negative, self.limit, self.seed),
        )


def _named(top: dict[str, Any]) -> str:
    return f"{top['image']}{'' if top['positive'] else ' (without)'}"
