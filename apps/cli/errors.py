"""The command line's own error. It stands alone, so that catching it costs no import."""

from __future__ import annotations


class UsageError(Exception):
    """A command line that cannot be read, or options that do not go together; the message is one line for the user."""
