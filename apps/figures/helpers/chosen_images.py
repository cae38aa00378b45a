"""The image, the layer and the example units of a figure: chosen once for all figures, with a description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from apps.figures.context import FigureContext, NotApplicable

if TYPE_CHECKING:
    from zoo.images.sources import Images

_CANDIDATES = 200


@dataclass(frozen=True)
class Subject:
    """One image.

    Attributes:
        image: it, alone; index: of it among the images.
        how: it was chosen, for the caption.
        classes: indices of its highest class scores; names: of these classes.
    """

    image: Images
    index: int
    how: str
    classes: tuple[int, ...]
    names: tuple[str, ...]


def subject(context: FigureContext, class_names: Sequence[str] = (), description: str = "images") -> Subject:
    """The image of some classes that the network is most confident of; of any class where there are none of these.

    Args:
        context: of the figure.
        class_names: preferred classes.
        description: of images of these classes in the caption, such as "images of dogs".

    Raises:
        NotApplicable: a network without class scores.
    """
    from circuits.network.hooks import capture

    images, model = context.images, context.model
    if not model.classes:
        raise NotApplicable("needs a network whose classes are known")
    preferred = {name.lower() for name in class_names}
    labels, classes = images.labels, images.classes or ()
    fitting = [i for i, label in enumerate(labels or ()) if classes[label].lower() in preferred]
    candidates = fitting[:_CANDIDATES] or list(range(0, len(images), max(1, len(images) // _CANDIDATES)))

    def most_confident() -> dict[str, Any]:
        scores = capture(model, images.subset(candidates), ["logits"])["logits"].flatten(1).float().cpu()
        probabilities = scores.softmax(1)
        own = torch.tensor([-1 if labels is None else labels[i] for i in candidates])
        own = torch.where((own >= 0) & (own < probabilities.shape[1]), own, probabilities.argmax(1))
        confidence = probabilities.gather(1, own[:, None])[:, 0]
        best = int(confidence.argmax())
        order = scores[best].argsort(descending=True)[:5].tolist()
        return {"index": candidates[best], "classes": order, "chance": float(confidence[best])}

    best = context.cached("subject", most_confident, class_names=sorted(preferred))
    how = (
        f"of {len(candidates)} {description if fitting else 'images'} it is the one that the network is most confident "
        f"of ({100 * best['chance']:.0f} %)"
    )
    top = tuple(int(c) for c in best["classes"])
    names = tuple(model.classes[c].split(",")[0] for c in top)
    return Subject(images.subset([best["index"]]), int(best["index"]), how, top, names)


def layer_of(context: FigureContext, *names: str) -> str:
    """The first of these layers that the model has; in another network a layer at about the same depth.

    Raises:
        NotApplicable: a network without spatial layers.
    """
    layers = context.model.layers
    spatial = [n for n in context.model.trunk if (layers[n].size or (1, 1)) > (1, 1)]
    if not spatial:
        raise NotApplicable("needs a network with spatial layers")
    return next((n for n in names if n in layers), spatial[int(0.6 * len(spatial))])


def random_active_units(context: FigureContext, layer: str, n: int) -> list[str]:
    """Units of a layer sampled at random from the half that is active most often, in the order of the sample.

    Raises:
        NotApplicable: no unit is active.
    """
    density = context.scan.layer(layer).density
    active = np.flatnonzero((density > 0) & (density >= np.median(density)))
    if not len(active):
        raise NotApplicable(f"needs a layer that is active on these images; {layer} is not")
    sample = np.random.default_rng(context.seed).permutation(active)[:n]
    return [str(context.model.unit(f"{layer}:{i}")) for i in sample.tolist()]


def example_units(context: FigureContext, layer: str, published: Sequence[str], n: int = 1) -> tuple[list[str], str]:
    """The published units on their network, on any other `random_active_units`; and how they were chosen."""
    if context.published:
        return [str(context.model.unit(unit)) for unit in published], "as published"
    how = f"sampled at random from the half of {layer} that is active most often"
    return random_active_units(context, layer, n), how
