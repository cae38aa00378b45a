"""Timing in turn: each contender runs once per round, so that a noisy machine slows all alike."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

import torch


def in_turn(
    contenders: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds by `clock` of each contender over `rounds` rounds, after one warm-up round.

    `time.process_time` counts the CPU-seconds of all threads, which other work on the machine changes least.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(rounds + 1):
        for name, run in contenders.items():
            start = clock()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if k:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def report(title: str, seconds: dict[str, float], against: str) -> None:
    """Print a table: seconds, and how many times faster than `against`."""
    print(f"\n{title}\ntorch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    for name, value in seconds.items():
        print(f"  {name:<44} {value:10.4f} s   {seconds[against] / value:9.1f}x")
