"""A static site of a scan: it needs no server, opens from a disk, and goes on any web host."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypedDict
from urllib.parse import quote

import numpy as np
from PIL import Image

from circuits.common.examples import Example
from circuits.dataset.scan_results import Scan, UnitScan
from circuits.dataset.scan_store import StoreError
from circuits.dataset.scan_targets import as_scanned
from circuits.errors import AddressError, CircuitsError, did_you_mean, shorten
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.plot.circuit.report import trace_report
from circuits.plot.drawing.crops import Crop, cut_examples, resized
from circuits.plot.site.pages import Contents, home_page, unit_page, wall_page, wall_rows
from circuits.plot.site.tiles import ACROSS, SIDE, write_sheets, write_unit_tiles, write_webp
from circuits.plot.units.dossier import CHECKED
from circuits.tracing.circuit import Circuit
from circuits.units.dossier.neighbor_weights import NeighborWeights, layer_neighbor_weights
from circuits.units.similarity import after
from zoo.common.checks import whole_number
from zoo.common.files import move_files, scratch, write_text_atomically
from zoo.common.reading import Count
from zoo.common.results import Result
from zoo.common.stored import Stored, named
from zoo.images.sources import Images
from zoo.networks.own import folders_of, loading_code
from zoo.progress import Progress, reporter

INDEX, LAYER, HOME = "index.json", "layer.json", "index.html"
FILES = (
    INDEX, HOME, "style.css", "site.js", "search.js",
    "circuits/*.html", "layers/*/*.html", "layers/*/*.webp", f"layers/*/{LAYER}",
)  # fmt: skip
"""Patterns of a site's files."""
_AT_ONCE = 512
"""Units whose crops are in memory at once: up to 15 of 80 x 80 pixels each, 150 MB in all."""
_VISUALIZATION, _CIRCUIT_EXAMPLES = 192, 6


class _Index(TypedDict):
    settings: dict[str, Any]


_Row = TypedDict(
    "_Row",
    {
        "label": str,
        "class": str,
        "density": float,
        "maximum": float,
        "selectivity": float,
        "polysemanticity": float | None,
        "dead": bool,
    },
)


class _Layer(TypedDict):
    contents: str
    units: Count
    rows: list[_Row]


_SITES = Stored(
    "the index of a site",
    "Delete it and publish again, or give another folder",
    mark={"kind": "vision-circuits site"},
    shape=_Index,
)
_LAYERS = Stored(
    "a layer of a site", "Delete it and publish again", mark={"kind": "vision-circuits layer"}, shape=_Layer
)


@dataclass(frozen=True)
class Site(Result):
    """A static site of a scan.

    Attributes:
        folder: that it is in; model: name.
        layers: name of a layer -> number of its units, each of which has a page.
        written: layers whose pages this call wrote; the others were there already.
        circuits: names of the circuits that have a page.
        bytes: of all its files.
    """

    folder: str
    model: str
    layers: Mapping[str, int]
    written: tuple[str, ...]
    circuits: tuple[str, ...]
    bytes: int

    @property
    def units(self) -> int:
        """How many units have a page."""
        return sum(self.layers.values())


def publish(
    model: Model,
    scan: Scan,
    folder: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    images: Any = None,
    labels: Mapping[str, str] | None = None,
    circuits: Mapping[str, Circuit] | None = None,
    visualizations: Mapping[str, Sequence[str | os.PathLike[str]]] | None = None,
    polysemanticity: Mapping[str, float] | None = None,
    top: int = 10,
    random: int = 5,
    weights: int = 8,
    command: str = "",
    progress: Progress = None,
) -> Site:
    """Write a scan as a static site: a wall of each layer, a page of each unit, circuits, and a search.

    It opens from a disk (`file://`), needs no server, fetches nothing from elsewhere, and may be put on any web host.
    A call that was stopped is resumed by the same call. `index.html` is there once all pages are. Pages of a layer
    whose labels, circuits or visualizations have changed are written anew.

    Args:
        model: that was scanned, with the SAEs attached whose latents were.
        scan: of it.
        folder: to write into; other files there stay.
        layers: of the scan, as it names them; by default all.
        images: where the scanned images are, if not where they were.
        labels: address -> label of units. Class scores are called after their classes.
        circuits: name -> circuit; a name is letters, digits, `.`, `_`, `-` and `~`.
        visualizations: address -> image files.
        polysemanticity: address -> score, from 0 to 1.
        top: top activating images of a unit, cut to its receptive field.
        random: further positions where it is active, sampled at random.
        weights: strongest incoming and outgoing kernels of a unit.
        command: shell command that writes the site, for its first page.
        progress: True for a bar, or a function of (done, total) units.

    Raises:
        StoreError: the scan is of other weights, or its images are not there any more. AddressError: no such layer.
        CircuitsError: the folder has a site of another scan or of other settings, files of others by the names of a
            site's, or the scan; or it cannot be written.

    >>> site = publish(load("scenes"), read_scan("store", "scenes"), "site")  # doctest: +SKIP
    """
    for name, least in (("top", 1), ("random", 0), ("weights", 1)):
        whole_number(name, locals()[name], least=least)
    if scan.manifest["weights"] != model.digest:
        raise StoreError(f"the scan in {named(scan.folder)} is of other weights of {model.name}: scan again")
    counts = {name: scan.layers[name] for name in scanned_layers(model, scan, layers)}
    circuits = dict(circuits or {})
    for name in circuits:
        if not name.strip("._-~ ") or not all(c.isalnum() or c in "._-~ " for c in name):
            raise CircuitsError(f"a circuit's page cannot be called {shorten(name)!r}: use letters, digits, . _ - ~")
    out = Path(folder)
    if out.resolve() in (scan.folder.resolve(), scan.folder.resolve().parent):
        raise CircuitsError(f"{named(out)} holds the scan: give the site a folder of its own")
    settings = {
        "model": model.name, "weights": model.digest, "scan": scan.manifest["digest"], "layers": list(counts),
        "top": top, "random": random, "kernels": weights,
    }  # fmt: skip
    _begin(out, settings)
    for layer in counts:
        _check_attached(model, layer)
    opened = scan.images(images, check=scan.count <= CHECKED)
    names = _names(model, counts, labels or {})
    drawn = {unit: tuple(map(Path, files)) for unit, files in (visualizations or {}).items() if files}
    contents = Contents(
        model, scan, counts, names,
        circuits={name: _about(circuit, names) for name, circuit in sorted(circuits.items())},
        in_circuits=_members(circuits),
        visualizations={u: _drawn_names(u, files) for u, files in drawn.items()},
        polysemanticity=polysemanticity or {},
    )  # fmt: skip
    writer = _Writer(contents, opened, out, drawn, top, random, weights)
    written, total, done = [], sum(counts.values()), 0
    with reporter(progress, "unit") as report:
        for layer, count in counts.items():
            if not writer.is_there(layer):
                (out / HOME).unlink(missing_ok=True)  # it stands for a whole site
                writer.write(layer, lambda units, before=done: report(before + units, total))
                written.append(layer)
            done += count
            report(done, total)
    _write_circuits(contents, circuits, opened, out)
    walls = {layer: _LAYERS.read_json(writer.folder(layer) / LAYER)["rows"] for layer in counts}
    write_text_atomically(out / "search.js", _search(walls))
    for name, template in (("style.css", "style.css"), ("site.js", "site/site.js")):
        text = resources.files("circuits.plot").joinpath("templates", template).read_text(encoding="utf-8")
        write_text_atomically(out / name, text)
    for left in (out / "layers").iterdir():  # by an earlier site of other layers, whose files were set aside
        with contextlib.suppress(OSError):
            left.rmdir()  # of no folder that has a file
    private = _folders(scan, out) | set(re.findall(r"(?:^|[\s='\"])(/[^\s'\"=]*/)", command))
    command, python = _without_folders([command, _python(scan, out)], private)
    page = home_page(contents, walls, command=command, python=python, facts=_facts(contents))
    write_text_atomically(out / HOME, page)
    size = sum(path.stat().st_size for pattern in FILES for path in out.glob(pattern))
    return Site(str(out), model.name, counts, tuple(written), tuple(contents.circuits), size)


def scanned_layers(model: Model, scan: Scan, layers: Sequence[str] | None) -> list[str]:
    """Layers of a model, `logits` among them, by the names that a scan has for them; by default all of the scan.

    Raises:
        CircuitsError: the scan has no such layer.
    """
    if layers is None:
        return list(scan.layers)
    requested = list(dict.fromkeys(_scanned_name(model, scan, name) for name in layers))
    for name in requested:
        if name not in scan.layers:
            raise CircuitsError(
                f"the scan in {named(scan.folder)} has no layer {shorten(name)!r}.{did_you_mean(name, scan.layers)} "
                f"It has {shorten(', '.join(scan.layers), 300)}"
            )
    return requested


def _scanned_name(model: Model, scan: Scan, name: str) -> str:
    layer, _, basis = name.partition("~")
    with contextlib.suppress(AddressError):
        return as_scanned(model, Unit(model.layer(layer).name, None, model.name, basis or None), scan.layers).space
    return name


def _check_attached(model: Model, layer: str) -> None:
    name, _, basis = layer.partition("~")
    if basis and (name, basis) not in model.bases:
        raise CircuitsError(
            f"the scan has latents of {shorten(layer)}, whose SAE is not attached: --sae {shorten(basis)}=FOLDER "
            f"(model.attach in Python)"
        )


def _begin(out: Path, settings: Mapping[str, Any]) -> None:
    _SITES.check_writable(out)
    before = _SITES.read_document(out / INDEX)
    if before is None:
        if others := sorted(path.name for pattern in FILES for path in out.glob(pattern)):
            raise CircuitsError(f"{named(out)} has {shorten(others[0], 60)}, and no site: give another folder")
        _SITES.write_json(out / INDEX, {"kind": "vision-circuits site", "schema": 1, "settings": settings})
        return
    for name, value in settings.items():
        there = before["settings"].get(name)
        if there != value:
            raise CircuitsError(
                f"{named(out)} holds a site with {name} {shorten(there, 60)}, not {shorten(value, 60)}: give what it "
                "was written with, or another folder, or begin anew (--replace)"
            )


def _names(model: Model, counts: Mapping[str, int], labels: Mapping[str, str]) -> dict[str, str]:
    """Labels, after them the names of classes, of the units of some layers."""
    classes = {} if model.class_scores is None else {
        f"{model.name}/{model.class_scores}:{i}": name for i, name in enumerate(model.classes)
    }  # fmt: skip
    return {unit: name for unit, name in (classes | dict(labels)).items() if name and Unit.parse(unit).space in counts}


def _drawn_names(unit: str, files: Sequence[Path]) -> list[str]:
    return [f"{Unit.parse(unit).index}-{i}.webp" for i in range(len(files))]


def _about(circuit: Circuit, names: Mapping[str, str]) -> str:
    target = Unit.parse(circuit.target).short
    return f"{names.get(circuit.target, '')} {target}: {len(circuit.nodes)} units, {len(circuit.edges)} edges".strip()


def _members(circuits: Mapping[str, Circuit]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for name, circuit in sorted(circuits.items()):
        for node in circuit.nodes:
            members.setdefault(str(Unit.parse(node.unit).channel), []).append(name)
    return members


def _facts(contents: Contents) -> list[tuple[str, str]]:
    scan = contents.scan
    return [
        ("units", f"{sum(contents.layers.values()):,}"),
        ("layers", str(len(contents.layers))),
        ("images", f"{scan.count:,} of {scan.image_source}"),
        ("labeled units", f"{len(contents.names):,}"),
        ("circuits", str(len(contents.circuits) or "")),
    ]


def _python(scan: Scan, out: Path) -> str:
    store = str(scan.folder.parent)
    return (
        f"import circuits\n\n{loading_code(scan.model)}\n"
        f"circuits.publish(model, circuits.read_scan({store!r}, model.name), {out.name!r})\n"
    )


def _folders(scan: Scan, out: Path, card: Any = None) -> set[str]:
    """Folders of the user's machine, which are nobody's business on a web host.

    Args:
        scan: that is published; out: where to; card: what a circuit says of the network of the user's own.
    """
    folders = {os.getcwd(), str(Path.home()), str(scan.folder.parent.parent), str(out.parent)}
    folders |= {os.path.abspath(folder) for folder in folders} | set(folders_of(scan.model))
    if isinstance(card, Mapping):
        code = str(card.get("own", "")).rpartition("=")[2].rpartition(":")[0]
        folders |= {os.path.dirname(file) for file in (code, str(card.get("weights_file", "")))}
    return {folder for folder in folders if os.path.isabs(folder)}


def _without_folders(value: Any, folders: set[str]) -> Any:
    """Texts in a value, with the names of files for their paths."""
    if isinstance(value, Mapping):
        return {key: _without_folders(each, folders) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each, folders) for each in value]
    if isinstance(value, str):
        for folder in sorted(folders, key=len, reverse=True):  # a folder inside of another one first
            value = value.replace(folder.rstrip(os.sep) + os.sep, "") if folder.strip(os.sep) else value
    return value


def _search(walls: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What the search reads: a script, since a page from a disk may not fetch a file of data."""
    layers = [
        {
            "name": layer,
            "path": f"layers/{quote(layer)}",
            "units": len(rows),
            "across": ACROSS,
            "labels": {i: row["label"] for i, row in enumerate(rows) if row["label"]},
            "classes": {i: row["class"] for i, row in enumerate(rows) if row["class"]},
        }
        for layer, rows in walls.items()
    ]
    return f"window.siteUnits = {json.dumps(layers, ensure_ascii=True, separators=(',', ':'))};\n"


def _write_circuits(contents: Contents, circuits: Mapping[str, Circuit], images: Images, out: Path) -> None:
    scan = contents.scan
    for name, circuit in circuits.items():
        units = {n.unit: Unit.parse(n.unit).channel for n in circuit.nodes}
        # the crops are those of the scan: the images that a saved circuit was traced on may not be at hand
        examples = {
            unit: scan.unit(at).top[:_CIRCUIT_EXAMPLES] if at.space in scan.layers else () for unit, at in units.items()
        }
        nodes = tuple(replace(n, examples=examples[n.unit]) for n in circuit.nodes)
        labels = {unit: contents.names[str(at)] for unit, at in units.items() if str(at) in contents.names}
        private = _folders(scan, out, circuit.provenance.get("card"))
        labeled = replace(circuit, nodes=nodes, provenance=_without_folders(circuit.provenance, private)).label(labels)
        pages = {unit: href for unit in units if (href := contents.href(unit, "../")) is not None}
        page = trace_report(
            labeled, cut_examples(examples, images, scan.input_spec), "", "", pages=pages, home="../index.html"
        )
        write_text_atomically(out / "circuits" / f"{name}.html", page)


# -- the pages of a layer ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Writer:
    """Writes the folders of layers, each whole or not there."""

    contents: Contents
    images: Images
    out: Path
    visualizations: Mapping[str, tuple[Path, ...]]
    top: int
    random: int
    weights: int

    def folder(self, layer: str) -> Path:
        return self.out / "layers" / layer

    def is_there(self, layer: str) -> bool:
        """Whether the layer's pages are there, with what they would show now."""
        try:
            document = _LAYERS.read_document(self.folder(layer) / LAYER)
        except CircuitsError:
            return False
        if document is None or not len(document["rows"]) == document["units"] == self.contents.layers[layer]:
            return False
        return bool(document["contents"] == self._digest(layer))

    def _digest(self, layer: str) -> str:
        """Of all that a layer's pages show and the settings of the site do not name."""
        contents = self.contents
        visible = {layer, *self._neighbors(layer)}
        parts = {
            "names": [(u, n) for u, n in contents.names.items() if Unit.parse(u).space in visible],
            "circuits": [
                (u, [(n, contents.circuits[n]) for n in names])
                for u, names in contents.in_circuits.items()
                if Unit.parse(u).space == layer
            ],
            "visualizations": [
                (u, [(path.name, path.stat().st_mtime_ns) for path in files])
                for u, files in self.visualizations.items()
                if Unit.parse(u).space == layer
            ],
            "polysemanticity": [(u, v) for u, v in contents.polysemanticity.items() if Unit.parse(u).space == layer],
            "pages": _templates(),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _neighbors(self, layer: str) -> Iterator[str]:
        model, name = self.contents.model, layer.partition("~")[0]
        yield from (other for other in (model.before(name), after(model, name)) if other is not None)

    def write(self, layer: str, report: Any) -> None:
        """Write the pages of all units of a layer, its wall, and last the file that says that they are whole."""
        scanned = self.contents.scan.layer(layer)
        rows = wall_rows(self.contents, scanned)
        (self.folder(layer) / LAYER).unlink(missing_ok=True)
        with scratch(self.out) as folder:
            sides = {title: self._neighbor_weights(layer, which) for title, which in _SIDES.items()}
            thumbs: list[Crop | None] = []
            for first in range(0, len(scanned), _AT_ONCE):
                units = [scanned.unit(i) for i in range(first, min(first + _AT_ONCE, len(scanned)))]
                examples = [self._examples(unit) for unit in units]
                groups = {str(i): [e for _, group in kinds for e in group] for i, kinds in enumerate(examples)}
                crops = cut_examples(groups, self.images, self.contents.scan.input_spec, limit=SIDE)
                for i, (unit, kinds) in enumerate(zip(units, examples, strict=True)):
                    cut, index = crops[str(i)], first + i
                    thumbs.append(cut[0] if unit.top else None)
                    tiles = write_unit_tiles(folder / f"{index}.webp", cut) if cut else None
                    weights = {title: next(side) for title, side in sides.items()}
                    page = unit_page(self.contents, unit, weights, tiles, kinds)
                    (folder / f"{index}.html").write_text(page, encoding="utf-8")
                    self._draw(folder, unit.unit)
                report(first + len(units))
            write_sheets(folder, thumbs)
            (folder / HOME).write_text(wall_page(self.contents, scanned, rows), encoding="utf-8")
            document = {"kind": "vision-circuits layer", "schema": 1, "contents": self._digest(layer)}
            _LAYERS.write_json(folder / LAYER, document | {"units": len(rows), "rows": rows})
            move_files(folder, self.folder(layer), last=LAYER)

    def _examples(self, unit: UnitScan) -> list[tuple[str, Sequence[Example]]]:
        kinds: list[tuple[str, Sequence[Example]]] = [("Top activating images", unit.top[: self.top])]
        if unit.random and self.random:
            kinds.append(("Random sample where active", unit.random[: self.random]))
        return kinds

    def _neighbor_weights(self, layer: str, direction: Literal["in", "out"]) -> Iterator[NeighborWeights | str]:
        """Of each unit of a layer; the reason, again and again, where it has none."""
        try:
            yield from layer_neighbor_weights(self.contents.model, layer, direction, self.weights)
        except CircuitsError as error:
            name = self.contents.address(layer, 0).rpartition("/")[2]
            reason = str(error).replace(name, layer)
            while True:
                yield (reason if reason.startswith(layer) else reason[:1].upper() + reason[1:]) + "."

    def _draw(self, folder: Path, unit: str) -> None:
        for name, path in zip(
            self.contents.visualizations.get(unit, ()), self.visualizations.get(unit, ()), strict=True
        ):
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            write_webp(folder / name, resized(pixels, min(_VISUALIZATION, max(pixels.shape[:2]))))


_SIDES: dict[str, Literal["in", "out"]] = {"Incoming weights": "in", "Outgoing weights": "out"}


def _templates() -> str:
    """Digest of the templates: another version of them writes other pages."""
    folder = resources.files("circuits.plot").joinpath("templates")
    paths = [folder.joinpath("base.html"), *(p for p in folder.joinpath("site").iterdir() if p.name.endswith(".html"))]
    texts = sorted((path.name, path.read_text(encoding="utf-8")) for path in paths)
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


__all__ = ["FILES", "Site", "publish"]
