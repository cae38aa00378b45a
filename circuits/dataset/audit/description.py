"""What the suspects of an audit are: labels by masks, by classes and by the scores that they raise, and visualizations.

A label is a finding like any other: it is chosen on one half of the images, measured on the other, and held against as
many random directions of the layer as there are units. Where a unit does not exceed them it has no label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.class_scores import ClassScores, class_name
from circuits.common.statistics import bootstrap, label_auc
from circuits.dataset.audit.evidence import levels_of
from circuits.dataset.audit.inputs import Inputs
from circuits.dataset.audit.results import Audit, Label, Suspect
from circuits.dataset.labels.label import label
from circuits.errors import CircuitsError
from circuits.network.hooks import read
from circuits.network.model import Model
from circuits.tracing.ablation.sources import Latents, source_of
from circuits.visualization import Visualization, visualize
from zoo.common.results import Result

MASKED = 256
"""Held-out images with outlines that masks label units on, at most; of each half those that classes do."""
PUSHED = 32
"""Images of each half on which the scores are looked at that a unit raises."""
RANDOM = 20
"""Random directions that those are held against."""
DRAWS = 200
FILE = "descriptions.result"
PARTS = 10
"""Steps of progress: one for each kind of label, the others for the visualizations."""


@dataclass(frozen=True)
class Descriptions(Result):
    """Labels and visualizations of the suspects of an audit, as a folder of finished classes keeps them.

    Attributes:
        count: suspects that were to be visualized; suspects: addresses of all, in order.
        labels: of each; visualizations: of the first ones; None where there could be none.
        omitted: what was not done -> why.
    """

    count: int
    suspects: tuple[str, ...]
    labels: tuple[tuple[Label, ...], ...]
    visualizations: tuple[Visualization | None, ...]
    omitted: dict[str, str]


def described(
    model: Model, given: Inputs, audit: Audit, count: int, batch_size: int, folder: Path | None,
    report: Callable[[int], None],
) -> Audit:  # fmt: skip
    """An audit whose suspects have labels, and the first `count` of them visualizations.

    Args:
        model: the model; given: the audited images.
        audit: without descriptions.
        count: of visualizations.
        batch_size: images per forward pass.
        folder: where they are kept, and read if they are there already.
        report: called with how many of the `PARTS` are done.
    """
    suspects = audit.suspects
    path = None if folder is None else folder / FILE
    held = Descriptions.load(path) if path is not None and path.is_file() else None
    if held is None or (held.count, held.suspects) != (count, tuple(s.unit for s in suspects)):
        held = _descriptions(model, given, suspects, count, audit.seed, batch_size, report)
        if path is not None:
            held.save(path)
    report(PARTS)
    pictured = dict(enumerate(held.visualizations))
    known = {
        (s.class_index, s.unit): (held.labels[i], pictured.get(i)) for i, s in enumerate(suspects)
    }  # fmt: skip
    classes = tuple(
        replace(c, suspects=tuple(_with(s, *known[s.class_index, s.unit]) for s in c.suspects)) for c in audit.classes
    )
    return replace(audit, classes=classes, undescribed=held.omitted)


def _with(suspect: Suspect, labels: tuple[Label, ...], visualization: Visualization | None) -> Suspect:
    text = "; ".join(entry.text for entry in labels)
    return replace(suspect, label=text, labels=labels, visualization=visualization)


def _descriptions(
    model: Model, given: Inputs, suspects: Sequence[Suspect], count: int, seed: int, batch_size: int,
    report: Callable[[int], None],
) -> Descriptions:  # fmt: skip
    omitted: dict[str, str] = {}
    units = list(dict.fromkeys(s.unit for s in suspects))
    first = list(dict.fromkeys(s.unit for s in suspects[:count]))
    labels: dict[str, list[Label]] = {unit: [] for unit in units}
    kinds: tuple[Callable[[], dict[str, Label]], ...] = (
        lambda: by_masks(model, given, units, seed, batch_size, omitted),
        lambda: by_classes(model, given, units, seed, batch_size),
        lambda: by_scores(model, given, first, seed, omitted),
    )
    for done, kind in enumerate(kinds, start=1):
        for unit, entry in kind().items():
            labels[unit].append(entry)
        report(done)
    rest = PARTS - len(kinds)
    images = _visualizations(
        model, suspects[:count], seed, omitted, lambda done, total: report(len(kinds) + rest * done // max(1, total))
    )
    return Descriptions(
        count,
        tuple(s.unit for s in suspects),
        tuple(tuple(labels[s.unit]) for s in suspects),
        tuple(images.get((s.unit, s.low)) for s in suspects[:count]),
        omitted,
    )


def _visualizations(
    model: Model, suspects: Sequence[Suspect], seed: int, omitted: dict[str, str], progress: Callable[[int, int], None]
) -> dict[tuple[str, bool], Visualization]:
    """Unit and whether it acts by being low -> an optimized image, then a negative one; none that does not activate."""
    images: dict[tuple[str, bool], Visualization] = {}
    both = {low: list(dict.fromkeys(s.unit for s in suspects if s.low == low)) for low in (False, True)}
    turns = [(low, units) for low, units in both.items() if units]
    for turn, (low, units) in enumerate(turns):

        def tick(done: int, total: int, before: int = turn) -> None:
            progress(before * total + done, len(turns) * total)

        try:
            optimized = visualize(model, units, seed=seed, optimum="negative" if low else "positive", progress=tick)
            images |= {(unit, low): image for unit, image in zip(units, optimized, strict=True) if image.status == "ok"}
        except CircuitsError as error:
            omitted["visualizations"] = str(error)
    return images


def by_masks(
    model: Model, given: Inputs, units: Sequence[str], seed: int, batch_size: int, omitted: dict[str, str]
) -> dict[str, Label]:
    """Unit -> the part that it detects, by `circuits.label` on the held-out images that are outlined."""
    annotations = given.images.annotations
    if annotations is None:
        omitted["labels by masks"] = "the objects are not outlined"
        return {}
    rng = np.random.default_rng(seed)
    outlined = np.array([i for i in given.judging.tolist() if annotations[i].parts])
    chosen = np.sort(rng.permutation(outlined)[:MASKED])
    try:
        known = label(
            model, given.images.subset(chosen.tolist()), layers=list(_by_space(model, units)), seed=seed,
            draws=DRAWS, batch_size=batch_size,
        )  # fmt: skip
    except CircuitsError as error:
        omitted["labels by masks"] = str(error)
        return {}
    names = known.names()
    rows = {unit: known.of(unit)[0] for unit in units if unit in names}
    return {u: Label("masks", r.part, r.auc, r.low, r.high, r.control) for u, r in rows.items()}


def by_classes(model: Model, given: Inputs, units: Sequence[str], seed: int, batch_size: int) -> dict[str, Label]:
    """Unit -> the class on whose images it is most active, by AUC of its largest activation.

    The class is chosen on the finding half. The whole interval on the other half must lie above the AUC of the random
    direction that is best for the class on the first.
    """
    halves = [_balanced(given, half, MASKED, seed) for half in (given.finding, given.judging)]
    classes = np.unique(given.labels)
    inside = [torch.from_numpy(given.labels[half][None] == classes[:, None]) for half in halves]
    entries: dict[str, Label] = {}
    for space, numbers in _by_space(model, units).items():
        generator = torch.Generator().manual_seed(seed)
        peaks = [_peaks(model, given, half, space, generator.manual_seed(seed), batch_size) for half in halves]
        (own, random), (own_later, random_later) = peaks
        first, later = (label_auc(values, part) for values, part in zip((own, own_later), inside, strict=True))
        best = label_auc(random, inside[0]).nan_to_num(0).argmax(dim=1, keepdim=True)
        control = label_auc(random_later, inside[1]).gather(1, best)[:, 0]
        for unit, number in numbers.items():
            k = int(first[:, number].nan_to_num(0).argmax())
            column, part = own_later[:, number : number + 1], inside[1][k]
            if not part.any() or part.all():
                continue
            low, high = bootstrap(column[part], column[~part], draws=DRAWS, generator=generator)
            if float(low) > max(0.5, float(control[k])):
                entries[unit] = Label(
                    "classes", class_name(model, int(classes[k])), float(later[k, number]), float(low), float(high),
                    float(control[k]),
                )  # fmt: skip
    return entries


def _peaks(
    model: Model, given: Inputs, rows: NDArray[np.int64], space: str, generator: torch.Generator, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Largest activation on each image, of units and of as many random directions as the layer has channels."""
    source = source_of(model, space)
    layer = model.layers[source.layer]
    directions = torch.randn(layer.channels, layer.channels, generator=generator).to(model.device)
    own, random = [], []
    with torch.no_grad():
        for _, batch in given.images.subset(rows.tolist()).batches(model.input, batch_size=batch_size):
            maps = read(model, batch, [layer])[layer.name]
            own.append(levels_of(source.activity(source.parts(maps))).peaks)
            random.append(levels_of(torch.einsum("nchw,kc->nkhw", maps.float(), directions)).peaks)
    return torch.cat(own), torch.cat(random)


def by_scores(
    model: Model, given: Inputs, units: Sequence[str], seed: int, omitted: dict[str, str]
) -> dict[str, Label]:
    """Unit -> the class whose score it raises most, of all that the model has (`ClassScores.pushes`).

    The class is the same on images of both halves, and raised more than any of 20 random directions, of the same length
    and at the same positions, raises any class.
    """
    halves = [_balanced(given, half, PUSHED, seed) for half in (given.finding, given.judging)]
    entries: dict[str, Label] = {}
    for space, numbers in _by_space(model, units).items():
        source = source_of(model, space)
        width = model.layers[source.layer].channels
        rows = list(numbers.values())
        own = source.write[rows].cpu() if isinstance(source, Latents) else torch.eye(width)[rows]
        random = torch.randn(RANDOM, width, generator=torch.Generator().manual_seed(seed))
        try:
            scores = ClassScores(model, source.layer)
        except CircuitsError as error:  # a branch, which is a part of a layer
            omitted["labels by scores"] = str(error)
            continue
        changes = []
        for half in halves:
            pixels = given.images.subset(half.tolist()).tensor(model.input).to(model.device)
            acts, context = scores.begin(pixels)
            pushes = scores.pushes(acts, context, torch.cat([own, random]))
            changes.append(pushes - pushes.mean(dim=1, keepdim=True))  # what all scores gain changes no answer
        for row, unit in enumerate(numbers):
            k = int(changes[0][row].argmax())
            value, control = float(changes[1][row, k]), float(changes[1][len(rows) :].max())
            if k == int(changes[1][row].argmax()) and value > max(0.0, control):
                entries[unit] = Label("scores", class_name(model, k), value, None, None, control)
    return entries


def _balanced(given: Inputs, half: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """At most so many images of a half, as many of each class as there are."""
    return given.others(half, int(given.labels.max()) + 1, most, seed)


def _by_space(model: Model, units: Sequence[str]) -> dict[str, dict[str, int]]:
    """Layer or dictionary -> its units by address, with their numbers."""
    resolved = [(unit, model.resolve(unit)) for unit in sorted(units)]
    return {
        space: {unit: int(at.index) for unit, at in rows if at.index is not None}
        for space, rows in groupby(resolved, key=lambda row: row[1].space)
    }
