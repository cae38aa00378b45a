"""The share of a score that goes with the background, on grids whose parts are known."""

from __future__ import annotations

import numpy as np
import pytest

from tools.car_backgrounds import background_share


def test_the_share_of_a_sum_of_two_parts_is_that_of_their_variances() -> None:
    car, background = np.arange(6.0)[:, None] * 2, np.array([0.0, 1.0, 5.0, -2.0])[None]
    share = background.var() / (car.var() + background.var())
    assert background_share(car + background) == pytest.approx(share)
    assert background_share(car + 0 * background) == pytest.approx(0) and background_share(0 * car + background) == 1
