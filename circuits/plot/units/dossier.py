"""The dossier of a unit as one self-contained page. Each section is rendered by the function registered for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from circuits.common.examples import Example
from circuits.dataset.scan_results import Scan, UnitScan
from circuits.network.address import Unit
from circuits.plot.drawing import crops, html_page
from circuits.plot.drawing.wording import number
from circuits.plot.units.section_renderers import RENDERERS, Sheet, described, note
from circuits.units.dossier import SECTIONS, Dossier
from circuits.units.dossier.section_registry import Nothing

TOP, FEW = 24, 8
"""Examples shown of the strongest, and of each other kind."""


def dossier_page(dossier: Dossier, scan: Scan, *, command: str, python: str, images: Any = None) -> str:
    """A dossier as one HTML page, light and dark, in which nothing is fetched.

    Args:
        dossier: of `circuits.units.dossier.explain`.
        scan: the scan it was made from; its images are cut into crops.
        command, python: what reproduces the page.
        images: the scanned images, where they are not where they were.

    Raises:
        StoreError: the images are not there any more.
    """
    sheet = _sheet(dossier, scan, images)
    sections = [
        (
            name,
            SECTIONS[name].title,
            note(part.why) if isinstance(part, Nothing) else (RENDERERS.get(name) or described)(part, sheet),
        )
        for name, part in dossier.parts.items()
    ]
    label = dossier.facts.get("class")  # not in those of version 0.1
    return html_page.page(
        "dossier.html",
        title=f"Dossier of {label} ({dossier.unit})" if label else f"Dossier of {dossier.unit}",
        unit=dossier.unit,
        label=label,
        origin=_origin(dossier.facts),
        facts=_facts(dossier),
        sections=sections,
        omitted=[(name, SECTIONS[name].title) for name in dossier.omitted],
        command=command,
        python=python,
        provenance=dossier.provenance,
    )


def _origin(facts: Mapping[str, Any]) -> str:
    if facts["basis"] is not None:
        return f"A latent of the basis {facts['basis']} at {facts['layer']} of {facts['model']}"
    layer = f"branch {facts['branch']} of {facts['layer']}" if facts["branch"] else str(facts["layer"])
    return f"A unit of {facts['model']}, {layer}"


def _facts(dossier: Dossier) -> list[tuple[str, Any]]:
    field, size, scan = dossier.facts["receptive_field"], dossier.facts["map"], dossier.parts["responses"]
    assert isinstance(scan, UnitScan)
    return [
        ("active at", f"{100 * scan.density:.3g} % of positions"),
        ("on", f"{scan.active_images:,} of {scan.images:,} images"),
        ("maximum", number(scan.maximum)),
        ("mean where active", number(scan.mean_if_on) if scan.active_images else ""),
        ("receptive field", "the whole image" if field is None else f"{field[0]} x {field[1]} pixels"),
        ("map", f"{size[0]} x {size[1]}"),
    ]


# -- crops ----------------------------------------------------------------------------------------


def _sheet(dossier: Dossier, scan: Scan, images: Any) -> Sheet:
    unit = dossier.parts["responses"]
    assert isinstance(unit, UnitScan)
    groups: dict[str, Sequence[Example]] = {
        "top": unit.top[:TOP],
        "random": unit.random[:FEW],
        "near_zero": unit.near_zero[:FEW],
        "most_negative": unit.most_negative[:FEW],
        **{f"band {i}": band.examples for i, band in enumerate(unit.bands)},
    }
    examples = {other: _first(scan, other) for part in dossier.parts.values() for other in _units(part)}
    groups |= {other: (example,) for other, example in examples.items() if example is not None}
    opened = scan.images(images, check=scan.count <= CHECKED)
    cut = crops.cut_examples(groups, opened, scan.input_spec)
    thumbs = {other: cut[other][0] for other, example in examples.items() if example is not None}
    return Sheet(cut, thumbs, opened, scan.input_spec)


CHECKED = 5000
"""So many images at most are read whole to see whether they are still the same ones; else their names must do."""


def _units(part: object) -> Iterable[str]:
    """Units that a section shows besides its own."""
    return list(getattr(part, "related_units", ()))


def _first(scan: Scan, unit: str) -> Example | None:
    at = Unit.parse(unit)
    if at.space not in scan.layers:
        return None
    top = scan.unit(at).top
    return top[0] if top else None
