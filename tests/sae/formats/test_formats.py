"""Files: what was saved comes back bit for bit, SAELens's names and orientation, and no half-written SAE."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import sae
import zoo.common.files
from circuits.errors import CircuitsError
from sae.formats import saelens
from tests.sae.planted import ARCHITECTURES, acts, features, name_of, scrambled, sparse_sums

every = pytest.mark.parametrize("config", ARCHITECTURES, ids=name_of)


@every
def test_what_was_saved_comes_back_bit_for_bit(config: sae.SAEConfig, tmp_path: Path) -> None:
    model, x = scrambled(config), acts()
    model.metadata = {"model": "planted", "layer": "parts", "position_sampling": {"rule": "uniform", "seed": 3}}
    back = sae.load(sae.save(tmp_path / "one", model))
    assert type(back) is type(model) and back.config == config
    assert torch.equal(back.encode(x), model.encode(x)) and torch.equal(back(x), model(x))
    assert not back.training and not any(p.requires_grad for p in back.parameters())
    assert back.metadata["layer"] == "parts" and back.metadata["input"]["mean"] == model.mean.tolist()
    sae.save(tmp_path / "two", back)
    for name in ("cfg.json", "sae_weights.safetensors"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_run_is_saved_with_how_it_came_about(tmp_path: Path) -> None:
    run = sae.train(
        sparse_sums(features(n=20, d=10), 500),
        sae.TopK(latents=24, k=3),
        steps=5,
        batch_size=64,
        metadata={"layer": "x"},
    )[0]
    density = torch.linspace(0, 0.1, 24)
    sae.save(tmp_path / "run", run, density=density)
    back = sae.load(tmp_path / "run")
    assert torch.equal(back(acts()), run.sae(acts())) and back.metadata["layer"] == "x"
    about = json.loads((tmp_path / "run" / "cfg.json").read_text())["vision_circuits"]
    assert (about["steps"], about["samples"], about["status"]) == (5, 320, "finished")
    assert about["training"]["settings"]["clip"] == 1.0 and about["config"]["k"] == 3
    sparsity = load_file(tmp_path / "run" / "sparsity.safetensors")["sparsity"]
    torch.testing.assert_close(sparsity, sae.metrics.log10_density(density).float())


SAELENS: dict[str, tuple[str, set[str]]] = {
    "relu": ("standard", {"W_enc", "b_enc", "W_dec", "b_dec"}),
    "topk": ("topk", {"W_enc", "b_enc", "W_dec", "b_dec"}),
    "gated": ("gated", {"W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"}),
    "jumprelu": ("jumprelu", {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}),
    "batchtopk": ("jumprelu", {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}),
    "matryoshka": ("jumprelu", {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}),
}


def as_saelens(config: dict[str, Any], w: dict[str, Tensor], x: Tensor) -> Tensor:
    """SAELens's inference, written down from its documentation: what its users will see of our files."""
    inner = x - w["b_dec"] if config["apply_b_dec_to_input"] else x
    pre = inner @ w["W_enc"]
    kind = config["architecture"]
    if kind == "standard":
        latents = torch.relu(pre + w["b_enc"])
    elif kind == "jumprelu":
        pre = pre + w["b_enc"]
        latents = torch.relu(pre) * (pre > w["threshold"])
    elif kind == "gated":
        magnitude = inner @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]
        latents = (pre + w["b_gate"] > 0) * torch.relu(magnitude)
    else:
        pre = pre + w["b_enc"]
        norms = w["W_dec"].norm(dim=1)
        pre = pre * norms if config["rescale_acts_by_decoder_norm"] else pre
        top = pre.topk(config["k"])
        latents = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
        if config["rescale_acts_by_decoder_norm"]:
            return (latents / norms) @ w["W_dec"] + w["b_dec"]
    return latents @ w["W_dec"] + w["b_dec"]


@every
def test_files_have_saelens_names_and_orientation_and_mean_the_same_there(
    config: sae.SAEConfig, tmp_path: Path
) -> None:
    model, x = scrambled(config), acts()
    sae.save(tmp_path / "s", model)
    written = json.loads((tmp_path / "s" / "cfg.json").read_text())
    tensors = load_file(tmp_path / "s" / "sae_weights.safetensors")
    cls = type(model)  # what a new architecture declares
    kind, keys = SAELENS.get(config.architecture, (cls.saelens, {name for name, _ in cls.tensor_names.values()}))
    if kind is None:
        assert written["architecture"] == "custom"
        return
    assert written["architecture"] == kind and tensors.keys() == keys
    assert tensors["W_enc"].shape == (10, 24) and tensors["W_dec"].shape == (24, 10)
    assert (written["d_in"], written["d_sae"], written["dtype"], written["normalize_activations"]) == (
        10,
        24,
        "float32",
        "none",
    )
    assert {"device", "apply_b_dec_to_input", "reshape_activations", "metadata"} <= written.keys()
    assert ("k" in written) == (kind == "topk")
    assert written["metadata"]["sae_lens_version"] >= "6"  # else SAELens drops the metadata
    torch.testing.assert_close(as_saelens(written, tensors, x), model(x).detach(), rtol=1e-5, atol=1e-5)


def foreign(kind: str, **changes: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A folder's content as SAELens would write it, with nothing of ours in it."""
    g = torch.Generator().manual_seed(0)
    w = {
        "W_enc": torch.randn(6, 9, generator=g),
        "W_dec": torch.randn(9, 6, generator=g),
        "b_dec": torch.randn(6, generator=g),
    }
    for name in {"gated": ("b_gate", "b_mag", "r_mag"), "jumprelu": ("b_enc", "threshold")}.get(kind, ("b_enc",)):
        w[name] = 0.3 * torch.randn(9, generator=g).abs()
    config: dict[str, Any] = {
        "architecture": kind, "d_in": 6, "d_sae": 9, "dtype": "float32", "device": "cuda", "apply_b_dec_to_input": True,
        "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"model_name": "gpt2", "hook_name": "blocks.8.hook_resid_pre", "sae_lens_version": "6.18.0"},
    }  # fmt: skip
    if kind == "topk":
        config |= {"k": 4, "rescale_acts_by_decoder_norm": False}
    return {**config, **changes}, w


def put(folder: Path, config: Any, tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(config if isinstance(config, str) else json.dumps(config))
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "sae_weights.safetensors")
    return folder


@pytest.mark.parametrize("kind", ["standard", "topk", "jumprelu", "gated"])
@pytest.mark.parametrize("subtract", [True, False])
def test_saes_of_saelens_mean_the_same_here(kind: str, subtract: bool, tmp_path: Path) -> None:
    config, tensors = foreign(kind, apply_b_dec_to_input=subtract)
    model, x = sae.load(put(tmp_path / "f", config, tensors)), acts(60, 6)
    torch.testing.assert_close(model(x), as_saelens(config, tensors, x), rtol=1e-5, atol=1e-5)
    assert model.metadata["model_name"] == "gpt2"
    sae.save(tmp_path / "again", model)
    torch.testing.assert_close(sae.load(tmp_path / "again")(x), model(x), rtol=0, atol=0)


def test_topk_ranked_by_decoder_length_means_the_same_here(tmp_path: Path) -> None:
    config, tensors = foreign("topk", rescale_acts_by_decoder_norm=True)
    x = acts(60, 6)
    expected = as_saelens(config, tensors, x)
    assert not torch.allclose(expected, as_saelens({**config, "rescale_acts_by_decoder_norm": False}, tensors, x))
    torch.testing.assert_close(sae.load(put(tmp_path / "f", config, tensors))(x), expected, rtol=1e-5, atol=1e-5)


def test_topk_from_before_saelens_6_is_not_taken_for_a_relu(tmp_path: Path) -> None:
    config, tensors = foreign("topk")
    expected = as_saelens(config, tensors, acts(60, 6))
    old = {k: v for k, v in config.items() if k not in ("k", "rescale_acts_by_decoder_norm", "metadata")}
    old |= {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}
    old |= {"normalize_activations": False}
    torch.testing.assert_close(sae.load(put(tmp_path / "f", old, tensors))(acts(60, 6)), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(sae.FormatError, match="activation function 'tanh-relu' cannot be read"):
        sae.load(put(tmp_path / "g", {**old, "activation_fn_str": "tanh-relu"}, tensors))


def test_thresholds_of_older_training_checkpoints_are_read(tmp_path: Path) -> None:
    config, tensors = foreign("jumprelu")
    expected = as_saelens(config, tensors, acts(60, 6))
    tensors["log_threshold"] = tensors.pop("threshold").log()
    torch.testing.assert_close(
        sae.load(put(tmp_path / "f", config, tensors))(acts(60, 6)), expected, rtol=1e-5, atol=1e-5
    )


def test_foreign_and_damaged_folders_say_what_is_wrong(tmp_path: Path) -> None:
    config, tensors = foreign("standard")
    short = {**tensors, "b_enc": tensors["b_enc"][:5]}
    nan = {**tensors, "b_dec": tensors["b_dec"] * torch.nan}
    other = {"architecture": "topk", "latents": 9, "k": 2}
    cases: list[tuple[Any, dict[str, Tensor], str]] = [
        ({**config, "architecture": "crosscoder"}, tensors, "architecture 'crosscoder' cannot be read"),
        ({**config, "architecture": "transcoder"}, tensors, "b_dec of a transcoder belongs to what it writes"),
        ({**config, "architecture": ["x"]}, tensors, "cannot be read"),
        ({**config, "normalize_activations": "layer_norm"}, tensors, "normalize_activations is 'layer_norm'"),
        ({**config, "d_in": 7}, tensors, "d_in=7"),
        ({**config, "architecture": "topk", "k": 10}, tensors, "k=10 is more than the 9 latents"),
        ({**config, "architecture": "topk"}, tensors, "k=0"),
        (config, {k: v for k, v in tensors.items() if k != "b_enc"}, "b_enc missing"),
        (config, {**tensors, "W_skip": torch.zeros(6, 6)}, "W_skip unknown"),
        (config, short, r"b_enc is \(5,\)"),
        (config, {**tensors, "W_enc": tensors["W_enc"].T}, "W_enc is"),
        (config, nan, "b_dec has values that are not finite"),
        ("{", tensors, "no JSON"),
        ("[]", tensors, "not the configuration"),
        ({**config, "metadata": 3}, tensors, "not the configuration"),
        ({**config, "vision_circuits": {"schema": 99}}, tensors, "schema 99"),
        ({**config, "vision_circuits": {"schema": 1, "config": other}}, tensors, "describe a topk SAE"),
    ]  # fmt: skip
    for i, (written, content, message) in enumerate(cases):
        with pytest.raises(sae.FormatError, match=message):
            sae.load(put(tmp_path / str(i), written, content))
    with pytest.raises(sae.FormatError, match="no such file or folder"):
        sae.load(tmp_path / "nowhere")
    with pytest.raises(sae.FormatError, match="a file of no known layout"):
        sae.load(tmp_path / "0" / "cfg.json")


def test_weights_that_saelens_changed_and_wrote_are_its_own(tmp_path: Path) -> None:
    """It keeps our metadata and drops the rest: no digest of ours is held against its weights."""
    model = scrambled(ARCHITECTURES[0])
    model.metadata = {"layer": "parts"}
    folder = sae.save(tmp_path / "s", model)
    config = json.loads((folder / "cfg.json").read_text())
    theirs = {k: v for k, v in config.items() if k != "vision_circuits"}
    tensors = load_file(folder / "sae_weights.safetensors")
    put(folder, theirs, {**tensors, "b_dec": tensors["b_dec"] + 1})
    back = sae.load(folder)
    assert back.metadata["layer"] == "parts" and "vision_circuits" not in json.dumps(config["metadata"])
    torch.testing.assert_close(back.decoder_bias, model.folded().decoder_bias + 1)


def test_a_changed_or_truncated_file_is_damaged(tmp_path: Path) -> None:
    folder = sae.save(tmp_path / "s", scrambled(ARCHITECTURES[0]))
    weights = folder / "sae_weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    with pytest.raises(sae.FormatError, match="damaged|truncated"):
        sae.load(folder)
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    weights.write_bytes(bytes(flipped))
    with pytest.raises(sae.FormatError, match="damaged: its digest"):
        sae.load(folder)
    weights.write_bytes(whole)
    (folder / "cfg.json").unlink()
    with pytest.raises(sae.FormatError, match="but no cfg.json"):
        sae.load(folder)


class Killed(BaseException):
    """A process that ends here."""


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("format", ["saelens", "dictionary_learning"])
def test_whenever_saving_is_cut_short_the_old_sae_or_the_new_one_is_there(
    format: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, x = scrambled(ARCHITECTURES[2]), scrambled(ARCHITECTURES[1], seed=1), acts()
    files = sorted(p.name for p in sae.save(tmp_path / "s", old, format=format).iterdir())
    assert len(files) == 2
    calls = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls - 1 == at:
                raise Killed
            return real(*args, **kwargs)

        return call

    # every act on the disk, in order: writing two files, flushing and renaming each, the last rename
    monkeypatch.setattr(saelens, "save_file", dying(saelens.save_file))
    monkeypatch.setattr(torch, "save", dying(torch.save))
    monkeypatch.setattr(zoo.common.files.os, "fsync", dying(zoo.common.files.os.fsync))
    monkeypatch.setattr(zoo.common.files.os, "replace", dying(zoo.common.files.os.replace))
    with pytest.raises(Killed):
        sae.save(tmp_path / "s", new, format=format)
    monkeypatch.undo()
    back = sae.load(tmp_path / "s")
    assert torch.equal(back(x), (new if at == 5 else old)(x).detach())
    assert torch.equal(sae.load(sae.save(tmp_path / "s", new, format=format))(x), new(x))  # and saving again heals it
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == files


@pytest.mark.parametrize("format", ["saelens", "dictionary_learning"])
def test_a_first_save_that_is_killed_before_its_last_act_is_whole(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, real = scrambled(ARCHITECTURES[2]), zoo.common.files.os.replace

    def dying(source: Any, target: Any) -> None:
        if str(source).endswith(".next"):
            raise Killed
        real(source, target)

    monkeypatch.setattr(zoo.common.files.os, "replace", dying)
    with pytest.raises(Killed):
        sae.save(tmp_path / "s", model, format=format)
    monkeypatch.undo()
    assert torch.equal(sae.load(tmp_path / "s")(acts()), model(acts()))
    assert sae.load(tmp_path / "s").config == model.config


def test_a_full_disk_leaves_the_old_sae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, x = scrambled(ARCHITECTURES[0]), acts()
    sae.save(tmp_path / "s", old)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saelens, "save_file", full)
    with pytest.raises(CircuitsError, match="No space left"):
        sae.save(tmp_path / "s", scrambled(ARCHITECTURES[1]))
    monkeypatch.undo()
    assert torch.equal(sae.load(tmp_path / "s")(x), old(x))


def test_what_should_not_be_written_is_not(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(sae.FormatError, match="other things in it"):
        sae.save(tmp_path / "mine", scrambled(ARCHITECTURES[0]))
    with pytest.raises(sae.FormatError, match="is a file"):
        sae.save(tmp_path / "mine" / "notes.txt", scrambled(ARCHITECTURES[0]))
    with pytest.raises(sae.FormatError, match="got str"):
        sae.save(tmp_path / "x", "sae")  # type: ignore[arg-type]
    broken = scrambled(ARCHITECTURES[0])
    with torch.no_grad():
        broken.encoder[0, 0] = torch.nan
    with pytest.raises(sae.FormatError, match="not finite in W_enc"):
        sae.save(tmp_path / "x", broken)
    odd = scrambled(ARCHITECTURES[0])
    odd.metadata = {"layer": torch.zeros(1)}
    with pytest.raises(sae.FormatError, match="metadata cannot be written as JSON"):
        sae.save(tmp_path / "x", odd)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("before_six", [False, True])
@pytest.mark.parametrize(
    ("kwargs", "warns"), [({"center_writing_weights": True}, True), ({"dtype": "float32", "n_devices": 1}, False)]
)
def test_an_sae_of_a_changed_network_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kwargs: dict[str, Any], warns: bool, before_six: bool
) -> None:
    sae.save(tmp_path / "a", sae.build(sae.ReLU(latents=6), 4))
    path = tmp_path / "a" / "cfg.json"
    config = json.loads(path.read_text())
    if before_six:
        del config["metadata"]
        config["model_from_pretrained_kwargs"] = kwargs
    else:
        config["metadata"]["model_from_pretrained_kwargs"] = kwargs
    path.write_text(json.dumps(config))
    loaded = sae.load(tmp_path / "a")
    assert loaded.metadata["model_from_pretrained_kwargs"] == kwargs
    assert ("loaded with center_writing_weights=True;" in caplog.text) == bool(caplog.text) == warns
