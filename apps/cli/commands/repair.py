"""`circuits repair`: hold units still, measure what that mends and costs, and write the network out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, ImageOptions, Many, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import table
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.dataset.audit.repair.export import Export
    from circuits.dataset.audit.repair.result import Repair
    from circuits.dataset.audit.results import Audit
    from circuits.network.model import Model

JUDGED = "The audit chose the units on these images, those that they are measured on included: --held-out gives others."


@command(group="Analysis", order=28, summary="mend a network on labeled groups, and see what that costs")
@dataclass(frozen=True, kw_only=True)
class RepairNetwork(ImageOptions):
    """Train a network on or hold units still, and measure on held-out images what that mends and what it costs.

    Without --units, --layers and --audit every weight is trained on, on half of the images, balanced over classes and
    groups; its rate is chosen by cross-validation there. That needs groups. With --units, or the shortcuts of an
    --audit, those units are held still, at means of that half. With --layers units of those layers are learned that the
    network classifies every group well without. On the other half: accuracy, the worst group, calibration, what else
    changes, beside changes of equal size at random and the last layer trained anew on balanced images. With --export
    the network as it is then, for a process that has only torch. With --out: repair.json.

    With --audit and --layers, or --audit and --how tune, the groups are those that the audit's first shortcut tells
    apart, and no names of groups are needed.

    Example:
        circuits repair scenes-shortcuts/tag-bus-95 --units conv4:54 --images scenes:shortcuts/tag-bus-95:800
        circuits repair scenes-shortcuts/sky-truck-95 --images scenes:shortcuts/sky-truck-95/balanced:800
        circuits repair mine --model mine.py:make --audit audit --images photographs --layers layer3 --layers layer4
        circuits repair mine --model mine.py:make --audit audit --images photographs --groups groups.csv --export out
    """

    model: tyro.conf.Positional[str]
    """Name of a model, as `circuits models` lists them."""
    units: Many = ()
    """Unit to hold still, LAYER:UNIT, or LAYER~NAME:UNIT of an SAE (--sae); may be repeated."""
    audit: Path | None = None
    """Folder of a finished `circuits audit`, whose shortcuts are the units; with --layers or --how tune, the groups."""
    layers: Many = ()
    """Layer whose units may be learned; may be repeated. With --how mean by default the second half of the trunk."""
    how: Literal["mean", "zero", "project", "tune"] | None = None
    """Hold each unit at its mean or at zero, or take the direction that it writes out; or train every weight on."""
    groups: str | None = None
    """CSV file with path,group or path,class,group; or `folders`, those below the classes'; by default the images'."""
    held_out: Many = ()
    """Images to measure on instead of half of --images; may be repeated."""
    random: int = 20
    """How many times other units, about as active, are edited instead."""
    export: Path | None = None
    """Folder to write the network into: edited.pt2, and weights.safetensors where the edit is exactly in weights."""
    way: Literal["repaired", "retrained", "both"] = "repaired"
    """Which network to write: as repaired, with the last layer trained anew, or with both."""

    files: ClassVar[tuple[str, ...]] = ()

    def run(self, session: Session) -> CommandResult:
        """Measure, and export."""
        from circuits.dataset.audit.repair.export import export_folder
        from circuits.dataset.audit.repair.repair import repair

        self.check_least("random", least=0)
        if self.export is None and self.way != "repaired":
            raise UsageError(f"--way {self.way} is which network to write: say where, --export FOLDER")
        if self.export is not None:
            export_folder(self.export)  # before minutes of measuring
        if self.layers and self.units:
            raise UsageError("give --units, or the --layers whose units are learned, not both")
        by_audit = self.audit is not None and (bool(self.layers) or self.how == "tune")
        if by_audit and self.groups is not None:
            raise UsageError("give --groups, or the --audit whose first shortcut tells groups apart, not both")
        model = self.load(self.model)
        units = [model.unit(address) for address in self.units]
        audit = None if self.audit is None else self._audit(model, self.audit)
        if audit is not None and not by_audit:
            claimed = map(model.unit, dict.fromkeys(audit.claimed_units))
            units += [unit for unit in claimed if unit not in units]
        images = self.open_images(model.name)
        held_out = self.others(self.held_out) if self.held_out else None
        with session.progress("repairing") as report:
            result = repair(
                model, images, units or None, layers=self.layers or None, how=self.how, held_out=held_out,
                groups=audit if by_audit else self.groups, random=self.random, seed=self.seed, **reporting(report),
            )  # fmt: skip
        written = None if self.export is None else self._written(model, result, images)

        def show(console: Console) -> None:
            _show(console, result, written)
            if audit is not None and not self.held_out and audit.provenance.get("images_digest") == images.digest:
                console.print(Text(JUDGED, style="yellow"))

        document = {"repair": result.describe(), "export": None if written is None else written.describe()}
        return CommandResult(document, show)

    def _written(self, model: Model, result: Repair, images: Any) -> Export:
        """The network that --way names, in files."""
        from circuits.dataset.audit.repair.export import export

        assert self.export is not None
        if self.way not in result.weights:
            raise UsageError(f"no --way {self.way} to export: {result.retraining}")
        edits = [] if self.way == "retrained" else result.edits
        return export(model, edits, self.export, images=images, weights=result.weights[self.way])

    def others(self, sources: Many) -> Any:
        """Images of --held-out."""
        from zoo.images.sources import open_images

        return open_images(sources[0] if len(sources) == 1 else list(sources))

    def _audit(self, model: Model, folder: Path) -> Audit:
        """A finished audit of the model; its shortcuts are the units, where none are learned."""
        from circuits.dataset.audit.removal import audit_of

        audit = audit_of(model, folder)
        if not audit.claimed and not self.layers and self.how != "tune":
            raise UsageError(f"the audit in {folder} calls no unit a shortcut: give units, --units LAYER:UNIT")
        return audit


def _what(result: Repair) -> str:
    if result.how == "tune":
        return f"every weight trained on, at most {result.rate:.0%} of their size a step"
    return f"{len(result.units)} units, {result.how}: {', '.join(result.units)}"


def _show(console: Console, result: Repair, written: Export | None) -> None:
    console.print(Text.assemble((result.model, "bold"), f"  {_what(result)}"))
    rows = [
        [row["way"], f"{row['accuracy']:.3f}", f"{row['worst_accuracy']:.3f}", row["worst"],
         "" if row["worst_low"] is None else f"{row['worst_low']:.3f} to {row['worst_high']:.3f}",
         f"{row['calibration_error']:.3f}", f"{row['brier']:.3f}"]
        for row in result.records()
    ]  # fmt: skip
    title = f"{len(result.labels)} held-out images of {result.images}"
    console.print(table(["", "accuracy", "worst", "group", "95 %", "ECE", "Brier"], rows, title=title))
    if result.before.groups:
        groups = [
            [name, str(result.group_sizes[name]), f"{value:.3f}", f"{result.after.groups[name]:.3f}"]
            for name, value in result.before.groups.items()
        ]
        console.print(table(["group", "images", "before", "after"], groups))
    if result.validated:
        line = ", ".join(f"{n}: {value:.3f}" for n, value in result.validated.items())
        by = "rate" if result.how == "tune" else "number of units"
        console.print(f"worst accuracy by cross-validation, by {by}: {line}")
    if len(result.curve) > 1:
        line = ", ".join(f"{n}: {of.worst_accuracy:.3f}" for n, of in result.curve.items())
        console.print(f"worst accuracy with the first units: {line}")
    flips = ", ".join(f"{value:.1%} {name}" for name, value in result.flips.items())
    console.print(f"answers: {flips}; last layer retrained: {result.retraining}")
    for sentence in result.limits:
        console.print(Text(sentence, style="yellow"))
    if written is not None:
        console.print(f"{', '.join(written.files)} in {written.folder}; differs by {written.difference:.1e}")
        if written.unfolded:
            console.print(Text(f"no weights.safetensors: {written.unfolded}", style="dim"))
