"""What a classifier leans on that it should not: units that carry a class from off the object, and what they do."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.attribution.class_scores import answers_of, class_name
from circuits.common.examples import Example
from circuits.common.provenance import provenance
from circuits.common.statistics import Estimate, label_auc
from circuits.dataset.audit.description import PARTS, described
from circuits.dataset.audit.effects import DRAWS, HeldOut, Units, share_of
from circuits.dataset.audit.evidence import Evidence, class_evidence
from circuits.dataset.audit.inputs import FEWEST, Inputs, inputs_of, mask_names, nothing_audited
from circuits.dataset.audit.pixels import before, object_masks
from circuits.dataset.audit.results import Audit, ClassAudit, GroupAccuracy, Joint, Suspect
from circuits.dataset.audit.suspicion import (
    agreement,
    attribution_off,
    border,
    candidates,
    class_distance,
    off,
    off_interval,
    suspicion,
)
from circuits.dataset.audit.verdict import MAJORITY, judged, judged_together
from circuits.errors import CircuitsError, ConstantError
from circuits.network.model import Model
from circuits.tracing.ablation.sources import Latents, source_of
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import number, whole_number
from zoo.common.reading import Count, Digest
from zoo.common.results import remembers
from zoo.common.stored import Stored
from zoo.images.sources import Images
from zoo.progress import Progress, reporter

OTHERS = 256
"""Images of other classes that a class is held against, at most; as many of each as there are."""
TRIED = 128
"""Of them those that units are put on, with every suspect and every control."""
IMAGES_SHOWN = 8
VERSION = 4
"""Of what is kept of a finished class: since 2 units are tried together, since 3 it says which act by being low, since
4 how far from the center its evidence lies."""
INDEX = "index.json"


class _Settings(TypedDict):
    images: Digest
    labels: list[Count]
    groups: list[str] | None


class _Index(TypedDict):
    settings: _Settings
    origin: NotRequired[dict[str, Any] | None]


_AUDITS = Stored(
    "the index of an audit",
    "Delete the folder and audit again, or give another one",
    mark={"kind": "vision-circuits audit"},
    shape=_Index,
)


@remembers("model", "images")
@outside_inference_mode
def audit(
    model: Model,
    images: Any,
    *,
    labels: Sequence[int | str] | None = None,
    classes: Sequence[int | str] | None = None,
    annotations: str | os.PathLike[str] | None = None,
    groups: str | os.PathLike[str] | Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    keep: float = 0.8,
    top: int = 5,
    random: int = 20,
    steps: int = 4,
    describe: int = 8,
    store: str | os.PathLike[str] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress = None,
) -> Audit:
    """Look for what a classifier leans on that is not the object, and try each suspect on images it was not found on.

    On one half of the images the units of each layer are ranked by what they give the log odds of each class beyond
    what they give them on other classes' images; the smallest set of them that keeps `keep` of that is looked at. A
    unit's suspicion is

        suspicion = share x off,   off = sum of E outside of the mask / sum of E,   E = max(0, activation x gradient)

    that is, the part of the class's evidence that it brings from off the object. Without masks
    `off = (border + 1 - agreement) / 2`: how far its evidence lies from the center, and how little it lies where that
    of the layer's other units does. There is no weight in it that was fitted. Without masks the suspects of the class
    whose evidence lies farthest from the center come first (`ClassAudit.distance`).

    On the other half the `top` suspects of each class are removed, and put on images of other classes, beside the same
    edits of `random` units of the layer that change as much and that the class does not stand on. A suspect is called
    a shortcut only where an effect exceeds the control's 95 %, and more than half of its evidence lies off the object
    (the interval too), or the given groups tell that it detects one. Where masks tell that several units of a layer lie
    off the object, they are tried together as well, beside random sets of as many others (`Joint`).

    Args:
        model: a classifier.
        images: labeled images, at least ten of a class, in any form that `capture` takes; a folder of folders that are
            called after the classes.
        labels: class of each image, by index or name, where the images have none of their own.
        classes: to audit; by default all that have images.
        annotations: COCO file that outlines the objects. Where categories bear the names of classes, those are the
            objects; else all that is outlined in an image is. Images that are annotated already need none.
        groups: of each image: a list; a CSV file `path,group` or `path,class,group`; "folders" for CLASS/GROUP/IMAGE.
        layers: whose units to look at, or attached dictionaries (`mixed4a~sae`); by default the last two layers of the
            trunk that have positions.
        keep: share of what a layer gives a class that the smallest set keeps.
        top: suspects of a class that are tried.
        random: controls of each.
        steps: of integrated gradients.
        describe: how many of the first suspects are visualized, each by 256 steps of optimization, and asked which
            scores they raise; all have labels by masks and classes. 0: neither labels nor visualizations.
        store: folder in which finished classes are kept; the same call goes on from there.
        seed: of the halves and of everything sampled.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total): the evidence of each class, its suspects, the rest.

    Raises:
        CircuitsError: images without classes, or that do not fit the model; a network at chance; a folder `store` of
            another audit. AddressError: no such layer. ImageError: no images, or annotations that do not fit.

    >>> audit(load("scenes"), "scenes:260", classes=["car"]).claimed
    ()
    """
    number("keep", keep, above=0, most=1)
    for name, value in (("top", top), ("random", random), ("steps", steps)):
        whole_number(name, value)
    whole_number("seed", seed, least=0)
    whole_number("describe", describe, least=0)
    given = inputs_of(model, images, labels=labels, classes=classes, annotations=annotations, groups=groups, seed=seed)
    spaces = _spaces(model, layers)
    answers = answers_of(model, given.images, batch_size=batch_size)
    accuracy, chance = _against_chance(model, given, answers)
    settings = {
        "weights": model.digest, "images": given.images.digest, "labels": given.labels.tolist(), "groups": given.groups,
        "annotations": None if annotations is None else str(annotations), "layers": spaces, "keep": keep, "top": top,
        "random": random, "steps": steps, "seed": seed, "version": VERSION,
    }  # fmt: skip
    folder = None if store is None else _opened(Path(store).expanduser(), settings, given.images)
    audited: list[ClassAudit] = []
    omitted = dict(given.omitted)
    each = len(spaces) + top + 3  # of a class: pixels, layers, backgrounds, suspects, what is written
    total = len(given.classes) * each + PARTS * bool(describe)
    with reporter(progress, "step") as report:
        for done, index in enumerate(given.classes):
            piece = None if folder is None else folder / f"class-{index}.result"
            if piece is not None and piece.is_file():
                audited_class = ClassAudit.load(piece)
                if audited_class.class_index != index:
                    raise _AUDITS.damaged(piece, f"it is of class {audited_class.class_index}")
            else:
                try:
                    audited_class = _of_class(
                        model, given, index, spaces, answers, keep, top, random, steps, seed, batch_size,
                        lambda step, before=done * each: report(before + step, total),  # type: ignore[misc]
                    )  # fmt: skip
                except ConstantError:  # nothing to divide among units
                    omitted[class_name(model, index)] = "its score is the same on all of its images"
                    continue
                if piece is not None:
                    audited_class.save(piece)
            audited.append(audited_class)
            report((done + 1) * each, total)
        if not audited:
            raise nothing_audited(omitted)
        result = Audit(
            model=model.name,
            images=given.images.name,
            layers=tuple(spaces),
            accuracy=accuracy,
            chance=chance,
            classes=tuple(audited),
            omitted=omitted,
            groups=_groups(model, given, answers),
            masks=given.masks,
            keep=keep,
            random=random,
            seed=seed,
            provenance=provenance(
                weights=model.digest, images=given.images.name, images_digest=given.images.digest,
                n_images=len(given.images), seed=seed,
            ),
        )  # fmt: skip
        if describe:
            result = described(
                model, given, result, describe, batch_size, folder, lambda part: report(total - PARTS + part, total)
            )
    return result


def _spaces(model: Model, layers: Sequence[str] | None) -> list[str]:
    """Canonical names of the layers or dictionaries to look at, earliest first."""
    if layers is None:
        placed = [n for n in model.trunk if (s := model.layers[n].size) is not None and s != (1, 1)]
        if not placed:
            raise CircuitsError(f"{model.name} has no trunk layer with positions: name some, layers=[...]")
        return placed[-2:]
    if isinstance(layers, str) or not layers:
        raise CircuitsError("layers= is a list of names, with at least one")
    sources = {(source := source_of(model, name)).name: source for name in layers}
    for source in sources.values():
        if model.layers[source.layer].size in (None, (1, 1)):
            raise CircuitsError(f"{model.name}/{source.layer} has no positions: where its evidence lies is not known")
    return sorted(sources, key=lambda name: model.layers.position(sources[name].layer))


def _against_chance(model: Model, given: Inputs, answers: NDArray[np.int64]) -> tuple[float, float]:
    """Mean accuracy of the classes, and what guessing gives: 1 / number of classes with images.

    Raises:
        CircuitsError: the first is not above the second by more than its standard error times 1.96.
    """
    right = [answers[given.labels == c] == c for c in np.unique(given.labels)]
    accuracy, chance = float(np.mean([r.mean() for r in right])), 1 / len(right)
    error = float(np.sqrt(sum(r.mean() * (1 - r.mean()) / len(r) for r in right))) / len(right)
    if accuracy - 1.96 * error <= chance:
        raise CircuitsError(
            f"{model.name} is right on {accuracy:.2f} of the images of a class, by chance it were {chance:.2f}: there "
            "is nothing to audit (are the classes of the images in the order of the model's, and its input's mean, "
            "std and size those it was trained with?)"
        )
    return accuracy, chance


def read_index(folder: Path) -> dict[str, Any] | None:
    """What an audit of a folder was begun with, and where its images were; None where no audit was begun.

    Raises:
        CircuitsError: it is damaged, or of something else.
    """
    return _AUDITS.read_document(folder / INDEX)


def _opened(folder: Path, settings: dict[str, Any], images: Images) -> Path:
    """The folder of finished classes, begun or gone on with.

    Raises:
        CircuitsError: it holds the classes of another audit, or cannot be written.
    """
    _AUDITS.check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / INDEX
    held = read_index(folder)
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    if held is None:
        origin = None if images.origin is None else dict(images.origin)
        document = {"schema": _AUDITS.schema, **_AUDITS.mark, "settings": settings, "origin": origin}
        _AUDITS.write_json(path, document)
    elif held["settings"] != settings:
        changed = [k for k in settings if held["settings"].get(k) != settings[k]]
        raise CircuitsError(
            f"{folder} holds an audit with other {', '.join(changed)}: give another folder, or begin anew (--replace)"
        )
    return folder


def _of_class(
    model: Model, given: Inputs, index: int, spaces: Sequence[str], answers: NDArray[np.int64],
    keep: float, top: int, random: int, steps: int, seed: int, batch_size: int, report: Callable[[int], None],
) -> ClassAudit:  # fmt: skip
    images = given.images
    find, judge = given.of(given.finding, index), given.of(given.judging, index)
    reference = images.subset(given.others(given.finding, index, OTHERS, seed).tolist())
    others = given.others(given.judging, index, OTHERS, seed)
    tried = given.others(given.judging, index, TRIED, seed)
    held_out = np.concatenate([judge, tried])
    layers = class_evidence(
        model, spaces, index, images.subset(find.tolist()), reference,
        keep=keep, steps=steps, batch_size=batch_size, seed=seed, report=report,
    )  # fmt: skip
    ranked = sorted(
        (
            (suspicion(evidence, unit), space, unit)
            for space, evidence in layers.items()
            for unit in candidates(evidence)
        ),
        key=lambda row: -row[0],
    )[:top]
    conflicts, background, p = _conflicts(model, given, index, judge, others, batch_size, seed)
    report(len(spaces) + 2)
    together, joint = _together(layers, index, seed), None
    rows: list[Suspect] = []
    for space in dict.fromkeys([*(row[1] for row in ranked), *([together[0]] if together else [])]):
        trial = HeldOut(
            model, layers[space], index, images.subset(judge.tolist()), images.subset(tried.tolist()), reference,
            conflicts, batch_size,
        )  # fmt: skip
        if together and together[0] == space:
            joint = _joint(class_name(model, index), trial, together[1], random, seed)
        for _, _, unit in (row for row in ranked if row[1] == space):
            rows.append(_suspect(model, given, index, trial, unit, held_out, answers, random, seed))
            report(len(spaces) + 2 + len(rows))
    ways = given.judging[given.labels[given.judging] != index]
    return ClassAudit(
        class_index=index,
        class_name=class_name(model, index),
        n_images=len(find),
        n_held_out=len(judge),
        accuracy=share_of(answers[judge] == index),
        called=share_of(answers[ways] == index),
        units={s: tuple(f.ablation.sources[s].address(u) for u in f.members) for s, f in layers.items()},
        n_units={s: len(f.shares) for s, f in layers.items()},
        background=background,
        background_p=p,
        suspects=tuple(sorted(rows, key=lambda s: -s.suspicion)),
        joint=joint,
        distance=class_distance(layers.values(), np.random.default_rng([seed, index])),
    )


def _together(layers: Mapping[str, Evidence], index: int, seed: int) -> tuple[str, list[int]] | None:
    """The layer and its units off the object that are tried together; see `Joint` and `ClassAudit`."""
    best: tuple[float, str, list[int]] | None = None
    for space, evidence in layers.items():
        units = []
        for unit in candidates(evidence):
            lies = off_interval(evidence, unit, np.random.default_rng([seed, index, unit]))
            if lies is not None and lies.low > MAJORITY:
                units.append(unit)
        whole = sum(suspicion(evidence, unit) for unit in units)
        source = evidence.ablation.sources[space]
        most = (source.width - isinstance(source, Latents)) // 2
        if 2 <= len(units) <= most and (best is None or whole > best[0]):
            best = whole, space, units
    return None if best is None else best[1:]


def _joint(name: str, trial: HeldOut, units: Sequence[int], random: int, seed: int) -> Joint:
    rng = np.random.default_rng([seed, *units])
    chosen, source = Units(units), trial.source
    controls = trial.control_sets(chosen, random, rng)
    return judged_together(Joint(
        units=tuple(source.address(unit) for unit in units),
        class_name=name,
        share=float(trial.evidence.shares[list(units)].sum()),
        verdict="no",
        reason="",
        removal=trial.removal(chosen, controls, rng),
        insertion=trial.insertion(chosen, controls, rng),
        background=trial.background(chosen, controls, rng),
    ))  # fmt: skip


def _conflicts(
    model: Model, given: Inputs, index: int, judge: NDArray[np.int64], others: NDArray[np.int64], batch_size: int,
    seed: int,
) -> tuple[Images | None, Estimate | None, float | None]:  # fmt: skip
    """Objects of other classes before backgrounds of a class, and how much more often they are then called it.

    More often than before backgrounds of other classes; nothing without masks.
    """
    if not given.masks:
        return None, None, None
    from scipy.stats import binomtest

    rng = np.random.default_rng([seed, index, len(judge)])
    masks = {
        int(i): mask for i, mask in zip((*judge, *others), _masks_of(model, given, (*judge, *others)), strict=True)
    }
    outlined = [np.array([i for i in rows if not np.isnan(masks[int(i)]).any()]) for rows in (judge, others)]
    if not all(map(len, outlined)):
        return None, None, None
    own, objects = outlined
    answers, images = [], []
    fillings = rng.choice(objects, size=len(objects))
    for pool in (own, objects):
        behind = rng.choice(pool, size=len(objects))
        images.append(before(
            model, given.images.subset(objects.tolist()), np.stack([masks[int(i)] for i in objects]),
            given.images.subset(behind.tolist()), np.stack([masks[int(i)] for i in behind]),
            given.images.subset(fillings.tolist()), batch_size,
        ))  # fmt: skip
        answers.append(answers_of(model, images[-1], batch_size=batch_size) == index)
    each = answers[0].astype(float) - answers[1]
    change = Estimate.of(each.mean(), each[rng.integers(len(each), size=(DRAWS, len(each)))].mean(axis=1))
    more, less = int((each > 0).sum()), int((each < 0).sum())
    p = binomtest(more, more + less, alternative="greater").pvalue if more + less else 1.0
    return images[0], change, float(p)


def _masks_of(model: Model, given: Inputs, rows: Sequence[int]) -> list[NDArray[np.float32]]:
    """The object of each image by its own class, as the model is fed it; NaN without a mask."""
    classes = np.unique(given.labels[list(rows)]).tolist()
    parts = {c: mask_names(given.images, class_name(model, c)) for c in classes}
    return [object_masks(given.images.subset([int(i)]), parts[int(given.labels[i])], model)[0] for i in rows]


def _suspect(
    model: Model, given: Inputs, index: int, trial: HeldOut, unit: int, held_out: NDArray[np.int64],
    answers: NDArray[np.int64], random: int, seed: int,
) -> Suspect:  # fmt: skip
    evidence, rng = trial.evidence, np.random.default_rng([seed, index, unit])
    controls = trial.controls(unit, random)
    split = trial.split(unit)
    n_own = trial.n_own
    peaks = trial.cues[:, unit]
    group = None
    if given.groups is not None:  # of both halves: groups had no part in the choice of the unit
        rows = np.concatenate([given.of(given.finding, index), held_out[:n_own]])
        both = np.concatenate([evidence.peaks[:, unit].numpy(), peaks[:n_own]])
        group = _group(given.groups, rows, both, rng)
    order = peaks[:n_own].argsort(kind="stable")
    elsewhere = n_own + peaks[n_own:].argsort(kind="stable")[::-1]
    has = peaks > split.threshold

    def examples(rows: NDArray[np.int64]) -> tuple[Example, ...]:
        numbers = [int(held_out[r]) for r in rows[:IMAGES_SHOWN]]
        box = (0, 0, *model.input.hw)
        return tuple(
            Example(n, given.images.ids[n], (0, 0), float(peaks[r]), box)
            for n, r in zip(numbers, rows[:IMAGES_SHOWN], strict=True)
        )

    return judged(Suspect(
        unit=evidence.ablation.sources[evidence.space].address(unit),
        class_index=index,
        class_name=class_name(model, index),
        verdict="no",
        reason="",
        suspicion=suspicion(evidence, unit),
        share=float(evidence.shares[unit]),
        off=off(evidence, unit),
        off_object=off_interval(evidence, unit, rng),
        attribution_off=attribution_off(evidence, unit),
        border=None if given.masks else border(evidence, unit),
        agreement=None if given.masks else agreement(evidence, unit),
        density=float((evidence.other_peaks[:, unit] > split.threshold).double().mean()),
        removal=trial.removal(Units({unit}), controls, rng),
        insertion=trial.insertion(Units({unit}), controls, rng),
        background=trial.background(Units({unit}), controls, rng),
        split=split,
        low=float(evidence.signs[unit]) < 0,
        accuracies=trial.accuracies(unit, given.labels[held_out], answers[held_out]),
        group=None if group is None else group[0],
        group_auc=None if group is None else group[1],
        with_images=examples(order[::-1][has[order[::-1]]]),
        without_images=examples(order[~has[order]]),
        elsewhere_images=examples(elsewhere[has[elsewhere]]),
    ))  # fmt: skip


def _group(
    groups: Sequence[str], rows: NDArray[np.int64], peaks: NDArray[np.float32], rng: np.random.Generator
) -> tuple[str, Estimate] | None:
    """The group of a class's images that a unit tells apart best, by AUC; None where none is large enough."""
    names = np.array([groups[i] for i in rows])
    best: tuple[str, Estimate] | None = None
    for name in sorted(set(names)):
        inside = names == name
        if min(inside.sum(), (~inside).sum()) < FEWEST:
            continue
        draws = rng.integers(len(peaks), size=(200, len(peaks)))
        samples = [(peaks[d], inside[d]) for d in draws if inside[d].any() and not inside[d].all()]
        areas = [_auc(values, part) for values, part in samples]
        estimate = Estimate.of(_auc(peaks, inside), areas)
        if best is None or estimate.value > best[1].value:
            best = str(name), estimate
    return best


def _auc(values: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    return float(label_auc(torch.from_numpy(values)[:, None], torch.from_numpy(inside)[None])[0, 0])


def _groups(model: Model, given: Inputs, answers: NDArray[np.int64]) -> tuple[GroupAccuracy, ...]:
    """Accuracy of each group on the judging half, worst first."""
    if given.groups is None:
        return ()
    rows: dict[tuple[int, str], list[int]] = {}
    for i in given.judging.tolist():
        rows.setdefault((int(given.labels[i]), given.groups[i]), []).append(i)
    each = [
        GroupAccuracy(class_name(model, c), name, len(own), share_of(answers[own] == c))
        for (c, name), own in sorted(rows.items())
    ]
    return tuple(sorted(each, key=lambda row: row.accuracy.value))
