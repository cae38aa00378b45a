"""Which way of choosing parents holds for `circuits.trace` itself: how much of a unit its first parents keep.

Each unit is traced on some scenes with each way, and its first 4, 8 and 16 parents are tried on others: share of the
explained variance kept, 0 with every unit of the layer before at its mean and 1 with none. Units of the embedded
networks are sampled at random among those that vary on the scenes. For GoogLeNet: `rankings.py --sizes 4 8 16`.

    python benchmarks/trace_parents.py --out trace_parents.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import torch
from _tables import header, row

import circuits
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.baselines import Mean
from circuits.tracing.target import target_of
from zoo.common.files import write_text_atomically
from zoo.images.sources import Images, open_images

WIDTHS = (4, 8, 16)
WAYS = {
    "weights": {"by": "weights"},
    "weights, from the mean": {"by": "weights", "baseline": "mean"},
    "attribution": {"by": "attribution"},
    "gradient": {"by": "gradient"},
    "integrated": {"by": "integrated"},
    "mask": {"by": "mask"},
}
LAYERS = {"scenes": ("mixed4a", "mixed4b"), "scenes-labels": ("mixed4a", "mixed4b"), "scenes-vit": ("block1", "block3")}
Row = dict[str, float | list[float]]


def targets(model: circuits.Model, images: Images, count: int, seed: int) -> list[tuple[str, str]]:
    """`(unit, layer)`: units to trace."""
    rng, chosen = np.random.default_rng(seed), []
    for layer in LAYERS[model.name]:
        acts = circuits.capture(model, images, layer)[layer]
        channels = acts.movedim(1 if acts.ndim == 4 else -1, 0).flatten(1)
        varying = [c for c in range(len(channels)) if float(channels[c].std()) > 1e-3]
        chosen += [(f"{layer}:{c}", layer) for c in sorted(rng.choice(varying, count, replace=False).tolist())]
    return chosen


def measured(model: circuits.Model, unit: str, source: str, traced: Images, test: Ablation) -> dict[str, Row]:
    """Way -> share kept with each number of parents; |remainder| / response; the CPU's seconds."""
    ways = {k: v for k, v in WAYS.items() if model.name != "scenes-vit" or not k.startswith("weights")}
    result: dict[str, Row] = {}
    for name, options in ways.items():
        began = process_time()
        circuit = circuits.trace(model, unit, images=traced, layers=[source], width=max(WIDTHS), **options)  # type: ignore[arg-type]
        seconds = process_time() - began
        parents = [int(Unit.parse(edge.source).index or 0) for edge in circuit.edges]
        kept = [test.share(test.respond({source: set(parents[:width])})) for width in WIDTHS]
        result[name] = {"kept": kept, "nonlinear": circuit.rest[0].nonlinear, "seconds": seconds}
    return result


def main() -> None:
    """Measure what --out has not, write every unit as it comes, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(LAYERS))
    parser.add_argument("--units", type=int, default=8, help="of each layer")
    parser.add_argument("--traced", type=int, default=200, help="images to trace on")
    parser.add_argument("--test", type=int, default=300, help="others to test on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("trace_parents.json"))
    options = parser.parse_args()
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    for name in options.models:
        model, n, m = circuits.load(name), options.traced, options.test
        images = open_images(f"scenes:{n + m}@{options.seed}")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(options.seed)).tolist()
        # decoded once, not for each way
        halves = (images.subset(part).tensor(model.input) for part in (order[:n], order[n : n + m]))
        traced, others = map(open_images, halves)
        found, test = results.setdefault(name, {}), None
        for unit, group in targets(model, traced, options.units, options.seed):
            if unit in found:
                continue
            target = target_of(model, unit)
            layer = str(model.before(group))
            try:
                if test is None or test.layers != [layer]:
                    test = Ablation(model, target, [layer], others, Mean())
                test = test.with_target(target)
                found[unit] = {"group": group, "ways": measured(model, unit, layer, traced, test)}
            except CircuitsError as error:
                print(f"left out {unit}: {error}", flush=True)
                continue
            write_text_atomically(options.out, json.dumps(results, indent=1))
            print(name, unit, found[unit], flush=True)
    for name in options.models:
        table(name, list(results[name].values()))


def table(name: str, units: list[dict]) -> None:  # type: ignore[type-arg]
    """Median share kept by layer and width; the lowest; the median remainder; seconds."""
    groups = LAYERS[name]
    print(f"\n{name}: {len(units)} units\n")
    header("parents", *(f"{g}, {w}" for g in (*groups, "all", "lowest") for w in WIDTHS), "remainder", "CPU s")
    for way in units[0]["ways"]:
        rows = {g: [u["ways"][way] for u in units if g in ("all", u["group"])] for g in (*groups, "all")}
        cells = [median(r["kept"][i] for r in rows[g]) for g in rows for i in range(len(WIDTHS))]
        cells += [min(r["kept"][i] for r in rows["all"]) for i in range(len(WIDTHS))]
        cells.append(median(r["nonlinear"] for r in rows["all"]))
        row(way, *(f"{c:.2f}" for c in cells), f"{median(r['seconds'] for r in rows['all']):.1f}")


if __name__ == "__main__":
    main()
