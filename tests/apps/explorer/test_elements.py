"""Scripts of the pages' elements, run by Node on a small stand-in for the browser's document. Skipped without Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import pairwise
from typing import Any

import pytest

from apps.explorer.components import ASSETS, asset

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
DOCUMENT = """
class Node {
  constructor() { Object.assign(this, { className: "", children: [], dataset: {}, style: { setProperty() {} } }); }
  get classList() {
    return { toggle: (name, on) => { if (on) this.className += " " + name; }, add() {}, remove() {} };
  }
  remove() {}
  append(...nodes) { this.children.push(...nodes); }
  replaceChildren(...nodes) { this.children = nodes; }
  get attributes() { return (this.given ??= {}); }
  setAttribute(name, value) { this.attributes[name] = value; }
  setPointerCapture() {} focus() {}
  getBoundingClientRect() { return { left: 0, top: 0, width: 100, height: 100 }; }
  get all() { return [this, ...this.children.flatMap((c) => c.all ?? [])]; }
}
globalThis.requestAnimationFrame = (act) => act();
globalThis.document = { createElement: () => new Node(), createElementNS: () => new Node() };
const changes = [];
globalThis.window = { innerHeight: 800, location: { search: "", href: "http://localhost/circuit" },
  history: { replaceState: (state, unused, url) => changes.push(String(url)) } };
const root = new Node(), sent = [];
const at = (x, y) => ({ clientX: x, clientY: y, preventDefault() {} });
const click = (node) => node.onclick(at(0, 0));
"""


def run(name: str, data: dict[str, Any], act: str) -> Any:
    """What the page is sent after `act`, a statement on `root`, and texts and images that the element shows."""
    script = asset(f"{name}/script.js").replace("export default function", "function mount")

    code = "\n".join(
        [
            DOCUMENT,
            asset("elements.js"),
            script,
            f"const data = {json.dumps(data)};",
            "mount({ parentElement: { querySelector: () => root }, data, setTriggerValue: (...v) => sent.push(v) });",
            act,
            'const texts = root.all.map((n) => n.textContent ?? n.src ?? "").filter(Boolean);',
            "console.log(JSON.stringify([sent, texts]));",
        ]
    )
    output = subprocess.run(["node", "-e", code], capture_output=True, text=True, timeout=60)
    assert output.returncode == 0, output.stderr
    return json.loads(output.stdout.splitlines()[-1])


def test_every_element_has_a_script_and_a_style() -> None:
    folders = [path for path in ASSETS.iterdir() if path.is_dir()]
    assert folders and all({p.name for p in path.iterdir()} == {"script.js", "style.css"} for path in folders)


def test_a_click_on_a_tile_opens_its_unit_or_is_returned() -> None:
    base = {"src": None, "name": "wheel", "note": "", "mark": "", "href": "unit"}
    tiles = [{**base, "unit": "m/l:1", "alt": "a", "pick": None}, {**base, "unit": None, "alt": "b", "pick": "3@1,1"}]
    sent, texts = run("gallery", {"tiles": tiles, "size": 90, "label": ""}, "root.children.forEach(click);")
    assert sent == [["open", "m/l:1"], ["pick", "3@1,1"]] and texts == ["a", "wheel", "b", "wheel"]


@pytest.mark.parametrize("incoming", [True, False])
def test_a_kernel_is_between_the_units_that_it_connects(incoming: bool) -> None:
    row = {
        "unit": "m/l:2",
        "href": "",
        "src": "OTHER",
        "kernel": "KERNEL",
        "shape": [3, 5],
        "address": "l:2",
        "sign": 1,
    }
    row |= {"label": "wheel", "number": "+1", "share": "3 %", "effect": "excites", "weights": ""}
    data = {"rows": [row], "own": "OWN", "name": "l:1", "incoming": incoming}
    sent, texts = run("weights", data, 'click(root.all.find((n) => n.className === "name"));')
    assert sent == [["open", "m/l:2"]]
    assert texts[:3] == (["OTHER", "KERNEL", "OWN"] if incoming else ["OWN", "KERNEL", "OTHER"])


def test_a_waterfall_shows_each_term_and_opens_its_source() -> None:
    term = {"number": "-1", "start": 1, "end": 0, "sign": -1, "unit": None}
    source = {**term, "unit": "m/l:1", "address": "l:1", "href": "", "src": "SRC", "kernel": "K", "kind": "source"}
    rows = [{**source, "name": ""}, {**term, "name": "biases", "kind": "term"}, {**term, "name": "sum", "kind": "sum"}]
    act = "root.all.filter((n) => n.href !== undefined).forEach(click);"
    sent, texts = run("contributions", {"rows": rows, "low": -1, "high": 1}, act)
    assert sent == [["open", "m/l:1"]] and texts == ["SRC", "K", "l:1", "-1", "biases", "-1", "sum", "-1"]


def test_latents_and_tokens_can_be_clicked() -> None:
    row = {"latent": 3, "name": "red", "number": "1.5", "share": 0.5, "promoted": ["a", "b"], "chosen": False}
    sent, texts = run("active_latents", {"rows": [row], "label": ""}, "root.children.forEach(click);")
    assert sent == [["pick", 3]] and texts == [":3", "red", "1.5", "a  b"]
    row = {"tokens": ["the", " red"], "shares": [0, 1], "titles": ["", "2"], "at": 1, "note": "2"}
    act = "root.all.filter((n) => n.dataset.token !== undefined).forEach(click);"
    sent, texts = run("token_activations", {"rows": [row], "label": "", "large": True}, act)
    assert sent == [["token", [0, 0]], ["token", [0, 1]]] and texts == ["2", "the", " red"]


MAP = {"src": "S", "rows": 4, "columns": 5, "alt": "", "width": 50, "selected": [[1, 2]]}


def test_a_position_of_an_image_is_clicked_or_chosen_with_the_keys() -> None:
    act = """root.onclick(at(99, 99)); root.onkeydown({ key: "ArrowUp", preventDefault() {} });
    root.onkeydown({ key: "Enter" }); root.onpointermove(at(50, 30));"""
    sent, texts = run("image_map", {**MAP, "drag": False, "values": [[0] * 5, [0, 0, 8, 0, 0], [0] * 5, [0] * 5]}, act)
    assert sent == [["position", [3, 4]], ["position", [0, 2]]] and texts[-1] == "1,2: 8"


def test_a_box_of_positions_is_dragged_and_a_drag_from_a_selected_position_removes_one() -> None:
    act = """for (const [from, to] of [[at(5, 5), at(70, 70)], [at(50, 30), at(50, 30)]]) {
      root.onpointerdown(from); root.onpointermove(to); root.onpointerup(to);
    }"""
    sent, texts = run("image_map", {**MAP, "drag": True, "values": None}, act)
    assert sent == [["box", [0, 0, 2, 3, 1]], ["box", [1, 2, 1, 2, 0]]] and texts[-1] == "1,2"


def circuit_data(*bands: int) -> dict[str, Any]:
    """A graph whose layers have so many units, each with edges to two units of the next layer."""
    units = [[f"m/l{c}:{i}" for i in range(count)] for c, count in enumerate(bands)]
    node = {"label": "", "title": "t", "about": "", "activation": 1, "images": ["I"], "members": [], "href": "u"}
    edge = {"kind": "plus", "weight": 1, "share": 0.5, "number": "1", "kernel": "K", "shape": [3, 3], "values": [[1]]}
    edge |= {"effect": "excites", "title": "t", "about": "contributes 1"}
    pairs = [(u, t) for c, band in enumerate(units[:-1]) for i, u in enumerate(band) for t in near(units[c + 1], i)]
    return {
        "key": "k", "file": "f", "about": "", "target": units[-1][0], "columns": [f"l{c}" for c in range(len(bands))],
        "nodes": [{**node, "unit": u, "address": u[2:], "column": c, "rest": "1 from 2 others", "number": "1"}
                  for c, band in enumerate(units) for u in band],
        "edges": [{**edge, "edge": f"{u}>{t}", "source": u, "target": t, "strength": i}
                  for i, (u, t) in enumerate(pairs)],
        "prune": 0, "pins": [units[0][0]], "groups": [], "selected": [], "edge": "", "saved": [],
    }  # fmt: skip


def near(band: list[str], i: int) -> set[str]:
    return {band[i % len(band)], band[(i + 1) % len(band)]}


def clicks(kind: str, *, shift: bool = False) -> str:
    shown = f"root.all.filter((n) => n.onclick && n.dataset.{kind} && n.className !== 'primary')"
    return f"{shown}.forEach((n) => n.onclick({{ shiftKey: {json.dumps(shift)} }}));"


def test_units_and_edges_of_a_graph_can_be_clicked() -> None:
    data = circuit_data(2, 1)
    sent, _ = run("graph", data, clicks("edge"))
    assert sent == [["edge", "m/l0:0>m/l1:0"], ["edge", "m/l0:1>m/l1:0"]]
    sent, _ = run("graph", data, clicks("unit"))
    assert sent == [["select", "m/l0:0"], ["select", "m/l0:1"], ["select", "m/l1:0"]]
    data["selected"] = ["m/l0:0"]
    sent, texts = run("graph", data, clicks("unit", shift=True))
    added = [["select", ""], ["select", "m/l0:0,m/l0:1"], ["select", "m/l0:0,m/l1:0"]]
    assert sent == added
    assert {"Open unit", "Trace it", "Unpin", "Clear", "Outgoing", "1 from 2 others"} <= set(texts)
    data |= {"factors": [{"value": "0", "text": "Zero"}], "factor": "0", "outcome": "-1 measured"}
    zero = 'click(root.all.find((n) => n.textContent === "Zero"));'
    sent, texts = run("graph", data, zero)
    assert sent == [["factor", "0"]] and "-1 measured" in texts
    data["nodes"][0]["href"] = ""  # the image is no unit
    assert not {"Open unit", "Zero", "Pin"} & set(run("graph", data, "")[1])


def test_units_of_a_graph_are_grouped_and_a_group_is_taken_apart() -> None:
    data = circuit_data(3, 1) | {"groups": [{"name": "parts", "units": ["l0:2"]}], "edge": "m/l0:0>m/l1:0"}
    data["selected"] = ["m/l0:0", "m/l0:1"]
    act = """const input = root.all.find((n) => n.maxLength === 40); input.value = "wheels";
    root.all.find((n) => n.onsubmit).onsubmit({ preventDefault() {} });
    click(root.all.find((n) => n.textContent === "Ungroup"));"""
    sent, texts = run("graph", data, act)
    assert sent == [["group", "wheels\nm/l0:0\nm/l0:1"], ["ungroup", "parts"]]
    assert "contributes 1" in texts, "the panel has the selected edge"


@pytest.mark.parametrize("bands", [(6, 1), (24, 6, 1), (24, 24, 6, 1), (34, 19, 6, 1)])
def test_a_graph_fits_the_visible_area_and_its_pictures_can_be_seen(bands: tuple[int, ...]) -> None:
    width, height = 660, 530  # what a window of 1280 x 800 leaves
    act = f"""const p = arrange(data, {width}, {height}), k = Math.min({width} / p.width, {height} / p.height);
    const below = (p.size.text + p.size.gap[1]) * k;
    sent.push(...Object.values(p.box).map((b) => [b.x * k, b.y * k, b.w * k, b.h * k, below]));"""
    boxes, _ = run("graph", circuit_data(*bands), act)
    assert len(boxes) == sum(bands)
    for i, (x, y, w, h, below) in enumerate(boxes):
        assert min(x, y) >= 0 and x + w <= width and y + h <= height and min(w, h) >= 40
        for u, v, a, b, _ in boxes[:i]:
            assert x >= u + a or u >= x + w or y >= v + b + 0.5 * below or v >= y + h + 0.5 * below, "none on another"


@pytest.mark.parametrize("bands", [(6, 1), (24, 6, 1)])
def test_long_names_of_layers_are_cut_and_lie_beside_each_other(bands: tuple[int, ...]) -> None:
    data = circuit_data(*bands)
    data["columns"] = [f"features.denseblock{i}.denselayer16.convolution_of_it" for i in range(len(bands))]
    act = """const p = arrange(data, 660, 530);
    sent.push(...p.heads.map(([x, text, anchor]) => [x, text, anchor, 0.6 * p.heading * text.length, p.width]));"""
    heads, _ = run("graph", data, act)
    edges = [(x - w, x) if anchor == "end" else (x, x + w) for x, _, anchor, w, _ in heads]
    assert all(text in data["columns"] or text.startswith("\u2026") for _, text, *_ in heads)
    assert all(text.endswith("of_it") for _, text, *_ in heads)
    assert edges[0][0] >= 0 and edges[-1][1] <= heads[0][-1]
    assert all(left[1] <= right[0] for left, right in pairwise(edges))


def test_keys_and_wheel_zoom_and_pan_the_graph_and_the_address_keeps_it() -> None:
    act = """const stage = root.all.find((n) => n.tabIndex === 0), svg = stage.children[0], world = svg.children[0];
    const look = (act) => { act(); sent.push(world.attributes.transform); }, key = (name) => () =>
      stage.onkeydown({ key: name, preventDefault() {}, stopPropagation() {} });
    [() => {}, key("+"), key("0"), key("ArrowLeft"), key("0")].forEach(look);
    look(() => svg.onwheel({ ...at(0, 0), deltaY: -20 }));
    look(key("t"));
    setTimeout(() => console.log(JSON.stringify([[...sent, changes.at(-1)], []])), 400);"""
    sent, _ = run("graph", circuit_data(2, 1), act)
    first, nearer, again, left, back, wheel, target, address = sent
    assert first == again == back and len({first, nearer, left, wheel, target}) == 5
    assert "zoom=1" in address


def test_a_link_of_a_unit_shows_its_image_large_under_the_pointer_but_not_under_a_finger() -> None:
    tile = {"unit": "scenes/a:1", "href": "unit?unit=scenes/a:1", "src": "IMAGE", "alt": "a", "name": "wheel"}
    data = {"tiles": [tile | {"note": "", "mark": "", "pick": None}], "size": 90, "label": ""}
    over = 'const link = root.children[0]; link.onpointerenter({ pointerType: "%s" });'
    _, texts = run("gallery", data, over % "mouse")
    assert texts.count("IMAGE") == 2 and texts[-2:] == ["scenes/a:1", "wheel"]
    _, texts = run("gallery", data, over % "touch")
    assert texts.count("IMAGE") == 1


def test_an_atlas_is_walked_with_the_arrow_keys_and_enter_picks() -> None:
    cells = [
        {"row": r, "column": c, "position": i, "scale": 1, "lines": [f"cell {r},{c}"], "about": "", "faint": False}
        for i, (r, c) in enumerate(((0, 0), (0, 2), (1, 1), (2, 0)))
    ]
    data = {"cells": cells, "grid": 3, "sheet": "SHEET", "across": 2, "selected": [0, 0], "label": ""}
    key = "const key = (name) => root.onkeydown({ key: name, target: root, preventDefault() {} });"
    sent, texts = run("atlas_map", data, key + "key('ArrowDown'); key('ArrowUp'); key('ArrowRight'); key('Enter');")
    assert sent == [["cell", [0, 2]]] and "cell 0,2" in texts
    sent, _ = run("atlas_map", data, key + "key('ArrowDown'); key('+'); key('0'); key('Enter');")
    assert sent == [["cell", [2, 0]]], "straight down before slanting"
