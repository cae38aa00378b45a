"""The 5h weights load from every container they are found in, and nothing else passes for them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tests.zoo import synthetic5h
from tests.zoo.conftest import Server
from zoo.cards import Card, WeightsFile
from zoo.errors import WeightsError
from zoo.images.classes import imagenet_classes
from zoo.networks import inception5h
from zoo.registry import build, get_card
from zoo.weights import graphdef, loading

CONTAINERS = ["pth", "pb", "safetensors", "safetensors-tf"]


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return synthetic5h.state()


@pytest.fixture(scope="module")
def files(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    return {kind: synthetic5h.write(folder, kind, tensors, kind) for kind in CONTAINERS}


def published(card: Card, **changes: object) -> Card:
    assert isinstance(card.weights, WeightsFile)
    return replace(card, weights=replace(card.weights, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_network(
    container: str, files: dict[str, Path], tensors: dict[str, Tensor], empty_home: Path
) -> None:
    loaded = build("inceptionv1", weights=files[container])
    own = loaded.module.state_dict()
    assert set(own) == set(tensors)
    assert all(torch.equal(own[name], tensors[name]) for name in tensors)
    assert loaded.digest == loading.digest(tensors)
    assert str(files[container]) in loaded.source


@pytest.mark.parametrize("container", ["pth", "pb"])
def test_a_foreign_container_is_converted_once(
    container: str, files: dict[str, Path], empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build("inceptionv1", weights=files[container])
    kept = empty_home / "weights" / "inceptionv1.safetensors"
    with safe_open(kept, framework="pt") as file:
        assert file.metadata()["converted_from"] == files[container].name
    read = loading.read
    seen: list[Path] = []
    monkeypatch.setattr(loading, "read", lambda path: (seen.append(path), read(path))[1])
    again = build("inceptionv1", weights=files[container])
    assert seen == [kept] and again.digest == first.digest
    assert "converted from" in again.source
    # And without a word on where the weights are, the converted file is found in the cache.
    assert build("inceptionv1", download=False).digest == first.digest


def test_another_file_is_not_mistaken_for_the_converted_one(
    files: dict[str, Path], empty_home: Path, tmp_path: Path
) -> None:
    build("inceptionv1", weights=files["pth"])
    other = synthetic5h.state(seed=1)
    path = synthetic5h.write(tmp_path, "pb", other)
    assert build("inceptionv1", weights=path).digest == loading.digest(other)


def test_a_converted_file_damaged_on_disk_is_refused(files: dict[str, Path], empty_home: Path) -> None:
    build("inceptionv1", weights=files["pth"])
    kept = empty_home / "weights" / "inceptionv1.safetensors"
    content = bytearray(kept.read_bytes())
    content[-2] ^= 0x10
    kept.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        build("inceptionv1", download=False)


def test_a_cache_that_cannot_be_written_does_not_stop_loading(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    monkeypatch.setenv("CIRCUITS_HOME", str(tmp_path / "home"))
    assert build("inceptionv1", weights=files["pb"]).digest


@pytest.mark.parametrize("container", CONTAINERS)
def test_weights_of_another_network_of_the_same_shape_are_refused(
    container: str, tensors: dict[str, Tensor], tmp_path: Path, empty_home: Path
) -> None:
    other = dict(tensors) | {"mixed3b_5x5_pre.weight": tensors["mixed3b_5x5_pre.weight"] * 1.01}
    path = synthetic5h.write(tmp_path, container, other)
    with pytest.raises(WeightsError, match=r"not the weights of the 5h InceptionV1: mixed3b_5x5_pre\.weight spans"):
        build("inceptionv1", weights=path)
    assert not (empty_home / "weights" / "inceptionv1.safetensors").exists()


def test_values_rounded_to_the_published_16_bit_grid_still_pass(tensors: dict[str, Tensor]) -> None:
    steps = {name: step for name, (_, _, _, step) in inception5h.tensor_ranges().items()}
    inception5h.check({n: t + 2 * steps[n] if n in steps else t for n, t in tensors.items()})


@pytest.mark.parametrize("container", ["pth", "pb", "safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_one_clear_line(
    container: str, kept: float, files: dict[str, Path], tmp_path: Path, empty_home: Path
) -> None:
    content = files[container].read_bytes()
    path = tmp_path / f"cut.{container}"
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(WeightsError, match=re.escape(str(path))) as error:
        build("inceptionv1", weights=path)
    assert "\n" not in str(error.value)


def test_a_missing_tensor_and_a_wrong_shape_are_named(
    tensors: dict[str, Tensor], tmp_path: Path, empty_home: Path
) -> None:
    short = {name: t for name, t in tensors.items() if name != "mixed5b_1x1_pre.bias"}
    with pytest.raises(WeightsError, match=r"1 tensors missing \(mixed5b_1x1_pre.bias\)"):
        build("inceptionv1", weights=synthetic5h.write(tmp_path, "pth", short))
    bent = dict(tensors) | {"softmax_pre.weight": torch.zeros(1000, 1024)}
    with pytest.raises(WeightsError, match=r"softmax_pre.weight is \(1000, 1024\), not \(1008, 1024\)"):
        build("inceptionv1", weights=synthetic5h.write(tmp_path, "pb", bent))


def test_the_published_file_name_must_hold_the_published_bytes(
    files: dict[str, Path], tmp_path: Path, empty_home: Path
) -> None:
    path = tmp_path / "inception5h.pth"
    path.write_bytes(files["pth"].read_bytes())
    with pytest.raises(WeightsError, match="git blob id is [0-9a-f]{40}, published is 119f77db85c8352960933e"):
        build("inceptionv1", weights=path)
    card = published(get_card("inceptionv1"), git_blob=loading.git_blob_id(path))
    assert build(card, weights=path).digest


def test_git_blob_id_is_gits(tmp_path: Path) -> None:
    # git hash-object of these files, by git itself.
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert loading.git_blob_id(tmp_path / "empty") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert loading.git_blob_id(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_it_is_downloaded_verified_and_converted_on_first_use(
    files: dict[str, Path], tensors: dict[str, Tensor], server: Server, empty_home: Path
) -> None:
    url = server.serve("inception5h.pth", files["pth"].read_bytes())
    card = published(get_card("inceptionv1"), url=url, git_blob=loading.git_blob_id(files["pth"]))
    loaded = build(card)
    assert loaded.digest == loading.digest(tensors)
    assert "downloaded from" in loaded.source
    assert build(card).digest == loaded.digest
    assert len(server.requests) == 1


@pytest.mark.parametrize("failure", ["truncated", "wrong digest", "404", "refused"])
def test_a_failed_download_says_what_went_wrong_and_what_to_do(
    failure: str, files: dict[str, Path], server: Server, empty_home: Path
) -> None:
    way = "truncated" if failure == "truncated" else "whole"
    url = server.serve("inception5h.pth", files["pth"].read_bytes(), way)
    card = published(get_card("inceptionv1"), url=url, git_blob=loading.git_blob_id(files["pth"]))
    reason = {
        "truncated": "broke off",
        "wrong digest": "not the expected file",
        "404": "answered 404",
        "refused": "cannot reach",
    }[failure]
    if failure == "wrong digest":
        card = published(card, git_blob="0" * 40)
    elif failure == "404":
        card = published(card, url=f"{server.address}/elsewhere.pth")
    elif failure == "refused":
        card = published(card, url="http://127.0.0.1:1/inception5h.pth")
    with pytest.raises(WeightsError, match=reason) as error:
        build(card)
    text = str(error.value)
    assert "inception5h.pth" in text and str(empty_home / "weights") in text and "--weights FILE" in text
    assert "\n" not in text
    assert not list((empty_home / "weights").glob("*.pth"))


def test_offline_the_error_names_file_folder_and_command(empty_home: Path) -> None:
    with pytest.raises(WeightsError) as error:
        build("inceptionv1", download=False)
    text = str(error.value)
    assert "inception5h.pth" in text and str(empty_home / "weights") in text and "--weights FILE" in text


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00", b"\xff" * 40, b"not a graph at all", b"\x0a\x05abc", b"\x0a" + b"\xff" * 9 + b"\x01", b"\x0b\x0c"],
)
def test_hostile_graphs_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="GraphDef"):
        graphdef.constants(path)


def test_graph_constants_of_each_encoding_and_no_other_type(tmp_path: Path) -> None:
    values = {"a_w": torch.rand(2, 3), "b": torch.rand(5), "mixed3": torch.rand(4), "scalar": torch.tensor(2.5)}
    path = tmp_path / "graph.pb"
    path.write_bytes(synthetic5h.graph(values))
    read = graphdef.constants(path)
    assert all(torch.equal(read[name], value) for name, value in values.items())
    assert torch.equal(read["nn0_b"], torch.full((1024,), 0.5))
    assert "avgpool0/reshape/shape" not in read


def test_a_shape_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    huge = b"".join(synthetic5h.message(2, synthetic5h.number_field(1, 1 << 20)) for _ in range(3))
    proto = synthetic5h.number_field(1, 1) + synthetic5h.message(2, huge) + synthetic5h.message(5, b"\0\0\0\0")
    path = tmp_path / "graph.pb"
    path.write_bytes(synthetic5h.node("x", "Const", proto))
    with pytest.raises(WeightsError, match="GraphDef"):
        graphdef.constants(path)


def test_its_classes_are_those_of_imagenet_in_another_order() -> None:
    names = inception5h.classes()
    assert len(names) == 1008
    assert sorted(names[1:1001]) == sorted(imagenet_classes())
    assert names[274] == "sports car" and names[1] == "kit fox"
