"""InceptionV1 (GoogLeNet) in Lucid's layer names: one module for every published variant, by a frozen spec.

Going deeper with convolutions (Szegedy et al. 2014, arXiv:1409.4842). Each unit-bearing layer is a ReLU
*module* named as in Lucid (`conv2d2`, `mixed4c`); its input carries the suffix `_pre`. The four branches
of a block are concatenated before one ReLU, which is the same function as four ReLUs before the
concatenation; the branch `mixed4c_5x5` is then channels 384..447 of `mixed4c`, listed in `branches`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from zoo.networks.normalization import LocalResponseNorm
from zoo.networks.pooling import MaxPool2d


@dataclass(frozen=True)
class Block:
    """Channels of one inception block: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection."""

    conv1x1: int
    reduce3x3: int
    conv3x3: int
    reduce5x5: int
    conv5x5: int
    pool_proj: int

    @property
    def branches(self) -> dict[str, tuple[int, int]]:
        """Branch name -> half-open channel range in the concatenated output."""
        ranges, start = {}, 0
        for name, width in (
            ("1x1", self.conv1x1),
            ("3x3", self.conv3x3),
            ("5x5", self.conv5x5),
            ("pool_proj", self.pool_proj),
        ):
            ranges[name] = (start, start + width)
            start += width
        return ranges

    @property
    def channels(self) -> int:
        """Channels of the concatenated output."""
        return self.conv1x1 + self.conv3x3 + self.conv5x5 + self.pool_proj


@dataclass(frozen=True)
class LRN:
    """Local response normalization across channels (`nn.LocalResponseNorm`'s parameters)."""

    size: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True)
class InceptionSpec:
    """Everything in which the variants of InceptionV1 differ.

    Attributes:
        stem: channels of conv2d0, conv2d1, conv2d2.
        blocks: block name -> channels, in order.
        pool_after: names of the layers followed by a 3x3 stride-2 max pool.
        lrn: normalization after the first pool and after conv2d2, or None.
        stem_kernel, stem_stride: of conv2d0.
        stem_padding: (left, right, top, bottom) zero padding of conv2d0; TensorFlow's SAME is uneven.
        classes: outputs of the classifier.
        dropout: before the classifier.
    """

    stem: tuple[int, int, int]
    blocks: dict[str, Block] = field(hash=False)
    pool_after: tuple[str, ...]
    lrn: LRN | None
    classes: int
    stem_kernel: int = 7
    stem_stride: int = 2
    stem_padding: tuple[int, int, int, int] = (3, 3, 3, 3)
    dropout: float = 0.4
    channels_in: int = 3


def published_blocks(*, mixed4a_3x3: int, mixed5a_5x5_reduce: int) -> dict[str, Block]:
    """Blocks of the published networks, which differ in two widths."""
    return {
        "mixed3a": Block(64, 96, 128, 16, 32, 32),
        "mixed3b": Block(128, 128, 192, 32, 96, 64),
        "mixed4a": Block(192, 96, mixed4a_3x3, 16, 48, 64),
        "mixed4b": Block(160, 112, 224, 24, 64, 64),
        "mixed4c": Block(128, 128, 256, 24, 64, 64),
        "mixed4d": Block(112, 144, 288, 32, 64, 64),
        "mixed4e": Block(256, 160, 320, 32, 128, 128),
        "mixed5a": Block(256, 160, 320, mixed5a_5x5_reduce, 128, 128),
        "mixed5b": Block(384, 192, 384, 48, 128, 128),
    }


POOL_AFTER = ("conv2d0", "conv2d2", "mixed3b", "mixed4e")
"""Layers of the published networks that a max pool follows."""

TENSORFLOW_5H = InceptionSpec(
    stem=(64, 64, 192),
    blocks=published_blocks(mixed4a_3x3=204, mixed5a_5x5_reduce=48),
    pool_after=POOL_AFTER,
    lrn=LRN(size=11, alpha=11 * 1e-4, beta=0.5, k=2.0),
    stem_padding=(2, 3, 2, 3),
    classes=1008,
)
"""The TensorFlow "5h" network of Lucid, Lucent, Microscope and the Circuits thread."""


class Concat(nn.Module):
    """Concatenation along channels, as a module so that it has a name."""

    def forward(self, *parts: Tensor) -> Tensor:
        """`parts`, each `(N, C_i, H, W)`, as one `(N, sum of C_i, H, W)`."""
        return torch.cat(parts, dim=1)


class InceptionV1(nn.Module):
    """InceptionV1 as `spec` describes it. Input `(N, 3, H, W)` in the network's own range.

    `forward` gives class probabilities `(N, classes)`; the logits are the layer `softmax_pre`, also
    returned by `logits`. No ReLU works in place, so what a hook captures stays as it was.
    """

    def __init__(self, spec: InceptionSpec) -> None:
        super().__init__()
        self.spec = spec
        self.branches: dict[str, tuple[str, int, int]] = {}
        c0, c1, c2 = spec.stem
        self.pad = nn.ZeroPad2d(spec.stem_padding)
        self.conv2d0_pre = nn.Conv2d(spec.channels_in, c0, spec.stem_kernel, spec.stem_stride)
        self.conv2d0 = nn.ReLU()
        self.conv2d1_pre = nn.Conv2d(c0, c1, 1)
        self.conv2d1 = nn.ReLU()
        self.conv2d2_pre = nn.Conv2d(c1, c2, 3, padding=1)
        self.conv2d2 = nn.ReLU()
        if spec.lrn is not None:
            lrn = spec.lrn
            self.lrn0 = LocalResponseNorm(lrn.size, lrn.alpha, lrn.beta, lrn.k)
            self.lrn1 = LocalResponseNorm(lrn.size, lrn.alpha, lrn.beta, lrn.k)
        for name in spec.pool_after:
            self.add_module(f"{name}_maxpool", MaxPool2d(3, 2, ceil_mode=True))
        channels = c2
        for name, block in spec.blocks.items():
            self._add_block(name, block, channels)
            channels = block.channels
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(spec.dropout)
        self.softmax_pre = nn.Linear(channels, spec.classes)
        self.softmax = nn.Softmax(dim=1)

    def _add_block(self, name: str, block: Block, channels_in: int) -> None:
        self.add_module(f"{name}_1x1_pre", nn.Conv2d(channels_in, block.conv1x1, 1))
        self.add_module(f"{name}_3x3_bottleneck_pre", nn.Conv2d(channels_in, block.reduce3x3, 1))
        self.add_module(f"{name}_3x3_bottleneck", nn.ReLU())
        self.add_module(f"{name}_3x3_pre", nn.Conv2d(block.reduce3x3, block.conv3x3, 3, padding=1))
        self.add_module(f"{name}_5x5_bottleneck_pre", nn.Conv2d(channels_in, block.reduce5x5, 1))
        self.add_module(f"{name}_5x5_bottleneck", nn.ReLU())
        self.add_module(f"{name}_5x5_pre", nn.Conv2d(block.reduce5x5, block.conv5x5, 5, padding=2))
        self.add_module(f"{name}_pool", MaxPool2d(3, 1, padding=1))
        self.add_module(f"{name}_pool_proj_pre", nn.Conv2d(channels_in, block.pool_proj, 1))
        self.add_module(f"{name}_pre", Concat())
        self.add_module(name, nn.ReLU())
        for branch, (start, stop) in block.branches.items():
            self.branches[f"{name}_{branch}"] = (name, start, stop)

    def _run(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x)  # type: ignore[no-any-return]

    def _block(self, name: str, x: Tensor) -> Tensor:
        branch_1x1 = self._run(f"{name}_1x1_pre", x)
        branch_3x3 = self._run(f"{name}_3x3_bottleneck", self._run(f"{name}_3x3_bottleneck_pre", x))
        branch_3x3 = self._run(f"{name}_3x3_pre", branch_3x3)
        branch_5x5 = self._run(f"{name}_5x5_bottleneck", self._run(f"{name}_5x5_bottleneck_pre", x))
        branch_5x5 = self._run(f"{name}_5x5_pre", branch_5x5)
        pool = self._run(f"{name}_pool_proj_pre", self._run(f"{name}_pool", x))
        merged: Tensor = self.get_submodule(f"{name}_pre")(branch_1x1, branch_3x3, branch_5x5, pool)
        return self._run(name, merged)

    def _pool(self, name: str, x: Tensor) -> Tensor:
        return self._run(f"{name}_maxpool", x) if name in self.spec.pool_after else x

    def logits(self, x: Tensor) -> Tensor:
        """Class scores before the softmax, `(N, classes)`."""
        normalized = self.spec.lrn is not None
        x = self._pool("conv2d0", self.conv2d0(self.conv2d0_pre(self.pad(x))))
        x = self.lrn0(x) if normalized else x
        x = self.conv2d1(self.conv2d1_pre(x))
        x = self.conv2d2(self.conv2d2_pre(x))
        x = self.lrn1(x) if normalized else x
        x = self._pool("conv2d2", x)
        for name in self.spec.blocks:
            x = self._pool(name, self._block(name, x))
        return self.softmax_pre(self.dropout(self.flatten(self.avgpool(x))))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Class probabilities, `(N, classes)`."""
        return self.softmax(self.logits(x))  # type: ignore[no-any-return]


LUCID_ALIASES = {"logits": "softmax_pre", "softmax2_pre_activation": "softmax_pre", "softmax2": "softmax"}
"""Lucid's names of the output layers -> ours."""


def layer_aliases(spec: InceptionSpec) -> dict[str, str]:
    """Lucid's and Lucent's names of layers -> ours."""
    # Lucid calls the projection after a block's pool `pool_reduce`, Lucent the pre-activations `_pre_relu_conv`.
    aliases = dict(LUCID_ALIASES)
    for block in spec.blocks:
        aliases[f"{block}_pool_reduce"] = f"{block}_pool_proj"
        for part in ("1x1", "3x3_bottleneck", "3x3", "5x5_bottleneck", "5x5"):
            aliases[f"{block}_{part}_pre_relu_conv"] = f"{block}_{part}_pre"
        aliases[f"{block}_pool_reduce_pre_relu_conv"] = f"{block}_pool_proj_pre"
    for stem in ("conv2d0", "conv2d1", "conv2d2"):
        aliases[f"{stem}_pre_relu_conv"] = f"{stem}_pre"
    return aliases
