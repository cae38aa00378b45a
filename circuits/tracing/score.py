"""Does a circuit carry its target? Faithfulness, completeness and minimality, each against random circuits.

*Faithfulness*: set every unit of the source layers that is not in the circuit to its baseline (its mean, unless another
is asked for), and see how much of the target's response is left, as explained variance over all positions and images.
*Completeness*: set only the circuit's units to the baseline, and see how much is lost. A number without the same number
for random circuits of that size means nothing, so both come with at least 50 of them, sampled among the units that act
most on the target; beside them, any units, and units that are as active.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.tracing.ablation.ablation import Ablation, UnitsByLayer
from circuits.tracing.ablation.channel_edits import responder
from circuits.tracing.baselines import Baseline, baseline_of
from circuits.tracing.circuit import Circuit
from circuits.tracing.circuit_score import AblatedResponse, Score, SizeComparison
from circuits.tracing.curves import null_circuits
from circuits.tracing.curves.size_curve import estimated_share
from circuits.tracing.curves.smallest import mask_circuit
from circuits.tracing.rankings.ranking import rank, taken
from circuits.tracing.target import target_of
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import number, whole_number
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter


@outside_inference_mode
def score(
    model: Model,
    circuit: Circuit,
    *,
    images: Any,
    baseline: str | Baseline = "mean",
    against: Any = None,
    random: int = 50,
    limit: int = 200,
    mask: bool | float = False,
    keep_error: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> Score:
    """Score a circuit by ablation, against random circuits with as many units in each layer.

    Args:
        model: the model it was traced in.
        circuit: the circuit.
        images: images in any form that `capture` takes.
        baseline: what ablated units are set to: "mean", "resample", "zero", or an object of `circuits.baselines`.
        against: a counterfactual image for each image, as the baseline.
        random: number of random circuits of each kind.
        limit: at most this many images are used (drawn with `seed`), spread over the whole source.
        mask: also learn a mask for circuits of this size, on half of the images, and try it, the circuit and the first
            units by gradient on the other half (`Score.comparison`). A circuit that was traced on these images has seen
            them, the mask has not. A share, as 0.9: only where faithfulness is below it.
        keep_error: where sources are latents, leave the error of their dictionary as it is. By default it is ablated,
            as every unit outside the circuit.
        seed: for the random circuits and the choice of images.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        CircuitsError: the circuit is of another model, or has no source units; the target responds the same to all
            images; counterfactuals that do not fit; fewer than 4 images for a mask.
    """
    if circuit.model != model.name:
        raise CircuitsError(f"the circuit is of model {circuit.model}, not of {model.name}")
    circuit_units = members(circuit)
    if not circuit_units:
        raise CircuitsError(f"the circuit of {circuit.target} has no source units to score")
    if random < 1:
        raise CircuitsError(f"a score needs random circuits to compare with; got random={random}")
    whole_number("random", random)
    whole_number("limit", limit)
    if not isinstance(mask, bool):
        number("mask", mask, above=0, most=1)
    generator = torch.Generator().manual_seed(seed)
    dataset, chosen_baseline = sampled(open_images(images), baseline_of(baseline, against, seed=seed), limit, generator)
    if mask and len(dataset) < 4:
        raise CircuitsError(f"a mask is learned on half of the images, tried on the others: give 4, not {len(dataset)}")
    if keep_error and (mask or not any("~" in layer for layer in circuit_units)):
        reason = "a mask takes it as a unit" if mask else "its sources are no latents"
        raise CircuitsError(f"keep_error leaves the error of a dictionary out of this score, but {reason}")
    ablation = Ablation(
        model, target_of(model, circuit.target), list(circuit_units), dataset, chosen_baseline,
        measure="explained variance", batch_size=batch_size,
    )  # fmt: skip
    ablation.check_reached()
    # errors that are always kept are no units of a circuit, nor of a random one
    always = {layer: {width - 1} for layer, width in ablation.widths.items() if keep_error and "~" in layer}
    widths = {layer: ablation.widths[layer] - len(always.get(layer, ())) for layer in circuit_units}
    counts = {layer: len(units) for layer, units in circuit_units.items()}
    strengths = {layer: values[: widths[layer]] for layer, values in null_circuits.strengths(ablation).items()}
    means = {layer: values[: widths[layer]] for layer, values in ablation.means.items()}
    rng = np.random.default_rng(seed)
    control = [null_circuits.uniform(counts, widths, generator) for _ in range(random)]
    strong = [null_circuits.among_strongest(counts, strengths, rng) for _ in range(random)]
    as_active = [null_circuits.matched(circuit_units, means, rng) for _ in range(random)]
    rounds = 2 + 5 * random + sum(counts.values())
    with _ticker(rounds, progress) as tick:

        def keep(units: UnitsByLayer) -> float:
            tick()
            return ablation.keep({layer: units[layer] | always.get(layer, set()) for layer in units})

        def lost(units: UnitsByLayer) -> float:
            tick()
            return 1 - ablation.drop(units)

        faithfulness, completeness = keep(circuit_units), lost(circuit_units)
        by_chance, lost_by_chance = [keep(c) for c in control], [lost(c) for c in control]
        strong_faithfulness, strong_completeness = [keep(c) for c in strong], [lost(c) for c in strong]
        matched_faithfulness = [keep(c) for c in as_active]
        minimality = {}
        for layer, units in circuit_units.items():
            for index in sorted(units):
                without = {**circuit_units, layer: units - {index}}
                minimality[ablation.sources[layer].address(index)] = faithfulness - keep(without)
    wanted = mask if isinstance(mask, bool) else faithfulness < mask
    return Score(
        faithfulness=faithfulness,
        completeness=completeness,
        faithfulness_percentile=_percentile(faithfulness, strong_faithfulness),
        completeness_percentile=_percentile(completeness, strong_completeness),
        random_faithfulness=tuple(by_chance),
        random_completeness=tuple(lost_by_chance),
        minimality=minimality,
        n_images=len(dataset),
        seed=seed,
        strong_faithfulness=tuple(strong_faithfulness),
        strong_completeness=tuple(strong_completeness),
        matched_faithfulness=tuple(matched_faithfulness),
        baseline=chosen_baseline.name,
        ablated=ablated_response(ablation),
        comparison=_size_comparison(ablation, circuit_units, seed, batch_size) if wanted else None,
        errors_kept=keep_error if any("~" in layer for layer in circuit_units) else None,
    )


def _size_comparison(ablation: Ablation, circuit: UnitsByLayer, seed: int, batch_size: int) -> SizeComparison:
    """The circuit beside a learned mask and a ranking: these are made on half of the images, all tried on the rest."""
    model, size = ablation.model, sum(map(len, circuit.values()))
    order = torch.randperm(len(ablation.images), generator=torch.Generator().manual_seed(seed)).tolist()
    train, test = (
        Ablation(model, ablation.target, ablation.layers, *taken(ablation.images, ablation.baseline, sorted(part)),
                 batch_size=batch_size)
        for part in (order[: len(order) // 2], order[len(order) // 2 :])
    )  # fmt: skip
    ranking = rank(
        model, ablation.target.units[0], images=train.images, layers=train.layers, baseline=train.baseline, share=1.0,
        seed=seed, batch_size=batch_size,
    )  # fmt: skip
    respond, total = responder(test), len(ranking.units)
    own, by_mask = (
        estimated_share(test, respond(units), seed)
        for units in (
            {layer: set(circuit.get(layer, set())) for layer in test.layers},
            mask_circuit(train, size, seed=seed),
        )
    )
    # each a quarter larger than the one before
    sizes = {round(1.25**k) for k in range(int(math.log(total, 1.25)) + 1)} | {size, total}
    ranked = {n: test.share(respond(ranking.members(n))) for n in sorted(sizes)}
    return SizeComparison(
        size=size, n_units=total, share=own.value, low=own.low, high=own.high, ranked=ranked[size],
        ranked_size=next((n for n, share in ranked.items() if share >= own.value), None),
        mask=by_mask.value, mask_low=by_mask.low, mask_high=by_mask.high,
        n_images=len(test.images), n_learned=len(train.images),
    )  # fmt: skip


def sampled(images: Images, baseline: Baseline, limit: int, generator: torch.Generator) -> tuple[Images, Baseline]:
    """At most `limit` of the images, sampled at random, and the baseline with the counterfactuals of these."""
    if len(images) <= limit:
        return images, baseline
    chosen = torch.randperm(len(images), generator=generator)[:limit].sort().values.tolist()
    return taken(images, baseline, chosen)


def ablated_response(ablation: Ablation) -> AblatedResponse:
    """The target's response with everything ablated, beside the clean one."""
    clean, nothing = ablation.clean, ablation.nothing
    return AblatedResponse(
        mean=float(nothing.mean()),
        low=float(nothing.min()),
        high=float(nothing.max()),
        clean_mean=float(clean.mean()),
        clean_low=float(clean.min()),
        clean_high=float(clean.max()),
        explained_variance=ablation.explained(nothing),
    )


def members(circuit: Circuit) -> dict[str, set[int]]:
    """Source units of a circuit by layer, in the order of the layers going back."""
    by_layer: dict[str, set[int]] = {}
    for layer in circuit.layers[1:]:
        units = {n.index for n in circuit.nodes if n.layer == layer and n.unit != circuit.target}
        if units:
            by_layer[layer] = units
    return by_layer


def _percentile(value: float, control: Sequence[float]) -> float:
    return 100.0 * sum(c < value for c in control) / len(control)


@contextmanager
def _ticker(total: int, progress: Progress) -> Iterator[Callable[[], None]]:
    """A function to call after each of `total` circuits."""
    done = 0
    with reporter(progress, "circuit") as report:

        def tick() -> None:
            nonlocal done
            done += 1
            report(done, total)

        yield tick
