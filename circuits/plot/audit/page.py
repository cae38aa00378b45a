"""An audit as a page for people who do not read code, and as a figure: suspects, their images, their controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.dataset.audit.results import Audit, ClassAudit, Effect, Joint, Suspect
from circuits.plot.drawing import canvas, crops, html_page
from circuits.plot.drawing.wording import counted, short
from circuits.plot.superposition.charts import head, plain
from zoo.images.sources import Images
from zoo.inputs import InputSpec

DRAWN = 8
"""Suspects of the figure."""
FIRST = 5
"""Suspects whose images are shown, whatever came of them, where the objects are not outlined."""


@dataclass(frozen=True)
class _Card:
    """A suspect as the page shows it."""

    suspect: Suspect
    title: str
    sentences: list[str]
    rows: list[tuple[str, list[crops.Crop], str]]
    labels: list[str]
    visualization: crops.Crop | None
    strength: str
    effects: list[tuple[str, str, str, str, str]]
    classes: list[tuple[str, str, str]]


def audit_page(
    audit: Audit, images: Images | None, spec: InputSpec | None, *, command: str = "", python: str = ""
) -> str:
    """An audit as one self-contained HTML page, light and dark, that prints well.

    Args:
        audit: of `circuits.audit`.
        images: that were audited, to show; None: the page has none. spec: the model's input.
        command: the shell command that makes the page again; python: the Python that does.
    """
    named = _with_images(audit)
    carded = {(s.class_index, s.unit) for s in named}
    others = [s for s in audit.suspects if (s.class_index, s.unit) not in carded]
    cut = {} if images is None or spec is None else _crops(audit, images, spec)
    return html_page.page(
        "audit.html",
        title=f"Audit of {audit.model}",
        model=audit.model,
        lead=lead(audit),
        facts=[
            ("images", audit.images),
            ("accuracy, mean of the classes", f"{audit.accuracy:.2f}"),
            ("by chance", f"{audit.chance:.2f}"),
            ("layers", ", ".join(audit.layers)),
            ("objects outlined", "yes" if audit.masks else "no"),
        ],
        cards=[_card(s, cut) for s in named],
        together=[(together_sentence(j), _effect_rows(j)) for j in audit.joint],
        others=[
            (f"{s.class_name}, unit {short(s.unit)}", visualization(s), s.label, s.reason, _two(s)) for s in others
        ],
        undescribed=[f"Not made: {what}, {why}." for what, why in audit.undescribed.items()],
        classes=[
            (
                c.class_name, f"{c.n_images} + {c.n_held_out}", _percent(c.accuracy.value), _percent(c.called.value),
                _location(c),
                "; ".join(f"{len(units)} of {c.n_units[layer]} in {layer}" for layer, units in c.units.items()),
            )
            for c in audit.classes
        ],
        masks=audit.masks,
        omitted=list(audit.omitted.items()),
        groups=[
            (g.class_name, g.group, str(g.n_images), _interval(g.accuracy.value, g.accuracy.low, g.accuracy.high))
            for g in audit.groups
        ],
        bounds=bounds(audit),
        command=command,
        python=python,
        provenance=audit.provenance,
    )  # fmt: skip


def _with_images(audit: Audit) -> list[Suspect]:
    """Proven and possible suspects; without masks the first ones, too: a person decides by their images."""
    first = 0 if audit.masks else FIRST
    return [s for i, s in enumerate(audit.suspects) if s.verdict != "no" or i < first]


def _location(c: ClassAudit) -> str:
    """How much a class leans on its background; without masks how far from the center its evidence lies."""
    if c.background is not None:
        return f"{_signed(c.background.value)} points"
    return "" if c.distance is None else f"{c.distance.value:.2f} ({c.distance.low:.2f} to {c.distance.high:.2f})"


def lead(audit: Audit) -> str:
    """What came out, in one or two sentences."""
    proven, possible = audit.claimed, [s for s in audit.suspects if s.verdict == "possible"]
    count = len(audit.classes)
    looked = f"{count} class{'' if count == 1 else 'es'} of {audit.model} looked at"
    if proven:
        names = ", ".join(dict.fromkeys(s.class_name for s in proven))
        more = [name for name in audit.claimed_together if name not in {s.class_name for s in proven}]
        also = f" For {', '.join(more)} several units are one together." if more else ""
        return f"{looked}: {counted(len(proven), 'shortcut')} proven, for {names}.{also}"
    if audit.claimed_together:
        names = ", ".join(audit.claimed_together)
        return f"{looked}: no unit alone is proven to be a shortcut, several together are, for {names}."
    if audit.leaning:
        return (
            f"{looked}: {', '.join(audit.leaning)} lean on their background (objects of other classes are taken for "
            "them before it), and no single unit is proven to carry that."
        )
    if possible:
        names = ", ".join(dict.fromkeys(s.class_name for s in possible))
        return f"{looked}: {counted(len(possible), 'possible shortcut')}, for {names}. Look at the images and decide."
    if (name := _farther_than_all(audit)) is not None:
        return f"{looked}: no shortcut proven. Look at the images of {name} first: its evidence lies farthest out."
    return f"{looked}: no shortcut proven."


def _farther_than_all(audit: Audit) -> str | None:
    """The class whose evidence lies farther out than that of every other, its interval above theirs; without masks."""
    far = sorted(((c.distance, c.class_name) for c in audit.classes if c.distance), key=lambda row: -row[0].value)
    return far[0][1] if len(far) > 1 and all(far[0][0].low > of.high for of, _ in far[1:]) else None


def bounds(audit: Audit) -> list[str]:
    """What the audit can not say."""
    lines = [
        "An audit sees what varies among these images. A cue that all of them have, or that none has, is not seen.",
        f"Units were tried alone, and together only those that lie off the object. A cue that is spread over units for "
        f"the object may change less in any of them than the {audit.random} controls do, and is then not proven.",
        "Removing a unit removes all that it stands for, not the cue alone: the tables show what else changes.",
    ]
    if not audit.masks:
        lines.insert(
            0, "The objects were not outlined, so that nothing is proven to lie off them: give masks or groups."
        )
    return lines


def sentences(s: Suspect) -> list[str]:
    """What a suspect is, and what happens without and with it."""
    location = (
        f"{_percent(s.off_object.value)} of its activation comes from pixels off the object"
        if s.off_object is not None
        else "whether it looks at the object is not known without masks"
    )
    lines = [
        f"Of what the layer tells the network about {s.class_name}, {_percent(s.share)} comes through this unit, and "
        f"{location}."
    ]
    if s.group is not None and s.group_auc is not None and s.group_auc.low > 0.5:
        lines.append(f"It tells the group {s.group} from the others of the class (AUC {s.group_auc.value:.2f}).")
    name = s.class_name
    effects = [
        (s.removal, f"images of {name} are no longer recognized without it", -1),
        (
            s.background,
            f"objects of other classes are no longer taken for {name} before its backgrounds without it",
            -1,
        ),
        (s.insertion, f"more images of other classes are taken for {name} with it", 1),
    ]
    known = [(effect, what, sign) for effect, what, sign in effects if effect is not None]
    lines += [_effect_sentence(*row) for row in sorted(known, key=lambda row: not _proves(row[0], row[2]))]
    if s.split.with_cue is not None and s.split.without_cue is not None:
        lines.append(
            f"The network recognizes {_percent(s.split.with_cue)} of the {counted(s.split.n_with, 'image')} of "
            f"{s.class_name} that have it, and {_percent(s.split.without_cue)} of the "
            f"{s.split.n_without} that do not."
        )
    if s.split.elsewhere is not None and s.split.nowhere is not None:
        lines.append(
            f"Of {counted(s.split.n_elsewhere, 'image')} of other classes that have it, {_percent(s.split.elsewhere)} "
            f"are taken for {s.class_name}; of those that do not, {_percent(s.split.nowhere)}."
        )
    return lines


def label_sentences(s: Suspect) -> list[str]:
    """What a suspect detects and does, each beside its control."""
    of = {
        "masks": "by the outlines: AUC {0:.2f} over pixels, the best control {1:.2f}",
        "classes": "by the images: AUC {0:.2f}, the best of as many random directions {1:.2f}",
        "scores": "a step along it: {0:+.2f} beyond the mean score, the best of 20 random directions {1:+.2f}",
    }
    return [f"{entry.text} ({of[entry.by].format(entry.value, entry.control)})" for entry in s.labels]


def strength_sentence(s: Suspect) -> str:
    """How active a suspect is on its visualization, beside the held-out image of its class on which it is most."""
    image = s.visualization
    if image is None:
        return ""
    if s.low:
        return f"An image made to turn it down, which is how it acts: it reaches {image.peak:.3g}."
    strongest = s.with_images[0].value if s.with_images else None
    beside = "" if strongest is None else f", on the image of {s.class_name} with most of it {strongest:.3g}"
    weaker = (
        ""
        if strongest is None or image.weaker_than(strongest) is None
        else ": it lacks something that photographs have"
    )
    return f"An image made to activate it: it reaches {image.peak:.3g}{beside}{weaker}."


def visualization(s: Suspect) -> crops.Crop | None:
    """The optimized image as pixels; None where there is none."""
    return None if s.visualization is None else crops.pixels(s.visualization.image, s.visualization.channels)


def together_sentence(joint: Joint) -> str:
    """What several units off the object do together."""
    units = ", ".join(short(unit) for unit in joint.units)
    return f"Together, {len(joint.units)} units for {joint.class_name} ({units}): {joint.reason}."


def _effect_sentence(effect: Effect, what: str, sign: int) -> str:
    value, limit = sign * effect.change.value, max(0.0, sign * effect.limit)
    if _proves(effect, sign):
        verdict = "more than with other units that are as active"
    elif value <= limit:
        verdict = "not more than with other units that are as active"
    else:
        verdict = "too few images to tell it from none; with other units that are as active"
    return f"{100 * max(0.0, value):.0f} of 100 {what}: {verdict} (up to {100 * limit:.0f} with 95 of 100 of them)."


def _proves(effect: Effect, sign: int) -> bool:
    """Whether an effect exceeds its controls, in the direction in which a shortcut changes answers."""
    return effect.beyond and sign * effect.change.value > 0


def _card(s: Suspect, cut: crops.Crops) -> _Card:
    rows = [
        (f"Images of {s.class_name} with it", "with"),
        (f"Images of {s.class_name} without it", "without"),
        ("Images of other classes with it", "elsewhere"),
    ]
    return _Card(
        suspect=s,
        title=f"{s.class_name}: unit {short(s.unit)}",
        sentences=sentences(s),
        rows=[
            (title, list(cut[f"{s.unit} {key} {s.class_index}"]), key)
            for title, key in rows
            if cut.get(f"{s.unit} {key} {s.class_index}")
        ],
        labels=label_sentences(s),
        visualization=visualization(s),
        strength=strength_sentence(s),
        effects=_effect_rows(s),
        classes=[(name, _percent(before), _percent(after)) for name, (before, after) in s.accuracies.items()],
    )


def _effect_rows(s: Suspect | Joint) -> list[tuple[str, str, str, str, str]]:
    units = f"{len(s.units)} units" if isinstance(s, Joint) else "unit"
    rows = [
        _effect_row(f"{s.class_name} recognized, {units} removed", s.removal),
        _effect_row(f"others taken for {s.class_name}, {units} inserted", s.insertion),
    ]
    if s.background is not None:
        name = f"others before its backgrounds taken for {s.class_name}, {units} removed"
        rows.append(_effect_row(name, s.background))
    return rows


def _effect_row(name: str, effect: Effect) -> tuple[str, str, str, str, str]:
    change, controls = effect.change, effect.controls
    ends = (change.value, change.low, change.high, min(controls), max(controls))
    value, low, high, least, most = map(_signed, ends)
    return name, f"{value} points", f"{low} to {high}", f"{least} to {most}", "yes" if effect.beyond else "no"


def _two(s: Suspect) -> str:
    return f"removed {_signed(s.removal.change.value)}, inserted {_signed(s.insertion.change.value)} points"


def _crops(audit: Audit, images: Images, spec: InputSpec) -> crops.Crops:
    examples = {
        f"{s.unit} {key} {s.class_index}": rows
        for s in _with_images(audit)
        for key, rows in (("with", s.with_images), ("without", s.without_images), ("elsewhere", s.elsewhere_images))
    }
    return crops.cut_examples(examples, images, spec, limit=160)


def audit_figure(audit: Audit, *, top: int = DRAWN) -> Figure:
    """What removing and inserting each suspect changes, beside its controls.

    Args:
        audit: of `circuits.audit`.
        top: suspects to draw, the first.
    """
    suspects = audit.suspects[:top]
    figure = canvas.figure_of_size(9, 1.5 + 0.46 * max(1, len(suspects)))
    head(figure, f"Suspects of {audit.model}", lead(audit))
    axes = figure.subplots(1, 2, sharey=True)
    for panel, (name, effects) in zip(
        axes, (("removed", [s.removal for s in suspects]), ("inserted", [s.insertion for s in suspects])), strict=True
    ):
        _effects(panel, effects)
        panel.set_title(f"unit {name}: change in points", fontsize=10, loc="left")
        plain(panel)
    height = 1.5 + 0.46 * max(1, len(suspects))
    figure.subplots_adjust(left=0.2, right=0.97, wspace=0.08, top=1 - 0.95 / height, bottom=0.35 / height)
    axes[0].set_yticks(range(len(suspects)), [f"{s.class_name}: {short(s.unit)}\n{s.verdict}" for s in suspects])
    axes[0].invert_yaxis()
    return figure


def _effects(panel: Axes, effects: Sequence[Effect]) -> None:
    for row, effect in enumerate(effects):
        controls = 100 * np.array(effect.controls)
        panel.scatter(controls, np.full(len(controls), row), s=14, c="#8f8a82", alpha=0.6, linewidths=0)
        c = effect.change
        panel.errorbar(
            100 * c.value, row, xerr=[[100 * (c.value - c.low)], [100 * (c.high - c.value)]], fmt="o", color="#ca5a00"
        )
    panel.axvline(0, color="#8f8a82", linewidth=0.8)


def _signed(share: float) -> str:
    """A change in points, with its sign; 0 has none."""
    points = round(100 * share)
    return f"{points:+d}" if points else "0"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _interval(value: float, low: float, high: float) -> str:
    return f"{_percent(value)} ({100 * low:.0f} to {100 * high:.0f})"
