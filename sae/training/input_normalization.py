"""How inputs are normalized: their mean and scale, and where the decoder's bias starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sae.architectures.base import SAE
from sae.checks import check_activations
from sae.data.streams import Stream, TensorStream
from sae.distributed import ALONE, Message, Ranks
from sae.errors import TrainingError

Bias = Literal["geometric_median", "mean", "zeros"]


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """What training found out about its inputs before it began.

    Attributes:
        mean: `(d,)`; scale: one over the root of the mean variance of a dimension.
        bias: `(d,)` start of the decoder's bias, in normalized inputs.
        samples: from how many vectors.
    """

    mean: Tensor
    scale: float
    bias: Tensor
    samples: int

    @torch.no_grad()
    def apply(self, sae: SAE) -> None:
        """Make an SAE normalize its inputs like this."""
        sae.mean.copy_(self.mean)
        sae.scale.fill_(self.scale)
        sae.decoder_bias.copy_(self.bias)


MEDIAN_SAMPLES = 32_768


def input_statistics(
    stream: Stream,
    *,
    samples: int = 65_536,
    normalize: bool = True,
    bias: Bias = "geometric_median",
    ranks: Ranks = ALONE,
) -> InputStatistics:
    """Look at the first vectors of a stream, then put it back where it was.

    Post-rectifier activations lie around a mean that is long compared with their spread; without centering most
    latents die (their encoder rows all see the same large offset).

    Args:
        stream: see `Stream`.
        samples: at least this many vectors, or all there are.
        normalize: False leaves inputs as they are (mean 0, scale 1).
        bias: where the decoder's bias starts: the geometric median of the vectors, their mean, or zero.
        ranks: the processes that look, each at its share of the vectors; all get the same.

    Raises:
        TrainingError: no vectors, or all the same.
    """
    share = -(-samples // ranks.world)
    if isinstance(stream, TensorStream):
        share = min(share, -(-len(stream.x) // stream.world))  # every vector once is enough

    def read() -> Tensor:
        start = stream.tell()
        parts: list[Tensor] = []
        while sum(map(len, parts)) < share:
            batch = next(stream, None)
            if batch is None:
                break
            parts.append(check_activations(batch, parts[0].shape[1] if parts else None).float())
        stream.seek(start)
        if not parts:
            raise TrainingError("the stream gave no activations")
        return torch.cat(parts)

    return statistics_of(ranks.agreed(read), normalize=normalize, bias=bias, ranks=ranks)


def statistics_of(
    x: Tensor, *, normalize: bool = True, bias: Bias = "geometric_median", ranks: Ranks = ALONE
) -> InputStatistics:
    """`input_statistics` of vectors `(n, d)` at hand, and of those that other ranks have at theirs."""
    x = x.float()
    n = ranks.exchange(Message(rows=len(x))).rows
    mean = _mean(x.double(), n, ranks).float()
    variance = float(_mean((x - mean).double().square(), n, ranks).mean())
    if n < 2 or variance <= 1e-12 * float(mean.double().square().mean()) or variance == 0:
        raise TrainingError(f"the {n} activation vectors are all the same: there is nothing to explain")
    if not normalize:
        mean, scale = torch.zeros_like(mean), 1.0
    else:
        scale = float(torch.tensor(variance**-0.5))  # as float32 keeps it
    centerd = (x - mean) * scale
    if bias == "geometric_median":
        start = geometric_median(centerd[: -(-MEDIAN_SAMPLES // ranks.world)], ranks=ranks)
    elif bias == "mean":
        start = _mean(centerd.double(), n, ranks).float()
    elif bias == "zeros":
        start = torch.zeros_like(mean)
    else:
        raise TrainingError(f"bias={bias!r}: use 'geometric_median', 'mean' or 'zeros'")
    return InputStatistics(mean, scale, start, n)


def _mean(x: Tensor, n: int, ranks: Ranks) -> Tensor:
    """Mean `(d,)` over the `n` rows that all ranks have together."""
    total = x.sum(dim=0)
    ranks.add([total])
    return total / n


def geometric_median(x: Tensor, *, iterations: int = 100, tolerance: float = 1e-5, ranks: Ranks = ALONE) -> Tensor:
    """The point `(d,)` with the least sum of distances to `x` `(n, d)`: Weiszfeld's iteration from the mean.

    With `ranks`, of the rows of all of them.

    >>> geometric_median(torch.tensor([[0.0], [0.0], [9.0]])).abs() < 0.01
    tensor([True])
    """
    n = ranks.exchange(Message(rows=len(x))).rows
    point = _mean(x, n, ranks)
    size = _mean((x - point).norm(dim=1, keepdim=True), n, ranks)[0]
    for _ in range(iterations):
        weights = 1 / (x - point).norm(dim=1).clamp_min(1e-6 * size)
        pull, total = weights @ x, weights.sum()
        ranks.add([pull, total])
        moved = pull / total
        step, point = (moved - point).norm(), moved
        if float(step) <= tolerance * float(size):
            break
    return point
