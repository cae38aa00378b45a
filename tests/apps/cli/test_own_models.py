"""Models of the user's own on the command line: the guide is followed literally, and what is wrong is one line."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import circuits
import sae
from apps.cli.common import loading_code
from apps.cli.main import main
from circuits.errors import CircuitsError, ModelError
from sae.data.disk_shards import store
from tests.apps.terminal import ROOT, Cli, is_refused
from zoo.cards import CARDS
from zoo.networks import own

GUIDE = (ROOT / "docs" / "your-own-model.md").read_text()
FILES = {name: text for name, text in re.findall(r"```(?:py|toml)\n# (mine\.\S+)\n(.*?)```", GUIDE, re.DOTALL)}
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]
INPUT = '{"size": [96, 128], "channels": 1, "mean": 0.5, "std": 0.25}'
MODEL = ("--model", "mine.py:make")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as the guide has it: the code, its weights, its card, photographs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CARDS, "_things", dict(CARDS.items()))
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    torch.manual_seed(3)
    net = _module(tmp_path).make()
    for value in net.buffers():
        if value.is_floating_point():
            value.add_(torch.rand_like(value))
    torch.save({"state_dict": {f"module._orig_mod.{k}": v for k, v in net.state_dict().items()}}, "w.pth")
    random = np.random.default_rng(0)
    for kind in ("dots", "lines"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(6):
            pixels = random.integers(0, 255, (96, 128), dtype=np.uint8) if kind == "dots" else np.zeros((96, 128), "u1")
            pixels[:, i::7] = 255
            Image.fromarray(pixels, "L").save(tmp_path / "photos" / kind / f"{i}.png")
    yield tmp_path


def _module(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("mine", folder / "mine.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _plain(folder: Path) -> torch.nn.Module:
    """The network by plain PyTorch."""
    net = _module(folder).make()
    state = torch.load(folder / "w.pth", weights_only=True)["state_dict"]
    net.load_state_dict({k.removeprefix("module._orig_mod."): v for k, v in state.items()})
    return net.eval()


def test_the_guide_is_followed_literally(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(FILES) == 2 and len(COMMANDS) == 10
    for line in COMMANDS:
        program, *arguments = shlex.split(line)
        assert program == "circuits"
        if arguments[0] != "explore":  # it serves until it is ended; see below
            assert main(arguments) == 0, (line, capsys.readouterr().err)
    for path in ("unit/index.html", "circuit/index.html", "visualized/index.html", "parts"):
        assert (folder / path).exists()
    assert list(circuits.read_scan(folder / "store", "mine").layers)[-2:] == ["layer3", "fc"]


def test_values_are_those_of_plain_pytorch(folder: Path) -> None:
    own.add(own.parse("mine.py:make"))
    model = circuits.load("mine", device="cpu")
    assert model.classes == ["dog", "car", "house"] and model.logits == "fc"
    assert not model.module.training and not any(p.requires_grad for p in model.module.parameters())
    images = torch.rand(3, 1, 96, 128, generator=torch.Generator().manual_seed(1))
    net, outputs = _plain(folder), []
    net.layer3.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))  # type: ignore[union-attr]
    with torch.no_grad():
        expected = net((images - 0.5) / 0.25)
        assert torch.allclose(model(images), expected, atol=1e-6)
    acts = circuits.capture(model, images, at=["layer3", "fc"])
    assert torch.allclose(acts["layer3"], outputs[0], atol=1e-6)
    assert torch.allclose(acts["fc"].flatten(1), expected, atol=1e-6)


def test_a_class_is_named_on_the_command_line(cli: Cli) -> None:
    groups = cli("look", "mine/layer3", *MODEL, "--images", "photos/dots/0.png", "--classes", "car", "--json")
    assert groups.code == 0 and "car" in groups.out, groups.err


def test_the_python_on_a_page_loads_the_model(folder: Path, cli: Cli) -> None:
    options = (*MODEL, "--weights", "w.pth", "--input", INPUT)
    assert cli("trace", "mine/layer3:7", *options, "--images", "photos", "--out", "circuit").code == 0
    page = html.unescape((folder / "circuit" / "index.html").read_text())
    assert "own.add(own.parse(" in page and str(folder / "mine.py") in page
    digest, code = circuits.load("mine", weights="w.pth").digest, loading_code("mine", "w.pth")
    CARDS.remove("mine")
    names: dict[str, Any] = {"circuits": circuits}
    exec(code, names)
    assert names["model"].digest == digest and names["model"].input.mean == (0.5,)


def test_another_name_a_class_and_a_wrapped_model(folder: Path, cli: Cli) -> None:
    (folder / "helper.py").write_text("SIZE = 32\n")
    (folder / "small.py").write_text(
        "import torch, circuits\nfrom torch import nn\nfrom helper import SIZE\n\nprint('loud')\n"
        "class Small(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "instance = Small()\n"
        "def wrapped():\n    spec = circuits.InputSpec(size=SIZE)\n"
        "    return circuits.wrap(Small().eval(), spec, classes=['a', 'b', 'c', 'd'])\n"
    )
    by_class = cli("layers", "small", "--model", "small.py:Small", "--json")
    assert by_class.code == 0 and by_class.json["input"]["size"] == [224, 224]
    assert cli("layers", "small", "--model", "small.py:instance", "--json").code == 0
    named = cli("layers", "ours", "--model", "ours=small.py:wrapped", "--json")
    assert named.json["model"] == "ours" and named.json["input"]["size"] == [32, 32]
    module = cli("layers", "small", "--model", "small:wrapped", "--json")
    assert module.code == 0 and module.json["model"] == "small", module.err
    both = ("--model", "mine.py:make", "--model", "ours=small.py:wrapped")
    matched = cli("match", "mine/layer3", "ours/1", *both, "--images", "photos", "--json")
    assert matched.code == 0, matched.err
    own.add(own.parse("ours=small.py:wrapped"))
    assert circuits.load("ours").classes == ["a", "b", "c", "d"]
    with pytest.raises(ModelError, match="4 class scores .*2 names"):
        circuits.wrap(circuits.load("ours").module, circuits.InputSpec(size=32), classes=["a", "b"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "none.py:make"), r"no file .*none\.py"),
        (("--model", "mine.py:mak"), r"no 'mak'\. Nearest: make"),
        (("--model", "mine.py"), r"mine\.py:make"),
        (("--model", "mine"), r"FILE\.py:NAME"),
        (("--model", "scenes=mine.py:make"), "already"),
        (("--model", "a(b)=mine.py:make"), "cannot be called"),
        (("--model", "mine.py:Net"), r"Net\(width\) takes arguments"),
        (("--model", "mine.py:torch"), "is a module"),
        (("--model", "other.py:number"), "gives a int"),
        (("--model", "other.py:broken"), r"ZeroDivisionError.*other\.py, line 3"),
        (("--model", "bad.py:make"), "cannot be read as Python"),
        (("--model", "stops.py:make"), r"cannot be imported: SystemExit.*stops\.py, line 1"),
        (("--model", "no_package.no_module:make"), "cannot be imported: ModuleNotFoundError"),
        ((*MODEL, "--weights", "none.pth"), r"no weights file at none\.pth"),
        ((*MODEL, "--weights", "other.pth"), r"missing \(fc\.bias\), the file has fc\.bia"),
        ((*MODEL, "--weights", "code.pth"), "only tensors are loaded"),
        ((*MODEL, "--input", "{"), "is not JSON"),
        ((*MODEL, "--input", '{"chanels": 1}'), "Nearest: channels"),
        ((*MODEL, "--input", '{"size": "big"}'), "size cannot be"),
        ((*MODEL, "--input", '{"channels": 3}'), "Say how it is fed"),
        ((*MODEL, "--card", "none.toml"), r"no card file at .*none\.toml"),
        ((*MODEL, "--card", "wrong.toml"), "no use for 'clases'. Nearest: classes"),
        ((*MODEL, "--card", "few.toml"), "3 class scores .*2 names"),
        (("--input", INPUT), "give it, --model"),
        ((), "no model called 'mine'.*--model FILE"),
    ],
)
def test_what_is_wrong_is_one_line(folder: Path, cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    (folder / "other.py").write_text("def number(): return 1\ndef broken():\n    return 1 / 0\n")
    (folder / "bad.py").write_text("def make(:\n")
    (folder / "stops.py").write_text("raise SystemExit(0)\ndef make(): ...\n")
    state = _plain(folder).state_dict()
    state["fc.bia"] = state.pop("fc.bias")
    torch.save(state, "other.pth")
    torch.save(torch.nn.Linear(2, 2), "code.pth")
    (folder / "wrong.toml").write_text("clases = ['a']\n")
    (folder / "few.toml").write_text("classes = ['a', 'b']\n" + FILES["mine.card.toml"].partition("weights")[2][11:])
    stem = re.search(r"(\w+)(\.py)?:", arguments[1]) if arguments else None
    ran = cli("layers", "mine" if stem is None else stem[1], *arguments)
    assert is_refused(ran) and re.search(message, ran.err), ran.err


def test_a_store_tells_which_code_to_name_and_runs_none(folder: Path, cli: Cli) -> None:
    assert cli("scan", "mine", *MODEL, "--images", "photos").code == 0
    card = json.loads((folder / "store" / "mine" / "manifest.json").read_text())["card"]
    assert card["classes"] == ["dog", "car", "house"] and card["own"] == f"{folder / 'mine.py'}:make"
    CARDS.remove("mine")
    (folder / "mine.py").write_text("raise RuntimeError('this must not run')\n")
    refused = cli("explain", "mine/layer3:7", "--store", "store")
    assert is_refused(refused) and refused.err.endswith(f"give --model {folder / 'mine.py'}:make\n")
    (folder / "mine.card.toml").unlink()
    refused = cli("explain", "mine/layer3:7", "--store", "store")
    options = shlex.split(refused.err.partition(" give ")[2])
    assert options[:3] == ["--model", f"{folder / 'mine.py'}:make", "--input"]
    expected = {name: value if isinstance(value, list | int) else [value] for name, value in json.loads(INPUT).items()}
    assert json.loads(options[3]) == expected


def test_an_sae_tells_which_code_to_name(folder: Path, cli: Cli) -> None:
    """What its file keeps opens the network again, as it was fed and with its weights, and runs nothing unasked."""
    (folder / "mine.card.toml").unlink()
    given = (*MODEL, "--input", INPUT, "--weights", "w.pth")
    train = ("sae", "train", "mine/layer3", *given, "--images", "photos", "--latents", "16", "--k", "2", "--steps", "3",
             "--batch-size", "64", "--out", "saes/mine")  # fmt: skip
    trained = cli(*train)
    assert trained.code == 0, trained.err
    CARDS.remove("mine")
    for verb in ("features", "eval"):
        refused = cli("sae", verb, "saes/mine")
        assert is_refused(refused) and "whose code is not run unasked" in refused.err
        options = shlex.split(refused.err.partition(" give ")[2])
        assert options[:2] == ["--model", f"{folder / 'mine.py'}:make"]
        assert options[-2:] == ["--weights", str(folder / "w.pth")]
        assert cli("sae", verb, "saes/mine", *options, "--out", f"out-{verb}").code == 0
        CARDS.remove("mine")
    page = (folder / "out-features" / "index.html").read_text()
    assert "own.add(own.parse(" in page and "weights=" in page
    printed = cli("sae", "eval", "saes/mine", *options).out
    assert "nan" not in printed and "no class of these images is known" in printed and "agreement" in printed


def test_an_sae_of_the_python_api_keeps_the_card_by_itself(folder: Path, cli: Cli) -> None:
    own.add(own.parse("mine.py:make", weights="w.pth"))
    site = sae.VisionSite(circuits.load("mine"), "layer3")
    run = sae.train(site.stream("photos", batch_size=64), sae.TopK(latents=16, k=2), steps=2)[0]
    saved = sae.load(sae.save(folder / "saes" / "python", run))
    assert saved.metadata["card"] == json.loads(json.dumps(site.card))
    CARDS.remove("mine")
    refused = cli("sae", "eval", "saes/python")
    assert is_refused(refused) and f"give --model {folder / 'mine.py'}:make" in refused.err


def test_a_fine_tuned_torchvision_network_has_its_number_of_classes(folder: Path, cli: Cli) -> None:
    torchvision = pytest.importorskip("torchvision")
    net = torchvision.models.squeezenet1_1(num_classes=4)
    torch.save({f"module.{k}": v for k, v in net.state_dict().items()}, folder / "s4.pth")
    layers = cli("layers", "torchvision/squeezenet1_1", "--weights", "s4.pth", "--all", "--json")
    assert layers.code == 0, layers.err
    assert layers.json["layers"][-1]["channels"] == 4
    model = circuits.load("torchvision/squeezenet1_1", weights=folder / "s4.pth")
    assert model.classes == []


def test_the_server_of_the_explorer_is_given_the_model(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("streamlit")
    from apps.cli.commands import explore
    from apps.explorer.server.settings import VARIABLE

    served: list[dict[str, str]] = []
    monkeypatch.setattr(explore, "serve", lambda _command, environment: served.append(environment) or 0)
    explored = cli("explore", *MODEL, "--weights", "w.pth", "--images", "photos")
    assert explored.code == 0, explored.err
    settings = json.loads(served[0][VARIABLE])
    assert settings["model"] == "mine" and settings["weights"] == str(folder / "w.pth")
    assert json.loads(served[0][own.VARIABLE])[0]["target"] == str(folder / "mine.py")
    assert is_refused(cli("explore", "--model", "mine.py:mak"))


def test_a_process_started_by_a_command_knows_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in own.to_environment([own.parse("mine.py:make", weights="w.pth")]).items():
        monkeypatch.setenv(name, value)
    own._add_from_environment()
    assert circuits.load("mine").classes == ["dog", "car", "house"]


def test_a_job_of_the_explorer_scans_the_model(folder: Path) -> None:
    pytest.importorskip("streamlit")
    from apps.explorer.server.settings import Settings

    job = folder / "store" / ".jobs" / "a"
    job.mkdir(parents=True)
    options = {"model": "mine", "images": str(folder / "photos")}
    (job / "job.json").write_text(json.dumps({"kind": "scan", "asked": options, "begun": 0}))
    settings = Settings(store=folder / "store", model="mine", weights=str(folder / "w.pth"))
    models = own.to_environment([own.parse("mine.py:make", weights="w.pth")])
    environment = {**os.environ, **models, **settings.to_environment(), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "apps.explorer.server.worker", str(folder / "store"), "a", str(os.getpid())]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
    assert circuits.read_scan(folder / "store", "mine").manifest["card"]["weights"].startswith(str(folder / "w.pth"))


def test_the_explorer_opens_on_the_model_and_lists_what_it_does_not_know(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    testing = pytest.importorskip("streamlit.testing.v1")
    from apps.explorer.pages import PAGES
    from apps.explorer.server.settings import VARIABLE
    from tests.apps.explorer.conftest import APP, settled

    assert cli("scan", "mine", *MODEL, "--images", "photos").code == 0

    def page(name: str, **settings: object) -> Any:
        monkeypatch.setenv(VARIABLE, json.dumps({"store": str(folder / "store"), **settings}))
        at = testing.AppTest.from_file(str(APP), default_timeout=60)
        at.switch_page(str(PAGES[name].file))
        return settled(at.run())

    opened = page("unit", model="mine", weights=str(folder / "w.pth"))
    assert not opened.exception and not opened.error, opened.error
    captions = [element.value for element in opened.caption]
    assert any("12 images of photos" in caption and caption.startswith("mine") for caption in captions), captions
    CARDS.remove("mine")
    home = page("home")
    assert not home.exception and not home.error, home.error
    assert any("mine" in block.value and "not given" in block.value for block in home.markdown)
    assert any(f"--model {folder / 'mine.py'}:make" in block.value for block in home.code)


def test_an_output_is_named_on_the_command_line_or_in_the_card(folder: Path, cli: Cli) -> None:
    (folder / "heads.py").write_text(
        "from torch import nn\n\n\n"
        "class Heads(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv, self.main, self.aux = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), nn.Linear(4, 2)\n\n"
        "    def forward(self, x):\n"
        "        x = self.conv(x).relu().mean((2, 3))\n"
        "        return {'out': self.main(x), 'aux': self.aux(x)}\n"
    )
    options = ("--model", "heads.py:Heads", "--input", '{"size": 24}')
    for output, layer in (("out", "main"), ("aux", "aux")):
        document = cli("layers", "heads", *options, "--output", output, "--json").json
        assert document["layers"][-1]["name"] == layer
    address = ("weights", "heads/logits:1", *options)
    for arguments, message in (
        (address, "gives 2 outputs ('out', 'aux')"),
        ((*address, "--output", "nope"), "selects nothing: the network gives 'out', 'aux'"),
        (("layers", "scenes", "--output", "out"), "describe a model of your own"),
    ):
        ran = cli(*arguments)
        assert is_refused(ran) and message in ran.err
    (folder / "heads.card.toml").write_text('output = "aux"\n')
    assert cli(*address, "--json").code == 0
    assert circuits.load("heads").logits == "aux"


def _next(printed: str) -> list[str]:
    (line,) = (line for line in printed.splitlines() if line.startswith("next: "))
    program, *arguments = shlex.split(line.removeprefix("next: "))
    assert program == "circuits"
    return arguments


def test_the_command_that_comes_next_runs_also_with_spaces_in_names(folder: Path, cli: Cli) -> None:
    (folder / "photos").rename(folder / "my photos")
    scanned = cli("scan", "mine", *MODEL, "--images", "my photos", "--store", "my store")
    found = cli("find", "mine", *MODEL, "--positive", "my photos/dots", "--negative", "my photos/lines")
    split = cli("polysemantic", "mine/layer3", *MODEL, "--images", "my photos")
    trained = cli("sae", "train", "mine/layer3", *MODEL, "--images", "my photos", "--latents", "16", "--k", "2",
                  "--steps", "3", "--batch-size", "64", "--out", "my parts")  # fmt: skip
    for ran in (scanned, found, trained, split):
        assert ran.code == 0, ran.err
        after = cli(*_next(ran.out))
        # so few images may be too few for a unit; that is said
        assert after.code == 0 or "active on fewer than" in after.err, (ran.out, after.err)
    assert cli("sae", "features", "my parts", *MODEL, "--images", "my photos").code == 0
    latent = ("explain", "mine/layer3~my-parts:3", *MODEL, "--sae", "my parts")
    assert cli(*latent, "--store", "my parts/scan").code == 0
    refused = cli(*latent, "--store", "my store")
    assert is_refused(refused) and "`circuits sae features SAE` scans its latents" in refused.err


def test_a_class_is_a_unit_of_the_layer_of_class_scores(folder: Path, cli: Cli) -> None:
    assert cli("scan", "mine", *MODEL, "--images", "photos", "--store", "store").code == 0
    for address in ("mine/fc:car", "mine/logits:car"):
        traced = cli("trace", address, *MODEL, "--images", "photos", "--no-score", "--json")
        assert traced.code == 0 and traced.json["target"] == "mine/fc:1", traced.err
    assert cli("explain", "mine/fc:house", *MODEL, "--store", "store", "--json").json["unit"] == "mine/fc:2"
    refused = cli("trace", "mine/fc:boat", *MODEL, "--images", "photos")
    assert is_refused(refused) and "no class 'boat'" in refused.err
    assert is_refused(cli("trace", "mine/layer3:car", *MODEL, "--images", "photos"))
    own.add(own.parse("mine.py:make"))
    assert str(circuits.load("mine").unit("fc:car")) == "mine/fc:1"


def test_a_circuit_tells_which_code_to_name(folder: Path, cli: Cli) -> None:
    assert cli("trace", "mine/layer3:2", *MODEL, "--images", "photos", "--no-score", "--out", "my circuit").code == 0
    CARDS.remove("mine")
    refused = cli("score", "my circuit", "--images", "photos")
    assert is_refused(refused) and f"give --model {folder / 'mine.py'}:make" in refused.err
    assert cli("score", "my circuit", *MODEL, "--images", "photos", "--random", "2").code == 0


HEADS = """
import torch
from torch import nn


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 5, 2), nn.Conv2d(8, 8, 3)
        self.main, self.aux = nn.Linear(8, 5), nn.Linear(8, 2)

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.conv1(x)))).mean((2, 3))
        return {"out": self.main(x), "aux": [self.aux(x)]}
"""


@pytest.mark.parametrize(("output", "scores"), [("out", "main"), ("aux.0", "aux")])
def test_one_head_of_several_is_opened_by_figures_and_the_explorer(
    output: str, scores: str, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("streamlit")
    from apps.cli.commands import explore

    (folder / "heads.py").write_text(HEADS)
    given = ("--model", "heads.py:Heads", "--input", '{"size": 32}', "--output", output)
    drawn = cli("figures", "make", "E13", "--quick", *given, "--images", "photos", "--out", "figures")
    assert drawn.code == 0 and "1 made" in drawn.out, drawn.err
    refused = cli("figures", "make", "E13", "--quick", *given[:-1], "nope", "--images", "photos", "--out", "figures")
    assert is_refused(refused) and "selects nothing: the network gives 'out', 'aux.0'" in refused.err
    served: list[dict[str, str]] = []
    monkeypatch.setattr(explore, "serve", lambda _command, environment: served.append(environment) or 0)
    assert cli("explore", *given, "--images", "photos").code == 0
    CARDS.remove("heads")
    monkeypatch.setenv(own.VARIABLE, served[0][own.VARIABLE])
    own._add_from_environment()
    assert circuits.load("heads").logits == scores
    assert cli("scan", "heads", *given, "--images", "photos", "--store", "store").code == 0
    CARDS.remove("heads")
    refused = cli("explain", "heads/conv2:1", "--store", "store")
    options = shlex.split(refused.err.partition(" give ")[2])
    assert options[options.index("--output") + 1] == output


def test_a_card_of_one_endless_key_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "net.card.toml").write_text(".".join("a" * 50_000) + " = 1\n")
    with pytest.raises(ModelError, match="more than 200 dots"):
        own._read_card(tmp_path / "net.card.toml")


def test_activations_are_kept_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    site = sae.VisionSite(circuits.load("scenes"), "conv2d0")
    for name in ("file", "loop", "file/below"):
        with pytest.raises(CircuitsError, match=r"cannot write into .*; give a folder"):
            store(site, "scenes:2", tmp_path / name)
