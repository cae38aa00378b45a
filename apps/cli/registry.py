"""The commands by name. A new one is one new file in `apps/cli/commands/`, with a class that `@command` declares."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from apps.cli.common import Command

    AnyCommand = TypeVar("AnyCommand", bound=type[Command])

GROUPS = ("Models and images", "Analysis", "Sparse autoencoders", "Installation")
"""Headings of `circuits --help`, in order; a group of another name comes last."""


def command(*, group: str, order: int, summary: str) -> Callable[[AnyCommand], AnyCommand]:
    """Declare a command. Its name is that of its file: `sae_train.py` holds `sae train`.

    The declaration is read from the source without importing it, so the arguments are literals, and this decorator
    comes first.

    Args:
        group: heading of the help that lists it; one of `GROUPS`, or a new one.
        order: position under that heading, the lowest first.
        summary: its line there.
    """
    return lambda declared: declared


@dataclass(frozen=True)
class Entry:
    """A declared command: the module and class that hold it, and its line in the help."""

    module: str
    cls: str
    group: str
    order: int
    summary: str

    @property
    def name(self) -> str:
        """As it is typed after `circuits`."""
        return self.module.replace("_", " ")


def discover(folder: Path) -> dict[str, Entry]:
    """The commands declared in the files of `folder`, by name, in the order of the help.

    Raises:
        ValueError: a file declares none.
    """
    entries = [_read(path) for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    known = {group: rank for rank, group in enumerate(GROUPS)}
    entries.sort(key=lambda entry: (known.get(entry.group, len(GROUPS)), entry.group, entry.order, entry.name))
    return {entry.name: entry for entry in entries}


def _read(path: Path) -> Entry:
    # Only the decorators and the head of the class are parsed: `circuits --help` reads every file.
    source = path.read_text(encoding="utf-8")
    start = source.find("\n@command(")
    head = source.find("\nclass ", start)
    if start < 0 or head < 0:
        raise ValueError(f"{path} declares no command: put @command(group=..., order=..., summary=...) on its class")
    cls = source[head:].split("(", 1)[0].split()[1]
    (declared,) = ast.parse(f"{source[start:head]}\nclass {cls}: ...").body
    assert isinstance(declared, ast.ClassDef) and isinstance(declared.decorator_list[0], ast.Call)
    options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in declared.decorator_list[0].keywords}
    return Entry(path.stem, cls, **options)


COMMANDS = discover(Path(__file__).with_name("commands"))


def load_command(name: str) -> type[Command]:
    """The class of the command `name`."""
    entry = COMMANDS[name]
    loaded: type[Command] = getattr(importlib.import_module(f"apps.cli.commands.{entry.module}"), entry.cls)
    return loaded
