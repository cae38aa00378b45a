"""Addresses: what is written is read again, and nothing else is."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, strategies as st

from circuits import Unit
from circuits.errors import AddressError
from circuits.network.address import of_class

WORD = string.ascii_letters + string.digits + "_"
names = st.builds(str.__add__, st.sampled_from(WORD), st.text(WORD + ".-", max_size=30))
models = st.one_of(
    names, st.builds("{}/{}".format, names, names), names.map("hf:{}".format), names.map("hf:./{}".format)
)
indices = st.none() | st.integers(0, 10**9 - 1)
places = st.none() | st.tuples(st.integers(0, 10**6 - 1), st.integers(0, 10**6 - 1))


@st.composite
def units(draw: st.DrawFn) -> Unit:
    index = draw(indices)
    return Unit(
        layer=draw(names),
        index=index,
        model=draw(st.none() | models),
        basis=draw(st.none() | names),
        at=draw(places) if index is not None else None,
    )


@given(units())
def test_every_address_reads_back_as_what_it_was_written_from(unit: Unit) -> None:
    assert Unit.parse(str(unit)) == unit
    assert Unit.parse(unit.short).model is None
    assert unit.channel.at is None and unit.channel.index == unit.index


@given(units())
def test_an_address_is_short_printable_and_has_no_space(unit: Unit) -> None:
    text = str(unit)
    assert text.isascii() and text.isprintable() and " " not in text and len(text) <= 300


@given(st.text(max_size=400))
def test_any_text_is_an_address_or_a_short_error(text: str) -> None:
    try:
        unit = Unit.parse(text)
    except AddressError as error:
        assert len(str(error)) < 250 and str(error).isprintable()
    else:
        assert Unit.parse(str(unit)) == unit


@given(st.text(alphabet=WORD + "/:@~,.-", max_size=60))
def test_near_addresses_are_read_exactly_or_refused(text: str) -> None:
    try:
        unit = Unit.parse(text)
    except AddressError as error:
        assert len(str(error)) < 250
    else:
        # leading zeros are the only freedom
        assert str(unit).replace("0", "") == text.replace("0", "")


@pytest.mark.parametrize(
    "bad",
    [
        "",
        " ",
        "mixed4c:",
        ":3",
        "mixed4c:-1",
        "mixed4c:1.5",
        "mixed4c:1e3",
        "mixed4c:٣",
        "mixed4c@1,2",
        "mixed4c:1@2,",
        "mixed4c:1@2,3,4,5",
        "mixed4c:1@-1,0",
        "mixed4c:1@1,2,3,",
        "mixed4c:1:2",
        "mixed4c~:1",
        "~topk:1",
        "/mixed4c",
        "a//b",
        "../mixed4c:1",
        "a/../b:1",
        "../../etc/passwd",
        "mixed4c\0:1",
        "mixed4c:1\n",
        " mixed4c",
        "mixed  4c",
        "mixed4c :1",
        "mixed4c\u00a0x:1",
        "mixed\u20294c:1",
        "mixed\u200b4c:1",
        "mixed4c:1234567890",
        "x" * 301,
        "x" * 40_000,
        "\0" * 40_000,
        "😀" * 40_000,
        "../" * 20_000,
        "a:1@" + "9" * 40_000,
        "<script>alert(1)</script>",
        "mixed4c;rm -rf",
        "$HOME/x:1",
        "\u202emixed4c",
        "con:1@0,0/..",
    ],
)
def test_hostile_strings_give_a_short_error(bad: str) -> None:
    with pytest.raises(AddressError) as caught:
        Unit.parse(bad)
    message = str(caught.value)
    assert len(message) < 250 and message.isprintable()


@pytest.mark.parametrize("bad", [None, 3, 1.5, b"mixed4c:1", ["mixed4c:1"], object()])
def test_what_is_no_string_is_refused(bad: object) -> None:
    with pytest.raises(AddressError, match="an address is a string"):
        Unit.parse(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parts",
    [
        {"layer": ""},
        {"layer": 3},
        {"layer": None},
        {"layer": "a  b"},
        {"layer": "x" * 400},
        {"layer": "a/b"},
        {"layer": "a", "index": -1},
        {"layer": "a", "index": "1"},
        {"layer": "a", "index": 1.0},
        {"layer": "a", "index": True},
        {"layer": "a", "index": 10**9},
        {"layer": "a", "at": (1, 2)},
        {"layer": "a", "index": 1, "at": (1, 2, 3, 4)},
        {"layer": "a", "index": 1, "at": (-1, 0)},
        {"layer": "a", "index": 1, "at": [1, 2]},
        {"layer": "a", "model": ""},
        {"layer": "a", "model": "a/../b"},
        {"layer": "a", "model": "a b "},
        {"layer": "a", "basis": ""},
        {"layer": "a", "basis": "b:c"},
        {"layer": "a", "model": 7},
    ],
)
def test_a_unit_that_could_not_be_read_back_cannot_be_made(parts: dict[str, object]) -> None:
    with pytest.raises(AddressError) as caught:
        Unit(**parts)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 250


def test_the_parts_of_an_address() -> None:
    unit = Unit.parse("torchvision/resnet18/layer1.0.relu.call1~topk-8k:1021@3,5")
    assert unit == Unit("layer1.0.relu.call1", 1021, "torchvision/resnet18", "topk-8k", (3, 5))
    assert unit.short == "layer1.0.relu.call1~topk-8k:1021@3,5"
    assert str(unit.channel) == "torchvision/resnet18/layer1.0.relu.call1~topk-8k:1021"


NAMES = ["dog_left", "tench, Tinca tinca", "crane", "crane", "Füchse", "12"]


def test_a_class_is_addressed_by_its_name() -> None:
    assert of_class("logits:dog_left", NAMES, "m") == "logits:0"
    assert of_class("m/logits:tench, Tinca tinca", NAMES, "m") == "m/logits:1"
    assert of_class("a/b/logits:Füchse", NAMES, "a/b") == "a/b/logits:4"
    for text in ("logits:12", "logits:3@4,5", "logits", "mixed4a:11", "logits:"):
        assert of_class(text, NAMES, "m") == text  # a number is a number
    for text in ("mixed4a:dog_left", "m/my.logits:crane"):  # only class scores have names
        with pytest.raises(AddressError, match="units of the layer of class scores alone: write logits:"):
            of_class(text, NAMES, "m")
    assert of_class("m/head.fc:crane_2", [*NAMES, "crane_2"], "m", "head.fc") == "m/head.fc:6"  # the layer's own name
    assert of_class("m/fc:tench", NAMES, "m", "head.fc") == "m/fc:tench"
    with pytest.raises(AddressError, match=r"2 classes called 'crane': name one by number, logits:2 and logits:3"):
        of_class("logits:crane", NAMES, "m")
    with pytest.raises(AddressError, match=r"no class 'dog_lft'.*dog_left"):
        of_class("logits:dog_lft", NAMES, "m")
    with pytest.raises(AddressError, match="no names"):
        of_class("logits:dog", [], "m")
