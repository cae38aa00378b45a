"""Curve Detectors: photographs that arouse a curve detector more and more, and how often it says how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import Search, curve_layer, layer_before, search

if TYPE_CHECKING:
    from apps.figures.context import FigureContext
    from circuits.dataset.scan_results import UnitScan

_ACROSS = 4
_NORMAL_BEYOND_4 = 3.17e-5  # share of a normal distribution above four standard deviations


def _best(context: FigureContext) -> tuple[Search, UnitScan]:
    found = search(context, "curve", curve_layer(context), at_least=4)
    return found, context.scan.unit(found.one.unit)


@figure(
    "C4",
    "curve-examples",
    "Photographs by how strongly they arouse a curve detector",
    paper="curve-detectors",
    shows="Strong responses stand for curves of one orientation; weak ones also for other things.",
    cost=20,
)
def examples(context: FigureContext) -> FigureResult:
    """A row of crops for each range of responses, the strongest at the top."""
    from circuits.plot import contact_sheet
    from circuits.plot.drawing.crops import cut_examples

    found, seen = _best(context)
    rows, labels = {}, {}
    for i, band in enumerate(reversed(seen.bands)):
        name = f"{_number(band.low)} to {_number(band.high)}"
        rows[name] = list(band.examples[:_ACROSS])
        labels[name] = f"{_percent(band.share)} of firing" if i else "strongest"
    rows["about zero"], rows["most negative"] = list(seen.near_zero[:_ACROSS]), list(seen.most_negative[:_ACROSS])
    rows = {name: shown for name, shown in rows.items() if shown}
    crops = cut_examples(rows, context.images, context.model.input)
    likeness = _likeness(context, seen)
    numbers = {
        "unit": seen.unit,
        "rows": {n: [{"id": e.id, "value": e.value, "position": e.position} for e in r] for n, r in rows.items()},
        "share": {f"{_number(b.low)} to {_number(b.high)}": b.share for b in seen.bands},
        "likeness": likeness,
    }
    top, lot = likeness["strongest"], likeness["by lot"]
    claim = Claim(
        "strong responses stand for one thing: likeness (correlation in the layer below) of the places in the top 1 %",
        top, lot, top > lot, "places drawn by lot",
    )  # fmt: skip
    caption = (
        f"What stands in the receptive field of {seen.unit.rpartition('/')[2]}, places drawn by lot in each range of "
        f"responses (left); at most one a picture and range; {found.how}."
    )
    drawing = contact_sheet(crops, list(rows), labels=labels, columns=_ACROSS)
    return FigureResult({"": drawing}, numbers, caption, [claim])


@figure(
    "C5",
    "curve-histogram",
    "How often a curve detector says how much",
    paper="curve-detectors",
    shows="Most responses are far below zero; those above are rare, and their tail is long.",
    cost=5,
)
def histogram(context: FigureContext) -> FigureResult:
    """The histogram of responses before the rectifier, on a logarithmic scale."""
    from apps.figures.drawing.response_histogram import densities, moments, response_histogram, share_above

    found, seen = _best(context)
    mean, spread = moments(seen)
    beyond = share_above(seen, mean + 4 * spread)
    edges, shares = densities(seen)
    numbers = {
        "unit": seen.unit,
        "edges": edges,
        "shares": shares,
        "mean": mean,
        "spread": spread,
        "positions": seen.positions,
        "density": seen.density,
        "beyond_4_spreads": beyond,
    }
    claims = [
        Claim("a long tail: share of positions beyond 4 standard deviations", beyond, _NORMAL_BEYOND_4,
              beyond > _NORMAL_BEYOND_4, "a normal distribution"),
        Claim("silent at most places: share of positions above zero", seen.density, 0.5, seen.density < 0.5, "half"),
    ]  # fmt: skip
    caption = f"Responses of {seen.unit.rpartition('/')[2]}, a curve detector, before its rectifier; {found.how}."
    return FigureResult({"": response_histogram(seen)}, numbers, caption, claims)


def _likeness(context: FigureContext, seen: UnitScan) -> dict[str, Any]:
    """How alike what the layer below says is, at the top 1 % of places drawn by lot and at any of them."""
    import numpy as np

    layer, index = seen.unit.rpartition("/")[2].split(":")
    values = context.scan.samples(layer).values[:, int(index)]
    below = context.scan.samples(layer_before(context, layer)).values.astype(np.float64)
    below = (below - below.mean(axis=0)) / np.maximum(below.std(axis=0), 1e-12)
    below /= np.maximum(np.linalg.norm(below, axis=1, keepdims=True), 1e-12)
    count = max(10, len(values) // 100)
    strongest = np.argsort(-values, kind="stable")[:count]
    drawn = np.random.default_rng(context.seed).permutation(len(values))[:count]

    def alike(rows: Any) -> float:
        table = below[rows] @ below[rows].T
        return float((table.sum() - np.trace(table)) / (len(rows) * (len(rows) - 1)))

    return {"strongest": alike(strongest), "by lot": alike(drawn), "places": count}


def _number(value: float) -> str:
    return f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
