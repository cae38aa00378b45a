"""A page of latents: each with its top activating images, and with others over the whole range of its activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from circuits.dataset.scan_results import Scan, UnitScan
from circuits.plot.drawing import crops, html_page

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
        examples: images shown of each, of the strongest and again over the whole range.
        links: address -> page of a unit, relative to this one.
        command, python: what reproduces the page.
        images: the scanned images, where they are not where they were.

    Raises:
        AddressError: it was not scanned. StoreError: the images are not there any more.
    """
    layer = scan.layer(space)
    units = [layer.unit(i) for i in indices]
    opened = scan.images(images, check=False)
    live = layer.active_images > 0
    ranges = {u.unit: u.over_range(examples) for u in units}
    groups = {u.unit: u.top[:examples] for u in units} | {f"{unit} range": some for unit, some in ranges.items()}
    facts = [
        ("units", f"{len(layer):,}"),
        ("active on any image", f"{int(live.sum()):,}"),
        ("active at a position, on average", f"{float(layer.density.sum()):.1f}"),
        ("median density of those", f"{100 * float(np.median(layer.density[live])) if live.any() else 0:.2g} %"),
        ("images", f"{scan.count:,}"),
    ]
    return html_page.page(
        "latents.html",
        title=f"{scan.model}/{space}",
        layer=space.partition("~")[0],
        facts=facts,
        units=units,
        ranges=ranges,
        crops=crops.cut_examples(groups, opened, scan.input_spec),
        classes_of=_classes,
        links=links or {},
        examples=examples,
        side=_SIDE,
        command=command,
        python=python,
        provenance=scan.manifest["provenance"],
    )


def _classes(unit: UnitScan) -> str:
    """The commonest classes of a unit's top activating images."""
    return ", ".join([label for label, n in unit.classes.items() if n > 1][:2])
