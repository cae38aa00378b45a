"""Interventions: change activations of units and run the rest of the network on them.

`with edit(model, [Ablate("mixed3:4"), Scale("mixed3:9", 2.0)]): ...` applies them to every forward pass
inside, in order; edits nest; an empty list changes nothing, to the bit. An address without a position
edits the channel everywhere, a layer address edits all of its channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from circuits.errors import EditError
from circuits.network.address import Unit
from circuits.network.basis import Basis
from circuits.network.hooks import EditFunction, capture, editing
from circuits.network.model import Model
from circuits.network.subnetwork import channel_pools


@dataclass(frozen=True)
class Edit(ABC):
    """Base of all edits: which unit, and optionally at which positions.

    Attributes:
        unit: address of a layer, a channel, a neuron `@y,x`, or a latent of an attached basis.
        positions: restrict the edit to these `(y, x)`; default everywhere, or the address's own position.
    """

    unit: str | Unit
    positions: tuple[tuple[int, int], ...] | None = field(default=None, kw_only=True)

    @abstractmethod
    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        """New values for the edited part `acts` `(N, c, ...)`; `reference` as `needs_reference` asks."""

    @property
    def needs_reference(self) -> bool:
        """Whether the edit takes its values from activations on reference images."""
        return False

    @property
    def holds_mean(self) -> bool:
        """Whether the unit is held at a mean: after a max pool, then, at the mean of its pooled map."""
        return False

    @property
    def reference_images(self) -> Any:
        """Reference images of its own, instead of those of `edit`."""
        return None


@dataclass(frozen=True)
class Ablate(Edit):
    """Take a unit out: set it to zero, to its mean, or to its activations on other images.

    Attributes:
        to: "zero"; "mean" over the reference images and all positions, and after a max pool over the channel the
            mean of its pooled map; "resample", the activations of reference images sampled at random (position by
            position the same image).
        seed: for "resample".
    """

    to: Literal["zero", "mean", "resample"] = "zero"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.to not in ("zero", "mean", "resample"):
            raise EditError(f"Ablate(to={self.to!r}): use 'zero', 'mean' or 'resample'")

    @property
    def needs_reference(self) -> bool:
        return self.to != "zero"

    @property
    def holds_mean(self) -> bool:
        return self.to == "mean"

    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        if self.to == "zero":
            return torch.zeros_like(acts)
        assert reference is not None
        if self.to == "mean":
            mean = reference.mean(dim=(0, *range(2, reference.ndim)))
            return mean.view(1, -1, *[1] * (acts.ndim - 2)).expand_as(acts).to(acts)
        if reference.shape[2:] != acts.shape[2:]:
            raise EditError(
                f"resampling needs reference maps of size {tuple(acts.shape[2:])}, got {tuple(reference.shape[2:])}"
            )
        chosen = torch.randint(len(reference), (len(acts),), generator=torch.Generator().manual_seed(self.seed))
        return reference[chosen.to(reference.device)].to(acts)


@dataclass(frozen=True)
class Set(Edit):
    """Set a unit to `to`: a number, or a tensor that broadcasts to `(N, channels, H, W)`."""

    to: float | Tensor

    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        values = torch.as_tensor(self.to, dtype=acts.dtype, device=acts.device)
        try:
            return values.expand_as(acts)
        except RuntimeError as error:
            raise EditError(
                f"Set: a value of shape {tuple(values.shape)} does not fit {self.unit}, which is {tuple(acts.shape)}"
            ) from error


@dataclass(frozen=True)
class Scale(Edit):
    """Multiply a unit by `by`: `Scale("mixed3:9", 2.0)`."""

    by: float

    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        return acts * self.by


@dataclass(frozen=True)
class Add(Edit):
    """Add `amount` to a unit: `Add("mixed3:9", 5.0)`."""

    amount: float

    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        return acts + self.amount


@dataclass(frozen=True)
class Clamp(Edit):
    """Keep a unit between `low` and `high` (either may be left out)."""

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise EditError("Clamp needs low=, high= or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise EditError(f"Clamp: low {self.low} is above high {self.high}")

    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        return acts.clamp(self.low, self.high)


@dataclass(frozen=True)
class Project(Edit):
    """Take what a unit writes out of the activations: `x - (x . w / w . w) w`, w the direction that a latent writes.

    Of a channel that is its value, which becomes zero. Unlike `Ablate` of a latent it is linear and does not ask the
    encoder, so it also takes out what other latents write along that direction.
    """

    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        return torch.zeros_like(acts)


@contextmanager
def edit(model: Model, edits: Sequence[Edit], *, reference: Any = None) -> Iterator[Model]:
    """Apply `edits` to every forward pass inside the context, captures and attributions included.

    Args:
        model: the model.
        edits: applied in order; several may address one unit.
        reference: images for `Ablate(to="mean")` and `Ablate(to="resample")`, in any form `capture` takes.

    Raises:
        EditError: not an edit, a position outside the map, or reference images missing.
        AddressError: an unknown unit.

    >>> with edit(load("scenes"), [Ablate("mixed3a:0")]) as edited: ...
    """
    if isinstance(edits, (Edit, str)) or not isinstance(edits, Sequence):
        raise EditError(f"give edits as a list: edit(model, [Ablate(...)]); got {type(edits).__name__}")
    functions = [function for change in edits for function in _functions(model, change, reference)]
    with editing(model, functions):
        yield model


def _functions(model: Model, change: Edit, reference: Any) -> list[tuple[str, EditFunction]]:
    """What an edit does to the layer it names, and to the max pools after it that carry the same channels."""
    if not isinstance(change, Edit):
        raise EditError(f"edits are Ablate, Patch, Project, Set, Scale, Add or Clamp; got {type(change).__name__}")
    unit = model.resolve(change.unit)
    layer = model.layers[unit.layer]
    if layer.part is not None:  # a whole branch: a range of channels of the layer that holds it
        base, start = layer.part
        channels = slice(start, start + layer.channels)
        layer = model.layers[base]
    elif unit.index is None or unit.basis is not None:
        channels = slice(None)
    else:
        channels = slice(unit.index, unit.index + 1)
    positions = change.positions if change.positions is not None else (() if unit.at is None else (unit.at,))
    size = layer.size or (1, 1)
    for p in positions:
        if model.input.dims == 2 and not (len(p) == 2 and 0 <= p[0] < size[0] and 0 <= p[1] < size[1]):
            at = ",".join(map(str, p))
            raise EditError(f"position {at} is outside the {size[0]}x{size[1]} map of {layer.name}")
    positions = tuple(model.position(layer, p) for p in positions)
    whole_channels = unit.basis is None and not positions
    pools = channel_pools(model, layer.name) if change.holds_mean and whole_channels else {}
    own = range(layer.channels)[channels]
    edited = {layer.name: channels}
    edited |= {name: slice(of.start + own.start, of.start + own.stop) for name, of in pools.items()}
    reference_acts: dict[str, Tensor] = {}
    if change.needs_reference:
        reference = change.reference_images if change.reference_images is not None else reference
        if reference is None:
            raise EditError(f"{type(change).__name__} to a mean or resampled value needs edit(..., reference=images)")
        reference_acts = capture(model, reference, list(edited))
    basis = None if unit.basis is None else model.basis(unit.layer, unit.basis)
    return [
        (name, _function(change, unit.index, some, positions, basis, reference_acts.get(name)))
        for name, some in edited.items()
    ]


def _function(
    change: Edit,
    index: int | None,
    channels: slice,
    positions: tuple[tuple[int, int], ...],
    basis: Basis | None,
    reference_acts: Tensor | None,
) -> EditFunction:
    def apply(acts: Tensor) -> Tensor:
        if basis is not None:
            assert index is not None
            encode = _along(basis.write) if isinstance(change, Project) else basis.encode
            new = _edit_latent(acts, encode, basis.write, index, change, reference_acts)
        else:
            part = acts[:, channels]
            reference_part = None if reference_acts is None else reference_acts[:, channels]
            new = acts.clone()
            new[:, channels] = change.value(
                part,
                reference_part.view(len(reference_part), -1)
                if reference_part is not None and part.ndim == 2
                else reference_part,
            )
        if not positions:
            return new
        if acts.ndim == 2:
            return new
        mixed = acts.clone()
        for y, x in positions:
            mixed[:, :, y, x] = new[:, :, y, x]
        return mixed

    return apply


def _along(write: Tensor) -> Callable[[Tensor], Tensor]:
    """From activations `(N, d)` to how much of each direction `(m, d)` is in them, `(N, m)`."""
    return lambda rows: rows.to(write) @ (write / write.square().sum(dim=1, keepdim=True).clamp(min=1e-12)).T


def _edit_latent(
    acts: Tensor, encode: Any, write: Tensor, index: int, change: Edit, reference_acts: Tensor | None
) -> Tensor:
    """The delta edit x + (v - a) write: what the basis does not explain stays as it is."""

    def latent(x: Tensor) -> Tensor:
        rows = x.movedim(1, -1)
        latents: Tensor = encode(rows.reshape(-1, rows.shape[-1]))[:, index]
        return latents.view(rows.shape[:-1]).unsqueeze(1)

    a = latent(acts)
    delta = change.value(a, None if reference_acts is None else latent(reference_acts)) - a
    # in the type of the basis (float32 for an SAE), rounded to that of the network once
    written = delta * write[index].view(1, -1, *[1] * (acts.ndim - 2)).to(delta)
    return acts + written.to(acts.dtype)
