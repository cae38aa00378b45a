"""Finding: the AUC is scikit-learn's, its interval is honest, and a planted unit is found."""

from __future__ import annotations

import pytest
import torch

import circuits
from circuits.common.statistics import auc, bootstrap
from circuits.errors import AddressError, CircuitsError, ImageError
from circuits.network.responses import pooled_responses
from tests import nets


def window_sides(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with a blue patch somewhere, and noise with a red, green or striped one."""
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(2 * n, 3, 32, 32, generator=generator) * 0.2
    for i in range(2 * n):
        y, x = torch.randint(4, 24, (2,), generator=generator).tolist()
        patch = torch.zeros(3, 4, 4)
        if i < n:
            patch[2] = 1
        elif i % 3 == 2:
            patch[:, :, ::2] = 1
        else:
            patch[i % 3] = 1
        images[i, :, y : y + 4, x : x + 4] = patch
    return images[:n], images[n:]


def test_a_planted_unit_is_found(planted: circuits.Model) -> None:
    positive, negative = window_sides()
    hits = circuits.find(planted, positive=positive, negative=negative, layer="parts")
    assert hits.best.unit == f"planted/parts:{nets.WINDOW}"
    assert hits.best.auc == 1.0 and hits.best.mean_positive > hits.best.mean_negative
    assert hits.best.low == hits.best.high == 1.0
    assert len(hits.rows) == nets.PARTS and hits.layers == ("parts",)
    assert (hits.n_positive, hits.n_negative) == (12, 12)


def test_rows_are_sorted_and_only_the_best_have_intervals(planted: circuits.Model) -> None:
    positive, negative = window_sides()
    hits = circuits.find(planted, positive=positive, negative=negative, layer="parts", intervals=3)
    areas = [r.chosen_auc or 0.0 for r in hits.rows]
    assert areas == sorted(areas, reverse=True)
    assert [r.low is not None for r in hits.rows] == [True] * 3 + [False] * (nets.PARTS - 3)
    for row in hits.rows[:3]:
        assert row.low is not None and row.high is not None and row.low <= row.auc <= row.high
    none = circuits.find(planted, positive=positive, negative=negative, layer="parts", intervals=0)
    assert none.rows[0].low is None and none.rows[0].auc == hits.rows[0].auc


def test_many_layers_are_looked_at_in_one_go_and_by_default_the_trunk(planted: circuits.Model) -> None:
    positive, negative = window_sides()
    hits = circuits.find(planted, positive=positive, negative=negative)
    assert hits.layers == tuple(planted.trunk)
    assert len(hits.rows) == sum(planted.layers[n].channels for n in planted.trunk)
    two = circuits.find(planted, positive=positive, negative=negative, layers=["edges", "parts"])
    assert two.layers == ("edges", "parts")
    assert {r.unit for r in two.rows if r.auc == 1.0} >= {f"planted/edges:{nets.BLUE}", f"planted/parts:{nets.WINDOW}"}


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_units_are_ranked_by_their_maximum_or_mean(planted: circuits.Model, pool: str) -> None:
    positive, negative = window_sides()
    hits = circuits.find(planted, positive=positive, negative=negative, layer="parts", pool=pool)  # type: ignore[arg-type]
    acts = {side: circuits.capture(planted, x, "parts")["parts"] for side, x in (("p", positive), ("n", negative))}
    pooled = {k: a.amax(dim=(2, 3)) if pool == "max" else a.mean(dim=(2, 3)) for k, a in acts.items()}
    for row in hits.rows:
        index = int(row.unit.rpartition(":")[2])
        assert row.mean_positive == pytest.approx(float(pooled["p"][:, index].mean()), rel=1e-4, abs=1e-7)
        assert row.pool == pool
    order = torch.randperm(len(positive), generator=torch.Generator().manual_seed(0))
    for half, areas in ((order[:6], [r.chosen_auc for r in hits.rows]), (order[6:], [r.auc for r in hits.rows])):
        torch.testing.assert_close(
            torch.tensor(areas).sort().values, auc(pooled["p"][half], pooled["n"][half]).sort().values
        )


def test_the_best_of_many_units_owes_nothing_to_the_choice() -> None:
    """Of 400 units that know nothing the best seems to know much on the images that rank, and nothing on the others."""
    conv = torch.nn.Conv2d(3, 400, 5, bias=False)
    torch.nn.init.normal_(conv.weight, generator=torch.Generator().manual_seed(0))
    model = circuits.wrap(torch.nn.Sequential(conv, torch.nn.ReLU()).eval(), circuits.InputSpec(size=8), name="noise")
    images = torch.rand(80, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    best = circuits.find(model, positive=images[:40], negative=images[40:], layer="1").best
    assert best.chosen_auc is not None and best.chosen_auc > 0.7
    assert best.low is not None and best.low < 0.5 and abs(best.auc - 0.5) < 0.2


def test_the_top_images_are_those_that_activate_the_unit_most(planted: circuits.Model) -> None:
    positive, negative = window_sides()
    best = circuits.find(planted, positive=positive, negative=negative, layer="parts", intervals=1).best
    assert [t.positive for t in best.top] == [True] * 6 + [False] * 4, "six images of either side do not rank"
    values = [t.value for t in best.top]
    assert values == sorted(values, reverse=True)
    index = int(best.unit.rpartition(":")[2])
    peaks = circuits.capture(planted, positive, "parts")["parts"][:, index].amax(dim=(1, 2))
    order = torch.randperm(len(positive), generator=torch.Generator().manual_seed(0))[6:]
    assert best.top[0].value == pytest.approx(float(peaks[order].max()))
    assert peaks[int(best.top[0].image.removeprefix("tensor-"))] == peaks[order].max()


def test_shuffled_labels_give_a_control_below_a_real_finding(planted: circuits.Model) -> None:
    positive, negative = window_sides(24)
    hits = circuits.find(planted, positive=positive, negative=negative, layer="parts")
    assert 0.5 <= hits.chance < 0.85 < hits.best.auc
    same = circuits.find(planted, positive=positive, negative=positive, layer="parts")
    assert all(r.auc == 0.5 for r in same.rows)


def test_a_branch_is_ranked_under_the_blocks_addresses(inception: circuits.Model) -> None:
    hits = circuits.find(
        inception, positive=nets.pictures(3, 64), negative=nets.pictures(3, 64, seed=1), layer="mixed3b_5x5"
    )
    assert {r.unit for r in hits.rows} == {f"model/mixed3b:{i}" for i in range(6, 10)}


def test_pooled_responses_do_not_depend_on_the_batch(planted: circuits.Model) -> None:
    images = nets.clutter(7)
    a = pooled_responses(planted, images, ["parts"], batch_size=7)["parts"]
    torch.testing.assert_close(pooled_responses(planted, images, ["parts"], batch_size=2)["parts"], a)


def test_ties_count_half() -> None:
    x, y = torch.tensor([[1.0], [1.0], [0.0]]), torch.tensor([[1.0], [0.0]])
    # of six pairs: 1>0 twice right, 1=1 twice and 0=0 once half, 0<1 wrong
    assert float(auc(x, y)) == pytest.approx((2 + 3 * 0.5) / 6)
    assert float(auc(torch.zeros(4, 1), torch.zeros(5, 1))) == 0.5


def test_the_bootstrap_covers_the_true_area_about_as_often_as_it_says() -> None:
    """Two unit normals a distance of one apart have an AUC of Phi(1 / sqrt 2) = 0.760."""
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(60):
        x, y = torch.randn(40, 1, generator=generator) + 1, torch.randn(40, 1, generator=generator)
        low, high = bootstrap(x, y, draws=100, generator=generator)
        assert low <= auc(x, y) <= high
        inside += bool(low <= 0.7602 <= high)
    assert inside >= 50


def test_a_side_without_pictures_and_bad_options_are_refused(planted: circuits.Model) -> None:
    images = nets.clutter(2)
    with pytest.raises(CircuitsError, match="find needs positive images"):
        circuits.find(planted, positive=None, negative=images)
    with pytest.raises(ImageError, match="empty"):
        circuits.find(planted, positive=images, negative=[])
    with pytest.raises(CircuitsError, match="there is no positive image"):
        circuits.find(planted, positive=circuits_images().subset([]), negative=images)
    with pytest.raises(CircuitsError, match="there is one negative image"):
        circuits.find(planted, positive=images, negative=images[:1])
    with pytest.raises(CircuitsError, match="use 'max' or 'mean'"):
        circuits.find(planted, positive=images, negative=images, pool="median")  # type: ignore[arg-type]
    with pytest.raises(CircuitsError, match="at least one layer"):
        circuits.find(planted, positive=images, negative=images, layers=[])
    with pytest.raises(AddressError, match="no layer"):
        circuits.find(planted, positive=images, negative=images, layer="nowhere")


def circuits_images():  # type: ignore[no-untyped-def]
    from zoo.images.sources import open_images

    return open_images(nets.clutter(2))


def test_chance_is_the_best_that_any_unit_reaches_on_labels_that_say_nothing() -> None:
    torch.manual_seed(0)
    model = nets.wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 200, 3)), 8)
    images = torch.rand(40, 3, 8, 8)
    hits = circuits.find(model, positive=images[:20], negative=images[20:], layer="0", seed=0)
    # of 200 units on 10 and 10 images: a single unit has .5 +- .13, the best of them far more
    assert 0.65 < hits.chance < 1.0
