"""The native layout: a folder that SAELens (6 and on) reads as its own.

cfg.json                 architecture, sizes, metadata
sae_weights.safetensors  W_enc (d, m), W_dec (m, d), b_enc, b_dec, threshold, ...
sparsity.safetensors     optional: log10 of the share of inputs on which each latent is active

Mean and scale of the inputs are folded into the weights, so that any reader gets raw activations right. They are also
in the metadata. A BatchTopK or Matryoshka SAE is written as the JumpReLU it is at inference.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from sae.architectures.base import ARCHITECTURES, SAE, SAEConfig, config_from_dict
from sae.errors import FormatError, shorten
from sae.evaluation.metrics import log10_density
from sae.formats.atomic_pair import OURS, Pair
from sae.formats.detect import SavedFiles, read_safetensors
from sae.formats.parameter_names import assembled, parameters_of, roles_of, subtracting, tensors_of, values_of
from sae.formats.registry import Layout, register_layout
from zoo.common.files import write_atomically

log = logging.getLogger(__name__)

FILES = Pair("cfg.json", "sae_weights.safetensors")
SPARSITY = "sparsity.safetensors"

VERSION = "6.0.0"
"""Of SAELens, whose layout this is."""

CUSTOM = "custom"
"""The architecture written for a class that SAELens does not have, and therefore refuses."""

TRANSCODERS = {
    "transcoder": ("standard", "transcoder"), "skip_transcoder": ("standard", "skip-transcoder"),
    "jumprelu_transcoder": ("jumprelu", "transcoder"), "jumprelu_skip_transcoder": ("jumprelu", "skip-transcoder"),
}  # fmt: skip
"""SAELens's architectures of transcoders -> that of the SAE, and the kind here. There are none of the others."""

BEFORE_SIX = {
    "model_name", "hook_name", "hook_layer", "hook_head_index", "prepend_bos", "neuronpedia_id", "context_size",
    "seqpos_slice", "dataset_path", "sae_lens_version", "sae_lens_training_version", "model_from_pretrained_kwargs",
}  # fmt: skip
"""What has been metadata since SAELens 6; before, it stood among the settings."""


def to_saelens(sae: SAE) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a folded SAE, as its class declares them."""
    name = _name_of(type(sae), sae.config.kind)
    config: dict[str, Any] = {
        "architecture": name,
        "d_in": sae.d,
        "d_sae": sae.latents,
        "dtype": str(sae.encoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": not sae.transcodes,
        "normalize_activations": "none",
        "reshape_activations": "none",
        # without it, SAELens takes the file for one from before its version 6 and drops the metadata
        "metadata": {"sae_lens_version": VERSION, **sae.metadata},
    }
    config |= {setting: getattr(sae.config, setting) for setting in sae.saelens_settings}
    if sae.transcodes:
        config["d_out"] = sae.d_out
    if name == "topk":
        config["rescale_acts_by_decoder_norm"] = False
    return config, tensors_of(parameters_of(sae), roles_of(type(sae), parameters_of(sae), sae.config.kind))


def _name_of(cls: type[SAE], kind: str) -> str:
    """The architecture of SAELens that a class is at inference, as an SAE or a transcoder."""
    if kind == "sae":
        return cls.saelens or CUSTOM
    return next((name for name, written in TRANSCODERS.items() if written == (cls.saelens, kind)), CUSTOM)


def from_saelens(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SAE:
    """The SAE that a configuration and its tensors describe.

    Settings without a counterpart here become part of the weights: an encoder that does not subtract `b_dec`,
    latents ranked by value times decoder length, latents scaled before they are decoded.

    Raises:
        FormatError: an architecture or setting we cannot represent, or tensors that do not fit.
    """
    config = _modern(config)
    name, own = config.get("architecture", "standard"), own_config(config.get(OURS))
    cls = _class_of(name, own)
    kind = own.kind if own is not None else TRANSCODERS.get(str(name), ("", "sae"))[1]
    transcodes = kind not in ("sae", "crosscoder")
    for key, allowed in (("normalize_activations", ["none"]), ("reshape_activations", ["none", "hook_z"])):
        if (config.get(key) or "none") not in allowed:
            raise FormatError(
                f"{key} is {shorten(config[key], 40)!r}: fold it into the weights with SAELens first (here: none)"
            )
    tensors, scaling = _without_scaling(config, tensors)
    if "jumprelu" in str(name) and "threshold" not in tensors and "log_threshold" in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").exp()  # training checkpoints of older versions
    values = values_of(tensors, roles_of(cls, tensors, kind), f"a {name}" if transcodes else f"a {name} SAE")
    m, d = values["encoder"].shape
    sizes = {"d_in": d, "d_sae": m} | ({} if not transcodes else {"d_out": values["decoder"].shape[1]})
    if any(config.get(name, size) != size for name, size in sizes.items()):
        stated = ", ".join(f"{name}={shorten(config.get(name), 20)}" for name in sizes)
        raise FormatError(f"cfg.json says {stated}; W_dec is {tuple(values['decoder'].shape)}")
    if transcodes and config.get("apply_b_dec_to_input", False):
        raise FormatError("apply_b_dec_to_input is set, but b_dec of a transcoder belongs to what it writes")
    if not transcodes and not config.get("apply_b_dec_to_input", True):
        values = subtracting(values)
    if config.get("rescale_acts_by_decoder_norm", False):
        norms = values["decoder"].norm(dim=1)
        if not bool((norms > 0).all()):
            raise FormatError("rescale_acts_by_decoder_norm is set, but a row of W_dec is zero")
        values["encoder"] = values["encoder"] * norms[:, None]
        values["encoder_bias"] = values["encoder_bias"] * norms
        values["decoder"] = values["decoder"] / norms[:, None]
    if scaling is not None:
        values["decoder"] = values["decoder"] * scaling[:, None]
    settings = {setting: config.get(setting, 0) for setting in cls.saelens_settings}
    sae = assembled(own or cls.Config(latents=m, kind=kind, **settings), values)  # type: ignore[arg-type]
    sae.metadata = dict(config.get("metadata", {}))
    _warn_of_changed_model(sae.metadata)
    return sae


def _warn_of_changed_model(metadata: Mapping[str, Any]) -> None:
    """Say that an SAE was trained on a changed network, whose activations are not those of the stored one."""
    given = metadata.get("model_from_pretrained_kwargs")
    changed = {k: v for k, v in given.items() if v and k not in _SAME_MODEL} if isinstance(given, dict) else {}
    if changed:
        log.warning(
            "this SAE was trained on a network that SAELens loaded with %s; the network as it is stored has other "
            "activations (with centered writing weights, each token's mean over channels is taken off), and its "
            "latents mean something else there",
            shorten(", ".join(f"{key}={value}" for key, value in sorted(changed.items())), 200),
        )


#: options of loading that change no activation but by rounding
_SAME_MODEL = (
    "dtype", "torch_dtype", "device", "device_map", "n_devices", "revision", "cache_dir", "trust_remote_code", "token",
)  # fmt: skip


def _modern(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration from before SAELens 6 in today's terms: there, TopK was an activation function."""
    if "metadata" not in config:
        config = {("hook_name" if key == "hook_point" else key): value for key, value in config.items()}
        config["metadata"] = {key: config[key] for key in sorted(BEFORE_SIX & config.keys())}
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if activation in ("relu", None):
        return config
    arguments = config.get("activation_fn_kwargs")
    if activation == "topk" and isinstance(arguments, dict) and "k" in arguments:
        return {**config, "architecture": "topk", "k": arguments["k"]}
    raise FormatError(f"activation function {shorten(activation, 40)!r} cannot be read; there are relu and topk")


def _without_scaling(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Tensors less the factors `(m,)` of a finetuned SAE from before SAELens 6, and these where they do anything."""
    rest = dict(tensors)
    factors = rest.pop("finetuning_scaling_factor", rest.pop("scaling_factor", None))
    if factors is None or bool((factors.float() == 1).all()):
        return rest, None
    if not config.get("finetuning_scaling_factor"):
        raise FormatError("there is a scaling_factor, but finetuning_scaling_factor is not set: are they meant or not?")
    if "W_dec" not in rest or tuple(factors.shape) != tuple(rest["W_dec"].shape[:1]) or not factors.isfinite().all():
        raise FormatError(f"scaling_factor is {tuple(factors.shape)}; it must be one finite number per latent")
    return rest, factors.float()


def _class_of(name: Any, own: SAEConfig | None) -> type[SAE]:
    """The class of an SAE in a file: the one it was trained as here, else ours of the same name as SAELens's."""
    if own is not None:
        cls = ARCHITECTURES[own.architecture]
        if _name_of(cls, own.kind) != name:
            raise mismatch(own)
        return cls
    names = sorted({cls.saelens for cls in ARCHITECTURES.values() if cls.saelens} | set(TRANSCODERS))
    if name not in names:
        raise FormatError(f"architecture {shorten(name, 40)!r} cannot be read; there are {', '.join(names)}")
    name = TRANSCODERS.get(name, (name, ""))[0]
    return ARCHITECTURES["relu" if name == "standard" else name]


def own_config(about: Any) -> SAEConfig | None:
    """The configuration that an SAE was trained with here, from our part of the file's configuration."""
    if not isinstance(about, dict) or not isinstance(about.get("config"), dict):
        return None
    return config_from_dict(about["config"])


def mismatch(own: SAEConfig) -> FormatError:
    """The error for a file whose tensors are not those of the configuration in it."""
    return FormatError(f"its metadata describe a {own.architecture} SAE of {own.latents} latents, not this one")


@register_layout
class SAELens(Layout):
    """See the module."""

    name = "saelens"
    description = f"{FILES.config} with {FILES.weights}"
    weights = FILES.weights
    density = True
    transcoders = True
    crosscoders = True

    def detects(self, files: SavedFiles) -> bool:
        return files.has(FILES.weights)

    def read(self, files: SavedFiles) -> SAE:
        tensors = read_safetensors(files.folder / FILES.weights)
        return from_saelens(FILES.read_config(files.folder), tensors)

    def write(self, folder: Path, sae: SAE, about: dict[str, Any]) -> None:
        config, tensors = to_saelens(sae)
        FILES.write(folder, config, tensors, about, lambda values, path: save_file(values, path))
        (folder / SPARSITY).unlink(missing_ok=True)  # of an SAE that was here before


def write_density(folder: Path, density: Tensor) -> None:
    """Write the share `(m,)` of inputs on which each latent is active, in the file that SAELens reads it from."""
    sparsity = {"sparsity": log10_density(density).float().cpu()}
    write_atomically(folder / SPARSITY, lambda temporary: save_file(sparsity, temporary))
