"""Against the programs themselves, where they are installed (the extra `bench`): what they write and what we write.

All products in double precision, so that 1e-6 is about the files, and not about the order of sums.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sae
from tests.sae.planted import ARCHITECTURES, acts, name_of, scrambled

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
D, M, K = 10, 24, 3


def peer(module: str, package: str) -> Any:
    """A module of a peer, or a skip that says what is missing."""
    top = module.partition(".")[0]
    if importlib.util.find_spec(top) is None:
        pytest.skip(f"{package} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def draw(module: nn.Module, seed: int = 0) -> None:
    """Parameters and thresholds at random, not equal by symmetry, and of the size that training gives."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            if value.ndim > 1:
                value.copy_(drawn / D**0.5)  # rows in d about of length one
            else:
                value.copy_(drawn.abs() if name == "threshold" else 0.3 * drawn)


def inputs() -> Tensor:
    return acts(200, D, dtype=torch.float64)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.detach(), wanted.detach(), rtol=1e-6, atol=1e-6)


# -- SAELens ------------------------------------------------------------------------------------------


def saelens_sae(folder: Path, dtype: str = "float64") -> Any:
    return peer("sae_lens", "sae-lens").SAE.load_from_disk(folder, dtype=dtype)


@pytest.mark.parametrize("config", ARCHITECTURES, ids=name_of)
def test_saelens_reads_our_files_and_we_read_what_it_writes(config: sae.SAEConfig, tmp_path: Path) -> None:
    peer("sae_lens", "sae-lens")
    model, x = scrambled(config), inputs()
    model.metadata = {"layer": "fire5", "position_sampling": {"rule": "uniform", "seed": 3}}
    theirs = saelens_sae(sae.save(tmp_path / "ours", model))
    assert theirs.cfg.metadata.layer == "fire5"
    double = model.folded().double()
    close(theirs.encode(x), double.encode(x))
    close(theirs(x), double(x))
    saelens_sae(tmp_path / "ours", "float32").save_model(tmp_path / "theirs")
    back = sae.load(tmp_path / "theirs")
    assert back.metadata["position_sampling"] == {"rule": "uniform", "seed": 3}
    assert back.metadata["input"]["scale"] == pytest.approx(1.7)
    close(back.double()(x), double(x))


@pytest.mark.parametrize("kind", ["StandardSAE", "TopKSAE", "GatedSAE", "JumpReLUSAE"])
@pytest.mark.parametrize("subtract", [True, False])
def test_saes_that_saelens_made_mean_the_same_here(kind: str, subtract: bool, tmp_path: Path) -> None:
    lens = peer("sae_lens", "sae-lens")
    settings: dict[str, Any] = {"d_in": D, "d_sae": M, "apply_b_dec_to_input": subtract}
    if kind == "TopKSAE":
        settings |= {"k": K, "rescale_acts_by_decoder_norm": subtract}
    theirs = getattr(lens, kind)(getattr(lens, f"{kind}Config")(**settings))
    draw(theirs)
    theirs.save_model(tmp_path / "f")
    ours, theirs, x = sae.load(tmp_path / "f").double(), saelens_sae(tmp_path / "f"), inputs()
    close(ours.encode(x), theirs.encode(x))
    close(ours(x), theirs(x))


@pytest.mark.parametrize("kind", ["Transcoder", "SkipTranscoder", "JumpReLUTranscoder", "JumpReLUSkipTranscoder"])
def test_transcoders_of_saelens_mean_the_same_here_and_ours_there(kind: str, tmp_path: Path) -> None:
    lens, module = peer("sae_lens", "sae-lens"), peer("sae_lens.saes.transcoder", "sae-lens")
    settings: dict[str, Any] = {"d_in": D, "d_sae": M, "d_out": 6, "apply_b_dec_to_input": False}
    theirs = getattr(module, kind)(getattr(module, f"{kind}Config")(**settings))
    draw(theirs)
    theirs.save_model(tmp_path / "theirs")
    ours, x = sae.load(tmp_path / "theirs").double(), inputs()
    assert (ours.skip is not None) == ("Skip" in kind) and ours.d_out == 6
    theirs = lens.SAE.load_from_disk(tmp_path / "theirs", dtype="float64")
    close(ours.encode(x), theirs.encode(x))
    close(ours(x), theirs(x))
    again = lens.SAE.load_from_disk(sae.save(tmp_path / "ours", sae.load(tmp_path / "theirs")), dtype="float64")
    assert type(again) is type(theirs)
    close(again(x), ours(x))


# -- dictionary_learning ------------------------------------------------------------------------------


def dictionary_of(name: str) -> Any:
    utils = peer("dictionary_learning.utils", "dictionary-learning")
    kind = getattr(utils, name)
    extra: tuple[Any, ...] = ()
    if "TopK" in name:
        extra = (K, [4, 8, 12]) if name.startswith("Matryoshka") else (K,)
    made = kind(D, M, *extra)
    draw(made)
    if "TopK" in name:
        made.threshold.fill_(0.8)
    return made


def as_trained_there(folder: Path, made: Any) -> Path:
    """What its training leaves behind."""
    folder.mkdir()
    trainer: dict[str, Any] = {"dict_class": type(made).__name__, "activation_dim": D, "dict_size": M}
    trainer |= {"layer": 3, "lm_name": "EleutherAI/pythia-70m-deduped", "submodule_name": "resid_post_layer_3"}
    if hasattr(made, "k"):
        trainer["k"] = int(made.k)
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))
    torch.save({key: value.cpu() for key, value in made.state_dict().items()}, folder / "ae.pt")
    return folder


CLASSES = [
    "AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE",
    "JumpReluAutoEncoder",
]  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_dictionaries_made_there_mean_the_same_here_and_again_there(name: str, tmp_path: Path) -> None:
    utils = peer("dictionary_learning.utils", "dictionary-learning")
    made, x = dictionary_of(name), inputs()
    model = sae.load(as_trained_there(tmp_path / "theirs", made))
    latents, reconstruction = made.double().encode(x), made(x)
    close(sae.load(tmp_path / "theirs").double().encode(x), latents)
    close(sae.load(tmp_path / "theirs").double()(x), reconstruction)
    again, config = utils.load_dictionary(str(sae.save(tmp_path / "o", model, format="dictionary_learning")), "cpu")
    assert config["trainer"]["lm_name"] == "EleutherAI/pythia-70m-deduped"
    close(again.double().encode(x), latents)
    close(again(x), reconstruction)


@pytest.mark.parametrize("config", [*ARCHITECTURES, sae.BatchTopK(latents=24, k=3, seed=1)], ids=name_of)
def test_dictionary_learning_reads_our_files(config: sae.SAEConfig, tmp_path: Path) -> None:
    utils = peer("dictionary_learning.utils", "dictionary-learning")
    model, x = scrambled(config), inputs()
    if config.seed:  # one threshold for all, as training leaves it
        assert isinstance(model, sae.SAE) and isinstance(model.threshold, Tensor)
        model.threshold.fill_(0.3)
    folder = sae.save(tmp_path / "ours", model, format="dictionary_learning")
    theirs, _ = utils.load_dictionary(str(folder), "cpu")
    double = model.folded().double()
    close(theirs.double().encode(x), double.encode(x))
    close(theirs(x), double(x))


def test_latents_that_loading_there_rescales_are_those_of_our_unit_decoder(tmp_path: Path) -> None:
    utils = peer("dictionary_learning.utils", "dictionary-learning")
    made, x = dictionary_of("AutoEncoder"), inputs()
    folder = as_trained_there(tmp_path / "f", made)
    loaded, _ = utils.load_dictionary(str(folder), "cpu")
    ours = sae.load(folder)
    close(ours.with_unit_decoder().double().encode(x), loaded.double().encode(x))
    close(ours.double()(x), loaded(x))


@pytest.mark.parametrize("name", CLASSES)
def test_a_dictionary_goes_to_saelens_through_us(name: str, tmp_path: Path) -> None:
    peer("sae_lens", "sae-lens")
    made, x = dictionary_of(name), inputs()
    model = sae.load(as_trained_there(tmp_path / "theirs", made))
    lens = saelens_sae(sae.save(tmp_path / "lens", model))
    close(lens.encode(x), made.double().encode(x))
    close(lens(x), made(x))
    assert lens.cfg.metadata.source["class"] == name


# -- sparsify -----------------------------------------------------------------------------------------


def sparse_coder(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Any:
    monkeypatch.setenv("SPARSIFY_DISABLE_TRITON", "1")  # whose kernels want a GPU
    sparsify = peer("sparsify", "eai-sparsify")
    made = sparsify.SparseCoder(D, sparsify.SparseCoderConfig(num_latents=M, k=K, **settings))
    draw(made)
    return made


@pytest.mark.parametrize("settings", [{}, {"multi_topk": True, "normalize_decoder": False}], ids=["plain", "multi"])
def test_sparse_coders_mean_the_same_here(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, x = sparse_coder(monkeypatch, **settings), inputs()
    made.save_to_disk(tmp_path / "layers.3")
    model = sae.load(tmp_path / "layers.3").double()
    values, indices, _ = made.double().encode(x)
    close(model.encode(x), torch.zeros(len(x), M, dtype=x.dtype).scatter(1, indices, values))
    close(model(x), made.decode(values, indices))


@pytest.mark.parametrize("settings", [{"transcode": True}, {"skip_connection": True}, {"activation": "groupmax"}])
def test_sparse_coders_that_are_no_saes_are_refused(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse_coder(monkeypatch, **settings).save_to_disk(tmp_path / "layers.3")
    with pytest.raises(sae.FormatError, match="transcoder|skip connection|groupmax"):
        sae.load(tmp_path / "layers.3")
