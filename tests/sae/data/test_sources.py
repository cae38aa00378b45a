"""Several sites side by side: what stands where."""

from __future__ import annotations

import pytest
import torch

import circuits
import sae
from sae.language import LanguageSite, load_language


def test_maps_of_two_sizes_meet_at_the_positions_of_the_smaller() -> None:
    model = circuits.load("scenes")
    acts = circuits.capture(model, "scenes:3", at=["mixed3a", "mixed3b"])
    large, small = acts["mixed3a"], acts["mixed3b"]
    factor = 2
    assert large.shape[2] == factor * small.shape[2]
    sources = sae.Sources(sae.VisionSite(model, "mixed3a"), sae.VisionSite(model, "mixed3b"))
    (block,) = sources.blocks("scenes:3")
    a, b = block.acts.split(list(sources.written), dim=-1)
    assert torch.equal(b, small.movedim(1, -1))
    by_hand = large.unflatten(2, (-1, factor)).unflatten(4, (-1, factor)).mean(dim=(3, 5))
    torch.testing.assert_close(a.movedim(-1, 1), by_hand)
    run = sae.train(sources.stream("scenes:6", batch_size=64), sae.TopK(latents=32, k=4, kind="crosscoder"), steps=3)[0]
    assert run.sae.written == sources.written and run.sae.metadata["sources"][1]["layer"] == "mixed3b"
    with pytest.raises(sae.SAEError, match="vectors of"):
        sae.evaluate(run.sae, sae.VisionSite(model, "mixed3b"), "scenes:2")
    with pytest.raises(sae.SAEError, match="several sites"):
        sae.evaluate(run.sae, sources, "scenes:2")


def test_a_cross_layer_transcoder_reads_the_first_and_writes_the_others() -> None:
    model = circuits.load("scenes")
    sites = [sae.VisionSite(model, name) for name in ("mixed3b", "mixed4a", "mixed4b")]
    sources = sae.Sources(*sites, read_first=True)
    assert sources.address == "scenes/mixed3b..scenes/mixed4a+scenes/mixed4b"
    run = sae.train(sources.stream("scenes:6", batch_size=64), sae.TopK(latents=32, k=4, kind="transcoder"), steps=3)[0]
    assert run.sae.d == sites[0].d and run.sae.written == (sites[1].d, sites[2].d) == sources.written


def test_two_streams_of_a_language_model_are_side_by_side_token_by_token() -> None:
    lm = load_language("tales")
    sources = sae.Sources(LanguageSite(lm, "layers.0.resid"), LanguageSite(lm, "layers.1.resid"))
    (block,) = sources.blocks("tales:3")
    alone = [next(iter(site.blocks("tales:3"))) for site in sources.sites]
    assert torch.equal(block.acts, torch.cat([b.acts for b in alone], dim=-1))
    assert block.mask is not None and torch.equal(block.mask, alone[0].mask)  # type: ignore[arg-type]
    assert sources.stream("tales:3", batch_size=8).written == (lm.width, lm.width)
    with pytest.raises(sae.SAEError, match="no positions in common"):
        sae.Sources(sources.sites[0], sae.VisionSite(circuits.load("scenes"), "mixed3b"))
    with pytest.raises(sae.SAEError, match="two sites or more"):
        sae.Sources(sources.sites[0])
