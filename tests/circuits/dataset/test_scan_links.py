"""A scan writes, moves and removes files in its own folder, wherever the links in a stranger's store lead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import circuits
from circuits.dataset.scan_store import NEXT, StoreError, digest_of_manifest, folder_of
from circuits.dataset.streaming_statistics import Plan

PLAN = Plan(top=2, few=2, per_band=1, samples=8, draws=1)
MINE = {"notes.txt", "mine.safetensors", "1.safetensors"}


def _partial(store: Path, mine: Path) -> None:
    (store / "partial").symlink_to(mine)


def _next(store: Path) -> None:
    """As a scan is killed while it moves its files."""
    shutil.copytree(store, store.parent / "copy")
    (store.parent / "copy").rename(store / NEXT)


def _layers_of_next(store: Path, mine: Path) -> None:
    _next(store)
    shutil.rmtree(store / NEXT / "layers")
    (store / NEXT / "layers").symlink_to(mine)


def _layers(store: Path, mine: Path) -> None:
    _next(store)
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["files"]["layers/mine.safetensors"] = "0" * 64
    manifest["digest"] = digest_of_manifest(manifest)
    (store / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(store / "layers")
    (store / "layers").symlink_to(mine)


def _whole_next(store: Path, mine: Path) -> None:
    shutil.copy(store / "manifest.json", mine / "manifest.json")
    (store / NEXT).symlink_to(mine)


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return circuits.wrap(net.eval(), circuits.InputSpec(size=12), name="small")


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("link", [_partial, _layers_of_next, _layers, _whole_next])
def test_a_link_in_a_strangers_store_has_nothing_elsewhere_removed(
    link: Callable[[Path, Path], None], replace: bool, model: circuits.Model, tmp_path: Path
) -> None:
    pictures = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    circuits.scan(model, pictures, tmp_path / "store", plan=PLAN)
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in MINE:
        (mine / name).write_bytes(b"mine")
    link(folder_of(tmp_path / "store", "small"), mine)
    if link is not _partial:  # a reader puts the files of a killed scan in place
        with pytest.raises(StoreError, match="is a link to another folder"):
            circuits.read_scan(tmp_path / "store", "small")
    with pytest.raises(StoreError, match="is a link to another folder"):
        circuits.scan(model, pictures[:3], tmp_path / "store", plan=PLAN, replace=replace)
    assert {path.name for path in mine.iterdir()} - {"manifest.json"} == MINE
    assert {(mine / name).read_bytes() for name in MINE} == {b"mine"}


def test_a_lock_that_is_a_link_is_refused_and_its_target_kept(model: circuits.Model, tmp_path: Path) -> None:
    mine = tmp_path / "notes.txt"
    mine.write_bytes(b"mine")
    store = folder_of(tmp_path / "store", "small")
    store.mkdir(parents=True)
    (store / ".lock").symlink_to(mine)
    with pytest.raises(StoreError, match="cannot be written"):
        circuits.scan(model, torch.rand(2, 3, 12, 12), tmp_path / "store", plan=PLAN)
    assert mine.read_bytes() == b"mine"
