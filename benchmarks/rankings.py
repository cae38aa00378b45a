"""Which ranking of parents holds on photographs: GoogLeNet, units of every branch of mixed4a to mixed4e.

For each unit the channels of the layer before are ranked on some photographs, by each method, and the circuits of the
first 16 and 64 are tried on others: share of the explained variance kept, 0 with everything ablated to its mean and 1
with nothing. Beside them a mask that was learned for circuits of just that size, and random circuits. Run it in the
background: it takes about a minute a unit.

    python benchmarks/rankings.py --images ../shared/data/imagenet-sample --units 8 --out rankings.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import torch
from _tables import header, row
from torch import Tensor

import circuits
from circuits.errors import CircuitsError
from circuits.tracing.ablation import Ablation
from circuits.tracing.baselines import Mean
from circuits.tracing.channel_edits import ChannelEdits
from circuits.tracing.curves import null_circuits
from circuits.tracing.rankings.learned_mask import learn_mask
from circuits.tracing.rankings.unit_scores import METHODS, RankMethod, unit_scores
from circuits.tracing.target import target_of
from zoo.images.sources import open_images

BLOCKS = ("mixed4a", "mixed4b", "mixed4c", "mixed4d", "mixed4e")
BRANCHES = ("1x1", "3x3", "5x5", "pool_proj")
SIZES = (16, 64)


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


def at_peaks(train: Ablation) -> Tensor:
    """|weight x activation|, a mean over the 32 strongest positions: as `trace` orders parents by default."""
    (layer,) = train.layers
    peak, flat = train.clean.flatten(1).max(dim=1)
    images = [i for i in peak.argsort(descending=True).tolist() if peak[i] > 0][:32]
    width = train.clean.shape[2]
    acts = torch.cat([train.batch(number)[0].acts for number in range(train.n_batches)])[images]
    weights = circuits.expanded_weights(train.model, source=layer, target=train.target.units[0])
    patches = weights.patches(acts, [(int(flat[i]) // width, int(flat[i]) % width) for i in images])
    return (patches * weights.kernels[0]).sum(dim=(2, 3)).mean(dim=0).abs().detach()


def orders(train: Ablation, seed: int) -> dict[str, Callable[[int], Tensor]]:
    """Name -> what units are ordered by, for circuits of a size."""
    (layer,) = train.layers

    def by(method: RankMethod) -> Callable[[int], Tensor]:
        scores = cache(lambda: unit_scores(train, method, seed=seed)[layer])
        return lambda _: scores().magnitude

    def signed(method: RankMethod) -> Callable[[int], Tensor]:
        return lambda _: unit_scores(train, method, seed=seed)[layer].signed

    def strong(size: int) -> Tensor:
        rng, strengths = np.random.default_rng(seed), train.strengths()
        chosen = null_circuits.among_strongest({layer: size}, strengths, rng)[layer]
        return torch.tensor([float(c in chosen) for c in range(train.model.layers[layer].channels)])

    def mask(size: int) -> Tensor:
        start = {layer: unit_scores(train, "gradient")[layer].magnitude}
        return learn_mask(train, size=size, seed=seed, start=start)[layer]

    return {
        "weight x activation at peaks": lambda _: at_peaks(train),
        **{method: by(method) for method in METHODS},
        "gradient, by signed share": signed("gradient"),
        "integrated, by signed share": signed("integrated"),
        "mask of its size": mask,
        "random, strong": strong,
    }


def measured(train: Ablation, test: Ablation, seed: int, methods: Sequence[str]) -> dict[str, dict[int, float]]:
    """Method -> size -> share kept on other photographs; under 0 the CPU seconds that the ranking took."""
    (layer,) = train.layers
    runs = ChannelEdits(test)
    result: dict[str, dict[int, float]] = {}
    for name, order in orders(train, seed).items():
        if methods and name not in methods:
            continue
        began = process_time()
        numbers = {size: order(size).argsort(descending=True, stable=True)[:size].tolist() for size in SIZES}
        seconds = process_time() - began
        result[name] = {size: test.share(runs.keep(set(units))) for size, units in numbers.items()} | {0: seconds}
    return result


def main() -> None:
    """Measure, print the table by branch, write every number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="../shared/data/imagenet-sample")
    parser.add_argument("--units", type=int, default=10, help="of each branch")
    parser.add_argument("--photographs", type=int, default=200, help="to rank on, and as many others to test on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=(), help="only these rows")
    parser.add_argument("--add", type=Path, help="a file of results whose other rows are shown, too")
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
        unit = f"{block}:{channel} {branch}"
        results[unit] = measured(train, test, options.seed, options.methods)
        options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
        print(unit, {name: [round(v[size], 2) for size in SIZES] for name, v in results[unit].items()}, flush=True)
    if options.add is not None:
        earlier = json.loads(options.add.read_text(encoding="utf-8"))
        for unit in results.keys() & earlier.keys():
            rows = {name: {int(size): value for size, value in v.items()} for name, v in earlier[unit].items()}
            results[unit] = {**rows, **results[unit]}
    table(results)


def table(results: dict[str, dict[str, dict[int, float]]]) -> None:
    """Median share kept by branch and size, and the seconds of each method."""
    by_method: dict[str, dict[tuple[str, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for unit, methods in results.items():
        for method, values in methods.items():
            for size, value in values.items():
                by_method[method][unit.split()[1], size].append(value)
                by_method[method]["all", size].append(value)
    header("method", *(f"{branch}, {size}" for branch in (*BRANCHES, "all") for size in SIZES), "CPU s")
    for method, values in by_method.items():
        cells = [f"{median(values[branch, size]):.2f}" for branch in (*BRANCHES, "all") for size in SIZES]
        seconds = values.get(("all", 0))
        row(method, *cells, f"{median(seconds):.1f}" if seconds else "")


if __name__ == "__main__":
    main()
