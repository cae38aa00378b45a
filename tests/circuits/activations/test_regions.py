"""One picture taken apart: groups, dictionaries, grids and attributions against closed forms and planted parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import circuits
from circuits.activations.direction_icons import direction_icons
from circuits.activations.neuron_groups import Groups, factors, neuron_groups
from circuits.activations.semantic_dictionary import activation_grid, semantic_dictionary
from circuits.activations.spatial_attribution import check_positions, spatial_attribution
from circuits.activations.whitening import Whitening, measure_whitening
from circuits.attribution.class_scores import ClassScores, chosen_classes
from circuits.errors import AddressError, CircuitsError, VisualizationError
from circuits.plot import save_figure
from circuits.plot.activations.image import (
    attribution_figure,
    dictionary_figure,
    grid_figure,
    groups_figure,
    spatial_figure,
)
from tests import nets
from zoo.images.sources import open_images

CAR = nets.car_picture()


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.axes[0].texts]


# -- whitening --------------------------------------------------------------------------------------------------


def test_whitening_is_the_inverse_of_the_second_moment() -> None:
    second = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    result = Whitening("x", 9, torch.zeros(2), second, shrinkage=0.0).directions(torch.tensor([[1.0, 0.0], [2.0, 5.0]]))
    # the inverse is [[3, -1], [-1, 2]] / 5
    expected = torch.tensor([[3.0, -1.0], [1.0, 8.0]])
    torch.testing.assert_close(result, expected / expected.norm(dim=1, keepdim=True))


def test_shrinkage_draws_the_moment_to_its_mean_level_and_all_of_it_leaves_vectors_as_they_are() -> None:
    second = torch.tensor([[4.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    half = Whitening("x", 9, torch.zeros(2), second, shrinkage=0.5)
    torch.testing.assert_close(half.shrunk, torch.tensor([[3.0, 0.5], [0.5, 1.0]], dtype=torch.float64))
    whole = Whitening("x", 9, torch.zeros(2), second, shrinkage=1.0)
    torch.testing.assert_close(whole.directions(torch.tensor([[3.0, 4.0]])), torch.tensor([[0.6, 0.8]]))


def test_measured_moments_are_those_of_all_positions(planted: circuits.Model) -> None:
    images = nets.clutter(5)
    acts = circuits.capture(planted, images, "parts")["parts"].movedim(1, -1).reshape(-1, nets.PARTS).double()
    result = measure_whitening(planted, "parts", images, batch_size=2)
    assert result.count == len(acts) == 5 * 32 * 32
    torch.testing.assert_close(result.mean, acts.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(result.second, acts.T @ acts / len(acts), rtol=1e-4, atol=1e-6)


def test_a_moment_without_an_inverse_asks_for_shrinkage(planted: circuits.Model) -> None:
    silent = Whitening("x", 9, torch.zeros(2), torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)), 0.0)
    with pytest.raises(CircuitsError, match="shrinkage 0: give more"):
        silent.directions(torch.ones(1, 2))
    with pytest.raises(CircuitsError, match=r"takes vectors \(n, 2\)"):
        silent.directions(torch.ones(1, 3))
    with pytest.raises(CircuitsError, match="at least 0 and at most 1"):
        measure_whitening(planted, "parts", nets.clutter(1), shrinkage=2)


# -- groups -----------------------------------------------------------------------------------------------------


def planted_table(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three groups of channels that share none, each in places of its own and some together: `(60, 9)`, `(3, 9)`."""
    generator = np.random.default_rng(seed)
    directions = np.zeros((3, 9), np.float32)
    for g in range(3):
        directions[g, 3 * g : 3 * g + 3] = generator.uniform(0.3, 1, 3)
    strengths = generator.uniform(0.5, 2, (60, 3)) * (generator.random((60, 3)) < 0.6)
    strengths[:9] = np.eye(3).repeat(3, axis=0)
    return (strengths @ directions).astype(np.float32), directions


def test_planted_groups_are_recovered() -> None:
    table, directions = planted_table()
    strengths, result, explained = factors(table, 3)
    cosines = result @ (directions / np.linalg.norm(directions, axis=1, keepdims=True)).T
    assert (cosines.max(axis=1) > 0.999).all() and len(set(cosines.argmax(axis=1))) == 3
    assert explained > 0.9999
    np.testing.assert_allclose(strengths @ result, table, atol=0.02)
    np.testing.assert_allclose(np.linalg.norm(result, axis=1), 1, rtol=1e-5)
    held = np.square(strengths).sum(axis=0)
    assert list(held) == sorted(held, reverse=True)


def test_a_car_falls_into_the_groups_of_its_parts(planted: circuits.Model) -> None:
    """Channels of the three parts lie where the parts are; each group's map is that of its part."""
    result = neuron_groups(planted, "parts", CAR[None], k=6)
    heaviest = {max(units, key=lambda u: u[1])[0] for units in result.units()}
    assert {f"planted/parts:{c}" for c in (nets.WINDOW, nets.BODY)} <= heaviest
    acts = circuits.capture(planted, CAR[None], "parts")["parts"]
    group = next(g for g, u in enumerate(result.units()) if u[0][0].endswith(f":{nets.WINDOW}"))
    of_part = np.corrcoef(result.maps[group, 0].flatten(), acts[0, nets.WINDOW].flatten())[0, 1]
    assert of_part > 0.9
    assert 0 <= result.shuffled < result.explained <= 1
    assert float(result.maps.min()) >= 0 and float(result.directions.min()) >= 0


def test_what_groups_push_and_what_they_leave_out_is_all_that_is_attributed(planted: circuits.Model) -> None:
    images = nets.clutter(4)
    result = neuron_groups(planted, "parts", images, k=4, classes=[0, 1], batch_size=3)
    for k in (0, 1):
        whole = circuits.attribute(planted, images, source="parts", target=f"logits:{k}", method="grad*act")
        torch.testing.assert_close(result.pushes[:, :, k].sum(0) + result.rest[:, k], whole.values.sum(dim=(1, 2, 3)))
        torch.testing.assert_close(result.scores[:, k], whole.response)
    assert result.pushes.shape == (4, 4, 2) and result.classes == ("planted/logits:0", "planted/logits:1")


def test_a_group_attached_as_a_basis_is_a_unit_like_any_other() -> None:
    model = nets.planted()
    results = neuron_groups(model, "parts", CAR[None], k=3, classes=0)
    model.attach("parts", "groups", results.basis())
    result = circuits.visualize(model, "parts~groups:1", steps=1, retries=0)
    assert result[0].unit == "planted/parts~groups:1"
    assert results.pushes.shape == (3, 1, 0) and results.describe()["classes"] == []


def test_groups_are_the_same_each_time(planted: circuits.Model) -> None:
    first, second = (neuron_groups(planted, "parts", nets.clutter(3), k=5, seed=4) for _ in range(2))
    assert torch.equal(first.maps, second.maps) and torch.equal(first.directions, second.directions)
    assert first.shuffled == second.shuffled


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"k": 0}, "make 1 to 24 groups"),
        ({"k": 25}, "make 1 to 24 groups"),
        ({"layer": "parts_pre"}, "below zero"),
        ({"images": torch.zeros(1, 3, 32, 32), "layer": "parts"}, "is all zero"),
        ({"classes": [2]}, "classes 0 to 1; got 2"),
        ({"classes": ["car"]}, "no class 'car'"),
        ({"classes": -1}, "number of classes"),
    ],
)
def test_groups_that_cannot_be_made_are_refused(planted: circuits.Model, changes: dict[str, Any], says: str) -> None:
    options: dict[str, Any] = {"layer": "parts", "images": CAR[None], "k": 2, **changes}
    with pytest.raises(CircuitsError, match=says):
        neuron_groups(planted, options.pop("layer"), options.pop("images"), **options)


def test_the_classes_with_the_largest_mean_scores_are_chosen_or_those_that_are_named(planted: circuits.Model) -> None:
    images = open_images(nets.clutter(4))
    means = circuits.capture(planted, nets.clutter(4), "logits")["logits"].mean(dim=(0, 2, 3))
    assert chosen_classes(planted, 2, images) == means.argsort(descending=True).tolist()
    scenes = circuits.load("scenes")
    assert chosen_classes(scenes, ["Tree", "3", 0], images) == [scenes.classes.index("tree"), 3, 0]


# -- attribution ------------------------------------------------------------------------------------------------


def test_what_a_direction_pushes_is_the_gradient_along_it(planted: circuits.Model) -> None:
    scores = ClassScores(planted, "parts")
    acts, context = scores.begin(nets.clutter(3))
    values, gradients = scores.gradients(acts, context)
    torch.testing.assert_close(values, planted(nets.clutter(3)))
    directions = torch.rand(4, nets.PARTS, generator=torch.Generator().manual_seed(1))
    units = directions / directions.norm(dim=1, keepdim=True) * acts.norm(dim=1).mean()
    expected = torch.einsum("dc,knchw->dkn", units, gradients).mean(2)
    torch.testing.assert_close(scores.pushes(acts, context, 7 * directions), expected)


def test_a_network_without_a_graph_is_pushed_the_same_way() -> None:
    parts = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(432, 2)]
    inner = nets.sequential(*parts)
    plain, opaque = nets.wrap(inner), nets.wrap(nets.Undecided(inner))
    assert plain.graph is not None and opaque.graph is None
    result = []
    for model, layer in ((plain, "1"), (opaque, "inner.1")):
        scores = ClassScores(model, layer)
        acts, context = scores.begin(nets.pictures(3))
        result.append(scores.pushes(acts, context, torch.eye(4)))
    torch.testing.assert_close(result[0], result[1])


def test_between_layers_that_are_linear_nothing_remains() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1, bias=False))
    with torch.no_grad():
        net[0].weight.abs_()  # whatever was drawn, every unit fires everywhere
        net[0].bias.abs_()
        net[2].weight.abs_()
    model = circuits.wrap(net.eval(), circuits.InputSpec(size=8))
    result = spatial_attribution(model, nets.pictures(1, 8), source="1", target="2", batch_size=7)
    assert result.positions.shape == (8, 8, 8, 8) and result.units.shape == (8, 8, 4)
    torch.testing.assert_close(result.remainder, torch.zeros(8, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.positions.sum(dim=(2, 3)), result.units.sum(2))
    # a 3x3 kernel reaches one place away and no farther
    away = (torch.arange(8)[:, None] - torch.arange(8)).abs()
    outside = (away[:, None, :, None] > 1) | (away[None, :, None, :] > 1)
    assert float(result.positions[outside].abs().max()) == 0 and float(result.positions[4, 4, 3:6, 3:6].min()) > 0


def test_a_car_is_attributed_to_the_positions_of_its_parts(planted: circuits.Model) -> None:
    """The car unit reads windows above and wheels below: its place in `objects` has them from there."""
    result = spatial_attribution(planted, CAR[None], source="parts", target="objects", batch_size=128)
    y, x = nets.CAR_AT
    rows = result.positions[y, x].sum(1)
    assert float(rows[y - 2 : y].sum()) > 0 and float(rows[y + 1 : y + 3].sum()) > 0
    assert int(result.units[y, x].abs().argsort(descending=True)[0]) in (nets.WINDOW, nets.BODY, nets.WHEEL)


def test_attribution_foretells_silencing_exactly_where_all_is_linear() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    model = circuits.wrap(nets.randomized(net).eval(), circuits.InputSpec(size=8))
    image = nets.pictures(1, 8)
    result = circuits.attribute(model, image, source="1", target="4:1", method="grad*act")
    check = check_positions(model, image, result, batch_size=5)
    torch.testing.assert_close(check.drops, result.by_position[0].view_as(check.drops), atol=1e-5, rtol=1e-4)
    assert check.correlation == pytest.approx(1, abs=1e-4) and 0 < check.shuffled < 0.5


def test_other_attributions_cannot_be_checked_by_position(planted: circuits.Model) -> None:
    of_channels = circuits.attribute(planted, CAR[None], source="parts", target="objects:0", method="ablation")
    with pytest.raises(CircuitsError, match="one image, attributed to a layer"):
        check_positions(planted, CAR[None], of_channels)
    with pytest.raises(CircuitsError, match="does not come after"):
        spatial_attribution(planted, CAR[None], source="objects", target="parts")
    with pytest.raises(CircuitsError, match="give one image; .* holds"):
        spatial_attribution(planted, nets.clutter(2), source="parts", target="objects", batch_size=128)


# -- dictionary, icons and grid ---------------------------------------------------------------------------------


def test_a_semantic_dictionary_lists_the_most_active_units_of_a_position(planted: circuits.Model) -> None:
    y, x = nets.CAR_AT[0] - 2, nets.CAR_AT[1]  # in the windows
    result = semantic_dictionary(planted, "parts", CAR, at=(y, x), top=3, steps=0)
    acts = circuits.capture(planted, CAR[None], "parts")["parts"][0]
    values, order = acts[:, y, x].sort(descending=True, stable=True)
    entry = result.entries[0]
    assert entry.units == tuple(f"planted/parts:{i}" for i in order[:3].tolist())
    assert entry.units[0].endswith(f":{nets.WINDOW}")
    assert entry.values == pytest.approx(values[:3].tolist())
    assert entry.typical == pytest.approx(acts.mean(dim=(1, 2))[order[:3]].tolist())
    assert entry.share == pytest.approx(float(values[:3].square().sum() / values.square().sum()), rel=1e-5)


def test_the_default_position_is_the_strongest_and_latents_are_units() -> None:
    model = nets.planted()
    model.attach("parts", "mine", nets.LinearBasis(torch.eye(nets.PARTS).flip(0)))
    acts = circuits.capture(model, CAR[None], "parts")["parts"][0]
    plain = semantic_dictionary(model, "parts", CAR, top=1, steps=0).entries[0]
    y, x = plain.position
    assert float(acts[:, y, x].norm()) == pytest.approx(float(acts.norm(dim=0).max()))
    latent = semantic_dictionary(model, "parts~mine", CAR, top=1, steps=1, retries=0).entries[0]
    assert latent.units[0].startswith("planted/parts~mine:") and latent.values == pytest.approx(plain.values)
    own = int(latent.units[0].rpartition(":")[2])
    assert float(acts[nets.PARTS - 1 - own, y, x]) == pytest.approx(latent.values[0])
    assert latent.icons[0].unit == latent.units[0]


@pytest.mark.parametrize(
    ("layer", "options", "error", "says"),
    [
        ("parts", {"at": (40, 1)}, CircuitsError, "outside the 32x32 map"),
        ("parts", {"at": [(1, 1), (-1, 0)]}, CircuitsError, "outside"),
        ("parts", {"top": 0}, CircuitsError, "top=0 must be a whole number"),
        ("parts:3", {}, CircuitsError, "name a layer"),
        ("nowhere", {}, AddressError, "no layer"),
    ],
)
def test_dictionaries_that_cannot_be_made_are_refused(
    planted: circuits.Model, layer: str, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        semantic_dictionary(planted, layer, CAR, steps=0, **options)


def test_an_icon_raises_its_own_direction_more_than_others_do(planted: circuits.Model) -> None:
    vectors = torch.eye(nets.PARTS)[[nets.WINDOW, nets.BODY, nets.TREE]]
    result = direction_icons(planted, "parts", vectors, steps=40, size=16, cossim_pow=0)
    assert [v.status for v in result] == ["ok"] * 3
    acts = circuits.capture(planted, torch.stack([v.image for v in result]), "parts")["parts"]
    values = acts.mean(dim=(2, 3)) @ vectors.T
    assert values.argmax(dim=0).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("vectors", "options", "says"),
    [
        (torch.zeros(1, nets.PARTS), {}, "direction is zero"),
        (torch.ones(1, 3), {}, "directions of parts are"),
        (torch.ones(0, nets.PARTS), {}, "at least one"),
        (torch.full((1, nets.PARTS), float("nan")), {}, "not finite"),
        (torch.ones(1, nets.PARTS), {"at": "left"}, "at='left': use one of 'center', 'mean'"),
        (torch.ones(1, nets.PARTS), {"variants": 2}, "no meaning"),
    ],
)
def test_icons_that_cannot_be_made_are_refused(
    planted: circuits.Model, vectors: torch.Tensor, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(VisualizationError, match=says):
        direction_icons(planted, "parts", vectors, steps=1, **options)


def test_an_activation_grid_has_an_icon_for_every_nonzero_position(planted: circuits.Model) -> None:
    image = CAR.clone()
    result = activation_grid(planted, "objects", image, pooled=8, steps=1, size=16, retries=0)
    acts = circuits.capture(planted, image[None], "objects")["objects"]
    norms = torch.nn.functional.avg_pool2d(acts, 8)[0].norm(dim=0)
    torch.testing.assert_close(result.norms, norms)
    output = torch.tensor([[icon is not None for icon in row] for row in result.icons])
    assert torch.equal(output, norms > 0)
    assert float(result.scales.max()) == 1 and not result.whitened
    with pytest.raises(CircuitsError, match="pooled=0 must be a whole number"):
        activation_grid(planted, "objects", image, pooled=0)
    with pytest.raises(CircuitsError, match="is all zero"):
        activation_grid(planted, "parts", torch.zeros(3, 32, 32), steps=1)


# -- figures ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def groups() -> Groups:
    return neuron_groups(nets.planted(), "parts", CAR[None], k=3, classes=2, steps=1, size=16, retries=0)


def test_figures_hold_what_they_speak_of_and_are_the_same_each_time(groups: Groups, tmp_path: Any) -> None:
    model = nets.planted()
    values = semantic_dictionary(model, "parts", CAR, at=[(10, 16), (20, 3)], top=2, steps=1, size=16, retries=0)
    result = [circuits.attribute(model, CAR[None], source="parts", target=c, method="grad*act") for c in groups.classes]
    checks = [check_positions(model, CAR, item, draws=20) for item in result]
    flow = spatial_attribution(model, CAR, source="parts", target="objects", batch_size=128)
    grid = activation_grid(model, "objects", CAR, pooled=8, steps=1, size=16, retries=0)

    def drawn() -> list[Figure]:
        return [
            groups_figure(groups, CAR), dictionary_figure(values), grid_figure(grid),
            attribution_figure(result, CAR, names=["a $class$", "<b>"], checks=checks),
            spatial_figure(flow, CAR, [nets.CAR_AT, (0, 0)]),
        ]  # fmt: skip

    figures = drawn()
    assert {"group 0", "group 2"} <= set(texts(figures[0])) and "logits:0" in texts(figures[0])
    assert len(figures[0].axes[0].get_images()) == 3 * 3
    assert any("10,16" in t for t in texts(figures[1]))
    assert any(t.startswith("a $class$") for t in texts(figures[3])) and any("r = " in t for t in texts(figures[3]))
    for i, (first, second) in enumerate(zip(figures, drawn(), strict=True)):
        save_figure(first, tmp_path / f"{i}a.png")
        save_figure(second, tmp_path / f"{i}b.png")
        assert (tmp_path / f"{i}a.png").read_bytes() == (tmp_path / f"{i}b.png").read_bytes()
    with pytest.raises(CircuitsError, match="outside"):
        spatial_figure(flow, CAR, [(99, 0)])


def test_a_figure_of_attributions_on_several_images_is_refused(planted: circuits.Model) -> None:
    result = circuits.attribute(planted, nets.clutter(2), source="parts", target="objects:0")
    with pytest.raises(CircuitsError, match="one image"):
        attribution_figure(result, CAR)
