"""Heat maps over the pixels of an image: what in it a unit, a latent or a class responds to.

Methods, for a response r of an image x of values in [0, 1]:

- "saliency": dr/dx (Simonyan et al. 2014, arXiv 1312.6034).
- "gradient*input": x dr/dx, whose sum is r for a network without biases.
- "smoothgrad": the mean of dr/dx over images with Gaussian noise (Smilkov et al. 2017, arXiv 1706.03825).
- "integrated": (x - b) times the mean of dr/dx on the way from a baseline b (Sundararajan et al. 2017,
  arXiv 1703.01365).
- "gradcam": the channels of a layer, each weighted by its mean gradient, where their sum is above zero, enlarged
  (Selvaraju et al. 2017, arXiv 1610.02391).
- "guided": dr/dx with ReLUs that pass no negative gradient back (Springenberg et al. 2015, arXiv 1412.6806).
- "guided_gradcam": the product of the last two.

A map that stays the same when the weights are drawn anew shows the image and not the network: guided backpropagation
is known for it (Adebayo et al. 2018, arXiv 1810.03292). So each map comes with that of an untrained copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from circuits.attribution.attribute import input_worker, layer_worker, positions_of
from circuits.common.provenance import provenance
from circuits.common.statistics import rank_correlation
from circuits.common.untrained import untrained
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.network.operations import Pair
from circuits.network.responses import peaks
from zoo.common import drawings
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import number, one_of, whole_number
from zoo.common.results import HIDDEN, Result, remembers
from zoo.images.sources import open_images

Heat = Literal["saliency", "gradient*input", "smoothgrad", "integrated", "gradcam", "guided", "guided_gradcam"]
HEATS = ("saliency", "gradient*input", "smoothgrad", "integrated", "gradcam", "guided", "guided_gradcam")
SIGNED = ("gradient*input", "integrated")
"""Methods whose attributions are contributions, and are summed over the colors; of others the largest size counts."""


@dataclass(frozen=True, eq=False)
class Heatmap(Result):
    """Heat maps of one unit on N images, beside those of an untrained copy of the network.

    Attributes:
        target: address; method, layer: how; the layer is that of Grad-CAM.
        maps: `(N, H, W)`: contributions summed over the colors for "gradient*input" and "integrated", which have a
            sign; the largest absolute value of the colors for the others.
        attributions: `(N, C, H, W)` before that; `(N, 1, H, W)` for Grad-CAM.
        response: `(N,)` the unit before its own ReLU, at `positions`.
        untrained: `(N, H, W)` maps of the same method with weights drawn anew; None where that was not asked for.
        similarity: of each map with the untrained one, as the rank correlation of their absolute values over pixels
            where either is not zero: near 1 the map does not depend on what the network learned. None where one of
            them is the same everywhere.
        images: `(N, C, H, W)` as the network gets them, in [0, 1]; ids: their names.
    """

    target: str
    method: str
    layer: str | None
    maps: Tensor
    attributions: Tensor = field(metadata=HIDDEN)
    response: Tensor
    positions: tuple[Pair, ...]
    untrained: Tensor | None = field(metadata=HIDDEN)
    similarity: tuple[float | None, ...] | None
    images: Tensor = field(metadata=HIDDEN)
    ids: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each image."""
        similar = self.similarity or [None] * len(self.ids)
        rows = zip(self.ids, self.positions, self.response.tolist(), similar, strict=True)
        return [
            {"image": name, "position": f"{y},{x}", "response": value, "similarity_to_untrained": like}
            for name, (y, x), value, like in rows
        ]

    def overlay(self, index: int = 0, *, path: str | Path | None = None) -> NDArray[np.uint8]:
        """A map over its image, `(H, W, 3)` uint8; with `path` it is written there as PNG.

        The color is the sign, how opaque it is the size, in shares of the 99th percentile of the map's sizes.

        Raises:
            CircuitsError: no such image. FileError: the file cannot be written.
        """
        whole_number("index", index, least=0, most=len(self.ids) - 1)
        pixels: NDArray[np.uint8] = drawings.overlay(self.maps[index], self.images[index], path)
        return pixels


@remembers("model")
@outside_inference_mode
def heatmap(
    model: Model,
    images: Any,
    *,
    target: str | Unit,
    method: Heat = "integrated",
    at: Sequence[Pair] | Pair | None = None,
    layer: str | None = None,
    steps: int = 64,
    baseline: float = 0.0,
    samples: int = 25,
    noise: float = 0.15,
    control: bool = True,
    seed: int = 0,
    batch_size: int = 16,
) -> Heatmap:
    """Heat maps of a unit, a latent or a class score over images.

    Args:
        model: the model.
        images: images in any form that `capture` takes.
        target: a unit, a neuron `@y,x`, a latent, or a class score `logits:817`.
        method: see the module.
        at: where to read the target: one `(y, x)`, or one for each image (default: its peak on each).
        layer: of Grad-CAM (default: the last trunk layer before the target).
        steps: of "integrated", by the midpoint rule.
        baseline: of "integrated", a gray in [0, 1]: 0 black.
        samples: noisy images of "smoothgrad".
        noise: their standard deviation, as a share of the range of each image's values.
        control: compute the maps of an untrained copy, too.
        seed: of noise and of the untrained weights.
        batch_size: images at a time.

    Raises:
        AddressError: unknown unit or layer. CircuitsError: unknown method; a guided one on a network without ReLUs or
            with other nonlinearities; Grad-CAM without a layer of maps before the target.

    >>> heatmap(load("scenes"), "scenes:2", target="mixed4a:11", method="saliency", control=False).maps.shape
    torch.Size([2, 64, 64])
    """
    one_of("method", method, HEATS)
    for name, value in (("steps", steps), ("samples", samples), ("batch_size", batch_size)):
        whole_number(name, value)
    number("baseline", baseline, least=0, most=1)
    number("noise", noise, above=0)
    model.check_images("a heat map")
    unit = model.unit(target)
    dataset = open_images(images)
    given = positions_of(at, len(dataset), unit, model)
    cam = _cam_layer(model, unit, layer) if method.endswith("gradcam") else None
    own = _Maps(model, unit, method, cam, steps, baseline, samples, noise, seed)
    blank_model = untrained(model, seed=seed) if control else model
    other = _Maps(blank_model, unit, method, cam, steps, baseline, samples, noise, seed)
    rows: list[tuple[Tensor, ...]] = []
    positions: list[Pair] = []
    for indices, batch in dataset.batches(model.input, batch_size=batch_size):
        positions_here, response = own.read(batch, None if given is None else [given[i] for i in indices])
        positions += positions_here
        pixels = batch.to(model.device)
        attributions = own(pixels, positions_here, indices[0])
        row = (batch.cpu(), attributions, response)
        rows.append((*row, other(pixels, positions_here, indices[0])) if control else row)
    pixels, attributions, response, *rest = (torch.cat(part) for part in zip(*rows, strict=True))
    maps = reduced(attributions, method)
    blank = reduced(rest[0], method) if control else None
    return Heatmap(
        target=str(unit),
        method=method,
        layer=cam,
        maps=maps,
        attributions=attributions,
        response=response,
        positions=tuple(positions),
        untrained=blank,
        similarity=None if blank is None else tuple(map(_similarity, maps, blank)),
        images=pixels,
        ids=tuple(dataset.ids),
        provenance=provenance(
            weights=model.digest, images=dataset.name, images_digest=dataset.digest, method=method, seed=seed,
            steps=steps, baseline=baseline, samples=samples, noise=noise,
        ),
    )  # fmt: skip


def reduced(attributions: Tensor, method: str) -> Tensor:
    """`(N, C, H, W)` -> `(N, H, W)`: contributions are summed over colors, of sensitivities the largest size counts."""
    return attributions.sum(dim=1) if method in SIGNED else attributions.abs().amax(dim=1)


class _Maps:
    """Attributions of one unit in one network, by one method."""

    def __init__(
        self, model: Model, unit: Unit, method: str, cam: str | None, steps: int, baseline: float, samples: int,
        noise: float, seed: int,
    ) -> None:  # fmt: skip
        self.method, self.steps, self.baseline = method, steps, baseline
        self.samples, self.noise, self.seed = samples, noise, seed
        self.model, self.input = model, input_worker(model, unit)
        self.layer = None if cam is None else layer_worker(model, cam, unit)

    def read(self, batch: Tensor, positions: list[Pair] | None) -> tuple[list[Pair], Tensor]:
        """Where the unit is read on each image, and its response there."""
        with torch.no_grad():
            response = self.input.respond(*self.input.begin(batch))
        positions = peaks(response, Unit("x", 0)) if positions is None else positions
        return positions, torch.stack([response[i, y, x] for i, (y, x) in enumerate(positions)]).cpu()

    def __call__(self, x: Tensor, positions: list[Pair], first: int) -> Tensor:
        """Attributions `(N, C, H, W)` of images; `first` is the number of the first one, for its noise."""
        match self.method:
            case "saliency":
                values = self._gradient(x, positions)
            case "gradient*input":
                values = x * self._gradient(x, positions)
            case "integrated":
                base = torch.full_like(x, self.baseline)
                ways = ((k + 0.5) / self.steps for k in range(self.steps))
                total = sum((self._gradient(base + (x - base) * way, positions) for way in ways), torch.zeros_like(x))
                values = total / self.steps * (x - base)
            case "smoothgrad":
                values = self._smooth(x, positions, first)
            case "gradcam":
                values = self._cam(x, positions)
            case "guided":
                values = self._guided(x, positions)
            case _:
                values = self._guided(x, positions) * self._cam(x, positions)
        return values.detach().cpu()

    def _gradient(self, x: Tensor, positions: list[Pair]) -> Tensor:
        return self.input.gradient(*self.input.begin(x), positions)

    def _smooth(self, x: Tensor, positions: list[Pair], first: int) -> Tensor:
        """Each image has noise of its own seed, so that a batch does not change it."""
        spread = self.noise * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1)
        generators = [torch.Generator().manual_seed(self.seed + first + i) for i in range(len(x))]
        total = torch.zeros_like(x)
        for _ in range(self.samples):
            noise = torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators]).to(x)
            total += self._gradient(x + spread * noise, positions)
        return total / self.samples

    def _guided(self, x: Tensor, positions: list[Pair]) -> Tensor:
        with guided_relus() as guided:
            values = self._gradient(x, positions)
        if guided.others or not guided.relus:
            why = f"it has {', '.join(sorted(guided.others))}" if guided.others else "it has none on the way"
            raise CircuitsError(f"method={self.method!r} is about ReLUs, and of {self.model.name} {why}: use another")
        return values

    def _cam(self, x: Tensor, positions: list[Pair]) -> Tensor:
        assert self.layer is not None
        acts, context = self.layer.begin(x)
        weights = self.layer.gradient(acts, context, positions).mean(dim=(2, 3), keepdim=True)
        cam = (weights * acts).sum(dim=1, keepdim=True).relu()
        return F.interpolate(cam, x.shape[2:], mode="bilinear", align_corners=False)


def _cam_layer(model: Model, unit: Unit, layer: str | None) -> str:
    name = model.layer(layer).name if layer is not None else model.before(unit.layer)
    size = None if name is None else model.layers[name].size
    if name is None or size is None or min(size) < 2:
        names = [n for n in model.trunk if min(model.layers[n].size or (0,)) > 1]
        last = [n for n in names if list(model.layers).index(n) < list(model.layers).index(unit.layer)]
        if layer is not None or not last:
            known = ", ".join(last) or "none before it"
            raise CircuitsError(f"Grad-CAM of {unit} needs a layer with maps, not {name}; there are: {known}")
        return last[-1]
    return name


def _similarity(a: Tensor, b: Tensor) -> float | None:
    """Over pixels where either map is not zero: outside of the receptive field both are, which is no likeness."""
    either = (a != 0) | (b != 0)
    first, second = a.abs()[either].numpy(), b.abs()[either].numpy()
    constant = len(first) < 2 or first.min() == first.max() or second.min() == second.max()
    return None if constant else rank_correlation(first, second)


# -- guided backpropagation ----------------------------------------------------------------------

_RELUS = {torch.relu, torch.relu_, F.relu, Tensor.relu, Tensor.relu_}
_OTHERS = {
    F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.hardswish, F.prelu,
    torch.sigmoid, torch.tanh, Tensor.sigmoid, Tensor.tanh, F.sigmoid, F.tanh,
}  # fmt: skip


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, grads[0].clamp(min=0), 0.0)


class _Guided(TorchFunctionMode):
    """Acts on the functions, so that modules, `F.relu(x, inplace=True)` and `x.relu_()` are all guided."""

    def __init__(self) -> None:
        super().__init__()
        self.relus, self.others = 0, set[str]()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        x = args[0] if args else kwargs.get("input")
        if isinstance(x, Tensor) and x.requires_grad:
            if func in _RELUS:
                self.relus += 1
                return _GuidedReLU.apply(x)
            if func in _OTHERS:
                self.others.add(getattr(func, "__name__", str(func)))
        return func(*args, **kwargs)


@contextmanager
def guided_relus() -> Iterator[_Guided]:
    """Inside, ReLUs pass no negative gradient back; the value counts them, and names other nonlinearities."""
    with _Guided() as guided:
        yield guided
