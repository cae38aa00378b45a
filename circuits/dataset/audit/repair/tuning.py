"""Every weight trained on: what labels of groups mend where no few units hold what a network leans on.

Fine-tuning on images of which every class and group weighs the same, as Kirichenko et al. 2023 (arXiv 2204.02937) do
for the last layer alone. A step of Adam moves each weight by about a rate, as a share of the size of the weights of its
module, so that one rate serves layers of any scale. The rate is chosen by cross-validation, on images of the same half;
where the training on all of them then does worse on these than that, the next lower rate is taken.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.dataset.audit.repair.choice import Batches, Labeled, State, parts_of
from circuits.errors import CircuitsError
from circuits.network.hooks import capture, read
from circuits.network.model import Model
from zoo.progress import Progress, reporter

RATES = (0.01, 0.03, 0.1)
"""Largest share of the size of a module's weights by which a step moves one of them."""
STEPS = 100
WARM = 0.2
"""Share of the steps in which the rate rises from a 25th to its largest; then it falls to nothing."""


@dataclass(frozen=True)
class Tuning:
    """Weights that were trained on.

    Attributes:
        weights: entries of the network's state that changed.
        rate: the largest of a step; validated: rate -> accuracy on the worst group, of images not trained on.
    """

    weights: State
    rate: float
    validated: Mapping[float, float]


def tune(model: Model, fitting: Labeled, *, batch_size: int = 64, seed: int = 0, progress: Progress = None) -> Tuning:
    """Train every weight of a network on, balanced over classes and groups; the model is left as it is.

    What a network does in training alone (dropout, statistics of batches) stays off: it is trained as it is used.

    Args:
        model: a model with class scores.
        fitting: images, their classes and their groups.
        batch_size: images per forward pass where nothing is learned.
        seed: of the batches and of the parts.
        progress: True for a bar, or a function of (done, total) trainings.

    Raises:
        CircuitsError: no groups, one group alone, or too few images; no weights that can be trained, or such of less
            than 32 bits.
    """
    images, labels, groups = fitting
    parts = parts_of(images, groups, seed)
    trainer = Trainer(model, fitting, batch_size)
    right = {rate: np.zeros(len(labels), dtype=bool) for rate in RATES}
    total = len(parts) * len(RATES) + 1
    with reporter(progress, "training") as report:
        for number, part in enumerate(parts):
            rest = np.setdiff1d(np.arange(len(labels)), part)
            for step, rate in enumerate(RATES, start=1):
                trainer.train(rest, rate, seed + number + 1)
                right[rate][part] = trainer.answers(part) == labels[part]
                report(number * len(RATES) + step, total)
        validated = {rate: _worst(right[rate], groups) for rate in RATES}
        rate = max(RATES, key=lambda rate: (validated[rate], -rate))
        every = np.arange(len(labels))
        trainer.train(every, rate, seed)
        # worse on its own images than others were on images they had not seen: it went astray, as large steps may
        while rate > RATES[0] and _worst(trainer.answers(every) == labels, groups) < validated[rate]:
            rate = RATES[RATES.index(rate) - 1]
            trainer.train(every, rate, seed)
        report(total, total)
    after = trainer.model.module.state_dict()
    return Tuning({k: v for k, v in after.items() if not torch.equal(v, trainer.before[k])}, rate, validated)


def _worst(right: NDArray[np.bool_], groups: Sequence[str] | None) -> float:
    of = np.array(groups)
    return min(float(right[of == name].mean()) for name in np.unique(of))


def with_weights(model: Model, weights: Mapping[str, Tensor]) -> Model:
    """A copy of a model with some of its weights replaced.

    Raises:
        CircuitsError: no such weights, or of another shape.
    """
    other = copy.deepcopy(model)
    replace_weights(other, weights)
    return other


def replace_weights(model: Model, weights: Mapping[str, Tensor]) -> None:
    """Replace some of a model's weights in place; see `with_weights`."""
    state = model.module.state_dict()
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise CircuitsError(f"weights {name!r} are a tensor, not a {type(value).__name__}")
        if name not in state or state[name].shape != value.shape:
            known = "has none of that name" if name not in state else f"has {tuple(state[name].shape)} there"
            raise CircuitsError(f"weights {name!r} of shape {tuple(value.shape)}: {model.name} {known}")
    with torch.no_grad():
        for name, value in weights.items():
            state[name].copy_(value)


def shuffled(model: Model, weights: State, seed: int) -> State:
    """Weights changed by the same numbers at random entries of the same tensors: a control as large as the change."""
    generator = torch.Generator().manual_seed(seed)
    before = model.module.state_dict()
    control = {}
    for name, value in weights.items():
        change = (value - before[name]).flatten()
        order = torch.randperm(change.numel(), generator=generator).to(change.device)
        control[name] = before[name] + change[order].view_as(value)
    return control


class Trainer:
    """A copy of a model that is trained again and again from the same weights.

    Attributes:
        model: the copy, with the weights of the last training.
    """

    def __init__(self, model: Model, fitting: Labeled, batch_size: int) -> None:
        self.batches, self.batch_size = Batches(model, fitting), batch_size
        self.before = {name: value.detach().clone() for name, value in model.module.state_dict().items()}
        self.model = copy.deepcopy(model)
        self.modules: dict[str, list[torch.nn.Parameter]] = {}
        for name, parameter in self.model.module.named_parameters():
            if parameter.is_floating_point():
                self.modules.setdefault(name.rpartition(".")[0], []).append(parameter)
        if not self.modules:
            raise CircuitsError(f"{model.name} has no weights to train on")
        low = next((p.dtype for of in self.modules.values() for p in of if torch.finfo(p.dtype).bits < 32), None)
        if low is not None:
            raise CircuitsError(
                f"{model.name} has weights of {str(low).removeprefix('torch.')}, in which small steps round to "
                "nothing: wrap module.float() and train that"
            )

    def train(self, indices: NDArray[np.int64], rate: float, seed: int) -> None:
        """From the weights that the network came with, on some of the images."""
        self.model.module.load_state_dict(self.before)
        parameters = [p for of in self.modules.values() for p in of]
        required = [p.requires_grad for p in parameters]
        rates = [
            rate * float(torch.cat([p.detach().flatten().float() for p in of]).square().mean().sqrt())
            for of in self.modules.values()
        ]
        optimizer = torch.optim.Adam([{"params": of} for of in self.modules.values()], lr=rate, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rates, total_steps=STEPS, pct_start=WARM, cycle_momentum=False
        )
        drawn = self.batches.drawn(indices, torch.Generator().manual_seed(seed))
        layer = self.model.layer("logits")
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            for batch in itertools.islice(drawn, STEPS):
                scores = read(self.model, self.batches.images(batch), [layer])[layer.name].flatten(2).mean(dim=2)
                loss = self.batches.loss(scores, batch)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        for parameter, before in zip(parameters, required, strict=True):
            parameter.requires_grad_(before).grad = None

    def answers(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The class of the highest score of some images; -1, no class, where scores went astray to NaN or infinity."""
        images = self.batches.source.subset(indices.tolist())
        scores = capture(self.model, images, at="logits", batch_size=self.batch_size)["logits"].flatten(2).mean(dim=2)
        return torch.where(scores.isfinite().all(dim=1), scores.argmax(dim=1), -1).cpu().numpy()
