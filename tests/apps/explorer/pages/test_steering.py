"""The Steering page, run without a browser: its address, its widgets, what it computes, and what it refuses."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import circuits
import sae
from apps.explorer.resources import steering_runs
from apps.explorer.resources.steering_runs import SteeringSite
from circuits.network.interventions import Ablate, edit
from sae.data.vision_site import VisionSite
from sae.steering import LatentEdit, Steering, maxima
from tests.apps.explorer.conftest import Open, scan_files, settled, texts
from zoo.images.sources import open_images
from zoo.weights.loading import digest

UNIT = "scenes/mixed3b:39"


@pytest.fixture(scope="module")
def site() -> SteeringSite:
    """The layer `mixed3b` of the built-in model."""
    site = VisionSite(circuits.load("scenes"), "mixed3b")
    return SteeringSite(site, None, "", site.d, site.layer.size)


def _url(at: AppTest, name: str) -> str:
    """A part of the address, as it stands."""
    value: Any = at.query_params[name]
    return str(value[0] if isinstance(value, list) else value)


def test_the_page_opens_on_its_unit_ablated_on_its_top_activating_image(opened: Open) -> None:
    at = opened("steering", unit=UNIT)
    assert not at.error and not at.exception
    assert at.selectbox(key="edit0-kind").value == "ablate" and at.number_input(key="edit0-latent").value == 39
    top = circuits.read_scan(Path(_store(at)), "scenes").unit("mixed3b:39").top[0]
    assert at.number_input(key="image_number").value == top.image
    assert "5 steps as long" in texts(at), "beside a control"


def _store(at: AppTest) -> str:
    import os

    from apps.explorer.server.settings import VARIABLE

    return str(json.loads(os.environ[VARIABLE])["store"])


def test_edits_of_the_address_are_shown_and_what_is_changed_goes_into_it(opened: Open) -> None:
    at = opened("steering", unit=UNIT, edits="39:set:2x@4,0,7,7~11:above:0.1x/7:ablate", image=3)
    assert [at.number_input(key=f"edit{i}-latent").value for i in (0, 1)] == [39, 7]
    assert at.number_input(key="edit0-value").value == 2.0 and at.selectbox(key="edit0-where").value == "some"
    at.number_input(key="edit0-value").set_value(-1.5).run()
    assert _url(at, "edits") == "39:set:-1.5x@4,0,7,7~11:above:0.1x/7:ablate"
    at.selectbox(key="edit1-kind").set_value("scale").run()
    assert _url(at, "edits").endswith("/7:scale:2")
    at.selectbox(key="edit0-where").set_value("all").run()
    assert _url(at, "edits").startswith("39:set:-1.5x~11")
    at.button(key="edit0-remove").click().run()
    assert _url(at, "edits") == "7:scale:2"
    at.button(key="edit-add").click().run()
    assert _url(at, "edits") == "7:scale:2/7:set:1x"
    at.button(key="edit-none").click().run()
    assert _url(at, "edits") == "none"
    assert not at.error and not at.exception


def test_a_condition_is_set_and_taken_away(opened: Open) -> None:
    at = opened("steering", unit=UNIT, edits="39:scale:2", image=3)
    at.number_input(key="when0-latent").set_value(11)
    at.number_input(key="when0-value").set_value(0.4)
    at.checkbox(key="when0-anywhere").set_value(True)
    next(b for b in at.button if b.label == "Set condition").click().run()
    assert _url(at, "edits") == "39:scale:2~11:above:0.4x:anywhere" and not at.error
    at.button(key="when0-always").click().run()
    assert _url(at, "edits") == "39:scale:2" and not at.error and not at.exception


def test_latents_of_an_sae_are_steered(
    opened: Open, settings: Callable[..., None], made_store: Path, tmp_path: Path
) -> None:
    site = VisionSite(circuits.load("scenes"), "mixed3b")
    run = sae.train(site.stream("scenes:20", batch_size=256), sae.TopK(latents=64, k=4), steps=5, lr=3e-3)[0]
    sae.save(tmp_path / "parts", run)
    settings(made_store, saes=[["parts", str(tmp_path / "parts")]])
    at = opened("steering", unit="scenes/mixed3b~parts:3", edits="3:set:2/5:ablate")
    assert not at.error and not at.exception, at.error[0].value
    assert at.subheader[0].value == "Steering mixed3b\\~parts"
    assert f"attach_folder(model, '{tmp_path}/parts', 'parts')" in at.code[0].value


@pytest.mark.parametrize("edits", ["39:jump:2", "48:ablate", "39:set:2x@9,9,9,9", "<script>", "x" * 40_000, "../../x"])
def test_edits_that_are_none_are_one_line_and_lose_nothing(opened: Open, made_store: Path, edits: str) -> None:
    before = scan_files(made_store)
    at = opened("steering", unit=UNIT, edits=edits)
    assert not at.exception and len(at.error) == 1
    assert "\n" not in at.error[0].value and len(at.error[0].value) < 900
    assert scan_files(made_store) == before


def test_a_unit_that_is_never_active_has_no_maximum(site: SteeringSite) -> None:
    known = maxima(None, site.vision, "scenes:4")
    known.values[3] = 0
    with pytest.raises(circuits.CircuitsError, match="never fired"):
        steering_runs.compare(
            site, [LatentEdit(3, "set", 1.0, "max")], known, open_images("scenes:1"), later="", most=3
        )


@pytest.mark.parametrize("space", ["mixed3b", "mixed4a", "conv2d2"])
def test_the_scan_knows_the_maxima_that_the_library_measures(opened: Open, made_store: Path, space: str) -> None:
    from apps.explorer.session import state

    opened("home", settle=False)  # puts the settings
    at = state.locate(f"scenes/{space}")
    scanned = steering_runs.maxima_of(at, steering_runs.steering_site_of(at))
    measured = maxima(None, VisionSite(at.model, space), state.images_of(at))
    assert torch.allclose(scanned.values.clamp_min(0), measured.values.clamp_min(0), atol=1e-5)
    assert (scanned.site, scanned.dictionary) == (measured.site, measured.dictionary)
    assert scanned.inputs["digest"] == measured.inputs["digest"]


def test_what_is_shown_is_what_the_network_says_when_it_is_edited(site: SteeringSite) -> None:
    image = open_images("scenes:40").subset([11])
    known = maxima(None, site.vision, "scenes:20")
    comparison = steering_runs.compare(site, [LatentEdit(39, "ablate")], known, image, later="mixed4a", most=4)
    module = circuits.load("scenes")
    with edit(module, [Ablate("mixed3b:39")]):
        scores = circuits.capture(module, image, "logits")["logits"].flatten(1)
    assert np.allclose(comparison.after, scores.double().softmax(1)[0].numpy(), atol=1e-6)
    clean = circuits.capture(module, image, "logits")["logits"].flatten(1)
    assert np.allclose(comparison.before, clean.double().softmax(1)[0].numpy(), atol=1e-6)
    assert np.all(comparison.maps[39][1] == 0) and comparison.maps[39][0].shape == site.size


def test_doses_begin_at_nothing_and_one_is_the_edit_itself(site: SteeringSite) -> None:
    images = open_images("scenes:6")
    known = maxima(None, site.vision, "scenes:40")
    edits = [LatentEdit(39, "set", 2.0, "max", at=((5, 3), (6, 3))), LatentEdit(6, "scale", 1.5)]
    response = steering_runs.dose_response(site, edits, known, images)
    each = [
        steering_runs.compare(site, edits, known, images.subset([i]), later="", most=1) for i in range(len(images))
    ]  # fmt: skip
    assert np.allclose(response.values[0], np.mean([comparison.before for comparison in each], axis=0), atol=1e-6)
    assert np.allclose(
        response.values[response.doses.index(1.0)],
        np.mean([comparison.after for comparison in each], axis=0),
        atol=1e-6,
    )
    assert np.allclose(response.random[:, 0], response.values[0]), "random ones begin at the same probabilities"
    assert response.same[0] == 1 and response.images == 6
    assert not {unit for row in response.units for unit in row} & {39, 6}


def test_an_edit_that_sets_nothing_changes_nothing_to_the_bit(site: SteeringSite) -> None:
    image = open_images("scenes:3").subset([2])
    known = maxima(None, site.vision, "scenes:20")
    comparison = steering_runs.compare(site, [LatentEdit(39, "scale", 1.0)], known, image, later="mixed4a", most=4)
    assert (
        np.array_equal(comparison.before, comparison.after) and comparison.moved == () and not comparison.change.any()
    )


def test_hooks_and_weights_are_as_before(site: SteeringSite) -> None:
    module = site.model.module
    before = digest(module.state_dict()), _hooks(module)
    known = maxima(None, site.vision, "scenes:20")
    steering_runs.compare(site, [LatentEdit(39, "ablate")], known, open_images("scenes:1"), later="mixed4b", most=4)
    steering_runs.dose_response(site, [LatentEdit(39, "ablate")], known, open_images("scenes:2"))
    assert (digest(module.state_dict()), _hooks(module)) == before


def _hooks(module: Any) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)


def test_two_sessions_steer_one_model_without_mixing(site: SteeringSite) -> None:
    from concurrent.futures import ThreadPoolExecutor

    image, known = open_images("scenes:9").subset([8]), maxima(None, site.vision, "scenes:40")
    recipes = [[LatentEdit(unit, "set", 2.0, "max")] for unit in (39, 6, 46, 11)]
    alone = [steering_runs.compare(site, item, known, image, later="mixed4a", most=3) for item in recipes]
    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda item: steering_runs.compare(site, item, known, image, later="mixed4a", most=3), recipes * 4)
        )
    for i, item in enumerate(results):
        assert np.array_equal(item.after, alone[i % 4].after) and item.moved == alone[i % 4].moved
    module, pixels = circuits.load("scenes").module, image.tensor(site.model.input)  # another one: plain PyTorch
    for (change,), shown in zip(recipes, alone, strict=True):
        unit, value = change.latent, 2 * float(known.values[change.latent])

        def put(_: Any, __: Any, out: Any, unit: int = unit, value: float = value) -> Any:
            return torch.where(torch.arange(out.shape[1]).view(1, -1, 1, 1) == unit, value, out)

        handle = module.get_submodule("mixed3b").register_forward_hook(put)
        with torch.no_grad():
            probabilities = module(site.model.input.normalize(pixels))[0].double()
        handle.remove()
        assert np.allclose(shown.after, probabilities.numpy(), atol=1e-6)


def test_the_python_of_the_page_prints_what_the_page_shows(opened: Open) -> None:
    at = opened("steering", unit=UNIT, edits="39:set:2x@4,0,7,7", image=5)
    text = io.StringIO()
    with redirect_stdout(text):
        exec(compile(at.code[0].value, "copied", "exec"), {})
    printed = {line.split()[0]: float(line.split()[1]) for line in text.getvalue().splitlines()}
    chart = json.loads(next(e.proto for e in at.get("plotly_chart") if "before" in e.proto.spec).spec)
    after = next(trace for trace in chart["data"] if trace["name"] == "after")
    values = after["x"]["_inputArray"] if "_inputArray" in after["x"] else after["x"]
    plotted = dict(zip(after["y"], _numbers(values), strict=True))
    assert max(plotted, key=lambda name: plotted[name]) == max(printed, key=lambda name: printed[name])
    for name, value in plotted.items():
        assert value / 100 == pytest.approx(printed[name], abs=1e-3), name


def _numbers(values: Any) -> list[float]:
    """Numbers of a Plotly figure, plain or packed."""
    import base64

    if isinstance(values, dict):
        return [float(v) for v in np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])]
    return [float(v) for v in values]


def test_the_exported_json_is_a_steering_of_this_layer(site: SteeringSite) -> None:
    edits = [LatentEdit(39, "set", 2.0, "max", at=((5, 3),)), LatentEdit(7, "ablate")]
    read = Steering.parse(steering_runs.recipe(site, edits, maxima(None, site.vision, "scenes:20")))
    assert read.edits == tuple(edits) and read.site == "scenes/mixed3b" and set(read.strengths) == {39}


def _given(at: AppTest, name: str, data: bytes) -> AppTest:
    uploader: Any = at.get("file_uploader")[-1]
    uploader.set_value((name, data, "application/json")).run()
    at.button(key="edits-show").click().run()
    return settled(at)


def test_edits_are_opened_from_a_file(opened: Open, site: SteeringSite) -> None:
    text = steering_runs.recipe(site, [LatentEdit(11, "add", 0.25)], maxima(None, site.vision, "scenes:4"))
    at = _given(opened("steering", unit=UNIT), "steering.json", text.encode())
    assert not at.error and _url(at, "edits") == "11:add:0.25"


WRONG = [
    b"{",
    b'{"kind": "steering", "schema": 1, "edits": [{"latent": "x"}]}',
    b'{"kind": "steering", "schema": 1, "edits": [], "site": "scenes/mixed4a"}',
    b'{"kind": "steering", "schema": 1, "edits": [{"latent": 99, "kind": "ablate"}]}',
]
WRONG_TOO = [
    b"[]", b"\xff\xfe", b'{"kind": "steering"}', b"[" * 50_000,
    b'{"kind": "steering", "schema": 1, "edits": [{"latent": 1, "kind": "set", "value": 1e300}]}',
]  # fmt: skip


@pytest.mark.parametrize("data", [*WRONG, *(pytest.param(data_, marks=pytest.mark.slow) for data_ in WRONG_TOO)])
def test_a_file_with_wrong_edits_is_one_line_and_the_view_stays(opened: Open, data: bytes) -> None:
    at = _given(opened("steering", unit=UNIT, edits="7:ablate"), "steering.json", data)
    assert not at.exception and len(at.error) == 1, [e.value for e in at.error]
    assert "Something went wrong" not in at.error[0].value
    assert _url(at, "edits") == "7:ablate"


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    """What was copied out of the page imports nothing that stays."""
    before = set(sys.modules)
    yield
    assert "copied" not in set(sys.modules) - before
