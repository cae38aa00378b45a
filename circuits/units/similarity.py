"""Similar units: by incoming or outgoing weights, by activations, by tuning.

One matrix of similarities serves a whole layer; the neighbors of a unit are then a row of it, read in
microseconds. Beside every list of neighbors stands what pairs of units of the same layer reach by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.attribution.expanded_weights import expanded_weights
from circuits.common.provenance import provenance
from circuits.errors import AddressError, CircuitsError, shorten
from circuits.network.address import Unit
from circuits.network.hooks import read
from circuits.network.layer import Layer
from circuits.network.model import Model
from zoo.common.results import Result
from zoo.images.sources import open_images
from zoo.progress import Progress

Array: TypeAlias = NDArray[np.float32]
By = Literal["incoming", "outgoing", "activations"]

_PERCENTILE = 99.0
_PAIRS = 200_000  # for the null: all pairs of up to 632 units, else so many sampled at random


@dataclass(frozen=True)
class Neighbors(Result):
    """The units most similar to one unit.

    Attributes:
        unit: address; measure: how similarity is measured.
        rows: `(address, similarity)`, most similar first; similarity in [-1, 1].
        chance: the 99th percentile of the similarity of two units of the layer sampled at random: a neighbor
            above it is closer than 99 of 100 pairs.
        count: units that it was compared with.
        silent: whether the unit has nothing to compare (no weights, or the same response everywhere); all
            its similarities are then 0.
    """

    unit: str
    measure: str
    rows: tuple[tuple[str, float], ...]
    chance: float
    count: int
    silent: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        rows = [{"unit": unit, "likeness": value, "above_chance": value > self.chance} for unit, value in self.rows]
        return super().describe() | {"rows": rows}

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each neighbor."""
        return [{"unit": u, "similarity": v, "above_chance": v > self.chance} for u, v in self.rows]


@dataclass(frozen=True, eq=False)
class UnitSimilarity(Result):
    """Similarity of all units of a layer.

    Attributes:
        units: addresses; measure: how similarity is measured.
        matrix: `(units, units)` in [-1, 1]; rows and columns of silent units are 0.
        chance: 99th percentile over random pairs of different units.
    """

    units: tuple[str, ...]
    measure: str
    matrix: Array
    chance: float
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: a unit, and its similarity to each."""
        names = [unit.rpartition("/")[2] for unit in self.units]
        return [
            {"unit": u, **dict(zip(names, row, strict=True))}
            for u, row in zip(names, self.matrix.tolist(), strict=True)
        ]

    def index(self, unit: str | Unit | int) -> int:
        """The row of a unit, by address (with or without the model's name) or by its index.

        Raises:
            AddressError: it is not among these units.
        """
        if isinstance(unit, int):
            if 0 <= unit < len(self.units):
                return unit
            raise AddressError(f"there are {len(self.units)} units here (0 to {len(self.units) - 1}), not {unit}")
        address = str(unit)
        for i, name in enumerate(self.units):
            if address == name or name.endswith(f"/{address}"):
                return i
        raise AddressError(
            f"{shorten(address)} is not among the {len(self.units)} units compared ({self.units[0]}, ...)"
        )

    def neighbors(self, unit: str | Unit | int, n: int = 10) -> Neighbors:
        """The `n` units most similar to one; never itself.

        Raises:
            AddressError: the unit is not here. CircuitsError: `n` below 1.
        """
        if n < 1:
            raise CircuitsError(f"n={n}: ask for at least one neighbor")
        i = self.index(unit)
        values = self.matrix[i]
        order = np.argsort(-values, kind="stable")
        rows = tuple((self.units[j], float(values[j])) for j in order[order != i][:n])
        silent = not np.any(values)
        return Neighbors(
            self.units[i], self.measure, rows, self.chance, len(self.units) - 1, silent, dict(self.provenance)
        )


def similarity(rows: Any, others: Any = None, *, centered: bool = False) -> Array:
    """Cosines (or correlations) of all rows with all others, in one matrix product.

    Args:
        rows: `(n, ...)` numbers; what follows the first axis is taken as one vector.
        others: `(m, ...)` to compare with; default `rows`.
        centered: take each row's mean off first, which makes a cosine a correlation.

    Returns:
        `(n, m)` in [-1, 1]; 0 where a row is all zero (centered: constant).

    Raises:
        CircuitsError: not finite, or rows of different lengths.

    >>> similarity([[1.0, 0.0], [1.0, 1.0]]).round(3).tolist()
    [[1.0, 0.7070000171661377], [0.7070000171661377, 1.0]]
    """
    a = _directions(rows, centered)
    b = a if others is None else _directions(others, centered)
    if a.shape[1] != b.shape[1]:
        raise CircuitsError(f"rows of {a.shape[1]} numbers cannot be compared with rows of {b.shape[1]}")
    result: Array = np.clip(a @ b.T, -1.0, 1.0)
    return result


def _directions(rows: Any, centered: bool) -> Array:
    values = np.asarray(rows.detach().cpu() if isinstance(rows, torch.Tensor) else rows)
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    if values.ndim < 2 or 0 in values.shape:
        raise CircuitsError(f"similarity takes rows (n, ...) of numbers; got shape {values.shape}")
    flat = values.reshape(len(values), -1)
    if not np.isfinite(flat).all():
        raise CircuitsError("similarity needs finite numbers; some are NaN or infinite")
    size = np.abs(flat).max(axis=1, keepdims=True)
    if centered:
        flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # what rounding leaves of a constant row is no direction
    alive = length > 8 * np.finfo(flat.dtype).eps * size * np.sqrt(flat.shape[1])
    return np.asarray(np.divide(flat, length, out=np.zeros_like(flat), where=alive), dtype=np.float32)


def unit_similarity(
    rows: Any, units: Sequence[str], *, measure: str, centered: bool, seed: int = 0, **origin: Any
) -> UnitSimilarity:
    """A `UnitSimilarity` from one vector per unit.

    Args:
        rows: `(units, ...)`.
        units: their addresses.
        measure: its name; centered: see `similarity`.
        seed: of the random pairs that give `chance`, where there are more than can all be taken.
        origin: goes into the provenance.

    Raises:
        CircuitsError: fewer than two units, or not one address for each.
    """
    if len(units) < 2:
        raise CircuitsError(f"similarity needs at least two units; got {len(units)}")
    if len(rows) != len(units):
        raise CircuitsError(f"{len(units)} addresses for {len(rows)} rows")
    matrix = similarity(rows, centered=centered)
    return UnitSimilarity(tuple(units), measure, matrix, _chance(matrix, seed), provenance(seed=seed, **origin))


def _chance(matrix: Array, seed: int) -> float:
    count = len(matrix)
    if count * (count - 1) // 2 <= _PAIRS:
        values = matrix[np.triu_indices(count, 1)]
    else:
        i, step = np.random.default_rng(seed).integers((0, 1), (count, count), size=(_PAIRS, 2)).T
        values = matrix[i, (i + step) % count]
    return float(np.percentile(values, _PERCENTILE))


def by_weights(
    model: Model, layer: str, *, direction: Literal["incoming", "outgoing"] = "incoming", other: str | None = None
) -> UnitSimilarity:
    """Similarity of the units of a layer: cosine of their incoming (or outgoing) expanded weights.

    Args:
        model: the model.
        layer: a layer, a branch, or an attached basis (`layer~name`).
        direction: "incoming" compares the kernels from the layer before, "outgoing" those into the layer after.
        other: that layer, where the neighboring trunk layer is not meant.

    Raises:
        AddressError: unknown layer. GraphError: no weights lie between the two.
        CircuitsError: there is no layer before or after.

    >>> by_weights(load("scenes"), "mixed4a").neighbors("mixed4a:11", 3).measure
    'incoming weights from mixed3b'
    """
    if direction not in ("incoming", "outgoing"):
        raise CircuitsError(f"direction={direction!r}: use 'incoming' or 'outgoing'")
    names = unit_names(model, layer)
    base = model.resolve(layer).layer
    if direction == "incoming":
        source = other or model.before(base)
        if source is None:
            raise CircuitsError(f"{base} reads the image itself: there is no layer before it to compare weights from")
        kernels = expanded_weights(model, source=source, target=layer).kernels
        measure = f"incoming weights from {source}"
    else:
        target = other or after(model, base)
        if target is None:
            raise CircuitsError(f"{base} is the last layer with a name: there is none after it to compare weights into")
        kernels = expanded_weights(model, source=layer, target=target).kernels.transpose(0, 1)
        measure = f"outgoing weights into {target}"
    return unit_similarity(
        kernels.detach().cpu(), names, measure=measure, centered=False, weights=model.digest, layer=layer
    )


def by_activations(
    model: Model,
    layer: str,
    images: Any,
    *,
    positions: int = 16,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> UnitSimilarity:
    """Similarity of the units of a layer: correlation of their responses at the same positions of images.

    Args:
        model: the model.
        layer: a layer, a branch, or an attached basis (`layer~name`).
        images: images in any form that `capture` takes.
        positions, seed, batch_size, progress: see `sample_responses`.

    Raises:
        AddressError: unknown layer. CircuitsError: fewer than two units or samples.
    """
    dataset = open_images(images)
    values = sample_responses(
        model, dataset, [layer], positions=positions, seed=seed, batch_size=batch_size, progress=progress
    )[layer]
    if len(values) < 2:
        raise CircuitsError("a correlation needs at least two samples: give more images or positions")
    return unit_similarity(
        values.T,
        unit_names(model, layer),
        measure=f"responses at {len(values)} positions of {len(dataset)} images",
        centered=True,
        seed=seed,
        weights=model.digest,
        images=dataset.digest,
        layer=layer,
        positions=positions,
    )


def by_tuning(responses: Any, units: Sequence[str] | None = None) -> UnitSimilarity:
    """Similarity of tuning: correlation of their responses to the same stimuli.

    Args:
        responses: `(units, ...)` one response per stimulus (any number of axes), or a result that has
            `responses` and `units`, as `circuits.tune` gives.
        units: their addresses, where `responses` is an array.

    Raises:
        CircuitsError: no addresses, or not one for each row.
    """
    rows, names = tuned(responses, units)
    return unit_similarity(rows, names, measure="tuning", centered=True)


def tuned(responses: Any, units: Sequence[str] | None = None) -> tuple[Any, tuple[str, ...]]:
    """Responses `(units, stimuli)` and addresses of a tuning result, or of an array and a list of addresses.

    Raises:
        CircuitsError: no addresses, or not one for each row.
    """
    rows = getattr(responses, "responses", responses)
    names = getattr(responses, "units", None) if units is None else units
    rows = np.asarray(rows.detach().cpu() if isinstance(rows, torch.Tensor) else rows)
    if names is None or callable(names):
        raise CircuitsError("name the units of the rows of responses: units=[...]")
    if rows.ndim < 2 or len(names) != len(rows):
        raise CircuitsError(
            f"responses are (units, stimuli...), one row for each of {len(names)} units; got {rows.shape}"
        )
    return rows.reshape(len(rows), -1), tuple(str(name) for name in names)


def neighbors(
    model: Model, unit: str | Unit, *, by: By = "incoming", n: int = 10, images: Any = None, **options: Any
) -> Neighbors:
    """The units of its layer that are most similar to a unit.

    Args:
        model: the model.
        unit: a channel, or a latent of an attached basis.
        by: "incoming" or "outgoing" weights, or "activations" on images.
        n: how many.
        images: images, for "activations".
        options: of `by_weights` or `by_activations`.

    Raises:
        AddressError: no such unit. CircuitsError: another measure, or no images for "activations".

    >>> neighbors(load("scenes"), "mixed4a:11", n=3).rows[0][0].startswith("scenes/mixed4a:")
    True
    """
    address = model.unit(unit)
    layer = address.space
    if by == "activations":
        if images is None:
            raise CircuitsError("neighbors by activations need images: images=...")
        similarity = by_activations(model, layer, images, **options)
    elif by in ("incoming", "outgoing"):
        similarity = by_weights(model, layer, direction=by, **options)
    else:
        raise CircuitsError(f"by={by!r}: use 'incoming', 'outgoing' or 'activations'")
    return similarity.neighbors(str(address.channel), n)


def unit_names(model: Model, layer: str) -> tuple[str, ...]:
    """Addresses of all units of a layer, of a branch (as channels of the whole), or of a basis (`layer~name`)."""
    at = model.resolve(layer)
    if at.index is not None:
        raise AddressError(f"name a layer, not one unit: {replace(at, index=None, at=None).short} for {at.short}")
    if at.basis is not None:
        count = len(model.basis(at.layer, at.basis).read)
    else:
        count = model.layers[at.layer].channels
    return tuple(str(model.resolve(replace(at, index=i))) for i in range(count))


def after(model: Model, layer: str) -> str | None:
    """The first trunk layer that reads `layer` through weights; None at the end of the network."""
    part = model.layers[layer].part
    base = layer if part is None else part[0]
    return next((name for name in model.trunk if model.before(name) == base), None)


def sample_responses(
    model: Model,
    images: Any,
    layers: Sequence[str],
    *,
    positions: int = 16,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> dict[str, Array]:
    """Responses of whole layers at random positions of images: the same positions for every layer and every model.

    A position is a point of the image, drawn from `seed` for each image; a layer is read at the position
    whose receptive field is centered nearest to it.

    Args:
        model: the model.
        images: images in any form that `capture` takes.
        layers: layers, branches or attached bases (`layer~name`), read in one pass.
        positions: positions per image.
        seed: of the positions.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Returns:
        layer, as named in `layers`, -> `(images * positions, units)`, the positions of an image next to each other.

    Raises:
        AddressError: unknown layer. CircuitsError: no layer, or no positions.
    """
    if positions < 1:
        raise CircuitsError(f"positions={positions}: take at least one position per image")
    if not layers:
        raise CircuitsError("name at least one layer to sample")
    dataset = open_images(images)
    points = np.random.default_rng(seed).random((len(dataset), positions, 2))
    spaces = {name: model.resolve(name) for name in layers}
    to_read = [model.layers[layer] for layer in dict.fromkeys(at.layer for at in spaces.values())]
    parts: dict[str, list[Array]] = {name: [] for name in layers}
    with torch.no_grad():
        for indices, batch in dataset.batches(model.input, batch_size=batch_size, progress=progress):
            acts = read(model, batch, to_read)
            rows = {layer.name: _at(acts[layer.name], layer, model, points[indices]) for layer in to_read}
            for name, at in spaces.items():
                values = rows[at.layer]
                if at.basis is not None:
                    values = model.basis(at.layer, at.basis).encode(values)
                parts[name].append(values.float().cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def _at(acts: torch.Tensor, layer: Layer, model: Model, points: NDArray[np.float64]) -> torch.Tensor:
    """Activations `(n, C, h, w)` at positions `(n, p, 2)` of the image in [0, 1] -> `(n * p, C)`."""
    chosen = []
    for axis in range(2):
        count = acts.shape[2 + axis]
        if layer.receptive_field is None:
            cell = np.floor(points[..., axis] * count)
        else:
            field_ = layer.receptive_field
            pixel = points[..., axis] * model.input.hw[axis]
            cell = np.rint((pixel - field_.offset[axis] - field_.size[axis] / 2) / field_.stride[axis])
        chosen.append(torch.from_numpy(np.clip(cell, 0, count - 1).astype(np.int64)).to(acts.device))
    image = torch.arange(len(acts), device=acts.device)[:, None]
    return acts[image, :, chosen[0], chosen[1]].flatten(0, 1)
