"""Receptive fields are where the gradient of one position reaches, in the net whose weights are all positive."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.network.graph import ReceptiveField
from tests import nets

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "like VGG": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, padding=1),
        ),
        40,
    ),
    "like inception": (lambda: nn.Sequential(nn.Conv2d(3, 4, 5, 2, 2), nn.ReLU(), nets.Branches(4)), 40),
    "like ResNet": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nets.Residual(4), nets.Residual(4)), 40),
    "dilated": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3, dilation=2), nn.Conv2d(2, 2, 3, padding=3, dilation=3)), 40),
    "uneven padding": (
        lambda: nn.Sequential(nn.ZeroPad2d((2, 3, 0, 1)), nn.Conv2d(3, 2, 7, 2), nn.Conv2d(2, 2, 3)),
        40,
    ),
    "padding same": (lambda: nn.Sequential(nn.Conv2d(3, 2, 4, padding="same"), nn.Conv2d(2, 2, 3, 2)), 30),
    "pools": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 2, 3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, 2, 1),
            nn.Conv2d(2, 2, 3, padding=1),
        ),
        61,
    ),
    "axes apart": (lambda: nn.Sequential(nn.Conv2d(3, 2, (1, 7), padding=(0, 3)), nn.Conv2d(2, 2, (5, 3), (1, 2))), 32),
    "adaptive pool": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.AdaptiveAvgPool2d(8)), 32),
    "tiny InceptionV1": (nets.tiny_inception, 64),
}  # fmt: skip


def positive(module: nn.Module) -> nn.Module:
    """A linearized copy in which no two paths can cancel."""
    copied = nets.linearize(copy.deepcopy(module)).double()
    with torch.no_grad():
        for p in copied.parameters():
            p.copy_(p.abs() + 0.1)
    return copied


def outputs(module: nn.Module, images: Tensor, names: list[str]) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda _module, _inputs, out: seen.__setitem__(name, out)

    for name in names:
        module.get_submodule(name).register_forward_hook(keep(name))
    module(images)
    return seen


def is_empty(box: tuple[int, int, int, int]) -> bool:
    return box[2] <= box[0] or box[3] <= box[1]


def reach(out: Tensor, y: int, x: int, images: Tensor) -> tuple[int, int, int, int]:
    (gradient,) = torch.autograd.grad(out[0, :, y, x].sum(), images, retain_graph=True)
    used = gradient[0].abs().sum(dim=0)
    rows, columns = used.sum(dim=1).nonzero().flatten(), used.sum(dim=0).nonzero().flatten()
    if len(rows) == 0:
        return (0, 0, 0, 0)
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


@pytest.mark.parametrize("name", list(NETS))
def test_receptive_fields_equal_the_gradients_support(name: str) -> None:
    make, size = NETS[name]
    model = nets.wrap(nets.randomized(make()), size)
    layers = {n: layer for n, layer in model.layers.items() if layer.path == n and layer.receptive_field is not None}
    assert len(layers) >= 2
    images = nets.pictures(1, size).double().requires_grad_(True)
    seen = outputs(positive(model.module), images, list(layers))
    for layer_name, layer in layers.items():
        field, (h, w) = layer.receptive_field, layer.size or (0, 0)
        assert field is not None and layer.stride == field.stride[0]
        for y, x in {(h // 2, w // 2), (0, 0), (h // 2, 0), (h - 2, w - 2)}:
            box, reached = field.box(y, x, within=(size, size)), reach(seen[layer_name], y, x, images)
            if is_empty(box):
                assert is_empty(reached)
            elif name == "dilated" and box != field.box(y, x):  # the edge of the picture may fall into a hole
                assert box[0] <= reached[0] < reached[2] <= box[2] and box[1] <= reached[1] < reached[3] <= box[3]
            else:
                assert box == reached, f"{layer_name} @{y},{x}"


@pytest.mark.parametrize("layer", ["mixed3a", "mixed4a"])
def test_a_unit_of_a_branch_has_the_field_of_its_branch(inception: circuits.Model, layer: str) -> None:
    size = inception.input.hw[0]
    images = nets.pictures(1, size).double().requires_grad_(True)
    acts = outputs(positive(inception.module), images, [layer])[layer]
    y, x = acts.shape[2] // 2, acts.shape[3] // 2
    sizes = set()
    for index in range(acts.shape[1]):
        field = inception.receptive_field(inception.unit(f"{layer}:{index}"))
        assert field is not None
        assert field.box(y, x, within=(size, size)) == reach(acts[:, index : index + 1], y, x, images)
        sizes.add(field.size)
    assert len(sizes) == 3  # 1x1, 3x3 and pool, 5x5


def test_a_layer_behind_the_global_pool_sees_the_whole_picture(inception: circuits.Model) -> None:
    for name in ("avgpool", "softmax_pre", "softmax"):
        assert inception.layers[name].receptive_field is None and inception.layers[name].stride is None


def test_the_trunk_of_inception_is_its_stem_and_blocks(inception: circuits.Model) -> None:
    expected = ["conv2d0", "conv2d1", "conv2d2", "mixed3a", "mixed3b", "mixed4a", "softmax_pre"]
    assert inception.trunk == expected
    assert all(inception.layers[n].receptive_field is not None for n in expected[:-1])


def test_the_published_geometry_of_inceptionv1() -> None:
    model = circuits.load("inceptionv1", weights="random")
    fields = {
        name: model.layers[name].receptive_field for name in ("conv2d0", "conv2d2", "mixed3a", "mixed4c", "mixed5b")
    }
    # by hand: 7; +4 for the pool, +8 for the 3x3; +8 and +32 for pool and 5x5 at stride 8; and so on
    sizes = {name: field.size[0] for name, field in fields.items() if field is not None}
    assert sizes == {"conv2d0": 7, "conv2d2": 19, "mixed3a": 59, "mixed4c": 299, "mixed5b": 715}
    maps = {name: model.layers[name].size for name in ("conv2d0", "conv2d2", "mixed3a", "mixed4c", "mixed5b")}
    assert maps == {
        "conv2d0": (112, 112),
        "conv2d2": (56, 56),
        "mixed3a": (28, 28),
        "mixed4c": (14, 14),
        "mixed5b": (7, 7),
    }
    assert model.layers["mixed4c"].stride == 16


def test_boxes_are_clipped_to_the_picture() -> None:
    field = ReceptiveField(size=(5, 7), stride=(2, 2), offset=(-3, -1))
    assert field.box(0, 0) == (-3, -1, 2, 6)
    assert field.box(0, 0, within=(10, 4)) == (0, 0, 2, 4)
    assert field.box(4, 1, within=(10, 10)) == (5, 1, 10, 8)
    assert is_empty(field.box(9, 9, within=(10, 10))) and min(field.box(9, 9, within=(10, 10))) >= 0


def test_what_cannot_be_told_is_none_not_a_guess() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.up = nn.Upsample(scale_factor=2)
            self.after = nn.Conv2d(4, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.after(self.up(self.conv(x)))
            return out

    model = nets.wrap(Odd(), 16)
    assert model.layers["conv"].receptive_field is not None
    assert model.layers["up"].receptive_field is None
    assert model.layers["after"].receptive_field is None


@pytest.mark.parametrize("name", ["like VGG", "like inception", "like ResNet", "uneven padding", "pools", "axes apart"])
def test_without_a_graph_receptive_fields_are_measured_and_agree(name: str) -> None:
    make, size = NETS[name]
    inner = nets.randomized(make())
    traced, untraced = nets.wrap(inner, size), nets.wrap(nets.Undecided(inner), size)
    assert untraced.graph is None
    measured = {n.removeprefix("inner."): layer.receptive_field for n, layer in untraced.layers.items()}
    known = {n: field for n, field in measured.items() if field is not None and n in traced.layers}
    assert known
    for layer, field in known.items():
        assert field == traced.layers[layer].receptive_field, layer


def test_without_a_graph_a_field_is_measured_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from circuits.network import model as module

    calls = 0
    measure = module.receptive_fields

    def counted(*args: object) -> dict[str, ReceptiveField | None]:
        nonlocal calls
        calls += 1
        return measure(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "receptive_fields", counted)
    model = nets.wrap(nets.Undecided(nets.sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))), 16)
    assert calls == 0
    with torch.inference_mode():
        field = model.layers["inner.2"].receptive_field
    assert field == ReceptiveField((5, 5), (1, 1), (0, 0)) and model.layers["inner.2"].stride == 1 and calls == 1
    with circuits.edit(model, [circuits.Ablate("inner.1")]):
        assert model.layers["inner.0"].receptive_field is None
    sent = copy.deepcopy(model.layers["inner.0"])  # as pickle does it, with a function of the model replaced
    assert sent.receptive_field == model.layers["inner.0"].receptive_field == ReceptiveField((3, 3), (1, 1), (0, 0))


class ChannelsLast(nn.Module):
    """A stem, and a block as those of ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.wide, self.act, self.narrow = nn.LayerNorm(6), nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6)
        self.end = nn.Conv2d(6, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        inner: Tensor = self.act(self.wide(self.norm(self.depthwise(x).permute(0, 2, 3, 1))))
        out: Tensor = self.end(x + self.narrow(inner).permute(0, 3, 1, 2))
        return out


class Patches(nn.Module):
    """Patches behind a class token, each looked at alone, then all together."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 101, 8))
        self.norm, self.each, self.act = nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU()
        self.attention, self.end = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        x = x + self.act(self.each(self.norm(x)))
        out: Tensor = self.end(x + self.attention(x, x, x, need_weights=False)[0])
        return out


class Windows(nn.Module):
    """A rolled map cut into windows, in which each position is looked at alone, then all of a window together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.each, self.act = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Linear(6, 6), nn.GELU()
        self.together, self.back, self.end = nn.Linear(25, 25), nn.Identity(), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.roll(self.stem(x), (2, 1), (2, 3)).permute(0, 2, 3, 1)
        x = x.view(x.shape[0], 4, 5, 4, 5, 6).permute(0, 1, 3, 2, 4, 5).reshape(-1, 25, 6)
        x = self.act(self.each(x))
        x = x + self.together(x.transpose(1, 2)).transpose(1, 2)
        x = x.view(-1, 4, 4, 5, 5, 6).permute(0, 1, 3, 2, 4, 5).reshape(-1, 20, 20, 6)
        out: Tensor = self.end(self.back(torch.roll(x, (-2, -1), (1, 2)).permute(0, 3, 1, 2)))
        return out


class Turned(nn.Module):
    """A map whose rows and columns change places between two oblong kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Conv2d(3, 4, (1, 7)), nn.ReLU(), nn.Conv2d(4, 4, (1, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.act(self.first(x).transpose(2, 3)))
        return out


#: network -> size of its input, and layers that have a receptive field
LAYOUTS: dict[type[nn.Module], tuple[int, list[str]]] = {
    ChannelsLast: (40, ["stem", "depthwise", "norm", "wide", "act", "narrow", "end"]),
    Patches: (40, ["patch", "norm", "each", "act"]),
    Windows: (40, ["stem", "each", "act"]),
    Turned: (20, ["first", "act"]),
}


@pytest.mark.parametrize("kind", list(LAYOUTS))
@pytest.mark.parametrize("graph", [True, False])
def test_fields_of_other_layouts_are_the_gradients_support(kind: type[nn.Module], graph: bool) -> None:
    size, known = LAYOUTS[kind]
    net = nets.randomized(kind()).eval()
    model = nets.wrap(net if graph else nets.Undecided(net), size)
    assert (model.graph is not None) == graph
    images = nets.pictures(1, size).requires_grad_(True)
    prefix = "" if graph else "inner."
    layers = {n: layer for n, layer in model.layers.items() if layer.path == n and layer.size is not None}
    fields = {name: layer.receptive_field for name, layer in layers.items()}  # measured before hooks are set
    seen = outputs(model.module, images, list(layers))
    have = []
    for name, layer in layers.items():
        if (field := fields[name]) is None:
            continue
        have.append(name.removeprefix(prefix))
        h, w = layer.size or (0, 0)
        maps = layer.axes.maps(seen[name])
        maps = maps * torch.rand((maps.shape[1], 1, 1), generator=torch.Generator().manual_seed(3))
        for y, x in {(h // 2, w // 2), (0, 0), (h // 2, w - 1), (3, 5)}:
            reached = reach(maps, y, x, images)
            box = field.box(y, x, within=(size, size))
            inside = box[0] <= reached[0] and box[1] <= reached[1] and reached[2] <= box[2] and reached[3] <= box[3]
            # what a ReLU keeps out at this image is no pixel that is never seen
            assert box == reached if (y, x) == (h // 2, w // 2) and kind is not Turned else inside, f"{name} @{y},{x}"
    assert set(known) <= set(have) if graph else have
    assert not {"attention", "together"} & set(have)
