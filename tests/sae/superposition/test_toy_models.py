"""Toy models: what a sweep is, and that training many at once is training each alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from circuits.errors import CircuitsError
from sae.superposition import ToyError, ToyModel, decaying, density_schedule, grid, sample, train
from sae.superposition.toy import batched_passes, train as training
from sae.superposition.toy.batched_passes import STEP
from sae.superposition.toy.feature_sampler import TRAINING
from sae.superposition.toy.train import _initial, _passes, _Plan

CPU = torch.device("cpu")
KINDS = ("relu", "linear", "absolute", "privileged")


def mixed(kind: Any) -> list[ToyModel]:
    """Models of several sizes and densities, with and without sets, of two streams of examples."""
    models = grid([6, 4], [3, 2], densities=[0.5, 0.2], seeds=2, importance=lambda n: decaying(n, 0.8), kind=kind)
    sets = ToyModel(6, 3, 0.3, kind=kind, correlated=((0, 1),), exclusive=((2, 3, 4),), data_seed=5)
    return [*models, sets]


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_written_out_are_autograds(kind: Any, many: bool) -> None:
    """Also where features are so many for the dimensions that another order of products is taken."""
    models = [*mixed(kind), ToyModel(15, 2, 0.4, kind=kind)] if many else mixed(kind)
    plan = _Plan(models, CPU)
    parameters, importance = _initial(plan, CPU, torch.float64)
    parameters.bias.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    passes = _passes(plan, parameters, importance, TRAINING, 96)
    passes.draw()
    with torch.no_grad():
        losses = passes.losses()
        passes.gradients()
    tensors = [t.clone().requires_grad_() for t in parameters.all]
    x = passes.examples()[:, None]
    hidden = tensors[0] @ x
    hidden = hidden.relu() if kind in ("absolute", "privileged") else hidden
    output = (tensors[2] if kind == "absolute" else tensors[0].mT) @ hidden + tensors[1][..., None]
    output = output if kind == "linear" else output.relu()
    target = x.abs() if kind == "absolute" else x
    expected = ((output - target).square() * importance[..., None]).sum(dim=2).mean(dim=-1)
    expected.sum().backward()
    torch.testing.assert_close(losses, expected.detach())
    for mine, theirs in zip(parameters.gradients, tensors, strict=True):
        torch.testing.assert_close(mine, theirs.grad, rtol=1e-10, atol=1e-14)


def test_examples_of_nothing_are_counted_and_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a density of .02 one in thirteen examples holds one of 4 features: of the others one would do."""
    monkeypatch.setattr(training, "ROWS", 4)
    plan = _Plan(grid(4, 2, densities=[0.02, 0.5]), CPU)  # rows stand in the order of their density
    passes = _passes(plan, *_initial(plan, CPU, torch.float64), TRAINING, 4096)
    passes.draw()
    x = passes.examples()
    dense, sparse = ((x > 0).any(dim=1).sum(dim=1)).tolist()
    assert dense <= passes.counts[0] < dense + STEP and sparse <= passes.counts[1] < sparse + STEP
    assert sparse / 4096 == pytest.approx(1 - 0.98**4, abs=0.02) and passes.nothing[1] == 4096 - passes.counts[1]
    assert not x[1, :, passes.counts[1] :].any() and x[1, :, : sparse - 1].any(dim=0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_trained_among_others_is_the_model_trained_alone(kind: Any) -> None:
    """To rounding: in float64 what is left is the order of sums in matrix products of other shapes."""
    models = mixed(kind)
    together = train(models, steps=150, batch=64, dtype=torch.float64, records=2, device="cpu")
    for i in (0, 5, 11, 16):
        alone = train([models[i]], steps=150, batch=64, dtype=torch.float64, records=2, device="cpu")[0]
        torch.testing.assert_close(together[i].weights, alone.weights, rtol=0, atol=1e-12)
        torch.testing.assert_close(together[i].decoder, alone.decoder, rtol=0, atol=1e-12)
        torch.testing.assert_close(together[i].bias, alone.bias, rtol=0, atol=1e-12)
        assert together[i].loss == pytest.approx(alone.loss, abs=1e-12)


@pytest.mark.parametrize("size", [1, 10**9])
def test_how_a_sweep_is_cut_into_batches_changes_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model and few examples at a time as when the cache is small, or all at once as on a GPU."""
    models = mixed("relu")
    options: dict[str, Any] = {"steps": 60, "batch": 200, "dtype": torch.float64, "records": 2, "device": "cpu"}
    usual = train(models, **options)
    monkeypatch.setattr(training, "ROWS", size)
    monkeypatch.setattr(batched_passes, "CACHED", size)
    other = train(models, **options)
    torch.testing.assert_close(other.encoders, usual.encoders, rtol=0, atol=1e-12)
    torch.testing.assert_close(other.losses, usual.losses, rtol=0, atol=1e-12)


def test_a_sweep_is_torchs_own_optimizer_on_each_model() -> None:
    """Against a plain loop: autograd, `torch.optim.Adam`, the same examples."""
    model = ToyModel(5, 2, 0.3, decaying(5, 0.9), seed=3)
    ours = train([model], steps=60, batch=32, optimizer="adam", anneal=0.0, dtype=torch.float64, device="cpu")[0]
    plan = _Plan([model], CPU)
    parameters, importance = _initial(plan, CPU, torch.float64)
    weights = parameters.encoder[0, 0].clone().requires_grad_()
    bias = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    passes = _passes(plan, parameters, importance, TRAINING, 32)
    optimizer = torch.optim.Adam([weights, bias], lr=1e-3)
    for _ in range(60):
        passes.draw()
        x = passes.examples()[0].T
        loss = ((x - (x @ weights.T @ weights + bias).relu()).square() * importance[0, 0]).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(ours.weights, weights.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.bias, bias.detach(), rtol=0, atol=1e-12)


def test_the_same_seeds_give_the_same_bits_and_others_do_not() -> None:
    models = grid(6, 2, densities=[0.3, 0.1], seeds=2)
    first, second = (train(models, steps=40, batch=64, device="cpu") for _ in range(2))
    assert torch.equal(first.encoders, second.encoders) and torch.equal(first.losses, second.losses)
    assert torch.equal(first.encoder_history, second.encoder_history)
    moved = train([ToyModel(6, 2, 0.3, data_seed=1)], steps=40, batch=64, device="cpu")
    assert not torch.equal(first[0].weights, moved[0].weights)
    assert not torch.equal(first[0].weights, first[1].weights)


def test_what_pads_smaller_models_stays_zero() -> None:
    trained = train(grid([6, 4], [3, 2], densities=0.2, kind="privileged"), steps=50, batch=64, device="cpu")
    small = trained.models.index(ToyModel(4, 2, 0.2, kind="privileged"))
    assert trained[small].weights.shape == (2, 4) and trained[small].decoder.shape == (4, 2)
    assert not trained.encoders[small, 2:].any() and not trained.encoders[small, :, 4:].any()
    assert trained.encoders[small, :2, :4].all()


def test_examples_have_the_densities_and_sets_of_their_model() -> None:
    model = ToyModel(7, 2, (0.2,) * 6 + (0.05,), correlated=((0, 1),), exclusive=((2, 3, 4),))
    x = sample(model, 60_000)
    active = x > 0
    assert x.shape == (60_000, 7) and float(x.min()) == 0 and float(x.max()) <= 1
    torch.testing.assert_close(active.float().mean(dim=0), torch.tensor(model.densities), rtol=0, atol=0.006)
    assert bool((active[:, 0] == active[:, 1]).all()) and not torch.equal(x[:, 0], x[:, 1])
    assert int(active[:, 2:5].sum(dim=1).max()) == 1
    assert float((active[:, 0] & active[:, 5]).float().mean()) == pytest.approx(0.04, abs=0.004)
    for i in range(7):
        assert float(x[active[:, i], i].mean()) == pytest.approx(0.5, abs=0.02)
    plain = sample(ToyModel(2, 1, 0.1), 60_000)
    assert float(plain[plain > 0].mean()) == pytest.approx(0.5, abs=0.01)
    signed = sample(ToyModel(2, 1, 0.2, kind="absolute"), 60_000)
    assert float((signed != 0).float().mean()) == pytest.approx(0.2, abs=0.006)
    values = signed[signed != 0]
    assert float(values.mean()) == pytest.approx(0, abs=0.02) and float(values.abs().mean()) == pytest.approx(
        0.5, abs=0.01
    )


def test_the_loss_reported_is_the_models_own_on_new_examples() -> None:
    trained = train(grid(5, 2, densities=0.2, importance=decaying(5, 0.7)), steps=200, batch=128, device="cpu")
    x = sample(trained.models[0], 60_000, seed=9)
    weights = torch.tensor(trained.models[0].importances)
    mine = float(((trained[0](x) - x).square() * weights).sum(dim=1).mean())
    assert trained[0].loss == pytest.approx(mine, rel=0.03)
    assert trained.loss_history[0, 0] > trained.loss_history[-1, 0]
    losses, directions = trained.history(0)
    assert losses.shape == (len(trained.steps),) and directions.shape == (len(trained.steps), 5, 2)
    torch.testing.assert_close(directions[-1], trained[0].directions)


def test_best_is_the_run_of_least_loss_of_each_setting() -> None:
    trained = train(grid(5, 2, densities=[0.3, 0.1], seeds=3), steps=30, batch=64, device="cpu")
    best = trained.best()
    assert [m.densities[0] for m in best.models] == [0.3, 0.1]
    assert [float(v) for v in best.losses] == [float(trained.losses[:3].min()), float(trained.losses[3:].min())]
    described = trained.describe()
    assert len(described["models"]) == 2 and len(described["models"][0]["losses"]) == 3
    assert described["models"][0]["loss"] == min(described["models"][0]["losses"])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ToyModel(0, 1), "features=0"),
        (lambda: ToyModel(2, True), "hidden=True"),
        (lambda: ToyModel(2, 1, 0.0), "above 0"),
        (lambda: ToyModel(2, 1, 1.5), "at most 1"),
        (lambda: ToyModel(2, 1, (0.1, 0.1, 0.1)), "3 numbers of density"),
        (lambda: ToyModel(2, 1, importance=-1.0), "at least 0"),
        (lambda: ToyModel(2, 1, importance=(0.0, 0.0)), "not all 0"),
        (lambda: ToyModel(2, 1, importance="much"), "a number"),  # type: ignore[arg-type]
        (lambda: ToyModel(2, 1, kind="tanh"), "privileged"),  # type: ignore[arg-type]
        (lambda: ToyModel(2, 1, seed=-1), "seed=-1"),
        (lambda: ToyModel(4, 1, correlated=((0, 1), (1, 2))), "overlap"),
        (lambda: ToyModel(2, 1, exclusive=((0, 2),)), "feature 2"),
        (lambda: ToyModel(3, 1, 0.4, exclusive=((0, 1, 2),)), "1/3"),
        (lambda: ToyModel(2, 1, (0.1, 0.2), correlated=((0, 1),)), "one density"),
        (lambda: ToyModel(2, 1, correlated=((0,),)), "at least two"),
        (lambda: grid(5, 2, seeds=0), "at least one"),
        (lambda: density_schedule(3, 0.0), "above 0"),
        (lambda: decaying(3, -1.0), "above 0"),
        (lambda: train([]), "at least one"),
        (lambda: train([ToyModel(2, 1), ToyModel(2, 1, kind="linear")]), "one kind"),
        (lambda: train(grid(2, 1), steps=0), "steps=0"),
        (lambda: train(grid(2, 1), lr=0.0), "lr=0"),
        (lambda: train(grid(2, 1), anneal=2.0), "anneal=2"),
        (lambda: train(grid(2, 1), optimizer="sgd"), "adamw"),  # type: ignore[arg-type]
        (lambda: train(grid(2, 1), dtype=torch.float16), "float32"),
        (lambda: train(grid(2, 1), device="abacus"), "abacus"),
        (lambda: train(grid(2, 1), steps=30, lr=1e30, device="cpu"), "diverged"),
    ],
)
def test_what_cannot_be_trained_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(CircuitsError, match=says) as refused:
        make()
    assert isinstance(refused.value, ToyError) or says == "abacus"


def test_picking_models_out_of_range_is_refused() -> None:
    trained = train(grid(2, 1), steps=2, batch=8, records=2, device="cpu")
    for wrong in ([], [1]):
        with pytest.raises(ToyError, match="numbered"):
            trained.pick(wrong)
