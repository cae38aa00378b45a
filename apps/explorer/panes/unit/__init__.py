"""The parts of the unit page."""

from apps.explorer.panes.unit import (
    charts,
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
    "charts",
    "contributions",
    "examples",
    "feature_visualization",
    "label_form",
    "polysemanticity",
    "similar_units",
    "tuning",
    "weights",
]
