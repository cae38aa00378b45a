"""Which unit of this network a figure is about: the published one where its number holds, else one that is found.

A number of a unit says something of one network only. On any other the unit is looked for by what it does (which
pictures it tells from others, what it is tuned to), and the caption says how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apps.figures.context import NotApplicable

if TYPE_CHECKING:
    from apps.figures.context import FigureContext
    from zoo.images.sources import Images

CARS = (
    "car", "ambulance", "beach wagon", "cab", "convertible", "jeep", "limousine", "minivan", "Model T", "racer",
    "sports car", "police van", "pickup", "moving van",
)  # fmt: skip
"""Classes that are cars, in any of the sets of classes that are known."""


@dataclass(frozen=True)
class Role:
    """A unit that plays the part of a published one.

    Attributes:
        unit: its address; how: how it was chosen, for the caption.
        score: by which it was chosen, and chance: what the best unit has by chance; None for a published one.
    """

    unit: str
    how: str
    score: float | None = None
    chance: float | None = None


def of_class(
    context: FigureContext, names: Sequence[str], layers: Sequence[str], what: str, published: str | None = None
) -> Role:
    """The unit of some layers that best tells pictures of some classes from the others.

    Args:
        context: of the figure.
        names: of classes; those that the pictures do not have are passed over.
        layers: to search; those that the model lacks are passed over.
        what: the unit is called in the caption, such as "a car detector".
        published: address (layer:unit) on the network that published numbers hold for.

    Raises:
        NotApplicable: the pictures have no labels, or not both kinds.
    """
    from circuits.dataset.concept_search import find

    if context.published and published is not None:
        return Role(f"{context.model.name}/{published}", f"{published} is the published one")
    positive, negative = split(context.images, names)
    here = [layer for layer in layers if layer in context.model.layers] or deep_layers(context)

    def search() -> dict[str, Any]:
        found = find(context.model, positive=positive, negative=negative, layers=here, seed=context.seed)
        return {"unit": str(context.model.unit(found.best.unit)), "auc": found.best.auc, "chance": found.chance}

    best = context.cached("role", search, names=sorted(names), layers=here)
    how = f"{best['unit'].partition('/')[2]} is {what} found here (AUC {best['auc']:.2f}, chance {best['chance']:.2f})"
    return Role(best["unit"], how, best["auc"], best["chance"])


def car(context: FigureContext) -> Role:
    """The car detector, as the published one in a branch that sees more than one position of the layer before.

    A unit of a 1x1 branch may tell cars as well, but its weights do not say which part lies where.
    """
    layers = [f"mixed4{stage}_{branch}" for stage in "abcd" for branch in ("3x3", "5x5")]
    branches = any(layer in context.model.layers for layer in layers)
    what = "the car detector of the 3x3 and 5x5 branches" if branches else "the car detector"
    return of_class(context, CARS, layers, what, "mixed4c:447")


def dogs() -> tuple[str, ...]:
    """Classes that are dogs: of the drawn scenes, and the 118 breeds of ImageNet."""
    from zoo.images.classes import imagenet_classes

    names = imagenet_classes()
    return ("dog_left", "dog_right", *names[names.index("Chihuahua") : names.index("Mexican hairless") + 1])


def dog(context: FigureContext) -> Role:
    """The unit for dogs, whichever way they face."""
    return of_class(context, dogs(), ("mixed4b", "mixed4c"), "the dog detector", "mixed4b:418")


def split(images: Images, names: Sequence[str]) -> tuple[Images, Images]:
    """Pictures of some classes, and the others.

    Raises:
        NotApplicable: no labels, or not both kinds of pictures.
    """
    if images.labels is None or images.classes is None:
        raise NotApplicable(
            f"needs labeled pictures, to find a unit for {names[0]}: folders or files called after classes"
        )
    wanted = {name.lower() for name in names}
    holds = [images.classes[label].lower() in wanted for label in images.labels]
    if not any(holds) or all(holds):
        raise NotApplicable(f"needs pictures of {', '.join(list(names)[:4])} and of other things")
    positive = [i for i, there in enumerate(holds) if there]
    return images.subset(positive), images.subset([i for i, there in enumerate(holds) if not there])


def random_units(context: FigureContext, layer: str, n: int, *, but: Sequence[str] = ()) -> list[str]:
    """Addresses of units of a layer drawn by seed, as a control for those found in it.

    Args:
        context: of the figure.
        layer: of the units; n: how many, at most.
        but: addresses of units left out.
    """
    import numpy as np

    out = {int(unit.rpartition(":")[2]) for unit in but}
    left = [i for i in range(context.model.layers[layer].channels) if i not in out]
    drawn = np.random.default_rng(context.seed).permutation(left)[:n]
    return [str(context.model.unit(f"{layer}:{i}")) for i in sorted(drawn.tolist())]


def deep_layers(context: FigureContext) -> list[str]:
    """Layers of a network of another make at which objects are told apart: those in the second half of the trunk."""
    spatial = [
        name for name, layer in context.model.layers.items() if layer.size is not None and layer.kind != "logits"
    ]
    if not spatial:
        raise NotApplicable("needs a network with layers that have places")
    return spatial[len(spatial) // 2 :]
