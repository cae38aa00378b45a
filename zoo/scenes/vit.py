"""The network of the `scenes-vit` card: a small vision transformer for the same 64-pixel images as `scenes`.

Pre-norm blocks as in An Image is Worth 16x16 Words (Dosovitskiy et al. 2021), a class token and learned positions.
Three small strided convolutions make the 8x8 grid of patch tokens instead of one large one: with these a network this
small learns from far fewer images (Early Convolutions Help Transformers See Better, Xiao et al. 2021).

Everything that people ask of a transformer is the output of a module, so that it is a layer: the stream after a block
(`block2`), what attention and the MLP add to it (`block2.attention`, `block2.mlp`), the MLP's hidden neurons
(`block2.mlp.neurons`), the attention pattern (`block2.attention.pattern`) and each head's output before the projection
(`block2.attention.heads`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.scenes.generate import CLASSES, SIZE

WEIGHTS = Path(__file__).with_name("scenes_vit.safetensors")
"""The packaged weights, float16: state_dict keys of `VisionTransformer`."""


@dataclass(frozen=True)
class VisionTransformerSpec:
    """Widths of a `VisionTransformer`.

    Attributes:
        dim: of the stream; depth: number of blocks; heads: of each attention; hidden: neurons of each MLP.
        stem: channels of the first two convolutions; the third has `dim`.
        size: side of the image in pixels; a patch is 8 pixels.
        classes: number of class scores.
    """

    dim: int = 96
    depth: int = 5
    heads: int = 4
    hidden: int = 384
    stem: tuple[int, int] = (24, 48)
    size: int = SIZE
    classes: int = len(CLASSES)


SPEC = VisionTransformerSpec()
"""Widths of the packaged network."""

PATCH = 8
"""Side of a patch in pixels."""


class Attention(nn.Module):
    """Self-attention over tokens `(N, T, dim)`; `heads` holds each head's output `(N, heads, T, dim / heads)`."""

    def __init__(self, spec: VisionTransformerSpec) -> None:
        super().__init__()
        self.count, self.width = spec.heads, spec.dim // spec.heads
        self.query = nn.Linear(spec.dim, spec.dim)
        self.key = nn.Linear(spec.dim, spec.dim)
        self.value = nn.Linear(spec.dim, spec.dim)
        self.pattern = nn.Softmax(dim=-1)
        self.heads = nn.Identity()
        self.out = nn.Linear(spec.dim, spec.dim)

    def forward(self, x: Tensor) -> Tensor:
        """What attention adds to the stream."""

        def split(tokens: Tensor) -> Tensor:
            return tokens.reshape(tokens.shape[0], tokens.shape[1], self.count, self.width).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        pattern = self.pattern(query @ key.transpose(2, 3) * self.width**-0.5)
        heads: Tensor = self.heads(pattern @ value)
        out: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """Two linear layers with a GELU between them; `neurons` are the hidden activations `(N, T, hidden)`."""

    def __init__(self, spec: VisionTransformerSpec) -> None:
        super().__init__()
        self.hidden = nn.Linear(spec.dim, spec.hidden)
        self.neurons = nn.GELU()
        self.out = nn.Linear(spec.hidden, spec.dim)

    def forward(self, x: Tensor) -> Tensor:
        """What the MLP adds to the stream."""
        out: Tensor = self.out(self.neurons(self.hidden(x)))
        return out


class Block(nn.Module):
    """Attention and MLP, each read through a LayerNorm and added to the stream."""

    def __init__(self, spec: VisionTransformerSpec) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(spec.dim), Attention(spec)
        self.norm2, self.mlp = nn.LayerNorm(spec.dim), MLP(spec)

    def forward(self, x: Tensor) -> Tensor:
        """The stream after the block."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class VisionTransformer(nn.Module):
    """Images `(N, 3, size, size)` in the network's range; gives class scores `(N, classes)`."""

    def __init__(self, spec: VisionTransformerSpec = SPEC) -> None:
        super().__init__()
        self.spec = spec
        first, second = spec.stem
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.patches = nn.Conv2d(second, spec.dim, 2, stride=2)
        self.class_token = nn.Parameter(torch.zeros(1, 1, spec.dim))
        self.positions = nn.Parameter(torch.randn(1, 1 + (spec.size // PATCH) ** 2, spec.dim) * 0.02)
        for index in range(spec.depth):
            self.add_module(f"block{index}", Block(spec))
        self.norm = nn.LayerNorm(spec.dim)
        self.scores = nn.Linear(spec.dim, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        patches = self.patches(self.stem(x)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(patches.shape[0], -1, -1), patches], dim=1) + self.positions
        for index in range(self.spec.depth):
            tokens = self.get_submodule(f"block{index}")(tokens)
        scores: Tensor = self.scores(self.norm(tokens)[:, 0])
        return scores


def build() -> VisionTransformer:
    """The network with random weights, in evaluation mode."""
    return VisionTransformer().eval()
