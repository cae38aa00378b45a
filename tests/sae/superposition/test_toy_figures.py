"""Figures of toy models: drawn from results, saved whole, refused where they would say nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

import sae
from circuits.errors import CircuitsError
from circuits.plot import save_figure
from circuits.plot.superposition import charts, models as superposition
from circuits.plot.superposition.recovery import recovery_figure
from sae.superposition import (
    PLATEAUS,
    Trained,
    feature_dimensionality,
    geometry,
    grid,
    phase_diagram,
    recovery,
    train,
    vulnerability,
)


@pytest.fixture(scope="module")
def planes() -> Trained:
    models = grid(5, 2, densities=[0.5, 0.1], exclusive=((0, 1),)) + grid(4, 2, densities=0.1, correlated=((0, 1),))
    return train(models, steps=60, batch=64, device="cpu")


def _dynamics(trained: Trained) -> Figure:
    losses, rows = trained.history(0)
    return charts.dynamics_figure(trained.steps, losses, feature_dimensionality(rows), PLATEAUS)


DRAWN: dict[str, Callable[[Trained], Figure]] = {
    "gram": lambda t: superposition.gram_figure(t),
    "planes": lambda t: superposition.planes_figure(t),
    "neurons": lambda t: superposition.neurons_figure(t),
    "graph": lambda t: superposition.graph_figure([("one", s.directions, s.polytopes) for s in t]),
    "dimensions": lambda t: charts.dimensions_figure(t, PLATEAUS),
    "dynamics": _dynamics,
    "vulnerability": lambda t: charts.vulnerability_figure(vulnerability(t, examples=8, steps=3)),
    "phases": lambda t: charts.phase_figure(phase_diagram(1, seeds=1, steps=3, device="cpu")),
    "recovery": lambda t: recovery_figure(
        recovery(
            4,
            2,
            densities=[0.5, 0.1],
            dictionaries=[sae.TopK(latents=8, k=1), sae.ReLU(latents=8)],
            steps=20,
            sae_steps=4,
            seeds=1,
            batch=64,
            device="cpu",
        )  # fmt: skip
    ),
    "geometry": lambda t: charts.geometry_figure(geometry(torch.randn(30, 8))),
}


@pytest.mark.parametrize("name", list(DRAWN))
def test_every_figure_renders_and_is_the_same_twice(name: str, planes: Trained, tmp_path: Path) -> None:
    torch.manual_seed(0)
    figure = DRAWN[name](planes)
    for file in ("a.png", "b.png"):
        save_figure(figure, tmp_path / file)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_a_figure_of_nothing_is_refused(planes: Trained) -> None:
    deep = train(grid(4, 3, densities=0.2), steps=2, batch=8, device="cpu")
    for draw, says in (
        (lambda: superposition.gram_figure([]), "no trained model"),
        (lambda: superposition.gram_figure(list(planes) * 5), "at most 12"),
        (lambda: superposition.planes_figure(deep), "3 hidden dimensions"),
        (lambda: superposition.graph_figure([]), "no set"),
        (lambda: recovery_figure(SimpleNamespace(densities=(0.1,))), "at least two"),
    ):
        with pytest.raises(CircuitsError, match=says):
            draw()
