"""The same values in every autograd context, and with networks and defaults of another floating-point type."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import circuits
import sae
from circuits import Model
from circuits.visualization import RenderSettings
from circuits.visualization.parametrizations import Cppn, Fourier, Maco, Pixels

SPEC = circuits.InputSpec(size=24)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((3, 8), (8, 12), (12, 6)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 24, 24, generator=torch.Generator().manual_seed(1))


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if float(x.detach().sum()) > -1e9 else x


UNTRACEABLE = Untraceable().eval()

VERBS: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "attribute": lambda m, x: circuits.attribute(m, x, source="1", target="2:2").values,
    "expanded_weights": lambda m, x: circuits.expanded_weights(m, source="1", target="2:2", method="vjp").kernels,
    "example_weights": lambda m, x: circuits.example_weights(m, x, source="1", target="4:2")[1],
    "trace": lambda m, x: torch.tensor(
        [e.strength for e in circuits.trace(m, "4:2", images=x, width=3, by="attribution").edges]
    ),
    "visualize": lambda m, x: circuits.visualize(m, "4:2", steps=3)[0].image,
    "wrap": lambda m, x: torch.tensor(
        [circuits.wrap(UNTRACEABLE, input=SPEC).layers["net.0"].receptive_field.size]
    ),
    "train": lambda m, x: sae.train(
        torch.randn(300, 8, generator=torch.Generator().manual_seed(2)), sae.TopK(latents=16, k=3), steps=5,
        batch_size=64,
    )[0].sae.encoder.detach(),
    "train on a site": lambda m, x: sae.train(
        sae.VisionSite(m, "1").stream(x, batch_size=64), sae.JumpReLU(latents=16), steps=5
    )[0].sae.encoder.detach(),
}  # fmt: skip


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_gives_the_same_under_no_grad_and_inference_mode(verb, context, images) -> None:
    model = circuits.wrap(network(), input=SPEC)
    right = VERBS[verb](model, images)
    with context():
        fed = images.clone()  # made here, as in somebody's evaluation loop
        values = VERBS[verb](model, fed)
        assert torch.is_inference_mode_enabled() == (context is torch.inference_mode) and not torch.is_grad_enabled()
    assert torch.equal(values, right)


def test_a_model_wrapped_in_inference_mode_can_be_attributed_later(images) -> None:
    with torch.inference_mode():
        model = circuits.load("scenes")
    assert circuits.attribute(model, "scenes:2", source="mixed3a", target="mixed3b:4").values.isfinite().all()


def test_a_network_whose_weights_allow_no_gradient_says_so(images) -> None:
    with torch.inference_mode():
        net = network()
    model = circuits.wrap(net, input=SPEC)
    assert circuits.capture(model, images, at="5")["5"].isfinite().all()
    with pytest.raises(circuits.CircuitsError, match="made under torch.inference_mode"):
        circuits.attribute(model, images, source="1", target="2:2")
    copied = circuits.wrap(copy.deepcopy(net), input=SPEC)
    assert circuits.attribute(copied, images, source="1", target="2:2").values.isfinite().all()


def test_vectors_that_still_carry_a_graph_are_trained_on_as_values(images) -> None:
    net = network()
    vectors = net[:2](images).movedim(1, -1).flatten(0, 2)
    assert vectors.requires_grad
    config = sae.TopK(latents=16, k=3)
    right = sae.train(vectors.detach(), config, steps=5, batch_size=64)[0].sae
    for data in (vectors, list(vectors.split(64))):
        trained = sae.train(data, config, steps=5, **({"batch_size": 64} if data is vectors else {}))[0].sae
        if data is vectors:
            assert torch.equal(trained.encoder, right.encoder)
    assert net[0].weight.grad is None


# -- floating-point types -------------------------------------------------------------------------


@pytest.fixture
def dictionary(images) -> sae.SAE:
    with torch.no_grad():
        vectors = network()[:4](images).movedim(1, -1).flatten(0, 2)
    return sae.train(vectors, sae.TopK(latents=24, k=4), steps=20, batch_size=256)[0].sae


def latent_verbs(model: Model, images: Tensor, index: int) -> dict[str, Tensor]:
    unit = f"3~parts:{index}"
    with circuits.edit(model, [circuits.Scale(unit, 2.0)]):
        edited = circuits.capture(model, images, at="5")["5"]
    return {
        "edited": edited,
        "kernels": circuits.expanded_weights(model, source="1", target=unit).kernels,
        "vjp": circuits.expanded_weights(model, source="1", target=unit, method="vjp").kernels,
        "from latents": circuits.expanded_weights(model, source="3~parts", target="4:2").kernels,
        "attribution": circuits.attribute(model, images, source="1", target=unit).values,
        "ablation": circuits.attribute(model, images, source="1", target=unit, method="ablation").values,
        "strength": torch.tensor([circuits.trace(model, unit, images=images, width=3).edges[0].strength]),
        "visualization": circuits.visualize(model, unit, steps=2)[0].image,
        "found": torch.tensor(
            [circuits.find(model, positive=images[:3], negative=images[3:], layer="3~parts").rows[0].auc]
        ),
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_latents_of_a_float32_sae_work_on_networks_of_other_types(dtype, dictionary, images) -> None:
    model = circuits.wrap(network(), input=SPEC)
    model.attach("3", "parts", dictionary)
    acts = circuits.capture(model, images, at="3")["3"].movedim(1, -1).flatten(0, 2)
    index = int(dictionary.encode(acts).sum(0).argmax())
    right = latent_verbs(model, images, index)
    other = circuits.wrap(network().to(dtype), input=SPEC)
    other.attach("3", "parts", dictionary)
    values = latent_verbs(other, images, index)
    assert values["edited"].dtype == dtype
    rtol = {torch.float64: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.12}[dtype]
    for name in ("edited", "kernels", "vjp", "from latents", "strength"):
        off = (values[name].double() - right[name].double()).abs().max() / right[name].double().abs().max()
        assert float(off) < rtol, name
    for name in ("attribution", "ablation", "visualization"):  # peaks may move, gradients pass other k latents
        assert values[name].isfinite().all(), name


@pytest.fixture
def default_float64() -> Iterator[Callable[[], contextlib.AbstractContextManager[None]]]:
    @contextlib.contextmanager
    def opened() -> Iterator[None]:
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)

    return opened


@pytest.mark.parametrize("start", [Fourier(), Pixels(), Cppn(width=4, layers=2), Maco(), Fourier(colors=None)])
def test_a_visualization_does_not_depend_on_the_default_type(start, default_float64) -> None:
    model = circuits.wrap(network(), input=SPEC)
    settings = RenderSettings(steps=3, params=start)
    try:
        right = circuits.visualize(model, "4:2", settings=settings)[0].image
    except circuits.CircuitsError:
        pytest.skip("this start needs other images")
    with default_float64():
        assert torch.equal(circuits.visualize(model, "4:2", settings=settings)[0].image, right)


@pytest.mark.parametrize(
    "config",
    [sae.TopK(latents=16, k=3), sae.BatchTopK(latents=16, k=3), sae.JumpReLU(latents=16), sae.Gated(latents=16),
     sae.ReLU(latents=16), sae.TopK(latents=16, k=3, revive="auxk")],
    ids=lambda c: c.title,
)  # fmt: skip
def test_a_training_does_not_depend_on_the_default_type(config, default_float64) -> None:
    vectors = torch.randn(300, 8, generator=torch.Generator().manual_seed(2))
    right = sae.train(vectors, config, steps=8, batch_size=64)[0].sae
    with default_float64():
        trained = sae.train(vectors, config, steps=8, batch_size=64)[0].sae
    for name, value in trained.state_dict().items():
        assert torch.equal(value, right.state_dict()[name]) and value.dtype == right.state_dict()[name].dtype, name


def test_attribution_and_trace_do_not_depend_on_the_default_type(images, default_float64) -> None:
    model = circuits.wrap(network(), input=SPEC)
    names = ("attribute", "expanded_weights", "example_weights", "trace", "train on a site")
    right = {name: VERBS[name](model, images) for name in names}
    with default_float64():
        for name in names:
            assert torch.equal(VERBS[name](model, images).to(right[name]), right[name]), name
