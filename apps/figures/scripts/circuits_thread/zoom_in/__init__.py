"""Figures of *Zoom In*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "zoom-in",
    Paper(
        "Zoom In: An Introduction to Circuits",
        "Olah et al.",
        2020,
        "https://distill.pub/2020/circuits/zoom-in/",
        order=1,
    ),
)
