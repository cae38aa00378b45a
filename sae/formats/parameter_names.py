"""The tensors of files, by name and orientation, as parameters of our SAEs, and the other way round."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from sae.architectures.base import SAE, SAEConfig, TensorNames, build
from sae.architectures.batchtopk import BatchTopKSAE
from sae.errors import FormatError, shorten
from zoo.common.reading import LARGEST_WEIGHT

Roles = TensorNames
"""Parameter here -> name and axes in the file: "md" is `(m, d)`, "dm" its transpose; see also `NUMBERS` and `ANY`.

Where a transcoder's target has another width than its input, that axis is "o"."""

NUMBERS = ("", "g")
"""Axes of what is no weight: one number, or a list of sizes."""

ANY = "*"
"""Axes of a tensor that only its class knows."""


def values_of(
    tensors: Mapping[str, Tensor], roles: Roles, kind: str, optional: Collection[str] = ()
) -> dict[str, Tensor]:
    """Tensors of a file by parameter, in our orientation, as float32.

    Args:
        tensors: name -> tensor, as in the file.
        roles: the tensors that are required; the first has both axes, from which m and d are taken.
        kind: of SAE, for messages.
        optional: roles that may be absent.

    Raises:
        FormatError: tensors that are missing, unknown, of a wrong shape, or not finite.
    """
    roles_by_name = {name: (role, axes) for role, (name, axes) in roles.items()}
    absent = [name for name, (role, _) in roles_by_name.items() if name not in tensors and role not in optional]
    extra = sorted(set(tensors) - set(roles_by_name))
    if absent or extra:
        missing = f"{', '.join(sorted(absent))} missing" if absent else ""
        more = f"{', '.join(shorten(e, 40) for e in extra[:4])} unknown" if extra else ""
        raise FormatError(f"the tensors are not those of {kind}: {'; '.join(filter(None, (missing, more)))}")
    first, axes = next(iter(roles.values()))
    shape = tuple(tensors[first].shape)
    if len(shape) != 2 or 0 in shape:
        raise FormatError(f"{first} is {shape}, not ({', '.join(axes)})")
    size = dict(zip(axes, shape, strict=True))
    for name, axes in roles.values():
        value = tensors.get(name)
        if len(axes) == 2 and value is not None and value.ndim == 2:
            for axis, length in zip(axes, value.shape, strict=True):
                size.setdefault(axis, length)
    values = {}
    for name, value in tensors.items():
        role, axes = roles_by_name[name]
        expected = tuple(size.get(axis, len(value) if value.ndim else 0) for axis in axes)
        if axes != ANY and tuple(value.shape) != expected:
            raise FormatError(f"{name} is {tuple(value.shape)}; with {first} {shape} it must be {expected}")
        dtype = str(value.dtype).removeprefix("torch.")
        if value.is_complex() or (axes not in (*NUMBERS, ANY) and not value.is_floating_point()):
            raise FormatError(f"{name} holds {dtype}, not numbers of a weight")
        if value.numel() and not float(value.abs().max()) <= LARGEST_WEIGHT:
            raise FormatError(f"{name} has values that are not finite, or above {LARGEST_WEIGHT:g}: it is damaged")
        if axes in (*NUMBERS, ANY):
            values[role] = value
        else:
            values[role] = value.float().T if axes == "dm" else value.float()
    return values


def tensors_of(values: Mapping[str, Tensor], roles: Roles) -> dict[str, Tensor]:
    """The inverse of `values_of`: contiguous tensors under the names of a file."""
    return {
        name: (values[role].T if axes == "dm" else values[role]).detach().clone().contiguous()
        for role, (name, axes) in roles.items()
    }


def roles_of(cls: type[SAE], names: Iterable[str] = (), kind: str = "sae") -> Roles:
    """The tensors of a class's files: those it declares, and the others among `names` where no SAELens one exists."""
    own = (
        cls.tensor_names
        if kind in ("sae", "crosscoder")
        else transcoding(cls.tensor_names, skip=kind == "skip-transcoder")
    )
    declared = {*own, *(name for name, _ in own.values())}
    others = {} if cls.saelens else {name: (name, ANY) for name in names if name not in declared}
    return {**own, **others}


def transcoding(roles: Roles, *, skip: bool) -> Roles:
    """The tensors of a transcoder's files, from those of the SAE: what is written has a width of its own."""
    aimed = {
        role: (name, axes.replace("d", "o") if role in ("decoder", "decoder_bias") else axes)
        for role, (name, axes) in roles.items()
    }
    return {**aimed, "skip": ("W_skip", "od")} if skip else aimed


def parameters_of(sae: SAE) -> dict[str, Tensor]:
    """The tensors of a folded SAE that its files hold; they share memory with the SAE's."""
    state = sae.state_dict()
    own = (*sae.tensor_names, *(name for name in ("skip",) if name in state))
    normalization = {"mean", "scale", "target_mean", "target_scale"}
    others = () if sae.saelens else (n for n in state if n not in {*own, *normalization})
    return {name: state[name] for name in (*own, *others)}


def subtracting(values: Mapping[str, Tensor], *, undo: bool = False) -> dict[str, Tensor]:
    """Biases of an encoder that sees `x`, as those of one that sees `x - decoder_bias`; `undo` is the way back.

    In double precision: behind a ReLU the product that moves is often large beside the bias.
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
    """The SAE of a configuration with these parameters, for raw inputs.

    Raises:
        FormatError: they are those of a configuration of another size, or of another class.
    """
    m, d = values["encoder"].shape
    if config.latents != m:
        raise FormatError(
            f"its metadata describe a {config.architecture} SAE of {config.latents} latents, not this one of {m}"
        )
    centers = getattr(config, "centers", None)  # of archetypal ones: checked before so many are made
    if centers is not None and ("points" not in values or len(values["points"]) != centers):
        raise FormatError(f"its metadata describe an SAE of {centers} points: they are missing, or others")
    sae = build(config, d, values["decoder"].shape[1])
    for name, parameter in parameters_of(sae).items():
        if name not in values or values[name].shape != parameter.shape:
            raise FormatError(
                f"its metadata describe a {config.architecture} SAE of {config.latents} latents, not this one of {m}: "
                f"{name} is missing or of another shape"
            )
        # below zero a threshold does nothing, since latents pass a ReLU as well
        parameter.copy_(values[name].clamp_min(0.0) if name == "threshold" else values[name])
    if isinstance(sae, BatchTopKSAE):
        sae.threshold_weight.fill_(1.0)  # it is a full mean already
    return sae
