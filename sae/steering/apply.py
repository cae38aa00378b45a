"""Edits at work: the function that stands in for a site's activations while something is steered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from circuits.network.basis import Basis, basis_digest
from sae.data.site import ROWS, Block, Site
from sae.errors import SAEError
from sae.steering.bases import Channels, Dictionary, basis_at, check_latent, in_parts
from sae.steering.edits import Edits, Form, LatentEdit, Steering, Unit, When, edits_of
from sae.steering.max_activations import Maxima


@contextmanager
def steer(
    site: Site,
    s: Dictionary,
    edits: Edits | Steering,
    *,
    maxima: Maxima | None = None,
    unit: Unit | None = None,
    form: Form | None = None,
) -> Iterator[Steered]:
    """While open, the network runs with latents turned up or down.

    By default the delta edit: an activation x whose latent is a becomes x + (v - a) W, with W what the latent writes.
    What the dictionary does not explain of x stays, and an empty edit changes nothing, to the bit. Edits are applied
    in order, each to what the one before left; those of different latents do not touch each other, and conditions
    are asked of the activations before any edit. The model is locked meanwhile, so that edits of two threads never
    mix.

    Args:
        site: a `VisionSite` or `LanguageSite`.
        s: an SAE of the site, another basis such as `circuits.network.basis.Directions`, or None for the channels.
        edits: `{latent: value}` to set latents, a list of `LatentEdit`, or a `Steering` read from JSON.
        maxima: what a latent's multiples are of. Needed by edits with unit="max".
        unit: of the values of `{latent: value}`: "absolute" or "max" (default: "max" if maxima are given).
        form: "delta" (default), or "decode": the reconstruction from the edited latents stands in for x at all
            places, and what the dictionary does not explain is lost.

    Raises:
        SAEError: a latent that there is not, an edit that is none, a basis or maxima of another site.

    >>> with steer(site, s, {1021: 3.0}): model(pictures)  # doctest: +SKIP
    """
    function = steered(site, s, edits, maxima=maxima, unit=unit, form=form)
    with site.replaced(function):
        yield function


def steered(
    site: Site,
    s: Dictionary,
    edits: Edits | Steering,
    *,
    maxima: Maxima | None = None,
    unit: Unit | None = None,
    form: Form | None = None,
) -> Steered:
    """The function `(N, *places, d)` to the same that `steer` puts into a site: a way for `Site.predictions`."""
    basis = basis_at(s, site)
    if isinstance(edits, Steering):
        if form is not None or unit is not None or maxima is not None:
            raise SAEError("a Steering says itself what unit, maxima and form it has")
        _check_meant(edits, site, basis)
        return Steered(site, basis, edits)
    listed = edits_of(edits, unit or ("absolute" if maxima is None else "max"))
    if unit is not None and not isinstance(edits, Mapping):
        raise SAEError("unit= is of {latent: value}; a LatentEdit has a unit of its own")
    strengths: dict[int, float] = {}
    if maxima is not None:
        maxima.check(site, basis)
        for latent in sorted({i for one in listed for i in one.measured}):
            check_latent(latent, basis)
            strengths[latent] = maxima.of(latent)
    return Steered(
        site,
        basis,
        Steering(listed, form or "delta", strengths, {} if maxima is None else maxima.inputs, site.address),
    )


def _check_meant(steering: Steering, site: Site, basis: Basis) -> None:
    if steering.site and steering.site != site.address:
        raise SAEError(f"this steering is for {steering.site}, not for {site.address}")
    if steering.dictionary and steering.dictionary != basis_digest(basis):
        raise SAEError(f"this steering is for another dictionary at {site.address}: its latents mean other things")


class Steered:
    """What stands in for activations while steered; made by `steered`.

    Args:
        site: where.
        basis: of its latents.
        steering: the edits; those of latents that there are not raise an SAEError.
        reading: shared by several of them, so that latents are read once of the same activations.
    """

    def __init__(self, site: Site, basis: Basis, steering: Steering, reading: Reading | None = None) -> None:
        self.site, self.basis, self._steering = site, basis, steering
        text = "token" in site.axes
        for one in steering.edits:
            for latent in one.latents:
                check_latent(latent, basis)
            for latent in one.measured:
                steering.strength(latent)
            _check_places(one, site, text)
        if steering.form == "decode" and not hasattr(basis, "decode"):
            raise SAEError(f"{type(basis).__name__} does not reconstruct: steer with form='delta'")
        self.reading = reading or Reading(basis, {i for one in steering.edits for i in one.latents})
        self._block: Block | None = None

    def of(self, block: Block) -> Steered:
        """The same for activations that have been read before: tokens are counted in that block, not as they run."""
        found = Steered(self.site, self.basis, self._steering, self.reading)
        found._block = block
        return found

    @property
    def steering(self) -> Steering:
        """The edits with all that they are told in, to keep as JSON."""
        s = self._steering
        return Steering(s.edits, s.form, s.strengths, s.inputs, self.site.address, basis_digest(self.basis))

    @property
    def edits(self) -> tuple[LatentEdit, ...]:
        """The edits, in the order in which they are applied."""
        return self._steering.edits

    def __call__(self, acts: Tensor) -> Tensor:
        if not self.edits and self._steering.form == "delta":
            return acts
        if self._steering.form == "decode":
            return self._decoded(acts, self._edited(acts))
        return (acts + self.shift(acts) @ self.reading.write(acts)).to(acts.dtype)

    def shift(self, acts: Tensor) -> Tensor:
        """By how much each latent that is looked at is raised, `(N, *places, k)`, in the order of their numbers."""
        return self._edited(acts) - self.reading(acts)

    def _edited(self, acts: Tensor) -> Tensor:
        before = self.reading(acts)
        after = before.clone()
        for one in self.edits:
            column = self.reading.columns[one.latent]
            new = self._value(one, after[..., column])
            where = self._where(one, acts, before)
            after[..., column] = new if where is None else torch.where(where, new, after[..., column])
        return after

    def _value(self, one: LatentEdit, now: Tensor) -> Tensor:
        if one.kind == "ablate":
            return torch.zeros_like(now)
        assert one.value is not None
        if one.kind == "scale":
            return now * one.value
        amount = one.value * (self._steering.strength(one.latent) if one.unit == "max" else 1.0)
        return torch.full_like(now, amount) if one.kind == "set" else now + amount

    def _where(self, one: LatentEdit, acts: Tensor, before: Tensor) -> Tensor | None:
        """Where an edit applies, `(N, *places)`; None for everywhere."""
        where = self._at(one, acts)
        for condition in one.conditions:
            holds = self._holds(condition, before[..., self.reading.columns[condition.latent]])
            where = holds if where is None else where & holds
        return where

    def _holds(self, condition: When, values: Tensor) -> Tensor:
        scale = self._steering.strength(condition.latent) if condition.unit == "max" else 1.0
        holds = torch.ones_like(values, dtype=torch.bool)
        if condition.above is not None:
            holds &= values > condition.above * scale
        if condition.below is not None:
            holds &= values < condition.below * scale
        if condition.anywhere:
            holds = holds.flatten(1).any(dim=1).view(-1, *[1] * (values.ndim - 1)).expand_as(values)
        return holds

    def _at(self, one: LatentEdit, acts: Tensor) -> Tensor | None:
        if one.at == "all":
            return None
        shape = acts.shape[:-1]
        if "token" in self.site.axes:
            return _tokens(self.site, one.at, shape, acts.device, self._block)
        if one.map not in (None, tuple(shape[1:])):
            raise SAEError(f"the mask is {one.map}; the map of {self.site.address} is {tuple(shape[1:])}")
        where = torch.zeros(shape, dtype=torch.bool, device=acts.device)
        for y, x in one.at:
            if y >= shape[1] or x >= shape[2]:
                raise SAEError(f"position {y},{x} is outside the {shape[1]}x{shape[2]} map of {self.site.address}")
            where[:, y, x] = True
        return where

    def _decoded(self, acts: Tensor, after: Tensor) -> Tensor:
        basis: Any = self.basis
        flat = acts.reshape(-1, acts.shape[-1])
        edited = after.reshape(len(flat), after.shape[-1])
        parts: list[Tensor] = []

        def again(latents: Tensor) -> None:
            start = sum(map(len, parts))
            if edited.shape[1]:
                latents = latents.clone()
                latents[:, self.reading.indices] = edited[start : start + len(latents)].to(latents)
            parts.append(basis.decode(latents))

        in_parts(basis, flat, again)
        return torch.cat(parts).to(acts).view_as(acts)


class Reading:
    """Some latents of activations. The last ones read are kept, so that several ways over the same read them once.

    Attributes:
        indices: numbers of the latents, ascending; columns: number -> column.
    """

    def __init__(self, basis: Basis, latents: set[int]) -> None:
        self.basis, self.indices = basis, sorted(latents)
        self.columns = {latent: column for column, latent in enumerate(self.indices)}
        self._kept: tuple[Tensor, int, Tensor] | None = None

    def __call__(self, acts: Tensor) -> Tensor:
        """Latents `(N, *places, k)` of activations `(N, *places, d)`."""
        if self._kept is not None and _same(self._kept[0], self._kept[1], acts):
            return self._kept[2]
        flat = acts.reshape(-1, acts.shape[-1])
        if isinstance(self.basis, Channels):
            found = flat[:, self.indices]
        else:
            device = self.basis.read.device
            parts = [self.basis.encode(part.to(device))[:, self.indices] for part in torch.split(flat, ROWS)]
            found = torch.cat(parts).to(acts.device)
        found = found.view(*acts.shape[:-1], len(self.indices))
        # what gradients flow through is read anew and not held on to; inference tensors do not tell of changes
        if not (acts.requires_grad or acts.is_inference()):
            self._kept = (acts, acts._version, found)
        return found

    def write(self, acts: Tensor) -> Tensor:
        """What these latents write, `(k, d)`, where the activations are."""
        if isinstance(self.basis, Channels):
            return torch.eye(self.basis.d, dtype=acts.dtype, device=acts.device)[self.indices]
        rows = self.basis.write[self.indices].detach().to(acts.device)
        return rows


def _same(kept: Tensor, version: int, acts: Tensor) -> bool:
    """Whether these are the very activations that were read before: since they are held, their memory is theirs."""
    return (
        not acts.is_inference()
        and kept.data_ptr() == acts.data_ptr()
        and kept.shape == acts.shape
        and kept.stride() == acts.stride()
        and kept.dtype == acts.dtype
        and version == acts._version == kept._version
    )


def _check_places(one: LatentEdit, site: Site, text: bool) -> None:
    if text and one.on_map:
        raise SAEError(f"{site.address} is of texts: its places are tokens, at=(0, 5) or 'last', not positions")
    if not text and one.at != "all" and not one.on_map:
        raise SAEError(f"{site.address} is of pictures: its places are positions, at=((y, x),), or a mask")
    if text and any(condition.anywhere for condition in one.conditions):
        # a causal model would be told of tokens to come, and with a cache of none at all
        raise SAEError("of texts a condition holds token by token: leave anywhere=True out")


def _tokens(site: Any, at: Any, shape: tuple[int, ...], device: torch.device, block: Block | None) -> Tensor:
    try:
        start = getattr(site, "position", 0) if block is None else 0
        mask = getattr(site, "mask", None) if block is None else block.mask
    except SAEError as error:
        raise SAEError(
            f"which tokens these are is known only of texts that run through {type(site).__name__}: use its blocks, "
            "predictions, loss or generate; or steer at='all'"
        ) from error
    there = torch.ones(shape, dtype=torch.bool, device=device) if mask is None else mask.to(device)
    count = there.cumsum(dim=1)
    if at == "last":
        return there & (count == count[:, -1:])
    special = len(site.feeding.prefix) if start else 0  # in the first pass they are here, and not counted
    number = count - 1 + start - special
    wanted = torch.tensor(at, device=device)
    return there & torch.isin(number, wanted)
