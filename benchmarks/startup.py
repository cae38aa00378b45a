"""What starting costs, in CPU-seconds of a process of its own, beside `python -c pass` and `import torch`.

Elapsed time says nothing on a machine that others use; CPU-seconds of the process and its children do. Each is the
median of so many runs, in turn, after one that is not counted (it compiles, and fills the disk's cache).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from statistics import median

import circuits

ALL = "import circuits\nfor name in circuits.__all__: getattr(circuits, name)"


def main() -> None:
    """Print CPU-seconds, and their ratios to an empty process and to importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        circuits.scan(circuits.load("scenes"), "scenes:100", store)
        explain = ("-m", "apps.cli", "explain", "scenes/mixed4a:11", "--store", store)
        runs = {
            "python -c pass": ("-c", "pass"),
            "import torch": ("-c", "import torch"),
            "import circuits": ("-c", "import circuits"),
            "all of circuits' names": ("-c", ALL),
            "circuits --help": ("-m", "apps.cli", "--help"),
            "circuits trace --help": ("-m", "apps.cli", "trace", "--help"),
            "completion": ("-m", "apps.cli", "--complete", "circuits trace scenes/"),
            "circuits explain, from a store": explain,
            "circuits explain --out, from a store": (*explain, "--out", f"{folder}/unit"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(1 + rounds):
            for name, arguments in runs.items():
                seconds[name].append(_cpu(arguments))
    medians = {name: median(values[1:]) for name, values in seconds.items()}
    empty, torch = medians["python -c pass"], medians["import torch"]
    print(f"{'':40}{'CPU s':>8}{'x pass':>9}{'x torch':>9}{'over torch':>12}")
    for name, value in medians.items():
        print(f"{name:40}{value:8.3f}{value / empty:9.1f}{value / torch:9.2f}{value - torch:12.3f}")


def _cpu(arguments: tuple[str, ...]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
