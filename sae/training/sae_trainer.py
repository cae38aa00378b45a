"""One SAE in training: weights, optimizer, counters, and their state for a checkpoint."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.architectures.base import SAE, Losses, SAEConfig, TrainingState, build
from sae.architectures.dead_latents import resample
from sae.distributed import ALONE, Ranks
from sae.errors import TrainingError, shorten
from sae.seeding import RESAMPLING, generator
from sae.training import optimizer
from sae.training.input_normalization import InputStatistics
from sae.training.reporting import Report
from sae.training.schedule import default_lr
from sae.training.settings import ResolvedSettings
from zoo.common.reading import Expected, check_arrays

log = logging.getLogger(__name__)

LOSS, ERROR, VARIANCE, STEPS, SAMPLES = range(5)
"""Positions in `SAETrainer.totals`, the sums since the last report."""


class SAETrainer:
    """One SAE in training.

    Attributes:
        sae: the model; name: of the run.
        step, samples: steps and vectors until now.
        collapse: the reason why it was stopped, or None.
    """

    def __init__(
        self, config: SAEConfig, name: str, statistics: InputStatistics, settings: ResolvedSettings,
        device: torch.device, ranks: Ranks = ALONE,
    ) -> None:  # fmt: skip
        self.config, self.name, self.settings, self.device, self.ranks = config, name, settings, device, ranks
        self.schedule = settings.schedule
        target = statistics.target
        self.sae: SAE = build(config, len(statistics.mean), None if target is None else len(target.mean))
        statistics.apply(self.sae)
        self.sae.to(device).train()
        self.optimizer = optimizer.adam(self.sae)
        for parameter in self.sae.parameters():  # from the start, so that every checkpoint has the same tensors
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), device=device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        self.generator = generator(config.seed, RESAMPLING)
        self.peak = config.lr or settings.lr or default_lr(config.latents)
        self.step, self.samples, self.resampled_at, self.strikes = 0, 0, 0, 0
        self.collapse: str | None = None
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.silent = torch.zeros(config.latents, dtype=torch.int64, device=device)
        self.dead = torch.zeros(0, dtype=torch.int64, device=device)
        self.fired = torch.zeros(config.latents, dtype=torch.int64, device=device)
        self.totals = torch.zeros(5, dtype=precise, device=device)
        self.parts: dict[str, Tensor] = {}
        self.last: tuple[Tensor, Tensor] | None = None

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return self.peak * self.schedule.lr(self.step)

    @property
    def unreported(self) -> bool:
        """Whether there were steps since the last report."""
        return float(self.totals[STEPS]) > 0

    def learn(self, x: Tensor, together: int | None = None, target: Tensor | None = None) -> None:
        """One step on normalized inputs `(N, d)`. Nothing here waits for an accelerator.

        Args:
            x: this rank's inputs.
            together: how many inputs all ranks have in this step (default: these are all).
            target: `(N, d_out)` what a transcoder reconstructs, normalized (default: the inputs).
        """
        target = x if target is None else target
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            state = TrainingState(self.step, self.schedule.steps, self.schedule.sparsity(self.step), self.dead)
            losses = self.sae.losses(x, self.sae.remaining(x, target), state)
        if self.device.type == "cpu" and not self.ranks.everywhere(math.isfinite(float(losses.total.detach()))):
            loss = float(losses.total.detach())
            value = f"{loss}" if not math.isfinite(loss) else "not finite on another rank"
            self._stop(f"the loss is {value} at step {self.step + 1}; the weights are those before it")
            self.optimizer.zero_grad(set_to_none=True)
            return
        losses.total.backward()  # type: ignore[no-untyped-call]
        n = len(x) if together is None else together
        squares = torch.linalg.vector_norm(target).square()
        if self.ranks.world > 1:
            losses, squares = self._averaged(losses, squares, len(x) / n)
        optimizer.step(self.sae, self.optimizer, self.lr, self.settings.clip)
        self.step += 1
        self.samples += n
        self._count(losses, squares, n)
        self.last = (x, losses.error)

    @torch.no_grad()
    def _averaged(self, losses: Losses, squares: Tensor, share: float) -> tuple[Losses, Tensor]:
        """Average gradients and moving thresholds over the inputs of all ranks; returns losses and squares of all."""
        means = [p.grad for p in self.sae.parameters() if p.grad is not None]
        means += [b for name, b in self.sae.named_buffers() if name not in self.sae.constants]
        total, fired = losses.total.detach().clone(), losses.fired.clone()
        parts = {name: value.clone() for name, value in losses.parts.items()}
        for value in (*means, total, *parts.values()):
            value.mul_(share)
        error = losses.squared_error.clone()
        self.ranks.add([*means, total, error, squares, fired, *parts.values()])
        return Losses(total, error, losses.error, fired, parts), squares

    @torch.no_grad()
    def _count(self, losses: Losses, squares: Tensor, n: int) -> None:
        self.silent += n
        self.silent.mul_(losses.fired == 0)
        self.fired += losses.fired
        now = [losses.total.detach(), losses.squared_error, squares, squares.new_ones(()), squares.new_full((), n)]
        self.totals += torch.stack([value.to(self.totals.dtype) for value in now])
        for name, value in losses.parts.items():
            self.parts[name] = self.parts.get(name, torch.zeros_like(self.totals[0])) + value

    @torch.no_grad()
    def report(self) -> Report:
        """The report since the last one; dead latents are counted and revived at the same time."""
        self.dead = (self.silent >= self.settings.dead_after).nonzero()[:, 0]
        totals = self.totals.tolist()
        steps, samples = max(totals[STEPS], 1.0), max(totals[SAMPLES], 1.0)
        report = Report(
            name=self.name,
            step=self.step,
            samples=self.samples,
            loss=totals[LOSS] / steps,
            fvu=totals[ERROR] / totals[VARIANCE] if totals[VARIANCE] > 0 else math.nan,
            l0=float(self.fired.sum()) / samples,
            dead=len(self.dead) / self.sae.latents,
            alive=float((self.fired > 0).double().mean()),
            lr=self.peak * self.schedule.lr(max(0, self.step - 1)),
            parts={name: float(self.parts[name]) / steps for name in sorted(self.parts)},
        )
        self._look_for_collapse(report)
        self._revive()
        self.totals.zero_()
        self.fired.zero_()
        self.parts = {}
        return report

    def _look_for_collapse(self, report: Report) -> None:
        if not (math.isfinite(report.loss) and math.isfinite(report.fvu)):
            self._stop(f"the loss is {report.loss} at step {self.step}: a lower learning rate may help")
            return
        trouble = None
        if report.l0 == 0:
            trouble = f"no latent is active on the last {int(self.totals[SAMPLES]):,} inputs"
        elif self.last is not None:
            x = self.last[0][:256]
            out = self.sae.decode(self.sae.activate(self.sae.dense_pre(x))) if len(x) > 1 else x
            if self.sae.skip is not None:
                out = out + F.linear(x, self.sae.skip)
            same = len(x) > 1 and float(out.float().std(dim=0).mean()) <= 1e-5 * float(x.std(dim=0).mean())
            if self.ranks.everywhere(same):
                trouble = "every input gets the same reconstruction"
        # one report may be a bad start; a second one in a row is where it stays
        self.strikes = self.strikes + 1 if trouble else 0
        if trouble and self.strikes == 1:
            log.warning("%s: %s (step %d)", self.name, trouble, self.step)
        elif trouble:
            self._stop(f"{trouble} (step {self.step}): less sparsity penalty, or a lower learning rate")

    def _stop(self, reason: str) -> None:
        self.collapse = reason
        log.warning("%s collapsed and is stopped: %s", self.name, reason)

    def _revive(self) -> None:
        due = self.samples - self.resampled_at >= self.settings.resample_every
        if self.config.revive != "resample" or not due or self.last is None or self.collapse:
            return
        x, error = (self.ranks.rows(value) for value in self.last)  # so that all ranks sample the same
        resample(self.sae, self.optimizer, x, error, self.dead, self.generator)
        self.silent[self.dead] = 0
        self.dead = self.dead[:0]
        self.resampled_at = self.samples

    # -- checkpoints ----------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that the next step depends on."""
        state = {f"sae.{name}": value for name, value in self.sae.state_dict().items()}
        for name, parameter in self.sae.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                state[f"adam.{name}.{key}"] = value
        state |= {f"parts.{name}": value for name, value in self.parts.items()}
        state |= {"silent": self.silent, "dead": self.dead, "fired": self.fired, "sums": self.totals}
        return {**state, "generator": self.generator.get_state()}

    def counters(self) -> dict[str, Any]:
        """The numbers that the next step depends on, as JSON."""
        names = ("step", "samples", "resampled_at", "strikes", "collapse")
        return {"name": self.name, "config": self.config.to_dict(), **{n: getattr(self, n) for n in names}}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Restore the state that `tensors` and `counters` gave.

        Raises:
            TrainingError: parts are missing or of another shape.
        """
        own = {name: value for name, value in self.tensors().items() if not name.startswith("parts.")}
        expected = {
            name: Expected(str(value.dtype), ("dead",) if name == "dead" else tuple(value.shape))
            for name, value in own.items()
        }
        expected["dead"] = replace(expected["dead"], low=0, high=self.config.latents - 1)
        expected["sums"] = replace(expected["sums"], gaps=True)
        try:
            check_arrays(tensors, expected)
            self.generator.set_state(tensors["generator"])
        except (ValueError, RuntimeError, TypeError) as error:
            raise TrainingError(f"the checkpoint does not fit {self.name}: {shorten(error, 160)}") from error
        for name, value in self.sae.state_dict().items():
            value.copy_(tensors[f"sae.{name}"])
        for name, parameter in self.sae.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                value.copy_(tensors[f"adam.{name}.{key}"])
        for key, name in (("silent", "silent"), ("dead", "dead"), ("fired", "fired"), ("sums", "totals")):
            setattr(self, name, tensors[key].to(self.device))
        self.parts = {n[6:]: v.to(self.device) for n, v in tensors.items() if n.startswith("parts.")}
        for name in ("step", "samples", "resampled_at", "strikes", "collapse"):
            setattr(self, name, counters[name])
