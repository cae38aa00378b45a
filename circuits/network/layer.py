"""A layer of a network, and the part of a model that hooks depend on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, fx, nn

from circuits.errors import CaptureError
from circuits.network.graph import Graph, ReceptiveField
from circuits.network.layers.axes import Axes, plain_axes
from circuits.network.layers.windows import Window
from circuits.network.operations import Pair
from zoo.inputs import InputSpec
from zoo.networks.trial import Output


class _OnFirstUse:
    """A receptive field, or a function that measures it when it is first asked for."""

    def __get__(self, layer: object, owner: type) -> ReceptiveField | None:
        if layer is None:
            raise AttributeError("a layer is made with its receptive field")  # so that it has no default
        value = layer.__dict__["receptive_field"]
        return value() if callable(value) else value  # type: ignore[no-any-return]

    def __set__(self, layer: object, value: ReceptiveField | Callable[[], ReceptiveField | None] | None) -> None:
        layer.__dict__["receptive_field"] = value


@dataclass(frozen=True)
class Layer:
    """One named output of a network, whose activations can be read or edited.

    Attributes:
        name: address of the layer within its model.
        channels: number of channels.
        size: height and width of its map for the model's input size; None for a vector (logits, say).
        receptive_field: input pixels that one position sees; None when that is the whole image, or unknown. Measured
            when it is first asked for where the network has no graph.
        kind: the operation that gives its output: conv, relu, concat, add, maxpool, linear, ...
        trunk: whether every path from input to output crosses it, as the activation of its stage; tracing
            goes back from one trunk layer to the one before.
        path: module whose output it is (None for a function called in some `forward`, read through the graph).
        call: which call of that module, for a module that runs more than once.
        part: `(layer, start)` when this is a range of channels of another layer (an inception branch).
        view: the layer whose other tokens these are: `block3` for its class token `block3.cls`.
        axes: how its tensor is brought to maps.
        windows: the layer whose windows these are, and which: a layer that no module gives, and that is only read.
    """

    name: str
    channels: int
    size: Pair | None
    if TYPE_CHECKING:
        receptive_field: ReceptiveField | None
    else:  # for mypy a descriptor is a default
        receptive_field: ReceptiveField | None = _OnFirstUse()
    kind: str
    trunk: bool = False
    path: str | None = None
    call: int = 0
    part: tuple[str, int] | None = None
    view: str | None = None
    axes: Axes = plain_axes((1, 1))
    windows: tuple[str, Window] | None = None

    @property
    def base(self) -> str:
        """The layer that the network computes: of a branch, tokens or windows, the one that they are of."""
        if self.windows is not None:
            return self.windows[0]
        return self.part[0] if self.part is not None else self.view or self.name

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "receptive_field": self.receptive_field}  # a function of the model cannot be sent

    @property
    def stride(self) -> int | None:
        """Input pixels between neighboring positions (vertically), or None without a receptive field."""
        return None if self.receptive_field is None else self.receptive_field.stride[0]


class Layers(dict[str, Layer]):
    """Name -> layer, in the order in which they run.

    Attributes:
        windows: name -> windows of one of these, which are found by `layers[name]` and listed nowhere.
    """

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        super().__init__(layers)
        self.windows: dict[str, Layer] = {}

    def add_windows(self, name: str, source: Layer, target: Layer, window: Window) -> None:
        """Windows of `source` as a layer that is found by its name, and in no list of layers."""
        self.windows[name] = replace(
            target, name=name, channels=window.size[0] * window.size[1] * source.channels, kind="windows", trunk=False,
            path=None, part=None, view=None, windows=(source.name, window),
        )  # fmt: skip

    def __missing__(self, name: str) -> Layer:
        return self.windows[name]

    def position(self, name: str) -> int:
        """The place of a layer in the order in which they run.

        Raises:
            CaptureError: windows of a layer, which overlap: they are only read.
        """
        if name in self.windows:
            base = self.windows[name].base
            raise CaptureError(f"{name} are windows of {base}, which overlap and are only read: take {base} itself")
        return list(self).index(name)


class Network(Protocol):
    """What `circuits.network.hooks` needs to know of a `Model`; see its attributes there."""

    name: str
    module: nn.Module
    input: InputSpec
    graph: Graph | None
    lock: threading.RLock
    node_edits: list[tuple[str, Callable[[Tensor], Tensor]]]
    output: Output

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Name -> layer, in the order in which they run."""

    @property
    def device(self) -> torch.device:
        """Where images are put."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type that images are fed in."""

    def layer(self, name: str) -> Layer:
        """The layer of that name."""

    def node(self, name: str) -> fx.Node:
        """The node of the graph whose output a layer is."""
