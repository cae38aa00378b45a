"""The packaged vision transformer: small, right on held-out scenes, and trained the same after a break."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

import circuits
from tools.scenes_vit.train import augmented, train
from zoo.scenes.generate import CLASSES, HELD_OUT_SEED, dataset
from zoo.scenes.vit import WEIGHTS


def test_its_file_is_small_and_says_how_it_was_made() -> None:
    assert WEIGHTS.stat().st_size < 4 * 2**20
    with safe_open(WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    assert float(metadata["accuracy"]) >= 0.95 and metadata["until"] == "1750"


def test_it_is_right_on_held_out_scenes() -> None:
    model = circuits.load("scenes-vit", device="cpu")
    scenes = list(dataset(260, HELD_OUT_SEED))
    images = torch.stack([torch.from_numpy(s.image) for s in scenes]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        right = model(images).argmax(dim=1) == torch.tensor([s.label_index for s in scenes])
    assert model.logits == "scores" and model.classes == list(CLASSES)
    assert float(right.float().mean()) >= 0.95


def test_a_mirrored_dog_is_the_other_dog() -> None:
    left, right, car = (CLASSES.index(name) for name in ("dog_left", "dog_right", "car"))
    image = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)  # brighter to the right, darker when mirrored
    labels = torch.tensor([left, right, car] * 20)
    images, after = augmented(image.expand(60, -1, -1, -1), labels, torch.Generator().manual_seed(0))
    mirrored = images[:, :, :, :20].mean(dim=(1, 2, 3)) > images[:, :, :, -20:].mean(dim=(1, 2, 3))
    swapped = {left: right, right: left, car: car}
    assert 0 < int(mirrored.sum()) < 60
    for before, now, flipped in zip(labels.tolist(), after.tolist(), mirrored.tolist(), strict=True):
        assert now == (swapped[before] if flipped else before)


def test_training_that_was_interrupted_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    scenes = list(dataset(8))
    images = torch.stack([torch.from_numpy(s.image) for s in scenes]).numpy()
    labels = torch.tensor([s.label_index for s in scenes])
    options = {"seed": 0, "steps": 4, "batch_size": 4, "rate": 1e-3}
    whole = train(images, labels, until=3, checkpoint=None, **options)  # type: ignore[arg-type]
    train(images, labels, until=2, checkpoint=tmp_path / "state.pt", **options)  # type: ignore[arg-type]
    resumed = train(images, labels, until=3, checkpoint=tmp_path / "state.pt", **options)  # type: ignore[arg-type]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
