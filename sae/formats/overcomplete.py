"""The layout of overcomplete: the state dict of a `TopKSAE` in a .pt file. It does not hold k, which has to be given.

`encoder` is linear, with or without batch normalization (`linear`, `mlp_bn_1`), tied to the dictionary or not. The
reconstruction is `latents @ dictionary * exp(multiplier)`, where the dictionary is normalized by `eval()`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from sae.architectures.base import SAE
from sae.architectures.topk import TopK
from sae.errors import FormatError
from sae.formats.detect import SavedFiles
from sae.formats.parameter_names import Roles, assembled, values_of
from sae.formats.registry import Layout, register_layout

log = logging.getLogger(__name__)

NAME = "overcomplete"
DICTIONARY = "dictionary._weights"
_BLOCK, _NORM, _PLAIN = "encoder.final_block.0", "encoder.final_block.1", "encoder"
_BATCH_NORM: Roles = {
    "gain": (f"{_NORM}.weight", "m"), "shift": (f"{_NORM}.bias", "m"), "mean": (f"{_NORM}.running_mean", "m"),
    "variance": (f"{_NORM}.running_var", "m"), "count": (f"{_NORM}.num_batches_tracked", ""),
}  # fmt: skip
_EPS = 1e-5  # of nn.BatchNorm1d


def from_overcomplete(state: Mapping[str, Tensor], k: int) -> SAE:
    """The TopK SAE that a state dict describes.

    Args:
        state: of a `TopKSAE`, or, with k as large as the number of latents, of a plain `SAE`.
        k: its `top_k`.

    Raises:
        FormatError: another encoder than a linear one; tensors that do not fit.
    """
    # a tied encoder refers to the dictionary, and the state dict has that twice
    tensors = {name: value for name, value in state.items() if not name.startswith("encoder.tied_to.")}
    prefix = _BLOCK if f"{_BLOCK}.weight" in tensors else _PLAIN
    roles: Roles = {
        "decoder": (DICTIONARY, "md"), "multiplier": ("dictionary.multiplier", ""),
        "encoder": (f"{prefix}.weight", "md"), "encoder_bias": (f"{prefix}.bias", "m"),
    }  # fmt: skip
    tied = len(tensors) < len(state)
    if f"{_NORM}.running_mean" in tensors:
        roles = {**roles, **_BATCH_NORM}
    optional = ["encoder_bias", *(["encoder"] if tied else [])] if prefix == _PLAIN else []
    values = values_of(tensors, roles, "an overcomplete TopKSAE with a linear encoder", optional)
    decoder = values["decoder"] * float(values["multiplier"].exp())
    encoder = values.get("encoder", decoder)
    bias = values.get("encoder_bias", decoder.new_zeros(len(decoder)))
    if "mean" in values:
        gain = values["gain"] / (values["variance"] + _EPS).sqrt()
        encoder, bias = encoder * gain[:, None], (bias - values["mean"]) * gain + values["shift"]
    lengths = values["decoder"].norm(dim=1)
    if not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-3):
        log.warning(
            "the dictionary's rows are %.3g to %.3g long, not 1: it was saved before eval(), which normalizes them, or "
            "has another normalization than l2; it is taken as it is",
            float(lengths.min()), float(lengths.max()),
        )  # fmt: skip
    none = decoder.new_zeros(decoder.shape[1])
    parts = {"encoder": encoder, "encoder_bias": bias, "decoder": decoder, "decoder_bias": none}
    sae = assembled(TopK(latents=len(decoder), k=k), parts)
    sae.metadata = {"source": {"format": NAME, "k": k}}
    return sae


@register_layout
class Overcomplete(Layout):
    """See the module."""

    name = NAME
    description = f"a .pt file with {DICTIONARY}, and k="

    def detects(self, files: SavedFiles) -> bool:
        return files.torch_file is not None and isinstance(files.state, dict) and DICTIONARY in files.state

    def read(self, files: SavedFiles) -> SAE:
        if not isinstance(files.state, dict) or not all(isinstance(v, Tensor) for v in files.state.values()):
            raise FormatError(f"{files.path.name} is not a state dict")
        if files.k is None:
            raise FormatError(
                "a state dict of overcomplete says neither which kind of SAE it is nor its k: give k=, the top_k of a "
                "TopKSAE, or the number of concepts for a plain SAE (other kinds are not read)"
            )
        sae = from_overcomplete(files.state, files.k)
        sae.metadata["source"]["file"] = files.path.name
        return sae
