"""A published site: every link leads somewhere, every image is the unit's, and hostile names stay text."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

import circuits
from circuits.dataset.scan_results import Scan
from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.plot.drawing import crops
from circuits.plot.site.pages import histogram
from circuits.plot.site.tiles import sheet_of
from circuits.units.dossier.neighbor_weights import layer_neighbor_weights, neighbor_weights
from tests.circuits.plot.pages import HOSTILE, Page
from zoo.cards import CARDS

LAYERS = ["conv2d1", "mixed3b", "mixed4a", "softmax_pre"]
SMALL = ["conv2d1", "softmax_pre"]
EVIL = "a\"><img src=x onerror=alert(1)> '&%23 ü"
"""Of files and folders of images: what a file system takes."""


@pytest.fixture(scope="module")
def model() -> Model:
    return circuits.load("scenes")


@pytest.fixture(scope="module")
def scan(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Scan:
    folder = tmp_path_factory.mktemp("site")
    for kind in (EVIL, "plain"):
        (folder / "images" / kind).mkdir(parents=True)
        for i, pixels in enumerate(_scenes(8, seed=len(kind))):
            Image.fromarray(pixels).save(folder / "images" / kind / f"{EVIL[:20]}{i}.png")
    return circuits.scan(model, folder / "images", folder / "store", layers=LAYERS)


def _scenes(n: int, seed: int) -> list[np.ndarray]:
    from zoo.images.sources import open_images
    from zoo.inputs import InputSpec

    batch = open_images(f"scenes:{n}@{seed}").tensor(InputSpec(size=128))
    return [np.asarray(np.rint(image.numpy().transpose(1, 2, 0) * 255), np.uint8) for image in batch]


@pytest.fixture(scope="module")
def circuit(model: Model, scan: Scan) -> circuits.Circuit:
    return circuits.trace(model, "mixed4a:11", images=scan.images(), by="weights", width=3)


@pytest.fixture(scope="module")
def site(model: Model, scan: Scan, circuit: circuits.Circuit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "site"
    picture = folder.parent / "seen.png"
    Image.new("RGB", (48, 48), (200, 30, 60)).save(picture)
    circuits.publish(
        model, scan, folder,
        labels={"scenes/mixed4a:11": HOSTILE, "scenes/mixed3b:6": "wheel"},
        circuits={"car parts": circuit},
        visualizations={"scenes/mixed4a:11": [picture]},
        polysemanticity={"scenes/mixed4a:11": 0.25},
        command=f"circuits publish {HOSTILE}",
    )  # fmt: skip
    return folder


class _Refs(Page):
    """What a page refers to, also by its style."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.refs += re.findall(r'url\("([^"]*)"\)', text)


def test_every_link_leads_to_a_file_and_every_unit_has_a_page(site: Path, scan: Scan) -> None:
    pages = sorted(site.rglob("*.html"))
    units = {site / "layers" / layer / f"{i}.html" for layer in LAYERS for i in range(scan.layers[layer])}
    assert units <= set(pages) and (site / "index.html") in pages
    reached, todo = {site / "index.html"}, [site / "index.html"]
    while todo:
        page = todo.pop()
        for ref in _Refs(page.read_text("utf-8")).refs:
            if ref.startswith(("data:image/", "#")):
                continue
            parts = urlsplit(ref)
            assert not parts.scheme and not parts.netloc and not parts.query, (page, ref)
            file = (page.parent / unquote(parts.path)).resolve()
            assert file.is_file() and file.is_relative_to(site.resolve()), (page, ref)
            if file.suffix == ".html" and file not in reached:
                reached.add(file)
                todo.append(file)
    assert {page.resolve() for page in pages} == {page.resolve() for page in reached}
    search = json.loads((site / "search.js").read_text().removeprefix("window.siteUnits = ").rstrip(";\n"))
    assert [(layer["name"], layer["units"]) for layer in search] == [(layer, scan.layers[layer]) for layer in LAYERS]
    assert all((site / layer["path"] / f"{layer['units'] - 1}.html").is_file() for layer in search)
    assert search[-1]["labels"] == {str(i): name for i, name in enumerate(circuits.load("scenes").classes)}


def test_hostile_names_stay_text_and_scripts_come_from_the_site_only(site: Path) -> None:
    for name in ("index.html", "layers/mixed4a/index.html", "layers/mixed4a/11.html", "layers/mixed3b/6.html"):
        text = (site / name).read_text("utf-8")
        page = _Refs(text)  # it refuses attributes like onerror
        assert page.tags.count("script") == 1 and '<script src="' in text
        assert "script-src 'self'" in text and "default-src 'none'" in text
        assert "\x00" not in text and "\u202e" not in text
    assert HOSTILE[:20] in _Refs((site / "layers/mixed4a/11.html").read_text("utf-8")).text
    assert "<" not in (site / "search.js").read_text().replace('<script>alert(\\"x\\")</script>', "")
    assert "innerHTML" not in (site / "site.js").read_text()


def _tile(path: Path, number: int, columns: int, rows: int) -> np.ndarray:
    image = np.asarray(Image.open(path).convert("RGB"), np.float64)
    height, width = image.shape[0] // rows, image.shape[1] // columns
    y, x = divmod(number, columns)
    return image[y * height : (y + 1) * height, x * width : (x + 1) * width]


def test_images_are_the_receptive_fields_of_the_units_examples(site: Path, scan: Scan) -> None:
    layer, count = "mixed4a", scan.layers["mixed4a"]
    for index in (11, 20, count - 1):
        unit = scan.unit(f"scenes/{layer}:{index}")
        if not unit.top:
            continue
        examples = [*unit.top[:10], *unit.random[:5]]
        right = crops.cut_examples({"": examples}, scan.images(), scan.input_spec)[""]
        columns = min(5, len(examples))
        rows = -(-len(examples) // columns)
        for number, crop in enumerate(right):
            tile = _tile(site / f"layers/{layer}/{index}.webp", number, columns, rows)
            wanted = crops.resized(crop, len(tile)).astype(np.float64)
            others = [crops.resized(c, len(tile)) for c in right if not np.array_equal(c, crop)]
            own = np.abs(tile - wanted).mean()
            assert own < 12 and all(own < np.abs(tile - other).mean() for other in others)
        sheet, number, tiles = sheet_of(index, count)
        thumb = _tile(site / f"layers/{layer}/sheet-{sheet}.webp", number, tiles.columns, tiles.rows)
        assert np.abs(thumb - crops.resized(right[0], len(thumb))).mean() < 14


@pytest.mark.parametrize("direction", ["in", "out"])
def test_weights_of_a_whole_layer_are_those_of_each_unit(model: Model, direction: str) -> None:
    rows = list(layer_neighbor_weights(model, "mixed3b", direction, 5, max_memory=10_000))  # type: ignore[arg-type]
    assert len(rows) == 48
    for index in (0, 6, 39, 47):
        single = neighbor_weights(model, f"mixed3b:{index}", direction, 5)  # type: ignore[arg-type]
        row = rows[index]
        assert (row.unit, row.layer, row.start, row.count, row.offset) == (
            single.unit, single.layer, single.start, single.count, single.offset,
        )  # fmt: skip
        assert [r.unit for r in row.rows] == [r.unit for r in single.rows]
        for one_of_all, alone in zip(row.rows, single.rows, strict=True):
            np.testing.assert_allclose(one_of_all.kernel, alone.kernel, rtol=1e-5, atol=1e-7)
            assert one_of_all.share == pytest.approx(alone.share, rel=1e-4)
        if single.rest is not None and row.rest is not None:
            np.testing.assert_allclose(row.rest, single.rest, rtol=1e-4, atol=1e-6)


def test_a_page_shows_the_numbers_of_the_scan(site: Path, scan: Scan, model: Model) -> None:
    text = _Refs((site / "layers/mixed4a/11.html").read_text("utf-8")).text
    unit = scan.unit("scenes/mixed4a:11")
    strongest = neighbor_weights(model, "mixed4a:11").rows[0]
    assert f"{unit.active_images} of 16 images" in text and f"{100 * unit.density:.3g} % of positions" in text
    assert f"mixed3b:{strongest.unit.rpartition(':')[2]}" in text and f"{100 * strongest.share:.2g} %" in text
    assert "0.25" in text and "car parts" in text
    wall = (site / "layers/mixed4a/index.html").read_text("utf-8")
    dead = int((scan.layer("mixed4a").active_images == 0).sum())
    assert wall.count('class="dead-unit"') == dead > 0
    never = int((scan.layer("mixed4a").active_images == 0).argmax())
    assert "mean where active" in text
    assert "mean where active" not in (site / f"layers/mixed4a/{never}.html").read_text("utf-8")
    score = histogram(scan.unit("scenes/softmax_pre:0"))  # one position an image: few in a bar
    heights = [int(h) for h in re.findall(r"v-(\d+)", score)]
    assert (
        heights
        and min(heights) >= 20
        and "softmax_pre is read by no" in (site / "layers/softmax_pre/0.html").read_text()
    )


def test_a_stopped_call_is_resumed_and_ends_in_the_same_bytes(model: Model, scan: Scan, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > scan.layers["conv2d1"]:
            raise KeyboardInterrupt

    whole = circuits.publish(model, scan, tmp_path / "whole", layers=SMALL)
    with pytest.raises(KeyboardInterrupt):
        circuits.publish(model, scan, tmp_path / "site", layers=SMALL, progress=stop)
    assert not (tmp_path / "site" / "index.html").exists()
    (tmp_path / "site" / "notes.txt").write_text("mine")
    resumed = circuits.publish(model, scan, tmp_path / "site", layers=SMALL)
    assert whole.written == tuple(SMALL) and resumed.written == ("softmax_pre",)
    names = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*") if p.is_file())
    assert [n for n in names if (tmp_path / "site" / n).read_bytes() != (tmp_path / "whole" / n).read_bytes()] == [
        Path("index.html")  # it names the folder
    ]
    again = circuits.publish(model, scan, tmp_path / "site", layers=SMALL)
    assert again.written == () and (tmp_path / "site" / "notes.txt").read_text() == "mine"
    labeled = circuits.publish(model, scan, tmp_path / "site", layers=SMALL, labels={"scenes/conv2d1:3": "edges"})
    assert labeled.written == ("conv2d1",)  # units of no other published layer are beside it
    assert "edges" in (tmp_path / "site/layers/conv2d1/3.html").read_text()
    with pytest.raises(CircuitsError, match=r"holds a site with top 10, not 4: .*--replace"):
        circuits.publish(model, scan, tmp_path / "site", layers=SMALL, top=4)
    again = circuits.publish(
        model, scan, tmp_path / "site", layers=["conv2d1", "logits"], labels={"scenes/conv2d1:3": "edges"}
    )
    assert again.written == (), "logits is the layer of class scores"
    with pytest.raises(CircuitsError, match="holds the scan"):
        circuits.publish(model, scan, scan.folder)
    with pytest.raises(CircuitsError, match="no layer 'mixed4x'"):
        circuits.publish(model, scan, tmp_path / "other", layers=["mixed4x"])
    with pytest.raises(CircuitsError, match="other weights"):
        circuits.publish(circuits.load("scenes", weights="random"), scan, tmp_path / "other")
    assert not (tmp_path / "other").exists()


CODE = """
from torch import nn
def make():
    c = nn.Conv2d
    features = c(3, 4, 3), nn.ReLU(), c(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(4, 2))
"""


def test_no_folder_of_the_users_machine_is_on_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.networks import own

    home = tmp_path / "my work"
    (home / "code").mkdir(parents=True)
    code = home / "code" / "private.py"
    code.write_text(CODE)
    monkeypatch.setattr(own, "_ADDED", {})
    monkeypatch.setattr(CARDS, "_things", dict(CARDS.items()))
    own.add(own.parse(f"{code}:make", input='{"size": 16}'))
    mine = circuits.load("private")
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    scan = circuits.scan(mine, images, home / "store")
    unit = f"3:{scan.layer('3').active_images.argmax()}"
    circuit = circuits.trace(mine, unit, images=images, by="weights")
    command = f"circuits publish '{home}/store' --model '{code}:make' --images=/elsewhere/photos --out site"
    circuits.publish(mine, scan, home / "site", images=images, circuits={"one": circuit}, command=command)
    files = [path for path in (home / "site").rglob("*") if path.suffix in (".html", ".js", ".json")]
    texts = {str(path.relative_to(home / "site")): path.read_text("utf-8") for path in files}
    assert not [name for name, text in texts.items() if "my work" in text or "elsewhere" in text]
    assert (
        "own.parse(&#39;private.py:make&#39;" in texts["index.html"] and "private.py:make" in texts["circuits/one.html"]
    )
    assert "circuits publish &#39;store&#39; --model &#39;private.py:make&#39; --images=photos" in texts["index.html"]


def test_a_page_of_somebody_elses_is_not_overwritten(model: Model, scan: Scan, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(CircuitsError, match="index.html, and no site"):
        circuits.publish(model, scan, tmp_path, layers=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_latents_of_an_attached_sae_have_pages(model: Model, scan: Scan, tmp_path: Path) -> None:
    own = circuits.load("scenes")
    own.attach("mixed3b", "parts", circuits.Directions(torch.eye(48)[:5]))
    latents = circuits.scan(own, scan.images(), tmp_path / "store", layers=["mixed3b~parts"])
    site = circuits.publish(own, latents, tmp_path / "site")
    assert site.layers == {"mixed3b~parts": 5}
    text = (tmp_path / "site/layers/mixed3b~parts/2.html").read_text("utf-8")
    single = neighbor_weights(own, "mixed3b~parts:2")
    assert all(row.unit.partition("/")[2] in text for row in single.rows[:3])
    with pytest.raises(CircuitsError, match="--sae parts=FOLDER"):
        circuits.publish(circuits.load("scenes"), latents, tmp_path / "site")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_searches_sorts_and_previews_from_the_disk(site: Path, scan: Scan, scheme: str) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = next((p for p in (shutil.which("chromium"), shutil.which("google-chrome")) if p), None)
    if chromium is None:
        pytest.skip("needs chromium")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (420, 1280, 1920):
            page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
            wrong: list[str] = []
            page.on("console", lambda message, wrong=wrong: wrong.append(message.text))
            page.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
            page.on("requestfailed", lambda request, wrong=wrong: wrong.append(request.url))
            names = ("index.html", "layers/mixed4a/index.html", "layers/mixed4a/11.html", "circuits/car%20parts.html")
            for name in names:
                page.goto(f"{site.as_uri()}/{name}")
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, width)
            page.goto(f"{site.as_uri()}/layers/mixed3b/6.html")
            page.fill("#search", "wheel")
            page.wait_for_selector("#results a")
            assert page.locator("#results a").get_attribute("href").endswith("layers/mixed3b/6.html")
            page.fill("#search", "mixed4a:11")
            assert page.locator("#results a .label").inner_text().startswith("<script>")
            page.goto(f"{site.as_uri()}/layers/mixed4a/index.html#sort=density")
            numbers = [int(t.partition(" ")[0][1:]) for t in page.locator("#wall a:visible").all_inner_texts()]
            density = scan.layer("mixed4a").density
            assert numbers == sorted(numbers, key=lambda i: (-round(density[i], 6), i)) and 0 < len(numbers) < 48
            page.select_option("#sort", "polysemanticity")
            assert page.url.endswith("#sort=polysemanticity")
            assert page.locator("#wall a").first.inner_text()[:3] == ":11"
            page.locator("#wall a:visible").first.hover()
            assert page.locator(".preview").count() == 1
            page.keyboard.press("/")
            assert page.evaluate("document.activeElement.id") == "search"
            page.goto(f"{site.as_uri()}/layers/mixed4a/11.html")
            page.keyboard.press("n")
            page.wait_for_url("**/12.html")
            assert not wrong, wrong
        browser.close()
