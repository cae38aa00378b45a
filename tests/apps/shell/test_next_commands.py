"""Every command that is printed runs as it stands: in hints, in errors and on pages."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps.small_runs import OWN, PHOTOS, RUNS, SAES, STORE, SmallRuns, at, run
from tests.apps.terminal import Ran
from zoo.networks import own

PLACEHOLDER = re.compile(r"\b(FOLDER|FILE|DIR|NAME)\b|\.\.\.")
NEXT = {"scan", "find", "label", "polysemantic", "sae train", "sae search"}
"""Commands that end with what to do next."""


def printed(ran: Ran, out: Path | None = None) -> Iterator[str]:
    """The commands in what a run printed and on its pages."""
    yield from re.findall(r"^next: (circuits .*)$", ran.out, re.MULTILINE)
    yield from re.findall(r"`(circuits [^`]*)`", ran.err)
    yield from re.findall(r"(?:List|Make some|images): (circuits .*)$", ran.err, re.MULTILINE)
    for page in () if out is None else out.rglob("*.html"):
        blocks = re.findall(r"<pre[^>]*>(.*?)</pre>", page.read_text("utf-8"), re.DOTALL)
        texts = [html.unescape(re.sub(r"<[^>]*>", "", block)) for block in blocks]
        yield from (text for text in texts if text.startswith("circuits "))


def as_it_stands(command: str, folder: Path) -> Ran:
    with at(folder):
        return run(shlex.split(command)[1:])


@pytest.mark.parametrize("name", RUNS)
def test_what_a_command_prints_runs(runs: SmallRuns, folder: Path, name: str) -> None:
    small = runs[name]
    commands = list(dict.fromkeys(printed(small.ran, small.out)))
    assert (name in NEXT) <= any(" --out " not in command for command in commands), small.ran.out
    for command in commands:
        assert not PLACEHOLDER.search(command), command
        fewer = " --random 1 --factors 1 --limit 4" if command.startswith("circuits steer tales") else ""  # 10 s else
        ran = as_it_stands(command + fewer, folder)
        assert ran.code == 0, (command, ran.err)


@pytest.mark.parametrize("name", ["trace", "explain", "visualize", "atlas", "sae features"])
def test_pages_print_the_command_that_makes_them(runs: SmallRuns, name: str) -> None:
    (command,) = set(printed(Ran(0, "", ""), runs[name].out))
    assert shlex.split(command) == ["circuits", *runs[name].arguments, "--out", runs[name].out.name]


ERRORS = {
    "List: circuits layers": f"trace netz/nowhere:1 {OWN} {PHOTOS}",
    "Make some: circuits label": f"find netz {OWN} --part wheel --store 'leerer Laden'",
    "`circuits trace --help`": "trace --nonsense",
    "`circuits --help`": "frobnicate",
    "`circuits figures list`": "figures make",
    "reads images: circuits find": f"sae search '{SAES}/teile 1' {OWN} --says x",
}


@pytest.mark.parametrize("says", ERRORS)
def test_what_an_error_prints_runs(runs: SmallRuns, folder: Path, says: str) -> None:
    assert runs["scan"].ran.code == 0  # so that what is made first is there
    with at(folder):
        ran = run(shlex.split(ERRORS[says]))
    assert ran.code == 2 and says in ran.err, ran.err
    (command,) = printed(ran)
    # where the user's own folders belong, some are put
    for word, value in (("FOLDER", "Fotos ü"), ("DIR", "Fotos ü"), ("FILE", "no such file")):
        command = re.sub(rf"\b{word}\b", shlex.quote(value), command)
    ran = as_it_stands(command, folder)
    assert ran.code == 0 or "no such file" in ran.err, (command, ran.err)


def test_a_model_that_was_not_given_is_named_with_its_options(runs: SmallRuns, folder: Path) -> None:
    """The store knows how it was opened, so that the command with these options runs."""
    assert runs["scan"].ran.code == 0
    with at(folder):
        ran = run(["explain", "netz/relu_2:4", *shlex.split(STORE)])
    assert ran.code == 2
    options = ran.err.partition(": give ")[2].strip()
    with at(folder):
        ran = run(["explain", "netz/relu_2:4", *shlex.split(STORE), *shlex.split(options)])
    assert ran.code == 0, (options, ran.err)


def test_a_command_line_is_quoted_and_opens_the_users_own_model(folder: Path) -> None:
    with at(folder):
        own.add(own.parse("netz=mein Netz.py:make", input='{"size": [24, 24]}', output="out"))
        words = shlex.split(own.command_line("scan", "netz", "--images", "a b", model="netz"))
    assert words[:5] == ["circuits", "scan", "netz", "--images", "a b"]
    options = ["--model", f"netz={folder / 'mein Netz.py'}:make", "--input", '{"size": [24, 24]}', "--output", "out"]
    assert words[5:] == options
