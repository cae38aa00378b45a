"""All that is known of one unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuits.common.provenance import provenance
from circuits.dataset.scan_results import Scan
from circuits.dataset.scan_store import StoreError
from circuits.errors import CircuitsError, shorten
from circuits.network.address import Unit
from circuits.network.basis import basis_digest
from circuits.network.model import Model
from circuits.units.dossier.section_registry import SECTIONS, Finding, Subject, section
from zoo.common.stored import named
from zoo.progress import Progress, reporter


@dataclass(frozen=True)
class Dossier:
    """All that is known of one unit.

    Attributes:
        unit: address.
        facts: layer, branch, kind, receptive field and what else is known without pictures.
        parts: section name -> what it found, in the order of the page.
        left: names of the sections that were not asked for.
    """

    unit: str
    facts: Mapping[str, Any]
    parts: Mapping[str, Finding]
    left: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "unit": self.unit,
            "facts": dict(self.facts),
            "sections": {name: part.describe() for name, part in self.parts.items()},
            "left": list(self.left),
            "provenance": dict(self.provenance),
        }


def explain(
    model: Model,
    unit: str | Unit,
    scan: Scan,
    *,
    sections: Sequence[str] | None = None,
    images: Any = None,
    seed: int = 0,
    progress: Progress = None,
) -> Dossier:
    """Gather what is known of a unit.

    Args:
        model: the model that was scanned.
        unit: a channel, or a latent of an attached basis that was scanned.
        scan: of `circuits.scan`, or `circuits.read_scan`.
        sections: names of those wanted besides the quick ones; see `circuits.units.dossier.SECTIONS`.
        images: the scanned pictures, where they are not where they were.
        seed: for sections that draw lots.
        progress: True for a bar, or a function of (done, total) sections.

    Raises:
        AddressError: no such unit, or its layer was not scanned. StoreError: the scan is of another model or weights.
        CircuitsError: there is no such section.
    """
    at = model.unit(unit).channel
    if scan.model != model.name or scan.manifest["weights"] != model.digest:
        raise StoreError(
            f"{named(scan.folder)} holds a scan of {shorten(scan.model)} with other weights: scan {model.name} again"
        )
    if at.basis is not None:
        scanned = scan.manifest["asked"].get("bases", {}).get(at.space)
        if at.space in scan.layers and scanned != basis_digest(model.basis(at.layer, at.basis)):
            raise StoreError(f"{named(scan.folder)} holds a scan of another {at.space}: scan it again (--replace)")
    asked = [section(name) for name in dict.fromkeys(sections or ())]
    wanted = [s for s in SECTIONS.values() if s.quick or s in asked]
    subject = Subject(model, at, scan, images, seed)
    parts: dict[str, Finding] = {}
    with reporter(progress, "section") as report:
        for done, one in enumerate(wanted):
            report(done, len(wanted))
            found = one.make(subject)
            if found is not None:
                parts[one.name] = found
    return Dossier(
        unit=str(at),
        facts=_facts(model, at),
        parts=parts,
        left=tuple(s.name for s in SECTIONS.values() if s not in wanted),
        provenance=provenance(
            weights=model.digest,
            weights_source=model.source,
            images=scan.images,
            images_digest=scan.manifest["images"]["digest"],
            n_images=scan.count,
            seed=seed,
        ),
    )


def _facts(model: Model, unit: Unit) -> dict[str, Any]:
    layer, field = model.layers[unit.layer], model.receptive_field(unit)
    if unit.index is None:
        raise CircuitsError(f"{unit} is a layer")
    return {
        "model": model.name,
        "layer": unit.layer,
        "branch": model.branch_of(unit),
        "basis": unit.basis,
        "kind": layer.kind,
        "map": list(layer.size or (1, 1)),
        "receptive_field": None if field is None else list(field.size),
        "input": list(model.input.hw),
    }
