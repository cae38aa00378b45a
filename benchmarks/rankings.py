"""Which ranking of parents holds on photographs: GoogLeNet, units of every branch of mixed4a to mixed4e.

For each unit the channels of the layer before are ranked on some photographs, by each method, and the circuits of the
first 16 and 64 (or --sizes) are tried on others: share of the explained variance kept, 0 with everything ablated to its
mean and 1 with nothing. Beside them a mask that was learned for circuits of just that size, and random circuits. With
--smallest also the smallest circuits that keep nine tenths. It takes about a minute a unit; what is in --out is not
done again, so that it may be stopped and goes on where it was.

    python benchmarks/rankings.py --images ../shared/data/imagenet-sample --smallest 100 --out rankings.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import torch
from _tables import header, row
from torch import Tensor

import circuits
from circuits.errors import CircuitsError
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.channel_edits import ChannelEdits
from circuits.tracing.baselines import Mean
from circuits.tracing.curves import null_circuits
from circuits.tracing.curves.smallest import search
from circuits.tracing.rankings.gain import gain_order
from circuits.tracing.rankings.learned_mask import learn_mask
from circuits.tracing.rankings.unit_scores import METHODS, STEPS, RankMethod, unit_scores
from circuits.tracing.target import target_of
from zoo.common.files import write_text_atomically
from zoo.images.sources import open_images

BLOCKS = ("mixed4a", "mixed4b", "mixed4c", "mixed4d", "mixed4e")
BRANCHES = ("1x1", "3x3", "5x5", "pool_proj")
SIZES = (16, 64)
KEEP = 0.9
OWN = "mask of its size"
Row = dict[str, float]


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
    """|weight x activation|, a mean over the 32 strongest positions: as `trace(by="weights")` orders parents."""
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
    scores = cache(lambda method: unit_scores(train, method, seed=seed)[layer])

    def by(method: RankMethod) -> Callable[[int], Tensor]:
        return lambda _: scores(method).magnitude

    def signed(method: RankMethod) -> Callable[[int], Tensor]:
        return lambda _: scores(method).signed

    def gain(size: int) -> Tensor:
        chosen = gain_order(train, scores("gradient"), size)
        return torch.zeros(train.model.layers[layer].channels).index_put_(
            (torch.tensor(chosen),), torch.arange(size, 0, -1.0)
        )

    def strong(size: int) -> Tensor:
        rng, strengths = np.random.default_rng(seed), null_circuits.strengths(train)
        chosen = null_circuits.among_strongest({layer: size}, strengths, rng)[layer]
        return torch.tensor([float(c in chosen) for c in range(train.model.layers[layer].channels)])

    def mask(size: int) -> Tensor:
        return learn_mask(train, size=size, seed=seed, start={layer: scores("gradient").magnitude})[layer]

    return {
        "weight x activation at peaks": lambda _: at_peaks(train),
        **{method: by(method) for method in METHODS},
        "gradient, by gain": gain,
        "gradient, by signed share": signed("gradient"),
        "integrated, by signed share": signed("integrated"),
        OWN: mask,
        "random, strong": strong,
    }


def measured(
    train: Ablation, test: Ablation, seed: int, methods: Sequence[str], sizes: Sequence[int]
) -> dict[str, Row]:
    """Method -> size -> share kept on other photographs; under "seconds" what the ranking took the CPU."""
    runs = ChannelEdits(test)
    result: dict[str, Row] = {}
    for name, order in orders(train, seed).items():
        if methods and name not in methods:
            continue
        began = process_time()
        numbers = {size: order(size).argsort(descending=True, stable=True)[:size].tolist() for size in sizes}
        seconds = process_time() - began
        shares = {str(size): test.share(runs.keep(set(units))) for size, units in numbers.items()}
        result[name] = {**shares, "seconds": seconds}
    return result


def smallest_of(train: Ablation, test: Ablation, seed: int) -> Row:
    """Size of the smallest circuit that keeps nine tenths, and what it keeps of other photographs."""
    circuit, losses = search(train, keep=KEEP, steps=STEPS["mask"], seed=seed)
    return {
        "units": len(losses),
        "found": train.share(train.respond(circuit)),
        "kept": test.share(test.respond(circuit)),
    }


def main() -> None:
    """Measure, write every number as it comes, print the tables by branch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="../shared/data/imagenet-sample")
    parser.add_argument("--units", type=int, default=10, help="of each branch")
    parser.add_argument("--photographs", type=int, default=250, help="to rank on")
    parser.add_argument("--test", type=int, default=500, help="others to test on")
    parser.add_argument("--smallest", type=int, default=0, help="photographs to look for smallest circuits on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="of circuits")
    parser.add_argument("--methods", nargs="*", default=(), help="only these rows")
    parser.add_argument("--out", type=Path, default=Path("rankings.json"), help="results; those in it are not repeated")
    options = parser.parse_args()
    model = circuits.load("googlenet-bvlc")
    photographs = open_images(options.images)
    order = torch.randperm(len(photographs), generator=torch.Generator().manual_seed(options.seed)).tolist()
    n, m = options.photographs, options.test
    if n + m > len(order):
        parser.error(f"{n} + {m} photographs of {len(order)}")
    parts = [("kept", order[:n])] + ([("smallest", order[: options.smallest])] if options.smallest else [])
    settings = {"images": photographs.digest, **{k: getattr(options, k) for k in ("photographs", "test", "seed")}}
    if tuple(options.sizes) != SIZES:
        settings["sizes"] = options.sizes
    results: dict[str, Any] = {"settings": settings, "kept": {}, "smallest": {}}
    if options.out.exists():
        results = json.loads(options.out.read_text(encoding="utf-8"))
        if results["settings"] != settings:
            parser.error(f"{options.out} holds results of {results['settings']}, not of {settings}: name another --out")
    for kind, train_on in parts:
        pair: tuple[Ablation, Ablation] | None = None
        for block, branch, channel in chosen_units(model, options.units, options.seed):
            unit = f"{block}:{channel} {branch}"
            done = results[kind].get(unit, {})
            if done and (kind == "smallest" or not set(options.methods) - done.keys()):
                continue
            target = target_of(model, f"{block}:{channel}")
            # a stage pool in between: from its output, so that all blocks are read the same way
            source = "mixed3b_maxpool" if block == "mixed4a" else str(model.before(block))
            try:
                if pair is None or pair[0].layers != [source]:
                    pair = None  # so that the last pair goes before the next is there
                    first, last = (
                        Ablation(model, target, [source], photographs.subset(some), Mean())
                        for some in (train_on, order[n : n + m])
                    )
                    pair = first, last
                train, test = (half.with_target(target) for half in pair)
            except CircuitsError as error:
                print(f"left out {unit}: {error}", flush=True)
                continue
            if kind == "smallest":
                results[kind][unit] = smallest_of(train, test, options.seed)
            else:
                results[kind][unit] = done | measured(train, test, options.seed, options.methods, options.sizes)
            write_text_atomically(options.out, json.dumps(results, indent=1))
            print(kind, unit, results[kind][unit], flush=True)
    table(results["kept"], options.sizes)
    table_of_smallest(results["smallest"])


def table(results: dict[str, dict[str, Row]], sizes: Sequence[int]) -> None:
    """Median share kept by branch and size, the share of that of a mask of its size, and the seconds of each method."""
    groups = {b: [r for unit, r in results.items() if b in ("all", unit.split()[1])] for b in (*BRANCHES, "all")}
    groups = {branch: rows for branch, rows in groups.items() if rows}
    print(f"\n{len(results)} units, " + ", ".join(f"{branch} {len(rows)}" for branch, rows in groups.items()))
    header(
        "method", *(f"{branch}, {size}" for branch in groups for size in sizes),
        *(f"lowest, {size}" for size in sizes), *(f"of the mask, {size}" for size in sizes), "CPU s",
    )  # fmt: skip
    for method in next(iter(results.values()), {}):
        cells = [median(r[method][str(size)] for r in rows) for rows in groups.values() for size in sizes]
        cells += [min(r[method][str(size)] for r in groups["all"]) for size in sizes]
        # of the better mask where the one for just that size was unlucky: a reference, not a bound
        of_mask = [
            median(r[method][str(size)] / max(r[m][str(size)] for m in (OWN, "mask") if m in r) for r in groups["all"])
            for size in sizes
        ]
        seconds = median(r[method]["seconds"] for r in groups["all"])
        row(method, *(f"{cell:.2f}" for cell in cells + of_mask), f"{seconds:.1f}")


def table_of_smallest(results: dict[str, Row]) -> None:
    """Sizes of the smallest circuits by branch."""
    if not results:
        return
    print(f"\nSmallest circuits that keep {KEEP}:\n")
    header("branch", "units", "median size", "smallest", "largest", "kept where found", "kept of other photographs")
    for branch in (*BRANCHES, "all"):
        rows = [r for unit, r in results.items() if branch in ("all", unit.split()[1])]
        sizes = [int(r["units"]) for r in rows]
        if rows:
            kept = (f"{median(r[key] for r in rows):.2f}" for key in ("found", "kept"))
            row(branch, len(rows), f"{median(sizes):g}", min(sizes), max(sizes), *kept)


if __name__ == "__main__":
    main()
