"""Tracing through every kind of architecture: sums that reconcile, options that do what they say, clear refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.errors import AddressError, CircuitsError
from circuits.plot.drawing.wording import comparison_sentence, mask_offer
from circuits.tracing.circuit import Circuit
from tests import nets


def reconciles(circuit: Circuit, tolerance: float = 1e-4) -> None:
    assert circuit.rest
    for rest in circuit.rest:
        shown = sum(e.strength for e in circuit.into(rest.target))
        scale = max(1.0, abs(rest.pre_activation))
        assert shown + rest.strength == pytest.approx(rest.total, abs=tolerance * scale)
        assert rest.total + rest.bias + rest.remainder == pytest.approx(rest.pre_activation, abs=tolerance * scale)


def residual() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nets.Residual(4), nets.Residual(4))


MODELS: dict[str, tuple[Callable[[], nn.Module], int, str]] = {
    "inception": (nets.tiny_inception, 64, "mixed4a"),
    "functional": (nets.Functional, 16, "relu_1"),
    "residual": (residual, 16, ""),  # its last trunk layer
    "no graph": (lambda: nets.Undecided(nets.Functional()), 16, "inner.c"),
}  # fmt: skip


def active_unit(model: circuits.Model, images: Tensor, layer: str) -> str:
    best = circuits.capture(model, images, layer)[layer].amax(dim=(2, 3)).mean(dim=0).argmax()
    return f"{layer}:{int(best)}"


@pytest.mark.parametrize("by", ["weights", "attribution", "ablation", "gradient", "integrated", "patching", "mask"])
@pytest.mark.parametrize("name", list(MODELS))
def test_sums_reconcile_in_every_architecture_and_ranking(name: str, by: str) -> None:
    make, size, layer = MODELS[name]
    model, images = nets.wrap(nets.randomized(make()), size), nets.pictures(5, size)
    layer = layer or model.trunk[-1]
    if model.graph is None:
        options = {"layers": ["inner.b"]}
    else:
        options = {"depth": 2}
    circuit = circuits.trace(model, active_unit(model, images, layer), images=images, width=3, by=by, **options)  # type: ignore[arg-type]
    reconciles(circuit)
    assert circuit.by == by
    for edge in circuit.edges:
        assert edge.sign == (1 if edge.strength > 0 else -1)
    if by == "weights" and name in ("inception", "functional"):
        assert circuit.rest[0].bias != 0


def test_a_target_can_be_a_neuron_a_class_score_or_a_latent(inception: circuits.Model) -> None:
    images = nets.pictures(4, 64)
    model = nets.wrap(inception.module, 64)
    model.attach("mixed3b", "mix", nets.LinearBasis(torch.rand(3, 12, generator=torch.Generator().manual_seed(0))))
    for target in ("mixed3b:3@2,2", "logits:1", "mixed3b~mix:1", "mixed3b~mix:1@1,1"):
        layer = model.unit(target).layer
        if target == "mixed3b:3@2,2":
            acts = circuits.capture(model, images, layer)[layer][:, :, 2, 2]
            target = f"mixed3b:{int(acts.mean(dim=0).argmax())}@2,2"
        circuit = circuits.trace(model, target, images=images, width=2)
        reconciles(circuit)
        assert circuit.target == str(model.unit(target)) and len(circuit.edges) == 2


def test_examples_are_the_strongest_places_with_the_fields_that_saw_them(inception: circuits.Model) -> None:
    images = nets.pictures(6, 64)
    target = active_unit(inception, images, "mixed3b")
    circuit = circuits.trace(inception, target, images=images, n_examples=3)
    for node in circuit.nodes:
        acts = circuits.capture(inception, images, node.layer)[node.layer][:, node.index]
        values = [e.value for e in node.examples]
        assert values == sorted(values, reverse=True) and len(values) == 3
        torch.testing.assert_close(torch.tensor(values), acts.flatten(1).amax(dim=1).sort(descending=True).values[:3])
        for e in node.examples:
            assert float(acts[e.image, e.position[0], e.position[1]]) == pytest.approx(e.value, rel=1e-5)
            field = inception.receptive_field(inception.unit(node.unit))
            assert field is not None and e.box == field.box(*e.position, within=(64, 64))


def test_depth_stops_at_the_picture_and_layers_can_be_chosen(planted: circuits.Model) -> None:
    images = nets.clutter(8)
    deep = circuits.trace(planted, f"objects:{nets.CAR}", images=images, depth=9, width=1)
    assert deep.layers == ("objects", "parts", "edges")
    chosen = circuits.trace(planted, f"objects:{nets.CAR}", images=images, layers=["edges"], width=4)
    assert chosen.layers == ("objects", "edges")
    reconciles(chosen)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (CircuitsError, "depth=0 must be a whole number of at least 1", {"depth": 0}),
        (CircuitsError, "width=0 must be a whole number of at least 1", {"width": 0}),
        (CircuitsError, "n_positions=0 must be a whole number of at least 1", {"n_positions": 0}),
        (CircuitsError, "by='magic'", {"by": "magic"}),
        (CircuitsError, "with zero values use by='patching'", {"by": "ablation", "baseline": "zero"}),
        (CircuitsError, "got 3 for 8 images", {"by": "gradient", "against": nets.clutter(3)}),
        (AddressError, "no layer 'nowhere'", {"layers": ["nowhere"]}),
        (AddressError, "has 24 channels", {"target": "parts:99"}),
        (AddressError, "is a layer", {"target": "parts"}),
        (CircuitsError, r"is in the first layer: .*circuits attribute .*edges:0 --source input", {"target": "edges:0"}),
        (CircuitsError, "active on none of the 8 images", {"images": torch.zeros(8, 3, 32, 32)}),
    ],
)
def test_bad_questions_are_answered_with_one_line(
    planted: circuits.Model, error: type[Exception], message: str, options: dict[str, object]
) -> None:
    asked = {"target": f"objects:{nets.CAR}", "images": nets.clutter(8), **options}
    with pytest.raises(error, match=message) as caught:
        circuits.trace(planted, **asked)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 250


def test_a_branch_is_no_source_layer(inception: circuits.Model) -> None:
    images = nets.pictures(4, 64)
    with pytest.raises(AddressError, match="name the block, not one of its branches"):
        circuits.trace(inception, active_unit(inception, images, "mixed3b"), images=images, layers=["mixed3a_5x5"])


def test_a_network_without_parameters_is_traced() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AvgPool2d(3, 1, 1)
            self.edges = nn.AvgPool2d(3, 3)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.relu(self.edges(self.pool(x)))
            return out

    circuit = circuits.trace(nets.wrap(Pooled(), 9), "relu:1", images=nets.pictures(3, 9), layers=["pool"])
    reconciles(circuit)
    assert [n.index for n in circuit.nodes] == [1, 1] and circuit.rest[0].remainder == pytest.approx(0, abs=1e-5)


# -- scoring -------------------------------------------------------------------------------------------------


def test_scores_are_refused_where_they_would_say_nothing(planted: circuits.Model) -> None:
    images = nets.clutter(8)
    circuit = circuits.trace(planted, f"objects:{nets.CAR}", images=images, width=2)
    with pytest.raises(CircuitsError, match="got random=0"):
        circuits.score(planted, circuit, images=images, random=0)
    other = circuits.wrap(nets.planted_module(), circuits.InputSpec(size=32), name="other")
    with pytest.raises(CircuitsError, match="is of model planted, not of other"):
        circuits.score(other, circuit, images=images)
    with pytest.raises(CircuitsError, match="has the same response to all"):
        circuits.score(planted, circuit, images=torch.zeros(3, 3, 32, 32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1.5}, "batch_size=1.5 must be a whole number"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number"),
        ({"random": 1.5}, "random=1.5 must be a whole number"),
        ({"limit": 0}, "limit=0 must be a whole number"),
    ],
)
def test_counts_of_a_score_are_whole_numbers(planted: circuits.Model, options: dict[str, float], message: str) -> None:
    images = nets.clutter(8)
    circuit = circuits.trace(planted, f"objects:{nets.CAR}", images=images, width=2)
    with pytest.raises(CircuitsError, match=message):
        circuits.score(planted, circuit, images=images, **{"random": 1, **options})  # type: ignore[arg-type]
    if "batch_size" in options:
        with pytest.raises(CircuitsError, match=message):
            circuits.rank(planted, f"objects:{nets.CAR}", images=images, **options)  # type: ignore[arg-type]
    else:
        ranking = circuits.rank(planted, f"objects:{nets.CAR}", images=images)
        with pytest.raises(CircuitsError, match=r"write sizes=\[3\]"):
            circuits.size_curve(planted, ranking, sizes=3)  # type: ignore[arg-type]


def test_keeping_every_unit_is_perfectly_faithful_and_dropping_every_unit_loses_everything(
    planted: circuits.Model,
) -> None:
    images = nets.clutter(8)
    circuit = circuits.trace(planted, f"objects:{nets.MIXTURE}", images=images, width=nets.PARTS)
    assert len(circuit.edges) == nets.PARTS
    score = circuits.score(planted, circuit, images=images, random=2)
    assert score.faithfulness == pytest.approx(1, abs=1e-6)
    assert score.random_faithfulness == pytest.approx((1.0, 1.0), abs=1e-6)  # there is only one such circuit
    assert score.faithfulness_percentile == 0  # and nothing scores lower
    assert score.completeness > 0.9


def test_a_score_beside_a_mask_is_measured_on_images_that_the_mask_did_not_see(planted: circuits.Model) -> None:
    images = nets.clutter(24)
    target = f"objects:{nets.CAR}"
    parents = {nets.WINDOW, nets.WHEEL, nets.BODY, nets.TREE}
    circuit = circuits.trace(planted, target, images=images, width=2)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3)).tolist()
    train, test = (images[sorted(part)] for part in (order[:12], order[12:]))

    def error(kept: set[int]) -> float:
        edits = [circuits.Ablate(f"parts:{c}", to="mean") for c in range(nets.PARTS) if c not in kept]
        clean = circuits.capture(planted, test, "objects")["objects"][:, nets.CAR]
        with circuits.edit(planted, edits, reference=test):
            cut = circuits.capture(planted, test, "objects")["objects"][:, nets.CAR]
        return float((clean - cut).pow(2).sum())

    def share(kept: set[int]) -> float:  # of `size_curve`: 0 with nothing kept, 1 with everything
        return 1 - error(kept) / error(set())

    score = circuits.score(planted, circuit, images=images, random=2, mask=True, seed=3)
    beside = score.comparison
    assert beside is not None and (beside.size, beside.n_units) == (2, nets.PARTS)
    assert (beside.n_images, beside.n_learned) == (12, 12)
    assert beside.share == pytest.approx(share({n.index for n in circuit.nodes[1:]}), abs=1e-4)
    ranking = circuits.rank(planted, target, images=train, share=1.0)
    assert beside.ranked == pytest.approx(share(ranking.members(2)["parts"]), abs=1e-4)
    best = max(share(set(pair)) for pair in combinations(sorted(parents), 2))
    assert beside.mask == pytest.approx(best, abs=1e-4) and beside.mask_low <= beside.mask <= beside.mask_high
    assert beside.of_mask == pytest.approx(beside.share / beside.mask)
    assert beside.ranked_size is not None and share(ranking.members(beside.ranked_size)["parts"]) >= beside.share - 1e-6
    scored = replace(circuit, score=score)
    assert circuits.Circuit.from_json(json.loads(json.dumps(scored.to_json()))) == scored
    assert f"{100 * beside.of_mask:.0f} % of the mask's share" in comparison_sentence(score)
    plain = circuits.score(planted, circuit, images=images, random=2, seed=3)
    assert plain == replace(score, comparison=None) and comparison_sentence(plain) == ""
    assert "comparison" not in replace(circuit, score=plain).to_json()["score"]
    above, below = score.faithfulness - 0.01, min(1.0, score.faithfulness + 0.01)
    assert circuits.score(planted, circuit, images=images, random=2, mask=above, seed=3) == plain
    assert circuits.score(planted, circuit, images=images, random=2, mask=below, seed=3) == score
    worse = replace(beside, share=0.89 * beside.mask)
    assert "as many units keep" in mask_offer(replace(circuit, score=replace(score, comparison=worse)))
    little = replace(beside, share=0.17, mask=0.01, mask_low=0.001, mask_high=0.02)
    for good in (replace(beside, share=0.91 * beside.mask), None, replace(little, share=-0.2)):
        assert mask_offer(replace(circuit, score=replace(score, comparison=good))) == ""
    # a mask that keeps next to nothing, or for all one knows nothing, is no measure; below zero there is no share of it
    for unclear in (little, replace(beside, mask_low=-0.01), replace(beside, share=-0.2)):
        assert "% of the mask's share" not in comparison_sentence(replace(score, comparison=unclear))
    assert little.of_mask is None and "keep 0.17 (" in comparison_sentence(replace(score, comparison=little))
    assert mask_offer(replace(circuit, by="mask", score=replace(score, comparison=worse))) == ""
    with pytest.raises(CircuitsError, match="give 4, not 3"):
        circuits.score(planted, circuit, images=images[:3], random=1, mask=True)


@pytest.mark.parametrize("name", ["inception", "functional", "residual"])
def test_deep_circuits_are_scored_in_every_architecture(name: str) -> None:
    make, size, layer = MODELS[name]
    model, images = nets.wrap(nets.randomized(make()), size), nets.pictures(6, size)
    layer = layer or model.trunk[-1]
    circuit = circuits.trace(model, active_unit(model, images, layer), images=images, depth=2, width=2)
    score = circuits.score(model, circuit, images=images, random=5)
    assert score.faithfulness <= 1 + 1e-6 and score.n_images == 6
    assert set(score.minimality) == {n.unit for n in circuit.nodes[1:]}


def test_by_attribution_each_image_has_its_own_gradient_and_its_own_activations() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(5, 2, 3, padding=1),
    )
    model, images = nets.wrap(module, 16), nets.pictures(6, 16)
    circuit = circuits.trace(
        model, "4:0@8,8", images=images, layers=["1"], width=4, by="attribution", n_positions=6, threshold=0.0
    )
    contributions = []
    for image in circuits.capture(model, images, "1")["1"]:
        leaf = image[None].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(module[2:](leaf)[0, 0, 8, 8], leaf)
        contributions.append((gradient * leaf).detach().sum(dim=(2, 3))[0])
    expected = torch.stack(contributions).mean(dim=0)
    strengths = {edge.source.rpartition(":")[2]: edge.strength for edge in circuit.edges}
    assert strengths == pytest.approx({str(c): float(v) for c, v in enumerate(expected)}, abs=1e-5)


def test_the_score_of_a_class_bears_its_name_and_no_other_unit_does() -> None:
    torch.manual_seed(1)  # with some weights a channel is silent, and no parent
    convolutions = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    module = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    images = nets.pictures(4, 16)
    named = circuits.wrap(module.eval(), circuits.InputSpec(size=16), name="net", classes=["cat", "dog"])
    circuit = circuits.trace(named, "logits:dog", images=images, width=2)
    assert circuit.target == "net/6:1" and [node.label for node in circuit.nodes] == ["dog", None, None]
    assert Circuit.from_json(circuit.to_json()).nodes[0].label == "dog"
    assert circuits.trace(named, "3:1", images=images, width=2).nodes[0].label is None
    unnamed = circuits.wrap(module.eval(), circuits.InputSpec(size=16), name="net")
    assert circuits.trace(unnamed, "logits:1", images=images, width=2).nodes[0].label is None


def test_the_network_runs_once_over_the_images_however_many_units_are_traced() -> None:
    """And once over those traced: what each unit reads, its segments start from."""
    model, images, seen = nets.wrap(nets.randomized(nets.tiny_inception()), 64), nets.pictures(5, 64), [0]
    first = next(part for part in model.module.modules() if isinstance(part, nn.Conv2d))
    first.register_forward_hook(lambda _, inputs, out: seen.__setitem__(0, seen[0] + len(out)))
    circuit = circuits.trace(model, active_unit(model, images, "mixed4a"), images=images, depth=2, width=3)
    assert len(circuit.rest) > 2 and seen[0] <= 3 * len(images)  # `active_unit` takes one pass of its own
