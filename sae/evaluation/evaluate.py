"""Evaluation of an SAE: how well it reconstructs activations, and how much of the predictions survives splicing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.architectures.base import SAE
from sae.data.activations import MEMORY, Sampling, collect, fitting, opened
from sae.data.site import (
    ROWS,
    Function,
    Site,
    check_fits,
    constant,
    reconstructing,
    target_of,
    transcoding,
    widths_of,
)
from sae.errors import SAEError, shorten
from sae.evaluation.baselines import ChannelDictionary, RandomDictionary
from sae.evaluation.metrics import Reconstruction, Tally, reconstruction
from sae.training.linear_map import LinearMap, fit_linear_map
from zoo.common.results import Result, called, plain
from zoo.progress import Progress, reporter

CLEAN, SPLICED, MEAN, ZERO = "clean", "sae", "mean", "zero"
TRANSCODER, LINEAR = "transcoder", "linear"
FEWEST, MOST = 20_000, 100_000
"""Pairs that the linear map is fitted on: four for each number that it reads, but within these."""


@dataclass(frozen=True)
class Prediction:
    """Quality of a network's predictions.

    Attributes:
        count: predictions with a known label.
        top1, top5: share of them whose label is the first choice, or among the first five; loss: their mean
            cross-entropy, in nats. NaN where no label is known.
        agreement: share of all predictions whose first choice is the clean network's.
        kl: mean KL divergence from the clean network's prediction, in nats.
    """

    count: int
    top1: float
    top5: float
    loss: float
    agreement: float
    kl: float


@dataclass(frozen=True, eq=False)
class Evaluation(Result):
    """Result of `evaluate`.

    Attributes:
        address: of the site; inputs: their name and number.
        reconstruction: of the activations, with the channel and the random dictionary as baselines.
        branches: FVU per branch of a concatenated layer: of the SAE, and of the channels at equal L0.
        ways: predictions of the network as it is ("clean"), with the SAE in its place ("sae"), with the activations
            replaced by their mean or zero ("mean", "zero"), and with the two baselines ("channels", "random"). Of a
            transcoder: in place of its block ("transcoder"), with the linear map there instead ("linear"), and with an
            SAE of the block's output ("sae").
        sampling: which positions the activations were taken at.
        provenance: SAE, versions, seed.
    """

    address: str
    inputs: Mapping[str, Any]
    reconstruction: Reconstruction
    branches: Mapping[str, Mapping[str, float]]
    ways: Mapping[str, Prediction] = field(metadata=called("predictions"))
    sampling: Sampling
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        r, text = self.reconstruction, f"{self.address} on {self.inputs.get('name')}"
        line = f"Evaluation({text}: FVU {r.fvu:.3f}, L0 {r.l0:.1f}, {r.dead:.0%} of {len(r.density)} latents dead"
        return line + "".join(f"; {name} FVU {of.fvu:.3f}" for name, of in r.baselines.items()) + ")"

    @property
    def own(self) -> str:
        """The way that is evaluated: "sae", or "transcoder"."""
        return TRANSCODER if TRANSCODER in self.ways else SPLICED

    def records(self) -> list[dict[str, Any]]:
        """A row for each way: the predictions, and the FVU of what stands in place of the activations."""
        fvu = {
            self.own: self.reconstruction.fvu,
            **{name: of.fvu for name, of in self.reconstruction.baselines.items()},
        }
        return [{"way": way, "fvu": fvu.get(way), **plain(prediction)} for way, prediction in self.ways.items()]

    def recovered(self, metric: str = "top1", way: str | None = None, floor: str = MEAN) -> float:
        """Share of what is lost under an ablation that a way keeps: (way - floor) / (clean - floor).

        After a ReLU the mean is the fairer floor: zero is far from any activation that occurs.

        Args:
            metric: "top1", "top5", "loss", "agreement" or "kl".
            way: one of `ways` (default: what is evaluated).
            floor: "mean" or "zero".
        """
        at, low, high = (float(getattr(self.ways[name], metric)) for name in (way or self.own, floor, CLEAN))
        return (at - low) / (high - low) if high != low else float("nan")

    def describe(self) -> dict[str, Any]:
        """The numbers as JSON."""
        metrics = ("top1", "top5", "loss", "agreement", "kl")
        recovered = {floor: {m: self.recovered(m, floor=floor) for m in metrics} for floor in (MEAN, ZERO)}
        return super().describe() | {"recovered": plain(recovered)}


@torch.no_grad()
def evaluate(
    sae: SAE,
    site: Site,
    inputs: Any,
    *,
    labels: Sequence[int] | None = None,
    sampling: Sampling | None = None,
    controls: bool = True,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = None,
    training: Any = None,
    output_sae: SAE | None = None,
) -> Evaluation:
    """How much of the activations at a site an SAE explains, and how much of the predictions survives it.

    Activations are reconstructed at all positions, or at as many uniform ones per input as fit into memory. Then
    the network predicts with the reconstruction in place of the activations, everywhere, beside the network as it
    is, the layer's mean, zero, and the channel and random dictionaries at equal L0.

    A transcoder stands in for the block between the two layers of its site. Beside it are the mean and zero, the linear
    map with the least squared error, which is its floor, and an SAE of the block's output, if one is given.

    Args:
        sae: the SAE, or a transcoder.
        site: where it reads; its metadata must not name another layer or other weights.
        inputs: images or texts; best not those it was trained on.
        labels: class of each image, -1 where unknown (default: the labels of the images).
        sampling: which positions the reconstruction is measured at; uniform.
        controls: run the channel and the random dictionary, too.
        batch_size: inputs per forward pass.
        seed: of the random dictionary.
        progress: True for a bar, or a function of (done, total) inputs.
        training: of a transcoder: inputs that the linear map is fitted on; without them there is none.
        output_sae: of a transcoder: an SAE of the second layer, to compare with.

    Raises:
        SAEError: an SAE of another layer or width, sampling by magnitude, labels of another number.

    >>> evaluate(s, VisionSite(model, "mixed4c"), photographs).recovered("top1")  # doctest: +SKIP
    0.98
    """
    from circuits.common.provenance import provenance

    check_fits(sae, site)
    widths = widths_of(site)
    if widths is None and (training is not None or output_sae is not None):
        raise SAEError("training= and output_sae= are of a transcoder, at a pair of sites; this is an SAE")
    if output_sae is not None:
        _check_output(output_sae, site)
    inputs = opened(site, inputs)
    if sampling is not None and sampling.rule != "uniform":
        raise SAEError(
            "metrics need uniform positions: vectors sampled by magnitude are not distributed as the layer's"
        )
    if labels is not None and len(labels) != len(inputs):
        raise SAEError(f"{len(labels)} labels for {len(inputs)} inputs")
    sampling = sampling or fitting(site, inputs, vectors=max(1, MEMORY // (4 * site.d)), seed=seed)
    passes = 2
    with reporter(progress, "inputs") as report:
        count = len(inputs)
        acts = collect(
            site,
            inputs,
            sampling=sampling,
            batch_size=batch_size,
            progress=lambda done, _: report(done, passes * count),
        )
        if sae.encoder.device != acts.vectors.device:
            sae = copy.deepcopy(sae).to(acts.vectors.device)
        device = acts.vectors.device
        if widths is None:
            measured, ways = _of_layer(sae, acts.vectors, controls, seed)
        else:
            linear = _linear_map(site, training, widths, batch_size, seed).to(device) if training is not None else None
            other = None if output_sae is None else copy.deepcopy(output_sae).to(device)
            measured, ways = _of_block(sae, acts.vectors, widths, linear, other)
        tallies = {name: PredictionTally() for name in ways}
        at = 0
        for scores, known in site.predictions(
            inputs,
            list(ways.values()),
            batch_size=batch_size,
            progress=lambda done, _: report(count + done, passes * count),
        ):
            if labels is not None:
                known = torch.tensor(list(labels[at : at + len(scores[0])]))
                at += len(scores[0])
            clean = scores[0].double().log_softmax(dim=1)
            for tally, score in zip(tallies.values(), scores, strict=True):
                tally.add(score, clean, known)
    return Evaluation(
        address=site.address,
        inputs={"name": getattr(inputs, "name", None), "count": count, "digest": getattr(inputs, "digest", None)},
        reconstruction=measured,
        branches=_branches(site, measured, SPLICED if widths is None else TRANSCODER),
        ways={name: tally.result() for name, tally in tallies.items()},
        sampling=sampling,
        provenance={"sae": sae.config.to_dict(), "seed": seed, **provenance()},
    )


def _of_layer(
    sae: SAE, vectors: Tensor, controls: bool, seed: int
) -> tuple[Reconstruction, dict[str, Function | None]]:
    """How an SAE reconstructs activations, and what takes their place in the network."""
    measured = reconstruction(sae, vectors, baselines=controls, seed=seed)
    mean = vectors.double().mean(dim=0).float()
    ways: dict[str, Function | None] = {
        CLEAN: None,
        SPLICED: reconstructing(sae),
        MEAN: constant(mean),
        ZERO: constant(torch.zeros_like(mean)),
    }
    if controls:
        k = max(1, round(measured.l0))
        for baseline in (
            ChannelDictionary(mean, k),
            _settled(RandomDictionary(mean, sae.latents, k, seed), vectors),
        ):
            ways[baseline.name] = reconstructing(_both(baseline))
    return measured, ways


def _of_block(
    sae: SAE, pairs: Tensor, widths: tuple[int, int], linear: LinearMap | None, output_sae: SAE | None
) -> tuple[Reconstruction, dict[str, Function | None]]:
    """The same of a transcoder, from pairs `(n, d + d_out)`."""
    d = widths[0]
    mean = pairs[:, d:].double().mean(dim=0).float()
    none = torch.zeros(1, dtype=torch.long)
    given: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {}
    ways: dict[str, Function | None] = {
        CLEAN: None,
        TRANSCODER: transcoding(sae, widths),
        MEAN: target_of(constant(mean), widths),
        ZERO: target_of(constant(torch.zeros_like(mean)), widths),
    }
    if linear is not None:
        given[LINEAR] = lambda both: (linear(both[:, :d]), none)
        ways[LINEAR] = transcoding(linear, widths)
    if output_sae is not None:
        given[SPLICED] = lambda both: output_sae.reconstruct(both[:, d:])
        ways[SPLICED] = target_of(reconstructing(output_sae), widths)
    results = {}
    for name, function in given.items():
        tally = Tally(name)
        for batch in torch.split(pairs, ROWS):
            tally.add(batch[:, d:], *function(batch))
        results[name] = tally.result()
    return replace(reconstruction(sae, pairs, widths=widths), baselines=results), ways


def _check_output(output_sae: SAE, site: Site) -> None:
    """Raises: SAEError: not an SAE of what the block gives."""
    target, widths = site.metadata.get("target"), widths_of(site)
    assert widths is not None
    if output_sae.transcodes or output_sae.d != widths[1]:
        kind = "a transcoder" if output_sae.transcodes else f"an SAE of {output_sae.d}"
        raise SAEError(f"output_sae= is an SAE of the {widths[1]} channels that the block gives, not {kind}")
    for key, own in (("layer", target), ("weights_digest", site.metadata.get("weights_digest"))):
        stated = output_sae.metadata.get(key)
        if None not in (stated, own) and stated != own:
            raise SAEError(f"output_sae= was trained on {shorten(stated, 20)}; the block gives {shorten(own, 20)}")


def _linear_map(site: Site, training: Any, widths: tuple[int, int], batch_size: int, seed: int) -> LinearMap:
    inputs = opened(site, training)
    sampling = fitting(site, inputs, vectors=max(FEWEST, min(MOST, 4 * widths[0])), seed=seed)
    blocks = site.blocks(inputs, batch_size=batch_size)
    return fit_linear_map((sampling.pick(block)[0] for block in blocks), widths)


def _settled(dictionary: RandomDictionary, vectors: Tensor) -> RandomDictionary:
    dictionary.encode(vectors[:: max(1, len(vectors) // 4096)])  # its gain is fitted on the first vectors
    return dictionary


def _both(dictionary: ChannelDictionary | RandomDictionary) -> Function:
    return lambda acts: dictionary.reconstruct(acts)[0]


def _branches(site: Site, measured: Reconstruction, own: str) -> dict[str, dict[str, float]]:
    model, layer = getattr(site, "model", None), getattr(site, "layer", None)
    if model is None or layer is None:
        return {}
    out = {}
    for name, branch in model.layers.items():
        if branch.part is not None and branch.part[0] == layer.name:
            channels = slice(branch.part[1], branch.part[1] + branch.channels)
            out[name] = {own: measured.fvu_of(channels)}
            out[name] |= {other: baseline.fvu_of(channels) for other, baseline in measured.baselines.items()}
    return out


class PredictionTally:
    """Accumulates a `Prediction` batch by batch."""

    def __init__(self) -> None:
        self.count = self.labeled = 0
        self.totals = torch.zeros(5, dtype=torch.float64)  # top-1, top-5, loss, agreement, KL

    def add(self, scores: Tensor, clean: Tensor, labels: Tensor | None) -> None:
        """Count scores `(n, classes)`, given the clean network's log-probabilities and the labels, -1 where unknown."""
        own = scores.double().log_softmax(dim=1)
        self.count += len(own)
        self.totals[3] += float((own.argmax(dim=1) == clean.argmax(dim=1)).sum())
        self.totals[4] += float(F.kl_div(own, clean, reduction="sum", log_target=True))
        if labels is None:
            return
        there = (labels >= 0).to(own.device)
        right, own = labels.to(own.device)[there], own[there]
        if len(right):
            self.labeled += len(right)
            first = own.topk(min(5, own.shape[1]), dim=1).indices == right[:, None]
            self.totals[0] += float(first[:, 0].sum())
            self.totals[1] += float(first.any(dim=1).sum())
            self.totals[2] += float(F.nll_loss(own, right, reduction="sum"))

    def result(self) -> Prediction:
        """The counts as numbers."""
        nan = float("nan")
        right = [float(v) / self.labeled if self.labeled else nan for v in self.totals[:3]]
        return Prediction(self.labeled, *right, *(float(v) / max(1, self.count) for v in self.totals[3:]))
