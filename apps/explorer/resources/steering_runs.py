"""Effects of edits on an image, and dose-response curves beside steps as long along random units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apps.explorer.resources.control_units import random_units
from apps.explorer.session import state
from apps.explorer.session.state import Location
from circuits.attribution.class_scores import class_name
from circuits.network.basis import Basis, basis_digest
from circuits.network.hooks import capture
from circuits.network.model import Model
from sae.data.site import Function
from sae.data.vision_site import VisionSite
from sae.steering import Channels, EqualStep, LatentEdit, Maxima, maxima, steered
from sae.steering.max_activations import describe_inputs
from zoo.images.sources import Images
from zoo.progress import Progress

DOSES = tuple(i / 5 for i in range(11))
"""Shares of the edits: 0 is the network without edits, 1 is the edits as set."""
MEASURED = 200
"""Number of images that maxima are measured on, where no scan has them."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class SteeringSite:
    """The units that are edited.

    Attributes:
        vision: the layer; basis: of an SAE, or None for the channels; name: of the basis, empty for channels.
        count: number of units; size: of the map, or None for a layer without positions.
    """

    vision: VisionSite
    basis: Basis | None
    name: str
    count: int
    size: tuple[int, int] | None

    @property
    def model(self) -> Model:
        """The model."""
        return self.vision.model

    @property
    def space(self) -> str:
        """The layer, or its latents, as in addresses."""
        return f"{self.vision.layer.name}~{self.name}" if self.name else self.vision.layer.name

    def address(self, latent: int) -> str:
        """The full address of a unit."""
        return f"{self.model.name}/{self.space}:{latent}"

    def values(self, acts: Tensor, latents: Sequence[int]) -> Tensor:
        """Some units of activations `(N, h, w, d)`: `(N, h, w, k)`."""
        if self.basis is None:
            return acts[..., list(latents)]
        flat = self.basis.encode(acts.reshape(-1, acts.shape[-1]).to(self.basis.read.device))
        return flat[:, list(latents)].view(*acts.shape[:-1], -1)


def steering_site_of(at: Location) -> SteeringSite:
    """The layer, or the latents of it, that an address names."""
    unit, model = at.unit, at.model
    vision = VisionSite(model, unit.layer)
    if unit.basis is None:
        return SteeringSite(vision, None, "", vision.d, vision.layer.size)
    basis = model.basis(unit.layer, unit.basis)
    return SteeringSite(vision, basis, unit.basis, len(basis.read), vision.layer.size)


def maxima_of(at: Location, site: SteeringSite, progress: Progress = None) -> Maxima:
    """The largest activation of each unit: from the scan, or measured on some of the images."""
    images = state.images_of(at)
    if at.scan is not None and site.space in at.scan.layers:
        values = torch.from_numpy(np.array(at.scan.layer(site.space).maximum, dtype=np.float32))
        basis = Channels(site.vision.d) if site.basis is None else site.basis
        return Maxima(values, site.vision.address, basis_digest(basis), describe_inputs(images))
    return maxima(site.basis, site.vision, images.spread(MEASURED), progress=progress)


# -- one image --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Comparison:
    """An image, unsteered and steered.

    Attributes:
        classes: names; before, after: probability of each by softmax, `(classes,)`.
        maps: activations of each edited unit at all positions, `(h, w)`, before and after.
        change: `(h, w)` L2 norm of the change of all activations, as a share of their mean norm.
        later: a later layer, or empty; moved: its units that changed most, as number and mean activation before and
            after, rising ones first.
    """

    classes: tuple[str, ...]
    before: Numbers
    after: Numbers
    maps: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]
    change: NDArray[np.float32]
    later: str
    moved: tuple[tuple[int, float, float], ...]

    def most(self, count: int) -> list[int]:
        """Numbers of the classes with the largest probability before or after."""
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
def compare(
    site: SteeringSite, edits: Sequence[LatentEdit], peaks: Maxima, image: Images, *, later: str, most: int
) -> Comparison:
    """An image before and after edits.

    Raises:
        SAEError: edits in multiples of the maximum of a unit that is never active.
    """
    function = steered(site.vision, site.basis, list(edits), maxima=peaks)
    with site.model.lock:  # `predictions` does not take it, and edits of another thread must not be active in it
        return _compare(site, edits, function, image, later, most)


def _compare(
    site: SteeringSite, edits: Sequence[LatentEdit], function: Function, image: Images, later: str, most: int
) -> Comparison:
    vision = site.vision
    (clean, edited), _ = next(vision.predictions(image, [None, function]))
    acts = next(vision.blocks(image)).acts
    after = function(acts)
    latents = sorted({edit.latent for edit in edits})
    both = [site.values(a, latents)[0].float().cpu().numpy() for a in (acts, after)]
    length = acts.norm(dim=-1).mean().clamp_min(1e-12)
    rows = torch.stack([clean[0], edited[0]]).double().softmax(dim=1).cpu().numpy()
    return Comparison(
        classes=tuple(class_name(site.model, i) for i in range(rows.shape[1])),
        before=rows[0],
        after=rows[1],
        maps={latent: (both[0][..., i], both[1][..., i]) for i, latent in enumerate(latents)},
        change=((after - acts).norm(dim=-1) / length)[0].float().cpu().numpy(),
        later=later,
        moved=_changed(vision, function, image, later, most) if later else (),
    )


def _changed(
    vision: VisionSite, function: Function, image: Images, later: str, most: int
) -> tuple[tuple[int, float, float], ...]:
    before = capture(vision.model, image, [later])[later][0].flatten(1).mean(dim=1).double().cpu()
    with vision.replaced(function):
        after = capture(vision.model, image, [later])[later][0].flatten(1).mean(dim=1).double().cpu()
    change = after - before
    order = change.argsort(descending=True, stable=True).tolist()
    up = [i for i in order[:most] if float(change[i]) > 0]
    down = [i for i in reversed(order[-most:]) if float(change[i]) < 0]
    return tuple((i, float(before[i]), float(after[i])) for i in [*up, *down])


# -- dose and response ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DoseResponse:
    """Class probabilities over the dose of edits, on some images.

    Attributes:
        doses: shares of the edits, from 0.
        values: mean probability of each class, `(doses, classes)`; random: the same for steps as long of random units,
            `(controls, doses, classes)`.
        same, random_same: share of the images whose predicted class is that of the unedited network, `(doses,)` and
            `(controls, doses)`.
        units: of each control, the random units in place of the edited ones.
        images: how many.
    """

    doses: tuple[float, ...]
    values: Numbers
    random: Numbers
    same: Numbers
    random_same: Numbers
    units: tuple[tuple[int, ...], ...]
    images: int


@torch.no_grad()
def dose_response(
    site: SteeringSite, edits: Sequence[LatentEdit], peaks: Maxima, images: Images, progress: Progress = None
) -> DoseResponse:
    """Effects of the edits at doses from 0 to 2, and of steps as long along the directions of random units.

    An activation x that the edits turn into y becomes x + t (y - x). Conditions do not change. Random units are
    sampled from the active ones.

    Raises:
        SAEError: edits that cannot be applied, or no other unit that is active.
    """
    units = random_units(edits, peaks)
    own = steered(site.vision, site.basis, list(edits), maxima=peaks)
    functions: list[Function] = [own, *(EqualStep.of_latents(own, row) for row in units)]
    scaled = [_share(function, t) for function in functions for t in DOSES[1:]]
    totals: list[Any] = [0.0] * (len(scaled) + 1)
    same = np.zeros(len(scaled) + 1)
    count = 0
    for scores in _locked(
        site.model, site.vision.predictions(images, [None, *scaled], batch_size=4, progress=progress)
    ):
        first = scores[0].argmax(dim=1)
        count += len(first)
        for i, logits in enumerate(scores):
            totals[i] = totals[i] + logits.double().softmax(dim=1).sum(dim=0).cpu().numpy()
            same[i] += int((logits.argmax(dim=1) == first).sum())
    rows = np.stack(totals) / count
    ways = len(functions)
    shaped = rows[1:].reshape(ways, len(DOSES) - 1, -1)
    curves = np.concatenate([np.broadcast_to(rows[0], (ways, 1, rows.shape[1])), shaped], axis=1)
    same_shares = np.concatenate([np.ones((ways, 1)), same[1:].reshape(ways, -1) / count], axis=1)
    replacements = tuple(tuple(row.values()) for row in units)
    return DoseResponse(DOSES, curves[0], curves[1:], same_shares[0], same_shares[1:], replacements, count)


def _locked(model: Model, predictions: Iterator[tuple[list[Tensor], Tensor | None]]) -> Iterator[list[Tensor]]:
    """Predictions, each batch under the model's lock; between batches other threads may take it."""
    while True:
        with model.lock:
            batch = next(predictions, None)
        if batch is None:
            return
        yield batch[0]


def _share(function: Function, t: float) -> Function:
    return lambda acts: acts + t * (function(acts) - acts)


def recipe(site: SteeringSite, edits: Sequence[LatentEdit], peaks: Maxima) -> str:
    """The edits as the JSON that `sae.steering.Steering.parse` reads."""
    return steered(site.vision, site.basis, list(edits), maxima=peaks).steering.json()
