"""Shells complete commands, options, models and layers, without loading a network."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import circuits
from apps.cli.output.completion.known import SHIPPED
from apps.cli.output.completion.scripts import SCRIPTS
from apps.cli.output.completion.words import complete
from apps.cli.registry import COMMANDS
from tests.apps.small_runs import OWN, at, run
from tests.apps.terminal import ROOT, Cli
from tools.completion_models import layers_of_models


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("circuits tra", ["trace"]),
        ("circuits sae ", ["train", "eval", "features", "search", "steer"]),
        ("circuits help sae tr", []),
        ("circuits trace scenes/mixed4a:11 --wid", ["--width"]),
        ("circuits trace scenes/mixed4a:11 --no-s", ["--no-score"]),
        ("circuits trace scenes/mixed4a:11 --mod", ["--model"]),
        ("circuits rank scenes/mixed4a:11 --method w", ["weights"]),
        ("circuits trace scenes/mixed4a:11 --device c", ["cpu", "cuda"]),
        ("circuits layers sq", ["squeezenet-1.1"]),
        ("circuits trace squ", ["squeezenet-1.1/"]),
        ("circuits trace scenes/mixed4", ["scenes/mixed4a", "scenes/mixed4b"]),
        ("circuits rank scenes/mixed4a:11 --layers mixed3b", ["mixed3b"]),
        ("circuits find scenes --concept car --layers conv2d1", ["conv2d1"]),
        ("circuits toy fi", ["figure"]),
        ("circuits trace scenes/mixed4a:11 --images 'my pho", []),
        ("circuits trace scenes/mixed4a:11 --out ", []),
        ("circuits frobnicate ", []),
    ],
)
def test_what_may_follow(line: str, words: list[str]) -> None:
    found = complete(line)
    if words and line.endswith(("mixed4", "mixed3b", "conv2d1")):
        assert set(words) <= set(found) and all(word.startswith(line.split()[-1]) for word in found)
    elif line == "circuits sae ":
        assert found == [name.split()[1] for name in COMMANDS if name.startswith("sae ")]
    else:
        assert found == words


def test_models_and_layers_that_the_package_knows_are_those_of_the_networks() -> None:
    shipped = json.loads(SHIPPED.read_text("utf-8"))
    assert shipped == layers_of_models(), "python -m tools.completion_models writes them again"


def test_a_model_of_ones_own_is_completed_once_it_was_loaded(folder: Path) -> None:
    with at(folder):
        assert run(["layers", "netz", *shlex.split(OWN)]).code == 0
    assert complete("circuits trace netz/re") == ["netz/relu", "netz/relu_1", "netz/relu_2"]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from apps.cli.main import main; main(['--complete', 'circuits trace scenes/']);"
        "print([name for name in ('torch', 'numpy', 'matplotlib') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "scenes/mixed4a\n" in out and out.rstrip().endswith("[]")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A shell's environment that has `circuits`."""
    program = tmp_path / "circuits"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m apps.cli "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def _in(shell: str, code: str, environment: dict[str, str], *options: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    ran = subprocess.run([shell, *options, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_bash_completes(environment: dict[str, str]) -> None:
    code = (
        "source <(circuits completion bash)\n"
        'ask() { COMP_LINE=$1; COMP_POINT=${#1}; COMPREPLY=(); _circuits; printf "%s\\n" "${COMPREPLY[@]}"; }\n'
        'ask "circuits sae tr"; ask "circuits trace --model a:b scenes/conv2d0_"; ask "circuits layers scenes-v"\n'
        "complete -p circuits"
    )
    words = _in("bash", code, environment)
    assert words[0] == "train" and "scenes/conv2d0_pre" in words and "scenes-vit" in words
    assert words[-4:] == ["default", "-F", "_circuits", "circuits"]


def test_fish_completes(environment: dict[str, str]) -> None:
    code = "circuits completion fish | source; complete -C 'circuits sae tr'; complete -C 'circuits layers scenes-v'"
    assert _in("fish", code, environment) == ["train", "scenes-vit"]


def test_zsh_completes(environment: dict[str, str]) -> None:
    code = (
        "autoload -Uz compinit; compinit -D; source <(circuits completion zsh)\n"
        'compadd() { while [[ $1 != -- ]]; do shift; done; shift; (( $# )) && print -l -- "$@" }\n'
        'LBUFFER="circuits sae tr"; _circuits; LBUFFER="circuits trace squ"; _circuits; print $_comps[circuits]'
    )
    assert _in("zsh", code, environment, "-f") == ["train", "squeezenet-1.1/", "_circuits"]


def test_the_scripts_are_printed_whole(cli: Cli) -> None:
    for shell, script in SCRIPTS.items():
        assert cli("completion", shell).out == script
        assert cli("completion", shell, "--json").json["script"] == script
    assert circuits.load("scenes").layers  # the names above are real
