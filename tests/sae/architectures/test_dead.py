"""Dead latents: AuxK moves their encoder and decoder rows, and nothing else; resampling restarts them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import sae
from sae.architectures.base import ARCHITECTURES, TrainingState
from sae.architectures.dead_latents import auxiliary_loss, default_aux_k, resample
from sae.seeding import generator
from sae.training import optimizer
from tests.sae.planted import acts, features, scrambled, sparse_sums

CONFIG = sae.TopK(latents=24, k=3, aux_k=2)


def with_dead(*dead: int) -> tuple[sae.SAE, torch.Tensor]:
    """An SAE whose `dead` latents are alive enough to answer, but never among the three largest."""
    model = scrambled(CONFIG, dtype=torch.float64)
    with torch.no_grad():
        model.encoder[list(dead)] *= 0.05
    return model, acts(dtype=torch.float64)


def test_auxk_is_absent_when_nothing_is_dead() -> None:
    model, x = with_dead()
    plain = model.losses(x, x)
    none = model.losses(x, x, TrainingState(dead=torch.zeros(0, dtype=torch.int64)))
    assert "auxk" not in none.parts and torch.equal(none.total, plain.total)


def test_auxk_reaches_encoder_and_decoder_rows_of_dead_latents_and_of_no_other() -> None:
    model, x = with_dead(4, 7, 9)
    plain = model.losses(x, x)
    losses = model.losses(x, x, TrainingState(dead=torch.tensor([4, 7, 9])))
    assert losses.fired[[4, 7, 9]].tolist() == [0, 0, 0]
    (losses.total - plain.total).backward()
    alive = [i for i in range(24) if i not in (4, 7, 9)]
    for parameter in (model.encoder, model.decoder, model.encoder_bias):
        assert bool((parameter.grad[[4, 7, 9]].reshape(3, -1).abs().sum(dim=1) > 0).all())
        assert float(parameter.grad[alive].abs().max()) < 1e-15


def test_auxk_is_the_formula() -> None:
    """The two largest of three dead latents explain the residual, without bias, relative to its variance."""
    model, x = with_dead(4, 7, 9)
    dead = torch.tensor([4, 7, 9])
    residual = x - (model.decode(model.encode(x * 0)) * 0 + torch.randn_like(x))
    with torch.no_grad():
        pre = torch.relu((x - model.decoder_bias) @ model.encoder[dead].T + model.encoder_bias[dead])
        smallest = pre.argmin(dim=1)
        pre[torch.arange(len(x)), smallest] = 0
        error = (residual - pre @ model.decoder[dead]).square().mean()
        expected = error / (residual - residual.mean(dim=0)).square().mean()
    torch.testing.assert_close(auxiliary_loss(model, x, residual, dead).detach(), expected)
    losses = model.losses(x, x, TrainingState(dead=dead))
    plain = model.losses(x, x)
    torch.testing.assert_close(losses.total, plain.total + losses.parts["auxk"] / 32)


def test_auxk_does_not_change_when_inputs_and_bias_shift_together() -> None:
    model, x = with_dead(4, 7)
    dead, shift = torch.tensor([4, 7]), torch.linspace(-5, 5, 10, dtype=torch.float64)
    before = model.losses(x, x, TrainingState(dead=dead)).parts["auxk"]
    with torch.no_grad():
        model.decoder_bias.add_(shift)
    after = model.losses(x + shift, x + shift, TrainingState(dead=dead)).parts["auxk"]
    torch.testing.assert_close(after, before)


def test_the_residual_is_a_constant_to_auxk() -> None:
    model, x = with_dead(4, 7)
    residual = (x * 1.0).requires_grad_(True)
    auxiliary_loss(model, x, residual, torch.tensor([4, 7])).backward()
    assert residual.grad is None


def test_the_number_of_auxiliary_latents_is_a_power_of_two_below_half_the_width() -> None:
    assert [default_aux_k(d) for d in (1, 2, 10, 512, 768, 4096)] == [1, 1, 4, 256, 256, 512]


def test_resampled_latents_start_at_badly_explained_inputs_and_the_optimizer_forgets_them() -> None:
    model = sae.build(sae.ReLU(latents=24, revive="resample"), 10)
    adam = optimizer.adam(model)
    x = acts()
    model.losses(x, x).total.backward()
    optimizer.step(model, adam, 1e-3, 1.0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    error = torch.zeros(50)
    error[[11, 30]] = torch.tensor([1.0, 2.0])
    dead = torch.tensor([3, 8, 20])
    resample(model, adam, x, error, dead, generator(0))
    directions = torch.nn.functional.normalize(x[[11, 30]] - model.decoder_bias.detach())
    nearest = model.decoder.detach()[dead] @ directions.T
    torch.testing.assert_close(nearest.max(dim=1).values, torch.ones(3))  # one of those two, by chance
    alive = [i for i in range(24) if i not in (3, 8, 20)]
    length = before["encoder"][alive].norm(dim=1).mean() * 0.2
    torch.testing.assert_close(model.encoder.detach()[dead], model.decoder.detach()[dead] * length)
    assert model.encoder_bias.detach()[dead].tolist() == [0, 0, 0]
    for name, parameter in model.named_parameters():
        if name != "decoder_bias":
            assert torch.equal(parameter.detach()[alive], before[name][alive])
            for moment in ("exp_avg", "exp_avg_sq"):
                state = adam.state[parameter][moment]
                assert float(state[dead].abs().max()) == 0 and float(state[alive].abs().max()) > 0


def test_resampling_draws_in_proportion_to_squared_loss() -> None:
    counts = torch.zeros(2)
    x = torch.eye(10)[:2]
    for seed in range(300):
        model = sae.build(sae.ReLU(latents=4, revive="resample"), 10)
        resample(model, optimizer.adam(model), x, torch.tensor([1.0, 3.0]), torch.tensor([1]), generator(seed))
        counts[int(model.decoder.detach()[1].argmax())] += 1
    assert float(counts[1] / 300) == pytest.approx(0.9, abs=0.06)  # 9 : 1; three standard deviations are .052


@pytest.mark.parametrize(
    ("config", "push"),
    [
        (sae.TopK(latents=128, k=2, revive="auxk"), -3.0),
        (sae.ReLU(latents=128, l1=3.0, revive="resample"), -5.0),
    ],
    ids=["auxk", "resample"],
)
def test_dead_latents_come_back_in_training(config: sae.SAEConfig, push: float) -> None:
    """Three quarters of the latents start too far from the data to fire; without help most stay there."""
    x = sparse_sums(features(), 6000)
    cls = ARCHITECTURES[config.architecture]
    made = cls.__init__

    def pushed(self: sae.SAE, config: sae.SAEConfig, d: int) -> None:
        made(self, config, d)  # type: ignore[arg-type]
        with torch.no_grad():
            self.encoder_bias[:96] = push

    def last(how: sae.SAEConfig) -> sae.Report:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cls, "__init__", pushed)
            run = sae.train(x, how, steps=250, batch_size=256, lr=2e-3, dead_after=2000, report_every=10)[0]
        return run.reports[-1]

    without, helped = last(dataclasses.replace(config, revive="none")), last(config)
    assert without.dead > 0.45 and helped.dead < 0.5 * without.dead
    assert helped.fvu < 0.9 * without.fvu
