"""A card: everything about a model that is known before it is built. Each is defined in its file of `zoo/networks`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from zoo.common.registries import Registry, import_modules
from zoo.errors import ModelError, shorten
from zoo.inputs import InputSpec

State = dict[str, Tensor]
_NAME = re.compile(r"\w[\w.+\-]*(?: [\w.+\-]+)*")
"""What addresses can name."""


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """The file that holds a model's published weights.

    Attributes:
        filename: its name in the weights folder or the cache; for packaged weights, its path inside `zoo`.
        sha256: SHA-256 of the file, or its first hexadecimal digits where only those are published.
        git_blob: git blob id of the file, `sha1("blob <size>\\0" + bytes)`, where that is what is published.
        url: where a verified download may fetch it, or None.
        packaged: True when it is part of this package.
        other_names: names under which the same weights are known in other containers.
        folders: further folders to look in, after `$CIRCUITS_WEIGHTS` and the cache.
    """

    filename: str
    sha256: str | None = None
    git_blob: str | None = None
    url: str | None = None
    packaged: bool = False
    other_names: tuple[str, ...] = ()
    folders: Callable[[], list[Path]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All file names to look for, converted and original."""
        return (self.filename, *self.other_names)


def _unchanged(state: State) -> State:
    return state


def _no_classes() -> list[str]:
    return []


def _no_check(state: State) -> None:
    return None


@dataclass(frozen=True, eq=False)
class Card:
    """Everything about a model that holds before its weights are loaded.

    Attributes:
        name: the name it is loaded by, and the model part of addresses.
        title, summary: one phrase and one sentence for people.
        input: how its images are prepared.
        build: makes the module with random weights.
        weights: the file of its weights, or None when it has none of its own.
        rename: a file's tensors -> the module's state, whatever names the file uses.
        check: raises `WeightsError` when renamed tensors are recognizably not the published ones.
        logits: the layer whose output is the class scores before the softmax.
        output: which output holds the class scores, of networks that give several ("out", 0), or None.
        axes: layer -> its axes, for layers whose axes cannot be found out; see `circuits.wrap`.
        classes: class names in output order; empty when unknown.
        aliases: other names of layers -> the layer.
        branches: branch name -> (layer, first channel, end channel), filled from the built module.
        converts: True when a file in a foreign container is converted once to safetensors in the cache.
        fetch: for models whose library brings its own weights: the state, given leave to download.
        resized: for libraries whose classifiers take any number of classes: the card that fits a file's tensors.
        own: what `--model` takes for a model of the user's own; empty for all others. `build` returns such a model with
            its weights, unless `weights` names a file.
        complete: the card with what is known only once the module was built.
        license, source: of the weights.
        order: position in lists of models, the lowest first.
    """

    name: str
    title: str
    summary: str
    input: InputSpec
    build: Callable[[], nn.Module]
    weights: WeightsFile | None = None
    rename: Callable[[State], State] = _unchanged
    check: Callable[[State], None] = _no_check
    logits: str = "softmax_pre"
    output: str | int | None = None
    axes: Mapping[str, str] = field(default_factory=dict)
    classes: Callable[[], list[str]] = _no_classes
    aliases: dict[str, str] = field(default_factory=dict)
    branches: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    converts: bool = False
    fetch: Callable[[bool], State] | None = None
    resized: Callable[[State], Card] | None = None
    own: str = ""
    complete: Callable[[Card], Card] | None = None
    license: str = ""
    source: str = ""
    order: int = 100


CARDS: Registry[Card] = Registry(
    "model", group="vision_circuits.cards", load=lambda: import_modules("zoo.networks"), error=ModelError
)
"""Cards by `key`. Files of `zoo/networks` and installed packages with the entry point add theirs."""

LIBRARIES: Registry[Callable[[str], Card]] = Registry("library of models", load=lambda: len(CARDS), error=ModelError)
"""Libraries whose models have names of their own, such as `torchvision/resnet18`: prefix -> what makes a card."""


def branches_of(module: nn.Module) -> dict[str, tuple[str, int, int]]:
    """Branches that a network of the zoo names: see `Card`. Other networks may mean anything by that attribute."""
    named = getattr(module, "branches", None)
    if not isinstance(named, dict):
        return {}
    return {
        name: branch
        for name, branch in named.items()
        if isinstance(branch, tuple) and tuple(map(type, branch)) == (str, int, int)
    }


def key(name: str) -> str:
    """`name` as `CARDS` has it: lower case, `-` for `_`."""
    return name.strip().lower().replace("_", "-")


def register(card: Card, *, replace: bool = False) -> Card:
    """Make `card` a model that can be loaded by its name.

    A file of `zoo/networks` calls this when it is imported; so does a module that an installed package declares as an
    entry point of the group `vision_circuits.cards`.

    Args:
        card: how the model is built, fed and labeled, and where its weights are.
        replace: take the place of a card of the same name.

    Returns:
        The card.

    Raises:
        ModelError: the name is empty, has a character that addresses give a meaning to, or belongs to another card.

    Example:
        >>> size = InputSpec(size=8)
        >>> register(Card("tiny", "Tiny", "One layer.", size, build=lambda: nn.Conv2d(3, 2, 1))).name  # doctest: +SKIP
        'tiny'
    """
    if not _NAME.fullmatch(card.name):
        raise ModelError(
            f"a model cannot be called {shorten(card.name)!r}: use letters, digits, '-', '_', '+' and '.', "
            "and single spaces between them"
        )
    if not replace and CARDS.get(key(card.name), card) is not card:  # looking it up loads ours first
        raise ModelError(f"there is a model {card.name!r} already: give it another name, or replace=True")
    return CARDS.add(key(card.name), card, replace=replace)
