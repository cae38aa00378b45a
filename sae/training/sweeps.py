"""Sweeps: many configurations from one, to be trained on one stream, and a table of what came of them."""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sae.architectures.base import SAEConfig, list_architectures
from sae.errors import SAEError, did_you_mean, shorten

if TYPE_CHECKING:
    pass

Values = Mapping[str, Sequence[Any]]


def sweep(base: SAEConfig, **values: Sequence[Any]) -> list[SAEConfig]:
    """The grid of configurations that differ from `base` in some of its settings.

    In the order of the settings as they are given; the last one changes fastest. Names are those of the
    configurations themselves (`topk-2048-k16`), with whatever else is swept behind (`topk-2048-k16-seed1`); where
    `base` has a name, that and all that is swept (`mine-k16-seed1`).

    Args:
        base: what they have in common.
        values: per setting, the values it takes.

    Raises:
        SAEError: a setting that the architecture does not have, no or repeated values, or a combination that makes
            no configuration (more `k` than `latents`): it says which.

    >>> [c.name for c in sweep(sae.TopK(latents=64, k=4), k=[2, 4], seed=[0, 1])]  # doctest: +SKIP
    ['topk-64-k2-seed0', 'topk-64-k2-seed1', 'topk-64-k4-seed0', 'topk-64-k4-seed1']
    """
    if not isinstance(base, SAEConfig):
        raise SAEError(f"a sweep starts from a configuration such as sae.TopK(...); got {type(base).__name__}")
    kind = type(base)
    for name, given in values.items():
        _known(name, _fields([kind]), kind.__name__)
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise SAEError(f"{name}={shorten(given)}: give the values as a list, {name}=[...]")
    grid = {name: list(given) for name, given in values.items()}
    for name, listed in grid.items():
        _distinct(name, listed)
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    plain = [_made(dataclasses.replace, base, point, name=None) for point in points]
    varied = [name for name, listed in grid.items() if len(listed) > 1]
    if base.name is None:
        varied = [name for name in varied if not _shown(name, grid[name], base, plain)]
    configs = []
    for config, point in zip(plain, points, strict=True):
        stem = config.title if base.name is None else base.name
        name = "-".join([stem, *(f"{name}{_text(point[name])}" for name in varied)])
        configs.append(dataclasses.replace(config, name=name))
    return configs


def parse(texts: Sequence[str], config: SAEConfig | type[SAEConfig] | None = None) -> dict[str, list[Any]]:
    """Values of a sweep as a command line has them: `["k=16,32", "seed=0,1"]` -> `{"k": [16, 32], "seed": [0, 1]}`.

    Numbers are read as the setting has them; a tuple's are joined by `+` (`groups=4+8+12,8+16`), and `none` stands
    for no value where a setting may have none.

    Args:
        texts: a setting with its values each.
        config: a configuration, or its class, whose settings are meant (default: those of any architecture).

    Raises:
        SAEError: something else than `setting=value,value`, an unknown setting, or a value that it cannot have.

    >>> parse(["k=16,32", "lr=1e-3,none"])
    {'k': [16, 32], 'lr': [0.001, None]}
    """
    kinds = [cls.Config for cls in list_architectures().values()]
    if config is not None:
        kinds = [config if isinstance(config, type) else type(config)]
    fields = _fields(kinds)
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name or not listed.strip():
            raise SAEError(f"{shorten(text)!r} is no sweep: write setting=value,value, say k=16,32")
        _known(name, fields, kinds[0].__name__ if config is not None else "any architecture")
        if name in found:
            raise SAEError(f"{name} is swept twice: write its values in one list, {name}=value,value")
        found[name] = [_read(name, value.strip(), fields[name]) for value in listed.split(",")]
        _distinct(name, found[name])
    return found


# -- settings -----------------------------------------------------------------------------------------


def _fields(kinds: Sequence[type[SAEConfig]]) -> dict[str, Any]:
    """Settings that can be swept, with their types."""
    found: dict[str, Any] = {}
    for kind in kinds:
        found = typing.get_type_hints(kind) | found
    return {name: hint for name, hint in found.items() if name not in ("name", "architecture")}


def _known(name: str, fields: Mapping[str, Any], kind: str) -> None:
    if name == "name":
        raise SAEError("names are made by the sweep; give the configuration it starts from a name")
    if name not in fields:
        raise SAEError(
            f"no setting {shorten(name)!r} in {kind} to sweep over.{did_you_mean(name, fields)} "
            f"There are {', '.join(sorted(fields))}"
        )


def _distinct(name: str, values: Sequence[Any]) -> None:
    if not values:
        raise SAEError(f"{name}: a sweep needs at least one value")
    for index, value in enumerate(values):
        if value in values[:index]:
            raise SAEError(f"{name} has {_text(value)} twice")


def _made(make: Any, base: SAEConfig, point: Mapping[str, Any], **more: Any) -> SAEConfig:
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in point.items()}
    try:
        config: SAEConfig = make(base, **settings, **more)
    except (SAEError, TypeError) as error:
        where = ", ".join(f"{name}={_text(value)}" for name, value in point.items())
        raise SAEError(f"the sweep's {where} is no configuration: {shorten(error, 200)}") from error
    return config


def _shown(name: str, values: Sequence[Any], base: SAEConfig, configs: Sequence[SAEConfig]) -> bool:
    """Whether every configuration's title tells the values of a setting apart."""
    for config in configs:
        titles = set()
        for value in values:
            try:
                titles.add(dataclasses.replace(config, **{name: value}).title)
            except (SAEError, TypeError):
                return False
        if len(titles) < len(values):
            return False
    return True


def _text(value: Any) -> str:
    """A value in a name: short, and without anything that a folder's name could not have."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, (tuple, list)):
        return "+".join(_text(one) for one in value)
    return "none" if value is None else shorten(value, 20)


def _read(name: str, text: str, hint: Any) -> Any:
    """A value of a type: int, float, one of some words, a tuple of any of these, or none."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if text.lower() == "none" and type(None) in options:
        return None
    option = next(one for one in options if one is not type(None))
    try:
        if typing.get_origin(option) is tuple:
            return tuple(_read(name, part, typing.get_args(option)[0]) for part in text.split("+"))
        if typing.get_origin(option) is Literal:
            if text not in typing.get_args(option):
                raise ValueError
            return text
        return option(text)
    except (TypeError, ValueError):
        words = typing.get_args(option) if typing.get_origin(option) is Literal else ()
        what = " or ".join(words) or {int: "a whole number", float: "a number"}.get(option, str(option))
        none = " or none" if type(None) in options else ""
        raise SAEError(f"{name}={shorten(text, 40)!r}: {name} is {what}{none}") from None
