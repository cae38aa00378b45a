"""How sections of a dossier become HTML: the registry of their renderers, and pieces that several use.

Each file of `circuits/plot/units/sections` registers renderers and is loaded by itself; other packages register theirs
where they register the section.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias

from markupsafe import Markup

from circuits.plot.drawing import crops
from circuits.plot.drawing.crops import Crop
from circuits.plot.drawing.html_page import render, table, tag
from circuits.plot.drawing.wording import short
from zoo.common.registries import Registry
from zoo.images.sources import Images
from zoo.inputs import InputSpec

_THUMB = 112


@dataclass(frozen=True)
class Sheet:
    """What the renderers of sections share.

    Attributes:
        crops: name of a group of examples -> their crops.
        thumbs: address -> the crop of a unit's strongest example, for units of scanned layers.
        images: the scanned images; spec: how the model sees them.
    """

    crops: Mapping[str, Sequence[Crop]]
    thumbs: Mapping[str, Crop]
    images: Images
    spec: InputSpec


def _load() -> None:
    for module in pkgutil.iter_modules(import_module("circuits.plot.units.sections").__path__):
        import_module(f"circuits.plot.units.sections.{module.name}")


Renderer: TypeAlias = Callable[[Any, Sheet], str]
RENDERERS: Registry[Renderer] = Registry("renderer of the section", load=_load)
"""Section name -> what renders its finding as HTML. A string that is no `Markup` is shown as text; a section without
a renderer is shown as a table of its description."""


def renderer(name: str) -> Callable[[Renderer], Renderer]:
    """Register the function that renders a section."""
    return lambda function: RENDERERS.add(name, function)


def described(finding: Any, _sheet: Sheet) -> Markup:
    """The description of a finding as a table, for a section that has no renderer."""
    return table(("", ""), [(key, str(value)) for key, value in finding.describe().items()])


def note(text: str) -> Markup:
    """A remark under a heading."""
    return tag("p", text, class_="note")


def thumb(unit: str, sheet: Sheet) -> Markup:
    """The top activating image of a unit; its name where the sheet has none."""
    name = short(unit)
    if unit not in sheet.thumbs:
        return tag("span", name, class_="thumb none")
    uri = crops.uri(sheet.thumbs[unit], _THUMB)
    return tag("img", class_="thumb", alt=f"top activating image of {name}", title=name, src=uri)


def unit_grid(rows: Iterable[tuple[str, str, bool]], sheet: Sheet) -> Markup:
    """Units side by side: address, caption, and whether it is faint, as what chance would give."""
    return render(
        "sections/unit_grid.html",
        rows=[(thumb(unit, sheet), short(unit), caption, faint) for unit, caption, faint in rows],
    )
