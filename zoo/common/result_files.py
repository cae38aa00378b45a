"""Files of results: one safetensors file, whose head holds the fields as JSON and whose tensors are their arrays.

A dataclass is written as its fields beside the name of its class; only frozen dataclasses of this package are made
again, of fields of the types that they declare, so that a file runs nothing and holds no text where a number belongs.
Values come back to the bit, arrays as arrays and tensors as tensors.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from zoo.common.stored import Stored
from zoo.errors import CircuitsError, shorten

_PACKAGES = ("zoo", "circuits", "sae")
"""Whose modules a file may name. Pages and commands of `apps` run when they are imported: of it only what is loaded."""
_MOVED: Mapping[str, str] = {
    "circuits.tracing.curves.size_curve:Estimate": "circuits.common.statistics:Estimate",
    "sae.language.text_attribution:Cause": "sae.language.attribution.text_attribution:Cause",
    "sae.language.text_attribution:TextAttribution": "sae.language.attribution.text_attribution:TextAttribution",
}
"""Class as a file names it -> where it is now."""
_LARGE = 1 << 20
"""Numbers in the arrays of a result whose whole document is not worked out when it is read."""

FILES = Stored(
    "the file of a result",
    "Make the result again, or give another file",
    mark={"kind": "vision-circuits result"},
)


def write(path: Path, result: object) -> Path:
    """Write a result; see `Result.save`.

    Raises:
        CircuitsError: it holds something that no file keeps. FileError: the file cannot be written.
    """
    tensors: dict[str, Any] = {}
    about = _encoded(result, tensors, type(result).__name__)
    path.parent.mkdir(parents=True, exist_ok=True)
    FILES.write_tensors(
        path, tensors, {"schema": FILES.schema, **FILES.mark, "result": about, "digest": _digest(about)}
    )
    return path


def read(path: Path) -> Any:
    """Read what `write` wrote.

    Raises:
        CircuitsError: no such file, a damaged one, or one of something else.
    """
    about = FILES.check(path, FILES.read_about(path))
    tensors = FILES.read_tensors(path)
    with FILES.parsing(path):
        if about.get("digest", "") not in ("", _digest(about["result"])):  # none in files of earlier versions
            raise ValueError("a field was changed since it was written")
        result = _decoded(about["result"], tensors, path)
        _show(result, sum(t.numel() for t in tensors.values()))
        return result


def _show(result: Any, numbers: int) -> None:
    """Let a result work out its line, its table and, where it is not large, its document.

    Arrays whose lengths do not go together are found here, as damage of the file, and not later in a figure.
    """
    if callable(records := getattr(result, "records", None)):
        repr(result), records()
        if numbers < _LARGE and callable(describe := getattr(result, "describe", None)):
            describe()


def _digest(about: Any) -> str:
    """BLAKE2b of the fields, 128 bits in hex; the arrays have digests of their own."""
    return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16).hexdigest()


def _encoded(value: Any, tensors: dict[str, Any], where: str) -> Any:
    if isinstance(value, float) and type(value) is float and not math.isfinite(value):
        return {"float": str(value)}  # JSON has no NaN and no infinity
    if value is None or isinstance(value, bool | int | float | str):
        return value if type(value) in (type(None), bool, int, float, str) else _array(value, tensors, where)
    if isinstance(value, tuple | list | set | frozenset):
        kind = next(k for k in (tuple, list, frozenset, set) if isinstance(value, k)).__name__
        items = sorted(value, key=str) if kind in ("set", "frozenset") else value
        entries = [_encoded(item, tensors, f"{where}[{i}]") for i, item in enumerate(items)]
        made_by = f"{type(value).__module__}:{type(value).__qualname__}"
        return {"results": made_by, "items": entries} if _class(made_by) is type(value) else {kind: entries}
    if isinstance(value, Mapping):
        return {"mapping": [[_encoded(part, tensors, f"{where}[{key!r}]") for part in (key, item)]
                            for key, item in value.items()]}  # fmt: skip
    if isinstance(value, Path):
        return {"path": str(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = f"{type(value).__module__}:{type(value).__qualname__}"
        if _class(name) is not type(value):
            raise CircuitsError(f"{where}: {name} is not a class of this package, and no file keeps it")
        fields = [f.name for f in dataclasses.fields(value) if f.init and f.compare]  # others are no part of the result
        return {"class": name, "fields": {n: _encoded(getattr(value, n), tensors, f"{where}.{n}") for n in fields}}
    return _array(value, tensors, where)


def _array(value: Any, tensors: dict[str, Any], where: str) -> Any:
    import numpy as np
    import torch

    name = f"{len(tensors):04d}"
    if isinstance(value, bytes):
        tensors[name] = torch.frombuffer(bytearray(value or b"\0"), dtype=torch.uint8)
        return {"bytes": name, "length": len(value)}
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        tensors[name] = torch.from_numpy(np.array(value, order="C", copy=True))
        return {"array" if isinstance(value, np.ndarray) else "scalar": name}
    raise CircuitsError(f"{where} is a {type(value).__name__}, which no file keeps")


def _decoded(entry: Any, tensors: Mapping[str, Any], path: Path) -> Any:
    if not isinstance(entry, dict):
        return entry
    kind = next((k for k in ("results", "class", "bytes", *entry) if k in entry), "")
    value: Any = entry[kind] if entry else None
    if kind in ("tuple", "list", "set", "frozenset"):
        builder = {"tuple": tuple, "list": list, "set": set, "frozenset": frozenset}[kind]
        return builder(_decoded(item, tensors, path) for item in value)
    if kind == "mapping":
        return {_decoded(key, tensors, path): _decoded(item, tensors, path) for key, item in value}
    if kind == "float":
        return float(value)
    if kind == "path":
        return Path(value)
    if kind == "bytes":
        return tensors[value].numpy().tobytes()[: int(entry["length"])]
    if kind == "tensor":
        return tensors[value]
    if kind == "array":
        return tensors[value].numpy()
    if kind == "scalar":
        return tensors[value].numpy()[()]
    if kind in ("class", "results"):
        kind_class = _class(value)
        if kind_class is None:
            raise FILES.damaged(path, f"it holds a {shorten(value, 80)}, which this version does not know")
        if kind == "results":
            return kind_class(_decoded(item, tensors, path) for item in entry["items"])
        fields = {name: _decoded(item, tensors, path) for name, item in entry["fields"].items()}
        for name, kind_of_field in _types(kind_class).items():
            if name in fields and not _conforms(fields[name], kind_of_field):
                raise ValueError(f"{kind_class.__name__}.{name} holds a {type(fields[name]).__name__} of another kind")
        return kind_class(**fields)
    raise FILES.damaged(path, f"it holds a {shorten(kind, 40)}")


def _class(name: str) -> type | None:
    """The frozen dataclass, or the list of results, that a file names, of this package only."""
    module, _, qualified = _MOVED.get(name, name).partition(":")
    if "." in qualified or (module.partition(".")[0] not in _PACKAGES and not module.startswith("apps.")):
        return None
    try:
        loaded = sys.modules.get(module) if module.startswith("apps.") else importlib.import_module(module)
    except (ImportError, ValueError):  # no such module, or no name of one
        return None
    kind_class = getattr(loaded, qualified, None)
    if not isinstance(kind_class, type) or kind_class.__module__ != module:
        return None
    frozen = dataclasses.is_dataclass(kind_class) and kind_class.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return kind_class if frozen or issubclass(kind_class, list) else None


@functools.cache
def _types(kind_class: type) -> dict[str, Any]:
    """The types of a dataclass's fields; empty where it names one that is only there for type checkers."""
    try:
        return get_type_hints(kind_class)
    except NameError:
        return {}


def _conforms(value: Any, kind: Any) -> bool:
    """Whether a value is of a declared type, to the last entry; numbers of NumPy are numbers."""
    import numpy as np

    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_conforms(value, part) for part in inner)
    if origin is Literal:
        return isinstance(value, str | int) and value in inner
    if kind in (int, float):
        number = (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
        return isinstance(value, number) and not isinstance(value, bool)
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if origin is tuple:
        kinds = inner[:1] * len(value) if isinstance(value, tuple) and inner[1:] == (...,) else inner
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_conforms, value, kinds))
    if isinstance(value, np.ndarray) and origin is np.ndarray:
        (of,) = get_args(inner[1]) or (Any,)
        return of is Any or value.dtype.kind == np.dtype(of).kind
    known = origin or kind
    if known is Any or not isinstance(known, type):  # a type variable
        return True
    if not isinstance(value, known) or (isinstance(value, str) and known is not str and known is not object):
        return False  # a text is a sequence of texts, too
    if inner and isinstance(value, Mapping):
        return all(_conforms(key, inner[0]) and _conforms(item, inner[1]) for key, item in value.items())
    if inner and isinstance(value, Sequence | set | frozenset):
        return all(_conforms(item, inner[0]) for item in value)
    return True
