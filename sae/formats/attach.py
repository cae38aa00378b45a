"""Saved SAEs as bases of the layer they were trained on."""

from __future__ import annotations

from pathlib import Path

from circuits.network.model import Model
from sae.data.vision_site import VisionSite
from sae.errors import SAEError
from sae.formats import load


def attach_folder(model: Model, folder: str | Path, name: str | None = None) -> tuple[VisionSite, str]:
    """Make the latents of a saved SAE units of the model it was trained on.

    Args:
        model: the model.
        folder: as `sae.save` wrote it; its metadata name the layer.
        name: of the basis (default: the folder's).

    Returns:
        Where it reads, and its name there.

    Raises:
        FormatError: no SAE there. SAEError: it does not say which layer it reads, or was trained on other weights.
    """
    path = Path(folder).expanduser()
    loaded = load(path, device=model.device)
    layer = loaded.metadata.get("layer") or loaded.metadata.get("hook_name")
    if not isinstance(layer, str):
        raise SAEError(f"{path} does not say which layer it reads; attach it with VisionSite(model, LAYER).attach(...)")
    site = VisionSite(model, layer)
    own = name or path.resolve().name
    site.attach(own, loaded)
    return site, own
