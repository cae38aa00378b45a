"""Families, branches and factors of weights: planted ones, and the published ones of the 5h InceptionV1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from apps.cli.verify.checks import Check, check, skipped
from apps.cli.verify.facts import facts, family, unit_facts

if TYPE_CHECKING:
    from circuits.network.model import Model

_SOURCE = "Distill 2020-21"
_CURVES = ("Curves", "Double Curves", "Curves misc.", "Shallow Curves", "Curve Shapes", "Evolute", "Circles / Loops")
_BOUNDARIES = ("Boundary", "Double Boundary", "Boundary Misc")
_MIRROR = -0.5
"""Correlation of two spatial factors below which they are each other's negative."""


def library(seed: int) -> Iterator[Check]:
    """What needs no weights: published tables, and planted factors and families."""
    yield from enrichment()
    yield planted_factors(seed)
    yield turned_family(seed)


def enrichment() -> Iterator[Check]:
    """Published families against published branches: the exact test, corrected for all families of the layer."""
    from circuits.units.branch_specialization import branch_enrichment

    for what, layer, members, count, bound in (
        ("black-and-white units of mixed3a", "mixed3a", set(unit_facts("bw_in_5x5")), 9, 1e-8),
        ("curve units of mixed3b", "mixed3b", family("mixed3b", *_CURVES), 30, 1e-20),
    ):
        spans = facts()["architecture"]["branches"][layer]
        branches = {name: (spans[name][0], spans[name][1] + 1) for name in ("1x1", "3x3", "5x5", "pool_proj")}
        families = {f["family"]: set(f["units"]) - members for f in facts()["families"] if f["layer"] == layer}
        families = {name: units for name, units in families.items() if units}
        row = branch_enrichment({what: members, **families}, branches).row("5x5", what)
        size, total = row.size, row.total
        exact = math.comb(size, count) / math.comb(total, count)
        good = row.inside == row.members == count and abs(row.p / exact - 1) < 1e-6 and row.p < bound
        yield check(
            f"{what}: enriched in the 5x5 branch",
            f"{count} of {count}, p < {bound:.0e}, and after correction < 1e-5",
            f"{row.inside} of {row.members}, p {row.p:.0e}, corrected for all families {row.adjusted:.0e}",
            good and row.adjusted < 1e-5,
            _SOURCE,
        )


def planted_factors(seed: int) -> Check:
    """Two groups of channels, mirror-negative in space, are separated by one-sided NMF."""
    import numpy as np

    from circuits.units.weight_factors import one_sided_nmf

    rng = np.random.default_rng(seed)
    channels = np.zeros((2, 40))
    channels[0, :12], channels[1, 12:30] = rng.uniform(0.5, 2, 12), rng.uniform(0.2, 1, 18)
    side = rng.normal(size=(6, 5, 5))
    spatial = np.stack([side, -side]) + 0.3 * rng.normal(size=(2, 6, 5, 5))
    factors = one_sided_nmf(np.einsum("ktij,ks->tsij", spatial, channels), 2, seed=seed)
    order = [int(np.argmax([cosine(f, c) for f in factors.channels])) for c in channels]
    cosines = [cosine(factors.channels[i], channels[k]) for k, i in enumerate(order)]
    cosines += [cosine(factors.spatial[i], spatial[k]) for k, i in enumerate(order)]
    good = sorted(order) == [0, 1] and min(cosines) > 0.99 and float(factors.channels.min()) >= 0
    return check(
        "one-sided NMF: two planted groups of channels and their signed spatial weights",
        "cosine > 0.99, channels >= 0",
        f"cosine {min(cosines):.4f}, explained {factors.explained:.3f} (shuffled {max(factors.shuffled):.3f})",
        good,
    )


def turned_family(seed: int) -> Check:
    """Four units that are one unit turned by quarters: their likeness depends on the step between them alone."""
    import numpy as np

    from circuits.units.similarity import similarity
    from circuits.units.weight_factors import equivariance

    first = np.random.default_rng(seed).normal(size=(4, 5, 5))
    rows = np.stack([np.rot90(np.roll(first, i, axis=0), i, axes=(1, 2)) for i in range(4)])
    matrix = similarity(rows)
    away = float(np.abs(matrix - np.roll(matrix, (1, 1), axis=(0, 1))).max())
    share = equivariance(rows, shuffles=0).share
    return check(
        "a unit turned by quarters: the family's cosine matrix is circulant",
        "difference < 1e-6, share 1",
        f"difference {away:.0e}, share {share:.4f}",
        away < 1e-6 and share > 1 - 1e-6,
    )


PUBLISHED = (
    "two factors of the weights into six high-low frequency units",
    "boundary units among what high-low frequency units feed most",
    "color and black-and-white units separated by a singular vector",
)
"""What `published` checks, for the list of what is skipped without weights."""


def without_weights(missing: str) -> Iterator[Check]:
    """The published checks, skipped."""
    for what in PUBLISHED:
        yield skipped(what, "published", missing, _SOURCE)


def published(model: Model, seed: int = 0) -> Iterator[Check]:
    """What the articles found in the weights of the 5h InceptionV1."""
    yield from high_low_factors(model, seed)
    yield boundaries(model)
    yield color_vector(model)


def high_low_factors(model: Model, seed: int) -> Iterator[Check]:
    """Weights into six high-low units fall into a high- and a low-frequency group, each other's mirror in space."""
    import numpy as np

    from circuits.attribution.expanded_weights import expanded_weights
    from circuits.common.statistics import correlation
    from circuits.units.weight_factors import one_sided_nmf

    units = facts()["universality_units"]["high_low"]["InceptionV1 mixed3a"]
    expected = unit_facts("hl_two_factors")
    for source in ("conv2d2", "conv2d1"):
        weights = expanded_weights(model, source=source, target=[f"mixed3a:{u}" for u in units])
        factors = one_sided_nmf(weights, 2, seed=seed)
        tops = [{int(unit.rpartition(":")[2]) for unit, _ in factors.top(k, 5)} for k in range(2)]
        sets = [{int(c) for c in expected[f"{source}_{kind}"]} for kind in ("HF", "LF")]
        straight = [len(tops[0] & sets[0]), len(tops[1] & sets[1])]
        crossed = [len(tops[1] & sets[0]), len(tops[0] & sets[1])]
        high, low = max(straight, crossed, key=sum)
        mirrored = correlation(factors.spatial[0], factors.spatial[1])
        yield check(
            f"two factors of {source} -> six high-low units of mixed3a: their 5 strongest channels, mirrored in space",
            f"at least 4 of the 5 published, each; correlation < {_MIRROR}",
            f"{high} of 5 high, {low} of 5 low, correlation {mirrored:.2f}; explained {factors.explained:.2f}, "
            f"shuffled {float(np.mean(factors.shuffled)):.2f}",
            # two factors of any weights are near mirrors, so that alone would prove nothing
            min(high, low) >= 4 and mirrored < _MIRROR,
            _SOURCE,
        )


def boundaries(model: Model) -> Check:
    """Of the units of mixed3b with the largest weights from high-low units, many detect boundaries."""
    from circuits.attribution.expanded_weights import expanded_weights

    high_low = sorted(family("mixed3a", "High-Low Frequency"))
    norms = expanded_weights(model, source="mixed3a", target="mixed3b").norms.detach().cpu()
    strongest = norms[:, high_low].square().sum(dim=1).argsort(descending=True, stable=True)[:20].tolist()
    inside = len(set(strongest) & family("mixed3b", *_BOUNDARIES))
    expected = unit_facts("hl_top20")
    return check(
        "boundary units among the 20 units of mixed3b with the largest weights from high-low units",
        f"{expected} of 20",
        f"{inside} of 20",
        inside == expected,
        _SOURCE,
    )


def color_vector(model: Model) -> Check:
    """The first singular vector of |W(conv2d0 -> conv2d1)| beyond overall strength separates color from Gabor units."""
    import torch

    from circuits.common.statistics import auc
    from circuits.units.branch_specialization import branch_structure

    groups = {
        "color": sorted(family("conv2d0", "Color Contrast")),
        "gabor": sorted(family("conv2d0", "Gabor Filters")),
    }
    structure = branch_structure(
        model, "conv2d1", source="conv2d0", source_groups=groups, vectors=2, shuffles=20, compare_untrained=False
    )
    vector = torch.from_numpy(structure.sources[:, 1:2].copy())
    separation = float(auc(vector[groups["color"]], vector[groups["gabor"]]))
    separation = max(separation, 1 - separation)
    chance = max(structure.side().shuffled)
    return check(
        "color and Gabor units of conv2d0 separated on the first singular vector of |W| into conv2d1",
        "AUC >= 0.9",
        f"AUC {separation:.2f}; in two vectors {structure.side().auc:.2f}, shuffled at most {chance:.2f}",
        separation >= 0.9,
        _SOURCE,
    )


def cosine(first: Any, second: Any) -> float:
    """Cosine of two arrays, flattened."""
    import numpy as np

    a, b = np.ravel(first), np.ravel(second)
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-30))
