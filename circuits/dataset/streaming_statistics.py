"""Streaming statistics: counts, sums and examples of all units of one layer, in memory independent of the images.

Counts are whole numbers, kept examples are chosen by total orders, and sums carry their rounding errors along
(Dekker's two-sum), so that neither the order of the images nor their split among processes shows in the result.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import Barrier
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.dataset.reservoir import Arrays, Floats, Ints, KeepBest, KeepByStrength, mix, random_tickets, shares
from circuits.errors import CircuitsError
from zoo.common.reading import Expected

PER_OCTAVE = 8
OCTAVES = (-40, 24)
"""The histogram's bins: an eighth of an octave of size each (9 to 12.5 % wide), from 2^-40 to 2^24, for each sign."""
_SHIFT = 23 - 3  # of a float's 23 fraction bits, the highest three give the eighth of an octave
_LOW, _HIGH = ((127 + octave) * PER_OCTAVE for octave in OCTAVES)
_WIDTH = _HIGH - _LOW + 1  # the first bin holds what is smaller, the last also what is larger
_CACHED = 1 << 18
"""Values looked at in one go: what a core's cache holds."""
_LOOKS = 64
"""Positions of an image among which one is looked for where the unit fires."""
_FIRING, _STRONGEST, _NEAR, _DRAW, _LOOK, _BAND = range(6)


class ThreadPool:
    """Threads that share a batch on the CPU, each working through its images alone.

    Counting is dozens of quick operations. Torch would split each of them among its own threads and wait for the last
    every time, which on a machine that others use, too, takes many times as long as the work.
    """

    def __init__(self, hands: int | None = None) -> None:
        self.hands = torch.get_num_threads() if hands is None else hands
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> ThreadPool:
        if self.hands > 1:
            threads = torch.get_num_threads()
            self._pool = ThreadPoolExecutor(self.hands, "scan", initializer=torch.set_num_threads, initargs=(1,))
            together = Barrier(self.hands)
            for started in [self._pool.submit(together.wait) for _ in range(self.hands)]:
                started.result()
            # threads of others that are yet to come get as many as the last who set it: that must not be the crew
            torch.set_num_threads(threads)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def share(
        self, work: Callable[[Ints, Tensor], dict[str, NDArray[Any]]], images: Ints, values: Tensor
    ) -> list[dict[str, NDArray[Any]]]:
        """What `work` makes of some images and their values each, in order."""
        if self._pool is None:
            return [work(images, values)]
        parts = zip(np.array_split(images, self.hands), torch.tensor_split(values, self.hands), strict=True)
        return [f.result() for f in [self._pool.submit(work, *part) for part in parts if len(part[0])]]


@dataclass(frozen=True)
class Plan:
    """How many examples and samples a scan keeps.

    Attributes:
        top: images with the strongest responses, per unit.
        few: most negative, near-zero and random firing positions, per unit.
        per_band: positions per band of responses, per unit.
        samples: positions at which the responses of all units are stored.
        draws: positions drawn per image.
        seed: of all draws.
    """

    top: int = 100
    few: int = 16
    per_band: int = 4
    samples: int = 2048
    draws: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            low = 0 if name == "seed" else 1
            if not isinstance(value, int) or not low <= value < 2**31:
                raise CircuitsError(f"{name} of a scan is a whole number from {low} on, not {value!r}")


def edges() -> NDArray[np.float64]:
    """Ends of the histogram's bins of size, `(_WIDTH + 1,)`, from 0; the last bin holds all that is larger, too."""
    step = np.arange(_WIDTH)
    ends = 2.0 ** (OCTAVES[0] + step // PER_OCTAVE) * (1 + (step % PER_OCTAVE) / PER_OCTAVE)
    return np.concatenate([[0.0], ends])


class Tally:
    """Streaming statistics of the units of one layer.

    Attributes:
        name, size: of the layer: its number of units, and height and width of its map.
        counts: histogram `(units, 2, _WIDTH)`: how many positions have a response of that size, the positive first.
        total: sum of the positive responses, in two parts `(2, units)`, the second far smaller.
    """

    def __init__(self, name: str, units: int, size: tuple[int, int], plan: Plan) -> None:
        self.name, self.units, self.size, self.plan = name, units, size, plan
        self.counts = np.zeros((units, 2, _WIDTH), np.int64)
        self.total = np.zeros((2, units), np.float64)
        self.images = 0
        self.active_images = np.zeros(units, np.int64)
        self.top = KeepBest(units, plan.top)
        self.lowest, self.near, self.random = (KeepBest(units, plan.few) for _ in range(3))
        self.bands = KeepByStrength(units, plan.per_band)
        self.sample_ticket = np.empty(0, np.int64)
        self.sample_values = np.empty((0, units), np.float32)
        self._rows = _Rows(units, plan.draws)
        self._salt = int(mix(plan.seed, *name.encode())) >> 1

    # -- one batch --------------------------------------------------------------------------------

    def take(self, images: Ints, values: Tensor, pool: ThreadPool | None = None) -> None:
        """Count the responses `(n, units, H, W)` to the images of these indices; they are not kept.

        Raises:
            CircuitsError: a response is not a finite number.
        """
        values = values.detach()
        if pool is None or values.device.type != "cpu" or len(images) < 2:
            parts = [self._measure(images, values)]
        else:
            parts = pool.share(self._measure, images, values)
        for part in parts:
            self.counts += part.pop("counts")
            for row in part.pop("sums").astype(np.float64):
                self._add(row)
            self.active_images += (part["high"] > 0).sum(axis=0)
            self._rows.add(part)
        self.images += len(images)

    def _measure(self, images: Ints, values: Tensor) -> dict[str, NDArray[Any]]:
        """Statistics of a few images, one row each, and the histogram of them all."""
        flat = values.to(torch.float32).contiguous().flatten(2)
        measured = _measure_rows(flat)
        high, low, high_at = (measured[name] for name in ("high", "low", "high_at"))
        if not bool(torch.isfinite(high).all() & torch.isfinite(low).all()):
            row = int((~(torch.isfinite(high) & torch.isfinite(low))).nonzero()[0, 0])
            raise CircuitsError(f"{self.name} has responses to image {int(images[row])} that are not finite")
        active, active_at = self._random_active(images, flat, high, high_at)
        sampled_at = self._sampled_positions(images)
        results = {
            **measured,
            "active": active,
            "active_at": active_at,
            "sampled": flat.gather(2, _index(sampled_at, flat)),
        }
        arrays: Arrays = {name: tensor.cpu().numpy() for name, tensor in results.items()}
        return {**arrays, "image": np.asarray(images, np.int64), "sampled_at": sampled_at}

    def _add(self, row: NDArray[np.float64]) -> None:
        # two-sum (Knuth 1969, Dekker 1971): high + error is the exact sum, whatever the order of the rows
        high = self.total[0] + row
        virtual = high - self.total[0]
        self.total[1] += (self.total[0] - (high - virtual)) + (row - virtual)
        self.total[0] = high

    def _random_active(self, images: Ints, flat: Tensor, high: Tensor, high_at: Tensor) -> tuple[Tensor, Tensor]:
        """A random active position of each image; its strongest position where few or none are active."""
        count = flat.shape[2]
        # The first active of a few positions in random order is a random active one: of small maps all are looked at,
        # of large ones 64. Where none of these is active the strongest position stands in.
        if count <= _LOOKS:
            looks = random_tickets(self.plan.seed, images[:, None], np.arange(count)[None], _LOOK).argsort(axis=1)
        else:
            fractions = shares(self.plan.seed, images[:, None], np.arange(_LOOKS)[None], _LOOK)
            looks = (fractions * count).astype(np.int64)
        index = _index(looks, flat)
        values = flat.gather(2, index)
        first = (values > 0).to(torch.uint8).argmax(dim=2, keepdim=True)
        first_value, position = values.gather(2, first)[:, :, 0], index.gather(2, first)[:, :, 0]
        missed = first_value <= 0
        return torch.where(missed, high, first_value), torch.where(missed, high_at, position)

    def _sampled_positions(self, images: Ints) -> Ints:
        """Flat positions `(n, draws)` of the positions drawn: the same part of the image in every layer."""
        height, width = self.size
        down, across = sampled_positions(self.plan, images)
        return (down * height).astype(np.int64) * width + (across * width).astype(np.int64)

    # -- several batches --------------------------------------------------------------------------

    def settle(self) -> None:
        """Choose among what the last batches offered; to be called now and then, and at the end."""
        rows = self._rows.take()
        if not len(rows["image"]):
            return
        images = rows["image"]
        high, high_at, low, low_at, active_values, active_at = (
            np.ascontiguousarray(rows[n].T) for n in ("high", "high_at", "low", "low_at", "active", "active_at")
        )
        unit = np.arange(self.units)[:, None]
        by_image = np.broadcast_to(images, high.shape)
        self.top.offer(-high.astype(np.float64), by_image, high, by_image, high_at)
        self.lowest.offer(low.astype(np.float64), by_image, low, by_image, low_at)
        # A random sample by tickets: each candidate has a random number of its own, and those with the lowest stay. The
        # number is a hash of image and unit, so that the sample is the same in any order, by any number of threads and
        # ranks.
        tickets = random_tickets(self._salt, images[None], unit, _FIRING)
        active = active_values > 0
        self.random.offer(
            np.where(active, tickets, np.inf).astype(np.float64), tickets, active_values, by_image, active_at
        )
        self.bands.offer(random_tickets(self._salt, images[None], unit, _BAND), active_values, images, active_at)
        # an image offers its strongest position, and one where the unit fires; the same position only once
        strongest = np.where(active & (active_at == high_at), 0, high)
        self.bands.offer(random_tickets(self._salt, images[None], unit, _STRONGEST), strongest, images, high_at)
        sampled = rows["sampled"].transpose(1, 0, 2).reshape(self.units, -1)
        sampled_at = np.broadcast_to(rows["sampled_at"].reshape(-1), sampled.shape)
        by_draw = np.repeat(images, self.plan.draws)
        near = random_tickets(
            self._salt, by_draw[None], np.tile(np.arange(self.plan.draws), len(images))[None], unit, _NEAR
        )
        self.near.offer(
            np.abs(sampled).astype(np.float64), near, sampled, np.broadcast_to(by_draw, sampled.shape), sampled_at
        )
        self._sample(sample_tickets(self.plan, images), rows["sampled"].transpose(0, 2, 1).reshape(-1, self.units))

    def _sample(self, ticket: Ints, values: Floats) -> None:
        joined = np.concatenate([self.sample_ticket, ticket])
        order = joined.argsort(kind="stable")[: self.plan.samples]
        self.sample_values = np.concatenate([self.sample_values, values])[order]
        self.sample_ticket = joined[order]

    def merge(self, other: Tally) -> None:
        """Take in what another tally counted on other images."""
        self.settle()
        other.settle()
        self.counts += other.counts
        # both parts of the other sum, so that the merged one is as exact
        self._add(other.total[0])
        self._add(other.total[1])
        self.images += other.images
        self.active_images += other.active_images
        for name in ("top", "lowest", "near", "random", "bands"):
            getattr(self, name).merge(getattr(other, name))
        self._sample(other.sample_ticket, other.sample_values)

    # -- files ------------------------------------------------------------------------------------

    def arrays(self) -> Arrays:
        """All of it, for a file."""
        self.settle()
        stored: Arrays = {
            "counts": self.counts,
            "total": self.total,
            "images": np.array([self.images]),
            "fires_on": self.active_images,
            "samples.ticket": self.sample_ticket,
            "samples.values": self.sample_values,
        }
        for name in ("top", "lowest", "near", "random", "bands"):
            stored |= getattr(self, name).arrays(name)
        return stored

    def expected(self) -> dict[str, Expected]:
        """What arrays must be for `load`: as those of this tally, with any number of samples."""
        own = {name: Expected(str(v.dtype), v.shape, gaps=True) for name, v in self.arrays().items()}
        ticket, values = Expected("int64", ("samples",)), Expected("float32", ("samples", self.units))
        return own | {"samples.ticket": ticket, "samples.values": values}

    def load(self, arrays: Arrays) -> None:
        """What `arrays` wrote."""
        self.counts, self.total = arrays["counts"].copy(), arrays["total"].copy()
        self.images, self.active_images = int(arrays["images"][0]), arrays["fires_on"].copy()
        self.sample_ticket, self.sample_values = arrays["samples.ticket"].copy(), arrays["samples.values"].copy()
        for name in ("top", "lowest", "near", "random", "bands"):
            getattr(self, name).load(name, arrays)


class _Rows:
    """What was measured of single images and waits to be settled, in arrays that are used again and again.

    Many small arrays that stay, made between large ones that go, would leave memory full of holes.
    """

    def __init__(self, units: int, draws: int) -> None:
        self.count, self._room = 0, 0
        self._shapes: dict[str, tuple[tuple[int, ...], type]] = {
            **{name: ((units,), np.float32) for name in ("high", "low", "active")},
            **{name: ((units,), np.int32) for name in ("high_at", "low_at", "active_at")},
            "image": ((), np.int64),
            "sampled": ((units, draws), np.float32),
            "sampled_at": ((draws,), np.int64),
        }
        self._arrays: Arrays = {}

    def add(self, rows: Arrays) -> None:
        """Take in some more."""
        end = self.count + len(rows["image"])
        if end > self._room:
            self._room = max(64, end, 2 * self._room)
            for name, (shape, kind) in self._shapes.items():
                larger: NDArray[Any] = np.empty((self._room, *shape), kind)
                if self.count:
                    larger[: self.count] = self._arrays[name][: self.count]
                self._arrays[name] = larger
        for name, values in self._arrays.items():
            values[self.count : end] = rows[name]
        self.count = end

    def take(self) -> Arrays:
        """All of them; from then on there are none. What is given is overwritten by the next."""
        if not self.count:
            return {"image": np.empty(0, np.int64)}
        rows = {name: values[: self.count] for name, values in self._arrays.items()}
        self.count = 0
        return rows


def _measure_rows(flat: Tensor) -> dict[str, Tensor]:
    """Extremes, sums and counts of contiguous responses `(n, units, positions)`.

    `high` and `low` of each map, the first positions of these, `high_at` and `low_at`, and `sums` of what is above
    zero, all `(n, units)`; `counts` of all by sign and size, `(units, 2, _WIDTH)`.
    """
    n, units, positions = flat.shape
    rows = flat.view(n * units, positions)
    shape = (len(rows),)
    high_at, low_at = (torch.empty(shape, dtype=torch.int64, device=flat.device) for _ in range(2))
    positive_sums = torch.empty(shape, device=flat.device)
    # A bin is the sign, the exponent and the highest fraction bits of a float, read as a whole number: exact, and no
    # logarithm. One bincount for all units and both signs, each with a range of numbers of its own.
    own = torch.arange(units, dtype=torch.int32, device=flat.device) * (2 * _WIDTH) - (_LOW - 1)
    first = own.repeat(n)[:, None]
    bins = torch.empty_like(rows, dtype=torch.int32)
    # All is done to a few maps before the next ones are read, into the same room: memory is slower than counting.
    step = min(max(1, _CACHED // positions), len(rows))
    positive, negative = torch.empty_like(rows[:step]), torch.empty_like(bins[:step])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        some = rows[part]
        _where_extreme(some, high_at[part], low_at[part])
        torch.sum(torch.clamp_min(some, 0, out=positive[: len(some)]), dim=1, out=positive_sums[part])
        bits = some.view(torch.int32)
        key = torch.bitwise_and(bits, 0x7FFFFFFF, out=bins[part])
        key.bitwise_right_shift_(_SHIFT).clamp_(_LOW - 1, _HIGH - 1).add_(first[part])
        key.add_(torch.bitwise_right_shift(bits, 31, out=negative[: len(some)]), alpha=-_WIDTH)
    counts = torch.bincount(bins.view(-1), minlength=units * 2 * _WIDTH).view(units, 2, _WIDTH)
    at = {"high": high_at, "low": low_at}
    extremes = {name: rows.gather(1, index[:, None]) for name, index in at.items()}
    each = {**extremes, **{f"{name}_at": index for name, index in at.items()}, "sums": positive_sums}
    return {**{name: values.view(n, units) for name, values in each.items()}, "counts": counts}


def _where_extreme(rows: Tensor, high_at: Tensor, low_at: Tensor) -> None:
    """Write where the highest and the lowest value of each row are, the first of equal ones."""
    if rows.device.type == "cpu":  # NumPy looks at several values at once, torch (2.15) at one: seven times as fast
        rows.numpy().argmax(axis=1, out=high_at.numpy())
        rows.numpy().argmin(axis=1, out=low_at.numpy())
    else:
        torch.argmax(rows, dim=1, out=high_at)
        torch.argmin(rows, dim=1, out=low_at)


def _index(positions: Ints, flat: Tensor) -> Tensor:
    """Positions `(n, k)` as an index `(n, units, k)` into `flat`."""
    return torch.from_numpy(positions).to(flat.device)[:, None].expand(-1, flat.shape[1], -1)


def sampled_positions(plan: Plan, images: Ints) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The positions drawn in images, as shares of their height and width: two arrays `(n, draws)` in [0, 1)."""
    draw = np.arange(plan.draws)[None]
    return tuple(shares(plan.seed, images[:, None], draw, _DRAW, axis) for axis in (0, 1))  # type: ignore[return-value]


def sample_tickets(plan: Plan, images: Ints) -> Ints:
    """Tickets of the positions drawn in images, `(n * draws,)`: random above, image and draw in the lower 32 bits.

    The same for every layer and every model, so that what is sampled of two of them belongs together.
    """
    draw = np.arange(plan.draws)[None]
    tickets = random_tickets(plan.seed, images[:, None], draw, _DRAW, 2) >> 32
    return ((tickets << 32) | (images[:, None] * plan.draws + draw)).ravel()


def images_and_draws(plan: Plan, tickets: Ints) -> tuple[Ints, Ints]:
    """The images and the draws that sample tickets belong to."""
    number = tickets & 0xFFFFFFFF
    return number // plan.draws, number % plan.draws
