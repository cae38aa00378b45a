"""What a layer's axes are: the right channels and maps in every layout, against plain hooks and rearranging by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

import circuits
from circuits.errors import AddressError, CaptureError, GraphError, ModelError
from circuits.network.address import Unit
from circuits.network.hooks import editing, read
from circuits.network.layers.declared import declared
from circuits.network.model import Model
from zoo.scenes.vit import VisionTransformer, VisionTransformerSpec

SPEC = VisionTransformerSpec(dim=12, depth=2, heads=3, hidden=20, stem=(4, 6), size=32, classes=5)


def randomized(module: nn.Module) -> nn.Module:
    """Small random weights everywhere, so that nothing is zero or symmetric."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return module.eval()


def wrapped(module: nn.Module, size: int = 32) -> Model:
    return circuits.wrap(randomized(module), input=circuits.InputSpec(size=size), name="net")


def vit() -> Model:
    return wrapped(VisionTransformer(SPEC))


def opaque(module: nn.Module) -> nn.Module:
    """The same network, which torch.fx cannot trace."""

    class Opaque(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = module

        def forward(self, x: Tensor) -> Tensor:
            if float(x.detach().sum()) == 12345.0:
                return x
            out: Tensor = self.net(x)
            return out

    return Opaque()


def images(size: int = 32, n: int = 3) -> Tensor:
    return torch.rand((n, 3, size, size), generator=torch.Generator().manual_seed(1))


def hooked_outputs(model: Model, x: Tensor) -> dict[str, Tensor]:
    """Outputs of all modules on images, by plain hooks."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, out: seen.update({name: out.clone()}) if isinstance(out, Tensor) else None

    handles = [m.register_forward_hook(keep(name)) for name, m in model.module.named_modules()]
    with torch.no_grad():
        model.module(model.input.normalize(x))
    for handle in handles:
        handle.remove()
    return seen


def assert_captured(model: Model, right: Mapping[str, Callable[[Tensor], Tensor]], size: int = 32) -> None:
    x = images(size)
    seen = hooked_outputs(model, x)
    captured = circuits.capture(model, x, at=list(right))
    for name, rearranged in right.items():
        base = model.layers[name].view or name
        maps = rearranged(seen[base])
        assert captured[name].shape == maps.shape and torch.equal(captured[name], maps), name
        layer = model.layers[name]
        assert (layer.channels, layer.size or (1, 1)) == (maps.shape[1], tuple(maps.shape[2:])), name


def patches(tokens: Tensor) -> Tensor:
    """Tokens `(N, 1 + 16, C)` as maps, without the class token."""
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, 4, 4)


VIT: dict[str, Callable[[Tensor], Tensor]] = {
    "stem.3": lambda x: x,
    "block0": patches,
    "block1.attention": patches,
    "block1.mlp.neurons": patches,
    "block1.cls": lambda x: x[:, 0, :, None, None],
    "block1.tokens": lambda x: x.transpose(1, 2)[:, :, None],
    "block0.attention.heads": lambda x: x[:, :, 1:].transpose(2, 3).reshape(len(x), 12, 4, 4),
    "block0.attention.heads.cls": lambda x: x[:, :, 0].reshape(len(x), 12, 1, 1),
}


def test_tokens_and_heads_of_a_vision_transformer_are_maps_of_its_dimensions() -> None:
    model = vit()
    assert model.graph is not None
    assert_captured(model, VIT)


def test_without_a_graph_the_same_axes_are_found() -> None:
    plain, model = vit(), wrapped(opaque(VisionTransformer(SPEC)))
    assert model.graph is None
    for name in VIT:
        assert model.layers[f"net.{name}"].axes == plain.layers[name].axes, name
    assert_captured(model, {f"net.{name}": right for name, right in VIT.items()})


def test_attention_patterns_have_no_units_and_say_why() -> None:
    model = vit()
    assert "two axes of positions" in model.unreadable["block0.attention.pattern"]
    with pytest.raises(AddressError, match="no channels that can be told: it has two axes of positions"):
        model.unit("block0.attention.pattern:3")


def test_trunk_layers_of_a_transformer_are_its_streams() -> None:
    model = vit()
    trunk = ["stem.1", "stem.3", "patches", "cat", "add", "add_1", "block0", "add_3", "block1", "norm", "scores"]
    assert model.trunk == trunk
    assert model.before("scores") == "norm.tokens" and model.before("block1") == "add_3.tokens"


def test_torchvisions_vit_has_blocks_in_its_trunk() -> None:
    net = models.VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=5)
    model = wrapped(net)
    layer = "encoder.layers.encoder_layer_0"
    assert layer in model.trunk and model.before("heads.head") is not None
    right = {name: patches for name in (layer, f"{layer}.dropout", f"{layer}.mlp.1", f"{layer}.ln_2")}
    assert_captured(model, {**right, f"{layer}.cls": lambda x: x[:, 0, :, None, None]})


def test_channels_last_maps_of_convnext_are_read_by_channel() -> None:
    model = wrapped(ConvNeXt([CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 1)], num_classes=5))
    last = dict.fromkeys(
        ("features.1.0.block.2", "features.1.0.block.4", "features.3.0.block.5"), lambda x: x.permute(0, 3, 1, 2)
    )
    assert_captured(model, {**last, "features.1": lambda x: x, "features.0": lambda x: x})


def swin() -> Model:
    torch.manual_seed(0)
    blocks = {"depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
    return wrapped(models.SwinTransformer([4, 4], 8, num_classes=5, **blocks), 64)  # type: ignore[arg-type]


def test_channels_last_maps_of_swin_are_read_by_channel() -> None:
    names = (
        "features.0",
        "features.1.0",
        "features.1.1.attn",
        "features.1.1.mlp.0",
        "features.2",
        "features.3",
        "norm",
    )
    assert_captured(swin(), dict.fromkeys(names, lambda x: x.permute(0, 3, 1, 2)), 64)


def test_shifted_windows_of_timms_swin_are_put_back_in_place() -> None:
    swin_transformer = pytest.importorskip("timm.models.swin_transformer")
    net = swin_transformer.SwinTransformer(
        img_size=32, patch_size=4, window_size=4, embed_dim=8, depths=(2, 1), num_heads=(2, 2), num_classes=5
    )
    model = wrapped(net)

    def unshifted(x: Tensor) -> Tensor:
        whole = swin_transformer.window_reverse(x.view(-1, 4, 4, x.shape[-1]), (4, 4), 8, 8)
        return torch.roll(whole, (2, 2), (1, 2)).permute(0, 3, 1, 2)

    right = {
        "layers.0.blocks.1.attn.qkv": unshifted,
        "layers.0.blocks.1.attn": unshifted,
        "layers.0.blocks.0.mlp.fc1": lambda x: x.transpose(1, 2).reshape(len(x), -1, 8, 8),
        "layers.1.downsample.norm": lambda x: x.permute(0, 3, 1, 2),
        "layers.1.blocks.0": lambda x: x.permute(0, 3, 1, 2),
    }
    assert_captured(model, right)


def test_class_distillation_and_register_tokens_have_layers_of_their_own() -> None:
    vision_transformer = pytest.importorskip("timm.models.vision_transformer")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 3, "num_classes": 5}
    model = wrapped(vision_transformer.VisionTransformer(**sizes, reg_tokens=2, qk_norm=True))
    right = {
        "blocks.0.reg1": lambda x: x[:, 2, :, None, None],
        "blocks.0.attn": lambda x: x[:, 3:].transpose(1, 2).reshape(len(x), 12, 4, 4),
        "blocks.0.attn.q_norm": lambda x: x[:, :, 3:].transpose(2, 3).reshape(len(x), 12, 4, 4),
        "blocks.0.attn.qkv": lambda x: x[:, 3:].transpose(1, 2).reshape(len(x), 36, 4, 4),
    }
    assert_captured(model, right)
    assert model.resolve("blocks.0:3@cls").layer == "blocks.0.cls"
    with pytest.raises(AddressError, match="no token 'dist'; those besides patches: @cls, @reg0, @reg1"):
        model.unit("blocks.0:3@dist")


def test_what_mixes_tokens_is_refused_until_it_is_added_to_them() -> None:
    mlp_mixer = pytest.importorskip("timm.models.mlp_mixer")
    model = wrapped(mlp_mixer.MlpMixer(img_size=32, patch_size=8, embed_dim=12, num_blocks=1, num_classes=5))

    def tokens(x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(len(x), 12, 4, 4)

    mixed = "blocks.0.mlp_tokens"
    assert_captured(model, {"blocks.0": tokens, mixed: lambda x: x.reshape(len(x), 12, 4, 4)})
    assert "mixture" in model.unreadable[f"{mixed}.act"]


@pytest.mark.parametrize("name", ["block0", "block1.mlp.neurons", "block0.attention.heads"])
def test_edits_change_the_same_dimension_that_is_read(name: str) -> None:
    model, x = vit(), images()
    raw = hooked_outputs(model, x)[name]
    axis, dimension = (2, 7) if name != "block0.attention.heads" else (1, 1)  # unit 7 of heads is head 1, dimension 3
    with circuits.edit(model, [circuits.Scale(f"{name}:7", 2.0), circuits.Ablate(f"{name}:2@1,3")]):
        edited = hooked_outputs(model, x)[name]
    right = raw.clone()
    if name == "block0.attention.heads":
        right[:, axis, 1:, 3] *= 2
        right[:, 0, 1 + 1 * 4 + 3, 2] = 0
    else:
        right[:, 1:, dimension] *= 2
        right[:, 1 + 1 * 4 + 3, 2] = 0
    assert torch.equal(edited, right)


@pytest.mark.parametrize("make", [vit, lambda: swin(), lambda: wrapped(opaque(VisionTransformer(SPEC)))])
def test_an_edit_that_changes_nothing_changes_nothing_to_the_bit(make: Callable[[], Model]) -> None:
    model = make()
    x = images(model.input.hw[0], 2)
    with torch.no_grad():
        clean = model(x)
        for name in model.layers:
            with editing(model, [(name, torch.clone)]):
                assert torch.equal(model(x), clean), name


def test_edits_of_the_class_token_and_of_all_tokens() -> None:
    model, x = vit(), images()
    raw = hooked_outputs(model, x)["block0"]
    with circuits.edit(model, [circuits.Set("block0:4@cls", 1.5), circuits.Add("block0.tokens:2", 3.0)]):
        edited = hooked_outputs(model, x)["block0"]
    right = raw.clone()
    right[:, 0, 4] = 1.5
    right[:, :, 2] += 3.0
    assert torch.equal(edited, right)
    with circuits.edit(model, [circuits.Ablate("block0:4", to="mean")], reference=x):
        means = hooked_outputs(model, x)["block0"][:, 1:, 4]
    torch.testing.assert_close(means, raw[:, 1:, 4].mean().expand_as(means))


def test_images_of_another_size_are_refused_where_tokens_have_their_places() -> None:
    model = wrapped(models.SwinTransformer([4, 4], 8, [2], [2], [4, 4], num_classes=5), 32)
    assert read(model, images(64), [model.layers["features.1"]])["features.1"].shape == (3, 8, 16, 16)
    net = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Flatten(2), Transposed(), nn.LayerNorm(8), MeanOfTokens())
    tokens = wrapped(net)
    with pytest.raises(CaptureError, match="an axis of the layer was 16 long when the model was made, and is 64 now"):
        read(tokens, images(64), [tokens.layers["3"]])


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class MeanOfTokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def test_a_function_that_is_not_known_leaves_a_layer_without_units() -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sort(dim=1).values

    net = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Flatten(2), Transposed(), Sorted(), MeanOfTokens())
    model = wrapped(net)
    assert model.unreadable["3"] == "what sort does to the axes is not known"
    assert model.layers["2"].axes.layout == "tokens"
    for module in (net, opaque(net)):  # what the user knows
        name = "3" if module is net else "net.3"
        said = circuits.wrap(module.eval(), circuits.InputSpec(size=32), name="net", axes={name: "n (h w) c"})
        for copied in (said, copy.deepcopy(said), circuits.untrained(said)):
            assert name not in copied.unreadable and copied.layers[name].axes == model.layers["2"].axes
        assert_captured(said, {name: lambda x: x.transpose(1, 2).reshape(len(x), 8, 4, 4)})


def test_declared_axes_are_read_as_they_are_said() -> None:
    image = (4, 8)
    x = torch.arange(2 * 3 * 2 * 4 * 5.0).reshape(2, 3, 40)
    patterns: dict[str, tuple[Tensor, Tensor]] = {
        "n h w c": (x.reshape(2, 3, 8, 5), x.reshape(2, 3, 8, 5).permute(0, 3, 1, 2)),
        "n (h w) c": (x.reshape(2, 8, 15), x.reshape(2, 2, 4, 15).permute(0, 3, 1, 2)),
        "n c (h w) c": (x.reshape(2, 3, 8, 5), x.reshape(2, 3, 2, 4, 5).permute(0, 1, 4, 2, 3).reshape(2, 15, 2, 4)),
        "n (2 + h w) c": (x.reshape(2, 10, 12), x.reshape(2, 10, 12)[:, 2:].reshape(2, 2, 4, 12).permute(0, 3, 1, 2)),
        "h w n c": (x.reshape(3, 8, 2, 5), x.reshape(3, 8, 2, 5).permute(2, 3, 0, 1)),
    }
    for pattern, (raw, right) in patterns.items():
        layouts = declared(pattern, tuple(raw.shape), image, "layer")
        assert isinstance(layouts, dict)
        assert torch.equal(layouts[""].maps(raw), right), pattern
        assert torch.equal(layouts[""].write(right * 2, raw), _doubled(raw, pattern)), pattern


def _doubled(raw: Tensor, pattern: str) -> Tensor:
    doubled = raw * 2
    if "2 +" in pattern:
        doubled[:, :2] = raw[:, :2]
    return doubled


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("n x c", "cannot read 'n x c'"),
        ("n h c", "cannot read"),
        ("n (h w)", "cannot read"),
        ("n h w c", "are 4, but its output has the shape"),
        ("n (1 + h w) c", "leave 15 patches, which are no grid"),
    ],
)
def test_axes_that_do_not_fit_are_refused(pattern: str, reason: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Flatten(2), Transposed(), MeanOfTokens())
    with pytest.raises(ModelError, match=reason):
        circuits.wrap(net.eval(), circuits.InputSpec(size=32), axes={"2": pattern})
    with pytest.raises(ModelError, match="no layer of model"):
        circuits.wrap(net.eval(), circuits.InputSpec(size=32), axes={"nowhere": "n c h w"})


def test_weights_between_linear_parts_of_a_block_are_the_matrix() -> None:
    model = vit()
    module = model.module
    pairs = {
        ("block0.mlp.neurons", "block0.mlp"): module.block0.mlp.out.weight,
        ("block1.attention.heads", "block1.attention"): module.block1.attention.out.weight,
        ("block1.norm2", "block1.mlp.hidden"): module.block1.mlp.hidden.weight,
    }
    for (source, target), matrix in pairs.items():
        weights = circuits.expanded_weights(model, source=source, target=target)
        assert weights.stride == (1, 1) and weights.offset == (0, 0)
        assert torch.equal(weights.kernels[:, :, 0, 0], matrix), (source, target)


ACROSS = (("attention.value", "attention:3"), ("norm1", "attention:3"), ("attention", "mlp:2"))


def test_weights_across_attention_and_norms_are_refused_with_the_reason() -> None:
    for (source, target), reason in zip(ACROSS, ("whose pattern", "whose pattern", "has no linear form"), strict=True):
        with pytest.raises(GraphError, match=reason):
            circuits.expanded_weights(vit(), source=f"block1.{source}", target=f"block1.{target}")


def test_weights_across_attention_and_norms_are_refused_without_a_graph() -> None:
    model = wrapped(opaque(VisionTransformer(SPEC)))
    for source, target in ACROSS:
        with pytest.raises(GraphError):
            circuits.expanded_weights(model, source=f"net.block1.{source}", target=f"net.block1.{target}")


def test_the_class_token_is_an_address() -> None:
    unit = Unit.parse("net/block3~sae:17@cls")
    assert (unit.layer, unit.index, unit.token, unit.at) == ("block3", 17, "cls", None)
    assert str(unit) == "net/block3~sae:17@cls" and unit.channel.token is None
    with pytest.raises(AddressError):
        Unit.parse("block3:17@CLS!")


def attention_with_held_pattern(net: VisionTransformer, tokens: Tensor, held: Tensor) -> Tensor:
    """What attention of block 1 adds `(N, 17, 12)`, in plain PyTorch, with the pattern of other tokens."""
    attention = net.get_submodule("block1.attention")

    def heads(x: Tensor) -> Tensor:
        return x.reshape(len(x), 17, 3, 4).transpose(1, 2)

    pattern = (heads(attention.query(held)) @ heads(attention.key(held)).transpose(2, 3) / 2).softmax(dim=-1)
    mixed = (pattern.detach() @ heads(attention.value(tokens))).transpose(1, 2).reshape(len(tokens), 17, 12)
    out: Tensor = attention.out(mixed)
    return out


@pytest.mark.parametrize(("target", "token"), [("block1.attention:3@1,2", 1 + 6), ("block1.attention:3@cls", 0)])
@pytest.mark.parametrize("source", ["block1.norm1", "block1.norm1.tokens"])
def test_weights_with_a_frozen_pattern_are_the_gradient_with_the_pattern_held(
    source: str, target: str, token: int
) -> None:
    model, x = vit(), images(n=1)
    net = model.module
    assert isinstance(net, VisionTransformer)
    leaf = hooked_outputs(model, x)["block1.norm1"].requires_grad_(True)
    (right,) = torch.autograd.grad(attention_with_held_pattern(net, leaf, leaf.detach())[0, token, 3], leaf)
    weights = circuits.expanded_weights(model, source=source, target=target, attention="frozen", images=x)
    maps = patches(right) if source == "block1.norm1" else right.transpose(1, 2)[:, :, None]
    torch.testing.assert_close(weights.kernels, maps, rtol=1e-5, atol=1e-7)
    assert weights.method == "frozen" and weights.stride == (0, 0)


def test_frozen_attention_is_refused_where_it_is_not_all_that_is_not_linear() -> None:
    model, x = vit(), images(n=1)

    def weights(source: str, target: str, **options: object) -> object:
        chosen = {"attention": "frozen", "images": x, **options}
        return circuits.expanded_weights(model, source=source, target=target, **chosen)  # type: ignore[arg-type]

    with pytest.raises(GraphError, match="norm1.*no linear form"):
        weights("block0", "block1.attention:3@cls")
    with pytest.raises(AddressError, match="name one, block1.attention:3@y,x"):
        weights("block1.norm1", "block1.attention:3")
    with pytest.raises(GraphError, match="no attention lies between"):
        weights("block1.norm2", "block1.mlp.hidden:2@0,0")
    with pytest.raises(GraphError, match="give images="):
        weights("block1.norm1", "block1.attention:3@cls", images=None)


class Fused(nn.Module):
    """Attention in one piece: by nn.MultiheadAttention, or by torch's fused function."""

    def __init__(self, module: bool) -> None:
        super().__init__()
        self.patch, self.norm, self.out = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8), nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True) if module else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patch(x).flatten(2).transpose(1, 2))
        mixed = (
            nn.functional.scaled_dot_product_attention(x, x, x) if self.attention is None else self.attention(x, x, x)
        )
        out: Tensor = self.out(mixed if self.attention is None else mixed[0])
        return out


@pytest.mark.parametrize("module", [True, False], ids=["MultiheadAttention", "fused function"])
def test_attention_in_one_piece_cannot_be_frozen_and_says_so(module: bool) -> None:
    model = circuits.wrap(Fused(module).eval(), circuits.InputSpec(size=16), name="fused")
    x = images(n=1)[..., :16, :16]
    with pytest.raises(GraphError, match="attention in one piece.*explicit softmax"):
        circuits.expanded_weights(model, source="norm", target="out:3@1,2", attention="frozen", images=x)
    with pytest.raises(GraphError, match="pattern depends on the image"):
        circuits.expanded_weights(model, source="norm", target="out:3")
