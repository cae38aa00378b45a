"""The picture that a figure takes apart, and units drawn by lot: chosen once, and said how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apps.figures.context import NotApplicable

if TYPE_CHECKING:
    from apps.figures.context import FigureContext
    from zoo.images.sources import Images

_TRIED = 200


@dataclass(frozen=True)
class Subject:
    """One picture.

    Attributes:
        image: it, alone; index: of it among the pictures.
        how: it was chosen, for the caption.
        classes: numbers of the class scores that it raises most; names: of them.
    """

    image: Images
    index: int
    how: str
    classes: tuple[int, ...]
    names: tuple[str, ...]


def subject(context: FigureContext, wanted: Sequence[str] = (), what: str = "pictures") -> Subject:
    """The picture of some classes (of any, where there are none such) that the network is surest of.

    Args:
        context: of the figure.
        wanted: names of classes; pictures of others are taken only where there are none of these.
        what: pictures of these classes are called in the caption, such as "pictures of dogs".

    Raises:
        NotApplicable: a network without class scores.
    """
    import torch

    from circuits.network.hooks import capture

    pictures, model = context.images, context.model
    if not model.classes:
        raise NotApplicable("needs a network whose classes are known")
    names = {name.lower() for name in wanted}
    labels, known = pictures.labels, pictures.classes or ()
    fitting = [i for i, label in enumerate(labels or ()) if known[label].lower() in names]
    where = fitting[:_TRIED] or list(range(0, len(pictures), max(1, len(pictures) // _TRIED)))

    def look() -> dict[str, Any]:
        scores = capture(model, pictures.subset(where), ["logits"])["logits"].flatten(1).float().cpu()
        chances = scores.softmax(1)
        own = torch.tensor([-1 if labels is None else labels[i] for i in where])
        own = torch.where((own >= 0) & (own < chances.shape[1]), own, chances.argmax(1))
        sure = chances.gather(1, own[:, None])[:, 0]
        best = int(sure.argmax())
        order = scores[best].argsort(descending=True)[:5].tolist()
        return {"index": where[best], "classes": order, "chance": float(sure[best])}

    best = context.cached("subject", look, wanted=sorted(names))
    kind = what if fitting else "pictures"
    how = f"of {len(where)} {kind} it is the one that the network is surest of ({100 * best['chance']:.0f} %)"
    classes = tuple(int(c) for c in best["classes"])
    titles = tuple(model.classes[c].split(",")[0] for c in classes)
    return Subject(pictures.subset([best["index"]]), int(best["index"]), how, classes, titles)


def layer_of(context: FigureContext, *names: str) -> str:
    """The first of these layers that the model has; of a network of another make one about as deep in it.

    Raises:
        NotApplicable: a network without places.
    """
    layers = context.model.layers
    spatial = [n for n in context.model.trunk if (layers[n].size or (1, 1)) > (1, 1)]
    if not spatial:
        raise NotApplicable("needs a network with layers that have places")
    return next((n for n in names if n in layers), spatial[int(0.6 * len(spatial))])


def drawn_units(context: FigureContext, layer: str, n: int) -> list[str]:
    """Units of a layer drawn by lot, in the order of the draw: of the half that fires most often.

    Raises:
        NotApplicable: none fires.
    """
    import numpy as np

    density = context.scan.layer(layer).density
    fires = np.flatnonzero((density > 0) & (density >= np.median(density)))
    if not len(fires):
        raise NotApplicable(f"needs a layer that fires on these pictures; {layer} does not")
    drawn = np.random.default_rng(context.seed).permutation(fires)[:n]
    return [str(context.model.unit(f"{layer}:{i}")) for i in drawn.tolist()]
