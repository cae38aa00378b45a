"""The dossier of a unit as one self-contained page. Each section is drawn by the function registered for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from circuits.common.examples import Example
from circuits.dataset.scan_results import Scan, UnitScan
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.plot.drawing import crops as pictures
from circuits.plot.drawing import html_page
from circuits.plot.drawing.svg import cropped, escape, kernel_svg
from circuits.plot.drawing.wording import decimals, kernel_effect, minus, number, short
from circuits.units.dossier import SECTIONS, Dossier, Wires
from circuits.units.dossier.fast_sections import Alike
from circuits.units.dossier.section_registry import Nothing
from circuits.units.weight_factors import Factors
from zoo.images.sources import Images
from zoo.inputs import InputSpec

TOP, FEW = 24, 8
"""Examples shown of the strongest, and of each other kind."""
_LARGE, _SMALL, _THUMB = 144, 104, 112
_KERNEL = 56
_BARS = 84


@dataclass(frozen=True)
class Sheet:
    """What the drawing functions share.

    Attributes:
        crops: name of a group of examples -> their crops.
        thumbs: address -> the crop of a unit's strongest example, for units of scanned layers.
        images: the scanned pictures; spec: how the model sees them.
    """

    crops: Mapping[str, Sequence[pictures.Crop]]
    thumbs: Mapping[str, pictures.Crop]
    images: Images
    spec: InputSpec


Draw: TypeAlias = Callable[[Any, Sheet], str]
DRAWN: dict[str, Draw] = {}
"""Section name -> what draws its finding as HTML."""


def drawn(name: str) -> Callable[[Draw], Draw]:
    """Register the function that draws a section."""

    def keep(function: Draw) -> Draw:
        if name in DRAWN:
            raise CircuitsError(f"the section {name!r} is drawn by a function already")
        DRAWN[name] = function
        return function

    return keep


def dossier_page(dossier: Dossier, scan: Scan, *, command: str, python: str, images: Any = None) -> str:
    """A dossier as one HTML page, light and dark, in which nothing is fetched.

    Args:
        dossier: of `circuits.units.dossier.explain`.
        scan: the scan it was made from; its pictures are cut into crops.
        command, python: what makes the page again.
        images: the scanned pictures, where they are not where they were.

    Raises:
        StoreError: the pictures are not there any more.
    """
    sheet = _sheet(dossier, scan, images)
    sections = []
    for name, part in dossier.parts.items():
        inner = f'<p class="note">{escape(part.why)}</p>' if isinstance(part, Nothing) else DRAWN[name](part, sheet)
        sections.append(f'<section id="{escape(name)}"><h2>{escape(SECTIONS[name].title)}</h2>{inner}</section>')
    address = f'<span class="address">{escape(dossier.unit)}</span>'
    left = "".join(
        f"<dt>{escape(SECTIONS[name].title)}</dt><dd>--sections {escape(name)}</dd>" for name in dossier.left
    )
    more = f'<h2>Not on this page</h2><dl class="provenance">{left}</dl>' if left else ""
    body = "".join(
        [
            f'<p class="eyebrow">{escape(_where(dossier.facts))}</p><h1>{address}</h1>',
            html_page.facts(_facts(dossier)),
            *sections,
            more,
            html_page.again(command, python),
            html_page.origins(dossier.provenance),
        ]
    )
    return html_page.page(f"{dossier.unit}, explained", body, html_page.style("dossier.css"))


def _where(facts: Mapping[str, Any]) -> str:
    if facts["basis"] is not None:
        return f"A latent of the basis {facts['basis']} at {facts['layer']} of {facts['model']}"
    place = f"branch {facts['branch']} of {facts['layer']}" if facts["branch"] else str(facts["layer"])
    return f"A unit of {facts['model']}, {place}"


def _facts(dossier: Dossier) -> list[tuple[str, Any]]:
    field, size, found = dossier.facts["receptive_field"], dossier.facts["map"], dossier.parts["responses"]
    assert isinstance(found, UnitScan)
    sees = "the whole picture" if field is None else f"{field[0]} x {field[1]} pixels"
    return [
        ("fires at", f"{100 * found.density:.3g} % of positions"),
        ("on", f"{found.fires_on:,} of {found.images:,} pictures"),
        ("strongest", number(found.maximum)),
        ("mean where it fires", number(found.mean_if_on)),
        ("sees", sees),
        ("map", f"{size[0]} x {size[1]}"),
    ]


# -- crops ----------------------------------------------------------------------------------------


def _sheet(dossier: Dossier, scan: Scan, images: Any) -> Sheet:
    found = dossier.parts["responses"]
    assert isinstance(found, UnitScan)
    groups: dict[str, Sequence[Example]] = {
        "top": found.top[:TOP],
        "random": found.random[:FEW],
        "near_zero": found.near_zero[:FEW],
        "most_negative": found.most_negative[:FEW],
        **{f"band {i}": band.examples for i, band in enumerate(found.bands)},
    }
    others = {unit: _first(scan, unit) for part in dossier.parts.values() for unit in _named(part)}
    groups |= {unit: (example,) for unit, example in others.items() if example is not None}
    opened = scan.pictures(images, check=scan.count <= CHECKED)
    cut = pictures.cut_examples(groups, opened, scan.input_spec)
    thumbs = {unit: cut[unit][0] for unit, example in others.items() if example is not None}
    return Sheet(cut, thumbs, opened, scan.input_spec)


CHECKED = 5000
"""So many pictures at most are read whole to see whether they are still the same ones; else their names must do."""


def _named(part: object) -> Iterable[str]:
    """Units that a section shows besides its own."""
    if isinstance(part, Wires):
        return [wire.unit for wire in part.rows]
    if isinstance(part, Factors):
        return [unit for k in range(len(part)) for unit, _ in part.top(k)]
    if isinstance(part, Alike):
        return [unit for found in part.by.values() for unit, _ in found.rows]
    return list(getattr(part, "shown", ()))


def _first(scan: Scan, unit: str) -> Example | None:
    at = Unit.parse(unit)
    if at.space not in scan.layers:
        return None
    top = scan.unit(at).top
    return top[0] if top else None


def quilt(examples: Sequence[Example], crops: Sequence[pictures.Crop], side: int) -> str:
    """Crops of examples side by side as HTML, each with its response, `side` pixels large at most."""
    figures = []
    for example, crop in zip(examples, crops, strict=False):
        uri = pictures.data_uri(pictures.resized(crop, pictures.embedded(crop, side)), photograph=True)
        title = f"{example.id}, position {example.position[0]},{example.position[1]}"
        figures.append(
            f'<figure title="{escape(title)}"><img alt="{escape(title)}" src="{uri}">'
            f"<figcaption>{number(example.value)}</figcaption></figure>"
        )
    return f'<div class="quilt">{"".join(figures)}</div>'


# -- sections -------------------------------------------------------------------------------------


@drawn("responses")
def _responses(found: UnitScan, sheet: Sheet) -> str:
    if not found.top:
        top = f'<p class="note">It fires on none of the {found.images:,} pictures.</p>'
    else:
        top = (
            '<p class="note">The pictures it answers to most, cut to what the unit sees there, and its response.</p>'
            + quilt(found.top[:TOP], sheet.crops["top"], _LARGE)
        )
    return "".join([top, _classes(found), _spread(found), _bands(found, sheet), _others(found, sheet)])


def _classes(found: UnitScan) -> str:
    """Classes of the top pictures, where some class comes more than once."""
    if not found.classes or max(found.classes.values()) < 2:
        return ""
    most = max(found.classes.values())
    rows = "".join(
        f'<span>{escape(cropped(label, 40))}</span><i style="width:{100 * n / most:.0f}%"></i><span>{n}</span>'
        for label, n in list(found.classes.items())[:8]
    )
    return f'<h4>Classes of the {len(found.top)} pictures it answers to most</h4><div class="mix">{rows}</div>'


def spread(edges: NDArray[np.float64], counts: NDArray[Any], bars: int) -> tuple[NDArray[np.float64], float, float]:
    """Counts in `bars` equal bins, from bins of any width: what each covers is spread evenly over it.

    Returns:
        Counts `(bars,)`, and the range.
    """
    used = np.flatnonzero(counts)
    low, high = float(edges[used[0]]), float(edges[used[-1] + 1])
    ends = np.linspace(low, high, bars + 1)
    cumulated = np.interp(ends, edges, np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)]))
    return np.diff(cumulated), low, high


def _spread(found: UnitScan) -> str:
    """The histogram: responses along, positions up in a logarithmic scale."""
    counts, low, high = spread(found.edges, found.counts, _BARS)
    width, height, left, top = 800.0, 190.0, 64.0, 10.0
    decades = max(1, math.ceil(math.log10(max(float(counts.max()), 10.0))))

    def up(n: float) -> float:
        return top + (1 - math.log10(max(n, 1.0)) / decades) * height

    def along(v: float) -> float:
        return left + (v - low) / (high - low) * width

    step = (high - low) / _BARS
    bars = []
    for i, n in enumerate(counts.tolist()):
        if n < 0.5:
            continue
        middle = low + (i + 0.5) * step
        kind = "on" if middle > 0 else "off"
        y, from_, to = up(max(n, 1.4)), low + i * step, low + (i + 1) * step
        about = f"{number(from_)} to {number(to)}: about {n:,.0f} positions"
        bars.append(
            f'<rect class="bar {kind}" x="{along(from_) + 0.5:.1f}" y="{y:.1f}" width="{width / _BARS - 1:.1f}" '
            f'height="{top + height - y:.1f}"><title>{about}</title></rect>'
        )
    grid = "".join(
        f'<line class="grid" x1="{left}" x2="{left + width}" y1="{up(10.0**d):.1f}" y2="{up(10.0**d):.1f}"/>'
        f'<text class="side" x="{left - 7}" y="{up(10.0**d) + 4:.1f}">{10**d:,}</text>'
        for d in range(0, decades + 1, 1 if decades < 6 else 2)
    )
    ticks = "".join(
        f'<text class="tick" x="{along(t):.1f}" y="{top + height + 18:.1f}">{number(t)}</text>'
        for t in _round(low, high)
    )
    bottom = top + height
    what = "responses before the rectifier" if found.signed else "responses"
    return (
        f"<h4>How often it says what: {what}, and at how many of {found.positions:,} positions (logarithmic)</h4>"
        f'<svg class="spread" role="img" viewBox="0 0 {left + width + 14:.0f} {bottom + 26:.0f}">'
        f"<title>Histogram of {escape(short(found.unit))}</title>{grid}{''.join(bars)}"
        f'<line class="axis" x1="{left}" x2="{left + width}" y1="{bottom}" y2="{bottom}"/>{ticks}</svg>'
    )


def _round(low: float, high: float) -> list[float]:
    """Round values between, five to ten of them."""
    raw = (high - low) / 6
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def _bands(found: UnitScan, sheet: Sheet) -> str:
    rows = []
    for i, band in reversed(list(enumerate(found.bands))):
        rows.append(
            f'<div class="band"><div class="range">{number(band.low)} to {number(band.high)}'
            f'<span class="note">{100 * band.share:.3g} % of where it fires</span></div>'
            f"{quilt(band.examples, sheet.crops[f'band {i}'], _SMALL)}</div>"
        )
    if not rows:
        return ""
    note = "Places drawn by lot in each range of responses: the strongest do not speak for the weaker ones."
    return f'<h4>From strong to weak</h4><p class="note">{note}</p>{"".join(rows)}'


def _others(found: UnitScan, sheet: Sheet) -> str:
    kinds = (
        ("random", "Where it fires, drawn by lot", found.random),
        ("near_zero", "Where it is about to fire", found.near_zero),
        ("most_negative", "What keeps it down most", found.most_negative),
    )
    rows = [
        f'<div class="band"><div class="range">{title}</div>{quilt(examples[:FEW], sheet.crops[name], _SMALL)}</div>'
        for name, title, examples in kinds
        if examples
    ]
    return f"<h4>Elsewhere</h4>{''.join(rows)}" if rows else ""


@drawn("inputs")
def _inputs(found: Wires, sheet: Sheet) -> str:
    where = "" if found.start == found.layer else f", read at {found.start}"
    note = (
        f"The {len(found.rows)} strongest of {found.count} kernels from {found.layer}{where}; "
        "a share is one of all squared weights. Expanded weights, with rectifiers between taken as linear."
    )
    rest = ""
    if found.rest is not None and found.count > len(found.rows):
        total = minus(f"{float(found.rest.sum()):+.3g}")
        rest = f'<p class="note">The {found.count - len(found.rows)} others add up to {total}.</p>'
    return f'<p class="note">{escape(note)}</p>{_wires(found, sheet)}{rest}'


@drawn("outputs")
def _outputs(found: Wires, sheet: Sheet) -> str:
    note = (
        f"The {len(found.rows)} units of {found.layer} with the strongest kernels from this unit, of {found.count}; "
        "a share is one of all squared weights that they read."
    )
    return f'<p class="note">{escape(note)}</p>{_wires(found, sheet)}'


def _wires(found: Wires, sheet: Sheet) -> str:
    scale = max((float(np.abs(w.kernel).max()) for w in found.rows), default=1.0) or 1.0
    places = decimals([w.weight for w in found.rows])
    shown = []
    for wire in found.rows:
        effect = kernel_effect(wire.kernel)
        weight = minus(f"{wire.weight:+.{places}f}")
        shown.append(
            f'<div class="wire">{thumb(wire.unit, sheet)}'
            f"{kernel_svg(wire.kernel, scale, _KERNEL, f'{short(wire.unit)} kernel')}"
            f'<p><span class="address">{escape(short(wire.unit))}</span>{weight}, {100 * wire.share:.2g} %<br>'
            f'<span class="note">{escape(effect)}</span></p></div>'
        )
    return f'<div class="wires">{"".join(shown)}</div>'


def thumb(unit: str, sheet: Sheet) -> str:
    """What a unit answers to most, as HTML; its name where the sheet has no picture of it."""
    name = escape(short(unit))
    if unit not in sheet.thumbs:
        return f'<span class="thumb none">{name}</span>'
    crop = sheet.thumbs[unit]
    uri = pictures.data_uri(pictures.resized(crop, pictures.embedded(crop, _THUMB)), photograph=True)
    return f'<img class="thumb" alt="what {name} answers to most" title="{name}" src="{uri}">'


@drawn("neighbors")
def _neighbors(found: Alike, sheet: Sheet) -> str:
    made = []
    for name, alike in found.by.items():
        chance = minus(f"{alike.chance:.2f}")
        note = f"{alike.measure}; 99 of 100 pairs of units lie below {chance}, and are faint here"
        rows = "".join(
            f'<figure class="{"" if value > alike.chance else "faint"}">{thumb(unit, sheet)}'
            f"<figcaption>{escape(short(unit))}<br>{minus(f'{value:.2f}')}</figcaption></figure>"
            for unit, value in alike.rows
        )
        silent = (
            '<p class="note">It has nothing to compare.</p>' if alike.silent else f'<div class="alike">{rows}</div>'
        )
        made.append(f'<h4>By {escape(name)}</h4><p class="note">{escape(note)}</p>{silent}')
    return "".join(made)
