"""What several folders of tests share."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# a machine that other work holds up for a second is no fault of a strategy
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


def _folder(variable: str) -> Path:
    named = os.environ.get(variable)
    if not named:
        pytest.skip(f"${variable} is not set: it names a folder with published files")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"${variable} names {folder}, which is not there")
    return folder


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """The folder of published weights, `$CIRCUITS_WEIGHTS`."""
    return _folder("CIRCUITS_WEIGHTS")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of photographs, `$CIRCUITS_DATA`."""
    return _folder("CIRCUITS_DATA")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or fills the cache of the person who runs it."""
    os.environ["CIRCUITS_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session", autouse=True)
def _only_this_machine() -> Iterator[None]:
    """No test reaches beyond this machine, so that a verb that asked the network would be found out."""
    connect = socket.socket.connect

    def checked(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    socket.socket.connect = checked  # type: ignore[method-assign]
    yield
    socket.socket.connect = connect  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _no_store_in_the_checkout() -> Iterator[None]:
    """Commands write into ./store where no other is named: a test that forgets to would scan into the checkout."""
    folder = Path("store").absolute()
    before = _files(folder)
    yield
    assert _files(folder) == before, f"{folder} was written to: name a store below tmp_path"


def _files(folder: Path) -> dict[str, int]:
    """Path -> time of the last change."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
