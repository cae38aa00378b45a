"""How often a network is right, class by class, and how that changes when units are edited.

An edit always costs something. So beside its accuracy stand those of the same edit of other units of the same layers
that are about as active: what the edited units mean for a class is what they cost more than these.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.attribution.class_scores import answers_of, check_classes, class_names
from circuits.common.provenance import provenance
from circuits.errors import CircuitsError, EditError, shorten
from circuits.network.address import Unit
from circuits.network.hooks import capture
from circuits.network.interventions import Edit, edit
from circuits.network.model import Model
from circuits.tracing.curves.null_circuits import matched
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import whole_number
from zoo.common.results import HIDDEN, Result
from zoo.images.classes import labels_by_name, labels_counted_as
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

DRAWS = 1000
"""Resamplings of the images for an interval."""


@dataclass(frozen=True)
class Accuracy(Result):
    """What a network answers on labeled images, and what it answers with edits.

    Attributes:
        model, images: of which.
        classes: names of the classes, those of the class scores' addresses where they have none.
        labels: `(N,)` the right class of each image.
        answers: `(N,)` the class with the highest score.
        edited: `(N,)` the same under the edits; None without any.
        random: `(R, N)` the same when other units, about as active, are edited in the same way.
        groups: the group of each image, where known.
    """

    model: str
    images: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64] = field(metadata=HIDDEN)
    answers: NDArray[np.int64] = field(metadata=HIDDEN)
    edited: NDArray[np.int64] | None = field(default=None, metadata=HIDDEN)
    random: NDArray[np.int64] | None = field(default=None, metadata=HIDDEN)
    provenance: dict[str, Any] = field(default_factory=dict)
    groups: tuple[str, ...] | None = field(default=None, metadata=HIDDEN)

    described = ("top1", "interval", "edited_top1", "change", "change_interval", "random_changes", "by_class")

    def __repr__(self) -> str:
        line = f"{self.model} on {self.images}: top-1 {self.top1:.3f} [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"
        if self.edited_top1 is not None and self.change_interval is not None:
            low, high = self.change_interval
            line += f"; with the edits {self.edited_top1:.3f}, a change of {self.change:+.3f} [{low:+.3f}, {high:+.3f}]"
        if self.random_changes:
            line += f"; of other units {min(self.random_changes):+.3f} to {max(self.random_changes):+.3f}"
        return f"Accuracy({line})"

    def records(self) -> list[dict[str, Any]]:
        """A row for each class, as `by_class`; "random" is the mean over the draws."""
        return [{k: float(np.mean(v)) if k == "random" else v for k, v in row.items()} for row in self.by_class]

    @property
    def top1(self) -> float:
        """Share of images whose class is the first choice."""
        return float((self.answers == self.labels).mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `top1`, by Wilson's formula."""
        from scipy.stats import binomtest

        ends = binomtest(int((self.answers == self.labels).sum()), len(self.labels)).proportion_ci(method="wilson")
        return float(ends.low), float(ends.high)

    @property
    def edited_top1(self) -> float | None:
        """`top1` under the edits."""
        return None if self.edited is None else float((self.edited == self.labels).mean())

    @property
    def change(self) -> float | None:
        """`edited_top1` less `top1`."""
        return None if self.edited_top1 is None else self.edited_top1 - self.top1

    @property
    def change_interval(self) -> tuple[float, float] | None:
        """95 % percentile interval of `change`, the images resampled with replacement."""
        if self.edited is None:
            return None
        each = (self.edited == self.labels).astype(float) - (self.answers == self.labels)
        rng = np.random.default_rng(0)
        means = each[rng.integers(len(each), size=(DRAWS, len(each)))].mean(axis=1)
        low, high = np.quantile(means, (0.025, 0.975))
        return float(low), float(high)

    @property
    def random_changes(self) -> list[float] | None:
        """`change` of each draw of other units that are about as active."""
        if self.random is None:
            return None
        return [float(v) - self.top1 for v in (self.random == self.labels).mean(axis=1)]

    @property
    def by_class(self) -> list[dict[str, Any]]:
        """A row for each class that has images: its name, their number, and the accuracies on them."""
        return [{"class": self.classes[c], **self._row(self.labels == c)} for c in np.unique(self.labels)]

    @property
    def by_group(self) -> list[dict[str, Any]]:
        """The same for each group, with its name as "group" instead; empty without groups."""
        names = np.array(self.groups or ())
        return [{"group": str(name), **self._row(names == name)} for name in np.unique(names)]

    def _row(self, of: NDArray[np.bool_]) -> dict[str, Any]:
        """Number of some images, and the accuracies on them."""

        def right(answers: NDArray[np.int64]) -> float:
            return float((answers[of] == self.labels[of]).mean())

        row: dict[str, Any] = {"images": int(of.sum()), "top1": right(self.answers)}
        if self.edited is not None:
            row["edited"] = right(self.edited)
        if self.random is not None:
            row["random"] = [right(answers) for answers in self.random]
        return row

    def confusion(self, *, edited: bool = False) -> NDArray[np.int64]:
        """Images `(classes, classes)` by their class (rows) and by the answer (columns), as it is or with the edits.

        Raises:
            CircuitsError: `edited` where nothing was edited.
        """
        answers = self.edited if edited else self.answers
        if answers is None:
            raise CircuitsError("nothing was edited: accuracy(..., edits=[...])")
        counts = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        np.add.at(counts, (self.labels, answers), 1)
        return counts


@outside_inference_mode
def accuracy(
    model: Model,
    images: Any,
    *,
    edits: Sequence[Edit] = (),
    labels: Sequence[int | str] | None = None,
    reference: Any = None,
    random: int = 8,
    controls: Sequence[Sequence[Edit]] | None = None,
    groups: Sequence[str] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = None,
) -> Accuracy:
    """How often the highest class score is that of the right class, per class, with edits beside it.

    Args:
        model: a model with class scores; of class maps the mean over positions counts.
        images: labeled images in any form that `capture` takes.
        edits: a second accuracy is measured under these; see `circuits.edit`.
        labels: class of each image, by index or name, where the images have none of their own.
        reference: images for edits to a mean or to resampled values.
        random: how many times other units, about as active, are edited in the same way; 0 for edits of latents,
            positions or whole layers, which have no such units.
        controls: other edits to hold these against, instead of the same ones of other units.
        groups: the group of each image.
        batch_size: images per forward pass.
        seed: of the choice of the other units.
        progress: True for a bar, or a function of (done, total).

    Raises:
        CircuitsError: images without labels, or with classes that the model does not have; one class score, or scores
            that are not finite. EditError: see `edit`.

    >>> accuracy(load("scenes"), "scenes:8").top1 > 0.5
    True
    """
    whole_number("random", random, least=0)
    whole_number("seed", seed, least=0)
    dataset = open_images(images)
    right = labels_of(model, dataset, labels)
    changes = list(edits)
    if isinstance(edits, Edit | str):
        raise EditError("give edits as a list: accuracy(model, images, edits=[Ablate(...)])")
    runs = {"clean": changes[:0]} | ({"edited": changes} if changes else {})
    if groups is not None and len(groups) != len(dataset):
        raise CircuitsError(f"{len(groups)} groups for the {len(dataset)} images of {dataset.name}")
    if controls is not None:
        runs |= {f"random {i}": list(other) for i, other in enumerate(controls)}
    elif changes and random:
        runs |= {f"random {i}": other for i, other in enumerate(_others(model, dataset, changes, random, seed))}
    answers = {}
    with reporter(progress, "img") as report:
        for number, (name, changed) in enumerate(runs.items()):

            def passed(done: int, total: int, before: int = number) -> None:
                report(before * total + done, len(runs) * total)

            with edit(model, changed, reference=reference):
                answers[name] = answers_of(model, dataset, batch_size=batch_size, progress=passed)
    others = [answers[name] for name in runs if name.startswith("random")]
    return Accuracy(
        model=model.name,
        images=dataset.name,
        classes=class_names(model),
        labels=right,
        answers=answers["clean"],
        edited=answers.get("edited"),
        random=np.stack(others) if others else None,
        provenance=provenance(
            weights=model.digest, images=dataset.name, images_digest=dataset.digest, seed=seed,
            edits=[str(change) for change in changes],
        ),
        groups=None if groups is None else tuple(groups),
    )  # fmt: skip


def labels_of(model: Model, images: Images, labels: Sequence[int | str] | None) -> NDArray[np.int64]:
    """Class of each image `(N,)`: given, of the images, or by the name of its folder.

    Raises:
        CircuitsError: images whose class is not known, or is none of the model's; or it has one class score.
    """
    check_classes(model)
    if labels is None and images.labels is None:
        by_name = labels_by_name(images.ids, model.classes)
        if by_name is None:
            names = sorted({PurePosixPath(i).parts[0] if "/" in i else i for i in images.ids})[:4]
            known = ", ".join(model.classes[:6]) or "not named: give their names as classes= of the model"
            raise CircuitsError(
                f"the class of the images of {images.name} is not known: put those of each class into a folder called "
                f"after it, or give labels. There: {', '.join(names)}; the model's classes are {known}"
            )
        right = np.array(by_name, dtype=np.int64)
    else:
        right = class_labels(model, images, labels)
    if (right < 0).any():
        unknown = np.flatnonzero(right < 0)
        first = int(unknown[0])
        what = f"the label {shorten(labels[first])!r}" if labels is not None else images.ids[first]
        if labels is None and images.labels is not None and images.classes is not None and images.labels[first] >= 0:
            what = f"the class {images.classes[images.labels[first]]!r}"
        raise CircuitsError(
            f"{len(unknown)} of {len(images)} images of {images.name} are of no class of {model.name}, the first by "
            f"{what}; its classes are {', '.join(model.classes[:6])}{', ...' if len(model.classes) > 6 else ''}"
        )
    return right


def class_labels(model: Model, images: Images, labels: Sequence[int | str] | None = None) -> NDArray[np.int64]:
    """Index of the class score of each image, `(N,)`; -1 for a class that the model does not have.

    Classes are compared by their names where images and model have some: the same class may have another index.

    Raises:
        CircuitsError: there are no labels, as many as there are no images, or indices outside the class scores.
    """
    if labels is None and images.labels is None:
        raise CircuitsError(
            f"{images.name} has no labels: give labels=, the class of each image; or, where each folder is a class, "
            "torchvision.datasets.ImageFolder(...) as the images"
        )
    given = list(labels_counted_as(images.labels or [], images.classes, model.classes) if labels is None else labels)
    if len(given) != len(images):
        raise CircuitsError(f"{len(given)} labels for the {len(images)} images of {images.name}")
    index = {name: i for i, name in enumerate(model.classes)}
    try:
        numbers = [index.get(v, -1) if isinstance(v, str) else operator.index(v) for v in given]
    except TypeError as error:
        raise CircuitsError(f"a label is the name of a class, or its number: {shorten(error, 80)}") from error
    indices = np.array(numbers, dtype=np.int64)
    count = model.layer("logits").channels
    outside = indices[(indices < -1) | (indices >= count)]
    if len(outside):
        raise CircuitsError(f"{model.name} has {count} class scores; {images.name} has the label {outside[0]}")
    return indices


def _others(model: Model, images: Images, edits: Sequence[Edit], draws: int, seed: int) -> list[list[Edit]]:
    """The same edits of other units of the same layers, about as active on these images."""
    units = [model.resolve(change.unit) for change in edits]
    if any(u.index is None or u.basis is not None or u.at is not None for u in units):
        raise EditError(
            "units to compare with are sampled for edits of channels: give random=0 for edits of latents, positions "
            "or whole layers"
        )
    members: dict[str, set[int]] = {}
    for unit in units:
        members.setdefault(unit.layer, set()).add(unit.index or 0)
    means = {name: acts.mean(dim=(0, 2, 3)) for name, acts in capture(model, images, at=list(members)).items()}
    rng = np.random.default_rng(seed)
    sampled = []
    for _ in range(draws):
        others = matched(members, means, rng)
        to = {
            (layer, unit): other
            for layer, of in members.items()
            for unit, other in zip(sorted(of), rng.permutation(sorted(others[layer])).tolist(), strict=True)
        }
        sampled.append([
            replace(change, unit=Unit(unit.layer, to[unit.layer, unit.index or 0], unit.model))
            for change, unit in zip(edits, units, strict=True)
        ])  # fmt: skip
    return sampled
