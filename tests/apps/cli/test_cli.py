"""The command line from outside: exit codes, one JSON document, one line for bad input, nothing half-written."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import apps.cli.commands
from apps.cli.parsing import parse
from apps.cli.registry import COMMANDS, discover, load_command
from tests.apps.terminal import FEW, ROOT, Cli, is_refused, process, written
from zoo.common.files import INVENTORY

# -- help ---------------------------------------------------------------------------------------------


def test_the_overview_names_every_command(cli: Cli) -> None:
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        ran = cli(*arguments)
        assert ran.code == 0 and all(name in ran.out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_says_why_and_shows_an_example(cli: Cli, command: str) -> None:
    ran = cli(command, "--help")
    assert ran.code == 0 and ran.err == ""
    assert "Example:" in ran.out and f"    circuits {command}" in ran.out
    for option in ("--out", "--seed", "--device", "--json"):
        assert option in ran.out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_every_command_can_be_parsed(name: str) -> None:
    command, start = load_command(name), f"circuits {name}"
    lines = [line.strip().partition(" | ")[0] for line in (command.__doc__ or "").splitlines()]
    examples = [shlex.split(line.removeprefix(start), comments=True) for line in lines if line.startswith(start)]
    assert examples
    for arguments in examples:
        assert parse(command, start, [*arguments, "--json"]).json


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_input_to_every_command_gets_one_line(cli: Cli, name: str) -> None:
    ran = cli(*name.split(), "--frobnicate")
    assert is_refused(ran) and ran.err.startswith("circuits: ")


def test_a_command_in_a_file_of_its_own_is_found(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hello_there.py").write_text(
        "from dataclasses import dataclass\n"
        "from apps.cli.common import Command, CommandResult\n"
        "from apps.cli.registry import command\n\n"
        '@command(group="Greetings", order=1, summary="a greeting")\n'
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Hello(Command):\n"
        "    def run(self, session):\n"
        '        return CommandResult({"hello": "there"}, lambda console: console.print("hello"))\n'
    )
    monkeypatch.setattr(apps.cli.commands, "__path__", [*apps.cli.commands.__path__, str(tmp_path)])
    for name, entry in discover(tmp_path).items():
        monkeypatch.setitem(COMMANDS, name, entry)
    assert cli("hello", "there", "--json").json["hello"] == "there"
    assert "Greetings" in cli("--help").out and "a greeting" in cli("hello").out
    (tmp_path / "mute.py").write_text("class Mute: ...\n")
    with pytest.raises(ValueError, match="mute.py declares no command"):
        discover(tmp_path)


def test_help_is_quick_and_does_not_need_torch() -> None:
    code = (
        "import sys; from apps.cli.main import main; main(['--help']); main(['trace', '--help']);"
        "print([name for name in ('torch', 'matplotlib', 'sklearn') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.rstrip().endswith("[]")


def test_help_with_a_command_is_the_help_of_the_command(cli: Cli) -> None:
    assert cli("help", "find").out == cli("find", "--help").out


def test_the_version_can_be_asked_for(cli: Cli) -> None:
    assert cli("--version").out.startswith("vision-circuits ")


# -- usage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trcae"], "trace"),
        (["--frobnicate"], "option"),
        (["layers"], "MODEL"),
        (["layers", "scenes", "--depht", "3"], "--depht"),
        (["trace", "scenes/mixed4a:1", "--depth", "deep"], "--depth"),
        (["trace", "scenes/mixed4a:1", "--by", "magic"], "weights"),
        (["trace", "scenes/mixed4a:1", "--depth", "0"], "at least 1"),
        (["trace", "scenes/mixed4a:1", "--random", "0"], "--random"),
        (["trace", "a", "b"], "b"),
        (["models", "--seed", "-1"], "--seed"),
        (["images", "dogs"], "scenes"),
        (["images", "scenes"], "--out"),
        (["weights", "scenes"], "--target"),
        (["find", "scenes"], "--positive"),
        (["find", "scenes", "--concept", "car", "--positive", "x"], "either"),
        (["verify", "scense"], "scenes"),
        (["verify", "library", "--weights", "x.pth"], "one model"),
    ],
)
def test_a_command_line_that_cannot_be_read_gets_one_line(cli: Cli, arguments: list[str], says: str) -> None:
    ran = cli(*arguments)
    assert is_refused(ran), ran
    assert says in ran.err


HOSTILE = [
    "", " ", "/", ":", "mixed4a:17", "scenes/", "scenes/mixed4a", "scenes/mixed9z:1", "scense/mixed4a:1",
    "scenes/mixed4a:9999", "scenes/mixed4a:1@99,99", "scenes/mixed4a:-1", "scenes/mixed4a:1\x00",
    "scenes/mixed4a:1\n\n\n", "../../etc/passwd", "x" * 40_000, "scenes/" + "mixed4a" * 9_000 + ":1",
    "scenes/mixed4a:١", "scenes/mixed4a:1@1", "\u202escenes/mixed4a:1", "scenes/mixed4a~sae:1", "-1", "--",
]  # fmt: skip


@pytest.mark.parametrize("address", HOSTILE, ids=lambda address: repr(address[:24]))
def test_a_hostile_address_gets_one_short_line(cli: Cli, address: str) -> None:
    ran = cli("trace", address, *FEW, "--weights", "random")
    assert is_refused(ran), ran
    assert all(c.isprintable() or c == "\n" for c in ran.err)


def test_an_unknown_device_gets_one_line(cli: Cli) -> None:
    assert is_refused(cli("layers", "scenes", "--weights", "random", "--device", "abacus"))


# -- what there is ------------------------------------------------------------------------------------


def test_models_lists_every_card_with_its_weights(cli: Cli) -> None:
    document = cli("models", "--json").json
    assert document["schema"] == 1 and document["command"] == "models"
    cards = ["scenes", "inceptionv1", "googlenet-bvlc", "squeezenet-1.1", "scenes-vit", "scenes-labels"]
    assert [m["name"] for m in document["models"]] == cards
    assert all(set(m["weights"]) == {"found", "path", "how"} for m in document["models"])
    assert "googlenet-bvlc" in cli("models").out


def test_models_can_be_searched(cli: Cli) -> None:
    assert {m["name"] for m in cli("models", "--match", "resnet18", "--json").json["models"]} == {
        "torchvision/resnet18"
    }


def test_layers_gives_size_stride_and_receptive_field(cli: Cli) -> None:
    document = cli("layers", "scenes", "--weights", "random", "--json").json
    layer = next(row for row in document["layers"] if row["name"] == "mixed3b")
    assert layer["trunk"] and layer["size"] == [8, 8] and layer["stride"] == 8
    assert layer["receptive_field"]["offset"] == [-31, -31]
    every = cli("layers", "scenes", "--weights", "random", "--all", "--json").json["layers"]
    assert len(every) > len(document["layers"])
    assert "mixed4a_5x5" in cli("layers", "scenes", "--weights", "random").out


def test_layers_of_a_transformer_have_their_layout_and_those_without_units_a_reason(cli: Cli) -> None:
    document = cli("layers", "scenes-vit", "--all", "--json").json
    layers = {row["name"]: row for row in document["layers"]}
    assert layers["block2"]["layout"] == "tokens" and layers["block2"]["size"] == [8, 8] and layers["block2"]["trunk"]
    assert layers["block2.cls"]["tokens_of"] == "block2" and layers["block2.cls"]["size"] is None
    reasons = {row["name"]: row["reason"] for row in document["unreadable"]}
    assert "two axes of positions" in reasons["block0.attention.pattern"]
    assert "block0.attention.pattern has no units" in cli("layers", "scenes-vit", "--all").out
    assert "5 whose axes are not known" in cli("layers", "scenes-vit").out


def test_layers_of_a_model_without_weights_are_shown_all_the_same(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CIRCUITS_WEIGHTS", raising=False)
    document = cli("layers", "squeezenet-1.1", "--json").json
    assert not document["weights"]["found"] and document["layers"]


def test_missing_weights_are_named_with_file_and_folder(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CIRCUITS_WEIGHTS", str(tmp_path))
    ran = cli("trace", "squeezenet-1.1/fire3:1", *FEW)
    assert is_refused(ran) and "squeezenet1_1.safetensors" in ran.err and "--weights" in ran.err


def test_a_weights_file_that_is_none_gets_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"not a net")
    assert is_refused(cli("layers", "scenes", "--weights", tmp_path / "net.pth"))
    assert is_refused(cli("layers", "scenes", "--weights", tmp_path / "nowhere.safetensors"))


def test_doctor_finds_this_installation_and_says_what_mends_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CIRCUITS_WEIGHTS", str(tmp_path / "nowhere"))
    ran = cli("doctor", "--json")
    found = {f["what"]: f for f in ran.json["findings"]}
    assert found["torch"]["state"] == found["torchvision"]["state"] == "ok"
    assert found["$CIRCUITS_WEIGHTS"]["state"] == "broken" and "mkdir" in found["$CIRCUITS_WEIGHTS"]["mend"]
    assert ran.code == 1 and not ran.json["healthy"]
    assert all(f["mend"] for f in found.values() if f["state"] == "broken")


# -- pictures -----------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, shade in enumerate((30, 120, 220)):
        Image.new("RGB", (40, 60), (shade, 255 - shade, 90)).save(folder / f"{i}.png")
    return folder


def small(*arguments: object) -> list[object]:
    """A trace on an untrained net: quick, and needs no file."""
    return ["trace", "scenes/mixed4a:1", "--weights", "random", "--no-score", *arguments]


def test_images_draws_labeled_scenes_that_can_be_traced_with(cli: Cli, tmp_path: Path) -> None:
    ran = cli("images", "scenes", "--n", "26", "--out", tmp_path / "drawn", "--json")
    assert ran.code == 0 and ran.json["count"] == 26 and sum(ran.json["classes"].values()) == 26
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 26
    assert cli(*small("--images", tmp_path / "drawn", "--json")).json["provenance"]["n_images"] == 26


def test_images_does_not_write_over_other_things(cli: Cli, pictures: Path) -> None:
    before = sorted(pictures.iterdir())
    assert is_refused(cli("images", "scenes", "--n", "2", "--out", pictures))
    assert sorted(pictures.iterdir()) == before


@pytest.mark.parametrize("source", ["nowhere", "empty", "scenes:0", "scenes:many", "scenes:999999999"])
def test_pictures_that_are_not_there_get_one_line(cli: Cli, tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    path = source if source.startswith("scenes") else str(tmp_path / source)
    assert is_refused(cli(*small("--images", path, "--out", tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_corrupt_picture_is_named(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes((pictures / "0.png").read_bytes()[:40])
    ran = cli(*small("--images", pictures, "--out", tmp_path / "out"))
    assert is_refused(ran) and "broken.png" in ran.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures"]


def test_odd_pictures_are_looked_at(cli: Cli, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (200, 30, 30)).save(tmp_path / "dot.png")
    Image.new("L", (30, 30), 77).save(tmp_path / "gray.png")
    Image.new("RGBA", (64, 20), (9, 99, 200, 120)).save(tmp_path / "clear.png")
    Image.new("CMYK", (50, 70), (9, 99, 200, 12)).save(tmp_path / "print.jpg")
    assert cli("attribute", "scenes/mixed4a:1", "--weights", "random", "--images", tmp_path, "--json").code == 0


def test_a_concept_that_no_picture_shows_gets_one_line(cli: Cli, pictures: Path) -> None:
    ran = cli("find", "scenes", "--weights", "random", "--concept", "zebra", *FEW)
    assert is_refused(ran) and "There are" in ran.err
    ran = cli("find", "scenes", "--weights", "random", "--concept", "car", "--images", pictures)
    assert is_refused(ran) and "--positive" in ran.err


def test_find_without_positive_pictures_gets_one_line(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert is_refused(
        cli("find", "scenes", "--weights", "random", "--positive", tmp_path / "none", "--negative", pictures)
    )


def test_another_model_than_scenes_must_be_given_pictures(cli: Cli) -> None:
    ran = cli("trace", "squeezenet-1.1/fire3:1", "--weights", "random")
    assert is_refused(ran) and "--images" in ran.err


# -- looking inside -----------------------------------------------------------------------------------


def test_trace_prints_one_document_that_reads_back_as_the_circuit(cli: Cli) -> None:
    from circuits.tracing.circuit import Circuit

    ran = cli(*small(*FEW, "--depth", "2", "--width", "3", "--json"))
    assert ran.code == 0, ran.err
    circuit = Circuit.from_json(ran.json)
    assert circuit.target == "scenes/mixed4a:1" and len(circuit.into(circuit.target)) == 3
    for rest in circuit.rest:
        shown = sum(e.strength for e in circuit.into(rest.target))
        assert shown + rest.strength == pytest.approx(rest.total, abs=1e-4)
        assert rest.total + rest.bias + rest.remainder == pytest.approx(rest.pre_activation, abs=1e-4)


def test_trace_shows_the_tree_the_sum_and_the_score(cli: Cli) -> None:
    ran = cli("trace", "scenes/mixed4a:1", "--weights", "random", *FEW, "--random", "4")
    assert ran.code == 0, ran.err
    for words in ("scenes/mixed4a:1", "mixed3b:", "others", "contributions", "faithfulness", "random median"):
        assert words in ran.out


def test_a_circuit_that_keeps_little_offers_the_command_that_keeps_more(cli: Cli, tmp_path: Path) -> None:
    few = ("--weights", "random", "--images", "scenes:24", "--random", "2")
    ran = cli("trace", "scenes/mixed4a:1", *few, "--width", "1", "--by", "weights", "--out", tmp_path / "report")
    assert ran.code == 0, ran.err
    document = json.loads((tmp_path / "report" / "circuit.json").read_text("utf-8"))
    beside = document["score"]["comparison"]
    assert document["score"]["faithfulness"] < 0.9 and beside["share"] < 0.9 * beside["mask"]
    offered = next(line for line in ran.out.splitlines() if "--by mask" in line).strip()
    expected = "circuits trace scenes/mixed4a:1 --by mask --depth 1 --width 1 --weights random --images scenes:24"
    assert offered == expected and f"instead of {beside['share']:.2f}:" in ran.out
    again = cli(*shlex.split(offered)[1:], "--no-score", "--json")
    assert again.code == 0 and again.json["by"] == "mask" and len(again.json["edges"]) == 1
    ran = cli("score", tmp_path / "report", *few)
    assert f"circuits score {tmp_path / 'report'} {shlex.join(few)} --mask" in ran.out


def test_trace_at_a_position_shows_the_sum_there(cli: Cli) -> None:
    document = cli("trace", "scenes/mixed4a:1@3,5", "--weights", "random", "--no-score", *FEW, "--json").json
    assert document["target"] == "scenes/mixed4a:1@3,5" and document["rest"]


def test_trace_leaves_a_report_that_score_can_read(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report"
    ran = cli(*small(*FEW, "--out", out))
    assert ran.code == 0, ran.err
    assert {"index.html", "circuit.json", "circuit.png"} <= written(out)
    page = (out / "index.html").read_text("utf-8")
    assert "circuits trace scenes/mixed4a:1" in page and "circuits.trace(" in page
    ran = cli("score", out, "--weights", "random", *FEW, "--random", "5", "--json")
    assert ran.code == 0, ran.err
    assert len(ran.json["score"]["random_faithfulness"]) == 5
    assert ran.json["control"] == "random circuits among the strongest units" and "comparison" not in ran.json["score"]
    ran = cli("score", out, "--weights", "random", *FEW, "--random", "1", "--mask")
    assert "% of the mask's share" in " ".join(ran.out.split()) and "among the strongest units" in ran.out
    assert [p.name for p in tmp_path.rglob(".*")] == [INVENTORY]


def test_score_refuses_what_is_no_circuit_and_other_weights(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "circuit.json").write_text("{}")
    assert is_refused(cli("score", tmp_path, *FEW))
    assert is_refused(cli("score", tmp_path / "nowhere.json", *FEW))
    document = cli(*small(*FEW, "--json")).json
    document["provenance"]["weights"] = "0" * 64
    (tmp_path / "circuit.json").write_text(json.dumps(document))
    ran = cli("score", tmp_path, "--weights", "random", *FEW)
    assert is_refused(ran) and "other weights" in ran.err


def test_find_ranks_units_for_a_concept(cli: Cli, tmp_path: Path) -> None:
    asked = ["--concept", "car", "--images", "scenes:52", "--layers", "mixed4a", "--layers", "mixed3b", "--top", "4"]
    ran = cli("find", "scenes", "--weights", "random", *asked, "--out", tmp_path / "found", "--json")
    assert ran.code == 0, ran.err
    aucs = [row["chosen_auc"] for row in ran.json["rows"]]
    assert len(aucs) == 4 and aucs == sorted(aucs, reverse=True)
    assert all(r["low"] <= r["auc"] <= r["high"] for r in ran.json["rows"])
    assert json.loads((tmp_path / "found" / "find.json").read_text()) == ran.json


def test_find_takes_two_folders(cli: Cli, tmp_path: Path, pictures: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for i in range(3):
        Image.new("RGB", (64, 64), (i, i, i)).save(other / f"{i}.png")
    ran = cli(
        "find",
        "scenes",
        "--weights",
        "random",
        "--positive",
        pictures,
        "--negative",
        other,
        "--layers",
        "mixed3a",
        "--json",
    )
    assert ran.code == 0, ran.err
    assert ran.json["positive"]["count"] == 3


def test_weights_gives_the_strongest_kernels_and_the_rest(cli: Cli, tmp_path: Path) -> None:
    ran = cli("weights", "scenes", "--source", "mixed3b", "--target", "mixed4a:30", "--weights", "random", "--top", "3",
              "--out", tmp_path, "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    target = ran.json["targets"][0]
    sizes = [abs(s["weight"]) for s in target["sources"]]
    assert len(sizes) == 3 and sizes == sorted(sizes, reverse=True)
    assert (tmp_path / "weights.json").is_file() and (tmp_path / "kernels.npy").is_file()
    by_address = cli("weights", "scenes/mixed4a:30", "--weights", "random", "--top", "3", "--json").json
    assert by_address["targets"] == ran.json["targets"]
    assert is_refused(cli("weights", "scenes", "--source", "mixed4a", "--target", "mixed3b:1", "--weights", "random"))


@pytest.mark.parametrize("method", ["weight*act", "grad*act", "integrated", "ablation"])
def test_attribute_says_what_each_unit_contributes(cli: Cli, method: str) -> None:
    ran = cli("attribute", "scenes/mixed4a:1", "--source", "mixed3b", "--weights", "random", "--images", "scenes:13",
              "--method", method, "--top", "5", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    assert len(ran.json["units"]) == 5 and ran.json["method"] == method


def test_the_same_seed_gives_the_same_document(cli: Cli) -> None:
    arguments = [
        "trace",
        "scenes/mixed4a:1",
        "--weights",
        "random",
        "--images",
        "scenes:40",
        "--limit",
        "20",
        "--random",
        "4",
        "--json",
    ]
    first, second = cli(*arguments, "--seed", "3"), cli(*arguments, "--seed", "3")
    assert first.code == 0 and first.out == second.out


def test_kernels_are_split_into_halves_that_add_up() -> None:
    from apps.cli.output.kernel_text import halves

    found = halves([[1, 2, 3], [4, 6, 8], [-1, 0, 1]])
    assert found == {"above": 6 + 9, "below": 9 + 0, "left": 4 + 4, "right": 4 + 12}


def test_the_demo_tells_the_whole_story(cli: Cli, tmp_path: Path) -> None:
    ran = cli("demo", "--n", "104", "--out", tmp_path / "demo", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["circuit"]["target"] == ran.json["unit"]
    assert {"window", "car_body", "wheel"} <= {p["part"] for p in ran.json["parents"]}
    assert {"index.html", "circuit.json", "circuit.png", "demo.json"} == written(tmp_path / "demo")


# -- known answers ------------------------------------------------------------------------------------


def test_the_library_gets_its_known_answers_right(cli: Cli) -> None:
    ran = cli("verify", "library", "--json")
    wrong = [c for c in ran.json["suites"]["library"] if c["verdict"] != "pass"]
    assert ran.code == 0 and not wrong, wrong


def test_a_wrong_net_fails_its_known_answers(cli: Cli) -> None:
    ran = cli("verify", "scenes", "--weights", "random", "--limit", "52", "--json")
    assert ran.code == 1 and ran.json["counts"]["fail"] > 3
    assert all(c["what"] != "the checks after this run through" for c in ran.json["suites"]["scenes"])


def test_the_published_checks_run_through_on_any_net_of_that_shape(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.cli.verify.tuned._TURNS", 12)  # the answers of a random net are wrong with any number
    ran = cli("verify", "inceptionv1", "--weights", "random", "--json")
    assert ran.code == 1 and ran.json["counts"] == {"pass": 0, "fail": 23, "skipped": 6}, ran.out


def test_published_answers_are_skipped_with_a_reason_where_weights_are_missing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CIRCUITS_WEIGHTS", str(tmp_path))
    for suite in ("inceptionv1", "googlenet-bvlc"):
        ran = cli("verify", suite, "--json")
        assert ran.code == 0 and {c["verdict"] for c in ran.json["suites"][suite]} == {"skipped"}
        assert all("--weights" in c["ours"] for c in ran.json["suites"][suite])


# -- files, pipes and signals -------------------------------------------------------------------------


def test_a_place_that_cannot_be_written_to_is_known_before_the_work(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper", "/proc/nowhere/out"):
        assert is_refused(cli(*small("--images", "nowhere", "--out", out)))
    assert (tmp_path / "file").read_text() == "mine"


def test_other_files_in_the_folder_stay(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert cli("models", "--out", tmp_path).code == 0
    assert written(tmp_path) == {"mine.txt", "models.json"}


def test_an_unexpected_error_is_one_line_without_a_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.cli.commands.models import Models

    def broken(self: object, session: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(Models, "run", broken)
    ran = cli("models")
    assert ran.code == 1 and ran.err.count("\n") == 1 and "RuntimeError: first line second line" in ran.err
    monkeypatch.setenv("CIRCUITS_DEBUG", "1")
    assert "Traceback" in cli("models").err


def test_without_the_extra_one_line_says_what_to_install(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ran = cli("models")
    assert is_refused(ran) and "pip install 'vision-circuits[cli]'" in ran.err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    with process("models", "--json") as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.close()
        err = child.stderr.read()
        assert child.wait(60) == 0 and err == ""


def _interruptible() -> None:
    """A shell that runs the tests in the background has children ignore interrupts; the command line must not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup` has ignored


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_is_one_line_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    arguments = ("trace", "scenes/mixed4a:1", "--weights", "random", "--images", "scenes:100000", "--out", str(out))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with process(*arguments, env=environment, preexec_fn=_interruptible) as child:
        deadline = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:  # the staging folder: it has started
            time.sleep(0.05)
        time.sleep(1)
        child.send_signal(number)
        try:
            printed, said = child.communicate(timeout=60)
        finally:
            child.kill()
    on = "circuits: interrupted: nothing was written; the same command starts again\n"
    # Python ends by the signal itself where it struck in code that runs by exec(); a shell gives 130 for either
    assert child.returncode in (130, -signal.SIGINT) and printed == "" and said == on, said
    assert list(tmp_path.iterdir()) == []


def test_rank_prints_units_and_the_curve_and_writes_them(cli: Cli, tmp_path: Path) -> None:
    few = ["--images", "scenes:16", "--random", "2"]
    ran = cli("rank", "scenes/mixed4a:11", *few, "--keep", "0.5", "--top", "3", "--out", tmp_path)
    assert ran.code == 0, ran.err
    for words in ("mixed3b:6", "magnitude", "random, strong", "CPR", "images not ranked on", "48 units keep"):
        assert words in ran.out
    written = json.loads((tmp_path / "rank.json").read_text("utf-8"))
    assert (
        written["ranking"]["units"][0] == "scenes/mixed3b:6" and (tmp_path / "size_curve.png").stat().st_size > 10_000
    )
    assert written["smallest"]["held_out"]["value"] > 0.3 and written["curve"]["f"][-1] == 1
    ran = cli("rank", "scenes/logits:0-logits:3", *few, "--layers", "mixed4a", "--no-curve", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["ranking"]["target"] == "scenes/softmax_pre:0-softmax_pre:3" and ran.json["curve"] is None
    edges = ("--layers", "mixed3b", "--layers", "mixed4b", "--of", "edges", "--random", "1", "--top", "1")
    ran = cli("rank", "scenes/logits:0", *few, *edges)
    assert all(words in ran.out for words in (" 1960 edges, by gradient", " -> ", "random, strong"))
    assert is_refused(cli("rank", "scenes/mixed4a:11", *few, "--of", "edges", "--keep", "0.5"))
    assert is_refused(cli("rank", "scenes/mixed4a:11", *few, "--keep", "2"))
    assert is_refused(cli("rank", "scenes/mixed4a:11", *few, "--out", tmp_path / "x.html"))
    assert not (tmp_path / "x.html").exists()
    assert is_refused(cli("rank", "scenes/mixed4a:11", *few, "--against", tmp_path, "--baseline", "zero"))
