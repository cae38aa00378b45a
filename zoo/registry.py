"""From a model's name to the model: cards by name, and `build`, which loads weights or says what is missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from zoo import cards as _cards
from zoo.cards import Card
from zoo.errors import ModelError, did_you_mean, shorten
from zoo.progress import Progress
from zoo.weights import loading as _weights
from zoo.weights.loading import WeightsStatus

_OWN: dict[str, Callable[[], Card]] = {
    "scenes": _cards.scenes,
    "inceptionv1": _cards.inceptionv1,
    "googlenet-bvlc": _cards.googlenet_bvlc,
    "squeezenet-1.1": _cards.squeezenet,
}
RANDOM = "random"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model ready to be looked into.

    Attributes:
        module: in evaluation mode, no parameter asking for a gradient.
        card: its card, with the branches of the built module.
        digest: SHA-256 of its state: sorted names, types, shapes and bytes.
        source: where the weights came from, for people.
    """

    module: nn.Module
    card: Card
    digest: str
    source: str


def cards() -> dict[str, Card]:
    """The models with a card of their own, `scenes` first. torchvision's and timm's are made by `get_card`."""
    return {name: make() for name, make in _OWN.items()}


def model_names() -> list[str]:
    """Every name that can be asked for without an extra: our own and `torchvision/<name>`."""
    from zoo.networks import torchvision

    return [*_OWN, *(f"torchvision/{name}" for name in torchvision.classifiers())]


def get_card(name: str) -> Card:
    """The card called `name`: one of ours, `torchvision/<name>` or `timm/<name>`; case and `_` for `-` forgiven.

    Raises:
        ModelError: no model of that name; the message gives the nearest.

    Example:
        >>> get_card("googlenet-bvlc").logits
        'softmax_pre'
    """
    asked = name.strip()
    plain = asked.lower().replace("_", "-")
    if plain in _OWN:
        return _OWN[plain]()
    library, slash, rest = asked.partition("/")
    if slash and library.lower() == "torchvision":
        from zoo.networks import torchvision

        return torchvision.card(rest)
    if slash and library.lower() == "timm":
        from zoo.networks import timm

        return timm.card(rest)
    try:
        near = did_you_mean(plain, model_names())
    except ModelError:  # torchvision is broken here, but that is not what was asked about
        near = did_you_mean(plain, _OWN)
    raise ModelError(
        f"no model called {shorten(name)!r}.{near} There are {', '.join(_OWN)}, torchvision/<name> and timm/<name>"
    )


def status(card: Card | str) -> WeightsStatus:
    """Whether the weights of a model are here, and where; nothing is loaded or fetched."""
    return _weights.status(get_card(card) if isinstance(card, str) else card)


def build(
    model: str | Card,
    weights: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
    seed: int = 0,
    progress: Progress = None,
) -> Loaded:
    """The model `model` with its weights.

    Args:
        model: a name for `get_card`, or a card.
        weights: None for the published ones, "random" for a random net made from `seed`, or a file.
        download: False forbids fetching anything.
        seed: of a random net; the same seed gives the same weights.
        progress: of a download: True for a bar, or a function of (bytes here, bytes in all).

    Raises:
        ModelError: no such model, or its library is not installed.
        WeightsError: weights missing (the message names file, folder and command), damaged, or not the published ones.
    """
    card = get_card(model) if isinstance(model, str) else model
    if weights == RANDOM:
        module = _cards.seeded(card.build, seed)
        source = f"random weights, seed {seed}"
    else:
        if weights is None and card.fetch is not None and _weights.find(card) is None:
            state, source = card.fetch(download), f"{card.name.partition('/')[0]}'s own"
        else:
            state, source = _weights.load(card, weights, may_download=download, progress=progress)
        module = _cards.seeded(card.build, seed)
        _weights.fit(module, state, source)
    _cards.freeze(module)
    card = replace(card, branches=dict(getattr(module, "branches", {}) or {}))
    return Loaded(module, card, _weights.digest(module.state_dict()), source)
