"""The layout of openai/sparse_autoencoder: one .pt file, a state dict with the name of its activation in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sae.architectures.base import SAE
from sae.architectures.relu import ReLU
from sae.errors import FormatError, shorten
from sae.formats.detect import SavedFiles
from sae.formats.parameter_names import Roles, assembled, values_of
from sae.formats.registry import Layout, register_layout

NAME = "openai"
ROLES: Roles = {
    "encoder": ("encoder.weight", "md"), "encoder_bias": ("latent_bias", "m"), "decoder": ("decoder.weight", "dm"),
    "decoder_bias": ("pre_bias", "d"),
}  # fmt: skip
TIED: Roles = {**ROLES, "decoder": ("decoder.linear.weight", "md")}
STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")


def from_openai(state: Mapping[str, Any]) -> SAE:
    """The SAE of a state dict.

    Raises:
        FormatError: a TopK, which normalizes every input by its own mean and spread; tensors that do not fit.
    """
    activation = state.get("activation", "ReLU")
    if activation == "TopK":
        raise FormatError(
            "it is a TopK, whose inputs are normalized one by one (LayerNorm) and whose outputs are scaled back: "
            "no weights of an SAE here can do that. Those with ReLU can be read"
        )
    if activation != "ReLU":
        raise FormatError(f"activation {shorten(activation, 40)!r} cannot be read; there is ReLU")
    aside = {"activation", "activation_state_dict", *STATISTICS}
    tensors = {str(name): value for name, value in state.items() if name not in aside}
    odd = [shorten(name, 40) for name, value in tensors.items() if not isinstance(value, Tensor)]
    if odd:
        raise FormatError(f"{', '.join(odd[:4])}: not a tensor")
    values = values_of(tensors, TIED if "decoder.linear.weight" in tensors else ROLES, "an openai SAE")
    sae = assembled(ReLU(latents=len(values["encoder"])), values)
    sae.metadata = {"source": {"format": NAME}}
    return sae


@register_layout
class OpenAI(Layout):
    """See the module."""

    name = NAME
    description = "a .pt file with pre_bias and latent_bias"

    def detects(self, files: SavedFiles) -> bool:
        return files.torch_file is not None and isinstance(files.state, dict) and "pre_bias" in files.state

    def read(self, files: SavedFiles) -> SAE:
        if not isinstance(files.state, dict):
            raise FormatError(f"{files.path.name} is not a state dict")
        sae = from_openai(files.state)
        sae.metadata["source"]["file"] = files.path.name
        return sae
