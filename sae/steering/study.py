"""How well steering works: what it does on target, off target, and to what the network can do, factor by factor.

After "Evaluating feature steering" (Durmus et al. 2024): a latent is set to multiples of its largest activation, from
-20 to 20; where capability holds is the sweet spot. Every curve stands beside those of random latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.network.basis import Basis
from sae.checks import whole
from sae.data.activations import opened
from sae.data.site import Function, Site
from sae.errors import SAEError, shorten
from sae.evaluation.evaluate import _Predictions
from sae.seeding import CONTROL, generator
from sae.steering.apply import Reading
from sae.steering.bases import Dictionary, basis_at, check_latent, name_of
from sae.steering.edits import LatentEdit, When
from sae.steering.max_activations import Maxima, about_inputs
from sae.steering.max_activations import maxima as measured_maxima
from sae.steering.outcome_metrics import Known, indices_of, names_of
from sae.steering.side_effects import (
    STEP,
    Dial,
    Numbers,
    has_others,
    on_downstream,
    on_latents,
    on_outcomes,
)
from sae.steering.study_result import Curve, Study, Writing, sweet_spot
from zoo.progress import Progress, reporter

FACTORS = (-20.0, -15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
Measure: TypeAlias = Literal["probability", "log_probability", "score"]
Capability: TypeAlias = str
"""`"top1"`, `"loss"`, `"agreement"`, or the name of a number in `Writing.beside`."""


@torch.no_grad()
def study(
    site: Site,
    s: Dictionary,
    latent: int,
    inputs: Any,
    *,
    held_out: Any = None,
    targets: Sequence[str | int] | Writing | None = None,
    factors: Sequence[float] = FACTORS,
    kind: Literal["set", "add", "scale"] = "set",
    places: Any = "all",
    when: When | Sequence[When] = (),
    measure: Measure = "probability",
    capability: Capability | None = None,
    tolerance: float = 0.05,
    at: float | None = None,
    maxima: Maxima | None = None,
    random: int = 8,
    downstream: tuple[Site, Dictionary] | None = None,
    name: str = "sae",
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = None,
) -> Study:
    """Turn a latent up and down, and measure what that does: on target, to everything else, and to capability.

    Args:
        site: a `VisionSite` or `LanguageSite`.
        s: an SAE or another basis of the site; None for its channels.
        latent: its number.
        inputs: pictures or texts to steer on.
        held_out: labeled pictures, or texts, that capability is measured on (default: the inputs).
        targets: classes or tokens (names or numbers) that it is meant to bring about, together; `Writing` for a
            number of texts written; by default the class whose score it increases most at `at`, chosen anew for each
            random latent, too.
        factors: multiples of the latent's maximum.
        kind: "set" the latent to them (then 0 ablates it), "add" them; or "scale", where factors are no multiples of
            the maximum, but what the latent is multiplied by where it fires (then 1 changes nothing).
        places: where, as `LatentEdit.at` has it; by default everywhere, which few networks stand much of. Of texts
            tokens, counted from the beginning of each text, what is written after a prompt included.
        when: conditions on other latents, as `LatentEdit.when` has them: where one does not hold nothing is steered.
        measure: of the targets: mean "probability" of any of them, mean "log_probability" of that, or mean "score".
        capability: "top1" (default for pictures), "loss" (default for texts), "agreement" with the clean network's
            first choice, which needs no labels, or the name of a number in `Writing.beside`.
        tolerance: share of the clean capability that may be lost in the sweet spot.
        at: factor to tell side effects for (default: the largest in the sweet spot that changes anything; where
            there is none the smallest above).
        maxima: of `sae.steering.maxima` (default: measured on the inputs).
        random: how many random latents, of those that fire, are the control.
        downstream: a later site and its basis (None for its channels), to look for side effects there, too.
        name: what the basis is called in addresses.
        batch_size: inputs per forward pass.
        seed: of the draw of the control, and of texts written.
        progress: True for a bar, or a function of (done, total) inputs.

    Raises:
        SAEError: no such latent, one that never fires, no such class or token, nothing to measure capability by.

    >>> study(site, s, 12, "scenes:200", targets=["car"], factors=(-2, -1, 0, 1, 2)).sweet_spot  # doctest: +SKIP
    (-1.0, 2.0)
    """
    basis = basis_at(s, site)
    check_latent(latent, basis)
    if "token" in site.axes and places == "last":
        raise SAEError("the last token of a text that is being written is every one in turn: name tokens, places=(5,)")
    levels = _checked(factors, kind, measure, tolerance, at)
    whole("random", random)
    some = opened(site, inputs)
    others = None if held_out is None else opened(site, held_out)
    by_writing = isinstance(targets, Writing) and capability in targets.beside
    known = Known(None if by_writing else capability, site, some if others is None else others)
    strengths = maxima or measured_maxima(s, site, some, batch_size=batch_size)
    control = _control(strengths, latent, random, seed)
    latents = [latent, *control]
    tops = [strengths.of(i) for i in latents]
    conditions = _absolute(when, basis, strengths)
    reading = Reading(basis, {*latents, *(one.latent for one in conditions)})
    dial = Dial(site, basis, kind, places, conditions, reading)
    known_top = list(zip(latents, tops, strict=True))
    ways = [dial.turned(i, f, top) for i, top in known_top for f in levels]
    slopes = [
        dial.nudged(i, sign * step * top, sign * scale)
        for i, top in known_top
        for step, scale in dial.steps
        for sign in (1, -1)
    ]
    asked = None if targets is None or isinstance(targets, Writing) else indices_of(site, targets, some)
    with reporter(progress, "inputs") as told:
        total = len(some) + (0 if others is None else len(others))
        main = _run(site, some, [*ways, *slopes], asked, known if others is None else None, batch_size,
                    lambda done, _: told(done, total))  # fmt: skip
        held = main if others is None else _run(
            site, others, ways, None, known, batch_size, lambda done, _: told(len(some) + done, total)
        )  # fmt: skip
    shape = (len(latents), len(levels))
    able = known.values(held.predictions)
    able_curve = _curve(known.what, able, shape)
    beside: list[Curve] = []
    if isinstance(targets, Writing):
        effect, *beside = _written(site, targets, ways, shape, seed)
        if by_writing:
            at_hand = [one.what for one in beside].index(str(capability))
            able_curve, beside[at_hand] = beside[at_hand], able_curve
    spot = sweet_spot(
        levels, able_curve.values.tolist(), able_curve.clean, tolerance, lower=able_curve.what == "loss",
        around=1.0 if kind == "scale" else 0.0,
    )  # fmt: skip
    factor = _at(levels, spot, 1.0 if kind == "scale" else 0.0) if at is None else float(at)
    scores = main.scores[1 : len(ways) + 1].reshape(*shape, -1)
    rates = main.scores[len(ways) + 1 :].reshape(len(latents), len(dial.steps), 2, -1)
    rates = (rates[:, :, 0] - rates[:, :, 1]) / (2 * STEP)
    meant = [list(asked)] * len(latents) if asked is not None else []
    column = levels.index(factor)
    if asked is None:
        meant = [[int((row[column] - main.scores[0]).argmax())] for row in scores]
    first = None
    if not isinstance(targets, Writing):
        effect = _on_target(main, meant, measure, shape, asked is not None)
        if measure == "score":
            first = effect.clean + np.array([dial.estimate(rates[0], f)[meant[0]].mean() for f in levels])
    names = names_of(site, main.scores.shape[1])
    predicted = dial.estimate(rates, factor)
    effects = {
        "classes": on_outcomes(
            names, predicted[0], predicted[1:], scores[0, column] - main.scores[0],
            [] if isinstance(targets, Writing) else meant[0], factor,
            on="tokens" if "token" in site.axes else "classes",
        )
    }  # fmt: skip
    if has_others(basis):
        effects["latents"] = on_latents(
            site, s, latent, ways[column], control, some, factor, name=name, batch_size=batch_size
        )
    if downstream is not None:
        effects["downstream"] = on_downstream(
            dial,
            latents,
            tops,
            downstream,
            some,
            factor,
            moved=bool((scores[0, column] != main.scores[0]).any()),
            batch_size=batch_size,
        )
    write = basis.write.detach().double().cpu()
    lengths = [float(write[i].norm()) * top for i, top in zip(latents, tops, strict=True)]
    return Study(
        unit=name_of(latent, s, site, name),
        latent=latent,
        kind=kind,
        everywhere=isinstance(places, str) and not conditions,
        factors=levels,
        maximum=tops[0],
        length=lengths[0],
        targets=(targets.name,) if isinstance(targets, Writing) else tuple(names[i] for i in meant[0]),
        chosen=targets is None,
        effect=effect,
        first_order=first,
        capability=able_curve,
        tolerance=tolerance,
        sweet_spot=spot,
        at=factor,
        side_effects=effects,
        control=tuple(name_of(i, s, site, name) for i in control),
        control_lengths=tuple(lengths[1:]),
        inputs=about_inputs(some),
        held_out=about_inputs(some if others is None else others),
        measured_on=strengths.inputs,
        provenance=provenance(weights=site.metadata.get("weights_digest"), dictionary=strengths.dictionary, seed=seed),
        beside=tuple(beside),
    )


def _checked(
    factors: Sequence[float], kind: str, measure: str, tolerance: float, at: float | None
) -> tuple[float, ...]:
    if isinstance(factors, str) or not len(factors) or not all(np.isfinite(f) for f in factors):
        raise SAEError(f"factors are finite numbers, at least one; got {shorten(factors)}")
    if kind not in ("set", "add", "scale"):
        raise SAEError(f"kind {shorten(kind)!r}: use 'set', 'add' or 'scale'")
    if measure not in ("probability", "log_probability", "score"):
        raise SAEError(f"measure {shorten(measure)!r}: use 'probability', 'log_probability' or 'score'")
    if not 0 <= tolerance < 1:
        raise SAEError(f"tolerance={tolerance} is a share from 0 to 1")
    levels = tuple(sorted({float(f) for f in factors}))
    if at is not None and float(at) not in levels:
        raise SAEError(f"at={at} is none of the factors {', '.join(f'{f:g}' for f in levels)}")
    return levels


def _control(strengths: Maxima, latent: int, count: int, seed: int) -> list[int]:
    strengths.of(latent)  # it must fire itself
    live = [i for i in (strengths.values > 0).nonzero().flatten().tolist() if i != latent]
    if not live:
        raise SAEError("no other latent fires on these inputs: there is nothing to compare with")
    order = torch.randperm(len(live), generator=generator(seed, CONTROL))[:count].tolist()
    return sorted(live[i] for i in order)


def _absolute(when: When | Sequence[When], basis: Basis, strengths: Maxima) -> tuple[When, ...]:
    """Conditions in absolute numbers."""
    found: list[When] = []
    for one in LatentEdit(0, "ablate", when=tuple([when] if isinstance(when, When) else when)).conditions:
        check_latent(one.latent, basis)
        scale = strengths.of(one.latent) if one.unit == "max" else 1.0
        above, below = (None if limit is None else limit * scale for limit in (one.above, one.below))
        found.append(replace(one, above=above, below=below, unit="absolute"))
    return tuple(found)


def _at(levels: Sequence[float], spot: tuple[float, float] | None, clean: float) -> float:
    if spot is not None and spot[1] > clean:
        return spot[1]
    above = [f for f in levels if f > clean]
    return above[0] if above else max(levels, key=lambda f: abs(f - clean))


@dataclass
class _Sums:
    """Means over predictions, by way: scores, probabilities and log-probabilities of outcomes, and of the targets."""

    scores: Numbers
    probabilities: Numbers
    logs: Numbers
    targets: Numbers | None
    predictions: list[_Predictions]


def _run(
    site: Site, inputs: Any, ways: Sequence[Function], targets: Sequence[int] | None, known: Known | None,
    batch_size: int, told: Callable[[int, int], None],
) -> _Sums:  # fmt: skip
    """Run the network as it is and in all ways."""
    tallies = [_Predictions() for _ in range(len(ways) + 1)]
    sums: list[list[Tensor]] = []
    seen = 0
    for scores, right in site.predictions(inputs, [None, *ways], batch_size=batch_size, progress=told):
        if not sums:
            sums = [[torch.zeros(scores[0].shape[1], dtype=torch.float64) for _ in range(3)] + [torch.zeros(
                (), dtype=torch.float64)] for _ in scores]  # fmt: skip
        seen += len(scores[0])
        clean = scores[0].double().log_softmax(dim=1)
        for own, tally, found in zip(sums, tallies, scores, strict=True):
            logs = found.float().log_softmax(dim=1)
            own[0] += found.double().sum(dim=0).cpu()
            own[1] += logs.exp().double().sum(dim=0).cpu()
            own[2] += logs.double().sum(dim=0).cpu()
            if targets is not None:
                own[3] += logs[:, list(targets)].logsumexp(dim=1).double().sum().cpu()
            if known is not None:
                tally.add(found, clean, known.labels(right))
    if not seen:
        raise SAEError(f"{site.address}: nothing is predicted on {len(inputs)} inputs")
    stacked = [np.array([(own[i] / seen).numpy() for own in sums]) for i in range(4)]
    return _Sums(stacked[0], stacked[1], stacked[2], None if targets is None else stacked[3], tallies)


def _on_target(
    main: _Sums, meant: Sequence[Sequence[int]], measure: Measure, shape: tuple[int, int], asked: bool
) -> Curve:
    def of(row: int, targets: Sequence[int]) -> float:
        if measure == "log_probability" and main.targets is not None:
            return float(main.targets[row])
        if measure == "probability":
            return float(main.probabilities[row, list(targets)].sum())
        return float((main.scores if measure == "score" else main.logs)[row, list(targets)].mean())

    rows = np.array(
        [[of(1 + i * shape[1] + j, meant[i]) for j in range(shape[1])] for i in range(shape[0])], dtype=np.float64
    )
    clean = of(0, meant[0])
    if not asked:  # each random latent has a target of its own: told as a change from its own clean value
        rows[1:] += clean - np.array([[of(0, targets)] for targets in meant[1:]])
    return Curve(measure, clean, rows[0], rows[1:])


def _written(
    site: Any, writing: Writing, ways: Sequence[Function], shape: tuple[int, int], seed: int
) -> list[Curve]:  # fmt: skip
    """The number meant of what is written, then those beside it, all of the same texts."""
    if not hasattr(site, "generate"):
        raise SAEError(f"{site.address} writes no texts: name classes as targets")
    functions = {writing.name: writing.function, **writing.beside}

    def values(way: Function | None) -> list[float]:
        with nullcontext() if way is None else site.replaced(way):
            found = site.generate(
                list(writing.prompts), max_new_tokens=writing.max_new_tokens, temperature=writing.temperature, seed=seed
            )
        return [float(np.mean([function(one.whole) for one in found])) for function in functions.values()]

    rows = np.array([values(way) for way in (None, *ways)], dtype=np.float64)
    return [_curve(what, rows[:, i], shape) for i, what in enumerate(functions)]


def _curve(what: str, values: Numbers, shape: tuple[int, int]) -> Curve:
    """A curve from values of the clean network, of the latent at all factors, and of random ones."""
    rows = values[1 : shape[0] * shape[1] + 1].reshape(shape)
    return Curve(what, float(values[0]), rows[0], rows[1:])


__all__ = ["FACTORS", "Curve", "Study", "Writing", "study", "sweet_spot"]
