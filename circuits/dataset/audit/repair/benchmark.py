"""Repairs on networks whose shortcut was planted: how near they come to a network that never had it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.attribution.class_scores import class_names
from circuits.common.provenance import provenance
from circuits.common.statistics import Estimate
from circuits.dataset.audit.repair.choice import Labeled
from circuits.dataset.audit.repair.repair import measured, repaired
from circuits.dataset.audit.repair.result import Outcome, Repair
from circuits.dataset.audit.repair.tuning import Trainer, with_weights
from circuits.errors import CircuitsError
from circuits.network.interventions import edit
from circuits.network.model import Model, load
from zoo.common.results import Result
from zoo.images.sources import open_images
from zoo.networks.shortcuts import PLANTED
from zoo.progress import Progress, reporter
from zoo.scenes.shortcuts.generate import CLEAN

LAYERS = ["conv3", "conv4", "conv5"]
WITHIN, COST = 0.03, 0.01
"""A repair passes where its worst group is at most so far below that of the network without the shortcut, and accuracy
on images without the cue falls by at most so much."""
WAYS = ("repaired", "retrained", "both", "tuned")
NONE = (float("nan"), float("nan"))
DRAWS = 1000
"""Resamplings of the images for the interval of a difference."""


@dataclass(frozen=True)
class Way(Result):
    """One way to mend a network: units held still, the last layer trained anew, both, or every weight trained on.

    Attributes:
        worst: accuracy on the worst group, with the 95 % interval of that group's images (Wilson).
        gap: worst group of `mixed`, to which the cue was shown and tied to no class, less this one. To `clean` a cue is
            a thing that it never saw: in a border it is right on fewer images than a repaired network. The images are
            resampled within their groups, and the worst group of each network is looked for anew.
        cost: how much accuracy on the scenes without the cue falls. On images as in training the cue is evidence: no
            repair keeps what a shortcut of 95 % gains there.
    """

    worst: Estimate
    gap: Estimate
    cost: float

    described = ("passes",)

    @property
    def passes(self) -> bool:
        """Whether the worst group is within 3 points of the network without the shortcut, at a cost of at most 1."""
        return self.gap.value <= WITHIN and self.cost <= COST


@dataclass(frozen=True)
class ShortcutRepair(Result):
    """One network's repair.

    Attributes:
        name: of the shortcut.
        repair: on scenes with the cue on half of every class, which nothing was chosen on.
        tuned: every weight trained on instead of units held, on the same scenes.
        unbalanced: every weight trained on, at the rate of `tuned`, on as many scenes as in training, balanced over
            nothing: what comes of the training alone.
        ways: "repaired", "retrained", "both" and "tuned" -> what it comes to; without "retrained" and "both" where a
            class has too few scenes to train on.
        natural: accuracy on scenes as in training, before, after, and tuned.
        clean: accuracy on the scenes without the cue among those of `repair`, before and after.
        references: name of a network without a shortcut -> its outcome on the same images as `repair`.
    """

    name: str
    repair: Repair
    tuned: Repair
    unbalanced: Outcome
    ways: dict[str, Way]
    natural: tuple[float, float, float]
    clean: tuple[float, float]
    references: dict[str, Outcome]

    described = ("units",)

    @property
    def units(self) -> int:
        """How many are held still."""
        return len(self.repair.units)


@dataclass(frozen=True)
class RepairTable(Result):
    """Repairs of several networks with planted shortcuts.

    Attributes:
        rows: one a network; images, judged: number of scenes to choose units on, and to judge on.
        seconds: CPU time.
    """

    rows: tuple[ShortcutRepair, ...]
    images: int
    judged: int
    seconds: float
    provenance: dict[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """A row for each network: worst group and what it costs, beside random edits, retraining and references."""
        records = []
        for row in self.rows:
            result, low_high = row.repair, row.repair.random_worst_interval or NONE
            record: dict[str, Any] = {
                "network": row.name,
                "units": row.units,
                "worst_before": result.before.worst_accuracy,
                "random_low": low_high[0],
                "random_high": low_high[1],
                **{f"worst_{name}": of.worst_accuracy for name, of in row.references.items()},
                "clean_before": row.clean[0],
                "clean_repaired": row.clean[1],
                "natural_before": row.natural[0],
                "natural_repaired": row.natural[1],
                "natural_tuned": row.natural[2],
                "worst_unbalanced": row.unbalanced.worst_accuracy,
                "rate": row.tuned.rate,
                "random_weights_low": (row.tuned.random_worst_interval or NONE)[0],
                "random_weights_high": (row.tuned.random_worst_interval or NONE)[1],
                "passes": row.ways["repaired"].passes,
            }
            for name in WAYS:
                way = row.ways.get(name)
                record |= {
                    f"worst_{name}": None if way is None else way.worst.value,
                    f"low_{name}": None if way is None else way.worst.low,
                    f"high_{name}": None if way is None else way.worst.high,
                    f"gap_{name}": None if way is None else way.gap.value,
                    f"gap_low_{name}": None if way is None else way.gap.low,
                    f"gap_high_{name}": None if way is None else way.gap.high,
                    f"cost_{name}": None if way is None else way.cost,
                    f"passes_{name}": way is not None and way.passes,
                }
            records.append(record)
        return records


def repair_table(
    names: Sequence[str] = PLANTED,
    *,
    weights: str | None = None,
    images: int = 800,
    judged: int = 2400,
    random: int = 20,
    seed: int = 1,
    choice: int = 0,
    progress: Progress = None,
) -> RepairTable:
    """Repair networks with planted shortcuts, and hold them against networks without.

    Channels of `conv3` to `conv5`, and how many, are learned and chosen on one set of scenes (`circuits.repair` without
    units), on which the last layer is trained anew for comparison, too; another set judges. So both are given the
    groups, and neither the images that it is judged on.

    Args:
        names: shortcuts, such as "tag-bus-95".
        weights: file of a network trained with another seed, for one name.
        images: scenes to choose on; a multiple of 16.
        judged: scenes to judge on, a multiple of 16; of the smallest groups a sixteenth each.
        random: draws of other units, about as active.
        seed: of the scenes: data set `seed` to choose on, `seed + 1` to judge on.
        choice: seed of the learning and of its parts.
        progress: True for a bar, or a function of (done, total).

    Raises:
        ModelError: no such shortcut, or weights that are not packaged. CircuitsError: too few images.
    """
    for name, value in (("images", images), ("judged", judged)):
        if value < 64 or value % 16:
            raise CircuitsError(f"{name} is a multiple of 16, at least 64, not {value}")
    if weights is not None and len(names) != 1:
        raise CircuitsError(f"weights= are of one network, and there are {len(names)} names")
    begun, rows = time.process_time(), []
    clean = {name: load(f"scenes-shortcuts/{name}") for name in CLEAN}
    with reporter(progress, "network") as report:
        for name in names:
            model = load(f"scenes-shortcuts/{name}", weights=weights)
            rows.append(_row(model, name, clean, images, judged, random, seed, choice))
            report(len(rows), len(names))
    return RepairTable(
        tuple(rows),
        images,
        judged,
        time.process_time() - begun,
        provenance(seed=seed, choice=choice, layers=LAYERS, images=images, judged=judged),
    )


def _row(
    model: Model, name: str, clean: dict[str, Model], images: int, judged: int, random: int, seed: int, choice: int
) -> ShortcutRepair:
    def scenes(state: str, count: int, at: int) -> Labeled:
        of = open_images(f"scenes:shortcuts/{name}/{state}:{count}@{at}")
        return of, np.array(of.labels), of.groups

    choosing, judging = scenes("balanced", images, seed), scenes("balanced", judged, seed + 1)
    result = repaired(model, None, choosing, judging, layers=LAYERS, random=random, points=1, seed=choice)
    tuned = repaired(model, None, choosing, judging, how="tune", random=random, seed=choice)
    natural, classes = scenes("natural", images, seed + 1), class_names(model)
    before = measured(model, natural, classes).accuracy
    with edit(model, result.edits):
        after = measured(model, natural, classes).accuracy
    after_tuning = measured(with_weights(model, tuned.weights["repaired"]), natural, classes).accuracy
    trainer = Trainer(model, (*scenes("natural", images, seed)[:2], None), 64)
    trainer.train(np.arange(images), tuned.rate, choice)
    unbalanced = measured(trainer.model, judging, classes)
    references = {which: measured(other, judging, class_names(other)) for which, other in clean.items()}
    groups = np.array(judging[2])
    without = np.array([" without " in group for group in groups])

    def right(of: Outcome) -> NDArray[np.bool_]:
        return np.equal(of.answers, judging[1])

    outcomes = {"repaired": result.after, "retrained": result.retrained, "both": result.both, "tuned": tuned.after}
    ways = {
        which: Way(
            Estimate(of.worst_accuracy, *result.interval(of)),
            _gap(right(references["mixed"]), right(of), groups),
            float(right(result.before)[without].mean() - right(of)[without].mean()),
        )
        for which, of in outcomes.items()
        if of is not None
    }
    costs = float(right(result.before)[without].mean()), float(right(result.after)[without].mean())
    return ShortcutRepair(name, result, tuned, unbalanced, ways, (before, after, after_tuning), costs, references)


def _gap(reference: NDArray[np.bool_], mended: NDArray[np.bool_], groups: NDArray[np.str_]) -> Estimate:
    """The worst group of one network less that of another on the same images, resampled within their groups."""
    rng, values, draws = np.random.default_rng(0), [], []
    for name in np.unique(groups):
        pair = np.stack([reference, mended])[:, groups == name].astype(np.float32)
        values.append(pair.mean(axis=1))
        draws.append(pair[:, rng.integers(pair.shape[1], size=(DRAWS, pair.shape[1]))].mean(axis=2))
    (a, b), (many_a, many_b) = np.min(values, axis=0), np.min(draws, axis=0)
    return Estimate.of(a - b, many_a - many_b)
