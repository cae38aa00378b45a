"""The layout of dictionary_learning: a folder with `ae.pt`, a state dict, and `config.json`.

The class named in the configuration (`trainer.dict_class`) says what the tensors mean. What differs from ours:
AutoEncoderNew and JumpReluAutoEncoder do not subtract `b_dec` before they encode; the threshold of the BatchTopK
classes is one number; an AutoEncoder whose decoder's columns are not of length one is rescaled when it is loaded
there, so that we write such an SAE as an AutoEncoderNew, which is not.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.architectures.base import ARCHITECTURES, SAE
from sae.architectures.matryoshka import Matryoshka
from sae.errors import FormatError, shorten
from sae.formats.atomic_pair import OURS, Pair
from sae.formats.detect import SavedFiles, read_json, read_torch
from sae.formats.parameter_names import Roles, assembled, parameters_of, subtracting, tensors_of, values_of
from sae.formats.registry import Layout, register_layout
from sae.formats.saelens import own_config

log = logging.getLogger(__name__)

FILES = Pair("config.json", "ae.pt")
NAME = "dictionary_learning"
UNSET = -1.0
"""Their threshold before training has set one: every latent above zero is active."""


@dataclass(frozen=True)
class _Class:
    """One of their classes: its tensors, the architectures of ours it can hold, whether it subtracts its bias."""

    roles: Roles
    holds: tuple[str, ...]
    subtracts: bool = True


_LINEAR: Roles = {
    "encoder": ("encoder.weight", "md"), "encoder_bias": ("encoder.bias", "m"), "decoder": ("decoder.weight", "dm"),
}  # fmt: skip
_PLAIN: Roles = {
    "encoder": ("W_enc", "dm"), "encoder_bias": ("b_enc", "m"), "decoder": ("W_dec", "md"),
    "decoder_bias": ("b_dec", "d"),
}  # fmt: skip
_NUMBERS: Roles = {"k": ("k", ""), "threshold": ("threshold", "")}

CLASSES = {
    "AutoEncoder": _Class({**_LINEAR, "decoder_bias": ("bias", "d")}, ("relu",)),
    "AutoEncoderNew": _Class({**_LINEAR, "decoder_bias": ("decoder.bias", "d")}, ("relu",), subtracts=False),
    "GatedAutoEncoder": _Class(
        {
            "encoder": ("encoder.weight", "md"), "encoder_bias": ("gate_bias", "m"),
            "decoder": ("decoder.weight", "dm"), "decoder_bias": ("decoder_bias", "d"),
            "magnitude_bias": ("mag_bias", "m"), "magnitude_scale": ("r_mag", "m"),
        },
        ("gated",),
    ),
    "AutoEncoderTopK": _Class({**_LINEAR, "decoder_bias": ("b_dec", "d"), **_NUMBERS}, ("topk",)),
    "BatchTopKSAE": _Class({**_LINEAR, "decoder_bias": ("b_dec", "d"), **_NUMBERS}, ("batchtopk",)),
    "MatryoshkaBatchTopKSAE": _Class({**_PLAIN, **_NUMBERS, "group_sizes": ("group_sizes", "g")}, ("matryoshka",)),
    "JumpReluAutoEncoder": _Class(
        {**_PLAIN, "threshold": ("threshold", "m")}, ("jumprelu", "batchtopk", "matryoshka"), subtracts=False
    ),
}  # fmt: skip


# -- reading ------------------------------------------------------------------------------------------


def _config_for(file: Path) -> dict[str, Any]:
    """The configuration beside a file of weights, or above it if it is a checkpoint; empty if there is none."""
    if file.name == FILES.weights and any((file.parent / n).is_file() for n in (FILES.config, FILES.waiting)):
        return FILES.read_config(file.parent)
    for folder in (file.parent, file.parent.parent):
        if (folder / FILES.config).is_file():
            return read_json(folder / FILES.config)
        if file.parent.name != "checkpoints":
            break
    return {}


def from_dictionary_learning(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SAE:
    """The SAE that a configuration (which may be empty) and its tensors describe.

    Raises:
        FormatError: a class that we cannot represent, or tensors that are not of the class.
    """
    trainer, metadata = config.get("trainer", {}), config.get("metadata", {})
    if not isinstance(trainer, dict) or not isinstance(metadata, dict):
        raise FormatError(f"{FILES.config}: trainer or metadata is not a group of settings")
    name = _class_name(trainer.get("dict_class"), tensors)
    kind = CLASSES[name]
    # older files have the threshold of a TopK nowhere, which does not use it, and its k in the configuration
    optional = ("k", "threshold") if name == "AutoEncoderTopK" else ()
    values = values_of(tensors, kind.roles, f"the class {name}", optional)
    m, d = values["encoder"].shape
    stated = (trainer.get("dict_size", m), trainer.get("activation_dim", d))
    if stated != (m, d):
        sizes = f"activation_dim={shorten(stated[1], 30)}, dict_size={shorten(stated[0], 30)}"
        raise FormatError(f"{FILES.config} has {sizes}; it is {d}, {m}")
    source = {"format": NAME, "class": name, **{key: config[key] for key in ("trainer", "buffer") if key in config}}
    k = _k(values.pop("k", None), trainer) if "k" in kind.roles else None
    groups = values.pop("group_sizes", None)
    if "threshold" in values and values["threshold"].ndim == 0:
        source["threshold"] = float(values["threshold"])
        values["threshold"] = _threshold(name, values["threshold"]).expand(m)
    if not kind.subtracts:
        values = subtracting(values)
    about = config.get(OURS)
    own = own_config(about)
    if own is not None and name not in _classes_for(ARCHITECTURES[own.architecture]):
        raise FormatError(f"its metadata describe a {own.architecture} SAE, which is not written as {name}")
    if own is None:
        cls = ARCHITECTURES[kind.holds[0]].Config
        settings: dict[str, Any] = {
            "k": k or 0,
            "groups": None if groups is None else tuple(int(size) for size in groups),
        }
        names = {field.name for field in dataclasses.fields(cls)}
        own = cls(latents=m, **{key: value for key, value in settings.items() if key in names})
    sae = assembled(own, values)
    sae.metadata = dict(metadata) if isinstance(about, dict) else {**metadata, "source": source}
    return sae


def _possible(state: Mapping[Any, Any]) -> list[str]:
    """The classes whose tensors these are."""
    return [name for name, kind in CLASSES.items() if {there for there, _ in kind.roles.values()} == set(state)]


def _class_name(stated: object, tensors: Mapping[str, Tensor]) -> str:
    if stated is not None:
        if not isinstance(stated, str) or stated not in CLASSES:
            raise FormatError(f"dict_class {shorten(stated, 40)!r} cannot be read; there are {', '.join(CLASSES)}")
        return stated
    possible = _possible(tensors)
    if len(possible) == 1:
        return possible[0]
    if possible:
        raise FormatError(f"{' and '.join(possible)} have the same tensors, and no {FILES.config} says which it is")
    keys = ", ".join(shorten(key, 30) for key in sorted(tensors)[:8])
    raise FormatError(f"no {FILES.config} names a class, and no class has the tensors {keys}")


def _k(stored: Tensor | None, trainer: Mapping[str, Any]) -> int:
    stated = trainer.get("k")
    if stored is None and stated is None:
        raise FormatError(f"k is neither in the tensors nor in {FILES.config}")
    k = stated if stored is None else stored.item()
    if stated not in (None, k) or not isinstance(k, int):
        raise FormatError(f"k is {shorten(k, 20)}, and {shorten(stated, 20)} in {FILES.config}")
    return k


def _threshold(name: str, value: Tensor) -> Tensor:
    if float(value) < 0 and name != "AutoEncoderTopK":
        log.warning("%s: its threshold was never set, every latent above zero is active, as it is there", name)
    return value.float()


# -- writing ------------------------------------------------------------------------------------------


def to_dictionary_learning(sae: SAE) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a folded SAE, for `load_dictionary` there.

    Raises:
        FormatError: an architecture that dictionary_learning does not have.
    """
    values = {name: value.float() for name, value in parameters_of(sae).items()}
    name = _class_for(sae, values)
    kind = CLASSES[name]
    source = sae.metadata.get("source")
    source = source if isinstance(source, dict) and source.get("format") == NAME else {}
    if not kind.subtracts:
        values = subtracting(values, undo=True)
    if kind.roles.get("threshold") == ("threshold", ""):
        first = values["threshold"][0] if "threshold" in values else torch.tensor(source.get("threshold", UNSET))
        values["threshold"] = first
    k = getattr(sae.config, "k", None)
    if "k" in kind.roles:
        values["k"] = torch.tensor(k, dtype=torch.int)
    if isinstance(sae.config, Matryoshka):
        ends = sae.config.prefixes
        values["group_sizes"] = torch.tensor([end - start for start, end in zip((0, *ends), ends, strict=False)])
    # what their own tools look up in a configuration
    settings = source.get("trainer") or {
        "trainer_class": OURS, "lm_name": str(sae.metadata.get("model", sae.metadata.get("model_name", ""))),
        "layer": sae.metadata.get("layer"), "submodule_name": sae.metadata.get("layer"), "wandb_name": name,
    }  # fmt: skip
    trainer = {**settings, "dict_class": name, "activation_dim": sae.d, "dict_size": sae.latents}
    if "k" in kind.roles:
        trainer["k"] = k
    buffer = source.get("buffer", {"d_submodule": sae.d, "ctx_len": sae.metadata.get("context_size")})
    return {"trainer": trainer, "buffer": buffer, "metadata": sae.metadata}, tensors_of(values, kind.roles)


def _class_for(sae: SAE, values: Mapping[str, Tensor]) -> str:
    """The class that encodes and decodes as this SAE does, also after what loading does to it there."""
    classes = _classes_for(type(sae))
    if not classes:
        names = ", ".join(sorted({name for kind in CLASSES.values() for name in kind.holds}))
        raise FormatError(f"{NAME} has no class like {sae.config.architecture!r}; it can hold {names}")
    if classes[0] == "AutoEncoder":
        lengths = values["decoder"].norm(dim=1)
        return classes[0 if torch.allclose(lengths, torch.ones_like(lengths)) else 1]
    threshold = values.get("threshold")
    single = threshold is None or bool((threshold == threshold[0]).all())
    return classes[0 if single else -1]


def _classes_for(cls: type[SAE]) -> list[str]:
    """Their classes that can hold an architecture of ours, or else the one that it is derived from."""
    if cls.saelens is None:  # it has tensors of its own, which are not those of what it is derived from
        return []
    for base in cls.__mro__:
        if "Config" in vars(base):
            classes = [name for name, kind in CLASSES.items() if vars(base)["Config"].architecture in kind.holds]
            if classes:
                return classes
    return []


@register_layout
class DictionaryLearning(Layout):
    """See the module."""

    name = NAME
    description = f"{FILES.weights} with {FILES.config}, or another .pt of its classes"
    weights = FILES.weights

    def detects(self, files: SavedFiles) -> bool:
        if files.torch_file is None:
            return files.has(FILES.weights)
        return isinstance(files.state, dict) and ("ae" in files.state or bool(_possible(files.state)))

    def read(self, files: SavedFiles) -> SAE:
        file = files.torch_file or files.folder / FILES.weights
        state = files.state if files.torch_file else read_torch(file)
        config = _config_for(file)
        if isinstance(state, dict) and isinstance(state.get("ae"), dict):
            raise FormatError(
                f"{file.name} is a backup from within a training (step {shorten(state.get('step', '?'), 20)}), whose "
                "weights are for normalized inputs. Take the ae.pt that the finished training writes, or "
                "checkpoints/ae_<step>.pt"
            )
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise FormatError(f"{file.name} is not a state dict of tensors")
        return from_dictionary_learning(config, {str(key): value for key, value in state.items()})

    def write(self, folder: Path, sae: SAE, about: dict[str, Any]) -> None:
        config, tensors = to_dictionary_learning(sae)
        FILES.write(folder, config, tensors, about, lambda values, path: torch.save(values, path))
