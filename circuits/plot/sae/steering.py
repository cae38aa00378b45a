"""The figure of a study of steering: effect and capability by factor, and side effects measured against predicted.

It takes what `sae.steering.study.study` returns, or anything with the same attributes: nothing of
`sae` is imported here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.errors import shorten
from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.wording import minus, short
from circuits.plot.superposition.charts import head, plain

_WIDE, _TOP, _LOW = 960, 330, 330
_LEFT, _GAP, _RIGHT = 64, 76, 24
_LABELED = 6
_EFFECTS = {
    "latents": ("Other latents of the layer", "from geometry: encoder · decoder", "latent"),
    "classes": ("Other classes", "to first order", "score"),
    "tokens": ("Other tokens", "to first order", "score"),
    "downstream": ("A later layer", "to first order", "unit"),
}
_MEASURES = {
    "probability": "probability of the target",
    "log_probability": "log-probability of the target, nats",
    "score": "score of the target",
    "top1": "top-1 accuracy",
    "loss": "loss, nats",
    "agreement": "same first choice as unsteered",
    "grammar": "grammatical sentences",
}


def steering_figure(study: Any, *, title: str = "", labels: dict[str, str] | None = None) -> Figure:
    """A study of steering: dose and response beside random latents, capability with the sweet spot, side effects.

    What else was measured of the texts written (`Study.beside`) has a panel each, in the same row.

    Gray is what steps of equal length along the write directions of random latents do (each a thin line, the band from
    the 5 % to the 95 % quantile; of a study with `step="own"` the same multiples of their own maxima), blue what these
    steps do along random directions and principal components, the dashed line the network unsteered, the green shade
    the sweet spot. Below, each dot is a unit: how much it changes against what was predicted; on the dotted line the
    prediction is exact, rings mark directions nearer than chance.

    Args:
        study: of `sae.steering.study.study`.
        title: by default the unit's address.
        labels: unit address -> a name, for side effects.
    """
    effects = {name: effect for name, effect in study.side_effects.items() if len(effect.units) > 1}
    height = 62 + _TOP + (_LOW if effects else 0)
    figure = canvas.figure_of_size(_WIDE / canvas.DPI, height / canvas.DPI)
    head(figure, title or short(study.unit), _about(study))
    beside = list(getattr(study, "beside", ()))
    count = 2 + len(beside)
    wide = (_WIDE - _LEFT - _GAP * (count - 1) - _RIGHT) / count
    row = [_axes(figure, _LEFT + i * (wide + _GAP), 104, wide, _TOP - 104) for i in range(count)]
    _dose(row[0], study)
    _capability(row[1], study)
    for axes, curve in zip(row[2:], beside, strict=True):
        _by_factor(axes, study, curve)
        axes.set_ylabel(_measure(curve), fontsize=9.5)
        _title(axes, "Besides")
    each = (_WIDE - _LEFT - _RIGHT - _GAP * (len(effects) - 1)) / max(2, len(effects))
    for i, (name, effect) in enumerate(effects.items()):
        axes = _axes(figure, _LEFT + i * (each + _GAP), 62 + _TOP + 66, each, _LOW - 122)
        _side(axes, name, effect, labels or {}, _kind(study))
    return figure


def _axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes at pixels from the top left."""
    w, h = (side * canvas.DPI for side in figure.get_size_inches())
    return figure.add_axes((x / w, 1 - (y + height) / h, width / w, height / h))


def _about(study: Any) -> str:
    how = {"set": "set to", "add": "raised by", "scale": "multiplied by"}[study.kind]
    unit = "the factor" if study.kind == "scale" else f"factor × its maximum of {study.maximum:.3g}"
    extent = "everywhere" if study.everywhere else "at some positions"
    target = ", ".join(study.targets[:4]) + ("" if len(study.targets) <= 4 else ", …")
    chosen = " (most increased; each random one has its own)" if study.chosen else ""
    return (
        f"{how} {unit} {extent}; target {target}{chosen}; {study.inputs.get('count')} inputs, "
        f"{len(study.control) + len(getattr(study, 'directions', ()))} controls"
    )


def _kind(study: Any) -> str:
    return "latents" if "~" in study.unit else "channels"


def _by_factor(axes: Axes, study: Any, curve: Any) -> None:
    factors = np.asarray(study.factors)
    random = np.atleast_2d(np.asarray(curve.random))
    low, high = np.quantile(random, [0.05, 0.95], axis=0)
    axes.fill_between(factors, low, high, color=palette.TILE, lw=0, zorder=1, label=f"random {_kind(study)}, 5 to 95 %")
    for row in random:
        axes.plot(factors, row, color=palette.REST, lw=0.6, alpha=0.6, zorder=2)
    for i, row in enumerate(getattr(curve, "directions", ())):
        label = "directions" if i == 0 else None
        axes.plot(factors, row, color=palette.INHIBITS, lw=0.6, alpha=0.6, zorder=2, label=label)
    axes.axhline(curve.clean, color=palette.INK, lw=0.9, ls=(0, (4, 3)), zorder=2, label="unsteered")
    axes.plot(factors, curve.values, color=palette.EXCITES, lw=2, marker="o", ms=4, zorder=4, label="this unit")
    axes.set_xlabel("factor", fontsize=9.5)
    axes.set_xticks(factors, _tick_labels(factors))
    plain(axes)


def _tick_labels(factors: Any) -> list[str]:
    """Names of factors, without those that would touch another; zero is always named, then the largest."""
    letter = 0.026 * (factors[-1] - factors[0])  # of its width, in the narrowest axes
    labels: dict[float, str] = {}
    for f in [f for f in (0.0, *sorted(factors, key=abs, reverse=True)) if f in factors]:
        name = minus(f"{f:g}")
        if all(abs(f - other) >= letter * ((len(name) + len(label)) / 2 + 0.8) for other, label in labels.items()):
            labels[f] = name
    return [labels.get(f, "") for f in factors]


def _dose(axes: Axes, study: Any) -> None:
    _by_factor(axes, study, study.effect)
    if study.first_order is not None:
        low, high = axes.get_ylim()
        axes.plot(study.factors, study.first_order, color=palette.INHIBITS, lw=1, zorder=3, label="first order")
        axes.set_ylim(low, high)  # the estimate does not set the range
    axes.set_ylabel(_measure(study.effect), fontsize=9.5)
    _title(axes, "Effect on target")
    _legend(axes, 1.13)


def _capability(axes: Axes, study: Any) -> None:
    _by_factor(axes, study, study.capability)
    if study.sweet_spot is not None:
        low, high = study.sweet_spot
        half = 0.012 * (study.factors[-1] - study.factors[0])  # one factor alone is to be seen, too
        axes.axvspan(low - half, high + half, color="#3B8F5A", alpha=0.16, lw=0, zorder=0, label="sweet spot")
    axes.set_ylabel(_measure(study.capability), fontsize=9.5)
    spot = "nowhere" if study.sweet_spot is None else "from {:g} to {:g}".format(*study.sweet_spot)
    within = f"Within {100 * study.tolerance:g} % of unsteered {minus(spot)}"
    _title(axes, within if getattr(study, "beside", ()) else f"Capability: w{within[1:]}")
    if study.sweet_spot is not None:
        handles, names = axes.get_legend_handles_labels()
        axes.legend(handles[-1:], names[-1:], loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)


def _measure(curve: Any) -> str:
    return shorten(_MEASURES.get(curve.what, curve.what), 40)


def _title(axes: Axes, text: str, up: float = 24) -> None:
    axes.annotate(
        canvas.printable(text), (0, 1), (0, up), xycoords="axes fraction", textcoords="offset points", fontsize=9.5,
        fontweight="bold", color=palette.INK, annotation_clip=False,
    )  # fmt: skip


def _legend(axes: Axes, y: float) -> None:
    axes.legend(
        loc="upper left", bbox_to_anchor=(-0.02, y), ncols=4, fontsize=8, frameon=False, handlelength=1.4,
        columnspacing=0.8, borderpad=0,
    )  # fmt: skip


def _side(axes: Axes, name: str, effect: Any, labels: dict[str, str], kind: str) -> None:
    title, how, unit = _EFFECTS.get(effect.on, (name, "", "unit"))
    predicted, measured = np.asarray(effect.predicted), np.asarray(effect.measured)
    near = np.asarray(effect.near, dtype=bool)
    axes.axhline(0, color=palette.LINE, lw=0.8, zorder=0)
    axes.axvline(0, color=palette.LINE, lw=0.8, zorder=0)
    low = min(float(predicted.min()), float(measured.min()), 0.0)
    high = max(float(predicted.max()), float(measured.max()), 0.0)
    axes.plot([low, high], [low, high], color=palette.MUTED, lw=0.8, ls=(0, (1, 2)), zorder=1)
    axes.scatter(predicted, measured, s=14, color=palette.INHIBITS, alpha=0.7, lw=0, zorder=3)
    axes.scatter(predicted[near], measured[near], s=40, facecolor="none", edgecolor=palette.EXCITES, lw=1, zorder=4)
    _pad(axes.set_xlim, predicted)
    _pad(axes.set_ylim, measured)
    _name(axes, effect, labels, predicted, measured)
    axes.set_xlabel(f"predicted change, {how}", fontsize=9)
    axes.set_ylabel(f"measured change per {unit}", fontsize=9)
    axes.locator_params(nbins=5)
    plain(axes, grid=False)
    control = np.asarray(effect.control, dtype=np.float64)
    control = control[np.isfinite(control)]
    text = f"rank correlation {effect.correlation:.2f}"
    if len(control):
        text += f"\nrandom {kind} predict it with {control.min():.2f} to {control.max():.2f}"
    _title(axes, f"{title}, factor {minus(f'{effect.factor:g}')}", 32)
    axes.annotate(
        minus(text), (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", fontsize=8,
        color=palette.MUTED, annotation_clip=False,
    )  # fmt: skip


def _pad(limit: Any, values: Any) -> None:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    room = 0.09 * (high - low or 1.0)
    limit(low - room, high + room)


def _name(axes: Axes, effect: Any, labels: dict[str, str], predicted: Any, measured: Any) -> None:
    """Names of the largest changes, those that would cover another left out."""
    size = axes.get_window_extent()
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    placed: list[tuple[float, float]] = []
    for i in effect.strongest(_LABELED):
        x = (predicted[i] - left) / (right - left) * size.width
        y = (measured[i] - low) / (high - low) * size.height
        if any(abs(x - a) < 90 and abs(y - b) < 13 for a, b in placed):
            continue
        placed.append((x, y))
        before = x > size.width * 0.6
        axes.annotate(
            canvas.printable(labels.get(effect.units[i], _tail(effect.units[i])), 22), (predicted[i], measured[i]),
            (-6 if before else 6, 0), textcoords="offset points", fontsize=8, color=palette.INK,
            ha="right" if before else "left", va="center", parse_math=False, zorder=5,
        )  # fmt: skip


def _tail(unit: str) -> str:
    """A unit's number with what comes before it left out, a class's name as it is."""
    return f":{unit.rpartition(':')[2]}" if "/" in unit and ":" in unit else unit
