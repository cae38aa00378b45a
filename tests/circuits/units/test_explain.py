"""Dossiers: every section says what is there, and the page shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import circuits
from circuits.dataset.scan_results import Scan, UnitScan
from circuits.dataset.scan_store import StoreError
from circuits.dataset.streaming_statistics import Plan
from circuits.errors import AddressError, CircuitsError
from circuits.plot.drawing.svg import spread
from circuits.plot.units.dossier import dossier_page
from circuits.plot.units.section_renderers import RENDERERS
from circuits.units.dossier import SECTIONS, NeighborWeights, explain, neighbor_weights, section, sections
from circuits.units.dossier.section_registry import Nothing, _load, page_order
from circuits.units.dossier.sections import tuning, visualization
from circuits.units.dossier.sections.similar_units import SimilarUnits
from circuits.units.polysemanticity import Polysemanticity
from circuits.units.weight_factors import Factors
from tests import nets

LAYERS = ["conv2d0", "mixed3b", "mixed4a", "softmax_pre"]


@pytest.fixture(scope="module")
def scenes() -> circuits.Model:
    return circuits.load("scenes")


@pytest.fixture(scope="module")
def scan(scenes: circuits.Model, tmp_path_factory: pytest.TempPathFactory) -> Scan:
    store = tmp_path_factory.mktemp("store")
    return circuits.scan(scenes, "scenes:80", store, layers=LAYERS, plan=Plan(top=20, samples=256))


def test_a_dossier_holds_what_the_scan_and_the_weights_say(scenes: circuits.Model, scan: Scan) -> None:
    found = explain(scenes, "mixed4a:11", scan)
    assert list(found.parts) == ["responses", "inputs", "outputs", "neighbors"]
    assert isinstance(found.parts["responses"], UnitScan) and found.parts["responses"].active_images > 5
    inputs, alike = found.parts["inputs"], found.parts["neighbors"]
    assert isinstance(inputs, NeighborWeights) and isinstance(alike, SimilarUnits)
    assert {w.unit for w in inputs.rows[:3]} == {f"scenes/mixed3b:{i}" for i in (6, 39, 46)}
    assert set(alike.by) == {"activations", "incoming weights"}
    assert "visualization" not in found.parts
    document = json.loads(json.dumps(found.describe()))
    assert document["facts"]["branch"] == "mixed4a_3x3" and document["sections"]["responses"]["density"] > 0


def test_incoming_weights_are_expanded_weights_and_the_rest_makes_up_the_sum(planted: circuits.Model) -> None:
    found = neighbor_weights(planted, "objects:0", n=3)
    whole = circuits.expanded_weights(planted, source="parts", target="objects:0").kernels[0]
    assert [w.unit for w in found.rows] == [
        str(planted.resolve(f"parts:{i}"))
        for i in whole.flatten(1).norm(dim=1).argsort(descending=True, stable=True)[:3].tolist()
    ]
    for wire in found.rows:
        index = int(wire.unit.rpartition(":")[2])
        np.testing.assert_allclose(wire.kernel, whole[index].numpy(), rtol=1e-6)
        assert abs(wire.weight) == pytest.approx(float(whole[index].norm()))
        assert wire.share == pytest.approx(float(whole[index].square().sum() / whole.square().sum()))
    assert found.rest is not None
    total = sum(w.kernel for w in found.rows) + found.rest
    np.testing.assert_allclose(total, whole.sum(dim=0).numpy(), atol=1e-5)


def test_outgoing_weights_are_shares_of_what_each_target_reads(planted: circuits.Model) -> None:
    found = neighbor_weights(planted, "parts:2", "out")
    whole = circuits.expanded_weights(planted, source="parts", target="objects").kernels
    assert found.layer == "objects" and found.rest is None
    for wire in found.rows:
        reader = int(wire.unit.rpartition(":")[2])
        np.testing.assert_allclose(wire.kernel, whole[reader, 2].numpy(), rtol=1e-6)
        assert wire.share == pytest.approx(float(whole[reader, 2].square().sum() / whole[reader].square().sum()))
    assert len(found.rows) < len(whole)  # the boundary unit does not read it, and is not listed


def test_ends_of_a_network_have_nothing_to_say_of_what_lies_beyond(scenes: circuits.Model, scan: Scan) -> None:
    first, last = explain(scenes, "conv2d0:3", scan), explain(scenes, "softmax_pre:2", scan)
    assert isinstance(first.parts["inputs"], Nothing) and "reads the image itself" in first.parts["inputs"].why
    assert isinstance(last.parts["outputs"], Nothing) and isinstance(last.parts["inputs"], NeighborWeights)
    page = dossier_page(last, scan, command="c", python="p")
    assert "is read by no further layer" in page


def test_the_page_shows_every_section_once_and_fetches_nothing(scenes: circuits.Model, scan: Scan) -> None:
    found = explain(scenes, "mixed4a:11", scan)
    page = dossier_page(found, scan, command="circuits <x>", python="p")
    assert set(found.parts) == {"responses", "inputs", "outputs", "neighbors"}
    for name, entry in SECTIONS.items():  # also those that other packages have added, and that say nothing here
        assert page.count(f"<h2>{entry.title}</h2>") == (1 if name in found.parts else 0)
    assert "circuits &lt;x&gt;" in page
    assert page.count("data:image/jpeg") > 40
    assert not re.search(r"""(src|href)=["'](?!data:|\#)""", page)


def test_slower_sections_are_made_when_they_are_asked_for(
    scenes: circuits.Model, scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visualization, "STEPS", 4)
    found = explain(scenes, "mixed3b:39", scan, sections=["visualization", "tuning", "factors", "polysemanticity"])
    looks, tunings, factors = (found.parts[name] for name in ("visualization", "tuning", "factors"))
    assert isinstance(looks, visualization.FeatureVisualizations) and len(looks.positive) == 3
    assert looks.negative.response < min(v.response for v in looks.positive)
    assert isinstance(tunings, tuning.Tunings) and len(tunings.by) == 5
    peaks = [float(t.responses.max()) for t in tunings.by.values()]
    assert peaks == sorted(peaks, reverse=True)
    assert isinstance(factors, Factors) and len(factors) == 3
    assert isinstance(found.parts["polysemanticity"], (Polysemanticity, Nothing))
    json.dumps(found.describe())
    page = dossier_page(found, scan, command="c", python="p")
    assert all(f"<h2>{SECTIONS[name].title}</h2>" in page for name in ("visualization", "tuning", "factors"))
    assert page.count("data:image/png") >= 3 and "Not on this page" not in page.partition("Feature visualization")[0]


def test_silent_units_and_single_units_have_a_page_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3), torch.nn.ReLU()).eval()
    with torch.no_grad():
        net[0].bias.fill_(-9)  # type: ignore[union-attr]
    model = circuits.wrap(net, circuits.InputSpec(size=8, channels=1), name="one")
    pictures = torch.rand(6, 1, 8, 8)
    found = circuits.scan(model, pictures, tmp_path)
    layer = next(iter(found.layers))
    dossier = explain(model, f"{layer}:0", found, images=pictures)
    assert isinstance(dossier.parts["neighbors"], Nothing)
    assert "active on none of the 6 images" in dossier_page(dossier, found, command="", python="", images=pictures)
    with pytest.raises(StoreError, match="given in memory"):
        dossier_page(dossier, found, command="", python="")


def test_latents_have_dossiers(scenes: circuits.Model, tmp_path: Path) -> None:
    model = circuits.load("scenes")
    model.attach("mixed3b", "picked", circuits.Directions(torch.eye(48)[[39, 46, 6]]))
    scan = circuits.scan(model, "scenes:40", tmp_path, layers=["mixed3b", "mixed3b~picked"], plan=Plan(top=10))
    latent, channel = explain(model, "mixed3b~picked:0", scan), explain(model, "mixed3b:39", scan)
    ours, theirs = latent.parts["outputs"], channel.parts["outputs"]
    assert isinstance(ours, NeighborWeights) and isinstance(theirs, NeighborWeights)
    assert [w.unit for w in ours.rows] == [w.unit for w in theirs.rows]
    assert "A latent of the basis picked" in dossier_page(latent, scan, command="", python="")


def test_pictures_that_were_changed_since_are_not_shown(
    scenes: circuits.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    for i in range(4):
        Image.fromarray(np.full((64, 64, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    scan = circuits.scan(scenes, tmp_path, tmp_path / "store", layers=["mixed3b"], plan=Plan(top=3))
    dossier = explain(scenes, "mixed3b:0", scan)
    dossier_page(dossier, scan, command="", python="")
    Image.fromarray(np.full((64, 64, 3), 250, np.uint8)).save(tmp_path / "2.png")
    with pytest.raises(StoreError, match="not as they were"):
        dossier_page(dossier, scan, command="", python="")


def test_spreading_a_histogram_keeps_its_counts() -> None:
    rng = np.random.default_rng(0)
    edges = np.sort(rng.normal(size=41)) * 7
    counts = rng.integers(0, 9, 40)
    counts[:3] = 0
    counts[5] = 4
    spread_counts, low, high = spread(edges, counts, 17)
    assert spread_counts.sum() == pytest.approx(counts.sum())
    assert low == edges[np.flatnonzero(counts)[0]] and high == edges[np.flatnonzero(counts)[-1] + 1]
    exact, _, _ = spread(np.arange(6.0), np.array([3, 1, 4, 1, 5]), 5)
    np.testing.assert_allclose(exact, [3, 1, 4, 1, 5])


def test_every_section_can_be_drawn_and_names_are_given_once() -> None:
    assert set(RENDERERS) == set(SECTIONS)
    with pytest.raises(CircuitsError, match="there is a section 'inputs' already"):
        section("inputs", "again")(lambda s: Nothing(""))


class Verdict:
    def describe(self) -> dict[str, str]:
        return {"verdict": "a <car> detector"}


def test_a_section_that_nothing_draws_is_a_table(scenes: circuits.Model, scan: Scan) -> None:
    section("verdict", "Verdict")(lambda subject: Verdict())
    try:
        dossier = explain(scenes, "mixed4a:11", scan, sections=["verdict"])
        page = dossier_page(dossier, scan, command="c", python="p")
    finally:
        SECTIONS.remove("verdict")
    assert list(dossier.parts)[-1] == "verdict" and dossier.describe()["sections"]["verdict"] == Verdict().describe()
    assert "<h2>Verdict</h2>" in page and "a &lt;car&gt; detector" in page


def test_a_section_is_found_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_a_test.py").write_text(
        "from circuits.units.dossier.section_registry import Nothing, section\n"
        "section('of-a-test', 'Of a test', order=35)(lambda subject: Nothing(str(subject.unit)))\n"
    )
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(tmp_path)])
    _load()
    try:
        order = [entry.name for entry in page_order()]
    finally:
        SECTIONS.remove("of-a-test")
    assert order.index("outputs") < order.index("of-a-test") < order.index("neighbors")


def test_bad_questions_get_clear_answers(scenes: circuits.Model, scan: Scan, tmp_path: Path) -> None:
    other = nets.planted()
    for wrong, error, what in (
        (lambda: explain(scenes, "mixed4a", scan), AddressError, "is a layer"),
        (lambda: explain(scenes, "mixed3a:1", scan), AddressError, "no layer 'mixed3a'"),
        (lambda: explain(scenes, "mixed4a:11", scan, sections=["tunning"]), CircuitsError, "no section 'tunning'"),
        (lambda: explain(other, "objects:0", scan), StoreError, "scan .* again"),
        (lambda: neighbor_weights(scenes, "mixed4a:11", n=0), CircuitsError, "n=0 .* at least 1"),
    ):
        with pytest.raises(error, match=what):
            wrong()


def test_weights_that_changed_since_the_scan_are_noticed(scan: Scan) -> None:
    with pytest.raises(StoreError, match="other weights"):
        explain(circuits.load("scenes", weights="random"), "mixed4a:11", scan)
