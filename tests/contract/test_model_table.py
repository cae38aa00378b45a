"""On networks of torchvision and timm every verb gives the right value or a refusal; there is no third outcome."""

from __future__ import annotations

import pytest

from tools.model_table import NAMES, PAGE, RIGHT, VERBS, check, page, rows_of
from zoo.errors import ModelError

#: a network each of how they are built: plain, residual, gated with squeezing and excitation, normalized, with branches
QUICK = ("torchvision/squeezenet1_1",)


def _checked(name: str) -> dict[str, str]:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    try:
        return check(name).outcomes
    except ModelError as error:
        pytest.skip(str(error))


def test_the_page_is_made_of_its_own_rows() -> None:
    text = PAGE.read_text()
    rows = rows_of(text)
    assert list(rows) == [name for name in NAMES if name in rows]
    assert page(list(rows.values())) == text


@pytest.mark.parametrize("name", QUICK)
def test_every_verb_is_right_on_a_plain_network(name: str) -> None:
    assert _checked(name) == dict.fromkeys(VERBS, RIGHT)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_every_verb_gives_the_right_value_or_says_why_not(name: str) -> None:
    outcomes = _checked(name)
    assert set(outcomes) == set(VERBS)
    assert outcomes["capture"] == outcomes["SAE"] == RIGHT
    for verb, outcome in outcomes.items():
        assert outcome == RIGHT or (len(outcome) > 20 and "\n" not in outcome), f"{verb}: {outcome}"
