"""Dead latents: two ways to revive them."""

from __future__ import annotations

import torch
from torch import Tensor

from sae import distributed
from sae.architectures.base import SAE


def default_aux_k(d: int) -> int:
    """How many dead latents reconstruct a residual: the largest power of two up to d / 2, at most 512."""
    return min(512, 1 << (max(1, d // 2).bit_length() - 1))


def auxiliary_loss(model: SAE, x: Tensor, residual: Tensor, dead: Tensor) -> Tensor:
    """The AuxK loss: mean squared error of the dead latents' reconstruction of the residual, over its variance.

    `|e - e_hat|^2 / |e - mean(e)|^2`, where `e` is the residual and `e_hat` the sum of the decoder rows of the `aux_k`
    largest dead latents, without the decoder's bias, which the residual no longer contains. `e` is a constant, so that
    gradients reach the encoder and decoder rows of dead latents alone.
    Source: Gao et al. 2024, appendix A.2.

    Args:
        model: the SAE; x: `(N, d)` normalized inputs; residual: `(N, d_out)`; dead: `(n,)` indices, at least one.
    """
    residual = residual.detach()
    pre = torch.relu(model.dense_pre(x, dead))
    aux_k = model.config.aux_k or default_aux_k(model.d_out)
    if len(dead) > aux_k:
        values, indices = pre.topk(aux_k, dim=1, sorted=False)
        pre = torch.zeros_like(pre).scatter(1, indices, values)
    error = (residual - pre @ model.decoder[dead]).square().mean()
    variance = distributed.variance(residual)
    # a perfect reconstruction leaves a residual of zero, whose variance is zero
    return error / variance.clamp_min(torch.finfo(variance.dtype).tiny ** 0.5)


@torch.no_grad()
def resample(
    model: SAE, optimizer: torch.optim.Optimizer, x: Tensor, error: Tensor, dead: Tensor, generator: torch.Generator
) -> None:
    """Restart dead latents at inputs with a large error, sampled in proportion to their squared loss.

    The decoder row becomes the input's direction, the encoder row the same at 0.2 times the mean length of the living
    ones, the bias zero; Adam's moments of those rows are reset.
    Source: Bricken et al., Towards Monosemanticity, 2023.

    Args:
        model: the SAE; optimizer: its Adam.
        x: `(N, d)` normalized inputs; error: `(N,)` squared error of each; dead: `(n,)` indices.
        generator: on the CPU.
    """
    weights = error.double().square().cpu()
    if len(dead) == 0 or not float(weights.sum()) > 0:
        return
    replacement = len(dead) > int((weights > 0).sum())
    indices = torch.multinomial(weights, len(dead), replacement=replacement, generator=generator).to(x.device)
    directions = torch.nn.functional.normalize(x[indices] - model.decoder_bias)
    alive = torch.ones(model.latents, dtype=torch.bool, device=x.device)
    alive[dead] = False
    length = model.encoder[alive].norm(dim=1).mean() if bool(alive.any()) else model.encoder.new_ones(())
    model.decoder[dead] = directions
    model.encoder[dead] = directions * length * 0.2
    model.encoder_bias[dead] = 0.0
    for parameter in (model.decoder, model.encoder, model.encoder_bias):
        for name, value in optimizer.state[parameter].items():
            if name != "step":
                value[dead] = 0.0
