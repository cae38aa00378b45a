"""Activations on disk are those that were computed, of the same weights and images only; circuits are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import circuits
from circuits.common import kept_activations
from circuits.common.kept_activations import KeptActivations, joined, rows_of
from circuits.dataset import peak_positions
from circuits.tracing.circuit import Circuit
from tests import nets
from zoo.images.sources import Images, open_images

UNIT = "mixed4a:11"


def sparse(n: int) -> torch.Tensor:
    return torch.randn(n, 5, 3, 7, generator=torch.Generator().manual_seed(n)).relu()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_come_back_to_the_bit_in_any_order_and_layout(tmp_path: Path, layout: torch.memory_format) -> None:
    acts = sparse(4).contiguous(memory_format=layout)
    KeptActivations(tmp_path, "w").write("a", joined([rows_of("w", "ab", acts[:2]), rows_of("w", "cd", acts[2:])]))
    rows = KeptActivations(tmp_path, "w").rows("a")
    assert rows is not None
    dense = rows.dense(["d", "a"])
    assert torch.equal(dense, acts[[3, 0]]) and dense.is_contiguous(memory_format=layout)


def test_other_weights_other_layers_and_damaged_files_hold_nothing(tmp_path: Path) -> None:
    kept = KeptActivations(tmp_path, "w")
    kept.write("a", rows_of("w", "ab", sparse(2)))
    assert kept.rows("b") is None and KeptActivations(tmp_path, "other").rows("a") is None
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    assert kept.rows("a") is None


def test_the_folder_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, one = KeptActivations(tmp_path, "w"), rows_of("w", ("a", "b"), sparse(2))
    kept.write("a", one)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    monkeypatch.setattr(kept_activations, "MOST", int(2.5 * size))
    for layer in "bcd":
        kept.write(layer, one)
    assert kept.rows("a") is None and kept.rows("d") is not None
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2.5 * size
    monkeypatch.setattr(kept_activations, "MOST", 10)
    kept.write("e", one)
    assert kept.rows("e") is None, "a layer that is larger than all of the folder is not written"


def trace(images: Images, kept: KeptActivations | None) -> Circuit:
    return circuits.trace(circuits.load("scenes"), UNIT, images=images, depth=2, width=3, activations=kept)


def test_a_circuit_is_the_same_to_the_bit_and_the_network_does_not_run_on_the_images_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, kept = open_images("scenes:40"), KeptActivations(tmp_path, circuits.load("scenes").digest)
    plain = json.dumps(trace(images, None).to_json())
    assert json.dumps(trace(images, kept).to_json()) == plain

    def computed(*_: object, **__: object) -> None:
        raise AssertionError("it is read, not computed")

    monkeypatch.setattr(peak_positions, "_pass", computed)
    assert json.dumps(trace(images, kept).to_json()) == plain


def test_images_are_known_by_their_contents_and_missing_ones_are_computed(tmp_path: Path) -> None:
    kept = KeptActivations(tmp_path, circuits.load("scenes").digest)
    trace(open_images("scenes:30"), kept)
    more = open_images("scenes:40")
    images = more.subset([35, *range(25), 38])
    plain, mixed = trace(images, None), trace(images, kept)
    assert [(e.source, e.target) for e in mixed.edges] == [(e.source, e.target) for e in plain.edges]
    assert [e.strength for e in mixed.edges] == pytest.approx([e.strength for e in plain.edges], rel=1e-4, abs=1e-6)
    assert [n.examples[0].image for n in mixed.nodes] == [n.examples[0].image for n in plain.nodes]


def test_an_edited_network_is_neither_read_nor_kept(tmp_path: Path) -> None:
    model = circuits.load("scenes")
    kept, images = KeptActivations(tmp_path, model.digest), open_images("scenes:20")
    with circuits.edit(model, [circuits.Scale("mixed3b:4", 2.0)]):
        circuits.trace(model, UNIT, images=images, activations=kept)
    assert not list(tmp_path.iterdir())


def test_networks_that_look_at_the_layout_run_as_they_are() -> None:
    class Views(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.head = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Linear(4 * 36, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.relu(self.conv(x))
            out: torch.Tensor = self.head(x.view(len(x), -1))
            return out

    model = circuits.wrap(Views().eval(), input=circuits.InputSpec(size=8))
    assert model.graph is not None and not model.graph.convolves_in_any_layout
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert circuits.trace(model, "head:0", images=images, layers=["relu"]).edges
    other = nets.planted().graph
    assert other is not None and other.convolves_in_any_layout
