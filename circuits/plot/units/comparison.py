"""Figures of structure: neighbors, families against branches, branches in singular vectors, matched units."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from circuits.errors import CircuitsError
from circuits.plot.circuit.graph import NO_CROPS
from circuits.plot.circuit.kernels import GAP, draw_unit
from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.wording import minus, short
from circuits.plot.units.weight_factors import FACTOR_COLORS
from circuits.units.branch_specialization import BranchStructure, Enrichments
from circuits.units.similarity import Neighbors
from circuits.units.universality import Matches

MARGIN = 24
_CONTROLS = ("#8F8A82", "#1D1C1A")  # marks of controls: a ring, a cross


def _axis(axes: Axes, left: float, wide: float, top: float, bottom: float, low: float, high: float, name: str) -> None:
    """Grid lines and numbers from `low` to `high`, with the name of the axis below."""
    step = 0.2 if high - low <= 1.2 else 0.5
    for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        x = left + (i * step - low) / (high - low) * wide
        axes.plot([x, x], [top, bottom], color=palette.MUTED if i == 0 else palette.LINE, lw=0.8, zorder=0)
        text = minus(f"{i * step:.1f}")
        canvas.note(axes, x, bottom + 16, text, size=10, align="center")
    canvas.note(axes, left + wide / 2, bottom + 34, name, size=11, align="center")


def neighbors_table(neighbors: Neighbors, images: crops.Crops = NO_CROPS, *, title: str = "") -> Figure:
    """The units most similar to one, as bars; the dashed line is what one pair in a hundred of the layer reaches.

    Args:
        neighbors: from `circuits.units.similarity`.
        images: unit address -> crops, shown beside the names.
        title: default the unit's name.
    """
    tile = 44 if images else 0
    head, step, left, wide = MARGIN + 66, 26 if not tile else tile + 8, MARGIN + 190 + (tile + 8 if tile else 0), 360
    rows = neighbors.rows
    figure, axes = canvas.page(left + wide + 90, head + max(1, len(rows)) * step + 62)
    about = f"by {neighbors.measure}, among {neighbors.count} units"
    canvas.heading(axes, title or f"Units similar to {short(neighbors.unit)}", about, limit=70, room=100)
    bottom = head + max(1, len(rows)) * step
    low = -1.0 if any(v < 0 for _, v in rows) or neighbors.chance < 0 else 0.0

    def across(value: float) -> float:
        return left + (value - low) / (1 - low) * wide

    _axis(axes, left, wide, head - 6, bottom, low, 1.0, "similarity")
    for i, (unit, value) in enumerate(rows):
        y = head + i * step + (step - 8) / 2
        if tile:
            draw_unit(axes, unit, images, MARGIN, head + i * step, tile=tile)
        canvas.write(axes, left - 14, y, short(unit), size=11, mono=True, align="right", middle=True, limit=26)
        color = palette.color_of(value) if value > neighbors.chance or value < 0 else palette.REST
        axes.barh(y, across(value) - across(0), left=across(0), height=12, color=color, alpha=0.8, zorder=1)
        canvas.write(axes, left + wide + 60, y, minus(f"{value:.2f}"), size=11, align="right", middle=True)
    at = across(neighbors.chance)
    axes.plot([at, at], [head - 6, bottom], color=palette.INK, lw=1, ls=(0, (4, 3)), zorder=3)
    text = f"1 pair in 100 reaches {minus(f'{neighbors.chance:.2f}')}"
    canvas.write(axes, at, head - 12, text, size=10, align="center")
    if not rows or neighbors.silent:
        canvas.note(axes, left + 8, head + 14, "nothing to compare: it is zero everywhere", size=12)
    return figure


def enrichment_bars(enrichments: Enrichments, *, n: int = 16, title: str = "") -> Figure:
    """Families against branches: the share of a family that lies in a branch, chance, and the corrected p.

    Args:
        enrichments: from `circuits.units.branch_specialization.branch_enrichment`; of one family every branch is
            shown in its order, of several the `n` pairs least likely by chance.
        n: at most so many rows.
        title: what is tested.
    """
    single = len({row.family for row in enrichments.rows}) == 1
    order = list(enrichments.branches)
    rows = list(enrichments.rows)
    rows = (sorted(rows, key=lambda row: order.index(row.branch)) if single else rows)[:n]
    head, step, left, wide = MARGIN + 66, 27, MARGIN + (130 if single else 330), 300
    figure, axes = canvas.page(left + wide + 210, head + len(rows) * step + 62)
    text = title or ("Branch of the family" if single else "Branches of families")
    tests = len(enrichments.rows)
    about = f"share of a family in a branch; hypergeometric test, {tests} tests corrected by Holm's rule"
    canvas.heading(axes, text, about, limit=80, room=120)
    bottom = head + len(rows) * step
    _axis(axes, left, wide, head - 6, bottom, 0.0, 1.0, "share of the family in the branch")
    canvas.note(axes, left + wide + 66, head - 12, "units", size=10, align="right")
    canvas.note(axes, left + wide + 84, head - 12, "corrected p", size=10)
    for i, row in enumerate(rows):
        y = head + i * step + 10
        if not single:
            canvas.write(axes, MARGIN, y, row.family, size=11, middle=True, limit=32)
        canvas.write(axes, left - 14, y, row.branch, size=11, mono=True, align="right", middle=True, limit=18)
        share, chance = row.inside / row.members, row.expected / row.members
        color = palette.EXCITES if row.significant else palette.REST
        axes.barh(y, share * wide, left=left, height=12, color=color, alpha=0.8, zorder=1)
        axes.plot([left + chance * wide] * 2, [y - 9, y + 9], color=palette.INK, lw=1.6, zorder=3)
        canvas.write(axes, left + wide + 66, y, f"{row.inside} of {row.members}", size=11, align="right", middle=True)
        canvas.write(axes, left + wide + 84, y, p_value(row.adjusted), size=11, middle=True, bold=row.significant)
    y = bottom + 48
    axes.plot([MARGIN + 4, MARGIN + 4], [y - 14, y], color=palette.INK, lw=1.6)
    canvas.note(axes, MARGIN + 13, y - 7, "chance", size=10.5, middle=True)
    return figure


def p_value(p: float) -> str:
    """A p-value for people: `0.031`, or `2 x 10^-9` with raised digits."""
    if p >= 0.001:
        return f"{p:.3f}" if p < 0.995 else "1"
    mantissa, exponent = f"{p:.0e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa} × 10{raised}"


def branch_scatter(
    structure: BranchStructure, side: str | None = None, *, vectors: tuple[int, int] = (1, 2), title: str = ""
) -> Figure:
    """Channels at their entries in two singular vectors of `|W|`, each branch in its color and shape.

    Args:
        structure: from `circuits.units.branch_specialization.branch_structure`.
        side: "sources" or "targets"; default the first that has branches.
        vectors: which singular vectors, 0 being the trivial first.
        title: default the layer.

    Raises:
        CircuitsError: no such side or vector.
    """
    branches = structure.side(side)
    points = structure.sources if branches.side == "sources" else structure.targets
    if not all(0 <= v < points.shape[1] for v in vectors) or vectors[0] == vectors[1]:
        raise CircuitsError(f"vectors={vectors}: two different ones of 0 to {points.shape[1] - 1}")
    size, left, top = 400, MARGIN + 48, MARGIN + 62
    figure, axes = canvas.page(left + size + 250, top + size + 64)
    canvas.write(axes, MARGIN, MARGIN + 12, title or f"Branches of {branches.layer}", size=15, bold=True, limit=70)
    role = (
        f"by their weights to {structure.target}"
        if branches.side == "sources"
        else f"by their weights from {structure.source}"
    )
    canvas.note(axes, MARGIN, MARGIN + 32, f"channels {role}", size=11, limit=90)
    spans = []
    for v in vectors:
        largest = float(np.abs(points[:, v]).max()) or 1.0
        spans.append(1.06 * largest)
    axes.add_patch(Rectangle((left, top), size, size, fill=False, edgecolor=palette.LINE, lw=1, zorder=0))
    axes.plot([left, left + size], [top + size / 2] * 2, color=palette.LINE, lw=0.8, zorder=0)
    axes.plot([left + size / 2] * 2, [top, top + size], color=palette.LINE, lw=0.8, zorder=0)
    for i, (name, channels) in enumerate(branches.groups.items()):
        xs = [left + size / 2 * (1 + points[c, vectors[0]] / spans[0]) for c in channels]
        ys = [top + size / 2 * (1 - points[c, vectors[1]] / spans[1]) for c in channels]
        color, shape = FACTOR_COLORS[i % len(FACTOR_COLORS)], "os^Dvp"[i % 6]
        axes.plot(xs, ys, ls="none", marker=shape, ms=5, mew=0.4, mec=palette.PAPER, color=color, alpha=0.8, zorder=2)
        y = top + 14 + i * 38
        x = left + size + 24
        axes.plot([x], [y - 4], ls="none", marker=shape, ms=7, mew=0, color=color)
        canvas.write(axes, x + 13, y, name, size=11.5, mono=True, limit=24)
        auc = branches.each.get(name)
        text = f"{len(channels)} channels" + ("" if auc is None else f", AUC {auc:.2f}")
        canvas.note(axes, x + 13, y + 16, text, size=10.5)
    for axis, v in enumerate(vectors):
        text = f"singular vector {v + 1} (value {structure.values[v]:.2f})"
        if axis == 0:
            canvas.note(axes, left + size / 2, top + size + 22, text, size=11, align="center")
        else:
            canvas.note(axes, MARGIN + 26, top + size / 2, text, size=11, align="center", rotation=90)
    y = top + size - 66
    x = left + size + 24
    canvas.write(axes, x, y, f"separated: AUC {branches.auc:.2f}", size=13, bold=True)
    if branches.shuffled:
        low, high = min(branches.shuffled), max(branches.shuffled)
        canvas.note(axes, x, y + 20, f"weights shuffled: {low:.2f} to {high:.2f}", size=11)
    if branches.untrained is not None:
        canvas.note(axes, x, y + 38, f"untrained network: {branches.untrained:.2f}", size=11)
    canvas.note(axes, x, y + 56, f"in vectors 2 to {len(structure.values)}", size=11)
    return figure


def match_table(matches: Matches, images: crops.Crops = NO_CROPS, *, n: int = 15, title: str = "") -> Figure:
    """Matched units side by side, with their correlation and what the controls offer the same unit.

    Args:
        matches: from `circuits.units.universality`.
        images: unit address -> crops of either network.
        n: at most so many pairs, the closest first.
        title: default what was compared.
    """
    pairs, summary = matches.pairs[:n], matches.summary()
    tile = 44 if images else 0
    strip = 3 * (tile + GAP) + 6 if tile else 0
    step = tile + 12 if tile else 26
    head, wide = MARGIN + 84, 300
    left = MARGIN + 2 * (130 + strip) + 10
    figure, axes = canvas.page(left + wide + 150, head + max(1, len(pairs)) * step + 66)
    kind = "assigned one to one" if matches.assignment else "each unit's best match"
    about = (
        f"{kind}: median correlation {summary['median']:.2f} over {summary['matched']} units, "
        f"{summary['mutual']} mutual; {matches.samples} samples"
    )
    canvas.heading(axes, title or f"{matches.first}  and  {matches.second}", minus(about), limit=90, room=130)
    chance = "; ".join(
        f"{name}: median {v['median']:.2f}, {v['mutual']} mutual" for name, v in summary["controls"].items()
    )
    canvas.note(axes, MARGIN, MARGIN + 50, minus(chance), size=11, limit=130)
    bottom = head + max(1, len(pairs)) * step
    _axis(axes, left, wide, head - 6, bottom, 0.0, 1.0, "correlation")
    for i, pair in enumerate(pairs):
        y = head + i * step + (tile or 18) / 2
        for side, unit in enumerate((pair.unit, pair.other)):
            x = MARGIN + side * (130 + strip)
            if tile:
                draw_unit(axes, unit, images, x, head + i * step, columns=3, tile=tile)
            canvas.write(axes, x + strip, y, short(unit), size=11, mono=True, middle=True, limit=19)
        axes.barh(
            y, max(0.0, pair.correlation) * wide, left=left, height=12, color=palette.EXCITES, alpha=0.75, zorder=1
        )
        for control, value in enumerate(pair.chance.values()):
            _mark(axes, left + max(0.0, value) * wide, y, control)
        text = f"{pair.correlation:.2f}" + ("  mutual" if pair.mutual else "")
        canvas.write(axes, left + wide + 18, y, minus(text), size=11, middle=True)
    at = float(MARGIN)
    for control, name in enumerate(matches.controls):
        _mark(axes, at + 6, bottom + 50, control)
        canvas.note(axes, at + 18, bottom + 50, f"best in {name}", size=10.5, middle=True)
        at += 40 + 6.6 * len(f"best in {name}")
    return figure


def _mark(axes: Axes, x: float, y: float, kind: int) -> None:
    if kind % 2 == 0:
        axes.add_patch(Circle((x, y), 4, facecolor=palette.PAPER, edgecolor=_CONTROLS[1], lw=1.2, zorder=4))
    else:
        axes.plot([x], [y], marker="x", ms=6, mew=1.4, color=_CONTROLS[1], ls="none", zorder=4)


def match_matrix(matches: Matches, *, n: int = 60, title: str = "") -> Figure:
    """The correlations of matched units with each other's: a diagonal where every unit has one counterpart.

    Args:
        matches: from `circuits.units.universality`.
        n: at most so many pairs; mutual ones, closest first, then the rest.
        title: default what was compared.
    """
    pairs = sorted(matches.pairs, key=lambda p: (not p.mutual, -p.correlation))[:n]
    rows = [matches.units.index(p.unit) for p in pairs]
    columns = list(dict.fromkeys(matches.others.index(p.other) for p in pairs))
    size = 460
    cell = size / max(1, len(rows), len(columns))
    left, top = MARGIN + 30, MARGIN + 62
    figure, axes = canvas.page(left + size + MARGIN + 10, top + size + 70)
    canvas.write(
        axes, MARGIN, MARGIN + 12, title or f"{matches.first}  and  {matches.second}", size=14, bold=True, limit=64
    )
    mutual = sum(p.mutual for p in pairs)
    about = f"{len(rows)} closest pairs, {mutual} mutual; each row is a unit of the first network"
    canvas.note(axes, MARGIN, MARGIN + 32, about, size=11, limit=90)
    if rows:
        values = matches.correlations[np.ix_(rows, columns)]
        wide, high = cell * len(columns), cell * len(rows)
        canvas.place_image(axes, palette.encode(values, 1.0), left, top, wide, high, sharp=True)
        axes.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor=palette.LINE, lw=0.9, zorder=4))
    canvas.note(axes, left + size / 2, top + size + 20, f"units of {matches.second}", size=11,
                 align="center", limit=70)  # fmt: skip
    canvas.note(axes, MARGIN + 14, top + size / 2, f"units of {matches.first}", size=11,
                 align="center", limit=60, rotation=90)  # fmt: skip
    canvas.color_bar(axes, left, top + size + 38, 1.0, "correlation")
    return figure
