"""A process that fills a folder of `--out` and is killed at each of its file operations, then runs again.

`python -m tests.apps.shell.kills FOLDER` prints, for each way to fill it, how many operations there are
and what was wrong after a kill at one of them. A process of its own, without threads, so that it can fork.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from apps.cli.output.folder import Outputs, in_place, staged
from zoo.common.files import INVENTORY, write_text_atomically

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod")
PATTERNS = ("*.txt", "pages/*.txt")
MINE = {"a.txt": "mine", "z.txt": "mine, too", "pages/b.txt": "mine as well"}
_count, _kill_at = 0, 0


def _watch(event: str, args: tuple[Any, ...]) -> None:
    global _count
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    if _kill_at and (writes or event in CHANGES):
        _count += 1
        if _count == _kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def _write(folder: Path, what: str) -> None:
    for name in ("a.txt", "pages/b.txt"):
        write_text_atomically(folder / name, what)


def _fill(out: Path, what: str, outputs: Outputs = Outputs(PATTERNS)) -> None:  # noqa: B008 (frozen)
    with in_place(out, outputs):
        _write(out, what)


def _stage(out: Path, what: str, outputs: Outputs = Outputs(PATTERNS)) -> None:  # noqa: B008 (frozen)
    with staged(out, outputs) as folder:
        assert folder is not None
        _write(folder, what)


def _nothing(out: Path) -> None:
    pass


def _of_others(out: Path) -> None:
    for name, text in MINE.items():
        write_text_atomically(out / name, text)


def _of_ours(out: Path) -> None:
    with in_place(out, Outputs(PATTERNS)):
        for name, text in MINE.items():
            write_text_atomically(out / name, text)


WAYS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "fill": (_nothing, lambda out: _fill(out, "new")),
    "fill over others": (_of_others, lambda out: _fill(out, "new", Outputs(PATTERNS, overwrite=True))),
    "fill instead of ours": (_of_ours, lambda out: _fill(out, "new", Outputs(PATTERNS, replace=True))),
    "fill ours": (_of_ours, lambda out: _fill(out, "new")),
    "stage": (_nothing, lambda out: _stage(out, "new")),
    "stage over others": (_of_others, lambda out: _stage(out, "new", Outputs(PATTERNS, overwrite=True))),
    "stage over ours": (_of_ours, lambda out: _stage(out, "new")),
}
"""Name -> what is there before, and the run."""


def _in_child(run: Callable[[Path], None], out: Path, kill_at: int) -> bool:
    """Whether it came to its end."""
    global _kill_at
    if (child := os.fork()) == 0:
        _kill_at = kill_at
        try:
            run(out)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _files(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


@contextmanager
def _fresh(folder: Path, before: Callable[[Path], None]) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    before(folder / "out")
    yield folder / "out"


def faults(way: str, folder: Path) -> tuple[int, list[str]]:
    """How many kills, and what was wrong after them."""
    before, run = WAYS[way]
    fresh: Callable[[], AbstractContextManager[Path]] = lambda: _fresh(folder, before)  # noqa: E731
    with fresh() as out:
        at_first = _files(folder)
        assert _in_child(run, out, 0)
        right = _files(folder)
    found, point = [], 1
    while True:
        with fresh() as out:
            if _in_child(run, out, point):
                return point - 1, found
            killed = _files(folder)
            texts = [*killed.values()]
            for name, text in at_first.items():  # nothing is lost: it is there, was set aside, or has its successor
                if INVENTORY not in name and text not in texts and killed.get(name) != right.get(name):
                    found.append(f"kill {point}: {name} is gone")
            again = _in_child(run, out, 0)
            if not again or _files(folder) != right:
                found.append(f"kill {point}: then {'other files: ' + ' '.join(_files(folder)) if again else 'refused'}")
        point += 1


if __name__ == "__main__":
    sys.addaudithook(_watch)
    print(json.dumps({way: faults(way, Path(sys.argv[1]) / "work") for way in WAYS}))
