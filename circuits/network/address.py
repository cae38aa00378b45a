"""One address for everything that can be looked at: `model/layer~basis:index@y,x`.

The same string serves the API, the command line, URLs, JSON and figures. Every part but the layer may
be left out: `mixed4c`, `mixed4c:499`, `googlenet-bvlc/mixed4c:499@7,7`, `googlenet-bvlc/mixed4c~topk-8k:1021`.
A module that runs more than once has one layer per call: `layer1.0.relu.call1` is its second call. In a network of
tokens a unit is a dimension of the stream, `@y,x` a patch of the grid, and `block3:17@cls` the class token; the layer
of class tokens alone is `block3.cls`. `logits:truck` is the score of a class by its name, which
`Model.resolve` turns into its number. In a network of sequences a position is `@t`, in one of volumes `@z,y,x`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuits.errors import AddressError, did_you_mean, shorten

MAX_LENGTH = 300
# letters and digits of any script, and single spaces between words: names come from the user's files and modules
_LAYER = _BASIS = re.compile(r"\w[\w.\-]*(?: [\w.\-]+)*")
_MODEL = re.compile(r"(?:hf:[./]*)?\w[\w.+\-]*(?:[ /][\w.+\-]+)*")
_INDEX = re.compile(r"\d{1,9}", re.ASCII)
_POSITION = re.compile(r"\d{1,6}(?:,\d{1,6}){0,2}", re.ASCII)
_TOKEN = re.compile(r"[a-z][a-z0-9_]{0,30}", re.ASCII)
_GRAMMAR = "[model/]layer[~basis][:index][@y,x or @token], for example googlenet-bvlc/mixed4c:499@7,7"


class Position(tuple[int, ...]):
    """`(y, x)` on a layer's maps, written as the network's own positions are: `@t` of sequences, `@z,y,x` of volumes.

    Attributes:
        written: those numbers.
    """

    written: tuple[int, ...]

    def __new__(cls, at: Iterable[int], written: tuple[int, ...] | None = None) -> Position:
        self = super().__new__(cls, at)
        self.written = tuple(self) if written is None else written
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Position, (tuple(self), self.written)


@dataclass(frozen=True)
class Unit:
    """The address of a layer, a channel, a neuron, or a latent of a basis attached to a layer.

    Attributes:
        layer: layer name.
        index: channel of the layer, or latent of `basis`; None addresses the whole layer.
        model: model name, or None where the model is given otherwise.
        basis: name of an attached basis (an SAE, say), or None for the layer's own channels.
        at: spatial position `(y, x)` on the layer's grid, or None for the channel everywhere. As it is written, `(t,)`
            or `(z, y, x)`, until a model of sequences or volumes has resolved the address: a `Position` then.
        token: name of a token that is no patch (`cls`), instead of `at`.
    """

    layer: str
    index: int | None = None
    model: str | None = None
    basis: str | None = None
    at: tuple[int, ...] | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        _check(_matches(_LAYER, self.layer), self.layer, "layer name")
        _check(self.model is None or _matches(_MODEL, self.model), self.model, "model name")
        _check(self.basis is None or _matches(_BASIS, self.basis), self.basis, "basis name")
        _check(self.index is None or _is_count(self.index, 10**9), self.index, "index")
        _check(self.at is None or _is_position(self.at), self.at, "position")
        _check(self.token is None or (self.at is None and _matches(_TOKEN, self.token)), self.token, "token")
        if self.model is not None and ".." in self.model.split("/") and not self.model.startswith("hf:"):
            raise AddressError(f"bad model name {shorten(self.model)!r} in an address")
        if self.at is not None and self.index is None:
            raise AddressError(f"a position needs a unit: {shorten(self.layer)}:INDEX@{_written(self.at)}")
        if len(str(self)) > MAX_LENGTH:
            raise AddressError(f"an address has at most {MAX_LENGTH} characters")

    @classmethod
    def parse(cls, text: str) -> Unit:
        """Read an address.

        Args:
            text: `[model/]layer[~basis][:index][@y,x or @token]`.

        Raises:
            AddressError: the text does not have that form.

        >>> Unit.parse("scenes/mixed4a:11@3,5")
        Unit(layer='mixed4a', index=11, model='scenes', basis=None, at=(3, 5), token=None)
        """
        if not isinstance(text, str):
            raise AddressError(f"an address is a string {_GRAMMAR}; got {type(text).__name__}")
        if len(text) > MAX_LENGTH:
            raise AddressError(
                f"an address has at most {MAX_LENGTH} characters, got {len(text)}: {shorten(text, 40)!r}"
            )
        # a letter with an accent has two spellings, and file systems and keyboards do not agree on one
        model, slash, rest = unicodedata.normalize("NFC", text).rpartition("/")
        rest, at_sign, coordinates = rest.partition("@")
        rest, colon, number = rest.partition(":")
        layer, tilde, basis = rest.partition("~")
        position = _POSITION.fullmatch(coordinates)
        well_formed = (
            _LAYER.fullmatch(layer)
            and (not slash or _MODEL.fullmatch(model))
            and (not tilde or _BASIS.fullmatch(basis))
            and (not colon or _INDEX.fullmatch(number))
            and (not at_sign or position or _TOKEN.fullmatch(coordinates))
        )
        if not well_formed:
            raise AddressError(f"cannot read the address {shorten(text)!r}; the form is {_GRAMMAR}")
        return cls(
            layer=layer,
            index=int(number) if colon else None,
            model=model if slash else None,
            basis=basis if tilde else None,
            at=tuple(map(int, coordinates.split(","))) if position else None,
            token=coordinates if at_sign and not position else None,
        )

    def __str__(self) -> str:
        text = self.layer if self.model is None else f"{self.model}/{self.layer}"
        if self.basis is not None:
            text += f"~{self.basis}"
        if self.index is not None:
            text += f":{self.index}"
        if self.at is not None:
            text += f"@{_written(self.at)}"
        return text if self.token is None else f"{text}@{self.token}"

    @property
    def short(self) -> str:
        """The address without the model's name."""
        return str(replace(self, model=None))

    @property
    def space(self) -> str:
        """What the unit is one of: a layer, or the basis attached to it (`mixed4c`, `mixed4c~sae`, `block3.cls`)."""
        layer = self.layer if self.token is None else f"{self.layer}.{self.token}"
        return layer if self.basis is None else f"{layer}~{self.basis}"

    @property
    def channel(self) -> Unit:
        """The same unit at every position."""
        return replace(self, at=None, token=None)


def basis_name(folder: str | Path) -> str:
    """What a basis from a folder is called in addresses: by the folder's name, with `-` for what no address holds.

    >>> basis_name("runs/my parts (2)"), basis_name("große Teile")
    ('my-parts-2', 'große-Teile')
    """
    name = unicodedata.normalize("NFC", Path(folder).expanduser().resolve().name)
    return re.sub(r"[^\w.\-]+", "-", name).strip("-").lstrip(".") or "sae"


def is_address_of(text: str, unit: str) -> bool:
    """Whether `text` names a unit that is given by its full address: with or without the model's name."""
    return text in (unit, unit.rpartition("/")[2])


def split_class(text: str) -> tuple[str, str | None]:
    """`logits:truck` as `("logits", "truck")`, where a layer is followed by a name; else the address, and None.

    >>> split_class("scenes/logits:dog_left"), split_class("logits:3"), split_class("mixed4a:11@2,3")
    (('scenes/logits', 'dog_left'), ('logits:3', None), ('mixed4a:11@2,3', None))
    """
    layer, _, name = text.partition(":") if isinstance(text, str) else (text, "", "")
    named = name and "~" not in layer and not re.match(r"\d{1,9}(?:@|$)", name, re.ASCII)
    return (layer, name) if named else (text, None)


def of_class(text: str, classes: Sequence[str], model: str, scores: str | None = None) -> str:
    """The address of the score of a class named by name, `logits:truck` as `logits:3`; any other as it is.

    Args:
        text: the address; classes: of the model, in the order of its scores; model: its name, for messages.
        scores: the layer of the class scores, which goes by the name `logits`, too.

    Raises:
        AddressError: no class is called that, or several are.
    """
    layer, name = split_class(text)
    if name is None:
        return text
    if layer.rpartition("/")[2] not in ("logits", scores):
        if name in classes:
            raise AddressError(f"classes are units of the layer of class scores alone: write logits:{shorten(name)}")
        return text
    numbers = [i for i, called in enumerate(classes) if called == name]
    if len(numbers) == 1:
        return f"{layer}:{numbers[0]}"
    if numbers:
        several = " and ".join(f"{layer.rpartition('/')[2]}:{i}" for i in numbers)
        raise AddressError(
            f"{model} has {len(numbers)} classes called {shorten(name)!r}: name one by number, {several}"
        )
    hint = did_you_mean(name, classes) if classes else " Its classes have no names: write logits:NUMBER."
    raise AddressError(f"{model} has no class {shorten(name)!r}.{hint}")


def _written(at: tuple[int, ...]) -> str:
    return ",".join(map(str, getattr(at, "written", at)))


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_count(value: object, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def _is_position(value: object) -> bool:
    return isinstance(value, tuple) and 1 <= len(value) <= 3 and all(_is_count(v, 10**6) for v in value)


def _check(ok: bool, value: object, part: str) -> None:
    if not ok:
        raise AddressError(f"bad {part} {shorten(value)!r} in an address; the form is {_GRAMMAR}")
