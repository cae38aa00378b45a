"""Two processes train the SAE that one trains with batches twice as large, and none waits for another for ever."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sae
from sae.architectures import dead_latents as dead
from sae.data.streams import RankShare, Rebatched, TensorStream
from sae.distributed import ALONE, Ranks
from sae.training.checkpoint import read_checkpoint
from sae.training.input_normalization import geometric_median, statistics_of
from tests.sae.planted import acts, features, sparse_sums
from zoo.common import stored
from zoo.errors import FileError

ROOT = Path(__file__).parents[3]
EXACT: list[sae.SAEConfig] = [
    sae.TopK(latents=24, k=3, revive="none"),
    sae.ReLU(latents=24, l1=1.0),
    sae.Gated(latents=24, l1=1.0),
    sae.JumpReLU(latents=24, coefficient=1.0),
    # two latents per input at the least: with one, the encoder's first gradient is zero but for rounding, as what a
    # tied row leaves over is at right angles to it, and Adam makes whole steps of rounding
    sae.TopK(latents=48, k=2, revive="resample", name="resampled"),
    sae.TopK(latents=48, k=2, aux_k=4, name="auxk"),
    sae.PAnnealing(latents=24, l1=1.0),
    sae.MatchingPursuit(latents=24, k=3),
    sae.GroupTopK(latents=24, k=4, group=2),
]
"""What two ranks train as one does; selection over a batch comes beside them."""
BATCH = sae.BatchTopK(latents=24, k=3)
CONFIGS: list[sae.SAEConfig] = [*EXACT, BATCH]
SETTINGS: dict[str, Any] = {"steps": 24, "report_every": 4, "lr": 3e-3, "dead_after": 100}
SIZE = 24


def data() -> Tensor:
    """Not a multiple of the batch: some batches go over the end of an epoch."""
    return sparse_sums(features(n=20, d=10), 700, offset=4.0)


# -- what runs in each of two processes ---------------------------------------------------------------


class Stopped(Exception):
    """What a callback raises."""


class Odd(TensorStream):
    """Vectors of which `change` makes something else on one rank, at one batch."""

    def __init__(self, rank: int, at: int, change: Callable[[Tensor], Tensor | None], **settings: Any) -> None:
        super().__init__(data(), SIZE, **settings)
        self.on, self.at, self.change, self.given = rank, at, change, 0
        self.started = False

    def seek(self, position: Any) -> None:
        super().seek(position)
        self.given = 0

    def __next__(self) -> Tensor:
        batch = super().__next__()
        self.given += 1
        if self.rank == self.on and self.given == self.at:
            changed = self.change(batch)
            if changed is None:
                raise StopIteration
            return changed
        return batch


def poisoned(batch: Tensor) -> Tensor:
    return batch.index_fill(0, torch.tensor([2]), torch.nan)


def interrupted(batch: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGINT)
    return batch


def attempt(configs: Any, stream: Any, **options: Any) -> dict[str, Any]:
    """The training, or what became of it, as JSON."""
    try:
        runs = sae.train(stream, configs, **(SETTINGS | options))
    except (Stopped, KeyboardInterrupt, sae.SAEError, FileError, OSError) as error:
        made = getattr(error, "runs", ())
        return {"error": type(error).__name__, "message": str(error), "runs": [(r.steps, r.status) for r in made]}
    return {"runs": [(r.steps, r.status) for r in runs]}


def scenes(folder: Path, rank: int) -> dict[str, Any]:
    """Everything that two ranks are tried at, in one pair of processes."""
    from torch import distributed

    distributed.init_process_group("gloo")
    found: dict[str, Any] = {}
    config = EXACT[0]
    x = data()

    def run(name: str, configs: Any = config, stream: Any = None, **options: Any) -> None:
        found[name] = attempt(configs, TensorStream(x, SIZE) if stream is None else stream, **options)

    # the whole, by a tensor shared out by itself
    seen: list[sae.Report] = []
    log = folder / "log.jsonl"
    runs = sae.train(x, CONFIGS, batch_size=SIZE, log_file=log, callbacks=[seen.append], **SETTINGS)
    torch.save([run.sae.state_dict() for run in runs], folder / f"whole{rank}.pt")
    found["reports"] = [report.describe() for run in runs for report in run.reports]
    found["heard"] = len(seen)
    found["samples"] = runs[0].samples
    uneven = TensorStream(x[rank * 350 :][:350], 20 if rank else 30, rank=0, world=1)
    found["uneven"] = attempt(config, uneven, statistics_samples=300)

    # broken and taken up again
    def stop(report: sae.Report) -> None:
        if report.step >= 16:
            raise Stopped("enough")

    file = folder / "broken.safetensors"
    run("broken", CONFIGS, callbacks=[stop], checkpoint=file, checkpoint_every=5)
    if rank == 0:
        found["step"] = read_checkpoint(file).step
    distributed.barrier()
    resumed = sae.train(TensorStream(x, SIZE), CONFIGS, checkpoint=file, checkpoint_every=5, **SETTINGS)
    torch.save([run.sae.state_dict() for run in resumed], folder / f"resumed{rank}.pt")
    found["resumed"] = [report.describe() for run in resumed for report in run.reports]

    file = folder / "pressed.safetensors"
    run("pressed", CONFIGS, Odd(1, 10, interrupted), statistics_samples=48, checkpoint=file)
    distributed.barrier()
    if rank == 0:
        found["pressed step"] = read_checkpoint(file).step

    # what goes wrong on one of them
    file = folder / "poisoned.safetensors"
    run("poisoned", config, Odd(1, 9, poisoned), statistics_samples=48, checkpoint=file)
    run("poisoned at the start", config, Odd(1, 1, poisoned))
    run("ended", config, Odd(1, 9, lambda batch: None), statistics_samples=48)
    run("overflow", [config, EXACT[1]], Odd(1, 9, lambda batch: batch * 1e25), statistics_samples=48)

    def fails(batch: Tensor) -> Tensor:
        raise OSError(5, "Input/output error")

    run("unreadable", config, Odd(0, 9, fails), statistics_samples=48)
    full = stored._save
    try:

        def no_space(tensors: object, path: Path, about: object) -> None:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")

        stored._save = no_space
        run("full", checkpoint=folder / "full.safetensors", checkpoint_every=4)
    finally:
        stored._save = full
    run("settings", lr=1e-3 if rank else 2e-3)
    run("bias", bias="mean" if rank else "geometric_median")
    run("tensors", stream=TensorStream(x + rank, SIZE))
    run("same", stream=TensorStream(x, SIZE, rank=0, world=1))
    run("own", stream=TensorStream(x[rank * 350 :][:350], SIZE, rank=0, world=1))
    run("checkpoint", checkpoint=folder / ("broken.safetensors" if rank else "none.safetensors"))
    found["alone"] = attempt(config, TensorStream(x, SIZE), distributed=False)
    whole = TensorStream(x, SIZE, rank=rank, world=2)
    with Ranks() as ranks:
        median = geometric_median(x[rank::2], ranks=ranks)
        found["median"] = median.tolist()
        found["rows"] = ranks.rows(torch.full((rank + 1, 2), float(rank))).tolist()
    run("told", stream=whole)
    distributed.destroy_process_group()
    return found


def worker(folder: Path) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    found = scenes(folder, rank)
    (folder / f"found{rank}.json").write_text(json.dumps(found))


SCRIPT = "import sys, pathlib; from tests.sae.training.test_distributed import *; {call}(pathlib.Path(sys.argv[1]))"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@contextlib.contextmanager
def two_ranks(folder: Path, call: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes that find each other as `torchrun` has it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-c", SCRIPT.format(call=call), str(folder)]
    files = [(folder / f"errors{rank}.txt").open("wb") for rank in range(2)]
    processes = [
        subprocess.Popen(
            command,
            env=environment(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port
            ),
            stderr=errors,
        )
        for rank, errors in enumerate(files)
    ]
    try:
        yield processes
    finally:
        for errors in files:
            errors.close()
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ranks")
    with two_ranks(folder, "worker") as processes:
        codes = [process.wait(timeout=240) for process in processes]
    assert codes == [0, 0], [(folder / f"errors{rank}.txt").read_text()[-3000:] for rank in range(2)]
    return folder, [json.loads((folder / f"found{rank}.json").read_text()) for rank in range(2)]


Tried = tuple[Path, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def alone() -> list[sae.Run]:
    return sae.train(data(), CONFIGS, batch_size=2 * SIZE, **SETTINGS)


def states(folder: Path, name: str) -> list[list[dict[str, Tensor]]]:
    return [torch.load(folder / f"{name}{rank}.pt", weights_only=True) for rank in range(2)]


# -- what they found ----------------------------------------------------------------------------------


def test_two_ranks_end_with_the_same_bits(tried: Tried) -> None:
    folder, (first, second) = tried
    ours, others = states(folder, "whole")
    for one, other in zip(ours, others, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert first["reports"] == second["reports"]


auxk_is_shared = pytest.mark.skipif(
    not hasattr(dead, "distributed"),
    reason="sae/architectures/dead_latents.py divides by the variance of a rank's own residuals",
)


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(i, id=c.name or c.title, marks=auxk_is_shared if c.name == "auxk" else ())
        for i, c in enumerate(EXACT)
    ],
)
def test_two_ranks_train_what_one_trains_with_batches_twice_as_large(
    index: int, tried: Tried, alone: list[sae.Run]
) -> None:
    folder, found = tried
    run, state = alone[index], states(folder, "whole")[0][index]
    reports = [r for r in found[0]["reports"] if r["name"] == run.name]
    assert len(reports) == len(run.reports) == 6
    for report, other in zip(reports, run.reports, strict=True):
        assert (report["step"], report["samples"], report["dead"]) == (other.step, other.samples, other.dead)
        for name in ("loss", "fvu", "l0"):
            assert report[name] == pytest.approx(getattr(other, name), rel=1e-5), (report["step"], name)
        assert report["parts"] == pytest.approx(dict(other.parts), rel=1e-5)
    for name, value in run.sae.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    start = sae.build(run.config, 10).decoder.detach()
    assert float((run.sae.decoder - start).norm(dim=1).mean()) > 0.05  # far from where it began


def test_dead_latents_were_at_work_there(alone: list[sae.Run]) -> None:
    """Otherwise the test above would say nothing of AuxK and of resampling."""
    resampled, auxk = (alone[index].reports for index in (4, 5))
    assert sum(r.parts.get("auxk", 0) > 0.5 for r in auxk) >= 3 and sum(r.dead > 0.01 for r in auxk) >= 3
    assert sum(r.dead > 0.01 for r in resampled) >= 1
    plain = sae.TopK(latents=48, k=2, revive="none")
    other = sae.train(data(), plain, batch_size=2 * SIZE, **SETTINGS)[0]
    for index in (4, 5):
        assert float((other.sae.decoder - alone[index].sae.decoder).abs().max()) > 1e-2  # 1000 times the tolerance


def test_selection_over_a_batch_is_each_ranks_own(tried: Tried, alone: list[sae.Run]) -> None:
    """BatchTopK keeps k per input on every rank; the threshold is the mean over ranks."""
    folder, found = tried
    index = CONFIGS.index(BATCH)
    last = [r for r in found[0]["reports"] if r["name"] == BATCH.title][-1]
    assert last["l0"] == pytest.approx(3, rel=1e-6)
    assert last["fvu"] == pytest.approx(alone[index].reports[-1].fvu, rel=0.05)
    threshold = states(folder, "whole")[0][index]["threshold"]
    torch.testing.assert_close(threshold, alone[index].sae.threshold, rtol=0.1, atol=0.0)


def test_a_training_broken_on_one_rank_goes_on_bit_for_bit(tried: Tried) -> None:
    folder, (first, second) = tried
    assert first["broken"]["error"] == "Stopped" and first["step"] == 15
    assert second["broken"]["error"] == "TrainingError"
    assert second["broken"]["message"] == "rank 0 of 2 stopped: Stopped: enough"
    for whole, resumed in zip(states(folder, "whole"), states(folder, "resumed"), strict=True):
        for one, other in zip(whole, resumed, strict=True):
            assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert first["resumed"] == second["resumed"] == first["reports"]


def test_one_process_goes_on_where_two_stopped(tried: Tried, alone: list[sae.Run], tmp_path: Path) -> None:
    """A tensor's position is that of all ranks: the same place for one with batches as large."""
    folder, _ = tried
    file = tmp_path / "c"
    file.write_bytes((folder / "pressed.safetensors").read_bytes())
    assert read_checkpoint(file).step < 24
    runs = sae.train(
        Odd(1, 0, poisoned), CONFIGS, batch_size=2 * SIZE, statistics_samples=48, checkpoint=file, resume=False,
        **SETTINGS,
    )  # fmt: skip
    file.write_bytes((folder / "pressed.safetensors").read_bytes())
    stream = TensorStream(data(), 2 * SIZE)
    gone_on = sae.train(stream, CONFIGS, statistics_samples=48, checkpoint=file, **SETTINGS)
    with pytest.raises(sae.TrainingError, match="other settings"):
        sae.train(TensorStream(data(), SIZE), CONFIGS, statistics_samples=48, checkpoint=file, **SETTINGS)
    for run, other in zip(gone_on[:5], runs[:5], strict=True):
        torch.testing.assert_close(run.sae.decoder, other.sae.decoder, rtol=1e-4, atol=1e-4)


def test_only_the_first_rank_writes_and_calls(tried: Tried) -> None:
    folder, (first, second) = tried
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    key = lambda r: (r["name"], r["step"])  # noqa: E731
    assert sorted(lines, key=key) == sorted(first["reports"], key=key)
    assert first["heard"] == len(lines) == 6 * len(CONFIGS) and second["heard"] == 0
    assert first["samples"] == second["samples"] == 24 * 2 * SIZE


def test_ctrl_c_on_one_rank_stops_both_after_a_checkpoint(tried: Tried) -> None:
    folder, found = tried
    assert [one["pressed"]["error"] for one in found] == ["KeyboardInterrupt"] * 2
    assert 7 <= found[0]["pressed step"] <= 10  # it was pressed with the tenth batch at the latest


def test_vectors_that_are_bad_on_one_rank_stop_both_and_nothing_is_lost(tried: Tried) -> None:
    folder, (first, second) = tried
    assert "batch 9 of the stream: 1 of 24 activation vectors" in second["poisoned"]["message"]
    assert first["poisoned"]["message"].startswith("rank 1 of 2 stopped: batch 9 of the stream")
    assert read_checkpoint(folder / "poisoned.safetensors").step == 8
    assert [steps for one in (first, second) for steps, _ in one["poisoned"]["runs"]] == [8, 8]
    assert "not finite" in second["poisoned at the start"]["message"]
    assert first["poisoned at the start"]["message"].startswith("rank 1 of 2 stopped: 1 of 24")


def test_a_collapse_on_one_rank_is_one_on_all(tried: Tried) -> None:
    _, (first, second) = tried
    assert "not finite on another rank at step 9" in first["overflow"]["message"]
    assert "the loss is inf at step 9" in second["overflow"]["message"] or "nan" in second["overflow"]["message"]
    assert [steps for one in (first, second) for steps, _ in one["overflow"]["runs"]] == [8] * 4


def test_a_stream_that_ends_on_one_rank_ends_on_all(tried: Tried) -> None:
    for one in tried[1]:
        assert one["ended"]["runs"] == [[8, "the stream ended after 8 of 24 steps"]]


def test_a_full_disk_or_an_unreadable_one_stops_both(tried: Tried) -> None:
    folder, (first, second) = tried
    assert "No space left" in first["full"]["message"] and "rank 0 of 2 stopped" in second["full"]["message"]
    for one in (first, second):
        steps, status = one["full"]["runs"][0]
        assert steps in (4, 5) and status.startswith("stopped: ")
    assert first["full"]["runs"][0][0] == second["full"]["runs"][0][0]
    assert not (folder / "full.safetensors").exists() and not list(folder.glob(".full*"))
    assert first["unreadable"]["error"] == "OSError"
    assert second["unreadable"]["message"].startswith("rank 0 of 2 stopped: OSError")


def test_ranks_that_do_not_agree_are_told_on_what(tried: Tried) -> None:
    for one in tried[1]:
        assert one["settings"]["message"] == "the 2 ranks were called with different settings: lr"
        assert one["bias"]["message"].endswith("different settings: bias")
        assert "hold different ones" in one["tensors"]["message"]
        assert "two ranks read the same vectors" in one["same"]["message"]
        assert "not all ranks see the same checkpoint" in one["checkpoint"]["message"]
        assert one["own"]["runs"] == one["alone"]["runs"] == one["told"]["runs"] == [[24, "finished"]]
        assert one["uneven"]["runs"] == [[24, "finished"]]  # 30 vectors a step here, 20 there


def test_statistics_are_those_of_all_ranks(tried: Tried) -> None:
    expected = geometric_median(data())
    for one in tried[1]:
        torch.testing.assert_close(torch.tensor(one["median"]), expected, rtol=1e-5, atol=1e-5)
        assert one["rows"] == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]


# -- by torchrun, and killed --------------------------------------------------------------------------


def long(folder: Path) -> None:
    """A training without a group of its own, that lasts until it is stopped."""
    torch.set_num_threads(1)
    (folder / f"pid{os.environ['RANK']}").write_text(str(os.getpid()))
    slow = {**SETTINGS, "steps": 400}
    sae.train(
        data(), CONFIGS, batch_size=SIZE, checkpoint=folder / "c", checkpoint_every=1,
        callbacks=[lambda report: time.sleep(0.02)], **slow,
    )  # fmt: skip
    (folder / f"done{os.environ['RANK']}").touch()


def until(true: Callable[[], bool], seconds: float = 90) -> None:
    for _ in range(int(seconds / 0.05)):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")


def step_of(file: Path) -> int:
    return read_checkpoint(file).step if file.exists() else 0


@pytest.mark.slow
def test_a_killed_rank_ends_the_other_and_both_go_on(tmp_path: Path) -> None:
    with two_ranks(tmp_path, "long") as processes:
        until(lambda: step_of(tmp_path / "c") > 5)
        processes[1].kill()
        assert processes[0].wait(timeout=60) == 1
    assert "lost the others" in (tmp_path / "errors0.txt").read_text()
    before = step_of(tmp_path / "c")
    with two_ranks(tmp_path, "long") as processes:
        until(lambda: step_of(tmp_path / "c") > before + 5)


@pytest.mark.slow
def test_torchrun_trains_and_ctrl_c_there_saves(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, pathlib\nfrom tests.sae.training.test_distributed import long\nlong(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    errors = tmp_path / "errors.txt"
    with errors.open("wb") as heard:
        launcher = subprocess.Popen([*command, str(script), str(tmp_path)], env=environment(), stderr=heard)
    try:
        until(lambda: step_of(tmp_path / "c") > 5)
        launcher.send_signal(signal.SIGINT)
        assert launcher.wait(timeout=60) != 0
    finally:
        launcher.kill()
        launcher.wait()
    assert "KeyboardInterrupt" in errors.read_text() and not (tmp_path / "done0").exists()
    saved = read_checkpoint(tmp_path / "c")
    assert 5 < saved.step < 400 and saved.counters[0]["samples"] == saved.step * 2 * SIZE
    for pid in range(2):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"pid{pid}").read_text()), 0)


# -- shares of a stream -------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_a_tensor_without_overlap_and_nothing_is_left_out(world: int) -> None:
    x = torch.arange(100.0)[:, None]
    whole = TensorStream(x, 4 * world, seed=3)
    parts = [TensorStream(x, 4, seed=3, rank=rank, world=world) for rank in range(world)]
    for _ in range(40):  # over several ends of an epoch
        assert torch.equal(torch.cat([next(part) for part in parts]), next(whole))
    assert len({json.dumps(part.tell()) for part in [*parts, whole]}) == 1
    again = TensorStream(x, 4, seed=3, rank=1, world=world)
    again.seek(parts[0].tell())
    assert torch.equal(next(again), next(parts[1]))


def test_other_streams_are_dealt_out_in_turn() -> None:
    x = torch.arange(96.0)[:, None]
    whole = TensorStream(x, 4 * 2, seed=3)
    parts = [RankShare(TensorStream(x, 4, seed=3), rank, 2) for rank in range(2)]
    for _ in range(20):
        assert torch.equal(torch.cat([next(part) for part in parts]), next(whole))
    rebatched = Rebatched(TensorStream(x, 6, seed=3), 4)
    rebatched.share(1, 2)
    assert torch.equal(next(rebatched), TensorStream(x, 12, seed=3).__next__()[6:10])
    told = TensorStream(x, 4, rank=0, world=1)
    told.share(1, 2)
    assert (told.rank, told.world) == (0, 1)


def test_shares_that_make_no_sense_say_why() -> None:
    for arguments, message in (
        ({"rank": 2, "world": 2}, "rank=2 is none of the 2 ranks, 0 to 1"),
        ({"rank": -1, "world": 2}, "rank=-1"),
        ({"rank": 0, "world": 0}, "world=0"),
        ({"rank": 0}, "both, or neither"),
    ):
        with pytest.raises(sae.SAEError, match=message):
            TensorStream(acts(), 4, **arguments)  # type: ignore[arg-type]
        with pytest.raises(sae.SAEError, match=message):
            RankShare(TensorStream(acts(), 4), **arguments)  # type: ignore[arg-type]


def test_one_process_alone_is_a_group_of_one() -> None:
    x = torch.ones(3)
    with Ranks() as ranks:
        ranks.add([x])
        assert ranks.first and ranks.world == 1 and ranks.everywhere(True) and not ranks.everywhere(False)
        assert ranks.rows(x) is x and ranks.device(torch.device("cuda")) == torch.device("cuda")
    assert x.tolist() == [1.0] * 3 and ALONE.world == 1
    plain = statistics_of(acts())
    assert torch.equal(plain.mean, acts().double().mean(dim=0).float())
