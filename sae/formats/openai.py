"""The layout of openai/sparse_autoencoder: one .pt file, a state dict with the name of its activation in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sae.architectures.base import SAE
from sae.architectures.relu import ReLU
from sae.errors import FormatError, shorten
from sae.formats.detect import Found, Layout
from sae.formats.parameter_names import Roles, assembled, values_of

NAME = "openai"
ROLES: Roles = {
    "encoder": ("encoder.weight", "md"), "encoder_bias": ("latent_bias", "m"), "decoder": ("decoder.weight", "dm"),
    "decoder_bias": ("pre_bias", "d"),
}  # fmt: skip
TIED: Roles = {**ROLES, "decoder": ("decoder.linear.weight", "md")}
STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")


def _detects(found: Found) -> bool:
    return found.torch_file is not None and isinstance(found.state, dict) and "pre_bias" in found.state


def _reads(found: Found) -> SAE:
    if not isinstance(found.state, dict):
        raise FormatError(f"{found.path.name} is not a state dict")
    sae = from_openai(found.state)
    sae.metadata["source"]["file"] = found.path.name
    return sae


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


LAYOUT = Layout(
    name=NAME,
    files="a .pt file with pre_bias and latent_bias",
    detects=_detects,
    reads=_reads,
)
