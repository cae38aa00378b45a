"""Shell completion: what may follow on a command line, known without importing torch.

Commands and options are read from the commands' classes.
"""

from __future__ import annotations

import ast
import contextlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from apps.cli.output.completion.known import models
from apps.cli.registry import COMMANDS, load_command

if TYPE_CHECKING:
    pass

_FURTHER = ("torchvision/", "timm/", "hf:")
_MODELS = ("model", "network")
_ADDRESSES = ("address", "addresses", "first", "second")
_LAYERS = ("layers", "source", "downstream", "target", "also")


def complete(line: str) -> list[str]:
    """What the last word of a command line may become, up to the cursor; empty where files may follow.

    >>> complete("circuits sae tr")
    ['train']
    """
    for quote in ("", "'", '"'):  # one may still be open
        with contextlib.suppress(ValueError):
            words = shlex.split(line + quote)
            return candidates(words[1:] if line[-1:].strip() else [*words[1:], ""])
    return []


def candidates(words: Sequence[str]) -> list[str]:
    """What the last of `words` may become; `words` are what follows `circuits`."""
    *before, current = words or [""]
    if not before:
        return _starting([*dict.fromkeys(name.split()[0] for name in COMMANDS), "help", "--help", "--version"], current)
    if before == ["help"]:
        return _starting(list(COMMANDS), current)
    seconds = [name.split()[1] for name in COMMANDS if name.startswith(f"{before[0]} ")]
    if seconds and len(before) == 1:
        return _starting(seconds, current)
    name, given = (" ".join(before[:2]), before[2:]) if seconds else (before[0], before[1:])
    if name not in COMMANDS:
        return []
    every = fields(load_command(name))
    positional = [field for field in every if _is_positional(field)]
    options = {_option(field): field for field in every if not _is_positional(field)}
    if current.startswith("-"):
        return _starting([*options, "--help"], current)
    field = options.get(given[-1]) if given else None
    if field is not None and not _is_flag(field):
        return _starting(_values(field, given), current)
    filled = _filled(given, options)
    field = positional[min(len(filled), len(positional) - 1)] if positional else None
    return [] if field is None else _starting(_values(field, given, current), current)


def _starting(choices: Sequence[str], start: str) -> list[str]:
    return [choice for choice in choices if choice.startswith(start)]


def _is_positional(field: Field[Any]) -> bool:
    return "Positional" in str(field.type)


def _option(field: Field[Any]) -> str:
    """The option of a field, as it is typed."""
    name = "model" if field.name == "own" else field.name.replace("_", "-")
    return f"--no-{name}" if field.default is True else f"--{name}"


def _is_flag(field: Field[Any]) -> bool:
    return isinstance(field.default, bool)


def _filled(given: Sequence[str], options: Mapping[str, Field[Any]]) -> list[str]:
    """The positional arguments among the words given."""
    values = [i + 1 for i, word in enumerate(given) if word in options and not _is_flag(options[word])]
    return [word for i, word in enumerate(given) if not word.startswith("--") and i not in values]


def _values(field: Field[Any], given: Sequence[str], current: str = "") -> list[str]:
    """What an option or argument may be; empty for a file or a number."""
    if choices := re.search(r"Literal(\[.*?\])", str(field.type), re.DOTALL):
        return list(ast.literal_eval(choices[1]))
    if field.name == "device":
        return ["cpu", "cuda", "mps"]
    if field.name in _MODELS:
        return [*models(), *_FURTHER]
    if field.name in _ADDRESSES:
        model = current.rpartition("/")[0]
        known = models().get(model, [])
        return [f"{model}/{layer}" for layer in known] if model else [*(f"{name}/" for name in models()), *_FURTHER]
    if field.name in _LAYERS:
        named = (name for word in given for name in (word, word.rpartition("/")[0]) if name in models())
        return models().get(next(named, ""), [])
    return []
