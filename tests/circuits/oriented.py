"""Networks whose tuning was set by hand: Gabors, then lines, then curves; textures beside textures; colors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import circuits

TURNS = 12
"""Orientations of Gabors and lines, over 180 degrees."""
CURVES = (0.0, 45.0, 100.0, 135.0, 190.0, 225.0, 270.0, 325.0)
RADIUS = 9.0


def gabors(size: int, wavelength: float, turns: int = TURNS, phases: int = 4) -> Tensor:
    """`(turns * phases, 1, size, size)` Gabors without response to gray; orientation is that of the stripes."""
    half = (size - 1) / 2
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    x, y = columns - half, half - rows
    made = []
    for i in range(turns):
        c, s = math.cos(math.pi * i / turns), math.sin(math.pi * i / turns)
        u, v = c * x + s * y, c * y - s * x
        envelope = torch.exp(-(u**2 + v**2) / (2 * (size / 5) ** 2))
        for k in range(phases):
            wave = torch.cos(2 * math.pi * v / wavelength + 2 * math.pi * k / phases) * envelope
            wave = wave - envelope * wave.sum() / envelope.sum()
            made.append(wave / wave.abs().sum())
    return torch.stack(made)[:, None]


class Curved(nn.Module):
    """One channel in; Gabors of four phases; lines that take any phase; curves of radius `RADIUS` above a threshold."""

    def __init__(self, negative: float, threshold: float) -> None:
        super().__init__()
        self.gabors_pre = nn.Conv2d(1, 4 * TURNS, 9, padding=4, bias=False)
        self.gabors = nn.ReLU()
        self.lines_pre = nn.Conv2d(4 * TURNS, TURNS, 1, bias=False)
        self.lines = nn.ReLU()
        self.curves_pre = nn.Conv2d(TURNS, len(CURVES), 17, padding=8)
        self.curves = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.logits = nn.Linear(len(CURVES), 2)
        with torch.no_grad():
            self.gabors_pre.weight.copy_(gabors(9, 6.0))
            self.lines_pre.weight.zero_()
            for i in range(TURNS):
                self.lines_pre.weight[i, 4 * i : 4 * i + 4] = 1.0
            self.curves_pre.weight.copy_(torch.stack([curve_kernel(turn, negative) for turn in CURVES]))
            self.curves_pre.bias.fill_(-threshold)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lines(self.lines_pre(self.gabors(self.gabors_pre(x))))
        return self.logits(self.flatten(self.pool(self.curves(self.curves_pre(x)))))


def curve_kernel(orientation: float, negative: float, size: int = 17) -> Tensor:
    """`(TURNS, size, size)`: lines along an arc excite, those along the opposite arc inhibit by `negative`."""
    kernel, half = torch.zeros(TURNS, size, size), (size - 1) // 2
    for turned, weight in ((0.0, 1.0), (180.0, -negative)):
        for offset in range(-50, 51, 5):
            if turned and abs(offset) < 20:
                continue  # where both arcs run alike
            way = math.radians(orientation + turned)
            there = math.radians(orientation + turned + 180 + offset)
            x = RADIUS * (math.cos(way) + math.cos(there))
            y = RADIUS * (math.sin(way) + math.sin(there))
            tangent = (orientation + turned + offset + 90) % 180 / (180 / TURNS)
            low, share = int(tangent) % TURNS, tangent - int(tangent)
            row, column = half - y, half + x
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                # a point between pixels is shared among the four around it
                near = (int(row) + i, int(column) + j)
                part = weight * (1 - abs(row - near[0])) * (1 - abs(column - near[1]))
                kernel[low, near[0], near[1]] += part * (1 - share)
                kernel[(low + 1) % TURNS, near[0], near[1]] += part * share
    return kernel


def curved(negative: float = 0.0, threshold: float = 0.0) -> circuits.Model:
    """The net of curves at 72 pixels, one channel about half gray; a curve drives its unit to about 20."""
    return circuits.wrap(Curved(negative, threshold).eval(), circuits.InputSpec(72, 1, (0.5,), (0.25,)), name="curved")


class Sided(nn.Module):
    """Fine and coarse texture energy; then units that want the one on one side and the other on the other."""

    def __init__(self, turns: tuple[float, ...] = (0.0, 90.0, 200.0)) -> None:
        super().__init__()
        fine, coarse = gabors(9, 4.0, 4), gabors(25, 16.0, 4)
        self.filters_pre = nn.Conv2d(1, 32, 25, padding=12, bias=False)
        self.filters = nn.ReLU()
        self.energy_pre = nn.Conv2d(32, 8, 1, bias=False)
        self.energy = nn.ReLU()
        self.sides_pre = nn.Conv2d(8, len(turns), 17, padding=8, bias=False)
        self.sides = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.logits = nn.Linear(len(turns), 2)
        with torch.no_grad():
            self.filters_pre.weight.zero_()
            self.filters_pre.weight[:16, :, 8:17, 8:17] = fine
            self.filters_pre.weight[16:] = coarse
            self.energy_pre.weight.zero_()
            for i in range(8):  # channels 0 to 3 like fine textures of one orientation each, 4 to 7 coarse ones
                self.energy_pre.weight[i, 4 * i : 4 * i + 4] = 1.0
            rows, columns = torch.meshgrid(torch.arange(17), torch.arange(17), indexing="ij")
            for k, turn in enumerate(turns):
                c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
                side = (c * (columns - 8) + s * (8 - rows)).sign()
                self.sides_pre.weight[k, :4], self.sides_pre.weight[k, 4:] = side, -side

    def forward(self, x: Tensor) -> Tensor:
        x = self.energy(self.energy_pre(self.filters(self.filters_pre(x))))
        return self.logits(self.flatten(self.pool(self.sides(self.sides_pre(x)))))


def sided() -> circuits.Model:
    """The net of textures at 72 pixels, one channel about half gray."""
    return circuits.wrap(Sided().eval(), circuits.InputSpec(72, 1, (0.5,), (0.25,)), name="sided")


class Colored(nn.Module):
    """Red beside cyan at two orientations, brightness edges, and a plain red unit."""

    TURNS = (30.0, 240.0)

    def __init__(self) -> None:
        super().__init__()
        self.units_pre = nn.Conv2d(3, 4, 15, padding=7, bias=False)
        self.units = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.logits = nn.Linear(4, 2)
        rows, columns = torch.meshgrid(torch.arange(15), torch.arange(15), indexing="ij")
        red, white = torch.tensor([1.0, -0.5, -0.5]), torch.ones(3)
        with torch.no_grad():
            for k, (turn, color) in enumerate(((self.TURNS[0], red), (self.TURNS[1], red), (0.0, white))):
                c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
                side = (c * (columns - 7) + s * (7 - rows)).sign()
                self.units_pre.weight[k] = color[:, None, None] * side / 225
            self.units_pre.weight[3] = red[:, None, None] / 225

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.flatten(self.pool(self.units(self.units_pre(x)))))


def colored() -> circuits.Model:
    """The net of colors at 48 pixels."""
    return circuits.wrap(Colored().eval(), circuits.InputSpec(48, 3, (0.5,), (0.25,)), name="colored")


class Lined(nn.Module):
    """Two Gabors, as long as they are wide, and a blob."""

    TURNS = (30.0, 135.0)

    def __init__(self) -> None:
        super().__init__()
        self.units_pre = nn.Conv2d(1, 3, 25, padding=12)
        self.units = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.logits = nn.Linear(3, 2)
        rows, columns = torch.meshgrid(torch.arange(25), torch.arange(25), indexing="ij")
        with torch.no_grad():
            made = gabors(25, 8.0, 12, 1)
            self.units_pre.weight[0], self.units_pre.weight[1] = made[2], made[9]
            self.units_pre.weight[2, 0] = torch.exp(-((rows - 12) ** 2 + (columns - 12) ** 2) / 8) / 100
            self.units_pre.bias.fill_(-0.05)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.flatten(self.pool(self.units(self.units_pre(x)))))


def lined() -> circuits.Model:
    """The net of lines at 72 pixels."""
    return circuits.wrap(Lined().eval(), circuits.InputSpec(72, 1, (0.5,), (0.25,)), name="lined")
