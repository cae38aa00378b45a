"""InceptionV1 with the TensorFlow "5h" weights, whose unit numbers the Circuits thread publishes.

The weights come in several containers, read here: names, layout, and how the genuine ones are recognized.

Three namings of the same tensors: TensorFlow's constants (`mixed3a_5x5_w`, kernels HWIO), those of the PyTorch
port that Lucent loads (`mixed3a_5x5_pre_relu_conv.weight`, OIHW), and ours (`mixed3a_5x5_pre.weight`, OIHW).
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from torch import Tensor

from zoo.cards import Card, WeightsFile, register
from zoo.errors import WeightsError
from zoo.images.classes import names_in
from zoo.inputs import InputSpec
from zoo.networks.inceptionv1 import TENSORFLOW_5H, InceptionV1, layer_aliases
from zoo.networks.initialization import he_init

_PARTS = ("1x1", "3x3_bottleneck", "3x3", "5x5_bottleneck", "5x5", "pool_reduce")
_CLASSIFIER = "softmax2"
_STEPS_OF_TOLERANCE = 4.0


@cache
def tensorflow_layers() -> dict[str, str]:
    """TensorFlow's layer name -> ours, for the 58 layers with weights (the auxiliary heads left out)."""
    layers = {f"conv2d{i}": f"conv2d{i}_pre" for i in range(3)}
    for block in TENSORFLOW_5H.blocks:
        for part in _PARTS:
            ours = "pool_proj" if part == "pool_reduce" else part
            layers[f"{block}_{part}"] = f"{block}_{ours}_pre"
    layers[_CLASSIFIER] = "softmax_pre"
    return layers


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state from a file's tensors, whichever of the three namings it uses; the auxiliary heads are dropped.

    A name that belongs to none of them is kept, so that loading reports it.
    """
    plain = {key.rpartition("/")[2].removesuffix(":0"): tensor for key, tensor in state.items()}
    layers = tensorflow_layers()
    if any(key.endswith("_w") for key in plain):
        return _from_tensorflow(plain, layers)
    port = {f"{tf}_pre_relu_conv": ours for tf, ours in layers.items()}
    port[f"{_CLASSIFIER}_pre_activation_matmul"] = layers[_CLASSIFIER]
    renamed = {}
    for key, tensor in plain.items():
        layer, _, kind = key.rpartition(".")
        if not layer.startswith(("head", "nn", "softmax0", "softmax1")):
            renamed[f"{port.get(layer, layer)}.{kind}"] = tensor
    return renamed


def _from_tensorflow(state: dict[str, Tensor], layers: dict[str, str]) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in state.items():
        # A graph holds other constants too (shapes, paddings, the auxiliary heads): only ours are taken.
        layer, _, kind = key.rpartition("_")
        if layer not in layers or kind not in ("w", "b"):
            continue
        if kind == "w" and tensor.ndim == 4:
            tensor = tensor.permute(3, 2, 0, 1)
        elif kind == "w" and tensor.ndim == 2:
            tensor = tensor.t()
        renamed[f"{layers[layer]}.{'weight' if kind == 'w' else 'bias'}"] = tensor.contiguous()
    return renamed


@cache
def tensor_ranges() -> dict[str, tuple[tuple[int, ...], float, float, float]]:
    """Our tensor name -> (shape, minimum, maximum, quantization step) of 27 tensors of the genuine network."""
    text = resources.files("zoo").joinpath("facts", "inception5h_tensor_ranges.json").read_text(encoding="utf-8")
    ranges = {}
    for name, entry in json.loads(text).items():
        if name.startswith("_"):
            continue
        shape, low, step = entry
        layer, _, kind = name.rpartition("_")
        ours = f"{tensorflow_layers()[layer]}.{'weight' if kind == 'w' else 'bias'}"
        oihw = (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else tuple(shape)
        ranges[ours] = (oihw, low, low + 65535 * step, step)
    return ranges


def check(state: dict[str, Tensor]) -> None:
    """Raise `WeightsError` unless the least and greatest values of 27 tensors are those of the genuine network.

    The published ranges come from a 16-bit quantized copy, whose grid is shifted to contain zero; hence a
    tolerance of a few steps (a step is 1/65535 of a tensor's range, so that other weights do not pass).
    """
    for name, (shape, low, high, step) in tensor_ranges().items():
        if name not in state:
            raise WeightsError(f"these are not the weights of the 5h InceptionV1: there is no tensor for {name}")
        tensor = state[name]
        if tuple(tensor.shape) != shape:
            raise WeightsError(
                f"these are not the weights of the 5h InceptionV1: {name} has shape {tuple(tensor.shape)}, not {shape}"
            )
        span = (float(tensor.min()), float(tensor.max()))
        slack = _STEPS_OF_TOLERANCE * step
        if not (abs(span[0] - low) <= slack and abs(span[1] - high) <= slack):
            raise WeightsError(
                f"these are not the weights of the 5h InceptionV1: {name} spans {span[0]:.5f} to {span[1]:.5f}, "
                f"the published ones {low:.5f} to {high:.5f}"
            )


def classes() -> list[str]:
    """The 1,008 class names in output order: a dummy, the 1,000 of ILSVRC-2012 in its own numbering, 7 unused."""
    return list(names_in("inception5h.txt"))


register(
    Card(
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
        rename=rename,
        check=check,
        classes=classes,
        aliases=layer_aliases(TENSORFLOW_5H),
        converts=True,
        license="Apache-2.0 (TensorFlow)",
        source="https://storage.googleapis.com/download.tensorflow.org/models/inception5h.zip, ported by ProGamerGov",
        order=1,
    )
)
