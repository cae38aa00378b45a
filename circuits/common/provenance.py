"""What a result came from: weights, images, seed, versions."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def provenance(**entries: Any) -> dict[str, Any]:
    """Provenance of a result: the versions in play, and `entries` (digests, seed, arguments)."""
    import torch

    versions = {"torch": str(torch.__version__), "numpy": np.__version__, "python": sys.version.split()[0]}
    return {**entries, "versions": versions}
