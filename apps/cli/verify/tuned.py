"""Tuning: of a bank of Gabors set by hand, and of the published curve detectors of the 5h InceptionV1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from apps.cli.verify.checks import Check, check, skipped
from apps.cli.verify.facts import facts

if TYPE_CHECKING:
    from circuits.network.model import Model

_SOURCE = "Curve Detectors, Distill 2020"
_CURVES = "preferred orientations of the ten curve detectors of mixed3b"
_ECHO = "their response at the opposite orientation"
_TURNS = 72


def library() -> Iterator[Check]:
    """What needs no weights."""
    yield gabors()


def gabors() -> Check:
    """Gabors set by hand prefer gratings of their own orientation."""
    import torch
    from torch import nn

    from circuits import InputSpec, stimuli, tune, wrap

    planted = [0.0, 20.0, 45.0, 70.0, 90.0, 115.0, 135.0, 160.0]
    rows, columns = torch.meshgrid(torch.arange(15) - 7, torch.arange(15) - 7, indexing="ij")
    x, y = columns.double(), -rows.double()
    kernels = []
    for degrees in planted:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        envelope = torch.exp(-(x**2 + y**2) / 32)
        wave = torch.cos(2 * math.pi * (c * y - s * x) / 6) * envelope
        kernels.append(wave - envelope * wave.sum() / envelope.sum())
    net = nn.Sequential(nn.Conv2d(1, len(planted), 15, bias=False), nn.ReLU()).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.stack(kernels)[:, None].float())  # type: ignore[operator]
    model = wrap(net, InputSpec(size=33, channels=1), name="gabors")
    layer = list(model.layers)[-1]
    tuning = tune(model, layer, stimuli=stimuli.gratings(36, (1 / 8, 1 / 6, 1 / 4), 4))
    ours = [float(row.direction or 0.0) for row in tuning.rows()]
    away = max(angular_difference(a, b, 180.0) for a, b in zip(ours, planted, strict=True))
    return check("tuning: orientations of Gabors set by hand", "within 5°", f"within {away:.1f}°", away < 5)


def published(model: Model) -> Iterator[Check]:
    """The ten curve detectors: where around the circle they point, and that they do not respond to the opposite."""
    from circuits import stimuli, tune

    curves = facts()["curve_tuning"]
    numbers = [str(i) for i in curves["order_3b"]]
    peaks = [float(curves["per_layer"]["mixed3b"][n]["peak_deg"]) for n in numbers]
    tuning = tune(model, [f"mixed3b:{n}" for n in numbers], stimuli=stimuli.curves(orientations=_TURNS))
    rows = tuning.rows()
    ours = [float(row.direction if row.direction is not None else math.nan) for row in rows]
    away = residual(ours, peaks)
    measured = f"within {away:.0f}°" if math.isfinite(away) else "some do not respond"
    yield check(_CURVES, "within 20°, but for one turn or reflection of all", measured, away < 20, _SOURCE)
    echo = max((float(row.echo if row.echo is not None else 1.0) for row in rows), default=1.0)
    yield check(_ECHO, "at most 0.05 of the peak (published 0.03)", f"at most {echo:.2f}", echo <= 0.05, _SOURCE)


def without_weights(missing: str) -> Iterator[Check]:
    """The published checks, skipped."""
    for what in (_CURVES, _ECHO):
        yield skipped(what, "published", missing, _SOURCE)


def angular_difference(a: float, b: float, period: float = 360.0) -> float:
    """Degrees between two directions."""
    return abs((a - b + period / 2) % period - period / 2)


def residual(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Largest difference between two lists of directions, after the turn or reflection that makes it smallest."""
    if not all(map(math.isfinite, ours)):
        return math.inf
    best = math.inf
    for sign in (1.0, -1.0):
        for turn in range(0, 360):
            best = min(best, max(angular_difference(sign * a + turn, b) for a, b in zip(ours, theirs, strict=True)))
    return best
