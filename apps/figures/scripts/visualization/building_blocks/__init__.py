"""Figures of *The Building Blocks of Interpretability*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "building-blocks",
    Paper(
        "The Building Blocks of Interpretability",
        "Olah et al.",
        2018,
        "https://distill.pub/2018/building-blocks/",
        order=9,
    ),
)
