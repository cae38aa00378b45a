"""Errors of the analysis package; all are `CircuitsError`, whose message is meant for the user."""

from __future__ import annotations

from zoo.errors import (
    CircuitsError as CircuitsError,
    ImageError as ImageError,
    ModelError as ModelError,
    WeightsError as WeightsError,
    did_you_mean as did_you_mean,
    in_shell as in_shell,
    nearest as nearest,
    shorten as shorten,
)


class AddressError(CircuitsError):
    """An address that cannot be read, or that names a layer or unit the model does not have."""


class CaptureError(CircuitsError):
    """A capture of a layer that did not run, ran more often than expected, or gave no tensor."""


class ConstantError(CircuitsError):
    """A response that is the same on all images, where its variation was to be explained."""


class EditError(CircuitsError):
    """An edit that cannot be applied."""


class GraphError(CircuitsError):
    """A question about the path between two layers that this model's graph cannot answer."""


class VisualizationError(CircuitsError):
    """An image, a transform or an objective that cannot be made."""
