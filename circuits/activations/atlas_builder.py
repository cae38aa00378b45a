"""Computing an activation atlas: sample, lay out, average over cells, visualize; see `circuits.activations.atlas`."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from circuits.activations import atlas_store
from circuits.activations.atlas import Atlas, AtlasSettings, Cell, atlas_settings
from circuits.activations.direction_icons import direction_icons
from circuits.activations.layout import (
    NeighborSimilarity,
    cell_numbers,
    mean_cosine,
    means_by,
    nearest_from_another,
    random_pairs,
    shuffled_channels,
    side_by_side,
    square_layout,
)
from circuits.activations.vector_sampling import Samples, sample_activations
from circuits.attribution.class_scores import ClassScores, class_name
from circuits.common.examples import Example
from circuits.common.provenance import provenance
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from zoo.common.autograd import outside_inference_mode
from zoo.common.results import remembers
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

TOP = 6
"""Units, classes and examples listed for each cell."""
_BATCH = 16
_PAIRS = 20_000
_CLASS_IMAGES = 12


@remembers("model", "images")
@outside_inference_mode
def activation_atlas(
    model: Model,
    layer: str,
    images: Any,
    *,
    settings: AtlasSettings | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: Progress = None,
    **options: Any,
) -> Atlas:
    """A map of the activation vectors of a layer.

    Args:
        model: the model.
        layer: a layer, or `layer~basis` to have a basis's latents as the units of cells.
        images: images in any form that `capture` takes; the more, the finer a grid they fill.
        settings: how to compute it.
        store: a folder to write the atlas into, batch by batch. The same call again resumes where it was stopped, and
            gives the same atlas to the bit; `load_atlas` reads it.
        progress: True for a bar, or a function of (done, total): of images, then of cells (their classes), then of
            steps (their icons).
        **options: fields of `AtlasSettings`: grid, per_image, margin, least, steps, size, render, whiten, shrinkage,
            cossim_pow, perplexity, classes, controls, batch_size, seed; and of `visualize`, for the icons: transforms,
            params, rate, redirect, precision.

    Raises:
        AddressError: an unknown layer. ImageError: no readable images. CircuitsError: an unknown option, or one out of
        range; too few samples for a layout or for any cell; or a store with another atlas in it.

    >>> activation_atlas(load("scenes"), "mixed3b", "scenes:20", grid=3, steps=2).directions.shape[1]
    48
    """
    model.check_images("an atlas")
    settings = atlas_settings(settings, options)
    unit = model.resolve(layer)
    if unit.index is not None or unit.at is not None:
        raise CircuitsError(f"an atlas is of a layer, for example {unit.layer}; {unit.short} is one of its units")
    source = open_images(images)
    settings = _resolved(model, settings)
    stored = _stored(model, unit, source, settings)
    folder = None if store is None else Path(store)
    atlas = None if folder is None else atlas_store.reopened(folder, stored)
    if atlas is None:
        samples = sample_activations(
            model, unit.layer, source, per_image=settings.per_image, margin=settings.margin,
            shrinkage=settings.shrinkage, seed=settings.seed, progress=progress,
        )  # fmt: skip
        atlas = replace(_laid_out(model, unit, samples, settings, source, progress), settings=stored)
        if folder is not None:
            atlas_store.begin(folder, atlas)
    return _with_icons(model, atlas, settings, folder, progress)


def _resolved(model: Model, settings: AtlasSettings) -> AtlasSettings:
    """The settings with their defaults worked out."""
    classes = _CLASS_IMAGES if model.classes else 0
    pixels = min(model.input.hw) if model.one_size else max(1, round(1.25 * settings.size))
    return replace(
        settings,
        render=pixels if settings.render is None else settings.render,
        classes=classes if settings.classes is None else settings.classes,
        batch_size=settings.batch_size or _BATCH,
    )


def _stored(model: Model, unit: Unit, images: Images, settings: AtlasSettings) -> dict[str, Any]:
    """What must be the same for a store to be resumed, as JSON holds it."""
    basis = None if unit.basis is None else _digest(model.basis(unit.layer, unit.basis).read)
    document = {
        "layer": unit.short,
        "weights": model.digest,
        "images": images.digest,
        **{f.name: getattr(settings, f.name) for f in fields(settings) if f.name != "icons"},
        "options": dict(settings.icons),
        "basis": basis,
    }
    plain: dict[str, Any] = json.loads(json.dumps(document, default=_label))
    return plain


def _label(value: Any) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        return repr(value)
    # a function, or an object of the user's, by its name: an address in memory would differ from run to run
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()


def _laid_out(
    model: Model, unit: Unit, samples: Samples, settings: AtlasSettings, images: Images, progress: Progress
) -> Atlas:
    """The atlas without its icons."""
    grid = settings.grid
    xy = square_layout(samples.acts, perplexity=settings.perplexity, seed=settings.seed)
    numbers = cell_numbers(xy, grid)
    counts = np.bincount(numbers, minlength=grid * grid)
    filled = np.flatnonzero(counts >= settings.least)
    if len(filled) == 0:
        raise CircuitsError(
            f"no cell of the {grid}x{grid} grid holds {settings.least} of {len(xy)} samples: give more images, "
            "more samples of each (per_image), a coarser grid, or a smaller least"
        )
    means = means_by(numbers, samples.acts, filled)
    directions = torch.from_numpy(means)
    effects = _class_effects(model, unit.layer, directions, images, settings, progress) if settings.classes else None
    scores = _unit_scores(model, unit, samples.acts, numbers, filled)
    cells = tuple(
        Cell(
            row=cell // grid,
            column=cell % grid,
            count=int(counts[cell]),
            examples=_examples(model, unit.layer, samples, np.flatnonzero(numbers == cell), means[i]),
            units=tuple(
                (str(replace(unit, index=int(c))), float(scores[i, c]))
                for c in np.argsort(-scores[i], kind="stable")[:TOP]
                if scores[i, c] > 0
            ),
            labels=() if effects is None else _labels(model, effects[i]),
        )
        for i, cell in enumerate(filled.tolist())
    )
    return Atlas(
        model=model.name,
        layer=unit.short,
        grid=grid,
        xy=xy,
        images=samples.images,
        positions=samples.positions,
        numbers=numbers,
        cells=cells,
        directions=directions,
        icon_directions=samples.whitening.directions(directions) if settings.whiten else F.normalize(directions, dim=1),
        icons=torch.zeros(len(cells), model.input.channels, settings.size, settings.size),
        statuses=("missing",) * len(cells),
        similarity=_similarity(samples, xy, filled, means, effects, settings, images.labels),
        settings={},
        provenance=provenance(
            weights=model.digest, images=images.name, images_digest=samples.digest, n_images=len(samples.ids),
            silent_samples=samples.silent, seed=settings.seed, device=model.device.type,
        ),
    )  # fmt: skip


def _unit_scores(
    model: Model, unit: Unit, acts: NDArray[np.float32], numbers: NDArray[np.int64], cells: NDArray[np.int64]
) -> NDArray[np.float32]:
    """`(cells, units)` means of the units in cells, in standard deviations from their means over all samples."""
    values = acts
    if unit.basis is not None:
        with torch.no_grad():
            values = model.basis(unit.layer, unit.basis).encode(torch.from_numpy(acts)).float().cpu().numpy()
    spread = values.std(axis=0)
    scores = (means_by(numbers, values, cells) - values.mean(axis=0)) / np.where(spread > 0, spread, np.inf)
    return np.asarray(scores, dtype=np.float32)


def _class_effects(
    model: Model, layer: str, directions: Tensor, images: Images, settings: AtlasSettings, progress: Progress
) -> NDArray[np.float32]:
    """`(cells, classes)` what each direction adds to class scores on some of the images, less the mean of all cells."""
    sample = np.random.default_rng(settings.seed).permutation(len(images))[: settings.classes]
    scores = ClassScores(model, layer)
    acts, context = scores.begin(images.tensor(model.input, sorted(sample.tolist())))
    with reporter(progress, "cell") as report:
        effects = scores.pushes(acts, context, directions, report).numpy()
    return np.asarray(effects - effects.mean(axis=0))


def _labels(model: Model, effects: NDArray[np.float32]) -> tuple[tuple[str, float], ...]:
    best = np.argsort(-effects, kind="stable")[:TOP]
    return tuple((class_name(model, k), float(effects[k])) for k in best.tolist())


def _examples(
    model: Model, layer: str, samples: Samples, rows: NDArray[np.int64], direction: NDArray[np.float32]
) -> tuple[Example, ...]:
    """Samples of different images, in the order of their cosine with the cell's direction."""
    acts = samples.acts[rows].astype(np.float64)
    cosine = acts @ direction / np.maximum(np.linalg.norm(acts, axis=1) * np.linalg.norm(direction), 1e-30)
    size, field = model.input.hw, model.layer(layer).receptive_field
    examples: dict[int, Example] = {}
    for k in np.argsort(-cosine, kind="stable").tolist():
        image = int(samples.images[rows[k]])
        if image not in examples and len(examples) < TOP:
            y, x = (int(v) for v in samples.positions[rows[k]])
            box = (0, 0, *size) if field is None else field.box(y, x, within=size)
            examples[image] = Example(image, samples.ids[image], (y, x), float(cosine[k]), box)
    return tuple(examples.values())


# -- similarity of neighbors --------------------------------------------------------------------------------------


def _similarity(
    samples: Samples, xy: NDArray[np.float32], cells: NDArray[np.int64], directions: NDArray[np.float32],
    effects: NDArray[np.float32] | None, settings: AtlasSettings, labels: Sequence[int] | None,
) -> tuple[NeighborSimilarity, ...]:  # fmt: skip
    generator = np.random.default_rng(settings.seed)
    near, random = nearest_from_another(xy, samples.images), random_pairs(samples.images, _PAIRS, generator)
    adjacent, random_cells = side_by_side(cells, settings.grid), random_pairs(cells, _PAIRS, generator)
    shuffled = _of_shuffled(samples, settings, generator) if settings.controls else (None, None)
    rows = [
        _compared("samples", samples.acts, near, random, shuffled[0]),
        _compared("cells", directions, adjacent, random_cells, shuffled[1]),
    ]
    if effects is not None:
        rows.append(_compared("classes", effects, adjacent, random_cells, None))
    if labels is not None:
        own = np.asarray(labels)[samples.images]
        rows.append(NeighborSimilarity("labels", _same(own, near), _same(own, random), None, len(near)))
    return tuple(row for row in rows if math.isfinite(row.neighbors) and math.isfinite(row.random))


def _same(labels: NDArray[np.int64], pairs: NDArray[np.int64]) -> float:
    pairs = pairs[(labels[pairs] >= 0).all(axis=1)]  # -1: an image without a class
    return float((labels[pairs[:, 0]] == labels[pairs[:, 1]]).mean()) if len(pairs) else math.nan


def _compared(
    quantity: str,
    vectors: NDArray[np.float32],
    near: NDArray[np.int64],
    random: NDArray[np.int64],
    shuffled: float | None,
) -> NeighborSimilarity:
    control = None if shuffled is None or not math.isfinite(shuffled) else shuffled
    return NeighborSimilarity(quantity, mean_cosine(vectors, near), mean_cosine(vectors, random), control, len(near))


def _of_shuffled(samples: Samples, settings: AtlasSettings, generator: np.random.Generator) -> tuple[float, float]:
    """The control: similarity of neighboring samples and cells when channels are shuffled before the layout."""
    acts = shuffled_channels(samples.acts, generator)
    nonzero = acts.any(axis=1)
    acts, owners = acts[nonzero], samples.images[nonzero]
    xy = square_layout(acts, perplexity=settings.perplexity, seed=settings.seed)
    numbers = cell_numbers(xy, settings.grid)
    cells = np.flatnonzero(np.bincount(numbers, minlength=settings.grid**2) >= settings.least)
    directions = means_by(numbers, acts, cells)
    adjacent = side_by_side(cells, settings.grid)
    return mean_cosine(acts, nearest_from_another(xy, owners)), mean_cosine(directions, adjacent)


# -- icons --------------------------------------------------------------------------------------------------------


def _with_icons(model: Model, atlas: Atlas, settings: AtlasSettings, folder: Path | None, progress: Progress) -> Atlas:
    """The atlas with the icons that are missing."""
    most, steps = settings.batch_size or _BATCH, settings.steps
    starts = list(range(0, len(atlas.cells), most))
    icons, statuses = atlas.icons.clone(), list(atlas.statuses)
    with reporter(progress, "step") as report:
        for number, start in enumerate(starts):
            batch = slice(start, start + most)
            if "missing" not in statuses[batch]:
                continue

            def tick(step: int, _total: int, number: int = number) -> None:
                report(number * steps + step, len(starts) * steps)

            results = direction_icons(
                model, Unit.parse(atlas.layer).layer, atlas.icon_directions[batch], steps=steps, size=settings.render,
                cossim_pow=settings.cossim_pow, batch_size=most, seed=settings.seed, progress=tick, **settings.icons,
            )  # fmt: skip
            images = torch.stack([v.image[: model.input.channels] for v in results])
            icons[batch] = F.interpolate(images, icons.shape[2:], mode="bilinear", antialias=True).clamp(0, 1)
            statuses[batch] = [v.status for v in results]
            if folder is not None:
                atlas_store.write_icons(folder, number, icons[batch], statuses[batch])
        report(len(starts) * steps, len(starts) * steps)
    return replace(atlas, icons=icons, statuses=tuple(statuses))
