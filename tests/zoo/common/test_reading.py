"""Only regular files are opened, of bounded size; documents and arrays are what they must be."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import pytest
import torch

from zoo.common.reading import Count, Expected, check_arrays, fits, open_file, parse_json, read_bytes, read_json
from zoo.errors import WeightsError
from zoo.weights.loading import read


def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, message in (("pipe", "pipe or a device"), ("link", "pipe or a device"), (".", "folder")):
        with pytest.raises(OSError, match=message):
            open_file(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_file("a\0b")


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert read_bytes(tmp_path / "f", 5) == b"12345"
    with pytest.raises(OSError, match="at most"):
        read_bytes(tmp_path / "f", 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 60_000, "nested too deeply"),
        ('{"a":' * 60_000, "nested too deeply"),
        ("[NaN]", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ("[1e999]", "too large a number"),
        ("9" * 5000, "digits"),
        ("", "Expecting value"),
    ],
)
def test_what_is_no_json_is_a_value_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_names_that_are_no_utf8_come_back(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('["caf\\udce9"]', "utf-8")
    assert read_json(tmp_path / "f.json") == [os.fsdecode(b"caf\xe9")]


class Row(TypedDict):
    name: str
    count: Count
    share: NotRequired[float]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"name": "a"}, "missing required field `count`"),
        ({"name": 1, "count": 1}, "Expected `str`, got `int`"),
        ({"name": "a", "count": True}, "Expected `int`, got `bool`"),
        ({"name": "a", "count": 1.5}, "Expected `int`, got `float`"),
        ({"name": "a", "count": -1}, ">= 0"),
        ({"name": "a", "count": 2**70}, "Expected `int`"),
        ({"name": "a", "count": 1, "share": "x"}, "Expected `float`, got `str`"),
    ],
)
def test_a_document_that_does_not_fit_is_a_value_error(document: object, message: str) -> None:
    fits([{"name": "a", "count": 1, "share": 1, "more": None}], list[Row])
    with pytest.raises(ValueError, match=message):
        fits([document], list[Row])


EXPECTED = {"a": Expected("real", ("n", 2), 0, 1), "b": Expected("whole", ("n",), 0)}


@pytest.mark.parametrize("make", [np.array, torch.tensor])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([[0.0, 2.0]], [1], "a spans 0 to 2, not 0 to 1"),
        ([[0.0, float("nan")]], [1], "a has values that are not finite"),
        ([[0.0, 1.0]], [1, 2], r"b has shape \(2,\), not \(n = 1\)"),
        ([0.0, 1.0], [1], r"a has shape \(2,\), not \(n, 2\)"),
        ([[0, 1]], [1], "a holds .*int64, not real numbers"),
        ([[0j, 1j]], [1], "a holds .*complex.*, not real"),
        ([[0.0, 1.0]], [-1], "b spans -1 to -1, not 0 to any"),
        ([[0.0, 1.0]], [True], "b holds .*bool, not whole"),
    ],
)
def test_arrays_that_are_something_else_are_a_value_error(make, a, b, message) -> None:  # type: ignore[no-untyped-def]
    check_arrays({"a": make([[0.5, 1.0]]), "b": make([3]), "c": make([0])}, EXPECTED)
    with pytest.raises(ValueError, match=message):
        check_arrays({"a": make(a), "b": make(b)}, EXPECTED)
    with pytest.raises(ValueError, match="it holds no b"):
        check_arrays({"a": make([[0.5, 1.0]])}, EXPECTED)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_small_pytorch_file_that_asks_for_gigabytes_is_refused(compressed: bool, tmp_path: Path) -> None:
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", kind) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"(" * 10_000_000)
    with pytest.raises(WeightsError, match="parts are compressed" if compressed else "table of tensors has 10 MB"):
        read(tmp_path / "bomb.pth")
    torch.save({"a": torch.ones(2)}, tmp_path / "sound.pth")
    assert read(tmp_path / "sound.pth")["a"].sum() == 2


def test_a_whole_number_of_thousands_of_digits_is_refused() -> None:
    assert parse_json(b"[18446744073709551615, -3]") == [2**64 - 1, -3]
    with pytest.raises(ValueError, match="too large a number"):
        parse_json("[" + "9" * 4000 + "]")
