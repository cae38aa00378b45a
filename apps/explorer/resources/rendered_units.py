"""Feature visualizations that sweeps wrote into the store: `STORE/MODEL/sweeps/NAME/`.

`circuits visualize ADDRESS --out STORE/MODEL/sweeps/NAME` adds a sweep; so does a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.visualization.result import Visualization
from circuits.visualization.sweeps.store import INDEX, file_name, read_index

FOLDER = "sweeps"
Kind = Literal["positive", "negative", "diverse"]


@dataclass(frozen=True)
class StoredVisualization:
    """One visualization of a sweep.

    Attributes:
        folder: of the sweep; kind: it activates the unit, suppresses it, or is one of a diverse set.
        result: without its pixels.
    """

    folder: Path
    kind: Kind
    result: Visualization

    @property
    def png(self) -> Path:
        """Its image file."""
        return self.folder / f"{file_name(self.result.unit, self.result.variant)}.png"


def sweeps(folder: Path) -> tuple[tuple[str, int], ...]:
    """The sweeps of a model's folder, with the time of their last change."""
    paths = sorted((folder / FOLDER).glob(f"*/{INDEX}"))
    return tuple((str(path.parent), path.stat().st_mtime_ns) for path in paths)


def read_visualizations(
    folders: Iterable[tuple[str, int]], weights: str
) -> Mapping[str, Sequence[StoredVisualization]]:
    """The visualizations of sweeps by address of the unit, without sweeps of other weights."""
    by_unit: dict[str, list[StoredVisualization]] = {}
    for path, _ in folders:
        folder = Path(path)
        try:
            index = read_index(folder)
        except CircuitsError:
            continue  # a damaged sweep must not hide the others
        if index is None or index.head["weights"] != weights:
            continue
        diverse = index.head["settings"].get("variants", 1) > 1
        for result in index.results:
            kind: Kind = "negative" if result.optimum == "negative" else "diverse" if diverse else "positive"
            by_unit.setdefault(result.unit, []).append(StoredVisualization(folder, kind, result))
    return by_unit


def sweep_name(address: Unit, kind: Kind) -> str:
    """The folder name of a sweep of a unit, or of all units of a layer."""
    part = address.space.replace("~", "+")
    return f"{part}.{kind}" if address.index is None else f"{part}-{address.index}.{kind}"
