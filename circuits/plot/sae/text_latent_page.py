"""A page of latents of a language model: passages with the token meant, and what each makes the model say.

It takes what `sae.language.text_features` returns, or anything with the same attributes: nothing of `sae` is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from circuits.plot.drawing import html_page
from circuits.plot.drawing.svg import escape
from circuits.plot.drawing.wording import minus, number, short


def texts_page(
    features: Sequence[Any],
    *,
    title: str,
    facts: Sequence[tuple[str, Any]],
    provenance: Mapping[str, Any],
    command: str,
    python: str,
) -> str:
    """Latents of a language model as one HTML page, in which nothing is fetched.

    Args:
        features: of `sae.language.text_features`.
        title: the site and the dictionary.
        facts: named numbers for the head of the page.
        provenance: where it came from.
        command, python: what makes the page again.
    """
    body = "".join(
        [
            '<p class="eyebrow">Latents of a language model</p>',
            f'<h1><span class="address">{escape(title)}</span></h1>',
            html_page.facts(facts),
            '<p class="note">The token meant is outlined; the darker a token, the stronger the latent is on it.</p>',
            *[_latent(feature) for feature in features],
            html_page.again(command, python),
            html_page.origins(provenance),
        ]
    )
    return html_page.page(title, body, html_page.style("dossier.css") + html_page.style("texts.css"))


def _latent(feature: Any) -> str:
    numbers = (
        f"{100 * feature.density:.3g} % of tokens, strongest {number(feature.maximum)}, "
        f"mean where it fires {number(feature.mean)}"
    )
    if not feature.tokens:
        return f'<section class="latent"><h2>{_name(feature)}</h2><p class="note">never fires</p></section>'
    bands = "".join(
        f"<h4>{number(band.low)} to {number(band.high)}, drawn by lot</h4>{_passages(band.passages, feature.maximum)}"
        for band in reversed(feature.bands)
    )
    side = _bars(feature) + _words("makes it say", feature.promoted, "plus")
    side += _words("keeps it from saying", feature.suppressed, "minus") + _near(feature.shares_with)
    return (
        f'<section class="latent"><h2>{_name(feature)}</h2><p class="note">{escape(numbers)}</p><div class="two"><div>'
        f"{_passages(feature.top, feature.maximum)}"
        f"<details><summary>from strong to weak</summary>{bands}</details></div><div>{side}</div></div></section>"
    )


def _name(feature: Any) -> str:
    return f'<span class="address">{escape(short(feature.unit))}</span>'


def _passages(passages: Sequence[Any], maximum: float) -> str:
    rows = []
    for passage in passages:
        words = "".join(
            _word(word, value / maximum if maximum else 0.0, i == passage.at)
            for i, (word, value) in enumerate(zip(passage.words, passage.values, strict=True))
        )
        rows.append(f'<li><span class="value">{number(passage.value)}</span><span>{words}</span></li>')
    return f'<ul class="passages">{"".join(rows)}</ul>'


def _word(word: str, strength: float, meant: bool) -> str:
    text = escape(word)
    if strength <= 0 and not meant:
        return text
    kind = ' class="meant"' if meant else ""
    return f'<mark{kind} style="--a:{min(1.0, strength):.2f}">{text}</mark>'


def _words(title: str, words: Sequence[tuple[str, float]], kind: str) -> str:
    if not words:
        return ""
    shown = "".join(
        f"<span><b>{escape(word.strip() or repr(word))}</b> {minus(f'{v:+.2g}')}</span>" for word, v in words
    )
    return f'<h4>{title}</h4><div class="words"><span class="{kind}" style="display:contents">{shown}</span></div>'


def _near(rows: Sequence[Mapping[str, Any]]) -> str:
    near = [row for row in rows if row["beyond_chance"]][:4]
    if not near:
        return ""
    shown = "".join(
        f"<span>{escape(short(str(r['unit'])).rpartition('~')[2])} {minus(format(r['cosine'], '.2f'))}</span>"
        for r in near
    )
    return f'<h4>shares space with (cosine)</h4><div class="words">{shown}</div>'


def _bars(feature: Any) -> str:
    most = max(feature.counts) or 1
    wide = 240 / len(feature.counts)
    bars = "".join(
        f'<rect x="{i * wide:.1f}" y="{60 - 58 * (n / most) ** 0.5:.1f}" width="{wide - 1:.1f}" '
        f'height="{58 * (n / most) ** 0.5:.1f}"><title>{n} tokens</title></rect>'
        for i, n in enumerate(feature.counts)
        if n
    )
    name = f"activations from 0 to {number(feature.maximum)} (square root scale)"
    head = '<svg class="bars" role="img" viewBox="0 0 240 62" preserveAspectRatio="none">'
    return f"{head}<title>{name}</title>{bars}</svg>"
