"""`circuits label`: which parts of things the units detect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.commands.scan import STORE
from apps.cli.common import CommandResult, ImageOptions, Many, Session, figures, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, show_next, table
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.dataset.labels.results import PartLabels, UnitLabel


@command(group="Analysis", order=75, summary="label units by the parts that they detect, judged by masks")
@dataclass(frozen=True, kw_only=True)
class LabelUnits(ImageOptions):
    """Label units by the part of a thing that they detect, on images whose parts are outlined.

    The outlines come from a COCO file (polygons or run lengths), or with the images (drawn scenes). Each unit is
    scored for each part by AUC and IoU over pixels. One half of the images chooses the part of each unit, the units of
    each part and the thresholds; what is shown was measured on the other half. Beside it stand the best of as many
    random directions, of the untrained network, and of the same units against the masks of other images. A unit whose
    interval lies above all of these bears the part's name in the store: in dossiers, in the explorer and its search,
    in `circuits find --part`, and in `circuits trace --store`. With --out: label.json and a figure, labels.png.

    Example:
        circuits label googlenet-bvlc --images car-parts/images --annotations car-parts/annotations.json
        circuits label googlenet-bvlc --images photos --annotations parts.json --group glass=front_glass,back_glass
        circuits label scenes --images scenes:400 --layers mixed3b
    """

    model: tyro.conf.Positional[str]
    """Name of a model, as `circuits models` lists them."""
    annotations: Path | None = None
    """COCO file with the outlines of the parts in the images; file names in it are those in the folder of images."""
    group: Many = ()
    """Categories that together are one part: NAME=CATEGORY,CATEGORY. May be repeated."""
    layers: Many = ()
    """A layer to label, or a basis attached to one; may be repeated. By default the trunk."""
    store: Path = STORE
    """Folder to keep the labels in, beside the scan of the model."""
    top: int = 3
    """How many units to show for each part."""

    def run(self, session: Session) -> CommandResult:
        """The best units for each part."""
        from circuits.dataset.labels.label import label

        self.check_least("top")
        groups = parse_groups(self.group)
        if self.annotations is not None and self.limit is not None:
            raise UsageError("--limit would leave images of --annotations out: give a smaller folder and file")
        elapsed = clock()
        model = self.load(self.model)
        images = self.open_images(model.name)
        with session.progress(f"labeling units of {model.name}") as report:
            labels = label(
                model,
                images,
                annotations=self.annotations,
                groups=groups,
                layers=list(self.layers) or None,
                seed=self.seed,
                **reporting(report),
            )
        labels.save(self.store)
        seconds = elapsed()
        document: dict[str, Any] = {**labels.describe(self.top), "store": str(self.store)}

        def show(console: Console) -> None:
            for part in labels.parts:
                show_units(console, part, labels.best(part, top=self.top), labels)
            for part, reason in labels.omitted.items():
                console.print(Text(f"{part}: not judged, {reason}", style="dim"))
            named = len(labels.names())
            console.print(Text(f"{named} units named; {len(images)} images, {seconds:.1f} s", style="dim"))
            show_next(console, self.follow_up("find", model.name, "--part", labels.parts[0], "--store", self.store))

        return CommandResult(document, show, figures(labels=labels.plot))


def parse_groups(options: tuple[str, ...]) -> dict[str, list[str]]:
    """`wheel=front_wheel,back_wheel` options as name -> categories.

    Raises:
        UsageError: one of another form, or a name given twice.
    """
    groups: dict[str, list[str]] = {}
    for option in options:
        name, equals, members = option.partition("=")
        categories = [member.strip() for member in members.split(",")]
        if not (name.strip() and equals and all(categories)):
            raise UsageError(
                f"--group {option!r}: write NAME=CATEGORY,CATEGORY, for example glass=front_glass,back_glass"
            )
        if name.strip() in groups:
            raise UsageError(f"--group {name.strip()} is given twice: list all its categories in one")
        groups[name.strip()] = categories
    return groups


def show_units(console: Console, part: str, units: list[UnitLabel], labels: PartLabels) -> None:
    """The best units of a part, with their controls."""
    rows = [
        [
            Text(u.unit, style="bold" if u.above_controls else ""),
            f"{u.auc:.3f}",
            "" if u.low is None or u.high is None else f"{u.low:.3f} .. {u.high:.3f}",
            f"{u.control:.3f}",
            f"{u.iou:.3f}",
            f"{u.chosen_auc:.3f}",
        ]
        for u in units
    ]
    count = labels.image_counts[part][1]
    columns = [f"{part} ({count} images)", "AUC", "95 % interval", "best control", "IoU", "AUC that chose it"]
    console.print(table(columns, rows, right=" r rrr"))
