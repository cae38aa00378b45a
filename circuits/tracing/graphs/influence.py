"""How much of a target goes through each node of a graph, as circuit-tracer scores its graphs.

With |A| the sizes of the edges, each row divided by its sum, so that a node's sources share it, and e the target:

    influence        = e |A| + e |A|^2 + ...
    replacement      = influence of the input / (influence of the input + influence of the errors)
    completeness     = sum_n (e + influence)_n (1 - share of errors among the sources of n) / sum_n (e + influence)_n

The replacement score is what reaches the input through units alone; completeness gives credit for each step (Ameisen et
al., Circuit Tracing, 2025; `compute_graph_scores` of github.com/decoderesearch/circuit-tracer). Biases are no sources.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """What share of a node's sources, by size, each is: `(n, n)`, a row for each node; zero where there are none."""
    sizes = np.abs(weights)
    normalized: NDArray[np.float64] = sizes / np.maximum(sizes.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return normalized


def influence(weights: NDArray[np.float64], target: int) -> NDArray[np.float64]:
    """Influence `(n,)` of each node on the target; of the target itself, 0.

    Args:
        weights: of edges, `(n, n)`, a row for each node and a column for each source; without circles.
        target: its number.
    """
    normalized = shares(weights)
    step = normalized[target]
    total = np.zeros(len(weights))
    while step.any():
        total += step
        step = step @ normalized
    return total


def graph_scores(
    weights: NDArray[np.float64], target: int, *, inputs: NDArray[np.bool_], errors: NDArray[np.bool_]
) -> tuple[float, float]:
    """Replacement and completeness, each from 0 to 1; NaN of the first where nothing comes from input or errors.

    Args:
        weights: of edges; target: its number.
        inputs, errors: which nodes are of the image, and which are errors, `(n,)`.
    """
    through = influence(weights, target)
    into = through.copy()
    into[target] += 1.0
    ends = through[inputs].sum() + through[errors].sum()
    replacement = through[inputs].sum() / ends if ends else float("nan")
    not_errors = 1 - shares(weights)[:, errors].sum(axis=1)
    return float(replacement), float((not_errors * into).sum() / into.sum())
