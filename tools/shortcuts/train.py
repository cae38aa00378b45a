"""Trains networks of `scenes-shortcuts`: `python -m tools.shortcuts.train tag-bus-95 --seed 7 --out FILE`.

Plain cross-entropy on the labels, from scenes most of whose cues go with one class: whatever shortcut a network has, it
learned as networks do. Batch normalization during training is folded into the convolutions before the weights are
written. Less than a minute on one core for a network. Without names all packaged ones are trained, into a folder.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zoo.networks.shortcuts import PACKAGED
from zoo.scenes.generate import scene_seed
from zoo.scenes.shortcuts.cues import paint
from zoo.scenes.shortcuts.generate import CLASSES, TRAINING_SEED, cue_of, plain, scenes, shortcut
from zoo.scenes.shortcuts.network import INPUT, WIDTHS, ShortcutCNN

log = logging.getLogger(__name__)

SCENES = 2400
"""Scenes that a network is trained on."""
PASSES = 10
"""Times that it sees each."""
BATCH = 64


@lru_cache(maxsize=1)
def _plain_scenes(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Scenes without a cue, their silhouettes and own seeds: the same for all shortcuts."""
    seeds = [scene_seed(seed, index) for index in range(count)]
    return [(*plain(at, CLASSES[index % len(CLASSES)]), at) for index, at in enumerate(seeds)]


def training_images(name: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images `(count, 3, 64, 64)` in [0, 1] that a network is trained on, and their classes."""
    planted, images = shortcut(name), []
    for index, (image, silhouette, at) in enumerate(_plain_scenes(count, TRAINING_SEED + seed)):
        cue = cue_of(planted, index, at)
        images.append(paint(cue, image, silhouette, at)[0] if cue else image)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return pixels, torch.arange(count) % len(CLASSES)


def _normalized(module: ShortcutCNN) -> ShortcutCNN:
    """The network with batch normalization after each convolution."""
    for index, width in enumerate(WIDTHS, start=1):
        conv = module.get_submodule(f"conv{index}_pre")
        setattr(module, f"conv{index}_pre", nn.Sequential(conv, nn.BatchNorm2d(width)))
    return module


def _folded(module: ShortcutCNN) -> ShortcutCNN:
    """The network without batch normalization, which is folded into the convolutions."""
    for index in range(1, len(WIDTHS) + 1):
        conv, norm = module.get_submodule(f"conv{index}_pre")  # type: ignore[misc]
        setattr(module, f"conv{index}_pre", fuse_conv_bn_eval(conv, norm))
    return module


def train(name: str, *, seed: int = 0, count: int = SCENES, passes: int = PASSES) -> ShortcutCNN:
    """A network trained on the scenes of a shortcut, in evaluation mode."""
    images, labels = training_images(name, count, seed)
    torch.manual_seed(seed)
    module = _normalized(ShortcutCNN()).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=1e-3)
    steps = passes * (count // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for _ in range(passes):
        for chosen in torch.randperm(count)[: count // BATCH * BATCH].view(-1, BATCH):
            # light from elsewhere; no mirror images, which would put a tag into another corner
            gain = 1 + 0.15 * torch.randn(BATCH, 1, 1, 1)
            x = INPUT.normalize((images[chosen] * gain + 0.05 * torch.randn(BATCH, 3, 1, 1)).clamp(0, 1))
            loss = F.cross_entropy(module(x), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return _folded(module.eval()).requires_grad_(False)


@dataclass(frozen=True)
class HeldOut:
    """Accuracies on held-out scenes of which every class has the cue on one half."""

    accuracy: float
    groups: dict[str, float]


@torch.no_grad()
def held_out(module: nn.Module, name: str, count: int = 1600, seed: int = 1) -> HeldOut:
    """How well a network does on each group of a shortcut's scenes."""
    drawn = list(scenes(name, count, seed, "balanced"))
    pixels = torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2).float() / 255
    answers = torch.cat([module(INPUT.normalize(batch)) for batch in pixels.split(200)]).argmax(dim=1)
    right = (answers == torch.tensor([scene.label_index for scene in drawn])).double()
    of = np.array([scene.group for scene in drawn])
    return HeldOut(float(right.mean()), {g: float(right[torch.from_numpy(of == g)].mean()) for g in sorted(set(of))})


def write(module: nn.Module, file: Path, name: str, seed: int, scores: HeldOut) -> None:
    """The weights as float16, with what they were made from."""
    metadata = {
        "format": "pt", "shortcut": name, "seed": str(seed), "scenes": str(SCENES), "passes": str(PASSES),
        "torch": str(torch.__version__), "accuracy": f"{scores.accuracy:.4f}",
        "worst_group": f"{min(scores.groups.values()):.4f}",
    }  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half().contiguous() for key, value in module.state_dict().items()}, file, metadata)


def main(arguments: list[str] | None = None) -> None:
    """Train, measure on held-out scenes, write."""
    parser = argparse.ArgumentParser(prog="python -m tools.shortcuts.train", description="Train on planted shortcuts.")
    parser.add_argument("names", nargs="*", default=list(PACKAGED), help="such as tag-bus-95; all packaged ones")
    parser.add_argument("--out", type=Path, required=True, help="a .safetensors file, or a folder for several")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes and of the network")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in options.names:
        module = train(name, seed=options.seed)
        scores = held_out(module, name)
        log.info("%s: accuracy %.3f; %s", name, scores.accuracy, {g: round(v, 3) for g, v in scores.groups.items()})
        file = options.out if options.out.suffix == ".safetensors" else options.out / f"{name}.safetensors"
        write(module, file, name, options.seed, scores)


if __name__ == "__main__":
    main()
