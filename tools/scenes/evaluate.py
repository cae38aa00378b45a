"""How well the network does, and how cleanly it is built of parts: plain functions of a module and scenes.

`benchmark` gives every number that the packaged weights are held to. The answers are known here because
the scenes' parts are, so the same questions can be put to a circuit tracer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from circuits.common.statistics import auc
from zoo.networks.inceptionv1 import InceptionV1
from zoo.scenes.arrange import ADVERSARIAL
from zoo.scenes.generate import CLASSES, HELD_OUT_SEED, Scene, adversarial, dataset
from zoo.scenes.network import INPUT, OBJECT_LAYER, PART_LAYER, UNION_LAYER, centers, trunk
from zoo.scenes.objects import PARTS

CAR_PARTS = ("window", "car_body", "wheel")
"""The parts of a car, from top to bottom."""


@dataclass(frozen=True)
class Batch:
    """Scenes with what the network makes of them.

    Attributes:
        labels: `(N,)` class indices.
        present: `(N, parts)` whether any of a part is visible.
        inside: `(N, parts, h, w)` whether a position of `PART_LAYER` is centered on the part.
        acts: layer name -> activations `(N, C, h, w)`; "softmax_pre" `(N, classes)`.
    """

    labels: Tensor
    present: Tensor
    inside: Tensor
    acts: dict[str, Tensor]


@torch.no_grad()
def run(module: InceptionV1, scenes: Iterable[Scene], batch_size: int = 128) -> Batch:
    """Put scenes through the network and record the layers that the benchmark evaluates."""
    module.eval()
    device = next(module.parameters()).device
    offset, stride = centers(module.spec, PART_LAYER)
    recorded: dict[str, list[Tensor]] = {name: [] for name in (PART_LAYER, OBJECT_LAYER, UNION_LAYER, "softmax_pre")}
    labels, present, inside = [], [], []
    waiting: list[npt.NDArray[np.uint8]] = []

    def flush() -> None:
        images = torch.from_numpy(np.stack(waiting)).to(device).permute(0, 3, 1, 2).float() / 255
        activations = trunk(module, INPUT.normalize(images))
        for name, parts in recorded.items():
            parts.append(activations[name].cpu())
        waiting.clear()

    for scene in scenes:
        waiting.append(scene.image)
        labels.append(scene.label_index)
        here = np.zeros((len(PARTS), *scene.image.shape[:2]), dtype=bool)
        for part in scene.parts:
            here[PARTS.index(part.name)] |= part.mask
        present.append(here.any(axis=(1, 2)))
        inside.append(here[:, offset::stride, offset::stride])
        if len(waiting) == batch_size:
            flush()
    if waiting:
        flush()
    return Batch(torch.tensor(labels), torch.from_numpy(np.stack(present)), torch.from_numpy(np.stack(inside)),
                 {name: torch.cat(parts) for name, parts in recorded.items()})  # fmt: skip


def image_auc(batch: Batch, layer: str, positive: Iterable[str], negative: Iterable[str]) -> Tensor:
    """AUC of each unit's highest activation for images of some classes against those of others, `(C,)`."""
    peaks = batch.acts[layer].amax(dim=(2, 3))
    rows = [torch.isin(batch.labels, torch.tensor([CLASSES.index(c) for c in names])) for names in (positive, negative)]
    return auc(peaks[rows[0]], peaks[rows[1]])


def part_auc(batch: Batch, layer: str = PART_LAYER, most: int = 20_000) -> dict[str, Tensor]:
    """For each part, the AUC of each unit `(C,)`: positions centered on it against positions of images without it.

    `layer` must lie on the grid of `PART_LAYER`; of the negative positions an even sample of at most `most` is taken.
    """
    acts = batch.acts[layer].permute(0, 2, 3, 1)
    aucs = {}
    for k, name in enumerate(PARTS):
        negative = acts[~batch.present[:, k]].flatten(0, 2)
        aucs[name] = auc(acts[batch.inside[:, k]], negative[:: max(1, len(negative) // most)])
    return aucs


def expanded_kernels(module: InceptionV1, block: str) -> Tensor:
    """The linear kernels from a block's input channels to its output channels, `(outputs, inputs, 5, 5)`.

    The reductions are composed as if their ReLU were not there, and the 3x3 max pool is replaced by an
    average pool, the convention of "Visualizing Weights" (Voss et al. 2021).
    """

    def weight(name: str) -> Tensor:
        return module.get_parameter(f"{block}_{name}_pre.weight")

    kernel_1x1 = F.pad(weight("1x1"), (2, 2, 2, 2))
    kernel_3x3 = torch.einsum("omyx,mi->oiyx", weight("3x3"), weight("3x3_bottleneck")[:, :, 0, 0])
    kernel_5x5 = torch.einsum("omyx,mi->oiyx", weight("5x5"), weight("5x5_bottleneck")[:, :, 0, 0])
    pool = (weight("pool_proj") / 9).expand(-1, -1, 3, 3)
    return torch.cat([kernel_1x1, F.pad(kernel_3x3, (1, 1, 1, 1)), kernel_5x5, F.pad(pool, (1, 1, 1, 1))])


@torch.no_grad()
def contributions(module: InceptionV1, batch: Batch, source: str, target: str, unit: int, rows: Tensor) -> Tensor:
    """Mean of the sum over positions of expanded weight x activation, at the unit's peak in each image, `(C,)`.

    Args:
        module, batch: the network and what it saw.
        source, target: neighboring layers without pooling between them.
        unit: channel of `target`.
        rows: `(N,)` bool, the images to average over.
    """
    kernel = expanded_kernels(module, target)[unit].cpu()
    acts, response = batch.acts[source][rows], batch.acts[target][rows, unit]
    peak = response.flatten(1).argmax(dim=1)
    y, x = peak // response.shape[2], peak % response.shape[2]
    padded = F.pad(acts, (2, 2, 2, 2))
    patches = torch.stack([padded[i, :, a : a + 5, b : b + 5] for i, (a, b) in enumerate(zip(y, x, strict=True))])
    return (patches * kernel).sum(dim=(2, 3)).mean(dim=0)


def _pooled(module: InceptionV1, target: str, acts: Tensor) -> Tensor:
    """What the pool branch of block `target` makes of the activations before it, as large as these."""
    return torch.cat([module.get_submodule(f"{target}_pool")(part) for part in torch.split(acts, 256)])


def _respond(module: InceptionV1, target: str, unit: int, acts: Tensor, pooled: Tensor) -> Tensor:
    """Response maps `(N, h, w)` of a unit of a block to edited activations, which its pool branch gets pooled.

    The pool of a mean is not the mean of the pool: both are edited, each to its own mean.
    """
    start, stop = module.spec.blocks[target].branches["pool_proj"]
    if start <= unit < stop:
        return torch.relu(module.get_submodule(f"{target}_pool_proj_pre")(pooled)[:, unit - start])
    return module._block(target, acts)[:, unit]


@torch.no_grad()
def ablation_drops(module: InceptionV1, batch: Batch, source: str, target: str, unit: int, rows: Tensor) -> Tensor:
    """How much a unit's peak response in images `rows` falls when each source channel is set to its mean, `(C,)`."""
    acts, response = batch.acts[source], batch.acts[target][rows, unit]
    pooled = _pooled(module, target, acts)
    mean, pooled_mean = (maps.mean(dim=(0, 2, 3)) for maps in (acts, pooled))
    before = response.flatten(1)
    peak = before.argmax(dim=1, keepdim=True)
    drops = []
    for channel in range(acts.shape[1]):
        edited, edited_pool = acts[rows].clone(), pooled[rows].clone()
        edited[:, channel], edited_pool[:, channel] = mean[channel], pooled_mean[channel]
        after = _respond(module, target, unit, edited, edited_pool).flatten(1)
        drops.append((before.gather(1, peak) - after.gather(1, peak)).mean())
    return torch.stack(drops)


@torch.no_grad()
def explained_variance(
    module: InceptionV1, batch: Batch, source: str, target: str, unit: int, channels: list[int]
) -> float:
    """Explained variance of a unit's response, over all positions, when only `channels` of the source vary.

    The others are replaced by their means over images and positions.
    """
    acts, true = batch.acts[source], batch.acts[target][:, unit]
    edited = []
    for maps in (acts, _pooled(module, target, acts)):
        held = maps.mean(dim=(0, 2, 3))[None, :, None, None].expand_as(maps).clone()
        held[:, channels] = maps[:, channels]
        edited.append(torch.split(held, 256))
    rebuilt = torch.cat([_respond(module, target, unit, *parts) for parts in zip(*edited, strict=True)])
    return float(1 - (true - rebuilt).square().sum() / (true - true.mean()).square().sum())


def accuracy(batch: Batch) -> float:
    """Share of scenes whose highest logit is their label."""
    return float((batch.acts["softmax_pre"].argmax(dim=1) == batch.labels).float().mean())


def called(module: InceptionV1, scenes: Iterable[Scene], name: str) -> float:
    """Share of scenes that the network calls `name`."""
    batch = run(module, scenes)
    return float((batch.acts["softmax_pre"].argmax(dim=1) == CLASSES.index(name)).float().mean())


def benchmark(module: InceptionV1, *, scenes: int = 2600, per_arrangement: int = 200, seed: int = HELD_OUT_SEED,
              random_sets: int = 64) -> dict[str, Any]:  # fmt: skip
    """Every number the packaged network is held to, on scenes that training never saw.

    Args:
        module: a trained network of `SPEC`.
        scenes: held-out scenes, spread evenly over the classes.
        per_arrangement: scenes of each wrong arrangement of a car.
        seed: of the held-out scenes.
        random_sets: random sets of eight parents to compare with.

    Returns:
        A dict that goes to JSON: "accuracy"; "not_car" by arrangement; "parts" (best unit of `PART_LAYER`
        and its AUC for each part); "car" (unit of `OBJECT_LAYER`, its parents, ranks, kernels' balance,
        ablation percentiles, explained variance kept by the best eight parents and by random ones);
        "dog" (a unit activated by both dogs and its parents for either); "passes".
    """
    batch = run(module, dataset(scenes, seed))
    result: dict[str, Any] = {"accuracy": accuracy(batch)}
    result["not_car"] = {
        kind: 1 - called(module, adversarial(per_arrangement, seed + 1 + k, kind), "car")
        for k, kind in enumerate(ADVERSARIAL)
    }
    by_part = part_auc(batch)
    result["parts"] = {name: {"unit": int(a.argmax()), "auc": float(a.max())} for name, a in by_part.items()}
    result["car"] = _car(module, batch, by_part, random_sets)
    result["dog"] = _dog(module, batch)
    result["passes"] = _passes(result)
    return result


def _car(module: InceptionV1, batch: Batch, by_part: dict[str, Tensor], random_sets: int) -> dict[str, Any]:
    source, target = PART_LAYER, OBJECT_LAYER
    is_car = batch.labels == CLASSES.index("car")
    scores = image_auc(batch, target, ["car"], [c for c in CLASSES if c != "car"])
    unit = int(scores.argmax())
    contribution = contributions(module, batch, source, target, unit, is_car)
    ranking = [int(c) for c in contribution.abs().argsort(descending=True)]
    drops = ablation_drops(module, batch, source, target, unit, is_car)
    units = {part: int(by_part[part].argmax()) for part in CAR_PARTS}
    others = torch.tensor([c for c in range(len(drops)) if c not in units.values()])
    kernels = expanded_kernels(module, target).detach().cpu()[unit]
    generator = torch.Generator().manual_seed(0)
    picks = [torch.randperm(len(contribution), generator=generator)[:8].tolist() for _ in range(random_sets)]
    chance = sorted(explained_variance(module, batch, source, target, unit, pick) for pick in picks)
    best_part = {c: max(by_part, key=lambda p: float(by_part[p][c])) for c in ranking[:8]}
    return {
        "unit": unit,
        "auc": float(scores[unit]),
        "parents": [
            {
                "unit": c,
                "strength": float(contribution[c]),
                "part": best_part[c],
                "auc": float(by_part[best_part[c]][c]),
            }
            for c in ranking[:8]
        ],
        "parts": {
            part: {
                "unit": c,
                "auc": float(by_part[part][c]),
                "rank": ranking.index(c) + 1,
                "upper": float(kernels[c, :2].sum()),
                "lower": float(kernels[c, 3:].sum()),
                "drop": float(drops[c]),
                "drop_percentile": float((drops[others] < drops[c]).float().mean() * 100),
            }
            for part, c in units.items()
        },
        "response": float(batch.acts[target][is_car, unit].amax(dim=(1, 2)).mean()),
        "kept_by_8": explained_variance(module, batch, source, target, unit, ranking[:8]),
        "kept_by_random_8": chance[len(chance) // 2],
    }


def _dog(module: InceptionV1, batch: Batch) -> dict[str, Any]:
    """The best unit of `UNION_LAYER` for both dogs, and its strongest parents that tell the two apart."""
    rest = [c for c in CLASSES if not c.startswith("dog")]
    either = torch.minimum(*(image_auc(batch, UNION_LAYER, [dog], rest) for dog in ("dog_left", "dog_right")))
    unit = int(either.argmax())
    left = image_auc(batch, OBJECT_LAYER, ["dog_left"], ["dog_right"])
    report: dict[str, Any] = {"layer": UNION_LAYER, "unit": unit, "auc": float(either[unit])}
    for name, scores in (("dog_left", left), ("dog_right", 1 - left)):
        rows = batch.labels == CLASSES.index(name)
        contribution = contributions(module, batch, OBJECT_LAYER, UNION_LAYER, unit, rows)
        ranking = [int(c) for c in contribution.argsort(descending=True)]
        able = [c for c in ranking if float(scores[c]) >= 0.9]
        parent = able[0] if able else ranking[0]
        report[name] = {"layer": OBJECT_LAYER, "unit": parent, "auc": float(scores[parent]),
                       "rank": ranking.index(parent) + 1, "strength": float(contribution[parent])}  # fmt: skip
    return report


def _passes(result: dict[str, Any]) -> dict[str, bool]:
    car, dog, parts = result["car"], result["dog"], result["car"]["parts"]
    window, wheel = parts["window"], parts["wheel"]
    dogs = (dog["dog_left"], dog["dog_right"])
    return {
        "accuracy": result["accuracy"] >= 0.97,
        "not_car": min(result["not_car"].values()) >= 0.9,
        "car_unit": car["auc"] >= 0.95,
        "car_parts": all(p["auc"] >= 0.9 and p["rank"] <= 6 for p in parts.values()),
        "car_kernels": window["upper"] > window["lower"] and wheel["lower"] > wheel["upper"],
        "car_ablation": all(p["drop"] > 0 and p["drop_percentile"] > 95 for p in parts.values()),
        "car_sparse": car["kept_by_8"] >= 0.7 and car["kept_by_random_8"] <= 0.3,
        "dog": dog["auc"] >= 0.9 and all(d["auc"] >= 0.9 and d["rank"] <= 6 for d in dogs),
    }
