"""An edited network written out for a process that has nothing but torch.

Two files. `edited.pt2` is the network as `torch.export` writes it, with the edits among its operations: it needs no
class of anybody, and no hooks. `weights.safetensors` are the weights with the edits folded in, for modules of the
network's own class; it is written where that is exact, see `folding`. Each is run on images before it is kept.
"""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from circuits.common.provenance import provenance
from circuits.dataset.audit.repair.choice import State
from circuits.dataset.audit.repair.folding import folded
from circuits.dataset.audit.repair.tuning import with_weights
from circuits.errors import CircuitsError, EditError, shorten
from circuits.network.hooks import check_mode, run_whole
from circuits.network.interventions import Ablate, Edit, edit
from circuits.network.model import Model
from zoo.common.autograd import outside_inference_mode
from zoo.common.files import move_files, only_writer, scratch
from zoo.common.reading import read_json
from zoo.common.results import Result
from zoo.errors import FileError
from zoo.images.sources import open_images

PROGRAM, WEIGHTS, ABOUT = "edited.pt2", "weights.safetensors", "about.json"
"""What an export writes."""

TOLERANCE = 1e-5
"""Largest difference of an output from the edited run, as a share of the largest output where that is above 1."""

CHECKED = 8
"""Images that an export is checked on."""


@dataclass(frozen=True)
class Export(Result):
    """An edited network in files.

    Attributes:
        model, edits: of which, and what was done to it; weights: names of those that were replaced before.
        folder: where the files are.
        files: `edited.pt2`, loaded by `torch.export.load(file).module()`; and `weights.safetensors` where the edits are
            exactly in weights, loaded by `load_state_dict` of the network's own class.
        difference: largest difference of an output from the edited run on the images that were tried, of any file.
        unfolded: why there are no weights, or "".
    """

    model: str
    edits: tuple[str, ...]
    folder: str
    files: tuple[str, ...]
    difference: float
    unfolded: str
    provenance: dict[str, Any]
    weights: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Export({self.folder}: {', '.join(self.files)}; differs from the edited run by {self.difference:.1e})"


class _Edited(nn.Module):
    """The network under the edits that are active while it is exported."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.module
        vars(self)["_model"] = model  # not as a part: the model holds the same module

    def forward(self, x: Tensor) -> Any:
        """Outputs for images in the network's own range."""
        return run_whole(vars(self)["_model"], x)


@outside_inference_mode
def export(
    model: Model,
    edits: Sequence[Edit],
    out: str | Path,
    *,
    images: Any,
    reference: Any = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Export:
    """Write a network with edits into a folder, so that it runs where there is nothing but torch.

    The module takes what yours takes: images in your network's range, `(x - mean) / std` of `about.json`.

    Args:
        model: the model.
        edits: what is done to it; see `circuits.edit`.
        out: folder, made if it is not there; an earlier export in it is overwritten, files of others are not.
        images: on some of which every file is run before it is kept, in any form that `capture` takes; and on a black
            and a white one.
        reference: images for edits to a mean.
        weights: entries of the network's state that replace its own before the edits: `Repair.weights["retrained"]`.

    Raises:
        EditError: nothing to write out; see `edit`; or the program does not give what the edited run gives.
        ModelError: the network is in training mode.
        CircuitsError: `torch.export` cannot trace the network, weights that it does not have, or the folder has files
            of these names of others.
        FileError: another run writes there, or the files cannot be written; an earlier export is still there.

    >>> export(load("scenes"), [Set("mixed4a:3", 0.0)], "edited", images="scenes:8")  # doctest: +SKIP
    """
    folder = export_folder(out)
    check_mode(model.module, model.name)
    if isinstance(edits, Edit):
        raise EditError("give edits as a list: export(model, [Set(...)], out, images=...)")
    if not edits and not weights:
        raise EditError(f"nothing to write out: {model.name} is as it was; give edits, or weights=")
    resampled = next((change for change in edits if isinstance(change, Ablate) and change.to == "resample"), None)
    if resampled is not None:
        raise EditError(
            f"Ablate({str(resampled.unit)!r}, to='resample') takes another image for each that is run, and a file "
            "holds none: hold the unit at a mean (to='mean' with reference=) or at a constant (Set)"
        )
    if weights:
        model = with_weights(model, weights)
    tried = open_images(images).spread(CHECKED)
    images_01 = tried.tensor(model.input)
    # black and white drive units far from where photographs do; and a program that was traced on one image runs on one
    extremes = torch.stack([torch.zeros_like(images_01[0]), torch.ones_like(images_01[0])])
    x = model.input.normalize(torch.cat([images_01, extremes])).to(model.device, model.dtype)
    with edit(model, edits, reference=reference), torch.no_grad():
        wanted = [run_whole(model, x[:1]), run_whole(model, x)]
        program = _program(model, x)
    content = io.BytesIO()
    with warnings.catch_warnings():  # of a tensor that is part of a larger one, such as a latent's direction
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        torch.export.save(program, content)
    content.seek(0)
    difference = _difference(torch.export.load(content).module(), x, wanted, f"{model.name}: {PROGRAM}")
    state, unfolded = None, ""
    try:
        state = folded(model, edits)
        module = copy.deepcopy(model.module)
        module.load_state_dict(state)
        difference = max(difference, _difference(module, x, wanted, f"{model.name}: {WEIGHTS}"))
    except EditError as error:  # not exact; or a layer of one's own computes from its weights what no row says
        state, unfolded = None, str(error)
    files = [PROGRAM] if state is None else [PROGRAM, WEIGHTS]
    result = Export(
        model=model.name,
        edits=tuple(str(change) for change in edits),
        weights=tuple(weights or ()),
        folder=str(folder),
        files=tuple(files),
        difference=difference,
        unfolded=unfolded,
        provenance=provenance(weights=model.digest, images=tried.name, images_digest=tried.digest),
    )
    about = result.describe() | {
        "input": {
            "shape": list(model.input.shape),
            "mean": list(model.input.mean),
            "std": list(model.input.std),
            "dtype": str(model.dtype).removeprefix("torch."),
        },
        "classes": model.classes,
        "load": {
            PROGRAM: f'network = torch.export.load("{PROGRAM}").module(); network((images - mean) / std)',
            WEIGHTS: f'your_network.load_state_dict(safetensors.torch.load_file("{WEIGHTS}"))',
        },
    }
    _write(folder, content.getvalue(), state, json.dumps(about, indent=1))
    return result


def _write(folder: Path, program: bytes, state: State | None, about: str) -> None:
    """All files of an export in place of those of an earlier one, which stays where the disk is full."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_writer(folder), scratch(folder) as staging:
            export_folder(folder)  # somebody may have written since
            (staging / PROGRAM).write_bytes(program)
            if state is not None:
                save_file({n: t.contiguous() for n, t in state.items()}, staging / WEIGHTS, {"format": "pt"})
            (staging / ABOUT).write_text(about, encoding="utf-8")
            for name in (ABOUT, WEIGHTS):  # moved last, so that what is interrupted is no export
                (folder / name).unlink(missing_ok=True)
            move_files(staging, folder, last=ABOUT)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"cannot write into {shorten(folder, 200)}: {reason}") from error


def export_folder(out: str | Path) -> Path:
    """A folder that an export may be written into.

    Raises:
        CircuitsError: it is a file, or has files of an export's names that no export wrote.
    """
    folder = Path(out).expanduser()
    if next((path for path in (folder, *folder.parents) if path.exists()), Path("/")).is_file():
        raise CircuitsError(f"{shorten(folder, 200)} is no folder: give another one to export into")
    there = [name for name in (PROGRAM, WEIGHTS, ABOUT) if (folder / name).exists()]
    try:
        about = read_json(folder / ABOUT) if ABOUT in there else None
    except (OSError, ValueError):
        about = None
    if there and not (isinstance(about, dict) and {"edits", "unfolded", "load"} <= set(about)):
        raise CircuitsError(
            f"{shorten(folder, 200)} has {' and '.join(there)}, and no finished export: give another folder"
        )
    return folder


def _program(model: Model, x: Tensor) -> torch.export.ExportedProgram:
    """The network under the active edits, for any number of images."""
    module = _Edited(model)
    module.training = False  # of the wrapper alone: the network is the user's, and its parts were checked
    try:
        return torch.export.export(module, (x[:2],), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False)
    except Exception as error:  # whatever tracing a stranger's code raises
        raise CircuitsError(
            f"torch.export cannot trace {model.name} ({shorten(error, 120)}): edit it in place, with circuits.edit"
        ) from error


def _difference(run: Any, x: Tensor, wanted: Sequence[Any], what: str) -> float:
    """Largest difference from the edited run, on one image and on all."""
    largest = 0.0
    for images, outputs in zip((x[:1], x), wanted, strict=True):
        try:
            with torch.no_grad():
                given = run(images)
        except Exception as error:  # a number of images that it was not traced for
            raise EditError(f"{what} does not run on {len(images)} images: {shorten(error, 120)}") from error
        right, tensors = _tensors(outputs), _tensors(given)
        if not right or [a.shape for a in tensors] != [b.shape for b in right]:
            raise EditError(f"{what} does not give the tensors of the edited run: it was not kept")
        for a, b in zip(tensors, right, strict=True):
            difference = float((a - b).abs().max())
            if not difference <= TOLERANCE * max(1.0, float(b.abs().max())):
                raise EditError(f"{what} differs from the edited run by {difference:.1e}: it was not kept")
            largest = max(largest, difference)
    return largest


def _tensors(outputs: Any) -> list[Tensor]:
    """Its tensors that have values, answers and masks as numbers, too."""
    return [leaf.double() for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.numel()]
