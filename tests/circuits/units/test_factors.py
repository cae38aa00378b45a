"""Factors of weights: planted groups come back, their places are signed, and shuffled weights tell less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import circuits
from circuits.attribution.expanded_weights import expanded_weights
from circuits.errors import CircuitsError
from circuits.units.similarity import similarity, unit_similarity
from circuits.units.weight_factors import Factors, align, equivariance, families, one_sided_nmf
from tests import nets


def planted_kernels(seed: int = 0, targets: int = 6, sources: int = 40) -> tuple[Any, Any, Any]:
    """High- and low-frequency channels, each group with a signed place of its own, mirror-negative as published."""
    rng = np.random.default_rng(seed)
    channels = np.zeros((2, sources))
    channels[0, :12] = rng.uniform(0.5, 2, 12)
    channels[1, 12:30] = rng.uniform(0.2, 1, 18)
    side = rng.normal(size=(targets, 5, 5))
    spatial = np.stack([side + 0.3 * rng.normal(size=side.shape), -side + 0.3 * rng.normal(size=side.shape)])
    return np.einsum("ktij,ks->tsij", spatial, channels), channels, spatial


def cosine(a: Any, b: Any) -> float:
    a, b = np.ravel(a), np.ravel(b)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def matched(found: Factors, channels: Any) -> list[int]:
    return [int(np.argmax([cosine(f, c) for f in found.channels])) for c in channels]


def test_a_planted_pair_of_groups_is_recovered() -> None:
    kernels, channels, spatial = planted_kernels()
    found = one_sided_nmf(kernels, 2, shuffles=2)
    order = matched(found, channels)
    assert sorted(order) == [0, 1]
    for k, i in enumerate(order):
        assert cosine(found.channels[i], channels[k]) > 0.99
        assert cosine(found.spatial[i], spatial[k]) > 0.99
    assert (found.channels >= 0).all() and (found.spatial < 0).any() and (found.spatial > 0).any()
    assert found.explained > 0.99 and found.settled
    assert {unit for unit, _ in found.top(order[0], 12)} == {str(i) for i in range(12)}


def test_the_parts_that_are_lost_without_each_factor_add_up_for_disjoint_groups() -> None:
    kernels, _, _ = planted_kernels()
    found = one_sided_nmf(kernels, 2, shuffles=0)
    assert sum(found.each) == pytest.approx(found.explained, abs=1e-3)
    assert list(found.each) == sorted(found.each, reverse=True)


def test_shuffled_channels_tell_less_and_noise_no_more_than_its_shuffles() -> None:
    kernels, _, _ = planted_kernels()
    found = one_sided_nmf(kernels, 2, shuffles=4)
    assert len(found.shuffled) == 4 and max(found.shuffled) < 0.6 < found.explained
    noise = one_sided_nmf(np.random.default_rng(1).normal(size=(3, 30, 3, 3)), 2, shuffles=4)
    assert abs(noise.explained - np.mean(noise.shuffled)) < 0.05


def test_the_explained_share_is_that_of_the_reconstruction() -> None:
    kernels = np.random.default_rng(2).normal(size=(2, 9, 3, 3))
    found = one_sided_nmf(kernels, 4, shuffles=0)
    told = np.einsum("ktij,ks->tsij", found.spatial, found.channels)
    assert found.explained == pytest.approx(1 - ((kernels - told) ** 2).sum() / (kernels**2).sum())
    np.testing.assert_allclose(np.linalg.norm(found.channels, axis=1), 1)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_the_size_of_the_weights_changes_nothing_but_the_spatial_factor(scale: float) -> None:
    kernels, _, _ = planted_kernels()
    one, other = one_sided_nmf(kernels, 2, shuffles=1), one_sided_nmf(kernels * scale, 2, shuffles=1)
    np.testing.assert_allclose(other.channels, one.channels, atol=1e-6)
    np.testing.assert_allclose(other.spatial, one.spatial * scale, atol=1e-5 * scale)
    assert other.explained == pytest.approx(one.explained, abs=1e-6)


def test_one_factor_for_every_source_tells_everything() -> None:
    kernels = np.random.default_rng(3).normal(size=(4, 3, 3, 3))
    # posneg-stacked one-hot channels are an exact solution; the solver comes close to it
    assert one_sided_nmf(kernels, 3, shuffles=0, iterations=5000).explained > 0.98


def test_the_same_seed_gives_the_same_factors() -> None:
    kernels = np.random.default_rng(4).normal(size=(3, 20, 3, 3))
    a, b = one_sided_nmf(kernels, 3, seed=5), one_sided_nmf(kernels, 3, seed=5)
    np.testing.assert_array_equal(a.channels, b.channels)
    assert a.shuffled == b.shuffled and a.describe() == b.describe()


def test_aligned_factors_keep_their_place_across_units() -> None:
    """Each unit weighs the two groups differently, so by strength alone the order would change from unit to unit."""
    _, channels, _ = planted_kernels()
    rng = np.random.default_rng(7)
    units = []
    for strong in (0, 1, 0, 1):
        spatial = (
            rng.normal(size=(2, 1, 5, 5)) * np.array([2.0, 0.5] if strong == 0 else [0.5, 2.0])[:, None, None, None]
        )
        units.append(one_sided_nmf(np.einsum("ktij,ks->tsij", spatial, channels), 2, shuffles=0))
    assert [matched(u, channels)[0] for u in units] == [0, 1, 0, 1]
    assert [matched(u, channels)[0] for u in align(units)] == [0, 0, 0, 0]
    reference = units[1]
    assert [matched(u, channels)[0] for u in align(units, reference)] == [1, 1, 1, 1]
    assert align(units)[1].each == units[1].each[::-1]


def test_factors_beyond_the_references_come_last() -> None:
    kernels, channels, _ = planted_kernels()
    two = one_sided_nmf(kernels, 2, shuffles=0)
    three = one_sided_nmf(kernels + 0.3 * np.random.default_rng(0).normal(size=kernels.shape), 3, shuffles=0)
    placed = align([three], two)[0]
    for k in range(2):
        assert cosine(placed.channels[k], two.channels[k]) > 0.9


def test_factors_of_a_model_have_addresses(inception: circuits.Model) -> None:
    weights = circuits.expanded_weights(inception, source="mixed3a", target=["mixed3b:6", "mixed3b:7"])
    found = one_sided_nmf(weights, 2)
    assert found.targets == ("mixed3b:6", "mixed3b:7") and found.sources[3] == "mixed3a:3"
    document = found.describe(3)
    assert document["factors"][0]["sources"][0]["unit"].startswith("mixed3a:")
    assert np.asarray(document["factors"][0]["spatial"]).shape == found.spatial.shape[1:]


def test_latents_can_be_sources_and_targets(planted: circuits.Model) -> None:
    """A basis whose latent writes one part and reads another: its weights are those of the parts."""
    model = nets.planted()
    write = torch.zeros(2, nets.PARTS)
    write[0, nets.WINDOW], write[1, nets.WHEEL] = 2.0, 1.0
    model.attach("parts", "own", circuits.Directions(write, write))
    found = expanded_weights(model, source="parts~own", target="objects:0")
    plain = circuits.expanded_weights(model, source="parts", target="objects:0")
    torch.testing.assert_close(found.kernels[0, 0], 2 * plain.kernels[0, nets.WINDOW])
    factored = one_sided_nmf(found, 2, shuffles=0)
    assert factored.sources == ("parts~own:0", "parts~own:1") and factored.explained > 0.99


def test_the_planted_cars_parts_are_its_factors(planted: circuits.Model) -> None:
    kernels = circuits.expanded_weights(planted, source="parts", target=f"objects:{nets.CAR}")
    found = one_sided_nmf(kernels, 4, shuffles=3)
    place = {found.top(k, 1)[0][0]: found.spatial[k, 0] for k in range(4)}
    assert set(place) == {f"parts:{i}" for i in (nets.WINDOW, nets.BODY, nets.WHEEL, nets.TREE)}
    for part in (nets.WINDOW, nets.BODY, nets.WHEEL, nets.TREE):
        assert cosine(place[f"parts:{part}"], kernels.kernels[0, part].detach().numpy()) > 0.99
    assert found.explained > 0.99 and max(found.shuffled) < 0.9


@pytest.mark.parametrize(
    ("kernels", "factors", "says"),
    [
        (np.zeros((2, 3, 3, 3)), 1, "all kernels are zero"),
        (np.full((2, 3, 3, 3), np.nan), 1, "not finite"),
        (np.ones((2, 3, 3)), 1, "targets, sources, kh, kw"),
        (np.ones((2, 3, 3, 3)), 0, "ask for 1 to 3"),
        (np.ones((2, 3, 3, 3)), 4, "ask for 1 to 3"),
    ],
)
def test_kernels_that_cannot_be_factored_are_refused(kernels: Any, factors: int, says: str) -> None:
    with pytest.raises(CircuitsError, match=says):
        one_sided_nmf(kernels, factors)


def test_orders_and_references_that_do_not_fit_are_refused() -> None:
    kernels, _, _ = planted_kernels()
    found = one_sided_nmf(kernels, 2, shuffles=0)
    with pytest.raises(CircuitsError, match="names each of 0 to 1 once"):
        found.ordered([0, 0])
    with pytest.raises(CircuitsError, match="the same sources"):
        align([one_sided_nmf(kernels[:, :30], 2, shuffles=0)], found)
    with pytest.raises(CircuitsError, match="no factors to align"):
        align([])


# -- families -----------------------------------------------------------------------------------------


def three_families(seed: int = 0) -> tuple[Any, list[str]]:
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(3, 50))
    sizes = (9, 6, 4)
    rows = np.concatenate([c + 0.3 * rng.normal(size=(n, 50)) for c, n in zip(centers, sizes, strict=True)])
    order = rng.permutation(len(rows))
    kinds = np.repeat([0, 1, 2], sizes)[order]
    return rows[order], [f"net/layer:{i}" for i in range(len(rows))], kinds  # type: ignore[return-value]


@pytest.mark.parametrize("how", [{"count": 3}, {"threshold": 0.5}])
def test_planted_families_are_found(how: dict[str, Any]) -> None:
    rows, units, kinds = three_families()  # type: ignore[misc]
    found = families(unit_similarity(rows, units, measure="planted", centered=False), **how)
    assert [len(m) for m in found.members] == [9, 6, 4]
    for kind, members in enumerate(found.members):
        assert {kinds[int(name.rpartition(":")[2])] for name in members} == {kind}
    assert min(found.within) > 0.8
    assert found.silhouette > 0.5 > max(found.shuffled)
    assert found.of("layer:3") == found.of("net/layer:3") and "net/layer:3" in found.of("layer:3")
    assert found.describe()["families"][0]["units"] == list(found.members[0])


def test_a_family_for_each_unit_and_one_for_all_can_be_had() -> None:
    rows, units, _ = three_families()  # type: ignore[misc]
    likeness = unit_similarity(rows, units, measure="planted", centered=False)
    each = families(likeness, count=len(units))
    assert len(each.members) == len(units) and each.describe()["families"][0]["within"] is None
    assert len(families(likeness, count=1).members) == 1


def test_families_need_a_number_or_a_threshold() -> None:
    rows, units, _ = three_families()  # type: ignore[misc]
    likeness = unit_similarity(rows, units, measure="planted", centered=False)
    for wrong in ({}, {"count": 2, "threshold": 0.1}, {"count": 0}, {"count": 99}, {"threshold": 1.5}):
        with pytest.raises(CircuitsError):
            families(likeness, **wrong)  # type: ignore[arg-type]
    with pytest.raises(CircuitsError, match="no family holds"):
        families(likeness, count=2).of("elsewhere:1")


# -- equivariance -------------------------------------------------------------------------------------


def turned_family(count: int) -> Any:
    """A unit of oriented channels, turned: channel j at angle j, its kernel turned likewise (exact for four)."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(count, 5, 5))
    if count == 4:
        return np.stack([np.rot90(np.roll(first, i, axis=0), i, axes=(1, 2)) for i in range(4)])
    across = np.arange(count)
    return np.stack([np.exp(3 * np.cos(2 * np.pi * (across - i) / count)) for i in range(count)])


@pytest.mark.parametrize("count", [4, 5, 8, 12])
def test_a_turned_family_has_a_circulant_matrix(count: int) -> None:
    rows = turned_family(count)
    matrix = similarity(rows)
    np.testing.assert_allclose(matrix, np.roll(matrix, (1, 1), axis=(0, 1)), atol=1e-6)
    found = equivariance(rows)
    assert found.share == pytest.approx(1, abs=1e-6)
    if count >= 8:
        assert found.p < 0.05 and np.median(found.shuffled) < 0.7


def test_units_that_are_not_turned_are_not_circulant() -> None:
    rows = np.random.default_rng(0).normal(size=(10, 30))
    found = equivariance(rows)
    assert found.share < 0.7 and found.p > 0.05
    with pytest.raises(CircuitsError, match="at least four"):
        equivariance(rows[:3])


# -- figures ------------------------------------------------------------------------------------------


def words(figure: Any) -> list[str]:
    return [t.get_text() for t in figure.axes[0].texts]


def test_the_figure_names_the_sources_and_says_how_much_is_told(tmp_path: Any) -> None:
    from circuits import plot
    from circuits.plot.units.weight_factors import factor_figure

    kernels, _, _ = planted_kernels(targets=3)
    found = one_sided_nmf(kernels, 2, shuffles=1)
    figure = factor_figure(found, n=3, title="$\\frac{ <planted>")
    said = words(figure)
    assert "factor 2" in said and all(unit in said for k in range(2) for unit, _ in found.top(k, 3))
    assert any("100 %" in text and "shuffled" in text for text in said)
    # two blends and two signed maps a target, and the color bar
    assert len(figure.axes[0].get_images()) == 3 * (2 + 2) + 1
    plot.save_figure(figure, tmp_path / "f.png")
    crop = np.zeros((8, 8, 3), np.uint8)
    with_pictures = factor_figure(found, {f"net/x:{found.top(0, 1)[0][0]}": [crop], found.top(1, 1)[0][0]: [crop]}, n=3)
    assert len(with_pictures.axes[0].get_images()) == 14
    with pytest.raises(CircuitsError, match="there are 3 targets"):
        factor_figure(found, targets=[3])


def test_blended_maps_are_white_without_weight_and_the_factors_color_with_full_weight() -> None:
    from circuits.plot.units.weight_factors import blend, color_of_factor

    maps = np.zeros((2, 1, 3))
    maps[0, 0, 1], maps[1, 0, 2] = 2.0, 5.0
    pixels = blend(maps, 2.0)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    for place in (0, 1):
        assert f"#{bytes(pixels[0, place + 1].tolist()).hex().upper()}" == color_of_factor(place)
    assert color_of_factor(8) == color_of_factor(0)
