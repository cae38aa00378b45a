"""Evaluation of an SAE: how well it reconstructs activations, and how much of the predictions survives splicing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.architectures.base import SAE
from sae.data.activations import MEMORY, Sampling, collect, fitting, opened
from sae.data.site import Function, Site, check_fits, constant, reconstructing
from sae.errors import SAEError
from sae.evaluation.baselines import ChannelDictionary, RandomDictionary
from sae.evaluation.metrics import Reconstruction, reconstruction
from zoo.common.results import Result, called, plain
from zoo.progress import Progress, reporter

CLEAN, SPLICED, MEAN, ZERO = "clean", "sae", "mean", "zero"


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
            replaced by their mean or zero ("mean", "zero"), and with the two baselines ("channels", "random").
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

    def records(self) -> list[dict[str, Any]]:
        """A row for each way: the predictions, and the FVU of what stands in place of the activations."""
        fvu = {SPLICED: self.reconstruction.fvu, **{name: of.fvu for name, of in self.reconstruction.baselines.items()}}
        return [{"way": way, "fvu": fvu.get(way), **plain(prediction)} for way, prediction in self.ways.items()]

    def recovered(self, metric: str = "top1", way: str = SPLICED, floor: str = MEAN) -> float:
        """Share of what is lost under an ablation that a way keeps: (way - floor) / (clean - floor).

        After a ReLU the mean is the fairer floor: zero is far from any activation that occurs.

        Args:
            metric: "top1", "top5", "loss", "agreement" or "kl".
            way: "sae", "channels" or "random".
            floor: "mean" or "zero".
        """
        at, low, high = (float(getattr(self.ways[name], metric)) for name in (way, floor, CLEAN))
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
) -> Evaluation:
    """How much of the activations at a site an SAE explains, and how much of the predictions survives it.

    Activations are reconstructed at all positions, or at as many uniform ones per input as fit into memory. Then
    the network predicts with the reconstruction in place of the activations, everywhere, beside the network as it
    is, the layer's mean, zero, and the channel and random dictionaries at equal L0.

    Args:
        sae: the SAE.
        site: where it reads; its metadata must not name another layer or other weights.
        inputs: images or texts; best not those it was trained on.
        labels: class of each image, -1 where unknown (default: the labels of the images).
        sampling: which positions the reconstruction is measured at; uniform.
        controls: run the channel and the random dictionary, too.
        batch_size: inputs per forward pass.
        seed: of the random dictionary.
        progress: True for a bar, or a function of (done, total) inputs.

    Raises:
        SAEError: an SAE of another layer or width, sampling by magnitude, labels of another number.

    >>> evaluate(s, VisionSite(model, "mixed4c"), photographs).recovered("top1")  # doctest: +SKIP
    0.98
    """
    from circuits.common.provenance import provenance

    check_fits(sae, site)
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
        measured = reconstruction(sae, acts.vectors, baselines=controls, seed=seed)
        mean = acts.vectors.double().mean(dim=0).float()
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
                _settled(RandomDictionary(mean, sae.latents, k, seed), acts.vectors),
            ):
                ways[baseline.name] = reconstructing(_both(baseline))
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
        branches=_branches(site, measured),
        ways={name: tally.result() for name, tally in tallies.items()},
        sampling=sampling,
        provenance={"sae": sae.config.to_dict(), "seed": seed, **provenance()},
    )


def _settled(dictionary: RandomDictionary, vectors: Tensor) -> RandomDictionary:
    dictionary.encode(vectors[:: max(1, len(vectors) // 4096)])  # its gain is fitted on the first vectors
    return dictionary


def _both(dictionary: ChannelDictionary | RandomDictionary) -> Function:
    return lambda acts: dictionary.reconstruct(acts)[0]


def _branches(site: Site, measured: Reconstruction) -> dict[str, dict[str, float]]:
    model, layer = getattr(site, "model", None), getattr(site, "layer", None)
    if model is None or layer is None:
        return {}
    out = {}
    for name, branch in model.layers.items():
        if branch.part is not None and branch.part[0] == layer.name:
            channels = slice(branch.part[1], branch.part[1] + branch.channels)
            out[name] = {SPLICED: measured.fvu_of(channels)}
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
