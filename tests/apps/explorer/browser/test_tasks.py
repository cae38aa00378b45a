"""Ten tasks of a researcher in a real browser, each in at most five actions: clicks, keys, and texts typed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.cli.commands.explore import Explore
from sae.steering import Steering
from tests.apps.explorer import test_browser
from tests.apps.explorer.test_browser import WAIT, quiet, title, wait_title

browser, pytestmark = test_browser.browser, test_browser.pytestmark
MOST = 5


class Visitor:
    """A page whose actions are counted."""

    def __init__(self, page: Any) -> None:
        self.page, self.actions, self.settles = page, 0, True

    def do(self, action: Any) -> None:
        """One action, and what it makes the page do."""
        self.actions += 1
        action()
        quiet(self.page)
        if self.settles:  # a reader waits for what is computed, too
            self.page.wait_for_function("document.querySelectorAll('[data-testid=stProgress]').length === 0")
            quiet(self.page)

    def click(self, *names: str, role: str = "button") -> None:
        """Click on what has a role and a name."""
        for name in names:
            self.do(self.page.get_by_role(role, name=name, exact=True).first.click)

    def choose(self, label: str, option: str) -> None:
        """Open a list, and click on an option: two actions."""
        self.do(self.page.get_by_role("combobox", name=re.compile(f"{label}$")).first.click)
        self.do(self.page.get_by_role("option", name=option, exact=True).click)

    def menu(self, name: str) -> None:
        """Click on a page of the menu."""
        self.do(self.page.get_by_test_id("stSidebar").get_by_role("link", name=name, exact=True).click)

    def type(self, label: str, text: str, enter: bool = False) -> None:
        """Type a text."""
        box = self.page.get_by_label(label, exact=True).first
        self.do(lambda: (box.fill(text), box.press("Enter") if enter else None))


@pytest.fixture(scope="module")
def server(made_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with an SAE of a layer, and one of the built-in language model."""
    import circuits
    import sae
    from apps.explorer.resources import language_models

    folder = tmp_path_factory.mktemp("tasks")
    shutil.copytree(made_store, folder / "store")
    test_browser.small_audit(folder / "store" / "scenes" / "audits" / "small")
    site = sae.VisionSite(circuits.load("scenes"), "mixed3b")
    sae.save(folder / "parts", sae.train(site.stream("scenes:60"), sae.TopK(latents=64, k=4), steps=150)[0])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LATENTS": 96, "STEPS": 300, "STORIES": 60, "TEXTS": "tales:300@2"}.items():
            patch.setattr(language_models, name, value)
        language_models.train(folder / "store", None)
    port = test_browser.free_port()
    command = Explore(store=folder / "store", port=port, allow_write=True, sae=(f"parts={folder / 'parts'}",))
    process = subprocess.Popen(command.command(), env=command.environment(), stdout=subprocess.DEVNULL)
    try:
        test_browser._answering(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


@pytest.fixture
def visitor(browser: Any, server: str) -> Iterator[Visitor]:
    """A new session at the explorer's first page; at the end its actions are counted."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.goto(server)
    page.wait_for_selector("h3")
    quiet(page)
    visitor = Visitor(page)
    yield visitor
    context.close()
    assert 0 < visitor.actions <= MOST, f"{visitor.actions} actions"


def test_the_car_unit_and_its_circuit_two_layers_back(visitor: Visitor) -> None:
    page = visitor.page
    visitor.type("Open", "car", enter=True)
    page.get_by_text("of their 9 top activating images").wait_for()
    visitor.do(page.locator("a[data-unit='scenes/mixed4a:11']").first.click)
    wait_title(page, "mixed4a:11")
    visitor.menu("Circuit")
    visitor.choose("Depth", "2 layers")
    page.locator("[data-unit^='scenes/mixed3a:']").first.wait_for()


def test_a_wheel_parent_is_followed_and_silenced(visitor: Visitor, server: str) -> None:
    page = visitor.page
    page.goto(f"{server}/circuit?unit=scenes/mixed4a:11")
    page.locator("[data-unit='scenes/mixed3b:39']").wait_for()
    visitor.do(page.locator("[data-unit='scenes/mixed3b:39']").first.click)
    visitor.click("Open unit", role="link")
    wait_title(page, "mixed3b:39 wheel")
    visitor.click("Steer")
    wait_title(page, "Steering mixed3b")
    page.get_by_text("along the directions of random units").wait_for()


def test_a_polysemantic_unit_is_found_without_guessing(visitor: Visitor, server: str) -> None:
    page = visitor.page
    page.goto(f"{server}/layer?unit=scenes/mixed4b")
    wait_title(page, "mixed4b")
    visitor.choose("Sort by", "Polysemanticity")
    visitor.do(page.locator("a[data-unit^='scenes/mixed4b:']").first.click)
    page.wait_for_url("**/unit?**")
    visitor.click("Polysemanticity", role="radio")
    page.get_by_text(re.compile("fall into")).first.wait_for()


def test_a_channel_is_seen_as_its_latents(visitor: Visitor) -> None:
    visitor.menu("SAE")
    visitor.click("Channel decomposition", role="radio")
    visitor.type("Channel of mixed3b (0 to 47)", "39", enter=True)
    visitor.page.get_by_text("top activating images.").first.wait_for()


def test_a_class_of_an_own_photograph_is_attributed(visitor: Visitor, tmp_path: Path) -> None:
    from PIL import Image

    Image.radial_gradient("L").convert("RGB").save(tmp_path / "own.png")
    page = visitor.page
    visitor.menu("Image")
    visitor.do(lambda: page.locator("input[type=file]").set_input_files(tmp_path / "own.png"))
    page.get_by_text("your image;").wait_for()
    visitor.click("Class attribution", role="radio")
    page.get_by_text("with positions shuffled").wait_for()


def test_a_prediction_on_an_own_photograph_is_explained_and_a_node_set_to_zero(
    visitor: Visitor, server: str, tmp_path: Path
) -> None:
    from zoo.images.sources import open_images

    image = open_images("scenes:1").pil(0)
    image.save(tmp_path / "own.png")
    page = visitor.page
    page.goto(f"{server}/why?unit=scenes/mixed3b:39")
    quiet(page)
    visitor.do(lambda: page.locator("input[type=file]").set_input_files(tmp_path / "own.png"))
    visitor.click("Explain")
    visitor.do(page.locator("[data-unit^='scenes/mixed4b:']").first.click)
    visitor.click("Set to zero", role="radio")
    page.get_by_text("about as active, change it by").wait_for()
    page.get_by_text("The graph predicts").first.wait_for()
    assert "factor=0" in page.url and "selected=" in page.url


def test_an_explanation_is_saved_as_a_page(visitor: Visitor, server: str, tmp_path: Path) -> None:
    page = visitor.page
    page.goto(f"{server}/image?unit=scenes/mixed3b:39&image=1")
    page.get_by_text("of the squared activations").first.wait_for()
    visitor.click("Why")
    visitor.click("Explain")
    page.locator("[data-unit^='scenes/mixed4b:']").first.wait_for()
    visitor.click("Export")
    with page.expect_download() as waiting:
        visitor.click("HTML")
    waiting.value.save_as(tmp_path / "why.html")
    saved = (tmp_path / "why.html").read_text(encoding="utf-8")
    assert "Attribution graph of" in saved and 'src="data:image' in saved and 'src="http' not in saved


def test_a_suspect_is_removed_and_the_report_saved(visitor: Visitor, server: str, tmp_path: Path) -> None:
    page = visitor.page
    page.goto(f"{server}/audit?unit=scenes/mixed4b:0")
    page.get_by_text("Images of car with it").first.wait_for()
    visitor.click("Remove it")
    visitor.click("Measure")
    page.get_by_text("samples change the share of right answers").wait_for()
    assert "measured=" in page.url
    visitor.click("Export")
    with page.expect_download() as waiting:
        visitor.click("HTML")
    waiting.value.save_as(tmp_path / "audit.html")
    saved = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "Audit of scenes" in saved and 'src="http' not in saved


def test_a_label_is_written_reloaded_and_exported(visitor: Visitor, server: str, tmp_path: Path) -> None:
    page = visitor.page
    page.goto(f"{server}/unit?unit=scenes/mixed3b:46")
    wait_title(page, "mixed3b:46")
    visitor.click("Labels", role="radio")
    visitor.type("Label", "window")
    visitor.type("Author", "ann", enter=True)
    wait_title(page, "mixed3b:46 window")
    visitor.do(page.reload)
    wait_title(page, "mixed3b:46 window")
    with page.expect_download() as waiting:
        visitor.click("Export labels")
    waiting.value.save_as(tmp_path / "labels.json")
    labels = {label["unit"]: label["name"] for label in json.loads((tmp_path / "labels.json").read_text())["labels"]}
    assert labels["scenes/mixed3b:46"] == "window" and labels["scenes/mixed3b:39"] == "wheel"


def test_a_scan_is_started_stopped_and_resumed(visitor: Visitor) -> None:
    page = visitor.page
    visitor.settles = False  # the bar of a job
    visitor.menu("Jobs")
    visitor.do(page.get_by_text("Replace the present scan").click)
    visitor.click("Start", "Stop")
    page.get_by_text("stopped at").first.wait_for()
    visitor.click("Resume")
    page.get_by_role("button", name="Stop", exact=True).first.wait_for()
    page.get_by_role("button", name="Stop", exact=True).first.click()  # not of the task: it ends with the server


def test_texts_of_tales_are_steered_and_the_edits_exported(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    visitor.menu("Language")
    visitor.click("Steering", role="radio")
    page.get_by_text("Random, a step as long").wait_for()
    visitor.click("Export")
    with page.expect_download() as waiting:
        visitor.click("JSON")
    waiting.value.save_as(tmp_path / "steering.json")
    document = json.loads((tmp_path / "steering.json").read_text())
    assert Steering.parse(json.dumps(document["steering"])).edits and title(page).startswith("Language model tales")
