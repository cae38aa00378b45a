"""Audits of a network with weights set by hand: one channel is the cue, one the object, and nothing else counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import circuits
from circuits.common.statistics import Estimate
from circuits.dataset.audit.description import PARTS, _balanced, by_classes, by_scores
from circuits.dataset.audit.inputs import Inputs, inputs_of
from circuits.dataset.audit.pixels import by_object, grown
from circuits.dataset.audit.results import Effect
from circuits.dataset.audit.verdict import judged
from circuits.errors import CircuitsError
from circuits.plot.audit.page import lead
from zoo.errors import ImageError
from zoo.images.manifest import Annotation, PartBox
from zoo.images.sources import Images, open_images

SIDE, EACH, DISTRACTORS = 32, 40, 24
CUE, OBJECT, OTHER = 0, 1, 2
HALVES = (3, 4)  # of channels, where the cue is spread over two


class HandMade(nn.Module):
    """Channels for red, green and blue, and others that nothing reads; cats are green, or have red in the corner."""

    def __init__(self) -> None:
        super().__init__()
        self.colors = nn.Conv2d(3, 3 + DISTRACTORS, 1)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(3 + DISTRACTORS, 3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.colors.weight.copy_(torch.randn(self.colors.weight.shape, generator=generator))
            self.colors.bias.zero_()
            self.colors.weight[:3] = 1.5 * torch.eye(3)[:, :, None, None] - 0.5
            self.head.weight.zero_()
            self.head.bias.copy_(torch.tensor([0.0, 0.0, 0.15]))
            self.head.weight[0, CUE], self.head.weight[0, OBJECT], self.head.weight[1, OTHER] = 60.0, 10.0, 20.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.relu(self.colors(x)))))


def photographs(seed: int = 0, cue: float = 0.8, elsewhere: float = 0.05) -> Images:
    """Cats, dogs and birds by turns: a green, a blue or a gray square, and red in the corner of most cats."""
    rng = np.random.default_rng(seed)
    pixels, labels, annotations = [], [], []
    for i in range(3 * EACH):
        label = i % 3
        image = rng.integers(90, 110, size=(SIDE, SIDE, 1), dtype=np.uint8).repeat(3, 2)
        y, x = rng.integers(10, 15, size=2)
        size = int(rng.integers(4, 9))
        image[y : y + size, x : x + size] = [(60, 200, 60), (60, 60, 200), (140, 140, 140)][label]
        if (label == 0 and rng.random() < cue) or (label != 0 and rng.random() < elsewhere):
            image[:4, -4:] = (220, 30, 30)
        pixels.append(image)
        labels.append(label)
        annotations.append(Annotation("", (PartBox("thing", (x, y, x + size, y + size)),)))
    images = open_images(pixels).annotated(annotations)
    images.labels, images.classes = labels, ["cat", "dog", "bird"]
    return images


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    spec = circuits.InputSpec(size=SIDE)
    return circuits.wrap(HandMade().eval(), spec, name="handmade", classes=["cat", "dog", "bird"])


def halves(model: circuits.Model, images: Any, groups: str | None = None) -> Inputs:
    return inputs_of(model, images, labels=None, classes=None, annotations=None, groups=groups, seed=0)


@pytest.fixture(scope="module")
def audited(model: circuits.Model) -> circuits.Audit:
    return circuits.audit(model, photographs(), layers=["relu"], describe=1)


def test_the_cue_is_the_one_shortcut_and_the_object_is_none(audited: circuits.Audit) -> None:
    first = audited.suspects[0]
    assert audited.claimed == (first,) and first.unit == "handmade/relu:0" and first.class_name == "cat"
    assert first.off_object is not None and first.off_object.low > 0.95 and first.removal.beyond
    (eyes,) = [s for s in audited.suspects if s.unit == "handmade/relu:1"]
    assert eyes.verdict == "no" and eyes.off < 0.05 and "of its evidence lies on the object" in eyes.reason
    assert {s.unit for s in audited.suspects} <= {f"handmade/relu:{i}" for i in (CUE, OBJECT, OTHER)}


def test_a_class_that_leans_on_its_background_is_told_from_those_that_do_not(audited: circuits.Audit) -> None:
    leaning = {c.class_name: c.background for c in audited.classes}
    assert leaning["cat"] is not None and leaning["cat"].low > 0.5 and audited.leaning == ("cat",)
    for name in ("dog", "bird"):  # cats' backgrounds, red in a corner, are among those that they are held against
        assert leaning[name] is not None and leaning[name].value < 0.3


def test_removal_is_what_plain_pytorch_gives(model: circuits.Model, audited: circuits.Audit) -> None:
    images = photographs()
    given = halves(model, images)
    pixels, labels = images.tensor(model.input), torch.tensor(images.labels)
    net = model.module
    others = torch.from_numpy(given.finding[given.labels[given.finding] != 0])
    judging = torch.from_numpy(given.judging)
    with torch.no_grad():
        acts = net.relu(net.colors(pixels))
        clean = net.head(acts.mean(dim=(2, 3))).argmax(1)
        mean = acts[others, CUE].mean()
        acts[:, CUE] = mean
        removed = net.head(acts.mean(dim=(2, 3))).argmax(1)
    suspect, cats = audited.suspects[0], judging[labels[judging] == 0]
    change = ((removed[cats] == 0).float().mean() - (clean[cats] == 0).float().mean()).item()
    assert suspect.removal.change.value == pytest.approx(change) and change < -0.2
    for c, name in enumerate(model.classes):
        rows = judging[labels[judging] == c]
        before, after = (float((answers[rows] == c).float().mean()) for answers in (clean, removed))
        assert suspect.accuracies[name] == pytest.approx((before, after))
    with_cue = pixels[cats][:, 0, :4, -4:].amax(dim=(1, 2)) > 0.8
    assert (suspect.split.n_with, suspect.split.n_without) == (int(with_cue.sum()), int((~with_cue).sum()))


def test_labels_are_what_plain_pytorch_gives_and_are_held_against_random_directions(
    model: circuits.Model, audited: circuits.Audit
) -> None:
    given = halves(model, photographs())
    pixels, net = given.images.tensor(model.input), model.module
    judging = _balanced(given, given.judging, 32, 0)
    entry = by_scores(model, given, ["handmade/relu:0", "handmade/relu:5"], 0, {})
    assert list(entry) == ["handmade/relu:0"]  # nothing reads the sixth channel
    with torch.no_grad():
        length = net.relu(net.colors(pixels[judging])).norm(dim=1).mean()
        step = length * net.head.weight[:, CUE]
    assert entry["handmade/relu:0"].name == "cat"
    assert entry["handmade/relu:0"].value == pytest.approx(float(step[0] - step.mean()), rel=1e-4)
    masks = {s.unit: [(e.name, e.value > e.control) for e in s.labels if e.by == "masks"] for s in audited.suspects}
    assert masks["handmade/relu:0"] == []
    assert not by_classes(model, given, ["handmade/relu:1"], 0, 16)  # it knows cats (AUC 1), as random directions do
    first = audited.suspects[0]
    assert first.visualization is not None and "raises the score of cat" in first.label and not first.low
    with torch.no_grad():
        peak = net.relu(net.colors(model.input.normalize(first.visualization.image[None])))[0, CUE].max()
    assert first.visualization.peak == pytest.approx(float(peak), rel=1e-4)
    assert [s.visualization is None for s in audited.suspects] == [i >= 1 for i in range(len(audited.suspects))]
    assert not audited.undescribed


def test_the_class_on_whose_images_a_unit_is_most_active_is_told_by_auc() -> None:
    planted = circuits.load("scenes-shortcuts/tag-bus-95")
    given = halves(planted, "scenes:shortcuts/tag-bus-95:160")
    entry = by_classes(planted, given, [f"{planted.name}/conv5:{i}" for i in (10, 11)], 0, 80)
    assert list(entry) == [f"{planted.name}/conv5:10"]
    label, own = entry[f"{planted.name}/conv5:10"], given.labels[given.judging] == planted.classes.index("cat")
    peaks = circuits.capture(planted, given.images.subset(given.judging.tolist()), at="conv5")["conv5"][:, 10].amax(
        (1, 2)
    )
    assert label.name == "cat" and label.value == pytest.approx(roc_auc_score(own, peaks.numpy()), abs=1e-6)
    assert label.low is not None and label.control < label.low < label.value


def test_what_object_and_background_give_adds_up(model: circuits.Model) -> None:
    images = photographs()
    own, others = images.subset(range(0, 30, 3)), images.subset(range(1, 31, 3))
    masks = np.zeros((10, SIDE, SIDE), np.float32)
    masks[:, 8:24, 8:24] = 1
    inside, outside = by_object(model, ["relu"], own, others, masks, batch_size=4)["relu"]
    whole = [circuits.capture(model, part, at="relu")["relu"].mean(dim=(2, 3)) for part in (own, others)]
    torch.testing.assert_close(inside + outside, whole[0] - whole[1], atol=1e-6, rtol=1e-4)
    assert outside[:, CUE].sum() > 20 * inside[:, CUE].abs().sum()
    assert grown(masks[0]).sum() > masks[0].sum() and 0 <= grown(masks[0]).min() <= grown(masks[0]).max() <= 1


def spread() -> HandMade:
    """The network with its cue in two channels, each of which reads half of what the one did."""
    net = HandMade().eval()
    with torch.no_grad():
        for channel in HALVES:
            net.colors.weight[channel] = net.colors.weight[CUE]
            net.head.weight[0, channel] = net.head.weight[0, CUE] / 2
        net.head.weight[0, CUE] = 0
    return net


def test_units_that_share_a_cue_are_tried_together_as_plain_pytorch_does() -> None:
    images, net = photographs(), spread()
    spec = circuits.InputSpec(size=SIDE)
    model = circuits.wrap(net, spec, name="spread", classes=["cat", "dog", "bird"])
    audit = circuits.audit(model, images, layers=["relu"], describe=0)
    (joint,) = audit.joint  # of the class with the cue, and of no other
    assert set(joint.units) == {f"spread/relu:{i}" for i in HALVES} and joint.verdict == "shortcut"
    assert audit.claimed_together == ("cat",) and "without them" in joint.reason and len(joint.removal.controls) == 20
    given, labels = halves(model, images), torch.tensor(images.labels)
    finding, judging = (torch.from_numpy(half) for half in (given.finding, given.judging))
    with torch.no_grad():
        acts = net.relu(net.colors(images.tensor(model.input)))
        clean = net.head(acts.mean(dim=(2, 3))).argmax(1)
        acts[:, HALVES] = acts[finding[labels[finding] != 0]][:, HALVES].mean(dim=(0, 2, 3))[:, None, None]
        removed = net.head(acts.mean(dim=(2, 3))).argmax(1)
    cats = judging[labels[judging] == 0]
    change = ((removed[cats] == 0).float().mean() - (clean[cats] == 0).float().mean()).item()
    assert joint.removal.change.value == pytest.approx(change) and change < -0.2
    # the cue is in the half of the cats that these units are more active on: with it any image is called a cat
    called = (clean[judging[labels[judging] != 0]] == 0).float().mean().item()
    assert joint.insertion.change.value == pytest.approx(1 - called) and joint.insertion.beyond
    assert min(joint.removal.controls) > change / 2 and joint.background is not None and joint.background.beyond


def test_without_masks_nothing_is_proven_but_the_cue_comes_first(model: circuits.Model) -> None:
    images = photographs()
    images.annotations = None
    audited = circuits.audit(model, images, layers=["relu"], classes=["cat"], describe=0)
    first = audited.suspects[0]
    assert first.unit == "handmade/relu:0" and first.verdict == "possible" and not audited.claimed
    assert first.border == pytest.approx(0.75) and first.off_object is None  # the corner cell of a 4 x 4 grid
    groups = ["red" if np.asarray(image)[0, -1, 0] > 200 else "plain" for image in images]
    by_group = circuits.audit(model, images, layers=["relu"], classes=["cat"], groups=groups, describe=0)
    red, plain = (next(g for g in by_group.groups if (g.class_name, g.group) == ("cat", n)) for n in ("red", "plain"))
    assert by_group.claimed[0].group == "red" and red.accuracy.value == 1 > plain.accuracy.value


def test_without_masks_the_class_whose_evidence_lies_farthest_out_comes_first(
    model: circuits.Model, tmp_path: Path
) -> None:
    images = photographs()
    images.annotations = None
    audited = circuits.audit(model, images, layers=["relu"], describe=0)
    cat, dog = (next(c for c in audited.classes if c.class_name == name) for name in ("cat", "dog"))
    assert cat.distance is not None and dog.distance is not None and cat.distance.low > dog.distance.high
    # of dogs one unit counts, whose evidence is the object: cells of 8 pixels around the center, and some beyond
    (unit,) = [s for s in dog.suspects if s.share > 0.5]
    assert dog.distance.value == pytest.approx(sum(s.share * s.border for s in dog.suspects) / sum(
        s.share for s in dog.suspects
    )) and unit.border < 0.5  # fmt: skip
    assert [s.class_name for s in audited.suspects][: len(cat.suspects)] == ["cat"] * len(cat.suspects)
    text = audited.report(tmp_path / "report.html").read_text("utf-8")
    assert text.count('class="card"') == min(5, len(audited.suspects)) and "from the center" in text
    assert "Images of cat with it" in text and "lies on the object" not in text  # nobody knows where the objects are
    near = replace(dog, distance=replace(dog.distance, high=cat.distance.low))  # as far, for all that is known
    for others, named in ((dog, True), (near, False)):
        classes = tuple(replace(c, suspects=(), joint=None) for c in (cat, others))
        assert ("Look at the images of cat first" in lead(replace(audited, classes=classes))) == named
    swapped = replace(audited, classes=(replace(cat, distance=dog.distance), replace(dog, distance=cat.distance)))
    assert swapped.suspects[0].class_name == "dog"


def test_a_class_whose_score_never_varies_is_left_out_and_the_others_are_audited(model: circuits.Model) -> None:
    images = photographs()
    red = [np.asarray(image)[0, -1, 0] > 200 for image in images]
    plain = images.subset([i for i in range(len(images)) if i % 3 != 2 or not red[i]])  # no unit is active on a bird
    audited = circuits.audit(model, plain, layers=["relu"], classes=["dog", "bird"], describe=0)
    assert [c.class_name for c in audited.classes] == ["dog"]
    assert audited.omitted == {"bird": "its score is the same on all of its images"}
    with pytest.raises(CircuitsError, match="no class can be audited: bird: its score is the same"):
        circuits.audit(model, plain, layers=["relu"], classes=["bird"], describe=0)


def test_an_effect_counts_where_it_exceeds_its_controls() -> None:
    none, some = (0.0,) * 20, tuple(-0.01 * i for i in range(20))
    assert Effect(Estimate(-0.3, -0.4, -0.2), some).beyond and not Effect(Estimate(-0.1, -0.2, -0.05), some).beyond
    assert not Effect(Estimate(-0.1, -0.2, 0.0), none).beyond and Effect(Estimate(0.1, 0.05, 0.2), some).beyond
    assert Effect(Estimate(-0.1, -0.2, -0.05), some).limit == pytest.approx(np.quantile(some, 0.05))


def test_the_effect_is_needed_besides_the_place(audited: circuits.Audit) -> None:
    proven = audited.claimed[0]
    weak = Effect(Estimate(-0.02, -0.1, 0.0), (0.0,) * 20)
    assert judged(replace(proven, removal=weak, insertion=weak, background=weak)).verdict == "no"
    assert judged(replace(proven, off_object=Estimate(0.6, 0.4, 0.8))).verdict == "no"


def test_an_audit_that_was_stopped_goes_on_to_the_same_result(model: circuits.Model, tmp_path: Path) -> None:
    images = photographs()

    def stop(done: int, total: int) -> None:
        if done > total // 3:  # in the second class
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        circuits.audit(model, images, layers=["relu"], classes=["cat", "dog"], store=tmp_path / "a", progress=stop)
    assert len(list((tmp_path / "a").glob("class-*"))) == 1
    again = circuits.audit(model, images, layers=["relu"], classes=["cat", "dog"], store=tmp_path / "a", describe=1)
    whole = circuits.audit(model, images, layers=["relu"], classes=["cat", "dog"], describe=1)
    assert again.save(tmp_path / "x").read_bytes() == whole.save(tmp_path / "y").read_bytes()
    with pytest.raises(CircuitsError, match="holds an audit with other top: give another folder"):
        circuits.audit(model, images, layers=["relu"], store=tmp_path / "a", top=1)


def test_progress_is_reported_within_a_class_and_within_the_descriptions(model: circuits.Model) -> None:
    steps: list[tuple[int, int]] = []
    circuits.audit(
        model, photographs(), layers=["relu"], classes=["cat"], random=2, describe=1,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    done, totals = zip(*steps, strict=True)
    assert list(done) == sorted(done) and set(totals) == {done[-1]}
    each = totals[0] - PARTS  # evidence of pixels and of a layer, backgrounds, a suspect; labels and a visualization
    assert {1, 2, 3, 4, each, *range(each + 1, totals[0] + 1)} <= set(done)


def test_what_does_not_fit_is_refused_in_one_line(model: circuits.Model, tmp_path: Path) -> None:
    images = photographs()
    cats = images.subset(range(0, len(images), 3))
    with pytest.raises(CircuitsError, match="all images of list are of cat: an audit holds"):
        circuits.audit(model, cats)
    with pytest.raises(CircuitsError, match="cow"):
        circuits.audit(model, images, labels=["cow"] * len(images))
    shifted = [(label + 1) % 3 for label in images.labels or ()]
    with pytest.raises(CircuitsError, match=r"is right on 0\.\d\d of the images of a class, by chance it were 0\.33"):
        circuits.audit(model, images, labels=shifted)
    with pytest.raises(CircuitsError, match="3 groups for the 120 images"):
        circuits.audit(model, images, groups=["a", "b", "c"])
    with pytest.raises(ImageError, match="there is no image in the folder"):
        circuits.audit(model, tmp_path)
    for i in range(12):
        images[i].save(tmp_path / f"{i}.png")
    with pytest.raises(CircuitsError, match="the class of the images of .* is not known: put those of each class"):
        circuits.audit(model, tmp_path)
    (tmp_path / "groups.csv").write_text("file,kind\n0.png,a\n")
    with pytest.raises(CircuitsError, match="has the columns file, kind: groups are a CSV file"):
        circuits.audit(model, tmp_path, groups=tmp_path / "groups.csv")


def test_a_rare_class_and_one_without_masks_are_left_out_and_said_so(model: circuits.Model) -> None:
    images = photographs()
    few = [i for i in range(120) if i % 3 or i < 9]
    rare = halves(model, images.subset(few))
    assert rare.omitted == {"cat": "3 images, fewer than the 10 that two halves need"} and rare.classes == (1, 2)
    alone = images.subset([*range(0, 120, 3), 1])
    with pytest.raises(CircuitsError, match="cat: 1 images of other classes to hold it against, fewer than the 10"):
        halves(model, alone)
    assert images.annotations is not None
    blank = images.annotated([Annotation("", ()) if i % 3 == 1 else a for i, a in enumerate(images.annotations)])
    assert "0 of its 20 images to find on are outlined" in halves(model, blank).omitted["dog"]
    nothing = images.annotated([Annotation("", ())] * 120)
    with pytest.raises(CircuitsError, match="no class can be audited: cat: 0 of its 20 images to find on"):
        circuits.audit(model, nothing, layers=["relu"])


def test_copies_of_an_image_lie_in_one_half(model: circuits.Model, tmp_path: Path) -> None:
    images = photographs()
    for i in range(60):
        name = ("cat", "dog", "bird")[i % 3]
        for copy in range(2):
            path = tmp_path / name / ("red" if i % 2 else "plain") / f"{i}-{copy}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(images[i])).save(path)
    given = halves(model, tmp_path, "folders")
    numbers = [
        {given.images.ids[i].rpartition("/")[2].partition("-")[0] for i in half}
        for half in (given.finding, given.judging)
    ]
    assert not numbers[0] & numbers[1] and len(numbers[0] | numbers[1]) == 60
    assert given.groups is not None and set(given.groups) == {"red", "plain"}
