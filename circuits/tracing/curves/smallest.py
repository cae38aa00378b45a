"""The smallest circuit that keeps a share of a target: by a learned mask, then pruned; tried on other images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from circuits.common.provenance import provenance
from circuits.common.statistics import Estimate
from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.channel_edits import responder
from circuits.tracing.baselines import Baseline
from circuits.tracing.curves.size_curve import estimated_share
from circuits.tracing.rankings.learned_mask import learn_mask
from circuits.tracing.rankings.ranking import split_images
from circuits.tracing.rankings.unit_scores import STEPS, RankMethod, unit_scores
from circuits.tracing.target import TargetLike, target_of
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import number, whole_number
from zoo.common.results import Result
from zoo.progress import Progress, reporter

Members = dict[str, set[int]]
ShareOf = Callable[[Members], float]
"""The share that a circuit keeps."""


@dataclass(frozen=True)
class SmallestCircuit(Result):
    """A small circuit that keeps a share of a target.

    Attributes:
        target, model, layers, baseline, measure: of what.
        keep: the share asked for; found_share: the share kept on the images it was found on, at least that.
        held_out: the share kept on images that had no part in finding it.
        units: addresses, those whose loss costs most first; losses: the share that each costs, on the images it was
            found on.
        n_units: of how many.
        n_images, n_held_out: images to find it on, and to try it on.
        seed: of the split and of the mask.
        provenance: weights, images, arguments.
    """

    target: str
    model: str
    layers: tuple[str, ...]
    baseline: str
    measure: str
    keep: float
    found_share: float
    held_out: Estimate
    units: tuple[str, ...]
    losses: tuple[float, ...]
    n_units: int
    n_images: int
    n_held_out: int
    seed: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    tabled = {"unit": "units", "loss": "losses"}


@outside_inference_mode
def smallest(
    model: Model,
    target: TargetLike,
    *,
    images: Any,
    keep: float = 0.9,
    layers: str | Sequence[str] | None = None,
    baseline: str | Baseline = "mean",
    against: Any = None,
    share: float = 0.5,
    steps: int = STEPS["mask"],
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> SmallestCircuit:
    """The smallest circuit that keeps a share of a target, as far as a learned mask and pruning find it.

    A mask is learned for all sizes, then once more for the size at which its circuit keeps enough; then the units that
    cost least are left out, as long as enough is kept.

    Args:
        model: the model.
        target: as for `rank`.
        images: images in any form that `capture` takes.
        keep: share of the measure to keep, 0 to 1; see `size_curve`.
        layers, baseline, against, seed: as for `rank`.
        share: of the images that the circuit is found on; it is tried on the others.
        steps: of each mask.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total) steps.

    Raises:
        CircuitsError: as for `rank`; no image is left to try it on.

    >>> smallest(load("scenes"), "mixed4a:11", images="scenes:60").units  # doctest: +SKIP
    """
    number("keep", keep, above=0, most=1)
    whole_number("steps", steps)
    explained = target_of(model, target)
    sources, (train_images, train_baseline), (test_images, test_baseline) = split_images(
        model, explained, layers, images, baseline, against, share, seed
    )
    if not len(test_images):
        raise CircuitsError(f"share={share} leaves none of {len(train_images)} images to try the circuit on")
    with reporter(progress, "step") as report:
        train = Ablation(model, explained, sources, train_images, train_baseline, batch_size=batch_size)
        train.check_reached()
        report(1, 4)
        circuit, losses = search(train, keep=keep, steps=steps, seed=seed, searched=lambda: report(2, 4))
        report(3, 4)
        test = Ablation(model, explained, sources, test_images, test_baseline, batch_size=batch_size)
        test.check_reached()
        held_out = estimated_share(test, test.respond(circuit), seed)
        report(4, 4)
    order = sorted(losses, key=lambda unit: -losses[unit])
    return SmallestCircuit(
        target=explained.name,
        model=model.name,
        layers=tuple(sources),
        baseline=train_baseline.name,
        measure=train.measure,
        keep=keep,
        found_share=train.share(train.respond(circuit)),
        held_out=held_out,
        units=tuple(train.sources[layer].address(c) for layer, c in order),
        losses=tuple(losses[unit] for unit in order),
        n_units=sum(train.widths.values()),
        n_images=len(train_images),
        n_held_out=len(test_images),
        seed=seed,
        provenance=provenance(
            weights=model.digest, images=train_images.name, images_digest=train_images.digest, share=share,
            steps=steps, keep=keep, seed=seed,
        ),
    )  # fmt: skip


def search(
    train: Ablation, *, keep: float, steps: int, seed: int, searched: Callable[[], None] = lambda: None
) -> tuple[Members, dict[tuple[str, int], float]]:
    """The circuit of `smallest` on the images of an ablation, and what the loss of each of its units costs.

    Args:
        train: on the images to find it on; keep, steps, seed: as for `smallest`.
        searched: called when masks are learned, before the pruning.
    """
    respond = responder(train)

    def share_of(members: Members) -> float:
        return train.share(respond(members))

    circuit = _by_masks(train, share_of, keep, steps, seed)
    searched()
    return _prune(share_of, circuit, keep)


def ranked_circuit(train: Ablation, numbers: Mapping[str, torch.Tensor], keep: float) -> Members:
    """The circuit of the fewest first units of a ranking that keeps enough: by bisection, then pruned.

    Args:
        train: on the images to find it on; numbers: layer -> what its units are ordered by `(C,)`; keep: as `smallest`.
    """
    respond = responder(train)

    def share_of(members: Members) -> float:
        return train.share(respond(members))

    return _prune(share_of, _largest(numbers, _enough(numbers, share_of, keep)), keep)[0]


def _by_masks(train: Ablation, share_of: ShareOf, keep: float, steps: int, seed: int) -> Members:
    """The smallest circuit of two masks that keeps enough: for all sizes, and for the size that this one comes to."""
    numbers = learn_mask(train, steps=steps, seed=seed, start=_start(train))
    size = _enough(numbers, share_of, keep)
    again = learn_mask(train, steps=steps, seed=seed, size=size, start=numbers)
    candidates = [(_enough(n, share_of, keep), i) for i, n in enumerate((numbers, again))]
    size, best = min(candidates)
    return _largest((numbers, again)[best], size)


def mask_circuit(train: Ablation, size: int, *, steps: int = STEPS["mask"], seed: int = 0) -> Members:
    """The circuit of a mask that is learned for just this number of units, over all layers of an ablation."""
    return _largest(learn_mask(train, size=size, steps=steps, seed=seed, start=_start(train)), size)


def _start(train: Ablation) -> dict[str, torch.Tensor] | None:
    """What masks start from: the gradients' magnitudes, where all units are of one layer."""
    if len(train.layers) > 1:
        return None
    method: RankMethod = "integrated" if train.target.of_predictions else "gradient"
    return {layer: scores.magnitude for layer, scores in unit_scores(train, method).items()}


def _largest(numbers: Mapping[str, torch.Tensor], size: int) -> Members:
    """The units with the largest numbers, over all layers."""
    every = torch.cat(list(numbers.values()))
    names = [(layer, c) for layer, values in numbers.items() for c in range(len(values))]
    circuit: Members = {layer: set() for layer in numbers}
    for i in every.argsort(descending=True, stable=True)[:size].tolist():
        circuit[names[i][0]].add(names[i][1])
    return circuit


def _enough(numbers: Mapping[str, torch.Tensor], share_of: ShareOf, keep: float) -> int:
    """A size at which the circuit of a mask keeps enough and the next smaller does not, by bisection."""
    low, high = 0, sum(len(values) for values in numbers.values())  # nothing keeps 0, everything 1
    while high - low > 1:
        middle = (low + high) // 2
        if share_of(_largest(numbers, middle)) >= keep:
            high = middle
        else:
            low = middle
    return high


def _prune(share_of: ShareOf, circuit: Members, keep: float) -> tuple[Members, dict[tuple[str, int], float]]:
    """Leave out the units that cost least as long as enough is kept, a tenth of them at a time, then one by one."""
    circuit = {layer: set(units) for layer, units in circuit.items()}
    while True:
        whole = share_of(circuit)
        losses = {
            (layer, c): whole - share_of(_without(circuit, [(layer, c)])) for layer in circuit for c in circuit[layer]
        }
        order = sorted(losses, key=lambda unit: losses[unit])
        if len(order) <= 1:
            return circuit, losses
        for count in sorted({max(1, len(order) // 10), 1}, reverse=True):
            smaller = _without(circuit, order[:count])
            if share_of(smaller) >= keep:
                circuit = smaller
                break
        else:
            return circuit, losses


def _without(circuit: Members, units: Sequence[tuple[str, int]]) -> Members:
    return {layer: {c for c in members if (layer, c) not in units} for layer, members in circuit.items()}
