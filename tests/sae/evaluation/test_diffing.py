"""Model diffing: planted artifacts are told from real differences, and a network that lost a unit from a whole one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import circuits
import sae
from sae.evaluation.diffing.latent_scaling import latent_scaling
from sae.evaluation.diffing.results import ClassEffect
from tests.sae.planted import features


def planted() -> tuple[sae.SAE, Tensor, Tensor]:
    """A crosscoder by hand, its vectors, and their codes: one direction a feature in both sources of width 6.

    Latent 0 is shared; 1 is truly of the first; 2 stands in both sources, but its row was shrunk out of the second; 3
    and 4 are one feature in two latents, one a source.
    """
    generator = torch.Generator().manual_seed(0)
    codes = (torch.rand(4000, 4, generator=generator) < 0.1) * (0.5 + torch.rand(4000, 4, generator=generator))
    first = torch.cat([codes, torch.zeros(4000, 2)], dim=1)
    second = first.clone()
    second[:, 1] = 0
    noise = 0.02 * torch.randn(4000, 12, generator=generator)
    crosscoder = sae.build(sae.ReLU(latents=5, kind="crosscoder", written=(6, 6)), 12)
    with torch.no_grad():
        crosscoder.decoder.zero_()
        crosscoder.encoder.zero_()
        for latent, source, feature in ((0, 0, 0), (0, 1, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 1, 3)):
            crosscoder.decoder[latent, 6 * source + feature] = 1.0
            crosscoder.encoder[latent, 6 * source + feature] = 0.5 if latent == 0 else 1.0
    return crosscoder.eval().requires_grad_(False), torch.cat([first, second], dim=1) + noise, codes


def with_codes(crosscoder: sae.SAE, batches: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(batch, crosscoder.encode(batch)) for batch in batches]


def test_shrunk_and_decoupled_latents_are_told_from_exclusive_ones() -> None:
    crosscoder, x, codes = planted()
    scaling = latent_scaling(crosscoder, with_codes(crosscoder, x.split(500)))
    torch.testing.assert_close(scaling.share, torch.tensor([0.5, 1, 1, 1, 0], dtype=torch.float64))
    expected = torch.tensor([1.0, 0, 1, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(scaling.shrinkage, expected, atol=0.03, rtol=0)
    torch.testing.assert_close(
        scaling.decoupling, torch.tensor([1.0, 0, 0, 1, 1], dtype=torch.float64), atol=0.05, rtol=0
    )
    assert scaling.twin[3] == 4 and scaling.twin[4] == 3 and float(scaling.twin_correlation[3]) > 0.98
    assert float(scaling.twin_correlation[1]) < 0.1 and scaling.cosine == pytest.approx(1.0)
    latents = crosscoder.encode(x).numpy().astype(np.float64)
    errors = (x - crosscoder(x)).numpy()[:, 6:]
    for latent in (1, 2):  # the refit, by NumPy's own least squares with an intercept
        design = np.stack([latents[:, latent], np.ones(len(x))], axis=1)
        row = np.linalg.lstsq(design, errors, rcond=None)[0][0]
        assert np.linalg.norm(row) == pytest.approx(float(scaling.shrinkage[latent]), abs=0.03)
    with pytest.raises(sae.SAEError, match="two sources"):
        latent_scaling(sae.build(sae.ReLU(latents=5), 12), [])


class Colors(nn.Module):
    """Six channels that hold red, green and blue in directions of their own; tells which is most of an image."""

    def __init__(self, seed: int, blind: bool = False) -> None:
        super().__init__()
        directions = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)))[0][:, :3].abs()
        self.mix, self.relu, self.head = nn.Conv2d(3, 6, 1, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.linalg.pinv(directions))
            directions[:, 2] *= not blind
            self.mix.weight.copy_(directions[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.mix(x)).mean(dim=(2, 3)))


def colors(seed: int, blind: bool = False, classes: Sequence[str] = ("red", "green", "blue")) -> circuits.Model:
    spec = circuits.InputSpec(size=12, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return circuits.wrap(Colors(seed, blind).eval(), input=spec, name=f"colors-{seed}", classes=classes)


def test_a_class_without_a_name_is_the_address_of_its_score() -> None:
    images = torch.rand(30, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    settings = sae.DiffSettings(latents=6, k=2, steps=5, batch_size=64, controls=False)
    nameless = colors(1, classes=())
    result = sae.diff(
        nameless, nameless, layer="relu", images=TensorDataset(images, torch.arange(30) % 3), settings=settings
    )
    labels = {latent.label for latent in result.latents} - {None}
    assert labels and labels <= {"head:0", "head:1", "head:2"}


def test_the_color_that_one_network_is_blind_to_is_the_one_that_only_the_other_has(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    chances = torch.full((90, 4), 0.1).scatter_(1, labels[:, None], 0.3) + torch.tensor([0, 0, 0, 0.4])
    color = torch.multinomial(chances, 144, replacement=True, generator=generator).view(90, 12, 12)  # 3 is black
    strength = 0.4 + 0.6 * torch.rand(90, 12, 12, generator=generator)
    images = torch.stack([(color == c) * strength for c in range(3)], dim=1)
    data = TensorDataset(images, labels)
    settings = sae.DiffSettings(latents=12, k=1, steps=200, batch_size=256, lr=1e-2, draws=3)
    seeing, blind = colors(1), colors(2, blind=True)
    result = sae.diff(
        seeing, blind, layer="relu", images=data, null=colors(3), settings=settings, save_to=tmp_path / "c"
    )
    own = result.of("only first")
    assert own and not result.of("only second") and result.of("shared") and not result.of("not confirmed")
    truth = seeing.module.get_parameter("mix.weight").detach()[:, 2, 0, 0]
    for latent in own:
        row = sae.load(tmp_path / "c").write[latent.latent, :6]
        assert float(F.cosine_similarity(row, truth, dim=0)) > 0.95
        assert latent.label == "blue" and latent.share > 0.95 and latent.shrinkage < 0.1
    assert [control.exclusive for control in result.controls] == [0, 0]  # itself, and another basis of the same
    strongest = result.effects[0]
    assert strongest.label == "blue" and strongest.accuracy == 1.0 and strongest.ablated < 0.2
    others = [effect for effect in result.effects if effect.label != "blue"]
    assert all(effect.ablated == effect.accuracy for effect in others)
    result.save(tmp_path / "d.json")
    assert sae.ModelDiff.load(tmp_path / "d.json").describe() == result.describe()
    with pytest.raises(sae.SAEError, match="no option 'latent'"):
        sae.diff(seeing, blind, layer="relu", images=data, latent=3)
    with pytest.raises(circuits.CircuitsError, match="sae.diff"):
        circuits.diff(seeing, blind)  # type: ignore[arg-type]


def test_sources_of_different_widths_have_no_common_directions() -> None:
    generator = torch.Generator().manual_seed(1)
    codes = (torch.rand(600, 8, generator=generator) < 0.2) * torch.rand(600, 8, generator=generator)
    a, b = codes @ features(0, 8, 20), codes @ features(1, 8, 12)
    config = sae.BatchTopK(latents=16, k=3, kind="crosscoder")
    run = sae.train(sae.TensorStream([a, b], 100), config, steps=20)[0]
    scaling = latent_scaling(run.sae, with_codes(run.sae, torch.cat([a, b], dim=1).split(100)))
    assert bool(scaling.decoupling.isnan().all()) and np.isnan(scaling.cosine)


def test_controls_that_leave_nothing_right_are_no_missing_controls() -> None:
    effect = ClassEffect("a/b", "car", 9, 2, accuracy=0.9, ablated=0.1, control=0.0, control_low=0.0, control_high=0.0,
                         logit_drop=1.0, control_logit_drop=2.0)  # fmt: skip
    assert effect.excess == 0.1  # the latents cost less than controls do
    assert replace(effect, control=None).excess == pytest.approx(-0.8)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"held_out": "x"}, "held_out"), ({"held_out": 1}, "held_out"), ({"seed": -1}, "seed"),
     ({"latents": 8, "k": 9}, "more than the 8 latents")],
)  # fmt: skip
def test_settings_of_a_comparison_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sae.SAEError, match=message):
        sae.DiffSettings(**options)
