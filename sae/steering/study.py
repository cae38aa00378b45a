"""How well steering works: its effect on target, its side effects and its cost in capability, factor by factor.

After "Evaluating feature steering" (Durmus et al. 2024): a latent is set to multiples of its largest activation, from
-20 to 20. The range of factors at which capability holds is the sweet spot. The control of every curve takes the
same step, as long at every position, along the write directions of random latents, along random directions and
principal components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.network.basis import Basis
from sae.data.activations import opened
from sae.data.site import Function, Site, chosen
from sae.errors import SAEError
from sae.evaluation.evaluate import PredictionTally
from sae.seeding import CONTROL, generator
from sae.steering.apply import EqualStep, LatentReader
from sae.steering.bases import Dictionary, address_of, basis_at, check_latent
from sae.steering.edits import LatentEdit, When
from sae.steering.max_activations import Maxima, describe_inputs, maxima as measured_maxima
from sae.steering.outcome_metrics import CapabilityMetric, outcome_indices, outcome_names
from sae.steering.side_effects import STEP, EditTemplate, Numbers, SideEffects, on_downstream, on_latents, on_outcomes
from sae.steering.study_result import Curve, Study, sweet_spot
from sae.steering.study_settings import Measure, StudySettings, Writing
from zoo.progress import Progress, reporter

_FEW = 100
"""Inputs that principal components are of."""


@torch.no_grad()
def study(
    site: Site,
    s: Dictionary,
    latent: int,
    inputs: Any,
    *,
    held_out: Any = None,
    maxima: Maxima | None = None,
    downstream: tuple[Site, Dictionary] | None = None,
    settings: StudySettings | None = None,
    progress: Progress = None,
    **options: Any,
) -> Study:
    """Steer a latent by a range of factors, and measure the effect on target, the side effects and capability.

    Args:
        site: a `VisionSite` or `LanguageSite`.
        s: an SAE or another basis of the site; None for its channels.
        latent: its number.
        inputs: images or texts to steer on.
        held_out: labeled images, or texts, on which capability is measured (default: the inputs).
        maxima: of `sae.steering.maxima` (default: measured on the inputs).
        downstream: a later site and its basis (None for its channels), for side effects there.
        settings: see `StudySettings`.
        progress: True for a bar, or a function of (done, total) inputs.
        options: fields of `StudySettings`, in place of those of `settings`.

    Raises:
        SAEError: no such latent, a latent that is never active, no such class or token, inputs without labels that
            capability needs, settings out of range.

    >>> study(site, s, 12, "scenes:200", targets=["car"], factors=(-2, -1, 0, 1, 2)).sweet_spot  # doctest: +SKIP
    (-1.0, 2.0)
    """
    settings = replace(settings or StudySettings(), **options)
    basis = basis_at(s, site)
    check_latent(latent, basis)
    text = "token" in site.axes
    if text and settings.positions == "last":
        raise SAEError("in a text that is being generated every token is the last once: number them, positions=(5,)")
    factors, seed, batch_size = tuple(settings.factors), settings.seed, settings.batch_size
    writing = settings.targets if isinstance(settings.targets, Writing) else None
    inputs = opened(site, inputs)
    held_out = None if held_out is None else opened(site, held_out)
    judged_by_text = writing is not None and settings.capability in writing.beside
    metric = CapabilityMetric(
        None if judged_by_text else settings.capability, site, inputs if held_out is None else held_out
    )
    maxima = maxima or measured_maxima(s, site, inputs, batch_size=batch_size)
    maxima.of(latent)  # refuses a latent that is never active
    control = maxima.random_active(settings.random, exclude=[latent], seed=seed)
    latents = [latent, *control]
    peaks = [maxima.of(i) for i in latents]
    conditions = _absolute(settings.when, basis, maxima)
    reader = LatentReader(basis, {*latents, *(condition.latent for condition in conditions)})
    template = EditTemplate(site, basis, settings.kind, settings.positions, conditions, reader)
    own = [template.at_factor(latent, factor, peaks[0]) for factor in factors]
    aside = _directions(site, inputs, settings, batch_size)
    equal = [basis.write[i].detach() for i in control] if settings.step == "equal" else []
    steered: list[Function] = [*own]
    if settings.step == "own":
        steered += [
            template.at_factor(i, factor, peak)
            for i, peak in zip(control, peaks[1:], strict=True)
            for factor in factors
        ]
    steered += [EqualStep(edit, {latent: along}) for along in (*equal, *aside.values()) for edit in own]
    perturbed = [
        template.perturbed(i, sign * step * peak, sign * scale)
        for i, peak in zip(latents, peaks, strict=True)
        for step, scale in template.steps
        for sign in (1, -1)
    ]
    targets = None if settings.targets is None or writing else outcome_indices(site, settings.targets, inputs)  # type: ignore[arg-type]
    with reporter(progress, "inputs") as report:
        total = len(inputs) + (0 if held_out is None else len(held_out))
        outcomes = _run(site, inputs, [*steered, *perturbed], targets, metric if held_out is None else None, batch_size,
                        lambda done, _: report(done, total))  # fmt: skip
        judged = outcomes if held_out is None else _run(
            site, held_out, steered, None, metric, batch_size, lambda done, _: report(len(inputs) + done, total)
        )  # fmt: skip
    shape = (len(latents) + len(aside), len(factors))
    split = partial(_curve, shape=shape, random=len(control))
    capability = split(metric.name, metric.values(judged.predictions))
    beside: list[Curve] = []
    if writing is not None:
        effect, *beside = _written(site, writing, steered, split, seed)
        if judged_by_text:
            swapped = [curve.what for curve in beside].index(str(settings.capability))
            capability, beside[swapped] = beside[swapped], capability
    spot = sweet_spot(
        factors, capability.values.tolist(), capability.clean, settings.tolerance, lower=capability.what == "loss",
        around=settings.neutral,
    )  # fmt: skip
    factor = _default_factor(factors, spot, settings.neutral) if settings.at is None else float(settings.at)
    column = factors.index(factor)
    clean = outcomes.scores[0]
    scores = outcomes.scores[1 : len(steered) + 1].reshape(*shape, -1)
    slopes = outcomes.scores[len(steered) + 1 :].reshape(len(latents), len(template.steps), 2, -1)
    slopes = (slopes[:, :, 0] - slopes[:, :, 1]) / (2 * STEP)  # central differences
    if targets is not None:
        targets_of = [list(targets)] * shape[0]
    else:  # of each latent its own: the outcome that it increases most
        targets_of = [[int((row[column] - clean).argmax())] for row in scores]
    first_order = None
    if writing is None:
        effect = _on_target(outcomes, targets_of, settings.measure, split, shape, own_targets=targets is None)
        if settings.measure == "score":
            first_order = effect.clean + np.array(
                [template.first_order(slopes[0], f)[targets_of[0]].mean() for f in factors]
            )
    names = outcome_names(site, outcomes.scores.shape[1])
    predicted = template.first_order(slopes, factor)
    on, change = "tokens" if text else "classes", scores[0, column] - clean
    effects: dict[str, SideEffects] = {
        "classes": on_outcomes(
            names, predicted[0], predicted[1:], change, [] if writing else targets_of[0], factor, on=on
        )
    }
    if template.predicts_latents:
        effects["latents"] = on_latents(
            site, s, latent, own[column], control, inputs, factor, name=settings.name, batch_size=batch_size
        )
    if downstream is not None:
        effects["downstream"] = on_downstream(
            template, latents, peaks, downstream, inputs, factor, outcomes_change=bool((change != 0).any()),
            batch_size=batch_size,
        )  # fmt: skip
    write = basis.write.detach().double().cpu()
    lengths = [float(write[i].norm()) * peak for i, peak in zip(latents, peaks, strict=True)]
    if settings.step == "equal":
        lengths = lengths[:1] * len(latents)
    units = [address_of(i, s, site, settings.name) for i in latents]
    return Study(
        unit=units[0],
        latent=latent,
        kind=settings.kind,
        everywhere=isinstance(settings.positions, str) and not conditions,
        factors=factors,
        maximum=peaks[0],
        length=lengths[0],
        targets=(writing.name,) if writing else tuple(names[i] for i in targets_of[0]),
        chosen=settings.targets is None,
        effect=effect,
        first_order=first_order,
        capability=capability,
        tolerance=settings.tolerance,
        sweet_spot=spot,
        at=factor,
        side_effects=effects,
        control=tuple(units[1:]),
        control_lengths=tuple(lengths[1:]),
        inputs=describe_inputs(inputs),
        held_out=describe_inputs(inputs if held_out is None else held_out),
        measured_on=maxima.inputs,
        provenance=provenance(weights=site.metadata.get("weights_digest"), dictionary=maxima.dictionary, seed=seed),
        beside=tuple(beside),
        step=settings.step,
        directions=tuple(aside),
    )


def _directions(site: Site, inputs: Any, settings: StudySettings, batch_size: int) -> dict[str, Tensor]:
    """Name -> `(d,)`: random directions and principal components of the activations on some of the inputs."""
    random = generator(settings.seed, CONTROL, 3)
    named = {f"random direction {i + 1}": torch.randn(site.d, generator=random) for i in range(settings.directions)}
    if settings.components:
        some = inputs if len(inputs) <= _FEW else chosen(inputs, range(_FEW))
        vectors = torch.cat(
            [block.vectors.float().cpu() for block in site.blocks(some, batch_size=batch_size)]
        ).double()
        vectors -= vectors.mean(dim=0)
        axes = torch.linalg.eigh(vectors.T @ vectors).eigenvectors.flip(1).T[: settings.components]
        reach = (vectors @ axes.T).pow(3).sum(dim=0)  # the side on which activations reach farther
        for i, axis in enumerate(axes * torch.where(reach < 0, -1.0, 1.0)[:, None]):
            named[f"principal component {i + 1}"] = axis.float()
    return named


def _absolute(when: When | Sequence[When], basis: Basis, maxima: Maxima) -> tuple[When, ...]:
    """Conditions with limits in absolute activations."""
    conditions = LatentEdit(0, "ablate", when=tuple([when] if isinstance(when, When) else when)).conditions
    absolute: list[When] = []
    for condition in conditions:
        check_latent(condition.latent, basis)
        scale = maxima.of(condition.latent) if condition.unit == "max" else 1.0
        above, below = (None if limit is None else limit * scale for limit in (condition.above, condition.below))
        absolute.append(replace(condition, above=above, below=below, unit="absolute"))
    return tuple(absolute)


def _default_factor(factors: Sequence[float], spot: tuple[float, float] | None, neutral: float) -> float:
    if spot is not None and spot[1] > neutral:
        return spot[1]
    above = [f for f in factors if f > neutral]
    return above[0] if above else max(factors, key=lambda f: abs(f - neutral))


@dataclass
class _Outcomes:
    """Means over predictions, a row for the network as it is and for each variant.

    Scores, probabilities and log-probabilities `(variants, outcomes)`; `targets` `(variants,)` is the mean
    log-probability of any of the targets.
    """

    scores: Numbers
    probabilities: Numbers
    log_probabilities: Numbers
    targets: Numbers | None
    predictions: list[PredictionTally]


def _run(
    site: Site, inputs: Any, variants: Sequence[Function], targets: Sequence[int] | None,
    metric: CapabilityMetric | None, batch_size: int, report: Callable[[int, int], None],
) -> _Outcomes:  # fmt: skip
    """Run the network as it is, and in all variants."""
    tallies = [PredictionTally() for _ in range(len(variants) + 1)]
    totals: list[list[Tensor]] = []
    count = 0
    for scores, labels in site.predictions(inputs, [None, *variants], batch_size=batch_size, progress=report):
        if not totals:
            totals = [
                [torch.zeros(shape, dtype=torch.float64) for shape in (*[scores[0].shape[1:]] * 3, ())] for _ in scores
            ]
        count += len(scores[0])
        clean = scores[0].double().log_softmax(dim=1)
        for total, tally, variant in zip(totals, tallies, scores, strict=True):
            logs = variant.float().log_softmax(dim=1)
            total[0] += variant.double().sum(dim=0).cpu()
            total[1] += logs.exp().double().sum(dim=0).cpu()
            total[2] += logs.double().sum(dim=0).cpu()
            if targets is not None:
                total[3] += logs[:, list(targets)].logsumexp(dim=1).double().sum().cpu()
            if metric is not None:
                tally.add(variant, clean, metric.labels(labels))
    if not count:
        raise SAEError(f"{site.address}: nothing is predicted on {len(inputs)} inputs")
    means = [np.array([(total[i] / count).numpy() for total in totals]) for i in range(4)]
    return _Outcomes(means[0], means[1], means[2], None if targets is None else means[3], tallies)


def _on_target(
    outcomes: _Outcomes, targets_of: Sequence[Sequence[int]], measure: Measure, split: Callable[[str, Numbers], Curve],
    shape: tuple[int, int], *, own_targets: bool,
) -> Curve:  # fmt: skip
    def value(row: int, targets: Sequence[int]) -> float:
        if measure == "log_probability" and outcomes.targets is not None:
            return float(outcomes.targets[row])
        if measure == "probability":
            return float(outcomes.probabilities[row, list(targets)].sum())
        means = outcomes.scores if measure == "score" else outcomes.log_probabilities
        return float(means[row, list(targets)].mean())

    rows = np.array(
        [[value(1 + i * shape[1] + j, targets_of[i]) for j in range(shape[1])] for i in range(shape[0])],
        dtype=np.float64,
    )
    clean = value(0, targets_of[0])
    if own_targets:  # each starts from another clean value: shift all to start from that of the studied latent
        rows[1:] += clean - np.array([[value(0, targets)] for targets in targets_of[1:]])
    return split(measure, np.array([clean, *rows.flatten()]))


def _written(
    site: Any, writing: Writing, variants: Sequence[Function], split: Callable[[str, Numbers], Curve], seed: int
) -> list[Curve]:  # fmt: skip
    """The effect on generated texts, then the numbers beside it, all of the same texts."""
    if not hasattr(site, "generate"):
        raise SAEError(f"{site.address} writes no texts: name classes as targets")
    functions = {writing.name: writing.function, **writing.beside}

    def values(variant: Function | None) -> list[float]:
        with nullcontext() if variant is None else site.replaced(variant):
            texts = site.generate(
                list(writing.prompts), max_new_tokens=writing.max_new_tokens, temperature=writing.temperature, seed=seed
            )
        return [float(np.mean([function(text.whole) for text in texts])) for function in functions.values()]

    rows = np.array([values(variant) for variant in (None, *variants)], dtype=np.float64)
    return [split(name, rows[:, i]) for i, name in enumerate(functions)]


def _curve(name: str, values: Numbers, *, shape: tuple[int, int], random: int) -> Curve:
    """A curve from the value of the unsteered network, then those of each latent and direction at all factors."""
    rows = values[1 : shape[0] * shape[1] + 1].reshape(shape)
    return Curve(name, float(values[0]), rows[0], rows[1 : 1 + random], rows[1 + random :])
