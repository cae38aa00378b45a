"""Every type of result in the cells of one notebook, as a browser shows it, light and dark.

`RESULT_CELLS=folder` keeps the page and a screenshot of each cell, to be looked at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_results import EXAMPLES

nbformat = pytest.importorskip("nbformat")
nbconvert = pytest.importorskip("nbconvert", reason="needs nbconvert")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
nbclient = pytest.importorskip("nbclient")

CHROMIUM = Path("/usr/bin/chromium")
WIDE = """element => [element, ...element.querySelectorAll('*')].some(e =>
    e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === 'visible'
    && e.getBoundingClientRect().left + e.scrollWidth > document.body.clientWidth)"""
"""Whether something in an output reaches beyond the page and cannot be scrolled to."""


def written() -> Any:
    cells = ["from pathlib import Path\nfrom tests.contract.test_results import EXAMPLES"]
    cells += [f"EXAMPLES[{name!r}](Path('scan'))" for name in EXAMPLES]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata = nbformat.from_dict({"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    return notebook


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
def test_every_result_is_shown_in_a_browser(tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip("needs Chromium")
    folder = Path(os.environ.get("RESULT_CELLS", tmp_path)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    root = str(Path(__file__).parents[2])
    client = nbclient.NotebookClient(written(), timeout=600, kernel_name="python3")
    client.resources = {"metadata": {"path": str(tmp_path)}}
    notebook = client.execute(env={**os.environ, "PYTHONPATH": root})
    body, _ = nbconvert.HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True).from_notebook_node(notebook)
    (folder / "cells.html").write_text(body, encoding="utf-8")
    problems = []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.goto((folder / "cells.html").as_uri())
        outputs = page.locator(".jp-Cell").all()[1:]
        assert len(outputs) == len(EXAMPLES)
        for dark in (False, True):
            if dark:  # JupyterLab's dark theme: white text on black
                page.evaluate(
                    """document.body.style.cssText += 'background:#111;color:#fff;--jp-content-font-color1:#fff;"""
                    """--jp-ui-font-color1:#fff;--jp-rendermime-table-row-background:#222;--jp-layout-color0:#111'"""
                )
            for name, cell in zip(EXAMPLES, outputs, strict=True):
                shown = cell.locator(".jp-OutputArea-output")
                cell.scroll_into_view_if_needed()
                for frame in cell.locator("iframe").all():
                    page.wait_for_timeout(1000)  # it is painted after it came into view
                    words = frame.content_frame.locator("body").inner_text()
                    problems += [] if len(words) > 200 else [f"{name}: an empty frame"]
                if not shown.count() or not shown.first.bounding_box():
                    problems.append(f"{name}: nothing is shown")
                elif shown.first.evaluate(WIDE):
                    problems.append(f"{name}: wider than the page")
                cell.screenshot(path=folder / f"{name}{'-dark' if dark else ''}.png")
        browser.close()
    assert not problems
