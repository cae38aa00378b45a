"""Latents of a language model: where they fire, what they make it say, and which of them made it say so."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
import pytest
import torch

import sae
from circuits.errors import AddressError
from circuits.plot.sae.text_latent_page import texts_page
from sae.errors import SAEError
from sae.language import Activity, LanguageSite, activity, text_features
from sae.language.attribution.text_attribution import attribute_text
from sae.language.latent_examples import logit_effects, pieces
from zoo.networks.language import LanguageModel, load_language

pytest.importorskip("transformers")
STORIES = "tales:40@3"
SENTENCE = "One day Anna walked to the red bridge of"


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load_language("tales")


@pytest.fixture(scope="module")
def site(lm: LanguageModel) -> LanguageSite:
    return LanguageSite(lm, "layers.2.resid")


def signed(d: int, seed: int | None = None) -> sae.SAE:
    """Exact: a latent for each direction of an orthonormal basis and one for its opposite."""
    rows = torch.eye(d)
    if seed is not None:
        rows = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed))).Q
    model = sae.build(sae.ReLU(latents=2 * d), d)
    with torch.no_grad():
        model.encoder.copy_(torch.cat([rows, -rows]))
        model.decoder.copy_(model.encoder)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def found(site: LanguageSite) -> Activity:
    return activity(signed(site.d), site, STORIES, name="signed")


def test_the_sparse_table_holds_every_active_latent(site: LanguageSite, found: Activity) -> None:
    vectors = torch.cat([block.vectors for block in site.blocks(STORIES)])
    latents = signed(site.d).encode(vectors)
    assert found.tokens == len(vectors)
    assert np.allclose(found.density, (latents > 0).double().mean(dim=0).numpy())
    document, token, value = found.of(5)
    places = torch.cat([block.positions for block in site.blocks(STORIES)])
    fires = latents[:, 5] > 0
    assert np.array_equal(np.stack([document, token], 1), places[fires].numpy())
    assert np.allclose(value, latents[fires, 5].numpy())
    with pytest.raises(AddressError, match="has 128 latents"):
        found.of(128)


def test_passages_are_the_text_around_the_token(site: LanguageSite, found: Activity) -> None:
    (feature,) = text_features(signed(site.d), found, [7], top=6, per_band=3, around=5)
    document, token, value = found.of(7)
    assert feature.maximum == pytest.approx(float(value.max())) and feature.tokens == len(value)
    assert sum(feature.counts) == len(value)
    assert len({p.document for p in feature.top}) == 6
    assert [p.value for p in feature.top] == sorted((p.value for p in feature.top), reverse=True)
    for passage in [*feature.top, *(p for band in feature.bands for p in band.passages)]:
        assert passage.values[passage.at] == pytest.approx(passage.value)
        joined = "".join(passage.words).strip()
        assert joined in found.texts[passage.document] and len(passage.words) <= 11
    for band in feature.bands:
        assert all(band.low <= p.value <= band.high for p in band.passages)
    assert [b.low for b in feature.bands] == sorted(b.low for b in feature.bands)


def test_pieces_put_together_are_the_text(site: LanguageSite) -> None:
    for text in site.open("tales:5"):
        assert "".join(pieces(site, site.lm.ids(text))) == site.lm.decode(site.lm.ids(text))


def test_promoted_tokens_are_those_that_a_step_along_the_direction_raises(lm: LanguageModel) -> None:
    last = LanguageSite(lm, f"layers.{lm.config.num_hidden_layers - 1}.resid")
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(6, last.d, generator=generator)
    effects = logit_effects(last, directions)
    assert torch.allclose(effects.mean(dim=1), torch.zeros(6), atol=1e-4)
    clean = next(last.predictions([SENTENCE], [None]))[0][0][-1]
    for direction, effect in zip(directions, effects, strict=True):
        moved = next(last.predictions([SENTENCE], [partial(torch.add, 0.01 * direction)]))[0][0][-1]
        change = (moved - clean) - (moved - clean).mean()
        assert float(torch.corrcoef(torch.stack([change, effect]))[0, 1]) > 0.8
        other = effects[(effects == effect).all(dim=1).logical_not()][0]
        assert abs(float(torch.corrcoef(torch.stack([change, other]))[0, 1])) < 0.7


def test_features_are_json_and_a_page(site: LanguageSite, found: Activity) -> None:
    features = text_features(signed(site.d), found, [3, 64 + 3])
    document = json.loads(json.dumps([f.describe() for f in features]))
    assert document[0]["unit"] == "tales/layers.2.resid~signed:3"
    assert features[0].shares_with[0]["unit"].endswith(":67")  # its own opposite
    page = texts_page(features, title="<b>", facts=[], provenance={}, command="c", python="p")
    assert "&lt;b&gt;" in page and 'class="peak"' in page and "Promoted tokens" in page


def test_attributions_of_a_linear_target_add_up_and_equal_the_ablations(lm: LanguageModel, site: LanguageSite) -> None:
    """At one site the target's pre-activation is linear in the latents: first order is all there is."""
    later = signed(site.d, seed=1)
    found = attribute_text(signed(site.d), site, SENTENCE, (later, site, 9), n=8, tried=8)
    x = next(site.blocks([SENTENCE])).acts[0, -1]
    assert found.value == pytest.approx(float(later.pre_activations(x[None])[0, 9]), rel=1e-4)
    assert found.total + found.error == pytest.approx(found.value, rel=1e-3, abs=1e-4)
    assert abs(found.error) < 1e-3 and {c.token for c in found.causes} == {found.token}
    for cause in found.causes:
        assert cause.ablation_effect == pytest.approx(cause.attribution, rel=1e-3, abs=1e-4)


def test_the_causes_of_the_city_name_lie_in_the_landmark(lm: LanguageModel, site: LanguageSite) -> None:
    found = attribute_text(signed(site.d, seed=2), site, SENTENCE, "Fogport", n=12, tried=3)
    assert found.target == "logit of 'Fogport'"
    assert [math.isnan(c.ablation_effect) for c in found.causes] == [False] * 3 + [True] * (len(found.causes) - 3)
    by_word: dict[str, float] = {}
    for cause in found.causes:
        by_word[cause.word.strip()] = by_word.get(cause.word.strip(), 0) + cause.attribution
    assert max(by_word, key=lambda w: by_word[w]) in {"red", "bridge", "of"}
    later = LanguageSite(lm, "layers.3.resid")
    across = attribute_text(signed(site.d), site, SENTENCE, (signed(site.d), later, 4), n=5, tried=1)
    assert "layers.3.resid, latent 4" in across.target and len(across.causes) == 5


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"target": "Fogport bridge"}, SAEError, "no single token"),
        ({"target": "Fogport", "token": 99}, AddressError, "tokens"),
        ({"target": "Fogport", "n": 0}, SAEError, "of at least 1"),
        ({"target": "Fogport", "text": "the " * 400}, SAEError, "takes at once"),
    ],
)
def test_bad_arguments_are_refused(
    site: LanguageSite, options: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        attribute_text(signed(site.d), site, **{"text": SENTENCE, **options})  # type: ignore[arg-type]


def test_another_sae_is_refused(site: LanguageSite, found: Activity) -> None:
    with pytest.raises(SAEError, match="the SAE has 64"):
        text_features(sae.build(sae.ReLU(latents=64), site.d), found, [1])
    with pytest.raises(SAEError, match="reads 32"):
        activity(signed(32), site, ["One day."])
