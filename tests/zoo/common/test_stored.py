"""Stored files: whole or not there, of the right kind and schema, unchanged since they were written."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pytest
import torch

from zoo.common import result_files, stored
from zoo.common.files import LOCK, only_writer, tidy
from zoo.common.stored import Stored, sha256
from zoo.errors import CircuitsError, FileError


class OwnError(CircuitsError):
    pass


class Rows(TypedDict):
    rows: list[Any]


FILES = Stored("the index of a test", "Run it again", OwnError, 3, mark={"kind": "test"}, shape=Rows)
GOOD = {"schema": 3, "kind": "test", "rows": [1, 2]}


def test_a_document_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "index.json"
    assert FILES.read_document(path) is None
    FILES.write_json(path, GOOD)
    assert FILES.read_document(path) == GOOD and [p.name for p in path.parent.iterdir()] == ["index.json"]
    with pytest.raises(ValueError, match="JSON compliant"):
        FILES.write_json(path, {**GOOD, "rows": [float("nan")]})
    assert FILES.read_document(path) == GOOD


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged: it is no JSON"),
        ("\udcff", "is damaged: it is no JSON"),
        ("null", "is not the index of a test"),
        ("[]", "is not the index of a test"),
        ('{"kind": "test", "rows": []}', "is not the index of a test"),
        ('{"schema": 3, "kind": "other", "rows": []}', "is not the index of a test"),
        ('{"schema": 4, "kind": "test", "rows": []}', "has schema 4; this version reads 3. Run it again"),
        ('{"schema": 3, "kind": "test"}', "is damaged: .*missing required field `rows`. Run it again"),
    ],
)
def test_what_is_no_such_document_is_refused_and_stays(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    before = path.read_bytes()
    with pytest.raises(OwnError, match=message):
        FILES.read_document(path)
    assert path.read_bytes() == before


def test_tensors_and_arrays_come_back_with_what_is_said_of_them(tmp_path: Path) -> None:
    tensors = {"a.x": torch.arange(6.0).view(2, 3).T, "b": torch.tensor([1, 2])}
    FILES.write_tensors(tmp_path / "t", tensors, {"b": 1, "a": "ü"})
    assert FILES.read_about(tmp_path / "t") == {"a": "ü", "b": 1}
    assert torch.equal(FILES.read_tensors(tmp_path / "t", prefix="a.")["x"], tensors["a.x"])
    FILES.write_tensors(tmp_path / "n", {"b": np.arange(4)[::2]})
    assert FILES.read_tensors(tmp_path / "n", framework="numpy")["b"].tolist() == [0, 2]
    with pytest.raises(OwnError, match="is not the index of a test"):
        FILES.read_about(tmp_path / "n")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_tensor_file_cut_short_is_damaged_and_one_that_is_not_there_missing(share: float, tmp_path: Path) -> None:
    path = tmp_path / "t"
    FILES.write_tensors(path, {"x": torch.zeros(100)}, {})
    digest = sha256(path)
    assert FILES.check_digest(path, digest) == path
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for read in (FILES.read_tensors, FILES.read_about):
        with pytest.raises(OwnError, match="t is damaged: .*Run it again"):
            read(path)
    with pytest.raises(OwnError, match="its digest is not the one"):
        FILES.check_digest(path, digest)
    path.unlink()
    for read in (FILES.read_tensors, FILES.read_about, lambda p: FILES.check_digest(p, digest)):
        with pytest.raises(OwnError, match="t is missing. Run it again"):
            read(path)


def test_a_full_disk_keeps_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FILES.write_tensors(tmp_path / "t", {"x": torch.zeros(1)})
    before = (tmp_path / "t").read_bytes()

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored, "_save", full)
    with pytest.raises(FileError, match="No space left"):
        FILES.write_tensors(tmp_path / "t", {"x": torch.ones(1)})
    assert [p.name for p in tmp_path.iterdir()] == ["t"] and (tmp_path / "t").read_bytes() == before


def test_entries_that_are_not_there_make_the_file_damaged(tmp_path: Path) -> None:
    with pytest.raises(OwnError, match="an entry is missing or of the wrong kind: 'rows'"), FILES.parsing(tmp_path):
        {}["rows"]


def test_only_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    for name in (".index.json.k3j2.tmp", ".my notes.tmp", "x.json.tmp", ".x.safetensors.abc.tmp"):
        (tmp_path / name).touch()
    tidy(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".my notes.tmp", "x.json.tmp"]


def test_a_folder_that_cannot_be_written_is_told_before_work_begins(tmp_path: Path) -> None:
    FILES.check_writable(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OwnError, match="file"):
            FILES.check_writable(path)
    if os.geteuid():
        tmp_path.chmod(0o500)
        with pytest.raises(OwnError, match="not permitted"):
            FILES.check_writable(tmp_path)
        tmp_path.chmod(0o700)


def test_a_byte_that_changed_in_a_tensor_is_found(tmp_path: Path) -> None:
    path = tmp_path / "t"
    FILES.write_tensors(path, {"a": torch.arange(6.0), "b": torch.arange(4, dtype=torch.bfloat16)})
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(OwnError, match="was changed since it was written"):
        FILES.read_tensors(path)
    path.write_bytes(content)
    assert FILES.read_tensors(path)["a"].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["apps.cli.__main__:X", "apps.explorer.views.home:X", "os:path", "zoo..x:Y", ":"])
def test_a_file_of_a_result_imports_no_page_and_no_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run when they are imported."""
    _put(tmp_path / "r", {"class": name, "fields": {}})
    monkeypatch.delitem(sys.modules, name.partition(":")[0], raising=False) if name[:4] == "apps" else None
    with pytest.raises(CircuitsError, match="does not know"):
        result_files.read(tmp_path / "r")
    assert name[:4] != "apps" or name.partition(":")[0] not in sys.modules


@pytest.mark.parametrize("value", ["1", None, True, {"list": [1.0]}, {"class": "zoo.inputs:InputSpec", "fields": {}}])
def test_a_field_of_another_type_than_declared_is_refused(value: Any, tmp_path: Path) -> None:
    fields = {"value": 1.0, "low": 0.5, "high": 2}
    about = {"class": "circuits.common.statistics:Estimate", "fields": fields}
    _put(tmp_path / "r", about)
    assert result_files.read(tmp_path / "r").value == 1.0
    _put(tmp_path / "r", about | {"fields": fields | {"low": value}})
    with pytest.raises(CircuitsError, match=r"Estimate\.low holds a \w+ of another kind"):
        result_files.read(tmp_path / "r")


def _put(path: Path, about: Any) -> None:
    head = {"schema": 1, **result_files.FILES.mark, "result": about, "digest": result_files._digest(about)}
    result_files.FILES.write_tensors(path, {}, head)


def test_one_at_a_time_writes_into_a_folder(tmp_path: Path) -> None:
    with only_writer(tmp_path), only_writer(tmp_path):  # the same thread may ask again
        script = (
            "import sys, pathlib; from zoo.common.files import only_writer; "
            "only_writer(pathlib.Path(sys.argv[1])).__enter__()"
        )
        other = subprocess.run(
            [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False, env=dict(os.environ)
        )
        assert "another run is writing" in other.stderr
        with ThreadPoolExecutor(1) as pool, pytest.raises(FileError, match="another run is writing"):
            pool.submit(only_writer(tmp_path).__enter__).result()
    with only_writer(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert not list(tmp_path.iterdir())
