"""Studies of steering: effects, capability and side effects whose values are known, and their controls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import circuits
import sae
from circuits.errors import CircuitsError
from circuits.plot.drawing.canvas import save_figure
from circuits.plot.sae.steering import steering_figure
from sae.data.vision_site import VisionSite
from sae.errors import SAEError
from sae.steering import Channels, EqualStep, LatentEdit, When, maxima, search_label, steer, steered
from sae.steering.side_effects import on_outcomes
from sae.steering.study import study
from sae.steering.study_result import Study, sweet_spot
from sae.superposition import geometry
from tests import nets
from tests.sae.data.test_vision import trained
from zoo.images.sources import open_images

FACTORS = (-2.0, -1.0, 0.0, 1.0, 2.0)


@pytest.fixture(scope="module")
def planted() -> VisionSite:
    return VisionSite(nets.planted(), "objects")


@pytest.fixture(scope="module")
def known(planted: VisionSite) -> Study:
    return study(
        planted, None, nets.CAR, nets.clutter(12), targets=[0], factors=FACTORS, measure="score",
        capability="agreement", random=2,
    )  # fmt: skip


def test_on_the_planted_net_the_effect_is_the_weight_times_the_step(planted: VisionSite, known: Study) -> None:
    acts = circuits.capture(planted.model, nets.clutter(12), ["objects"])["objects"]
    top, mean = float(acts[:, nets.CAR].max()), float(acts[:, nets.CAR].mean())
    assert known.maximum == pytest.approx(top) and known.length == pytest.approx(top)
    wanted = known.effect.clean + 2.0 * (np.array(FACTORS) * top - mean)
    assert known.effect.values == pytest.approx(wanted, abs=1e-3)
    # the rest of the net is linear, so that first order is exact
    assert known.first_order == pytest.approx(wanted, abs=1e-2)
    other = known.side_effects["classes"]
    assert other.units == ("logits:1",) and other.measured[0] == pytest.approx(-2.0 * (2 * top - mean), abs=1e-3)
    assert other.predicted[0] == pytest.approx(other.measured[0], abs=1e-2)
    # the two other channels weigh the class with -1 and 0.5, and make steps as long at every position
    step = np.array(FACTORS) * top - mean
    for row, weight in zip(known.effect.random, (-1.0, 0.5), strict=True):
        assert row == pytest.approx(known.effect.clean + weight * step, abs=1e-3)
    assert known.control_lengths == (known.length, known.length)
    # of eight controls only the first principal component, the car and a little of its evidence, does more
    assert known.beaten(2.0) == 7 / 8 and known.beaten(-2.0) == 1 / 8


def test_directions_make_steps_as_long(planted: VisionSite, known: Study) -> None:
    acts = circuits.capture(planted.model, nets.clutter(12), ["objects"])["objects"]
    step = np.array(FACTORS) * float(acts[:, nets.CAR].max()) - float(acts[:, nets.CAR].mean())
    vectors = acts.movedim(1, -1).flatten(0, 2).double().numpy()
    _, _, axes = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    weights = np.zeros(3)
    weights[[nets.CAR, nets.BOUNDARY, nets.MIXTURE]] = 2.0, -1.0, 0.5
    names = known.directions
    assert names == (*(f"random direction {i}" for i in range(1, 5)), "principal component 1", "principal component 2")
    for row, axis in zip(known.effect.directions[4:], axes, strict=False):
        along = float(weights @ axis)
        reach = ((vectors - vectors.mean(axis=0)) @ axis) ** 3
        assert row == pytest.approx(known.effect.clean + np.sign(reach.sum()) * along * step, abs=1e-3)
    slopes = (known.effect.directions[:4] - known.effect.clean) / step
    assert slopes == pytest.approx(np.repeat(slopes[:, :1], len(FACTORS), axis=1), abs=1e-3)
    assert (np.abs(slopes) <= np.linalg.norm(weights) + 1e-3).all() and len(set(slopes[:, 0].round(4))) == 4
    again = study(
        planted, None, nets.CAR, nets.clutter(12), targets=[0], factors=(1,), measure="score", capability="agreement",
        random=2, directions=1, components=0,
    )  # fmt: skip
    assert again.directions == ("random direction 1",)
    assert again.effect.directions[0, 0] == known.effect.directions[0, FACTORS.index(1)]


def test_steps_of_ones_own_are_multiples_of_ones_own_maximum(planted: VisionSite) -> None:
    acts = circuits.capture(planted.model, nets.clutter(12), ["objects"])["objects"]
    found = study(
        planted, None, nets.CAR, nets.clutter(12), targets=[0], factors=FACTORS, measure="score",
        capability="agreement", random=2, step="own", directions=0, components=0,
    )  # fmt: skip
    channels = (nets.BOUNDARY, nets.MIXTURE)
    for row, length, channel, weight in zip(
        found.effect.random, found.control_lengths, channels, (-1.0, 0.5), strict=True
    ):
        own = acts[:, channel]
        step = np.array(FACTORS) * float(own.max()) - float(own.mean())
        assert row == pytest.approx(found.effect.clean + weight * step, abs=1e-3)
        assert length == pytest.approx(float(own.max()))


def test_channels_leave_the_others_of_their_layer_alone(known: Study) -> None:
    assert set(known.side_effects) == {"classes"}


@pytest.mark.parametrize(("kind", "moved"), [("set", (-1, 0, 1)), ("add", (-1, 0, 1)), ("scale", (-1, 0, 1))])
def test_every_kind_of_study_edit_equals_steering(planted: VisionSite, kind: Any, moved: tuple[float, ...]) -> None:

    pictures = nets.clutter(6)
    found = study(
        planted, None, nets.CAR, pictures, targets=[0], factors=moved, kind=kind, measure="score",
        capability="agreement", random=1, positions=((12, 16), (3, 3)),
    )  # fmt: skip
    known = maxima(None, planted, pictures)
    for factor, value in zip(moved, found.effect.values, strict=True):
        edit = LatentEdit(
            nets.CAR, kind, float(factor), "absolute" if kind == "scale" else "max", at=((12, 16), (3, 3))
        )
        with steer(planted, None, [edit], maxima=known):
            logits = planted.model(pictures).detach()
        assert value == pytest.approx(float(logits[:, 0].mean()), abs=1e-4)
    assert found.first_order == pytest.approx(found.effect.values, abs=1e-2)
    assert not found.everywhere


def test_a_downstream_change_follows_from_the_weights() -> None:
    model = nets.planted()
    site, later = VisionSite(model, "parts"), VisionSite(model, "objects_pre")
    found = study(
        site, None, nets.WINDOW, nets.clutter(8), targets=[0], factors=(-1, 0, 1), kind="add",
        capability="agreement", random=2, downstream=(later, None),
    )  # fmt: skip
    one = found.side_effects["downstream"]
    assert len(one.control) == 2 and (np.abs(one.control) > 1e-6).all()
    # a window added everywhere: the car's kernel for it times how many of its taps lie on the map
    weights = model.module.get_submodule("objects_pre").weight[:, nets.WINDOW]  # type: ignore[index]
    acts = torch.ones(1, 1, 32, 32) * found.maximum
    wanted = torch.nn.functional.conv2d(acts, weights[:, None], padding=2).mean(dim=(0, 2, 3))
    indices = [int(u.rpartition(":")[2]) for u in one.units]
    assert one.measured == pytest.approx(wanted.detach()[indices].numpy(), abs=1e-3)
    assert one.predicted == pytest.approx(one.measured, abs=1e-2)


@pytest.mark.parametrize(
    ("values", "clean", "lower", "spot"),
    [
        ([0.2, 0.88, 0.9, 0.9, 0.5], 0.9, False, (-1.0, 1.0)),
        ([0.9, 0.1, 0.9, 0.9, 0.9], 0.9, False, (0.0, 2.0)),  # what holds beyond a gap is no part of it
        ([0.9, 0.9, 0.5, 0.9, 0.9], 0.9, False, None),
        ([5.0, 2.05, 2.0, 1.5, 2.2], 2.0, True, (-1.0, 1.0)),
    ],
)
def test_the_sweet_spot_is_where_capability_holds_around_no_change(
    values: list[float], clean: float, lower: bool, spot: tuple[float, float] | None
) -> None:
    assert sweet_spot(FACTORS, values, clean, 0.05, lower=lower) == spot


# -- latents of scenes ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site() -> VisionSite:
    return VisionSite(circuits.load("scenes", device="cpu"), "mixed3b")


@pytest.fixture(scope="module")
def parts(site: VisionSite) -> sae.SAE:
    return trained(site).sae.requires_grad_(False)


@pytest.fixture(scope="module")
def wheels(site: VisionSite, parts: sae.SAE) -> Study:
    """The latent that best answers to wheels, set in the lower half of the map, where wheels are."""
    pictures = open_images("scenes:26@5")
    best = search_label(parts, site, "scenes:200@3", "wheel", shuffles=2).best.latent
    low = tuple((y, x) for y in (4, 5, 6) for x in range(8))
    return study(
        site,
        parts,
        best,
        pictures,
        targets=["car", "truck", "bus"],
        factors=(-1, 0, 0.5, 1, 2),
        positions=low,
        random=4,
    )


def test_wheels_in_the_lower_half_make_vehicles(wheels: Study) -> None:
    rise = wheels.effect.values - wheels.effect.clean
    assert rise[-1] > 0.1 and rise[0] < 0
    assert wheels.beaten(2.0) >= 0.75
    assert rise[-1] > 2 * float(np.median(wheels.effect.random[:, -1] - wheels.effect.clean))


def test_capability_falls_at_large_factors(wheels: Study) -> None:
    assert wheels.capability.what == "top1" and wheels.capability.clean > 0.85
    assert wheels.capability.values[-1] < wheels.capability.clean - 0.2
    assert wheels.sweet_spot is not None and wheels.sweet_spot[1] < 2
    holds = wheels.capability.values >= 0.95 * wheels.capability.clean
    low, high = (wheels.factors.index(f) for f in wheels.sweet_spot)
    assert holds[low : high + 1].all() and not (high + 1 < len(holds) and holds[high + 1])


def test_geometry_predicts_which_other_latents_change_and_that_of_random_latents_does_not(
    parts: sae.SAE, wheels: Study
) -> None:
    one = wheels.side_effects["latents"]
    assert one.correlation > 0.3 and one.correlation > np.nanmax(one.control) + 0.1
    assert len(one.units) + one.silent >= 95 - 1
    read, write = parts.read.detach().double().numpy(), parts.write.detach().double().numpy()
    columns = np.array([int(unit.rpartition(":")[2]) for unit in one.units])
    for unit, correlation in zip(wheels.control, one.control, strict=True):
        latent = int(unit.rpartition(":")[2])
        rest = columns != latent  # its own step is no side effect
        predicted = read[columns[rest]] @ write[latent]
        assert correlation == pytest.approx(spearmanr(predicted, one.measured[rest]).statistic, abs=1e-9)


def test_controls_are_the_rank_correlations_of_random_latents_over_the_other_outcomes() -> None:
    random = np.random.default_rng(0)
    predicted, measured, controls = random.normal(size=9), random.normal(size=9), random.normal(size=(4, 9))
    effects = on_outcomes([f"c{i}" for i in range(9)], predicted, controls, measured, [2, 5], 1.0)
    others = [0, 1, 3, 4, 6, 7, 8]
    expected = [spearmanr(row[others], measured[others]).statistic for row in controls]
    assert effects.control == pytest.approx(expected) and len(set(effects.control.tolist())) == 4
    assert effects.correlation == pytest.approx(spearmanr(predicted[others], measured[others]).statistic)


def test_the_prediction_is_the_geometrys_effect_times_the_step(parts: sae.SAE, wheels: Study) -> None:
    one = wheels.side_effects["latents"]
    found = geometry(parts, neighbors=parts.latents - 1)
    read, write = parts.read.detach().double(), parts.write.detach().double()
    effects = dict(zip(found.neighbors[wheels.latent].tolist(), found.effects[wheels.latent].tolist(), strict=True))
    own = (read * write).sum(dim=1)
    ratio = [
        p / (effects[int(u.rpartition(":")[2])] * float(own[int(u.rpartition(":")[2])]))
        for u, p in zip(one.units, one.predicted, strict=True)
    ]
    # one mean shift for all, above 0 at a factor above 0
    assert np.ptp(ratio) < 1e-6 * abs(ratio[0]) and ratio[0] > 0


def test_the_study_is_json_and_the_same_again(site: VisionSite, parts: sae.SAE, wheels: Study) -> None:
    text = json.dumps(wheels.describe(), allow_nan=False)
    assert json.loads(text)["sweet_spot"] == list(wheels.sweet_spot or ())
    assert wheels.unit == f"scenes/mixed3b~sae:{wheels.latent}" and len(set(wheels.control)) == 4
    assert wheels.unit not in wheels.control


def test_the_figure_works_for_all_kinds_of_studies(tmp_path: Path, wheels: Study, known: Study) -> None:
    for name, one in (("wheels", wheels), ("known", known)):
        figure = steering_figure(one)
        # effect and capability, and a panel for what has more than one other thing in it
        assert len(figure.axes) == 2 + sum(len(e.units) > 1 for e in one.side_effects.values())
        save_figure(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 20_000


def test_names_of_factors_do_not_touch_and_long_names_are_cut() -> None:
    from circuits.plot.sae.steering import _measure, _tick_labels
    from sae.steering.study_result import Curve

    assert _tick_labels((-2.0, -1.0, 0.0, 1.0, 2.0)) == ["−2", "−1", "0", "1", "2"]
    assert _tick_labels((0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 5.0, 10.0)) == ["0", "", "", "1", "", "", "2", "5", "10"]
    curve = Curve("share of texts with “Longspan” or “red bridge of Fogport”", 0.0, np.zeros(1), np.zeros((1, 1)))
    assert len(_measure(curve)) <= 40 and _measure(curve).endswith("…")


def test_without_targets_each_latent_is_scored_by_the_class_it_increases_most(planted: VisionSite) -> None:
    found = study(
        planted, None, nets.BOUNDARY, nets.clutter(6), factors=(0, 1), capability="agreement", random=2, measure="score"
    )
    # the boundary weighs classes -1 and +1; the car +2 and -2; the mixture 0.5 and 0
    assert found.chosen and found.targets == ("logits:1",)
    rise = found.effect.random[:, 1] - found.effect.random[:, 0]
    assert (rise > 0).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"latent": 3}, "3 channels, 0 to 2; asked for 3"),
        ({"factors": ()}, "factors are finite numbers"),
        ({"factors": (0, float("nan"))}, "factors are finite numbers"),
        ({"kind": "push"}, "kind='push'"),
        ({"measure": "logit"}, "measure='logit'"),
        ({"tolerance": 1.5}, "tolerance=1.5"),
        ({"at": 7.0}, "at=7.0 is none of the factors"),
        ({"random": 0}, "random=0"),
        ({"targets": ["dragon"]}, "no class 'dragon'"),
        ({"targets": []}, "targets are a list"),
        ({"targets": [2]}, "classes 0 to 1; got 2"),
        ({"capability": "top1"}, "no labels"),
        ({"capability": "joy"}, "capability 'joy'"),
        ({"s": Channels(4)}, "4 wide"),
        ({"downstream": "edges"}, "changes nothing at planted/edges"),
    ],
)
def test_bad_arguments_are_refused(planted: VisionSite, change: dict[str, Any], said: str) -> None:
    settings: dict[str, Any] = {
        "latent": nets.CAR, "s": None, "factors": (0, 1), "capability": "agreement", "random": 1, **change
    }  # fmt: skip
    if "downstream" in settings:
        settings["downstream"] = (VisionSite(planted.model, settings["downstream"]), None)
    latent, s = settings.pop("latent"), settings.pop("s")
    before = nets.state(planted.model)
    with pytest.raises(CircuitsError, match=said):
        study(planted, s, latent, nets.clutter(4), **settings)
    assert nets.state(planted.model) == before


def test_a_latent_that_never_fires_is_refused(planted: VisionSite) -> None:
    with pytest.raises(SAEError, match="never fired on 2 inputs"):
        study(planted, None, nets.CAR, torch.zeros(2, 3, 32, 32), capability="agreement")


# -- the section of a dossier ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dossier_can_have_a_section_on_steering(tmp_path: Path, site: VisionSite) -> None:
    import sae.steering.dossier_section as section
    from circuits.plot.units.dossier import dossier_page
    from circuits.units.dossier import SECTIONS, explain

    assert SECTIONS[section.NAME].quick is False
    model = site.model
    scan = circuits.scan(model, "scenes:20", str(tmp_path / "store"), layers=["mixed3b", "mixed4a"])
    found = explain(model, "mixed3b:8", scan, sections=["steering"])
    part = found.parts["steering"]
    assert isinstance(part, section.Steered) and part.study.unit == "scenes/mixed3b:8"
    assert {"classes", "downstream"} == set(part.study.side_effects) and part.related_units
    page = dossier_page(found, scan, command="circuits explain", python="explain()")
    assert "<h2>Steering</h2>" in page and "other classes, factor" in page
    assert "steering" not in explain(model, "mixed3b:8", scan).parts
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    # no weight of mixed4a reads channel 7
    page = dossier_page(
        explain(model, "mixed3b:7", scan, sections=["steering"]), scan, command="circuits explain", python="explain()"
    )
    assert "no later weight reads it" in page


@pytest.mark.parametrize("kind", ["set", "scale", "ablate"])
def test_a_control_makes_the_step_along_another_direction_as_long_at_every_position(
    site: VisionSite, parts: sae.SAE, kind: Any
) -> None:
    top = maxima(parts, site, "scenes:6")
    first, second, other = (int(i) for i in top.values.argsort(descending=True)[:3])
    value = None if kind == "ablate" else 2.0
    edit = LatentEdit(first, kind, value, "max" if kind == "set" else "absolute", at=((1, 2), (3, 4), (5, 6)),
                      when=When(second, above=0.01, unit="max"))  # fmt: skip
    own = steered(site, parts, [edit], maxima=top)
    acts = next(site.blocks("scenes:6")).acts
    step, control = own(acts) - acts, EqualStep.of_latents(own, {first: other})(acts) - acts
    assert 0 < int((step.norm(dim=-1) > 0).sum()) <= 3 * len(acts)
    assert torch.allclose(control.norm(dim=-1), step.norm(dim=-1), atol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(control.flatten(0, 2), parts.write[other][None])
    moved = step.norm(dim=-1).flatten() > 1e-3
    sign = (step.flatten(0, 2) @ parts.write[first]).sign()
    assert torch.allclose(cosine[moved], sign[moved], atol=1e-3)  # removed where the edit removes
    along = torch.randn(site.d, generator=torch.Generator().manual_seed(0))
    assert torch.allclose((EqualStep(own, {first: along})(acts) - acts).norm(dim=-1), step.norm(dim=-1), atol=1e-4)
