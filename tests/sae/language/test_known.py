"""Known features of the tales: which latents read them, and which fire nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import sae  # noqa: E402
from sae.errors import SAEError  # noqa: E402
from sae.language import LanguageSite, gates, known_features  # noqa: E402
from tests.sae.language.test_language import model  # noqa: E402
from zoo.networks.language import load_language  # noqa: E402


def test_a_unit_is_chosen_on_one_half_and_scored_on_the_other() -> None:
    from sae.language.known_features import _judged

    labels = np.array([[1], [0], [1], [0]], dtype=bool)
    values = torch.tensor([[1.0, 0.9], [0.0, 0.0], [0.0, 0.9], [1.0, 0.0]])  # column 0 is right in the first half only
    readers = {"latent": values[:, :1], "channel": values[:, 1:], "random": values[:, :1]}
    (found,) = _judged(["x"], values, readers, labels, np.array([0, 1]), np.array([2, 3]))
    assert (found.auc, found.channel_auc, found.random_auc) == (0.0, 1.0, 0.0)
    assert (found.tokens, found.among) == (1, 2)


@pytest.mark.slow
def test_an_sae_finds_the_landmark_of_the_tales() -> None:
    from zoo import tales

    site = LanguageSite(load_language("tales"), "layers.2.resid")
    runs = sae.train(site.stream("tales:2500@2", batch_size=1024), sae.TopK(latents=512, k=8), steps=600, lr=3e-3)
    found = {one.name: one for one in known_features(runs[0].sae, site, tales.sample(1000, seed=1))}
    landmark = found["landmark_due"]
    assert landmark.auc > 0.95 and landmark.probe_auc > 0.99
    assert abs(found["night"].probe_auc - 0.5) < 0.1  # not carried by the stream, so not to be found in it


def test_labels_of_the_tales_need_the_tokens_of_the_tales() -> None:
    from zoo import tales

    small = sae.build(sae.TopK(latents=8, k=2), 16)
    stories = tales.sample(20)
    found = known_features(small, LanguageSite(model("llama"), "layers.1.resid"), stories)
    assert [one.name for one in found] == list(tales.FEATURES)
    assert found[0].among < found[5].among  # among the tokens of one word, and among all
    other = LanguageSite(model("bert"), "layers.1.resid")  # its tokenizer keeps marks that touch together
    with pytest.raises(SAEError, match="other tokens than the tales"):
        known_features(small, other, stories)
    with pytest.raises(SAEError, match="two or more"):
        known_features(small, other, stories[:1])


def test_gates_are_counted_token_by_token() -> None:
    from sae.steering import When, maxima
    from zoo import tales

    site = LanguageSite(load_language("tales"), "layers.1.resid")
    s = sae.build(sae.TopK(latents=40, k=5), site.d)
    known, stories = maxima(s, site, "tales:60@2"), tales.sample(30, seed=1)
    found = gates(s, site, stories, "sentence_start", known, above=0.3, precision=0.0, recall=0.001)
    assert len(found) > 3 and [one.recall for one in found] == sorted((one.recall for one in found), reverse=True)
    column, best = tales.FEATURES.index("sentence_start"), found[0]
    fired = right = there = 0
    for story in stories:
        values = s.encode(next(iter(site.blocks([story.text]))).vectors)[:, best.latent]
        fires, has = (values > 0.3 * known.of(best.latent)).numpy(), story.labels[:, column]
        fired, right, there = fired + fires.sum(), right + (fires & has).sum(), there + has.sum()
    assert best.precision == pytest.approx(right / fired) and best.recall == pytest.approx(right / there)
    assert best.when == When(best.latent, above=0.3, unit="max")
    least = sorted(one.precision for one in found)[-2]
    fewer = gates(s, site, stories, "sentence_start", known, above=0.3, precision=least, recall=0.001)
    assert fewer == [one for one in found if one.precision >= least]
    with pytest.raises(SAEError, match="Nearest: place_due"):
        gates(s, site, stories, "place_duo", known)
    with pytest.raises(SAEError, match="maxima of 64 latents are given"):
        gates(s, site, stories, "red", maxima(None, site, "tales:2@2"))
    other = sae.build(sae.TopK(latents=40, k=5, seed=1), site.d)
    with pytest.raises(SAEError, match="of other latents"):
        gates(s, site, stories, "red", maxima(other, site, "tales:2@2"))
    with pytest.raises(SAEError, match="no stories"):
        gates(s, site, [], "red", known)
