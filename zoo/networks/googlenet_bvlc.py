"""The BVLC GoogLeNet: InceptionV1 trained separately in Caffe; published unit numbers of the 5h network do not hold."""

from __future__ import annotations

from torch import Tensor

from zoo.cards import Card, WeightsFile, register
from zoo.images.classes import imagenet_classes
from zoo.inputs import CAFFE_INPUT
from zoo.networks.inceptionv1 import LRN, POOL_AFTER, InceptionSpec, InceptionV1, layer_aliases, published_blocks
from zoo.networks.initialization import he_init

BVLC = InceptionSpec(
    stem=(64, 64, 192),
    blocks=published_blocks(mixed4a_3x3=208, mixed5a_5x5_reduce=32),
    pool_after=POOL_AFTER,
    lrn=LRN(size=5, alpha=1e-4, beta=0.75, k=1.0),
    classes=1000,
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


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state from Caffe's names."""
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


register(
    Card(
        name="googlenet-bvlc",
        title="GoogLeNet (BVLC)",
        summary="InceptionV1 trained separately in Caffe; published unit numbers of the 5h network do not hold.",
        input=CAFFE_INPUT,
        build=lambda: he_init(InceptionV1(BVLC)),
        weights=WeightsFile(
            filename="bvlc_googlenet.safetensors",
            sha256="fa8ba25163d161c5e786481ef7496537d31980f720fff407d4756ff5fc868d16",
        ),
        rename=rename,
        classes=imagenet_classes,
        aliases=layer_aliases(BVLC),
        license="BVLC: unrestricted use",
        source="https://github.com/BVLC/caffe/tree/master/models/bvlc_googlenet",
        order=2,
    )
)
