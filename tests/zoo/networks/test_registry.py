"""A model is built from its own weights or from a seed, ready to be looked into, or the error says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import circuits
from zoo.cards import CARDS, Card, WeightsFile, register
from zoo.errors import CircuitsError, ModelError, WeightsError
from zoo.images.classes import imagenet_classes
from zoo.inputs import InputSpec
from zoo.registry import build, cards, get_card, status
from zoo.weights import loading

RANDOM = list(cards())
ROOT = Path(__file__).parents[3]


def tiny_card(**weights_file: object) -> Card:
    """A model of one layer, with weights as given."""
    return Card(
        name="tiny",
        title="Tiny",
        summary="",
        input=InputSpec(size=4),
        build=lambda: nn.Sequential(nn.Conv2d(3, 2, 1)),
        weights=WeightsFile(**weights_file) if weights_file else None,  # type: ignore[arg-type]
        source="a place",
    )


def tiny_state(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"0.weight": torch.full((2, 3, 1, 1), value), "0.bias": torch.zeros(2)}


def scores(module: nn.Module, layer: str, pictures: torch.Tensor) -> torch.Tensor:
    """What the layer gives; by running the module up to it."""
    kept: list[torch.Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out.clone()))
    try:
        with torch.inference_mode():
            module(pictures)
    finally:
        handle.remove()
    return kept[0].flatten(1)


def test_cards_come_in_order_scenes_first() -> None:
    assert list(cards()) == ["scenes", "inceptionv1", "googlenet-bvlc", "squeezenet-1.1", "scenes-vit", "scenes-labels"]
    assert all(name == card.name for name, card in cards().items())


@pytest.fixture
def registered() -> Iterator[Card]:
    """A card of one's own, forgotten afterwards."""
    card = register(replace(tiny_card(), name="My_Net"))
    yield card
    CARDS.remove("my-net")


def test_a_registered_card_is_loaded_by_its_name_and_listed_last(registered: Card) -> None:
    assert get_card("my-net") is get_card("My_Net") is registered
    assert list(cards())[-1] == "My_Net"
    assert circuits.load("MY-net", weights="random").card.title == "Tiny"


def test_a_card_does_not_take_the_name_of_another_unless_told_to(registered: Card) -> None:
    assert register(registered) is registered
    other = replace(registered, name="my-net")
    with pytest.raises(ModelError, match="there is a model 'my-net' already"):
        register(other)
    assert register(other, replace=True) is get_card("my_net") is other
    with pytest.raises(ModelError, match="'scenes' already"):
        register(replace(registered, name="scenes"))


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "a@b", "a~b", "a  b", "a b ", "a(b)", "a\n"])
def test_a_card_whose_name_no_address_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be called"):
        register(replace(tiny_card(), name=name))


def test_a_card_in_a_file_of_its_own_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import zoo.networks, zoo.registry; zoo.networks.__path__.append('.');"
        "assert zoo.registry.cards()['tiny'].title == 'Tiny', zoo.registry.cards()"
    )
    (tmp_path / "tiny.py").write_text(
        "from torch import nn\nfrom zoo.cards import Card, register\nfrom zoo.inputs import InputSpec\n"
        "register(Card('tiny', 'Tiny', 'One layer.', InputSpec(size=8), build=lambda: nn.Conv2d(3, 2, 1)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name", [*RANDOM, "torchvision/resnet18", "torchvision/googlenet", "torchvision/squeezenet1_1"]
)
def test_a_random_net_is_ready_and_its_logits_layer_gives_a_score_per_class(name: str) -> None:
    loaded = build(name, weights="random")
    assert not loaded.module.training
    assert not any(p.requires_grad for p in loaded.module.parameters())
    card = loaded.card
    pictures = card.input.normalize(torch.rand(2, *card.input.shape))
    logits = scores(loaded.module, card.logits, pictures)
    assert logits.shape == (2, len(card.classes()))
    assert "random" in loaded.source
    assert all(layer in dict(loaded.module.named_modules()) for layer, _, _ in card.branches.values())


@pytest.mark.parametrize("name", ["googlenet-bvlc", "squeezenet-1.1", "inceptionv1"])
def test_a_random_net_answers_differently_to_different_pictures(name: str) -> None:
    loaded = build(name, weights="random")
    logits = scores(loaded.module, loaded.card.logits, loaded.card.input.normalize(torch.rand(2, 3, 224, 224)))
    assert logits.isfinite().all() and logits.std() > 0.1
    assert not torch.allclose(logits[0], logits[1])


def test_the_seed_decides_and_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (build("squeezenet-1.1", "random", seed=s).digest for s in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.rand(3), expected)


def test_every_alias_names_a_layer_or_a_branch() -> None:
    for name in ("inceptionv1", "googlenet-bvlc", "squeezenet-1.1"):
        loaded = build(name, weights="random")
        layers = {n for n, _ in loaded.module.named_modules()} | set(loaded.card.branches)
        assert set(loaded.card.aliases.values()) <= layers


def test_no_relu_of_our_networks_works_in_place() -> None:
    for name in RANDOM:
        module = build(name, weights="random").module
        assert not any(m.inplace for m in module.modules() if isinstance(m, nn.ReLU))


def test_squeezenet_has_the_sizes_of_the_published_network() -> None:
    module = build("squeezenet-1.1", "random").module
    sizes = {
        layer: scores(module, layer, torch.zeros(1, 3, 224, 224)).shape[1]
        for layer in ("conv1", "conv1_maxpool", "fire3_maxpool", "fire5_maxpool", "fire9", "conv10")
    }
    assert sizes == {
        "conv1": 64 * 111 * 111,
        "conv1_maxpool": 64 * 55 * 55,
        "fire3_maxpool": 128 * 27 * 27,
        "fire5_maxpool": 256 * 13 * 13,
        "fire9": 512 * 13 * 13,
        "conv10": 1000 * 13 * 13,
    }


def test_squeezenet_branches_are_the_channels_of_the_expansions() -> None:
    module = build("squeezenet-1.1", "random").module
    pictures = torch.rand(1, 3, 64, 64)
    whole = scores(module, "fire4", pictures).view(256, -1)
    branches = build("squeezenet-1.1", "random").card.branches
    for part in ("expand1x1", "expand3x3"):
        layer, start, stop = branches[f"fire4_{part}"]
        assert layer == "fire4"
        alone = scores(module, f"fire4_{part}_pre", pictures).view(stop - start, -1).relu()
        assert torch.equal(whole[start:stop], alone)


@pytest.mark.parametrize("asked", ["googlenet_bvlc", "GoogLeNet-BVLC", " squeezenet-1.1 "])
def test_case_and_underscores_are_forgiven(asked: str) -> None:
    assert get_card(asked).name in ("googlenet-bvlc", "squeezenet-1.1")


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("inception-v1", "inceptionv1"),
        ("googlenet", "googlenet-bvlc"),
        ("resnet18", "resnet18"),
        ("torchvision/resnet19", "resnet18"),
    ],
)
def test_an_unknown_model_is_an_error_with_the_nearest_names(asked: str, near: str) -> None:
    with pytest.raises(ModelError, match=f"Nearest: .*{near}"):
        get_card(asked)


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=60) | st.sampled_from(["x" * 40_000, "\0", "../../etc/passwd", "torchvision/", "timm/\0"]))
def test_a_hostile_name_is_a_short_error(name: str) -> None:
    try:
        get_card(name)
    except CircuitsError as error:
        assert len(str(error)) < 400 and "\n" not in str(error)


def test_weights_are_looked_for_in_the_stated_order(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tiny_card(filename="tiny.safetensors")
    assert not status(card).available and "put tiny.safetensors into" in status(card).how
    cache = empty_home / "weights"
    folder = tmp_path / "folder"
    for value, place in ((1.0, cache), (2.0, folder), (3.0, tmp_path)):
        place.mkdir(parents=True, exist_ok=True)
        save_file(tiny_state(value), place / "tiny.safetensors")

    def value(given: Path | None = None) -> float:
        return float(build(card, weights=given).module.state_dict()["0.weight"].mean())

    assert value() == 1.0 and status(card).path == cache / "tiny.safetensors"
    monkeypatch.setenv("CIRCUITS_WEIGHTS", str(folder))
    assert value() == 2.0 and status(card).how == "$CIRCUITS_WEIGHTS"
    assert value(tmp_path / "tiny.safetensors") == 3.0


def test_missing_weights_are_never_a_silent_random_net(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError) as error:
        build("googlenet-bvlc")
    text = str(error.value)
    assert "bvlc_googlenet.safetensors" in text and str(empty_home / "weights") in text and "--weights FILE" in text
    monkeypatch.setenv("CIRCUITS_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match=r"nowhere \(\$CIRCUITS_WEIGHTS\), which does not exist"):
        build("googlenet-bvlc")
    with pytest.raises(WeightsError, match="no published weights"):
        build(tiny_card())


def test_the_published_name_must_hold_the_published_digest(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    save_file(tiny_state(), path)
    good = tiny_card(filename="tiny.safetensors", sha256=loading.sha256(path))
    assert build(good, weights=path).digest == loading.digest(tiny_state())
    # torchvision publishes the first eight digits only.
    assert build(tiny_card(filename="tiny.safetensors", sha256=loading.sha256(path)[:8]), weights=path)
    with pytest.raises(WeightsError, match="not the published tiny.safetensors: its SHA-256 is"):
        build(tiny_card(filename="tiny.safetensors", sha256="0" * 64), weights=path)
    # A file of one's own, under another name, is checked by its shapes.
    mine = path.rename(tmp_path / "mine.safetensors")
    assert build(tiny_card(filename="tiny.safetensors", sha256="0" * 64), weights=mine)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_each_container_is_read_and_a_wrapped_state_unwrapped(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine{suffix}"
    if suffix == ".safetensors":
        save_file(tiny_state(), path)
    else:
        torch.save({"state_dict": tiny_state(), "epoch": 3}, path)
    assert build(tiny_card(), weights=path).digest == loading.digest(tiny_state())


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (Path.touch, (str(Path("evil-was-here")),))


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="only tensors are loaded"):
        build(tiny_card(), weights=tmp_path / "evil.pth")
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"PK\x03\x04 broken", b"\xff" * 100, b"{}"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pb", ".npz", ""])
def test_a_damaged_file_is_one_clear_line(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as error:
        build(tiny_card(), weights=path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    for state, message in (
        ({"0.weight": torch.ones(2, 3, 1, 1)}, r"1 tensors missing \(0.bias\)"),
        (tiny_state() | {"1.weight": torch.ones(1)}, r"1 unknown \(1.weight\)"),
        (tiny_state() | {"0.bias": torch.ones(3)}, r"0.bias is \(3,\), not \(2,\)"),
        (tiny_state() | {"0.bias": torch.tensor([1.0, float("nan")])}, "not finite"),
    ):
        save_file(state, path)
        with pytest.raises(WeightsError, match=message):
            build(tiny_card(), weights=path)


@pytest.mark.parametrize("given_path", ["nowhere.pth", "\0", "x" * 5000])
def test_a_weights_path_that_is_not_there_is_a_short_error(given_path: str) -> None:
    with pytest.raises(WeightsError, match="no weights file at") as error:
        build("squeezenet-1.1", weights=given_path)
    assert len(str(error.value)) < 400


def test_the_digest_sees_name_type_shape_and_bytes() -> None:
    state = {"a": torch.arange(6.0), "b": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(3)}
    first = loading.digest(state)
    assert first == loading.digest(dict(reversed(state.items())))
    changed = [
        {**state, "a": torch.arange(6.0).view(2, 3)},
        {**state, "a": torch.arange(6.0).double()},
        {**state, "n": torch.tensor(4)},
        {("c" if k == "b" else k): v for k, v in state.items()},
    ]
    assert len({first, *(loading.digest(s) for s in changed)}) == 5


def test_torchvision_weights_in_the_hub_cache_are_used_and_their_digest_checked(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    card = get_card("torchvision/squeezenet1_1")
    assert card.weights is not None and card.weights.filename == "squeezenet1_1-b8a52dc0.pth"
    assert card.weights.sha256 == "b8a52dc0"
    path = checkpoints / card.weights.filename
    state = build(card, "random", seed=7).module.state_dict()
    torch.save(state, path)
    with pytest.raises(WeightsError, match="published is b8a52dc0"):
        build(card, download=False)
    card = replace(card, weights=replace(card.weights, sha256=loading.sha256(path)[:8]))
    loaded = build(card, download=False)
    assert loaded.digest == loading.digest(state) and str(checkpoints) in loaded.source
    path.unlink()
    with pytest.raises(WeightsError, match="squeezenet1_1-b8a52dc0.pth"):
        build(card, download=False)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvisions_own_input_transform_equals_our_input_spec(name: str) -> None:
    import torchvision.models as models

    card = get_card(f"torchvision/{name}")
    pictures = torch.rand(1, *card.input.shape)
    reference = models.get_model(name, weights=None, aux_logits=False, transform_input=True, init_weights=False)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    theirs = reference._transform_input((pictures - mean[:, None, None]) / std[:, None, None])
    assert torch.allclose(card.input.normalize(pictures), theirs, atol=1e-6)


def test_torchvisions_published_weights_may_carry_auxiliary_heads(tmp_path: Path) -> None:
    state = build("torchvision/googlenet", "random").module.state_dict()
    path = tmp_path / "mine.pth"
    torch.save({**state, "aux1.fc1.weight": torch.ones(2), "aux2.fc1.weight": torch.ones(2)}, path)
    assert build("torchvision/googlenet", weights=path).digest == loading.digest(state)


def test_every_torchvision_classifier_has_a_card() -> None:
    from zoo.networks import torchvision

    names = torchvision.classifiers()
    assert {"alexnet", "densenet121", "mobilenet_v2", "resnet18", "vgg11", "vit_b_16"} <= set(names)
    for name in ("alexnet", "densenet121", "mobilenet_v2", "vgg11", "vit_b_16", "efficientnet_b0", "swin_t"):
        card = get_card(f"torchvision/{name}")
        assert card.weights is not None and card.weights.url
        assert len(card.classes()) == 1000


def test_timm_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match="pip install timm"):
        get_card("timm/resnet18")


def test_timm_models_load_where_timm_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    loaded = build("timm/resnet18", "random")
    pictures = loaded.card.input.normalize(torch.rand(1, *loaded.card.input.shape))
    assert scores(loaded.module, loaded.card.logits, pictures).shape == (1, 1000)
    torch.save(loaded.module.state_dict(), tmp_path / "mine.pth")
    assert build("timm/resnet18", weights=tmp_path / "mine.pth").digest == loaded.digest
    with pytest.raises(WeightsError, match="--weights|weights=FILE"):
        build("timm/resnet18", download=False)
    with pytest.raises(ModelError, match="Nearest"):
        get_card("timm/resnet19")


def test_the_published_files_have_the_published_digests_and_load(
    weights_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUITS_WEIGHTS", str(weights_dir))
    for card in (get_card("googlenet-bvlc"), get_card("squeezenet-1.1")):
        assert card.weights is not None
        path = weights_dir / card.weights.filename
        if not path.is_file():
            pytest.skip(f"{path.name} is not in $CIRCUITS_WEIGHTS")
        loaded = build(card)
        assert str(path) in loaded.source
        # Nothing is lost or doubled by the renaming.
        raw = load_file(path)
        own = loaded.module.state_dict()
        assert len(raw) == len(own) and sum(t.numel() for t in raw.values()) == sum(t.numel() for t in own.values())


def test_class_names_are_the_thousand_in_the_order_of_their_ids(data_dir: Path) -> None:
    path = data_dir / "imagenet_classes.txt"
    if not path.is_file():
        pytest.skip("imagenet_classes.txt is not in $CIRCUITS_DATA")
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert [row[2].replace("_", " ") for row in rows] == imagenet_classes()
