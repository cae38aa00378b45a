"""The folder of `--out`: what of it is ours, and that nothing of somebody else's is overwritten unasked.

A folder that a command has written into holds an inventory, `.vision-circuits.json`: the name and SHA-256 of every
file written. A file is ours while it has that digest. Any other file of a name that the command is going to write is
somebody else's, or was changed since; it stays, and the command is refused before the work, unless `--overwrite` is
given.
"""

from __future__ import annotations

import glob
import hashlib
import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Literal, TypedDict

FILES = (".html", ".json", ".png", ".jpg", ".svg", ".pdf", ".csv", ".npz", ".safetensors")
"""Endings that no folder of results bears but by mistake."""
KIND = "vision-circuits results"
_PATIENCE = 60
"""Seconds for which finished files wait until another run has moved its own into the folder."""


@dataclass(frozen=True)
class Outputs:
    """What a command writes into its folder.

    Attributes:
        patterns: of the files' names, as `Path.glob` takes them.
        known: names of files there that carry a mark of their own, such as those that the index of a sweep names.
        overwrite: whether files that are not ours are replaced, too.
        replace: whether a command that fills its folder itself begins anew, instead of going on with what is ours.
    """

    patterns: tuple[str, ...]
    known: frozenset[str] = frozenset()
    overwrite: bool = False
    replace: bool = False


class _Document(TypedDict):
    kind: Literal["vision-circuits results"]
    schema: Literal[1]
    files: dict[str, str]
    unfinished: list[str]


@dataclass
class _Inventory:
    """What a folder's inventory says.

    Attributes:
        files: name -> SHA-256 of the files written.
        unfinished: patterns of the files that a running or killed command writes itself, all of which are then ours;
            empty where there is none.
    """

    files: dict[str, str] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> _Inventory:
        """An empty one where there is none that can be read: then nothing in the folder is ours."""
        from zoo.common.files import INVENTORY
        from zoo.common.reading import fits, read_json

        try:
            document: _Document = read_json(folder / INVENTORY)
            fits(document, _Document)
        except (OSError, ValueError):
            return cls()
        patterns = [PurePath(pattern) for pattern in document["unfinished"]]
        if any(path.is_absolute() or not path.parts or ".." in path.parts for path in patterns):
            return cls()  # no command of ours writes out of its folder: it is a stranger's
        return cls(document["files"], document["unfinished"])

    def write(self, folder: Path) -> None:
        from zoo.common.files import INVENTORY, write_text_atomically

        document = {"kind": KIND, "schema": 1, "files": self.files, "unfinished": self.unfinished}
        write_text_atomically(folder / INVENTORY, json.dumps(document, indent=1, sort_keys=True) + "\n")

    def foreign(self, folder: Path, outputs: Outputs) -> list[str]:
        """Names of the files of a command's patterns that are not ours."""
        from zoo.common.files import linked

        ours = {*(outputs.known - self.files.keys()), *_matching(folder, self.unfinished)}
        return [
            name
            for name in _matching(folder, outputs.patterns)
            if linked(folder, PurePath(name)) is not None  # in another folder, whatever a stranger's inventory says
            or (name not in ours and (name not in self.files or self.files[name] != _digest(folder / name)))
        ]


@contextmanager
def staged(out: Path | None, outputs: Outputs, within: bool = False) -> Iterator[Path | None]:
    """A hidden folder whose files are moved into `out` when all went well, and removed when not.

    It is made before the work starts, so that a folder that cannot be written to is reported at once. `within` an
    `in_place`, which ends the runs that were killed.

    Raises:
        CircuitsError: `out` is a file, nothing can be written there, or it has files of somebody else's.
    """
    if out is None:
        yield None
        return
    from zoo.common.files import move_files, only_writer, scratch, staged_files
    from zoo.errors import FileError

    out = _checked(out)
    _refuse(out, outputs)
    with ExitStack() as ends:
        with _reported(out):
            ends.enter_context(_new_folder(out))
            with suppress(FileError), only_writer(out):
                if not within:  # files of others that a killed run had set aside
                    _settle(out)
        _refuse(out, outputs)
        with _reported(out):
            folder = ends.enter_context(scratch(out))
        yield folder
        names = [path.relative_to(folder).as_posix() for path in staged_files(folder)]
        with _reported(out):
            ends.enter_context(only_writer(out, _PATIENCE))
            if not within:
                _settle(out)
        _refuse(out, replace(outputs, patterns=tuple(map(glob.escape, names))))  # somebody may have written since
        with _reported(out), _undisturbed():
            inventory = _Inventory.of(out)
            moved = [*inventory.unfinished, *map(glob.escape, names)]
            _Inventory(inventory.files, moved).write(out)  # ours, also if we are killed here
            inventory.files |= {name: str(_digest(folder / name)) for name in names}
            move_files(folder, out)
            inventory.write(out)


@contextmanager
def in_place(out: Path | None, outputs: Outputs) -> Iterator[None]:
    """A command fills `out` itself, so that it goes on where it was stopped; all that it wrote is put down as ours.

    Files that may be replaced are out of the way meanwhile, so that nobody takes them for a result of this run. Those
    of others that were not replaced come back; ours all do, where nothing was written.

    Raises:
        CircuitsError: as `staged`.
    """
    if out is None:
        yield
        return
    from zoo.common.files import ASIDE, only_writer
    from zoo.errors import CircuitsError

    out = _checked(out)
    with ExitStack() as ends:
        with _reported(out):
            ends.enter_context(_new_folder(out))
            ends.enter_context(only_writer(out))
            _settle(out)
        others = _refuse(out, outputs)  # none, or those to be replaced
        ours = [n for n in _matching(out, outputs.patterns) if n not in others] if outputs.replace else []
        try:
            with _reported(out):
                _set_aside(out, {"others": others, "ours": ours})
                _Inventory(_Inventory.of(out).files, list(outputs.patterns)).write(out)
            yield
        finally:
            try:
                with _reported(out), _undisturbed():
                    _settle(out)
            except CircuitsError as error:
                if (out / ASIDE).is_dir():  # without room for the inventory it would pass for ours
                    raise CircuitsError(
                        f"{error}; what was there before is in its {ASIDE} until the next run there puts it back"
                    ) from error
                raise


@contextmanager
def _new_folder(out: Path) -> Iterator[None]:
    """The folder is there; where nothing came of it, it goes again, and so do those above it that were made for it."""
    from zoo.common.files import INVENTORY

    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            if missing and [path.name for path in out.iterdir()] == [INVENTORY] and not _Inventory.of(out).files:
                (out / INVENTORY).unlink()
            for folder in missing:
                folder.rmdir()


def _checked(out: Path) -> Path:
    """The folder's absolute path."""
    from zoo.errors import CircuitsError, shorten

    with _reported(out):
        out = out.expanduser().absolute()
        if out.exists() and not out.is_dir():
            raise CircuitsError(f"--out {shorten(out, 200)} is a file; give a folder")
        if out.suffix.lower() in FILES and not out.exists():
            raise CircuitsError(
                f"--out {shorten(out, 200)} is the name of a file; give a folder, results get their own"
            )
    return out


def _refuse(out: Path, outputs: Outputs) -> list[str]:
    """Names of the files there that are not ours, where these may be overwritten; refused where they may not."""
    from zoo.errors import CircuitsError, shorten

    with _reported(out):
        others = _Inventory.of(out).foreign(out, outputs) if out.is_dir() else []
    if others and not outputs.overwrite:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise CircuitsError(
            f"--out {shorten(out, 200)} has {shorten(others[0], 60)}{more}, not written by circuits or changed since: "
            "give another folder, or --overwrite to replace files of the same name"
        )
    return others


def _set_aside(out: Path, names: Mapping[str, Sequence[str]]) -> None:
    """Move files into a hidden folder of `out`, under whose they are: "others" or "ours"."""
    from zoo.common.files import ASIDE

    for whose, files in names.items():
        for name in files:
            target = out / ASIDE / whose / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (out / name).replace(target)


def _settle(out: Path) -> None:
    """End a run that filled `out`, this one or one that was killed: what it wrote is ours, what it set aside is back.

    The steps may end anywhere, and the next run begins with them again.
    """
    from zoo.common.files import ASIDE, linked, remove_tree, tidy

    aside, inventory = out / ASIDE, _Inventory.of(out)
    if aside.is_symlink():  # none that we made
        aside.unlink()
    nested = {Path(pattern).parent.as_posix() for pattern in inventory.unfinished} - {"."}
    for folder in {out, *(path for parent in nested for path in out.glob(parent))}:
        if linked(out, (folder / "any").relative_to(out)) is None:
            tidy(folder)
    if inventory.unfinished:
        names = [n for n in _matching(out, inventory.unfinished) if linked(out, PurePath(n)) is None]
        written = {name: _digest(out / name) for name in names}
        if written:  # ours of before were replaced
            remove_tree(aside / "ours")
        listed = {n: d for n, d in inventory.files.items() if (out / n).exists() or (aside / "ours" / n).exists()}
        _Inventory(listed | {name: digest for name, digest in written.items() if digest is not None}).write(out)
    if aside.is_dir():
        for whose in aside.iterdir():
            _put_back(whose, out)
        remove_tree(aside)


def _put_back(source: Path, target: Path) -> None:
    """Move a file or folder to where nothing is, and what is in a folder to where it is."""
    if not target.exists():
        source.replace(target)
    elif target.is_dir() and source.is_dir() and not source.is_symlink():
        for path in source.iterdir():
            _put_back(path, target / path.name)


def _matching(folder: Path, patterns: Sequence[str]) -> list[str]:
    """Names, with `/` between folders, of what is there of some patterns."""
    paths = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _digest(path: Path) -> str | None:
    """SHA-256 of a file, in hex; None of what is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _reported(out: Path) -> Iterator[None]:
    """What the system refuses, as one line."""
    from zoo.errors import CircuitsError, shorten

    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CircuitsError(f"cannot write into --out {shorten(out, 200)}: {reason}") from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and `kill` wait for a moment while finished files are renamed into place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (getattr(signal, s) for s in names if hasattr(signal, s))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
