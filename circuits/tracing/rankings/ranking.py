"""Which units of earlier layers a target stands on, ranked: by weights, gradients, patching, a learned mask, or chance.

Or which edges between units of consecutive layers (`of="edges"`): the same shares and magnitudes, see `edge_scores`.

Every unit has a signed score and a magnitude, and units are ordered by magnitude. The score is its share of what the
target loses when all units of the layer are ablated, `m(clean) - m(nothing)`, with m the explained variance of the
target's response over all positions and images, or its mean. Scores of one layer sum to that under "integrated", and in
a linear network under "weights", "gradient" and "patching". An inhibitor has a positive score where it keeps the target
down on the right images; a unit with a negative score pulls the response away from what it is. A circuit needs both:
without the units that pull, those that push overshoot. So the order is by how much a unit moves the response at all,
the root of the summed squares of its contributions: in GoogLeNet the 64 parents of the largest magnitudes keep more of
a unit than the 64 of the largest scores (.61, .52), 16 keep less (.34, .40; docs/tracing.md).
Where the mean is measured, the magnitude is the size of the score.

With w the weight of a change of the response map, `(clean - nothing) / spread` for the explained variance, and the
activation a of a unit going from its baseline b:

- "weights": `sum w * (expanded weights x (a - b))`, of the linearized network.
- "gradient": `sum w * (gradient at a x (a - b))`: attribution patching (Nanda 2023; Syed et al. 2023, 2310.10348).
- "integrated": the gradient of m itself along the way from b to a, of all units of the layer at once: integrated
  gradients (Sundararajan et al. 2017, 1703.01365) over activations (Hanna et al. 2024, 2403.17806).
- "patching": `sum w * (clean - response with the unit at b)`, one unit at a time: exact.
- "mask": a mask learned for circuits of all sizes at once (`learned_mask`); its numbers are no shares.
- "random": the null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from circuits.common.provenance import provenance
from circuits.errors import AddressError, CircuitsError
from circuits.network.address import is_address_of
from circuits.network.model import Model
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.edge_ablation import chain
from circuits.tracing.ablation.measured import Measure
from circuits.tracing.ablation.sources import Channels, source_of, space_of
from circuits.tracing.baselines import Baseline, Counterfactual, baseline_of
from circuits.tracing.rankings.edge_scores import edge_scores
from circuits.tracing.rankings.unit_scores import METHODS, STEPS, RankMethod, UnitScores, unit_scores
from circuits.tracing.target import Target, TargetLike, target_of
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import number, one_of, whole_number
from zoo.common.results import HIDDEN, Result, remembers
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

Ranked = Literal["units", "edges"]
"""What can be ranked."""


@dataclass(frozen=True)
class Ranking(Result):
    """Units of some layers, or edges between them, in the order of how much they move a target.

    Attributes:
        target: address, difference of two, or name of a function.
        model: name of the model; layers: the source layers, earliest first.
        method, baseline, measure: how.
        units: addresses, largest magnitude first; of edges, source and child: "scenes/mixed3b:4->mixed4a:11".
        scores: signed shares of the measure; magnitudes: what units are ordered by. See the module.
        clean, nothing: the measure with nothing and with everything ablated, on these images, by layer.
        n_images: images ranked on.
        seed: of the choice of images, and of what is random in the method.
        provenance: weights, images, arguments.
        image_digests: of each image ranked on, so that a curve is measured on others.
        held_out: the images that were left out; stand_in: the baseline for these.
        explains: the target, ready to run.
        of: what is ranked: "units" or "edges".
    """

    target: str
    model: str
    layers: tuple[str, ...]
    method: str
    baseline: str
    measure: Measure
    units: tuple[str, ...]
    scores: tuple[float, ...]
    magnitudes: tuple[float, ...]
    clean: Mapping[str, float]
    nothing: Mapping[str, float]
    n_images: int
    seed: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    image_digests: frozenset[str] = field(default=frozenset(), metadata=HIDDEN)
    held_out: Images | None = field(default=None, metadata=HIDDEN, compare=False)
    stand_in: Baseline | None = field(default=None, metadata=HIDDEN, compare=False)
    explains: Target | None = field(default=None, metadata=HIDDEN, compare=False)
    of: Ranked = "units"

    tabled = {"unit": "units", "score": "scores", "magnitude": "magnitudes"}

    def top(self, n: int = 10) -> list[tuple[str, float]]:
        """The first `n` units with their scores."""
        whole_number("n", n)
        return list(zip(self.units[:n], self.scores[:n], strict=True))

    def score_of(self, unit: str) -> float:
        """The score of a unit, by its address with or without the model's name.

        Raises:
            CircuitsError: it is not ranked here.
        """
        for address, value in zip(self.units, self.scores, strict=True):
            if is_address_of(unit, address):
                return value
        raise CircuitsError(f"{unit} is not among the {self.of} of {', '.join(self.layers)}")

    def members(self, n: int) -> dict[str, set[int]]:
        """Channels, or latents, of the first `n` units, by layer; the error of a dictionary is the one after them."""
        by_layer: dict[str, set[int]] = {layer: set() for layer in self.layers}
        for layer, index in map(space_of, self.units[:n]):
            if index is None:
                index = sum(unit.rpartition("/")[2].startswith(f"{layer}:") for unit in self.units) - 1
            by_layer[layer].add(index)
        return by_layer


@remembers("model")
@outside_inference_mode
def rank(
    model: Model,
    target: TargetLike,
    *,
    images: Any,
    layers: str | Sequence[str] | None = None,
    method: RankMethod = "gradient",
    of: Ranked = "units",
    baseline: str | Baseline = "mean",
    against: Any = None,
    measure: Measure | None = None,
    share: float = 0.5,
    steps: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> Ranking:
    """Rank all units of some layers, or all edges, by how much they move a target, over all positions and images.

    Args:
        model: the model.
        target: a unit, a neuron, a class score, a difference "logits:0-logits:3" or ("logits:0", "logits:3"), a
            function of the network's output that gives one number an image, or "predictions": minus the KL divergence
            of the class probabilities from those of the network as it is (by "integrated", "patching" or "mask").
        images: images in any form that `capture` takes.
        layers: source layers (default: the trunk layer before the target's). Several are ranked together.
            `mixed3b~sae` takes the latents of an attached dictionary, and as one more unit, `mixed3b~sae:error`, what
            they do not reconstruct.
        method: see the module; "weights" needs kernels between the layers. "mask" ranks units only.
        of: "units"; or "edges" from the units of each of the layers to those of the next, and of the last to the
            target.
        baseline: what an ablated unit is set to: "mean", "resample", "zero", or an object of `circuits.baselines`.
        against: a counterfactual image for each image, as the baseline.
        measure: "explained variance" of the target's response, or its "mean" over positions and images, which is the
            default with counterfactuals: a logit difference, say.
        share: of the images that are ranked on, chosen by `seed`; the others are left for `size_curve`.
        steps: of "integrated" (default 8) and "mask" (default 120).
        seed: of the choice of images, of "random" and of "mask".
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total) layers.

    Returns:
        The ranking, largest magnitude first, with signed scores.

    Raises:
        AddressError: unknown unit or layer. GraphError: "weights" without kernels. CircuitsError: the target does not
            vary, or does not depend on the layers; counterfactuals that do not fit.

    >>> rank(load("scenes"), "mixed4a:11", images="scenes:40").top(3)  # doctest: +SKIP
    """
    one_of("method", method, METHODS)
    one_of("of", of, ("units", "edges"))
    explained = target_of(model, target)
    sources, (dataset, own), (held_out, stand_in) = split_images(
        model, explained, layers, images, baseline, against, share, seed
    )
    steps_of = dict(zip(sources, chain(model, explained, sources), strict=True)) if of == "edges" else {}
    units_of = {layer: source_of(model, layer) for layer in sources}
    scores: dict[str, UnitScores] = {}
    clean: dict[str, float] = {}
    nothing: dict[str, float] = {}
    groups = [sources] if method == "mask" and of == "units" else [[layer] for layer in sources]
    with reporter(progress, "layer") as report:
        for done, group in enumerate(groups):
            ablation = Ablation(model, explained, group, dataset, own, measure=measure, batch_size=batch_size)
            ablation.check_reached()
            if of == "edges":
                scores[group[0]] = edge_scores(ablation, steps_of[group[0]], method, steps=steps, seed=seed)
            else:
                scores |= unit_scores(ablation, method, steps=steps, seed=seed)
            clean |= dict.fromkeys(group, ablation.value(ablation.clean))
            nothing |= dict.fromkeys(group, ablation.value(ablation.nothing))
            report(done + 1, len(groups))

    def name(layer: str, index: int) -> str:
        return steps_of[layer].edge(index, model.name) if of == "edges" else units_of[layer].address(index)

    rows = [
        (name(layer, i), score, magnitude)
        for layer in sources
        for i, (score, magnitude) in enumerate(
            zip(scores[layer].signed.tolist(), scores[layer].magnitude.tolist(), strict=True)
        )
    ]
    rows.sort(key=lambda row: -row[2])
    return Ranking(
        target=explained.name,
        model=model.name,
        layers=tuple(sources),
        method=method,
        baseline=own.name,
        measure=ablation.measure,
        units=tuple(row[0] for row in rows),
        scores=tuple(row[1] for row in rows),
        magnitudes=tuple(row[2] for row in rows),
        clean=clean,
        nothing=nothing,
        n_images=len(dataset),
        seed=seed,
        provenance=provenance(
            weights=model.digest, weights_source=model.source, images=dataset.name, images_digest=dataset.digest,
            n_images=len(dataset), share=share, steps=steps or STEPS.get(method), seed=seed,
        ),
        image_digests=image_digests(dataset),
        held_out=held_out,
        stand_in=stand_in,
        explains=explained,
        of=of,
    )  # fmt: skip


def image_digests(images: Images) -> frozenset[str]:
    """One digest for each image, of its name and contents."""
    return frozenset(images.subset([i]).digest for i in range(len(images)))


def source_layers(
    model: Model,
    target: Target,
    layers: str | Sequence[str] | None,
    source: Callable[[Model, str], Channels] = source_of,
) -> list[str]:
    """The layers to rank, or dictionaries, earliest first: those named, or the trunk layer before the target's.

    Raises:
        AddressError: unknown, or not before the target. CircuitsError: a branch.
    """
    if layers is None:
        before = model.before(target.layer or model.logits)
        if before is None:
            raise AddressError(f"{target.name} has no layer before it that is known: name some, layers=[...]")
        return [before]
    named = [layers] if isinstance(layers, str) else layers
    if not named:
        raise AddressError("name at least one source layer, for example layers=['mixed3b']")
    sources = [source(model, name) for name in named]
    position, last = model.layers.position, target.layer or model.logits
    late = [source.name for source in sources if position(source.layer) >= position(last)]
    if late:
        raise AddressError(f"{late[0]} is not before {last}: a circuit of {target.name} is of units of earlier layers")
    return [s.name for s in sorted({s.name: s for s in sources}.values(), key=lambda s: position(s.layer))]


def split_images(
    model: Model,
    target: Target,
    layers: str | Sequence[str] | None,
    images: Any,
    baseline: str | Baseline,
    against: Any,
    share: float,
    seed: int,
) -> tuple[list[str], tuple[Images, Baseline], tuple[Images, Baseline]]:
    """The source layers, the images to rank on with their baseline, and those held out with theirs; see `rank`."""
    number("share", share, above=0, most=1)
    whole_number("seed", seed, least=0, most=2**63 - 1)
    everything, stand_in = open_images(images), baseline_of(baseline, against, seed=seed)
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed)).tolist()
    first = max(1, round(share * len(everything)))
    halves = [taken(everything, stand_in, sorted(part)) for part in (order[:first], order[first:])]
    return source_layers(model, target, layers), halves[0], halves[1]


def taken(images: Images, baseline: Baseline, indices: Sequence[int]) -> tuple[Images, Baseline]:
    """Some of the images, and the baseline for these: of counterfactuals those that belong to them."""
    if isinstance(baseline, Counterfactual):
        baseline = Counterfactual(baseline.paired(images).subset(indices))
    return images.subset(indices), baseline
