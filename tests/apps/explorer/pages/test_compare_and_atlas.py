"""Two units side by side, and a finished atlas: the page's numbers are those that NumPy gives, its views are links."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import circuits
from circuits.dataset.scan_results import read_scan
from circuits.errors import CircuitsError
from circuits.units.unit_comparison import compare_units
from tests.apps.explorer.conftest import IMAGES, Open, texts
from tests.apps.explorer.pages.test_pages import elements


def test_the_correlation_is_that_of_the_activations_at_the_sampled_positions(made_store: Path, tmp_path: Path) -> None:
    scan = read_scan(made_store, "scenes")
    comparison = compare_units(scan, "scenes/mixed4a:11", scan, "scenes/mixed3b:6")
    a, b = (np.maximum(scan.samples(layer).values, 0) for layer in ("mixed4a", "mixed3b"))
    with np.errstate(all="ignore"):
        right = np.nan_to_num([np.corrcoef(a[:, 11], b[:, i])[0, 1] for i in range(b.shape[1])])
    assert comparison.correlation == pytest.approx(right[6], abs=1e-6)
    assert comparison.rank == 1 + int((right > right[6] + 1e-9).sum()) and comparison.count == b.shape[1]
    assert comparison.nearest[0] == (f"scenes/mixed3b:{right.argmax()}", pytest.approx(right.max(), abs=1e-6))
    tops = [{e.image for e in scan.unit(u).top[:20]} for u in ("scenes/mixed4a:11", "scenes/mixed3b:6")]
    assert comparison.shared == len(tops[0] & tops[1])
    assert comparison.expected == pytest.approx(len(tops[0]) * len(tops[1]) / 60)
    with np.errstate(all="ignore"):
        pairs = np.nan_to_num(np.corrcoef(a.T, b.T)[: a.shape[1], a.shape[1] :])
    assert comparison.chance == pytest.approx(np.percentile(pairs, 99), abs=1e-6)
    # the same network under another name is unit for unit the same
    copy = circuits.load("scenes")
    other = circuits.scan(copy, IMAGES, tmp_path / "again", layers=["mixed4a"])
    twin = compare_units(scan, "scenes/mixed4a:11", other, "scenes/mixed4a:11")
    assert twin.correlation == pytest.approx(1.0) and twin.rank == 1 and twin.shared == len(tops[0])
    elsewhere = circuits.scan(copy, "scenes:9@5", tmp_path / "elsewhere", layers=["mixed4a"])
    with pytest.raises(CircuitsError, match="scan both on the same images"):
        compare_units(scan, "scenes/mixed4a:11", elsewhere, "scenes/mixed4a:11")


def test_what_is_below_zero_counts_where_no_relu_follows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.Conv2d(6, 4, 3), torch.nn.Flatten())
    model = circuits.wrap(net.eval(), input=circuits.InputSpec(size=16), name="linear")
    scan = circuits.scan(model, "scenes:30", tmp_path, layers=["0"])
    values = scan.samples("0").values
    right = np.corrcoef(values[:, 1], values[:, 4])[0, 1]
    assert (values[:, [1, 4]] < 0).any(), "what a ReLU would have taken away"
    assert compare_units(scan, "linear/0:1", scan, "linear/0:4").correlation == pytest.approx(right, abs=1e-6)


def test_two_units_stand_side_by_side_and_a_click_compares_with_another(opened: Open) -> None:
    at = opened("compare", unit="scenes/mixed4a:11", **{"with": "mixed3b:6"})
    shown = texts(at)
    assert not at.error and "mixed4a" in at.subheader[0].value and "mixed3b" in at.subheader[0].value
    assert "99 % of pairs" in shown and "by chance the two would share" in shown
    paths = [data["path"] for data in elements(at) if "path" in data]
    assert paths == ["compare?unit=scenes/mixed4a:11&with=scenes/mixed3b:6"], "the link names both in full"
    alone = opened("compare", unit="scenes/mixed4a:11")  # the unit of its layer that correlates most
    assert not alone.error and alone.metric[1].value.startswith("1 of")
    wrong = opened("compare", unit="scenes/mixed4a:11", **{"with": "mixed3b"})
    assert len(wrong.error) == 1 and "is a layer" in wrong.error[0].value


@pytest.fixture(scope="module")
def atlas_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atlases") / "mixed4a"
    model = circuits.load("scenes")
    circuits.activation_atlas(
        model, "mixed4a", IMAGES, grid=3, steps=1, size=16, classes=2, controls=False, store=folder
    )
    return folder


def test_an_atlas_is_a_map_whose_cells_and_filter_are_in_the_address(
    opened: Open, settings: Callable[..., None], store: Path, atlas_folder: Path
) -> None:
    settings(store)
    missing = opened("atlas", unit="scenes/mixed4a:11")
    assert not missing.error and any("circuits atlas scenes/mixed4a" in block.value for block in missing.code)
    shutil.copytree(atlas_folder, store / "scenes" / "atlases" / "mixed4a")
    settings(store)
    atlas = circuits.activations.atlas_store.load_atlas(atlas_folder)
    at = opened("atlas", unit="scenes/mixed4a:11")
    map_: dict[str, Any] = next(data for data in elements(at) if "grid" in data)
    assert not at.error and map_["grid"] == 3 and len(map_["cells"]) == len(atlas.cells)
    cell = atlas.cells[0]
    assert f"{cell.count} samples" in map_["cells"][0]["lines"]
    at = opened("atlas", unit="scenes/mixed4a", cell=f"{cell.row},{cell.column}", **{"class": cell.labels[0][0]})
    map_ = next(data for data in elements(at) if "grid" in data)
    assert map_["selected"] == [cell.row, cell.column]
    assert [c["faint"] for c in map_["cells"]] == [cell.labels[0][0] not in dict(c.labels) for c in atlas.cells]
    units = [t["unit"] for data in elements(at) for t in data.get("tiles", ()) if t["unit"]]
    assert units == [unit for unit, _ in cell.units], "its units lead to their pages"
    wrong = opened("atlas", unit="scenes/mixed4a", cell="9,9")
    assert len(wrong.error) == 1 and "has no cell 9,9" in wrong.error[0].value
    wrong = opened("atlas", unit="scenes/mixed4a", atlas="../../secret")
    assert len(wrong.error) == 1 and "no atlas of that name" in wrong.error[0].value
