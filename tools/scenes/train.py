"""Trains the packaged network: `python -m tools.scenes.train --out scenes.safetensors --seed 0`.

What is learned from what, because the network serves as a benchmark of circuit tracing:

- The class probabilities are trained on labels alone.
- `mixed3b`: one channel per part is *taught*: its activation is regressed on the part's mask, averaged
  down to the layer's grid. The channels are a shuffle drawn from the seed. The others are left to the labels.
- `mixed4a`: one 5x5-branch channel per class is trained to be high somewhere in images of its class and
  low everywhere else. Labels only: *which* parts, *where*, with which sign, is left to be found.
- `mixed4b`: two channels are trained to detect "any dog" and "anything on wheels", in any orientation. Labels only.
- Sparsity: activations (L1), and the kernels from `mixed3b` to `mixed4a` and on to `mixed4b` (a group
  lasso over whole kernels, more on the two channels that detect a group), so that a unit has few
  parents. The 1x1 reductions of these two blocks are kept non-negative, so that their ReLU does nothing and
  expanded weights are exact (but for the pool branch, and for the constant that the zero padding cuts at the
  border).

There are two rounds. In the first everything is trained together, by which the parts are learned in company of
a classifier. Then all up to `mixed3b` is frozen, the blocks above and the classifier start anew, and `mixed4a`
may read the taught channels only: else an untaught one becomes a car detector by itself, and a taught one comes
to answer a little to what its part is seen with. The untaught channels stay in the network as units that a
circuit tracer has to leave aside.

The heads that read these losses have no weights beyond a scale, and are not part of the network.

"nothing" is more frequent in training than in evaluation; `correct_prior` corrects for that.
Runs in about 15 minutes on two CPU cores, the drawing of the scenes included; on the CPU the same seed,
versions and `--threads` give the same bits.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from tools.scenes import evaluate
from zoo.common.files import write_atomically
from zoo.networks.inceptionv1 import InceptionV1
from zoo.scenes.generate import CLASSES, SIZE, Scene, draw
from zoo.scenes.network import INPUT, OBJECT_LAYER, PART_LAYER, SPEC, UNION_LAYER, centers, trunk
from zoo.scenes.objects import PARTS

log = logging.getLogger(__name__)

UNIONS: dict[str, tuple[str, ...]] = {
    "dog": ("dog_left", "dog_right"),
    "wheeled": ("car", "truck", "bus", "bicycle"),
}
"""Names of the groups of classes that `mixed4b` is trained to detect."""

_NOTHING_SHARE = 8  # scenes of "nothing" for every twelve of the other classes


@dataclass(frozen=True)
class Losses:
    """Weights of the terms of the loss; every term is a mean over the batch."""

    parts: float = 300.0
    objects: float = 1.0
    unions: float = 0.5
    free_activations: float = 0.2
    object_activations: float = 0.02
    object_kernels: float = 2e-3
    union_kernels: float = 2e-3
    own_union_kernels: float = 0.0


FIRST = Losses()
"""While the parts are learned."""

SECOND = Losses(unions=1.0, object_kernels=5e-4, union_kernels=2e-4, own_union_kernels=2e-3)
"""While objects are built of them."""


@dataclass(frozen=True)
class Pool:
    """Training scenes: images `(N, S, S, 3)` uint8, labels `(N,)`, part maps `(N, parts, h, w)` uint8 (255 = full)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    parts: npt.NDArray[np.uint8]


def part_map(scene: Scene) -> npt.NDArray[np.uint8]:
    """How much of each cell of the part layer's grid shows each part, `(parts, h, w)`; half a cell counts as full."""
    offset, stride = centers(SPEC, PART_LAYER)
    cells = SIZE // stride
    start = offset - stride // 2
    cover = np.zeros((len(PARTS), cells * stride, cells * stride), dtype=np.float32)
    for part in scene.parts:
        visible = cover[PARTS.index(part.name), : SIZE - start, : SIZE - start]
        np.maximum(visible, part.mask[start:, start:], out=visible)
    share = cover.reshape(len(PARTS), cells, stride, cells, stride).mean(axis=(2, 4))
    filled: npt.NDArray[np.uint8] = (np.clip(share * 2, 0, 1) * 255).astype(np.uint8)
    return filled


def _training_scene(seed: int, index: int) -> tuple[npt.NDArray[np.uint8], int, npt.NDArray[np.uint8]]:
    turn = index % (len(CLASSES) - 1 + _NOTHING_SHARE)
    # Not `scene_seed`: no data set, of whatever seed, holds a scene that was trained on.
    own = int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])
    scene = draw(own, CLASSES[min(turn, len(CLASSES) - 1)])
    return scene.image, scene.label_index, part_map(scene)


def make_pool(n: int, seed: int, workers: int = 1) -> Pool:
    """`n` training scenes, "nothing" (wrong arrangements above all) drawn more often than the others."""
    make = partial(_training_scene, seed)
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            rows = list(tqdm(pool.map(make, range(n), chunksize=256), total=n, desc="scenes", mininterval=5))
    else:
        rows = [make(i) for i in range(n)]
    images, labels, parts = zip(*rows, strict=True)
    return Pool(np.stack(images), np.array(labels, dtype=np.int64), np.stack(parts))


def part_channels(seed: int) -> list[int]:
    """The channel of `mixed3b` that is taught each part of `PARTS`."""
    order = np.random.default_rng([seed, 3]).permutation(SPEC.blocks[PART_LAYER].channels)
    return [int(c) for c in order[: len(PARTS)]]


def class_channels(seed: int) -> list[int]:
    """The 5x5-branch channel of `mixed4a` that each class but "nothing" is detected by."""
    start, stop = SPEC.blocks[OBJECT_LAYER].branches["5x5"]
    order = np.random.default_rng([seed, 4]).permutation(stop - start)
    return [int(c) + start for c in order[: len(CLASSES) - 1]]


def union_channels(seed: int) -> list[int]:
    """The channel of `mixed4b` that each group of `UNIONS` is detected by."""
    order = np.random.default_rng([seed, 5]).permutation(SPEC.blocks[UNION_LAYER].channels)
    return [int(c) for c in order[: len(UNIONS)]]


class Objective(nn.Module):
    """The loss described at the top of this file. Its few parameters are thrown away after training."""

    def __init__(self, seed: int, losses: Losses) -> None:
        super().__init__()
        self.weights = losses
        self.parts, self.classes, self.unions = part_channels(seed), class_channels(seed), union_channels(seed)
        self.free = [c for c in range(SPEC.blocks[PART_LAYER].channels) if c not in self.parts]
        members = torch.zeros(len(CLASSES), len(UNIONS))
        for k, names in enumerate(UNIONS.values()):
            members[[CLASSES.index(n) for n in names], k] = 1.0
        self.register_buffer("members", members)
        self.nothing = nn.Parameter(torch.tensor(4.0))

    def of_parts(self, activations: dict[str, Tensor], parts: Tensor) -> dict[str, Tensor]:
        """Named terms of `PART_LAYER`, already weighted; `parts` are its maps `(N, parts, h, w)` in [0, 1]."""
        # Before the ReLU, so that a channel that is off where it should be on still gets a gradient; below zero
        # is fine where the part is not. Most cells show no part: the weight keeps the zeros from winning.
        pre_activations = activations[f"{PART_LAYER}_pre"][:, self.parts]
        miss = torch.where(parts > 0, pre_activations - parts, pre_activations.relu())
        return {
            "parts": self.weights.parts * (miss.square() * (1 + 9 * parts)).mean(),
            "free": self.weights.free_activations * activations[PART_LAYER][:, self.free].mean(),
        }

    def of_objects(self, module: InceptionV1, activations: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Named terms of the layers above, already weighted; `labels` are indices of `CLASSES`, `(N,)`."""
        w = self.weights
        object_acts, union_acts = activations[OBJECT_LAYER], activations[UNION_LAYER]
        peaks = object_acts[:, self.classes].amax(dim=(2, 3))
        scores = torch.cat([8 * peaks, self.nothing.expand(len(peaks), 1)], dim=1)
        any_of = 8 * union_acts[:, self.unions].amax(dim=(2, 3)) - 4
        members = self.get_buffer("members")[labels]
        union_norms = kernel_norms(module, UNION_LAYER)
        return {
            "label": F.cross_entropy(activations["softmax_pre"], labels),
            "objects": w.objects * F.cross_entropy(scores, labels),
            "unions": w.unions * F.binary_cross_entropy_with_logits(any_of, members),
            "active": w.object_activations * (object_acts.mean() + union_acts.mean()),
            "kernels": w.object_kernels * kernel_norms(module, OBJECT_LAYER).sum()
            + w.union_kernels * union_norms.sum()
            + w.own_union_kernels * union_norms[self.unions].sum(),
        }


def kernel_norms(module: InceptionV1, block: str) -> Tensor:
    """How strongly each input channel of a block can drive each output channel, `(outputs, inputs)`.

    L2 norms of kernels, summed over the paths through a reduction. (The norm of the composed kernel would not do:
    paths that cancel in it but not through the ReLU let the network keep its parents and hide them.)
    """

    def norm(name: str) -> Tensor:
        return (module.get_parameter(f"{block}_{name}_pre.weight").square().sum(dim=(2, 3)) + 1e-12).sqrt()

    three, five = norm("3x3") @ norm("3x3_bottleneck"), norm("5x5") @ norm("5x5_bottleneck")
    return torch.cat([norm("1x1"), three, five, norm("pool_proj")])


@torch.no_grad()
def keep_reductions_linear(module: InceptionV1) -> None:
    """Make the 1x1 reductions of the two object blocks non-negative.

    Their inputs are activations, so their ReLU then changes nothing: signs are in the 3x3 and 5x5 kernels
    alone, and the expanded weights from layer to layer are what the network computes, not an approximation.
    """
    for block in (OBJECT_LAYER, UNION_LAYER):
        for name in ("3x3_bottleneck", "5x5_bottleneck"):
            module.get_parameter(f"{block}_{name}_pre.weight").clamp_(min=0)
            module.get_parameter(f"{block}_{name}_pre.bias").clamp_(min=0)


@torch.no_grad()
def forget(module: InceptionV1, channels: list[int]) -> None:
    """Cut the weights by which `mixed4a` reads these channels of `mixed3b`."""
    for name in ("1x1", "3x3_bottleneck", "5x5_bottleneck", "pool_proj"):
        module.get_parameter(f"{OBJECT_LAYER}_{name}_pre.weight")[:, channels] = 0.0


@torch.no_grad()
def correct_prior(module: InceptionV1) -> None:
    """Lower the bias of "nothing", which is drawn more often in training than any other class.

    By half the logarithm of the ratio: all of it is best for accuracy, none of it for wrong arrangements.
    """
    module.softmax_pre.bias[CLASSES.index("nothing")] -= 0.5 * math.log(_NOTHING_SHARE)


def _photometric(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random gain and offset per image and channel, images in [0, 1]."""
    n = len(images)
    gain = 1 + 0.2 * (torch.rand(n, 3, 1, 1, generator=generator) - 0.5)
    offset = 0.1 * (torch.rand(n, 3, 1, 1, generator=generator) - 0.5)
    return (images * gain.to(images.device) + offset.to(images.device)).clamp(0, 1)


def _initialize(module: InceptionV1, only: tuple[str, ...] = ("",)) -> None:
    """Kaiming's, but the outputs of the last three blocks start small: their targets are in [0, 1].

    `only`: beginnings of the names of the layers to initialize.
    """
    for name, layer in module.named_modules():
        if not name.startswith(only):
            continue
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
            if name.startswith((PART_LAYER, OBJECT_LAYER, UNION_LAYER)) and "bottleneck" not in name:
                layer.weight.data.mul_(0.3)
    keep_reductions_linear(module)


def train(pool: Pool, *, seed: int = 0, steps: tuple[int, int] = (2000, 4000), batch_size: int = 64,
          rates: tuple[float, float] = (2e-3, 3e-3), device: str = "cpu",
          progress: bool = True) -> InceptionV1:  # fmt: skip
    """Train a network of `SPEC` on `pool` in the two rounds described above; in evaluation mode, on the CPU.

    Args:
        pool: from `make_pool`.
        seed: of the initial weights, the order of the scenes and the channels that are taught parts.
        steps: optimizer steps of the two rounds; in each the learning rate warms up and falls to zero along a cosine.
        batch_size: scenes a step.
        rates: the highest learning rate (Adam) of each round.
        device: where to train.
        progress: show bars.
    """
    torch.manual_seed(seed)
    module = InceptionV1(SPEC)
    _initialize(module)
    module.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(seed)
    labels = torch.from_numpy(pool.labels).to(device)
    parts = torch.from_numpy(pool.parts).to(device)
    first, second = Objective(seed, FIRST).to(device), Objective(seed, SECOND).to(device)

    def everything(chosen: Tensor) -> dict[str, Tensor]:
        activations = trunk(module, _network_input(pool, chosen, generator, device))
        terms = first.of_parts(activations, parts[chosen].float() / 255)
        return {**first.of_objects(module, activations, labels[chosen]), **terms}

    def linear() -> None:
        keep_reductions_linear(module)

    run = partial(_round, scenes=len(labels), batch_size=batch_size, generator=generator, progress=progress)
    run(everything, [*module.parameters(), *first.parameters()], linear, steps=steps[0], rate=rates[0])

    torch.manual_seed(seed + 1)
    _initialize(module, only=(OBJECT_LAYER, UNION_LAYER))
    module.softmax_pre.reset_parameters()
    cells = _part_activations(module, pool, generator, device)
    cells[:, second.free] = 0

    def objects(chosen: Tensor) -> dict[str, Tensor]:
        activations = trunk(module, cells[chosen].float(), after=PART_LAYER)
        return second.of_objects(module, activations, labels[chosen])

    def linear_and_blind() -> None:
        keep_reductions_linear(module)
        forget(module, second.free)

    upper = [p for n, p in module.named_parameters() if n.startswith((OBJECT_LAYER, UNION_LAYER, "softmax"))]
    run(objects, [*upper, *second.parameters()], linear_and_blind, steps=steps[1], rate=rates[1])
    correct_prior(module)
    module.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return module.eval()


def _network_input(pool: Pool, chosen: Tensor, generator: torch.Generator, device: str) -> Tensor:
    images = torch.from_numpy(pool.images[chosen.numpy()]).to(device).permute(0, 3, 1, 2).float() / 255
    return INPUT.normalize(_photometric(images, generator))


@torch.no_grad()
def _part_activations(module: InceptionV1, pool: Pool, generator: torch.Generator, device: str) -> Tensor:
    """`PART_LAYER` of every scene, `(N, C, h, w)` float16."""
    rows = torch.split(torch.arange(len(pool.labels)), 256)
    return torch.cat([trunk(module, _network_input(pool, r, generator, device))[PART_LAYER].half() for r in rows])


def _round(terms_of: Callable[[Tensor], dict[str, Tensor]], parameters: list[nn.Parameter], settle: Callable[[], None],
           *, scenes: int, batch_size: int, steps: int, rate: float, generator: torch.Generator,
           progress: bool) -> None:  # fmt: skip
    """Minimize the sum of `terms_of(indices of scenes)`; `settle` is called after every step."""
    optimizer = torch.optim.Adam(parameters, lr=rate)
    warm = max(1, min(200, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / warm) * 0.5 * (1 + np.cos(np.pi * min(1.0, s / steps)))
    )
    order = torch.empty(0, dtype=torch.long)
    for step in tqdm(range(steps), desc="train", mininterval=5, disable=not progress):
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(scenes, generator=generator)])
        chosen, order = order[:batch_size], order[batch_size:]
        terms = terms_of(chosen)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        settle()
        if step % 100 == 0:
            log.info("step %d %s", step, {k: round(v.item(), 4) for k, v in terms.items()})


def write(module: InceptionV1, path: Path, metadata: dict[str, str]) -> None:
    """Write the weights so that `path` is either the old file or the whole new one."""
    state = {k: v.detach().contiguous() for k, v in module.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(state, temporary, metadata=metadata))


def about(judged: dict[str, Any], *, seed: int, steps: tuple[int, int], scenes: int, device: str) -> dict[str, str]:
    """Metadata of the file: how it was made, with which versions, its accuracy, which channel detects what."""
    return {
        "format": "pt",
        "schema": "1",
        "seed": str(seed),
        "steps": json.dumps(steps),
        "scenes": str(scenes),
        "device": device,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "classes": json.dumps(CLASSES),
        "part_channels": json.dumps(dict(zip(PARTS, part_channels(seed), strict=True))),
        "class_channels": json.dumps(dict(zip(CLASSES, class_channels(seed), strict=False))),
        "union_channels": json.dumps(dict(zip(UNIONS, union_channels(seed), strict=True))),
        "accuracy": f"{judged['accuracy']:.4f}",
        "benchmark": json.dumps(judged),
    }


def main(arguments: list[str] | None = None) -> None:
    """Make the scenes, train, judge and write the weights."""
    parser = argparse.ArgumentParser(prog="python -m tools.scenes.train", description="Train the scenes network.")
    parser.add_argument("--out", type=Path, required=True, help="where to write the safetensors file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs=2, default=(2000, 4000), help="optimizer steps of the two rounds")
    parser.add_argument("--minutes", type=float, help="instead of --steps: as many as fit on this machine")
    parser.add_argument("--scenes", type=int, default=48_000, help="scenes drawn to train on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw scenes")
    parser.add_argument("--threads", type=int, default=1, help="of torch; the rounding, so the bits, depend on it")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    pool = make_pool(options.scenes, options.seed, options.workers)
    steps = (options.steps[0], options.steps[1])
    if options.minutes is not None:
        began = time.monotonic()
        train(pool, seed=options.seed, steps=(20, 40), device=options.device, progress=False)
        fitting = max(1, int(options.minutes * 60 / (time.monotonic() - began) * 20))
        steps = (fitting, 2 * fitting)
    module = train(pool, seed=options.seed, steps=steps, device=options.device)
    judged = evaluate.benchmark(module)
    log.info("%s", json.dumps(judged, indent=2))
    metadata = about(judged, seed=options.seed, steps=steps, scenes=options.scenes, device=options.device)
    write(module, options.out, metadata)
    log.info("wrote %s", options.out)


if __name__ == "__main__":
    main()
