"""The parts of the unit page."""

from apps.explorer.panes.unit import (
    contributions,
    examples,
    feature_visualization,
    label_form,
    polysemanticity,
    similar_units,
    tuning,
    weights,
)

__all__ = [
    "contributions",
    "examples",
    "feature_visualization",
    "label_form",
    "polysemanticity",
    "similar_units",
    "tuning",
    "weights",
]
