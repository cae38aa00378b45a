"""What a dossier says of steering: what happens when the unit is turned up or down.

Importing this module adds the section to `circuits.units.dossier`; it is made when asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.plot.drawing.svg import escape
from circuits.plot.drawing.wording import minus, short
from circuits.plot.units.dossier import Sheet, drawn, thumb
from circuits.units.dossier import SECTIONS
from circuits.units.dossier.section_registry import Finding, Nothing, Section, Subject, register
from sae.data.vision_site import VisionSite
from sae.steering.bases import Dictionary
from sae.steering.study import Study, study
from zoo.images.sources import open_images

NAME = "steering"
PICTURES = 100
"""At most so many of the scanned pictures are steered on."""
FACTORS = (-2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0)
"""Set everywhere, a unit of a CNN is soon too much: beyond these little is left of what the network can do."""
RANDOM = 6
_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Steered:
    """A study of a unit set to multiples of its maximum, beside random units of its kind.

    Attributes:
        study: see `sae.steering.study.study`.
    """

    study: Study

    @property
    def shown(self) -> list[str]:
        """Units to show a picture of: those of the layer, or of a later one, that change most."""
        return [unit for unit, _, _ in self.moved]

    @property
    def moved(self) -> list[tuple[str, float, float]]:
        """Units that change most: address, measured, predicted."""
        one = self.study.side_effects.get("latents") or self.study.side_effects.get("downstream")
        if one is None:
            return []
        return [(one.units[i], float(one.measured[i]), float(one.predicted[i])) for i in one.strongest(_SHOWN)]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return self.study.describe()


def _steered(subject: Subject) -> Finding | None:
    model, unit = subject.model, subject.unit
    if unit.index is None:
        return None
    if model.layers[unit.layer].name in (model.logits, "softmax"):
        return Nothing("it is a class score itself: turning it up says nothing of the network")
    try:
        pictures = open_images(subject.pictures, limit=PICTURES, seed=subject.seed)
        site = VisionSite(model, unit.layer)
        basis: Dictionary = None if unit.basis is None else model.basis(unit.layer, unit.basis)
        labeled = pictures.labels is not None and pictures.classes in (None, model.classes)
        found = study(
            site,
            basis,
            unit.index,
            pictures,
            factors=FACTORS,
            capability="top1" if labeled else "agreement",
            random=RANDOM,
            downstream=_later(model, unit.layer) if basis is None else None,
            name=unit.basis or "channels",
            seed=subject.seed,
            progress=subject.progress,
        )
    except CircuitsError as error:  # it never fires there, or the model predicts no classes
        return Nothing(str(error))
    return Steered(found)


def _later(model: Model, layer: str) -> tuple[VisionSite, None] | None:
    """The next layer of the trunk, where channels of one that leave each other alone meet."""
    names = [name for name in model.trunk if model.layers[name].part is None and name != model.logits]
    if layer not in names or layer == names[-1]:
        return None
    return VisionSite(model, names[names.index(layer) + 1]), None


def _table(rows: list[tuple[str, str, str]], head: tuple[str, str, str]) -> str:
    body = "".join(
        f"<tr><td>{escape(a)}</td><td class='value'>{minus(b)}</td><td class='value'>{minus(c)}</td></tr>"
        for a, b, c in rows
    )
    first, *rest = head
    titles = f"<th>{escape(first)}</th>" + "".join(f"<th class='value'>{escape(one)}</th>" for one in rest)
    return f"<div class='wrapped'><table><tr>{titles}</tr>{body}</table></div>"


def _note(found: Study) -> str:
    spot = "nowhere" if found.sweet_spot is None else "from {:g} to {:g} times it".format(*found.sweet_spot)
    if (found.effect.values == found.effect.clean).all():
        return (
            f"Set everywhere to multiples of its maximum of {found.maximum:.3g}, on {found.inputs.get('count')} "
            "pictures, it changes no class score: nothing that follows reads it."
        )
    return (
        f"Set everywhere to multiples of its maximum of {found.maximum:.3g} on {found.inputs.get('count')} pictures. "
        f"{', '.join(found.targets)} is the class that it increases most, more than {100 * found.beaten():.0f} % of "
        f"{len(found.control)} random units increase theirs. "
        f"{'Right first choices' if found.capability.what == 'top1' else 'First choices'} stay within "
        f"{100 * found.tolerance:g} % of the unsteered network's {spot}."
    )


def _predicted(effects: Mapping[str, Any]) -> str:
    kinds = {"latents": "latents of the layer", "classes": "class scores", "downstream": "units of the next layer"}
    told = []
    for name, one in effects.items():
        if one.correlation == one.correlation:
            told.append(f"of {kinds.get(name, name)} the rank correlation is {one.correlation:.2f}")
    return ("Side effects, predicted against measured: " + "; ".join(told) + ".") if told else ""


if NAME not in SECTIONS:
    register(Section(NAME, "What happens when it is turned up or down", False, _steered))

    @drawn(NAME)
    def _draw(found: Steered, sheet: Sheet) -> str:
        from circuits.plot.drawing.canvas import embedded
        from circuits.plot.sae.steering import steering_figure

        one = found.study
        figure = embedded(steering_figure(one), f"{short(one.unit)}: effect and capability by factor, and side effects")
        units = "".join(
            f"<figure>{thumb(unit, sheet)}<figcaption>{escape(short(unit))}<br>"
            f"{minus(f'{measured:+.3g}')} (predicted {minus(f'{predicted:+.3g}')})</figcaption></figure>"
            for unit, measured, predicted in found.moved
        )
        classes = one.side_effects["classes"]
        rows = [
            (classes.units[i], f"{classes.measured[i]:+.3g}", f"{classes.predicted[i]:+.3g}")
            for i in classes.strongest(_SHOWN)
        ]
        table = _table(rows, (f"other classes, factor {one.at:g}", "measured", "predicted"))
        return (
            f'<p class="note">{escape(_note(one))}</p>{figure}'
            f'<p class="note">{escape(_predicted(one.side_effects))}</p>'
            f'<h4>What else changes most</h4><div class="alike">{units}</div>{table}'
        )
