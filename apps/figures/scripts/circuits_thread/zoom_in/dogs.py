"""Zoom In: a pose-invariant dog detector, built from detectors of either pose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from apps.cli.verify import inceptionv1
from apps.figures.analysis.mirror_pairs import mirrors
from apps.figures.context import FigureContext, NotApplicable
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.unit_images import top_crops, visualizations
from apps.figures.helpers.unit_roles import dog, dogs, split

if TYPE_CHECKING:
    from apps.figures.analysis.mirror_pairs import Mirrors


_PAIRED = 0.1
"""Least strength of one of a pair, as a share of the strongest input."""


@figure(
    "Z4",
    "dog-head",
    "A pose-invariant detector of dog heads",
    paper="zoom-in",
    shows="A unit of mixed4b detects dog heads, whether they face left or right.",
    cost=40,
)
def unit(context: FigureContext) -> FigureResult:
    """Find the dog detector, draw it with its top activating images, and mirror the images of dogs."""
    from circuits.plot.drawing.unit_rows import UnitLook, unit_rows

    role = dog(context)
    layer, index = role.unit.partition("/")[2].rpartition(":")[::2]
    responses = _mirrored(context, layer)
    retained, strong = responses.retained, responses.plain.mean(axis=0)
    control = [
        i
        for i in range(len(retained))
        if i != int(index) and strong[i] >= np.median(strong) and retained[i] == retained[i]
    ]
    chance = float(np.mean(retained[control]))
    here = float(retained[int(index)])
    look = UnitLook(
        role.unit,
        visualizations(context, [role.unit])[role.unit],
        top_crops(context, [role.unit], 12)[role.unit],
        notes=(f"mirrored: {100 * here:.0f} %", f"other units: {100 * chance:.0f} %"),
    )
    drawing = unit_rows([look], columns=6, rows=2, title="A dog detector", about="feature visualization and "
                        f"top activating images; {context.model.name}")  # fmt: skip
    claims = [
        Claim.above(
            "mirrored dogs activate it as much: share of the response that mirroring retains",
            here,
            chance,
            "mean of the other units of the layer that dogs activate",
        )
    ]
    if role.score is not None and role.chance is not None:
        claims.insert(
            0,
            Claim.above(
                "it separates dogs from other classes (AUC)",
                role.score,
                role.chance,
                "the best unit on shuffled labels",
            ),
        )
    numbers = {
        "unit": role.unit,
        "kept": here,
        "kept_of_others": retained[control].tolist(),
        "examples": [e.id for e in context.scan.unit(role.unit).top[:12]],
    }
    caption = (
        f"A dog detector: feature visualization and 12 top activating images; {role.how}. For the test "
        f"{len(responses.plain)} images of dogs were mirrored."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


@figure(
    "Z8",
    "dog-circuit",
    "A pose-invariant dog detector is built from one for each pose",
    paper="zoom-in",
    shows="Units for heads that face left and heads that face right, each other's mirror image, excite one dog unit.",
    cost=70,
    published=lambda context: inceptionv1.dogs(context.model),
)
def circuit(context: FigureContext) -> FigureResult:
    """Trace the dog detector, and find the two exciting inputs that are most each other's mirror image."""
    import circuits
    from circuits.plot import circuit_graph, crops

    role = dog(context)
    images = split(context.images, dogs())[0].spread(context.size(200, 80, 24))
    traced = circuits.trace(context.model, role.unit, images=images, width=8, n_positions=context.size(32, 16, 4))
    layer = traced.layers[1]
    responses = _mirrored(context, layer)
    edges = {e.source: e for e in traced.into(traced.target)}
    most = max(e.strength for e in edges.values())
    excite = [int(u.rpartition(":")[2]) for u, e in edges.items() if e.strength > _PAIRED * most]
    pairs = responses.pairs(1, among=excite)
    if not pairs:
        raise NotApplicable(
            f"no two of the {len(excite)} strongest inputs of {role.unit} are each other's mirror image"
        )
    first, second, _ = pairs[0]
    labels = {responses.units[first]: "faces one way", responses.units[second]: "its mirror image"}
    labels |= _facing(context, layer, (first, second))
    pair = [edges[responses.units[i]] for i in (first, second)]
    rest = traced.rest[0].strength / max(1, traced.rest[0].count)
    rng = np.random.default_rng(context.seed)
    draws = [
        next((s for *_, s in responses.pairs(1, among=rng.permutation(len(responses.units))[: len(excite)])), 0.0)
        for _ in range(context.size(200, 100, 20))
    ]
    weakest = min(e.strength for e in pair)
    claims = [
        Claim(
            "both units excite the dog unit (the weaker one's contribution)",
            weakest,
            rest,
            weakest > max(0.0, rest),
            "mean of the other units",
        ),
        Claim.above(
            "they are each other's mirror image: score, at most 1",
            pairs[0][2],
            float(np.quantile(draws, 0.95)),
            "95 % of the best pairs of random units are below",
        ),
    ]
    if min(pair[0].kernel.shape) > 1:
        flipped = _cosine(pair[0].kernel, pair[1].kernel[:, ::-1])
        straight = _cosine(pair[0].kernel, pair[1].kernel)
        claims.append(
            Claim.above(
                "so are their kernels (cosine of one with the other mirrored)", flipped, straight, "cosine as they are"
            )
        )
    areas = [float(label.rpartition(" ")[2]) for label in labels.values() if label.startswith("dog_")]
    if len(areas) == 2:
        differ = len({label.rpartition(" ")[0] for label in labels.values()}) == 2
        claims.append(
            Claim(
                "each separates one direction from the other (the lower AUC)",
                min(areas),
                0.5,
                min(areas) > 0.8 and differ,
                "chance",
            )
        )
    labeled = traced.label(labels)
    drawing = circuit_graph(labeled, crops(labeled, images, context.model.input))
    numbers = {
        "unit": role.unit,
        "pair": [{"unit": e.source, "strength": e.strength, "kernel": e.kernel.tolist()} for e in pair],
        "names": labels,
        "swapped": float(responses.swapped[first, second]),
        "kept": {responses.units[i]: float(responses.retained[i]) for i in (first, second)},
        "edges": [{"source": e.source, "strength": e.strength} for e in traced.into(traced.target)],
    }
    caption = (
        f"The eight strongest inputs of the dog detector ({role.how}), on {len(images)} images of dogs. Labeled are "
        f"the two whose preferences swap most when the images are mirrored, of the {len(excite)} that excite it at "
        "least a tenth as much as the strongest."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


def _mirrored(context: FigureContext, layer: str) -> Mirrors:
    return mirrors(context.model, layer, split(context.images, dogs())[0].spread(context.size(200, 80, 24)))


def _facing(context: FigureContext, layer: str, pair: tuple[int, int]) -> dict[str, str]:
    """Unit -> the direction it prefers, with its AUC, where the labels of the images contain directions."""
    from circuits.common.statistics import auc
    from circuits.network.responses import pooled_responses

    if not {"dog_left", "dog_right"} <= set(context.images.classes or ()):
        return {}
    sides = [split(context.images, [name])[0] for name in ("dog_left", "dog_right")]
    facing_left, facing_right = (pooled_responses(context.model, side, [layer])[layer] for side in sides)
    areas = auc(facing_left, facing_right)
    labels = {}
    for i in pair:
        value = float(areas[i])
        side = "dog_left" if value >= 0.5 else "dog_right"
        labels[str(context.model.unit(f"{layer}:{i}"))] = f"{side} {max(value, 1 - value):.2f}"
    return labels


def _cosine(a: Any, b: Any) -> float:
    return float((a * b).sum() / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-30))
