"""Files of other programs mean here what they mean there, and what is damaged or not representable is said to be."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import sae
from sae.formats import LAYOUTS
from tests.sae.foreign import (
    WRITERS,
    D,
    K,
    M,
    Weights,
    as_gemma_scope,
    as_sparsify,
    assert_means,
    dictionary,
    flat,
    gemma,
    inputs,
    openai,
    put,
    put_dictionary,
    put_npz,
    sparse_coder,
    write_dictionary,
    write_sparsify,
)
from tests.sae.planted import ARCHITECTURES, acts, scrambled

# -- sparsify -----------------------------------------------------------------------------------------


def test_saes_of_sparsify_mean_the_same_here(tmp_path: Path) -> None:
    config, tensors = sparse_coder()
    x = inputs()
    model = sae.load(put(tmp_path / "layers.3.mlp", config, tensors, "sae.safetensors"))
    assert model.config == sae.TopK(latents=M, k=K)
    assert model.metadata["source"] == {"format": "sparsify", "hookpoint": "layers.3.mlp", "config": config}
    assert_means(model, *as_sparsify(config, tensors, x), x)
    half = {key: value.bfloat16() for key, value in tensors.items()}
    stated = {**config, "num_latents": 0, "expansion_factor": 1.5}
    model = sae.load(put(tmp_path / "bf16", stated, half, "sae.safetensors"))
    assert_means(model, *as_sparsify(config, half, x), x)


def test_sparse_coders_that_are_no_saes_are_refused(tmp_path: Path) -> None:
    config, tensors = sparse_coder()
    skip = {**tensors, "W_skip": torch.zeros(D, D)}
    cases: list[tuple[dict[str, Any], Weights, str]] = [
        ({**config, "transcode": True}, tensors, "it is a transcoder"),
        ({**config, "skip_connection": True}, skip, "skip connection"),
        (config, skip, "skip connection"),
        ({**config, "activation": "groupmax"}, tensors, "activation 'groupmax' cannot be read"),
        ({**config, "signed": True}, tensors, "negative latents"),
        ({k: v for k, v in config.items() if k != "k"}, tensors, "has no k"),
        ({**config, "k": 10}, tensors, "k=10 is more than the 9 latents"),
        ({**config, "num_latents": 8}, tensors, "says d_in=6 and 8 latents"),
        ({**config, "d_in": 7}, tensors, "says d_in=7"),
        (config, {k: v for k, v in tensors.items() if k != "W_dec"}, "W_dec missing"),
        (config, {**tensors, "W_dec": tensors["W_dec"].T}, r"W_dec is \(6, 9\)"),
        (config, {**tensors, "W_dec": tensors["W_dec"] / 0}, "W_dec has values that are not finite"),
    ]
    for i, (written, content, message) in enumerate(cases):
        with pytest.raises(sae.FormatError, match=message):
            sae.load(put(tmp_path / str(i), written, content, "sae.safetensors"))
    with pytest.raises(sae.FormatError, match=r"there is no cfg.json"):
        sae.load(put(tmp_path / "alone", None, tensors, "sae.safetensors"))


# -- Gemma Scope --------------------------------------------------------------------------------------


@pytest.mark.parametrize("upper", [False, True])
def test_gemma_scope_means_the_same_here(upper: bool, tmp_path: Path) -> None:
    tensors, x = gemma(), inputs()
    names = {key: key.replace("w_", "W_") if upper else key for key in tensors}
    arrays: dict[str, Any] = {names[key]: value for key, value in tensors.items()}
    arrays["scaling_factor"] = np.ones(M, dtype=np.float32)
    file = put_npz(tmp_path / "layer_20/width_16k/average_l0_71/params.npz", arrays)
    model = sae.load(file.parent)
    assert model.config == sae.JumpReLU(latents=M)
    assert model.metadata["source"]["folder"] == "layer_20/width_16k/average_l0_71"
    assert_means(model, *as_gemma_scope(tensors, x), x)
    file.rename(tmp_path / "mine.npz")
    assert_means(sae.load(tmp_path / "mine.npz"), *as_gemma_scope(tensors, x), x)


def test_the_second_edition_of_gemma_scope_means_the_same_here(tmp_path: Path) -> None:
    tensors, x = gemma(), inputs()
    config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "hf_hook_point_in": "model.layers.13.output"}
    model = sae.load(put(tmp_path / "a", config, tensors, "params.safetensors", "config.json"))
    assert model.metadata["source"]["config"]["model_name"] == "gemma-v3-1b-pt"
    assert_means(model, *as_gemma_scope(tensors, x), x)
    for i, (changes, extra) in enumerate(
        [({"hf_hook_point_out": "model.layers.13.mlp"}, {}), ({}, {"affine_skip_connection": torch.zeros(D, D)})]
    ):
        written = put(
            tmp_path / str(i), {**config, **changes}, {**tensors, **extra}, "params.safetensors", "config.json"
        )
        with pytest.raises(sae.FormatError, match="it is a transcoder"):
            sae.load(written)


def test_parameters_that_are_not_gemma_scopes_say_why(tmp_path: Path) -> None:
    tensors = gemma()
    cases: list[tuple[dict[str, Any], str]] = [
        ({k: v for k, v in tensors.items() if k != "threshold"}, "threshold missing"),
        ({**tensors, "W_enc": tensors["w_enc"]}, "differ in case alone"),
        ({**tensors, "scaling_factor": np.full(M, 2.0)}, "scaling_factor is not 1"),
        ({**tensors, "w_enc": tensors["w_enc"].T}, r"w_dec is \(9, 6\); with w_enc \(9, 6\)"),
        ({**tensors, "b_enc": tensors["b_enc"] * torch.nan}, "b_enc has values that are not finite"),
        ({**tensors, "b_enc": np.array(["x"] * M)}, "other things than numbers: b_enc is <U1"),
        ({**tensors, "b_enc": np.arange(M)}, "b_enc holds int64"),
    ]
    for i, (arrays, message) in enumerate(cases):
        with pytest.raises(sae.FormatError, match=message):
            sae.load(put_npz(tmp_path / str(i) / "params.npz", arrays).parent)
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(sae.FormatError, match="holds one array"):
        sae.load(tmp_path / "one.npz")


# -- openai -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_saes_of_openai_mean_the_same_here(tied: bool, tmp_path: Path) -> None:
    state, x = openai(), inputs()
    if tied:
        state["decoder.linear.weight"] = state["encoder.weight"]
        state["decoder.weight"] = state["encoder.weight"].T
    w = {key: value.double() for key, value in state.items() if isinstance(value, Tensor)}
    latents = torch.relu((x - w["pre_bias"]) @ w["encoder.weight"].T + w["latent_bias"])
    if tied:
        del state["decoder.weight"]
    torch.save(state, tmp_path / "8.pt")
    model = sae.load(tmp_path / "8.pt")
    assert model.metadata == {"source": {"format": "openai", "file": "8.pt"}}
    assert_means(model, latents, latents @ w["decoder.weight"].T + w["pre_bias"], x)


def test_saes_of_openai_that_normalize_each_input_are_refused(tmp_path: Path) -> None:
    topk = {"k": 32, "postact_fn": "ReLU"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"activation": "TopK", "activation_state_dict": topk}, r"normalized one by one \(LayerNorm\)"),
        ({"activation": "Identity"}, "activation 'Identity' cannot be read"),
        ({"latent_bias": torch.zeros(3)}, r"latent_bias is \(3,\)"),
        ({"encoder.weight": "none"}, "encoder.weight: not a tensor"),
    ]
    for changes, message in cases:
        torch.save({**openai(), **changes}, tmp_path / "8.pt")
        with pytest.raises(sae.FormatError, match=message):
            sae.load(tmp_path / "8.pt")


# -- SAELens before its version 6 ---------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [False, True])
def test_configurations_from_before_saelens_6_are_read(scaled: bool, tmp_path: Path) -> None:
    config, tensors = flat(finetuning_scaling_factor=scaled)
    factors = torch.linspace(0.5, 2, M) if scaled else torch.ones(M)  # ones were written for a while, and mean nothing
    w = {key: value.double() for key, value in tensors.items()}
    x = inputs()
    latents = torch.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    model = sae.load(put(tmp_path / "f", config, {**tensors, "scaling_factor": factors}, "sae_weights.safetensors"))
    assert model.metadata == {
        "model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_pre", "context_size": 128,
        "dataset_path": "openwebtext", "prepend_bos": True,
    }  # fmt: skip
    assert_means(model, latents, (latents * factors.double()) @ w["W_dec"] + w["b_dec"], x)


def test_old_configurations_that_leave_a_question_are_refused(tmp_path: Path) -> None:
    config, tensors = flat()
    two = {**tensors, "scaling_factor": torch.full((M,), 2.0)}
    cases: list[tuple[dict[str, Any], Weights, str]] = [
        (config, two, "finetuning_scaling_factor is not set"),
        ({**config, "finetuning_scaling_factor": True}, {**two, "scaling_factor": torch.ones(2) * 2}, r"is \(2,\)"),
        ({**config, "normalize_activations": True}, tensors, "normalize_activations is 'True'"),
        ({**config, "architecture": "topk", "k": 2, "rescale_acts_by_decoder_norm": True},
         {**tensors, "W_dec": torch.zeros(M, D)}, "a row of W_dec is zero"),
    ]  # fmt: skip
    for i, (written, content, message) in enumerate(cases):
        with pytest.raises(sae.FormatError, match=message):
            sae.load(put(tmp_path / str(i), written, content, "sae_weights.safetensors"))


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for i, content in enumerate([Trap(sprung), {"encoder.weight": Trap(sprung)}, nn.Linear(3, 3)]):
        folder = put_dictionary(tmp_path / str(i), dictionary("AutoEncoder")[0], content)
        with pytest.raises(sae.FormatError, match="never unpickled"):
            sae.load(folder)
    (tmp_path / "n").mkdir()
    np.savez(tmp_path / "n/params.npz", w_enc=np.array([Trap(sprung)], dtype=object))
    with pytest.raises(sae.FormatError, match="params.npz cannot be read"):
        sae.load(tmp_path / "n")
    assert not sprung.exists()


# -- which layout it is -------------------------------------------------------------------------------


every_layout = pytest.mark.parametrize("name", [*WRITERS, *(name for name in LAYOUTS if name not in WRITERS)])


def written(name: str, folder: Path) -> Path:
    """A file of a layout: one of another program, or for a new layout one that it writes."""
    if name in WRITERS:
        return WRITERS[name](folder)
    if not LAYOUTS[name].writable:
        pytest.skip("it is only read")
    return sae.save(folder, scrambled(ARCHITECTURES[0], d=D), format=name) / LAYOUTS[name].weights


@every_layout
def test_every_layout_is_recognized_by_itself(name: str, tmp_path: Path) -> None:
    file = written(name, tmp_path / "f")
    x = acts(20, D)
    named = sae.load(file, format=name)
    assert torch.equal(sae.load(file)(x), named(x))
    if name != "openai":  # whose file has any name
        assert torch.equal(sae.load(file.parent)(x), named(x))


@every_layout
def test_a_truncated_file_of_any_layout_is_one_clear_error(name: str, tmp_path: Path) -> None:
    file = written(name, tmp_path / "f")
    whole = file.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.6, 0.9, 0.99):
        file.write_bytes(whole[: math.floor(share * len(whole))])
        with pytest.raises(sae.FormatError, match="truncated|damaged") as caught:
            sae.load(file)
        assert str(file) in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["saelens", "dictionary_learning", "sparsify"])
def test_odd_settings_are_an_error_or_make_no_difference(name: str, tmp_path: Path) -> None:
    """Whatever stands in a configuration: no other error than a FormatError, and no SAE that is something else."""
    file = WRITERS[name](tmp_path / "f")
    written = next(p for p in file.parent.iterdir() if p.suffix == ".json")
    config, x = json.loads(written.read_text()), acts(5, D)
    wanted = sae.load(file.parent)(x)
    refused = 0
    for odd in (None, "x", -1, 0, 2.5, True, [], [1], {}, {"a": 1}, float("nan"), 10**400):
        groups = [config, config["trainer"]] if "trainer" in config else [config]
        for group in groups:
            for key in list(group):
                kept = group[key]
                group[key] = odd
                written.write_text(json.dumps(config))
                group[key] = kept
                try:
                    model = sae.load(file.parent)
                except sae.FormatError:
                    refused += 1
                else:
                    meant = key in ("apply_b_dec_to_input", "finetuning_scaling_factor", "k")
                    assert meant or torch.equal(model(x), wanted), (key, odd)
    assert refused > 10


@every_layout
def test_asked_for_as_another_layout_a_file_is_refused(name: str, tmp_path: Path) -> None:
    file = written(name, tmp_path / "f")
    for other in LAYOUTS.keys() - {name}:
        with pytest.raises(sae.FormatError):
            sae.load(file.parent if name != "openai" else file, format=other)


def test_what_holds_no_sae_says_what_it_holds_and_what_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()

    def message(at: Path = folder) -> str:
        with pytest.raises(sae.FormatError) as caught:
            sae.load(at)
        return str(caught.value)

    assert "the folder is empty" in message()
    assert all(f"{name}: {layout.description}" in message() for name, layout in LAYOUTS.items())
    (folder / "notes.txt").write_text("mine")
    assert "it holds no SAE, but notes.txt" in message()
    assert "a file of no known layout" in message(folder / "notes.txt")
    (folder / "cfg.json").write_text("{}")
    assert "half of an SAE" in message()
    for name, layout in {"final.safetensors": "Llama Scope", "sae.pt": "BatchTopK"}.items():
        (folder / name).write_bytes(b"")
        assert f"{name}, the layout of {layout}, which is not read" in message()
        (folder / name).unlink()
    torch.save({"dictionary._weights": torch.zeros(2, 2), "encoder.weight": torch.zeros(2, 2)}, folder / "a.pt")
    assert "overcomplete says neither which kind of SAE it is nor its k: give k=" in message(folder / "a.pt")
    torch.save({"conv.weight": torch.zeros(2, 2)}, folder / "a.pt")
    assert "it holds conv.weight" in message(folder / "a.pt")
    torch.save([1, 2], folder / "a.pt")
    assert "it holds a list" in message(folder / "a.pt")
    with pytest.raises(sae.FormatError, match="it is not a file that torch wrote"):
        sae.load(folder, format="openai")


def test_the_folders_of_a_run_are_named(tmp_path: Path) -> None:
    for i in range(6):
        write_dictionary(tmp_path / "run" / f"trainer_{i}")
    with pytest.raises(sae.FormatError, match="no SAE itself, but its folders do: trainer_0, trainer_1, .*…"):
        sae.load(tmp_path / "run")
    with pytest.raises(sae.FormatError) as error:  # the folder above a run's, as sparsify makes one
        sae.load(tmp_path)
    assert "its folders do: run/trainer_0, " in str(error.value)
    assert sae.load(str(error.value).rsplit("load one of them, ", 1)[1]).latents


def test_files_of_two_layouts_in_one_folder_are_not_guessed_between(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "f")
    write_dictionary(tmp_path / "f")
    with pytest.raises(sae.FormatError, match="more than one layout: dictionary_learning, sparsify; say which"):
        sae.load(tmp_path / "f")
    assert isinstance(sae.load(tmp_path / "f", format="sparsify").config, sae.TopK)
    assert isinstance(sae.load(tmp_path / "f", format="dictionary_learning").config, sae.ReLU)


def test_formats_that_are_not_there_or_not_written_are_named(tmp_path: Path) -> None:
    model = scrambled(ARCHITECTURES[0])
    with pytest.raises(sae.FormatError, match="no format 'sparsfy'. Nearest: sparsify, .* There are: saelens, "):
        sae.load(write_sparsify(tmp_path / "f"), format="sparsfy")
    with pytest.raises(sae.FormatError, match="sparsify is only read, not written; write one of saelens, .*diction"):
        sae.save(tmp_path / "x", model, format="sparsify")
    with pytest.raises(sae.FormatError, match="no place for densities"):
        sae.save(tmp_path / "x", model, format="dictionary_learning", density=torch.zeros(24))
    assert not (tmp_path / "x").exists()
    for name in ("saelens", "dictionary_learning"):
        for other in WRITERS.keys() - {name}:
            file = WRITERS[other](tmp_path / other)
            before = {p.name: p.read_bytes() for p in file.parent.iterdir()}
            with pytest.raises(sae.FormatError, match="other things in it"):
                sae.save(file.parent, model, format=name)
            assert {p.name: p.read_bytes() for p in file.parent.iterdir()} == before


def test_an_architecture_that_dictionary_learning_lacks_is_not_written_as_something_else(tmp_path: Path) -> None:
    """As SAELens's layout it is written as "custom": see test_new_architecture."""

    @dataclass(frozen=True, kw_only=True)
    class Cubic(sae.SAEConfig):
        architecture = "cubic"

    cubic = type("CubicSAE", (sae.SAE,), {"Config": Cubic})(Cubic(latents=24), 10)
    with pytest.raises(sae.FormatError, match="like 'cubic'; it can hold batchtopk, gated, jumprelu"):
        sae.save(tmp_path / "x", cubic, format="dictionary_learning")
    assert not (tmp_path / "x").exists()


def test_metadata_of_a_convolutional_site_survive_both_written_layouts(tmp_path: Path) -> None:
    about = {
        "model": "squeezenet-1.1", "weights_sha256": "ab" * 32, "layer": "fire5", "branch": None, "rectified": True,
        "channels": list(range(10)), "position_sampling": {"rule": "by magnitude", "seed": 3, "edges": False},
        "stride": [8, 8], "receptive_field": [59, 59],
    }  # fmt: skip
    model = scrambled(ARCHITECTURES[2])
    model.metadata = dict(about)
    for format in ("saelens", "dictionary_learning"):
        back = sae.load(sae.save(tmp_path / format, model, format=format))
        found = {key: value for key, value in back.metadata.items() if key not in ("input", "sae_lens_version")}
        assert found == about
        assert back.metadata["input"] == {"mean": model.mean.tolist(), "scale": float(model.scale), "folded": True}
    assert load_file(tmp_path / "saelens/sae_weights.safetensors")["W_enc"].shape == (10, 24)
