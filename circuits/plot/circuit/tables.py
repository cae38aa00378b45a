"""Figures of numbers: units ranked for a concept, a circuit against chance, and contributions to a response."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.dataset.concept_search import Finding, Findings
from circuits.errors import CircuitsError, shorten
from circuits.plot.circuit.waterfall import rest_of, sum_steps
from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.svg import bins
from circuits.plot.drawing.wording import minus, name_of, number, short
from circuits.tracing.circuit import Circuit
from circuits.tracing.circuit_score import Score


def _rule(axes: Axes, x: float, top: float, bottom: float, color: str = palette.LINE, width: float = 0.8) -> None:
    axes.plot([x, x], [top, bottom], color=color, lw=width, zorder=0)


def auc_table(findings: Findings | Sequence[Finding], *, n: int = 20, title: str = "") -> Figure:
    """Units ranked by how well they separate images of a concept from others: bars from chance (0.5), with intervals.

    A dashed line marks the best unit for shuffled labels, the control of `circuits.find`.

    Args:
        findings: from `circuits.find`, or some of its rows, best first.
        n: at most so many.
        title: what the concept is.
    """
    rows = list(findings.rows if isinstance(findings, Findings) else findings)[:n]
    shuffled = findings.chance if isinstance(findings, Findings) else None
    head, step, left, wide = 62, 26, 220, 380
    figure, axes = canvas.page(left + wide + 110, head + max(1, len(rows)) * step + 44)
    low = min([0.5, *(r.auc if r.low is None else r.low for r in rows)])
    low = max(0.0, int(low * 10) / 10)

    def across(v: float) -> float:
        return left + (min(max(v, low), 1.0) - low) / (1.0 - low) * wide

    bottom = head + max(1, len(rows)) * step
    canvas.write(axes, 24, 32, title or "Units by AUC", size=14, bold=True, limit=70)
    for tick in (v / 10 for v in range(round(low * 10), 11)):
        _rule(axes, across(tick), head - 8, bottom)
        canvas.note(axes, across(tick), bottom + 18, f"{tick:.1f}", size=10, align="center")
    _rule(axes, across(0.5), head - 8, bottom, palette.MUTED, 1.0)
    canvas.note(axes, across(0.5), bottom + 34, "chance", size=10, align="center")
    if shuffled is not None:
        at = across(shuffled)
        axes.plot([at, at], [head - 8, bottom], color=palette.INK, lw=1, ls=(0, (4, 3)), zorder=3)
        side = "center" if at > across(0.5) + 120 else "left"
        canvas.note(axes, at, bottom + 34, "best for shuffled labels", size=10, align=side)
    for i, row in enumerate(rows):
        y = head + i * step
        color = palette.color_of(row.auc - 0.5)
        canvas.write(axes, 24, y + 9, short(row.unit), size=11, mono=True, middle=True, limit=28)
        axes.barh(y + 9, across(row.auc) - across(0.5), left=across(0.5), height=12, color=color, alpha=0.75, zorder=1)
        if row.low is not None and row.high is not None:
            axes.plot([across(row.low), across(row.high)], [y + 9, y + 9], color=palette.INK, lw=1.1, zorder=2)
            for end in (row.low, row.high):
                axes.plot([across(end)] * 2, [y + 5, y + 13], color=palette.INK, lw=1.1, zorder=2)
        text = f"{row.auc:.3f}"
        canvas.write(axes, left + wide + 24, y + 9, text, size=11, middle=True)
    if not rows:
        canvas.note(axes, 24, head + 14, "no units", size=12)
    return figure


def score_figure(score: Score, *, labels: dict[str, str] | None = None, n: int = 12) -> Figure:
    """A circuit against random circuits of its size: faithfulness, completeness, and what each unit adds.

    Args:
        score: `circuit.score`.
        labels: unit address -> a name.
        n: at most so many units, those that matter most first.
    """
    ranked = sorted(score.minimality.items(), key=lambda item: -item[1])[:n]
    height = 272 + (44 + 22 * len(ranked) if ranked else 0)
    figure, axes = canvas.page(760, height)
    alone, without = ("Faithfulness", "of the circuit alone"), ("Completeness", "lost without the circuit")
    _histogram(axes, 30, alone, score.faithfulness, score.control_faithfulness, score.faithfulness_percentile)
    _histogram(axes, 400, without, score.completeness, score.control_completeness, score.completeness_percentile)
    canvas.note(axes, 30, 246, f"Bars: {score.control}, with as many units in each layer.", size=10)
    if ranked:
        _minimality(axes, ranked, labels or {}, 284)
    return figure


def _histogram(
    axes: Axes, x: float, names: tuple[str, str], value: float, random: Sequence[float], percentile: float
) -> None:
    y, width, (name, about) = 24.0, 330.0, names
    counts, low, high = bins(random, value)
    most, step, base = max(1, int(counts.max(initial=0))), width / len(counts), y + 160
    canvas.write(axes, x, y + 12, name, size=14, bold=True)
    canvas.note(axes, x + 8.8 * len(name) + 12, y + 12, about, size=11)
    for i, count in enumerate(counts.tolist()):
        if count:
            tall = count / most * 92
            axes.bar(x + (i + 0.5) * step, -tall, bottom=base, width=step - 1, color=palette.LINE, zorder=1)
    axes.plot([x, x + width], [base, base], color=palette.MUTED, lw=0.8)
    for tick in (-1.0, -0.5, 0.0, 0.5, 1.0):
        if low <= tick <= high:
            at = x + (tick - low) / (high - low) * width
            canvas.note(axes, at, base + 16, f"{tick:g}", size=10, align="center")
    at = x + (min(max(value, low), high) - low) / (high - low) * width
    axes.plot([at, at], [y + 38, base], color=palette.INK, lw=2)
    near_end = at > x + width - 80
    align, shift = ("right", -6) if near_end else ("left", 6)
    canvas.write(axes, at + shift, y + 46, minus(f"{value:.2f}"), size=13, bold=True, align=align)
    if random:
        text = f"above {percentile:.0f} % of these {len(random)}, median {median(random):.2f}"
        canvas.note(axes, x, base + 38, minus(text), size=11)


def _minimality(axes: Axes, ranked: Sequence[tuple[str, float]], labels: dict[str, str], y: float) -> None:
    canvas.write(axes, 30, y, "Lost when one unit leaves", size=14, bold=True)
    largest = max(max(abs(v) for _, v in ranked), 1e-9)
    zero, wide = 300, 330
    if any(v < 0 for _, v in ranked):
        zero, wide = 400, 230
    for i, (unit, value) in enumerate(ranked):
        at = y + 26 + i * 22
        canvas.note(axes, 30, at, short(unit), size=11, mono=True, middle=True, limit=18)
        canvas.write(axes, 165, at, labels.get(unit, ""), size=11, middle=True, limit=18)
        axes.barh(at, value / largest * wide, left=zero, height=11, color=palette.REST, zorder=1)
        canvas.write(axes, 740, at, number(value), size=11, align="right", middle=True)
    _rule(axes, zero, y + 14, y + 26 + len(ranked) * 22 - 8, palette.MUTED)


def waterfall(circuit: Circuit, unit: str | None = None) -> Figure:
    """Contributions to a response: sources shown, all others, bias and remainder, up to the pre-activation.

    Args:
        circuit: the circuit.
        unit: a node that has edges into it; default the target.

    Raises:
        CircuitsError: the circuit holds no sum for this unit.
    """
    node = circuit.node(unit or circuit.target)
    rest = rest_of(circuit, node.unit)
    if rest is None:
        raise CircuitsError(f"the circuit does not go back from {shorten(node.unit)}: it holds no sum for it")
    steps = sum_steps(circuit, rest)
    ends = [0.0, *(s.start for s in steps), *(s.end for s in steps)]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0
    left, wide, step, head = 250, 380, 26, 62
    figure, axes = canvas.page(left + wide + 110, head + len(steps) * step + 20)
    canvas.write(axes, 24, 32, f"Contributions to {name_of(node)}", size=14, bold=True, limit=70)

    def across(v: float) -> float:
        return left + (v - low) / span * wide

    _rule(axes, across(0), head - 10, head + len(steps) * step)
    for i, part in enumerate(steps):
        y, is_sum = head + i * step + 9, part.kind == "sum"
        color = palette.INK if is_sum else palette.REST if part.kind == "rest" else palette.color_of(part.value)
        axes.barh(y, across(part.end) - across(part.start), left=across(part.start), height=13, color=color, zorder=2)
        if i + 1 < len(steps):
            axes.plot([across(part.end)] * 2, [y - 6.5, y + step + 6.5], color=palette.MUTED, lw=0.7, zorder=1)
        canvas.write(axes, 24, y, part.name, size=11, bold=is_sum, middle=True, limit=34)
        canvas.write(axes, left + wide + 90, y, number(part.value), size=11, bold=is_sum, align="right", middle=True)
    return figure
