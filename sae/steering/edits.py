"""Edits: which latent, how it is changed, at which positions and under which conditions; and their JSON form."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

from sae.errors import SAEError, did_you_mean, shorten
from zoo.common.checks import number, one_of, whole_number
from zoo.common.reading import parse_json

SCHEMA = 1
KINDS = ("set", "add", "scale", "ablate")
UNITS = ("absolute", "max")
FORMS = ("delta", "decode")
Kind: TypeAlias = Literal["set", "add", "scale", "ablate"]
Unit: TypeAlias = Literal["absolute", "max"]
Form: TypeAlias = Literal["delta", "decode"]
NUMBER = r"-?\d{1,9}(?:\.\d{0,9})?(?:e-?\d{1,2})?"
"""A number written as text, as a regular expression."""
_WHEN = re.compile(rf"(\d{{1,7}}):(above|below):({NUMBER})(x?)(:anywhere)?", re.ASCII)


@dataclass(frozen=True)
class When:
    """A condition on the activation of another latent before any edit.

    Attributes:
        latent: its number.
        above, below: limits that its activation must exceed, or stay under; one of them or both.
        unit: "absolute", or "max" for multiples of the latent's maximum.
        anywhere: the condition must hold at one position of the image; otherwise at the edited position itself.
    """

    latent: int
    above: float | None = None
    below: float | None = None
    unit: Unit = "absolute"
    anywhere: bool = False

    def __post_init__(self) -> None:
        if self.above is None and self.below is None:
            raise SAEError(f"a condition on latent {self.latent} needs above=, below= or both")
        for name in ("above", "below"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, number(name, getattr(self, name), error=SAEError))
        one_of("unit", self.unit, UNITS, error=SAEError)
        object.__setattr__(self, "latent", _index(self.latent))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a condition, as written in `circuits steer --when` and addresses of the explorer.

        Raises:
            SAEError: the text is no condition.

        >>> When.parse("39:above:0.5x")
        When(latent=39, above=0.5, below=None, unit='max', anywhere=False)
        """
        match = _WHEN.fullmatch(text)
        if match is None:
            raise SAEError(
                "a condition is written LATENT:above:NUMBER or LATENT:below:NUMBER, with x after a number of maxima, "
                f"as 39:above:0.5x; {shorten(text)!r} is none"
            )
        bound = {match[2]: float(match[3])}
        return cls(int(match[1]), unit="max" if match[4] else "absolute", anywhere=bool(match[5]), **bound)


@dataclass(frozen=True)
class LatentEdit:
    """One edit of one latent.

    Attributes:
        latent: its number.
        kind: "set" it to the value (a clamp), "add" the value, "scale" by it, or "ablate" (set it to 0).
        value: a number; none for "ablate".
        unit: of the value: "absolute", or "max" for multiples of the latent's maximum (`sae.steering.maxima`).
        at: "all" positions; of a map, positions `((y, x), ...)` or a mask `(h, w)`; of a text, its tokens `(0, 5)`
            counted without special tokens, or "last", the last token of the text that is being run.
        when: conditions, all of which must hold.
        map: height and width of the mask, to be checked against the map.

    Raises:
        SAEError: another kind or unit, a value that is not a finite number, a position that is out of form.

    >>> LatentEdit(1021, "add", 2.0, unit="max", at=((3, 4),)).at
    ((3, 4),)
    """

    latent: int
    kind: Kind = "set"
    value: float | None = None
    unit: Unit = "absolute"
    at: Any = "all"
    when: When | tuple[When, ...] = ()
    map: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "latent", _index(self.latent))
        one_of("kind", self.kind, KINDS, error=SAEError)
        one_of("unit", self.unit, UNITS, error=SAEError)
        if self.kind == "ablate":
            if self.value is not None or self.unit != "absolute":
                raise SAEError("ablate sets a latent to 0: it takes no value and no unit")
        else:
            object.__setattr__(self, "value", number("value", self.value, error=SAEError))
        if self.kind == "scale" and self.unit != "absolute":
            raise SAEError("scale multiplies a latent by a bare number: it takes no unit")
        at, size = _positions(self.at)
        object.__setattr__(self, "at", at)
        if size is not None:
            object.__setattr__(self, "map", size)
        when: Any = self.when
        conditions = tuple(when) if isinstance(when, list | tuple) else (when,)
        if any(not isinstance(condition, When) for condition in conditions):
            raise SAEError(f"when= takes When(...), or several; got {shorten(self.when)}")
        object.__setattr__(self, "when", conditions)

    @property
    def on_map(self) -> bool:
        """Whether it has positions of a map (no tokens)."""
        return isinstance(self.at, tuple) and bool(self.at) and isinstance(self.at[0], tuple)

    @property
    def conditions(self) -> tuple[When, ...]:
        """The conditions as a tuple."""
        return (self.when,) if isinstance(self.when, When) else self.when

    @property
    def latents(self) -> tuple[int, ...]:
        """Latents that it reads: its own and those of its conditions."""
        return (self.latent, *(condition.latent for condition in self.conditions))

    @property
    def measured(self) -> tuple[int, ...]:
        """Latents whose maximum is its unit."""
        own = (self.latent,) if self.unit == "max" else ()
        return (*own, *(condition.latent for condition in self.conditions if condition.unit == "max"))

    def describe(self) -> dict[str, Any]:
        """Ready for JSON; default values are left out."""
        entries: dict[str, Any] = {"latent": self.latent, "kind": self.kind}
        for name, default in (("value", None), ("unit", "absolute"), ("at", "all"), ("map", None)):
            value = getattr(self, name)
            if value != default:
                entries[name] = value if isinstance(value, str | float) else _lists(value)
        if self.when:
            entries["when"] = [dataclasses.asdict(condition) for condition in self.conditions]
        return entries


Edits: TypeAlias = Mapping[int, float] | Sequence[LatentEdit] | LatentEdit


def edits_of(edits: Edits, unit: Unit = "absolute") -> tuple[LatentEdit, ...]:
    """A list of edits, from one, several, or `{latent: value}`, which sets latents.

    Raises:
        SAEError: none of these.
    """
    if isinstance(edits, LatentEdit):
        return (edits,)
    if isinstance(edits, Mapping):
        return tuple(LatentEdit(latent, "set", value, unit) for latent, value in edits.items())
    if isinstance(edits, str) or not isinstance(edits, Sequence):
        raise SAEError(f"edits are {{latent: value}} or a list of LatentEdit(...); got {type(edits).__name__}")
    wrong = next((edit for edit in edits if not isinstance(edit, LatentEdit)), None)
    if wrong is not None:
        raise SAEError(
            f"edits are {{latent: value}} or a list of LatentEdit(...); there is {shorten(wrong)} among them"
        )
    return tuple(edits)


@dataclass(frozen=True)
class Steering:
    """Edits with the maxima that are their unit, so that they can be saved and applied again: `json` and `parse`.

    Created by `sae.steering.steered(...).steering`, or by hand.

    Attributes:
        edits: in the order in which they are applied.
        form: "delta", x + (v - a) W: the part of x that the dictionary does not explain stays; or "decode": the
            reconstruction from the edited latents replaces x at all positions.
        strengths: latent -> maximum, of latents edited in multiples of it; inputs: on which it was measured.
        site, dictionary: address of the site and digest of the basis that they are for; empty for any.
    """

    edits: tuple[LatentEdit, ...]
    form: Form = "delta"
    strengths: Mapping[int, float] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    site: str = ""
    dictionary: str = ""

    def __post_init__(self) -> None:
        one_of("form", self.form, FORMS, error=SAEError)
        object.__setattr__(self, "edits", edits_of(self.edits))
        for latent, value in self.strengths.items():
            number(f"maximum of latent {_index(latent)}", value, above=0, error=SAEError)

    def strength(self, latent: int) -> float:
        """The maximum of a latent.

        Raises:
            SAEError: it is not among `strengths`.
        """
        if latent not in self.strengths:
            raise SAEError(
                f"an edit is in multiples of the maximum of latent {latent}, which is not known: "
                "give maxima=sae.steering.maxima(s, site, inputs), or absolute values"
            )
        return self.strengths[latent]

    def json(self) -> str:
        """The edits as a JSON document."""
        document = {
            "schema": SCHEMA,
            "kind": "steering",
            "site": self.site,
            "dictionary": self.dictionary,
            "form": self.form,
            "edits": [edit.describe() for edit in self.edits],
            "maxima": {str(latent): value for latent, value in self.strengths.items()},
            "inputs": dict(self.inputs),
        }
        return json.dumps(document, indent=1, allow_nan=False) + "\n"

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read a document that `json` wrote.

        Raises:
            SAEError: no JSON, another schema, or edits out of form; the message names the part.
        """
        try:
            document = parse_json(text)
        except ValueError as error:
            raise SAEError(f"this is no JSON: {shorten(error)}") from error
        if not isinstance(document, dict) or document.get("kind") != "steering":
            raise SAEError('this JSON is no steering: it has no "kind": "steering"')
        if document.get("schema") != SCHEMA:
            raise SAEError(f"this steering has schema {shorten(document.get('schema'))}; {SCHEMA} can be read")
        keys = {"schema", "kind", "site", "dictionary", "form", "edits", "maxima", "inputs"}
        _no_others(document, keys, "a steering")
        edits, strengths, inputs = document.get("edits"), document.get("maxima", {}), document.get("inputs", {})
        if not isinstance(edits, list) or not isinstance(strengths, dict) or not isinstance(inputs, dict):
            raise SAEError("a steering has a list of edits, and objects maxima and inputs")
        if not all(isinstance(document.get(name, ""), str) for name in ("site", "dictionary")):
            raise SAEError("site and dictionary of a steering are strings")
        return cls(
            edits=tuple(_edit_from(edit) for edit in edits),
            form=document.get("form", "delta"),
            strengths={_key(latent): number("maximum", value, error=SAEError) for latent, value in strengths.items()},
            inputs=inputs,
            site=document.get("site", ""),
            dictionary=document.get("dictionary", ""),
        )


def _edit_from(data: Any) -> LatentEdit:
    if not isinstance(data, dict):
        raise SAEError(f"an edit is an object; got {shorten(data)}")
    fields = {item.name for item in dataclasses.fields(LatentEdit)}
    _no_others(data, fields, "an edit")
    conditions = data.get("when", [])
    if not isinstance(conditions, list) or any(not isinstance(item, dict) for item in conditions):
        raise SAEError(f"when is a list of objects; got {shorten(conditions)}")
    for item in conditions:
        _no_others(item, {f.name for f in dataclasses.fields(When)}, "a condition")
    at, size = data.get("at", "all"), data.get("map")
    if isinstance(at, list):
        at = tuple(tuple(item) if isinstance(item, list) else item for item in at)
    if size is not None and not (isinstance(size, list) and len(size) == 2):
        raise SAEError(f"the map of an edit is its height and width; got {shorten(size)}")
    try:
        rest = {name: value for name, value in data.items() if name not in ("when", "at", "map")}
        when = tuple(When(**item) for item in conditions)
        return LatentEdit(**rest, at=at, when=when, map=None if size is None else (_key(size[0]), _key(size[1])))
    except TypeError as error:
        raise SAEError(f"an edit that is none: {shorten(error)}") from error


def _no_others(data: Mapping[str, Any], keys: set[str], noun: str) -> None:
    other = next((name for name in data if name not in keys), None)
    if other is not None:
        raise SAEError(f"{noun} has no {shorten(other)!r}.{did_you_mean(str(other), keys)}")


def _key(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise SAEError(f"{shorten(value)!r} is no whole number") from error


def _index(latent: Any) -> int:
    return whole_number("latent", latent, least=0, error=SAEError)


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def _positions(at: Any) -> tuple[Any, tuple[int, int] | None]:
    """Positions in canonical form, and the size of the mask they came from."""
    if isinstance(at, str):
        one_of("at", at, ("all", "last"), error=SAEError)
        return at, None
    rows = at.tolist() if hasattr(at, "tolist") else at
    if not isinstance(rows, list | tuple) or not rows:
        raise SAEError(f"positions are 'all', 'last', (y, x) pairs, a mask or tokens; got {shorten(at)}")
    if all(isinstance(row, list | tuple) and all(isinstance(v, bool) for v in row) and row for row in rows):
        if len({len(row) for row in rows}) > 1:
            raise SAEError("a mask has rows of one length")
        chosen = tuple((y, x) for y, row in enumerate(rows) for x, on in enumerate(row) if on)
        if not chosen:
            raise SAEError("the mask is False everywhere: nowhere to edit")
        return chosen, (len(rows), len(rows[0]))
    if all(_is_index(row) for row in rows):
        return tuple(sorted({int(row) for row in rows})), None
    if all(isinstance(row, list | tuple) and len(row) == 2 and all(map(_is_index, row)) for row in rows):
        return tuple(sorted({(int(y), int(x)) for y, x in rows})), None
    raise SAEError(f"positions are 'all', 'last', (y, x) pairs, a mask of True and False, or tokens; got {shorten(at)}")


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
