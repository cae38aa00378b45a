"""Rankings and size curves, against values worked out by hand and by edits of one unit at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits import baselines
from circuits.errors import AddressError, CircuitsError
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.channel_edits import ChannelEdits
from circuits.tracing.baselines import Mean
from circuits.tracing.rankings.learned_mask import learn_mask, soft_choice
from circuits.tracing.rankings.unit_scores import METHODS, unit_scores
from circuits.tracing.target import target_of
from tests import nets
from tests.circuits.tracing.ablation.test_ablation import CHANNELS, DIRECT, POOLED, maps, prepared, target_layer
from tests.nets import BODY, CAR, TREE, WHEEL, WINDOW
from zoo.images.sources import open_images

SHARING = ["gradient", "integrated", "patching"]
"""Methods whose scores are shares of what full ablation takes away, through any operation."""


def shares_by_hand(images: Tensor) -> tuple[circuits.Model, Tensor]:
    """The pooled block and its units' shares: covariance of each contribution with the response, over its variance."""
    model, block, _, _ = prepared("a module")
    source, pooled = maps(block, images, normalize=model.input.normalize)
    with torch.no_grad():
        clean = (block.direct(source) + block.proj(pooled))[:, 0]
    moved = [m - m.mean(dim=(0, 2, 3), keepdim=True) for m in (source, pooled)]
    parts = sum(torch.tensor(w)[None, :, None, None] * m for w, m in zip((DIRECT, POOLED), moved, strict=True))
    deviation = (clean - clean.mean())[:, None]
    shares: Tensor = (deviation * parts).double().sum(dim=(0, 2, 3)) / float((deviation**2).sum())
    return model, shares


@pytest.mark.parametrize("method", SHARING)
def test_shares_of_a_linear_target_are_covariances_and_sum_to_the_whole(method: str) -> None:
    images = nets.pictures(7, 8)
    model, shares = shares_by_hand(images)
    ranking = circuits.rank(
        model, f"{target_layer(model)}:0", images=images, layers="source", method=method, share=1.0, steps=2
    )  # type: ignore[arg-type]
    scores = torch.tensor([ranking.score_of(f"source:{c}") for c in range(CHANNELS)], dtype=torch.float64)
    torch.testing.assert_close(scores, shares, atol=1e-5, rtol=1e-4)
    assert float(shares.sum()) == pytest.approx(1, abs=1e-5)
    assert ranking.clean == {"source": 1.0} and ranking.nothing["source"] == pytest.approx(0, abs=1e-6)
    assert list(ranking.magnitudes) == sorted(ranking.magnitudes, reverse=True)
    assert ranking.top(2) == list(zip(ranking.units[:2], ranking.scores[:2], strict=True))


@pytest.mark.parametrize("stage", [1, 2])
def test_weights_are_expanded_weights_times_activation_minus_baseline(stage: int) -> None:
    """Without a pool, and behind a stage pool, from whose output the kernels start."""
    pool = nn.MaxPool2d(3, 2, 1) if stage == 2 else nn.Identity()
    conv = nn.Conv2d(4, 2, 3, padding=1)
    module = nets.randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), pool, conv, nn.ReLU()))
    model, images = nets.wrap(module, 11), nets.pictures(5, 11)
    with torch.no_grad():
        conv.bias.fill_(3.0)
        pooled = pool(module[1](module[0](model.input.normalize(images))))
        clean = conv(pooled).relu()[:, 0]
        moved = pooled - pooled.mean(dim=(0, 2, 3), keepdim=True)
        nothing = conv(pooled.mean(dim=(0, 2, 3), keepdim=True).expand_as(pooled)).relu()[:, 0]
        weight = (clean - nothing) / float((clean - clean.mean()).pow(2).sum())
        by_unit = [torch.nn.functional.conv2d(moved[:, [c]], conv.weight[:1, [c]], padding=1)[:, 0] for c in range(4)]
    expected = [float((weight * part).sum()) for part in by_unit]
    # what each source position gives the whole map, where the ReLU passes it on
    gate = (clean > 0).float()[:, None]
    squares = [
        (torch.nn.functional.conv_transpose2d(gate, conv.weight[:1, [c]].detach(), padding=1) * moved[:, [c]]).pow(2)
        for c in range(4)
    ]
    spread = float((clean - clean.mean()).pow(2).sum())
    sizes = [float(s.sum() / spread) ** 0.5 for s in squares]
    for address in ("4:0", "4:0@2,3"):
        ablation = Ablation(model, target_of(model, address), ["1"], open_images(images), Mean(), batch_size=2)
        scores = unit_scores(ablation, "weights")["1"].signed
        if address == "4:0":
            assert scores.tolist() == pytest.approx(expected, rel=1e-4)
            assert unit_scores(ablation, "weights")["1"].magnitude.tolist() == pytest.approx(sizes, rel=1e-4)
        else:
            here, none = clean[:, 2, 3], nothing[:, 2, 3]
            single = [(here - none) * part[:, 2, 3] / (here - here.mean()).pow(2).sum() for part in by_unit]
            assert scores.tolist() == pytest.approx([float(s.sum()) for s in single], rel=1e-4)
    with pytest.raises(CircuitsError, match="a function of the output has no kernels"):
        circuits.rank(model, lambda out: out[:, 0].mean(dim=(1, 2)), images=images, layers=["1"], method="weights")


def test_weights_of_a_class_score_go_through_the_global_pool(planted: circuits.Model) -> None:
    images = nets.clutter(12)
    ranking = circuits.rank(planted, "logits:0", images=images, method="weights", share=1.0)
    acts = circuits.capture(planted, images, "objects")["objects"].mean(dim=(2, 3))
    parts = torch.tensor([2.0, -1.0, 0.5]) * (acts - acts.mean(dim=0))
    total = parts.sum(dim=1, keepdim=True)
    expected = (parts * total).sum(dim=0) / total.pow(2).sum()
    assert [ranking.score_of(f"objects:{c}") for c in range(3)] == pytest.approx(expected.tolist(), rel=1e-3)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, str, str]] = {
    "inception": (nets.tiny_inception, 64, "mixed3b", "mixed4a"),
    "functional": (nets.Functional, 16, "relu", "relu_1"),
    "residual, which bypasses": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nets.Residual(4), nets.Residual(4)), 16, "1", "3"
    ),
    "no graph": (lambda: nets.Undecided(nets.Functional()), 16, "inner.b", "inner.c"),
}  # fmt: skip


def network(name: str) -> tuple[circuits.Model, Tensor, str, str]:
    make, size, source, layer = NETWORKS[name]
    model, images = nets.wrap(nets.randomized(make()), size), nets.pictures(5, size)
    acts = circuits.capture(model, images, layer)[layer]
    return model, images, source, f"{layer}:{int(acts.flatten(2).std(dim=2).mean(dim=0).argmax())}"


@pytest.mark.parametrize("name", list(NETWORKS))
def test_patching_is_what_an_edit_of_each_unit_changes(name: str) -> None:
    model, images, source, target = network(name)
    ablation = Ablation(model, target_of(model, target), [source], open_images(images), Mean(), batch_size=3)
    scores = unit_scores(ablation, "patching")[source].signed
    unit = model.unit(target)
    for channel in range(0, len(scores), 3):
        with circuits.edit(model, [circuits.Ablate(f"{source}:{channel}", to="mean")], reference=images):
            cut = circuits.capture(model, images, unit.layer)[unit.layer][:, unit.index]
        expected = float((ablation.weights() * (ablation.clean - cut)).sum())
        assert float(scores[channel]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_integrated_scores_sum_to_what_full_ablation_takes_away(name: str) -> None:
    model, images, source, target = network(name)
    ranking = circuits.rank(model, target, images=images, layers=source, method="integrated", share=1.0, steps=200)
    assert sum(ranking.scores) == pytest.approx(ranking.clean[source] - ranking.nothing[source], rel=0.02)


@pytest.mark.parametrize("baseline", [baselines.Mean(), baselines.Zero(), baselines.Resample(seed=2)])
@pytest.mark.parametrize("kind", ["a module", "after another pool", "after a ReLU and batch norm", "adaptive"])
def test_edits_by_their_change_are_edits_of_the_whole(kind: str, baseline: baselines.Baseline) -> None:
    model, _, images, _ = prepared(kind)
    target = target_of(model, f"{target_layer(model)}:0")
    ablation = Ablation(model, target, ["source"], open_images(images), baseline, batch_size=3)
    runs = ChannelEdits(ablation)
    alone = torch.stack([ablation.respond_without({"source": {c}}) for c in range(CHANNELS)])
    # the sum of the two branches is no convolution: whole copies run here; a branch by itself is one
    torch.testing.assert_close(torch.cat(list(runs.single())), alone)
    for kept in (set(), {1}, {0, 2, 4}, set(range(CHANNELS))):
        torch.testing.assert_close(runs.keep(kept), ablation.respond({"source": kept}))


@pytest.mark.parametrize("branch", ["1x1", "3x3", "5x5", "pool_proj"])
def test_edits_by_their_change_in_every_branch(inception: circuits.Model, branch: str) -> None:
    images = nets.pictures(5, 64)
    part = inception.layers[f"mixed3b_{branch}"].part
    assert part is not None
    target = target_of(inception, f"mixed3b_pre:{part[1]}")
    ablation = Ablation(inception, target, ["mixed3a"], open_images(images), Mean(), batch_size=2)
    runs = ChannelEdits(ablation)
    assert runs.by_change
    width = inception.layers["mixed3a"].channels
    alone = torch.stack([ablation.respond_without({"mixed3a": {c}}) for c in range(width)])
    torch.testing.assert_close(torch.cat(list(runs.single())), alone)
    for kept in (set(), {1}, set(range(0, width, 2)), set(range(width))):
        torch.testing.assert_close(runs.keep(kept), ablation.respond({"mixed3a": kept}))


# -- targets ------------------------------------------------------------------------------------------------


def test_a_difference_and_a_function_of_the_output_are_the_same_target(planted: circuits.Model) -> None:
    images, against = nets.clutter(10), nets.clutter(10, seed=5)

    def difference(logits: Tensor) -> Tensor:
        return logits[:, 0] - logits[:, 1]

    rankings = [
        circuits.rank(planted, target, images=images, layers="parts", against=against, share=0.8, seed=3)
        for target in ("logits:0-logits:1", ("logits:0", "logits:1"), difference)
    ]
    first = rankings[0]
    assert first.measure == "mean" and first.baseline == "counterfactual" and first.n_images == 8
    for other in rankings[1:]:
        assert other.units[:5] == first.units[:5]
        assert other.scores == pytest.approx(first.scores, abs=1e-5)
    assert rankings[2].target == "difference" and first.target == "planted/logits:0-logits:1"
    # everything goes through the layer: with all of it ablated the output is that of the counterfactual
    with torch.no_grad():
        ranked = sorted(torch.randperm(10, generator=torch.Generator().manual_seed(3)).tolist()[:8])
        clean, other_images = (float(difference(planted(i[ranked])).mean()) for i in (images, against))
    assert first.clean["parts"] == pytest.approx(clean, abs=1e-5)
    assert first.nothing["parts"] == pytest.approx(other_images, abs=1e-5)
    curve = circuits.size_curve(planted, first, random=0)
    assert curve.n_images == 2 and curve.held_out and curve.f[-1] == pytest.approx(1)


def test_several_layers_are_ranked_together(planted: circuits.Model) -> None:
    images = nets.clutter(10)
    ranking = circuits.rank(planted, f"objects:{CAR}", images=images, layers=["parts", "edges"], share=0.5)
    assert ranking.layers == ("edges", "parts") and len(ranking.units) == 6 + nets.PARTS
    assert set(ranking.members(30)) == {"edges", "parts"}
    curve = circuits.size_curve(planted, ranking, random=2)
    assert (
        curve.sizes[-1] == 30 and curve.f[-1] == pytest.approx(1) and set(curve.nulls) == {"strong", "matched", "any"}
    )
    masked = circuits.rank(planted, f"objects:{CAR}", images=images, layers=["parts", "edges"], method="mask", steps=5)
    assert sorted(masked.units) == sorted(ranking.units)


# -- the mask -----------------------------------------------------------------------------------------------


def test_a_soft_choice_is_of_n_units_and_its_derivative_is_that_of_the_choice() -> None:
    numbers = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    for n in (1, 7, 29):
        for temperature in (0.1, 1.0):
            amounts = soft_choice(numbers, n, temperature)
            assert float(amounts.detach().sum()) == pytest.approx(n, abs=1e-6)
            assert bool((amounts[numbers.argsort()].diff() >= 0).all())
    assert torch.equal(soft_choice(numbers, 30, 0.5), torch.ones_like(numbers))
    assert torch.autograd.gradcheck(lambda x: soft_choice(x, 7, 0.5), numbers, eps=1e-5, atol=1e-4)


def test_a_mask_finds_the_planted_parents_and_is_the_same_for_a_seed(planted: circuits.Model) -> None:
    images = open_images(nets.clutter(24))
    ablation = Ablation(planted, target_of(planted, f"objects:{CAR}"), ["parts"], images, Mean(), batch_size=8)
    for size in (None, 4):
        numbers = learn_mask(ablation, steps=60, seed=1, size=size)["parts"]
        assert set(numbers.argsort(descending=True)[:4].tolist()) == {WINDOW, WHEEL, BODY, TREE}
    assert torch.equal(learn_mask(ablation, steps=9, seed=1)["parts"], learn_mask(ablation, steps=9, seed=1)["parts"])
    assert not torch.equal(
        learn_mask(ablation, steps=9, seed=2)["parts"], learn_mask(ablation, steps=9, seed=1)["parts"]
    )


def test_the_smallest_circuit_is_the_planted_one(planted: circuits.Model) -> None:
    small = circuits.smallest(planted, f"objects:{CAR}", images=nets.clutter(24), keep=0.999, steps=60)
    assert set(small.units) == {f"planted/parts:{c}" for c in (WINDOW, WHEEL, BODY, TREE)}
    assert small.found_share >= 0.999 and small.held_out.value == pytest.approx(1, abs=1e-3)
    assert (small.n_images, small.n_held_out, small.n_units) == (12, 12, nets.PARTS)
    assert list(small.losses) == sorted(small.losses, reverse=True) and small.losses[-1] > 0
    less = circuits.smallest(planted, f"objects:{CAR}", images=nets.clutter(24), keep=0.5, steps=60)
    assert len(less.units) < 4 and less.found_share >= 0.5 and set(less.units) < set(small.units)
    assert less.describe()["held_out"]["low"] <= less.held_out.value <= less.describe()["held_out"]["high"]


# -- size curves --------------------------------------------------------------------------------------------


def test_a_size_curve_is_what_edits_give_and_its_areas_are_trapezoids(planted: circuits.Model) -> None:
    images = nets.clutter(16)
    target = f"objects:{CAR}"
    ranking = circuits.rank(planted, target, images=images, method="gradient", seed=4)
    curve = circuits.size_curve(planted, ranking, random=3, sizes=[1, 3, 12, nets.PARTS])
    rest = sorted(torch.randperm(16, generator=torch.Generator().manual_seed(4)).tolist()[8:])
    held_out = images[rest]
    assert curve.held_out and curve.n_images == 8

    def response(units: set[str]) -> Tensor:
        cut = [c for c in range(nets.PARTS) if f"planted/parts:{c}" not in units]
        edits = [circuits.Ablate(f"parts:{c}", to="mean") for c in cut]
        with circuits.edit(planted, edits, reference=held_out):
            return circuits.capture(planted, held_out, "objects")["objects"][:, CAR].double()

    clean, nothing = response(set(ranking.units)), response(set())
    spread = float((clean - clean.mean()).pow(2).sum())
    explained = [1 - float((clean - response(set(ranking.units[:n]))).pow(2).sum()) / spread for n in (1, 3, 12, 24)]
    none = 1 - float((clean - nothing).pow(2).sum()) / spread
    f = [(e - none) / (1 - none) for e in explained]
    assert list(curve.explained_variance) == pytest.approx(explained, abs=1e-4)
    assert list(curve.f) == pytest.approx(f, abs=1e-4)
    x, y = np.array([0, 1, 3, 12, 24]) / 24, np.array([0.0, *f])
    assert curve.cpr.value == pytest.approx(float(np.trapezoid(y, x)), abs=1e-4)
    assert curve.cmd.value == pytest.approx(float(np.trapezoid(abs(1 - y), x)), abs=1e-4)
    assert curve.cpr.low <= curve.cpr.value <= curve.cpr.high
    bounds = zip(curve.f_low, curve.f, curve.f_high, strict=True)
    assert all(low - 1e-9 <= value <= high + 1e-9 for low, value, high in bounds)
    assert curve.clean == 1 and curve.nothing == pytest.approx(none, abs=1e-5)
    for null in curve.nulls.values():
        assert null.f.shape == (3, 4) and null.f[:, -1] == pytest.approx(1)
    assert curve.percentile == 100 * float((curve.nulls["strong"].cpr < curve.cpr.value).mean())
    assert curve.size_for(0.99) == 12 and curve.size_for(2.0) is None
    again = circuits.size_curve(planted, ranking, images=images, random=0, sizes=[1, 3, 12, nets.PARTS])
    assert again.f == curve.f and again.held_out and not again.nulls and again.percentile is None
    on_all = circuits.size_curve(planted, ranking, images=images, random=0, held_out=False)
    assert on_all.n_images == 16 and not on_all.held_out
    own = replace(ranking, units=tuple(reversed(ranking.units)), explains=None)
    assert circuits.size_curve(planted, own, random=0).cpr.value < curve.cpr.value


def test_intervals_shrink_with_the_number_of_images(planted: circuits.Model) -> None:
    widths = []
    for count in (12, 96):
        ranking = circuits.rank(planted, f"objects:{CAR}", images=nets.clutter(count), method="gradient")
        curve = circuits.size_curve(planted, ranking, random=0, sizes=[2])
        widths.append(curve.f_high[0] - curve.f_low[0])
    assert 0 < widths[1] < widths[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_ranking(planted: circuits.Model, method: str) -> None:
    options = {"images": nets.clutter(8), "method": method, "seed": 7, "steps": 4}
    first, second = (circuits.rank(planted, f"objects:{CAR}", **options) for _ in range(2))  # type: ignore[arg-type]
    assert first == second and first.describe()["units"] == list(first.units)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (CircuitsError, "method='magic': use one of", {"method": "magic"}),
        (CircuitsError, "measure='median': use one of", {"measure": "median"}),
        (CircuitsError, "share=0 must be a number above 0", {"share": 0}),
        (CircuitsError, "steps=0 must be a whole number", {"steps": 0}),
        (AddressError, "no layer 'nowhere'", {"layers": ["nowhere"]}),
        (AddressError, "name at least one source layer", {"layers": []}),
        (AddressError, "is a layer", {"target": "objects"}),
        (CircuitsError, "minus itself is zero", {"target": "objects:1-objects:1"}),
        (CircuitsError, "a difference is of two units of one layer", {"target": ("objects:1", "parts:2")}),
        (CircuitsError, "a difference is of two units; got 3", {"target": ("objects:1", "parts:2", "parts:3")}),
        (CircuitsError, "gives one number for each image", {"target": lambda out: out}),
        (CircuitsError, "got 3 for 8 images", {"against": nets.clutter(3)}),
        (CircuitsError, "image tensor-000000 and its counterfactual are the same", {"against": nets.clutter(8)}),
        (CircuitsError, "has the same response to all", {"images": torch.zeros(8, 3, 32, 32)}),
        (CircuitsError, "objects is not before parts", {"target": "parts:0", "layers": ["objects"]}),
    ],
)
def test_bad_questions_are_refused_in_one_line(
    planted: circuits.Model, error: type[Exception], message: str, options: dict[str, object]
) -> None:
    asked = {"target": f"objects:{CAR}", "images": nets.clutter(8), **options}
    with pytest.raises(error) as caught:
        circuits.rank(planted, **asked)  # type: ignore[arg-type]
    assert message in str(caught.value) and len(str(caught.value)) < 250


def test_a_curve_needs_images_that_the_ranking_did_not_see(planted: circuits.Model) -> None:
    images = nets.clutter(8)
    ranking = circuits.rank(planted, f"objects:{CAR}", images=images, method="gradient", share=1.0)
    with pytest.raises(CircuitsError, match="the ranking saw all of its images"):
        circuits.size_curve(planted, ranking)
    with pytest.raises(CircuitsError, match="all 8 images were ranked on"):
        circuits.size_curve(planted, ranking, images=images)
    other = circuits.size_curve(planted, ranking, images=torch.cat([images, nets.clutter(5, seed=3)]), random=0)
    assert other.n_images == 5 and other.held_out
    with pytest.raises(CircuitsError, match="sizes=99 must be a whole number from 1 to 24"):
        circuits.size_curve(planted, ranking, images=nets.clutter(5, seed=3), sizes=[99])
    elsewhere = circuits.wrap(nets.planted_module(), circuits.InputSpec(size=32), name="other")
    with pytest.raises(CircuitsError, match="the ranking is of model planted, not of other"):
        circuits.size_curve(elsewhere, ranking)
