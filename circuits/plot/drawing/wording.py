"""Kernels and circuits in plain words: which half of a kernel is heavier, and what a circuit comes to.

A weight that multiplies what lies above the target's position sits in the upper rows of the kernel, so
"heavier above" means: the source counts most when it is active above the target.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.tracing.circuit import Circuit, Edge, Node
from circuits.tracing.circuit_score import Score
from circuits.tracing.rankings.unit_scores import METHODS

HALF = 0.6  # a half is heavier from this share on: one and a half times the other
CENTER = 1.75  # the middle is heavier when it holds this many times its share of the area
MIXED = 0.25  # the opposite sign is worth naming from this share of all weight on


@dataclass(frozen=True)
class Halves:
    """Where the weight of a kernel lies; shares of the mass of one sign.

    Attributes:
        above, below: upper and lower half; a middle row counts half to each; they sum to one.
        left, right: likewise.
        center: share within the middle half of rows and columns, over that window's share of the area.
        mass: the sum of the sizes of the weights counted.
    """

    above: float
    below: float
    left: float
    right: float
    center: float
    mass: float


def halves(kernel: Any, sign: int = 1) -> Halves:
    """Shares of a kernel's weight of one sign in its halves.

    Args:
        kernel: weights `(kh, kw)`.
        sign: +1 counts what excites, -1 what inhibits.

    >>> halves([[3.0, 3.0], [1.0, 1.0]]).above
    0.75
    """
    mass = np.maximum(np.nan_to_num(np.atleast_2d(np.asarray(kernel, dtype=np.float64))) * sign, 0.0)
    total = float(mass.sum())
    if total <= 0:
        return Halves(0.5, 0.5, 0.5, 0.5, 1.0, 0.0)
    rows, columns = mass.sum(axis=1) / total, mass.sum(axis=0) / total
    above, left = float(_first_half(len(rows)) @ rows), float(_first_half(len(columns)) @ columns)
    middle_rows, middle_columns = _middle(len(rows)), _middle(len(columns))
    inside = float(middle_rows @ mass @ middle_columns) / total
    area = float(middle_rows.mean() * middle_columns.mean())
    return Halves(above, 1 - above, left, 1 - left, inside / area, total)


def _first_half(n: int) -> NDArray[np.float64]:
    """1 for cells of the first half, 0 for the second, 0.5 for the one in the middle."""
    return np.asarray(np.clip(n / 2 - np.arange(n), 0.0, 1.0))


def _middle(n: int) -> NDArray[np.float64]:
    """How much of each cell lies in the middle half of `n` cells."""
    start, stop = n / 4, 3 * n / 4
    cells = np.arange(n)
    return np.asarray(np.clip(np.minimum(cells + 1, stop) - np.maximum(cells, start), 0.0, 1.0))


def kernel_reading(kernel: Any, sign: int | None = None) -> str:
    """Where a kernel's weight lies, in words.

    Counts the weights of one sign: `sign`, or the sign of the kernel's sum. A half is "heavier" when it
    holds at least 60 % of them. Where no half is, the middle (half of the rows by half of the columns) is
    heavier when it holds at least 1.75 times what an even spread would give it.

    Args:
        kernel: weights `(kh, kw)`.
        sign: +1 or -1 to read what excites or what inhibits.

    Returns:
        "heavier above", "heavier below", "heavier left", "heavier right", two of them joined as in
        "heavier above left", "heavier in the center", "everywhere" (evenly spread), "same position" (a single
        weight), or "zero".

    >>> kernel_reading([[2.0, 2.0, 2.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    'heavier above'
    """
    values = np.nan_to_num(np.atleast_2d(np.asarray(kernel, dtype=np.float64)))
    if not np.any(values):
        return "zero"
    if values.size == 1:
        return "same position"
    chosen = sign if sign is not None else (1 if values.sum() >= 0 else -1)
    shares = halves(values, chosen)
    if shares.mass == 0:
        return "zero"
    sides = []
    if max(shares.above, shares.below) >= HALF - 1e-9:
        sides.append("above" if shares.above > shares.below else "below")
    if max(shares.left, shares.right) >= HALF - 1e-9:
        sides.append("left" if shares.left > shares.right else "right")
    if sides:
        return "heavier " + " ".join(sides)
    return "heavier in the center" if shares.center >= CENTER else "everywhere"


_POSITIONS = {
    "same position": "at the same position",
    "heavier in the center": "in the center",
    "everywhere": "everywhere",
}


def position_phrase(reading: str) -> str:
    """A reading as the end of a sentence: "heavier above left" -> "from above left"."""
    side = reading.removeprefix("heavier ")
    return _POSITIONS.get(reading) or (f"from the {side}" if side in ("left", "right") else f"from {side}")


def kernel_effect(kernel: Any, sign: int | None = None, *, low: bool = False) -> str:
    """What a kernel does, as in "excites from above, inhibits from below".

    The leading sign comes first; the other is named when it holds at least a quarter of all weight. A source that
    excites though all of its weights inhibit does so by its low activations: negative ones, as in a residual stream, or
    ones below the baseline.

    Args:
        kernel: weights `(kh, kw)`.
        sign: +1 or -1, the sign of what the source contributes; None for that of the kernel's sum.
        low: whether it contributes where it is below the baseline, as an `Edge` knows.

    >>> kernel_effect([[-0.5]], sign=1)
    'excites where it is low, at the same position'
    """
    values = np.nan_to_num(np.atleast_2d(np.asarray(kernel, dtype=np.float64)))
    total = float(np.abs(values).sum())
    if total == 0:
        return "no weight"
    lead = sign if sign is not None else (1 if values.sum() >= 0 else -1)
    verbs = {1: "excites", -1: "inhibits"}
    parts = []
    for s in (lead, -lead):
        mass = halves(values, s).mass
        if mass > 0 and (s == lead or mass >= MIXED * total):
            parts.append(f"{verbs[s]} {position_phrase(kernel_reading(values, s))}")
    if _by_low(values, lead, low):
        return f"{verbs[lead]} where it is low, {position_phrase(kernel_reading(values, -lead))}"
    return ", ".join(parts)


def edge_effect(edge: Edge) -> str:
    """`kernel_effect` of an edge of a circuit; of one that is summed over positions its sign alone."""
    if edge.stride == (0, 0) and edge.kernel.shape == (1, 1):
        return "excites" if edge.sign > 0 else "inhibits"
    return kernel_effect(edge.kernel, edge.sign, low=edge.low)


def _by_low(kernel: Any, sign: int, low: bool) -> bool:
    """Whether a source of this sign acts by its low activations: it has no other way, or is known to (`Edge.low`)."""
    return halves(kernel, sign).mass == 0 or (low and halves(kernel, -sign).mass > 0)


def minus(text: str) -> str:
    """Numbers with a real minus for their hyphen."""
    return text.replace("-", "\N{MINUS SIGN}")


def number(value: float) -> str:
    """A signed number as figures show it: two significant digits, whole from ten on."""
    return minus(f"{value:+.0f}" if 9.95 <= abs(value) < 1e5 else f"{value:+.2g}")


def amount(value: float) -> str:
    """A value as figures show it: three digits, or whole where it is large; "no number" where it is not finite."""
    if not math.isfinite(value):
        return "no number"
    return minus(f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}")


def decimals(values: Iterable[float]) -> int:
    """Decimals to write a column with, so that its largest number has four digits and all add up to the eye."""
    largest = max((abs(v) for v in values), default=0.0)
    return min(6, max(1, 3 - math.floor(math.log10(largest)))) if largest > 0 else 3


def short(unit: str) -> str:
    """An address without the model's name."""
    return unit.rpartition("/")[2]


def titled(unit: str, label: str | None) -> str:
    """A label and an address without the model's name, or the address alone."""
    return f"{label} ({short(unit)})" if label else short(unit)


def name_of(node: Node) -> str:
    """A node's label and address, or its address alone."""
    return titled(node.unit, node.label)


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def counted(n: int, noun: str) -> str:
    """`1 unit`, `2,000 units`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def circuit_reading(circuit: Circuit) -> str:
    """One paragraph on a circuit: who excites and inhibits its target and from where, and how much of it that is."""
    edges = circuit.into(circuit.target)
    target = name_of(circuit.node(circuit.target))
    if not edges:
        return f"No sources of {target} are shown."
    plus, minus = [e for e in edges if e.sign > 0], [e for e in edges if e.sign < 0]
    source_layers = sorted({circuit.node(e.source).layer for e in edges})
    counts = []
    if plus:
        counts.append(f"{counted(len(plus), 'unit')} that {'excites' if len(plus) == 1 else 'excite'} it")
    if minus:
        counts.append(f"{counted(len(minus), 'unit')} that {'inhibits' if len(minus) == 1 else 'inhibit'} it")
    sentences = [f"{target} is shown with {_listed(counts)}, from {_listed(source_layers)}."]
    sentences += _by_position(circuit, plus, "Excited") + _by_position(circuit, minus, "Inhibited")
    sentences += _share(circuit) + sum_sentences(circuit) + _scores(circuit)
    return " ".join(sentences)


def _by_position(circuit: Circuit, edges: list[Edge], verb: str) -> list[str]:
    groups: dict[str, list[str]] = {}
    for edge in edges:
        position = position_phrase(kernel_reading(edge.kernel, edge.sign))
        if _by_low(edge.kernel, edge.sign, edge.low):
            position = f"{position_phrase(kernel_reading(edge.kernel, -edge.sign))}, where it is low,"
        groups.setdefault(position, []).append(name_of(circuit.node(edge.source)))
    if not groups:
        return []
    return [f"{verb} " + "; ".join(f"{position} by {_listed(names)}" for position, names in groups.items()) + "."]


def _share(circuit: Circuit) -> list[str]:
    for rest in circuit.rest:
        if rest.target == circuit.target and rest.count > 0:
            listed, others = number(rest.total - rest.strength), number(rest.strength)
            average = COUNTED_FROM.get(str(circuit.provenance.get("baseline")), "On average")
            return [f"{average} the units shown add {listed} to its input, the others {others}."]
    return []


COUNTED_FROM = {
    "mean": "Counted from each unit's mean,",
    "resample": "Counted from each unit's activations on another image,",
    "counterfactual": "Counted from each unit's activations on the counterfactual image,",
}
"""Baseline of a circuit -> how a sentence on its contributions begins."""
MOSTLY = 0.5  # a remainder of this share of the response leaves contributions that explain less than half of it


def sum_sentences(circuit: Circuit) -> list[str]:
    """What the sums behind a circuit are worth: a warning where most of a response is not linear.

    By weights, of its contributions; by a ranking, whose contributions are those of the network itself, of its kernels.
    Of a trace through bottlenecks both readings: with them as units, and with their ReLUs passed.
    """
    if circuit.by != "weights":
        return _ranked_warnings(circuit)
    sentences = []
    bent = [rest for rest in circuit.rest if rest.nonlinear >= MOSTLY]
    if bent:
        first = next((rest for rest in bent if rest.target == circuit.target), bent[0])
        others = f" The same holds of {counted(len(bent) - 1, 'other unit')}." if len(bent) > 1 else ""
        sentences.append(
            f"Do not interpret the contributions to {short(first.target)}: what ReLUs and maxima in between change is "
            f"{number(first.remainder)} of its {number(first.pre_activation)}. Trace it through its bottlenecks "
            f"(through_bottlenecks=True, --through-bottlenecks), or choose parents by='gradient'.{others}"
        )
    for rest in circuit.rest:
        if rest.target == circuit.target and rest.folded is not None:
            sentences.append(
                f"Traced through its bottlenecks, the contributions and biases of {short(rest.target)} add up to its "
                f"{number(rest.pre_activation)} but for {number(rest.remainder)}; with the bottlenecks passed as if "
                f"they were linear, units of {_trunk_source(circuit)} would contribute {number(rest.folded.total)} and "
                f"{number(rest.folded.remainder)} would be left unexplained."
            )
    return sentences


def _ranked_warnings(circuit: Circuit) -> list[str]:
    bent = [rest for rest in circuit.rest if rest.folded is not None and (rest.folded_nonlinear or 0.0) >= MOSTLY]
    coarse = [rest for rest in circuit.rest if circuit.by in METHODS and rest.nonlinear >= MOSTLY]
    sentences = []
    for rests in (bent, coarse):
        if not rests:
            continue
        first = next((rest for rest in rests if rest.target == circuit.target), rests[0])
        others = f" The same holds of {counted(len(rests) - 1, 'other unit')}." if len(rests) > 1 else ""
        if rests is bent and first.folded is not None:
            text = (
                f"Do not interpret the kernels into {short(first.target)}: they pass ReLUs and maxima in between, "
                f"which change {number(first.folded.remainder)} of its {number(first.pre_activation)}. The "
                "contributions are not affected. Kernels that are exact: through its bottlenecks "
                "(through_bottlenecks=True, --through-bottlenecks)."
            )
        else:
            text = (
                f"Do not interpret the contributions to {short(first.target)}: what is not linear on the way from the "
                f"baseline leaves {number(first.remainder)} of its {number(first.pre_activation)}."
            )
        sentences.append(text + others)
    return sentences


def _trunk_source(circuit: Circuit) -> str:
    trunk = circuit.provenance.get("trunk")
    return str(trunk[1]) if isinstance(trunk, list | tuple) and len(trunk) > 1 else "the layer before"


def _scores(circuit: Circuit) -> list[str]:
    score = circuit.score
    if score is None:
        return ["It has not been scored against random circuits."]
    share = minus(f"{score.faithfulness:.2f}")
    text = (
        f"With every other unit of the source layers {held_at(score.baseline)}, the circuit retains {share} "
        f"of the target's response (explained variance, {counted(score.n_images, 'image')})"
    )
    if score.n_random:
        chance = median(score.control_faithfulness)
        count = f"{score.n_random} {score.control}" if score.n_random > 1 else "one of the " + score.control
        text += f"; the median of {count}, of its size, retains {minus(f'{chance:.2f}')}"
    offer = mask_offer(circuit)
    offer += ": trace it with by='mask' (--by mask)." if offer else ""
    further = (ablated_sentence(score), comparison_sentence(score), offer)
    return [text + ".", *(sentence for sentence in further if sentence)]


ENOUGH = 0.9
"""Share of what a learned mask of its size keeps: below it another way of choosing parents is worth its time."""


def mask_offer(circuit: Circuit) -> str:
    """That a learned mask chooses better parents, where its score has shown it; else empty."""
    p = None if circuit.score is None else circuit.score.comparison
    if p is None or circuit.by == "mask" or p.of_mask is None or p.of_mask >= ENOUGH:
        return ""
    return f"By a learned mask as many units keep {minus(f'{p.mask:.2f}')} instead of {minus(f'{p.share:.2f}')}"


def held_at(baseline: str) -> str:
    """What becomes of an ablated unit, as in "every other unit is held at its mean"."""
    phrases = {
        "mean": "held at its mean",
        "zero": "set to zero",
        "counterfactual": "set to its activations on the counterfactual image",
        "resample": "set to its activations on another image",
    }
    return phrases.get(baseline, f"set to the baseline {baseline}")


def ablated_sentence(score: Score) -> str:
    """The target's response with every source unit ablated beside the clean one, and whether that is a usual response.

    Empty where the score does not hold it (files of earlier versions).
    """
    r = score.ablated
    if r is None:
        return ""
    text = (
        f"With every source unit {held_at(score.baseline)}, the target responds {number(r.mean)} on average "
        f"({number(r.low)} to {number(r.high)}; clean {number(r.clean_mean)}, {number(r.clean_low)} to "
        f"{number(r.clean_high)})"
    )
    if not r.in_range:
        return text + ": outside its clean range, so that these scores do not compare states that the network takes."
    return text + "."


def comparison_sentence(score: Score) -> str:
    """The circuit beside the first units by gradient, and beside a learned mask of its size; empty without these."""
    p = score.comparison
    if p is None:
        return ""

    def share_text(share: float, low: float | None = None, high: float | None = None) -> str:
        return minus(f"{share:.2f}" if low is None else f"{share:.2f} ({low:.2f} to {high:.2f})")

    of_mask = "" if p.of_mask is None or p.share <= 0 else f": {100 * p.of_mask:.0f} % of the mask's share"
    enough = (
        f"the first {p.ranked_size} keep as much" if p.ranked_size is not None else "no number of them keeps as much"
    )
    return (
        f"Of what full ablation takes away, its {p.size} of {p.n_units} units keep "
        f"{share_text(p.share, p.low, p.high)}, a mask learned for {p.size} units keeps "
        f"{share_text(p.mask, p.mask_low, p.mask_high)}{of_mask}. The first {p.size} by gradient keep "
        f"{share_text(p.ranked)}; {enough} ({p.n_images} images; mask and gradients of {p.n_learned} others)."
    )
