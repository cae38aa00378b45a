"""Zoom In: a unit for dogs whichever way they face, built from units for either direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apps.figures.context import NotApplicable
from apps.figures.figure import Claim, FigureResult, figure

if TYPE_CHECKING:
    from apps.cli.verify.checks import Check
    from apps.figures.analysis.mirror_pairs import Mirrors
    from apps.figures.context import FigureContext


_NAMED = 0.1
"""Share of the strongest input from which a unit is looked at as one of a pair."""


def _published(context: FigureContext) -> list[Check]:
    from apps.cli.verify import inceptionv1

    return list(inceptionv1.dogs(context.model))


@figure(
    "Z4",
    "dog-head",
    "A unit for dog heads, whichever way they face",
    paper="zoom-in",
    shows="A unit of mixed4b looks for dog heads and answers to them whichever way they face.",
    cost=40,
)
def unit(context: FigureContext) -> FigureResult:
    """Find the dog detector, draw it with the photographs it answers to, and mirror the pictures of dogs."""
    import numpy as np

    from apps.figures.helpers.unit_images import photographs, renders
    from apps.figures.helpers.unit_roles import dog
    from circuits.plot.drawing.unit_rows import UnitLook, unit_rows

    role = dog(context)
    layer, index = role.unit.partition("/")[2].rpartition(":")[::2]
    found = _mirrored(context, layer)
    kept, strong = found.kept, found.plain.mean(axis=0)
    others = [i for i in range(len(kept)) if i != int(index) and strong[i] >= np.median(strong) and kept[i] == kept[i]]
    chance = float(np.mean(kept[others]))
    here = float(kept[int(index)])
    look = UnitLook(
        role.unit,
        renders(context, [role.unit])[role.unit],
        photographs(context, [role.unit], 12)[role.unit],
        notes=(f"mirroring leaves {100 * here:.0f} %", f"other units: {100 * chance:.0f} %"),
    )
    drawing = unit_rows([look], columns=6, rows=2, title="A unit for dogs", about="what it looks for, and the "
                        f"photographs it answers to most; {context.model.name}")  # fmt: skip
    claims = [
        Claim(
            "mirrored dogs arouse it as much (share of the response left)", here, chance, here > chance,
            "mean of the other units of the layer that answer to dogs",
        )
    ]  # fmt: skip
    if role.score is not None and role.chance is not None:
        claims.insert(0, Claim("it tells dogs from the rest (AUC)", role.score, role.chance, role.score > role.chance,
                               "the best unit on shuffled labels"))  # fmt: skip
    numbers = {
        "unit": role.unit,
        "kept": here,
        "kept_of_others": kept[others].tolist(),
        "examples": [e.id for e in context.scan.unit(role.unit).top[:12]],
    }
    caption = (
        f"A unit for dogs: what it looks for, and its 12 strongest photographs; {role.how}. Mirrored were "
        f"{len(found.plain)} pictures of dogs."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


@figure(
    "Z8",
    "dog-circuit",
    "A unit for dogs either way is built from one for each direction",
    paper="zoom-in",
    shows="Units for heads that face left and heads that face right, each other's mirror image, excite one dog unit.",
    cost=70,
    published=_published,
)
def circuit(context: FigureContext) -> FigureResult:
    """Trace the dog detector, and among what excites it find the two that are most each other's mirror image."""
    import numpy as np

    import circuits
    from apps.figures.helpers.unit_roles import dog, dogs, split
    from circuits.plot import circuit_graph, crops

    role = dog(context)
    pictures = split(context.images, dogs())[0].spread(context.size(200, 80, 24))
    found = circuits.trace(context.model, role.unit, images=pictures, width=8, n_places=context.size(32, 16, 4))
    layer = found.layers[1]
    seen = _mirrored(context, layer)
    edges = {e.source: e for e in found.into(found.target)}
    most = max(e.strength for e in edges.values())
    excite = [int(u.rpartition(":")[2]) for u, e in edges.items() if e.strength > _NAMED * most]
    pairs = seen.pairs(1, among=excite)
    if not pairs:
        raise NotApplicable(
            f"no two of the {len(excite)} strongest inputs of {role.unit} are each other's mirror image"
        )
    first, second, _ = pairs[0]
    names = {seen.units[first]: "faces one way", seen.units[second]: "its mirror image"}
    names |= _facing(context, layer, (first, second))
    pair = [edges[seen.units[i]] for i in (first, second)]
    rest = found.rest[0].strength / max(1, found.rest[0].count)
    rng = np.random.default_rng(context.seed)
    draws = [
        next((s for *_, s in seen.pairs(1, among=rng.permutation(len(seen.units))[: len(excite)])), 0.0)
        for _ in range(context.size(200, 100, 20))
    ]
    weakest = min(e.strength for e in pair)
    claims = [
        Claim("both units excite the dog unit (the weaker one's contribution)", weakest, rest, weakest > max(0.0, rest),
              "mean of the units not shown"),
        Claim("they are each other's mirror image (1: perfectly)", pairs[0][2], float(np.quantile(draws, 0.95)),
              pairs[0][2] > float(np.quantile(draws, 0.95)), "95 % of best pairs among random units stay below"),
    ]  # fmt: skip
    if min(pair[0].kernel.shape) > 1:
        flipped = _cosine(pair[0].kernel, pair[1].kernel[:, ::-1])
        straight = _cosine(pair[0].kernel, pair[1].kernel)
        claims.append(Claim("so are their kernels (cosine of one with the other mirrored)", flipped, straight,
                            flipped > straight, "cosine as they are"))  # fmt: skip
    told = [float(words.rpartition(" ")[2]) for words in names.values() if words.startswith("dog_")]
    if len(told) == 2:
        apart = len({words.rpartition(" ")[0] for words in names.values()}) == 2
        claims.append(Claim("each tells one direction from the other (AUC, the lesser)", min(told), 0.5,
                            min(told) > 0.8 and apart, "chance"))  # fmt: skip
    labeled = found.label(names)
    drawing = circuit_graph(labeled, crops(labeled, pictures, context.model.input))
    numbers = {
        "unit": role.unit,
        "pair": [{"unit": e.source, "strength": e.strength, "kernel": e.kernel.tolist()} for e in pair],
        "names": names,
        "swapped": float(seen.swapped[first, second]),
        "kept": {seen.units[i]: float(seen.kept[i]) for i in (first, second)},
        "edges": [{"source": e.source, "strength": e.strength} for e in found.into(found.target)],
    }
    caption = (
        f"The eight strongest inputs of the dog detector ({role.how}), on {len(pictures)} pictures of dogs. Named are "
        f"the two whose preferences swap most when the pictures are mirrored, of the {len(excite)} that excite it at "
        "least a tenth as much as the strongest."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


def _mirrored(context: FigureContext, layer: str) -> Mirrors:
    from apps.figures.analysis.mirror_pairs import mirrors
    from apps.figures.helpers.unit_roles import dogs, split

    return mirrors(context.model, layer, split(context.images, dogs())[0].spread(context.size(200, 80, 24)))


def _facing(context: FigureContext, layer: str, pair: tuple[int, int]) -> dict[str, str]:
    """Unit -> the direction it stands for, with its AUC, where the pictures say which way dogs face."""
    from apps.figures.helpers.unit_roles import split
    from circuits.common.statistics import auc
    from circuits.network.responses import pooled_responses

    if not {"dog_left", "dog_right"} <= set(context.images.classes or ()):
        return {}
    sides = [split(context.images, [name])[0] for name in ("dog_left", "dog_right")]
    left, right = (pooled_responses(context.model, side, [layer])[layer] for side in sides)
    areas = auc(left, right)
    said = {}
    for i in pair:
        value = float(areas[i])
        side = "dog_left" if value >= 0.5 else "dog_right"
        said[str(context.model.unit(f"{layer}:{i}"))] = f"{side} {max(value, 1 - value):.2f}"
    return said


def _cosine(a: Any, b: Any) -> float:
    import numpy as np

    return float((a * b).sum() / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-30))
