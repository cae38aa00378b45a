"""A new architecture is one file: written here as the guide says, it is trained, swept, saved and tested like ours."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import sae
from sae.architectures.base import ARCHITECTURES, TrainingState
from tests.sae.planted import features, scrambled, small, sparse_sums

ROOT = Path(__file__).resolve().parents[3]
ANNEALED = '''"""P-annealing again, by another name: the exponent of an Lp penalty falls (Karvonen et al. 2024)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sae.architectures.base import START, Losses, TrainingState, register
from sae.architectures.relu import ReLU, ReLUSAE, dense_losses


@dataclass(frozen=True, kw_only=True)
class AnnealedLp(ReLU):
    """An autoencoder with the penalty `l1 * strength * sum(latent^p) / d`, where p falls from 1 to `p_end`."""

    architecture: ClassVar[str] = "annealed_lp"
    p_end: float = 0.2


@register
class AnnealedLpSAE(ReLUSAE):
    """See the configuration, `AnnealedLp`.

    Attributes:
        strength: scalar buffer that keeps the size of the penalty while p falls.
    """

    Config = AnnealedLp
    unit_decoder = True

    def __init__(self, config: AnnealedLp, d: int) -> None:
        super().__init__(config, d)
        self.register_buffer("strength", torch.ones(()))

    def exponent(self, progress: float) -> float:
        return 1 + (self.config.p_end - 1) * min(1.0, progress)

    def losses(self, x: Tensor, target: Tensor, state: TrainingState = START) -> Losses:
        latents = torch.relu(self.dense_pre(x))
        active = latents > 0  # at zero the derivative of latent^p is infinite
        now, later = (
            ((latents + 1e-6) ** self.exponent(step / state.steps) * active).sum()
            for step in (state.step, state.step + 1)
        )
        weight = state.sparsity * self.config.l1 * self.strength / target.numel()
        if self.training:  # the update of the paper: the penalty is as large with the next p as with this one
            self.strength = (self.strength * (now + 1e-6) / (later + 1e-6)).detach()
        return dense_losses(x, target, latents, latents @ self.decoder + self.decoder_bias, lp=weight * now)
'''
OWN = ANNEALED.replace("annealed_lp", "own_layout").replace("unit_decoder = True", "saelens = None")
"""The same, as an architecture that SAELens does not have."""


def imported(folder: Path, name: str, source: str) -> type[sae.SAE]:
    """The class of a file that did not exist before."""
    (folder / f"{name}.py").write_text(source)
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return sae.list_architectures()[name]


@pytest.fixture
def annealed(tmp_path: Path) -> Iterator[type[sae.SAE]]:
    yield imported(tmp_path, "annealed_lp", ANNEALED)
    ARCHITECTURES.remove("annealed_lp")


def test_an_architecture_is_one_file_of_less_than_sixty_lines() -> None:
    assert len(ANNEALED.splitlines()) < 60


def test_the_exponent_falls_over_the_training_and_the_penalty_keeps_its_size(annealed: Any) -> None:
    x = sparse_sums(features(n=20, d=10), 64)
    model = sae.build(small(annealed), 10).train()
    assert (model.exponent(0.0), model.exponent(0.5), model.exponent(1.0)) == (1.0, 0.6, pytest.approx(0.2))
    penalties = [model.losses(x, x, TrainingState(step, 10)).parts["lp"] for step in range(10)]
    torch.testing.assert_close(torch.stack(penalties), penalties[0].expand(10))
    assert float(model.strength) != 1.0


@pytest.mark.parametrize("lone", [False, True], ids=["saelens", "custom"])
def test_it_is_trained_swept_saved_and_loaded_by_what_is_there(annealed: Any, lone: bool, tmp_path: Path) -> None:
    cls = imported(tmp_path, "own_layout", OWN) if lone else annealed
    try:
        x = sparse_sums(features(n=20, d=10), 2000)
        configs = sae.sweep(small(cls), l1=[0.5, 2.0], p_end=[0.2, 1.0])
        runs = sae.train(x, configs, steps=200, batch_size=128, lr=3e-3, checkpoint=tmp_path / "c")
        assert [r.name.rsplit("-", 1)[1] for r in runs] == ["p_end0.2", "p_end1"] * 2
        assert all(run.status == "finished" and run.reports[-1].fvu < 0.9 for run in runs)
        assert runs[0].reports[-1].l0 > runs[2].reports[-1].l0
        again = sae.train(x, configs, steps=200, batch_size=128, lr=3e-3, checkpoint=tmp_path / "c")
        assert torch.equal(again[0].sae.decoder, runs[0].sae.decoder)
        back = sae.load(sae.save(tmp_path / "s", runs[0]))
        assert type(back) is cls and back.config == configs[0] and torch.equal(back.encode(x), runs[0].sae.encode(x))
        written = json.loads((tmp_path / "s" / "cfg.json").read_text())
        assert written["architecture"] == ("custom" if lone else "standard")
        torch.testing.assert_close(back.strength, runs[0].sae.strength if lone else torch.ones(()))
        if not lone:  # held as the class that it is derived from
            assert type(sae.load(sae.save(tmp_path / "d", runs[0], format="dictionary_learning"))) is cls
    finally:
        ARCHITECTURES.remove("own_layout")


def test_a_custom_file_without_its_class_or_with_other_tensors_is_refused(tmp_path: Path) -> None:
    cls = imported(tmp_path, "own_layout", OWN)
    folder = sae.save(tmp_path / "s", scrambled(small(cls)))
    ARCHITECTURES.remove("own_layout")
    with pytest.raises(sae.FormatError, match="no architecture 'own_layout'"):
        sae.load(folder)
    config = json.loads((folder / "cfg.json").read_text())
    del config["vision_circuits"]
    (folder / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(sae.FormatError, match="architecture 'custom' cannot be read; there are gated"):
        sae.load(folder)


@pytest.mark.slow
def test_an_installed_package_adds_it_to_the_command_line_and_to_the_tests(tmp_path: Path) -> None:
    """By its entry point alone, as `pip install` would leave it."""
    (tmp_path / "annealed_lp.py").write_text(ANNEALED)
    about = tmp_path / "annealed_lp-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: annealed-lp\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[vision_circuits.architectures]\nannealed_lp = annealed_lp\n")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def call(*command: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
        )
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
        return ran.stdout

    document = json.loads(
        call(
            "apps.cli", "sae", "train", "scenes/mixed3b", "--images", "scenes:20", "--architecture", "annealed_lp",
            "--penalty", "0.5", "--latents", "64", "--steps", "20", "--batch-size", "256", "--out",
            str(tmp_path / "out"), "--json",
        )
    )  # fmt: skip
    config = document["runs"][0]["config"]
    assert (config["architecture"], config["l1"], config["p_end"]) == ("annealed_lp", 0.5, 0.2)
    tests = ("architectures/test_base.py", "architectures/test_invariants.py", "formats/test_formats.py")
    ran = call("pytest", "-q", "-m", "not slow", "-k", "annealed_lp", *(f"tests/sae/{name}" for name in tests))
    assert int(re.search(r"(\d+) passed", ran)[1]) >= 11  # type: ignore[index]
