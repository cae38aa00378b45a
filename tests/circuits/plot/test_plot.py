"""Figures and the report of a circuit: whole, right and safe for any circuit."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

import circuits
from circuits import ExpandedWeights, plot
from circuits.common.examples import Example
from circuits.dataset.concept_search import Finding, Findings
from circuits.dataset.labels.results import LayerLabels, PartLabels
from circuits.errors import CircuitsError
from circuits.plot.circuit.graph_layout import curve, layout
from circuits.plot.circuit.waterfall import sum_steps
from circuits.plot.drawing.canvas import Box
from circuits.plot.drawing.crops import cut, data_uri, montage, resized
from circuits.tracing.circuit import Circuit, Edge, Node, Rest
from circuits.tracing.circuit_score import Score
from tests import nets
from tests.circuits.plot.pages import HOSTILE, Page, check_safe, texts_of
from zoo.images.sources import open_images
from zoo.inputs import InputSpec

ABOVE = np.array([[3, 3, 3], [1, 1, 1], [0, 0, 0]], dtype=np.float32)


def make_circuit(width: int = 4, depth: int = 2, *, shared: bool = True, score: bool = True) -> Circuit:
    """A circuit with `width` sources a node; neighbors share a source when `shared`."""
    rng = np.random.default_rng(0)
    layers = tuple(f"mixed{4 - d}a" for d in range(depth + 1))
    examples = tuple(Example(i, f"p{i}", (i, 1), 9.0 - i, (i, i, i + 12, i + 12)) for i in range(4))
    target = f"net/{layers[0]}:0"
    nodes, edges, rests = [Node(target, layers[0], 0, "target", 0, 4.0, examples, "car")], [], []
    frontier = [target]
    for d in range(1, depth + 1):
        sources_so_far: list[str] = []
        for t in frontier:
            sources = [f"net/{layers[d]}:{len(sources_so_far) + k}" for k in range(width)]
            if shared and sources_so_far and d > 1:
                sources[0] = sources_so_far[-1]
            for k, source in enumerate(dict.fromkeys(sources)):
                if source not in sources_so_far:
                    sources_so_far.append(source)
                    label = "window" if len(sources_so_far) == 1 else None
                    index = int(source.rpartition(":")[2])
                    nodes.append(Node(source, layers[d], index, "parent", d, 1.0, examples, label))
                sign = -1 if k == 1 else 1
                kernel = (rng.random((3, 5)) * 0.2 * sign).astype(np.float32)
                edges.append(Edge(source, t, sign, float(np.linalg.norm(kernel)), sign * 2.0 / (k + 1), kernel))
            strength = sum(e.strength for e in edges if e.target == t)
            rests.append(Rest(t, 100 - width, 0.25, strength + 0.25, -0.5, 0.125, strength - 0.125))
        frontier = sources_so_far
    random = tuple(np.linspace(-3, 0.4, 50).tolist())
    drops = {n.unit: 0.3 - 0.1 * i for i, n in enumerate(nodes[1:])}
    scored = Score(0.81, 0.7, 100.0, 98.0, random, random, drops, 20, 0) if score else None
    origin = {"weights": "ab" * 32, "images": "cars", "n_images": 20, "seed": 3, "versions": {"torch": "2.x"}}
    return Circuit(target, "net", tuple(nodes), tuple(edges), tuple(rests), layers, score=scored, provenance=origin)


def make_pictures(circuit: Circuit, n: int = 4, side: int = 12) -> dict[str, list[np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(1)
    return {c.unit: [rng.integers(0, 255, (side, side, 3), np.uint8) for _ in range(n)] for c in circuit.nodes}


def images_of(figure: Figure) -> list[AxesImage]:
    return list(figure.axes[0].get_images())


# -- colors ------------------------------------------------------------------------------------------


def test_a_color_says_its_weight_to_one_part_in_255() -> None:
    weights = np.linspace(-0.3, 0.3, 2001)
    decoded = plot.decode(plot.encode(weights, 0.3), 0.3)
    assert np.abs(decoded - weights).max() <= 0.3 / 255


def test_zero_is_white_and_the_signs_are_orange_and_blue() -> None:
    zero, plus, minus = plot.encode([0.0, 1.0, -1.0], 1.0)
    assert zero.tolist() == [255, 255, 255]
    assert plus.tolist() == [0xCA, 0x5A, 0x00]
    assert minus.tolist() == [0x1F, 0x6F, 0xB2]


def test_weights_beyond_the_scale_take_its_end_and_nan_is_gray() -> None:
    assert plot.encode([9.0], 1.0).tolist() == plot.encode([1.0], 1.0).tolist()
    gray = plot.encode([float("nan")], 1.0)[0]
    assert len(set(gray.tolist())) == 1 and gray[0] < 255


def test_the_shared_scale_is_the_largest_finite_weight() -> None:
    assert plot.shared_scale([np.array([[1.0, -3.0]]), np.array([[2.0]])]) == 3.0
    assert plot.shared_scale([np.array([np.nan, 2.0, np.inf])]) == 2.0
    assert plot.shared_scale([]) == plot.shared_scale([np.zeros((2, 2))]) == 1.0


# -- readings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "reading"),
    [
        (ABOVE, "heavier above"),
        (ABOVE[::-1], "heavier below"),
        (ABOVE.T, "heavier left"),
        (ABOVE.T[:, ::-1], "heavier right"),
        (-ABOVE, "heavier above"),
        ([[9, 1, 0], [1, 0, 0], [0, 0, 0]], "heavier above left"),
        ([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], "heavier in the center"),
        (np.ones((5, 5)), "everywhere"),
        (np.zeros((3, 3)), "zero"),
        ([[0.7]], "same position"),
        ([[2.0], [1.0]], "heavier above"),
    ],
)
def test_a_kernel_is_read_by_its_halves(kernel: Any, reading: str) -> None:
    assert plot.kernel_reading(kernel) == reading


def test_a_half_is_heavier_from_sixty_percent_on() -> None:
    assert plot.kernel_reading([[0.6], [0.4]]) == "heavier above"
    assert plot.kernel_reading([[0.59], [0.41]]) == "everywhere"


def test_the_middle_row_counts_half_to_each_side() -> None:
    shares = plot.halves([[3.0], [2.0], [1.0]])
    assert shares.above == pytest.approx(4 / 6) and shares.below == pytest.approx(2 / 6)
    assert shares.mass == 6.0


def test_a_kernel_of_both_signs_is_read_for_each() -> None:
    kernel = np.array([[2.0, 2.0], [-1.5, -1.5]])
    assert plot.kernel_effect(kernel) == "excites from above, inhibits from below"
    assert plot.kernel_effect(kernel, -1) == "inhibits from below, excites from above"
    assert plot.kernel_effect(-ABOVE.T) == "inhibits from the left"
    assert plot.kernel_effect(np.zeros((2, 2))) == "no weight"
    # a positive contribution by negative weights: of a source whose activation is negative, or below its baseline
    assert plot.kernel_effect(np.array([[-1.0]]), 1) == "excites where it is low, at the same position"
    assert plot.kernel_effect(np.abs(ABOVE), -1) == "inhibits where it is low, from above"


def test_the_reading_of_a_circuit_counts_its_signs_and_names_its_control() -> None:
    text = plot.circuit_reading(make_circuit(4, 1))
    assert "3 units that excite it and 1 unit that inhibits it" in text
    assert "window (mixed3a:0)" in text
    assert "0.81" in text and "50 random circuits" in text


# -- pictures -----------------------------------------------------------------------------------------


def test_a_crop_is_square_centerd_and_gray_beyond_the_border() -> None:
    image = np.arange(100, dtype=np.uint8).reshape(10, 10, 1).repeat(3, axis=2)
    assert np.array_equal(cut(image, (2, 3, 6, 7)), image[2:6, 3:7])
    corner = cut(image, (-2, -2, 2, 2))
    assert corner.shape == (4, 4, 3) and np.array_equal(corner[2:, 2:], image[:2, :2])
    assert (corner[:2] == 150).all() and (corner[:, :2] == 150).all()
    # cut off at the border by the tracer: moved inwards
    assert np.array_equal(cut(image, (0, 0, 4, 2)), image[:4, :4])
    assert np.array_equal(cut(image, (6, 3, 10, 5)), image[6:, 2:6])
    assert np.array_equal(cut(image, (-50, -50, 60, 60)), image)


def test_crops_are_cut_from_the_images_the_circuit_was_traced_on() -> None:
    images = open_images(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    node = Node(
        "net/a:0",
        "a",
        0,
        "target",
        0,
        1.0,
        tuple(Example(i, images.ids[i], (0, 0), 1.0, (2, 2, 10, 10)) for i in (3, 1)),
    )
    circuit = Circuit(node.unit, "net", (node,), (), (), ("a",))
    cut_crops = plot.crops(circuit, images, InputSpec(size=16))
    expected = np.rint(images.tensor(InputSpec(size=16), [3])[0, :, 2:10, 2:10].numpy().transpose(1, 2, 0) * 255)
    assert [c.shape for c in cut_crops[node.unit]] == [(8, 8, 3)] * 2
    assert np.array_equal(cut_crops[node.unit][0], expected)
    assert len(plot.crops(circuit, images, InputSpec(size=16), n=1)[node.unit]) == 1
    with pytest.raises(CircuitsError, match="give the images"):
        plot.crops(circuit, images[2:], InputSpec(size=16))


def test_crops_of_a_gray_model_are_shown_in_gray() -> None:
    images = open_images(torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    node = Node("net/a:0", "a", 0, "target", 0, 1.0, (Example(0, images.ids[0], (0, 0), 1.0, (0, 0, 8, 8)),))
    cut_crops = plot.crops(Circuit(node.unit, "net", (node,), (), (), ("a",)), images, InputSpec(size=8, channels=1))
    assert np.array_equal(cut_crops[node.unit][0][..., 0], cut_crops[node.unit][0][..., 2])


def test_a_montage_is_clear_where_there_is_no_crop() -> None:
    sheet = montage([np.full((5, 5, 3), 200, np.uint8)], rows=1, columns=2, side=10, gap=2)
    assert sheet.shape == (10, 22, 4)
    assert (sheet[:, :10, 3] == 255).all() and (sheet[:, 10:, 3] == 0).all()
    assert resized(np.zeros((4, 8, 3), np.uint8), 6).shape == (6, 6, 3)


# -- the graph ----------------------------------------------------------------------------------------


def overlap(a: Box, b: Box) -> bool:
    clear = a.right <= b.x or b.right <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
    return not clear


@pytest.mark.parametrize(("width", "depth"), [(1, 1), (4, 2), (9, 1), (12, 1), (9, 2), (3, 3)])
def test_nothing_overlaps_in_the_graph(width: int, depth: int) -> None:
    placed = layout(make_circuit(width, depth))
    kernels = [e.kernel for e in placed.edges if e.kernel is not None]
    boxes = [n.box for n in placed.nodes] + [r.box for r in placed.rests] + kernels
    clashes = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if overlap(a, b)]
    assert not clashes
    for box in boxes:
        assert box.x >= 0 and box.y >= 0 and box.right <= placed.width and box.y + box.height <= placed.height


def test_lines_run_from_left_to_right_and_end_at_their_target() -> None:
    circuit = make_circuit(4, 2)
    placed = layout(circuit)
    assert len(placed.edges) == len(circuit.edges) + len(circuit.rest)
    boxes = {n.node.unit: n.box for n in placed.nodes}
    for line in placed.edges:
        target = line.edge.target if line.edge is not None else line.rest.target  # type: ignore[union-attr]
        xs = [x for x, _ in curve(line)]
        assert xs == sorted(xs)
        assert line.end[0] < boxes[target].x
        assert boxes[target].y <= line.end[1] <= boxes[target].y + boxes[target].height


def test_line_widths_follow_strength() -> None:
    lines = {abs(e.strength): e.width for e in layout(make_circuit(4, 1)).edges if e.edge is not None}
    widths = [lines[s] for s in sorted(lines)]
    assert widths == sorted(widths) and widths[0] < widths[-1]


ODD = {
    "no edges": replace(make_circuit(1, 1), nodes=make_circuit(1, 1).nodes[:1], edges=(), rest=(), score=None),
    "one parent": make_circuit(1, 1),
    "twelve parents": make_circuit(12, 1),
    "three steps back": make_circuit(2, 3),
    "hostile label": make_circuit(2, 1).label({"net/mixed4a:0": HOSTILE, "net/mixed3a:1": "車 🚗" * 40}),
    "zero strengths": replace(
        make_circuit(2, 1), edges=tuple(replace(e, strength=0.0, kernel=e.kernel * 0) for e in make_circuit(2, 1).edges)
    ),
    "one weight": replace(
        make_circuit(2, 1), edges=tuple(replace(e, kernel=e.kernel[:1, :1]) for e in make_circuit(2, 1).edges)
    ),
    "large kernel": replace(
        make_circuit(1, 1), edges=(replace(make_circuit(1, 1).edges[0], kernel=np.ones((28, 28), np.float32)),)
    ),
    "a layer skipped": replace(make_circuit(2, 1), layers=("mixed4a", "between", "mixed3a")),
}


@pytest.mark.parametrize("name", ODD)
def test_every_circuit_can_be_drawn(name: str, tmp_path: Path) -> None:
    circuit = ODD[name]
    figure = plot.circuit_graph(circuit)
    plot.save_figure(figure, tmp_path / "circuit.png")
    assert (tmp_path / "circuit.png").read_bytes().startswith(b"\x89PNG")
    page = plot.trace_report(circuit, {}, "circuits trace", "import circuits")
    assert not re.search(r"[\"' >]nan\b", page)
    assert len(images_of(figure)) == len(circuit.edges) + len(layout(circuit).scales)


def test_a_unit_without_pictures_is_a_tile_with_its_address() -> None:
    circuit = make_circuit(2, 1)
    images = make_pictures(circuit)
    complete = plot.circuit_graph(circuit, images)
    del images[circuit.nodes[1].unit]
    assert len(images_of(plot.circuit_graph(circuit, images))) == len(images_of(complete)) - 1
    assert "mixed3a:0" in texts_of(plot.circuit_graph(circuit, images))


def test_pictures_may_be_named_without_the_model() -> None:
    circuit = make_circuit(1, 1)
    short = {unit.rpartition("/")[2]: crops for unit, crops in make_pictures(circuit).items()}
    assert len(images_of(plot.circuit_graph(circuit, short))) == 2 + 1 + 1


def test_kernels_in_a_figure_carry_their_weights_in_one_scale() -> None:
    circuit = make_circuit(3, 1)
    scale = plot.shared_scale(e.kernel for e in circuit.edges)
    images = [np.asarray(i.get_array()) for i in images_of(plot.circuit_graph(circuit))]
    for edge in circuit.edges:
        kernels = [plot.decode(d, scale) for d in images if d.shape[:2] == edge.kernel.shape]
        assert min(np.abs(f - edge.kernel).max() for f in kernels) <= scale / 255


# -- other figures ------------------------------------------------------------------------------------


def test_a_strip_shows_every_kernel_between_source_and_target() -> None:
    circuit = make_circuit(3, 1)
    figure = plot.kernel_strip(circuit.into(circuit.target), make_pictures(circuit))
    assert len(images_of(figure)) == 3 * 3 + 1  # source, kernel, target; the scale
    assert isinstance(plot.kernel_strip([]), Figure)


def test_a_grid_shows_the_strongest_sources_under_their_pictures() -> None:
    kernels = torch.zeros(2, 6, 3, 3)
    kernels[:, 4], kernels[:, 1] = 2.0, -1.0
    weights = ExpandedWeights(kernels, "a", ["b:0", "b:1"], "a", (-1, -1), (1, 1), "exact")
    figure = plot.kernel_grid(weights, n=2)
    assert [t for t in texts_of(figure) if t in (":4", ":1")] == [":4", ":1"]
    assert len(images_of(figure)) == 4 + 1
    assert len(images_of(plot.kernel_grid(weights, sources=[0, 1, 2]))) == 6 + 1


def test_a_contact_sheet_has_a_row_for_each_unit() -> None:
    circuit = make_circuit(3, 1)
    assert len(images_of(plot.contact_sheet(make_pictures(circuit), circuit))) == 4
    assert isinstance(plot.contact_sheet({}), Figure)


def test_an_auc_table_shows_the_best_with_their_numbers() -> None:
    rows = tuple(Finding(f"net/a:{i}", 0.9 - 0.1 * i, "max", 1.0, 0.0, 0.8 - 0.1 * i, 0.95) for i in range(5))
    rows += (Finding("net/a:9", 0.35, "max", 0.0, 1.0),)  # an interval was not asked for
    texts = texts_of(plot.auc_table(rows, n=3, title="car"))
    assert [t for t in texts if t in ("0.900", "0.800", "0.700", "0.600")] == ["0.900", "0.800", "0.700"]
    findings = texts_of(plot.auc_table(Findings(rows, ("a",), 5, 5, chance=0.68)))
    assert "0.350" in findings and "best for shuffled labels" in findings
    assert isinstance(plot.auc_table([]), Figure)


def test_a_score_stands_beside_the_random_circuits() -> None:
    circuit = make_circuit(3, 1)
    assert circuit.score is not None
    texts = " ".join(texts_of(plot.score_figure(circuit.score)))
    assert "0.81" in texts and "% of these 50, median" in texts
    bare = replace(circuit.score, random_faithfulness=(), random_completeness=(), minimality={}, faithfulness=-4.0)
    assert isinstance(plot.score_figure(bare), Figure)


def test_the_steps_of_a_sum_lead_to_the_pre_activation() -> None:
    circuit = make_circuit(4, 1)
    steps = sum_steps(circuit, circuit.rest[0])
    assert sum(s.value for s in steps if s.kind != "sum") == pytest.approx(circuit.rest[0].pre_activation)
    for before, after in zip(steps, steps[1:], strict=False):
        assert (
            after.kind == "sum" and after.end == pytest.approx(before.end) or after.start == pytest.approx(before.end)
        )
    assert "pre-activation" in texts_of(plot.waterfall(circuit))
    with pytest.raises(CircuitsError, match="no sum"):
        plot.waterfall(circuit, "mixed3a:0")


def test_a_figure_is_written_whole_and_without_a_date(tmp_path: Path) -> None:
    for suffix in ("png", "svg"):
        for name in ("a", "b"):
            plot.save_figure(plot.circuit_graph(make_circuit(2, 1)), tmp_path / f"{name}.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    with pytest.raises(CircuitsError, match="png"):
        plot.save_figure(Figure(), tmp_path / "a.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]


def test_drawing_needs_no_pyplot() -> None:
    code = "import sys, circuits; assert 'circuits.plot' not in sys.modules and 'matplotlib' not in sys.modules\n"
    code += "import circuits.plot; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


# -- the report ---------------------------------------------------------------------------------------


def test_the_report_needs_nothing_from_outside() -> None:
    circuit = make_circuit(4, 2)
    text = plot.trace_report(circuit, make_pictures(circuit), "circuits trace x", "import circuits")
    page = Page(text)
    assert not page.open
    assert page.refs and all(r.startswith(("#", "data:image/")) for r in page.refs)
    assert "http:" not in text and "https:" not in text and "@import" not in text and "<link" not in text
    assert all(u.startswith("data:") for u in re.findall(r"url\(([^)]*)", text))
    assert page.images_without_alt == 0


def test_every_unit_has_a_card_that_links_reach() -> None:
    circuit = make_circuit(4, 2)
    page = Page(plot.trace_report(circuit, make_pictures(circuit), "c", "p"))
    assert sorted(page.ids) == sorted(n.unit.rpartition("/")[2] for n in circuit.nodes)
    fragments = {r[1:] for r in page.refs if r.startswith("#")}
    assert fragments == set(page.ids)


def test_the_report_holds_command_code_sums_scores_and_origin() -> None:
    circuit = make_circuit(4, 1)
    command = "circuits trace net/mixed4a:0 --images 'my cars' --out a<b"
    text = Page(plot.trace_report(circuit, {}, command, "import circuits\ncircuits.load('net')")).text
    assert command in text and "import circuits\ncircuits.load('net')" in text
    rest = circuit.rest[0]
    for value in (rest.strength, rest.total, rest.bias, rest.remainder, rest.pre_activation):
        assert f"{value:+.3f}".replace("-", "\N{MINUS SIGN}") in text
    for edge in circuit.edges:
        assert f"{edge.strength:+.3f}".replace("-", "\N{MINUS SIGN}") in text
    assert "96 other units" in text and "ab" * 32 in text and "Faithfulness 0.81" in text
    assert "Above 100 % of 50 random circuits" in text
    # the first bar holds what lies beyond the axis, too
    assert "31 random circuits at \N{MINUS SIGN}1 or below" in text and not re.search(r"\b1 random circuits", text)


def test_a_report_without_scores_says_so() -> None:
    assert "Not scored" in plot.trace_report(make_circuit(2, 1, score=False), {}, "c", "p")


def test_labels_and_ids_are_text_whatever_they_hold() -> None:
    circuit = make_circuit(2, 1)
    hostile = tuple(replace(e, id='"><img src=x onerror=alert(1)>\udce9') for e in circuit.nodes[1].examples)
    nodes = (replace(circuit.nodes[0], label=HOSTILE), replace(circuit.nodes[1], examples=hostile), *circuit.nodes[2:])
    origin = {"images": HOSTILE, HOSTILE: {"a": HOSTILE}}
    text = plot.trace_report(
        replace(circuit, nodes=nodes, provenance=origin, model=HOSTILE), make_pictures(circuit), HOSTILE, HOSTILE
    )
    check_safe(text)


def test_the_report_is_the_same_each_time() -> None:
    circuit = make_circuit(2, 1)
    images = make_pictures(circuit)
    assert plot.trace_report(circuit, images, "c", "p") == plot.trace_report(circuit, images, "c", "p")


def test_a_kernel_of_the_report_tells_its_weights() -> None:
    circuit = make_circuit(1, 1)
    text = plot.trace_report(circuit, {}, "c", "p")
    value = circuit.edges[0].kernel[1, 2]
    assert f"row 2, column 3: {value:+.4g}" in text
    assert data_uri(np.zeros((1, 1, 3), np.uint8)).startswith("data:image/")


def test_the_stylesheet_leaves_boxes_of_graphs_their_size() -> None:
    """A width or a height of a class overrides what an SVG rectangle of that class says of itself."""
    source = Path(plot.__file__).with_name("templates") / "style.css"
    style = re.sub(r"\{[^{}]*\{", "{", source.read_text(encoding="utf-8"))
    sized = [
        rule[1]
        for rule in re.finditer(r"([^{}]+)\{([^}]*)\}", style)
        if re.search(r"(?<![-\w])(width|height):", rule[2])
    ]
    drawn = ("tile", "frame", "head", "visualization", "image")
    assert not [s for s in sized for name in drawn if re.search(rf"(^|,)\s*\.{name}\s*(,|$)", s.strip())]


def test_a_size_curve_draws_each_ranking_beside_random_circuits(planted: circuits.Model) -> None:
    images = nets.clutter(12)
    curves = []
    for target in ("objects:0", "objects:1"):
        ranking = circuits.rank(planted, target, images=images, method="gradient")
        curves.append(circuits.size_curve(planted, ranking, random=2))
    figure = plot.size_curve_figure([curves[0], replace(curves[0], method="mask")])
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [label.split(":")[0] for label in labels] == [
        "random among the strongest", "random, as active", "random, any", "by gradient", "by mask",
    ]  # fmt: skip
    assert f"CPR {curves[0].cpr.value:.2f}" in labels[3]
    drawn = next(line for line in axes.get_lines() if line.get_label() == labels[3])
    assert drawn.get_xdata().tolist() == list(curves[0].sizes) and drawn.get_ydata().tolist() == list(curves[0].f)
    for wrong, message in (([], "at least one curve"), (curves, "curves of several targets")):
        with pytest.raises(CircuitsError, match=message):
            plot.size_curve_figure(wrong)


def test_part_labels_are_drawn_with_their_intervals_and_controls() -> None:
    """A filled dot is above every control; each row has its interval, and the three controls of its layer."""
    low, high = np.full((2, 3), 0.6), np.full((2, 3), 0.9)
    low[1] = np.nan  # of the second part no interval was computed
    scores = LayerLabels(
        auc=np.array([[[0.8, 0.7, 0.6], [0.5, 0.9, 0.4]], [[0.75, 0.65, 0.55], [0.5, 0.85, 0.45]]]),
        iou=np.zeros((2, 2, 3)),
        threshold=np.zeros((2, 3)),
        auc_interval=np.stack([low, np.where(np.isnan(low), np.nan, high)]),
        iou_interval=np.full((2, 2, 3), np.nan),
        control_auc=np.array([[0.55, 0.6], [0.58, 0.95], [0.5, 0.5]]),
        control_iou=np.zeros((3, 2)),
    )
    labels = PartLabels("net", "0" * 64, ("door", "wheel"), {"door": (8, 7), "wheel": (6, 5)}, {}, {}, {"a": scores})
    figure = plot.part_labels_figure(labels, top=2)
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a:0", "a:1", "a:1", "a:0"]
    assert [t.get_text() for t in axes.texts] == ["door (7 images)", "wheel (5 images)"]
    dots = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [float(line.get_xdata()[0]) for line in dots] == [0.75, 0.65, 0.85, 0.5]
    filled = [line.get_markerfacecolor() == line.get_color() for line in dots]
    assert filled == [True, True, False, False]
    bars = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2 and line.get_lw() == 1.6]
    assert bars == [(0.6, 0.9), (0.6, 0.9)]
    crosses = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "+" and len(line.get_xdata())]
    assert crosses == [0.58, 0.58, 0.95, 0.95]
    with pytest.raises(CircuitsError, match="top"):
        plot.part_labels_figure(labels, top=0)
