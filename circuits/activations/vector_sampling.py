"""Activation vectors at random positions of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.activations.whitening import Moments, Whitening
from circuits.errors import CircuitsError
from circuits.network.hooks import stream
from circuits.network.model import Model
from zoo.images.sources import open_images
from zoo.progress import Progress


@dataclass(frozen=True, eq=False)
class Samples:
    """What `sample_activations` drew.

    Attributes:
        layer: name of the layer.
        acts: `(n, C)` float32, none of them zero.
        images: `(n,)` which picture each is of; positions: `(n, 2)` row and column on the layer's map.
        silent: how many more were drawn that say nothing: all channels zero.
        whitening: of all positions of all pictures.
        ids: names of the pictures; digest: which they were.
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
    """Activation vectors of a layer at random positions of pictures, in one pass.

    Args:
        model: the model.
        layer: a layer.
        images: pictures in any form that `capture` takes.
        per_image: positions of each picture, drawn without replacement; fewer where the map has fewer.
        margin: rows and columns along the border that are left out where the map is large enough: what is said
            there is of the padding too.
        shrinkage: of the whitening.
        seed: of the draw; what is drawn of a picture depends on its place in `images` and on nothing else.
        batch_size: pictures per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        AddressError: an unknown layer. ImageError: no readable pictures. CircuitsError: no position says anything.

    >>> sample_activations(load("scenes"), "mixed4a", "scenes:4", per_image=2).positions.shape
    (8, 2)
    """
    if isinstance(per_image, bool) or not isinstance(per_image, int) or per_image < 1 or margin < 0:
        raise CircuitsError(f"per_image is a whole number from 1 and margin from 0, not {per_image!r}, {margin!r}")
    found, pictures = model.layer(layer), open_images(images)
    moments = Moments(found.channels)
    acts_, images_, places_ = [], [], []
    silent = 0
    for indices, seen in stream(model, pictures, [found.name], batch_size=batch_size, progress=progress):
        acts = seen[found.name]
        moments.add(acts)
        for i, index in enumerate(indices):
            rows = _places((acts.shape[2], acts.shape[3]), per_image, margin, (seed, index))
            drawn = acts[i, :, rows[:, 0], rows[:, 1]].T.float().cpu().numpy()
            speaks = drawn.any(axis=1)
            silent += int((~speaks).sum())
            acts_.append(drawn[speaks])
            places_.append(rows[speaks])
            images_.append(np.full(int(speaks.sum()), index))
    if not any(len(rows) for rows in acts_):
        raise CircuitsError(
            f"{model.name}/{found.name} says nothing at any of the {silent} positions drawn from {pictures.name}"
        )
    return Samples(
        layer=found.name,
        acts=np.concatenate(acts_),
        images=np.concatenate(images_).astype(np.int64),
        positions=np.concatenate(places_),
        silent=silent,
        whitening=moments.whitening(found.name, shrinkage=shrinkage, images=pictures.digest),
        ids=tuple(pictures.ids),
        digest=pictures.digest,
    )


def _places(size: tuple[int, int], count: int, margin: int, seed: tuple[int, int]) -> NDArray[np.int64]:
    """`(n, 2)` different positions of a map, off its border where there is an inside."""
    edge = [margin if side > 2 * margin else 0 for side in size]
    height, width = (side - 2 * e for side, e in zip(size, edge, strict=True))
    chosen = np.random.default_rng(seed).permutation(height * width)[:count]
    return np.stack([chosen // width + edge[0], chosen % width + edge[1]], axis=1)
