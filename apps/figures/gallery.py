"""The gallery: all figures that a folder has, by paper, each with its claim, its numbers and the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from apps.figures.figure import Figure
from apps.figures.papers import PAPERS
from apps.figures.runner import DOCUMENT, FigureOutcome, read_document
from circuits.plot.drawing import html_page
from circuits.plot.drawing.svg import escape
from zoo.common.files import write_text_atomically

INDEX = "index.html"
_VERDICTS = {"pass": "agrees", "fail": "differs", "skipped": "not compared"}


def write_gallery(folder: Path, figures: Sequence[Figure], made: Sequence[FigureOutcome], title: str) -> Path:
    """Write `index.html` of a folder: of every figure what is there, of the others why not.

    Args:
        folder: that `make` wrote into.
        figures: all there are; those neither there nor asked for are left out.
        made: what came of the last run.
        title: of the page.
    """
    fates = {one.id: one for one in made}
    parts, contents = [], []
    for key, paper in PAPERS.items():
        cards = []
        for one in figures:
            if one.paper != key:
                continue
            document = read_document(folder / one.id)
            if document is not None:
                cards.append(_card(one, document, folder / one.id))
            elif one.id in fates:
                cards.append(_without(one, fates[one.id]))
            else:
                continue
            contents.append(f'<li><a href="#{escape(one.id)}">{escape(one.id)}</a> {escape(one.title)}</li>')
        if cards:
            parts.append(
                f'<section class="paper"><h2>{escape(paper.title)}</h2><p class="note">{escape(paper.authors)}, '
                f'{paper.year}. <a href="{escape(paper.url)}">{escape(paper.url)}</a></p>{"".join(cards)}</section>'
            )
    lead = "Each figure says what the paper's figure shows, what came out here, and how to make it again."
    listed = f'<ul class="contents">{"".join(contents)}</ul>'
    body = f'<header><h1>{escape(title)}</h1><p class="lead">{lead}</p>{listed}</header>'
    css = resources.files("apps.figures").joinpath("gallery.css").read_text(encoding="utf-8")
    target = folder / INDEX
    write_text_atomically(target, html_page.page(title, body + "".join(parts), css, beside=True))
    return target


def _card(one: Figure, document: Mapping[str, Any], folder: Path) -> str:
    here = escape(folder.name)
    pictures = "".join(
        f'<a href="{here}/{escape(name)}"><img loading="lazy" alt="{escape(document["caption"])}" '
        f'src="{here}/{escape(name)}"></a>'
        for name in document["pictures"]
    )
    files = " &middot; ".join(
        f'<a href="{here}/{escape(name.removesuffix(".png"))}.svg">{escape(name.removesuffix(".png"))}.svg</a>'
        for name in document["pictures"]
    )
    parts = [
        _head(one),
        pictures,
        f"<p>{escape(document['caption'])}</p>",
        _claims(document["claims"]),
        _published(document),
        f'<p class="note">{files} &middot; <a href="{here}/{DOCUMENT}">numbers</a>, {document["seconds"]:.0f} s</p>',
    ]
    if document["command"]:
        command = f"circuits figures make {one.id} --out figures {document['command']}".strip()
        parts.append(f'<div class="copyable"><pre><code>{escape(command)}</code></pre></div>')
    return f'<article class="figure-card" id="{escape(one.id)}">{"".join(parts)}</article>'


def _without(one: Figure, fate: FigureOutcome) -> str:
    verb = "Not made" if fate.status == "missing" else "Failed"
    return (
        f'<article class="figure-card" id="{escape(one.id)}">{_head(one)}'
        f'<p class="missing">{verb}: {escape(fate.why)}</p></article>'
    )


def _head(one: Figure) -> str:
    ids = escape(", ".join((one.id, *one.also)))
    return f'<h3>{escape(one.title)}<span class="address">{ids}</span></h3><p class="muted">{escape(one.shows)}</p>'


def _claims(claims: Sequence[Mapping[str, Any]]) -> str:
    if not claims:
        return ""
    rows = "".join(
        f'<tr><td>{escape(c["what"])}</td><td class="number">{c["value"]:.3g}</td>'
        f'<td class="number">{c["control"]:.3g}</td><td>{escape(c["versus"])}</td>'
        f'<td class="{"yes" if c["holds"] else "no"}">{"holds" if c["holds"] else "does not hold here"}</td></tr>'
        for c in claims
    )
    return (
        '<table><tr><th scope="col">claim</th><th scope="col">here</th><th scope="col">control</th>'
        f'<th scope="col">which is</th><th scope="col"></th></tr>{rows}</table>'
    )


def _published(document: Mapping[str, Any]) -> str:
    if not document["has_published"]:
        return ""
    if not document["published"]:
        return (
            '<p class="note">There are published numbers for this figure. They are those of the network inceptionv1 '
            "and say nothing of another: make the figure with --model inceptionv1, whose weights (inception5h.pth) "
            "belong into $CIRCUITS_WEIGHTS, to see them compared.</p>"
        )
    rows = "".join(
        f"<tr><td>{escape(c['what'])}</td><td>{escape(c['expected'])}</td><td>{escape(c['ours'])}</td>"
        f'<td class="{"no" if c["verdict"] == "fail" else "yes"}">{_VERDICTS.get(c["verdict"], c["verdict"])}</td></tr>'
        for c in document["published"]
    )
    return (
        '<table><tr><th scope="col">published</th><th scope="col">theirs</th><th scope="col">ours</th>'
        f'<th scope="col"></th></tr>{rows}</table>'
    )
