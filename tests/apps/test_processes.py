"""Processes that we start: they run nobody else's code, and end with us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apps.processes import child_environment

STRANGER = "import pathlib\npathlib.Path('ran').write_text('x')\nraise SystemExit(7)\n"
SPREAD = """
import os, sys, time
from apps.processes import spread

def work(item):
    print(os.getpid(), flush=True)
    time.sleep(float(item))
    return item

if __name__ == "__main__":
    print(sorted(item for item, _ in spread(work, ["0", sys.argv[1]], 2)), flush=True)
"""


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A folder with modules named like those of the standard library."""
    folder = tmp_path / "strange"
    folder.mkdir()
    for name in ("selectors", "tokenize", "secrets"):
        (folder / f"{name}.py").write_text(STRANGER)
    return folder


@pytest.mark.parametrize("module", ["streamlit.version", "apps.explorer.server.worker"])
def test_a_started_python_imports_nothing_from_the_current_folder(module: str, strange: Path) -> None:
    command = [sys.executable, "-m", module]
    subprocess.run(command, cwd=strange, env=child_environment(), check=False, capture_output=True)
    assert not (strange / "ran").exists()
    unsafe = {name: value for name, value in child_environment().items() if name != "PYTHONSAFEPATH"}
    subprocess.run(command, cwd=strange, env=unsafe, check=False, capture_output=True)
    assert (strange / "ran").exists(), "the stranger's modules are not such that they would run"


def test_workers_import_nothing_from_the_current_folder(strange: Path, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(SPREAD)
    environment = {name: value for name, value in child_environment().items() if name != "PYTHONSAFEPATH"}
    ran = subprocess.run(
        [sys.executable, str(script), "0.1"], cwd=strange, env=environment, check=False, capture_output=True, text=True
    )
    assert ran.stdout.endswith("['0', '0.1']\n"), ran.stderr
    assert not (strange / "ran").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_workers_end_when_their_parent_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(SPREAD)
    parent = subprocess.Popen(
        [sys.executable, str(script), "600"], cwd=tmp_path, env=child_environment(), stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None,  # under nohup
    )  # fmt: skip
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()), int(parent.stdout.readline())]
    parent.send_signal(number)
    parent.wait(20)
    deadline = time.monotonic() + 20
    while any(map(_lives, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_lives, workers))
    parent.stdout.close()


def test_a_worker_ends_whose_parent_was_gone_before_it_began() -> None:
    watch = "from apps.processes import _end_with; _end_with(0)"  # a process that is not the parent
    assert (
        subprocess.run([sys.executable, "-c", watch], env=child_environment(), check=False, timeout=60).returncode == 1
    )


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True
