"""Make the pictures of docs/gallery.md again, by the lines that stand there: `python -m tools.gallery`."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent.parent / "docs"
IMAGE_NAME = re.compile(r"\(images/gallery/(\w+\.png)\)")
WIDEST = 700
"""Pixels of a picture."""


def main() -> None:
    """Run the page's Python in an empty folder; keep the pictures that the page shows, small."""
    page = (DOCS / "gallery.md").read_text("utf-8")
    code = "\n\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        exec(compile(code, "gallery.md", "exec"), {"__name__": "gallery"})
        for name in IMAGE_NAME.findall(page):
            with Image.open(name) as image:
                small = image.convert("RGB")
            small.thumbnail((WIDEST, 2 * WIDEST), Image.Resampling.LANCZOS)
            small.quantize(192, dither=Image.Dither.FLOYDSTEINBERG).save(
                DOCS / "images" / "gallery" / name, optimize=True
            )


if __name__ == "__main__":
    main()
