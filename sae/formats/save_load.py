"""Reading and writing SAEs, in any layout."""

from __future__ import annotations

import contextlib
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from sae.architectures.base import SAE
from sae.errors import FormatError, SAEError, shorten
from sae.formats.atomic_pair import OURS
from sae.formats.detect import SavedFiles
from sae.formats.registry import LAYOUTS, Layout
from sae.formats.saelens import FILES, own_config, write_density
from sae.training.reporting import read_reports
from sae.training.train import Run
from zoo.common.reading import Count, fits

UNREAD = {
    "final.safetensors": "Llama Scope",
    "hyperparams.json": "Llama Scope",
    "sae.pt": "BatchTopK",
}
"""Files of layouts that are known and not read."""


REPORTS = "reports.jsonl"
"""Of a training, where the command line puts them."""


def save(path: str | Path, sae: SAE | Run, *, format: str = "saelens", density: Tensor | None = None) -> Path:
    """Write an SAE, or the one of a run, into a folder; an SAE that was there is replaced, whole or not at all.

    Args:
        path: a folder: new, empty, or one with an SAE of this layout.
        sae: the SAE or run.
        format: "saelens", "dictionary_learning", or another layout of `LAYOUTS` that is written.
        density: `(m,)` share of inputs on which each latent is active, for SAELens's `sparsity.safetensors`.

    Returns:
        The folder.

    Raises:
        FormatError: the folder holds other files, weights that are not finite, metadata that are not JSON, or an
            architecture that the layout does not have.
        FileError: the files cannot be written; an SAE that was there still is.

    >>> save("my-sae", runs[0])  # doctest: +SKIP
    """
    layout = LAYOUTS[format]
    folder = Path(path).expanduser()
    model = sae.sae if isinstance(sae, Run) else sae
    if not isinstance(model, SAE):
        raise FormatError(f"save writes an SAE or a run; got {type(sae).__name__}")
    if model.config.written and layout.writable and not layout.crosscoders:
        able = ", ".join(name for name, other in LAYOUTS.items() if other.crosscoders)
        raise FormatError(f"{layout.name} has no place for several sources or targets; save as {able}")
    if model.transcodes and layout.writable and not layout.transcoders:
        able = ", ".join(name for name, other in LAYOUTS.items() if other.transcoders)
        raise FormatError(f"{layout.name} has no place for transcoders; save as {able}")
    if density is not None and not layout.density:
        raise FormatError(f"{layout.name} has no place for densities; save without density=, or as saelens")
    check_folder(folder, layout)
    about: dict[str, Any] = {"config": model.config.to_dict()}
    if isinstance(sae, Run):
        about |= {"name": sae.name, "steps": sae.steps, "samples": sae.samples, "status": sae.status}
        about |= {"training": dict(sae.provenance)}
    layout.write(folder, model.folded().cpu(), about)
    if density is not None:
        write_density(folder, density)
    return folder


def check_folder(folder: Path, layout: Layout | None = None) -> None:
    """Whether `save` may write into a folder; a training asks before it begins.

    Raises:
        FormatError: it is a file, or holds other things than an SAE of this layout (default: SAELens's).
    """
    layout = layout or LAYOUTS["saelens"]
    if folder.exists() and not folder.is_dir():
        raise FormatError(f"{folder} is a file; give a folder")
    files = SavedFiles(folder) if layout.writable and folder.is_dir() else None
    # names with a dot are of a save that was killed
    if files and any(not name.startswith(".") for name in files.names) and not files.has(layout.weights):
        raise FormatError(f"{folder} has other things in it and no {layout.weights}; give a new folder")


def load(path: str | Path, *, format: str = "auto", k: int | None = None, device: str | torch.device = "cpu") -> SAE:
    """Read an SAE in any of the known layouts.

    Of what `save` wrote, `encode` and `decode` give what the saved SAE gave, in SAELens's layout bit for bit. The SAE
    takes raw activations: mean and scale are folded in, and are also in `metadata["input"]`. For files of other
    programs `metadata["source"]` has the layout and its settings.

    Args:
        path: the folder, or a file of it. Layouts: SAELens, dictionary_learning, sparsify, Gemma Scope, openai,
            overcomplete, circuit-tracer.
        format: "auto" detects the layout; or its name in `LAYOUTS`: "saelens", "dictionary_learning", "sparsify",
            "gemma_scope", "openai", ...
        k: active latents of an SAE of overcomplete, whose files do not say.
        device: where to put the SAE.

    Raises:
        FormatError: no such file, files missing, damaged, or of no known layout; the message has the reason.

    >>> load("my-sae").latents  # doctest: +SKIP
    4096
    """
    layout = None if format == "auto" else LAYOUTS[format]
    source = Path(path).expanduser()
    if not source.exists():
        raise FormatError(f"no SAE at {source}: there is no such file or folder")
    files = SavedFiles(source, k)
    try:
        chosen = layout or _detected(files)
        if k is not None and chosen.name != "overcomplete":
            raise FormatError(f"k= is for files of overcomplete; a file of {chosen.name} says its own")
        model = chosen.read(files)
    except FormatError as error:
        raise FormatError(f"{source}: {error}") from error
    except SAEError as error:
        raise FormatError(f"{source} is damaged: {error}") from error
    return model.eval().requires_grad_(False).to(device)


class _Record(TypedDict):
    config: dict[str, Any]
    name: str
    steps: Count
    samples: Count
    status: str
    training: dict[str, Any]


def load_run(path: str | Path) -> Run:
    """The run that `save` wrote into a folder, in SAELens's layout; with its reports, if `reports.jsonl` is beside it.

    Raises:
        FormatError: there is no SAE, it is damaged, or it was saved without its run.
    """
    folder = Path(path).expanduser()
    model = load(folder)
    record = FILES.read_config(folder).get(OURS)
    config = own_config(record)
    try:
        fits(record, _Record)
        assert config is not None and isinstance(record, dict)
    except (ValueError, AssertionError) as error:
        raise FormatError(f"{folder} does not say how its SAE was trained") from error
    return Run(
        record["name"], config, model, record["steps"], record["samples"], record["status"],
        tuple(r for r in read_reports(folder / REPORTS) if r.name == record["name"]), record["training"],
    )  # fmt: skip


def _detected(files: SavedFiles) -> Layout:
    candidates = [layout for layout in LAYOUTS.values() if layout.detects(files)]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(layout.name for layout in candidates)
        raise FormatError(f"files of more than one layout: {names}; say which with format=")
    if subfolders := _subfolders(files.folder) if files.path.is_dir() else []:
        raise FormatError(
            f"it holds no SAE itself, but its folders do: {', '.join(subfolders)}; "
            f"load one of them, {files.folder / subfolders[0]}"
        )
    layouts = "; ".join(f"{layout.name}: {layout.description}" for layout in LAYOUTS.values())
    raise FormatError(f"{_contents(files)}. Known layouts: {layouts}")


def _contents(files: SavedFiles) -> str:
    """What is there instead of an SAE, for messages."""
    for name, layout in UNREAD.items():
        if files.has(name):
            return f"it holds {name}, the layout of {layout}, which is not read"
    if not files.path.is_dir():
        return f"a file of no known layout{_state_contents(files)}"
    if not files.names:
        return "the folder is empty"
    if files.has("cfg.json", "config.json"):
        return "it holds a configuration without weights: half of an SAE"
    return f"it holds no SAE, but {', '.join(shorten(name, 40) for name in sorted(files.names)[:6])}"


def _state_contents(files: SavedFiles) -> str:
    """The contents of a torch file, for messages."""
    if files.torch_file is None:
        return ""
    if not isinstance(files.state, dict):
        return f" (it holds a {type(files.state).__name__})"
    return f" (it holds {', '.join(shorten(key, 30) for key in list(files.state)[:6])})"


def _subfolders(folder: Path, most: int = 4) -> list[str]:
    """Paths inside of it of folders that hold an SAE, at most `most` of them; a run's folders, too, where none does."""
    names: list[str] = []
    for pattern in ("*", "*/*"):
        with contextlib.suppress(OSError, FormatError):
            for inner in sorted(p for p in islice(folder.glob(pattern), 1000) if p.is_dir()):
                if any(layout.detects(SavedFiles(inner)) for layout in LAYOUTS.values()):
                    names.append(shorten(inner.relative_to(folder), 60))
        if names:
            break
    return [*names[:most], "…"] if len(names) > most else names
