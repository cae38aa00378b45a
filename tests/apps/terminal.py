"""The command line as the tests type it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from zoo.common.files import INVENTORY

ROOT = Path(__file__).resolve().parents[2]
FEW = ("--images", "scenes:26")


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Ran]


def is_refused(ran: Ran) -> bool:
    """Bad input: code 2, nothing on stdout, one short line on stderr."""
    return ran.code == 2 and ran.out == "" and ran.err.count("\n") == 1 and 10 < len(ran.err) < 700


def written(folder: Path) -> set[str]:
    """Names of what a command has written into a folder, but for the inventory of it."""
    return {path.name for path in folder.iterdir()} - {INVENTORY}


def process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "apps.cli", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip
