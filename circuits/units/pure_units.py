"""Virtual pure units: a channel restricted to the parents of one cluster, and a causal check of the clusters.

A channel that reads some of its parents only is no direction of its own layer. There are two stand-ins. A *direction*
in the layer of its parents (`attach_pure_units`) has an address: it is traced, visualized, edited and searched like
any unit. It reads one position, so that the arrangement of the parents is lost. An *edit* (`Keep`) is exact: inside
its context the channel itself is the pure unit, with the arrangement of its parents.

Source: Dreyer et al., PURE: turning polysemantic neurons into pure features by identifying relevant
circuits, 2024 (arXiv:2404.06453).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.contributions import checked_examples
from circuits.attribution.expanded_weights import example_weights
from circuits.common.provenance import provenance
from circuits.common.statistics import auc
from circuits.errors import CircuitsError, EditError, shorten
from circuits.network.address import Unit
from circuits.network.basis import Directions
from circuits.network.hooks import read
from circuits.network.interventions import Edit
from circuits.network.model import Model
from circuits.network.subnetwork import Segment
from circuits.units.polysemanticity import Cluster, Polysemanticity
from zoo.common.results import HIDDEN, Result, called
from zoo.images.sources import Images, open_images


@dataclass(frozen=True)
class Keep(Edit):
    """Silence all channels of a layer but some: `Keep("mixed4b", channels=(3, 17))`.

    Inside `circuits.edit(model, [Keep(...)])` a unit of the next layer is fed by these parents alone.

    Attributes:
        channels: those that stay as they are.

    >>> with circuits.edit(model, [Keep("mixed3b", channels=(3, 7))]): ...  # doctest: +SKIP
    """

    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.channels or any(c < 0 for c in self.channels):
            raise EditError(f"Keep(channels={shorten(self.channels)}): name at least one channel, from 0")

    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        if max(self.channels) >= acts.shape[1]:
            raise EditError(f"Keep: {self.unit} has {acts.shape[1]} channels; got {max(self.channels)}")
        mask = acts.new_zeros(acts.shape[1])
        mask[list(self.channels)] = 1
        return acts * mask.view(1, -1, *[1] * (acts.ndim - 2))


@dataclass(frozen=True)
class PureUnit(Result):
    """A cluster of a unit's examples as a direction in the layer of its parents.

    Attributes:
        unit: address of the direction, `model/layer~name:index`.
        of: the unit it was taken from; cluster: which of its clusters.
        parents: channels of the layer that it reads, the strongest weight first; weights: theirs.
        auc: how often its response to an example of its own cluster is larger than to one of the others; before: the
            same for the unit itself, the control.
    """

    unit: str
    of: str
    cluster: int
    parents: tuple[int, ...]
    weights: tuple[float, ...]
    auc: float
    before: float


def attach_pure_units(
    model: Model, result: Polysemanticity, images: Any, *, name: str | None = None
) -> tuple[PureUnit, ...]:
    """Make each cluster of a unit a unit of its own, in the layer of its parents.

    The weight of a parent is the unit's gradient with respect to it, as it is on the cluster's examples, summed
    over the kernel; parents that do not distinguish the cluster get none.

    Args:
        model: the model; the directions are attached to it.
        found: of `polysemantic`, with at least two clusters.
        images: the images it was found on.
        name: of the basis (default made of the unit's address).

    Raises:
        CircuitsError: there is nothing to decompose, or these are other images.

    >>> attach_pure_units(model, found.best, images="scenes:500")  # doctest: +SKIP
    """
    _two_at_least(result)
    dataset = open_images(images)
    unit, source = model.unit(result.unit), model.layer(result.source)
    if source.size is None:
        raise CircuitsError(f"the parents of {result.unit} are in {source.name}, which has no positions to read at")
    name = name or re.sub(r"[^A-Za-z0-9_.\-]", "-", unit.short)
    rows: list[Tensor] = []
    parents = []
    for cluster in result.clusters:
        examples = checked_examples(cluster.examples, dataset, result.unit)
        frame, _ = example_weights(
            model,
            dataset.subset([e.image for e in examples]),
            source=source.name,
            target=unit,
            positions=[e.position for e in examples],
        )
        weights = frame.summed[0].detach().cpu()
        mine = sorted(cluster.channels, key=lambda c: -abs(float(weights[c])))
        direction = torch.zeros(source.channels)
        direction[mine] = weights[mine].float()
        if not bool(direction.any()):
            raise CircuitsError(f"the parents of cluster {len(rows)} of {result.unit} have no weight in sum")
        rows.append(direction)
        parents.append((tuple(mine), tuple(float(v) for v in direction[mine])))
    read_along = torch.stack(rows).to(model.device, model.dtype)
    # its own component is what a latent writes: two clusters may share a parent
    model.attach(source.name, name, Directions(read_along, read_along / read_along.square().sum(1, keepdim=True)))
    aucs = _separation_aucs(model, result, read_along, dataset)
    units = []
    for k, ((mine_, weights_), (after, before)) in enumerate(zip(parents, aucs, strict=True)):
        address = str(Unit(source.name, k, model.name, name))
        units.append(PureUnit(address, result.unit, k, mine_, weights_, after, before))
    return tuple(units)


def _separation_aucs(
    model: Model, result: Polysemanticity, directions: Tensor, dataset: Images
) -> list[tuple[float, float]]:
    """For each cluster the AUC of its direction, and of the unit, for its examples among all."""
    owners, peaks, values = [], [], []
    for k, cluster in enumerate(result.clusters):
        batch = dataset.tensor(model.input, [e.image for e in cluster.examples]).to(model.device)
        with torch.no_grad():
            acts = read(model, batch, [model.layers[result.source]])[result.source]
        responses = torch.einsum("nchw,kc->nkhw", acts, directions)
        peaks += [_near(model, result, e, responses[i]) for i, e in enumerate(cluster.examples)]
        values += [e.value for e in cluster.examples]
        owners += [k] * len(cluster.examples)
    owner, table, own = torch.tensor(owners), torch.stack(peaks).cpu(), torch.tensor(values)[:, None]
    aucs = []
    for k in range(len(result.clusters)):
        mine = owner == k
        aucs.append((float(auc(table[mine, k : k + 1], table[~mine, k : k + 1])), float(auc(own[mine], own[~mine]))))
    return aucs


def _near(model: Model, result: Polysemanticity, example: Any, responses: Tensor) -> Tensor:
    """Largest response of each direction `(k, h, w)` within the box of an example."""
    field_ = model.layers[result.source].receptive_field
    if field_ is None:
        return responses.amax(dim=(1, 2))
    spans = []
    for a in range(2):
        centers = torch.arange(responses.shape[1 + a]) * field_.stride[a] + field_.offset[a] + (field_.size[a] - 1) / 2
        inside = (centers >= example.box[a]) & (centers < example.box[a + 2])
        spans.append(inside if bool(inside.any()) else torch.ones_like(inside))
    part: Tensor = responses[:, spans[0]][:, :, spans[1]].amax(dim=(1, 2))
    return part


def _two_at_least(result: Polysemanticity) -> None:
    if len(result.clusters) < 2:
        raise CircuitsError(
            f"{result.unit} was not split: its examples are one cluster, so there is nothing to decompose"
        )


# -- the causal check ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ClusterAblation(Result):
    """What a unit loses on each cluster's examples when a cluster's parents are silenced.

    Attributes:
        unit: address.
        counts: parents silenced for each cluster.
        lost: `(k, k)` share of the response lost on the examples of cluster `column` without the parents of
            cluster `row`; 1 is all of it, below 0 it grew.
        random: `(draws, k, k)` the same with as many parents sampled at random among all others.
        provenance: on what.
    """

    unit: str
    counts: tuple[int, ...] = field(metadata=called("parents"))
    lost: NDArray[np.float64]
    random: NDArray[np.float64]
    provenance: Mapping[str, Any] = field(default_factory=dict, metadata=HIDDEN)

    described = ("specific",)

    @property
    def specific(self) -> float:
        """How much more is lost on a cluster's own examples than on the others', mean over clusters."""
        k = len(self.lost)
        own = float(np.trace(self.lost)) / k
        return own - float(self.lost.sum() - np.trace(self.lost)) / (k * (k - 1))

    def describe(self) -> dict[str, Any]:
        """Ready for JSON; `random` is the mean over draws."""
        return super().describe() | {"random": self.random.mean(axis=0).tolist(), "draws": len(self.random)}


def ablate_clusters(
    model: Model, result: Polysemanticity, images: Any, *, draws: int = 20, seed: int = 0, batch_size: int = 32
) -> ClusterAblation:
    """Silence the parents of each cluster and see on whose examples the unit falls silent.

    Args:
        model: the model.
        found: of `polysemantic`, with at least two clusters.
        images: the images it was found on.
        draws: random sets of parents for each cluster.
        seed: of these.
        batch_size: images per pass.

    Raises:
        CircuitsError: there is nothing to decompose, or these are other images.

    >>> ablate_clusters(model, found.best, images="scenes:500").lost  # doctest: +SKIP
    """
    _two_at_least(result)
    dataset = open_images(images)
    unit, source = model.unit(result.unit), model.layer(result.source)
    generator = np.random.default_rng(seed)
    sets = [list(c.channels) for c in result.clusters]
    k = len(sets)
    every = np.arange(source.channels)
    random_sets = [
        [generator.choice(others, min(len(s), len(others)), replace=False).tolist() for s in sets]
        for others in [np.setdiff1d(every, sum(sets, []))]
        for _ in range(draws)
    ]
    ablated = [*sets, *(s for random_set in random_sets for s in random_set)]
    columns = [_lost(model, unit, source.name, c, dataset, ablated, batch_size, result.unit) for c in result.clusters]
    table = np.stack(columns, axis=1)
    return ClusterAblation(
        unit=result.unit,
        counts=tuple(len(s) for s in sets),
        lost=table[:k],
        random=table[k:].reshape(draws, k, k),
        provenance=provenance(weights=model.digest, images=dataset.name, draws=draws, seed=seed),
    )


def _lost(
    model: Model,
    unit: Unit,
    source: str,
    cluster: Cluster,
    dataset: Images,
    ablated: Sequence[Sequence[int]],
    batch_size: int,
    name: str,
) -> NDArray[np.float64]:
    """Mean share of the response lost on a cluster's examples, for each set of channels silenced."""
    examples = checked_examples(cluster.examples, dataset, name)
    # only what lies between the two layers runs again for each set
    segment = Segment(model, source, unit)
    totals = np.zeros(len(ablated))
    for begin in range(0, len(examples), batch_size):
        some = examples[begin : begin + batch_size]
        batch = dataset.tensor(model.input, [e.image for e in some]).to(model.device)
        with torch.no_grad():
            acts, context = segment.begin(batch)
            before = _at(segment.respond(acts, context), some)
            for i, channels in enumerate(ablated):
                without = acts.clone()
                without[:, channels] = 0
                after = _at(segment.respond(without, context), some)
                totals[i] += float((1 - after / before.clamp(min=1e-9)).sum())
    return totals / len(examples)


def _at(responses: Tensor, examples: Sequence[Any]) -> Tensor:
    return torch.stack([responses[i, 0, e.position[0], e.position[1]] for i, e in enumerate(examples)])
