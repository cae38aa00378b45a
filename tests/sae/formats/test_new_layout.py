"""A new layout of files is one file: written here as the guide says, it is detected, read and written like ours."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import sae
from sae.formats import LAYOUTS
from tests.sae.planted import ARCHITECTURES, acts, scrambled

PLAIN = '''"""A layout of one file: the arrays of a ReLU SAE as NumPy has them."""

import numpy as np

from sae.architectures.relu import ReLU
from sae.formats import Layout, register_layout
from sae.formats.gemma_scope import read_npz
from sae.formats.parameter_names import assembled, parameters_of, tensors_of, values_of
from zoo.common.files import write_atomically

ROLES = {
    "encoder": ("enc", "md"), "decoder": ("dec", "md"), "encoder_bias": ("enc_bias", "m"),
    "decoder_bias": ("dec_bias", "d"),
}


@register_layout
class Plain(Layout):
    name = "plain"
    description = "plain_sae.npz"
    weights = "plain_sae.npz"

    def detects(self, files):
        return files.has(self.weights)

    def read(self, files):
        values = values_of(read_npz(files.folder / self.weights), ROLES, "a plain SAE")
        return assembled(ReLU(latents=len(values["encoder"])), values)

    def write(self, folder, sae, about):
        tensors = tensors_of(parameters_of(sae), ROLES)

        def save(temporary):
            with temporary.open("wb") as file:
                np.savez(file, **{name: tensor.numpy() for name, tensor in tensors.items()})

        write_atomically(folder / self.weights, save)
'''


@pytest.fixture(autouse=True)
def plain(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "plain.py").write_text(PLAIN)
    spec = importlib.util.spec_from_file_location("plain", tmp_path / "plain.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield
    LAYOUTS.remove("plain")


def test_a_layout_is_one_file_that_reads_and_writes(tmp_path: Path) -> None:
    model = scrambled(ARCHITECTURES[0])
    folder = sae.save(tmp_path / "s", model, format="plain")
    for back in (
        sae.load(folder),
        sae.load(folder, format="plain"),
        sae.load(folder / "plain_sae.npz", format="plain"),
    ):
        assert torch.equal(back.encode(acts()), model.encode(acts())) and not back.training
    assert sorted(np.load(folder / "plain_sae.npz").files) == ["dec", "dec_bias", "enc", "enc_bias"]


def test_messages_and_refusals_hold_for_it(tmp_path: Path) -> None:
    with pytest.raises(sae.FormatError, match="the folder is empty. Known layouts: .*plain: plain_sae.npz"):
        (tmp_path / "empty").mkdir()
        sae.load(tmp_path / "empty")
    folder = sae.save(tmp_path / "s", scrambled(ARCHITECTURES[0]), format="plain")
    with pytest.raises(sae.FormatError, match="other things in it and no sae_weights"):
        sae.save(folder, scrambled(ARCHITECTURES[0]))
    with pytest.raises(sae.FormatError, match="plain has no place for densities"):
        sae.save(folder, scrambled(ARCHITECTURES[0]), format="plain", density=torch.zeros(24))
    (folder / "plain_sae.npz").write_bytes((folder / "plain_sae.npz").read_bytes()[:-40])
    with pytest.raises(sae.FormatError, match="truncated"):
        sae.load(folder)


def test_a_second_layout_of_the_same_name_is_refused() -> None:
    with pytest.raises(sae.FormatError, match="there is a format 'plain' already"):
        LAYOUTS.add("plain", LAYOUTS["sparsify"])
