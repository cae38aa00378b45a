"""The car detector of the built-in network, for `circuits demo` and `circuits verify scenes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apps.cli.output.part_names import some

if TYPE_CHECKING:
    from circuits.network.model import Model
    from circuits.tracing.circuit import Circuit
    from zoo.images.sources import Images

CAR_PARTS = ("window", "car_body", "wheel")
"""From top to bottom."""


def labeled(images: Images, classes: Sequence[str]) -> list[int]:
    """Indices of the images of some classes."""
    if images.labels is None or images.classes is None:
        return []
    return [i for i, label in enumerate(images.labels) if images.classes[label] in classes]


def class_findings(
    model: Model,
    images: Images,
    layer: str,
    positive: Sequence[str],
    negative: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Findings of the units of a layer for some classes against others (default: all), by address, best first."""
    from circuits.dataset.concept_search import find

    assert images.classes is not None
    others = [c for c in images.classes if c not in positive] if negative is None else negative
    findings = find(
        model,
        positive=images.subset(labeled(images, positive)),
        negative=images.subset(labeled(images, others)),
        layers=[layer],
        intervals=0,
        seed=seed,
    )
    return {row.unit: row for row in findings.rows}


def car_unit(model: Model, images: Images, seed: int = 0) -> tuple[str, float]:
    """The unit that best separates cars from everything else, wrongly arranged cars included, and its AUC."""
    from zoo.scenes.network import OBJECT_LAYER

    unit, row = next(iter(class_findings(model, images, OBJECT_LAYER, ["car"], seed=seed).items()))
    return unit, row.auc


def parts_of(model: Model, circuit: Circuit, images: Images) -> dict[str, dict[str, float]]:
    """How well each parent of a circuit's target detects each part: address -> part -> AUC by masks."""
    from circuits.dataset.part_labels import part_scores

    scores = part_scores(model, circuit.layers[1], some(images))
    return {node.unit: {part: float(aucs[node.index]) for part, aucs in scores.items()} for node in circuit.parents()}
