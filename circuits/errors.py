"""Errors of the analysis package; all are `CircuitsError`, whose message is meant for the user."""

from __future__ import annotations

from zoo.errors import (
    CircuitsError,
    ImageError,
    ModelError,
    WeightsError,
    did_you_mean,
    nearest,
    shorten,
)

__all__ = [
    "AddressError",
    "CaptureError",
    "CircuitsError",
    "EditError",
    "GraphError",
    "ImageError",
    "ModelError",
    "VisualizationError",
    "WeightsError",
    "did_you_mean",
    "nearest",
    "shorten",
]


class AddressError(CircuitsError):
    """An address that cannot be read, or that names a layer or unit the model does not have."""


class CaptureError(CircuitsError):
    """A capture that saw nothing, saw more calls than were asked for, or saw something that is no tensor."""


class EditError(CircuitsError):
    """An edit that cannot be applied as asked."""


class GraphError(CircuitsError):
    """A question about the path between two layers that this model's graph cannot answer."""


class VisualizationError(CircuitsError):
    """A picture, a transform or an objective that cannot be made as asked."""
