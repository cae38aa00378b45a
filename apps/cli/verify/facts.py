"""The published facts that come with the package (`zoo/facts`), read once."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any


@cache
def facts() -> dict[str, Any]:
    """`inceptionv1_units.json`: facts about the 5h InceptionV1 from the Circuits thread (Distill, CC BY 4.0)."""
    text = resources.files("zoo").joinpath("facts", "inceptionv1_units.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def unit_facts(identity: str) -> Any:
    """What is expected of the known answer called `identity`."""
    return next(answer["expected"] for answer in facts()["known_answers"] if answer["id"] == identity)


def family(layer: str, *names: str) -> set[int]:
    """Units of a layer that the articles put into one of the families named."""
    return {u for f in facts()["families"] if f["layer"] == layer and f["family"] in names for u in f["units"]}
