"""What the sources of a traced node are counted from, and in what order its parents come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from circuits.dataset.peak_positions import Peaks
from circuits.errors import CircuitsError, ConstantError
from circuits.network.address import Unit
from circuits.network.hooks import read
from circuits.network.model import Model
from circuits.network.operations import Pair
from circuits.network.subnetwork import Segment
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.position_contributions import contributions_at
from circuits.tracing.ablation.sources import Latents, source_of
from circuits.tracing.baselines import Baseline, Counterfactual, Zero, check_pairs
from circuits.tracing.rankings.gain import gain_order
from circuits.tracing.rankings.unit_scores import STEPS, RankMethod, UnitScores, unit_scores
from circuits.tracing.score import sampled
from circuits.tracing.target import target_of
from zoo.images.sources import Images

By = Literal["weights", "attribution", "ablation", "gradient", "integrated", "patching", "mask"]
RANKED: tuple[RankMethod, ...] = ("gradient", "integrated", "patching", "mask")
"""Ways that choose parents by `circuits.rank`: over all positions, not only where the node is most active."""
LIMIT = 200
"""Images on which parents are ranked, at most; sampled at random where there are more."""


class ParentSources:
    """What the sources of each node are counted from, and, where parents are chosen by `rank`, their order.

    One `Ablation` serves all nodes of a layer: the activations of the images are computed once.

    Attributes:
        n_ranked: number of the images ranked on, where contributions are counted from a baseline.
    """

    def __init__(
        self,
        model: Model,
        images: Images,
        baseline: Baseline | None,
        by: By,
        strongest: Sequence[int],
        batch_size: int,
        peaks: Peaks,
    ) -> None:
        self.model, self.by, self.baseline = model, by, baseline
        self._batch_size = batch_size
        # of the images ranked on, where these are all that were looked at for peaks
        self._known = peaks.activations or {}
        self._ablations: dict[tuple[str, str], Ablation] = {}
        self._latest: tuple[Unit, str, Ablation] | None = None
        if baseline is not None:
            # every k-th image may be of one class where classes take turns
            self._images, self._baseline = sampled(images, baseline, LIMIT, torch.Generator().manual_seed(0))
            self.n_ranked = len(self._images)
            # the images traced, with the values that stand in for them
            paired = baseline.paired(images)
            self._pairs = None if paired is None else paired.subset(strongest).tensor(model.input).to(model.device)
            if self._pairs is not None and isinstance(baseline, Counterfactual):
                traced = images.subset(strongest)
                check_pairs(traced.tensor(model.input).to(model.device), self._pairs, traced.ids)

    def chosen(self, node: Unit, source: str, count: int, of: int) -> tuple[list[int], Tensor]:
        """The first `count` of the first `of` units of the source, and how much each of these moves the node."""
        ablation = self._ablation(node, source)
        try:
            ablation.check_reached()
        except CircuitsError as error:
            raise CircuitsError(f"{error}{other_tokens(self.model, source)}") from error
        scores = unit_scores(ablation, cast(RankMethod, self.by))[source]
        # further ones are no units: a dictionary's error
        scores = UnitScores(scores.signed[:of], scores.magnitude[:of])
        if self.by != "mask" and ablation.measure == "explained variance":
            return gain_order(ablation, scores, count), scores.magnitude
        return scores.magnitude.argsort(descending=True, stable=True)[:count].tolist(), scores.magnitude

    def _ablation(self, node: Unit, source: str) -> Ablation:
        """That of a node; it is asked for several times before the next node is."""
        if self._latest is None or self._latest[:2] != (node, source):
            self._latest = node, source, self._ablation_of(node, source)
        return self._latest[2]

    def _ablation_of(self, node: Unit, source: str) -> Ablation:
        target, key = target_of(self.model, node), (source, node.layer)
        try:
            if key not in self._ablations:
                for other in self._ablations.values():
                    other.shared.clear()
                self._ablations[key] = Ablation(
                    self.model, target, [source], self._images, self._baseline, batch_size=self._batch_size,
                    acts=self._known.get(source_of(self.model, source).layer),
                )  # fmt: skip
                return self._ablations[key]
            return self._ablations[key].with_target(target)
        except ConstantError as error:
            raise ConstantError(
                f"{error}, so that by={self.by!r} can rank; by='weights' and 'attribution' need no variation"
            ) from error

    def contributions(
        self, node: Unit, source: str, batch: Tensor, positions: list[Pair], begun: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Integrated gradients of a node before its ReLU at its positions: see `contributions_at`."""
        ablation = self._ablation(node, source)
        segment = Segment(self.model, ablation.sources[source].layer, node, pre=True)
        return contributions_at(ablation, segment, batch, self._pairs, positions, STEPS["integrated"], begun)

    @torch.no_grad()
    def values(self, node: Unit, source: str, start: str, acts: Tensor) -> Tensor | None:
        """What stands in for the activations `acts` `(N, S, h, w)` of `start` on the images traced; None for zero.

        Where the sources are latents, what stands in for them and for the error of their dictionary `(N, m + S, h, w)`.
        """
        if self.baseline is None or isinstance(self.baseline, Zero):
            return None
        units = source_of(self.model, source)
        if self._pairs is not None:
            others = read(self.model, self._pairs, [self.model.layers[start]])[start]
            return units.parts(others) if isinstance(units, Latents) else others
        held = self._ablation(node, source).held(source if isinstance(units, Latents) else start)
        return held.expand(len(acts), -1, *acts.shape[2:])


def other_tokens(model: Model, layer: str) -> str:
    """What to try where nothing of a layer is read: the class token, say, for patches. Empty for other layers."""
    tokens = [name for name in model.layers if model.layers[name].view == layer]
    return f"; it also has {', '.join(tokens)}" if tokens else ""
