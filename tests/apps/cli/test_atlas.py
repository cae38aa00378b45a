"""`circuits atlas` and `circuits look`."""

from __future__ import annotations

import ast
import builtins
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

import circuits
from apps.cli.commands.atlas import DrawAtlas
from apps.cli.commands.trace import Trace
from apps.cli.commands.visualize import Visualize
from tests.apps.terminal import FEW, Cli, is_refused, written


def atlas(*arguments: object) -> list[object]:
    """An atlas of few samples and steps."""
    fixed = ["--grid", "3", "--steps", "1", "--icon", "16", "--least", "2", "--batch-size", "3"]
    return ["atlas", "scenes/mixed4a", *FEW, *fixed, *arguments]


def test_an_atlas_fills_a_folder_and_the_same_command_makes_nothing_twice(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from circuits.activations import atlas_builder

    first = cli(*atlas("--out", tmp_path / "new", "--json"))
    assert first.code == 0, first.err
    assert written(tmp_path / "new") >= {
        "index.html", "index.json", "atlas.json", "atlas.png", "samples.safetensors", "icons-00000.safetensors",
    }  # fmt: skip
    assert json.loads((tmp_path / "new" / "atlas.json").read_text("utf-8")) == first.json
    assert {one["what"] for one in first.json["likeness"]} == {"samples", "cells", "classes", "labels"}
    page = (tmp_path / "new" / "index.html").read_text("utf-8")
    assert "circuits atlas scenes/mixed4a" in page and "activation_atlas(model, &#39;mixed4a&#39;" in page
    monkeypatch.setattr(atlas_builder, "direction_icons", lambda *a, **k: pytest.fail("made again"))
    assert cli(*atlas("--out", tmp_path / "new", "--json")).out == first.out
    shown = cli(*atlas("--out", tmp_path / "new"))
    assert "similarity of" in shown.out and "fullest cells" in shown.out and "index.html" in shown.out.replace("\n", "")
    ran = cli(*atlas("--out", tmp_path / "new", "--seed", "4"))
    assert is_refused(ran) and "seed 0, not 4" in ran.err


def undefined(code: str) -> set[str]:
    """Names of Python code that nothing in it binds, and attributes that its modules do not have."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)} | set(vars(builtins))
    bound |= {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}
    modules = {a.name: importlib.import_module(a.name) for n in imports if isinstance(n, ast.Import) for a in n.names}
    missing = {
        f"{node.value.id}.{node.attr}"
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
        and not hasattr(modules[node.value.id], node.attr)
    }  # fmt: skip
    return {node.id for node in names} - bound | missing


def test_the_python_of_a_page_imports_all_that_it_uses() -> None:
    model = circuits.load("scenes")
    address, images = "scenes/mixed4a:11", ("scenes:20",)
    snippets = [
        DrawAtlas(address="scenes/mixed4a", images=images, limit=5, out=Path("new")).python(model, "mixed4a"),
        Trace(address=address, visualize=4).python(address),
        Visualize(addresses=(address,), images=images, params="maco").python(model, [address]),
    ]
    assert [undefined(code) for code in snippets] == [set()] * 3
    assert undefined("import circuits\natlas = activation_atlas(circuits.lode('scenes'))") == {
        "activation_atlas", "circuits.lode",
    }  # fmt: skip


def test_an_interrupted_atlas_says_what_is_kept(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from circuits.activations import atlas_builder

    make, calls = atlas_builder.direction_icons, []

    def made(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return make(*arguments, **options)

    monkeypatch.setattr(atlas_builder, "direction_icons", made)
    ran = cli(*atlas("--out", tmp_path / "new"))
    assert ran.code == 130 and "the same command goes on" in ran.err
    assert len(list((tmp_path / "new").glob("icons-*"))) == 1
    assert cli(*atlas("--out", tmp_path / "new")).code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scenes/mixed4a:3", "--images", "scenes:8"], "an atlas is of a layer"),
        (["scenes/nowhere"], "no layer"),
        (["mixed4a"], "does not name its model"),
        (["scenes/mixed4a", "--grid", "0"], "--grid"),
        (["scenes/mixed4a", "--steps", "0"], "--steps"),
        (["scenes/mixed4a", "--images", "nowhere"], "nowhere"),
        (["scenes/mixed4a", "--images", "scenes:1"], "at least 8 points"),
        ([], "address"),
    ],
)
def test_what_has_no_atlas_gets_one_line_and_no_folder(
    cli: Cli, tmp_path: Path, arguments: list[str], says: str
) -> None:
    ran = cli("atlas", *arguments, "--out", tmp_path / "new")
    assert is_refused(ran) and says in ran.err.lower(), ran
    assert not (tmp_path / "new").exists()


def test_an_atlas_needs_a_folder(cli: Cli, tmp_path: Path) -> None:
    assert is_refused(cli(*atlas())) and "--out" in cli(*atlas()).err
    (tmp_path / "file").write_text("mine")
    assert is_refused(cli(*atlas("--out", tmp_path / "file"))) and (tmp_path / "file").read_text() == "mine"


def test_look_takes_a_picture_apart(cli: Cli) -> None:
    ran = cli("look", "scenes/mixed4a", "--images", "scenes:1", "--groups", "3")
    assert ran.code == 0 and "top units" in ran.out and "correlation with ablation" in ran.out and "--out" in ran.out
    found = cli(
        "look", "scenes/mixed4a", "--groups", "3", "--at", "2,4", "--at", "0,0", "--classes", "car", "--json"
    ).json
    assert [e["position"] for e in found["dictionary"]] == [[2, 4], [0, 0]]
    assert len(found["groups"]["groups"]) == 3 and found["attribution"][0]["class"] == "car"
    one = found["groups"]["classes"][0]
    pushed = sum(g["pushes"][0]["push"] for g in found["groups"]["groups"])
    assert pushed + one["rest"] == pytest.approx(one["total"], abs=1e-4)
    assert found["attribution"][0]["silenced"]["correlation"] > found["attribution"][0]["silenced"]["chance"]


def test_look_draws_what_it_found(cli: Cli, tmp_path: Path) -> None:
    asked = ("look", "scenes/mixed4a", "--groups", "2", "--top", "2", "--steps", "1", "--pooled", "4")
    assert cli(*asked, "--whiten", "scenes:8", "--out", tmp_path / "a").code == 0
    names = {"attribution.png", "dictionary.png", "grid.png", "groups.png", "look.json"}
    assert written(tmp_path / "a") == names
    assert cli(*asked[:-1], "0", "--out", tmp_path / "b").code == 0 and not (tmp_path / "b" / "grid.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scenes/mixed4a:3"], "is a unit"),
        (["scenes/mixed4a", "--images", "scenes:2"], "give one image"),
        (["scenes/mixed4a", "--at", "5"], "row,column"),
        (["scenes/mixed4a", "--at", "50,1"], "outside"),
        (["scenes/mixed4a", "--classes", "dragon"], "no class 'dragon'"),
        (["scenes/mixed4a", "--groups", "0"], "--groups"),
        (["scenes/softmax_pre"], "make 1 to 1 groups"),
        (["squeezenet-1.1/fire9", "--weights", "random"], "--images"),
    ],
)
def test_what_cannot_be_taken_apart_gets_one_line(cli: Cli, tmp_path: Path, arguments: list[str], says: str) -> None:
    ran = cli("look", *arguments, "--out", tmp_path / "new")
    assert is_refused(ran) and says in ran.err, ran
    assert not (tmp_path / "new").exists()
