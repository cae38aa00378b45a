"""Figures of *Branch Specialization*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "branch-specialization",
    Paper(
        "Branch Specialization",
        "Voss et al.",
        2021,
        "https://distill.pub/2020/circuits/branch-specialization/",
        order=7,
    ),
)
