"""Units against parts that are known: the figures are those of their definitions, and luck is not scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import circuits
import sae
from circuits import plot
from circuits.dataset.part_labels import part_grid, part_labels, part_scores
from circuits.errors import AddressError, CircuitsError
from circuits.network.basis import Directions
from circuits.plot.sae.latent_quality import part_dots
from sae.errors import SAEError
from sae.evaluation.part_agreement import agreement
from sae.evaluation.part_detection import MEASURES, PartComparison, compare

IMAGES = "scenes:60@31"


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    return circuits.load("scenes", device="cpu")


def linear(rows: torch.Tensor) -> sae.SAE:
    """An SAE that reads along the rows and rectifies."""
    made = sae.build(sae.ReLU(latents=len(rows)), rows.shape[1])
    with torch.no_grad():
        made.encoder.copy_(rows)
        made.decoder.copy_(rows)
    return made.requires_grad_(False)


def rotation(d: int) -> torch.Tensor:
    drawn = torch.randn(d, d, generator=torch.Generator().manual_seed(5))
    turned: torch.Tensor = torch.linalg.qr(drawn).Q
    return turned


@pytest.fixture(scope="module")
def found(model: circuits.Model) -> PartComparison:
    saes = {"same": linear(torch.eye(48)), "turned": linear(rotation(48))}
    return compare(model, "mixed3b", saes, IMAGES, draws=60)


# -- AUC and IoU -----------------------------------------------------------------------------------------


def some(n: int = 300, units: int = 4, parts: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inside = torch.rand(n, parts, generator=generator) < 0.15
    absent = ~inside & (torch.rand(n, parts, generator=generator) < 0.7)
    acts = torch.randn(n, units, generator=generator) + inside[:, :1] * torch.arange(units)
    acts[:, 1] = (acts[:, 1] * 2).round() / 2  # many ties
    acts[:, 2] = acts[:, 2].relu() * (torch.rand(n, generator=generator) < 0.3)  # mostly silent
    return acts, inside, absent


def test_auc_is_that_of_scikit_learn_and_iou_that_of_trying_every_threshold() -> None:
    acts, inside, absent = some()
    got = agreement(acts, inside, absent)
    for u in range(acts.shape[1]):
        for k in range(inside.shape[1]):
            rows = inside[:, k] | absent[:, k]
            expected = roc_auc_score(inside[rows, k].numpy(), acts[rows, u].numpy())
            assert float(got.auc[u, k]) == pytest.approx(expected, abs=1e-9)
            tried = {}
            for level in set(acts[:, u].tolist()):
                above = acts[:, u] >= level
                tried[level] = float((above & inside[:, k]).sum() / (above | inside[:, k]).sum())
            assert float(got.iou[u, k]) == pytest.approx(max(tried.values()), abs=1e-6)
            assert tried[float(got.threshold[u, k])] == pytest.approx(max(tried.values()), abs=1e-6)


def test_a_silent_unit_is_at_chance_and_a_mask_itself_is_perfect() -> None:
    _, inside, absent = some()
    acts = torch.stack([torch.zeros(len(inside)), inside[:, 0].float()], dim=1)
    got = agreement(acts, inside, absent)
    assert got.auc[0].tolist() == [0.5] * 3
    assert got.iou[0].tolist() == pytest.approx(inside.double().mean(dim=0).tolist())
    assert (float(got.auc[1, 0]), float(got.iou[1, 0]), float(got.threshold[1, 0])) == (1.0, 1.0, 1.0)


# -- part_scores -----------------------------------------------------------------------------------------


def test_latents_are_scored_like_channels() -> None:
    model = circuits.load("scenes", device="cpu")
    model.attach("mixed3b", "same", Directions(torch.eye(48).flip(0)))
    channels, latents = part_scores(model, "mixed3b", IMAGES), part_scores(model, "mixed3b~same", IMAGES)
    assert channels.keys() == latents.keys() and len(channels) > 20
    assert all(torch.equal(latents[part].flip(0), channels[part]) for part in channels)
    labels = part_labels(model, "mixed3b~same", IMAGES, at_least=0.97)
    assert {row.unit for row in labels} < {f"scenes/mixed3b~same:{i}" for i in range(48)}
    own = {row.unit: row.part for row in part_labels(model, "mixed3b", IMAGES, at_least=0.97)}
    assert {f"scenes/mixed3b:{47 - int(r.unit.rpartition(':')[2])}": r.part for r in labels} == own


def test_a_grid_has_the_positions_of_parts_and_the_images_with_each(model: circuits.Model) -> None:
    grid = part_grid(model, "mixed3b", IMAGES)
    assert grid.inside.shape == (60, len(grid.parts), 8, 8) and grid.present.shape == (60, len(grid.parts))
    assert bool((grid.inside.flatten(2).any(dim=2) <= grid.present).all())
    assert torch.equal(part_grid(model, "mixed4a", IMAGES).present, grid.present)


def test_a_single_unit_a_layer_without_positions_and_images_without_parts_are_refused(model: circuits.Model) -> None:
    with pytest.raises(AddressError, match="whole layer"):
        part_scores(model, "mixed3b:4", IMAGES)
    with pytest.raises(AddressError, match="no basis"):
        part_scores(model, "mixed3b~nowhere", IMAGES)
    with pytest.raises(CircuitsError, match="no positions"):
        part_scores(model, "softmax_pre", IMAGES)
    with pytest.raises(CircuitsError, match="no parts annotated"):
        part_scores(model, "mixed3b", torch.rand(2, 3, 64, 64))


# -- compare ---------------------------------------------------------------------------------------------


def test_the_channels_as_a_dictionary_are_as_good_as_the_channels(found: PartComparison) -> None:
    for measure in MEASURES:
        assert torch.equal(found["same"].best(measure), found["channels"].best(measure))
        less = found.difference("same", measure=measure)
        assert (less.value, less.low, less.high) == (0.0, 0.0, 0.0)
        assert found.wins("same", measure=measure) == 0


def test_trained_channels_beat_the_same_space_rotated_and_random_directions(found: PartComparison) -> None:
    assert found.mean("channels").value > 0.95
    for name in ("turned", "same random"):
        assert found.difference(name, measure="iou").high < 0
    assert found.difference("same random").high < 0


def test_a_score_lies_in_its_interval_and_its_auc_is_that_of_the_channel(
    model: circuits.Model, found: PartComparison
) -> None:
    for name in ("channels", "turned", "turned random"):
        for measure in MEASURES:
            mean = found.mean(name, measure)
            assert mean.low <= mean.value <= mean.high and 0 < mean.high - mean.low < 0.3
            assert found[name].bootstrap[measure].shape == (60, len(found.parts))
            # over many draws the mean is near the score of the pictures themselves
            assert found[name].bootstrap[measure].nanmean() == pytest.approx(mean.value, abs=0.03)


def test_what_is_best_by_luck_is_not_scored(found: PartComparison) -> None:
    control = found["turned random"]
    for measure in MEASURES:
        lucky = control.chosen_by[measure].amax(dim=0).mean()
        assert float(lucky) > float(control.best(measure).mean())
        assert float(control.best(measure).mean()) <= float(control.scores[measure].amax(dim=0).mean())


def test_of_all_units_the_best_is_the_best_and_of_fewer_it_is_worse(found: PartComparison) -> None:
    one = found["channels"]
    assert one.of_some(48, draws=3).tolist() == pytest.approx(one.best().tolist())
    few = [float(one.of_some(n, "iou").mean()) for n in (1, 8, 24, 48)]
    assert few == sorted(few) and few[0] < few[-1] / 2
    with pytest.raises(SAEError, match="48 units; 49"):
        one.of_some(49)


def test_every_unit_has_its_best_part(model: circuits.Model, found: PartComparison) -> None:
    rows = found.units("channels")
    assert [r["unit"] for r in rows] == [f"scenes/mixed3b:{i}" for i in range(48)]
    chosen = found["channels"].chosen("auc")
    hit = [rows[int(i)]["auc"]["part"] == part for i, part in zip(chosen, found.parts, strict=True)]
    assert np.mean(hit) > 0.7  # the best unit for a part has that part for its best, taught as it was
    assert found.units("turned")[3]["unit"] == "scenes/mixed3b~turned:3"


def test_the_comparison_is_json_and_a_figure(found: PartComparison, tmp_path: Path) -> None:
    said = json.loads(json.dumps(found.describe(units=True)))
    names = [d["name"] for d in said["dictionaries"]]
    assert names == ["channels", *(f"{n}{c}" for n in ("same", "turned") for c in ("", " random", " linear"))]
    assert len(said["dictionaries"][0]["each"]) == 48 and "each" not in said["dictionaries"][2]
    assert said["pictures"] == {"choosing": 30, "scoring": 30}
    plot.save_figure(found.figure(), tmp_path / "parts.png")
    assert (tmp_path / "parts.png").stat().st_size > 5000


def test_the_same_seed_gives_the_same_figures(model: circuits.Model) -> None:
    saes = {"turned": linear(rotation(48))}
    a, b, c = (compare(model, "mixed3b", saes, "scenes:40@3", draws=5, seed=s).describe() for s in (1, 1, 2))
    assert a == b and a["dictionaries"] != c["dictionaries"]


def test_bad_arguments_are_refused(model: circuits.Model) -> None:
    one = linear(torch.eye(48))
    with pytest.raises(SAEError, match="at least one SAE"):
        compare(model, "mixed3b", {}, IMAGES)
    with pytest.raises(SAEError, match="the layer's own"):
        compare(model, "mixed3b", {"channels": one}, IMAGES)
    with pytest.raises(SAEError, match="reads 48 channels; scenes/mixed3a has 68"):
        compare(model, "mixed3a", {"x": one}, IMAGES)
    with pytest.raises(SAEError, match="frequent enough"):
        compare(model, "mixed3b", {"x": one}, "scenes:2")
    with pytest.raises(CircuitsError, match="no parts annotated"):
        compare(model, "mixed3b", {"x": one}, torch.rand(4, 3, 64, 64))
    with pytest.raises(CircuitsError, match="score for each of 2 parts"):
        part_dots(["a", "b"], {"channels": {"auc": [[0.5]]}})
    with pytest.raises(CircuitsError, match="kinds of units"):
        part_dots([], {})


def test_a_dictionary_that_was_not_judged_is_named(found: PartComparison) -> None:
    with pytest.raises(SAEError, match="no dictionary 'elsewhere' was judged"):
        found["elsewhere"]
