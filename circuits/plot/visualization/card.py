"""One visualization on a report: its picture beside photographs, and what speaks for it and against it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circuits.plot.circuit.unit_cards import DEAD
from circuits.plot.drawing import crops as pictures
from circuits.plot.drawing.svg import escape
from circuits.plot.drawing.wording import minus, short
from circuits.visualization.result import Evidence, Path, Visualization

PATH = "path: how alike to its photographs, layer by layer (1 = as they are among each other)"
NOT_FINITE = "not finite: the network gave no number"
MANY = 64  # from so many tiles on pictures are embedded smaller: a page of a layer stays a few megabytes

_TOP, _BOTTOM = 1.3, -0.3  # of the bars
_WIDTH, _HEIGHT = 100.0, 34.0


@dataclass(frozen=True)
class Sizes:
    """How large things are embedded.

    Attributes:
        picture, crop: pixels at most.
        across: photographs side by side, and below each other.
        lossless: pictures as PNG.
    """

    picture: int
    crop: int
    across: int
    lossless: bool


def sizes(count: int) -> Sizes:
    """What suits a page of so many tiles."""
    if count > MANY:
        return Sizes(144, 88, 2, False)
    return Sizes(512, 240, 3, True) if count <= 3 else Sizes(256, 120, 3, True)


def tile(result: Visualization, crops: Sequence[pictures.Crop], size: Sizes) -> str:
    """A visualization as an article; `crops` are the photographs its unit answers to most."""
    evidence = result.evidence
    shown = _photographs(result, crops, size)
    variant = f' <span class="note">variant {result.variant}</span>' if result.variant else ""
    where = short(result.unit) + (f".{result.variant}" if result.variant else "")
    parts = [
        f'<article class="vis" id="{escape(where)}"><div class="pair{"" if shown else " alone"}">',
        looks(result, size),
        shown,
        f"</div><h3>{escape(short(result.unit))}{variant}</h3>",
        "" if result.status == "dead" else f"<p>response {_number(result.response)}, peak {_number(result.peak)}</p>",
        "" if evidence is None else f'<p class="among">{_among(result, evidence)}</p>',
        _traces(result),
        "</article>",
    ]
    return "".join(parts)


def why_none(result: Visualization) -> str | None:
    """Why a result has no picture worth showing; None where it has one."""
    return {"ok": None, "not finite": NOT_FINITE}.get(result.status, DEAD)


def looks(result: Visualization, size: Sizes) -> str:
    """The picture, or the mark of a unit that has none."""
    height, width = result.image.shape[1:]
    shape = f"--shape:{width}/{height}"
    why = why_none(result)
    if why is not None:
        return f'<div class="looks dead"><b>{escape(why)}</b></div>'
    values = pictures.pixels(result.image, result.channels)
    alt = escape(f"what {short(result.unit)} looks for: a picture made by optimization")
    clear = " clear" if values.shape[2] == 4 else ""
    uri = pictures.data_uri(_smaller(values, size.picture), photograph=not (size.lossless or clear))
    return f'<img class="looks{clear}" style="{shape}" src="{uri}" alt="{alt}" title="{alt}">'


def _smaller(values: pictures.Crop, limit: int) -> pictures.Crop:
    """At most `limit` pixels wide and high; pictures that are small stay as they are."""
    from PIL import Image

    times = min(1.0, limit / max(values.shape[:2]))
    if times == 1.0:
        return np.ascontiguousarray(values)
    shape = (max(1, round(values.shape[1] * times)), max(1, round(values.shape[0] * times)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize(shape, Image.Resampling.LANCZOS))


def _photographs(result: Visualization, crops: Sequence[pictures.Crop], size: Sizes) -> str:
    examples = () if result.evidence is None else result.evidence.examples
    figures = []
    for i, crop in enumerate(crops[: size.across**2]):
        what = f"number {i + 1} of the photographs that {short(result.unit)} answers to most"
        if i < len(examples):
            if result.status == "dead" and examples[i].value <= 0:
                continue  # it does not answer to this one either
            y, x = examples[i].position
            what += f": {_number(examples[i].value)} at {y},{x} of {examples[i].id}"
        uri = pictures.data_uri(pictures.resized(crop, pictures.embedded(crop, size.crop)), photograph=True)
        figures.append(f'<img src="{uri}" alt="{escape(what)}" title="{escape(what)}">')
    return f'<div class="natural" style="--across:{size.across}">{"".join(figures)}</div>' if figures else ""


def _among(result: Visualization, evidence: Evidence) -> str:
    several = f"{evidence.count} photograph{'s' * (evidence.count != 1)}"
    if result.status == "dead":
        reached = f"but photographs do: up to {_number(evidence.strongest)} among {several}"
        return reached if evidence.strongest > 0 else f"nor do any of {several}"
    if evidence.percentile == 100:
        return f"stronger than all {several} (up to {_number(evidence.strongest)})"
    # rounded down, as "100 %" is for all of them
    percent = math.floor(10 * evidence.percentile) / 10
    return f"stronger than {percent:g} % of {several} (up to {_number(evidence.strongest)})"


def _traces(result: Visualization) -> str:
    parts = []
    if result.evidence is not None and result.evidence.path and result.status == "ok":
        path = result.evidence.path
        ends = "".join(f"<span>{escape(name)}</span>" for name in dict.fromkeys((path[0].layer, path[-1].layer)))
        parts.append(f'<div>{path_svg(path)}<div class="ends">{ends}</div></div>')
    if len(set(result.history)) > 1:
        ends = f"<span>step 1</span><span>{len(result.history)}</span>"
        parts.append(f'<div>{history_svg(result.history)}<div class="ends">{ends}</div></div>')
    return f'<div class="traces">{"".join(parts)}</div>' if parts else ""


def path_svg(path: Sequence[Path]) -> str:
    """The check of the path as a bar per layer; a dashed one where photographs are not alike, so that none is told."""
    step = _WIDTH / len(path)

    def down(value: float) -> float:
        return (_TOP - min(max(value, _BOTTOM), _TOP)) / (_TOP - _BOTTOM) * _HEIGHT

    drawn, said = [], []
    for i, layer in enumerate(path):
        likeness = layer.similarity
        known = likeness is not None and math.isfinite(likeness)
        value = likeness if known and likeness is not None else 0.0
        top, bottom = (down(max(value, 0.0)), down(min(value, 0.0))) if known else (down(1.0), down(0.0))
        kind = ' class="none"' if not known else ' class="under"' if value < 0 else ""
        words = f"{layer.layer} {minus(f'{value:.2f}')}" if known else f"{layer.layer}: nothing to compare with"
        said.append(words)
        drawn.append(
            f'<rect{kind} x="{i * step + 0.08 * step:.2f}" y="{top:.2f}" width="{0.84 * step:.2f}" '
            f'height="{max(bottom - top, 0.6):.2f}"><title>{escape(words)}</title></rect>'
        )
    about = escape(f"{PATH}: {'; '.join(said)}")
    lines = "".join(
        f'<line class="{kind}" x1="0" x2="{_WIDTH:.0f}" y1="{down(at):.2f}" y2="{down(at):.2f}"/>'
        for kind, at in (("zero", 0.0), ("one", 1.0))
    )
    return (
        f'<svg class="path" role="img" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" preserveAspectRatio="none">'
        f"<title>{about}</title>{''.join(drawn)}{lines}</svg>"
    )


def history_svg(history: Sequence[float]) -> str:
    """The objective step by step as a line from its lowest to its highest value, zero where that lies between."""
    values = np.asarray(history, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        low = high = 0.0
    else:
        low, high = float(finite.min()), float(finite.max())
    room = (high - low) or 1.0
    if len(values) > 200:  # more points than the line has pixels
        values = values[np.linspace(0, len(values) - 1, 200).round().astype(int)]
    points = [
        f"{i / max(1, len(values) - 1) * _WIDTH:.1f} {_HEIGHT - 2 - (v - low) / room * (_HEIGHT - 4):.1f}"
        for i, v in enumerate(values.tolist())
        if math.isfinite(v)
    ]
    zero = _HEIGHT - 2 - (0 - low) / room * (_HEIGHT - 4)
    axis = f'<line class="zero" x1="0" x2="{_WIDTH:.0f}" y1="{zero:.1f}" y2="{zero:.1f}"/>' if low <= 0 <= high else ""
    about = f"the objective, step by step: from {_number(low)} to {_number(high)}"
    line = f'<path d="M{"L".join(points)}"/>' if points else ""
    return (
        f'<svg class="history" role="img" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" preserveAspectRatio="none">'
        f"<title>{escape(about)}</title>{axis}{line}</svg>"
    )


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "no number"
    return minus(f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}")
