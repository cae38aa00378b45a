"""Curve Circuits: the families of units in the inputs of curve detectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import channel_families, curve_detectors, curve_layer, layer_before
from apps.figures.helpers.unit_roles import random_units

if TYPE_CHECKING:
    from apps.cli.verify.checks import Check


_RANDOM = 40


def _shares(context: FigureContext) -> Iterator[Check]:
    """The families upstream of the detector that the article analyzes, at the strongest position."""
    from apps.cli.verify.checks import check
    from apps.cli.verify.facts import facts

    for layer, published in facts()["families_upstream_of_3b379"]["percent"].items():
        groups, _ = channel_families(context, layer, ())
        ours = _grouped(_sizes_at_strongest(context, layer, ["mixed3b:379"]), groups)
        ours_percent = {name: 100 * ours.get(name.lower(), 0.0) for name in published}
        most = max(published, key=lambda name: published[name])
        good = (
            all(abs(ours_percent[name] - published[name]) <= 5 for name in published)
            and max(ours_percent, key=lambda n: ours_percent[n]) == most
        )
        statement = f"families of {layer} in the weights to mixed3b:379, percent"
        yield check(statement, f"{published}, within 5", f"{ {n: round(v) for n, v in ours_percent.items()} }", good,
                    "Curve Circuits, Distill 2021")  # fmt: skip


@figure(
    "K3",
    "curve-families",
    "Families in the inputs of curve detectors",
    paper="curve-circuits",
    shows="Curve detectors are built from earlier curves and lines.",
    cost=100,
    published=_shares,
)
def family_shares(context: FigureContext) -> FigureResult:
    """Shares of the weights to curve detectors at the strongest position, beside those to other units."""
    from apps.figures.drawing.share_bars import share_bars

    layer = curve_layer(context)
    curves = curve_detectors(context, 4)
    units = [u.unit for u in curves.units[:10]]
    control = random_units(context, layer, _RANDOM, but=[u.unit for u in curves.units])
    chain = [layer_before(context, layer)]
    while len(chain) < context.size(2, 2, 1) + 2 * context.published and (below := context.model.before(chain[-1])):
        chain.append(below)
    shares: dict[str, dict[str, dict[str, float]]] = {}
    hows, differ = [], {}
    for source in chain:
        groups, how = channel_families(
            context, source, ("curve", "line", "high-low") if source == chain[0] else ("curve", "line")
        )
        hows.append(f"{source}: {how}")
        count = context.model.layers[source].channels
        shares[source] = {
            f"{len(units)} curve detectors": _grouped(_sizes_at_strongest(context, source, units), groups),
            f"{len(control)} other units": _grouped(_sizes_at_strongest(context, source, control), groups),
            "if all channels counted equally": _grouped(np.full((1, count), 1.0 / count), groups),
        }
        differ[source] = _against_random(context, source, units, layer, groups)
    drawing = share_bars(
        {f"from {source}": rows for source, rows in shares.items()},
        title=f"Families in the weights to curve detectors of {layer}",
        about="share of each family in the absolute expanded weights at their strongest position",
    )
    first = shares[chain[0]]
    own, usual, _ = first.values()
    value, level = differ[chain[0]]
    claims = [
        Claim.above(
            "curve detectors have other input families than random units: total variation distance of the shares",
            value,
            level,
            "95 % of as many random units",
        ),
    ]
    family = next((name for name in own if name in ("curve", "curves")), None)
    if family is not None:
        claims.append(
            Claim.above(
                "their weights from earlier curves are larger: share", own[family], usual[family], "other units"
            )
        )
    numbers = {"units": units, "others": control, "shares": shares, "distance": differ}
    caption = f"Families: {'; '.join(hows)}. Curve detectors: {curves.how}."
    return FigureResult({"": drawing}, numbers, caption, claims)


def _sizes_at_strongest(context: FigureContext, source: str, units: list[str]) -> Any:
    """Absolute weights from every channel at each unit's strongest position, each row summing to one."""
    import circuits

    kernels = circuits.expanded_weights(context.model, source=source, target=units).kernels.detach().cpu().double()
    flat = kernels.flatten(2)
    strongest = flat.norm(dim=1).argmax(dim=1)
    sizes = flat.gather(2, strongest[:, None, None].expand(-1, flat.shape[1], 1))[:, :, 0].abs()
    return (sizes / sizes.sum(dim=1, keepdim=True).clamp_min(1e-300)).numpy()


def _grouped(sizes: Any, groups: Mapping[str, list[int]]) -> dict[str, float]:
    shares = {name: float(sizes[:, members].sum(axis=1).mean()) for name, members in groups.items()}
    largest = sorted(shares, key=lambda name: -shares[name])[:7]
    largest_shares = {name: share for name, share in shares.items() if name in largest}
    rest = 1.0 - sum(largest_shares.values())
    return {**largest_shares, "other": rest} if rest > 1e-9 else largest_shares


def _against_random(
    context: FigureContext, source: str, units: list[str], layer: str, groups: Mapping[str, list[int]]
) -> tuple[float, float]:
    """Distance of the units' mean shares from the layer's, and the 95th percentile of that of random units."""
    sizes = _sizes_at_strongest(context, source, [layer])
    shares = np.stack([sizes[:, members].sum(axis=1) for members in groups.values()], axis=1)
    shares = np.concatenate([shares, 1 - shares.sum(axis=1, keepdims=True)], axis=1)
    mean = shares.mean(axis=0)

    def distance(rows: Any) -> float:
        return float(np.abs(shares[rows].mean(axis=0) - mean).sum() / 2)

    rng = np.random.default_rng(context.seed)
    sample = [distance(rng.permutation(len(shares))[: len(units)]) for _ in range(200)]
    return distance([int(u.rpartition(":")[2]) for u in units]), float(np.quantile(sample, 0.95))
