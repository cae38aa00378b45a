"""Do latents tell where parts are better than channels do? Judged where the answer is known, by masks.

Of every dictionary the best unit for a part is chosen on one half of the pictures and scored on the other: the best of
many is good by luck alone, and the more there are the more so. Beside an SAE stand the layer's channels and as many
random directions, read in its own way (as many of them active) and as plain inner products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.common.statistics import percentile_interval
from circuits.dataset.part_labels import part_grid
from circuits.network.model import Model
from sae.architectures.base import SAE
from sae.checks import whole
from sae.data.site import Function, check_fits
from sae.data.vision_site import VisionSite
from sae.errors import SAEError, shorten
from sae.evaluation.baselines import RandomDictionary
from sae.seeding import CONTROL, generator
from zoo.images.sources import open_images
from zoo.progress import Progress, reporter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Measure = Literal["auc", "iou"]
Kind = Literal["channels", "latents", "random", "linear"]
MEASURES: tuple[Measure, ...] = ("auc", "iou")
CHANNELS = "channels"
_SAID: dict[Kind, str] = {
    "channels": "channels",
    "latents": "latents",
    "random": "random directions, as sparse",
    "linear": "random directions, linear",
}
_FEWEST = 5  # positions on a part in either half


@dataclass(frozen=True)
class Interval:
    """A number, and its 95 % interval when pictures are drawn anew."""

    value: float
    low: float
    high: float

    def describe(self) -> dict[str, float]:
        """Ready for JSON."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Agreement:
    """How units go with parts, position by position; all `(units, parts)`.

    Attributes:
        auc: probability that a position on the part has more of the unit than one of a picture without the part.
        iou: intersection over union of the part and the positions at or above `threshold`, the best there is.
        threshold: that threshold.
    """

    auc: Tensor
    iou: Tensor
    threshold: Tensor


@dataclass(frozen=True, eq=False)
class Judged:
    """All units of a dictionary, judged by parts.

    Attributes:
        name: of the dictionary; kind: "channels", "latents", "random" (as sparse as the SAE it is a control of) or
            "linear" (the same directions as inner products).
        of: for the controls, name of the SAE.
        units: how many; active: mean number above zero at a position.
        chosen_by, scores: measure -> `(units, parts)` on the half on which units and thresholds are chosen, and on the
            other half.
        drawn: measure -> `(draws, parts)` scores of the chosen units on pictures of the other half, drawn anew.
    """

    name: str
    kind: Kind
    of: str | None
    units: int
    active: float
    chosen_by: Mapping[Measure, Tensor]
    scores: Mapping[Measure, Tensor]
    drawn: Mapping[Measure, Tensor]

    def chosen(self, measure: Measure = "auc") -> Tensor:
        """For each part the unit that is best on the first half, `(parts,)`."""
        return self.chosen_by[measure].argmax(dim=0)

    def best(self, measure: Measure = "auc") -> Tensor:
        """For each part the score of that unit on the other half, `(parts,)`."""
        return self.scores[measure].gather(0, self.chosen(measure)[None])[0]

    def of_some(self, count: int, measure: Measure = "auc", *, draws: int = 100, seed: int = 0) -> Tensor:
        """As `best`, with `count` units drawn at random to choose among: the mean over draws, `(parts,)`.

        Raises:
            SAEError: more than there are.
        """
        whole("count", count)
        if count > self.units:
            raise SAEError(f"{self.name} has {self.units} units; {count} cannot be drawn")
        drawn = generator(seed, CONTROL, count)
        total = torch.zeros(self.scores[measure].shape[1], dtype=torch.float64)
        for _ in range(draws):
            some = torch.randperm(self.units, generator=drawn)[:count]
            best = self.chosen_by[measure][some].argmax(dim=0)
            total += self.scores[measure][some[best], torch.arange(len(best))]
        return total / draws


@dataclass(frozen=True, eq=False)
class PartComparison:
    """What `compare` found.

    Attributes:
        address: of the layer; parts: that both halves show often enough; left_out: the others.
        dictionaries: the channels, every SAE and its controls.
        positions: parts -> positions on them in the half that scores.
        pictures: number in the half that chooses, and in the half that scores.
        provenance: digests, seed, versions.
    """

    address: str
    parts: tuple[str, ...]
    left_out: tuple[str, ...]
    dictionaries: tuple[Judged, ...]
    positions: tuple[int, ...]
    pictures: tuple[int, int]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Judged:
        """A dictionary by name.

        Raises:
            SAEError: there is none.
        """
        for one in self.dictionaries:
            if one.name == name:
                return one
        known = ", ".join(one.name for one in self.dictionaries)
        raise SAEError(f"no dictionary {shorten(name)!r} was judged; there are {known}")

    def of_kind(self, kind: Kind) -> tuple[Judged, ...]:
        """Dictionaries of a kind."""
        return tuple(one for one in self.dictionaries if one.kind == kind)

    def mean(self, name: str, measure: Measure = "auc") -> Interval:
        """Mean over parts of the best unit's score, with its interval over pictures."""
        one = self[name]
        return _interval(float(one.best(measure).mean()), one.drawn[measure].nanmean(dim=1))

    def difference(self, name: str, other: str = CHANNELS, measure: Measure = "auc") -> Interval:
        """How much better one dictionary's best units are than another's, on the same pictures; mean over parts."""
        a, b = self[name], self[other]
        drawn = (a.drawn[measure] - b.drawn[measure]).nanmean(dim=1)
        return _interval(float((a.best(measure) - b.best(measure)).mean()), drawn)

    def wins(self, name: str, other: str = CHANNELS, measure: Measure = "auc") -> int:
        """For how many parts the best unit of one dictionary scores above that of another."""
        return int((self[name].best(measure) > self[other].best(measure)).sum())

    def unit(self, name: str, index: int) -> str:
        """Address of a unit, as far as it has one: latents once they are attached under the name used here."""
        return f"{self.address}:{index}" if name == CHANNELS else f"{self.address}~{name}:{index}"

    def units(self, name: str) -> list[dict[str, Any]]:
        """Every unit of a dictionary with its best part, chosen on one half and scored on the other."""
        one = self[name]
        rows: list[dict[str, Any]] = [{"unit": self.unit(name, i)} for i in range(one.units)]
        for measure in MEASURES:
            at = one.chosen_by[measure].argmax(dim=1)
            for i, (row, k) in enumerate(zip(rows, at.tolist(), strict=True)):
                row[measure] = {"part": self.parts[k], "score": float(one.scores[measure][i, k])}
        return rows

    def describe(self, *, units: bool = False) -> dict[str, Any]:
        """Ready for JSON; with `units` every channel and latent with its best part, too."""
        fewest = self[CHANNELS].units
        made = []
        for one in self.dictionaries:
            by_measure: dict[str, Any] = {}
            for measure in MEASURES:
                best = one.best(measure).tolist()
                chosen = [self.unit(one.name, i) for i in one.chosen(measure).tolist()]
                by_measure[measure] = {
                    "mean": self.mean(one.name, measure).describe(),
                    "less_channels": self.difference(one.name, measure=measure).describe(),
                    "better_than_channels_for": self.wins(one.name, measure=measure),
                    "of_as_many_as_channels": float(one.of_some(min(fewest, one.units), measure).mean()),
                    "parts": [
                        {"part": part, "unit": unit, "score": score}
                        for part, unit, score in zip(self.parts, chosen, best, strict=True)
                    ],
                }
            made.append(
                {"name": one.name, "kind": one.kind, "of": one.of, "units": one.units, "active": one.active}
                | by_measure
                | ({"each": self.units(one.name)} if units and one.of is None else {})
            )
        return {
            "address": self.address,
            "parts": dict(zip(self.parts, self.positions, strict=True)),
            "left_out": list(self.left_out),
            "pictures": {"choosing": self.pictures[0], "scoring": self.pictures[1]},
            "dictionaries": made,
            "provenance": dict(self.provenance),
        }

    def figure(self, title: str = "") -> Figure:
        """The best unit of every dictionary for every part."""
        from circuits.plot.sae.latent_quality import part_dots

        series = {
            said: {str(m): [one.best(m).tolist() for one in self.of_kind(kind)] for m in MEASURES}
            for kind, said in _SAID.items()
        }
        return part_dots(self.parts, series, title=title or f"{self.address}: the best unit for each part")


def compare(
    model: Model,
    layer: str,
    saes: Mapping[str, SAE],
    images: Any,
    *,
    draws: int = 200,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> PartComparison:
    """Judge the latents of SAEs, the channels of their layer and random directions by the parts of pictures.

    Parts and units are compared on the layer's grid: a position lies on a part when its receptive field is centerd on
    it. AUC and IoU are those of `Agreement`; the threshold of the IoU is chosen together with the unit.

    Args:
        model: the model.
        layer: where the SAEs read.
        saes: by name; several seeds of one kind side by side say how much is luck.
        images: pictures with parts annotated that no SAE was trained on: `scenes:600@7`. An even half of them chooses.
        draws: bootstrap draws of pictures, for intervals.
        seed: of the halves, the random directions and the bootstrap.
        batch_size: pictures per forward pass.
        progress: True for a bar, or a function of (done, total) dictionaries.

    Raises:
        SAEError: no SAE, one of another layer or width, a name twice, or no part that both halves show.
        CircuitsError: pictures without annotations, or a layer without positions.

    >>> compare(model, "mixed3a", {"topk": s}, "scenes:600@7").difference("topk").value  # doctest: +SKIP
    0.02
    """
    site = VisionSite(model, layer)
    names = _checked(site, saes)
    whole("draws", draws)
    pictures = open_images(images)
    grid = part_grid(model, layer, pictures)
    blocks = [block.acts.cpu() for block in site.blocks(pictures, batch_size=batch_size)]
    vectors = torch.cat(blocks).flatten(1, 2)  # (N, positions, d)
    inside, shown = grid.inside.movedim(1, -1).flatten(1, 2), grid.shown
    order = torch.randperm(len(pictures), generator=generator(seed, CONTROL))
    halves = order[: len(order) // 2].sort().values, order[len(order) // 2 :].sort().values
    kept = [k for k in range(len(grid.parts)) if all(_enough(inside[h][..., k], shown[h][:, k]) for h in halves)]
    if not kept:
        raise SAEError(f"no part is shown often enough by both halves of {pictures.name}; use more pictures")
    inside, shown = inside[..., kept], shown[:, kept]
    mean = vectors[halves[0]].flatten(0, 1).mean(dim=0)
    weights = _weights(draws, len(halves[1]), seed)
    made: list[Judged] = []

    def judge(name: str, kind: Kind, of: str | None, encode: Function) -> Judged:
        return _judged(name, kind, of, encode, vectors, inside, shown, halves, weights)

    with reporter(progress, "dictionaries") as report, torch.no_grad():
        total = 1 + 3 * len(names)
        made.append(judge(CHANNELS, "channels", None, lambda x: x))
        report(1, total)
        for name in names:
            made.append(judge(name, "latents", None, partial(_latents, saes[name])))
            report(len(made), total)
            active = max(1, round(made[-1].active))
            control = RandomDictionary(mean, saes[name].latents, active, seed=seed + len(made))
            made.append(judge(f"{name} random", "random", name, control.encode))
            report(len(made), total)
            made.append(judge(f"{name} linear", "linear", name, partial(_products, control)))
            report(len(made), total)
    return PartComparison(
        address=site.address,
        parts=tuple(grid.parts[k] for k in kept),
        left_out=tuple(p for k, p in enumerate(grid.parts) if k not in kept),
        dictionaries=tuple(made),
        positions=tuple(inside[halves[1]].flatten(0, 1).sum(dim=0).tolist()),
        pictures=(len(halves[0]), len(halves[1])),
        provenance=provenance(
            model=model.name, weights=model.digest, images=pictures.name, images_digest=pictures.digest,
            draws=draws, seed=seed,
        ),
    )  # fmt: skip


def _latents(sae: SAE, acts: Tensor) -> Tensor:
    return sae.encode(acts.to(sae.encoder.device)).cpu()


def _products(control: RandomDictionary, acts: Tensor) -> Tensor:
    return (acts - control.mean) @ control.directions.T


def agreement(acts: Tensor, inside: Tensor, absent: Tensor) -> Agreement:
    """How units go with parts.

    Args:
        acts: `(n, units)` at positions.
        inside: `(n, parts)` whether a position is on the part.
        absent: `(n, parts)` whether it is of a picture without the part: what the AUC holds against the part. The IoU
            counts all positions.
    """
    parts, count = inside.shape[1], acts.shape[1]
    yes, no = inside.int(), absent.int()
    on, off = inside.sum(dim=0).double(), absent.sum(dim=0).double()
    areas, overlaps, levels = (torch.empty(count, parts, dtype=torch.float64) for _ in range(3))
    start = torch.zeros(1, parts, dtype=torch.float64)
    for unit, values in enumerate(acts.T):
        # most latents are silent at most positions: what equals the lowest value need not be sorted
        low = values.min()
        rows = (values > low).nonzero().flatten()
        rows = rows[values[rows].argsort(descending=True)]
        ordered = values[rows]
        last = torch.ones(len(rows), dtype=torch.bool)
        last[:-1] = ordered[1:] != ordered[:-1]
        ends = last.nonzero().flatten()
        hits = torch.cat([yes[rows].cumsum(dim=0)[ends].double(), on[None]])  # on the part, at or above each level
        misses = torch.cat([no[rows].cumsum(dim=0)[ends].double(), off[None]])
        above = torch.cat([ends + 1, torch.tensor([len(values)])]).double()[:, None]
        new_hits, new_misses = hits.diff(dim=0, prepend=start), misses.diff(dim=0, prepend=start)
        areas[unit] = (new_hits * (off - misses + new_misses / 2)).sum(dim=0) / (on * off)
        overlap, at = (hits / (above + on - hits)).max(dim=0)
        overlaps[unit], levels[unit] = overlap, torch.cat([ordered[ends], low[None]])[at].double()
    return Agreement(areas, overlaps, levels)


def _judged(
    name: str, kind: Kind, of: str | None, encode: Function, vectors: Tensor, inside: Tensor, shown: Tensor,
    halves: tuple[Tensor, Tensor], weights: Tensor,
) -> Judged:  # fmt: skip
    """A dictionary judged on both halves."""
    found, acts = [], torch.empty(0)
    for half in halves:
        acts = encode(vectors[half].flatten(0, 1)).float()
        absent = (~shown[half])[:, None].expand(-1, vectors.shape[1], -1).flatten(0, 1)
        found.append(agreement(acts, inside[half].flatten(0, 1), absent))
    first, second = found
    on = inside[halves[1]]  # (pictures, positions, parts)
    maps = acts.view(*on.shape[:2], -1)
    held = _held(acts, first.threshold, on.flatten(0, 1))
    chosen_by: dict[Measure, Tensor] = {"auc": first.auc, "iou": first.iou}
    scores: dict[Measure, Tensor] = {"auc": second.auc, "iou": held}
    drawn: dict[Measure, Tensor] = {m: torch.empty(len(weights), on.shape[2], dtype=torch.float64) for m in MEASURES}
    for k, unit in enumerate(first.auc.argmax(dim=0).tolist()):
        drawn["auc"][:, k] = _drawn_auc(maps[..., unit], on[..., k], ~shown[halves[1]][:, k], weights)
    for k, unit in enumerate(first.iou.argmax(dim=0).tolist()):
        drawn["iou"][:, k] = _drawn_iou(maps[..., unit], float(first.threshold[unit, k]), on[..., k], weights)
    return Judged(name, kind, of, maps.shape[-1], float((maps > 0).sum(-1).double().mean()), chosen_by, scores, drawn)


def _held(acts: Tensor, thresholds: Tensor, on: Tensor) -> Tensor:
    """IoU `(units, parts)` of units `(n, units)` with parts `(n, parts)` at thresholds found elsewhere."""
    rows, parts = on.nonzero().T
    held = torch.empty_like(thresholds)
    for unit, (values, levels) in enumerate(zip(acts.T.double(), thresholds, strict=True)):
        above = len(values) - torch.searchsorted(values.sort().values, levels)
        both = torch.bincount(parts[values[rows] >= levels[parts]], minlength=on.shape[1])
        held[unit] = both / (above + on.sum(dim=0) - both)
    return held


def _drawn_iou(maps: Tensor, threshold: float, on: Tensor, weights: Tensor) -> Tensor:
    """IoU `(draws,)` of one unit's maps `(pictures, positions)` with one part, pictures counted by weights."""
    above = maps >= threshold
    both, either = ((above & on).sum(dim=1).double(), (above | on).sum(dim=1).double())
    return (weights @ both) / (weights @ either)


def _drawn_auc(maps: Tensor, on: Tensor, absent: Tensor, weights: Tensor) -> Tensor:
    """AUC `(draws,)` of one unit's maps `(pictures, positions)` for one part, pictures counted by weights."""
    n, positions = maps.shape
    image = torch.arange(n)[:, None].expand_as(on)[on]
    high, low = maps[on], maps[absent].sort(dim=1).values
    every = high.expand(len(low), -1).contiguous()
    below = (torch.searchsorted(low, every) + torch.searchsorted(low, every, right=True)).double() / 2
    # pairs in the right order, by the picture of the position on the part and that of the one without
    pairs = torch.zeros(n, len(low), dtype=torch.float64).index_add_(0, image, below.T)
    sides = weights @ on.sum(dim=1).double(), weights[:, absent].sum(dim=1) * positions
    return ((weights @ pairs) * weights[:, absent]).sum(dim=1) / (sides[0] * sides[1])


def _weights(draws: int, pictures: int, seed: int) -> Tensor:
    """How often each picture is drawn, `(draws, pictures)`."""
    rows = torch.randint(pictures, (draws, pictures), generator=generator(seed, CONTROL, pictures))
    return torch.zeros(draws, pictures, dtype=torch.float64).scatter_add_(
        1, rows, torch.ones(draws, pictures, dtype=torch.float64)
    )


def _interval(value: float, drawn: Tensor) -> Interval:
    low, high = percentile_interval(drawn)
    return Interval(value, float(low), float(high))


def _enough(on: Tensor, shown: Tensor) -> bool:
    return int(on.sum()) >= _FEWEST and not bool(shown.all())


def _checked(site: VisionSite, saes: Mapping[str, SAE]) -> Sequence[str]:
    if not saes:
        raise SAEError("name at least one SAE to compare, for example {'topk': sae.load(FOLDER)}")
    if CHANNELS in saes:
        raise SAEError(f"{CHANNELS!r} are the layer's own; call the SAE something else")
    for one in saes.values():
        check_fits(one, site)
    return list(saes)
