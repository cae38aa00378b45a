"""How the result of each function is labeled, from the labels of its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from circuits.network.layers.labels import (
    POSITIONAL,
    SPACE,
    Atom,
    Axis,
    Labels,
    better,
    kind_of,
    known_labels,
    like,
    new_axis,
    regrouped,
    sliced,
    whole_root,
)  # fmt: skip


class Call:
    """One call of a function on tensors, with what is known of its arguments."""

    def __init__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        self.name, self.args, self.kwargs, self.out = name, args, kwargs, out

    def argument(self, index: int, name: str, default: Any = None) -> Any:
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)

    def sizes(self, name: str) -> list[int]:
        """Whole numbers given one by one or as one sequence."""
        rest = self.args[1:] or (self.kwargs.get(name, ()),)
        return list(rest[0]) if len(rest) == 1 and isinstance(rest[0], (tuple, list)) else list(rest)

    @property
    def x(self) -> Tensor:
        """The tensor that the function is of."""
        x: Tensor = self.args[0] if self.args else self.kwargs["input"]
        return x

    @property
    def labels(self) -> Labels:
        """Labels of `x`; rules run only where it has some."""
        labels: Labels = self.x._axes  # type: ignore[attr-defined]
        return labels


Rule = Callable[[Call], Any]
RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return add


@_rule("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "reshape_as", "view_as", "ravel")
def _reshape(call: Call) -> Any:
    return regrouped(call.labels, call.out.shape)


@_rule("permute")
def _permute(call: Call) -> Any:
    return tuple(call.labels[d] for d in call.sizes("dims"))


@_rule("transpose", "swapaxes", "swapdims", "transpose_")
def _transpose(call: Call) -> Any:
    labels = list(call.labels)
    a, b = call.argument(1, "dim0", call.kwargs.get("axis0")), call.argument(2, "dim1", call.kwargs.get("axis1"))
    labels[a], labels[b] = labels[b], labels[a]
    return tuple(labels)


@_rule("T", "mT", "t")
def _last_two(call: Call) -> Any:
    labels = list(call.labels)
    if call.name == "mT" or len(labels) == 2:
        labels[-1], labels[-2] = labels[-2], labels[-1]
        return tuple(labels)
    return tuple(labels[::-1])


@_rule("movedim", "moveaxis")
def _movedim(call: Call) -> Any:
    sources, targets = call.argument(1, "source"), call.argument(2, "destination")
    n = len(call.labels)
    sources, targets = ([d % n for d in ([v] if isinstance(v, int) else v)] for v in (sources, targets))
    rest = [d for d in range(n) if d not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        rest.insert(target, source)
    return tuple(call.labels[d] for d in rest)


@_rule("expand", "expand_as", "broadcast_to")
def _expand(call: Call) -> Any:
    added = call.out.ndim - len(call.labels)
    before = (1,) * added + tuple(call.x.shape)
    labels = ((),) * added + call.labels
    return tuple(
        axis if a == b else new_axis("mixed", b) for axis, a, b in zip(labels, before, call.out.shape, strict=True)
    )


@_rule("__getitem__")
def _getitem(call: Call) -> Any:
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if any(not isinstance(i, (int, slice, type(None), type(Ellipsis))) or isinstance(i, bool) for i in index):
        return None
    given = sum(i is not None and i is not Ellipsis for i in index)
    fill = [slice(None)] * (len(call.labels) - given)
    at = index.index(Ellipsis) if Ellipsis in index else len(index)
    full = [*index[:at], *fill, *index[at + 1 :]]
    labels: list[Axis] = []
    axes = iter(zip(call.labels, call.x.shape, strict=True))
    for i in full:
        if i is None:
            labels.append(())
            continue
        axis, size = next(axes)
        if isinstance(i, slice):
            start, stop, step = i.indices(size)
            even = like(axis, len(range(start, stop, step)))
            labels.append(sliced(axis, start, max(start, stop), size) if step == 1 else even)
        elif kind_of(axis) == "image":
            return None
    return tuple(labels)


@_rule("select", "narrow")
def _narrow(call: Call) -> Any:
    dim, start = call.argument(1, "dim") % len(call.labels), call.argument(2, "index", call.kwargs.get("start"))
    labels, size = list(call.labels), call.x.shape[dim]
    if call.name == "select":
        return None if kind_of(labels.pop(dim)) == "image" else tuple(labels)
    labels[dim] = sliced(labels[dim], int(start) % size, int(start) % size + call.out.shape[dim], size)
    return tuple(labels)


@_rule("chunk", "split", "tensor_split", "split_with_sizes", "unsafe_chunk", "unsafe_split")
def _split(call: Call) -> Any:
    dim, at, result = call.argument(2, "dim", 0) % len(call.labels), 0, []
    for piece in call.out:
        labels = list(call.labels)
        labels[dim] = sliced(labels[dim], at, at + piece.shape[dim], call.x.shape[dim])
        at += piece.shape[dim]
        result.append(tuple(labels))
    return result


@_rule("unbind")
def _unbind(call: Call) -> Any:
    dim = call.argument(1, "dim", 0) % len(call.labels)
    labels = (*call.labels[:dim], *call.labels[dim + 1 :])
    return None if kind_of(call.labels[dim]) == "image" else [labels] * len(call.out)


@_rule("roll")
def _roll(call: Call) -> Any:
    shifts, dims = call.argument(1, "shifts"), call.argument(2, "dims", ())
    shifts, dims = ([v] if isinstance(v, int) else list(v) for v in (shifts, dims))
    labels = list(call.labels)
    if len(shifts) != len(dims):
        return None
    for shift, dim in zip(shifts, dims, strict=True):
        root = whole_root(labels[dim])
        if root is None or root.kind not in SPACE or root.kind == "depth":
            return None if labels[dim] else tuple(labels)
        total = (root.shift + shift) % root.size
        base = root.rolled or root
        labels[dim] = new_axis(root.kind, root.size, shift=total, rolled=base) if total else (Atom(base, base.size, 1),)
    return tuple(labels)


@_rule("pad")
def _pad(call: Call) -> Any:
    return tuple(
        axis if a == b else like(axis, b) for axis, a, b in zip(call.labels, call.x.shape, call.out.shape, strict=True)
    )


@_rule("mean", "sum", "amax", "amin", "max", "min", "std", "var", "norm", "logsumexp", "prod", "argmax", "argmin")
def _reduce(call: Call) -> Any:
    dims = call.argument(1, "dim", call.kwargs.get("axis"))
    if isinstance(dims, Tensor):
        return pointwise(call)
    if dims is None:
        return None
    dims = {d % len(call.labels) for d in ([dims] if isinstance(dims, int) else dims)}
    out = call.out if isinstance(call.out, Tensor) else call.out[0]
    if out.ndim == len(call.labels):
        labels = tuple(() if d in dims else axis for d, axis in enumerate(call.labels))
    else:
        labels = tuple(axis for d, axis in enumerate(call.labels) if d not in dims)
    return labels if isinstance(call.out, Tensor) else [labels] * len(call.out)


@_rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "deform_conv2d")
def _conv(call: Call) -> Any:
    image, _, *space = call.labels if call.x.ndim == call.out.ndim else ((),) * 2
    pairs = zip(space, call.x.shape[2:], call.out.shape[2:], strict=True)
    features = new_axis("feature", call.out.shape[1])
    return (image, features, *(axis if a == b else like(axis, b) for axis, a, b in pairs))


@_rule(
    "max_pool2d", "max_pool2d_with_indices", "boolean_dispatch", "avg_pool2d", "adaptive_avg_pool2d", "lp_pool2d",
    "adaptive_max_pool2d", "interpolate", "upsample", "pixel_shuffle", "pixel_unshuffle", "max_pool1d", "max_pool3d",
    "avg_pool1d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool3d", "max_pool1d_with_indices", "max_pool3d_with_indices",
)  # fmt: skip
def _pool(call: Call) -> Any:
    out = call.out if isinstance(call.out, Tensor) else call.out[0]
    if len(call.labels) not in (3, 4, 5) or out.ndim != len(call.labels):
        return None
    pairs = zip(call.labels, call.x.shape, out.shape, strict=True)
    labels = tuple(axis if a == b else like(axis, b) for axis, a, b in pairs)
    return labels if isinstance(call.out, Tensor) else [labels] * len(call.out)


def _mapped(consumed: Axis, others: Labels, size: int) -> Axis:
    """What a linear layer makes of an axis: features, or a mixture of positions where features lie elsewhere."""
    has_features = any(atom.root.kind == "feature" for axis in others for atom in axis)
    positions = bool(consumed) and all(atom.root.kind != "feature" for atom in consumed)
    return new_axis("mixed" if positions and has_features else "feature", size)


@_rule("linear")
def _linear(call: Call) -> Any:
    *others, last = call.labels
    return (*others, _mapped(last, tuple(others), call.out.shape[-1]))


@_rule("multi_head_attention_forward", "_native_multi_head_attention")
def _attention_module(call: Call) -> Any:
    labels = (*call.labels[:-1], new_axis("feature", call.out[0].shape[-1]))
    return [labels, *[None] * (len(call.out) - 1)]


@_rule("gru", "lstm", "rnn_tanh", "rnn_relu")
def _recurrent(call: Call) -> Any:
    # the last axis becomes features; states at the end have no axis of time, and one of layers before the images
    size, batch_first = call.out[0].shape[-1], bool(call.argument(8, "batch_first"))
    labels = (*call.labels[:-1], new_axis("feature", size))
    if len(labels) != 3:
        return None
    image = labels[0 if batch_first else 1]
    states = [(new_axis("mixed", h.shape[0]), image, new_axis("feature", h.shape[2])) for h in call.out[1:]]
    return [labels, *states]


@_rule("scaled_dot_product_attention")
def _attention(call: Call) -> Any:
    value = known_labels(call.argument(2, "value"))
    return None if value is None else (*value[:-2], call.labels[-2], value[-1])


def _matmul(call: Call) -> Any:
    a, b = call.argument(0, "input"), call.argument(1, "other", call.kwargs.get("mat2"))
    if min(a.ndim, b.ndim) < 2:
        return None
    first, second, n = known_labels(a), known_labels(b), call.out.ndim
    if first is None or second is None:  # one of them is weights
        known = first if second is None else second
        assert known is not None
        if len(known) != n:
            return None
        dim = n - 1 if second is None else n - 2
        others = tuple(axis for d, axis in enumerate(known) if d != dim)
        return tuple(_mapped(axis, others, call.out.shape[d]) if d == dim else axis for d, axis in enumerate(known))
    first, second = (((),) * (n - len(labels)) + labels for labels in (first, second))
    # of the second, for what attention takes: these are the heads of the values
    batch = tuple(better(q, p) for p, q in zip(first[:-2], second[:-2], strict=True))
    return (*batch, first[-2], second[-1])


def _einsum(call: Call) -> Any:
    equation, *operands = call.args
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
    if not isinstance(equation, str) or "..." in equation or "->" not in equation:
        return None
    inputs, output = equation.replace(" ", "").split("->")
    letters: dict[str, Axis] = {}
    for names, tensor in zip(inputs.split(","), tensors, strict=True):
        for name, axis in zip(names, known_labels(tensor) or (), strict=False):
            letters[name] = better(letters.get(name, ()), axis)
    labels = [letters.get(name) for name in output]
    others = tuple(axis for axis in labels if axis is not None)
    unknown = tuple(letters[name] for name in letters if name not in output)
    consumed = tuple(atom for axis in unknown for atom in axis)
    sizes = call.out.shape
    return tuple(_mapped(consumed, others, sizes[d]) if axis is None else axis for d, axis in enumerate(labels))


def _cat(call: Call) -> Any:
    tensors, dim = call.argument(0, "tensors"), call.argument(1, "dim", call.kwargs.get("axis", 0))
    dim %= call.out.ndim
    known = [labels for t in tensors if (labels := known_labels(t)) is not None]
    kinds = {kind_of(labels[dim]) for labels in known} - {""}
    if len(kinds) > 1 and not kinds <= {*POSITIONAL, "extra"} or "image" in kinds or "mixed" in kinds:
        return None
    result = list(known[0])
    for labels in known[1:]:
        result = [better(a, b) for a, b in zip(result, labels, strict=True)]
    elsewhere = any(kind_of(axis) == "feature" for d, axis in enumerate(result) if d != dim)
    if kinds == {"feature"} or (not kinds and not elsewhere):
        result[dim] = new_axis("feature", call.out.shape[dim])
        return tuple(result)
    parts: list[tuple[int, Axis | None]] = []
    for t in tensors:
        axis = (known_labels(t) or ((),) * t.ndim)[dim]
        root = whole_root(axis)
        if root is not None and root.kind == "tokens":
            parts += root.parts
        else:
            parts.append((t.shape[dim], axis if kind_of(axis) in (*SPACE, "patches") else None))
    result[dim] = new_axis("tokens", call.out.shape[dim], parts=tuple(parts))
    return tuple(result)


def _stack(call: Call) -> Any:
    tensors, dim = call.argument(0, "tensors"), call.argument(1, "dim", 0) % call.out.ndim
    labels = next(known for t in tensors if (known := known_labels(t)) is not None)
    return (*labels[:dim], new_axis("mixed", len(tensors)), *labels[dim:])


def pointwise(call: Call) -> Any:
    """Labels of a result as large as its operands: a sum, a norm, an activation."""
    if not isinstance(call.out, Tensor):
        return None
    shape = call.out.shape
    result: list[Axis] = [()] * len(shape)
    operands = [a for a in (*call.args, *call.kwargs.values()) if isinstance(a, Tensor)]
    for x in operands:
        labels = known_labels(x)
        if labels is None or x.ndim > len(shape):
            continue
        first = len(shape) - x.ndim
        for d, axis in enumerate(labels, start=first):
            if x.shape[d - first] == shape[d]:
                result[d] = better(result[d], axis)
            elif x.shape[d - first] != 1:
                return None
    return tuple(axis or new_axis("mixed", n) for axis, n in zip(result, shape, strict=True))


#: functions of several tensors, of which any may be the one with labels
OF_SEVERAL: dict[str, Rule] = {
    "matmul": _matmul, "bmm": _matmul, "mm": _matmul, "__matmul__": _matmul, "__rmatmul__": lambda call: None,
    "einsum": _einsum, "cat": _cat, "concat": _cat, "concatenate": _cat, "stack": _stack,
}  # fmt: skip

#: functions that move values between positions, or read others: their results have no axes of the image's
SCRAMBLES = frozenset(
    ("flip", "fliplr", "flipud", "sort", "argsort", "topk", "gather", "index_select", "take_along_dim", "scatter",
     "scatter_", "masked_select", "unfold", "fold", "repeat", "repeat_interleave", "tile", "rot90", "as_strided",
     "baddbmm", "addmm", "tensordot", "cdist", "kron", "outer", "grid_sample_3d", "take", "diag", "tril", "triu")
)  # fmt: skip

#: functions whose input has its channels second by contract, which restores lost labels
CHANNELS_SECOND = frozenset(
    ("conv2d", "conv_transpose2d", "batch_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "interpolate",
     "pixel_shuffle", "boolean_dispatch", "instance_norm")
)  # fmt: skip
