"""Files of dictionary_learning mean here what they mean there, and ours mean there what they mean here."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sae
from tests.sae.foreign import SHAPES, D, K, M, as_dictionary_learning, assert_means, dictionary, inputs, put_dictionary
from tests.sae.planted import ARCHITECTURES, acts, name_of, scrambled

every_class = pytest.mark.parametrize("name", SHAPES)


@every_class
def test_every_class_of_dictionary_learning_means_the_same_here(name: str, tmp_path: Path) -> None:
    config, tensors = dictionary(name)
    folder, x = put_dictionary(tmp_path / "f", config, tensors), inputs()
    latents, reconstruction = as_dictionary_learning(config, tensors, x)
    model = sae.load(folder)
    assert model.metadata["source"]["class"] == name
    assert model.metadata["source"]["trainer"]["lm_name"] == "EleutherAI/pythia-70m-deduped"
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert_means(model, latents, reconstruction, x)
    assert_means(sae.load(folder, format="dictionary_learning"), latents, reconstruction, x)
    # and through both layouts that are written
    for format in ("saelens", "dictionary_learning"):
        again = sae.load(sae.save(tmp_path / format, sae.load(folder), format=format))
        assert_means(again, latents, reconstruction, x)
        assert again.metadata["source"] == model.metadata["source"] or format == "dictionary_learning"


def test_settings_of_the_classes_are_those_of_our_configurations(tmp_path: Path) -> None:
    found = {
        name: sae.load(put_dictionary(tmp_path / name, *dictionary(name))).config
        for name in SHAPES
    }  # fmt: skip
    assert found == {
        "AutoEncoder": sae.ReLU(latents=M),
        "AutoEncoderNew": sae.ReLU(latents=M),
        "GatedAutoEncoder": sae.Gated(latents=M),
        "AutoEncoderTopK": sae.TopK(latents=M, k=K),
        "BatchTopKSAE": sae.BatchTopK(latents=M, k=K),
        "JumpReluAutoEncoder": sae.JumpReLU(latents=M),
        "MatryoshkaBatchTopKSAE": sae.Matryoshka(latents=M, k=K, groups=(2, 3, 4)),
    }


LACKED = ("archetypal", "grouptopk", "matching_pursuit")


@pytest.mark.parametrize("name", LACKED)
def test_an_architecture_that_they_lack_is_refused(name: str, tmp_path: Path) -> None:
    model = scrambled(next(config for config in ARCHITECTURES if config.architecture == name))
    with pytest.raises(sae.FormatError, match=f"has no class like '{name}'; it can hold batchtopk"):
        sae.save(tmp_path / "s", model, format="dictionary_learning")


@pytest.mark.parametrize("config", [c for c in ARCHITECTURES if c.architecture not in LACKED], ids=name_of)
def test_what_we_write_means_the_same_to_dictionary_learning(config: sae.SAEConfig, tmp_path: Path) -> None:
    model, x = scrambled(config), inputs(d=10)
    model.metadata = {"model": "squeezenet-1.1", "layer": "fire5", "position_sampling": {"rule": "uniform", "seed": 3}}
    folder = sae.save(tmp_path / "s", model, format="dictionary_learning")
    assert sorted(p.name for p in folder.iterdir()) == ["ae.pt", "config.json"]
    written = json.loads((folder / "config.json").read_text())
    state = torch.load(folder / "ae.pt", weights_only=True)
    name = written["trainer"]["dict_class"]
    assert state.keys() == dictionary(name)[1].keys()
    assert {key: value.shape for key, value in state.items() if value.ndim == 2} == {
        key: tuple({D: 10, M: 24}[size] for size in shape) for key, shape in SHAPES[name].items() if len(shape) == 2
    }
    assert all(value.is_contiguous() for value in state.values())
    assert (written["trainer"]["activation_dim"], written["trainer"]["dict_size"]) == (10, 24)
    assert (written["trainer"]["lm_name"], written["trainer"]["layer"]) == ("squeezenet-1.1", "fire5")
    assert written["metadata"]["position_sampling"] == {"rule": "uniform", "seed": 3}
    assert written["metadata"]["input"]["scale"] == pytest.approx(1.7)
    latents, reconstruction = as_dictionary_learning(written, state, x)
    double = model.folded().double()
    torch.testing.assert_close(latents, double.encode(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(reconstruction, double(x), rtol=1e-6, atol=1e-6)
    back = sae.load(folder)
    assert type(back) is type(model) and back.config == config and back.metadata == model.folded().metadata
    assert_means(back, latents, reconstruction, x)


def test_an_autoencoder_that_loading_there_would_rescale_is_written_as_one_it_leaves_alone(tmp_path: Path) -> None:
    """`AutoEncoder.from_pretrained` brings the decoder's columns to length one, and the latents with them."""
    model = scrambled(sae.ReLU(latents=24)).folded()
    assert class_of(sae.save(tmp_path / "a", model, format="dictionary_learning")) == "AutoEncoderNew"
    unit = model.with_unit_decoder()
    assert class_of(sae.save(tmp_path / "b", unit, format="dictionary_learning")) == "AutoEncoder"


def class_of(folder: Path) -> str:
    name: str = json.loads((folder / "config.json").read_text())["trainer"]["dict_class"]
    return name


@pytest.mark.parametrize("kind", [sae.BatchTopK(latents=24, k=3), sae.Matryoshka(latents=24, k=3, groups=(4, 20))])
def test_thresholds_that_differ_are_written_as_a_jumprelu(kind: sae.BatchTopK, tmp_path: Path) -> None:
    model = scrambled(kind)
    assert isinstance(model.threshold, Tensor)
    assert len(model.threshold.unique()) > 1
    assert class_of(sae.save(tmp_path / "a", model, format="dictionary_learning")) == "JumpReluAutoEncoder"
    assert sae.load(tmp_path / "a").config == kind
    model.threshold.fill_(0.3)
    folder = sae.save(tmp_path / "b", model, format="dictionary_learning")
    assert class_of(folder) in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")
    state = torch.load(folder / "ae.pt", weights_only=True)
    assert state["threshold"].shape == () and float(state["threshold"]) == pytest.approx(0.3)
    assert torch.equal(sae.load(folder)(acts()), model(acts()))  # no bias is moved: bit for bit
    if isinstance(kind, sae.Matryoshka):
        assert state["group_sizes"].tolist() == [4, 20]


def test_what_we_know_of_a_foreign_sae_is_still_there_when_it_is_written_again(tmp_path: Path) -> None:
    config, tensors = dictionary("AutoEncoderTopK")
    model = sae.load(put_dictionary(tmp_path / "f", config, tensors))
    folder = sae.save(tmp_path / "again", model, format="dictionary_learning")
    written = json.loads((folder / "config.json").read_text())
    assert written["trainer"] == config["trainer"] and written["buffer"] == config["buffer"]
    state = torch.load(folder / "ae.pt", weights_only=True)
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[key], tensors[key]) for key in tensors)  # its threshold too, which no TopK needs


def test_a_large_mean_costs_no_precision(tmp_path: Path) -> None:
    """Moving `b_dec` into the encoder's bias makes it large beside the latents; done in single precision it shows."""
    config, tensors = dictionary("AutoEncoderNew")
    shift = 300 * torch.nn.functional.normalize(torch.ones(D), dim=0)
    tensors["encoder.bias"] = tensors["encoder.bias"] - tensors["encoder.weight"] @ shift
    tensors["decoder.bias"] = shift
    x = inputs() + shift.double()
    latents, reconstruction = as_dictionary_learning(config, tensors, x)
    model = sae.load(put_dictionary(tmp_path / "f", config, tensors)).double()
    assert float(tensors["encoder.bias"].abs().max()) > 100
    assert_means(model, latents, reconstruction, x)


def test_a_checkpoint_is_read_with_the_configuration_above_it(tmp_path: Path) -> None:
    config, tensors = dictionary("BatchTopKSAE")
    put_dictionary(tmp_path / "run", config, tensors)
    other = {**tensors, "b_dec": tensors["b_dec"] + 1}
    put_dictionary(tmp_path / "run" / "checkpoints", None, other, "ae_500.pt")
    x = inputs()
    assert_means(sae.load(tmp_path / "run/checkpoints/ae_500.pt"), *as_dictionary_learning(config, other, x), x)
    assert_means(sae.load(tmp_path / "run/ae.pt"), *as_dictionary_learning(config, tensors, x), x)


@every_class
def test_tensors_alone_say_the_class_unless_two_have_the_same(name: str, tmp_path: Path) -> None:
    config, tensors = dictionary(name)
    put_dictionary(tmp_path / "f", None, tensors, "ae_final.pt")
    if name in ("AutoEncoderTopK", "BatchTopKSAE"):
        with pytest.raises(sae.FormatError, match="AutoEncoderTopK and BatchTopKSAE have the same tensors"):
            sae.load(tmp_path / "f/ae_final.pt")
    else:
        x = inputs()
        assert_means(sae.load(tmp_path / "f/ae_final.pt"), *as_dictionary_learning(config, tensors, x), x)


def test_a_topk_from_before_k_was_a_tensor_takes_it_from_the_configuration(tmp_path: Path) -> None:
    config, tensors = dictionary("AutoEncoderTopK")
    old, x = {key: value for key, value in tensors.items() if key not in ("k", "threshold")}, inputs()
    assert_means(
        sae.load(put_dictionary(tmp_path / "f", config, old)), *as_dictionary_learning(config, tensors, x), x
    )  # fmt: skip


def test_a_threshold_that_was_never_set_lets_all_latents_fire_as_there_and_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, tensors = dictionary("BatchTopKSAE")
    tensors["threshold"] = torch.tensor(-1.0)
    x = inputs()
    with caplog.at_level(logging.WARNING):
        model = sae.load(put_dictionary(tmp_path / "f", config, tensors))
    assert "never set" in caplog.text
    assert_means(model, *as_dictionary_learning(config, tensors, x), x)
    caplog.clear()
    config, tensors = dictionary("AutoEncoderTopK")  # which has one and does not use it
    sae.load(put_dictionary(tmp_path / "g", config, {**tensors, "threshold": torch.tensor(-1.0)}))
    assert not caplog.text


def test_the_backup_of_a_training_is_not_taken_for_its_result(tmp_path: Path) -> None:
    config, tensors = dictionary("AutoEncoderTopK")
    backup = {"step": 500, "ae": tensors, "optimizer": {"state": {}}, "config": config["trainer"], "norm_factor": 2.5}
    with pytest.raises(sae.FormatError, match=r"backup from within a training \(step 500\).*checkpoints/ae_<step>.pt"):
        sae.load(put_dictionary(tmp_path / "f", config, backup))
    with pytest.raises(sae.FormatError, match="backup from within a training"):
        sae.load(put_dictionary(tmp_path / "g", None, backup, "other.pt") / "other.pt")


def test_dictionaries_that_do_not_fit_say_why(tmp_path: Path) -> None:
    config, tensors = dictionary("BatchTopKSAE")
    trainer = config["trainer"]

    def having(**changes: Any) -> dict[str, Any]:
        return {**config, "trainer": {**trainer, **changes}}

    weight, bias = tensors["encoder.weight"], tensors["b_dec"]
    cases: list[tuple[dict[str, Any], Any, str]] = [
        (having(dict_class="CrossCoder"), tensors, "dict_class 'CrossCoder' cannot be read; there are AutoEncoder"),
        (having(dict_class="AutoEncoder"), tensors, "not those of the class AutoEncoder: bias missing; b_dec, k, thre"),
        (having(k=4), tensors, "k is 3, and 4 in config.json"),
        (having(dict_size=10), tensors, "dict_size=10"),
        (having(k=None), {**tensors, "k": torch.tensor(0)}, "k=0 must be a whole number of at least 1"),
        (having(k=50), {**tensors, "k": torch.tensor(50)}, "k=50 is more than the 9 latents"),
        ({"trainer": 3}, tensors, "trainer or metadata is not a group of settings"),
        ({**config, "metadata": [1]}, tensors, "not the configuration of an SAE"),
        (config, {**tensors, "encoder.weight": weight.T}, "with encoder.weight|encoder.weight is"),
        (config, {**tensors, "encoder.weight": weight[0]}, r"encoder.weight is \(6,\), not \(m, d\)"),
        (config, {**tensors, "b_dec": bias[:5]}, r"b_dec is \(5,\); with encoder.weight \(9, 6\) it must be \(6,\)"),
        (config, {**tensors, "b_dec": bias * torch.nan}, "b_dec has values that are not finite"),
        (config, {**tensors, "b_dec": bias.int()}, "b_dec holds int32"),
        (config, {**tensors, "threshold": torch.tensor(torch.inf)}, "threshold has values that are not finite"),
        (config, {**tensors, "k": torch.tensor(3.5)}, "k is 3.5, and 3 in config.json"),
        (config, {**tensors, "k": torch.tensor(3 + 1j)}, "k holds complex64"),
        (config, {**tensors, "threshold": torch.ones(M)}, r"threshold is \(9,\)"),
        (config, {k: v for k, v in tensors.items() if k != "threshold"}, "threshold missing"),
        (config, {**tensors, "extra": bias}, "extra unknown"),
        (config, {**tensors, "k": 3}, "not a state dict of tensors"),
        (config, [weight], "not a state dict of tensors"),
    ]
    for i, (written, state, message) in enumerate(cases):
        with pytest.raises(sae.FormatError, match=message) as caught:
            sae.load(put_dictionary(tmp_path / str(i), written, state))
        assert str(tmp_path / str(i)) in str(caught.value)
    groups = {**dictionary("MatryoshkaBatchTopKSAE")[1], "group_sizes": torch.tensor([2, 3])}
    with pytest.raises(sae.FormatError, match="add up to 5, not to the 9 latents"):
        sae.load(put_dictionary(tmp_path / "m", dictionary("MatryoshkaBatchTopKSAE")[0], groups))
    (put_dictionary(tmp_path / "j", config, tensors) / "config.json").write_text("{")
    with pytest.raises(sae.FormatError, match="config.json is no JSON"):
        sae.load(tmp_path / "j")


def test_weights_that_are_not_those_of_our_configuration_are_damaged(tmp_path: Path) -> None:
    folder = sae.save(tmp_path / "s", scrambled(ARCHITECTURES[2]), format="dictionary_learning")
    whole = bytearray((folder / "ae.pt").read_bytes())
    whole[len(whole) // 2] ^= 1
    (folder / "ae.pt").write_bytes(whole)
    with pytest.raises(sae.FormatError, match="ae.pt is damaged: its digest is not the one in config.json"):
        sae.load(folder)
    (folder / "ae.pt").unlink()
    with pytest.raises(sae.FormatError, match="half of an SAE"):
        sae.load(folder)
