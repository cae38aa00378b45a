"""The error of feature visualization."""

from __future__ import annotations

from circuits.errors import CircuitsError

__all__ = ["VisualizationError"]


class VisualizationError(CircuitsError):
    """A picture, a transform or an objective that cannot be made as asked."""
