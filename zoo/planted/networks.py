"""Small convolutional networks with known edges: half set by hand, half trained to have them.

After InterpBench (Gupta et al. 2024, arXiv 2407.14494). Each has a program (`program.py`) and for each of its variables
a channel. In those set by hand the channels of a gate read the channels of its parents and nothing else. The others are
trained by interchange interventions on edges (Geiger et al. 2022, 2112.00826; strict as in InterpBench): what an edge
of the program carries, taken from another image, changes the outputs as it changes the program's, and all other edges
change nothing, though none of their weights is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from zoo.common.checks import whole_number
from zoo.planted.program import MARKS, OUTPUTS, SIZE, Program, program

SEEDS = 20
"""Networks: the first half is set by hand, the second half trained."""
CHANNELS = 10
WEIGHTS = Path(__file__).with_name("planted.safetensors")
"""The trained ones, float16."""


class PlantedCNN(nn.Module):
    """A 3 x 3 convolution, a maximum over all positions, two 1 x 1 convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first_pre = nn.Conv2d(3, CHANNELS, 3)
        self.first = nn.ReLU()
        self.pool = nn.MaxPool2d(SIZE - 2)
        self.second_pre = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.second = nn.ReLU()
        self.third_pre = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.third = nn.ReLU()
        self.flatten = nn.Flatten()
        self.scores = nn.Linear(CHANNELS, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(N, OUTPUTS)` of images `(N, 3, SIZE, SIZE)`: above zero where the program's output is on."""
        x = self.first(self.first_pre(x))
        x = self.second(self.second_pre(self.pool(x)))
        x = self.third(self.third_pre(x))
        scores: Tensor = self.scores(self.flatten(x))
        return scores

    @property
    def readers(self) -> list[nn.Conv2d | nn.Linear]:
        """What reads "first", "second" and "third": `(children, sources)` weights, with trailing ones."""
        return [self.second_pre, self.third_pre, self.scores]


LAYERS = ("first", "second", "third")


@dataclass(frozen=True, eq=False)
class PlantedNetwork:
    """A network and its edges.

    Attributes:
        seed: of its program; trained: whether by interchange interventions, or set by hand.
        module: takes images `(N, 3, 12, 12)` in [0, 1].
        program: what it computes.
        channels: for each of the layers "first", "second" and "third" the channel of each variable.
    """

    seed: int
    trained: bool
    module: PlantedCNN
    program: Program
    channels: tuple[tuple[int, ...], ...]

    def edges(self) -> list[list[tuple[int, int]]]:
        """For each step the edges (child, source) that lead to the first output: channels, and its index 0."""
        return _edges(self.program.circuit, self.channels)


def _edges(steps: list[list[tuple[int, int]]], channels: tuple[tuple[int, ...], ...]) -> list[list[tuple[int, int]]]:
    children = (*channels[1:], tuple(range(OUTPUTS)))
    return [
        [(after[c], before[p]) for c, p in step] for step, before, after in zip(steps, channels, children, strict=True)
    ]


def channels_of(seed: int) -> tuple[tuple[int, ...], ...]:
    """For each layer the channels of the program's variables, at random."""
    rng = np.random.default_rng([seed, 2])
    counts = [MARKS, *(len(gates) for gates in program(seed).layers)]
    return tuple(tuple(int(c) for c in rng.permutation(CHANNELS)[:count]) for count in counts)


@lru_cache(maxsize=SEEDS)
def planted(seed: int) -> PlantedNetwork:
    """One of the networks: the first ten are set by hand, the others trained.

    Raises:
        CircuitsError: no network of that number.

    >>> [len(step) for step in planted(0).edges()][-1] in (1, 2)
    True
    """
    whole_number("seed", seed, least=0, most=SEEDS - 1)
    trained = seed >= SEEDS // 2
    module = PlantedCNN()
    if trained:
        stored = load_file(WEIGHTS)
        prefix = f"{seed}."
        module.load_state_dict({k.removeprefix(prefix): v.float() for k, v in stored.items() if k.startswith(prefix)})
    else:
        set_by_hand(module, seed)
    return PlantedNetwork(seed, trained, module.eval(), program(seed), channels_of(seed))


@torch.no_grad()
def set_by_hand(module: PlantedCNN, seed: int) -> None:
    """Matched filters for the marks, gates of ReLUs, and channels beside them that nothing in the circuit reads."""
    drawn, channels = program(seed), channels_of(seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in (module.first_pre, module.second_pre, module.third_pre):
        nn.init.kaiming_normal_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    # the activation of a variable that is on: how active a channel is says nothing of what it is for
    sizes = [(torch.randn(CHANNELS, generator=generator) * 0.7).exp() for _ in LAYERS]
    images, marks = drawn.draw(500, seed=10_000 + seed)
    for m, channel in enumerate(channels[0]):
        module.first_pre.weight[channel] = torch.from_numpy(2 * drawn.patterns[m] - 1)
        module.first_pre.bias[channel] = 0.0  # type: ignore[index]
        highest = module.first_pre(images)[:, channel].amax(dim=(1, 2))
        absent, there = highest[torch.from_numpy(~marks[:, m])].max(), highest[torch.from_numpy(marks[:, m])].median()
        scale = sizes[0][channel] / (there - absent)
        module.first_pre.weight[channel] *= scale
        module.first_pre.bias[channel] = -absent * scale  # type: ignore[index]
    for number, (layer, gates) in enumerate(zip((module.second_pre, module.third_pre), drawn.layers, strict=True)):
        for gate, channel in zip(gates, channels[number + 1], strict=True):
            size = sizes[number + 1][channel]
            signs = {"copy": (1.0,), "and": (1.0, 1.0), "and not": (1.0, -1.0)}[gate.kind]
            layer.weight[channel] = 0.0
            for parent, sign in zip(gate.parents, signs, strict=True):
                source = channels[number][parent]
                layer.weight[channel, source] = sign * size / sizes[number][source]
            layer.bias[channel] = -size if gate.kind == "and" else 0.0  # type: ignore[index]
    module.scores.weight.zero_()
    module.scores.bias.fill_(-2.0)
    for output, gates_on in enumerate(drawn.outputs):
        for gate_index in gates_on:
            source = channels[2][gate_index]
            module.scores.weight[output, source] = 4.0 / sizes[2][source]


@torch.no_grad()
def agreement(network: PlantedNetwork, n: int = 1000, seed: int = 1, share: float = 0.5) -> dict[str, float]:
    """How often network and program agree on whether outputs are on.

    Args:
        network: one of `planted`.
        n: images; seed: of the images and interventions.
        share: of the program's connections that carry another image's values, under intervention.

    Returns:
        "plain": on images as they are. "interchanged": where some of the program's connections, and all edges that
        are none, carry the values of another image.
    """
    (images, marks), (others, other) = (network.program.draw(n, 2 * seed + k) for k in (0, 1))
    plain = (network.module(images) > 0).numpy() == network.program.run(marks)
    rng, matches = np.random.default_rng(seed), []
    parts = np.array_split(np.arange(n), 20)
    for part in parts:
        swapped = [{c for c in step if rng.random() < share} for step in network.program.connections]
        scores = interchanged(network.module, images[part], others[part], from_other(network, swapped))
        matches.append((scores > 0).numpy() == network.program.run(marks[part], other[part], swapped))
    return {"plain": float(plain.mean()), "interchanged": float(np.concatenate(matches).mean())}


def from_other(network: PlantedNetwork, swapped: list[set[tuple[int, int]]]) -> list[Tensor]:
    """For each step `(children, sources)`: which edges carry the other image's values, all that are none included."""
    masks = [torch.ones(CHANNELS, CHANNELS, dtype=torch.bool) for _ in LAYERS[1:]]
    masks.append(torch.ones(OUTPUTS, CHANNELS, dtype=torch.bool))
    own = [
        [c for c in step if c not in other] for step, other in zip(network.program.connections, swapped, strict=True)
    ]
    for mask, edges in zip(masks, _edges(own, network.channels), strict=True):
        for child, source in edges:
            mask[child, source] = False
    return masks


def interchanged(module: PlantedCNN, images: Tensor, others: Tensor, masks: list[Tensor]) -> Tensor:
    """Scores of images when edges carry the activations of other images; carries gradients.

    Args:
        module: the network.
        images, others: `(N, 3, SIZE, SIZE)`.
        masks: for each step `(children, sources)`: the edges that carry the activations of the others.
    """
    x, y = (module.pool(module.first(module.first_pre(i))).flatten(1) for i in (images, others))
    for reader, mask in zip(module.readers, masks, strict=True):
        weight, bias = reader.weight.flatten(1), reader.bias
        own: Tensor = x @ torch.where(mask, 0.0, weight).T + y @ torch.where(mask, weight, 0.0).T + bias
        if reader is module.scores:
            return own
        x, y = own.relu(), (y @ weight.T + bias).relu()
    raise AssertionError("the scores are the last to read")
