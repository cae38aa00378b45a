"""What rankings of 512 parents cost: CPU-seconds of each method for units of mixed4c on photographs.

Beside it whole calls of `circuits.rank`, exact patching against a loop of single edits, and a size curve of two layers
with random circuits.

python benchmarks/ranking_speed.py --images ../shared/data/imagenet-sample --photographs 200
python benchmarks/ranking_speed.py --only patching --units mixed4c:28 mixed4c:241 mixed4c:397 mixed4c:471
python benchmarks/ranking_speed.py --only curve --units mixed4c:397 --nulls 50
"""

from __future__ import annotations

import argparse
from time import perf_counter, process_time

import torch
from _tables import header, row

import circuits
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.baselines import Mean
from circuits.tracing.rankings.unit_scores import RankMethod, unit_scores
from circuits.tracing.target import target_of
from zoo.images.sources import Images, open_images

METHODS: tuple[RankMethod, ...] = ("gradient", "integrated", "mask")
SAMPLED = 16
"""Single edits that are timed, of one for each parent."""


def methods(model: circuits.Model, images: Images, units: list[str]) -> None:
    """CPU-seconds of each method."""
    header("unit", "activations and baselines", *METHODS)
    for unit in units:
        began = process_time()
        ablation = Ablation(model, target_of(model, unit), ["mixed4b"], images, Mean())
        seconds = [process_time() - began]
        for method in METHODS:
            began = process_time()
            unit_scores(ablation, method)
            seconds.append(process_time() - began)
        row(unit, *(f"{s:.1f}" for s in seconds))


def calls(model: circuits.Model, images: Images, units: list[str]) -> None:
    """CPU-seconds of a call of `circuits.rank` on all images, their activations and baselines included."""
    header("unit", *METHODS)
    for unit in units:
        seconds = []
        for method in METHODS:
            began = process_time()
            circuits.rank(model, unit, images=images, layers=["mixed4b"], method=method, share=1.0)
            seconds.append(process_time() - began)
        row(unit, *(f"{s:.1f}" for s in seconds))


def patching(model: circuits.Model, images: Images, units: list[str]) -> None:
    """CPU-seconds of exact patching of all parents, and of one edit after the other."""
    header("unit", "patching", "one by one", "times faster", "largest difference of the shares")
    for unit in units:
        ablation = Ablation(model, target_of(model, unit), ["mixed4b"], images, Mean())
        width = ablation.widths["mixed4b"]
        began = process_time()
        scores = unit_scores(ablation, "patching")["mixed4b"].signed
        batched = process_time() - began
        chosen = torch.randperm(width, generator=torch.Generator().manual_seed(0))[:SAMPLED].tolist()
        began = process_time()
        single = [ablation.clean - ablation.respond_without({"mixed4b": {c}}) for c in chosen]
        loop = (process_time() - began) * width / SAMPLED
        shares = torch.stack([(ablation.weights() * lost).double().sum() for lost in single])
        row(
            unit,
            f"{batched:.1f}",
            f"{loop:.1f}",
            f"{loop / batched:.1f}",
            f"{(shares - scores[chosen]).abs().max():.1e}",
        )


def curve(model: circuits.Model, images: Images, units: list[str], nulls: int) -> None:
    """Seconds of a size curve of two layers, with so many random circuits of each kind and size."""
    header("unit", "images", "circuits", "CPU-seconds", "seconds")
    for unit in units:
        ranking = circuits.rank(model, unit, images=images, layers=["mixed4a", "mixed4b"])
        began, clock = process_time(), perf_counter()
        measured = circuits.size_curve(model, ranking, random=nulls)
        count = len(measured.sizes) * (1 + sum(len(null.f) for null in measured.nulls.values()))
        row(unit, measured.n_images, count, f"{process_time() - began:.1f}", f"{perf_counter() - clock:.1f}")


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="../shared/data/imagenet-sample")
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--units", nargs="*", default=["mixed4c:397", "mixed4c:241"])
    parser.add_argument("--only", choices=("methods", "calls", "patching", "curve"))
    parser.add_argument("--nulls", type=int, default=50)
    options = parser.parse_args()
    model, photographs = circuits.load("googlenet-bvlc"), open_images(options.images)
    order = torch.randperm(len(photographs), generator=torch.Generator().manual_seed(0))[: options.photographs]
    images = open_images(photographs.tensor(model.input, order.tolist()))  # decoded once
    if options.only in (None, "methods"):
        methods(model, images, options.units)
    if options.only in (None, "calls"):
        calls(model, images, options.units)
    if options.only in (None, "patching"):
        patching(model, images, options.units)
    if options.only in (None, "curve"):
        curve(model, images, options.units[:1], options.nulls)


if __name__ == "__main__":
    main()
