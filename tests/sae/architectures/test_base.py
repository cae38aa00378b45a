"""The contract: every architecture is a basis, encodes sparsely what it encodes densely, and folds without a trace."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import circuits
import sae
from circuits.errors import CircuitsError
from circuits.network.basis import basis_digest
from sae.architectures.base import ARCHITECTURES, config_from_dict
from tests import nets
from tests.sae.planted import ARCHITECTURES as CONFIGS, TRANSCODERS, acts, name_of, scrambled

every = pytest.mark.parametrize("config", CONFIGS, ids=name_of)


def test_every_registered_architecture_is_tested_here() -> None:
    assert {c.architecture for c in CONFIGS} == set(sae.list_architectures())
    assert {"batchtopk", "gated", "jumprelu", "matryoshka", "relu", "topk"} <= set(sae.list_architectures())


@every
def test_encode_is_affine_along_read_and_decode_adds_up_write(config: sae.SAEConfig) -> None:
    model, x = scrambled(config, dtype=torch.float64), acts(dtype=torch.float64)
    latents = model.encode(x)
    assert latents.shape == (50, 24) and bool((latents >= 0).all())
    assert model.read.shape == model.write.shape == (24, 10)
    pre = (x - model.offset) @ model.read.T + model.encoder_bias
    torch.testing.assert_close(latents, model.activate(pre))
    torch.testing.assert_close(model(x), model.offset + latents @ model.write)
    # in normalized space, where it was trained, it is the same SAE
    torch.testing.assert_close(latents, model.activate(model.dense_pre(model.normalize(x))))


@every
def test_encode_sparse_is_encode(config: sae.SAEConfig) -> None:
    model, x = scrambled(config), acts()
    latents = model.encode(x)
    values, indices = model.encode_sparse(x)
    torch.testing.assert_close(torch.zeros_like(latents).scatter(1, indices, values), latents, rtol=0, atol=0)
    assert bool((values[:, 1:] <= values[:, :-1]).all())
    assert all(len(set(row)) == len(row) for row in indices.tolist())
    torch.testing.assert_close(model.decode_sparse(values, indices), model(x))
    wide_values, wide = model.encode_sparse(x, k=20)
    torch.testing.assert_close(torch.zeros_like(latents).scatter(1, wide, wide_values), latents, rtol=0, atol=0)
    two, _ = model.encode_sparse(x, k=2)
    torch.testing.assert_close(two, latents.topk(2).values, rtol=0, atol=0)


@every
def test_folding_mean_and_scale_changes_no_bit(config: sae.SAEConfig) -> None:
    model, x = scrambled(config), acts()
    folded = model.folded()
    assert bool((folded.mean == 0).all()) and float(folded.scale) == 1.0
    assert torch.equal(folded.encode(x), model.encode(x))
    assert torch.equal(folded(x), model(x))
    assert folded.metadata["input"]["mean"] == model.mean.tolist() and folded.metadata["input"]["folded"]
    assert "input" not in model.metadata and float(model.scale) == pytest.approx(1.7)
    assert folded.folded().metadata == folded.metadata


@pytest.mark.parametrize(
    "config", [*CONFIGS, *(dataclasses.replace(c, kind="skip-transcoder") for c in TRANSCODERS)], ids=name_of
)
def test_two_that_encode_or_decode_differently_have_two_digests(config: sae.SAEConfig, tmp_path: Path) -> None:
    model = scrambled(config)
    digest = basis_digest(model)
    assert digest == basis_digest(model.folded()) == basis_digest(sae.load(sae.save(tmp_path / "same", model)))
    used = [name for name in (*model.tensor_names, "skip") if getattr(model, name) is not None]
    for name in used:
        other = copy.deepcopy(model)
        getattr(other, name).data += 0.1
        assert basis_digest(other) != digest, name
    for name, value in (("k", 6), ("group", 1)):
        if hasattr(config, name):
            other = copy.deepcopy(model)
            other.config = dataclasses.replace(config, **{name: value})
            assert basis_digest(other) != digest, name
    other = copy.deepcopy(model)
    other.config = dataclasses.replace(config, lr=1.0, seed=5, name="another")  # of the training alone
    assert basis_digest(other) == digest


@every
def test_folding_is_what_normalizing_by_hand_gives(config: sae.SAEConfig) -> None:
    """The same numbers reached another way: normalize, run with the parameters as they are, undo."""
    model, x = scrambled(config, dtype=torch.float64), acts(dtype=torch.float64)
    bare = scrambled(config, dtype=torch.float64)
    bare.mean.zero_()
    bare.scale.fill_(1.0)
    by_hand = bare((x - model.mean) * model.scale) / model.scale + model.mean
    torch.testing.assert_close(model(x), by_hand, rtol=0, atol=1e-12)
    torch.testing.assert_close(scrambled(config).folded()(x.float()).double(), by_hand, rtol=0, atol=1e-5)


LARGEST = ("topk", "grouptopk", "matching_pursuit", "archetypal")
"""Architectures whose latents are active when they are the largest, in the units that they have."""


@pytest.mark.parametrize("config", [c for c in CONFIGS if c.architecture not in LARGEST], ids=name_of)
def test_latents_in_units_of_length_reconstruct_the_same(config: sae.SAEConfig) -> None:
    model, x = scrambled(config, dtype=torch.float64), acts(dtype=torch.float64)
    with torch.no_grad():
        model.decoder.mul_(torch.linspace(0.5, 3, 24, dtype=torch.float64)[:, None])
    unit = model.with_unit_decoder()
    torch.testing.assert_close(unit.write.norm(dim=1), torch.ones(24, dtype=torch.float64))
    torch.testing.assert_close(unit(x), model(x))
    torch.testing.assert_close(unit.encode(x), model.encode(x) * model.write.norm(dim=1))


@pytest.mark.parametrize("config", [c for c in CONFIGS if c.architecture in LARGEST], ids=name_of)
def test_units_that_would_let_other_latents_win_are_refused(config: sae.SAEConfig) -> None:
    model, x = scrambled(config), acts()
    unit = model.with_unit_decoder()  # all rows are as long as one another: the order stays
    torch.testing.assert_close(unit(x), model(x))
    with torch.no_grad():
        model.decoder[:5].mul_(3)
    with pytest.raises(sae.SAEError, match="other latents would be the k largest"):
        model.with_unit_decoder()


def test_nhwc_vectors_are_the_one_by_one_convolution() -> None:
    """An SAE over positions is a 1x1 convolution over the map."""
    model = scrambled(sae.ReLU(latents=24))
    maps = torch.randn(2, 10, 3, 4, generator=torch.Generator().manual_seed(0))
    rows = maps.movedim(1, -1)
    flat = model.encode(rows.reshape(-1, 10)).view(2, 3, 4, 24).movedim(-1, 1)
    centered = maps - model.offset[:, None, None]
    torch.testing.assert_close(flat, torch.relu(F.conv2d(centered, model.read[:, :, None, None], model.encoder_bias)))


def test_an_identity_dictionary_gives_rectified_activations_back() -> None:
    model = sae.build(sae.ReLU(latents=10), 10)
    with torch.no_grad():
        model.encoder.copy_(torch.eye(10))
        model.decoder.copy_(torch.eye(10))
    x = acts().relu()
    assert torch.equal(model(x), x)


def test_latents_are_units_of_a_model() -> None:
    planted = nets.planted()
    model = scrambled(sae.TopK(latents=24, k=3), d=nets.PARTS)
    planted.attach("parts", "topk", model)
    images = nets.clutter(3)
    maps = circuits.capture(planted, images, "parts")["parts"]
    rows = maps.movedim(1, -1).reshape(-1, nets.PARTS)
    from circuits.network.responses import respond

    response = respond(planted, planted.unit("parts~topk:5"), maps)
    torch.testing.assert_close(response.flatten(), model.encode(rows)[:, 5])
    kernels = circuits.expanded_weights(planted, source="edges", target="parts~topk:5").kernels
    whole = circuits.expanded_weights(planted, source="edges", target="parts").kernels
    torch.testing.assert_close(kernels[0], torch.einsum("c,cshw->shw", model.read[5].detach(), whole))


@every
def test_initial_rows_are_tied_and_of_length_one_and_drawn_by_the_seed(config: sae.SAEConfig) -> None:
    a, b = sae.build(config, 10), sae.build(config, 10)
    assert torch.equal(a.encoder, a.decoder) and torch.equal(a.decoder, b.decoder)
    torch.testing.assert_close(a.decoder.norm(dim=1), torch.ones(24))
    other = sae.build(dataclasses.replace(config, seed=1), 10)
    assert not torch.equal(a.decoder, other.decoder)


@every
def test_a_configuration_survives_json(config: sae.SAEConfig) -> None:
    import json

    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_activations_that_cannot_be_encoded_say_why() -> None:
    model = scrambled(sae.TopK(latents=24, k=3))
    bad = acts()
    bad[3, 2] = torch.nan
    bad[4] = torch.inf
    for x, message in (
        (torch.zeros(4, 9), "reads 10 channels; the activations have 9"),
        (bad, "2 of 50 activation vectors have values that are not finite"),
        (torch.zeros(0, 10), "empty"),
        (torch.zeros(10), r"activations are \(N, d\)"),
        (torch.zeros(2, 10, 4, 4), "movedim"),
        (torch.zeros(4, 10, dtype=torch.int64), "float tensor"),
        ([1.0], "got list"),
    ):
        for verb in (model.encode, model.encode_sparse, model):
            with pytest.raises(CircuitsError, match=message):
                verb(x)
    with pytest.raises(sae.SAEError, match=r"decode takes \(N, 24\)"):
        model.decode(torch.zeros(2, 23))
    with pytest.raises(sae.SAEError, match="k=25 is more than the 24 latents"):
        model.encode_sparse(acts(), k=25)


def test_settings_that_make_no_sense_say_why() -> None:
    for make, message in (
        (lambda: sae.TopK(latents=8, k=9), "k=9 is more than the 8 latents"),
        (lambda: sae.BatchTopK(latents=8, k=0), "k=0 must be a whole number of at least 1"),
        (lambda: sae.TopK(latents=0), "latents=0"),
        (lambda: sae.TopK(latents=2.5, k=1), "latents=2.5 must"),
        (lambda: sae.ReLU(latents=8, l1=-1), "l1=-1"),
        (lambda: sae.ReLU(latents=8, l1=float("nan")), "l1=nan"),
        (lambda: sae.JumpReLU(latents=8, penalty="l2"), "use one of 'tanh', 'l0'"),
        (lambda: sae.JumpReLU(latents=8, bandwidth=0), "bandwidth=0"),
        (lambda: sae.Matryoshka(latents=8, k=1, groups=(4, 5)), "add up to 9"),
        (lambda: sae.TopK(latents=8, k=1, revive="ghosts"), "use one of 'auxk', 'resample', 'none'"),
        (lambda: sae.TopK(latents=8, k=1, lr=-1.0), "lr=-1.0 must be a number above 0"),
        (lambda: sae.build(sae.TopK(latents=8, k=1), 0), "d=0"),
        (lambda: config_from_dict({"architecture": "topkk"}), "Nearest: topk"),
        (lambda: config_from_dict({"architecture": "topk", "latents": 8, "kk": 2}), "no setting kk"),
        (lambda: config_from_dict({"architecture": "topk"}), "do not fit"),
    ):
        with pytest.raises(sae.SAEError, match=message):
            make()


def test_an_architecture_has_a_name_of_its_own() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Plain(sae.SAEConfig):
        architecture = "plain-test"

    class PlainSAE(sae.SAE):
        Config = Plain

    try:
        assert sae.register(PlainSAE) is sae.register(PlainSAE)
        assert isinstance(sae.build(Plain(latents=4), 3), PlainSAE)
        with pytest.raises(sae.SAEError, match="there is an architecture 'plain-test' already"):
            sae.register(type("Other", (sae.SAE,), {"Config": Plain}))
    finally:
        ARCHITECTURES.remove("plain-test")
    inherited = dataclasses.dataclass(frozen=True, kw_only=True)(type("Inherited", (sae.TopK,), {}))
    for config in (sae.SAEConfig, inherited):
        with pytest.raises(sae.SAEError, match="names no architecture of its own"):
            sae.register(type("Nameless", (sae.SAE,), {"Config": config}))
