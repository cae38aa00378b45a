"""Archetypal, matching-pursuit, group and p-annealed SAEs: what each is, worked out another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp
from torch import Tensor

import sae
from sae.architectures.archetypal import ArchetypalSAE, on_simplex
from sae.architectures.base import TrainingState
from sae.architectures.matching_pursuit import _Pursuit
from tests.sae.planted import acts, features, scrambled, sparse_sums

SETTINGS = {"steps": 250, "batch_size": 256, "lr": 1e-2}


def test_each_recovers_a_planted_dictionary() -> None:
    directions = features(n=48, d=24)
    x = sparse_sums(directions, 10_000, offset=3.0)
    configs = [
        sae.MatchingPursuit(latents=96, k=2), sae.Archetypal(latents=96, k=2), sae.PAnnealing(latents=96, l1=2.0),
        sae.GroupTopK(latents=96, k=4, group=2),
    ]  # fmt: skip
    assert sae.metrics.random_mmcs(96, directions) < 0.65
    for run in sae.train(x, configs, **SETTINGS):  # type: ignore[arg-type]
        assert sae.metrics.mmcs(run.sae.write, directions) > 0.93, run.name


# -- matching pursuit ---------------------------------------------------------------------------------


def pursuit(x: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Matching pursuit of one input as the textbook has it; it ends where no row goes on."""
    residual, latents = x.copy(), np.zeros(len(rows))
    for _ in range(k):
        products = rows @ residual
        j = int(products.argmax())
        if products[j] <= 0:
            break
        latents[j] += products[j]
        residual = residual - products[j] * rows[j]
    return latents


def pursuing(k: int, latents: int = 24, d: int = 6) -> tuple[sae.SAE, Tensor]:
    model, x = scrambled(sae.MatchingPursuit(latents=latents, k=k), d, dtype=torch.float64), acts(40, d)
    with torch.no_grad():
        model.encoder.copy_(model.decoder)
        model.encoder_bias.zero_()
    return model, x.double()


def test_matching_pursuit_takes_off_one_row_after_another() -> None:
    model, x = pursuing(k=8)
    centered = ((x - model.offset) * model.scale).detach().numpy()
    wanted = np.stack([pursuit(row, model.decoder.detach().numpy(), 8) for row in centered])
    assert (np.count_nonzero(wanted, axis=1) < 8).any()  # rows that were chosen again
    np.testing.assert_allclose(model.encode(x).detach().numpy(), wanted, rtol=1e-9, atol=1e-12)
    losses = model.losses(model.normalize(x), model.normalize(x))
    squares = (model(x) - x).square().sum() * model.scale**2
    torch.testing.assert_close(losses.squared_error, squares.detach())
    assert torch.equal(losses.fired, (model.encode(x) > 0).sum(dim=0))


def test_with_orthogonal_rows_it_is_orthogonal_matching_pursuit() -> None:
    rows = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    model, _ = pursuing(k=3, latents=12, d=12)
    with torch.no_grad():
        model.encoder.copy_(rows)
        model.decoder.copy_(rows)
    x = model.offset.detach() + torch.rand(30, 12, dtype=torch.float64) @ rows  # no coefficient below zero
    wanted = orthogonal_mp(rows.T.numpy(), ((x - model.offset.detach()) * model.scale).T.numpy(), n_nonzero_coefs=3)
    np.testing.assert_allclose(model.encode(x).detach().T.numpy(), wanted, atol=1e-12)


def unrolled(x: Tensor, rows: Tensor, k: int) -> Tensor:
    """Reconstructions by the pursuit in plain PyTorch, for autograd to follow."""
    residual = x
    for _ in range(k):
        best, j = (residual @ rows.T).max(dim=1)
        residual = residual - best.relu()[:, None] * rows[j]
    return x - residual


def test_gradients_of_a_pursuit_are_those_of_its_steps() -> None:
    model, x = pursuing(k=5)
    target = torch.randn_like(x)
    model.losses(x, target).total.backward()
    rows, bias = (value.detach().clone().requires_grad_() for value in (model.decoder, model.decoder_bias))
    (target - unrolled(x - bias, rows, 5) - bias).square().mean().backward()
    assert model.decoder.grad is not None and rows.grad is not None and float(rows.grad.abs().max()) > 1e-3
    torch.testing.assert_close(model.decoder.grad, rows.grad)
    torch.testing.assert_close(model.decoder_bias.grad, bias.grad)
    inputs = x[:4].clone().requires_grad_()  # at inference, too
    assert torch.autograd.gradcheck(model.encode, (inputs,))
    products = (rows @ rows.T).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda c, p: _Pursuit.apply(c, p, 5), (inputs @ rows.T, products))


# -- archetypal ---------------------------------------------------------------------------------------


def hull_distance(atom: np.ndarray, points: np.ndarray) -> float:
    """How far an atom is from the convex combinations of points, by nonnegative least squares with sum one."""
    weight = 1e3
    a = np.vstack([points.T, np.full(len(points), weight)])
    shares = nnls(a, np.append(atom, weight))[0]
    return float(np.linalg.norm(shares @ points - atom) / np.linalg.norm(atom))


def test_atoms_without_relaxation_lie_in_the_convex_hull_of_the_data() -> None:
    x = sparse_sums(features(n=20, d=8), 600, offset=3.0)
    configs = [sae.Archetypal(latents=24, k=3, relaxation=r, name=str(r)) for r in (0.0, 0.3)]
    strict, relaxed = (run.sae for run in sae.train(x, configs, steps=150, batch_size=100, lr=3e-3))
    assert isinstance(strict, ArchetypalSAE) and isinstance(relaxed, ArchetypalSAE)
    points, longest = x.double().numpy(), (x - strict.mean).norm(dim=1).max()
    assert max(hull_distance(atom, points) for atom in strict.atoms.double().numpy()) < 1e-5
    beyond = strict.mean + 1.1 * longest * F.normalize(strict.write)  # the control: the same directions, too long
    assert min(hull_distance(atom, points) for atom in beyond.double().numpy()) > 0.01
    combined = (relaxed.mixture @ relaxed.points).norm(dim=1)
    share = relaxed.deviation.norm(dim=1) / combined
    assert 0.29 < float(share.max()) < 0.3 + 1e-5 and float(strict.deviation.abs().max()) == 0
    torch.testing.assert_close(F.normalize(strict.atoms - strict.mean), F.normalize(strict.write))
    torch.testing.assert_close(strict.mixture.sum(dim=1), torch.ones(24))
    assert float(strict.mixture.min()) >= 0 and 1 < float((strict.mixture > 0).sum(dim=1).double().mean()) < 24


def test_atoms_come_back_from_a_file(tmp_path: Path) -> None:
    x = sparse_sums(features(n=20, d=8), 600, offset=3.0)
    run = sae.train(x, sae.Archetypal(latents=24, k=3), steps=20, batch_size=100)[0]
    back = sae.load(sae.save(tmp_path / "s", run))
    assert isinstance(back, ArchetypalSAE) and isinstance(run.sae, ArchetypalSAE)
    torch.testing.assert_close(back.atoms, run.sae.atoms)
    torch.testing.assert_close(F.normalize(back.atoms - run.sae.mean), F.normalize(back.write))


def test_gradients_reach_what_atoms_are_made_of() -> None:
    """By autograd through the combination, instead of by hand."""
    model = sae.build(sae.Archetypal(latents=12, k=3), 6).double()
    x = acts(40, 6, dtype=torch.float64)
    with torch.no_grad():
        model.mixture.copy_(torch.rand(12, 12, generator=torch.Generator().manual_seed(0)))  # type: ignore[operator, union-attr]
    model.constrain()
    mixture, deviation = (getattr(model, n).detach().clone().requires_grad_() for n in ("mixture", "deviation"))
    model.losses(x, x).total.backward()
    assert model.decoder.grad is not None
    model.decoder.grad -= (model.decoder.grad * model.decoder).sum(dim=1, keepdim=True) * model.decoder.detach()
    model.project_gradients()
    rows = F.normalize(mixture @ model.points + deviation)  # type: ignore[operator]
    pre = (x - model.decoder_bias.detach()) @ model.encoder.detach().T
    values, indices = pre.topk(3, dim=1)
    latents = torch.zeros_like(pre).scatter(1, indices, values.relu())
    (x - latents @ rows - model.decoder_bias.detach()).square().mean().backward()
    torch.testing.assert_close(model.mixture.grad, mixture.grad)
    torch.testing.assert_close(model.deviation.grad, deviation.grad)


def test_the_nearest_points_of_a_simplex() -> None:
    """By the sorted thresholds of Duchi et al. 2008."""
    rows = torch.randn(50, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    rows[0], rows[1] = 0.0, torch.eye(17)[3]
    ordered = rows.sort(dim=1, descending=True).values
    bounds = (ordered.cumsum(dim=1) - 1) / torch.arange(1, 18)
    count = (ordered > bounds).sum(dim=1, keepdim=True)
    torch.testing.assert_close(on_simplex(rows), (rows - bounds.gather(1, count - 1)).relu())


# -- groups -------------------------------------------------------------------------------------------


def test_the_longest_groups_are_active_whole() -> None:
    model, x = scrambled(sae.GroupTopK(latents=24, k=6, group=3)), acts()
    pre = model.pre_activations(x).relu()
    lengths = pre.view(-1, 8, 3).norm(dim=2)
    chosen = lengths >= lengths.sort(dim=1).values[:, -2:-1]
    assert torch.equal(model.encode(x), pre * chosen.repeat_interleave(3, dim=1))
    assert model.encode_sparse(x)[0].shape[1] <= 6
    for path in ("dense", "bags"):
        with sae.architectures.kernels.using(path):
            latents = model.encode(model.mean + model.normalize(x) / model.scale)
            losses = model.losses(model.normalize(x), model.normalize(x))
        assert torch.equal(losses.fired, (latents > 0).sum(dim=0))


def test_directions_of_a_plane_gather_in_groups() -> None:
    """Twelve planes, an input in one of them at any angle: latents of a group more often share a plane than those of
    TopK that are as near to each other by number, which do by chance."""
    generator = torch.Generator().manual_seed(0)
    planes = torch.linalg.qr(torch.randn(24, 24, generator=generator))[0].view(12, 2, 24)
    angles = 2 * torch.pi * torch.rand(8000, generator=generator)
    plane = torch.randint(12, (8000,), generator=generator)
    x = (torch.stack([angles.cos(), angles.sin()], dim=1)[:, :, None] * planes[plane]).sum(dim=1)
    within = []
    for run in sae.train(x, [sae.GroupTopK(latents=96, k=4), sae.TopK(latents=96, k=4)], **SETTINGS):  # type: ignore[arg-type]
        own = torch.einsum("md,pad->mpa", run.sae.write, planes).square().sum(dim=2).argmax(dim=1).view(24, 4)
        within.append(float((own == own.mode(dim=1, keepdim=True).values).double().mean()))
    assert within[0] > within[1] + 0.1


# -- p-annealing --------------------------------------------------------------------------------------


def test_the_exponent_falls_and_the_penalty_keeps_its_size() -> None:
    model, x = sae.build(sae.PAnnealing(latents=24, l1=1.0), 10).train(), acts()
    assert [model.exponent(share) for share in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.6, 0.2])  # type: ignore[operator]
    losses = [model.losses(x, x, TrainingState(step, 10)) for step in range(10)]
    penalties = torch.stack([one.parts["lp"] for one in losses])
    torch.testing.assert_close(penalties, penalties[0].expand(10))
    latents = model.activate(model.dense_pre(x)).detach()
    torch.testing.assert_close(penalties[0], latents.sum() / x.numel(), rtol=1e-4, atol=0)


def test_bfloat16_rounds_neither_the_annealed_penalty_nor_a_pursuit() -> None:
    """The sums of latent^p of two steps differ by less than bfloat16 can hold; so do residuals and their rows."""
    model, x, steps = sae.build(sae.PAnnealing(latents=24, l1=1.0), 10).train(), acts(), 1000
    with torch.autocast("cpu", torch.bfloat16):
        latents = model.activate(model.dense_pre(x)).detach().double()
        model.losses(x, x, TrainingState(500, steps))
    latents = latents[latents > 0]
    now, later = ((latents**p).sum() for p in (1 - 0.8 * 0.5, 1 - 0.8 * 0.501))
    assert float(model.strength) - 1 == pytest.approx(float(now / later) - 1, rel=1e-2) and now != later  # type: ignore[arg-type]
    settings = SETTINGS | {"steps": 5}
    runs = [
        sae.train(x, sae.MatchingPursuit(latents=24, k=4), precision=p, **settings)[0]  # type: ignore[arg-type]
        for p in ("float32", "bfloat16")
    ]
    assert torch.equal(runs[0].sae.decoder, runs[1].sae.decoder)


# -- what they are not --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "setting", "message"),
    [
        (sae.MatchingPursuit, {"kind": "transcoder"}, "a transcoder writes something else"),
        (sae.MatchingPursuit, {"frozen": "encoder"}, "its encoder is its decoder"),
        (sae.Archetypal, {"kind": "skip-transcoder"}, "made of inputs"),
        (sae.Archetypal, {"revive": "resample"}, "revive='auxk'"),
        (sae.Archetypal, {"relaxation": -1.0}, "relaxation=-1.0"),
        (sae.PAnnealing, {"p_end": 0}, "p_end=0 must be a number above 0"),
        (sae.GroupTopK, {"k": 6}, "groups of 4 latents: latents=24 and k=6"),
    ],
)
def test_what_an_architecture_cannot_be_is_refused(config: type, setting: dict[str, object], message: str) -> None:
    with pytest.raises(sae.SAEError, match=message):
        config(latents=24, **({"k": 4} if config is not sae.PAnnealing else {}) | setting)


def test_more_points_than_inputs_are_refused() -> None:
    with pytest.raises(sae.SAEError, match="points=30: there are 20 inputs"):
        sae.build(sae.Archetypal(latents=30, k=2), 10).take_examples(acts(20))
