"""What a unit's page shows beyond the scan, made before anybody asks: visualizations and polysemanticity of layers.

And the activations that circuits are traced on. All are kept beside the scan; the same call again goes on where it was
stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from apps.explorer.resources import layer_polysemanticity, rendered_units, thumbnails
from circuits.common.kept_activations import MOST, KeptActivations, Rows, joined, rows_of
from circuits.dataset.peak_positions import starts
from circuits.dataset.scan_results import Scan
from circuits.dataset.scan_store import own_card
from circuits.errors import CircuitsError
from circuits.network.hooks import read
from circuits.network.model import Model
from circuits.network.responses import channels_together
from circuits.units.polysemanticity import polysemantic
from circuits.visualization.render import visualize
from circuits.visualization.sweeps.sweep import sweep
from zoo.images.sources import Images
from zoo.progress import Progress

STEPS, BATCH = 128, 16
"""Optimization steps of a visualization, and units optimized together."""
TRIED_STEPS, TRIED_UNITS = 2, 2
RANKED_ON = 200
"""Images on which a circuit's parents are ranked."""


@dataclass(frozen=True)
class Need:
    """What is missing.

    Attributes:
        visualizations, polysemanticity: names of the layers without them.
        units: number of units to visualize, and to cluster.
        seconds: expected, from a few that were made; bytes: on disk at most, of pixels that no PNG makes smaller.
    """

    visualizations: tuple[str, ...]
    polysemanticity: tuple[str, ...]
    units: tuple[int, int]
    seconds: float
    bytes: int

    def __str__(self) -> str:
        minutes = max(1, round(self.seconds / 60))
        parts = [f"{self.units[0]:,} visualizations"] * bool(self.units[0])
        parts += [f"clusters of {self.units[1]:,} units"] * bool(self.units[1])
        if not parts:
            return "everything that the pages show is there"
        duration = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"
        size = f", at most {max(1, self.bytes // 2**20):,} MB" if self.bytes else ""
        return f"{' and '.join(parts)}: about {duration}{size}; stopped, the same command goes on where it was"


def needs(
    model: Model, scan: Scan, images: Images, layers: Sequence[str], *, visualizations: bool, polysemanticity: bool
) -> Need:
    """What is missing of some scanned layers, and how long it will take, by a few units of the middle one."""
    rendered: set[str] = set()
    if visualizations:
        by_unit = rendered_units.read_visualizations(rendered_units.sweeps(scan.folder), model.digest)
        rendered = {unit for unit, results in by_unit.items() if any(item.kind == "positive" for item in results)}
    spaces = {layer: [f"{model.name}/{layer}:{i}" for i in range(scan.layers[layer])] for layer in layers}
    left = {layer: sum(unit not in rendered for unit in units) for layer, units in spaces.items()}
    drawn = tuple(layer for layer in layers if visualizations and left[layer])
    clustered = tuple(layer for layer in layers if polysemanticity and _unclustered(model, scan, layer))
    units = (
        sum(left[layer] for layer in drawn),
        sum(len(layer_polysemanticity.examples_of(model, scan, layer)) for layer in clustered),
    )
    seconds = 0.0
    if drawn:
        some = spaces[drawn[len(drawn) // 2]][:BATCH]
        begun = time.perf_counter()
        visualize(model, some, steps=TRIED_STEPS, batch_size=BATCH)
        seconds += (time.perf_counter() - begun) * (STEPS / TRIED_STEPS) * units[0] / len(some)
    if clustered:
        layer = clustered[len(clustered) // 2]
        examples = dict(list(layer_polysemanticity.examples_of(model, scan, layer).items())[:TRIED_UNITS])
        begun = time.perf_counter()
        polysemantic(model, list(examples), images=images, examples=examples)
        seconds += (time.perf_counter() - begun) * units[1] / len(examples)
    height, width = model.input.hw
    return Need(drawn, clustered, units, seconds, 3 * height * width * units[0])


def _unclustered(model: Model, scan: Scan, layer: str) -> bool:
    """Whether a layer has units to cluster, and none are."""
    try:
        layer_polysemanticity.examples_of(model, scan, layer)
    except CircuitsError:
        return False
    return layer_polysemanticity.stored(model, scan, layer) is None


def prepare(model: Model, scan: Scan, images: Images, need: Need, progress: Progress = None) -> None:
    """Make what is missing, and the thumbnails of all layers.

    Raises:
        FileError: the store cannot be written. VisualizationError: a sweep of the store has other settings.
    """
    missing = [layer for layer in scan.layers if thumbnails.stored(scan, layer) is None]
    if missing:
        thumbnails.make(scan, images, missing, progress)
    for layer in need.visualizations:
        name = rendered_units.sweep_name(model.resolve(layer), "positive")
        folder = scan.folder / rendered_units.FOLDER / name
        sweep(model, layer, folder, steps=STEPS, batch_size=BATCH, progress=progress)
    for layer in need.polysemanticity:
        layer_polysemanticity.make(model, scan, images, layer, progress)
    if own_card(model) is None:  # code of a user's own may change under the same weights
        _keep_activations(model, scan, images, progress)


def kept_activations(model: Model, scan: Scan) -> KeptActivations:
    """Activations on the scanned images, beside the scan: `STORE/MODEL/activations/`, at most 256 MB."""
    return KeptActivations(scan.folder / "activations", model.digest)


def evidence(count: int) -> list[int]:
    """Images that are added, in this order, to a unit's top activating ones, to rank the parents of its circuit."""
    return list(np.random.default_rng(0).permutation(count).tolist())


def _keep_activations(model: Model, scan: Scan, images: Images, progress: Progress) -> None:
    """What circuits read, of all layers that one can go back through; of the latest where not all have room."""
    if model.device.type != "cpu" or model.graph is None:
        return
    activations, chosen = kept_activations(model, scan), images.subset(sorted(evidence(len(images))[:RANKED_ON]))
    digests = [digest.hex() for digest in chosen.contents()]
    chain = model.trunk[::-1]
    names = list(dict.fromkeys([*chain, *starts(model, chain)]))
    there = activations.rows(chain[0])
    if there is not None and set(digests) <= set(there.images):
        return
    rows: dict[str, list[Rows]] = {name: [] for name in sorted(names, key=model.layers.position, reverse=True)}
    with torch.no_grad():
        for indices, batch in chosen.batches(model.input, batch_size=32, progress=progress):
            acts = read(model, channels_together(model, batch), [model.layers[name] for name in rows])
            for name, parts in rows.items():
                parts.append(rows_of(model.digest, [digests[i] for i in indices], acts[name]))
            room = MOST * sum(len(part.images) for part in rows[chain[0]]) / len(chosen)
            for name, parts in list(rows.items()):
                room -= sum(part.nbytes for part in parts)
                if room < 0:
                    del rows[name]
    for name in [*rows][::-1]:
        activations.write(name, joined(rows.pop(name)))
