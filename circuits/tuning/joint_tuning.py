"""Joint tuning: turn photographs of what units look for, and see which unit answers when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.common.examples import Example
from circuits.common.provenance import provenance
from circuits.errors import CircuitsError, shorten
from circuits.network.address import Unit
from circuits.network.layer import Layer
from circuits.network.model import Model
from circuits.stimuli.base import Axis, angles
from circuits.tuning.circular_statistics import vector_mean
from circuits.tuning.curves import Curve
from circuits.tuning.placement import Reader, View, digests, units_of, view_of
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter


@dataclass(frozen=True, eq=False)
class JointTuning:
    """Responses of units while pictures of one of them are turned.

    Attributes:
        unit: whose examples were turned; units: those read, that one first.
        angles: degrees that each picture was turned by, counter-clockwise; 0 is as it was.
        responses: `(units, examples, angles)`.
        examples: the places in the pictures.
        provenance: digests, versions.
    """

    unit: str
    units: tuple[str, ...]
    angles: Axis
    responses: Tensor
    examples: tuple[Example, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """Mean over examples as they were found, `(units, angles)`: the published joint tuning curves."""
        return self.responses.mean(dim=1)

    @property
    def aligned(self) -> Tensor:
        """Mean over examples, each first turned so that `unit` answers it most at 0, `(units, angles)`.

        Examples that it does not answer to at any angle are left out; NaN where none is left.
        """
        own = self.responses[0]
        kept = [i for i in range(own.shape[0]) if float(own[i].max()) > 0]
        if not kept:
            return torch.full_like(self.mean, math.nan)
        shifted = [self.responses[:, i].roll(-int(own[i].argmax()), dims=1) for i in kept]
        return torch.stack(shifted).mean(dim=0)

    @property
    def directions(self) -> Tensor:
        """The turn that each unit answers to most, by its mean curve as a vector, degrees `(units,)`."""
        return vector_mean(self.mean, self.angles.values, 360.0)[0]

    def curve(self, unit: str) -> Curve:
        """The mean curve of one unit, to be drawn like any radial tuning curve.

        Raises:
            CircuitsError: it was not read.
        """
        for i, known in enumerate(self.units):
            if unit in (known, known.rpartition("/")[2]):
                return Curve(known, self.angles, self.mean[i], {"examples": len(self.examples)})
        raise CircuitsError(f"{shorten(unit)} was not read; read were {', '.join(self.units[:8])}")


def joint_tuning(
    model: Model,
    unit: str | Unit,
    examples: Sequence[Example],
    images: Any,
    *,
    units: Sequence[str | Unit] = (),
    turns: int | Sequence[float] = 36,
    reach: int = 1,
    batch_size: int = 32,
    progress: Progress = None,
) -> JointTuning:
    """Turn photographs about the place where a unit fires, and read it (and others of its layer) at every angle.

    Each photograph is turned about the middle of the receptive field of the example's position, mirrored beyond its
    border, and shown so that this point lies in the middle of the units' field. After Cammarata et al., *Curve
    Detectors*, Distill 2020.

    Args:
        model: the model.
        unit: whose examples these are.
        examples: places in pictures, from a traced circuit, `Evidence`, a scan, or made by hand.
        images: the pictures that `Example.image` counts, in any form that `capture` takes.
        units: further units of the same layer to read.
        turns: how many angles over 360 degrees, or which.
        reach: positions around the middle that are read too; the strongest counts.
        batch_size: pictures per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        AddressError: units of several layers. CircuitsError: no examples, examples of other pictures, or of
            positions that the layer does not have.
    """
    first = model.unit(unit).channel
    layer, read_units = units_of(model, [first, *units])
    pictures = open_images(images)
    view = view_of(model, layer, reach)
    _check(examples, pictures, layer)
    steps = angles(turns, 360, "turn")
    rows, total = [], len(examples) * len(steps)
    with reporter(progress, "img") as report:
        for k, example in enumerate(examples):
            picture = pictures.tensor(model.input, [example.image])
            middle = _middle(model, layer, example.position)
            if layer.receptive_field is None:
                # where a position looks is not known: the picture turns in its place, and is not moved
                view = replace(view, place=example.position, center=middle)
            reader = Reader(model, layer, read_units, view)
            made = []
            for start in range(0, len(steps), batch_size):
                made.append(reader(_turned(picture, steps.values[start : start + batch_size], middle, view)))
            rows.append(torch.cat(made).T)
            report((k + 1) * len(steps), total)
    return JointTuning(
        unit=str(first),
        units=tuple(str(u) for u in read_units),
        angles=steps,
        responses=torch.stack(rows, dim=1),
        examples=tuple(examples),
        provenance=provenance(**digests(model, images=pictures.name, reach=reach)),
    )


def _check(examples: Sequence[Example], pictures: Images, layer: Layer) -> None:
    if not examples:
        raise CircuitsError("joint tuning needs at least one example: a place in a picture where the unit fires")
    size = layer.size or (1, 1)
    for e in examples:
        if not 0 <= e.image < len(pictures) or pictures.ids[e.image] != e.id:
            raise CircuitsError(
                f"there is no picture {shorten(e.id)!r} at place {e.image} of {shorten(pictures.name)}: "
                "give the images that the examples were found on"
            )
        if not (0 <= e.position[0] < size[0] and 0 <= e.position[1] < size[1]):
            raise CircuitsError(f"{layer.name} is {size[0]}x{size[1]} positions; an example lies at {e.position}")


def _middle(model: Model, layer: Layer, position: tuple[int, int]) -> tuple[float, float]:
    """Row and column of the middle of a position's receptive field in the model's input."""
    field, hw = layer.receptive_field, model.input.hw
    if field is None or layer.size is None:
        size = layer.size or (1, 1)
        return ((position[0] + 0.5) / size[0] * hw[0] - 0.5, (position[1] + 0.5) / size[1] * hw[1] - 0.5)
    middle = [position[a] * field.stride[a] + field.offset[a] + (field.size[a] - 1) / 2 for a in range(2)]
    return middle[0], middle[1]


def _turned(picture: Tensor, turns: Sequence[float], middle: tuple[float, float], view: View) -> Tensor:
    """`picture` `(1, C, H, W)` turned about `middle`, which comes to lie at the view's center: `(turns, C, h, w)`."""
    height, width = view.spec.hw
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - view.center[0],
        torch.arange(width, dtype=torch.float64) - view.center[1],
        indexing="ij",
    )
    grids = []
    for degrees in turns:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        # rows grow downwards, so that a counter-clockwise turn as seen has these signs
        x, y = c * columns - s * rows + middle[1], s * columns + c * rows + middle[0]
        grids.append(torch.stack([_scaled(x, picture.shape[3]), _scaled(y, picture.shape[2])], dim=-1))
    grid = torch.stack(grids).to(picture.dtype)
    source = picture.expand(len(turns), -1, -1, -1)
    turned = F.grid_sample(source, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    return turned.clamp(0, 1)


def _scaled(values: Tensor, size: int) -> Tensor:
    return values * (2 / max(1, size - 1)) - 1
