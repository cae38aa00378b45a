"""Make the pictures of docs/explorer.md again, of the built-in network: `python -m tools.explorer_images [NAME ...]`.

Needs Playwright and Chromium. Those of an atlas and of a language model, which take minutes more, are not among them.
"""

from __future__ import annotations

import argparse
import io
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

import circuits
from apps.cli.commands.explore import Explore
from apps.explorer.resources import rendered_units, thumbnails
from circuits.dataset.audit.removal import RESULT
from circuits.network.address import Unit

FOLDER = Path(__file__).parent.parent / "docs" / "images"
VIEWS = {  # name: page and changes of its view, and the height of the window
    "unit": ("unit?unit=scenes/mixed4a:11", 900),
    "circuit": ("circuit?unit=scenes/mixed4a:11&depth=2&selected=scenes/mixed3b:39", 800),
    "compare": ("compare?unit=scenes/mixed4a:11&with=mixed3b:6", 838),
    "why": (
        "why?unit=scenes/mixed3b:39&image=1&layers=mixed4a,mixed4b&explain=1&selected=scenes/mixed4b:34&factor=0",
        900,
    ),
    "audit": ("audit?unit=scenes/mixed4b:0", 900),
    "collections": ("collections?units=mixed3b:39,mixed3b:6,mixed3b:46,mixed4a:11", 860),
    "steering": ("steering?unit=scenes/mixed3b:39&image=72&edits=39:ablate", 960),
}


def main() -> None:
    """Make the pictures that are named, by default all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(VIEWS)}")
    parser.add_argument("--store", type=Path, help="a store of the built-in network; by default one is made")
    options = parser.parse_args()
    names = options.names or list(VIEWS)
    if wrong := [name for name in names if name not in VIEWS]:
        parser.error(f"there is no picture {wrong[0]!r}; there are {', '.join(VIEWS)}")
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or _new_store(Path(folder) / "store")
        with _server(store) as address, _page() as page:
            for name in names:
                _take(page, f"{address}/{VIEWS[name][0]}", VIEWS[name][1], FOLDER / f"explorer_{name}.jpg")


def _new_store(store: Path) -> Path:
    from circuits.visualization.sweeps.sweep import sweep

    model = circuits.load("scenes")
    scan = circuits.scan(model, "scenes:500", store)
    thumbnails.make(scan, scan.images(check=False), list(scan.layers))
    unit = Unit.parse("scenes/mixed4a:11")
    sweep(
        model, str(unit), scan.folder / rendered_units.FOLDER / rendered_units.sweep_name(unit, "positive"), steps=128
    )
    audits = scan.folder / "audits" / "scenes"
    result = circuits.audit(model, "scenes:130@7", classes=["car"], layers=["mixed4b"], top=2, random=4, store=audits)
    result.save(audits / RESULT)
    return store


@contextmanager
def _server(store: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = Explore(store=store, port=port, allow_write=True)
    process = subprocess.Popen(command.command(), env=command.environment(), stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


@contextmanager
def _page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.set_default_timeout(240_000)
        yield page
        browser.close()


def _take(page: Any, address: str, height: int, path: Path) -> None:
    """A picture of a view whose work is done."""
    page.set_viewport_size({"width": 1280, "height": height})
    page.goto(address)
    page.wait_for_selector("h3")
    for _ in range(3):  # a page runs again when what it waits for is there
        page.wait_for_selector("[data-test-script-state=notRunning]")
        page.wait_for_function("document.querySelectorAll('[data-testid=stProgress]').length === 0")
        page.wait_for_timeout(700)
    if page.get_by_test_id("stAlert").count():
        raise SystemExit(f"{address}: {page.get_by_test_id('stAlert').first.inner_text()}")
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.convert("RGB").save(path, quality=85, optimize=True)
    print(path)


if __name__ == "__main__":
    main()
