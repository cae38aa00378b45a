"""The vocabulary of steering: which latent, what is done to it, where and when; and the same as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal, Self, TypeAlias

from sae.errors import SAEError, did_you_mean, shorten

SCHEMA = 1
KINDS = ("set", "add", "scale", "ablate")
UNITS = ("absolute", "max")
FORMS = ("delta", "decode")
Kind: TypeAlias = Literal["set", "add", "scale", "ablate"]
Unit: TypeAlias = Literal["absolute", "max"]
Form: TypeAlias = Literal["delta", "decode"]
NUMBER = r"-?\d{1,9}(?:\.\d{0,9})?(?:e-?\d{1,2})?"
"""A number in words, as a regular expression."""
_WHEN = re.compile(rf"(\d{{1,7}}):(above|below):({NUMBER})(x?)(:anywhere)?", re.ASCII)


@dataclass(frozen=True)
class When:
    """A condition on another latent, as the network has it before any edit.

    Attributes:
        latent: which.
        above, below: what it must exceed, or stay under; one of them or both.
        unit: "absolute", or "max" for multiples of the latent's maximum.
        anywhere: it is enough that it holds somewhere in the picture; otherwise it must hold at the very place.
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
                object.__setattr__(self, name, _number(getattr(self, name), f"{name} of a condition"))
        _one_of(self.unit, UNITS, "unit")
        object.__setattr__(self, "latent", _whole(self.latent))

    @classmethod
    def parse(cls, text: str) -> Self:
        """A condition from words, as `circuits steer --when` and addresses of the explorer have it.

        Raises:
            SAEError: it is none.

        >>> When.parse("39:above:0.5x")
        When(latent=39, above=0.5, below=None, unit='max', anywhere=False)
        """
        found = _WHEN.fullmatch(text)
        if found is None:
            raise SAEError(
                "a condition is written LATENT:above:NUMBER or LATENT:below:NUMBER, with x behind a number of maxima, "
                f"as 39:above:0.5x; {shorten(text)!r} is none"
            )
        bound = {found[2]: float(found[3])}
        return cls(int(found[1]), unit="max" if found[4] else "absolute", anywhere=bool(found[5]), **bound)


@dataclass(frozen=True)
class LatentEdit:
    """One edit of one latent.

    Attributes:
        latent: its number.
        kind: "set" it to the value (a clamp), "add" the value, "scale" by it, or "ablate" (set it to 0).
        value: a number; none for "ablate".
        unit: of the value: "absolute", or "max" for multiples of the latent's maximum (`sae.steering.maxima`).
        at: "all" places; of a map, positions `((y, x), ...)` or a mask `(h, w)`; of a text, its tokens `(0, 5)`
            counted without special ones, or "last", the last token of what is being run.
        when: conditions, all of which must hold.
        map: height and width of the mask, to be checked against the map.

    Raises:
        SAEError: another kind or unit, a value that is no finite number, a place that is none.

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
        object.__setattr__(self, "latent", _whole(self.latent))
        _one_of(self.kind, KINDS, "kind of edit")
        _one_of(self.unit, UNITS, "unit")
        if self.kind == "ablate":
            if self.value is not None or self.unit != "absolute":
                raise SAEError("ablate sets a latent to 0: it takes no value and no unit")
        else:
            object.__setattr__(self, "value", _number(self.value, f"value of {self.kind!r}"))
        if self.kind == "scale" and self.unit != "absolute":
            raise SAEError("scale multiplies a latent by a bare number: it takes no unit")
        at, size = _places(self.at)
        object.__setattr__(self, "at", at)
        if size is not None:
            object.__setattr__(self, "map", size)
        given: Any = self.when
        conditions = tuple(given) if isinstance(given, list | tuple) else (given,)
        if any(not isinstance(one, When) for one in conditions):
            raise SAEError(f"when= takes When(...), or several; got {shorten(self.when)}")
        object.__setattr__(self, "when", conditions)

    @property
    def on_map(self) -> bool:
        """Whether its places are positions of a map."""
        return isinstance(self.at, tuple) and bool(self.at) and isinstance(self.at[0], tuple)

    @property
    def conditions(self) -> tuple[When, ...]:
        """The conditions, however many."""
        return (self.when,) if isinstance(self.when, When) else self.when

    @property
    def latents(self) -> tuple[int, ...]:
        """Latents that it looks at: its own and those of its conditions."""
        return (self.latent, *(one.latent for one in self.conditions))

    @property
    def measured(self) -> tuple[int, ...]:
        """Latents whose maximum it is told in."""
        own = (self.latent,) if self.unit == "max" else ()
        return (*own, *(one.latent for one in self.conditions if one.unit == "max"))

    def describe(self) -> dict[str, Any]:
        """Ready for JSON; what is as by default is left out."""
        found: dict[str, Any] = {"latent": self.latent, "kind": self.kind}
        for name, default in (("value", None), ("unit", "absolute"), ("at", "all"), ("map", None)):
            value = getattr(self, name)
            if value != default:
                found[name] = value if isinstance(value, str | float) else _lists(value)
        if self.when:
            found["when"] = [dataclasses.asdict(one) for one in self.conditions]
        return found


Edits: TypeAlias = Mapping[int, float] | Sequence[LatentEdit] | LatentEdit


def edits_of(edits: Edits, unit: Unit = "absolute") -> tuple[LatentEdit, ...]:
    """A list of edits from what was given: `{latent: value}` sets latents.

    Raises:
        SAEError: it is neither.
    """
    if isinstance(edits, LatentEdit):
        return (edits,)
    if isinstance(edits, Mapping):
        return tuple(LatentEdit(latent, "set", value, unit) for latent, value in edits.items())
    if isinstance(edits, str) or not isinstance(edits, Sequence):
        raise SAEError(f"edits are {{latent: value}} or a list of LatentEdit(...); got {type(edits).__name__}")
    wrong = next((one for one in edits if not isinstance(one, LatentEdit)), None)
    if wrong is not None:
        raise SAEError(
            f"edits are {{latent: value}} or a list of LatentEdit(...); there is {shorten(wrong)} among them"
        )
    return tuple(edits)


@dataclass(frozen=True)
class Steering:
    """Edits with all that they are told in, so that they can be kept and applied again: `json` and `parse`.

    Made by `sae.steering.steered(...).steering`, or by hand.

    Attributes:
        edits: in the order in which they are applied.
        form: "delta", x + (v - a) W: what the dictionary leaves unexplained stays; or "decode": the reconstruction
            from the edited latents stands in for x everywhere.
        strengths: latent -> maximum, of those that are told in multiples of it; inputs: what it was measured on.
        site, dictionary: address and digest of where and what they are for; empty where it does not matter.
    """

    edits: tuple[LatentEdit, ...]
    form: Form = "delta"
    strengths: Mapping[int, float] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    site: str = ""
    dictionary: str = ""

    def __post_init__(self) -> None:
        _one_of(self.form, FORMS, "form")
        object.__setattr__(self, "edits", edits_of(self.edits))
        for latent, value in self.strengths.items():
            _whole(latent)
            if not _number(value, f"maximum of latent {latent}") > 0:
                raise SAEError(f"the maximum of latent {latent} is {value}; a unit is above 0")

    def strength(self, latent: int) -> float:
        """The maximum of a latent.

        Raises:
            SAEError: it is not known.
        """
        if latent not in self.strengths:
            raise SAEError(
                f"an edit is told in multiples of the maximum of latent {latent}, which is not known: "
                "give maxima=sae.steering.maxima(s, site, inputs), or absolute values"
            )
        return self.strengths[latent]

    def json(self) -> str:
        """The same as a JSON document."""
        document = {
            "schema": SCHEMA,
            "kind": "steering",
            "site": self.site,
            "dictionary": self.dictionary,
            "form": self.form,
            "edits": [one.describe() for one in self.edits],
            "maxima": {str(latent): value for latent, value in self.strengths.items()},
            "inputs": dict(self.inputs),
        }
        return json.dumps(document, indent=1, allow_nan=False) + "\n"

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read what `json` wrote.

        Raises:
            SAEError: no JSON, another schema, or edits that are none; it says which.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SAEError(f"this is no JSON: {shorten(error)}") from error
        if not isinstance(document, dict) or document.get("kind") != "steering":
            raise SAEError('this JSON is no steering: it says no "kind": "steering"')
        if document.get("schema") != SCHEMA:
            raise SAEError(f"this steering has schema {shorten(document.get('schema'))}; {SCHEMA} can be read")
        known = {"schema", "kind", "site", "dictionary", "form", "edits", "maxima", "inputs"}
        _no_others(document, known, "a steering")
        edits, strengths, inputs = document.get("edits"), document.get("maxima", {}), document.get("inputs", {})
        if not isinstance(edits, list) or not isinstance(strengths, dict) or not isinstance(inputs, dict):
            raise SAEError("a steering has a list of edits, and objects maxima and inputs")
        if not all(isinstance(document.get(name, ""), str) for name in ("site", "dictionary")):
            raise SAEError("site and dictionary of a steering are strings")
        return cls(
            edits=tuple(_edit_from(one) for one in edits),
            form=document.get("form", "delta"),
            strengths={_key(latent): _number(value, "a maximum") for latent, value in strengths.items()},
            inputs=inputs,
            site=document.get("site", ""),
            dictionary=document.get("dictionary", ""),
        )


def _edit_from(data: Any) -> LatentEdit:
    if not isinstance(data, dict):
        raise SAEError(f"an edit is an object; got {shorten(data)}")
    fields = {one.name for one in dataclasses.fields(LatentEdit)}
    _no_others(data, fields, "an edit")
    conditions = data.get("when", [])
    if not isinstance(conditions, list) or any(not isinstance(one, dict) for one in conditions):
        raise SAEError(f"when is a list of objects; got {shorten(conditions)}")
    for one in conditions:
        _no_others(one, {f.name for f in dataclasses.fields(When)}, "a condition")
    at, size = data.get("at", "all"), data.get("map")
    if isinstance(at, list):
        at = tuple(tuple(one) if isinstance(one, list) else one for one in at)
    if size is not None and not (isinstance(size, list) and len(size) == 2):
        raise SAEError(f"the map of an edit is its height and width; got {shorten(size)}")
    try:
        rest = {name: value for name, value in data.items() if name not in ("when", "at", "map")}
        made = tuple(When(**one) for one in conditions)
        return LatentEdit(**rest, at=at, when=made, map=None if size is None else (_key(size[0]), _key(size[1])))
    except TypeError as error:
        raise SAEError(f"an edit that is none: {shorten(error)}") from error


def _no_others(data: Mapping[str, Any], known: set[str], what: str) -> None:
    other = next((name for name in data if name not in known), None)
    if other is not None:
        raise SAEError(f"{what} has no {shorten(other)!r}.{did_you_mean(str(other), known)}")


def _key(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise SAEError(f"{shorten(value)!r} is no whole number") from error


def _lists(value: Any) -> Any:
    return [_lists(one) for one in value] if isinstance(value, tuple) else value


def _one_of(value: Any, known: Sequence[str], what: str) -> None:
    if value not in known:
        raise SAEError(f"{what} {shorten(value)!r}: use {', '.join(map(repr, known))}")


def _whole(latent: Any) -> int:
    if isinstance(latent, bool) or not isinstance(latent, Integral) or latent < 0:
        raise SAEError(f"a latent is a whole number from 0; got {shorten(latent)!r}")
    return int(latent)


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise SAEError(f"the {what} is a finite number; got {shorten(value)}")
    return float(value)


def _places(at: Any) -> tuple[Any, tuple[int, int] | None]:
    """Places as they are kept, and the size of the mask they came from."""
    if isinstance(at, str):
        _one_of(at, ("all", "last"), "places")
        return at, None
    rows = at.tolist() if hasattr(at, "tolist") else at
    if not isinstance(rows, list | tuple) or not rows:
        raise SAEError(f"places are 'all', 'last', positions (y, x), a mask or tokens; got {shorten(at)}")
    if all(isinstance(row, list | tuple) and all(isinstance(v, bool) for v in row) and row for row in rows):
        if len({len(row) for row in rows}) > 1:
            raise SAEError("a mask has rows of one length")
        chosen = tuple((y, x) for y, row in enumerate(rows) for x, on in enumerate(row) if on)
        if not chosen:
            raise SAEError("the mask is False everywhere: nowhere to edit")
        return chosen, (len(rows), len(rows[0]))
    if all(_is_place(row) for row in rows):
        return tuple(sorted({int(row) for row in rows})), None
    if all(isinstance(row, list | tuple) and len(row) == 2 and all(map(_is_place, row)) for row in rows):
        return tuple(sorted({(int(y), int(x)) for y, x in rows})), None
    raise SAEError(
        f"places are 'all', 'last', positions (y, x), a mask of True and False, or tokens; got {shorten(at)}"
    )


def _is_place(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
