"""Edits as parts of an address, and the random units as their control."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings as hypothesis_settings, strategies as st

from apps.explorer.resources.control_units import RANDOM, random_units
from apps.explorer.server.security import UploadError
from apps.explorer.session.edit_links import LARGEST, MOST, as_python, boxes, format_edits, parse_edits, positions_in
from circuits.errors import CircuitsError
from sae.steering import LatentEdit, Maxima, When

SIZE, COUNT = (8, 6), 50
_positions = st.sets(st.tuples(st.integers(0, SIZE[0] - 1), st.integers(0, SIZE[1] - 1)), min_size=1)
_values = st.integers(-4_000, 4_000).map(lambda n: n / 8)
_whens = st.builds(
    When, st.integers(0, COUNT - 1), above=_values, unit=st.sampled_from(["max", "absolute"]), anywhere=st.booleans()
)
_edits = st.one_of(
    st.builds(
        LatentEdit,
        st.integers(0, COUNT - 1),
        st.sampled_from(["set", "add"]),
        _values,
        unit=st.sampled_from(["max", "absolute"]),
        at=st.one_of(st.just("all"), _positions.map(lambda result: tuple(sorted(result)))),
        when=st.lists(_whens, max_size=2).map(tuple),
    ),
    st.builds(LatentEdit, st.integers(0, COUNT - 1), st.just("scale"), _values),
    st.builds(LatentEdit, st.integers(0, COUNT - 1), st.just("ablate")),
)


@given(st.lists(_edits, max_size=MOST))
@hypothesis_settings(max_examples=150, deadline=None)
def test_edits_come_back_from_an_address_as_they_went_in(edits: list[LatentEdit]) -> None:
    assert parse_edits(format_edits(edits), COUNT, SIZE) == tuple(edits)


@given(_positions)
@hypothesis_settings(max_examples=100, deadline=None)
def test_boxes_hold_exactly_the_positions_once(positions: set[tuple[int, int]]) -> None:
    result = [position for box in boxes(positions) for position in positions_in(box)]
    assert sorted(result) == sorted(positions)


def test_a_full_map_is_one_box() -> None:
    assert boxes([(y, x) for y in range(8) for x in range(6)]) == [(0, 0, 7, 5)]


def test_edits_of_texts_have_tokens_for_positions() -> None:
    edits = parse_edits("3:add:0.5x@last/4:set:2@0,5", COUNT, None)
    assert [edit.at for edit in edits] == ["last", (0, 5)]
    assert parse_edits(format_edits(edits), COUNT, None) == edits


@pytest.mark.parametrize(
    "text",
    [
        "x", "11", "11:jump:2", "11:set", "11:ablate:2", "11:set:nan", "11:set:1e99", "50:ablate", "-1:ablate",
        "11:set:2x@8,0,8,0", "11:set:2x@1,0,0,0", "11:set:2x@1", "11:set:2x@last", "11:set:2x@a,b,c,d",
        "11:set:2x~", "11:set:2x~99:above:1", "11:set:2x~3:over:1", "11:set:2x~3:above:1:nowhere", "../../etc/passwd",
        "<script>", "1" * 40_000 + ":ablate", "/".join(["1:ablate"] * (MOST + 1)), f"1:set:{2 * LARGEST:g}",
        "11:scale:2x", "٣:ablate", "11:set:2x@0,0,0,0@9,9,9,9", "11:set:2x@0,0,0,99999",
    ],
)  # fmt: skip
def test_what_is_no_edit_is_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(CircuitsError) as error:
        parse_edits(text, COUNT, SIZE)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@given(st.text(alphabet="0123456789:/@~,.-xesetablowny<>%\x00é", max_size=80))
@hypothesis_settings(max_examples=200, deadline=None)
def test_no_text_breaks_the_reading_of_edits(text: str) -> None:
    for size in (SIZE, None):
        try:
            result = parse_edits(text, COUNT, size)
        except CircuitsError:
            continue
        assert parse_edits(format_edits(result), COUNT, size) == result


def test_the_python_of_edits_makes_those_edits() -> None:
    edits = parse_edits("11:set:2x@4,0,6,5@0,0,0,0~39:above:0.5x:anywhere~3:below:1/7:ablate/3:scale:-1.5", COUNT, SIZE)
    assert tuple(eval(as_python(edits), {"LatentEdit": LatentEdit, "When": When})) == edits


def _maxima(values: list[float]) -> Maxima:
    return Maxima(torch.tensor(values), "m/l", "d", {})


def test_random_units_are_others_that_fire_and_none_comes_twice() -> None:
    known = _maxima([1.0 if i % 3 else 0.0 for i in range(60)])
    edits = parse_edits("1:ablate/2:set:1x~4:above:1/2:add:1", 60, SIZE)
    controls = random_units(edits, known)
    assert len(controls) == RANDOM and all(set(row) == {1, 2} for row in controls), "one for each edited unit"
    units = [unit for row in controls for unit in row.values()]
    assert len(set(units)) == len(units)
    assert not set(units) & {1, 2, 4} and all(unit % 3 for unit in units)
    assert random_units(edits, known) == controls, "the same every time"


def test_with_few_units_random_ones_come_again_and_with_none_it_is_said() -> None:
    controls = random_units([LatentEdit(0, "ablate")], _maxima([1.0, 1.0, 1.0]))
    assert {unit for row in controls for unit in row.values()} <= {1, 2} and len(controls) == RANDOM
    with pytest.raises(CircuitsError, match="too few other units"):
        random_units([LatentEdit(0, "ablate")], _maxima([1.0, 0.0]))
    assert not np.isnan(controls[0][0])


def test_too_many_edits_are_refused() -> None:
    with pytest.raises(UploadError, match="at most"):
        parse_edits("/".join(f"{i}:ablate" for i in range(MOST + 1)), COUNT, SIZE)
