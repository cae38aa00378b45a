"""Normalization of inputs: their mean and scale, and the initial decoder bias."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from sae.architectures.base import SAE
from sae.checks import check_activations
from sae.data.streams import Stream, TensorStream
from sae.distributed import ALONE, Message, Ranks
from sae.errors import TrainingError
from sae.training.linear_map import fit_linear_map
from zoo.common.checks import one_of

Bias = Literal["geometric_median", "mean", "zeros"]


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """Statistics of the inputs, computed before training.

    Attributes:
        mean: `(d,)`; scale: one over the root of the mean variance of a dimension; of vectors side by side `(d,)`, for
            each its own, so that none counts more than another.
        bias: `(d,)` initial decoder bias, in normalized inputs.
        samples: number of vectors that they are from.
        target: those of a transcoder's targets, whose `bias` is then the initial one.
        linear: `(d_out, d)` best linear map of normalized inputs to normalized targets, where a skip starts from it.
        center: where in an input its target begins, of a layer that is reconstructed from its own neighborhood: there
            the encoder starts as the decoder's transpose, as that of an SAE, and reads nothing else.
        examples: `(n, d)` normalized inputs, where an SAE starts from some; not in checkpoints, after which none does.
    """

    mean: Tensor
    scale: float | Tensor
    bias: Tensor
    samples: int
    target: InputStatistics | None = None
    linear: Tensor | None = None
    examples: Tensor | None = None
    center: int | None = None

    @property
    def width(self) -> int:
        """Width of a vector of the stream: of pairs, both."""
        return len(self.mean) + (0 if self.target is None else len(self.target.mean))

    def to(self, device: torch.device) -> InputStatistics:
        """The same, with its tensors on a device."""
        target = None if self.target is None else self.target.to(device)
        scale = self.scale.to(device) if isinstance(self.scale, Tensor) else self.scale
        return InputStatistics(self.mean.to(device), scale, self.bias.to(device), self.samples, target)

    def normalized(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Inputs `(N, d)` of a batch of the stream, and targets where it has pairs, each normalized by its own."""
        return ((x - self.mean) * self.scale, None) if self.target is None else self.pair(x)

    def pair(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`normalized` of a stream of pairs."""
        assert self.target is not None
        d = len(self.mean)
        return (x[:, :d] - self.mean) * self.scale, (x[:, d:] - self.target.mean) * self.target.scale

    @torch.no_grad()
    def apply(self, sae: SAE) -> None:
        """Set mean, scale and decoder bias of an SAE."""
        sae.mean.copy_(self.mean)
        sae.scale.copy_(torch.as_tensor(self.scale))
        of_target = self.target or self
        sae.decoder_bias.copy_(of_target.bias)
        if sae.target_mean is not None and sae.target_scale is not None:
            sae.target_mean.copy_(of_target.mean)
            sae.target_scale.copy_(torch.as_tensor(of_target.scale))
        if sae.skip is not None and self.linear is not None:
            sae.skip.copy_(self.linear)
        if self.center is not None and sae.transcodes and sae.config.frozen != "encoder":
            sae.encoder.zero_()
            sae.encoder[:, self.center : self.center + sae.d_out] = sae.decoder
        if self.examples is not None:
            sae.take_examples(self.examples)


MEDIAN_SAMPLES = 32_768
ROWS = 4096
PAIR_BYTES = 2**30
"""Of pairs in memory for their statistics: windows of maps are wide."""


@torch.no_grad()
def input_statistics(
    stream: Stream,
    *,
    samples: int = 65_536,
    normalize: bool = True,
    bias: Bias = "geometric_median",
    widths: tuple[int, int] | None = None,
    written: tuple[int, ...] = (),
    linear: bool = False,
    examples: int = 0,
    ranks: Ranks = ALONE,
) -> InputStatistics:
    """Statistics of the first vectors of a stream; its position stays the same.

    The mean of activations after a ReLU is long compared with their spread. Without centering most latents die, because
    every pre-activation contains the same large offset.

    Args:
        stream: see `Stream`.
        samples: at least this many vectors, or all there are.
        normalize: False is mean 0 and scale 1.
        bias: the initial decoder bias: the geometric median of the vectors, their mean, or zero.
        widths: of input and target, where the stream has pairs of them side by side.
        written: widths of the vectors side by side in what is reconstructed, where there are several.
        linear: fit the linear map between them, too.
        examples: how many of the vectors to keep.
        ranks: the processes, each of which reads its share of the vectors; all get the same statistics.

    Raises:
        TrainingError: no vectors, or all the same.
    """
    if widths is not None:
        samples = min(samples, max(ROWS, PAIR_BYTES // (4 * sum(widths))))
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

    x = ranks.agreed(read)
    if widths is None:
        statistics = _by_part(x, written, normalize=normalize, bias=bias, ranks=ranks)
        if not examples:
            return statistics
        normalized = (x[: -(-examples // ranks.world)] - statistics.mean) * statistics.scale
        return replace(statistics, examples=ranks.rows(normalized))
    return _of_pairs(x, widths, written, normalize, bias, linear, ranks)


def _of_pairs(
    x: Tensor,
    widths: tuple[int, int],
    written: tuple[int, ...],
    normalize: bool,
    bias: Bias,
    linear: bool,
    ranks: Ranks,
) -> InputStatistics:
    """Statistics of inputs and targets, each by itself; of inputs batch by batch, since windows of maps are wide."""
    d = widths[0]
    target = _by_part(x[:, d:], written, normalize=normalize, bias=bias, ranks=ranks)
    n = target.samples
    parts = [part[:, :d] for part in torch.split(x, ROWS)]
    mean = _mean(torch.stack([part.sum(dim=0, dtype=torch.float64) for part in parts]), n, ranks).float()
    squares = torch.stack([(part - mean).square().sum(dtype=torch.float64) for part in parts]).sum()[None]
    ranks.add([squares])
    variance = float(squares) / n / d
    if variance <= 1e-12 * float(mean.double().square().mean()) or variance == 0:
        raise TrainingError(f"the {n} inputs are all the same: there is nothing to read")
    scale = float(torch.tensor(variance**-0.5)) if normalize else 1.0
    inputs = InputStatistics(mean if normalize else torch.zeros_like(mean), scale, torch.zeros_like(mean), n, target)
    if not linear:
        return inputs
    pairs = (torch.cat(inputs.pair(part), dim=1) for part in torch.split(x, ROWS))
    fitted = fit_linear_map(pairs, widths, about=torch.zeros(sum(widths)), ranks=ranks)
    return replace(inputs, linear=fitted.weight.to(x.device))


def _by_part(x: Tensor, written: tuple[int, ...], *, normalize: bool, bias: Bias, ranks: Ranks) -> InputStatistics:
    """`statistics_of` each of the vectors that stand side by side, as those of one."""
    each = [
        statistics_of(part, normalize=normalize, bias=bias, ranks=ranks)
        for part in torch.split(x, list(written or x.shape[1:]), dim=1)
    ]
    if not written:
        return each[0]
    scale = torch.cat([torch.full_like(s.mean, float(s.scale)) for s in each])
    return InputStatistics(torch.cat([s.mean for s in each]), scale, torch.cat([s.bias for s in each]), each[0].samples)


def statistics_of(
    x: Tensor, *, normalize: bool = True, bias: Bias = "geometric_median", ranks: Ranks = ALONE
) -> InputStatistics:
    """`input_statistics` of vectors `(n, d)`, together with those of the other ranks."""
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
    centered = (x - mean) * scale
    one_of("bias", bias, get_args(Bias), error=TrainingError)
    if bias == "geometric_median":
        start = geometric_median(centered[: -(-MEDIAN_SAMPLES // ranks.world)], ranks=ranks)
    elif bias == "mean":
        start = _mean(centered.double(), n, ranks).float()
    else:
        start = torch.zeros_like(mean)
    return InputStatistics(mean, scale, start, n)


def _mean(x: Tensor, n: int, ranks: Ranks) -> Tensor:
    """Mean `(d,)` over the `n` rows that all ranks have together."""
    total = x.sum(dim=0)
    ranks.add([total])
    return total / n


def geometric_median(x: Tensor, *, iterations: int = 100, tolerance: float = 1e-5, ranks: Ranks = ALONE) -> Tensor:
    """The point `(d,)` with the least sum of distances to `x` `(n, d)`, over the rows of all ranks.

    Weiszfeld's iteration from the mean: `p <- sum(x_i / |x_i - p|) / sum(1 / |x_i - p|)`. At a row itself the weight
    would be infinite, hence the least distance, relative to the mean distance. By hand because SciPy has none, and
    because the sums must be over all ranks.

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
