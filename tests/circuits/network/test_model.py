"""Names of layers and units: what resolves, what is refused, and what is said then."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits import Unit
from circuits.errors import AddressError, ModelError
from tests import nets


@pytest.mark.parametrize("name", ["mixed3b_5x5", "Mixed3B.5x5", "MIXED3B-5X5", "mixed3b.5x5"])
def test_dots_underscores_and_case_do_not_matter(inception: circuits.Model, name: str) -> None:
    assert inception.layer(name).name == "mixed3b_5x5"


def test_a_unique_ending_names_a_layer() -> None:
    model = nets.wrap(nets.sequential(nets.Residual(3), nn.Conv2d(3, 5, 1)), 8)
    assert model.layer("bn1").name == "0.bn1"
    with pytest.raises(AddressError, match="no layer 'bn'"):
        model.layer("bn")


def test_an_ambiguous_ending_lists_the_candidates() -> None:
    model = nets.wrap(nets.sequential(nets.Residual(3), nets.Residual(3)), 8)
    with pytest.raises(AddressError, match="could be 0.bn1, 1.bn1"):
        model.layer("bn1")


def test_a_branch_unit_is_the_same_unit_of_the_whole(inception: circuits.Model) -> None:
    assert inception.resolve("mixed3b_5x5:1").short == "mixed3b:7"
    assert inception.resolve("mixed3b_pool_proj:0@2,1").short == "mixed3b:10@2,1"
    assert inception.branch_of(inception.unit("mixed3b:7")) == "mixed3b_5x5"
    assert [inception.branch_of(Unit("mixed3b", i)) for i in (0, 2, 6, 10)] == [
        "mixed3b_1x1", "mixed3b_3x3", "mixed3b_5x5", "mixed3b_pool_proj",
    ]  # fmt: skip
    assert inception.branch_of(Unit("mixed3b")) is None


def test_aliases_of_the_card_and_logits_resolve() -> None:
    model = circuits.load("inceptionv1", weights="random")
    assert model.layer("logits").name == "softmax_pre"
    assert str(model.resolve("logits:3")) == "inceptionv1/softmax_pre:3"
    assert nets.planted().resolve("logits:1").short == "logits:1"
    assert (
        nets.wrap(nets.sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(256, 7)), 8).layer("logits").name == "2"
    )


def test_resolving_puts_the_models_name_in_and_refuses_others(planted: circuits.Model) -> None:
    assert str(planted.resolve("parts:3@1,2")) == "planted/parts:3@1,2"
    assert planted.resolve("planted/parts:3") == planted.resolve(Unit("parts", 3))
    with pytest.raises(AddressError, match="a unit of other, not of planted"):
        planted.resolve("other/parts:3")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("parts:24", "has 24 channels .0 to 23.; got 24"),
        ("parts:3@32,0", "is 32x32 positions; got 32,0"),
        ("logits:0@0,1", "is 1x1 positions"),
        ("prts:3", "no layer 'prts'. Nearest: parts"),
        ("parts~topk:3", "has no basis 'topk'; attached: none"),
    ],
)
def test_an_address_out_of_range_says_what_there_is(planted: circuits.Model, address: str, message: str) -> None:
    with pytest.raises(AddressError, match=message):
        planted.resolve(address)


def test_a_layer_is_no_unit(planted: circuits.Model) -> None:
    with pytest.raises(AddressError, match="is a layer; name one of its units, for example parts:0"):
        planted.unit("parts")


@pytest.mark.parametrize("bad", ["", "\0", "x" * 40_000, "../" * 9, "😀", "parts\n", None, 3, 1.5, b"parts", ["parts"]])
def test_hostile_names_give_a_short_error(planted: circuits.Model, bad: object) -> None:
    for ask in (planted.resolve, planted.unit, planted.layer):
        with pytest.raises(AddressError) as caught:
            ask(bad)  # type: ignore[operator]
        assert len(str(caught.value)) < 250 and str(caught.value).isprintable()


def test_every_layer_is_found_by_its_own_name(inception: circuits.Model) -> None:
    for name in inception.layers:
        assert inception.layer(name).name == name
        assert inception.resolve(name).layer == name


def test_layers_have_the_channels_and_sizes_of_what_they_hold(inception: circuits.Model) -> None:
    acts = circuits.capture(inception, nets.pictures(1, 64), list(inception.layers))
    for name, layer in inception.layers.items():
        assert tuple(acts[name].shape) == (1, layer.channels, *(layer.size or (1, 1)))


def test_layers_come_in_the_order_in_which_they_run(inception: circuits.Model) -> None:
    names = nets.every_layer(inception)
    wanted = [
        "conv2d0_pre",
        "conv2d0",
        "conv2d0_maxpool",
        "lrn0",
        "conv2d1",
        "mixed3a_5x5_pre",
        "mixed3a_pre",
        "mixed3a",
    ]
    assert [n for n in names if n in wanted] == wanted


def test_the_layer_before_is_the_one_whose_weights_are_read(inception: circuits.Model, planted: circuits.Model) -> None:
    assert inception.before("mixed3b") == "mixed3a" and inception.before("mixed3b_5x5") == "mixed3a"
    assert inception.before("softmax_pre") == "mixed4a" and inception.before("conv2d0") is None
    assert planted.before("objects") == "parts" and planted.before("objects_pre") == "parts"


def test_functions_called_in_forward_are_layers_too() -> None:
    model = nets.wrap(nets.Functional())
    assert {"relu", "relu_", "relu_1", "max_pool2d"} <= set(model.layers)
    assert [model.layers[n].kind for n in ("relu", "max_pool2d")] == ["relu", "maxpool"]
    assert len(model.trunk) == 4 and model.trunk[-1] == "fc"


def test_a_module_that_runs_twice_has_one_layer_per_call() -> None:
    model = nets.wrap(nets.Twice())
    assert {"relu.call0", "relu.call1", "again.call0", "again.call1"} <= set(
        model.layers
    ) and "relu" not in model.layers
    with pytest.raises(AddressError, match="runs 2 times; name one of relu.call0, relu.call1"):
        model.layer("relu")


def test_wrapping_takes_what_runs_on_one_picture_and_says_why_not() -> None:
    with pytest.raises(ModelError, match="training mode"):
        circuits.wrap(nn.Sequential(nn.Conv2d(3, 4, 1)))
    with pytest.raises(ModelError, match="TwoInputs cannot take one image of shape"):
        nets.wrap(nets.TwoInputs(), 8)
    with pytest.raises(ModelError, match="one tensor input"):
        nets.wrap(nn.Conv2d(1, 4, 1), 8)
    with pytest.raises(ModelError, match="takes a torch.nn.Module, got function"):
        circuits.wrap(lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(AddressError, match="bad model name"):
        circuits.wrap(nn.Conv2d(3, 4, 1).eval(), circuits.InputSpec(size=8), name="a  b")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"input": torch.zeros(1, 3, 8, 8)}, "input says how the network is fed, as .*; got Tensor"),
        ({"input": (3, 8, 8)}, "got tuple"),
        ({"classes": "abcd"}, "list of names.*got str"),
        ({"classes": {0: "a", 1: "b", 2: "c", 3: "d"}}, "list of names.*got dict"),
        ({"classes": [1, 2, 3, 4]}, "each name of a class is a text, got 1"),
        ({"axes": "n h w c"}, "axes is a dictionary"),
    ],
)
def test_options_of_another_kind_are_refused_in_words(options: dict[str, object], reason: str) -> None:
    network = nn.Conv2d(3, 4, 1).eval()
    with pytest.raises(ModelError, match=reason):
        circuits.wrap(network, **{"input": circuits.InputSpec(size=8), **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", ["64", 64.5, True, 0, (8, "8"), (), (1, 2, 3, 4), 10**9, (2**17, 2**17)])
def test_a_size_is_whole_numbers_that_fit_into_memory(size: object) -> None:
    with pytest.raises(ModelError, match="input"):
        circuits.InputSpec(size=size)  # type: ignore[arg-type]


def test_a_network_with_two_outputs_is_looked_into_like_any_other() -> None:
    model = nets.wrap(nets.TwoOutputs(), 8)
    images = nets.pictures(2, 8)
    first, second = model(images)
    acts = circuits.capture(model, images, ["conv", "relu"])
    torch.testing.assert_close(acts["conv"], first)
    torch.testing.assert_close(acts["relu"], second)
    with circuits.edit(model, [circuits.Ablate("conv:0")]), torch.no_grad():
        edited, _ = model(images)
    assert float(edited[:, 0].abs().max()) == 0


@pytest.mark.parametrize(("channels", "size"), [(1, 9), (4, (7, 12)), (12, 5)])
def test_any_number_of_channels_and_any_size_can_be_wrapped(channels: int, size: int | tuple[int, int]) -> None:
    model = nets.wrap(nets.sequential(nn.Conv2d(channels, 5, 3), nn.ReLU()), size, channels)
    acts = circuits.capture(model, nets.pictures(2, size, channels), "1")["1"]
    assert acts.shape == (2, 5, *(model.layers["1"].size or (0, 0)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_pictures_are_fed_in_the_precision_of_the_weights(dtype: torch.dtype) -> None:
    model = nets.wrap(nets.sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).to(dtype), 8)
    images = nets.pictures(4, 8)
    assert model.dtype == dtype
    assert circuits.capture(model, images, "2")["2"].dtype == dtype
    assert circuits.expanded_weights(model, source="1", target="2").kernels.dtype == dtype
    with torch.no_grad():
        module = model.module
        module[2].weight[0].abs_()
        module[2].bias[0] = 1
    assert len(circuits.trace(model, "2:0", images=images).edges) > 0


def test_a_basis_must_fit_its_layer(planted: circuits.Model) -> None:
    with pytest.raises(ModelError, match="over 5 channels does not fit parts .24."):
        planted.attach("parts", "wrong", nets.LinearBasis(torch.zeros(2, 5)))


def test_latents_of_an_attached_basis_are_units() -> None:
    model = nets.planted()
    model.attach("parts", "mix", nets.LinearBasis(torch.eye(nets.PARTS)[:7]))
    assert str(model.unit("parts~mix:6@1,2")) == "planted/parts~mix:6@1,2"
    with pytest.raises(AddressError, match="has 7 latents .0 to 6.; got 7"):
        model.unit("parts~mix:7")


def test_the_output_of_a_model_is_that_of_its_module_on_normalized_pictures() -> None:
    module = nets.sequential(nn.Conv2d(3, 4, 3))
    spec = circuits.InputSpec(size=8, mean=(1.0, 2.0, 3.0), std=(2.0,), scale=255.0, order="BGR")
    images = nets.pictures(2, 8)
    x: Tensor = (images.flip(1) * 255 - torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1)) / 2
    torch.testing.assert_close(circuits.wrap(module, spec)(images), module(x))


@pytest.mark.parametrize("attribute", ["list", "method", "dictionary", "module dictionary"])
def test_a_network_may_call_anything_its_branches(attribute: str) -> None:
    """The zoo's networks name their branches in an attribute, `branches`; a stranger's may be what it likes."""
    network = nets.sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    parts: dict[str, Any] = {
        "list": nn.ModuleList([nn.Conv2d(3, 4, 3)]),
        "method": network.forward,
        "dictionary": {"a": 3, "b": ("0", 1), "c": [0, 1, 2]},
        "module dictionary": nn.ModuleDict({"a": nn.Conv2d(3, 4, 3)}),
    }
    network.branches = parts[attribute]
    if isinstance(network, nn.Sequential):
        network.forward = lambda x: network[1](network[0](x))  # type: ignore[method-assign]
    assert "1" in nets.wrap(network, 8).layers


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(2, dilation=2), nn.MaxPool2d(5, 3)]
)
def test_a_max_pool_of_the_graph_gives_the_bits_and_the_layout_of_the_module(pool: nn.Module) -> None:
    module = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), pool, nn.Conv2d(12, 4, 1))
    model, images = nets.wrap(module, 17), nets.pictures(3, 17)
    graph = model.graph
    assert graph is not None
    acts = module[:2](model.input.normalize(images)).detach()
    acts[0, 5] = acts[1, 2, 4, 4] = float("nan")
    acts[2, 7] = float("-inf")
    with torch.no_grad():
        out = graph.run({model.node("1"): acts}, [model.node("2")])[model.node("2")]
    assert out.is_contiguous()
    torch.testing.assert_close(out, pool(acts), rtol=0, atol=0, equal_nan=True)
