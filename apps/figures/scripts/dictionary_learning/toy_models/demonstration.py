"""Toy Models: the sparser the features, the more of them a few dimensions represent."""

from __future__ import annotations

from dataclasses import replace

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_toys import trained


@figure(
    "T1",
    "toy-demonstration",
    "Sparse features share dimensions",
    paper="toy-models",
    shows="Dense features: the most important have a dimension each. Sparse ones: more are represented than fit.",
    fits="toy",
    cost=30,
)
def draw(context: FigureContext) -> FigureResult:
    """Train a toy model at each density, and a linear one, which is equivalent to PCA."""
    from circuits.plot.superposition.models import gram_figure
    from sae.superposition import train

    runs = trained(context, "demonstration", seeds=(1, 1), steps=(3000, 1500), every=(1, 3))
    best = list(runs.best())
    linear = train([replace(best[-1].model, kind="linear")], steps=2000, lr=3e-3, batch=256, records=2, device="cpu")[0]
    model = best[0].model
    models = [
        {"density": s.model.densities[0], "gram": s.gram, "bias": s.bias, **s.describe()}
        for s in best
    ]  # fmt: skip
    claims = [
        Claim(
            "dense: as many features are represented as there are dimensions",
            best[0].represented,
            model.hidden,
            best[0].represented == model.hidden and best[0].roles().count("dedicated") == model.hidden,
            "dimensions",
        ),
        Claim(
            "sparse: more features are represented than there are dimensions",
            best[-1].represented,
            linear.represented,
            best[-1].represented > model.hidden >= linear.represented,
            "the same model without a ReLU",
        ),
    ]
    caption = (
        f"Toy models of {model.features} features of falling importance in {model.hidden} dimensions, at "
        f"{len(best)} densities: the response of each output to each feature, and the length of each feature's "
        f"direction, yellow where other features interfere. Best of {len(runs) // len(best)} run(s) of each density."
    )
    return FigureResult({"": gram_figure(best)}, {"models": models, "linear": linear.describe()}, caption, claims)
