"""State dicts of overcomplete: latents and reconstructions are those of its forward pass, written out in PyTorch."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import sae

M, D, K = 12, 5, 3


def _state(kind: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    state = {"dictionary._weights": F.normalize(random(M, D)), "dictionary.multiplier": torch.tensor(0.3)}
    if kind in ("linear", "batch norm"):
        state |= {"encoder.final_block.0.weight": random(M, D), "encoder.final_block.0.bias": random(M)}
    if kind == "batch norm":
        names = ("weight", "bias", "running_mean")
        state |= {f"encoder.final_block.1.{name}": random(M) for name in names}
        state["encoder.final_block.1.running_var"] = random(M).square() + 0.1
        state["encoder.final_block.1.num_batches_tracked"] = torch.tensor(7)
    if kind == "untied":
        state["encoder.weight"] = random(M, D)
    if kind == "tied":
        state |= {f"encoder.tied_to.{name.split('.')[1]}": value for name, value in state.items()}
        state["encoder.bias"] = random(M)
    return state


def _forward(state: dict[str, Tensor], x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    dictionary = state["dictionary._weights"] * torch.exp(state["dictionary.multiplier"])
    if kind in ("linear", "batch norm"):
        codes = F.linear(x, state["encoder.final_block.0.weight"], state["encoder.final_block.0.bias"])
    elif kind == "untied":
        codes = x @ state["encoder.weight"].T
    else:
        codes = x @ dictionary.T + state["encoder.bias"]
    if kind == "batch norm":
        block = {name.rsplit(".", 1)[1]: v for name, v in state.items() if name.startswith("encoder.final_block.1.")}
        codes = F.batch_norm(codes, block["running_mean"], block["running_var"], block["weight"], block["bias"])
    top = torch.relu(codes).topk(K, dim=-1)
    latents = torch.zeros_like(codes).scatter(-1, top.indices, top.values)
    return latents, latents @ dictionary


@pytest.mark.parametrize("kind", ["linear", "batch norm", "tied", "untied"])
def test_latents_and_reconstructions_are_those_of_overcomplete(kind: str, tmp_path: Path) -> None:
    state, x = _state(kind), torch.randn(200, D, generator=torch.Generator().manual_seed(1))
    torch.save(state, tmp_path / "topk.pt")
    model = sae.load(tmp_path / "topk.pt", k=K)
    latents, reconstruction = _forward(state, x, kind)
    torch.testing.assert_close(model.encode(x), latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.decode(model.encode(x)), reconstruction, rtol=1e-4, atol=1e-5)
    assert model.metadata["source"] == {"format": "overcomplete", "k": K, "file": "topk.pt"}


def test_an_encoder_that_is_not_linear_is_refused(tmp_path: Path) -> None:
    state = _state("linear")
    for name, value in {
        "encoder.final_block.1.weight": torch.ones(M),  # layer normalization
        "encoder.mlp_blocks.0.0.weight": torch.ones(D, D),
        "thresholds": torch.ones(M),  # of its JumpSAE
    }.items():
        torch.save({**state, name: value}, tmp_path / "odd.pt")
        with pytest.raises(sae.FormatError, match=f"not those of an overcomplete TopKSAE .* {name} unknown"):
            sae.load(tmp_path / "odd.pt", k=K)


def test_a_dictionary_that_eval_has_not_normalized_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = _state("linear")
    state["dictionary._weights"] = state["dictionary._weights"] * 1.2
    torch.save(state, tmp_path / "topk.pt")
    with caplog.at_level(logging.WARNING):
        sae.load(tmp_path / "topk.pt", k=K)
    assert "1.2 to 1.2 long, not 1: it was saved before eval()" in caplog.text


@pytest.mark.parametrize("k", [0, M + 1])
def test_k_is_checked(k: int, tmp_path: Path) -> None:
    torch.save(_state("linear"), tmp_path / "topk.pt")
    with pytest.raises(sae.FormatError, match="k"):
        sae.load(tmp_path / "topk.pt", k=k)


def test_k_is_for_no_other_files(tmp_path: Path) -> None:
    run = sae.train(torch.rand(50, D), sae.TopK(latents=M, k=K), steps=1, batch_size=50)[0]
    with pytest.raises(sae.FormatError, match="k= is for files of overcomplete; a file of saelens says its own"):
        sae.load(sae.save(tmp_path / "own", run), k=2)
