"""Figures of *Evaluating Feature Steering*."""

from apps.figures.papers import PAPERS, Paper

PAPERS.add(
    "steering",
    Paper(
        "Evaluating Feature Steering",
        "Durmus et al.",
        2024,
        "https://www.anthropic.com/research/evaluating-feature-steering",
        order=14,
    ),
)
