"""Saved SAEs and transcoders as units of the model that they were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuits.network.address import basis_name
from circuits.network.layers.windows import BETWEEN
from circuits.network.model import Model
from sae.data.vision_pair import VisionPair
from sae.data.vision_site import VisionSite
from sae.errors import SAEError
from sae.formats import load


def site_named(model: Model, layer: str, metadata: Mapping[str, Any]) -> VisionSite | VisionPair:
    """The site that the metadata of an SAE name, `mixed4c`, or of a transcoder, `mixed4b..mixed4c`.

    Raises:
        AddressError: there is no such layer. GraphError: no such pair.
    """
    source, between, target = layer.partition(BETWEEN)
    if not between:
        return VisionSite(model, layer)
    window = metadata.get("window")
    return VisionPair(model, source, target, patch=window["size"] if isinstance(window, dict) else None)


def attach_folder(model: Model, folder: str | Path, name: str | None = None) -> tuple[VisionSite | VisionPair, str]:
    """Make the latents of a saved SAE or transcoder units of the model it was trained on.

    Args:
        model: the model.
        folder: as `sae.save` wrote it; its metadata name the layer.
        name: of the basis (default: the folder's, as `basis_name` makes it fit into an address).

    Returns:
        The site of the layer, or of the pair of layers, and the name of the basis there.

    Raises:
        FormatError: no SAE there. SAEError: its metadata name no layer, or it was trained on other weights.
    """
    path = Path(folder).expanduser()
    loaded = load(path, device=model.device)
    layer = loaded.metadata.get("layer") or loaded.metadata.get("hook_name")
    if not isinstance(layer, str):
        raise SAEError(f"{path} does not say which layer it reads; attach it with VisionSite(model, LAYER).attach(...)")
    site = site_named(model, layer, loaded.metadata)
    basis = name or basis_name(path)
    site.attach(basis, loaded)
    return site, basis
