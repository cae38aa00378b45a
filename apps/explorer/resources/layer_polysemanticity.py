"""How polysemantic the units of a layer are, kept beside the scan: `STORE/MODEL/polysemanticity/LAYER.safetensors`.

A file has the rows of all units of a layer without their figures, which a page draws. One of another scan, of other
weights, or that is damaged, is made again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from circuits.common.examples import Example
from circuits.dataset.scan_results import Scan
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.units.polysemanticity import Polysemanticity, polysemantic
from zoo.common import result_files
from zoo.images.sources import Images
from zoo.progress import Progress

FOLDER = "polysemanticity"
LEAST, MOST = 12, 64
"""Top activating images of a unit: with fewer it is not clustered, of more only the first are."""

Rows = Mapping[str, Polysemanticity]
"""Of the units of a layer, by address."""


def examples_of(model: Model, scan: Scan, layer: str) -> dict[str, tuple[Example, ...]]:
    """The top activating images of the units of a layer that have enough of them, by address.

    Raises:
        CircuitsError: no unit has enough, or the layer's input is the image.
    """
    if model.before(layer.partition("~")[0]) is None:
        raise CircuitsError(f"the input of {layer} is the image itself: no units contribute to it")
    scanned = scan.layer(layer)
    tops = ((index, scanned.unit(index).top[:MOST]) for index in range(len(scanned)))
    space = model.resolve(layer)
    examples = {str(Unit(space.layer, index, model.name, space.basis)): top for index, top in tops if len(top) >= LEAST}
    if not examples:
        raise CircuitsError(f"no unit of {layer} has {LEAST} top activating images to cluster")
    return examples


def path_of(scan: Scan, layer: str) -> Path:
    """The file of a layer."""
    return scan.folder / FOLDER / f"{layer}.safetensors"


def stored(model: Model, scan: Scan, layer: str) -> Rows | None:
    """The rows of a layer, or None where there are none of this scan and these weights."""
    with contextlib.suppress(CircuitsError, OSError, ValueError, TypeError):
        digests, rows = result_files.read(path_of(scan, layer))
        if tuple(digests) == (model.digest, scan.manifest["digest"]):
            return {row.unit: row for row in rows}
    return None


def make(model: Model, scan: Scan, images: Images, layer: str, progress: Progress = None) -> Rows:
    """Cluster the examples of all units of a layer, and save the rows.

    Raises:
        CircuitsError: there is nothing to cluster. FileError: the store cannot be written.
    """
    examples = examples_of(model, scan, layer)
    rows = polysemantic(model, list(examples), images=images, examples=examples, progress=progress).rows
    result_files.write(path_of(scan, layer), ((model.digest, scan.manifest["digest"]), tuple(rows)))
    return {row.unit: row for row in rows}
