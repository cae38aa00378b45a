"""The landmark of the tales, from end to end: found by contrast, brought up by steering, beside random latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sae
from sae.steering.study import study
from sae.steering.study_result import Study
from sae.steering.study_settings import Writing
from zoo import tales

pytest.importorskip("transformers")

from sae.language import Gate, LanguageSite, gates, known_features  # noqa: E402
from sae.steering import LatentEdit, Maxima, maxima, search, steer  # noqa: E402
from zoo.networks.language import load_language  # noqa: E402

pytestmark = pytest.mark.slow
NAME = tales.THE_LANDMARK.name
MENTIONS = Writing(
    lambda text: float(tales.mentions(text) > 0),
    ("One day Anna walked to",) * 40,
    name="share of texts with the landmark",
    beside={"grammar": tales.parses},
)


@pytest.fixture(scope="module")
def site() -> LanguageSite:
    return LanguageSite(load_language("tales"), "layers.2.resid")


@pytest.fixture(scope="module")
def dictionary(site: LanguageSite) -> sae.SAE:
    stream = site.stream("tales:3000@2", batch_size=1024)
    return sae.train(stream, sae.TopK(latents=512, k=4), steps=3000, lr=3e-3)[0].sae


@pytest.fixture(scope="module")
def known(site: LanguageSite, dictionary: sae.SAE) -> Maxima:
    return maxima(dictionary, site, "tales:500@2")


@pytest.fixture(scope="module")
def landmark(site: LanguageSite, dictionary: sae.SAE) -> int:
    """The latent that tells stories about the landmark best from others."""
    stories = tales.sample(2000, seed=9)
    about = [story.text for story in stories if story.landmark == NAME]
    other = [story.text for story in stories if story.landmark != NAME][:300]
    found = search(dictionary, site, about, other)
    assert found.best.auc > 0.99 > 0.7 > found.chance
    return found.best.latent


def steer_by(site: LanguageSite, dictionary: sae.SAE, landmark: int, known: Maxima, **options: Any) -> Study:
    return study(
        site, dictionary, landmark, "tales:40@5", targets=MENTIONS, capability="grammar", maxima=known, **options
    )


def test_the_latent_of_contrast_search_is_that_of_the_known_feature(
    site: LanguageSite, dictionary: sae.SAE, landmark: int
) -> None:
    found = {one.name: one for one in known_features(dictionary, site, tales.sample(1000, seed=1))}
    assert found["landmark_due"].latent == landmark
    assert found["landmark_due"].auc > 0.99


def test_the_steered_latent_produces_the_landmark_and_random_latents_do_not(
    site: LanguageSite, dictionary: sae.SAE, landmark: int, known: Maxima
) -> None:
    found = steer_by(site, dictionary, landmark, known, factors=(0, 0.5, 0.75, 1, 5, 7, 10))
    assert found.effect.clean < 0.1
    assert (found.effect.values[-3:] >= 0.8).all()
    assert (np.median(found.effect.random, axis=0) <= found.effect.clean + 0.05).all()
    # with restraint it does so in sentences of the grammar
    assert found.sweet_spot is not None and found.sweet_spot[1] >= 0.5
    assert found.effect.values[1] > found.effect.random[:, 1].max() and found.capability.values[1] > 0.9
    assert found.effect.values[2] > found.effect.random[:, 2].max()
    for name, least in (("classes", 0.8), ("latents", 0.6)):
        effects = found.side_effects[name]
        assert effects.correlation > least
        assert np.abs(effects.control).max() < 0.6 * effects.correlation


@pytest.fixture(scope="module")
def due(site: LanguageSite, dictionary: sae.SAE, landmark: int, known: Maxima) -> list[Gate]:
    """Latents that hardly fire but where a place is due."""
    found = gates(dictionary, site, tales.sample(600, seed=1), "place_due", known, recall=0.03)
    return [one for one in found if one.latent != landmark]


def test_gated_by_a_due_place_it_produces_the_landmark_and_the_grammar_holds(
    site: LanguageSite, dictionary: sae.SAE, landmark: int, known: Maxima, due: list[Gate]
) -> None:
    clean = write(site, dictionary, [], known)

    def turned(latent: int, factor: float) -> list[LatentEdit]:
        return [LatentEdit(latent, "set", factor, unit="max", when=one.when) for one in due]

    for factor in (7.0, 10.0):
        said, grammar = write(site, dictionary, turned(landmark, factor), known)
        assert said >= 0.8 and grammar > 0.95
    own = {landmark, *(one.latent for one in due)}
    random = [write(site, dictionary, turned(i, 10.0), known)[0] for i in known.random_active(8, exclude=own)]
    assert np.median(random) <= clean[0] + 0.05


def write(site: LanguageSite, dictionary: sae.SAE, edits: list[LatentEdit], known: Maxima) -> tuple[float, float]:
    """Share of texts with the landmark, and of sentences that the grammar has."""
    with steer(site, dictionary, edits, maxima=known if edits else None):
        texts = [one.whole for one in site.generate(MENTIONS.prompts, max_new_tokens=40, seed=3)]
    return float(np.mean([tales.mentions(t) > 0 for t in texts])), float(np.mean([tales.parses(t) for t in texts]))


def test_steered_at_one_token_the_story_continues_about_it(
    site: LanguageSite, dictionary: sae.SAE, landmark: int, known: Maxima, due: list[Gate]
) -> None:
    """Steered at the `the` before the first place alone, by its number or by the latent that fires there."""
    factors = (0, 5, 10)
    by_token = steer_by(site, dictionary, landmark, known, factors=factors, positions=(5,))
    by_latent = steer_by(site, dictionary, landmark, known, factors=factors, when=due[0].when)
    for found in (by_token, by_latent):
        assert found.effect.values[1] > 0.3 and found.effect.values[2] > 0.6
        assert (np.median(found.effect.random, axis=0) <= found.effect.clean + 0.05).all()
        assert found.sweet_spot == (0.0, 10.0) and (found.capability.values > 0.95).all()
