"""Errors of dictionary learning; all are `CircuitsError`, whose message is meant for the user."""

from __future__ import annotations

from typing import Any

from zoo.errors import CircuitsError, FileError, did_you_mean, shorten

__all__ = ["CircuitsError", "FileError", "FormatError", "SAEError", "TrainingError", "did_you_mean", "shorten"]


class SAEError(CircuitsError):
    """A dictionary that cannot be built or used as asked, or activations it cannot take."""


class TrainingError(SAEError):
    """A training that cannot start, go on, or be resumed.

    Attributes:
        runs: what was trained until then, where anything was.
    """

    def __init__(self, message: str, runs: Any = ()) -> None:
        super().__init__(message)
        self.runs = runs


class FormatError(SAEError):
    """A file that is missing, damaged, or of another layout."""
