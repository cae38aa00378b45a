"""Whole-layer expanded weights mixed3a -> mixed3b (480 x 256 x 5 x 5), three ways in one process.

Ours by exact composition, ours by batched differentiation, and one backward pass per output channel over
the whole 28x28 map, as captum.optim's `extract_expanded_weights` does it. Random weights serve: the time
does not depend on them.
"""

from __future__ import annotations

import argparse

import torch
from _timing import in_turn, report
from torch import Tensor, nn

import circuits
from circuits.network.linearized import linearized


def one_backward_per_channel(module: nn.Module, size: int = 28, crop: int = 5) -> Tensor:
    """Gradient of the center of every channel of mixed3b with respect to mixed3a, one by one."""
    kernels = []
    with linearized():
        source = torch.zeros(1, 256, size, size, requires_grad=True)
        target = module._block("mixed3b", source)  # type: ignore[operator]
        for channel in range(target.shape[1]):
            (gradient,) = torch.autograd.grad(target[0, channel, size // 2, size // 2], source, retain_graph=True)
            kernels.append(gradient[0])
    low = size // 2 - crop // 2
    return torch.stack(kernels)[:, :, low : low + crop, low : low + crop]


def main() -> None:
    """Time the three and check that they agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    model = circuits.load("googlenet-bvlc", weights="random", device="cpu")

    def ours(method: str) -> Tensor:
        return circuits.expanded_weights(model, source="mixed3a", target="mixed3b", method=method).kernels  # type: ignore[arg-type]

    peer = one_backward_per_channel(model.module)
    for method in ("exact", "vjp"):
        error = float((ours(method) - peer).abs().max() / peer.abs().max())
        assert error < 1e-5, f"{method} differs from the peer by {error}"
    seconds = in_turn(
        {
            "one backward per channel (captum.optim's way)": lambda: one_backward_per_channel(model.module),
            "ours, batched differentiation": lambda: ours("vjp"),
            "ours, exact composition": lambda: ours("exact"),
        },
        rounds,
    )
    report("mixed3a -> mixed3b, 480 x 256 x 5 x 5", seconds, "one backward per channel (captum.optim's way)")


if __name__ == "__main__":
    main()
