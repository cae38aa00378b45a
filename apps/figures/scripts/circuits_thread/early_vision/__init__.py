"""Figures of *An Overview of Early Vision*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "early-vision",
    Paper(
        "An Overview of Early Vision in InceptionV1",
        "Olah et al.",
        2020,
        "https://distill.pub/2020/circuits/early-vision/",
        order=2,
    ),
)
