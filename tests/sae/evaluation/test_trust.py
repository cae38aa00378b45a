"""Metrics of latents against plain loops, and the table of which metric tells trained dictionaries from controls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import circuits
import sae
from sae.errors import SAEError
from sae.evaluation.trust.held_out import METRICS, held_out
from sae.evaluation.trust.latent_metrics import (
    absorption_rate,
    class_purity,
    cross_domain,
    kept_classes,
    monosemanticity,
    normalized_area,
    sparse_probing,
    spatial_coherence,
)
from sae.evaluation.trust.metric_table import MeasuredDictionary, MetricTable, metric_table
from sae.evaluation.trust.planted import Families, planted_metrics
from zoo.images.sources import open_images

RANDOM = torch.Generator().manual_seed(0)
ACTS = torch.randn(30, 4, generator=RANDOM).relu()
EMBEDDINGS = torch.randn(30, 5, generator=RANDOM)
LABELS = torch.arange(30) % 3


@pytest.mark.parametrize("top", [None, 6])
def test_monosemanticity_is_the_weighted_mean_cosine_of_pairs(top: int | None) -> None:
    found = monosemanticity(ACTS, EMBEDDINGS, top)
    for latent in range(4):
        a = ACTS[:, latent]
        w = ((a - a.min()) / (a.max() - a.min())).tolist()
        rows = sorted(range(30), key=lambda i: -w[i])[: top or 30]
        pairs = [(i, j) for n, i in enumerate(rows) for j in rows[n + 1 :]]
        over = sum(w[i] * w[j] * float(F.cosine_similarity(EMBEDDINGS[i], EMBEDDINGS[j], dim=0)) for i, j in pairs)
        assert float(found[latent]) == pytest.approx(over / sum(w[i] * w[j] for i, j in pairs), abs=1e-5)
    assert torch.isnan(monosemanticity(torch.zeros(30, 1), EMBEDDINGS)).all()
    with pytest.raises(SAEError, match="29 embeddings"):
        monosemanticity(ACTS, EMBEDDINGS[:29])


def test_spatial_coherence_is_morans_index() -> None:
    maps = torch.zeros(2, 4, 5, 3)
    maps[0, 1:3, 1:3, 0] = 1.0  # together
    maps[0, ::2, ::2, 1] = 1.0  # scattered
    found = spatial_coherence(maps, least_active=2, least_images=1)
    for latent in range(2):
        x = maps[0, :, :, latent].double() - maps[0, :, :, latent].double().mean()
        cells = [(i, j) for i in range(4) for j in range(5)]
        near = [(a, b) for a in cells for b in cells if max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1]
        expected = 20 / len(near) * float(sum(x[a] * x[b] for a, b in near) / x.square().sum())
        assert float(found[latent]) == pytest.approx(expected, abs=1e-6)
    assert found[0] > 0.2 > -0.1 > found[1] and math.isnan(found[2])


def test_purity_and_probes_of_latents_that_are_classes() -> None:
    own = F.one_hot(LABELS).float() * (1 + 0.1 * torch.rand(30, 3, generator=RANDOM))
    assert torch.equal(class_purity(own, LABELS, top=10), torch.ones(3))
    assert torch.isnan(class_purity(own, LABELS, top=11)).all()  # the eleventh is silent
    probes = sparse_probing(own, LABELS, (1, 2, 3, 9))
    assert probes.keys() == {1, 2, 3} and probes[3] == 1.0
    assert probes[1] == pytest.approx(2 / 3)  # one latent tells one class from the two others
    assert normalized_area({1: 0.5, 3: 1.0}) == 0.75
    assert kept_classes(own, own, LABELS) == 1.0 and kept_classes(own, own.flip(1), LABELS) < 0.7


def test_ranking_probes_on_all_images_lets_the_test_labels_have_a_say() -> None:
    labels = torch.arange(60) % 2
    found: dict[str, list[float]] = {"training": [], "all": []}
    for seed in range(8):
        noise = torch.randn(60, 400, generator=torch.Generator().manual_seed(seed))
        for way, values in found.items():
            values.append(sparse_probing(noise, labels, (5,), ranked_on=way)[5])  # type: ignore[arg-type]
    assert np.mean(found["all"]) > 0.7 > 0.6 > np.mean(found["training"])


def test_auroc_counts_pairs_within_layers() -> None:
    def row(layer: str, kind: str, seed: int, value: float) -> MeasuredDictionary:
        return MeasuredDictionary(layer, kind, seed, 8, dict.fromkeys(METRICS, value))

    high = [row("a", "trained", 0, 2.0), row("a", "trained", 1, 0.0), row("b", "trained", 0, 9.0)]
    low = [row("a", "pca", 0, 1.0), row("a", "pca", 1, 0.0), row("b", "pca", 0, math.nan)]
    table = MetricTable("m", ("a",), 2, 10, (*high, *low), 0.0)
    assert table.auroc("alive", "pca") == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    both = MetricTable("m", ("a", "b"), 2, 10, (*high, *low), 0.0)
    assert math.isnan(both.auroc("alive", "pca", "b")) and both.auroc("alive", "pca") == table.auroc("alive", "pca")
    assert table.controls == ("pca",) and table.mean("alive", "trained") == 1.0
    assert table.trusted("pca") == [] and math.isnan(table.auroc("alive", "ica"))


@pytest.fixture(scope="module")
def table() -> MetricTable:
    model = circuits.load("scenes-labels")
    return metric_table(
        model, ["mixed4b"], "scenes:60", "scenes:60@7", judge=circuits.load("scenes"), seeds=2, steps=40,
        batch_size=512, controls=["untrained", "random network", "channels"], scaling=True, planted=True,
    )  # fmt: skip


def test_a_table_measures_every_dictionary(table: MetricTable) -> None:
    assert {(row.kind, row.seed) for row in table.rows} == {
        (kind, seed) for kind in ("trained", *table.controls) for seed in (0, 1)
    }
    assert table.auroc("explained variance", "untrained") == 1.0
    assert table.mean("stability", "channels") == pytest.approx(1.0)
    assert math.isnan(table.mean("kept predictions", "random network"))
    assert all(0 <= table.mean(name, "trained") <= 1 for name in METRICS if name not in ("targeted removal",))
    assert table.auroc("planted recovery", "untrained") == 1.0 and math.isnan(table.auroc("unsplit", "random network"))
    described = table.describe()
    assert described["metrics"]["kept predictions"]["auroc"]["random network"] is None
    assert len(described["dictionaries"]) == 8 + 6 and len(table.records()) == len(METRICS)
    assert table.plot().axes


def test_the_same_seed_gives_the_same_table(table: MetricTable) -> None:
    again = metric_table(
        circuits.load("scenes-labels"), ["mixed4b"], "scenes:60", "scenes:60@7", judge=circuits.load("scenes"),
        seeds=2, steps=40, batch_size=512, controls=["channels"],
    )  # fmt: skip
    first = [row.values for row in table.rows if row.kind in ("trained", "channels") and row.layer == "mixed4b"]
    rest = {name for name in METRICS if again.mean(name, "trained") == again.mean(name, "trained")}
    assert "gain of size" not in rest and "unsplit" not in rest
    assert [[row.values[name] for name in rest] for row in again.rows] == [[v[name] for name in rest] for v in first]


class _Silent:
    """A dictionary that reconstructs the mean, and removes nothing."""

    latents = 20

    def __init__(self, d: int) -> None:
        self.write = F.normalize(torch.randn(20, d, generator=RANDOM))

    def encode(self, acts: Tensor) -> Tensor:
        return torch.zeros(len(acts), 20)

    def decode(self, latents: Tensor) -> Tensor:
        return latents @ self.write


class _Whole(_Silent):
    """Every channel is a latent: to remove all of one means to silence it."""

    def __init__(self, d: int) -> None:
        self.latents, self.write = d, torch.eye(d)

    def encode(self, acts: Tensor) -> Tensor:
        return acts


def test_removing_nothing_does_nothing_and_taught_channels_carry_their_parts() -> None:
    model = circuits.load("scenes")
    data = held_out(model, "mixed3b", open_images("scenes:20@7"))
    assert data.concepts is not None and len(data.concepts.names) == 8
    assert data.concepts.score(_Silent(48)) == 0.0  # |edited - without| is |with - without|, and there is no damage
    assert data.concepts.score(_Whole(48)) > 0.5  # of this network the channels were taught the parts
    whole, silent = data.predictions([_Whole(48), _Silent(48)])
    assert whole == {"kept predictions": pytest.approx(1.0), "loss recovered": pytest.approx(1.0)}
    images, losses = open_images("scenes:20@7"), []
    labels, mean = torch.tensor(images.labels), data.maps.flatten(0, 2).mean(dim=0)
    for way in (lambda acts: mean.expand_as(acts), torch.zeros_like, lambda acts: acts):
        with data.site.replaced(way):
            logits = circuits.capture(model, images, "logits")["logits"].flatten(1)
        losses.append(float(F.cross_entropy(logits.double(), labels)))
    assert silent["loss recovered"] == pytest.approx((losses[0] - losses[1]) / (losses[0] - losses[2]), rel=1e-4)


class _Always(_Silent):
    """Every latent is active on every input."""

    def encode(self, acts: Tensor) -> Tensor:
        return torch.ones(len(acts), self.latents)


class _Parents(_Silent):
    """Reads planted families exactly: each feature by a latent; parents absorbed, or split over two latents."""

    def __init__(self, families: Families, way: str) -> None:
        self.families, self.way = families, way
        self.latents, self.write = families.features, families.directions

    def encode(self, acts: Tensor) -> Tensor:
        strengths = acts @ self.families.directions.T
        strengths = (strengths * (strengths > 0.3)).unflatten(1, (self.families.families, -1))
        if self.way == "absorbed":
            strengths[..., 0] *= ~(strengths[..., 1:] > 0).any(dim=2)
        if self.way == "split":
            strengths = torch.cat([strengths, strengths[..., :1]], dim=2)
            strengths[..., 0] *= strengths[..., 0] < 1
            strengths[..., -1] *= strengths[..., -1] >= 1
        return strengths.flatten(1)


def test_absorbed_and_split_parents_are_told_from_whole_ones() -> None:
    families = Families(families=3, children=4, d=16)
    acts, strengths = families.sample(20_000, 5)
    torch.testing.assert_close(acts @ families.directions.T, strengths.flatten(1), atol=0.15, rtol=0)
    assert float((strengths[..., 0] > 0).double().mean()) == pytest.approx(0.15, abs=0.01)
    assert torch.equal((strengths[..., 1:] > 0).any(2), (strengths[..., 1:] > 0).any(2) & (strengths[..., 0] > 0))
    whole, absorbed, split = (planted_metrics(_Parents(families, way), families) for way in ("", "absorbed", "split"))
    assert whole == {"planted recovery": pytest.approx(1), "unabsorbed": 1.0, "unsplit": 1.0}
    assert absorbed["unabsorbed"] == 0.0
    # the latent of the parent is active on a fifth of its samples, as is that of each of four children: F1 2 * .2 / 1.2
    assert absorbed["unsplit"] == pytest.approx(1 / 3, abs=0.03)
    assert split["unsplit"] == pytest.approx(2 * 0.5 / 1.5, abs=0.03) and split["unabsorbed"] > 0.9
    for empty in (_Silent(16), _Always(16)):  # active nowhere and everywhere: neither stands for a parent
        assert planted_metrics(empty, families).items() >= {"unabsorbed": 0.0, "unsplit": 0.0}.items()


def test_too_little_to_tell_apart_is_refused_or_not_a_number() -> None:
    acts, labels = torch.rand(30, 8), torch.arange(30) % 3
    with pytest.raises(SAEError, match="at least two classes, got 30 images of 1"):
        sparse_probing(acts, torch.zeros(30))
    with pytest.raises(SAEError, match="count=4 must be a whole number of at least 1000"):
        planted_metrics(_Silent(16), Families(families=3, children=4, d=16), count=4)
    # ten latents at the top of eight are those of every class, whatever the dictionary
    assert math.isnan(absorption_rate(acts, labels, {"alike": [0, 1, 2]}))


def test_bad_requests_are_refused() -> None:
    model = circuits.load("scenes")
    for wrong, words in (
        ({"seeds": 1}, "seeds=1"),
        ({"controls": ["noise"]}, "untrained"),
        ({"layers": []}, "at least one layer"),
        ({"held_out_images": "scenes:8@1"}, "8 images to measure on"),
    ):
        settings: dict[str, Any] = {
            "layers": ["mixed3b"],
            "images": "scenes:8",
            "held_out_images": "scenes:10@1",
        } | wrong
        with pytest.raises(SAEError, match=words):
            metric_table(model, **settings)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of scikit-learn, in the peer
def test_latent_metrics_equal_those_of_visaebench() -> None:
    pytest.importorskip("visaebench")
    from visaebench.metrics.concept_detection.cross_domain import CrossDomainGeneralization
    from visaebench.metrics.concept_detection.monosemanticity import MonosemanticityScore
    from visaebench.metrics.concept_detection.sparse_probing import SparseProbing
    from visaebench.metrics.disentanglement.absorption import FeatureAbsorption
    from visaebench.metrics.reconstruction.downstream import DownstreamPreservation
    from visaebench.metrics.spatial_coherence.localization import FeatureLocalization

    n, h, w, d = 120, 6, 6, 12
    labels = torch.arange(n) % 4
    x = torch.randn(n, h * w, d, generator=RANDOM).relu() + F.one_hot(labels, d)[:, None].float()
    trained = sae.build(sae.TopK(latents=40, k=4), d).eval().requires_grad_(False)
    latents = trained.encode(x.flatten(0, 1)).view(n, h * w, 40)
    pooled, embeddings = latents.amax(dim=1), torch.randn(n, 7, generator=RANDOM)

    class Judge:
        def extract_activations(self, images: list[int], layer: int = -1) -> Tensor:
            return torch.stack([embeddings[i] for i in images])[:, None]

    options: dict[str, Any] = {"device": "cpu"}
    theirs = (
        MonosemanticityScore().compute(trained, x, images=list(range(n)), evaluator_backbone=Judge(), **options).value
    )
    assert float(np.nanmean(monosemanticity(pooled, embeddings).numpy())) == pytest.approx(theirs, abs=1e-6)
    local = FeatureLocalization((h, w), 2, min_images_per_feature=3, max_images_per_feature=10**6)
    mine = spatial_coherence(latents.view(n, h, w, 40), least_active=2, least_images=3)
    assert float(np.nanmean(mine.numpy())) == pytest.approx(local.compute(trained, x, **options).value, abs=1e-6)
    sizes = [1, 5, 10, 20]
    probes = SparseProbing(k_values=sizes).compute(trained, x, labels=labels.numpy(), **options)
    assert sparse_probing(pooled, labels, sizes, ranked_on="all") == probes.metadata["k_accuracies"]
    kept = kept_classes(x.mean(dim=1), trained(x.flatten(0, 1)).view_as(x).mean(dim=1), labels)
    theirs = DownstreamPreservation().compute(trained, x, labels=labels.numpy(), **options).value
    assert kept == pytest.approx(theirs, abs=1e-6)
    many, dim = torch.arange(n) % 12, x * (torch.arange(n) % 3)[:, None, None]  # some classes as alike as their group
    groups = {"low": [0, 1, 2, 3], "high": [4, 5, 6, 7, 8]}
    named = {name: {"class_indices": classes} for name, classes in groups.items()}
    rate = FeatureAbsorption().compute(trained, dim, labels=many.numpy(), sibling_groups=named, **options)
    pools = [trained.encode(some.flatten(0, 1)).view(n, h * w, 40).amax(dim=1) for some in (dim, x.flip(2))]
    assert 0 < rate.value < 1
    assert absorption_rate(pools[0], many, groups) == pytest.approx(rate.value, abs=1e-6)
    other = {"flipped": {"activations": x.flip(2), "labels": labels.numpy()}}
    theirs = CrossDomainGeneralization().compute(trained, x, ood_datasets=other, **options).metadata["per_dataset"]
    for theirs_of in theirs.values():
        mine_of = cross_domain(pooled, pools[1], labels, theirs_of["ood_fvu"])
        names = {"coverage": "domain_coverage", "overlap": "jaccard_overlap", "probing": "probe_accuracy_k10"}
        names |= {"reconstruction": "reconstruction_quality", "mean": "composite"}
        assert mine_of == {name: pytest.approx(theirs_of[key], abs=1e-6) for name, key in names.items()}
