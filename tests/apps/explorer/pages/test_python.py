"""The same in Python: the code that a page gives is run, and gives the numbers that the page shows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from apps.explorer.session import state
from apps.explorer.session.figures import screen_figure
from circuits import plot
from circuits.plot.drawing.wording import minus
from tests.apps.explorer.conftest import Open, texts

UNIT = "scenes/mixed4a:11"


def run_code(at: AppTest) -> dict[str, Any]:
    """The names that the page's Python code leaves, and what it prints as `printed`."""
    assert not at.exception and not at.error, [error.value for error in at.error]
    code = next(block.value for block in at.code if block.value.startswith(("import ", "from ")))
    scope: dict[str, Any] = {}
    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(code, "copied", "exec"), scope)
    return {**scope, "printed": output.getvalue()}


def elements(at: AppTest) -> list[dict[str, Any]]:
    """The data of the page's elements."""
    return [json.loads(e.proto.json) for e in at.get("bidi_component") if hasattr(e.proto, "json") and e.proto.json]


def notes(at: AppTest, key: str) -> list[str]:
    """The notes of the tiles of one gallery."""
    return [tile["note"] for data in elements(at) if data.get("label") == key for tile in data["tiles"]]


def of_a_unit(at: AppTest, scope: dict[str, Any]) -> None:
    unit = scope["unit"]
    assert f"active at {100 * unit.density:.3g} % of positions" in texts(at).replace("\\", "")
    weights = [data["rows"] for data in elements(at) if "incoming" in data]
    for direction, rows in zip(("inputs", "outputs"), weights, strict=True):
        expected = scope["dossier"].parts[direction].rows[:12]
        assert [row["unit"] for row in rows] == [row.unit for row in expected]


def of_contributions(at: AppTest, scope: dict[str, Any]) -> None:
    rows = next(data["rows"] for data in elements(at) if "low" in data)
    attribution = scope["attribution"]
    shown = {row["address"]: row["end"] - row["start"] for row in rows if row["unit"]}
    expected = {f"mixed3b:{unit}": value for unit, value in attribution.top(8)}
    assert shown.keys() == expected.keys()
    assert all(shown[unit] == pytest.approx(value, rel=1e-4) for unit, value in expected.items())
    assert rows[-1]["end"] == pytest.approx(float(attribution.response[0]), rel=1e-4)


def of_tuning(at: AppTest, scope: dict[str, Any]) -> None:
    assert f"Maximum {minus(format(scope['row'].peak, '.3g'))} at" in texts(at)


def of_similar_units(at: AppTest, scope: dict[str, Any]) -> None:
    activations, weights = scope["printed"].splitlines()[1:]
    for label, line in (("Similar activations", activations), ("Similar incoming weights", weights)):
        rows = eval(line, {"np": np})
        assert notes(at, label) == [minus(f"{value:.2f}") for _, value in rows] and len(rows) == 12


def of_polysemanticity(at: AppTest, scope: dict[str, Any]) -> None:
    row = scope["rows"][0]
    shown = f"**{len(row.clusters)} clusters**" if row.split else "do not fall into clusters"
    assert shown in texts(at) and (not row.split or f"{row.score:.2f}, from 0" in texts(at))


def of_labels(at: AppTest, scope: dict[str, Any]) -> None:
    assert "'wheel'" in scope["printed"] and "**wheel**" in texts(at)


def of_a_circuit(at: AppTest, scope: dict[str, Any]) -> None:
    graph = next(data for data in elements(at) if "columns" in data)
    circuit = scope["circuit"]
    shown = {(edge["source"], edge["target"]): edge["strength"] for edge in graph["edges"]}
    expected = {(edge.source, edge.target): edge.strength for edge in circuit.edges}
    assert shown.keys() == expected.keys()
    assert all(shown[key] == pytest.approx(value, rel=1e-4) for key, value in expected.items())
    faithfulness = minus(format(scope["score"].faithfulness, ".2f"))
    assert f"Faithfulness {faithfulness}: above" in texts(at)


def of_a_layer(at: AppTest, scope: dict[str, Any]) -> None:
    shown = notes(at, "units of mixed4a")
    assert shown and shown[0] == f"{100 * float(np.sort(scope['layer'].density)[::-1][0]):.2g} %"


def of_a_grid(at: AppTest, scope: dict[str, Any]) -> None:
    ((_, figure),) = [
        (key, task.result()) for key, task in state.executor()._tasks.items() if key[0] == "grid" and task.finished
    ]
    assert figure.light == screen_figure(lambda: plot.grid_figure(scope["grid"])).light, "the same picture, to the byte"


def of_toys(at: AppTest, scope: dict[str, Any]) -> None:
    solution = scope["best"][0]
    values = {metric.label: metric.value for metric in at.metric}
    assert values["Represented features"] == f"{solution.represented} of {solution.model.features}"
    assert values["Loss"] == f"{solution.loss:.2g}"


def of_home(at: AppTest, scope: dict[str, Any]) -> None:
    buttons = {button.label for button in at.button}
    assert set(scope["model"].trunk) & buttons


VIEWS: dict[str, tuple[str, dict[str, Any], Callable[[AppTest, dict[str, Any]], None]]] = {
    "weights": ("unit", {}, of_a_unit),
    "contributions": ("unit", {"section": "contributions"}, of_contributions),
    "tuning": ("unit", {"section": "tuning", "stimuli": "gratings"}, of_tuning),
    "similar": ("unit", {"section": "similar"}, of_similar_units),
    "polysemanticity": ("unit", {"section": "polysemanticity"}, of_polysemanticity),
    "labels": ("unit", {"unit": "scenes/mixed3b:39", "section": "labels"}, of_labels),
    "circuit": ("circuit", {"panel": "score", "by": "weights", "depth": 2, "width": 3}, of_a_circuit),
    "layer": ("layer", {"sort": "density"}, of_a_layer),
    "grid": ("image", {"section": "grid", "image": 4, "unit": "scenes/mixed4b"}, of_a_grid),
    "toy": ("superposition", {"n": 3, "m": 2}, of_toys),
    "home": ("home", {}, of_home),
}
"""View -> its page, parameters, and what compares them; others have tests of theirs."""


@pytest.mark.parametrize(
    "view",
    [pytest.param(view, marks=pytest.mark.slow) if view in ("circuit", "grid") else view for view in VIEWS],
)
def test_the_python_of_a_page_gives_the_numbers_of_the_page(opened: Open, view: str) -> None:
    page, params, compare = VIEWS[view]
    at = opened(page, **{"unit": UNIT, **params})
    compare(at, run_code(at))
