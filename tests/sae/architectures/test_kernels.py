"""Every way to compute a TopK step gives what dense autograd in float64 gives, and selects what sorting selects."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import sae
from sae.architectures import kernels, sparse_ops
from sae.architectures.base import TrainingState
from sae.architectures.kernels import Pattern, Select, blocked_topk
from sae.architectures.kernels.embedding_bag import Bags
from tests.sae.planted import acts, features, scrambled, sparse_sums

PATHS = ("dense", "bags")
NAMES = ("x", "encoder", "encoder_bias", "decoder_bias", "decoder")


def drawn(n: int = 40, d: int = 12, m: int = 60, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Inputs, encoder, its bias, the decoder's bias, decoder; latents 3 and 7 never fire."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((n, d), (m, d), (m,), (d,), (m, d))
    values = [torch.randn(*shape, generator=g, dtype=torch.float64) for shape in shapes]
    values[2][[3, 7]] = -1e3
    return [value.to(dtype).requires_grad_() for value in values]


def reference(x: Tensor, encoder: Tensor, bias: Tensor, before: Tensor, decoder: Tensor, keep: Select) -> Tensor:
    """The reconstruction as one would write it down."""
    pre = F.linear(x - before, encoder, bias)
    if keep.across == "input":
        mask = torch.zeros_like(pre).scatter(1, pre.topk(keep.k).indices, 1.0)
    else:
        flat = pre.relu().flatten()
        mask = torch.zeros_like(flat).scatter(0, flat.topk(keep.k * len(x)).indices, 1.0).view_as(pre)
    return (pre.relu() * mask) @ decoder + before


def gradients(tensors: list[Tensor], out: Tensor) -> dict[str, Tensor]:
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out)
    found = torch.autograd.grad((out * weight).sum() + out.square().sum(), tensors)
    return dict(zip(NAMES, found, strict=True))


@pytest.mark.parametrize("keep", [Select(4), Select(4, "batch")], ids=["topk", "batch"])
@pytest.mark.parametrize("path", PATHS)
def test_every_path_has_the_forward_and_the_gradients_of_dense_float64(path: str, keep: Select) -> None:
    tensors = drawn()
    exact = [t.detach().double().requires_grad_() for t in tensors]
    with kernels.using(path):
        values, pattern = sparse_ops.encode(*tensors[:4], keep)
        out = sparse_ops.decode(values, pattern, tensors[4]) + tensors[3]
        ours = gradients(tensors, out)
    wanted = reference(*exact, keep)
    torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients(exact, wanted).items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(ours[name].double(), gradient, rtol=1e-5, atol=1e-5 * scale, msg=name)
    assert float(ours["encoder"].abs().sum()) > 0
    for name in ("encoder", "encoder_bias", "decoder"):  # latents that never fire: nothing, not next to nothing
        assert bool((ours[name][[3, 7]] == 0).all()), name


@pytest.mark.parametrize("path", PATHS)
def test_inputs_that_share_a_latent_add_up_in_its_gradient(path: str) -> None:
    """Worked out by hand: latent 1 is on for both inputs (2 and 3), latent 0 for none, latent 2 for the second (5)."""
    pattern = Pattern(torch.tensor([0, 1, 1]), torch.tensor([1, 1, 2]), torch.tensor([0, 1]), latents=3)
    values, batch = torch.tensor([2.0, 3.0, 5.0]), torch.tensor([[1.0, 10.0], [100.0, 1000.0]])
    decoder = torch.tensor([[7.0, 7.0], [1.0, 2.0], [3.0, 4.0]])
    with kernels.using(path):
        way = kernels.path_of(2, 3, 1)
    assert way.by_latent(values, pattern, batch).tolist() == [[0, 0], [302, 3020], [500, 5000]]
    assert way.by_input(values, pattern, decoder).tolist() == [[2, 4], [18, 26]]
    assert way.latent_sums(values, pattern).tolist() == [0, 5, 5]
    assert way.dots(pattern, batch, decoder).tolist() == [21, 2100, 4300]


@pytest.mark.parametrize("path", PATHS)
def test_an_input_without_active_latents_is_reconstructed_as_nothing(path: str) -> None:
    pattern = Pattern(torch.tensor([0, 2]), torch.tensor([1, 0]), torch.tensor([0, 1, 1]), latents=3)
    with kernels.using(path):
        way = kernels.path_of(4, 3, 1)
    assert way.by_input(torch.ones(2), pattern, torch.ones(3, 4))[:, 0].tolist() == [1, 0, 1]


def test_training_along_either_path_leads_to_the_same_dictionary() -> None:
    x = sparse_sums(features(n=20, d=10), 4000, offset=3.0)

    def decoder(path: str) -> Tensor:
        with kernels.using(path):
            return sae.train(x, sae.TopK(latents=24, k=3), steps=30, batch_size=128, lr=3e-3)[0].sae.decoder

    torch.testing.assert_close(decoder("dense"), decoder("bags"), rtol=1e-4, atol=1e-4)
    assert torch.equal(decoder("bags"), decoder("bags"))


# -- the selection ------------------------------------------------------------------------------------


def sorted_first(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest by sorting, the lower column first among equals; columns rising."""
    columns = pre.sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values
    return pre.gather(1, columns), columns


@pytest.mark.parametrize(
    ("n", "m", "k"),
    [(1, 1, 1), (3, 24, 3), (5, 24, 24), (9, 1000, 7), (4, 1000, 400), (33, 4096, 32), (2, 4099, 1), (6, 130, 32)],
)
def test_the_selection_is_that_of_a_sort_whatever_the_shape(n: int, m: int, k: int) -> None:
    g = torch.Generator().manual_seed(n)
    x, weight, bias = torch.randn(n, 8, generator=g), torch.randn(m, 8, generator=g), torch.randn(m, generator=g)
    values, columns = blocked_topk.largest_of_product(x, weight, bias, k)
    wanted, at = sorted_first(torch.addmm(bias, x, weight.T), k)
    assert torch.equal(columns, at)
    torch.testing.assert_close(values, wanted)


def test_cutting_the_batch_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    # whole numbers, so that products are exact however they are cut
    x, weight = (torch.randint(-9, 10, (n, 8), generator=g).float() for n in (50, 300))
    bias = torch.randint(-9, 10, (300,), generator=g).float()
    whole = blocked_topk.largest_of_product(x, weight, bias, 5)
    for rows in (1, 7, 49):
        monkeypatch.setattr(blocked_topk, "BYTES", rows * 300 * 4)
        values, columns = blocked_topk.largest_of_product(x, weight, bias, 5)
        assert torch.equal(values, whole[0]) and torch.equal(columns, whole[1])


@pytest.mark.parametrize("levels", [1, 2, 4, 30, 1000], ids=lambda n: f"{n}-levels")
def test_among_equals_the_lower_latent_wins(levels: int) -> None:
    pre = torch.randint(0, levels, (40, 640), generator=torch.Generator().manual_seed(levels)).float()
    pre[7] = 0.0  # in the middle of others, a row without any difference
    values, columns = torch.empty(40, 9), torch.empty(40, 9, dtype=torch.int64)
    blocked_topk.largest(pre, 9, torch.empty(40, 640, dtype=torch.bool), values, columns)
    wanted, at = sorted_first(pre, 9)
    assert torch.equal(values, wanted) and torch.equal(columns, at)


def test_infinities_are_ordered_and_what_is_no_number_does_not_pass_unseen() -> None:
    pre = torch.randn(6, 320, generator=torch.Generator().manual_seed(0))
    pre[0, 5] = torch.inf
    pre[1, 3:] = -torch.inf
    values, columns = torch.empty(6, 9), torch.empty(6, 9, dtype=torch.int64)
    above = torch.empty(6, 320, dtype=torch.bool)
    blocked_topk.largest(pre, 9, above, values, columns)
    assert torch.equal(values, sorted_first(pre, 9)[0]) and 5 in columns[0]
    pre[4, 17] = torch.nan
    blocked_topk.largest(pre, 9, above, values, columns)
    assert 17 in columns[4] and bool(values[4].isnan().any())
    assert torch.equal(columns[5], sorted_first(pre[5:], 9)[1][0])


@pytest.mark.parametrize("levels", [3, 50, 10**7])
@pytest.mark.parametrize(("n", "m", "count"), [(1, 5, 5), (13, 400, 26), (7, 30, 100), (64, 4096, 2048)])
def test_the_largest_of_a_batch_are_those_of_a_sort(n: int, m: int, count: int, levels: int) -> None:
    pre = torch.randint(0, levels, (n, m), generator=torch.Generator().manual_seed(count)).float()
    values, places = blocked_topk.largest_of_all(pre, count)
    wanted = sorted_first(pre.flatten()[None], count)
    assert torch.equal(values, wanted[0][0]) and torch.equal(places, wanted[1][0])


def test_low_precision_selects_by_what_low_precision_gives() -> None:
    x, encoder, bias, _, _ = (t.detach() for t in drawn(m=600))
    with torch.autocast("cpu", torch.bfloat16):
        values, pattern = Bags().select(x, encoder, bias, Select(4))
    pre = torch.addmm(bias.bfloat16(), x.bfloat16(), encoder.bfloat16().T).float()
    assert torch.equal(pattern.columns.view(-1, 4), sorted_first(pre, 4)[1]) and values.dtype == torch.float32


# -- work and rule ------------------------------------------------------------------------------------


class Counted(Bags):
    """The CPU's path, counting what its sparse operations do."""

    def __init__(self) -> None:
        self.operations = 0

    def by_input(self, values: Tensor, pattern: Pattern, table: Tensor) -> Tensor:
        self.operations += 2 * len(values) * table.shape[1]
        return super().by_input(values, pattern, table)

    def by_latent(self, values: Tensor, pattern: Pattern, table: Tensor) -> Tensor:
        self.operations += 2 * len(values) * table.shape[1]
        return super().by_latent(values, pattern, table)

    def dots(self, pattern: Pattern, left: Tensor, right: Tensor) -> Tensor:
        self.operations += 2 * len(pattern.rows) * left.shape[1]
        return super().dots(pattern, left, right)


def flops(run: Callable[[], Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        run().backward()
    return int(counter.get_total_flops())


def test_operations_are_those_that_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    n, d, m, k = 64, 16, 128, 4
    x, dense = acts(n, d), drawn(n, d, m)
    dense[0] = dense[0].detach()
    assert flops(lambda: reference(*dense, Select(k)).square().sum()) == n * kernels.operations(d, m)
    counted = Counted()
    monkeypatch.setattr(sparse_ops, "path_of", lambda *_: counted)
    model = sae.build(sae.TopK(latents=m, k=k), d)
    products = flops(lambda: model.losses(x, x).total)
    assert counted.operations == n * 8 * k * d
    small = 4 * d * m  # once per batch: the encoder times the decoder's bias, and back
    assert n * 2 * d * m <= products <= n * 2 * d * m + small
    assert products + counted.operations <= n * kernels.operations(d, m, k) + small


def test_dead_latents_cost_only_what_the_dead_ones_need() -> None:
    n, d, m = 64, 16, 128
    model, x = sae.build(sae.TopK(latents=m, k=4), d), acts(n, d)

    def cost(dead: Tensor | None) -> int:
        return flops(lambda: model.losses(x, x, TrainingState(dead=dead)).total)

    assert cost(torch.zeros(0, dtype=torch.long)) == cost(None)
    assert 0 < cost(torch.tensor([5, 9])) - cost(None) <= 12 * 2 * d * n


def test_the_rule_takes_the_sparse_path_where_few_latents_are_active() -> None:
    assert kernels.choose(512, 4096, 32).path == "bags" and kernels.choose(512, 4096, 32).sparse == 2 * 512 * 4096 + (
        8 * 32 * 512
    )
    assert kernels.choose(512, 64, 32).path == "dense"
    assert kernels.choose(512, 4096, 32, "mps").path == "dense"
    assert kernels.choose(512, 256, 32, "cuda").path == "dense"
    with kernels.using("dense"):
        assert kernels.choose(512, 4096, 32).reason == "set by using()"
    assert kernels.choose(512, 4096, 32).path == "bags"
    with pytest.raises(sae.SAEError, match="path='bag': use one of .*'bags'"), kernels.using("bag"):
        pass


def test_the_description_is_json_and_names_a_path_for_every_shape() -> None:
    rows = kernels.describe("cpu")
    assert json.loads(json.dumps(rows)) == rows
    assert all(row["path"] in kernels.PATHS and row["reason"] and row["sparse"] < row["dense"] for row in rows)


def test_importing_the_kernels_does_not_import_triton() -> None:
    code = "import sys, sae; print('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def in_another_process(file: str, environment: dict[str, str]) -> None:
    """Run a file of tests where Triton is not loaded yet: what it was loaded for cannot be changed."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    place = Path(__file__).with_name(file)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place.parents[2])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(900)
def test_triton_kernels_agree_with_the_reference() -> None:
    """On the GPU if there is one, else under Triton's interpreter."""
    interpret = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    in_another_process("triton_kernels.py", {**os.environ, **interpret})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_triton_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    in_another_process("triton_compiled.py", {**plain, "TRITON_CACHE_DIR": str(tmp_path)})


def test_losses_of_both_paths_agree_in_float64_to_the_last_digits() -> None:
    model, x = scrambled(sae.TopK(latents=24, k=3), dtype=torch.float64), acts(dtype=torch.float64)
    losses = {}
    for path in PATHS:
        with kernels.using(path):
            losses[path] = model.losses(x, x)
    torch.testing.assert_close(losses["dense"].total, losses["bags"].total, rtol=1e-12, atol=1e-12)
    assert torch.equal(losses["dense"].fired, losses["bags"].fired)
