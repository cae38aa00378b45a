"""Edits do to the network exactly what they say, and nothing once they are over."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits import Ablate, Add, Clamp, Scale, Set, Unit
from circuits.errors import AddressError, EditError
from circuits.network.interventions import Edit
from tests import nets

Watch = list[circuits.Model]


@pytest.fixture
def model() -> circuits.Model:
    """Two convolutions, so that what the second says follows from the edited first by hand."""
    return nets.wrap(nets.sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3)), 8)


@pytest.fixture
def images() -> Tensor:
    return nets.pictures(3, 8)


def before(model: circuits.Model, images: Tensor) -> Tensor:
    return circuits.capture(model, images, "1")["1"]


def after(model: circuits.Model, acts: Tensor) -> Tensor:
    with torch.no_grad():
        return model.module[2](acts)


def edited(acts: Tensor, value: Tensor | float, where: object) -> Tensor:
    acts = acts.clone()
    acts[where] = value  # type: ignore[index]
    return acts


EVERYWHERE = (slice(None), 2)
EDITS: dict[str, tuple[Edit, object, object]] = {
    "zero a channel": (Ablate("1:2"), EVERYWHERE, lambda a: 0.0),
    "zero a neuron": (Ablate("1:2@3,4"), (slice(None), 2, 3, 4), lambda a: 0.0),
    "zero a layer": (Ablate("1"), (slice(None),), lambda a: 0.0),
    "zero at positions": (Ablate("1:2", positions=((0, 0), (7, 7))), (slice(None), 2, [0, 7], [0, 7]), lambda a: 0.0),
    "a layer at positions": (Scale("1", 3.0, positions=((2, 5),)), (slice(None), slice(None), 2, 5), lambda a: a * 3),
    "set": (Set("1:2", 1.5), EVERYWHERE, lambda a: 1.5),
    "set to a map": (Set("1:2", torch.eye(8)), EVERYWHERE, lambda a: torch.eye(8)),
    "scale": (Scale("1:2", -2.0), EVERYWHERE, lambda a: a * -2),
    "add": (Add("1:2", 0.5), EVERYWHERE, lambda a: a + 0.5),
    "clamp": (Clamp("1:2", low=0.1, high=0.2), EVERYWHERE, lambda a: a.clamp(0.1, 0.2)),
    "clamp from above": (Clamp("1:2", high=0.1), EVERYWHERE, lambda a: a.clamp(max=0.1)),
    "by a Unit": (Add(Unit("1", 2, at=(1, 1)), 2.0), (slice(None), 2, 1, 1), lambda a: a + 2),
}


@pytest.mark.parametrize("name", list(EDITS))
def test_an_edit_changes_what_it_names_and_all_that_follows(
    name: str, model: circuits.Model, images: Tensor, unchanged: Watch
) -> None:
    unchanged.append(model)
    one, where, change = EDITS[name]
    clean = before(model, images)
    expected = edited(clean, change(clean[where]), where)  # type: ignore[operator,index]
    with circuits.edit(model, [one]):
        torch.testing.assert_close(before(model, images), expected)
        torch.testing.assert_close(circuits.capture(model, images, "2")["2"], after(model, expected))
        with torch.no_grad():
            torch.testing.assert_close(model(images), after(model, expected))
    torch.testing.assert_close(before(model, images), clean, rtol=0, atol=0)


def test_an_empty_edit_changes_no_bit(model: circuits.Model, images: Tensor, unchanged: Watch) -> None:
    unchanged.append(model)
    clean = circuits.capture(model, images, ["0", "1", "2"])
    for empty in ([], [Scale("1:2", 1.0)], [Add("1", 0.0)], [Clamp("1", low=-1e9)]):
        with circuits.edit(model, empty):
            for name, acts in circuits.capture(model, images, ["0", "1", "2"]).items():
                assert torch.equal(acts, clean[name])


def test_mean_ablation_takes_the_mean_over_pictures_and_positions(model: circuits.Model, images: Tensor) -> None:
    reference = nets.pictures(5, 8, seed=1)
    means = before(model, reference).mean(dim=(0, 2, 3))
    clean = before(model, images)
    with circuits.edit(model, [Ablate("1:2", to="mean")], reference=reference):
        torch.testing.assert_close(before(model, images), edited(clean, means[2], EVERYWHERE))
    with circuits.edit(model, [Ablate("1", to="mean")], reference=reference):
        torch.testing.assert_close(before(model, images), means[None, :, None, None].expand_as(clean))
    with circuits.edit(model, [Ablate("1:2@1,1", to="mean")], reference=reference):
        torch.testing.assert_close(before(model, images), edited(clean, means[2], (slice(None), 2, 1, 1)))


def test_resampling_takes_whole_maps_of_reference_pictures(model: circuits.Model, images: Tensor) -> None:
    reference = nets.pictures(6, 8, seed=1)
    maps = before(model, reference)
    drawn = []
    for seed in range(4):
        both = [Ablate(f"1:{channel}", to="resample", seed=seed) for channel in (2, 3)]
        with circuits.edit(model, both, reference=reference):
            acts = before(model, images)
            assert torch.equal(before(model, images), acts)
        rows = [[bool(torch.equal(acts[i, 2], m[2])) for m in maps].index(True) for i in range(3)]
        assert all(torch.equal(acts[i, 3], maps[r, 3]) for i, r in enumerate(rows))  # one picture for both channels
        torch.testing.assert_close(acts[:, :2], before(model, images)[:, :2])
        drawn.append(tuple(rows))
    assert len(set(drawn)) > 1


def test_resampling_needs_maps_of_the_same_size(model: circuits.Model, unchanged: Watch) -> None:
    unchanged.append(model)
    with circuits.edit(model, [Ablate("1:2", to="resample")], reference=nets.pictures(2, 8)):
        with pytest.raises(EditError, match="resampling needs reference maps of size .10, 10., got .8, 8."):
            model(torch.rand(1, 3, 10, 10))


def test_edits_apply_in_the_order_given(model: circuits.Model, images: Tensor) -> None:
    clean = before(model, images)[:, 2]
    with circuits.edit(model, [Add("1:2", 1.0), Scale("1:2", 2.0)]):
        torch.testing.assert_close(before(model, images)[:, 2], (clean + 1) * 2)
    with circuits.edit(model, [Scale("1:2", 2.0), Add("1:2", 1.0)]):
        torch.testing.assert_close(before(model, images)[:, 2], clean * 2 + 1)


def test_nested_edits_add_up_and_end_one_by_one(model: circuits.Model, images: Tensor, unchanged: Watch) -> None:
    unchanged.append(model)
    clean = before(model, images)
    with circuits.edit(model, [Add("1:2", 1.0)]):
        with circuits.edit(model, [Scale("1:2", 2.0), Ablate("1:0")]):
            acts = before(model, images)
            torch.testing.assert_close(acts[:, 2], (clean[:, 2] + 1) * 2)
            assert float(acts[:, 0].abs().max()) == 0
        acts = before(model, images)
        torch.testing.assert_close(acts[:, 2], clean[:, 2] + 1)
        torch.testing.assert_close(acts[:, 0], clean[:, 0])
    assert torch.equal(before(model, images), clean)


def test_edits_of_several_layers_see_each_other(model: circuits.Model, images: Tensor) -> None:
    with circuits.edit(model, [Set("2:1", 7.0), Ablate("0")]):
        acts = circuits.capture(model, images, ["1", "2"])
    assert float(acts["1"].abs().max()) == 0
    torch.testing.assert_close(acts["2"][:, 0], model.module[2].bias[0].detach().expand(3, 6, 6))
    assert bool((acts["2"][:, 1] == 7).all())


def test_a_whole_branch_is_edited_as_its_channels(inception: circuits.Model, unchanged: Watch) -> None:
    unchanged.append(inception)
    images = nets.pictures(1, 64)
    clean = circuits.capture(inception, images, "mixed3a")["mixed3a"]
    with circuits.edit(inception, [Set("mixed3a_5x5", 2.0), Scale("mixed3a_3x3:1", 0.0)]):
        acts = circuits.capture(inception, images, "mixed3a")["mixed3a"]
    torch.testing.assert_close(acts, edited(edited(clean, 2.0, (slice(None), slice(7, 10))), 0.0, (slice(None), 4)))


@pytest.mark.parametrize("kind", ["traced", "untraced"])
def test_each_call_of_a_module_is_edited_on_its_own(kind: str, unchanged: Watch) -> None:
    inner = nets.randomized(nets.Twice())
    model = nets.wrap(inner if kind == "traced" else nets.Undecided(inner))
    prefix = "" if kind == "traced" else "inner."
    unchanged.append(model)
    images = nets.pictures(2)
    clean = circuits.capture(model, images, f"{prefix}again.call0")[f"{prefix}again.call0"]
    with circuits.edit(model, [Scale(f"{prefix}again.call0", 2.0)]), torch.no_grad():
        torch.testing.assert_close(model(images), inner.again((clean * 2).clamp_min(0)))
    with circuits.edit(model, [Scale(f"{prefix}again.call1", 2.0)]), torch.no_grad():
        torch.testing.assert_close(model(images), inner.again(clean.clamp_min(0)) * 2)
    with pytest.raises(AddressError, match="runs 2 times"):
        with circuits.edit(model, [Ablate(f"{prefix}again")]):
            pass


def test_functions_called_in_forward_can_be_edited(unchanged: Watch) -> None:
    model = nets.wrap(nets.randomized(nets.Functional()))
    unchanged.append(model)
    images = nets.pictures(2)
    clean = circuits.capture(model, images, ["relu", "b", "relu_", "fc"])
    with circuits.edit(model, [Ablate("relu:2"), Add("b:1", 10.0), Scale("relu_:0", 3.0)]):
        acts = circuits.capture(model, images, ["a", "relu", "b", "relu_", "fc"])
        out = model(images)
    torch.testing.assert_close(acts["relu"], edited(clean["relu"], 0.0, EVERYWHERE))
    m = model.module
    with torch.no_grad():
        pooled = nn.functional.max_pool2d(acts["relu"], 2)
        b = m.b(pooled)
        b[:, 1] += 10
        torch.testing.assert_close(acts["b"], b)
        last = (b + pooled).clamp_min(0)
        last[:, 0] *= 3
        torch.testing.assert_close(acts["relu_"], last)
        torch.testing.assert_close(out, m.fc(m.c(last).clamp_min(0).mean(dim=(2, 3))))
    torch.testing.assert_close(acts["fc"][:, :, 0, 0], out)


def test_edits_of_functions_apply_in_order_and_nest_like_those_of_modules(unchanged: Watch) -> None:
    model = nets.wrap(nets.randomized(nets.Functional()))
    unchanged.append(model)
    images = nets.pictures(2)
    clean = circuits.capture(model, images, "relu")["relu"]
    with circuits.edit(model, [Add("relu:2", 1.0), Scale("relu:2", 2.0)]):
        expected = edited(clean, (clean[:, 2] + 1) * 2, EVERYWHERE)
        torch.testing.assert_close(circuits.capture(model, images, "relu")["relu"], expected)
        with circuits.edit(model, [Add("relu:2", -1.0), Ablate("a:0")]):
            acts = circuits.capture(model, images, ["a", "relu"])
        torch.testing.assert_close(
            acts["relu"], edited(edited(clean, expected[:, 2] - 1, EVERYWHERE), 0.0, (slice(None), 0))
        )
        assert float(acts["a"][:, 0].abs().max()) == 0
        torch.testing.assert_close(circuits.capture(model, images, "relu")["relu"], expected)


def test_vector_layers_are_edited(planted: circuits.Model) -> None:
    images = nets.car_pictures(2)
    with circuits.edit(planted, [Set("logits:1", 3.0)]), torch.no_grad():
        assert planted(images)[:, 1].tolist() == [3.0, 3.0]
    with circuits.edit(planted, [Ablate("flatten:0", to="mean")], reference=nets.clutter(4)):
        assert len(set(circuits.capture(planted, images, "flatten")["flatten"][:, 0, 0, 0].tolist())) == 1


def test_a_latent_is_edited_along_its_written_direction_and_the_rest_stays(
    images: Tensor, model: circuits.Model
) -> None:
    directions = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0][:2]
    model.attach("1", "mix", nets.LinearBasis(directions))
    clean = before(model, images)
    latent = torch.einsum("nchw,c->nhw", clean, directions[1])
    with circuits.edit(model, [Ablate("1~mix:1")]):
        acts = before(model, images)
    torch.testing.assert_close(acts, clean - latent[:, None] * directions[1].view(1, -1, 1, 1))
    with circuits.edit(model, [Scale("1~mix:1@2,3", 2.0)]):
        acts = before(model, images)
    torch.testing.assert_close(acts[:, :, 2, 3], clean[:, :, 2, 3] + latent[:, 2, 3, None] * directions[1])
    assert torch.equal(acts[:, :, 4:], clean[:, :, 4:])


# -- edits are in force inside every verb -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["traced", "untraced"])
def test_trace_score_and_attribution_see_the_edited_network(kind: str, unchanged: Watch) -> None:
    inner = nets.planted_module()
    model = nets.wrap(inner if kind == "traced" else nets.Undecided(inner), 32)
    prefix = "" if kind == "traced" else "inner."
    unchanged.append(model)
    images, target = nets.car_pictures(3), f"{prefix}objects_pre:{nets.CAR}@{nets.CAR_AT[0]},{nets.CAR_AT[1]}"
    options = {"source": f"{prefix}parts", "target": target}
    clean = circuits.attribute(model, images, method="grad*act", **options)  # type: ignore[arg-type]
    with circuits.edit(model, [Ablate(f"{prefix}parts:{nets.WHEEL}"), Scale(f"{prefix}parts:{nets.WINDOW}", 0.5)]):
        for method in ("weight*act", "grad*act", "integrated", "ablation"):
            cut = circuits.attribute(model, images, method=method, **options)  # type: ignore[arg-type]
            assert float(cut.units[:, nets.WHEEL].abs().max()) < 1e-6
            torch.testing.assert_close(cut.units[:, nets.WINDOW], clean.units[:, nets.WINDOW] / 2, rtol=1e-4, atol=1e-5)
            lost = clean.units[:, nets.WHEEL] + clean.units[:, nets.WINDOW] / 2
            torch.testing.assert_close(cut.response, clean.response - lost)
        by_gradient = circuits.trace(model, target, images=images, layers=[f"{prefix}parts"])
        by_weights = circuits.trace(model, target, images=images, layers=[f"{prefix}parts"], by="weights")
        for circuit in (by_gradient, by_weights):
            assert nets.WHEEL not in [n.index for n in circuit.nodes[1:]]
            (rest,) = circuit.rest
            assert rest.pre_activation == pytest.approx(float(cut.response.mean()), abs=1e-4)
            assert rest.total + rest.bias + rest.remainder == pytest.approx(rest.pre_activation, abs=1e-4)
        # counted from zero: what is left is the bias; by gradients contributions are counted from the mean
        assert rest.remainder + rest.bias == pytest.approx(nets.CAR_BIAS, abs=1e-4)


def test_an_edit_between_source_and_target_acts_on_attribution(planted: circuits.Model) -> None:
    images = nets.car_pictures(2)
    options = {"source": "edges", "target": f"objects:{nets.CAR}@12,16", "method": "grad*act"}
    with circuits.edit(planted, [Ablate(f"parts:{nets.BODY}"), Ablate(f"parts_pre:{nets.TREE}")]):
        units = circuits.attribute(planted, images, **options).units  # type: ignore[arg-type]
    assert float(units[:, [nets.RED, nets.GREEN]].abs().max()) < 1e-6 and float(units[:, nets.BLUE].min()) > 1
    with circuits.edit(planted, [Scale("objects_pre", 2.0)]):
        doubled = circuits.attribute(planted, images, **options)  # type: ignore[arg-type]
    clean = circuits.attribute(planted, images, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(doubled.response, clean.response * 2)
    torch.testing.assert_close(doubled.units, clean.units * 2)


# -- what cannot be edited ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (["1:2"], "edits are Ablate, Patch, Project, Set, Scale, Add or Clamp; got str"),
        ("1:2", "give edits as a list"),
        (Ablate("1:2"), "give edits as a list"),
        ([Ablate("1:2", to="mean")], "needs edit(..., reference=images)"),
        ([Ablate("1:2", positions=((8, 0),))], "position 8,0 is outside the 8x8 map of 1"),
        ([Ablate("1:2", positions=((0, -1),))], "position 0,-1 is outside"),
    ],
)
def test_an_edit_that_cannot_be_applied_is_refused_at_once(
    edits: list[Edit], message: str, model: circuits.Model, unchanged: Watch
) -> None:
    unchanged.append(model)
    with pytest.raises(EditError) as caught:
        with circuits.edit(model, edits):
            pytest.fail("the edit was accepted")
    assert message in str(caught.value)


def test_unknown_units_and_bad_values_are_refused(model: circuits.Model, images: Tensor, unchanged: Watch) -> None:
    unchanged.append(model)
    with pytest.raises(AddressError, match="has 4 channels"):
        with circuits.edit(model, [Ablate("1:2"), Ablate("1:4")]):
            pass
    with pytest.raises(EditError, match="use 'zero', 'mean' or 'resample'"):
        Ablate("1:2", to="median")  # type: ignore[arg-type]
    with pytest.raises(EditError, match="low=, high= or both"):
        Clamp("1:2")
    with pytest.raises(EditError, match="low 2 is above high 1"):
        Clamp("1:2", low=2, high=1)
    with circuits.edit(model, [Set("1:2", torch.zeros(5, 5))]), pytest.raises(EditError, match="does not fit 1:2"):
        model(images)


def test_an_exception_inside_takes_all_edits_back(model: circuits.Model, images: Tensor, unchanged: Watch) -> None:
    unchanged.append(model)
    clean = before(model, images)
    with pytest.raises(RuntimeError, match="mine"), circuits.edit(model, [Ablate("1:2")]):
        with circuits.edit(model, [Add("1:1", 1.0)]):
            raise RuntimeError("mine")
    assert torch.equal(before(model, images), clean)


class NotATensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nets.TwoOutputs()
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.conv(x)[1])
        return out


def test_a_module_that_gives_no_tensor_is_no_layer() -> None:
    for module in (NotATensor(), nets.Undecided(NotATensor())):
        assert not {"conv", "inner.conv"} & set(nets.wrap(module, 8).layers)


def test_edits_of_one_thread_wait_for_those_of_another(model: circuits.Model, images: Tensor) -> None:
    clean = before(model, images)
    inside, seen = threading.Event(), []

    def other() -> None:
        inside.wait(5)
        seen.append(before(model, images))

    thread = threading.Thread(target=other)
    thread.start()
    with circuits.edit(model, [Ablate("1")]):
        inside.set()
        thread.join(0.2)
        assert not seen  # it waits
    thread.join(10)
    assert torch.equal(seen[0], clean)


def test_edits_act_on_attribution_to_the_picture(planted: circuits.Model) -> None:
    options = {"source": "input", "target": f"objects:{nets.CAR}@12,16", "method": "grad*act"}
    with circuits.edit(planted, [Ablate(f"parts:{nets.BODY}"), Ablate(f"parts:{nets.TREE}")]):
        units = circuits.attribute(planted, nets.car_pictures(2), **options).values  # type: ignore[arg-type]
    assert float(units[:, :, nets.CAR_AT[0]].abs().max()) < 1e-6  # the row of the body says nothing any more
    assert float(units.sum(dim=1)[:, 10:12, 14:19].min()) > 0


@pytest.mark.parametrize("verb", ["weights", "attribute", "trace"])
def test_what_runs_a_part_of_the_network_waits_for_its_turn(verb: str, planted: circuits.Model) -> None:
    images, target = nets.car_pictures(2), f"objects:{nets.CAR}"
    work = {
        "weights": lambda: circuits.expanded_weights(planted, source="parts", target=target, method="vjp"),
        "attribute": lambda: circuits.attribute(planted, images, source="parts", target=target),
        "trace": lambda: circuits.trace(planted, target, images=images),
    }[verb]
    done = threading.Event()

    def other() -> None:
        work()
        done.set()

    thread = threading.Thread(target=other)
    with circuits.edit(planted, [Ablate("parts:0")]):
        thread.start()
        assert not done.wait(0.5), "it ran with another thread's edits in the network"
    thread.join(60)
    assert done.is_set()
