"""Files of other programs, made by hand, and the arithmetic of each in double precision: no code of ours in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

import sae
from tests.sae.planted import acts

D, M, K = 6, 9, 3
Weights = dict[str, Tensor]


def random(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def top(pre: Tensor, k: int) -> Tensor:
    smallest = pre.sort(dim=1, descending=True).values[:, k - 1 : k]
    return torch.where(pre >= smallest, pre, torch.zeros_like(pre)).clamp_min(0)


def assert_means(model: sae.SAE, latents: Tensor, reconstruction: Tensor, x: Tensor) -> None:
    """To 1e-6: the model's own products are taken in double precision, its parameters have single."""
    double = model.double()
    torch.testing.assert_close(double.encode(x), latents, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(double(x), reconstruction, rtol=1e-6, atol=1e-6)
    assert 0 < float((latents > 0).double().mean()) < 1  # else the comparison would prove little


def inputs(n: int = 60, d: int = D) -> Tensor:
    return acts(n, d, dtype=torch.float64)


# -- dictionary_learning ------------------------------------------------------------------------------

LINEAR = {"encoder.weight": (M, D), "encoder.bias": (M,), "decoder.weight": (D, M)}
PLAIN = {"W_enc": (D, M), "b_enc": (M,), "W_dec": (M, D), "b_dec": (D,)}
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "AutoEncoder": {**LINEAR, "bias": (D,)},
    "AutoEncoderNew": {**LINEAR, "decoder.bias": (D,)},
    "GatedAutoEncoder": {
        "decoder_bias": (D,), "encoder.weight": (M, D), "r_mag": (M,), "gate_bias": (M,), "mag_bias": (M,),
        "decoder.weight": (D, M),
    },
    "AutoEncoderTopK": {**LINEAR, "b_dec": (D,)},
    "BatchTopKSAE": {**LINEAR, "b_dec": (D,)},
    "JumpReluAutoEncoder": PLAIN,
    "MatryoshkaBatchTopKSAE": PLAIN,
}  # fmt: skip


def dictionary(name: str, seed: int = 0) -> tuple[dict[str, Any], Weights]:
    """`config.json` and `ae.pt` as that program's training leaves them."""
    tensors = random(SHAPES[name], seed)
    trainer: dict[str, Any] = {
        "trainer_class": "Trainer", "dict_class": name, "activation_dim": D, "dict_size": M, "lr": 5e-5, "layer": 8,
        "lm_name": "EleutherAI/pythia-70m-deduped", "submodule_name": "resid_post_layer_8",
    }  # fmt: skip
    if "TopK" in name:
        tensors |= {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.7)}
        trainer["k"] = K
    if name == "JumpReluAutoEncoder":
        tensors["threshold"] = torch.linspace(-0.2, 1.5, M)
    if name == "MatryoshkaBatchTopKSAE":
        tensors["group_sizes"] = torch.tensor([2, 3, 4])
    return {"trainer": trainer, "buffer": {"ctx_len": 128, "d_submodule": D}}, tensors


def as_dictionary_learning(config: dict[str, Any], weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """That program's inference."""
    name = config["trainer"]["dict_class"]
    w = {key: value.double() for key, value in weights.items()}
    plain = "W_enc" in w
    encoder, decoder = (w["W_enc"], w["W_dec"]) if plain else (w["encoder.weight"].T, w["decoder.weight"].T)
    out = w.get("b_dec", w.get("bias", w.get("decoder.bias", w.get("decoder_bias"))))
    assert out is not None
    subtracts = name not in ("AutoEncoderNew", "JumpReluAutoEncoder")
    product = (x - out if subtracts else x) @ encoder
    if name == "GatedAutoEncoder":
        latents = (product + w["gate_bias"] > 0) * torch.relu(w["r_mag"].exp() * product + w["mag_bias"])
    else:
        pre = torch.relu(product + w["b_enc" if plain else "encoder.bias"])
        if name == "AutoEncoderTopK":
            latents = top(pre, config["trainer"]["k"])
        else:
            latents = pre * (pre > w["threshold"]) if "threshold" in w else pre
    return latents, latents @ decoder + out


def put_dictionary(folder: Path, config: dict[str, Any] | None, state: Any, name: str = "ae.pt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / name)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


# -- the others ----------------------------------------------------------------------------------------


def sparse_coder() -> tuple[dict[str, Any], Weights]:
    config = {
        "activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": M, "k": K,
        "multi_topk": True, "skip_connection": False, "transcode": False, "d_in": D,
    }  # fmt: skip
    return config, random({"encoder.weight": (M, D), "encoder.bias": (M,), "W_dec": (M, D), "b_dec": (D,)})


def as_sparsify(config: dict[str, Any], weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    w = {key: value.double() for key, value in weights.items()}
    latents = top(torch.relu((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]), config["k"])
    return latents, latents @ w["W_dec"] + w["b_dec"]


def put(folder: Path, config: Any, tensors: Weights, weights: str, name: str = "cfg.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / name).write_text(json.dumps(config))
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / weights)
    return folder


def gemma() -> Weights:
    return {
        **random({"w_enc": (D, M), "w_dec": (M, D), "b_enc": (M,), "b_dec": (D,)}),
        "threshold": torch.linspace(0, 1.5, M),
    }


def as_gemma_scope(weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    w = {key: value.double() for key, value in weights.items()}
    pre = x @ w["w_enc"] + w["b_enc"]
    latents = torch.relu(pre) * (pre > w["threshold"])
    return latents, latents @ w["w_dec"] + w["b_dec"]


def put_npz(path: Path, arrays: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{key: value.numpy() if isinstance(value, Tensor) else value for key, value in arrays.items()})
    return path


def openai() -> dict[str, Any]:
    return {
        **random({"pre_bias": (D,), "latent_bias": (M,), "encoder.weight": (M, D), "decoder.weight": (D, M)}),
        "stats_last_nonzero": torch.zeros(M, dtype=torch.long),
        "latents_activation_frequency": torch.ones(M), "latents_mean_square": torch.zeros(M),
        "activation": "ReLU", "activation_state_dict": {},
    }  # fmt: skip


def flat(**changes: Any) -> tuple[dict[str, Any], Weights]:
    config = {
        "architecture": "standard", "d_in": D, "d_sae": M, "dtype": "torch.float32", "activation_fn_str": "relu",
        "apply_b_dec_to_input": True, "finetuning_scaling_factor": False, "normalize_activations": "none",
        "model_name": "gpt2-small", "hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8,
        "context_size": 128, "dataset_path": "openwebtext", "prepend_bos": True, "l1_coefficient": 5,
    }  # fmt: skip
    return {**config, **changes}, random({"W_enc": (D, M), "W_dec": (M, D), "b_enc": (M,), "b_dec": (D,)})


# -- one of each ---------------------------------------------------------------------------------------


def write_saelens(folder: Path) -> Path:
    return put(folder, *flat(), "sae_weights.safetensors") / "sae_weights.safetensors"


def write_dictionary(folder: Path) -> Path:
    return put_dictionary(folder, *dictionary("AutoEncoder")) / "ae.pt"


def write_sparsify(folder: Path) -> Path:
    return put(folder, *sparse_coder(), "sae.safetensors") / "sae.safetensors"


def write_gemma(folder: Path) -> Path:
    return put_npz(folder / "params.npz", gemma())


def write_openai(folder: Path) -> Path:
    return put_dictionary(folder, None, openai(), "8.pt") / "8.pt"


def write_circuit_tracer(folder: Path) -> Path:
    generator = torch.Generator().manual_seed(5)
    shapes = {"W_enc": (M, D), "W_dec": (M, D), "b_enc": (M,), "b_dec": (D,), "W_skip": (D, D)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return put(folder, None, tensors, "layer_3.safetensors") / "layer_3.safetensors"


WRITERS = {
    "saelens": write_saelens,
    "dictionary_learning": write_dictionary,
    "sparsify": write_sparsify,
    "gemma_scope": write_gemma,
    "openai": write_openai,
    "circuit_tracer": write_circuit_tracer,
}
