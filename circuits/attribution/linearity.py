"""Whether a path is linear once rectifiers are skipped: kernels that were differentiated are held against its values.

A derivative exists at a gate, a product and a normalization as well, and is no weight there: it holds at one point. So
what a kernel predicts is compared with what the path computes, on the activations that images give its source, on a
tenth of them, and on noise of their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.errors import GraphError
from circuits.network.linearized import as_map
from circuits.network.operations import Pair

TOLERANCE = 1e-4
"""Largest difference, as a share of what the weights add up by size; rounding gives about 1e-6 of it."""


def probe_images(shape: tuple[int, int, int], like: Tensor) -> Tensor:
    """Two images `(2, channels, H, W)` in [0, 1]: noise of each pixel, and noise of a sixteenth of the image."""
    generator = torch.Generator().manual_seed(0)
    fine, coarse = torch.rand((1, *shape), generator=generator), torch.rand((1, shape[0], 4, 4), generator=generator)
    smooth = F.interpolate(coarse, size=shape[1:], mode="bilinear", align_corners=False)
    return torch.cat([fine, smooth]).to(like)


def probes(acts: Tensor) -> Tensor:
    """Activations `(6, S, h, w)` to compare on, from those of two images `(2, S, h, w)`; the last are zero."""
    noise = torch.rand(acts[:1].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32).to(acts)
    spread = acts.std() if acts.std() > 0 else acts.new_tensor(1.0)
    noise = spread * (noise if acts.min() >= 0 else 2 * noise - 1)  # of the signs that the source can have
    return torch.cat([acts, acts[:1] / 10, noise, noise / 10, torch.zeros_like(acts[:1])])


def check_linear(
    kernels: Tensor,
    patches: Callable[[Tensor, Sequence[Pair]], Tensor],
    acts: Tensor,
    evaluate: Callable[[Tensor], Tensor],
    culprit: Callable[[Tensor], str],
) -> None:
    """Raise unless kernels give what the linearized path computes.

    Args:
        kernels: `(T, S, kh, kw)`, differentiated at the middle position of the target's map.
        patches: what each target position reads; `ExpandedWeights.patches`.
        acts: activations of the source on two images `(2, S, h, w)`.
        evaluate: activations `(N, S, h, w)` -> responses `(N, T, h', w')` of the targets, rectifiers skipped.
        culprit: for the message, given the activations: what on the path is not linear.

    Raises:
        GraphError: it is not linear there, or gives what is no number.
    """
    points = probes(acts)
    with torch.no_grad():
        out = as_map(evaluate(points))
        y, x = out.shape[2] // 2, out.shape[3] // 2
        moved = out[:-1, :, y, x] - out[-1:, :, y, x]
        products = patches(points[:-1], [(y, x)] * (len(points) - 1))[:, None] * kernels.to(acts)
        predicted, size = products.sum(dim=(2, 3, 4)), products.abs().sum(dim=(2, 3, 4))
    # a difference of two values is known to their own rounding
    resolution = torch.finfo(acts.dtype).eps
    allowed = max(TOLERANCE, 50 * resolution) * size + 50 * resolution * out[:, :, y, x].abs().amax(dim=0)
    if not bool(((moved - predicted).abs() <= allowed).all()):  # what is no number counts as a failure
        raise GraphError(f"the path passes through {culprit(points)}, which has no linear form")


def first_nonlinear(values: dict[str, Tensor], acts: Tensor) -> str | None:
    """Of the values `(6, ...)` that a path takes on `probes`, in order, the first that are not linear in them."""
    for name, out in values.items():
        if not out.is_floating_point() or len(out) != len(acts):
            continue
        (first, _, tenth, noise, small, zero), size = out, out.abs().amax()
        off = ((first - zero) - 10 * (tenth - zero)).abs() + ((noise - zero) - 10 * (small - zero)).abs()
        if not bool((off <= 1000 * TOLERANCE * size).all()):
            return name
    return None
