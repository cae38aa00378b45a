"""Figures of *High-Low Frequency Detectors*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "high-low",
    Paper(
        "High-Low Frequency Detectors",
        "Schubert et al.",
        2021,
        "https://distill.pub/2020/circuits/frequency-edges/",
        order=4,
    ),
)
