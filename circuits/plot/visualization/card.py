"""One visualization on a report: its image beside photographs, and the evidence for and against it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image

from circuits.plot.circuit.unit_cards import DEAD
from circuits.plot.drawing import crops
from circuits.plot.drawing.html_page import render, tag
from circuits.plot.drawing.wording import amount, minus, short, titled
from circuits.visualization.result import Evidence, Path, Visualization

PATH = "path: similarity to its photographs, layer by layer (1 = as they are among each other)"
NOT_FINITE = "not finite: the network gave no number"
MANY = 64  # from so many cards on images are embedded smaller: a page of a layer stays a few megabytes

_TOP, _BOTTOM = 1.3, -0.3  # of the bars
_WIDTH, _HEIGHT = 100.0, 34.0


@dataclass(frozen=True)
class Sizes:
    """How large things are embedded.

    Attributes:
        image, crop: pixels at most.
        across: photographs side by side, and below each other.
        lossless: images as PNG.
    """

    image: int
    crop: int
    across: int
    lossless: bool


def sizes(count: int) -> Sizes:
    """What suits a page of so many cards."""
    if count > MANY:
        return Sizes(144, 88, 2, False)
    return Sizes(512, 240, 3, True) if count <= 3 else Sizes(256, 120, 3, True)


def card(result: Visualization, photographs: Sequence[crops.Crop], size: Sizes, label: str | None) -> Markup:
    """A visualization as an article; `photographs` are the top activating ones of its unit, `label` is what it is."""
    return render(
        "visualization_card.html",
        result=result,
        name=titled(result.unit, label),
        id=short(result.unit) + (f".{result.variant}" if result.variant else ""),
        image=image(result, size),
        photographs=_photographs(result, photographs, size),
        across=size.across,
        response=amount(result.response),
        peak=amount(result.peak),
        rank="" if result.evidence is None else _rank(result, result.evidence),
        traces=_traces(result),
    )


def why_none(result: Visualization) -> str | None:
    """Why a result has no image worth showing; None where it has one."""
    return {"ok": None, "not finite": NOT_FINITE}.get(result.status, DEAD)


def image(result: Visualization, size: Sizes) -> Markup:
    """The visualization, or the mark of a unit that has none."""
    reason = why_none(result)
    if reason is not None:
        return tag("div", tag("b", reason), class_="image dead")
    values = crops.pixels(result.image, result.channels)
    about = f"feature visualization of {short(result.unit)}"
    transparent = values.shape[2] == 4
    uri = crops.data_uri(_smaller(values, size.image), photograph=not (size.lossless or transparent))
    height, width = result.image.shape[1:]
    shape, kind = f"--shape:{width}/{height}", "image transparent" if transparent else "image"
    return tag("img", class_=kind, style=shape, src=uri, alt=about, title=about)


def _smaller(values: crops.Crop, limit: int) -> crops.Crop:
    """At most `limit` pixels wide and high; images that are small stay as they are."""
    times = min(1.0, limit / max(values.shape[:2]))
    if times == 1.0:
        return np.ascontiguousarray(values)
    shape = (max(1, round(values.shape[1] * times)), max(1, round(values.shape[0] * times)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize(shape, Image.Resampling.LANCZOS))


def _photographs(result: Visualization, photographs: Sequence[crops.Crop], size: Sizes) -> list[tuple[str, str]]:
    """Data URI and description of each."""
    examples = () if result.evidence is None else result.evidence.examples
    rows = []
    for i, crop in enumerate(photographs[: size.across**2]):
        about = f"top activating photograph {i + 1} of {short(result.unit)}"
        if i < len(examples):
            if result.status == "dead" and examples[i].value <= 0:
                continue  # it does not activate the unit either
            y, x = examples[i].position
            about += f": {amount(examples[i].value)} at {y},{x} of {examples[i].id}"
        rows.append((crops.uri(crop, size.crop), about))
    return rows


def _rank(result: Visualization, evidence: Evidence) -> str:
    several = f"{evidence.count} photograph{'s' * (evidence.count != 1)}"
    if result.status == "dead":
        reached = f"but photographs activate it: up to {amount(evidence.strongest)} among {several}"
        return reached if evidence.strongest > 0 else f"nor does any of {several} activate it"
    if evidence.percentile == 100:
        return f"stronger than all {several} (up to {amount(evidence.strongest)})"
    # rounded down, as "100 %" is for all of them
    percent = math.floor(10 * evidence.percentile) / 10
    return f"stronger than {percent:g} % of {several} (up to {amount(evidence.strongest)})"


def _traces(result: Visualization) -> list[tuple[Markup, list[str]]]:
    """Drawings of the path and of the history, and the labels of their ends."""
    parts = []
    if result.evidence is not None and result.evidence.path and result.status == "ok":
        path = result.evidence.path
        parts.append((path_svg(path), list(dict.fromkeys((path[0].layer, path[-1].layer)))))
    if len(set(result.history)) > 1:
        parts.append((history_svg(result.history), ["step 1", str(len(result.history))]))
    return parts


def path_svg(path: Sequence[Path]) -> Markup:
    """The similarity along the path as a bar per layer; a pale one where photographs are not similar to each other."""
    step = _WIDTH / len(path)

    def down(value: float) -> float:
        return (_TOP - min(max(value, _BOTTOM), _TOP)) / (_TOP - _BOTTOM) * _HEIGHT

    bars, texts = [], []
    for i, layer in enumerate(path):
        value = layer.similarity if layer.similarity is not None and math.isfinite(layer.similarity) else None
        if value is None:
            kind, top, bottom, text = "none", down(1.0), down(0.0), f"{layer.layer}: nothing to compare with"
        else:
            kind, top, bottom = "under" if value < 0 else "over", down(max(value, 0.0)), down(min(value, 0.0))
            text = f"{layer.layer} {minus(f'{value:.2f}')}"
        texts.append(text)
        box = {"x": (i + 0.08) * step, "y": top, "width": 0.84 * step, "height": max(bottom - top, 0.6)}
        bars.append(tag("rect", tag("title", text), class_=kind, **box))
    levels = (("zero", down(0.0)), ("unit", down(1.0)))
    lines = [tag("line", class_=kind, x1=0, x2=_WIDTH, y1=y, y2=y) for kind, y in levels]
    return _trace("path", f"{PATH}: {'; '.join(texts)}", bars + lines)


def _trace(kind: str, about: str, parts: Sequence[Markup]) -> Markup:
    box = f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}"
    return tag("svg", tag("title", about), *parts, class_=kind, role="img", viewBox=box, preserveAspectRatio="none")


def history_svg(history: Sequence[float]) -> Markup:
    """The objective step by step as a line from its lowest to its highest value, zero where that lies between."""
    values = np.asarray(history, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if len(values) > 200:  # more points than the line has pixels
        values = values[np.linspace(0, len(values) - 1, 200).round().astype(int)]

    def down(v: float) -> float:
        return _HEIGHT - 2 - (v - low) / ((high - low) or 1.0) * (_HEIGHT - 4)

    points = [
        f"{i / max(1, len(values) - 1) * _WIDTH:.1f} {down(v):.1f}"
        for i, v in enumerate(values.tolist())
        if math.isfinite(v)
    ]
    parts = [tag("line", class_="zero", x1=0, x2=_WIDTH, y1=down(0), y2=down(0))] if low <= 0 <= high else []
    if points:
        parts.append(tag("path", d="M" + "L".join(points)))
    return _trace("history", f"the objective, step by step: from {amount(low)} to {amount(high)}", parts)
