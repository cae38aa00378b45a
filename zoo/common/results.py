"""Results as data: a frozen dataclass that becomes JSON by its own fields, and shows itself.

>>> @dataclasses.dataclass(frozen=True)
... class Peak(Result):
...     unit: str
...     value: float
>>> Peak("mixed4a:11", 3.14159)
Peak(unit='mixed4a:11', value=3.142)
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, ParamSpec, SupportsIndex, TypeVar, overload

from zoo.common import drawings, result_files
from zoo.common.files import write_text_atomically
from zoo.errors import CircuitsError, shorten

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Drawable")

_LINE = 200
"""Characters of a `repr`, at most."""
_SOURCES: tuple[str, ...] = ("model", "images", "scan")
"""What a result can be made from and is given again where it was loaded."""


class Drawable:
    """What shows itself: one line, a figure, a table, a page; in a notebook all of them.

    `records` is what a class overrides; how a type is drawn is registered in `circuits.plot.results` and in
    `sae.evaluation.result_figures`.
    """

    _given: Mapping[str, Any] = {}

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`, as plain values."""
        raise NotImplementedError

    def table(self) -> Any:
        """The result as a `pandas.DataFrame`: a row for each of its units, or one row of its numbers.

        Raises:
            CircuitsError: pandas is not installed; `records` gives the same rows without it.
        """
        try:
            import pandas
        except ImportError:
            message = "table() needs pandas: pip install pandas; records() gives the same rows as dictionaries"
            raise CircuitsError(message) from None
        return pandas.DataFrame(self.records())

    def plot(self, **options: Any) -> Any:
        """The result as a `matplotlib.figure.Figure`.

        Args:
            options: of the figure of this type in `circuits.plot`; `images=`, `model=` or `scan=` where the result was
                loaded from a file and the figure shows images.

        Raises:
            CircuitsError: the figure needs images and there are none, or knows no such option.
        """
        return _drawn(drawings.figure_of, self, options)

    def report(self, path: str | Path, **options: Any) -> Path:
        """Write the result as one HTML file that needs nothing else: the page that the command line writes.

        Args:
            path: of the file, or a folder that is there, in which it is called index.html. A file of that name is
                overwritten: you named it.
            options: of the page, and as for `plot`; `command=` and `python=` are printed as what makes it again.

        Returns:
            The file's path.

        Raises:
            CircuitsError: as `plot`. FileError: the file cannot be written.
        """
        path = Path(path).expanduser()
        path = path / "index.html" if path.is_dir() else path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, _drawn(drawings.page_of, self, options))
        return path

    def _repr_html_(self) -> str:
        drawings.load_drawings()
        return drawings.html_of(self, self._given)

    def __getstate__(self) -> dict[str, Any]:
        """Without what the result was made from: a pickle of a result holds no network."""
        return {key: value for key, value in vars(self).items() if key != "_given"}


class Storable(Drawable):
    """What is written into a file of its own and read again."""

    def save(self, path: str | Path) -> Path:
        """Write it into one file, whole or not at all; `load` of its class reads it, to the bit.

        A file of that name is overwritten.

        Raises:
            CircuitsError: it holds something that no file keeps. FileError: the file cannot be written.
        """
        return result_files.write(Path(path).expanduser(), self)

    @classmethod
    def load(cls: type[K], path: str | Path) -> K:
        """Read what `save` wrote.

        Raises:
            CircuitsError: no such file, a damaged one, or one of another result.
        """
        result = result_files.read(Path(path).expanduser())
        if not isinstance(result, cls):
            raise CircuitsError(f"{shorten(path)} holds a {type(result).__name__}, not a {cls.__name__}")
        return result


K = TypeVar("K", bound=Storable)


class Result(Storable):
    """Base of results: `describe()` gives every field, ready for JSON.

    A field says otherwise in its metadata: `field(metadata=HIDDEN)` leaves it out, `field(metadata=called("weights"))`
    gives it another key. Derived values are added by a class attribute `described = ("fvu", ...)`, the names of
    properties. A class whose document is no list of its fields writes `describe` itself.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Peak(Result):
    ...     unit: str
    ...     at: tuple[int, int]
    ...     map: object = dataclasses.field(default=None, metadata=HIDDEN)
    >>> Peak("mixed4a:11", (3, 5)).describe()
    {'unit': 'mixed4a:11', 'at': [3, 5]}
    """

    described: tuple[str, ...] = ()
    tabled: Mapping[str, str] = {}
    """Column of the table -> the field that holds it, an entry for each row."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__repr__" not in vars(cls):  # a dataclass makes one of its own where there is none, of all its contents
            setattr(cls, "__repr__", cls.__repr__)  # noqa: B010 (mypy does not let a method be assigned)

    def __repr__(self) -> str:
        return one_line(type(self).__name__, self._facts())

    def _facts(self) -> Mapping[str, Any]:
        """Name -> value of what the one line says: the fields that are not hidden, derived values."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        names = [f.name for f in fields if not f.metadata.get("hidden") and f.name != "provenance"]
        return {name: getattr(self, name) for name in (*names, *self.described)}

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        entries = {
            field.metadata.get("called", field.name): getattr(self, field.name)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if not field.metadata.get("hidden")
        }
        entries |= {name: getattr(self, name) for name in self.described}
        return {name: plain(value) for name, value in entries.items()}

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each row of the result, or its numbers as one row."""
        if self.tabled:
            columns = [plain(getattr(self, field)) for field in self.tabled.values()]
            return [dict(zip(self.tabled, row, strict=True)) for row in zip(*columns, strict=True)]
        rows = getattr(self, "rows", None)
        if isinstance(rows, tuple) and all(isinstance(row, Result) for row in rows):
            return [row.scalars() for row in rows]
        return [self.scalars()]

    def scalars(self) -> dict[str, Any]:
        """Numbers, texts and truths of the result by name; a row of a table."""
        values = {name: plain(value) for name, value in self._facts().items() if _is_scalar(value)}
        return values or {"result": repr(self)}


class Listed(Result, Generic[T]):
    """A result that is a list: it is iterated, sliced and sorted as one, and a part of it is such a result again.

    The field `rows` holds the elements, or the one that the class attribute `listed` names.
    """

    listed: str = "rows"

    def __iter__(self) -> Iterator[T]:
        return (self[i] for i in range(len(self)))

    def __len__(self) -> int:
        return len(getattr(self, self.listed))

    def __bool__(self) -> bool:
        return True

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self: L, index: slice) -> L: ...
    def __getitem__(self: L, index: int | slice) -> T | L:
        rows = getattr(self, self.listed)
        return self._with(rows[index]) if isinstance(index, slice) else handed_down(self, rows[index])

    def sort_by(self: L, key: str | Callable[[T], Any], *, descending: bool = True) -> L:
        """The same with its rows in another order, by a field of theirs or a function of them.

        Raises:
            CircuitsError: the rows have no such field.
        """
        return self._with(tuple(ordered(self, key, descending)))

    def _with(self: L, rows: Any) -> L:
        part: L = dataclasses.replace(self, **{self.listed: rows})  # type: ignore[type-var]
        return remember(part, **self._given)

    def records(self) -> list[dict[str, Any]]:
        return [row.scalars() if isinstance(row, Result) else plain(row) for row in self]


L = TypeVar("L", bound=Listed[Any])


class Results(list[T], Storable, Generic[T]):
    """A list of results, as functions return it that give several: a slice is one, too, and it shows itself whole."""

    def __repr__(self) -> str:
        line = ", ".join(repr(result) for result in list.__iter__(self))
        return f"[{line}]" if len(line) < _LINE else f"[{line[: _LINE - 20]}… {len(self)} in all]"

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Results[T]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> T | Results[T]:
        part = super().__getitem__(index)
        return self._with(part) if isinstance(index, slice) else part  # type: ignore[arg-type, return-value]

    def _with(self, rows: Iterable[T]) -> Results[T]:
        return remember(type(self)(rows), **self._given)

    def sort_by(self, key: str | Callable[[T], Any], *, descending: bool = True) -> Results[T]:
        """The results in another order, by a field of theirs or a function of them.

        Raises:
            CircuitsError: the results have no such field.
        """
        return self._with(ordered(self, key, descending))

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each result."""
        return [result.scalars() for result in self if isinstance(result, Result)]


def ordered(rows: Iterable[T], key: str | Callable[[T], Any], descending: bool) -> list[T]:
    """Rows by a field or a function of them; those without a value (None, NaN) come last, ties keep their order.

    Raises:
        CircuitsError: the rows have no such field.
    """

    def value(row: T) -> Any:
        if callable(key):
            return key(row)
        try:
            return getattr(row, key)
        except AttributeError:
            names = ", ".join(row.scalars() if isinstance(row, Result) else ())
            raise CircuitsError(f"cannot sort by {shorten(key)!r}: a row has {names}") from None

    valued = [(value(row), row) for row in rows]
    missing = [row for v, row in valued if v is None or v != v]
    present = [pair for pair in valued if not (pair[0] is None or pair[0] != pair[0])]
    return [row for _, row in sorted(present, key=lambda pair: pair[0], reverse=descending)] + missing


def handed_down(whole: Drawable, part: T) -> T:
    """A part of a result, which remembers what the whole does."""
    return remember(part, **whole._given) if isinstance(part, Drawable) and whole._given else part


def remember(result: S, **given: Any) -> S:
    """`result`, which knows what it was made from, so that it draws itself; that is no part of it and not saved."""
    object.__setattr__(result, "_given", {**result._given, **given})  # results are frozen
    return result


def remembers(*names: str, **called: str) -> Callable[[Callable[P, S]], Callable[P, S]]:
    """A function whose result remembers its arguments `names`; `images="image"` an argument of another name."""
    sources = {**{name: name for name in names}, **called}

    def decorated(function: Callable[P, S]) -> Callable[P, S]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> S:
            result = function(*args, **options)
            given = signature.bind(*args, **options).arguments
            return remember(result, **{k: given[name] for k, name in sources.items() if given.get(name) is not None})

        return call

    return decorated


def one_line(name: str, facts: Mapping[str, Any]) -> str:
    """`Name(fact=value, ...)` on one line of at most 200 characters; arrays and lists by their sizes.

    >>> one_line("Peak", {"unit": "mixed4a:11", "history": [1.0] * 500})
    "Peak(unit='mixed4a:11', history=<500>)"
    """
    line = f"{name}({', '.join(f'{key}={_brief(value)}' for key, value in facts.items())})"
    return line if len(line) <= _LINE else line[: _LINE - 2] + "…)"


def _brief(value: Any) -> str:
    if isinstance(value, bool | int) or value is None:
        return repr(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return repr(shorten(value, 60))
    if hasattr(value, "shape") and hasattr(value, "dtype"):  # an array, a tensor
        return f"<{'x'.join(map(str, value.shape)) or 'number'}>"
    if isinstance(value, Sequence | Mapping | set | frozenset):
        few = isinstance(value, tuple) and len(value) <= 3 and all(_is_scalar(v) for v in value)
        return f"({', '.join(map(_brief, value))})" if few else f"<{len(value)}>"
    return f"<{type(value).__name__}>"


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _drawn(function: Any, drawable: Drawable, options: dict[str, Any]) -> Any:
    drawings.load_drawings()
    given = {name: options.pop(name) for name in _SOURCES if name in options}
    try:
        return function(drawable, {**drawable._given, **given}, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise CircuitsError(f"{type(drawable).__name__}: {str(error).rpartition('() ')[2]}") from error


HIDDEN: Mapping[str, Any] = {"hidden": True}
"""Metadata of a field that `describe` leaves out: arrays, images."""


def called(name: str) -> Mapping[str, Any]:
    """Metadata of a field that has another key in JSON."""
    return {"called": name}


def plain(value: Any, digits: int | None = None) -> Any:
    """`value` as JSON has it: results described, arrays as lists, numbers that are not finite as None.

    With `digits`, numbers are rounded to so many that count.
    """
    if hasattr(value, "describe"):
        return value.describe() if digits is None else plain(value.describe(), digits)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {str(key): plain(item, digits) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy arrays and numbers, tensors
        return plain(value.tolist(), digits)
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name), digits) for field in dataclasses.fields(value)}
    if isinstance(value, Sequence | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [plain(item, digits) for item in items]
    raise TypeError(f"{type(value).__name__} has no place in JSON")
