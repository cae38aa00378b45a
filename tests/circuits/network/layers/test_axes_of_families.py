"""Channels and positions of transformers and channels-last networks of torchvision and timm, probed by numbers.

What is checked does not depend on how axes are found: a fresh LayerNorm has mean 0 and a variance of at most 1 along
the channels at every position, and a patch of the image that changes moves the stream most at its own position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

import circuits
from circuits.network.model import Model


def timm(name: str, **options: Any) -> nn.Module:
    module: nn.Module = pytest.importorskip("timm").create_model(name, num_classes=5, **options)
    return module


def swin(**options: Any) -> nn.Module:
    return models.SwinTransformer([4, 4], 8, [2, 2], [2, 4], [4, 4], num_classes=5, **options)


SMALL = {"embed_dim": 12, "depth": 2, "num_heads": 3}
V2 = models.swin_transformer.SwinTransformerBlockV2
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, str]] = {
    # how it is made, its input size, and a layer that holds its stream
    "torchvision vit": (
        lambda: models.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=5), 32, "encoder.layers.encoder_layer_1",
    ),
    "torchvision swin": (swin, 64, "features.1"),
    "torchvision swin v2": (
        lambda: swin(block=V2, downsample_layer=models.swin_transformer.PatchMergingV2), 64, "features.1",
    ),
    "torchvision convnext": (lambda: ConvNeXt([CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 1)]), 32, "features.1"),
    "vit": (lambda: timm("vit_tiny_patch16_224", img_size=64, **SMALL), 64, "blocks.1"),
    "deit": (lambda: timm("deit_tiny_distilled_patch16_224", img_size=64, **SMALL), 64, "blocks.1"),
    "dinov2": (lambda: timm("vit_small_patch14_reg4_dinov2", img_size=56, **SMALL), 56, "blocks.1"),
    "beit": (lambda: timm("beit_base_patch16_224", img_size=64, **SMALL), 64, "blocks.1"),
    "eva02": (lambda: timm("eva02_tiny_patch14_224", img_size=56, **SMALL), 56, "blocks.1"),
    "mixer": (lambda: timm("mixer_s16_224", img_size=64), 64, "blocks.0"),
    "swin": (
        lambda: timm(
            "swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=8, depths=(2, 1), num_heads=(2, 2)
        ), 64, "layers.0",
    ),
    "pvt": (lambda: timm("pvt_v2_b0"), 64, ""),  # its patches overlap
    "edgenext": (lambda: timm("edgenext_xx_small"), 64, "stages.1"),
    "coatnet": (lambda: timm("coatnet_nano_rw_224", img_size=64), 64, "stages.2.blocks.0"),
    "maxvit": (
        lambda: models.MaxVit((64, 64), 8, 4, [8, 16], [1, 1], 8, 0.0, num_classes=5), 64,
        "blocks.0.layers.0.layers.window_attention",
    ),
    "convit": (lambda: timm("convit_tiny", img_size=64), 64, "blocks.1"),
    "cait": (lambda: timm("cait_xxs24_224", img_size=64, depth=2), 64, "blocks.1"),
}  # fmt: skip
SLOW = {"coatnet", "maxvit", "edgenext", "pvt", "convit"}


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in NETWORKS])
def named(request: pytest.FixtureRequest) -> tuple[Model, str]:
    make, size, layer = NETWORKS[request.param]
    torch.manual_seed(0)
    module = make().eval()
    return circuits.wrap(module, input=circuits.InputSpec(size=size), name="net"), layer


def test_normalized_layers_are_normalized_along_their_channels(named: tuple[Model, str]) -> None:
    model, _ = named
    norms = [
        name
        for name, layer in model.layers.items()
        if layer.path is not None
        and type(model.module.get_submodule(layer.path)).__name__ in ("LayerNorm", "LayerNorm2d")
    ]
    assert norms
    x = torch.rand((2, *model.input.shape), generator=torch.Generator().manual_seed(0))
    for name, maps in circuits.capture(model, x, at=norms).items():
        # whatever epsilon does to what hardly varies, the mean is taken off, and no variance is above 1
        size = maps.abs().amax(dim=1)
        assert bool((maps.mean(dim=1).abs() <= 1e-4 * size + 1e-7).all()), name
        assert float(maps.var(dim=1, unbiased=False).max()) < 1.001, name


@pytest.mark.parametrize("at", [(0, 3), (2, 1)])
def test_what_changes_in_a_patch_moves_its_position_most(named: tuple[Model, str], at: tuple[int, int]) -> None:
    model, layer = named
    if not layer:
        pytest.skip("its patches overlap: a neighbor may move more")
    h, w = model.layers[layer].size or (1, 1)
    assert h > 3 and w > 3
    x = torch.rand((1, *model.input.shape), generator=torch.Generator().manual_seed(0))
    ph, pw = model.input.hw[0] // h, model.input.hw[1] // w
    changed = x.clone()
    noise = torch.rand((3, ph, pw), generator=torch.Generator().manual_seed(1))
    changed[0, :, at[0] * ph : (at[0] + 1) * ph, at[1] * pw : (at[1] + 1) * pw] = noise
    before, after = (circuits.capture(model, images, at=layer)[layer] for images in (x, changed))
    moved = (after - before).square().sum(dim=1)[0]
    assert divmod(int(moved.argmax()), w) == at
