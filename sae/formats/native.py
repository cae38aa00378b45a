"""The native layout: a folder that SAELens (6 and on) reads as its own.

cfg.json                 architecture, sizes, metadata
sae_weights.safetensors  W_enc (d, m), W_dec (m, d), b_enc, b_dec, threshold, ...
sparsity.safetensors     optional: log10 of the share of inputs on which each latent fires

Mean and scale of the inputs are folded into the weights, so that any reader gets raw activations right;
they are kept in the metadata. A BatchTopK or Matryoshka SAE is written as the JumpReLU it is at inference.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sae.base import SAE
from sae.errors import FormatError, SAEError, shorten
from sae.formats.saelens import OURS, from_saelens, to_saelens
from sae.metrics import log10_density
from sae.training import Run
from zoo.files import write_atomically, write_text_atomically

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
NEXT = ".cfg.json.next"
SCHEMA = 1


def save(path: str | Path, sae: SAE | Run, *, density: Tensor | None = None) -> Path:
    """Write an SAE, or the one of a run, into a folder; an SAE that was there is replaced, whole or not at all.

    Args:
        path: a folder: new, empty, or one with an SAE.
        sae: the SAE or run.
        density: `(m,)` share of inputs on which each latent fires, for `sparsity.safetensors`.

    Returns:
        The folder.

    Raises:
        FormatError: the folder holds other things, weights that are not finite, or metadata that are no JSON.
        FileError: the disk does not take it; an SAE that was there still is.

    >>> save("my-sae", runs[0])  # doctest: +SKIP
    """
    folder = Path(path).expanduser()
    run = sae if isinstance(sae, Run) else None
    model = sae.sae if isinstance(sae, Run) else sae
    if not isinstance(model, SAE):
        raise FormatError(f"save writes an SAE or a run; got {type(sae).__name__}")
    if folder.exists() and not folder.is_dir():
        raise FormatError(f"{folder} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG).exists() and not (folder / WEIGHTS).exists():
        raise FormatError(f"{folder} has other things in it and no {CONFIG}; give a new folder")
    folded = model.folded().cpu()
    config, tensors = to_saelens(folded)
    bad = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise FormatError(f"the SAE has values that are not finite in {', '.join(bad)}: it is not written")
    about: dict[str, Any] = {"schema": SCHEMA, "config": model.config.to_dict()}
    if run is not None:
        about |= {"name": run.name, "steps": run.steps, "samples": run.samples, "status": run.status}
        about |= {"training": dict(run.provenance)}
    try:
        json.dumps([config, about], allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FormatError(f"the metadata cannot be written as JSON: {shorten(error)}") from error
    _write_pair(folder, config, tensors, about)
    if density is not None:
        sparsity = {"sparsity": log10_density(density).float().cpu()}
        write_atomically(folder / SPARSITY, lambda temporary: save_file(sparsity, temporary))
    else:  # of an SAE that was here before
        (folder / SPARSITY).unlink(missing_ok=True)
    return folder


def _write_pair(folder: Path, config: dict[str, Any], tensors: Mapping[str, Tensor], about: dict[str, Any]) -> None:
    """Two files as if they were one.

    The new configuration waits beside the old one, with the digest of the new weights in it, before these take
    their place. Whenever the process is killed, one of the two configurations fits the weights that are there.
    """

    def weights(temporary: Path) -> None:
        save_file(dict(tensors), temporary)
        about["weights_sha256"] = _sha256(temporary)
        # not in the metadata: SAELens would carry it on to weights that it changed
        text = json.dumps({**config, OURS: about}, indent=1, allow_nan=False)
        write_text_atomically(folder / NEXT, text)

    write_atomically(folder / WEIGHTS, weights)
    os.replace(folder / NEXT, folder / CONFIG)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(path: str | Path, *, device: str | torch.device = "cpu") -> SAE:
    """Read an SAE in the native layout, ours or one that SAELens wrote.

    Of ours, `encode` and `decode` give the bits that the saved SAE gave. What comes back reads raw
    activations: mean and scale are folded in, and kept in `metadata["input"]`.

    Args:
        path: the folder; device: where to put the SAE.

    Raises:
        FormatError: no such folder, files missing, damaged, or of another layout; it says which.

    >>> load("my-sae").latents  # doctest: +SKIP
    4096
    """
    folder = Path(path).expanduser()
    if not (folder / WEIGHTS).is_file():
        raise FormatError(_what_is_here(folder))
    config = _read_config(folder)
    tensors = _read_weights(folder / WEIGHTS)
    try:
        model = from_saelens(config, tensors)
    except FormatError as error:
        raise FormatError(f"{folder}: {error}") from error
    except SAEError as error:
        raise FormatError(f"{folder} is damaged: {error}") from error
    return model.eval().requires_grad_(False).to(device)


def _read_config(folder: Path) -> dict[str, Any]:
    """The configuration that belongs to the weights."""
    found, digest, wrong = [], None, False
    for name in (CONFIG, NEXT):
        if not (folder / name).is_file():
            continue
        try:
            config = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            if name == CONFIG:
                raise FormatError(f"{folder / name} is no JSON, it may be truncated: {shorten(error)}") from error
            continue
        if not isinstance(config, dict) or not isinstance(config.get("metadata", {}), dict):
            raise FormatError(f"{folder / name} is not the configuration of an SAE")
        about = config.get(OURS)
        stated = about.get("weights_sha256") if isinstance(about, dict) else None
        if isinstance(about, dict) and about.get("schema") != SCHEMA:
            raise FormatError(f"{folder} has schema {shorten(about.get('schema'), 20)}; this version reads {SCHEMA}")
        if stated is not None:
            digest = digest or _sha256(folder / WEIGHTS)
            if stated != digest:
                wrong = True
                continue
        found.append(config)
    if found:
        return found[0]
    if wrong:
        raise FormatError(f"{folder / WEIGHTS} is damaged: its digest is not the one in {CONFIG}")
    raise FormatError(f"{folder} has {WEIGHTS}, but no {CONFIG}")


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read, it may be truncated: {shorten(error, 120)}") from error


def _what_is_here(folder: Path) -> str:
    if not folder.exists():
        return f"no SAE at {folder}: there is no such folder"
    if folder.is_file():
        return f"{folder} is a file; an SAE is a folder with {CONFIG} and {WEIGHTS}"
    layouts = {
        "ae.pt": "dictionary_learning", "sae.safetensors": "sparsify", "params.npz": "Gemma Scope",
        "final.safetensors": "Llama Scope", "sae.pt": "BatchTopK",
    }  # fmt: skip
    for name, layout in layouts.items():
        if (folder / name).is_file():
            return f"{folder} holds {name}, the layout of {layout}; load reads {CONFIG} with {WEIGHTS}"
    return f"{folder} has no {WEIGHTS}: it holds no SAE, or half of one"
