"""Labels: what was saved is there, whoever is killed; what is read only stays as it is."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from apps.explorer.session import labels as labels_file
from apps.explorer.session.labels import Label, LabelError, Labels
from circuits.errors import AddressError, CircuitsError
from tests.apps.explorer.conftest import Open, texts


def test_a_label_is_there_after_it_was_saved(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    label = Label("scenes/mixed4a:11", "ann", "car", "vehicles", True, "images 3, 7", "abc")
    labels.save(label)
    assert Labels(tmp_path).of("scenes/mixed4a:11") == [label]
    assert labels.names("scenes") == {"scenes/mixed4a:11": "car"}


def test_each_author_has_one_opinion_of_a_unit_and_the_newest_names_it(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    labels.save(Label("scenes/mixed4a:11", "ann", "car", saved="2026-01-01T00:00:00"))
    labels.save(Label("scenes/mixed4a:11", "bob", "vehicle", saved="2026-01-02T00:00:00"))
    labels.save(Label("scenes/mixed4a:11", "ann", "cars", saved="2026-01-01T12:00:00"))
    assert [x.name for x in labels.of("scenes/mixed4a:11")] == ["vehicle", "cars"]
    assert labels.names("scenes")["scenes/mixed4a:11"] == "vehicle"
    labels.remove("scenes/mixed4a:11", "bob")
    assert labels.names("scenes")["scenes/mixed4a:11"] == "cars"


def test_an_export_brings_back_every_label_and_the_newer_stays(tmp_path: Path) -> None:
    labels, other = Labels(tmp_path / "a"), Labels(tmp_path / "b")
    labels.save(Label("scenes/mixed4a:11", "ann", "car", saved="2026-01-02T00:00:00"))
    labels.save(Label("scenes/mixed3b:39", "ann", "wheel"))
    other.save(Label("scenes/mixed4a:11", "ann", "newer", saved="2026-01-03T00:00:00"))
    assert other.merge(labels.describe()) == 1
    assert {x.unit: x.name for x in other.all()} == {"scenes/mixed4a:11": "newer", "scenes/mixed3b:39": "wheel"}
    assert other.merge(labels.describe()) == 0, "bringing it in again changes nothing"


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"kind": "vision-circuits labels", "schema": 2, "labels": []},
        {"kind": "vision-circuits labels", "schema": 1, "labels": "x"},
        {"kind": "vision-circuits labels", "schema": 1, "labels": [{"unit": "../x", "author": "a"}]},
        {"kind": "vision-circuits labels", "schema": 1, "labels": [{"unit": "scenes/mixed4a:1"}]},
        {"kind": "vision-circuits labels", "schema": 1, "labels": [{"unit": "scenes/mixed4a:1", "author": "x" * 99}]},
        {"kind": "vision-circuits labels", "schema": 1, "labels": [7]},
    ],
)
def test_a_file_that_cannot_be_read_changes_nothing(tmp_path: Path, document: object) -> None:
    labels = Labels(tmp_path)
    labels.save(Label("scenes/mixed4a:11", "ann", "car"))
    before = labels.all()
    with pytest.raises(LabelError):
        labels.merge(document)
    assert labels.all() == before


@pytest.mark.parametrize(
    ("unit", "author"), [("mixed4a:11", "ann"), ("scenes/mixed4a", "ann"), ("scenes/mixed4a:11", "  "), ("", "ann")]
)
def test_a_label_without_a_unit_or_an_author_is_refused(tmp_path: Path, unit: str, author: str) -> None:
    with pytest.raises((LabelError, AddressError)):
        Labels(tmp_path).save(Label(unit, author, "car"))


def test_a_file_that_is_no_database_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "labels.sqlite").write_bytes(b"not a database at all" * 50)
    with pytest.raises(CircuitsError, match="labels.sqlite"):
        Labels(tmp_path).all()


@pytest.mark.parametrize(
    "hostile",
    [
        "CREATE VIEW labels AS WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x AS unit, x AS "
        "author, x AS name, x AS family, x AS polysemantic, x AS evidence, x AS weights, x AS saved FROM r",
        f"{labels_file._TABLE}; CREATE TRIGGER t AFTER INSERT ON labels BEGIN SELECT 1; END",
        f"{labels_file._TABLE}; INSERT INTO labels VALUES ('m', 'm/l:1', x'ff', 'n', '', 0, '', '', '')",
        f"{labels_file._TABLE}; INSERT INTO labels VALUES ('m', 'm/l', 'a', 'n', '', 0, '', '', '')",
    ],
    ids=["view without end", "trigger", "bytes", "no address"],
)
def test_somebody_elses_database_is_refused_and_runs_nothing(hostile: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / labels_file.FILE)) as connection:
        connection.executescript(hostile)
    with pytest.raises(LabelError, match="cannot be used"):
        Labels(tmp_path).all()


def test_many_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    def write(author: int) -> None:
        for i in range(20):
            Labels(tmp_path).save(Label(f"scenes/mixed4a:{i}", f"author {author}", f"name {i}"))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Labels(tmp_path).all()) == 120


@pytest.mark.skipif(os.name != "posix", reason="kills a process by its number")
def test_a_killed_writer_loses_nothing_that_it_said_was_saved(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom apps.explorer.session.labels import Label, Labels\n"
        "labels = Labels(Path(sys.argv[1]))\ni = 0\n"
        "while True:\n    labels.save(Label(f'scenes/mixed4a:{i}', 'ann', f'name {i}'))\n    print(i, flush=True)\n"
        "    i += 1\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(25)]
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().splitlines(keepends=True)
    process.communicate()
    last = int([line for line in lines if line.endswith("\n")][-1])
    names = Labels(tmp_path).names("scenes")
    assert all(names[f"scenes/mixed4a:{i}"] == f"name {i}" for i in range(last + 1))
    Labels(tmp_path).save(Label("scenes/mixed4a:0", "bob", "still writable"))


def test_labels_are_read_only_unless_they_may_be_written(
    opened: Open, store: Path, settings: Callable[..., None]
) -> None:
    at = opened("unit", unit="scenes/mixed4a:11", section="labels")
    assert not [t for t in at.text_input if t.label == "Label"]
    assert "read only" in texts(at)
    settings(store, allow_write=True)
    at = opened("unit", unit="scenes/mixed4a:11", section="labels")
    by = {t.label: t for t in at.text_input}
    by["Label"].input("car")
    by["Author"].input("ann")
    next(b for b in at.button if b.label == "Save").click().run()
    assert [x.name for x in Labels(store).of("scenes/mixed4a:11")] == ["car"]
    assert "car" in opened("unit", unit="scenes/mixed4a:11").subheader[0].value, "another session sees it"
