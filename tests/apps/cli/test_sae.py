"""`circuits sae train`, `eval` and `features`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

import circuits
import sae
from apps.processes import child_environment
from circuits.dataset.scan_results import read_scan
from sae.formats.save_load import load_run
from tests.apps.terminal import Cli, is_refused, process, written

PICTURES = ("--images", "scenes:60")
TRAIN = (
    "sae", "train", "scenes/mixed3b", *PICTURES, "--latents", "96", "--k", "6", "--steps", "60", "--batch-size", "256",
    "--lr", "0.003",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from apps.cli.main import main

    folder = tmp_path_factory.mktemp("sae") / "parts"
    assert main([*TRAIN, "--out", str(folder)]) == 0
    return folder


def test_an_sae_is_trained_and_says_what_it_is(trained: Path) -> None:
    assert written(trained) >= {"cfg.json", "sae_weights.safetensors", "sparsity.safetensors"}
    assert not trained.with_name("parts.training").exists()
    loaded = sae.load(trained)
    assert (loaded.latents, loaded.d) == (96, 48)
    assert loaded.metadata["layer"] == "mixed3b" and loaded.metadata["data"]["held_out"] == 0.1
    reports = [json.loads(line) for line in (trained / "reports.jsonl").read_text().splitlines()]
    assert reports[-1]["step"] == 60


def test_without_options_the_recipe_is_of_the_layer_and_of_the_data_and_says_why(cli: Cli, tmp_path: Path) -> None:
    ran = cli("sae", "train", "scenes/mixed3b", "--images", "scenes:30", "--batch-size", "64", "--out", tmp_path / "s")
    assert ran.code == 0, ran.err
    loaded = load_run(tmp_path / "s")
    assert (loaded.sae.latents, loaded.sae.config.k, loaded.steps) == (8 * 48, 4, 27 * 8 * 8 // 16)  # type: ignore[attr-defined]
    for reason in ("384 latents, eight a channel", "k=4, one for 16 of 48", "108 steps for about 1,728 vectors"):
        assert reason in " ".join(ran.out.split())
    swept = ("--sweep", "latents=8,16", "--k", "2", "--steps", "2", "--batch-size", "64", "--out", tmp_path / "sweep")
    assert cli("sae", "train", "scenes/mixed3b", "--images", "scenes:4", *swept, "--json").json["recipe"] == ""


def test_the_held_out_pictures_were_not_trained_on(cli: Cli, trained: Path) -> None:
    ran = cli("sae", "eval", trained, "--json")
    assert ran.code == 0, ran.err
    found = ran.json["evaluations"]
    assert {name: one["inputs"]["count"] for name, one in found.items()} == {"training": 54, "held-out": 6}
    assert found["training"]["inputs"]["digest"] == sae.load(trained).metadata["inputs"]["digest"]
    for one in found.values():
        assert one["predictions"]["clean"]["top1"] > 0.8 and one["predictions"]["clean"]["count"] > 0
        assert 0 < one["reconstruction"]["fvu"] < one["reconstruction"]["baselines"]["random"]["fvu"]
        assert one["predictions"]["sae"]["loss"] < one["predictions"]["random"]["loss"]
        assert one["recovered"]["mean"]["loss"] > 0.5


def test_latents_have_pages(cli: Cli, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    ran = cli("sae", "features", trained, "--latents", "3", "--dossiers", "--out", out, "--json")
    assert ran.code == 0, ran.err
    units = [one["unit"] for one in ran.json["features"]]
    assert len(units) == 3 and all(one["fires_on"] > 0 for one in ran.json["features"])
    page = (out / "index.html").read_text("utf-8")
    scan = read_scan(trained / "scan", "scenes")
    shown = [(unit.top[:9], unit.over_range(9)) for unit in map(scan.unit, units)]
    assert page.count("<figure") == sum(len(top) + len(spread) for top, spread in shown)
    for top, spread in shown:
        values = [example.value for example in spread]
        assert values == sorted(values, reverse=True) and len({example.image for example in spread}) == len(spread)
        assert min(values) < top[-1].value or len(top) < 9
    for unit in units:
        name = unit.rpartition(":")[2]
        assert f'href="{name}.html"' in page
        dossier = (out / f"{name}.html").read_text("utf-8")
        assert "<h2>Geometry</h2>" in dossier and "Outgoing weights to channels" in dossier
    one = cli("sae", "features", trained, "--latent", units[0].rpartition(":")[2], "--json")
    assert [f["unit"] for f in one.json["features"]] == [units[0]]


def test_a_channel_is_taken_apart(cli: Cli, trained: Path, tmp_path: Path) -> None:
    ran = cli("sae", "features", trained, "--channel", "46", "--out", tmp_path / "apart", "--json")
    assert ran.code == 0, ran.err
    (found,) = ran.json["channels"]
    assert found["unit"] == "scenes/mixed3b:46" and sum(found["shares"].values()) == pytest.approx(1)
    assert (tmp_path / "apart" / "mixed3b-46.png").stat().st_size > 10_000


def test_clusters_of_channels_are_compared_with_latents(cli: Cli, trained: Path, tmp_path: Path) -> None:
    options = ("--images", "scenes:80@7", "--n", "24", "--draws", "4", "--figures", "0", "--sae", trained)
    ran = cli("polysemantic", "scenes/mixed3b", *options, "--most", "3", "--out", tmp_path / "split", "--json")
    assert ran.code == 0, ran.err
    compared = ran.json["separation"]
    (name,) = compared["dictionaries"]
    assert len(compared["channels"]) == min(3, ran.json["split"])
    assert {"clusters", "leading latent"} <= set(compared["mean"][name]) and abs(
        compared["mean"]["shuffled clusters"]["clusters"]["value"]
    ) < 0.2
    assert (tmp_path / "split" / "separation.png").stat().st_size > 10_000
    assert is_refused(cli("polysemantic", "scenes/mixed3b:4", *options))


def test_latents_are_units_of_other_commands(cli: Cli, trained: Path) -> None:
    latent = "scenes/mixed3b~parts:3"
    found = cli(
        "find", "scenes", "--sae", trained, "--concept", "car", *PICTURES, "--layers", "mixed3b~parts", "--json"
    )
    assert found.code == 0, found.err
    assert found.json["rows"][0]["unit"].startswith("scenes/mixed3b~parts:")
    weights = cli("weights", latent, "--sae", trained, "--json")
    assert weights.code == 0 and "mixed3b~parts:3" in str(weights.json["targets"]), weights.err
    renamed = cli("weights", "scenes/mixed3b~mine:3", "--sae", f"mine={trained}", "--json")
    assert renamed.code == 0, renamed.err
    missing = cli("weights", latent)
    assert is_refused(missing) and "no basis 'parts'" in missing.err


def test_latents_are_ranked_traced_and_scored_as_sources(cli: Cli, trained: Path, tmp_path: Path) -> None:
    sources = ("--sae", trained, "--layers", "mixed3b~parts", *PICTURES)
    ranked = cli("rank", "scenes/mixed4a:11", *sources, "--random", "2", "--json", "--out", tmp_path / "rank")
    assert ranked.code == 0, ranked.err
    assert "scenes/mixed3b~parts:error" in ranked.json["ranking"]["units"]
    assert ranked.json["curve"]["f"][-1] == pytest.approx(1) and (tmp_path / "rank" / "size_curve.png").is_file()
    traced = cli("trace", "scenes/mixed4a:11", *sources, "--random", "2", "--json", "--out", tmp_path / "trace")
    assert traced.code == 0, traced.err
    assert traced.json["score"]["errors_kept"] is False
    scored = cli("score", tmp_path / "trace", "--sae", trained, *PICTURES, "--random", "2", "--keep-error", "--json")
    assert scored.code == 0, scored.err
    assert scored.json["score"]["errors_kept"] is True
    assert scored.json["score"]["faithfulness"] != traced.json["score"]["faithfulness"]


def test_a_sweep_trains_all_on_one_stream(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    ran = cli(*TRAIN[:-6], "--steps", "8", "--batch-size", "64", "--sweep", "k=2,4", "seed=0,1", "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert len(ran.json["runs"]) == 4
    assert sorted(run["config"]["k"] for run in ran.json["runs"]) == [2, 2, 4, 4]
    assert all(sae.load(run["folder"]).config.to_dict()["seed"] == run["config"]["seed"] for run in ran.json["runs"])


def test_stored_activations_train_the_same_sae(cli: Cli, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "stored"
    ran = cli(*TRAIN, "--activations", tmp_path / "acts", "--out", out)
    assert ran.code == 0, ran.err
    assert torch.equal(sae.load(out).decoder, sae.load(trained).decoder)
    assert len(list((tmp_path / "acts").glob("*/shard-*.safetensors"))) >= 1


def test_an_interrupted_training_goes_on(cli: Cli, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "broken"
    words = [*TRAIN[:-6], "--steps", "6000", "--batch-size", "256", "--lr", "0.003", "--out", str(out)]
    running = process(*map(str, words), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    log = out.with_name("broken.training") / "reports.jsonl"
    deadline = time.monotonic() + 120
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode in (130, -signal.SIGINT) and "interrupted" in said and "goes on" in said, said
    assert (out.with_name("broken.training") / "checkpoint.safetensors").exists() and not out.exists()
    other = cli(*TRAIN, "--out", out)
    assert is_refused(other) and "other settings" in other.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sae", "train", "scenes/mixed3b"), "--out FOLDER"),
        (("sae", "train", "scenes/mixed3b:4", "--out", "x"), "one unit"),
        (("sae", "train", "scenes/nothing", "--out", "x"), "no layer 'nothing'"),
        (("sae", "train", "scenes/mixed3b", "--latents", "8", "--k", "9", "--out", "x"), "k=9 is more than the 8"),
        (("sae", "train", "scenes/mixed3b", "--architecture", "topc", "--out", "x"), "topk"),
        (("sae", "train", "scenes/mixed3b", "--held-out", "1", "--out", "x"), "--held-out"),
        (("sae", "train", "scenes/mixed3b", "--steps", "0", "--out", "x"), "--steps"),
        (("sae", "train", "scenes/mixed3b", "--sampling", "magnitude", *PICTURES, "--out", "x"), "per_input"),
        (("sae", "eval", "nowhere"), "nowhere"),
        (("sae", "features", "nowhere"), "nowhere"),
        (("sae", "trian"), "sae train"),
    ],
)
def test_bad_input_is_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli(*arguments)
    assert is_refused(ran) and said in ran.err, ran.err
    assert not any(tmp_path.iterdir())


def test_an_sae_of_the_same_settings_is_not_trained_again_and_another_not_over_it(
    cli: Cli, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae.training.train.train", lambda *_, **__: pytest.fail("trained again"))
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    first = sae.load(trained)
    ran = cli(*TRAIN, "--out", trained, "--json")
    assert ran.code == 0 and ran.json["made"] is False, ran.err
    (run,) = ran.json["runs"]
    assert (run["steps"], run["status"], run["last"]["step"]) == (60, "finished", 60)
    assert run["reconstruction"]["held out"]["fvu"] < run["reconstruction"]["held out"]["baselines"]["random"]["fvu"]
    for options, difference in (
        (("--steps", "61"), "steps=60 instead of 61"),
        (("--k", "5"), "k=6 instead of 5"),
        (("--limit", "50"), "other images or texts"),
        (("--sweep", "k=2,3"), "holds an SAE, not a sweep"),
    ):
        ran = cli(*TRAIN, *options, "--out", trained)
        assert is_refused(ran) and difference in ran.err and "--replace" in ran.err, ran.err
    assert {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()} == before
    assert torch.equal(sae.load(trained).decoder, first.decoder)


def test_the_group_lists_its_commands(cli: Cli) -> None:
    for words in (("sae",), ("sae", "--help"), ("help", "sae")):
        ran = cli(*words)
        assert ran.code == 0 and all(name in ran.out for name in ("sae train", "sae eval", "sae features"))


def test_a_folder_of_the_users_beside_out_is_not_touched(cli: Cli, tmp_path: Path) -> None:
    mine = tmp_path / "car.training"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    for more in ([], ["--replace"]):
        ran = cli(*TRAIN, "--out", tmp_path / "car", *more)
        assert is_refused(ran) and "has thesis.txt in it" in ran.err
    assert (mine / "thesis.txt").read_text() == "mine" and not (tmp_path / "car").exists()


def test_what_out_cannot_hold_is_said_before_training(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    ran = cli(*TRAIN, "--out", tmp_path / "out")
    assert is_refused(ran) and "has other things in it" in ran.err and not (tmp_path / "out.training").exists()


def test_two_trainings_cannot_write_one_folder(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "out.training").mkdir()
    with FileLock(tmp_path / "out.training" / ".lock"):
        ran = cli(*TRAIN, "--out", tmp_path / "out")
    assert is_refused(ran) and "another training is writing" in ran.err


@pytest.mark.slow
def test_two_processes_train_one_sae_which_the_first_writes(cli: Cli, tmp_path: Path) -> None:
    few = (*TRAIN[:-4], "--lr", "0.003")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "apps.cli"]
    options: dict[str, Any] = {"env": child_environment(), "capture_output": True, "text": True}
    shared = [*command, *few, "--batch-size", "128", "--out", str(tmp_path / "shared")]
    for _ in range(2):  # the second time nothing is trained
        ran = subprocess.run(shared, **options)
        assert ran.returncode == 0 and ran.stdout.count("held out") == 3, ran.stderr
    assert "was there already" in ran.stdout and not (tmp_path / "shared.training").exists()
    reports = [json.loads(line) for line in (tmp_path / "shared" / "reports.jsonl").read_text().splitlines()]
    assert reports[-1]["step"] == 60 and reports[-1]["samples"] == 60 * 2 * 128
    assert cli(*few, "--batch-size", "256", "--out", tmp_path / "alone").code == 0
    x = circuits.capture(circuits.load("scenes"), "scenes:20", at=["mixed3b"])["mixed3b"].movedim(1, -1).flatten(0, 2)
    ours, alone = (sae.metrics.reconstruction(sae.load(tmp_path / name), x).fvu for name in ("shared", "alone"))
    assert ours < 1.25 * alone < 0.5  # each process reads every other image, so that the order is another
    (tmp_path / "shared.training").mkdir()
    with FileLock(tmp_path / "shared.training" / ".lock"):
        ran = subprocess.run([*shared, "--replace"], **options)
    assert ran.returncode != 0 and "another training is writing" in ran.stderr


def test_architectures_are_swept(cli: Cli, tmp_path: Path) -> None:
    few = ("sae", "train", "scenes/mixed3b", "--images", "scenes:8", "--latents", "32", "--k", "4", "--steps", "3")
    ran = cli(*few, "--sweep", "architecture=topk,batchtopk", "seed=0,1", "--out", tmp_path / "sweep", "--json")
    runs = ran.json["runs"]
    assert sorted((r["config"]["architecture"], r["config"]["seed"]) for r in runs) == [
        ("batchtopk", 0), ("batchtopk", 1), ("topk", 0), ("topk", 1),
    ]  # fmt: skip
    assert len({r["folder"] for r in runs}) == 4
    ran = cli(*few, "--sweep", "architecture=topk,relu", "k=2,4", "--out", tmp_path / "other")
    assert is_refused(ran) and "k" in ran.err


def test_a_model_of_the_hub_that_only_a_file_names_is_not_fetched(cli: Cli, trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    loaded = sae.load(trained)
    loaded.metadata.update(model="hf:evil/repo", layer="layers.2.resid", site="language")
    sae.save(tmp_path / "evil", loaded)
    for command in ("eval", "features"):
        ran = cli("sae", command, tmp_path / "evil", "--text", "tales:5")
        assert is_refused(ran) and "hf download evil/repo" in ran.err, ran.err


def test_the_command_line_trains_and_evaluates_a_transcoder(cli: Cli, tmp_path: Path) -> None:
    options = ("--images", "scenes:24", "--latents", "32", "--k", "4", "--steps", "6", "--batch-size", "256", "--json")
    pair = ("sae", "train", "scenes/mixed3b..mixed4a", "--kind", "skip-transcoder", "--patch", "3")
    same = ("sae", "train", "scenes/mixed3b..mixed3b", *pair[3:])
    refused = cli(*same, *options, "--out", str(tmp_path / "same"))
    assert is_refused(refused) and "linear map of itself" in refused.err
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
    graph = ("graph", "scenes", "--images", "scenes:1", "--width", "4", "--no-check", "--json", "--sae")
    block = ("--dictionaries", str(tmp_path / "block"), "--layers", "mixed3a")
    why = cli(*graph, f"parts={tmp_path / 'output'}", *block, "--out", str(tmp_path / "why")).json["graph"]
    assert why["layers"] == ["mixed3a", "mixed3b..mixed4a~block"] and why["unexplained"] < 1e-5
    twice = cli(*graph, f"parts={tmp_path / 'output'}", "--dictionaries", "parts", *block)
    assert is_refused(twice) and "mixed4a is named twice" in twice.err, twice.err
    for address, kind, message in (
        ("scenes/mixed3b..mixed4a", "sae", "say --kind transcoder"),
        ("scenes/mixed3b", "transcoder", "takes two layers"),
        ("scenes/mixed3b..", "transcoder", "is no pair of layers"),
        ("scenes/mixed4a..mixed3b", "transcoder", "no path leads"),
    ):
        refused = cli("sae", "train", address, "--kind", kind, "--out", str(tmp_path / "x"))
        assert is_refused(refused) and message in refused.err, refused.err
    mlp = ("sae", "train", "tales/layers.1.mlp_in..layers.1.mlp", "--kind", "transcoder", "--patch", "3")
    refused = cli(*mlp, "--out", str(tmp_path / "x"))
    assert is_refused(refused) and "one token at a time" in refused.err
