"""Figures of curve detectors, early vision and weights: their facts, and what they compute with."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import circuits
from apps.figures.analysis.gray_preference import gray_preference
from apps.figures.analysis.weight_ablation import ablate_weights, negative_part
from apps.figures.context import FigureContext, NotApplicable, Settings
from apps.figures.drawing.response_histogram import densities, moments, share_above
from apps.figures.figure import FigureResult
from apps.figures.helpers import tuned_units
from apps.figures.helpers.tuned_units import channel_families, search
from apps.figures.registry import select
from circuits import InputSpec, stimuli
from circuits.attribution.first_layer import color_shares, directions, first_kernels, smoothness
from circuits.errors import CircuitsError


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> FigureContext:
    return FigureContext(Settings(effort="test", limit=60), Path(tmp_path_factory.mktemp("figures")) / "shared")


def result_of(context: FigureContext, id: str) -> FigureResult:
    result = select([id])[0].draw(context)
    assert "published" not in result.caption and "published" not in str([c.statement for c in result.claims])
    return result


# -- the search that figures share ------------------------------------------------------------------------------


def test_where_no_unit_passes_the_best_are_used_and_the_caption_states_it(context: FigureContext) -> None:
    detectors = search(context, "curve", "mixed3a", at_least=4)
    scores = [u.score for u in detectors.units]
    assert detectors.passed == 0 and len(scores) == 4 and scores == sorted(scores, reverse=True) and scores[0] < 0.5
    assert "none passes" in detectors.how and "best-scoring" in detectors.how and "published" not in detectors.how
    more = search(context, "curve", "mixed3a", at_least=6)
    assert more.units[:4] == detectors.units and len(more.units) == 6
    assert [d.unit for d in detectors.detectors] == [u.unit for u in detectors.units]
    assert all(min(d.tests.values()) == pytest.approx(d.score) for d in detectors.detectors)


def test_units_that_pass_complete_the_search(context: FigureContext) -> None:
    detectors = search(context, "line", "mixed3a")
    assert detectors.passed == len(detectors.units) > 0 and min(u.score for u in detectors.units) >= 0.5
    assert "by their tuning" in detectors.how and "none" not in detectors.how


def test_more_units_than_respond_are_refused(context: FigureContext) -> None:
    with pytest.raises(NotApplicable, match="needs 1000 units of mixed3a"):
        search(context, "curve", "mixed3a", at_least=1000)


def test_published_units_are_only_those_of_the_published_network(
    context: FigureContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apps.cli.verify import facts

    ours = search(context, "curve", "mixed3a", at_least=4)
    family = {ours.units[3].index, search(context, "curve", "mixed3a", at_least=9).units[8].index}
    monkeypatch.setattr(facts, "family", lambda layer, *names: family)
    theirs = search(_as_published(context), "curve", "mixed3a")
    assert {u.index for u in theirs.units} == family and theirs.published and not ours.published
    assert "2 published curve units" in theirs.how and "0 of which pass" in theirs.how
    assert search(context, "curve", "mixed3a", at_least=4) == ours


def test_families_are_detectors_or_else_clusters(context: FigureContext) -> None:
    groups, how = channel_families(context, "mixed3a", ("line",))
    assert set(groups) == {"line"} and groups["line"] == [u.index for u in search(context, "line", "mixed3a").units]
    groups, how = channel_families(context, "mixed3a", ("curve",))
    assert len(groups) == 6 and "no unit passes" in how
    assert sorted(i for members in groups.values() for i in members) == list(range(68))


# -- the figures' claims ----------------------------------------------------------------------------------------


def test_few_factors_explain_more_of_a_branch_than_of_shuffled_weights(context: FigureContext) -> None:
    result = result_of(context, "V1")
    assert result.claims[0].holds and result.claims[0].value > result.claims[0].control + 0.1


def test_strong_activations_have_one_cause_and_are_rare(context: FigureContext) -> None:
    examples, histogram = result_of(context, "C4"), result_of(context, "C5")
    assert examples.claims[0].holds and examples.numbers["unit"] == histogram.numbers["unit"]
    assert all(claim.holds for claim in histogram.claims)
    assert sum(histogram.numbers["shares"]) == pytest.approx(1)


def test_the_weight_matrix_holds_the_expanded_weights(context: FigureContext) -> None:
    result = result_of(context, "K5").numbers
    target, source = result["targets"][2], result["sources"][1]
    weights = circuits.expanded_weights(context.model, source="mixed3a", target=target)
    assert result["weights"][2][1] == pytest.approx(float(weights.summed[0, int(source.rpartition(":")[2])]), rel=1e-5)


def test_different_features_excite_the_car_detector_from_above_and_below(context: FigureContext) -> None:
    result = result_of(context, "V6")
    assert result.claims[0].holds and result.claims[0].value < result.claims[0].control - 0.05


def test_no_layer_before_the_first(context: FigureContext) -> None:
    with pytest.raises(NotApplicable, match="needs a layer before conv2d0"):
        tuned_units.layer_before(context, "conv2d0")


# -- weights ablated in a running network -----------------------------------------------------------------------


def _planted() -> circuits.Model:
    generator = torch.Generator().manual_seed(3)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1, stride=2), nn.ReLU())
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return circuits.wrap(net.eval(), InputSpec(size=12, channels=1, mean=(0.0,), std=(1.0,)), name="planted")


def test_ablating_weights_is_setting_them_to_zero_in_the_network() -> None:
    model = _planted()
    names = list(model.layers)
    source, target = names[1], names[3]
    weights = circuits.expanded_weights(model, source=source, target=[f"{target}:1", f"{target}:4"])
    images = torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    before = circuits.capture(model, images, [target])[target]
    with ablate_weights(model, weights, negative_part(weights, [0, 2])):
        after = circuits.capture(model, images, [target])[target]
    edited = _planted()
    with torch.no_grad():
        kernel = edited.module[2].weight  # type: ignore[index]
        for t in (1, 4):
            for s in (0, 2):
                kernel[t, s].clamp_(min=0)
    expected = circuits.capture(edited, images, [target])[target]
    assert torch.allclose(after, expected, atol=1e-5) and not torch.allclose(after, before)
    assert torch.equal(after[:, [0, 2, 3]], before[:, [0, 2, 3]])
    assert torch.equal(circuits.capture(model, images, [target])[target], before)


def test_ablation_refuses_other_shapes_and_layers_without_relu() -> None:
    model = _planted()
    names = list(model.layers)
    weights = circuits.expanded_weights(model, source=names[1], target=f"{names[3]}:1")
    with (
        pytest.raises(CircuitsError, match="shape of the weights"),
        ablate_weights(model, weights, weights.kernels[:, :2]),
    ):
        pass
    plain = circuits.expanded_weights(model, source=names[1], target=f"{names[2]}:1")
    with pytest.raises(CircuitsError, match="no ReLU"), ablate_weights(model, plain, plain.kernels):
        pass
    with pytest.raises(CircuitsError, match="has 4 channels"):
        negative_part(weights, [9])


# -- first kernels ----------------------------------------------------------------------------------------------


def _stripes(degrees: float) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(9.0) - 4, torch.arange(9.0) - 4, indexing="ij")
    turn = math.radians(degrees)
    across = -math.sin(turn) * x + math.cos(turn) * -y  # of stripes that run along `degrees`
    return torch.cos(2 * math.pi * across / 5) * torch.exp(-(x**2 + y**2) / 12)


@pytest.mark.parametrize("degrees", [0.0, 30.0, 45.0, 90.0, 135.0, 160.0])
def test_the_orientation_of_stripes_is_measured(degrees: float) -> None:
    measured = float(directions(_stripes(degrees)[None, None].expand(1, 3, 9, 9))[0])
    assert abs((measured - degrees + 90) % 180 - 90) < 3


def test_color_and_smoothness_of_kernels() -> None:
    gray = _stripes(20)[None].expand(3, 9, 9)
    opponent = torch.stack([_stripes(20), -_stripes(20), torch.zeros(9, 9)])
    noise = torch.randn(200, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    assert color_shares(torch.stack([gray, opponent])).tolist() == pytest.approx([0, 1], abs=1e-6)
    assert float(color_shares(noise).mean()) == pytest.approx(2 / 3, abs=0.01)
    assert abs(float(smoothness(noise).mean())) < 0.03 < 0.4 < float(smoothness(gray[None])[0])


def test_first_kernels_of_a_bgr_network_are_turned_to_rgb() -> None:
    def net(order: str) -> circuits.Model:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()).eval()
        return circuits.wrap(module, InputSpec(size=8, order=order), name=order.lower())

    assert torch.equal(first_kernels(net("RGB")), first_kernels(net("BGR")).flip(1))
    flat = circuits.wrap(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()).eval(), InputSpec(size=8), name="flat")
    with pytest.raises(CircuitsError, match="one pixel wide"):
        first_kernels(flat)


def test_units_that_prefer_gray_and_color_are_distinguished() -> None:
    conv = nn.Conv2d(3, 2, 1, bias=False)
    with torch.no_grad():
        conv.weight[0, :, 0, 0] = torch.tensor([1.0, -1.0, 0.0])  # fires on red alone
        conv.weight[1, :, 0, 0] = torch.tensor([-1.0, 1.2, 0.0])  # red inhibits what gray excites
    model = circuits.wrap(
        nn.Sequential(conv, nn.ReLU()).eval(), InputSpec(size=6, mean=(0.0,), std=(1.0,)), name="hues"
    )
    red = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    red = red * torch.tensor([1.0, 0.2, 0.2])[:, None, None]
    layer = list(model.layers)[-1]
    preference = gray_preference(model, red, [layer])[layer]
    assert preference[0] < -1 and preference[1] > 1
    with pytest.raises(CircuitsError, match="at least two images"):
        gray_preference(model, red[:1], [layer])


# -- histograms -------------------------------------------------------------------------------------------------


def test_an_even_histogram_has_the_moments_of_the_responses(context: FigureContext) -> None:
    scan = context.scan.unit("scenes/mixed3b:4")
    edges, shares = densities(scan)
    mean, spread = moments(scan)
    acts = circuits.capture(context.model, context.images, ["mixed3b_pre"])["mixed3b_pre"][:, 4].double()
    assert shares.sum() == pytest.approx(1) and edges[0] == pytest.approx(float(acts.min()), rel=1e-4)
    assert mean == pytest.approx(float(acts.mean()), abs=0.05 * float(acts.std()))
    assert spread == pytest.approx(float(acts.std()), rel=0.05)
    for value in (-0.3, 0.0, 0.2):
        assert share_above(scan, value) == pytest.approx(float((acts > value).double().mean()), abs=0.02)


def _as_published(context: FigureContext) -> FigureContext:
    class Published(FigureContext):
        @property
        def published(self) -> bool:
            return True

    return Published(context.settings, context.shared, context.model)


def test_stimuli_end_with_the_straight_line(context: FigureContext) -> None:
    result = tuned_units.curve_stimuli(context, "mixed3b", 12, 4)
    radii = result.axis("radius").values
    assert len(radii) == 4 and math.isinf(radii[-1]) and list(radii) == sorted(radii)
    assert isinstance(result, stimuli.Stimuli) and np.isfinite(radii[:-1]).all()
