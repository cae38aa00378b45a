"""Branches that are concatenated and then max pooled: a branch is held at the means of its own channels of the pool."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits import baselines
from circuits.attribution.attribute import attribute
from circuits.errors import CircuitsError
from circuits.network.subnetwork import channel_pools
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.target import target_of
from tests import nets
from tests.circuits.tracing.ablation.test_ablation import CHANNELS, DIRECT, POOLED, explained, held
from zoo.images.sources import open_images
from zoo.networks.normalization import LocalResponseNorm

BESIDE = 3
"""Channels of the other branch."""


class Branches(nn.Module):
    """A target that reads a branch directly, and both branches through a max pool over their concatenation."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], after: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.join = nn.Conv2d(3, CHANNELS, 1), join
        self.source, self.beside = nn.ReLU(), nn.ReLU()
        self.other = nn.Conv2d(3, BESIDE, 1)
        self.after, self.pool = after or nn.Identity(), nn.MaxPool2d(3, 2, 1)
        self.direct, self.proj = nn.Conv2d(CHANNELS, 2, 1, stride=2), nn.Conv2d(CHANNELS + BESIDE, 2, 1)

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.source(self.stem(x)), self.beside(self.other(x))

    def forward(self, x: Tensor) -> Tensor:
        source, beside = self.branches(x)
        out: Tensor = self.direct(source) + self.proj(self.pool(self.after(self.join(source, beside))))
        return out


JOINS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "the second branch": (lambda a, b: torch.cat([b, a], 1), BESIDE),
    "the first branch": (lambda a, b: torch.cat((a, b), dim=1), 0),
    "within a concatenation": (lambda a, b: torch.cat([b[:, :2], torch.cat([b[:, 2:], a], -3)], 1), BESIDE),
}  # fmt: skip


def prepared(name: str, *, graph: bool = True) -> tuple[circuits.Model, Branches, slice, str]:
    join, start = JOINS[name]
    block = nets.randomized(Branches(join))
    at = slice(start, start + CHANNELS)
    with torch.no_grad():
        block.direct.weight[:] = torch.tensor([DIRECT, [0.0] * CHANNELS])[:, :, None, None]
        block.proj.weight[:, at] = torch.tensor([POOLED, POOLED])[:, :, None, None]
    model = nets.wrap(block if graph else nets.Undecided(block), 8)
    return model, block, at, "" if graph else "inner."


def responses(block: Branches, at: slice, x: Tensor, kept: set[int]) -> tuple[Tensor, Tensor]:
    """The clean target maps `(N, 2, h, w)`, and those with all channels of the branch but `kept` held."""
    with torch.no_grad():
        source, beside = block.branches(x)
        joined = block.pool(block.join(source, beside))
        clean = block.direct(source) + block.proj(joined)
        cut = joined.clone()
        cut[:, at] = held(joined[:, at], kept)
        return clean, block.direct(held(source, kept)) + block.proj(cut)


def target_layer(model: circuits.Model) -> str:
    return next(name for name in reversed(model.layers) if model.layers[name].channels == 2)


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("kept", [set(), {0}, {1, 4}])
@pytest.mark.parametrize("name", list(JOINS))
def test_a_branch_is_held_at_the_means_of_its_channels_of_the_pool(name: str, kept: set[int], graph: bool) -> None:
    model, block, at, prefix = prepared(name, graph=graph)
    images = nets.pictures(7, 8)
    clean, cut = responses(block, at, model.input.normalize(images), kept)
    source = f"{prefix}source"
    assert channel_pools(model, source) == {f"{prefix}pool": at}
    ablation = Ablation(
        model,
        target_of(model, f"{target_layer(model)}:0"),
        [source],
        open_images(images),
        baselines.Mean(),
        batch_size=4,
    )
    torch.testing.assert_close(ablation.clean, clean[:, 0])
    torch.testing.assert_close(ablation.respond({source: kept}), cut[:, 0])
    assert ablation.keep({source: kept}) == pytest.approx(explained(clean[:, 0], cut[:, 0]), abs=1e-5)


@pytest.mark.parametrize("method", ["gradient", "integrated", "patching", "mask"])
@pytest.mark.parametrize("name", list(JOINS))
def test_rankings_count_from_those_means(name: str, method: str) -> None:
    model, block, at, _ = prepared(name)
    images = nets.pictures(7, 8)
    everything = set(range(CHANNELS))
    x = model.input.normalize(images)
    clean, nothing = responses(block, at, x, set())
    weights = (clean - nothing)[:, 0] / float((clean[:, 0] - clean[:, 0].mean()).pow(2).sum())
    # the target is linear in the branch and in its pooled maps: all methods give the exact share
    expected = [
        float((weights * (clean - responses(block, at, x, everything - {c})[1])[:, 0]).sum()) for c in range(CHANNELS)
    ]
    ranking = circuits.rank(
        model,
        f"{target_layer(model)}:0",
        images=images,
        layers="source",
        method=method,
        share=1.0,
        steps=3,  # type: ignore[arg-type]
    )
    if method != "mask":
        scores = [ranking.score_of(f"source:{c}") for c in range(CHANNELS)]
        assert scores == pytest.approx(expected, abs=1e-5)
    curve = circuits.size_curve(model, ranking, images=images, sizes=[2, CHANNELS], random=0, held_out=False)
    kept = {int(unit.rpartition(":")[2]) for unit in ranking.units[:2]}
    error = float((clean - responses(block, at, x, kept)[1])[:, 0].pow(2).sum())
    assert curve.f == pytest.approx([1 - error / float((clean - nothing)[:, 0].pow(2).sum()), 1], abs=1e-5)


@pytest.mark.parametrize("name", list(JOINS))
def test_soft_masks_end_at_the_circuits(name: str) -> None:
    model, block, at, _ = prepared(name)
    images, kept = nets.pictures(7, 8), {1, 3}
    ablation = Ablation(
        model, target_of(model, f"{target_layer(model)}:0"), ["source"], open_images(images), baselines.Mean()
    )
    batch, _ = ablation.batch(0)
    amounts = torch.tensor([float(c in kept) for c in range(CHANNELS)])
    _, cut = responses(block, at, model.input.normalize(images), kept)
    torch.testing.assert_close(ablation.mixed(batch, {"source": amounts}).detach(), cut[:, 0])


def test_both_branches_as_sources_are_each_held_in_their_place() -> None:
    model, block, at, _ = prepared("the second branch")
    images = nets.pictures(7, 8)
    ablation = Ablation(
        model, target_of(model, f"{target_layer(model)}:1"), ["source", "beside"], open_images(images), baselines.Mean()
    )
    with torch.no_grad():
        source, beside = block.branches(model.input.normalize(images))
        joined = block.pool(block.join(source, beside))
        cut = block.proj(torch.cat([held(joined[:, :BESIDE], {2}), held(joined[:, at], {0, 1})], 1))
        cut = cut + block.direct(held(source, {0, 1}))
    torch.testing.assert_close(ablation.respond({"source": {0, 1}, "beside": {2}}), cut[:, 1])
    torch.testing.assert_close(ablation.nothing, ablation.clean.mean().expand_as(ablation.clean))
    batch, _ = ablation.batch(0)
    amounts = {"source": torch.tensor([1.0, 1, 0, 0, 0]), "beside": torch.tensor([0.0, 0, 1])}
    torch.testing.assert_close(ablation.mixed(batch, amounts).detach(), cut[:, 1])


@pytest.mark.parametrize("name", list(JOINS))
def test_edits_and_drops_take_the_same_means(name: str) -> None:
    model, block, at, _ = prepared(name)
    images = nets.pictures(7, 8)
    out = target_layer(model)
    x = model.input.normalize(images)
    drops = attribute(model, images, source="source", target=f"{out}:0", method="ablation", baseline="mean")
    for channel in range(CHANNELS):
        clean, cut = responses(block, at, x, set(range(CHANNELS)) - {channel})
        for change in (circuits.Ablate(f"source:{channel}", to="mean"), circuits.Patch(f"source:{channel}", "mean")):
            with circuits.edit(model, [change], reference=images):
                torch.testing.assert_close(model(images), cut)
        peaks = clean[:, 0].flatten(1).argmax(dim=1, keepdim=True)
        drop = (clean - cut)[:, 0].flatten(1).gather(1, peaks)[:, 0]
        torch.testing.assert_close(drops.units[:, channel], drop)
    _, nothing = responses(block, at, x, set())
    with circuits.edit(model, [circuits.Ablate("source", to="mean")], reference=images):
        torch.testing.assert_close(model(images), nothing)


@pytest.mark.parametrize(
    ("join", "after"),
    [
        (lambda a, b: torch.cat([a, b, a], 1)[:, : CHANNELS + BESIDE], None),
        (lambda a, b: torch.cat([b, a.flip(1)], 1), None),
        (lambda a, b: torch.cat([b, a], 1), LocalResponseNorm(3, 1.0, 0.75, 1.0)),
    ],
)
def test_channels_that_are_repeated_moved_or_normalized_among_others_are_refused(
    join: Callable[[Tensor, Tensor], Tensor], after: nn.Module | None
) -> None:
    model, images = nets.wrap(nets.randomized(Branches(join, after)), 8), nets.pictures(5, 8)
    with pytest.raises(CircuitsError, match="takes a maximum over the channels of source"):
        circuits.rank(model, f"{target_layer(model)}:0", images=images, layers="source")
    resampled = circuits.rank(model, f"{target_layer(model)}:0", images=images, layers="source", baseline="resample")
    assert len(resampled.units) == CHANNELS
