"""A training that was stopped, killed or crashed goes on as if nothing had happened, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import sae
from sae.data.streams import Rebatched, TensorStream
from sae.training.checkpoint import read_checkpoint
from tests.sae.planted import ARCHITECTURES, acts, features, sparse_sums
from zoo.common import stored

ROOT = Path(__file__).parents[3]
CONFIGS: list[sae.SAEConfig] = [*ARCHITECTURES, sae.ReLU(latents=24, l1=4.0, revive="resample", name="resampled")]
SETTINGS: dict[str, object] = {"steps": 30, "batch_size": 64, "report_every": 7, "lr": 3e-3, "dead_after": 300}


def data() -> torch.Tensor:
    return sparse_sums(features(n=20, d=10), 700)


class Stopped(Exception):
    """What a callback raises to break a training."""


def broken(file: Path, at: int, configs: list[sae.SAEConfig] = CONFIGS, **options: object) -> None:
    """Train until the report at step `at`, with a checkpoint every 4 steps."""

    def stop(report: sae.Report) -> None:
        if report.step >= at:
            raise Stopped

    with pytest.raises(Stopped):
        sae.train(data(), configs, checkpoint=file, checkpoint_every=4, callbacks=[stop], **(SETTINGS | options))  # type: ignore[arg-type]


def assert_same(runs: list[sae.Run], unbroken: list[sae.Run]) -> None:
    for run, other in zip(runs, unbroken, strict=True):
        assert (run.name, run.steps, run.samples, run.status) == (other.name, other.steps, other.samples, other.status)
        assert run.reports == other.reports
        for name, value in other.sae.state_dict().items():
            assert torch.equal(run.sae.state_dict()[name], value), (run.name, name)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[sae.Run], Path]:
    folder = tmp_path_factory.mktemp("unbroken")
    runs = sae.train(
        data(), CONFIGS, checkpoint=folder / "c", checkpoint_every=4, log_file=folder / "log.jsonl", **SETTINGS
    )  # type: ignore[arg-type]
    return runs, folder


@pytest.mark.parametrize("at", [7, 14, 28])
def test_a_resumed_training_is_the_unbroken_one(at: int, tmp_path: Path, unbroken: tuple[list[sae.Run], Path]) -> None:
    """Weights, thresholds, Adam, dead counters, resampling, the data's order, and the reports, mid-window, too."""
    runs, folder = unbroken
    broken(tmp_path / "c", at, log_file=tmp_path / "log.jsonl")
    assert read_checkpoint(tmp_path / "c").step == (at - 1) // 4 * 4
    resumed = sae.train(
        data(), CONFIGS, checkpoint=tmp_path / "c", checkpoint_every=4, log_file=tmp_path / "log.jsonl", **SETTINGS
    )  # type: ignore[arg-type]
    assert_same(resumed, runs)
    assert (tmp_path / "log.jsonl").read_text() == (folder / "log.jsonl").read_text()
    mine, theirs = read_checkpoint(tmp_path / "c"), read_checkpoint(folder / "c")
    assert mine.position == theirs.position and mine.counters == theirs.counters
    for ours, other in zip(mine.tensors, theirs.tensors, strict=True):
        assert ours.keys() == other.keys() and all(torch.equal(ours[name], other[name]) for name in other)


def test_checkpoints_change_nothing_and_a_finished_one_gives_its_runs_back(
    unbroken: tuple[list[sae.Run], Path],
) -> None:
    runs, folder = unbroken
    assert_same(sae.train(data(), CONFIGS, **SETTINGS), runs)  # type: ignore[arg-type]

    def never(report: sae.Report) -> None:
        raise AssertionError("nothing is left to do")

    again = sae.train(data(), CONFIGS, checkpoint=folder / "c", callbacks=[never], **SETTINGS)  # type: ignore[arg-type]
    assert_same(again, runs)


def test_a_rebatched_stream_is_resumed_in_the_middle_of_a_chunk(tmp_path: Path) -> None:
    options = {k: v for k, v in SETTINGS.items() if k != "batch_size"}

    def stream() -> Rebatched:
        return Rebatched(TensorStream(data(), 100), 64)

    config = sae.TopK(latents=24, k=3)
    whole = sae.train(stream(), config, **options)  # type: ignore[arg-type]

    def stop(report: sae.Report) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        sae.train(stream(), config, checkpoint=tmp_path / "c", checkpoint_every=5, callbacks=[stop], **options)  # type: ignore[arg-type]
    assert read_checkpoint(tmp_path / "c").position["used"] not in (0, 100)
    assert_same(sae.train(stream(), config, checkpoint=tmp_path / "c", **options), whole)  # type: ignore[arg-type]


def test_ctrl_c_saves_between_two_steps_and_then_interrupts(
    tmp_path: Path, unbroken: tuple[list[sae.Run], Path]
) -> None:
    def press(report: sae.Report) -> None:
        if report.step == 14:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    options: dict[str, object] = {**SETTINGS, "checkpoint": tmp_path / "c"}
    with pytest.raises(KeyboardInterrupt):
        # the first report of step 14 presses once; the others press again only in their own runs
        pressed = iter([press])
        sae.train(data(), CONFIGS, callbacks=[lambda r: r.step == 14 and next(pressed, lambda _: None)(r)], **options)  # type: ignore[arg-type,list-item]
    assert signal.getsignal(signal.SIGINT) is before
    assert read_checkpoint(tmp_path / "c").step == 14
    assert_same(sae.train(data(), CONFIGS, **options), unbroken[0])  # type: ignore[arg-type]


def test_training_works_outside_the_main_thread() -> None:
    done: list[sae.Run] = []
    worker = threading.Thread(target=lambda: done.extend(sae.train(data(), CONFIGS[2], **SETTINGS)))  # type: ignore[arg-type]
    worker.start()
    worker.join()
    assert done[0].steps == 30


SCRIPT = """
import sys, time, torch
torch.set_num_threads(1)
import sae
from zoo.common import stored
from tests.sae.training.test_checkpoints import CONFIGS, SETTINGS, data
sae.train(data(), CONFIGS, checkpoint=sys.argv[1], checkpoint_every=1, callbacks=[lambda r: time.sleep(0.02)],
          **{**SETTINGS, "steps": 150})
"""


@pytest.mark.slow
def test_a_killed_training_goes_on_where_it_was(tmp_path: Path) -> None:
    """kill -9 while a checkpoint is written after every step: whatever was hit, the file is whole."""
    file = tmp_path / "c"
    command = [sys.executable, "-c", SCRIPT, str(file)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    steps = []
    for _ in range(2):
        child = subprocess.Popen(command, cwd=tmp_path, env=env)
        past = (steps[-1] if steps else 0) + 12
        for _ in range(1200):
            if file.exists() and read_checkpoint(file).step >= past:
                break
            assert child.poll() is None, "it ended before it was killed"
            time.sleep(0.05)
        child.kill()
        child.wait()
        steps.append(read_checkpoint(file).step)
    assert steps[0] < steps[1] < 150
    options: dict[str, object] = {**SETTINGS, "steps": 150}
    resumed = sae.train(data(), CONFIGS, checkpoint=file, **options)  # type: ignore[arg-type]
    assert_same(resumed, sae.train(data(), CONFIGS, **options))  # type: ignore[arg-type]


def test_a_checkpoint_of_another_training_is_refused_and_left_alone(tmp_path: Path) -> None:
    file, config = tmp_path / "c", sae.TopK(latents=24, k=3)
    broken(file, 14, [config])
    before = file.read_bytes()

    def again(configs: object = config, x: torch.Tensor | None = None, **options: object) -> None:
        sae.train(data() if x is None else x, configs, checkpoint=file, **(SETTINGS | options))  # type: ignore[arg-type]

    for call, message in (
        (lambda: again(lr=1e-3), r"other settings \(lr\)"),
        (lambda: again(steps=40), "schedule.steps"),
        (lambda: again(sae.TopK(latents=24, k=4)), "configs.0.k"),
        (lambda: again([config, config]), "configs.1"),
        (lambda: again(x=acts(700)), "another stream of vectors: digest"),
        (lambda: again(seed=5), "seed is 5, was 0"),
    ):
        with pytest.raises(sae.TrainingError, match=message):
            call()
        assert file.read_bytes() == before
    again(lr=1e-3, resume=False)
    assert read_checkpoint(file).settings["lr"] == 1e-3


def test_damaged_and_foreign_files_are_no_checkpoints(tmp_path: Path) -> None:
    file, config = tmp_path / "c", sae.TopK(latents=24, k=3)
    broken(file, 14, [config])
    whole = file.read_bytes()
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    for content, message in (
        (whole[: len(whole) // 2], "damaged"),
        (b"", "damaged"),
        (b"{}" * 100, "damaged"),
        ((tmp_path / "other").read_bytes(), "not the checkpoint of a training"),
    ):
        file.write_bytes(content)
        with pytest.raises(sae.FormatError, match=message):
            sae.train(data(), config, checkpoint=file, **SETTINGS)  # type: ignore[arg-type]
        assert file.read_bytes() == content


def test_a_full_disk_keeps_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, config = tmp_path / "c", sae.TopK(latents=24, k=3)
    broken(file, 14, [config])
    before = file.read_bytes()

    def full(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored, "_save", full)
    with pytest.raises(sae.TrainingError, match="No space left") as caught:
        sae.train(data(), config, checkpoint=file, checkpoint_every=16, **SETTINGS)  # type: ignore[arg-type]
    assert caught.value.runs[0].steps == 16 and "No space left" in caught.value.runs[0].status
    assert file.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["c"]
