"""Which way of choosing parents holds for latents: how much of a GoogLeNet unit the first latents of mixed4b keep.

A dictionary of mixed4b, its latents chosen for units of mixed4c on some photographs and tried on others, on neither of
which it was trained: share of the variance kept, with its error ablated as every other latent. The pool branch
reads mixed4b through a max pool, across which latents have neither kernels nor means.

    circuits sae train googlenet-bvlc/mixed4b --images TRAINING --latents 2048 --k 32 --steps 500 --per-input 128 \\
        --out mixed4b
    python benchmarks/latent_parents.py --sae mixed4b --images OTHERS
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # a script beside this one has the name of a package

import numpy as np  # noqa: E402
import torch  # noqa: E402

import circuits  # noqa: E402
import sae  # noqa: E402
from benchmarks._tables import header, row  # noqa: E402
from circuits.network.address import Unit  # noqa: E402
from circuits.tracing.ablation.ablation import Ablation  # noqa: E402
from circuits.tracing.baselines import Mean  # noqa: E402
from circuits.tracing.rankings.gain import gain_order  # noqa: E402
from circuits.tracing.rankings.unit_scores import RankMethod, UnitScores, unit_scores  # noqa: E402
from circuits.tracing.target import target_of  # noqa: E402
from zoo.images.sources import Images, open_images  # noqa: E402

WIDTHS = (4, 8, 16)
LAYER, BRANCHES = "mixed4b~sae", ("1x1", "3x3", "5x5")
WAYS = ("weights", "gradient", "gradient, by gain", "mask")


def chosen_units(model: circuits.Model, of_each: int, seed: int) -> list[str]:
    """As many units of each branch of mixed4c, sampled at random."""
    rng, units = np.random.default_rng(seed), []
    for branch in BRANCHES:
        layer = model.layers[f"mixed4c_{branch}"]
        assert layer.part is not None
        # three are drawn, whatever number is taken, so that more units include fewer
        drawn = sorted(rng.choice(layer.channels, max(3, of_each), replace=False).tolist())
        units += [f"mixed4c:{layer.part[1] + c}" for c in drawn[:of_each]]
    return units


def first_latents(train: Ablation, traced: Images, unit: str, way: str) -> list[int]:
    """The first latents by a way of choosing them."""
    if way == "weights":  # at the peaks, as `trace` chooses latents
        circuit = circuits.trace(train.model, unit, images=traced, layers=[LAYER], width=max(WIDTHS), by="weights")
        return [int(Unit.parse(edge.source).index or 0) for edge in circuit.edges]
    method: RankMethod = "mask" if way == "mask" else "gradient"
    scores, latents = unit_scores(train, method)[LAYER], train.widths[LAYER] - 1  # the last is the error
    scores = UnitScores(scores.signed[:latents], scores.magnitude[:latents])
    if way == "gradient, by gain":
        return gain_order(train, scores, max(WIDTHS))
    return scores.magnitude.argsort(descending=True, stable=True)[: max(WIDTHS)].tolist()


def main() -> None:
    """Measure and print every unit, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sae", type=Path, required=True, help="folder of a dictionary of mixed4b")
    parser.add_argument("--images", required=True, help="photographs that it was not trained on")
    parser.add_argument("--units", type=int, default=2, help="of each branch")
    parser.add_argument("--photographs", type=int, default=120, help="to choose on")
    parser.add_argument("--test", type=int, default=150, help="others to try on")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = circuits.load("googlenet-bvlc")
    model.attach("mixed4b", "sae", sae.load(options.sae).requires_grad_(False))
    photographs, n = open_images(options.images), options.photographs
    order = torch.randperm(len(photographs), generator=torch.Generator().manual_seed(options.seed)).tolist()
    halves = (order[:n], order[n : n + options.test])
    traced, others = (open_images(photographs.tensor(model.input, part)) for part in halves)  # decoded once
    units = chosen_units(model, options.units, options.seed)
    train, test = (Ablation(model, target_of(model, units[0]), [LAYER], half, Mean()) for half in (traced, others))
    kept: dict[str, list[list[float]]] = {way: [] for way in options.ways}
    header("unit", *(f"{way}, {width}" for way in options.ways for width in WIDTHS), "the error alone", "all latents")
    for unit in units:
        train, test = train.with_target(target_of(model, unit)), test.with_target(target_of(model, unit))
        for way in options.ways:
            latents = first_latents(train, traced, unit, way)
            kept[way].append([test.share(test.respond({LAYER: set(latents[:width])})) for width in WIDTHS])
        error = test.widths[LAYER] - 1
        ends = (test.share(test.respond({LAYER: some})) for some in ({error}, set(range(error))))
        row(unit, *(f"{share:.2f}" for way in options.ways for share in kept[way][-1]), *(f"{end:.2f}" for end in ends))
    for name, of in (("median", median), ("lowest", min)):
        row(name, *(f"{of(r[i] for r in kept[way]):.2f}" for way in options.ways for i in range(len(WIDTHS))), "", "")


if __name__ == "__main__":
    main()
