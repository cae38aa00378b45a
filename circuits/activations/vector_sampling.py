"""Activation vectors at random positions of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.activations.whitening import Moments, Whitening
from circuits.errors import CircuitsError
from circuits.network.hooks import stream
from circuits.network.model import Model
from zoo.common.checks import whole_number
from zoo.images.sources import open_images
from zoo.progress import Progress


@dataclass(frozen=True, eq=False)
class Samples:
    """Activation vectors, as `sample_activations` returns them.

    Attributes:
        layer: name of the layer.
        acts: `(n, C)` float32, none of them zero.
        images: `(n,)` index of each vector's image; positions: `(n, 2)` row and column on the layer's map.
        silent: how many more were sampled at which all channels are zero.
        whitening: of all positions of all images.
        ids: names of the images; digest: of the set of images.
    """

    layer: str
    acts: NDArray[np.float32]
    images: NDArray[np.int64]
    positions: NDArray[np.int64]
    silent: int
    whitening: Whitening
    ids: tuple[str, ...]
    digest: str


def sample_activations(
    model: Model,
    layer: str,
    images: Any,
    *,
    per_image: int = 4,
    margin: int = 1,
    shrinkage: float = 0.3,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> Samples:
    """Activation vectors of a layer at random positions of images, in one pass.

    Args:
        model: the model.
        layer: a layer.
        images: images in any form that `capture` takes.
        per_image: positions of each image, sampled without replacement; fewer where the map has fewer.
        margin: rows and columns along the border that are left out where the map is large enough, as activations
            there depend on the padding too.
        shrinkage: of the whitening.
        seed: of the sampling; the positions of an image depend on its index in `images` and on nothing else.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        AddressError: an unknown layer. ImageError: no readable images. CircuitsError: all sampled vectors are zero.

    >>> sample_activations(load("scenes"), "mixed4a", "scenes:4", per_image=2).positions.shape
    (8, 2)
    """
    whole_number("per_image", per_image)
    whole_number("margin", margin, least=0)
    site, source = model.layer(layer), open_images(images)
    moments = Moments(site.channels)
    vectors, indices_, positions = [], [], []
    silent = 0
    for indices, batch in stream(model, source, [site.name], batch_size=batch_size, progress=progress):
        acts = batch[site.name]
        moments.add(acts)
        for i, index in enumerate(indices):
            sampled = _positions((acts.shape[2], acts.shape[3]), per_image, margin, (seed, index))
            rows = acts[i, :, sampled[:, 0], sampled[:, 1]].T.float().cpu().numpy()
            active = rows.any(axis=1)
            silent += int((~active).sum())
            vectors.append(rows[active])
            positions.append(sampled[active])
            indices_.append(np.full(int(active.sum()), index))
    if not any(len(rows) for rows in vectors):
        raise CircuitsError(
            f"{model.name}/{site.name} is zero at all of the {silent} positions sampled from {source.name}"
        )
    return Samples(
        layer=site.name,
        acts=np.concatenate(vectors),
        images=np.concatenate(indices_).astype(np.int64),
        positions=np.concatenate(positions),
        silent=silent,
        whitening=moments.whitening(site.name, shrinkage=shrinkage, images=source.digest),
        ids=tuple(source.ids),
        digest=source.digest,
    )


def _positions(size: tuple[int, int], count: int, margin: int, seed: tuple[int, int]) -> NDArray[np.int64]:
    """`(n, 2)` different positions of a map, off its border where there is an inside."""
    edge = [margin if side > 2 * margin else 0 for side in size]
    height, width = (side - 2 * e for side, e in zip(size, edge, strict=True))
    flat = np.random.default_rng(seed).permutation(height * width)[:count]
    return np.stack([flat // width + edge[0], flat % width + edge[1]], axis=1)
