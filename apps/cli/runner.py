"""Runs a command: stages its files, prints its result, and leaves nothing half-written."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.text import Text

from apps.cli.common import Command, CommandResult, Session, document_text
from apps.cli.output.console import stderr, stdout

FILES = (".html", ".json", ".png", ".jpg", ".svg", ".pdf", ".csv", ".npz", ".safetensors")
"""Endings that no folder of results bears but by mistake."""


def execute(command: Command, name: str, invocation: str) -> int:
    """Run `command`, write its files, print its result; its exit code."""
    if command.seed < 0 or command.seed >= 2**32:
        from apps.cli.errors import UsageError

        raise UsageError(f"--seed is between 0 and {2**32 - 1}, not {command.seed}")
    command.begin()
    out = None if command.keeps_out else command.out
    with staged(out) as folder:
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


def _write(result: CommandResult, text: str, folder: Path, name: str) -> None:
    if result.write is not None:
        result.write(folder)
    file = f"{name.replace(' ', '-')}.json" if result.named is None else result.named
    if file:
        (folder / file).write_text(text, encoding="utf-8")


@contextmanager
def staged(out: Path | None) -> Iterator[Path | None]:
    """A hidden folder whose files are moved into `out` when all went well, and removed when not.

    It is made before the work starts, so that a folder that cannot be written to is reported at once.

    Raises:
        CircuitsError: `out` is a file, or nothing can be written there.
    """
    if out is None:
        yield None
        return
    from zoo.common.files import move_files, scratch
    from zoo.errors import CircuitsError, shorten

    out = out.expanduser().absolute()
    try:
        parent = out if out.is_dir() else next(p for p in out.parents if p.exists())
        if out.exists() and not out.is_dir():
            raise CircuitsError(f"--out {shorten(out, 200)} is a file; give a folder")
        if out.suffix.lower() in FILES and not out.exists():
            raise CircuitsError(
                f"--out {shorten(out, 200)} is the name of a file; give a folder, results get their own"
            )
    except (OSError, ValueError) as error:
        raise CircuitsError(f"cannot write into --out {shorten(out, 200)}: {_reason(error)}") from error
    with ExitStack() as ends:
        try:
            folder = ends.enter_context(scratch(parent))
        except OSError as error:
            raise CircuitsError(f"cannot write into --out {shorten(out, 200)}: {_reason(error)}") from error
        yield folder
        try:
            with _undisturbed():
                move_files(folder, out)
        except OSError as error:
            raise CircuitsError(f"cannot write into --out {shorten(out, 200)}: {_reason(error)}") from error


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits for a moment while finished files are renamed into place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
