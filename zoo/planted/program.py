"""Programs of gates over marks in an image: what a planted network computes, and the images that it computes it from.

An image of 12 x 12 pixels has each of four marks, patterns of 3 x 3 pixels, or has it not. The program's first
variables are the marks; two layers of gates follow, each of one or two variables of the layer before; and two outputs,
each on where any of its gates is. Programs are drawn at random until every connection of the first output matters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SIZE, MARKS, GATES = 12, 4, (4, 3)
"""Pixels on a side, marks, and gates in each of the two layers."""
PRESENT = 0.65
"""Probability of each mark in an image."""
OUTPUTS = 2
_CELL, _PATCH = 4, 3
_NOISE = 0.05
_MATTERS = 0.04
"""Every connection of its circuit changes the first output in at least this share of images."""

Kind = Literal["copy", "and", "and not"]
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Gate:
    """A variable that is computed from one or two of the layer before: `a`, `a and b`, or `a and not b`."""

    kind: Kind
    parents: tuple[int, ...]

    def value(self, inputs: Sequence[Bits]) -> Bits:
        """Its value for those of its parents, `(N,)` each."""
        if self.kind == "copy":
            return inputs[0]
        return inputs[0] & (inputs[1] if self.kind == "and" else ~inputs[1])


@dataclass(frozen=True)
class Program:
    """Gates over marks.

    Attributes:
        patterns: of the marks, `(MARKS, 3, 3, 3)` in {0, 1}.
        layers: the gates of each layer after the marks.
        outputs: for each output the gates of the last layer, any of which turns it on.
    """

    patterns: npt.NDArray[np.float32]
    layers: tuple[tuple[Gate, ...], ...]
    outputs: tuple[tuple[int, ...], ...]

    @cached_property
    def connections(self) -> list[list[tuple[int, int]]]:
        """For each step (child, parent): marks to gates, gates to gates, gates to outputs."""
        steps = [[(c, p) for c, gate in enumerate(gates) for p in gate.parents] for gates in self.layers]
        return [*steps, [(c, p) for c, gates in enumerate(self.outputs) for p in gates]]

    @cached_property
    def circuit(self) -> list[list[tuple[int, int]]]:
        """The connections that lead to the first output."""
        needed, steps = {0}, []
        for step in reversed(self.connections):
            used = [(c, p) for c, p in step if c in needed]
            steps.append(used)
            needed = {p for _, p in used}
        return steps[::-1]

    def run(self, marks: Bits, other: Bits | None = None, swapped: Sequence[set[tuple[int, int]]] = ()) -> Bits:
        """Outputs `(N, OUTPUTS)` for marks `(N, MARKS)`.

        Args:
            marks: which marks each image has.
            other: marks of other images.
            swapped: for each step the connections that carry what the parent is for the other image.
        """
        values = [marks[:, i] for i in range(MARKS)]
        others = [] if other is None else self._all(other)

        def inputs(step: int, child: int, parents: tuple[int, ...]) -> list[Bits]:
            carried = swapped[step] if others else set()
            return [others[step][p] if (child, p) in carried else values[p] for p in parents]

        for step, gates in enumerate(self.layers):
            values = [gate.value(inputs(step, c, gate.parents)) for c, gate in enumerate(gates)]
        last = len(self.layers)
        on = [np.logical_or.reduce(inputs(last, c, parents)) for c, parents in enumerate(self.outputs)]
        return np.stack(on, axis=1)

    def _all(self, marks: Bits) -> list[list[Bits]]:
        values = [[marks[:, i] for i in range(MARKS)]]
        for gates in self.layers:
            values.append([gate.value([values[-1][p] for p in gate.parents]) for gate in gates])
        return values

    def draw(self, n: int, seed: int) -> tuple[Tensor, Bits]:
        """Images `(n, 3, SIZE, SIZE)` in [0, 1], and which marks each has `(n, MARKS)`."""
        rng = np.random.default_rng([seed, 1])
        marks = rng.random((n, MARKS)) < PRESENT
        images = rng.random((n, 3, SIZE, SIZE), dtype=np.float32) * np.float32(_NOISE)
        side = SIZE // _CELL
        cells = rng.random((n, side * side)).argsort(axis=1)[:, :MARKS]  # each mark in a cell of its own
        shift = rng.integers(0, _CELL - _PATCH + 1, (n, MARKS, 2))
        rows = np.arange(n)
        for m in range(MARKS):
            y, x = cells[:, m] // side * _CELL + shift[:, m, 0], cells[:, m] % side * _CELL + shift[:, m, 1]
            for i in range(_PATCH):
                for j in range(_PATCH):
                    images[rows, :, y + i, x + j] += marks[:, m, None] * self.patterns[m, :, i, j]
        return torch.from_numpy(np.clip(images, 0, 1)), marks


def program(seed: int) -> Program:
    """A program in which every connection of the first output's circuit matters."""
    rng = np.random.default_rng([seed, 0])
    while True:
        drawn = _drawn(rng)
        if _matters(drawn, rng):
            return drawn


def _drawn(rng: np.random.Generator) -> Program:
    patterns = np.zeros((MARKS, 27), dtype=np.float32)
    for pattern in patterns:
        pattern[rng.choice(27, 13, replace=False)] = 1.0
    layers, width = [], MARKS
    for count in GATES:
        gates = []
        for _ in range(count):
            kinds: tuple[Kind, ...] = ("copy", "and", "and not")
            kind = kinds[int(rng.choice(3, p=(0.2, 0.4, 0.4)))]
            parents = rng.choice(width, 1 if kind == "copy" else 2, replace=False)
            gates.append(Gate(kind, tuple(int(p) for p in parents)))
        layers.append(tuple(gates))
        width = count
    outputs = tuple(
        tuple(sorted(int(g) for g in rng.choice(width, int(rng.integers(1, 3)), replace=False))) for _ in range(OUTPUTS)
    )
    return Program(patterns.reshape(MARKS, 3, 3, 3), tuple(layers), outputs)


def _matters(drawn: Program, rng: np.random.Generator) -> bool:
    marks, other = (rng.random((1000, MARKS)) < PRESENT for _ in range(2))
    nothing: list[set[tuple[int, int]]] = [set() for _ in drawn.connections]
    clean = drawn.run(marks)

    def changes(step: int, connection: tuple[int, int], outputs: Callable[[Bits], Bits]) -> bool:
        swapped = [{connection} if i == step else set() for i in range(len(nothing))]
        return float(outputs(drawn.run(marks, other, swapped) != clean).mean()) >= _MATTERS

    in_circuit = sum(len(step) for step in drawn.circuit)
    if not 6 <= in_circuit < sum(len(step) for step in drawn.connections):
        return False  # too small to be a circuit, or nothing beside it
    return all(changes(i, c, lambda moved: moved[:, 0]) for i, step in enumerate(drawn.circuit) for c in step)
