"""A stand-in for the 5h weights: random numbers with the right names, shapes and ranges, in every container."""

from __future__ import annotations

import struct
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from zoo.networks.inception5h import tensor_ranges, tensorflow_layers
from zoo.networks.inceptionv1 import TENSORFLOW_5H, InceptionV1


def state(seed: int = 0) -> dict[str, Tensor]:
    """Our state: random, but the least and greatest value of the known tensors are the published ones."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    ranges = tensor_ranges()
    for name, like in InceptionV1(TENSORFLOW_5H).state_dict().items():
        values = torch.rand(like.shape, generator=generator)
        if name in ranges:
            _, low, high, _ = ranges[name]
            values = values * (0.9 * (high - low)) + low + 0.05 * (high - low)
            flat = values.view(-1)
            flat[0], flat[-1] = low, high
        else:
            values = (values - 0.5) * 0.1
        tensors[name] = values
    return tensors


def in_tensorflow_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as the TensorFlow graph holds them: its names, kernels HWIO, the classifier (in, out)."""
    ours = {mine: theirs for theirs, mine in tensorflow_layers().items()}
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        if tensor.ndim == 4:
            tensor = tensor.permute(2, 3, 1, 0)
        elif tensor.ndim == 2:
            tensor = tensor.t()
        renamed[f"{ours[layer]}_{'w' if kind == 'weight' else 'b'}"] = tensor.contiguous()
    return renamed


def in_lucent_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as the PyTorch port names them."""
    ours = {mine: theirs for theirs, mine in tensorflow_layers().items()}
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        theirs = "softmax2_pre_activation_matmul" if layer == "softmax_pre" else f"{ours[layer]}_pre_relu_conv"
        renamed[f"{theirs}.{kind}"] = tensor
    return renamed


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append((value & 0x7F) | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def message(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def tensor_proto(tensor: Tensor, how: str) -> bytes:
    """A TensorProto with its values as raw bytes ("content"), packed floats or floats one by one."""
    shape = b"".join(message(2, number_field(1, size)) for size in tensor.shape)
    head = number_field(1, 1) + message(2, shape)
    raw = tensor.contiguous().numpy().astype("<f4").tobytes()
    if how == "content":
        return head + message(4, raw)
    if how == "packed":
        return head + message(5, raw)
    return head + b"".join(varint(5 << 3 | 5) + raw[i : i + 4] for i in range(0, len(raw), 4))


def node(name: str, op: str, tensor: bytes | None = None) -> bytes:
    attributes = message(5, message(1, b"dtype") + message(2, number_field(6, 1)))
    if tensor is not None:
        attributes += message(5, message(1, b"value") + message(2, message(8, tensor)))
    return message(1, message(1, name.encode()) + message(2, op.encode()) + attributes)


def graph(tensors: dict[str, Tensor]) -> bytes:
    """A frozen GraphDef: the constants, and what else such a graph holds."""
    parts = [node("input", "Placeholder")]
    for name, tensor in tensors.items():
        how = "content" if tensor.ndim > 1 else ("packed" if name.startswith("mixed3") else "single")
        parts.append(node(name, "Const", tensor_proto(tensor, how)))
        parts.append(node(f"{name}/conv", "Conv2D"))
    integers = (
        number_field(1, 3) + message(2, message(2, number_field(1, 2))) + message(4, struct.pack("<2i", -1, 1024))
    )
    parts.append(node("avgpool0/reshape/shape", "Const", integers))
    parts.append(node("head0_bottleneck_w", "Const", tensor_proto(torch.rand(1, 1, 508, 128), "content")))
    # TensorFlow's shorthand: one value stands for the whole shape.
    filled = number_field(1, 1) + message(2, message(2, number_field(1, 1024))) + message(5, struct.pack("<f", 0.5))
    parts.append(node("nn0_b", "Const", filled))
    parts.append(message(4, number_field(1, 26)))  # versions
    return b"".join(parts)


def write(folder: Path, container: str, tensors: dict[str, Tensor], name: str = "mine") -> Path:
    """A weights file of one of the containers: "pth", "pb", "safetensors", "safetensors-tf"."""
    path = folder / f"{name}.{container.partition('-')[0]}"
    if container == "pth":
        torch.save(in_lucent_names(tensors), path)
    elif container == "pb":
        path.write_bytes(graph(in_tensorflow_names(tensors)))
    else:
        save_file(in_tensorflow_names(tensors) if container.endswith("-tf") else tensors, path)
    return path
