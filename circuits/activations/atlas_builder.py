"""Making an activation atlas: sample, lay out, average over cells, draw; see `circuits.activations.atlas`."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from circuits.activations import atlas_store
from circuits.activations.atlas import Atlas, Cell
from circuits.activations.direction_icons import direction_icons
from circuits.activations.layout import (
    Likeness,
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
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

TOP = 6
"""Units, classes and examples kept of each cell."""
_BATCH = 16
_PAIRS = 20_000
_TRIED = 12


def activation_atlas(
    model: Model,
    layer: str,
    images: Any,
    *,
    grid: int = 12,
    per_image: int = 4,
    margin: int = 1,
    least: int = 4,
    steps: int = 128,
    size: int = 64,
    render: int | None = None,
    whiten: bool = True,
    shrinkage: float = 0.3,
    cossim_pow: float = 2.0,
    perplexity: float = 30.0,
    classes: int | None = None,
    controls: bool = True,
    batch_size: int | None = None,
    store: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress = None,
    **options: Any,
) -> Atlas:
    """What a layer can say, on a map.

    Args:
        model: the model.
        layer: a layer, or `layer~basis` to have a basis's latents as the units of cells.
        images: pictures in any form that `capture` takes; the more, the finer a grid they fill.
        grid: cells a side.
        per_image: positions sampled of each picture.
        margin: rows and columns along the border of the map that are not sampled.
        least: cells with fewer samples are left empty.
        steps: of the optimization of icons. The published atlases took 512; 128 show most of it.
        size: pixels of an icon; render: pixels that it is optimized at, by default a quarter more: taken down to
            `size` it loses the finest noise.
        whiten: show what tells a cell from all others (see `circuits.activations.whitening`),
            as the published atlases do.
        shrinkage: of the whitening; from 0.01 to 0.3 icons of GoogLeNet differ little.
        cossim_pow: power of the cosine that the inner product is multiplied with: how much an icon is to be like
            its direction, and nothing else. The published atlases took 4, at one neuron; here the mean over all
            positions of the icon is raised, which at these sizes gives clearer pictures.
        perplexity: of t-SNE.
        classes: pictures on which to try which classes each cell pushes, 0 for none; by default 12 where the model
            names its classes.
        controls: also lay out shuffled data, for `Atlas.likeness`.
        batch_size: icons at once.
        store: a folder to write the atlas into, batch by batch. The same call again goes on where it was stopped,
            and gives the same atlas to the bit; `load_atlas` reads it.
        seed: of everything random.
        progress: True for a bar, or a function of (done, total): of pictures, then of cells (their classes), then of
            steps (their icons).
        **options: of `visualize`: transforms, params, rate, redirect, precision.

    Raises:
        AddressError: an unknown layer. ImageError: no readable pictures. CircuitsError: too few samples for a layout
        or for any cell, or a store with another atlas in it.

    >>> activation_atlas(load("scenes"), "mixed3b", "scenes:20", grid=3, steps=2).directions.shape[1]
    48
    """
    unit = model.resolve(layer)
    if unit.index is not None or unit.at is not None:
        raise CircuitsError(f"an atlas is of a layer, for example {unit.layer}; {unit.short} is one of its units")
    pixels = max(1, round(1.25 * size)) if render is None else render
    _check(
        grid=grid,
        least=least,
        steps=steps,
        size=size,
        render=pixels,
        batch_size=1 if batch_size is None else batch_size,
    )
    pictures = open_images(images)
    tried = (_TRIED if model.classes else 0) if classes is None else classes
    if isinstance(tried, bool) or not isinstance(tried, int) or tried < 0:
        raise CircuitsError(f"classes is a number of pictures from 0, not {classes!r}")
    settings = _plain(
        {
            "layer": unit.short, "weights": model.digest, "images": pictures.digest, "grid": grid,
            "per_image": per_image, "margin": margin, "least": least, "steps": steps, "size": size,
            "render": pixels, "whiten": whiten,
            "shrinkage": shrinkage, "cossim_pow": cossim_pow, "perplexity": perplexity, "classes": tried,
            "controls": controls, "batch_size": batch_size or _BATCH, "seed": seed, "options": options,
            "basis": None if unit.basis is None else _digest(model.basis(unit.layer, unit.basis).read),
        }
    )  # fmt: skip
    folder = None if store is None else Path(store)
    atlas = None if folder is None else atlas_store.reopened(folder, settings)
    if atlas is None:
        drawn = sample_activations(
            model, unit.layer, pictures, per_image=per_image, margin=margin, shrinkage=shrinkage,
            seed=seed, progress=progress,
        )  # fmt: skip
        atlas = _laid_out(model, unit, drawn, settings, pictures, progress)
        if folder is not None:
            atlas_store.begin(folder, atlas)
    return _drawn(model, atlas, folder, progress, options)


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise CircuitsError(f"{name} is a whole number from 1, not {number!r}")


def _laid_out(
    model: Model, unit: Unit, drawn: Samples, settings: Mapping[str, Any], pictures: Images, progress: Progress
) -> Atlas:
    """The atlas without its icons."""
    grid, seed = int(settings["grid"]), int(settings["seed"])
    xy = square_layout(drawn.acts, perplexity=settings["perplexity"], seed=seed)
    numbers = cell_numbers(xy, grid)
    counts = np.bincount(numbers, minlength=grid * grid)
    kept = np.flatnonzero(counts >= settings["least"])
    if len(kept) == 0:
        raise CircuitsError(
            f"no cell of the {grid}x{grid} grid holds {settings['least']} of {len(xy)} samples: give more pictures, "
            "more samples of each (per_image), a coarser grid, or a smaller least"
        )
    directions = means_by(numbers, drawn.acts, kept)
    pushed = None
    if settings["classes"]:
        pushed = _pushed(model, unit.layer, directions, pictures, settings, progress)
    scores = _unit_scores(model, unit, drawn.acts, numbers, kept)
    cells = []
    for i, cell in enumerate(kept.tolist()):
        cells.append(
            Cell(
                row=cell // grid,
                column=cell % grid,
                count=int(counts[cell]),
                examples=_examples(model, unit.layer, drawn, np.flatnonzero(numbers == cell), directions[i]),
                units=tuple(
                    (str(replace(unit, index=int(c))), float(scores[i, c]))
                    for c in np.argsort(-scores[i], kind="stable")[:TOP]
                    if scores[i, c] > 0
                ),
                labels=() if pushed is None else _labels(model, pushed[i]),
            )
        )
    shape = (model.input.channels, settings["size"], settings["size"])
    return Atlas(
        model=model.name,
        layer=unit.short,
        grid=grid,
        xy=xy,
        images=drawn.images,
        positions=drawn.positions,
        numbers=numbers,
        cells=tuple(cells),
        directions=(means := torch.from_numpy(directions)),
        drawn=drawn.whitening.directions(means) if settings["whiten"] else F.normalize(means, dim=1),
        icons=torch.zeros(len(cells), *shape),
        statuses=("missing",) * len(cells),
        likeness=_likeness(drawn, xy, kept, directions, pushed, settings, pictures.labels),
        settings=settings,
        provenance=provenance(
            weights=model.digest, images=pictures.name, images_digest=drawn.digest, n_images=len(drawn.ids),
            silent_samples=drawn.silent, seed=seed, device=model.device.type,
        ),
    )  # fmt: skip


def _unit_scores(
    model: Model, unit: Unit, acts: NDArray[np.float32], numbers: NDArray[np.int64], kept: NDArray[np.int64]
) -> NDArray[np.float32]:
    """`(cells, units)` means of the units in cells, in standard deviations from their means over all samples."""
    values = acts
    if unit.basis is not None:
        with torch.no_grad():
            values = model.basis(unit.layer, unit.basis).encode(torch.from_numpy(acts)).float().cpu().numpy()
    spread = values.std(axis=0)
    found = (means_by(numbers, values, kept) - values.mean(axis=0)) / np.where(spread > 0, spread, np.inf)
    return np.asarray(found, dtype=np.float32)


def _pushed(
    model: Model, layer: str, directions: NDArray[np.float32], pictures: Images, settings: Mapping[str, Any],
    progress: Progress,
) -> NDArray[np.float32]:  # fmt: skip
    """`(cells, classes)` what each direction adds to class scores on some of the pictures, about the mean of all."""
    chosen = np.random.default_rng(settings["seed"]).permutation(len(pictures))[: settings["classes"]]
    scores = ClassScores(model, layer)
    acts, context = scores.begin(pictures.tensor(model.input, sorted(chosen.tolist())))
    with reporter(progress, "cell") as report:
        found = scores.pushes(acts, context, torch.from_numpy(directions), report).numpy()
    return np.asarray(found - found.mean(axis=0))


def _labels(model: Model, pushed: NDArray[np.float32]) -> tuple[tuple[str, float], ...]:
    best = np.argsort(-pushed, kind="stable")[:TOP]
    return tuple((class_name(model, k), float(pushed[k])) for k in best.tolist())


def _examples(
    model: Model, layer: str, drawn: Samples, rows: NDArray[np.int64], direction: NDArray[np.float32]
) -> tuple[Example, ...]:
    """Samples of different pictures, those first that point most where their cell does."""
    acts = drawn.acts[rows].astype(np.float64)
    cosine = acts @ direction / np.maximum(np.linalg.norm(acts, axis=1) * np.linalg.norm(direction), 1e-30)
    size, where = model.input.hw, model.layer(layer).receptive_field
    found: dict[int, Example] = {}
    for k in np.argsort(-cosine, kind="stable").tolist():
        image = int(drawn.images[rows[k]])
        if image not in found and len(found) < TOP:
            y, x = (int(v) for v in drawn.positions[rows[k]])
            box = (0, 0, *size) if where is None else where.box(y, x, within=size)
            found[image] = Example(image, drawn.ids[image], (y, x), float(cosine[k]), box)
    return tuple(found.values())


# -- how alike neighbors are -----------------------------------------------------------------------------------


def _likeness(
    drawn: Samples, xy: NDArray[np.float32], kept: NDArray[np.int64], directions: NDArray[np.float32],
    pushed: NDArray[np.float32] | None, settings: Mapping[str, Any],
    labels: Sequence[int] | None,
) -> tuple[Likeness, ...]:  # fmt: skip
    grid, seed = int(settings["grid"]), int(settings["seed"])
    generator = np.random.default_rng(seed)
    near, any_two = nearest_from_another(xy, drawn.images), random_pairs(drawn.images, _PAIRS, generator)
    beside, any_cells = side_by_side(kept, grid), random_pairs(kept, _PAIRS, generator)
    noise = None
    if settings["controls"]:
        noise = _of_noise(drawn, settings, generator)
    found = [
        _compared("samples", drawn.acts, near, any_two, None if noise is None else noise[0]),
        _compared("cells", directions, beside, any_cells, None if noise is None else noise[1]),
    ]
    if pushed is not None:
        found.append(_compared("classes", pushed, beside, any_cells, None))
    if labels is not None:
        own = np.asarray(labels)[drawn.images]
        found.append(Likeness("labels", _same(own, near), _same(own, any_two), None, len(near)))
    return tuple(one for one in found if math.isfinite(one.neighbors) and math.isfinite(one.random))


def _same(labels: NDArray[np.int64], pairs: NDArray[np.int64]) -> float:
    return float((labels[pairs[:, 0]] == labels[pairs[:, 1]]).mean()) if len(pairs) else math.nan


def _compared(
    what: str, vectors: NDArray[np.float32], near: NDArray[np.int64], any_two: NDArray[np.int64], noise: float | None
) -> Likeness:
    shuffled = None if noise is None or not math.isfinite(noise) else noise
    return Likeness(what, mean_cosine(vectors, near), mean_cosine(vectors, any_two), shuffled, len(near))


def _of_noise(drawn: Samples, settings: Mapping[str, Any], generator: np.random.Generator) -> tuple[float, float]:
    """What the layout makes of the same channels without what they share: likeness of its samples and cells."""
    acts = shuffled_channels(drawn.acts, generator)
    keep = acts.any(axis=1)
    acts, owners = acts[keep], drawn.images[keep]
    xy = square_layout(acts, perplexity=settings["perplexity"], seed=settings["seed"])
    numbers = cell_numbers(xy, settings["grid"])
    kept = np.flatnonzero(np.bincount(numbers, minlength=settings["grid"] ** 2) >= settings["least"])
    directions = means_by(numbers, acts, kept)
    beside = side_by_side(kept, settings["grid"])
    return mean_cosine(acts, nearest_from_another(xy, owners)), mean_cosine(directions, beside)


# -- icons ------------------------------------------------------------------------------------------------------


def _drawn(model: Model, atlas: Atlas, folder: Path | None, progress: Progress, options: Mapping[str, Any]) -> Atlas:
    """The atlas with the icons that are missing."""
    settings = atlas.settings
    most, steps = int(settings["batch_size"]), int(settings["steps"])
    starts = list(range(0, len(atlas.cells), most))
    icons, statuses = atlas.icons.clone(), list(atlas.statuses)
    with reporter(progress, "step") as report:
        for number, start in enumerate(starts):
            chosen = slice(start, start + most)
            if "missing" not in statuses[chosen]:
                continue

            def tick(step: int, _total: int, number: int = number) -> None:
                report(number * steps + step, len(starts) * steps)

            made = direction_icons(
                model, Unit.parse(atlas.layer).layer, atlas.drawn[chosen], steps=steps, size=settings["render"],
                cossim_pow=settings["cossim_pow"], batch_size=most, seed=settings["seed"], progress=tick, **options,
            )  # fmt: skip
            whole = torch.stack([v.image[: model.input.channels] for v in made])
            icons[chosen] = F.interpolate(whole, icons.shape[2:], mode="bilinear", antialias=True).clamp(0, 1)
            statuses[chosen] = [v.status for v in made]
            if folder is not None:
                atlas_store.write_icons(folder, number, icons[chosen], statuses[chosen])
        report(len(starts) * steps, len(starts) * steps)
    return replace(atlas, icons=icons, statuses=tuple(statuses))


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON holds them, equal for equal ones."""
    found: dict[str, Any] = json.loads(json.dumps(settings, default=_named))
    return found


def _named(value: Any) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        return repr(value)
    # a function, or an object of the user's, by its name: an address in memory would differ from run to run
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()
