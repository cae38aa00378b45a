"""Ablation behind max pools, worked out in numpy: the pool of a mean is not the mean of the pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import circuits
from circuits import baselines
from circuits.errors import CircuitsError, EditError, GraphError
from circuits.plot.drawing.wording import ablated_sentence
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.baselines import Baseline, Mean, Resample
from circuits.tracing.curves import null_circuits
from circuits.tracing.target import target_of
from tests import nets
from zoo.images.sources import open_images
from zoo.networks.normalization import LocalResponseNorm

Array = NDArray[np.float64]
CHANNELS = 5
#: weights of the target unit on the source itself, and on its pooled map
DIRECT = (0.7, -0.4, 0.0, 0.5, 0.2)
POOLED = (-0.6, 0.9, 0.3, 0.0, -0.5)


class Block(nn.Module):
    """A target that reads a layer directly and through a max pool; unit 1 reads only the pool."""

    def __init__(self, pool: nn.Module, between: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 1)
        self.source = nn.ReLU()
        self.between = between or nn.Identity()
        self.pool = pool
        self.direct = nn.Conv2d(CHANNELS, 2, 1)
        self.proj = nn.Conv2d(CHANNELS, 2, 1)
        with torch.no_grad():
            self.direct.weight[:] = torch.tensor([DIRECT, [0.0] * CHANNELS])[:, :, None, None]
            self.proj.weight[:] = torch.tensor([POOLED, POOLED])[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        source = self.source(self.stem(x))
        out: Tensor = self.direct(source) + self.proj(self.pool(self.between(source)))
        return out


class Called(nn.Module):
    """The same pool as a function."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 1, 1)


class Maximum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(2, 3), keepdim=True)


def same_pool() -> nn.Module:
    return nn.MaxPool2d(3, 1, 1)


KINDS: dict[str, Callable[[], nn.Module]] = {
    "a module": lambda: Block(same_pool()),
    "a function": lambda: Block(Called()),
    "after a ReLU and batch norm": lambda: Block(same_pool(), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(CHANNELS))),
    "after another pool": lambda: Block(same_pool(), same_pool()),
    "adaptive": lambda: Block(nn.AdaptiveMaxPool2d(1)),
    "a maximum over the map": lambda: Block(Maximum()),
    "without a graph": lambda: nets.Undecided(Block(same_pool())),
    "after a product": lambda: Block(same_pool(), Doubled()),
}  # fmt: skip


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2.0


def prepared(kind: str) -> tuple[circuits.Model, Block, Tensor, str]:
    module = nets.randomized(KINDS[kind]())
    block = next(m for m in module.modules() if isinstance(m, Block))
    with torch.no_grad():
        block.direct.weight[:] = torch.tensor([DIRECT, [0.0] * CHANNELS])[:, :, None, None]
        block.proj.weight[:] = torch.tensor([POOLED, POOLED])[:, :, None, None]
    model = nets.wrap(module, 8)
    prefix = "inner." if isinstance(module, nets.Undecided) else ""
    return model, block, nets.pictures(7, 8), prefix


def maps(block: Block, images: Tensor, *, normalize: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        source = block.source(block.stem(normalize(images)))
        return source, block.pool(block.between(source))


def explained(clean: Tensor, response: Tensor) -> float:
    a, b = clean.double().numpy(), response.double().numpy()
    return float(1 - ((a - b) ** 2).sum() / ((a - a.mean()) ** 2).sum())


def held(values: Tensor, kept: set[int]) -> Tensor:
    """All channels but `kept` at their mean over images and positions."""
    out = values.mean(dim=(0, 2, 3), keepdim=True).expand_as(values).clone()
    out[:, sorted(kept)] = values[:, sorted(kept)]
    return out


def ablation_of(
    model: circuits.Model, target: str, images: Tensor, layer: str, baseline: Baseline | None = None
) -> Ablation:
    return Ablation(model, target_of(model, target), [layer], open_images(images), baseline or Mean(), batch_size=4)


@pytest.mark.parametrize("kept", [set(), {0}, {1, 4}, {0, 1, 2, 3, 4}])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_channel_behind_a_max_pool_is_held_at_the_mean_of_its_pooled_map(kind: str, kept: set[int]) -> None:
    model, block, images, prefix = prepared(kind)
    source, pooled = maps(block, images, normalize=model.input.normalize)
    out = target_layer(model)
    for unit in (0, 1):
        with torch.no_grad():
            clean = (block.direct(source) + block.proj(pooled))[:, unit]
            cut = (block.direct(held(source, kept)) + block.proj(held(pooled, kept)))[:, unit]
        ablation = ablation_of(model, f"{out}:{unit}", images, f"{prefix}source")
        torch.testing.assert_close(ablation.clean, clean)
        torch.testing.assert_close(ablation.respond({f"{prefix}source": kept}), cut)
        assert ablation.keep({f"{prefix}source": kept}) == pytest.approx(explained(clean, cut), abs=1e-5)
        with torch.no_grad():
            others = set(range(CHANNELS)) - kept
            cut = (block.direct(held(source, others)) + block.proj(held(pooled, others)))[:, unit]
        assert ablation.drop({f"{prefix}source": kept}) == pytest.approx(explained(clean, cut), abs=1e-5)
        # all is linear after the pool, so that with everything ablated the response is its own mean everywhere
        torch.testing.assert_close(ablation.nothing, clean.mean().expand_as(clean))


def target_layer(model: circuits.Model) -> str:
    """The layer of the sum: without a graph the network's whole output."""
    return next(name for name in reversed(model.layers) if model.layers[name].channels == 2)


@pytest.mark.parametrize("pool", [Called(), Maximum()])
def test_without_a_graph_a_pool_that_is_a_function_is_refused(pool: nn.Module) -> None:
    model = nets.wrap(nets.Undecided(nets.randomized(Block(pool))), 8)
    images = nets.pictures(6, 8)
    with pytest.raises(GraphError, match="takes a maximum over the channels of inner.source"):
        ablation_of(model, f"{target_layer(model)}:1", images, "inner.source")
    resampled = ablation_of(model, f"{target_layer(model)}:1", images, "inner.source", Resample())
    assert resampled.respond({}).shape == resampled.clean.shape


def test_without_a_graph_a_function_behind_a_convolution_is_left_to_the_network() -> None:
    module = nets.randomized(Block(Called(), nn.Conv2d(CHANNELS, CHANNELS, 1)))
    block = next(m for m in module.modules() if isinstance(m, Block))
    images = nets.pictures(6, 8)
    model = nets.wrap(nets.Undecided(module), 8)
    ablation = ablation_of(model, f"{target_layer(model)}:1", images, "inner.source")
    with torch.no_grad():
        source = held(block.source(block.stem(model.input.normalize(images))), {2})
        expected = block.direct(source) + block.proj(block.pool(block.between(source)))
    torch.testing.assert_close(ablation.respond({"inner.source": {2}}), expected[:, 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["a module", "a function", "without a graph"])
def test_every_causal_number_takes_the_pooled_mean(kind: str) -> None:
    model, block, images, prefix = prepared(kind)
    source, pooled = maps(block, images, normalize=model.input.normalize)
    layer, out = f"{prefix}source", target_layer(model)
    with torch.no_grad():
        response = (block.direct(source) + block.proj(pooled))[:, 0]
    flat = response.flatten(1).argmax(dim=1)
    at = [(int(i) // 8, int(i) % 8) for i in flat]
    here = [torch.stack([m[i, :, y, x] for i, (y, x) in enumerate(at)]) for m in (source, pooled)]
    means = [m.mean(dim=(0, 2, 3)) for m in (source, pooled)]
    drops = sum(
        torch.tensor(w) * (h - m) for w, h, m in zip((DIRECT, POOLED), here, means, strict=True)
    )  # (images, channels)
    found = circuits.attribute(model, images, source=layer, target=f"{out}:0", method="ablation", baseline="mean")
    torch.testing.assert_close(found.units, drops)
    traced = circuits.trace(
        model, f"{out}:0", images=images, layers=[layer], by="ablation", width=CHANNELS, n_positions=99
    )
    active = response.flatten(1).amax(dim=1) > 0
    expected = drops[active].mean(dim=0)
    strengths = {traced.node(e.source).index: e.strength for e in traced.edges}
    assert strengths == pytest.approx({c: float(v) for c, v in enumerate(expected) if v}, abs=1e-5)
    for channel in range(CHANNELS):
        others = set(range(CHANNELS)) - {channel}
        with torch.no_grad():
            cut = block.direct(held(source, others)) + block.proj(held(pooled, others))
        for change in (circuits.Ablate(f"{layer}:{channel}", to="mean"), circuits.Patch(f"{layer}:{channel}", "mean")):
            with circuits.edit(model, [change], reference=images):
                torch.testing.assert_close(model(images), cut)
    with circuits.edit(model, [circuits.Ablate(layer, to="mean")], reference=images):
        torch.testing.assert_close(model(images), model(images).mean(dim=(0, 2, 3), keepdim=True).expand(7, 2, 8, 8))
    with circuits.edit(model, [circuits.Ablate(f"{layer}:1@3,3", to="mean")], reference=images):
        one_position = source.clone()
        one_position[:, 1, 3, 3] = means[0][1]
        with torch.no_grad():
            expected_maps = block.direct(one_position) + block.proj(block.pool(block.between(one_position)))
        torch.testing.assert_close(model(images), expected_maps)


def test_a_stage_pool_and_a_pool_within_the_next_block_are_both_crossed(inception: circuits.Model) -> None:
    """As mixed3b is read by mixed4a: through a stage pool, and through one more in the pool branch."""
    images = nets.pictures(6, 64)
    before, after = "mixed3b", "mixed4a"
    branch = inception.layers[f"{after}_pool_proj"].part
    assert branch is not None
    acts = circuits.capture(inception, images, [f"{before}_maxpool", f"{after}_pool", f"{after}_pool_proj_pre"])
    kept = {0, 3, 5}
    pool = held(acts[f"{after}_pool"], kept)
    with torch.no_grad():
        pre = inception.module.get_submodule(f"{after}_pool_proj_pre")(pool)
    # the unit of the branch that varies most
    unit = int(acts[f"{after}_pool_proj_pre"].relu().var(dim=(0, 2, 3)).argmax())
    ablation = ablation_of(inception, f"{after}:{branch[1] + unit}", images, before)
    assert list(ablation.pools[before]) == [f"{before}_maxpool", f"{after}_pool"]
    torch.testing.assert_close(ablation.respond({before: kept}), pre.relu()[:, unit])
    with pytest.raises(CircuitsError, match=f"{before}_maxpool holds the channels of {before}, pooled"):
        Ablation(
            inception, target_of(inception, f"{after}:0"), [before, f"{before}_maxpool"], open_images(images), Mean()
        )


def test_a_pool_after_channels_are_mixed_is_left_to_the_network(inception: circuits.Model) -> None:
    ablation = ablation_of(inception, "mixed4a:0", nets.pictures(6, 64), "mixed3a")
    assert set(ablation.pools) == {"mixed3a"} and set(ablation.pools["mixed3a"]) <= {"mixed3b_pool"}


def test_among_normalized_neighbors_an_ablated_channel_is_at_its_pooled_mean() -> None:
    """LRN scales a channel by its neighbors: kept ones are normalized with the ablated ones at their means."""
    module = nets.randomized(Block(same_pool(), LocalResponseNorm(3, 1.0, 0.75, 1.0)))
    model, images = nets.wrap(module, 8), nets.pictures(5, 8)
    source, pooled = maps(module, images, normalize=model.input.normalize)
    kept = {1, 2}
    with torch.no_grad():
        crossed = module.pool(module.between(held(source, kept)))
        mixed = pooled.mean(dim=(0, 2, 3), keepdim=True).expand_as(pooled).clone()
        mixed[:, [1, 2]] = crossed[:, [1, 2]]
        cut = (module.direct(held(source, kept)) + module.proj(mixed))[:, 0]
    ablation = ablation_of(model, f"{target_layer(model)}:0", images, "source")
    torch.testing.assert_close(ablation.respond({"source": kept}), cut)


# -- the other baselines ------------------------------------------------------------------------------------


def test_other_baselines_are_pooled_as_maps_are() -> None:
    model, block, images, _ = prepared("a module")
    source, _ = maps(block, images, normalize=model.input.normalize)
    others = nets.pictures(7, 8, seed=9)
    other, _ = maps(block, others, normalize=model.input.normalize)
    out, kept = f"{target_layer(model)}:0", {0, 4}
    stand_ins = {
        baselines.Zero(): torch.zeros_like(source),
        baselines.Counterfactual(others): other,
        baselines.Resample(images=others[:1], seed=3): other[:1].expand_as(source),
    }
    for baseline, values in stand_ins.items():
        swapped = values.clone()
        swapped[:, sorted(kept)] = source[:, sorted(kept)]
        with torch.no_grad():
            cut = (block.direct(swapped) + block.proj(block.pool(swapped)))[:, 0]
        torch.testing.assert_close(ablation_of(model, out, images, "source", baseline).respond({"source": kept}), cut)
    per_position = baselines.Mean(per_position=True)
    held_maps = source.mean(dim=0, keepdim=True).expand_as(source).clone()
    pooled = block.pool(source)
    held_pools = pooled.mean(dim=0, keepdim=True).expand_as(source).clone()
    for values, natural in ((held_maps, source), (held_pools, pooled)):
        values[:, sorted(kept)] = natural[:, sorted(kept)]
    with torch.no_grad():
        cut = (block.direct(held_maps) + block.proj(held_pools))[:, 0]
    torch.testing.assert_close(ablation_of(model, out, images, "source", per_position).respond({"source": kept}), cut)


def test_resampling_gives_no_image_its_own_activations() -> None:
    images = open_images(nets.pictures(9, 8))
    for seed in range(5):
        paired = baselines.Resample(seed=seed).paired(images)
        assert sorted(paired.ids) == sorted(images.ids)
        assert all(a != b for a, b in zip(paired.ids, images.ids, strict=True))
    with pytest.raises(CircuitsError, match="give at least 2 images"):
        baselines.Resample().paired(open_images(nets.pictures(1, 8)))


def test_a_mean_can_be_taken_over_other_images() -> None:
    model, block, images, _ = prepared("a module")
    reference = nets.pictures(4, 8, seed=5)
    source, pooled = maps(block, reference, normalize=model.input.normalize)
    with torch.no_grad():
        cut = block.direct(source.mean(dim=(0, 2, 3), keepdim=True)) + block.proj(
            pooled.mean(dim=(0, 2, 3), keepdim=True)
        )
    ablation = ablation_of(model, f"{target_layer(model)}:0", images, "source", Mean(images=reference))
    torch.testing.assert_close(ablation.nothing, cut[:, 0].expand_as(ablation.nothing))


def test_activations_that_are_not_held_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, images, _ = prepared("a module")
    others = baselines.Counterfactual(nets.pictures(7, 8, seed=9))
    stored = ablation_of(model, f"{target_layer(model)}:0", images, "source", others).respond({"source": {1}})
    monkeypatch.setattr("circuits.tracing.ablation.ablation.STORED", 100)
    again = ablation_of(model, f"{target_layer(model)}:0", images, "source", others)
    assert again._stored is None
    assert torch.equal(again.respond({"source": {1}}), stored)


def test_a_patch_takes_the_baseline_of_its_own_images() -> None:
    model, block, images, _ = prepared("a module")
    others = nets.pictures(7, 8, seed=9)
    source, _ = maps(block, images, normalize=model.input.normalize)
    other, _ = maps(block, others, normalize=model.input.normalize)
    source[:, 2] = other[:, 2]
    with circuits.edit(model, [circuits.Patch("source:2", baselines.Counterfactual(others))]):
        torch.testing.assert_close(circuits.capture(model, images, "source")["source"], source)
        with pytest.raises(EditError, match="7 counterfactuals for a batch of 3 images"):
            model(images[:3])


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("a counterfactual for each image: got 3 for 7 images", lambda i: baselines.Counterfactual(i[:3] / 2)),
        ("image tensor-000005 and its counterfactual are the same image", lambda i: baselines.Counterfactual(
            torch.cat([i[:5] / 2, i[5:6], i[6:] / 2]))),
        ("baseline='median': use one of 'mean'", lambda i: baselines.baseline_of("median")),
        ("needs the counterfactual images: against=images", lambda i: baselines.baseline_of("counterfactual")),
        ("against= gives the baseline: leave out baseline='zero'", lambda i: baselines.baseline_of("zero", i)),
    ],
)  # fmt: skip
def test_baselines_that_do_not_fit_are_refused(message: str, make: Callable[[Tensor], Baseline]) -> None:
    model, _, images, _ = prepared("a module")
    with pytest.raises(CircuitsError) as caught:
        ablation_of(model, f"{target_layer(model)}:0", images, "source", make(images))
    assert message in str(caught.value)


# -- random circuits to hold a circuit against --------------------------------------------------------------


def test_random_circuits_are_any_units_strong_units_or_units_as_active() -> None:
    rng = np.random.default_rng(0)
    strengths = {"a": torch.tensor([0.0] * 60 + [float(i) for i in range(1, 41)])}
    for count, pool in ((4, 16), (12, 24), (30, 60)):
        drawn = [null_circuits.among_strongest({"a": count}, strengths, rng)["a"] for _ in range(200)]
        assert all(len(d) == count for d in drawn)
        assert set().union(*drawn) == set(strengths["a"].argsort(descending=True, stable=True)[:pool].tolist())
    few = {"a": torch.tensor([0.0] * 50 + [1.0, 2.0])}  # two that act at all: four of these and of zeros
    assert set().union(*(null_circuits.among_strongest({"a": 2}, few, rng)["a"] for _ in range(99))) == {0, 1, 50, 51}
    means = {"a": torch.arange(100.0)}
    for _ in range(50):
        own = {"a": {10, 50, 90}}
        other = sorted(null_circuits.matched(own, means, rng)["a"])
        assert len(other) == 3 and not set(other) & own["a"]
        assert all(abs(a - b) <= null_circuits.NEIGHBORS for a, b in zip(other, (10, 50, 90), strict=True))
    everything = {"a": set(range(100))}
    assert null_circuits.matched(everything, means, rng) == everything


def test_strengths_are_gradient_times_activation() -> None:
    model, block, images, _ = prepared("a module")
    source, _ = maps(block, images, normalize=model.input.normalize)
    ablation = ablation_of(model, f"{target_layer(model)}:0", images, "source")
    strengths = null_circuits.strengths(ablation)["source"]
    leaf = source.clone().requires_grad_(True)
    (block.direct(leaf) + block.proj(block.pool(leaf)))[:, 0].sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(strengths, (leaf.grad * source).abs().sum(dim=(0, 2, 3)))


def test_a_score_says_what_is_left_with_everything_ablated() -> None:
    model, _, images, _ = prepared("a module")
    out = f"{target_layer(model)}:0"
    circuit = circuits.trace(model, out, images=images, layers=["source"], width=2, by="attribution")
    score = circuits.score(model, circuit, images=images, random=4)
    assert score.ablated is not None and score.ablated.in_range and score.baseline == "mean"
    assert score.ablated.mean == pytest.approx(score.ablated.clean_mean, abs=1e-6)
    assert score.ablated.low == pytest.approx(score.ablated.high, abs=1e-6)
    assert score.ablated.explained_variance == pytest.approx(0, abs=1e-6)
    assert len(score.strong_faithfulness) == len(score.matched_faithfulness) == 4
    below = sum(v < score.faithfulness for v in score.strong_faithfulness)
    assert score.faithfulness_percentile == 100 * below / 4
    assert "outside its clean range" not in ablated_sentence(score)
    against = (nets.pictures(7, 8, seed=4) > 0.5).float()  # black and white where the images are gray
    other = circuits.score(model, circuit, images=images, random=1, against=against)
    assert other.baseline == "counterfactual" and other.ablated is not None and not other.ablated.in_range
    assert "outside its clean range" in ablated_sentence(other)
    with_score = replace(circuit, score=other)
    assert circuits.Circuit.from_json(with_score.to_json()) == with_score


def test_a_neuron_is_scored_where_it_is() -> None:
    model, block, images, _ = prepared("a module")
    source, pooled = maps(block, images, normalize=model.input.normalize)
    with torch.no_grad():
        clean = (block.direct(source) + block.proj(pooled))[:, 0, 2, 3]
        cut = (block.direct(held(source, {1})) + block.proj(held(pooled, {1})))[:, 0, 2, 3]
    ablation = ablation_of(model, f"{target_layer(model)}:0@2,3", images, "source")
    assert ablation.keep({"source": {1}}) == pytest.approx(explained(clean, cut), abs=1e-5)


class Tail(nn.Module):
    """A convolution, a maximum over positions, a linear layer."""

    def __init__(self, maximum: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 2)
        self.maximum = maximum

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.maximum(self.relu(self.conv(x))))
        return scores


def tail(maximum: Callable[[Tensor], Tensor]) -> tuple[circuits.Model, Tensor]:
    torch.manual_seed(0)
    model = circuits.wrap(Tail(maximum).eval(), input=circuits.InputSpec(size=8, channels=1), name="tail")
    return model, torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("maximum", [lambda a: a.amax((2, 3)), lambda a: F.adaptive_max_pool2d(a, 1).flatten(1)])
def test_a_maximum_that_is_a_function_is_a_pool(maximum: Callable[[Tensor], Tensor]) -> None:
    model, images = tail(maximum)
    ranking = circuits.rank(model, "fc:1", images=images, layers="relu", method="patching", share=1)
    network = model.module
    with torch.no_grad():
        pooled = network.relu(network.conv(model.input.normalize(images))).amax((2, 3))  # type: ignore[operator]
        effect = (pooled - pooled.mean(0)) * network.fc.weight[1]  # type: ignore[index, union-attr]
    total = effect.sum(1)
    # the share of unit c under explained variance, with the map held at the mean of its pool: covariance / variance
    expected = {f"tail/relu:{c}": float((effect[:, c] * total).sum() / (total**2).sum()) for c in range(4)}
    assert dict(ranking.top(4)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "maximum",
    [
        lambda a: a.flatten(2).max(2)[0],
        lambda a: a.max(3)[0].max(2).values,
        lambda a: torch.cat([a[:, 2:], a[:, :2]], 1).amax((2, 3)),
    ],
)
def test_a_maximum_whose_channels_are_not_known_is_refused(maximum: Callable[[Tensor], Tensor]) -> None:
    model, images = tail(maximum)
    with pytest.raises(circuits.CircuitsError, match="takes a maximum over the channels of relu"):
        circuits.rank(model, "fc:1", images=images, layers="relu", method="patching")
    ranking = circuits.rank(model, "fc:1", images=images, layers="relu", method="patching", baseline="zero")
    assert len(ranking.units) == 4


def test_circuits_of_two_layers_take_the_pool_of_the_first_as_it_is(
    inception: circuits.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a pool makes of kept channels is the same in every circuit: it is not run for each, to the same bits."""
    images, layers = nets.pictures(5, 64), ["mixed3a", "mixed3b"]
    unit = int(circuits.capture(inception, images, "mixed4a")["mixed4a"].var(dim=(0, 2, 3)).argmax())
    target = target_of(inception, f"mixed4a:{unit}")
    ablation = Ablation(inception, target, layers, open_images(images), Mean())
    assert list(ablation.pools["mixed3a"]) == ["mixed3b_pool"]
    width = inception.layers["mixed3b"].channels
    kept = {"mixed3a": {0, 2, 5}, "mixed3b": set(range(0, width, 3)) | {width - 1}}
    response = ablation.respond(kept)
    # nothing comes past a layer of which no unit is kept
    assert torch.equal(ablation.respond({"mixed3a": {0, 2, 5}}), ablation.nothing)
    assert torch.equal(ablation._respond({"mixed3a": {0, 2, 5}}), ablation.nothing)
    assert ablation._pool_maps
    monkeypatch.setattr(Ablation, "_natural_pool", lambda *_: None)
    assert torch.equal(ablation.respond(kept), response)
    masks = {name: ablation._mask(name, units) for name, units in kept.items()}
    whole = torch.cat([ablation.ablated(batch, masks) for batch in ablation.batches()])
    torch.testing.assert_close(response, whole, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(response, ablation.clean, atol=1e-4)


@pytest.mark.parametrize(("last", "cuts"), [("2", True), ("3.conv1", False)])
def test_what_goes_around_a_layer_is_left_where_all_of_the_layer_is_ablated(last: str, cuts: bool) -> None:
    residual = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nets.Residual(4), nets.Residual(4))
    model, images = nets.wrap(nets.randomized(residual), 16), nets.pictures(5, 16)
    ablation = Ablation(model, target_of(model, "3:1"), ["1", last], open_images(images), Mean())
    masks = {"1": ablation._mask("1", {0, 1}), last: ablation._mask(last, set())}
    whole = torch.cat([ablation.ablated(batch, masks) for batch in ablation.batches()])
    assert torch.equal(ablation.respond({"1": {0, 1}}), whole) and torch.equal(whole, ablation.nothing) == cuts
