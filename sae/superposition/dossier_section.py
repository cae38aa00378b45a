"""Section of a dossier on the geometry of a latent: channels it writes to, and latents that share its space.

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
from circuits.network.basis import Basis, basis_digest, reads_linearly
from circuits.network.model import Model
from circuits.plot.drawing.html_page import join, table, tag
from circuits.plot.drawing.wording import minus, short
from circuits.plot.units.section_renderers import Sheet, note, renderer, unit_grid
from circuits.units.dossier import Subject, section
from circuits.units.dossier.section_registry import Nothing
from sae.superposition.geometry import Geometry, geometry

NAME = "geometry"
_WRITES = 12


@dataclass(frozen=True)
class SharesSpace:
    """The position of a latent among the others of its dictionary.

    Attributes:
        writes: channels with the largest weights in its write direction: `(address, weight, share of the squared
            length)`.
        about: as of `Geometry.about`, beside random directions.
    """

    writes: tuple[tuple[str, float, float], ...]
    about: Mapping[str, Any]

    @property
    def related_units(self) -> list[str]:
        """Units that are shown with an image."""
        return [str(other["unit"]) for other in self.about["shares_with"]]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        rows = [{"unit": unit, "weight": weight, "share": share} for unit, weight, share in self.writes]
        return {"writes": rows, **self.about}


_GEOMETRIES: WeakKeyDictionary[Any, tuple[str, Geometry]] = WeakKeyDictionary()


def geometry_of(model: Model, layer: str, name: str, seed: int = 0) -> Geometry:
    """Geometry of a dictionary's write directions; computed once, and again when the dictionary has been trained on."""
    basis = model.basis(layer, name)
    key = f"{model.name}/{layer}~{name} {seed} {basis_digest(basis)}"
    if _GEOMETRIES.get(basis, ("",))[0] != key:
        _GEOMETRIES[basis] = key, geometry(basis, units=addresses(model, layer, name, basis), seed=seed)
    return _GEOMETRIES[basis][1]


def addresses(model: Model, layer: str, name: str, basis: Basis) -> Sequence[str]:
    """Addresses of all latents of a dictionary."""
    return [str(Unit(layer, i, model.name, name)) for i in range(len(basis.read))]


@section(NAME, "Geometry", quick=True, order=50)
def _shares_space(subject: Subject) -> SharesSpace | Nothing | None:
    unit, model = subject.unit, subject.model
    if unit.basis is None or unit.index is None or model.layers[unit.layer].windows is not None:
        return None  # a transcoder writes to another layer than it reads: its latents do not act on each other
    basis = model.basis(unit.layer, unit.basis)
    if not reads_linearly(basis):
        return Nothing("each latent of this dictionary reads what others have left: no cosine says how they interact")
    written = basis.write[unit.index].detach().float().cpu()
    shares = written.square() / written.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
    order = shares.argsort(descending=True, stable=True)[:_WRITES].tolist()
    return SharesSpace(
        writes=tuple((f"{model.name}/{unit.layer}:{c}", float(written[c]), float(shares[c])) for c in order),
        about=geometry_of(model, unit.layer, unit.basis, subject.seed).about(str(unit)),
    )


@renderer(NAME)
def _render(finding: SharesSpace, sheet: Sheet) -> Markup:
    about = finding.about
    text = (
        f"Its feature dimensionality is {about['dimensionality']:.2f}, above that of "
        f"{about['dimensionality_percentile']:.0f} % of as many {about['control']} directions; 1 is a dimension of "
        "its own. Each latent below is given with the cosine of the write directions, and with the change of its "
        f"activation per step along this latent. For 99 of 100 {about['control']} directions the largest cosine "
        f"is below {about['chance']:.2f}; latents below that are faint."
    )
    similar = [
        (
            str(other["unit"]),
            minus(f"cosine {other['cosine']:.2f}, step {other['effect']:+.2f}"),
            not other["beyond_chance"],
        )
        for other in about["shares_with"]
    ]
    rows = [(short(unit), minus(f"{weight:+.3g}"), f"{100 * share:.0f} %") for unit, weight, share in finding.writes]
    parts = [
        note(text),
        unit_grid(similar, sheet),
        tag("h4", "Outgoing weights to channels"),
        table(("channel", "weight", "share of squared length"), rows),
    ]
    return join(parts)
