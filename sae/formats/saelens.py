"""Between our SAEs and SAELens's names: keys, orientation, architectures (SAELens 6, inference form)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sae.base import SAE, SAEConfig, build, config_from_dict
from sae.batchtopk import BatchTopKSAE
from sae.errors import FormatError, shorten
from sae.gated import Gated, GatedSAE
from sae.jumprelu import JumpReLU, JumpReLUSAE
from sae.relu import ReLU
from sae.topk import TopK

ARCHITECTURES = {
    "relu": "standard",
    "topk": "topk",
    "gated": "gated",
    "jumprelu": "jumprelu",
    "batchtopk": "jumprelu",
    "matryoshka": "jumprelu",
}
"""Ours -> SAELens's. What is a batch's business in training is a threshold at inference."""

OURS = "vision_circuits"
"""Key of `cfg.json` under which we say how an SAE was trained, and the digest of its weights."""

VERSION = "6.0.0"
"""Of SAELens, whose layout this is."""

COMMON = {"W_enc", "W_dec", "b_dec"}
KEYS = {
    "standard": COMMON | {"b_enc"},
    "topk": COMMON | {"b_enc"},
    "jumprelu": COMMON | {"b_enc", "threshold"},
    "gated": COMMON | {"b_gate", "b_mag", "r_mag"},
}


def to_saelens(sae: SAE) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a folded SAE.

    Raises:
        FormatError: an architecture that SAELens does not have.
    """
    name = sae.config.architecture
    if name not in ARCHITECTURES:
        raise FormatError(f"SAELens has no architecture like {name!r}; it can be written as {', '.join(ARCHITECTURES)}")
    config: dict[str, Any] = {
        "architecture": ARCHITECTURES[name],
        "d_in": sae.d,
        "d_sae": sae.latents,
        "dtype": str(sae.encoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        # without it, SAELens takes the file for one from before its version 6 and drops the metadata
        "metadata": {"sae_lens_version": VERSION, **sae.metadata},
    }
    if isinstance(sae.config, TopK):
        config |= {"k": sae.config.k, "rescale_acts_by_decoder_norm": False}
    tensors = {"W_enc": sae.encoder.T, "W_dec": sae.decoder, "b_dec": sae.decoder_bias}
    if isinstance(sae, GatedSAE):
        tensors |= {"b_gate": sae.encoder_bias, "b_mag": sae.magnitude_bias, "r_mag": sae.magnitude_scale}
    else:
        tensors |= {"b_enc": sae.encoder_bias}
    if isinstance(sae, (JumpReLUSAE, BatchTopKSAE)):
        tensors |= {"threshold": sae.threshold}
    return config, {key: value.detach().contiguous() for key, value in tensors.items()}


def from_saelens(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SAE:
    """The SAE that a configuration and its tensors describe.

    Settings that we have no switch for become part of the weights: an encoder that does not subtract `b_dec`,
    latents ranked by value times decoder length.

    Raises:
        FormatError: an architecture or setting we cannot represent, or tensors that do not fit.
    """
    config = _modern(config)
    name = config.get("architecture", "standard")
    if not isinstance(name, str) or name not in KEYS:
        known = ", ".join(KEYS)
        raise FormatError(f"architecture {shorten(name, 40)!r} cannot be read; there are {known}")
    for key, allowed in (("normalize_activations", ["none"]), ("reshape_activations", ["none", "hook_z"])):
        if (config.get(key) or "none") not in allowed:
            raise FormatError(
                f"{key} is {shorten(config[key], 40)!r}: fold it into the weights with SAELens first (here: none)"
            )
    found = {key: value.float() for key, value in tensors.items()}
    if name == "jumprelu" and "threshold" not in found and "log_threshold" in found:
        found["threshold"] = found.pop("log_threshold").exp()  # training checkpoints of older versions
    _check(name, found)
    m, d = found["W_dec"].shape
    if (config.get("d_sae", m), config.get("d_in", d)) != (m, d):
        raise FormatError(f"cfg.json says d_in={config.get('d_in')}, d_sae={config.get('d_sae')}; W_dec is ({m}, {d})")
    sae = build(_config(name, config, config.get(OURS), m), d)
    encoder, decoder = found["W_enc"].T.contiguous(), found["W_dec"]
    bias = found["b_gate" if name == "gated" else "b_enc"]
    extra = {} if name != "gated" else {"magnitude_bias": found["b_mag"], "magnitude_scale": found["r_mag"]}
    if not config.get("apply_b_dec_to_input", True):
        into = encoder @ found["b_dec"]
        bias = bias + into
        if extra:
            extra["magnitude_bias"] = extra["magnitude_bias"] + into * extra["magnitude_scale"].exp()
    if config.get("rescale_acts_by_decoder_norm", False):
        norms = decoder.norm(dim=1)
        encoder, decoder, bias = encoder * norms[:, None], decoder / norms[:, None], bias * norms
    with torch.no_grad():
        values = {"encoder": encoder, "decoder": decoder, "encoder_bias": bias, "decoder_bias": found["b_dec"], **extra}
        if name == "jumprelu":
            values["threshold"] = found["threshold"].clamp_min(0.0)
        for key, value in values.items():
            getattr(sae, key).copy_(value)
    sae.metadata = dict(config.get("metadata", {}))
    return sae


def _modern(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration from before SAELens 6 in today's terms: there, TopK was an activation function."""
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if activation in ("relu", None):
        return config
    arguments = config.get("activation_fn_kwargs")
    if activation == "topk" and isinstance(arguments, dict) and "k" in arguments:
        return {**config, "architecture": "topk", "k": arguments["k"]}
    raise FormatError(f"activation function {shorten(activation, 40)!r} cannot be read; there are relu and topk")


def _check(name: str, found: Mapping[str, Tensor]) -> None:
    absent, extra = sorted(KEYS[name] - found.keys()), sorted(found.keys() - KEYS[name])
    if absent or extra:
        what = f"{', '.join(absent)} missing" if absent else ""
        more = f"{', '.join(shorten(e, 40) for e in extra[:4])} unknown" if extra else ""
        raise FormatError(f"the tensors are not those of a {name} SAE: {'; '.join(filter(None, (what, more)))}")
    if found["W_dec"].ndim != 2:
        raise FormatError(f"W_dec is {tuple(found['W_dec'].shape)}, not (m, d)")
    m, d = found["W_dec"].shape
    for key, value in found.items():
        wanted = {"W_enc": (d, m), "W_dec": (m, d), "b_dec": (d,)}.get(key, (m,))
        if tuple(value.shape) != wanted:
            raise FormatError(f"{key} is {tuple(value.shape)}; with W_dec ({m}, {d}) it must be {wanted}")
        if not bool(torch.isfinite(value).all()):
            raise FormatError(f"{key} has values that are not finite: the file is damaged")


def _config(name: str, config: Mapping[str, Any], about: Any, m: int) -> SAEConfig:
    """What the SAE was trained as, where we trained it; else the plain configuration of its architecture."""
    if isinstance(about, dict) and isinstance(about.get("config"), dict):
        own = config_from_dict(about["config"])
        if ARCHITECTURES.get(own.architecture) == name and own.latents == m:
            return own
        raise FormatError(f"its metadata describe a {own.architecture} SAE of {own.latents} latents, not this one")
    if name == "topk":
        return TopK(latents=m, k=config.get("k", 0))
    kinds: dict[str, type[SAEConfig]] = {"standard": ReLU, "gated": Gated, "jumprelu": JumpReLU}
    return kinds[name](latents=m)
