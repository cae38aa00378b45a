"""Named lists of units with notes, kept beside the scans: `STORE/collections/NAME.json`, each whole or not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from apps.explorer.server.security import UploadError, checked_name, checked_text, safe_join
from circuits.errors import CircuitsError, shorten
from circuits.network.address import Unit
from zoo.common.stored import Stored

FOLDER = "collections"
MOST = 500
"""Units of a collection."""
NOTE = 500
"""Characters of a note on a unit."""


class CollectionError(CircuitsError):
    """A collection that cannot be read or written."""


class _Row(TypedDict):
    unit: str
    note: str


class _Document(TypedDict):
    name: str
    notes: str
    units: list[_Row]


_COLLECTIONS = Stored(
    "a collection of units",
    "Delete it, or import it again",
    CollectionError,
    mark={"kind": "vision-circuits collection"},
    shape=_Document,
)


@dataclass(frozen=True)
class Collection:
    """Units that belong together.

    Attributes:
        name: letters, digits, dots, underscores and hyphens; notes: on the whole.
        units: full address of each unit, and a note on it, in order.
    """

    name: str
    notes: str = ""
    units: tuple[tuple[str, str], ...] = ()

    def checked(self) -> Collection:
        """The collection with all its text checked, and each unit once.

        Raises:
            AddressError: no unit has such an address. UploadError: a name that is none, or text that is too long.
            CollectionError: more than `MOST` units, or an address without its model or its number.
        """
        if len(self.units) > MOST:
            raise CollectionError(f"a collection holds at most {MOST} units, not {len(self.units):,}")
        units: dict[str, str] = {}
        for address, note in self.units:
            unit = Unit.parse(checked_text(address, 300))
            if unit.model is None or unit.index is None:
                raise CollectionError(f"{shorten(address, 80)} is not the full address of a unit: model/layer:unit")
            units.setdefault(str(unit.channel), checked_text(note, NOTE))
        return Collection(checked_name(self.name), checked_text(self.notes, 2_000), tuple(units.items()))

    def describe(self) -> dict[str, Any]:
        """The JSON of its file, which `parse` reads."""
        units = [{"unit": unit, "note": note} for unit, note in self.units]
        return {
            "kind": "vision-circuits collection",
            "schema": 1,
            "name": self.name,
            "notes": self.notes,
            "units": units,
        }

    @classmethod
    def parse(cls, document: Any) -> Collection:
        """The collection of a document of `describe`.

        Raises:
            CollectionError, AddressError, UploadError: it is none.
        """
        if not isinstance(document, Mapping):
            raise CollectionError("this is no file of a collection")
        data = _COLLECTIONS.check(Path("the file"), dict(document))
        return cls(data["name"], data["notes"], tuple((r["unit"], r["note"]) for r in data["units"])).checked()

    # -- as text ------------------------------------------------------------------------------------------------------

    def lines(self) -> str:
        """One unit a line, its note behind it."""
        return "\n".join(f"{unit}  {note}".rstrip() for unit, note in self.units)

    @classmethod
    def of_lines(cls, name: str, notes: str, text: str, model: str) -> Collection:
        """The collection of such lines; an address without a model is one of `model`.

        Raises:
            CollectionError, AddressError, UploadError: see `checked`.
        """
        units = []
        for line in text.splitlines():
            address, _, note = line.strip().partition(" ")
            if address:
                units.append((address if "/" in address else f"{model}/{address}", note.strip()))
        return cls(name, notes, tuple(units)).checked()


class Collections:
    """The collections of a store."""

    def __init__(self, store: Path) -> None:
        self.folder = store / FOLDER

    def names(self) -> list[str]:
        """Their names."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def read(self, name: str) -> Collection:
        """One of them.

        Raises:
            CollectionError: there is none of that name, or it is damaged.
        """
        path = self._path(name)
        document = _COLLECTIONS.read_document(path)
        if document is None:
            there = ", ".join(self.names()) or "none"
            raise CollectionError(f"no collection {shorten(name, 80)!r} is in this store; there are: {there}")
        with _COLLECTIONS.parsing(path):
            return Collection.parse(document)

    def save(self, collection: Collection) -> Collection:
        """Write a collection, in place of an earlier one of its name; what was written.

        Raises:
            CollectionError, AddressError, UploadError: see `Collection.checked`. FileError: the disk does not take it.
        """
        checked = collection.checked()
        _COLLECTIONS.write_json(self._path(checked.name), checked.describe())
        return checked

    def add(self, name: str, unit: str, note: str = "") -> Collection:
        """Add a unit to a collection, which is begun where there is none of the name."""
        there = self.read(name) if name in self.names() else Collection(name)
        others = tuple(row for row in there.units if row[0] != unit)
        return self.save(Collection(name, there.notes, (*others, (unit, note))))

    def remove(self, name: str) -> None:
        """Delete a collection."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        try:
            return safe_join(self.folder, f"{checked_name(name)}.json")
        except UploadError as error:
            raise CollectionError(str(error)) from error
