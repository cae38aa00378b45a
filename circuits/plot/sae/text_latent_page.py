"""A page of latents of a language model: top activating passages, and the tokens that each promotes and suppresses.

It takes what `sae.language.text_features` returns, or anything with the same attributes: nothing of `sae` is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from circuits.plot.drawing import html_page
from circuits.plot.drawing.html_page import tag
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
        title: the site and the SAE.
        facts: labels and numbers for the head of the page.
        provenance: where it came from.
        command, python: what reproduces the page.
    """
    return html_page.page(
        "text_latents.html",
        title=title,
        facts=facts,
        features=features,
        histogram=_histogram,
        tokens=_tokens,
        similar=_similar,
        command=command,
        python=python,
        provenance=provenance,
    )


def _tokens(rows: Sequence[tuple[str, float]]) -> list[tuple[str, str]]:
    """Tokens and their effects on the logits."""
    return [(token.strip() or repr(token), minus(f"{value:+.2g}")) for token, value in rows]


def _similar(feature: Any) -> list[tuple[str, str]]:
    """The nearest latents beyond chance, and their cosines."""
    rows = [row for row in feature.shares_with if row["beyond_chance"]][:4]
    return [(short(str(row["unit"])).rpartition("~")[2], minus(f"{row['cosine']:.2f}")) for row in rows]


def _histogram(feature: Any) -> Markup:
    """How many tokens have which activation."""
    most, width = max(feature.counts) or 1, 240 / len(feature.counts)
    parts = [tag("title", f"activations from 0 to {number(feature.maximum)} (square root scale)")]
    for i, n in enumerate(feature.counts):
        if n:
            height = 58 * (n / most) ** 0.5
            box = {"x": i * width, "y": 60 - height, "width": width - 1, "height": height}
            parts.append(tag("rect", tag("title", f"{n} tokens"), **box))
    return tag("svg", *parts, class_="bars", role="img", viewBox="0 0 240 62", preserveAspectRatio="none")
