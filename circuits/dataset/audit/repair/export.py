"""An edited network written out for a process that has nothing but torch.

Two files. `edited.pt2` is the network as `torch.export` writes it, with the edits among its operations: it needs no
class of anybody, and no hooks. `weights.safetensors` are the weights with the edits folded in, for modules of the
network's own class; it is written where that is exact, see `folding`. Each is run on images before it is kept.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from circuits.common.provenance import provenance
from circuits.dataset.audit.repair.folding import NotExact, State, folded
from circuits.errors import CircuitsError, EditError, shorten
from circuits.network.hooks import run_whole
from circuits.network.interventions import Edit, edit
from circuits.network.model import Model
from zoo.common.autograd import outside_inference_mode
from zoo.common.files import write_atomically, write_text_atomically
from zoo.common.results import Result
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
        model, edits: of which, and what was done to it.
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
) -> Export:
    """Write a network with edits into a folder, so that it runs where there is nothing but torch.

    The module takes what yours takes: images in your network's range, `(x - mean) / std` of `about.json`.

    Args:
        model: the model.
        edits: what is done to it; see `circuits.edit`.
        out: folder, made if it is not there; files of the same names are overwritten.
        images: on some of which every file is run before it is kept, in any form that `capture` takes.
        reference: images for edits to a mean.

    Raises:
        EditError: see `edit`; or a file does not give what the edited run gives.
        CircuitsError: `torch.export` cannot trace the network.

    >>> export(load("scenes"), [Set("mixed4a:3", 0.0)], "edited", images="scenes:8")  # doctest: +SKIP
    """
    tried = open_images(images).spread(CHECKED)
    x = model.input.normalize(tried.tensor(model.input)).to(model.device, model.dtype)
    folder = Path(out).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with edit(model, edits, reference=reference), torch.no_grad():
        wanted = [run_whole(model, x[:1]), run_whole(model, x)]
        program = _program(model, x)
    difference = _difference(program.module(), x, wanted, f"{model.name}: {PROGRAM}")
    content = io.BytesIO()
    torch.export.save(program, content)
    write_atomically(folder / PROGRAM, lambda file: file.write_bytes(content.getvalue()))
    files, unfolded = [PROGRAM], ""
    (folder / WEIGHTS).unlink(missing_ok=True)
    try:
        state = folded(model, edits)
        module = copy.deepcopy(model.module)
        module.load_state_dict(state)
        difference = max(difference, _difference(module, x, wanted, f"{model.name}: {WEIGHTS}"))
        write_atomically(folder / WEIGHTS, lambda file: _save(state, file))
        files.append(WEIGHTS)
    except NotExact as error:
        unfolded = str(error)
    result = Export(
        model=model.name,
        edits=tuple(str(change) for change in edits),
        folder=str(folder),
        files=tuple(files),
        difference=difference,
        unfolded=unfolded,
        provenance=provenance(weights=model.digest, images=tried.name, images_digest=tried.digest),
    )
    about = result.describe() | {
        "input": {"shape": list(model.input.shape), "mean": list(model.input.mean), "std": list(model.input.std)},
        "classes": model.classes,
        "load": {
            PROGRAM: f'network = torch.export.load("{PROGRAM}").module(); network((images - mean) / std)',
            WEIGHTS: f'your_network.load_state_dict(safetensors.torch.load_file("{WEIGHTS}"))',
        },
    }
    write_text_atomically(folder / ABOUT, json.dumps(about, indent=1))
    return result


def _program(model: Model, x: Tensor) -> torch.export.ExportedProgram:
    """The network under the active edits, for any number of images."""
    module = _Edited(model).eval()
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
        for a, b in zip(_tensors(given), _tensors(outputs), strict=True):
            difference = float((a - b).abs().max())
            if not difference <= TOLERANCE * max(1.0, float(b.abs().max())):
                raise EditError(f"{what} differs from the edited run by {difference:.1e}: it was not kept")
            largest = max(largest, difference)
    return largest


def _tensors(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _save(state: State, file: Path) -> None:
    save_file({name: value.contiguous() for name, value in state.items()}, file, {"format": "pt"})
