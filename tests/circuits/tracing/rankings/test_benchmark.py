"""The benchmark: its tasks, its scores of anybody's ranking, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import circuits
from circuits import benchmark
from circuits.errors import CircuitsError
from tools.scenes.train import part_channels
from zoo.scenes import PARTS


@pytest.fixture(scope="module")
def tasks() -> list[benchmark.Task]:
    return benchmark.tasks(classes=["car"], pairs=4)[0][:2]


def own(task: benchmark.Task, of: Any) -> circuits.Ranking:
    return circuits.rank(
        task.model, task.target, images=task.images, against=task.against, layers=task.layers, of=of, share=1.0,
        batch_size=64,
    )  # fmt: skip


def test_a_task_is_a_class_and_one_of_its_parts_on_other_pairs_than_it_is_tried_on(tasks: list[benchmark.Task]) -> None:
    task = tasks[0]
    assert (task.name, task.target, len(task.images)) == ("car/window/removed", "softmax_pre:0", 4)
    assert len(task.names("units")) == 136 and len(task.names("edges")) == 48 * 48 + 48 * 40 + 40
    taught = part_channels(0)[PARTS.index("window")]  # as the training drew it
    assert task.known is not None and task.known.units == {f"scenes/mixed3b:{taught}"}
    drawn = [images.tensor(task.model.input) for images in (task.images, task.held_out, task.against)]
    assert not (drawn[0][:, None] == drawn[1][None]).flatten(2).all(dim=2).any()
    same = (drawn[0] == drawn[2]).all(dim=1).float().mean()
    assert 0.7 < float(same) < 1


def test_a_part_that_the_class_score_hardly_falls_without_is_no_task() -> None:
    listed, unused = benchmark.tasks(classes=["sign"], pairs=6)
    assert [task.name for task in listed] == ["sign/plate/removed"]
    assert set(unused) == {"sign/pole/removed"} and unused["sign/pole/removed"] < 1


@pytest.mark.parametrize("of", ["units", "edges"])
def test_scores_are_those_of_the_size_curve_on_held_out_pairs(tasks: list[benchmark.Task], of: Any) -> None:
    score = benchmark.score("gradient", of=of, on=tasks[:1])
    ranking = own(tasks[0], of)
    curve = circuits.size_curve(
        tasks[0].model, ranking, images=tasks[0].held_out, against=tasks[0].held_out_against, random=0
    )
    assert score.cmd is not None and score.cmd.value == pytest.approx(curve.cmd.value, abs=1e-5)
    assert score.tasks[0].cpr == pytest.approx(curve.cpr.value, abs=1e-5)
    assert score.tasks[0].f == pytest.approx(curve.f, abs=1e-4)
    # anybody's scores, in each of their forms
    names, magnitudes = tasks[0].names(of), dict(zip(ranking.units, ranking.magnitudes, strict=True))
    short = {name.removeprefix("scenes/"): value for name, value in magnitudes.items()}
    array = np.array([magnitudes[name] for name in names])
    for scores in (ranking, magnitudes, short, array, torch.from_numpy(array)):
        result = benchmark.score({tasks[0].name: scores}, of=of, on=tasks[:1])
        assert result.tasks[0].cmd == pytest.approx(score.tasks[0].cmd, abs=1e-6)
        assert result.tasks[0].known_auroc == pytest.approx(score.tasks[0].known_auroc)
    named = benchmark.score(lambda task: own(task, of), of=of, on=tasks[:1], name="mine")
    assert named.method == "mine" and named.describe()["cmd"]["value"] == named.tasks[0].cmd


def test_exact_patching_agrees_with_itself_and_chance_with_nothing(tasks: list[benchmark.Task]) -> None:
    exact, chance = (benchmark.score(method, on=tasks) for method in ("patching", "random"))
    assert exact.exact_auroc is not None and exact.exact_spearman is not None
    assert exact.exact_auroc.value == 1 and exact.exact_spearman.value == pytest.approx(1)
    assert exact.known_auroc is not None and exact.known_auroc.value > 0.9
    assert exact.cmd is not None and chance.cmd is not None and exact.cmd.high < 0.2 < 0.5 < chance.cmd.low
    assert chance.tasks[0].f != chance.tasks[1].f  # other numbers for each task
    values = [task.cmd for task in chance.tasks]
    assert chance.cmd.value == pytest.approx(np.mean(values)) and chance.cmd.low == pytest.approx(min(values))


def test_the_correct_answer_of_a_planted_network_is_that_of_exact_patching() -> None:
    for task in benchmark.planted_tasks([0, 10], images=24):
        assert task.known is not None and len(task.names("edges")) == 10 * 10 * 2 + 10
        for of in ("units", "edges"):
            right = task.known.edges if of == "edges" else task.known.units
            oracle = {name: float(name in right) for name in task.names(of)}  # type: ignore[arg-type]
            best = benchmark.score({task.name: oracle}, of=of, on=[task]).tasks[0]  # type: ignore[arg-type]
            assert best.known_auroc == 1
            # the known circuit by itself keeps the score: the next larger circuits too
            assert best.f[next(i for i, f in enumerate(best.f) if f > 0.9) :] == pytest.approx(
                [1.0] * sum(f > 0.9 for f in best.f), abs=0.1
            )
            exact = benchmark.score("patching", of=of, on=[task]).tasks[0]  # type: ignore[arg-type]
            assert exact.known_auroc is not None and exact.known_auroc > 0.95


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones(136), "all scores are 1, which is no order"),
        (np.arange(135), "135 scores for 136 units"),
        (np.array([np.nan, *range(135)]), "the score of scenes/mixed3b:0 is nan"),
        ({"mixed3b:0": 1.0}, "135 of 136 units have no score"),
        ({"mixed3a:0": 1.0}, "scenes/mixed3a:0 is none of the 136 units"),
        (["a"] * 136, "scores are numbers"),
    ],
)
def test_scores_that_are_no_order_of_the_units_are_refused(
    tasks: list[benchmark.Task], scores: Any, message: str
) -> None:
    with pytest.raises(CircuitsError, match=message):
        benchmark.score({tasks[0].name: scores}, on=tasks[:1])


def test_what_the_benchmark_does_not_have_is_refused(tasks: list[benchmark.Task]) -> None:
    with pytest.raises(CircuitsError, match=r"no scores for 1 of 2 tasks: car/car_body/removed"):
        benchmark.score({tasks[0].name: np.arange(136)}, on=tasks)
    with pytest.raises(CircuitsError, match="no task to score on"):
        benchmark.score("gradient", on=[])
    with pytest.raises(CircuitsError, match="change"):
        benchmark.tasks("painted")
    with pytest.raises(CircuitsError, match="class"):
        benchmark.tasks(classes=["nothing"])
    with pytest.raises(CircuitsError, match="networks of the classes and layers of scenes; scenes-vit is not"):
        benchmark.tasks(model="scenes-vit")
    with pytest.raises(CircuitsError, match="method"):
        benchmark.planted_table(methods=["guess"])  # type: ignore[list-item]


def test_a_table_has_every_method_and_a_mask_for_units_only() -> None:
    table = benchmark.planted_table(methods=["mask", "random"], seeds=[3], images=8)
    assert [(score.of, score.method) for score in table.scores] == [
        ("units", "mask"), ("units", "random"), ("edges", "random"),
    ]  # fmt: skip
    document = table.describe()
    assert document["scores"][0]["tasks"][0]["task"] == "planted-3" and document["name"] == "planted"
