"""A sweep can be stopped at any moment and goes on; what it keeps is what it made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import circuits
from circuits.errors import AddressError, CircuitsError
from circuits.network.address import Unit
from circuits.visualization import VisualizationError, parametrizations, visualize
from circuits.visualization.result import Visualization
from circuits.visualization.sweeps import sweep as sweeping
from circuits.visualization.sweeps.store import file_name
from circuits.visualization.sweeps.sweep import read_sweep, sweep
from tests import nets

ROOT = Path(__file__).resolve().parents[3]
QUICK: dict[str, Any] = {"steps": 3, "size": 16, "transforms": [], "retries": 0, "redirect": 0, "batch_size": 3}


def make(channels: int = 3, seed: int = 0) -> circuits.Model:
    # no rectifier at the end: no unit is silent
    parts = (nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1))
    return nets.wrap(nets.sequential(*parts, seed=seed), 16, channels)


@pytest.fixture
def model() -> circuits.Model:
    return make()


LAYER = "2"


def same(a: Visualization, b: Visualization) -> bool:
    return (
        a.describe() == b.describe()
        and torch.equal(a.image, b.image)
        and a.history == b.history
        and a.evidence == b.evidence
        and list(a.frames) == list(b.frames)
        and all(torch.equal(a.frames[s], b.frames[s]) for s in a.frames)
    )


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*") if p.suffix in (".png", ".safetensors")}


def index(folder: Path) -> Any:
    return json.loads((folder / "index.json").read_text("utf-8"))


# -- what is written ----------------------------------------------------------------------------------------------


def test_a_sweep_holds_what_visualize_makes(model: circuits.Model, tmp_path: Path) -> None:
    result = sweep(model, LAYER, tmp_path, frames=[1, 2], **QUICK)
    alone = visualize(model, LAYER, frames=[1, 2], **QUICK)
    assert len(result) == 8 and all(same(a, b) for a, b in zip(result, alone, strict=True))
    assert all(same(a, b) for a, b in zip(read_sweep(tmp_path), result, strict=True))
    assert set(files(tmp_path)) == {f"2-{i}.{end}" for i in range(8) for end in ("png", "safetensors")}
    written = index(tmp_path)
    assert written["schema"] == 1 and written["weights"] == model.digest and written["settings"]["steps"] == 3
    assert [r["unit"] for r in written["results"]] == [f"{model.name}/2:{i}" for i in range(8)]
    with Image.open(tmp_path / "2-5.png") as image:
        pixels = np.asarray(image)
    assert np.abs(pixels.transpose(2, 0, 1) / 255 - result[5].image.numpy()).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    ("channels", "alpha", "mode"),
    [(1, False, "L"), (1, True, "LA"), (3, False, "RGB"), (3, True, "RGBA"), (5, False, "")],
)
def test_the_png_has_the_channels_of_the_image(tmp_path: Path, channels: int, alpha: bool, mode: str) -> None:
    sweep(make(channels), f"{LAYER}:1", tmp_path, params=parametrizations.Fourier(alpha=alpha), **QUICK)
    assert len(read_sweep(tmp_path)[0].image) == channels + alpha
    png = tmp_path / "2-1.png"
    assert png.exists() == bool(mode)
    if mode:
        with Image.open(png) as image:
            assert image.mode == mode and np.array_equal(image, read_sweep(tmp_path)[0].pil())
    else:
        with pytest.raises(CircuitsError, match="5 channels have no colors"):
            read_sweep(tmp_path)[0].pil()


def test_variants_neurons_and_latents_have_files_of_their_own(model: circuits.Model, tmp_path: Path) -> None:
    model.attach(LAYER, "sae-1", circuits.Directions(torch.eye(8)[:3]))
    options = [f"{LAYER}:1", f"{LAYER}:1@3,5", f"{LAYER}~sae-1:1"]
    result = sweep(model, options, tmp_path, variants=2, **QUICK)
    assert set(files(tmp_path)) == {
        f"{name}.{end}"
        for name in ("2-1", "2-1.1", "2-1@3,5", "2-1@3,5.1", "2+sae-1-1", "2+sae-1-1.1")
        for end in ("png", "safetensors")
    }
    assert all(same(a, b) for a, b in zip(read_sweep(tmp_path), result, strict=True))


def test_file_names_are_safe_and_no_two_units_share_one() -> None:
    layers = ["a", "a-1", "a-1.2", "a.1", "a_1", "a-1-2", "L" * 200, "L" * 201]
    bases = [None, "b", "b-1", "1", "b.2"]
    positions = [None, (1, 2), (12, 3)]
    units = [Unit(la, i, None, b, p) for la, b, p, i in product(layers, bases, positions, (0, 1, 2, 12))]
    names = [file_name(u, v) for u in units for v in (0, 1, 2, 12)]
    assert len(set(names)) == len(names)
    assert all(set(n) <= set("abcdefghijklmnopqrstuvwxyzL0123456789._-+@,=") and len(n) < 200 for n in names)
    assert file_name("scenes/mixed4a:3") == file_name("mixed4a:3") == "mixed4a-3"


def test_a_unit_named_twice_is_made_once(model: circuits.Model, tmp_path: Path) -> None:
    result = sweep(model, [f"{LAYER}:1", Unit(LAYER, 1), f"{LAYER}:0"], tmp_path, **QUICK)
    assert [r.unit.rpartition(":")[2] for r in result] == ["1", "0"]


def test_numbers_that_are_none_survive(model: circuits.Model, tmp_path: Path) -> None:
    with torch.no_grad():
        model.module[2].bias[1] = float("nan")  # type: ignore[index]
    result = sweep(model, [f"{LAYER}:0", f"{LAYER}:1"], tmp_path, **QUICK)
    again = read_sweep(tmp_path)
    assert [r.status for r in again] == [r.status for r in result] and again[1].status == "not finite"
    assert np.isnan(again[1].peak) and np.isnan(again[1].history).all()


# -- going on -----------------------------------------------------------------------------------------------------


def test_what_is_there_is_read_back_and_not_made_again(
    model: circuits.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sweep(model, LAYER, tmp_path, **QUICK)
    stamps = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}

    def never(*args: object, **options: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(sweeping, "_render_batch", never)
    assert all(same(a, b) for a, b in zip(first, sweep(model, LAYER, tmp_path, **QUICK), strict=True))
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == stamps


@pytest.mark.parametrize("after", [1, 4, 5, 8])
def test_a_sweep_that_was_interrupted_goes_on_to_the_same_bytes(
    model: circuits.Model, tmp_path: Path, after: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    sweep(model, LAYER, whole, **QUICK)

    def stop(done: int, total: int) -> None:
        assert total == 9  # three batches of three steps
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(model, LAYER, broken, progress=stop, **QUICK)
    finished = after // 3 * 3
    assert len(files(broken)) == 2 * finished
    assert (broken / "index.json").exists() == bool(finished)
    seen: list[tuple[int, int]] = []
    sweep(model, LAYER, broken, progress=lambda done, total: seen.append((done, total)), **QUICK)
    assert seen[0][0] == finished + 1 and seen[-1] == (9, 9) and seen == sorted(seen)
    assert files(broken) == files(whole) and index(broken)["results"] == index(whole)["results"]


CHILD = """
import sys, torch
torch.set_num_threads(1)
from circuits.network.model import load
from circuits.visualization.sweeps.sweep import sweep
def tell(done, total):
    print(done, flush=True)
units = [f"mixed3a:{i}" for i in range(18)]
sweep(load("scenes"), units, sys.argv[1], steps=4, retries=0, redirect=4, batch_size=6, progress=tell)
"""


def test_a_sweep_killed_half_way_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(broken)], env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:  # somewhere in a batch, or as its files are written
            if int(line) >= 6:
                break
        time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    scenes = circuits.load("scenes")
    options: dict[str, Any] = {"steps": 4, "retries": 0, "redirect": 4, "batch_size": 6}
    stored = len(read_sweep(broken))
    assert 0 < stored < 18 and stored % 6 == 0
    units = [f"mixed3a:{i}" for i in range(18)]
    result = sweep(scenes, units, broken, **options)
    unbroken = sweep(scenes, units, whole, **options)
    assert all(same(a, b) for a, b in zip(result, unbroken, strict=True))
    assert files(broken) == files(whole)
    assert not list(broken.glob("*.tmp")) and not list(broken.glob(".*.tmp"))


def test_what_a_killed_run_left_half_written_is_taken_away(model: circuits.Model, tmp_path: Path) -> None:
    left = [".2-0.png.x3_9.tmp", ".2-0.safetensors.abc.tmp", ".index.json.abc.tmp"]
    for name in [*left, ".mine.tmp", "mine.tmp"]:
        (tmp_path / name).write_text("half")
    sweep(model, f"{LAYER}:0", tmp_path, **QUICK)
    assert {p.name for p in tmp_path.glob("*.tmp")} | {p.name for p in tmp_path.glob(".*")} == {".mine.tmp", "mine.tmp"}


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_image_is_reported_and_made_again(model: circuits.Model, tmp_path: Path, damage: str) -> None:
    sweep(model, LAYER, tmp_path, **QUICK)
    before = files(tmp_path)
    path = tmp_path / "2-4.safetensors"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 100 if damage == "truncated" else 0])
    with pytest.raises(VisualizationError, match="2-4.safetensors is (missing|damaged)"):
        read_sweep(tmp_path)
    sweep(model, LAYER, tmp_path, **QUICK)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "damaged"),
        ('{"schema": 1, "sett', "damaged"),
        ("\ufffd\x00", "damaged"),
        ("[]", "not the index"),
        ('{"hello": 1}', "not the index"),
        ('{"schema": 9, "settings": {}}', "schema 9"),
        ('{"schema": 1, "settings": {}}', "damaged"),
    ],
)
def test_an_index_that_is_damaged_is_never_written_over(
    model: circuits.Model, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "index.json").write_text(text, "utf-8")
    for act in (lambda: read_sweep(tmp_path), lambda: sweep(model, LAYER, tmp_path, **QUICK)):
        with pytest.raises(VisualizationError, match=says):
            act()
    assert (tmp_path / "index.json").read_text("utf-8") == text


@pytest.mark.parametrize("name", ["unit", "size", "status", "history", "evidence", "response"])
def test_an_entry_that_lacks_something_is_an_error(model: circuits.Model, tmp_path: Path, name: str) -> None:
    sweep(model, f"{LAYER}:0", tmp_path, **QUICK)
    written = index(tmp_path)
    del written["results"][0][name]
    (tmp_path / "index.json").write_text(json.dumps(written))
    with pytest.raises(VisualizationError, match="damaged"):
        read_sweep(tmp_path)


def test_a_folder_without_a_sweep_is_named(tmp_path: Path) -> None:
    with pytest.raises(VisualizationError, match="holds no sweep"):
        read_sweep(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 4), ("seed", 1), ("size", 20), ("show", 20), ("variants", 2), ("frames", [1]), ("rate", 0.01),
        ("optimum", "negative"), ("params", parametrizations.Fourier(sd=0.02)), ("params", parametrizations.Pixels()),
        ("transforms", [torch.tanh]), ("retries", 1), ("redirect", 2), ("plateau", 9), ("precision", "bf16"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_by_name(model: circuits.Model, tmp_path: Path, name: str, value: object) -> None:
    sweep(model, f"{LAYER}:0", tmp_path, **QUICK)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(VisualizationError, match=f"sweep with {name} .* another folder"):
        sweep(model, f"{LAYER}:0", tmp_path, **{**QUICK, name: value})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_other_units_weights_and_directions_are_refused(model: circuits.Model, tmp_path: Path) -> None:
    sweep(model, f"{LAYER}:0", tmp_path / "a", **QUICK)
    with pytest.raises(VisualizationError, match=r"units 1, \S+/2:0 among them, not 1, \S+/2:1 among them"):
        sweep(model, f"{LAYER}:1", tmp_path / "a", **QUICK)
    with pytest.raises(VisualizationError, match="other weights"):
        sweep(make(seed=1), f"{LAYER}:0", tmp_path / "a", **QUICK)
    model.attach(LAYER, "b", circuits.Directions(torch.eye(8)))
    sweep(model, f"{LAYER}~b:0", tmp_path / "b", **QUICK)
    other = make()
    other.attach(LAYER, "b", circuits.Directions(-torch.eye(8)))
    with pytest.raises(VisualizationError, match="bases"):
        sweep(other, f"{LAYER}~b:0", tmp_path / "b", **QUICK)


def test_defaults_written_out_are_the_same_settings(model: circuits.Model, tmp_path: Path) -> None:
    sweep(model, f"{LAYER}:0", tmp_path, steps=2)
    sweep(
        model,
        f"{LAYER}:0",
        tmp_path,
        steps=2,
        params=parametrizations.Fourier(),
        optimum="positive",
        size=16,
        show=(16, 16),
    )


def test_another_batch_size_goes_on(model: circuits.Model, tmp_path: Path) -> None:
    sweep(model, LAYER, tmp_path, **QUICK)
    assert len(sweep(model, LAYER, tmp_path, **{**QUICK, "batch_size": 2})) == 8
    assert index(tmp_path)["batch_size"] == 3  # nothing was made, so nothing was written


# -- photographs --------------------------------------------------------------------------------------------------


def test_evidence_is_stored_and_replaced_for_other_images(
    model: circuits.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = sweep(model, LAYER, tmp_path, **QUICK)
    assert all(r.evidence is None for r in plain)
    images = nets.pictures(6, 16)
    first = sweep(model, LAYER, tmp_path, images=images, **QUICK)
    assert all(r.evidence is not None and r.evidence.count == 6 for r in first)
    assert all(same(a, b) for a, b in zip(read_sweep(tmp_path), first, strict=True))
    other = sweep(model, LAYER, tmp_path, images=nets.pictures(7, 16, seed=1), **QUICK)
    assert all(r.evidence is not None and r.evidence.count == 7 for r in other)
    monkeypatch.setattr(sweeping, "examine", lambda *a: pytest.fail("examined again"))
    sweep(model, LAYER, tmp_path, images=nets.pictures(7, 16, seed=1), **QUICK)
    assert all(r.evidence is not None for r in sweep(model, LAYER, tmp_path, **QUICK))


# -- what cannot be done ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "options", "error"),
    [
        (f"{LAYER}:0", {"steps": 0}, VisualizationError),
        (f"{LAYER}:0", {"variants": True}, VisualizationError),
        (f"{LAYER}:0", {"optimum": "best"}, VisualizationError),
        (f"{LAYER}:0", {"batch_size": 0}, VisualizationError),
        (f"{LAYER}:0", {"precision": "int8"}, VisualizationError),
        (f"{LAYER}:0", {"size": 0}, VisualizationError),
        (f"{LAYER}:0@15,15", {"size": 8}, VisualizationError),
        (f"{LAYER}:0", {"optimum": "negative", "images": torch.rand(3, 3, 16, 16)}, VisualizationError),
        (f"{LAYER}:8", {}, AddressError),
        ("nowhere:0", {}, AddressError),
        ([], {}, VisualizationError),
        ([lambda seen: seen(LAYER)], {}, VisualizationError),
        (3, {}, VisualizationError),
        (f"{LAYER}:0", {"stpes": 3}, VisualizationError),
    ],
)
def test_what_cannot_be_done_leaves_no_folder(
    model: circuits.Model, tmp_path: Path, what: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        sweep(model, what, tmp_path / "new", **{**QUICK, **options})
    assert not (tmp_path / "new").exists()


def test_a_unit_that_no_gradient_reaches_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()
            self.outer = nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.outer(self.inner(torch.ones_like(x)))

    model = nets.wrap(Constant(), 16)
    with pytest.raises(VisualizationError, match="no gradient"):
        sweep(model, "outer:0", tmp_path / "new", **QUICK)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_to_is_named(model: circuits.Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for store in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(VisualizationError, match="is a file"):
            sweep(model, f"{LAYER}:0", store, **QUICK)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_sweep_leaves_the_model_as_it_was_and_other_files_alone(
    model: circuits.Model, tmp_path: Path, unchanged: list[circuits.Model]
) -> None:
    unchanged.append(model)
    (tmp_path / "mine.txt").write_text("mine")
    sweep(model, LAYER, tmp_path, **QUICK)
    assert (tmp_path / "mine.txt").read_text() == "mine"
