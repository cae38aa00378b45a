"""What `circuits scan --visualize --polysemantic` makes beside a scan, and that a unit's page shows it at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import circuits
from apps.explorer.panes.unit import polysemanticity
from apps.explorer.resources import layer_polysemanticity, prepared
from circuits.dataset.scan_results import read_scan
from tests.apps.explorer.conftest import Open, texts
from tests.apps.terminal import Cli

UNIT = "scenes/mixed4a:11"


def test_a_page_has_it_at_the_first_click_and_nothing_is_made_twice(
    cli: Cli, opened: Open, tmp_path: Path, settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    command = ("scan", "scenes", "--images", "scenes:60", "--store", str(store), "--layers", "mixed4a", "--json")
    first = cli(*command, "--polysemantic")
    assert first.json["clustered"] > 20 and first.json["visualized"] == 0
    assert f"clusters of {first.json['clustered']} units: about" in first.err
    again = cli(*command, "--polysemantic")
    assert again.json["clustered"] == 0 and "is there" in again.err

    model, scan = circuits.load("scenes"), read_scan(store, "scenes")
    examples = {UNIT: scan.unit("mixed4a:11").top[: layer_polysemanticity.MOST]}
    (alone,) = circuits.polysemantic(model, UNIT, images=scan.images(), examples=examples).rows
    kept = layer_polysemanticity.stored(model, scan, "mixed4a")
    assert kept is not None and kept[UNIT].score == pytest.approx(alone.score, rel=1e-4)
    assert [len(c.examples) for c in kept[UNIT].clusters] == [len(c.examples) for c in alone.clusters]

    def computed(*_: Any, **__: Any) -> None:
        raise AssertionError("it is read, not computed")

    monkeypatch.setattr(polysemanticity, "polysemantic", computed)
    settings(store)
    at = opened("unit", unit=UNIT, section="polysemanticity")
    assert not at.error and ("fall into" in texts(at))
    at = opened("layer", unit="scenes/mixed4a", sort="polysemanticity")
    assert not at.error

    path = layer_polysemanticity.path_of(scan, "mixed4a")
    path.write_bytes(path.read_bytes()[:-9])
    assert layer_polysemanticity.stored(model, scan, "mixed4a") is None, "a damaged file is made again"


def test_the_time_is_of_what_is_missing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "STEPS", 2)
    model, scan = circuits.load("scenes"), read_scan(store, "scenes")
    options = {"visualizations": True, "polysemanticity": False}
    need = prepared.needs(model, scan, scan.images(), ["mixed4a"], **options)
    assert need.units == (48, 0) and need.visualizations == ("mixed4a",) and need.seconds > 0
    assert "48 visualizations: about" in str(need)
    prepared.prepare(model, scan, scan.images(), need)
    index = json.loads((scan.folder / "sweeps" / "mixed4a.positive" / "index.json").read_text())
    assert index
    assert not prepared.needs(model, scan, scan.images(), ["mixed4a"], **options).visualizations
