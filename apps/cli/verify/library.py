"""The library on answers known beforehand: published tables, and nets whose weights were set by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from apps.cli.verify.checks import Check, Options, check
from apps.cli.verify.facts import facts, unit_facts

_DISTILL = "Distill 2020-21"


def checks(options: Options) -> Iterator[Check]:
    """All checks of the suite."""
    yield from architecture()
    yield from taxonomy()
    yield from curves_by_angle()
    yield from composition(options.seed)
    yield colors()
    from apps.cli.verify import families, planted, tuned

    yield from planted.car()
    yield from planted.cancellation()
    yield from families.library(options.seed)
    yield from tuned.library()


def architecture() -> Iterator[Check]:
    """Channels and branches of the InceptionV1 that is built here, against the published ones."""
    from zoo.networks.inceptionv1 import TENSORFLOW_5H, InceptionV1

    published = facts()["architecture"]["branches"]
    ours = InceptionV1(TENSORFLOW_5H).branches
    names = [(block, part) for block in published for part in ("1x1", "3x3", "5x5", "pool_proj")]
    right = sum(ours[f"{b}_{p}"] == (b, published[b][p][0], published[b][p][1] + 1) for b, p in names)
    yield check(
        "InceptionV1: channel range of each branch",
        f"{len(names)} of {len(names)}",
        f"{right} of {len(names)}",
        right == len(names),
        _DISTILL,
    )


def taxonomy() -> Iterator[Check]:
    """The published families partition the early layers."""
    expected = unit_facts("taxonomy_partition")
    units: dict[str, list[int]] = {}
    for family in facts()["families"]:
        units.setdefault(family["layer"], []).extend(family["units"])
    sizes = {layer: (len(units.get(layer, [])), len(set(units.get(layer, [])))) for layer in expected}
    yield check(
        "families partition the five early layers",
        _list(expected.values()),
        _list(s[1] for s in sizes.values()),
        all(sizes[layer] == (n, n) for layer, n in expected.items()),
        _DISTILL,
    )


def curves_by_angle() -> Iterator[Check]:
    """Early curves excite curves of like orientation and inhibit those turned by half a circle."""
    tuning = facts()["curve_tuning"]["per_layer"]
    right, rows = 0, []
    for edge in facts()["edges"]:
        if (edge["source_layer"], edge["target_layer"]) != ("mixed3a", "mixed3b"):
            continue
        first = tuning["mixed3a"][str(edge["source_unit"])]["peak_deg"]
        second = tuning["mixed3b"][str(edge["target_unit"])]["peak_deg"]
        angle = abs((first - second + 180) % 360 - 180)
        total = sum(map(sum, edge["weights_5x5"]))
        right += (total > 0) == (math.cos(math.radians(angle)) > 0)
        rows.append((angle, total))
    ours = ", ".join(f"{angle:.0f}°: {total:+.1f}" for angle, total in sorted(rows))
    yield check(
        "curve to curve: sign of the summed 5x5 weight follows the angle",
        "+ below 90°, - above",
        ours,
        right == len(rows) > 0,
        _DISTILL,
    )


def composition(seed: int) -> Iterator[Check]:
    """Expanded weights three ways: composed, by batched backward passes, and by plain autograd through the net."""
    import torch

    from circuits.attribution.expanded_weights import expanded_weights
    from circuits.network.linearized import linearized
    from circuits.network.model import load

    model = load("scenes", weights="random", device="cpu")
    source, target = "mixed3b", "mixed4a"
    exact = expanded_weights(model, source=source, target=target, method="exact")
    vjp = expanded_weights(model, source=source, target=target, method="vjp")
    scale = float(exact.kernels.abs().max())
    away = _difference(exact, vjp) / scale
    yield check(
        "expanded weights composed = by backward passes", "difference < 1e-6 of the largest", f"{away:.0e}", away < 1e-6
    )

    generator = torch.Generator().manual_seed(seed)
    block = _block(model.module, target)
    channels = model.layers[source].channels
    acts = torch.randn((1, channels, 11, 11), generator=generator, requires_grad=True)
    unit = int(torch.randint(model.layers[target].channels, (1,), generator=generator))
    with linearized():
        (gradient,) = torch.autograd.grad(block(acts)[0, unit, 5, 5], acts)
    top, left = 5 + exact.offset[0], 5 + exact.offset[1]
    height, width = exact.kernels.shape[2:]
    inside = gradient[0, :, top : top + height, left : left + width]
    away = float((inside - exact.kernels[unit]).abs().max()) / scale
    away = max(away, float(gradient.abs().sum() - inside.abs().sum()) / float(gradient.abs().sum()))
    yield check(
        "expanded weights = autograd through the linearized net",
        "difference < 1e-6 of the largest",
        f"{away:.0e}",
        away < 1e-6,
    )
    with torch.no_grad():
        out = block(-torch.ones_like(acts))
    good = bool((out >= 0).all())
    yield check("afterwards the ReLUs are back", "no negative output", "none" if good else "some", good)


def _difference(first: Any, second: Any) -> float:
    """Largest difference of two sets of kernels laid over each other by their offsets."""
    if first.kernels.shape == second.kernels.shape and first.offset == second.offset:
        return float((first.kernels - second.kernels).abs().max())
    return float("inf")


def _block(module: Any, name: str) -> Any:
    return lambda acts: module._block(name, acts)


def colors() -> Check:
    """A weight can be read back from its color."""
    import numpy as np

    from circuits.plot.drawing.palette import decode, encode

    weights = np.linspace(-1, 1, 4001)
    away = float(np.abs(decode(encode(weights, 1.0), 1.0) - weights).max())
    return check("color map: weights read back from their colors", "within 1/255", f"{away:.4f}", away <= 1 / 255)


def _list(values: Any) -> str:
    return ", ".join(str(v) for v in values)
