"""Clusters of polysemantic channels against the latents behind them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import circuits
import sae
from circuits.units.polysemanticity import Polysemanticities, polysemantic
from sae.errors import SAEError
from sae.evaluation.trust.cluster_separation import Separation, separation

IMAGES = "scenes:150@7"


@pytest.fixture(scope="module")
def result() -> tuple[circuits.Model, Polysemanticities]:
    model = circuits.load("scenes")
    return model, polysemantic(model, [f"mixed4a:{i}" for i in (21, 22, 30)], images=IMAGES, n=32, draws=5)


def told_apart(model: circuits.Model, result: Polysemanticities) -> sae.SAE:
    """A dictionary with one latent for each cluster of the best unit: the difference of its mean from the others'."""
    row = result.best
    acts = circuits.capture(model, IMAGES, ["mixed4a"])["mixed4a"]
    means = torch.stack(
        [torch.stack([acts[e.image, :, *e.position] for e in c.examples]).mean(dim=0) for c in row.clusters]
    )
    return planted(means)


def planted(means: Tensor) -> sae.SAE:
    rows = torch.nn.functional.normalize(means - means.mean(dim=0), dim=1)
    dictionary = sae.build(sae.TopK(latents=len(rows), k=1), rows.shape[1]).requires_grad_(False)
    dictionary.encoder.copy_(rows)
    dictionary.decoder.copy_(rows.abs())  # all write to the channel
    dictionary.encoder_bias.copy_(-rows @ means.mean(dim=0))
    dictionary.decoder_bias.zero_()
    return dictionary.eval()


def test_a_dictionary_with_a_latent_for_each_cluster_separates_them(
    result: tuple[circuits.Model, Polysemanticities],
) -> None:
    model, found = result
    assert found.best.split
    compared = separation(model, found, {"planted": told_apart(model, found)}, IMAGES, most=1)
    assert compared.values("planted", "leading latent")[0] > 0.8
    assert compared.values("planted")[0] > 0.8
    assert abs(compared.values("shuffled clusters")[0]) < 0.15
    row = compared.rows[0]
    assert sum(row.sizes) <= 32 and "leading latent" not in row.values["clusters"]
    assert compared.difference("planted", "pca").value == pytest.approx(
        float((compared.values("planted") - compared.values("pca")).mean())
    )
    again = separation(model, found, {"planted": told_apart(model, found)}, IMAGES, most=1)
    assert again.describe() == compared.describe() and compared.plot().axes
    assert {r["dictionary"] for r in compared.records()} == {"planted", *compared.controls}


def test_what_cannot_be_compared_is_refused(result: tuple[circuits.Model, Polysemanticities]) -> None:
    model, found = result
    one = replace(found.rows[0], clusters=found.rows[0].clusters[:1])
    with pytest.raises(SAEError, match="none of the 1 units is split"):
        separation(model, replace(found, rows=(one,)), {"a": told_apart(model, found)}, IMAGES)
    with pytest.raises(SAEError, match="at least one dictionary"):
        separation(model, found, {}, IMAGES)
    with pytest.raises(circuits.CircuitsError, match="does not hold image"):
        separation(model, found, {"a": told_apart(model, found)}, "scenes:150@8")
    with pytest.raises(SAEError):
        separation(model, found, {"a": sae.build(sae.TopK(latents=8, k=1), 5)}, IMAGES)
    assert isinstance(found, Polysemanticities) and Separation.__name__ == "Separation"
    assert np.isfinite(found.best.score)
