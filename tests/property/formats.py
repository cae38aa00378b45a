"""The formats of files that somebody else may have written: for each, a sound example, and what a user does with it.

What is done with a file is what a user would do: read it, and look at everything that is in it. Digests are made good
again where a stranger could do so, because a digest shows accidents and keeps nobody out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import circuits
import sae
from apps.cli.output.folder import Outputs, in_place
from apps.explorer.server.jobs import Jobs, read_job
from apps.explorer.session.collections import Collection, Collections
from apps.explorer.session.labels import Label, Labels
from apps.figures.context import Settings
from apps.figures.runner import make, read_document
from circuits.activations.atlas_store import load_atlas
from circuits.dataset import scan as scanning
from circuits.dataset.audit.removal import RESULT, audited_images
from circuits.dataset.audit.repair.export import ABOUT, PROGRAM, WEIGHTS, export_folder
from circuits.dataset.labels.results import read_labels
from circuits.dataset.scan_store import digest_of_manifest
from circuits.tracing.circuit import Circuit
from circuits.tracing.graphs.attribution_graph import AttributionGraph
from circuits.visualization.sweeps.sweep import read_sweep
from sae.architectures.base import ARCHITECTURES
from sae.data.disk_shards import open_shards
from sae.formats.save_load import load_run
from sae.steering import LatentEdit, Steering
from tests.circuits.dataset.test_audit import SIDE, HandMade, photographs
from tests.sae.foreign import WRITERS
from zoo.common.results import Result
from zoo.images.coco import open_annotated
from zoo.images.manifest import export_scenes
from zoo.images.sources import open_images
from zoo.networks.language import load_language, tales_folder
from zoo.networks.own import OwnModel, card_of
from zoo.weights.loading import fit, read

WRITTEN = Path(__file__).parents[1] / "contract" / "written_by_0_1"


_WITH_K = {name for name, cls in ARCHITECTURES.items() if "k" in {f.name for f in dataclasses.fields(cls.Config)}}


@functools.cache
def _handmade() -> circuits.Model:
    torch.manual_seed(0)
    spec = circuits.InputSpec(size=SIDE)
    return circuits.wrap(HandMade().eval(), spec, name="handmade", classes=["cat", "dog", "bird"])


def _net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))


@functools.cache
def _scenes() -> circuits.Model:
    return circuits.load("scenes")


# -- what a user does ------------------------------------------------------------------------------------------------


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
    latents = loaded.encode(torch.randn(2, loaded.d))
    assert torch.isfinite(loaded.decode(latents)).all()


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


def _graph(folder: Path) -> None:
    graph = AttributionGraph.load(folder / "graph.json")
    graph.describe(), graph.to_networkx(), graph.to_circuit_tracer(), graph.strongest(), repr(graph)
    graph.diff(graph)


def _results(folder: Path) -> None:
    for path in folder.glob("*.result"):
        result = Result.load(path)
        repr(result), result.records(), json.dumps(result.describe())


def _audit(folder: Path) -> None:
    audited = audited_images(_handmade(), folder, photographs())
    assert audited.held_out.ids and audited.references
    for suspect in audited.audit.suspects:
        audited.class_of(_handmade().unit(suspect.unit))
    circuits.audit(_handmade(), photographs(), classes=["cat"], layers=["relu"], top=1, random=2, steps=1, store=folder)


def _export(folder: Path) -> None:
    export_folder(folder)


def _site(folder: Path) -> None:
    circuits.publish(
        _scenes(), circuits.read_scan(WRITTEN / "scan", "scenes"), folder, layers=["conv2d0"], top=1, random=0
    )


def _partial(folder: Path) -> None:
    circuits.scan(_scenes(), "scenes:9", folder, layers=["conv2d0"], batch_size=4, workers=0).layer("conv2d0")


def _collection(folder: Path) -> None:
    for name in Collections(folder).names():
        Collections(folder).read(name).lines()


def _written_labels(folder: Path) -> None:
    for label in Labels(folder).all("scenes"):
        label.checked()
    json.dumps(Labels(folder).describe())
    json.dumps(Labels(folder).names("scenes"))


def _run(folder: Path) -> None:
    repr(load_run(folder))


def _weights(folder: Path) -> None:
    for path in folder.iterdir():
        fit(_net(), read(path), "weights")


def _language(folder: Path) -> None:
    load_language(folder).ids("Anna went to the park.")


# -- sound examples --------------------------------------------------------------------------------------------------


def _copied(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copytree(WRITTEN / name, folder, dirs_exist_ok=True)


def _written(name: str, document: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(json.dumps(document))


def _make_coco(folder: Path) -> None:
    (folder / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32)).save(folder / "images" / name)
    images = [{"id": i, "file_name": name, "width": 32, "height": 32} for i, name in enumerate(["a.png", "b.png"])]
    annotations = [
        {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"size": [32, 32], "counts": [10, 20, 994]}},
    ]
    document = {"images": images, "categories": [{"id": 1, "name": "wheel"}], "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(document))


def _make_labels(folder: Path) -> None:
    circuits.label(_scenes(), "scenes:60", layers=["conv2d0"], draws=20).save(folder)


def _make_job(folder: Path) -> None:
    job = folder / ".jobs" / "20260101-000000-abcdef"
    job.mkdir(parents=True)
    asked = {"model": "scenes", "images": "scenes:40", "layers": ["mixed4a"]}
    (job / "job.json").write_text(json.dumps({"kind": "scan", "asked": asked, "begun": 1.7e9}))
    progress = {"state": "failed", "done": 3, "total": 40, "doing": "scanning", "error": "it broke", "pid": 4242}
    (job / "progress.json").write_text(json.dumps(progress))


def _make_inventory(folder: Path) -> None:
    with in_place(folder, Outputs(("*.png",))):
        (folder / "a.png").write_bytes(b"drawn")


def _make_steering(folder: Path) -> None:
    edits = (LatentEdit(3, "add", 2.0), LatentEdit(5, "ablate", at=((1, 2),), map=(4, 4)))
    text = Steering(edits=edits, strengths={3: 1.5}, site="scenes/mixed3b", dictionary="parts").json()
    (folder / "steering.json").write_text(text)


def _make_card(folder: Path) -> None:
    (folder / "mine.py").write_text("def make(): ...\n")
    card = {"input": {"size": [96, 128], "channels": 1, "mean": [0.5], "std": [0.25]}, "classes": ["a", "b"]}
    (folder / "mine.card.json").write_text(json.dumps(card))


def _make_graph(folder: Path) -> None:
    circuits.graph(_scenes(), "scenes:1", "car", layers=["mixed4a", "mixed4b"], width=4).save(folder / "graph.json")


def _make_results(folder: Path) -> None:
    model, images = _scenes(), "scenes:26"
    circuits.repair(model, images, ["mixed4a:3", "mixed4a:5"], random=2).save(folder / "repair.result")
    circuits.accuracy(model, images, random=2).save(folder / "accuracy.result")
    circuits.visualize(model, "mixed4a:11", steps=1, size=16)[0].save(folder / "visualization.result")
    circuits.neighbors(model, "mixed4a:11").save(folder / "neighbors.result")


def _make_audit(folder: Path) -> None:
    audit = circuits.audit(
        _handmade(), photographs(), classes=["cat"], layers=["relu"], top=1, random=2, steps=1, store=folder
    )
    audit.save(folder / RESULT)


def _make_export(folder: Path) -> None:
    about = {"edits": ["set mixed4a:3 to 0"], "unfolded": "", "load": {PROGRAM: "network", WEIGHTS: "state"}}
    (folder / ABOUT).write_text(json.dumps(about))


def _make_partial(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(scanning, "_SAVE_EVERY", 0.0)
        save = scanning._save

        def dying(*args: Any) -> None:
            save(*args)
            raise KeyboardInterrupt

        patch.setattr(scanning, "_save", dying)
        _partial(folder)


def _make_collection(folder: Path) -> None:
    Collections(folder).save(Collection("wheels", "round", (("scenes/mixed4a:3", "a"), ("scenes/mixed4a:5", ""))))


def _make_written_labels(folder: Path) -> None:
    for unit in ("scenes/mixed4a:3", "scenes/mixed4a:5"):
        Labels(folder).save(Label(unit, "Anna", "wheel", evidence="round things"))


def _make_sae(name: str, kind: str = "sae") -> Callable[[Path], object]:
    options = {"k": 4} if name in _WITH_K else {}
    config = ARCHITECTURES[name].Config(latents=16, kind=kind, **options)
    return lambda folder: sae.save(folder, sae.build(config, 8, **({} if kind == "sae" else {"d_out": 6})))


def _make_run(folder: Path) -> None:
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    sae.save(folder, sae.train(x, [sae.TopK(latents=16, k=2)], steps=4, batch_size=32, report_every=2)[0])


def _make_weights(folder: Path) -> None:
    torch.save(_net().state_dict(), folder / "w.pth")
    save_file(_net().state_dict(), folder / "w.safetensors")


def _make_language(folder: Path) -> None:
    shutil.copytree(tales_folder(), folder, dirs_exist_ok=True)


class Kind(NamedTuple):
    """A format.

    Attributes:
        make: writes a sound example into an empty folder; use: what a user does with one.
        damage: patterns of the files that are damaged.
    """

    make: Callable[[Path], object]
    use: Callable[[Path], None]
    damage: tuple[str, ...] = ("**/*",)


_FIGURE = {
    "schema": 1, "key": "k", "id": "Z1", "name": "n", "title": "t", "caption": "c", "pictures": [],
    "claims": [{"what": "w", "holds": True}],
}  # fmt: skip
KINDS: dict[str, Kind] = {
    "scan": Kind(_copied("scan"), _scan),
    "partial": Kind(_make_partial, _partial),
    "circuit": Kind(lambda folder: shutil.copy(WRITTEN / "circuit.json", folder), _circuit),
    "graph": Kind(_make_graph, _graph),
    "results": Kind(_make_results, _results),
    "audit": Kind(_make_audit, _audit),
    "export": Kind(_make_export, _export, ("*.json",)),
    "site": Kind(_site, _site, ("index.json", "layers/*/layer.json")),
    "sweep": Kind(_copied("sweep"), _sweep),
    "atlas": Kind(_copied("atlas"), _atlas),
    "shards": Kind(_copied("shards"), _shards),
    "training": Kind(_training, _training),
    "run": Kind(_make_run, _run),
    "images": Kind(lambda folder: export_scenes(3, folder), _images),
    "coco": Kind(_make_coco, _coco, ("annotations.json",)),
    "labels": Kind(_make_labels, _labels),
    "written labels": Kind(_make_written_labels, _written_labels),
    "collection": Kind(_make_collection, _collection),
    "figure": Kind(_written("figure.json", _FIGURE), _figure),
    "figures": Kind(lambda folder: make([], Settings(), folder), _figures, ("**/*.json",)),
    "job": Kind(_make_job, _job, ("**/*.json",)),
    "inventory": Kind(_make_inventory, _inventory, ("*.json", ".*.json")),
    "steering": Kind(_make_steering, _steering),
    "card": Kind(_make_card, _card, ("*.json",)),
    "weights": Kind(_make_weights, _weights),
    "language": Kind(_make_language, _language, ("*.json", "*.safetensors")),
    **{f"sae/{p.name}": Kind(_copied(f"sae/{p.name}"), _sae) for p in sorted((WRITTEN / "sae").iterdir())},
    **{f"sae/new {name}": Kind(_make_sae(name), _sae) for name in ARCHITECTURES},
    "sae/transcoder": Kind(_make_sae("topk", "skip-transcoder"), _sae),
    "sae/of openai": Kind(lambda folder: WRITERS["openai"](folder / "of"), lambda folder: _sae(folder / "of" / "8.pt")),
    **{f"sae/of {name}": Kind(write, _sae) for name, write in WRITERS.items() if name != "openai"},
}  # fmt: skip
"""Name -> the format."""
