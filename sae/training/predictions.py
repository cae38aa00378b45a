"""Fine-tuning an SAE or transcoder on what the network predicts with it in place: see `tune_on_predictions`."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.architectures.base import SAE
from sae.data.activations import opened
from sae.data.site import Site, check_fits, chosen, reconstructing, widths_of
from sae.errors import SAEError
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import number, whole_number
from zoo.progress import Progress, reporter

WARMUP, DECAY = 0.1, 0.5
"""Shares of the steps over which the rate rises, and, at the end, falls to zero."""


@outside_inference_mode
def tune_on_predictions(
    sae: SAE,
    site: Site,
    inputs: Any,
    *,
    steps: int = 100,
    batch_size: int = 16,
    lr: float = 0.01,
    reconstruction: float = 1.0,
    seed: int = 0,
    progress: Progress = None,
) -> SAE:
    """An SAE or transcoder that is trained on, so that the network predicts with it in place as it does without.

    Minimized is the divergence KL(clean || spliced) of the predictions, in nats, plus `reconstruction` times the
    squared error as a share of the variance of a batch. Squared errors alone count each direction alike; the network
    does not. After training on reconstruction this takes few steps (Karvonen 2025, arXiv 2503.17272).

    Args:
        sae: trained already; it is not changed.
        site: where it reads.
        inputs: images or texts; not those that it is judged on.
        steps: of the optimizer (Adam).
        batch_size: inputs of a step.
        lr: of each parameter by its own root mean square: how much of its size a step changes.
        reconstruction: weight of the squared error; 0: predictions alone.
        seed: of the order of inputs.
        progress: True for a bar, or a function of (done, total) steps.

    Raises:
        SAEError: it is of another site, or frozen, or archetypal and folded for a file; there are no inputs; a site of
            a language model, whose predictions pass no gradients.

    >>> better = tune_on_predictions(t, pair, "scenes:500", steps=100)  # doctest: +SKIP
    """
    whole_number("steps", steps, error=SAEError)
    whole_number("batch_size", batch_size, error=SAEError)
    whole_number("seed", seed, least=0, error=SAEError)
    number("lr", lr, above=0, error=SAEError)
    number("reconstruction", reconstruction, least=0, error=SAEError)
    if not getattr(site, "differentiable", False):
        raise SAEError(f"{site.address}: no gradient passes the predictions of this site; take a layer of a CNN")
    check_fits(sae, site)
    if sae.config.frozen is not None:
        raise SAEError(f"frozen={sae.config.frozen!r}: what keeps its random start is not tuned")
    images = opened(site, inputs)
    if not len(images):
        raise SAEError(f"{site.address} is tuned on no inputs")
    tuned, splice = copy.deepcopy(sae), _Splice(site)
    tuned.requires_grad_(True)
    # not of one that was folded for a file
    unit_rows = bool(torch.allclose(tuned.row_lengths(), torch.ones(()).to(tuned.decoder), atol=1e-3))
    groups, rates = [], []
    for name, parameter in tuned.named_parameters():
        rows = tuned.encoder if name == "encoder_bias" else tuned.decoder if name == "decoder_bias" else parameter
        rates.append(lr * max(float(rows.detach().square().mean().sqrt()), 1e-12))
        groups.append({"params": [parameter], "lr": 0.0})
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    order, generator = list[int](), torch.Generator().manual_seed(seed)
    with reporter(progress, "steps") as report, torch.enable_grad():
        for step in range(steps):
            while len(order) < batch_size:
                order += torch.randperm(len(images), generator=generator).tolist()
            batch, order = chosen(images, order[:batch_size]), order[batch_size:]
            factor = min(1.0, (step + 1) / (WARMUP * steps), (steps - step) / (DECAY * steps))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = factor * rate
            loss = splice.loss(tuned, batch, batch_size, reconstruction)
            parameters = list(tuned.parameters())
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient  # of these alone: the network's weights have none
            tuned.project_gradients()
            if tuned.decoder.grad is None and not unit_rows:
                raise SAEError(
                    f"{sae.config.architecture}: what its rows are made of is folded into them for a file; tune the "
                    "SAE that training gave"
                )
            optimizer.step()
            if unit_rows:
                tuned.constrain()
            report(step + 1, steps)
    tuned.requires_grad_(False)
    settings = {"steps": steps, "batch_size": batch_size, "lr": lr, "reconstruction": reconstruction, "seed": seed}
    tuned.metadata = {**sae.metadata, "tuned_on_predictions": settings}
    return tuned


class _Splice:
    """The loss of a network that predicts with a dictionary in place."""

    def __init__(self, site: Site) -> None:
        self.site, self.widths = site, widths_of(site)
        self.share: Tensor | None = None

    def loss(self, sae: SAE, batch: Any, batch_size: int, weight: float) -> Tensor:
        """Divergence of the predictions, mean over a batch of inputs, plus the weighted share of squared error."""

        def replace(acts: Tensor) -> Tensor:
            d = acts.shape[-1] if self.widths is None else self.widths[0]
            given, target = acts[..., :d].detach(), (acts if self.widths is None else acts[..., d:]).detach()
            again = reconstructing(sae)(given)
            variance = (target - target.flatten(0, -2).mean(dim=0)).square().sum().clamp_min(1e-12)
            self.share = (again - target).square().sum() / variance
            return again

        total, n = torch.zeros(()), 0
        predictions: Any = self.site.predictions
        for (clean, spliced), _ in predictions(batch, [None, replace], batch_size=batch_size, gradients=True):
            clean, spliced = (scores.log_softmax(dim=1) for scores in (clean.detach(), spliced))
            total = total.to(spliced) + F.kl_div(spliced, clean, reduction="sum", log_target=True)
            assert self.share is not None
            total, n = total + weight * self.share * len(clean), n + len(clean)
        return total / n
