"""Sweeps: a grid of configurations, to be trained on one stream."""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from sae.architectures.base import SAEConfig, list_architectures
from sae.errors import SAEError, did_you_mean, shorten

Values = Mapping[str, Sequence[Any]]


def sweep(base: SAEConfig, **values: Sequence[Any]) -> list[SAEConfig]:
    """The grid of configurations that differ from `base` in some of its settings.

    The last setting changes fastest. Names are the titles of the configurations (`topk-2048-k16`), followed by the
    swept settings that the title does not have (`topk-2048-k16-seed1`). If `base` has a name, they are that name and
    all swept settings (`mine-k16-seed1`).

    Args:
        base: the configuration from which they differ.
        values: the values of each setting.

    Raises:
        SAEError: a setting that the architecture does not have, no or repeated values, or an invalid combination (more
            `k` than `latents`); the message names it.

    >>> [c.name for c in sweep(sae.TopK(latents=64, k=4), k=[2, 4], seed=[0, 1])]  # doctest: +SKIP
    ['topk-64-k2-seed0', 'topk-64-k2-seed1', 'topk-64-k4-seed0', 'topk-64-k4-seed1']
    """
    if not isinstance(base, SAEConfig):
        raise SAEError(f"a sweep starts from a configuration such as sae.TopK(...); got {type(base).__name__}")
    kind = type(base)
    for name, listed in values.items():
        _check_setting(name, _fields([kind]), kind.__name__)
        if isinstance(listed, str) or not isinstance(listed, Iterable):
            raise SAEError(f"{name}={shorten(listed)}: give the values as a list, {name}=[...]")
    grid = {name: list(listed) for name, listed in values.items()}
    for name, listed in grid.items():
        _distinct(name, listed)
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    plain = [_configuration(dataclasses.replace, base, point, name=None) for point in points]
    varied = [name for name, listed in grid.items() if len(listed) > 1]
    if base.name is None:
        varied = [name for name in varied if not _in_titles(name, grid[name], base, plain)]
    configs = []
    for config, point in zip(plain, points, strict=True):
        stem = config.title if base.name is None else base.name
        name = "-".join([stem, *(f"{name}{_text(point[name])}" for name in varied)])
        configs.append(dataclasses.replace(config, name=name))
    return configs


def parse(texts: Sequence[str], config: SAEConfig | type[SAEConfig] | None = None) -> dict[str, list[Any]]:
    """The values of a sweep on a command line: `["k=16,32", "seed=0,1"]` -> `{"k": [16, 32], "seed": [0, 1]}`.

    Values have the type of their setting. Those of a tuple are joined by `+` (`groups=4+8+12,8+16`), and `none` is no
    value where a setting may have none.

    Args:
        texts: settings, each with its values.
        config: a configuration, or its class, whose settings are swept (default: those of any architecture).

    Raises:
        SAEError: a text that is not `setting=value,value`, an unknown setting, or an invalid value.

    >>> parse(["k=16,32", "lr=1e-3,none"])
    {'k': [16, 32], 'lr': [0.001, None]}
    """
    kinds = [cls.Config for cls in list_architectures().values()]
    if config is not None:
        kinds = [config if isinstance(config, type) else type(config)]
    fields = _fields(kinds)
    parsed: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name or not listed.strip():
            raise SAEError(f"{shorten(text)!r} is no sweep: write setting=value,value, say k=16,32")
        _check_setting(name, fields, kinds[0].__name__ if config is not None else "any architecture")
        if name in parsed:
            raise SAEError(f"{name} is swept twice: write its values in one list, {name}=value,value")
        parsed[name] = [_read(name, value.strip(), fields[name]) for value in listed.split(",")]
        _distinct(name, parsed[name])
    return parsed


# -- settings -----------------------------------------------------------------------------------------


def _fields(kinds: Sequence[type[SAEConfig]]) -> dict[str, Any]:
    """Settings that can be swept, and their types."""
    hints: dict[str, Any] = {}
    for kind in kinds:
        hints = typing.get_type_hints(kind) | hints
    return {name: hints[name] for name in hints if name not in ("name", "architecture", "penalty_weight")}


def _check_setting(name: str, fields: Mapping[str, Any], kind: str) -> None:
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


def _configuration(make: Any, base: SAEConfig, point: Mapping[str, Any], **more: Any) -> SAEConfig:
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in point.items()}
    try:
        config: SAEConfig = make(base, **settings, **more)
    except (SAEError, TypeError) as error:
        combination = ", ".join(f"{name}={_text(value)}" for name, value in point.items())
        raise SAEError(f"the sweep's {combination} is no configuration: {shorten(error, 200)}") from error
    return config


def _in_titles(name: str, values: Sequence[Any], base: SAEConfig, configs: Sequence[SAEConfig]) -> bool:
    """Whether the titles of all configurations differ for different values of a setting."""
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
    """A value in a name: short, without characters that a folder's name cannot have."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, (tuple, list)):
        return "+".join(map(_text, value))
    return "none" if value is None else shorten(value, 20)


def _read(name: str, text: str, hint: Any) -> Any:
    """A value of a type: int, float, a literal, a tuple of these, or None."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if text.lower() == "none" and type(None) in options:
        return None
    option = next(option for option in options if option is not type(None))
    try:
        if typing.get_origin(option) is tuple:
            return tuple(_read(name, part, typing.get_args(option)[0]) for part in text.split("+"))
        if typing.get_origin(option) is Literal:
            if text not in typing.get_args(option):
                raise ValueError
            return text
        return option(text)
    except (TypeError, ValueError):
        choices = typing.get_args(option) if typing.get_origin(option) is Literal else ()
        kind = " or ".join(choices) or {int: "a whole number", float: "a number"}.get(option, str(option))
        none = " or none" if type(None) in options else ""
        raise SAEError(f"{name}={shorten(text, 40)!r}: {name} is {kind}{none}") from None
