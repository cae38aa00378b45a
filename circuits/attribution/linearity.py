"""Whether a path is linear once rectifiers are skipped: kernels that were differentiated are held against its values.

A derivative exists at a gate, a product and a normalization as well, and is no weight there: it holds at one point. So
what a kernel predicts is compared with what the path computes, on the activations that images give its source, on a
tenth of them, and on noise from a tenth to a hundred times their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.errors import GraphError
from circuits.network.layers.axes import as_maps
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
    """Activations `(11, S, h, w)` to compare on, from those of two images `(2, S, h, w)`; the last are zero.

    A gate that hardly moves, or is shut, on the two images would pass for a factor. It moves on noise whose channels
    are of very unequal size, ten and a hundred times as strong as the activations: a linear path is linear there, too.
    Of any two channels each is the stronger one twice.
    """
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(acts[:1].shape, generator=generator, dtype=torch.float32).to(acts)
    spread = acts.std() if acts.std() > 0 else acts.new_tensor(1.0)
    signs, *exponents = torch.randn((3, 1, acts.shape[1], 1, 1), generator=generator).to(acts)
    of_signs = bool(acts.min() < 0)  # those that the source can have
    noise = spread * (2 * noise - 1 if of_signs else noise)
    mean = spread * signs.sign() if of_signs else torch.zeros_like(signs)
    # numbers of 16 bits end at 65504, which sums over a kernel of such activations may pass
    large = (1.0, 0.5) if torch.finfo(acts.dtype).max < 1e5 else (100.0, 10.0)
    unequal = [(noise + sign * mean) * (1.5 * sign * e).exp() for e in exponents for sign in (1, -1)]
    strong = [large[0] * unequal[0], large[1] * unequal[0], *(large[0] * u for u in unequal[1:])]
    return torch.cat([acts, acts[:1] / 10, noise, noise / 10, *strong, torch.zeros_like(acts[:1])])


class LinearPath:
    """What the linearized path between two layers computes of `probes`, to hold kernels against.

    Args:
        acts: activations of the source on two images `(2, S, h, w)`.
        evaluate: activations `(N, S, h, w)` -> responses `(N, T, h', w')` of the targets, rectifiers skipped.
        culprit: for the message, given the activations: what on the path is not linear.
    """

    def __init__(self, acts: Tensor, evaluate: Callable[[Tensor], Tensor], culprit: Callable[[Tensor], str]) -> None:
        self.points, self.culprit = probes(acts), culprit
        with torch.no_grad():
            out = as_maps(evaluate(self.points))
        self.middle = out.shape[2] // 2, out.shape[3] // 2
        self.responses = out[:, :, self.middle[0], self.middle[1]]

    def refuse_gates(self) -> None:
        """Raise where the path is far from linear, before kernels are made: that takes a backward pass a target.

        Raises:
            GraphError: it is not linear, or gives what is no number.
        """
        if first_nonlinear({"": self.responses}, self.points) is not None:
            raise self._refusal()

    def check(self, kernels: Tensor, patches: Callable[[Tensor, Sequence[Pair]], Tensor]) -> None:
        """Raise unless kernels give what the linearized path computes.

        Args:
            kernels: `(T, S, kh, kw)`, differentiated at the middle position of the target's map.
            patches: what each target position reads; `ExpandedWeights.patches`.

        Raises:
            GraphError: it is not linear there, or gives what is no number.
        """
        acts, out = self.points, self.responses
        with torch.no_grad():
            read = patches(acts[:-1], [self.middle] * (len(acts) - 1)).flatten(1)
            # a few targets at a time: kernels may fill a gigabyte
            some = [k.to(acts).flatten(1) for k in torch.split(kernels, 64)]
            predicted = torch.cat([read @ k.T for k in some], dim=1)
            size = torch.cat([read.abs() @ k.abs().T for k in some], dim=1)
        # a difference of two values is known to their own rounding
        resolution = torch.finfo(acts.dtype).eps
        rounding = torch.maximum(out[[*range(5), -1]].abs().amax(dim=0), out[:-1].abs())
        allowed = max(TOLERANCE, 50 * resolution) * size + 50 * resolution * rounding
        if not bool(((out[:-1] - out[-1:] - predicted).abs() <= allowed).all()):  # what is no number is a failure
            raise self._refusal()

    def _refusal(self) -> GraphError:
        return GraphError(f"the path passes through {self.culprit(self.points)}, which has no linear form")


def first_nonlinear(values: dict[str, Tensor], acts: Tensor) -> str | None:
    """Of the values `(11, ...)` that a path takes on `probes`, in order, the first that are not linear in them."""
    for name, out in values.items():
        if not out.is_floating_point() or len(out) != len(acts):
            continue
        zero, bound = out[-1], 1000 * TOLERANCE
        for large, small in ((0, 2), (3, 4), (5, 6)):
            factor = float(acts[large].abs().amax() / acts[small].abs().amax().clamp(min=torch.finfo(acts.dtype).tiny))
            off = ((out[large] - zero) - factor * (out[small] - zero)).abs()
            if not bool((off <= bound * out[[large, small, -1]].abs().amax()).all()):
                return name
    return None
