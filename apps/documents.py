"""What the apps write as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any


def plain(value: Any, digits: int | None = None) -> Any:
    """`value` as JSON can hold it: dataclasses to objects, arrays to lists, numbers that are none to null.

    With `digits`, numbers are rounded to so many that count.
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v, digits) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v, digits) for v in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value), digits)
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return plain(value.tolist(), digits)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)
