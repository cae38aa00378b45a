"""What rankings of 512 parents cost: CPU-seconds of each method for units of mixed4c on photographs.

python benchmarks/ranking_speed.py --images ../shared/data/imagenet-sample --photographs 200
"""

from __future__ import annotations

import argparse
from time import process_time

import torch
from _tables import header, row

import circuits
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.baselines import Mean
from circuits.tracing.rankings.unit_scores import RankMethod, unit_scores
from circuits.tracing.target import target_of
from zoo.images.sources import open_images

METHODS: tuple[RankMethod, ...] = ("gradient", "integrated", "mask")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="../shared/data/imagenet-sample")
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--units", nargs="*", default=["mixed4c:397", "mixed4c:241"])
    options = parser.parse_args()
    model, photographs = circuits.load("googlenet-bvlc"), open_images(options.images)
    order = torch.randperm(len(photographs), generator=torch.Generator().manual_seed(0))[: options.photographs]
    images = open_images(photographs.tensor(model.input, order.tolist()))  # decoded once
    header("unit", "activations and baselines", *METHODS)
    for unit in options.units:
        began = process_time()
        ablation = Ablation(model, target_of(model, unit), ["mixed4b"], images, Mean())
        seconds = [process_time() - began]
        for method in METHODS:
            began = process_time()
            unit_scores(ablation, method)
            seconds.append(process_time() - began)
        row(unit, *(f"{s:.1f}" for s in seconds))


if __name__ == "__main__":
    main()
