"""`--out` has one meaning for all commands: ours is completed, somebody else's file is not overwritten unasked."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from apps.cli.common import Command, CommandResult
from apps.cli.output.folder import KIND, Outputs, in_place, staged
from apps.cli.registry import COMMANDS, load_command
from tests.apps.small_runs import RUNS, SmallRun, SmallRuns, at, run
from tests.apps.terminal import Cli, Ran, is_refused
from zoo.common.files import ASIDE, INVENTORY, LOCK
from zoo.errors import CircuitsError, FileError

MINE = b"mine"
FILLED = [name for name in RUNS if load_command(name).keeps_out or load_command(name).fills_out]
"""Commands that write into `--out` while they work."""


def test_every_command_has_a_small_run() -> None:
    assert set(RUNS) == set(COMMANDS)


@pytest.mark.parametrize("name", RUNS)
def test_a_small_run_writes_files_and_an_inventory_of_them(runs: SmallRuns, name: str) -> None:
    ran, out = runs[name].ran, runs[name].out
    assert ran.code == 0, ran.err
    listed = json.loads((out / INVENTORY).read_text("utf-8"))
    assert listed["unfinished"] == []
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and p.name != INVENTORY}
    assert listed["files"] and {f for f in files if not f.startswith("shared/")} == set(listed["files"])


def _again(small: SmallRun, out: Path, monkeypatch: pytest.MonkeyPatch, *options: str, work: bool = False) -> Ran:
    """The command once more; where it stages its files, they are copied from the first run instead of computed."""

    def replay(self: Command, session: object) -> CommandResult:
        def write(folder: Path) -> None:
            shutil.copytree(small.out, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(INVENTORY))

        return CommandResult({}, lambda console: None, write, named="")

    with monkeypatch.context() as patch, at(small.out.parent):
        name = next(n for n in RUNS if small.arguments[: len(n.split())] == n.split() and RUNS[n] is not None)
        if not work:
            patch.setattr(load_command(name), "run", replay)
        return run([*small.arguments, "--out", str(out), *options])


@pytest.mark.parametrize("name", RUNS)
def test_somebody_elses_file_stays_unless_it_may_be_overwritten(
    runs: SmallRuns, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, filled = runs[name], name in FILLED
    names = json.loads((small.out / INVENTORY).read_text("utf-8"))["files"]
    for number, file in enumerate([*names][:3] if filled else names):
        out = tmp_path / str(number)
        (out / file).parent.mkdir(parents=True)
        (out / file).write_bytes(MINE)
        if not filled:
            (out / "notes.txt").write_bytes(MINE)
        before = sorted(out.rglob("*"))
        ran = _again(small, out, monkeypatch)
        assert is_refused(ran) and "--overwrite" in ran.err and Path(file).name[:50] in ran.err, ran
        assert (out / file).read_bytes() == MINE and sorted(out.rglob("*")) == before
        if number == 0:
            ran = _again(small, out, monkeypatch, "--overwrite", work=filled)
            assert ran.code == 0, ran.err
            assert (out / file).read_bytes() != MINE and not list(tmp_path.glob(".*"))
            assert filled or (out / "notes.txt").read_bytes() == MINE


@pytest.mark.parametrize("name", RUNS)
def test_a_result_of_ours_is_completed_or_replaced_but_not_where_it_was_changed(
    runs: SmallRuns, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, out = runs[name], tmp_path / "again"
    shutil.copytree(small.out, out)
    (out / "notes.txt").write_bytes(MINE)
    if name in ("images", "sae train"):  # a folder of their own
        (out / "notes.txt").unlink()
    ran = _again(small, out, monkeypatch, work=name in FILLED)
    assert ran.code == 0, ran.err
    names = json.loads((out / INVENTORY).read_text("utf-8"))["files"]
    assert set(names) == set(json.loads((small.out / INVENTORY).read_text("utf-8"))["files"])
    (out / [*names][0]).write_bytes(MINE)
    ran = _again(small, out, monkeypatch)
    assert is_refused(ran) and "changed since" in ran.err
    assert (out / [*names][0]).read_bytes() == MINE


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    """What it wrote before it could put that down is ours."""
    outputs = Outputs(("index.json", "*.png"))
    killed = in_place(tmp_path, outputs)
    killed.__enter__()
    (tmp_path / "a.png").write_bytes(b"ours")
    listed = json.loads((tmp_path / INVENTORY).read_text("utf-8"))
    assert listed["unfinished"] == ["index.json", "*.png"]  # as a kill leaves it
    with in_place(tmp_path, outputs):
        assert (tmp_path / "a.png").read_bytes() == b"ours"
        (tmp_path / "b.png").write_bytes(b"ours, too")
    assert set(json.loads((tmp_path / INVENTORY).read_text("utf-8"))["files"]) == {"a.png", "b.png"}


@pytest.mark.parametrize("pattern", ["../*", "/*", ""])
def test_an_inventory_that_names_files_elsewhere_is_a_strangers(tmp_path: Path, pattern: str) -> None:
    left = tmp_path / ".mine.png.abcdefgh.tmp"  # called as an unfinished file of ours
    left.write_bytes(MINE)
    out = tmp_path / "out"
    out.mkdir()
    document = {"kind": KIND, "schema": 1, "files": {}, "unfinished": [pattern]}
    (out / INVENTORY).write_text(json.dumps(document))
    with in_place(out, Outputs(("*.png",))):
        (out / "a.png").write_bytes(b"ours")
    assert left.read_bytes() == MINE
    assert set(json.loads((out / INVENTORY).read_text("utf-8"))["files"]) == {"a.png"}


def _with_a_link(tmp_path: Path) -> tuple[Path, Path]:
    """A stranger's folder with a link to a folder of the user's, whose files its inventory claims."""
    mine, out = tmp_path / "mine", tmp_path / "out"
    for folder in (mine, out):
        folder.mkdir()
    for name in ("a.png", ".a.png.abcdefgh.tmp"):
        (mine / name).write_bytes(MINE)
    (out / "sub").symlink_to(mine)
    digest = hashlib.sha256(MINE).hexdigest()
    document = {"kind": KIND, "schema": 1, "files": {"sub/a.png": digest}, "unfinished": ["sub/*.png"]}
    (out / INVENTORY).write_text(json.dumps(document))
    return mine, out


@pytest.mark.parametrize("again", [False, True])
def test_files_behind_a_link_are_not_ours_whatever_an_inventory_says(tmp_path: Path, again: bool) -> None:
    mine, out = _with_a_link(tmp_path)
    with (
        pytest.raises(CircuitsError, match="has sub/a.png, not written by circuits"),
        in_place(out, Outputs(("*/*.png",), replace=again)),
    ):
        pass
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == {"a.png": MINE, ".a.png.abcdefgh.tmp": MINE}


def test_nothing_is_written_through_a_link_in_out(tmp_path: Path) -> None:
    mine, out = _with_a_link(tmp_path)
    with (
        pytest.raises(CircuitsError, match="sub there is a link to another folder"),
        staged(out, Outputs(("b.png", "*/new.png"))) as folder,
    ):
        assert folder is not None
        (folder / "b.png").write_bytes(b"ours")
        (folder / "sub").mkdir()
        (folder / "sub" / "new.png").write_bytes(b"ours")
    assert not (mine / "new.png").exists() and not (out / "b.png").exists()


def test_a_second_run_into_one_folder_is_refused_while_the_first_writes(tmp_path: Path) -> None:
    outputs = Outputs(("*.png",))
    with in_place(tmp_path, outputs), ThreadPoolExecutor(1) as pool:
        with pytest.raises(CircuitsError, match="another run is writing"):
            pool.submit(in_place(tmp_path, replace(outputs, replace=True)).__enter__).result()
        (tmp_path / "a.png").write_bytes(b"ours")
    assert (tmp_path / "a.png").read_bytes() == b"ours" and not (tmp_path / LOCK).exists()


def test_a_full_disk_keeps_what_was_set_aside_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.png").write_bytes(MINE)
    outputs = Outputs(("*.png",), overwrite=True)

    def full(path: Path, text: str) -> None:
        raise FileError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as patch, pytest.raises(CircuitsError, match=rf"No space.*{ASIDE}"):
        with in_place(tmp_path, outputs):
            (tmp_path / "a.png").write_bytes(b"ours")
            patch.setattr("zoo.common.files.write_text_atomically", full)
    assert not (tmp_path / "mine.png").exists()
    with pytest.raises(CircuitsError, match="has mine.png, not written by circuits"):  # it is back, and not ours
        in_place(tmp_path, replace(outputs, overwrite=False)).__enter__()
    assert (tmp_path / "mine.png").read_bytes() == MINE and not (tmp_path / ASIDE).exists()


def test_nothing_is_left_of_a_folder_in_which_nothing_was_done(cli: Cli, tmp_path: Path) -> None:
    assert is_refused(cli("visualize", "scenes/nowhere:1", "--out", tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


def test_sweeps_that_python_or_an_earlier_version_began_go_on(cli: Cli, tmp_path: Path) -> None:
    import circuits
    from circuits.visualization.sweeps.sweep import sweep

    model = circuits.load("scenes")
    sweep(model, ["mixed4a:11"], tmp_path, steps=2, retries=0, size=32)
    options = ("--steps", 2, "--retries", 0, "--size", 32, "--out", tmp_path)
    ran = cli("visualize", "scenes/mixed4a:11", *options)
    assert ran.code == 0, ran.err
    assert len(json.loads((tmp_path / "index.json").read_text("utf-8"))["results"]) == 1


OTHER = {"visualize": "--steps 3", "atlas": "--steps 2", "sae train": "--steps 4"}
"""Commands of long work -> another setting than that of their small run."""


@pytest.mark.parametrize("name", OTHER)
def test_long_work_of_other_settings_is_replaced_only_when_that_is_asked_for(
    runs: SmallRuns, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, out = runs[name], tmp_path / "again"
    shutil.copytree(small.out, out)
    option, value = OTHER[name].split()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    ran = _again(small, out, monkeypatch, option, value, work=True)
    assert is_refused(ran) and "--replace" in ran.err and re.search(rf"{option[2:]}\b.*\b{value}", ran.err), ran.err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    ran = _again(small, out, monkeypatch, option, value, "--device", "nowhere", "--replace", work=True)
    assert is_refused(ran)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    ran = _again(small, out, monkeypatch, option, value, "--replace", work=True)
    assert ran.code == 0, ran.err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} != before
    assert not list(tmp_path.glob(".*"))
