"""How strongly latents fire at most: the unit in which they are steered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.network.basis import Basis, basis_digest
from sae.data.activations import opened
from sae.data.site import Site, digest_of
from sae.errors import SAEError
from sae.steering.bases import Dictionary, basis_at, in_parts, size_of
from zoo.progress import Progress


@dataclass(frozen=True, eq=False)
class Maxima:
    """The largest activation of each latent on some inputs.

    Attributes:
        values: `(m,)` over all places of all inputs; at most 0 for one that never fired.
        site: address of where it was measured; dictionary: SHA-256 of what the latents read and write.
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

    def of(self, latent: int) -> float:
        """The maximum of one latent.

        Raises:
            SAEError: there is no such latent, or it never fired: then there is nothing to measure it by.
        """
        if not 0 <= latent < len(self):
            raise SAEError(f"maxima of {len(self)} latents are known; asked for {latent}")
        value = float(self.values[latent])
        if not value > 0:
            raise SAEError(
                f"latent {latent} never fired on {self.inputs.get('count')} inputs, so that its maximum is no unit; "
                "measure it on others, or steer by absolute values"
            )
        return value

    def check(self, site: Site, basis: Basis) -> None:
        """See that they are of a dictionary at a site.

        Raises:
            SAEError: they are of another.
        """
        if len(self) != size_of(basis):
            wrong = f"maxima of {len(self)} latents are given; there are {size_of(basis)} at {site.address}"
        elif self.site != site.address or self.dictionary != basis_digest(basis):
            wrong = f"these maxima are of other latents, at {self.site}"
        else:
            return
        raise SAEError(f"{wrong}: measure them with this basis here")

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "site": self.site, "dictionary": self.dictionary, "inputs": dict(self.inputs),
            "values": self.values.tolist(), "provenance": dict(self.provenance),
        }  # fmt: skip


@torch.no_grad()
def maxima(s: Dictionary, site: Site, inputs: Any, *, batch_size: int = 32, progress: Progress = None) -> Maxima:
    """The largest activation of every latent on inputs, to steer by multiples of it.

    Args:
        s: an SAE or another basis of the site; None for its channels.
        site: a `VisionSite` or `LanguageSite`.
        inputs: pictures or texts.
        batch_size: inputs per forward pass.
        progress: True for a bar, or a function of (done, total) inputs.

    Raises:
        SAEError: a basis of another site, or no activations.

    >>> maxima(s, site, "scenes:100").of(12)  # doctest: +SKIP
    4.1
    """
    basis = basis_at(s, site)
    some = opened(site, inputs)
    found: list[Tensor] = []

    def largest(latents: Tensor) -> None:
        here = latents.amax(dim=0).float().cpu()
        found[:] = [here if not found else torch.maximum(found[0], here)]

    for block in site.blocks(some, batch_size=batch_size, progress=progress):
        in_parts(basis, block.vectors, largest)
    if not found:
        raise SAEError(f"{site.address}: no activations on {len(some)} inputs")
    assert len(found[0]) == size_of(basis)
    return Maxima(
        values=found[0],
        site=site.address,
        dictionary=basis_digest(basis),
        inputs=about_inputs(some),
        provenance=provenance(weights=site.metadata.get("weights_digest")),
    )


def about_inputs(inputs: Any) -> dict[str, Any]:
    """Name, number and digest of inputs."""
    return {"name": getattr(inputs, "name", None), "count": len(inputs), "digest": digest_of(inputs)}
