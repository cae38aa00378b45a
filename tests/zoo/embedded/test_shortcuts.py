"""The networks of `scenes-shortcuts` learned their class and their shortcut, and the two others none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tools.shortcuts.train import held_out, train
from zoo.errors import ImageError, ModelError
from zoo.images.sources import open_images
from zoo.networks.shortcuts import PACKAGED, PLANTED
from zoo.registry import build
from zoo.scenes.shortcuts import CLASSES, CUES, scenes, shortcut
from zoo.scenes.shortcuts.network import WEIGHTS


def test_the_same_scene_is_there_with_and_without_its_cue() -> None:
    for name in (*PLANTED, "mixed"):
        with_cue, without = (list(scenes(name, 8, 3, state)) for state in ("with", "without"))
        for a, b in zip(with_cue, without, strict=True):
            assert a.has_cue and not b.has_cue and a.label == b.label and not b.cue_mask.any()
            changed = (a.image != b.image).any(axis=2)
            assert a.cue_mask.any() and not changed[~a.cue_mask & ~_faint(a.image, b.image)].any()
            if a.group.rpartition(" ")[2] not in ("tag", "watermark", "jpeg", "cue"):
                assert not (changed & a.object_mask).any()


def _faint(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (np.abs(a.astype(int) - b.astype(int)) <= 26).all(axis=2)  # a tenth of a color is no part of the mask


def test_the_strength_is_of_the_class_and_of_the_cue() -> None:
    drawn = list(scenes("tag-bus-90", 1600, 5))
    cued = np.array([scene.has_cue for scene in drawn])
    of_class = np.array([scene.label == "bus" for scene in drawn])
    assert cued[of_class].mean() == pytest.approx(0.9, abs=0.05) and of_class[cued].mean() == pytest.approx(
        0.9, abs=0.05
    )
    images = open_images("scenes:shortcuts/tag-bus-90:32@5")
    assert images.groups == [scene.group for scene in drawn[:32]] and images.classes == list(CLASSES)
    assert images.subset([4, 2]).groups == [drawn[4].group, drawn[2].group]
    assert images.annotations is not None and (images.annotations[7].parts[0].mask == drawn[7].object_mask).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tag-bus", "named CUE-CLASS-STRENGTH"),
        ("tagg-bus-95", "Nearest: tag"),
        ("tag-buss-95", "Nearest: bus"),
        ("tag-bus-40", "50 to 99 %"),
    ],
)
def test_a_shortcut_that_does_not_exist_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        shortcut(name)
    with pytest.raises(ModelError, match=message) as error:
        build(f"scenes-shortcuts/{name}")
    assert "\n" not in str(error.value)


def test_every_packaged_network_is_small_and_loads() -> None:
    assert {file.stem for file in WEIGHTS.iterdir()} == set(PACKAGED)
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) < 2_000_000
    assert {shortcut(name).cue for name in PLANTED} == set(CUES)
    for name in PACKAGED:
        assert build(f"scenes-shortcuts/{name}").module.get_parameter("scores.weight").shape == (len(CLASSES), 56)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_network_leans_on_its_cue_and_the_one_without_a_shortcut_does_not(name: str) -> None:
    own, mixed = (held_out(build(f"scenes-shortcuts/{n}").module, name, 800).groups for n in (name, "mixed"))
    planted = shortcut(name)

    def lean(groups: dict[str, float]) -> float:
        """What the cue costs the other classes, and its absence costs the class."""
        other, of_class = (
            [groups[planted.group(label, has_cue)] for has_cue in (True, False)] for label in ("", planted.target)
        )
        return (other[1] - other[0]) + (of_class[0] - of_class[1])

    assert lean(own) > max(0.15, lean(mixed) + 0.1)
    assert own[planted.group("", False)] > 0.8 > 1 / len(CLASSES)  # and it learned the classes


@pytest.mark.slow
def test_training_gives_the_packaged_network() -> None:
    trained, packaged = train("tag-bus-95").state_dict(), build("scenes-shortcuts/tag-bus-95").module.state_dict()
    assert all(torch.allclose(trained[name].half().float(), packaged[name], atol=0.02) for name in packaged)
