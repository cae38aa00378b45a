"""Cards for torchvision's networks. torchvision itself is imported only when one is asked for."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.cards import LIBRARIES, Card, WeightsFile
from zoo.errors import ModelError, did_you_mean, shorten
from zoo.images.classes import imagenet_classes
from zoo.inputs import InputSpec
from zoo.networks.initialization import outline
from zoo.weights.loading import unwrapped


@cache
def _library() -> Any:
    try:
        import torchvision.models as models
    except (ImportError, RuntimeError) as error:
        # A torch and a torchvision of different builds fail with a RuntimeError about a missing operator.
        raise ModelError(
            f"torchvision cannot be imported ({shorten(error, 120)}): install torch and torchvision in one command"
        ) from error
    return models


def classifiers() -> list[str]:
    """Names of all of torchvision's image classifiers, sorted."""
    models = _library()
    return sorted(models.list_models(module=models))


def segmenters() -> list[str]:
    """Names of all of torchvision's networks for semantic segmentation, sorted."""
    models = _library()
    return sorted(models.list_models(module=models.segmentation))


def detectors() -> list[str]:
    """Names of all of torchvision's networks for detection, sorted."""
    models = _library()
    return sorted(models.list_models(module=models.detection))


def logits_layer(module: nn.Module) -> str:
    """Name of the layer whose output is the class scores: the last linear layer, or what follows a last conv."""
    linear, last, final_conv = "", "", False
    for name, part in module.named_modules():
        if name and not list(part.children()):
            last = name
            if isinstance(part, nn.Linear):
                linear, final_conv = name, False
            elif isinstance(part, nn.Conv2d):
                final_conv = True
    return last if final_conv or not linear else linear


def _preset_input(weights: Any, name: str) -> InputSpec:
    if weights is None:
        return InputSpec(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize=256)
    preset = weights.transforms()
    if not hasattr(preset, "mean"):  # detectors take images in [0, 1], and scale and normalize them themselves
        return InputSpec(size=320)
    if not hasattr(preset, "crop_size"):  # segmentation takes whole images, of any size
        size = int(preset.resize_size[0])
        return InputSpec(size=size, mean=tuple(preset.mean), std=tuple(preset.std), resize=size)
    mean, std = tuple(preset.mean), tuple(preset.std)
    if name in ("googlenet", "inception_v3"):
        # torchvision turns its own normalization back into (x - 0.5) / 0.5 inside these networks
        # (`transform_input`); we leave that out of the network and feed them what they were trained on.
        mean = std = (0.5,)
    return InputSpec(size=int(preset.crop_size[0]), mean=mean, std=std, resize=int(preset.resize_size[0]))


def _hub_folder() -> list[Path]:
    return [Path(torch.hub.get_dir()) / "checkpoints"]


def _weights_file(weights: Any) -> WeightsFile | None:
    if weights is None:
        return None
    filename = weights.url.rpartition("/")[2]
    # torchvision's file names end in the first eight digits of the SHA-256: resnet18-f37072fd.pth.
    stem, _, prefix = filename.removesuffix(".pth").rpartition("-")
    published = bool(stem) and len(prefix) >= 8 and all(c in "0123456789abcdef" for c in prefix)
    return WeightsFile(filename, sha256=prefix if published else None, url=weights.url, folders=_hub_folder)


def _without_auxiliary_heads(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if not k.startswith(("aux1.", "aux2.", "AuxLogits.", "aux_classifier."))}


def card(name: str, classes: int | None = None) -> Card:
    """The card of torchvision's network `name`; with another number of `classes` than published, they have no names.

    Class scores of a network for segmentation are maps, before they are enlarged to the size of the image. A detector
    has class scores of anchors or proposals, which are no units of an image: its layers are named one by one.

    Raises:
        ModelError: torchvision has no such network, or is not installed.
    """
    models = _library()
    names = classifiers()
    if name not in (*names, *segmenters(), *detectors()):
        near = did_you_mean(name, [*names, *segmenters(), *detectors()]) or f" There are {', '.join(names[:8])}, …"
        raise ModelError(f"torchvision has no network for images called {shorten(name)!r}.{near}")
    builder = models.get_model_builder(name)
    weights = getattr(models.get_model_weights(name), "DEFAULT", None)
    options: dict[str, Any] = {"weights": None}
    accepted = inspect.signature(builder).parameters
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "transform_input": False, "init_weights": True}
    if "weights_backbone" in accepted or name not in names:
        options["weights_backbone"] = None
    if "progress" in accepted:
        options["progress"] = False
    if classes is not None:
        options["num_classes"] = classes

    def build() -> nn.Module:
        module: nn.Module = builder(**options)
        return module

    def categories() -> list[str]:
        if classes is not None:
            return []
        return list(weights.meta["categories"]) if weights is not None else imagenet_classes()

    blank = outline(lambda: builder(**(options | ({"init_weights": False} if "init_weights" in options else {}))))
    logits = logits_layer(blank) if name in names else ""
    head = [path for path, part in blank.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)][-1]

    def resized(state: dict[str, Tensor]) -> Card:
        """Fine-tuned on other classes, a network has another number of outputs."""
        weight = unwrapped(state, blank.state_dict()).get(f"{head}.weight")
        published = blank.get_parameter(f"{head}.weight")
        other = weight is not None and weight.ndim == published.ndim and len(weight) != len(published)
        return card(name, len(weight)) if weight is not None and other else card(name, classes)

    return Card(
        name=f"torchvision/{name}",
        title=name,
        summary=f"torchvision's {name}.",
        input=_preset_input(weights, name),
        build=build,
        weights=_weights_file(weights),
        rename=_without_auxiliary_heads,
        logits=logits,
        output="out" if name in segmenters() else None,
        classes=categories,
        resized=resized,
        aliases={"logits": logits} if logits else {},
        license="BSD-3-Clause",
        source="https://pytorch.org/vision/stable/models.html",
    )


LIBRARIES.add("torchvision", card)
