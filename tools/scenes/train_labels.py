"""Trains the network of the `scenes-labels` card: `python -m tools.scenes.train_labels --out FILE --seed 0`.

The architecture, the scenes, the number of steps and the photometric changes are those of
`tools.scenes.train`. What is left out is all that makes `scenes` a benchmark: no masks of parts, no heads on chosen
channels, no penalty on activations or kernels, no sign of the reductions. The loss is the cross-entropy of the class,
and nothing else. So whatever circuits it has, it has from the labels. About 10 minutes on one core.

`--without car` trains a network that never sees a class, to be compared with one that did; `--checkpoints 20` also
writes the network as it was during the training, denser at its beginning (`step-000045.safetensors` beside `--out`);
`--start FILE` goes on from a network that was trained before.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tools.scenes import evaluate
from tools.scenes.train import Pool, _network_input, _round, correct_prior, make_pool, write
from zoo.networks.inceptionv1 import InceptionV1
from zoo.scenes.generate import CLASSES, HELD_OUT_SEED, dataset
from zoo.scenes.network import SPEC, trunk

log = logging.getLogger(__name__)


def train(pool: Pool, *, seed: int = 0, steps: int = 6000, batch_size: int = 64, rate: float = 2e-3,
          progress: bool = True, start: Path | None = None,
          after_step: Callable[[InceptionV1], None] = lambda _: None,
          ) -> InceptionV1:  # fmt: skip
    """Train a network of `SPEC` on the labels of `pool`; in evaluation mode, on the CPU.

    Args:
        pool: from `make_pool`; its part maps are not looked at.
        seed: of the initial weights and the order of the scenes.
        steps: optimizer steps; the learning rate warms up and falls to zero along a cosine.
        batch_size: scenes a step.
        rate: the highest learning rate (Adam).
        progress: show a bar.
        start: weights to go on from, of a network that was trained before.
        after_step: called with the network after every step.
    """
    torch.manual_seed(seed)
    module = InceptionV1(SPEC)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    if start is not None:
        module.load_state_dict(load_file(start))
    module.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(seed)
    labels = torch.from_numpy(pool.labels)

    def loss(chosen: Tensor) -> dict[str, Tensor]:
        scores = trunk(module, _network_input(pool, chosen, generator, "cpu"))["softmax_pre"]
        return {"label": F.cross_entropy(scores, labels[chosen])}

    _round(
        loss, list(module.parameters()), lambda: after_step(module), scenes=len(labels), batch_size=batch_size,
        steps=steps, rate=rate, generator=generator, progress=progress,
    )  # fmt: skip
    correct_prior(module)
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return module.eval()


def without(pool: Pool, classes: Sequence[str]) -> Pool:
    """The scenes of other classes.

    Raises:
        ValueError: there is no such class.
    """
    keep = ~np.isin(pool.labels, [CLASSES.index(name) for name in classes])
    return replace(pool, images=pool.images[keep], labels=pool.labels[keep], parts=pool.parts[keep])


def checkpoint_steps(steps: int, count: int) -> list[int]:
    """After which steps the network is written: the squares of equal distances, since most is learned at first.

    >>> checkpoint_steps(1600, 4)
    [100, 400, 900, 1600]
    """
    return sorted({max(1, round(steps * (i / count) ** 2)) for i in range(1, count + 1)})


class Checkpoints:
    """Writes a network after some of the steps of its training, with the prior as it was trained on."""

    def __init__(self, folder: Path, at: Sequence[int]) -> None:
        self.folder, self.at, self.step = folder, set(at), 0

    def __call__(self, module: InceptionV1) -> None:
        """One more step was made."""
        self.step += 1
        if self.step in self.at:
            write(module, self.folder / f"step-{self.step:06d}.safetensors", {"format": "pt", "step": str(self.step)})


def main(arguments: list[str] | None = None) -> None:
    """Make the scenes, train, measure the accuracy on held-out scenes, and write the weights."""
    parser = argparse.ArgumentParser(prog="python -m tools.scenes.train_labels", description="Train from labels alone.")
    parser.add_argument("--out", type=Path, required=True, help="where to write the safetensors file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6000, help="optimizer steps")
    parser.add_argument("--scenes", type=int, default=48_000, help="scenes drawn to train on")
    parser.add_argument("--without", nargs="*", default=(), choices=CLASSES, help="classes that it never sees")
    parser.add_argument("--checkpoints", type=int, default=0, help="also write so many during the training")
    parser.add_argument("--start", type=Path, help="a file of weights to go on from")
    parser.add_argument("--rate", type=float, default=2e-3, help="the highest learning rate")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw scenes")
    parser.add_argument("--threads", type=int, default=1, help="of torch; the rounding, so the bits, depend on it")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    pool = without(make_pool(options.scenes, options.seed, options.workers), options.without)
    at = checkpoint_steps(options.steps, options.checkpoints) if options.checkpoints else []
    checkpoints = Checkpoints(options.out.parent, at)
    module = train(
        pool, seed=options.seed, steps=options.steps, rate=options.rate, start=options.start, after_step=checkpoints
    )
    accuracy = evaluate.accuracy(evaluate.run(module, dataset(2600, HELD_OUT_SEED)))
    log.info("accuracy on 2600 held-out scenes: %.4f", accuracy)
    metadata = {
        "format": "pt",
        "schema": "1",
        "seed": str(options.seed),
        "steps": str(options.steps),
        "scenes": str(options.scenes),
        "torch": str(torch.__version__),
        "accuracy": f"{accuracy:.4f}",
        **({"without": " ".join(options.without)} if options.without else {}),
    }
    write(module, options.out, metadata)
    log.info("wrote %s", options.out)


if __name__ == "__main__":
    main()
