"""The car story on photographs, on drawn cars in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

import circuits
from apps.cli.common import Session
from apps.cli.output import photo_demo
from apps.cli.output.photo_demo import Photographs, UnitStory, car_stories, result_of
from apps.cli.output.photo_story import PartLoss, Story, centroid, elsewhere, filled, occlusions, part_losses
from circuits.common.statistics import Estimate
from tests import nets
from tests.apps.terminal import Cli, is_refused
from zoo.images.sources import Images, open_images

LAYERS = ("mixed3b", "mixed4a")
PARTS = ("wheel", "window", "car_body")


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    images = open_images("scenes:312")
    assert images.labels is not None and images.classes is not None
    car = images.classes.index("car")
    cars, others = ([i for i, label in enumerate(images.labels) if (label == car) is same] for same in (True, False))
    return Photographs(images.subset(cars), images.subset(others[:48]), images.subset(cars))


@pytest.fixture(scope="module")
def stories(photographs: Photographs) -> list[UnitStory]:
    model = circuits.load("scenes")
    return car_stories(Session("circuits demo"), model, photographs, layers=LAYERS, parts=PARTS, units=1)


def test_drawn_cars_have_their_parts_named_and_used(stories: list[UnitStory]) -> None:
    (story,) = stories
    names = {row["part"] for row in story.parents if row["named"]}
    assert {"wheel", "window"} <= names, story.parents
    assert {loss.part for loss in story.losses if loss.used} >= {"wheel"}, story.losses
    assert all(loss.elsewhere is not None for loss in story.losses)
    assert story.height is not None and story.height.lower > story.height.upper  # wheels below windows
    rest = story.circuit.rest[0]
    whole = sum(edge.strength for edge in story.circuit.edges) + rest.strength  # of all units, also those not traced
    assert [row["share"] for row in story.parents] == pytest.approx([r["strength"] / whole for r in story.parents])
    score = story.circuit.score
    assert score is not None and score.comparison is not None and score.strong_faithfulness
    assert story.describe()["losses"][0]["used"] in (True, False)


def test_what_a_unit_loses_is_what_edits_take_from_its_peak(photographs: Photographs) -> None:
    model = circuits.load("scenes")
    assert photographs.annotated is not None
    activity = circuits.capture(model, photographs.cars, LAYERS[0])[LAYERS[0]].mean(dim=(0, 2, 3))
    tops = {"wheel": [39, 6], "window": [46]}
    story = Story(
        model, *LAYERS, photographs.others, photographs.annotated, activity, tops, torch.Generator().manual_seed(1)
    )
    occluded = occlusions(story, controls=["wheel"])
    reference = circuits.capture(model, photographs.others, LAYERS[0])[LAYERS[0]]
    rows = {row.part: row for row in part_losses(story, occluded, f"{LAYERS[1]}:11", reference)}

    def peak(pixels: torch.Tensor, edits: list[circuits.Ablate]) -> torch.Tensor:
        with circuits.edit(model, edits, reference=photographs.others):
            return circuits.capture(model, pixels, LAYERS[1])[LAYERS[1]][:, 11].flatten(1)

    clean = peak(occluded.pixels, [])
    at = clean.argmax(dim=1, keepdim=True)
    before = clean.gather(1, at)[:, 0]
    cut = peak(occluded.pixels, [circuits.Ablate(f"{LAYERS[0]}:{u}", to="mean") for u in tops["wheel"]])
    there = occluded.visible["wheel"] & (before > 0)
    lost = (before - cut.gather(1, at)[:, 0])[there].mean() / before[there].mean()
    assert rows["wheel"].ablated.value == pytest.approx(float(lost), abs=1e-4)
    without = peak(filled(occluded.pixels, occluded.masks["wheel"]), [])
    lost = (before - without.gather(1, at)[:, 0])[there].mean() / before[there].mean()
    assert rows["wheel"].occluded.value == pytest.approx(float(lost), abs=1e-4)
    assert rows["wheel"].n_images == int(there.sum()) and rows["window"].elsewhere is None
    mask = occluded.masks[elsewhere("wheel")]
    assert not (mask & occluded.masks["wheel"]).any() and mask.any()


def test_the_centroid_of_weights_is_how_far_below_the_middle_they_lie() -> None:
    kernels = torch.zeros(2, 3, 3)
    kernels[0, 2, 1], kernels[1, 1, 0], kernels[1, 0, 0] = 3.0, 1.0, -5.0  # what inhibits does not count
    assert centroid(kernels) == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("occlusion", "ablation", "used"),
    [((0.3, 0.5), (0.3, 0.5), True), ((0.0, 0.5), (0.3, 0.5), False), ((0.3, 0.5), (0.0, 0.5), False)],
)
def test_a_part_is_used_where_both_losses_lie_above_their_controls(
    occlusion: tuple[float, float], ablation: tuple[float, float], used: bool
) -> None:
    def share(ends: tuple[float, float]) -> Estimate:
        return Estimate(sum(ends) / 2, *ends)

    assert PartLoss("wheel", 9, share(occlusion), share((0, 0.1)), share(ablation), share((0, 0.1)), 0, 0).used is used


def test_the_report_and_the_verdict(photographs: Photographs, stories: list[UnitStory], tmp_path: Path) -> None:
    result = result_of(Session("circuits demo"), circuits.load("scenes"), photographs, stories, 0, 0)
    console = Console(width=200, record=True)
    result.show(console)
    text = " ".join(console.export_text().split())
    assert "parents named by masks" in text and "% of the mask's share" in text and "of equal activity" in text
    assert result.write is not None
    result.write(tmp_path)
    name = stories[0].circuit.target.rpartition("/")[2].replace(":", "-")
    assert (tmp_path / name / "circuit.png").is_file() and (tmp_path / name / "index.html").is_file()
    # a picture of nothing but empty boxes is none
    assert not (tmp_path / f"{name}.png").exists()


def test_without_outlines_parents_have_no_names(photographs: Photographs) -> None:
    def few(images: Images) -> Images:
        return images.spread(16)

    bare = Photographs(few(photographs.cars), few(photographs.others), None)
    (story,) = car_stories(Session("circuits demo"), circuits.load("scenes"), bare, layers=LAYERS, units=1)
    assert story.losses == [] and "part" not in story.parents[0] and story.circuit.score is not None


def test_what_is_missing_is_named_in_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CIRCUITS_DATA", raising=False)
    ran = cli("demo", "googlenet-bvlc")
    assert is_refused(ran) and "--cars FOLDER" in ran.err
    monkeypatch.setenv("CIRCUITS_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CIRCUITS_HOME", str(tmp_path))
    Image.new("RGB", (8, 8)).save(tmp_path / "photograph.png")
    ran = cli("demo", "googlenet-bvlc", "--cars", tmp_path, "--others", tmp_path)
    assert is_refused(ran) and "bvlc_googlenet" in ran.err
    assert is_refused(cli("demo", "scenes", "--cars", tmp_path))


class _Branches(nn.Module):
    """A unit behind a 3x3 convolution, and one behind a max pool."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.conv = nn.Conv2d(4, 1, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.mixed = nn.Conv2d(4, 1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        return torch.cat([self.conv(x), self.mixed(self.pool(x))], dim=1).relu()


def test_a_unit_behind_a_pool_has_no_height_and_one_behind_a_convolution_has() -> None:
    module = _Branches().eval()
    with torch.no_grad():
        module.conv.weight.zero_()
        module.conv.weight[0, 0, 2, 1] = 2.0  # unit 0 excites it from below, unit 1 from above
        module.conv.weight[0, 1, 0, 1] = 1.0
        module.mixed.weight.fill_(1.0)
    model = nets.wrap(module, 8)
    target = model.trunk[-1]
    some: Any = None
    story = Story(
        model=model,
        source="relu",
        target=target,
        others=some,
        annotated=some,
        activity=torch.ones(4),
        tops={"wheel": [0], "glass": [1]},
        generator=torch.Generator().manual_seed(0),
    )
    height = photo_demo._height(story, f"{target}:0", ["wheel", "glass"])
    assert height is not None
    assert (height.lower, height.upper, height.difference) == pytest.approx((1, -1, 2))
    assert photo_demo._height(story, f"{target}:1", ["wheel", "glass"]) is None
