"""The pages of a site: of a unit, of a layer, and the first one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from circuits.common.examples import Example
from circuits.dataset.scan_results import LayerScan, Scan, UnitScan
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.plot.drawing import html_page, palette
from circuits.plot.drawing.crops import data_uri
from circuits.plot.drawing.html_page import tag
from circuits.plot.drawing.svg import spread
from circuits.plot.drawing.wording import counted, decimals, kernel_effect, minus, number, short
from circuits.plot.site.tiles import Tiles, sheet_of
from circuits.units.dossier.neighbor_weights import NeighborWeights

_BARS, _HEIGHT = 60, 130
_FEW, _LEAST = 9, 5
"""Top activating images that are looked at for a class, and how many of them have to be of it."""


@dataclass(frozen=True)
class Contents:
    """What all pages of a site draw on.

    Attributes:
        model, scan: of the site; layers: those that it shows -> their number of units.
        names: label of units by address; circuits: title of circuits by the name of their page.
        in_circuits: address of a unit -> names of the circuits that it is in.
        visualizations: address -> names of its image files in the folder of its layer.
        polysemanticity: address -> score.
    """

    model: Model
    scan: Scan
    layers: Mapping[str, int]
    names: Mapping[str, str]
    circuits: Mapping[str, str] = field(default_factory=dict)
    in_circuits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    visualizations: Mapping[str, Sequence[str]] = field(default_factory=dict)
    polysemanticity: Mapping[str, float] = field(default_factory=dict)

    def href(self, unit: str, root: str) -> str | None:
        """The page of a unit, from a page whose site begins at `root`; None where its layer is not shown."""
        at = Unit.parse(unit)
        if at.index is None or at.index >= self.layers.get(at.space, 0):
            return None
        return f"{root}layers/{quote(at.space)}/{at.index}.html"

    def circuit(self, name: str, root: str) -> tuple[str, str, str]:
        """Link, name and title of a circuit."""
        return f"{root}circuits/{quote(name)}.html", name, self.circuits[name]

    def address(self, layer: str, index: int) -> str:
        """The full address of a unit of a scanned layer."""
        name, _, basis = layer.partition("~")
        return str(Unit(name, index, self.model.name, basis or None))


@dataclass
class _Sheets:
    """The sheets of thumbnails that a page shows: each is a class of its style."""

    contents: Contents
    root: str
    classes: dict[tuple[str, int], tuple[str, Tiles]] = field(default_factory=dict)

    def thumb(self, unit: str) -> tuple[str, Markup] | None:
        """CSS class and style of a unit's thumbnail; None where its layer is not shown."""
        at = Unit.parse(unit)
        count = self.contents.layers.get(at.space, 0)
        if at.index is None or at.index >= count:
            return None
        sheet, position, tiles = sheet_of(at.index, count)
        name, _ = self.classes.setdefault((at.space, sheet), (f"s{len(self.classes)}", tiles))
        return name, tiles.at(position)

    @property
    def style(self) -> Markup:
        """The style that names the files."""
        return Markup("\n").join(
            tiles.background(f".{name}", f"{self.root}layers/{quote(layer)}/sheet-{number_}.webp")
            for (layer, number_), (name, tiles) in self.classes.items()
        )


def site_page(template: str, *, root: str, **values: Any) -> str:
    """A page of the site: `root` leads from it to the site's first page."""
    return html_page.page(f"site/{template}", root=root, **values)


def unit_page(
    contents: Contents,
    scanned: UnitScan,
    weights: Mapping[str, NeighborWeights | str],
    tiles: Tiles | None,
    kinds: Sequence[tuple[str, Sequence[Example]]],
) -> str:
    """The page of a unit.

    Args:
        contents: of the site; scanned: the unit.
        weights: "Incoming weights" and "Outgoing weights", or why there are none.
        tiles: the file of its crops, those of `kinds` in order; None for a unit without any.
        kinds: title and examples of each group of crops.
    """
    at = Unit.parse(scanned.unit)
    assert at.index is not None
    index, root, count = at.index, "../../", contents.layers[at.space]
    sheets = _Sheets(contents, root)
    groups, first = [], 0
    for title, examples in kinds:
        rows = [(tiles.at(first + i), example) for i, example in enumerate(examples)] if tiles is not None else []
        groups.append((title, rows))
        first += len(examples)
    rows_of_weights = [(title, _weight_rows(contents, side, sheets, root)) for title, side in weights.items()]
    label = contents.names.get(scanned.unit, "")
    return site_page(
        "unit.html",
        root=root,
        title=f"{label} {at.short}".strip(),
        label=label,
        unit=scanned.unit,
        at=at,
        facts=_facts(contents, scanned, at),
        neighbors=[
            (text, f"{i}.html", key)
            for text, i, key in (("Previous", index - 1, "p"), ("Next", index + 1, "n"))
            if 0 <= i < count
        ],
        groups=groups,
        sharp=tiles is not None and tiles.sharp,
        histogram=histogram(scanned),
        signed=scanned.signed,
        classes=_classes(scanned),
        visualizations=contents.visualizations.get(scanned.unit, ()),
        circuits=[contents.circuit(name, root) for name in contents.in_circuits.get(scanned.unit, ())],
        weights=rows_of_weights,
        sheets=sheets.style if tiles is None else tiles.background(".own", f"{index}.webp") + sheets.style,
    )


def _facts(contents: Contents, scanned: UnitScan, at: Unit) -> list[tuple[str, str]]:
    layer, score = contents.model.layers[at.layer], contents.polysemanticity.get(scanned.unit)
    branch = contents.model.branch_of(at) if at.basis is None else None  # a latent reads all branches
    field_ = contents.model.receptive_field(at)
    return [
        ("branch", branch or ""),
        ("active at", f"{100 * scanned.density:.3g} % of positions"),
        ("on", f"{scanned.active_images:,} of {scanned.images:,} images"),
        ("maximum", number(scanned.maximum)),
        ("mean where active", number(scanned.mean_if_on) if scanned.active_images else ""),
        ("receptive field", "the whole image" if field_ is None else "{} x {} pixels".format(*field_.size)),
        ("map", "" if layer.size is None else "{} x {}".format(*layer.size)),
        ("polysemanticity", "" if score is None else f"{score:.2f}"),
    ]


def _classes(scanned: UnitScan) -> str:
    if max(scanned.classes.values(), default=0) < 2:
        return ""
    counts = ", ".join(f"{label} {n}" for label, n in list(scanned.classes.items())[:6])
    return f"Classes of its {sum(scanned.classes.values())} top activating images: {counts}"


def _weight_rows(contents: Contents, weights: NeighborWeights | str, sheets: _Sheets, root: str) -> Any:
    if isinstance(weights, str):
        return weights, []
    scale = palette.shared_scale(row.kernel for row in weights.rows)
    digits = decimals([row.weight for row in weights.rows])
    start = "" if weights.start == weights.layer else f", at {weights.start}"
    strongest = f"The {len(weights.rows)} strongest of {counted(weights.count, 'kernel')}"
    about = (
        f"{strongest} from {weights.layer}{start}; shares are of the squared weights."
        if weights.direction == "in"
        else f"{strongest} to {weights.layer}; shares are of the squared incoming weights of each target."
    )
    rows = [
        (
            contents.href(row.unit, root),
            sheets.thumb(row.unit),
            data_uri(palette.encode(row.kernel, scale)),
            short(row.unit),
            contents.names.get(row.unit, ""),
            minus(f"{row.weight:+.{digits}f}"),
            f"{100 * row.share:.2g} %",
            kernel_effect(row.kernel),
        )
        for row in weights.rows
    ]
    return about, rows


def histogram(scanned: UnitScan) -> Markup:
    """The activation histogram as one path: activations to the right, positions up, in a logarithmic scale."""
    counts, low, high = spread(scanned.edges, scanned.counts, _BARS)
    most = math.log1p(max(float(counts.max()), 9.0))
    step = 13
    parts: dict[str, list[str]] = {"on": [], "off": []}
    for i, n in enumerate(counts.tolist()):
        if n >= 0.5:
            up = round(math.log1p(n) / most * _HEIGHT)  # of 1 + n: class scores have one position an image
            kind = "on" if low + (i + 0.5) * (high - low) / _BARS > 0 else "off"
            parts[kind].append(f"M{i * step} {_HEIGHT}v-{up}h{step - 1}v{up}z")
    drawn = [tag("path", class_=f"bar {kind}", d="".join(path)) for kind, path in parts.items() if path]
    # beside the drawing, which shrinks on a small screen
    ends = tag("p", tag("span", number(low)), tag("span", number(high)), class_="note ends")
    most_text = f"at most {counted(round(float(counts.max())), 'position')} in a bar, logarithmic"
    title = tag("title", f"Activation histogram of {short(scanned.unit)}: {most_text}")
    view = f"0 0 {_BARS * step} {_HEIGHT}"
    return tag("svg", title, *drawn, class_="spread", role="img", viewBox=view) + ends


# -- walls ------------------------------------------------------------------------------------------------------------


def frequent_class(scan: Scan, layer: LayerScan, index: int) -> str:
    """The class that most of a unit's top activating images are of; empty without one, or without class labels."""
    if scan.labels is None:
        return ""
    images, values = (layer.arrays[f"top.{name}"][index, :_FEW] for name in ("image", "value"))
    labels = [scan.labels[i] for i, v in zip(images.tolist(), values.tolist(), strict=True) if i >= 0 and v > 0]
    best = max(dict.fromkeys(labels), key=labels.count, default="")
    return best if labels.count(best) >= _LEAST else ""


def wall_rows(contents: Contents, layer: LayerScan) -> list[dict[str, Any]]:
    """One row for each unit of a layer, as its wall and the search show it."""
    rows = []
    for index in range(len(layer)):
        unit = contents.address(layer.name, index)
        rows.append(
            {
                "label": contents.names.get(unit, ""),
                "class": frequent_class(contents.scan, layer, index),
                "density": round(float(layer.density[index]), 6),
                "maximum": round(float(layer.maximum[index]), 4),
                "selectivity": round(float(layer.selectivity[index]), 4),
                "polysemanticity": contents.polysemanticity.get(unit),
                "dead": int(layer.active_images[index]) == 0,
            }
        )
    return rows


ORDERS = {
    "number": "Number",
    "density": "Activation density",
    "selectivity": "Selectivity",
    "maximum": "Largest activation",
    "label": "Label",
    "polysemanticity": "Polysemanticity",
}
"""Orders of a wall: name in its address -> text."""


def wall_page(contents: Contents, layer: LayerScan, rows: Sequence[Mapping[str, Any]]) -> str:
    """The wall of a layer: all of its units, which the browser sorts and filters."""
    root = "../../"
    sheets, at = _Sheets(contents, root), contents.model.layers[layer.name.partition("~")[0]]
    field_ = at.receptive_field
    tiles = [(row, *(sheets.thumb(contents.address(layer.name, i)) or ("", ""))) for i, row in enumerate(rows)]
    missing = {name for name in ("label", "polysemanticity") if not any(row[name] not in ("", None) for row in rows)}
    names = list(contents.layers)
    number_ = names.index(layer.name)
    around = [("Previous layer", number_ - 1), ("Next layer", number_ + 1)]
    return site_page(
        "wall.html",
        root=root,
        title=f"{layer.name}, all units",
        layer=layer.name,
        model=contents.model.name,
        tiles=tiles,
        dead=sum(row["dead"] for row in rows),
        orders={name: text for name, text in ORDERS.items() if name not in missing},
        neighbors=[(text, f"../{quote(names[i])}/index.html", "") for text, i in around if 0 <= i < len(names)],
        facts=[
            ("units", f"{len(rows):,}"),
            ("map", "" if at.size is None else "{} x {}".format(*at.size)),
            ("receptive field", "the whole image" if field_ is None else "{} x {} pixels".format(*field_.size)),
        ],
        sheets=sheets.style,
    )  # fmt: skip


# -- the first page ---------------------------------------------------------------------------------------------------


def home_page(
    contents: Contents, walls: Mapping[str, Sequence[Mapping[str, Any]]], *, command: str, python: str, facts: Any
) -> str:
    """The first page: the search, the layers with their most selective units, the circuits, and the provenance."""
    sheets = _Sheets(contents, "")

    def best(layer: str) -> list[tuple[str, str, Any]]:
        live = [(i, row) for i, row in enumerate(walls[layer]) if not row["dead"]]
        ranked = sorted(live, key=lambda item: (-float(item[1]["selectivity"]), item[0]))[:8]
        units = [contents.address(layer, i) for i, _ in ranked]
        return [
            (contents.href(u, "") or "", f"{short(u)} {contents.names.get(u, '')}".strip(), sheets.thumb(u))
            for u in units
        ]

    layers = [
        (layer, quote(layer), counted(len(rows), "unit"), sum(row["dead"] for row in rows), best(layer))
        for layer, rows in walls.items()
    ]  # fmt: skip
    return site_page(
        "home.html",
        root="",
        title=f"Units of {contents.model.name}",
        model=contents.model.name,
        layers=layers,
        circuits=[contents.circuit(name, "") for name in contents.circuits],
        facts=facts,
        sheets=sheets.style,
        command=command,
        python=python,
        provenance=_provenance(contents.scan),
    )


def _provenance(scan: Scan) -> dict[str, Any]:
    images = scan.manifest["images"]
    return {
        "weights": scan.manifest["weights"],
        "images": images["name"],
        "images_digest": images["digest"],
        "n_images": scan.count,
        "scan": scan.manifest["digest"],
    }
