"""`circuits polysemantic`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.apps.terminal import Cli, is_refused, written

FAST = ("--images", "scenes:260", "--draws", "10", "--n", "24")


def test_a_layer_is_ranked_and_a_unit_taken_apart(cli: Cli, tmp_path: Path) -> None:
    ran = cli("polysemantic", "scenes/mixed4a", *FAST, "--top", "5", "--figures", "1", "--out", tmp_path / "layer")
    assert ran.code == 0, ran.err
    assert "units are split" in ran.out and "next: circuits polysemantic scenes/mixed4a:" in ran.out
    files = written(tmp_path / "layer")
    assert {"ranking.png", "polysemantic.json"} < files and len(files) == 3


def test_one_unit_comes_with_its_causal_check(cli: Cli, tmp_path: Path) -> None:
    ran = cli("polysemantic", "scenes/mixed4a:22", *FAST, "--out", tmp_path / "unit")
    assert ran.code == 0, ran.err
    assert "score" in ran.out and "lost on A" in ran.out and "at random" in ran.out
    assert written(tmp_path / "unit") == {"mixed4a-22.png", "ablation.png", "polysemantic.json"}
    document = cli("polysemantic", "scenes/mixed4a:22", *FAST, "--json").json
    assert document["split"] == 1 and len(document["rows"]) == 1
    lost = document["ablation"]["lost"]
    assert lost[0][0] > lost[0][1] and lost[1][1] > lost[1][0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mixed4a"], "does not name its model"),
        (["scenes/nowhere"], "no layer"),
        (["scenes/mixed4a:999"], "channels"),
        (["scenes/conv2d0", "--images", "scenes:5"], "pixels"),
        (["scenes/mixed4a", "--images", "nowhere"], "nowhere"),
        (["scenes/mixed4a", "--top", "0"], "--top"),
        (["scenes/mixed4a", "--n", "3"], "--n"),
        (["scenes/mixed4a:22", "--images", "scenes:5"], "fewer than"),
    ],
)
def test_what_cannot_be_taken_apart_gets_one_line_and_no_folder(
    cli: Cli, tmp_path: Path, arguments: list[str], says: str
) -> None:
    ran = cli("polysemantic", *arguments, "--out", tmp_path / "new")
    assert is_refused(ran) and says in ran.err, ran
    assert not (tmp_path / "new").exists()
