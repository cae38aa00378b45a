"""The network of the `scenes` card: an InceptionV1 of four small blocks for 64-pixel images.

The receptive field of `mixed3b` is about one part (stride 8, 33 to 41 pixels through its 1x1 branch) and `mixed4a`
composes parts: its 5x5 kernels span 40 pixels of part positions, about one object. There is no pooling between the two,
so a kernel of `mixed3b -> mixed4a` reads directly as "this part, at this position of the object".
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from zoo.inputs import InputSpec
from zoo.networks.inceptionv1 import Block, InceptionSpec, InceptionV1
from zoo.scenes.generate import CLASSES, SIZE

SPEC = InceptionSpec(
    stem=(16, 24, 40),
    blocks={
        "mixed3a": Block(16, 24, 32, 8, 12, 8),
        "mixed3b": Block(10, 32, 24, 12, 10, 4),
        "mixed4a": Block(8, 16, 12, 32, 20, 8),
        "mixed4b": Block(12, 12, 12, 12, 12, 4),
    },
    pool_after=("conv2d0", "mixed3a"),
    lrn=None,
    classes=len(CLASSES),
    stem_kernel=5,
    stem_stride=2,
    # Two pixels more on the left than a 5x5 needs on the right: the unpadded max pools shift every map to
    # the lower right, and this takes half of that back.
    stem_padding=(3, 1, 3, 1),
    dropout=0.0,
)
"""Widths of the packaged network."""

PART_LAYER, OBJECT_LAYER, UNION_LAYER = "mixed3b", "mixed4a", "mixed4b"
"""Where parts, whole objects, and unions of objects (both dogs) are found."""

INPUT = InputSpec(size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

WEIGHTS = Path(__file__).with_name("scenes.safetensors")
"""The packaged weights: InceptionV1 state_dict keys for `SPEC`."""

LABELS_WEIGHTS = Path(__file__).with_name("scenes_labels.safetensors")
"""Those of `scenes-labels`: trained on labels alone."""


def build() -> InceptionV1:
    """The network with random weights, in evaluation mode."""
    return InceptionV1(SPEC).eval()


def trunk(module: InceptionV1, x: Tensor, after: str | None = None) -> dict[str, Tensor]:
    """Every layer of the trunk, and the logits, without hooks.

    Args:
        module: a network of `SPEC`, or of any spec without LRN.
        x: images `(N, 3, H, W)` in the network's range, i.e. after `INPUT.normalize`; or the activations of `after`.
        after: the layer that `x` holds; only what lies above it is computed.

    Returns:
        "conv2d0" ... "mixed4b" `(N, C, h, w)`, each before the pooling that follows it, the blocks also
        before their ReLU ("mixed3a_pre" ...), and "softmax_pre" `(N, classes)`.
    """
    activations: dict[str, Tensor] = {}
    names = ["conv2d0", "conv2d1", "conv2d2", *module.spec.blocks]
    if after is not None:
        names = names[names.index(after) + 1 :]
        x = module._pool(after, x)
    for name in names:
        if name in module.spec.blocks:
            activations[f"{name}_pre"] = before = _before_relu(module, name, x)
        else:
            before = module.get_submodule(f"{name}_pre")(module.pad(x) if name == "conv2d0" else x)
        activations[name] = torch.relu(before)
        x = module._pool(name, activations[name])
    activations["softmax_pre"] = module.softmax_pre(x.mean(dim=(2, 3)))
    return activations


def _before_relu(module: InceptionV1, name: str, x: Tensor) -> Tensor:
    get = module.get_submodule
    three = torch.relu(get(f"{name}_3x3_bottleneck_pre")(x))
    five = torch.relu(get(f"{name}_5x5_bottleneck_pre")(x))
    branches = [get(f"{name}_1x1_pre")(x), get(f"{name}_3x3_pre")(three), get(f"{name}_5x5_pre")(five)]
    return torch.cat([*branches, get(f"{name}_pool_proj_pre")(get(f"{name}_pool")(x))], dim=1)


def centers(spec: InceptionSpec, layer: str) -> tuple[int, int]:
    """`(offset, stride)`: position i of `layer` is centered on pixel `offset + i * stride`, on both axes.

    For specs whose padding is the same on both axes; the blocks' own convolutions do not shift anything.
    """
    stride = spec.stem_stride
    offset = (spec.stem_kernel - 1) // 2 - spec.stem_padding[0]
    for name in ("conv2d0", "conv2d1", "conv2d2", *spec.blocks):
        if name == layer:
            return offset, stride
        if name in spec.pool_after:
            offset, stride = offset + stride, stride * 2
    raise KeyError(layer)


@cache
def taught_parts() -> dict[str, int]:
    """Part -> the channel of `PART_LAYER` that was trained to detect it in the packaged network.

    >>> sorted(taught_parts())[:2]
    ['bus_body', 'car_body']
    """
    with safe_open(WEIGHTS, "pt") as file:
        channels: dict[str, int] = json.loads(file.metadata()["part_channels"])
    return channels
