"""The gallery: all figures that a folder has, by paper, each with its claim, its numbers and the command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from apps.figures.figure import Figure
from apps.figures.papers import PAPERS
from apps.figures.runner import DOCUMENT, FigureOutcome, read_document
from circuits.plot.drawing import html_page
from zoo.common.files import write_text_atomically

INDEX = "index.html"
_VERDICTS = {"pass": "agrees", "fail": "differs", "skipped": "not compared"}


def write_gallery(folder: Path, figures: Sequence[Figure], outcomes: Sequence[FigureOutcome], title: str) -> Path:
    """Write `index.html` of a folder: of every figure what is there, of the others why not.

    Args:
        folder: that `make` wrote into.
        figures: all there are; those neither there nor asked for are left out.
        outcomes: of the last run.
        title: of the page.
    """
    by_id = {outcome.id: outcome for outcome in outcomes}
    papers = []
    for key, paper in PAPERS.items():
        cards = [
            (figure, document, by_id.get(figure.id))
            for figure in figures
            if figure.paper == key
            for document in [read_document(folder / figure.id)]
            if document is not None or figure.id in by_id
        ]
        if cards:
            papers.append((paper, cards))
    page = html_page.page(
        "gallery.html",
        package="apps.figures",
        beside=True,
        title=title,
        papers=papers,
        verdicts=_VERDICTS,
        numbers=DOCUMENT,
    )
    target = folder / INDEX
    write_text_atomically(target, page)
    return target
