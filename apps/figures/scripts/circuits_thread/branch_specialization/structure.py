"""Branch Specialization: branches are visible in the weights, and families of units are concentrated in one branch."""

from __future__ import annotations

from apps.cli.verify import families
from apps.figures.context import FigureContext, NotApplicable
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.tuned_units import search

_FEWEST = 4
"""Fewest detectors of a kind that are tested as a family."""


@figure(
    "B6",
    "branches",
    "Branches are visible in the weights, and families in branches",
    paper="branch-specialization",
    shows="Singular vectors of the weights separate groups of units; families of units are concentrated in one branch.",
    fits="inception",
    cost=60,
    published=lambda context: [*families.enrichment(), families.color_vector(context.model)],
)
def draw(context: FigureContext) -> FigureResult:
    """Singular vectors of |W| into a layer, by branch; and families from clustering, against the branches."""
    from circuits import branch_enrichment, branch_structure
    from circuits.plot import branch_scatter, enrichment_bars
    from circuits.units.branch_specialization import branches_of
    from circuits.units.similarity import by_tuning
    from circuits.units.weight_factors import families

    model = context.model
    target = context.layer("mixed4c", "mixed4b")
    source = model.before(target)
    if source is None or not branches_of(model, source):
        raise NotApplicable(f"needs a layer with branches before {target}")
    structure = branch_structure(model, target, shuffles=context.size(20, 10, 4), seed=context.seed)
    sources = structure.side("sources")
    layer = context.layer("mixed4c", "mixed4a")
    responses = context.scan.samples(layer).values.clip(min=0).T
    addresses = [str(model.unit(f"{layer}:{i}")) for i in range(len(responses))]
    similarity = by_tuning(responses, addresses)
    groups = families(similarity, count=max(4, len(responses) // 8), seed=context.seed)
    named_families = {
        f"{layer} family {i + 1}": m for i, m in enumerate(groups.members) if len(m) >= context.size(6, 4, 4)
    }
    tested = branch_enrichment(named_families, branches_of(model, layer)) if named_families else None
    kinds = {"curve": "mixed3b", "high-low": "mixed3a"}
    tuned = {}
    for kind, at in kinds.items():
        detectors = search(context, kind, context.layer(at))
        if detectors.passed < _FEWEST:
            continue
        tuned[kind] = branch_enrichment(
            {f"{kind} detectors": [u.index for u in detectors.units[: detectors.passed]]}, branches_of(model, at)
        )
    drawings = {"singular-vectors": branch_scatter(structure, "sources", title=f"Branches of {sources.layer}")}
    if tested is not None:
        drawings["families"] = enrichment_bars(tested, n=12, title=f"Families of {layer} that fire together")
    for kind, rows in tuned.items():
        drawings[kind] = enrichment_bars(rows, title=f"Branches of {kinds[kind]} with {kind} detectors")
    bound = max([*sources.shuffled, sources.untrained or 0.0])
    claims = [
        Claim.above(
            "the weights into the next layer separate the branches (AUC)",
            sources.auc,
            bound,
            "the best of shuffled weights and an untrained network",
        ),
        *[
            Claim(
                f"{kind} detectors are concentrated in {rows.best.branch} (corrected p)",
                rows.best.adjusted,
                0.05,
                rows.best.significant,
                "the usual level",
            )
            for kind, rows in tuned.items()
        ],
    ]
    if tested is not None:
        enriched = len({r.family for r in tested.rows if r.significant})
        claims.append(
            Claim.above(
                f"families of {layer} that are concentrated in one branch, of {len(named_families)}",
                enriched,
                0.05 * len(named_families),
                "expected at most by chance",
            )
        )
    numbers = {
        "structure": {k: v for k, v in structure.describe().items() if k != "provenance"},
        "vectors": structure.sources[:, 1:3].tolist(),
        "families": None if tested is None else tested.describe(),
        "tuned": {kind: rows.describe() for kind, rows in tuned.items()},
    }
    caption = (
        f"Channels of {sources.layer} in the second and third singular vector of |W| into {target}; families of "
        f"{layer} by correlation at {responses.shape[1]} positions, and units that pass the tests for detectors "
        f"({', '.join(tuned) or 'too few do'}), against the branches (hypergeometric tests, Holm's correction)."
    )
    return FigureResult(drawings, numbers, caption, claims)
