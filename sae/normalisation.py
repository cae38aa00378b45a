"""How inputs are normalised: their mean and scale, and where the decoder's bias starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sae.base import SAE, check_activations
from sae.errors import TrainingError
from sae.streams import Stream, TensorStream

Bias = Literal["geometric_median", "mean", "zeros"]


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """What training found out about its inputs before it began.

    Attributes:
        mean: `(d,)`; scale: one over the root of the mean variance of a dimension.
        bias: `(d,)` start of the decoder's bias, in normalised inputs.
        samples: from how many vectors.
    """

    mean: Tensor
    scale: float
    bias: Tensor
    samples: int

    @torch.no_grad()
    def apply(self, sae: SAE) -> None:
        """Make an SAE normalise its inputs like this."""
        sae.mean.copy_(self.mean)
        sae.scale.fill_(self.scale)
        sae.decoder_bias.copy_(self.bias)


def input_statistics(
    stream: Stream, *, samples: int = 65_536, normalise: bool = True, bias: Bias = "geometric_median"
) -> InputStatistics:
    """Look at the first vectors of a stream, then put it back where it was.

    Post-rectifier activations lie around a mean that is long compared with their spread; without centring most
    latents die (their encoder rows all see the same large offset).

    Args:
        stream: see `Stream`.
        samples: at least this many vectors, or all there are.
        normalise: False leaves inputs as they are (mean 0, scale 1).
        bias: where the decoder's bias starts: the geometric median of the vectors, their mean, or zero.

    Raises:
        TrainingError: no vectors, or all the same.
    """
    if isinstance(stream, TensorStream):
        samples = min(samples, len(stream.x))  # every vector once is enough
    start = stream.tell()
    parts: list[Tensor] = []
    while sum(map(len, parts)) < samples:
        batch = next(stream, None)
        if batch is None:
            break
        parts.append(check_activations(batch, parts[0].shape[1] if parts else None).float())
    stream.seek(start)
    if not parts:
        raise TrainingError("the stream gave no activations")
    return statistics_of(torch.cat(parts), normalise=normalise, bias=bias)


def statistics_of(x: Tensor, *, normalise: bool = True, bias: Bias = "geometric_median") -> InputStatistics:
    """`input_statistics` of vectors `(n, d)` at hand."""
    x = x.float()
    mean = x.double().mean(dim=0).float()
    variance = float((x - mean).double().square().mean())
    if len(x) < 2 or variance <= 1e-12 * float(mean.double().square().mean()) or variance == 0:
        raise TrainingError(f"the {len(x)} activation vectors are all the same: there is nothing to explain")
    if not normalise:
        mean, scale = torch.zeros_like(mean), 1.0
    else:
        scale = float(torch.tensor(variance**-0.5))  # as float32 keeps it
    centred = (x - mean) * scale
    if bias == "geometric_median":
        start = geometric_median(centred[:32_768])
    elif bias == "mean":
        start = centred.double().mean(dim=0).float()
    elif bias == "zeros":
        start = torch.zeros_like(mean)
    else:
        raise TrainingError(f"bias={bias!r}: use 'geometric_median', 'mean' or 'zeros'")
    return InputStatistics(mean, scale, start, len(x))


def geometric_median(x: Tensor, *, iterations: int = 100, tolerance: float = 1e-5) -> Tensor:
    """The point `(d,)` with the least sum of distances to `x` `(n, d)`: Weiszfeld's iteration from the mean.

    >>> geometric_median(torch.tensor([[0.0], [0.0], [9.0]])).abs() < 0.01
    tensor([True])
    """
    point = x.mean(dim=0)
    size = (x - point).norm(dim=1).mean()
    for _ in range(iterations):
        weights = 1 / (x - point).norm(dim=1).clamp_min(1e-6 * size)
        moved = (weights @ x) / weights.sum()
        step, point = (moved - point).norm(), moved
        if float(step) <= tolerance * float(size):
            break
    return point
