"""The dossier of one unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuits.attribution.class_scores import class_of
from circuits.common.provenance import provenance
from circuits.dataset.scan_results import Scan
from circuits.dataset.scan_store import StoreError
from circuits.dataset.scan_targets import as_scanned
from circuits.errors import CircuitsError, shorten
from circuits.network.address import Unit
from circuits.network.basis import basis_digest
from circuits.network.model import Model
from circuits.units.dossier.section_registry import SECTIONS, Finding, Subject, page_order
from zoo.common.results import Result, called, remembers
from zoo.common.stored import named
from zoo.progress import Progress, reporter


@dataclass(frozen=True)
class Dossier(Result):
    """What is known of one unit.

    Attributes:
        unit: address.
        facts: layer, branch, kind, receptive field and what else is known without images.
        parts: section name -> its finding, in the order of the page.
        omitted: names of the sections that were not asked for.
    """

    unit: str
    facts: Mapping[str, Any]
    parts: Mapping[str, Finding] = field(metadata=called("sections"))
    omitted: tuple[str, ...] = field(metadata=called("left"))
    provenance: Mapping[str, Any] = field(default_factory=dict)


@remembers("model", "scan", "images")
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
    """Gather what is known of a unit: statistics, top activating images, weights, similar units, and more on demand.

    Args:
        model: the model that was scanned.
        unit: a channel, or a latent of an attached basis that was scanned.
        scan: of `circuits.scan`, or `circuits.read_scan`.
        sections: names of sections to make besides the quick ones; see `circuits.units.dossier.SECTIONS`.
        images: the scanned images, where they have been moved since.
        seed: for sections that sample at random.
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
    at = as_scanned(model, at, scan.layers)
    if at.basis is not None:
        scanned = scan.manifest["asked"].get("bases", {}).get(at.space)
        if at.space in scan.layers and scanned != basis_digest(model.basis(at.layer, at.basis)):
            raise StoreError(f"{named(scan.folder)} holds a scan of another {at.space}: scan it again (--replace)")
    requested = {SECTIONS[name].name for name in sections or ()}
    chosen = [entry for entry in page_order() if entry.quick or entry.name in requested]
    subject = Subject(model, at, scan, images, seed)
    parts: dict[str, Finding] = {}
    with reporter(progress, "section") as report:
        for done, entry in enumerate(chosen):
            report(done, len(chosen))
            finding = entry.make(subject)
            if finding is not None:
                parts[entry.name] = finding
    return Dossier(
        unit=str(at),
        facts=_facts(model, at),
        parts=parts,
        omitted=tuple(entry.name for entry in page_order() if entry not in chosen),
        provenance=provenance(
            weights=model.digest,
            weights_source=model.source,
            images=scan.image_source,
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
        "class": class_of(model, unit),
        "kind": layer.kind,
        "map": list(layer.size or (1, 1)),
        "receptive_field": None if field is None else list(field.size),
        "input": list(model.input.hw),
    }
