"""The kernels that read the image itself: the only ones that can be seen as they are."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.hooks import frozen
from circuits.network.layers.axes import as_maps
from circuits.network.linearized import measured_kernels
from circuits.network.model import Model
from circuits.network.operations import is_torchs_own, pair, weight_of
from zoo.networks.own import command_line


def reads_pixels(model: str, unit: Unit) -> str:
    """Why a unit of the first layer has no weights from units, and the command that goes on, for messages."""
    at = str(unit if unit.index is not None else replace(unit, index=0))
    command = command_line(
        "attribute", at, "--source", "input", "--method", "grad*act", "--images", "FOLDER", model=model
    )
    return f"{unit} is in the first layer: it reads pixels, which are no units ({command})"


def first_kernels(model: Model) -> Tensor:
    """Kernels of the first convolution, `(units, channels, kh, kw)`, colors in the order red, green, blue.

    Raises:
        CircuitsError: no convolution reads the image, or one that is one pixel wide.

    >>> first_kernels(load("scenes")).shape
    torch.Size([16, 3, 5, 5])
    """
    channels = model.input.channels
    for part in model.module.modules():
        if isinstance(part, nn.Conv2d) and part.in_channels == channels and part.groups == 1:
            kernels = _kernels(part).detach().cpu().float()
            if min(kernels.shape[2:]) < 2:
                raise CircuitsError(f"the first kernels of {model.name} are one pixel wide: there is nothing to see")
            return kernels.flip(1) if model.input.order == "BGR" else kernels
    if model.graph is not None:
        for node, op in model.graph.ops.items():  # a convolution that is a function, with a weight of its own
            if op.kind == "conv" and op.module is None and op.params["groups"] == 1:
                kernels = model.graph.weight(node).cpu().float()
                if kernels.shape[1] == channels and min(kernels.shape[2:]) >= 2:
                    return kernels.flip(1) if model.input.order == "BGR" else kernels
    raise CircuitsError(f"{model.name} has no convolution that reads images of {channels} channels")


def _kernels(conv: nn.Conv2d) -> Tensor:
    """The kernels that a convolution uses, which one of the user's own may compute from its weight."""
    if is_torchs_own(conv):
        return weight_of(conv)
    kh, kw = (d * (k - 1) + 1 for d, k in zip(pair(conv.dilation), pair(conv.kernel_size), strict=True))
    # far from the border; what of it a kernel multiplies is its gradient
    image = torch.zeros((1, conv.in_channels, 9 * kh, 9 * kw), requires_grad=True, dtype=conv.weight.dtype).to(
        conv.weight.device
    )
    with frozen(conv), torch.enable_grad():
        out = conv(image)
        kernels, _, _ = measured_kernels(image, out, None, range(out.shape[1]), as_maps)
    return kernels[:, :, :: pair(conv.dilation)[0], :: pair(conv.dilation)[1]]


def color_shares(kernels: Tensor) -> Tensor:
    """Share of each kernel's squared weights that vanishes when its channels are averaged, `(units,)` in [0, 1].

    0 for a kernel that reads light and dark alone, 1 for one that gray images do not move.
    """
    total = kernels.square().sum(dim=(1, 2, 3)).clamp_min(1e-30)
    gray = kernels.mean(dim=1).square().sum(dim=(1, 2)) * kernels.shape[1]
    return (1 - gray / total).clamp(0, 1)


def smoothness(kernels: Tensor) -> Tensor:
    """Similarity of neighboring weights, `(units,)`: their correlation over a kernel, across and down, -1 to 1.

    Near zero, or a little below, for weights sampled at random; near one for a kernel without fine grain.

    Args:
        kernels: `(units, ..., kh, kw)`, at least 2 wide or high; each kernel is centered on its own mean.
    """
    flat = kernels.reshape(len(kernels), -1, *kernels.shape[-2:]).double()
    flat = flat - flat.mean(dim=(2, 3), keepdim=True)
    size = flat.square().mean(dim=(1, 2, 3)).clamp_min(1e-30)
    pairs = [flat[..., 1:, :] * flat[..., :-1, :], flat[..., :, 1:] * flat[..., :, :-1]]
    means = [p.mean(dim=(1, 2, 3)) for p in pairs if p.numel()]
    if not means:
        raise CircuitsError("kernels of one position have no neighbors to be like")
    return torch.stack(means).mean(dim=0) / size


def directions(kernels: Tensor) -> Tensor:
    """Orientation of the stripes or edge in each kernel, degrees counter-clockwise in [0, 180), `(units,)`.

    The direction along which the kernel's frequencies lie (second moments of its power spectrum), turned by 90.
    """
    gray = kernels.mean(dim=1).double()
    gray = torch.where(gray.abs().amax(dim=(1, 2), keepdim=True) > 0, gray, torch.zeros_like(gray))
    kh, kw = gray.shape[1:]
    power = torch.fft.fft2(gray - gray.mean(dim=(1, 2), keepdim=True), s=(4 * kh, 4 * kw)).abs().square()
    fy, fx = torch.fft.fftfreq(4 * kh).double()[:, None], torch.fft.fftfreq(4 * kw).double()[None]
    # rows grow downwards, angles counter-clockwise
    xx, yy, xy = ((power * m).sum(dim=(1, 2)) for m in (fx * fx, fy * fy, -fx * fy))
    across = torch.rad2deg(0.5 * torch.atan2(2 * xy, xx - yy))
    return (across + 90) % 180
