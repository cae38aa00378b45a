"""Joint tuning: responses of several units while the top activating images of one of them are rotated."""

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
from circuits.network.address import Unit, is_address_of
from circuits.network.layer import Layer
from circuits.network.model import Model
from circuits.stimuli.base import Axis, angles
from circuits.tuning.circular_statistics import vector_mean
from circuits.tuning.curves import Curve
from circuits.tuning.placement import Reader, View, digests, units_of, view_of
from zoo.common.results import Result
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter


@dataclass(frozen=True, eq=False)
class JointTuning(Result):
    """Responses of units while examples of one of them are rotated.

    Attributes:
        unit: whose examples were rotated; units: those read, that one first.
        angles: degrees that each image was rotated by, counter-clockwise.
        responses: `(units, examples, angles)`.
        examples: positions in images.
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
        """Mean over examples, `(units, angles)`: the published joint tuning curves."""
        return self.responses.mean(dim=1)

    @property
    def aligned(self) -> Tensor:
        """Mean over examples, each first rotated so that `unit` responds most at 0, `(units, angles)`.

        The peak of `unit` itself at 0 is due to this choice: noise would have one, too. Peaks of other units are not.
        Examples without a response at any angle are left out; NaN where none is left.
        """
        own = self.responses[0]
        active = [i for i in range(own.shape[0]) if float(own[i].max()) > 0]
        if not active:
            return torch.full_like(self.mean, math.nan)
        shifted = [self.responses[:, i].roll(-int(own[i].argmax()), dims=1) for i in active]
        return torch.stack(shifted).mean(dim=0)

    @property
    def directions(self) -> Tensor:
        """Circular mean of each unit's mean curve, degrees `(units,)`."""
        return vector_mean(self.mean, self.angles.values, 360.0)[0]

    def curve(self, unit: str) -> Curve:
        """The mean curve of one unit, for `plot.radial_tuning`.

        Raises:
            CircuitsError: it was not read.
        """
        for i, address in enumerate(self.units):
            if is_address_of(unit, address):
                return Curve(address, self.angles, self.mean[i], {"examples": len(self.examples)})
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
    """Rotate images about a position at which a unit is active, and read it (and others of its layer) at every angle.

    Each image is rotated about the center of the receptive field of the example's position, reflected at its border,
    and placed so that this point is the center of the units' receptive field. After Cammarata et al., *Curve
    Detectors*, Distill 2020.

    Args:
        model: the model.
        unit: whose examples these are.
        examples: positions in images, from a traced circuit, `Evidence`, a scan, or your own.
        images: the images that `Example.image` counts, in any form that `capture` takes.
        units: further units of the same layer to read.
        turns: how many angles over 360 degrees, or which.
        reach: positions around the center that are read too; the maximum counts.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        AddressError: units of several layers. CircuitsError: no examples, examples of other images, or of
            positions that the layer does not have.
    """
    model.check_images("tuning")
    first = model.unit(unit).channel
    layer, read_units = units_of(model, [first, *units])
    source = open_images(images)
    view = view_of(model, layer, reach)
    _check(examples, source, layer)
    steps = angles(turns, 360, "turn")
    rows, total = [], len(examples) * len(steps)
    with reporter(progress, "img") as report:
        for k, example in enumerate(examples):
            image = source.tensor(model.input, [example.image])
            center = _center(model, layer, example.position)
            if layer.receptive_field is None:
                # the receptive field of a position is not known: the image is rotated in place, and not moved
                view = replace(view, position=example.position, center=center)
            reader = Reader(model, layer, read_units, view)
            batches = [steps.values[i : i + batch_size] for i in range(0, len(steps), batch_size)]
            rows.append(torch.cat([reader(_rotated(image, degrees, center, view)) for degrees in batches]).T)
            report((k + 1) * len(steps), total)
    return JointTuning(
        unit=str(first),
        units=tuple(str(u) for u in read_units),
        angles=steps,
        responses=torch.stack(rows, dim=1),
        examples=tuple(examples),
        provenance=provenance(**digests(model, images=source.name, reach=reach)),
    )


def _check(examples: Sequence[Example], images: Images, layer: Layer) -> None:
    if not examples:
        raise CircuitsError("joint tuning needs at least one example: a position at which the unit is active")
    size = layer.size or (1, 1)
    for e in examples:
        if not 0 <= e.image < len(images) or images.ids[e.image] != e.id:
            raise CircuitsError(
                f"image {e.image} of {shorten(images.name)} is not {shorten(e.id)!r}: give the images that the "
                "examples are from"
            )
        if not (0 <= e.position[0] < size[0] and 0 <= e.position[1] < size[1]):
            raise CircuitsError(f"{layer.name} is {size[0]}x{size[1]} positions; an example is at {e.position}")


def _center(model: Model, layer: Layer, position: tuple[int, int]) -> tuple[float, float]:
    """Row and column of the center of a position's receptive field in the model's input."""
    field, hw = layer.receptive_field, model.input.hw
    if field is None or layer.size is None:
        size = layer.size or (1, 1)
        return ((position[0] + 0.5) / size[0] * hw[0] - 0.5, (position[1] + 0.5) / size[1] * hw[1] - 0.5)
    center = [position[a] * field.stride[a] + field.offset[a] + (field.size[a] - 1) / 2 for a in range(2)]
    return center[0], center[1]


def _rotated(image: Tensor, degrees: Sequence[float], center: tuple[float, float], view: View) -> Tensor:
    """`image` `(1, C, H, W)` rotated about `center`, which is moved to the view's center: `(degrees, C, h, w)`."""
    height, width = view.spec.hw
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - view.center[0],
        torch.arange(width, dtype=torch.float64) - view.center[1],
        indexing="ij",
    )
    grids = []
    for turn in map(math.radians, degrees):
        c, s = math.cos(turn), math.sin(turn)
        # rows grow downwards, so that a counter-clockwise rotation in the image has these signs
        x, y = c * columns - s * rows + center[1], s * columns + c * rows + center[0]
        grids.append(torch.stack([_scaled(x, image.shape[3]), _scaled(y, image.shape[2])], dim=-1))
    grid = torch.stack(grids).to(image.dtype)
    batch = image.expand(len(degrees), -1, -1, -1)
    return F.grid_sample(batch, grid, mode="bilinear", padding_mode="reflection", align_corners=True).clamp(0, 1)


def _scaled(values: Tensor, size: int) -> Tensor:
    return values * (2 / max(1, size - 1)) - 1
