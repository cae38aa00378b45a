"""The slower sections of a dossier, drawn."""

from __future__ import annotations

from circuits.plot.drawing import canvas
from circuits.plot.drawing.svg import escape
from circuits.plot.drawing.wording import number, short
from circuits.plot.units.dossier import Sheet, drawn
from circuits.plot.units.polysemanticity import polysemantic_unit
from circuits.plot.units.tuning import tuning_curves, tuning_map
from circuits.plot.units.weight_factors import factor_figure
from circuits.plot.visualization.card import looks, sizes
from circuits.tuning import Tuning
from circuits.units.dossier.slow_sections import Looks, Tunings
from circuits.units.polysemanticity import Polysemanticity
from circuits.units.weight_factors import Factors


@drawn("visualization")
def _visualization(found: Looks, sheet: Sheet) -> str:
    size = sizes(4)
    figures = []
    for result, what in [*((v, "answers to") for v in found.positive), (found.negative, "is kept down by")]:
        response = "" if result.status != "ok" else f", response {number(result.response)}"
        figures.append(f'<figure class="vis">{looks(result, size)}<figcaption>{what}{response}</figcaption></figure>')
    note = (
        "Made by optimization, pushed apart from each other. Such pictures can mislead: hold them against the "
        "photographs above."
    )
    return f'<p class="note">{note}</p><div class="made">{"".join(figures)}</div>'


@drawn("tuning")
def _tuning(found: Tunings, sheet: Sheet) -> str:
    rows = []
    for name, tuning in found.by.items():
        row = tuning.rows()[0]
        if row.peak <= 0:
            rows.append(f"<tr><td>{escape(name)}</td><td colspan=6>no response</td></tr>")
            continue
        said = row.describe()
        at = ", ".join(f"{axis} {v:g}" if isinstance(v, float) else f"{axis} {v}" for axis, v in said["at"].items())
        width = "" if row.width is None else f"{row.width:.0f}\u00b0"
        echo = "" if row.echo is None else f"{row.echo:.2f}"
        rows.append(
            f'<tr><td>{escape(name)}</td><td class="value">{number(row.peak)}</td><td class="after">{escape(at)}</td>'
            f'<td class="value">{width}</td><td class="value">{echo}</td></tr>'
        )
    head = (
        '<tr><th>stimuli</th><th class="value">peak</th><th class="after">at</th><th class="value">half width</th>'
        '<th class="value">echo</th></tr>'
    )
    best = next(iter(found.by.values()))
    figures = "" if best.rows()[0].peak <= 0 else _figures(best)
    return f'<div class="wrapped"><table>{head}{"".join(rows)}</table></div>{figures}'


def _figures(tuning: Tuning) -> str:
    name = short(tuning.units[0])
    parts = [canvas.embedded(tuning_curves(tuning), f"Tuning of {name} to orientation")]
    if sum(len(axis) > 1 and not axis.average for axis in tuning.axes) > 1:
        parts.append(canvas.embedded(tuning_map(tuning, tuning.units[0]), f"Tuning of {name} along two axes"))
    return f'<div class="made">{"".join(parts)}</div>'


@drawn("polysemanticity")
def _polysemanticity(found: Polysemanticity, sheet: Sheet) -> str:
    figure = canvas.embedded(polysemantic_unit(found, sheet.images, sheet.spec), "Its examples, by what made it fire")
    if not found.split:
        note = "Its examples do not fall into groups by the units that made it fire, beyond what chance makes of them."
    else:
        note = (
            f"Its examples fall into {len(found.clusters)} groups by the units that made it fire (score "
            f"{found.score:.2f}; 0 one thing, 1 things that share nothing)."
        )
    return f'<p class="note">{note}</p>{figure}'


@drawn("factors")
def _factors(found: Factors, sheet: Sheet) -> str:
    control = max(found.shuffled, default=0.0)
    note = (
        f"Non-negative groups of the channels it reads, and where each excites and inhibits it. They tell "
        f"{100 * found.explained:.0f} % of its squared weights; {100 * control:.0f} % where channels are shuffled."
    )
    crops = {unit: [sheet.thumbs[unit]] for unit in sheet.thumbs}
    return f'<p class="note">{note}</p>' + canvas.embedded(factor_figure(found, crops), "Factors of the weights")
