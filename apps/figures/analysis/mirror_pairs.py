"""Units that are each other's mirror image: one for heads that face left, one for those that face right.

In InceptionV1 two such chains of units run in parallel and are joined by invariant units (Olah et al., *Zoom
In*, Distill 2020, "Pose-invariant dog head detectors"). Photographs are not labeled by where they face, but every
photograph can be mirrored: the response of a unit to an image is that of its counterpart to the mirrored image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.common.provenance import provenance
from circuits.errors import AddressError, CircuitsError
from circuits.network.hooks import read
from circuits.network.model import Model
from zoo.images.sources import open_images

Array = NDArray[np.float64]
_FEWEST = 8


@dataclass(frozen=True, eq=False)
class Mirrors:
    """Peak responses of a layer's units to images and to the same images mirrored left to right.

    Attributes:
        layer: of the units; units: addresses.
        plain, mirrored: `(images, units)` maximum over positions.
        provenance: digests.
    """

    layer: str
    units: tuple[str, ...]
    plain: Array
    mirrored: Array
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def retained(self) -> Array:
        """Share of each unit's response that mirroring retains, in [0, 1]: sum of the lower over that of the higher.

        One for an invariant unit, near zero for a unit of one direction, NaN for a unit that is never active.
        """
        low = np.minimum(self.plain, self.mirrored).clip(min=0).sum(axis=0)
        high = np.maximum(self.plain, self.mirrored).clip(min=0).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(high > 0, low / high, np.nan)

    @property
    def swapped(self) -> Array:
        """How far two units are mirror images, `(units, units)` in [-1, 1]: 1 perfectly, -1 on the diagonal.

        The correlation of one unit's preference for an image over its mirror image with the other unit's preference for
        the mirror image.
        """
        preference = self.plain - self.mirrored
        # each image counts as the mirror image of its mirror image, too, so the mean is zero
        size = np.sqrt(np.square(preference).sum(axis=0))
        scaled = preference / np.where(size > 0, size, 1.0)
        return np.asarray(-(scaled.T @ scaled))

    def pairs(self, n: int = 5, *, among: Any = None) -> list[tuple[int, int, float]]:
        """The `n` best pairs of counterparts: `(unit, unit, score)`, each unit in one pair only, lower index first.

        The score is `swapped` times the share that both units lose by mirroring: an invariant unit has no counterpart.

        Args:
            n: pairs.
            among: indices of units to choose from; by default all.
        """
        chosen = np.arange(len(self.units)) if among is None else np.asarray(list(among), dtype=int)
        lost = np.nan_to_num(1 - self.retained, nan=0.0)[chosen]
        score = self.swapped[np.ix_(chosen, chosen)] * np.sqrt(lost[:, None] * lost[None, :])
        np.fill_diagonal(score, -np.inf)
        pairs: list[tuple[int, int, float]] = []
        while len(pairs) < n and len(chosen) > 1:
            i, j = divmod(int(score.argmax()), len(chosen))
            value = float(score[i, j])
            if not value > 0:
                break
            first, second = sorted((int(chosen[i]), int(chosen[j])))
            pairs.append((first, second, value))
            score[[i, j]] = score[:, [i, j]] = -np.inf
        return pairs


def mirrors(model: Model, layer: str, images: Any) -> Mirrors:
    """Peak responses of every unit of a layer to images and to their mirror images.

    Args:
        model: the model.
        layer: a layer with positions.
        images: in any form that `capture` takes; at least 8.

    Raises:
        AddressError: an unknown layer, or a unit. CircuitsError: a layer without positions, or too few images.

    >>> mirrors(load("scenes"), "mixed4a", "scenes:8").retained.shape
    (48,)
    """
    at = model.resolve(layer)
    if at.index is not None or at.basis is not None:
        raise AddressError(f"mirrored units are searched in a layer; got {at.short}")
    layer_info = model.layers[at.layer]
    if layer_info.size is None:
        raise CircuitsError(f"{at.layer} has no positions")
    images = open_images(images)
    if len(images) < _FEWEST:
        raise CircuitsError(f"mirrors need at least {_FEWEST} images; got {len(images)}")
    plain, mirrored = [], []
    with torch.no_grad():
        for _, batch in images.batches(model.input, batch_size=16):
            both = torch.cat([batch, batch.flip(-1)]).to(model.device)
            peaks = read(model, both, [layer_info])[layer_info.name].amax(dim=(2, 3)).double().cpu().numpy()
            plain.append(peaks[: len(batch)])
            mirrored.append(peaks[len(batch) :])
    return Mirrors(
        layer=layer_info.name,
        units=tuple(str(model.resolve(f"{layer_info.name}:{i}")) for i in range(layer_info.channels)),
        plain=np.concatenate(plain),
        mirrored=np.concatenate(mirrored),
        provenance=provenance(weights=model.digest, images=images.name, images_digest=images.digest),
    )
