"""The page Why: nothing before a click, the graph of a class or a unit, nodes set to zero, groups, Python and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import circuits
import sae
from apps.explorer.session import state
from circuits.plot.drawing.wording import number
from tests.apps.explorer.conftest import Open, settled, texts
from tests.apps.explorer.pages.test_python import elements, run_code

LAYERS = "mixed4a, mixed4b"
VIEW = {"unit": "scenes/mixed4a:11", "image": 1, "layers": LAYERS, "explain": 1}


def graph_of(at: Any) -> dict[str, Any]:
    return next(data for data in elements(at) if "columns" in data)


def test_nothing_is_computed_before_a_click(opened: Open) -> None:
    at = opened("why", unit="scenes/mixed4a:11", image=1, layers=LAYERS)
    assert not any("columns" in data for data in elements(at))
    at.button(key="explain-it").click().run()
    settled(at)
    assert graph_of(at)["columns"] and at.query_params["explain"] == "1"


def test_the_graph_of_one_class_instead_of_another_and_its_python(
    opened: Open, made_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    at = opened("why", **VIEW, **{"class": 0, "instead": 2})
    drawn = graph_of(at)
    model = circuits.load("scenes")
    image = circuits.read_scan(made_store, "scenes").images().subset([1])
    target = (f"{model.logits}:0", f"{model.logits}:2")
    expected = circuits.graph(model, image, target, layers=["mixed4a", "mixed4b"])
    circuit = expected.circuit(6)
    strengths = {(e["source"], e["target"]): e["strength"] for e in drawn["edges"]}
    own = {(e.source, e.target): e.strength for e in circuit.edges}
    assert strengths and all(own[key] == pytest.approx(value, rel=1e-4) for key, value in strengths.items())
    units = [n for n in drawn["nodes"] if n["href"]]
    assert units and all(n["images"] and n["about"].startswith("gives ") for n in units)
    assert {n["unit"] for n in drawn["nodes"] if not n["href"]} <= {"scenes/input", expected.target}

    unit = next(n.unit for n in expected.strongest() if n.unit in {n["unit"] for n in units})
    at.query_params["selected"], at.query_params["factor"] = unit, "0"
    settled(at.run())
    shown = {m.label: m.value for m in at.metric}
    scope = run_code(at)
    assert scope["effect"].units == (unit,)
    assert shown["Measured change"] == number(scope["effect"].measured)
    assert shown["The graph predicts"] == number(scope["effect"].predicted) == number(-expected.node(unit).value)
    assert (tmp_path / "why.html").is_file() and scope["graph"] == expected and scope["check"].correlation > 0.5


def test_a_unit_is_explained_and_similar_units_are_grouped(opened: Open) -> None:
    at = opened("why", **(VIEW | {"class": "unit", "layers": "mixed3a, mixed3b", "panel": "groups"}))
    assert "scenes/mixed4a:11" == graph_of(at)["target"]
    buttons = [b for b in at.button if str(b.key).startswith("graph-group-")]
    if not buttons:
        pytest.fail(texts(at))
    buttons[0].click()
    settled(at.run())
    assert any(node["members"] for node in graph_of(at)["nodes"]) and "group" in at.query_params


def test_transcoders_stand_in_for_blocks_where_no_sae_is(
    opened: Open, settings: Callable[..., None], made_store: Path, tmp_path: Path
) -> None:
    model = circuits.load("scenes")
    pairs = [sae.VisionPair(model, "mixed3a", "mixed3b", patch=1), sae.VisionPair(model, "mixed3b", "mixed4a", patch=1)]
    for name, site in zip(("long", "block", "parts"), (*pairs, sae.VisionSite(model, "mixed3b")), strict=True):
        config = sae.TopK(latents=32, k=4, kind="sae" if name == "parts" else "transcoder")
        sae.save(tmp_path / name, sae.train(site.stream("scenes:4", batch_size=128), config, steps=2)[0])
    settings(made_store, saes=[[name, str(tmp_path / name)] for name in ("long", "block", "parts")])
    at = opened("why", unit="scenes/mixed4a:11", image=1, explain=1, units="latents", **{"class": 0})
    assert not at.exception, at.exception
    # the transcoder "long" writes the layer of the SAE
    assert at.text_input(key="layers_text").placeholder == "mixed3b~parts, mixed3b..mixed4a~block"
    assert any("mixed3b..mixed4a~block" in node["unit"] for node in graph_of(at)["nodes"])


def test_the_answer_is_computed_once_for_all_who_ask(opened: Open) -> None:
    first, computed = opened("why", **VIEW), answers()
    assert graph_of(first) == graph_of(opened("why", **VIEW)) and answers() == computed


def answers() -> int:
    return sum(key[0] == "why" for key in state.executor()._tasks if isinstance(key, tuple))


def test_wrong_addresses_are_one_line(opened: Open) -> None:
    at = opened("why", **(VIEW | {"layers": "nowhere"}))
    assert "nowhere" in at.error[0].value
    at = opened("why", **VIEW, selected="scenes/mixed4a:35,scenes/mixed4b:35", factor="0")
    assert not at.exception
