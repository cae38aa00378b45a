"""Figures of the modes: everything is on them, nothing is drawn for what has no picture, any name is text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from circuits import plot
from circuits.common.examples import Example
from circuits.errors import CircuitsError
from circuits.visualization.modes.caricature import Decomposed, Strip
from circuits.visualization.modes.spectrum import Spectrum
from circuits.visualization.result import Visualization
from tests.circuits.plot.pages import HOSTILE, texts_of
from zoo.images.sources import open_images
from zoo.inputs import InputSpec

PHOTOGRAPHS = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SPEC = InputSpec(size=16)


def visualization(index: int = 0, *, channels: int = 3, **changes: Any) -> Visualization:
    picture = torch.rand(channels, 24, 24, generator=torch.Generator().manual_seed(index))
    whole = Visualization(f"net/mixed4a:{index}", 0, picture, 2.5, 7.25, 2.0, (0.0, 1.0, 2.0), "ok", steps=3)
    return replace(whole, **changes)


def gathered(**changes: Any) -> Spectrum:
    def at(*rows: tuple[int, float]) -> tuple[Example, ...]:
        return tuple(Example(i, f"tensor-{i:06d}", (0, 0), v, (i, i, i + 8, i + 8)) for i, v in rows)

    result = Spectrum(
        "net/mixed4a:0", visualization(0, optimum="negative", peak=-5.0),
        at((0, -3.0), (1, -2.0)), at((2, -0.25)),
        at((3, 0.25), (4, 0.2), (5, 0.15)), at((5, 4.0)),
        visualization(1, peak=9.0), "mixed4a_pre", 0.0, 1.0, "photos", 6,
    )  # fmt: skip
    return replace(result, **changes)


def decomposed_unit(**changes: Any) -> Decomposed:
    norms = torch.tensor([[0.0, 0.5], [1.0, 0.25]])
    grid = ((None, visualization(0)), (visualization(1), visualization(2)))
    return replace(
        Decomposed("net/mixed4a:0", "mixed3b", torch.zeros(4, 2, 2), norms, norms, 2.0, grid, (0, 0)), **changes
    )


def exaggerated(**changes: Any) -> Strip:
    result = Strip(
        PHOTOGRAPHS[0], "car.jpg", ("conv", "mixed3a"), (visualization(0), visualization(1)), (0.5, -0.25), (1.5, 2.0)
    )
    return replace(result, **changes)


def images(figure: Figure) -> list[Any]:
    return list(figure.axes[0].get_images())


FIGURES: dict[str, Callable[[Any], Figure]] = {
    "spectrum": lambda r: plot.spectrum_strip(gathered(negative=r, positive=r), PHOTOGRAPHS, SPEC),
    "decomposed": lambda r: plot.decomposed_grid(decomposed_unit(visualizations=((None, r), (r, r)))),
    "strip": lambda r: plot.strip(exaggerated(visualizations=(r, r))),
}


@pytest.mark.parametrize("name", list(FIGURES))
@pytest.mark.parametrize("status", ["dead", "not finite"])
def test_what_has_no_picture_is_marked_and_never_drawn(name: str, status: str) -> None:
    count = len(images(FIGURES[name](visualization(0))))
    figure = FIGURES[name](visualization(0, status=status, peak=math.nan, response=math.nan))
    marks = texts_of(figure).count(status)
    assert marks >= 2 and len(images(figure)) == count - marks
    assert "nan" not in " ".join(texts_of(figure))


@pytest.mark.parametrize("name", list(FIGURES))
@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_figures_are_saved_and_the_same_each_time(name: str, kind: str, tmp_path: Path) -> None:
    for i in range(2):
        plot.save_figure(FIGURES[name](visualization(0)), tmp_path / f"{i}.{kind}")
    first, second = ((tmp_path / f"{i}.{kind}").read_bytes() for i in range(2))
    assert first == second and len(first) > 1000


@pytest.mark.parametrize("channels", [3, 4])
def test_pictures_with_an_opacity_are_drawn_too(channels: int) -> None:
    for figure in FIGURES.values():
        assert images(figure(visualization(0, channels=channels)))


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    bad = visualization(0, unit=HOSTILE, frames={1: torch.rand(3, 8, 8)})
    for i, figure in enumerate(
        (
            plot.spectrum_strip(gathered(unit=HOSTILE, images=HOSTILE, layer=HOSTILE), PHOTOGRAPHS, SPEC),
            plot.decomposed_grid(decomposed_unit(target=HOSTILE, source=HOSTILE)),
            plot.strip(exaggerated(id=HOSTILE, layers=(HOSTILE, "x"))),
            plot.trajectory_strip(bad),
        )
    ):
        plot.save_figure(figure, tmp_path / f"{i}.svg")


# -- the spectrum -----------------------------------------------------------------------------------------------


def test_a_spectrum_shows_optima_crops_and_values() -> None:
    figure = plot.spectrum_strip(gathered(), PHOTOGRAPHS, SPEC)
    assert len(images(figure)) == 2 + 7
    texts = texts_of(figure)
    assert {"negative optimum", "minimum examples", "slightly negative", "slightly positive"} <= set(texts)
    assert "\N{MINUS SIGN}3 to \N{MINUS SIGN}2" in texts and "4" in texts and "peak 9" in texts
    assert "lowest \N{MINUS SIGN}5" in texts


def test_crops_of_a_spectrum_are_the_receptive_fields() -> None:
    figure = plot.spectrum_strip(gathered(), PHOTOGRAPHS, SPEC)
    crop = plot.pixels(PHOTOGRAPHS[2])[2:10, 2:10]
    drawn = [np.asarray(i.get_array()) for i in images(figure)]
    assert any(d.shape[0] % 8 == 0 and np.array_equal(d[:: len(d) // 8, :: len(d) // 8], crop) for d in drawn)


def test_a_group_without_examples_is_said_to_be_empty() -> None:
    texts = texts_of(plot.spectrum_strip(gathered(slightly_negative=()), PHOTOGRAPHS, SPEC))
    assert "none" in texts and "no value has this sign" in texts


def test_the_spectrum_of_other_photographs_is_refused() -> None:
    with pytest.raises(CircuitsError, match="found on an image 'tensor-000003' at position 3"):
        plot.spectrum_strip(gathered(), PHOTOGRAPHS[:3], SPEC)
    photographs = open_images(PHOTOGRAPHS).subset([1, 0, 2, 3, 4, 5])
    with pytest.raises(CircuitsError, match="give the images that it was found on"):
        plot.spectrum_strip(gathered(), photographs, SPEC)


# -- the others -------------------------------------------------------------------------------------------------


def test_positions_that_count_less_are_fainter() -> None:
    figure = plot.decomposed_grid(decomposed_unit())
    tiles = [np.asarray(i.get_array()) for i in images(figure)]
    opacities = [int(t[0, 0, 3]) for t in tiles if t.shape[2] == 4]
    assert opacities == [128, 255, 64] and len(tiles) == 3 + 2
    assert "·" in texts_of(figure) and "white 0, orange 2" in texts_of(figure)


def test_the_norms_are_drawn_cell_by_cell() -> None:
    figure = plot.decomposed_grid(decomposed_unit())
    maps = [np.asarray(i.get_array()) for i in images(figure) if i.get_array().shape == (2, 2, 3)]
    assert len(maps) == 2
    np.testing.assert_allclose(plot.decode(maps[0], 1.0), decomposed_unit().norms.numpy(), atol=1 / 255)
    assert len(images(plot.decomposed_grid(decomposed_unit(inhibition=True)))) == 3 + 1


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 9), (14, 14)])
def test_a_grid_of_any_shape_fits_its_page(shape: tuple[int, int], tmp_path: Path) -> None:
    ones = torch.ones(shape)
    grid = tuple(tuple(visualization(0) for _ in range(shape[1])) for _ in range(shape[0]))
    figure = plot.decomposed_grid(decomposed_unit(norms=ones, excitation=ones, visualizations=grid))
    width, height = figure.axes[0].get_xlim()[1], figure.axes[0].get_ylim()[0]
    for image in images(figure):
        left, right, bottom, top = image.get_extent()
        assert 0 <= left and right <= width and 0 <= top and bottom <= height


def test_a_strip_shows_the_photograph_and_each_layer() -> None:
    figure = plot.strip(exaggerated())
    assert len(images(figure)) == 3
    assert {"photograph", "car.jpg", "conv", "mixed3a"} <= set(texts_of(figure))
    assert "2 times as much, cosine \N{MINUS SIGN}0.25" in texts_of(figure)


@pytest.mark.parametrize("count", [1, 2, 8, 17])
def test_a_trajectory_shows_every_frame_in_order(count: int, tmp_path: Path) -> None:
    frames = {s: torch.rand(3, 8, 8) for s in reversed(range(count))}
    result = visualization(0, frames=frames, history=tuple(float(i) for i in range(count)))
    figure = plot.trajectory_strip(result, columns=6)
    assert len(images(figure)) == count
    texts = [t for t in texts_of(figure) if t == "start" or t.startswith("step ")]
    assert texts == ["start", *(f"step {i}" for i in range(1, count))]
    plot.save_figure(figure, tmp_path / "trajectory.png")


@pytest.mark.parametrize("history", [(), (1.0,), (2.0, 2.0), (math.nan, math.nan), (0.0, math.inf, 1.0)])
def test_histories_that_are_short_flat_or_not_finite_are_drawn(history: tuple[float, ...], tmp_path: Path) -> None:
    figure = plot.trajectory_strip(visualization(0, frames={1: torch.rand(3, 8, 8)}, history=history))
    plot.save_figure(figure, tmp_path / "trajectory.png")
    assert "nan" not in " ".join(texts_of(figure)) and "inf" not in " ".join(texts_of(figure))


def test_a_result_without_frames_is_refused() -> None:
    with pytest.raises(CircuitsError, match="has no frames"):
        plot.trajectory_strip(visualization(0))
