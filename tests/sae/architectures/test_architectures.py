"""What each architecture is, by closed forms and against plain dense PyTorch in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import sae
from sae.architectures import sparse_ops
from sae.architectures.base import TrainingState
from sae.architectures.jumprelu import Jump, Step
from sae.architectures.kernels import Select
from tests.sae.planted import acts, scrambled


def gradients(model: sae.SAE, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def dense_reference(model: sae.SAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, reconstruction and main loss of TopK-like SAEs as one would write them down, all dense."""
    k = model.config.k
    pre = F.linear(x - model.decoder_bias, model.encoder, model.encoder_bias)
    if isinstance(model.config, sae.BatchTopK):
        flat = pre.relu().flatten()
        mask = torch.zeros_like(flat).scatter(0, flat.topk(k * len(x)).indices, 1.0).view_as(pre)
    else:
        mask = torch.zeros_like(pre).scatter(1, pre.topk(k).indices, 1.0)
    latents = pre.relu() * mask
    if isinstance(model.config, sae.Matryoshka):
        ends = model.config.prefixes
        outs = [latents[:, :end] @ model.decoder[:end] + model.decoder_bias for end in ends]
        return latents, outs[-1], sum((x - out).square().mean() for out in outs) / len(ends)
    out = latents @ model.decoder + model.decoder_bias
    return latents, out, (x - out).square().mean()


SPARSE = [sae.TopK(latents=24, k=3), sae.BatchTopK(latents=24, k=3), sae.Matryoshka(latents=24, k=3, groups=(4, 8, 12))]


@pytest.mark.parametrize("config", SPARSE, ids=lambda c: c.title)
def test_sparse_steps_have_the_losses_and_gradients_of_dense_autograd(config: sae.SAEConfig) -> None:
    model, x = scrambled(config, dtype=torch.float64), acts(dtype=torch.float64)
    with torch.no_grad():
        model.encoder_bias[[2, 9]] = -50.0  # two that never fire
    losses = model.losses(x, x)
    latents, out, loss = dense_reference(model, x)
    torch.testing.assert_close(losses.total, loss)
    torch.testing.assert_close(losses.squared_error, (x - out).square().sum())
    torch.testing.assert_close(losses.error, (x - out).square().sum(dim=1))
    assert losses.fired.tolist() == (latents > 0).sum(dim=0).tolist()
    ours, dense = gradients(model, losses.total), gradients(model, dense_reference(model, x)[2])
    assert ours.keys() == dense.keys() == {"encoder", "encoder_bias", "decoder", "decoder_bias"}
    for name, gradient in dense.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-10, atol=1e-12, msg=name)
    silent = latents.sum(dim=0) == 0
    assert (
        bool(silent.any())
        and bool((ours["encoder"][silent] == 0).all())
        and bool((ours["encoder_bias"][silent] == 0).all())
    )


@pytest.mark.parametrize("config", SPARSE, ids=lambda c: c.title)
def test_the_same_in_float32(config: sae.SAEConfig) -> None:
    model, x = scrambled(config), acts()
    ours, dense = gradients(model, model.losses(x, x).total), gradients(model, dense_reference(model, x)[2])
    for name, gradient in dense.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("select", [sparse_ops.topk(3), sparse_ops.batch_topk(3)], ids=["topk", "batch"])
def test_sparse_encode_and_decode_pass_gradcheck_also_for_inputs(select: Select) -> None:
    """With an input that asks for gradients, as in end-to-end training, and a target of another width (transcoder)."""
    g = torch.Generator().manual_seed(0)
    x, encoder = (torch.randn(n, 5, generator=g, dtype=torch.float64, requires_grad=True) for n in (6, 9))
    bias = torch.randn(9, generator=g, dtype=torch.float64, requires_grad=True)
    before = torch.randn(5, generator=g, dtype=torch.float64, requires_grad=True)
    decoder = torch.randn(9, 4, generator=g, dtype=torch.float64, requires_grad=True)

    def step(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        values, pattern = sparse_ops.encode(*tensors[:4], select)
        return sparse_ops.decode(values, pattern, tensors[4]), values

    assert torch.autograd.gradcheck(step, (x, encoder, bias, before, decoder))


def test_the_pattern_by_latent_is_the_transposed_matrix() -> None:
    pre = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    for select in (sparse_ops.topk(4), sparse_ops.batch_topk(4)):
        values, pattern = select(pre)
        dense = torch.zeros(7, 11)
        dense[pattern.rows, pattern.columns] = values
        assert len(values) == 28 and int((dense != 0).sum()) == int((values != 0).sum())
        order, inputs, starts = pattern.transposed
        table = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
        summed = F.embedding_bag(inputs, table, starts, per_sample_weights=values[order], mode="sum")
        torch.testing.assert_close(summed, dense.T @ table)
        assert [int(s) for s in pattern.starts] == [int((pattern.rows < i).sum()) for i in range(7)]


def test_a_sparse_step_does_the_work_of_one_product_and_a_dense_one_of_six() -> None:
    """`2dm` per input against `12dm`, by torch's own counter (which does not count embedding bags: `8kd`)."""
    n, d, m, k = 64, 16, 128, 4
    x = acts(n, d)

    def flops(config: sae.SAEConfig) -> float:
        model = sae.build(config, d)
        with FlopCounterMode(display=False) as counter:
            model.losses(x, x).total.backward()
        return counter.get_total_flops() / (n * d * m)

    assert 2 <= flops(sae.TopK(latents=m, k=k)) < 2 + 8 / n
    assert flops(sae.ReLU(latents=m)) == pytest.approx(12, abs=0.2)


# -- TopK ---------------------------------------------------------------------------------------------


def test_topk_of_all_latents_is_relu() -> None:
    top, relu = scrambled(sae.TopK(latents=24, k=24)), scrambled(sae.ReLU(latents=24))
    assert torch.equal(top.encode(acts()), relu.encode(acts()))


def test_topk_keeps_at_most_k_and_just_k_when_so_many_are_positive() -> None:
    model, x = scrambled(sae.TopK(latents=24, k=5)), acts(200)
    positive = (model.pre_activations(x) > 0).sum(dim=1)
    assert (model.encode(x) > 0).sum(dim=1).tolist() == positive.clamp_max(5).tolist()
    with torch.no_grad():
        model.encoder_bias.sub_(2.5)
    positive = (model.pre_activations(x) > 0).sum(dim=1)
    assert 0 < int((positive < 5).sum()) < 200
    assert (model.encode(x) > 0).sum(dim=1).tolist() == positive.clamp_max(5).tolist()


def test_the_order_of_latents_does_not_matter() -> None:
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    for config in (sae.TopK(latents=24, k=5), sae.BatchTopK(latents=24, k=5)):
        model, shuffled = scrambled(config, dtype=torch.float64), scrambled(config, dtype=torch.float64)
        with torch.no_grad():
            for name in ("encoder", "encoder_bias", "decoder"):
                getattr(shuffled, name).copy_(getattr(model, name)[order])
            if config.architecture == "batchtopk":
                shuffled.threshold.copy_(model.threshold[order])
        x = acts(dtype=torch.float64)
        torch.testing.assert_close(shuffled.encode(x), model.encode(x)[:, order])
        torch.testing.assert_close(shuffled(x), model(x))


def test_ties_are_broken_the_same_way_every_time() -> None:
    model = sae.build(sae.TopK(latents=24, k=5), 10)
    with torch.no_grad():
        model.encoder.copy_(model.encoder[:1].expand(24, -1))
    x = acts()
    x = x[model.encode(x).sum(dim=1) > 0]
    values, indices = model.encode_sparse(x)
    assert bool((values > 0).all()) and len(x) > 10
    for _ in range(3):
        assert torch.equal(model.encode_sparse(x)[1], indices)
    assert torch.equal(model.encode(x), torch.zeros(len(x), 24).scatter(1, indices, values))


def test_an_orthonormal_dictionary_is_exact_on_its_own_sparse_codes() -> None:
    directions = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(0)))[0]
    codes = torch.zeros(40, 10).scatter(
        1, torch.rand(40, 10, generator=torch.Generator().manual_seed(1)).topk(3).indices, 1.0
    )
    codes = codes * torch.linspace(0.5, 2, 40)[:, None]
    model = sae.build(sae.TopK(latents=10, k=3), 10)
    with torch.no_grad():
        model.encoder.copy_(directions)
        model.decoder.copy_(directions)
    x = codes @ directions
    torch.testing.assert_close(model.encode(x), codes, rtol=0, atol=1e-5)
    found = sae.metrics.reconstruction(model, x, baselines=False)
    assert found.fvu < 1e-10 and found.shrinkage == pytest.approx(1, abs=1e-5)


# -- BatchTopK and Matryoshka -------------------------------------------------------------------------


def test_batchtopk_keeps_k_per_input_on_average_over_the_batch() -> None:
    model, x = scrambled(sae.BatchTopK(latents=24, k=3)).train(), acts(60)
    losses = model.losses(x, x)
    assert int(losses.fired.sum()) == 3 * 60
    latents = dense_reference(model, x)[0]
    assert len(set((latents > 0).sum(dim=1).tolist())) > 1  # inputs get what they need


def test_batchtopk_fires_k_latents_on_average_at_inference() -> None:
    model = scrambled(sae.BatchTopK(latents=24, k=3))
    model.threshold.zero_()
    model.threshold_weight.zero_()
    model.train()
    for seed in range(200):
        x = acts(256, seed=seed)
        model.losses(model.normalize(x), model.normalize(x))
    model.eval()
    fresh = acts(5000, seed=999)
    assert sae.metrics.l0(model.encode(fresh)) == pytest.approx(3, rel=0.05)
    before = model.threshold.clone()
    model.losses(fresh, fresh)
    assert torch.equal(model.threshold, before)  # outside of training nothing moves
    model.threshold.zero_()
    model.calibrate(fresh)
    assert int((model.encode(fresh) > 0).sum()) == 3 * 5000


def test_the_running_threshold_starts_without_bias() -> None:
    model = scrambled(sae.BatchTopK(latents=24, k=3)).train()
    model.threshold.zero_()
    model.threshold_weight.zero_()
    x = acts(60)
    smallest = dense_reference(model, x)[0]
    model.losses(x, x)
    torch.testing.assert_close(model.threshold, smallest[smallest > 0].min().detach().expand(24))
    model.losses(x, x)
    torch.testing.assert_close(model.threshold, smallest[smallest > 0].min().detach().expand(24))


def test_the_last_prefix_of_a_matryoshka_is_the_whole_dictionary() -> None:
    model, x = scrambled(sae.Matryoshka(latents=24, k=3, groups=(4, 8, 12))).requires_grad_(False), acts()
    assert model.config.prefixes == (4, 12, 24)
    assert model.prefix_errors(x)[-1] == pytest.approx(float((x - model(x)).square().mean()), rel=1e-5)
    assert sae.Matryoshka(latents=10, k=2).prefixes == (1, 3, 10)


def test_prefix_errors_of_an_ordered_basis_fall() -> None:
    """Principal directions, both signs, in order of their variance: every further one can only help."""
    x = acts(500) * torch.linspace(3, 0.3, 10)
    x = x - x.mean(dim=0)
    basis = torch.linalg.svd(x, full_matrices=False).Vh
    model = sae.build(sae.Matryoshka(latents=20, k=20, groups=(2,) * 10), 10)
    with torch.no_grad():
        rows = torch.stack([basis, -basis], dim=1).flatten(0, 1)
        model.encoder.copy_(rows)
        model.decoder.copy_(rows)
    errors = model.prefix_errors(x)
    assert all(later < earlier for earlier, later in zip(errors, errors[1:], strict=False)) and errors[-1] < 1e-8


# -- JumpReLU -----------------------------------------------------------------------------------------


def test_jumprelu_gradients_are_those_of_the_paper() -> None:
    """Threshold 1, bandwidth 0.1: only what is within 0.05 of the threshold moves it, by -1/0.1."""
    pre = torch.tensor([[0.9], [0.99], [1.0], [1.04], [1.06], [2.0]], dtype=torch.float64, requires_grad=True)
    expected = [0.0, -10.0, -10.0, -10.0, 0.0, 0.0]
    for function in (Jump, Step):
        for i, value in enumerate(expected):
            threshold = torch.ones(1, dtype=torch.float64, requires_grad=True)
            function.apply(pre, threshold, 0.1)[i].sum().backward()
            assert float(threshold.grad) == pytest.approx(value), (function, i)
    pre.grad = None
    Jump.apply(pre, torch.ones(1, dtype=torch.float64), 0.1).sum().backward()
    assert pre.grad[:, 0].tolist() == [0, 0, 0, 1, 1, 1]  # the threshold itself does not fire
    pre.grad = None
    Jump.apply(pre, torch.ones(1, dtype=torch.float64), 0.1, True).sum().backward()
    assert pre.grad[:, 0].tolist() == pytest.approx([0, 10, 10, 11, 1, 1])
    theta = torch.full((1,), 2.0, dtype=torch.float64, requires_grad=True)
    Jump.apply(torch.full((1, 1), 2.01, dtype=torch.float64), theta, 0.1).sum().backward()
    assert float(theta.grad) == pytest.approx(-20)  # theta / bandwidth


def test_thresholds_never_go_below_zero() -> None:
    model = sae.build(sae.JumpReLU(latents=24), 10)
    with torch.no_grad():
        model.threshold.copy_(torch.linspace(-1, 1, 24))
    model.constrain()
    assert (float(model.threshold.detach().min()), float(model.threshold.detach().max())) == (0.0, 1.0)


def test_the_l0_penalty_counts_active_latents() -> None:
    config = sae.JumpReLU(latents=24, penalty="l0", coefficient=0.5, bandwidth=0.1)
    model, x = scrambled(config), acts()
    active = (model.dense_pre(x) > model.threshold).sum()
    assert float(model.losses(x, x, TrainingState(sparsity=0.5)).parts["l0"]) == pytest.approx(
        0.25 * float(active) / x.numel()
    )


# -- ReLU and Gated -----------------------------------------------------------------------------------


def test_the_weighted_l1_does_not_reward_longer_decoder_rows() -> None:
    """Halving latents and doubling rows is the same SAE, and costs the same."""
    model, x = scrambled(sae.ReLU(latents=24, l1=2.0), dtype=torch.float64), acts(dtype=torch.float64)
    before = model.losses(x, x)
    with torch.no_grad():
        model.encoder.div_(2)
        model.encoder_bias.div_(2)
        model.decoder.mul_(2)
    after = model.losses(x, x)
    torch.testing.assert_close(after.total, before.total)
    torch.testing.assert_close(after.parts["l1"], before.parts["l1"])
    assert float(model.losses(x, x, TrainingState(sparsity=0.0)).parts["l1"]) == 0.0


def test_a_gate_with_the_magnitudes_weights_is_a_relu() -> None:
    gated, relu = sae.build(sae.Gated(latents=24), 10), sae.build(sae.ReLU(latents=24), 10)
    with torch.no_grad():
        for model in (gated, relu):
            model.encoder_bias.copy_(torch.linspace(-1, 1, 24))
        gated.magnitude_bias.copy_(gated.encoder_bias)
    torch.testing.assert_close(gated.encode(acts()), relu.encode(acts()))
    with torch.no_grad():
        gated.magnitude_bias.add_(0.5)
    gate = gated.pre_activations(acts())
    torch.testing.assert_close(gated.encode(acts()), (gate + 0.5) * (gate > 0))  # a threshold with a jump


def test_the_gates_own_reconstruction_does_not_move_the_decoder() -> None:
    """The penalty and the gate's loss act on the encoder alone; the decoder sees the reconstruction's error."""
    model, x = scrambled(sae.Gated(latents=24, l1=1.0), dtype=torch.float64), acts(dtype=torch.float64)
    ours = gradients(model, model.losses(x, x).total)
    alone = gradients(
        model, (x - (model.activate(model.dense_pre(x)) @ model.decoder + model.decoder_bias)).square().mean()
    )
    torch.testing.assert_close(ours["decoder"], alone["decoder"])
    assert not torch.allclose(ours["encoder"], alone["encoder"])
