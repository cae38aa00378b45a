"""Which ranking of parents holds on photographs: GoogLeNet, units of every branch of mixed4a to mixed4e.

For each unit the channels of the layer before are ranked on some photographs, by each method, and the circuits of the
first 16 and 64 are tried on others: share of the explained variance kept, 0 with everything ablated to its mean and 1
with nothing. Beside them a mask that was learned for circuits of just that size, and random circuits. Run it in the
background: it takes about half a minute a unit.

    python benchmarks/rankings.py --images ../shared/data/imagenet-sample --units 8 --out rankings.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from _tables import header, row
from torch import Tensor

import circuits
from circuits.errors import CircuitsError
from circuits.tracing import null_circuits
from circuits.tracing.ablation import Ablation
from circuits.tracing.baselines import Mean
from circuits.tracing.channel_edits import ChannelEdits
from circuits.tracing.learned_mask import learn_mask
from circuits.tracing.ranking import METHODS, unit_scores
from circuits.tracing.target import target_of
from zoo.images.sources import open_images

BLOCKS = ("mixed4a", "mixed4b", "mixed4c", "mixed4d", "mixed4e")
BRANCHES = ("1x1", "3x3", "5x5", "pool_proj")
SIZES = (16, 64)
REFERENCES = tuple(f"mask of {n}" for n in SIZES)


def chosen_units(model: circuits.Model, per_branch: int, seed: int) -> list[tuple[str, str, int]]:
    """`(block, branch, channel)`: as many of each branch, spread over the blocks, sampled at random."""
    rng = np.random.default_rng(seed)
    units = []
    for branch in BRANCHES:
        for i in range(per_branch):
            block = BLOCKS[i % len(BLOCKS)]
            part = model.layers[f"{block}_{branch}"]
            assert part.part is not None
            units.append((block, branch, part.part[1] + int(rng.integers(part.channels))))
    return sorted(units, key=lambda unit: BLOCKS.index(unit[0]))


def measured(train: Ablation, test: Ablation, seed: int) -> dict[str, dict[int, float]]:
    """Method -> size -> share kept on other photographs."""
    (layer,) = train.layers
    runs = ChannelEdits(test)

    def kept(scores: Tensor, n: int) -> float:
        return test.share(runs.keep(set(scores.argsort(descending=True, stable=True)[:n].tolist())))

    result: dict[str, dict[int, float]] = {}
    for method in METHODS:
        began = perf_counter()
        scores = unit_scores(train, method, seed=seed)[layer].magnitude
        result[method] = {n: kept(scores, n) for n in SIZES} | {0: perf_counter() - began}
    start = {layer: unit_scores(train, "gradient")[layer].magnitude}
    result["mask of its size"] = {n: kept(learn_mask(train, size=n, seed=seed, start=start)[layer], n) for n in SIZES}
    rng, strengths = np.random.default_rng(seed), train.strengths()
    result["random, strong"] = {
        n: median(
            test.share(runs.keep(null_circuits.among_strongest({layer: n}, strengths, rng)[layer])) for _ in range(5)
        )
        for n in SIZES
    }
    return result


def main() -> None:
    """Measure, print the table by branch, write every number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="../shared/data/imagenet-sample")
    parser.add_argument("--units", type=int, default=10, help="of each branch")
    parser.add_argument("--photographs", type=int, default=200, help="to rank on, and as many others to test on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("rankings.json"))
    options = parser.parse_args()
    model = circuits.load("googlenet-bvlc")
    n = options.photographs
    photographs = open_images(options.images)
    order = torch.randperm(len(photographs), generator=torch.Generator().manual_seed(options.seed))[: 2 * n].tolist()
    tensor = photographs.tensor(model.input, order)  # decoded once
    halves = open_images(tensor[:n]), open_images(tensor[n:])
    results: dict[str, dict[str, dict[int, float]]] = {}
    pair: tuple[Ablation, Ablation] | None = None
    for block, branch, channel in chosen_units(model, options.units, options.seed):
        target = target_of(model, f"{block}:{channel}")
        # a stage pool in between: from its output, so that all blocks are read the same way
        source = "mixed3b_maxpool" if block == "mixed4a" else model.before(block)
        try:
            if pair is None or pair[0].layers != [source]:
                pair = None
                made = [Ablation(model, target, [str(source)], half, Mean()) for half in halves]
                pair = made[0], made[1]
            train, test = (half.with_target(target) for half in pair)
        except CircuitsError as error:
            print(f"left out {block}:{channel}: {error}", flush=True)
            continue
        results[f"{block}:{channel} {branch}"] = measured(train, test, options.seed)
        options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
        print(
            f"{block}:{channel} {branch}",
            {m: [round(v[s], 2) for s in SIZES] for m, v in results[f"{block}:{channel} {branch}"].items()},
            flush=True,
        )
    table(results)


def table(results: dict[str, dict[str, dict[int, float]]]) -> None:
    """Median share kept by branch and size, and the seconds of each method."""
    by_method: dict[str, dict[tuple[str, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for unit, methods in results.items():
        for method, values in methods.items():
            for size, value in values.items():
                by_method[method][unit.split()[1], size].append(value)
                by_method[method]["all", size].append(value)
    header("method", *(f"{branch}, {size}" for branch in (*BRANCHES, "all") for size in SIZES), "s")
    for method, values in by_method.items():
        cells = [f"{median(values[branch, size]):.2f}" for branch in (*BRANCHES, "all") for size in SIZES]
        seconds = values.get(("all", 0))
        row(method, *cells, f"{median(seconds):.1f}" if seconds else "")


if __name__ == "__main__":
    main()
