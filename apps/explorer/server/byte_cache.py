"""Results that all sessions share, in caches bounded by their bytes: the least recently used are dropped first."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

P = ParamSpec("P")
T = TypeVar("T")

MOST = 96 * 2**20
"""Bytes of everything in `CACHE`."""
_OBJECT = 64
"""Bytes that any other object is taken to have."""


def size_of(value: object) -> int:
    """Bytes that a value holds on to.

    An array or a tensor counts with all of its memory, also where it is a view of a small part: a view keeps the whole.
    What occurs twice counts once. Objects that are shared by many results (models, images) count as an entry each.
    """
    seen: set[int] = set()
    total, left = 0, [value]
    while left:
        item = left.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        total += _OBJECT
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            total += 0 if storage.data_ptr() in seen else storage.nbytes()
            seen.add(storage.data_ptr())
        elif isinstance(item, np.ndarray):
            # a view of another array, or of a tensor; other buffers (a file, bytes) are as large as the array
            if isinstance(item.base, np.ndarray | torch.Tensor):
                left.append(item.base)
            else:
                total += item.nbytes
        elif isinstance(item, str | bytes | bytearray):
            total += len(item)
        elif isinstance(item, Mapping):
            left += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            left += item
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            left += [getattr(item, f.name) for f in dataclasses.fields(item)]
    return total


class ByteCache:
    """Values by key, of at most so many bytes together; each is made once for all who ask at the same time.

    A value that is larger than all of the cache is given and not held. An error is raised to all who ask, and not held.
    """

    def __init__(self, most: int) -> None:
        self.most, self.size = most, 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made by `make` where it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                there: T = self._values[key][0]
                return there
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._values:
                    made_meanwhile: T = self._values[key][0]
                    return made_meanwhile
            try:
                value = make()
            finally:
                with self._lock:
                    self._making.pop(key, None)
            self._put(key, value)
            return value

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._values.clear()
            self.size = 0

    def __len__(self) -> int:
        return len(self._values)

    def _put(self, key: Hashable, value: object) -> None:
        size = size_of(value)
        with self._lock:
            self._values[key] = value, size
            self.size += size
            while self.size > self.most:
                _, (_, dropped) = self._values.popitem(last=False)
                self.size -= dropped


CACHE = ByteCache(MOST)
"""What the pages of all sessions share."""


def cached(function: Callable[P, T]) -> Callable[P, T]:
    """A function whose results are in `CACHE`, by its arguments but those whose names begin with an underscore."""
    parameters = list(inspect.signature(function).parameters)
    used = [i for i, name in enumerate(parameters) if not name.startswith("_")]

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        if options:
            raise TypeError(f"{function.__qualname__} takes its arguments by position")
        key = (function.__module__, function.__qualname__, *(args[i] for i in used if i < len(args)))
        return CACHE.get(key, lambda: function(*args))  # type: ignore[call-arg]

    return call
