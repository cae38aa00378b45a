"""What a repair is measured by: accuracies by group and class, calibration, and what else it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from circuits.dataset.audit.effects import share_of
from circuits.network.interventions import Edit, Project, Set
from zoo.common.results import HIDDEN, Result

BINS = 15
"""Bins of confidence of the calibration error."""
FEW = 10
"""Images of a group below which its accuracy moves by more than a tenth with one of them."""
CONTROLS = ("editing other units that are as active", "the same changes at random entries of the weights")
"""What a repair of units, and one of weights, is held against."""
CONTROL_ROWS = ("random units", "random weights")
DRAWS = 1000
"""Resamplings of the images for an interval."""


@dataclass(frozen=True)
class Outcome(Result):
    """What a network answers on the held-out images.

    Attributes:
        accuracy: share of right answers.
        groups: group -> share of right answers on its images; empty without groups.
        classes: class -> share of right answers on its images.
        calibration_error: expected calibration error in 15 bins of confidence of equal width (Guo et al. 2017).
        brier: mean over the images of the squared distance of the probabilities from the right class, 0 to 2.
        answers: `(N,)` class with the highest score.
    """

    accuracy: float
    groups: Mapping[str, float]
    classes: Mapping[str, float]
    calibration_error: float
    brier: float
    answers: NDArray[np.int64] = field(metadata=HIDDEN)

    described = ("worst", "worst_accuracy")

    @property
    def worst(self) -> str:
        """The group with the lowest accuracy; without groups, the class."""
        of = self.groups or self.classes
        return min(of, key=lambda name: of[name])

    @property
    def worst_accuracy(self) -> float:
        """Accuracy on `worst`."""
        return (self.groups or self.classes)[self.worst]


def outcome(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: Sequence[str] | None,
    classes: Sequence[str],
) -> Outcome:
    """The outcome of class probabilities `(N, classes)` on images of known classes and groups."""
    answers = probabilities.argmax(axis=1)
    right = answers == labels
    confidence = probabilities.max(axis=1)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    target = np.eye(probabilities.shape[1])[labels]
    names = np.array(groups or [])
    return Outcome(
        accuracy=float(right.mean()),
        groups={str(g): float(right[names == g].mean()) for g in np.unique(names)},
        classes={classes[c]: float(right[labels == c].mean()) for c in np.unique(labels)},
        calibration_error=float(sum(gaps)),
        brier=float(((probabilities - target) ** 2).sum(axis=1).mean()),
        answers=answers.astype(np.int64),
    )


@dataclass(frozen=True)
class Repair(Result):
    """A network without some of its units, on held-out images, beside what the same costs elsewhere.

    Attributes:
        model, images: of which; units: addresses that were edited, in order; how: "zero", "mean", "project" or "tune".
        constants: the value at which each unit is held; None for a projection.
        labels: `(N,)` class of each held-out image; group_sizes: group -> number of held-out images.
        before, after: without and with the edits.
        random: with as many other units of the same layers, about as active, edited in the same way: one a draw; of
            "tune", with the same changes at random entries of the same weights.
        both: with the edits, and the last layer trained anew as for `retrained`.
        retrained: with the last layer trained anew on images balanced over classes, or over classes and groups;
            retraining: how it was trained, or why not.
        curve: number of edited units -> outcome, the first n of `units`.
        validated: where the units were learned, number of units -> accuracy on the worst group that chose the number,
            of images that are none of the held-out ones; of "tune", rate -> that accuracy.
        rate: of "tune", the share of the size of weights by which a step moved them at most; 0 where units were held.
        activity: layer -> mean absolute change of its activations over their mean size, for later trunk layers.
        weights: "repaired", "retrained", "both" -> entries of the network's state that differ, for `circuits.export`
            ("both" with `edits`); without those of a last layer that has no weight and bias of its own.
    """

    model: str
    images: str
    units: tuple[str, ...]
    how: str
    constants: tuple[float | None, ...]
    group_sizes: Mapping[str, int]
    before: Outcome
    after: Outcome
    random: tuple[Outcome, ...]
    retrained: Outcome | None
    both: Outcome | None
    retraining: str
    curve: Mapping[int, Outcome]
    activity: Mapping[str, float]
    labels: NDArray[np.int64] = field(metadata=HIDDEN)
    provenance: dict[str, Any] = field(default_factory=dict)
    validated: Mapping[int, float] | Mapping[float, float] = field(default_factory=dict)
    rate: float = 0.0
    weights: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict, metadata=HIDDEN)

    described = ("worst_interval", "flips", "change_interval", "random_worst_interval", "limits")

    @property
    def edits(self) -> list[Edit]:
        """The edits, for `circuits.edit` and `circuits.export`."""
        return [Project(u) if c is None else Set(u, c) for u, c in zip(self.units, self.constants, strict=True)]

    def interval(self, of: Outcome) -> tuple[float, float]:
        """95 % interval of an outcome's accuracy on its worst group (or class), by Wilson's formula.

        It is that of the images of that group; that the group is the worst of several is not in it.
        """
        count = self.group_sizes.get(of.worst) if of.groups else None
        if count is None:  # without groups it is a class: all images of it have the same right answer
            count = int(np.bincount(self.labels)[self._class_of(of.worst)])
        share = share_of(np.arange(count) < round(of.worst_accuracy * count))
        return share.low, share.high

    def _class_of(self, name: str) -> int:
        return int(np.unique(self.labels)[list(self.before.classes).index(name)])

    @property
    def worst_interval(self) -> tuple[float, float]:
        """`interval` of the repaired network."""
        return self.interval(self.after)

    @property
    def flips(self) -> dict[str, float]:
        """Shares of the held-out images whose answer changes, becomes right, and becomes wrong."""
        old, new = self.before.answers, self.after.answers
        return {
            "changed": float((old != new).mean()),
            "to right": float(((new == self.labels) & (old != self.labels)).mean()),
            "to wrong": float(((new != self.labels) & (old == self.labels)).mean()),
        }

    @property
    def change_interval(self) -> tuple[float, float]:
        """95 % percentile interval of the change of accuracy, the images resampled."""
        each = (self.after.answers == self.labels).astype(float) - (self.before.answers == self.labels)
        rng = np.random.default_rng(0)
        means = each[rng.integers(len(each), size=(DRAWS, len(each)))].mean(axis=1)
        low, high = np.quantile(means, (0.025, 0.975))
        return float(low), float(high)

    @property
    def random_worst_interval(self) -> tuple[float, float] | None:
        """2.5 % and 97.5 % quantiles of the worst accuracy over the random edits; None without any."""
        if not self.random:
            return None
        low, high = np.quantile([r.worst_accuracy for r in self.random], (0.025, 0.975))
        return float(low), float(high)

    @property
    def limits(self) -> tuple[str, ...]:
        """What the repair does not do, in sentences: read them before the network is used."""
        of = "group" if self.before.groups else "class"
        sentences = []
        gap = self.after.accuracy - self.after.worst_accuracy
        if gap > 0.05:
            sentences.append(
                f"The {of} {self.after.worst!r} is still right on {self.after.worst_accuracy:.1%} of its images alone, "
                f"{gap:.1%} below all images."
            )
        few = [g for g in dict.fromkeys((self.before.worst, self.after.worst)) if self.group_sizes.get(g, FEW) < FEW]
        sentences += [
            f"The group {g!r} has {self.group_sizes[g]} held-out images: give more, since so few do not tell how right "
            "it is."
            for g in few
        ]
        interval = self.random_worst_interval
        gain = self.after.worst_accuracy - self.before.worst_accuracy
        if interval is not None and self.after.worst_accuracy <= interval[1]:
            sentences.append(
                f"The worst {of} gains {gain:+.1%}; {CONTROLS[self.how == 'tune']} does as well "
                f"(up to {interval[1]:.1%}): the repair is not shown to do anything."
            )
        if (
            len(self.curve) > 1
            and gap > 0.05
            and max(self.curve, key=lambda n: self.curve[n].worst_accuracy) == max(self.curve)
        ):
            sentences.append(
                f"The worst {of} was still rising with the last of the {len(self.units)} units: what it leans on is "
                "spread over more of them."
            )
        if self.change_interval[1] < 0:
            low, high = self.change_interval
            sentences.append(f"Accuracy on all images falls by {-high:.1%} to {-low:.1%}.")
        if self.retrained is not None and self.retrained.worst_accuracy > self.after.worst_accuracy:
            sentences.append(
                f"Training the last layer anew does better on its worst {of}: {self.retrained.worst_accuracy:.1%}."
            )
        if not self.before.groups:
            sentences.append(
                "Without groups the worst class stands for the worst group; a shortcut may hide inside it."
            )
        return tuple(sentences)

    def __repr__(self) -> str:
        b, a = self.before, self.after
        what = "every weight" if self.how == "tune" else f"{len(self.units)} units"
        return (
            f"Repair({self.model}: {what}, {self.how}; accuracy {b.accuracy:.3f} -> {a.accuracy:.3f}, "
            f"worst {b.worst_accuracy:.3f} ({b.worst}) -> {a.worst_accuracy:.3f} ({a.worst}))"
        )

    def records(self) -> list[dict[str, Any]]:
        """A row for each way: as it is, repaired, random units (their mean), last layer retrained, and both."""
        rows = [
            ("as it is", [self.before]),
            ("repaired", [self.after]),
            (CONTROL_ROWS[self.how == "tune"], list(self.random)),
        ]
        rows.append(("last layer retrained", [self.retrained] if self.retrained is not None else []))
        rows.append(("repaired, then retrained", [self.both] if self.both is not None else []))
        return [
            {
                "way": name,
                "accuracy": float(np.mean([o.accuracy for o in of])),
                "worst": of[0].worst if len(of) == 1 else "",
                "worst_accuracy": float(np.mean([o.worst_accuracy for o in of])),
                "worst_low": self.interval(of[0])[0] if len(of) == 1 else None,
                "worst_high": self.interval(of[0])[1] if len(of) == 1 else None,
                "calibration_error": float(np.mean([o.calibration_error for o in of])),
                "brier": float(np.mean([o.brier for o in of])),
            }
            for name, of in rows
            if of
        ]
