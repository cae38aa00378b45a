"""The report of a traced circuit: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from markupsafe import Markup

from circuits.plot.circuit.graph_layout import scales
from circuits.plot.circuit.graph_svg import graph_svg
from circuits.plot.circuit.unit_cards import UnitCards, exact
from circuits.plot.drawing import crops, html_page
from circuits.plot.drawing.svg import anchor, diverging_bar, histogram_svg
from circuits.plot.drawing.wording import circuit_reading, counted, decimals, held_at, minus, name_of, short
from circuits.tracing.circuit import Circuit
from circuits.tracing.circuit_score import Score

_RANKED = {
    "weights": "weight × activation",
    "attribution": "gradient × activation",
    "gradient": "gradient × (activation − baseline), over all positions",
    "integrated": "integrated gradients from the baseline, over all positions",
    "patching": "patching each unit, over all positions",
    "mask": "a learned mask",
}


def trace_report(
    circuit: Circuit,
    images: crops.Crops,
    command: str,
    python: str,
    visualizations: Mapping[str, crops.Crop] | None = None,
    *,
    pages: Mapping[str, str] | None = None,
    home: str = "",
) -> str:
    """A circuit as one self-contained HTML page, light and dark.

    Holds the graph, a plain reading, the scores beside those of random circuits, a card for each unit (its crops, its
    kernels between the images they join, its contributions), the provenance, and how to reproduce it. Nothing in it is
    fetched; its script only adds buttons.

    Args:
        circuit: traced, and scored or not.
        images: unit address -> crops, as `crops` cuts them; units without any get a gray tile.
        command: the shell command that reproduces this report.
        python: the Python that does.
        visualizations: unit address -> its visualization, as `pixels` gives it, before its crops in the graph and on
            its card; a unit without one is marked as dead.
        pages: unit address -> link to a page of the unit; home: link to a page that this one belongs to.
    """
    target = circuit.node(circuit.target)
    cards = UnitCards(circuit, images, scales(circuit), visualizations)
    scored = {} if circuit.score is None else {"score seed": circuit.score.seed}
    return html_page.page(
        "circuit.html",
        title=f"Circuit of {name_of(target)} in {circuit.model}",
        circuit=circuit,
        target=target,
        reading=circuit_reading(circuit),
        facts=_facts(circuit),
        graph=graph_svg(circuit, images, cards.visualizations),
        scales=cards.scales,
        score=circuit.score,
        panels=() if circuit.score is None else _panels(circuit.score),
        minimality=() if circuit.score is None else _minimality(circuit, circuit.score),
        cards=cards,
        pages=pages or {},
        home=home,
        command=command,
        python=python,
        provenance={**circuit.provenance, **scored},
    )


def _facts(circuit: Circuit) -> list[tuple[str, Any]]:
    origin = circuit.provenance
    images, count = origin.get("images", ""), origin.get("n_images")
    name = images.get("name", "") if isinstance(images, Mapping) else images
    return [
        ("model", circuit.model),
        ("images", f"{name} ({counted(count, 'image')})" if name and count is not None else str(name)),
        ("layers", " ← ".join(circuit.layers)),
        ("ranked by", _RANKED.get(circuit.by, circuit.by)),
        *_counted_from(origin),
        ("units", len(circuit.nodes)),
        ("edges", len(circuit.edges)),
    ]


def _counted_from(origin: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What contributions are counted from, where that is not zero."""
    baseline, ranked = origin.get("baseline"), origin.get("n_ranked")
    if baseline in (None, "zero"):
        return []
    images = "" if ranked is None else f", of {counted(ranked, 'image')}"
    return [("counted from", f"{'mean of each unit' if baseline == 'mean' else baseline}{images}")]


def _panels(score: Score) -> list[tuple[str, Markup, str]]:
    """Title, histogram and text of each score."""
    panels = []
    for name, meaning, value, random, percentile, others in (
        (
            "Faithfulness",
            f"Share of the target's response that remains when every other unit of the source layers is "
            f"{held_at(score.baseline)}.",
            score.faithfulness,
            score.control_faithfulness,
            score.faithfulness_percentile,
            (
                ("any units", score.random_faithfulness if score.strong_faithfulness else ()),
                ("units that are as active", score.matched_faithfulness),
            ),
        ),
        (
            "Completeness",
            f"Share of the response that is lost when each unit of the circuit, and only those, is "
            f"{held_at(score.baseline)}.",
            score.completeness,
            score.control_completeness,
            score.completeness_percentile,
            (("any units", score.random_completeness if score.strong_completeness else ()),),
        ),
    ):
        text, chance = f"{name} {value:.3f}", ""
        if random:
            text += f"; {score.control} have a median of {median(random):.3f}, a highest of {max(random):.3f}"
            chance = (
                f" Above {percentile:.0f} % of {len(random)} {score.control} with as many units in each layer "
                f"(median {median(random):.2f}, highest {max(random):.2f})."
            )
            medians = [f"of {kind} {median(values):.2f}" for kind, values in others if values]
            chance += f" Medians of random circuits {', '.join(medians)}." if medians else ""
        panels.append((f"{name} {minus(f'{value:.2f}')}", histogram_svg(random, value, text), meaning + minus(chance)))
    return panels


def _minimality(circuit: Circuit, score: Score) -> list[tuple[str, str, Markup, str]]:
    """Link, name, bar and value of each unit, those that matter most first."""
    nodes = {n.unit: n for n in circuit.nodes}
    ranked = sorted(score.minimality.items(), key=lambda item: (-item[1], item[0]))
    most = max((abs(v) for _, v in ranked), default=0.0) or 1.0
    digits = decimals(v for _, v in ranked)
    zero = 35.0 if any(v < 0 for _, v in ranked) else 0.0
    rows = []
    for unit, value in ranked:
        end = zero + value / most * (zero if value < 0 else 100 - zero)
        name = name_of(nodes[unit]) if unit in nodes else short(unit)
        rows.append((anchor(unit), name, diverging_bar(zero, end, zero, "gray"), exact(value, digits)))
    return rows
