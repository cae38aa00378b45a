"""The report of a traced circuit: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from circuits.plot.circuit.graph_layout import scales
from circuits.plot.circuit.unit_cards import Made, card, exact, of_nodes, thumbnails
from circuits.plot.drawing import crops, html_page
from circuits.plot.drawing.svg import anchor, escape, graph_svg, histogram_svg
from circuits.plot.drawing.wording import circuit_reading, decimals, minus, name_of, short
from circuits.tracing.circuit import Circuit

_MADE = "The first picture, framed, is made by optimization, to drive the unit as far as it goes. "


def trace_report(
    circuit: Circuit,
    pictures: crops.Pictures,
    command: str,
    python: str,
    visualizations: Mapping[str, crops.Crop] | None = None,
) -> str:
    """A circuit as one self-contained HTML page, light and dark.

    Holds the graph, a plain reading, the scores beside those of random circuits, a card for each unit (its
    crops, its kernels between the pictures they join, the sum that makes its response), where everything
    came from, and how to make it again. Nothing in it is fetched; it reads well without its script.

    Args:
        circuit: traced, and scored or not.
        pictures: unit address -> crops, as `crops` cuts them; units without any get a gray tile.
        command: the shell command that makes this report again.
        python: the Python that does.
        visualizations: unit address -> a picture made for it, as `pixels` gives it, shown before its crops in the
            graph and on its card; a unit without one is marked as dead.
    """
    rules, classes = thumbnails(circuit, pictures)
    made = None if visualizations is None else of_nodes(circuit, visualizations)
    if made is not None:
        rules += "\n" + html_page.style("visualizations.css")
    target = circuit.node(circuit.target)
    shared = scales(circuit)
    scored = [] if circuit.score is None else [("score seed", circuit.score.seed)]
    body = "".join(
        [
            _header(circuit),
            _graph(circuit, pictures, shared, made),
            _scores(circuit),
            "<h2>Units</h2>",
            '<p class="note">The pictures are the places where a unit responds most, cut to its receptive field, '
            f"with its response. {_MADE if made is not None else ''}Numbers in the sums are means over the places "
            "traced.</p>",
            '<section class="cards">',
            *(card(circuit, node, pictures, classes, shared, made) for node in circuit.nodes),
            "</section>",
            html_page.again(command, python),
            html_page.origins(circuit.provenance, *scored),
        ]
    )
    return html_page.page(f"Circuit of {name_of(target)} in {circuit.model}", body, rules)


def _header(circuit: Circuit) -> str:
    target = circuit.node(circuit.target)
    address = f'<span class="address">{escape(target.unit)}</span>'
    title = f"{escape(target.label)} {address}" if target.label else escape(target.unit)
    origin = circuit.provenance
    ranked = {"weights": "weight × activation", "attribution": "gradient × activation"}
    facts: list[tuple[str, Any]] = [
        ("model", circuit.model),
        ("images", _images(origin)),
        ("layers", " ← ".join(circuit.layers)),
        ("ranked by", ranked.get(circuit.by, circuit.by)),
        ("units", len(circuit.nodes)),
        ("edges", len(circuit.edges)),
    ]
    return (
        f'<header><p class="eyebrow">Circuit</p><h1>{title}</h1>'
        f'<p class="lead">{escape(circuit_reading(circuit))}</p>{html_page.facts(facts)}</header>'
    )


def _images(origin: Mapping[str, Any]) -> str:
    images = origin.get("images", "")
    name = images.get("name", "") if isinstance(images, Mapping) else images
    count = origin.get("n_images")
    return f"{name} ({count} pictures)" if name and count is not None else str(name)


def _graph(circuit: Circuit, found: crops.Pictures, shared: Mapping[str, float], made: Made | None) -> str:
    marks = [
        ("plus", '<path class="head plus" d="M30 7L20 1L20 13Z"/>', "excites"),
        ("minus", '<rect class="head minus" x="22" y="1" width="3.5" height="12"/>', "inhibits"),
        ("rest", '<path class="head rest" d="M30 7L20 1L20 13Z"/>', "sum of the units not shown"),
    ]
    legend = "".join(
        f'<span><svg width="32" height="14" aria-hidden="true"><path class="line {kind}" d="M0 7H21" stroke-width="3"/>'
        f"{head}</svg>{text}</span>"
        for kind, head, text in marks
    )
    legend += "".join(
        f'<span>−{scale:.2g}<span class="ramp"></span>+{scale:.2g} in kernels into {escape(layer)}</span>'
        for layer, scale in shared.items()
    )
    return (
        "<h2>Graph</h2>"
        '<p class="note">Sources stand left of what they feed, with their kernels behind them. A line is as wide as '
        "its share of the strongest input to that unit; its number is the mean contribution. Kernels into one layer "
        "share a scale. Follow a unit to its card; hold the pointer over a kernel for its weights.</p>"
        f'<div class="scroll" tabindex="0">{graph_svg(circuit, found, made)}</div><p class="legend">{legend}</p>'
    )


def _scores(circuit: Circuit) -> str:
    score = circuit.score
    if score is None:
        return "<h2>Scores</h2><p>Not scored: <code>circuits score</code> compares this circuit with random ones.</p>"
    panels = []
    for name, what, value, random, percentile in (
        (
            "Faithfulness",
            "How much of the target's response is kept when every other unit of the source layers is held at its mean.",
            score.faithfulness,
            score.random_faithfulness,
            score.faithfulness_percentile,
        ),
        (
            "Completeness",
            "How much of the response is lost when only the units of the circuit are held at their means.",
            score.completeness,
            score.random_completeness,
            score.completeness_percentile,
        ),
    ):
        text = f"{name} {value:.3f}"
        chance = ""
        if random:
            text += f"; random circuits have a median of {median(random):.3f}, a highest of {max(random):.3f}"
            chance = (
                f" Above {percentile:.0f} % of {len(random)} random circuits with as many units in each layer "
                f"(median {median(random):.2f}, highest {max(random):.2f})."
            )
        drawn = histogram_svg(random, value, text)
        panels.append(f"<div><h3>{name} {minus(f'{value:.2f}')}</h3>{drawn}<p>{what}{minus(chance)}</p></div>")
    pictures_ = f"{score.n_images} picture{'s' * (score.n_images != 1)}"
    return (
        f'<h2>Scores</h2><p class="note">Explained variance of the target over positions and {pictures_}; '
        f"gray bars are random circuits (seed {score.seed}).</p>"
        f'<div class="panels">{"".join(panels)}{_minimality(circuit)}</div>'
    )


def _minimality(circuit: Circuit) -> str:
    score = circuit.score
    if score is None or not score.minimality:
        return ""
    known = {n.unit: n for n in circuit.nodes}
    ranked = sorted(score.minimality.items(), key=lambda item: (-item[1], item[0]))
    most = max(abs(v) for _, v in ranked) or 1.0
    digits = decimals(v for _, v in ranked)
    zero = 35.0 if any(v < 0 for _, v in ranked) else 0.0
    rows = []
    for unit, value in ranked:
        width = abs(value) / most * (zero if value < 0 else 100 - zero)
        left = zero - width if value < 0 else zero
        name = name_of(known[unit]) if unit in known else short(unit)
        rows.append(
            f'<tr><td class="name"><a href="{escape(anchor(unit))}">{escape(name)}</a></td><td class="diverging">'
            '<svg viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">'
            f'<line x1="{zero}" x2="{zero}" y1="-7" y2="21"/>'
            f'<rect class="gray" x="{left:.2f}" y="2" width="{width:.2f}" height="10"/></svg></td>'
            f'<td class="value">{exact(value, digits)}</td></tr>'
        )
    return (
        "<div><h3>Minimality</h3><p>Faithfulness lost when one unit alone leaves the circuit.</p>"
        f"<table><tbody>{''.join(rows)}</tbody></table></div>"
    )
