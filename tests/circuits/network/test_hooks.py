"""Captures are what the network computed, no more of it runs than was asked for, and nothing stays behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
from circuits.errors import AddressError, CaptureError, ImageError, ModelError
from circuits.network.hooks import read, stream, visit
from tests import nets

Watch = list[circuits.Model]


def test_in_place_rectifiers_do_not_overwrite_what_was_captured(unchanged: Watch) -> None:
    block = nets.randomized(nets.Residual(3))
    model = nets.wrap(block, 8)
    unchanged.append(model)
    images = nets.pictures(3, 8)
    acts = circuits.capture(model, images, ["conv1", "bn1", "relu.call0", "conv2", "bn2", "relu.call1"])
    with torch.no_grad():
        bn1 = block.bn1(F.conv2d(images, block.conv1.weight, padding=1))
        bn2 = block.bn2(F.conv2d(bn1.clamp_min(0), block.conv2.weight, padding=1))
    assert float(bn1.min()) < 0
    torch.testing.assert_close(acts["bn1"], bn1)
    torch.testing.assert_close(acts["relu.call0"], bn1.clamp_min(0))
    torch.testing.assert_close(acts["bn2"], bn2)
    torch.testing.assert_close(acts["relu.call1"], (bn2 + images).clamp_min(0))


@pytest.mark.parametrize("lone", ["conv1", "bn1", "bn2", "relu.call0"])
def test_one_layer_alone_is_captured_as_among_others(lone: str) -> None:
    model = nets.wrap(nets.randomized(nets.Residual(3)), 8)
    images = nets.pictures(2, 8)
    everything = circuits.capture(model, images, [n for n in model.layers if n != "add"])
    torch.testing.assert_close(circuits.capture(model, images, lone)[lone], everything[lone])


def test_functional_in_place_rectifiers_and_sums_are_captured_before_and_after(unchanged: Watch) -> None:
    module = nets.randomized(nets.Functional())
    model = nets.wrap(module)
    unchanged.append(model)
    images = nets.pictures(2)
    acts = circuits.capture(model, images, ["a", "relu", "max_pool2d", "b", "relu_", "c", "relu_1", "fc"])
    with torch.no_grad():
        a = module.a(images)
        pooled = F.max_pool2d(a.clamp_min(0), 2)
        b = module.b(pooled)
        after = (b + pooled).clamp_min(0)
        c = module.c(after)
    for name, value in {"a": a, "relu": a.clamp_min(0), "max_pool2d": pooled, "b": b, "relu_": after, "c": c}.items():
        torch.testing.assert_close(acts[name], value)
    with torch.no_grad():
        torch.testing.assert_close(acts["fc"][:, :, 0, 0], module(images))


class Overwriting(nn.Module):
    """Reads what an activation wrote into, by its old name, once more."""

    def __init__(self, activation: Callable[[Tensor], object], *, part: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.activation, self.part = activation, part

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.b(x)
        self.activation(x[:, 1:3] if self.part else x)
        y = y + x
        return self.fc(y.sum((2, 3)))


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(True),
        nn.Hardtanh(0.0, 0.5, True),
        torch.relu_,
        lambda x: F.leaky_relu(x, 0.1, True),
        lambda x: x.sigmoid_(),
    ],
)
def test_what_is_overwritten_is_read_as_it_was_written(activation: Callable[[Tensor], object]) -> None:
    module = nets.randomized(Overwriting(activation))
    model, images = nets.wrap(module), nets.pictures(2)
    assert model.graph is not None
    with torch.no_grad():
        a, scores = module.a(images), module(images)
        b, y = module.b(a), a.clone()
        activation(y)
    acts = circuits.capture(model, images, ["a", "add", "fc"])  # a sum among them: through the graph
    torch.testing.assert_close(acts["a"], a)
    torch.testing.assert_close(acts["add"], b + y)
    torch.testing.assert_close(acts["fc"][:, :, 0, 0], scores)
    explained = circuits.graph(model, images, "fc:0", layers=["a", "add"])
    assert explained.nodes[-1].value == pytest.approx(float(scores[:, 0].mean()), rel=1e-5)


def test_a_part_that_is_overwritten_is_left_to_hooks() -> None:
    module = nets.randomized(Overwriting(torch.relu_, part=True))
    model, images = nets.wrap(module), nets.pictures(2)
    assert model.graph is None
    torch.testing.assert_close(circuits.capture(model, images, "fc")["fc"][:, :, 0, 0], module(images).detach())


def test_hooks_and_graph_give_the_same_activations(unchanged: Watch) -> None:
    inner = nets.randomized(nets.Functional())
    traced, untraced = nets.wrap(inner), nets.wrap(nets.Undecided(inner))
    unchanged.append(untraced)
    images = nets.pictures(2)
    for name in ("a", "b", "c", "fc"):
        ours = circuits.capture(traced, images, [name, "relu"])[name]  # a function among them: through the graph
        torch.testing.assert_close(ours, circuits.capture(untraced, images, f"inner.{name}")[f"inner.{name}"])


def test_each_call_of_a_module_that_runs_twice_is_captured_on_its_own(unchanged: Watch) -> None:
    module = nets.randomized(nets.Twice())
    model = nets.wrap(module)
    unchanged.append(model)
    images = nets.pictures(2)
    acts = circuits.capture(model, images, ["again.call0", "again.call1", "relu.call1"])
    with torch.no_grad():
        first = module.again(module.first(images).clamp_min(0))
        torch.testing.assert_close(acts["again.call0"], first)
        torch.testing.assert_close(acts["relu.call1"], first.clamp_min(0))
        torch.testing.assert_close(acts["again.call1"], module.again(first.clamp_min(0)))
    for name in ("again.call0", "again.call1"):
        torch.testing.assert_close(circuits.capture(model, images, name)[name], acts[name])
    with pytest.raises(AddressError, match="runs 2 times; name one of"):
        circuits.capture(model, images, "again")


class Varying(nn.Module):
    """A convolution that runs once on dark pictures, and as often as it is told on bright ones."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Conv2d(3, 2, 1)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        out = self.stem(x)
        for _ in range(self.times if float(x.detach().mean()) > 0.9 else 1):
            out = self.conv(out)
        return self.last(out)


def test_a_layer_that_did_not_run_is_an_error_not_silence(unchanged: Watch) -> None:
    model = nets.wrap(Varying(0), 8)
    unchanged.append(model)
    bright = torch.ones(2, 3, 8, 8)
    with pytest.raises(CaptureError, match="conv did not run"):
        circuits.capture(model, bright, ["conv", "last"])
    with circuits.edit(model, [circuits.Ablate("conv")]):
        model(bright * 0.5)
        with pytest.raises(CaptureError, match="conv is edited, but did not run"):
            model(bright)
        circuits.capture(model, bright, "stem")  # a pass that stops before it may leave it out


def test_a_layer_that_ran_more_often_than_it_was_seen_to_is_an_error(unchanged: Watch) -> None:
    model = nets.wrap(Varying(3), 8)
    unchanged.append(model)
    bright = torch.ones(2, 3, 8, 8)
    with pytest.raises(CaptureError, match="conv ran more than once"):
        circuits.capture(model, bright, ["conv", "last"])
    with circuits.edit(model, [circuits.Ablate("conv")]), pytest.raises(CaptureError, match="conv ran more than once"):
        model(bright)


def test_the_forward_pass_stops_at_the_deepest_layer_asked_for() -> None:
    counters = [nets.Counting() for _ in range(3)]
    module = nets.sequential(
        nn.Conv2d(3, 3, 1), counters[0], nn.Conv2d(3, 3, 1), counters[1], nn.Conv2d(3, 3, 1), counters[2]
    )
    model = nets.wrap(module, 8)
    for counter in counters:
        counter.runs = 0
    circuits.capture(model, nets.pictures(4, 8), ["2", "0"], batch_size=2)
    assert [c.runs for c in counters] == [2, 0, 0]
    circuits.capture(model, nets.pictures(4, 8), ["2", "4"])
    assert [c.runs for c in counters] == [3, 1, 0]


def test_captures_are_copies(unchanged: Watch) -> None:
    model = nets.wrap(nets.sequential(nn.Identity(), nn.Conv2d(3, 3, 1), nn.Identity()), 8)
    unchanged.append(model)
    images = nets.pictures(2, 8)
    kept = images.clone()
    acts = circuits.capture(model, images, ["0", "1", "2"])
    for value in acts.values():
        value.zero_()
    torch.testing.assert_close(images, kept)
    assert float(circuits.capture(model, images, "1")["1"].abs().max()) > 0


def test_gradients_flow_back_to_what_was_read(unchanged: Watch) -> None:
    module = nets.sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3))
    model = nets.wrap(module, 8)
    unchanged.append(model)
    layers = [model.layers[n] for n in ("0", "1", "2")]
    acts = read(model, nets.pictures(1, 8).requires_grad_(True), layers)
    before, after = torch.autograd.grad(acts["2"].sum(), [acts["0"], acts["1"]])
    torch.testing.assert_close(before, after * (acts["0"] > 0))
    assert float((acts["0"] < 0).sum()) > 0


def test_a_stream_yields_batches_in_order(inception: circuits.Model) -> None:
    images = nets.pictures(5, 64)
    whole = circuits.capture(inception, images, "mixed3a")["mixed3a"]
    parts = list(stream(inception, images, ["mixed3a"], batch_size=2))
    assert [indices for indices, _ in parts] == [[0, 1], [2, 3], [4]]
    torch.testing.assert_close(torch.cat([acts["mixed3a"] for _, acts in parts]), whole)


def test_captures_go_by_the_names_asked_for(inception: circuits.Model) -> None:
    acts = circuits.capture(inception, nets.pictures(1, 64), ["Mixed3A", "mixed3a_5x5", "logits"])
    assert list(acts) == ["Mixed3A", "mixed3a_5x5", "logits"]
    torch.testing.assert_close(acts["mixed3a_5x5"], acts["Mixed3A"][:, 7:10])
    assert acts["logits"].shape == (1, 5, 1, 1)


def test_nothing_to_capture_is_an_error(inception: circuits.Model) -> None:
    with pytest.raises(CaptureError, match="name at least one layer"):
        circuits.capture(inception, nets.pictures(1, 64), [])
    with pytest.raises(AddressError, match="no layer 'mixed9z'"):
        circuits.capture(inception, nets.pictures(1, 64), ["mixed3a", "mixed9z"])


BAD_PICTURES: dict[str, Callable[[], object]] = {
    "four channels": lambda: torch.rand(2, 4, 8, 8),
    "no channels": lambda: torch.rand(2, 8, 8),
    "empty batch": lambda: torch.rand(0, 3, 8, 8),
    "out of range": lambda: torch.rand(2, 3, 8, 8) * 255,
    "not a number": lambda: torch.full((1, 3, 8, 8), float("nan")),
    "integers": lambda: torch.zeros(2, 3, 8, 8, dtype=torch.int64),
    "booleans": lambda: torch.zeros(2, 3, 8, 8, dtype=torch.bool),
    "nothing": lambda: None,
    "empty list": list,
}


@pytest.mark.parametrize("kind", list(BAD_PICTURES))
def test_bad_pictures_are_refused_with_one_line_and_leave_nothing_behind(kind: str, unchanged: Watch) -> None:
    model = nets.wrap(nets.sequential(nn.Conv2d(3, 3, 1)), 8)
    unchanged.append(model)
    with pytest.raises(ImageError) as caught:
        circuits.capture(model, BAD_PICTURES[kind](), "0")
    assert len(str(caught.value)) < 300


def test_calling_a_model_checks_what_it_is_given() -> None:
    model = nets.wrap(nets.sequential(nn.Conv2d(3, 3, 1)), 8)
    for bad in (
        torch.rand(2, 4, 8, 8),
        torch.rand(3, 8, 8),
        torch.rand(0, 3, 8, 8),
        torch.zeros(1, 3, 8, 8).int(),
        "x",
    ):
        with pytest.raises(ModelError):
            model(bad)  # type: ignore[arg-type]


def test_an_error_in_the_users_own_forward_leaves_nothing_behind(unchanged: Watch) -> None:
    failing = nets.Failing()
    model = nets.wrap(nets.sequential(nn.Conv2d(3, 3, 1), failing, nn.Conv2d(3, 3, 1)), 8)
    unchanged.append(model)
    failing.fail = True
    images = nets.pictures(2, 8)
    with pytest.raises(ValueError, match="own forward failed"):
        circuits.capture(model, images, ["0", "2"])
    with pytest.raises(ValueError, match="own forward failed"), circuits.edit(model, [circuits.Ablate("0:1")]):
        model(images)
    with pytest.raises(ValueError, match="own forward failed"):
        circuits.example_weights(model, images, source="0", target="2:1")
    failing.fail = False
    circuits.capture(model, images, ["0", "2"])


def test_an_interrupt_leaves_nothing_behind(unchanged: Watch) -> None:
    model = nets.wrap(nets.sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), 8)
    unchanged.append(model)
    with pytest.raises(KeyboardInterrupt), circuits.edit(model, [circuits.Ablate("0:1")]):
        raise KeyboardInterrupt
    images = nets.pictures(3, 8)
    for _ in stream(model, images, ["1"], batch_size=1):
        break  # a stream that is left early
    assert nets.hook_count(model.module) == 0


@pytest.mark.parametrize("net", [nets.Residual(3), nets.Functional(), nets.Twice()], ids=lambda n: type(n).__name__)
def test_a_visitor_sees_what_is_read_each_layer_once(net: nn.Module, unchanged: Watch) -> None:
    model = nets.wrap(nets.randomized(net), 16)
    unchanged.append(model)
    images = nets.pictures(2, 16)
    names = [n for n in nets.every_layer(model) if model.layers[n].part is None]
    seen: dict[str, Tensor] = {}

    def look(name: str, values: Tensor) -> None:
        assert name not in seen
        seen[name] = values.clone()

    with torch.no_grad():
        visit(model, images, names, look)
        expected = read(model, images, [model.layers[n] for n in names])
    assert set(seen) == set(names)
    for name, values in expected.items():
        torch.testing.assert_close(seen[name].reshape(values.shape), values)


@pytest.mark.parametrize("net", [nets.Residual(3), nets.Functional()], ids=lambda n: type(n).__name__)
def test_a_visitor_sees_edited_activations(net: nn.Module, unchanged: Watch) -> None:
    model = nets.wrap(nets.randomized(net), 16)
    unchanged.append(model)
    images = nets.pictures(2, 16)
    last = [n for n in nets.every_layer(model) if model.layers[n].kind == "relu"][-1]
    seen: list[Tensor] = []
    with circuits.edit(model, [circuits.Set(f"{last}:1", 5.0)]):
        visit(model, images, [last], lambda _, values: seen.append(values.detach().clone()))
        expected = circuits.capture(model, images, last)[last]
    assert float((seen[0][:, 1] - 5.0).abs().max()) == 0
    torch.testing.assert_close(seen[0], expected)


def test_a_visitor_that_fails_leaves_nothing_behind(unchanged: Watch) -> None:
    model = nets.wrap(nets.randomized(nets.Residual(3)), 8)
    unchanged.append(model)

    def fail(name: str, values: Tensor) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        visit(model, nets.pictures(2, 8), ["bn1", "bn2"], fail)
    assert nets.hook_count(model.module) == 0
