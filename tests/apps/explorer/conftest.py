"""Fixtures of the explorer's tests: a small store, and pages run without a browser."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import circuits
from apps.explorer.pages import PAGES
from apps.explorer.resources import thumbnails
from apps.explorer.server.settings import VARIABLE
from apps.explorer.session import labels
from circuits.dataset.scan_store import folder_of

APP = Path(circuits.__file__).parent.parent / "apps" / "explorer" / "app.py"
IMAGES = "scenes:60"
Open = Callable[..., Any]
# without the extra `app` there is nothing here to test
collect_ignore_glob = [] if importlib.util.find_spec("streamlit") is not None else ["test_*.py", "pages/test_*.py"]

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the built-in model: a scan of sixty scenes, thumbnails, one label."""
    store = tmp_path_factory.mktemp("explorer") / "store"
    model = circuits.load("scenes")
    scan = circuits.scan(model, IMAGES, store, layers=["conv2d2", "mixed3a", "mixed3b", "mixed4a", "mixed4b"])
    thumbnails.make(scan, scan.images(check=False), list(scan.layers))
    labels.Labels(store).save(labels.Label("scenes/mixed3b:39", "ann", "wheel", "parts", evidence="its kernel"))
    return store


@pytest.fixture(scope="session", autouse=True)
def _no_default_store(made_store: Path) -> Iterator[None]:
    """A page whose script outlives its test reads the settings again: without any it would make ./store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, json.dumps({"store": str(made_store)}))
        yield


@pytest.fixture
def store(made_store: Path, tmp_path: Path) -> Path:
    """A copy of the store, to be written to."""
    shutil.copytree(made_store, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Sets the settings of the explorer."""

    def put(store: Path, **more: Any) -> None:
        monkeypatch.setenv(VARIABLE, json.dumps({"store": str(store), **more}))

    yield put


@pytest.fixture
def opened(made_store: Path, settings: Callable[..., None]) -> Open:
    """Opens a page by its address, and waits for its background work."""
    settings(made_store)

    def run(page: str, *, settle: bool = True, **params: object) -> AppTest:
        from streamlit.testing.v1 import AppTest

        at = AppTest.from_file(str(APP), default_timeout=60)
        at.switch_page(str(PAGES[page].file))
        for name, value in params.items():
            at.query_params[name] = str(value)
        at.run()
        return settled(at) if settle else at

    return run


def settled(at: AppTest, seconds: float = 60) -> AppTest:
    """The page once no background work is running."""
    end = time.monotonic() + seconds
    while (at.get("progress") or any("Making thumbnails" in c.value for c in at.caption)) and time.monotonic() < end:
        time.sleep(0.2)
        at.run()
    return at


def texts(at: AppTest) -> str:
    """All texts of a page, and the data of its elements."""
    plain = [e.value for kind in (at.markdown, at.caption, at.subheader, at.error, at.info, at.code) for e in kind]
    data = [e.proto.json for e in at.get("bidi_component") if hasattr(e.proto, "json")]
    return "\n".join([*map(str, plain), *map(str, data)])


def scan_files(store: Path) -> dict[str, bytes]:
    """Every file of the scan, by name."""
    folder = folder_of(store, "scenes")
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
