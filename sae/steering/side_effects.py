"""What steering one latent does to everything else, beside what its geometry or a first-order estimate says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.common.statistics import rank_correlation
from circuits.network.basis import Basis
from sae.data.site import Block, Function, Site
from sae.errors import SAEError
from sae.steering.apply import Reading, Steered
from sae.steering.bases import Channels, Dictionary, basis_at, in_parts, name_of, size_of
from sae.steering.edits import Kind, LatentEdit, Steering, When
from sae.steering.latent_search import chance_cosine, cosines
from zoo.progress import Progress

Numbers = NDArray[np.float64]
STEP = 0.02
"""Of the finite difference, in multiples of a latent's maximum: kinks beyond it are not seen."""


@dataclass(frozen=True, eq=False)
class SideEffects:
    """Changes of other things when a latent is steered by one factor.

    Attributes:
        on: "latents" of the same site, "classes" or "tokens", or "downstream", of a later site.
        units: what they are changes of.
        predicted: `(n,)` from the geometry (latents of the site: mean shift times read_j . write_i, which is
            `Geometry.effects` times that latent's own step) or to first order (the others: a central difference of
            steps of two hundredths).
        measured: `(n,)` mean change over all places, or inputs.
        near: `(n,)` whether the latent's direction is nearer to the steered one's than 99 of 100 random ones have
            their nearest; of latents of the site only.
        correlation: rank correlation of predicted and measured; control: the same with the predictions of random
            latents instead.
        silent: latents left out since they fire on none of the inputs; woken: those of them that fire when steered.
        factor: by which was steered.
    """

    on: str
    units: tuple[str, ...]
    predicted: Numbers
    measured: Numbers
    near: NDArray[np.bool_]
    correlation: float
    control: Numbers
    factor: float
    silent: int = 0
    woken: int = 0

    def strongest(self, count: int) -> list[int]:
        """Where the largest changes are, largest first."""
        order: list[int] = np.argsort(-np.abs(self.measured), kind="stable")[:count].tolist()
        return order

    def describe(self, count: int = 20) -> dict[str, Any]:
        """Ready for JSON, with the largest changes."""
        return {
            "on": self.on,
            "factor": self.factor,
            "number": len(self.units),
            "silent": self.silent,
            "woken": self.woken,
            "rank_correlation": _json(self.correlation),
            "rank_correlation_of_random_latents": [_json(v) for v in self.control.tolist()],
            "near": int(self.near.sum()),
            "strongest": [
                {
                    "unit": self.units[i],
                    "measured": float(self.measured[i]),
                    "predicted": float(self.predicted[i]),
                    "near": bool(self.near[i]),
                }
                for i in self.strongest(count)
            ],
        }


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True, eq=False)
class Dial:
    """How latents are turned in a study.

    Attributes:
        site, basis: where; kind: "set", "add" or "scale"; at, when: places and conditions, as of `LatentEdit`.
        reading: shared by all edits.
    """

    site: Site
    basis: Basis
    kind: Kind
    at: Any
    when: tuple[When, ...]
    reading: Reading

    def turned(self, latent: int, factor: float, maximum: float) -> Steered:
        """One latent set to, or raised by, a factor times its maximum; or multiplied by the factor."""
        value = factor if self.kind == "scale" else factor * maximum
        return self._steered(LatentEdit(latent, self.kind, value, at=self.at, when=self.when))

    def nudged(self, latent: int, add: float, scale: float) -> Steered:
        """One latent scaled by 1 + scale, then raised."""
        return self._steered(
            LatentEdit(latent, "scale", 1 + scale, at=self.at, when=self.when),
            LatentEdit(latent, "add", add, at=self.at, when=self.when),
        )

    def towards(self, latent: int, factor: float, maximum: float, step: float) -> Steered:
        """A share of the way to where `turned` takes a latent."""
        if self.kind == "scale":
            return self.nudged(latent, 0.0, step * (factor - 1))
        return self.nudged(latent, step * factor * maximum, -step if self.kind == "set" else 0.0)

    @property
    def steps(self) -> list[tuple[float, float]]:
        """The steps, as parts added and scaled by, that its first-order estimates are made of."""
        return {"set": [(STEP, 0.0), (0.0, STEP)], "add": [(STEP, 0.0)], "scale": [(0.0, STEP)]}[self.kind]

    def estimate(self, slopes: Numbers, factor: float) -> Numbers:
        """The change to first order: slopes `(..., steps, K)` of `steps` -> `(..., K)`."""
        if self.kind == "set":
            return np.asarray(factor * slopes[..., 0, :] - slopes[..., 1, :])
        return np.asarray((factor if self.kind == "add" else factor - 1) * slopes[..., 0, :])

    def _steered(self, *edits: LatentEdit) -> Steered:
        return Steered(self.site, self.basis, Steering(edits), self.reading)


@torch.no_grad()
def on_latents(
    site: Site, s: Dictionary, latent: int, way: Steered, control: Sequence[int], inputs: Any, factor: float,
    *, name: str, batch_size: int, progress: Progress = None,
) -> SideEffects:  # fmt: skip
    """Changes of the other latents at the same site, predicted from what they read and what the steered one writes."""
    basis = basis_at(s, site)
    before, after = _Means(size_of(basis)), _Means(size_of(basis))
    shift, column = 0.0, way.reading.columns[latent]
    for block in site.blocks(inputs, batch_size=batch_size, progress=progress):
        before.add(basis, block)
        here = way.of(block)
        after.add(basis, Block(here(block.acts), block.first, block.mask))
        raised = Block(here.shift(block.acts)[..., column, None], block.first, block.mask).vectors
        shift += float(raised.double().sum())
    shift /= max(1, before.places)
    measured = after.mean - before.mean
    read, write = (rows.detach().double().cpu() for rows in (basis.read, basis.write))
    kept = before.fired > 0
    silent = ~kept
    kept[latent] = False
    met = read @ write[latent] * shift
    others = {i: rank_correlation(_but(measured, kept, i), _but(read @ write[i], kept, i)) for i in control}
    sign = float(np.sign(shift))
    indices = kept.nonzero().flatten().tolist()
    near = cosines(write, latent).abs() > chance_cosine(site.d, size_of(basis))
    return SideEffects(
        on="latents",
        units=tuple(name_of(i, s, site, name) for i in indices),
        predicted=met[kept].numpy(),
        measured=measured[kept].numpy(),
        near=near[kept].numpy(),
        correlation=rank_correlation(met[kept], measured[kept]),
        control=np.array([sign * v for v in others.values()]),
        factor=factor,
        silent=int(silent.sum()),
        woken=int((silent & (after.fired > 0)).sum()),
    )


def _but(values: Tensor, kept: Tensor, left: int) -> Tensor:
    without = kept.clone()
    without[left] = False  # of its own step a latent says nothing about others
    return values[without]


def on_outcomes(
    names: Sequence[str], predicted: Numbers, controls: Numbers, measured: Numbers, left: Sequence[int], factor: float,
    *, on: str = "classes",
) -> SideEffects:  # fmt: skip
    """Changes of the scores of classes or tokens other than those meant.

    Args:
        names: of all; predicted, measured: `(K,)`; controls: `(R, K)` predictions for random latents.
        left: those meant.
        factor: by which was steered.
        on: "classes" or "tokens".
    """
    kept = np.setdiff1d(np.arange(len(measured)), np.asarray(left, dtype=np.int64))
    return SideEffects(
        on=on,
        units=tuple(names[i] for i in kept.tolist()),
        predicted=predicted[kept],
        measured=measured[kept],
        near=np.zeros(len(kept), dtype=bool),
        correlation=rank_correlation(predicted[kept], measured[kept]),
        control=np.array([rank_correlation(row[kept], measured[kept]) for row in controls]),
        factor=factor,
    )


@torch.no_grad()
def on_downstream(
    dial: Dial, latents: Sequence[int], maxima: Sequence[float], later: tuple[Site, Dictionary], inputs: Any,
    factor: float, *, moved: bool, batch_size: int,
) -> SideEffects:  # fmt: skip
    """Changes of the latents or channels of a later site, predicted to first order.

    Args:
        dial: how they are turned; latents: the one turned, then the random ones; maxima: of each.
        later: site and basis; inputs: to look at; factor: by which is turned.
        moved: whether what the network predicts changes: then something must change there, too.

    Raises:
        SAEError: nothing does.
    """
    site, theirs = later
    seen = basis_at(theirs, site)

    def means(function: Function | None) -> _Means:
        found = _Means(size_of(seen))
        with nullcontext() if function is None else dial.site.replaced(function):
            for block in site.blocks(inputs, batch_size=batch_size):
                found.add(seen, block)
        return found

    def first_order(latent: int, maximum: float) -> Tensor:
        step = STEP / max(1.0, abs(factor))
        up, down = (means(dial.towards(latent, factor, maximum, sign * step)).mean for sign in (1, -1))
        return (up - down) / (2 * step)

    before, after = means(None), means(dial.turned(latents[0], factor, maxima[0]))
    measured = after.mean - before.mean
    if moved and not bool((measured != 0).any()):
        raise SAEError(f"steering {dial.site.address} changes nothing at {site.address}: name a site after it")
    predicted = [first_order(i, maximum) for i, maximum in zip(latents, maxima, strict=True)]
    kept = before.fired > 0
    return SideEffects(
        on="downstream",
        units=tuple(name_of(i, theirs, site, "later") for i in kept.nonzero().flatten().tolist()),
        predicted=predicted[0][kept].numpy(),
        measured=measured[kept].numpy(),
        near=np.zeros(int(kept.sum()), dtype=bool),
        correlation=rank_correlation(predicted[0][kept], measured[kept]),
        control=np.array([rank_correlation(one[kept], measured[kept]) for one in predicted[1:]]),
        factor=factor,
        silent=int((~kept).sum()),
        woken=int((~kept & (after.fired > 0)).sum()),
    )


class _Means:
    """Mean of each latent over all places, and at how many it fires."""

    def __init__(self, latents: int) -> None:
        self.total, self.fired = torch.zeros(latents, dtype=torch.float64), torch.zeros(latents, dtype=torch.long)
        self.places = 0

    def add(self, basis: Basis, block: Block) -> None:
        """Count a block."""

        def use(latents: Tensor) -> None:
            self.total += latents.double().sum(dim=0).cpu()
            self.fired += (latents > 0).sum(dim=0).cpu()

        in_parts(basis, block.vectors, use)
        self.places += len(block.vectors)

    @property
    def mean(self) -> Tensor:
        """`(m,)`."""
        return self.total / max(1, self.places)


def has_others(basis: Basis) -> bool:
    """Whether steering one of its latents can touch others of the same site: channels leave each other alone."""
    return not isinstance(basis, Channels)
