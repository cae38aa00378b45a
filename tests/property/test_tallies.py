"""Whatever responses come, in whatever batches: they are counted where they belong, and kept the same."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays

from circuits.dataset.reservoir import KeepByStrength
from circuits.dataset.streaming_statistics import Plan, Tally, edges

PLAN = Plan(top=4, few=3, per_band=2, samples=7, draws=2)
SIZES = st.floats(-1e8, 1e8, width=32, allow_subnormal=True)
RESPONSES = arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(2), st.just(3), st.just(2)), elements=SIZES)


def tally(values: np.ndarray, cuts: list[int]) -> Tally:
    """The responses in the batches that the cuts make, settled after each."""
    made = Tally("layer", 2, (3, 2), PLAN)
    for part in np.split(np.arange(len(values)), sorted(c for c in cuts if c < len(values))):
        if len(part):
            made.take(part, torch.from_numpy(values[part]))
            made.settle()
    return made


@settings(deadline=None, max_examples=60)
@given(RESPONSES, st.lists(st.integers(1, 8), max_size=4))
def test_neither_batches_nor_merging_show_in_a_tally(values: np.ndarray, cuts: list[int]) -> None:
    whole, parted = tally(values, []), tally(values, cuts)
    half = len(values) // 2
    merged = Tally("layer", 2, (3, 2), PLAN)
    for numbers in (np.arange(half, len(values)), np.arange(half)):
        if len(numbers):
            other = Tally("layer", 2, (3, 2), PLAN)
            other.take(numbers, torch.from_numpy(values[numbers]))
            merged.merge(other)
    for name, expected in whole.arrays().items():
        if name != "total":  # its parts may differ; what they add up to may not
            np.testing.assert_array_equal(expected, parted.arrays()[name], err_msg=name)
            np.testing.assert_array_equal(expected, merged.arrays()[name], err_msg=name)
    for other in (parted, merged):
        np.testing.assert_array_equal(whole.total.sum(axis=0), other.total.sum(axis=0))


@settings(deadline=None, max_examples=60)
@given(RESPONSES)
def test_every_response_is_counted_in_its_bin_and_kept_in_its_step(values: np.ndarray) -> None:
    found = tally(values, [])
    ends = edges()
    for unit in range(2):
        mine = values[:, unit].ravel()
        assert found.counts[unit].sum() == mine.size
        for sign, sizes in enumerate((mine[~np.signbit(mine)], -mine[np.signbit(mine)])):
            at = np.searchsorted(ends, sizes.astype(np.float64), side="right") - 1
            expected = np.bincount(np.clip(at, 0, found.counts.shape[2] - 1), minlength=found.counts.shape[2])
            np.testing.assert_array_equal(found.counts[unit, sign], expected)
        kept = found.bands
        steps = np.append(KeepByStrength.edges(), np.inf)
        for step, slot in zip(*np.nonzero(kept.image[unit] >= 0), strict=True):
            value = kept.value[unit, step, slot]
            y, x = divmod(int(kept.position[unit, step, slot]), 2)
            assert value == values[kept.image[unit, step, slot], unit, y, x]
            inside = steps[step] <= value < steps[step + 1]
            assert inside or (step == KeepByStrength.STEPS - 1 and value >= steps[step])


@settings(deadline=None, max_examples=40)
@given(RESPONSES)
def test_the_strongest_and_the_lowest_are_those_of_a_sort(values: np.ndarray) -> None:
    found = tally(values, [])
    for unit in range(2):
        flat = values[:, unit].reshape(len(values), -1)
        order = sorted(range(len(values)), key=lambda i: (-float(flat[i].max()), i))[: PLAN.top]
        assert found.top.image[unit][: len(order)].tolist() == order
        order = sorted(range(len(values)), key=lambda i: (float(flat[i].min()), i))[: PLAN.few]
        assert found.lowest.image[unit][: len(order)].tolist() == order
