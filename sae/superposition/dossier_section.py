"""What a dossier says of a latent besides: which channels it writes, and which latents share its space.

Importing this module adds the section to `circuits.units.dossier`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from markupsafe import Markup

from circuits.network.address import Unit
from circuits.network.basis import Basis
from circuits.network.model import Model
from circuits.plot.drawing.html_page import join, table, tag
from circuits.plot.drawing.wording import minus, short
from circuits.plot.units.section_renderers import Sheet, note, renderer, unit_grid
from circuits.units.dossier import SECTIONS
from circuits.units.dossier.section_registry import Section, Subject, register
from sae.superposition.geometry import Geometry, geometry

NAME = "geometry"
_WRITES = 12


@dataclass(frozen=True)
class SharesSpace:
    """Where a latent lies among the others of its dictionary.

    Attributes:
        writes: channels that it writes to most, `(address, weight, share of its squared length)`.
        about: as `Geometry.about` gives it, against directions that mean nothing.
    """

    writes: tuple[tuple[str, float, float], ...]
    about: Mapping[str, Any]

    @property
    def shown(self) -> list[str]:
        """Units to show a picture of."""
        return [str(other["unit"]) for other in self.about["shares_with"]]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        rows = [{"unit": unit, "weight": weight, "share": share} for unit, weight, share in self.writes]
        return {"writes": rows, **self.about}


_KNOWN: WeakKeyDictionary[Any, Geometry] = WeakKeyDictionary()


def geometry_of(model: Model, layer: str, name: str, seed: int = 0) -> Geometry:
    """How the directions that a dictionary writes share the layer's space; found once per dictionary.

    Latents that write nothing are left out.
    """
    basis = model.basis(layer, name)
    if basis not in _KNOWN:
        _KNOWN[basis] = geometry(basis, units=addresses(model, layer, name, basis), seed=seed)
    return _KNOWN[basis]


def addresses(model: Model, layer: str, name: str, basis: Basis) -> Sequence[str]:
    """Addresses of all latents of a dictionary."""
    return [str(Unit(layer, i, model.name, name)) for i in range(len(basis.read))]


def _shares_space(subject: Subject) -> SharesSpace | None:
    unit, model = subject.unit, subject.model
    if unit.basis is None or unit.index is None:
        return None
    written = model.basis(unit.layer, unit.basis).write[unit.index].detach().float().cpu()
    shares = written.square() / written.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
    order = shares.argsort(descending=True, stable=True)[:_WRITES].tolist()
    return SharesSpace(
        writes=tuple((f"{model.name}/{unit.layer}:{c}", float(written[c]), float(shares[c])) for c in order),
        about=geometry_of(model, unit.layer, unit.basis, subject.seed).about(str(unit)),
    )


if NAME not in SECTIONS:
    register(Section(NAME, "Geometry", True, _shares_space))

    @renderer(NAME)
    def _render(section: SharesSpace, sheet: Sheet) -> Markup:
        about = section.about
        text = (
            f"It has {about['dimensionality']:.2f} of a dimension to itself, more than "
            f"{about['dimensionality_percentile']:.0f} % of as many {about['control']} directions have: 1 would be a "
            f"dimension of its own. A step along it is, to each of these, the share given of that step. "
            f"99 of 100 {about['control']} directions have no neighbor nearer than {about['chance']:.2f}; those that "
            "are not nearer than that are faint."
        )
        similar = [
            (
                str(other["unit"]),
                minus(f"cosine {other['cosine']:.2f}, step {other['effect']:+.2f}"),
                not other["beyond_chance"],
            )
            for other in about["shares_with"]
        ]
        rows = [
            (short(unit), minus(f"{weight:+.3g}"), f"{100 * share:.0f} %") for unit, weight, share in section.writes
        ]
        parts = [
            note(text),
            unit_grid(similar, sheet),
            tag("h4", "Channels it writes to"),
            table(("channel", "weight", "of its length"), rows),
        ]
        return join(parts)
