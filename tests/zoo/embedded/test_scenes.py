"""The scenes: drawings that depend on their seed only, and parts that are where the object needs them."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.errors import ImageError
from zoo.scenes import ADVERSARIAL, CLASSES, PARTS, Scene, adversarial, dataset, draw
from zoo.scenes.generate import ARRANGEMENTS, SIZE
from zoo.scenes.objects import OBJECTS


def height_of(scene: Scene, name: str) -> float:
    """Mean row of a part's visible pixels."""
    return float(np.mean([np.nonzero(p.mask)[0].mean() for p in scene.parts if p.name == name]))


def column_of(scene: Scene, name: str) -> float:
    return float(np.mean([np.nonzero(p.mask)[1].mean() for p in scene.parts if p.name == name]))


def named(scene: Scene) -> set[str]:
    return {p.name for p in scene.parts}


def has_just_a_car(scene: Scene) -> bool:
    """Whether all parts of a car show, and no distractor's wheels or windows."""
    return sorted(p.name for p in scene.parts) == ["car_body", "wheel", "wheel", "window", "window"]


def test_the_same_seed_gives_the_same_bytes_and_parts() -> None:
    for seed in range(6):
        first, second = draw(seed), draw(seed)
        assert first.image.tobytes() == second.image.tobytes()
        assert (first.label, first.arrangement) == (second.label, second.arrangement)
        assert [p.box for p in first.parts] == [p.box for p in second.parts]


def test_a_scene_does_not_depend_on_how_many_are_drawn() -> None:
    short, long = list(dataset(20, seed=3)), list(dataset(30, seed=3))
    assert [s.image.tobytes() for s in short] == [s.image.tobytes() for s in long[:20]]
    assert long[0].image.tobytes() != next(dataset(1, seed=4)).image.tobytes()


def test_a_scene_is_drawn_again_from_its_seed_kind_and_arrangement() -> None:
    for scene in (*dataset(13, seed=5), *adversarial(2, seed=5, kind="scattered")):
        kind = "nothing" if scene.label == "nothing" and scene.arrangement not in ADVERSARIAL else scene.kind
        again = draw(scene.seed, kind, scene.arrangement)
        assert (again.label, again.arrangement, again.kind) == (scene.label, scene.arrangement, scene.kind)


def test_every_class_is_drawn_equally_often() -> None:
    labels = [s.label for s in dataset(2 * len(CLASSES), seed=0)]
    assert all(labels.count(name) == 2 for name in CLASSES)
    assert [CLASSES[s.label_index] for s in dataset(13, seed=0)] == labels[:13]


def test_every_part_is_drawn_and_has_a_known_name() -> None:
    seen = set().union(*(named(draw(seed, kind)) for kind in OBJECTS for seed in range(4)))
    assert seen == set(PARTS)


def test_masks_are_inside_the_picture_and_boxes_tight() -> None:
    for scene in dataset(39, seed=1):
        assert scene.image.shape == (SIZE, SIZE, 3) and scene.image.dtype == np.uint8
        for part in scene.parts:
            x0, y0, x1, y1 = part.box
            assert 0 <= x0 < x1 <= SIZE and 0 <= y0 < y1 <= SIZE
            assert part.mask.shape == (SIZE, SIZE) and part.mask.any()
            inside = part.mask[y0:y1, x0:x1]
            assert inside.sum() == part.mask.sum()
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_visible_parts_share_no_more_than_the_pixels_of_their_border() -> None:
    for scene in dataset(26, seed=2):
        shown = sum((p.mask.astype(int) for p in scene.parts), np.zeros((SIZE, SIZE), int))
        assert (shown > 1).sum() <= 0.15 * max(1, (shown > 0).sum()) and shown.max() <= 2


def test_a_car_has_windows_above_a_body_above_wheels() -> None:
    cars = [draw(seed, "car") for seed in range(70)]
    whole = [c for c in cars if has_just_a_car(c)]
    assert len(whole) > 30
    for scene in whole:
        assert height_of(scene, "window") < height_of(scene, "car_body") < height_of(scene, "wheel")


def test_dogs_are_mirror_images_in_the_order_of_their_parts() -> None:
    seen = 0
    for seed in range(30):
        left, right = draw(seed, "dog_left"), draw(seed, "dog_right")
        for scene, sign in ((left, 1), (right, -1)):
            if [p.name for p in scene.parts].count("dog_head") == [p.name for p in scene.parts].count("dog_body") == 1:
                assert sign * column_of(scene, "dog_head") < sign * column_of(scene, "dog_body")
                seen += 1
    assert seen > 40


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_a_wrong_arrangement_is_never_labeled_car(kind: str) -> None:
    for scene in adversarial(6, seed=2, kind=kind):
        assert scene.label == "nothing" and scene.arrangement == kind and scene.kind == "car"


def test_wrong_arrangements_are_what_they_are_called() -> None:
    def drawn(kind: str) -> list[Scene]:
        return [s for s in adversarial(30, seed=6, kind=kind) if has_just_a_car(s)]

    for kind, order in {
        "wheels_above": ("wheel", "window", "car_body"),
        "windows_below": ("car_body", "wheel", "window"),
        "body_above": ("car_body", "window", "wheel"),
        "upside_down": ("wheel", "car_body", "window"),
    }.items():
        scenes = drawn(kind)
        assert len(scenes) > 8
        for scene in scenes:
            heights = [height_of(scene, part) for part in order]
            assert heights == sorted(heights), kind
    for kind, gone in {"no_body": "car_body", "no_wheels": "wheel", "no_windows": "window"}.items():
        still = sum(gone in named(s) for s in adversarial(15, seed=6, kind=kind))
        assert still <= (4 if gone == "window" else 0)  # a house's window may stand in the background


def test_any_object_can_be_scattered_and_is_then_nothing() -> None:
    for kind in OBJECTS:
        scene = draw(1, kind, "scattered")
        assert scene.label == "nothing" and scene.kind == kind


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ImageError, match="Nearest: car"):
        draw(0, "carr")
    with pytest.raises(ImageError, match="wheels_above"):
        draw(0, "car", "wheels_abov")
    with pytest.raises(ImageError, match="no wrong arrangement"):
        next(adversarial(1, kind="normal"))
    with pytest.raises(ImageError, match="of a car's parts"):
        draw(0, "cat", "no_wheels")
    assert set(ADVERSARIAL) < set(ARRANGEMENTS)
