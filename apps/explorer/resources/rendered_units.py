"""Pictures made by optimization, as sweeps left them in the store: `STORE/MODEL/sweeps/NAME/`.

`circuits visualize ADDRESS --out STORE/MODEL/sweeps/NAME` adds one; so does a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.visualization.result import Visualization
from circuits.visualization.sweeps.store import INDEX, file_name, read_index, with_pixels

FOLDER = "sweeps"
Kind = Literal["positive", "negative", "diverse"]
KINDS: tuple[Kind, ...] = ("positive", "negative", "diverse")


@dataclass(frozen=True)
class Look:
    """One picture that a sweep made.

    Attributes:
        folder: of the sweep; kind: what drives the unit, what keeps it down, or one of several that differ.
        result: everything but its pixels.
    """

    folder: Path
    kind: Kind
    result: Visualization

    @property
    def png(self) -> Path:
        """Where its picture lies."""
        return self.folder / f"{file_name(self.result.unit, self.result.variant)}.png"

    def whole(self) -> Visualization:
        """The result with its pixels.

        Raises:
            VisualizationError: its file is missing or damaged.
        """
        return with_pixels(self.folder, self.result)


def sweeps(folder: Path) -> tuple[tuple[str, int], ...]:
    """The sweeps that a model's folder holds, with when each was last written: changes when any of them does."""
    found = sorted((folder / FOLDER).glob(f"*/{INDEX}"))
    return tuple((str(path.parent), path.stat().st_mtime_ns) for path in found)


def read_looks(places: Iterable[tuple[str, int]], weights: str) -> Mapping[str, Sequence[Look]]:
    """All pictures of some sweeps by the unit's address; those of other weights are left out."""
    found: dict[str, list[Look]] = {}
    for place, _ in places:
        folder = Path(place)
        try:
            index = read_index(folder)
        except CircuitsError:
            continue  # one damaged sweep hides no other
        if index is None or index.head["weights"] != weights:
            continue
        several = index.head["settings"].get("variants", 1) > 1
        for result in index.results:
            kind: Kind = "negative" if result.optimum == "negative" else "diverse" if several else "positive"
            found.setdefault(result.unit, []).append(Look(folder, kind, result))
    return found


def sweep_name(address: Unit, kind: Kind) -> str:
    """The folder's name of a sweep of one unit, or of all of a layer."""
    part = address.space.replace("~", "+")
    return f"{part}.{kind}" if address.index is None else f"{part}-{address.index}.{kind}"
