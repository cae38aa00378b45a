"""The layouts of files there are, and reading and writing SAEs in whichever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.architectures.base import SAE
from sae.errors import FormatError, SAEError, did_you_mean, shorten
from sae.formats import dictionary_learning, gemma_scope, native, openai, sparsify
from sae.formats.detect import Found, Layout
from sae.training.train import Run

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (native.LAYOUT, dictionary_learning.LAYOUT, sparsify.LAYOUT, gemma_scope.LAYOUT, openai.LAYOUT)
}
"""Name -> what recognizes, reads and writes it."""

UNREAD = {
    "final.safetensors": "Llama Scope",
    "hyperparams.json": "Llama Scope",
    "sae.pt": "BatchTopK",
}
"""Files of layouts that we know and do not read."""


def save(path: str | Path, sae: SAE | Run, *, format: str = "saelens", density: Tensor | None = None) -> Path:
    """Write an SAE, or the one of a run, into a folder; an SAE that was there is replaced, whole or not at all.

    Args:
        path: a folder: new, empty, or one with an SAE of this layout.
        sae: the SAE or run.
        format: "saelens" or "dictionary_learning".
        density: `(m,)` share of inputs on which each latent fires, for SAELens's `sparsity.safetensors`.

    Returns:
        The folder.

    Raises:
        FormatError: the folder holds other things, weights that are not finite, metadata that are no JSON, or an
            architecture that the layout does not have.
        FileError: the disk does not take it; an SAE that was there still is.

    >>> save("my-sae", runs[0])  # doctest: +SKIP
    """
    layout = _named(format)
    if layout.writes is None:
        able = ", ".join(name for name, each in LAYOUTS.items() if each.writes)
        raise FormatError(f"{layout.name} is only read, not written; write one of {able}")
    folder = Path(path).expanduser()
    model = sae.sae if isinstance(sae, Run) else sae
    if not isinstance(model, SAE):
        raise FormatError(f"save writes an SAE or a run; got {type(sae).__name__}")
    if density is not None and layout is not native.LAYOUT:
        raise FormatError(f"{layout.name} has no place for densities; save without density=, or as saelens")
    if folder.exists() and not folder.is_dir():
        raise FormatError(f"{folder} is a file; give a folder")
    here = Found(folder) if folder.is_dir() else None
    # names with a dot are what a save that was killed left over
    if here and any(not name.startswith(".") for name in here.names) and not here.has(layout.weights):
        raise FormatError(f"{folder} has other things in it and no {layout.weights}; give a new folder")
    about: dict[str, Any] = {"config": model.config.to_dict()}
    if isinstance(sae, Run):
        about |= {"name": sae.name, "steps": sae.steps, "samples": sae.samples, "status": sae.status}
        about |= {"training": dict(sae.provenance)}
    layout.writes(folder, model.folded().cpu(), about)
    if density is not None:
        native.write_density(folder, density)
    return folder


def load(path: str | Path, *, format: str = "auto", device: str | torch.device = "cpu") -> SAE:
    """Read an SAE in any of the known layouts.

    Of what `save` wrote, `encode` and `decode` give what the saved SAE gave: its bits with SAELens's layout. What
    comes back reads raw activations: mean and scale are folded in, and kept in `metadata["input"]`. For other
    programs' files `metadata["source"]` says where the SAE comes from.

    Args:
        path: the folder, or a file of it. Layouts: SAELens, dictionary_learning, sparsify, Gemma Scope, openai.
        format: "auto" looks what it is; or "saelens", "dictionary_learning", "sparsify", "gemma_scope", "openai".
        device: where to put the SAE.

    Raises:
        FormatError: nothing there, files missing, damaged, or of no known layout; it says which.

    >>> load("my-sae").latents  # doctest: +SKIP
    4096
    """
    asked = None if format == "auto" else _named(format)
    place = Path(path).expanduser()
    if not place.exists():
        raise FormatError(f"no SAE at {place}: there is no such file or folder")
    found = Found(place)
    try:
        model = (asked or _recognized(found)).reads(found)
    except FormatError as error:
        raise FormatError(f"{place}: {error}") from error
    except SAEError as error:
        raise FormatError(f"{place} is damaged: {error}") from error
    return model.eval().requires_grad_(False).to(device)


def _named(name: str) -> Layout:
    if name not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise FormatError(f"no format {shorten(name)!r}.{did_you_mean(str(name), LAYOUTS)} There are {known}")
    return LAYOUTS[name]


def _recognized(found: Found) -> Layout:
    fitting = [layout for layout in LAYOUTS.values() if layout.detects(found)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(layout.name for layout in fitting)
        raise FormatError(f"files of more than one layout: {names}; say which with format=")
    known = "; ".join(f"{layout.name}: {layout.files}" for layout in LAYOUTS.values())
    raise FormatError(f"{_seen(found)}. Known layouts: {known}")


def _seen(found: Found) -> str:
    """What is there instead of an SAE."""
    for name, layout in UNREAD.items():
        if found.has(name):
            return f"it holds {name}, the layout of {layout}, which is not read"
    if not found.path.is_dir():
        return f"a file of no known layout{_inside(found)}"
    deeper = _deeper(found.folder)
    if deeper:
        return f"it holds no SAE itself, but its folders do: {', '.join(deeper)}"
    if not found.names:
        return "the folder is empty"
    if found.has("cfg.json", "config.json"):
        return "it holds a configuration without weights: half of an SAE"
    return f"it holds no SAE, but {', '.join(shorten(name, 40) for name in sorted(found.names)[:6])}"


def _inside(found: Found) -> str:
    """What a torch file holds, for those who wonder why it is not read."""
    if found.torch_file is None:
        return ""
    if not isinstance(found.state, dict):
        return f" (it holds a {type(found.state).__name__})"
    if "dictionary._weights" in found.state:
        return " (a state dict of overcomplete, which says neither which kind of SAE it is nor its k)"
    return f" (it holds {', '.join(shorten(key, 30) for key in list(found.state)[:6])})"


def _deeper(folder: Path, most: int = 4) -> list[str]:
    """Names of the folder's folders that hold an SAE."""
    names = []
    try:
        for inner in sorted(p for p in folder.iterdir() if p.is_dir())[:200]:
            if any(layout.detects(Found(inner)) for layout in LAYOUTS.values()):
                names.append(shorten(inner.name, 60))
    except OSError:
        return names
    return [*names[:most], "…"] if len(names) > most else names
