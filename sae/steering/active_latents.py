"""Which latents are active on an input, and at which positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from sae.checks import whole
from sae.data.activations import opened
from sae.data.site import Site
from sae.errors import SAEError
from sae.steering.bases import Dictionary, address_of, basis_at, in_parts
from sae.steering.max_activations import Maxima, describe_inputs
from zoo.common.results import Result
from zoo.progress import Progress


@dataclass(frozen=True)
class ActiveLatent(Result):
    """A latent that is active on an input.

    Attributes:
        latent, unit: its number and address.
        value: its largest activation there.
        position: of that activation, `(y, x)` or `(token,)`.
        active: number of positions of the input at which it is active.
        share: `value` as a share of its maximum; None without maxima, or with a maximum of 0.
    """

    latent: int
    unit: str
    value: float
    position: tuple[int, ...]
    active: int
    share: float | None = None


@dataclass(frozen=True)
class Inspection(Result):
    """The active latents of each of some inputs.

    Attributes:
        site: address; inputs: their name, number and digest.
        rows: of each input its latents, strongest first.
    """

    site: str
    inputs: Mapping[str, Any]
    rows: tuple[tuple[ActiveLatent, ...], ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """A row for each latent of each input."""
        return [{"input": i, **latent.scalars()} for i, latents in enumerate(self.rows) for latent in latents]


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
    """The latents that are most active on each input, and where.

    Args:
        s: an SAE or another basis of the site; None for its channels.
        site: a `VisionSite` or `LanguageSite`.
        inputs: images or texts.
        top: number of latents of each input.
        at: read one position only, `(y, x)` or `(token,)`.
        maxima: rank by share of each latent's maximum, so that latents that are strong on every input do not come
            first.
        name: what the basis is called in addresses.
        batch_size: inputs per forward pass.
        progress: True for a bar, or a function of (done, total) inputs.

    Raises:
        SAEError: a position outside an input, a basis or maxima of another site.

    >>> inspect(s, site, ["One day Anna walked to the bridge."]).rows[0][0].position  # doctest: +SKIP
    (6,)
    """
    whole("top", top)
    basis, examples = basis_at(s, site), opened(site, inputs)
    scale = None if maxima is None else maxima.values.clamp_min(0)
    rows: list[tuple[ActiveLatent, ...]] = []
    for block in site.blocks(examples, batch_size=batch_size, progress=progress):
        for i, acts in enumerate(block.acts):
            present = torch.ones(acts.shape[:-1], dtype=torch.bool) if block.mask is None else block.mask[i].cpu()
            if at is not None:
                present = present & _only(at, present, len(rows))
            parts: list[Tensor] = []
            in_parts(basis, acts[present.to(acts.device)], lambda part, parts=parts: parts.append(part.cpu()))  # type: ignore[misc]
            rows.append(_strongest(torch.cat(parts), present.nonzero(), s, site, top, scale, name))
    return Inspection(
        site.address, describe_inputs(examples), tuple(rows), provenance(weights=site.metadata.get("weights_digest"))
    )


def _only(at: tuple[int, ...], present: Tensor, number: int) -> Tensor:
    fits = len(at) == present.ndim and all(0 <= index < size for index, size in zip(at, present.shape, strict=False))
    if not fits or not bool(present[tuple(at)]):
        raise SAEError(f"input {number} has no position {at}: its positions are {tuple(present.shape)}")
    only = torch.zeros_like(present)
    only[tuple(at)] = True
    return only


def _strongest(
    latents: Tensor, positions: Tensor, s: Dictionary, site: Site, top: int, scale: Tensor | None, name: str
) -> tuple[ActiveLatent, ...]:
    values, rows = latents.max(dim=0)
    shares = None
    if scale is not None:
        if len(scale) != len(values):
            raise SAEError(f"maxima of {len(scale)} latents for {len(values)}")
        shares = torch.where(scale > 0, values / scale.clamp_min(1e-30), values.sign() * torch.inf)
    order = (values if shares is None else shares).argsort(descending=True, stable=True)[:top].tolist()
    counts = (latents > 0).sum(dim=0)
    return tuple(
        ActiveLatent(
            latent=i,
            unit=address_of(i, s, site, name),
            value=float(values[i]),
            position=tuple(positions[int(rows[i])].tolist()),
            active=int(counts[i]),
            share=float(shares[i]) if shares is not None and bool(shares[i].isfinite()) else None,
        )
        for i in order
        if float(values[i]) > 0
    )
