"""Two nets whose weights were set by hand, so that every answer can be worked out on paper."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from apps.cli.verify.checks import Check, check
from circuits import Ablate, InputSpec, capture, edit, expanded_weights, wrap
from circuits.attribution.expanded_weights import best_case_weights
from circuits.tracing.trace import trace

SIDE = 12
WINDOW, WHEEL, BODY, FRAME = range(4)
"""Channels of the first layer; two more have no weight into the car unit."""


def _conv(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2)
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)  # type: ignore[union-attr]
    return conv


def car_net() -> nn.Module:
    """Windows (red) above a body (blue) above wheels (green); a frame that inhibits; two units that do nothing."""
    parts = torch.zeros(6, 3, 1, 1)
    parts[WINDOW, 0], parts[WHEEL, 1], parts[BODY, 2] = 1, 1, 1
    parts[FRAME, 2] = 0.2
    parts[4, 0], parts[5, 1] = 0.5, 0.5
    car = torch.zeros(1, 6, 3, 3)
    car[0, WINDOW, 0], car[0, WINDOW, 2] = 1.0, -0.5
    car[0, WHEEL, 0], car[0, WHEEL, 2] = -0.5, 1.0
    car[0, BODY, 1, 1] = 0.5
    car[0, FRAME, 1, 1] = -0.75
    layers = OrderedDict(
        parts_conv=_conv(parts, torch.zeros(6)),
        parts=nn.ReLU(),
        car_conv=_conv(car, torch.tensor([-1.0])),
        car=nn.ReLU(),
    )
    return nn.Sequential(layers).eval()


def cars() -> Tensor:
    """Four images, each with one car somewhere: a row of red over a row of blue over a row of green."""
    images = torch.zeros(4, 3, SIDE, SIDE)
    for image, (y, x) in zip(images, ((3, 3), (5, 8), (8, 4), (7, 7)), strict=True):
        for color, row in ((0, y - 1), (2, y), (1, y + 1)):
            image[color, row, x - 1 : x + 2] = 1
    return images


EXPECTED = {WINDOW: 3.0, WHEEL: 3.0, BODY: 0.5, FRAME: -0.15}
"""Weight x activation at the center of a car: three cells of 1 above, three below, 0.5 of 1, -0.75 of 0.2."""
RESPONSE = sum(EXPECTED.values()) - 1.0


def car() -> Iterator[Check]:
    """The tracer finds the planted parents, signs, halves and sums; ablation takes away what was worked out."""
    model = wrap(car_net(), InputSpec(size=SIDE), name="planted")
    images = cars()
    circuit = trace(model, "car:0", images=images, depth=1, width=4, by="weights")
    strengths = {circuit.node(e.source).index: e.strength for e in circuit.into(circuit.target)}
    near = set(strengths) == set(EXPECTED) and all(
        abs(strengths[c] - EXPECTED[c]) < 1e-5 for c in EXPECTED if c in strengths
    )
    yield check("planted car: parents, signs and contributions", _numbers(EXPECTED), _numbers(strengths), near)

    kernels = {circuit.node(e.source).index: e.kernel for e in circuit.into(circuit.target)}
    rows = [(WINDOW, 0, 2), (WHEEL, 2, 0)]
    halves = all(
        c in kernels and kernels[c][up].sum() == 3.0 and kernels[c][down].sum() == -1.5 for c, up, down in rows
    )
    yield check(
        "planted car: windows excite from above, wheels from below",
        "rows +3 and -1.5",
        "as planted" if halves else "not so",
        halves,
    )

    rest = circuit.rest[0]
    traced = sum(strengths.values())
    whole = abs(traced + rest.strength - rest.total) + abs(
        rest.total + rest.bias + rest.remainder - rest.pre_activation
    )
    good = whole < 1e-5 and abs(rest.pre_activation - RESPONSE) < 1e-5 and abs(rest.bias + 1) < 1e-5
    yield check(
        "planted car: the contributions",
        f"bias -1, value {RESPONSE:g}",
        f"bias {rest.bias:g}, value {rest.pre_activation:g}",
        good,
    )

    drops = {}
    before = capture(model, images, "car")["car"].amax(dim=(1, 2, 3))
    for channel in EXPECTED:
        with edit(model, [Ablate(f"parts:{channel}")]):
            after = capture(model, images, "car")["car"].amax(dim=(1, 2, 3))
        drops[channel] = float((before - after).mean())
    near = all(abs(drops[c] - EXPECTED[c]) < 1e-5 for c in EXPECTED)
    yield check("planted car: what ablating each takes away", _numbers(EXPECTED), _numbers(drops), near)


def _numbers(values: dict) -> str:
    names = {WINDOW: "window", WHEEL: "wheel", BODY: "body", FRAME: "frame"}
    return ", ".join(f"{names.get(c, c)} {v:+.3g}" for c, v in sorted(values.items()))


def cancellation() -> Iterator[Check]:
    """Two parents of opposite taste: their linear two-hop weights cancel, what they do on an image does not.

    The boundary detector of Visualizing Weights: either parent activates it, and they are never active together.
    """
    first = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    layers = OrderedDict(
        source_conv=_conv(torch.ones(1, 1, 1, 1), torch.zeros(1)),
        source=nn.ReLU(),
        either_conv=_conv(first, torch.tensor([-0.5, 0.5])),
        either=nn.ReLU(),
        boundary_conv=_conv(torch.ones(1, 2, 1, 1), torch.zeros(1)),
        boundary=nn.ReLU(),
    )
    model = wrap(nn.Sequential(layers).eval(), InputSpec(size=8, channels=1), name="planted")
    linear = float(expanded_weights(model, source="source", target="boundary:0").kernels.abs().max())
    images = torch.stack([torch.full((1, 8, 8), 0.9), torch.full((1, 8, 8), 0.1)])
    best = float(best_case_weights(model, images, source="source", target="boundary:0").kernels.abs().max())
    yield check(
        "boundary: linear two-hop weights cancel, the best case does not",
        "0 and 1",
        f"{linear:g} and {best:g}",
        linear < 1e-6 and abs(best - 1) < 1e-5,
    )
