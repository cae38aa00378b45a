"""Progress where nobody looks at a terminal: plain lines, and few."""

from __future__ import annotations

import re

import pytest

from apps.cli.output import console
from apps.cli.registry import COMMANDS
from tests.apps.terminal import Cli


def test_a_log_gets_a_plain_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 100, 2))  # every call is two seconds later
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    with console.progress_bar("scanning mine") as report:
        assert report is not None
        for done in range(1, 21):
            report(done, 20)
    printed = capsys.readouterr().err
    assert printed.splitlines() == [f"circuits: scanning mine {n}/20, {2 * n} s" for n in (5, 10, 15, 20)]
    assert "\r" not in printed and "\x1b" not in printed


def test_short_work_prints_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.time, "monotonic", lambda: 7.0)
    with console.progress_bar("scanning mine") as report:
        assert report is not None
        report(1, 0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_options_that_switch_something_off_say_so(cli: Cli, name: str) -> None:
    page = " ".join(cli(*name.split(), "--help").out.replace("│", " ").split())
    for option, text in re.findall(r"(--no-[a-z-]+) (\w+ \w+)", page):
        assert text == "Do not" or f"{option} skips" in page, (option, text)
