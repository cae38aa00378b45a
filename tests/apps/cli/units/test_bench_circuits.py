"""`circuits bench circuits`: the tables, and what is refused."""

from __future__ import annotations

from tests.apps.terminal import Cli, is_refused


def test_a_table_has_the_means_of_each_method_and_json_every_task(cli: Cli) -> None:
    few = ("--on", "scenes", "--classes", "sign", "--pairs", "4", "--of", "units", "--methods", "random")
    ran = cli("bench", "circuits", *few, "--methods", "gradient", "--json")
    assert ran.code == 0, ran.err
    (table,) = ran.json["tables"]
    assert table["name"] == "scenes, part removed" and set(table["unused"]) == {"sign/pole/removed"}
    assert [score["method"] for score in table["scores"]] == ["random", "gradient"]
    assert [task["task"] for task in table["scores"][1]["tasks"]] == ["sign/plate/removed"]
    assert table["scores"][1]["cmd"]["value"] < table["scores"][0]["cmd"]["value"]
    out = cli("bench", "circuits", *few).out
    assert all(words in out for words in ("CMD", "AUROC, known", "left out, since", "sign/pole/removed"))


def test_what_does_not_go_together_is_refused(cli: Cli) -> None:
    assert is_refused(cli("bench", "circuits", "--on", "planted", "--classes", "car"))
    assert is_refused(cli("bench", "circuits", "--methods", "guess"))
    assert is_refused(cli("bench", "circuits", "--on", "scenes", "--classes", "planes"))
    assert is_refused(cli("bench", "circuits", "--on", "scenes", "--network", "scenes-vit"))
