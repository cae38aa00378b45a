"""Constants of a frozen TensorFlow graph, read without TensorFlow and without protobuf.

A GraphDef is a protobuf message; its wire format is a list of fields, each a varint key `(number << 3) | type`
followed by a varint (type 0), 8 bytes (1), a length and that many bytes (2), or 4 bytes (5). Field numbers are
those of tensorflow/core/framework/{graph,node_def,attr_value,tensor,tensor_shape,types}.proto:

    GraphDef.node = 1            NodeDef.name = 1, .op = 2, .attr = 5 (map: key = 1, value = 2)
    AttrValue.tensor = 8         TensorProto.dtype = 1, .tensor_shape = 2, .tensor_content = 4, .float_val = 5
    TensorShapeProto.dim = 2     Dim.size = 1           DataType: DT_FLOAT = 1
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.common.reading import read_bytes
from zoo.errors import WeightsError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DT_FLOAT = 1
_MAX_BYTES = 1 << 30
_FILLED = 1 << 16
"""Values that the shorthand for a constant fill may stand for: biases have it; a few bytes can ask for any size."""
_MAX_NODES = 100_000


class _Malformed(ValueError):
    pass


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _Malformed("a number runs past the end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise _Malformed(f"field type {kind}")
        if number == 0 or at + length > len(data):
            raise _Malformed("a field runs past the end")
        yield number, data[at : at + length]
        at += length


def _message(data: int | memoryview) -> memoryview:
    if isinstance(data, int):
        raise _Malformed("a number where a message belongs")
    return data


def _shape(data: memoryview) -> tuple[int, ...]:
    sizes = []
    for number, dim in _fields(data):
        if number == 2:
            size = next((value for n, value in _fields(_message(dim)) if n == 1), 0)
            if not isinstance(size, int) or size >= 1 << 40:
                raise _Malformed("an unknown size in a shape")
            sizes.append(size)
    return tuple(sizes)


def _tensor(data: memoryview) -> Tensor | None:
    """The float tensor in a TensorProto, or None when it is of another type."""
    dtype, content = 0, b""
    shape: tuple[int, ...] = ()
    listed: list[bytes] = []
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            dtype = value
        elif number == 2:
            shape = _shape(_message(value))
        elif number == 4:
            content = bytes(_message(value))
        elif number == 5:
            # Packed and unpacked floats look alike here: four bytes, or many times four.
            listed.append(bytes(_message(value)))
    if dtype != _DT_FLOAT:
        return None
    raw = content or b"".join(listed)
    count = math.prod(shape)
    if count > (_FILLED if len(raw) == 4 else len(raw) // 4):
        raise _Malformed(f"{len(raw)} bytes for a tensor of {count} values")
    if len(raw) % 4:
        raise _Malformed("floats of broken length")
    values = np.frombuffer(raw, dtype="<f4").astype(np.float32)
    if values.size == 1 and count > 1:
        values = np.full(count, values[0], dtype=np.float32)  # TensorFlow's shorthand for a constant fill
    if values.size != count:
        raise _Malformed(f"{values.size} values for shape {shape}")
    return torch.from_numpy(values.reshape(shape))


def _node(data: memoryview) -> tuple[str, Tensor] | None:
    name, op, tensor = "", "", None
    attributes: list[memoryview] = []
    for number, value in _fields(data):
        if number == 1:
            name = bytes(_message(value)).decode()
        elif number == 2:
            op = bytes(_message(value)).decode()
        elif number == 5:
            attributes.append(_message(value))
    if op != "Const":
        return None
    for attribute in attributes:
        entry = dict(_fields(attribute))
        if bytes(_message(entry.get(1, memoryview(b"")))) == b"value":
            for number, value in _fields(_message(entry.get(2, memoryview(b"")))):
                if number == 8:
                    tensor = _tensor(_message(value))
    return None if tensor is None else (name, tensor)


def constants(path: Path) -> dict[str, Tensor]:
    """Float constants of the frozen GraphDef at `path`: node name -> tensor in TensorFlow's layout (HWIO kernels).

    Raises:
        WeightsError: when the file is not a GraphDef, is truncated, or holds no float constant.
    """
    tensors = {}
    try:
        for count, (number, value) in enumerate(_fields(memoryview(read_bytes(path, _MAX_BYTES)))):
            if count >= _MAX_NODES:
                raise _Malformed(f"more than {_MAX_NODES:,} nodes")
            if number == 1 and (node := _node(_message(value))) is not None:
                tensors[node[0]] = node[1]
    except (_Malformed, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is not a whole TensorFlow GraphDef ({error})") from error
    if not tensors:
        raise WeightsError(f"{path} holds no float constants: is it a frozen TensorFlow GraphDef?")
    return tensors
