"""What a network answers on held-out images when one unit is removed, or put where it is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.class_scores import class_name
from circuits.common.statistics import Estimate
from circuits.dataset.audit.evidence import Evidence, baseline_for, margin_of
from circuits.dataset.audit.results import Effect, Split
from circuits.network.model import Model
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.channel_edits import ChannelEdits
from circuits.tracing.ablation.sources import Latents, composed
from zoo.images.sources import Images

DRAWS = 1000
"""Resamplings of the images for an interval."""


class HeldOut:
    """A class's answers on held-out images under edits of the units of one layer.

    Args:
        model: the model.
        evidence: what the layer gives the class, on the other half.
        index: of the class.
        images: held-out images, the first `n_own` of the class, then some of other classes.
        reference: images of other classes from the finding half, whose mean stands in for a removed unit.
        batch_size: images per forward pass.

    Attributes:
        clean: `(N,)` whether the class is the answer, first on its `n_own` images, then on those of other classes.
        removed: `(units, N)` the same with each unit removed.
        peaks: `(N, units)` largest activation of each unit.
    """

    def __init__(
        self,
        model: Model,
        evidence: Evidence,
        index: int,
        images: Images,
        n_own: int,
        reference: Images,
        batch_size: int,
    ) -> None:
        self.evidence, self.n_own = evidence, n_own
        space, baseline = evidence.space, baseline_for(model, evidence.space, reference)
        self.ablation = Ablation(
            model, margin_of(model, index), [space], images, baseline, measure="mean", batch_size=batch_size
        )
        self.source = self.ablation.sources[space]
        self.clean = _answers(self.ablation.clean)
        self.removed = np.concatenate([_answers(r) for r in ChannelEdits(self.ablation).single()])
        peaks = [self.source.activity(b.parts).amax(dim=(2, 3)).cpu() for b in self.ablation.batches()]
        self.peaks = torch.cat(peaks).numpy()
        self._inserted: dict[int, NDArray[np.bool_]] = {}

    def controls(self, unit: int, count: int) -> list[int]:
        """The units most like one in how much removing them changes the layer on images of the class."""
        change = self.evidence.change.numpy()
        free = np.setdiff1d(np.arange(self.units), [unit])
        order = np.abs(np.log(change[free] + 1e-12) - np.log(change[unit] + 1e-12)).argsort(kind="stable")
        chosen: list[int] = free[order][:count].tolist()
        return chosen

    @property
    def units(self) -> int:
        """Units of the layer; the error of a dictionary, which is no direction, is none."""
        return self.source.width - isinstance(self.source, Latents)

    def removal(self, unit: int, controls: Sequence[int], rng: np.random.Generator) -> Effect:
        """Change of the class's accuracy."""
        own = slice(0, self.n_own)
        return _effect(self.clean[own], self.removed[unit, own], (self.removed[c, own] for c in controls), rng)

    def insertion(self, unit: int, controls: Sequence[int], rng: np.random.Generator) -> Effect:
        """Change of the share of other classes' images that are called the class."""
        clean = self.clean[self.n_own :]
        return _effect(clean, self.inserted(unit), (self.inserted(c) for c in controls), rng)

    @torch.no_grad()
    def inserted(self, unit: int) -> NDArray[np.bool_]:
        """Whether other classes' images are called the class with a unit as on images of it where it is most active.

        Its whole map comes from one image of the finding half, sampled among the more active half of the class's.
        """
        if unit not in self._inserted:
            peaks = self.evidence.peaks[:, unit]
            donors = peaks.argsort(descending=True, stable=True)[: -(-len(peaks) // 2)]
            maps = torch.cat([b.parts[:, unit : unit + 1] for b in self.evidence.ablation.batches()])
            rng, rows, first = np.random.default_rng(unit), [], 0
            for batch in self.ablation.batches():
                chosen = donors[torch.from_numpy(rng.integers(len(donors), size=len(batch.acts)))]
                skip = max(0, min(self.n_own - first, len(batch.acts)))
                first += len(batch.acts)
                if skip == len(batch.acts):
                    continue
                acts = self._with(batch.acts, batch.parts, unit, maps[chosen])
                response = self.ablation.segment.respond(acts, batch.context)
                rows.append(_answers(self.ablation.target.values(response))[skip:])
            self._inserted[unit] = np.concatenate(rows)
        return self._inserted[unit]

    def _with(self, acts: Tensor, parts: Tensor, unit: int, values: Tensor) -> Tensor:
        """Activations `(n, C, h, w)` in which a unit has other values `(n, 1, h, w)`."""
        if isinstance(self.source, Latents):
            return acts + (values - parts[:, unit : unit + 1]) * self.source.write[unit].view(1, -1, 1, 1)
        changed = acts.clone()
        changed[:, unit : unit + 1] = values
        return changed

    @torch.no_grad()
    def accuracies(
        self, unit: int, labels: NDArray[np.int64], answers: NDArray[np.int64], model: Model
    ) -> dict[str, tuple[float, float]]:
        """Class -> its accuracy, and that with a unit removed; `labels` and `answers` are of the images, `(N,)`."""
        natural = torch.ones(self.source.width, dtype=torch.bool, device=model.device)
        natural[unit] = False
        rows = []
        for batch in self.ablation.batches():
            edits = composed([self.ablation.holds(batch, self.evidence.space, natural)])
            acts = edits.pop(self.source.layer)(batch.acts)
            scores = self.ablation.segment.respond(acts, batch.context, edits)
            rows.append(scores.flatten(2).mean(2).argmax(1).cpu())
        removed = torch.cat(rows).numpy()
        return {
            class_name(model, c): (float((answers[of] == c).mean()), float((removed[of] == c).mean()))
            for c in np.unique(labels).tolist()
            if (of := labels == c).any()
        }

    def split(self, unit: int) -> Split:
        """Images that have the unit's cue against those that do not."""
        threshold = float((self.evidence.peaks[:, unit].median() + self.evidence.other_peaks[:, unit].median()) / 2)
        has = self.peaks[:, unit] > threshold
        own, other = np.arange(len(has)) < self.n_own, np.arange(len(has)) >= self.n_own

        def mean(values: NDArray[np.bool_], rows: NDArray[np.bool_]) -> float | None:
            return float(values[rows].mean()) if rows.any() else None

        removed = self.removed[unit]
        return Split(
            threshold=threshold,
            n_with=int((own & has).sum()),
            n_without=int((own & ~has).sum()),
            with_cue=mean(self.clean, own & has),
            without_cue=mean(self.clean, own & ~has),
            removed_with=mean(removed, own & has),
            removed_without=mean(removed, own & ~has),
            n_elsewhere=int((other & has).sum()),
            elsewhere=mean(self.clean, other & has),
            nowhere=mean(self.clean, other & ~has),
        )


def _answers(margins: Tensor) -> NDArray[np.bool_]:
    """Whether a class is the answer, from its margins `(..., N, 1, 1)`."""
    answers: NDArray[np.bool_] = (margins[..., 0, 0] > 0).cpu().numpy()
    return answers


def _effect(
    clean: NDArray[np.bool_],
    edited: NDArray[np.bool_],
    controls: Iterable[NDArray[np.bool_]],
    rng: np.random.Generator,
) -> Effect:
    """The change of a share, with the interval of resampled images, beside those of the controls."""
    each = edited.astype(float) - clean
    rows = rng.integers(len(each), size=(DRAWS, len(each)))
    change = Estimate.of(each.mean(), each[rows].mean(axis=1))
    return Effect(change, tuple(float(c.mean() - clean.mean()) for c in controls))


def share_of(values: NDArray[np.bool_]) -> Estimate:
    """A share with its 95 % interval by Wilson's formula."""
    from scipy.stats import binomtest

    ends = binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
    return Estimate(float(values.mean()), float(ends.low), float(ends.high))
