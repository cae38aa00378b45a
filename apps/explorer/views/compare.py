"""Two units side by side: of one network or of two, a channel and a latent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components import choose
from apps.explorer.components.gallery import gallery, tile
from apps.explorer.pages import Entry
from apps.explorer.panes import unit as panes
from apps.explorer.server.security import guarded, plain
from apps.explorer.session import links, state
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from circuits.errors import AddressError, CircuitsError
from circuits.network.address import Unit
from circuits.plot.drawing.wording import minus
from circuits.units.unit_comparison import UnitComparison, compare_units

PAGE = Entry("Compare", ":material/compare:", "two units side by side, of one network or of two", order=35)


def main() -> None:
    """The page."""
    at, top = page_frame.unit_location(), st.container()
    typed, other, comparison = choose.text("Compare with", "with", 400, "mixed4a:11, or model/layer:unit"), None, None
    with guarded():
        other = _other(at, typed)
        comparison = compare_units(at.scanned, at.unit, other.scanned, other.unit)
    title = at.unit.short if other is None else f"{at.unit.short} and {_name(at, other)}"
    view = {"unit": str(at.unit)} | ({} if other is None else {"with": str(other.unit)})
    with top:
        page_frame.header(
            "compare", title, view=view,
            about="two units, side by side" if comparison is None else "the same images, side by side",
            python="" if other is None else _python(at, other),
            export=None if comparison is None else _export(comparison),
        )  # fmt: skip
    if other is None:
        return
    if comparison is not None:
        _similarity(at, other, comparison)
    for side, column in zip((at, other), st.columns(2, gap="large"), strict=True):
        with column, guarded():
            panes.summary.show(side, "first" if side is at else "second")
    if comparison is not None:
        _nearest(at, other, comparison)


def _other(at: Location, typed: str) -> Location:
    """What the address compares with; without it the unit of the layer that correlates most."""
    if typed:
        unit = at.model.name + "/" + typed if "/" not in typed else typed
        other = state.locate(unit)
        if other.unit.index is None:
            raise AddressError(
                f"{other.unit.short} is a layer: name one of its units, {other.unit.short}:0 for example"
            )
        return other
    return state.locate(compare_units(at.scanned, at.unit, at.scanned, at.unit, n=1).nearest[0][0])


def _name(at: Location, other: Location) -> str:
    return other.unit.short if other.model.name == at.model.name else str(other.unit)


def _similarity(at: Location, other: Location, comparison: UnitComparison) -> None:
    rank = f"{comparison.rank} of {comparison.count}" if comparison.rank else "the same unit"
    columns = st.columns(3)
    columns[0].metric("Correlation of activations", minus(f"{comparison.correlation:.2f}"), border=True)
    columns[1].metric(plain(f"Rank among the units of {other.unit.space}"), rank, border=True)
    columns[2].metric(f"Shared of {comparison.top} top images", comparison.shared, border=True)
    st.caption(plain(
        f"At {comparison.positions:,} positions of the same images, sampled at random. 99 % of pairs of units of the "
        f"two layers correlate by less than {minus(f'{comparison.chance:.2f}')}; by chance the two would share "
        f"{comparison.expected:.1f} top images.{_weights(at, other)}"
    ))  # fmt: skip


def _weights(at: Location, other: Location) -> str:
    """The similarity of incoming weights, which only units of one layer have."""
    if (at.model.name, at.unit.space) != (other.model.name, other.unit.space) or at.unit == other.unit:
        return ""
    try:
        neighbors = state.similarity_in(at, "weights").neighbors(
            str(at.unit.channel), len(at.scanned.layer(at.unit.space))
        )
    except CircuitsError:
        return ""  # the input of the layer is the image
    value = dict(neighbors.rows).get(str(other.unit.channel))
    if value is None:
        return ""
    return minus(f" Cosine of their incoming weights: {value:.2f} (99 % of pairs below {neighbors.chance:.2f}).")


def _nearest(at: Location, other: Location, comparison: UnitComparison) -> None:
    st.markdown(f"##### Units of {plain(f'{other.unit.space} that correlate most with {at.unit.short}')}")
    st.caption("A click compares with it.")
    names, tiles = state.names_of(other), []
    for address, value in comparison.nearest:
        unit = Unit.parse(address)
        mark = "here" if unit == other.unit.channel else "" if value > comparison.chance else "faint"
        src, short = state.thumb_of(other, unit), replace(unit, model=None).short
        tiles.append(
            tile(
                None,
                src,
                alt=short,
                name=names.get(address) or short,
                note=minus(f"{value:.2f}"),
                mark=mark,
                pick=address,
            )
        )
    picked = gallery(tiles, "nearest", size=96, label="units that correlate most")
    if picked and picked != str(other.unit.channel):
        links.change(**{"with": picked})
        st.rerun()


def _python(at: Location, other: Location) -> str:
    scans = [f"circuits.read_scan({str(s.folder.parent)!r}, {s.model!r})" for s in (at.scanned, other.scanned)]
    return (
        "import circuits\nfrom circuits.units.unit_comparison import compare_units\n\n"
        f"first = {scans[0]}\nsecond = {scans[1]}\n"
        f"print(compare_units(first, {at.unit.channel.short!r}, second, {other.unit.channel.short!r}))\n"
    )


def _export(comparison: UnitComparison) -> Export:
    def rows() -> list[dict[str, Any]]:
        return [{"unit": unit, "correlation": value} for unit, value in comparison.nearest]

    return Export(f"{comparison.first}-{comparison.second}", None, comparison.describe, rows)


main()
