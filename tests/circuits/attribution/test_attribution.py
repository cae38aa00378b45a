"""Attributions add up to what they explain, and agree with brute force and with Captum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.attribution.attribute import METHODS, Attribution
from circuits.errors import AddressError, CircuitsError
from tests import nets
from zoo.images.sources import Images

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum", "ignore:Setting forward:UserWarning")


def reconciles(result: Attribution, tolerance: float = 1e-4) -> None:
    total = result.values.sum(dim=(1, 2, 3)) + result.bias + result.remainder
    torch.testing.assert_close(total, result.response, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def linear() -> circuits.Model:
    """Linear between the source and the target's pre-activation, with every kind of bias in between."""
    return nets.wrap(
        nets.sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5),
            nn.Conv2d(5, 3, 3, padding=1), nn.ReLU(inplace=True),
        ),
        12,
    )  # fmt: skip


@pytest.fixture(scope="module")
def deep() -> circuits.Model:
    """Three rectified convolutions and a classifier."""
    return nets.wrap(
        nets.sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
        ),
        12,
    )  # fmt: skip


@pytest.mark.parametrize("at", [None, (0, 0), (2, 3), (5, 5)])
def test_weight_times_activation_and_bias_are_the_pre_activation(
    linear: circuits.Model, at: tuple[int, int] | None
) -> None:
    """Also at the border, where biases of padded positions are missing."""
    images = nets.pictures(4, 12)
    result = circuits.attribute(linear, images, source="1", target="6:1", method="weight*act", at=at)
    reconciles(result)
    assert result.start == "2"
    interior = at is None or at == (2, 3)
    if interior:
        pre = circuits.capture(linear, images, "5")["5"][:, 1]
        read = torch.stack([pre[i, y, x] for i, (y, x) in enumerate(result.positions)])
        torch.testing.assert_close(result.response, read)
    if at == (2, 3):
        assert float(result.remainder.abs().max()) < 1e-4


def test_weight_times_activation_needs_no_remainder_in_a_single_layer(inception: circuits.Model) -> None:
    images = nets.pictures(3, 64)
    for unit in ("mixed3b_3x3_pre:1", "conv2d1:2", "mixed3b_1x1:0"):
        source = {"m": "mixed3b_3x3_bottleneck", "c": "conv2d0"}[unit[0]] if "1x1" not in unit else "mixed3a"
        result = circuits.attribute(inception, images, source=source, target=unit, method="weight*act")
        reconciles(result)
        assert float(result.remainder.abs().max()) < 1e-4


def test_show_the_sum_at_a_position_term_by_term(linear: circuits.Model) -> None:
    images = nets.pictures(1, 12)
    result = circuits.attribute(linear, images, source="1", target="6:1", method="weight*act", at=(2, 3))
    acts = circuits.capture(linear, images, "2")["2"].requires_grad_(True)
    out = linear.module[5](linear.module[4](linear.module[3](acts)))[0, 1, 2, 3]
    (gradient,) = torch.autograd.grad(out, acts)
    torch.testing.assert_close(result.values, (gradient * acts).detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(result.units, result.values.sum(dim=(2, 3)))
    torch.testing.assert_close(result.by_position, result.values.sum(dim=1))
    top = result.top(2)
    assert [c for c, _ in top] == result.units[0].abs().argsort(descending=True)[:2].tolist()


def test_gradient_times_activation_completes_with_the_biases_of_the_active_pieces() -> None:
    """A piecewise linear net is its gradient times its input plus what the biases give on that piece."""
    module = nets.sequential(nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 5, 3, bias=False), nn.ReLU(),
                             nn.Conv2d(5, 2, 3, bias=False))  # fmt: skip
    model, images = nets.wrap(module, 10), nets.pictures(3, 10)
    for source in ("input", "1", "3"):
        result = circuits.attribute(model, images, source=source, target="4:1@1,2", method="grad*act")
        torch.testing.assert_close(result.values.sum(dim=(1, 2, 3)), result.response, rtol=1e-4, atol=1e-5)
        assert float(result.remainder.abs().max()) < 1e-4
    biased = nets.wrap(nets.sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 3)), 10)
    result = circuits.attribute(biased, images, source="1", target="2:1@1,2", method="grad*act")
    torch.testing.assert_close(result.remainder, biased.module[2].bias[1].detach().expand(3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("source", ["input", "1", "3"])
@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_integrated_gradients_are_complete_within_one_percent(deep: circuits.Model, source: str, baseline: str) -> None:
    result = circuits.attribute(
        deep,
        nets.pictures(6, 12),
        source=source,
        target="logits:2",
        method="integrated",
        baseline=baseline,
        steps=256,  # type: ignore[arg-type]
    )
    reconciles(result)
    moved = (result.response - result.bias).abs()
    assert float((result.remainder.abs() / moved.clamp_min(0.05)).max()) < 0.01


def test_integrated_gradients_agree_with_captum(deep: circuits.Model) -> None:
    attr = pytest.importorskip("captum.attr")
    images = nets.pictures(3, 12)
    ours = circuits.attribute(deep, images, source="input", target="logits:2", method="integrated", steps=200)
    theirs = attr.IntegratedGradients(deep.module).attribute(images, target=2, n_steps=200, method="riemann_middle")
    torch.testing.assert_close(ours.values, theirs.float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("source", ["1", "3"])
def test_layer_methods_agree_with_captum(deep: circuits.Model, source: str) -> None:
    attr = pytest.importorskip("captum.attr")
    images, layer = nets.pictures(3, 12), deep.module[int(source)]
    if source == "3":  # what feeds the weights is the pool's output
        layer = deep.module[4]
    ours = circuits.attribute(deep, images, source=source, target="logits:2", method="grad*act")
    theirs = attr.LayerGradientXActivation(deep.module, layer).attribute(images, target=2)
    torch.testing.assert_close(ours.values, theirs, rtol=1e-4, atol=1e-6)
    assert ours.start == ("4" if source == "3" else "1")
    ours = circuits.attribute(deep, images, source=source, target="logits:2", method="integrated", steps=100)
    zero = torch.zeros_like(images)
    theirs = attr.LayerIntegratedGradients(deep.module, layer).attribute(
        images, baselines=zero, target=2, n_steps=100, method="riemann_middle"
    )
    # Captum's baseline is the layer's answer to a black picture, ours is no activation at all: shift it
    quiet = circuits.capture(deep, zero[:1], ours.start)[ours.start]
    if float(quiet.abs().max()) == 0:
        torch.testing.assert_close(ours.values, theirs, rtol=1e-3, atol=1e-5)


def test_layer_integrated_gradients_agree_with_captum_where_black_says_nothing() -> None:
    attr = pytest.importorskip("captum.attr")
    module = nets.sequential(nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
                             nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))  # fmt: skip
    model, images = nets.wrap(module, 10), nets.pictures(3, 10)
    ours = circuits.attribute(model, images, source="1", target="logits:3", method="integrated", steps=100)
    theirs = attr.LayerIntegratedGradients(module, module[1]).attribute(
        images, baselines=torch.zeros_like(images), target=3, n_steps=100, method="riemann_middle"
    )
    torch.testing.assert_close(ours.values, theirs.float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_ablation_equals_brute_force(deep: circuits.Model, baseline: str) -> None:
    images = nets.pictures(4, 12)
    result = circuits.attribute(deep, images, source="1", target="5:2@1,1", method="ablation", baseline=baseline)  # type: ignore[arg-type]
    clean = circuits.capture(deep, images, "5")["5"][:, 2, 1, 1]
    for channel in range(6):
        to = "mean" if baseline == "mean" else "zero"
        with circuits.edit(deep, [circuits.Ablate(f"1:{channel}", to=to)], reference=images):  # type: ignore[arg-type]
            cut = circuits.capture(deep, images, "5")["5"][:, 2, 1, 1]
        torch.testing.assert_close(result.units[:, channel], clean - cut, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_net_without_a_graph_gives_the_same(method: str) -> None:
    inner = nets.sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    traced, untraced = nets.wrap(inner, 10), nets.wrap(nets.Undecided(inner), 10)
    images = nets.pictures(3, 10)
    target = "2:1" if method == "weight*act" else "4:1"
    a = circuits.attribute(traced, images, source="1", target=target, method=method, at=(2, 3))  # type: ignore[arg-type]
    b = circuits.attribute(untraced, images, source="inner.1", target=f"inner.{target}", method=method, at=(2, 3))  # type: ignore[arg-type]
    torch.testing.assert_close(a.values, b.values, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(a.response, b.response, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reconciles_on_every_kind_of_target(inception: circuits.Model, method: str) -> None:
    images = nets.pictures(3, 64)
    asked = [
        ("mixed3a", "mixed3b:4"),
        ("mixed3a", "mixed3b_5x5:0@1,1"),
        ("mixed4a", "logits:3"),
        ("conv2d2", "mixed4a:2"),
    ]
    for source, target in asked:
        result = circuits.attribute(inception, images, source=source, target=target, method=method)  # type: ignore[arg-type]
        reconciles(result)
        assert result.values.shape[:2] == (3, inception.layers[source].channels)
        assert result.target == str(inception.unit(target)) and result.method == method


def test_the_target_is_read_where_asked(deep: circuits.Model) -> None:
    images = nets.pictures(3, 12)
    pre = circuits.capture(deep, images, "5")["5"][:, 2]
    one = circuits.attribute(deep, images, source="3", target="6:2", at=(1, 2))
    torch.testing.assert_close(one.response, pre[:, 1, 2])
    each = circuits.attribute(deep, images, source="3", target="6:2", at=[(0, 0), (1, 2), (3, 3)])
    torch.testing.assert_close(each.response, torch.stack([pre[0, 0, 0], pre[1, 1, 2], pre[2, 3, 3]]))
    own = circuits.attribute(deep, images, source="3", target="6:2@3,0")
    torch.testing.assert_close(own.response, pre[:, 3, 0])
    peak = circuits.attribute(deep, images, source="3", target="6:2")
    torch.testing.assert_close(peak.response, pre.flatten(1).amax(dim=1))


def test_attributions_do_not_depend_on_the_batch(deep: circuits.Model) -> None:
    images = nets.pictures(5, 12)
    for method in METHODS:
        a = circuits.attribute(deep, images, source="1", target="3:2", method=method, batch_size=5)  # type: ignore[arg-type]
        b = circuits.attribute(deep, images, source="1", target="3:2", method=method, batch_size=2)  # type: ignore[arg-type]
        torch.testing.assert_close(a.values, b.values, rtol=1e-4, atol=1e-6)
        assert a.positions == b.positions


def test_a_latent_is_a_target(deep: circuits.Model) -> None:
    directions = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    model = nets.wrap(deep.module, 12)
    model.attach("2", "mix", nets.LinearBasis(directions))
    images = nets.pictures(2, 12)
    latent = circuits.attribute(model, images, source="1", target="2~mix:1", method="weight*act", at=(4, 4))
    channels = [
        circuits.attribute(model, images, source="1", target=f"2:{c}", method="weight*act", at=(4, 4)) for c in range(8)
    ]
    expected: Tensor = sum(d * c.values for d, c in zip(directions[1], channels, strict=True))  # type: ignore[assignment]
    torch.testing.assert_close(latent.values, expected, rtol=1e-4, atol=1e-5)
    reconciles(latent)


def test_provenance_names_weights_and_pictures(deep: circuits.Model) -> None:
    result = circuits.attribute(deep, nets.pictures(2, 12), source="1", target="3:2")
    assert result.provenance["weights"] == deep.digest
    assert len(result.provenance["images_digest"]) == 64


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (CircuitsError, "method='magic': use one of", {"method": "magic"}),
        (CircuitsError, "baseline is 'zero' or 'mean'", {"baseline": "gray"}),
        (CircuitsError, "steps at least 1", {"steps": 0}),
        (CircuitsError, "needs a layer as its source", {"source": "input", "method": "ablation"}),
        (AddressError, "is a layer", {"target": "3"}),
        (AddressError, "no layer", {"source": "17"}),
        (CircuitsError, "one for each of the 2 images; got 3", {"at": [(0, 0)] * 3}),
        (CircuitsError, "12x12", {"at": (12, 0)}),
        (CircuitsError, "12x12", {"at": (0, -1)}),
        (CircuitsError, "path|weights", {"source": "5"}),
    ],
)
def test_bad_questions_are_answered_with_one_line(
    deep: circuits.Model, error: type[Exception], message: str, options: dict[str, object]
) -> None:
    asked = {"source": "1", "target": "3:2", **options}
    with pytest.raises(error, match=message) as caught:
        circuits.attribute(deep, nets.pictures(2, 12), **asked)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300


def test_integrated_gradients_from_the_mean_are_refused_through_a_max_pool(inception: circuits.Model) -> None:
    images = nets.pictures(3, 64)
    pool, plain = (inception.layers[f"mixed3b_{branch}"].part for branch in ("pool_proj", "1x1"))
    assert pool is not None and plain is not None
    options: dict[str, Any] = {"source": "mixed3a", "method": "integrated", "baseline": "mean", "steps": 4}
    with pytest.raises(CircuitsError, match="through mixed3b_pool; attribute from mixed3b_pool"):
        circuits.attribute(inception, images, target=f"mixed3b:{pool[1]}", **options)
    # the unit of a branch without a pool, and the pool's own channels, are no trouble
    for source, unit in (("mixed3a", plain[1]), ("mixed3b_pool", pool[1])):
        result = circuits.attribute(inception, images, target=f"mixed3b:{unit}", **{**options, "source": source})
        whole = result.values.sum(dim=(1, 2, 3)) + result.bias
        torch.testing.assert_close(whole, result.response, rtol=1e-3, atol=1e-4)


def test_the_mean_of_an_ablation_is_taken_in_one_pass(inception: circuits.Model, monkeypatch: Any) -> None:
    passes = []
    batches = Images.batches
    monkeypatch.setattr(Images, "batches", lambda self, *args, **kw: passes.append(1) or batches(self, *args, **kw))
    part = inception.layers["mixed3b_pool_proj"].part
    assert part is not None
    circuits.attribute(
        inception,
        nets.pictures(3, 64),
        source="mixed3a",
        target=f"mixed3b:{part[1]}",
        method="ablation",
        baseline="mean",
    )
    assert len(passes) == 2  # for the means, and for the drops
