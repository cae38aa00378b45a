"""`circuits steer`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sae
from circuits import load
from sae.data.vision_site import VisionSite
from sae.steering import Steering, steered
from tests.apps.terminal import Cli, is_refused, written

FEW = ["--images", "scenes:8", "--factors", "-1", "0", "1", "--random", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SAE of scenes/mixed4a, trained hardly at all."""
    site = VisionSite(load("scenes", device="cpu"), "mixed4a")
    run = sae.train(site.stream("scenes:13", batch_size=256), sae.TopK(latents=64, k=6), steps=5, lr=3e-3)[0]
    path = tmp_path_factory.mktemp("saes") / "parts"
    sae.save(path, run)
    return path


def test_a_latent_is_studied_and_its_edit_can_be_applied_again(cli: Cli, tmp_path: Path, folder: Path) -> None:
    s = sae.load(folder)
    site = VisionSite(load("scenes", device="cpu"), "mixed4a")
    from sae.steering import maxima

    best = int(maxima(s, site, "scenes:8").values.argmax())
    out = tmp_path / "out"
    ran = cli("steer", f"scenes/mixed4a~parts:{best}", "--sae", folder, *FEW, "--target-class", "car", "--out", out,
              "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    assert written(out) == {"study.json", "study.png", "steering.json"}
    assert json.loads((out / "study.json").read_text("utf-8")) == ran.json
    found = ran.json
    assert found["unit"] == f"scenes/mixed4a~parts:{best}" and found["targets"] == ["car"] and not found["chosen"]
    assert found["factors"] == [-1, 0, 1] and len(found["effect"]["random"]) == 2
    assert found["capability"]["what"] == "top1" and set(found["side_effects"]) == {"classes", "latents"}
    kept = Steering.parse((out / "steering.json").read_text("utf-8"))
    assert kept.edits[0].latent == best and kept.strengths[best] == pytest.approx(found["maximum"])
    assert steered(site, s, kept).edits == kept.edits


def test_a_condition_that_never_holds_changes_nothing(cli: Cli) -> None:
    ran = cli("steer", "scenes/mixed4a:11", *FEW, "--when", "39:above:2x", "--json")
    assert ran.code == 0, ran.err
    assert len({*ran.json["effect"]["values"], ran.json["effect"]["clean"]}) == 1
    freely = cli("steer", "scenes/mixed4a:11", *FEW, "--when", "39:below:2x", "--when", "39:above:-1", "--json")
    assert len(set(freely.json["effect"]["values"])) > 1


def test_the_maximum_is_measured_on_what_is_asked_for(cli: Cli) -> None:
    few = cli("steer", "scenes/mixed4a:39", *FEW, "--json").json
    many = cli("steer", "scenes/mixed4a:39", *FEW, "--maxima", "scenes:30", "--json").json
    assert (few["measured_on"]["count"], many["measured_on"]["count"]) == (8, 30)
    assert many["maximum"] >= few["maximum"] and many["inputs"]["count"] == 8


def test_a_channel_is_studied_and_shown_as_a_table(cli: Cli) -> None:
    ran = cli("steer", "scenes/mixed4a:11", *FEW, "--kind", "scale", "--at", "1,2", "2,2", "--downstream", "mixed4b")
    assert ran.code == 0, ran.err
    for word in ("scenes/mixed4a:11", "unsteered", "sweet spot", "side effects on downstream", "rank correlation"):
        assert word in ran.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scenes/mixed4a"], "is a whole layer: name one unit"),
        (["mixed4a:11"], "does not name its model"),
        (["scenes/mixed4a:9999"], "9999"),
        (["scenes/mixed4a:11", "--random", "0"], "without a control"),
        (["scenes/mixed4a:11", "--at", "1;2"], "positions y,x"),
        (["scenes/mixed4a:11", "--at", "90,2"], "outside the"),
        (["scenes/mixed4a:11", "--when", "3:over:2"], "LATENT:above:NUMBER"),
        (["scenes/mixed4a:11", "--when", "9999:above:2"], "9999"),
        (["scenes/mixed4a:11", "--prompt", "Once"], "are for language models"),
        (["scenes/mixed4a:11", "--target-class", "dragon"], "no class 'dragon'"),
        (["scenes/mixed4a~none:11"], "none"),
    ],
)
def test_bad_input_is_one_line(cli: Cli, arguments: list[str], said: str) -> None:
    ran = cli("steer", *arguments, "--images", "scenes:4", "--factors", "0", "1")
    assert is_refused(ran) and said in ran.err, ran.err


def test_a_refused_study_leaves_no_files(cli: Cli, tmp_path: Path) -> None:
    ran = cli("steer", "scenes/mixed4a:11", "--images", "scenes:4", "--target-class", "dragon", "--out", tmp_path / "o")
    assert is_refused(ran) and not (tmp_path / "o").exists()


def test_a_language_model_writes_before_and_after(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    ran = cli(
        "steer", "tales/layers.2.resid:5", "--text", "tales:2@1", "--factors", "0", "2", "--random", "1",
        "--prompt", "One day Anna walked to", "--tokens", "6", "--json", "--out", tmp_path / "o",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert [one["factor"] for one in ran.json["texts"]] == [None, 0.0, 2.0]
    assert all(one["text"].strip() for one in ran.json["texts"]) and ran.json["capability"]["what"] == "loss"
    assert (tmp_path / "o" / "study.png").is_file()


def test_bad_input_for_a_language_model_is_one_line(cli: Cli) -> None:
    pytest.importorskip("transformers")
    for arguments, said in (
        (["tales/layers.2.resid:5", "--images", "scenes:4"], "is for CNNs"),
        (["tales/layers.2.resid:5", "--at", "1,2"], "tokens of a text by number"),
        (["tales/layers.2.resid~topk:5"], "which SAE is topk"),
        (["tales/layers.9.resid:5"], "no site 'layers.9.resid'"),
    ):
        ran = cli("steer", *arguments)
        assert is_refused(ran) and said in ran.err, ran.err


def test_texts_are_judged_by_what_they_say(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    ran = cli(
        "steer", "tales/layers.2.resid:5", "--text", "tales:2@1", "--factors", "0", "2", "--random", "1",
        "--prompt", "One day Anna walked to the", "--samples", "3", "--tokens", "5", "--says", "Anna walked", "--says",
        "nothing of it", "--capability", "grammar", "--json", "--out", tmp_path / "o",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.json["effect"]["clean"] == 1.0 and ran.json["capability"]["what"] == "grammar"
    assert [one["what"] for one in ran.json["beside"]] == ["loss"]
    assert ran.json["targets"] == ["share of texts with “Anna walked” or “nothing of it”"]
    assert (tmp_path / "o" / "study.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--says", "red"], "give both"),
        (["--says", " ", "--prompt", "One"], "give both"),
        (["--says", "red", "--prompt", "One", "--target-class", "red"], "two targets"),
        (["--capability", "grammar"], "give it with --says"),
        (["--prompt", "One", "--samples", "0"], "--samples is at least 1"),
    ],
)
def test_what_texts_say_is_asked_for_in_full(cli: Cli, arguments: list[str], said: str) -> None:
    ran = cli("steer", "tales/layers.2.resid:5", *arguments)
    assert is_refused(ran) and said in ran.err, ran.err


def test_texts_and_models_that_cannot_be_used_are_one_line(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from zoo.networks.language import tales_folder

    empty, latin = tmp_path / "empty.txt", tmp_path / "latin.txt"
    empty.write_text(" \n", encoding="utf-8")
    latin.write_bytes("Zoë went home.".encode("latin-1"))
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((tales_folder() / name).read_bytes())
    for arguments, said in (
        (["tales/layers.2.resid:5", "--text", empty], "no text in it"),
        (["tales/layers.2.resid:5", "--text", latin], "not UTF-8: byte 2"),
        (["tales/layers.2.resid:5", "--text", tmp_path / "none.txt"], "no text file at"),
        (["tales/layers.2.resid:64", "--text", "tales:2@1"], "64 channels"),
        (["tales/layers.2.nose:5", "--text", "tales:2@1"], "no site 'layers.2.nose'"),
        ([f"hf:{bare}/layers.2.resid:5", "--text", "tales:2@1"], "tokenizer"),
    ):
        ran = cli("steer", *arguments, "--factors", "0", "1", "--out", tmp_path / "o")
        assert is_refused(ran) and said in ran.err, ran.err
        assert not (tmp_path / "o").exists()


def test_a_text_longer_than_the_context_is_cut_into_pieces(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    long = tmp_path / "long.txt"
    long.write_text("She was happy. " * 100, encoding="utf-8")
    ran = cli("steer", "tales/layers.2.resid:5", "--text", long, "--factors", "0", "1", "--random", "1", "--json")
    assert ran.code == 0 and ran.json["inputs"]["count"] == 1, ran.err
    prompt = cli("steer", "tales/layers.2.resid:5", "--text", "tales:2@1", "--factors", "0", "1", "--random", "1",
                 "--prompt", "She was happy. " * 100)  # fmt: skip
    assert is_refused(prompt) and "256" in prompt.err, prompt.err
