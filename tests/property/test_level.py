"""Hundreds of verbs in one process: memory, open files and threads stay where they were."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest

import circuits
from zoo.images.sources import open_images

TIMES = 300
WARM = 60
"""After so many rounds allocators and caches have what they keep."""
RARE = 20
"""Every so many rounds comes a repair and an audit, too."""
MEGABYTES = 40
"""Growth that is taken for noise of the allocator: a leak of one capture a round would be 300 x .5 MB."""


def used() -> tuple[float, int, int]:
    """Resident megabytes, open files, threads."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts what Linux counts")
def test_hundreds_of_verbs_leave_memory_files_and_threads_level(tmp_path: Path) -> None:
    model = circuits.load("scenes")
    images = open_images("scenes:8").tensor(model.input)
    active = circuits.capture(model, images, ["mixed4a"])["mixed4a"].amax(dim=(0, 2, 3)).argsort(descending=True)[:8]
    first = used()
    for turn in range(TIMES):
        unit = f"mixed4a:{active[turn % len(active)]}"
        circuits.visualize(model, unit, steps=2, size=64, seed=turn)
        circuits.trace(model, unit, images=images, layers=["mixed3b"]).save(tmp_path / "circuit.json")
        with circuits.edit(model, [circuits.Ablate(unit)]):
            circuits.capture(model, images, ["mixed4b"])
        circuits.graph(model, images[:1], "car", layers=["mixed4a"], width=4)
        if turn % RARE == 0:  # longer ones
            circuits.repair(model, "scenes:26", [unit], random=1)
            circuits.audit(model, "scenes:156", classes=["sign"], layers=["mixed4b"], top=1, random=1, steps=1)
        if turn == WARM:
            first = used()
    last = used()
    assert last[0] - first[0] < MEGABYTES and last[1] <= first[1] and last[2] <= first[2], (first, last)
