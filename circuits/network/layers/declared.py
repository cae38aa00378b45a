"""Axes that the user says a layer has, where they cannot be found out: `"n h w c"`, `"n (1 + h w) c"`."""

from __future__ import annotations

import math
import re

from circuits.errors import ModelError, shorten
from circuits.network.layers.axes import Layouts
from circuits.network.layers.labels import BATCH, Atom, Axis, Root, new_axis
from circuits.network.layers.readings import layouts_of
from circuits.network.operations import Pair

_GRAMMAR = (
    "one word an axis: n for the images, c for channels (several make up the channels in order), h and w, or "
    "(h w) for patches, (1 + h w) with a token before them, (h w + 1) with one after: 'n h w c', 'n (1 + h w) c'"
)
_AXIS = re.compile(r"\((?:(\d+) \+ )?h w(?: \+ (\d+))?\)|[nchw]")


def declared(pattern: str, shape: tuple[int, ...], image: Pair, layer: str) -> Layouts:
    """How a tensor of `shape` is read whose axes are those of a pattern.

    Args:
        pattern: see the module.
        shape: of the layer's output.
        image: height and width of the network's images: patches in one axis have a grid of these proportions.
        layer: for messages.

    Raises:
        ModelError: the pattern cannot be read, or does not fit the shape.
    """
    words = [match[0] for match in _AXIS.finditer(pattern)] if isinstance(pattern, str) else []
    joined = sum(word.startswith("(") for word in words)
    grids = sorted(word for word in words if word in "hw")
    if " ".join(words) != pattern or words.count("n") != 1 or "c" not in words or (joined, grids) not in _GRIDS:
        raise ModelError(f"axes of {layer}: cannot read {shorten(pattern)!r}; {_GRAMMAR}")
    if len(words) != len(shape):
        raise ModelError(f"axes of {layer}: {pattern!r} are {len(words)}, but its output has the shape {shape}")
    channels = [size for word, size in zip(words, shape, strict=True) if word == "c"]
    features = Root("feature", math.prod(channels))
    labels: list[Axis] = []
    for word, size in zip(words, shape, strict=True):
        if word == "n":
            labels.append(new_axis("image", BATCH))
        elif word == "c":
            inner = math.prod(channels[len([axis for axis in labels if axis and axis[0].root is features]) + 1 :])
            labels.append((Atom(features, size, inner),) if size > 1 else ())
        elif word in "hw":
            labels.append(new_axis("row" if word == "h" else "column", size))
        else:
            labels.append(_tokens(word, size, image, layer))
    return layouts_of(tuple(labels), (BATCH, *shape[1:]))


_GRIDS: tuple[tuple[int, list[str]], ...] = ((0, []), (0, ["h", "w"]), (1, []))


def _tokens(word: str, size: int, image: Pair, layer: str) -> Axis:
    match = _AXIS.fullmatch(word)
    assert match is not None
    before, after = (int(count or 0) for count in match.groups())
    patches = size - before - after
    height = round(math.sqrt(max(patches, 0) * image[0] / image[1]))
    if patches < 1 or height < 1 or patches % height or height * image[1] != patches // height * image[0]:
        raise ModelError(
            f"axes of {layer}: {size} positions as {word} leave {patches} patches, which are no grid of the "
            f"proportions of a {image[0]}x{image[1]} image"
        )
    grid = (*new_axis("row", height), *new_axis("column", patches // height))
    if not before and not after:
        return grid
    runs = ((before, None), (patches, grid), (after, None))
    return new_axis("tokens", size, parts=tuple(run for run in runs if run[0]))
