"""What fires on an input, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from sae.checks import whole
from sae.data.activations import opened
from sae.data.site import Site
from sae.errors import SAEError
from sae.steering.bases import Dictionary, basis_at, in_parts, name_of
from sae.steering.max_activations import Maxima, about_inputs
from zoo.progress import Progress


@dataclass(frozen=True)
class Firing:
    """A latent that fires on an input.

    Attributes:
        latent, unit: which.
        value: its largest activation there; share: of its maximum, where maxima were given and are above 0.
        place: where that is, `(y, x)` or `(token,)`; places: at how many of the input it fires.
    """

    latent: int
    unit: str
    value: float
    place: tuple[int, ...]
    places: int
    share: float | None = None

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Inspection:
    """What fires on each of some inputs.

    Attributes:
        site: address; inputs: which.
        rows: of each input its latents, strongest first.
    """

    site: str
    inputs: Mapping[str, Any]
    rows: tuple[tuple[Firing, ...], ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "site": self.site, "inputs": dict(self.inputs), "provenance": dict(self.provenance),
            "rows": [[one.describe() for one in row] for row in self.rows],
        }  # fmt: skip


def inspect(
    s: Dictionary,
    site: Site,
    inputs: Any,
    *,
    top: int = 10,
    at: tuple[int, ...] | None = None,
    maxima: Maxima | None = None,
    name: str = "sae",
    batch_size: int = 32,
    progress: Progress = None,
) -> Inspection:
    """Which latents fire on inputs, and where most.

    Args:
        s: an SAE or another basis of the site; None for its channels.
        site: a `VisionSite` or `LanguageSite`.
        inputs: pictures or texts.
        top: how many latents of each input.
        at: look at one place only, `(y, x)` or `(token,)`.
        maxima: rank by share of each latent's maximum, so that those that are strong always do not come first.
        name: what the basis is called in addresses.
        batch_size: inputs per forward pass.
        progress: True for a bar, or a function of (done, total) inputs.

    Raises:
        SAEError: a place outside an input, a basis or maxima of another site.

    >>> inspect(s, site, ["One day Anna walked to the bridge."]).rows[0][0].place  # doctest: +SKIP
    (6,)
    """
    whole("top", top)
    basis, some = basis_at(s, site), opened(site, inputs)
    scale = None if maxima is None else maxima.values.clamp_min(0)
    rows: list[tuple[Firing, ...]] = []
    for block in site.blocks(some, batch_size=batch_size, progress=progress):
        for i, acts in enumerate(block.acts):
            there = torch.ones(acts.shape[:-1], dtype=torch.bool) if block.mask is None else block.mask[i].cpu()
            if at is not None:
                there = there & _only(at, there, len(rows))
            found: list[Tensor] = []
            in_parts(basis, acts[there.to(acts.device)], lambda part, found=found: found.append(part.cpu()))  # type: ignore[misc]
            rows.append(_strongest(torch.cat(found), there.nonzero(), s, site, top, scale, name))
    return Inspection(
        site.address, about_inputs(some), tuple(rows), provenance(weights=site.metadata.get("weights_digest"))
    )


def _only(at: tuple[int, ...], there: Tensor, number: int) -> Tensor:
    fits = len(at) == there.ndim and all(0 <= one < size for one, size in zip(at, there.shape, strict=False))
    if not fits or not bool(there[tuple(at)]):
        raise SAEError(f"input {number} has no place {at}: its places are {tuple(there.shape)}")
    only = torch.zeros_like(there)
    only[tuple(at)] = True
    return only


def _strongest(
    latents: Tensor, places: Tensor, s: Dictionary, site: Site, top: int, scale: Tensor | None, name: str
) -> tuple[Firing, ...]:
    values, where = latents.max(dim=0)
    shares = None
    if scale is not None:
        if len(scale) != len(values):
            raise SAEError(f"maxima of {len(scale)} latents for {len(values)}")
        shares = torch.where(scale > 0, values / scale.clamp_min(1e-30), values.sign() * torch.inf)
    order = (values if shares is None else shares).argsort(descending=True, stable=True)[:top].tolist()
    counts = (latents > 0).sum(dim=0)
    return tuple(
        Firing(
            latent=i,
            unit=name_of(i, s, site, name),
            value=float(values[i]),
            place=tuple(places[int(where[i])].tolist()),
            places=int(counts[i]),
            share=float(shares[i]) if shares is not None and bool(shares[i].isfinite()) else None,
        )
        for i in order
        if float(values[i]) > 0
    )
