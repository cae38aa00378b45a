"""One core for pictures and texts: it knows neither, and one SAE serves a CNN and a transformer alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import circuits
import sae
from sae.data.vision_site import VisionSite
from sae.evaluation.evaluate import evaluate
from sae.steering import steer
from tests.sae.data.test_vision import scrambled

ROOT = Path(__file__).resolve().parents[2]
CORE = (
    "architectures.base", "architectures.relu", "architectures.gated", "architectures.topk",
    "architectures.batchtopk", "architectures.jumprelu", "architectures.matryoshka", "architectures.dead_latents",
    "architectures.sparse_ops", "training.input_normalization", "training.train", "training.checkpoint",
    "training.sweeps", "evaluation.metrics", "evaluation.baselines", "data.streams", "data.site", "formats",
)  # fmt: skip
FORBIDDEN = (
    "transformers",
    "torchvision",
    "circuits",
    "sae.data.vision_site",
    "sae.language",
    "zoo.images.sources",
    "zoo.networks.language",
)
PROBE = """
import importlib, json, sys, types
package = types.ModuleType("sae")  # the package without its __init__, which offers both sites
package.__path__ = [{path!r}]
sys.modules["sae"] = package
loaded = {{}}
for name in {core!r}:
    importlib.import_module("sae." + name)
    loaded[name] = [other for other in {forbidden!r} if other in sys.modules]
print(json.dumps(loaded))
"""


def test_the_core_imports_no_network_of_either_kind(tmp_path: Path) -> None:
    probe = PROBE.format(path=str(ROOT / "sae"), core=CORE, forbidden=FORBIDDEN)
    ran = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert json.loads(ran.stdout) == {name: [] for name in CORE}


@pytest.fixture(scope="module")
def sites() -> list[tuple[Any, Any]]:
    """A layer of a CNN and a stream of a transformer of the same width, each with inputs."""
    transformers = pytest.importorskip("transformers")
    from sae.language import LanguageSite
    from zoo.networks.language import LanguageModel
    from zoo.tales.tokenizer import tokenizer, vocabulary

    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary()), hidden_size=48, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = transformers.AutoModelForCausalLM.from_config(config)
    lm = LanguageModel(module, tokenizer(), name="small")
    return [
        (VisionSite(circuits.load("scenes", device="cpu"), "mixed3b"), "scenes:4@1"),
        (LanguageSite(lm, "layers.0.resid"), ["Tom liked the red bridge of Fogport. He danced and smiled."]),
    ]


def state(one: sae.SAE) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in one.state_dict().items()}


def test_one_sae_serves_both_sites_unchanged(sites: list[tuple[Any, Any]]) -> None:
    one = scrambled(48, latents=96)
    before = state(one)
    for site, inputs in sites:
        vectors = sae.collect(site, inputs).vectors
        direct = torch.cat([block.vectors for block in site.blocks(inputs)])
        assert torch.equal(one.encode(vectors), one.encode(direct)) and vectors.shape[1] == one.d
        assert evaluate(one, site, inputs, controls=False).reconstruction.fvu > 0
        seen: list[Tensor] = []
        with steer(site, one, {3: 5.0}), site.replaced(lambda acts, seen=seen: seen.append(acts.clone()) or acts):
            list(site.predictions(inputs, [None]))
        clean = next(site.blocks(inputs)).acts
        steered = seen[0][:, seen[0].shape[1] - clean.shape[1] :]  # texts are fed with a token in front
        by = (5.0 - one.encode(clean.reshape(-1, 48))[:, 3])[:, None] * one.write[3]
        assert torch.allclose(steered.reshape(-1, 48), clean.reshape(-1, 48) + by, atol=1e-4)
        assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())


def test_both_sites_train_the_same_architecture_by_the_same_call(sites: list[tuple[Any, Any]]) -> None:
    config = sae.TopK(latents=64, k=4)
    made = [sae.train(site.stream(inputs, batch_size=64), config, steps=3)[0].sae for site, inputs in sites]
    assert type(made[0]) is type(made[1]) and made[0].config == made[1].config
    assert [(name, v.shape) for name, v in state(made[0]).items()] == [
        (name, v.shape) for name, v in state(made[1]).items()
    ]
    assert [one.metadata["site"] for one in made] == ["vision", "language"]
