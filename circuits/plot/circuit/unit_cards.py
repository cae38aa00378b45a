"""The cards of the report: for each unit where it fires, what it reads, and the sum that makes it fire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from circuits.plot.circuit.waterfall import Step, rest_of, sum_steps
from circuits.plot.drawing import crops as pictures
from circuits.plot.drawing.svg import anchor, cropped, escape, kernel_svg, sign_class
from circuits.plot.drawing.wording import decimals, kernel_effect, minus, name_of, number, short
from circuits.tracing.circuit import Circuit, Node

# pixels embedded for the crops of the target, of other units, and for a thumbnail: more than they take on the page
LARGE, SMALL, THUMB = 240, 144, 104
KERNEL = 52
DEAD = "dead: no picture makes it answer"
Made: TypeAlias = Mapping[str, pictures.Crop | None]
"""Full address -> visualization; None for a unit that no picture makes answer."""

_REMAINDER = "what rectifiers between the two layers, and inputs that bypass the source layer, change"


def thumbnails(circuit: Circuit, found: pictures.Pictures) -> tuple[str, dict[str, str]]:
    """CSS that holds every unit's first crop once, and unit -> its class."""
    rules, classes = [], {}
    for i, node in enumerate(circuit.nodes):
        crops = pictures.of(found, node.unit)
        if crops:
            classes[node.unit] = f"t{i}"
            small = pictures.resized(crops[0], pictures.embedded(crops[0], THUMB))
            rules.append(f".t{i}{{background-image:url({pictures.data_uri(small, photograph=True)})}}")
    return "\n".join(rules), classes


def titled(node: Node) -> str:
    """A unit's label and address as HTML."""
    alone = "" if node.label else " alone"
    address = f'<span class="address{alone}">{escape(short(node.unit))}</span>'
    return f"{escape(cropped(node.label, 80))} {address}" if node.label else address


def thumb(node: Node, classes: Mapping[str, str], here: str) -> str:
    """A unit's small picture; a link to its card, unless it stands in that card (`here`)."""
    name = escape(name_of(node))
    kind, inner = (classes[node.unit], "") if node.unit in classes else ("none", escape(short(node.unit)))
    if node.unit == here:
        return f'<span class="thumb {kind}" role="img" aria-label="{name}" title="{name}">{inner}</span>'
    link = escape(anchor(node.unit))
    return f'<a class="thumb {kind}" href="{link}" aria-label="{name}" title="{name}">{inner}</a>'


def of_nodes(circuit: Circuit, visualizations: Mapping[str, pictures.Crop]) -> Made:
    """The visualization of each node, by full address; None for a node without one."""
    single = {unit: [picture] for unit, picture in visualizations.items()}
    return {node.unit: next(iter(pictures.of(single, node.unit)), None) for node in circuit.nodes}


def card(
    circuit: Circuit,
    node: Node,
    found: pictures.Pictures,
    classes: Mapping[str, str],
    scales: Mapping[str, float],
    made: Made | None = None,
) -> str:
    """The card of one unit."""
    step = "target" if node.depth == 0 else f"{node.depth} step{'s' * (node.depth > 1)} back"
    parts = [
        f'<article class="card {"target" if node.depth == 0 else "parent"}" id="{escape(short(node.unit))}">',
        f'<header><h3>{titled(node)}</h3><span class="note">{step}, mean response {node.activation:.3g}</span>',
        "</header>",
        _gallery(node, pictures.of(found, node.unit), "" if made is None else _made(node, made[node.unit])),
        _feeds(circuit, node),
        _sum(circuit, node, classes, scales),
        "</article>",
    ]
    return "".join(parts)


def _made(node: Node, picture: pictures.Crop | None) -> str:
    """The visualization of a unit as a figure."""
    size = 120 if node.depth == 0 else 92
    box = f'width="{size}" height="{size}"'
    if picture is None:
        return f'<figure class="made"><span class="dead" style="width:{size}px;height:{size}px">{DEAD}</span></figure>'
    side = pictures.embedded(picture, LARGE if node.depth == 0 else SMALL)
    uri = pictures.data_uri(pictures.resized(picture, side))
    alt = escape(f"what {name_of(node)} looks for: a picture made by optimization")
    shown = f'<img src="{uri}" alt="{alt}" title="{alt}" {box} loading="lazy">'
    return f'<figure class="made">{shown}<figcaption>visualization</figcaption></figure>'


def _gallery(node: Node, crops: Sequence[pictures.Crop], before: str = "") -> str:
    if not crops:
        return (
            f'<div class="crops">{before}<span class="missing">no pictures of {escape(short(node.unit))}</span></div>'
        )
    shown = []
    for i, crop in enumerate(crops):
        example = node.examples[i] if i < len(node.examples) else None
        side = pictures.embedded(crop, LARGE if node.depth == 0 else SMALL)
        uri = pictures.data_uri(pictures.resized(crop, side), photograph=True)
        where = caption = ""
        if example is not None:
            y, x = example.position
            where = f", {example.id}, position {y},{x}"
            caption = f"<figcaption>{example.value:.3g}</figcaption>"
        alt = escape(f"what {name_of(node)} sees, number {i + 1}{where}")
        size = 120 if node.depth == 0 else 92
        box = f'width="{size}" height="{size}"'
        shown.append(f'<figure><img src="{uri}" alt="{alt}" title="{alt}" {box} loading="lazy">{caption}</figure>')
    return f'<div class="crops">{before}{"".join(shown)}</div>'


def _feeds(circuit: Circuit, node: Node) -> str:
    """One line per unit that this one feeds."""
    found = []
    for edge in circuit.edges:
        if edge.source == node.unit:
            target = circuit.node(edge.target)
            found.append(
                f'<a href="{escape(anchor(edge.target))}">{escape(name_of(target))}</a> '
                f'(<span class="{sign_class(edge.strength)}">{number(edge.strength)}</span>, '
                f"{escape(kernel_effect(edge.kernel, edge.sign))})"
            )
    return f"<h4>What it feeds</h4><p>{'; '.join(found)}</p>" if found else ""


def _sum(circuit: Circuit, node: Node, classes: Mapping[str, str], scales: Mapping[str, float]) -> str:
    rest = rest_of(circuit, node.unit)
    if rest is None:
        return ""
    steps = sum_steps(circuit, rest)
    low = min([0.0, *(min(s.start, s.end) for s in steps)])
    high = max([0.0, *(max(s.start, s.end) for s in steps)])
    digits = decimals(s.value for s in steps)
    rows = "".join(_row(circuit, node, s, (low, high), digits, classes, scales) for s in steps)
    return (
        '<h4>What it reads, and the sum</h4><div class="wrapped"><table><thead><tr>'
        "<th>source, kernel, target</th><th>what it does</th>"
        '<th class="diverging">running sum</th><th class="value">adds</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(
    circuit: Circuit,
    node: Node,
    step: Step,
    span: tuple[float, float],
    digits: int,
    classes: Mapping[str, str],
    scales: Mapping[str, float],
) -> str:
    color = {"rest": "gray", "sum": "ink"}.get(step.kind, "plus" if step.value > 0 else "minus")
    bar = f'<td class="diverging">{_bar(step, span, color)}</td><td class="value">{exact(step.value, digits)}</td>'
    if step.edge is None:
        note = f'<span class="note">{_REMAINDER}</span>' if step.name == "remainder" and step.value else ""
        kind = ' class="total"' if step.kind == "sum" else ""
        return f'<tr{kind}><td class="name" colspan="2">{escape(step.name)}{note}</td>{bar}</tr>'
    edge, source = step.edge, circuit.node(step.edge.source)
    about = f"kernel from {name_of(source)} to {name_of(node)}"
    kernel = kernel_svg(edge.kernel, scales[node.layer], KERNEL, about)
    between = f"{thumb(source, classes, node.unit)}{kernel}{thumb(node, classes, node.unit)}"
    effect = escape(kernel_effect(edge.kernel, edge.sign))
    note = f'<span class="note"><span class="{sign_class(edge.strength)}">{effect}</span></span>'
    name = f'<td class="name"><a href="{escape(anchor(edge.source))}">{titled(source)}</a>{note}</td>'
    return f'<tr><td class="between">{between}</td>{name}{bar}</tr>'


def _bar(step: Step, span: tuple[float, float], color: str) -> str:
    low, high = span
    width = (high - low) or 1.0

    def across(v: float) -> float:
        return (v - low) / width * 100

    left, right = sorted((across(step.start), across(step.end)))
    zero = across(0.0)
    return (
        '<svg viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">'
        f'<line x1="{zero:.2f}" x2="{zero:.2f}" y1="-7" y2="21"/>'
        f'<rect class="{color}" x="{left:.2f}" y="2" width="{max(right - left, 0.4):.2f}" height="10"/></svg>'
    )


def exact(value: float, digits: int) -> str:
    """A signed number with so many decimals."""
    return minus(f"{value:+.{digits}f}")
