"""Charts for the screen: functions of results, as Plotly draws them."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from circuits.dataset.scan_results import UnitScan
from circuits.plot.drawing import palette
from circuits.plot.drawing.svg import spread

_BARS = 84


def histogram(scanned: UnitScan) -> Any:
    """Activation histogram of a unit: number of positions on a logarithmic scale."""
    counts, low, high = spread(scanned.edges, scanned.counts, _BARS)
    step = (high - low) / _BARS
    middles = [low + (i + 0.5) * step for i in range(_BARS)]
    # rebinning leaves fractions of a position in empty bins
    heights = [float(n) if n >= 0.5 else None for n in counts]
    figure = go.Figure(
        go.Bar(
            x=middles,
            y=heights,
            width=step,
            marker={"color": [palette.EXCITES if m > 0 else palette.INHIBITS for m in middles], "line": {"width": 0}},
            opacity=0.75,
            hovertemplate="%{x:.3g}: about %{y:,.0f} positions<extra></extra>",
        )
    )
    figure.update_layout(
        height=190,
        margin={"l": 4, "r": 4, "t": 6, "b": 4},
        bargap=0.08,
        xaxis={"title": "activation" + (", before the ReLU" if scanned.signed else ""), "zeroline": True},
        yaxis={"type": "log", "title": "positions", "dtick": 1, "exponentformat": "power"},
        showlegend=False,
    )
    return figure
