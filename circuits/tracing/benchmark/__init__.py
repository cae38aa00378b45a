"""A benchmark of circuit discovery in vision: minimal pairs of scenes, and networks whose edges are known."""

from circuits.tracing.benchmark.planted import planted_tasks as planted_tasks
from circuits.tracing.benchmark.score import BenchmarkScore as BenchmarkScore, TaskScore as TaskScore, score as score
from circuits.tracing.benchmark.table import (
    BenchmarkTable as BenchmarkTable,
    planted_table as planted_table,
    scenes_table as scenes_table,
)
from circuits.tracing.benchmark.tasks import Known as Known, Task as Task, tasks as tasks
