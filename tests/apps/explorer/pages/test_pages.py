"""Every page, run without a browser: by its address, with its pickers, with a bad address, and with nothing to show."""

from __future__ import annotations

import ast
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import circuits
import sae
from apps.explorer.pages import PAGES
from apps.explorer.panes.crops import decoded
from apps.explorer.session import circuit_views, concepts, links, state, unit_search
from apps.explorer.session.state import locate
from apps.explorer.tours import TOURS
from circuits.dataset.scan_results import read_scan
from circuits.plot.drawing.wording import minus
from tests.apps.explorer.conftest import Open, settled, texts


@pytest.mark.parametrize("page", [p for p in PAGES if p != "language"])  # has a file of its own
def test_a_page_opens_by_its_address_without_an_error(opened: Open, page: str) -> None:
    at = opened(page, unit="scenes/mixed4a:11")
    assert not at.exception and not at.error
    assert at.subheader, "a page has a title"
    for block in at.code:
        if block.value.startswith(("import ", "from ")):
            check_names(block.value)


def check_names(code: str) -> None:
    """Every import of a page's Python code works, and every name of the two packages exists."""
    packages = {"circuits": circuits, "sae": sae}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), {})
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages:
            assert hasattr(packages[node.value.id], node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("page", [p for p in PAGES if p not in ("home", "superposition", "language")])
def test_a_bad_address_is_one_line_that_says_what_there_is(opened: Open, page: str) -> None:
    at = opened(page, unit="scenes/mixed4x:11")
    assert not at.exception
    assert len(at.error) == 1 and "has no layer" in at.error[0].value and "mixed4a" in at.error[0].value


def test_the_address_box_opens_addresses_and_searches_other_words(opened: Open) -> None:
    at = opened("unit", unit="scenes/mixed4a:11")
    at.text_input(key="address_box").set_value("car").run()
    assert not at.error and at.subheader[0].value == "Search car"
    at.text_input(key="address_box").set_value("mixed3b:39").run()
    assert at.subheader[0].value.startswith("mixed3b\\:39")
    at.text_input(key="address_box").set_value("mixed9x:39").run()
    assert len(at.error) == 1 and "has no layer" in at.error[0].value


def test_any_alias_of_a_unit_opens_that_unit(opened: Open) -> None:
    for alias in ("mixed4a:11", "scenes/Mixed4A:11", "scenes/mixed4a_3x3:3"):
        at = opened("unit", unit=alias)
        assert not at.error, alias
        assert at.subheader[0].value.startswith("mixed4a\\:"), alias


def test_the_unit_page_shows_what_the_scan_found(opened: Open) -> None:
    at = opened("unit", unit="scenes/mixed3a:11")
    assert at.text_input(key="address_box").placeholder == "mixed3a:11 or scenes/conv2d0", "of what is open"
    at = opened("unit", unit="scenes/mixed4a:11")
    assert "of 60 images" in texts(at)
    assert "mixed3b:6" in texts(at), "its strongest input"
    assert "others add up to" in texts(at), "what is not shown is added up"


def test_the_menu_keeps_the_unit_and_the_tab_is_called_after_it(opened: Open) -> None:
    for page, params in (("unit", {"unit": "scenes/mixed4a:11"}), ("home", {"unit": "scenes/mixed4a:11"})):
        at = opened(page, settle=False, **params)
        menu = {link.proto.page: link.proto.query_string for link in at.sidebar.get("page_link")}
        assert len(menu) == len(PAGES) and set(menu.values()) == {"unit=scenes%2Fmixed4a%3A11"}, page
    at = opened("unit", settle=False)  # a new session, without a unit in the address
    links_of = [link.proto.query_string for link in at.sidebar.get("page_link")]
    assert all(text.startswith("unit=scenes%2F") for text in links_of), "the unit that it opened on"


def test_the_address_box_opens_what_is_typed(opened: Open) -> None:
    at = opened("unit", unit="scenes/mixed4a:11")
    at.sidebar.text_input(key="address_box").input("mixed3b:6").run()
    assert settled(at).subheader[0].value.startswith("mixed3b\\:6")


def test_the_pickers_follow_the_address_and_change_it(opened: Open) -> None:
    at = opened("unit", unit="scenes/mixed4a:11")
    assert at.sidebar.selectbox(key="pick_layer").value == "mixed4a"
    at.sidebar.number_input(key="pick_unit").set_value(20).run()
    assert settled(at).subheader[0].value.startswith("mixed4a\\:20")
    at.sidebar.selectbox(key="pick_layer").set_value("mixed3b").run()
    assert settled(at).subheader[0].value == "mixed3b", "a layer opens as its wall"


def test_previous_and_next_go_through_the_layer(opened: Open) -> None:
    at = opened("unit", unit="scenes/mixed4a:0")
    assert at.button(key="previous").disabled
    at.button(key="next").click().run()
    assert settled(at).subheader[0].value.startswith("mixed4a\\:1")


@pytest.mark.parametrize("examples", ["bands", "random", "near", "negative"])
def test_the_kind_of_examples_is_part_of_the_address(opened: Open, examples: str) -> None:
    at = opened("unit", unit="scenes/mixed4a:11", examples=examples)
    assert at.session_state["examples"] == examples
    assert not at.error


def test_heatmaps_and_whole_images_are_shown(opened: Open) -> None:
    for crop in ("image", "heatmap"):
        at = opened("unit", unit="scenes/mixed4a:11", crop=crop)
        assert not at.error and "data:image/jpeg" in texts(at)


@pytest.mark.parametrize("section", ["contributions", "tuning", "similar", "polysemanticity", "labels"])
def test_a_section_of_the_unit_page_opens_by_its_address(opened: Open, section: str) -> None:
    at = opened("unit", unit="scenes/mixed4a:11", section=section)
    assert not at.error and not at.exception


def test_links_of_version_0_1_open_the_same_views(opened: Open) -> None:
    old = {"section": "sum", "picture": "3", "place": "2,4", "shown": "heat"}
    at = opened("unit", unit="scenes/mixed4a:11", **old)
    assert not at.error and not at.exception
    assert (at.session_state["section"], at.session_state["crop"]) == ("contributions", "heatmap")
    assert "mixed3b at 2,4" in texts(at)
    at = opened("layer", unit="scenes/mixed3b", sort="likeness", like="scenes/mixed3b:39", face="made")
    assert not at.error and (at.session_state["sort"], at.session_state["tile"]) == ("similarity", "visualization")
    at = opened("search", **{"way": "name", "words": "wheel"})
    assert "mixed3b:39" in texts(at)


def test_every_renamed_value_of_a_link_is_one_that_its_page_has() -> None:
    from apps.explorer.panes.layer import wall
    from apps.explorer.panes.sae import latents
    from apps.explorer.panes.unit import examples
    from apps.explorer.session.ordering import ORDERS

    views = "".join(entry.file.read_text() for entry in PAGES.values())
    for (name, old), new in links.RENAMED_VALUES.items():
        assert f'"{new}"' in views or new in {**ORDERS, **latents.ORDERS, **examples.CROPS, **wall.TILES}, (name, old)
    assert links.updated({"place": "1,1", "position": "2,2"}) == {"position": "2,2"}, "a present name wins"


def test_the_terms_of_a_sum_add_up_to_the_value(opened: Open) -> None:
    from apps.explorer.panes.unit.contributions import contributions_at
    from circuits.network.model import load
    from zoo.images.sources import open_images

    model, images = load("scenes"), open_images("scenes:4")
    for position in ((0, 0), (3, 4), (7, 7)):
        result = contributions_at(model, model.unit("mixed4a:11"), images, 1, position)
        assert result.error < 1e-5
        ends = [step for step in result.steps if step.kind == "sum"]
        assert ends[-1].value == pytest.approx(sum(s.value for s in result.steps if s.kind != "sum"), abs=1e-5)


def test_a_position_out_of_range_is_one_line(opened: Open) -> None:
    for bad in ({"image": "60"}, {"position": "99,0"}, {"image": "-1"}, {"position": "a,b"}):
        at = opened("unit", unit="scenes/mixed4a:11", section="contributions", **bad)
        assert len(at.error) == 1 and not at.exception, bad


@pytest.mark.parametrize("sort", ["number", "density", "selectivity", "maximum", "label", "similarity"])
def test_the_wall_sorts(opened: Open, sort: str) -> None:
    at = opened("layer", unit="scenes/mixed3b", sort=sort)
    assert not at.error
    assert ("wheel" in texts(at)) is True


def test_the_wall_by_density_is_in_falling_order(made_store: Path) -> None:
    from apps.explorer.session.ordering import order

    layer = read_scan(made_store, "scenes").layer("mixed3b")
    ranked, _ = order(layer, "density", labels={})
    assert sorted(ranked) == list(range(len(layer)))
    assert all(layer.density[a] >= layer.density[b] for a, b in zip(ranked, ranked[1:], strict=False))


def test_a_unit_is_found_by_its_name_and_by_a_pattern(opened: Open) -> None:
    assert "mixed3b:39" in texts(opened("search", query="WHEEL"))
    at = opened("search", search="address", pattern="mixed4a:1?")  # a link of the version before
    assert "10 units match" in texts(at)
    assert "0 labels" in texts(opened("search", query="no such thing"))


def test_units_are_found_by_the_name_of_a_class_and_by_the_images_that_activate_them(
    opened: Open, made_store: Path
) -> None:
    model, scan = circuits.load("scenes"), read_scan(made_store, "scenes")
    at = opened("search", query="TRUCK")
    assert not at.error and f"scenes/softmax_pre:{model.classes.index('truck')}" in texts(at)
    assert not at.get("progress"), "nothing is computed before a concept is chosen"
    expected = {}
    for space, count in scan.layers.items():
        for i in range(count):
            trucks = sum(scan.labels[example.image] == "truck" for example in scan.unit(f"{space}:{i}").top[:9])
            if trucks >= 5:
                expected[f"scenes/{space}:{i}"] = trucks
    assert expected, "the test looks at something"
    units = {row.unit: row.count for row in unit_search.by_top_images(locate("scenes/mixed4a"), "truck")[0]}
    assert units == expected
    assert unit_search.by_address(locate(None), "logits:truck") == [str(model.unit("logits:truck"))]


def test_the_python_of_a_concept_gives_the_images_that_the_page_compares(opened: Open) -> None:
    at = opened("search", unit="scenes/mixed3b:39", settle=False)
    for name in ("car", "wheel"):
        positive, negative = concepts.concept_images(locate("scenes/mixed3b"), name)
        scope = {"images": state.images_of(locate("scenes/mixed3b"))}
        exec(concepts.code(locate("scenes/mixed3b"), name), scope)
        assert (scope["positive"].ids, scope["negative"].ids) == (positive.ids, negative.ids) and positive.ids
    assert not at.exception


@pytest.mark.slow
def test_units_are_found_by_a_concept_against_chance(opened: Open) -> None:
    at = opened("search", search="concept", concept="car", unit="scenes/mixed4a")
    assert not at.error
    assert "with labels shuffled" in texts(at)
    code = next(block.value for block in at.code if "circuits.find" in block.value)
    scope: dict[str, object] = {}
    exec(code, scope)
    for row in scope["findings"].rows[:48]:
        assert f"{row.auc:.3f}" in texts(at)


def test_a_wall_hides_dead_units_and_shows_four_images(opened: Open, made_store: Path) -> None:
    layer = read_scan(made_store, "scenes").layer("mixed4a")
    dead = int((layer.active_images == 0).sum())
    assert dead
    at = opened("layer", unit="scenes/mixed4a")
    assert f"{dead} that no image activates are hidden" in texts(at)
    assert texts(at).count("never active") == 0
    at = opened("layer", unit="scenes/mixed4a", units="all", tile="four")
    tiles = tiles_of(at)
    assert len(tiles) == len(layer) and sum(tile["src"] is None for tile in tiles) == dead
    image = decoded(next(tile["src"] for tile in tiles if tile["src"]))
    unit = layer.unit(next(i for i, tile in enumerate(tiles) if tile["src"]))
    assert image.shape == (128, 128, 3) and len({e.image for e in unit.top[:4]}) == 4
    corners = [image[y : y + 64, x : x + 64].astype(int) for y in (0, 64) for x in (0, 64)]
    assert all(np.abs(a - b).mean() > 2 for a, b in itertools.combinations(corners, 2)), "four images"


@pytest.mark.slow
def test_a_wall_sorts_by_polysemanticity(opened: Open, made_store: Path) -> None:
    at = opened("layer", unit="scenes/mixed4a", sort="polysemanticity")
    assert not at.error
    scan = read_scan(made_store, "scenes")
    examples = {f"scenes/mixed4a:{i}": scan.unit(f"mixed4a:{i}").top[:64] for i in range(48)}
    examples = {unit: top for unit, top in examples.items() if len(top) >= 12}
    result = circuits.polysemantic(
        circuits.load("scenes"), list(examples), images=scan.images(check=False), examples=examples
    )
    judged = [tile["unit"] for tile in tiles_of(at)][: len(result.rows)]
    scores = {row.unit: row.score for row in result.rows}
    assert [scores[unit] for unit in judged] == sorted(scores.values(), reverse=True)


def tiles_of(at: AppTest) -> list[dict[str, Any]]:
    """The tiles of a wall."""
    return next(data["tiles"] for data in elements(at) if "units of" in data.get("label", ""))


def test_a_circuit_is_traced_and_scored(opened: Open) -> None:
    at = opened("circuit", unit="scenes/mixed4a:11")
    assert "mixed3b:6" in texts(at)
    at = opened("circuit", unit="scenes/mixed4a:11", panel="score")
    assert "random circuits" in texts(at) and not at.error
    at = opened("circuit", unit="scenes/mixed4a:11", panel="sizes")
    assert "over all positions of half of the images" in texts(at) and not at.error


def test_a_unit_that_is_never_active_has_no_circuit_but_keeps_its_navigation(opened: Open, made_store: Path) -> None:
    active = read_scan(made_store, "scenes").layer("mixed4a").active_images
    dead = int(np.flatnonzero(active == 0)[0])
    at = opened("circuit", unit=f"scenes/mixed4a:{dead}")
    assert len(at.error) == 1 and at.subheader[0].value.startswith(f"mixed4a\\:{dead}")
    assert {"previous", "next"} <= {button.key for button in at.button}


def test_a_saved_circuit_opens_with_its_view_which_the_address_changes(
    opened: Open, settings: Callable[..., None], store: Path
) -> None:
    circuit = circuits.trace(circuits.load("scenes"), "mixed4a:11", images="scenes:20", width=2, by="weights")
    parent = circuit.edges[0].source
    document = circuit_views.document(circuit, circuit_views.View(0.2, (parent,)))
    (store / "scenes" / "circuits").mkdir()
    (store / "scenes" / "circuits" / "mine.json").write_text(state.to_json(document))
    settings(store)
    at = opened("circuit", unit="scenes/mixed3b:2", file="mine")
    assert not at.error and at.subheader[0].value.startswith("mixed4a\\:11"), "the circuit's own target"
    assert at.query_params["unit"] == "scenes/mixed4a:11"
    graph = graph_of(at)
    assert (graph["prune"], graph["pins"]) == (20, [parent])
    assert graph["saved"] == [{"name": "mine", "href": "circuit?unit=scenes/mixed4a:11&file=mine"}]
    graph = graph_of(opened("circuit", unit="scenes/mixed4a:11", file="mine", pin="none", prune="0"))
    assert (graph["prune"], graph["pins"]) == (0, [])
    assert "prune is a number" in opened("circuit", unit="scenes/mixed4a:11", file="mine", prune="x").error[0].value


def graph_of(at: AppTest) -> dict[str, Any]:
    """The data of a circuit's graph."""
    return next(data for data in elements(at) if "columns" in data)


def elements(at: AppTest) -> list[dict[str, Any]]:
    """The data of the page's elements."""
    return [json.loads(e.proto.json) for e in at.get("bidi_component") if hasattr(e.proto, "json") and e.proto.json]


def test_the_circuit_page_counts_from_the_baseline_of_its_address(opened: Open) -> None:
    at = opened("circuit", unit="scenes/mixed4a:11", baseline="zero", by="gradient", panel="score")
    assert not at.error and at.selectbox(key="baseline").value == "zero"
    assert "set to zero" in texts(at) and "% of the mask's share" in texts(at).replace("\\", "")
    scope: dict[str, Any] = {}
    exec(next(block.value for block in at.code if "import circuits" in block.value), scope)
    circuit, score, curve = (scope[name] for name in ("circuit", "score", "curve"))
    assert score.baseline == curve.baseline == circuit.provenance["baseline"] == "zero" and circuit.by == "gradient"
    drawn = {node["unit"] for node in graph_of(at)["nodes"]}
    assert drawn == {node.unit for node in circuit.nodes}, "the Python traces the same circuit"
    assert f"Faithfulness {minus(f'{score.faithfulness:.2f}')}" in texts(at), "and gives the same numbers"
    at = opened("circuit", unit="scenes/mixed4a:11", baseline="zero", by="gradient", panel="sizes")
    above = f"above {curve.percentile:.0f} % of 10 random curves among the strongest"
    assert f"CPR {curve.cpr.value:.2f}, {above}" in texts(at) and f"CMD {curve.cmd.value:.2f}: " in texts(at)
    at = opened("circuit", unit="scenes/mixed4a:11", baseline="resample", by="integrated", panel="sizes")
    assert not at.error and "ranked by integrated" in texts(at) and "baseline resample" in texts(at)
    at = opened("circuit", unit="scenes/mixed4a:11", baseline="median")
    assert not at.exception


def test_an_image_is_analyzed(opened: Open) -> None:
    for section in ("position", "class"):
        at = opened("image", unit="scenes/mixed4a", image=4, section=section)
        assert not at.error and not at.exception, section
    assert "shuffled" in texts(at), "the map of a class comes with its control"


@pytest.mark.parametrize("section", ["position", "class"])
def test_the_python_of_an_image_gives_the_numbers_of_its_page(opened: Open, section: str) -> None:
    at = opened("image", unit="scenes/mixed4a", image=4, section=section, position="2,3")
    scope: dict[str, Any] = {}
    exec(next(block.value for block in at.code if "import circuits" in block.value), scope)
    if section == "class":
        total = minus(f"{float(scope['attribution'].values.sum()):+.3g}")
        assert f"{total} in total" in texts(at)
        notes = [minus(f"{value:+.3g}") for _, value in scope["attribution"].top(10)]
    else:
        notes = [f"{value:.3g}" for value in scope["dictionary"].entries[0].values if value > 0]
    tiles = next(data["tiles"] for data in elements(at) if "tiles" in data)
    assert len(tiles) == len(notes) and all(note in tile["note"] for tile, note in zip(tiles, notes, strict=True))


def test_a_toy_model_is_trained_and_shown(opened: Open) -> None:
    at = opened("superposition", n=3, m=2)
    assert not at.error
    assert at.metric[0].label == "Represented features"


@pytest.mark.slow
def test_a_tour_leads_from_view_to_view(opened: Open) -> None:
    at = opened("home")
    at.button(key="begin-car").click().run()
    assert at.subheader[0].value.startswith("mixed4a\\:11") and "A unit for cars" in texts(at)
    for tour in TOURS.values():
        for number, step in enumerate(tour.steps, 1):
            at = opened(step.page, **step.params, tour=tour.name, step=number)
            assert not at.error and not at.exception, (tour.name, number)
            assert f"{number} of {len(tour.steps)}" in texts(at)
            buttons = {b.key for b in at.button}
            assert ("tour-next" in buttons) == (number < len(tour.steps))


def test_without_a_scan_a_page_says_which_command_makes_one(
    opened: Open, settings: Callable[..., None], store: Path
) -> None:
    (store / "scenes" / "manifest.json").rename(store / "scenes" / "away.json")
    (store / "other").mkdir()
    (store / "other" / "manifest.json").write_text('{"kind": "vision-circuits scan", "model": "squeezenet-1.1"}')
    settings(store, model="scenes")
    for page in ("unit", "layer", "circuit", "image", "steering"):
        at = opened(page, unit="scenes/mixed4a:11")
        assert not at.exception
        assert "circuits scan scenes --images scenes:500" in texts(at).replace("\\", ""), page


def test_a_layer_that_was_not_scanned_says_so(opened: Open) -> None:
    at = opened("layer", unit="scenes/conv2d0")
    assert len(at.error) == 1 and "not in the scan" in at.error[0].value


@pytest.mark.slow
def test_the_first_start_makes_a_small_store(
    tmp_path: Path, settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from apps.explorer.server import first_run
    from circuits.dataset.scan_store import models_in
    from tests.apps.explorer.conftest import APP

    monkeypatch.setattr(first_run, "IMAGES", "scenes:30")
    settings(tmp_path / "store")
    at = AppTest.from_file(str(APP), default_timeout=60)
    at.run()
    assert "This happens once" in texts(at) and at.get("progress")
    end = time.monotonic() + 90
    while not models_in(tmp_path / "store") and time.monotonic() < end:
        time.sleep(0.2)
    at.run()
    assert not at.error and at.subheader[0].value == "Circuits"
