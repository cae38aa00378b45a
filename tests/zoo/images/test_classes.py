"""Labels told by names."""

from __future__ import annotations

import pytest

from zoo.images.classes import labels_by_name
from zoo.registry import get_card

CLASSES = ["tench", "great white shark", "crane", "dog", "crane"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("tench.png", 0),
        ("n01440764_tench.jpg", 0),
        ("train/tench/0007.jpg", 0),
        ("n01484850/great_white_shark.JPEG", 1),
        ("Great-White-Shark/x.jpg", 1),
        ("dog/tench.jpg", 0),
        ("somewhere/else.jpg", -1),
        ("crane.jpg", -1),
        ("n02012849_crane.jpg", -1),
    ],
)
def test_a_name_tells_the_class(name: str, label: int) -> None:
    assert labels_by_name(["dog.jpg", "dog/1.jpg", name], CLASSES) == [3, 3, label]


def test_two_classes_of_one_name_are_told_apart_by_their_wordnet_order() -> None:
    ids = ["n03126707_crane.jpg", "n02012849_crane.jpg", "n02012849_crane/b.jpg"]
    assert labels_by_name(ids, CLASSES) == [4, 2, 2]


def test_names_that_say_little_give_no_labels() -> None:
    assert labels_by_name(["1.jpg", "2.jpg", "dog.jpg"], CLASSES) is None
    assert labels_by_name(["1.jpg"], []) is None


def test_a_picture_of_every_imagenet_class_is_told() -> None:
    classes = get_card("googlenet-bvlc").classes()
    ids = [f"n{i:08d}_{name.replace(' ', '_')}.jpg" for i, name in enumerate(classes)]
    assert labels_by_name(ids, classes) == list(range(1000))
