"""Elements of the pages. What they show travels as data, and is put there as text: never as markup."""

from __future__ import annotations

from functools import cache
from pathlib import Path

ASSETS = Path(__file__).parent.parent / "assets"


@cache
def asset(name: str) -> str:
    """A style sheet or script of the explorer."""
    return (ASSETS / name).read_text(encoding="utf-8")
