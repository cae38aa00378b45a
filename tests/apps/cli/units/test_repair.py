"""`circuits repair` and `circuits bench repair`: figures, files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from circuits.dataset.audit.repair import choice, tuning
from tests.apps.terminal import Cli, is_refused

IMAGES = ("--images", "scenes:shortcuts/tag-bus-95/balanced:160")


def test_a_repair_is_measured_and_written_out(cli: Cli, tmp_path: Path) -> None:
    units = ("--units", "conv4:54", "--units", "conv4:5")
    ran = cli(
        "repair", "scenes-shortcuts/tag-bus-95", *units, *IMAGES, "--random", "3", "--export", str(tmp_path), "--json"
    )
    assert ran.code == 0, ran.err
    repair, export = ran.json["repair"], ran.json["export"]
    assert repair["units"] == ["conv4:54", "conv4:5"] and len(repair["random"]) == 3
    assert set(repair["group_sizes"]) == set(repair["before"]["groups"]) and sum(repair["group_sizes"].values()) == 80
    assert repair["after"]["groups"]["others with tag"] > repair["before"]["groups"]["others with tag"]
    assert export["files"] == ["edited.pt2", "weights.safetensors"] and export["difference"] <= 1e-5
    assert torch.export.load(tmp_path / "edited.pt2").module()(torch.zeros(2, 3, 64, 64)).shape == (2, 8)


MINE = """
import torch
from torch import nn
import circuits

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.colors, self.relu, self.scores = nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Linear(3, 2)
        with torch.no_grad():
            self.colors.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            self.colors.bias.zero_()
            self.scores.weight.copy_(torch.tensor([[0.0, -10.0, -20.0], [0.0, 10.0, 20.0]]))
            self.scores.bias.copy_(torch.tensor([13.5, -13.5]))

    def forward(self, x):
        x = self.relu(self.colors(x))
        return {"features": x, "scores": self.scores(x.mean(dim=(2, 3)))}

def make():
    return circuits.wrap(Net().eval(), input=circuits.InputSpec(size=6), classes=["zero", "one"], output="scores")
"""


def test_what_an_audit_of_ones_own_network_proves_is_held_and_written_out(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    rng, lines = np.random.default_rng(0), ["path,group"]
    for i in range(160):
        label, cue = i % 2, bool(rng.random() < (0.75 if i % 2 else 0.25))
        pixels = rng.random((6, 6, 3)) * 0.3 + np.array(
            [0, 0.2 + 0.2 * label, 0.6 * cue]
        )  # green the class, blue a cue
        file = Path("photos", ("zero", "one")[label], f"{i}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(file)
        lines.append(f"{file.relative_to('photos')},{label} {'with' if cue else 'without'}")
    Path("groups.csv").write_text("\n".join(lines))
    own = ("mine", "--model", "mine.py:make", "--images", "photos", "--groups", "groups.csv", "--random", "2", "--json")
    audit = cli("audit", *own, "--layers", "relu", "--out", "audit")
    assert audit.code == 0, audit.err
    assert [row["verdict"] for row in audit.json["suspects"] if row["unit"].endswith("relu:2")] == ["shortcut"]
    ran = cli("repair", *own, "--audit", "audit", "--export", "out", "--way", "both")
    assert ran.code == 0, ran.err
    assert ran.json["repair"]["units"] == ["relu:2"] and ran.json["repair"]["after"]["worst_accuracy"] > 0.9
    assert ran.json["repair"]["before"]["worst_accuracy"] < 0.1
    assert ran.json["export"]["files"] == ["edited.pt2", "weights.safetensors"]
    assert ran.json["export"]["weights"] == ["scores.weight", "scores.bias"]
    green = torch.full((2, 3, 6, 6), 0.1)
    green[1, 1] += 0.4  # neither has the cue
    network = torch.export.load("out/edited.pt2").module()
    assert network(green)["scores"].argmax(dim=1).tolist() == [0, 1]
    monkeypatch.setattr(tuning, "STEPS", 10)
    tuned = cli("repair", *own, "--export", "tuned")
    assert tuned.code == 0, tuned.err
    assert tuned.json["repair"]["how"] == "tune" and set(tuned.json["repair"]["validated"]) == {"0.01", "0.03", "0.1"}
    assert tuned.json["export"]["files"] == ["edited.pt2", "weights.safetensors"]


def test_the_benchmark_holds_a_repair_against_networks_without_the_shortcut(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for learning in (choice, tuning):
        monkeypatch.setattr(learning, "STEPS", 6)
    ran = cli(
        "bench", "repair", "--networks", "tag-bus-95", "--count", "96", "--judged", "64", "--random", "2", "--json"
    )
    assert ran.code == 0, ran.err
    (row,) = ran.json["rows"]
    assert row["network"] == "tag-bus-95" and 1 <= row["units"] <= 32
    assert {"worst_before", "worst_repaired", "worst_retrained", "worst_both", "worst_tuned", "worst_unbalanced",
            "worst_clean", "worst_mixed"} <= set(row)  # fmt: skip
    assert row["gap_both"] == pytest.approx(row["worst_mixed"] - row["worst_both"], abs=1e-6)
    assert row["low_both"] <= row["worst_both"] <= row["high_both"]


@pytest.mark.parametrize(
    "options",
    [
        ("--units", "conv4:5", "--layers", "conv4", *IMAGES),
        ("--images", "scenes:shortcuts/tag-bus-95/with:16"),
        ("--units", "conv4:99", *IMAGES),
        ("--units", "conv9:1", *IMAGES),
        ("--units", "scores:1", *IMAGES),
        ("--units", "conv4:5", "--groups", "absent.csv", *IMAGES),
        ("--audit", "absent", *IMAGES),
        ("--units", "conv4:5"),
        ("--units", "conv4:5", "--how", "tune", *IMAGES),
        ("--units", "conv4:5", "--way", "both", *IMAGES),
    ],
)
def test_what_does_not_fit_is_refused(cli: Cli, options: tuple[str, ...]) -> None:
    assert is_refused(cli("repair", "scenes-shortcuts/tag-bus-95", *options))


def test_the_benchmark_refuses_what_it_does_not_have(cli: Cli) -> None:
    assert is_refused(cli("bench", "repair", "--networks", "tag-bus-94", "--count", "64"))
    assert is_refused(cli("bench", "repair", "--count", "50"))
