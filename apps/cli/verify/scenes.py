"""The built-in network: its car detector is built of windows over a body over wheels, its dog unit of two dogs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING

from apps.cli.output.circuit_text import short
from apps.cli.output.demo_story import CAR_PARTS, car_unit, class_findings, labeled, parts_of
from apps.cli.output.kernel_text import halves
from apps.cli.verify.checks import Check, Options, check

if TYPE_CHECKING:
    from circuits.network.model import Model
    from circuits.tracing.circuit import Circuit
    from zoo.images.sources import Images

SCENES = 650
"""Images by default, 50 of each class."""


def checks(options: Options) -> Iterator[Check]:
    """All checks of the suite."""
    from circuits.errors import CircuitsError
    from circuits.network.model import load
    from zoo.images.sources import open_images
    from zoo.scenes.generate import HELD_OUT_SEED

    model = load("scenes", weights=options.weights, device=options.device)
    images = open_images(f"scenes:{options.limit or SCENES}@{HELD_OUT_SEED + options.seed}")
    yield accuracy(model, images)
    for questions in (car, dogs):
        try:
            yield from questions(model, images, options.seed)
        except CircuitsError as error:  # a net so unlike the one expected that there is nothing to trace
            yield check(f"the {questions.__name__} circuit can be traced", "yes", str(error), False)


def accuracy(model: Model, images: Images) -> Check:
    """Share of scenes that training never saw whose highest class score is right."""
    from circuits import capture

    assert images.labels is not None
    scores = capture(model, images, [model.logits], batch_size=128)[model.logits].flatten(1)
    right = sum(int(a) == b for a, b in zip(scores.argmax(dim=1).tolist(), images.labels, strict=True)) / len(images)
    return check("accuracy on scenes that training never saw", ">= 0.97", f"{right:.3f}", right >= 0.97)


def car(model: Model, images: Images, seed: int) -> Iterator[Check]:
    """The car detector and its parts."""
    from circuits.tracing.score import score
    from circuits.tracing.trace import trace

    unit, auc = car_unit(model, images, seed)
    yield check("best car unit, by find", "AUC >= 0.9", f"{short(unit)}, AUC {auc:.3f}", auc >= 0.9)
    circuit = trace(model, unit, images=images, depth=1, width=6)
    scores = parts_of(model, circuit, images)
    units: dict[str, str] = {}
    for part in CAR_PARTS:
        best = max(scores, key=lambda u: scores[u].get(part, 0.0), default=None)
        value = scores[best].get(part, 0.0) if best is not None else 0.0
        if best is not None and value >= 0.9:
            units[part] = best
        ours = f"{short(best)}, AUC {value:.3f}" if best is not None else "no parent"
        yield check(f"a {part} unit among its top 6 parents", "AUC >= 0.9 by part masks", ours, value >= 0.9)
    yield from _halves(circuit, units)
    yield from _ablation(model, unit, images, units)
    eight = trace(model, unit, images=images, depth=1, width=8)
    score_ = score(model, eight, images=images, random=64, seed=seed)
    chance, above = statistics.median(score_.control_faithfulness), score_.faithfulness_percentile
    yield check(
        "8 parents keep most of the response",
        ">= 0.7 of its variance",
        f"{score_.faithfulness:.3f}",
        score_.faithfulness >= 0.7,
    )
    yield check(
        "8 random ones of the strongest units keep less",
        "95 % of 64 draws do",
        f"{above:.0f} % do, median {chance:.3f}",
        above >= 95,
    )


def _halves(circuit: Circuit, units: dict[str, str]) -> Iterator[Check]:
    kernels = {edge.source: edge.kernel for edge in circuit.into(circuit.target)}
    for part, heavy, light in (("window", "above", "below"), ("wheel", "below", "above")):
        what, expected = f"the {part} kernel is heavier {heavy}", f"sum {heavy} > sum {light}"
        if part not in units:
            yield check(what, expected, f"no {part} unit", False)
            continue
        totals = halves(kernels[units[part]])
        ours = f"{totals[heavy]:+.3g} {heavy}, {totals[light]:+.3g} {light}"
        yield check(what, expected, ours, totals[heavy] > totals[light])


def _ablation(model: Model, unit: str, images: Images, units: dict[str, str]) -> Iterator[Check]:
    """How much the car response falls without each part's unit, against every other unit of the layer."""
    from circuits.tracing.trace import trace

    cars = images.subset(labeled(images, ["car"]))
    layer = model.before(model.resolve(unit).layer)
    assert layer is not None
    every = trace(model, unit, images=cars, depth=1, width=model.layers[layer].channels, by="ablation")
    drops = {edge.source: edge.strength for edge in every.into(every.target)}
    others = [
        drops.get(f"{model.name}/{layer}:{c}", 0.0)
        for c in range(model.layers[layer].channels)
        if f"{model.name}/{layer}:{c}" not in units.values()
    ]
    for part in CAR_PARTS:
        what = f"ablating the {part} unit lowers the car response"
        if part not in units:
            yield check(what, "more than 95 % of the others do", f"no {part} unit", False)
            continue
        drop = drops.get(units[part], 0.0)
        above = sum(drop > other for other in others) / len(others)
        response = every.node(every.target).activation
        ours = f"by {drop:.3g} of {response:.3g}, more than {above:.0%}"
        yield check(what, "more than 95 % of the others do", ours, drop > 0 and above > 0.95)


def dogs(model: Model, images: Images, seed: int) -> Iterator[Check]:
    """A unit activated by dogs of both orientations has parents for the left and for the right ones."""
    from circuits.tracing.trace import trace
    from zoo.scenes.network import OBJECT_LAYER, UNION_LAYER

    assert images.classes is not None
    rest = [c for c in images.classes if not c.startswith("dog")]
    left = class_findings(model, images, UNION_LAYER, ["dog_left"], rest, seed=seed)
    right = class_findings(model, images, UNION_LAYER, ["dog_right"], rest, seed=seed)
    unit = max(left, key=lambda u: min(left[u].auc, right[u].auc))
    weaker = min(left[unit].auc, right[unit].auc)
    yield check(
        "a unit is activated by dogs facing left and right",
        "AUC >= 0.9 for each",
        f"{short(unit)}, AUC {weaker:.3f}",
        weaker >= 0.9,
    )
    sides = class_findings(model, images, OBJECT_LAYER, ["dog_left"], ["dog_right"], seed=seed)
    for side in ("dog_left", "dog_right"):
        dog_images = images.subset(labeled(images, [side]))
        circuit = trace(model, unit, images=dog_images, depth=1, width=6)
        parents = [e.source for e in circuit.into(circuit.target) if e.sign > 0]
        aucs = {u: sides[u].auc if side == "dog_left" else 1 - sides[u].auc for u in parents if u in sides}
        best = max(aucs, key=lambda u: aucs[u], default=None)
        ours = "none" if best is None else f"{short(best)}, AUC {aucs[best]:.3f}"
        good = best is not None and aucs[best] >= 0.9
        yield check(f"it has a parent for {side} among its top 6", "AUC >= 0.9 against the other", ours, good)
