"""Toy models of superposition, trained while you watch: sparse features share dimensions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.session import exports
from apps.explorer.session.exports import Export
from circuits.plot.superposition import models as drawn
from sae import superposition
from sae.superposition import Trained
from zoo.progress import Progress

KINDS = {"relu": "ReLU output", "linear": "Linear", "privileged": "Hidden ReLU", "absolute": "Absolute value"}
SEEDS, STEPS, BATCH = 3, 1500, 256
FIGURES = {"gram": "Interference", "planes": "Directions", "graph": "Groups"}


def main() -> None:
    """The page."""
    top = st.container()
    kind = choose("Kind", KINDS, "kind")
    one, two, three, four = st.columns(4)
    n = one.slider("Features", 2, 40, 5, key="n", bind="query-params")
    m = two.slider("Hidden dimensions", 1, 20, 2, key="m", bind="query-params")
    density = three.slider("Density, % of examples with a feature", 1, 100, 5, key="density", bind="query-params")
    importance = four.slider("Importance of each next one, %", 50, 100, 100, key="importance", bind="query-params")
    settings = {"features": n, "hidden": m, "densities": density / 100, "kind": kind, "importance": importance / 100}
    found: tuple[Trained, dict[str, bytes]] | None = None
    if m > n:
        st.info("More dimensions than features: there is nothing to share. Take fewer dimensions.")
    else:
        key = ("toy", *settings.values())
        found = page_frame.settled(key, f"training {SEEDS} models", lambda report: trained(settings, report))
    with top:
        page_frame.show(
            "superposition", "Superposition", about="sparse features share dimensions, because they seldom meet",
            python=_python(settings), export=None if found is None else _export(found[0]),
        )  # fmt: skip
    if found is not None:
        _results(*found)


def trained(settings: dict[str, Any], progress: Progress) -> tuple[Trained, dict[str, bytes]]:
    """The best of a few runs, and its figures."""
    n, ratio = settings["features"], settings["importance"]
    models = superposition.grid(
        n, settings["hidden"], densities=settings["densities"], seeds=SEEDS, kind=settings["kind"],
        importance=superposition.decaying(n, ratio),
    )  # fmt: skip
    best = superposition.train(models, steps=STEPS, lr=3e-3, batch=BATCH, device="cpu", progress=progress).best()
    figures = {"gram": exports.figure_bytes(lambda: drawn.gram_figure(best), "png")}
    if settings["hidden"] == 2:
        figures["planes"] = exports.figure_bytes(lambda: drawn.planes_figure(best), "png")
    solution = best[0]
    if solution.represented > 1:
        figures["graph"] = exports.figure_bytes(lambda: _graph(best), "png")
    return best, figures


def _graph(best: Trained) -> Any:
    solution = best[0]
    return drawn.graph_figure([("", solution.directions, solution.polytopes)])


def _results(best: Trained, figures: dict[str, bytes]) -> None:
    solution = best[0]
    one, two, three, four = st.columns(4)
    one.metric("Represented", f"{solution.represented} of {solution.model.features}")
    two.metric("Dimensions per feature", f"{solution.dimensions_per_feature:.2f}")
    three.metric("Loss", f"{solution.loss:.2g}")
    counted = Counter(shape.name for shape in solution.polytopes)
    shapes = ", ".join(f"{n} {name}" if n > 1 else name for name, n in counted.most_common(3))
    four.metric("Solids", shapes or "none")
    there = {name: title for name, title in FIGURES.items() if name in figures}
    which = choose("Figure", there, "figure")
    st.image(figures[which], width=720, alt=f"{FIGURES[which]} of the trained model")
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
    with st.expander("Feature by feature"):
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

    return Export("superposition", lambda: drawn.gram_figure(best), best.describe, rows)


main()
