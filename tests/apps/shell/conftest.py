"""One small run of every command, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.apps.small_runs import SmallRuns, workspace


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("shell"))


@pytest.fixture(scope="package")
def runs(folder: Path) -> SmallRuns:
    return SmallRuns(folder)
