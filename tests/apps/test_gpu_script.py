import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.sh"


@pytest.mark.slow
def test_every_command_of_the_gpu_script_writes_its_rows_on_a_cpu(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [str(SCRIPT), "--device", "cpu", "--quick", str(tmp_path / "gpu.md")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    table = (tmp_path / "gpu.md").read_text()
    assert ran.returncode == 0 and "Failed" not in table, table
    assert table.count("\n### ") == 7 and "| dense |" in table and "held out" in table and "over bare" in table


def test_the_gpu_script_names_what_it_does_not_know() -> None:
    ran = subprocess.run([str(SCRIPT), "--fast"], capture_output=True, text=True)
    assert ran.returncode == 2 and "has no option --fast" in ran.stdout
