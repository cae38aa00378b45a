"""Errors of dictionary learning; all are `CircuitsError`, whose message is meant for the user."""

from __future__ import annotations

from typing import Any

from zoo.errors import (
    CircuitsError as CircuitsError,
    FileError as FileError,
    did_you_mean as did_you_mean,
    shorten as shorten,
)


class SAEError(CircuitsError):
    """An SAE with invalid settings or an invalid use, or activations that it cannot encode."""


class TrainingError(SAEError):
    """A training that cannot start, continue, or be resumed.

    Attributes:
        runs: the SAEs trained until then, if there are any.
    """

    def __init__(self, message: str, runs: Any = ()) -> None:
        super().__init__(message)
        self.runs = runs


class FormatError(SAEError):
    """A file that is missing, damaged, or of another layout."""
