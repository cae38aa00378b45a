"""The layers of a network by name, from its graph or from what hooks see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from circuits.network.graph import Graph
from circuits.network.layer import Layer
from circuits.network.layers.axes import Axes, Layouts, grid_of
from circuits.network.layers.declared import declared
from circuits.network.operations import shape_of

#: functions called in a `forward` that are layers of their own; pools too, since weights across them start there
_NAMED_FUNCTIONS = ("relu", "maxpool", "avgpool", "globalpool", "lrn", "add", "cat")
#: parameters that hold tokens which are no patches, in the order in which they come before the patches
_TOKENS = {"cls": ("cls_token", "class_token"), "dist": ("dist_token",), "reg": ("reg_token", "register_tokens")}


class Layers:
    """Layers as they are named, each with the reading of its tensor.

    Attributes:
        readable: name -> layer, in the order in which they run. Where a layer also has tokens that are no patches, the
            layer is its patches, `LAYER.cls` its class token, and `LAYER.tokens` all of its tokens in a row.
        unreadable: name -> why its axes are not known.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.readable: dict[str, Layer] = {}
        self.unreadable: dict[str, str] = {}
        self._names: dict[int, list[str]] = {}

    def add(self, layer: Layer, layouts: Layouts) -> None:
        """A layer under its name, and its other tokens under theirs."""
        if isinstance(layouts, str):
            self.unreadable[layer.name] = layouts
            return
        self.readable[layer.name] = _with_axes(layer, layouts[""])
        tokens = self._token_names(len(layouts) - 2)
        for key, axes in layouts.items():
            if key:
                name = f"{layer.name}.{key if key == 'tokens' else tokens[int(key)]}"
                self.readable[name] = _with_axes(layer, axes, name=name, view=layer.name, trunk=False)

    def _token_names(self, count: int) -> list[str]:
        if count not in self._names:
            names: list[str] = []
            for name, keys in _TOKENS.items():
                sizes = [p.shape[-2] for path, p in self.module.named_parameters() if path.split(".")[-1] in keys]
                if sizes:
                    names += [name] if name != "reg" else [f"reg{i}" for i in range(sizes[0])]
            if len(names) != count:
                names = ["cls"] if count == 1 else [f"token{i}" for i in range(count)]
            self._names[count] = names
        return self._names[count]


def _with_axes(layer: Layer, axes: Axes, **changes: object) -> Layer:
    field = None if axes.grid is None or "view" in changes else layer.receptive_field
    changes |= {"channels": axes.channels, "size": axes.grid, "axes": axes, "receptive_field": field}
    return replace(layer, **changes)  # type: ignore[arg-type]


def layers_of_graph(graph: Graph, axes: Mapping[str, str]) -> Layers:
    """Layers of a traced network: its modules, and the functions that are layers of their own; `axes` as declared."""
    image = shape_of(graph.input)
    assert image is not None
    for name, pattern in axes.items():
        node = graph.outputs.get(name)
        shape = None if node is None else shape_of(node)
        if node is not None and shape is not None:
            graph.layouts[node] = declared(pattern, shape, grid_of(image), name)
    trunk = set(graph.trunk())
    of_modules = set(graph.outputs.values())
    for n in graph.nodes:
        # functions called in a `forward` (F.relu, torch.cat, +) have no module's name: give them fx's
        if n not in of_modules and (n in trunk or graph.ops[n].kind in _NAMED_FUNCTIONS or graph.ops[n].takes_maximum):
            graph.outputs[n.name if n.name not in graph.outputs else f"{n.name}_function"] = n
    order = sorted(graph.outputs, key=lambda name: graph.order[graph.outputs[name]])
    main = {n: main_name(graph.module, [m for m in order if graph.outputs[m] is n]) for n in trunk}
    layers = Layers(graph.module)
    for name in order:
        node = graph.outputs[name]
        if shape_of(node) is None or node in graph.constants:
            continue
        path, call = split_call(name)
        layer = Layer(
            name=name,
            channels=0,
            size=None,
            receptive_field=graph.fields[node],
            kind={"cat": "concat"}.get(graph.ops[node].kind, graph.ops[node].kind),
            trunk=main.get(node) == name,
            path=path if node in of_modules else None,
            call=call,
        )
        layers.add(layer, graph.layouts[node])
    return layers


def layers_of_hooks(module: nn.Module, outputs: Mapping[str, Layouts], stages: Sequence[list[str]]) -> Layers:
    """Layers of a network that has no graph: the modules whose outputs hooks see.

    `stages` are the layers that every path crosses, those of one output together; see `crossing`.
    """
    layers = Layers(module)
    # a module that holds the whole network (of DataParallel, a wrapper) is no layer of its own
    whole = {name for name in outputs if all(other == name or other.startswith(f"{name}.") for other in outputs)}
    readable = [
        [
            name
            for name in names
            if not isinstance(outputs.get(name, ""), str) and (name not in whole or len(names) == 1)
        ]
        for names in stages
    ]
    trunk = {main_name(module, names) for names in readable if names}
    trunk = trunk or set(list(outputs)[-1:])  # where autograd sees no path, the last layer is all that is known
    for name, layouts in outputs.items():
        path, call = split_call(name)
        kind = type(module.get_submodule(path)).__name__.lower()
        layers.add(Layer(name, 0, None, None, kind, trunk=name in trunk, path=path, call=call), layouts)
    return layers


def main_name(module: nn.Module, names: list[str]) -> str:
    """Of the modules that share an output, the outermost that is not a plain container."""

    def submodule(layer: str) -> nn.Module | None:
        try:
            return module.get_submodule(split_call(layer)[0])
        except AttributeError:
            return None

    inner = [n for n in names if not isinstance(submodule(n), nn.Sequential)] or names
    return min(inner, key=lambda n: n.count("."))


def split_call(name: str) -> tuple[str, int]:
    """Path of the module and number of its call, from the name of a layer."""
    path, marker, number = name.rpartition(".call")
    return (path, int(number)) if marker and number.isdigit() else (name, 0)
