"""Universality: which unit of one network is which unit of another.

Units that are active at the same positions of the same images do the same work (Li et al., Convergent Learning, 2015,
arXiv:1511.07543; Schubert et al., High-Low Frequency Detectors, Distill 2021, for the claim). Every match stands
beside the best match that an untrained network of the same shape offers, and that other images offer: those are the
largest of as many correlations, so that they owe as much to the choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.common.provenance import provenance
from circuits.common.untrained import untrained
from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.units.similarity import Array, sample_responses, similarity, tuned, unit_names
from zoo.common.results import HIDDEN, Result
from zoo.images.sources import open_images
from zoo.progress import Progress

RANDOM, SHUFFLED = "random weights", "shuffled images"


@dataclass(frozen=True)
class Match(Result):
    """A unit of the first network and the most similar one of the second.

    Attributes:
        unit, other: addresses.
        correlation: of their responses, in [-1, 1].
        mutual: whether the first is also the best match of the second.
        chance: name of a control -> the best correlation that this unit finds there.
    """

    unit: str
    other: str
    correlation: float
    mutual: bool
    chance: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Matches(Result):
    """Units of one network matched with units of another.

    Attributes:
        first, second: what was compared, for people.
        units, others: addresses.
        correlations: `(units, others)`; 0 for units that do not vary.
        pairs: the match of each unit that varies, closest first.
        assignment: whether every unit was given another partner (the assignment problem), not each its best.
        controls: name -> `(units,)` best correlation of each unit in the control (with assignment: under it).
        samples: responses that each correlation stands on.
        mutual_by_chance: name of a control -> units that have a mutual best match there.
    """

    first: str
    second: str
    units: tuple[str, ...] = field(metadata=HIDDEN)
    others: tuple[str, ...] = field(metadata=HIDDEN)
    correlations: Array = field(metadata=HIDDEN)
    pairs: tuple[Match, ...]
    assignment: bool
    controls: Mapping[str, Array] = field(metadata=HIDDEN)
    samples: int
    mutual_by_chance: Mapping[str, int] = field(default_factory=dict, metadata=HIDDEN)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each pair, beside the best correlations in the controls."""
        return [{**pair.scalars(), **pair.chance} for pair in self.pairs]

    @property
    def mutual(self) -> tuple[Match, ...]:
        """Pairs that are each other's best match."""
        return tuple(pair for pair in self.pairs if pair.mutual)

    def of(self, unit: str) -> Match:
        """The match of a unit, by address (with or without the model's name).

        Raises:
            CircuitsError: it has none, because it is not here or does not vary.
        """
        for pair in self.pairs:
            if unit == pair.unit or pair.unit.endswith(f"/{unit}"):
                return pair
        raise CircuitsError(f"{unit} has no match: it is no unit of {self.first}, or never varies on these images")

    def summary(self) -> dict[str, Any]:
        """Median correlation and mutual pairs, here and in each control, and how many pairs beat their own control."""
        correlations = [pair.correlation for pair in self.pairs]
        chance = {
            name: {
                "median": float(np.median(values)) if len(values) else 0.0,
                "best": float(values.max(initial=0.0)),
                "beaten": sum(pair.correlation > pair.chance[name] for pair in self.pairs),
                "mutual": self.mutual_by_chance.get(name, 0),
            }
            for name, values in self.controls.items()
        }
        return {
            "units": len(self.units),
            "others": len(self.others),
            "matched": len(self.pairs),
            "mutual": len(self.mutual),
            "median": float(np.median(correlations)) if correlations else 0.0,
            "above_half": sum(value > 0.5 for value in correlations),
            "controls": chance,
        }

    def describe(self) -> dict[str, Any]:
        """All but the matrix, ready for JSON."""
        return super().describe() | {"summary": self.summary()}


def match(
    model_a: Model,
    layer_a: str,
    model_b: Model,
    layer_b: str | Sequence[str],
    *,
    images: Any,
    positions: int = 16,
    assignment: bool = False,
    controls: bool = True,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> Matches:
    """For each unit of a layer, the unit of another network that is active when it is.

    Both networks see the same images, each with its own preprocessing, and are read at the same random positions
    (see `sample_responses`); units are matched by the correlation of what is read.

    Args:
        model_a, layer_a: a layer, a branch, or an attached basis (`layer~name`) of the first network.
        model_b, layer_b: the same of the second; several layers are searched together.
        images: images in any form that `capture` takes.
        positions: positions per image.
        assignment: give each unit a partner of its own (Hungarian method) instead of its best.
        controls: compare also with an untrained copy of the second network, and with its responses to other
            images. Costs a further pass.
        seed: of the positions, the untrained weights and the shuffling.
        batch_size, progress: of the passes.

    Raises:
        AddressError: unknown layer. CircuitsError: no layer, fewer than two images.

    >>> net = load("scenes")
    >>> match(net, "mixed4a", net, "mixed4a", images="scenes:4").summary()["mutual"] > 0
    True
    """
    dataset = open_images(images)
    if len(dataset) < 2:
        raise CircuitsError(f"matching needs at least two images; {dataset.name} has {len(dataset)}")
    layers = [layer_b] if isinstance(layer_b, str) else list(layer_b)
    if not layers:
        raise CircuitsError("name at least one layer of the second network")
    options: dict[str, Any] = {"positions": positions, "seed": seed, "batch_size": batch_size, "progress": progress}
    a = sample_responses(model_a, dataset, [layer_a], **options)[layer_a]
    b = _side_by_side(sample_responses(model_b, dataset, layers, **options), layers)
    chance: dict[str, Array] = {}
    if controls:
        blank = sample_responses(untrained(model_b, seed=seed), dataset, layers, **options)
        chance[RANDOM] = _side_by_side(blank, layers)
        chance[SHUFFLED] = _other_images(b, len(dataset), seed)
    origin = provenance(
        weights=model_a.digest, other_weights=model_b.digest, images=dataset.digest, positions=positions, seed=seed
    )
    return match_responses(
        a,
        b,
        units=unit_names(model_a, layer_a),
        others=[name for layer in layers for name in unit_names(model_b, layer)],
        first=f"{model_a.name}/{layer_a}",
        second=f"{model_b.name}/{', '.join(layers)}",
        assignment=assignment,
        controls=chance,
        origin=origin,
    )


def match_tuning(a: Any, b: Any, *, assignment: bool = False, shuffles: int = 1, seed: int = 0) -> Matches:
    """Match units of two networks by their responses to the same synthetic stimuli.

    The control pairs each stimulus of the first with another of the second.

    Args:
        a, b: results with `responses` `(units, stimuli...)` and `units`, as `circuits.tune` gives, of the same
            stimuli; or pairs `(responses, addresses)`.
        assignment: see `match`.
        shuffles: 0 leaves the control out; seed: of it.

    Raises:
        CircuitsError: other stimuli, or no addresses.
    """
    (rows_a, units), (rows_b, others) = (tuned(*x) if isinstance(x, tuple) else tuned(x) for x in (a, b))
    if rows_a.shape[1] != rows_b.shape[1]:
        raise CircuitsError(f"tuning to {rows_a.shape[1]} and to {rows_b.shape[1]} stimuli: tune both to the same ones")
    order = np.random.default_rng(seed).permutation(rows_b.shape[1])
    controls = {"shuffled stimuli": rows_b[:, order].T} if shuffles else {}
    return match_responses(
        rows_a.T, rows_b.T, units=units, others=others, assignment=assignment, controls=controls,
        origin=provenance(seed=seed),
    )  # fmt: skip


def match_responses(
    a: Any,
    b: Any,
    *,
    units: Sequence[str],
    others: Sequence[str],
    first: str = "first",
    second: str = "second",
    assignment: bool = False,
    controls: Mapping[str, Any] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Matches:
    """Match the columns of two tables of responses to the same things.

    Args:
        a: `(samples, units)`; b: `(samples, others)`.
        units, others: addresses.
        first, second: names for people.
        assignment: see `match`.
        controls: name -> `(samples, ...)` responses that should match no better than by chance.
        origin: provenance of the result.

    Raises:
        CircuitsError: tables that do not fit each other or their addresses.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < 2:
        raise CircuitsError(
            f"responses are (samples, units) over the same two or more samples; got {a.shape}, {b.shape}"
        )
    if a.shape[1] != len(units) or b.shape[1] != len(others):
        raise CircuitsError(f"{a.shape[1]} and {b.shape[1]} units, but {len(units)} and {len(others)} addresses")
    correlations = similarity(a.T, b.T, centered=True)
    chosen = _assigned(correlations) if assignment else _best(correlations)
    chance, by_chance = {}, {}
    for name, responses in (controls or {}).items():
        control = similarity(a.T, np.asarray(responses).T, centered=True)
        at = _assigned(control) if assignment else _best(control)
        chance[name] = np.where(at >= 0, control[np.arange(len(control)), at], 0.0).astype(np.float32)
        by_chance[name] = int(_mutual(control).sum())
    mutual = _mutual(correlations)
    pairs = [
        Match(
            units[i],
            others[j],
            float(correlations[i, j]),
            bool(mutual[i] and correlations[i, j] == correlations[i].max()),
            {name: float(values[i]) for name, values in chance.items()},
        )
        for i, j in enumerate(chosen.tolist())
        if j >= 0
    ]
    pairs.sort(key=lambda pair: -pair.correlation)
    return Matches(
        first,
        second,
        tuple(units),
        tuple(others),
        correlations,
        tuple(pairs),
        assignment,
        chance,
        len(a),
        by_chance,
        origin or {},
    )


def _best(correlations: Array) -> NDArray[np.int64]:
    """For each row its best column; -1 for a row of zeros: a unit that never varies has no match."""
    columns = correlations.argmax(axis=1)
    return np.asarray(np.where(np.any(correlations, axis=1), columns, -1))


def _mutual(correlations: Array) -> NDArray[np.bool_]:
    """For each row whether it is the best match of its own best match."""
    there, back = _best(correlations), _best(correlations.T)
    return np.asarray((there >= 0) & (back[there] == np.arange(len(there))))


def _assigned(correlations: Array) -> NDArray[np.int64]:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-correlations.astype(np.float64))
    result = np.full(len(correlations), -1)
    result[rows] = np.where(np.any(correlations, axis=1)[rows] & np.any(correlations, axis=0)[columns], columns, -1)
    return result


def _side_by_side(responses: Mapping[str, Array], layers: Sequence[str]) -> Array:
    return np.concatenate([responses[layer] for layer in layers], axis=1)


def _other_images(responses: Array, count: int, seed: int) -> Array:
    """The same positions read on another image each."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(count)
    source = np.empty(count, dtype=np.int64)
    source[order] = np.roll(order, 1)  # one long cycle: no image stays its own
    return responses.reshape(count, -1, responses.shape[1])[source].reshape(responses.shape)
