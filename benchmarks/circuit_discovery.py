"""The tables of docs/circuit-benchmark.md: methods of circuit discovery where the answer is known.

The same as `circuits bench circuits`, as Markdown, for every change; and every number in JSON. Run it in the
background: about 12 CPU seconds for each class and part, 23 for the planted networks.

    python benchmarks/circuit_discovery.py --changes removed moved replaced --out circuits.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from _tables import header, row

from circuits import benchmark
from zoo.scenes import CHANGES

COLUMNS = {
    "cmd": "CMD", "cpr": "CPR", "exact_auroc": "AUROC, exact patching", "exact_spearman": "Spearman, exact patching",
    "known_auroc": "AUROC, known",
}  # fmt: skip


def show(table: benchmark.BenchmarkTable) -> None:
    """A table in Markdown."""
    print(
        f"\n{table.name}: {len(table.scores[0].tasks)} tasks, {table.seconds:.0f} s; left out: {dict(table.unused)}\n"
    )
    header("ranked", "method", *COLUMNS.values())
    for score in table.scores:
        means = [score.mean(name) for name in COLUMNS]
        cells = ["" if e is None else f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})" for e in means]
        row(score.of, score.method, *cells)


def main() -> None:
    """Measure, print, write every number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", nargs="*", default=["removed"], choices=CHANGES)
    parser.add_argument("--units-only", action="store_true", help="no edges: a quarter of the time")
    parser.add_argument("--network", default="scenes", help="a network of the classes and layers of scenes")
    parser.add_argument("--planted", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("circuits.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    of = ("units",) if options.units_only else ("units", "edges")
    tables = []
    for change in options.changes:
        tables.append(benchmark.scenes_table(change, model=options.network, of=of, seed=options.seed))
        show(tables[-1])
    if options.planted:
        tables.append(benchmark.planted_table(of=of))
        show(tables[-1])
    options.out.write_text(json.dumps([table.describe() for table in tables], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
