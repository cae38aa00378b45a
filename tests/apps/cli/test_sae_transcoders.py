"""Transcoders on the command line: trained, found again, evaluated beside their floors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.apps.terminal import Cli, is_refused


def test_the_command_line_trains_and_evaluates_a_transcoder(cli: Cli, tmp_path: Path) -> None:
    options = ("--images", "scenes:24", "--latents", "32", "--k", "4", "--steps", "6", "--batch-size", "256", "--json")
    pair = ("sae", "train", "scenes/mixed3b..mixed4a", "--kind", "skip-transcoder", "--patch", "3")
    ran = cli(*pair, *options, "--out", str(tmp_path / "block"))
    assert ran.code == 0, ran.err
    trained = ran.json
    assert trained["site"] == "scenes/mixed3b..mixed4a" and trained["runs"][0]["config"]["kind"] == "skip-transcoder"
    again = cli(*pair, *options, "--out", str(tmp_path / "block")).json
    measured = [run["runs"][0]["reconstruction"]["held out"]["fvu"] for run in (trained, again)]
    assert not again["made"] and measured[1] == pytest.approx(measured[0], rel=1e-5)  # its mean is folded in a file
    cli("sae", "train", "scenes/mixed4a", *options, "--out", str(tmp_path / "output"))
    beside = ("--output-sae", str(tmp_path / "output"))
    found = cli("sae", "eval", str(tmp_path / "block"), *beside, "--limit", "8", "--json").json
    held_out = found["evaluations"]["held-out"]
    assert set(held_out["predictions"]) == {"clean", "transcoder", "mean", "zero", "linear", "sae"}
    assert set(held_out["reconstruction"]["baselines"]) == {"linear", "sae"}
    about = json.loads((tmp_path / "block" / "cfg.json").read_text())["metadata"]
    assert about["window"]["size"] == [3, 3] and (about["source"], about["target"]) == ("mixed3b", "mixed4a")
    for address, kind, message in (
        ("scenes/mixed3b..mixed4a", "sae", "say --kind transcoder"),
        ("scenes/mixed3b", "transcoder", "takes two layers"),
        ("scenes/mixed3b..", "transcoder", "is no pair of layers"),
        ("scenes/mixed4a..mixed3b", "transcoder", "no path leads"),
    ):
        refused = cli("sae", "train", address, "--kind", kind, "--out", str(tmp_path / "x"))
        assert is_refused(refused) and message in refused.err, refused.err
