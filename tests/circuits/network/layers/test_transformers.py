"""The verbs on a trained vision transformer, `scenes-vit`, against hooks and autograd in plain PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import circuits
import sae
from circuits.errors import CircuitsError, GraphError
from circuits.network.model import Model
from circuits.network.responses import pooled_responses
from zoo.images.sources import open_images
from zoo.scenes.vit import VisionTransformer

N = 26


@pytest.fixture(scope="module")
def model() -> Model:
    return circuits.load("scenes-vit", device="cpu")


@pytest.fixture(scope="module")
def images(model: Model) -> Tensor:
    return open_images(f"scenes:{N}").tensor(model.input, list(range(N)))


def stream(model: Model, images: Tensor, name: str) -> Tensor:
    """Output `(N, 65, C)` of a module, by a plain hook."""
    seen = []
    handle = model.module.get_submodule(name).register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    with torch.no_grad():
        model.module(model.input.normalize(images))
    handle.remove()
    return seen[0]


def after(net: VisionTransformer, tokens: Tensor, block: int) -> Tensor:
    """Class scores from the stream `(N, 65, 96)` after a block."""
    for index in range(block + 1, net.spec.depth):
        tokens = net.get_submodule(f"block{index}")(tokens)
    scores: Tensor = net.scores(net.norm(tokens)[:, 0])
    return scores


def test_attributions_to_tokens_are_those_of_autograd_and_split_into_patches_and_class_token(
    model: Model, images: Tensor
) -> None:
    net = model.module
    assert isinstance(net, VisionTransformer)
    leaf = stream(model, images, "block3").requires_grad_(True)
    (gradient,) = torch.autograd.grad(after(net, leaf, 3)[:, 2].sum(), leaf)
    right = (gradient * leaf).detach()
    whole, patches, token = (
        circuits.attribute(model, images, source=f"block3{view}", target="scores:2", method="grad*act").values
        for view in (".tokens", "", ".cls")
    )
    torch.testing.assert_close(whole[:, :, 0], right.transpose(1, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(patches.flatten(2), right[:, 1:].transpose(1, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(token[:, :, 0, 0], right[:, 0], rtol=1e-4, atol=1e-5)


def test_ablation_of_a_dimension_at_all_tokens_is_the_drop_of_the_score(model: Model, images: Tensor) -> None:
    net = model.module
    assert isinstance(net, VisionTransformer)
    tokens = stream(model, images, "block3")
    result = circuits.attribute(model, images, source="block3.tokens", target="scores:2", method="ablation")
    for dimension in (0, 41):
        without = tokens.clone()
        without[:, :, dimension] = 0
        with torch.no_grad():
            drop = after(net, tokens, 3)[:, 2] - after(net, without, 3)[:, 2]
        torch.testing.assert_close(result.values[:, dimension, 0, 0], drop, rtol=1e-4, atol=1e-4)


def test_a_trace_by_attribution_has_the_strengths_of_autograd(model: Model, images: Tensor) -> None:
    net = model.module
    assert isinstance(net, VisionTransformer)
    circuit = circuits.trace(
        model, "scores:2", images=images, by="attribution", layers=["block3.tokens"], width=3, n_positions=8
    )
    with torch.no_grad():
        strongest = after(net, stream(model, images, "block4"), 4)[:, 2].argsort(descending=True)[:8]
    leaf = stream(model, images[strongest], "block3").requires_grad_(True)
    (gradient,) = torch.autograd.grad(after(net, leaf, 3)[:, 2].sum(), leaf)
    strengths = (gradient * leaf).sum(dim=1).mean(dim=0).detach()
    right = strengths.abs().argsort(descending=True)[:3].tolist()
    assert [e.source for e in circuit.edges] == [f"scenes-vit/block3.tokens:{c}" for c in right]
    for edge, dimension in zip(circuit.edges, right, strict=True):
        assert edge.strength == pytest.approx(float(strengths[dimension]), rel=1e-3)


def test_a_trace_to_patches_that_nothing_reads_is_an_error_that_names_the_class_token(
    model: Model, images: Tensor
) -> None:
    with pytest.raises(CircuitsError, match="no unit of block4 contributes .* it also has block4.cls, block4.tokens"):
        circuits.trace(model, "scores:2", images=images, by="attribution", layers=["block4"])
    with pytest.raises(CircuitsError, match="does not depend on them .* it also has block4.cls, block4.tokens"):
        circuits.trace(model, "scores:2", images=images, layers=["block4"])


def test_tracing_by_weights_across_a_norm_says_why_not(model: Model, images: Tensor) -> None:
    with pytest.raises(GraphError, match="norm.*no linear form"):
        circuits.trace(model, "scores:2", images=images, layers=["block4.tokens"], by="weights")


def test_a_scan_holds_the_strongest_patches(model: Model, images: Tensor, tmp_path: Path) -> None:
    scan = circuits.scan(model, images, tmp_path, layers=["block1.mlp.neurons", "block4.cls"])
    neurons = stream(model, images, "block1.mlp.neurons")[:, 1:, 7]
    top = scan.unit("block1.mlp.neurons:7").top[0]
    best = int(neurons.argmax())
    assert (top.image, top.position) == (best // 64, divmod(best % 64, 8))
    assert top.value == pytest.approx(float(neurons.max()), abs=1e-3)
    token = stream(model, images, "block4")[:, 0, 5]
    assert scan.unit("block4:5@cls").top[0].image == int(token.argmax())


def test_responses_that_find_and_similarity_rank_are_those_of_patches(model: Model, images: Tensor) -> None:
    pooled = pooled_responses(model, images, ["block2", "block2.cls"], pool="mean")
    raw = stream(model, images, "block2")
    torch.testing.assert_close(pooled["block2"], raw[:, 1:].mean(dim=1), rtol=1e-5, atol=1e-5)
    assert torch.equal(pooled["block2.cls"], raw[:, 0])
    finding = circuits.find(model, positive=images[:13], negative=images[13:], layer="block2").best
    assert finding.unit.startswith("scenes-vit/block2:")


def test_a_sparse_autoencoder_sees_patches_and_steers_them(model: Model, images: Tensor) -> None:
    site = sae.VisionSite(model, "block2")
    (block,) = site.blocks(images[:3])
    raw = stream(model, images[:3], "block2")
    assert torch.equal(block.vectors.reshape(3, 64, 96), raw[:, 1:])
    directions = torch.eye(96)[:5]
    model.attach("block2", "five", circuits.Directions(directions))
    with circuits.edit(model, [circuits.Add("block2~five:3", 2.0)]):
        steered = stream(model, images[:3], "block2")
    change = steered - raw
    assert torch.equal(change[:, 0], torch.zeros_like(change[:, 0]))
    torch.testing.assert_close(change[:, 1:, 3], torch.full((3, 64), 2.0), rtol=0, atol=1e-5)
    assert float(change[:, :, 4:].abs().max()) == 0
    del model.bases["block2", "five"]


def test_a_visualization_activates_a_neuron_more_than_images_do(model: Model, images: Tensor) -> None:
    address = "block1.mlp.neurons:3"
    (result,) = circuits.visualize(model, [address], steps=48)
    best = float(stream(model, images, "block1.mlp.neurons")[:, 1:, 3].max())
    shown = result.image[None].clamp(0, 1)
    peak = float(stream(model, shown, "block1.mlp.neurons")[:, 1:, 3].max())
    assert result.status == "ok" and peak > best
    assert result.image.shape[1:] == (64, 64), "a network of tokens takes its own size"


def test_polysemanticity_and_dossiers_of_a_neuron_are_made(model: Model, images: Tensor, tmp_path: Path) -> None:
    scan = circuits.scan(model, images, tmp_path, layers=["block2.mlp.neurons"])
    dossier = circuits.explain(model, "block2.mlp.neurons:5", scan)
    assert dossier.facts["map"] == [8, 8] and dossier.facts["receptive_field"] is None
    (row,) = circuits.polysemantic(model, ["block2.mlp.neurons:5"], images=images, n=12).rows
    assert row.source == "add_5.tokens" and row.n_examples == 12 and 0 <= row.score <= 1
