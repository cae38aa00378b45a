"""A residual network of the user's own, gray images of 96x128, as `circuits explore` opens it in a real browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.apps.explorer import test_browser
from tests.apps.explorer.test_browser import WAIT, quiet, wait_title
from tests.apps.terminal import ROOT

browser = test_browser.browser
pytestmark = test_browser.pytestmark
GUIDE = (ROOT / "docs" / "your-own-model.md").read_text()
INPUT = '{"size": [96, 128], "channels": 1, "mean": 0.5, "std": 0.25}'
MODEL = ("--model", "mine.py:make", "--weights", "w.pth", "--input", INPUT)


def _circuits(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "apps.cli", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of the guide without its card, its weights, photographs, a scan and an SAE."""
    folder = tmp_path_factory.mktemp("own")
    source = re.search(r"```py\n(# mine\.py\n.*?)```", GUIDE, re.DOTALL)
    assert source is not None
    (folder / "mine.py").write_text(source[1])
    names: dict[str, Any] = {"__name__": "mine"}
    exec(source[1], names)  # the guide's own code
    torch.manual_seed(3)
    net = names["make"]()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    torch.save(net.state_dict(), folder / "w.pth")
    random = np.random.default_rng(0)
    for kind in ("dots", "lines"):
        (folder / "photos" / kind).mkdir(parents=True)
        for i in range(12):
            pixels = np.zeros((96, 128), "u1")
            if kind == "dots":
                for y, x in zip(random.integers(6, 90, 8), random.integers(6, 122, 8), strict=True):
                    pixels[y - 4 : y + 4, x - 4 : x + 4] = 255
            else:
                pixels[:, i :: 9 + i] = 255
            Image.fromarray(pixels, "L").save(folder / "photos" / kind / f"{i:02}.png")
    done = _circuits(folder, "scan", "mine", *MODEL, "--images", "photos", "--store", "store")
    assert done.returncode == 0, done.stderr
    train = ("--images", "photos", "--latents", "32", "--k", "4", "--steps", "200", "--out", "parts")
    done = _circuits(folder, "sae", "train", "mine/layer2", *MODEL, *train)
    assert done.returncode == 0, done.stderr
    sae = _sae(folder)
    done = _circuits(folder, "sae", "features", str(sae), *MODEL, "--latents", "4", "--out", "features")
    assert done.returncode == 0, done.stderr
    return folder


def _sae(folder: Path) -> Path:
    return next(path.parent for path in sorted((folder / "parts").rglob("sae_weights.safetensors")))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """The server of `circuits explore`, started by the command itself."""
    port = test_browser.free_port()
    sae = _sae(folder)
    command = ("explore", *MODEL, "--images", "photos", "--store", "store", "--sae", f"parts={sae}")
    process = subprocess.Popen(
        [sys.executable, "-m", "apps.cli", *command, "--port", str(port)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a test run in the background
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        test_browser._answering(address)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    """A new session."""
    context = browser.new_context(viewport={"width": 1280, "height": 1400})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    yield page
    context.close()


def _kept(page: Any, name: str) -> None:
    """No error on the page; a screenshot where `$CIRCUITS_SCREENSHOTS` says."""
    quiet(page)
    assert page.locator("[data-testid=stException]").count() == 0
    assert page.locator("[data-testid=stAlertContentError]").count() == 0, page.locator(
        "[data-testid=stAlert]"
    ).inner_text()
    if "CIRCUITS_SCREENSHOTS" in os.environ:
        page.wait_for_timeout(3000)
        page.screenshot(path=Path(os.environ["CIRCUITS_SCREENSHOTS"]) / f"{name}.png", full_page=True)


def test_the_unit_page_shows_images_of_the_networks_own_shape(page: Any, server: str) -> None:
    page.goto(f"{server}/unit?unit=mine/layer3:2")
    wait_title(page, "layer3:2")
    _kept(page, "unit")
    sizes = page.evaluate(
        """[...document.querySelectorAll("*")].flatMap((e) => e.shadowRoot
        ? [...e.shadowRoot.querySelectorAll("img")].map((i) => [i.naturalWidth, i.naturalHeight]) : [])"""
    )
    assert sizes and any(width and height for width, height in sizes)
    hint = page.locator("code", has_text="circuits visualize mine/layer3:2").first.inner_text()
    assert "--model" in hint and "mine.py:make" in hint, "the command that is offered opens the model"


def test_the_circuit_page_traces_a_unit_to_units_of_other_blocks(page: Any, server: str) -> None:
    page.goto(f"{server}/circuit?unit=mine/layer3:2")
    wait_title(page, "layer3:2")
    page.locator("[data-unit^='mine/layer2:']").first.wait_for()
    _kept(page, "circuit")
    units = page.evaluate("[...document.querySelectorAll('[data-unit]')].map((e) => e.dataset.unit)")
    assert all(unit.startswith("mine/") for unit in units)


def test_the_sae_page_shows_the_latents_of_a_layer(page: Any, server: str) -> None:
    page.goto(f"{server}/unit?unit=mine/layer2~parts:3")
    wait_title(page, "layer2~parts:3")
    _kept(page, "latent")
    page.goto(f"{server}/sae")
    quiet(page)
    page.get_by_text("parts").first.wait_for()
    _kept(page, "sae")
