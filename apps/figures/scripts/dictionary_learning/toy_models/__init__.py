"""Figures of *Toy Models of Superposition*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "toy-models",
    Paper(
        "Toy Models of Superposition",
        "Elhage et al.",
        2022,
        "https://transformer-circuits.pub/2022/toy_model/index.html",
        order=11,
    ),
)
