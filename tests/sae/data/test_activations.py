"""Which vectors come from where: sampling, windows, and stores on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

import sae
from sae.data.activations import Sampling, SiteStream, collect
from sae.data.disk_shards import MANIFEST, open_shards, store
from sae.data.site import Block
from sae.errors import FormatError, SAEError, TrainingError
from zoo.common import stored
from zoo.errors import FileError


class Numbered:
    """A site without a network: input `i` is a map whose vectors say their input, row and column."""

    address, axes, d = "numbers/map", ("image", "y", "x"), 4
    metadata = {"model": "numbers", "layer": "map"}

    def __init__(self, height: int = 5, width: int = 6) -> None:
        self.height, self.width = height, width
        self.read = 0

    def map(self, number: float) -> Tensor:
        y, x = torch.meshgrid(torch.arange(self.height), torch.arange(self.width), indexing="ij")
        return torch.stack([torch.full_like(y, int(number)), y, x, 1 + y * self.width + x], dim=-1).float()

    def blocks(self, inputs: Any, *, batch_size: int = 32, progress: Any = None) -> Iterator[Block]:
        for first in range(0, len(inputs), batch_size):
            some = inputs[first : first + batch_size]
            self.read += len(some)
            yield Block(torch.stack([self.map(number) for number in some]), first)

    @contextmanager
    def replaced(self, function: Any) -> Iterator[None]:
        yield

    def predictions(self, inputs: Any, ways: Any, **settings: Any) -> Iterator[Any]:
        yield from ()


def test_places_say_where_vectors_come_from() -> None:
    found = collect(Numbered(), [0, 1, 2, 3, 4, 5, 6], batch_size=3)
    assert found.vectors.shape == (7 * 30, 4)
    assert torch.equal(found.vectors[:, :3].long(), found.positions)
    assert found.axes == ("image", "y", "x")


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_draws_do_not_depend_on_batches(batch_size: int) -> None:
    sampling = Sampling(per_input=4, rule="magnitude", seed=3)
    found = collect(Numbered(), list(range(7)), sampling=sampling, batch_size=batch_size)
    whole = collect(Numbered(), list(range(7)), sampling=sampling, batch_size=100)
    assert torch.equal(found.vectors, whole.vectors)
    assert torch.equal(found.vectors[:, :3].long(), found.positions)
    assert [int((found.positions[:, 0] == i).sum()) for i in range(7)] == [4] * 7


def test_positions_are_drawn_once_each_and_not_from_the_margin() -> None:
    places = collect(Numbered(), [0, 1], sampling=Sampling(per_input=12, margin=1)).positions
    assert len({tuple(p) for p in places.tolist()}) == 24
    assert places[:, 1].min() == 1 and places[:, 1].max() == 3
    assert places[:, 2].min() == 1 and places[:, 2].max() == 4


@pytest.mark.parametrize(("rule", "power"), [("uniform", 0), ("magnitude", 1)])
def test_positions_are_drawn_in_proportion_to_their_length(rule: Any, power: int) -> None:
    site = Numbered(2, 3)
    places = collect(site, [0] * 3000, sampling=Sampling(per_input=1, rule=rule)).positions
    counts = torch.bincount(places[:, 1] * 3 + places[:, 2], minlength=6)
    lengths = site.map(0).double().norm(dim=-1).flatten() ** power
    assert chisquare(counts.numpy(), (3000 * lengths / lengths.sum()).numpy()).pvalue > 1e-3
    other = lengths.flip(0) if power else torch.arange(1.0, 7, dtype=torch.double)
    assert chisquare(counts.numpy(), (3000 * other / other.sum()).numpy()).pvalue < 1e-6


def test_padding_gives_no_vectors() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    block = Block(torch.arange(12.0).view(2, 3, 2), 5, mask)
    assert block.vectors.tolist() == [[0, 1], [2, 3], [6, 7]]
    assert block.positions.tolist() == [[5, 0], [5, 1], [6, 0]]
    vectors, places = Sampling(per_input=3).pick(block)
    assert torch.equal(vectors, block.vectors) and torch.equal(places, block.positions)


def test_a_silent_vector_is_not_drawn_by_magnitude() -> None:
    acts = torch.zeros(1, 4, 2)
    acts[0, 2] = 1.0
    vectors, places = Sampling(per_input=3, rule="magnitude").pick(Block(acts, 0))
    assert places.tolist() == [[0, 2]] and vectors.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"per_input": 0}, "per_input"),
        ({"rule": "loud"}, "uniform"),
        ({"rule": "magnitude"}, "per_input"),
        ({"margin": -1}, "margin"),
    ],
)
def test_bad_sampling_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SAEError, match=said):
        Sampling(**settings)


def test_a_margin_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(SAEError, match="margin of 3 leaves nothing of 5"):
        collect(Numbered(), [0], sampling=Sampling(margin=3))


def _rows(batch: Tensor) -> list[tuple[int, ...]]:
    return [tuple(row) for row in batch[:, :3].long().tolist()]


@pytest.mark.parametrize("memory", [2**30, 5 * 30 * 16])
def test_an_epoch_gives_every_vector_once(memory: int) -> None:
    site = Numbered()
    stream = SiteStream(site, list(range(20)), batch_size=40, memory=memory)
    assert stream.windows == (1 if memory == 2**30 else 4)
    seen = [row for _ in range(15) for row in _rows(next(stream))]
    assert len(seen) == 600 and len(set(seen)) == 600
    again = [row for _ in range(15) for row in _rows(next(stream))]
    assert set(again) == set(seen) and again != seen


def test_what_fits_is_read_from_the_network_once() -> None:
    site = Numbered()
    stream = SiteStream(site, list(range(20)), batch_size=100)
    before = site.read
    for _ in range(20):
        next(stream)
    assert site.read == before + 20


@pytest.mark.parametrize("memory", [2**30, 5 * 30 * 16])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(per_input=7)])
def test_a_stream_goes_on_from_any_position(memory: int, sampling: Sampling) -> None:
    def stream() -> SiteStream:
        return SiteStream(Numbered(), list(range(20)), sampling=sampling, batch_size=33, memory=memory, seed=2)

    whole = stream()
    batches = [next(whole) for _ in range(30)]
    for broken in (0, 1, 7, 19):
        first = stream()
        for _ in range(broken):
            next(first)
        position = json.loads(json.dumps(first.tell()))
        second = stream()
        second.seek(position)
        assert all(torch.equal(next(second), batch) for batch in batches[broken:])


def test_later_epochs_draw_other_positions_where_inputs_are_read_again() -> None:
    stream = SiteStream(Numbered(), list(range(8)), sampling=Sampling(per_input=3), batch_size=24, memory=300)
    assert stream.windows > 1
    epochs = [{row for row in _rows(next(stream))} for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_position_of_another_stream_is_refused() -> None:
    one, other = (SiteStream(Numbered(), list(range(8)), batch_size=8, seed=seed) for seed in (0, 1))
    next(one)
    with pytest.raises(TrainingError, match="seed is 1, was 0"):
        other.seek(one.tell())


@pytest.mark.parametrize("memory", [2**30, 5 * 30 * 16])
def test_ranks_share_the_inputs_and_read_their_own_alone(memory: int) -> None:
    seen: list[set[tuple[int, ...]]] = []
    for rank in range(2):
        site = Numbered()
        stream = SiteStream(site, list(range(20)), batch_size=30, memory=memory)
        stream.share(rank, 2)
        before = site.read
        seen.append({row for _ in range(10) for row in _rows(next(stream))})
        assert site.read - before == 10
        again = SiteStream(Numbered(), list(range(20)), batch_size=30, memory=memory)
        with pytest.raises(TrainingError, match="world is 1, was 2"):
            again.seek(stream.tell())
    assert len(seen[0]) == len(seen[1]) == 300 and not seen[0] & seen[1]
    with pytest.raises(SAEError, match="30 ranks cannot share 2"):
        next(_shared(29, 30))


def _shared(rank: int, world: int) -> SiteStream:
    stream = SiteStream(Numbered(), [0, 1], batch_size=3)
    stream.share(rank, world)
    return stream


def test_no_inputs_and_no_vectors_are_refused() -> None:
    with pytest.raises(SAEError, match="no inputs"):
        SiteStream(Numbered(), [])
    with pytest.raises(SAEError, match="no activations"):
        collect(Numbered(), [])


# -- stores --------------------------------------------------------------------------------------------


def test_a_store_holds_what_was_gathered(tmp_path: Path) -> None:
    inputs = list(range(20))
    shards = store(Numbered(), inputs, tmp_path, shard_bytes=2000, batch_size=2)
    assert len(shards.shards) > 3 and len(shards) == 600 and shards.complete
    assert torch.equal(shards.tensor(), collect(Numbered(), inputs).vectors)
    assert torch.equal(
        torch.cat([shards.read(i)[1] for i in range(len(shards.shards))]), collect(Numbered(), inputs).positions
    )


def test_the_same_question_finds_the_store_and_another_does_not(tmp_path: Path) -> None:
    site = Numbered()
    first = store(site, list(range(6)), tmp_path)
    before = site.read
    assert store(site, list(range(6)), tmp_path).folder == first.folder and site.read == before
    assert store(site, list(range(7)), tmp_path).folder != first.folder
    assert store(site, list(range(6)), tmp_path, sampling=Sampling(per_input=3)).folder != first.folder


class Stops(Numbered):
    """Breaks off before an input."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def blocks(self, inputs: Any, *, batch_size: int = 32, progress: Any = None) -> Iterator[Block]:
        for block in super().blocks(inputs, batch_size=batch_size):
            if float(block.acts[-1, 0, 0, 0]) >= self.at:
                raise KeyboardInterrupt
            yield block


def test_a_broken_run_goes_on_behind_its_last_shard(tmp_path: Path) -> None:
    inputs = list(range(20))
    with pytest.raises(KeyboardInterrupt):
        store(Stops(13), inputs, tmp_path, shard_bytes=2000, batch_size=2)
    folder = next(p for p in tmp_path.iterdir())
    half = open_shards(folder)
    assert 0 < len(half.shards) and not half.complete
    with pytest.raises(SAEError, match="not complete"):
        half.stream()
    site = Numbered()
    whole = store(site, inputs, tmp_path, shard_bytes=2000, batch_size=2)
    assert site.read == 20 - half.shards[-1].stop
    assert torch.equal(whole.tensor(), collect(Numbered(), inputs).vectors)
    unbroken = store(Numbered(), inputs, tmp_path / "other", shard_bytes=2000, batch_size=2)
    assert unbroken.digest == whole.digest


def test_a_shard_cut_short_is_named(tmp_path: Path) -> None:
    shards = store(Numbered(), list(range(20)), tmp_path, shard_bytes=2000, batch_size=2)
    path = shards.folder / shards.shards[1].file
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(FormatError, match=rf"{path.name} is damaged.*gather again"):
        open_shards(shards.folder).tensor()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "vision-circuits activations", "schema": 99}'])
def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(FormatError, match=r"manifest|schema"):
        open_shards(tmp_path)


def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    shards = store(Numbered(), [0, 1], tmp_path)
    manifest = json.loads((shards.folder / MANIFEST).read_text())
    manifest["shards"][0]["file"] = "../outside.safetensors"
    (shards.folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="outside its folder"):
        open_shards(shards.folder)


def test_a_full_disk_loses_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    real = stored._save

    def full(tensors: Any, path: Any, *rest: Any) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise OSError(28, "No space left on device")
        real(tensors, path, *rest)

    monkeypatch.setattr(stored, "_save", full)
    with pytest.raises(FileError, match="No space left"):
        store(Numbered(), list(range(20)), tmp_path, shard_bytes=2000, batch_size=2)
    half = open_shards(next(p for p in tmp_path.iterdir()))
    assert len(half.shards) == 2
    assert torch.equal(half.tensor(), collect(Numbered(), list(range(half.shards[-1].stop))).vectors)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    class Broken(Numbered):
        def map(self, number: float) -> Tensor:
            return super().map(number) / (0 if number == 3 else 1)

    with pytest.raises(SAEError, match="not finite"):
        store(Broken(), list(range(5)), tmp_path)


@pytest.mark.parametrize("memory", [2**30, 4000])
def test_training_from_a_store_goes_on_bit_for_bit(tmp_path: Path, memory: int) -> None:
    shards = store(Numbered(), list(range(20)), tmp_path / "acts", shard_bytes=2000, batch_size=2)

    def train(steps: int, name: str) -> list[sae.Run]:
        return sae.train(
            shards.stream(50, memory=memory), sae.TopK(latents=8, k=2), steps=steps, warmup=2, decay=0.0,
            dead_after=100, checkpoint=tmp_path / name, checkpoint_every=5,
        )  # fmt: skip

    whole = train(20, "whole")[0]

    def stop(report: sae.Report) -> None:
        if report.step == 10:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        sae.train(
            shards.stream(50, memory=memory), sae.TopK(latents=8, k=2), steps=20, warmup=2, decay=0.0,
            dead_after=100, checkpoint=tmp_path / "broken", checkpoint_every=5, report_every=10, callbacks=[stop],
        )  # fmt: skip
    resumed = sae.train(
        shards.stream(50, memory=memory), sae.TopK(latents=8, k=2), steps=20, warmup=2, decay=0.0, dead_after=100,
        checkpoint=tmp_path / "broken", checkpoint_every=5, report_every=10,
    )[0]  # fmt: skip
    again = train(20, "again")[0]
    assert torch.equal(whole.sae.decoder, again.sae.decoder)
    assert torch.equal(whole.sae.encoder, resumed.sae.encoder)
