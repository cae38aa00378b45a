"""What is known about a model before it is built: a card, and the file its weights come in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.inputs import InputSpec
from zoo.networks import inception5h
from zoo.networks.inceptionv1 import BVLC, TENSORFLOW_5H, InceptionSpec, InceptionV1
from zoo.networks.squeezenet import SqueezeNet

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """The file that holds a model's published weights.

    Attributes:
        filename: its name in the weights folder or the cache; for packaged weights, its path inside `zoo`.
        sha256: SHA-256 of the file, or its first hexadecimal digits where only those are published.
        git_blob: git blob id of the file, `sha1("blob <size>\\0" + bytes)`, where that is what is published.
        url: where a verified download may fetch it, or None.
        packaged: True when it is part of this package.
        other_names: names under which the same weights are known in other containers.
        folders: further folders to look in, after `$CIRCUITS_WEIGHTS` and the cache.
    """

    filename: str
    sha256: str | None = None
    git_blob: str | None = None
    url: str | None = None
    packaged: bool = False
    other_names: tuple[str, ...] = ()
    folders: Callable[[], list[Path]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All file names to look for, converted and original."""
        return (self.filename, *self.other_names)


def _unchanged(state: State) -> State:
    return state


def _no_classes() -> list[str]:
    return []


def _no_check(state: State) -> None:
    return None


@dataclass(frozen=True, eq=False)
class Card:
    """Everything about a model that is true of it before its weights are loaded.

    Attributes:
        name: the name it is loaded by.
        title, summary: one phrase and one sentence for people.
        input: what it is fed.
        build: makes the module with random weights.
        weights: the file of its weights, or None when it has none of its own.
        rename: a file's tensors -> the module's state, whatever names the file uses.
        check: raises `WeightsError` when renamed tensors are recognizably not the published ones.
        logits: the layer whose output is the class scores before the softmax.
        classes: class names in output order; empty when unknown.
        aliases: other names of layers -> the layer.
        branches: branch name -> (layer, first channel, end channel), filled from the built module.
        converts: True when a file in a foreign container is converted once to safetensors in the cache.
        fetch: for models whose library brings its own weights: the state, given leave to download.
        license, source: of the weights.
    """

    name: str
    title: str
    summary: str
    input: InputSpec
    build: Callable[[], nn.Module]
    weights: WeightsFile | None = None
    rename: Callable[[State], State] = _unchanged
    check: Callable[[State], None] = _no_check
    logits: str = "softmax_pre"
    classes: Callable[[], list[str]] = _no_classes
    aliases: dict[str, str] = field(default_factory=dict)
    branches: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    converts: bool = False
    fetch: Callable[[bool], State] | None = None
    license: str = ""
    source: str = ""


@cache
def _labels(name: str) -> tuple[str, ...]:
    text = resources.files("zoo").joinpath("labels", name).read_text(encoding="utf-8")
    return tuple(text.splitlines())


def imagenet_classes() -> list[str]:
    """The 1,000 class names of ILSVRC-2012, in the order of their WordNet ids (as BVLC and torchvision use)."""
    return list(_labels("imagenet.txt"))


def he_init(module: nn.Module) -> nn.Module:
    """`module` with He-normal weights and zero biases, in place.

    PyTorch's default shrinks activations layer by layer, so that a random net of this depth answers to nothing;
    He et al. 2015 (arXiv:1502.01852) keeps their variance, which makes random nets usable as controls.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module


_LUCID_ALIASES = {"logits": "softmax_pre", "softmax2_pre_activation": "softmax_pre", "softmax2": "softmax"}


def _inception_aliases(spec: InceptionSpec) -> dict[str, str]:
    # Lucid calls the projection after a block's pool `pool_reduce`, Lucent the pre-activations `_pre_relu_conv`.
    aliases = dict(_LUCID_ALIASES)
    for block in spec.blocks:
        aliases[f"{block}_pool_reduce"] = f"{block}_pool_proj"
        for part in ("1x1", "3x3_bottleneck", "3x3", "5x5_bottleneck", "5x5"):
            aliases[f"{block}_{part}_pre_relu_conv"] = f"{block}_{part}_pre"
        aliases[f"{block}_pool_reduce_pre_relu_conv"] = f"{block}_pool_proj_pre"
    for stem in ("conv2d0", "conv2d1", "conv2d2"):
        aliases[f"{stem}_pre_relu_conv"] = f"{stem}_pre"
    return aliases


def inceptionv1() -> Card:
    """The TensorFlow "5h" InceptionV1, whose unit numbers the Circuits thread publishes."""
    return Card(
        name="inceptionv1",
        title="InceptionV1 (TensorFlow 5h)",
        summary='The network of Lucid, Lucent, Microscope and the Circuits thread ("inception5h", 2015).',
        input=InputSpec(size=224, scale=255.0, mean=(117.0,), resize=256),
        build=lambda: he_init(InceptionV1(TENSORFLOW_5H)),
        weights=WeightsFile(
            filename="inception5h.pth",
            git_blob="119f77db85c8352960933e025312b507d9a96ed7",
            url="https://github.com/ProGamerGov/pytorch-old-tensorflow-models/raw/master/inception5h.pth",
            other_names=("inceptionv1.safetensors", "InceptionV1.pb", "tensorflow_inception_graph.pb"),
        ),
        rename=inception5h.rename,
        check=inception5h.check,
        classes=inception5h.classes,
        aliases=_inception_aliases(TENSORFLOW_5H),
        converts=True,
        license="Apache-2.0 (TensorFlow)",
        source="https://storage.googleapis.com/download.tensorflow.org/models/inception5h.zip, ported by ProGamerGov",
    )


_CAFFE_PARTS = {
    "1x1": "1x1_pre",
    "3x3_reduce": "3x3_bottleneck_pre",
    "3x3": "3x3_pre",
    "5x5_reduce": "5x5_bottleneck_pre",
    "5x5": "5x5_pre",
    "pool_proj": "pool_proj_pre",
}
_CAFFE_STEM = {
    "conv1/7x7_s2": "conv2d0_pre",
    "conv2/3x3_reduce": "conv2d1_pre",
    "conv2/3x3": "conv2d2_pre",
    "loss3/classifier": "softmax_pre",
}


def _rename_bvlc(state: State) -> State:
    renamed = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        block, _, part = layer.partition("/")
        if layer in _CAFFE_STEM:
            key = f"{_CAFFE_STEM[layer]}.{kind}"
        elif block.startswith("inception_") and part in _CAFFE_PARTS:
            key = f"mixed{block.removeprefix('inception_')}_{_CAFFE_PARTS[part]}.{kind}"
        renamed[key] = tensor
    return renamed


_CAFFE_INPUT = InputSpec(size=224, scale=255.0, mean=(104.0, 117.0, 123.0), order="BGR", resize=256)


def googlenet_bvlc() -> Card:
    """The BVLC GoogLeNet: InceptionV1 trained separately in Caffe; published unit numbers do not hold for it."""
    return Card(
        name="googlenet-bvlc",
        title="GoogLeNet (BVLC)",
        summary="InceptionV1 trained separately in Caffe; published unit numbers of the 5h network do not hold.",
        input=_CAFFE_INPUT,
        build=lambda: he_init(InceptionV1(BVLC)),
        weights=WeightsFile(
            filename="bvlc_googlenet.safetensors",
            sha256="fa8ba25163d161c5e786481ef7496537d31980f720fff407d4756ff5fc868d16",
        ),
        rename=_rename_bvlc,
        classes=imagenet_classes,
        aliases=_inception_aliases(BVLC),
        license="BVLC: unrestricted use",
        source="https://github.com/BVLC/caffe/tree/master/models/bvlc_googlenet",
    )


def _rename_squeezenet(state: State) -> State:
    renamed = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        name = layer.replace("/", "_")
        renamed[f"{name}.{kind}" if name.endswith("_pre") else f"{name}_pre.{kind}"] = tensor
    return renamed


def squeezenet() -> Card:
    """SqueezeNet 1.1, a second trained network for questions of universality."""
    return Card(
        name="squeezenet-1.1",
        title="SqueezeNet 1.1",
        summary="A small network of fire modules, trained in Caffe: a second one, for universality.",
        input=_CAFFE_INPUT,
        build=lambda: he_init(SqueezeNet()),
        weights=WeightsFile(
            filename="squeezenet1_1.safetensors",
            sha256="e7414997fb97fa828df91239f6ab7ca4697576e15ffc453c0b5ca803c6b317ce",
        ),
        rename=_rename_squeezenet,
        classes=imagenet_classes,
        aliases={"logits": "softmax_pre"},
        license="BSD-2-Clause",
        source="https://github.com/forresti/SqueezeNet",
    )


def scenes() -> Card:
    """The embedded default: a small InceptionV1 trained by us on drawn scenes whose parts are known."""
    from zoo.scenes import network

    def classes() -> list[str]:
        from zoo.scenes import generate

        return list(generate.CLASSES)

    return Card(
        name="scenes",
        title="Scenes",
        summary="A small InceptionV1 trained on drawn scenes whose parts are known: a benchmark with answers.",
        input=network.INPUT,
        build=network.build,
        weights=WeightsFile(filename="scenes/scenes.safetensors", packaged=True),
        classes=classes,
        aliases=dict(_LUCID_ALIASES),
        license="Apache-2.0",
        source="python -m tools.scenes.train",
    )


def freeze(module: nn.Module) -> nn.Module:
    """`module` in evaluation mode, with no parameter asking for a gradient."""
    return module.eval().requires_grad_(False)


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What `build` makes from `seed`, leaving the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
