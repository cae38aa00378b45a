"""What must hold of any such dictionary, each the trace of a mistake somebody made, and input that must do no harm.

Where the invariants of the core are tested, by their numbers in the survey that the design rests on:

1 TopK of all latents is ReLU, keeps k, order and ties, BatchTopK's k * N: test_architectures; ties in training: here.
2 an orthonormal dictionary is exact, for every architecture: here (TopK: test_architectures).
3 FVU of mean, truth and zero, of data doubled or split: test_metrics.
4 AuxK: test_dead; that it changes nothing while nothing is dead: here.
5 rows of length one, no gradient along them: test_training; at every step of every architecture: here.
6 folding of length, scale and mean: test_base.
8 the estimates of JumpReLU: test_architectures; that they are what the loss passes on: here.
10 resuming bit for bit: test_checkpoints, and test_distributed for two processes.
11 last prefix, falling errors: test_architectures; less absorption: here.
14 a gate with the magnitudes' weights is a ReLU: test_architectures. 16 counted operations: test_architectures.
The recovery of planted features, whatever the mean: test_training.
"""

from __future__ import annotations

import dataclasses
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import sae
from sae.architectures import sparse_ops
from sae.architectures.kernels import Select
from sae.data.streams import TensorStream
from sae.evaluation import metrics
from sae.training.checkpoint import read_checkpoint
from sae.training.input_normalization import statistics_of
from sae.training.sae_trainer import SAETrainer
from sae.training.settings import TrainingSettings
from tests.sae.planted import ARCHITECTURES, acts, features, name_of, scrambled, small, sparse_sums

SETTINGS: dict[str, Any] = {"steps": 24, "batch_size": 64, "report_every": 4, "lr": 3e-3, "statistics_samples": 256}

# -- 1, 2 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("select", "k"), [(sparse_ops.topk(3), 3), (sparse_ops.batch_topk(3), 3)], ids=["topk", "batch"]
)
def test_ties_in_training_are_broken_alike_every_time_and_just_as_many_are_kept(select: Select, k: int) -> None:
    pre = torch.ones(20, 12)
    pre[:, 7:] = 0.5
    values, pattern = select(pre)
    assert len(values) == 20 * k and bool((values == 1).all())
    assert len({(int(r), int(c)) for r, c in zip(pattern.rows, pattern.columns, strict=True)}) == 20 * k
    for _ in range(3):
        again, same = select(pre.clone())
        assert torch.equal(again, values) and torch.equal(same.rows, pattern.rows)
        assert torch.equal(same.columns, pattern.columns)


EXACT: list[sae.SAEConfig] = [
    sae.ReLU(latents=10),
    sae.Gated(latents=10),
    sae.TopK(latents=10, k=3),
    sae.BatchTopK(latents=10, k=3),
    sae.JumpReLU(latents=10, threshold=0.1),
    sae.Matryoshka(latents=10, k=3, groups=(4, 6)),
]
EXACT += [
    small(cls, latents=10)
    for name, cls in sae.list_architectures().items()
    if name not in {config.architecture for config in EXACT}
]


def sparse_codes(n: int = 40) -> Tensor:
    """`(n, 10)` codes with three latents active each, at 0.5 or more."""
    drawn = torch.rand(n, 10, generator=torch.Generator().manual_seed(1)).topk(3).indices
    return torch.zeros(n, 10).scatter(1, drawn, 1.0) * torch.linspace(0.5, 2, n)[:, None]


@pytest.mark.parametrize("config", EXACT, ids=name_of)
def test_an_orthonormal_dictionary_is_exact_on_sparse_codes(config: sae.SAEConfig) -> None:
    assert {c.architecture for c in EXACT} == set(sae.list_architectures())
    directions = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(0)))[0]
    model = sae.build(config, 10)
    with torch.no_grad():
        model.encoder.copy_(directions)
        model.decoder.copy_(directions)
        if isinstance(config, sae.BatchTopK):
            model.threshold.fill_(0.1)  # type: ignore[union-attr]
    codes = sparse_codes()
    x = codes @ directions
    threshold = 1e-4  # rounding makes tiny latents of zeros where nothing selects
    latents = model.encode(x).detach()
    torch.testing.assert_close(latents, codes, rtol=0, atol=1e-5)
    found = metrics.reconstruction(model, x, baselines=False)
    assert found.fvu < 1e-10 and metrics.l0((latents > threshold).float()) == 3.0
    assert metrics.reconstruction(model, x @ directions, baselines=False).fvu > 0.1  # not of other vectors
    if config.architecture in ("topk", "batchtopk", "matryoshka"):  # nor does a step of training find an error
        losses = model.losses(x, x)
        assert float(losses.squared_error) < 1e-9 and int(losses.fired.sum()) == 3 * 40


# -- 4, 5 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [sae.TopK, sae.BatchTopK, sae.Matryoshka])
def test_auxk_and_resampling_change_no_bit_while_nothing_is_dead(kind: type[sae.TopK]) -> None:
    x = sparse_sums(features(n=20, d=10), 1000)
    configs = [kind(latents=48, k=2, revive=how, name=how) for how in ("none", "auxk", "resample")]  # type: ignore[arg-type]
    runs = sae.train(x, configs, dead_after=10**6, **SETTINGS)
    for run in runs[1:]:
        assert [dataclasses.replace(r, name="") for r in run.reports] == [
            dataclasses.replace(r, name="") for r in runs[0].reports
        ]
        assert torch.equal(run.sae.decoder, runs[0].sae.decoder)
    dying = sae.train(x, configs, dead_after=100, **SETTINGS)
    for run in dying[1:]:  # the control: with dead ones they do change something
        assert max(r.dead for r in run.reports) > 0 and not torch.equal(run.sae.decoder, dying[0].sae.decoder)


@pytest.mark.parametrize("config", ARCHITECTURES, ids=name_of)
def test_rows_have_length_one_after_every_step(config: sae.SAEConfig) -> None:
    x = sparse_sums(features(n=20, d=10), 2000, offset=3.0)
    statistics = statistics_of(x)
    settings = TrainingSettings(steps=20, warmup=2, lr=0.05, dead_after=300).resolved(100)
    trainer = SAETrainer(
        config if ("revive", "resample") in config.refused else dataclasses.replace(config, revive="resample"),
        "one",
        statistics,
        settings,
        torch.device("cpu"),
    )
    before = trainer.sae.decoder.detach().clone()
    for step in range(20):
        trainer.learn((x[100 * step :][:100] - statistics.mean) * statistics.scale)
        if step % 4 == 3:
            trainer.report()  # and after resampling
        off = float((trainer.sae.decoder.detach().norm(dim=1) - 1).abs().max())
        assert off < 1e-6 if trainer.sae.unit_decoder else off >= 0
    assert float((trainer.sae.decoder.detach() - before).norm(dim=1).mean()) > 0.05


# -- 8 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", ["l0", "tanh"])
def test_thresholds_get_the_estimate_times_what_the_loss_asks_of_their_latents(penalty: Any) -> None:
    """By the formulas: near a threshold, -(theta / eps) dL/dz, and -1 / eps per latent counted."""
    config = sae.JumpReLU(latents=24, penalty=penalty, coefficient=0.7, bandwidth=0.6)
    model, x = scrambled(config, dtype=torch.float64), acts(dtype=torch.float64)
    model.losses(x, x).total.backward()
    with torch.no_grad():
        pre, theta = model.dense_pre(x), model.threshold
        assert isinstance(theta, Tensor)
        z = pre.relu() * (pre > theta)
        near = ((pre - theta).abs() < 0.3).double()
        to_z = 2 * (z @ model.decoder + model.decoder_bias - x) @ model.decoder.T / x.numel()
        if penalty == "l0":
            expected = (-theta / 0.6 * near * to_z).sum(dim=0) - 0.7 * near.sum(dim=0) / 0.6 / x.numel()
        else:
            length = model.decoder.norm(dim=1)
            to_z += 0.7 * 4 * length * (1 - torch.tanh(4 * z * length).square()) / x.numel()
            expected = (-theta / 0.6 * near * to_z).sum(dim=0)
    assert int((near.sum(dim=0) > 0).sum()) > 20
    torch.testing.assert_close(model.threshold.grad, expected, rtol=1e-10, atol=1e-12)  # type: ignore[union-attr]


# -- 11 -----------------------------------------------------------------------------------------------

PARENTS, CHILDREN = 6, 4


def tree(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of orthogonal features, where a child (probability .2) only comes with its parent (.15)."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(32, 32, generator=g))[0][: PARENTS * (CHILDREN + 1)]
    parents = torch.rand(n, PARENTS, generator=g) < 0.15
    children = (torch.rand(n, PARENTS, CHILDREN, generator=g) < 0.2) & parents[:, :, None]
    codes = torch.cat([parents, children.flatten(1)], dim=1).float()
    return codes * (0.5 + torch.rand(codes.shape, generator=g)) @ directions, directions, children


def absorption(model: sae.SAE, x: Tensor, directions: Tensor, children: Tensor) -> tuple[float, float]:
    """How often the parent's latent is silent where a child is there, and how far the child's has the parent in it."""
    cosines = F.normalize(model.write) @ directions.T
    fires = model.encode(x) > 0
    there = children.permute(1, 2, 0).flatten(0, 1)
    parent = torch.arange(PARENTS).repeat_interleave(CHILDREN)
    silent = ~fires[:, cosines[:, parent].argmax(dim=0)].T
    lean = cosines[cosines[:, PARENTS:].argmax(dim=0), parent]
    return float((silent & there).sum() / there.sum()), float(lean.mean())


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_nested_dictionaries_absorb_less_of_a_parent_into_its_children(seed: int) -> None:
    """Source of the tree: Bussmann et al. 2025. BatchTopK, the same but for the nesting, is the control."""
    x, directions, children = tree(20_000, seed)
    configs = [
        sae.TopK(latents=36, k=1, seed=seed),
        sae.BatchTopK(latents=36, k=1, seed=seed),
        sae.Matryoshka(latents=36, k=1, groups=(PARENTS, 36 - PARENTS), seed=seed),
    ]
    runs = sae.train(x, configs, steps=400, batch_size=256, lr=5e-3, seed=seed)
    with torch.no_grad():
        top, batch, nested = (absorption(run.sae, x[:8000], directions, children[:8000]) for run in runs)
    assert nested[0] < 0.75 * batch[0] and nested[0] < 0.75 * top[0] and min(batch[0], top[0]) > 0.7
    assert nested[1] < 0.75 * batch[1] and nested[1] < 0.75 * top[1] and min(batch[1], top[1]) > 0.35


# -- input that must do no harm -----------------------------------------------------------------------


class Changed(TensorStream):
    """Vectors of which one batch, the `at`-th since the start, is made something else."""

    def __init__(self, at: int, change: Any) -> None:
        super().__init__(sparse_sums(features(n=20, d=10), 1024), 64)
        self.at, self.change = at, change

    def __next__(self) -> Tensor:
        batch = super().__next__()
        number = (self.epoch * 1024 + self.cursor) // 64
        return self.change(batch) if number == self.at else batch  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.index_fill(0, torch.tensor([3]), torch.nan), "1 of 64 activation vectors have values that"),
        (lambda b: b[:0], "the tensor is empty"),
        (lambda b: b[:, :9], "reads 10 channels; the activations have 9"),
        (lambda b: b[0], r"activations are \(N, d\)"),
        (lambda b: b.long(), "float tensor"),
    ],
    ids=["nan", "empty", "narrow", "one vector", "integers"],
)
def test_a_bad_batch_after_hours_loses_nothing(change: Any, message: str, tmp_path: Path) -> None:
    """With a checkpoint or without one: what was learned until then is there."""
    config = sae.TopK(latents=24, k=3)
    with pytest.raises(sae.TrainingError, match=f"batch 10 of the stream: .*{message}") as caught:
        sae.train(Changed(10, change), config, checkpoint=tmp_path / "c", **SETTINGS)
    run = caught.value.runs[0]
    assert run.steps == 9 and run.status.startswith("stopped: batch 10") and not run.sae.training
    saved = read_checkpoint(tmp_path / "c")
    assert saved.step == 9 and torch.equal(saved.tensors[0]["sae.decoder"], run.sae.decoder)
    with pytest.raises(sae.TrainingError, match="batch 10") as caught:
        sae.train(Changed(10, change), config, **SETTINGS)
    assert torch.equal(caught.value.runs[0].sae.decoder, run.sae.decoder)
    sae.save(tmp_path / "saved", caught.value.runs[0])
    assert torch.equal(sae.load(tmp_path / "saved").encode(acts()), run.sae.encode(acts()))


def test_channels_that_never_vary_are_left_alone() -> None:
    x = sparse_sums(features(n=20, d=10), 1000)
    x[:, 4], x[:, 7] = 0.0, 12.5
    run = sae.train(x, sae.TopK(latents=24, k=3), **(SETTINGS | {"steps": 200}))[0]
    out = run.sae(x).detach()
    assert run.status == "finished" and bool(out.isfinite().all())
    left = (out - x).square().mean(dim=0).sqrt()
    assert float(left[[4, 7]].max()) < 0.1 and float(x.std(dim=0)[0]) > 0.3
    with pytest.raises(sae.TrainingError, match="all the same"):
        sae.train(x[:1].repeat(100, 1) * (1 + 1e-9), sae.TopK(latents=24, k=3), **SETTINGS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_vectors_of_another_precision_train_in_float32(dtype: torch.dtype) -> None:
    x = sparse_sums(features(n=20, d=10), 1000).to(dtype)
    run = sae.train(x, sae.TopK(latents=24, k=3), **SETTINGS)[0]
    same = sae.train(x.float(), sae.TopK(latents=24, k=3), **SETTINGS)[0]
    assert run.sae.decoder.dtype == torch.float32 and run.reports == same.reports


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_checkpoint_cut_short_anywhere_is_an_error_and_stays(share: float, tmp_path: Path) -> None:
    file, x = tmp_path / "c", sparse_sums(features(n=20, d=10), 1000)
    sae.train(x, sae.TopK(latents=24, k=3), checkpoint=file, **SETTINGS)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(sae.FormatError, match="is damaged: "):
        sae.train(x, sae.TopK(latents=24, k=3), checkpoint=file, **SETTINGS)
    assert file.read_bytes() == whole[: int(share * len(whole))]


def test_a_disk_that_takes_no_more_keeps_the_old_checkpoint_and_the_runs(tmp_path: Path) -> None:
    """The kernel itself refuses to let files grow, as a full disk would."""
    file, x, config = tmp_path / "c", sparse_sums(features(n=20, d=10), 1000), sae.TopK(latents=24, k=3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(report: sae.Report) -> None:
        if report.step == 8:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with pytest.raises(sae.TrainingError, match="cannot write") as caught:
            sae.train(x, config, checkpoint=file, checkpoint_every=6, callbacks=[fill], **SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.runs[0].steps == 12 and caught.value.runs[0].status.startswith("stopped: cannot write")
    assert read_checkpoint(file).step == 6 and [p.name for p in tmp_path.iterdir()] == ["c"]
    resumed = sae.train(x, config, checkpoint=file, **SETTINGS)[0]
    assert torch.equal(resumed.sae.decoder, sae.train(x, config, **SETTINGS)[0].sae.decoder)


def test_a_log_that_cannot_be_written_any_more_keeps_the_runs(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()

    def remove(report: sae.Report) -> None:
        (folder / "log.jsonl").unlink()
        folder.rmdir()

    x = sparse_sums(features(n=20, d=10), 1000)
    with pytest.raises(sae.TrainingError, match="cannot write .*No such file") as caught:
        sae.train(x, sae.TopK(latents=24, k=3), log_file=folder / "log.jsonl", callbacks=[remove], **SETTINGS)
    assert caught.value.runs[0].steps == 8


def test_one_vector_one_latent_and_one_channel_are_enough_or_an_error() -> None:
    x = sparse_sums(features(n=20, d=10), 1000)
    with pytest.raises(sae.TrainingError, match="the 24 activation vectors are all the same|all the same"):
        sae.train(x[:1], sae.TopK(latents=24, k=3), **SETTINGS)
    run = sae.train(x[:, :1], sae.TopK(latents=1, k=1), **SETTINGS)[0]
    assert run.sae.encode(x[:, :1]).shape == (1000, 1) and run.status == "finished"
    with pytest.raises(sae.SAEError, match="k=3 is more than the 2 latents"):
        sae.TopK(latents=2, k=3)
    with pytest.raises(sae.SAEError, match="reads 10 channels; the activations have 1"):
        sae.train(x, sae.TopK(latents=24, k=3), **SETTINGS)[0].sae.encode(x[:, :1])
