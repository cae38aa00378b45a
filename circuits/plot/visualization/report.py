"""Feature visualizations of many units: a report page and a contact sheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.figure import Figure

from circuits.common.provenance import provenance
from circuits.plot.drawing import canvas, crops, html_page
from circuits.plot.drawing.wording import titled
from circuits.plot.visualization.card import PATH, card, sizes, why_none
from circuits.visualization.result import Visualization

TILE, GAP = 104, 12
_LABEL = 34
_WIDE = 17
"""Letters under an image."""


def visualization_report(
    results: Iterable[Visualization],
    *,
    model: str,
    command: str,
    python: str,
    photographs: crops.Crops | None = None,
    labels: Mapping[str, str] | None = None,
) -> str:
    """Visualizations as one self-contained HTML page, light and dark.

    A card for each: the image, its response, and where there is evidence (`circuits.visualization.examine`) its rank
    among photographs, the top activating ones of its unit, and the similarity along the path. A dead unit gets a mark,
    never an image. Nothing in it is fetched.

    Args:
        results: of `circuits.visualize` or a sweep.
        model: name of the model.
        command: the shell command that reproduces this report.
        python: the Python that does.
        photographs: unit address -> crops, as `exemplars` cuts them.
        labels: unit address -> what it is, such as the name of a class.
    """
    results, cut = list(results), photographs or {}
    wide = any(crops.of(cut, r.unit) for r in results)
    size, name = sizes(len(results)), subject(results, model, labels or {})
    return html_page.page(
        "visualizations.html",
        title=f"Feature visualization of {name} in {model}",
        results=results,
        name=name,
        model=model,
        lead=_lead(results, wide),
        facts=_facts(results, model),
        cards=[card(r, crops.of(cut, r.unit), size, (labels or {}).get(r.unit)) for r in results],
        widths=_widths(len(results), wide),
        statuses={r.status for r in results},
        evidence=any(r.evidence is not None for r in results),
        history=any(len(r.history) > 1 for r in results),
        path=PATH,
        command=command,
        python=python,
        provenance=_origin(results, model),
    )


def subject(results: Sequence[Visualization], model: str, labels: Mapping[str, str]) -> str:
    """The units that were visualized, in a few words: a unit, units of a layer, units."""
    units = list(dict.fromkeys(r.unit.removeprefix(f"{model}/") for r in results))
    if len(units) == 1:
        return titled(units[0], labels.get(results[0].unit))
    layers = list(dict.fromkeys(unit.partition(":")[0] for unit in units))
    counted = f"{len(units)} units"
    if not units or len(layers) > 3:
        return counted
    return f"{counted} of {' and '.join(filter(None, [', '.join(layers[:-1]), layers[-1]]))}"


def _widths(count: int, wide: bool) -> str:
    """How wide tiles are at least; a single one is as wide as it helps."""
    least = (330 if count > 3 else 420) if wide else (168 if count > 12 else 230)
    return f"--card-width:{least}px;--card-widest:{760 if wide else 460}px"


def _lead(results: Sequence[Visualization], wide: bool) -> str:
    several = len(results) != 1
    text = "Images optimized from noise" if several else "An image optimized from noise"
    text += f" to activate {'each unit' if several else 'the unit'} strongly. "
    if wide:
        text += f"Beside {'each' if several else 'it'} the top activating photographs of the unit: a visualization "
        text += "shows what drives a unit, photographs what activates it in data. "
    dead = sum(r.status == "dead" for r in results)
    broken = sum(r.status not in ("ok", "dead") for r in results)
    if dead:
        text += f"{dead} of {len(results)} were activated by no image that was tried. "
    if broken:
        text += f"{broken} gave no number. "
    return text.strip()


def _facts(results: Sequence[Visualization], model: str) -> list[tuple[str, object]]:
    evidence = next((r.evidence for r in results if r.evidence is not None), None)
    steps = sorted({r.steps for r in results})
    return [
        ("model", model),
        ("visualizations", len(results)),
        ("size", " and ".join(dict.fromkeys(f"{r.image.shape[2]}×{r.image.shape[1]}" for r in results))),
        ("steps", " to ".join(map(str, dict.fromkeys(steps[:1] + steps[-1:])))),
        ("activated", f"{sum(r.status == 'ok' for r in results)} of {len(results)}"),
        ("photographs", "" if evidence is None else f"{evidence.images} ({evidence.count} photographs)"),
    ]


def _origin(results: Sequence[Visualization], model: str) -> dict[str, object]:
    digests = list(dict.fromkeys(r.digest for r in results if r.digest))
    input_sizes = dict.fromkeys(f"{r.input_size[1]}×{r.input_size[0]}" for r in results if r.input_size != (0, 0))
    return provenance(model=model, weights=", ".join(digests), shown_to_the_network=" and ".join(input_sizes))


def visualization_sheet(
    results: Iterable[Visualization], *, columns: int = 8, labels: Mapping[str, str] | None = None
) -> Figure:
    """A contact sheet: visualizations in rows, each with its address and its peak; what is dead is marked.

    Args:
        results: of `circuits.visualize` or a sweep.
        columns: visualizations side by side.
        labels: unit address -> what it is, such as the name of a class.
    """
    results = list(results)
    columns = max(1, min(columns, len(results)))
    step = TILE + GAP
    rows = -(-len(results) // columns)
    figure, axes = canvas.page(24 + columns * step - GAP + 24, 24 + max(1, rows) * (step + _LABEL) - GAP + 12)
    for i, result in enumerate(results):
        x, y = 24 + (i % columns) * step, 24 + (i // columns) * (step + _LABEL)
        why = why_none(result)
        if why is not None:
            canvas.mark(axes, x, y, TILE, result.status)
        else:
            canvas.place_whole(axes, crops.pixels(result.image, result.channels), x, y, TILE)
        label, end = (labels or {}).get(result.unit), f".{result.variant}" if result.variant else ""
        name = titled(result.unit, label) + end
        canvas.write(
            axes, x, y + TILE + 14, name if len(name) <= _WIDE else label or name, size=10, mono=True, limit=_WIDE
        )
        if why is None:
            canvas.note(axes, x, y + TILE + 28, f"peak {result.peak:.3g}", size=10, limit=18)
    if not results:
        canvas.note(axes, 24, 60, "no visualizations", size=12)
    return figure
