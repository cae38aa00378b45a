"""Figures of *Visualizing Weights*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "visualizing-weights",
    Paper(
        "Visualizing Weights", "Voss et al.", 2021, "https://distill.pub/2020/circuits/visualizing-weights/", order=6
    ),
)
