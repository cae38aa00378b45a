"""From a model's name to the model: cards by name, and `build`, which loads weights or reports what is missing."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from torch import nn

from zoo.cards import CARDS, LIBRARIES, Card, branches_of, key
from zoo.errors import ModelError, did_you_mean, shorten
from zoo.networks.initialization import freeze, seeded
from zoo.progress import Progress
from zoo.weights import loading as _weights
from zoo.weights.loading import WeightsStatus

RANDOM = "random"

_ORIGIN = "_zoo_origin"
"""Attribute of a module that `build` made: the name of its card, and how it is fed."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model ready to be analyzed.

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
    """The models with a card of their own, `scenes` first. Those of libraries are made by `get_card`."""
    return {card.name: card for card in sorted(CARDS.values(), key=lambda card: card.order)}


def model_names() -> list[str]:
    """Every name that can be loaded without an extra: those with cards and `torchvision/<name>`."""
    from zoo.networks import torchvision

    return [*cards(), *(f"torchvision/{name}" for name in torchvision.classifiers())]


def get_card(name: str) -> Card:
    """The card called `name`: one of ours, `torchvision/<name>` or `timm/<name>`; case and `_` for `-` forgiven.

    Raises:
        ModelError: no model of that name; the message gives the nearest.

    Example:
        >>> get_card("googlenet-bvlc").logits
        'softmax_pre'
    """
    if (card := CARDS.get(key(name))) is not None:
        return card
    library, slash, rest = name.strip().partition("/")
    if slash and library.lower() in LIBRARIES:
        return LIBRARIES[library.lower()](rest)
    try:
        near = did_you_mean(key(name), model_names())
    except ModelError:  # torchvision is broken here, but that is not what this is about
        near = did_you_mean(key(name), cards())
    names = ", ".join([*cards(), *(f"{prefix}/<name>" for prefix in LIBRARIES)])
    raise ModelError(f"no model called {shorten(name)!r}.{near} There are {names}")


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
        module = seeded(lambda: _reset(card.build(), card) if card.own else card.build(), seed)
        source = f"random weights, seed {seed}"
    elif weights is None and card.own and card.weights is None:
        module, source = seeded(card.build, seed), f"as {card.own} makes them"
    else:
        if weights is None and card.fetch is not None and _weights.find(card) is None:
            state, source = card.fetch(download), f"{card.name.partition('/')[0]}'s own"
        else:
            state, source = _weights.load(card, weights, may_download=download, progress=progress)
        card = card if card.resized is None else card.resized(state)
        module = seeded(card.build, seed)
        _weights.fit(module, state, source)
    if card.own and module.training:
        source += ", put into eval mode"
    freeze(module)
    card = card if card.complete is None else card.complete(card)
    card = replace(card, branches=branches_of(module))
    vars(module)[_ORIGIN] = (card.name, card.input)  # a plain attribute: copies and pickles of the module keep it
    return Loaded(module, card, _weights.digest(module.state_dict()), source)


def origin(module: nn.Module) -> Card | None:
    """The card of a module that `build` made, also of a copy of it; None of any other module.

    So that the module alone, without its model, is still fed as it was trained.

    Raises:
        ModelError: its card is no longer known here: that of a network of your own, in another process.
    """
    name, spec = vars(module).get(_ORIGIN, (None, None))
    if name is None:
        return None
    return replace(get_card(name), input=spec, branches=branches_of(module))


def _reset(module: nn.Module, card: Card) -> nn.Module:
    """`module` with random weights, whatever the user's code made it with.

    Raises:
        ModelError: a part has parameters of its own and no `reset_parameters`, by which PyTorch's layers draw theirs.
    """
    for name, part in module.named_modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
        elif next(part.parameters(recurse=False), None) is not None:
            raise ModelError(
                f"{card.name} has no random weights: {name or type(part).__name__} has parameters but no "
                "reset_parameters(); leave `random` out"
            )
    return module
