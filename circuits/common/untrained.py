"""The same network with nothing learned: the control of every claim about the trained one."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn

from circuits.errors import CircuitsError
from circuits.network.model import Model
from zoo.common.autograd import outside_inference_mode

Untrained = Literal["random", "shuffled"]


@outside_inference_mode
def untrained(model: Model, how: Untrained = "random", *, seed: int = 0) -> Model:
    """A copy of the network whose weights know nothing; attached bases come along as they are.

    Args:
        model: the model; it is left as it is.
        how: "random" draws every weight anew from a normal distribution that keeps the size of signals through
            ReLUs (He et al. 2015), biases zero and normalization plain: with torch's own initial weights signals
            die away over a few layers, which would make too easy a control. "shuffled" permutes the entries of each
            tensor, and so keeps the very numbers that training gave.
        seed: of the draw.

    Raises:
        CircuitsError: another `how`, or an edit is active: its hooks would be copied too.

    >>> untrained(load("scenes")).name
    'scenes'
    """
    if how not in ("random", "shuffled"):
        raise CircuitsError(f"control={how!r}: use 'random', 'shuffled' or None")
    if model.node_edits:
        raise CircuitsError(f"{model.name} is being edited: leave the edit before an untrained copy is made of it")
    module = copy.deepcopy(model.module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        if how == "shuffled":
            for value in [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]:
                order = torch.randperm(value.numel(), generator=generator).to(value.device)
                value.copy_(value.flatten()[order].view_as(value))
        else:
            for part in module.modules():
                _forget(part, generator)
    source = f"{how} weights, seed {seed}"
    blank = Model(module.eval(), model.input, name=model.name, card=model.card, source=source, **model.options)
    blank.bases.update(model.bases)
    return blank


def _forget(part: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of one module anew, not those of its children."""
    norm = isinstance(getattr(part, "running_mean", None), torch.Tensor) or isinstance(
        part, (nn.LayerNorm, nn.GroupNorm)
    )
    if hasattr(part, "reset_running_stats"):
        part.reset_running_stats()  # type: ignore[operator]
    for name, values in part.named_parameters(recurse=False):
        if norm:
            values.fill_(1.0 if name == "weight" else 0.0)
        elif values.ndim < 2:
            values.zero_()
        else:
            normal = torch.randn(values.shape, generator=generator, dtype=torch.float64)
            values.copy_(normal * (2.0 / values[0].numel()) ** 0.5)
