"""Whether the packages that are imported are this project's: another project's package is called `circuits`, too.

Whichever is installed last writes its files over the other's, without a word from the installer.
"""

from __future__ import annotations

import importlib.util
import os
from importlib.machinery import PathFinder
from pathlib import Path

MEND = "pip uninstall circuits, then pip install --force-reinstall --no-deps vision-circuits"


def installation_problem(path: list[str] | None = None) -> str | None:
    """What is wrong with the package `circuits`, in one line; None where nothing is.

    Args:
        path: folders to look in instead of Python's.
    """
    spec = importlib.util.find_spec("circuits") if path is None else PathFinder.find_spec("circuits", path)
    if spec is None or spec.origin is None:
        return f"this installation has no package `circuits`, or one without a file: {MEND}"
    init = Path(spec.origin)
    if not init.read_bytes()[:200].lstrip().startswith(b'"""vision-circuits'):
        return f"the package `circuits` in {init.parent} is another project's, installed over this one's: {MEND}"
    for entry in os.listdir(init.parents[1]):  # 1 ms in a folder of 300 packages
        if entry.startswith("circuits-") and entry.endswith((".dist-info", ".egg-info")):
            return (
                f"another project's package `circuits` ({entry.rpartition('.')[0]}) is installed in the same folder, "
                f"{init.parents[1]}: files of one may be missing or the other's: {MEND}"
            )
    return None
