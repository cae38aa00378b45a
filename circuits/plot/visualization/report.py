"""What units look for, many at once: a report page and a contact sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from circuits.common.provenance import provenance
from circuits.plot.drawing import canvas, crops, html_page, palette
from circuits.plot.drawing.svg import escape
from circuits.plot.drawing.wording import short
from circuits.plot.visualization.card import PATH, sizes, tile, why_none
from circuits.visualization.result import Visualization

TILE, GAP = 104, 12
_LABEL = 34


def visualization_report(
    results: Iterable[Visualization],
    *,
    model: str,
    command: str,
    python: str,
    photographs: crops.Pictures | None = None,
) -> str:
    """Visualizations as one self-contained HTML page, light and dark.

    A tile for each: the picture, its response, and where there is evidence (`circuits.visualization.examine`) how it
    stands among photographs, those its unit answers to most, and the check of the path. A dead unit gets a mark, never
    a picture. Nothing in it is fetched.

    Args:
        results: of `circuits.visualize` or a sweep.
        model: name of the model.
        command: the shell command that makes this report again.
        python: the Python that does.
        photographs: unit address -> crops, as `exemplars` cuts them.
    """
    shown = list(results)
    found = photographs or {}
    wide = any(crops.of(found, r.unit) for r in shown)
    size = sizes(len(shown))
    kind = f'class="tiles{" single" * (len(shown) == 1)}" style="{_widths(len(shown), wide)}"'
    tiles = "".join(tile(r, crops.of(found, r.unit), size) for r in shown)
    name = what(shown, model)
    body = "".join(
        [
            _header(shown, model, name, wide),
            f"<h2>Pictures</h2>{_key(shown)}",
            f"<section {kind}>{tiles}</section>",
            html_page.again(command, python),
            html_page.origins(_origin(shown, model)),
        ]
    )
    title = f"What {name} in {model} look{'s' * (len(shown) == 1)} for"
    return html_page.page(title, body, html_page.style("visualizations.css"))


def what(results: Sequence[Visualization], model: str) -> str:
    """What was visualized, in a few words: a unit, units of a layer, units."""
    units = list(dict.fromkeys(r.unit.removeprefix(f"{model}/") for r in results))
    if len(units) == 1:
        return units[0]
    layers = list(dict.fromkeys(unit.partition(":")[0] for unit in units))
    counted = f"{len(units)} units"
    if not units or len(layers) > 3:
        return counted
    return f"{counted} of {' and '.join(filter(None, [', '.join(layers[:-1]), layers[-1]]))}"


def _widths(count: int, wide: bool) -> str:
    """How wide tiles are at least; a single one is as wide as it helps."""
    least = (330 if count > 3 else 420) if wide else (168 if count > 12 else 230)
    return f"--tile-width:{least}px;--tile-widest:{760 if wide else 460}px"


def _header(results: Sequence[Visualization], model: str, name: str, wide: bool) -> str:
    dead = [r for r in results if r.status == "dead"]
    broken = [r for r in results if r.status not in ("ok", "dead")]
    evidence = next((r.evidence for r in results if r.evidence is not None), None)
    several = len(results) != 1
    lead = f"What {'they look' if several else 'it looks'} for: {'pictures' if several else 'a picture'} made by "
    lead += "optimization, from noise, so that "
    lead += f"{'each unit answers' if several else 'the unit answers'} strongly. "
    if wide:
        lead += f"Beside {'each' if several else 'it'} the photographs that the unit answers to most: a picture shows "
        lead += "what drives a unit, photographs what it meets. "
    if dead:
        lead += f"{len(dead)} of {len(results)} answered to no picture that was tried. "
    if broken:
        lead += f"{len(broken)} gave no number. "
    steps = _span(r.steps for r in results)
    seen = "" if evidence is None else f"{evidence.images} ({evidence.count} photographs)"
    facts = [
        ("model", model),
        ("pictures", len(results)),
        ("size", " and ".join(dict.fromkeys(f"{r.image.shape[2]}×{r.image.shape[1]}" for r in results))),
        ("steps", steps),
        ("answered", f"{sum(r.status == 'ok' for r in results)} of {len(results)}"),
        ("photographs", seen),
    ]
    title = f'{escape(name)} <span class="address">{escape(model)}</span>'
    return (
        f'<header><p class="eyebrow">Feature visualization</p><h1>{title}</h1>'
        f'<p class="lead">{escape(lead.strip())}</p>{html_page.facts(facts)}</header>'
    )


def _span(values: Iterable[int]) -> str:
    known = sorted(set(values))
    return "" if not known else str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"


def _key(results: Sequence[Visualization]) -> str:
    """What the marks mean."""
    text = "Response: the mean over positions of the picture as it is (of a neuron: at its position); peak: the best "
    text += "position. Hold the pointer over a picture or a drawing for its numbers."
    items = []
    if any(r.evidence is not None for r in results):
        text += " Stronger than: the peak among the strongest responses to photographs."
        drawn = (
            '<svg class="path" viewBox="0 0 54 22" aria-hidden="true"><rect x="1" y="5" width="11" height="15"/>'
            '<rect x="15" y="8" width="11" height="12"/><rect x="29" y="11" width="11" height="9"/>'
            '<rect class="none" x="43" y="4" width="11" height="16"/>'
            '<line class="zero" x1="0" x2="54" y1="20" y2="20"/><line class="one" x1="0" x2="54" y1="4" y2="4"/></svg>'
        )
        items.append(f"<span>{drawn}{escape(PATH)}; pale: nothing to compare with</span>")
    if any(len(r.history) > 1 for r in results):
        drawn = (
            '<svg class="history" viewBox="0 0 54 22" aria-hidden="true">'
            '<path d="M0 20L8 19L16 14L24 8L34 5L44 3L54 2"/></svg>'
        )
        items.append(f"<span>{drawn}history: what was optimized, step by step</span>")
    if any(r.status == "dead" for r in results):
        items.append('<span><span class="dead"></span>dead: no picture that was tried makes it answer</span>')
    return f'<p class="note">{text}</p><p class="key">{"".join(items)}</p>' if results else "<p>No pictures.</p>"


def _origin(results: Sequence[Visualization], model: str) -> dict[str, object]:
    digests = list(dict.fromkeys(r.digest for r in results if r.digest))
    shown = dict.fromkeys(f"{r.input_size[1]}×{r.input_size[0]}" for r in results if r.input_size != (0, 0))
    return provenance(model=model, weights=", ".join(digests), shown_to_the_network=" and ".join(shown))


def visualization_sheet(results: Iterable[Visualization], *, columns: int = 8) -> Figure:
    """A contact sheet: the pictures in rows, each with its address and its peak; what is dead is marked.

    Args:
        results: of `circuits.visualize` or a sweep.
        columns: pictures side by side.
    """
    shown = list(results)
    columns = max(1, min(columns, len(shown)))
    step = TILE + GAP
    rows = -(-len(shown) // columns)
    figure, axes = canvas.page(24 + columns * step - GAP + 24, 24 + max(1, rows) * (step + _LABEL) - GAP + 12)
    for i, result in enumerate(shown):
        x, y = 24 + (i % columns) * step, 24 + (i // columns) * (step + _LABEL)
        why = why_none(result)
        if why is not None:
            _mark(axes, x, y, result.status)
        else:
            values = crops.pixels(result.image, result.channels)
            high, wide = (TILE * s / max(values.shape[:2]) for s in values.shape[:2])
            canvas.place_image(axes, values, x + (TILE - wide) / 2, y + (TILE - high) / 2, wide, high)
        name = short(result.unit) + (f".{result.variant}" if result.variant else "")
        canvas.write(axes, x, y + TILE + 14, name, size=10, mono=True, limit=17)
        if why is None:
            canvas.write(axes, x, y + TILE + 28, f"peak {result.peak:.3g}", size=10, color=palette.MUTED, limit=18)
    if not shown:
        canvas.write(axes, 24, 60, "no pictures", size=12, color=palette.MUTED)
    return figure


def _mark(axes: Axes, x: float, y: float, status: str) -> None:
    """A hatched tile with a word, which nobody takes for a picture."""
    axes.add_patch(
        Rectangle((x, y), TILE, TILE, facecolor=palette.TILE, edgecolor=palette.PAPER, hatch="///", lw=0, zorder=2)
    )
    axes.add_patch(Rectangle((x, y), TILE, TILE, fill=False, edgecolor=palette.REST, lw=0.8, ls="--", zorder=3))
    canvas.write(
        axes, x + TILE / 2, y + TILE / 2, status, size=11, bold=True, align="center", middle=True, limit=12, zorder=4
    )
