"""The unit that a figure is about: the published one on its network, on any other the unit with the same role.

The index of a unit has a meaning in one network only. In any other network the unit is searched for by its function
(the classes that it separates, its tuning), and the caption states how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.figures.context import FigureContext, NotApplicable

if TYPE_CHECKING:
    from zoo.images.sources import Images

CARS = (
    "car", "ambulance", "beach wagon", "cab", "convertible", "jeep", "limousine", "minivan", "Model T", "racer",
    "sports car", "police van", "pickup", "moving van",
)  # fmt: skip
"""Names of car classes, of scenes and of ImageNet."""


@dataclass(frozen=True)
class Role:
    """A unit with the role of a published one.

    Attributes:
        unit: its address; how: it was chosen, for the caption.
        score: by which it was chosen; chance: the score of the best unit on shuffled labels; None for a published one.
    """

    unit: str
    how: str
    score: float | None = None
    chance: float | None = None


def of_class(context: FigureContext, names: Sequence[str], layers: Sequence[str], role: str, published: str) -> Role:
    """The unit of some layers that best separates images of some classes from the others, by AUC.

    Args:
        context: of the figure.
        names: of classes; those that the images do not have are ignored.
        layers: to search; those that the model lacks are ignored; without any, `deep_layers`.
        role: name of the unit in the caption, such as "a car detector".
        published: address (layer:unit) of the published unit.

    Raises:
        NotApplicable: the images have no labels, or are all of these classes, or none of them.
    """
    from circuits.dataset.concept_search import find

    if context.published:
        return Role(f"{context.model.name}/{published}", f"{published} is the published one")
    positive, negative = split(context.images, names)
    here = [layer for layer in layers if layer in context.model.layers] or deep_layers(context)

    def search() -> dict[str, Any]:
        ranking = find(context.model, positive=positive, negative=negative, layers=here, seed=context.seed)
        return {"unit": str(context.model.unit(ranking.best.unit)), "auc": ranking.best.auc, "chance": ranking.chance}

    best = context.cached("role", search, names=sorted(names), layers=here)
    unit = best["unit"].partition("/")[2]
    how = f"{unit} is {role} of this network (AUC {best['auc']:.2f}, chance {best['chance']:.2f})"
    return Role(best["unit"], how, best["auc"], best["chance"])


def car(context: FigureContext) -> Role:
    """The car detector, like the published one in a branch with kernels larger than 1x1.

    A unit of a 1x1 branch may detect cars as well, but its weights do not show the position of each part.
    """
    layers = [f"mixed4{stage}_{branch}" for stage in "abcd" for branch in ("3x3", "5x5")]
    branches = any(layer in context.model.layers for layer in layers)
    role = "the car detector of the 3x3 and 5x5 branches" if branches else "the car detector"
    return of_class(context, CARS, layers, role, "mixed4c:447")


def dogs() -> tuple[str, ...]:
    """Names of dog classes: of scenes, and the 118 breeds of ImageNet."""
    from zoo.images.classes import imagenet_classes

    names = imagenet_classes()
    return ("dog_left", "dog_right", *names[names.index("Chihuahua") : names.index("Mexican hairless") + 1])


def dog(context: FigureContext) -> Role:
    """The detector of dogs in either pose."""
    return of_class(context, dogs(), ("mixed4b", "mixed4c"), "the dog detector", "mixed4b:418")


def split(images: Images, names: Sequence[str]) -> tuple[Images, Images]:
    """Images of some classes, and the others.

    Raises:
        NotApplicable: the images have no labels, or are all of these classes, or none of them.
    """
    if images.labels is None or images.classes is None:
        raise NotApplicable(
            f"needs labeled images, to find a unit for {names[0]}: folders or files named after classes"
        )
    lower = {name.lower() for name in names}
    positive = [i for i, label in enumerate(images.labels) if images.classes[label].lower() in lower]
    negative = [i for i, label in enumerate(images.labels) if images.classes[label].lower() not in lower]
    if not positive or not negative:
        raise NotApplicable(f"needs images of {', '.join(list(names)[:4])} and of other classes")
    return images.subset(positive), images.subset(negative)


def random_units(context: FigureContext, layer: str, n: int, *, but: Sequence[str] = ()) -> list[str]:
    """Addresses of random units of a layer, as a control.

    Args:
        context: of the figure.
        layer: of the units; n: how many, at most.
        but: addresses of units that are excluded.
    """
    excluded = {int(unit.rpartition(":")[2]) for unit in but}
    others = [i for i in range(context.model.layers[layer].channels) if i not in excluded]
    sample = np.random.default_rng(context.seed).permutation(others)[:n]
    return [str(context.model.unit(f"{layer}:{i}")) for i in sorted(sample.tolist())]


def deep_layers(context: FigureContext) -> list[str]:
    """Spatial layers of the second half of a network that has no layers of InceptionV1: there units detect objects."""
    spatial = [
        name for name, layer in context.model.layers.items() if layer.size is not None and layer.kind != "logits"
    ]
    if not spatial:
        raise NotApplicable("needs a network with spatial layers")
    return spatial[len(spatial) // 2 :]
