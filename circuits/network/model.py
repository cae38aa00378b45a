"""A network ready for analysis: its layers by name, how it is fed, and where it came from."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from circuits.errors import AddressError, CaptureError, GraphError, ModelError, did_you_mean, shorten
from circuits.network.address import Unit, of_class, split_class
from circuits.network.basis import Basis
from circuits.network.graph import ReceptiveField
from circuits.network.hooks import behind_output, check_mode, crossed, forward, frozen, probe, read
from circuits.network.layer import Layer, Layers
from circuits.network.layers.find import layers_of_graph, layers_of_hooks
from circuits.network.layers.positions import position_on_maps, refuse_unless_images
from circuits.network.layers.scores import behind_output_of_graph, layer_of_scores
from circuits.network.layers.tracing import trace_graph
from circuits.network.linearized import receptive_fields
from circuits.network.operations import shape_of
from zoo.cards import branches_of
from zoo.common.autograd import outside_inference_mode
from zoo.common.results import Drawable
from zoo.inputs import InputSpec
from zoo.networks.own import command_line
from zoo.networks.trial import Output, check_runs, checked_names
from zoo.registry import build, get_card, origin
from zoo.weights.live_digest import LiveDigest

if TYPE_CHECKING:
    from zoo.cards import Card


_INPUT_ADVICE = 'Say how it is fed, such as --input \'{"size": [96, 128], "channels": 1}\', or in a card file beside it'


class Model(Drawable):
    """A network with names. Made by `circuits.load` or `circuits.wrap`; call it on images in [0, 1].

    Attributes:
        name: the model part of addresses.
        module: the network itself, in eval mode; never changed.
        input: how it is fed.
        layers: name -> `Layer`, in the order in which they run.
        unreadable: name -> why its axes are not known, for layers that therefore have no units.
        graph: its operations, or None where torch.fx cannot trace it.
        digest: SHA-256 of the weights, as they are now.
        source: where the weights came from.
        output: which of its outputs is meant, where it gives several; see `wrap`.
        axes: layer -> axes that were declared for it; see `wrap`.
        bases: (layer, name) -> attached `Basis`; see `attach`.
    """

    def __init__(
        self,
        module: nn.Module,
        input: InputSpec,
        *,
        name: str,
        card: Card | None = None,
        source: str = "given",
        classes: Sequence[str] = (),
        output: Output = None,
        axes: Mapping[str, str] | None = None,
    ) -> None:
        if axes is not None and not isinstance(axes, Mapping):
            raise ModelError(f"axes is a dictionary, layer -> its axes, as {{'blocks.0': 'n h w c'}}; got {axes!r}")
        self.name = Unit("x", model=name).model or name
        self.module = module
        self.input = input
        self.card = card
        self.source = source
        self.output = output if card is None or output is not None else card.output
        self.axes = dict(axes or ({} if card is None else card.axes))
        self.lock = threading.RLock()
        self.bases: dict[tuple[str, str], Basis] = {}
        self.node_edits: list[tuple[str, Callable[[Tensor], Tensor]]] = []
        self._classes = checked_names(classes)
        self._digest = LiveDigest(module)
        example = self._example()
        self.graph = trace_graph(module, example, self.output)
        self.layers = Layers(self._find_layers(example))
        if self.graph is None:
            self._measure_fields()
        self._by_key: dict[str, list[str]] = {}
        for layer in self.layers:
            self._by_key.setdefault(_key(layer), []).append(layer)

    # -- what it is -------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Device of the first parameter, or the CPU for a network without parameters."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters, in which images are fed; float32 without parameters."""
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)

    @property
    def digest(self) -> str:
        """SHA-256 over names, shapes and bytes of all weights, as they are now."""
        return self._digest()

    @property
    def trunk(self) -> list[str]:
        """Names of the layers that every path crosses, in order; see `Layer.trunk`."""
        return [name for name, layer in self.layers.items() if layer.trunk]

    @property
    def one_size(self) -> bool:
        """Whether it takes images of its input size alone: positions of tokens are learned one by one."""
        return any(layer.axes.layout == "tokens" and layer.size is not None for layer in self.layers.values())

    @property
    def logits(self) -> str:
        """The layer of class scores before any softmax: the card's, else what the network puts out is made from.

        Raises:
            ModelError: there is none, or the network gives several outputs and `output` names none of them.
        """
        if self.card is not None and self.card.logits in self.layers:
            return self.card.logits
        name, outputs = self._scores
        if name is None and len(outputs) > 1:
            names = ", ".join(repr(name) for name, _ in outputs[:8])
            raise ModelError(
                f"{self.name} gives {len(outputs)} outputs ({names}): say which holds the class scores, "
                f"output={outputs[0][0]!r}"
            )
        if name is None:
            raise ModelError(f"{self.name} has no layer of class scores")
        return name

    @property
    def class_scores(self) -> str | None:
        """`logits`, or None where there are no class scores."""
        try:
            return self.logits
        except ModelError:
            return None

    @cached_property
    def _scores(self) -> tuple[str | None, list[tuple[str, Any]]]:
        """The layer of class scores, and what the network puts out."""
        if self.graph is not None:
            names, outputs = behind_output_of_graph(self.graph, self.output)
            shape = shape_of(outputs[0][1]) if len(outputs) == 1 else None
        else:
            with self.lock:
                names, outputs = behind_output(self.module, self._example(), self.output)
            shape = outputs[0][1].shape if len(outputs) == 1 else None
        return None if shape is None or len(shape) < 2 else layer_of_scores(self.layers, names, shape[1]), outputs

    def _example(self) -> Tensor:
        return self.input.normalize(torch.full((1, *self.input.shape), 0.5)).to(self.device, self.dtype)

    @property
    def classes(self) -> list[str]:
        """Class names in output order; empty when they are unknown."""
        return list(self._classes) if self.card is None else self.card.classes()

    @property
    def options(self) -> dict[str, Any]:
        """What the user said of the network, for copies of it."""
        return {"classes": self._classes, "output": self.output, "axes": self.axes}

    # Locks cannot be copied, and graphs refer to their module by identity: copies trace the network again.

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        self._check_unedited()
        module = copy.deepcopy(self.module, memo)
        options = {"card": self.card, "source": self.source, **self.options}
        model = Model(module, self.input, name=self.name, **options)
        model.bases.update(copy.deepcopy(self.bases, memo))
        model.layers.windows.update(self.layers.windows)
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_unedited()
        card = None if self.card is None else self.card.name
        options = {"source": self.source, **self.options}
        return _rebuilt, (self.module, self.input, self.name, card, options, self.bases, self.layers.windows)

    def _check_unedited(self) -> None:
        if self.node_edits:
            raise ModelError(f"{self.name} is being edited: leave the edit before it is copied, its hooks would be too")

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each layer, in the order in which they run."""
        return [
            {
                "layer": layer.name,
                "kind": layer.kind,
                "units": layer.channels,
                "size": None if layer.size is None else "×".join(map(str, layer.size)),
                "trunk": layer.trunk,
            }
            for layer in self.layers.values()
        ]

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {len(self.layers)} layers, input {self.input.shape}, {self.source})"

    def __call__(self, images: Tensor) -> Tensor:
        """The network's output for images `(N, C, H, W)` in [0, 1], active edits included."""
        return forward(self, images)

    # -- names ------------------------------------------------------------------------------------

    def layer(self, name: str) -> Layer:
        """The layer called `name`; dots, underscores, case and unique endings do not matter.

        Raises:
            AddressError: there is none, or several match the name.
        """
        if not isinstance(name, str):
            raise AddressError(f"the name of a layer is a string, got {type(name).__name__}")
        if name in self.layers or name in self.layers.windows:
            return self.layers[name]
        aliases = {} if self.card is None else self.card.aliases
        if name in aliases and aliases[name] in self.layers:
            return self.layers[aliases[name]]
        if name == "logits":
            return self.layers[self.logits]
        key = _key(name)
        matches = self._by_key.get(key, [])
        if not matches and len(key) >= 2:
            matches = [n for k, names in self._by_key.items() if k.endswith(key) for n in names]
        if len(matches) == 1:
            return self.layers[matches[0]]
        calls = [n for n in self.layers if n.startswith(f"{name}.call")]
        if calls:
            raise AddressError(f"{self.name}: {shorten(name)} runs {len(calls)} times; name one of {', '.join(calls)}")
        if matches:
            raise AddressError(f"{self.name}: {shorten(name)!r} could be {', '.join(matches[:6])}")
        if name in self.unreadable:
            say = "; circuits.wrap(axes=) declares them" if self.unreadable[name].endswith("is not known") else ""
            raise AddressError(f"{self.name}/{name} has no channels that can be told: {self.unreadable[name]}{say}")
        hint = did_you_mean(name, self.layers)
        listed = "model.layers" if self.card is None else command_line("layers", self.name, model=self.name)
        raise AddressError(f"{self.name} has no layer {shorten(name)!r}.{hint} List: {listed}")

    def addressed(self, address: str | Unit) -> Unit:
        """The unit of an address as written; a class may be named, under any name of the layer of class scores."""
        if isinstance(address, Unit):
            return address
        scores, layer = self.class_scores, split_class(str(address))[0].rpartition("/")[2]
        if scores is not None and layer in self.layers and self.graph is not None:
            scores = layer if self.node(layer) is self.node(scores) else scores
        return Unit.parse(of_class(address, self.classes, self.name, scores))

    def resolve(self, address: str | Unit) -> Unit:
        """The canonical address of a layer or unit of this model (branches become channels of the whole).

        Raises:
            AddressError: another model, an unknown layer, or an index or position out of range.
        """
        unit = self.addressed(address)
        if unit.model not in (None, self.name):
            raise AddressError(f"{shorten(unit)} is a unit of {shorten(unit.model)}, not of {self.name}")
        layer = self.layer(unit.layer if unit.token is None else self._token_layer(unit))
        unit, index = replace(unit, token=None), unit.index
        if unit.basis is not None:
            count = self.basis(layer.name, unit.basis).read.shape[0]
        else:
            count = layer.channels
        if index is not None and index >= count:
            kind = "channels" if unit.basis is None else "latents"
            raise AddressError(f"{self.name}/{layer.name} has {count} {kind} (0 to {count - 1}); got {index}")
        if unit.at is not None:
            unit = replace(unit, at=self.position(layer, unit.at))
        if layer.part is not None and index is not None and unit.basis is None:
            base, start = layer.part
            layer, index = self.layers[base], index + start
        return replace(unit, model=self.name, layer=layer.name, index=index)

    def position(self, layer: Layer, at: tuple[int, ...]) -> tuple[int, int]:
        """A position of a layer on its maps, `(y, x)`; see `circuits.network.layers.positions`."""
        return position_on_maps(f"{self.name}/{layer.name}", layer.axes.slices, layer.size, self.input.dims, at)

    def check_images(self, verb: str, error: type[ModelError | GraphError] = ModelError) -> None:
        """Refuse what needs a network of images; `error`, `ModelError` unless given, says what this one takes."""
        refuse_unless_images(self.name, self.input, verb, error)

    def _token_layer(self, unit: Unit) -> str:
        """The layer of the token that an address names: `block3.cls` for `block3:17@cls`."""
        base = self.layer(unit.layer).name
        tokens = [n.removeprefix(f"{base}.") for n, layer in self.layers.items() if layer.view == base]
        if unit.token not in tokens:
            exist = ", ".join(f"@{t}" for t in tokens if t != "tokens") or "none: positions are @y,x"
            raise AddressError(
                f"{self.name}/{base} has no token {shorten(unit.token)!r}; those besides patches: {exist}"
            )
        return f"{base}.{unit.token}"

    def unit(self, address: str | Unit) -> Unit:
        """Like `resolve`, for an address that must name one unit.

        Raises:
            AddressError: also when the address names a whole layer.
        """
        unit = self.resolve(address)
        if unit.index is None:
            raise AddressError(f"{shorten(address)} is a layer; name one of its units, for example {unit.short}:0")
        return unit

    def receptive_field(self, unit: Unit) -> ReceptiveField | None:
        """Receptive field of a unit: in a concatenation of branches that of its own branch, else its layer's."""
        layer = self.layers[unit.layer]
        if self.graph is None or unit.basis is not None or unit.index is None or layer.receptive_field is None:
            return layer.receptive_field
        return self.graph.channel_field(self.node(unit.layer), unit.index)

    def branch_of(self, unit: Unit) -> str | None:
        """The branch that holds a channel, for example `mixed4c_5x5`; None where there are none."""
        for name, layer in self.layers.items():
            if layer.part is not None and layer.part[0] == unit.layer and unit.index is not None:
                if layer.part[1] <= unit.index < layer.part[1] + layer.channels:
                    return name
        return None

    def before(self, layer: str) -> str | None:
        """The last trunk layer with weights between it and `layer`; None when that is the image itself."""
        layer = self.layers[layer].base
        if self.graph is None:
            names = list(self.layers)
            earlier = [n for n in self.trunk if names.index(n) < names.index(layer)]
            return self._with_all_tokens(earlier[-1]) if earlier else None
        target = self.node(layer)
        ancestors = self.graph.ancestors([target])
        for name in reversed(self.trunk):
            node = self.node(name)
            if node is not target and node in ancestors:
                if any(self.graph.ops[n].weighted for n in self.graph.between(node, target)[1:]):
                    return self._with_all_tokens(name)
        return None

    def _with_all_tokens(self, layer: str) -> str:
        """A layer, or where it has a class token, which later layers read as they read patches, all of its tokens."""
        tokens = f"{layer}.tokens"
        return tokens if tokens in self.layers else layer

    def start(self, source: str, target: str) -> str:
        """The layer whose activations feed the weights from `source` to `target`; see `Graph.start`.

        Raises:
            GraphError: no path leads from one to the other.
        """
        assert self.graph is not None
        begin = self.graph.start(self.node(source), self.node(target))
        if begin is self.node(source):
            return source
        view, name = self.layers[source].view, self.name_of(begin)
        return name if view is None else name + source[len(view) :]

    def node(self, layer: str) -> fx.Node:
        """The graph node that holds a layer's output (for models with a graph)."""
        assert self.graph is not None
        at = self.layers[layer]
        if at.windows is not None:
            raise GraphError(f"{self.name}/{layer} are windows of {at.base}, and no layer of weights")
        node: fx.Node = self.graph.outputs[at.base]
        return node

    def name_of(self, node: fx.Node) -> str:
        """The layer whose output a graph node holds: the trunk's name for it where it has one.

        Raises:
            GraphError: no layer is named after that node.
        """
        assert self.graph is not None
        names = [n for n, layer in self.layers.items() if layer.base == n and self.graph.outputs[n] is node]
        if not names:
            raise GraphError(f"the output of {node.name!r} inside {self.name} belongs to no module; wrap it in one")
        return next((n for n in names if self.layers[n].trunk), names[0])

    # -- bases ------------------------------------------------------------------------------------

    def attach(self, layer: str, name: str, basis: Basis) -> None:
        """Make the latents of `basis` units of this model: `layer~name:index`.

        Raises:
            ModelError: the basis does not live in that layer's activation space.
        """
        target = self.layer(layer)
        if basis.read.shape[1] != target.channels:
            raise ModelError(
                f"a basis over {basis.read.shape[1]} channels does not fit {target.name} ({target.channels})"
            )
        Unit(target.name, basis=name)
        self.bases[target.name, name] = basis

    def basis(self, layer: str, name: str) -> Basis:
        """The basis attached to `layer` under `name`.

        Raises:
            AddressError: there is none.
        """
        if (layer, name) not in self.bases:
            attached = [f"{at}~{n}" for at, n in self.bases]
            raise AddressError(
                f"{self.name}/{layer} has no basis {shorten(name)!r}; attached: {', '.join(attached) or 'none'}"
            )
        return self.bases[layer, name]

    # -- layers -----------------------------------------------------------------------------------

    def _find_layers(self, example: Tensor) -> dict[str, Layer]:
        if self.graph is not None:
            named = layers_of_graph(self.graph, self.axes)
        else:
            layouts = probe(self.module, example, self.name, self.axes)
            named = layers_of_hooks(self.module, layouts, crossed(self.module, example, self.output))
        layers, self.unreadable = named.readable, named.unreadable
        for name in self.axes:
            if name not in layers and name not in self.unreadable:
                hint = did_you_mean(name, [*layers, *self.unreadable])
                raise ModelError(f"axes are given for {shorten(name)!r}, which is no layer of {self.name}.{hint}")
        for name, (base, start, stop) in branches_of(self.module).items():
            if base in layers and name not in layers:
                whole = layers[base]
                layers[name] = replace(whole, name=name, channels=stop - start, trunk=False, part=(base, start))
        return layers

    def _measure_fields(self) -> None:
        """Receptive fields are measured when they are first asked for: it takes two backward passes a layer."""
        measured: dict[str, ReceptiveField | None] = {}

        @outside_inference_mode
        def measure(name: str) -> ReceptiveField | None:
            with self.lock:
                if name not in measured and self.node_edits:
                    return None  # an edit may stop the gradients by which a field is seen
                if name not in measured:
                    try:
                        with frozen(self.module):
                            layer = self.layers[name]
                            fields = receptive_fields(lambda x: read(self, x, [layer]), self.input.shape, self.device)
                    except CaptureError:  # the linearized network takes another branch
                        fields = {}
                    measured[name] = fields.get(name)
                return measured[name]

        for name, layer in self.layers.items():
            of_maps = layer.size is not None and layer.view is None and self.input.dims == 2
            field: Any = partial(measure, layer.base) if of_maps else None
            self.layers[name] = replace(layer, receptive_field=field)


def _rebuilt(
    module: nn.Module, input: InputSpec, name: str, card: str | None, options: dict[str, Any],
    bases: dict[tuple[str, str], Basis], windows: dict[str, Layer],
) -> Model:  # fmt: skip
    model = Model(module, input, name=name, card=None if card is None else get_card(card), **options)
    model.bases.update(bases)
    model.layers.windows.update(windows)
    return model


def _key(name: str) -> str:
    return name.lower().replace(".", "").replace("_", "").replace("-", "")


def best_device(device: str | torch.device | None = None) -> torch.device:
    """The requested device, or the best there is: cuda, then mps, then cpu.

    Raises:
        ModelError: the requested device is not there.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"unknown device {shorten(device)!r}; use cpu, cuda, cuda:0 or mps") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(chosen.type, False):
        raise ModelError(f"device {chosen} is not available here; use --device cpu")
    return chosen


@outside_inference_mode
def load(
    name: str,
    *,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
) -> Model:
    """A model of the zoo, ready for analysis.

    Args:
        name: a card: `scenes`, `inceptionv1`, `googlenet-bvlc`, `squeezenet-1.1`, `torchvision/<name>`, ...
        weights: a weights file, or "random" for an untrained network (seeded); default: where the card looks.
        device: default the best available.

    Raises:
        ModelError: unknown model or device. WeightsError: the weights are missing or not the right ones.

    >>> load("scenes").name
    'scenes'
    """
    loaded = build(name, weights=weights)
    loaded.module.to(best_device(device))
    if loaded.card.own:
        name = loaded.card.name
        check_runs(loaded.module, loaded.card.input, _INPUT_ADVICE, loaded.card.output)
    model = Model(loaded.module, loaded.card.input, name=name, card=loaded.card, source=loaded.source)
    if loaded.card.own:
        if loaded.card.logits and loaded.card.logits not in model.layers:
            hint = did_you_mean(loaded.card.logits, model.layers)
            raise ModelError(f"{name} has no layer {shorten(loaded.card.logits)!r}, its card's logits.{hint}")
        _check_classes(model)
    return model


def _inner(module: nn.Module) -> nn.Module:
    """The network inside of what deployment puts around it.

    Raises:
        ModelError: some module runs as compiled code, which calls no hooks.
    """
    while _compiled(module) or isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.get_submodule("_orig_mod" if _compiled(module) else "module")
    for path, part in module.named_modules():
        title = f"{path or 'it'} ({type(part).__name__})"
        if isinstance(part, torch.jit.ScriptModule):
            raise ModelError(
                f"{title} is a torch.jit module, which calls no hooks; wrap the module that it was made from"
            )
        if _compiled(part) or part._compiled_call_impl is not None:
            raise ModelError(f"{title} is compiled, and calls no hooks; wrap the network before it is compiled")
    return module


def _compiled(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules  # the class is in torch._dynamo, which takes a second to import


@outside_inference_mode
def wrap(
    module: nn.Module,
    input: InputSpec | None = None,
    *,
    name: str = "model",
    classes: Sequence[str] = (),
    output: Output = None,
    axes: Mapping[str, str] | None = None,
) -> Model:
    """Any image network of your own, ready for analysis. The module is not changed.

    Of a network in `torch.compile`, `DataParallel` or `DistributedDataParallel` the network inside is taken, with its
    own names of layers.

    Args:
        module: takes one tensor `(N, channels, H, W)`, sequences `(N, channels, T)` or volumes
            `(N, channels, D, H, W)`; in eval mode, every module of it.
        input: size, channels and normalization of its images (default: that of its card for a module of the zoo,
            else 224 pixels, RGB, [0, 1]); `InputSpec(size=(T,))` of sequences, `(D, H, W)` of volumes.
        name: the model part of its addresses.
        classes: names of its class scores, in output order.
        output: for a network that gives several tensors, in a dictionary, a tuple or a data class, the one that holds
            the class scores: its key or index, with dots for those inside of others ("out", 0, "heads.1").
        axes: layer -> what its axes are, where this cannot be found out (`Model.unreadable`): "n h w c",
            "n (h w) c" for patches, "n (1 + h w) c" with a class token before them, "n c (h w) c" for heads.

    Raises:
        ModelError: the module, or one in it, is in training mode, was made by torch.jit, or is compiled; it cannot
            take one image tensor of that size; its output is random, changes the network, or depends on the
            other images; there is no such output; or it has another number of class scores.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"wrap takes a torch.nn.Module, got {type(module).__name__}")
    module = _inner(module)
    check_mode(module, type(module).__name__)
    card = origin(module) if input is None else None
    spec = (InputSpec() if card is None else card.input) if input is None else input
    check_runs(module, spec, "Give input=InputSpec(size=..., channels=...)", output)
    model = Model(module, spec, name=name, source="wrapped module", classes=classes, output=output, axes=axes)
    _check_classes(model)
    return model


def _check_classes(model: Model) -> None:
    """Each class score has a name, where there are names."""
    count = len(model.classes)
    if count and count != (scores := model.layers[model.logits].channels):
        raise ModelError(f"{model.name} has {scores} class scores ({model.logits}), but {count} names of classes")
