"""Controls of trained SAEs: frozen ones, and decompositions of older methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import sae
from sae.architectures.base import NEAR, config_from_dict
from sae.errors import SAEError
from sae.evaluation.baselines import ChannelDictionary
from sae.evaluation.controls.decompositions import DECOMPOSITIONS, decompose
from sae.evaluation.metrics import explained_variance, matched_cosine

RANDOM = torch.Generator().manual_seed(0)
ACTS = torch.randn(600, 6, generator=RANDOM).relu() @ torch.randn(6, 12, generator=RANDOM).abs()


@pytest.mark.parametrize("kind", [sae.TopK(latents=24, k=3), sae.BatchTopK(latents=24, k=3), sae.JumpReLU(latents=24)])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_what_is_frozen_keeps_its_bits_and_the_rest_learns(kind: sae.SAEConfig, part: str) -> None:
    settings = kind.to_dict() | {"frozen": part}
    start = sae.build(config_from_dict(settings), 12)
    run = sae.train(ACTS, config_from_dict(settings), steps=15, batch_size=64, lr=0.01)[0]
    other = {"encoder": "decoder", "decoder": "encoder"}[part]
    assert torch.equal(getattr(run.sae, part), getattr(start, part))
    assert not torch.allclose(getattr(run.sae, other), getattr(start, other), atol=1e-3)
    assert f"frozen-{part}" in run.name


def test_a_softly_frozen_decoder_stays_in_its_cone_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    config = sae.TopK(latents=24, k=3, frozen="near decoder")
    start = sae.build(config, 12).requires_grad_(False)
    options: dict[str, Any] = {"steps": 60, "batch_size": 64, "lr": 0.05, "report_every": 10}
    whole = sae.train(ACTS, config, **options)[0].sae
    cosines = F.cosine_similarity(whole.decoder, start.decoder)
    assert float(cosines.min()) > NEAR - 1e-5
    assert int((cosines < NEAR + 1e-4).sum()) >= 3  # some would have gone further
    assert torch.allclose(whole.decoder.norm(dim=1), torch.ones(24), atol=1e-5)
    free = sae.train(ACTS, sae.TopK(latents=24, k=3), **options)[0].sae
    assert float(F.cosine_similarity(free.decoder, start.decoder).min()) < NEAR - 0.1

    class Stop(Exception):
        pass

    def stop(report: sae.Report) -> None:
        if report.step >= 30:
            raise Stop

    file = tmp_path / "c.safetensors"
    with pytest.raises(Stop):
        sae.train(ACTS, config, checkpoint=file, checkpoint_every=20, callbacks=[stop], **options)
    assert file.exists()
    again = sae.train(ACTS, config, checkpoint=file, **options)[0].sae
    assert torch.equal(again.decoder, whole.decoder)


def test_a_frozen_sae_is_written_with_that_setting_and_others_as_before(tmp_path: Path) -> None:
    assert "frozen" not in sae.TopK(latents=8, k=2).to_dict()
    sae.save(tmp_path / "c", sae.build(sae.TopK(latents=8, k=2, frozen="decoder"), 4))
    assert sae.load(tmp_path / "c").config.frozen == "decoder"
    with pytest.raises(SAEError, match="resampling would move"):
        sae.ReLU(latents=8, revive="resample", frozen="decoder")
    with pytest.raises(SAEError, match="frozen"):
        sae.TopK(latents=8, k=2, frozen="all")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", DECOMPOSITIONS)
def test_decompositions_are_sparse_dictionaries(kind: str) -> None:
    made = decompose(ACTS, kind, k=3, latents=24)
    latents = made.encode(ACTS)
    assert float(latents.min()) >= 0 and int((latents > 0).sum(dim=1).max()) <= 3
    assert torch.allclose(made.write.norm(dim=1), torch.ones(made.latents), atol=1e-5)
    assert torch.allclose(made.decode(latents), made.reconstruct(ACTS)[0], atol=1e-4)
    assert explained_variance(ACTS, made.decode(latents)) > 0.3
    assert torch.equal(decompose(ACTS, kind, k=3, latents=24).write, made.write)


def test_channels_are_the_baseline_of_evaluations_and_all_components_are_the_whole() -> None:
    channels = decompose(ACTS, "channels", k=3, latents=24)
    expected = ChannelDictionary(ACTS.mean(dim=0), 3).reconstruct(ACTS)[0]
    assert torch.allclose(channels.decode(channels.encode(ACTS)), expected, atol=1e-5)
    components = decompose(ACTS, "pca", k=12, latents=24)
    assert torch.allclose(components.decode(components.encode(ACTS)), ACTS, atol=1e-4)


def test_planted_sources_and_centers_are_found() -> None:
    random = torch.Generator().manual_seed(1)
    mixing = F.normalize(torch.randn(5, 5, generator=random))
    uniform = torch.rand(4000, 5, generator=random) * 2 - 1
    found = decompose(uniform @ mixing, "ica", k=5, latents=10)
    assert matched_cosine(mixing, found.write) > 0.99
    assert matched_cosine(mixing, decompose(uniform @ mixing, "pca", k=5, latents=10).write) < 0.97
    centers = torch.randn(6, 8, generator=random) * 5
    points = centers[torch.randint(6, (900,), generator=random)] + 0.1 * torch.randn(900, 8, generator=random)
    clusters = decompose(points, "k-means", k=1, latents=6)
    assert matched_cosine(centers - points.mean(dim=0), clusters.write) > 0.99


def test_bad_decompositions_are_refused() -> None:
    with pytest.raises(SAEError, match="zero or above"):
        decompose(ACTS - 1, "nmf", k=2, latents=8)
    with pytest.raises(SAEError, match="'channels', 'pca'"):
        decompose(ACTS, "svd", k=2, latents=8)
