"""Every result shows itself: one line, a figure, a table, a cell, a page, and a file that gives it back.

The types are collected from what public functions return, so that a new one without an example here fails.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import circuits
import circuits.units.dossier
import circuits.visualization
import sae
import sae.language
import sae.steering
import sae.superposition
from apps.explorer.server.byte_cache import size_of
from circuits.common.statistics import Estimate
from circuits.errors import CircuitsError
from zoo.common import result_files
from zoo.common.results import Drawable, Listed, Result, Results

PACKAGES = (
    circuits,
    circuits.visualization,
    circuits.units.dossier,
    sae,
    sae.language,
    sae.steering,
    sae.superposition,
)
NO_RESULTS = {
    # inputs of other functions, networks, and what is registered
    "Activations", "Activity", "Card", "Experiment", "Images", "LanguageModel", "SAE", "SAEConfig", "Shards",
    "Solution", "Steered", "Stimuli", "Texts", "ToyModel",
}  # fmt: skip
NOT_SAVED = {"Model", "Run", "Runs", "Scan", "PartLabels"}
"""Kept by functions of their own: `sae.save`, `circuits.scan(store)`, `sweep`, `PartLabels.save(store)`."""


def returned(function: Any) -> Iterator[type]:
    """The classes of ours that a function returns: `tuple[ExpandedWeights, Tensor]` has one."""
    for name in re.findall(r"\w+", str(function.__annotations__.get("return"))):
        kind = function.__globals__.get(name)
        if inspect.isclass(kind) and kind.__module__.split(".")[0] in ("circuits", "sae", "zoo"):
            yield kind


def result_types() -> dict[str, type]:
    """Name -> class of what a public function returns."""
    types: dict[str, type] = {}
    for package in PACKAGES:
        for name in getattr(package, "__all__", [*vars(package)]):  # a package that loads all of it lists nothing
            function = getattr(package, name)
            if inspect.isfunction(function):
                types |= {kind.__name__: kind for kind in returned(inspect.unwrap(function))}
    return {name: kind for name, kind in sorted(types.items()) if name not in NO_RESULTS}


def cached(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.lru_cache(maxsize=None)(function)


@cached
def model() -> circuits.Model:
    return circuits.load("scenes")


@cached
def circuit() -> Any:
    return circuits.trace(model(), "mixed4a:11", images="scenes:24", n_examples=3).scored(random=3)


@cached
def scan(folder: str) -> Any:
    return circuits.scan(model(), "scenes:12", folder, layers=["mixed3b", "mixed4a"])


@cached
def vectors() -> Any:
    return torch.randn(400, 12, generator=torch.Generator().manual_seed(0)).relu()


@cached
def runs() -> Any:
    return sae.train(vectors(), [sae.TopK(latents=16, k=3)], steps=20, batch_size=40, report_every=10)


@cached
def scene_sae() -> Any:
    site = sae.VisionSite(model(), "mixed3b")
    acts = sae.collect(site, "scenes:12").vectors
    return site, sae.train(acts, [sae.TopK(latents=64, k=6)], steps=20, batch_size=40)[0].sae


@cached
def metrics() -> Any:
    from sae.evaluation.trust.held_out import METRICS
    from sae.evaluation.trust.metric_table import MeasuredDictionary

    rows = [
        MeasuredDictionary("mixed3b", kind, seed, 8, dict.fromkeys(METRICS, 0.5 + 0.1 * seed))
        for kind in ("trained", "pca")
        for seed in (0, 1)
    ]
    return sae.MetricTable("scenes", ("mixed3b",), 2, 10, tuple(rows), 1.0)


@cached
def model_diff() -> Any:
    from sae.evaluation.diffing.results import ClassEffect, DiffCounts, DiffLatent

    latents = tuple(
        DiffLatent(i, kind, share, 0.1, None, 0, 0.2, 0.1, 1.0, "car", 0.9, 0.5)
        for i, (kind, share) in enumerate((("only first", 0.95), ("shared", 0.5)))
    )
    counts = [DiffCounts(name, 1, 0, n, 0, 0, 0, n, 0.1, 0.2, 0.4) for name, n in (("a and b", 1), ("a twice", 0))]
    effects = (ClassEffect("a/l", "car", 20, 1, 0.9, 0.4, 0.85, 0.8, 0.9, 2.0, 0.1),)
    return sae.ModelDiff("a/l", "b/l", counts[0], tuple(counts[1:]), latents, effects, False, 70, 30)


@cached
def language() -> Any:
    from zoo.networks.language import load_language

    site = sae.LanguageSite(load_language("tales"), "layers.1.resid")
    return site, sae.build(sae.TopK(latents=48, k=4), site.d)


@cached
def similar() -> Any:
    from circuits.units.similarity import by_weights

    return by_weights(model(), "mixed3b")


@cached
def toys() -> Any:
    from sae.superposition import ToyModel, train

    return train([ToyModel(5, 2, density=0.1)], steps=20, batch=64)


@cached
def attribution_graph() -> Any:
    return circuits.graph(model(), "scenes:1", "car", layers=["mixed4a", "mixed4b"], width=4)


@cached
def ranking() -> Any:
    return circuits.rank(model(), "mixed4a:11", images="scenes:12", layers=["mixed3b"])


@cached
def tuning() -> Any:
    return circuits.tune(model(), "mixed3b", stimuli=circuits.stimuli.curves(8))


@cached
def polysemantic() -> Any:
    return circuits.polysemantic(model(), "mixed4a:11", images="scenes:60", n=30, draws=3)


@cached
def labels() -> Any:
    return circuits.label(model(), "scenes:60", layers=["mixed3b"], draws=20)


@cached
def detectors() -> Any:
    return circuits.find_detectors(model(), "curve", layers="mixed3b", orientations=8, threshold=0.01, control=None)


def joint_tuning() -> Any:
    examples = circuit().nodes[0].examples[:1]
    return circuits.joint_tuning(model(), "mixed4a:11", examples, "scenes:24", turns=8)


def cluster_ablation() -> Any:
    split = next((r for r in polysemantic() if r.split), None)
    if split is not None:
        return circuits.ablate_clusters(model(), split, "scenes:60", draws=2)
    from circuits.units.pure_units import ClusterAblation

    return ClusterAblation("scenes/mixed4a:11", (3, 2), np.eye(2), np.zeros((2, 2)), {})


def frequency_factors() -> Any:
    rows = [d.unit for d in detectors().rows[:4]]
    from circuits.units.high_low_factors import FrequencyFactors

    maps = np.zeros((2, 4, 3, 3))
    return FrequencyFactors(
        "scenes/mixed3a", tuple(rows), np.ones((2, 6)), maps, np.ones(6), 3.0, 1.0, 1.5, np.zeros(4), 0.2,
        np.ones(4), 0.5, {},
    )  # fmt: skip


EXAMPLES: dict[str, Callable[[Path], Any]] = {
    "Accuracy": lambda _: circuits.accuracy(model(), "scenes:12", random=2),
    "ActivationGrid": lambda _: circuits.activation_grid(model(), "mixed4a", "scenes:1", pooled=4, steps=1, size=16),
    "Atlas": lambda _: circuits.activation_atlas(
        model(),
        "mixed4a",
        "scenes:24",
        grid=2,
        per_image=2,
        least=2,
        steps=1,
        size=16,
        render=16,
        perplexity=5,
        controls=False,
    ),
    "Attribution": lambda _: circuits.attribute(model(), "scenes:1", source="mixed3b", target="mixed4a:11"),
    "AttributionGraph": lambda _: attribution_graph(),
    "Audit": lambda _: circuits.audit(
        model(), "scenes:156", classes=["sign"], layers=["mixed4b"], top=2, random=3, describe=0
    ),
    "BranchStructure": lambda _: circuits.branch_structure(model(), "mixed4a", shuffles=2, compare_untrained=False),
    "Circuit": lambda _: circuit(),
    "CircuitDiff": lambda _: circuits.diff(circuit(), circuit()),
    "ClusterAblation": lambda _: cluster_ablation(),
    "Decomposed": lambda _: circuits.visualization.decomposed(model(), "mixed4a:11", "mixed3b", steps=1, size=16),
    "Detectors": lambda _: detectors(),
    "Dissection": lambda _: dissection(),
    "Dossier": lambda folder: circuits.explain(model(), "mixed4a:11", scan(str(folder))),
    "Enrichments": lambda _: circuits.branch_enrichment({"curves": [1, 2, 3]}, {"5x5": (0, 4), "3x3": (4, 12)}),
    "Evaluation": lambda _: sae.evaluate(scene_sae()[1], scene_sae()[0], "scenes:8", controls=False),
    "ExpandedWeights": lambda _: circuits.expanded_weights(model(), source="mixed3b", target="mixed4a:11"),
    "Export": lambda folder: circuits.export(
        model(), [circuits.Set("mixed4a:3", 0.0)], folder / "export", images="scenes:2"
    ),
    "Factors": lambda _: circuits.one_sided_nmf(
        circuits.expanded_weights(model(), source="mixed3b", target="mixed4a"), 2, shuffles=1, iterations=5
    ),
    "Families": lambda _: circuits.families(similar(), count=4, shuffles=1),
    "Findings": lambda _: circuits.find(
        model(), positive="scenes:8@1", negative="scenes:8@2", layer="mixed4a", intervals=2, draws=10
    ),
    "FrequencyFactors": lambda _: frequency_factors(),
    "Gate": lambda _: sae.language.Gate(3, "name", 0.5, 0.9, 0.2),
    "Geometry": lambda _: sae.geometry(vectors()[:20]),
    "GraphCheck": lambda _: circuits.check_graph(model(), attribution_graph(), images="scenes:1", n=2),
    "GraphGroups": lambda _: circuits.graph_groups(
        model(), attribution_graph(), images="scenes:1", threshold=0.2, random=2
    ),
    "Groups": lambda _: circuits.neuron_groups(model(), "mixed4a", "scenes:1", k=2, classes=2),
    "Heatmap": lambda _: circuits.heatmap(model(), "scenes:1", target="mixed4a:11", method="saliency"),
    "Inspection": lambda _: sae.steering.inspect(scene_sae()[1], scene_sae()[0], "scenes:2", top=3),
    "JointTuning": lambda _: joint_tuning(),
    "KnownFeature": lambda _: sae.language.KnownFeature("name", 10, 90, 3, 0.9, 4, 0.8, 0.7, 0.95),
    "LatentFindings": lambda _: sae.steering.search(
        scene_sae()[1], scene_sae()[0], "scenes:6@1", "scenes:6@2", top=4, shuffles=1
    ),
    "Matches": lambda _: circuits.match(model(), "mixed3b", model(), "mixed4a", images="scenes:8", positions=4),
    "Maxima": lambda _: sae.steering.maxima(scene_sae()[1], scene_sae()[0], "scenes:4"),
    "Model": lambda _: model(),
    "NeighborWeights": lambda _: circuits.units.dossier.neighbor_weights(model(), "mixed4a:11"),
    "Neighbors": lambda _: circuits.neighbors(model(), "mixed4a:11"),
    "NodeEffect": lambda _: circuits.node_effect(
        model(), attribution_graph(), attribution_graph().strongest()[0].unit, images="scenes:1", random=2
    ),
    "PartLabels": lambda _: labels(),
    "PhaseDiagram": lambda _: sae.superposition.phase_diagram(
        importances=(0.5, 1.0), densities=(1.0, 0.1), seeds=1, steps=5, batch=32
    ),
    "Polysemanticities": lambda _: polysemantic(),
    "Polytope": lambda _: sae.superposition.polytopes(sae.superposition.solids()["pentagon"])[0],
    "PureUnit": lambda _: circuits.units.pure_units.PureUnit("a/b~c:0", "a/b:1", 0, (1, 2), (0.5, 0.5), 0.9, 0.8),
    "Ranking": lambda _: ranking(),
    "Recovery": lambda _: recovery(),
    "Results": lambda _: Results(
        [sae.language.Gate(3, "name", 0.5, 0.9, 0.2), sae.language.Gate(4, "place", 1.5, 0.8, 0.3)]
    ),
    "Repair": lambda _: circuits.repair(model(), "scenes:26", ["mixed4a:3", "mixed4a:5"], random=2),
    "Runs": lambda _: runs(),
    "Run": lambda _: runs()[0],
    "Scan": lambda folder: scan(str(folder)),
    "Score": lambda _: circuit().score,
    "SemanticDictionary": lambda _: circuits.semantic_dictionary(model(), "mixed4a", "scenes:1", steps=1, size=16),
    "SignRule": lambda _: sign_rule(),
    "Similar": lambda _: sae.steering.similar(runs()[0].sae, 2),
    "Site": lambda folder: circuits.publish(model(), scan(str(folder)), folder / "site", layers=["mixed4a"]),
    "SizeCurve": lambda _: circuits.size_curve(model(), ranking(), sizes=(1, 4), random=2),
    "SmallestCircuit": lambda _: circuits.smallest(
        model(), "mixed4a:11", images="scenes:12", layers="mixed3b", steps=3
    ),
    "SpatialAttribution": lambda _: circuits.spatial_attribution(
        model(), "scenes:1", source="mixed3b", target="mixed4a"
    ),
    "Spectrum": lambda _: circuits.visualization.spectrum(model(), "mixed4a:11", "scenes:8", k=2, steps=1, size=16),
    "Strip": lambda _: circuits.visualization.caricature_strip(model(), "scenes:1", ["mixed3b"], steps=1),
    "TextAttribution": lambda _: sae.language.attribute_text(
        language()[1], language()[0], "One day Anna went", " to", n=3, tried=1
    ),
    "TextFeatures": lambda _: text_features(),
    "MetricTable": lambda _: metrics(),
    "ModelDiff": lambda _: model_diff(),
    "Trained": lambda _: toys(),
    "Tuning": lambda _: tuning(),
    "Visualization": lambda _: circuits.visualize(model(), "mixed4a:11", steps=1)[0],
    "Visualizations": lambda _: circuits.visualize(model(), ["mixed4a:11", "mixed4a:12"], steps=1),
    "Vulnerability": lambda _: sae.superposition.vulnerability(toys(), examples=8, steps=2),
}


def dissection() -> Any:
    scenes = circuits.load("scenes")
    scenes.attach("mixed3b", "parts", scene_sae()[1])
    return circuits.dissect(scenes, "mixed3b:6", "parts", "scenes:24", n=4, writers=2)


def recovery() -> Any:
    one = np.ones((1, 2, 1))
    return sae.superposition.Recovery(
        8, 4, (0.5, 0.1), ("topk",), (2,), np.array([[6], [5]]),
        one[0], 0.9 * one, 0.5 * one, 0.1 * one, 2 * one, 0 * one,
        ("random",), 0.4 * one, 0 * one,
    )  # fmt: skip


def sign_rule() -> Any:
    from circuits.tuning.detectors.sign_rule import SignRule

    angles = np.array([[0.0, 90.0], [90.0, 0.0]])
    return SignRule(
        ("a/b:0", "a/b:1"), ("a/c:0", "a/c:1"), angles, np.cos(np.radians(angles)), 0.9, np.zeros(4), 0.2, 360
    )


def text_features() -> Any:
    site, dictionary = language()
    active = sae.language.activity(dictionary, site, "tales:6")
    return sae.language.text_features(dictionary, active, active.live[:2].tolist(), top=3)


@cached
def example(name: str, folder: Path) -> Any:
    return EXAMPLES[name](folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scan")


def test_what_public_functions_return_is_a_result_with_an_example_here() -> None:
    types = result_types()
    assert len(types) > 50
    assert not [name for name, kind in types.items() if not issubclass(kind, Drawable)]
    assert not types.keys() - EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_result_shows_itself(name: str, folder: Path, tmp_path: Path) -> None:
    result = example(name, folder)
    line = repr(result)
    assert "\n" not in line and 8 < len(line) <= 330 and (name in line or isinstance(result, Results))
    assert isinstance(result.plot(), Figure)
    table = result.table()
    assert len(table) >= 1 and len(table.columns) >= 1 and len(result.records()) == len(table)
    html = result._repr_html_()
    assert "<script" not in html and ("<img" in html or "<table" in html or "<iframe" in html)
    page = result.report(tmp_path / "pages" / "result.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and 'src="http' not in page
    assert "_given" not in result.__getstate__()  # a pickle or a copy of a result holds no network


def test_a_table_shows_what_the_result_is_about(folder: Path) -> None:
    for name, columns in {
        "CircuitDiff": {"source", "target", "in", "first", "second"},
        "Evaluation": {"way", "fvu", "top1", "kl"},
        "Inspection": {"input", "latent", "value"},
        "Maxima": {"latent", "maximum"},
        "PartLabels": {"unit", "part", "auc"},
        "Similar": {"latent", "cosine", "beyond_chance"},
        "TextAttribution": {"word", "latent", "attribution"},
    }.items():
        records = example(name, folder).records()
        assert len(records) > 1 and columns <= records[0].keys(), name
    shares = example("Evaluation", folder)
    rows = {row["way"]: row for row in shares.records()}
    assert rows["sae"]["fvu"] == shares.reconstruction.fvu and rows["clean"]["fvu"] is None
    assert rows["mean"]["kl"] == shares.ways["mean"].kl


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in NOT_SAVED])
def test_a_result_comes_back_from_its_file(name: str, folder: Path, tmp_path: Path) -> None:
    result = example(name, folder)
    again = type(result).load(result.save(tmp_path / "kept" / "a result.file"))
    assert repr(again) == repr(result) and len(again.records()) == len(result.records())
    assert equal(plain_fields(again), plain_fields(result))
    # a view of a part keeps the whole in memory, as long as the result is kept
    assert size_of(result) <= 1.5 * size_of(again) + 10_000


def plain_fields(value: Any) -> Any:
    """Everything that a result holds, to the last array."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain_fields(getattr(value, f.name)) for f in dataclasses.fields(value) if f.compare}
    if isinstance(value, dict):
        return {key: plain_fields(item) for key, item in value.items()}
    return [plain_fields(item) for item in value] if isinstance(value, list | tuple) else value


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.ndarray | torch.Tensor):
        return (
            type(a) is type(b) and a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)
        )
    return bool(a == b) or (a != a and b != b)


def test_a_list_of_results_is_iterated_sliced_and_sorted() -> None:
    findings = EXAMPLES["Findings"](Path())
    best = findings.sort_by("auc")[:3]
    assert isinstance(best, circuits.Findings) and len(best) == 3 and list(best) == list(best.rows)
    assert [f.auc for f in best] == sorted((f.auc for f in findings), reverse=True)[:3]
    smallest = findings.sort_by(lambda finding: finding.mean_positive, descending=False)[0]
    assert smallest.mean_positive == min(f.mean_positive for f in findings)
    unranked = findings.sort_by("low")  # the interval was computed for two units only
    assert [f.low is None for f in unranked] == [False, False] + [True] * (len(findings) - 2)
    with pytest.raises(CircuitsError, match="cannot sort by 'aux': a row has unit, auc"):
        findings.sort_by("aux")
    visualizations = EXAMPLES["Visualizations"](Path())
    assert isinstance(visualizations[:1], circuits.Visualizations) and visualizations[:1].plot() is not None


def test_a_circuit_is_scored_and_reported_in_one_chain(tmp_path: Path) -> None:
    traced = circuits.trace(model(), "mixed4a:11", images="scenes:24", n_examples=3)
    page = traced.scored(random=3).label({"scenes/mixed4a:11": "cars"}).report(tmp_path).read_text(encoding="utf-8")
    direct = circuits.score(model(), traced, images="scenes:24", random=3)
    assert traced.scored(random=3).score == direct and traced.with_score(direct).score is direct
    assert "Faithfulness" in page and "cars" in page and page.count("data:image/jpeg") > 10  # its crops
    loaded = circuits.Circuit.load(traced.save(tmp_path / "circuit.json"))
    assert "data:image/jpeg" not in loaded.report(tmp_path / "bare.html").read_text()  # nothing is guessed
    with pytest.raises(CircuitsError, match="with_score"):
        loaded.scored("scenes:24")
    again = loaded.report(tmp_path / "again.html", model=model(), images="scenes:24").read_text()
    assert again.count("data:image/jpeg") == traced.report(tmp_path / "b.html").read_text().count("data:image/jpeg")


def test_a_result_that_needs_its_images_says_so_when_it_was_loaded(tmp_path: Path) -> None:
    attribution = EXAMPLES["Attribution"](Path())
    loaded = circuits.Attribution.load(attribution.save(tmp_path / "a"))
    with pytest.raises(CircuitsError, match="needs images="):
        loaded.plot()
    assert loaded.plot(images="scenes:1", model=model()) is not None
    with pytest.raises(CircuitsError, match="colour"):
        attribution.plot(colour="red")
    with pytest.raises(CircuitsError, match="holds a Attribution, not a Tuning"):
        circuits.Tuning.load(tmp_path / "a")
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes()[:-40])
    with pytest.raises(CircuitsError, match="damaged"):
        circuits.Attribution.load(tmp_path / "b")


def test_texts_in_a_cell_are_escaped() -> None:
    gate = sae.language.Gate(3, "<script>alert(1)</script>", 0.5, 0.9, 0.2)
    assert "<script" not in gate._repr_html_() and "&lt;script" in gate._repr_html_()


def test_a_class_of_another_package_is_not_made_from_a_file(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Mine(Result):
        value: float

    with pytest.raises(CircuitsError, match="not a class of this package"):
        Mine(1.0).save(tmp_path / "mine")
    assert repr(Mine(1.0)).endswith("(value=1)") and isinstance(Mine(1.0).plot(), Figure)


def test_a_class_that_moved_is_found_by_the_name_in_files_of_earlier_versions() -> None:
    assert result_files._class("circuits.tracing.curves.size_curve:Estimate") is Estimate


def test_a_part_of_a_list_is_of_its_type() -> None:
    assert all(issubclass(kind, Result) for kind in (Listed, circuits.Findings, sae.steering.LatentFindings))
