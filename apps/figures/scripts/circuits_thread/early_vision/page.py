"""Early Vision: the weights page of a unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.cli.verify import inceptionv1
from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.edges import edge
from apps.figures.helpers.tuned_units import curve_detectors, curve_layer, layer_before
from apps.figures.helpers.unit_images import top_crops

if TYPE_CHECKING:
    from circuits.attribution.expanded_weights import ExpandedWeights


@figure(
    "E14",
    "weights-page",
    "All incoming and outgoing weights of a unit",
    paper="early-vision",
    shows="Every unit has a page: its inputs and outputs, strongest first, each with its kernel.",
    cost=15,
    published=lambda context: inceptionv1.strongest(context.model),
)
def page(context: FigureContext) -> FigureResult:
    """The weights page of a curve detector, inputs and outputs by the L2 norm of their expanded weights."""
    import circuits
    from circuits.common.untrained import untrained
    from circuits.plot.drawing.image_wall import weights_page
    from circuits.units.similarity import after

    layer = curve_layer(context)
    detectors = curve_detectors(context, 4)
    unit, below, above = detectors.example.unit, layer_before(context, layer), after(context.model, layer)
    count = context.size(20, 10, 5)

    def incoming(model: circuits.Model) -> circuits.ExpandedWeights:
        return circuits.expanded_weights(model, source=below, target=unit)

    own = incoming(context.model)
    edges = [edge(context, own, 0, c) for c, _ in own.top(n=count)]
    outgoing = []
    if above is not None:
        onward = circuits.expanded_weights(context.model, source=layer, target=above)
        strongest = onward.norms[:, detectors.example.index].argsort(descending=True, stable=True)[:count].tolist()
        outgoing = [edge(context, onward, t, detectors.example.index) for t in strongest]
    units = [unit, *(e.source for e in edges), *(e.target for e in outgoing)]
    drawing = weights_page(
        unit,
        edges,
        outgoing,
        top_crops(context, units, 4),
        about=(f"the {len(edges)} strongest of {own.kernels.shape[1]} channels of {below}",
               f"the {len(outgoing)} units of {above} with the largest weights"),
    )  # fmt: skip
    share, chance = _top_share(own, count), _top_share(incoming(untrained(context.model, seed=context.seed)), count)
    claim = Claim.above(
        f"few inputs dominate: share of the squared weights in the {count} strongest",
        share,
        chance,
        "the same unit untrained",
    )
    numbers = {
        "unit": unit,
        "inputs": [{"unit": e.source, "weight": e.weight, "kernel": e.kernel} for e in edges],
        "outputs": [{"unit": e.target, "weight": e.weight, "kernel": e.kernel} for e in outgoing],
    }
    caption = (
        f"Expanded weights by L2 norm, signed by their sum, with crops of top activating images. The unit is a curve "
        f"detector; {detectors.how}."
    )
    return FigureResult({"": drawing}, numbers, caption, [claim])


def _top_share(weights: ExpandedWeights, count: int) -> float:
    squared = weights.norms[0].square()
    return float(squared.sort(descending=True).values[:count].sum() / squared.sum().clamp_min(1e-30))
