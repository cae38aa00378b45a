"""Parametrizations give the pictures they say, and each picture depends on its own seed alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from circuits.errors import VisualizationError
from circuits.visualization.parametrizations import (
    NATURAL,
    Colors,
    Cppn,
    Factory,
    Fourier,
    Maco,
    Parametrization,
    Photograph,
    Pixels,
    measure_colors,
    measure_spectrum,
)
from zoo.inputs import InputSpec

FIVE = Colors((0.5,) * 5, tuple(tuple(float(i >= j) for j in range(5)) for i in range(5)))
FACTORIES: dict[str, Factory] = {
    "fourier": Fourier(sd=1.0),
    "fourier with opacity": Fourier(sd=1.0, alpha=True),
    "pixels": Pixels(sd=1.0),
    "pixels with opacity": Pixels(alpha=True),
    "cppn": Cppn(width=5, layers=3),
    "cppn with opacity": Cppn(width=5, layers=2, alpha=True),
    "maco": Maco(),
    "photograph": Photograph(torch.rand(1, 3, 9, 8, generator=torch.Generator().manual_seed(0))),
}
every = pytest.mark.parametrize("factory", FACTORIES.values(), ids=list(FACTORIES))


def climb(pictures: Parametrization, steps: int = 3) -> torch.Tensor:
    """Pictures after some steps of Adam towards dark ones."""
    tuner = torch.optim.Adam(pictures.parameters(), lr=pictures.rate)
    for _ in range(steps):
        tuner.zero_grad()
        pictures().square().sum().backward()
        tuner.step()
    return pictures().detach()


@every
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (33, 31), (1, 1), (1, 6)])
def test_images_have_the_given_size_and_lie_in_0_to_1(factory: Factory, size: tuple[int, int]) -> None:
    images = factory([3, 4], size)
    output = images().detach()
    assert output.shape == (2, 3 + images.alpha, *size)
    assert output.dtype == torch.float32
    assert float(output.min()) >= 0
    assert float(output.max()) <= 1


@every
@pytest.mark.parametrize("size", [(16, 16), (7, 5), (33, 31)])
def test_an_image_is_the_same_to_the_bit_whatever_batch_it_is_in(factory: Factory, size: tuple[int, int]) -> None:
    together = climb(factory([5, 6, 7, -1, 2**60], size))
    for i, seed in enumerate([5, 6, 7, -1, 2**60]):
        assert torch.equal(climb(factory([seed], size))[0], together[i])


@every
def test_every_parameter_has_one_row_per_image_and_gets_a_gradient(factory: Factory) -> None:
    images = factory([0, 1, 2], (9, 8))
    (images() * torch.rand(images().shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert list(images.parameters())
    for parameter in images.parameters():
        assert len(parameter) == 3
        assert parameter.grad is not None
        assert bool((parameter.grad.flatten(1).abs().amax(1) > 0).all())


@pytest.mark.parametrize("factory", [f for name, f in FACTORIES.items() if name != "photograph"])
def test_other_seeds_give_other_images(factory: Factory) -> None:
    first, second = factory([0, 1], (16, 16))()
    assert not torch.equal(first, second)


@pytest.mark.parametrize("make", [Fourier, Pixels, Cppn, Maco])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_channels(make: Callable[[], Factory], channels: int) -> None:
    assert make()([0], (8, 9), channels)().shape == (1, channels, 8, 9)


def test_fourier_is_the_formula_of_lucid() -> None:
    """Its own words in NumPy: an inverse FFT that divides by H W, of coefficients times sqrt(H W), over 4."""
    height, width = 6, 5
    images = Fourier(sd=1.0, decay=1.5)([0], (height, width))
    (parameter,) = images.parameters()
    coefficients = torch.view_as_complex(parameter.detach()[0].double()).numpy()
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    scale = math.sqrt(height * width) / np.maximum(frequency, 1 / max(height, width)) ** 1.5
    half = scale * coefficients
    plain = np.zeros((3, height, width))
    y, x = np.mgrid[:height, :width]
    for ky in range(height):
        for kx in range(width // 2 + 1):
            wave = np.exp(2j * np.pi * (ky * y / height + kx * x / width))
            plain += (1 if kx == 0 else 2) * np.real(half[:, ky, kx, None, None] * wave) / (height * width)
    root = np.array(NATURAL.matrix)
    root /= np.linalg.norm(root, axis=0).max()
    logits = np.einsum("dc,chw->dhw", root, plain / 4)
    assert np.allclose(images().detach()[0].numpy(), 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_pixels_without_colors_are_logits() -> None:
    images = Pixels(sd=1.0)([0], (4, 4), 2)
    (parameter,) = images.parameters()
    assert torch.equal(images(), parameter.sigmoid())


def test_zero_parameters_show_the_mean_color() -> None:
    colors = Colors((0.2, 0.7), ((1.0, 0.0), (0.0, 1.0)))
    output = Pixels(sd=0.0, colors=colors)([0], (2, 2), 2)().detach()
    assert torch.allclose(output[0, :, 0, 0], torch.tensor([0.2, 0.7]))


@pytest.mark.parametrize(("channels", "colors"), [(3, None), (1, None), (5, FIVE)])
@pytest.mark.parametrize("size", [(16, 16), (9, 7)])
def test_a_photograph_starts_as_the_image_itself(channels: int, colors: Colors | None, size: tuple[int, int]) -> None:
    photos = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(1))
    output = Photograph(photos, colors=colors)([0, 1], size, channels)().detach()
    assert torch.allclose(output, photos.clamp(0.01, 0.99), atol=1e-4)


def test_one_photograph_serves_every_seed() -> None:
    photo = torch.full((1, 3, 8, 8), 0.3)
    images = Photograph(photo)([0, 1, 2], (12, 10))
    assert torch.allclose(images(), torch.tensor(0.3), atol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (8, 7)])
def test_maco_keeps_the_magnitude_of_every_frequency(size: tuple[int, int]) -> None:
    spectrum = torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(0))
    for maco in (Maco(), Maco(spectrum)):
        images = maco([0, 1], size)
        before = torch.fft.rfft2(images.raw().detach(), norm="ortho").abs()
        output = images().detach()
        assert not torch.allclose(climb(images), output)
        raw = images.raw().detach()
        assert torch.allclose(torch.fft.rfft2(raw, norm="ortho").abs(), before, atol=1e-5)
        assert torch.allclose(raw.mean((2, 3)), torch.zeros(2, 3), atol=1e-6)
        assert torch.allclose(raw.square().mean((1, 2, 3)), torch.ones(2), atol=1e-5)


def test_maco_takes_the_measured_spectrum_of_its_size_as_it_is_and_others_by_frequency() -> None:
    frequency = torch.hypot(torch.fft.fftfreq(32)[:, None], torch.fft.rfftfreq(32)[None, :])
    falling = (-6 * frequency).exp()[None]
    for size in ((32, 32), (16, 24)):
        raw = Maco(falling)([0], size, 1).raw().detach()
        result = torch.fft.rfft2(raw, norm="ortho").abs()[0, 0]
        own = torch.hypot(torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])[None, :])
        share = (result / (-6 * own).exp()).flatten()[1:]
        assert float(share.std() / share.mean()) < (1e-5 if size == (32, 32) else 0.05)


def test_a_cppn_is_rendered_at_any_size() -> None:
    images = Cppn(width=6, layers=2)([0, 1], (16, 16))
    large = images.render((64, 64)).detach()
    assert torch.allclose(F.avg_pool2d(large, 4), images().detach(), atol=5e-3)
    assert images.render((3, 40)).shape == (2, 3, 3, 40)


def test_measured_colors_give_back_the_covariance() -> None:
    numbers = torch.Generator().manual_seed(0)
    base = torch.rand(20, 2, 8, 8, generator=numbers)
    images = torch.stack([base[:, 0], 0.5 * base[:, 0] + 0.5 * base[:, 1]], 1)
    colors = measure_colors(images, InputSpec(size=8, channels=2))
    root = torch.tensor(colors.matrix)
    pixels = images.transpose(0, 1).flatten(1)
    covariance = torch.cov(pixels, correction=0)
    assert torch.allclose(torch.tensor(colors.mean), pixels.mean(1), atol=1e-5)
    assert torch.allclose(root @ root.T / (root @ root.T).trace(), covariance / covariance.trace(), atol=1e-5)
    assert float(root.norm(dim=0).max()) == pytest.approx(1)


def test_a_measured_spectrum_is_the_mean_magnitude() -> None:
    x = torch.arange(8)
    wave = 0.5 + 0.25 * torch.cos(2 * math.pi * 2 * x / 8).expand(1, 1, 8, 8)
    spectrum = measure_spectrum(torch.cat([wave, torch.full_like(wave, 0.5)]), InputSpec(size=8, channels=1))
    expected = torch.zeros(1, 8, 5)
    expected[0, 0, 0], expected[0, 0, 2] = 4.0, 0.5  # of 64 pixels, orthonormal: 0.5 * 8, and 0.25 / 2 * 8 / 2 pictures
    assert torch.allclose(spectrum, expected, atol=1e-5)


GREY = torch.full((1, 3, 4, 4), 0.5)
WRONG: dict[str, Callable[[], object]] = {
    "no seeds": lambda: Fourier()([], (4, 4)),
    "size 0": lambda: Fourier()([0], (0, 4)),
    "no channels": lambda: Pixels()([0], (4, 4), 0),
    "negative sd": lambda: Fourier(sd=-1.0)([0], (4, 4)),
    "sd not a number": lambda: Pixels(sd=math.nan)([0], (4, 4)),
    "colors of other channels": lambda: Fourier(colors=NATURAL)([0], (4, 4), 5),
    "a color matrix that is not square": lambda: Colors((0.5, 0.5), ((1.0, 0.0),)),
    "colors of zeros": lambda: Colors((0.5,), ((0.0,),)),
    "a mean above 1": lambda: Colors((110.0,), ((1.0,),)),
    "photograph of bytes": lambda: Photograph(GREY * 255)([0], (4, 4)),
    "photograph with other channels": lambda: Photograph(GREY)([0], (4, 4), 1),
    "two photographs for three seeds": lambda: Photograph(GREY.repeat(2, 1, 1, 1))([0, 1, 2], (4, 4)),
    "photograph in colors of one dimension": lambda: Photograph(
        GREY, colors=Colors((0.5,) * 3, ((1.0, 0.0, 0.0),) * 3)
    )([0], (4, 4)),
    "spectrum of other channels": lambda: Maco(torch.ones(2, 4, 3))([0], (4, 4)),
    "negative spectrum": lambda: Maco(-torch.ones(3, 4, 3))([0], (4, 4)),
    "a network of no width": lambda: Cppn(width=0)([0], (4, 4)),
    "pictures of one color": lambda: measure_colors(GREY, InputSpec(size=4)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
def test_what_cannot_be_made_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(VisualizationError):
        wrong()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every
def test_a_gpu_shows_the_same(factory: Factory) -> None:
    assert torch.allclose(factory([1, 2], (17, 16), 3, "cuda")().cpu(), factory([1, 2], (17, 16))(), atol=1e-4)
