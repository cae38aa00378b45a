"""Exported networks give what plain PyTorch gives with the same activations changed by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor, nn

import circuits
from circuits import Directions, Edit, Project, Scale, Set
from zoo.common.files import LOCK
from zoo.errors import FileError

IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
Change = Callable[[Tensor], Tensor]


def keep(x: Tensor) -> Tensor:
    return x


class Branches(nn.Module):
    """Batch normalization, an in-place ReLU, a concatenation with a pooling branch, two readers, one module twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.left = nn.Conv2d(6, 4, 3, padding=1)
        self.left_relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.right = nn.Conv2d(6, 5, 1)
        self.right_relu = nn.ReLU()
        self.joined = nn.Identity()
        self.same = nn.Conv2d(9, 9, 3, padding=1)
        self.twice = nn.ReLU()
        self.head = nn.Linear(9, 4)
        for tensor, low in (
            (self.norm.running_mean, -0.5),
            (self.norm.running_var, 0.5),
            (self.norm.weight, 0.5),
            (self.norm.bias, 0.2),
        ):
            assert tensor is not None
            nn.init.uniform_(tensor, low, low + 1)
        self.eval()

    def steps(self, x: Tensor, relu: Change = keep, joined: Change = keep, second: Change = keep) -> Tensor:
        """The scores, with functions of the activations of `relu`, `joined` and the second call of `twice`."""
        x = relu(self.relu(self.norm(self.conv(x))))
        x = joined(torch.cat([self.left_relu(self.left(x)), self.right_relu(self.right(self.pool(x)))], dim=1))
        first = self.twice(self.same(x))
        return self.head((second(self.twice(self.same(first))) + x).mean(dim=(2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x, joined=self.joined)


def channel(index: int, value: float, factor: float = 0.0) -> Change:
    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, index] = x[:, index] * factor + value
        return x

    return change


def direction() -> Tensor:
    return torch.linspace(-1, 2, 9)


def projected(x: Tensor) -> Tensor:
    d = direction() / direction().norm()
    return x - (x * d.view(1, -1, 1, 1)).sum(1, keepdim=True) * d.view(1, -1, 1, 1)


CASES: list[tuple[str, list[Edit], dict[str, Change], str]] = [
    ("before padded readers", [Set("relu:3", 0.7)], {"relu": channel(3, 0.7)}, ""),
    ("into batch normalization", [Scale("relu:1", 3.0)], {"relu": channel(1, 0.0, 3.0)}, ""),
    ("into the pooling branch", [Set("joined:6", 0.4)], {"joined": channel(6, 0.4)}, ""),
    ("below a ReLU", [Set("relu:3", -0.7)], {"relu": channel(3, -0.7)}, "no weight makes a ReLU give -0.7"),
    ("of one call of two", [Set("twice.call1:2", 0.5)], {"second": channel(2, 0.5)}, "same runs more than once"),
    ("in the order of the layers", [Scale("relu:1", 3.0), Set("norm:1", 0.5)], {"relu": channel(1, 1.5)}, ""),
    ("of a direction", [Project("joined~d:0")], {"joined": projected}, "add (add) reads the layer"),
]


@pytest.mark.parametrize(("edits", "changes", "why"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_an_export_is_the_network_changed_by_hand(
    edits: Sequence[Edit], changes: dict[str, Change], why: str, tmp_path: Path
) -> None:
    module = Branches()
    model = circuits.wrap(module, input=circuits.InputSpec(size=16))
    model.attach("joined", "d", Directions(direction()[None]))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    written = circuits.export(model, edits, tmp_path, images=IMAGES)
    with torch.no_grad():
        wanted = module.steps(IMAGES, **changes)
        torch.testing.assert_close(torch.export.load(tmp_path / "edited.pt2").module()(IMAGES), wanted)
        assert (wanted - module(IMAGES)).abs().max() > 1e-3
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    if why:
        assert written.files == ("edited.pt2",) and why in written.unfolded
        return
    fresh = Branches()
    fresh.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(fresh(IMAGES), wanted)


@pytest.mark.parametrize(
    ("rectifier", "edit", "why"),
    [
        (nn.LeakyReLU(0.2), Set("1:3", -0.7), ""),
        (nn.LeakyReLU(0.2), Scale("1:3", 1.5), ""),
        (nn.LeakyReLU(0.2), Scale("1:3", -1.5), "no weight makes a LeakyReLU give -1.5"),
        (nn.ReLU6(), Set("1:3", 5.5), ""),
        (nn.ReLU6(), Set("1:3", 6.5), "no weight makes a ReLU6 give 6.5"),
        (nn.ReLU6(), Scale("1:3", 0.5), "a ReLU6 does not scale with what it reads"),
        (nn.GELU(), Set("1:3", 0.5), "has no weights of its own"),
    ],
)
def test_other_rectifiers_are_passed_where_that_is_exact(
    rectifier: nn.Module, edit: Edit, why: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3), rectifier, nn.Conv2d(6, 4, 3, padding=1)).eval()
    with torch.no_grad():
        module[0].weight.mul_(20)  # so that a ReLU6 reaches its end
        module[0].bias.fill_(1.0)
    assert module[1](module[0](IMAGES))[:, 3].max() > 5.9
    wrapped = circuits.wrap(module, input=circuits.InputSpec(size=16))
    written = circuits.export(wrapped, [edit], tmp_path, images=IMAGES)
    if why:
        assert written.files == ("edited.pt2",) and why in written.unfolded
        return
    change = channel(3, float(edit.to)) if isinstance(edit, Set) else channel(3, 0.0, 1.5)
    with torch.no_grad():
        wanted = module[2](change(module[1](module[0](IMAGES))))
        module.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        torch.testing.assert_close(module(IMAGES), wanted, rtol=1e-5, atol=1e-4)  # of scores of about 100


class Naming(Branches):
    """Gives its scores among other things, by name."""

    def forward(self, x: Tensor) -> Any:
        maps = self.joined(torch.cat([self.left_relu(self.left(x)), self.right_relu(self.right(x))], dim=1))
        return {"maps": maps, "scores": self.head(maps.mean(dim=(2, 3)))}


class Coded(Directions):
    """Directions whose latents have a ReLU, as those of an SAE."""

    def encode(self, acts: Tensor) -> Tensor:
        return torch.relu(acts @ self.read.T)


def test_an_edited_latent_of_a_network_that_gives_a_dictionary_is_exported(tmp_path: Path) -> None:
    module = Naming()
    module.left, module.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 1)
    model = circuits.wrap(module, input=circuits.InputSpec(size=16), output="scores")
    torch.manual_seed(1)
    encode, write = torch.randn(9, 12), torch.randn(12, 9)
    model.attach("joined", "sae", Coded(encode.T, write))
    written = circuits.export(model, [Set("joined~sae:5", 2.0)], tmp_path, images=IMAGES)
    assert written.files == ("edited.pt2",) and "encoder" in written.unfolded
    given = torch.export.load(tmp_path / "edited.pt2").module()(IMAGES)
    with torch.no_grad():
        maps = module(IMAGES)["maps"]
        latent = torch.relu(torch.einsum("nchw,c->nhw", maps, encode[:, 5]))
        edited = maps + (2.0 - latent).unsqueeze(1) * write[5].view(1, -1, 1, 1)
        torch.testing.assert_close(given["scores"], module.head(edited.mean(dim=(2, 3))))
        assert (latent - 2.0).abs().max() > 0.1
    torch.testing.assert_close(given["maps"], edited)
    resampled = [circuits.Ablate("joined:1", to="resample")]
    with pytest.raises(circuits.CircuitsError, match=r"to='resample'\) takes another image .*\(to='mean'"):
        circuits.export(model, resampled, tmp_path, images=IMAGES, reference=IMAGES)


def test_a_direction_is_folded_into_convolutions_that_pad(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 9, 3), nn.ReLU(), nn.Conv2d(9, 4, 3, padding=2)).eval()
    model = circuits.wrap(module, input=circuits.InputSpec(size=16))
    model.attach("1", "d", Directions(direction()[None]))
    assert circuits.export(model, [Project("1~d:0")], tmp_path, images=IMAGES).files == (
        "edited.pt2",
        "weights.safetensors",
    )
    with torch.no_grad():
        wanted = module[2](projected(module[1](module[0](IMAGES))))
        module.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        torch.testing.assert_close(module(IMAGES), wanted)


def test_directions_and_constants_of_one_layer_are_folded_in_their_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 9, 3), nn.ReLU(), nn.Conv2d(9, 4, 3, padding=2)).eval()
    model = circuits.wrap(module, input=circuits.InputSpec(size=16))
    other = torch.linspace(2, 1, 9)
    model.attach("1", "d", Directions(direction()[None]))
    model.attach("1", "e", Directions(other[None]))

    def without(x: Tensor, d: Tensor) -> Tensor:
        return x - (x.movedim(1, -1) @ d / (d @ d))[:, None] * d.view(1, -1, 1, 1)

    # one image: what is traced on it has to run on any number of them
    written = circuits.export(model, [Set("1:3", 0.7), Project("1~d:0"), Project("1~e:0")], tmp_path, images=IMAGES[:1])
    assert written.files == ("edited.pt2", "weights.safetensors")
    program = torch.export.load(tmp_path / "edited.pt2").module()
    fresh = nn.Sequential(nn.Conv2d(3, 9, 3), nn.ReLU(), nn.Conv2d(9, 4, 3, padding=2)).eval()
    fresh.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        wanted = module[2](without(without(channel(3, 0.7)(module[1](module[0](IMAGES))), direction()), other))
        torch.testing.assert_close(program(IMAGES), wanted)
        torch.testing.assert_close(fresh(IMAGES), wanted)
    after = circuits.export(model, [Project("1~d:0"), Set("1:3", 0.7)], tmp_path, images=IMAGES)
    assert "a direction is taken out of" in after.unfolded and not (tmp_path / "weights.safetensors").exists()


def test_weights_that_a_layer_of_ones_own_reads_otherwise_are_not_written(tmp_path: Path) -> None:
    class Standardized(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return nn.functional.conv2d(input, self.weight / self.weight.norm(), self.bias)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.own, self.head = nn.Conv2d(3, 4, 3), Standardized(4, 4, 3), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            again = nn.functional.conv2d(x, self.conv.weight, self.conv.bias, stride=2)
            maps = (self.own(self.conv(x)), again)
            return self.head(torch.cat([m.relu().mean(dim=(2, 3)) for m in maps], dim=1))

    model = circuits.wrap(Tied().eval(), input=circuits.InputSpec(size=16))
    for unit, why in (("conv:1", "the weights of conv are used elsewhere"), ("own:1", "own")):
        written = circuits.export(model, [Scale(unit, 2.0)], tmp_path, images=IMAGES)
        assert written.files == ("edited.pt2",) and why in written.unfolded


def test_a_network_that_nothing_was_done_to_is_not_written(tmp_path: Path) -> None:
    model = circuits.wrap(Branches(), input=circuits.InputSpec(size=16))
    with pytest.raises(circuits.CircuitsError, match="nothing to write out"):
        circuits.export(model, [], tmp_path / "out", images=IMAGES)
    with pytest.raises(circuits.CircuitsError, match="give edits as a list"):
        circuits.export(model, Set("relu:1", 0.5), tmp_path / "out", images=IMAGES)  # type: ignore[arg-type]
    with pytest.raises(circuits.CircuitsError, match="'conv.weight' are a tensor, not a float"):
        circuits.export(model, [], tmp_path / "out", images=IMAGES, weights={"conv.weight": 0.5})  # type: ignore[dict-item]
    model.module.train()
    with pytest.raises(circuits.CircuitsError, match="is in training mode"):
        circuits.export(model, [Set("relu:1", 0.5)], tmp_path / "out", images=IMAGES)
    assert model.module.training  # as the user left it
    assert not (tmp_path / "out").exists()


def test_files_of_others_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"mine")
    model = circuits.wrap(Branches(), input=circuits.InputSpec(size=16))
    with pytest.raises(circuits.CircuitsError, match="weights.safetensors, and no finished export"):
        circuits.export(model, [Set("relu:3", 0.7)], tmp_path, images=IMAGES)
    assert (tmp_path / "weights.safetensors").read_bytes() == b"mine"


def test_a_full_disk_or_another_run_leaves_an_earlier_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = circuits.wrap(Branches(), input=circuits.InputSpec(size=16))
    circuits.export(model, [Set("relu:3", 0.7)], tmp_path, images=IMAGES)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("circuits.dataset.audit.repair.export.save_file", _full)
    with pytest.raises(FileError, match="No space left"):
        circuits.export(model, [Set("relu:3", 0.2)], tmp_path, images=IMAGES)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before and len(before) == 3
    other = FileLock(tmp_path / LOCK)
    with other, pytest.raises(FileError, match="another run is writing"):
        circuits.export(model, [Set("relu:3", 0.2)], tmp_path, images=IMAGES)


def _full(*args: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("address", ["block2:7", "block2.cls:7", "block3.mlp.neurons:40"])
def test_units_of_tokens_are_exported(address: str, tmp_path: Path) -> None:
    model = circuits.load("scenes-vit")
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    written = circuits.export(model, [Set(address, 1.5)], tmp_path, images=images)
    assert written.files == ("edited.pt2",)
    name, _, unit = address.partition(":")

    def hook(_module: nn.Module, _inputs: Any, out: Tensor) -> Tensor:
        out = out.clone()
        tokens = slice(0, 1) if name.endswith(".cls") else slice(1, None)  # a layer's map is of its patches
        out[:, tokens, int(unit)] = 1.5
        return out

    handle = model.module.get_submodule(name.removesuffix(".cls")).register_forward_hook(hook)
    x = model.input.normalize(images)
    with torch.no_grad():
        wanted = model.module(x)
    handle.remove()
    torch.testing.assert_close(torch.export.load(tmp_path / "edited.pt2").module()(x), wanted)


def test_an_export_runs_in_a_process_that_has_only_torch(tmp_path: Path) -> None:
    module = Branches()
    model = circuits.wrap(module, input=circuits.InputSpec(size=16))
    circuits.export(model, [Set("relu:3", 0.7)], tmp_path, images=IMAGES)
    torch.save(IMAGES, tmp_path / "images.pt")
    code = (
        "import sys, torch\n"
        "network = torch.export.load('edited.pt2').module()\n"
        "torch.save(network(torch.load('images.pt', weights_only=True)), 'scores.pt')\n"
        "assert not {'circuits', 'zoo', 'safetensors', 'torchvision'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", code], cwd=tmp_path, check=True)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.load(tmp_path / "scores.pt", weights_only=True), module.steps(IMAGES, relu=channel(3, 0.7))
        )


def test_a_network_that_cannot_be_traced_is_refused_in_one_line(tmp_path: Path) -> None:
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x.relu() if x.sum().item() > 0 else x.abs()

    model = circuits.wrap(Choosing().eval(), input=circuits.InputSpec(size=16))
    with pytest.raises(circuits.CircuitsError, match=r"torch.export cannot trace .* edit it in place") as error:
        circuits.export(model, [Set("conv:1", 0.0)], tmp_path, images=IMAGES)
    assert "\n" not in str(error.value) and not (tmp_path / "edited.pt2").exists()
