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
from circuits.errors import shorten
from circuits.network.model import best_device
from sae.superposition.toy.batched_passes import Parameters, Passes
from sae.superposition.toy.feature_sampler import EVALUATION, TRAINING, Law
from sae.superposition.toy.results import Trained
from sae.superposition.toy.toy_models import Kind, ToyError, ToyModel
from zoo.progress import Progress, reporter

_log = logging.getLogger(__name__)

JUDGED = 4096
"""Examples that losses along the way are measured on; the final ones on eight times as many."""
ROWS = 256
"""Outputs, of one model or several, that are one matrix on a CPU."""


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

    A model comes out the same, to rounding, whatever it is trained beside: its initial weights follow from its seed,
    its examples from its data seed. The same models on the same device give the same bits.

    Args:
        models: of one kind; sizes, densities, importances and seeds as you like.
        steps: of the optimizer; batch: examples a step.
        lr: learning rate, constant, then falling to 0 over the last `anneal` (a share, 0 to 1) of the steps, so that
            what is measured is the solution and not the jitter around it.
        optimizer: "adamw" or "adam"; weight_decay: of AdamW.
        records: how many times losses and weights are kept along the way, first and last step included.
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
    place = best_device(device)
    plan = _Plan(models, place)
    parameters, importance = _initial(plan, place, dtype)
    learn = _passes(plan, parameters, importance, TRAINING, batch)
    decay = weight_decay if optimizer == "adamw" else 0.0
    stepper = torch.optim.AdamW([parameters.flat], lr=lr, weight_decay=decay, fused=place.type in ("cpu", "cuda"))
    marks = _marks(steps, records)
    kept: list[tuple[Tensor, Tensor]] = []

    def keep() -> None:
        judge = _passes(plan, parameters, importance, EVALUATION, JUDGED)
        kept.append((plan.pick(_judged(judge, 1)).cpu(), plan.pick(parameters.encoder).to("cpu", copy=True)))

    with torch.no_grad(), reporter(progress, "step") as report:
        for step in range(steps):
            if step in marks:
                keep()
                report(step, steps)
            learn.draw()
            learn.gradients()
            for group in stepper.param_groups:
                group["lr"] = lr * _falling(step, steps, anneal)
            stepper.step()
        keep()
        report(steps, steps)
        judge = _passes(plan, parameters, importance, EVALUATION, JUDGED)
        losses = plan.pick(_judged(judge, 8)).cpu()
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
        loss_history=torch.stack([loss for loss, _ in kept]),
        encoder_history=torch.stack([weights for _, weights in kept]),
        provenance=provenance(
            models=len(models), steps=steps, batch=batch, lr=lr, optimizer=optimizer, weight_decay=decay,
            anneal=anneal, device=str(place), dtype=str(dtype).removeprefix("torch."),
            seeds=sorted({m.seed for m in models}), data_seeds=sorted({m.data_seed for m in models}),
        ),
    )  # fmt: skip


def _check(
    models: list[ToyModel],
    steps: int,
    batch: int,
    lr: float,
    optimizer: str,
    weight_decay: float,
    anneal: float,
    records: int,
    dtype: torch.dtype,
) -> None:
    if not models or not all(isinstance(m, ToyModel) for m in models):
        raise ToyError("train takes a list of ToyModel with at least one, for example grid(5, 2)")
    if len(kinds := {m.kind for m in models}) > 1:
        raise ToyError(f"models of one kind at a time, not {' and '.join(sorted(kinds))}")
    for name, value in (("steps", steps), ("batch", batch)):
        if value < 1:
            raise ToyError(f"{name}={value}: at least 1")
    if not 0 < lr < math.inf:
        raise ToyError(f"lr={lr}: above 0")
    if optimizer not in ("adamw", "adam"):
        raise ToyError(f"optimizer={shorten(optimizer)!r}: use 'adamw' or 'adam'")
    if not 0 <= weight_decay < math.inf or not 0 <= anneal <= 1 or records < 2:
        raise ToyError(
            f"weight_decay={weight_decay} is at least 0, anneal={anneal} from 0 to 1, records={records} >= 2"
        )
    if dtype not in (torch.float32, torch.float64):
        raise ToyError(f"dtype={dtype}: float32 or float64")


def _falling(step: int, steps: int, anneal: float) -> float:
    left = (steps - step) / steps
    return min(1.0, left / anneal) if anneal else 1.0


def _marks(steps: int, records: int) -> set[int]:
    """Steps at which to look: half evenly spread, half denser towards the start, where more happens."""
    even = np.linspace(0, steps, (records + 1) // 2, endpoint=False)
    dense = np.geomspace(1, steps, records - len(even) + 1)[:-1]
    return {round(v) for v in (*even, *dense) if round(v) < steps}


class _Plan:
    """Where each model stands: models in rows of one law, as many to a row as fit the cache."""

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
            # even parts: what a row lacks is padded with models of nothing
            parts = math.ceil(len(members) / most)
            for part in np.array_split(np.array(members), parts):
                self.rows.append((law, part.tolist()))
        self.width = max(len(members) for _, members in self.rows)
        together = max(1, ROWS // (self.features * self.width)) if device.type == "cpu" else len(self.rows)
        count = math.ceil(len(self.rows) / together)
        cuts = [len(self.rows) * i // count for i in range(count + 1)]
        self.chunks = [slice(a, b) for a, b in zip(cuts, cuts[1:], strict=False)]
        places = {i: (row, column) for row, (_, members) in enumerate(self.rows) for column, i in enumerate(members)}
        self._row = torch.tensor([places[i][0] for i in range(len(models))])
        self._column = torch.tensor([places[i][1] for i in range(len(models))])

    def pick(self, values: Tensor) -> Tensor:
        """From `(rows, width, ...)` to one entry a model, in the models' order."""
        return values[self._row.to(values.device), self._column.to(values.device)]


def _passes(plan: _Plan, parameters: Parameters, importance: Tensor, which: int, size: int) -> Passes:
    block = 16 if which == TRAINING else 1
    laws = [law for law, _ in plan.rows]
    return Passes(laws, plan.chunks, parameters, importance, plan.models[0].kind, which, size, block)


def _judged(judge: Passes, batches: int) -> Tensor:
    total: Tensor | None = None
    for _ in range(batches):
        judge.draw()
        losses = judge.losses()
        total = losses if total is None else total + losses
    assert total is not None
    return total / batches


def _initial(plan: _Plan, device: torch.device, dtype: torch.dtype) -> tuple[Parameters, Tensor]:
    """Xavier's normal weights by each model's seed; what pads a smaller model is zero and stays so."""
    shape = (len(plan.rows), plan.width)
    encoder = torch.zeros(*shape, plan.hidden, plan.features, dtype=torch.float64)
    untied = _untied(plan.models[0].kind)
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


def _untied(kind: Kind) -> bool:
    return kind == "absolute"
