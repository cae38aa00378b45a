"""Branch Specialization: branches show in the weights, and families of units live in one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.context import NotApplicable
from apps.figures.figure import Claim, FigureResult, figure

if TYPE_CHECKING:
    from apps.cli.verify.checks import Check
    from apps.figures.context import FigureContext


_FEWEST = 4
"""Detectors of a kind that make a family."""


def _published(context: FigureContext) -> list[Check]:
    from apps.cli.verify import families

    return [*families.enrichment(), families.color_vector(context.model)]


@figure(
    "B6",
    "branches",
    "Branches show in the weights, and families live in branches",
    paper="branch-specialization",
    shows="Singular vectors of the weights tell groups of units apart, and kinds of units gather in one branch.",
    fits="inception",
    cost=60,
    published=_published,
)
def draw(context: FigureContext) -> FigureResult:
    """Singular vectors of |W| into a layer, by branch; and families found without labels, against the branches."""
    from apps.figures.helpers.tuned_units import search
    from circuits import branch_enrichment, branch_structure
    from circuits.plot import branch_scatter, enrichment_bars
    from circuits.units.branch_specialization import branches_of
    from circuits.units.similarity import by_tuning
    from circuits.units.weight_factors import families

    model = context.model
    reader = context.layer("mixed4c", "mixed4b")
    read = model.before(reader)
    if read is None or not branches_of(model, read):
        raise NotApplicable(f"needs a layer with branches below {reader}")
    found = branch_structure(model, reader, shuffles=context.size(20, 10, 4), seed=context.seed)
    one = found.side("sources")
    layer = context.layer("mixed4c", "mixed4a")
    seen = context.scan.samples(layer).values.clip(min=0).T
    addresses = [str(model.unit(f"{layer}:{i}")) for i in range(len(seen))]
    likeness = by_tuning(seen, addresses)
    groups = families(likeness, count=max(4, len(seen) // 8), seed=context.seed)
    named = {f"{layer} family {i + 1}": m for i, m in enumerate(groups.members) if len(m) >= context.size(6, 4, 4)}
    tested = branch_enrichment(named, branches_of(model, layer)) if named else None
    kinds = {"curve": "mixed3b", "high-low": "mixed3a"}
    tuned = {}
    for kind, where in kinds.items():
        some = search(context, kind, context.layer(where))
        if some.passed < _FEWEST:
            continue
        tuned[kind] = branch_enrichment(
            {f"{kind} detectors": [u.index for u in some.units[: some.passed]]}, branches_of(model, where)
        )
    pictures = {"singular-vectors": branch_scatter(found, "sources", title=f"Branches of {one.layer}")}
    if tested is not None:
        pictures["families"] = enrichment_bars(tested, n=12, title=f"Families of {layer} that fire together")
    for kind, rows in tuned.items():
        pictures[kind] = enrichment_bars(rows, title=f"Branches of {kinds[kind]} with {kind} detectors")
    bound = max([*one.shuffled, one.untrained or 0.0])
    claims = [
        Claim("the weights of the next layer show the branches (AUC)", one.auc, bound, one.auc > bound,
              "the best of shuffled weights and an untrained network"),
        *[
            Claim(f"{kind} detectors gather in {rows.best.branch} (corrected p)", rows.best.adjusted, 0.05,
                  rows.best.significant, "the usual bound")
            for kind, rows in tuned.items()
        ],
    ]  # fmt: skip
    if tested is not None:
        enriched = len({r.family for r in tested.rows if r.significant})
        claims.append(Claim(f"families of {layer} that gather in one branch, of {len(named)}", enriched,
                            0.05 * len(named), enriched > 0.05 * len(named), "expected at most by chance"))  # fmt: skip
    numbers = {
        "structure": {k: v for k, v in found.describe().items() if k != "provenance"},
        "vectors": found.sources[:, 1:3].tolist(),
        "families": None if tested is None else tested.describe(),
        "tuned": {kind: rows.describe() for kind, rows in tuned.items()},
    }
    caption = (
        f"Channels of {one.layer} in the second and third singular vector of |W| into {reader}; families of {layer} by "
        f"correlation at {seen.shape[1]} places, and units that pass the tests for detectors "
        f"({', '.join(tuned) or 'too few do'}), against the branches (hypergeometric tests, Holm's correction)."
    )
    return FigureResult(pictures, numbers, caption, claims)
