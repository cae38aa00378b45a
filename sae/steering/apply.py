"""Applying edits: the function that replaces a site's activations while it is steered."""

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
    """While open, the network runs with latents steered.

    By default the delta edit: an activation x with latent activation a becomes x + (v - a) W, where W is the write
    direction of the latent. The part of x that the dictionary does not explain stays, and an empty edit changes
    nothing, to the bit. Edits are applied in order, each to the result of the one before; edits of different latents
    commute. Conditions read the activations before any edit. The model is locked meanwhile, so that edits of two
    threads never mix.

    Args:
        site: a `VisionSite` or `LanguageSite`.
        s: an SAE of the site, another basis such as `circuits.network.basis.Directions`, or None for the channels.
        edits: `{latent: value}` to set latents, a list of `LatentEdit`, or a `Steering` read from JSON.
        maxima: the unit of edits with unit="max".
        unit: of the values of `{latent: value}`: "absolute" or "max" (default: "max" if maxima are given).
        form: "delta" (default), or "decode": the reconstruction from the edited latents replaces x at all positions,
            and the part of x that the dictionary does not explain is lost.

    Raises:
        SAEError: a latent out of range, an edit out of form, a basis or maxima of another site.

    >>> with steer(site, s, {1021: 3.0}): model(images)  # doctest: +SKIP
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
    """The function that `steer` puts into a site, from activations `(N, *positions, d)` to the same shape.

    It is also a variant for `Site.predictions`.
    """
    basis = basis_at(s, site)
    if isinstance(edits, Steering):
        if form is not None or unit is not None or maxima is not None:
            raise SAEError("a Steering has its own unit, maxima and form")
        _check_target(edits, site, basis)
        return Steered(site, basis, edits)
    listed = edits_of(edits, unit or ("absolute" if maxima is None else "max"))
    if unit is not None and not isinstance(edits, Mapping):
        raise SAEError("unit= is of {latent: value}; a LatentEdit has a unit of its own")
    strengths: dict[int, float] = {}
    if maxima is not None:
        maxima.check(site, basis)
        for latent in sorted({i for edit in listed for i in edit.measured}):
            check_latent(latent, basis)
            strengths[latent] = maxima.of(latent)
    return Steered(
        site,
        basis,
        Steering(listed, form or "delta", strengths, {} if maxima is None else maxima.inputs, site.address),
    )


def _check_target(steering: Steering, site: Site, basis: Basis) -> None:
    if steering.site and steering.site != site.address:
        raise SAEError(f"this steering is for {steering.site}, not for {site.address}")
    if steering.dictionary and steering.dictionary != basis_digest(basis):
        raise SAEError(f"this steering is for another dictionary at {site.address}: its latents are not these")


class Steered:
    """The function that replaces activations while steered; see `steered`.

    Args:
        site: of the activations.
        basis: of the latents.
        steering: the edits.
        reading: shared by several of these functions, so that latents of the same activations are read once.

    Raises:
        SAEError: a latent out of range, positions of another kind of site, a maximum that is not known.
    """

    def __init__(self, site: Site, basis: Basis, steering: Steering, reading: LatentReader | None = None) -> None:
        self.site, self.basis, self._steering = site, basis, steering
        text = "token" in site.axes
        for edit in steering.edits:
            for latent in edit.latents:
                check_latent(latent, basis)
            for latent in edit.measured:
                steering.strength(latent)
            _check_positions(edit, site, text)
        if steering.form == "decode" and not hasattr(basis, "decode"):
            raise SAEError(f"{type(basis).__name__} does not reconstruct: steer with form='delta'")
        self.reading = reading or LatentReader(basis, {i for edit in steering.edits for i in edit.latents})
        self._block: Block | None = None

    def of(self, block: Block) -> Steered:
        """The same for activations of a block: tokens are counted in the block, not during a forward pass."""
        bound = Steered(self.site, self.basis, self._steering, self.reading)
        bound._block = block
        return bound

    @property
    def steering(self) -> Steering:
        """The edits with the maxima that are their unit, to save as JSON."""
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
        """Change of each latent that is read, `(N, *positions, k)`, in ascending order of latents."""
        return self._edited(acts) - self.reading(acts)

    def _edited(self, acts: Tensor) -> Tensor:
        before = self.reading(acts)
        after = before.clone()
        for edit in self.edits:
            column = self.reading.columns[edit.latent]
            new = self._value(edit, after[..., column])
            mask = self._mask(edit, acts, before)
            after[..., column] = new if mask is None else torch.where(mask, new, after[..., column])
        return after

    def _value(self, edit: LatentEdit, now: Tensor) -> Tensor:
        if edit.kind == "ablate":
            return torch.zeros_like(now)
        assert edit.value is not None
        if edit.kind == "scale":
            return now * edit.value
        amount = edit.value * (self._steering.strength(edit.latent) if edit.unit == "max" else 1.0)
        return torch.full_like(now, amount) if edit.kind == "set" else now + amount

    def _mask(self, edit: LatentEdit, acts: Tensor, before: Tensor) -> Tensor | None:
        """Where an edit applies, `(N, *positions)`; None for everywhere."""
        mask = self._position_mask(edit, acts)
        for condition in edit.conditions:
            holds = self._holds(condition, before[..., self.reading.columns[condition.latent]])
            mask = holds if mask is None else mask & holds
        return mask

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

    def _position_mask(self, edit: LatentEdit, acts: Tensor) -> Tensor | None:
        if edit.at == "all":
            return None
        shape = acts.shape[:-1]
        if "token" in self.site.axes:
            return _tokens(self.site, edit.at, shape, acts.device, self._block)
        if edit.map not in (None, tuple(shape[1:])):
            raise SAEError(f"the mask is {edit.map}; the map of {self.site.address} is {tuple(shape[1:])}")
        mask = torch.zeros(shape, dtype=torch.bool, device=acts.device)
        for y, x in edit.at:
            if y >= shape[1] or x >= shape[2]:
                raise SAEError(f"position {y},{x} is outside the {shape[1]}x{shape[2]} map of {self.site.address}")
            mask[:, y, x] = True
        return mask

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


class EqualStep:
    """The steps of edits taken along other directions, as long at every position: a control of the same size.

    An edit adds its change of a latent times the latent's write direction; this adds the same change times another
    direction of that length, where and when the edit would.

    Args:
        edit: of `steered`.
        along: `(d,)` of any length, for each latent that it edits.

    >>> control = EqualStep(steered(site, s, {7: 2.0}), {7: torch.randn(site.d)})  # doctest: +SKIP
    >>> with site.replaced(control): model(images)  # doctest: +SKIP
    """

    def __init__(self, edit: Steered, along: Mapping[int, Tensor]) -> None:
        self.edit, self._columns = edit, [edit.reading.columns[latent] for latent in along]
        rows = torch.stack([row.detach() for row in along.values()])
        lengths = edit.reading.write(rows)[self._columns].norm(dim=1, keepdim=True)
        self._steps = rows / rows.norm(dim=1, keepdim=True) * lengths

    @classmethod
    def of_latents(cls, edit: Steered, others: Mapping[int, int]) -> EqualStep:
        """Along the write directions of other latents, one for each latent that is edited."""
        write = edit.basis.write
        return cls(edit, {latent: write[other] for latent, other in others.items()})

    def __call__(self, acts: Tensor) -> Tensor:
        moved: Tensor = acts + self.edit.shift(acts)[..., self._columns] @ self._steps.to(acts)
        return moved.to(acts.dtype)


class LatentReader:
    """Reads some latents of activations, and caches the last: variants over the same activations read them once.

    Attributes:
        indices: of the latents, ascending; columns: index -> column.
    """

    def __init__(self, basis: Basis, latents: set[int]) -> None:
        self.basis, self.indices = basis, sorted(latents)
        self.columns = {latent: column for column, latent in enumerate(self.indices)}
        self._cached: tuple[Tensor, int, Tensor] | None = None

    def __call__(self, acts: Tensor) -> Tensor:
        """Latents `(N, *positions, k)` of activations `(N, *positions, d)`."""
        if self._cached is not None and _unchanged(self._cached[0], self._cached[1], acts):
            return self._cached[2]
        flat = acts.reshape(-1, acts.shape[-1])
        if isinstance(self.basis, Channels):
            latents = flat[:, self.indices]
        else:
            device = self.basis.read.device
            parts = [self.basis.encode(part.to(device))[:, self.indices] for part in torch.split(flat, ROWS)]
            latents = torch.cat(parts).to(acts.device)
        latents = latents.view(*acts.shape[:-1], len(self.indices))
        # a cache would hold the graph of tensors with gradients; inference tensors have no version to compare
        if not (acts.requires_grad or acts.is_inference()):
            self._cached = (acts, acts._version, latents)
        return latents

    def write(self, acts: Tensor) -> Tensor:
        """Write directions `(k, d)` of these latents, on the device of the activations."""
        if isinstance(self.basis, Channels):
            return torch.eye(self.basis.d, dtype=acts.dtype, device=acts.device)[self.indices]
        rows = self.basis.write[self.indices].detach().to(acts.device)
        return rows


def _unchanged(cached: Tensor, version: int, acts: Tensor) -> bool:
    """Whether these are the cached activations: the cache holds their memory, so no other tensor can have it."""
    return (
        not acts.is_inference()
        and cached.data_ptr() == acts.data_ptr()
        and cached.shape == acts.shape
        and cached.stride() == acts.stride()
        and cached.dtype == acts.dtype
        and version == acts._version == cached._version
    )


def _check_positions(edit: LatentEdit, site: Site, text: bool) -> None:
    if text and edit.on_map:
        raise SAEError(f"{site.address} is of texts: its positions are tokens, at=(0, 5) or 'last', not (y, x)")
    if not text and edit.at != "all" and not edit.on_map:
        raise SAEError(f"{site.address} is of images: its positions are (y, x), at=((3, 5),), or a mask")
    if text and any(condition.anywhere for condition in edit.conditions):
        # a causal model would see later tokens, and with a cache of keys and values none at all
        raise SAEError("of texts a condition holds token by token: leave anywhere=True out")


def _tokens(site: Any, at: Any, shape: tuple[int, ...], device: torch.device, block: Block | None) -> Tensor:
    try:
        start = getattr(site, "position", 0) if block is None else 0
        mask = getattr(site, "mask", None) if block is None else block.mask
    except SAEError as error:
        raise SAEError(
            f"tokens have numbers only in texts that run through {type(site).__name__}: use its blocks, "
            "predictions, loss or generate; or steer at='all'"
        ) from error
    present = torch.ones(shape, dtype=torch.bool, device=device) if mask is None else mask.to(device)
    count = present.cumsum(dim=1)
    if at == "last":
        return present & (count == count[:, -1:])
    special = len(site.feeding.prefix) if start else 0  # only the first pass holds them, and they are not counted
    number = count - 1 + start - special
    chosen = torch.tensor(at, device=device)
    return present & torch.isin(number, chosen)
