"""The window of one layer that each position of another is computed from, found by their receptive fields."""

from __future__ import annotations

from collections.abc import Sequence

from circuits.errors import GraphError
from circuits.network.graph import ReceptiveField
from circuits.network.layers.windows import Window
from circuits.network.model import Model
from zoo.common.checks import whole_number


def window_between(model: Model, source: str, target: str, patch: int | Sequence[int] | None = None) -> Window:
    """The window of `source` that a position of `target` is computed from, from their receptive fields.

    Args:
        model: the model; source, target: layers, or branches of layers.
        patch: positions along each side instead, or rows and columns, about the middle of that window. Needed where a
            receptive field is not known: then both maps must be of one size; and for a layer and itself.

    Raises:
        GraphError: there is no such window; the message has the reason.
    """
    first, last = model.layer(source), model.layer(target)
    name = f"{model.name}/{first.name}..{last.name}"
    sides = list(patch) if isinstance(patch, Sequence) else [patch, patch]
    if len(sides) != 2:
        raise GraphError(f"patch={patch} is positions along each side, or rows and columns")
    for side in sides:
        if side is not None:
            whole_number("patch", side, error=GraphError)
    itself = first.name == last.name and patch is not None and any(side != 1 for side in sides)
    if model.graph is not None and not itself:
        _check_path(model, first.name, last.name, name)
    grids = [layer.size or (1, 1) for layer in (first, last)]
    if first.size is None or last.size is None:
        if grids[0] != grids[1] or any(side not in (None, 1) for side in sides):
            raise GraphError(f"{name}: one is a vector and the other a map, so that no position has a window")
        return Window((1, 1), (1, 1), (0, 0), grids[1])
    fields = [field_of(model, layer.name) for layer in (first, last)]
    before, after = fields
    if before is None or after is None:
        unknown = first.name if before is None else last.name
        odd = [side for side in sides if side is not None and side % 2]
        if len(odd) < 2 or grids[0] != grids[1]:
            raise GraphError(
                f"{name}: what a position of {unknown} sees is the whole image, or not known. Between maps of one size "
                "an odd patch= says how many positions along each side are read"
            )
        return Window((odd[0], odd[1]), (1, 1), (-(odd[0] // 2), -(odd[1] // 2)), grids[1])
    sizes, strides, offsets = [], [], []
    for axis in range(2):
        step = before.stride[axis]
        numbers = [
            after.size[axis] - before.size[axis] + step, after.stride[axis], after.offset[axis] - before.offset[axis],
        ]  # fmt: skip
        if any(number % step for number in numbers) or numbers[0] < step or numbers[1] < step:
            raise GraphError(f"{name}: the positions of {last.name} lie between those of {first.name}")
        size, stride, offset = (number // step for number in numbers)
        if (side := sides[axis]) is not None:
            if (size - side) % 2:
                raise GraphError(f"{name}: {side} positions have no middle in a window of {size}; give {side + 1}")
            offset += (size - side) // 2
            size = side
        sizes.append(size)
        strides.append(stride)
        offsets.append(offset)
    return Window((sizes[0], sizes[1]), (strides[0], strides[1]), (offsets[0], offsets[1]), grids[1])


def field_of(model: Model, name: str) -> ReceptiveField | None:
    """The receptive field of a layer, or of the channels of a branch."""
    layer = model.layers[name]
    if layer.part is None or model.graph is None:
        return layer.receptive_field
    return model.graph.channel_field(model.node(name), layer.part[1])


def _check_path(model: Model, source: str, target: str, name: str) -> None:
    """Refuse a target that is not computed from the source alone.

    Raises:
        GraphError: it is the same, comes earlier, or reads something else, too.
    """
    graph = model.graph
    assert graph is not None
    start, end = model.node(source), model.node(target)
    if start is end:
        raise GraphError(
            f"{name}: both are the output of one operation; name the input and the output of a block, or "
            "one layer twice with patch=3, say: its latents then read the neighborhood of what they reconstruct"
        )
    past = [n for n in graph.side_inputs(start, end) if n not in graph.constants]
    if past or model.layers[source].part is not None:
        via = "other branches" if model.layers[source].part is not None else past[0].name
        raise GraphError(f"{name}: {target} also depends on {via}, past {source}: start where all of it goes through")
