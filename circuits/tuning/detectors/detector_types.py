"""What makes a curve detector, a line detector, a high-low frequency detector, a color contrast detector.

Each kind has stimuli of its own with controls, and scores a unit by a few tests, each a number from 0 to 1. What the
tests have in common: a detector responds to one orientation and not to the opposite one, and to none of the simpler
parts of its stimulus.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuits import stimuli
from circuits.stimuli import Axis, Stimuli
from circuits.stimuli.textures import FREQUENCIES, PAIRS
from circuits.tuning.circular_statistics import vector_mean
from circuits.tuning.curves import Tuning, echo_of, opposites
from zoo.common.registries import Registry

NEAR = 15.0
"""Degrees within which a control counts as having the same orientation."""
_CURVED = (1 / 16, 1 / 10, 1 / 6, 1 / 4, 3 / 8, 1 / 2, 3 / 4)  # radii, in receptive fields
_RATIOS = (1.0, 2.0, 4.0, 8.0)
_FINE = 4.0  # pixels


@dataclass(frozen=True)
class Extent:
    """The size of stimuli.

    Attributes:
        field: pixels of the layer's receptive field, or of the model's input where that is smaller or unknown.
        orientations: over the whole circle.
        seed: of textures.
    """

    field: float
    orientations: int
    seed: int

    @property
    def width(self) -> float:
        """Of lines, in pixels."""
        return 3.0 if self.field >= 32 else 2.0


@dataclass(frozen=True, eq=False)
class Judgment:
    """The tests of all units of a layer.

    Attributes:
        tests: name of a test -> `(units,)` in [0, 1].
        peak: `(units,)` strongest response to a stimulus of the kind.
        rivals: `(units,)` strongest response to any other stimulus.
        direction: `(units,)` degrees, NaN where there is no response.
        preferred: name -> the preferred value of each unit.
        around: `(units, orientations)` responses at the preferred values; axis: of these orientations.
    """

    tests: Mapping[str, Tensor]
    peak: Tensor
    rivals: Tensor
    direction: Tensor
    preferred: Mapping[str, list[Any]]
    around: Tensor
    axis: Axis


@dataclass(frozen=True)
class Kind:
    """A kind of detector.

    Attributes:
        name: of the kind.
        period: of its orientation, 360 or 180 degrees.
        stimuli: name -> stimuli.
        judge: from the tunings, under the same names, to the tests.
        means: test -> its definition, in words.
    """

    name: str
    period: float
    stimuli: Callable[[Extent], dict[str, Stimuli]]
    judge: Callable[[Mapping[str, Tuning]], Judgment]
    means: Mapping[str, str]


def kind_of(name: str) -> Kind:
    """The kind called `name`.

    Raises:
        CircuitsError: there is none.
    """
    return KINDS[name.replace("_", "-").lower() if isinstance(name, str) else name]


# -- the tests ------------------------------------------------------------------------------------------------


def _share(part: Tensor, peak: Tensor) -> Tensor:
    """`1 - part / peak` within [0, 1]; 0 for a unit without a response."""
    missing = 1 - part / peak.clamp_min(1e-30)
    return torch.where(peak > 0, missing.clamp(0, 1), torch.zeros_like(peak))


Best = tuple[Tensor, Tensor, Tensor, Tensor]


def _at_best(table: Tensor) -> Best:
    """Of responses `(units, orientations, others)`: peak, its orientation and other, and the row around it."""
    flat = table.flatten(1)
    peak, at = flat.max(dim=1)
    turn, other = at // table.shape[2], at % table.shape[2]
    return peak, turn, other, table[torch.arange(len(table)), :, other]


def _near(responses: Tensor, turn: Tensor, count: int) -> Tensor:
    """The strongest of responses `(units, orientations)` within `NEAR` degrees of each unit's own."""
    steps = max(1, int(NEAR * count / 360 + 1e-9))
    rows = torch.arange(len(responses))
    return torch.stack([responses[rows, (turn + d) % count] for d in range(-steps, steps + 1)]).amax(dim=0)


def _one_sided(tuning: Tuning, around: Tensor, peak: Tensor) -> Tensor:
    opposite = opposites(tuning.axis("orientation"))
    assert opposite is not None  # searches use an even number of orientations
    return _share(echo_of(around, opposite).nan_to_num(1.0) * peak, peak)


def _steady(around: Tensor, turn: Tensor, peak: Tensor) -> Tensor:
    """Mean response at the orientations next to the best one, over the peak."""
    rows, count = torch.arange(len(around)), around.shape[1]
    beside = (around[rows, (turn + 1) % count] + around[rows, (turn - 1) % count]) / 2
    return torch.where(peak > 0, (beside / peak.clamp_min(1e-30)).clamp(0, 1), torch.zeros_like(peak))


def _judged(
    tests: dict[str, Tensor], tuning: Tuning, best: Best, rivals: Tensor, preferred: dict[str, list[Any]],
    period: float = 360.0,
) -> Judgment:  # fmt: skip
    """A judgment by `tests`, and by those that all kinds have."""
    peak, turn, _, around = best
    axis = tuning.axis("orientation")
    direction, agreement = vector_mean(around, axis.values, period)
    tests |= {"oriented": agreement.float(), "steady": _steady(around, turn, peak)}
    return Judgment(tests, peak, rivals, direction, preferred, around, axis)


def _curve_stimuli(extent: Extent) -> dict[str, Stimuli]:
    radii = sorted({max(2.0, round(extent.field * share, 1)) for share in _CURVED})
    return {
        "outlines": stimuli.curves(extent.orientations, (*radii, math.inf), width=extent.width),
        "discs": stimuli.curves(extent.orientations, (*radii, math.inf), variant="filled"),
        "gratings": _gratings(extent),
    }


def _gratings(extent: Extent) -> Stimuli:
    return stimuli.gratings(max(6, extent.orientations // 2), [f for f in FREQUENCIES if f * extent.field >= 0.5], 2)


def _curve(tunings: Mapping[str, Tuning]) -> Judgment:
    tuning, discs = tunings["outlines"], tunings["discs"]
    # a curve may be light or dark, a line or the edge of a disc: a unit that distinguishes them has a lower peak
    table = (
        tuning.over("orientation", "radius", reduce="mean") + discs.over("orientation", "radius", reduce="mean")
    ) / 2
    curved, straight = table[:, :, :-1], table[:, :, -1]
    peak, turn, radius, around = best = _at_best(curved)
    count = curved.shape[1]
    tests = {
        "one-sided": _one_sided(tuning, around, peak),
        "bent": _share(_near(straight, turn, count), peak),
        "sized": _share(_near(curved[:, :, 0], turn, count), peak),
    }
    rivals = torch.stack([t.peaks for t in tunings.values()]).amax(dim=0)
    return _judged(tests, tuning, best, rivals, {"radius": [tuning.axis("radius").values[int(r)] for r in radius]})


def _line_stimuli(extent: Extent) -> dict[str, Stimuli]:
    half = extent.orientations // 2
    bend = max(2.0, extent.field / 6)
    return {
        "lines": stimuli.lines(half, (extent.width / 2, extent.width, 2 * extent.width)),
        "curves": stimuli.curves(extent.orientations, (bend,), width=extent.width),
        "gratings": _gratings(extent),
    }


def _line(tunings: Mapping[str, Tuning]) -> Judgment:
    tuning = tunings["lines"]
    table = tuning.over("orientation", "width")
    peak, turn, width, around = best = _at_best(table)
    count = table.shape[1]
    rows = torch.arange(len(table))
    bent = tunings["curves"].over("orientation")
    # a curve of orientation t touches the line of orientation t + 90, from either side
    touching = (turn + count // 2) % (2 * count)
    both = torch.maximum(bent[rows, touching], bent[rows, (touching + count) % (2 * count)])
    tests = {"one way": _share(around[rows, (turn + count // 2) % count], peak), "straight": _share(both, peak)}
    widths = [tuning.axis("width").values[int(w)] for w in width]
    return _judged(tests, tuning, best, tunings["gratings"].peaks, {"width": widths}, 180.0)


def _high_low_stimuli(extent: Extent) -> dict[str, Stimuli]:
    sets = {
        "high-low": stimuli.high_low(extent.orientations, _RATIOS, wavelength=_FINE, seed=extent.seed),
        "edges": stimuli.edges(extent.orientations, polarity=("light", "dark")),
    }
    for ratio in _RATIOS[1:]:
        # rotated, a texture without a boundary is another sample of the same texture
        sets[f"coarse {ratio:g}"] = stimuli.high_low(4, (1.0,), wavelength=_FINE * ratio, seed=extent.seed)
    return sets


def _high_low(tunings: Mapping[str, Tuning]) -> Judgment:
    tuning = tunings["high-low"]
    table = tuning.over("orientation", "ratio")
    peak, _, ratio, around = best = _at_best(table[:, :, 1:])
    fine = table[:, :, 0].mean(dim=1)
    coarse = torch.stack([tunings[f"coarse {r:g}"].over(reduce="mean") for r in _RATIOS[1:]], dim=1)
    alone = torch.maximum(fine, coarse[torch.arange(len(coarse)), ratio])
    tests = {"one-sided": _one_sided(tuning, around, peak), "needs both": _share(alone, peak)}
    return _judged(tests, tuning, best, tunings["edges"].peaks, {"ratio": [_RATIOS[1 + int(r)] for r in ratio]})


def _color_stimuli(extent: Extent) -> dict[str, Stimuli]:
    plain = [f"{name}-{name}" for name in stimuli.HUES]
    return {
        "contrast": stimuli.color_contrast(extent.orientations, PAIRS),
        "plain": stimuli.color_contrast(1, plain),
    }


def _color(tunings: Mapping[str, Tuning]) -> Judgment:
    tuning = tunings["contrast"]
    names = list(tuning.axis("pair").values)
    gray = names.index("light-dark")
    table = tuning.over("orientation", "pair")
    colored = [i for i in range(len(names)) if i != gray]
    peak, _, pair, around = best = _at_best(table[:, :, colored])
    plain = tunings["plain"].over("pair")
    pairs = list(tunings["plain"].axis("pair").values)
    sides = [[pairs.index(f"{hue}-{hue}") for hue in names[c].split("-")] for c in colored]
    alone = plain[torch.arange(len(plain))[:, None], torch.tensor(sides)[pair]].amax(dim=1)
    without_color = table[:, :, gray].amax(dim=1)
    tests = {
        "one-sided": _one_sided(tuning, around, peak),
        "color": _share(without_color, peak),
        "needs both": _share(alone, peak),
    }
    rivals = torch.maximum(without_color, plain.amax(dim=1))
    return _judged(tests, tuning, best, rivals, {"pair": [names[colored[int(p)]] for p in pair]})


_COMMON = {
    "strong": "peak over the response to natural images (without images: over the strongest response to any stimulus)",
    "oriented": "length of the mean vector around the circle of orientations",
    "steady": "response at the orientations next to the best one over the peak",
}
_ONE_SIDED = {"one-sided": "1 - response to the opposite orientation over the peak"}
KINDS: Registry[Kind] = Registry("kind of detector", group="vision_circuits.detectors")
"""Name -> kind; packages add theirs through entry points of `vision_circuits.detectors`."""

for _kind in (
    Kind(
        "curve",
        360.0,
        _curve_stimuli,
        _curve,
        {
            **_COMMON,
            **_ONE_SIDED,
            "bent": "1 - response to the straight line that the curve touches over the peak",
            "sized": "1 - response to the tightest curve over the peak",
        },
    ),
    Kind(
        "line",
        180.0,
        _line_stimuli,
        _line,
        {
            **_COMMON,
            "one way": "1 - response to the line at right angles over the peak",
            "straight": "1 - response to tight curves that touch the line over the peak",
        },
    ),
    Kind(
        "high-low",
        360.0,
        _high_low_stimuli,
        _high_low,
        {**_COMMON, **_ONE_SIDED, "needs both": "1 - response to either texture alone over the peak"},
    ),
    Kind(
        "color-contrast",
        360.0,
        _color_stimuli,
        _color,
        {
            **_COMMON,
            **_ONE_SIDED,
            "color": "1 - response to light beside dark over the peak",
            "needs both": "1 - response to either color alone over the peak",
        },
    ),
):
    KINDS.add(_kind.name, _kind)
