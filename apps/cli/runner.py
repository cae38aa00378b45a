"""Runs a command: stages its files, prints its result, and leaves nothing half-written."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from rich.text import Text

from apps.cli.common import Command, CommandResult, Session, document_text
from apps.cli.output.console import stderr, stdout
from apps.cli.output.folder import in_place, staged


def execute(command: Command, name: str, invocation: str) -> int:
    """Run `command`, write its files, print its result; its exit code."""
    if command.seed < 0 or command.seed >= 2**32:
        from apps.cli.errors import UsageError

        raise UsageError(f"--seed is between 0 and {2**32 - 1}, not {command.seed}")
    command.begin()
    out = None if command.keeps_out else command.out
    outputs = command.outputs()
    outputs = replace(outputs, patterns=(document_name(name), *outputs.patterns))
    fills = command.keeps_out or command.fills_out
    # of the processes that torchrun starts, the others write nothing
    first = os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
    with in_place(command.out if fills and first else None, outputs), staged(out, outputs, fills) as folder:
        result = command.run(Session(invocation))
        text = document_text(name, result.document)
        if folder is not None:
            _write(result, text, folder, name)
    if command.json:
        sys.stdout.write(text + "\n")
    else:
        result.show(stdout())
    if out is not None:
        report = out / "index.html"
        stderr().print(Text(f"written: {report if report.is_file() else out}"))
    return result.code


def document_name(command: str) -> str:
    """The file in which a command's JSON document is written."""
    return f"{command.replace(' ', '-')}.json"


def _write(result: CommandResult, text: str, folder: Path, name: str) -> None:
    if result.write is not None:
        result.write(folder)
    file = document_name(name) if result.named is None else result.named
    if file:
        (folder / file).write_text(text, encoding="utf-8")
