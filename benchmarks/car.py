"""The car story on photographs: which units, which parts, where, and what is lost without them.

Car units of GoogLeNet are chosen on one half of the photographs, traced one layer back, and their parents are named by
masks of parts. Then three claims are put beside controls, with 95 % bootstrap intervals over photographs:

1. where: wheel units excite from below and glass units from above (vertical centroid of the expanded weights, beside
   random sets of units of equal activity; and over all units with kernels);
2. what units see: occluding the outlined wheels costs the wheel unit most (beside the same outlines elsewhere);
3. what the car unit uses: occluding a part, against holding the units for it at their means (beside units of equal
   activity).

    python benchmarks/car.py --cars CARS --others PHOTOGRAPHS --parts CAR_PARTS --store store
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from _tables import header, row
from torch import Tensor

import circuits
from apps.cli.output.photo_story import (
    GROUPS,
    SETS,
    TOP,
    Occlusions,
    Story,
    elsewhere,
    occlusions,
    part_losses,
    without_vehicles,
)
from circuits.common.statistics import (
    correlation,
    permutation_p,
    shuffled_correlations,
)
from zoo.images.coco import open_annotated
from zoo.images.sources import Images, open_images

SOURCE, TARGET = "mixed4b", "mixed4c"
PARTS = ("wheel", "glass", "door", "hood", "light")


def parents(story: Story, cars: Images, labels: circuits.PartLabels, unit: str, width: int) -> None:
    """The strongest parents of a car unit, and what each detects."""
    print(f"\nParents of {unit}, of {len(cars.spread(75))} photographs of cars:\n")
    circuit = circuits.trace(story.model, unit, images=cars.spread(75), width=width)
    names = labels.names()
    whole = circuit.rest[0].total
    header("parent", "contribution", "share of what all units add up to", "best part", "AUC", "best control", "named")
    for edge in circuit.into(circuit.target):
        best = labels.of(edge.source)[0]
        share = f"{edge.strength / whole:.2f}" if whole > 0 else ""
        scores = (f"{best.auc:.3f}", f"{best.control:.3f}", names.get(edge.source, ""))
        row(edge.source, f"{edge.strength:+.2f}", share, best.part, *scores)


def where(story: Story, findings: circuits.Findings, seed: int) -> None:
    """Whether wheel units excite from below glass units."""
    print("\n1. Vertical centroid of the positive weights, in positions of 16 pixels, below the middle:\n")
    kernels = story.kernels()
    units = [(f, story.model.unit(f.unit)) for f in findings.rows]
    spatial = [(f, u.index) for f, u in units if (story.model.branch_of(u) or "").endswith(("3x3", "5x5"))]
    wheels, glass = story.tops["wheel"], story.tops["glass"]
    header(
        "unit",
        "branch",
        "AUC for cars",
        "wheel units",
        "glass units",
        "difference",
        "random sets, 95 %",
        "share of sets as large",
    )
    differences = []
    branches = [
        [pair for pair in spatial if (story.model.branch_of(story.model.unit(pair[0].unit)) or "").endswith(branch)][:8]
        for branch in ("3x3", "5x5")
    ]
    for finding, index in branches[0] + branches[1]:
        h = story.height(finding.unit, kernels[index])
        differences.append(h.difference)
        ends = (f"{h.lower:+.2f}", f"{h.upper:+.2f}", f"{h.difference:+.2f}")
        branch = story.model.branch_of(story.model.unit(finding.unit))
        row(
            finding.unit,
            branch,
            f"{finding.auc:.3f}",
            *ends,
            f"{h.control.low:+.2f} to {h.control.high:+.2f}",
            f"{h.p:.3f}",
        )
    for name, some in (("3x3", differences[:8]), ("5x5", differences[8:])):
        print(f"\nmean difference of these {name} units {story.mean(torch.tensor(some))}", end="")
    print()
    aucs = [finding.auc for finding, _ in spatial]
    lower = [story.below(kernels[index], wheels, glass) for _, index in spatial]
    shuffled = shuffled_correlations(aucs, lower, draws=2000, generator=np.random.default_rng(seed))
    r = correlation(aucs, lower)
    print(
        f"over all {len(aucs)} units with kernels: correlation of the AUC for cars with the difference {r:+.2f}, ",
        end="",
    )
    print(f"p = {permutation_p(r, shuffled):.3f}")


def seen(story: Story, occluded: Occlusions) -> None:
    """What each part's best unit loses when a part is occluded."""
    print("\n2. Share of a unit's peak that is lost when a part is occluded, on photographs that show it:\n")
    chosen = {part: units[0] for part, units in story.tops.items()}
    header("occluded", "photographs", "of the pixels", *(f"{SOURCE}:{u} ({part})" for part, u in chosen.items()))
    peaks = occluded.clean[SOURCE].amax(dim=(2, 3))
    for what, there in occluded.visible.items():
        lost = peaks - occluded.after[what][SOURCE].amax(dim=(2, 3))
        cells = [story.mean(lost[there, u], peaks[there, u]) for u in chosen.values()]
        row(what, int(there.sum()), f"{occluded.masks[what][there.numpy()].mean():.3f}", *cells)
    both = occluded.visible[elsewhere("wheel")]
    peak = peaks[both].mean(dim=0)
    wheel, other = (occluded.after[w][SOURCE].amax(dim=(2, 3))[both].mean(dim=0) for w in ("wheel", elsewhere("wheel")))
    active = peak >= peak[chosen["wheel"]] / 2
    ranked = torch.where(active, (other - wheel) / peak, torch.tensor(-9.0)).argsort(descending=True).tolist()
    number = ranked.index(chosen["wheel"]) + 1
    print(
        f"\nBy what occluded wheels cost beyond their outlines elsewhere, the wheel unit is number {number} of the ",
        end="",
    )
    print(f"{int(active.sum())} units with a mean peak of at least half of its; the first are {ranked[:6]}")


def used(story: Story, occluded: Occlusions, address: str, reference: Tensor) -> None:
    """What a car unit loses at its peak when a part is occluded, and when the units for it are held at their means."""
    print(f"\n3. Share of {address} at its peak that is lost, on photographs that show the part:\n")
    header(
        "part", "part occluded", "its outlines elsewhere", f"its {TOP} units at their means",
        f"{TOP} of equal activity ({SETS} sets, 95 %)", "rank correlation of the two over photographs",
        "the same for equal activity", "used",
    )  # fmt: skip
    for loss in part_losses(story, occluded, address, reference):
        row(
            loss.part, loss.occluded, loss.elsewhere or "", loss.ablated, loss.control, f"{loss.agreement:.2f}",
            f"{loss.agreement_control:.2f}", "yes" if loss.used else "no",
        )  # fmt: skip


def main() -> None:
    """Tell the story."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cars", type=Path, required=True, help="photographs of cars")
    parser.add_argument("--others", type=Path, required=True, help="photographs of other things, named after them")
    parser.add_argument("--parts", type=Path, required=True, help="folder with images/ and annotations.json")
    parser.add_argument("--store", type=Path, default=Path("store"), help="where part labels are, or will be")
    parser.add_argument("--limit", type=int, default=300, help="photographs of other things")
    parser.add_argument("--width", type=int, default=16, help="parents traced")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model, seed = circuits.load("googlenet-bvlc"), options.seed
    cars, every = open_images(options.cars), open_images(options.others)
    others = open_images(without_vehicles(every), limit=options.limit, seed=seed)

    findings = circuits.find(model, positive=cars, negative=others, layer=TARGET, seed=seed)
    print(f"{len(cars)} photographs of cars, {len(others)} of other things; shuffled best {findings.chance:.3f}\n")
    header("unit", "branch", "AUC on the other half", "AUC that chose it", "cars among its top images")
    for finding in findings.rows[:10]:
        between = f"{finding.auc:.3f} ({finding.low:.3f} to {finding.high:.3f})"
        top = f"{sum(image.positive for image in finding.top)} of {len(finding.top)}"
        row(finding.unit, model.branch_of(model.unit(finding.unit)), between, f"{finding.chosen_auc:.3f}", top)

    annotated = open_annotated(options.parts / "images", options.parts / "annotations.json", groups=GROUPS)
    labels = circuits.read_labels(options.store, model.name, model.digest)
    if labels is None:
        labels = circuits.label(model, annotated, layers=[SOURCE, TARGET], seed=seed)
        labels.save(options.store)
    story = Story.of_labels(model, (SOURCE, TARGET), cars, others, annotated, labels, PARTS, seed=seed)
    best_5x5 = next(f.unit for f in findings.rows if (model.branch_of(model.unit(f.unit)) or "").endswith("5x5"))
    targets = [findings.rows[0].unit, findings.rows[1].unit, best_5x5]
    for unit in targets:
        parents(story, cars, labels, unit, options.width)
    where(story, findings, seed)
    occluded = occlusions(story, controls=PARTS, seed=seed)
    heights = {p: np.mean([np.nonzero(m)[0].mean() for m in occluded.masks[p] if m.any()]) for p in ("wheel", "glass")}
    print(f"wheels lie {(heights['wheel'] - heights['glass']) / 16:.1f} positions below glass on these photographs")
    seen(story, occluded)
    reference = circuits.capture(model, others, [SOURCE])[SOURCE]
    for unit in targets:
        used(story, occluded, unit, reference)


if __name__ == "__main__":
    main()
