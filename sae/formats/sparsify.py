"""The layout of sparsify: a folder with `cfg.json` and `sae.safetensors`; TopK SAEs, which subtract `b_dec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sae.architectures.base import SAE
from sae.architectures.topk import TopK
from sae.errors import FormatError, shorten
from sae.formats.detect import SavedFiles, read_json, read_safetensors
from sae.formats.parameter_names import Roles, assembled, values_of
from sae.formats.registry import Layout, register_layout

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
NAME = "sparsify"
ROLES: Roles = {
    "encoder": ("encoder.weight", "md"), "encoder_bias": ("encoder.bias", "m"), "decoder": ("W_dec", "md"),
    "decoder_bias": ("b_dec", "d"),
}  # fmt: skip


def from_sparsify(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SAE:
    """The SAE that a configuration and its tensors describe.

    `multi_topk`, `normalize_decoder` and the like are about training: encoding keeps k latents, whatever they say.

    Raises:
        FormatError: a transcoder, a skip connection, or another activation than TopK; tensors that do not fit.
    """
    if config.get("transcode"):
        raise FormatError("it is a transcoder: those of sparsify are not read, those of SAELens are")
    if config.get("skip_connection") or "W_skip" in tensors:
        raise FormatError("it has a skip connection (W_skip): those of sparsify are not read")
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise FormatError(f"activation {shorten(activation, 40)!r} cannot be read; there is topk")
    if config.get("signed"):
        raise FormatError("it is signed: it keeps negative latents, which no SAE here does")
    if "k" not in config:
        raise FormatError(f"{CONFIG} has no k: it is not the configuration of a sparsify SAE")
    values = values_of(tensors, ROLES, "a sparsify SAE")
    m, d = values["encoder"].shape
    factor = config.get("expansion_factor", m / d)
    stated = config.get("num_latents") or (d * factor if isinstance(factor, (int, float)) else factor)
    if (stated, config.get("d_in", d)) != (m, d):
        says = f"d_in={shorten(config.get('d_in'), 20)} and {shorten(stated, 20)} latents"
        raise FormatError(f"{CONFIG} says {says}; encoder.weight is ({m}, {d})")
    sae = assembled(TopK(latents=m, k=config["k"]), values)
    sae.metadata = {"source": {"format": NAME, "config": dict(config)}}
    return sae


@register_layout
class Sparsify(Layout):
    """See the module."""

    name = NAME
    description = f"{CONFIG} with {WEIGHTS}"

    def detects(self, files: SavedFiles) -> bool:
        return files.has(WEIGHTS)

    def read(self, files: SavedFiles) -> SAE:
        tensors = read_safetensors(files.folder / WEIGHTS)
        sae = from_sparsify(read_json(files.folder / CONFIG), tensors)
        sae.metadata["source"]["hookpoint"] = files.folder.resolve().name
        return sae
