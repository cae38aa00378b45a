"""Repair: hold units still, and measure on held-out images what that mends and what it costs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.class_scores import class_names, scores_of
from circuits.common.provenance import provenance
from circuits.dataset.accuracy import labels_of
from circuits.dataset.audit.inputs import group_names, halves
from circuits.dataset.audit.repair.choice import Labeled, State, choose, last_below
from circuits.dataset.audit.repair.result import Outcome, Repair, outcome
from circuits.dataset.audit.repair.retraining import retrained
from circuits.dataset.audit.repair.tuning import replace_weights, shuffled, tune
from circuits.dataset.audit.results import Audit
from circuits.errors import CircuitsError, EditError
from circuits.network.address import Unit
from circuits.network.hooks import capture
from circuits.network.interventions import Add, Edit, Project, Set, edit
from circuits.network.model import Model
from circuits.network.responses import pooled_responses
from circuits.tracing.curves.null_circuits import matched_units
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import one_of, whole_number
from zoo.images.sources import Images, open_images
from zoo.progress import Progress

How = Literal["mean", "zero", "project", "tune"]

POINTS = 12
"""Numbers of units on the curve, at most."""
COMPARED = 64
"""Images on which the activity of later layers is compared."""


@outside_inference_mode
def repair(
    model: Model,
    images: Any,
    units: Sequence[str | Unit] | None = None,
    *,
    layers: Sequence[str] | None = None,
    how: How | None = None,
    labels: Sequence[int | str] | None = None,
    groups: Any = None,
    held_out: Any = None,
    random: int = 20,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress = None,
) -> Repair:
    """What mending a network is worth on images that nothing was chosen on: weights trained on, or units held still.

    Without units every weight is trained on, on images of which every class and group weighs the same. With units each
    is held at one constant, whatever the image: its mean over images and positions, or zero; or the direction that it
    writes is projected out. "mean" is a constant in the network and is seen as such by what pools it, unlike
    `Ablate(to="mean")`, which holds a pooled map at a mean of its own. Half of the images gives the weights or the
    means, and trains the last layer for comparison; everything is measured on the other half.

    Args:
        model: a model with class scores.
        images: labeled images in any form that `capture` takes.
        units: addresses of channels, or of latents of attached bases; None to train on, or to learn them.
        layers: whose units may be learned; with how="mean" by default the second half of the trunk.
        how: "mean", "zero" or "project" of units; "tune" for every weight trained on. By default "mean" with units or
            layers, else "tune". What is learned ("tune", and "mean" without units) needs groups.
        labels: class of each image, by index or name, where the images have none of their own.
        groups: a name for each image; a CSV file `path,group` or `path,class,group`; or "folders", those below the
            classes'; or an `Audit`: the class of its first shortcut (first possible one, with none) and the others,
            each with and without a high activation of that unit. By default the images' own, where they have any.
        held_out: other images, with labels and groups of their own, to measure on instead of the half.
        random: draws of other units of the same layers, about as active, that are edited in the same way; for "tune"
            of the same changes, at random entries of the same weights.
        batch_size: images per forward pass.
        seed: of the halves and of the other units.
        progress: True for a bar, or a function of (done, total).

    Raises:
        CircuitsError: images without labels; groups that do not fit, or none to learn units with. AddressError: no
            such unit or layer.
        EditError: no units, one twice, or a layer that does not reach the class scores.

    >>> repair(load("scenes-shortcuts/tag-bus-95"), "scenes:shortcuts/tag-bus-95:200", ["conv4:54"]).before.worst
    'others with tag'
    """
    how = how or ("tune" if units is None and layers is None else "mean")
    one_of("how", how, ("mean", "zero", "project", "tune"), error=EditError)
    whole_number("random", random, least=0)
    whole_number("seed", seed, least=0)
    given = None if units is None else _units(model, units)
    if given is not None and layers is not None:
        raise EditError("give units, or the layers whose units are learned (layers=), not both")
    if how == "tune" and (given is not None or layers is not None):
        raise EditError("how='tune' trains every weight: give no units and no layers, or another how=")
    if given is None and how not in ("mean", "tune"):
        raise EditError(f"units are learned for how='mean', not {how!r}: give units")
    fitting, judging = _halves(model, images, labels, groups, held_out, seed)
    return repaired(
        model, given, fitting, judging, layers=layers, how=how, random=random, batch_size=batch_size, seed=seed,
        progress=progress,
    )  # fmt: skip


def repaired(
    model: Model,
    units: list[Unit] | None,
    fitting: Labeled,
    judging: Labeled,
    *,
    layers: Sequence[str] | None = None,
    how: How = "mean",
    random: int = 20,
    points: int = POINTS,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress = None,
) -> Repair:
    """`repair` of images that are opened and split; `points` at most are on the curve."""
    edited: list[Unit] = []
    edits: list[Edit] = []
    counts: list[int] = []
    weights: State = {}
    rate = 0.0
    validated: Mapping[int, float] | Mapping[float, float] = {}
    changes: dict[str, tuple[list[Edit], State]] = {}
    if how == "tune":
        tuning = tune(model, fitting, batch_size=batch_size, seed=seed, progress=progress)
        weights, rate, validated = tuning.weights, tuning.rate, tuning.validated
        changes |= {f"random {i}": ([], shuffled(model, weights, seed + i)) for i in range(random)}
    else:
        if units is None:
            choice = choose(model, fitting, layers, batch_size=batch_size, seed=seed)
            units, validated = list(choice.units), choice.validated
        edited = units
        _check_reach(model, edited, fitting[0])
        means = _means(model, edited, fitting[0], batch_size)
        edits = _edits(edited, how, means)
        rng = np.random.default_rng(seed)
        changes |= {f"random {i}": (_edits(matched_units(edited, means, rng), how, means), {}) for i in range(random)}
        counts = sorted({round(n) for n in np.linspace(1, len(edits), min(points, len(edits)))} - {len(edits)})
        changes |= {f"first {n}": (edits[:n], {}) for n in counts}
    changes |= {"before": ([], {}), "after": (edits, weights)}
    names = class_names(model)
    outcomes: dict[str, Outcome] = {}
    mended = copy.deepcopy(model) if weights else model  # one copy for all draws; the last weights are the repair's
    for name, (of_units, of_weights) in changes.items():
        replace_weights(mended, of_weights)
        with edit(mended if of_weights else model, of_units) as network:
            outcomes[name] = measured(network, judging, names, batch_size, progress)
    plain, training, last = retrained(model, fitting, judging, names, batch_size)
    with edit(mended, edits):
        both, _, last_of_both = retrained(mended, fitting, judging, names, batch_size)
    sizes = dict(zip(*np.unique(np.array(judging[2] or []), return_counts=True), strict=True))
    ways = {"repaired": weights} | {
        way: before | rows for way, before, rows in (("retrained", {}, last), ("both", weights, last_of_both)) if rows
    }
    return Repair(
        model=model.name,
        images=judging[0].name,
        units=tuple(unit.short for unit in edited),
        how=how,
        constants=tuple(float(e.to) if isinstance(e, Set) else None for e in edits),
        group_sizes={str(name): int(count) for name, count in sizes.items()},
        before=outcomes["before"],
        after=outcomes["after"],
        random=tuple(of for name, of in outcomes.items() if name.startswith("random")),
        retrained=plain,
        both=both,
        retraining=training,
        curve={n: outcomes[f"first {n}"] for n in counts} | ({len(edits): outcomes["after"]} if edits else {}),
        activity=_activity(model, mended, edited, edits, judging[0]),
        labels=judging[1],
        provenance=provenance(weights=model.digest, images=judging[0].name, images_digest=judging[0].digest, seed=seed),
        validated=validated,
        rate=rate,
        weights=ways,
    )


def measured(
    model: Model, judging: Labeled, classes: Sequence[str], batch_size: int = 64, progress: Progress = None
) -> Outcome:
    """What the network answers on images of known classes and groups, active edits included."""
    scores = scores_of(model, judging[0], batch_size=batch_size, progress=progress)
    return outcome(scores.double().softmax(dim=1).cpu().numpy(), judging[1], judging[2], classes)


def _halves(model: Model, images: Any, labels: Any, groups: Any, held_out: Any, seed: int) -> tuple[Labeled, Labeled]:
    """Images to fit on, and images to measure on."""

    def opened(source: Any, labels: Any, groups: Any) -> Labeled:
        of = open_images(source)
        if isinstance(groups, Audit):
            right = labels_of(model, of, labels)
            return of, right, _audited_groups(model, groups, of, right)
        names, given = group_names(of, groups)
        return of, labels_of(model, of, given if labels is None else labels), None if names is None else list(names)

    of, right, names = opened(images, labels, groups)
    if held_out is not None:
        other = opened(held_out, None, None)
        if isinstance(groups, Audit):  # measured on groups that are known, where some are
            if other[2] is None:
                other = (*other[:2], _audited_groups(model, groups, *other[:2]))
            return (of, right, names), other
        if names is not None and other[2] is not None and not set(other[2]) & set(names):
            raise CircuitsError(
                f"the groups of {other[0].name} ({', '.join(sorted(set(other[2]))[:4])}) are none of those of "
                f"{of.name} ({', '.join(sorted(set(names))[:4])})"
            )
        return (of, right, names), other
    first, second = (
        (of.subset(half.tolist()), right[half], None if names is None else [names[i] for i in half])
        for half in halves(of, right, names, seed)
    )
    return first, second


def _audited_groups(model: Model, audit: Audit, images: Images, labels: NDArray[np.int64]) -> list[str]:
    """Groups without names for them: the class of the first shortcut or not, its unit's peak high or not.

    Without masks and groups an audit proves none: then it is the first that is possible, and its place is unknown.
    High is above the threshold of the audit, halfway between the medians of the class and of the others.
    """
    suspect = next((s for verdict in ("shortcut", "possible") for s in audit.suspects if s.verdict == verdict), None)
    if suspect is None:
        raise CircuitsError(f"the audit of {audit.model} calls no unit a shortcut: give groups, or name the units")
    if audit.model != model.name:
        raise CircuitsError(f"the audit is of {audit.model}, not of {model.name}")
    unit = model.unit(suspect.unit)
    peaks = pooled_responses(model, images, [unit.space], pool="max")[unit.space][:, unit.index or 0].numpy()
    high, own = peaks > suspect.split.threshold, labels == suspect.class_index
    return [
        f"{suspect.class_name if mine else 'others'} {'with' if cue else 'without'} {unit.short}"
        for mine, cue in zip(own, high, strict=True)
    ]


def _units(model: Model, units: Sequence[str | Unit]) -> list[Unit]:
    """The units that are edited, each once.

    Raises:
        EditError: none, one twice, a position, or a class score.
    """
    if isinstance(units, str | Unit) or not units:
        raise EditError(f"give the units as a list of addresses, such as [{last_below(model) + ':0'!r}]")
    edited = [model.unit(address) for address in units]
    for unit in edited:
        if unit.at is not None:
            raise EditError(f"{unit.short} is one position of a unit: a repair holds the unit everywhere")
        if unit.layer == model.layer("logits").name:
            raise EditError(f"{unit.short} is a class score, and what is repaired lies before it: name a unit below")
    if len(set(edited)) < len(edited):
        twice = next(unit for unit in edited if edited.count(unit) > 1)
        raise EditError(f"{twice.short} is given twice")
    return edited


def _check_reach(model: Model, units: Sequence[Unit], images: Images) -> None:
    """Refuse layers that nothing of the class scores is computed from."""
    few = images.spread(2)
    before = scores_of(model, few)
    for layer in dict.fromkeys(unit.layer for unit in units):
        with edit(model, [Add(layer, 1.0)]):
            after = scores_of(model, few)
        if torch.equal(before, after):
            raise EditError(f"{model.name}/{layer} does not reach the class scores: no edit of its units repairs it")


def _means(model: Model, units: Sequence[Unit], images: Images, batch_size: int) -> dict[str, Tensor]:
    """Layer or basis -> mean of each of its units over images and positions."""
    spaces = list(dict.fromkeys(unit.space for unit in units))
    return {
        name: values.mean(dim=0)
        for name, values in pooled_responses(model, images, spaces, pool="mean", batch_size=batch_size).items()
    }


def _edits(units: Sequence[Unit], how: How, means: Mapping[str, Tensor]) -> list[Edit]:
    if how == "project":
        return [Project(unit) for unit in units]
    return [Set(unit, 0.0 if how == "zero" else float(means[unit.space][unit.index or 0])) for unit in units]


def _activity(
    model: Model, mended: Model, units: Sequence[Unit], edits: Sequence[Edit], images: Images
) -> dict[str, float]:
    """How much activations of trunk layers change: of those after the first edited one, or of all without units."""
    order = list(model.layers)
    first = min((order.index(unit.layer) for unit in units), default=-1)
    edited = {unit.layer for unit in units}
    later = [name for name in model.trunk if order.index(name) > first and name not in edited]
    if not later:
        return {}
    some = images.spread(COMPARED)
    before = capture(model, some, at=later)
    with edit(mended, edits):
        after = capture(mended, some, at=later)
    return {
        name: float((after[name] - before[name]).abs().mean() / before[name].abs().mean().clamp(min=1e-12))
        for name in later
    }
