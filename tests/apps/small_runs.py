"""One small run of every command, on a network, images and folders of the user's own whose names need quoting."""

from __future__ import annotations

import contextlib
import io
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from apps.cli.main import main
from circuits.dataset.audit.repair import choice, tuning
from tests.apps.terminal import Ran
from zoo.cards import CARDS

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Conv2d(3, 6, 3, padding=1)
        self.layer2 = nn.Conv2d(6, 8, 3, padding=1)
        self.layer3 = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)
        self.aux = nn.Linear(8, 2)

    def forward(self, x):
        for layer in (self.layer1, self.layer2, self.layer3):
            x = torch.relu(layer(x))
        x = x.mean(dim=(2, 3))
        return {"out": self.head(x), "aux": self.aux(x)}


def make():
    torch.manual_seed(0)
    return Net()
"""
FOLDER = "Größe 2 & mehr"
OWN = """--model 'netz=mein Netz.py:make' --weights 'Gewichte ä.pth' --input '{"size": [24, 24]}' --output out"""
PHOTOS, STORE, SAES = "--images 'Fotos ü'", "--store 'Läden 1'", "SAEs ö"
SAE = f"--sae 'teile={SAES}/teile 1'"

RUNS = {
    "models": "--match scenes",
    "images": "scenes --n 26",
    "demo": "--n 26",
    "doctor": "",
    "completion": "bash",
    "verify": "library",
    "layers": f"netz {OWN}",
    "scan": f"netz {OWN} {PHOTOS} {STORE} --top 5 --samples 64",
    "label": f"scenes --images scenes:40 --layers mixed3b {STORE}",
    "find": f"netz {OWN} --positive 'Fotos ü/rote Punkte' --negative 'Fotos ü/Zäune'",
    "trace": f"netz/relu_2:4 {OWN} {PHOTOS} --random 2",
    "score": f"'Spur ß' {OWN} {PHOTOS} --random 2",
    "rank": f"netz/relu_2:4 {OWN} {PHOTOS} --random 2",
    "graph": f"netz {OWN} --images 'Fotos ü/Zäune/0.png' --layers relu_1 --layers relu_2 --width 3",
    "weights": f"netz/relu_2:4 {OWN} --source relu_1",
    "attribute": f"netz/relu_2:4 {OWN} {PHOTOS} --source relu_1 --method grad*act",
    "visualize": f"netz/relu_2:4 {OWN} --steps 2 --retries 0",
    "explain": f"netz/relu_2:4 {OWN} {STORE}",
    "publish": f"'Läden 1' --scan netz {OWN} --layers relu_2 --circuits relu_2:4",
    "tune": f"netz/relu_1 {OWN} --stimuli lines --orientations 4",
    "neighbors": f"netz/relu_1:1 {OWN}",
    "match": f"netz/relu_1 netz/relu_2 {OWN} --other-weights random {PHOTOS}",
    "diff": f"netz netz {OWN} --layer relu_1 --other-weights random {PHOTOS} --latents 8 --k 2 --steps 3",
    "factors": f"netz/relu_2:4 {OWN} --factors 2",
    "polysemantic": f"netz/relu_2 {OWN} {PHOTOS} --n 12 --draws 5 --figures 1",
    "atlas": f"netz/relu_2 {OWN} {PHOTOS} --grid 2 --icon 16 --steps 1",
    "look": f"netz/relu_2 {OWN} --images 'Fotos ü/Zäune/0.png' --groups 2 --steps 1 --pooled 0",
    "toy": "figure planes --steps 3 --seeds 1",
    "figures": "make E13 --quick --jobs 1",
    "audit": "scenes --images scenes:130@7 --classes car --layers mixed4b --top 1 --random 3 --describe 1",
    "repair": "scenes-shortcuts/tag-bus-95 --units conv4:5 --images scenes:shortcuts/tag-bus-95/balanced:64 --random 2",
    "bench repair": "--networks tag-bus-95 --count 64 --judged 64 --random 2",
    "bench circuits": "--on scenes --classes car --methods random --of units --pairs 4",
    "bench sae": f"netz/relu_2 {OWN} {PHOTOS} --held-out 0.5 --seeds 2 --steps 2 --controls untrained --latents 12",
    "sae train": f"netz/relu_2 {OWN} {PHOTOS} --latents 12 --k 2 --steps 3 --batch-size 64",
    "sae eval": f"'{SAES}/teile 1' {OWN}",
    "sae features": f"'{SAES}/teile 1' {OWN} --latents 2",
    "sae search": f"'{SAES}/wörter' --text tales:40 --says Anna",
    "steer": f"netz/relu_2~teile:1 {OWN} {SAE} {PHOTOS} --factors 0 1 --random 1",
    "explore": f"{OWN.replace('--output', '--port 8599 --output')} {STORE}",
}
"""Command -> options that are not `--out`, as a shell takes them; run in a `workspace`."""
MADE_FIRST = (
    f"trace netz/relu_2:4 {OWN} {PHOTOS} --no-score --out 'Spur ß'",
    f"scan netz {OWN} {PHOTOS} {STORE} --top 5 --samples 64",
    f"sae train netz/relu_2 {OWN} {PHOTOS} --latents 12 --k 2 --steps 3 --batch-size 64 --out '{SAES}/teile 1'",
    f"sae train tales/layers.2.resid --text tales:40 --latents 16 --k 2 --steps 2 --out '{SAES}/wörter'",
)
"""What some of them look at."""


def workspace(parent: Path) -> Path:
    """A folder with a network, its weights and images."""
    folder = parent / FOLDER
    folder.mkdir()
    (folder / "mein Netz.py").write_text(NET, encoding="utf-8")
    namespace: dict[str, object] = {}
    exec(NET, namespace)  # noqa: S102 - the text above
    net: torch.nn.Module = namespace["make"]()  # type: ignore[operator]
    torch.save(net.state_dict(), folder / "Gewichte ä.pth")
    random = np.random.default_rng(0)
    for kind in ("rote Punkte", "Zäune"):
        (folder / "Fotos ü" / kind).mkdir(parents=True)
        for i in range(14):
            pixels = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            if kind == "Zäune":
                pixels[:, i % 3 :: 5] = 255
            Image.fromarray(pixels).save(folder / "Fotos ü" / kind / f"{i}.png")
    return folder


class SmallRun(NamedTuple):
    """A run of `RUNS` that wrote into `out`."""

    arguments: list[str]
    out: Path
    ran: Ran


@contextlib.contextmanager
def at(folder: Path) -> Iterator[None]:
    """Commands run in `folder`, repairs in few steps; models of the user's own that they register are forgotten."""
    before = dict(CARDS.items())
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(CARDS, "_things", before)
        patch.setattr("apps.cli.commands.explore.serve", lambda command, environment: 0)
        for learning in (choice, tuning):  # a network is trained on a dozen times: a minute
            patch.setattr(learning, "STEPS", 4)
        yield


def run(arguments: Sequence[str]) -> Ran:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    return Ran(code, out.getvalue(), err.getvalue())


class SmallRuns:
    """Every command by name, run once, when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs: dict[str, SmallRun] = {}

    def __getitem__(self, name: str) -> SmallRun:
        if not self._runs:
            self._runs = {"": SmallRun([], self.folder, Ran(0, "", ""))}
            with at(self.folder):
                for line in MADE_FIRST:
                    ran = run(shlex.split(line))
                    assert ran.code == 0, (line, ran)
        if name not in self._runs:
            out = f"Ergebnis {name}"
            arguments = [*name.split(), *shlex.split(RUNS[name])]
            with at(self.folder):
                self._runs[name] = SmallRun(arguments, self.folder / out, run([*arguments, "--out", out]))
        return self._runs[name]
