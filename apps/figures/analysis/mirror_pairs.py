"""Units that are each other's mirror image: one for heads that face left, one for those that face right.

In InceptionV1 two such chains of units are built side by side and joined by units that do not care (Olah et al., *Zoom
In*, Distill 2020, "Pose-invariant dog head detectors"). Photographs are not labeled by where they face, but every
photograph can be mirrored: what a unit answers to a picture, its counterpart answers to the mirrored one.
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
from zoo.progress import Progress

Array = NDArray[np.float64]
_FEWEST = 8


@dataclass(frozen=True, eq=False)
class Mirrors:
    """Strongest responses of a layer's units to pictures and to the same pictures mirrored left to right.

    Attributes:
        layer: of the units; units: addresses.
        plain, mirrored: `(pictures, units)` maximum over positions.
        provenance: digests.
    """

    layer: str
    units: tuple[str, ...]
    plain: Array
    mirrored: Array
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> Array:
        """Share of each unit's response that mirroring leaves, in [0, 1]: sum of the lesser over that of the greater.

        One where a unit does not care, near zero where it answers to one direction alone; NaN where it never fires.
        """
        low = np.minimum(self.plain, self.mirrored).clip(min=0).sum(axis=0)
        high = np.maximum(self.plain, self.mirrored).clip(min=0).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(high > 0, low / high, np.nan)

    @property
    def swapped(self) -> Array:
        """How far two units are mirror images, `(units, units)` in [-1, 1]: 1 perfectly, -1 on the diagonal.

        The correlation of what one prefers of a picture over its mirror image with what the other prefers of the mirror
        image over the picture.
        """
        preference = self.plain - self.mirrored
        # both ways round are there: a picture counts as its mirror image's mirror image, so the mean is zero
        size = np.sqrt(np.square(preference).sum(axis=0))
        scaled = preference / np.where(size > 0, size, 1.0)
        return np.asarray(-(scaled.T @ scaled))

    def pairs(self, n: int = 5, *, among: Any = None) -> list[tuple[int, int, float]]:
        """The `n` best pairs of counterparts: `(unit, unit, score)`, each unit in one pair only, lower index first.

        The score is `swapped` times how much mirroring takes from both units: what does not care has no counterpart.

        Args:
            n: pairs.
            among: indices of units to choose from; by default all.
        """
        chosen = np.arange(len(self.units)) if among is None else np.asarray(list(among), dtype=int)
        lost = np.nan_to_num(1 - self.kept, nan=0.0)[chosen]
        score = self.swapped[np.ix_(chosen, chosen)] * np.sqrt(lost[:, None] * lost[None, :])
        np.fill_diagonal(score, -np.inf)
        found: list[tuple[int, int, float]] = []
        while len(found) < n and len(chosen) > 1:
            i, j = divmod(int(score.argmax()), len(chosen))
            value = float(score[i, j])
            if not value > 0:
                break
            first, second = sorted((int(chosen[i]), int(chosen[j])))
            found.append((first, second, value))
            score[[i, j]] = score[:, [i, j]] = -np.inf
        return found


def mirrors(model: Model, layer: str, images: Any, *, batch_size: int = 16, progress: Progress = None) -> Mirrors:
    """Show pictures and their mirror images, and keep what every unit of a layer says to both.

    Args:
        model: the model.
        layer: a layer with positions.
        images: pictures in any form that `capture` takes; at least 8.
        batch_size: pictures per forward pass, each shown twice.
        progress: True for a bar, or a function of (done, total).

    Raises:
        AddressError: an unknown layer, or a unit. CircuitsError: a layer without positions, or too few pictures.

    >>> mirrors(load("scenes"), "mixed4a", "scenes:8").kept.shape
    (48,)
    """
    at = model.resolve(layer)
    if at.index is not None or at.basis is not None:
        raise AddressError(f"mirrors are looked for in a layer; got {at.short}")
    where = model.layers[at.layer]
    if where.size is None:
        raise CircuitsError(f"{at.layer} has no positions")
    pictures = open_images(images)
    if len(pictures) < _FEWEST:
        raise CircuitsError(f"mirrors need at least {_FEWEST} pictures; got {len(pictures)}")
    plain, mirrored = [], []
    with torch.no_grad():
        for _, batch in pictures.batches(model.input, batch_size=batch_size, progress=progress):
            both = torch.cat([batch, batch.flip(-1)]).to(model.device)
            peaks = read(model, both, [where])[where.name].amax(dim=(2, 3)).double().cpu().numpy()
            plain.append(peaks[: len(batch)])
            mirrored.append(peaks[len(batch) :])
    return Mirrors(
        layer=where.name,
        units=tuple(str(model.resolve(f"{where.name}:{i}")) for i in range(where.channels)),
        plain=np.concatenate(plain),
        mirrored=np.concatenate(mirrored),
        provenance=provenance(weights=model.digest, images=pictures.name, images_digest=pictures.digest),
    )
