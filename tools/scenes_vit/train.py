"""Trains the packaged vision transformer: `python -m tools.scenes_vit.train --out scenes_vit.safetensors --seed 0`.

From labels alone, on the scenes that `tools.scenes.train` draws. Every batch is augmented: mirrored (which swaps the
two dogs), shifted by up to 4 pixels, and photometrically. AdamW with a cosine; a running average of the weights is what
is written, as float16. "nothing" is drawn more often than in evaluation, which `corrected` takes back. The scenes are
drawn once and kept (`--pool`), the state of training is written every few minutes (`--checkpoint`), and a run that was
interrupted goes on from there with the same batches. The packaged weights are those of `--scenes 60000 --steps 3500
--until 1750`, about 20 minutes on one core: the average had 99 % of held-out scenes right by then.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tools.scenes.train import _NOTHING_SHARE, _photometric, make_pool
from zoo.common.files import write_atomically
from zoo.scenes.generate import CLASSES, HELD_OUT_SEED, dataset
from zoo.scenes.network import INPUT
from zoo.scenes.vit import SPEC, VisionTransformer

log = logging.getLogger(__name__)

_SHIFT = 4  # pixels that a scene may be moved by
_DOGS = [CLASSES.index(name) for name in ("dog_left", "dog_right")]
_AVERAGE = 0.998  # of the running average of the weights, per step


def load_pool(path: Path, scenes: int, seed: int, workers: int) -> tuple[npt.NDArray[np.uint8], Tensor]:
    """Images `(N, S, S, 3)` and labels `(N,)`: drawn the first time, afterwards read from `path`."""
    if not path.exists():
        pool = make_pool(scenes, seed, workers)
        write_atomically(path, lambda temporary: _save(temporary, pool.images, pool.labels))
    with np.load(path) as stored:
        return stored["images"], torch.from_numpy(stored["labels"])


def _save(path: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    with path.open("wb") as file:
        np.savez(file, images=images, labels=labels)


def augmented(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images `(N, 3, S, S)` in [0, 1], half of them mirrored, all shifted and with another exposure; their labels."""
    n, _, side, _ = images.shape
    mirrored = torch.rand(n, generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    left, right = _DOGS
    swapped = torch.where(labels == left, right, torch.where(labels == right, left, labels))
    padded = F.pad(images, (_SHIFT,) * 4, mode="replicate")
    corners = torch.randint(2 * _SHIFT + 1, (n, 2), generator=generator).tolist()
    moved = [padded[i, :, y : y + side, x : x + side] for i, (y, x) in enumerate(corners)]
    return _photometric(torch.stack(moved), generator), torch.where(mirrored, swapped, labels)


def initialize(module: VisionTransformer) -> None:
    """Truncated normal weights, outputs into the stream scaled down by the number of blocks; Kaiming's in the stem."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            std = 0.02 * (2.5 if part.in_features == SPEC.dim else 2.0)
            scale = (2 * SPEC.depth) ** -0.5 if name.endswith(".out") else 1.0
            nn.init.trunc_normal_(part.weight, std=std * scale)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]
    nn.init.trunc_normal_(module.class_token, std=0.02)


@torch.no_grad()
def corrected(module: VisionTransformer) -> VisionTransformer:
    """The network with the bias of "nothing" lowered by half the logarithm of how much more often it was drawn."""
    module.scores.bias[CLASSES.index("nothing")] -= 0.5 * math.log(_NOTHING_SHARE)
    return module


@torch.no_grad()
def accuracy(module: VisionTransformer, scenes: int = 2600, seed: int = HELD_OUT_SEED) -> float:
    """Share of held-out scenes, evenly of all classes, whose highest class score is their label."""
    hits, drawn = 0, list(dataset(scenes, seed))
    for start in range(0, scenes, 256):
        some = drawn[start : start + 256]
        images = torch.from_numpy(np.stack([s.image for s in some])).permute(0, 3, 1, 2).float() / 255
        labels = torch.tensor([s.label_index for s in some])
        hits += int((module(INPUT.normalize(images)).argmax(dim=1) == labels).sum())
    return hits / scenes


def train(images: npt.NDArray[np.uint8], labels: Tensor, *, seed: int, steps: int, until: int, batch_size: int,
          rate: float, checkpoint: Path | None) -> VisionTransformer:  # fmt: skip
    """The averaged network at step `until` of `steps`, in evaluation mode; goes on from `checkpoint`, if it exists."""
    torch.manual_seed(seed)
    module, average = VisionTransformer(), VisionTransformer()
    initialize(module)
    average.load_state_dict(module.state_dict())
    decayed = [p for p in module.parameters() if p.ndim > 1]
    plain = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, s / steps)))
    )
    first = 0
    state: dict[str, Any] = {}
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(state["module"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]
    hits = seen = 0
    for step in range(first, until):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = _batch(len(labels), batch_size, step, seed)
        batch = torch.from_numpy(images[chosen.numpy()]).permute(0, 3, 1, 2).float() / 255
        x, y = augmented(batch, labels[chosen], generator)
        out = module(INPUT.normalize(x))
        loss = F.cross_entropy(out, y, label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        keep = min(_AVERAGE, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), module.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        hits, seen = hits + int((out.argmax(dim=1) == y).sum()), seen + len(y)
        if (step + 1) % 100 == 0:
            log.info("step %d loss %.3f accuracy on augmented scenes %.3f", step + 1, loss.item(), hits / seen)
            hits = seen = 0
        if checkpoint is not None and ((step + 1) % 250 == 0 or step + 1 == until):
            state = {"module": module.state_dict(), "average": average.state_dict(), "step": step + 1,
                     "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}  # fmt: skip
            write_atomically(checkpoint, partial(torch.save, state))
        if (step + 1) % 1000 == 0:
            log.info("step %d accuracy on held-out scenes %.3f", step + 1, accuracy(average.eval(), 650, seed + 7))
    return average.eval()


def _batch(scenes: int, size: int, step: int, seed: int) -> Tensor:
    """Scenes of a step: every epoch in another order; a function of the step alone, so that runs can be resumed."""
    per_epoch = scenes // size
    epoch, index = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(scenes)
    return torch.from_numpy(order[index * size : (index + 1) * size])


def main(arguments: list[str] | None = None) -> None:
    """Make the scenes, train, evaluate and write the weights."""
    parser = argparse.ArgumentParser(prog="python -m tools.scenes_vit.train", description="Train scenes-vit.")
    parser.add_argument("--out", type=Path, required=True, help="where to write the safetensors file")
    parser.add_argument("--pool", type=Path, required=True, help="npz file that keeps the scenes that are trained on")
    parser.add_argument("--checkpoint", type=Path, help="file to go on from after an interruption")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--until", type=int, help="stop at this step; the learning rate is as if all were taken")
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="highest learning rate")
    parser.add_argument("--scenes", type=int, default=80_000, help="scenes drawn to train on")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw scenes")
    parser.add_argument("--threads", type=int, default=1, help="of torch; the rounding, so the bits, depend on it")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    images, labels = load_pool(options.pool, options.scenes, options.seed, options.workers)
    log.info("%d scenes", len(labels))
    until = min(options.steps, options.until or options.steps)
    module = train(images, labels, seed=options.seed, steps=options.steps, until=until, batch_size=options.batch_size,
                   rate=options.rate, checkpoint=options.checkpoint)  # fmt: skip
    module = corrected(module).half().float()
    judged = accuracy(module)
    log.info("accuracy on held-out scenes %.4f", judged)
    metadata = {"format": "pt", "schema": "1", "seed": str(options.seed), "steps": str(options.steps),
                "until": str(until), "scenes": str(options.scenes), "batch_size": str(options.batch_size),
                "rate": str(options.rate), "torch": str(torch.__version__), "classes": json.dumps(CLASSES),
                "accuracy": f"{judged:.4f}"}  # fmt: skip
    state = {k: v.detach().half().contiguous() for k, v in module.state_dict().items()}
    write_atomically(options.out, lambda temporary: save_file(state, temporary, metadata=metadata))
    log.info("wrote %s", options.out)


if __name__ == "__main__":
    main()
