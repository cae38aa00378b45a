"""A run that is killed, at whatever moment, loses nothing of anybody's; the next one ends as if nothing had been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from apps.processes import child_environment
from tests.apps.shell.kills import WAYS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of a process")
def test_killed_at_every_file_operation_and_run_again_gives_the_same_files(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.apps.shell.kills", str(tmp_path)],
        env=child_environment(), check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    results = json.loads(ran.stdout)
    assert set(results) == set(WAYS)
    for way, (kills, faults) in results.items():
        assert kills > 15 and not faults, (way, faults[:5])
