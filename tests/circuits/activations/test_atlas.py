"""The activation atlas: layout, grid, averages and controls by closed forms; the store whole after any stop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import circuits
from circuits.activations import atlas_builder, atlas_store
from circuits.activations.atlas import Atlas, atlas_settings
from circuits.activations.atlas_builder import activation_atlas
from circuits.activations.atlas_store import load_atlas, save_atlas
from circuits.activations.layout import (
    cell_numbers,
    mean_cosine,
    means_by,
    nearest_from_another,
    shuffled_channels,
    side_by_side,
    square_layout,
    squared,
)
from circuits.activations.vector_sampling import sample_activations
from circuits.attribution.class_scores import ClassScores
from circuits.errors import AddressError, CircuitsError, ImageError
from circuits.plot import save_figure
from circuits.plot.activations.atlas import atlas_figure, atlas_page, example_crops, sizes
from tests import nets
from zoo.images.sources import open_images

FEW: dict[str, Any] = {"grid": 4, "steps": 1, "size": 16, "retries": 0, "least": 2, "batch_size": 4, "controls": False}


def small_atlas(model: circuits.Model, store: Path | None = None, **changes: Any) -> Atlas:
    return activation_atlas(model, "parts", nets.clutter(20), store=store, **{**FEW, **changes})


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return small_atlas(nets.planted(), classes=3, controls=True)


# -- layout -----------------------------------------------------------------------------------------------------


def clouds(n: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three bundles of directions in 12 dimensions, of any length: `(3n, 12)`, and the bundle of each."""
    generator = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(3), n)
    vectors = np.eye(3, 12)[kinds] + 0.05 * generator.standard_normal((3 * n, 12))
    return (vectors * generator.uniform(0.1, 10, (3 * n, 1))).astype(np.float32), kinds


def test_planted_bundles_lie_apart_whatever_their_lengths() -> None:
    vectors, kinds = clouds()
    xy = square_layout(vectors, seed=1)
    assert xy.shape == (90, 2) and xy.min() >= 0 and xy.max() <= 1
    near = nearest_from_another(xy, np.arange(90))
    assert (kinds[near[:, 0]] == kinds[near[:, 1]]).all()


def test_a_layout_is_the_same_each_time_and_the_seed_is_its_own() -> None:
    vectors, _ = clouds(10)
    state = np.random.get_state()[1].copy()  # type: ignore[index]
    np.testing.assert_array_equal(square_layout(vectors, seed=3), square_layout(vectors, seed=3))
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # type: ignore[index]


def test_points_far_out_do_not_take_the_room_of_the_others() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (500, 2)).astype(np.float32)
    points[0] = 1000
    inside = squared(points)
    assert inside.min() == 0 and inside.max() == 1
    assert np.ptp(inside[1:], axis=0).min() > 0.85 and inside[0].tolist() == [1, 1]


@pytest.mark.parametrize("shape", [(8, 1), (9, 2), (12, 40)])
def test_few_points_of_few_dimensions_are_laid_out_too(shape: tuple[int, int]) -> None:
    vectors = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    xy = square_layout(vectors)
    assert xy.shape == (shape[0], 2) and np.isfinite(xy).all()


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        (np.ones((3, 4), np.float32), "at least 8 points"),
        (np.ones((9, 4), np.float32), "same way"),
        (np.zeros((9, 4), np.float32), "no direction"),
        (np.full((9, 4), np.nan, np.float32), "no direction"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(vectors: np.ndarray, says: str) -> None:
    with pytest.raises(CircuitsError, match=says):
        square_layout(vectors)


# -- the grid ---------------------------------------------------------------------------------------------------


def test_every_point_lies_in_exactly_one_cell() -> None:
    xy = np.array([[0, 0], [0.249, 0], [0.25, 0], [1, 1], [0.5, 0.99], [1, 0]], np.float32)
    assert cell_numbers(xy, 4).tolist() == [0, 0, 1, 15, 14, 3]
    many = np.random.default_rng(0).random((400, 2)).astype(np.float32)
    numbers = cell_numbers(many, 7)
    assert np.bincount(numbers, minlength=49).sum() == 400 and numbers.max() < 49
    for bad in (0, 2.5, True, 5000):
        with pytest.raises(CircuitsError, match="from 1 to 1000"):
            cell_numbers(many, bad)  # type: ignore[arg-type]
    with pytest.raises(CircuitsError, match="unit square"):
        cell_numbers(many + 0.5, 4)


def test_averages_are_those_of_the_samples_of_each_cell() -> None:
    values = np.array([[1, 2], [3, 4], [10, 20], [7, 7]], np.float32)
    numbers = np.array([5, 5, 2, 9])
    np.testing.assert_array_equal(means_by(numbers, values, np.array([2, 5, 8])), [[10, 20], [2, 3], [0, 0]])


def test_neighbors_share_an_edge_and_not_a_row_break() -> None:
    # of a 3x3 grid: 0 1 2 / 3 . 5 / . . 8
    pairs = side_by_side(np.array([0, 1, 2, 3, 5, 8]), 3)
    assert sorted(map(tuple, pairs.tolist())) == [(0, 1), (0, 3), (1, 2), (2, 4), (4, 5)]
    assert side_by_side(np.array([4]), 3).shape == (0, 2)


def test_the_nearest_is_of_another_image() -> None:
    xy = np.array([[0, 0], [0.01, 0], [0.02, 0], [0.5, 0], [1, 0]], np.float32)
    pairs = nearest_from_another(xy, np.array([0, 0, 0, 1, 2]))
    assert pairs.tolist() == [[0, 3], [1, 3], [2, 3], [3, 2], [4, 3]]
    assert nearest_from_another(xy, np.zeros(5, np.int64)).shape == (0, 2)


def test_cosines_are_about_the_mean() -> None:
    vectors = np.array([[101, 100], [99, 100], [100, 101], [100, 99]], np.float32)
    assert mean_cosine(vectors, np.array([[0, 1]])) == pytest.approx(-1, abs=1e-6)
    assert mean_cosine(vectors, np.array([[0, 2], [2, 3]])) == pytest.approx(-0.5, abs=1e-6)


def test_shuffling_keeps_every_channel_and_breaks_what_they_share() -> None:
    x = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    mixed = shuffled_channels(np.stack([x, 2 * x], axis=1), np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(mixed[:, 0]), np.sort(x))
    assert abs(np.corrcoef(mixed.T)[0, 1]) < 0.15


# -- sampling ---------------------------------------------------------------------------------------------------


def test_samples_are_the_activations_where_they_say_they_are(planted: circuits.Model) -> None:
    images = nets.clutter(5)
    drawn = sample_activations(planted, "parts", images, per_image=6, margin=3, batch_size=2, seed=5)
    acts = circuits.capture(planted, images, "parts")["parts"]
    for row, i, (y, x) in zip(drawn.acts, drawn.images, drawn.positions, strict=True):
        np.testing.assert_allclose(row, acts[i, :, y, x].numpy(), rtol=1e-5, atol=1e-7)  # of other batches
    assert drawn.positions.min() >= 3 and drawn.positions.max() <= 28
    assert len({(i, y, x) for i, (y, x) in zip(drawn.images, drawn.positions.tolist(), strict=True)}) == len(drawn.acts)
    assert len(drawn.acts) + drawn.silent == 30
    other = sample_activations(planted, "parts", images, per_image=6, margin=3, batch_size=5, seed=5)
    np.testing.assert_array_equal(drawn.positions, other.positions)
    assert not np.array_equal(drawn.positions, sample_activations(planted, "parts", images, per_image=6).positions)


def test_vectors_that_say_nothing_are_left_out_and_counted(planted: circuits.Model) -> None:
    images = torch.zeros(3, 3, 32, 32)
    images[1] = nets.car_picture()
    drawn = sample_activations(planted, "parts", images, per_image=50)
    assert set(drawn.images.tolist()) == {1} and drawn.silent == 150 - len(drawn.acts) > 100
    with pytest.raises(CircuitsError, match="is zero at all of the 6 positions"):
        sample_activations(planted, "parts", torch.zeros(3, 3, 32, 32), per_image=2)


def test_a_layer_without_a_map_has_one_position_per_image(planted: circuits.Model) -> None:
    drawn = sample_activations(planted, "logits", nets.clutter(4), per_image=9)
    assert drawn.positions.tolist() == [[0, 0]] * 4


# -- the atlas --------------------------------------------------------------------------------------------------


def test_cells_hold_the_averages_of_their_samples(atlas: Atlas, planted: circuits.Model) -> None:
    images = nets.clutter(20)
    acts = circuits.capture(planted, images, "parts")["parts"]
    rows = torch.stack([acts[i, :, y, x] for i, (y, x) in zip(atlas.images, atlas.positions, strict=True)])
    assert 0 < len(atlas.cells) < 16 and len(atlas.directions) == len(atlas.cells) == len(atlas.icons)
    for i, cell in enumerate(atlas.cells):
        inside = torch.from_numpy(atlas.numbers == cell.row * 4 + cell.column)
        assert int(inside.sum()) == cell.count >= 2
        torch.testing.assert_close(atlas.directions[i], rows[inside].mean(0))
        scores = (rows[inside].mean(0) - rows.mean(0)) / rows.std(0, correction=0)
        best = scores.nan_to_num(-9).sort(descending=True).values
        assert [s for _, s in cell.units] == pytest.approx(best[: len(cell.units)].tolist(), rel=1e-3)
        assert all(s == pytest.approx(float(scores[int(u.rpartition(":")[2])]), rel=1e-3) for u, s in cell.units)
        assert len(cell.units) == min(6, int((best > 0).sum()))  # none tells a cell by what it says less
        assert len({e.image for e in cell.examples}) == len(cell.examples) >= 1
        assert atlas.at(cell.row, cell.column) is cell
    np.testing.assert_array_equal(cell_numbers(atlas.xy, 4), atlas.numbers)


def test_icons_show_the_whitened_averages(atlas: Atlas, planted: circuits.Model) -> None:
    drawn = sample_activations(planted, "parts", nets.clutter(20))
    torch.testing.assert_close(atlas.icon_directions, drawn.whitening.directions(atlas.directions))
    plain = small_atlas(planted, whiten=False)
    torch.testing.assert_close(plain.icon_directions, torch.nn.functional.normalize(plain.directions, dim=1))
    assert atlas.icons.shape[1:] == (3, 16, 16) and 0 <= float(atlas.icons.min()) <= float(atlas.icons.max()) <= 1


def test_labels_are_what_directions_push_above_the_mean_of_all_cells(atlas: Atlas, planted: circuits.Model) -> None:
    chosen = sorted(np.random.default_rng(0).permutation(20)[:3].tolist())
    scores = ClassScores(planted, "parts")
    pushes = scores.pushes(*scores.begin(nets.clutter(20)[chosen]), atlas.directions)
    for cell, push in zip(atlas.cells, pushes - pushes.mean(0), strict=True):
        assert [n for n, _ in cell.labels] == [f"logits:{k}" for k in push.argsort(descending=True).tolist()]
        assert [p for _, p in cell.labels] == pytest.approx(push.sort(descending=True).values.tolist(), abs=1e-6)
    assert not any(c.labels for c in small_atlas(planted).cells)


def test_neighbors_of_planted_kinds_are_similar_and_have_controls(atlas: Atlas) -> None:
    result = {item.quantity: item for item in atlas.similarity}
    assert result["samples"].neighbors > 0.5 > abs(result["samples"].random)
    assert result["samples"].shuffled is not None and result["samples"].shuffled < result["samples"].neighbors
    assert result["cells"].pairs == len(side_by_side(np.array([c.row * 4 + c.column for c in atlas.cells]), 4))


def test_labels_of_scenes_agree_between_neighbors_more_than_by_chance() -> None:
    result = activation_atlas(circuits.load("scenes"), "mixed4b", "scenes:60", **{**FEW, "least": 3})
    labels = {item.quantity: item for item in result.similarity}["labels"]
    assert labels.neighbors > 3 * labels.random
    assert {n for c in result.cells for n, _ in c.labels} <= set(circuits.load("scenes").classes)


def test_latents_of_a_basis_are_the_units_of_an_atlas_and_cells_are_a_basis() -> None:
    model = nets.planted()
    model.attach("parts", "half", nets.LinearBasis(torch.eye(nets.PARTS)[:7]))
    result = activation_atlas(model, "parts~half", nets.clutter(20), **FEW)
    assert all(u.startswith("planted/parts~half:") for c in result.cells for u, _ in c.units)
    model.attach("parts", "atlas", result.basis())
    assert model.unit(f"parts~atlas:{len(result.cells) - 1}").basis == "atlas"


def test_an_atlas_is_the_same_each_time_and_leaves_the_network_as_it_was() -> None:
    model = nets.planted()
    before = nets.state(model)
    first, second = small_atlas(model, seed=2), small_atlas(model, seed=2)
    assert torch.equal(first.icons, second.icons) and np.array_equal(first.xy, second.xy)
    assert first.describe() == second.describe() and nets.state(model) == before
    assert not np.array_equal(small_atlas(model, seed=3).positions, first.positions)


def test_settings_give_what_their_keywords_give(planted: circuits.Model) -> None:
    options: dict[str, Any] = {**FEW, "transforms": []}
    settings = atlas_settings(None, options)
    assert settings.grid == options["grid"] and settings.icons == {"retries": 0, "transforms": []}
    by_keywords = activation_atlas(planted, "parts", nets.clutter(20), **options)
    by_settings = activation_atlas(planted, "parts", nets.clutter(20), settings=settings)
    assert torch.equal(by_settings.icons, by_keywords.icons) and by_settings.settings == by_keywords.settings


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"layer": "parts:3"}, CircuitsError, "an atlas is of a layer"),
        ({"layer": "nowhere"}, AddressError, "no layer"),
        ({"images": nets.clutter(1)}, CircuitsError, "at least 8 points"),
        ({"images": []}, ImageError, "empty"),
        ({"least": 999}, CircuitsError, "no cell of the 4x4 grid holds 999"),
        ({"grid": 0}, CircuitsError, "grid=0 must be a whole number"),
        ({"steps": 1.5}, CircuitsError, "steps=1.5 must be a whole number"),
        ({"batch_size": 0}, CircuitsError, "batch_size=0 must be a whole number"),
        ({"per_image": 0}, CircuitsError, "per_image"),
        ({"classes": -1}, CircuitsError, "classes=-1 must be a whole number of at least 0"),
        ({"shrinkage": -1}, CircuitsError, "shrinkage=-1 must be .* at most 1"),
        ({"variants": 2}, CircuitsError, "no meaning"),
        ({"perplexty": 5}, CircuitsError, "no option 'perplexty'. Nearest: perplexity"),
        ({"settings": 3}, CircuitsError, "settings= takes a AtlasSettings"),
    ],
)
def test_atlases_that_cannot_be_made_are_refused(
    planted: circuits.Model, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    options: dict[str, Any] = {"layer": "parts", "images": nets.clutter(8), **FEW, **changes}
    with pytest.raises(error, match=says):
        activation_atlas(planted, options.pop("layer"), options.pop("images"), **options)


# -- the store --------------------------------------------------------------------------------------------------


def test_an_atlas_is_read_back_as_it_was(planted: circuits.Model, tmp_path: Path, atlas: Atlas) -> None:
    save_atlas(atlas, tmp_path / "saved")
    for path, item in (
        (tmp_path / "saved", atlas),
        (tmp_path / "made", small_atlas(planted, tmp_path / "made", classes=2)),
    ):
        again = load_atlas(path)
        assert again.describe() == json.loads(json.dumps(item.describe()))
        assert torch.equal(again.icons, item.icons) and torch.equal(again.directions, item.directions)
        assert (
            torch.equal(again.icon_directions, item.icon_directions)
            and again.cells == item.cells
            and again.statuses == item.statuses
        )
        np.testing.assert_array_equal(again.xy, item.xy)
        np.testing.assert_array_equal(again.positions, item.positions)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    planted: circuits.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = small_atlas(planted, tmp_path / "whole")
    assert len(whole.cells) > 4  # more than one batch
    make, calls = atlas_builder.direction_icons, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return make(*arguments, **options)

    monkeypatch.setattr(atlas_builder, "direction_icons", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small_atlas(planted, tmp_path / "stopped")
    partial = load_atlas(tmp_path / "stopped")
    assert partial.statuses.count("missing") == len(whole.cells) - 4
    monkeypatch.setattr(atlas_builder, "sample_activations", lambda *a, **k: pytest.fail("sampled again"))
    again = small_atlas(planted, tmp_path / "stopped")
    assert torch.equal(again.icons, whole.icons) and again.statuses == whole.statuses
    for file in (tmp_path / "whole").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "stopped" / file.name).read_bytes()
    count = len(calls)
    small_atlas(planted, tmp_path / "stopped")
    assert len(calls) == count  # nothing was left to do


@pytest.mark.parametrize("change", [{"steps": 2}, {"seed": 1}, {"grid": 3}, {"shrinkage": 0.5}])
def test_another_atlas_is_not_written_over(planted: circuits.Model, tmp_path: Path, change: dict[str, Any]) -> None:
    small_atlas(planted, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(CircuitsError, match=f"holds an atlas with {next(iter(change))}.*another folder"):
        small_atlas(planted, tmp_path, **change)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_damaged_or_foreign_store_is_refused(planted: circuits.Model, tmp_path: Path) -> None:
    with pytest.raises(CircuitsError, match="holds no atlas"):
        load_atlas(tmp_path)
    small_atlas(planted, tmp_path)
    icons, index = tmp_path / "icons-00000.safetensors", tmp_path / atlas_store.INDEX
    stored = icons.read_bytes()
    icons.write_bytes(stored[:40])
    with pytest.raises(CircuitsError, match="icons-00000.safetensors is damaged"):
        load_atlas(tmp_path)
    icons.unlink()
    assert "missing" in load_atlas(tmp_path).statuses
    data = json.loads(index.read_text())
    for changed, says in (
        ({**data, "schema": 9}, "schema 9"),
        ({**data, "what": "sweep"}, "not an atlas"),
        ({**data, "cells": data["cells"][1:]}, "damaged"),
        ({k: v for k, v in data.items() if k != "settings"}, "damaged"),
    ):
        index.write_text(json.dumps(changed))
        with pytest.raises(CircuitsError, match=says):
            load_atlas(tmp_path)
    index.write_text("{")
    with pytest.raises(CircuitsError, match="no JSON"):
        load_atlas(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CircuitsError, match="is a file"):
        small_atlas(planted, tmp_path / "file")


# -- the picture and the page -----------------------------------------------------------------------------------


def test_the_figure_has_every_cell_at_its_position(atlas: Atlas, tmp_path: Path) -> None:
    figure = atlas_figure(atlas, tile=40, labels=True)
    ok = atlas.statuses.count("ok")
    assert len(figure.axes[0].get_images()) == ok > 0
    even = atlas_figure(atlas, density=False)
    sides = {round(i.get_extent()[1] - i.get_extent()[0], 3) for i in even.axes[0].get_images()}
    assert len(sides) == 1
    for name in ("a", "b"):
        save_figure(atlas_figure(atlas), tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    unfinished = replace(atlas, statuses=("missing",) * len(atlas.cells))
    assert not atlas_figure(unfinished).axes[0].get_images()


def test_cells_with_more_samples_are_larger(atlas: Atlas) -> None:
    scale, counts = sizes(atlas), [c.count for c in atlas.cells]
    assert scale.max() == 1 and scale.min() >= 0.45
    assert [counts[i] for i in np.argsort(scale, kind="stable")] == sorted(counts)


def test_the_page_tells_what_is_in_every_cell_and_fetches_nothing(atlas: Atlas) -> None:
    images = open_images(nets.clutter(20))
    crops = example_crops(atlas, images, nets.planted().input, 2)
    assert all(len(crops[i]) == min(2, len(c.examples)) for i, c in enumerate(atlas.cells))
    cells = (replace(atlas.cells[0], labels=(("<script>alert(1)</script>", 1.0),)), *atlas.cells[1:])
    page = atlas_page(replace(atlas, cells=cells), command="circuits atlas", python="x = 1", photographs=crops)
    assert page.count('class="panel"') == len(cells) and "<script>alert" not in page and "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "") and "shuffled" in page and "circuits atlas" in page
    for cell in cells:
        assert f'id="cell-{cell.row}-{cell.column}"' in page and f"{cell.count} samples" in page
    with pytest.raises(CircuitsError, match="the examples were found on an image"):
        example_crops(atlas, images.subset([0]), nets.planted().input)


@pytest.mark.slow
def test_neighbors_in_an_atlas_of_googlenet_push_the_same_classes(weights_dir: Path, data_dir: Path) -> None:
    model = circuits.load("googlenet-bvlc")
    images = open_images(data_dir / "imagenet-sample", limit=200)
    result = activation_atlas(model, "mixed4c", images, grid=6, steps=1, size=32, controls=False)
    likeness = {item.quantity: item for item in result.similarity}
    assert likeness["classes"].neighbors > 0.2 > likeness["classes"].random + 0.1
