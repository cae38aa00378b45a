"""Labels of units: one SQLite file per store, written so that a killed server loses no saved label.

Beside what people wrote stand the part labels of `circuits label`, which the store keeps with the scan.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from apps.explorer.server.security import checked_text
from circuits.dataset.labels.results import FILE as PARTS_FILE, read_labels
from circuits.dataset.scan_store import folder_of
from circuits.errors import CircuitsError, shorten
from circuits.network.address import Unit

log = logging.getLogger(__name__)

FILE = "labels.sqlite"
SCHEMA = 1
KIND = "vision-circuits labels"
MOST = 100_000
"""Largest number of labels in one import."""
_TABLE = """
CREATE TABLE IF NOT EXISTS labels (
    model TEXT NOT NULL, unit TEXT NOT NULL, author TEXT NOT NULL, name TEXT NOT NULL, family TEXT NOT NULL,
    polysemantic INTEGER NOT NULL, evidence TEXT NOT NULL, weights TEXT NOT NULL, saved TEXT NOT NULL,
    PRIMARY KEY (unit, author)
)
"""


_LONGEST = 1 << 20
"""Bytes of a row of it, most: a label has 4,000 characters."""


def _words(sql: str) -> list[str]:
    return sql.replace("IF NOT EXISTS ", "").split()


PARTS_AUTHOR = "part masks"
"""Author of labels that come from masks of parts."""


class LabelError(CircuitsError):
    """Labels that cannot be read or written."""


@dataclass(frozen=True)
class Label:
    """One author's label of one unit.

    Attributes:
        unit: full address; author: of the label.
        name: the label, in a few words; family: of units of the same kind.
        polysemantic: whether it is active on unrelated features.
        evidence: reasons: text, image ids, addresses of views.
        weights: digest of the weights that were labeled.
        saved: when, in UTC.
    """

    unit: str
    author: str
    name: str = ""
    family: str = ""
    polysemantic: bool = False
    evidence: str = ""
    weights: str = ""
    saved: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    def checked(self) -> Label:
        """The label with all its text checked.

        Raises:
            AddressError: no unit has that address. UploadError: text that is too long. LabelError: it has no author.
        """
        at = Unit.parse(self.unit)
        if at.model is None or at.index is None:
            raise LabelError(f"{shorten(self.unit)} is not the full address of a unit: model/layer:unit")
        limits = {"author": 80, "name": 120, "family": 80, "evidence": 2000, "weights": 80, "saved": 40}
        texts = {name: checked_text(getattr(self, name), most) for name, most in limits.items()}
        if not texts["author"]:
            raise LabelError("a label needs an author")
        return Label(unit=str(at.channel), polysemantic=bool(self.polysemantic), **texts)


def part_names(store: Path, model: str) -> list[Label]:
    """The units of a model that the part labels of a store name; none where these are damaged, which is logged."""
    try:
        labels = read_labels(store, model)
    except CircuitsError as error:
        log.warning("%s", error)
        return []
    if labels is None:
        return []
    saved = datetime.fromtimestamp((folder_of(store, model) / PARTS_FILE).stat().st_mtime, UTC)
    rows = []
    for unit, part in labels.names().items():
        best = next(row for row in labels.of(unit) if row.part == part)
        evidence = (
            f"AUC {best.auc:.3f} ({best.low:.3f} to {best.high:.3f}; best control {best.control:.3f}), "
            f"IoU {best.iou:.3f} for {part}, by masks on half of the images of {labels.images['name']}"
        )
        rows.append(
            Label(
                unit,
                PARTS_AUTHOR,
                part,
                evidence=evidence,
                weights=labels.weights,
                saved=saved.isoformat(timespec="milliseconds"),
            )
        )
    return rows


class Labels:
    """The labels of a store: those that were written, then those of `circuits label`."""

    def __init__(self, store: Path) -> None:
        self.path = store / FILE

    def save(self, label: Label) -> None:
        """Write a label, in place of an earlier one of the same author.

        Raises:
            LabelError, AddressError, UploadError: see `Label.checked`; or the file cannot be written.
        """
        self._write([label.checked()], newer=False)

    def remove(self, unit: str, author: str) -> None:
        """Remove an author's label of a unit."""
        with self._open(write=True) as connection:
            connection.execute("DELETE FROM labels WHERE unit = ? AND author = ?", (unit, author))

    def of(self, unit: str) -> list[Label]:
        """The labels of a unit, newest first."""
        written = self._read("WHERE unit = ? ORDER BY saved DESC, author", (unit,))
        model = Unit.parse(unit).model
        judged = [] if model is None else part_names(self.path.parent, model)
        return written + [label for label in judged if label.unit == unit]

    def all(self, model: str | None = None) -> list[Label]:
        """All written labels, or all of a model, by unit, newest first."""
        return self.written(model) + ([] if model is None else part_names(self.path.parent, model))

    def written(self, model: str | None = None) -> list[Label]:
        """The labels that people wrote, or those of a model, by unit, newest first."""
        if model is None:
            return self._read("ORDER BY unit, saved DESC", ())
        return self._read("WHERE model = ? ORDER BY unit, saved DESC", (model,))

    def names(self, model: str) -> dict[str, str]:
        """The newest written label of every labeled unit, else the part that it detects, by address."""
        names: dict[str, str] = {}
        for label in self.all(model):
            if label.name:
                names.setdefault(label.unit, label.name)
        return names

    def describe(self, model: str | None = None) -> dict[str, Any]:
        """All written labels, ready for JSON."""
        return {"kind": KIND, "schema": SCHEMA, "labels": [asdict(label) for label in self.written(model)]}

    def merge(self, document: Any) -> int:
        """Add labels of `describe`; of two labels of one author for one unit the newer stays.

        Returns:
            Number of labels that were new or newer.

        Raises:
            LabelError: another document; nothing was added.
        """
        if not isinstance(document, Mapping) or document.get("kind") != KIND or document.get("schema") != SCHEMA:
            raise LabelError(f"this is no file of labels of schema {SCHEMA}")
        rows = document.get("labels")
        if not isinstance(rows, Sequence) or isinstance(rows, str) or len(rows) > MOST:
            raise LabelError(f"a file of labels holds a list of at most {MOST:,}")
        columns = {f.name for f in fields(Label)}
        labels = []
        for number, row in enumerate(rows):
            try:
                labels.append(Label(**{k: v for k, v in row.items() if k in columns}).checked())
            except (AttributeError, TypeError, CircuitsError) as error:
                raise LabelError(f"label {number + 1} cannot be read: {shorten(error, 160)}") from error
        return self._write(labels, newer=True)

    # -- the file -----------------------------------------------------------------------------------------------------

    def _write(self, labels: Sequence[Label], *, newer: bool) -> int:
        only = " WHERE excluded.saved > labels.saved" if newer else ""
        sql = (
            "INSERT INTO labels (model, unit, author, name, family, polysemantic, evidence, weights, saved) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (unit, author) DO UPDATE SET name = excluded.name, "
            "family = excluded.family, polysemantic = excluded.polysemantic, evidence = excluded.evidence, "
            f"weights = excluded.weights, saved = excluded.saved{only}"
        )
        names = ("unit", "author", "name", "family", "polysemantic", "evidence", "weights", "saved")
        rows = [(Unit.parse(label.unit).model, *(getattr(label, name) for name in names)) for label in labels]
        with self._open(write=True) as connection:
            before = connection.total_changes
            connection.executemany(sql, rows)
            return connection.total_changes - before

    def _read(self, where: str, values: tuple[str, ...]) -> list[Label]:
        if not self.path.is_file():
            return []
        columns = [f.name for f in fields(Label)]
        with self._open() as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'labels'").fetchone():
                return []  # killed before the first label was written
            rows = connection.execute(f"SELECT {', '.join(columns)} FROM labels {where}", values).fetchall()
            if any(not isinstance(text, str) for row in rows for text in (*row[:4], *row[6:])):
                raise ValueError("a label holds bytes where its text belongs")
            labels = [Label(**{**dict(zip(columns, row, strict=True)), "polysemantic": bool(row[4])}) for row in rows]
            return [label.checked() for label in labels]

    @contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=10)) as connection:
                if write:
                    # switching a new file to WAL ignores the timeout of SQLite, so processes take turns here
                    with FileLock(self.path.with_name(self.path.name + ".lock"), timeout=10):
                        connection.execute("PRAGMA journal_mode = WAL")
                        connection.execute("PRAGMA synchronous = FULL")  # a saved label survives a power failure
                        connection.execute(_TABLE)
                # a view or a trigger of somebody else's is a program that may never end; so is an expression in a table
                kinds = connection.execute("SELECT type, sql FROM sqlite_master WHERE type != 'index'").fetchall()
                if any(kind != "table" or _words(sql) != _words(_TABLE) for kind, sql in kinds):
                    raise ValueError("it has tables, views or triggers that are not of this version")
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
                with connection:
                    yield connection
        except (sqlite3.Error, OSError, ValueError, CircuitsError) as error:
            # a lock that does not come is one of the system's errors; text that is no UTF-8 is a wrong value
            raise LabelError(
                f"the labels in {shorten(self.path, 160)} cannot be used: {shorten(error, 160)}"
            ) from error
