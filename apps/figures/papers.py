"""The papers whose figures are made again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """A paper or article.

    Attributes:
        title, authors, year: as published; url: where it is read.
    """

    title: str
    authors: str
    year: int
    url: str


def _thread(title: str, authors: str, year: int, path: str) -> Paper:
    return Paper(title, authors, year, f"https://distill.pub/2020/circuits/{path}")


PAPERS: dict[str, Paper] = {
    "zoom-in": _thread("Zoom In: An Introduction to Circuits", "Olah et al.", 2020, "zoom-in/"),
    "early-vision": _thread("An Overview of Early Vision in InceptionV1", "Olah et al.", 2020, "early-vision/"),
    "curve-detectors": _thread("Curve Detectors", "Cammarata et al.", 2020, "curve-detectors/"),
    "high-low": _thread("High-Low Frequency Detectors", "Schubert et al.", 2021, "frequency-edges/"),
    "curve-circuits": _thread("Curve Circuits", "Cammarata et al.", 2021, "curve-circuits/"),
    "visualizing-weights": _thread("Visualizing Weights", "Voss et al.", 2021, "visualizing-weights/"),
    "branch-specialization": _thread("Branch Specialization", "Voss et al.", 2021, "branch-specialization/"),
    "feature-visualization": Paper(
        "Feature Visualization",
        "Olah, Mordvintsev and Schubert",
        2017,
        "https://distill.pub/2017/feature-visualization/",
    ),
    "building-blocks": Paper(
        "The Building Blocks of Interpretability", "Olah et al.", 2018, "https://distill.pub/2018/building-blocks/"
    ),
    "atlas": Paper("Activation Atlas", "Carter et al.", 2019, "https://distill.pub/2019/activation-atlas/"),
    "toy-models": Paper(
        "Toy Models of Superposition",
        "Elhage et al.",
        2022,
        "https://transformer-circuits.pub/2022/toy_model/index.html",
    ),
    "monosemanticity": Paper(
        "Towards Monosemanticity",
        "Bricken et al.",
        2023,
        "https://transformer-circuits.pub/2023/monosemantic-features/index.html",
    ),
    "inceptionv1-saes": Paper(
        "The Missing Curve Detectors of InceptionV1", "Gorton", 2024, "https://arxiv.org/abs/2406.03662"
    ),
    "steering": Paper(
        "Evaluating Feature Steering",
        "Durmus et al.",
        2024,
        "https://www.anthropic.com/research/evaluating-feature-steering",
    ),
}
"""By the short name that a script gives, in the order of the gallery."""
