"""Training of many toy models at once."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.network.model import best_device
from sae.superposition.toy.batched_passes import Parameters, Passes
from sae.superposition.toy.feature_sampler import EVALUATION, TRAINING, Law
from sae.superposition.toy.results import Trained
from sae.superposition.toy.toy_models import ToyError, ToyModel
from zoo.common.checks import number, one_of, whole_number
from zoo.progress import Progress, reporter

_log = logging.getLogger(__name__)

EVALUATED = 4096
"""Examples for losses during training; final losses take eight times as many."""
ROWS = 256
"""Outputs, of one model or several, in one matrix on a CPU."""


def train(
    models: Sequence[ToyModel],
    *,
    steps: int = 10_000,
    batch: int = 1024,
    lr: float = 1e-3,
    optimizer: Literal["adamw", "adam"] = "adamw",
    weight_decay: float = 0.01,
    anneal: float = 0.2,
    records: int = 40,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Progress = None,
) -> Trained:
    """Train all models of a sweep at once, as one batched program.

    A model is the same, to rounding, whatever it is trained beside: its initial weights follow from its seed, its
    examples from its data seed. The same models on the same device give the same bits.

    Args:
        models: of one kind; sizes, densities, importances and seeds as you like.
        steps: of the optimizer; batch: examples a step.
        lr: learning rate, constant, then falling linearly to 0 over the last `anneal` (a share, 0 to 1) of the steps,
            so that the noise of the gradient does not blur the solution.
        optimizer: "adamw" or "adam"; weight_decay: of AdamW.
        records: number of times that losses and weights are recorded, first and last step included.
        device: "cpu", "cuda", ...; None for the best there is.
        dtype: float32, or float64.
        progress: True for a bar, or a function of (done, total).

    Raises:
        ToyError: no models, models of several kinds, numbers out of range, or a training that diverged.

    >>> train(grid(5, 2, densities=0.05, seeds=2), steps=50).losses.shape
    torch.Size([2])
    """
    models = list(models)
    _check(models, steps, batch, lr, optimizer, weight_decay, anneal, records, dtype)
    device = best_device(device)
    plan = _Plan(models, device)
    parameters, importance = _initial(plan, device, dtype)
    learn = _passes(plan, parameters, importance, TRAINING, batch)
    decay = weight_decay if optimizer == "adamw" else 0.0
    stepper = torch.optim.AdamW([parameters.flat], lr=lr, weight_decay=decay, fused=device.type in ("cpu", "cuda"))
    marks = _marks(steps, records)
    history: list[tuple[Tensor, Tensor]] = []

    def record() -> None:
        evaluation = _passes(plan, parameters, importance, EVALUATION, EVALUATED)
        losses = plan.pick(_mean_losses(evaluation, 1)).cpu()
        history.append((losses, plan.pick(parameters.encoder).to("cpu", copy=True)))

    with torch.no_grad(), reporter(progress, "step") as report:
        for step in range(steps):
            if step in marks:
                record()
                report(step, steps)
            learn.draw()
            learn.gradients()
            for group in stepper.param_groups:
                group["lr"] = lr * _falling(step, steps, anneal)
            stepper.step()
        record()
        report(steps, steps)
        evaluation = _passes(plan, parameters, importance, EVALUATION, EVALUATED)
        losses = plan.pick(_mean_losses(evaluation, 8)).cpu()
    if not bool(torch.isfinite(losses).all()):
        bad = int((~torch.isfinite(losses)).sum())
        raise ToyError(f"{bad} of {len(models)} models diverged (their loss is no number): try a smaller lr than {lr}")
    written = plan.pick(parameters.written).cpu().contiguous()
    return Trained(
        models=tuple(models),
        encoders=plan.pick(parameters.encoder).cpu(),
        decoders=written,
        biases=plan.pick(parameters.bias).cpu(),
        losses=losses,
        steps=tuple(sorted(marks)) + (steps,),
        loss_history=torch.stack([loss for loss, _ in history]),
        encoder_history=torch.stack([weights for _, weights in history]),
        provenance=provenance(
            models=len(models), steps=steps, batch=batch, lr=lr, optimizer=optimizer, weight_decay=decay,
            anneal=anneal, device=str(device), dtype=str(dtype).removeprefix("torch."),
            seeds=sorted({m.seed for m in models}), data_seeds=sorted({m.data_seed for m in models}),
        ),
    )  # fmt: skip


def _check(
    models: list[ToyModel], steps: int, batch: int, lr: float, optimizer: str, weight_decay: float, anneal: float,
    records: int, dtype: torch.dtype,
) -> None:  # fmt: skip
    if not models or not all(isinstance(m, ToyModel) for m in models):
        raise ToyError("train takes a list of ToyModel with at least one, for example grid(5, 2)")
    if len(kinds := {m.kind for m in models}) > 1:
        raise ToyError(f"models of one kind at a time, not {' and '.join(sorted(kinds))}")
    whole_number("steps", steps, error=ToyError)
    whole_number("batch", batch, error=ToyError)
    whole_number("records", records, least=2, error=ToyError)
    number("lr", lr, above=0, error=ToyError)
    number("weight_decay", weight_decay, least=0, error=ToyError)
    number("anneal", anneal, least=0, most=1, error=ToyError)
    one_of("optimizer", optimizer, ("adamw", "adam"), error=ToyError)
    if dtype not in (torch.float32, torch.float64):
        raise ToyError(f"dtype={dtype}: float32 or float64")


def _falling(step: int, steps: int, anneal: float) -> float:
    remaining = (steps - step) / steps
    return min(1.0, remaining / anneal) if anneal else 1.0


def _marks(steps: int, records: int) -> set[int]:
    """Steps at which to record: half evenly spaced, half geometrically, since more changes early on."""
    even = np.linspace(0, steps, (records + 1) // 2, endpoint=False)
    dense = np.geomspace(1, steps, records - len(even) + 1)[:-1]
    return {round(v) for v in (*even, *dense) if round(v) < steps}


class _Plan:
    """The position of each model in the batched tensors: rows of one law, as many models to a row as fit the cache."""

    def __init__(self, models: list[ToyModel], device: torch.device) -> None:
        self.models = models
        self.features, self.hidden = max(m.features for m in models), max(m.hidden for m in models)
        most = max(1, ROWS // self.features) if device.type == "cpu" else len(models)
        by_law: dict[Law, list[int]] = {}
        for i, model in enumerate(models):
            by_law.setdefault(Law.of(model), []).append(i)
        # those with sets last; else the densest first, so that neighbors have about as many examples to compute
        ordered = sorted(by_law.items(), key=lambda item: (item[0].gated, -sum(item[0].densities)))
        self.rows: list[tuple[Law, list[int]]] = []
        for law, members in ordered:
            # even parts: short rows are padded with models without features
            parts = math.ceil(len(members) / most)
            for part in np.array_split(np.array(members), parts):
                self.rows.append((law, part.tolist()))
        self.width = max(len(members) for _, members in self.rows)
        together = max(1, ROWS // (self.features * self.width)) if device.type == "cpu" else len(self.rows)
        count = math.ceil(len(self.rows) / together)
        cuts = [len(self.rows) * i // count for i in range(count + 1)]
        self.chunks = [slice(a, b) for a, b in zip(cuts, cuts[1:], strict=False)]
        positions = {i: (row, column) for row, (_, members) in enumerate(self.rows) for column, i in enumerate(members)}
        self._row = torch.tensor([positions[i][0] for i in range(len(models))])
        self._column = torch.tensor([positions[i][1] for i in range(len(models))])

    def pick(self, values: Tensor) -> Tensor:
        """From `(rows, width, ...)` to one entry per model, in the order of the models."""
        return values[self._row.to(values.device), self._column.to(values.device)]


def _passes(plan: _Plan, parameters: Parameters, importance: Tensor, which: int, size: int) -> Passes:
    block = 16 if which == TRAINING else 1
    laws = [law for law, _ in plan.rows]
    return Passes(laws, plan.chunks, parameters, importance, plan.models[0].kind, which, size, block)


def _mean_losses(passes: Passes, batches: int) -> Tensor:
    total = torch.zeros(())
    for _ in range(batches):
        passes.draw()
        total = total + passes.losses()
    return total / batches


def _initial(plan: _Plan, device: torch.device, dtype: torch.dtype) -> tuple[Parameters, Tensor]:
    """Xavier-normal weights by each model's seed; padding of smaller models is zero, and its gradient is zero."""
    shape = (len(plan.rows), plan.width)
    encoder = torch.zeros(*shape, plan.hidden, plan.features, dtype=torch.float64)
    untied = plan.models[0].kind == "absolute"
    decoder = torch.zeros(*shape, plan.features, plan.hidden, dtype=torch.float64) if untied else None
    importance = torch.zeros(*shape, plan.features, dtype=torch.float64)
    for row, (_, members) in enumerate(plan.rows):
        for column, i in enumerate(members):
            model = plan.models[i]
            n, m = model.features, model.hidden
            generator = torch.Generator().manual_seed(model.seed)
            scale = math.sqrt(2 / (n + m))
            encoder[row, column, :m, :n] = scale * torch.randn(m, n, generator=generator, dtype=torch.float64)
            if decoder is not None:
                decoder[row, column, :n, :m] = scale * torch.randn(n, m, generator=generator, dtype=torch.float64)
            importance[row, column, :n] = torch.tensor(model.importances, dtype=torch.float64)
    parameters = Parameters(
        encoder.to(device, dtype),
        torch.zeros(*shape, plan.features, device=device, dtype=dtype),
        None if decoder is None else decoder.to(device, dtype),
    )
    return parameters, importance.to(device, dtype)
