"""Figures of *Curve Detectors*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "curve-detectors",
    Paper("Curve Detectors", "Cammarata et al.", 2020, "https://distill.pub/2020/circuits/curve-detectors/", order=3),
)
