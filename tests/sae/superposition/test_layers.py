"""A layer's units beside each other: measures with known values, and correlations that can be told from chance."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import circuits
from circuits.network.basis import Directions
from circuits.plot.units.layer_scatter import layer_units_figure
from sae.errors import SAEError
from sae.superposition.layer_units import LayerUnits, _correlation, layer_units

LAYER = "mixed3b"


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    model = circuits.load("scenes", device="cpu")
    model.attach(LAYER, "channels", Directions(torch.eye(48), torch.eye(48)))
    axes = torch.eye(48)
    crowded = torch.nn.functional.normalize(torch.cat([axes, axes[:24] + axes[24:]]))
    model.attach(LAYER, "crowded", Directions(crowded, crowded))
    return model


@pytest.fixture(scope="module")
def found(model: circuits.Model) -> LayerUnits:
    return layer_units(model, LAYER, "channels", "scenes:40", importance_images=12, draws=200)


def test_channels_as_their_own_dictionary_have_one_writing_latent_each(found: LayerUnits) -> None:
    active = found.density > 0
    assert np.allclose(found.dimensionality[active], 1) and np.allclose(found.writers[active], 1)


def test_a_dictionary_with_more_directions_is_more_crowded(model: circuits.Model, found: LayerUnits) -> None:
    crowded = layer_units(model, LAYER, "crowded", "scenes:40", importance_images=2, draws=10)
    active = found.density > 0
    assert crowded.dimensionality[active].max() < 1 and crowded.writers[active].max() > 1.2


def test_density_and_importance_follow_their_definitions(model: circuits.Model, found: LayerUnits) -> None:
    acts = circuits.capture(model, "scenes:40", [LAYER])[LAYER]
    assert np.allclose(found.density, (acts > 0).double().mean(dim=(0, 2, 3)).numpy())
    from zoo.images.sources import open_images

    few = open_images("scenes:40", limit=12, seed=0)
    mean = acts.mean(dim=(0, 2, 3))
    logits = circuits.capture(model, few, ["logits"])["logits"].flatten(1).double().log_softmax(1)
    channel = int(np.argmax(found.importance))
    pooled = circuits.capture(model, few, ["mixed4a_pool"])["mixed4a_pool"][:, channel].mean()
    held = [
        circuits.Set(f"{LAYER}:{channel}", float(mean[channel])),
        circuits.Set(f"mixed4a_pool:{channel}", float(pooled)),
    ]
    with circuits.edit(model, held):
        said = circuits.capture(model, few, ["logits"])["logits"].flatten(1).double().log_softmax(1)
    kl = float((logits.exp() * (logits - said)).sum(1).mean())
    assert found.importance[channel] == pytest.approx(kl, rel=1e-3) and kl > 0.01
    silent = found.density == 0
    assert np.allclose(found.importance[silent], 0)


def test_correlations_stand_beside_shuffled_ones() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=200)
    same = _correlation(x, x**3, 500, 0)
    assert same.rho == pytest.approx(1) and same.p < 0.01 and same.low < 0 < same.high < 0.2
    other = _correlation(x, random.normal(size=200), 500, 0)
    assert other.p > 0.01 and abs(other.rho) < 0.2
    holes = np.where(np.arange(200) < 50, np.nan, x)
    assert _correlation(holes, x, 50, 0).n == 150


def test_polysemanticity_is_set_beside_the_rest(model: circuits.Model) -> None:
    scores = circuits.polysemantic(model, [f"{LAYER}:{i}" for i in range(8)], images="scenes:120", draws=5)
    found = layer_units(model, LAYER, "channels", "scenes:40", polysemanticity=scores, importance_images=2, draws=20)
    assert np.isfinite(found.polysemanticity).sum() == len(scores.rows)
    best = scores.best
    assert found.polysemanticity[int(best.unit.rpartition(":")[2])] == best.score
    others = circuits.polysemantic(model, ["mixed4a:11"], images="scenes:120", draws=5)
    with pytest.raises(SAEError, match="other units"):
        layer_units(model, LAYER, "channels", "scenes:40", polysemanticity=others, importance_images=2)


def test_it_is_json_and_a_figure(found: LayerUnits) -> None:
    document = json.loads(json.dumps(found.describe()))
    assert len(document["units"]) == 48 and document["polysemanticity"][0] is None
    figure = layer_units_figure(found, title="units")
    assert len(figure.axes) == len(found.correlations) == 3


def test_a_branch_is_refused(model: circuits.Model) -> None:
    with pytest.raises(SAEError, match="take the whole layer mixed3b"):
        layer_units(model, "mixed3b_3x3", "channels", "scenes:4")
