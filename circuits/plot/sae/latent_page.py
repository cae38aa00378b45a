"""A page of latents: each with the pictures on which it fires most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from circuits.dataset.scan_results import Scan, UnitScan
from circuits.plot.drawing import crops as pictures
from circuits.plot.drawing import html_page
from circuits.plot.drawing.svg import cropped, escape
from circuits.plot.drawing.wording import number, short
from circuits.plot.units.dossier import quilt

_SIDE = 112


def latents_page(
    scan: Scan,
    space: str,
    indices: Sequence[int],
    *,
    examples: int = 9,
    links: Mapping[str, str] | None = None,
    command: str,
    python: str,
    images: Any = None,
) -> str:
    """Some units of a scanned layer or basis as one HTML page, in which nothing is fetched.

    Args:
        scan: of `circuits.scan`.
        space: the layer or basis, `mixed4c~sae`.
        indices: which of its units.
        examples: pictures shown of each.
        links: address -> page of a unit, relative to this one.
        command, python: what makes the page again.
        images: the scanned pictures, where they are not where they were.

    Raises:
        AddressError: it was not scanned. StoreError: the pictures are not there any more.
    """
    layer = scan.layer(space)
    units = [layer.unit(i) for i in indices]
    opened = scan.pictures(images, check=False)
    crops = pictures.cut_examples({u.unit: u.top[:examples] for u in units}, opened, scan.input_spec)
    rows = "".join(_row(u, crops[u.unit], examples, (links or {}).get(u.unit)) for u in units)
    live = layer.fires_on > 0
    facts = [
        ("units", f"{len(layer):,}"),
        ("fire on any picture", f"{int(live.sum()):,}"),
        ("active at a position, on average", f"{float(layer.density.sum()):.1f}"),
        ("median density of those", f"{100 * float(np.median(layer.density[live])) if live.any() else 0:.2g} %"),
        ("pictures", f"{scan.count:,}"),
    ]
    body = "".join(
        [
            f'<p class="eyebrow">Latents of {escape(space.partition("~")[0])}</p>',
            f'<h1><span class="address">{escape(f"{scan.model}/{space}")}</span></h1>',
            html_page.facts(facts),
            '<p class="note">Each with the pictures on which it fires most, cut to what it sees there.</p>',
            rows,
            html_page.again(command, python),
            html_page.origins(scan.manifest["provenance"]),
        ]
    )
    return html_page.page(f"{scan.model}/{space}", body, html_page.style("dossier.css"))


def _row(unit: UnitScan, crops: Sequence[pictures.Crop], examples: int, link: str | None) -> str:
    name = escape(short(unit.unit).rpartition(":")[2])
    title = f'<a href="{escape(link)}">{name}</a>' if link else name
    classes = [label for label, n in unit.classes.items() if n > 1][:2]
    told = f'<span class="note">{escape(cropped(", ".join(classes), 44))}</span>' if classes else ""
    numbers = (
        f'<span class="note">{100 * unit.density:.2g} % of positions, {unit.fires_on:,} pictures</span>'
        f'<span class="note">strongest {number(unit.maximum)}</span>'
    )
    shown = quilt(unit.top[:examples], crops, _SIDE) if unit.top else '<p class="note">never fires</p>'
    return f'<div class="band latents"><div class="range"><b>{title}</b>{numbers}{told}</div>{shown}</div>'
