"""Evidence for and against an optimized image.

Such images can mislead: a network can be trained to have any visualization for a unit without behaving otherwise
(Geirhos et al., *Don't trust your eyes*, 2024), and people predict a unit better from natural images (Borowski et
al., 2021). So a visualization comes with the unit's activation on it among its activations on natural images, the top
activating images, and a check of the path: whether it reaches the unit through the same channels as they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from circuits.dataset.peak_positions import Peaks, examples, layer_peaks
from circuits.errors import AddressError
from circuits.network.address import Unit
from circuits.network.hooks import read
from circuits.network.model import Model
from circuits.visualization.optimization import untransformed
from circuits.visualization.parametrizations import Size
from circuits.visualization.result import Evidence, Path, Visualization, Visualizations
from zoo.common.results import remembers
from zoo.images.sources import open_images
from zoo.progress import Progress


@remembers("model", "images")
def examine(
    model: Model,
    results: Sequence[Visualization],
    images: Any,
    *,
    top: int = 9,
    batch_size: int = 32,
    progress: Progress = None,
) -> Visualizations:
    """The results with their evidence, from one pass over natural images.

    Args:
        model: the model.
        results: of `visualize`; those of objectives without an address are returned as they are.
        images: whatever `zoo.images.sources.open_images` takes.
        top: how many images count as the unit's top activating ones, at least 2.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        ImageError: no readable images.
    """
    source = open_images(images)
    units = [_unit_of(model, r) for r in results]
    addressed = [u for u in units if u is not None]
    if not addressed:
        return Visualizations(results)
    position = model.layers.position
    own = {u.layer for u in addressed}
    deepest = max(map(position, own))
    path = [n for n in model.trunk if position(n) <= deepest]
    layers = sorted({*path, *own}, key=position)
    peaks = layer_peaks(model, source, layers[::-1], batch_size=batch_size, progress=progress)
    special = {
        u: layer_peaks(model, source, [u.layer], u, batch_size=batch_size, progress=progress)
        for u in dict.fromkeys(addressed)
        if u.basis is not None or u.at is not None
    }

    def examined(result: Visualization, unit: Unit) -> Visualization:
        upto = [n for n in layers if position(n) <= position(unit.layer) and (n in path or n == unit.layer)]
        return replace(result, evidence=_evidence(model, result, unit, special.get(unit, peaks), peaks, upto, top))

    pairs = zip(results, units, strict=True)
    return Visualizations(result if unit is None else examined(result, unit) for result, unit in pairs)


def _unit_of(model: Model, result: Visualization) -> Unit | None:
    try:
        return model.unit(result.unit)
    except AddressError:
        return None


def _evidence(
    model: Model, result: Visualization, unit: Unit, own: Peaks, all_layers: Peaks, layers: list[str], top: int
) -> Evidence:
    peaks = own.strongest(unit, limit=len(own.images), active_only=False)
    values = torch.tensor([p.value for p in peaks])
    best = peaks[: max(2, top)]
    profiles = _profiles(model, result.image, layers, result.input_size)
    indices = [p.image for p in best]
    return Evidence(
        images=own.images.name,
        count=len(peaks),
        percentile=100 * float((values < result.peak).float().mean()),
        strongest=float(values.max()),
        examples=examples(model, unit, own.images, [(p.value, p.image, p.position) for p in best[:top]]),
        path=tuple(_path(n, profiles[n], all_layers.maxima(n), indices) for n in layers),
    )


def _profiles(model: Model, image: Tensor, layers: list[str], size: Size) -> dict[str, Tensor]:
    """Maximum activation of each channel on the image, layer by layer."""
    with torch.no_grad():
        acts = read(model, untransformed(model, image[None], size), [model.layers[n] for n in layers])
    return {n: a.flatten(2).amax(2)[0].cpu() for n, a in acts.items()}


def _path(layer: str, profile: Tensor, maxima: Tensor, top: list[int]) -> Path:
    """Similarity of the image's `profile` `(C,)` to those of the images `top` among `maxima` `(N, C)`."""
    varying = maxima.std(0) > 0
    mean, spread = maxima.mean(0)[varying], maxima.std(0)[varying]

    def directions(rows: Tensor) -> Tensor:
        scores = (rows[:, varying] - mean) / spread
        scores = scores - scores.mean(1, keepdim=True)
        unit: Tensor = scores / scores.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return unit

    best = directions(maxima[top])
    rest = [i for i in range(len(maxima)) if i not in set(top)]
    cosines, k = best @ best.T, len(top)
    natural = float((cosines.sum() - cosines.diagonal().sum()) / (k * (k - 1))) if k > 1 else 1.0
    others = float((directions(maxima[rest]) @ best.T).mean()) if rest else 0.0
    return Path(layer, float((directions(profile[None]) @ best.T).mean()), natural, others)
