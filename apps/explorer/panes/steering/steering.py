"""What edits do: the picture with its maps, class probabilities side by side, the dose curve, and a later layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.brush import brush
from apps.explorer.components.choose import choose, pick
from apps.explorer.components.gallery import gallery
from apps.explorer.panes import crops as crop_panes
from apps.explorer.panes.image_analysis import Shown
from apps.explorer.panes.steering import edit_rows
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.resources import steering_runs
from apps.explorer.resources.steering_runs import Doses, Sides, SteeringSite
from apps.explorer.resources.thumbnails import jpeg, uri
from apps.explorer.session import edit_links, links, state
from apps.explorer.session.edit_links import Edits
from apps.explorer.session.state import Here
from circuits.plot.drawing import crops, palette
from circuits.plot.drawing.wording import minus
from sae.steering import Maxima, inspect
from zoo.images.sources import Images
from zoo.progress import Progress

CLASSES, MOVED, SUGGESTED = 8, 6, 14
OVER = {"this": "This picture", "some": "24 pictures"}
SOME, SIDE = 24, 250


def asked(at: Here, bench: SteeringSite) -> Edits:
    """The edits of the address; where it says nothing of them, the page's unit is ablated.

    Raises:
        UploadError: edits that are none.
    """
    said = links.asked("edits", 2 * links.LONGEST)
    if said is None:
        return () if at.unit.index is None else edit_links.parsed(f"{at.unit.index}:ablate", bench.count, bench.size)
    return () if said == "none" else edit_links.parsed(said, bench.count, bench.size)


def first_picture(at: Here) -> int:
    """The picture that the page's unit answers to most."""
    if at.scan is None or at.unit.index is None or at.unit.space not in at.scan.layers:
        return 0
    top = at.scan.unit(at.unit.channel).top
    return top[0].image if top else 0


# -- the picture ------------------------------------------------------------------------------------------------------


def picture(bench: SteeringSite, edits: Edits, shown: Shown, made: Sides | None) -> None:
    """The picture, on which places can be chosen for an edit, and what the edited unit says before and after."""
    pixels = crops.pixels(shown.images.tensor(bench.model.input)[0], bench.model.input.channels)
    active = _active(edits)
    if bench.size is None or not edits:
        st.image(np.asarray(pixels), width=SIDE, alt=shown.name)
    else:
        st.session_state["edit-map"] = bench.size
        one = edits[active]
        alt = f"{shown.name}; places of the edit of {bench.space}:{one.latent}"
        drawn = brush(uri(jpeg(pixels, 2 * SIDE)), bench.size, one.at if one.on_map else None, key="brush", alt=alt,
                      width=SIDE)  # fmt: skip
        what = f"unit {one.latent} is edited at {len(one.at) if one.on_map else 'all'} places"
        st.caption(f"Drag over the picture to choose places: {what}.")
        if drawn is not None:
            _brushed(edits, active, drawn)
    if made is not None and edits and bench.size is not None:
        _maps(bench, pixels, edits[active].latent, made)


def _active(edits: Edits) -> int:
    """The edit whose places and maps are shown."""
    if len(edits) < 2:
        return 0
    options = {str(i): f"{i + 1}: unit {one.latent}" for i, one in enumerate(edits)}
    return int(choose("Edit", options, "edit"))


def _brushed(edits: Edits, active: int, drawn: tuple[tuple[int, int, int, int], bool]) -> None:
    from dataclasses import replace

    box, on = drawn
    one = edits[active]
    before = set(one.at) if one.on_map else set()
    places = before | set(edit_links.filled(box)) if on else before - set(edit_links.filled(box))
    new = replace(one, at=tuple(sorted(places)) if places else "all")
    edit_rows.put((*edits[:active], new, *edits[active + 1 :]))


def _maps(bench: SteeringSite, pixels: crops.Crop, latent: int, made: Sides) -> None:
    before, after = made.maps[latent]
    most = max(float(np.abs(before).max()), float(np.abs(after).max())) or 1.0
    titles = (f"{bench.space}:{latent} before", "after", "how far all moved")
    heats = (before / most, after / most, made.change / (float(made.change.max()) or 1.0))
    notes = (f"{before.max():.3g}", f"{after.max():.3g}", f"{100 * float(made.change.max()):.0f} %")
    for place, title, heat, note in zip(st.columns(3, gap="small"), titles, heats, notes, strict=True):
        place.image(crop_panes.warm(pixels, heat), width="stretch", alt=title)
        place.caption(minus(f"{title}, at most {note}"))


def suggested(at: Here, bench: SteeringSite, edits: Edits, shown: Shown, known: Maxima) -> None:
    """Units that say most on the picture, measured by their maxima; a click edits one more."""
    key = ("fires", bench.model.digest, bench.space, shown.key)
    found = page_frame.settled(
        key, "what fires here",
        lambda report: inspect(bench.basis, bench.site, shown.images, top=SUGGESTED, maxima=known).rows[0],
    )  # fmt: skip
    if not found:
        return
    with st.expander("Units that say most here, for another edit", expanded=not edits):
        names = state.names_of(at)
        tiles = [
            unit_tile(at, bench.address(one.latent), names, f"{100 * (one.share or 0):.0f} % of max", pick=True)
            for one in found
        ]
        clicked = gallery(tiles, "suggested", size=84, label="units that say most on this picture")
        if clicked:
            edit_rows.put(edit_rows.added(edits, int(clicked.rpartition(":")[2])))


# -- classes ----------------------------------------------------------------------------------------------------------


def probabilities(made: Sides) -> Any:
    """Probability of classes, before (gray) and after (orange where it rises, blue where it falls)."""
    order = made.most(CLASSES)[::-1]
    names = [made.classes[i].split(",")[0] for i in order]
    rises = [made.after[i] >= made.before[i] for i in order]
    bars = [
        ("before", made.before[order], palette.REST),
        ("after", made.after[order], [palette.EXCITES if up else palette.INHIBITS for up in rises]),
    ]
    figure = go.Figure(
        [
            go.Bar(
                y=names, x=100 * values, name=name, orientation="h", marker={"color": color, "line": {"width": 0}},
                text=[f"{100 * v:.1f}" for v in values], textposition="outside", cliponaxis=False,
                hovertemplate="%{y}, " + name + ": %{x:.2f} %<extra></extra>",
            )
            for name, values, color in reversed(bars)
        ]
    )  # fmt: skip
    figure.update_layout(
        height=60 + 40 * len(order), margin={"l": 4, "r": 34, "t": 6, "b": 4}, barmode="group", bargap=0.28,
        bargroupgap=0.06, showlegend=False, xaxis={"title": "probability, %", "range": [0, 104]},
        yaxis={"ticksuffix": "  "},
    )  # fmt: skip
    return figure


# -- doses ------------------------------------------------------------------------------------------------------------


def found_doses(at: Here, bench: SteeringSite, edits: Edits, known: Maxima, shown: Shown, over: str) -> Doses | None:
    """The dose curves, on the picture or on some of those that were scanned; None while they are being made."""
    images = shown.images if over == "this" else some_of(state.pictures_of(at))

    def work(report: Progress) -> Doses:
        return steering_runs.doses(bench, edits, known, images, report)

    key = ("doses", bench.model.digest, bench.space, edit_links.written(edits), images.digest)
    made: Doses | None = page_frame.settled(key, "turning the edits up, and those of random units", work)
    return made


def some_of(images: Images) -> Images:
    """Pictures spread over all."""
    step = max(1, len(images) // SOME)
    return images.subset(range(0, len(images), step)[:SOME])


def target_of(made: Sides) -> int:
    """The class of the address, or the one whose probability changes most; with the widget that changes it."""
    order = list(dict.fromkeys([made.target, *made.most(CLASSES)]))
    options = {str(i): made.classes[i].split(",")[0] for i in order}
    return int(pick("Class", options, "class"))


def dose_chart(found: Doses, target: int, name: str, of: str) -> Any:
    """Probability of a class as the edits are turned up: theirs, and the band of random units."""
    x, random = list(found.doses), 100 * found.random[:, :, target]
    low, high = random.min(axis=0), random.max(axis=0)
    gray = {"color": palette.REST, "width": 0.8}
    traces: list[Any] = [
        go.Scatter(x=x + x[::-1], y=[*high, *low[::-1]], fill="toself", fillcolor="rgba(143,138,130,0.22)", mode="none",
                   hoverinfo="skip", name=f"{len(random)} random units"),  # fmt: skip
        *(
            go.Scatter(x=x, y=row, mode="lines", line=gray, opacity=0.7, showlegend=False, hoverinfo="skip")
            for row in random
        ),
        go.Scatter(
            x=x, y=100 * found.values[:, target], mode="lines+markers", name=of,
            line={"color": palette.EXCITES, "width": 2.4}, marker={"size": 6},
            hovertemplate="dose %{x:.1f}: %{y:.1f} %<extra></extra>",
        ),
    ]  # fmt: skip
    figure = go.Figure(traces)
    figure.add_vline(x=1, line={"color": palette.REST, "width": 1, "dash": "dot"})
    figure.update_layout(
        height=300, margin={"l": 4, "r": 8, "t": 6, "b": 4},
        xaxis={"title": "dose (1: as set, 0: nothing)", "dtick": 0.5},
        yaxis={"title": f"probability of {name}, %", "rangemode": "tozero"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )  # fmt: skip
    return figure


def told(found: Doses, target: int, name: str) -> str:
    """What the curves say, in words."""
    at = found.doses.index(1.0)
    own, random = found.values[at, target], found.random[:, at, target]
    clean = found.values[0, target]
    beaten = int((np.abs(random - clean) < abs(own - clean)).sum())
    kept, low, high = found.same[at], found.random_same[:, at].min(), found.random_same[:, at].max()
    pictures_ = "this picture" if found.pictures == 1 else f"{found.pictures} pictures"
    text = (
        f"On {pictures_}: {name} from {100 * clean:.1f} to {100 * own:.1f} %. {beaten} of {len(random)} edits of "
        f"random units, each as far in multiples of its own maximum, change it less ({100 * random.min():.1f} to "
        f"{100 * random.max():.1f} %)."
    )
    if found.pictures > 1:
        text += f" The first choice stays on {100 * kept:.0f} % of them; with random units on {100 * low:.0f}"
        text += f" to {100 * high:.0f} %."
    return minus(text)


# -- a later layer ----------------------------------------------------------------------------------------------------


def moved(at: Here, made: Sides) -> None:
    """Units of a later layer that changed most."""
    if not made.moved:
        st.caption(f"Nothing changes in {made.later}.")
        return
    names = state.names_of(at)
    up = [row for row in made.moved if row[2] > row[1]]
    down = [row for row in made.moved if row[2] < row[1]]
    for place, title, some in zip(st.columns(2, gap="large"), ("rise", "fall"), (up, down), strict=True):
        with place:
            st.caption(f"{made.later}: units that {title} most, mean over the picture")
            tiles = [
                unit_tile(at, f"{at.model.name}/{made.later}:{i}", names, minus(f"{b:.2g} → {a:.2g}"))
                for i, b, a in some
            ]
            gallery(tiles, f"moved-{title}", size=92, label=f"units of {made.later} that {title} most")


def later_layers(at: Here) -> Mapping[str, str]:
    """Layers behind the page's own, the next one first; without the class scores, which are shown above."""
    trunk: Sequence[str] = at.model.trunk
    if at.unit.layer not in trunk:
        return {}
    return {name: name for name in trunk[trunk.index(at.unit.layer) + 1 :] if name != at.model.logits}


# -- the same in Python ------------------------------------------------------------------------------------------------


def script(at: Here, bench: SteeringSite, edits: Edits, shown: Shown | None) -> str:
    """The Python that gives the same probabilities."""
    basis = "None" if bench.basis is None else f"model.basis({bench.site.layer.name!r}, {bench.name!r})"
    attach = dict(at.settings.saes).get(bench.name)
    lines = ["import circuits", "from sae.steering import LatentEdit, When, maxima, steer"]
    lines.append("from sae.data.vision_site import VisionSite" + ("" if attach is None else ", attach_folder"))
    lines += ["", f"model = circuits.load({at.model.name!r})"]
    lines += [] if attach is None else [f"attach_folder(model, {str(attach)!r}, {bench.name!r})"]
    number = 0 if shown is None or shown.index is None else shown.index
    lines += [
        f"site, units = VisionSite(model, {bench.site.layer.name!r}), {basis}",
        f"pictures = circuits.read_scan({str(at.settings.store)!r}, model.name).pictures()",
        f"edits = {edit_links.as_python(edits)}",
        "with steer(site, units, edits, maxima=maxima(units, site, pictures)):",
        f'    scores = circuits.capture(model, pictures.subset([{number}]), "logits")["logits"].flatten(1)',
        "for name, share in zip(model.classes, scores.softmax(1)[0].tolist()):",
        '    print(f"{name:20} {share:.3f}")',
    ]
    return "\n".join(lines) + "\n"
