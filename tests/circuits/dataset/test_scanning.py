"""Scans: what is found equals what is there, and nothing about how it was done shows in it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import circuits
from circuits import InputSpec
from circuits.dataset import scan as scanning, scan_store, streaming_statistics
from circuits.dataset.scan import scan
from circuits.dataset.scan_results import Scan, read_scan
from circuits.dataset.scan_store import StoreError
from circuits.dataset.streaming_statistics import Plan, Tally
from circuits.errors import AddressError, CircuitsError
from tests import nets
from zoo.common.stored import Stored

PLAN = Plan(top=10, few=6, per_band=3, samples=64, draws=3)


class Small(nn.Module):
    """A rectified convolution, another one called as a function, and scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(6, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(self.relu(self.first(x))))
        scores: Tensor = self.head(x.mean(dim=(2, 3)))
        return scores


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    torch.manual_seed(0)
    return circuits.wrap(Small().eval(), InputSpec(size=12), name="small")


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.rand(150, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def found(model: circuits.Model, pictures: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Scan:
    return scan(model, pictures, tmp_path_factory.mktemp("store"), plan=PLAN, batch_size=4)


@pytest.fixture(scope="module")
def responses(model: circuits.Model, pictures: Tensor) -> np.ndarray:
    return circuits.capture(model, pictures, "first")["first"].numpy()  # before the rectifier


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def test_every_rectified_layer_and_the_trunk_are_scanned_once(found: Scan) -> None:
    assert list(found.layers) == ["relu", "relu_1", "head"] or set(found.layers) >= {"relu", "head"}
    assert found.layers["relu"] == 6 and found.layers["head"] == 3


@pytest.mark.parametrize("unit", range(6))
def test_numbers_equal_those_of_all_responses(found: Scan, responses: np.ndarray, unit: int) -> None:
    values = responses[:, unit].astype(np.float64)
    one = found.unit(f"small/relu:{unit}")
    assert one.positions == values.size and one.images == 150 and one.signed
    assert one.density == pytest.approx((values > 0).mean())
    assert one.active_images == int((values > 0).any(axis=(1, 2)).sum())
    assert one.maximum == pytest.approx(values.max(), rel=1e-6)
    assert one.minimum == pytest.approx(values.min(), rel=1e-6)
    assert one.mean == pytest.approx(values.clip(0).mean(), rel=1e-5)
    assert one.mean_if_on == pytest.approx(values[values > 0].mean(), rel=1e-5)
    for share, value in one.quantiles.items():
        # a bin is at most an eighth wide; where it holds many positions, it is straight enough to look within
        many = (values > 0).sum() * (1 - share) > 200
        assert value == pytest.approx(np.quantile(values[values > 0], share), rel=0.01 if many else 0.125)


@pytest.mark.parametrize("unit", range(6))
def test_histogram_counts_every_position_where_it_belongs(found: Scan, responses: np.ndarray, unit: int) -> None:
    one = found.unit(f"relu:{unit}")
    assert int(one.counts.sum()) == one.positions
    assert (np.diff(one.edges) > 0).all()
    counts, _ = np.histogram(responses[:, unit], bins=one.edges)
    np.testing.assert_array_equal(counts, one.counts)


def test_maps_are_measured_in_parts_as_they_are_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    flat = torch.randint(-4, 5, (3, 5, 40), generator=random) * torch.tensor(0.75)  # many equal ones, and zeros
    flat[1, 2], flat[0, 0, ::2] = -0.0, -1e-20
    monkeypatch.setattr(streaming_statistics, "_CACHED", 90)
    measured = streaming_statistics._measure_rows(flat)
    values = flat.numpy()
    for name, extreme in (("high", "max"), ("low", "min")):
        np.testing.assert_array_equal(measured[name].numpy(), getattr(values, extreme)(axis=2))
        np.testing.assert_array_equal(measured[f"{name}_at"].numpy(), getattr(values, f"arg{extreme}")(axis=2))
    assert torch.equal(measured["sums"], flat.clamp_min(0).sum(dim=2))
    ends = streaming_statistics.edges()
    for unit in range(5):
        for sign in range(2):
            sizes = np.abs(values[:, unit][np.signbit(values[:, unit]) == sign])
            np.testing.assert_array_equal(measured["counts"][unit, sign].numpy(), np.histogram(sizes, ends)[0])


@pytest.mark.parametrize("unit", range(6))
def test_examples_are_the_right_places_with_their_own_responses(found: Scan, responses: np.ndarray, unit: int) -> None:
    one = found.unit(f"relu:{unit}")
    values = responses[:, unit]
    strongest = values.max(axis=(1, 2))
    assert [e.image for e in one.top] == np.argsort(-strongest, kind="stable")[:10].tolist()
    weakest = values.min(axis=(1, 2))
    assert [e.image for e in one.most_negative] == np.argsort(weakest, kind="stable")[:6].tolist()
    every = [*one.top, *one.random, *one.near_zero, *one.most_negative, *(e for b in one.bands for e in b.examples)]
    for example in every:
        assert example.value == pytest.approx(values[example.image][example.position], abs=1e-5)
        assert example.id == found.ids[example.image]
    assert len(one.random) == 6 and all(e.value > 0 for e in one.random)
    assert len({e.image for e in one.random}) == 6
    spread = float(np.abs(values).mean())
    assert max(abs(e.value) for e in one.near_zero) < spread / 10


@pytest.mark.parametrize("unit", range(6))
def test_bands_are_ordered_and_hold_their_examples(found: Scan, responses: np.ndarray, unit: int) -> None:
    one = found.unit(f"relu:{unit}")
    assert len(one.bands) >= 3
    assert sum(band.share for band in one.bands) == pytest.approx(1.0)
    values = responses[:, unit][responses[:, unit] > 0]
    for at, band in enumerate(one.bands):
        last = at == len(one.bands) - 1
        assert band.low < band.high and (last or band.high == one.bands[at + 1].low)
        inside = (values >= band.low) & ((values <= band.high) if last else (values < band.high))
        assert band.share == pytest.approx(inside.mean())
        assert band.examples
        for example in band.examples:
            assert band.low <= example.value <= band.high and (last or example.value < band.high)


def test_boxes_are_receptive_fields(found: Scan, model: circuits.Model) -> None:
    unit = model.unit("relu:0")
    field = model.receptive_field(unit)
    assert field is not None
    for example in found.unit(unit).top:
        assert example.box == field.box(*example.position, within=(12, 12))


def test_samples_are_responses_at_drawn_places_the_same_in_all_layers(
    found: Scan, model: circuits.Model, pictures: Tensor, responses: np.ndarray
) -> None:
    one, two = found.samples("relu"), found.samples("head")
    assert one.values.shape == (64, 6) and two.values.shape == (64, 3)
    np.testing.assert_array_equal(one.images, two.images)
    y, x = (one.down * 12).astype(int), (one.across * 12).astype(int)
    np.testing.assert_allclose(one.values, responses[one.images, :, y, x], atol=1e-5)
    np.testing.assert_allclose(two.values, model(pictures).detach().numpy()[two.images], atol=1e-5)
    assert len(set(zip(one.images.tolist(), y.tolist(), x.tolist(), strict=True))) > 55


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (7, 1), (64, 3)])
def test_results_do_not_depend_on_batches_or_workers(
    model: circuits.Model, pictures: Tensor, found: Scan, tmp_path: Path, batch_size: int, workers: int
) -> None:
    other = scan(model, pictures, tmp_path, plan=PLAN, batch_size=batch_size, workers=workers)
    for layer in found.layers:
        ours, theirs = found.layer(layer), other.layer(layer)
        np.testing.assert_allclose(ours.maximum, theirs.maximum, rtol=1e-5)
        np.testing.assert_allclose(ours.density, theirs.density, atol=1e-4)
        np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.samples(layer).values, other.samples(layer).values, atol=1e-5)
        for unit in range(len(ours)):
            a, b = ours.unit(unit), theirs.unit(unit)
            assert [(e.image, e.position) for e in a.top] == [(e.image, e.position) for e in b.top]
            assert [(e.image, e.position) for e in a.random] == [(e.image, e.position) for e in b.random]


def test_a_scan_in_threads_equals_one_in_the_callers(
    model: circuits.Model, pictures: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan(model, pictures, tmp_path / "one", plan=PLAN)
    monkeypatch.setattr(
        scanning,
        "ThreadPool",
        lambda: __import__("circuits.dataset.streaming_statistics", fromlist=["ThreadPool"]).ThreadPool(3),
    )
    threads = torch.get_num_threads()
    scan(model, pictures, tmp_path / "three", plan=PLAN)
    assert torch.get_num_threads() == threads
    assert files_of(tmp_path / "one") == files_of(tmp_path / "three")


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [0, 1, 2, 4])
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_killed_scan_goes_on_and_ends_with_the_same_bytes(
    model: circuits.Model, pictures: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, where: str
) -> None:
    scan(model, pictures, tmp_path / "whole", plan=PLAN, batch_size=4)
    monkeypatch.setattr(scanning, "_SAVE_EVERY", 0.0)
    save, calls = scanning._save, []

    def dying(*args: object) -> None:
        calls.append(1)
        if where == "before" and len(calls) > after:
            raise _Killed
        save(*args)  # type: ignore[arg-type]
        if len(calls) > after:
            raise _Killed

    with monkeypatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(scanning, "_save", dying)
        scan(model, pictures, tmp_path / "killed", plan=PLAN, batch_size=4)
    with pytest.raises(StoreError, match="no finished scan"):
        read_scan(tmp_path / "killed", "small")
    counted: list[int] = []
    take = Tally.take
    monkeypatch.setattr(Tally, "take", lambda self, images, *rest: (counted.extend(images), take(self, images, *rest)))
    scan(model, pictures, tmp_path / "killed", plan=PLAN, batch_size=4)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    done = 32 * (after + (where == "after"))
    assert sorted(set(counted)) == list(range(min(done, 150), 150))


def test_a_scan_killed_while_it_is_put_together_ends_with_the_same_bytes(
    model: circuits.Model, pictures: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan(model, pictures, tmp_path / "whole", plan=PLAN)
    write, calls = Stored.write_tensors, []

    def dying(self: Stored, path: Path, *rest: object) -> None:
        if path.parent.name in ("layers", "samples"):
            calls.append(path)
            if len(calls) == 3:
                raise _Killed
        write(self, path, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(Stored, "write_tensors", dying)
        scan(model, pictures, tmp_path / "killed", plan=PLAN)
    scan(model, pictures, tmp_path / "killed", plan=PLAN)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


_SCRIPT = """
import sys, circuits
from circuits.dataset import scan as scanning
from circuits.dataset import scan_store, streaming_statistics
from circuits.dataset.streaming_statistics import Plan
scanning._SAVE_EVERY = 0.0
model = circuits.load("scenes")
print("ready", flush=True)
scanning.scan(model, "scenes:160", sys.argv[1], layers=["conv2d0", "mixed3b", "mixed4a"], plan=Plan(top=10, samples=64))
"""


def _start(store: Path, **more: str) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **more}
    return subprocess.Popen([sys.executable, "-c", _SCRIPT, str(store)], env=env, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_at_ten_random_moments_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    with _start(tmp_path / "whole") as whole:
        assert whole.stdout is not None
        whole.stdout.readline()
        began = time.monotonic()
        assert whole.wait() == 0
    took = time.monotonic() - began
    rng = np.random.default_rng(0)
    killed = 0
    for moment in rng.uniform(0, took, 10):
        with _start(tmp_path / "killed") as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
    with _start(tmp_path / "killed") as process:
        assert process.wait() == 0
    assert killed >= 3
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_two_ranks_find_what_one_finds(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [_start(tmp_path / "two", RANK=str(r), LOCAL_RANK=str(r), **common) for r in range(2)]
    assert [p.wait(timeout=120) for p in ranks] == [0, 0]
    for process in ranks:
        assert process.stdout is not None
        process.stdout.close()
    layers = ["conv2d0", "mixed3b", "mixed4a"]
    scan(circuits.load("scenes"), "scenes:160", tmp_path / "one", layers=layers, plan=Plan(top=10, samples=64))
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


def test_a_finished_scan_is_read_not_made_again(
    model: circuits.Model, pictures: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan(model, pictures, tmp_path, plan=PLAN)
    before = files_of(tmp_path)
    monkeypatch.setattr(scanning, "visit", lambda *a: pytest.fail("the network ran"))
    assert scan(model, pictures, tmp_path, plan=PLAN).count == 150
    assert files_of(tmp_path) == before


def test_what_a_store_holds_is_not_taken_for_something_else(
    model: circuits.Model, pictures: Tensor, tmp_path: Path
) -> None:
    scan(model, pictures, tmp_path, plan=PLAN)
    before = files_of(tmp_path)
    torch.manual_seed(1)
    other = circuits.wrap(Small().eval(), InputSpec(size=12), name="small")
    for changed, what in (
        (lambda: scan(other, pictures, tmp_path, plan=PLAN), "other weights"),
        (lambda: scan(model, pictures.flip(0), tmp_path, plan=PLAN), "other images"),
        (lambda: scan(model, pictures, tmp_path, plan=PLAN, layers=["relu"]), "other layers"),
        (lambda: scan(model, pictures, tmp_path, seed=5), "another plan or seed"),
    ):
        with pytest.raises(StoreError, match=what):
            changed()
    assert files_of(tmp_path) == before
    again = scan(other, pictures[:40], tmp_path, plan=PLAN, layers=["relu"], replace=True)
    assert again.count == 40 and list(again.layers) == ["relu"]
    assert not (tmp_path / "small" / "partial").exists()


def test_a_scan_that_replaces_another_goes_on_and_the_old_one_is_there_until_it_is_whole(
    model: circuits.Model, pictures: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan(model, pictures.flip(0), tmp_path / "whole", plan=PLAN, batch_size=4)
    scan(model, pictures, tmp_path / "two", plan=PLAN)
    before = files_of(tmp_path / "two")
    monkeypatch.setattr(scanning, "_SAVE_EVERY", 0.0)
    save, saved = scanning._save, []

    def dying(*args: object) -> None:
        save(*args)  # type: ignore[arg-type]
        saved.append(1)
        if len(saved) == 2:
            raise _Killed

    with monkeypatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(scanning, "_save", dying)
        scan(model, pictures.flip(0), tmp_path / "two", plan=PLAN, batch_size=4, replace=True)
    assert read_scan(tmp_path / "two", "small").layer("relu").unit(0).top  # every digest is checked
    assert before.items() <= files_of(tmp_path / "two").items()
    counted: list[int] = []
    take = Tally.take
    monkeypatch.setattr(Tally, "take", lambda self, images, *rest: (counted.extend(images), take(self, images, *rest)))
    scan(model, pictures.flip(0), tmp_path / "two", plan=PLAN, batch_size=4, replace=True)
    assert min(counted) == 64 and files_of(tmp_path / "two") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("after", range(7))
def test_a_scan_killed_while_it_takes_the_place_of_another_is_whole_when_it_is_read(
    model: circuits.Model, pictures: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    scan(model, pictures.flip(0), tmp_path / "whole", plan=PLAN, layers=["relu"])
    scan(model, pictures, tmp_path / "two", plan=PLAN, layers=["relu", "head"])
    act, acts = Path.replace, []

    def dying(self: Path, target: Path) -> Path:
        if "next" in self.parts and "next" not in Path(target).parts:
            acts.append(self)
            if len(acts) > after:
                raise _Killed
        return act(self, target)

    with monkeypatch.context() as patch, contextlib.suppress(_Killed):
        patch.setattr(Path, "replace", dying)
        scan(model, pictures.flip(0), tmp_path / "two", plan=PLAN, layers=["relu"], replace=True)
    assert len(acts) == min(after + 1, 4)
    shown = read_scan(tmp_path / "two", "small")
    assert list(shown.layers) == ["relu"] and shown.layer("relu").unit(0).top and len(shown.samples("relu").values)
    left = {name: data for name, data in files_of(tmp_path / "two").items() if "partial" not in name}
    assert left == files_of(tmp_path / "whole")


def test_a_hostile_scan_that_is_to_come_moves_and_removes_nothing_of_others(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    folder = tmp_path / "store" / "small"
    (folder / "next").mkdir(parents=True)
    for at, files in ((folder, {"../../mine.txt": "0"}), (folder / "next", {"../../../mine.txt": "0"})):
        manifest = {"kind": scan_store.KIND, "schema": scan_store.SCHEMA, "files": files}
        (at / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError):
        read_scan(tmp_path / "store", "small")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_layer_that_is_named_twice_is_counted_once(model: circuits.Model, pictures: Tensor, tmp_path: Path) -> None:
    scans = [scan(model, pictures, tmp_path / str(n), layers=["relu"] * n, plan=PLAN) for n in (1, 2)]
    first, second = (files_of(result.folder.parent) for result in scans)
    assert first == second
    half = len(pictures) // 2
    rows = circuits.find(model, positive=pictures[:half], negative=pictures[half:], layers=["relu", "relu"]).rows
    assert len({row.unit for row in rows}) == len(rows) == scans[0].layers["relu"]


def test_a_damaged_scan_that_is_to_come_is_refused_and_goes_when_it_is_replaced(
    model: circuits.Model, pictures: Tensor, tmp_path: Path
) -> None:
    before = scan(model, pictures, tmp_path, plan=PLAN).folder
    (before / "next").mkdir()
    (before / "next" / "manifest.json").write_text('{"kind": "vision-circuits sc')
    with pytest.raises(StoreError, match="--replace"):
        scan(model, pictures, tmp_path, plan=PLAN)
    assert scan(model, pictures, tmp_path, plan=PLAN, replace=True).count == len(pictures)
    assert not (before / "next").exists()


def test_a_half_done_scan_is_not_continued_with_other_pictures(
    model: circuits.Model, pictures: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(scanning, "_SAVE_EVERY", 0.0)
        patch.setattr(scanning, "_finish", lambda *a: (_ for _ in ()).throw(_Killed()))
        scan(model, pictures, tmp_path, plan=PLAN)
    with pytest.raises(StoreError, match="other images"):
        scan(model, pictures.flip(0), tmp_path, plan=PLAN)
    assert scan(model, pictures.flip(0), tmp_path, plan=PLAN, replace=True).count == 150


@pytest.mark.parametrize(
    "name", ["manifest.json", "images.json", "layers/relu.safetensors", "samples/relu.safetensors"]
)
@pytest.mark.parametrize("how", ["gone", "cut", "changed", "other"])
def test_a_damaged_store_is_noticed(
    model: circuits.Model, pictures: Tensor, tmp_path: Path, name: str, how: str
) -> None:
    folder = scan(model, pictures[:10], tmp_path, plan=PLAN).folder
    path = folder / name
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        middle = len(data) // 2
        path.write_bytes(
            {
                "cut": data[:middle],
                "changed": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
                "other": b"{}",
            }[how]
        )
    with pytest.raises(StoreError, match="damaged|missing|no finished scan|not the manifest"):
        read = read_scan(tmp_path, "small")
        read.unit("relu:0")
        read.samples("relu")


def test_latents_of_a_basis_are_scanned_like_channels(pictures: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = circuits.wrap(Small().eval(), InputSpec(size=12), name="small")
    directions = torch.eye(6)[[3, 1]]
    model.attach("relu", "two", circuits.Directions(directions))
    found = scan(model, pictures, tmp_path, plan=PLAN, layers=["relu", "relu~two"])
    latent, channel = found.unit("small/relu~two:0"), found.unit("small/relu:3")
    assert latent.unit == "small/relu~two:0"
    assert [(e.image, e.position) for e in latent.top] == [(e.image, e.position) for e in channel.top]
    assert latent.density == channel.density and latent.mean == pytest.approx(channel.mean)
    assert [e.box for e in latent.top] == [e.box for e in channel.top]


def test_labels_become_the_class_mix_of_the_top_pictures(tmp_path: Path) -> None:
    model = circuits.load("scenes")
    found = scan(model, "scenes:120", tmp_path, layers=["mixed4a"], plan=Plan(top=12))
    car = found.unit("mixed4a:11")
    assert sum(car.classes.values()) == len(car.top)
    assert next(iter(car.classes)) == "car"


def test_a_net_that_cannot_be_traced_is_scanned_by_its_outputs(tmp_path: Path) -> None:
    class Branching(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if float(x.detach().mean()) > -1e9 else x

    torch.manual_seed(0)
    model = circuits.wrap(Branching().eval(), InputSpec(size=12), name="branching")
    assert model.graph is None
    pictures = torch.rand(20, 3, 12, 12)
    found = scan(model, pictures, tmp_path, plan=PLAN)
    one = found.unit("relu:2")
    values = circuits.capture(model, pictures, "relu")["relu"][:, 2]
    assert not one.signed and one.minimum == pytest.approx(float(values.min()))
    assert one.zeros == int((values == 0).sum())
    assert one.density == pytest.approx(float((values > 0).float().mean()))


def test_a_silent_unit_has_no_examples(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Small().eval()
    with torch.no_grad():
        net.first.weight[0], net.first.bias[0] = 0, -1
    found = scan(circuits.wrap(net, InputSpec(size=12)), torch.rand(9, 3, 12, 12), tmp_path, plan=PLAN)
    one = found.unit("relu:0")
    assert (one.density, one.active_images, one.mean_if_on, one.maximum) == (0.0, 0, 0.0, -1.0)
    assert one.top == one.random == one.bands == () and one.quantiles == {}
    assert len(one.most_negative) == 6
    assert found.unit("relu:1").images == 9


def test_numbers_that_are_not_finite_are_refused_and_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Small().eval()
    with torch.no_grad():
        net.first.weight[0] = float("nan")
    with pytest.raises(CircuitsError, match="relu has responses to image 0 that are not finite"):
        scan(circuits.wrap(net, InputSpec(size=12), name="small"), torch.rand(9, 3, 12, 12), tmp_path, plan=PLAN)
    with pytest.raises(StoreError):
        read_scan(tmp_path, "small")


def test_bad_questions_get_clear_answers(model: circuits.Model, pictures: Tensor, found: Scan, tmp_path: Path) -> None:
    for wrong, error, what in (
        (lambda: scan(model, pictures, tmp_path, layers=["rely"]), AddressError, "no layer 'rely'.*relu"),
        (lambda: scan(model, pictures, tmp_path, layers=["relu:3"]), AddressError, "whole layers"),
        (lambda: scan(model, pictures, tmp_path, layers=[]), CircuitsError, "at least one"),
        (lambda: scan(model, pictures, tmp_path, batch_size=0), CircuitsError, "at least one image"),
        (lambda: scan(model, pictures, tmp_path, workers=-1), CircuitsError, "whole number of at least 0"),
        (lambda: Plan(top=0), CircuitsError, "top of a scan"),
        (lambda: found.unit("other/relu:0"), AddressError, "this scan is of small"),
        (lambda: found.unit("relu"), AddressError, "is a layer"),
        (lambda: found.unit("relu:6"), AddressError, "6 units"),
        (lambda: found.layer("rely"), AddressError, "relu"),
        (lambda: read_scan(tmp_path, "small"), StoreError, "circuits scan small"),
    ):
        with pytest.raises(error, match=what):
            wrong()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        scan(model, pictures, tmp_path / "file", plan=PLAN)


def test_two_scans_do_not_write_one_store(model: circuits.Model, pictures: Tensor, tmp_path: Path) -> None:
    with scanning._locked(tmp_path / "small") if (tmp_path / "small").mkdir() is None else None:  # type: ignore[union-attr]
        with pytest.raises(StoreError, match="another scan is writing"):
            scan(model, pictures, tmp_path, plan=PLAN)
    assert scan(model, pictures, tmp_path, plan=PLAN).count == 150


def test_the_model_is_left_as_it_was(unchanged: list[circuits.Model], pictures: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = circuits.wrap(Small().eval(), InputSpec(size=12), name="small")
    unchanged.append(model)
    scan(model, pictures, tmp_path, plan=PLAN)
    planted = nets.planted()
    unchanged.append(planted)
    scan(planted, torch.rand(5, *planted.input.shape), tmp_path, plan=PLAN)
