"""Heat maps over pixels, against captum and against plain PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import circuits
from circuits import plot
from circuits.attribution.class_scores import class_of
from circuits.errors import CircuitsError
from circuits.plot.drawing.records import records_html


class Net(nn.Module):
    """ReLUs as modules, as captum needs them, and one in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.conv2, self.relu2 = nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()
        self.conv3, self.relu3 = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu2(self.conv2(self.pool(self.relu1(self.conv1(x)))))
        return self.fc(self.relu3(self.conv3(x)).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def model(net: nn.Module) -> circuits.Model:
    return circuits.wrap(net, circuits.InputSpec(size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)), name="net")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def normalized(x: Tensor) -> Tensor:
    return (x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)


class OnPixels(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(normalized(x))


def by_captum(method: str, net: nn.Module, x: Tensor) -> Tensor:
    model: Any = OnPixels(net)
    x = x.clone().requires_grad_(True)
    if method == "saliency":
        return captum.attr.Saliency(model).attribute(x, target=3, abs=False)
    if method == "gradient*input":
        return captum.attr.InputXGradient(model).attribute(x, target=3)
    if method == "integrated":
        options = {"n_steps": 40, "method": "riemann_middle", "baselines": torch.full_like(x, 0.25)}
        return captum.attr.IntegratedGradients(model).attribute(x, target=3, **options)
    if method == "guided":
        return captum.attr.GuidedBackprop(model).attribute(x, target=3)
    if method == "gradcam":
        cam = captum.attr.LayerGradCam(model, model.net.relu2).attribute(x, target=3, relu_attributions=True)
        return captum.attr.LayerAttribution.interpolate(cam, (16, 16), interpolate_mode="bilinear")
    options = {"target": 3, "interpolate_mode": "bilinear"}
    return captum.attr.GuidedGradCam(model, model.net.relu2).attribute(x, **options)


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("method", ["saliency", "gradient*input", "integrated", "guided", "gradcam", "guided_gradcam"])
def test_attributions_equal_captums(method: Any, net: nn.Module, model: circuits.Model, images: Tensor) -> None:
    heat = circuits.heatmap(
        model, images, target="fc:3", method=method, layer="relu2" if "cam" in method else None, steps=40,
        baseline=0.25, control=False, batch_size=2,
    )  # fmt: skip
    right = by_captum(method, net, images).detach()
    assert right.abs().max() > 0
    torch.testing.assert_close(heat.attributions, right, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(heat.response, net(normalized(images))[:, 3].detach())


def test_smoothgrad_is_the_mean_gradient_over_noisy_images(
    net: nn.Module, model: circuits.Model, images: Tensor
) -> None:
    heat = circuits.heatmap(model, images, target="fc:3", method="smoothgrad", samples=4, noise=0.2, seed=7)
    again = circuits.heatmap(
        model, images, target="fc:3", method="smoothgrad", samples=4, noise=0.2, seed=7, batch_size=1
    )
    torch.testing.assert_close(heat.maps, again.maps)  # the noise of an image does not depend on its batch
    for i, image in enumerate(images):
        generator, total = torch.Generator().manual_seed(7 + i), torch.zeros_like(image)
        for _ in range(4):
            noisy = image + 0.2 * (image.max() - image.min()) * torch.randn(image.shape, generator=generator)
            noisy.requires_grad_(True)
            net(normalized(noisy[None]))[0, 3].backward()
            total += noisy.grad / 4
        torch.testing.assert_close(heat.attributions[i], total, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(heat.maps[i], total.abs().amax(0), rtol=1e-4, atol=1e-6)


def test_the_integrated_map_of_a_unit_sums_up_to_its_change_from_the_baseline() -> None:
    model = circuits.load("scenes")
    heat = circuits.heatmap(model, "scenes:2", target="mixed4a:11", steps=200, control=False)
    black = circuits.heatmap(
        model, torch.zeros(2, 3, 64, 64), target="mixed4a:11", at=list(heat.positions), method="saliency", control=False
    )
    change = heat.response - black.response
    assert (change.abs() > 0.05).all()
    torch.testing.assert_close(heat.maps.sum(dim=(1, 2)), change, rtol=0.05, atol=0.01)


def test_a_map_of_the_untrained_network_stands_beside_it(model: circuits.Model, images: Tensor) -> None:
    heat = circuits.heatmap(model, images, target="fc:3", method="saliency", seed=3)
    other = circuits.untrained(model, seed=3)
    direct = circuits.heatmap(other, images, target="fc:3", method="saliency", control=False)
    assert heat.untrained is not None and torch.equal(heat.untrained, direct.maps)
    from scipy.stats import spearmanr

    pairs = [(a[(a > 0) | (b > 0)], b[(a > 0) | (b > 0)]) for a, b in zip(heat.maps, direct.maps, strict=True)]
    right = [spearmanr(a, b).statistic for a, b in pairs]
    assert heat.similarity == pytest.approx(right, abs=1e-5)


def test_a_latent_has_a_heat_map_too() -> None:
    model = circuits.load("scenes")
    read = torch.zeros(1, 48)
    read[0, 6] = 1.0
    model.attach("mixed3b", "same", circuits.Directions(read))
    latent = circuits.heatmap(model, "scenes:1", target="mixed3b~same:0", method="saliency", control=False)
    channel = circuits.heatmap(
        model, "scenes:1", target="mixed3b:6", method="saliency", at=latent.positions[0], control=False
    )
    assert latent.response > 0
    torch.testing.assert_close(latent.maps, channel.maps)


def test_an_overlay_shows_sign_and_size(tmp_path: Path, model: circuits.Model) -> None:
    images = torch.full((1, 3, 16, 16), 0.5)
    heat = circuits.heatmap(model, images, target="fc:3", method="gradient*input", control=False)
    pixels = heat.overlay(path=tmp_path / "heat.png")
    assert pixels.shape == (16, 16, 3) and np.array_equal(np.asarray(Image.open(tmp_path / "heat.png")), pixels)
    strongest = np.unravel_index(int(heat.maps[0].abs().argmax()), (16, 16))
    red, _, blue = pixels[strongest].astype(int)
    assert (red > blue) == bool(heat.maps[0][strongest] > 0)
    with pytest.raises(CircuitsError, match="index=1 must be"):
        heat.overlay(1)
    attribution = circuits.attribute(model, images, source="input", target="fc:3")
    assert np.array_equal(attribution.overlay(images[0]), pixels)  # the same map
    coarse = circuits.attribute(model, images, source="relu2", target="fc:3").overlay(images[0])
    assert coarse.shape == (16, 16, 3) and (coarse[0, 0] == coarse[1, 1]).all()


def test_an_outlier_does_not_make_the_rest_of_a_map_pale() -> None:
    heat = np.zeros((20, 20), np.float32)
    heat[:10] = 1.0
    heat[10, :10] = -0.5
    heat[19, 19] = 1000.0
    assert np.percentile(np.abs(heat[heat != 0]), 99) == 1
    pixels = plot.overlay(heat, torch.full((3, 20, 20), 0.5)).astype(float)
    gray = 70 + 0.7 * 128
    full, half = pixels[0, 0], pixels[10, 0]
    assert np.allclose(pixels[19, 0], gray, atol=1) and np.allclose(full, pixels[19, 19])
    assert np.allclose(full, 0.1 * gray + 0.9 * np.array([202, 90, 0]), atol=1)
    assert np.allclose(half, 0.55 * gray + 0.45 * np.array([31, 111, 178]), atol=1)


def test_titles_name_the_class_and_tables_write_seeds_as_names(model: circuits.Model, tmp_path: Path) -> None:
    scenes = circuits.load("scenes")
    name = f"{scenes.classes[1]} ({scenes.logits}:1)"
    heat = circuits.heatmap(scenes, "scenes:1", target="logits:1", steps=2, control=False)
    titles = [text.get_text() for text in heat.plot().axes[0].texts]
    assert f"{name}: integrated" in titles
    unit = circuits.heatmap(scenes, "scenes:1", target="mixed4a:1", steps=2, control=False).plot()
    assert "mixed4a:1: integrated" in [text.get_text() for text in unit.axes[0].texts]
    assert class_of(scenes, "softmax:1") is None and class_of(model, "fc:1") is None
    results = circuits.visualize(scenes, ["logits:1"], steps=1, retries=0, size=64)
    assert f"<h1>{name} " in results.report(tmp_path / "page.html").read_text("utf-8")
    attributed = circuits.attribute(scenes, "scenes:1", source="mixed4a", target="logits:1")
    assert any(text.get_text().startswith(f"{name}: score") for text in attributed.plot().axes[0].texts)
    for rows in (1, 2):
        table = records_html([{"images": 1234, "seed": 5678, "first_index": 9012}] * rows)
        assert all(f">{text}<" in table for text in ("1,234", "5678", "9012"))


def test_what_a_method_cannot_do_is_refused(images: Tensor) -> None:
    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.gelu(self.conv(x)).mean(dim=(2, 3)))

    smooth = circuits.wrap(Smooth().eval(), circuits.InputSpec(size=16), name="smooth")
    with pytest.raises(CircuitsError, match="is about ReLUs, and of smooth it has gelu"):
        circuits.heatmap(smooth, images, target="fc:0", method="guided")
    with pytest.raises(CircuitsError, match="method"):
        circuits.heatmap(smooth, images, target="fc:0", method="guide")  # type: ignore[arg-type]
    with pytest.raises(CircuitsError, match="needs a layer with maps"):
        circuits.heatmap(smooth, images, target="conv:0", method="gradcam")
