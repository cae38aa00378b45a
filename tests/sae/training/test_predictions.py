"""Fine-tuning on predictions: what it minimizes falls, the network keeps its weights, and refusals."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import circuits
import sae
from sae.data.site import reconstructing, transcoding
from sae.errors import SAEError


def test_predictions_are_kept_better_on_other_images_than_by_reconstruction_alone() -> None:
    model = circuits.load("scenes")
    pair, layer = sae.VisionPair(model, "mixed3b", "mixed4a", patch=1), sae.VisionSite(model, "mixed4a")
    before = [p.detach().clone() for p in model.module.parameters()]
    for site, kind in ((pair, "skip-transcoder"), (layer, "sae")):
        config = sae.TopK(latents=48, k=2, kind=kind)  # type: ignore[arg-type]
        plain = sae.train(site.stream("scenes:40", batch_size=256), config, steps=20, lr=3e-3)[0].sae
        start = {name: value.clone() for name, value in plain.state_dict().items()}
        tuned = sae.tune_on_predictions(plain, site, "scenes:40", steps=12, batch_size=10)
        assert all(torch.equal(value, start[name]) for name, value in plain.state_dict().items())
        assert tuned.metadata["tuned_on_predictions"]["steps"] == 12
        assert torch.allclose(tuned.row_lengths(), torch.ones(48), atol=1e-4)

        def kl(of: sae.SAE, site: sae.VisionPair | sae.VisionSite = site) -> float:
            way = transcoding(of, site.widths) if isinstance(site, sae.VisionPair) else reconstructing(of)
            with torch.no_grad():
                scores = next(iter(site.predictions("scenes:16@5", [None, way])))[0]
            clean, spliced = (s.log_softmax(dim=1) for s in scores)
            return float(F.kl_div(spliced, clean, reduction="batchmean", log_target=True))

        assert kl(tuned) < 0.8 * kl(plain)
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, model.module.parameters(), strict=True))


def test_what_inference_has_no_gradient_for_stays_and_atoms_stay_combinations() -> None:
    site = sae.VisionSite(circuits.load("scenes"), "mixed3b")
    stream = site.stream("scenes:20", batch_size=256)
    configs = [sae.JumpReLU(latents=24), sae.Archetypal(latents=24, k=3, points=16)]
    jump, atoms = (run.sae for run in sae.train(stream, configs, steps=4))
    tuned = sae.tune_on_predictions(jump, site, "scenes:20", steps=3, batch_size=4)
    changed = {name for name, value in tuned.state_dict().items() if not torch.equal(value, jump.state_dict()[name])}
    assert changed == {"encoder", "encoder_bias", "decoder", "decoder_bias"}
    tuned = sae.tune_on_predictions(atoms, site, "scenes:20", steps=3, batch_size=4)
    mixture, points = tuned.get_parameter("mixture"), tuned.get_buffer("points")
    assert not torch.equal(mixture, atoms.get_parameter("mixture"))
    combined = F.normalize(mixture @ points + tuned.get_parameter("deviation"))
    torch.testing.assert_close(tuned.decoder, combined)
    with pytest.raises(SAEError, match="the SAE that training gave"):
        sae.tune_on_predictions(atoms.folded(), site, "scenes:20", steps=3, batch_size=4)


def test_what_cannot_be_tuned_is_refused() -> None:
    site = sae.VisionSite(circuits.load("scenes"), "mixed3b")
    with pytest.raises(SAEError, match="keeps its random start"):
        sae.tune_on_predictions(sae.build(sae.TopK(latents=8, k=2, frozen="decoder"), 48), site, "scenes:2")
    with pytest.raises(SAEError, match="steps"):
        sae.tune_on_predictions(sae.build(sae.TopK(latents=8, k=2), 48), site, "scenes:2", steps=0)
