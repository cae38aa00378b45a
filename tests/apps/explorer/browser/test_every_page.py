"""Every page in a real browser at three widths, light and dark: nothing cut off, and nothing serious for axe-core.

With `$CIRCUITS_SCREENSHOTS` the pages are saved there, to be looked at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from apps.explorer.pages import PAGES
from tests.apps.explorer import test_browser
from tests.apps.explorer.test_browser import VIEWS, WAIT, _view, quiet

browser, server, pytestmark = test_browser.browser, test_browser.server, test_browser.pytestmark
WIDTHS = (1280, 1920, 420)
SECTIONS = {
    "unit": ("contributions", "tuning", "similar", "polysemanticity", "labels"),
    "image": ("position", "class"),
    "language": ("read", "steer"),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_and_can_be_used_by_everybody(browser: Any, server: str, name: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    context = browser.new_context(viewport={"width": WIDTHS[0], "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.set_default_timeout(WAIT)
    serious: list[str] = []
    for section in SECTIONS.get(name, ("",)):
        query = "&".join(part for part in (VIEWS[name], f"section={section}" if section else "") if part)
        page.goto(f"{server}/{'' if name == 'home' else name}?unit=scenes/mixed3b:39&{query}")
        _view(page)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            quiet(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (section, width)
            if width != WIDTHS[1]:
                serious += [
                    f"{section} {width} px: {finding['id']}: {node['html'][:160]}"
                    for finding in axe.run(page).response["violations"]
                    if finding["impact"] in ("serious", "critical")
                    for node in finding["nodes"]
                ]
            if folder := os.environ.get("CIRCUITS_SCREENSHOTS"):
                page.screenshot(path=Path(folder) / f"{name}-{section or 'main'}-{width}-{scheme}.png", full_page=True)
    context.close()
    assert not serious, "\n".join(sorted(set(serious)))
