"""Things by name, which packages of others can add to."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from zoo.errors import CircuitsError, did_you_mean, shorten

log = logging.getLogger(__name__)

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Name -> thing, in the order in which they were added.

    Looked up for the first time, it first loads what registers itself: `load`, then the entry points of `group` that
    installed packages declare. An entry point is a module, or a function without arguments, that adds to the registry
    when it is loaded. One that fails is logged and skipped: a broken package of somebody else must not take the rest
    with it.

    Args:
        kind: what the things are, in the singular, for errors: "architecture".
        group: entry points of packages that add to it, such as "vision_circuits.architectures"; None for none.
        load: imports the modules of ours that register what they hold.
        error: class of the errors raised.

    >>> shapes = Registry[int]("shape")
    >>> shapes.add("triangle", 3)
    3
    >>> shapes["triangel"]
    Traceback (most recent call last):
    zoo.errors.CircuitsError: no shape 'triangel'. Nearest: triangle. There are: triangle
    """

    def __init__(
        self,
        kind: str,
        *,
        group: str | None = None,
        load: Callable[[], object] | None = None,
        error: type[CircuitsError] = CircuitsError,
    ) -> None:
        self.kind, self.group, self.error = kind, group, error
        self._load = load
        self._things: dict[str, T] = {}
        self._lock = threading.RLock()
        self._loading = self._loaded = False

    def add(self, name: str, thing: T, *, replace: bool = False) -> T:
        """Add `thing` and return it.

        Raises:
            CircuitsError: another thing has that name, and `replace` is not set.
        """
        with self._lock:
            if name in self._things and self._things[name] is not thing and not replace:
                raise self.error(f"there is {self._article} {self.kind} {shorten(name)!r} already")
            self._things[name] = thing
        return thing

    def remove(self, name: str) -> None:
        """Take `name` out again, if it is there."""
        with self._lock:
            self._things.pop(name, None)

    def __getitem__(self, name: str) -> T:
        """The thing called `name`.

        Raises:
            CircuitsError: there is none; it names the nearest, and all there are.
        """
        self._fill()
        try:
            return self._things[name]
        except (KeyError, TypeError):
            known = ", ".join(map(str, self._things)) or "none"
            hint = did_you_mean(name, self._things) if isinstance(name, str) else ""
            raise self.error(f"no {self.kind} {shorten(name)!r}.{hint} There are: {known}") from None

    def __contains__(self, name: object) -> bool:
        self._fill()
        return name in self._things

    def get(self, name: str, default: T | None = None) -> T | None:  # type: ignore[override]
        """The thing called `name`, or `default`."""
        self._fill()
        return self._things.get(name, default)

    def __iter__(self) -> Iterator[str]:
        self._fill()
        return iter(dict(self._things))

    def __len__(self) -> int:
        self._fill()
        return len(self._things)

    @property
    def _article(self) -> str:
        return "an" if self.kind[:1] in "aeio" else "a"

    def _fill(self) -> None:
        if self._loaded:
            return
        with self._lock:
            if self._loading or self._loaded:  # what is loaded may look others up; other threads wait for the lock
                return
            self._loading = True
            try:
                if self._load is not None:
                    self._load()
                for entry in importlib.metadata.entry_points(group=self.group) if self.group else ():
                    try:
                        thing = entry.load()
                        if callable(thing) and not isinstance(thing, type):
                            thing()
                    except Exception:
                        log.warning("%s of %s cannot be loaded", entry.name, entry.value, exc_info=True)
                self._loaded = True
            finally:
                self._loading = False


def import_modules(package: str) -> None:
    """Import every module of `package`, in the order of their names; for a registry's `load`.

    >>> import_modules("zoo.common")
    """
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
