"""Between the names and orientations of files and the parameters of our SAEs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from sae.architectures.base import SAE, SAEConfig, build
from sae.architectures.batchtopk import BatchTopKSAE
from sae.errors import FormatError, shorten

Roles = Mapping[str, tuple[str, str]]
"""What a tensor is here -> its name there and its axes: "md" is `(m, d)`, "dm" its transpose; see `NUMBERS`."""

NUMBERS = ("", "g")
"""Axes of what is no weight: one number, or a list of sizes."""

PARAMETERS = ("encoder", "encoder_bias", "decoder", "decoder_bias", "magnitude_bias", "magnitude_scale", "threshold")


def values_of(
    tensors: Mapping[str, Tensor], roles: Roles, what: str, optional: Collection[str] = ()
) -> dict[str, Tensor]:
    """Tensors of a file by what they are here, in our orientation, as float32.

    Args:
        tensors: name -> tensor, as in the file.
        roles: what there has to be; the first has both axes, and says how large m and d are.
        what: of what they should be the tensors, for messages.
        optional: roles that may be absent.

    Raises:
        FormatError: tensors that are missing, unknown, of a wrong shape, or not finite.
    """
    named = {name: (role, axes) for role, (name, axes) in roles.items()}
    absent = [name for name, (role, _) in named.items() if name not in tensors and role not in optional]
    extra = sorted(set(tensors) - set(named))
    if absent or extra:
        missing = f"{', '.join(sorted(absent))} missing" if absent else ""
        more = f"{', '.join(shorten(e, 40) for e in extra[:4])} unknown" if extra else ""
        raise FormatError(f"the tensors are not those of {what}: {'; '.join(filter(None, (missing, more)))}")
    first, axes = next(iter(roles.values()))
    shape = tuple(tensors[first].shape)
    if len(shape) != 2 or 0 in shape:
        raise FormatError(f"{first} is {shape}, not ({', '.join(axes)})")
    size = dict(zip(axes, shape, strict=True))
    found = {}
    for name, value in tensors.items():
        role, axes = named[name]
        wanted = tuple(size.get(axis, len(value) if value.ndim else 0) for axis in axes)
        if tuple(value.shape) != wanted:
            raise FormatError(f"{name} is {tuple(value.shape)}; with {first} {shape} it must be {wanted}")
        kind = str(value.dtype).removeprefix("torch.")
        if value.is_complex() or (axes not in NUMBERS and not value.is_floating_point()):
            raise FormatError(f"{name} holds {kind}, not numbers of a weight")
        if not bool(torch.isfinite(value).all()):
            raise FormatError(f"{name} has values that are not finite: the file is damaged")
        if axes in NUMBERS:
            found[role] = value
        else:
            found[role] = value.float().T if axes == "dm" else value.float()
    return found


def tensors_of(values: Mapping[str, Tensor], roles: Roles) -> dict[str, Tensor]:
    """The inverse of `values_of`: contiguous tensors under the names of a file."""
    return {
        name: (values[role].T if axes == "dm" else values[role]).detach().clone().contiguous()
        for role, (name, axes) in roles.items()
    }


def parameters_of(sae: SAE) -> dict[str, Tensor]:
    """The tensors of a folded SAE that its inference depends on."""
    return {name: getattr(sae, name).detach() for name in PARAMETERS if hasattr(sae, name)}


def subtracting(values: Mapping[str, Tensor], *, undo: bool = False) -> dict[str, Tensor]:
    """Biases of an encoder that sees `x`, as those of one that sees `x - decoder_bias`; `undo` is the way back.

    In double precision: behind a rectifier the product that moves is often large beside the bias.
    """
    moved = dict(values)
    into = values["encoder"].double() @ values["decoder_bias"].double() * (-1 if undo else 1)
    moved["encoder_bias"] = (values["encoder_bias"].double() + into).to(values["encoder_bias"].dtype)
    if "magnitude_bias" in values:
        scaled = into * values["magnitude_scale"].double().exp()
        moved["magnitude_bias"] = (values["magnitude_bias"].double() + scaled).to(values["magnitude_bias"].dtype)
    return moved


@torch.no_grad()
def assembled(config: SAEConfig, values: Mapping[str, Tensor]) -> SAE:
    """The SAE of a configuration with these parameters, for raw inputs."""
    sae = build(config, values["encoder"].shape[1])
    for name in parameters_of(sae):
        # at zero and below a threshold does nothing, since latents are rectified as well
        getattr(sae, name).copy_(values[name].clamp_min(0.0) if name == "threshold" else values[name])
    if isinstance(sae, BatchTopKSAE):
        sae.threshold_weight.fill_(1.0)  # it is a full mean already
    return sae
