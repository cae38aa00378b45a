"""Do latents detect parts better than channels do? Scored against annotated part masks.

Of every dictionary the best unit for a part is chosen on one half of the images and scored on the other, since the
maximum over many units is biased upward, and more so the more units there are. The controls of an SAE are the channels
of its layer and as many random directions, both as sparse as the SAE and as plain inner products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.common.statistics import Estimate
from circuits.dataset.part_labels import part_grid
from circuits.network.model import Model
from sae.architectures.base import SAE
from sae.checks import whole
from sae.data.site import Function, check_fits
from sae.data.vision_site import VisionSite
from sae.errors import SAEError, shorten
from sae.evaluation.baselines import RandomDictionary
from sae.evaluation.part_agreement import agreement, bootstrap_auc, bootstrap_iou, bootstrap_weights, iou_at
from sae.seeding import CONTROL, generator
from zoo.common.results import Result
from zoo.images.sources import open_images
from zoo.progress import Progress, reporter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Measure = Literal["auc", "iou"]
Kind = Literal["channels", "latents", "random", "linear"]
MEASURES: tuple[Measure, ...] = ("auc", "iou")
CHANNELS = "channels"
_LABELS: dict[Kind, str] = {
    "channels": "channels",
    "latents": "latents",
    "random": "random directions, as sparse",
    "linear": "random directions, linear",
}
_LEAST_POSITIONS = 5  # on a part, in each half


@dataclass(frozen=True, eq=False)
class ScoredDictionary:
    """Scores of all units of a dictionary for all parts.

    Attributes:
        name: of the dictionary; kind: "channels", "latents", "random" (as sparse as the SAE it is a control of) or
            "linear" (the same directions as inner products).
        of: for the controls, name of the SAE.
        units: their number; active: mean number above zero at a position.
        chosen_by, scores: measure -> `(units, parts)` on the half that chooses units and thresholds, and on the
            other half.
        bootstrap: measure -> `(draws, parts)` scores of the chosen units on bootstrap samples of the other half.
    """

    name: str
    kind: Kind
    of: str | None
    units: int
    active: float
    chosen_by: Mapping[Measure, Tensor]
    scores: Mapping[Measure, Tensor]
    bootstrap: Mapping[Measure, Tensor]

    def chosen(self, measure: Measure = "auc") -> Tensor:
        """The unit with the highest score on the first half, for each part, `(parts,)`."""
        return self.chosen_by[measure].argmax(dim=0)

    def best(self, measure: Measure = "auc") -> Tensor:
        """The score of that unit on the other half, for each part, `(parts,)`."""
        return self.scores[measure].gather(0, self.chosen(measure)[None])[0]

    def of_some(self, count: int, measure: Measure = "auc", *, draws: int = 100, seed: int = 0) -> Tensor:
        """As `best`, with the unit chosen among `count` random units: the mean over draws, `(parts,)`.

        It compares dictionaries of different sizes at equal size.

        Raises:
            SAEError: `count` exceeds the number of units.
        """
        whole("count", count)
        if count > self.units:
            raise SAEError(f"{self.name} has {self.units} units; {count} cannot be sampled")
        random = generator(seed, CONTROL, count)
        total = torch.zeros(self.scores[measure].shape[1], dtype=torch.float64)
        for _ in range(draws):
            subset = torch.randperm(self.units, generator=random)[:count]
            best = self.chosen_by[measure][subset].argmax(dim=0)
            total += self.scores[measure][subset[best], torch.arange(len(best))]
        return total / draws


@dataclass(frozen=True, eq=False)
class PartComparison(Result):
    """Result of `compare`.

    Attributes:
        address: of the layer; parts: those that are frequent enough in both halves; left_out: the others.
        dictionaries: the channels, every SAE and its controls.
        positions: parts -> positions on them in the half that scores.
        images: number in the half that chooses, and in the half that scores.
        provenance: digests, seed, versions.
    """

    address: str
    parts: tuple[str, ...]
    left_out: tuple[str, ...]
    dictionaries: tuple[ScoredDictionary, ...]
    positions: tuple[int, ...]
    images: tuple[int, int]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> ScoredDictionary:
        """A dictionary by name.

        Raises:
            SAEError: there is none.
        """
        for dictionary in self.dictionaries:
            if dictionary.name == name:
                return dictionary
        names = ", ".join(dictionary.name for dictionary in self.dictionaries)
        raise SAEError(f"no dictionary {shorten(name)!r} was judged; there are {names}")

    def of_kind(self, kind: Kind) -> tuple[ScoredDictionary, ...]:
        """Dictionaries of a kind."""
        return tuple(dictionary for dictionary in self.dictionaries if dictionary.kind == kind)

    def mean(self, name: str, measure: Measure = "auc") -> Estimate:
        """Mean over parts of the best unit's score, with its interval over images."""
        dictionary = self[name]
        return Estimate.of(dictionary.best(measure).mean(), dictionary.bootstrap[measure].nanmean(dim=1))

    def difference(self, name: str, other: str = CHANNELS, measure: Measure = "auc") -> Estimate:
        """Difference of two dictionaries' best scores on the same images, mean over parts, with its interval."""
        a, b = self[name], self[other]
        bootstrap = (a.bootstrap[measure] - b.bootstrap[measure]).nanmean(dim=1)
        return Estimate.of((a.best(measure) - b.best(measure)).mean(), bootstrap)

    def wins(self, name: str, other: str = CHANNELS, measure: Measure = "auc") -> int:
        """Number of parts for which the best unit of one dictionary scores above that of another."""
        return int((self[name].best(measure) > self[other].best(measure)).sum())

    def unit(self, name: str, index: int) -> str:
        """Address of a unit; that of a latent holds once the SAE is attached under the name used here."""
        return f"{self.address}:{index}" if name == CHANNELS else f"{self.address}~{name}:{index}"

    def units(self, name: str) -> list[dict[str, Any]]:
        """Every unit of a dictionary with its best part, chosen on one half and scored on the other."""
        dictionary = self[name]
        rows: list[dict[str, Any]] = [{"unit": self.unit(name, i)} for i in range(dictionary.units)]
        for measure in MEASURES:
            at = dictionary.chosen_by[measure].argmax(dim=1)
            for i, (row, k) in enumerate(zip(rows, at.tolist(), strict=True)):
                row[measure] = {"part": self.parts[k], "score": float(dictionary.scores[measure][i, k])}
        return rows

    def describe(self, *, units: bool = False) -> dict[str, Any]:
        """Ready for JSON; with `units` also every channel and latent with its best part."""
        channels = self[CHANNELS].units
        dictionaries = []
        for dictionary in self.dictionaries:
            by_measure: dict[str, Any] = {}
            count = min(channels, dictionary.units)
            for measure in MEASURES:
                best = dictionary.best(measure).tolist()
                chosen = [self.unit(dictionary.name, i) for i in dictionary.chosen(measure).tolist()]
                by_measure[measure] = {
                    "mean": self.mean(dictionary.name, measure).describe(),
                    "less_channels": self.difference(dictionary.name, measure=measure).describe(),
                    "better_than_channels_for": self.wins(dictionary.name, measure=measure),
                    "of_as_many_as_channels": float(dictionary.of_some(count, measure).mean()),
                    "parts": [
                        {"part": part, "unit": unit, "score": score}
                        for part, unit, score in zip(self.parts, chosen, best, strict=True)
                    ],
                }
            dictionaries.append(
                {name: getattr(dictionary, name) for name in ("name", "kind", "of", "units", "active")}
                | by_measure
                | ({"each": self.units(dictionary.name)} if units and dictionary.of is None else {})
            )
        return {
            "address": self.address,
            "parts": dict(zip(self.parts, self.positions, strict=True)),
            "left_out": list(self.left_out),
            "pictures": {"choosing": self.images[0], "scoring": self.images[1]},
            "dictionaries": dictionaries,
            "provenance": dict(self.provenance),
        }

    def figure(self, title: str = "") -> Figure:
        """Figure of the best unit of every dictionary for every part."""
        from circuits.plot.sae.latent_quality import part_dots

        series = {
            label: {str(m): [dictionary.best(m).tolist() for dictionary in self.of_kind(kind)] for m in MEASURES}
            for kind, label in _LABELS.items()
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
    """Score the latents of SAEs, the channels of their layer and random directions as detectors of annotated parts.

    Parts and units are compared on the grid of the layer: a position lies on a part when its receptive field is
    centered on it. AUC and IoU are those of `Agreement`; the threshold of the IoU is chosen together with the unit.

    Args:
        model: the model.
        layer: of the SAEs.
        saes: by name; several seeds of one architecture show the variation.
        images: held-out images with annotated parts, such as `scenes:600@7`; a random half of them chooses.
        draws: bootstrap samples of images, for intervals.
        seed: of the halves, the random directions and the bootstrap.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total) dictionaries.

    Raises:
        SAEError: no SAE, one of another layer or width, or no part that is frequent enough in both halves.
        CircuitsError: images without annotations, or a layer without positions.

    >>> compare(model, "mixed3a", {"topk": s}, "scenes:600@7").difference("topk").value  # doctest: +SKIP
    0.02
    """
    site = VisionSite(model, layer)
    names = _checked(site, saes)
    whole("draws", draws)
    source = open_images(images)
    grid = part_grid(model, layer, source)
    blocks = [block.acts.cpu() for block in site.blocks(source, batch_size=batch_size)]
    vectors = torch.cat(blocks).flatten(1, 2)  # (N, positions, d)
    inside, present = grid.inside.movedim(1, -1).flatten(1, 2), grid.present
    order = torch.randperm(len(source), generator=generator(seed, CONTROL))
    halves = order[: len(order) // 2].sort().values, order[len(order) // 2 :].sort().values
    parts = [k for k in range(len(grid.parts)) if all(_enough(inside[h][..., k], present[h][:, k]) for h in halves)]
    if not parts:
        raise SAEError(f"no part is frequent enough in both halves of {source.name}; use more images")
    inside, present = inside[..., parts], present[:, parts]
    mean = vectors[halves[0]].flatten(0, 1).mean(dim=0)
    weights = bootstrap_weights(draws, len(halves[1]), seed)
    scored: list[ScoredDictionary] = []

    def judge(name: str, kind: Kind, of: str | None, encode: Function) -> ScoredDictionary:
        return _scored(name, kind, of, encode, vectors, inside, present, halves, weights)

    with reporter(progress, "dictionaries") as report, torch.no_grad():
        total = 1 + 3 * len(names)
        scored.append(judge(CHANNELS, "channels", None, lambda x: x))
        report(1, total)
        for name in names:
            scored.append(judge(name, "latents", None, partial(_latents, saes[name])))
            report(len(scored), total)
            active = max(1, round(scored[-1].active))
            control = RandomDictionary(mean, saes[name].latents, active, seed=seed + len(scored))
            scored.append(judge(f"{name} random", "random", name, control.encode))
            report(len(scored), total)
            scored.append(judge(f"{name} linear", "linear", name, partial(_products, control)))
            report(len(scored), total)
    return PartComparison(
        address=site.address,
        parts=tuple(grid.parts[k] for k in parts),
        left_out=tuple(p for k, p in enumerate(grid.parts) if k not in parts),
        dictionaries=tuple(scored),
        positions=tuple(inside[halves[1]].flatten(0, 1).sum(dim=0).tolist()),
        images=(len(halves[0]), len(halves[1])),
        provenance=provenance(
            model=model.name, weights=model.digest, images=source.name, images_digest=source.digest,
            draws=draws, seed=seed,
        ),
    )  # fmt: skip


def _latents(sae: SAE, acts: Tensor) -> Tensor:
    return sae.encode(acts.to(sae.encoder.device)).cpu()


def _products(control: RandomDictionary, acts: Tensor) -> Tensor:
    return (acts - control.mean) @ control.write.T


def _scored(
    name: str, kind: Kind, of: str | None, encode: Function, vectors: Tensor, inside: Tensor, present: Tensor,
    halves: tuple[Tensor, Tensor], weights: Tensor,
) -> ScoredDictionary:  # fmt: skip
    """A dictionary scored on both halves."""
    agreements, acts = [], torch.empty(0)
    for half in halves:
        acts = encode(vectors[half].flatten(0, 1)).float()
        absent = (~present[half])[:, None].expand(-1, vectors.shape[1], -1).flatten(0, 1)
        agreements.append(agreement(acts, inside[half].flatten(0, 1), absent))
    first, second = agreements
    on = inside[halves[1]]  # (images, positions, parts)
    maps = acts.view(*on.shape[:2], -1)
    held_out_iou = iou_at(acts, first.threshold, on.flatten(0, 1))
    chosen_by: dict[Measure, Tensor] = {"auc": first.auc, "iou": first.iou}
    scores: dict[Measure, Tensor] = {"auc": second.auc, "iou": held_out_iou}
    bootstrap: dict[Measure, Tensor] = {
        m: torch.empty(len(weights), on.shape[2], dtype=torch.float64) for m in MEASURES
    }
    for k, unit in enumerate(first.auc.argmax(dim=0).tolist()):
        bootstrap["auc"][:, k] = bootstrap_auc(maps[..., unit], on[..., k], ~present[halves[1]][:, k], weights)
    for k, unit in enumerate(first.iou.argmax(dim=0).tolist()):
        bootstrap["iou"][:, k] = bootstrap_iou(maps[..., unit], float(first.threshold[unit, k]), on[..., k], weights)
    return ScoredDictionary(
        name, kind, of, maps.shape[-1], float((maps > 0).sum(-1).double().mean()), chosen_by, scores, bootstrap
    )


def _enough(on: Tensor, present: Tensor) -> bool:
    return int(on.sum()) >= _LEAST_POSITIONS and not bool(present.all())


def _checked(site: VisionSite, saes: Mapping[str, SAE]) -> Sequence[str]:
    if not saes:
        raise SAEError("name at least one SAE to compare, for example {'topk': sae.load(FOLDER)}")
    if CHANNELS in saes:
        raise SAEError(f"{CHANNELS!r} are the layer's own; call the SAE something else")
    for sae in saes.values():
        check_fits(sae, site)
    return list(saes)
