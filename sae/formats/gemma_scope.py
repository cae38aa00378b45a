"""The layouts of Gemma Scope: `params.npz`, and of its second edition `params.safetensors` with `config.json`.

JumpReLU SAEs that do not subtract `b_dec`. Those of the embedding read embeddings as they are in the table, before
the model multiplies them by the root of d.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae.architectures.base import SAE
from sae.architectures.jumprelu import JumpReLU
from sae.errors import FormatError, shorten
from sae.formats.detect import SavedFiles, read_json, read_safetensors
from sae.formats.parameter_names import Roles, assembled, subtracting, values_of
from sae.formats.registry import Layout, register_layout
from zoo.common.reading import open_file

FIRST, SECOND, CONFIG = "params.npz", "params.safetensors", "config.json"
NAME = "gemma_scope"
ROLES: Roles = {
    "encoder": ("w_enc", "dm"), "encoder_bias": ("b_enc", "m"), "decoder": ("w_dec", "md"),
    "decoder_bias": ("b_dec", "d"), "threshold": ("threshold", "m"),
}  # fmt: skip


def from_gemma_scope(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SAE:
    """The SAE of these parameters, whose names may be in upper or lower case; the first edition has no configuration.

    Raises:
        FormatError: a transcoder, a scaling that we cannot place, or tensors that do not fit.
    """
    lower = {name.lower(): value for name, value in tensors.items()}
    if len(lower) != len(tensors):
        raise FormatError(
            f"names that differ in case alone: {', '.join(shorten(name, 30) for name in sorted(tensors))}"
        )
    architecture = config.get("architecture", "jump_relu")
    if architecture != "jump_relu":
        raise FormatError(f"architecture {shorten(architecture, 40)!r} cannot be read; there is jump_relu")
    if "affine_skip_connection" in lower or config.get("hf_hook_point_in") != config.get(
        "hf_hook_point_out", config.get("hf_hook_point_in")
    ):
        raise FormatError("it is a transcoder: those of Gemma Scope are not read in its own layout")
    scaling = lower.pop("scaling_factor", None)
    if scaling is not None and not bool((scaling == 1).all()):
        raise FormatError("its scaling_factor is not 1, and nothing says what it scales")
    values = values_of(lower, ROLES, "a Gemma Scope SAE")
    sae = assembled(JumpReLU(latents=len(values["encoder"])), subtracting(values))
    sae.metadata = {"source": {"format": NAME, **({"config": dict(config)} if config else {})}}
    return sae


_RATIO = 32
"""How many times larger than the file its arrays may be: weights hardly shrink when packed, bombs a thousandfold."""


def _check_unpacked(content: Any, size: int) -> None:
    total = sum(entry.file_size for entry in content.zip.infolist())
    if total > _RATIO * size + (1 << 20):
        raise FormatError(f"its {size / 1e6:,.1f} MB would unpack to {total / 1e6:,.0f}, which weights do not")


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of an npz file, as tensors.

    Raises:
        FormatError: there is none, it is damaged, or holds other things than numbers.
    """
    if not path.is_file():
        raise FormatError(f"there is no {path.name}")
    try:
        with open_file(path) as file:  # which numpy leaves open when it is damaged
            content = np.load(file, allow_pickle=False)
            several = isinstance(content, np.lib.npyio.NpzFile)
            if several:
                _check_unpacked(content, path.stat().st_size)
            arrays = {name: content[name] for name in content.files} if several else {}
    except FormatError:
        raise
    except Exception as error:  # a damaged archive raises whatever its bytes lead to
        raise FormatError(f"{path.name} cannot be read, it may be truncated: {shorten(error, 120)}") from error
    if not several:
        raise FormatError(f"{path.name} holds one array, not several with names")
    other = [f"{shorten(name, 30)} is {array.dtype}" for name, array in arrays.items() if array.dtype.kind not in "fiu"]
    if other:
        raise FormatError(f"{path.name} holds other things than numbers: {', '.join(other[:4])}")
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


@register_layout
class GemmaScope(Layout):
    """See the module."""

    name = NAME
    description = f"{FIRST}, or {SECOND} with {CONFIG}"

    def detects(self, files: SavedFiles) -> bool:
        return files.has(FIRST, SECOND) or (files.path.suffix == ".npz" and files.path.is_file())

    def read(self, files: SavedFiles) -> SAE:
        config: dict[str, Any] = {}
        if files.has(SECOND):
            tensors = read_safetensors(files.folder / SECOND)
            config = read_json(files.folder / CONFIG) if (files.folder / CONFIG).is_file() else {}
        else:
            tensors = read_npz(files.path if files.path.suffix == ".npz" else files.folder / FIRST)
        sae = from_gemma_scope(config, tensors)
        # layer_20/width_16k/average_l0_71: the folders are the only place that says which SAE it is
        sae.metadata["source"]["folder"] = "/".join(files.folder.resolve().parts[-3:])
        return sae
