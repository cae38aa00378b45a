"""Files are the old one or the whole new one, and what hinders them is said in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from zoo.common.files import move_files, scratch, write_atomically
from zoo.errors import FileError


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: disk full")])
def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "kept.json"
    path.write_text("old")

    def fill(temporary: Path) -> None:
        temporary.write_text("ne")
        raise error

    with pytest.raises(FileError, match=r"cannot write .*kept.json: (No space left|I/O error)"):
        write_atomically(path, fill)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write .*file/under.json"):
        write_atomically(tmp_path / "file" / "under.json", lambda path: path.write_text("new"))


def test_other_errors_come_through_and_leave_nothing(tmp_path: Path) -> None:
    def fill(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        write_atomically(tmp_path / "new.json", fill)
    assert not list(tmp_path.iterdir())


def test_what_is_written_is_whole_and_has_the_usual_rights(tmp_path: Path) -> None:
    path = tmp_path / "made" / "new.json"
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    (tmp_path / "usual").write_text("")
    assert path.read_text() == "new" and path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert list(path.parent.iterdir()) == [path]


def test_scratch_folders_of_dead_runs_are_swept_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, pathlib, sys\n"
            "from zoo.common.files import scratch\n"
            "with scratch(pathlib.Path(sys.argv[1])) as folder:\n"
            "    (folder / 'half').write_text('x')\n"
            "    os.kill(os.getpid(), 9)\n",
            str(tmp_path),
        ],
        check=False,
    )
    assert killed.returncode == -9 and len(list(tmp_path.glob(".circuits-*"))) == 1
    (tmp_path / ".circuits-mine").mkdir()  # of no run
    with scratch(tmp_path) as living:
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([".circuits-mine", living.name])
        with scratch(tmp_path):
            assert living.is_dir()
    assert [p.name for p in tmp_path.iterdir()] == [".circuits-mine"]


def test_files_are_moved_with_their_subfolders(tmp_path: Path) -> None:
    with scratch(tmp_path) as folder:
        (folder / "a").mkdir()
        (folder / "a" / "b").write_text("x")
        move_files(folder, tmp_path / "out")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()] == ["out/a/b"]
