"""SqueezeNet 1.1 in Caffe's layer names, flat, with every ReLU a module of its own.

SqueezeNet: AlexNet-level accuracy with 50x fewer parameters (Iandola et al. 2016, arXiv:1602.07360), version 1.1
of the authors' repository. As in `InceptionV1`, a unit-bearing layer is a ReLU named `fire5`, its input
`fire5_pre`; the two branches of a fire module are concatenated before one ReLU.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.cards import Card, WeightsFile, register
from zoo.images.classes import imagenet_classes
from zoo.inputs import CAFFE_INPUT
from zoo.networks.inceptionv1 import Concat
from zoo.networks.initialization import he_init
from zoo.networks.pooling import MaxPool2d

FIRE = {
    "fire2": (16, 64),
    "fire3": (16, 64),
    "fire4": (32, 128),
    "fire5": (32, 128),
    "fire6": (48, 192),
    "fire7": (48, 192),
    "fire8": (64, 256),
    "fire9": (64, 256),
}
"""Fire module -> channels of its squeeze and of each of its two expansions."""

_POOL_AFTER = ("conv1", "fire3", "fire5")


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1. Input `(N, 3, H, W)` in the network's own range; gives probabilities `(N, classes)`.

    The logits are the layer `softmax_pre`: the spatial mean of `conv10`. No ReLU works in place.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.branches: dict[str, tuple[str, int, int]] = {}
        self.conv1_pre = nn.Conv2d(3, 64, 3, stride=2)
        self.conv1 = nn.ReLU()
        for name in _POOL_AFTER:
            self.add_module(f"{name}_maxpool", MaxPool2d(3, 2, ceil_mode=True))
        channels = 64
        for name, (squeeze, expand) in FIRE.items():
            self._add_fire(name, channels, squeeze, expand)
            channels = 2 * expand
        self.dropout = nn.Dropout(0.5)
        self.conv10_pre = nn.Conv2d(channels, classes, 1)
        self.conv10 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.softmax_pre = nn.Flatten()
        self.softmax = nn.Softmax(dim=1)

    def _add_fire(self, name: str, channels: int, squeeze: int, expand: int) -> None:
        self.add_module(f"{name}_squeeze1x1_pre", nn.Conv2d(channels, squeeze, 1))
        self.add_module(f"{name}_squeeze1x1", nn.ReLU())
        self.add_module(f"{name}_expand1x1_pre", nn.Conv2d(squeeze, expand, 1))
        self.add_module(f"{name}_expand3x3_pre", nn.Conv2d(squeeze, expand, 3, padding=1))
        self.add_module(f"{name}_pre", Concat())
        self.add_module(name, nn.ReLU())
        self.branches[f"{name}_expand1x1"] = (name, 0, expand)
        self.branches[f"{name}_expand3x3"] = (name, expand, 2 * expand)

    def _run(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x)  # type: ignore[no-any-return]

    def _fire(self, name: str, x: Tensor) -> Tensor:
        squeezed = self._run(f"{name}_squeeze1x1", self._run(f"{name}_squeeze1x1_pre", x))
        expand1x1 = self._run(f"{name}_expand1x1_pre", squeezed)
        expand3x3 = self._run(f"{name}_expand3x3_pre", squeezed)
        merged: Tensor = self.get_submodule(f"{name}_pre")(expand1x1, expand3x3)
        return self._run(name, merged)

    def logits(self, x: Tensor) -> Tensor:
        """Class scores before the softmax, `(N, classes)`."""
        x = self._run("conv1_maxpool", self.conv1(self.conv1_pre(x)))
        for name in FIRE:
            x = self._fire(name, x)
            if name in _POOL_AFTER:
                x = self._run(f"{name}_maxpool", x)
        x = self.conv10(self.conv10_pre(self.dropout(x)))
        return self.softmax_pre(self.avgpool(x))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Class probabilities, `(N, classes)`."""
        return self.softmax(self.logits(x))  # type: ignore[no-any-return]


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state from Caffe's names."""
    renamed = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        name = layer.replace("/", "_")
        renamed[f"{name}.{kind}" if name.endswith("_pre") else f"{name}_pre.{kind}"] = tensor
    return renamed


register(
    Card(
        name="squeezenet-1.1",
        title="SqueezeNet 1.1",
        summary="A small network of fire modules, trained in Caffe: a second one, for universality.",
        input=CAFFE_INPUT,
        build=lambda: he_init(SqueezeNet()),
        weights=WeightsFile(
            filename="squeezenet1_1.safetensors",
            sha256="e7414997fb97fa828df91239f6ab7ca4697576e15ffc453c0b5ca803c6b317ce",
        ),
        rename=rename,
        classes=imagenet_classes,
        aliases={"logits": "softmax_pre"},
        license="BSD-2-Clause",
        source="https://github.com/forresti/SqueezeNet",
        order=3,
    )
)
