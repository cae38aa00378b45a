"""Tours of a scanned network: their numbers are those of the scan, and each step is a view that opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from apps.explorer.scan_tours import tours_of
from apps.explorer.session.state import locate
from tests.apps.explorer.conftest import Open, texts


def test_the_numbers_of_a_tour_are_those_of_the_scan(settings: Callable[..., None], made_store: Path) -> None:
    settings(made_store)
    at = locate(None)
    scan, tours = at.scanned, tours_of(at)
    assert {"selective", "circuit"} <= set(tours)
    tour = tours["selective"]
    unit = scan.unit(f"scenes/{tour.icon}")
    name, count = max(unit.classes.items(), key=lambda item: item[1])
    share = f"{100 * count / len(unit.top):.0f} %"
    assert tour.steps[0].text.startswith(
        f"{share} of its {len(unit.top)} top activating images are of the class {name}."
    )
    assert "sampled at random" in tour.steps[0].text and "median" in tour.steps[0].text
    best = max(
        max(u.classes.values()) / len(u.top)
        for i in range(scan.layers["mixed4a"])
        if (u := scan.unit(f"scenes/mixed4a:{i}")).active_images >= 10 and u.top
    )
    assert count / len(unit.top) == pytest.approx(best)
    if "two-classes" in tours:
        unit = scan.unit(f"scenes/{tours['two-classes'].icon}")
        second = sorted(unit.classes.values())[-2]
        assert f"{100 * second / len(unit.top):.0f} % of " in tours["two-classes"].steps[0].text


def test_a_tour_of_the_scan_leads_through_its_views(
    opened: Open, settings: Callable[..., None], made_store: Path
) -> None:
    settings(made_store)
    tour = tours_of(locate(None))["selective"]
    for number, step in enumerate(tour.steps, 1):
        at = opened(step.page, **step.params, tour=tour.name, step=number)
        assert not at.error and f"{number} of {len(tour.steps)}" in texts(at)
        assert ("tour-next" in {b.key for b in at.button}) == (number < len(tour.steps))
    unknown = opened("unit", unit="scenes/mixed4a:11", tour="nonsense")
    assert not unknown.error and "tour-leave" not in {b.key for b in unknown.button}
