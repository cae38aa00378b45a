"""Reservoirs: a few examples per unit, kept while images stream by, the same for any order and any batches.

Reservoir sampling as usual draws a random number when an item arrives, so its result depends on the order of arrival,
and two halves of a stream cannot be merged. Here an item's random number is its ticket, a hash of what identifies it
(seed, image, position): the sample is the items of the lowest tickets (bottom-k sampling), a total order that neither
order, batches, nor the split among processes can change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.common.reading import Expected

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]

NO_IMAGE = -1
"""Image of an empty slot."""
_SLOT = ("ticket", "value", "image", "position")
_KEYS = {"rank": "rank", "ticket": "ticket", "value": "value", "image": "image", "position": "place"}
"""Attribute -> its name in files."""


def mix(*numbers: int | NDArray[Any]) -> NDArray[np.uint64]:
    """A 64-bit hash of numbers, element by element; arrays are broadcast (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        state = np.asarray(0x9E3779B97F4A7C15, np.uint64)
        for number in numbers:
            state = (
                np.asarray(number).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) + (state << np.uint64(6)) + state
            )
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def random_tickets(*numbers: int | NDArray[Any]) -> Ints:
    """Tickets, evenly spread over the non-negative 63-bit numbers; the lowest win."""
    return (mix(*numbers) >> np.uint64(1)).astype(np.int64)


def shares(*numbers: int | NDArray[Any]) -> NDArray[np.float64]:
    """Numbers evenly spread over [0, 1)."""
    return (mix(*numbers) >> np.uint64(11)).astype(np.float64) / 2.0**53


class KeepBest:
    """The best few positions of every unit by one rule: lowest `rank`, ties by lowest `ticket`.

    Which those are does not depend on the order in which positions are offered, nor on how offers are split among
    several keepers that are merged later.

    Attributes:
        rank, ticket: `(units, slots)`, best first.
        value: the activation there; image: index of the image, `NO_IMAGE` for an empty slot; position: flat position.
    """

    def __init__(self, units: int, slots: int) -> None:
        self.slots = slots
        self.rank = np.full((units, slots), np.inf, np.float64)
        self.ticket = np.full((units, slots), np.iinfo(np.int64).max, np.int64)
        self.value = np.zeros((units, slots), np.float32)
        self.image = np.full((units, slots), NO_IMAGE, np.int64)
        self.position = np.zeros((units, slots), np.int64)

    def offer(self, rank: NDArray[np.float64], ticket: Ints, value: Floats, image: Ints, position: Ints) -> None:
        """Consider `(units, n)` positions; those of rank infinity are none. `image` may be `(n,)`."""
        rank, image = np.asarray(rank, np.float64), np.broadcast_to(image, value.shape)
        rank = np.where(np.isinf(rank), np.inf, rank)
        # only ranks up to the last one in the reservoir can enter; after a while, most rows have none and are skipped
        rows = np.flatnonzero((rank <= self.rank[:, -1:]).any(axis=1) & np.isfinite(rank).any(axis=1))
        if len(rows) == 0:
            return
        fields: Arrays = {"rank": rank, "ticket": ticket, "value": value, "image": image, "position": position}
        joined = {name: np.concatenate([getattr(self, name)[rows], new[rows]], 1) for name, new in fields.items()}
        vacant = np.isinf(joined["rank"])  # empty slots are identical, whatever was offered
        for name, empty in (("ticket", np.iinfo(np.int64).max), ("value", 0), ("image", NO_IMAGE), ("position", 0)):
            joined[name] = np.where(vacant, empty, joined[name]).astype(joined[name].dtype)
        order = _lowest(joined["rank"], joined["ticket"], self.slots)
        for name, values in joined.items():
            getattr(self, name)[rows] = np.take_along_axis(values, order, axis=1)

    def merge(self, other: KeepBest) -> None:
        """Merge the reservoir of other positions."""
        self.offer(other.rank, other.ticket, other.value, other.image, other.position)

    def arrays(self, prefix: str) -> Arrays:
        """All of it, for a file."""
        return {f"{prefix}.{_KEYS[name]}": getattr(self, name) for name in ("rank", *_SLOT)}

    def load(self, prefix: str, arrays: Arrays) -> None:
        """What `arrays` wrote."""
        for name in ("rank", *_SLOT):
            setattr(self, name, arrays[f"{prefix}.{_KEYS[name]}"].copy())


def _lowest(rank: NDArray[np.float64], ticket: Ints, count: int) -> Ints:
    """Where the `count` lowest ranks of each row are, in order, equal ones by ticket; empty slots (infinity) in any.

    What `lexsort` gives, which sorts each row twice and slowly; only rows in which two of the lowest are equal need it.
    """
    order = rank.argsort(axis=1)
    lowest = np.take_along_axis(rank, order[:, : count + 1], axis=1)
    ties = np.flatnonzero(((lowest[:, 1:] == lowest[:, :-1]) & np.isfinite(lowest[:, 1:])).any(axis=1))
    if len(ties):
        order[ties] = np.lexsort((ticket[ties], rank[ties]), axis=1)
    return order[:, :count]


class KeepByStrength:
    """A few positions of every unit for each step of response, sampled at random among all positions offered.

    Steps part at 1, 1.5, 2, 3, 4, 6, ...: half an octave each, more or less. A band between two responses is a run of
    steps, and the lowest tickets of the run are among the lowest of its parts. So bands can be chosen when all is
    known, and still hold a fair draw.

    Attributes:
        ticket: `(units, STEPS, slots)`; `value`, `image`, `place`: likewise.
    """

    LOWEST, STEPS = -20, 80
    """From 2^-20, two to an octave, up to 2^20; what lies outside counts to the first or the last."""

    def __init__(self, units: int, slots: int) -> None:
        shape = (units, self.STEPS, slots)
        self.slots = slots
        self.ticket = np.full(shape, np.iinfo(np.int64).max, np.int64)
        self.value = np.zeros(shape, np.float32)
        self.image = np.full(shape, NO_IMAGE, np.int32)
        self.position = np.zeros(shape, np.int32)

    @classmethod
    def step(cls, values: NDArray[Any]) -> Ints:
        """The step of positive responses."""
        fraction, exponent = np.frexp(np.asarray(values, np.float64))  # fraction in [0.5, 1)
        steps = 2 * (exponent.astype(np.int64) - 1 - cls.LOWEST) + (fraction >= 0.75)
        return np.asarray(np.clip(steps, 0, cls.STEPS - 1))

    @classmethod
    def edges(cls) -> NDArray[np.float64]:
        """Lower ends of the steps, `(STEPS,)`; the first is 0."""
        step = np.arange(cls.STEPS)
        edges = np.asarray(2.0 ** (cls.LOWEST + step // 2) * np.where(step % 2, 1.5, 1.0), np.float64)
        edges[0] = 0.0
        return edges

    def offer(self, ticket: Ints, value: Floats, image: Ints, position: Ints) -> None:
        """Consider `(units, n)` positions; those with a value of at most zero are none."""
        steps = self.step(np.where(value > 0, value, 1.0))
        worst = np.take_along_axis(self.ticket[:, :, -1], steps, axis=1)
        rows, at = np.nonzero((value > 0) & (ticket < worst))
        if not len(rows):
            return
        # the new ones by the slots they may enter, a row each, filled up with empty ones
        shelf, ticket = rows * self.STEPS + steps[rows, at], ticket[rows, at]
        order = np.lexsort((ticket, shelf))
        shelves, begins, counts = np.unique(shelf[order], return_index=True, return_counts=True)
        within = np.arange(len(order)) - np.repeat(begins, counts)
        first = within < self.slots  # further ones can't stay
        order, into = order[first], (np.repeat(np.arange(len(shelves)), counts)[first], within[first])
        news: Arrays = {"ticket": ticket, "value": value[rows, at], "image": image[at], "position": position[rows, at]}
        joined: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
        for name, empty in (("ticket", np.iinfo(np.int64).max), ("value", 0), ("image", NO_IMAGE), ("position", 0)):
            stored = getattr(self, name).reshape(-1, self.slots)
            new = np.full((len(shelves), self.slots), empty, stored.dtype)
            new[into] = news[name][order]
            joined[name] = stored, np.concatenate([new, stored[shelves]], axis=1)
        best = joined["ticket"][1].argsort(axis=1, kind="stable")[:, : self.slots]
        for stored, values in joined.values():
            stored[shelves] = np.take_along_axis(values, best, axis=1)

    def merge(self, other: KeepByStrength) -> None:
        """Merge the reservoir of other positions."""
        ticket = np.concatenate([self.ticket, other.ticket], axis=2)
        order = ticket.argsort(axis=2, kind="stable")[:, :, : self.slots]
        for name in _SLOT:
            joined = np.concatenate([getattr(self, name), getattr(other, name)], axis=2)
            setattr(self, name, np.take_along_axis(joined, order, axis=2))

    def between(self, first: int, last: int, unit: int, count: int) -> tuple[Floats, Ints, Ints]:
        """`(values, images, positions)` of at most `count` examples of a unit in the steps `first` to `last - 1`."""
        ticket = self.ticket[unit, first:last].ravel()
        order = ticket.argsort(kind="stable")[:count]
        image = self.image[unit, first:last].ravel()[order].astype(np.int64)
        there = image != NO_IMAGE
        value, position = (getattr(self, name)[unit, first:last].ravel()[order] for name in ("value", "position"))
        return value[there], image[there], position[there].astype(np.int64)

    def arrays(self, prefix: str) -> Arrays:
        """All of it, for a file."""
        return {f"{prefix}.{_KEYS[name]}": getattr(self, name) for name in _SLOT}

    @classmethod
    def expected(cls, prefix: str, units: int, images: int, positions: int) -> dict[str, Expected]:
        """What arrays must be for `load`."""
        shape = (units, cls.STEPS, f"slots of {prefix}")
        return {
            f"{prefix}.ticket": Expected("int64", shape, 0),
            f"{prefix}.value": Expected("real", shape),
            f"{prefix}.image": Expected("whole", shape, NO_IMAGE, images - 1),
            f"{prefix}.place": Expected("whole", shape, 0, positions - 1),
        }

    def load(self, prefix: str, arrays: Arrays) -> None:
        """What `arrays` wrote."""
        for name in _SLOT:
            setattr(self, name, arrays[f"{prefix}.{_KEYS[name]}"].copy())
