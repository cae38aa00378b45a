"""`circuits explore`: what it starts, with which settings, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import circuits
from apps.cli.commands.explore import Explore
from apps.cli.errors import UsageError
from apps.explorer.pages import FOLDER, PAGES, entries
from apps.explorer.server.security import OPTIONS
from apps.explorer.server.settings import VARIABLE, Settings, settings
from apps.explorer.server.theme import THEME
from zoo.errors import CircuitsError

ROOT = Path(circuits.__file__).parent.parent


def test_the_settings_arrive_in_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("parts", "words"):
        (tmp_path / name).mkdir()
    command = Explore(
        store=tmp_path / "s", model="scenes", images=tmp_path / "photos", allow_write=True,
        sae=(str(tmp_path / "parts"), f"tales={tmp_path / 'words'}"), lm=("mine",), allow_host=("lab.example",),
    )  # fmt: skip
    monkeypatch.setenv(VARIABLE, command.environment()[VARIABLE])
    saes = (("parts", tmp_path / "parts"), ("tales", tmp_path / "words"))
    assert settings() == Settings(
        tmp_path / "s", "scenes", saes, ("mine",), tmp_path / "photos", True, ("lab.example",)
    )


def test_the_server_sets_every_option_of_the_config_file() -> None:
    with (ROOT / ".streamlit" / "config.toml").open("rb") as file:
        options = tomllib.load(file)
    flat: dict[str, object] = {}

    def walk(before: str, value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{before}.{name}" if before else name, inner)
        else:
            flat[before] = value

    walk("", options)
    assert flat == {**OPTIONS, **THEME}
    assert OPTIONS["server.address"] == "127.0.0.1" and OPTIONS["client.showErrorDetails"] == "none"
    assert not OPTIONS["browser.gatherUsageStats"] and not OPTIONS["server.enableAgentApi"]


def test_every_option_is_one_that_streamlit_knows() -> None:
    from streamlit import config

    known = config.get_config_options()
    assert not [name for name in {**OPTIONS, **THEME} if name not in known]


@pytest.mark.parametrize(
    "bad",
    [
        {"port": 0},
        {"port": 70_000},
        {"images": Path("nowhere")},
        {"sae": ("nowhere",)},
        {"sae": ("tests", "x/../tests")},
        {"store": Path(__file__)},
    ],
)
def test_what_cannot_be_opened_is_refused_before_the_server_starts(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Explore(**bad)._check()  # type: ignore[arg-type]


def test_the_command_line_does_not_import_streamlit() -> None:
    code = (
        "import sys, apps.cli, apps.cli.main, apps.cli.commands.explore\n"
        "assert not {'streamlit', 'plotly', 'torch'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_every_page_is_there_and_short() -> None:
    for entry in PAGES.values():
        lines = entry.file.read_text().splitlines()
        assert len(lines) < 150, f"{entry.name} has {len(lines)} lines"
        assert entry.title and entry.about and entry.icon.startswith(":material/"), entry.name
    assert {path.stem for path in FOLDER.glob("*.py")} == set(PAGES)
    assert list(PAGES)[0] == "home" and len({entry.order for entry in PAGES.values()}) == len(PAGES)


def test_a_new_page_is_one_new_file(tmp_path: Path) -> None:
    for name, order in (("b", 20), ("a", 30), ("c", 10)):
        line = f'PAGE = Entry("{name.upper()}", ":material/home:", about="a page", order={order})'
        (tmp_path / f"{name}.py").write_text(f'raise SystemExit("a page is not run to be listed")\n{line}\n')
    pages = entries(tmp_path)
    assert list(pages) == ["c", "b", "a"] and pages["a"].title == "A" and pages["a"].file == tmp_path / "a.py"


@pytest.mark.parametrize("source", ["", "PAGE = 3", "PAGE = Entry()", "PAGE = Entry(TITLE, 'x', 'y', 1)"])
def test_a_page_without_an_entry_of_literals_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(CircuitsError, match="broken.py"):
        entries(tmp_path)


def test_settings_are_plain_json() -> None:
    assert json.loads(Settings().to_environment()[VARIABLE])["allow_write"] is False
