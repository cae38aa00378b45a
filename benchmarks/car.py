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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from _tables import header, row
from torch import Tensor

import circuits
from circuits.common.statistics import (
    correlation,
    percentile_interval,
    permutation_p,
    rank_correlation,
    shuffled_correlations,
)
from circuits.dataset.labels.shares import on_input, part_masks
from circuits.network.subnetwork import Segment, channel_pools
from zoo.images.coco import open_annotated
from zoo.images.sources import Images, open_images

SOURCE, TARGET = "mixed4b", "mixed4c"
GROUPS = {
    "door": ["front_left_door", "front_right_door", "back_left_door", "back_right_door"],
    "glass": ["front_glass", "back_glass"],
    "light": ["front_left_light", "front_right_light", "back_left_light", "back_right_light"],
    "mirror": ["left_mirror", "right_mirror"],
    "bumper": ["front_bumper", "back_bumper"],
}
PARTS = ("wheel", "glass", "door", "hood", "light")
ELSEWHERE = "wheel outlines of other photographs"
TOP = 8
"""Units of a part, the best by the half that chose."""
AREA = 200
"""Pixels of the model's input that show a part, at least, where it is occluded."""
SETS = 40
"""Random sets of units of equal activity."""
VEHICLES = (
    "ambulance", "beach_wagon", "cab", "convertible", "jeep", "limousine", "minivan", "model_t", "racer", "sports_car",
    "pickup", "police_van", "tow_truck", "trailer_truck", "moving_van", "minibus", "fire_engine", "garbage_truck",
    "recreational_vehicle", "trolleybus", "school_bus", "car_wheel", "car_mirror", "grille", "go-kart", "golfcart",
    "snowplow", "tractor", "motor_scooter", "moped", "bicycle", "tandem", "half_track", "tank", "harvester", "thresher",
    "cassette_player", "parking_meter", "streetcar", "passenger_car", "freight_car", "electric_locomotive",
)  # fmt: skip
"""Words in the names of photographs that may show wheels or cars, which are left out of the others."""


@dataclass(frozen=True)
class Story:
    """What all parts of the story share.

    Attributes:
        cars, others: photographs of cars, and of other things; annotated: of cars with outlines.
        activity: `(S,)` mean activation of each unit of `SOURCE` on the cars.
        tops: part -> its best units of `SOURCE`, the best first.
    """

    model: circuits.Model
    cars: Images
    others: Images
    annotated: Images
    labels: circuits.PartLabels
    activity: Tensor
    tops: dict[str, list[int]]
    generator: torch.Generator

    def matched(self, units: list[int]) -> list[int]:
        """For each of some units another one of about the same activity, at random."""
        order = self.activity.argsort()
        rank = order.argsort()[units]
        near = [[v for v in order[max(0, r - 20) : r + 21].tolist() if v not in units] for r in rank.tolist()]
        return [some[int(torch.randint(len(some), (1,), generator=self.generator))] for some in near]

    def mean(self, values: Tensor, over: Tensor | None = None, digits: int = 2) -> str:
        """Mean of values over images, by the mean of `over`, with its interval."""
        over = torch.ones_like(values) if over is None else over
        draws = torch.randint(len(values), (2000, len(values)), generator=self.generator)
        low, high = percentile_interval(values[draws].mean(dim=1) / over[draws].mean(dim=1))
        return f"{values.mean() / over.mean():.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    def centroid(self, kernels: Tensor) -> float:
        """How far below the middle the positive weights of kernels `(units, h, w)` lie, in positions."""
        positive = kernels.clamp_min(0).sum(dim=(0, 2))
        rows = torch.arange(len(positive), dtype=positive.dtype) - (len(positive) - 1) / 2
        return float((rows * positive).sum() / positive.sum().clamp_min(1e-12))

    def below(self, kernels: Tensor, wheels: list[int], glass: list[int]) -> float:
        """How far below the weights of glass units those of wheel units lie, of `(S, h, w)`, in positions."""
        return self.centroid(kernels[wheels]) - self.centroid(kernels[glass])


def parents(story: Story, unit: str, width: int) -> None:
    """The strongest parents of a car unit, and what each detects."""
    print(f"\nParents of {unit}, of {len(story.cars.spread(75))} photographs of cars:\n")
    circuit = circuits.trace(story.model, unit, images=story.cars.spread(75), width=width)
    names = story.labels.names()
    exciting = sum(e.strength for e in circuit.edges if e.strength > 0)
    header("parent", "contribution", "share of what excites", "best part", "AUC", "best control", "named")
    for edge in circuit.into(circuit.target):
        best = story.labels.of(edge.source)[0]
        share = f"{edge.strength / exciting:.2f}" if edge.strength > 0 else ""
        scores = (f"{best.auc:.3f}", f"{best.control:.3f}", names.get(edge.source, ""))
        row(edge.source, f"{edge.strength:+.2f}", share, best.part, *scores)


def where(story: Story, findings: circuits.Findings, seed: int) -> None:
    """Whether wheel units excite from below glass units."""
    print("\n1. Vertical centroid of the positive weights, in positions of 16 pixels, below the middle:\n")
    kernels = circuits.expanded_weights(story.model, source=SOURCE, target=TARGET).kernels
    kernels = kernels * story.activity[:, None, None]
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
        own = kernels[index]
        sets = [story.below(own, story.matched(wheels), story.matched(glass)) for _ in range(500)]
        low, high = percentile_interval(torch.tensor(sets))
        differences.append(story.below(own, wheels, glass))
        ends = (f"{story.centroid(own[wheels]):+.2f}", f"{story.centroid(own[glass]):+.2f}", f"{differences[-1]:+.2f}")
        share = float((torch.tensor(sets) >= differences[-1]).float().mean())
        branch = story.model.branch_of(story.model.unit(finding.unit))
        row(finding.unit, branch, f"{finding.auc:.3f}", *ends, f"{low:+.2f} to {high:+.2f}", f"{share:.3f}")
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


@dataclass(frozen=True)
class Occlusions:
    """Photographs with outlines that chose nothing, and the same with a part filled in from around it.

    Attributes:
        pixels: `(N, 3, H, W)`; masks: what is occluded -> `(N, H, W)`.
        visible: what is occluded -> `(N,)` the photographs that show enough of it.
        clean, after: activations of `SOURCE` and `TARGET`, and those for each occlusion.
    """

    pixels: Tensor
    masks: dict[str, np.ndarray]  # type: ignore[type-arg]
    visible: dict[str, Tensor]
    clean: dict[str, Tensor]
    after: dict[str, dict[str, Tensor]]


def occlusions(story: Story, seed: int) -> Occlusions:
    """The half of the annotated photographs that did not choose units, with each part occluded."""
    spec, layers = story.model.input, [SOURCE, TARGET]
    order = torch.randperm(len(story.annotated), generator=torch.Generator().manual_seed(seed))  # as `label` halves
    held = story.annotated.subset(order[len(order) // 2 :].sort().values.tolist())
    masks = {part: np.zeros((len(held), *spec.hw), dtype=bool) for part in PARTS}
    for i in range(len(held)):
        for name, mask in part_masks(held, i).items():
            if name in masks:
                masks[name][i] = on_input(mask, spec) > 0.5
    masks[ELSEWHERE] = np.roll(masks["wheel"], 1, axis=0) & ~masks["wheel"]
    heights = {p: np.mean([np.nonzero(m)[0].mean() for m in masks[p] if m.any()]) for p in ("wheel", "glass")}
    print(f"wheels lie {(heights['wheel'] - heights['glass']) / 16:.1f} positions below glass on these photographs")
    visible = {what: torch.from_numpy(mask.sum(axis=(1, 2)) >= AREA) for what, mask in masks.items()}
    visible[ELSEWHERE] &= visible["wheel"]
    pixels = held.tensor(spec)
    clean = circuits.capture(story.model, pixels, layers)
    after = {what: circuits.capture(story.model, _filled(pixels, mask), layers) for what, mask in masks.items()}
    return Occlusions(pixels, masks, visible, clean, after)


def _filled(pixels: Tensor, masks: np.ndarray) -> Tensor:  # type: ignore[type-arg]
    """Photographs with masked pixels filled in from around them (Telea 2004), two pixels beyond the outline."""
    filled = []
    for image, mask in zip(pixels, masks, strict=True):
        hole = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8))
        values = np.ascontiguousarray((image * 255).round().byte().permute(1, 2, 0).numpy())
        filled.append(torch.from_numpy(cv2.inpaint(values, hole, 3, cv2.INPAINT_TELEA)).permute(2, 0, 1).float() / 255)
    return torch.stack(filled)


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
    both = occluded.visible[ELSEWHERE]
    peak = peaks[both].mean(dim=0)
    wheel, other = (occluded.after[w][SOURCE].amax(dim=(2, 3))[both].mean(dim=0) for w in ("wheel", ELSEWHERE))
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
    unit = story.model.unit(address)
    clean = occluded.clean[TARGET][:, unit.index]
    at = clean.flatten(1).argmax(dim=1, keepdim=True)
    before = clean.flatten(1).gather(1, at)[:, 0]
    fired = before > 0
    drop = _held_at_means(story, occluded, address, reference, at, before)

    def lost(what: str) -> Tensor:
        return before - occluded.after[what][TARGET][:, unit.index].flatten(1).gather(1, at)[:, 0]

    print(f"\n3. Share of {address} at its peak that is lost, on photographs that show the part:\n")
    header(
        "part", "part occluded", f"its {TOP} units at their means", f"{TOP} of equal activity ({SETS} sets, 95 %)",
        "rank correlation of the two over photographs", "the same for equal activity",
    )  # fmt: skip
    for part in PARTS:
        there = occluded.visible[part] & fired
        own, null = drop(story.tops[part]), torch.stack([drop(story.matched(story.tops[part])) for _ in range(SETS)])
        low, high = percentile_interval(null[:, there].mean(dim=1) / before[there].mean())
        share, chance = (lost(part) / before.clamp_min(1e-6))[there], (null / before.clamp_min(1e-6))[:, there]
        row(
            part, story.mean(lost(part)[there], before[there]), story.mean(own[there], before[there]),
            f"{null[:, there].mean() / before[there].mean():.2f} ({low:.2f} to {high:.2f})",
            f"{rank_correlation(share, (own / before.clamp_min(1e-6))[there]):.2f}",
            f"{np.median([rank_correlation(share, n) for n in chance]):.2f}",
        )  # fmt: skip
    there = occluded.visible[ELSEWHERE] & fired
    row(ELSEWHERE, story.mean(lost(ELSEWHERE)[there], before[there]), "", "", "", "")


def _held_at_means(
    story: Story, occluded: Occlusions, address: str, reference: Tensor, at: Tensor, before: Tensor
) -> Callable[[list[int]], Tensor]:
    """A function of units of `SOURCE`: what the car unit loses `(N,)` when they are held at their means.

    After a max pool a unit is held at the mean of its pooled map, since the pool of a mean is less than any pool.
    """
    segment = Segment(story.model, SOURCE, story.model.unit(address))
    acts, context = segment.begin(occluded.pixels)
    means = reference.mean(dim=(0, 2, 3))
    pools = channel_pools(story.model, SOURCE, TARGET)
    pooled = {n: circuits.capture(story.model, story.others, [n])[n].mean(dim=(0, 2, 3)) for n in pools}

    def held(maps: Tensor, units: list[int], values: Tensor) -> Tensor:
        maps = maps.clone()
        maps[:, units] = values[units][:, None, None]
        return maps

    def drop(units: list[int]) -> Tensor:
        edits = {name: lambda maps, values=values: held(maps, units, values) for name, values in pooled.items()}
        with torch.no_grad():
            after = segment.respond(held(acts, units, means), context, edits)[:, 0]
        return before - after.flatten(1).gather(1, at)[:, 0]

    return drop


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
    plain = [i for i, name in enumerate(every.ids) if not any(word in name.lower() for word in VEHICLES)]
    others = open_images(every.subset(plain), limit=options.limit, seed=seed)

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
    tops = {p: [model.unit(u.unit).index or 0 for u in labels.best(p, layers=[SOURCE], top=TOP)] for p in PARTS}
    activity = circuits.capture(model, cars, [SOURCE])[SOURCE].mean(dim=(0, 2, 3))
    story = Story(model, cars, others, annotated, labels, activity, tops, torch.Generator().manual_seed(seed))
    best_5x5 = next(f.unit for f in findings.rows if (model.branch_of(model.unit(f.unit)) or "").endswith("5x5"))
    targets = [findings.rows[0].unit, findings.rows[1].unit, best_5x5]
    for unit in targets:
        parents(story, unit, options.width)
    where(story, findings, seed)
    occluded = occlusions(story, seed)
    seen(story, occluded)
    reference = circuits.capture(model, others, [SOURCE])[SOURCE]
    for unit in targets:
        used(story, occluded, unit, reference)


if __name__ == "__main__":
    main()
