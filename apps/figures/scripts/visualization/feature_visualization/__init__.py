"""Figures of *Feature Visualization*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "feature-visualization",
    Paper(
        "Feature Visualization",
        "Olah, Mordvintsev and Schubert",
        2017,
        "https://distill.pub/2017/feature-visualization/",
        order=8,
    ),
)
