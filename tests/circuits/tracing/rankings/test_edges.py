"""Edges between layers, against path patching that is written out in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
from circuits.errors import CircuitsError
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.edge_ablation import EdgeAblation, chain
from circuits.tracing.baselines import Baseline, Counterfactual, Mean
from circuits.tracing.rankings.edge_scores import edge_scores
from circuits.tracing.target import target_of
from tests import nets
from zoo.images.sources import open_images

Function = Callable[[Tensor], Tensor]
LAYERS = {"inception": ["mixed3a", "mixed3b"], "plain": ["1", "4"]}


class Naive:
    """A network as functions from layer to layer, the last of which gives the target's response `(N, h, w)`."""

    def __init__(self, kind: str) -> None:
        self.layers = LAYERS[kind]
        if kind == "inception":
            module = nets.tiny_inception()
            self.model, self.target = nets.wrap(module, 64), "mixed4a:8"
            self.steps: list[Function] = [
                lambda x: module._block("mixed3b", x).relu(),
                lambda x: module._block("mixed4a", module._pool("mixed3b", x)).relu()[:, 8],
            ]
        else:
            module = nets.randomized(
                nn.Sequential(
                    nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 3, padding=1), nn.ReLU(),
                    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
                )
            )  # fmt: skip
            self.model, self.target = nets.wrap(module, 12), "7:2"
            self.steps = [module[2:5], lambda x: module[5:](x)[:, 2, None, None]]
        size = 64 if kind == "inception" else 12
        self.images, self.others = nets.pictures(4, size), nets.pictures(4, size, seed=1)

    def acts(self, images: Tensor) -> list[Tensor]:
        return list(circuits.capture(self.model, images, self.layers).values())

    def patched(self, edges: Callable[[int, int, int], bool]) -> Tensor:
        """The response when just the edges (step, child, source) for which `edges` holds carry activations."""
        x, base = self.acts(self.images)[0], self.acts(self.others)
        alive = [True] * x.shape[1]
        with torch.no_grad():
            for i, step in enumerate(self.steps):
                outputs, reached = [], []
                last = i == len(self.steps) - 1
                for child in range(1 if last else base[i + 1].shape[1]):
                    mixed = base[i].clone()
                    some = [u for u in range(x.shape[1]) if alive[u] and edges(i, child, u)]
                    for u in some:
                        mixed[:, u] = x[:, u]
                    outputs.append(step(mixed) if last else step(mixed)[:, child])
                    reached.append(bool(some))
                x, alive = torch.stack(outputs, dim=1), reached
        return x[:, 0]

    def ablation(self, baseline: Baseline | None = None, layers: Sequence[str] | None = None) -> Ablation:
        return Ablation(
            self.model, target_of(self.model, self.target), layers or self.layers, open_images(self.images),
            baseline or Counterfactual(self.others), batch_size=3,
        )  # fmt: skip


@pytest.fixture(scope="module", params=["inception", "plain"])
def naive(request: pytest.FixtureRequest) -> Naive:
    return Naive(request.param)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_circuit_of_edges_responds_as_in_path_patching(naive: Naive, share: float) -> None:
    runs = EdgeAblation(naive.ablation())
    generator = torch.Generator().manual_seed(int(10 * share))
    kept = [torch.rand(len(s.names), s.width, generator=generator) < share for s in runs.steps]
    edges = {
        step.layer: set(mask.flatten().nonzero().flatten().tolist())
        for step, mask in zip(runs.steps, kept, strict=True)
    }
    expected = naive.patched(lambda i, child, u: bool(kept[i][child, u]))
    torch.testing.assert_close(runs.respond(edges), expected)
    if share in (0.0, 1.0):
        torch.testing.assert_close(expected, runs.ablation.clean if share else runs.ablation.nothing)
    names = [step.edge(i, naive.model.name) for step in runs.steps for i in edges[step.layer]]
    assert runs.members(names) == edges


def test_an_exact_score_is_the_loss_when_the_edge_alone_carries_the_counterfactual(naive: Naive) -> None:
    ranking = circuits.rank(
        naive.model, naive.target, images=naive.images, against=naive.others, layers=naive.layers, method="patching",
        of="edges", share=1.0,
    )  # fmt: skip
    steps = chain(naive.model, target_of(naive.model, naive.target), naive.layers)
    clean = naive.patched(lambda *_: True).mean()
    for number, step in enumerate(steps):
        for index in range(0, step.size, 1 if step.after is None else 3):
            edge = divmod(index, step.width)
            without = naive.patched(lambda i, c, u, cut=(number, *edge): (i, c, u) != cut)  # type: ignore[misc]
            score = ranking.score_of(step.edge(index, naive.model.name))
            assert score == pytest.approx(float(clean - without.mean()), abs=2e-6)
    assert len(ranking.units) == sum(step.size for step in steps) and ranking.of == "edges"


def test_a_gradient_is_that_of_path_patching_and_integrated_scores_of_a_unit_sum_to_its_own(naive: Naive) -> None:
    first = naive.layers[0]
    (x, _), (base, _) = naive.acts(naive.images), naive.acts(naive.others)
    step = chain(naive.model, target_of(naive.model, naive.target), naive.layers)[0]
    ablation = naive.ablation(layers=[first])
    scores = edge_scores(ablation, step, "gradient").signed.view(len(step.names), step.width)
    for child in range(len(step.names)):
        way = x.clone().requires_grad_(True)
        after = naive.steps[0](x).detach()
        after[:, child] = naive.steps[0](way)[:, child]
        response = naive.steps[1](after)
        (gradient,) = torch.autograd.grad(response.sum() / response.numel(), way)
        torch.testing.assert_close(
            scores[child].float(), (gradient * (x - base)).sum(dim=(0, 2, 3)), atol=1e-6, rtol=1e-4
        )
    options = {"images": naive.images, "against": naive.others, "layers": first, "method": "integrated", "share": 1.0}
    units = circuits.rank(naive.model, naive.target, **options)  # type: ignore[arg-type]
    edges = edge_scores(ablation, step, "integrated").signed.view(len(step.names), step.width).sum(dim=0)
    assert edges.tolist() == pytest.approx([units.score_of(f"{first}:{u}") for u in range(step.width)], abs=1e-6)


def test_under_means_a_pool_on_the_way_is_held_at_its_own_mean() -> None:
    naive = Naive("plain")
    runs = EdgeAblation(naive.ablation(Mean()))
    module, (x, after) = naive.model.module, naive.acts(naive.images)
    pooled = F.max_pool2d(x, 2)
    mean = pooled.mean(dim=(0, 2, 3), keepdim=True)
    mixed = mean.expand_as(pooled).clone()
    mixed[:, [0, 3]] = pooled[:, [0, 3]]
    with torch.no_grad():
        children = after.mean(dim=(0, 2, 3), keepdim=True).expand_as(after).clone()
        children[:, 1] = module[3:5](mixed)[:, 1]
        expected = module[5:](children)[:, 2]
    # unit 2 of the last layer has no edge into it: it stays at its mean though its own edge is kept
    response = runs.respond({"1": {5, 8}, "4": {1, 2}})
    torch.testing.assert_close(response[:, 0, 0], expected)
    # magnitudes of edges under explained variance: what ablating each changes, where all else is as it is
    step, ablation = runs.steps[0], naive.ablation(Mean(), layers=["1"])
    exact = edge_scores(ablation, step, "patching")
    held = pooled.clone()
    held[:, 3] = mean[:, 3]
    with torch.no_grad():
        cut = after.clone()
        cut[:, 1] = module[3:5](held)[:, 1]
        lost = ablation.clean[:, 0, 0] - module[5:](cut)[:, 2]
    assert float(exact.magnitude[8]) == pytest.approx(float(lost.pow(2).sum() / ablation.spread) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("method", ["weights", "gradient", "integrated"])
def test_all_methods_are_exact_where_the_network_is_linear(method: str) -> None:
    module = nets.randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3), nn.Conv2d(3, 2, 3)))
    model, images = nets.wrap(module, 10), nets.pictures(6, 10)
    options = {"images": images, "layers": ["0", "1"], "of": "edges", "share": 1.0}
    scores = circuits.rank(model, "2:0", method=method, **options)  # type: ignore[arg-type]
    exact = circuits.rank(model, "2:0", method="patching", **options)  # type: ignore[arg-type]
    for unit, score in zip(exact.units, exact.scores, strict=True):
        assert scores.score_of(unit) == pytest.approx(score, abs=1e-5)
    assert max(map(abs, exact.scores)) > 0.05
    curve = circuits.size_curve(model, scores, images=nets.pictures(5, 10, seed=3), random=2)
    assert curve.of == "edges" and curve.f[-1] == 1 and curve.sizes[-1] == 4 * 3 + 3
    assert set(curve.nulls) == {"strong", "any"}


def test_the_curve_of_edges_is_what_the_first_edges_keep(naive: Naive) -> None:
    ranking = circuits.rank(
        naive.model, naive.target, images=naive.images, against=naive.others, layers=naive.layers, of="edges", share=1.0
    )
    curve = circuits.size_curve(
        naive.model, ranking, images=naive.images, against=naive.others, held_out=False, random=0, sizes=[8]
    )
    runs = EdgeAblation(naive.ablation())
    members = runs.members(ranking.units[:8])
    widths = [step.width for step in runs.steps]
    expected = naive.patched(lambda i, child, u: child * widths[i] + u in members[naive.layers[i]])
    assert curve.f[0] == pytest.approx(runs.ablation.share(expected), abs=1e-5)
    with pytest.raises(CircuitsError, match="each of the .* edges of .* once"):
        circuits.size_curve(naive.model, replace(ranking, units=ranking.units[1:]), random=0)


def test_what_has_no_edges_is_refused() -> None:
    residual = nets.wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nets.Residual(4), nets.Residual(4)), 16)
    inner = next(name for name in residual.layers if name.startswith("2."))
    images = nets.pictures(4)
    with pytest.raises(CircuitsError, match=f"does not go through {inner}"):
        circuits.rank(residual, "3:0", images=images, layers=["1", inner], of="edges")
    hidden = nets.wrap(nets.Undecided(nets.Functional()), 16)
    with pytest.raises(CircuitsError, match=r"torch.fx cannot trace this network; rank its units"):
        circuits.rank(hidden, "inner.c:0", images=images, layers=["inner.a"], of="edges")
    with pytest.raises(CircuitsError, match="a mask is learned over units"):
        circuits.rank(residual, "3:0", images=images, layers=["2"], of="edges", method="mask")
    with pytest.raises(CircuitsError, match="of"):
        circuits.rank(residual, "3:0", images=images, layers=["2"], of="paths")  # type: ignore[arg-type]
    runs = EdgeAblation(
        Ablation(residual, target_of(residual, "3:0"), ["1", "2"], open_images(images), Mean(), batch_size=2)
    )
    for name in ("1:0->3:0", "2:0->2:1", "1:0"):
        with pytest.raises(CircuitsError, match="is not an edge from 1 to 2 to 3:0"):
            runs.members([name])
