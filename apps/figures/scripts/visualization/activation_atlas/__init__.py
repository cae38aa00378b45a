"""Figures of *Activation Atlas*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "atlas",
    Paper("Activation Atlas", "Carter et al.", 2019, "https://distill.pub/2019/activation-atlas/", order=10),
)
