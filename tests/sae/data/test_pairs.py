"""Pairs of layers: windows by receptive fields, what stands in for a block, and the MLPs of a language model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
import sae
from circuits.errors import CircuitsError, GraphError
from circuits.network.hooks import read
from sae.data.activations import Sampling, SiteStream
from sae.data.attach import attach_folder
from sae.data.windows import window_between
from sae.training.linear_map import fit_linear_map
from zoo.inputs import InputSpec


class Blocks(nn.Module):
    """Strides, dilation, padding on one side, branches, pools and a skip connection, small enough to differentiate."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.strided = nn.Conv2d(4, 5, 4, stride=2, padding=1)
        self.wide = nn.Conv2d(5, 6, (1, 5), padding=(0, 2))
        self.dilated = nn.Conv2d(6, 4, 3, dilation=2, padding=2)
        self.narrow = nn.Conv2d(6, 4, 1)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.mix = nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.strided(self.first(x))
        x = self.relu(self.wide(x))
        x = self.mix(torch.cat([self.pool(self.dilated(x)), self.pool(self.narrow(x))], dim=1))
        return self.head(x.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    torch.manual_seed(0)
    return circuits.wrap(Blocks().eval(), input=InputSpec(size=22), name="blocks")


@pytest.mark.parametrize(
    ("source", "target", "size"),
    [
        ("first", "strided", (4, 4)), ("first", "wide", (4, 12)), ("strided", "relu", (1, 5)), ("relu", "mix", (7, 7)),
        ("wide", "narrow", (1, 1)), ("strided", "mix", (7, 11)),
    ],
)  # fmt: skip
def test_a_window_holds_every_position_that_autograd_reaches(
    model: circuits.Model, source: str, target: str, size: tuple[int, int]
) -> None:
    window = window_between(model, source, target)
    assert window.size == size
    image = torch.rand(1, 3, 22, 22, generator=torch.Generator().manual_seed(1)).requires_grad_()
    layers = [model.layer(name) for name in (source, target)]
    acts = read(model, image, layers, clone=False)
    height, width = acts[source].shape[2:]
    reached = torch.zeros(height, width, dtype=torch.bool)
    for y, x in ((0, 0), (acts[target].shape[2] - 1, 1), (1, acts[target].shape[3] - 1)):
        gradient = torch.autograd.grad(acts[target][0, :, y, x].sum(), acts[source], retain_graph=True)[0]
        rows, columns = (gradient[0].abs().sum(dim=0) > 0).nonzero(as_tuple=True)
        top, left = y * window.stride[0] + window.offset[0], x * window.stride[1] + window.offset[1]
        assert bool(((rows >= top) & (rows < top + size[0])).all())
        assert bool(((columns >= left) & (columns < left + size[1])).all())
        reached[rows, columns] = True
        # and the window's vector holds what lies there, row by row, channels innermost, zeros outside of the map
        vector = window.of(acts[source])[0, :, y, x].view(*size, -1)
        for i in range(size[0]):
            for j in range(size[1]):
                inside = 0 <= top + i < height and 0 <= left + j < width
                there = acts[source][0, :, top + i, left + j] if inside else torch.zeros(vector.shape[-1])
                assert torch.equal(vector[i, j], there)
    assert int(reached.sum()) > 0


def test_pairs_without_a_window_are_refused(model: circuits.Model) -> None:
    for source, target, message in (
        ("first", "head", "one is a vector and the other a map"),
        ("mix", "first", "no path leads"),
        ("dilated", "mix", "also depends on"),
        ("first", "first", "one operation"),
    ):
        with pytest.raises(GraphError, match=message):
            sae.VisionPair(model, source, target)
    with pytest.raises(GraphError, match="2 positions have no middle in a window of 5; give 3"):
        sae.VisionPair(model, "strided", "relu", patch=(1, 2))
    for patch in (2.5, (3,), (1, 3, 1), "3"):
        with pytest.raises(GraphError, match="patch="):
            sae.VisionPair(model, "strided", "relu", patch=patch)  # type: ignore[arg-type]
    assert sae.VisionPair(model, "strided", "relu", patch=(1, 3)).window.offset == (0, -1)


def as_transcoder(pair: sae.VisionPair, weight: Tensor, bias: Tensor) -> sae.SAE:
    """A transcoder that is a convolution: all of it in the skip."""
    exact = sae.build(sae.TopK(latents=4, k=1, kind="skip-transcoder"), *pair.widths)
    with torch.no_grad():
        exact.skip.copy_(weight.movedim(1, 3).reshape(len(weight), -1))  # type: ignore[union-attr]
        exact.decoder_bias.copy_(bias)
        exact.decoder.zero_()
    return exact.eval()


def test_a_convolution_is_its_transcoder_and_stands_in_for_itself(model: circuits.Model) -> None:
    images = torch.rand(12, 3, 22, 22, generator=torch.Generator().manual_seed(2))
    pair = sae.VisionPair(model, "first", "strided")
    conv = model.module.strided
    found = sae.evaluate(as_transcoder(pair, conv.weight, conv.bias), pair, images, training=images)
    assert found.own == "transcoder" and found.reconstruction.fvu < 1e-9
    assert found.reconstruction.baselines["linear"].fvu < 1e-4  # least squares finds it, too
    assert found.ways["transcoder"].kl == pytest.approx(0, abs=1e-9) and found.ways["mean"].kl > 1e-5
    assert found.recovered("kl") == pytest.approx(1, abs=1e-3)
    with torch.no_grad(), pair.replaced(lambda both: 0 * both[..., pair.widths[0] :]):
        zeroed = model(images)
    by_hand = model.module
    with torch.no_grad():
        x = by_hand.relu(by_hand.wide(torch.zeros(12, 5, 11, 11)))
        x = by_hand.mix(torch.cat([by_hand.pool(by_hand.dilated(x)), by_hand.pool(by_hand.narrow(x))], dim=1))
        torch.testing.assert_close(zeroed, by_hand.head(x.mean(dim=(2, 3))))
        tops = zeroed.log_softmax(1), model(images).log_softmax(1)
    kl = F.kl_div(tops[0], tops[1], reduction="batchmean", log_target=True)
    assert found.ways["zero"].kl == pytest.approx(float(kl), rel=1e-4)
    wide = torch.randn(20, 70, generator=torch.Generator().manual_seed(0))
    with pytest.raises(sae.SAEError, match="reads 64 channels; the activations have 70"):
        sae.metrics.reconstruction(sae.build(sae.TopK(latents=4, k=1), 64), wide)
    with pytest.raises(sae.SAEError, match="this is an SAE; blocks/first..strided is a pair of layers"):
        sae.evaluate(sae.build(sae.TopK(latents=4, k=1), 64), pair, images)
    other = sae.build(sae.TopK(latents=4, k=1), 5)
    other.metadata = {"layer": "first"}
    with pytest.raises(sae.SAEError, match="output_sae= was trained on first; the block gives strided"):
        sae.evaluate(as_transcoder(pair, conv.weight, conv.bias), pair, images, output_sae=other)


def test_streams_cut_the_windows_that_blocks_give(model: circuits.Model) -> None:
    pair = sae.VisionPair(model, "strided", "mix")
    images = pair.open(torch.rand(9, 3, 22, 22, generator=torch.Generator().manual_seed(3)))
    for settings in ({}, {"sampling": Sampling(per_input=5)}, {"memory": 10_000}):
        options: dict[str, Any] = {"batch_size": 16, **settings}
        cut, whole = pair.stream(images, **options), SiteStream(pair, images, **options)
        whole.windows = cut.windows  # by the memory of maps, not of windows
        assert cut.widths == pair.widths and (cut.windows > 1) == ("memory" in settings)
        for _ in range(12):
            assert torch.equal(next(cut), next(whole))


def test_the_linear_map_is_that_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 6, generator=generator) * torch.linspace(0.5, 2, 6) + 20.0
    y = x @ torch.randn(6, 3, generator=generator) + torch.randn(3000, 3, generator=generator)
    fitted = fit_linear_map(torch.cat([x, y], dim=1).split(300), (6, 3), penalties=(1e-9,))  # type: ignore[no-untyped-call]
    kept = torch.arange(3000) % 3000 >= 300  # the first of ten batches is judged on
    design = torch.cat([x[kept], torch.ones(2700, 1)], dim=1).double()
    solution = torch.linalg.lstsq(design, y[kept].double()).solution
    torch.testing.assert_close(fitted.weight.double(), solution[:6].T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        fitted(x).double(), torch.cat([x, torch.ones(3000, 1)], 1).double() @ solution, rtol=1e-4, atol=1e-3
    )


def test_an_mlp_of_a_language_model_is_replaced_by_its_transcoder() -> None:
    from sae.language import LanguagePair, LanguageSite, load_language

    lm = load_language("tales")
    pair = LanguagePair(lm, "layers.1.mlp_in", "layers.1.mlp")
    block = next(pair.blocks("tales:3"))
    mlp = copy.deepcopy(lm.module.get_submodule(pair._source_path))  # which is not hooked
    with torch.no_grad():
        torch.testing.assert_close(mlp(block.acts[..., :64]), block.acts[..., 64:])
    plain = next(LanguageSite(lm, "layers.1.mlp").blocks("tales:3")).acts
    assert torch.equal(block.acts[..., 64:], plain) and pair.address == "tales/layers.1.mlp_in..layers.1.mlp"
    clean = pair.loss("tales:3").nats
    with pair.replaced(lambda both: mlp(both[..., :64])):  # the MLP itself
        assert pair.loss("tales:3").nats == pytest.approx(clean, abs=1e-6)
    run = sae.train(pair.stream("tales:20"), sae.TopK(latents=64, k=8, kind="skip-transcoder"), steps=20, lr=3e-3)[0]
    found = sae.evaluate(run.sae, pair, "tales:4@1", training="tales:20")
    assert found.ways["clean"].loss < found.ways["transcoder"].loss < found.ways["mean"].loss
    assert found.reconstruction.fvu < found.reconstruction.baselines["linear"].fvu * 1.2
    for source, message in (("layers.9.mlp_in", "N of layers.N.mlp_in is 0 to"), ("layers.1.mlp", "two sites")):
        with pytest.raises(sae.SAEError, match=message):
            LanguagePair(lm, source, "layers.1.mlp")


def test_latents_of_a_transcoder_are_units_at_the_positions_of_its_target(tmp_path: Path) -> None:
    scenes = circuits.load("scenes")
    pair = sae.VisionPair(scenes, "conv2d0", "conv2d1")  # of half the size
    model = sae.build(sae.TopK(latents=16, k=4, kind="transcoder"), *pair.widths)
    model.metadata = dict(pair.metadata)
    site, name = attach_folder(scenes, sae.save(tmp_path / "block", model))
    assert site.space == "conv2d0..conv2d1" and name == "block"
    space = f"{site.space}~{name}"
    scan = circuits.scan(scenes, "scenes:6", tmp_path / "scan", layers=[space])
    windows = [block.acts[..., : pair.widths[0]].flatten(0, 2) for block in pair.blocks("scenes:6")]
    latents = model.encode(torch.cat(windows))
    by_image = latents.detach().view(6, 16, 16, 16).movedim(-1, 1)
    unit = scan.unit(f"{space}:3")
    assert unit.maximum == pytest.approx(float(by_image[:, 3].max()), rel=1e-5)
    assert unit.density == pytest.approx(float((by_image[:, 3] > 0).double().mean()))
    top = unit.top[0]
    y, x = top.position
    assert float(by_image[top.image, 3, y, x]) == pytest.approx(unit.maximum, rel=1e-5)
    field = scenes.receptive_field(scenes.unit(f"{space}:3"))
    assert field == scenes.layers["conv2d1"].receptive_field and site.space not in scenes.layers
    pooled = circuits.capture(scenes, "scenes:6", at=[site.space])[site.space]
    assert torch.equal(model.encode(pooled.movedim(1, -1).flatten(0, 2)), latents)
    with pytest.raises(circuits.CircuitsError, match="windows of conv2d0"):
        circuits.expanded_weights(scenes, source="conv2d0", target=f"{space}:3")
    assert circuits.graph(scenes, "scenes:1", "car").layers == (space,)  # what is attached
    with pytest.raises(circuits.CircuitsError, match="windows of conv2d0"):
        circuits.graph(scenes, "scenes:1", f"{space}:3", layers=["conv2d0"])
    for explained, layers in (("logits:0", [space]), (f"{space}:3", ["conv2d0"])):
        with pytest.raises(circuits.CircuitsError, match="windows of conv2d0"):
            circuits.trace(scenes, explained, images="scenes:1", layers=layers)
    seen = circuits.visualize(scenes, f"{space}:3", steps=1, seed=0)
    assert seen[0].unit == f"scenes/{space}:3"
    edits = [circuits.Ablate(f"{space}:3")]
    with pytest.raises(circuits.CircuitsError, match="windows of conv2d0"), circuits.edit(scenes, edits):
        pass
    again = copy.deepcopy(scenes)
    assert again.unit(f"{space}:3").space == space


def test_a_layer_and_its_own_neighborhood_begin_as_an_sae() -> None:
    """Before its first step a convolutional SAE is the SAE of the middle position."""
    model = circuits.load("scenes")
    pair = sae.VisionPair(model, "mixed3b", "mixed3b", patch=3)
    d, pairs = pair.target.d, sae.collect(pair, "scenes:4").vectors
    assert pair.center == 4 * d and pair.widths == (9 * d, d)
    windows, own = pairs[:, : 9 * d], pairs[:, 9 * d :]
    assert torch.equal(windows[:, 4 * d : 5 * d], own)
    config = sae.TopK(latents=96, k=4, kind="transcoder")
    start = sae.train(pair.stream("scenes:4", batch_size=64), config, steps=1, lr=1e-12)[0].sae
    middle = start.encoder.view(96, 9, d)
    torch.testing.assert_close(middle[:, 4], start.decoder, rtol=0, atol=1e-6)
    assert float(middle[:, [0, 1, 2, 3, 5, 6, 7, 8]].abs().max()) < 1e-6
    for patch in (None, 1):
        with pytest.raises(GraphError, match="one layer twice with patch=3"):
            sae.VisionPair(model, "mixed3b", "mixed3b", patch=patch)


def test_the_latents_of_a_transcoder_have_texts_and_dossiers_without_the_geometry_of_one_space(tmp_path: Path) -> None:
    from circuits.units.dossier import explain
    from sae.language import LanguagePair, activity, load_language

    pair = LanguagePair(load_language("tales"), "layers.1.mlp_in", "layers.1.mlp")
    torch.manual_seed(0)
    transcoder = sae.build(sae.TopK(latents=32, k=4, kind="transcoder"), 64, 64)
    active = activity(transcoder, pair, ["The owl sat on the red bridge."])
    block = next(iter(pair.blocks(["The owl sat on the red bridge."])))
    latents = transcoder.encode(block.vectors[:, :64])
    assert len(active.value) == int((latents > 0).sum())
    for latent in active.live.tolist():
        _, tokens, values = active.of(latent)
        torch.testing.assert_close(torch.from_numpy(values), latents[tokens, latent])
    with pytest.raises(CircuitsError, match="geometry\\(transcoder.write\\)"):
        sae.geometry(transcoder)
    assert sae.geometry(transcoder.write.detach()).dimensions == 64

    model = circuits.load("scenes")
    site = sae.VisionPair(model, "mixed3b", "mixed4a", patch=3)
    site.attach("b", sae.build(sae.TopK(latents=16, k=4, kind="transcoder"), *site.widths))
    scan = circuits.scan(model, "scenes:4", tmp_path, layers=["mixed3b..mixed4a~b"])
    dossier = explain(model, "mixed3b..mixed4a~b:3", scan)
    assert "geometry" not in dossier.parts
