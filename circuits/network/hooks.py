"""The only module that sets hooks: capturing activations, editing them, and stopping early.

What is promised here, and tested on every model of the zoo: hooks are removed in `finally`, also on
error (those of a `Recorder`, for code that runs the network itself, when it is closed or no longer used);
a requested hook that did not fire is an error; a captured tensor is a copy, since an
in-place ReLU further on would overwrite it; weights and hook count are the same after as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, fx, nn

from circuits.errors import CaptureError, ModelError
from circuits.network.graph import name_calls
from circuits.network.layer import Layer, Network
from circuits.network.layers.axes import Layouts, grid_of
from circuits.network.layers.crossing import stages
from circuits.network.layers.declared import declared
from circuits.network.layers.find import split_call
from circuits.network.layers.labels import Labels, Lost
from circuits.network.layers.readings import layouts_of
from circuits.network.layers.tracking import labeled, labels_of, tracking
from zoo.images.sources import Images, open_images
from zoo.networks.trial import Output, outputs_of, selected
from zoo.progress import Progress, check_stopped

EditFunction = Callable[[Tensor], Tensor]


class Stop(Exception):
    """Raised inside a forward pass once all requested layers have run; whoever raises it catches it."""


@contextmanager
def hooked(module: nn.Module, function: Callable[..., Any], *, before: bool = False) -> Iterator[None]:
    """A hook for as long as the context is open: `function(module, inputs, output)`; before it runs, without output."""
    handle = module.register_forward_pre_hook(function) if before else module.register_forward_hook(function)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter asks for gradients inside; afterwards each does as before.

    Raises:
        ModelError: gradients cannot pass the weights, because they were made under `torch.inference_mode`.
    """
    if any(p.is_inference() for p in module.parameters()):
        raise ModelError(
            f"the weights of {type(module).__name__} were made under torch.inference_mode, and no gradient passes "
            "them: build the network outside of it, or wrap copy.deepcopy(module)"
        )
    trainable = [p for p in module.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


class Recorder:
    """What the modules of a network gave in its latest forward pass, for code that runs the network itself.

    Outputs are copies, and gradients flow back from them. The hooks are removed by `close`, at the end of a `with`
    block, and when nothing refers to the recorder any more.
    """

    def __init__(self, model: Network, layers: Sequence[Layer]) -> None:
        outputs: dict[str, list[Any]] = {}  # the hooks refer to this alone, so that the recorder can be let go
        paths = dict.fromkeys(layer.path for layer in layers if layer.path is not None)
        stack = ExitStack()
        stack.enter_context(hooked(model.module, lambda *_: outputs.clear(), before=True))
        for path in paths:
            stack.enter_context(hooked(model.module.get_submodule(path), _keeper(path, outputs)))
        self._outputs, self._name = outputs, model.name
        self.close = finalize(self, stack.close)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def output(self, layer: Layer) -> Tensor:
        """The output of a layer, a vector as `(N, C)`, anything else as maps `(N, C, H, W)`.

        Raises:
            CaptureError: the layer is no module's output, or the network has not run as far.
        """
        if layer.path is None:
            raise CaptureError(f"{layer.name} is the result of a function, not of a module: hooks do not reach it")
        calls = self._outputs.get(layer.path, [])
        if len(calls) <= layer.call:
            raise CaptureError(f"{self._name} has not run as far as {layer.name} since it was hooked: call it first")
        out = calls[layer.call]
        if not isinstance(out, Tensor):
            raise CaptureError(f"the output of {layer.name} is a {type(out).__name__}, not a tensor")
        if not layer.axes.plain:
            return layer.axes.maps(out)
        return out if layer.part is None else out[:, layer.part[1] : layer.part[1] + layer.channels]


def _keeper(path: str, outputs: dict[str, list[Any]]) -> Callable[[nn.Module, Any, Any], None]:
    def keep(_module: nn.Module, _inputs: Any, out: Any) -> None:
        outputs.setdefault(path, []).append(out.clone() if isinstance(out, Tensor) else out)

    return keep


_Labeled = tuple[Labels | Lost | None, tuple[int, ...]]


def probe(module: nn.Module, example: Tensor, name: str, axes: Mapping[str, str]) -> dict[str, Layouts]:
    """How the outputs of all modules are read: layer name -> layouts, found in one forward pass; `axes` as declared."""
    calls: list[tuple[str, _Labeled | None]] = []
    with ExitStack() as stack:
        for path, part in module.named_modules():
            if path:
                stack.enter_context(hooked(part, _recorder(path, calls)))
        with torch.no_grad(), tracking():
            module(labeled(example))
    labels = {layer: seen for layer, seen in name_calls(calls).items() if seen is not None}
    layouts = {layer: layouts_of(*seen) for layer, seen in labels.items()}
    grid = grid_of(example.shape)
    layouts |= {n: declared(pattern, labels[n][1], grid, n) for n, pattern in axes.items() if n in labels}
    if all(isinstance(layout, str) for layout in layouts.values()):
        raise ModelError(f"{name} has no layer whose output is a map, tokens or a vector")
    return layouts


def behind_output(module: nn.Module, example: Tensor, output: Output) -> tuple[list[str], list[tuple[str, Tensor]]]:
    """Which layers give the scores that a network puts out, for networks without a graph.

    Goes back through autograd's graph from the output, past what has no weights, until several layers meet.

    Returns:
        Names of layers, the nearest to the output first; and all tensors put out.
    """
    functions, whole = _functions(module, example)
    out = selected(whole, output)
    if not isinstance(out, Tensor):
        return [], list(outputs_of(whole))
    layers: dict[Any, list[tuple[str, bool]]] = {}
    for name, fn in functions.items():
        weighted = any(True for _ in module.get_submodule(split_call(name)[0]).parameters())
        layers.setdefault(fn, []).append((name, weighted))
    names: list[str] = []
    at = out.grad_fn
    while at is not None:
        here = layers.get(at, [])
        names += [name for name, _ in here]
        before = [fn for fn, _ in at.next_functions if fn is not None]
        at = before[0] if len(before) == 1 and not any(weighted for _, weighted in here) else None
    return names, [("", out)]


def crossed(module: nn.Module, example: Tensor, output: Output) -> list[list[str]]:
    """The layers that every path crosses, by stages, for networks without a graph; none where autograd sees no path.

    Raises:
        ModelError: its modules run again when gradients are asked for, and hooks with them.
    """
    functions, whole = _functions(module, example, once=True)
    ends = [out.grad_fn for _, out in outputs_of(selected(whole, output))]
    return stages(functions, ends, module)


def _functions(module: nn.Module, example: Tensor, once: bool = False) -> tuple[dict[str, Any], Any]:
    """Layer name -> the function by which autograd knows its output, or None; and what the network puts out."""
    calls: list[tuple[str, Any]] = []

    def record(path: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, out: calls.append((path, out.grad_fn if isinstance(out, Tensor) else None))

    with ExitStack() as stack:
        for path, part in module.named_modules():
            if path:
                stack.enter_context(hooked(part, record(path)))
        stack.enter_context(frozen(module))
        stack.enter_context(torch.enable_grad())
        whole = module(example.clone().requires_grad_().clone())  # a network may write into its input, not into a leaf
        if once:
            _check_runs_once(module, whole, calls)
    return name_calls(calls), whole


def _check_runs_once(module: nn.Module, whole: Any, calls: list[tuple[str, Any]]) -> None:
    count, ends = len(calls), [out for _, out in outputs_of(whole) if out.requires_grad]
    if ends:
        with suppress(RuntimeError):  # an operation may have no gradient, which those who ask for one are told
            torch.autograd.backward([out.sum() for out in ends], retain_graph=True)
    if again := dict.fromkeys(path for path, _ in calls[count:]):
        raise ModelError(
            f"{type(module).__name__} checkpoints gradients: modules run again when a gradient is asked for, "
            f"{next(iter(again))} for one. Turn it off, with set_grad_checkpointing(False) in timm"
        )


def _recorder(path: str, calls: list[tuple[str, _Labeled | None]]) -> Callable[[nn.Module, Any, Any], None]:
    def record(_module: nn.Module, _inputs: Any, out: Any) -> None:
        calls.append((path, (labels_of(out), tuple(out.shape)) if isinstance(out, Tensor) else None))

    return record


class _Tap:
    """A hook on one layer: counts its calls, and acts on the one that is meant."""

    def __init__(self, layer: Layer, act: Callable[[Tensor], Tensor | None]) -> None:
        self.layer, self.act = layer, act
        self.calls, self.fired = 0, False

    def __call__(self, _module: nn.Module, _inputs: Any, out: Any) -> Any:
        call, self.calls = self.calls, self.calls + 1
        if call != self.layer.call:
            if (self.layer.view or self.layer.name) == self.layer.path:
                raise CaptureError(f"{self.layer.name} ran more than once in one forward pass; it was seen to run once")
            return None
        if not isinstance(out, Tensor):
            raise CaptureError(f"the output of {self.layer.name} is a {type(out).__name__}, not a tensor")
        self.fired = True
        return self.act(out)


#: modules of torch.nn that compute the same in training and in eval mode, by the file they are defined in
_MODELESS = frozenset(
    f"torch.nn.modules.{name}"
    for name in (
        "activation", "container", "conv", "flatten", "fold", "linear", "normalization", "padding", "pixelshuffle",
        "pooling", "upsampling",
    )
)  # fmt: skip


def _modeless(part: nn.Module) -> bool:
    kind = type(part).__module__
    if isinstance(part, nn.RReLU | nn.MultiheadAttention):
        return False
    # layers that dynamic quantization puts in are made in training mode, and have none
    return kind in _MODELESS or kind.startswith("torch.ao.nn.quantized")


def check_mode(module: nn.Module, name: str) -> None:
    """Refuse a network of which some module is in training mode: it would change, and change with the batch.

    Raises:
        ModelError: names the modules. Those that compute the same in either mode (a ReLU) do not count.
    """
    moving = [
        f"{path or 'the whole'} ({type(part).__name__})"
        for path, part in module.named_modules()
        if part.training and (not path or not _modeless(part))
    ]
    if moving:
        more = f" and {len(moving) - 4} more" if len(moving) > 4 else ""
        raise ModelError(
            f"{name} is in training mode in {', '.join(moving[:4])}{more}; call eval() on it first "
            "(dropout and batch norm would move)"
        )


def check_images(model: Network, images: Tensor) -> Tensor:
    """Images as the model's own device holds them.

    Raises:
        ModelError: not `(N, channels, H, W)` with the model's number of channels, not floating point, or empty; or
            some module of the network is in training mode.
    """
    check_mode(model.module, model.name)
    if not isinstance(images, Tensor):
        raise ModelError(f"images are a tensor (N, channels, H, W) here; got {type(images).__name__}")
    want = model.input.channels
    images = model.input.folded(images)
    if images.ndim != 4 or images.shape[1] != want:
        raise ModelError(f"{model.name} takes images (N, {want}, H, W); got shape {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ModelError(f"images are floats in [0, 1]; got {images.dtype}. Divide bytes by 255")
    if images.shape[0] == 0:
        raise ModelError("no images were given")
    return images.to(model.device, model.dtype)


def forward(model: Network, images: Tensor) -> Tensor:
    """The model's output, active edits included."""
    x = model.input.normalize(check_images(model, images))
    check_stopped()
    with model.lock:
        return selected(run_whole(model, x), model.output)  # type: ignore[no-any-return]


def run_whole(model: Network, x: Tensor) -> Any:
    """All that the network gives for images in its own range, active edits included. The model's lock is held."""
    if not _through_graph(model, []):
        return model.module(x)
    assert model.graph is not None
    last = next(n for n in model.graph.nodes if n.op == "output")
    values = model.graph.run({model.graph.input: x}, last.all_input_nodes, edits=graph_edits(model))
    return fx.node.map_arg(last.args[0], lambda n: values[n])


def _through_graph(model: Network, layers: Sequence[Layer]) -> bool:
    """Whether some layer in play is a function call, which hooks cannot reach but the graph can."""
    edited = [model.layers[name] for name, _ in model.node_edits]
    return model.graph is not None and any(layer.path is None for layer in [*layers, *edited])


def graph_edits(model: Network) -> dict[fx.Node, EditFunction]:
    """The active edits by graph node, for runs of the graph; several on one node are applied in order."""
    chained: dict[Any, EditFunction] = {}
    for name, function in model.node_edits:
        node = model.node(name)
        before = chained.get(node)
        chained[node] = function if before is None else _chain(before, function)
    return chained


def _chain(first: EditFunction, second: EditFunction) -> EditFunction:
    return lambda x: second(first(x))


def read(model: Network, images: Tensor, layers: Sequence[Layer], *, clone: bool = True) -> dict[str, Tensor]:
    """Activations of `layers` in one forward pass that stops at the deepest: name -> `(N, C, H, W)`.

    Channels come second whatever the network's own layout; a vector layer is `(N, C, 1, 1)`, so that every layer has
    positions. Keeps autograd's graph when gradients are on.
    `clone=False` is for callers that use the tensors before the forward goes on.
    """
    whole = [layer if layer.windows is None else model.layers[layer.windows[0]] for layer in layers]
    bases = {layer.name: layer.name if layer.part is None else layer.part[0] for layer in whole}
    captured = outputs(model, images, list(bases.values()), clone=clone)
    result = {}
    for layer in whole:
        acts = captured[bases[layer.name]]
        acts = model.layers[bases[layer.name]].axes.maps(acts)
        if layer.part is not None:
            acts = acts[:, layer.part[1] : layer.part[1] + layer.channels]
        result[layer.name] = acts
    return result | {at.name: at.windows[1].of(result[at.windows[0]]) for at in layers if at.windows is not None}


def outputs(model: Network, images: Tensor, names: Sequence[str], *, clone: bool = True) -> dict[str, Tensor]:
    """What `read` reads, in the network's own shapes: the very tensors that gradients flow back to."""
    x = model.input.normalize(check_images(model, images))
    layers = {name: model.layers[name] for name in names}
    captured: dict[str, Tensor] = {}
    check_stopped()
    with model.lock:
        if _through_graph(model, list(layers.values())):
            graph = model.graph
            assert graph is not None
            values = graph.run({graph.input: x}, [model.node(n) for n in layers], edits=graph_edits(model))
            captured = {n: values[model.node(n)] for n in layers}
        else:
            _read_by_hooks(model, x, layers, captured, clone)
    return captured


def _read_by_hooks(
    model: Network, x: Tensor, layers: dict[str, Layer], captured: dict[str, Tensor], clone: bool
) -> None:
    def keep(name: str) -> Callable[[Tensor], Tensor | None]:
        def act(out: Tensor) -> Tensor | None:
            # the deepest layer ends the run: nothing can overwrite it any more
            last = len(captured) + 1 == len(layers)
            captured[name] = stored = out if last or not clone else out.clone()
            if last:
                raise Stop
            # with gradients on, the network goes on from what was captured, so that they flow back to it
            return stored.clone() if clone and stored.requires_grad else None

        return act

    with ExitStack() as stack:
        for name, layer in layers.items():
            assert layer.path is not None
            stack.enter_context(hooked(model.module.get_submodule(layer.path), _Tap(layer, keep(name))))
        try:
            model.module(x)
        except Stop:
            return
    missing = [name for name in layers if name not in captured]
    raise CaptureError(f"{model.name}: {', '.join(missing)} did not run in this forward pass")


def visit(model: Network, images: Tensor, names: Sequence[str], function: Callable[[str, Tensor], None]) -> None:
    """Show `function` the activations `(N, C, H, W)` of each layer as the forward pass makes them.

    What `read` would read, without holding it: the tensors belong to the running network, so `function` takes what
    it needs at once and changes nothing. The pass stops at the deepest layer.
    """

    def show(name: str, acts: Tensor) -> None:
        function(name, model.layers[name].axes.maps(acts))

    x = model.input.normalize(check_images(model, images))
    layers = {name: model.layers[name] for name in names}
    check_stopped()
    with model.lock:
        if _through_graph(model, list(layers.values())):
            _visit_graph(model, x, layers, show)
        else:
            _visit_by_hooks(model, x, layers, show)


def _visit_by_hooks(
    model: Network, x: Tensor, layers: dict[str, Layer], function: Callable[[str, Tensor], None]
) -> None:
    missing = set(layers)

    def show(name: str) -> Callable[[Tensor], None]:
        def act(out: Tensor) -> None:
            function(name, out)
            missing.discard(name)
            if not missing:
                raise Stop

        return act

    with ExitStack() as stack:
        for name, layer in layers.items():
            assert layer.path is not None
            stack.enter_context(hooked(model.module.get_submodule(layer.path), _Tap(layer, show(name))))
        try:
            model.module(x)
        except Stop:
            return
    raise CaptureError(f"{model.name}: {', '.join(sorted(missing))} did not run in this forward pass")


def _visit_graph(model: Network, x: Tensor, layers: dict[str, Layer], function: Callable[[str, Tensor], None]) -> None:
    graph = model.graph
    assert graph is not None
    edits = graph_edits(model)

    def show(name: str) -> EditFunction:
        def act(values: Tensor) -> Tensor:
            function(name, values)
            return values

        return act

    nodes = {name: model.node(name) for name in layers}
    for name, node in nodes.items():
        edits[node] = _chain(edits[node], show(name)) if node in edits else show(name)
    # layers that another one stands on are run anyway, and let go as soon as they have been used
    behind = {n for node in nodes.values() for n in graph.ancestors([node]) if n is not node}
    graph.run({graph.input: x}, [node for node in nodes.values() if node not in behind], edits=edits)


@contextmanager
def editing(model: Network, functions: Sequence[tuple[str, EditFunction]]) -> Iterator[None]:
    """Apply functions to layers' outputs for every forward pass inside, in the order given.

    A function takes and gives maps `(N, C, H, W)`, or vectors `(N, C)`, whatever the network's own layout.

    The model's lock is held, so that two threads cannot mix their edits.

    Raises:
        CaptureError: windows of a layer, which overlap, and are only read.
    """
    if read_only := [name for name, _ in functions if model.layers[name].windows is not None]:
        base = model.layers[read_only[0]].base
        raise CaptureError(f"{model.name}/{read_only[0]} are windows of {base}, which overlap: edit {base} itself")
    with model.lock, ExitStack() as stack:
        before = list(model.node_edits)
        stack.callback(lambda: model.node_edits.__setitem__(slice(None), before))
        for name, function in functions:
            layer = model.layers[name]
            function = layer.axes.edited(function)
            model.node_edits.append((name, function))
            if layer.path is not None:
                stack.enter_context(_edit_by_hook(model, layer, function))
        yield


@contextmanager
def _edit_by_hook(model: Network, layer: Layer, function: EditFunction) -> Iterator[None]:
    calls = 0

    def count_from_zero(_module: nn.Module, _inputs: Any) -> None:
        nonlocal calls
        calls = 0

    def act(_module: nn.Module, _inputs: Any, out: Any) -> Any:
        nonlocal calls
        if _in_graph_run(model):
            return None
        call, calls = calls, calls + 1
        if call != layer.call:
            if (layer.view or layer.name) == layer.path:
                raise CaptureError(f"{layer.name} ran more than once in one forward pass; it was seen to run once")
            return None
        if not isinstance(out, Tensor):
            raise CaptureError(f"the output of {layer.name} is a {type(out).__name__}, not a tensor")
        return function(out)

    def has_run(_module: nn.Module, _inputs: Any, _out: Any) -> None:
        # only a whole forward pass comes here: one that stopped early may rightly not have reached the layer
        if calls <= layer.call:
            raise CaptureError(f"{layer.name} is edited, but did not run in this forward pass")

    with (
        hooked(model.module, count_from_zero, before=True),
        hooked(model.module, has_run),
        hooked(model.module.get_submodule(layer.path or ""), act),
    ):
        yield


def _in_graph_run(model: Network) -> bool:
    """Inside a graph run the edits are applied by the run itself; the hooks of leaf modules stand aside."""
    return model.graph is not None and model.graph.running


def stream(
    model: Network,
    images: Any,
    at: Sequence[str],
    *,
    batch_size: int = 32,
    progress: Progress = None,
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Activations batch by batch, in constant memory: `(image indices, layer name -> (n, C, H, W))`.

    Args:
        model: the model.
        images: whatever `zoo.images.sources.open_images` takes: a folder, a tensor in [0, 1], `scenes:500`, ...
        at: layer names; dictionary keys are these very names.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).
    """
    layers = {name: model.layer(name) for name in at}
    if not layers:
        raise CaptureError("name at least one layer to capture, for example at=['mixed4a']")
    source: Images = open_images(images)
    with torch.no_grad():
        for indices, batch in source.batches(model.input, batch_size=batch_size, progress=progress):
            acts = read(model, batch, list(layers.values()))
            yield indices, {name: acts[layer.name] for name, layer in layers.items()}


def capture(
    model: Network,
    images: Any,
    at: Sequence[str] | str,
    *,
    batch_size: int = 32,
    progress: Progress = None,
) -> dict[str, Tensor]:
    """Activations of layers on images.

    The forward pass stops at the deepest requested layer; what is captured is a copy.

    Args:
        model: the model.
        images: a tensor `(N, C, H, W)` in [0, 1], a folder, a list of files, `scenes:500`, ...
        at: layer names (or one).
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Returns:
        name -> `(N, C, H, W)` on the model's device, whatever the network's own layout: channels-last maps and patch
        tokens come with their channels second and on their grid, `LAYER.cls` is the class token `(N, C, 1, 1)`, and so
        is a vector layer. The values are those that a plain hook sees, bit for bit.

    Raises:
        AddressError: an unknown layer. ImageError: no readable images. CaptureError: a layer did not run.

    >>> capture(load("scenes"), "scenes:2", at=["conv2d0"])["conv2d0"].ndim
    4
    """
    names = [at] if isinstance(at, str) else list(at)
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for _, acts in stream(model, images, names, batch_size=batch_size, progress=progress):
        for name, values in acts.items():
            parts[name].append(values)
    return {name: torch.cat(values) for name, values in parts.items()}
