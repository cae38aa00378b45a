"""The published networks recognize photographs as well as they should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zoo.images.sources import open_images
from zoo.registry import build


def accuracy(name: str, weights: Path, photographs: Path) -> tuple[float, float]:
    """Top-1 and top-5 on center crops; the order of the files is that of the classes."""
    if not weights.is_file() or not photographs.is_dir():
        pytest.skip(f"{weights.name} or {photographs.name} is not in the folders named by the environment")
    loaded = build(name, weights=weights)
    first = fifth = total = 0
    with torch.inference_mode():
        for indices, pictures in open_images(photographs).batches(loaded.card.input):
            best = loaded.module(loaded.card.input.normalize(pictures)).topk(5, dim=1).indices
            hits = best == torch.tensor(indices)[:, None]
            first, fifth, total = first + int(hits[:, 0].sum()), fifth + int(hits.sum()), total + len(indices)
    assert total == 1000
    return first / total, fifth / total


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_googlenet_reaches_its_measured_accuracy(weights_dir: Path, data_dir: Path) -> None:
    top1, top5 = accuracy("googlenet-bvlc", weights_dir / "bvlc_googlenet.safetensors", data_dir / "imagenet-sample")
    assert top1 == pytest.approx(0.747, abs=0.005)
    assert top5 == pytest.approx(0.926, abs=0.005)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_squeezenet_reaches_its_measured_accuracy(weights_dir: Path, data_dir: Path) -> None:
    # Measured with this code; the published figures on the whole validation set are 0.575 and 0.803.
    top1, top5 = accuracy("squeezenet-1.1", weights_dir / "squeezenet1_1.safetensors", data_dir / "imagenet-sample")
    assert top1 == pytest.approx(0.601, abs=0.005)
    assert top5 == pytest.approx(0.824, abs=0.005)


def test_googlenet_names_a_few_photographs(weights_dir: Path, data_dir: Path) -> None:
    weights, photographs = weights_dir / "bvlc_googlenet.safetensors", data_dir / "imagenet-sample"
    if not weights.is_file() or not photographs.is_dir():
        pytest.skip(f"{weights.name} or {photographs.name} is not in the folders named by the environment")
    loaded = build("googlenet-bvlc", weights=weights)
    chosen = list(range(3, 1000, 50))
    with torch.inference_mode():
        pictures = open_images(photographs).tensor(loaded.card.input, chosen)
        best = loaded.module(loaded.card.input.normalize(pictures)).topk(5, dim=1).indices
    assert int((best == torch.tensor(chosen)[:, None]).sum()) >= 16
    assert len(loaded.card.classes()) == 1000
