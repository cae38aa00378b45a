"""The largest activation of each latent: the unit of steering."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.network.basis import Basis, basis_digest
from sae.data.activations import opened
from sae.data.site import Site, digest_of
from sae.errors import SAEError
from sae.seeding import CONTROL, generator
from sae.steering.bases import Dictionary, basis_at, in_parts, size_of
from zoo.common.results import Result
from zoo.progress import Progress


@dataclass(frozen=True, eq=False)
class Maxima(Result):
    """The largest activation of each latent on some inputs.

    Attributes:
        values: `(m,)` over all positions of all inputs; at most 0 for one that is never active.
        site: address of the site; dictionary: SHA-256 of the read and write directions.
        inputs: name, number and digest of the inputs.
        provenance: weights, versions.
    """

    values: Tensor
    site: str
    dictionary: str
    inputs: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def records(self) -> list[dict[str, Any]]:
        """A row for each latent, by its number."""
        return [{"latent": i, "maximum": value} for i, value in enumerate(self.values.tolist())]

    def of(self, latent: int) -> float:
        """The maximum of one latent.

        Raises:
            SAEError: there is no such latent, or it was never active, so that its maximum is no unit.
        """
        if not 0 <= latent < len(self):
            raise SAEError(f"there are maxima of {len(self)} latents, 0 to {len(self) - 1}; latent {latent} is none")
        value = float(self.values[latent])
        if not value > 0:
            raise SAEError(
                f"latent {latent} never fired on {self.inputs.get('count')} inputs, so that its maximum is no unit; "
                "measure it on others, or steer by absolute values"
            )
        return value

    def random_active(self, count: int, *, exclude: Collection[int] = (), seed: int = 0) -> list[int]:
        """Latents that were active, sampled at random without replacement: the control of steering.

        Args:
            count: at most so many, in ascending order.
            exclude: latents that are not sampled.
            seed: of the sample.

        Raises:
            SAEError: no other latent was active.
        """
        active = [i for i in (self.values > 0).nonzero().flatten().tolist() if i not in exclude]
        if not active:
            raise SAEError("no other latent is active on these inputs: there is nothing to compare with")
        order = torch.randperm(len(active), generator=generator(seed, CONTROL))[:count].tolist()
        return sorted(active[i] for i in order)

    def check(self, site: Site, basis: Basis) -> None:
        """Check that these maxima belong to a basis at a site.

        Raises:
            SAEError: they belong to another.
        """
        if len(self) != size_of(basis):
            wrong = f"maxima of {len(self)} latents are given; there are {size_of(basis)} at {site.address}"
        elif self.site != site.address or self.dictionary != basis_digest(basis):
            wrong = f"these maxima are of other latents, at {self.site}"
        else:
            return
        raise SAEError(f"{wrong}: measure them with this basis here")


@torch.no_grad()
def maxima(s: Dictionary, site: Site, inputs: Any, *, batch_size: int = 32, progress: Progress = None) -> Maxima:
    """The largest activation of every latent on inputs, to steer by multiples of it.

    Args:
        s: an SAE or another basis of the site; None for its channels.
        site: a `VisionSite` or `LanguageSite`.
        inputs: images or texts.
        batch_size: inputs per forward pass.
        progress: True for a bar, or a function of (done, total) inputs.

    Raises:
        SAEError: a basis of another site, or no activations.

    >>> maxima(s, site, "scenes:100").of(12)  # doctest: +SKIP
    4.1
    """
    basis = basis_at(s, site)
    inputs = opened(site, inputs)
    largest: list[Tensor] = []
    for block in site.blocks(inputs, batch_size=batch_size, progress=progress):
        in_parts(basis, block.vectors, lambda latents: largest.append(latents.amax(dim=0).float().cpu()))
        largest[:] = [torch.stack(largest).amax(dim=0)]
    if not largest:
        raise SAEError(f"{site.address}: no activations on {len(inputs)} inputs")
    assert len(largest[0]) == size_of(basis)
    return Maxima(
        values=largest[0],
        site=site.address,
        dictionary=basis_digest(basis),
        inputs=describe_inputs(inputs),
        provenance=provenance(weights=site.metadata.get("weights_digest")),
    )


def describe_inputs(inputs: Any) -> dict[str, Any]:
    """Name, number and digest of inputs."""
    return {"name": getattr(inputs, "name", None), "count": len(inputs), "digest": digest_of(inputs)}
