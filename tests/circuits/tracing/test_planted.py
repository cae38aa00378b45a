"""The planted net: every weight was set by hand, so every number of its circuits is known."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import circuits
from circuits.errors import ConstantError
from circuits.network.hooks import read
from circuits.plot.drawing.wording import circuit_reading, edge_effect
from circuits.tracing.circuit import Circuit
from tests import nets
from tests.nets import BLUE, BODY, BOUNDARY, CAR, FALLING, RISING, STRIPE, TREE, WHEEL, WINDOW

Y, X = nets.CAR_AT
NEURON = f"objects:{CAR}@{Y},{X}"
BRIGHTNESS = 0.75  # mean of 1, 0.9, ... 0.5
#: taps seen x weight: ten window taps, ten wheel taps, four of five body taps, one tree tap
CONTRIBUTIONS = {
    WINDOW: 10 * nets.UP * BRIGHTNESS,
    WHEEL: 10 * nets.UP * BRIGHTNESS,
    BODY: 4 * nets.MIDDLE * BRIGHTNESS,
    TREE: 1 * nets.VETO * BRIGHTNESS,
}
#: painted pixels of each part (the wheel unit also answers to the sides of every patch), and kernel sums
PIXELS = {WINDOW: 4 * 9, WHEEL: 4 * (9 + 2 * 0.5) + 5 * 4 / 6, BODY: 8, TREE: 1}
SUMS = {
    WINDOW: 10 * (nets.UP + nets.DOWN),
    WHEEL: 10 * (nets.UP + nets.DOWN),
    BODY: 5 * nets.MIDDLE,
    TREE: 25 * nets.VETO,
}


def strengths(circuit: Circuit, unit: str | None = None) -> dict[int, float]:
    return {circuit.node(e.source).index: e.strength for e in circuit.into(unit or circuit.target)}


@pytest.fixture(scope="module")
def traced(planted: circuits.Model) -> Circuit:
    return circuits.trace(planted, NEURON, images=nets.car_pictures(), width=6, by="weights")


def test_the_car_fires_on_the_painted_car_as_worked_out_by_hand(planted: circuits.Model) -> None:
    response = circuits.capture(planted, nets.car_pictures(1), "objects_pre")["objects_pre"]
    assert float(response[0, CAR, Y, X]) == pytest.approx(10 * 0.5 + 10 * 0.5 + 4 * 0.75 - 0.5 - 1.0, abs=1e-5)
    assert response[0, CAR].argmax() == Y * 32 + X or response[0, CAR].max() > 11.5  # it peaks on the car


def test_trace_finds_exactly_the_four_parents_with_their_signs_and_contributions(traced: Circuit) -> None:
    assert strengths(traced) == pytest.approx(CONTRIBUTIONS, abs=1e-5)
    assert {traced.node(e.source).index: e.sign for e in traced.edges} == {WINDOW: 1, WHEEL: 1, BODY: 1, TREE: -1}
    assert [n.role for n in traced.nodes] == ["target"] + ["parent"] * 4
    assert traced.layers == ("objects", "parts")


def test_kernels_show_windows_above_and_wheels_below(traced: Circuit) -> None:
    kernels = {traced.node(e.source).index: e.kernel for e in traced.edges}
    up, down = np.float32(nets.UP), np.float32(nets.DOWN)
    rows = {WINDOW: [up, up, 0, down, down], WHEEL: [down, down, 0, up, up], BODY: [0, 0, nets.MIDDLE, 0, 0]}
    for part, values in rows.items():
        np.testing.assert_allclose(
            kernels[part], np.repeat(np.array(values, np.float32)[:, None], 5, axis=1), atol=1e-7
        )
    np.testing.assert_allclose(kernels[TREE], np.full((5, 5), nets.VETO), atol=1e-7)
    assert kernels[WINDOW][:2].sum() > 0 > kernels[WINDOW][3:].sum()
    assert kernels[WHEEL][:2].sum() < 0 < kernels[WHEEL][3:].sum()
    assert all(e.offset == (-2, -2) and e.stride == (1, 1) for e in traced.edges)


def test_an_edges_weight_is_its_kernels_norm_with_the_sign_of_its_sum(traced: Circuit) -> None:
    weights = {traced.node(e.source).index: e.weight for e in traced.edges}
    expected = {
        WINDOW: (10 * 0.25 + 10 * 0.0625) ** 0.5,
        WHEEL: (10 * 0.25 + 10 * 0.0625) ** 0.5,
        BODY: (5 * 0.5625) ** 0.5,
        TREE: -((25 * 0.25) ** 0.5),
    }
    assert weights == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 24])
def test_what_is_shown_and_the_rest_make_up_the_pre_activation(planted: circuits.Model, width: int) -> None:
    circuit = circuits.trace(planted, NEURON, images=nets.car_pictures(), width=width, by="weights")
    (rest,) = circuit.rest
    shown = sum(e.strength for e in circuit.edges)
    assert shown + rest.strength == pytest.approx(rest.total, abs=1e-5)
    assert rest.total == pytest.approx(sum(CONTRIBUTIONS.values()), abs=1e-5)
    assert rest.bias == pytest.approx(nets.CAR_BIAS, abs=1e-6)
    assert rest.remainder == pytest.approx(0, abs=1e-4)
    assert rest.pre_activation == pytest.approx(rest.total + rest.bias + rest.remainder, abs=1e-4)
    assert rest.pre_activation == pytest.approx(sum(CONTRIBUTIONS.values()) + nets.CAR_BIAS, abs=1e-4)
    assert rest.count == nets.PARTS - len(circuit.edges)
    left = sorted(CONTRIBUTIONS.values(), key=abs)[: 4 - min(width, 4)]
    assert rest.strength == pytest.approx(sum(left), abs=1e-5)


def test_trace_by_attribution_agrees_where_the_network_is_linear(planted: circuits.Model) -> None:
    circuit = circuits.trace(planted, NEURON, images=nets.car_pictures(), width=6, by="attribution")
    assert strengths(circuit) == pytest.approx(CONTRIBUTIONS, abs=1e-5)


def test_trace_by_ablation_gives_the_drops_worked_out_by_hand(planted: circuits.Model) -> None:
    circuit = circuits.trace(planted, NEURON, images=nets.car_pictures(), width=6, by="ablation")
    means = {part: PIXELS[part] * BRIGHTNESS / 32**2 for part in PIXELS}
    expected = {part: CONTRIBUTIONS[part] - means[part] * SUMS[part] for part in PIXELS}
    assert strengths(circuit) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("by", ["weights", "attribution", "gradient", "integrated", "patching", "mask"])
def test_contributions_are_counted_from_the_baseline(planted: circuits.Model, by: str) -> None:
    """Against the mean: weight x (activation - mean). What the baseline gives joins the biases; the sum stays whole."""
    options = {"images": nets.car_pictures(), "width": nets.PARTS, "by": by}
    if by in ("weights", "attribution"):
        options["baseline"] = "mean"
    circuit = circuits.trace(planted, NEURON, **options)  # type: ignore[arg-type]
    means = {part: PIXELS[part] * BRIGHTNESS / 32**2 for part in PIXELS}
    expected = {part: CONTRIBUTIONS[part] - means[part] * SUMS[part] for part in PIXELS}
    assert strengths(circuit) == pytest.approx(expected, abs=1e-4)
    (rest,) = circuit.rest
    assert rest.pre_activation == pytest.approx(sum(CONTRIBUTIONS.values()) + nets.CAR_BIAS, abs=1e-4)
    if by != "attribution":
        assert rest.bias == pytest.approx(nets.CAR_BIAS + sum(means[p] * SUMS[p] for p in PIXELS), abs=1e-4)
        assert rest.remainder == pytest.approx(0, abs=1e-4)


def test_contributions_against_counterfactuals_are_differences(planted: circuits.Model) -> None:
    images = nets.car_pictures()
    without = torch.stack([nets.car_picture(1 - 0.1 * i, tree=False) for i in range(6)])
    for by in ("weights", "integrated"):
        circuit = circuits.trace(planted, NEURON, images=images, width=nets.PARTS, by=by, against=without)  # type: ignore[arg-type]
        # the tree covers one pixel of the body's row: all else is the same in both
        changed = strengths(circuit)
        assert set(changed) <= {BODY, TREE, WHEEL, WINDOW} | set(range(6, nets.PARTS))
        assert changed[TREE] == pytest.approx(CONTRIBUTIONS[TREE], abs=1e-5)
        assert changed[BODY] == pytest.approx(-nets.MIDDLE * BRIGHTNESS, abs=1e-5)
        assert circuit.provenance["baseline"] == "counterfactual"


def test_parents_by_rank_explain_all_positions(planted: circuits.Model) -> None:
    images = nets.clutter()
    circuit = circuits.trace(planted, f"objects:{CAR}", images=images, width=4, by="gradient")
    assert set(strengths(circuit)) == {WINDOW, WHEEL, BODY, TREE}
    ranking = circuits.rank(planted, f"objects:{CAR}", images=images, method="gradient", share=1.0)
    assert {n.unit for n in circuit.nodes[1:]} == set(ranking.units[:4])
    other = circuits.trace(planted, f"objects:{CAR}", images=images, width=2)
    difference = circuits.diff(circuit, other)
    assert len(difference.only_first) == 2 and not difference.only_second and len(difference.edges_both) == 2


def test_the_default_ranks_by_gradient_and_by_weights_where_only_these_have_contributions(
    planted: circuits.Model, inception: circuits.Model
) -> None:
    images = nets.car_pictures()
    default = circuits.trace(planted, NEURON, images=images)
    assert default == circuits.trace(planted, NEURON, images=images, by="gradient") and default.by == "gradient"
    assert default.provenance["baseline"] == "mean" and default.provenance["n_ranked"] == len(images)
    inner = circuits.trace(inception, "mixed3b:0", images=nets.pictures(3, 64), through_bottlenecks=True)
    assert inner.by == "weights" and "n_ranked" not in inner.provenance


def test_an_inhibitor_that_is_absent_excites_where_it_is_low(planted: circuits.Model) -> None:
    """Half of the cars stand behind a tree. Where none does, the veto is lifted: weight x (0 - mean) is above zero."""
    images = torch.stack([nets.car_picture(1.0, tree=tree) for tree in (False, True)])
    circuit = circuits.trace(planted, NEURON, images=images, n_positions=1, width=nets.PARTS)
    assert circuit.nodes[0].examples[0].image == 0
    edges = {circuit.node(e.source).index: e for e in circuit.edges}
    mean = float(circuits.capture(planted, images, "parts")["parts"][:, TREE].mean())
    assert mean > 0 and edges[TREE].strength == pytest.approx(-mean * SUMS[TREE], abs=1e-5)
    assert edges[TREE].sign == 1 and edges[TREE].low and not edges[WINDOW].low and not edges[BODY].low
    assert edge_effect(edges[TREE]) == "excites where it is low, everywhere"
    # the same of a kernel that has a little of the other sign
    mixed = edges[TREE].kernel.copy()
    mixed[0, 0] = 0.01
    assert edge_effect(replace(edges[TREE], kernel=mixed)) == "excites where it is low, everywhere"
    assert "everywhere, where it is low, by parts:" in circuit_reading(circuit)
    assert "Counted from each unit's mean," in circuit_reading(circuit)
    again = Circuit.from_json(json.loads(json.dumps(circuit.to_json())))
    assert again == circuit and [e.low for e in again.edges] == [e.low for e in circuit.edges]
    from_zero = circuits.trace(planted, NEURON, images=images, n_positions=1, width=nets.PARTS, by="weights")
    assert not any(edge.low for edge in from_zero.edges)


def test_the_threshold_of_ranked_parents_is_a_share_of_the_largest_magnitude(planted: circuits.Model) -> None:
    images, target = nets.clutter(), f"objects:{CAR}"
    ranking = circuits.rank(planted, target, images=images, share=1.0)
    share = (ranking.magnitudes[1] + ranking.magnitudes[2]) / 2 / ranking.magnitudes[0]
    circuit = circuits.trace(planted, target, images=images, threshold=share)
    assert {edge.source for edge in circuit.edges} == set(ranking.units[:2])


def test_parents_are_ordered_by_what_they_add_to_those_before_them(planted: circuits.Model) -> None:
    """Against the definition: scores of `rank`, and the gain worked out unit by unit."""
    images, target = nets.clutter(), f"objects:{CAR}"
    ranking = circuits.rank(planted, target, images=images, share=1.0)
    scores = dict(zip(ranking.units, zip(ranking.scores, ranking.magnitudes, strict=True), strict=True))
    chosen: list[str] = []
    for _ in range(4):
        p = sum(scores[unit][0] for unit in chosen) / sum(ranking.scores)
        gains = {
            unit: (1 - p) ** 2 - ((1 - p) ** 2 - 2 * (1 - p) * s - (2 * p - 1) * m * m)
            for unit, (s, m) in scores.items()
            if unit not in chosen
        }
        chosen.append(max(gains, key=lambda unit: gains[unit]))
    circuit = circuits.trace(planted, target, images=images, width=4)
    assert [edge.source for edge in circuit.edges] == chosen


def test_activations_of_the_first_pass_are_those_that_a_second_one_reads(
    planted: circuits.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, passes = nets.car_pictures(), list[Any]()
    monkeypatch.setattr("circuits.tracing.trace.read", lambda *args: (passes.append(args), read(*args))[1])
    held = circuits.trace(planted, NEURON, images=images)
    assert not passes
    size = planted.layers["parts"].size
    assert size is not None
    parts = len(images) * planted.layers["parts"].channels * size[0] * size[1] * 4
    for most in (parts, 0):  # room for the layer that is ranked, and for none
        monkeypatch.setattr("circuits.tracing.trace.STORED", most)
        assert circuits.trace(planted, NEURON, images=images) == held
    assert len(passes) == 2


def test_images_to_rank_on_are_sampled_at_random(planted: circuits.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes that take turns: every second image would be of one class, on which the car has no variance."""
    monkeypatch.setattr("circuits.tracing.trace.LIMIT", 8)
    monkeypatch.setattr("circuits.tracing.rankings.parent_sources.LIMIT", 8)
    pictures = [nets.car_picture(0.5 + 0.02 * i) if i % 2 else torch.zeros(3, 32, 32) for i in range(16)]
    circuit = circuits.trace(planted, NEURON, images=torch.stack(pictures))
    assert {circuit.node(e.source).index for e in circuit.edges} == {WINDOW, WHEEL, BODY, TREE}
    assert circuit.provenance["n_ranked"] == 8 and circuit.provenance["n_images"] == 16


@pytest.mark.parametrize("target", [NEURON, "logits:0"])
def test_a_response_that_is_everywhere_the_same_is_not_ranked(planted: circuits.Model, target: str) -> None:
    image = nets.car_pictures(1)
    with pytest.raises(ConstantError, match="same response to all .*by='weights' and 'attribution' need no variation"):
        circuits.trace(planted, target, images=image)
    assert circuits.trace(planted, target, images=image, by="weights").edges
    # a channel varies over the positions of one image: its mean is over these
    channel = circuits.trace(planted, f"objects:{CAR}", images=image)
    assert {WINDOW, WHEEL, BODY} <= set(strengths(channel))


def test_zero_ablation_by_edit_drops_the_car_by_each_parents_contribution(planted: circuits.Model) -> None:
    images = nets.car_pictures(1)
    clean = float(circuits.capture(planted, images, "objects_pre")["objects_pre"][0, CAR, Y, X])
    for part, contribution in CONTRIBUTIONS.items():
        with circuits.edit(planted, [circuits.Ablate(f"parts:{part}")]):
            cut = float(circuits.capture(planted, images, "objects_pre")["objects_pre"][0, CAR, Y, X])
        assert clean - cut == pytest.approx(contribution / BRIGHTNESS, abs=1e-5)


def test_tracing_the_channel_finds_its_peaks_and_the_same_parents(planted: circuits.Model) -> None:
    circuit = circuits.trace(planted, f"objects:{CAR}", images=nets.car_pictures(), width=4)
    assert set(strengths(circuit)) <= {WINDOW, WHEEL, BODY, TREE}
    assert {WINDOW, WHEEL, BODY} <= set(strengths(circuit))
    best = circuit.nodes[0].examples[0]
    assert best.image == 0 and best.value == pytest.approx(12.75, abs=1e-4)  # the brightest car, the tree out of sight


def test_a_deeper_trace_goes_on_to_colors_and_gabors(planted: circuits.Model) -> None:
    circuit = circuits.trace(planted, NEURON, images=nets.car_pictures(), depth=2, width=4)
    assert circuit.layers == ("objects", "parts", "edges")
    assert set(strengths(circuit, f"planted/parts:{WINDOW}")) == {BLUE}
    assert set(strengths(circuit, f"planted/parts:{BODY}")) == {nets.RED}
    assert set(strengths(circuit, f"planted/parts:{TREE}")) == {nets.GREEN}
    assert set(strengths(circuit, f"planted/parts:{WHEEL}")) <= {STRIPE, nets.ANTISTRIPE}
    for rest in circuit.rest:
        shown = sum(e.strength for e in circuit.into(rest.target))
        assert shown + rest.strength == pytest.approx(rest.total, abs=1e-5)
        assert rest.total + rest.bias + rest.remainder == pytest.approx(rest.pre_activation, abs=1e-4)


def test_merged_nodes_appear_once(planted: circuits.Model) -> None:
    circuit = circuits.trace(planted, f"objects:{nets.MIXTURE}", images=nets.clutter(), depth=2, width=5)
    units = [n.unit for n in circuit.nodes]
    assert len(units) == len(set(units))
    assert {e.source for e in circuit.edges} | {e.target for e in circuit.edges} == set(units)


def test_the_class_score_is_traced_through_the_global_pool(planted: circuits.Model) -> None:
    circuit = circuits.trace(planted, "logits:0", images=nets.car_pictures(), width=3, by="weights")
    assert circuit.layers == ("logits", "objects")
    means = circuits.capture(planted, nets.car_pictures(), "objects")["objects"].mean(dim=(0, 2, 3))
    expected = {CAR: 2 * float(means[0]), BOUNDARY: -float(means[1]), nets.MIXTURE: 0.5 * float(means[2])}
    assert strengths(circuit) == pytest.approx(expected, rel=1e-4)
    (rest,) = circuit.rest
    assert rest.bias == pytest.approx(0.25, abs=1e-6)
    assert rest.total + rest.bias == pytest.approx(rest.pre_activation, abs=1e-4)


def test_the_threshold_drops_what_is_weak_beside_the_strongest(planted: circuits.Model) -> None:
    circuit = circuits.trace(planted, NEURON, images=nets.car_pictures(), threshold=0.5)
    assert set(strengths(circuit)) == {WINDOW, WHEEL, BODY}


def test_the_planted_circuit_is_faithful_and_random_circuits_are_not(planted: circuits.Model) -> None:
    images = nets.clutter()
    circuit = circuits.trace(planted, f"objects:{CAR}", images=images, width=4)
    assert set(strengths(circuit)) == {WINDOW, WHEEL, BODY, TREE}
    score = circuits.score(planted, circuit, images=images, random=60)
    assert score.faithfulness == pytest.approx(1.0, abs=1e-5)
    assert score.faithfulness_percentile == 100
    assert float(np.median(score.random_faithfulness)) < 0.3
    assert score.completeness > 0.9
    assert score.completeness > max(score.random_completeness)
    # a strong unit in the place of the inhibiting one may take away more
    assert score.completeness_percentile > 90
    assert min(score.minimality.values()) > 0.0
    assert set(score.minimality) == {f"planted/parts:{p}" for p in (WINDOW, WHEEL, BODY, TREE)}
    assert score.n_random == 60


def test_faithfulness_is_the_explained_variance_under_mean_ablation(planted: circuits.Model) -> None:
    images = nets.clutter(10)
    circuit = circuits.trace(planted, f"objects:{CAR}", images=images, width=2)
    kept = [e.source for e in circuit.edges]
    score = circuits.score(planted, circuit, images=images, random=1)
    clean = circuits.capture(planted, images, "objects")["objects"][:, CAR]
    held = [circuits.Ablate(f"parts:{c}", to="mean") for c in range(nets.PARTS) if f"planted/parts:{c}" not in kept]
    with circuits.edit(planted, held, reference=images):
        cut = circuits.capture(planted, images, "objects")["objects"][:, CAR]
    explained = 1 - float((clean - cut).pow(2).sum() / (clean - clean.mean()).pow(2).sum())
    assert score.faithfulness == pytest.approx(explained, abs=1e-4)


def bright_and_dark() -> torch.Tensor:
    """A white line on black, and a black line on white."""
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, 8:24, 16] = 1
    images[1, :, 8:24, 8:24] = 1
    images[1, :, 8:24, 16] = 0
    return images


def test_opposite_parents_cancel_in_linear_weights_but_not_in_best_case_ones(planted: circuits.Model) -> None:
    linear = circuits.expanded_weights(planted, source="edges", target=f"objects:{BOUNDARY}")
    assert float(linear.kernels.abs().max()) == 0.0
    mean, each = circuits.example_weights(planted, bright_and_dark(), source="edges", target=f"objects:{BOUNDARY}")
    center = -linear.offset[0]
    assert each[0, STRIPE, center, center] == pytest.approx(0.5, abs=1e-6)  # rising carries it
    assert each[1, STRIPE, center, center] == pytest.approx(-0.5, abs=1e-6)  # falling carries it
    assert float(mean.kernels.abs().max()) == pytest.approx(0, abs=1e-6)  # and their mean cancels again
    best = circuits.best_case_weights(planted, bright_and_dark(), source="edges", target=f"objects:{BOUNDARY}")
    norms = best.norms[0]
    assert norms[STRIPE] == pytest.approx(0.5, abs=1e-6)
    assert norms[nets.ANTISTRIPE] == pytest.approx(0.5, abs=1e-6)
    assert float(norms[[nets.RED, BLUE, nets.GREEN, nets.LEVEL]].max()) == 0.0


def test_both_cancelling_parents_are_traced_with_the_values_worked_out_by_hand(planted: circuits.Model) -> None:
    circuit = circuits.trace(planted, f"objects:{BOUNDARY}", images=bright_and_dark(), by="weights")
    assert strengths(circuit) == pytest.approx({RISING: 0.25, FALLING: 0.25}, abs=1e-6)
