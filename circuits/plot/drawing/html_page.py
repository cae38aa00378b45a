"""What the report pages share: one HTML file that needs nothing else, and where its contents came from."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from circuits.plot.drawing.svg import escape

_SCRIPT = """
document.querySelectorAll(".copyable").forEach(function (block) {
  if (!navigator.clipboard) return;
  var button = document.createElement("button");
  button.textContent = "Copy";
  button.addEventListener("click", function () {
    navigator.clipboard.writeText(block.querySelector("code").textContent).then(function () {
      button.textContent = "Copied";
      setTimeout(function () { button.textContent = "Copy"; }, 1500);
    });
  });
  block.appendChild(button);
});
"""
_NAMES = {
    "weights": "weights, SHA-256",
    "weights_source": "weights from",
    "images_digest": "images, SHA-256",
    "n_images": "number of images",
    "n_places": "places traced",
}


def style(name: str) -> str:
    """One of the style sheets of this package."""
    return resources.files("circuits.plot").joinpath(name).read_text(encoding="utf-8")


def page(title: str, body: str, css: str, *, beside: bool = False) -> str:
    """A whole page in the look of the house: light and dark, and nothing in it is fetched.

    Args:
        title: as text.
        body: as HTML.
        css: what comes after `report.css`.
        beside: whether pictures may be files beside the page, too.
    """
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    # labels and ids are not ours: even one that slipped through escaping could run or fetch nothing
    pictures = "data: 'self'" if beside else "data:"
    policy = f"default-src 'none'; img-src {pictures}; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>\n{style('report.css')}{css}\n</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def facts(named: Sequence[tuple[str, Any]]) -> str:
    """A row of facts under a title; empty ones are left out."""
    shown = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in named if value != "")
    return f'<dl class="facts">{shown}</dl>'


def again(command: str, python: str) -> str:
    """How to make the page again."""
    return (
        "<h2>Make it again</h2>"
        f'<h4>In a shell</h4><div class="copyable"><pre><code>{escape(command)}</code></pre></div>'
        f'<h4>In Python</h4><div class="copyable"><pre><code>{escape(python)}</code></pre></div>'
    )


def origins(provenance: Mapping[str, Any], *more: tuple[str, Any]) -> str:
    """Where it all came from, as a list; mappings inside of mappings are written out."""
    rows: list[tuple[str, Any]] = []
    _flatten("", provenance, rows)
    rows.extend(more)
    named = [(_NAMES.get(name, name.replace("_", " ")), value) for name, value in rows]
    shown = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in named)
    return f'<h2>Where it came from</h2><dl class="provenance">{shown}</dl>'


def _flatten(before: str, value: Any, rows: list[tuple[str, Any]]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _flatten(f"{before} {key}".strip(), inner, rows)
    else:
        rows.append((before, value))
