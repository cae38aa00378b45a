"""Tasks on networks whose edges are known: see `zoo.planted`."""

from __future__ import annotations

from collections.abc import Sequence

from circuits.network.address import Unit
from circuits.network.model import wrap
from circuits.tracing.ablation.edge_ablation import chain
from circuits.tracing.benchmark.tasks import Known, Task
from circuits.tracing.target import target_of
from zoo.common.checks import whole_number
from zoo.images.sources import open_images
from zoo.inputs import InputSpec
from zoo.planted.networks import LAYERS, SEEDS, planted
from zoo.planted.program import SIZE

IMAGES = 64
"""To rank on, and as many to try circuits on."""
TARGET = "scores:0"


def planted_tasks(seeds: Sequence[int] | None = None, *, images: int = IMAGES) -> list[Task]:
    """A task for each network: which units, and which edges, its first score stands on.

    Each image is paired with another one at random; the measure is the explained variance of the score.

    Args:
        seeds: which networks (default: all 20; the first ten are set by hand, the others trained).
        images: to rank on, and as many to try circuits on.

    Raises:
        CircuitsError: no network of a number.
    """
    whole_number("images", images, least=2)
    return [_task(seed, images) for seed in (range(SEEDS) if seeds is None else seeds)]


def _task(seed: int, images: int) -> Task:
    network = planted(seed)
    model = wrap(network.module, InputSpec(size=SIZE), name=f"planted-{seed}")
    drawn = [open_images(network.program.draw(images, 30_000 + 100 * seed + k)[0]) for k in range(4)]
    steps = chain(model, target_of(model, TARGET), LAYERS)
    edges, units = set(), set()
    for step, pairs in zip(steps, network.edges(), strict=True):
        for child, source in pairs:
            edges.add(step.edge(child * step.width + source, model.name))
            units.add(str(Unit(step.layer, source, model.name)))
    return Task(
        name=f"planted-{seed}",
        model=model,
        target=TARGET,
        layers=LAYERS,
        images=drawn[0],
        against=drawn[1],
        held_out=drawn[2],
        held_out_against=drawn[3],
        measure="explained variance",
        known=Known(frozenset(units), edges=frozenset(edges)),
    )
