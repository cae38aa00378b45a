"""All methods of `rank` on the tasks of the benchmark: the tables that a new method is held against."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuits.common.provenance import provenance
from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.tracing.benchmark.planted import IMAGES, planted_tasks
from circuits.tracing.benchmark.score import BenchmarkScore, score
from circuits.tracing.benchmark.tasks import LEAST_FALL, PAIRS, Task, tasks
from circuits.tracing.rankings.ranking import Ranked
from circuits.tracing.rankings.unit_scores import METHODS, RankMethod
from zoo.common.checks import one_of
from zoo.common.results import Result
from zoo.progress import Progress, reporter

BOTH: tuple[Ranked, ...] = ("units", "edges")


@dataclass(frozen=True)
class BenchmarkTable(Result):
    """Scores of several methods on the same tasks.

    Attributes:
        name: "scenes, part removed" or "planted".
        scores: of each method, units first.
        unused: task -> fall of the class score, where it is too small for there to be anything to explain.
        images: ranked on, and as many tried on.
        seconds: CPU time.
        provenance: weights, seed, versions.
    """

    name: str
    scores: tuple[BenchmarkScore, ...]
    unused: Mapping[str, float]
    images: int
    seconds: float
    provenance: Mapping[str, Any] = field(default_factory=dict)


def offered(of: Ranked, methods: Sequence[RankMethod]) -> list[RankMethod]:
    """Those of the methods that rank units, or edges: a mask is learned over units only."""
    return [method for method in methods if of == "units" or method != "mask"]


def scenes_table(
    change: str = "removed",
    *,
    model: Model | str = "scenes",
    methods: Sequence[RankMethod] = METHODS,
    of: Sequence[Ranked] = BOTH,
    classes: Sequence[str] | None = None,
    pairs: int = PAIRS,
    seed: int = 0,
    progress: Progress = None,
) -> BenchmarkTable:
    """Score methods of `rank` on the tasks of `tasks`, of which these are the arguments.

    Args:
        change: "removed", "moved" or "replaced".
        model: a network of the scenes' classes, or its name.
        methods: of `rank`.
        of: what is ranked.
        classes: default all; pairs: of images, to rank on and to try on; seed: of the pairs.
        progress: True for a bar, or a function of (done, total) methods.

    Raises:
        CircuitsError: an unknown method; what `tasks` refuses.
    """
    for method in methods:
        one_of("method", method, METHODS)
    began = time.process_time()
    listed, unused = tasks(change, model=model, classes=classes, pairs=pairs, seed=seed)
    if not listed:
        raise CircuitsError(f"no class score falls by {LEAST_FALL:g} when a part is {change}: {', '.join(unused)}")
    network = listed[0].model
    return BenchmarkTable(
        f"{network.name}, part {change}",
        _scores(listed, of, methods, progress),
        unused,
        pairs,
        time.process_time() - began,
        provenance(weights=network.digest, weights_source=network.source, model=network.name, seed=seed),
    )


def planted_table(
    *,
    methods: Sequence[RankMethod] = METHODS,
    of: Sequence[Ranked] = BOTH,
    seeds: Sequence[int] | None = None,
    images: int = IMAGES,
    progress: Progress = None,
) -> BenchmarkTable:
    """Score methods of `rank` on the networks whose edges are known: see `planted_tasks`.

    Args:
        methods: of `rank`.
        of: what is ranked.
        seeds: which networks (default: all 20); images: to rank on, and as many to try circuits on.
        progress: True for a bar, or a function of (done, total) methods.

    Raises:
        CircuitsError: an unknown method or network.
    """
    for method in methods:
        one_of("method", method, METHODS)
    began = time.process_time()
    listed = planted_tasks(seeds, images=images)
    scores = _scores(listed, of, methods, progress)
    weights = {"weights": [task.model.digest for task in listed], "seeds": [task.name for task in listed]}
    return BenchmarkTable("planted", scores, {}, images, time.process_time() - began, provenance(**weights))


def _scores(
    listed: Sequence[Task], of: Sequence[Ranked], methods: Sequence[RankMethod], progress: Progress
) -> tuple[BenchmarkScore, ...]:
    both = [(kind, method) for kind in of for method in offered(kind, methods)]
    scores = []
    with reporter(progress, "method") as report:
        for done, (kind, method) in enumerate(both):
            scores.append(score(method, of=kind, on=listed))
            report(done + 1, len(both))
    return tuple(scores)
