"""Run the notebooks of docs/notebooks again and keep their outputs: `python -m tools.notebooks [NAME ...]`.

They are committed with outputs, so that they are read on a forge without being run, and the documentation builds
without running them. A test runs each from nothing and compares the kinds of its outputs with those that are committed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "notebooks"
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
LARGEST = 400_000
"""Bytes of a notebook with its outputs."""


def run(notebook: Path) -> Any:
    """The notebook with the outputs of a new run, in an empty folder and a kernel of this Python; nothing is written.

    Raises:
        CellExecutionError: a cell fails.
    """
    document = nbformat.read(notebook, as_version=4)
    document.metadata = nbformat.from_dict(KERNEL)
    for index, cell in enumerate(document.cells):
        cell.id, cell.metadata = f"cell-{index}", nbformat.from_dict({})  # nothing that changes from run to run
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(document, timeout=300, kernel_name="python3", record_timing=False)
        client.resources = {"metadata": {"path": folder}}
        client.execute(env={**os.environ, "PYTHONPATH": paths})
    for cell in document.cells:  # tqdm warns in every notebook where ipywidgets is not installed
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if "IProgress not found" not in output.get("text", "")]
    return document


def kinds(document: Any) -> Iterator[tuple[str, ...]]:
    """Of each output: the cell, the kind, and the formats of what is shown or the stream's name."""
    for cell in document.cells:
        for output in cell.get("outputs", ()):
            yield (cell.id, output.output_type, *sorted(output.get("data", {})), output.get("name", ""))


def main(names: list[str]) -> None:
    """Run those of these names, or all."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            nbformat.write(run(path), path)
            print(path, f"{path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
