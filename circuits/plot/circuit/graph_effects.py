"""What scaling nodes of an attribution graph does, and groups of its nodes, each beside its control."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.wording import minus, number, short
from circuits.plot.superposition.charts import head, plain
from circuits.tracing.graphs.effect import NodeEffect
from circuits.tracing.graphs.groups import GraphGroup, GraphGroups


def effect_reading(effect: NodeEffect) -> str:
    """A sentence on what scaling units changed, beside what the graph predicts and what other units do."""
    done = {0.0: "set to zero", 2.0: "set to twice their activation"}.get(
        effect.factor, f"set to {effect.factor:g} times their activation"
    )
    random = (
        f"{len(effect.random)} samples of as many other units of the layer, about as active, change it by "
        f"{number(float(np.median(effect.random)))} (median; {number(min(effect.random))} to "
        f"{number(max(effect.random))})."
        if effect.random
        else "The layer has no other units that are as active."
    )
    names = ", ".join(short(unit) for unit in effect.units)
    return minus(
        f"{names} {done}: the target, {number(effect.before)}, changes by {number(effect.measured)}; the graph "
        f"predicts {number(effect.predicted)}. {random}"
    )


def effect_figure(effect: NodeEffect, *, title: str = "") -> Figure:
    """The change of the target that the graph predicts, the measured one, and those of other units as active."""
    figure = canvas.figure_of_size(6.4, 2.4)
    axes = figure.add_axes((0.16, 0.24, 0.8, 0.5))
    head(figure, title or effect.target, minus(f"{', '.join(map(short, effect.units))} times {effect.factor:g}"))
    for y, (value, color) in enumerate(((effect.predicted, palette.REST), (effect.measured, palette.EXCITES))):
        axes.barh(y, value, height=0.55, color=color)
    axes.plot(effect.random, np.full(len(effect.random), 2.0), ls="none", marker="o", ms=4, color=palette.REST)
    axes.axvline(0, color=palette.LINE, lw=0.8)
    axes.set_yticks([0, 1, 2], ["predicted", "measured", "others"], fontsize=9.5)
    axes.set_ylim(2.6, -0.6)
    axes.set_xlabel("change of the target", fontsize=9.5)
    plain(axes)
    return figure


def group_rows(groups: GraphGroups) -> list[tuple[str, ...]]:
    """A row of text for each group: units, similarities and effects, each beside its control."""
    return [
        (
            ", ".join(short(u) for u in g.units), _two(g.activations), _two(g.random_activations), _two(g.edges),
            number(-g.value), number(g.measured), _control(g),
        )
        for g in groups.groups
    ]  # fmt: skip


def groups_reading(groups: GraphGroups) -> str:
    """A sentence on how groups were chosen, and how many of them stand out."""
    if not groups.groups:
        return f"No two of the {groups.nodes} units are similar (threshold {groups.threshold:g})."
    similar = sum(g.similar for g in groups.groups)
    where = "images on which they were not chosen" if groups.held_out else "the image on which they were chosen"
    return (
        f"{len(groups.groups)} groups of the {groups.nodes} units have similar activations and edges "
        f"(correlation and cosine above {groups.threshold:g}). On {where}, the activations of {similar} of them "
        "correlate by more than those of 95 % of groups of as many random units of the graph's layer."
    )


def groups_figure(groups: GraphGroups, *, title: str = "") -> Figure:
    """The correlation within each group beside that of random units, and the change when it is silenced."""
    rows = groups.groups
    figure = canvas.figure_of_size(8.6, 1.6 + 0.3 * max(1, len(rows)))
    height = figure.get_figheight()
    head(figure, title or f"Groups of {groups.target}", groups_reading(groups).partition(". ")[0])
    left = figure.add_axes((0.32, 0.55 / height, 0.3, 1 - 1.45 / height))
    right = figure.add_axes((0.67, 0.55 / height, 0.3, 1 - 1.45 / height), sharey=left)
    at = np.arange(len(rows))
    left.plot([g.random_activations for g in rows], at, ls="none", marker="|", ms=9, color=palette.REST)
    left.plot([g.activations for g in rows], at, ls="none", marker="o", ms=5, color=palette.EXCITES)
    for y, g in enumerate(rows):
        right.plot(g.random, np.full(len(g.random), y), ls="none", marker="|", ms=7, color=palette.REST)
    right.plot([g.measured for g in rows], at, ls="none", marker="o", ms=5, color=palette.EXCITES)
    right.axvline(0, color=palette.LINE, lw=0.8)
    left.set_yticks(at, [", ".join(short(u) for u in g.units[:3]) for g in rows], fontsize=8)
    left.set_ylim(len(rows) - 0.4, -0.6)
    right.tick_params(labelleft=False)
    left.set_xlabel("correlation; bar: random units, 95 %", fontsize=8.5)
    right.set_xlabel("change when silenced; bars: others", fontsize=8.5)
    for axes in (left, right):
        plain(axes)
    return figure


def _two(value: float) -> str:
    return "" if np.isnan(value) else minus(f"{value:.2f}")


def _control(group: GraphGroup) -> str:
    return f"{number(float(np.median(group.random)))}" if group.random else ""
