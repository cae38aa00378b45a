"""The Triton kernels against float64; run by `test_kernels.py`, or directly: `TRITON_INTERPRET=1 pytest THIS_FILE`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import sae
from sae.architectures import kernels, sparse_ops
from sae.architectures.base import TrainingState
from sae.architectures.kernels import Pattern, Select, triton
from sae.training import optimizer
from tests.sae.architectures.test_kernels import drawn, gradients, reference, sorted_first
from tests.sae.planted import acts

DEVICE = "cpu" if triton.interpreted() else "cuda"


@pytest.mark.parametrize("keep", [Select(3), Select(3, "batch")], ids=["topk", "batch"])
def test_forward_and_gradients_are_those_of_dense_float64(keep: Select, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "TILE", 16)
    monkeypatch.setattr(triton, "PIECE", 4)
    monkeypatch.setattr(triton, "PRODUCT", 5 * 16 * 4)  # more than one part
    tensors = [t.detach().to(DEVICE).requires_grad_() for t in drawn(n=9, d=10, m=16)]
    exact = [t.detach().double().cpu().requires_grad_() for t in tensors]
    with kernels.using("triton"):
        values, pattern = sparse_ops.encode(*tensors[:4], keep)
        out = sparse_ops.decode(values, pattern, tensors[4]) + tensors[3]
        ours = gradients(tensors, out)
    wanted = reference(*exact, keep)
    torch.testing.assert_close(out.double().cpu(), wanted, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients(exact, wanted).items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(ours[name].double().cpu(), gradient, rtol=1e-5, atol=1e-5 * scale, msg=name)
    for name in ("encoder", "encoder_bias", "decoder"):
        assert bool((ours[name][[3, 7]] == 0).all()), name


def test_inputs_that_share_a_latent_add_up_in_its_gradient() -> None:
    pattern = Pattern(*(torch.tensor(v, device=DEVICE) for v in ([0, 1, 1], [1, 1, 2], [0, 1])), latents=3)
    values, batch, decoder = (
        torch.tensor(v, device=DEVICE)
        for v in ([2.0, 3.0, 5.0], [[1.0, 10.0], [100.0, 1000.0]], [[7.0, 7.0], [1.0, 2.0], [3.0, 4.0]])
    )
    way = triton.Segments()
    assert way.by_latent(values, pattern, batch).tolist() == [[0, 0], [302, 3020], [500, 5000]]
    assert way.by_input(values, pattern, decoder).tolist() == [[2, 4], [18, 26]]
    assert way.latent_sums(values, pattern).tolist() == [0, 5, 5]
    assert way.dots(pattern, batch, decoder).tolist() == [21, 2100, 4300]


@pytest.mark.parametrize("width", [3, 130])
def test_long_segments_are_added_in_pieces_and_empty_ones_are_zero(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "PIECE", 4)
    g = torch.Generator().manual_seed(0)
    lengths = torch.tensor([0, 9, 1, 0, 4, 8, 0])
    starts = (lengths.cumsum(0) - lengths).to(DEVICE)
    table, weights = torch.randn(5, width, generator=g).to(DEVICE), torch.randn(22, generator=g).to(DEVICE)
    rows = torch.randint(0, 5, (22,), generator=g).to(DEVICE)
    found = triton.long_row_sums(starts, rows, weights, table)
    parts = (weights[:, None] * table[rows]).double().split(lengths.tolist())
    torch.testing.assert_close(found.double(), torch.stack([p.sum(dim=0) for p in parts]), rtol=1e-5, atol=1e-5)
    assert torch.equal(found, triton.long_row_sums(starts, rows, weights, table))


@pytest.mark.parametrize(("m", "levels"), [(5, 1), (64, 10**6), (75, 1), (75, 3), (150, 10**6)])
def test_the_selection_is_that_of_a_sort_whatever_the_ties(
    m: int, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton, "TILE", 16)
    pre = torch.randint(-levels, levels, (3, m), generator=torch.Generator().manual_seed(m)).float()
    values, columns = triton.largest(pre.to(DEVICE), 5)
    wanted, at = sorted_first(pre, 5)
    assert torch.equal(values.cpu(), wanted) and torch.equal(columns.cpu(), at)


def test_signs_and_infinities_are_ordered_and_low_precision_is_read_as_it_is() -> None:
    row = torch.tensor([[0.0, -torch.inf, -1e-38, 3.0, torch.inf, -0.0, -2.0, 1e-38]]).to(DEVICE)
    values, columns = triton.largest(row, 5)
    assert columns.tolist() == [[0, 3, 4, 5, 7]] and values.tolist()[0] == [0, 3, float("inf"), 0, float(row[0, 7])]
    half = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)).bfloat16().to(DEVICE)
    values, columns = triton.largest(half, 4)
    wanted, at = sorted_first(half.float().cpu(), 4)
    assert torch.equal(values.cpu(), wanted) and torch.equal(columns.cpu(), at)


class NoWaiting(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.WAITS, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


def test_a_step_never_waits_for_the_device() -> None:
    x = acts(6, 10).to(DEVICE)
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        float(x.sum())
    for config in (sae.TopK(latents=12, k=2), sae.BatchTopK(latents=12, k=2)):
        model = sae.build(config, 10).to(DEVICE).train()
        adam, before = optimizer.adam(model), model.decoder.detach().clone()
        dead = torch.tensor([2, 5], device=DEVICE)
        with kernels.using("triton"), NoWaiting():
            losses = model.losses(x, x, TrainingState(dead=dead))
            losses.total.backward()
            optimizer.step(model, adam, 1e-2, 1.0)
        assert float((model.decoder.detach() - before).abs().max()) > 1e-4


def test_a_step_gives_the_same_bits_again() -> None:
    x: Tensor = acts(6, 10).to(DEVICE)

    def step() -> list[Tensor]:
        model = sae.build(sae.TopK(latents=12, k=2), 10).to(DEVICE)
        with kernels.using("triton"):
            model.losses(x, x).total.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    assert all(torch.equal(a, b) for a, b in zip(step(), step(), strict=True))
