"""Errors whose message tells the user what was wrong, what exists and what to do."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable


class CircuitsError(Exception):
    """Base of every error this project raises on bad input.

    The message is one or two plain lines; the command line prints it and exits with code 2.
    """


class ModelError(CircuitsError):
    """An unknown model, or one that cannot be built or used."""


class WeightsError(CircuitsError):
    """Weights that are missing, damaged, or not the ones the card names."""


class FileError(CircuitsError):
    """A file that cannot be written: no room, no right, no folder."""


class ImageError(CircuitsError):
    """Images that are missing, unreadable, or of the wrong kind."""


def shorten(text: object, limit: int = 80) -> str:
    """`text` as one printable line of at most `limit` characters (hostile strings stay short)."""
    line = "".join(c if c.isprintable() else "?" for c in str(text)[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """The `n` known names closest to `name`, best first."""
    by_lower = {k.lower(): k for k in known}
    lowered = name[:200].lower()
    close = difflib.get_close_matches(lowered, list(by_lower), n=n, cutoff=0.4)
    return [by_lower[c] for c in close]


def in_shell(*words: object) -> str:
    """A command as a shell takes it: words with spaces in quotes.

    >>> in_shell("circuits", "find", "scenes~parts", "--positive", "my photos")
    "circuits find scenes~parts --positive 'my photos'"
    """
    plain = re.compile(r"[\w@%+=:,./-][\w@%+=:,./~-]*")
    return " ".join(word if plain.fullmatch(word) else shlex.quote(word) for word in map(str, words))


def did_you_mean(name: str, known: Iterable[str], n: int = 3) -> str:
    """A clause naming the nearest known names, or the empty string when none is near."""
    close = nearest(name, known, n)
    return f" Nearest: {', '.join(close)}." if close else ""
