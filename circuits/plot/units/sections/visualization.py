"""Feature visualizations of the unit."""

from __future__ import annotations

from markupsafe import Markup

from circuits.plot.drawing.html_page import tag
from circuits.plot.drawing.wording import number
from circuits.plot.units.section_renderers import Sheet, note, renderer
from circuits.plot.visualization.card import image, sizes
from circuits.units.dossier.sections.visualization import FeatureVisualizations


@renderer("visualization")
def _visualization(visualizations: FeatureVisualizations, sheet: Sheet) -> Markup:
    size, figures = sizes(4), []
    for result, kind in [*((v, "positive") for v in visualizations.positive), (visualizations.negative, "negative")]:
        response = "" if result.status != "ok" else f", activation {number(result.response)}"
        figures.append(tag("figure", image(result, size), tag("figcaption", kind + response), class_="vis"))
    text = "Diverse optimized images. They can mislead: compare them with the top activating images above."
    if visualizations.warning:
        text += f" The strongest of them is {visualizations.warning}."
    return note(text) + tag("div", *figures, class_="figures")
