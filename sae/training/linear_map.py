"""The linear map between pairs with the least squared error: where a transcoder's skip starts, and its floor.

A block that is nearly linear is explained by a matrix, without a latent. So a transcoder's error means little without
that of the matrix beside it, and its latents learn more where the skip begins as the matrix: what is left to them is
what no linear map does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae.distributed import ALONE, Message, Ranks
from sae.errors import SAEError

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Ridge penalties that are tried, in mean variances of an input's dimension."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """`y = (x - mean) @ weight.T + target_mean`.

    Attributes:
        weight: `(d_out, d)`; mean: `(d,)`; target_mean: `(d_out,)`.
        penalty: the ridge penalty, in mean variances of a dimension of x.
    """

    weight: Tensor
    mean: Tensor
    target_mean: Tensor
    penalty: float

    def __call__(self, x: Tensor) -> Tensor:
        """Targets `(N, d_out)` of inputs `(N, d)`."""
        return (x.to(self.weight.dtype) - self.mean) @ self.weight.T + self.target_mean

    def to(self, device: torch.device) -> LinearMap:
        """The same on a device."""
        weight, mean, target_mean = (value.to(device) for value in (self.weight, self.mean, self.target_mean))
        return LinearMap(weight, mean, target_mean, self.penalty)


class Moments:
    """Sums of pairs, batch by batch, from which linear maps are solved: `(d, d)` and `(d, d_out)` in double precision.

    Args:
        about: `(d + d_out,)`, near the mean of the pairs: float32 products then lose no digits to a long mean.
        d: width of an input.
    """

    def __init__(self, about: Tensor, d: int) -> None:
        self.d, self.samples, self.about = d, 0, about.float().cpu()
        self.totals = torch.zeros(len(about), dtype=torch.float64)
        self.squares = torch.zeros(d, d, dtype=torch.float64)
        self.products = torch.zeros(d, len(about) - d, dtype=torch.float64)

    def add(self, pairs: Tensor) -> None:
        """Add pairs `(n, d + d_out)`, both side by side."""
        centered = pairs.float().cpu() - self.about
        x, y = centered[:, : self.d], centered[:, self.d :]
        self.samples += len(pairs)
        self.totals += centered.sum(dim=0, dtype=torch.float64)
        self.squares += x.T @ x
        self.products += x.T @ y

    def share(self, ranks: Ranks) -> None:
        """Make them those of all ranks' pairs together, which must be about the same vector."""
        self.samples = ranks.exchange(Message(rows=self.samples)).rows
        ranks.add([self.totals, self.squares, self.products])

    def solve(self, penalty: float) -> LinearMap:
        """The map of least squared error plus `penalty * mean variance * |weight|^2`.

        Raises:
            SAEError: fewer than two pairs, or inputs that are all the same.
        """
        n = self.samples
        mean = self.totals / max(1, n)
        x, y = mean[: self.d], mean[self.d :]
        covariance = self.squares / max(1, n) - torch.outer(x, x)
        variance = float(covariance.diagonal().mean())
        if n < 2 or not variance > 0:
            raise SAEError(f"the {n} inputs are all the same: no linear map can be fitted")
        covariance.diagonal().add_(penalty * variance)
        weight = torch.cholesky_solve(self.products / n - torch.outer(x, y), torch.linalg.cholesky(covariance))
        both = (self.about.double() + mean).float()
        return LinearMap(weight.T.float().contiguous(), both[: self.d], both[self.d :], penalty)


@torch.no_grad()
def fit_linear_map(
    pairs: Iterable[Tensor], widths: tuple[int, int], *, penalties: Sequence[float] = PENALTIES,
    about: Tensor | None = None, ranks: Ranks = ALONE,
) -> LinearMap:  # fmt: skip
    """The linear map of pairs.

    Its penalty is the one with the least error on every tenth batch, which is not fitted on; one batch alone is both.

    Args:
        pairs: batches `(n, d + d_out)`; widths: `(d, d_out)`.
        penalties: that are tried.
        about: `(d + d_out,)`, near the mean of the pairs (default: the mean of the first batch).
        ranks: the processes, each of which reads its share of the pairs; several need the same `about`.

    Raises:
        SAEError: no pairs, or inputs that are all the same.
    """
    d, judged = widths[0], list[Tensor]()
    moments: Moments | None = None
    for number, batch in enumerate(pairs):
        moments = moments or Moments(batch.mean(dim=0) if about is None else about, d)
        if number % 10 == 0:
            judged.append(batch.cpu())
        else:
            moments.add(batch)
    if moments is None:
        raise SAEError("no pairs: nothing to fit a linear map to")
    if not moments.samples:
        moments.add(judged[0])
    moments.share(ranks)
    maps = [moments.solve(penalty) for penalty in penalties]
    errors = torch.tensor([sum(float((b[:, d:] - m(b[:, :d])).square().sum()) for b in judged) for m in maps])
    ranks.add([errors])
    return maps[int(errors.argmin())]


@torch.no_grad()
def fit_rectified_map(
    pairs: Callable[[], Iterable[Tensor]], widths: tuple[int, int], *, rounds: int = 2,
    penalties: Sequence[float] = PENALTIES,
) -> LinearMap:  # fmt: skip
    """The linear map whose rectified outputs are the rectified targets, `relu(map(x))` near `relu(z)`.

    It begins as the linear map of z. Where z is not above zero, any output below it is as good: in each round those
    targets become what the map gives there, at most zero, and the map is fitted again. The penalty is the one with the
    least rectified error on every tenth batch, which is not fitted on.

    Args:
        pairs: gives all batches `(n, d + d_out)` of x and z, the same each time; what belongs together is in one.
        widths: `(d, d_out)`; rounds: of fitting again; penalties: that are tried.

    Raises:
        SAEError: fewer than two batches, or inputs that are all the same.
    """
    d, judged = widths[0], list[Tensor]()
    moments: Moments | None = None
    for number, batch in enumerate(pairs()):
        moments = moments or Moments(batch.mean(dim=0), d)
        if number % 10 == 0:
            judged.append(batch.cpu())
        else:
            moments.add(batch)
    if moments is None or not moments.samples:
        raise SAEError("a rectified map is fitted on two batches of pairs at least: one is judged on")

    def error(of: LinearMap) -> float:
        return sum(float((of(b[:, :d]).relu() - b[:, d:].relu()).square().sum()) for b in judged)

    best = min((moments.solve(penalty) for penalty in penalties), key=error)
    for _ in range(rounds):
        moments.products.zero_()
        moments.totals[d:] = 0
        for number, batch in enumerate(pairs()):
            if number % 10:
                x, z = batch[:, :d].float().cpu(), batch[:, d:].float().cpu()
                z = torch.where(z > 0, z, best(x).clamp_max(0)) - moments.about[d:]
                moments.totals[d:] += z.sum(dim=0, dtype=torch.float64)
                moments.products += (x - moments.about[:d]).T @ z
        best = min((best, moments.solve(best.penalty)), key=error)
    return best
