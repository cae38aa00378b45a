"""What the embedded network makes of minimal pairs: `python benchmarks/pairs.py`.

For every class, each of its parts and each change: how much the score of the class falls when nothing but the part
changes, with a 95 % bootstrap interval over pairs, and how many scenes are still called by the class.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from _tables import header, row

import circuits
from circuits.common.statistics import percentile_interval
from zoo.scenes import CHANGES, CLASSES, Scene, pairs, parts_of


def logits(model: circuits.Model, scenes: list[Scene]) -> torch.Tensor:
    """`(N, classes)` of some scenes."""
    return circuits.capture(model, [scene.image for scene in scenes], "softmax_pre")["softmax_pre"].flatten(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50, help="pairs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = circuits.load("scenes")
    generator = torch.Generator().manual_seed(options.seed)
    changed_pixels: dict[str, list[float]] = {change: [] for change in CHANGES}
    falls: dict[str, list[bool]] = {change: [] for change in CHANGES}
    header("class", "part", *(f"{c}: {what}" for c in CHANGES for what in ("fall", "still the class")))
    for kind in CLASSES[:-1]:
        index = CLASSES.index(kind)
        for part in parts_of(kind):
            cells = [kind, part]
            for change in CHANGES:
                made = list(pairs(options.n, kind, part, change, options.seed))
                before, after = (logits(model, [getattr(p, side) for p in made]) for side in ("original", "changed"))
                fall = before[:, index] - after[:, index]
                draws = torch.randint(len(fall), (1000, len(fall)), generator=generator)
                low, high = percentile_interval(fall[draws].mean(dim=1))
                right = before.argmax(dim=1) == index
                still = (after.argmax(dim=1) == index)[right].float().mean()
                cells += [f"{float(fall.mean()):.1f} ({float(low):.1f} to {float(high):.1f})", f"{float(still):.2f}"]
                changed_pixels[change] += [(p.original.image != p.changed.image).any(axis=2).mean() for p in made]
                falls[change] += (fall > 0).tolist()
            row(*cells)
    for change in CHANGES:
        print(
            f"{change}: median share of pixels changed {float(np.median(changed_pixels[change])):.3f}, "
            f"score lower in {float(np.mean(falls[change])):.3f} of pairs"
        )


if __name__ == "__main__":
    main()
