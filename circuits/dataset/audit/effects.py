"""What a network answers on held-out images when units are removed, or put where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.class_scores import class_names
from circuits.common.statistics import Estimate, midranks
from circuits.dataset.audit.evidence import Evidence, Levels, baseline_for, levels_of, margin_of
from circuits.dataset.audit.results import Effect, Split
from circuits.network.model import Model
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.sources import Latents, composed
from circuits.tracing.curves.null_circuits import matched
from zoo.images.sources import Images

Units = frozenset[int]
DRAWS = 1000
"""Resamplings of the images for an interval."""


class HeldOut:
    """A class's answers on held-out images under edits of the units of one layer.

    Args:
        model: the model.
        evidence: what the layer gives the class, on the other half.
        index: of the class.
        own: held-out images of the class; others: of other classes.
        reference: images of other classes from the finding half, whose mean stands in for a removed unit.
        conflicts: objects of other classes before backgrounds of the class, where there are masks.
        batch_size: images per forward pass.

    Attributes:
        cues: how much of each unit's cue is there, on the class's own images and then on the others, `(N, units)`; see
            `Evidence`.
    """

    def __init__(
        self,
        model: Model,
        evidence: Evidence,
        index: int,
        own: Images,
        others: Images,
        reference: Images,
        conflicts: Images | None,
        batch_size: int,
    ) -> None:
        self.model, self.evidence = model, evidence
        baseline = baseline_for(model, evidence.space, reference)

        def on(images: Images) -> Ablation:
            return Ablation(
                model, margin_of(model, index), [evidence.space], images, baseline,
                measure="mean", batch_size=batch_size,
            )  # fmt: skip

        self._own, self._others = on(own), on(others)
        self._conflicts = None if conflicts is None else on(conflicts)
        self.source = self._own.sources[evidence.space]
        batches = (batch for ablation in (self._own, self._others) for batch in ablation.batches())
        levels = Levels.joined([levels_of(self.source.activity(batch.parts)) for batch in batches])
        self.cues = levels.cues(evidence.signs).numpy()
        self._removed: dict[tuple[int, Units], NDArray[np.bool_]] = {}
        self._inserted: dict[Units, NDArray[np.bool_]] = {}

    @property
    def n_own(self) -> int:
        """Number of the class's own images."""
        return len(self._own.images)

    def controls(self, unit: int, count: int) -> list[Units]:
        """The units most like one in how much removing them changes the layer on images of the class, each alone."""
        change = self.evidence.change.numpy()
        free = np.setdiff1d(np.arange(self.units), [unit])
        order = np.abs(np.log(change[free] + 1e-12) - np.log(change[unit] + 1e-12)).argsort(kind="stable")
        return [Units({other}) for other in free[order][:count].tolist()]

    def control_sets(self, units: Units, count: int, rng: np.random.Generator) -> list[Units]:
        """Random sets of as many other units, each like one of these in how much its removal changes the layer.

        In proportion, as in `controls`. No more than half of the layer's units may be given.
        """
        space, change = self.evidence.space, (self.evidence.change[: self.units] + 1e-12).log()
        return [Units(matched({space: set(units)}, {space: change}, rng)[space]) for _ in range(count)]

    @property
    def units(self) -> int:
        """Units of the layer; the error of a dictionary, which is no direction, is none."""
        return self.source.width - isinstance(self.source, Latents)

    def removal(self, units: Units, controls: Sequence[Units], rng: np.random.Generator) -> Effect:
        """Change of the class's accuracy."""
        return self._without(self._own, units, controls, rng)

    def background(self, units: Units, controls: Sequence[Units], rng: np.random.Generator) -> Effect | None:
        """Change of the share of other classes' objects that are called the class before backgrounds of it.

        None without masks.
        """
        return None if self._conflicts is None else self._without(self._conflicts, units, controls, rng)

    def insertion(self, units: Units, controls: Sequence[Units], rng: np.random.Generator) -> Effect:
        """Change of the share of other classes' images that are called the class."""
        return _effect(_answers(self._others.clean), self.inserted(units), map(self.inserted, controls), rng)

    def _without(self, ablation: Ablation, units: Units, controls: Sequence[Units], rng: np.random.Generator) -> Effect:
        removed = (self.removed(ablation, control) for control in controls)
        return _effect(_answers(ablation.clean), self.removed(ablation, units), removed, rng)

    def removed(self, ablation: Ablation, units: Units) -> NDArray[np.bool_]:
        """Whether images are called the class with units removed, `(N,)`; several suspects have the same controls."""
        key = id(ablation), units
        if key not in self._removed:
            self._removed[key] = _answers(ablation.respond_without({self.evidence.space: set(units)}))
        return self._removed[key]

    @torch.no_grad()
    def inserted(self, units: Units) -> NDArray[np.bool_]:
        """Whether other classes' images are called the class with units as on images of it where they are most active.

        Their whole maps come from one image of the finding half, sampled among the half of the class's in which they
        are more active, by the mean rank of their peaks.
        """
        if units not in self._inserted:
            chosen = sorted(units)
            ranks = midranks(self.evidence.peaks[:, chosen]).mean(dim=1)
            donors = ranks.argsort(descending=True, stable=True)[: -(-len(ranks) // 2)]
            maps = torch.cat([b.parts[:, chosen] for b in self.evidence.ablation.batches()])
            rng, rows = np.random.default_rng(chosen), []
            for batch in self._others.batches():
                sampled = donors[torch.from_numpy(rng.integers(len(donors), size=len(batch.acts)))]
                acts = self._with(batch.acts, batch.parts, chosen, maps[sampled])
                response = self._others.segment.respond(acts, batch.context)
                rows.append(_answers(self._others.target.values(response)))
            self._inserted[units] = np.concatenate(rows)
        return self._inserted[units]

    def _with(self, acts: Tensor, parts: Tensor, units: Sequence[int], values: Tensor) -> Tensor:
        """Activations `(n, C, h, w)` in which some units have other values `(n, units, h, w)`."""
        changed = acts.clone()
        if isinstance(self.source, Latents):
            for row, unit in enumerate(units):
                moved = values[:, row : row + 1] - parts[:, unit : unit + 1]
                changed += moved * self.source.write[unit].view(1, -1, 1, 1)
        else:
            changed[:, units] = values
        return changed

    @torch.no_grad()
    def accuracies(
        self, unit: int, labels: NDArray[np.int64], answers: NDArray[np.int64]
    ) -> dict[str, tuple[float, float]]:
        """Class -> its accuracy, and that with a unit removed.

        Args:
            unit: the unit; labels, answers: classes of the own images and then of the others, and what they are called.
        """
        natural = torch.ones(self.source.width, dtype=torch.bool, device=self.model.device)
        natural[unit] = False
        rows = []
        for ablation in (self._own, self._others):
            for batch in ablation.batches():
                edits = composed([ablation.holds(batch, self.evidence.space, natural)])
                acts = edits.pop(self.source.layer)(batch.acts)
                scores = ablation.segment.respond(acts, batch.context, edits)
                rows.append(scores.flatten(2).mean(2).argmax(1).cpu())
        removed, names = torch.cat(rows).numpy(), class_names(self.model)
        return {
            names[c]: (float((answers[of] == c).mean()), float((removed[of] == c).mean()))
            for c in np.unique(labels).tolist()
            if (of := labels == c).any()
        }

    def split(self, unit: int) -> Split:
        """Images that have the unit's cue against those that do not."""
        threshold = float((self.evidence.peaks[:, unit].median() + self.evidence.other_peaks[:, unit].median()) / 2)
        has = self.cues[:, unit] > threshold
        own, other = has[: self.n_own], has[self.n_own :]
        right, called = _answers(self._own.clean), _answers(self._others.clean)
        removed = self.removed(self._own, Units({unit}))
        return Split(
            threshold=threshold,
            n_with=int(own.sum()),
            n_without=int((~own).sum()),
            with_cue=_mean(right[own]),
            without_cue=_mean(right[~own]),
            removed_with=_mean(removed[own]),
            removed_without=_mean(removed[~own]),
            n_elsewhere=int(other.sum()),
            elsewhere=_mean(called[other]),
            nowhere=_mean(called[~other]),
        )


def _mean(values: NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if len(values) else None


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
