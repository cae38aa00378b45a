"""`circuits toy`: a list, tables, figures and one JSON document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.apps.terminal import Cli, is_refused, written

QUICK = ("--seeds", "1", "--steps", "20", "--device", "cpu")


def test_the_list_names_what_can_be_run(cli: Cli) -> None:
    ran = cli("toy", "list")
    assert ran.code == 0 and "demonstration" in ran.out and "phase-3-2" in ran.out, ran.err
    names = [e["name"] for e in cli("toy", "list", "--json").json["experiments"]]
    assert {"planes", "geometry", "correlated", "adversarial", "dynamics", "absolute", "privileged"} <= set(names)


def test_run_says_what_came_of_each_density(cli: Cli) -> None:
    ran = cli("toy", "run", "planes", *QUICK)
    assert ran.code == 0 and "represented" in ran.out and "D*" in ran.out, ran.err
    document = cli("toy", "run", "planes", *QUICK, "--json").json["experiments"]["planes"]
    assert len(document["models"]) == 8 and document["models"][0]["density"] == 1.0
    assert {"loss", "represented", "dimensionality", "roles", "polytopes"} <= set(document["models"][0])
    assert document["provenance"]["steps"] == 20
    other = cli("toy", "run", "planes", *QUICK, "--seed", "1", "--json").json["experiments"]["planes"]
    assert other["models"][0]["norms"] != document["models"][0]["norms"]


def test_a_phase_diagram_is_printed_cell_by_cell(cli: Cli) -> None:
    ran = cli("toy", "run", "phase-2-1", *QUICK)
    assert ran.code == 0 and "closed forms" in ran.out, ran.err
    document = cli("toy", "run", "phase-2-1", *QUICK, "--json").json["experiments"]["phase-2-1"]
    assert len(document["phases"]) == len(document["importances"])
    assert {p for row in document["expected"] for p in row} == {"ignored", "dedicated", "superposed"}


@pytest.mark.parametrize("name", ["demonstration", "correlated", "dynamics", "absolute"])
def test_a_figure_is_written_beside_its_numbers(cli: Cli, tmp_path: Path, name: str) -> None:
    ran = cli("toy", "figure", name, *QUICK, "--out", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    assert written(tmp_path / "out") == {"toy.json", f"{name}.png"}
    assert json.loads((tmp_path / "out" / "toy.json").read_text("utf-8")) == ran.json


def test_run_draws_nothing(cli: Cli, tmp_path: Path) -> None:
    assert cli("toy", "run", "planes", *QUICK, "--out", tmp_path / "out").code == 0
    assert written(tmp_path / "out") == {"toy.json"}


@pytest.mark.slow
def test_all_figures_are_drawn_at_once(cli: Cli, tmp_path: Path) -> None:
    ran = cli("toy", "figure", "all", *QUICK, "--out", tmp_path / "out")
    assert ran.code == 0 and "attacked" in ran.out, ran.err
    assert len(list((tmp_path / "out").glob("*.png"))) == 12


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "needs the name"),
        (["run", "plane"], "Nearest: planes"),
        (["list", "planes"], "takes no name"),
        (["figure", "planes"], "--out"),
        (["run", "planes", "--seeds", "0"], "--seeds"),
        (["run", "planes", "--steps", "0"], "--steps"),
        (["run", "planes", "--device", "abacus"], "abacus"),
        (["walk"], "figure"),
    ],
)
def test_toy_refuses_what_it_cannot_do_in_one_line(cli: Cli, arguments: list[str], says: str) -> None:
    ran = cli("toy", *arguments)
    assert is_refused(ran), ran
    assert says in ran.err
