"""Transcoders as nodes of attribution graphs: worked out by hand, exact in sequence and beside SAEs, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import circuits
import sae
from circuits.errors import AddressError, CircuitsError
from circuits.network.model import Model
from tests.circuits.tracing.graphs.test_attribution_graph import sums

SPEC = circuits.InputSpec(size=6, channels=1, mean=(0.5,), std=(0.25,))
IMAGE = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(3))


class Chain(nn.Module):
    """Three rectified convolutions, the second with a stride, and scores of the mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.a = nn.Conv2d(1, 2, 1), nn.ReLU()
        self.conv2, self.b = nn.Conv2d(2, 3, 3, padding=1, stride=2), nn.ReLU()
        self.conv3, self.c = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()
        self.logits = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(self.conv3(self.b(self.conv2(self.a(self.conv1(x))))))
        return self.logits(x.mean((2, 3)))


def planted(model: Model, source: str, target: str, name: str, kind: str = "skip-transcoder") -> sae.SAE:
    """A transcoder of random numbers, attached: nothing of it is left to chance but the block it stands in for."""
    pair = sae.VisionPair(model, source, target)
    config = sae.TopK(latents=8, k=3, kind=kind)  # type: ignore[arg-type]
    built = sae.build(config, pair.widths[0], pair.widths[1])
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in [*built.parameters(), built.mean, built.target_mean]:
            assert parameter is not None
            parameter.copy_(torch.randn(parameter.shape, generator=random) * (0.5 if parameter.ndim == 2 else 0.1))
    pair.attach(name, built)
    return built


def chain() -> Model:
    return circuits.wrap(Chain().eval(), input=SPEC, name="chain", classes=["cat", "dog"])


def test_a_transcoder_worked_out_by_hand() -> None:
    """Latents, error, skip and biases in numpy, window by window; the layer read is cut, or not in the graph."""
    model = chain()
    net, t = model.module, planted(model, "b", "c", "t")
    b, c = (circuits.capture(model, IMAGE, name)[name][0].double().numpy() for name in ("b", "c"))
    padded = np.pad(b, ((0, 0), (1, 1), (1, 1)))
    windows = np.array([padded[:, y : y + 3, x : x + 3].transpose(1, 2, 0).ravel() for y in range(3) for x in range(3)])
    read, write, offset, bias, center = (
        v.detach().double().numpy() for v in (t.read, t.write, t.offset, t.encoder_bias, t.center)
    )
    assert t.skip is not None and t.target_scale is not None
    skip = (t.skip * t.scale / t.target_scale).detach().double().numpy()
    pre = (windows - center) @ read.T + bias
    latents = np.where(np.argsort(np.argsort(-pre, axis=1), axis=1) < 3, np.maximum(pre, 0), 0.0)
    rebuilt = latents @ write + offset + (windows - center) @ skip.T
    slope = net.logits.weight[0].detach().double().numpy() / 9  # of the score, by each channel at each position
    error = float(((c.reshape(4, 9).T - rebuilt) @ slope).sum())
    of_channel = np.arange(27) % 3

    graph = circuits.graph(model, IMAGE, "cat", layers=["b", "b..c~t"], keep=1.0)
    assert graph.layers == ("b", "b..c~t")

    def weight_of(source: str, target: str | None = None) -> float:
        return sum(e.weight for e in graph.into(target) if e.source == f"chain/{source}")

    near = {"abs": 1e-5}
    active = np.flatnonzero(latents.sum(axis=0)).tolist()
    assert len(active) > 2 and {n.unit for n in graph.nodes if n.layer == "b..c~t" and n.kind == "unit"} == {
        f"chain/b..c~t:{u}" for u in active
    }
    for u in active:
        on, gives = latents[:, u] > 0, float(write[u] @ slope)
        assert weight_of(f"b..c~t:{u}") == pytest.approx(gives * latents[:, u].sum(), **near)
        rest = gives * on.sum() * (bias[u] - read[u] @ center)
        assert graph.node(f"b..c~t:{u}").bias == pytest.approx(rest, **near)
        for k in range(3):
            through = gives * (windows[on] * read[u])[:, of_channel == k].sum()
            assert weight_of(f"b:{k}", f"b..c~t:{u}") == pytest.approx(through, **near)
    assert weight_of("b..c~t:error") == pytest.approx(error, **near)
    for k in range(3):
        past = (windows * (slope @ skip))[:, of_channel == k].sum()
        assert weight_of(f"b:{k}") == pytest.approx(past, **near)
    last = float(net.logits.bias[0].detach()) + 9 * float(slope @ (offset - skip @ center))
    assert graph.nodes[-1].bias == pytest.approx(last, **near)
    assert sums(graph) < 1e-5 and graph.unexplained < 1e-5

    alone = circuits.graph(model, IMAGE, "cat", dictionaries="t", keep=1.0, patches=6)
    assert alone.layers == ("b..c~t",) and sums(alone) < 1e-5
    for node in alone.strongest():
        assert node.value == pytest.approx(graph.node(node.unit).value, **near)
    assert 0 < alone.completeness < 1
    check = circuits.check_graph(model, alone, images=IMAGE)  # the score is linear in what latents write
    np.testing.assert_allclose(check.measured, check.predicted, atol=1e-5)
    twice = circuits.node_effect(model, alone, alone.strongest()[0].unit, images=IMAGE, factor=2.0)
    assert twice.measured == pytest.approx(alone.strongest()[0].value, abs=1e-5)


def test_transcoders_in_sequence_and_beside_saes_come_out() -> None:
    model = chain()
    planted(model, "a", "b", "first")
    planted(model, "b", "c", "second", "transcoder")
    model.attach("a", "parts", sae.build(sae.TopK(latents=6, k=1), 2))
    whole = circuits.graph(model, IMAGE, ("cat", "dog"), keep=1.0)
    assert whole.layers == ("a~parts", "a..b~first", "b..c~second")
    scores = model(IMAGE).detach()[0]
    assert whole.nodes[-1].value == pytest.approx(float(scores[0] - scores[1]), abs=1e-5)
    placed = circuits.graph(model, IMAGE, ("cat", "dog"), dictionaries=["first", "second"], positions=True, keep=1.0)
    for graph in (whole, placed):
        assert sums(graph) < 1e-5 and graph.unexplained < 1e-5
    last = nn.Sequential(
        model.module.logits
    )  # by hand: the score of the spliced network, without a latent of the first
    b, c = (circuits.capture(model, IMAGE, name)[name] for name in ("b", "c"))
    first, second = (model.basis(*key) for key in (("a..b", "first"), ("b..c", "second")))
    windows = [sae.VisionPair(model, *pair).window for pair in (("a", "b"), ("b", "c"))]
    rows = windows[0].of(circuits.capture(model, IMAGE, "a")["a"]).movedim(1, -1).flatten(0, 2)
    unit = next(n.unit for n in whole.strongest() if n.layer == "a..b~first")
    number = int(unit.rpartition(":")[2])
    less = b - (first.encode(rows)[:, number, None] * first.write[number]).T.reshape(b.shape)
    again = [second(windows[1].of(x).movedim(1, -1).flatten(0, 2)) for x in (b, less)]
    change = last((c.flatten(2)[0].T + again[1] - again[0]).mean(0)) - last(c.flatten(2)[0].T.mean(0))
    spliced = circuits.check_graph(model, whole, images=IMAGE, spliced=True)
    by_hand = float((change[0] - change[1]).detach())
    assert spliced.measured[spliced.units.index(unit)] == pytest.approx(by_hand, abs=1e-5) and abs(by_hand) > 1e-4
    units = [n.unit for n in placed.strongest() if n.layer == "a..b~first"]
    together = sum(placed.node(u).value for u in units if u.startswith(units[0].partition("@")[0]))
    assert together == pytest.approx(whole.node(units[0].partition("@")[0]).value, abs=1e-5)
    assert set(whole.to_networkx()) == {n.unit for n in whole.nodes} and whole.to_circuit_tracer()["links"]
    around = sae.VisionPair(model, "b", "b", patch=3)  # a convolutional SAE reads windows of what it reconstructs
    around.attach("wide", sae.build(sae.TopK(latents=8, k=2, kind="transcoder"), *around.widths))
    wide = circuits.graph(model, IMAGE, "cat", layers=["a", "b..b~wide", "b..c~second"], keep=1.0)
    assert sums(wide) < 1e-5 and any(n.kind == "unit" and n.layer == "b..b~wide" for n in wide.nodes)


def test_units_inside_of_a_block_are_refused() -> None:
    model = chain()
    planted(model, "a", "c", "long", "transcoder")
    planted(model, "b", "c", "short", "transcoder")
    for layers, reason in (
        (["b", "a..c~long"], "b lies inside of the block that a..c~long stands in for"),
        (["b..c~short", "a..c~long"], "c is named twice"),
        (["c", "a..c~long"], "c is named twice"),
    ):
        with pytest.raises(CircuitsError, match=reason):
            circuits.graph(model, IMAGE, "cat", layers=layers)
    planted(model, "a", "b", "start", "transcoder")
    planted(model, "a", "conv3", "other", "transcoder")
    with pytest.raises(CircuitsError, match=r"a\.\.conv3~other overlaps the block that a\.\.b~start"):
        circuits.graph(model, IMAGE, "cat", dictionaries=["start", "other"])
    with pytest.raises(AddressError, match="attached: a..c~long"):
        circuits.graph(model, IMAGE, "cat", dictionaries="nothing")
