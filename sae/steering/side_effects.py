"""Side effects of steering one latent: changes of everything else, and their prediction.

Two predictions stand beside what is measured. For latents of the same site it is the geometry: a latent with write
direction W_i that is raised by s changes the pre-activation of latent j by s (r_j . W_i), where r_j is the read
direction of j. For everything later in the network it is the derivative with respect to the latent (first order).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.common.statistics import rank_correlation
from circuits.network.basis import Basis, reads_linearly
from sae.data.site import Block, Function, Site
from sae.errors import SAEError
from sae.steering.apply import LatentReader, Steered
from sae.steering.bases import Channels, Dictionary, address_of, basis_at, in_parts, size_of
from sae.steering.edits import Kind, LatentEdit, Steering, When
from sae.steering.latent_search import chance_cosine, cosines
from zoo.common.results import HIDDEN, Result, called, plain
from zoo.progress import Progress

Numbers = NDArray[np.float64]
STEP = 0.02
"""Step of the finite differences, in multiples of a latent's maximum; a kink further away than that is not seen."""


@dataclass(frozen=True, eq=False)
class SideEffects(Result):
    """Changes of other units or outcomes when a latent is steered by one factor.

    Attributes:
        on: "latents" of the same site, "classes" or "tokens", or "downstream", of a later site.
        units: addresses or names of those that change.
        predicted: `(n,)` for latents of the site from the geometry, s (r_j . W_i) with s the mean change of the
            steered latent (`Geometry.effects` times the step of latent j); for the others to first order, by a
            central difference with `STEP` on either side.
        measured: `(n,)` mean change over all positions, or inputs.
        near: `(n,)` of latents of the site only: whether the write direction is nearer to that of the steered latent
            than the nearest of as many random directions is in 99 of 100 cases.
        correlation: rank correlation of predicted and measured.
        control: `(R,)` the same with the predictions for random latents instead.
        factor: of the steering.
        silent: number of latents left out since they are active on none of the inputs; woken: of these, the number
            that is active when steered.
    """

    on: str
    units: tuple[str, ...] = field(metadata=HIDDEN)
    predicted: Numbers = field(metadata=HIDDEN)
    measured: Numbers = field(metadata=HIDDEN)
    near: NDArray[np.bool_] = field(metadata=HIDDEN)
    correlation: float = field(metadata=called("rank_correlation"))
    control: Numbers = field(metadata=called("rank_correlation_of_random_latents"))
    factor: float
    silent: int = 0
    woken: int = 0

    def strongest(self, count: int) -> list[int]:
        """Indices of the largest changes, largest first."""
        order: list[int] = np.argsort(-np.abs(self.measured), kind="stable")[:count].tolist()
        return order

    def describe(self, count: int = 20) -> dict[str, Any]:
        """Ready for JSON, with the `count` largest changes."""
        rows = ("unit", self.units), ("measured", self.measured), ("predicted", self.predicted), ("near", self.near)
        strongest = [{name: plain(values[i]) for name, values in rows} for i in self.strongest(count)]
        return super().describe() | {
            "number": len(self.units), "near": int(self.near.sum()), "strongest": strongest,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class EditTemplate:
    """The edits of a study: of one latent at a time, by one kind, at the same positions and conditions.

    Attributes:
        site, basis: of the latents; kind: "set", "add" or "scale"; at, when: as of `LatentEdit`.
        reading: shared by all edits.
    """

    site: Site
    basis: Basis
    kind: Kind
    at: Any
    when: tuple[When, ...]
    reading: LatentReader

    def at_factor(self, latent: int, factor: float, maximum: float) -> Steered:
        """A latent set to, or raised by, a factor times its maximum; or multiplied by the factor."""
        value = factor if self.kind == "scale" else factor * maximum
        return self._steered(LatentEdit(latent, self.kind, value, at=self.at, when=self.when))

    def perturbed(self, latent: int, add: float, scale: float) -> Steered:
        """A latent multiplied by 1 + scale, then raised."""
        return self._steered(
            LatentEdit(latent, "scale", 1 + scale, at=self.at, when=self.when),
            LatentEdit(latent, "add", add, at=self.at, when=self.when),
        )

    def part_way(self, latent: int, factor: float, maximum: float, step: float) -> Steered:
        """A latent moved by a share of the way to where `at_factor` moves it."""
        if self.kind == "scale":
            return self.perturbed(latent, 0.0, step * (factor - 1))
        return self.perturbed(latent, step * factor * maximum, -step if self.kind == "set" else 0.0)

    @property
    def steps(self) -> list[tuple[float, float]]:
        """The perturbations `(add, scale)` of the first-order estimate.

        With a the activation and m the maximum, "set" to f m is a change of f m - a: the derivative by adding, times
        f, less the derivative by scaling. "add" is the first alone, "scale" the second, times f - 1.
        """
        return {"set": [(STEP, 0.0), (0.0, STEP)], "add": [(STEP, 0.0)], "scale": [(0.0, STEP)]}[self.kind]

    def first_order(self, slopes: Numbers, factor: float) -> Numbers:
        """Changes `(..., K)` to first order, from slopes `(..., steps, K)` along `steps`."""
        if self.kind == "set":
            return np.asarray(factor * slopes[..., 0, :] - slopes[..., 1, :])
        return np.asarray((factor if self.kind == "add" else factor - 1) * slopes[..., 0, :])

    @property
    def predicts_latents(self) -> bool:
        """Whether geometry predicts what steering one latent does to others of the site.

        Channels are orthogonal, so it does nothing; where each latent reads what others have left, no cosine tells.
        """
        return not isinstance(self.basis, Channels) and reads_linearly(self.basis)

    def _steered(self, *edits: LatentEdit) -> Steered:
        return Steered(self.site, self.basis, Steering(edits), self.reading)


@torch.no_grad()
def on_latents(
    site: Site, s: Dictionary, latent: int, steered: Steered, control: Sequence[int], inputs: Any, factor: float,
    *, name: str, batch_size: int, progress: Progress = None,
) -> SideEffects:  # fmt: skip
    """Changes of the other latents at the same site, beside those that the geometry predicts.

    Latents that are silent on all inputs are left out: below its threshold an activation cannot fall.

    Args:
        site, s: see `study`; latent: the steered one; steered: the edit; control: random latents.
        inputs: to measure on; factor: of the edit; name: of the basis in addresses.
        batch_size, progress: as of `study`.
    """
    basis = basis_at(s, site)
    before, after = _Means(size_of(basis)), _Means(size_of(basis))
    shift, column = 0.0, steered.reading.columns[latent]
    for block in site.blocks(inputs, batch_size=batch_size, progress=progress):
        before.add(basis, block)
        edit = steered.of(block)
        after.add(basis, Block(edit(block.acts), block.first, block.mask))
        raised = Block(edit.shift(block.acts)[..., column, None], block.first, block.mask).vectors
        shift += float(raised.double().sum())
    shift /= max(1, before.count)
    measured = after.mean - before.mean
    read, write = (rows.detach().double().cpu() for rows in (basis.read, basis.write))
    silent = before.active == 0
    # of a latent below its threshold only rises can be seen: it would bias the correlation
    others = ~silent
    others[latent] = False
    # first order in the edit: x moves by shift W_i on average, and the pre-activation of latent j by r_j . W_i times
    # that
    predicted = read @ write[latent] * shift

    def by_chance(i: int) -> float:
        """Rank correlation with the prediction for random latent i; its own step is no side effect of it."""
        rest = others.clone()
        rest[i] = False
        return rank_correlation(measured[rest], (read @ write[i])[rest])

    near = cosines(write, latent).abs() > chance_cosine(site.d, size_of(basis))
    return SideEffects(
        on="latents",
        units=tuple(address_of(i, s, site, name) for i in others.nonzero().flatten().tolist()),
        predicted=predicted[others].numpy(),
        measured=measured[others].numpy(),
        near=near[others].numpy(),
        correlation=rank_correlation(predicted[others], measured[others]),
        control=np.array([float(np.sign(shift)) * by_chance(i) for i in control]),
        factor=factor,
        silent=int(silent.sum()),
        woken=int((silent & (after.active > 0)).sum()),
    )


def on_outcomes(
    names: Sequence[str], predicted: Numbers, controls: Numbers, measured: Numbers, targets: Sequence[int],
    factor: float, *, on: str = "classes",
) -> SideEffects:  # fmt: skip
    """Changes of the scores of classes or tokens other than the targets.

    Args:
        names: of all outcomes; predicted, measured: `(K,)`; controls: `(R, K)` predictions for random latents.
        targets: outcomes to leave out.
        factor: of the steering.
        on: "classes" or "tokens".
    """
    others = np.setdiff1d(np.arange(len(measured)), np.asarray(targets, dtype=np.int64))
    return SideEffects(
        on=on,
        units=tuple(names[i] for i in others.tolist()),
        predicted=predicted[others],
        measured=measured[others],
        near=np.zeros(len(others), dtype=bool),
        correlation=rank_correlation(predicted[others], measured[others]),
        control=np.array([rank_correlation(row[others], measured[others]) for row in controls]),
        factor=factor,
    )


@torch.no_grad()
def on_downstream(
    template: EditTemplate, latents: Sequence[int], maxima: Sequence[float], later: tuple[Site, Dictionary],
    inputs: Any, factor: float, *, outcomes_change: bool, batch_size: int,
) -> SideEffects:  # fmt: skip
    """Changes of the latents or channels of a later site, beside the prediction to first order.

    Args:
        template: of the edits; latents: the steered one, then the random ones; maxima: of each.
        later: site and basis; inputs: to measure on; factor: of the steering.
        outcomes_change: whether the predictions of the network change: then the later site must change, too.

    Raises:
        SAEError: it does not, so it does not come after the steered site.
    """
    site, dictionary = later
    basis = basis_at(dictionary, site)

    def means(function: Function | None) -> _Means:
        result = _Means(size_of(basis))
        with nullcontext() if function is None else template.site.replaced(function):
            for block in site.blocks(inputs, batch_size=batch_size):
                result.add(basis, block)
        return result

    def first_order(latent: int, maximum: float) -> Tensor:
        # one difference along the way to the factor; far factors take a smaller share, so that both move as far
        step = STEP / max(1.0, abs(factor))
        up, down = (means(template.part_way(latent, factor, maximum, sign * step)).mean for sign in (1, -1))
        return (up - down) / (2 * step)

    before, after = means(None), means(template.at_factor(latents[0], factor, maxima[0]))
    measured = after.mean - before.mean
    if outcomes_change and not bool((measured != 0).any()):
        raise SAEError(f"steering {template.site.address} changes nothing at {site.address}: name a site after it")
    predicted = [first_order(i, maximum) for i, maximum in zip(latents, maxima, strict=True)]
    active = before.active > 0
    return SideEffects(
        on="downstream",
        units=tuple(address_of(i, dictionary, site, "later") for i in active.nonzero().flatten().tolist()),
        predicted=predicted[0][active].numpy(),
        measured=measured[active].numpy(),
        near=np.zeros(int(active.sum()), dtype=bool),
        correlation=rank_correlation(predicted[0][active], measured[active]),
        control=np.array([rank_correlation(row[active], measured[active]) for row in predicted[1:]]),
        factor=factor,
        silent=int((~active).sum()),
        woken=int((~active & (after.active > 0)).sum()),
    )


class _Means:
    """Mean of each latent over all positions, and the number of positions at which it is active."""

    def __init__(self, latents: int) -> None:
        self.total, self.active = torch.zeros(latents, dtype=torch.float64), torch.zeros(latents, dtype=torch.long)
        self.count = 0

    def add(self, basis: Basis, block: Block) -> None:
        """Count a block."""

        def count(latents: Tensor) -> None:
            self.total += latents.double().sum(dim=0).cpu()
            self.active += (latents > 0).sum(dim=0).cpu()

        in_parts(basis, block.vectors, count)
        self.count += len(block.vectors)

    @property
    def mean(self) -> Tensor:
        """`(m,)`."""
        return self.total / max(1, self.count)
