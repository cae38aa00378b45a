"""Charts of the pages, drawn by Plotly: functions of results."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from numpy.typing import NDArray

from apps.explorer.resources.steering_runs import Comparison, DoseResponse
from apps.explorer.server.byte_cache import cached
from apps.explorer.session.state import Location
from circuits.dataset.scan_results import UnitScan
from circuits.plot.drawing import palette
from circuits.plot.drawing.svg import spread
from circuits.plot.drawing.wording import minus
from sae.language import TextFeature

LOWEST_DENSITY = 1e-6
"""Densities below are zero: trainings measure them on fewer inputs."""
CLASSES = 8
_BARS = 84


def show(figure: Any, key: str, alt: str) -> None:
    """Put a chart on the page; `alt` describes it for screen readers."""
    st.plotly_chart(figure, key=key, config={"displayModeBar": False}, alt=alt)


def _signed(values: Sequence[float]) -> list[str]:
    return [palette.EXCITES if v > 0 else palette.INHIBITS for v in values]


def _bars(x: Any, y: Any, color: Any, **options: Any) -> Any:
    return go.Bar(x=x, y=y, marker={"color": color, "line": {"width": 0}}, **options)


def _figure(traces: Any, height: int, x: dict[str, Any], y: dict[str, Any], **layout: Any) -> Any:
    margin = {"l": 4, "r": 8, "t": 6, "b": 4}
    return go.Figure(traces, {"height": height, "margin": margin, "showlegend": False, "xaxis": x, "yaxis": y} | layout)


def histogram(at: Location, scanned: UnitScan) -> Any:
    """Activation histogram of the unit of a view: number of positions on a logarithmic scale."""
    return _histogram(at.scanned.manifest["digest"], str(at.unit.channel), scanned)


@cached
def _histogram(digest: str, unit: str, _scanned: UnitScan) -> Any:
    scanned = _scanned
    counts, low, high = spread(scanned.edges, scanned.counts, _BARS)
    step = (high - low) / _BARS
    middles = [low + (i + 0.5) * step for i in range(_BARS)]
    # rebinning leaves fractions of a position in empty bins
    heights = [float(n) if n >= 0.5 else None for n in counts]
    hover = "%{x:.3g}: about %{y:,.0f} positions<extra></extra>"
    x = {"title": "activation" + (", before the ReLU" if scanned.signed else ""), "zeroline": True}
    y = {"type": "log", "title": "positions", "dtick": 1, "exponentformat": "power"}
    bars = _bars(middles, heights, _signed(middles), width=step, opacity=0.75, hovertemplate=hover)
    return _figure(bars, 190, x, y, bargap=0.08)


def density_histogram(densities: NDArray[np.float64]) -> Any:
    """Histogram of the activation densities of latents, in powers of ten."""
    lowest = round(np.log10(LOWEST_DENSITY))
    powers = np.log10(np.maximum(densities, 1e-12))
    counts, edges = np.histogram(powers[powers > lowest], bins=np.linspace(lowest, 0.0, 49))
    ranges = [f"{10**low:.2g} to {10**high:.2g} of inputs" for low, high in zip(edges, edges[1:], strict=False)]
    ticks = list(range(lowest, 1))
    names = ["1" if p == 0 else f"10<sup>{p}</sup>".replace("-", "\N{MINUS SIGN}") for p in ticks]
    x = {"title": "activation density", "range": [lowest, 0], "tickvals": ticks, "ticktext": names}
    hover = "%{customdata}: %{y} latents<extra></extra>"
    width = edges[1] - edges[0]
    options = {"width": width, "customdata": ranges, "opacity": 0.75, "hovertemplate": hover}
    bars = _bars((edges[1:] + edges[:-1]) / 2, counts, palette.EXCITES, **options)
    return _figure(bars, 230, x, {"title": "latents"}, bargap=0.08)


def logit_chart(feature: TextFeature) -> Any:
    """Tokens whose logits a latent raises and lowers most."""
    rows = [*feature.promoted[:7], *reversed(feature.suppressed[:5])][::-1]
    values = [v for _, v in rows]
    tokens = [html.escape(token.strip() or repr(token)) for token, _ in rows]
    heights = list(range(len(rows)))
    reach = 1.25 * max(map(abs, values), default=1.0)
    x = {"range": [-reach if min(values, default=0) < 0 else 0, reach], "visible": False}
    y = {"tickvals": heights, "ticktext": tokens, "ticksuffix": "  "}
    texts = {"text": [minus(f"{v:+.2g}") for v in values], "textposition": "outside", "cliponaxis": False}
    hover = "%{x:.3g}<extra></extra>"
    bars = _bars(values, heights, _signed(values), orientation="h", opacity=0.85, hovertemplate=hover, **texts)
    return _figure(bars, 40 + 22 * len(rows), x, y, bargap=0.25)


def probabilities(comparison: Comparison) -> Any:
    """Probability of classes, before (gray) and after (orange where it rises, blue where it falls)."""
    order = comparison.most(CLASSES)
    names = [comparison.classes[i].split(",")[0] for i in order]
    return class_bars(names, comparison.before[order], comparison.after[order])


def class_bars(
    names: Sequence[str], before: NDArray[np.float64], after: NDArray[np.float64], *, title: str = "probability, %"
) -> Any:
    """Shares of some classes, the first on top, before (gray) and after (orange where they rise, else blue)."""
    names = names[::-1]
    rises = _signed(np.where(after >= before, 1.0, -1.0)[::-1].tolist())
    traces = []
    for name, values, color in (("after", after, rises), ("before", before, palette.REST)):
        shares = 100 * values[::-1]
        texts = {"text": [f"{v:.1f}" for v in shares], "textposition": "outside", "cliponaxis": False}
        hover = "%{y}, " + name + ": %{x:.2f} %<extra></extra>"
        traces.append(_bars(shares, names, color, name=name, orientation="h", hovertemplate=hover, **texts))
    x = {"title": title, "range": [0, 104]}
    layout = {"barmode": "group", "bargap": 0.28, "bargroupgap": 0.06, "margin": {"l": 4, "r": 34, "t": 6, "b": 4}}
    return _figure(traces, 60 + 40 * len(names), x, {"ticksuffix": "  "}, **layout)


def dose_chart(doses: DoseResponse, target: int, name: str) -> Any:
    """Probability of a class over the dose: of the edits, and of steps as long along random units as a band."""
    x, random, skip = list(doses.doses), 100 * doses.random[:, :, target], {"hoverinfo": "skip"}
    outline = [*random.max(axis=0), *random.min(axis=0)[::-1]]
    band = {"fill": "toself", "fillcolor": "rgba(143,138,130,0.22)", "mode": "none", **skip}
    gray = {"mode": "lines", "line": {"color": palette.REST, "width": 0.8}, "opacity": 0.7, "showlegend": False, **skip}
    own = {"mode": "lines+markers", "line": {"color": palette.EXCITES, "width": 2.4}, "marker": {"size": 6}}
    hover = "dose %{x:.1f}: %{y:.1f} %<extra></extra>"
    traces = [
        go.Scatter(x=x + x[::-1], y=outline, name=f"{len(random)} random units", **band),
        *(go.Scatter(x=x, y=row, **gray) for row in random),
        go.Scatter(x=x, y=100 * doses.values[:, target], name="these edits", hovertemplate=hover, **own),
    ]
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    y = {"title": f"probability of {name}, %", "rangemode": "tozero"}
    axis = {"title": "dose (0: no edit, 1: as set)", "dtick": 0.5}
    figure = _figure(traces, 300, axis, y, showlegend=True, legend=legend)
    figure.add_vline(x=1, line={"color": palette.REST, "width": 1, "dash": "dot"})
    return figure
