"""How much of a target a ranking keeps, at every size: the yardstick of circuit discovery, beside random circuits.

For the first n units of a ranking all others are set to the baseline, and
`f(n) = (m(circuit) - m(nothing)) / (m(clean) - m(nothing))`. CPR is the area under f over the share of units, CMD that
under `|1 - f|`, by trapezoids: the definitions of the mechanistic interpretability benchmark, MIB (Mueller et al. 2025,
arXiv 2504.13151). A good ranking has a large CPR and a small CMD. Measured on images that the ranking did not see.
Where edges are ranked, n counts edges: all units are single, so that MIB's weights of edges are 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.common.statistics import Estimate, percentile_interval
from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.channel_edits import responder
from circuits.tracing.ablation.edge_ablation import EdgeAblation, chain
from circuits.tracing.ablation.sources import numbered, source_of
from circuits.tracing.baselines import Baseline, baseline_of
from circuits.tracing.curves import null_circuits
from circuits.tracing.rankings.edge_scores import edge_strengths
from circuits.tracing.rankings.ranking import Ranked, Ranking, image_digests, taken
from circuits.tracing.target import target_of
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import whole_number
from zoo.common.results import Result, remembers
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of all units at which circuits are measured, as in MIB."""
DRAWS = 1000
"""Resamples of the images for an interval."""
Array = NDArray[np.float64]
KINDS = ("strong", "matched", "any")
"""Of random circuits; edges have no "matched" ones."""


@dataclass(frozen=True, eq=False)
class NullCurves(Result):
    """Random circuits beside a curve.

    Attributes:
        kind: "strong" (sampled among the units that act most on the target), "matched" (as active as the ranking's
            units), or "any".
        f: `(draws, sizes)`; cpr, cmd: of each draw.
    """

    kind: str
    f: Array
    cpr: Array
    cmd: Array


@dataclass(frozen=True, eq=False)
class SizeCurve(Result):
    """The share of a target that circuits of growing size keep.

    Attributes:
        target, model, layers, method, baseline, measure: as in the ranking.
        sizes: units, or edges, in each circuit; n_units: in all; the last circuit is all of them.
        f: share of the measure kept, one for each size, 0 with nothing kept and 1 with everything.
        f_low, f_high: 95 % intervals over images.
        explained_variance: of the target's response; empty for predictions, whose divergence is 0 with nothing ablated.
        cpr, cmd: areas under f and `|1 - f|`.
        nulls: kind -> random circuits of these sizes.
        percentile: percent of "strong" random curves with a lower CPR.
        clean, nothing: the measure with nothing and with everything ablated.
        n_images: measured on; held_out: whether the ranking saw none of them.
        seed: of random circuits and intervals.
        provenance: weights, images, arguments.
        of: "units" or "edges".
    """

    target: str
    model: str
    layers: tuple[str, ...]
    method: str
    baseline: str
    measure: str
    sizes: tuple[int, ...]
    n_units: int
    f: tuple[float, ...]
    f_low: tuple[float, ...]
    f_high: tuple[float, ...]
    explained_variance: tuple[float, ...]
    cpr: Estimate
    cmd: Estimate
    nulls: Mapping[str, NullCurves]
    percentile: float | None
    clean: float
    nothing: float
    n_images: int
    held_out: bool
    seed: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    of: Ranked = "units"

    tabled = {"units": "sizes", "f": "f", "low": "f_low", "high": "f_high", "explained_variance": "explained_variance"}

    @property
    def shares(self) -> tuple[float, ...]:
        """Sizes as shares of all units."""
        return tuple(n / self.n_units for n in self.sizes)

    def size_for(self, share: float) -> int | None:
        """The smallest measured size whose f is at least `share`; None where none is."""
        return next((n for n, f in zip(self.sizes, self.f, strict=True) if f >= share), None)


@remembers("model")
@outside_inference_mode
def size_curve(
    model: Model,
    ranking: Ranking,
    *,
    images: Any = None,
    against: Any = None,
    baseline: str | Baseline | None = None,
    sizes: Sequence[int] | None = None,
    random: int = 20,
    held_out: bool = True,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> SizeCurve:
    """Measure circuits of growing size: the first units of a ranking, all others at the baseline.

    Args:
        model: the model that was ranked.
        ranking: of `circuits.rank`, or your own (`circuits.Ranking`).
        images: images to measure on, less those that were ranked on (default: the images that `rank` left out).
        against: a counterfactual image for each image, where images are given and the baseline is counterfactual.
        baseline: another one than the ranking's.
        sizes: numbers of units (default: .1 to 100 % of all).
        random: random circuits of each kind and size.
        held_out: False measures on all of `images`, also those ranked on.
        seed: of random circuits and intervals.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total) circuits.

    Raises:
        CircuitsError: the ranking is of another model; no image is left that it did not see; sizes out of range; the
            target does not vary on the images or does not depend on the layers.

    >>> ranking = rank(load("scenes"), "mixed4a:11", images="scenes:60")  # doctest: +SKIP
    >>> size_curve(model, ranking).cpr.value  # doctest: +SKIP
    """
    whole_number("random", random, least=0)
    whole_number("seed", seed, least=0)
    ablation, unseen = ablation_of(
        model, ranking, images=images, against=against, baseline=baseline, held_out=held_out, seed=seed,
        batch_size=batch_size,
    )  # fmt: skip
    ablation.check_reached()
    total = len(ranking.units)
    counts = circuit_sizes(total, sizes)
    edges = EdgeAblation(ablation) if ranking.of == "edges" else None
    respond = responder(ablation) if edges is None else edges.respond
    members = ranking.members if edges is None else lambda n: edges.members(ranking.units[:n])
    circuits_of = [members(n) for n in counts]
    drawn = _null_circuits(ablation, circuits_of, random, seed, ranking.of)
    with reporter(progress, "circuit") as report:
        done, rounds = 0, len(counts) * (1 + sum(len(draws) for draws in drawn.values()))

        def measured(units: Mapping[str, set[int]]) -> Tensor:
            nonlocal done
            everything = sum(len(members) for members in units.values()) == total
            response = ablation.clean if everything else respond(units)
            done += 1
            report(done, rounds)
            return response

        responses = [measured(units) for units in circuits_of]
        nulls = {
            kind: np.array([[ablation.share(measured(units)) for units in draw] for draw in draws])
            for kind, draws in drawn.items()
        }
    f = np.array([ablation.share(response) for response in responses])
    x = np.array(counts) / total
    resampled = _resampled_shares(ablation, responses, seed)
    low, high = (bound.tolist() for bound in percentile_interval(torch.from_numpy(resampled)))
    null_curves = {kind: NullCurves(kind, values, *areas(x, values)) for kind, values in nulls.items()}
    cpr, cmd = (Estimate.of(own[0], draws) for own, draws in zip(areas(x, f[None]), areas(x, resampled), strict=True))
    strong = null_curves.get("strong")
    return SizeCurve(
        target=ranking.target,
        model=model.name,
        layers=ranking.layers,
        method=ranking.method,
        baseline=ablation.baseline.name,
        measure=ablation.measure,
        sizes=tuple(counts),
        n_units=total,
        f=tuple(f.tolist()),
        f_low=tuple(low),
        f_high=tuple(high),
        explained_variance=tuple(ablation.explained(response) for response in responses) if ablation.spread else (),
        cpr=cpr,
        cmd=cmd,
        nulls=null_curves,
        percentile=None if strong is None else 100 * float((strong.cpr < cpr.value).mean()),
        clean=ablation.value(ablation.clean),
        nothing=ablation.value(ablation.nothing),
        n_images=len(ablation.images),
        held_out=unseen,
        seed=seed,
        provenance=provenance(
            weights=model.digest, images=ablation.images.name, images_digest=ablation.images.digest,
            n_images=len(ablation.images), random=random, seed=seed, ranking=dict(ranking.provenance),
        ),
        of=ranking.of,
    )  # fmt: skip


def ablation_of(
    model: Model,
    ranking: Ranking,
    *,
    images: Any,
    against: Any,
    baseline: str | Baseline | None,
    held_out: bool,
    seed: int,
    batch_size: int,
) -> tuple[Ablation, bool]:
    """The layers of a ranking under ablation, on images that it did not see; and whether there are only such."""
    if ranking.model != model.name:
        raise CircuitsError(f"the ranking is of model {ranking.model}, not of {model.name}")
    check_complete(model, ranking)
    if images is None:
        if ranking.held_out is None or not len(ranking.held_out):
            raise CircuitsError("the ranking saw all of its images: give others, images=..., or rank with share=0.5")
        source, own, unseen = ranking.held_out, ranking.stand_in, True
        assert own is not None
        stand_in = own if baseline is None and against is None else baseline_of(baseline or "mean", against, seed=seed)
    else:
        source = open_images(images)
        stand_in = baseline_of(baseline or ranking.baseline, against, seed=seed)
        source, stand_in, unseen = _unseen(source, stand_in, ranking, held_out)
    target = ranking.explains or target_of(model, ranking.target)
    ablation = Ablation(
        model,
        target,
        list(ranking.layers),
        source,
        stand_in,
        measure=ranking.measure,
        batch_size=batch_size,
    )
    return ablation, unseen


def check_complete(model: Model, ranking: Ranking) -> None:
    """Raises CircuitsError unless the ranking names every unit, or every edge, of its layers once."""
    if ranking.of == "edges":
        target = ranking.explains or target_of(model, ranking.target)
        steps = chain(model, target, ranking.layers)
        named: list[Any] = list(ranking.units)
        wanted: set[Any] = {step.edge(i, model.name) for step in steps for i in range(step.size)}
    else:
        named = [numbered(model, address) for address in ranking.units]
        widths = {layer: source_of(model, layer).width for layer in ranking.layers}
        wanted = {(layer, i) for layer, width in widths.items() for i in range(width)}
    if len(named) != len(wanted) or set(named) != wanted:
        raise CircuitsError(
            f"a curve needs each of the {len(wanted)} {ranking.of} of {', '.join(ranking.layers)} once; the ranking "
            f"names {len(set(named) & wanted)} of them in {len(named)} addresses"
        )


def _unseen(images: Images, baseline: Baseline, ranking: Ranking, held_out: bool) -> tuple[Images, Baseline, bool]:
    new = [i for i in range(len(images)) if not image_digests(images.subset([i])) & ranking.image_digests]
    if not held_out or len(new) == len(images):
        return images, baseline, len(new) == len(images)
    if not new:
        raise CircuitsError(
            f"all {len(images)} images were ranked on: give others, or held_out=False to measure on them all the same"
        )
    return *taken(images, baseline, new), True


def circuit_sizes(total: int, sizes: Sequence[int] | None = None) -> list[int]:
    """Sizes of the circuits that are tried: those given, or `SHARES` of all."""
    if sizes is None:
        return sorted({max(1, round(share * total)) for share in SHARES})
    if not isinstance(sizes, Sequence):
        raise CircuitsError(f"sizes={sizes} is no list of numbers of units: write sizes=[{sizes}]")
    counts = sorted({whole_number("sizes", n, least=1, most=total) for n in sizes})
    if not counts:
        raise CircuitsError("sizes=[] measures nothing: name some numbers of units")
    return counts


def _null_circuits(
    ablation: Ablation, circuits_of: Sequence[dict[str, set[int]]], draws: int, seed: int, of: Ranked
) -> dict[str, list[list[dict[str, set[int]]]]]:
    """Kind -> for each draw a circuit of each size, with as many units, or edges, in each layer as the ranking's."""
    if not draws:
        return {}
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    counts = [{layer: len(units) for layer, units in members.items()} for members in circuits_of]
    if of == "edges":
        strengths = edge_strengths(ablation)
    else:
        strengths = null_circuits.strengths(ablation)
    widths = {layer: len(values) for layer, values in strengths.items()}
    make: dict[str, Callable[[int], dict[str, set[int]]]] = {
        "strong": lambda i: null_circuits.among_strongest(counts[i], strengths, rng),
        "any": lambda i: null_circuits.uniform(counts[i], widths, generator),
    }
    if of == "units":
        make["matched"] = lambda i: null_circuits.matched(circuits_of[i], ablation.means, rng)
    return {kind: [[make[kind](i) for i in range(len(counts))] for _ in range(draws)] for kind in KINDS if kind in make}


def areas(x: Array, f: Array) -> tuple[Array, Array]:
    """CPR and CMD of curves `(draws, sizes)` over shares of units `(sizes,)`, from nothing kept, where f is 0."""
    shares, values = np.concatenate([[0.0], x]), np.concatenate([np.zeros((len(f), 1)), f], axis=1)
    return np.trapezoid(values, shares, axis=1), np.trapezoid(np.abs(1 - values), shares, axis=1)


def _resampled_shares(ablation: Ablation, responses: Sequence[Tensor], seed: int) -> Array:
    """Shares kept `(draws, sizes)` on images resampled with replacement.

    For the explained variance f is `1 - squared error / squared error with nothing kept`: both are sums over images.
    """
    gained = np.stack([_by_image(ablation, response) for response in responses], axis=1)
    whole = _by_image(ablation, ablation.clean)
    indices = np.random.default_rng(seed).integers(0, len(whole), (DRAWS, len(whole)))
    totals = whole[indices].sum(axis=1)
    totals[totals == 0] = np.nan
    shares: Array = np.nan_to_num(gained[indices].sum(axis=1) / totals[:, None])
    return shares


def _by_image(ablation: Ablation, response: Tensor) -> Array:
    """What each image adds to the measure's gain over nothing kept, up to a common factor, `(N,)`."""
    if ablation.measure == "mean":
        gain = response - ablation.nothing
    else:
        gain = (ablation.clean - ablation.nothing).pow(2) - (ablation.clean - response).pow(2)
    by_image: Array = gain.double().sum(dim=(1, 2)).cpu().numpy()
    return by_image


def estimated_share(ablation: Ablation, response: Tensor, seed: int) -> Estimate:
    """The share of the measure that a response keeps, with its interval over images."""
    return Estimate.of(ablation.share(response), _resampled_shares(ablation, [response], seed)[:, 0])
