"""Dataset examples: top activating, from strong to weak, a random sample, near zero, and most negative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.components.gallery import gallery, tile
from apps.explorer.panes import crops
from apps.explorer.session import state
from apps.explorer.session.state import Location
from circuits.common.examples import Example
from circuits.dataset.scan_results import UnitScan
from circuits.plot.drawing.wording import minus, number

KINDS = {
    "top": "Top activating images",
    "bands": "Strong to weak",
    "random": "Random sample",
    "near": "Near zero",
    "negative": "Most negative",
}
CROPS = {"field": "Receptive-field crop", "image": "Whole image", "heatmap": "Heatmap"}
TOP, FEW = 24, 12


def show(at: Location, scanned: UnitScan) -> str | None:
    """Show examples; a clicked one is returned as `image@y,x`."""
    with st.container(horizontal=True, gap="medium"):
        kind = choose("Examples", KINDS, "examples")
        crop = choose("Crop", CROPS, "crop")
    groups = _groups(scanned, kind)
    if not any(examples for _, examples in groups):
        st.info(_nothing(scanned, kind))
        return None
    picked = None
    for i, (title, examples) in enumerate(groups):
        if title:
            st.caption(title)
        picked = _gallery(at, examples, cast(crops.CropKind, crop), f"{kind}-{i}", len(groups) > 1) or picked
    return picked


def _groups(scanned: UnitScan, kind: str) -> list[tuple[str, Sequence[Example]]]:
    if kind == "bands":
        return [
            (f"{number(b.low)} to {number(b.high)}: {100 * b.share:.3g} % of its active positions", b.examples)
            for b in reversed(scanned.bands)
        ]
    choices = {
        "top": scanned.top[:TOP],
        "random": scanned.random,
        "near": scanned.near_zero,
        "negative": scanned.most_negative,
    }
    return [("", choices[kind][: TOP if kind == "top" else FEW])]


def _nothing(scanned: UnitScan, kind: str) -> str:
    if kind in ("top", "random", "bands"):
        return f"It is active on none of the {scanned.images:,} images."
    if not scanned.signed:
        return "Its activations were recorded after its ReLU, so none is negative."
    return "There is no such position."


def _gallery(at: Location, examples: Sequence[Example], crop: crops.CropKind, key: str, small: bool) -> str | None:
    if crop == "heatmap":
        scan, images = at.scanned, state.images_of(at)
        sources = page_frame.background_result(
            ("heatmap", scan.manifest["digest"], str(at.unit), key),
            "heatmaps",
            lambda report: crops.heatmaps(at.model, at.unit, examples, images, scan.input_spec, report),
            model=at.model,
        )
        if sources is None:
            return None
    else:
        sources = crops.cut(at, examples, crop)
    tiles = [
        tile(
            None,
            src,
            alt=f"{e.id}, position {e.position[0]},{e.position[1]}: {minus(f'{e.value:.3g}')}",
            note=minus(f"{e.value:.3g}"),
            pick=f"{e.image}@{e.position[0]},{e.position[1]}",
        )
        for e, src in zip(examples, sources, strict=True)
    ]
    return gallery(tiles, f"examples-{key}", size=70 if small else 84, label=f"examples of {at.unit.short}")
