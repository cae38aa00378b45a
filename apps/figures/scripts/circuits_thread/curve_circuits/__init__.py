"""Figures of *Curve Circuits*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "curve-circuits",
    Paper("Curve Circuits", "Cammarata et al.", 2021, "https://distill.pub/2020/circuits/curve-circuits/", order=5),
)
