"""The parts of the unit page."""

from apps.explorer.panes.unit import (
    charts,
    contribution_sum,
    examples,
    examples_wall,
    label_form,
    polysemanticity,
    similar_units,
    tuning,
    weights,
)

__all__ = [
    "charts",
    "contribution_sum",
    "examples",
    "examples_wall",
    "label_form",
    "polysemanticity",
    "similar_units",
    "tuning",
    "weights",
]
