"""Targeted removal: does removing the latents of a part do what removing the part from the image does?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from circuits.attribution.class_scores import ClassScores
from circuits.network.model import Model
from sae.evaluation.controls.dictionary import Dictionary
from zoo.images.sources import open_images
from zoo.inputs import InputSpec
from zoo.scenes.generate import CLASSES
from zoo.scenes.minimal_pairs import parts_of

COUNTS = (1, 2, 4, 8, 16)
"""How many latents are removed; the number is chosen on pairs that are not scored."""
PAIRS = 12
MOST = 8
"""Parts at most: those whose removal changes the class scores most, on the first few pairs."""
_FEW = 3


@dataclass(frozen=True, eq=False)
class _Run:
    """Images of one kind at the layer: activations, what the rest of the network needs, and its class scores."""

    acts: Tensor
    context: Any
    scores: Tensor


@dataclass(frozen=True, eq=False)
class _Concept:
    """A part: images with it, without it, and with a part of another class; a set to choose on, and one to score on."""

    name: str
    sets: tuple[tuple[_Run, _Run, _Run], ...]


class Concepts:
    """Parts of the scenes whose removal matters to a network, as seen at one layer."""

    def __init__(self, rest: ClassScores, concepts: Sequence[_Concept]) -> None:
        self._rest, self._concepts = rest, concepts

    @property
    def names(self) -> tuple[str, ...]:
        """The parts, "car/wheel"."""
        return tuple(concept.name for concept in self._concepts)

    @classmethod
    @torch.no_grad()
    def of(cls, model: Model, layer: str, *, seed: int = 0) -> Concepts | None:
        """The parts that matter to a network of the scenes' classes; None of another network, or of a branch."""
        if list(model.classes or []) != list(CLASSES) or model.layers[layer].part is not None:
            return None
        rest = ClassScores(model, layer)

        def run(name: str, count: int, at: int) -> _Run:
            acts, context = rest.begin(_drawn(f"scenes:pairs/{name}:{count}@{at}", model.input))
            return _Run(acts, context, rest.scores(acts, context))

        falls = {}
        for kind in CLASSES:
            for part in () if kind == "nothing" else parts_of(kind):
                before, after = run(f"{kind}/{part}", _FEW, seed), run(f"{kind}/{part}/removed", _FEW, seed)
                falls[f"{kind}/{part}"] = float((before.scores - after.scores).square().sum())
        chosen = sorted(falls, key=lambda name: -falls[name])[:MOST]
        runs = {
            (name, at): (run(name, PAIRS, at), run(f"{name}/removed", PAIRS, at))
            for name in chosen
            for at in (seed, seed + 1)
        }
        concepts = []
        for name in chosen:
            other = next(o for o in chosen[::-1] if o.partition("/")[0] != name.partition("/")[0])
            sets = tuple((*runs[name, at], runs[other, at][0]) for at in (seed, seed + 1))
            concepts.append(_Concept(name, sets))
        return cls(rest, concepts)

    @torch.no_grad()
    def score(self, dictionary: Dictionary) -> float:
        """Mean over parts of `1 - (|edited - without|^2 + |edited - clean|^2 of others) / |with - without|^2`.

        Class scores of images without the part, of images with it from which its latents are removed at every position,
        and of as many images of another class, to which the same is done and nothing should happen. The latents are
        those whose contribution falls most when the part is removed from the image. They, and how many of `COUNTS`, are
        chosen on other pairs than those scored. 1 is what removing the part does; 0 is no better than doing nothing.
        """
        return sum(self._of(concept, dictionary) for concept in self._concepts) / len(self._concepts)

    def _of(self, concept: _Concept, dictionary: Dictionary) -> float:
        choose, score = concept.sets
        latents = [dictionary.encode(_rows(run.acts)) for run in choose]
        fall = (latents[0].sum(dim=0) - latents[1].sum(dim=0)) / len(choose[0].acts) * dictionary.write.norm(dim=1)
        order = fall.argsort(descending=True)[: max(COUNTS)]

        def share(runs: tuple[_Run, _Run, _Run], latents: Sequence[Tensor], count: int) -> float:
            here, without, other = runs
            rows = dictionary.write[order[:count]]
            wrong = (self._edited(here, latents[0][:, :count] @ rows) - without.scores).square().sum()
            damage = (self._edited(other, latents[1][:, :count] @ rows) - other.scores).square().sum()
            return 1 - float((wrong + damage) / (here.scores - without.scores).square().sum())

        to_choose = latents[0][:, order], latents[2][:, order]
        best = max(COUNTS, key=lambda count: share(choose, to_choose, count))
        to_score = [dictionary.encode(_rows(run.acts))[:, order] for run in (score[0], score[2])]
        return share(score, to_score, best)

    def _edited(self, run: _Run, removed: Tensor) -> Tensor:
        """Class scores with `removed` `(positions, d)` taken off the activations."""
        n, _, *size = run.acts.shape
        after = (_rows(run.acts) - removed).view(n, *size, -1).movedim(-1, 1)
        return self._rest.scores(after.contiguous().to(run.acts), run.context)


@lru_cache(maxsize=256)  # the same for every layer and dictionary, and drawing takes longer than running
def _drawn(source: str, spec: InputSpec) -> Tensor:
    images = open_images(source)
    _, batch = next(iter(images.batches(spec, batch_size=len(images))))
    return batch


def _rows(acts: Tensor) -> Tensor:
    return acts.movedim(1, -1).flatten(0, -2).cpu()
