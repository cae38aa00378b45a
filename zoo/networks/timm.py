"""Cards for timm's models, where timm is installed (it is not needed by anything else)."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from zoo.cards import LIBRARIES, Card
from zoo.errors import ModelError, WeightsError, did_you_mean, shorten
from zoo.inputs import InputSpec
from zoo.networks.initialization import outline
from zoo.networks.torchvision import logits_layer


def _library() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ModelError(
            f"timm/<name> needs timm, which cannot be imported ({shorten(error, 80)}): `pip install timm`"
        ) from error


def card(name: str) -> Card:
    """The card of timm's model `name`, with timm's own weights.

    Raises:
        ModelError: timm has no such model, or is not installed.
    """
    timm = _library()
    if not timm.is_model(name):
        raise ModelError(f"timm has no model called {shorten(name)!r}.{did_you_mean(name, timm.list_models())}")
    blank = outline(lambda: timm.create_model(name, pretrained=False))
    config: dict[str, Any] = blank.pretrained_cfg  # type: ignore[assignment]
    channels, height, width = config["input_size"]
    logits = logits_layer(blank)

    def build() -> nn.Module:
        module: nn.Module = timm.create_model(name, pretrained=False)
        return module

    def fetch(may_download: bool) -> dict[str, Tensor]:
        if not may_download:
            raise WeightsError(f"timm's own weights of {name} may need a download, which is off: give weights=FILE")
        try:
            module: nn.Module = timm.create_model(name, pretrained=True)
        except Exception as error:  # whatever the hub's client raises: no network, no such file, no leave
            raise WeightsError(
                f"timm could not provide the weights of {name} ({shorten(error, 120)}): "
                "give the file with `--weights FILE`"
            ) from error
        return module.state_dict()

    return Card(
        name=f"timm/{name}",
        title=name,
        summary=f"timm's {name}.",
        input=InputSpec(
            size=(height, width),
            channels=channels,
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            resize=round(min(height, width) / float(config.get("crop_pct") or 1.0)),
        ),
        build=build,
        logits=logits,
        aliases={"logits": logits},
        fetch=fetch,
        license=str(config.get("license", "")),
        source="https://github.com/huggingface/pytorch-image-models",
    )


LIBRARIES.add("timm", card)
