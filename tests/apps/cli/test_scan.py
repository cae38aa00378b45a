"""`circuits scan` and `circuits explain`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuits.dataset import scan
from tests.apps.terminal import FEW, Cli, is_refused, written

SCAN = ("scan", "scenes", *FEW, "--layers", "mixed3b", "--layers", "mixed4a", "--top", "9", "--samples", "64")


def test_a_scan_is_made_once_and_then_read(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ("--store", tmp_path / "store")
    first = cli(*SCAN, *store, "--json")
    assert first.code == 0, first.err
    assert first.json["made"] and first.json["units"] == 96 and first.json["images"]["count"] == 26
    assert [row["layer"] for row in first.json["layers"]] == ["mixed3b", "mixed4a"]
    monkeypatch.setattr(scan, "visit", lambda *a: pytest.fail("the network ran"))
    again = cli(*SCAN, *store)
    assert again.code == 0 and "was there already" in again.out and "circuits explain scenes/" in again.out
    other = cli(*SCAN, *store, "--seed", "4")
    assert is_refused(other) and "another plan or seed" in other.err and "--replace" in other.err


def test_explain_prints_a_unit_and_writes_its_page(cli: Cli, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    assert cli(*SCAN, *store).code == 0
    ran = cli("explain", "scenes/mixed4a:11", *store)
    assert ran.code == 0 and "scenes/mixed3b:39" in ran.out and "active at" in ran.out
    out = tmp_path / "car"
    ran = cli("explain", "scenes/mixed4a:11", *store, "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert written(out) == {"index.html", "explain.json"}
    assert json.loads((out / "explain.json").read_text("utf-8")) == ran.json
    assert ran.json["unit"] == "scenes/mixed4a:11"
    page = (out / "index.html").read_text("utf-8")
    assert "circuits explain scenes/mixed4a:11" in page and "Top activating images" in page


def test_explain_says_what_it_needs(cli: Cli, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    nothing = cli("explain", "scenes/mixed4a:11", *store)
    assert is_refused(nothing) and "circuits scan scenes" in nothing.err
    assert cli(*SCAN, *store).code == 0
    for arguments, what in (
        (("mixed4a:11",), "does not name its model"),
        (("scenes/mixed4a",), "is a layer"),
        (("scenes/mixed4a:99",), "48 channels"),
        (("scenes/mixed3a:1",), "no layer 'mixed3a'"),
        (("scenes/mixed4a:11", "--sections", "moods"), "no section 'moods'"),
        (("squeezenet-1.1/fire2:1",), "scans of scenes"),
    ):
        assert is_refused(ran := cli("explain", *arguments, *store)) and what in ran.err, ran.err


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--top", "0"), "--top is at least 1"),
        (("--workers", "-1"), "--workers"),
        (("--layers", "mixed9z"), "no layer 'mixed9z'"),
        (("--images", "nowhere"), "no folder or image at nowhere"),
    ],
)
def test_scan_refuses_what_it_cannot_do(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], what: str) -> None:
    ran = cli("scan", "scenes", "--store", tmp_path, *arguments)
    assert is_refused(ran) and what in ran.err, ran.err
    assert not any(p.is_file() for p in tmp_path.rglob("*"))
