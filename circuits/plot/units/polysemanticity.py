"""Figures of polysemantic units: what each cluster shows and by which parents, a ranking, and the causal check."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from circuits.attribution.contributions import checked_examples
from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.wording import minus, short
from circuits.units.polysemanticity import Cluster, Parent, Polysemanticities, Polysemanticity
from circuits.units.pure_units import ClusterAblation
from zoo.images.sources import Source, open_images
from zoo.inputs import InputSpec

MARGIN, TILE, GAP, NAMES, BARS = 24, 84, 4, 124, 330
_PARENTS = 6
_WITHIN = 150.0  # pixels of the longest bar


def polysemantic_unit(
    result: Polysemanticity, images: Source, spec: InputSpec, *, columns: int = 6, labels: dict[str, str] | None = None
) -> Figure:
    """A unit's clusters: a row each with the receptive fields of its strongest examples and its parents as bars.

    A bar is the parent's share of what excites the unit on this cluster's examples; the thin gray one below it is
    its largest share on another cluster's. The line at the bottom puts the quality of the clusters beside what the
    same procedure finds in the two controls.

    Args:
        result: of `circuits.units.polysemanticity.polysemantic`.
        images: the images it was computed on.
        spec: the model's input.
        columns: crops side by side, in two rows.
        labels: unit address -> a name, for parents.

    Raises:
        CircuitsError: these are not the images that it was computed on.
    """
    step = 2 * (TILE + GAP) + 30
    left, right = MARGIN + NAMES, MARGIN + NAMES + columns * (TILE + GAP) + 22
    top = MARGIN + 88
    figure, axes = canvas.page(right + BARS + MARGIN, top + len(result.clusters) * step + 74)
    canvas.write(axes, MARGIN, MARGIN + 12, short(result.unit), size=15, bold=True, limit=40)
    canvas.note(axes, MARGIN, MARGIN + 31, _summary(result), size=11, limit=170)
    _legend(axes, right, top - 14, result, len(result.clusters) > 1)
    rows = _crops(result, images, spec, 2 * columns)
    largest = max((abs(v) for c in result.clusters for p in c.parents for v in (p.here, p.elsewhere)), default=1.0)
    for k, cluster in enumerate(result.clusters):
        y = top + k * step
        _label(axes, k, cluster, MARGIN, y, len(result.clusters))
        for i, crop in enumerate(rows[k]):
            row, column = divmod(i, columns)
            canvas.place_crop(axes, crop, left + column * (TILE + GAP), y + row * (TILE + GAP), TILE)
        for i, parent in enumerate(cluster.parents[:_PARENTS]):
            _bar(axes, parent, right, y + 8 + i * 28, largest, labels or {}, len(result.clusters) > 1)
        hidden = len(cluster.parents) - _PARENTS
        if hidden > 0:
            text = f"and {hidden} more"
            canvas.note(axes, right, y + 12 + _PARENTS * 28, text, size=10)
    _controls(axes, result, left, top + len(result.clusters) * step + 18, columns * (TILE + GAP) - GAP)
    return figure


def _summary(result: Polysemanticity) -> str:
    text = (
        f"{result.n_examples} examples, {_clusters(len(result.clusters))}; score {result.score:.2f}: "
        f"parents differ {result.separation:.2f}, margin over shuffled {result.clear:.2f}"
    )
    if result.confirmed is not None and result.agreement is not None:
        agreement = minus(f"{result.agreement:.2f}")
        beaten = f"{100 * result.confirmed:.0f} % of random groups"
        text += f"; {result.deeper} separates them better than {beaten} (agreement {agreement})"
    return text


def _clusters(count: int) -> str:
    return "one cluster" if count == 1 else f"{count} clusters"


def _legend(axes: Axes, x: float, y: float, result: Polysemanticity, several: bool) -> None:
    canvas.write(axes, x, y - 15, f"parents in {result.source}", size=11, bold=True, limit=40)
    canvas.note(axes, x, y, "share of what excites the unit", size=10)
    if several:
        at = x + 172
        axes.barh(y - 4, 16, left=at, height=8, color=palette.EXCITES)
        canvas.note(axes, at + 21, y, "here", size=10)
        axes.barh(y - 4, 16, left=at + 54, height=4, color=palette.REST)
        canvas.note(axes, at + 75, y, "elsewhere", size=10)


def _label(axes: Axes, k: int, cluster: Cluster, x: float, y: float, count: int) -> None:
    canvas.write(axes, x, y + 16, f"cluster {chr(65 + k)}" if count > 1 else "all", size=13, bold=True)
    canvas.note(axes, x, y + 34, f"{len(cluster.examples)} examples", size=11)
    axes.barh(y + 46, 96, left=x, height=7, color=palette.LINE)
    axes.barh(y + 46, 96 * cluster.share, left=x, height=7, color=palette.INK)
    canvas.note(axes, x, y + 66, f"{100 * cluster.share:.0f} %", size=11)
    if count > 1:
        text = minus(f"cohesion {cluster.cohesion:.2f}")
        canvas.note(axes, x, y + 84, text, size=11)


def _bar(axes: Axes, parent: Parent, x: float, y: float, largest: float, labels: dict[str, str], several: bool) -> None:
    label = labels.get(parent.unit)
    if label:
        canvas.write(axes, x, y - 1, label, size=11, limit=15)
        canvas.note(axes, x, y + 11, short(parent.unit), size=9, mono=True, limit=18)
    else:
        canvas.write(axes, x, y + 4, short(parent.unit), size=11, mono=True, middle=True, limit=16)
    zero = x + 122
    width = parent.here / largest * _WITHIN
    axes.barh(y, width, left=zero, height=10, color=palette.color_of(parent.here), alpha=0.85)
    if several:
        axes.barh(y + 9, max(0.0, parent.elsewhere) / largest * _WITHIN, left=zero, height=4, color=palette.REST)
    axes.plot([zero, zero], [y - 8, y + 13], color=palette.MUTED, lw=0.7)
    text = minus(f"{100 * parent.here:.0f} %")
    canvas.note(axes, zero + max(0.0, width) + 6, y, text, size=10, middle=True)


def _controls(axes: Axes, result: Polysemanticity, x: float, y: float, width: float) -> None:
    """Quality of the clusters on a line from 0 to 1, with the 95th percentiles of both controls."""

    def along(value: float) -> float:
        return x + min(max(value, 0.0), 1.0) * width

    canvas.note(axes, MARGIN, y + 4, "mean silhouette", size=11)
    axes.plot([x, x + width], [y, y], color=palette.LINE, lw=1.4, solid_capstyle="butt", zorder=1)
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        axes.plot([along(tick)] * 2, [y - 4, y + 4], color=palette.MUTED, lw=0.8)
        canvas.note(axes, along(tick), y + 18, f"{tick:g}", size=10, align="center")
    for value, mark, color in (
        (result.shuffled, "s", palette.REST), (result.single, "^", palette.REST),
        (result.quality, "o", palette.EXCITES if result.quality > max(result.shuffled, result.single) else palette.INK),
    ):  # fmt: skip
        axes.plot([along(value)], [y], marker=mark, ms=7, mew=0.8, mec=palette.PAPER, color=color, ls="none", zorder=4)
    keys = (
        ("o", f"these clusters {result.quality:.2f}"), ("s", f"parents shuffled {result.shuffled:.2f}"),
        ("^", f"one cloud of the same shape {result.single:.2f} (95th percentiles)"),
    )  # fmt: skip
    at = x
    for mark, text in keys:
        color = palette.EXCITES if mark == "o" else palette.REST
        axes.plot([at + 4], [y + 34], marker=mark, ms=6, color=color, ls="none")
        canvas.note(axes, at + 13, y + 38, text, size=10)
        at += 30 + 6.0 * len(text)


def _crops(result: Polysemanticity, images: Source, spec: InputSpec, n: int) -> list[list[crops.Crop]]:
    opened = open_images(images)
    groups = [checked_examples(c.examples[:n], opened, result.unit) for c in result.clusters]
    indices = sorted({e.image for examples in groups for e in examples})
    cut = {i: crops.pixels(p, len(p)) for i, p in zip(indices, opened.tensor(spec, indices), strict=True)}
    return [[crops.cut(cut[e.image], e.box) for e in examples] for examples in groups]


def polysemantic_ranking(
    results: Polysemanticities | Sequence[Polysemanticity], *, n: int = 20, title: str = ""
) -> Figure:
    """Units by score: filled bars are units split into clusters, hollow ones did not beat the controls.

    The columns: how much the clusters' parents differ, their margin over the shuffled control, how many random
    assignments they beat in the deeper layer, and how many clusters survive.

    Args:
        results: of `circuits.units.polysemanticity.polysemantic`, or some of its rows.
        n: at most so many.
        title: what is ranked.
    """
    rows = list(results.rows if isinstance(results, Polysemanticities) else results)
    ranked = rows[:n]
    head, step, left, wide = 62, 24, 200, 340
    right = left + wide + 70
    figure, axes = canvas.page(right + 330, head + max(1, len(ranked)) * step + 48)
    split = sum(r.split for r in rows)
    heading = title or "Units by polysemanticity"
    canvas.write(axes, MARGIN, 32, heading, size=14, bold=True, limit=60)
    text = f"{split} of {len(rows)} units are split"
    canvas.note(axes, right + 306, 32, text, size=11, align="right")
    bottom = head + max(1, len(ranked)) * step
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = left + tick * wide
        axes.plot([at, at], [head - 8, bottom], color=palette.LINE, lw=0.8, zorder=0)
        canvas.note(axes, at, bottom + 18, f"{tick:g}", size=10, align="center")
    canvas.note(axes, left + wide / 2, bottom + 36, "score", size=11, align="center")
    names = ("parents differ", "margin", "confirmed", "clusters")
    for i, name in enumerate(names):
        canvas.note(axes, right + 50 + i * 82, head - 14, name, size=11, align="right")
    for i, row in enumerate(ranked):
        y = head + i * step + 9
        canvas.write(axes, MARGIN, y, short(row.unit), size=11, mono=True, middle=True, limit=26)
        face = palette.EXCITES if row.split else palette.PAPER
        axes.barh(
            y, row.score * wide, left=left, height=12, facecolor=face, edgecolor=palette.EXCITES, lw=0.9, alpha=0.8
        )
        canvas.write(axes, left + wide + 12, y, f"{row.score:.2f}", size=11, middle=True)
        witness = "" if row.confirmed is None else f"{100 * row.confirmed:.0f} %"
        for j, text in enumerate((f"{row.separation:.2f}", f"{row.clear:.2f}", witness, str(len(row.clusters)))):
            canvas.write(axes, right + 50 + j * 82, y, text, size=11, align="right", middle=True)
    if not ranked:
        canvas.note(axes, MARGIN, head + 14, "no units", size=12)
    return figure


def ablation_table(result: ClusterAblation) -> Figure:
    """What is lost on each cluster's examples (columns) when a cluster's parents are ablated (rows), and by chance.

    Args:
        result: of `circuits.units.pure_units.ablate_clusters`.
    """
    k, cell, left, top, step = len(result.lost), 96, 236, 100, 52
    figure, axes = canvas.page(max(left + k * (cell + GAP) + MARGIN, 520), top + 2 * k * step + 16 + MARGIN)
    canvas.write(axes, MARGIN, 34, f"{short(result.unit)}: share of the response lost", size=14, bold=True, limit=60)
    canvas.note(axes, left, top - 30, "on the examples of cluster", size=11)
    for j in range(k):
        x = left + j * (cell + GAP) + cell / 2
        canvas.write(axes, x, top - 10, chr(65 + j), size=12, bold=True, align="center")
    for g, table in enumerate((result.lost, result.random.mean(axis=0))):
        for i in range(k):
            y, count = top + (g * k + i) * step + g * 16, result.counts[i]
            parents = "parent" if count == 1 else "parents"
            text = f"without the {count} {parents} of {chr(65 + i)}" if g == 0 else f"without {count} random {parents}"
            canvas.write(axes, MARGIN, y + 23, text, size=11.5, middle=True, limit=40)
            for j in range(k):
                x, value = left + j * (cell + GAP), float(table[i, j])
                shade = palette.encode([[min(1.0, max(-1.0, value))]], 1.0)
                canvas.place_image(axes, shade, x, y, cell, step - GAP, sharp=True)
                axes.add_patch(
                    Rectangle((x, y), cell, step - GAP, fill=False, edgecolor=palette.LINE, lw=0.8, zorder=4)
                )
                canvas.write(
                    axes, x + cell / 2, y + 24, minus(f"{100 * value:.0f} %".replace("-0 %", "0 %")), size=13,
                    align="center", middle=True, zorder=5, color=palette.PAPER if abs(value) > 0.65 else palette.INK,
                )  # fmt: skip
    return figure
