"""Section of a dossier: a study of steering the unit.

Importing this module adds the section to `circuits.units.dossier`; it is computed only when requested by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.plot.drawing.html_page import join, table, tag
from circuits.plot.drawing.wording import minus, short
from circuits.plot.units.section_renderers import Sheet, note, renderer, unit_grid
from circuits.units.dossier.section_registry import Finding, Nothing, Subject, section
from zoo.images.sources import open_images

if TYPE_CHECKING:  # a dossier without this section takes nothing of what trains and runs SAEs
    from sae.data.vision_site import VisionSite
    from sae.steering.bases import Dictionary
    from sae.steering.study_result import Study

NAME = "steering"
IMAGES = 100
"""At most so many of the scanned images are steered."""
FACTORS = (-2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0)
"""Multiples of the maximum. Set everywhere, a unit of a CNN destroys most capability beyond these."""
RANDOM = 6
_ROWS = 6


@dataclass(frozen=True, eq=False)
class Steered:
    """A study of a unit set to multiples of its maximum, beside random units of its kind.

    Attributes:
        study: see `sae.steering.study.study`.
    """

    study: Study

    @property
    def related_units(self) -> list[str]:
        """Units shown with an image: those of the layer, or of a later one, that change most."""
        return [unit for unit, _, _ in self.moved]

    @property
    def moved(self) -> list[tuple[str, float, float]]:
        """Units that change most: address, measured, predicted."""
        effects = self.study.side_effects.get("latents") or self.study.side_effects.get("downstream")
        if effects is None:
            return []
        return [
            (effects.units[i], float(effects.measured[i]), float(effects.predicted[i]))
            for i in effects.strongest(_ROWS)
        ]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return self.study.describe()


@section(NAME, "Steering")
def _steered(subject: Subject) -> Finding | None:
    model, unit = subject.model, subject.unit
    if unit.index is None:
        return None
    if model.layers[unit.layer].name in (model.class_scores, "softmax"):
        return Nothing("it is a class score itself: steering it does not show anything about the network")
    try:
        from sae.data.vision_site import VisionSite
        from sae.steering.study import study

        images = open_images(subject.images, limit=IMAGES, seed=subject.seed)
        site = VisionSite(model, unit.layer)
        basis: Dictionary = None if unit.basis is None else model.basis(unit.layer, unit.basis)
        labeled = images.labels is not None and images.classes in (None, model.classes)
        result = study(
            site,
            basis,
            unit.index,
            images,
            factors=FACTORS,
            capability="top1" if labeled else "agreement",
            random=RANDOM,
            downstream=_later(model, unit.layer) if basis is None else None,
            name=unit.basis or "channels",
            seed=subject.seed,
            progress=subject.progress,
        )
    except CircuitsError as error:  # it is never active there, or the model predicts no classes
        return Nothing(str(error))
    return Steered(result)


def _later(model: Model, layer: str) -> tuple[VisionSite, None] | None:
    """The next layer of the trunk: channels of one layer do not affect each other, only what follows."""
    names = [name for name in model.trunk if model.layers[name].part is None and name != model.class_scores]
    if layer not in names or layer == names[-1]:
        return None
    from sae.data.vision_site import VisionSite

    return VisionSite(model, names[names.index(layer) + 1]), None


def _note(study: Study) -> str:
    spot = "nowhere" if study.sweet_spot is None else "from {:g} to {:g} times it".format(*study.sweet_spot)
    if (study.effect.values == study.effect.clean).all():
        return (
            f"Set everywhere to multiples of its maximum of {study.maximum:.3g}, on {study.inputs.get('count')} "
            "images, it changes no class score: no later weight reads it."
        )
    return (
        f"Set everywhere to multiples of its maximum of {study.maximum:.3g} on {study.inputs.get('count')} images. "
        f"{', '.join(study.targets)} is the class that it increases most, at {study.at:g} times it more than "
        f"{100 * study.beaten():.0f} % of {len(study.control) + len(study.directions)} steps as long along random "
        "units, random directions and principal components increase theirs. "
        f"{'Top-1 accuracy' if study.capability.what == 'top1' else 'Agreement of first choices'} stays within "
        f"{100 * study.tolerance:g} % of the unsteered network's {spot}."
    )


def _predicted(effects: Mapping[str, Any]) -> str:
    kinds = {"latents": "latents of the layer", "classes": "class scores", "downstream": "units of the next layer"}
    parts = []
    for name, effect in effects.items():
        if effect.correlation == effect.correlation:
            parts.append(f"of {kinds.get(name, name)} the rank correlation is {effect.correlation:.2f}")
    return ("Side effects, predicted against measured: " + "; ".join(parts) + ".") if parts else ""


@renderer(NAME)
def _render(finding: Steered, sheet: Sheet) -> Markup:
    from circuits.plot.drawing.canvas import embedded
    from circuits.plot.sae.steering import steering_figure

    result = finding.study
    figure = steering_figure(result)
    units = [
        (unit, minus(f"{measured:+.3g} (predicted {predicted:+.3g})"), False)
        for unit, measured, predicted in finding.moved
    ]
    classes = result.side_effects["classes"]
    rows = [
        (classes.units[i], minus(f"{classes.measured[i]:+.3g}"), minus(f"{classes.predicted[i]:+.3g}"))
        for i in classes.strongest(_ROWS)
    ]
    parts = [
        note(_note(result)),
        embedded(figure, f"{short(result.unit)}: effect and capability by factor, and side effects"),
        note(_predicted(result.side_effects)),
        tag("h4", "Largest side effects"),
        unit_grid(units, sheet),
        table((f"other classes, factor {result.at:g}", "measured", "predicted"), rows),
    ]
    return join(parts)
