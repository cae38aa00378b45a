"""`circuits visualize`, and what it adds to trace reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.apps.terminal import FEW, Cli, is_refused, written


def looks(*arguments: object) -> list[object]:
    """Pictures of three units, too few steps to be any good."""
    units = [f"scenes/mixed3b:{i}" for i in (11, 8, 7)]
    return ["visualize", *units, "--steps", "2", "--retries", "0", "--batch-size", "2", *arguments]


def test_visualize_says_how_units_answer_to_their_pictures(cli: Cli) -> None:
    ran = cli(*looks())
    assert ran.code == 0 and "scenes/mixed3b:8" in ran.out and "response" in ran.out and "--out" in ran.out
    document = cli(*looks("--json", *FEW)).json
    assert [r["unit"] for r in document["results"]] == [f"scenes/mixed3b:{i}" for i in (11, 8, 7)]
    assert all(len(r["history"]) == 2 and r["evidence"]["count"] == 26 for r in document["results"])


def test_a_layer_is_asked_for_by_its_name_or_by_one_of_its_units(cli: Cli) -> None:
    options = ("--steps", "1", "--retries", "0", "--size", "32", "--json")
    whole = cli("visualize", "scenes/mixed3b", *options).json
    same = cli("visualize", "scenes/mixed3b:11", "--layer", *options).json
    assert [r["unit"] for r in whole["results"]] == [f"scenes/mixed3b:{i}" for i in range(48)]
    assert same["results"] == whole["results"]


def test_visualize_fills_a_folder_and_the_same_command_makes_nothing_twice(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from circuits.visualization.sweeps import sweep

    first = cli(*looks("--out", tmp_path, *FEW, "--json"))
    assert first.code == 0, first.err
    pictures = {f"mixed3b-{i}.{end}" for i in (7, 8, 11) for end in ("png", "safetensors")}
    assert written(tmp_path) == {
        "index.html", "index.json", "sheet.png", "visualize.json", *pictures
    }  # fmt: skip
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "circuits visualize scenes/mixed3b:1" in page and "visualize(model, units, steps=2" in page
    assert json.loads((tmp_path / "visualize.json").read_text("utf-8")) == first.json
    monkeypatch.setattr(sweep, "_render_batch", lambda *a: pytest.fail("made again"))
    assert cli(*looks("--out", tmp_path, *FEW, "--json")).out == first.out
    ran = cli(*looks("--out", tmp_path, "--seed", "3"))
    assert is_refused(ran) and "seed 0, not 3" in ran.err and "another folder" in ran.err


def test_visualize_keeps_what_is_finished_when_interrupted_and_goes_on(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from circuits.visualization.sweeps import sweep

    make, calls = sweep._render_batch, []

    def made(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return make(*arguments)

    monkeypatch.setattr(sweep, "_render_batch", made)
    ran = cli(*looks("--out", tmp_path / "new"))
    assert ran.code == 130 and "the same command goes on" in ran.err
    assert len(list((tmp_path / "new").glob("*.png"))) == 2 and not (tmp_path / "new" / "index.html").exists()
    ran = cli(*looks("--out", tmp_path / "new"))
    assert ran.code == 0 and len(calls) == 3 and (tmp_path / "new" / "index.html").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scenes/mixed3b:9999"], "channels"),
        (["scenes/mixed3b:1", "--steps", "0"], "--steps"),
        (["scenes/mixed3b:1", "--size", "4"], "larger size"),
        (["scenes/mixed3b:1", "--size", "-4"], "--size"),
        (["scenes/mixed3b:1@7,7", "--size", "32"], "larger size"),
        (["scenes/mixed3b:1", "--params", "crayons"], "fourier"),
        (["scenes/mixed3b:1", "--frames", "999"], "--frames"),
        (["scenes/mixed3b:1", "--optimum", "negative", *FEW], "--images"),
        (["scenes/mixed3b:1", "--images", "nowhere"], "nowhere"),
        (["scenes/mixed3b:1", "--limit", "3"], "--limit"),
        (["scenes/mixed3b:1", "--device", "abacus"], "abacus"),
        (["scenes/mixed3b:1", "squeezenet-1.1/fire3:1"], "one model"),
        (["mixed3b:1"], "does not name its model"),
        ([], "at least one"),
    ],
)
def test_what_cannot_be_visualized_gets_one_line_and_no_folder(
    cli: Cli, tmp_path: Path, arguments: list[str], says: str
) -> None:
    ran = cli("visualize", *arguments, "--out", tmp_path / "new")
    assert is_refused(ran) and says in ran.err, ran
    assert not (tmp_path / "new").exists()


def test_visualize_does_not_write_over_a_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert is_refused(cli(*looks("--out", tmp_path / "file"))) and (tmp_path / "file").read_text() == "mine"


def test_trace_shows_visualizations_when_asked(cli: Cli, tmp_path: Path) -> None:
    asked = ("trace", "scenes/mixed4a:1", "--weights", "random", "--no-score", *FEW, "--width", "2")
    assert cli(*asked, "--out", tmp_path / "without").code == 0
    assert cli(*asked, "--out", tmp_path / "with", "--visualize", "2").code == 0
    pages = [(tmp_path / name / "index.html").read_text("utf-8") for name in ("without", "with")]
    assert [page.count("feature visualization of ") > 0 for page in pages] == [False, True]
    assert is_refused(cli(*asked, "--visualize"))
    assert is_refused(cli(*asked, "--out", tmp_path / "never", "--visualize", "many"))
