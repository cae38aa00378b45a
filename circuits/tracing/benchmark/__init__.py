"""A benchmark of circuit discovery in vision: minimal pairs of scenes, and networks whose edges are known."""

from circuits.tracing.benchmark.planted import planted_tasks
from circuits.tracing.benchmark.score import BenchmarkScore, TaskScore, score
from circuits.tracing.benchmark.table import BenchmarkTable, planted_table, scenes_table
from circuits.tracing.benchmark.tasks import Known, Task, tasks

__all__ = [
    "BenchmarkScore", "BenchmarkTable", "Known", "Task", "TaskScore", "planted_table", "planted_tasks", "scenes_table",
    "score", "tasks",
]  # fmt: skip
