"""Positions of networks of sequences and of volumes, whose maps have one row, or slices below each other."""

from __future__ import annotations

from circuits.errors import AddressError, CircuitsError
from circuits.network.address import Position
from zoo.inputs import InputSpec

_FORMS = {1: "@t", 2: "@y,x", 3: "@z,y,x"}


def position_on_maps(
    name: str, slices: int, grid: tuple[int, int] | None, dims: int, at: tuple[int, ...]
) -> tuple[int, int]:
    """A position of a layer on its maps, `(y, x)`, from how the network writes it: `(t,)`, `(y, x)` or `(z, y, x)`.

    Args:
        name: of the layer, for messages.
        slices: of volumes, how many its maps hold one below the other.
        grid: height and width of its maps; None for a vector.
        dims: axes of positions of the network: 1, 2 or 3.
        at: the position; in networks of sequences and volumes also as it is on the maps, `(y, x)`.

    Returns:
        `(y, x)`, for sequences and volumes a `Position`, which is written as it was.

    Raises:
        AddressError: outside of the layer, or not of so many numbers.
    """
    height, width = grid or (1, 1)
    size = {1: (width,), 2: (height, width), 3: (slices, height // slices, width)}[dims]
    written: tuple[int, ...] = tuple(getattr(at, "written", at))
    if len(written) == 2 and dims == 1 and written[0] == 0:  # on the maps already
        written = written[1:]
    elif len(written) == 2 and dims == 3:
        written = (*divmod(written[0], size[1]), written[1])
    text = ",".join(map(str, written))
    if len(written) != dims:
        raise AddressError(f"positions of {name} are {_FORMS[dims]}; got @{text}")
    if any(not 0 <= p < n for p, n in zip(written, size, strict=True)):
        raise AddressError(f"{name} is {'x'.join(map(str, size))} positions; got {text}")
    row, column = (written[0] * size[1] if dims == 3 else 0) + (written[-2] if dims > 1 else 0), written[-1]
    return (row, column) if dims == 2 else Position((row, column), written)  # type: ignore[return-value]


def refuse_unless_images(name: str, input: InputSpec, verb: str, error: type[CircuitsError]) -> None:
    """Refuse what needs a network of images.

    Raises:
        CircuitsError: this one takes sequences or volumes; of the class `error`.
    """
    if input.dims != 2:
        what = "sequences" if input.dims == 1 else "volumes"
        raise error(
            f"{verb} is of images; {name} takes {what} of shape {input.native_shape}: use capture, edit, scan, find, "
            "attribute, trace or an SAE"
        )
