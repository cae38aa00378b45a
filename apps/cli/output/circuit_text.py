"""Circuits on a terminal: the tree of parents, the contributions, the score."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from apps.cli.output.console import signed, table
from apps.cli.output.kernel_text import sketch

if TYPE_CHECKING:
    from circuits.tracing.circuit import Circuit, Edge, Node
    from circuits.tracing.circuit_score import Score


_INDENT = 4
"""Columns by which a step of the tree is indented."""


def short(address: str) -> str:
    """An address without the model's name."""
    return address.rpartition("/")[2]


def tree(circuit: Circuit, width: int = 140) -> Tree:
    """The target, its parents strongest first, their parents, and the sum of the rest.

    Kernels are sketched where they fit into `width` characters.
    """
    target = circuit.node(circuit.target)
    head = Text.assemble(
        (target.unit, "bold"), "  ", (target.label or "", "green"), f"  responds {target.activation:.3g}"
    )
    root = Tree(head, guide_style="dim")
    _grow(root, circuit, target, {target.unit}, width - _INDENT)
    return root


def _grow(branch: Tree, circuit: Circuit, node: Node, above: set[str], room: int) -> None:
    from circuits.plot.drawing.wording import edge_effect

    edges = circuit.into(node.unit)
    rows = [(edge, circuit.node(edge.source), edge_effect(edge)) for edge in edges]
    widths = [max((len(cell) for cell in column), default=0) for column in zip(*map(_cells, rows), strict=True)]
    lines = [_line(row[0], _cells(row), widths) for row in rows]
    sketches = [sketch(edge.kernel) for edge in edges]
    fits = all(len(line) + len(kernel_sketch) <= room for line, kernel_sketch in zip(lines, sketches, strict=True))
    for (_, source, _), line, kernel_sketch in zip(rows, lines, sketches, strict=True):
        child = branch.add(line + kernel_sketch if fits else line)
        if source.unit not in above:
            _grow(child, circuit, source, above | {source.unit}, room - _INDENT)
    for rest in circuit.rest:
        if rest.target == node.unit and edges:
            branch.add(Text(f"{rest.strength:+8.3g}  {rest.count} others", style="dim"))
            if rest.error is not None:
                branch.add(Text(f"{rest.error:+8.3g}  left over by the latents", style="dim"))


def _cells(line: tuple[Edge, Node, str]) -> tuple[str, str, str]:
    edge, source, effect = line
    return short(edge.source), source.label or "", effect


def _line(edge: Edge, cells: tuple[str, str, str], widths: list[int]) -> Text:
    number = signed(edge.strength)
    number.pad_left(max(0, 8 - len(number)))
    unit, label, effect = (f"{cell:<{width}}  " if width else "" for cell, width in zip(cells, widths, strict=True))
    return Text.assemble(number, "  ", (unit, "bold"), (label, "green"), effect)


def contribution_table(circuit: Circuit) -> Table:
    """Contributions: traced + others = all; all + biases + ReLUs = the value before the unit's own ReLU.

    Counted from a baseline, what that gives stands with the biases.
    """
    traced = {r.target: sum(e.strength for e in circuit.into(r.target)) for r in circuit.rest}
    rows = [
        [
            short(r.target),
            signed(traced[r.target]),
            signed(r.strength + (r.error or 0.0)),
            signed(r.total),
            signed(r.bias),
            signed(r.remainder),
            signed(r.pre_activation),
        ]
        for r in circuit.rest
    ]
    counted = circuit.provenance.get("baseline") not in (None, "zero")
    biases = "+ biases, baseline" if counted else "+ biases"
    columns = ["contributions", "traced", "+ others", "= all", biases, "+ nonlinear", "= before its ReLU"]
    return table(columns, rows, right=" rrrrrr")


def scores(score: Score) -> Table:
    """Faithfulness and completeness beside the random circuits of the same size."""
    rows = []
    for name, value, percentile, chance in (
        ("faithfulness", score.faithfulness, score.faithfulness_percentile, score.control_faithfulness),
        ("completeness", score.completeness, score.completeness_percentile, score.control_completeness),
    ):
        ordered = sorted(chance)
        middle = ordered[len(ordered) // 2] if ordered else None
        rows.append([name, value, middle, max(ordered, default=None), f"above {percentile:.0f} %"])
    kind = "among the strongest" if score.strong_faithfulness else "of any units"
    return table(["score", "circuit", "random median", "random best", f"of random {kind}"], rows, right=" rrr")


def show_circuit(console: Console, circuit: Circuit) -> None:
    """Everything about a circuit."""
    console.print(tree(circuit, console.width))
    console.print()
    if circuit.by != "ablation" and circuit.rest:
        console.print(contribution_table(circuit))
        from circuits.plot.drawing.wording import sum_sentences

        for sentence in sum_sentences(circuit):
            console.print(Text(sentence, style="yellow" if sentence.startswith("Do not") else "dim"))
        console.print()
    if circuit.score is not None:
        show_score(console, circuit)


def show_offer(console: Console, circuit: Circuit, command: str) -> None:
    """The command that chooses better parents, where the score has shown that there are such."""
    from circuits.plot.drawing.wording import mask_offer

    if offer := mask_offer(circuit):
        console.print(Text(f"{offer}:", style="yellow"))
        console.print(Text(f"  {command}", style="bold"), soft_wrap=True)


def show_score(console: Console, circuit: Circuit) -> None:
    """The score of a circuit, and what each node is worth."""
    score = circuit.score
    if score is None:
        return
    console.print(scores(score))
    note = f"{score.n_images} images, {score.n_random} {score.control}, of the same size, seed {score.seed}"
    console.print(Text(note, style="dim"))
    if score.strong_faithfulness:
        medians = (
            f"{kind} {median(values):.3g}"
            for kind, values in (("any units", score.random_faithfulness), ("as active", score.matched_faithfulness))
        )
        console.print(Text(f"median faithfulness of other random circuits: {', '.join(medians)}", style="dim"))
    if score.ablated is not None:
        from circuits.plot.drawing.wording import ablated_sentence, comparison_sentence

        console.print(Text(ablated_sentence(score), style="dim" if score.ablated.in_range else "yellow"))
        if score.comparison is not None:
            console.print(Text(comparison_sentence(score)))
    if score.minimality:
        worth = sorted(score.minimality.items(), key=lambda item: -item[1])
        rows = [[short(unit), _label(circuit, unit), drop] for unit, drop in worth]
        console.print()
        console.print(table(["without it", "", "faithfulness falls by"], rows, right="  r"))


def _label(circuit: Circuit, unit: str) -> str:
    labels = {node.unit: node.label for node in circuit.nodes}
    return labels.get(unit) or ""
