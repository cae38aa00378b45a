"""Data sets of PyTorch, torchvision, Hugging Face and webdataset, and iterables: the same images and classes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision import datasets, transforms

import circuits
from zoo import InputSpec, open_images
from zoo.errors import ImageError
from zoo.images.classes import labels_counted_as

SPEC = InputSpec(size=8)
COLORS = {"blue": (0, 0, 255), "red": (255, 0, 0), "white": (255, 255, 255)}


def colored(name: str, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, COLORS[name])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in COLORS:
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(2):
            colored(name).save(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


class Own(Dataset[Any]):
    """A data set of one's own, with classes that only its items tell."""

    def __init__(self, labels: list[Any], length: int | None = None) -> None:
        self.reads, self.given = 0, labels

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> Any:
        if index >= len(self.given):
            raise IndexError(index)
        self.reads += 1
        return torch.full((3, 8, 8), index / 10), self.given[index]


def values(source: Any) -> list[float]:
    return [round(float(image.mean()), 4) for image in open_images(source).tensor(SPEC)]


def test_an_image_folder_is_the_folder_with_classes(folder: Path) -> None:
    images, plain = open_images(datasets.ImageFolder(str(folder))), open_images(folder)
    assert images.ids == plain.ids == [f"{name}/{i}.png" for name in COLORS for i in range(2)]
    assert images.digest == plain.digest and torch.equal(images.tensor(SPEC), plain.tensor(SPEC))
    assert images.classes == ["blue", "red", "white"] and images.labels == [0, 0, 1, 1, 2, 2]
    assert images.label_name(3) == "red" and plain.label_name(3) == "unlabeled"


def test_transforms_of_a_data_set_hold(folder: Path) -> None:
    """Its own resizing and its change of classes, not ours."""
    half = datasets.ImageFolder(
        str(folder), transforms.Compose([transforms.ToTensor(), lambda x: x / 2]), target_transform=lambda t: 2 - t
    )
    images = open_images(half)
    assert float(images.tensor(SPEC).max()) == 0.5
    assert images.labels == [2, 2, 1, 1, 0, 0]


def test_subsets_and_concatenations_carry_their_classes(folder: Path) -> None:
    whole = datasets.ImageFolder(str(folder))
    some = open_images(Subset(whole, [5, 0]))
    assert some.ids == ["white/1.png", "blue/0.png"] and some.labels == [2, 0] and some.classes == whole.classes
    both = open_images(ConcatDataset([Subset(whole, [5]), whole]))
    assert both.labels == [2, 0, 0, 1, 1, 2, 2] and both.ids[0] == "0/white/1.png" and both.classes == whole.classes
    nested = open_images(Subset(ConcatDataset([whole, whole]), [11, 1]))
    assert nested.labels == [2, 0] and open_images(whole, limit=2, seed=1).labels is not None


def test_classes_of_items_are_read_when_they_are_asked_for() -> None:
    own = Own([3, torch.tensor(1), np.int64(2)])
    images = open_images(own)
    before = own.reads
    assert before <= 2 and values(own) == [0.0, 0.1, 0.2]
    assert images.labels == [3, 1, 2] and images.classes is None and images.subset([2]).labels == [2]
    named = open_images(Own(["dog", "cat", "dog"]))
    assert named.subset([2]).labels == [1] and named.subset([2]).classes == ["cat", "dog"]  # as the whole counts them
    assert open_images(Own([{"boxes": 1}, None, {"boxes": 2}])).labels is None
    assert open_images(TensorDataset(torch.rand(4, 3, 8, 8), torch.tensor([1, 0, 0, 1]))).labels == [1, 0, 0, 1]
    assert open_images(Own([0, None, 1])).labels == [0, -1, 1]


def test_iterables_of_images_and_of_pairs() -> None:
    def items() -> Iterator[Any]:
        yield colored("red"), "red"
        yield np.zeros((8, 8, 3), np.uint8), "blue"
        yield torch.ones(3, 8, 8), "red"

    images = open_images(items())
    assert images.labels == [1, 0, 1] and images.classes == ["blue", "red"]
    assert [round(float(i.mean()), 3) for i in images.tensor(SPEC)] == [0.333, 0.0, 1.0]
    assert open_images(iter([colored("red")])).labels is None
    pairs = open_images([(colored("red"), 4), (colored("blue"), 2)])
    assert pairs.labels == [4, 2]

    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return items()

    assert open_images(Stream()).labels == [1, 0, 1]
    encoded = io.BytesIO()
    colored("white").save(encoded, "PNG")
    samples = iter(
        [{"__key__": "0", "png": encoded.getvalue(), "cls": b"7"}, {"__key__": "1", "png": colored("red"), "cls": 3}]
    )
    assert open_images(samples).labels == [7, 3]


class ClassLabel:
    """As the class of that name of Hugging Face's `datasets`, in what is read of it."""

    names = ("cat", "dog")


class Columns:
    """As a data set of Hugging Face: rows as dictionaries, columns as lists, and features that say what they are."""

    def __init__(self, features: dict[str, str], rows: list[dict[str, Any]]) -> None:
        kinds = {"ClassLabel": ClassLabel, "Image": type("Image", (), {}), "Value": type("Value", (), {})}
        self.features = {name: kinds[kind]() for name, kind in features.items()}
        self.column_names, self.rows, self.format = list(features), rows, {"type": None}

    def with_format(self, _: None) -> Columns:
        return self

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> Any:
        return self.rows[key] if isinstance(key, int) else [row[key] for row in self.rows]


def test_columns_of_images_and_classes() -> None:
    encoded = io.BytesIO()
    colored("white").save(encoded, "PNG")
    rows = [
        {"img": colored("red"), "label": 1, "text": "x"},
        {"img": {"bytes": encoded.getvalue(), "path": None}, "label": 0, "text": "y"},
        {"img": colored("blue"), "label": -1, "text": "z"},
    ]
    images = open_images(Columns({"img": "Image", "label": "ClassLabel", "text": "Value"}, rows))
    assert images.labels == [1, 0, -1] and images.classes == ["cat", "dog"]
    assert [images.label_name(i) for i in range(3)] == ["dog", "cat", "unlabeled"]
    assert float(images.tensor(SPEC)[1].min()) == 1
    assert open_images(Columns({"img": "Image", "text": "Value"}, rows)).labels is None


def test_data_sets_of_hugging_face_itself() -> None:
    """The library is in no extra of the tests: this runs where it is installed."""
    hf = pytest.importorskip("datasets")
    features = hf.Features({"img": hf.Image(), "fine": hf.ClassLabel(names=["cat", "dog"])})
    pixels = [np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8) for i in range(3)]
    rows = {"img": [Image.fromarray(p) for p in pixels], "fine": [1, None, 0]}
    data, right = hf.Dataset.from_dict(rows, features=features), torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)

    def renamed(batch: dict[str, Any]) -> dict[str, Any]:
        return {"pixel_values": [np.asarray(image) for image in batch["img"]]}

    def swapped(batch: dict[str, Any]) -> dict[str, Any]:
        return batch | {"fine": [1 - (label or 0) for label in batch["fine"]]}

    stream = data.to_iterable_dataset()
    for source in (data, stream, data.with_format("torch", columns=["img"]), data.with_transform(renamed)):
        images = open_images(source)
        assert torch.equal(images.tensor(SPEC), right / 255)
        assert images.labels == [1, -1, 0] and images.classes == ["cat", "dog"]
    images = open_images(data.with_transform(swapped))
    assert images.labels == [0, 1, 1] and images.classes is None  # the names may be of others
    assert open_images(data.cast_column("fine", hf.Value("int32")).rename_column("fine", "label")).labels == [1, -1, 0]
    assert open_images(stream.remove_columns("fine")).labels is None


def shard(path: Path, samples: dict[str, tuple[str, str | None]]) -> None:
    with tarfile.open(path, "w") as archive:
        for key, (color, label) in samples.items():
            image = io.BytesIO()
            colored(color).save(image, "PNG")
            for suffix, content in (("png", image.getvalue()), ("cls", None if label is None else label.encode())):
                if content is not None:
                    member = tarfile.TarInfo(f"{key}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def test_shards_of_webdataset_carry_their_classes(tmp_path: Path) -> None:
    shard(tmp_path / "s-00.tar", {"0001": ("red", "5"), "0002": ("blue", None)})
    shard(tmp_path / "s-01.tar", {"0001": ("white", "2\n")})
    images = open_images(tmp_path / "s-00.tar")
    assert images.labels == [5, -1] and images.ids == ["0001.png", "0002.png"]
    several = open_images(str(tmp_path / "s-{00..01}.tar"))
    assert several.labels == [5, -1, 2] and len(set(several.ids)) == 3
    assert open_images([tmp_path / "s-00.tar", tmp_path / "s-01.tar"]).labels == [5, -1, 2]
    assert several.origin is not None
    shard(tmp_path / "plain.tar", {"0001": ("red", None)})
    assert open_images(tmp_path / "plain.tar").labels is None


def test_a_data_set_goes_through_every_verb_that_takes_images(folder: Path, tmp_path: Path) -> None:
    model, data = circuits.load("scenes"), datasets.ImageFolder(str(folder))
    acts = circuits.capture(model, data, ["mixed3a"])["mixed3a"]
    assert torch.equal(acts, circuits.capture(model, folder, ["mixed3a"])["mixed3a"])
    scan = circuits.scan(model, data, tmp_path / "store", layers=["conv2d0"])
    assert set(scan.unit("conv2d0:1").classes) <= set(COLORS)


def test_labels_are_counted_as_the_model_counts_its_classes() -> None:
    model = circuits.load("scenes")
    names = ["boat", "zebra", *reversed([c for c in model.classes if c != "boat"])]
    mapped = labels_counted_as(list(range(len(names))), names, model.classes)
    assert mapped == [model.classes.index(n) if n in model.classes else -1 for n in names]
    assert labels_counted_as([2, 0], None, model.classes) == [2, 0]
    assert labels_counted_as([0, 1], ["crane", "tench"], ["crane", "tench, Tinca tinca", "crane"]) == [-1, 1]


class Random(Own):
    def __getitem__(self, index: int) -> Any:
        return torch.rand(3, 8, 8), 0


class Unsized(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(3, 8, 8)


class Failing(Own):
    def __getitem__(self, index: int) -> Any:
        raise RuntimeError("the disk is gone")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: Random([1, 2]), "leave out random transforms"),
        (lambda: Unsized(), "no length"),
        (lambda: Own([]), "empty"),
        (lambda: Failing([1]), "the disk is gone"),
        (lambda: TensorDataset(torch.randn(4, 3, 8, 8)), r"denormalize\(x\) for what is normalized already"),
        (lambda: DataLoader(Own([1, 2])), r"loader\.dataset"),
        (lambda: {"train": Own([1])}, "holds several sets"),
        (lambda: iter([]), "gives no images"),
        (lambda: iter(["a", "b"]), "cannot use item 0"),
        (lambda: iter([{"a": torch.rand(3, 8, 8), "b": torch.rand(3, 8, 8)}]), "one image; this one has 2"),
        (lambda: 7, "not a int"),
        (lambda: Subset(Own([1, 2]), []), "is empty"),
        (lambda: Subset(Own([1, 2]), [1, 1]), "twice"),
        (lambda: [(colored("red"), None)], "entry 0 of the list is a tuple"),
        (lambda: [(colored("red"), 1), (colored("red"), "dog")], "some labels are numbers"),
        (lambda: Columns({"a": "Image", "b": "Image"}, [{}]), "2 columns of images"),
        (lambda: Columns({"a": "Image", "b": "ClassLabel", "c": "ClassLabel"}, [{}]), "several classes"),
        (lambda: "nowhere-{00..01}.tar", "there is no folder or image"),
    ],
)
def test_what_is_no_images_is_one_clear_line(source: Callable[[], Any], message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        open_images(source()).tensor(SPEC)
    assert "\n" not in str(caught.value)
