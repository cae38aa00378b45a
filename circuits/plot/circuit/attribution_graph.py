"""An attribution graph as a page, and the check of one by silencing units as a figure."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from circuits.plot.circuit.graph_effects import group_rows, groups_reading
from circuits.plot.circuit.graph_layout import scales
from circuits.plot.circuit.graph_svg import graph_svg
from circuits.plot.circuit.unit_cards import UnitCards
from circuits.plot.drawing import canvas, crops, html_page, palette
from circuits.plot.drawing.wording import minus, number, short, titled
from circuits.plot.superposition.charts import head, plain
from circuits.tracing.graphs.attribution_graph import AttributionGraph
from circuits.tracing.graphs.check import GraphCheck
from circuits.tracing.graphs.groups import GraphGroups


def attribution_graph_page(
    graph: AttributionGraph,
    images: crops.Crops,
    command: str = "",
    python: str = "",
    *,
    check: GraphCheck | None = None,
    groups: GraphGroups | None = None,
    width: int = 5,
) -> str:
    """A graph as one self-contained HTML page, light and dark: drawn by layers, its scores, and a card for each unit.

    Args:
        graph: of `circuits.graph`.
        images: unit address -> crops, as `crops` cuts them of `graph.circuit(width)`.
        command: the shell command that makes the page again; python: the Python that does.
        check: of `circuits.check_graph`; groups: of `circuits.graph_groups`.
        width: how many sources of each unit are drawn, the strongest.
    """
    circuit = graph.circuit(width)
    cards = UnitCards(circuit, images, scales(circuit))
    target = circuit.node(graph.target)
    origin = graph.provenance
    return html_page.page(
        "attribution_graph.html",
        title=f"Attribution graph of {titled(target.unit, target.label)} in {graph.model}",
        circuit=circuit,
        target=target,
        reading=graph_reading(graph),
        facts=[
            ("model", graph.model),
            ("images", f"{origin.get('images', '')} ({graph.n_images})"),
            ("layers", " ← ".join(graph.layers[::-1])),
            ("units", f"{len(graph.strongest())}, {len(circuit.nodes) - 1} drawn"),
        ],
        graph=graph_svg(circuit, images),
        scales=cards.scales,
        scale_of="edges",
        score=None,
        pages={},
        home="",
        cards=cards,
        scores=[
            ("completeness", f"{graph.completeness:.2f}", "share of all sources, by influence, that are no errors"),
            ("replacement", f"{graph.replacement:.2f}", "share of the influence that reaches the image through units"),
            ("not explained", f"{graph.unexplained:.1e}", "largest share of a sum that the edges and biases lack"),
        ],
        check=check,
        check_reading="" if check is None else check_reading(check),
        checked=() if check is None else _checked(check),
        groups_reading="" if groups is None else groups_reading(groups),
        groups=() if groups is None else group_rows(groups),
        command=command,
        python=python,
        provenance=origin,
    )


def graph_reading(graph: AttributionGraph) -> str:
    """A paragraph on what gives the target its value."""
    target = graph.nodes[-1]
    by_layer = []
    for layer in reversed(graph.layers):
        units = [n for n in graph.strongest() if n.layer == layer][:3]
        if units:
            named = ", ".join(f"{titled(n.unit, n.label)} ({number(n.value)})" for n in units)
            by_layer.append(f"Of {layer} most comes from {named}.")
    mean = "" if graph.n_images == 1 else f", on average over {graph.n_images} images"
    first = (
        f"{titled(target.unit, target.label)} is {number(target.value)}{mean}; biases after {graph.layers[-1]} give "
    )
    return minus(f"{first}{number(target.bias)} of it. {' '.join(by_layer)}")


def check_reading(check: GraphCheck) -> str:
    """A sentence on how well a graph predicts what silencing units does."""
    return minus(
        f"{len(check.units)} units were silenced one by one: the changes of the target and what the graph predicts "
        f"have a rank correlation of {check.correlation:.2f} ({check.low:.2f} to {check.high:.2f}). With shuffled ones "
        f"it stays below {check.shuffled:.2f} in 95 % of cases; activations alone have "
        f"{check.by_activity:.2f} with the sizes. The median change is {check.strong_size:.2g} for units of the graph, "
        f"{check.random_size:.2g} for others as active."
    )


def _checked(check: GraphCheck) -> list[tuple[str, str, str, str]]:
    order = np.argsort(-np.abs(check.measured), kind="stable").tolist()
    return [
        (
            short(check.units[i]), "" if check.strong[i] else "random, as active", number(check.predicted[i]),
            number(check.measured[i]),
        )
        for i in order
    ]  # fmt: skip


def graph_check_figure(check: GraphCheck, *, title: str = "") -> Figure:
    """Predicted and measured changes of the target, a dot for each silenced unit."""
    figure = canvas.figure_of_size(6.4, 5.2)
    axes = figure.add_axes((0.13, 0.12, 0.82, 0.7))
    about = (
        f"rank correlation {check.correlation:.2f} ({check.low:.2f} to {check.high:.2f}); "
        f"shuffled, below {check.shuffled:.2f} in 95 %"
    )
    head(figure, title or check.target, minus(about))
    strong = np.array(check.strong)
    predicted, measured = np.array(check.predicted), np.array(check.measured)
    ends = [min(predicted.min(), measured.min()), max(predicted.max(), measured.max())]
    axes.plot(ends, ends, color=palette.LINE, lw=0.8, zorder=0)
    for mask, color, label in (
        (~strong, palette.REST, "others, as active"),
        (strong, palette.EXCITES, "units of the graph"),
    ):
        axes.plot(predicted[mask], measured[mask], ls="none", marker="o", ms=4, alpha=0.7, color=color, label=label)
    axes.set_xlabel("predicted change of the target", fontsize=9.5)
    axes.set_ylabel("measured, unit silenced", fontsize=9.5)
    axes.legend(fontsize=8, frameon=False)
    plain(axes)
    return figure
