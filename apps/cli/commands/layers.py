"""`circuits layers`: the layers of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, ModelOptions, Session, check_known
from apps.cli.output.console import table
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.network.layer import Layer
    from circuits.network.model import Model


@command(group="Models and images", order=30, summary="layers of a model: channels, size, stride, receptive field")
@dataclass(frozen=True, kw_only=True)
class Layers(ModelOptions):
    """List the layers of a model: what can stand in an address, and what one position of it sees.

    A circuit is traced from one trunk layer (marked *) back to the one before; branches, such as mixed4a_5x5, are
    ranges of channels of the layer that holds them. The receptive field is given in pixels of the model's input:
    its size, and where it begins for position 0,0 (negative where padding is seen). Without its weights a model is
    built untrained, since layers do not depend on weights.

    Example:
        circuits layers scenes
        circuits layers torchvision/resnet18 --all
        circuits layers mine --model mine.py:make --weights w.pth
    """

    model: tyro.conf.Positional[str]
    """Name of a model, as `circuits models` lists them."""
    all: bool = False
    """Every module, not only the trunk and its branches."""

    def run(self, session: Session) -> CommandResult:
        """The layers, trunk and branches first."""
        from zoo.registry import get_card, status

        check_known(self.model, None)
        card = get_card(self.model)
        there = status(card)
        model = self._build(card.name, there.available)
        layers = [layer for layer in model.layers.values() if self.all or layer.trunk or layer.part is not None]
        if (scores := model.class_scores) is not None and not any(layer.name == scores for layer in layers):
            layers.append(model.layers[scores])
        document = {
            "model": model.name,
            "input": {"channels": model.input.channels, "size": list(model.input.hw)},
            "weights": {"found": there.available, "path": there.path, "how": there.how, "used": model.source},
            "layers": [describe(layer) for layer in layers],
            "unreadable": [{"name": name, "reason": reason} for name, reason in model.unreadable.items()],
        }

        def show(console: Console) -> None:
            channels, height, width = model.input.shape
            console.print(
                Text.assemble((model.name, "bold"), f"  input {channels}x{height}x{width}  weights: {model.source}")
            )
            columns = ["", "layer", "kind", "channels", "size", "stride", "receptive field", "begins at"]
            console.print(table(columns, [_row(layer) for layer in layers], right="   r rr"))
            hidden = len(model.layers) - len(layers)
            if hidden:
                console.print(Text(f"* trunk   {hidden} more with --all", style="dim"))
            if model.unreadable and self.all:
                for name, reason in model.unreadable.items():
                    console.print(Text(f"{name} has no units: {reason}", style="dim"))
            elif model.unreadable:
                console.print(Text(f"{len(model.unreadable)} whose axes are not known: --all says why", style="dim"))

        return CommandResult(document, show)

    def _build(self, name: str, available: bool) -> Model:
        from circuits.network.model import load
        from zoo.errors import WeightsError

        if self.weights is not None or available:
            return self.load(name)
        try:
            return load(name, weights="random", device=self.device)
        except WeightsError:
            return self.load(name)


def describe(layer: Layer) -> dict[str, object]:
    """A layer as JSON."""
    field = layer.receptive_field
    return {
        "name": layer.name,
        "kind": layer.kind,
        "channels": layer.channels,
        "size": layer.size,
        "layout": layer.axes.layout,
        "tokens_of": layer.view,
        "stride": layer.stride,
        "receptive_field": None
        if field is None
        else {"size": field.size, "stride": field.stride, "offset": field.offset},
        "trunk": layer.trunk,
        "part_of": None if layer.part is None else {"layer": layer.part[0], "first_channel": layer.part[1]},
    }


def _pair(values: tuple[int, int]) -> str:
    return str(values[0]) if values[0] == values[1] else f"{values[0]}x{values[1]}"


def _row(layer: Layer) -> list[object]:
    field = layer.receptive_field
    mark = "*" if layer.trunk else ""
    name = Text(layer.name, style="bold" if layer.trunk else "")
    plain = layer.kind if layer.axes.plain else f"{layer.kind}, {layer.axes.layout}"
    kind = plain if layer.part is None else f"{layer.part[0]}:{layer.part[1]}-{layer.part[1] + layer.channels - 1}"
    size = "" if layer.size is None else f"{layer.size[0]}x{layer.size[1]}"
    if field is None:
        return [mark, name, kind, layer.channels, size, "", "whole image" if layer.size is None else "", ""]
    return [mark, name, kind, layer.channels, size, _pair(field.stride), _pair(field.size), _pair(field.offset)]
