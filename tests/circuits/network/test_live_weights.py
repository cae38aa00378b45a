"""Weights that change after wrapping: nothing of the old network comes back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import circuits
import sae
from circuits.dataset.scan_store import StoreError
from circuits.errors import GraphError
from circuits.network.subnetwork import Segment
from zoo.weights import live_digest
from zoo.weights.loading import digest

SPEC = circuits.InputSpec(size=12)


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()
    ).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def load_other(net: nn.Sequential) -> None:
    net.load_state_dict(network(1).state_dict())


def optimizer_step(net: nn.Sequential) -> None:
    net(torch.rand(2, 3, 12, 12)).sum().backward()
    torch.optim.SGD(net.parameters(), 0.5).step()


def one_value_by_data(net: nn.Sequential) -> None:
    net[2].weight.data[2, 3, 1, 1] += 1e-3


def swapped_by_data(net: nn.Sequential) -> None:
    net[2].weight.data = net[2].weight.data.flip(0)


def running_mean(net: nn.Sequential) -> None:
    net[3].running_mean += 0.1


def new_parameter(net: nn.Sequential) -> None:
    net[0].weight = nn.Parameter(net[0].weight.detach() * 2)


CHANGES = [load_other, optimizer_step, one_value_by_data, swapped_by_data, running_mean, new_parameter]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("whole", [True, False], ids=["all bytes", "as of a large network"])
def test_the_digest_is_that_of_the_weights_now(change, whole, monkeypatch) -> None:
    monkeypatch.setattr(live_digest, "WHOLE_BYTES", 1 << 30 if whole else 0)
    net = network(0)
    model = circuits.wrap(net, input=SPEC)
    before = model.digest
    assert before == model.digest == digest(net.state_dict())
    change(net)
    assert model.digest == digest(net.state_dict()) != before


def test_a_scan_and_a_store_of_activations_are_those_of_the_weights_now(images, tmp_path) -> None:
    net = network(0)
    model = circuits.wrap(net, input=SPEC, name="mine")
    circuits.scan(model, images, store=tmp_path / "scan")
    first = sae.store(sae.VisionSite(model, "1"), images, tmp_path / "acts").folder
    load_other(net)
    with torch.no_grad():
        right = float(net(images)[:, 2].max())
        vectors = net[:2](images).movedim(1, -1).reshape(-1, 8)
    with pytest.raises(StoreError, match="other weights"):
        circuits.scan(model, images, store=tmp_path / "scan")
    scan = circuits.scan(model, images, store=tmp_path / "scan", replace=True)
    assert scan.unit("4:2").maximum == pytest.approx(right)
    again = sae.store(sae.VisionSite(model, "1"), images, tmp_path / "acts")
    assert again.folder != first
    torch.testing.assert_close(again.tensor().sort(0).values, vectors.sort(0).values)


def _normalized(module: nn.Conv2d) -> None:
    nn.utils.weight_norm(module)


def _pruned(module: nn.Conv2d) -> None:
    prune.l1_unstructured(module, "weight", 0.5)


def _parametrized(module: nn.Conv2d) -> None:
    nn.utils.parametrizations.weight_norm(module)


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize(
    ("reparametrize", "parameter"),
    [(_normalized, "weight_g"), (_pruned, "weight_orig"), (_parametrized, "parametrizations.weight.original0")],
)
def test_kernels_of_a_reparametrized_layer_follow_its_parameters(reparametrize, parameter, images) -> None:
    net = network(0)
    reparametrize(net[2])
    model = circuits.wrap(net.eval(), input=SPEC)
    before = {
        method: circuits.expanded_weights(model, source="1", target="2:2", method=method).kernels
        for method in ("exact", "vjp")
    }
    with torch.no_grad():
        dict(net[2].named_parameters())[parameter].mul_(3)
        acts = net[:2](images)
    part = Segment(model, "1", model.unit("2:2")).respond(acts, {})  # before a forward pass writes the weight
    for method, kernels in before.items():
        after = circuits.expanded_weights(model, source="1", target="2:2", method=method).kernels
        torch.testing.assert_close(after, 3 * kernels)
    torch.testing.assert_close(part[:, 0], net[2](acts)[:, 2])


def test_a_module_that_was_replaced_is_not_read_from_the_old_graph(images) -> None:
    net = network(0)
    model = circuits.wrap(net, input=SPEC)
    net[2] = nn.Conv2d(8, 6, 3, padding=1)
    with pytest.raises(GraphError, match="2 was replaced"):
        circuits.expanded_weights(model, source="1", target="2:2")
    torch.testing.assert_close(circuits.capture(model, images, at="2")["2"], net[2](net[:2](images)).detach())


class Scaled(nn.Module):
    """A parameter and a buffer that the forward reads itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.factor = nn.Parameter(torch.ones(1))
        self.register_buffer("shift", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) * self.factor + self.shift)


def test_a_parameter_and_a_buffer_of_a_forward_are_read_as_they_are_now(images) -> None:
    net = Scaled().eval()
    model = circuits.wrap(net, input=SPEC)
    net.factor = nn.Parameter(torch.full((1,), 2.0))
    net.shift = torch.full((1,), 0.25)
    right = torch.relu(net.conv(images) * 2 + 0.25)
    torch.testing.assert_close(circuits.capture(model, images, at="relu")["relu"], right.detach())
    net.double()  # buffers are replaced by this, parameters are not
    assert circuits.capture(model, images, at="relu")["relu"].dtype == torch.float64


def test_a_geometry_is_that_of_the_dictionary_now() -> None:
    from sae.superposition.dossier_section import geometry_of

    model = circuits.wrap(network(0), input=SPEC)
    dictionary = sae.train(torch.randn(64, 8), sae.TopK(latents=5, k=2), steps=1, batch_size=16)[0].sae
    model.attach("1", "own", dictionary)
    first = geometry_of(model, "1", "own")
    assert geometry_of(model, "1", "own") is first
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(torch.randn_like(parameter))
    assert geometry_of(model, "1", "own") is not first


def test_the_digest_of_a_large_network_samples_every_tensor(monkeypatch) -> None:
    monkeypatch.setattr(live_digest, "WHOLE_BYTES", 0)
    net = nn.Linear(300, 300)
    current = live_digest.LiveDigest(net)
    before = current()
    net.weight.data.mul_(1.5)  # torch does not count this change
    assert current() != before


def test_weights_that_are_held_are_compared_once_and_anew_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    model = circuits.wrap(network(0), input=SPEC)
    compared: list[int] = []
    checksum = live_digest._checksum

    def counted(state: dict[str, Tensor]) -> int:
        compared.append(1)
        return checksum(state)

    monkeypatch.setattr(live_digest, "_checksum", counted)
    before = model.digest
    with live_digest.weights_held():
        assert model.digest == model.digest == before and len(compared) == 2
    with torch.no_grad():
        next(model.module.parameters()).data.add_(1)
    with live_digest.weights_held():
        assert model.digest != before
    assert len(compared) == 3 and model.digest != before
