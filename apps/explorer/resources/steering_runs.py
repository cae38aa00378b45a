"""A picture before and after edits, and what follows as they are turned up, beside random units turned as far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apps.explorer.resources.control_units import SEED, stand_ins
from apps.explorer.session import state
from apps.explorer.session.state import Here
from circuits.attribution.class_scores import class_name
from circuits.network.basis import Basis, basis_digest
from circuits.network.hooks import capture
from circuits.network.model import Model
from sae.data.site import Function
from sae.data.vision_site import VisionSite
from sae.steering import Channels, LatentEdit, Maxima, maxima, steered
from sae.steering.max_activations import describe_inputs
from zoo.images.sources import Images
from zoo.progress import Progress

DOSES = tuple(i / 5 for i in range(11))
"""Shares of the edits that are made: 0 leaves the network as it is, 1 is as they were set."""
MEASURED = 200
"""Pictures that maxima are measured on where no scan has them."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class SteeringSite:
    """Where edits are made.

    Attributes:
        site: the layer; basis: of an SAE, or None for the channels; name: of the basis, empty for channels.
        count: how many units; size: of the map, or None for a layer without places.
    """

    site: VisionSite
    basis: Basis | None
    name: str
    count: int
    size: tuple[int, int] | None

    @property
    def model(self) -> Model:
        """The model."""
        return self.site.model

    @property
    def space(self) -> str:
        """The layer, or its latents, as addresses have it."""
        return f"{self.site.layer.name}~{self.name}" if self.name else self.site.layer.name

    def address(self, latent: int) -> str:
        """The full address of a unit."""
        return f"{self.model.name}/{self.space}:{latent}"

    def values(self, acts: Tensor, latents: Sequence[int]) -> Tensor:
        """Some units of activations `(N, h, w, d)`: `(N, h, w, k)`."""
        if self.basis is None:
            return acts[..., list(latents)]
        flat = self.basis.encode(acts.reshape(-1, acts.shape[-1]).to(self.basis.read.device))
        return flat[:, list(latents)].view(*acts.shape[:-1], -1)


def bench_of(at: Here) -> SteeringSite:
    """The layer, or the latents of it, that an address names."""
    unit, model = at.unit, at.model
    site = VisionSite(model, unit.layer)
    if unit.basis is None:
        return SteeringSite(site, None, "", site.d, site.layer.size)
    basis = model.basis(unit.layer, unit.basis)
    return SteeringSite(site, basis, unit.basis, len(basis.read), site.layer.size)


def maxima_of(at: Here, bench: SteeringSite, progress: Progress = None) -> Maxima:
    """The largest response of each unit: what the scan saw, or measured on some of the pictures."""
    images = state.pictures_of(at)
    if at.scan is not None and bench.space in at.scan.layers:
        found = torch.from_numpy(np.array(at.scan.layer(bench.space).maximum, dtype=np.float32))
        basis = Channels(bench.site.d) if bench.basis is None else bench.basis
        return Maxima(found, bench.site.address, basis_digest(basis), describe_inputs(images))
    return maxima(bench.basis, bench.site, images.spread(MEASURED), progress=progress)


# -- one picture ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sides:
    """A picture, unsteered and steered.

    Attributes:
        classes: names; before, after: probability of each by softmax, `(classes,)`.
        maps: of each edited unit, what it says at each place `(h, w)` before and after.
        change: `(h, w)` how far the activations were moved at each place, as a share of their mean length.
        later: a later layer, or empty; moved: numbers of its units that changed most, with their mean response before
            and after, those that rose first.
    """

    classes: tuple[str, ...]
    before: Numbers
    after: Numbers
    maps: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]
    change: NDArray[np.float32]
    later: str
    moved: tuple[tuple[int, float, float], ...]

    def most(self, count: int) -> list[int]:
        """Classes that are likely before or after, the likeliest first."""
        order = np.argsort(-np.maximum(self.before, self.after), kind="stable")
        return [int(i) for i in order[:count]]

    @property
    def target(self) -> int:
        """The class whose probability changes most."""
        return int(np.abs(self.after - self.before).argmax())

    def rows(self) -> list[dict[str, Any]]:
        """As a table."""
        return [
            {"class": name, "before": float(b), "after": float(a), "change": float(a - b)}
            for name, b, a in zip(self.classes, self.before, self.after, strict=True)
        ]


@torch.no_grad()
def sides(
    bench: SteeringSite, edits: Sequence[LatentEdit], known: Maxima, image: Images, *, later: str, most: int
) -> Sides:
    """A picture before and after.

    Raises:
        SAEError: edits in multiples of the maximum of a unit that never fires.
    """
    site, model = bench.site, bench.model
    way = steered(site, bench.basis, list(edits), maxima=known)
    with model.lock:  # predictions do not take it, and what another thread reads must not be in them
        return _sides(bench, edits, way, image, later, most)


def _sides(
    bench: SteeringSite, edits: Sequence[LatentEdit], way: Function, image: Images, later: str, most: int
) -> Sides:
    site, model = bench.site, bench.model
    (clean, edited), _ = next(site.predictions(image, [None, way]))
    acts = next(site.blocks(image)).acts
    after = way(acts)
    latents = sorted({one.latent for one in edits})
    both = [bench.values(a, latents)[0].float().cpu().numpy() for a in (acts, after)]
    length = acts.norm(dim=-1).mean().clamp_min(1e-12)
    rows = torch.stack([clean[0], edited[0]]).double().softmax(dim=1).cpu().numpy()
    return Sides(
        classes=tuple(class_name(model, i) for i in range(rows.shape[1])),
        before=rows[0],
        after=rows[1],
        maps={latent: (both[0][..., i], both[1][..., i]) for i, latent in enumerate(latents)},
        change=((after - acts).norm(dim=-1) / length)[0].float().cpu().numpy(),
        later=later,
        moved=_moved(site, way, image, later, most) if later else (),
    )


def _moved(
    site: VisionSite, way: Function, image: Images, later: str, most: int
) -> tuple[tuple[int, float, float], ...]:
    before = capture(site.model, image, [later])[later][0].flatten(1).mean(dim=1).double().cpu()
    with site.replaced(way):
        after = capture(site.model, image, [later])[later][0].flatten(1).mean(dim=1).double().cpu()
    change = after - before
    order = change.argsort(descending=True, stable=True).tolist()
    up = [i for i in order[:most] if float(change[i]) > 0]
    down = [i for i in reversed(order[-most:]) if float(change[i]) < 0]
    return tuple((i, float(before[i]), float(after[i])) for i in [*up, *down])


# -- more and less of it ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Doses:
    """What follows as edits are turned up, on some pictures.

    Attributes:
        doses: shares of the edits that were made, from 0.
        values: mean probability of each class, `(doses, classes)`; random: the same for edits of random units,
            `(draws, doses, classes)`.
        same, random_same: share of the pictures whose first choice is that of the network as it is, `(doses,)` and
            `(draws, doses)`.
        units: of each draw, the units that stand in for those of the edits.
        pictures: how many.
    """

    doses: tuple[float, ...]
    values: Numbers
    random: Numbers
    same: Numbers
    random_same: Numbers
    units: tuple[tuple[int, ...], ...]
    pictures: int

    def describe(self, target: int, name: str) -> dict[str, Any]:
        """For one class, ready for JSON."""
        return {
            "class": name, "pictures": self.pictures, "doses": list(self.doses), "seed": SEED,
            "probability": self.values[:, target].tolist(), "random": self.random[:, :, target].tolist(),
            "first_choice_kept": self.same.tolist(), "random_first_choice_kept": self.random_same.tolist(),
            "random_units": [list(row) for row in self.units],
        }  # fmt: skip


@torch.no_grad()
def doses(
    bench: SteeringSite, edits: Sequence[LatentEdit], known: Maxima, images: Images, progress: Progress = None
) -> Doses:
    """The edits made by a share, from none to twice as far; and the same edits of random units.

    An activation x that the edits turn into y becomes x + t (y - x). Conditions stay what they are; random units are
    drawn from those that fire, and edited in multiples of their own maxima where the edits are told so.

    Raises:
        SAEError: edits that cannot be made, or no other unit that fires.
    """
    units = stand_ins(edits, known)
    recipes = [list(edits), *([replace(one, latent=row[one.latent]) for one in edits] for row in units)]
    functions = [steered(bench.site, bench.basis, recipe, maxima=known) for recipe in recipes]
    ways = [_share(function, t) for function in functions for t in DOSES[1:]]
    sums: list[Any] = [0.0] * (len(ways) + 1)
    same = np.zeros(len(ways) + 1)
    count = 0
    for scores in _locked(bench.model, bench.site.predictions(images, [None, *ways], batch_size=4, progress=progress)):
        first = scores[0].argmax(dim=1)
        count += len(first)
        for i, found in enumerate(scores):
            sums[i] = sums[i] + found.double().softmax(dim=1).sum(dim=0).cpu().numpy()
            same[i] += int((found.argmax(dim=1) == first).sum())
    rows = np.stack(sums) / count
    shaped = rows[1:].reshape(len(recipes), len(DOSES) - 1, -1)
    whole = np.concatenate([np.broadcast_to(rows[0], (len(recipes), 1, rows.shape[1])), shaped], axis=1)
    kept = np.concatenate([np.ones((len(recipes), 1)), same[1:].reshape(len(recipes), -1) / count], axis=1)
    drawn = tuple(tuple(row.values()) for row in units)
    return Doses(DOSES, whole[0], whole[1:], kept[0], kept[1:], drawn, count)


def _locked(model: Model, predictions: Iterator[tuple[list[Tensor], Tensor | None]]) -> Iterator[list[Tensor]]:
    """Predictions, batch by batch under the model's lock; between two batches others may have it."""
    while True:
        with model.lock:
            found = next(predictions, None)
        if found is None:
            return
        yield found[0]


def _share(function: Function, t: float) -> Function:
    return lambda acts: acts + t * (function(acts) - acts)


def recipe(bench: SteeringSite, edits: Sequence[LatentEdit], known: Maxima) -> str:
    """The edits as the JSON that `sae.steering.Steering.parse` reads."""
    return steered(bench.site, bench.basis, list(edits), maxima=known).steering.json()
