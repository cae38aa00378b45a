"""What the cards of the report show: for each unit its crops, its outgoing weights and its contributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from circuits.common.examples import Example
from circuits.plot.circuit.waterfall import Step, rest_of, sum_steps
from circuits.plot.drawing import crops
from circuits.plot.drawing.html_page import cropped, join, printable, tag
from circuits.plot.drawing.svg import anchor, diverging_bar, kernel_svg, sign_class
from circuits.plot.drawing.wording import decimals, edge_effect, minus, name_of, number, short
from circuits.tracing.circuit import Circuit, Node

# side of the crops of the target and of other units on the page, and in the file, where they are larger; a thumbnail's
SIZES, EMBEDDED, THUMB = (120, 92), (240, 144), 104
KERNEL = 52
DEAD = "dead: no image activates it"

_REMAINDER = "what ReLUs between the two layers, and inputs that bypass the source layer, change"


@dataclass(frozen=True)
class Row:
    """A row of the table of contributions.

    Attributes:
        between: the kernel between source and target; None for what is no source.
        name: of the source or the term; `link` to the source's card.
        note, kind: on what it does, and the CSS class of the note.
        bar, value: the contribution.
        total: whether it is a sum of all above.
    """

    between: Markup | None
    name: Markup | str
    link: str
    note: str
    kind: str
    bar: Markup
    value: str
    total: bool


class UnitCards:
    """The cards of a circuit's units.

    Args:
        circuit: the circuit.
        images: unit address -> crops.
        scales: layer -> the weight that is fully colored in kernels into it.
        visualizations: unit address -> visualization, by full or short address; None for none.
    """

    def __init__(
        self,
        circuit: Circuit,
        images: crops.Crops,
        scales: Mapping[str, float],
        visualizations: Mapping[str, crops.Crop] | None = None,
    ) -> None:
        self.circuit, self.scales = circuit, scales
        self.visualizations: dict[str, crops.Crop | None] | None = None
        if visualizations is not None:
            single = {unit: [image] for unit, image in visualizations.items()}
            self.visualizations = {n.unit: next(iter(crops.of(single, n.unit)), None) for n in circuit.nodes}
        self.crops = {n.unit: crops.of(images, n.unit) for n in circuit.nodes}
        self.classes = {n.unit: f"t{i}" for i, n in enumerate(circuit.nodes) if self.crops[n.unit]}
        self.dead, self.name_of = DEAD, name_of

    @cached_property
    def style(self) -> Markup:
        """CSS that holds every unit's first crop once, as the background of its class."""
        uris = {name: crops.uri(self.crops[unit][0], THUMB) for unit, name in self.classes.items()}
        return Markup("\n").join(f".{name}{{background-image:url({uri})}}" for name, uri in uris.items())

    def step(self, node: Node) -> str:
        """How far from the target a unit is."""
        return "target" if node.depth == 0 else f"{node.depth} step{'s' * (node.depth > 1)} back"

    def sizes(self, node: Node) -> tuple[int, int]:
        """Side of the crops of a unit: on the page, and in the file."""
        return SIZES[node.depth > 0], EMBEDDED[node.depth > 0]

    def titled(self, node: Node) -> Markup:
        """A unit's label and address."""
        address = tag("span", short(node.unit), class_="address" if node.label else "address alone")
        return Markup("{} {}").format(printable(cropped(node.label, 80)), address) if node.label else address

    def visualization(self, node: Node) -> crops.Crop | None:
        """The visualization of a unit."""
        return (self.visualizations or {}).get(node.unit)

    def examples(self, node: Node) -> list[tuple[crops.Crop, Example | None, str]]:
        """Crop, its example and a description of each receptive-field crop."""
        rows = []
        for i, crop in enumerate(self.crops[node.unit]):
            example = node.examples[i] if i < len(node.examples) else None
            about = f"top activating image {i + 1} of {name_of(node)}"
            if example is not None:
                y, x = example.position
                about += f", {example.id}, position {y},{x}"
            rows.append((crop, example, about))
        return rows

    def outgoing(self, node: Node) -> list[tuple[str, str, str, str, str]]:
        """Link, name, CSS class, contribution and effect on each unit that reads this one."""
        return [
            (
                anchor(edge.target),
                name_of(self.circuit.node(edge.target)),
                sign_class(edge.strength),
                number(edge.strength),
                edge_effect(edge),
            )
            for edge in self.circuit.edges
            if edge.source == node.unit
        ]

    def contributions(self, node: Node) -> list[Row]:
        """The sum behind the response of a unit, step by step; empty for one that was not traced further."""
        rest = rest_of(self.circuit, node.unit)
        if rest is None:
            return []
        steps = sum_steps(self.circuit, rest)
        ends = [0.0, *(s.start for s in steps), *(s.end for s in steps)]
        digits = decimals(s.value for s in steps)
        return [self._row(node, step, min(ends), max(ends), digits) for step in steps]

    def _row(self, node: Node, step: Step, low: float, high: float, digits: int) -> Row:
        def across(v: float) -> float:
            return (v - low) / ((high - low) or 1.0) * 100

        color = {"rest": "gray", "sum": "ink"}.get(step.kind, "plus" if step.value > 0 else "minus")
        bar = diverging_bar(across(step.start), across(step.end), across(0.0), color)
        value = exact(step.value, digits)
        if step.edge is None:
            note = _REMAINDER if step.name == "remainder" and step.value else ""
            return Row(None, step.name, "", note, "", bar, value, step.kind == "sum")
        edge, source = step.edge, self.circuit.node(step.edge.source)
        about = f"kernel from {name_of(source)} to {name_of(node)}"
        kernel = kernel_svg(edge.kernel, self.scales[node.layer], KERNEL, about)
        between = join([self.thumb(source, node), kernel, self.thumb(node, node)])
        effect, kind = edge_effect(edge), sign_class(edge.strength)
        return Row(between, self.titled(source), anchor(edge.source), effect, kind, bar, value, False)

    def thumb(self, node: Node, here: Node) -> Markup:
        """A unit's small image; a link to its card, unless it is on that card (`here`)."""
        name, has_image = name_of(node), node.unit in self.classes
        options = {"class_": f"thumb {self.classes.get(node.unit, 'none')}", "aria_label": name, "title": name}
        inner = "" if has_image else short(node.unit)
        if node.unit == here.unit:
            return tag("span", inner, role="img", **options)
        return tag("a", inner, href=anchor(node.unit), **options)


def exact(value: float, digits: int) -> str:
    """A signed number with so many decimals."""
    return minus(f"{value:+.{digits}f}")
