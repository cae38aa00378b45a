"""A sweep of toy models at once, against training them one by one and against one batched autograd program.

The sweep is 10 densities x 10 seeds of 20 features in 5 dimensions. Contenders, all with AdamW and a falling rate:

- one by one: a plain PyTorch loop for each model (a few models of different density are timed in full);
- one by one with `superposition.train`, a call for each model;
- one batched autograd program, as the notebook of Elhage et al. 2022 has it (`W (models, n, m)`, einsum), on all,
  for a part of the steps;
- `superposition.train`, once, on all of them.

Where only a part is run, the table gives its share and extrapolates in proportion. All contenders run in one process,
the loops before and after the sweep, and CPU-seconds stand beside seconds, so that a busy machine slows all equally.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # a script beside this one has the name of a package

import torch  # noqa: E402

from sae import superposition  # noqa: E402
from sae.superposition import ToyModel  # noqa: E402


@dataclass
class Timer:
    """Seconds and CPU-seconds of some calls, and their share of the whole sweep."""

    name: str
    share: float = 0.0
    wall: float = 0.0
    cpu: float = 0.0

    def time(self, run: Callable[[], object], share: float) -> None:
        """Add a call that is `share` of the whole."""
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        self.share += share

    def total(self) -> tuple[float, float]:
        """Seconds and CPU-seconds of the whole sweep, extrapolated in proportion."""
        return self.wall / self.share, self.cpu / self.share


def falling(step: int, steps: int) -> float:
    """The schedule of `superposition.train`: constant, then to 0 over the last fifth."""
    return min(1.0, (steps - step) / steps / 0.2)


def plain_loop(model: ToyModel, steps: int, batch: int) -> None:
    """One model in plain PyTorch."""
    n, m, p = model.features, model.hidden, model.densities[0]
    torch.manual_seed(model.seed)
    weights = torch.nn.Parameter(torch.randn(m, n) * (2 / (n + m)) ** 0.5)
    bias = torch.nn.Parameter(torch.zeros(n))
    importance = torch.tensor(model.importances)
    optimizer = torch.optim.AdamW([weights, bias], lr=1e-3)
    for step in range(steps):
        x = torch.rand(batch, n) * (torch.rand(batch, n) < p)
        output = torch.relu(x @ weights.T @ weights + bias)
        loss = (importance * (x - output) ** 2).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 1e-3 * falling(step, steps)
        optimizer.step()


def batched_autograd(models: list[ToyModel], steps: int, batch: int) -> None:
    """All models in one autograd program, each with its own examples."""
    n, m = models[0].features, models[0].hidden
    torch.manual_seed(0)
    weights = torch.nn.Parameter(torch.randn(len(models), n, m) * (2 / (n + m)) ** 0.5)
    bias = torch.nn.Parameter(torch.zeros(len(models), n))
    importance = torch.tensor(models[0].importances)
    density = torch.tensor([model.densities[0] for model in models])[None, :, None]
    optimizer = torch.optim.AdamW([weights, bias], lr=1e-3)
    for step in range(steps):
        x = torch.rand(batch, len(models), n) * (torch.rand(batch, len(models), n) < density)
        hidden = torch.einsum("bif,ifh->bih", x, weights)
        output = torch.relu(torch.einsum("bih,ifh->bif", hidden, weights) + bias)
        loss = (importance * (x - output) ** 2).sum(dim=2).mean(dim=0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 1e-3 * falling(step, steps)
        optimizer.step()


def main() -> None:
    """Time all of them; print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--least", type=float, default=0.01, help="least density; the first is 1")
    parser.add_argument("--instances", type=int, default=2, help="models that are trained one by one, twice")
    options = parser.parse_args()
    steps, batch = options.steps, options.batch
    densities = superposition.density_schedule(10, options.least)
    models = superposition.grid(20, 5, densities=densities, seeds=10, importance=superposition.decaying(20, 0.7))
    sample = models[:: len(models) // options.instances][: options.instances]
    part = max(1, steps // 500)
    superposition.train(models, steps=5, batch=batch, device="cpu")  # imports and first calls
    plain_loop(models[0], 20, batch)

    loop, ours_each = Timer("plain PyTorch, one by one"), Timer("`superposition.train`, one by one")
    notebook, ours = Timer("one batched autograd program"), Timer("`superposition.train`, all at once")

    def slow_ones() -> None:
        for model in sample:
            loop.time(lambda model=model: plain_loop(model, steps, batch), 1 / len(models))  # type: ignore[misc]
            ours_each.time(
                lambda model=model: superposition.train([model], steps=steps, batch=batch, device="cpu"),  # type: ignore[misc]
                1 / len(models),
            )
        notebook.time(lambda: batched_autograd(models, part, batch), part / steps)

    slow_ones()
    ours.time(lambda: superposition.train(models, steps=steps, batch=batch, device="cpu"), 1.0)
    slow_ones()

    about = f"{len(models)} models, densities 1 to {options.least:g}, {steps:,} steps of {batch:,} examples"
    print(f"\n{about}; torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}\n")
    print("| | measured | seconds | CPU-seconds | times slower (CPU) |\n|---|---|---|---|---|")
    least = ours.total()[1]
    for spent in (loop, ours_each, notebook, ours):
        wall, cpu = spent.total()
        measured = "whole" if spent.share == 1 else f"{100 * spent.share:.1f} %"
        print(f"| {spent.name} | {measured} | {wall:,.0f} | {cpu:,.0f} | {cpu / least:.1f} |")


if __name__ == "__main__":
    main()
