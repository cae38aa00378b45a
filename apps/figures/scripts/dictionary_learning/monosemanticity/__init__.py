"""Figures of *Towards Monosemanticity* and *Scaling Monosemanticity*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "monosemanticity",
    Paper(
        "Towards Monosemanticity",
        "Bricken et al.",
        2023,
        "https://transformer-circuits.pub/2023/monosemantic-features/index.html",
        order=12,
    ),
)
