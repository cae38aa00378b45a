"""A layer of a CNN as a place for SAEs, and what an SAE keeps of the network."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import circuits
import sae
from circuits.errors import AddressError
from sae.data.activations import Sampling, collect
from sae.data.attach import attach_folder
from sae.data.site import Site, constant, reconstructing
from sae.data.vision_site import VisionSite
from sae.errors import FormatError, SAEError
from sae.evaluation.evaluate import evaluate
from zoo.images.sources import open_images

COUNT = 24


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    return circuits.load("scenes", device="cpu")


@pytest.fixture(scope="module")
def site(model: circuits.Model) -> VisionSite:
    return VisionSite(model, "mixed3b")


def scrambled(d: int, latents: int = 60, k: int = 5) -> sae.SAE:
    model = sae.build(sae.TopK(latents=latents, k=k), d)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) * 0.3)
        model.mean.copy_(torch.rand(d, generator=torch.Generator().manual_seed(9)))
    return model.requires_grad_(False)


def identity(d: int) -> sae.SAE:
    """Every non-negative input is its own reconstruction."""
    model = sae.build(sae.ReLU(latents=d), d)
    with torch.no_grad():
        model.encoder.copy_(torch.eye(d))
        model.decoder.copy_(torch.eye(d))
    return model.requires_grad_(False)


def test_it_is_a_site(site: VisionSite) -> None:
    assert isinstance(site, Site)
    assert (site.address, site.d, site.axes) == ("scenes/mixed3b", 48, ("image", "y", "x"))


def test_vectors_are_the_positions_of_the_map(model: circuits.Model, site: VisionSite) -> None:
    acts = circuits.capture(model, f"scenes:{COUNT}", ["mixed3b"])["mixed3b"]
    found = collect(site, f"scenes:{COUNT}")
    assert torch.equal(found.vectors, acts.movedim(1, -1).flatten(0, 2))
    rows = torch.randperm(len(found.vectors), generator=torch.Generator().manual_seed(0))[:50]
    for row in rows.tolist():
        image, y, x = found.positions[row].tolist()
        assert torch.equal(found.vectors[row], acts[image, :, y, x])


def test_cutting_into_positions_equals_a_1x1_convolution(model: circuits.Model, site: VisionSite) -> None:
    one = scrambled(48)
    acts = circuits.capture(model, "scenes:3", ["mixed3b"])["mixed3b"]
    seen = []

    def function(maps: Tensor) -> Tensor:
        seen.append(reconstructing(one)(maps))
        return seen[-1]

    with site.replaced(function):
        model(open_images("scenes:3").tensor(model.input))
    pre = F.conv2d(acts - one.offset[:, None, None], one.read[:, :, None, None], one.encoder_bias)
    values, indices = pre.topk(5, dim=1)
    latents = torch.zeros_like(pre).scatter(1, indices, values.relu())
    again = F.conv2d(latents, one.write.T[:, :, None, None], one.offset)
    assert torch.allclose(seen[0].movedim(-1, 1), again, atol=1e-4)


def test_the_network_goes_on_from_what_stands_in_its_place(model: circuits.Model, site: VisionSite) -> None:
    pictures = open_images("scenes:3").tensor(model.input)
    with site.replaced(lambda acts: torch.ones_like(acts)):
        assert torch.equal(circuits.capture(model, pictures, ["mixed3b"])["mixed3b"], torch.ones(3, 48, 8, 8))
    clean = circuits.capture(model, pictures, ["mixed3b"])["mixed3b"]
    with site.replaced(lambda acts: acts):
        assert torch.equal(circuits.capture(model, pictures, ["mixed3b"])["mixed3b"], clean)


def test_a_branch_is_its_channels_and_no_others(model: circuits.Model) -> None:
    site = VisionSite(model, "mixed3b_3x3")
    part = model.layers["mixed3b_3x3"].part
    assert part is not None
    channels = slice(part[1], part[1] + site.d)
    whole = circuits.capture(model, "scenes:3", ["mixed3b"])["mixed3b"]
    found = collect(site, "scenes:3")
    assert torch.equal(found.vectors, whole[:, channels].movedim(1, -1).flatten(0, 2))
    with site.replaced(lambda acts: acts + 1):
        edited = circuits.capture(model, "scenes:3", ["mixed3b"])["mixed3b"]
    expected = whole.clone()
    expected[:, channels] += 1
    assert torch.equal(edited, expected)


def test_branches_tile_the_layer(model: circuits.Model) -> None:
    branches = [n for n, layer in model.layers.items() if layer.part is not None and layer.part[0] == "mixed3b"]
    whole = collect(VisionSite(model, "mixed3b"), "scenes:2").vectors
    parts = [collect(VisionSite(model, name), "scenes:2").vectors for name in branches]
    assert len(parts) > 1 and torch.equal(torch.cat(parts, dim=1), whole)


def test_another_shape_is_refused_and_leaves_no_hook(model: circuits.Model, site: VisionSite) -> None:
    pictures = torch.rand(2, 3, 64, 64)
    clean = model(pictures)
    with pytest.raises(SAEError, match="replaced by"), site.replaced(lambda acts: acts[..., :3]):
        model(pictures)
    assert torch.equal(model(pictures), clean)


def test_one_unit_and_unknown_layers_are_refused(model: circuits.Model) -> None:
    with pytest.raises(SAEError, match=r"one unit. Name the layer: mixed3b"):
        VisionSite(model, "mixed3b:4")
    with pytest.raises(AddressError, match="mixed3b"):
        VisionSite(model, "mixed3bb")


# -- splicing ------------------------------------------------------------------------------------------


def test_a_perfect_sae_keeps_everything_and_the_mean_nothing(site: VisionSite) -> None:
    found = evaluate(identity(48), site, f"scenes:{COUNT}")
    assert found.reconstruction.fvu < 1e-10
    assert found.ways["sae"] == found.ways["clean"]
    assert all(found.recovered(what) == 1.0 for what in ("top1", "loss", "kl", "agreement"))
    assert found.ways["clean"].agreement == 1.0 and found.ways["clean"].kl == pytest.approx(0, abs=1e-9)
    assert found.ways["clean"].top1 > 0.9 > found.ways["mean"].top1


@pytest.mark.parametrize("floor", ["mean", "zero"])
def test_an_sae_that_always_says_the_floor_keeps_nothing(site: VisionSite, floor: str) -> None:
    images = f"scenes:{COUNT}"
    silent = identity(48)
    with torch.no_grad():
        silent.encoder_bias.fill_(-1e6)
        if floor == "mean":
            silent.decoder_bias.copy_(collect(site, images).vectors.double().mean(dim=0).float())
    found = evaluate(silent, site, images, controls=False)
    assert found.reconstruction.l0 == 0
    for what in ("loss", "kl"):
        assert found.recovered(what, floor=floor) == pytest.approx(0, abs=1e-5)


def test_the_error_term_restores_the_network_to_the_bit(model: circuits.Model, site: VisionSite) -> None:
    pictures = open_images("scenes:3").tensor(model.input)
    clean = model(pictures)
    with site.replaced(reconstructing(scrambled(48), keep_error=True)):
        assert torch.equal(model(pictures), clean)
    with site.replaced(reconstructing(scrambled(48))):
        assert not torch.allclose(model(pictures), clean, atol=0.1)


def test_with_the_error_term_gradients_go_through_the_sae() -> None:
    one = scrambled(6, 20, 3)
    acts = torch.rand(2, 3, 3, 6, requires_grad=True)
    reconstructing(one, keep_error=True)(acts).sum().backward()
    grad = acts.grad
    acts.grad = None
    reconstructing(one)(acts).sum().backward()
    assert grad is not None and acts.grad is not None
    assert torch.allclose(grad, acts.grad) and not torch.allclose(grad, torch.ones_like(grad))


def test_figures_are_those_of_the_definitions(model: circuits.Model, site: VisionSite) -> None:
    images = open_images(f"scenes:{COUNT}")
    one = scrambled(48)
    found = evaluate(one, site, images, batch_size=5)
    acts = circuits.capture(model, images, ["mixed3b"])["mixed3b"].movedim(1, -1).flatten(0, 2)
    assert found.reconstruction.fvu == pytest.approx(sae.metrics.fvu(acts, one(acts)), rel=1e-6)
    pictures = images.tensor(model.input)
    clean = circuits.capture(model, pictures, ["logits"])["logits"].flatten(1).log_softmax(1)
    with site.replaced(reconstructing(one)):
        spliced = circuits.capture(model, pictures, ["logits"])["logits"].flatten(1).log_softmax(1)
    labels = torch.tensor(images.labels)
    assert found.ways["sae"].top1 == pytest.approx(float((spliced.argmax(1) == labels).float().mean()))
    assert found.ways["sae"].loss == pytest.approx(float(F.nll_loss(spliced, labels)), rel=1e-4)
    kl = (clean.exp() * (clean - spliced)).sum(1).mean()
    assert found.ways["sae"].kl == pytest.approx(float(kl), rel=1e-4)
    for name, branch in found.branches.items():
        part = model.layers[name].part
        assert part is not None
        own = slice(part[1], part[1] + model.layers[name].channels)
        assert branch["sae"] == pytest.approx(sae.metrics.fvu(acts[:, own], one(acts)[:, own]), rel=1e-6)
    assert {"channels", "random"} <= found.ways.keys() and found.describe()["recovered"]["mean"]["kl"] < 1


def test_unknown_labels_are_not_counted(site: VisionSite) -> None:
    images = open_images("scenes:6")
    assert images.labels is not None
    labels = [images.labels[0], -1, -1, -1, -1, images.labels[5]]
    found = evaluate(identity(48), site, images, labels=labels, controls=False)
    assert found.ways["clean"].count == 2
    nobody = evaluate(identity(48), site, images, labels=[-1] * 6, controls=False)
    assert math.isnan(nobody.ways["clean"].top1) and nobody.ways["sae"].agreement == 1.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda site: evaluate(identity(47), site, "scenes:2"), "reads 47 channels; scenes/mixed3b has 48"),
        (lambda site: evaluate(identity(48), site, "scenes:2", labels=[0]), "1 labels for 2 inputs"),
        (
            lambda site: evaluate(identity(48), site, "scenes:2", sampling=Sampling(per_input=2, rule="magnitude")),
            "uniform positions",
        ),
    ],
)
def test_bad_questions_are_refused(site: VisionSite, call: Callable[[VisionSite], object], said: str) -> None:
    with pytest.raises(SAEError, match=said):
        call(site)


def test_an_sae_of_other_weights_or_another_layer_is_refused(site: VisionSite) -> None:
    one = identity(48)
    one.metadata = {**site.metadata, "weights_digest": "f" * 64}
    with pytest.raises(SAEError, match=r"trained on another weights|other"):
        site.attach("x", one)
    one.metadata = {**site.metadata, "layer": "mixed4a"}
    with pytest.raises(SAEError, match="another layer"):
        evaluate(one, site, "scenes:2")


# -- latents as units ------------------------------------------------------------------------------------


def trained(site: VisionSite, latents: int = 96) -> sae.Run:
    stream = site.stream("scenes:60", batch_size=512)
    return sae.train(stream, sae.TopK(latents=latents, k=6), steps=60, lr=3e-3, dead_after=20_000)[0]


def test_what_was_trained_says_where_it_reads_and_is_attached_by_its_folder(tmp_path: Path) -> None:
    model = circuits.load("scenes", device="cpu")
    site = VisionSite(model, "mixed3b")
    run = trained(site)
    sae.save(tmp_path / "parts", run)
    loaded = sae.load(tmp_path / "parts")
    for key in ("model", "layer", "weights_digest", "stride", "receptive_field", "input_normalisation", "sampling"):
        assert loaded.metadata[key] == run.sae.metadata[key]
    assert loaded.metadata["input"]["folded"] is True
    where, name = attach_folder(model, tmp_path / "parts")
    assert (where.address, name) == ("scenes/mixed3b", "parts")
    acts = circuits.capture(model, "scenes:2", ["mixed3b"])["mixed3b"]
    latents = loaded.encode(acts.movedim(1, -1).flatten(0, 2)).view(2, 8, 8, -1)
    index = int(latents.flatten(0, 2).amax(dim=0).argmax())
    found = circuits.attribute(model, "scenes:2", source="mixed3a", target=f"mixed3b~parts:{index}")
    assert found is not None
    with circuits.edit(model, [circuits.Set(f"mixed3b~parts:{index}", 0.0)]):
        edited = circuits.capture(model, "scenes:2", ["mixed3b"])["mixed3b"]
    delta = (edited - acts).movedim(1, -1)
    assert torch.allclose(delta, -latents[..., index, None] * loaded.write[index], atol=1e-4)


def test_an_sae_of_a_branch_speaks_of_the_whole_layer() -> None:
    model = circuits.load("scenes", device="cpu")
    site = VisionSite(model, "mixed3b_3x3")
    one = scrambled(site.d, 30, 3)
    site.attach("branch", one)
    acts = circuits.capture(model, "scenes:2", ["mixed3b"])["mixed3b"].movedim(1, -1).flatten(0, 2)
    basis = model.basis("mixed3b", "branch")
    part = site.layer.part
    assert part is not None
    own = slice(part[1], part[1] + site.d)
    assert torch.equal(basis.encode(acts), one.encode(acts[:, own]))
    assert basis.write.shape == (30, 48) and float(basis.write[:, : part[1]].abs().sum()) == 0
    assert torch.equal(basis.read[:, own], one.read)


def test_a_file_that_does_not_say_where_it_reads_is_refused(tmp_path: Path, model: circuits.Model) -> None:
    sae.save(tmp_path / "x", identity(48))
    with pytest.raises(SAEError, match="does not say which layer"):
        attach_folder(model, tmp_path / "x")
    with pytest.raises(FormatError):
        attach_folder(model, tmp_path / "nothing")


def test_mean_and_zero_stand_everywhere() -> None:
    assert torch.equal(constant(torch.tensor([1.0, 2.0]))(torch.zeros(2, 3, 3, 2))[1, 2, 2], torch.tensor([1.0, 2.0]))
