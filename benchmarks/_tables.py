"""Tables in Markdown, printed row by row."""

from __future__ import annotations


def header(*names: str) -> None:
    """The head of a table."""
    row(*names)
    print("|" + "---|" * len(names))


def row(*cells: object) -> None:
    """A row of a table."""
    first = str(cells[0])
    print(
        ("\n" if first.startswith("\n") else "") + "| " + " | ".join(str(c).strip() for c in cells) + " |", flush=True
    )
