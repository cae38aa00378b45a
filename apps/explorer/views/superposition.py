"""Toy models of superposition, trained as the sliders move: sparse features share dimensions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.pages import Entry
from apps.explorer.session.exports import Export
from apps.explorer.session.figures import ScreenFigure, screen_figure, show
from circuits.plot.superposition import models as figures_of
from sae import superposition
from sae.superposition import Trained
from zoo.progress import Progress

PAGE = Entry("Superposition", ":material/hub:", "toy models of superposition, trained at once", order=60)
KINDS = {"relu": "ReLU output", "linear": "Linear", "privileged": "Hidden ReLU", "absolute": "Absolute value"}
SEEDS, STEPS, BATCH = 3, 1500, 256
FIGURES = {"gram": "Interference", "planes": "Directions", "graph": "Feature geometry"}


def main() -> None:
    """The page."""
    top = st.container()
    kind = choose("Kind", KINDS, "kind")
    columns = st.columns(4)
    n = columns[0].slider("Features", 2, 40, 5, key="n", bind="query-params")
    m = columns[1].slider("Hidden dimensions", 1, 20, 2, key="m", bind="query-params")
    density = columns[2].slider("Feature density, % of examples", 1, 100, 5, key="density", bind="query-params")
    importance = columns[3].slider(
        "Importance of each next feature, %", 50, 100, 100, key="importance", bind="query-params"
    )
    settings = {"features": n, "hidden": m, "densities": density / 100, "kind": kind, "importance": importance / 100}
    result: tuple[Trained, dict[str, ScreenFigure]] | None = None
    if m > n:
        st.info("With more dimensions than features there is no superposition. Choose fewer dimensions.")
    else:
        key = ("toy", *settings.values())
        result = page_frame.background_result(
            key, f"training {SEEDS} models", lambda report: train_toy(settings, report)
        )
    with top:
        page_frame.header(
            "superposition", "Superposition", about="sparse features share dimensions: they are rarely active together",
            python=_python(settings), export=None if result is None else _export(result[0]),
        )  # fmt: skip
    if result is not None:
        _results(*result)


def train_toy(settings: dict[str, Any], progress: Progress) -> tuple[Trained, dict[str, ScreenFigure]]:
    """The best of a few toy models, and its figures."""
    n, ratio = settings["features"], settings["importance"]
    models = superposition.grid(
        n, settings["hidden"], densities=settings["densities"], seeds=SEEDS, kind=settings["kind"],
        importance=superposition.decaying(n, ratio),
    )  # fmt: skip
    best = superposition.train(models, steps=STEPS, lr=3e-3, batch=BATCH, device="cpu", progress=progress).best()
    figures = {"gram": screen_figure(lambda: figures_of.gram_figure(best))}
    if settings["hidden"] == 2:
        figures["planes"] = screen_figure(lambda: figures_of.planes_figure(best))
    solution = best[0]
    if solution.represented > 1:
        figures["graph"] = screen_figure(lambda: _graph(best))
    return best, figures


def _graph(best: Trained) -> Any:
    solution = best[0]
    return figures_of.graph_figure([("", solution.directions, solution.polytopes)])


def _results(best: Trained, figures: dict[str, ScreenFigure]) -> None:
    solution = best[0]
    columns = st.columns(4)
    columns[0].metric("Represented features", f"{solution.represented} of {solution.model.features}")
    columns[1].metric(
        "Dimensions per feature", f"{solution.dimensions_per_feature:.2f}",
        help="Hidden dimensions divided by the squared length of all directions: 1 without superposition, 0.5 where "
        "all features share a dimension with an opposite one.",
    )  # fmt: skip
    columns[2].metric("Loss", f"{solution.loss:.2g}")
    counted = Counter(shape.name for shape in solution.polytopes)
    shapes = ", ".join(f"{n} {name}" if n > 1 else name for name, n in counted.most_common(3))
    columns[3].metric(
        "Polytopes", shapes or "none",
        help="What the directions of features that interfere form, by the angles between them: a pair of opposite ones "
        "(digon) in one dimension, a triangle or a pentagon in two, a tetrahedron in three. A feature with a dimension "
        "of its own is dedicated.",
    )  # fmt: skip
    available = {name: title for name, title in FIGURES.items() if name in figures}
    chosen = choose("Figure", available, "figure")
    show(figures[chosen], f"{FIGURES[chosen]} of the trained model", 720)
    roles = solution.roles()
    rows = [
        {
            "feature": i,
            "length": round(float(solution.norms[i]), 3),
            "dimensionality": round(float(solution.dimensionality[i]), 3),
            "interference": round(float(solution.interference[i]), 3),
            "role": roles[i],
        }
        for i in range(solution.model.features)
    ]
    with st.expander("Table of features"):
        st.dataframe(rows, hide_index=True, alt="length, dimensionality and interference of each feature")


def _python(settings: dict[str, Any]) -> str:
    return (
        "from sae import superposition\n\n"
        f"models = superposition.grid(\n    {settings['features']}, {settings['hidden']}, "
        f"densities={settings['densities']}, seeds={SEEDS}, kind={settings['kind']!r},\n"
        f"    importance=superposition.decaying({settings['features']}, {settings['importance']}),\n)\n"
        f"best = superposition.train(models, steps={STEPS}, lr=3e-3, batch={BATCH}).best()\n"
        "print(best[0].represented, [shape.name for shape in best[0].polytopes])\n"
    )


def _export(best: Trained) -> Export:
    def rows() -> list[dict[str, Any]]:
        solution = best[0]
        return [
            {"feature": i, "length": float(solution.norms[i]), "dimensionality": float(solution.dimensionality[i])}
            for i in range(solution.model.features)
        ]

    return Export("superposition", lambda: figures_of.gram_figure(best), best.describe, rows)


main()
