"""The parts of the unit page."""

from apps.explorer.panes.unit import (
    collect as collect,
    contributions as contributions,
    examples as examples,
    feature_visualization as feature_visualization,
    label_form as label_form,
    polysemanticity as polysemanticity,
    script as script,
    similar_units as similar_units,
    summary as summary,
    tuning as tuning,
    weights as weights,
)
