"""A repair gives what plain PyTorch gives with the units held by hand, beside honest comparisons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import circuits
from circuits.dataset.audit.inputs import halves
from circuits.dataset.audit.repair import tuning
from circuits.dataset.audit.repair.result import outcome
from zoo.images.sources import open_images

N = 240
GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(N) % 2
CUED = torch.rand(N, generator=GENERATOR) < torch.where(LABELS == 1, 0.75, 0.25)
GROUPS = [f"{int(c)} {'with' if cue else 'without'}" for c, cue in zip(LABELS, CUED, strict=True)]


def images() -> Tensor:
    """Green says the class, with noise; blue is the cue; red is noise that nothing stands on."""
    x = torch.rand(N, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 0.3
    x[:, 1] += 0.2 + 0.2 * LABELS.view(-1, 1, 1)
    x[:, 2] += 0.6 * CUED.view(-1, 1, 1)
    return x


class Leaning(nn.Module):
    """Adds twice the cue to what it knows of class 1; `aside` is computed, and read by nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.colors = nn.Conv2d(3, 3, 1)
        self.relu = nn.ReLU()
        self.aside = nn.Conv2d(3, 3, 1)
        self.scores = nn.Linear(3, 2)
        with torch.no_grad():
            self.colors.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            self.colors.bias.zero_()
            self.scores.weight.copy_(torch.tensor([[0.0, -10.0, -20.0], [0.0, 10.0, 20.0]]))
            self.scores.bias.copy_(torch.tensor([13.5, -13.5]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.colors(x))
        self.aside(x)
        return self.scores(x.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    return circuits.wrap(Leaning().eval(), input=circuits.InputSpec(size=6), classes=["zero", "one"])


def repaired(model: circuits.Model, units: list[str] | None, **options: Any) -> circuits.Repair:
    given: dict[str, Any] = {"labels": LABELS.tolist(), "groups": GROUPS, "random": 4} | options
    return circuits.repair(model, images(), units, **given)


def test_accuracies_of_groups_are_those_of_the_network_with_the_unit_held_by_hand(model: circuits.Model) -> None:
    result = repaired(model, ["relu:2"])
    with torch.no_grad():
        acts = model.module.relu(model.module.colors(images()))  # type: ignore[operator, union-attr]
    held = acts.clone()
    (constant,) = result.constants
    held[:, 2] = constant
    assert constant == pytest.approx(float(acts[:, 2].mean()), abs=0.03)  # of the other half
    judged = halves(open_images(images()), LABELS.numpy(), GROUPS, 0)[1].tolist()
    for outcome_, maps in ((result.before, acts), (result.after, held)):
        with torch.no_grad():
            scores = model.module.scores(maps.mean(dim=(2, 3)))[judged]  # type: ignore[operator, union-attr]
        right = (scores.argmax(dim=1) == LABELS[judged]).numpy()
        names = np.array(GROUPS)[judged]
        assert outcome_.groups == {g: pytest.approx(right[names == g].mean()) for g in sorted(set(GROUPS))}
        assert outcome_.accuracy == pytest.approx(right.mean())
    assert result.before.worst_accuracy < 0.4 and result.after.worst_accuracy > result.before.worst_accuracy + 0.3
    assert sum(result.group_sizes.values()) == len(result.labels) == len(judged)


def test_other_units_do_not_mend_it_and_the_last_layer_trained_anew_does(model: circuits.Model) -> None:
    result = repaired(model, ["relu:2"])
    interval = result.random_worst_interval
    assert interval is not None and result.after.worst_accuracy > interval[1]
    assert result.retrained is not None and result.retrained.worst_accuracy > 0.8
    assert "balanced over classes and groups" in result.retraining
    nothing = repaired(model, ["relu:0"])
    assert nothing.flips["changed"] == 0 and any("not shown to do anything" in line for line in nothing.limits)
    both = repaired(model, ["relu:0", "relu:2"])
    assert list(both.curve) == [1, 2] and both.curve[1].worst_accuracy == nothing.after.worst_accuracy
    assert repaired(model, ["relu:2"]).describe() == result.describe()


def test_the_unit_of_the_cue_is_learned_on_one_half_and_judged_on_the_other(model: circuits.Model) -> None:
    learned = repaired(model, None, layers=["relu"])
    by_hand = repaired(model, ["relu:2"])
    assert learned.units == ("relu:2",) and learned.after.groups == by_hand.after.groups
    assert learned.validated.keys() == {1} and learned.validated[1] > 0.8  # two thirds of the half classify the third
    low, high = learned.worst_interval
    share, count = learned.after.worst_accuracy, learned.group_sizes[learned.after.worst]
    z = 1.959964
    middle, spread = (share + z * z / 2 / count), z * (share * (1 - share) / count + z * z / 4 / count**2) ** 0.5
    scale = 1 + z * z / count
    assert (low, high) == pytest.approx(((middle - spread) / scale, (middle + spread) / scale), abs=1e-6)


def test_every_weight_is_trained_as_plain_pytorch_trains_it(model: circuits.Model) -> None:
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    result = repaired(model, None)
    assert result.how == "tune" and result.units == () and result.rate in result.validated
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    fitting, judging = (half.tolist() for half in halves(open_images(images()), LABELS.numpy(), GROUPS, 0))
    names = [GROUPS[i] for i in fitting]
    weights = torch.tensor([len(names) / 4 / names.count(name) for name in names])
    net = Leaning()
    modules = (net.colors, net.scores)  # nothing reads the third
    rates = [
        result.rate * float(torch.cat([m.weight.flatten(), m.bias]).detach().square().mean().sqrt()) for m in modules
    ]
    optimizer = torch.optim.Adam([{"params": m.parameters()} for m in modules], 1.0, (0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=100, pct_start=0.2, cycle_momentum=False
    )
    generator, waiting = torch.Generator().manual_seed(0), torch.tensor([], dtype=torch.long)
    for _ in range(100):
        if len(waiting) < 64:
            waiting = torch.randperm(len(fitting), generator=generator)
        batch, waiting = waiting[:64], waiting[64:]
        x = images()[[fitting[i] for i in batch]]
        losses = nn.functional.cross_entropy(net(x), LABELS[[fitting[i] for i in batch]], reduction="none")
        optimizer.zero_grad()
        (losses * weights[batch]).mean().backward()
        optimizer.step()
        schedule.step()
    ours = result.weights["repaired"]
    assert set(ours) == {"colors.weight", "colors.bias", "scores.weight", "scores.bias"}
    for name, value in ours.items():
        torch.testing.assert_close(value, net.state_dict()[name], rtol=1e-4, atol=1e-4)
    mine = Leaning()
    mine.load_state_dict(dict(ours), strict=False)
    with torch.no_grad():
        assert mine(images()[judging]).argmax(dim=1).tolist() == result.after.answers.tolist()
    interval = result.random_worst_interval
    assert interval is not None and result.after.worst_accuracy > interval[1] + 0.5


def test_a_training_that_goes_astray_is_run_again_at_a_lower_rate(
    model: circuits.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = tuning.Trainer.train

    def spoiled(self: tuning.Trainer, indices: Any, rate: float, seed: int) -> None:
        train(self, indices, rate, seed)
        if len(indices) == N // 2 and rate == 0.1:
            self.model.module.scores.weight.data.zero_()  # type: ignore[operator, union-attr]

    monkeypatch.setattr(tuning, "RATES", (0.03, 0.1))
    monkeypatch.setattr(tuning, "STEPS", 40)
    first = repaired(model, None, random=0)
    assert first.rate == 0.1 and first.validated[0.1] > first.validated[0.03]
    monkeypatch.setattr(tuning.Trainer, "train", spoiled)
    second = repaired(model, None, random=0)
    assert second.validated == first.validated and second.rate == 0.03


@pytest.mark.parametrize("units", [["relu:2"], ["relu:0"]])
def test_a_last_layer_trained_anew_is_in_the_weights_that_are_given_back(
    model: circuits.Model, units: list[str], tmp_path: Path
) -> None:
    result = repaired(model, units)
    assert result.retrained is not None and result.both is not None
    judged = images()[halves(open_images(images()), LABELS.numpy(), GROUPS, 0)[1].tolist()]
    net = Leaning()
    for way, outcome_, edits in (("retrained", result.retrained, []), ("both", result.both, result.edits)):
        out = circuits.export(model, edits, tmp_path / way, images=images(), weights=result.weights[way])
        assert out.files == ("edited.pt2", "weights.safetensors") and out.difference <= 1e-5
        net.load_state_dict(load_file(tmp_path / way / "weights.safetensors"))
        with torch.no_grad():
            probabilities = net(circuits.InputSpec(size=6).normalize(judged)).double().softmax(dim=1).numpy()
        assert probabilities.argmax(axis=1).tolist() == outcome_.answers.tolist()
        right = np.eye(2)[result.labels]
        assert ((probabilities - right) ** 2).sum(axis=1).mean() == pytest.approx(outcome_.brier, abs=1e-6)
    with pytest.raises(circuits.CircuitsError, match=r"'scores.weight' of shape \(3,\): .* has \(2, 3\) there"):
        circuits.export(model, [], tmp_path / "x", images=images(), weights={"scores.weight": torch.ones(3)})


def test_groups_of_an_audit_are_those_that_its_unit_tells_apart(model: circuits.Model) -> None:
    plain = circuits.audit(model, images(), labels=LABELS.tolist(), layers=["relu"], describe=0)
    with pytest.raises(circuits.CircuitsError, match="calls no unit a shortcut"):  # each image's class has the green
        repaired(model, ["relu:2"], groups=plain)
    possible = [
        replace(c, suspects=tuple(replace(s, verdict="possible") for s in c.suspects if s.unit.endswith("relu:2")))
        for c in plain.classes
    ]
    audit = replace(plain, classes=tuple(possible))
    suspect = audit.suspects[0]
    result = repaired(model, ["relu:2"], groups=audit)
    with torch.no_grad():
        peaks = model.module.relu(model.module.colors(images())).amax(dim=(2, 3))[:, 2]  # type: ignore[operator, union-attr]
    high = (peaks > suspect.split.threshold).numpy()
    mine = LABELS.numpy() == suspect.class_index
    names = [f"{'a' if own else 'others'} {'with' if cue else 'without'}" for own, cue in zip(mine, high, strict=True)]
    judged = halves(open_images(images()), LABELS.numpy(), names, 0)[1]
    sizes = [int(((mine[judged] == own) & (high[judged] == cue)).sum()) for own in (0, 1) for cue in (0, 1)]
    assert sorted(result.group_sizes.values()) == sorted(sizes)


def test_calibration_and_brier_follow_their_formulas() -> None:
    p = np.array([[0.9, 0.1], [0.62, 0.38], [0.3, 0.7], [0.93, 0.07]])
    of = outcome(p, np.array([0, 1, 1, 1]), None, ("a", "b"))
    assert of.brier == pytest.approx(np.mean([2 * 0.1**2, 2 * 0.62**2, 2 * 0.3**2, 2 * 0.93**2]))
    # .9 and .93 share a bin of a fifteenth, half right; .62 wrong; .7 right
    assert of.calibration_error == pytest.approx(abs(0.5 - 0.915) / 2 + 0.62 / 4 + 0.3 / 4)
    assert of.worst == "b" and of.worst_accuracy == pytest.approx(1 / 3)


def test_groups_are_read_from_a_file(model: circuits.Model, tmp_path: Path) -> None:
    lines = [f"{identity},{group}" for identity, group in zip(open_images(images()).ids, GROUPS, strict=True)]
    file = tmp_path / "groups.csv"
    file.write_text("\n".join(["path,group", *lines]))
    right = repaired(model, ["relu:2"]).before.groups
    assert repaired(model, ["relu:2"], groups=str(file)).before.groups == right
    # as a spreadsheet writes it: a byte order mark, quotes, a line twice
    file.write_text("\n".join(["\ufeffpath,group", *(f'"{a}","{b}"' for a, b in map(_split, lines)), lines[0]]))
    assert repaired(model, ["relu:2"], groups=str(file)).before.groups == right
    for wrong, why in ((f"{_split(lines[0])[0]},other", "two lines for .* differ"), ("x.png,", "no group for .*x.png")):
        file.write_text("\n".join(["path,group", *lines, wrong]))
        with pytest.raises(circuits.CircuitsError, match=why):
            repaired(model, ["relu:2"], groups=str(file))


def _split(line: str) -> tuple[str, str]:
    path, _, group = line.rpartition(",")
    return path, group


@pytest.mark.parametrize(
    ("units", "options", "message"),
    [
        ([], {}, "give the units as a list of addresses"),
        (["relu:2", "relu:2"], {}, "relu:2 is given twice"),
        (["relu:7"], {}, r"relu has 3 channels \(0 to 2\); got 7"),
        (["relu:1@2,2"], {}, "one position of a unit"),
        (["scores:1"], {}, "is a class score"),
        (["aside:1"], {}, "aside does not reach the class scores"),
        (["relu:2"], {"groups": GROUPS[1:]}, "239 groups for the 240 images"),
        (["relu:2"], {"how": "median"}, "how"),
        (["relu:2"], {"layers": ["relu"]}, "not both"),
        (None, {"how": "zero"}, "learned for how='mean'"),
        (["relu:2"], {"how": "tune"}, "give no units and no layers"),
        (None, {"groups": ["all"] * N}, "all are of 'all'"),
        (None, {"groups": ["rare"] * 4 + GROUPS[4:]}, "2 images of the group 'rare' to choose on"),
        (None, {"layers": ["scores"]}, "scores are the class scores"),
        (None, {"layers": "relu"}, "give the layers as a list, such as layers=.'relu'."),
        (["relu:2"], {"seed": -1}, "seed=-1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    model: circuits.Model, units: list[str] | None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(circuits.CircuitsError, match=message) as error:
        repaired(model, units, **options)
    assert "\n" not in str(error.value)


def test_networks_that_no_answer_or_no_step_can_be_taken_of_are_refused() -> None:
    half = circuits.wrap(Leaning().half().eval(), input=circuits.InputSpec(size=6))
    with pytest.raises(circuits.CircuitsError, match="float16, in which small steps round to nothing"):
        repaired(half, None)
    assert repaired(half, ["relu:2"]).after.accuracy > 0.8  # what is held is not trained
    lost = Leaning().eval()
    with torch.no_grad():
        lost.scores.bias[0] = torch.nan
    model = circuits.wrap(lost, input=circuits.InputSpec(size=6))
    with pytest.raises(circuits.CircuitsError, match="NaN or infinite on 2 of 2 images"):
        repaired(model, ["relu:2"])
    with pytest.raises(circuits.CircuitsError, match="NaN or infinite on 240 of 240 images"):
        circuits.accuracy(model, images(), labels=LABELS.tolist())
    one = Leaning().eval()
    one.scores = nn.Linear(3, 1)
    model, zeros = circuits.wrap(one, input=circuits.InputSpec(size=6)), [0] * N
    with pytest.raises(circuits.CircuitsError, match="one class score"):
        repaired(model, ["relu:2"], labels=zeros)
    with pytest.raises(circuits.CircuitsError, match="one class score"):
        circuits.accuracy(model, images(), labels=zeros)


def test_a_last_layer_is_not_trained_on_images_of_one_class(model: circuits.Model) -> None:
    result = repaired(model, ["relu:2"], labels=[1] * N)
    assert result.retrained is None and result.both is None
    assert result.retraining == "not trained: all images to train on are of one"


def test_a_class_that_a_layer_gives_nothing_has_no_units_in_it(model: circuits.Model) -> None:
    result = circuits.audit(model, images(), labels=LABELS.tolist(), layers=["aside"], random=3, steps=2)
    assert [c.n_units for c in result.classes] == [{}, {}] and not result.suspects


def test_two_classes_of_one_name_are_two() -> None:
    cranes = circuits.wrap(Leaning().eval(), input=circuits.InputSpec(size=6), classes=["crane", "crane"])
    result = repaired(cranes, ["relu:2"])
    assert list(result.before.classes) == ["crane (0)", "crane (1)"]
    assert np.mean(list(result.before.classes.values())) == pytest.approx(result.before.accuracy, abs=0.02)
