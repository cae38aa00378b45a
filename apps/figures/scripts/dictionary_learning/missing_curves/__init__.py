"""Figures of *The Missing Curve Detectors of InceptionV1*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "inceptionv1-saes",
    Paper("The Missing Curve Detectors of InceptionV1", "Gorton", 2024, "https://arxiv.org/abs/2406.03662", order=13),
)
