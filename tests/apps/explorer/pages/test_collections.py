"""Collections: whole or not there, checked, and the same as a file, in a link and on the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from apps.explorer.server.security import UploadError
from apps.explorer.session.collections import MOST, Collection, CollectionError, Collections
from circuits.errors import CircuitsError
from tests.apps.explorer.conftest import Open, texts
from tests.apps.explorer.pages.test_pages import elements

WHEELS = Collection(
    "wheels", "round <b>things</b>", (("scenes/mixed3b:39", "its kernel"), ("scenes/mixed4a:11", "a car, <i>whole</i>"))
)


def test_a_collection_comes_back_from_its_file_its_json_and_its_lines(tmp_path: Path) -> None:
    store = Collections(tmp_path)
    assert store.names() == [] and store.save(WHEELS) == WHEELS
    assert store.names() == ["wheels"] and store.read("wheels") == WHEELS
    assert Collection.parse(WHEELS.describe()) == WHEELS
    assert Collection.of_lines("wheels", WHEELS.notes, WHEELS.lines(), "scenes") == WHEELS
    assert store.add("wheels", "scenes/mixed3b:6", "window").units[-1] == ("scenes/mixed3b:6", "window")
    assert store.add("new.one", "scenes/mixed3b:6").units == (("scenes/mixed3b:6", ""),)
    assert Collection.of_lines("x", "", "mixed4a:11@2,3 a\nMixed4a:11 b", "scenes").units[0] == (
        "scenes/mixed4a:11",
        "a",
    )
    store.remove("wheels")
    with pytest.raises(CollectionError, match=r"no collection 'wheels' .*: new.one"):
        store.read("wheels")


@pytest.mark.parametrize(
    ("collection", "error"),
    [
        (Collection("../evil"), UploadError),
        (Collection("a", units=(("mixed4a:11", ""),)), CollectionError),
        (Collection("a", units=(("scenes/mixed4a", ""),)), CollectionError),
        (Collection("a", units=(("scenes/mixed4a:11", "x" * 501),)), UploadError),
        (Collection("a", units=tuple((f"scenes/mixed4a:{i}", "") for i in range(MOST + 1))), CollectionError),
    ],
)
def test_what_is_no_collection_is_refused_and_nothing_is_written(
    tmp_path: Path, collection: Collection, error: type[CircuitsError]
) -> None:
    with pytest.raises(error):
        Collections(tmp_path).save(collection)
    assert not list(tmp_path.rglob("*.json"))
    (tmp_path / "collections").mkdir()
    (tmp_path / "collections" / "bad.json").write_text('{"kind": "vision-circuits collection", "schema": 1, "name": 3}')
    with pytest.raises(CollectionError, match=r"bad\.json is damaged"):
        Collections(tmp_path).read("bad")


def test_the_page_shows_a_saved_collection_and_one_of_a_link(
    opened: Open, settings: Callable[..., None], store: Path
) -> None:
    Collections(store).save(WHEELS)
    settings(store)
    at = opened("collections", unit="scenes/mixed4a:11", collection="wheels")
    tiles = [t for data in elements(at) for t in data.get("tiles", ())]
    assert not at.error and [(t["unit"], t["note"]) for t in tiles] == list(WHEELS.units)
    assert tiles[0]["src"] and "wheel" in tiles[0]["name"] and "&lt;b&gt;" not in texts(at) and "<b>" not in texts(at)
    assert not [b for b in at.button if b.key == "collection-delete"], "read only"
    linked = opened("collections", unit="scenes/mixed4a:11", units="mixed3b:39,scenes/mixed4a:11,other/layer:2")
    tiles = [t for data in elements(linked) for t in data.get("tiles", ())]
    assert [t["unit"] for t in tiles] == ["scenes/mixed3b:39", "scenes/mixed4a:11", None]
    assert not linked.error and "no model" in texts(linked), "one of a model that is not open is listed as such"
    wrong = opened("collections", unit="scenes/mixed4a:11", collection="doors")
    assert len(wrong.error) == 1 and "wheels" in wrong.error[0].value


def test_a_collection_is_written_on_the_page_and_a_unit_is_added_on_its_own(
    opened: Open, settings: Callable[..., None], store: Path
) -> None:
    settings(store, allow_write=True)
    at = opened("collections", unit="scenes/mixed4a:11")
    next(field for field in at.text_input if field.label == "Name").set_value("cars")
    next(field for field in at.text_area if field.label.startswith("Units")).set_value("mixed4a:11 the car\nmixed3b:39")
    next(b for b in at.button if b.label == "Save").click().run()
    assert Collections(store).read("cars").units == (("scenes/mixed4a:11", "the car"), ("scenes/mixed3b:39", ""))
    unit = opened("unit", unit="scenes/mixed3b:6", section="labels")
    fields = {field.label: field for field in unit.text_input}
    fields["Collection"].set_value("cars")
    fields["Note"].set_value("body")
    next(b for b in unit.button if b.label == "Add").click().run()
    assert Collections(store).read("cars").units[-1] == ("scenes/mixed3b:6", "body")
    assert "cars" in texts(unit) and not unit.error
