"""Attribution between the positions of two layers, and whether attribution to positions holds when they are silenced.

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
from zoo.progress import Progress, reporter


@dataclass(frozen=True, eq=False)
class SpatialAttribution:
    """What the positions and channels of one layer give to each position of a later one; see `spatial_attribution`.

    `positions` summed over the last two dimensions, and `units` over the last one, are the same, and plus `remainder`
    they are `response`.

    Attributes:
        source, target: addresses of the layers.
        positions: `(h', w', h, w)` from each source position; units: `(h', w', S)` from each source channel.
        response: `(h', w')` what is accounted for: the length of the target's activation vector at each position.
        remainder: `(h', w')` what is not, to first order: biases, and the bends of the nonlinearities in between.
        provenance: weights, picture, versions.
    """

    source: str
    target: str
    positions: Tensor
    units: Tensor
    response: Tensor
    remainder: Tensor
    provenance: Mapping[str, Any] = field(default_factory=dict)


def spatial_attribution(
    model: Model, picture: Any, *, source: str, target: str, batch_size: int = 16, progress: Progress = None
) -> SpatialAttribution:
    """Where in one layer comes what a later layer says at each of its positions: gradient times activation.

    What is attributed is the length of the activation vector at a position, that is its inner product with its own
    present direction.

    Args:
        model: the model.
        picture: one picture in any form that `capture` takes.
        source: the earlier layer.
        target: the later layer.
        batch_size: positions at a time.
        progress: True for a bar, or a function of (done, total) in positions.

    Raises:
        AddressError: an unknown layer. CircuitsError: not one picture, or a branch instead of a whole layer.

    >>> spatial_attribution(load("scenes"), "scenes:1", source="mixed3b", target="mixed4a").positions.shape
    torch.Size([16, 16, 16, 16])
    """
    begin, end = _whole(model, source), _whole(model, target)
    names = list(model.layers)
    if names.index(begin.name) >= names.index(end.name):
        raise CircuitsError(f"{end.name} does not come after {begin.name}: name the earlier layer as source")
    pictures = single_image(picture)
    segment = Segment(model, begin.name, [model.resolve(Unit(end.name, i)) for i in range(end.channels)])
    batch = pictures.tensor(model.input)
    with torch.no_grad():
        acts, given = segment.begin(batch)
        own = segment.respond(acts, given)[0]
    height, width = own.shape[1:]
    lengths = own.norm(dim=0)
    along = own / lengths.clamp(min=1e-30)
    spots = [(y, x) for y in range(height) for x in range(width)]
    positions = torch.zeros(len(spots), *acts.shape[2:])
    units = torch.zeros(len(spots), acts.shape[1])
    with reporter(progress, "position") as report:
        for start in range(0, len(spots), batch_size):
            some = spots[start : start + batch_size]
            with torch.no_grad():
                there, context = segment.begin(batch.expand(len(some), -1, -1, -1))
            with frozen(model.module), torch.enable_grad():
                leaf = there.detach().clone().requires_grad_(True)
                said = segment.respond(leaf, context)
                value = torch.stack([(said[i, :, y, x] * along[:, y, x]).sum() for i, (y, x) in enumerate(some)]).sum()
                products = torch.autograd.grad(value, leaf)[0] * there
            positions[start : start + len(some)] = products.sum(1).float().cpu()
            units[start : start + len(some)] = products.sum((2, 3)).float().cpu()
            report(start + len(some), len(spots))
    response = lengths.detach().float().cpu()
    return SpatialAttribution(
        source=f"{model.name}/{begin.name}",
        target=f"{model.name}/{end.name}",
        positions=positions.view(height, width, *positions.shape[1:]),
        units=units.view(height, width, -1),
        response=response,
        remainder=response - units.sum(1).view(height, width),
        provenance=provenance(weights=model.digest, images_digest=pictures.digest),
    )


@dataclass(frozen=True, eq=False)
class PositionCheck:
    """Whether attribution to positions foretells what happens when they are silenced; see `check_positions`.

    Attributes:
        drops: `(h, w)` how much the target falls when all channels of one position are set to zero.
        correlation: of the attributions with the drops, over positions.
        shuffled: the 95th percentile of its size when the drops are shuffled: what chance gives.
    """

    drops: Tensor
    correlation: float
    shuffled: float


def check_positions(
    model: Model, picture: Any, found: Attribution, *, draws: int = 200, batch_size: int = 32, seed: int = 0
) -> PositionCheck:
    """Silence each position in turn, and compare with what `circuits.attribute` said of it.

    Args:
        model: the model.
        picture: the one picture that was attributed.
        found: of `circuits.attribute`, to a layer.
        draws: of the shuffled control.
        batch_size: positions at a time.
        seed: of the control.

    Raises:
        CircuitsError: not one picture, an attribution to the picture itself or of channels without positions.
    """
    pictures = single_image(picture)
    if found.start == "input" or found.method == "ablation" or len(found.values) != 1:
        raise CircuitsError("positions are checked for one picture, attributed to a layer by gradient or weight")
    unit = model.unit(found.target)
    segment = Segment(model, found.start, unit, pre=True)
    image = pictures.tensor(model.input)
    height, width = found.values.shape[2:]
    y, x = found.positions[0]
    drops = torch.zeros(height * width)
    with torch.no_grad():
        whole = float(segment.respond(*segment.begin(image))[0, 0, y, x])
        for start in range(0, len(drops), batch_size):
            places = list(range(start, min(start + batch_size, len(drops))))
            acts, context = segment.begin(image.expand(len(places), -1, -1, -1))
            acts = acts.clone()
            for i, place in enumerate(places):
                acts[i, :, place // width, place % width] = 0
            drops[places] = whole - segment.respond(acts, context)[:, 0, y, x].float().cpu()
    said = found.places[0].flatten().float().cpu().numpy()
    generator = np.random.default_rng(seed)
    chance = np.abs(shuffled_correlations(said, drops.numpy(), draws=draws, generator=generator))
    return PositionCheck(
        drops=drops.view(height, width),
        correlation=correlation(said, drops.numpy()),
        shuffled=float(np.quantile(chance, 0.95)) if draws else float("nan"),
    )


def _whole(model: Model, name: str) -> Layer:
    found = model.layer(name)
    if found.part is not None:
        raise CircuitsError(f"take the whole layer {found.part[0]}; {found.name} is channels of it")
    return found
