"""Lucent's transforms: in `render_vis` random for each image and composed into one sampling; functions by themselves.

Called by hand on images they give what Lucent's give: black outside, and larger images from a larger scale; random
numbers come from torch's own generator, so that `torch.manual_seed` holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from circuits.errors import VisualizationError
from circuits.visualization.transforms import Geometric, Jitter, Rotate, Scale, Transform, sampling_grid
from zoo.inputs import InputSpec

Function = Callable[[Tensor], Tensor]

IMAGENET = InputSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""How Lucent feeds networks that are not its own: as torchvision's were trained."""
INCEPTIONV1 = InputSpec(scale=255.0, mean=(117.0,))
"""How Lucent feeds what is called InceptionV1: as the TensorFlow network was trained."""


class _Moving(Geometric):
    """A transform of pixels that can also be called."""

    def __call__(self, images: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        half = torch.tensor([size[1] / 2, size[0] / 2, 1.0], dtype=torch.float64)
        u = torch.rand(len(images), self.numbers, dtype=torch.float64)
        maps = torch.diag(1 / half) @ self.affine(u, size, size) @ torch.diag(half)
        grid = sampling_grid(maps[:, :2].to(images.device), size)
        moved = F.grid_sample(images.double(), grid, align_corners=False)
        return moved.to(images.dtype if images.is_floating_point() else torch.float32)


class _Jitter(Jitter, _Moving):
    pass


class _Rotate(Rotate, _Moving):
    pass


class _Scale(Scale):
    """Called, it resizes all images by one of its scales, up to whole pixels, and centers smaller ones on black."""

    def __call__(self, images: Tensor) -> Tensor:
        assert isinstance(self.low, Sequence)
        scale = self.low[int(torch.randint(len(self.low), ()))]
        sides = images.shape[2:]
        resized = F.interpolate(
            images, [math.ceil(scale * side) for side in sides], mode="bilinear", align_corners=True
        )
        y, x = (max(0, math.ceil((side - new) / 2)) for side, new in zip(sides, resized.shape[2:], strict=True))
        return F.pad(resized, [x, x, y, y])


class Composed(Sequence[Transform | Function]):
    """Several transforms as one function; `render_vis` takes them one by one."""

    def __init__(self, transforms: Sequence[Transform | Function]) -> None:
        self._transforms = tuple(flattened(transforms))

    def __getitem__(self, i: int) -> Transform | Function:  # type: ignore[override]
        return self._transforms[i]

    def __len__(self) -> int:
        return len(self._transforms)

    def __call__(self, images: Tensor) -> Tensor:
        for transform in self._transforms:
            if not callable(transform):
                raise VisualizationError(
                    f"{transform} is no function: take `transform.jitter` and its like of this package, or give "
                    "render_vis a list of transforms"
                )
        return reduce(lambda x, transform: transform(x), self._transforms, images)  # type: ignore[operator]


def flattened(transforms: Sequence[Transform | Function]) -> Iterator[Transform | Function]:
    """Each transform, those inside of composed ones too."""
    for transform in transforms:
        yield from transform if isinstance(transform, Composed) else (transform,)


def pad(w: int, mode: str = "reflect", constant_value: float = 0.5) -> Function:
    """A border of `w` pixels; the image grows by it."""
    if mode == "constant":
        return lambda images: F.pad(images, [w] * 4, value=constant_value)
    return lambda images: F.pad(images, [w] * 4, mode=mode)


def jitter(d: int) -> Jitter:
    """Shift by up to half of `d` pixels each way."""
    if d <= 1:
        raise VisualizationError(f"jitter shifts over more than 1 pixel; got {d}")
    return _Jitter(d - 1)


def random_scale(scales: Sequence[float]) -> Scale:
    """Enlarge by one of these."""
    return _Scale(tuple(float(s) for s in scales))


def random_rotate(angles: Sequence[float], units: str = "degrees") -> Rotate:
    """Turn by one of these."""
    if units.lower() not in ("degrees", "radians", "rads", "rad"):
        raise VisualizationError(f"units of angles are degrees or radians, not {units!r}")
    factor = 1.0 if units.lower() == "degrees" else 180 / math.pi
    return _Rotate(tuple(float(a) * factor for a in angles))


def compose(transforms: Sequence[Transform | Function]) -> Composed:
    """One transform after the other, as a function of images or in `render_vis`."""
    return Composed(transforms)


def normalize() -> Function:
    """ImageNet's mean and deviation, as torchvision's networks are fed; for loops of your own."""
    return IMAGENET.normalize


def preprocess_inceptionv1() -> Function:
    """Images times 255 less 117, as the TensorFlow InceptionV1 is fed."""
    return INCEPTIONV1.normalize


standard_transforms = [
    pad(12, mode="constant", constant_value=0.5),
    jitter(8),
    random_scale([1 + (i - 5) / 50.0 for i in range(11)]),
    random_rotate([*range(-10, 11), 0, 0, 0, 0, 0]),
    jitter(4),
]
"""Lucent's default."""
