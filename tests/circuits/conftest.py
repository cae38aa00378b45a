"""What the tests of the analysis package share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import circuits
from tests import nets
from tests.threads import one_thread  # noqa: F401 - a fixture for all


@pytest.fixture(scope="session")
def planted() -> circuits.Model:
    """The planted net; no verb changes a model, so the tests may share it."""
    return nets.planted()


@pytest.fixture(scope="session")
def inception() -> circuits.Model:
    """A tiny InceptionV1 at 64 pixels."""
    return nets.wrap(nets.tiny_inception(), 64)


@pytest.fixture
def unchanged(request: pytest.FixtureRequest) -> Iterator[list[circuits.Model]]:
    """Put models in the list: after the test their weights, hooks, modes and gradients must be as they were."""
    watched = _Watched()
    yield watched
    for model, before in zip(watched, watched.states, strict=True):
        assert nets.state(model) == before, f"{model.name} was left changed"


class _Watched(list[circuits.Model]):
    def __init__(self) -> None:
        super().__init__()
        self.states: list[tuple[object, ...]] = []

    def append(self, model: circuits.Model) -> None:
        self.states.append(nets.state(model))
        super().append(model)
