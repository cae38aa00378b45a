"""Weights that strangers made: of bounded size, of the network's types, of sizes that weights have."""

from __future__ import annotations

import io
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import sae
from sae.errors import FormatError
from zoo.errors import WeightsError
from zoo.weights import loading
from zoo.weights.graphdef import constants


def field(number: int, content: bytes | int) -> bytes:
    def varint(value: int) -> bytes:
        out = bytearray()
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def graph(shape: tuple[int, ...], floats: bytes, name: bytes = b"w") -> bytes:
    sizes = b"".join(field(2, field(1, size)) for size in shape)
    tensor = field(1, 1) + field(2, sizes) + field(4, floats)
    attribute = field(1, b"value") + field(2, field(8, tensor))
    return field(1, field(1, name) + field(2, b"Const") + field(5, attribute))


def test_a_small_graph_cannot_ask_for_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "g.pb"
    path.write_bytes(graph((3, 2), np.float32(0.5).tobytes()))
    assert torch.equal(constants(path)["w"], torch.full((3, 2), 0.5))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path.write_bytes(graph((1 << 14, 1 << 14), np.float32(0.5).tobytes()))
    with pytest.raises(WeightsError, match="4 bytes for a tensor of 268435456 values"):
        constants(path)
    path.write_bytes(b"".join(graph((2,), bytes(8), str(i).encode()) for i in range(100_001)))
    with pytest.raises(WeightsError, match="more than 100,000 nodes"):
        constants(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


def test_an_npz_that_unpacks_a_thousandfold_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros((4096, 4096), np.float32))
    with zipfile.ZipFile(tmp_path / "params.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("W_enc.npy", content.getvalue())
    with pytest.raises(FormatError, match="would unpack to 67"):
        sae.load(tmp_path / "params.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.to(torch.complex64), "weight holds complex64, not float32"),
        (lambda w: w > 0, "weight holds bool, not float32"),
        (lambda w: w.int(), "weight holds int32, not float32"),
        (lambda w: w * 0 + 1e30, "not finite, or above 1e"),
        (lambda w: w * float("nan"), "not finite, or above 1e"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_another_kind_are_refused(change, message: str, suffix: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    module = nn.Linear(3, 2)
    state = {"weight": change(torch.rand(2, 3)), "bias": torch.rand(2)}
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    with pytest.raises(WeightsError, match=message):
        loading.fit(module, loading.read(path), str(path))
    loading.fit(module, {"weight": torch.rand(2, 3).half(), "bias": torch.rand(2).double()}, "halves and doubles")


def test_a_pipe_for_weights_is_refused_at_once(tmp_path: Path) -> None:
    import os

    for suffix in (".pth", ".safetensors", ".pb"):
        os.mkfifo(tmp_path / f"w{suffix}")
        with pytest.raises(WeightsError, match="pipe or a device"):
            loading.read(tmp_path / f"w{suffix}")
