"""What speaks for a picture made by optimization, and what against it.

Such pictures can mislead: a network can be made to show any picture for a unit without behaving otherwise
(Geirhos et al., *Don't trust your eyes*, 2024), and people predict a unit better from photographs (Borowski et
al., 2021). So a picture comes with the unit's response to it among its responses to photographs, the photographs
it answers to most, and a check of the path: whether it reaches the unit through the same channels as they do.
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
from circuits.visualization.result import Evidence, Path, Visualization
from zoo.images.sources import open_images
from zoo.progress import Progress


def examine(
    model: Model,
    results: Sequence[Visualization],
    images: Any,
    *,
    top: int = 9,
    batch_size: int = 32,
    progress: Progress = None,
) -> list[Visualization]:
    """The results with their evidence, from one pass over photographs.

    Args:
        model: the model.
        results: of `visualize`; those of objectives without an address come back as they are.
        images: whatever `zoo.images.sources.open_images` takes.
        top: how many photographs count as the unit's own, at least 2.
        batch_size: photographs per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        ImageError: no readable pictures.
    """
    pictures = open_images(images)
    units = [_unit_of(model, r) for r in results]
    plain = [u for u in units if u is not None]
    if not plain:
        return list(results)
    names = list(model.layers)
    own = {u.layer for u in plain}
    deepest = max(names.index(layer) for layer in own)
    path = [n for n in model.trunk if names.index(n) <= deepest]
    layers = sorted({*path, *own}, key=names.index)
    found = layer_peaks(model, pictures, layers[::-1], batch_size=batch_size, progress=progress)
    special = {
        u: layer_peaks(model, pictures, [u.layer], u, batch_size=batch_size, progress=progress)
        for u in dict.fromkeys(plain)
        if u.basis is not None or u.at is not None
    }
    made = []
    for result, unit in zip(results, units, strict=True):
        if unit is None:
            made.append(result)
            continue
        upto = [n for n in layers if names.index(n) <= names.index(unit.layer) and (n in path or n == unit.layer)]
        evidence = _evidence(model, result, unit, special.get(unit, found), found, upto, top)
        made.append(replace(result, evidence=evidence))
    return made


def _unit_of(model: Model, result: Visualization) -> Unit | None:
    try:
        return model.unit(result.unit)
    except AddressError:
        return None


def _evidence(
    model: Model, result: Visualization, unit: Unit, own: Peaks, all_layers: Peaks, layers: list[str], top: int
) -> Evidence:
    places = own.places(unit, limit=len(own.pictures), active_only=False)
    values = torch.tensor([p.value for p in places])
    best = places[: max(2, top)]
    seen = _profiles(model, result.image, layers, result.input_size)
    chosen = [p.image for p in best]
    return Evidence(
        images=own.pictures.name,
        count=len(places),
        percentile=100 * float((values < result.peak).float().mean()),
        strongest=float(values.max()),
        examples=examples(model, unit, own.pictures, [(p.value, p.image, p.position) for p in best[:top]]),
        path=tuple(_path(n, seen[n], all_layers.maxima(n), chosen) for n in layers),
    )


def _profiles(model: Model, picture: Tensor, layers: list[str], show: tuple[int, int]) -> dict[str, Tensor]:
    from circuits.visualization.optimization import shown_plain

    with torch.no_grad():
        acts = read(model, shown_plain(model, picture[None], show), [model.layers[n] for n in layers])
    return {n: a.flatten(2).amax(2)[0].cpu() for n, a in acts.items()}


def _path(layer: str, picture: Tensor, photographs: Tensor, chosen: list[int]) -> Path:
    varying = photographs.std(0) > 0
    mean, spread = photographs.mean(0)[varying], photographs.std(0)[varying]

    def directions(rows: Tensor) -> Tensor:
        scores = (rows[:, varying] - mean) / spread
        scores = scores - scores.mean(1, keepdim=True)
        unit: Tensor = scores / scores.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return unit

    top = directions(photographs[chosen])
    rest = [i for i in range(len(photographs)) if i not in set(chosen)]
    among = top @ top.T
    k = len(chosen)
    natural = float((among.sum() - among.diagonal().sum()) / (k * (k - 1))) if k > 1 else 1.0
    others = float((directions(photographs[rest]) @ top.T).mean()) if rest else 0.0
    return Path(layer, float((directions(picture[None]) @ top.T).mean()), natural, others)
