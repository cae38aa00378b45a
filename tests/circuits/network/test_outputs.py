"""Networks that give dictionaries, tuples or several heads: which of them is meant is said, never guessed."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
from circuits.errors import CircuitsError, ModelError
from tests import nets

SPEC = circuits.InputSpec(size=16)


class Pair(NamedTuple):
    scores: Tensor
    features: Tensor


@dataclass
class Result:
    logits: Tensor
    hidden: Tensor


class Heads(nn.Module):
    """Ten main classes, and an auxiliary head that runs last."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.main = nn.Linear(6, 10)
        self.aux = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.relu(self.conv(x)).mean((2, 3))
        main, aux = self.main(x), self.aux(x)
        match self.form:
            case "dictionary":
                return {"out": main.softmax(1), "aux": aux}
            case "tuple":
                return main.softmax(1), [aux]
            case "named tuple":
                return Pair(main.softmax(1), aux)
            case "data class":
                return Result(main.softmax(1), aux)
        return main


@pytest.mark.parametrize("traced", [True, False], ids=["graph", "no graph"])
@pytest.mark.parametrize(
    ("form", "main", "aux"),
    [
        ("dictionary", "out", "aux"), ("tuple", 0, "1.0"), ("named tuple", "scores", "features"),
        ("named tuple", 0, 1), ("data class", "logits", "hidden"),
    ],
)  # fmt: skip
def test_the_class_scores_are_those_of_the_output_that_is_named(
    form: str, main: str | int, aux: str | int, traced: bool
) -> None:
    net = nets.randomized(Heads(form))
    net = net if traced else nets.Undecided(net).eval()
    images = nets.pictures(3)
    with torch.no_grad():
        whole = net(images)
    at = "" if traced else "inner."
    for output, layer, count in ((main, "main", 10), (aux, "aux", 4)):
        model = circuits.wrap(net, SPEC, output=output, classes=[str(i) for i in range(count)])
        assert model.logits == f"{at}{layer}" and model.layer("logits").channels == count
        assert model(images).shape == (3, count)
        if form == "dictionary":
            assert torch.equal(model(images), whole[output])
        again = copy.deepcopy(model)
        assert again.logits == model.logits and again.output == output
    with pytest.raises(ModelError, match=r"gives 2 outputs \('.*', '.*'\): say which"):
        circuits.wrap(net, SPEC).logits  # noqa: B018
    assert circuits.wrap(net, SPEC).class_scores is None


@pytest.mark.parametrize("output", ["nope", 7, "out.3"])
def test_an_output_that_is_not_there_is_refused_with_those_that_are(output: str | int) -> None:
    with pytest.raises(ModelError, match="selects nothing: the network gives 'out', 'aux'"):
        circuits.wrap(nets.randomized(Heads("dictionary")), SPEC, output=output)
    with pytest.raises(ModelError, match="a single tensor"):
        circuits.wrap(nets.randomized(Heads("plain")), SPEC, output=output)
    with pytest.raises(ModelError, match=r"is no tensor; take one of 1.0"):
        circuits.wrap(nets.randomized(Heads("tuple")), SPEC, output=1)


def test_an_auxiliary_head_of_one_output_is_not_taken_for_the_class_scores() -> None:
    class Last(Heads):
        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.conv(x)).mean((2, 3))
            main = self.main(x)
            self.aux(x)
            return main

    net = nets.randomized(Last(""))
    assert circuits.wrap(net, SPEC).logits == "main"
    untraced = circuits.wrap(nets.Undecided(net).eval(), SPEC)
    scores = circuits.capture(untraced, nets.pictures(2), at="logits")["logits"].flatten(1)
    torch.testing.assert_close(scores, net(nets.pictures(2)).detach())


def test_several_inputs_are_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match="wrap a module with one tensor input") as error:
        circuits.wrap(nets.TwoInputs().eval(), SPEC)
    assert "\n" not in str(error.value)


class Segmenter(nn.Module):
    """As torchvision's: class maps at half the size, enlarged, in a dictionary; pooled context on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.context = nn.Conv2d(6, 6, 1)
        self.classifier = nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        size = x.shape[-2:]
        x = self.relu(self.backbone(x))
        x = self.classifier(x + self.context(self.pool(x)))
        return {"out": F.interpolate(x, size=size, mode="bilinear", align_corners=False)}


@pytest.mark.parametrize("traced", [True, False], ids=["graph", "no graph"])
def test_class_maps_are_traced_like_any_unit(traced: bool) -> None:
    net = nets.randomized(Segmenter())
    model = circuits.wrap(net if traced else nets.Undecided(net).eval(), SPEC, output="out", name="maps")
    at = "" if traced else "inner."
    assert model.logits == f"{at}classifier" and model.layer("logits").size == (8, 8)
    images = nets.pictures(4)
    assert model(images).shape == (4, 5, 16, 16)
    # the size of the image that is taken for later, and other heads, are no paths past the trunk
    assert model.trunk[0] == f"{at}relu"
    circuit = circuits.trace(
        model, "logits:3@4,5", images=images, width=4, by="attribution", layers=[f"{at}relu"], n_positions=4
    )
    with torch.enable_grad():
        acts = net.relu(net.backbone(images)).detach().requires_grad_()  # type: ignore[operator]
        maps = net.classifier(acts + net.context(net.pool(acts)))  # type: ignore[operator]
        (gradient,) = torch.autograd.grad(maps[:, 3, 4, 5].sum(), acts)
    active = maps[:, 3, 4, 5] > 0
    expected = (gradient * acts).sum((2, 3)).detach()[active].mean(0)
    assert bool(active.any()) and len(circuit.edges) == 4
    for edge in circuit.edges:
        channel = circuits.Unit.parse(edge.source).index
        assert channel is not None
        torch.testing.assert_close(edge.strength, float(expected[channel]), rtol=1e-4, atol=1e-6)


class Detector(nn.Module):
    """A head that is applied to rows: all positions, or the seven brightest, which are no positions of an image."""

    def __init__(self, proposals: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)
        self.proposals = proposals

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        n, c, h, w = x.shape
        rows = x.flatten(2)
        if self.proposals:
            best = rows.sum(1).topk(7).indices
            rows = rows.gather(2, best[:, None].expand(n, c, 7))
        rows = self.head(rows.transpose(1, 2).reshape(-1, c))
        out: Tensor = rows.view(n, -1, 4)
        return out if self.proposals else out.transpose(1, 2).reshape(n, 4, h, w)


@pytest.mark.parametrize("traced", [True, False], ids=["graph", "no graph"])
def test_rows_are_read_as_maps_or_refused(traced: bool) -> None:
    at, images = "" if traced else "inner.", nets.pictures(3)
    net = nets.randomized(Detector(False))
    model = circuits.wrap(net if traced else nets.Undecided(net).eval(), SPEC)
    torch.testing.assert_close(circuits.capture(model, images, at=f"{at}head")[f"{at}head"], net(images).detach())
    net = nets.randomized(Detector(True))
    model = circuits.wrap(net if traced else nets.Undecided(net).eval(), SPEC)
    with pytest.raises(CircuitsError, match="head"):
        circuits.capture(model, images, at=f"{at}head")
