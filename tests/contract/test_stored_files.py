"""What version 0.1 wrote (`written_by_0_1/`) is read today, and found again instead of made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import circuits
import sae
from circuits.activations import atlas_builder
from circuits.dataset import scan as scanning
from circuits.dataset.streaming_statistics import Plan
from circuits.tracing.circuit import Circuit
from circuits.visualization.sweeps import sweep as sweeping
from circuits.visualization.sweeps.sweep import read_sweep, sweep
from tests.threads import one_thread  # noqa: F401 - a fixture for all

WRITTEN = Path(__file__).with_name("written_by_0_1")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A copy: what reads may lock, and what goes on may write."""
    return Path(shutil.copytree(WRITTEN, tmp_path / "written"))


@pytest.fixture(scope="module")
def scenes() -> Iterator[circuits.Model]:
    yield circuits.load("scenes")


def made_again(*_: object, **__: object) -> None:
    pytest.fail("made again, though it is there")


def test_a_scan_is_read_and_not_made_again(
    scenes: circuits.Model, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = circuits.scan(scenes, "scenes:12", tmp_path, layers=["conv2d0"], plan=Plan(top=3, samples=16))
    monkeypatch.setattr(scanning, "visit", made_again)
    found = circuits.scan(scenes, "scenes:12", written / "scan", layers=["conv2d0"], plan=Plan(top=3, samples=16))
    for unit in range(4):
        old, new = found.unit(f"conv2d0:{unit}"), again.unit(f"conv2d0:{unit}")
        assert (old.top, old.maximum, old.density, old.quantiles) == (new.top, new.maximum, new.density, new.quantiles)


def test_a_circuit_is_read_and_is_still_what_a_trace_finds(scenes: circuits.Model) -> None:
    old = Circuit.load(WRITTEN / "circuit.json")
    new = circuits.trace(scenes, "mixed4a:11", images="scenes:40", depth=1, width=3, by="weights")
    assert [(e.source, e.target, e.strength, e.weight) for e in old.edges] == [
        (e.source, e.target, e.strength, e.weight) for e in new.edges
    ]
    assert old.score is not None
    again = circuits.score(scenes, new, images="scenes:40", random=5)
    measured = ("faithfulness", "completeness", "random_faithfulness", "random_completeness", "minimality", "n_images")
    assert all(getattr(old.score, name) == getattr(again, name) for name in measured)
    # the percentiles of that version were of any units
    below = [v < again.faithfulness for v in again.random_faithfulness]
    assert old.score.faithfulness_percentile == 100 * sum(below) / len(below)
    assert old.score.control_faithfulness == old.score.random_faithfulness and old.score.ablated is None
    assert old.to_json() == json.loads((WRITTEN / "circuit.json").read_text("utf-8"))


def test_a_sweep_is_read_and_not_made_again(
    scenes: circuits.Model, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "_render_batch", made_again)
    found = sweep(scenes, ["mixed4a:11", "mixed4a:3"], written / "sweep", steps=3, size=24)
    assert [v.unit for v in found] == [v.unit for v in read_sweep(written / "sweep")]


def test_an_atlas_is_read_and_not_made_again(
    scenes: circuits.Model, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atlas_builder, "direction_icons", made_again)
    monkeypatch.setattr(atlas_builder, "sample_activations", made_again)
    options = {"grid": 3, "steps": 2, "size": 16, "least": 1, "per_image": 4}
    atlas = circuits.activation_atlas(scenes, "mixed4a", "scenes:40", store=written / "atlas", **options)
    assert len(atlas.cells) > 1


def test_shards_are_opened_and_not_made_again(
    scenes: circuits.Model, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, sampling = sae.VisionSite(scenes, "mixed4a"), sae.Sampling(per_input=4, seed=0)
    again = sae.store(site, "scenes:6", tmp_path / "again", dtype="float16", sampling=sampling)
    monkeypatch.setattr(sae.VisionSite, "blocks", made_again)
    shards = sae.store(site, "scenes:6", written / "shards", dtype="float16", sampling=sampling)
    assert torch.equal(shards.tensor(), again.tensor())


def test_a_training_goes_on_from_its_checkpoint_to_the_same_bits(written: Path) -> None:
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    checkpoint = written / "training" / "checkpoint.safetensors"
    reached: list[int] = []
    run = sae.train(
        x,
        [sae.TopK(latents=16, k=2)],
        steps=30,
        batch_size=32,
        checkpoint=checkpoint,
        checkpoint_every=5,
        report_every=5,
        callbacks=[lambda report: reached.append(report.step)],
    )[0]
    assert min(reached) > 5, "it began anew"
    sae.save(written / "now", run)
    now, want = sae.load(written / "now").state_dict(), sae.load(written / "resumed_answer").state_dict()
    for name, tensor in want.items():
        assert torch.equal(now[name], tensor), name


@pytest.mark.parametrize("architecture", ["batchtopk", "gated", "jumprelu", "matryoshka", "relu", "topk"])
def test_saes_are_read_with_their_metadata(architecture: str) -> None:
    found = sae.load(WRITTEN / "sae" / architecture)
    assert found.config.architecture == architecture and found.config.latents == 16
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    assert torch.isfinite(found.decode(found.encode(x))).all()
