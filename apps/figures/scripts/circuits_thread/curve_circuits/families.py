"""Curve Circuits: which families of units curve detectors read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import curve_layer, kinds, layer_before, search
from apps.figures.helpers.unit_roles import random_units

if TYPE_CHECKING:
    from apps.cli.verify.checks import Check
    from apps.figures.context import FigureContext


_RANDOM = 40


def _shares(context: FigureContext) -> Iterator[Check]:
    """The families upstream of the detector that the article takes apart, at the strongest position."""
    from apps.cli.verify.checks import check
    from apps.cli.verify.facts import facts

    for layer, said in facts()["families_upstream_of_3b379"]["percent"].items():
        groups, _ = kinds(context, layer, ())
        ours = _of_units(context, layer, ["mixed3b:379"], groups)
        told = {name: 100 * ours.get(name.lower(), 0.0) for name in said}
        most = max(said, key=lambda name: said[name])
        good = all(abs(told[name] - said[name]) <= 5 for name in said) and max(told, key=lambda n: told[n]) == most
        what = f"families of {layer} in the weights to mixed3b:379, percent"
        yield check(what, f"{said}, within 5", f"{ {n: round(v) for n, v in told.items()} }", good,
                    "Curve Circuits, Distill 2021")  # fmt: skip


@figure(
    "K3",
    "curve-families",
    "Which families a curve detector reads",
    paper="curve-circuits",
    shows="Curve detectors are built from earlier curves and lines.",
    cost=100,
    published=_shares,
)
def family_shares(context: FigureContext) -> FigureResult:
    """Shares of the weights to curve detectors at the strongest position, beside those to other units."""
    from apps.figures.drawing.share_bars import share_bars

    layer = curve_layer(context)
    found = search(context, "curve", layer, at_least=4)
    shown = [u.unit for u in found.units[:10]]
    control = random_units(context, layer, _RANDOM, but=[u.unit for u in found.units])
    chain = [layer_before(context, layer)]
    while len(chain) < context.size(2, 2, 1) + 2 * context.published and (below := context.model.before(chain[-1])):
        chain.append(below)
    drawn: dict[str, dict[str, dict[str, float]]] = {}
    hows, differ = [], {}
    for source in chain:
        groups, how = kinds(context, source, ("curve", "line", "high-low") if source == chain[0] else ("curve", "line"))
        hows.append(f"{source}: {how}")
        drawn[source] = {
            f"{len(shown)} curve detectors": _of_units(context, source, shown, groups),
            f"{len(control)} other units": _of_units(context, source, control, groups),
            "if all channels counted alike": _sizes(context, source, groups),
        }
        differ[source] = _against_random(context, source, shown, layer, groups)
    drawing = share_bars(
        {f"from {source}": rows for source, rows in drawn.items()},
        title=f"Where the weights of curve detectors of {layer} come from",
        about="share of each family in the sizes of the weights at the strongest position of the expanded weights",
    )
    first = drawn[chain[0]]
    own, usual, _ = first.values()
    value, level = differ[chain[0]]
    claims = [
        Claim("curve detectors read other families than units drawn by lot: distance of the shares (total variation)",
              value, level, value > level, "95 % of as many units drawn by lot"),
    ]  # fmt: skip
    family = next((name for name in own if name in ("curve", "curves")), None)
    if family is not None:
        more = own[family] > usual[family]
        claims.append(Claim("earlier curves count for more in them", own[family], usual[family], more, "other units"))
    numbers = {"units": shown, "others": control, "shares": drawn, "distance": differ}
    caption = f"Families told by: {'; '.join(hows)}. Curve detectors: {found.how}."
    return FigureResult({"": drawing}, numbers, caption, claims)


def _sizes_at_strongest(context: FigureContext, source: str, units: list[str]) -> Any:
    """Sizes of the weights from every channel at each unit's strongest position, each row summing to one."""
    import circuits

    kernels = circuits.expanded_weights(context.model, source=source, target=units).kernels.detach().cpu().double()
    flat = kernels.flatten(2)
    place = flat.norm(dim=1).argmax(dim=1)
    sizes = flat.gather(2, place[:, None, None].expand(-1, flat.shape[1], 1))[:, :, 0].abs()
    return (sizes / sizes.sum(dim=1, keepdim=True).clamp_min(1e-300)).numpy()


def _grouped(sizes: Any, groups: Mapping[str, list[int]]) -> dict[str, float]:
    shares = {name: float(sizes[:, members].sum(axis=1).mean()) for name, members in groups.items()}
    largest = sorted(shares, key=lambda name: -shares[name])[:7]
    kept = {name: share for name, share in shares.items() if name in largest}
    rest = 1.0 - sum(kept.values())
    return {**kept, "other": rest} if rest > 1e-9 else kept


def _of_units(
    context: FigureContext, source: str, units: list[str], groups: Mapping[str, list[int]]
) -> dict[str, float]:
    return _grouped(_sizes_at_strongest(context, source, units), groups)


def _sizes(context: FigureContext, source: str, groups: Mapping[str, list[int]]) -> dict[str, float]:
    import numpy as np

    count = context.model.layers[source].channels
    return _grouped(np.full((1, count), 1.0 / count), groups)


def _against_random(
    context: FigureContext, source: str, units: list[str], layer: str, groups: Mapping[str, list[int]]
) -> tuple[float, float]:
    """Distance of the units' mean shares from the layer's, and the 95th percentile of that of as many by lot."""
    import numpy as np

    every = _sizes_at_strongest(context, source, [layer])
    named = np.stack([every[:, members].sum(axis=1) for members in groups.values()], axis=1)
    named = np.concatenate([named, 1 - named.sum(axis=1, keepdims=True)], axis=1)
    middle = named.mean(axis=0)

    def away(rows: Any) -> float:
        return float(np.abs(named[rows].mean(axis=0) - middle).sum() / 2)

    rng = np.random.default_rng(context.seed)
    drawn = [away(rng.permutation(len(named))[: len(units)]) for _ in range(200)]
    return away([int(u.rpartition(":")[2]) for u in units]), float(np.quantile(drawn, 0.95))
