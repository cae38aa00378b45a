"""Similarity: cosines and correlations against closed forms, planted twins are neighbors, and the null is a null."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import circuits
from circuits.errors import AddressError, CircuitsError
from circuits.units.similarity import (
    by_activations,
    by_tuning,
    by_weights,
    neighbors,
    sample_responses,
    similarity,
    unit_names,
    unit_similarity,
)
from tests import nets


class Twins(nn.Module):
    """Two convolutions; `middle` 1 reads as 0 does, 2 the opposite, 3 is read as 0 is, 4 reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.first_relu = nn.ReLU()
        self.middle_pre = nn.Conv2d(8, 8, 3, padding=1)
        self.middle = nn.ReLU()
        self.last_pre = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.middle(self.middle_pre(self.first_relu(self.first(x))))
        out: torch.Tensor = self.last(self.last_pre(x))
        return out


def twins() -> circuits.Model:
    module = nets.randomized(Twins())
    assert isinstance(module, Twins)
    with torch.no_grad():
        read, written = module.middle_pre.weight, module.last_pre.weight
        read[1], read[2], read[4] = 2.0 * read[0], -read[0], 0.0
        module.middle_pre.bias.zero_()
        written[:, 3] = 0.5 * written[:, 0]
    return nets.wrap(module)


@pytest.mark.parametrize("centered", [False, True])
def test_similarity_is_numpys(centered: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 40)) + 1, rng.normal(size=(7, 40))
    found = similarity(a, b, centered=centered)
    if centered:
        expected = np.corrcoef(a, b)[:5, 5:]
    else:
        expected = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(similarity(a).diagonal(), 1, atol=1e-6)


def test_what_does_not_vary_is_like_nothing() -> None:
    rows = np.array([[1.0, 1, 1, 1], [1, 2, 3, 4], [0.1, 0.1, 0.1, 0.1]])
    np.testing.assert_allclose(similarity(rows, centered=True), [[0, 0, 0], [0, 1, 0], [0, 0, 0]], atol=1e-6)
    assert similarity(np.array([[0.0, 0], [1, 0]])).tolist() == [[0, 0], [0, 1]]


def test_small_differences_on_a_large_offset_count() -> None:
    """In float32 a correlation around a mean of a thousand would be rounding."""
    rng = np.random.default_rng(0)
    small = rng.normal(size=(2, 500))
    np.testing.assert_allclose(similarity(small * 1e-2 + 1e4, centered=True), np.corrcoef(small), atol=1e-4)


@pytest.mark.parametrize("bad", [np.zeros(4), np.zeros((0, 3)), np.array([[np.nan, 1.0], [1, 2]])])
def test_rows_that_are_none_are_refused(bad: Any) -> None:
    with pytest.raises(CircuitsError):
        similarity(bad)


def test_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(CircuitsError, match="rows of 3 numbers"):
        similarity(np.ones((2, 3)), np.ones((2, 4)))


def test_a_twin_by_incoming_weights_is_the_nearest_and_its_opposite_the_farthest() -> None:
    found = by_weights(twins(), "middle")
    near = found.neighbors("middle:0", 7)
    assert near.rows[0][0] == "model/middle:1" and near.rows[0][1] == pytest.approx(1, abs=1e-5)
    assert near.rows[-1][0] == "model/middle:2" and near.rows[-1][1] == pytest.approx(-1, abs=1e-5)
    assert near.count == 7 and not near.silent and near.rows[1][1] <= near.chance <= 1
    assert all(unit != "model/middle:0" for unit, _ in near.rows)
    assert found.neighbors("middle:4").silent and not found.matrix[4].any()


def test_a_twin_by_outgoing_weights_is_another() -> None:
    near = neighbors(twins(), "middle:0", by="outgoing", n=1)
    assert near.rows[0][0] == "model/middle:3" and near.rows[0][1] == pytest.approx(1, abs=1e-5)
    assert near.measure == "outgoing weights into last"


def test_a_twin_by_activations_is_the_one_that_reads_alike() -> None:
    images = nets.pictures(8)
    near = neighbors(twins(), "model/middle:0", by="activations", n=2, images=images)
    assert near.rows[0][0] == "model/middle:1" and near.rows[0][1] == pytest.approx(1, abs=1e-5)
    assert near.rows[1][1] < 0.9 and near.measure == "responses at 128 positions of 8 images"


def test_tuning_is_correlated_over_all_of_its_axes() -> None:
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    responses = np.stack([np.cos(angles - at)[:, None] * [1.0, 2.0] for at in (0.0, 0.5, np.pi)])
    units = ["net/a:0", "net/a:1", "net/a:2"]
    found = by_tuning(responses, units)
    assert found.matrix[0, 1] == pytest.approx(np.cos(0.5), abs=1e-6)
    assert found.matrix[0, 2] == pytest.approx(-1, abs=1e-6)
    same = by_tuning(SimpleNamespace(responses=torch.from_numpy(responses), units=tuple(units)))
    np.testing.assert_array_equal(same.matrix, found.matrix)
    with pytest.raises(CircuitsError, match="units="):
        by_tuning(responses)
    with pytest.raises(CircuitsError, match="one row for each of 2"):
        by_tuning(responses, units[:2])


def test_chance_is_the_99th_percentile_of_pairs() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(900, 60))
    found = unit_similarity(rows, [f"n/l:{i}" for i in range(900)], measure="noise", centered=False)
    pairs = found.matrix[np.triu_indices(900, 1)]
    # more pairs than are all taken: drawn from the seed, near the percentile of all
    assert found.chance == pytest.approx(np.percentile(pairs, 99), abs=0.01)
    assert np.mean(pairs > found.chance) == pytest.approx(0.01, abs=0.002)


def test_neighbors_are_the_sorted_row_of_the_matrix() -> None:
    rng = np.random.default_rng(0)
    found = unit_similarity(rng.normal(size=(50, 8)), [f"n/l:{i}" for i in range(50)], measure="noise", centered=False)
    near = found.neighbors("l:7", 49)
    expected = sorted((float(v) for i, v in enumerate(found.matrix[7]) if i != 7), reverse=True)
    assert [value for _, value in near.rows] == expected and len({unit for unit, _ in near.rows}) == 49
    assert found.neighbors(7, 3).rows == near.rows[:3]


def test_a_branch_is_compared_under_the_blocks_addresses(inception: circuits.Model) -> None:
    assert unit_names(inception, "mixed3b_5x5") == tuple(f"model/mixed3b:{i}" for i in range(6, 10))
    found = by_weights(inception, "mixed3b_5x5")
    whole = by_weights(inception, "mixed3b")
    np.testing.assert_allclose(found.matrix, whole.matrix[6:10, 6:10], atol=1e-6)
    out = by_weights(inception, "mixed3b_5x5", direction="outgoing")
    np.testing.assert_allclose(
        out.matrix, by_weights(inception, "mixed3b", direction="outgoing").matrix[6:10, 6:10], atol=1e-6
    )


def test_latents_have_neighbors_too() -> None:
    """Latents that read and write single channels are as alike as those channels are."""
    model = twins()
    chosen = [0, 1, 2, 5]
    directions = torch.eye(8)[chosen]
    model.attach("middle", "some", circuits.Directions(directions, directions))
    for direction in ("incoming", "outgoing"):
        plain = by_weights(model, "middle", direction=direction).matrix  # type: ignore[arg-type]
        latents = by_weights(model, "middle~some", direction=direction)  # type: ignore[arg-type]
        np.testing.assert_allclose(latents.matrix, plain[np.ix_(chosen, chosen)], atol=1e-6)
    assert latents.units[3] == "model/middle~some:3"
    images = nets.pictures(4)
    np.testing.assert_allclose(
        by_activations(model, "middle~some", images).matrix,
        by_activations(model, "middle", images).matrix[np.ix_(chosen, chosen)],
        atol=1e-6,
    )
    assert neighbors(model, "middle~some:0", n=1).rows[0][0] == "model/middle~some:1"


def test_samples_are_the_activations_at_cells_nearest_to_the_places(inception: circuits.Model) -> None:
    images = nets.pictures(3, 64)
    found = sample_responses(inception, images, ["mixed3b", "mixed3b_5x5"], positions=5, seed=4)
    acts = circuits.capture(inception, images, "mixed3b")["mixed3b"]
    layer = inception.layers["mixed3b"]
    assert layer.receptive_field is not None
    places = np.random.default_rng(4).random((3, 5, 2))
    for picture in range(3):
        for p in range(5):
            cells = []
            for axis in range(2):
                field = layer.receptive_field
                centers = [
                    field.offset[axis] + i * field.stride[axis] + field.size[axis] / 2 for i in range(acts.shape[2])
                ]
                cells.append(int(np.argmin(np.abs(np.array(centers) - places[picture, p, axis] * 64))))
            expected = acts[picture, :, cells[0], cells[1]].numpy()
            np.testing.assert_allclose(found["mixed3b"][picture * 5 + p], expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found["mixed3b_5x5"], found["mixed3b"][:, 6:10])


def test_samples_do_not_depend_on_the_batch_and_follow_the_seed(inception: circuits.Model) -> None:
    images = nets.pictures(5, 64)
    a = sample_responses(inception, images, ["mixed3a"], batch_size=5)["mixed3a"]
    np.testing.assert_allclose(sample_responses(inception, images, ["mixed3a"], batch_size=2)["mixed3a"], a, atol=1e-5)
    assert not np.array_equal(sample_responses(inception, images, ["mixed3a"], seed=1)["mixed3a"], a)


def test_class_scores_and_nets_without_a_graph_have_samples(inception: circuits.Model) -> None:
    scores = sample_responses(inception, nets.pictures(3, 64), ["softmax_pre"], positions=2)["softmax_pre"]
    assert scores.shape == (6, 5)
    np.testing.assert_array_equal(scores[0], scores[1])
    opaque = nets.wrap(nets.Undecided(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())))
    assert sample_responses(opaque, nets.pictures(2), ["inner.1"])["inner.1"].shape == (32, 4)


def test_nothing_of_the_model_is_changed(unchanged: list[circuits.Model]) -> None:
    model = twins()
    unchanged.append(model)
    neighbors(model, "middle:0", by="activations", images=nets.pictures(2))
    neighbors(model, "middle:0", by="outgoing")


def test_bad_questions_get_an_answer(planted: circuits.Model) -> None:
    with pytest.raises(CircuitsError, match="reads the image itself"):
        by_weights(planted, "edges")
    with pytest.raises(CircuitsError, match="none after it"):
        by_weights(planted, "logits", direction="outgoing")
    with pytest.raises(CircuitsError, match="need images"):
        neighbors(planted, "parts:0", by="activations")
    with pytest.raises(CircuitsError, match="by='color'"):
        neighbors(planted, "parts:0", by="color")  # type: ignore[arg-type]
    with pytest.raises(CircuitsError, match="direction="):
        by_weights(planted, "parts", direction="sideways")  # type: ignore[arg-type]
    with pytest.raises(AddressError, match="is a layer"):
        neighbors(planted, "parts")
    with pytest.raises(AddressError, match="not among"):
        by_weights(planted, "parts").neighbors("objects:0")
    with pytest.raises(AddressError, match="24 units here"):
        by_weights(planted, "parts").neighbors(24)
    with pytest.raises(CircuitsError, match="at least one neighbor"):
        by_weights(planted, "parts").neighbors(0, 0)
    with pytest.raises(CircuitsError, match="at least one position"):
        sample_responses(planted, nets.clutter(2), ["parts"], positions=0)
    with pytest.raises(AddressError, match="not one unit"):
        by_weights(planted, "parts:3")


def test_describe_is_ready_for_json() -> None:
    import json

    document = neighbors(twins(), "middle:0", n=2).describe()
    assert json.loads(json.dumps(document))["rows"][0]["above_chance"] in (True, False)


def test_the_figure_shows_neighbors_with_and_without_pictures() -> None:
    from circuits.plot.units.comparison import neighbors_table

    near = neighbors(twins(), "middle:0", n=7)
    figure = neighbors_table(near)
    said = [t.get_text() for t in figure.axes[0].texts]
    assert "Units similar to middle:0" in said and sum(t.startswith("middle:") for t in said) == 7
    assert any(t.startswith("1 pair in 100 reaches") for t in said)
    shown = neighbors_table(near, {near.rows[0][0]: [np.zeros((8, 8, 3), np.uint8)]})
    assert len(shown.axes[0].get_images()) == 1
    silent = neighbors_table(neighbors(twins(), "middle:4", n=3))
    assert any("nothing to compare" in t.get_text() for t in silent.axes[0].texts)


def test_neighbors_in_googlenet_by_weights_are_above_chance(weights_dir: Path) -> None:
    model = circuits.load("googlenet-bvlc")
    found = by_weights(model, "mixed4c")
    best = [found.neighbors(i, 1).rows[0][1] for i in range(512)]
    assert found.matrix.shape == (512, 512) and np.median(best) > 0.3
