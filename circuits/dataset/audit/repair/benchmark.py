"""Repairs on networks whose shortcut was planted: how near they come to a network that never had it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from circuits.common.provenance import provenance
from circuits.dataset.audit.repair.repair import class_names, measured, repair
from circuits.dataset.audit.repair.result import Outcome, Repair
from circuits.errors import CircuitsError
from circuits.network.model import Model, load
from circuits.tracing.rankings.ranking import rank
from zoo.common.results import Result
from zoo.images.sources import open_images
from zoo.networks.shortcuts import PLANTED
from zoo.progress import Progress, reporter
from zoo.scenes.shortcuts.generate import CLEAN, shortcut

LAYER = "conv4"
MOST = 16
"""Units that are held still, at most."""
WITHIN, COST = 0.03, 0.01
"""A repair passes where its worst group is at most so far below that of the network without the shortcut, and accuracy
on images without the cue falls by at most so much."""


@dataclass(frozen=True)
class ShortcutRepair(Result):
    """One network's repair.

    Attributes:
        name: of the shortcut; units: how many of the layer are held still.
        repair: on scenes with the cue on half of every class, which nothing was chosen on.
        natural: accuracy on scenes as in training, before and after.
        clean: accuracy on the scenes without the cue among those of `repair`, before and after.
        references: name of a network without a shortcut -> its outcome on the same images as `repair`.
    """

    name: str
    units: int
    repair: Repair
    natural: tuple[float, float]
    clean: tuple[float, float]
    references: dict[str, Outcome]

    described = ("gap", "cost", "passes")

    @property
    def gap(self) -> float:
        """Worst group of `mixed`, to which the cue was shown and tied to no class, less that of the repaired network.

        To `clean` a cue is a thing that it never saw: in a border it is right on fewer images than the repaired one.
        """
        return self.references["mixed"].worst_accuracy - self.repair.after.worst_accuracy

    @property
    def cost(self) -> float:
        """How much accuracy on images without the cue falls.

        On images as in training the cue is evidence: no repair keeps what a shortcut of 95 % gains there.
        """
        return self.clean[0] - self.clean[1]

    @property
    def passes(self) -> bool:
        """Whether the worst group is within 3 points of the network without the shortcut, at a cost of at most 1."""
        return self.gap <= WITHIN and self.cost <= COST


@dataclass(frozen=True)
class RepairTable(Result):
    """Repairs of several networks with planted shortcuts.

    Attributes:
        rows: one a network; images: to choose units on, and as many to judge on.
        seconds: CPU time.
    """

    rows: tuple[ShortcutRepair, ...]
    images: int
    seconds: float
    provenance: dict[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """A row for each network: worst group and what it costs, beside random edits, retraining and references."""
        records = []
        for row in self.rows:
            result, low_high = row.repair, row.repair.random_worst_interval or (float("nan"), float("nan"))
            records.append({
                "network": row.name,
                "units": row.units,
                "worst_before": result.before.worst_accuracy,
                "worst_repaired": result.after.worst_accuracy,
                "random_low": low_high[0],
                "random_high": low_high[1],
                "worst_retrained": None if result.retrained is None else result.retrained.worst_accuracy,
                **{f"worst_{name}": of.worst_accuracy for name, of in row.references.items()},
                "worst_both": None if result.both is None else result.both.worst_accuracy,
                "clean_before": row.clean[0],
                "clean_repaired": row.clean[1],
                "natural_before": row.natural[0],
                "natural_repaired": row.natural[1],
                "passes": row.passes,
            })  # fmt: skip
        return records


def repair_table(
    names: Sequence[str] = PLANTED,
    *,
    weights: str | None = None,
    images: int = 400,
    random: int = 20,
    seed: int = 1,
    progress: Progress = None,
) -> RepairTable:
    """Repair networks with planted shortcuts, and hold them against networks without.

    Units of `conv4` are ranked by how much they move the score of the class between the same scenes with and without
    the cue (gradient, `circuits.rank`); of 1 to 16 of them so many are held at their means as do best on the worst
    group. Ranking and number are chosen on one set of scenes, on which the last layer is trained anew for comparison,
    too; another set judges. So both are given the groups, and neither the images that it is judged on.

    Args:
        names: shortcuts, such as "tag-bus-95".
        weights: file of a network trained with another seed, for one name.
        images: scenes to choose on, and as many to judge on; a multiple of 16.
        random: draws of other units, about as active.
        seed: of the scenes: data set `seed` to choose on, `seed + 1` to judge on.
        progress: True for a bar, or a function of (done, total).

    Raises:
        ModelError: no such shortcut, or weights that are not packaged. CircuitsError: too few images.
    """
    if images < 32 or images % 16:
        raise CircuitsError(f"images is a multiple of 16, at least 32, not {images}")
    if weights is not None and len(names) != 1:
        raise CircuitsError(f"weights= are of one network, and there are {len(names)} names")
    begun, rows = time.process_time(), []
    clean = {name: load(f"scenes-shortcuts/{name}") for name in CLEAN}
    with reporter(progress, "network") as report:
        for name in names:
            rows.append(_row(load(f"scenes-shortcuts/{name}", weights=weights), name, clean, images, random, seed))
            report(len(rows), len(names))
    return RepairTable(
        tuple(rows), images, time.process_time() - begun, provenance(seed=seed, layer=LAYER, images=images)
    )


def _row(model: Model, name: str, clean: dict[str, Model], images: int, random: int, seed: int) -> ShortcutRepair:
    def scenes(state: str, at: int) -> Any:
        return open_images(f"scenes:shortcuts/{name}/{state}:{images}@{at}")

    ranking = rank(
        model, f"logits:{shortcut(name).target}", images=scenes("with", seed), against=scenes("without", seed),
        layers=[LAYER], share=1.0, seed=seed,
    )  # fmt: skip
    signed = sorted(zip(ranking.scores, ranking.units, strict=True), reverse=True)
    units = [unit for score, unit in signed[:MOST] if score > 0]
    choosing, judging = scenes("balanced", seed), scenes("balanced", seed + 1)
    curve = repair(model, choosing, units, held_out=choosing, random=0, seed=seed).curve
    count = max(curve, key=lambda n: (curve[n].worst_accuracy, -n))
    final = repair(model, choosing, units[:count], held_out=judging, random=random, seed=seed)
    natural = repair(model, choosing, units[:count], held_out=scenes("natural", seed + 1), random=0, seed=seed)
    half = (judging, np.array(judging.labels), judging.groups)
    references = {which: measured(other, half, class_names(other)) for which, other in clean.items()}
    without = np.array([" without " in group for group in judging.groups or []])
    clean_before, clean_after = (
        float((of.answers == final.labels)[without].mean()) for of in (final.before, final.after)
    )
    return ShortcutRepair(
        name, count, final, (natural.before.accuracy, natural.after.accuracy), (clean_before, clean_after), references
    )
