"""Background work, thumbnails, views of circuits, and exports."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

import circuits
from apps.explorer.components.graph import graph_data
from apps.explorer.resources import thumbnails
from apps.explorer.resources.stored_results import stored
from apps.explorer.server.background_work import PATIENCE, REMEMBERED, WAITING, Busy, Cancelled, Executor
from apps.explorer.server.byte_cache import ByteCache, size_of
from apps.explorer.server.security import UploadError
from apps.explorer.session import exports, figures
from apps.explorer.session.circuit_views import NONE, View, document, least_prune, merged, pruned, read_document
from circuits.dataset.scan_results import read_scan
from circuits.errors import CircuitsError
from circuits.plot.drawing import palette
from circuits.tracing.circuit import Circuit
from circuits.units.dossier.neighbor_weights import neighbor_weights


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    model = circuits.load("scenes")
    return circuits.trace(model, "mixed4a:11", images="scenes:60", depth=2, width=5)


def total(circuit: Circuit) -> dict[str, float]:
    """What the edges and the rest of each node add up to."""
    return {r.target: r.strength + sum(e.strength for e in circuit.into(r.target)) for r in circuit.rest}


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.99])
def test_pruning_keeps_every_sum_whole(circuit: Circuit, share: float) -> None:
    result = pruned(circuit, View(prune=share))
    whole = total(circuit)
    assert all(value == pytest.approx(whole[unit], abs=1e-6) for unit, value in total(result).items())
    most = {e.target: max(abs(x.strength) for x in circuit.into(e.target)) for e in circuit.edges}
    assert all(abs(e.strength) >= share * most[e.target] for e in result.edges)
    assert {e.source for e in result.edges} | {e.target for e in result.edges} <= {n.unit for n in result.nodes}


def test_a_pinned_unit_stays_however_weak(circuit: Circuit) -> None:
    weakest = circuit.into(circuit.target)[-1].source
    assert weakest not in {n.unit for n in pruned(circuit, View(prune=0.9)).nodes}
    result = pruned(circuit, View(prune=0.9, pins=(weakest,)))
    assert weakest in {n.unit for n in result.nodes}


def test_grouped_units_add_up(circuit: Circuit) -> None:
    units = [e.source for e in circuit.into(circuit.target)[:3]]
    result = merged(circuit, View().grouped("parts", units))
    edges = result.into(circuit.target)
    joined = next(e for e in edges if e.source == units[0])
    separate = [e for e in circuit.into(circuit.target) if e.source in units]
    assert joined.strength == pytest.approx(sum(e.strength for e in separate))
    assert np.allclose(joined.kernel, sum(e.kernel for e in separate))
    assert len(edges) == len(circuit.into(circuit.target)) - 2
    assert result.node(units[0]).label == "parts (3)"
    assert total(result)[circuit.target] == pytest.approx(total(circuit)[circuit.target], abs=1e-6)
    assert joined.weight == pytest.approx(np.linalg.norm(joined.kernel) * np.sign(joined.kernel.sum()), rel=1e-5)


def test_kernels_of_branches_of_different_sizes_add_up_at_their_places(circuit: Circuit) -> None:
    first, second, third = circuit.into(circuit.target)[:3]
    units = [first.source, second.source, third.source]
    kernels = dict(zip(units, (np.full((3, 3), 2.0), np.ones((1, 1)), np.ones((5, 5))), strict=True))
    offsets = dict(zip(units, ((-1, -1), (0, 0), (-2, -2)), strict=True))
    edges = [
        replace(e, kernel=kernels[e.source].astype(np.float32), offset=offsets[e.source], stride=(1, 1))
        if e.target == circuit.target and e.source in kernels
        else e
        for e in circuit.edges
    ]
    result = merged(replace(circuit, edges=tuple(edges)), View().grouped("parts", units))
    joined = next(e for e in result.into(circuit.target) if e.source == units[0])
    expected = np.ones((5, 5))
    expected[1:4, 1:4] += 2
    expected[2, 2] += 1
    assert joined.offset == (-2, -2) and np.array_equal(joined.kernel, expected)


def test_a_view_comes_back_from_its_address_and_from_its_file(circuit: Circuit) -> None:
    units = [e.source for e in circuit.into(circuit.target)[:2]]
    view = View(0.1).pinned(units[0]).grouped("two of them", units)
    address = view.to_address()
    assert View.of_address(0.1, address["pin"], address["group"], "scenes") == view
    text = json.dumps(document(circuit, view))
    again, read = read_document(json.loads(text))
    assert read == view and again.nodes == circuit.nodes and again.edges == circuit.edges
    assert read_document(circuit.to_json())[1] is None, "a file of `circuits trace` has no view"
    assert View.of_address(0.1, NONE, NONE, "scenes") == View(0.1)


def test_a_large_circuit_opens_with_as_few_edges_pruned_as_leave_the_units_that_fit(circuit: Circuit) -> None:
    counts = {p: len(pruned(circuit, View(p / 100)).nodes) for p in range(61)}
    assert counts[0] > 12 > counts[60]
    least = round(100 * least_prune(circuit, 12, 60))
    assert counts[least] <= 12 and all(counts[p] > 12 for p in range(least))
    assert least_prune(circuit, len(circuit.nodes), 60) == 0.0


def test_the_graph_shows_the_numbers_of_the_circuit_and_what_is_not_in_it(circuit: Circuit) -> None:
    units = [e.source for e in circuit.into(circuit.target)[:2]]
    view = View(0.1).grouped("two", units)
    drawing = merged(pruned(circuit, view), view)
    data = graph_data(drawing, view, {circuit.target: ["IMAGE"]})
    assert {e["edge"]: (e["strength"], e["values"][0][0]) for e in data["edges"]} == {
        f"{e.source}>{e.target}": (e.strength, pytest.approx(float(np.atleast_2d(e.kernel)[0, 0]), rel=1e-5))
        for e in drawing.edges
    }
    nodes = {node["unit"]: node for node in data["nodes"]}
    assert data["columns"] == [*reversed(circuit.layers)] and nodes[circuit.target]["column"] == 2
    assert nodes[units[0]]["members"] == [u.removeprefix("scenes/") for u in units] and units[1] not in nodes
    rest = next(r for r in drawing.rest if r.target == circuit.target)
    assert f"{rest.count} others" in nodes[circuit.target]["rest"] and nodes[circuit.target]["images"] == ["IMAGE"]
    assert data["key"] != graph_data(pruned(circuit, View(0.3)), View(0.3), {})["key"], "another graph is fitted anew"


@pytest.mark.parametrize("name", ["", "a=b", "a;b", "x" * 60])
def test_a_group_needs_a_name_that_an_address_can_hold(circuit: Circuit, name: str) -> None:
    units = [e.source for e in circuit.into(circuit.target)[:2]]
    with pytest.raises(UploadError):
        View().grouped(name, units)
    with pytest.raises(UploadError):
        View().grouped("fine", units[:1])


@pytest.mark.parametrize(
    "data", [None, {}, {"schema": 1}, {"schema": 1, "view": "x"}, [], {"schema": 99}, {"schema": 1, "nodes": [{}]}]
)
def test_a_file_that_is_no_circuit_is_refused(data: object) -> None:
    with pytest.raises(CircuitsError):
        read_document(data)


def test_a_damaged_view_of_a_good_circuit_is_refused(circuit: Circuit) -> None:
    for view in ({"prune": "x"}, {"pins": ["../x"]}, {"groups": [{"name": "a"}]}, {"groups": [7]}):
        with pytest.raises(CircuitsError):
            read_document({**circuit.to_json(), "view": view})


def test_in_the_dark_theme_paper_is_dark_ink_is_light_and_images_stay() -> None:
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.add_subplot()
    (line,) = axes.plot([0, 1], [0, 1], color=palette.EXCITES)
    (bar,) = axes.bar([0], [1], color="#888888")
    text, image = axes.set_title("x", color=palette.INK), axes.imshow(np.full((2, 2, 3), 255, np.uint8))
    figures.darken(figure)
    luminance = {name: sum(to_rgb(c)) / 3 for name, c in (("paper", axes.get_facecolor()), ("ink", text.get_color()))}
    assert luminance["paper"] < 0.1 and luminance["ink"] > 0.85 and to_hex(line.get_color()) == "#f08c3c"
    assert 0.3 < sum(bar.get_facecolor()[:3]) / 3 < 0.6, "a gray between them stays between them"
    assert (image.get_array() == 255).all()
    drawn = figures.screen_figure(lambda: figure)
    assert drawn.light.startswith(b"\x89PNG") and drawn.dark.startswith(b"\x89PNG")


def test_a_task_is_done_once_for_all_who_ask() -> None:
    executor, count = Executor(), []

    def work(report: object) -> int:
        count.append(1)
        time.sleep(0.05)
        return 7

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(_done(executor, work))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [7] * 12 and len(count) == 1


def _done(executor: Executor, work: object) -> int:
    task = executor.submit("key", "work", work)  # type: ignore[arg-type]
    assert task.wait(5)
    return int(task.result())  # type: ignore[call-overload]


def test_the_results_of_an_executor_are_bounded() -> None:
    executor = Executor()
    for i in range(REMEMBERED + 60):
        assert executor.submit(i, "work", lambda report, i=i: i).wait(5)  # type: ignore[misc]
    assert len(executor) <= REMEMBERED


def test_more_than_can_wait_is_refused() -> None:
    executor, stop = Executor(), threading.Event()
    tasks = [executor.submit(i, "work", lambda report: stop.wait(20)) for i in range(WAITING)]
    with pytest.raises(Busy):
        executor.submit("one more", "work", lambda report: 1)
    stop.set()
    assert all(task.wait(5) for task in tasks)


def test_a_task_can_be_stopped_and_its_error_is_its_own() -> None:
    executor, begun = Executor(), threading.Event()

    def long(report: object) -> None:
        for i in range(1000):
            begun.set()
            report(i, 1000)  # type: ignore[operator]
            time.sleep(0.01)

    task = executor.submit("long", "long work", long)
    begun.wait(5)
    executor.forget("long")
    assert task.wait(5)
    with pytest.raises(Cancelled):
        task.result()
    assert executor.submit("next", "work", lambda report: 3).wait(5), "the executor goes on"


def long_work(model: circuits.Model, begun: threading.Event) -> Callable[[object], None]:
    """Work of a minute that reports no progress: passes of a network, one after another."""

    def work(report: object) -> None:
        for _ in range(20_000):
            begun.set()
            circuits.capture(model, "scenes:2", "mixed4a")

    return work


def test_work_that_nobody_waits_for_any_more_blocks_nobody() -> None:
    """Both workers have work of minutes: of a tab that is closed, and of a view that was left."""
    model, here, begun = circuits.load("scenes"), {"ann", "bob"}, [threading.Event(), threading.Event()]
    executor = Executor(workers=2, present=lambda session: session in here)
    closed = executor.submit("closed", "work", long_work(model, begun[0]), "ann")
    left = executor.submit("left", "work", long_work(model, begun[1]), "bob")
    assert all(event.wait(10) for event in begun)
    short = executor.submit("short", "work", lambda report: 3, "bob")
    assert not short.wait(0.3), "both workers are busy"
    here.remove("ann")
    executor.keep("bob", {"short"})
    assert short.wait(30) and short.result() == 3
    assert all(task.wait(30) for task in (closed, left))
    for task in (closed, left):
        with pytest.raises(Cancelled):
            task.result()
    assert not any(m._forward_hooks for m in model.module.modules()), "what it held is given up"
    assert executor.submit("left", "work", lambda report: 4, "bob").wait(5), "asked for again, it is done anew"


def test_work_that_another_session_waits_for_goes_on() -> None:
    executor, release = Executor(workers=1), threading.Event()

    def work(report: Callable[[int, int], None]) -> int:
        while not release.wait(0.02):
            report(1, 2)
        return 7

    for session in ("ann", "bob"):
        task = executor.submit("key", "work", work, session)  # type: ignore[arg-type]
    executor.keep("ann", set())
    executor.forget("key", "ann")  # her Stop
    assert not task.wait(PATIENCE + 0.5)
    release.set()
    assert task.wait(5) and task.result() == 7


def test_a_result_is_there_after_a_restart_unless_its_file_is_damaged(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> tuple[bytes, dict[str, object]]:
        made.append(1)
        return b"\x89PNG\0", {"values": np.arange(6.0), "nan": float("nan"), "none": None}

    first, again = (stored(tmp_path, ("unit", 3, "digest"), make) for _ in range(2))
    assert len(made) == 1 and again[0] == first[0] and (again[1]["values"] == np.arange(6.0)).all()
    stored(tmp_path, ("unit", 3, "another digest"), make)
    assert len(made) == 2
    for file in (tmp_path / "results").iterdir():
        data = bytearray(file.read_bytes())
        at = data.index(b"none")
        data[at : at + 4] = b"n0ne"
        file.write_bytes(data)
    stored(tmp_path, ("unit", 3, "digest"), make)
    assert len(made) == 3
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    assert stored(blocked, ("unit",), make)[0] == first[0], "a store that cannot be written is shown all the same"


def test_caches_are_bounded_by_what_their_values_hold_on_to() -> None:
    whole = torch.zeros(1 << 20)
    assert size_of(whole[3]) > 4 << 20 and size_of({"a": [whole.numpy()[:2], whole]}) < 5 << 20
    cache, count = ByteCache(10 << 20), []

    def make() -> list[bytes]:
        count.append(1)
        time.sleep(0.02)
        return [bytes(1 << 20)]

    threads = [threading.Thread(target=cache.get, args=("same", make)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(count) == 1
    for i in range(40):
        cache.get(i, make)
        cache.get("same", make)
    assert len(cache) == 9 and cache.size <= cache.most and len(count) == 41, "the least recently used goes first"
    cache.get("too large", lambda: bytes(11 << 20))
    assert cache.size <= cache.most
    weights = neighbor_weights(circuits.load("scenes"), "mixed3b:39", "out")
    kernels = sum(row.kernel.nbytes for row in weights.rows)
    assert size_of(weights) < 2 * kernels + 20_000, "not all kernels of the layer, of which these would be views"


def test_thumbnails_are_saved_read_back_and_bound_to_their_scan(store: Path) -> None:
    scan = read_scan(store, "scenes")
    thumbs = thumbnails.stored(scan, "mixed4a")
    assert thumbs is not None and len(thumbs) == 48
    active = [bool(scan.layer("mixed4a").unit(i).top) for i in range(48)]
    assert [src is not None for src in thumbs] == active
    assert all(len(src) < 12_000 for src in thumbs if src)
    scan.manifest["digest"] = "another"
    assert thumbnails.stored(scan, "mixed4a") is None
    path = scan.folder / thumbnails.FOLDER / "mixed3b.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert thumbnails.stored(read_scan(store, "scenes"), "mixed3b") is None, "damaged: made again"


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_figure_is_exported_in_each_format(circuit: Circuit, kind: str) -> None:
    from circuits import plot

    head = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind]
    assert exports.figure_bytes(lambda: plot.circuit_graph(circuit), kind).startswith(head)


def test_a_table_cannot_hold_formulas() -> None:
    rows = [{"unit": "scenes/mixed4a:1", "name": "=HYPERLINK(1)", "value": -1.5}, {"unit": "", "name": "a-b"}]
    assert exports.csv_bytes(rows).decode() == "unit,name,value\nscenes/mixed4a:1,'=HYPERLINK(1),-1.5\n,a-b,\n"


def test_folders_of_a_concept_are_those_that_images_are_read_from(tmp_path: Path) -> None:
    """Linked ones too, nothing that is hidden."""
    from apps.explorer.session.concepts import folders

    for name in ("images/dogs", "images/.trash", "images/__MACOSX", "images/empty", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        if name != "images/empty":
            (tmp_path / name / "a.png").write_bytes(b"")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "broken").symlink_to(tmp_path / "nowhere")
    assert folders(tmp_path / "images") == ["dogs", "linked"]


OUTLIVES = """
import threading, time
from apps.explorer.server.background_work import Cancelled, Executor

executor, begun = Executor(), threading.Event()

def endless(report):
    begun.set()
    while True:
        report(0, 1)
        time.sleep(0.01)

def page():
    threading.main_thread().join()
    try:
        executor.submit("more", "more", lambda report: None)
    except Cancelled as error:
        print(error)

task = executor.submit("endless", "endless", endless)
executor.submit("queued", "queued", lambda report: print("must not run"))
begun.wait()
threading.Thread(target=page).start()
"""


def test_a_process_ends_though_work_runs_and_a_page_outlives_it() -> None:
    """Without `close` the endless task is waited for, and the page's pool raises RuntimeError."""
    done = subprocess.run([sys.executable, "-c", OUTLIVES], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "more: the explorer is closing\n", "")
