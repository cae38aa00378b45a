"""Visualizations on a page, on a sheet and on the nodes of a trace report: whole, honest and safe."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from circuits import plot
from circuits.common.examples import Example
from circuits.errors import CircuitsError
from circuits.plot.visualization import card
from circuits.tracing.circuit import Circuit, Edge, Node, Rest
from circuits.visualization.result import Evidence, Path as Step, Visualization
from tests.circuits.plot.pages import HOSTILE, Page, check_safe, texts_of
from zoo.images.sources import open_images
from zoo.inputs import InputSpec

PATH = (Step("conv", 0.5, 0.6, 0.1), Step("mixed3a", 0.0, 0.6, 0.1), Step("mixed4a", 0.3, 0.11, 0.1))


def visualization(
    index: int = 0, *, evidence: bool | Evidence = False, channels: int = 3, **changes: Any
) -> Visualization:
    image = torch.rand(channels, 24, 24, generator=torch.Generator().manual_seed(index))
    examples = tuple(Example(i, f"p{i}", (1, 2), 5.0 - i, (i, i, i + 8, i + 8)) for i in range(3))
    result = Evidence("photos", 50, 97.96, 4.5, examples, PATH) if evidence is True else evidence or None
    result = Visualization(
        f"net/mixed4a:{index}", 0, image, 2.5, 7.25, 2.0, (0.0, 1.0, 2.0), "ok", steps=3, input_size=(24, 24),
        digest="ab" * 32, evidence=result,
    )  # fmt: skip
    return replace(result, **changes)


def report(results: list[Visualization], **options: Any) -> str:
    return plot.visualization_report(
        results, **{"model": "net", "command": "circuits visualize x", "python": "import circuits", **options}
    )


def crops_of(results: list[Visualization]) -> dict[str, list[np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(0)
    return {r.unit: [rng.integers(0, 255, (8, 8, 3), np.uint8) for _ in range(3)] for r in results}


def opened(uri: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))


# -- the page -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5, 70])
def test_the_page_is_whole_and_needs_nothing_from_outside(count: int) -> None:
    results = [visualization(i, evidence=i % 2 == 0) for i in range(count)]
    text = report(results, photographs=crops_of(results))
    page = Page(text)
    assert not page.open and page.images_without_alt == 0
    assert all(r.startswith("data:image/") for r in page.refs)
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    assert page.ids == [f"mixed4a:{i}" for i in range(count)]
    assert "circuits visualize x" in page.text and "import circuits" in page.text


def test_a_picture_is_embedded_as_it_is() -> None:
    page = Page(report([visualization(3)]))
    pixels = np.asarray(opened(page.visualizations[0]))
    assert np.array_equal(pixels, plot.pixels(visualization(3).image))


def test_a_tile_tells_response_peak_percentile_and_path() -> None:
    text = report([visualization(1, evidence=True)], photographs=crops_of([visualization(1)]))
    page = Page(text)
    assert "response 2.5, peak 7.25" in page.text
    assert "stronger than 97.9 % of 50 photographs (up to 4.5)" in page.text  # rounded down
    assert "path: similarity to its photographs, layer by layer (1 = as they are among each other)" in page.text
    assert "conv 0.80; mixed3a \N{MINUS SIGN}0.20; mixed4a: nothing to compare with" in page.text
    assert page.text.count("top activating photograph 1") == 0 and "top activating photograph 1" in text
    assert "from 0 to 2" in page.text  # the history


def test_all_photographs_are_said_to_be_beaten_only_when_they_are() -> None:
    evidence = visualization(1, evidence=True).evidence
    assert evidence is not None
    almost = replace(evidence, percentile=99.99, count=20000)
    every = replace(evidence, percentile=100.0)
    assert "99.9 % of 20000" in report([visualization(1, evidence=almost)])
    assert "stronger than all 50" in report([visualization(1, evidence=every)])


@pytest.mark.parametrize(("status", "reason"), [("dead", card.DEAD), ("not finite", card.NOT_FINITE)])
def test_a_unit_without_a_picture_is_marked_and_never_drawn(status: str, reason: str) -> None:
    page = Page(report([visualization(0), visualization(1, status=status, response=float("nan"), peak=float("nan"))]))
    assert len(page.visualizations) == 1 and reason in page.text
    assert not re.search(r"\bnan\b", page.text)


def test_a_dead_unit_that_photographs_reach_says_so_and_shows_them() -> None:
    result = visualization(1, evidence=True, status="dead", response=0.0, peak=0.0)
    text = report([result], photographs=crops_of([result]))
    assert (
        "but photographs activate it: up to 4.5 among 50 photographs" in text and "top activating photograph 1" in text
    )
    assert result.evidence is not None
    silent = replace(
        result.evidence, strongest=0.0, examples=tuple(replace(e, value=0.0) for e in result.evidence.examples)
    )
    text = report([replace(result, evidence=silent)], photographs=crops_of([result]))
    assert "nor does any of 50 photographs activate it" in text and "top activating photograph 1" not in text


def test_variants_have_ids_of_their_own_and_transparency_is_kept() -> None:
    page = Page(report([visualization(0, channels=4), visualization(0, channels=4, variant=1)]))
    assert page.ids == ["mixed4a:0", "mixed4a:0.1"] and "variant 1" in page.text
    assert opened(page.visualizations[0]).mode == "RGBA"


def test_a_page_of_a_whole_layer_stays_small() -> None:
    results = [replace(visualization(i, evidence=True), image=torch.rand(3, 112, 112)) for i in range(512)]
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (100, 100, 3), np.uint8) for _ in range(9)]
    text = report(results, photographs={r.unit: noise for r in results})
    assert len(text) < 30e6  # of noise, which hardly compresses: photographs take a third


def test_names_are_text_whatever_they_hold() -> None:
    evidence = visualization(1, evidence=True).evidence
    assert evidence is not None
    hostile = replace(
        evidence,
        images=HOSTILE,
        examples=tuple(replace(e, id='"><img src=x onerror=alert(1)>\udce9') for e in evidence.examples),
        path=(replace(PATH[0], layer=HOSTILE),),
    )
    result = visualization(1, unit=HOSTILE, digest=HOSTILE, evidence=hostile)
    text = report([result], model=HOSTILE, command=HOSTILE, python=HOSTILE, photographs=crops_of([result]))
    check_safe(text)


def test_the_page_is_the_same_each_time() -> None:
    assert report([visualization(0, evidence=True)]) == report([visualization(0, evidence=True)])


def test_histories_that_are_short_flat_or_not_finite_are_drawn() -> None:
    for history in (
        (),
        (1.0,),
        (2.0, 2.0),
        (float("nan"), -float("nan")),
        (0.0, float("inf"), 1.0),
        tuple(range(5000)),
    ):
        text = report([visualization(0, history=tuple(map(float, history)))])
        assert not re.search(r"\b(nan|inf)\b", text.partition("<main>")[2])
        assert len(text) < 60_000


# -- photographs --------------------------------------------------------------------------------------------------


def test_exemplars_are_cut_at_the_receptive_field() -> None:
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = open_images(pixels)
    result = visualization(0, evidence=True)
    assert result.evidence is not None
    examples = tuple(Example(i, images.ids[i], (0, 0), 1.0, (2 + i, 4, 8 + i, 10)) for i in (2, 0))
    result = replace(result, evidence=replace(result.evidence, examples=examples))
    cut = plot.exemplars([result, visualization(1)], images, InputSpec(size=16))
    assert list(cut) == [result.unit] and [c.shape for c in cut[result.unit]] == [(6, 6, 3)] * 2
    assert np.array_equal(cut[result.unit][1], plot.pixels(pixels[0])[2:8, 4:10])
    assert len(plot.exemplars([result], images, InputSpec(size=16), n=1)[result.unit]) == 1


def test_exemplars_of_other_photographs_are_refused() -> None:
    with pytest.raises(CircuitsError, match="evidence was gathered on an image 'p0'"):
        plot.exemplars([visualization(0, evidence=True)], open_images(torch.rand(3, 3, 16, 16)), InputSpec(size=16))


@pytest.mark.parametrize("opacity", [0, 1])
@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_pixels_are_gray_colors_or_with_an_opacity(channels: int, opacity: int) -> None:
    image = torch.linspace(-0.1, 1.1, (channels + opacity) * 6).reshape(channels + opacity, 2, 3)
    values = plot.pixels(image, channels)
    assert values.shape == (2, 3, 3 + opacity) and values.dtype == np.uint8
    if channels == 3:
        assert np.abs(values / 255 - image.clamp(0, 1).permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6


# -- the sheet ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_the_sheet_holds_every_picture_and_its_name(count: int, tmp_path: Path) -> None:
    figure = plot.visualization_sheet([visualization(i) for i in range(count)], columns=6)
    assert len(figure.axes[0].get_images()) == count
    assert sum(t.startswith("mixed4a:") for t in texts_of(figure)) == count
    plot.save_figure(figure, tmp_path / "sheet.png")
    width, height = figure.get_size_inches()
    assert width > 0 and height > 0


def test_the_sheet_marks_what_is_dead() -> None:
    results = [
        visualization(0),
        visualization(1, status="dead"),
        visualization(2, status="not finite"),
        visualization(3, channels=4),
        visualization(4, channels=5),
    ]
    figure = plot.visualization_sheet(results, columns=2)
    assert len(figure.axes[0].get_images()) == 3
    assert {"dead", "not finite"} <= set(texts_of(figure))


# -- trace reports ------------------------------------------------------------------------------------------------


def circuit() -> Circuit:
    examples = tuple(Example(i, f"p{i}", (0, 0), 3.0 - i, (0, 0, 8, 8)) for i in range(3))
    nodes = tuple(
        Node(f"net/{layer}:{i}", layer, i, "target" if i == 0 else "parent", depth, 2.0, examples, None)
        for layer, i, depth in (("mixed4a", 0, 0), ("mixed3a", 1, 1), ("mixed3a", 2, 1))
    )
    kernel = np.ones((3, 3), np.float32)
    edges = tuple(Edge(n.unit, nodes[0].unit, 1, 3.0, 1.0, kernel) for n in nodes[1:])
    rest = Rest(nodes[0].unit, 10, 0.5, 2.5, 0.0, 0.0, 2.5)
    return Circuit(nodes[0].unit, "net", nodes, edges, (rest,), ("mixed4a", "mixed3a"), provenance={})


def test_a_trace_report_shows_visualizations_on_cards_and_nodes() -> None:
    traced = circuit()
    crops = {n.unit: [np.full((8, 8, 3), 9, np.uint8)] * 3 for n in traced.nodes}
    image = plot.pixels(torch.rand(3, 24, 24))
    plain = plot.trace_report(traced, crops, "c", "p")
    text = plot.trace_report(traced, crops, "c", "p", {"net/mixed4a:0": image, "mixed3a:1": image})
    assert text.count("<figcaption>visualization</figcaption>") == 2
    assert text.count(card.DEAD) == 1  # the third unit
    assert text.count('<rect class="visualization"') == 2
    page = Page(text)
    assert not page.open and page.images_without_alt == 0
    assert all(r.startswith(("#", "data:image/")) for r in page.refs)
    assert "visualization" not in plain.partition("<main>")[2]
    assert plain == plot.trace_report(traced, crops, "c", "p", None)


def test_a_unit_without_crops_shows_its_visualization_alone() -> None:
    traced = circuit()
    text = plot.trace_report(traced, {}, "c", "p", {traced.target: plot.pixels(torch.rand(3, 24, 24))})
    assert text.count('<rect class="visualization"') == 1 and text.count("no images of") == 3
