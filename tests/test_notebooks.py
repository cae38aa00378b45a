"""The notebooks of the documentation run from nothing, and give what is committed: outputs of the same kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
notebooks = pytest.importorskip("tools.notebooks")

ALL = sorted(notebooks.FOLDER.glob("*.ipynb"))
QUICK = "curves"
"""Which the quick suite runs; .ci/run runs the others, each of which starts a kernel."""


def test_there_are_six_of_them_and_the_index_lists_each() -> None:
    index = (notebooks.ROOT / "docs" / "index.md").read_text("utf-8")
    assert len(ALL) == 6 and all(f"notebooks/{path.stem}\n" in index for path in ALL)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*TCP without encryption")
@pytest.mark.parametrize("path", [p if p.stem == QUICK else pytest.param(p, marks=pytest.mark.slow) for p in ALL],
                         ids=lambda path: path.stem)  # fmt: skip
def test_a_notebook_runs_and_gives_outputs_of_the_kinds_that_are_committed(path: Path) -> None:
    committed = nbformat.read(path, as_version=4)
    expected = list(notebooks.kinds(committed))
    assert path.stat().st_size < notebooks.LARGEST
    assert len(expected) >= 3 and not [kind for kind in expected if kind[-1] == "stderr" or kind[1] == "error"]
    assert list(notebooks.kinds(notebooks.run(path))) == expected
