"""Training finds planted features, whatever the mean; many SAEs on one stream are each as if alone."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from pathlib import Path

import pytest
import torch

import sae
from sae.architectures.base import ARCHITECTURES as CLASSES
from sae.data.streams import Rebatched, Replayed, TensorStream
from sae.evaluation import metrics
from sae.training import optimizer
from sae.training.input_normalization import geometric_median, input_statistics, statistics_of
from sae.training.schedule import Schedule, default_lr
from tests.sae.planted import ARCHITECTURES, acts, features, name_of, sparse_sums


def recover(seed: int, offset: float = 0.0, **options: object) -> tuple[float, sae.Run]:
    directions = features(seed)
    x = sparse_sums(directions, 60_000, offset=offset, seed=seed)
    config = sae.TopK(latents=128, k=2, seed=seed)
    run = sae.train(x, config, steps=1000, batch_size=512, lr=1e-3, seed=seed, **options)[0]  # type: ignore[arg-type]
    return metrics.mmcs(run.sae.write, directions), run


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_planted_features_are_recovered(seed: int) -> None:
    found, run = recover(seed)
    control = metrics.random_mmcs(128, features(seed))
    assert found > 0.98 and control < 0.52 and run.status == "finished"
    assert metrics.recovered(run.sae.write, features(seed)) >= 0.98


@pytest.mark.parametrize("offset", [*(pytest.param(mean, marks=pytest.mark.slow) for mean in (2.0, 8.0)), 32.0])
def test_a_mean_however_long_changes_nothing(offset: float) -> None:
    found, run = recover(0, offset)
    assert abs(found - 0.9987) < 0.01
    assert float((run.sae.mean).norm()) == pytest.approx(offset, abs=1.0)


@pytest.mark.slow
def test_without_centering_a_long_mean_kills_most_latents() -> None:
    """The control of the test above."""
    found, run = recover(0, 32.0, normalize=False, bias="zeros")
    assert (
        found < 0.8
        and metrics.dead_fraction(metrics.density(run.sae.encode(sparse_sums(features(), 5000, offset=32.0)))) > 0.5
    )


def short(configs: object, x: torch.Tensor | None = None, **options: object) -> list[sae.Run]:
    x = sparse_sums(features(n=20, d=10), 4000) if x is None else x
    settings: dict[str, object] = {"steps": 40, "batch_size": 128, "report_every": 10, "lr": 1e-3, "dead_after": 600}
    return sae.train(x, configs, **(settings | options))  # type: ignore[arg-type]


def test_several_saes_on_one_stream_are_each_as_if_trained_alone() -> None:
    together = short(ARCHITECTURES)
    for config, run in zip(ARCHITECTURES, together, strict=True):
        alone = short(config)[0]
        assert alone.name == run.name and alone.reports == run.reports
        for name, value in alone.sae.state_dict().items():
            assert torch.equal(value, run.sae.state_dict()[name]), (run.name, name)


def test_runs_of_the_same_settings_get_different_names_and_seeds_different_weights() -> None:
    config = sae.TopK(latents=24, k=3)
    runs = short([config, dataclasses.replace(config, seed=1), config])
    assert [r.name for r in runs] == ["topk-24-k3", "topk-24-k3-run2", "topk-24-k3-run3"]
    assert torch.equal(runs[0].sae.decoder, runs[2].sae.decoder)
    assert not torch.equal(runs[0].sae.decoder, runs[1].sae.decoder)


@pytest.mark.parametrize("config", ARCHITECTURES, ids=name_of)
def test_every_architecture_learns(config: sae.SAEConfig) -> None:
    """Better than the mean, and than random directions with as many active."""
    x = sparse_sums(features(n=20, d=10), 6000, offset=5.0)
    run = short(config, x, steps=300, lr=3e-3)[0]
    found = metrics.reconstruction(run.sae, x[:2000])
    assert found.fvu < 0.6 and found.fvu < 0.8 * found.baselines["random"].fvu
    assert 0.5 < found.l0 < 12 and run.status == "finished"
    if run.sae.unit_decoder:
        assert float((run.sae.decoder.norm(dim=1) - 1).abs().max()) < 1e-6
    assert not run.sae.training and not any(p.requires_grad for p in run.sae.parameters())


def test_after_a_step_rows_have_length_one_and_the_gradient_had_nothing_along_them() -> None:
    model = sae.build(sae.TopK(latents=24, k=3), 10)
    adam, x, rows = optimizer.adam(model), acts(), model.decoder.detach()
    model.losses(x, x).total.backward()
    gradient = model.decoder.grad
    assert gradient is not None and float((gradient * rows).sum(dim=1).abs().max()) > 1e-3
    optimizer.remove_parallel(model)
    assert float(((gradient * rows).sum(dim=1).abs() / gradient.norm()).max()) < 1e-6
    before = rows.clone()
    optimizer.step(model, adam, 0.1, 1.0)
    assert float((rows.norm(dim=1) - 1).abs().max()) < 1e-6 and not torch.equal(rows, before)
    assert all(p.grad is None for p in model.parameters())


def test_a_step_leaves_nothing_along_the_rows_in_the_moments_of_the_decoder() -> None:
    model = sae.build(sae.TopK(latents=24, k=3), 10)
    adam, x, rows = optimizer.adam(model), acts(), model.decoder.detach().clone()
    model.losses(x, x).total.backward()
    optimizer.step(model, adam, 0.1, 1.0)
    moment = adam.state[model.decoder]["exp_avg"]
    assert float(moment.norm()) > 0
    assert float(((moment * rows).sum(dim=1).abs() / moment.norm()).max()) < 1e-6


def test_the_geometric_median_stays_where_an_outlier_moves_the_mean() -> None:
    cloud = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    x = torch.cat([cloud, -cloud, torch.full((10, 4), 500.0)])
    assert float(geometric_median(x).norm()) < 0.05 < 4 < float(x.mean(dim=0).norm())


def test_inputs_are_centerd_and_scaled_to_unit_variance() -> None:
    x = 3 * acts(5000) + torch.linspace(-20, 20, 10)
    found = statistics_of(x)
    normal = (x - found.mean) * found.scale
    assert float(normal.mean(dim=0).abs().max()) < 1e-4 and float(normal.square().mean()) == pytest.approx(1, rel=1e-5)
    assert statistics_of(x, normalize=False).scale == 1.0
    assert float(statistics_of(x, bias="zeros").bias.abs().max()) == 0.0
    stream = TensorStream(x, 100)
    before = stream.tell()
    input_statistics(stream, samples=1000)
    assert stream.tell() == before


def test_bfloat16_products_leave_master_weights_and_thresholds_in_float32() -> None:
    x = sparse_sums(features(n=20, d=10), 4000)
    for config in (
        sae.TopK(latents=24, k=3),
        sae.TopK(latents=24, k=12),  # by the dense path
        sae.BatchTopK(latents=24, k=3),
        sae.JumpReLU(latents=24, coefficient=1.0),
    ):
        run = short(config, x, precision="bfloat16", lr=3e-3)[0]
        exact = short(config, x, lr=3e-3)[0]
        assert {v.dtype for v in run.sae.state_dict().values()} == {torch.float32}
        assert run.reports[-1].fvu == pytest.approx(exact.reports[-1].fvu, abs=0.06), config.title
        assert not torch.equal(run.sae.decoder, exact.sae.decoder)  # it was indeed of another precision


# -- schedules and reports ----------------------------------------------------------------------------


def test_rates_rise_stay_and_fall() -> None:
    schedule = Schedule(steps=100, warmup=9, decay=0.2, sparsity_warmup=4)
    assert [schedule.lr(s) for s in (0, 4, 9, 50, 80)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert [schedule.lr(s) for s in (90, 99)] == pytest.approx([0.5, 0.05])
    assert [schedule.sparsity(s) for s in (0, 3, 4, 99)] == pytest.approx([0.2, 0.8, 1, 1])
    assert default_lr(2**14) == pytest.approx(2e-4) and default_lr(2**12) == pytest.approx(4e-4)
    assert short(sae.TopK(latents=24, k=3, lr=5e-3), decay=0.0)[0].reports[-1].lr == pytest.approx(5e-3)


def test_reports_say_what_the_batches_were_like(tmp_path: Path) -> None:
    seen: list[sae.Report] = []
    file = tmp_path / "log.jsonl"
    run = short(sae.TopK(latents=24, k=3), callbacks=[seen.append], log_file=file)[0]
    assert tuple(seen) == run.reports and [r.step for r in seen] == [10, 20, 30, 40]
    assert [r.samples for r in seen] == [1280, 2560, 3840, 5120]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines == [r.describe() for r in seen]
    assert seen[-1].fvu < seen[0].fvu and seen[0].l0 <= 3
    assert json.loads(json.dumps(run.describe()))["last"]["step"] == 40
    whole = short(sae.TopK(latents=24, k=3), steps=1, report_every=1, decay=0.0)[0].reports[0]
    assert whole.loss == pytest.approx(whole.fvu, rel=0.2)  # the loss is in units of the variance


def test_progress_counts_samples() -> None:
    told: list[tuple[int, int]] = []
    short(sae.TopK(latents=24, k=3), steps=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(128, 384), (256, 384), (384, 384)]


def test_dead_is_counted_in_samples() -> None:
    """Half of the latents look at nothing; they are dead from `dead_after` samples on and not before."""
    x = sparse_sums(features(n=20, d=10), 4000)
    x[:, 5:] = 0.0

    def ever_dead(samples: int, batch: int) -> list[float]:
        config = sae.TopK(latents=24, k=1, revive="none")
        options = {"dead_after": samples, "batch_size": batch, "steps": 1600 // batch, "warmup": 0, "lr": 1e-6}
        made = short(config, x, report_every=1, **options)[0]
        return [r.samples for r in made.reports if r.dead > 0]

    assert ever_dead(800, 100)[0] == 800
    assert ever_dead(800, 200)[0] == 800


def test_boards_of_other_people_get_every_number() -> None:
    logged: list[dict[str, float]] = []

    class Board:
        def log(self, values: dict[str, float]) -> None:
            logged.append(values)

    short(sae.ReLU(latents=24, l1=1.0), callbacks=[sae.wandb(Board())])
    assert len(logged) == 4 and logged[-1]["samples"] == 5120
    assert {"relu-24-l1_1/fvu", "relu-24-l1_1/parts/l1"} < logged[0].keys()


# -- streams ------------------------------------------------------------------------------------------


def test_a_tensor_stream_gives_every_vector_once_an_epoch_and_finds_its_place_again() -> None:
    x = torch.arange(10.0)[:, None]
    stream = TensorStream(x, batch_size=4, seed=3)
    drawn = torch.cat([next(stream) for _ in range(5)])[:, 0].tolist()
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:] and drawn[:10] != list(range(10))
    again = TensorStream(x, batch_size=4, seed=3)
    for _ in range(3):
        next(again)
    place = json.loads(json.dumps(again.tell()))
    rest = [next(again)[:, 0].tolist() for _ in range(4)]
    fresh = TensorStream(x, batch_size=4, seed=3)
    fresh.seek(place)
    assert [next(fresh)[:, 0].tolist() for _ in range(4)] == rest
    assert torch.cat([next(TensorStream(x, 10, shuffle=False))]).equal(x)
    with pytest.raises(sae.TrainingError, match="digest is"):
        TensorStream(x + 1, batch_size=4, seed=3).seek(place)
    with pytest.raises(sae.TrainingError, match="seed is 4, was 3"):
        TensorStream(x, batch_size=4, seed=4).seek(place)


@pytest.mark.parametrize("size", [1, 3, 4, 7, 9])
def test_rebatching_keeps_vectors_and_order_and_finds_its_place(size: int) -> None:
    x = torch.arange(12.0)[:, None]
    plain = torch.cat([b for b, _ in zip(TensorStream(x, 4), range(20), strict=False)])
    stream = Rebatched(TensorStream(x, 4), size)
    batches = [next(stream) for _ in range(8)]
    assert torch.equal(torch.cat(batches), plain[: 8 * size])
    for at in range(4):
        one = Rebatched(TensorStream(x, 4), size)
        for _ in range(at):
            next(one)
        two = Rebatched(TensorStream(x, 4), size)
        two.seek(json.loads(json.dumps(one.tell())))
        assert torch.equal(next(two), batches[at]) and torch.equal(next(two), batches[at + 1])


def test_plain_iterables_train_until_they_end(caplog: pytest.LogCaptureFixture) -> None:
    x = sparse_sums(features(n=20, d=10), 4000)
    batches = list(x.split(200))
    with caplog.at_level(logging.WARNING):
        run = short(sae.TopK(latents=24, k=3), (b for b in batches), batch_size=None, statistics_samples=4000)[0]  # type: ignore[arg-type]
    assert run.steps == 20 and run.samples == 4000 and run.status == "the stream ended after 20 of 40 steps"
    assert "stream ended" in caplog.text and run.reports[-1].step == 20
    same = short(sae.TopK(latents=24, k=3), TensorStream(x, 200, shuffle=False), batch_size=None)[0]
    assert same.reports[0] == run.reports[0]
    replay = Replayed(iter(batches))
    assert torch.equal(next(replay), batches[0])
    replay.seek({"batches": 0})
    assert torch.equal(next(replay), batches[0]) and torch.equal(next(replay), batches[1])


def test_samples_are_rounded_up_to_whole_steps() -> None:
    assert short(sae.TopK(latents=24, k=3), steps=None, samples=300)[0].steps == 3


# -- what goes wrong ----------------------------------------------------------------------------------


def test_what_cannot_be_trained_on_says_why(tmp_path: Path) -> None:
    config, good = sae.TopK(latents=24, k=3), acts(500)
    bad = good.clone()
    bad[7, 3] = torch.nan
    for data, options, message in (
        (bad, {}, "1 of 500 activation vectors have values that are not finite"),
        (torch.zeros(0, 10), {}, "empty"),
        (torch.full((500, 10), 2.5), {}, "all the same"),
        (good[0], {}, r"activations are \(N, d\)"),
        (good[:, :, None, None], {}, "movedim"),
        (iter([]), {"batch_size": None}, "gave no activations"),
        (7, {}, "got int"),
        (good, {"steps": None}, "say how long to train"),
        (good, {"samples": 5}, "say how long to train"),
        (good, {"steps": 0}, "steps=0"),
        (good, {"batch_size": -1}, "batch_size=-1"),
        (good, {"precision": "float16"}, "use one of 'float32', 'bfloat16'"),
        (good, {"bias": "median"}, "use one of 'geometric_median', 'mean', 'zeros'"),
        (good, {"decay": 2.0}, "decay=2.0"),
        (good, {"warmup": 41}, "warmup=41"),
        (good, {"lr": -1.0}, "lr=-1.0"),
        (good, {"clip": 0.0}, "clip=0.0"),
        (good, {"dead_after": 0}, "dead_after=0"),
        (good, {"resample_every": 1.5}, "resample_every=1.5"),
        (good, {"statistics_samples": 0}, "statistics_samples=0"),
        (iter([good]), {"batch_size": None, "checkpoint": tmp_path / "c"}, "restore its position"),
        (iter([good]), {"batch_size": 50}, "batch_size= needs a tensor"),
    ):
        with pytest.raises(sae.SAEError, match=message):
            short(config, data, **options)  # type: ignore[arg-type]
    with pytest.raises(sae.SAEError, match="at least one configuration"):
        short([])
    with pytest.raises(sae.SAEError, match="got str"):
        short(["topk"])
    with pytest.raises(sae.SAEError, match="two runs have the name 'a'"):
        short([dataclasses.replace(config, name="a")] * 2)
    with pytest.raises(sae.TrainingError, match="something else than reports"):
        (tmp_path / "notes.txt").write_text("mine\n")
        short(config, log_file=tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine\n"


def test_bad_vectors_in_the_middle_of_a_stream_stop_the_training_before_they_do_harm(tmp_path: Path) -> None:
    x = sparse_sums(features(n=20, d=10), 4000)

    class Poisoned(TensorStream):
        def __next__(self) -> torch.Tensor:
            batch = super().__next__()
            if self.epoch * 4000 + self.cursor == 128 * 25:
                batch[0, 0] = torch.inf
            return batch

    config, file = sae.TopK(latents=24, k=3), tmp_path / "c.safetensors"
    with pytest.raises(sae.TrainingError, match="batch 25 of the stream: 1 of 128"):
        short(config, Poisoned(x, 128), batch_size=None, statistics_samples=1000, checkpoint=file)
    from sae.training.checkpoint import read_checkpoint

    saved = read_checkpoint(file)
    assert saved.step == 24 and all(
        bool(t.isfinite().all()) for t in saved.tensors[0].values() if t.is_floating_point()
    )


def test_a_collapse_is_reported_early_and_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    good, hopeless = sae.TopK(latents=24, k=3), sae.ReLU(latents=24, l1=1e4)
    with caplog.at_level(logging.WARNING):
        runs = short([good, hopeless], steps=400, lr=1e-2)
    assert runs[0].status == "finished" and torch.equal(
        runs[0].sae.decoder, short(good, steps=400, lr=1e-2)[0].sae.decoder
    )
    assert runs[1].status.startswith("collapsed: ") and runs[1].steps < 200
    assert "collapsed and is stopped" in caplog.text
    with pytest.raises(sae.TrainingError, match="no latent is active|same reconstruction") as caught:
        short(hopeless, steps=400, lr=1e-2)
    assert caught.value.runs[0].steps == runs[1].steps


def test_a_loss_that_is_not_finite_stops_the_sae_with_the_weights_before_it() -> None:
    class Huge(TensorStream):
        """Finite to look at, but their squares are not."""

        def __next__(self) -> torch.Tensor:
            batch = super().__next__()
            return batch * 1e25 if self.cursor == 128 * 25 else batch

    x = sparse_sums(features(n=20, d=10), 4000)
    with pytest.raises(sae.TrainingError, match="the loss is (inf|nan) at step 25") as caught:
        short(sae.TopK(latents=24, k=3), Huge(x, 128), batch_size=None, statistics_samples=1000)
    run = caught.value.runs[0]
    assert run.steps == 24 and all(bool(v.isfinite().all()) for v in run.sae.state_dict().values())


def test_equal_reconstructions_of_everything_are_a_collapse() -> None:
    x = sparse_sums(features(n=20, d=10), 4000)

    class Constant(TensorStream):
        """Real vectors to begin with, then one and the same."""

        def __next__(self) -> torch.Tensor:
            batch = super().__next__()
            return batch if self.epoch == 0 else batch[:1].expand_as(batch) + 1e-3 * batch

    with pytest.raises(sae.TrainingError, match="the same reconstruction"):
        # one latent that fires for everything, and only through its bias
        made = CLASSES["topk"].__init__

        def stuck(self: sae.SAE, config: sae.TopK, d: int) -> None:
            made(self, config, d)
            with torch.no_grad():
                self.encoder.zero_()
                self.encoder_bias.fill_(-1.0)
                self.encoder_bias[0] = 1.0

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CLASSES["topk"], "__init__", stuck)
            short(sae.TopK(latents=24, k=1, revive="none"), Constant(x, 128), batch_size=None, lr=1e-12)


def test_nan_is_never_a_number_in_a_report() -> None:
    run = short(sae.TopK(latents=24, k=3))[0]
    assert all(math.isfinite(v) for r in run.reports for v in (r.loss, r.fvu, r.l0, r.dead, r.alive, r.lr))


def test_settings_are_an_object_or_keywords_and_files_have_the_keys_of_before() -> None:
    x, config = sparse_sums(features(n=20, d=10), 4000), sae.TopK(latents=24, k=3)
    settings = sae.TrainingSettings(steps=40, batch_size=128, lr=1e-3, report_every=10, dead_after=600)
    by_object, by_keyword = sae.train(x, config, settings)[0], short(config, x)[0]
    assert by_object.reports == by_keyword.reports and by_object.provenance == by_keyword.provenance
    assert torch.equal(by_object.sae.decoder, by_keyword.sae.decoder)
    assert sae.train(x, config, settings, steps=3)[0].steps == 3  # a keyword has precedence
    assert by_object.provenance["settings"] == {
        "schedule": {"steps": 40, "warmup": 2, "decay": 0.2, "sparsity_warmup": 2}, "lr": 1e-3, "clip": 1.0,
        "dead_after": 600, "resample_every": 600, "precision": "float32", "normalise": True,
        "bias": "geometric_median", "batch_size": 128, "statistics_samples": 65536, "report_every": 10,
    }  # fmt: skip
    with pytest.raises(sae.SAEError, match="train has no setting 'stepps'. Nearest: steps"):
        sae.train(x, config, stepps=3)
    with pytest.raises(sae.SAEError, match="say how long to train"):
        sae.train(x, config, settings, samples=100)
