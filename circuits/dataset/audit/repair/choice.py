"""Which units to hold still, learned from images whose groups are known: one order of units, and how many of them.

The order is a mask as `tracing.rankings.learned_mask` learns it: each step removes a number of units, drawn evenly on a
logarithmic scale, softly, so that the amounts left add up; and lowers the cross-entropy of the classes, with every
class and group weighted the same in all. A removed unit is at its mean. How many are removed is chosen by
cross-validation: orders that are learned on the other parts of the images are tried on each part.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from circuits.errors import CircuitsError, EditError
from circuits.network.address import Unit
from circuits.network.hooks import EditFunction, editing, frozen, read
from circuits.network.model import Model
from circuits.network.responses import pooled_responses
from circuits.tracing.rankings.learned_mask import COLD, HOT, LEARNING_RATE, soft_choice
from zoo.images.sources import Images

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Numbers of units that are tried, up to a third of all."""
STEPS, BATCH, FOLDS = 100, 64, 3
HELD = 1 << 30
"""Bytes of images that are held in memory between steps; more are opened again for each."""

Labeled = tuple[Images, NDArray[np.int64], list[str] | None]
"""Images, their classes and their groups."""

State = dict[str, Tensor]
"""Entries of a `state_dict`."""


@dataclass(frozen=True)
class Choice:
    """Units to hold still.

    Attributes:
        units: chosen, those that come first in the order first.
        validated: number of units -> accuracy on the worst group, of images that the order was not learned on.
    """

    units: tuple[Unit, ...]
    validated: Mapping[int, float]


def choose(
    model: Model, fitting: Labeled, layers: Sequence[str] | None, *, batch_size: int = 64, seed: int = 0
) -> Choice:
    """Learn which units to hold at their means, and how many.

    Args:
        model: a model with class scores.
        fitting: images, their classes and their groups.
        layers: whose channels may be chosen; by default those of the second half of the trunk.
        batch_size: images per forward pass where nothing is learned.
        seed: of the batches and of the parts.

    Raises:
        CircuitsError: no groups, one group alone, or too few images. EditError: layers that hold no channels to choose.
    """
    images, labels, groups = fitting
    parts = parts_of(images, groups, seed)
    named = _layers(model, layers)
    learning = _Learning(model, named, fitting, batch_size)
    counts = [n for n in COUNTS if n <= max(1, learning.total // 3)]
    right = {n: np.zeros(len(labels), dtype=bool) for n in counts}
    for number, part in enumerate(parts):
        rest = np.setdiff1d(np.arange(len(labels)), part)
        order = learning.order(rest, counts[-1], seed + number + 1)
        for n in counts:
            right[n][part] = learning.answers(part, order[:n]) == labels[part]
    of = np.array(groups)
    validated = {n: min(float(right[n][of == name].mean()) for name in np.unique(of)) for n in counts}
    count = max(counts, key=lambda n: (validated[n], -n))
    order = learning.order(np.arange(len(labels)), counts[-1], seed)
    return Choice(tuple(learning.units[i] for i in order[:count].tolist()), validated)


def cell_weights(labels: NDArray[np.int64], groups: Sequence[str] | None) -> tuple[NDArray[np.float64], int]:
    """Weights of images, such that every class and group has the same in all; and how many the smallest of them has."""
    cells = list(zip(labels.tolist(), groups or [""] * len(labels), strict=True))
    counts = Counter(cells)
    return np.array([len(cells) / len(counts) / counts[cell] for cell in cells]), min(counts.values())


def _layers(model: Model, layers: Sequence[str] | None) -> list[str]:
    scores = model.layer("logits").name
    if layers is None:
        trunk = [name for name in model.trunk if name != scores]
        layers = trunk[len(trunk) // 2 :]
    if isinstance(layers, str) or not layers:
        raise EditError(f"give the layers as a list, such as layers=[{last_below(model)!r}]")
    names = [model.layer(name).name for name in layers]
    if scores in names:
        raise EditError(f"{scores} are the class scores, and what is repaired lies before them: name a layer below")
    return list(dict.fromkeys(names))


def last_below(model: Model) -> str:
    """The last layer of the trunk before the class scores, for messages; these where there is none."""
    scores = model.layer("logits").name
    return next((name for name in reversed(model.trunk) if name != scores), scores)


def parts_of(images: Images, groups: Sequence[str] | None, seed: int) -> list[NDArray[np.int64]]:
    """Parts with as many images of each group, copies of one image in the same.

    Raises:
        CircuitsError: no groups, one group alone, or too few images of one.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if groups is None or len(set(groups)) < 2:
        raise CircuitsError(
            "a repair is learned from images of two groups or more, and here "
            f"{'no groups are known' if groups is None else f'all are of {groups[0]!r}'}: name the units, or give "
            "groups= (a file, folders, or an audit that calls a unit a shortcut)"
        )
    few, count = Counter(groups).most_common()[-1]
    if count < FOLDS:
        raise CircuitsError(
            f"{count} images of the group {few!r} to choose on: {FOLDS} parts need one each, so give more"
        )
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    contents = np.unique(np.array([digest.hex() for digest in images.contents()]), return_inverse=True)[1]
    return [part for _, part in folds.split(np.zeros(len(groups)), list(groups), contents)]


class Batches:
    """Images to learn from: their classes, and weights such that every class and group has the same in all."""

    def __init__(self, model: Model, fitting: Labeled) -> None:
        self.model = model
        self.source, labels, groups = fitting
        self.labels = torch.as_tensor(labels)
        self.weights = torch.as_tensor(cell_weights(labels, groups)[0], dtype=torch.float32)
        size = 4 * len(self.source) * math.prod(model.input.shape)
        self._held = self.source.tensor(model.input) if size <= HELD else None

    def images(self, indices: Sequence[int]) -> Tensor:
        """Some of the images, `(n, channels, H, W)` in [0, 1]."""
        return self.source.tensor(self.model.input, indices) if self._held is None else self._held[list(indices)]

    def drawn(self, indices: NDArray[np.int64], generator: torch.Generator) -> Iterator[list[int]]:
        """Batches of some of the images without end, each image as often as any other."""
        waiting: list[int] = []
        while True:
            if len(waiting) < min(BATCH, len(indices)):
                waiting = indices[torch.randperm(len(indices), generator=generator).numpy()].tolist()
            batch, waiting = waiting[:BATCH], waiting[BATCH:]
            yield batch

    def loss(self, scores: Tensor, indices: Sequence[int]) -> Tensor:
        """Mean weighted cross-entropy of class scores `(n, classes)`."""
        losses = F.cross_entropy(scores, self.labels[indices].to(scores.device), reduction="none")
        return (losses * self.weights[indices].to(losses)).mean()


class _Learning:
    """The units with their means, and the images that are learned from."""

    def __init__(self, model: Model, layers: Sequence[str], fitting: Labeled, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self.batches = Batches(model, fitting)
        means = pooled_responses(model, fitting[0], layers, pool="mean", batch_size=batch_size)
        self.means = {name: values.mean(dim=0) for name, values in means.items()}
        self.units = [Unit(name, i, model.name) for name, of in self.means.items() for i in range(len(of))]
        self.total = len(self.units)

    def order(self, indices: NDArray[np.int64], most: int, seed: int) -> Tensor:
        """Units by how early they are removed, `(units,)`, learned on some of the images."""
        generator = torch.Generator().manual_seed(seed)
        # all alike, but for what decides between units that do the same
        numbers = (1e-3 * torch.randn(self.total, generator=generator)).to(self.model.device).requires_grad_(True)
        optimizer = torch.optim.Adam([numbers], lr=LEARNING_RATE, betas=(0.9, 0.99))
        drawn = self.batches.drawn(indices, generator)
        with frozen(self.model.module), torch.enable_grad():
            for step in range(STEPS):
                temperature = HOT * (COLD / HOT) ** (step / (STEPS - 1))
                removed = round(most ** float(torch.rand((), generator=generator)))
                batch = next(drawn)
                scores = self._scores(batch, soft_choice(numbers, self.total - removed, temperature))
                loss = self.batches.loss(scores, batch)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return numbers.detach().cpu().argsort(stable=True)

    def answers(self, indices: NDArray[np.int64], removed: Tensor) -> NDArray[np.int64]:
        """The class of the highest score of some images, with units at their means."""
        amounts = torch.ones(self.total, device=self.model.device)
        amounts[removed.to(amounts.device)] = 0.0
        with torch.no_grad():
            batches = np.array_split(indices, math.ceil(len(indices) / self.batch_size))
            scores = [self._scores(batch.tolist(), amounts).argmax(dim=1).cpu() for batch in batches]
        return torch.cat(scores).numpy()

    def _scores(self, indices: Sequence[int], amounts: Tensor) -> Tensor:
        """Class scores `(n, classes)` with each unit at its mean but for an amount of its deviation."""
        layer = self.model.layer("logits")
        split = torch.split(amounts, [len(of) for of in self.means.values()])
        edits = [(name, _mixed(amount, mean)) for (name, mean), amount in zip(self.means.items(), split, strict=True)]
        with editing(self.model, edits):
            return read(self.model, self.batches.images(indices), [layer])[layer.name].flatten(2).mean(dim=2)


def _mixed(amounts: Tensor, means: Tensor) -> EditFunction:
    def edited(acts: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (acts.ndim - 2))
        mean = means.to(acts).view(shape)
        return mean + amounts.to(acts).view(shape) * (acts - mean)

    return edited
