"""The explorer in a real browser: the tour, clicks, back button, links, keys, exports. Skipped without a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

import circuits
from apps.cli.commands.explore import Explore
from apps.explorer.pages import PAGES
from apps.explorer.session.labels import Labels
from circuits.dataset.audit.removal import RESULT
from sae.steering import Steering

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    # the browser driver leaves pipes to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
WAIT = 240_000
IMAGES = """[...document.querySelectorAll("*")].flatMap(
  (e) => e.shadowRoot ? [...e.shadowRoot.querySelectorAll("img")].map((i) => i.alt) : [])"""
_CHROMIUM = next((p for p in (shutil.which("chromium"), shutil.which("google-chrome")) if p), None)


@pytest.fixture(scope="module")
def server(made_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server as `circuits explore` starts it, on a store of its own."""
    store = tmp_path_factory.mktemp("browser") / "store"
    shutil.copytree(made_store, store)
    small_audit(store / "scenes" / "audits" / "small")
    port = free_port()
    command = Explore(store=store, port=port, allow_write=True)
    process = subprocess.Popen(
        command.command(), env=command.environment(), stderr=subprocess.STDOUT, stdout=subprocess.PIPE
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _answering(address)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


def small_audit(out: Path) -> None:
    """A finished audit of one class of the built-in model."""
    result = circuits.audit(
        circuits.load("scenes"),
        "scenes:130@7",
        classes=["car"],
        layers=["mixed4b"],
        describe=0,
        top=2,
        random=4,
        steps=1,
        store=out,
    )
    result.save(out / RESULT)


def free_port() -> int:
    """A port that no server has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answering(address: str) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server does not answer")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if _CHROMIUM is None:
        pytest.skip("needs chromium")
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    """A new session, at the explorer's first page."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    )
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(server)
    quiet(page)
    yield page
    context.close()


def quiet(page: Any) -> None:
    """Wait until the page has been run."""
    page.wait_for_selector("[data-test-script-state=notRunning]")
    page.wait_for_timeout(300)
    page.wait_for_selector("[data-test-script-state=notRunning]")


def title(page: Any) -> str:
    """The heading of the page."""
    return str(page.locator("h3").first.inner_text())


def wait_title(page: Any, text: str) -> None:
    """Wait until the heading starts with `text`."""
    page.wait_for_function("text => (document.querySelector('h3')?.innerText || '').startsWith(text)", arg=text)
    quiet(page)


def test_the_car_tour_from_home_to_a_wheel_and_back(page: Any, server: str) -> None:
    page.get_by_role("button", name="Start").first.click()
    wait_title(page, "mixed4a:11")
    assert "tour=car" in page.url
    page.get_by_role("button", name="Next step").click()
    page.wait_for_url("**/circuit?**")
    quiet(page)
    wheel = page.locator("[data-unit='scenes/mixed3b:39']")
    wheel.wait_for()
    wheel.click()
    page.get_by_role("link", name="Open unit").click()
    wait_title(page, "mixed3b:39")
    assert "wheel" in title(page), "with its label"
    page.go_back()
    page.wait_for_url("**/circuit?**")
    wait_title(page, "mixed4a:11")


def test_a_click_on_an_input_opens_it_and_back_returns(page: Any, server: str) -> None:
    page.goto(f"{server}/unit?unit=scenes/mixed4a:11")
    wait_title(page, "mixed4a:11")
    page.locator("a.name[data-unit='scenes/mixed3b:39']").click()
    wait_title(page, "mixed3b:39")
    page.go_back()
    wait_title(page, "mixed4a:11")


def test_a_copied_link_opens_the_same_view_in_a_new_session(page: Any, browser: Any, server: str) -> None:
    page.goto(f"{server}/unit?unit=scenes/mixed4a:11")
    wait_title(page, "mixed4a:11")
    page.get_by_text("Random sample", exact=True).click()
    quiet(page)
    page.get_by_text("Similar units", exact=True).click()
    quiet(page)
    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Copied").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(server) and "examples=random" in link and "section=similar" in link
    other = browser.new_context().new_page()
    other.set_default_timeout(WAIT)
    other.goto(link)
    wait_title(other, "mixed4a:11")
    other.get_by_text("Similar activations").wait_for()
    end = time.monotonic() + 180
    while other.evaluate(IMAGES) != page.evaluate(IMAGES) and time.monotonic() < end:
        other.wait_for_timeout(300)  # thumbnails are still being made
    assert other.evaluate(IMAGES) == page.evaluate(IMAGES)
    other.context.close()


def test_on_a_phone_no_title_is_covered_and_nothing_is_wider_than_the_page(browser: Any, server: str) -> None:
    page = browser.new_context(viewport={"width": 420, "height": 800}).new_page()
    page.set_default_timeout(WAIT)
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text) if message.type == "warning" else None)
    for path in ("unit?unit=scenes/mixed3b:39", "layer?unit=scenes/mixed3b", "search?query=wheel"):
        page.goto(f"{server}/{path}")
        page.wait_for_selector("h3")
        quiet(page)
        head = page.get_by_test_id("stHeader").bounding_box()
        assert page.locator("h3").first.bounding_box()["y"] >= head["y"] + head["height"], path
        assert page.evaluate("document.documentElement.scrollWidth") <= 420, path
    assert messages == []
    page.context.close()


VIEWS = {  # a page, and changes of its view
    "unit": "examples=bands&section=similar",
    "layer": "sort=density&size=48",
    "circuit": "depth=2&prune=30&pin=mixed3b:6&panel=score",
    "image": "image=3&section=class",
    "steering": "image=2&edits=39:scale:2",
    "superposition": "n=4&m=2",
    "search": "search=address&pattern=mixed3b:1*",
    "compare": "with=mixed3b:46",
    "collections": "units=mixed3b:39,mixed4a:11",
    "why": "image=1&layers=mixed4a,mixed4b&explain=1&selected=scenes/mixed4b:34&factor=0",
    "audit": "panel=without", "atlas": "", "sae": "", "language": "", "jobs": "", "home": "",
}  # fmt: skip


def test_every_page_is_the_same_after_a_reload_and_in_a_second_session(page: Any, browser: Any, server: str) -> None:
    assert {*VIEWS} == {*PAGES}, "every page is walked"
    other = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    other.set_default_timeout(WAIT)
    for name, changes in VIEWS.items():
        path = "" if name == "home" else name
        page.goto(f"{server}/{path}?unit=scenes/mixed3b:39&{changes}")
        views = [_view(page)]
        page.reload()
        views.append(_view(page))
        other.goto(page.url)
        views.append(_view(other))
        assert views[0] == views[1] == views[2], name
        assert name == "home" or "mixed3b:39" in views[0][0], "the unit stays in the address"
        # to the next page by the menu: the unit goes along
        page.get_by_test_id("stSidebar").get_by_role("link", name="Layer", exact=True).click()
        page.wait_for_url("**/layer?**")
        assert "mixed3b:39" in unquote(page.url), name
        wait_title(page, "mixed3b")
    titles = []
    for name in ("unit", "circuit"):
        page.goto(f"{server}/{name}?unit=scenes/mixed3b:39")
        titles.append(_view(page)[2])
    assert titles[0].startswith("mixed3b:39 wheel") and titles[0] != titles[1], "tabs can be told apart"
    page.goto(f"{server}/unit")
    _view(page)
    assert "unit=" in page.url, "what a link leaves out is written into the address"
    other.context.close()


def _view(page: Any) -> tuple[str, str, str]:
    """Address, heading and tab of a page whose work is done."""
    page.wait_for_selector("h3")
    quiet(page)
    end = time.monotonic() + 180
    while page.get_by_test_id("stProgress").count() and time.monotonic() < end:
        page.wait_for_timeout(300)
    quiet(page)
    return unquote(page.url), title(page), str(page.title())


def test_a_unit_is_rendered_and_its_pictures_come_by_themselves(page: Any, server: str) -> None:
    page.goto(f"{server}/unit?unit=scenes/mixed3b:6")
    wait_title(page, "mixed3b:6")
    page.get_by_role("button", name="Render", exact=True).click()
    page.get_by_role("progressbar").wait_for()
    page.get_by_text("activating", exact=True).first.wait_for()
    quiet(page)
    assert page.get_by_text("starting").count() == 0 and page.get_by_role("progressbar").count() == 0


def test_a_unit_is_steered_exported_and_sent_as_a_link(page: Any, browser: Any, server: str, tmp_path: Path) -> None:
    page.goto(f"{server}/unit?unit=scenes/mixed3b:39")
    wait_title(page, "mixed3b:39")
    page.get_by_role("button", name="Steer", exact=True).click()
    wait_title(page, "Steering mixed3b")
    page.get_by_text("39 is edited at all positions").wait_for()
    quiet(page)
    box = page.locator(".image_map img").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 0.55 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.8 * box["height"])
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] - 5)
    page.mouse.up()
    page.get_by_text("39 is edited at 32 positions").wait_for()
    quiet(page)
    assert "edits=39:ablate@4,0,7,7" in unquote(page.url)
    page.get_by_role("combobox", name="Edit", exact=True).click()
    page.get_by_role("option", name="Multiply by").click()
    page.wait_for_url(re.compile("edits=39(:|%3A)scale"))
    quiet(page)
    summary = page.get_by_text("along the directions of random units").inner_text()

    page.get_by_role("button", name="Export").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="JSON", exact=True).click()
    waiting.value.save_as(tmp_path / "steering.json")
    edits = Steering.parse((tmp_path / "steering.json").read_bytes()).edits
    assert [(edit.latent, edit.kind, len(edit.at)) for edit in edits] == [(39, "scale", 32)]
    page.keyboard.press("Escape")

    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Copied").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    other = browser.new_context().new_page()
    other.set_default_timeout(WAIT)
    other.goto(link)
    wait_title(other, "Steering mixed3b")
    assert other.get_by_text("along the directions of random units").inner_text() == summary
    assert other.get_by_text("39 is edited at 32 positions").is_visible()
    other.context.close()

    page.go_back()  # undoes the last change
    page.wait_for_url(re.compile("edits=39(:|%3A)ablate"))
    quiet(page)
    assert page.get_by_text("39 is edited at 32 positions").is_visible()


def test_a_token_and_a_latent_of_a_language_model_are_clicked(page: Any, server: str) -> None:
    pytest.importorskip("transformers", reason="needs the extra lm")
    page.goto(f"{server}/language?text=Tom liked the red bridge of Fogport.")
    wait_title(page, "Language model tales")  # the first visit trains its SAE
    page.locator(".large .token[data-token='4']").click()
    page.wait_for_url(re.compile("token=4"))
    page.get_by_text("Active latents on 'bridge'").wait_for()
    rows = page.locator("button.latent")
    rows.nth(1).wait_for()
    latent = rows.nth(1).get_attribute("data-latent")
    rows.nth(1).click()
    page.wait_for_url(re.compile(f"latent={latent}(&|$)"))
    page.get_by_text(f"Colored by latent {latent}").wait_for()


def test_the_keys_go_through_the_layer(page: Any, server: str) -> None:
    page.goto(f"{server}/unit?unit=scenes/mixed4a:11")
    wait_title(page, "mixed4a:11")
    page.keyboard.press("n")
    wait_title(page, "mixed4a:12")
    page.keyboard.press("p")
    wait_title(page, "mixed4a:11")


@pytest.mark.parametrize("kind", ["PNG", "SVG", "PDF", "JSON", "CSV"])
def test_a_view_is_exported(page: Any, server: str, tmp_path: Path, kind: str) -> None:
    page.goto(f"{server}/unit?unit=scenes/mixed4a:11")
    wait_title(page, "mixed4a:11")
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name=kind, exact=True).click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    data = path.read_bytes()
    assert path.name == f"scenes-mixed4a-11.{kind.lower()}"
    if kind == "JSON":
        assert json.loads(data)["unit"] == "scenes/mixed4a:11"
    elif kind == "CSV":
        assert b"scenes/mixed3b:6" in data
    else:
        assert data.startswith({"PNG": b"\x89PNG", "SVG": b"<?xml", "PDF": b"%PDF"}[kind]) and len(data) > 5_000


def test_a_position_of_an_image_can_be_clicked(page: Any, server: str) -> None:
    page.goto(f"{server}/unit?unit=scenes/mixed4a:11&section=contributions")
    wait_title(page, "mixed4a:11")
    image_map = page.locator(".image_map")
    image_map.wait_for()
    image_map.click(position={"x": 20, "y": 20})
    page.wait_for_url(re.compile("position=0(,|%2C)0"))
    page.get_by_text("mixed3b at 0,0").wait_for()


def test_a_kernel_of_a_circuit_can_be_clicked_and_units_grouped(page: Any, server: str) -> None:
    page.goto(f"{server}/circuit?unit=scenes/mixed4a:11")
    wait_title(page, "mixed4a:11")
    page.locator("[data-edge='scenes/mixed3b:6>scenes/mixed4a:11']").click()
    page.get_by_text("on average; weights from").wait_for()
    page.locator("[data-unit='scenes/mixed3b:6']").first.click()
    quiet(page)
    page.locator("[data-unit='scenes/mixed3b:39']").first.click(modifiers=["Shift"])
    page.get_by_label("Group them as").fill("body and wheels")
    page.get_by_role("button", name="Group", exact=True).click()
    page.wait_for_url("**group=**")
    page.get_by_text("body and wheels (2)").first.wait_for()


@pytest.mark.parametrize("size", [(1280, 800), (420, 800)])
def test_the_whole_graph_is_in_sight_and_its_files_are_what_is_on_the_screen(
    browser: Any, server: str, tmp_path: Path, size: tuple[int, int]
) -> None:
    page = browser.new_context(viewport={"width": size[0], "height": size[1]}).new_page()
    page.set_default_timeout(WAIT)
    page.goto(f"{server}/circuit?unit=scenes/mixed4a:11&depth=2&prune=20")
    page.locator("[data-unit='scenes/mixed4a:11']").wait_for()
    quiet(page)
    stage = page.locator(".stage").bounding_box()
    boxes = [unit.bounding_box() for unit in page.locator("[data-unit] .back").all()]
    assert len(boxes) > 8
    for box in boxes:
        assert stage["x"] <= box["x"] and box["x"] + box["width"] <= stage["x"] + stage["width"]
        assert stage["y"] <= box["y"] and box["y"] + box["height"] <= stage["y"] + stage["height"]
        assert size[0] < 900 or min(box["width"], box["height"]) >= 40
    panel = page.locator(".panel").bounding_box()
    assert panel["y"] >= stage["y"] and panel["x"] + panel["width"] <= size[0], "beside or below the graph, never above"
    page.mouse.move(stage["x"] + 20, stage["y"] + stage["height"] / 2)
    for _ in range(6):
        page.mouse.wheel(0, -200)
    page.wait_for_url("**zoom=**")
    page.locator(".chip").wait_for(), "the target is out of the area: its picture leads to it"
    transform = page.locator(".stage svg > g").get_attribute("transform")
    page.reload()
    page.locator("[data-unit='scenes/mixed4a:11']").wait_for(state="attached")
    quiet(page)
    now = page.locator(".stage svg > g").get_attribute("transform")
    assert _numbers(now) == pytest.approx(_numbers(transform), abs=0.02 * stage["height"]), "the same part, as large"
    for kind in ("SVG", "PNG", "JSON"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Save as {kind}").click()
        waiting.value.save_as(tmp_path / kind)
    assert page.locator(".stage svg > g").get_attribute("transform") in (tmp_path / "SVG").read_text()
    assert (tmp_path / "PNG").read_bytes().startswith(b"\x89PNG")
    document = json.loads((tmp_path / "JSON").read_text())
    assert len(document["nodes"]) == len(boxes) and document["prune"] == 20 and document["address"] == page.url
    page.locator(".chip").click()
    page.locator("[data-unit='scenes/mixed4a:11']").click()
    page.wait_for_url("**selected=**")
    page.get_by_role("link", name="Open unit").wait_for()
    page.context.close()


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?[0-9.]+", text)]


def test_an_own_image_is_analyzed_and_a_hostile_one_is_refused(page: Any, server: str, tmp_path: Path) -> None:
    from PIL import Image

    Image.linear_gradient("L").convert("RGB").save(tmp_path / "own.png")
    (tmp_path / "bad.png").write_bytes(b"\x80\x04\x95 this is a pickle")
    page.goto(f"{server}/image?unit=scenes/mixed3b")
    quiet(page)
    page.locator("input[type=file]").set_input_files(tmp_path / "own.png")
    page.get_by_text("your image;").wait_for()
    page.locator("input[type=file]").set_input_files(tmp_path / "bad.png")
    page.get_by_text("this image cannot be used").wait_for()


def test_a_label_that_is_written_is_text_for_everybody(page: Any, browser: Any, server: str) -> None:
    page.goto(f"{server}/unit?unit=scenes/mixed3b:46&section=labels")
    wait_title(page, "mixed3b:46")
    page.get_by_label("Label", exact=True).fill("<img src=x onerror='window.ran=1'>window")
    page.get_by_label("Author").fill("eve")
    page.get_by_role("button", name="Save").click()
    page.wait_for_function("() => (document.querySelector('h3')?.innerText || '').includes('window')")
    other = browser.new_context().new_page()
    other.goto(f"{server}/layer?unit=scenes/mixed3b")
    quiet(other)
    other.get_by_text("<img src=x", exact=False).first.wait_for(timeout=WAIT)
    assert other.evaluate("window.ran") is None and page.evaluate("window.ran") is None
    other.context.close()


def test_no_request_goes_to_another_machine(page: Any, server: str) -> None:
    for path in ("", "/unit?unit=scenes/mixed4a:11", "/layer?unit=scenes/mixed4a", "/circuit?unit=scenes/mixed4a:11"):
        page.goto(server + path)
        quiet(page)
    assert not [url for url in page.requests if not url.startswith((server, "data:", "blob:"))]


@pytest.mark.skipif(os.name != "posix", reason="kills a process by its number")
def test_a_killed_server_leaves_store_and_labels_whole(browser: Any, made_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(made_store, store)
    port = free_port()
    command = Explore(store=store, port=port, allow_write=True)
    process = subprocess.Popen(command.command(), env=command.environment(), stdout=sys.stderr, stderr=sys.stderr)
    try:
        address = f"http://127.0.0.1:{port}"
        _answering(address)
        page = browser.new_context().new_page()
        page.set_default_timeout(WAIT)
        page.goto(f"{address}/jobs?unit=scenes/mixed4a")
        quiet(page)
        page.get_by_label("New job").click()
        page.get_by_role("option", name="Visualize a layer").click()
        quiet(page)
        page.get_by_role("button", name="Start").click()
        page.get_by_text("rendering positive visualizations").wait_for()
        page.goto(f"{address}/unit?unit=scenes/mixed3b:46&section=labels")
        quiet(page)
        page.get_by_label("Label", exact=True).fill("window")
        page.get_by_label("Author").fill("ann")
        page.get_by_role("button", name="Save").click()
        page.wait_for_function("() => (document.querySelector('h3')?.innerText || '').includes('window')")
    finally:
        process.kill()
        process.wait()
    page.wait_for_function(
        "getComputedStyle(document.querySelector('[data-testid=stApp]'), '::after').content.includes('does not answer')"
    )
    assert Labels(store).names("scenes")["scenes/mixed3b:46"] == "window"
    from apps.explorer.server.jobs import Jobs
    from circuits.dataset.scan_results import read_scan
    from tests.apps.explorer.test_jobs import wait

    assert len(read_scan(store, "scenes").layer("mixed4a")) == 48
    jobs = Jobs(store)
    job = wait(jobs, jobs.all()[0], lambda j: j.state != "running")
    assert job.state == "interrupted"
    assert jobs.resume(job.id).state == "running"
    jobs.cancel(job.id)
    wait(jobs, job, lambda j: j.state != "running")
