"""Networks of sequences (Conv1d) and of volumes (Conv3d): every value is what plain hooks and autograd give."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import circuits
import sae
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from tests.nets import randomized


class Net(nn.Module):
    """A residual network with batch norm and max pooling, over one or three axes; `traced=False` hides it from fx."""

    def __init__(self, dims: int, traced: bool) -> None:
        super().__init__()
        self.dims, self.traced = dims, traced
        conv, norm, pool = (
            (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d) if dims == 1 else (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d)
        )
        self.stem = nn.Sequential(conv(2, 6, 3, stride=2, padding=1), norm(6), nn.ReLU())
        self.down = nn.Sequential(conv(6, 8, 3, padding=1), nn.ReLU(), pool(2))
        self.block = nn.Sequential(conv(8, 8, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if not self.traced and bool((x > 1e9).any()):
            return x
        x = self.down(self.stem(x))
        x = self.block(x) + x
        out: Tensor = self.fc(x.flatten(2).mean(2))
        return out


@dataclass
class Case:
    model: circuits.Model
    images: Tensor

    def hooked(self, layer: str, images: Tensor | None = None) -> Tensor:
        """Output of a module by a plain hook, in the network's own shape."""
        outputs: list[Tensor] = []
        handle = self.model.module.get_submodule(layer).register_forward_hook(lambda m, i, out: outputs.append(out))
        spec = self.model.input
        x = (self.images if images is None else images) * (spec.range[1] - spec.range[0]) + spec.range[0]
        self.model.module((x - 0.5) / 0.25)
        handle.remove()
        return outputs[0]

    def at(self, written: tuple[int, ...]) -> str:
        return ",".join(map(str, written))


@pytest.fixture(params=[(1, True), (1, False), (3, True), (3, False)], ids=["1d", "1d-hooks", "3d", "3d-hooks"])
def case(request: pytest.FixtureRequest) -> Case:
    dims, traced = request.param
    size = (48,) if dims == 1 else (8, 12, 16)
    spec = circuits.InputSpec(size=size, channels=2, mean=(0.5,), std=(0.25,), range=(-1.0, 3.0))
    model = circuits.wrap(randomized(Net(dims, traced)), spec, name="net")
    assert (model.graph is not None) is traced
    return Case(model, torch.rand((6, 2, *size), generator=torch.Generator().manual_seed(1)))


LAYERS = ["stem", "down", "block"]


def _folded(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], -1, x.shape[-1])


def test_activations_are_those_of_plain_hooks_bit_for_bit(case: Case) -> None:
    acts = circuits.capture(case.model, case.images, at=[*LAYERS, "fc"])
    for name in LAYERS:
        assert torch.equal(acts[name], _folded(case.hooked(name).detach()))
    assert torch.equal(acts["fc"].flatten(1), case.hooked("fc"))
    assert torch.equal(case.model(case.images), case.hooked("fc"))


def test_an_address_names_the_position_as_the_network_does(case: Case) -> None:
    written = (5,) if case.model.input.dims == 1 else (1, 2, 3)
    unit = case.model.unit(f"down:3@{case.at(written)}")
    assert str(unit) == f"net/down:3@{case.at(written)}"
    assert case.model.resolve(unit) == unit == case.model.resolve(Unit.parse(str(unit)))
    y, x = unit.at or ()
    acts = circuits.capture(case.model, case.images, at="down")["down"]
    assert torch.equal(acts[:, 3, y, x], case.hooked("down")[(slice(None), 3, *written)])
    outside = case.at((100,) if len(written) == 1 else (1, 100, 3))
    with pytest.raises(CircuitsError, match="positions; got"):
        case.model.unit(f"down:3@{outside}")
    wrong = "1,2,3" if len(written) == 1 else "4"
    with pytest.raises(CircuitsError, match=r"positions of net/down are @(t|z,y,x); got"):
        case.model.unit(f"down:3@{wrong}")


def test_an_edit_of_a_position_changes_that_position_alone(case: Case) -> None:
    written = (5,) if case.model.input.dims == 1 else (1, 2, 3)

    def ablated(module: nn.Module, inputs: Any, out: Tensor) -> Tensor:
        out = out.clone()
        out[(slice(None), 3, *written)] = 0
        return out

    handle = case.model.module.get_submodule("down").register_forward_hook(ablated)
    right = case.hooked("fc")
    handle.remove()
    for change in (circuits.Ablate(f"down:3@{case.at(written)}"), circuits.Ablate("down:3", positions=[written])):
        with circuits.edit(case.model, [change]):
            assert torch.equal(case.model(case.images), right)
    assert not torch.equal(case.model(case.images), right)


@pytest.mark.parametrize("source", ["input", "stem"])
def test_attribution_is_gradient_times_activation(case: Case, source: str) -> None:
    written = (4,) if case.model.input.dims == 1 else (1, 1, 2)
    by_verb = circuits.attribute(case.model, case.images, source=source, target=f"block.0:2@{case.at(written)}")
    same = circuits.attribute(case.model, case.images, source=source, target="block.0:2", at=written)
    assert torch.equal(by_verb.values, same.values)
    leaf = (case.images.clone() if source == "input" else case.hooked("stem").detach()).requires_grad_()
    if source == "input":
        target = case.hooked("block.0", leaf)
    else:
        target = case.model.module.block[0](case.model.module.down(leaf))  # type: ignore[union-attr, operator, index]
    (gradient,) = torch.autograd.grad(target[(slice(None), 2, *written)].sum(), leaf)
    torch.testing.assert_close(by_verb.values, _folded((gradient * leaf).detach()), rtol=1e-4, atol=1e-6)


def test_trace_by_attribution_gives_the_attribution_of_each_source(case: Case) -> None:
    acts = _folded(case.hooked("block").detach()).amax((2, 3))
    unit = int(acts.amin(0).argmax())
    assert acts[:, unit].min() > 0
    circuit = circuits.trace(
        case.model, f"block:{unit}", images=case.images, layers=["stem"], by="attribution", width=6,
        n_positions=len(case.images), n_examples=1,
    )  # fmt: skip
    right = circuits.attribute(case.model, case.images, source="stem", target=f"block:{unit}").units.mean(0)
    assert circuit.edges
    for edge in circuit.edges:
        assert edge.strength == pytest.approx(float(right[Unit.parse(edge.source).index or 0]), rel=1e-3, abs=1e-6)


def test_a_trace_gives_what_each_source_has_above_its_mean(case: Case) -> None:
    """Where the target is linear in its sources at the peak, gradient x (activation - mean) is the whole."""
    acts = _folded(case.hooked("stem").detach())
    target = _folded(case.hooked("block").detach())
    unit = int(target.amax((2, 3)).amin(0).argmax())
    circuit = circuits.trace(case.model, f"block:{unit}", images=case.images, layers=["stem"], width=6)
    assert circuit.by == "gradient" and 0 < len(circuit.edges) <= 6
    (rest,) = circuit.rest
    response = target[:, unit].flatten(1).amax(1)
    assert rest.total + rest.bias == pytest.approx(float(response[response > 0].mean()), rel=2e-2)
    means = {e.source: float(acts[:, Unit.parse(e.source).index or 0].mean()) for e in circuit.edges}
    assert all(value != 0 for value in means.values()) and rest.bias != 0


def test_scan_and_find_give_the_statistics_of_the_activations(case: Case, tmp_path: Path) -> None:
    maps = _folded(case.hooked("down").detach())
    scan = circuits.scan(case.model, case.images, tmp_path, layers=["down"]).layer("down")
    assert torch.equal(torch.from_numpy(scan.maximum.copy()), maps.amax((0, 2, 3)))
    torch.testing.assert_close(torch.from_numpy(scan.mean).float(), maps.mean((0, 2, 3)))
    results = circuits.find(case.model, positive=case.images[:3], negative=case.images[3:], layer="down", intervals=0)
    for row in results.rows:
        unit = Unit.parse(row.unit).index or 0
        assert row.mean_positive == pytest.approx(float(maps[:3, unit].amax((1, 2)).mean()))


@cache
def _trained() -> sae.SAE:
    model = circuits.wrap(randomized(Net(1, traced=True)), circuits.InputSpec(size=(48,), channels=2))
    stream = sae.VisionSite(model, "down").stream(torch.rand(6, 2, 48), batch_size=16)
    return sae.train(stream, sae.TopK(latents=16, k=2), steps=3)[0].sae


def test_an_sae_is_trained_on_the_vectors_at_all_positions(case: Case) -> None:
    site = sae.VisionSite(case.model, "down")
    vectors = torch.cat([block.vectors for block in site.blocks(case.images)])
    assert torch.equal(vectors, case.hooked("down").detach().movedim(1, -1).reshape(-1, 8))
    assert torch.equal(next(iter(site.stream(case.images, batch_size=len(vectors)))).sort(0)[0], vectors.sort(0)[0])
    latents_of = _trained()
    case.model.attach("down", "parts", latents_of)
    results = circuits.find(
        case.model, positive=case.images[:3], negative=case.images[3:], layer="down~parts", intervals=0
    )
    latents = latents_of.encode(vectors).reshape(6, -1, 16).amax(1)
    for row in results.rows:
        assert row.mean_positive == pytest.approx(float(latents[:3, Unit.parse(row.unit).index].mean()), abs=1e-6)


def test_the_network_goes_on_from_what_an_sae_gives(case: Case) -> None:
    site = sae.VisionSite(case.model, "down")
    with site.replaced(lambda acts: acts * 0.5):
        scores = case.model(case.images)
    handle = case.model.module.get_submodule("down").register_forward_hook(lambda m, i, out: out * 0.5)
    torch.testing.assert_close(scores, case.hooked("fc"))
    handle.remove()


def test_what_needs_images_is_refused_in_one_line(case: Case) -> None:
    model, images = case.model, case.images
    refusals = {
        "feature visualization": lambda: circuits.visualize(model, "down:1", steps=1),
        "expanded weights": lambda: circuits.expanded_weights(model, source="stem", target="down:1"),
        "tuning": lambda: circuits.tune(model, "down", stimuli=circuits.stimuli.curves()),
        "atlas": lambda: circuits.activation_atlas(model, "down", images),
        "detectors": lambda: circuits.find_detectors(model, "curve", layers=["down"]),
    }
    for what, refusal in refusals.items():
        with pytest.raises(CircuitsError, match=f"{what} is of images; net takes (sequences|volumes)") as error:
            refusal()
        assert "\n" not in str(error.value)


def test_inputs_of_another_form_are_refused(case: Case) -> None:
    dims = case.model.input.dims
    for wrong in (torch.rand(2, 2, 48, 48), torch.rand(2, 2, 20) if dims == 1 else torch.rand(2, 2, 4, 4, 4)):
        with pytest.raises(CircuitsError, match=r"the model takes (a sequence|a volume|\(2, )"):
            circuits.capture(case.model, wrong, at="down")
    with pytest.raises(CircuitsError, match=r"is an image; the model takes a (sequence|volume)"):
        circuits.capture(case.model, "scenes:2", at="down")
    image_model = circuits.load("scenes")
    with pytest.raises(CircuitsError, match="the model takes an image"):
        circuits.capture(image_model, case.images, at="mixed3b")


def test_values_in_their_own_range_become_inputs(case: Case) -> None:
    own = case.images * 4 - 1
    torch.testing.assert_close(case.model.input.from_range(own), case.images)
    torch.testing.assert_close(case.model.input.denormalize((own - 0.5) / 0.25), case.images)


def test_a_network_of_sequences_says_how_it_is_declared(case: Case) -> None:
    with pytest.raises(
        CircuitsError, match=r"InputSpec declares what they are of, (sequences|volumes), size=\("
    ) as error:
        circuits.wrap(case.model.module, circuits.InputSpec(size=16, channels=2))
    assert "\n" not in str(error.value)
