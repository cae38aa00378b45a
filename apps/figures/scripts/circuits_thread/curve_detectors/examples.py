"""Curve Detectors: dataset examples by the activation of a curve detector, and the histogram of its activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import Search, curve_detectors, layer_before

if TYPE_CHECKING:
    from circuits.dataset.scan_results import UnitScan

_ACROSS = 4
_NORMAL_BEYOND_4 = 3.17e-5  # share of a normal distribution above four standard deviations


def _best(context: FigureContext) -> tuple[Search, UnitScan]:
    detectors = curve_detectors(context, 4)
    return detectors, context.scan.unit(detectors.example.unit)


@figure(
    "C4",
    "curve-examples",
    "Dataset examples over the activations of a curve detector",
    paper="curve-detectors",
    shows="Strong activations are caused by curves of one orientation; weak ones also by other things.",
    cost=20,
)
def examples(context: FigureContext) -> FigureResult:
    """A row of crops for each range of responses, the strongest at the top."""
    from circuits.plot import contact_sheet
    from circuits.plot.drawing.crops import cut_examples

    detectors, scan = _best(context)
    rows, labels = {}, {}
    for i, band in enumerate(reversed(scan.bands)):
        name = f"{band.low:.3g} to {band.high:.3g}"
        rows[name] = list(band.examples[:_ACROSS])
        labels[name] = f"{100 * band.share:.2g} % of activations" if i else "strongest"
    rows["about zero"], rows["most negative"] = list(scan.near_zero[:_ACROSS]), list(scan.most_negative[:_ACROSS])
    rows = {name: members for name, members in rows.items() if members}
    crops = cut_examples(rows, context.images, context.model.input)
    similarity = _similarity(context, scan)
    numbers = {
        "unit": scan.unit,
        "rows": {n: [{"id": e.id, "value": e.value, "position": e.position} for e in r] for n, r in rows.items()},
        "share": {f"{b.low:.3g} to {b.high:.3g}": b.share for b in scan.bands},
        "likeness": similarity,
    }
    claim = Claim.above(
        "strong activations have one cause: mean correlation, in the layer before, of the positions in the top 1 %",
        similarity["strongest"],
        similarity["at random"],
        "random positions",
    )
    caption = (
        f"Receptive-field crops of {scan.unit.rpartition('/')[2]} at random positions in each range of activations "
        f"(left), at most one per image and range; {detectors.how}."
    )
    drawing = contact_sheet(crops, list(rows), labels=labels, columns=_ACROSS)
    return FigureResult({"": drawing}, numbers, caption, [claim])


@figure(
    "C5",
    "curve-histogram",
    "The activation histogram of a curve detector",
    paper="curve-detectors",
    shows="Most responses are far below zero; those above are rare, and their tail is long.",
    cost=5,
)
def histogram(context: FigureContext) -> FigureResult:
    """The histogram of responses before the ReLU, on a logarithmic scale."""
    from apps.figures.drawing.response_histogram import densities, moments, response_histogram, share_above

    detectors, scan = _best(context)
    mean, spread = moments(scan)
    beyond = share_above(scan, mean + 4 * spread)
    edges, shares = densities(scan)
    numbers = {
        "unit": scan.unit,
        "edges": edges,
        "shares": shares,
        "mean": mean,
        "spread": spread,
        "positions": scan.positions,
        "density": scan.density,
        "beyond_4_spreads": beyond,
    }
    claims = [
        Claim.above(
            "a long tail: share of positions beyond 4 standard deviations",
            beyond,
            _NORMAL_BEYOND_4,
            "a normal distribution",
        ),
        Claim.below("inactive at most positions: share of positions above zero", scan.density, 0.5, "half"),
    ]
    caption = f"Responses of {scan.unit.rpartition('/')[2]}, a curve detector, before its ReLU; {detectors.how}."
    return FigureResult({"": response_histogram(scan)}, numbers, caption, claims)


def _similarity(context: FigureContext, scan: UnitScan) -> dict[str, Any]:
    """Mean correlation of the layer before between the top 1 % of sampled positions, and between random ones."""
    layer, index = scan.unit.rpartition("/")[2].split(":")
    values = context.scan.samples(layer).values[:, int(index)]
    below = context.scan.samples(layer_before(context, layer)).values.astype(np.float64)
    below = (below - below.mean(axis=0)) / np.maximum(below.std(axis=0), 1e-12)
    below /= np.maximum(np.linalg.norm(below, axis=1, keepdims=True), 1e-12)
    count = max(10, len(values) // 100)
    strongest = np.argsort(-values, kind="stable")[:count]
    sample = np.random.default_rng(context.seed).permutation(len(values))[:count]

    def mean_correlation(rows: Any) -> float:
        table = below[rows] @ below[rows].T
        return float((table.sum() - np.trace(table)) / (len(rows) * (len(rows) - 1)))

    return {"strongest": mean_correlation(strongest), "at random": mean_correlation(sample), "places": count}
