"""Early Vision: the weights page of a unit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.edges import edge
from apps.figures.helpers.tuned_units import curve_layer, layer_before, search

if TYPE_CHECKING:
    from apps.cli.verify.checks import Check
    from apps.figures.context import FigureContext
    from circuits.attribution.expanded_weights import ExpandedWeights


def _strongest(context: FigureContext) -> Iterator[Check]:
    from apps.cli.verify import inceptionv1

    return inceptionv1.strongest(context.model)


@figure(
    "E14",
    "weights-page",
    "All that a unit reads and feeds",
    paper="early-vision",
    shows="Every unit has a page: its inputs and outputs, strongest first, each with its kernel.",
    cost=15,
    published=_strongest,
)
def page(context: FigureContext) -> FigureResult:
    """The weights page of a curve detector, inputs and outputs by the L2 norm of their expanded weights."""
    import circuits
    from apps.figures.helpers.unit_images import photographs
    from circuits.network.untrained import untrained
    from circuits.plot.drawing.image_wall import weights_page
    from circuits.units.similarity import after

    layer = curve_layer(context)
    found = search(context, "curve", layer, at_least=4)
    unit, below, above = found.one.unit, layer_before(context, layer), after(context.model, layer)
    count = context.size(20, 10, 5)

    def incoming(model: circuits.Model) -> circuits.ExpandedWeights:
        return circuits.expanded_weights(model, source=below, target=unit)

    own = incoming(context.model)
    edges = [edge(context, own, 0, c) for c, _ in own.top(n=count)]
    outgoing = []
    if above is not None:
        onward = circuits.expanded_weights(context.model, source=layer, target=above)
        strongest = onward.norms[:, found.one.index].argsort(descending=True, stable=True)[:count].tolist()
        outgoing = [edge(context, onward, t, found.one.index) for t in strongest]
    shown = [unit, *(e.source for e in edges), *(e.target for e in outgoing)]
    drawing = weights_page(
        unit,
        edges,
        outgoing,
        photographs(context, shown, 4),
        about=(f"the {len(edges)} strongest of {own.kernels.shape[1]} channels of {below}",
               f"the {len(outgoing)} units of {above} that it counts for most"),
    )  # fmt: skip
    share, chance = _carried(own, count), _carried(incoming(untrained(context.model, seed=context.seed)), count)
    claim = Claim(f"few inputs carry the unit: share of the squared weights in the {count} strongest",
                  share, chance, share > chance, "the same unit untrained")  # fmt: skip
    numbers = {
        "unit": unit,
        "inputs": [{"unit": e.source, "weight": e.weight, "kernel": e.kernel} for e in edges],
        "outputs": [{"unit": e.target, "weight": e.weight, "kernel": e.kernel} for e in outgoing],
    }
    caption = (
        f"Expanded weights by L2 norm, signed by their sum; pictures are the places that arouse each unit most. The "
        f"unit is a curve detector; {found.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, [claim])


def _carried(weights: ExpandedWeights, count: int) -> float:
    squared = weights.norms[0].square()
    return float(squared.sort(descending=True).values[:count].sum() / squared.sum().clamp_min(1e-30))
