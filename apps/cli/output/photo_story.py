"""The car story on photographs: units for cars, the parts that their parents detect, and what is lost without these.

Used by `circuits demo googlenet-bvlc` and by `benchmarks/car.py`. Units for cars are chosen on one half of the
photographs; the units for each part on one half of the annotated ones, and what occlusions and ablations cost is
measured on the other. Beside each number stands its control: random sets of units of equal activity, the same
outlines in the wrong photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.expanded_weights import expanded_weights
from circuits.common.statistics import Estimate, rank_correlation
from circuits.dataset.labels.shares import on_input, part_masks
from circuits.network.hooks import capture
from circuits.network.subnetwork import Segment, channel_pools
from zoo.common.results import Result
from zoo.images.sources import Images

if TYPE_CHECKING:
    from circuits.dataset.labels.results import PartLabels
    from circuits.network.model import Model

GROUPS = {
    "door": ["front_left_door", "front_right_door", "back_left_door", "back_right_door"],
    "glass": ["front_glass", "back_glass"],
    "light": ["front_left_light", "front_right_light", "back_left_light", "back_right_light"],
    "mirror": ["left_mirror", "right_mirror"],
    "bumper": ["front_bumper", "back_bumper"],
}
"""Outlined categories of cars that together are one part."""
TOP = 8
"""Units of a part, the best by the half that chose."""
AREA = 200 / 224**2
"""Share of the model's input that shows a part, at least, where it is occluded."""
SETS = 40
"""Random sets of units of equal activity that are held at their means."""
KERNEL_SETS = 500
"""Random sets of units of equal activity whose kernels are compared."""
VEHICLES = (
    "ambulance", "beach_wagon", "cab", "convertible", "jeep", "limousine", "minivan", "model_t", "racer", "sports_car",
    "pickup", "police_van", "tow_truck", "trailer_truck", "moving_van", "minibus", "fire_engine", "garbage_truck",
    "recreational_vehicle", "trolleybus", "school_bus", "car_wheel", "car_mirror", "grille", "go-kart", "golfcart",
    "snowplow", "tractor", "motor_scooter", "moped", "bicycle", "tandem", "half_track", "tank", "harvester", "thresher",
    "cassette_player", "parking_meter", "streetcar", "passenger_car", "freight_car", "electric_locomotive",
)  # fmt: skip
"""Words in the names of photographs that may show wheels or cars, which are left out of the others."""


def without_vehicles(images: Images) -> Images:
    """The photographs whose names do not say that they may show a wheel or a car."""
    return images.subset([i for i, name in enumerate(images.ids) if not any(word in name.lower() for word in VEHICLES)])


@dataclass(frozen=True)
class PartLoss(Result):
    """The share of a unit at its peak that is lost without a part, on photographs that show it.

    Attributes:
        part: what is lost; n_images: photographs that show enough of it.
        occluded: with the part filled in; elsewhere: with its outlines in another photograph filled in, where measured.
        ablated: with the units for it held at their means; control: with as many units of equal activity, interval
            over random sets.
        agreement: rank correlation of the two losses over photographs; agreement_control: its median for the sets.
    """

    part: str
    n_images: int
    occluded: Estimate
    elsewhere: Estimate | None
    ablated: Estimate
    control: Estimate
    agreement: float
    agreement_control: float

    @property
    def used(self) -> bool:
        """Whether both losses lie above what their controls lose."""
        occlusion = self.elsewhere is None or self.occluded.low > self.elsewhere.high
        return occlusion and self.ablated.low > self.control.high


@dataclass(frozen=True)
class Height(Result):
    """Where the positive weights from the units of two parts lie, in positions below the middle of the kernel.

    Attributes:
        unit: the target; lower, upper: of the units for the lower and the upper part; difference: of the two.
        control: the difference for random sets of units of equal activity, with 95 % of them.
        p: share of these sets that differ at least as much.
    """

    unit: str
    lower: float
    upper: float
    difference: float
    control: Estimate
    p: float


@dataclass(frozen=True)
class Story:
    """What all parts of the story share.

    Attributes:
        source, target: layers: of the parts and of the whole.
        others: photographs of other things; annotated: with outlines of parts.
        activity: `(S,)` mean activation of each unit of `source` on the cars.
        tops: part -> its best units of `source`, the best first.
        generator: of all that is random.
    """

    model: Model
    source: str
    target: str
    others: Images
    annotated: Images
    activity: Tensor
    tops: Mapping[str, Sequence[int]]
    generator: torch.Generator

    @classmethod
    def of_labels(
        cls,
        model: Model,
        layers: tuple[str, str],
        cars: Images,
        others: Images,
        annotated: Images,
        labels: PartLabels,
        parts: Sequence[str],
        *,
        seed: int = 0,
    ) -> Story:
        """The story of a layer and the one after, with the best units of each part by its labels."""
        source, target = layers
        tops = {p: [model.unit(u.unit).index or 0 for u in labels.best(p, layers=[source], top=TOP)] for p in parts}
        activity = capture(model, cars, [source])[source].mean(dim=(0, 2, 3))
        return cls(model, source, target, others, annotated, activity, tops, torch.Generator().manual_seed(seed))

    def matched(self, units: Sequence[int]) -> list[int]:
        """For each of some units another one of about the same activity, at random."""
        order = self.activity.argsort()
        rank = order.argsort()[list(units)]
        near = [[v for v in order[max(0, r - 20) : r + 21].tolist() if v not in units] for r in rank.tolist()]
        return [some[int(torch.randint(len(some), (1,), generator=self.generator))] for some in near]

    def mean(self, values: Tensor, over: Tensor | None = None) -> Estimate:
        """Mean of values over images, by the mean of `over`, with its bootstrap interval."""
        over = torch.ones_like(values) if over is None else over
        draws = torch.randint(len(values), (2000, len(values)), generator=self.generator)
        return Estimate.of(values.mean() / over.mean(), values[draws].mean(dim=1) / over[draws].mean(dim=1))

    def kernels(self) -> Tensor:
        """Expanded weights between the layers times the sources' activity, `(T, S, h, w)`."""
        weights = expanded_weights(self.model, source=self.source, target=self.target).kernels
        return weights * self.activity[:, None, None]

    def below(self, kernels: Tensor, lower: Sequence[int], upper: Sequence[int]) -> float:
        """How far below the weights of the units `upper` those of `lower` lie, of `(S, h, w)`, in positions."""
        return centroid(kernels[list(lower)]) - centroid(kernels[list(upper)])

    def height(self, unit: str, kernels: Tensor, parts: tuple[str, str] = ("wheel", "glass")) -> Height:
        """Whether a unit is excited from below by the units of the first part, and from above by those of the second.

        Args:
            unit: address of the target; kernels: its weights `(S, h, w)`, as `kernels` gives them; parts: the two.
        """
        lower, upper = (self.tops[part] for part in parts)
        sets = torch.tensor([self.below(kernels, self.matched(lower), self.matched(upper)) for _ in range(KERNEL_SETS)])
        difference = self.below(kernels, lower, upper)
        control = Estimate.of(sets.mean(), sets)
        ends = centroid(kernels[list(lower)]), centroid(kernels[list(upper)])
        return Height(unit, *ends, difference, control, float((sets >= difference).float().mean()))


def centroid(kernels: Tensor) -> float:
    """How far below the middle the positive weights of kernels `(units, h, w)` lie, in positions."""
    positive = kernels.clamp_min(0).sum(dim=(0, 2))
    rows = torch.arange(len(positive), dtype=positive.dtype) - (len(positive) - 1) / 2
    return float((rows * positive).sum() / positive.sum().clamp_min(1e-12))


@dataclass(frozen=True)
class Occlusions:
    """Photographs with outlines that chose nothing, and the same with a part filled in from around it.

    Attributes:
        pixels: `(N, 3, H, W)`; masks: what is occluded -> `(N, H, W)`.
        visible: what is occluded -> `(N,)` the photographs that show enough of it.
        clean, after: activations of both layers, and those for each occlusion.
    """

    pixels: Tensor
    masks: Mapping[str, NDArray[np.bool_]]
    visible: Mapping[str, Tensor]
    clean: Mapping[str, Tensor]
    after: Mapping[str, Mapping[str, Tensor]]


def elsewhere(part: str) -> str:
    """The key of the control of a part's occlusion."""
    return f"{part} outlines of other photographs"


def occlusions(
    story: Story, *, controls: Sequence[str], seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> Occlusions:
    """The half of the annotated photographs that did not choose units, with each part occluded.

    Args:
        story: whose parts; controls: parts whose outlines are also occluded in the wrong photographs.
        seed: of the halves, as for `label`.
        progress: called with (done, total) occlusions.
    """
    spec, layers = story.model.input, [story.source, story.target]
    order = torch.randperm(len(story.annotated), generator=torch.Generator().manual_seed(seed))  # as `label` halves
    tested = story.annotated.subset(order[len(order) // 2 :].sort().values.tolist())
    masks = {part: np.zeros((len(tested), *spec.hw), dtype=bool) for part in story.tops}
    for i in range(len(tested)):
        for name, mask in part_masks(tested, i).items():
            if name in masks:
                masks[name][i] = on_input(mask, spec) > 0.5
    for part in controls:
        masks[elsewhere(part)] = np.roll(masks[part], 1, axis=0) & ~masks[part]
    least = round(AREA * spec.hw[0] * spec.hw[1])
    visible = {what: torch.from_numpy(mask.sum(axis=(1, 2)) >= least) for what, mask in masks.items()}
    for part in controls:
        visible[elsewhere(part)] &= visible[part]
    pixels = tested.tensor(spec)
    clean = capture(story.model, pixels, layers)
    after = {}
    for number, (what, mask) in enumerate(masks.items()):
        after[what] = capture(story.model, filled(pixels, mask), layers)
        if progress is not None:
            progress(number + 1, len(masks))
    return Occlusions(pixels, masks, visible, clean, after)


def filled(pixels: Tensor, masks: NDArray[np.bool_]) -> Tensor:
    """Photographs with masked pixels filled in from around them (Telea 2004), two pixels beyond the outline."""
    images = []
    for image, mask in zip(pixels, masks, strict=True):
        hole = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8))
        values = np.ascontiguousarray((image * 255).round().byte().permute(1, 2, 0).numpy())
        images.append(torch.from_numpy(cv2.inpaint(values, hole, 3, cv2.INPAINT_TELEA)).permute(2, 0, 1).float() / 255)
    return torch.stack(images)


def part_losses(
    story: Story,
    occluded: Occlusions,
    address: str,
    reference: Tensor,
    *,
    parts: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[PartLoss]:
    """What a unit loses at its peak when a part is occluded, and when the units for it are held at their means.

    Args:
        story, occluded: of `occlusions`.
        address: the unit; reference: activations of the source layer on the other photographs, for the means.
        parts: some of the parts (default: all). One that fewer than two photographs show where the unit is active is
            left out.
        progress: called with (done, total) parts.
    """
    unit = story.model.unit(address)
    clean = occluded.clean[story.target][:, unit.index]
    at = clean.flatten(1).argmax(dim=1, keepdim=True)
    before = clean.flatten(1).gather(1, at)[:, 0]
    active = before > 0
    drop = _held_at_means(story, occluded, address, reference, at, before)

    def lost(what: str) -> Tensor:
        return before - occluded.after[what][story.target][:, unit.index].flatten(1).gather(1, at)[:, 0]

    chosen = list(story.tops if parts is None else parts)
    rows = []
    for number, part in enumerate(chosen):
        there = occluded.visible[part] & active
        if int(there.sum()) < 2:
            continue
        own = drop(story.tops[part])
        null = torch.stack([drop(story.matched(story.tops[part])) for _ in range(SETS)])
        lost_by_chance = null[:, there].mean(dim=1) / before[there].mean()
        chance_lost = Estimate.of(null[:, there].mean() / before[there].mean(), lost_by_chance)
        share, chance = (lost(part) / before.clamp_min(1e-6))[there], (null / before.clamp_min(1e-6))[:, there]
        other = None
        if (key := elsewhere(part)) in occluded.visible and int((both := occluded.visible[key] & active).sum()) > 1:
            other = story.mean(lost(key)[both], before[both])
        rows.append(
            PartLoss(
                part,
                int(there.sum()),
                story.mean(lost(part)[there], before[there]),
                other,
                story.mean(own[there], before[there]),
                chance_lost,
                rank_correlation(share, (own / before.clamp_min(1e-6))[there]),
                float(np.median([rank_correlation(share, n) for n in chance])),
            )
        )
        if progress is not None:
            progress(number + 1, len(chosen))
    return rows


def _held_at_means(
    story: Story, occluded: Occlusions, address: str, reference: Tensor, at: Tensor, before: Tensor
) -> Callable[[Sequence[int]], Tensor]:
    """A function of units of the source layer: what the unit loses `(N,)` when they are held at their means.

    After a max pool a unit is held at the mean of its pooled map, since the pool of a mean is less than any pool.
    """
    segment = Segment(story.model, story.source, story.model.unit(address))
    acts, context = segment.begin(occluded.pixels)
    means = reference.mean(dim=(0, 2, 3))
    pools = channel_pools(story.model, story.source, story.target)
    pooled = {n: capture(story.model, story.others, [n])[n].mean(dim=(0, 2, 3))[at] for n, at in pools.items()}

    def held(maps: Tensor, units: Sequence[int], values: Tensor, start: int = 0) -> Tensor:
        maps = maps.clone()
        maps[:, [start + c for c in units]] = values[list(units)][:, None, None]
        return maps

    def drop(units: Sequence[int]) -> Tensor:
        edits = {
            name: lambda maps, values=values, start=pools[name].start: held(maps, units, values, start)
            for name, values in pooled.items()
        }
        with torch.no_grad():
            after = segment.respond(held(acts, units, means), context, edits)[:, 0]
        return before - after.flatten(1).gather(1, at)[:, 0]

    return drop
