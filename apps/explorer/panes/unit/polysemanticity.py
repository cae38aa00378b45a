"""Polysemanticity: the examples of a unit, clustered by the units that contributed, against two controls."""

from __future__ import annotations

from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.resources import layer_polysemanticity
from apps.explorer.resources.layer_polysemanticity import LEAST, MOST
from apps.explorer.server.byte_cache import cached
from apps.explorer.session import figures, state
from apps.explorer.session.figures import screen_figure
from apps.explorer.session.state import Location
from circuits import plot
from circuits.dataset.scan_results import Scan, UnitScan
from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.units.polysemanticity import polysemantic
from zoo.progress import Progress


@cached
def _rows(_model: Model, _scan: Scan, weights: str, scan: str, layer: str, stamp: int) -> layer_polysemanticity.Rows:
    return layer_polysemanticity.stored(_model, _scan, layer) or {}


def stored_rows(at: Location) -> layer_polysemanticity.Rows:
    """How polysemantic the units of the layer are, where the store has it: see `circuits scan --polysemantic`."""
    scan, layer = at.scanned, at.unit.space
    path = layer_polysemanticity.path_of(scan, layer)
    if not path.is_file():
        return {}
    return _rows(at.model, scan, at.model.digest, scan.manifest["digest"], layer, path.stat().st_mtime_ns)


def show(at: Location, scanned: UnitScan | None) -> None:
    """Show the clusters."""
    if scanned is None or len(scanned.top) < LEAST:
        st.caption("It is active on too few of the images to cluster them.")
        return
    if at.model.before(at.unit.layer) is None:
        st.caption("Its input is the image itself: no units contribute to it.")
        return
    model, unit, images, spec = at.model, str(at.unit.channel), state.images_of(at), at.scanned.input_spec

    known = stored_rows(at).get(unit)

    def work(progress: Progress) -> Any:
        row = known
        if row is None:
            rows = polysemantic(model, unit, images=images, examples={unit: scanned.top[:MOST]}).rows
            if not rows:
                raise CircuitsError("its examples could not be clustered")
            row = rows[0]
        return row, screen_figure(lambda: plot.polysemantic_unit(row, images, spec))

    key = ("polysemanticity", model.digest, at.scanned.manifest["digest"], unit)
    result = page_frame.background_result(
        key, "clustering its examples by contributions", work, model=model, folder=at.results, images=images
    )
    if result is None:
        return
    row, figure = result
    if row.split:
        st.markdown(
            f"Its examples fall into **{len(row.clusters)} clusters** by the units that contributed to them: score "
            f"{row.score:.2f}, from 0 (one feature) to 1 (features with no contributing units in common)."
        )
    else:
        st.markdown("Its examples do not fall into clusters by the units that contributed to them, beyond chance.")
    figures.show(figure, f"Examples of {at.unit.short}, clustered by contributions")
