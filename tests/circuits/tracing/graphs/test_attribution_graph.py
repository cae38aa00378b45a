"""Attribution graphs: a network worked out by hand, sums that come out on every kind of network, and refusals."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
import sae
from circuits.errors import CircuitsError, GraphError
from circuits.tracing.graphs.influence import graph_scores, influence

SPEC = circuits.InputSpec(size=4, channels=1, mean=(0.5,), std=(0.25,))


class TwoPaths(nn.Module):
    """Two detectors; their peak, and their mean past it; then two scores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 2, stride=2)
        self.detectors = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.mix = nn.Conv2d(2, 2, 1)
        self.mixed = nn.ReLU()
        self.logits = nn.Linear(4, 2)
        for p in self.parameters():
            p.requires_grad_(False)
        self.conv.weight[:] = torch.tensor([[[[1.0, -1.0], [0.5, 0.0]]], [[[-0.5, 1.0], [0.0, 2.0]]]])
        self.conv.bias[:] = torch.tensor([0.3, -0.2])
        self.mix.weight[:] = torch.tensor([[1.0, 0.5], [2.0, -1.5]])[:, :, None, None]
        self.mix.bias[:] = torch.tensor([0.1, 0.4])
        self.logits.weight[:] = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 1.0, 1.0, 1.0]])
        self.logits.bias[:] = torch.tensor([0.7, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        x = self.detectors(self.conv(x))
        peaks = self.mixed(self.mix(self.pool(x)))
        return self.logits(torch.cat([peaks, x.mean(dim=(2, 3), keepdim=True)], 1).flatten(1))


def test_a_network_worked_out_by_hand() -> None:
    """ReLU, max pool, biases, and a path that goes past the second layer, in numpy."""
    net = TwoPaths().eval()
    image = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    model = circuits.wrap(net, input=SPEC, name="two", classes=["cat", "dog"])
    graph = circuits.graph(model, image, "cat", layers=["detectors", "mixed"], keep=1.0)

    x = (image[0, 0].numpy() - 0.5) / 0.25
    patches = x.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)
    weight = net.conv.weight.numpy().reshape(2, 4)
    pre = patches @ weight.T + net.conv.bias.numpy()
    detectors = np.maximum(pre, 0)  # (positions, 2)
    peak = detectors.argmax(axis=0)
    mix, mix_bias = net.mix.weight.numpy()[:, :, 0, 0], net.mix.bias.numpy()
    mixed_pre = mix @ detectors.max(axis=0) + mix_bias
    on = mixed_pre > 0
    out = net.logits.weight.numpy()[0]
    slope = np.tile(out[2:] / 4, (4, 1))  # of the score by each detector at each position: by its mean,
    for c in range(2):  # and by its peak, through the mixed units that are on
        slope[peak[c], c] += (out[:2] * on * mix[:, c]).sum()
    of_input = (slope * (pre > 0)) @ weight * patches

    def weight_of(source: str, target: str | None = None) -> float:
        return sum(e.weight for e in graph.into(target) if e.source == f"two/{source}")

    assert graph.node("logits:0").value == pytest.approx(float(model(image)[0, 0]), abs=1e-5)
    for c in range(2):
        assert weight_of(f"mixed:{c}") == pytest.approx(float(out[c] * max(mixed_pre[c], 0)), abs=1e-5)
        assert weight_of(f"detectors:{c}") == pytest.approx(float(out[2 + c] * detectors[:, c].mean()), abs=1e-5)
        assert graph.node(f"detectors:{c}").value == pytest.approx(float((slope * detectors)[:, c].sum()), abs=1e-5)
        gate = (slope[:, c] * (pre[:, c] > 0)).sum()
        assert graph.node(f"detectors:{c}").bias == pytest.approx(float(gate * net.conv.bias[c]), abs=1e-5)
        for k in np.flatnonzero(on):
            expected = float(out[k] * mix[k, c] * detectors[:, c].max())
            assert weight_of(f"detectors:{c}", f"mixed:{k}") == pytest.approx(expected, abs=1e-5)
    for k in np.flatnonzero(on):
        assert graph.node(f"mixed:{k}").bias == pytest.approx(float(out[k] * mix_bias[k]), abs=1e-5)
    assert graph.node("logits:0").bias == pytest.approx(0.7, abs=1e-5)
    assert graph.node("input").value == pytest.approx(float(of_input.sum()), abs=1e-5)

    quarters = circuits.graph(model, image, "cat", layers=["detectors", "mixed"], keep=1.0, patches=2)
    for p in range(4):
        value = quarters.node(f"input@{p // 2},{p % 2}").value
        assert value == pytest.approx(float(of_input[p].sum()), abs=1e-5)
    placed = circuits.graph(model, image, "cat", layers=["detectors"], keep=1.0, positions=True)
    for node in placed.strongest():
        c, y, z = (int(part) for part in node.unit.rpartition(":")[2].replace("@", ",").split(","))
        assert node.value == pytest.approx(float((slope * detectors)[2 * y + z, c]), abs=1e-5)


def sums(graph: circuits.AttributionGraph) -> float:
    """The largest difference of a node's value from its edges and its bias, and of what it takes in from gives on."""
    inner = [i for i, n in enumerate(graph.nodes) if n.kind in ("unit", "rest", "target")]
    values, biases = (np.array([getattr(n, name) for n in graph.nodes]) for name in ("value", "bias"))
    taken = np.abs(graph.weights.sum(axis=1) + biases - values)[inner]
    given = np.abs(graph.weights.sum(axis=0) - values)[:-1]
    return float(max(taken.max(), given.max()))


def test_sums_come_out_with_latents_errors_several_images_and_pruned(tmp_path: Path) -> None:
    model = circuits.load("scenes")
    for seed, (layer, config) in enumerate(
        {"mixed3b": sae.TopK(latents=96, k=6), "mixed4a": sae.Gated(latents=64, l1=0.1)}.items()
    ):
        site = sae.VisionSite(model, layer)
        run = sae.train(sae.collect(site, "scenes:8").vectors, config, steps=20, batch_size=256, seed=seed)[0]
        site.attach("d", run.sae)
    graph = circuits.graph(model, "scenes:3", ("car", "dog_left"), layers=["mixed3a", "mixed3b~d", "mixed4a~d"])
    assert sums(graph) < 1e-4 and graph.unexplained < 1e-5
    assert {n.layer for n in graph.nodes if n.kind == "error"} == {"mixed3b~d", "mixed4a~d"}
    value = model.unit("logits:car").index, model.unit("logits:dog_left").index
    logits = circuits.capture(model, "scenes:3", "logits")["logits"][:, :, 0, 0]
    assert graph.nodes[-1].value == pytest.approx(float((logits[:, value[0]] - logits[:, value[1]]).mean()), abs=1e-4)
    whole = circuits.graph(
        model, "scenes:3", ("car", "dog_left"), layers=["mixed3a", "mixed3b~d", "mixed4a~d"], keep=1.0, batch_size=2
    )
    assert len(whole.nodes) > len(graph.nodes) and whole.completeness == pytest.approx(graph.completeness, abs=1e-6)
    kept = [n for n in graph.nodes if n.kind == "unit"]
    assert all(n.value == pytest.approx(whole.node(n.unit).value, abs=1e-4) for n in kept)
    assert circuits.AttributionGraph.load(graph.save(tmp_path / "graph.json")) == graph
    assert set(graph.to_networkx()) == {n.unit for n in graph.nodes}
    assert not graph.diff(graph).only_first and whole.diff(graph).both
    document = graph.to_circuit_tracer()
    ids = [node["node_id"] for node in document["nodes"]]
    assert len(set(ids)) == len(ids) and {link[end] for link in document["links"] for end in ("source", "target")} <= {
        *ids
    }
    incoming = sum(link["weight"] for link in document["links"] if link["target"] == ids[-1])
    assert incoming == pytest.approx(graph.nodes[-1].value - graph.nodes[-1].bias, abs=1e-4)
    assert max(node["influence"] for node in document["nodes"]) == pytest.approx(1.0)
    rest = graph.circuit(3).rest[0]
    assert rest.total + rest.bias == pytest.approx(rest.pre_activation, abs=1e-4)


def test_encoders_of_all_architectures_are_read_by_their_directions() -> None:
    """`reads` differentiates them at active latents: their rows of `read`, of a gated one stretched."""
    from circuits.tracing.ablation.sources import source_of
    from circuits.tracing.graphs.flows import Flows
    from circuits.tracing.target import target_of

    model = circuits.load("scenes")
    images = torch.rand(1, 3, *model.input.hw, generator=torch.Generator().manual_seed(0))
    for name, cls in sae.list_architectures().items():
        dictionary = sae.build(cls.Config(latents=32), model.layers["mixed3b"].channels)
        model.attach("mixed3b", name, dictionary)
        flows = Flows(model, target_of(model, "logits:0"), [source_of(model, f"mixed3b~{name}")], images)
        cut = flows.cuts[f"mixed3b~{name}"]
        one = torch.zeros_like(cut.acts)
        one[len(one) // 2] = 1.0
        read = cut.reads(one).movedim(1, -1).reshape(-1, cut.x.shape[1])[cut.rows[len(one) // 2]]
        if (
            name == "matching_pursuit"
        ):  # each latent reads what those before it leave: linear in the centered activations
            x = cut.x.detach().movedim(1, -1).reshape(-1, cut.x.shape[1])[cut.rows[len(one) // 2]]
            torch.testing.assert_close(read @ (x - dictionary.center), cut.acts[len(one) // 2], atol=1e-4, rtol=1e-3)
            continue
        torch.testing.assert_close(read, dictionary.read[cut.units[len(one) // 2]].detach(), atol=1e-5, rtol=1e-4)


class Everything(nn.Module):
    """Each operation that is held in a form of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.group, self.lrn, self.batch = nn.GroupNorm(2, 8), nn.LocalResponseNorm(3), nn.BatchNorm2d(8)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.norm, self.qkv = nn.LayerNorm(8), nn.Linear(8, 24)
        self.heads = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.group(self.stem(x)), inplace=True)
        x = self.batch(self.lrn(F.max_pool2d(x, 3, 2, 1)))
        x = F.silu(self.first(x)) + F.gelu(x)
        x = x * torch.sigmoid(self.excite(F.hardswish(self.squeeze(x.mean((2, 3), keepdim=True)))))
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        pattern = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1)
        tokens = tokens + self.heads(tokens, tokens, tokens, need_weights=False)[0]
        mixed = tokens + pattern @ v + F.scaled_dot_product_attention(q, k, v)
        ends = [F.softplus(mixed).mean(1), torch.tanh(mixed).amax(1), F.adaptive_max_pool2d(x, 1).flatten(1)]
        return self.last(torch.cat(ends, 1))


@pytest.mark.parametrize("layers", [["stem"], ["stem", "first"]])
def test_sums_come_out_through_every_operation(layers: list[str]) -> None:
    torch.manual_seed(0)
    model = circuits.wrap(Everything().eval(), input=circuits.InputSpec(size=8), name="every")
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    graph = circuits.graph(model, image, "logits:2", layers=layers, keep=1.0)
    assert sums(graph) < 1e-5
    assert graph.nodes[-1].value == pytest.approx(float(model(image).detach()[0, 2]), abs=1e-5)


class Bent(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.conv, self.relu, self.last = kind, nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        if self.kind == "square":
            x = x**2
        elif self.kind == "product":
            x = x * torch.roll(x, 1, 1)
        elif self.kind == "division":
            x = x / (1 + x.sum(1, keepdim=True))
        elif self.kind == "branch":
            x = F.silu(x) if float(x.detach().mean()) > 0 else F.relu(x)
        elif self.kind == "maximum":
            x = x.flatten(2).max(-1).values[..., None, None]
        return self.last(x.mean((2, 3)))


@pytest.mark.parametrize("kind", ["square", "product", "division", "branch", "maximum"])
def test_what_has_no_linear_form_is_refused(kind: str) -> None:
    torch.manual_seed(0)
    model = circuits.wrap(Bent(kind).eval(), input=SPEC, name="bent")
    image = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    with pytest.raises(GraphError):
        circuits.graph(model, image, "last:0", layers=["relu"])


def test_targets_and_layers_that_are_refused() -> None:
    model = circuits.wrap(TwoPaths().eval(), input=SPEC, name="two", classes=["cat", "dog"])
    black = torch.zeros(1, 1, 4, 4)
    for target, options in (
        ("predictions", {}),
        ("detectors:1", {"layers": ["mixed"]}),
        ("cat", {"layers": ["nowhere"]}),
        ("lion", {}),
        ("cat", {"keep": 0.0}),
        ("detectors:1", {}),
        ("cat", {"layers": [3]}),
    ):
        with pytest.raises(CircuitsError):
            circuits.graph(model, black, target, **options)
    two = circuits.wrap(TwoPaths().eval(), input=SPEC, name="cranes", classes=["crane", "Crane"])
    with pytest.raises(CircuitsError, match="classes 0 and 1 named 'crane'"):
        circuits.graph(two, black, "crane")
    with torch.no_grad():
        next(model.module.parameters()).fill_(float("nan"))
    with pytest.raises(GraphError, match="not finite"):
        circuits.graph(model, black, "cat")


def test_influence_and_scores_are_those_of_the_formula() -> None:
    """Input 0, error 1, unit 2, target 3: the target takes 3 of 4 from the unit, the unit half from the error."""
    weights = np.zeros((4, 4))
    weights[2, [0, 1]] = 1.0, -1.0
    weights[3, [1, 2]] = -1.0, 3.0
    np.testing.assert_allclose(influence(weights, 3), [0.375, 0.625, 0.75, 0.0])
    inputs, errors = np.array([True, False, False, False]), np.array([False, True, False, False])
    replacement, completeness = graph_scores(weights, 3, inputs=inputs, errors=errors)
    assert replacement == pytest.approx(0.375)
    # target .75 of 1, unit .5 of .75, input and error 1 of theirs
    assert completeness == pytest.approx((0.75 + 0.5 * 0.75 + 0.375 + 0.625) / (1 + 0.75 + 0.375 + 0.625))


def test_silencing_a_unit_changes_a_linear_network_by_what_the_graph_predicts() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 12, 2), nn.Flatten(1), nn.Linear(108, 3)).eval()
    model = circuits.wrap(net, input=SPEC, name="linear")
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    graph = circuits.graph(model, images, "logits:1", layers=["0"], width=4)
    check = circuits.check_graph(model, graph, images=images, n=4)
    np.testing.assert_allclose(check.measured, check.predicted, atol=1e-5)
    assert check.correlation == pytest.approx(1.0) and sum(check.strong) * 2 == len(check.units)
    again = circuits.check_graph(model, graph, images=images, n=4)
    assert again.describe() == check.describe()
    with pytest.raises(CircuitsError, match="give its own images"):
        circuits.check_graph(model, graph, images=images[:2])
    with torch.no_grad():
        net[0].weight.mul_(2)
    with pytest.raises(CircuitsError, match="other weights"):
        circuits.check_graph(circuits.wrap(net, input=SPEC, name="linear"), graph, images=images)


def test_a_network_of_half_precision_is_told_to_take_more() -> None:
    model = circuits.load("scenes")
    half = circuits.wrap(copy.deepcopy(model.module).half(), input=model.input)
    with pytest.raises(GraphError, match=r"in float16 .* module.float\(\)"):
        circuits.graph(half, "scenes:1", "logits:0")
