"""Files that somebody else may have written: each damaged one is read, or refused in one clear line.

What is done with a file is what a user would do: read it, and look at everything that is in it. Digests are made good
again where a stranger could do so, because a digest shows accidents and keeps nobody out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import circuits
import sae
from apps.cli.output.folder import Outputs, in_place
from apps.explorer.server.jobs import Jobs, read_job
from apps.figures.context import Settings
from apps.figures.runner import make, read_document
from circuits.activations.atlas_store import load_atlas
from circuits.dataset.labels.results import read_labels
from circuits.dataset.scan_store import digest_of_manifest
from circuits.errors import CircuitsError
from circuits.tracing.circuit import Circuit
from circuits.visualization.sweeps.sweep import read_sweep
from sae.data.disk_shards import open_shards
from sae.steering import LatentEdit, Steering
from tests.property.mutations import damaged_json, damaged_tensors
from zoo.images.coco import open_annotated
from zoo.images.manifest import export_scenes
from zoo.images.sources import open_images
from zoo.networks.own import OwnModel, card_of

WRITTEN = Path(__file__).parents[1] / "contract" / "written_by_0_1"


def _scan(folder: Path) -> None:
    for path in folder.glob("*/manifest.json"):
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            manifest = json.loads(path.read_text("utf-8"))
            for name in manifest["files"]:
                if (path.parent / name).is_file():
                    manifest["files"][name] = hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
            path.write_text(json.dumps({**manifest, "digest": digest_of_manifest(manifest)}), "utf-8")
    scan = circuits.read_scan(folder, "scenes")
    scan.images(check=False)
    for name in scan.layers:
        layer = scan.layer(name)
        assert len(layer.density) == len(layer.maximum) == len(layer.mean)
        for unit in range(min(len(layer), 2)):
            scan.unit(f"{name}:{unit}").describe()
        scan.samples(name)


def _circuit(folder: Path) -> None:
    circuit = Circuit.load(folder / "circuit.json")
    circuit.to_json()
    circuit.parents()
    circuit.diff(circuit)
    circuit.to_networkx()


def _sweep(folder: Path) -> None:
    for result in read_sweep(folder):
        result.describe()


def _atlas(folder: Path) -> None:
    load_atlas(folder).describe()


def _shards(folder: Path) -> None:
    open_shards(next(path for path in folder.iterdir() if path.is_dir())).tensor()


def _training(folder: Path) -> None:
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    options = {"steps": 10, "batch_size": 32, "checkpoint_every": 5, "report_every": 5}
    sae.train(x, [sae.TopK(latents=16, k=2)], checkpoint=folder / "checkpoint.safetensors", **options)


def _sae(folder: Path) -> None:
    loaded = sae.load(folder)
    assert torch.isfinite(loaded.decode(loaded.encode(torch.randn(2, 8)))).all()


def _images(folder: Path) -> None:
    images = open_images(folder)
    assert images.labels is None or len(images.labels) == len(images)
    images.pil(0)


def _coco(folder: Path) -> None:
    for annotation in open_annotated(folder / "images", folder / "annotations.json").annotations or []:
        for part in annotation.parts:
            assert part.mask is not None


def _labels(folder: Path) -> None:
    labels = read_labels(folder, "scenes")
    if labels is not None:
        labels.describe()


def _figure(folder: Path) -> None:
    read_document(folder)


def _figures(folder: Path) -> None:
    make([], Settings(), folder)


def _job(folder: Path) -> None:
    for job in Jobs(folder).all():
        assert 0 <= job.share <= 1 and job.title and job.progress_text and job.pid >= 0
        assert len(time.strftime("%H:%M", time.localtime(job.begun))) == 5
    read_job(next((folder / ".jobs").iterdir()))


def _inventory(folder: Path) -> None:
    with in_place(folder, Outputs(("*.png",))):
        assert (folder / "a.png").is_file()


def _steering(folder: Path) -> None:
    Steering.parse((folder / "steering.json").read_bytes())


def _card(folder: Path) -> None:
    card_of(OwnModel(str(folder / "mine.py"), "make", "mine", str(folder), card=str(folder / "mine.card.json")))


USES: dict[str, Callable[[Path], None]] = {
    "scan": _scan, "circuit": _circuit, "sweep": _sweep, "atlas": _atlas, "shards": _shards, "training": _training,
    "images": _images, "coco": _coco, "labels": _labels, "figure": _figure, "figures": _figures, "job": _job,
    "inventory": _inventory, "steering": _steering, "card": _card,
    **{f"sae/{name}": _sae for name in ("batchtopk", "gated", "jumprelu", "matryoshka", "relu", "topk")},
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sound files for each kind."""
    root = tmp_path_factory.mktemp("sound")
    for kind in ("scan", "sweep", "atlas", "shards", "sae"):
        shutil.copytree(WRITTEN / kind, root / kind)
    for kind in ("circuit", "training", "coco", "labels", "figure", "figures", "inventory", "steering", "card"):
        (root / kind).mkdir()
    shutil.copy(WRITTEN / "circuit.json", root / "circuit")
    _training(root / "training")
    export_scenes(3, root / "images")
    corners = [[1, 1, 9, 1, 9, 9]]
    (root / "coco" / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32)).save(root / "coco" / "images" / name)
    document = {
        "images": [
            {"id": i, "file_name": name, "width": 32, "height": 32} for i, name in enumerate(["a.png", "b.png"])
        ],
        "categories": [{"id": 1, "name": "wheel"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "segmentation": corners},
            {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"size": [32, 32], "counts": [10, 20, 994]}},
        ],
    }
    (root / "coco" / "annotations.json").write_text(json.dumps(document))
    circuits.label(circuits.load("scenes"), "scenes:60", layers=["conv2d0"], draws=20).save(root / "labels")
    figure = {
        "schema": 1, "key": "k", "id": "Z1", "name": "n", "title": "t", "caption": "c", "pictures": [],
        "claims": [{"what": "w", "holds": True}],
    }  # fmt: skip
    (root / "figure" / "figure.json").write_text(json.dumps(figure))
    make([], Settings(), root / "figures")
    job = root / "job" / ".jobs" / "20260101-000000-abcdef"
    job.mkdir(parents=True)
    asked = {"model": "scenes", "images": "scenes:40", "layers": ["mixed4a"]}
    (job / "job.json").write_text(json.dumps({"kind": "scan", "asked": asked, "begun": 1.7e9}))
    progress = {"state": "failed", "done": 3, "total": 40, "doing": "scanning", "error": "it broke", "pid": 4242}
    (job / "progress.json").write_text(json.dumps(progress))
    with in_place(root / "inventory", Outputs(("*.png",))):
        (root / "inventory" / "a.png").write_bytes(b"drawn")
    edits = (LatentEdit(3, "add", 2.0), LatentEdit(5, "ablate", at=((1, 2),), map=(4, 4)))
    (root / "steering" / "steering.json").write_text(
        Steering(edits=edits, strengths={3: 1.5}, site="scenes/mixed3b", dictionary="parts").json()
    )
    (root / "card" / "mine.py").write_text("def make(): ...\n")
    card = {"input": {"size": [96, 128], "channels": 1, "mean": [0.5], "std": [0.25]}, "classes": ["a", "b"]}
    (root / "card" / "mine.card.json").write_text(json.dumps(card))
    return root


def _damage(kind: str, sound: Path, folder: Path, seed: int, count: int) -> None:
    USES[kind](Path(shutil.copytree(sound / kind, folder / "sound")))
    refused = 0
    for number in range(count):
        rng = random.Random(f"{kind}-{seed}-{number}")
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(sound / kind, work)
        path = rng.choice(sorted(p for p in work.rglob("*") if p.suffix in (".json", ".safetensors")))
        content = path.read_bytes()
        path.write_bytes(
            damaged_json(content.decode("utf-8"), rng) if path.suffix == ".json" else damaged_tensors(content, rng)
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                USES[kind](work)
        except CircuitsError as error:
            refused += 1
            assert "\n" not in str(error).strip() and len(str(error)) < 1000
        except Exception as error:
            raise AssertionError(f"{kind}, seed {seed}, number {number}: {path.name}") from error
    assert refused or kind == "figure"  # a damaged figure is made again


@pytest.mark.parametrize("kind", USES)
def test_damaged_files_are_read_or_refused_in_one_line(kind: str, sound: Path, tmp_path: Path) -> None:
    _damage(kind, sound, tmp_path, 0, 25)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("kind", USES)
def test_many_damaged_files_are_read_or_refused_in_one_line(kind: str, seed: int, sound: Path, tmp_path: Path) -> None:
    _damage(kind, sound, tmp_path, seed, 300)
