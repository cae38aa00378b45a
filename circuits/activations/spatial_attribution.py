"""Attribution between the positions of two layers, and a check of attribution to positions by ablating them.

From Olah et al., *The Building Blocks of Interpretability*, Distill 2018; attribution to a class is
`circuits.attribute`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.activations.semantic_dictionary import single_image
from circuits.attribution.attribute import Attribution
from circuits.common.provenance import provenance
from circuits.common.statistics import correlation, shuffled_correlations
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.hooks import frozen
from circuits.network.layer import Layer
from circuits.network.model import Model
from circuits.network.subnetwork import Segment
from zoo.common.autograd import outside_inference_mode
from zoo.common.results import Result, remembers
from zoo.progress import Progress, reporter


@dataclass(frozen=True, eq=False)
class SpatialAttribution(Result):
    """Contributions of the positions and channels of one layer to each position of a later one.

    `positions` summed over the last two dimensions equals `units` summed over the last one; plus `remainder` it equals
    `response`. See `spatial_attribution`.

    Attributes:
        source, target: addresses of the layers.
        positions: `(h', w', h, w)` from each source position; units: `(h', w', S)` from each source channel.
        response: `(h', w')` what is attributed: the length of the target's activation vector at each position.
        remainder: `(h', w')` what is left, to first order: biases, and the curvature of the nonlinearities in between.
        provenance: weights, image, versions.
    """

    source: str
    target: str
    positions: Tensor
    units: Tensor
    response: Tensor
    remainder: Tensor
    provenance: Mapping[str, Any] = field(default_factory=dict)


@remembers("model", images="image")
@outside_inference_mode
def spatial_attribution(
    model: Model, image: Any, *, source: str, target: str, batch_size: int = 16, progress: Progress = None
) -> SpatialAttribution:
    """Attribution of each position of a later layer to positions and channels of an earlier one: gradient * activation.

    Attributed is the length of the activation vector at a position, that is its inner product with its own present
    direction.

    Args:
        model: the model.
        image: one image in any form that `capture` takes.
        source: the earlier layer.
        target: the later layer.
        batch_size: positions at a time.
        progress: True for a bar, or a function of (done, total) in positions.

    Raises:
        AddressError: an unknown layer. CircuitsError: not one image, or a branch instead of a whole layer.

    >>> spatial_attribution(load("scenes"), "scenes:1", source="mixed3b", target="mixed4a").positions.shape
    torch.Size([16, 16, 16, 16])
    """
    begin, end = _whole_layer(model, source), _whole_layer(model, target)
    if model.layers.position(begin.name) >= model.layers.position(end.name):
        raise CircuitsError(f"{end.name} does not come after {begin.name}: name the earlier layer as source")
    images = single_image(image)
    segment = Segment(model, begin.name, [model.resolve(Unit(end.name, i)) for i in range(end.channels)])
    batch = images.tensor(model.input)
    with torch.no_grad():
        begun = acts, _ = segment.begin(batch)
        own = segment.respond(*begun)[0]
    height, width = own.shape[1:]
    lengths = own.norm(dim=0)
    along = own / lengths.clamp(min=1e-30)
    targets = [(y, x) for y in range(height) for x in range(width)]
    positions = torch.zeros(len(targets), *acts.shape[2:])
    units = torch.zeros(len(targets), acts.shape[1])
    with reporter(progress, "position") as report:
        for start in range(0, len(targets), batch_size):
            some = targets[start : start + batch_size]
            with torch.no_grad():
                acts, context = _copies(segment, batch, begun, len(some))
            with frozen(model.module), torch.enable_grad():
                leaf = acts.detach().clone().requires_grad_(True)
                out = segment.respond(leaf, context)
                value = torch.stack([(out[i, :, y, x] * along[:, y, x]).sum() for i, (y, x) in enumerate(some)]).sum()
                products = torch.autograd.grad(value, leaf)[0] * acts
            positions[start : start + len(some)] = products.sum(1).float().cpu()
            units[start : start + len(some)] = products.sum((2, 3)).float().cpu()
            report(start + len(some), len(targets))
    response = lengths.detach().float().cpu()
    return SpatialAttribution(
        source=f"{model.name}/{begin.name}",
        target=f"{model.name}/{end.name}",
        positions=positions.view(height, width, *positions.shape[1:]),
        units=units.view(height, width, -1),
        response=response,
        remainder=response - units.sum(1).view(height, width),
        provenance=provenance(weights=model.digest, images_digest=images.digest),
    )


@dataclass(frozen=True, eq=False)
class PositionCheck:
    """Whether attribution to positions predicts the effect of ablating them; see `check_positions`.

    Attributes:
        drops: `(h, w)` decrease of the target when all channels of one position are set to zero.
        correlation: of the attributions with the drops, over positions.
        shuffled: the 95th percentile of its absolute value when the drops are shuffled: the control.
    """

    drops: Tensor
    correlation: float
    shuffled: float


def check_positions(
    model: Model, image: Any, attribution: Attribution, *, draws: int = 200, batch_size: int = 32, seed: int = 0
) -> PositionCheck:
    """Ablate each position in turn, and correlate the effect with its attribution.

    Args:
        model: the model.
        image: the one image that was attributed.
        attribution: of `circuits.attribute`, to a layer.
        draws: of the shuffled control.
        batch_size: positions at a time.
        seed: of the control.

    Raises:
        CircuitsError: not one image, an attribution to the image itself or of channels without positions.
    """
    images = single_image(image)
    if attribution.start == "input" or attribution.method == "ablation" or len(attribution.values) != 1:
        raise CircuitsError("positions are checked for one image, attributed to a layer by gradient or weight")
    segment = Segment(model, attribution.start, model.unit(attribution.target), pre=True)
    batch = images.tensor(model.input)
    height, width = attribution.values.shape[2:]
    y, x = attribution.positions[0]
    drops = torch.zeros(height * width)
    with torch.no_grad():
        begun = segment.begin(batch)
        intact = float(segment.respond(*begun)[0, 0, y, x])
        for start in range(0, len(drops), batch_size):
            flat = list(range(start, min(start + batch_size, len(drops))))
            acts, context = _copies(segment, batch, begun, len(flat))
            acts = acts.clone()
            for i, position in enumerate(flat):
                acts[i, :, position // width, position % width] = 0
            drops[flat] = intact - segment.respond(acts, context)[:, 0, y, x].float().cpu()
    contributions = attribution.by_position[0].flatten().float().cpu().numpy()
    generator = np.random.default_rng(seed)
    chance = np.abs(shuffled_correlations(contributions, drops.numpy(), draws=draws, generator=generator))
    return PositionCheck(
        drops=drops.view(height, width),
        correlation=correlation(contributions, drops.numpy()),
        shuffled=float(np.quantile(chance, 0.95)) if draws else float("nan"),
    )


def _copies(segment: Segment, image: Tensor, begun: tuple[Tensor, Any], count: int) -> tuple[Tensor, Any]:
    """What `segment.begin` gives for copies of an image: from the one pass over it, where all paths go through it."""
    if segment.bypassed:
        return segment.begin(image.expand(count, -1, -1, -1))
    return begun[0].expand(count, -1, -1, -1), begun[1]


def _whole_layer(model: Model, name: str) -> Layer:
    layer = model.layer(name)
    if layer.part is not None:
        raise CircuitsError(f"take the whole layer {layer.part[0]}; {layer.name} is channels of it")
    return layer
