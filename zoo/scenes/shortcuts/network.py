"""The networks of `scenes-shortcuts`: five convolutions and a linear layer."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from zoo.inputs import InputSpec
from zoo.scenes.generate import SIZE
from zoo.scenes.shortcuts.generate import CLASSES

INPUT = InputSpec(size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

WEIGHTS = Path(__file__).with_name("weights")
"""The packaged networks: a file each, float16."""

WIDTHS = (16, 32, 40, 56, 56)
_SIDES = ((5, 2), (3, 2), (3, 1), (3, 2), (3, 1))
"""Side and stride of each convolution."""


class ShortcutCNN(nn.Module):
    """Images `(N, 3, 64, 64)` in the network's range; gives class scores `(N, classes)`.

    `conv1` to `conv5` are the activations after the ReLU, on maps of 32, 16, 16, 8 and 8 pixels.
    """

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        before = 3
        for index, (width, (side, stride)) in enumerate(zip(WIDTHS, _SIDES, strict=True), start=1):
            self.add_module(f"conv{index}_pre", nn.Conv2d(before, width, side, stride, side // 2))
            self.add_module(f"conv{index}", nn.ReLU())
            before = width
        self.scores = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        for index in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"conv{index}")(self.get_submodule(f"conv{index}_pre")(x))
        scores: Tensor = self.scores(x.mean(dim=(2, 3)))
        return scores


def build() -> ShortcutCNN:
    """The network with random weights, in evaluation mode."""
    return ShortcutCNN().eval()
