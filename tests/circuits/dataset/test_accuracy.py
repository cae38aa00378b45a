"""Accuracy per class is that of plain PyTorch, with and without an edit; classes are matched by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import circuits
from circuits.dataset.accuracy import class_labels
from circuits.errors import CircuitsError, EditError
from tests import nets
from zoo.images.sources import Images, open_images

UNIT = "mixed4a:11"


@pytest.fixture(scope="module")
def scenes() -> circuits.Model:
    return circuits.load("scenes")


@pytest.fixture(scope="module")
def measured(scenes: circuits.Model) -> circuits.Accuracy:
    return circuits.accuracy(scenes, "scenes:80@5", edits=[circuits.Ablate(UNIT)], random=3)


def test_it_is_that_of_plain_pytorch_with_and_without_the_edit(
    scenes: circuits.Model, measured: circuits.Accuracy
) -> None:
    images = open_images("scenes:80@5")
    batch, labels = scenes.input.normalize(images.tensor(scenes.input)), torch.tensor(images.labels)

    def zero(_module: object, _inputs: object, out: torch.Tensor) -> torch.Tensor:
        return out * (torch.arange(out.shape[1]) != 11)[:, None, None]

    with torch.no_grad():
        plain = scenes.module(batch).argmax(1)
        handle = scenes.module.get_submodule("mixed4a").register_forward_hook(zero)
        edited = scenes.module(batch).argmax(1)
        handle.remove()
    assert measured.answers.tolist() == plain.tolist() and measured.labels.tolist() == labels.tolist()
    assert measured.edited is not None and measured.edited.tolist() == edited.tolist()
    assert measured.top1 == pytest.approx(float((plain == labels).double().mean()))
    assert measured.change == pytest.approx(float((edited == labels).double().mean()) - measured.top1)
    for row in measured.by_class:
        of = labels == scenes.classes.index(row["class"])
        assert row["images"] == int(of.sum())
        assert row["top1"] == pytest.approx(float((plain[of] == labels[of]).double().mean()))
        assert row["edited"] == pytest.approx(float((edited[of] == labels[of]).double().mean()))
    low, high = measured.interval
    assert low < measured.top1 < high
    assert measured.change_interval is not None and measured.change_interval[0] <= (measured.change or 0)


def test_the_same_edit_of_other_units_stands_beside_it(measured: circuits.Accuracy, scenes: circuits.Model) -> None:
    again = circuits.accuracy(scenes, "scenes:80@5", edits=[circuits.Ablate(UNIT)], random=3)
    assert measured.random is not None and measured.random.shape == (3, 80)
    assert np.array_equal(measured.random, again.random)
    document = measured.describe()
    assert len(document["random_changes"]) == 3 and document["by_class"][0]["class"] in scenes.classes
    alone = circuits.accuracy(scenes, "scenes:8@5")
    assert alone.edited_top1 is alone.change is alone.change_interval is alone.random_changes is None
    with pytest.raises(EditError, match="give random=0"):
        circuits.accuracy(scenes, "scenes:8@5", edits=[circuits.Ablate("mixed4a")])
    assert circuits.accuracy(scenes, "scenes:8@5", edits=[circuits.Ablate("mixed4a")], random=0).edited is not None


def test_classes_are_matched_by_name(scenes: circuits.Model) -> None:
    plain = open_images("scenes:20@5")
    turned = list(reversed(scenes.classes))
    assert plain.labels is not None
    images = Images(
        plain._images, "turned", labels=[len(turned) - 1 - i for i in plain.labels], classes=turned,
    )  # fmt: skip
    assert class_labels(scenes, images).tolist() == plain.labels
    by_name = circuits.accuracy(scenes, torch.rand(2, 3, *scenes.input.hw), labels=scenes.classes[:2])
    assert by_name.labels.tolist() == [0, 1]
    for given in (np.array([0, 1]), torch.tensor([0, 1])):
        of_array = circuits.accuracy(scenes, torch.rand(2, 3, *scenes.input.hw), labels=given)  # type: ignore[arg-type]
        assert of_array.labels.tolist() == [0, 1]


def test_what_has_no_label_is_refused(scenes: circuits.Model) -> None:
    images = torch.rand(2, 3, *scenes.input.hw)
    for labels, message in (
        (None, "is not known"), ([0.7, 1], "name of a class, or its number"),
        ([0], "1 labels for the 2 images"), ([0, 99], "has the label 99"),
        ([scenes.classes[0], "zebra"], "of no class of scenes, the first by the label 'zebra'"),
    ):  # fmt: skip
        with pytest.raises(CircuitsError, match=message):
            circuits.accuracy(scenes, images, labels=labels)  # type: ignore[arg-type]
    with pytest.raises(CircuitsError, match="no layer of class scores|2 outputs"):
        circuits.accuracy(nets.wrap(nets.TwoOutputs()), nets.pictures(2), labels=[0, 1])


def test_it_says_itself_in_a_line_and_in_a_table_of_classes(measured: circuits.Accuracy) -> None:
    assert f"top-1 {measured.top1:.3f} [" in repr(measured) and f"a change of {measured.change:+.3f} [" in repr(
        measured
    )
    rows = measured.records()
    assert [row["class"] for row in rows] == [row["class"] for row in measured.by_class]
    assert measured.random is not None
    for row, index in zip(rows, np.unique(measured.labels), strict=True):
        of = measured.labels == index
        assert row["random"] == pytest.approx((measured.random[:, of] == index).mean())


def test_a_folder_without_classes_is_told_how_to_get_them(scenes: circuits.Model) -> None:
    with pytest.raises(CircuitsError, match="put those of each class into a folder"):
        circuits.accuracy(scenes, torch.rand(2, 3, 64, 64))
