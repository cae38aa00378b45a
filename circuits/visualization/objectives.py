"""Objectives: a value per image, to be maximized, with Lucid's names and algebra.

An objective reads layers through `activations("mixed4a")`, `activations("input")` (the images themselves, before any
transformation) or `activations("labels")` (the class scores), and gives one value per image::

    channel("mixed4a", 476) - 0.5 * neuron("mixed4a", 3) - 1e2 * diversity("mixed4a")

Objectives of the same shape stack: `stack([channel("mixed4a", i) for i in range(512)])` reads another unit for
each image of a batch, in one read of the layer. (Olah, Mordvintsev, Schubert: *Feature Visualization*, Distill
2017; the names are those of Lucid and Lucent, the sign is Lucid's: objectives are maximized.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from circuits.errors import VisualizationError
from circuits.network.layers.axes import as_maps
from zoo.common.checks import number, whole_number

if TYPE_CHECKING:
    from circuits.network.address import Unit
    from circuits.network.model import Model

Activations = Callable[[str], Tensor]
"""Activations by layer name, `(N, C, H, W)`; "input" and "labels" as above."""


class Objective:
    """A value per image, to be maximized. Add, subtract, multiply with numbers, negate, `sum`, `mean`."""

    def __call__(self, activations: Activations) -> Tensor:
        """Values `(N,)`."""
        raise NotImplementedError

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are read."""
        raise NotImplementedError

    def __add__(self, other: Objective | float) -> Objective:
        return Sum((self, other if isinstance(other, Objective) else Constant(float(other))))

    def __mul__(self, factor: float) -> Objective:
        if not isinstance(factor, (int, float)) or not math.isfinite(factor):
            raise VisualizationError(f"an objective is multiplied by a finite number, not by {factor!r}")
        return Scaled(self, float(factor))

    def __neg__(self) -> Objective:
        return self * -1.0

    def __sub__(self, other: Objective | float) -> Objective:
        return self + (-other)

    def __rsub__(self, other: float) -> Objective:
        return -self + other

    def __truediv__(self, divisor: float) -> Objective:
        if divisor == 0:
            raise VisualizationError("an objective cannot be divided by zero")
        return self * (1 / divisor)

    __radd__ = __add__
    __rmul__ = __mul__

    @staticmethod
    def sum(objectives: Sequence[Objective]) -> Objective:
        """The sum of their values."""
        return Sum(tuple(objectives))

    @staticmethod
    def mean(objectives: Sequence[Objective]) -> Objective:
        """The mean of their values."""
        return Sum(tuple(objectives)) / len(objectives)


@dataclass(frozen=True, eq=False)
class OfLayer(Objective):
    """Base of objectives that read one layer."""

    layer: str

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)


@dataclass(frozen=True, eq=False)
class OfObjective(Objective):
    """Base of objectives that change the value of another."""

    of: Objective

    @property
    def layers(self) -> tuple[str, ...]:
        return self.of.layers


@dataclass(frozen=True, eq=False)
class Constant(Objective):
    """The same number for every image."""

    number: float
    layers = ()

    def __call__(self, activations: Activations) -> Tensor:
        return activations("input").new_full((len(activations("input")),), self.number)


@dataclass(frozen=True, eq=False)
class Sum(Objective):
    """The sum of several."""

    terms: tuple[Objective, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise VisualizationError("a sum needs at least one objective")

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for t in self.terms for name in t.layers))

    def __call__(self, activations: Activations) -> Tensor:
        total = self.terms[0](activations)
        for term in self.terms[1:]:
            total = total + term(activations)
        return total


@dataclass(frozen=True, eq=False)
class Scaled(OfObjective):
    """A multiple."""

    factor: float

    def __call__(self, activations: Activations) -> Tensor:
        return self.factor * self.of(activations)


@dataclass(frozen=True, eq=False)
class Reading(OfLayer):
    """The activation of a channel or along a direction, over all positions or at one.

    Attributes:
        layer: the layer.
        index: channels `(1,)`, or one per image `(N,)`; None where `along` is given.
        along: directions `(1, C)` or `(N, C)` to take the inner product with.
        at: "mean" over positions, "center", or rows and columns `(1 or N, 2)`.
        cosine: exponent of the cosine similarity, at least 0.1, that the inner product is multiplied with.
    """

    index: Tensor | None = None
    along: Tensor | None = None
    at: str | Tensor = "mean"
    cosine: float = 0.0

    def __call__(self, activations: Activations) -> Tensor:
        acts = at_position(as_maps(activations(self.layer)), self.at, self.layer)
        if self.index is not None:
            index = self.index.to(acts.device)
            picked = acts[:, index] if len(index) == 1 else acts[torch.arange(len(acts), device=acts.device), index]
            return picked.flatten(1).mean(1)
        assert self.along is not None
        along = self.along.to(acts).expand(len(acts), -1)[:, :, None, None]
        dot = (acts * along).sum(1)
        if self.cosine:
            dot = dot * F.cosine_similarity(acts, along, dim=1).clamp(min=0.1) ** self.cosine
        return dot.flatten(1).mean(1)


@dataclass(frozen=True, eq=False)
class Caricature(OfLayer):
    """Inner product of a layer's activations with those of an image, position by position."""

    acts: Tensor
    cosine: float = 1.0

    def __call__(self, activations: Activations) -> Tensor:
        acts, target = as_maps(activations(self.layer)), as_maps(self.acts)
        if acts.shape[1:] != target.shape[1:]:
            raise VisualizationError(
                f"{self.layer} is {tuple(acts.shape[1:])} here, but the activations to exaggerate are "
                f"{tuple(target.shape[1:])}; show both at the same size"
            )
        acts, target = acts.flatten(1), target.to(acts).expand_as(acts).flatten(1)
        dot = (acts * target).mean(1)
        return dot * F.cosine_similarity(acts, target, dim=1).clamp(min=0.1) ** self.cosine


@dataclass(frozen=True, eq=False)
class Function(OfLayer):
    """A function of one layer (or of the images) to a value per image."""

    of: Callable[[Tensor], Tensor]

    def __call__(self, activations: Activations) -> Tensor:
        return self.of(activations(self.layer))


@dataclass(frozen=True, eq=False)
class Foreign(Objective):
    """A function of `activations` to one loss for the whole batch, to be *minimized*, as Lucent's objectives are.

    The value of each image is minus the loss, so that it weighs the same whatever the size of the batch.

    Attributes:
        function: from activations to a tensor of one number.
        count: images that it takes.
    """

    function: Callable[[Activations], Any]
    count: int = 2

    @property
    def layers(self) -> tuple[str, ...]:
        return self.declared or ()

    @property
    def declared(self) -> tuple[str, ...] | None:
        """The layers that it says it reads; None where only a call can tell."""
        return getattr(self.function, "layers", None)

    def __call__(self, activations: Activations) -> Tensor:
        n = len(activations("input"))
        loss = self.function(activations)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise VisualizationError("an objective of your own gives one number (a loss, as in Lucent), as a tensor")
        return (-loss.reshape(())).expand(n)


def at_position(acts: Tensor, at: str | Tensor, layer: str) -> Tensor:
    """Activations `(N, C, H, W)` at the "mean" (all positions), the "center", or rows and columns `(1 or N, 2)`."""
    height, width = acts.shape[2:]
    if isinstance(at, str):
        y, x = height // 2, width // 2
        return acts if at == "mean" else acts[:, :, y : y + 1, x : x + 1]
    rows, columns = at.to(acts.device).expand(len(acts), 2).unbind(1)
    if int(rows.max()) >= height or int(columns.max()) >= width:
        raise VisualizationError(
            f"position {int(rows.max())},{int(columns.max())} lies outside {layer}, which is {height}x{width} for "
            "images of this size; give a larger size"
        )
    return acts[torch.arange(len(acts), device=acts.device), :, rows, columns][:, :, None, None]


# -- Lucid's vocabulary -----------------------------------------------------------------------------------------


def channel(layer: str, index: int) -> Objective:
    """The mean of a channel over all positions."""
    return Reading(layer, torch.tensor([_index("channel", index)]))


def neuron(layer: str, index: int, x: int | None = None, y: int | None = None) -> Objective:
    """A channel at one position, by default the center."""
    return Reading(layer, torch.tensor([_index("channel", index)]), at=position(x, y))


def direction(layer: str, vector: Tensor, cossim_pow: float = 0.0) -> Objective:
    """The mean inner product with a direction `(C,)`, times the cosine similarity (at least 0.1) to `cossim_pow`."""
    return Reading(layer, along=_vector(vector), cosine=_power(cossim_pow))


def direction_neuron(
    layer: str, vector: Tensor, x: int | None = None, y: int | None = None, cossim_pow: float = 0.0
) -> Objective:
    """As `direction`, at one position, by default the center."""
    return Reading(layer, along=_vector(vector), at=position(x, y), cosine=_power(cossim_pow))


def deepdream(layer: str) -> Objective:
    """The mean square of a whole layer (DeepDream: whatever is there, more of it)."""
    return Function(layer, lambda acts: acts.square().flatten(1).mean(1))


def class_logit(index: int) -> Objective:
    """The score of a class before softmax."""
    return channel("labels", index)


def total_variation(layer: str = "input") -> Objective:
    """Sum of absolute differences between neighbors; subtract it to get smoother images."""

    def of(acts: Tensor) -> Tensor:
        down, right = acts.diff(dim=2).abs(), acts.diff(dim=3).abs()
        return down.flatten(1).sum(1) + right.flatten(1).sum(1)

    return Function(layer, of)


def l1(layer: str = "input", constant: float = 0.5) -> Objective:
    """Sum of absolute differences from a constant (0.5: gray, for images)."""
    return Function(layer, lambda acts: (acts - constant).abs().flatten(1).sum(1))


def l2(layer: str = "input", constant: float = 0.5, epsilon: float = 1e-6) -> Objective:
    """Root of the summed squares of differences from a constant."""
    return Function(layer, lambda acts: ((acts - constant).square().flatten(1).sum(1) + epsilon).sqrt())


def diversity(layer: str) -> Objective:
    """How similar the images of one batch are: *subtract* it, as with Lucid, to see all that activates a unit.

    Per image, the sum of the cosines of its channel correlations (Gram matrix) with those of the others. Lucid's
    and Lucent's is the mean of these over the batch. `visualize(..., variants=4)` subtracts it by itself.
    """

    def of(acts: Tensor) -> Tensor:
        flat = as_maps(acts).flatten(2)
        grams = F.normalize((flat @ flat.transpose(1, 2)).flatten(1), dim=1)
        cosines = grams @ grams.T
        return cosines.sum(1) - cosines.diagonal()

    return Function(layer, of)


def caricature(layer: str, acts: Tensor, cossim_pow: float = 1.0) -> Objective:
    """Exaggerate the activations of an image: `acts` are those of `layer` on it, `(1, C, H, W)`."""
    return Caricature(layer, acts.detach(), _power(cossim_pow))


def blur_input_each_step() -> Objective:
    """Half the squared difference from a blurred self: subtracting `k` of it blurs images by `k` in each plain step.

    (Nguyen, Yosinski, Clune, 2015.)
    """

    def of(images: Tensor) -> Tensor:
        c = images.shape[1]
        kernel = images.new_tensor([[0.5, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 0.5]]).expand(c, 1, 3, 3)
        with torch.no_grad():
            weight = F.conv2d(torch.ones_like(images[:1]), kernel, padding=1, groups=c)
            blurred = F.conv2d(images, kernel, padding=1, groups=c) / weight
        return 0.5 * (images - blurred).square().flatten(1).sum(1)

    return Function("input", of)


# -- putting them together --------------------------------------------------------------------------------------


def of_unit(model: Model, unit: Unit, *, pre_activation: bool = False) -> Objective:
    """The objective of an address: a channel, a neuron, a latent of a basis, or a whole layer (deepdream).

    Args:
        model: the model.
        unit: of `model.resolve`.
        pre_activation: read the input of the ReLU, where the layer is one: it has a gradient below zero, too.
    """
    layer = unit.layer
    if pre_activation and unit.basis is None and model.graph is not None:
        before = model.graph.before_relu(model.node(layer))
        if before is not model.node(layer):
            layer = model.name_of(before)
    at: str | Tensor = "mean" if unit.at is None else torch.tensor([unit.at])
    if unit.index is None:
        if unit.at is not None:
            raise VisualizationError(
                f"{unit} names a position of a whole layer; name a unit, for example {unit.layer}:0"
            )
        return deepdream(layer)
    if unit.basis is not None:
        read = model.basis(unit.layer, unit.basis).read[unit.index]
        return Reading(layer, along=_vector(read), at=at)
    return Reading(layer, torch.tensor([unit.index]), at=at)


def as_objective(objective: Objective | str | Callable[[Activations], Any]) -> Objective:
    """An objective as it is; "layer:n" as a channel; a function of your own (a loss, as in Lucent) wrapped.

    Raises:
        VisualizationError: anything else.
    """
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, str):
        layer, colon, index = objective.rpartition(":")
        if colon and index.strip().isdigit():
            return channel(layer.strip(), int(index))
        raise VisualizationError(
            f"an objective as text is layer:channel, for example mixed4a:476; got {objective[:60]!r}"
        )
    if callable(objective):
        return Foreign(objective)
    raise VisualizationError(
        f"an objective is an Objective, layer:channel, or a function; got {type(objective).__name__}"
    )


def stack(objectives: Sequence[Objective]) -> Objective:
    """One objective whose value for image i is that of `objectives[i]`; they must be of the same shape.

    Raises:
        VisualizationError: they differ in more than which unit, direction or position they read.
    """
    first = objectives[0]
    if all(o is first for o in objectives):
        return first
    if any(type(o) is not type(first) for o in objectives):
        raise VisualizationError("objectives of different kinds cannot share a batch; give them one by one")
    stacked: dict[str, Any] = {}
    for field in fields(first):  # type: ignore[arg-type]
        values = [getattr(o, field.name) for o in objectives]
        if isinstance(values[0], Tensor) and all(isinstance(v, Tensor) for v in values):
            stacked[field.name] = torch.cat(values)
        elif isinstance(values[0], Objective):
            stacked[field.name] = stack(values)
        elif isinstance(values[0], tuple) and any(isinstance(v, Objective) for v in values[0]):
            if len({len(v) for v in values}) > 1:
                raise VisualizationError("sums of different lengths cannot share a batch; give them one by one")
            stacked[field.name] = tuple(stack(row) for row in zip(*values, strict=True))
        elif any(v != values[0] for v in values[1:]):
            raise VisualizationError(
                f"objectives that differ in {field.name} cannot share a batch ({values[0]!r}, …); give them one by one"
            )
        else:
            stacked[field.name] = values[0]
    return replace(first, **stacked)  # type: ignore[type-var]


def shape_of(objective: Objective) -> tuple[Any, ...]:
    """What must be equal for two objectives to share a batch."""
    shape: list[Any] = [type(objective).__name__]
    for field in fields(objective):  # type: ignore[arg-type]
        value = getattr(objective, field.name)
        if isinstance(value, Tensor):
            shape.append("tensor")
        elif isinstance(value, Objective):
            shape.append(shape_of(value))
        elif isinstance(value, tuple) and any(isinstance(v, Objective) for v in value):
            shape.append(tuple(shape_of(v) for v in value))
        else:
            shape.append(value if isinstance(value, (str, float, int, tuple, type(None))) else id(value))
    return tuple(shape)


_index = partial(whole_number, least=0, error=VisualizationError)


def position(x: int | None, y: int | None) -> str | Tensor:
    """A position as `Reading.at` holds it."""
    if x is None and y is None:
        return "center"
    if x is None or y is None:
        raise VisualizationError("give both x and y of a position, or neither for the center")
    return torch.tensor([[_index("y", y), _index("x", x)]])


def _vector(vector: Tensor) -> Tensor:
    if not isinstance(vector, Tensor) or vector.ndim != 1 or not bool(torch.isfinite(vector).all()):
        raise VisualizationError("a direction is a finite tensor (channels,)")
    return vector.detach().float()[None]


def _power(power: float) -> float:
    return number("cossim_pow", power, least=0, error=VisualizationError)
