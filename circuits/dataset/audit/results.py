"""What an audit gives: the suspects of each class, each with where it looks and what its removal changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from circuits.common.examples import Example
from circuits.common.statistics import Estimate, holm
from circuits.visualization.result import Visualization
from zoo.common.results import HIDDEN, Result

Verdict = Literal["shortcut", "possible", "no"]
"""A proven shortcut; one whose place nobody vouches for, without masks and groups; not a shortcut."""


@dataclass(frozen=True)
class Effect(Result):
    """What an edit of one unit changes on held-out images, beside the same edit of units of equal activity.

    Attributes:
        change: with the interval of resampled images.
        controls: of each control.
    """

    change: Estimate
    controls: tuple[float, ...]

    described = ("limit", "beyond")

    @property
    def limit(self) -> float:
        """The control's 95 %: the change in the same direction that a twentieth of them exceeds."""
        sign = -1.0 if self.change.value < 0 else 1.0
        return sign * float(np.quantile(sign * np.array(self.controls), 0.95))

    @property
    def beyond(self) -> bool:
        """Whether the change exceeds the control's 95 %, and its interval excludes no change."""
        if self.change.low <= 0 <= self.change.high:
            return False
        return abs(self.change.value) > max(0.0, self.limit * (-1 if self.change.value < 0 else 1))


@dataclass(frozen=True)
class Split(Result):
    """Held-out images that have a unit's cue, by its activation, against those that do not.

    Attributes:
        threshold: of the unit's peak activation, halfway between the median images of the class and of the others.
        n_with, n_without: images of the class on either side.
        with_cue, without_cue: the class's accuracy on them; None without images.
        removed_with, removed_without: the same with the unit removed.
        n_elsewhere: images of other classes that have it.
        elsewhere, nowhere: share of the other classes' images that the network calls the class: with it, without it.
    """

    threshold: float
    n_with: int
    n_without: int
    with_cue: float | None
    without_cue: float | None
    removed_with: float | None
    removed_without: float | None
    n_elsewhere: int
    elsewhere: float | None
    nowhere: float | None


@dataclass(frozen=True)
class Label(Result):
    """What a unit detects or does, chosen on one half of some images and measured on the other.

    Attributes:
        by: "masks": AUC over the pixels of an outlined part (`circuits.label`); "classes": AUC over images, of its
            largest activation on those of a class; "scores": how much a step along the unit raises the score of a class
            more than the mean score, a step as long as the layer's activations at every position.
        name: of the part or class.
        value: that AUC or change; low, high: its 95 % interval of resampled images; None for scores.
        control: the same of random directions of the layer; of masks the largest of all controls of `circuits.label`.
    """

    by: Literal["masks", "classes", "scores"]
    name: str
    value: float
    low: float | None
    high: float | None
    control: float

    @property
    def text(self) -> str:
        """In words, without numbers."""
        words = {"masks": "detects", "classes": "is most active on images of", "scores": "raises the score of"}
        return f"{words[self.by]} {self.name}"


@dataclass(frozen=True)
class Suspect(Result):
    """A unit that a class leans on.

    Attributes:
        unit: address; class_index, class_name: of the class.
        verdict: "shortcut" is proven; "possible" where only its place is not known by masks or groups; else "no".
        reason: of the verdict, in words.
        suspicion: `share` x `off`, what the audit ranks by.
        share: of what the layer's units give the class's log odds beyond what they give them on other classes' images;
            of all that give something, in sum 1.
        off: how far off the object its evidence is, 0 to 1: `off_object` where there are masks, else the mean of
            `border` and `1 - agreement`.
        off_object: share of its activation that it takes from pixels off the object (`pixels`); None without masks.
        attribution_off: share of its positive activation x gradient at positions off the mask; None without masks.
            Positions of deep layers are no pixels: this one is shown, and not ranked by.
        border: mean distance from the center of the pixels that it takes its activation from, 0 there, 1 at the border;
            evenly spread 0.62. None with masks.
        agreement: cosine of where on the images that is and where it is for the class's other units, 0 to 1. None with
            masks.
        density: share of the other classes' images that have it (see `Split`).
        removal: change of the class's accuracy with the unit at its mean over images of other classes (a latent of a
            dictionary: at zero).
        insertion: change of the share of other classes' images that are called the class, with the unit as it is on
            images of the class where it is most active.
        background: change of the share of other classes' objects that are called the class where they stand before
            backgrounds of the class, with the unit removed; None without masks.
        split: images that have it against those that do not.
        accuracies: class -> its accuracy on the held-out images at hand, and that with the unit removed.
        group, group_auc: of all images of the class, the group that its peak activation tells apart best, and how well.
        low: whether it acts by being low: less active on images of the class than on others.
        label: `labels` in words; empty where none exceeds its controls.
        labels: what it detects by masks, by classes and by the scores that it raises; the last only of suspects that
            were to be visualized.
        visualization: an image optimized to activate it (where it acts by being low, for the opposite); None of
            suspects after the first ones, and where no image activates it.
        with_images, without_images, elsewhere_images: held-out images of the class that have it, most active first, and
            that do not, least active first; and of other classes that have it (`Split.threshold`).
    """

    unit: str
    class_index: int
    class_name: str
    verdict: Verdict
    reason: str
    suspicion: float
    share: float
    off: float
    off_object: Estimate | None
    attribution_off: float | None
    border: float | None
    agreement: float | None
    density: float
    removal: Effect
    insertion: Effect
    background: Effect | None
    split: Split
    accuracies: Mapping[str, tuple[float, float]]
    group: str | None = None
    group_auc: Estimate | None = None
    low: bool = False
    label: str = ""
    labels: tuple[Label, ...] = ()
    visualization: Visualization | None = field(default=None, metadata=HIDDEN)
    with_images: tuple[Example, ...] = field(default=(), metadata=HIDDEN)
    without_images: tuple[Example, ...] = field(default=(), metadata=HIDDEN)
    elsewhere_images: tuple[Example, ...] = field(default=(), metadata=HIDDEN)

    @property
    def others_change(self) -> float:
        """Change of the mean accuracy of the other classes with the unit removed."""
        rest = [after - before for name, (before, after) in self.accuracies.items() if name != self.class_name]
        return float(np.mean(rest))

    def scalars(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "class": self.class_name,
            "verdict": self.verdict,
            "suspicion": self.suspicion,
            "share": self.share,
            "off": self.off,
            "off_object": None if self.off_object is None else self.off_object.value,
            "attribution_off": self.attribution_off,
            "border": self.border,
            "agreement": self.agreement,
            "density": self.density,
            "removal": self.removal.change.value,
            "removal_limit": self.removal.limit,
            "insertion": self.insertion.change.value,
            "insertion_limit": self.insertion.limit,
            "background": None if self.background is None else self.background.change.value,
            "background_limit": None if self.background is None else self.background.limit,
            "others_change": self.others_change,
            "label": self.label,
            "visualization_peak": None if self.visualization is None else self.visualization.peak,
            "strongest": None if not self.with_images or self.low else self.with_images[0].value,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Joint(Result):
    """Units that a class leans on and that lie off the object, edited together on held-out images.

    Attributes:
        units: addresses, the largest share first: those of the smallest set of one layer that take more than half of
            their activation from pixels off the object, each by its 95 % interval. The layer is the one in which their
            suspicions add up to most.
        share: of what the layer's units give the class's log odds, what these give together.
        verdict: "shortcut" is proven, else "no"; reason: in words.
        removal, insertion, background: as of a `Suspect`, of all units at once; when they are inserted, their maps come
            from one image of the class. A control is a random set of as many other units of the layer, each one of the
            eight nearest to one of these in how much its removal changes the layer on images of the class.
    """

    units: tuple[str, ...]
    class_name: str
    share: float
    verdict: Verdict
    reason: str
    removal: Effect
    insertion: Effect
    background: Effect | None

    def scalars(self) -> dict[str, Any]:
        effects = {"removal": self.removal, "insertion": self.insertion, "background": self.background}
        return {
            "class": self.class_name,
            "units": list(self.units),
            "verdict": self.verdict,
            "share": self.share,
            **{name: None if effect is None else effect.change.value for name, effect in effects.items()},
            **{f"{name}_limit": None if effect is None else effect.limit for name, effect in effects.items()},
            "reason": self.reason,
        }


@dataclass(frozen=True)
class ClassAudit(Result):
    """What one class leans on.

    Attributes:
        class_index, class_name: which; n_images, n_held_out: its images to find on and to judge on.
        accuracy: on those to judge on; called: share of the other classes' images that are called it.
        units: layer -> the smallest set of units, by rank, that keeps `keep` of what the layer gives the class's log
            odds beyond what it gives them on other images.
        n_units: layer -> of how many.
        background: share of other classes' objects that are called the class before backgrounds of it (held-out images,
            their own objects covered), less that before backgrounds of other classes; None without masks.
        background_p: of McNemar's exact test that it is no more often, object by object; one-sided.
        distance: how far from the center the pixels lie that activate the units which carry the class, 0 there, 1 at
            the border, evenly spread 0.62; the mean of the units' `border` by their shares. None with masks.
        suspects: the most suspicious of these units.
        joint: those of them that lie off the object, tried together; None without masks, with fewer than two such
            units, or where they are more than half of their layer and no others are left to hold them against.
    """

    class_index: int
    class_name: str
    n_images: int
    n_held_out: int
    accuracy: Estimate
    called: Estimate
    units: Mapping[str, tuple[str, ...]]
    n_units: Mapping[str, int]
    background: Estimate | None
    background_p: float | None
    suspects: tuple[Suspect, ...]
    joint: Joint | None = None
    distance: Estimate | None = None


@dataclass(frozen=True)
class GroupAccuracy(Result):
    """Accuracy on the held-out images of one group of a class."""

    class_name: str
    group: str
    n_images: int
    accuracy: Estimate


@dataclass(frozen=True)
class Audit(Result):
    """What a classifier leans on, class by class, and which of it lies off the object.

    Attributes:
        model, images: of which; layers: whose units were looked at.
        accuracy: mean over classes of their accuracy, on all of the images; chance: 1 / number of classes.
        classes: that were audited; omitted: name -> why not.
        groups: accuracy of each group, worst first; empty without groups.
        masks: whether the objects' masks were known.
        undescribed: labels and visualizations that could not be made -> why.
        keep: of the smallest sets. random: controls of an effect. seed: of the split and the samples.
    """

    model: str
    images: str
    layers: tuple[str, ...]
    accuracy: float
    chance: float
    classes: tuple[ClassAudit, ...]
    omitted: Mapping[str, str]
    groups: tuple[GroupAccuracy, ...]
    masks: bool
    keep: float
    random: int
    seed: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    undescribed: Mapping[str, str] = field(default_factory=dict)

    described = ("claimed_units", "claimed_together", "leaning")

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """The suspects of all classes: proven shortcuts, then others.

        Those of classes that lean on their background (`leaning`) come before those of others; without masks those of
        the class whose evidence lies farthest from the center come first. Of each the most suspicious are first.
        """
        leaning = self.leaning
        every = [
            (
                s.verdict != "shortcut",
                s.class_name not in leaning,
                0.0 if c.distance is None else -c.distance.value,
                -s.suspicion,
                s,
            )
            for c in self.classes
            for s in c.suspects
        ]
        return tuple(row[4] for row in sorted(every, key=lambda row: row[:4]))

    @property
    def leaning(self) -> tuple[str, ...]:
        """Classes that objects of others are called more often before their backgrounds: p < .05 after Holm."""
        known = [c for c in self.classes if c.background_p is not None]
        adjusted = holm([c.background_p for c in known if c.background_p is not None])
        return tuple(c.class_name for c, p in zip(known, adjusted, strict=True) if p < 0.05)

    @property
    def claimed(self) -> tuple[Suspect, ...]:
        """Proven shortcuts."""
        return tuple(s for s in self.suspects if s.verdict == "shortcut")

    @property
    def claimed_units(self) -> tuple[str, ...]:
        """Their addresses."""
        return tuple(s.unit for s in self.claimed)

    @property
    def joint(self) -> tuple[Joint, ...]:
        """Units tried together, of each class that has such; proven ones first."""
        rows = [c.joint for c in self.classes if c.joint is not None]
        return tuple(sorted(rows, key=lambda row: row.verdict != "shortcut"))

    @property
    def claimed_together(self) -> tuple[str, ...]:
        """Classes whose units off the object are together proven to be a shortcut."""
        return tuple(row.class_name for row in self.joint if row.verdict == "shortcut")

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each suspect."""
        return [suspect.scalars() for suspect in self.suspects]

    def __repr__(self) -> str:
        counts = {v: sum(s.verdict == v for s in self.suspects) for v in ("shortcut", "possible", "no")}
        return (
            f"Audit({self.model} on {self.images}: {len(self.classes)} classes, accuracy {self.accuracy:.2f}; "
            f"{counts['shortcut']} proven, {counts['possible']} possible, {counts['no']} others tried)"
        )
