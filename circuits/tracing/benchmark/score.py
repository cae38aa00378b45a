"""Scores of rankings of units or edges: ours by name, or anybody's.

For each task: CMD and CPR of circuits of growing size on held-out pairs (`size_curve`), whether the units that exact
patching puts first come first (AUROC, and Spearman's correlation among these), and whether the unit that was trained to
detect the part does (AUROC). Intervals are over tasks, resampled with replacement.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.common.statistics import Estimate, auc, rank_correlation
from circuits.errors import CircuitsError, shorten
from circuits.tracing.ablation.channel_edits import responder
from circuits.tracing.ablation.edge_ablation import ARROW, EdgeAblation
from circuits.tracing.benchmark.tasks import Task, tasks
from circuits.tracing.curves.size_curve import DRAWS, areas, circuit_sizes
from circuits.tracing.rankings.edge_scores import edge_scores
from circuits.tracing.rankings.ranking import Ranked, Ranking
from circuits.tracing.rankings.unit_scores import RankMethod, unit_scores
from zoo.common.checks import one_of
from zoo.common.results import Result
from zoo.progress import Progress, reporter

TOP = 0.2
"""Share of what exact patching moves at all that counts as its first: the positives of AUROC, and where Spearman is."""

FEWEST = 5
"""Units in a correlation, at least."""

Scores: TypeAlias = "Mapping[str, float] | Ranking | NDArray[Any] | Tensor | Sequence[float]"
"""For one task: address -> score, a ranking of `circuits.rank`, or an array in the order of `Task.names`."""
Method: TypeAlias = "RankMethod | Callable[[Task], Scores] | Mapping[str, Scores]"
"""A method of `rank`, a function from a task to scores, or the name of each task -> scores."""


@dataclass(frozen=True)
class TaskScore(Result):
    """A ranking on one task.

    Attributes:
        task: its name.
        cmd, cpr: areas under `|1 - f|` (smaller is better) and under f (larger is better).
        f: share of the fall of the class score that circuits keep, at `circuit_sizes`.
        exact_auroc: that units which patching puts into its top fifth have higher scores than others.
        exact_spearman: correlation of the scores with those of patching among that fifth; None where it is of less than
            `FEWEST`.
        known_auroc: the same for the units, or edges, that are known to be right; None where none is. Where only units
            are known, each counts by its largest edge.
    """

    task: str
    cmd: float
    cpr: float
    f: tuple[float, ...]
    exact_auroc: float
    exact_spearman: float | None
    known_auroc: float | None


@dataclass(frozen=True)
class BenchmarkScore(Result):
    """A method on all tasks.

    Attributes:
        method: its name; of: "units" or "edges".
        n: number of units or edges.
        tasks: its score on each.
    """

    method: str
    of: Ranked
    n: int
    tasks: tuple[TaskScore, ...] = field(repr=False)
    described = ("cmd", "cpr", "exact_auroc", "exact_spearman", "known_auroc")

    def mean(self, name: str) -> Estimate | None:
        """Mean over the tasks of one of the attributes of `TaskScore`, with its 95 % interval; None where unknown."""
        values = np.array([value for score in self.tasks if (value := getattr(score, name)) is not None])
        if not len(values):
            return None
        drawn = values[np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))].mean(axis=1)
        return Estimate.of(values.mean(), drawn)

    @property
    def cmd(self) -> Estimate | None:
        """Mean CMD."""
        return self.mean("cmd")

    @property
    def cpr(self) -> Estimate | None:
        """Mean CPR."""
        return self.mean("cpr")

    @property
    def exact_auroc(self) -> Estimate | None:
        """Mean AUROC against exact patching."""
        return self.mean("exact_auroc")

    @property
    def exact_spearman(self) -> Estimate | None:
        """Mean correlation with exact patching in its top fifth."""
        return self.mean("exact_spearman")

    @property
    def known_auroc(self) -> Estimate | None:
        """Mean AUROC against what is known to be right."""
        return self.mean("known_auroc")


def score(
    ranking: Method,
    *,
    of: Ranked = "units",
    on: Sequence[Task] | None = None,
    name: str | None = None,
    progress: Progress = None,
) -> BenchmarkScore:
    """Score a method that ranks units, or edges, on the tasks of the benchmark.

    Args:
        ranking: a function that takes a `Task` and gives a score for each of `task.names(of)`: a mapping, an array in
            that order, or a `Ranking`. Or such scores for each task, by its name. Or the name of a method of `rank`.
            The largest scores come first: where the sign of a score is a direction, give its size.
        of: "units" or "edges".
        on: the tasks (default: those of `tasks()`).
        name: of the method, for tables.
        progress: True for a bar, or a function of (done, total) tasks.

    Raises:
        CircuitsError: scores that lack a unit, name one that is none, are not numbers, or are all the same; no scores
            for a task.

    >>> score(lambda task: {name: 1.0 for name in task.names("units")})  # doctest: +SKIP
    """
    one_of("of", of, ("units", "edges"))
    chosen = tasks()[0] if on is None else list(on)
    if not chosen:
        raise CircuitsError("no task to score on: with on=[] nothing is measured")
    if isinstance(ranking, Mapping) and (lacking := [task.name for task in chosen if task.name not in ranking]):
        raise CircuitsError(f"no scores for {len(lacking)} of {len(chosen)} tasks: {', '.join(lacking[:3])} ...")
    results = []
    with reporter(progress, "task") as report:
        for done, task in enumerate(chosen):
            results.append(_scored(task, of, _numbers(task, of, ranking)))
            report(done + 1, len(chosen))
    label = ranking if isinstance(ranking, str) else str(getattr(ranking, "__name__", "scores"))
    return BenchmarkScore(name or label, of, len(chosen[0].names(of)), tuple(results))


def _numbers(task: Task, of: Ranked, ranking: Method) -> Tensor:
    if isinstance(ranking, str):
        return _exact(task, of) if ranking == "patching" else magnitudes(task, of, ranking)
    return checked(task, of, ranking[task.name] if isinstance(ranking, Mapping) else ranking(task))


def magnitudes(task: Task, of: Ranked, method: RankMethod) -> Tensor:
    """What a method of `rank` orders units or edges by, in the order of `Task.names`."""
    seed = zlib.crc32(task.name.encode())  # each task has random numbers of its own
    if method == "mask" and of == "units":
        by_layer = unit_scores(task.together, method, seed=seed)
        return torch.cat([by_layer[layer].magnitude for layer in task.layers])
    parts = []
    for step in task.steps:
        ablation = task.by_layer[step.layer]
        if of == "edges":
            parts.append(edge_scores(ablation, step, method, seed=seed).magnitude)
        else:
            parts.append(unit_scores(ablation, method, seed=seed)[step.layer].magnitude)
    return torch.cat(parts)


def checked(task: Task, of: Ranked, scores: Scores) -> Tensor:
    """Scores in the order of `Task.names`, float64.

    Raises:
        CircuitsError: see `score`.
    """
    names = task.names(of)
    if isinstance(scores, Ranking):
        scores = dict(zip(scores.units, scores.magnitudes, strict=True))
    if isinstance(scores, Mapping):
        full = {_whole_name(task, str(name)): value for name, value in scores.items()}
        known = set(names)
        unknown, lacking = [n for n in full if n not in known], [n for n in names if n not in full]
        if unknown:
            raise CircuitsError(f"{task.name}: {shorten(unknown[0])} is none of the {len(names)} {of}, as {names[0]}")
        if lacking:
            raise CircuitsError(f"{task.name}: {len(lacking)} of {len(names)} {of} have no score: {lacking[0]} ...")
        scores = [full[name] for name in names]
    try:
        numbers = torch.as_tensor(np.asarray(scores, dtype=np.float64)).flatten()
    except (TypeError, ValueError) as error:
        raise CircuitsError(f"{task.name}: scores are numbers, one for each of {len(names)} {of}") from error
    if len(numbers) != len(names):
        raise CircuitsError(
            f"{task.name}: {len(numbers)} scores for {len(names)} {of}; their order is that of task.names({of!r})"
        )
    if not numbers.isfinite().all():
        bad = int((~numbers.isfinite()).nonzero()[0])
        raise CircuitsError(f"{task.name}: the score of {names[bad]} is {float(numbers[bad])}")
    if (numbers == numbers[0]).all():
        raise CircuitsError(f"{task.name}: all scores are {float(numbers[0]):g}, which is no order")
    return numbers


def _whole_name(task: Task, name: str) -> str:
    return name if name.startswith(f"{task.model.name}/") else f"{task.model.name}/{name}"


def _scored(task: Task, of: Ranked, numbers: Tensor) -> TaskScore:
    order = numbers.argsort(descending=True, stable=True)
    sizes = circuit_sizes(len(order))
    bounds = np.cumsum([0] + [step.size if of == "edges" else step.width for step in task.steps]).tolist()
    respond = EdgeAblation(task.trial).respond if of == "edges" else responder(task.trial)
    f = []
    for n in sizes[:-1]:
        chosen = order[:n]
        members = {
            layer: set((chosen[(chosen >= low) & (chosen < high)] - low).tolist())
            for layer, low, high in zip(task.layers, bounds[:-1], bounds[1:], strict=True)
        }
        f.append(task.trial.share(respond(members)))
    f.append(1.0)
    cpr, cmd = areas(np.array(sizes) / len(order), np.array([f]))
    exact = _exact(task, of)
    count = max(1, round(TOP * int((exact > 0).sum())))
    first = torch.zeros(len(exact), dtype=torch.bool)
    first[exact.argsort(descending=True, stable=True)[:count]] = True
    return TaskScore(
        task=task.name,
        cmd=float(cmd[0]),
        cpr=float(cpr[0]),
        f=tuple(f),
        exact_auroc=_auroc(numbers, first),
        exact_spearman=rank_correlation(numbers[first].numpy(), exact[first].numpy()) if count >= FEWEST else None,
        known_auroc=_known(task, of, numbers),
    )


def _exact(task: Task, of: Ranked) -> Tensor:
    """The magnitudes of exact patching, computed once for a task."""
    if of not in task.exact:
        task.exact[of] = magnitudes(task, of, "patching")
    return task.exact[of]


def _known(task: Task, of: Ranked, numbers: Tensor) -> float | None:
    if task.known is None:
        return None
    scores = dict(zip(task.names(of), numbers.tolist(), strict=True))
    right = task.known.edges if of == "edges" else task.known.units
    if of == "edges" and not right:  # only units are known: each by its largest edge
        right, edges, scores = task.known.units, scores, {}
        for edge, value in edges.items():
            source = edge.partition(ARROW)[0]
            scores[source] = max(value, scores.get(source, value))
    if task.known.layer is not None:
        within = f"{task.model.name}/{task.known.layer}:"
        scores = {name: value for name, value in scores.items() if name.startswith(within)}
    return _auroc(torch.tensor(list(scores.values())), torch.tensor([name in right for name in scores]))


def _auroc(numbers: Tensor, positive: Tensor) -> float:
    return float(auc(numbers[positive][:, None].double(), numbers[~positive][:, None].double()))
