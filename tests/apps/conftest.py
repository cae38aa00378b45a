"""What the tests of the command line share."""

from __future__ import annotations

import pytest

from apps.cli.main import main
from tests.apps.terminal import Cli, Ran


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return Ran(code, *capsys.readouterr())

    return run
