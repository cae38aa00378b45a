"""Options to a command object by tyro, with its error boxes cut down to one line."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro

from apps.cli.common import Command
from apps.cli.errors import UsageError

_FRAME = str.maketrans(dict.fromkeys("╭╮╰╯│┌┐└┘|", " "))
_CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName, tyro.conf.DisallowNone)


def parse(command: type[Command], prog: str, arguments: Sequence[str]) -> Command:
    """The command with its options.

    Raises:
        UsageError: options that cannot be read. SystemExit: after `--help`.
    """
    _own_options_first(command)
    errors = io.StringIO()
    description = inspect.cleandoc(command.__doc__ or "")
    try:
        with contextlib.redirect_stderr(errors):
            parsed = tyro.cli(command, prog=prog, description=description, args=list(arguments), config=_CONFIG)
            paths: dict[str, Any] = {name: value for name, value in vars(parsed).items() if isinstance(value, Path)}
            return replace(parsed, **{name: path.expanduser() for name, path in paths.items()})
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(f"{_in_one_line(errors.getvalue())}; see `{prog} --help`") from None


def _in_one_line(box: str) -> str:
    """The message in tyro's box, without the frame, the title and the advice."""
    lines = [line.translate(_FRAME).strip() for line in box.splitlines()]
    body = [line for line in lines[1:] if line]  # the first line is the frame with the title
    while body and _is_rule(body[0]):  # a terminal without box characters has one more
        body.pop(0)
    rule = next((i for i, line in enumerate(body) if _is_rule(line)), len(body))
    message_lines, advice = body[:rule], body[rule + 1 :]
    if message_lines and message_lines[0].startswith("Missing from"):
        # then come, for each argument, its name and its help
        return f"{message_lines[1].split()[0]} is missing" if len(message_lines) > 1 else "an argument is missing"
    message = " ".join(message_lines) or "the options cannot be read"
    near = next((line.split()[0].rstrip(",") for line in advice[1:] if line.startswith("--")), None)
    if advice and advice[0].startswith("Perhaps you meant") and near:
        message += f"; perhaps {near}"
    return message.rstrip(".")


def _is_rule(line: str) -> bool:
    return set(line) <= set("─-+")


def _own_options_first(command: type[Command]) -> None:
    """Help lists the options in the order of the fields; all are keyword-only, so that order is ours to choose."""
    fields = command.__dataclass_fields__
    order = [name for cls in command.__mro__ for name in cls.__dict__.get("__annotations__", {}) if name in fields]
    for name in dict.fromkeys(order):
        fields[name] = fields.pop(name)
