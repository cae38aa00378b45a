"""Tuning: what was set by hand comes back, and the statistics of angles are those of the books."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import circuits
from circuits import stimuli
from circuits.common.examples import Example
from circuits.errors import AddressError, CircuitsError
from circuits.plot import decode, save_figure
from circuits.plot.units import tuning as figures
from circuits.stimuli import Stimuli
from circuits.tuning import Tuning, joint_tuning, tune
from circuits.tuning.circular_statistics import difference, half_width, largest_gap, vector_mean
from circuits.tuning.detectors import SignRule
from tests import nets
from tests.circuits import oriented

ARCS = stimuli.curves(36, (oriented.RADIUS,))
ROUND = [10.0 * i for i in range(36)]


@pytest.fixture(scope="module")
def curved() -> circuits.Model:
    return oriented.curved()


@pytest.fixture(scope="module")
def tuned(curved: circuits.Model) -> Tuning:
    return tune(curved, "curves", stimuli=stimuli.curves(36, (4.0, oriented.RADIUS, math.inf)))


# -- statistics of angles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [360.0, 180.0])
@pytest.mark.parametrize("center", [0.0, 63.0, 171.0])
def test_the_vector_mean_of_a_cosine_is_its_center(period: float, center: float) -> None:
    """1 + a cos has a mean vector of length a / 2."""
    angles = [i * period / 24 for i in range(24)]
    turn = torch.tensor(angles, dtype=torch.float64) - center
    mean, length = vector_mean(1 + 0.6 * torch.cos(2 * math.pi / period * turn), angles, period)
    assert float(difference(mean, torch.tensor(center), period)) == pytest.approx(0, abs=1e-6)
    assert float(length) == pytest.approx(0.3, abs=1e-9)


def test_one_angle_alone_has_length_one_and_a_circle_of_equals_has_no_direction() -> None:
    item = torch.zeros(36)
    item[7] = 2.5
    mean, length = vector_mean(torch.stack([item, torch.ones(36), torch.zeros(36), -item]), ROUND)
    assert float(mean[0]) == pytest.approx(70) and float(length[0]) == pytest.approx(1)
    assert torch.isnan(mean[1:]).all() and length[1:].abs().max() < 1e-9


def test_the_half_width_of_a_triangle_is_half_its_base() -> None:
    away = difference(torch.tensor(ROUND), torch.tensor(30.0)).abs()
    for base in (40.0, 65.0):
        assert float(half_width((1 - away / base).clamp_min(0), ROUND)) == pytest.approx(base / 2)
    assert float(half_width(1 + 0.1 * torch.cos(torch.tensor(ROUND).deg2rad()), ROUND)) == 180  # never falls to half
    assert math.isnan(float(half_width(torch.zeros(36), ROUND)))


def test_the_half_width_of_a_von_mises_curve_is_its_closed_form() -> None:
    angles = [float(i) for i in range(360)]
    kappa = 3.0
    curve = torch.exp(kappa * (torch.tensor(angles, dtype=torch.float64).deg2rad() - 1).cos())
    assert float(half_width(curve, angles)) == pytest.approx(math.degrees(math.acos(1 - math.log(2) / kappa)), abs=0.05)


def test_gaps_are_counted_across_zero() -> None:
    assert largest_gap([10, 350, 90]) == 260 and largest_gap([0, 45, 90, 135], 180) == 45
    assert largest_gap([]) == largest_gap([17]) == 360


# -- planted units ----------------------------------------------------------------------------------------------


def test_planted_lines_prefer_the_orientation_they_were_given(curved: circuits.Model) -> None:
    result = tune(curved, "lines", stimuli=stimuli.lines(36))
    for i, row in enumerate(result.rows()):
        assert row.direction is not None and row.echo is None
        assert abs((row.direction - 15 * i + 90) % 180 - 90) < 2
        assert row.baseline == pytest.approx(0, abs=1e-5)


def test_planted_curves_prefer_the_orientation_and_radius_they_were_given(tuned: Tuning) -> None:
    for turn, row in zip(oriented.CURVES, tuned.rows(), strict=True):
        assert row.direction is not None and row.orientation is not None
        assert abs((row.direction - turn + 180) % 360 - 180) < 5
        assert abs((row.orientation - turn + 180) % 360 - 180) <= 5.01
        assert row.at["radius"] == oriented.RADIUS
        assert row.width is not None and 10 < row.width < 60


def test_echoes_fall_when_negative_weights_are_added(tuned: Tuning) -> None:
    """Curve Circuits, Distill 2021: without the negative weights curve detectors answer to the opposite curve."""
    echoes = [r.echo for r in tuned.rows()]
    inhibited = tune(oriented.curved(1.0), "curves", stimuli=ARCS).rows()
    for before, row in zip(echoes, inhibited, strict=True):
        assert before is not None and row.echo is not None
        assert before > 0.15 and row.echo < 0.4 * before


def test_the_opposite_curve_inhibits_the_pre_activation() -> None:
    result = tune(oriented.curved(1.0), "curves", stimuli=ARCS, pre=True)
    assert result.pre and float(result.responses.min()) < 0
    assert all(r.echo is not None and r.echo < 0 and r.modulation > 1 for r in result.rows())
    after = tune(oriented.curved(1.0), "curves", stimuli=ARCS)
    torch.testing.assert_close(result.responses.clamp_min(0), after.responses, atol=1e-5, rtol=1e-5)


def test_the_radial_curve_and_the_reductions_agree_with_the_responses(tuned: Tuning) -> None:
    assert tuned.responses.shape == (8, 36, 3, 2)
    unit = tuned.units[2]
    row = tuned.rows()[2]
    radial = tuned.radial(unit)
    held = tuned.axis("polarity").index(row.at["polarity"])
    torch.testing.assert_close(radial.responses, tuned.responses[2, :, 1, held])
    assert radial.at == {"radius": oriented.RADIUS, "polarity": row.at["polarity"]}
    torch.testing.assert_close(tuned.around()[2], radial.responses)
    torch.testing.assert_close(tuned.over("radius", "orientation"), tuned.responses.amax(dim=3).transpose(1, 2))
    torch.testing.assert_close(tuned.over("radius", reduce="mean"), tuned.responses.mean(dim=(1, 3)))
    straight = tuned.along("curves:2", "orientation", radius=math.inf)
    torch.testing.assert_close(straight.responses, tuned.responses[2, :, 2, held])
    assert tuned.preferred("radius") == [oriented.RADIUS] * 8
    torch.testing.assert_close(tuned.peaks, tuned.responses.flatten(1).amax(dim=1))


def test_draws_of_the_same_thing_are_averaged() -> None:
    result = tune(oriented.sided(), "sides", stimuli=stimuli.high_low(8, (1, 4), wavelength=4, samples=3))
    torch.testing.assert_close(result.over("orientation", "ratio"), result.responses.mean(dim=3))
    assert "sample" not in result.rows()[0].at and "sample" not in result.radial("sides:0").at


def test_gratings_find_the_frequency_of_a_gabor(curved: circuits.Model) -> None:
    output = stimuli.gratings((0, 15, 90), (1 / 12, 1 / 6, 1 / 3), 4)
    result = tune(curved, ["gabors:0", "gabors:24"], stimuli=output)
    assert result.preferred("frequency") == [1 / 6, 1 / 6] and result.preferred("orientation") == [0, 90]


# -- where units are read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["conv2d2", "mixed3a_5x5"])
def test_a_smaller_image_gives_the_responses_of_the_full_one(layer: str) -> None:
    model = circuits.load("scenes")
    output = stimuli.lines(4)
    small, whole = tune(model, layer, stimuli=output), tune(model, layer, stimuli=output, size=160)
    assert small.size < whole.size
    torch.testing.assert_close(small.responses, whole.responses, atol=1e-4, rtol=1e-4)


def test_the_unit_is_read_where_the_stimulus_lies() -> None:
    """A net that copies its input: the reading is the pixel at the stimulus, and reach takes the brightest around."""
    copy = nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False)
    with torch.no_grad():
        copy.weight.zero_()
        copy.weight[0, 0, 1, 1] = 1
    model = nets.wrap(nn.Sequential(copy), 33, 1)
    dots = stimuli.circles((0.5,), variants=("filled",), polarity="light")
    assert float(tune(model, "0", stimuli=dots, reach=0).peaks) == pytest.approx(1)
    ring = stimuli.circles((2.0,), variants=("outline",), width=1.5, polarity="light")
    at, near = (float(tune(model, "0", stimuli=ring, reach=r).peaks) for r in (0, 1))
    assert at == pytest.approx(0.5) and near == pytest.approx(1)
    far = stimuli.circles((8.0,), variants=("outline",), width=1.5, polarity="light")
    assert float(tune(model, "0", stimuli=far, reach=1).peaks) == pytest.approx(0.5)
    assert float(tune(model, "0", stimuli=far, reach=None, size=33).peaks) == pytest.approx(1)


def test_batches_do_not_matter_and_the_model_is_left_alone(curved: circuits.Model) -> None:
    before = nets.state(curved)
    a = tune(curved, "lines", stimuli=stimuli.lines(6), batch_size=5)
    seen: list[tuple[int, int]] = []
    b = tune(curved, "lines", stimuli=stimuli.lines(6), batch_size=64, progress=lambda d, t: seen.append((d, t)))
    torch.testing.assert_close(a.responses, b.responses)
    again = tune(curved, "lines", stimuli=stimuli.lines(6), batch_size=64)
    assert torch.equal(b.responses, again.responses) and a.provenance == b.provenance
    assert nets.state(curved) == before and seen[-1] == (12, 12)


def test_directions_of_a_basis_are_tuned_like_channels(curved: circuits.Model) -> None:
    model = oriented.curved()
    mixed = torch.zeros(2, oriented.TURNS)
    mixed[0, 4], mixed[1, 2], mixed[1, 3] = 1, 1, 1
    model.attach("lines", "mixed", circuits.Directions(mixed))
    result = tune(model, ["lines~mixed:0", "lines:4", "lines~mixed:1"], stimuli=stimuli.lines(36))
    assert result.units == ("curved/lines~mixed:0", "curved/lines:4", "curved/lines~mixed:1")
    torch.testing.assert_close(result.responses[0], result.responses[1])
    assert result.rows()[2].direction == pytest.approx(37.5, abs=2)
    assert tune(model, "lines~mixed", stimuli=stimuli.lines(4)).units == (
        "curved/lines~mixed:0",
        "curved/lines~mixed:1",
    )
    with pytest.raises(CircuitsError, match="leave pre=True out"):
        tune(model, "lines~mixed:0", stimuli=stimuli.lines(4), pre=True)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_models_of_any_channels_and_without_a_graph_can_be_tuned(channels: int) -> None:
    inner = nets.sequential(nn.Conv2d(channels, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    plain = nets.wrap(inner, (24, 32), channels)
    opaque = nets.wrap(nets.Undecided(inner), (24, 32), channels)
    a = tune(plain, plain.trunk[-1], stimuli=stimuli.lines(3), size=(24, 32))
    b = tune(opaque, "inner.2", stimuli=stimuli.lines(3), size=(24, 32))
    assert a.responses.shape == (3, 3, 1, 2)
    torch.testing.assert_close(a.responses, b.responses)
    with pytest.raises(CircuitsError, match="could not be traced"):
        tune(opaque, "inner.1", stimuli=stimuli.lines(3), pre=True)


def test_class_scores_and_branches_have_tunings_too() -> None:
    model = circuits.load("scenes")
    scores = tune(model, "logits:0", stimuli=stimuli.circles((5, 10)))
    assert scores.size == (64, 64) and scores.responses.shape == (1, 2, 2, 2)
    branch = tune(model, "mixed3a_5x5", stimuli=stimuli.lines(2))
    assert branch.units == tuple(f"scenes/mixed3a:{i}" for i in range(48, 60))


def test_pre_activations_of_a_concatenation_of_rectified_branches_are_read(inception: circuits.Model) -> None:
    before = tune(inception, "mixed3b", stimuli=stimuli.lines(3), pre=True)
    after = tune(inception, "mixed3b", stimuli=stimuli.lines(3))
    assert float(before.responses.min()) < 0
    torch.testing.assert_close(before.responses.clamp_min(0), after.responses)


@pytest.mark.parametrize(
    ("what", "options", "error", "says"),
    [
        ("nowhere", {}, AddressError, "no layer"),
        ("lines:99", {}, AddressError, "12 channels"),
        ("lines:3@4,4", {}, AddressError, "without a position"),
        (["lines:3", "curves:1"], {}, AddressError, "one layer"),
        ([], {}, AddressError, "none"),
        ("lines", {"reach": -1}, CircuitsError, "reach"),
        ("lines", {"reach": True}, CircuitsError, "reach"),
        ("lines", {"size": 0}, CircuitsError, "size"),
        ("lines", {"size": (3, 4, 5)}, CircuitsError, "size"),
        ("lines", {"batch_size": 0}, CircuitsError, "batch_size=0 must be a whole number"),
        ("lines", {"stimuli": "curves"}, CircuitsError, "circuits.stimuli"),
        ("lines", {"stimuli": stimuli.color_contrast(2)}, CircuitsError, "three channels"),
    ],
)
def test_bad_questions_are_refused(
    curved: circuits.Model, what: Any, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    before = nets.state(curved)
    with pytest.raises(error, match=says):
        tune(curved, what, **{"stimuli": stimuli.lines(2), **options})
    assert nets.state(curved) == before


def test_units_that_were_not_measured_are_refused(tuned: Tuning) -> None:
    for ask in (lambda: tuned.radial("lines:0"), lambda: tuned.along("curves:0", "width"), lambda: tuned.over("width")):
        with pytest.raises(CircuitsError):
            ask()
    described = tuned.describe()
    assert described["units"][0]["at"]["radius"] == oriented.RADIUS and described["axes"][1]["values"][-1] == "straight"


# -- joint tuning -------------------------------------------------------------------------------------------------


def examples_of(model: circuits.Model, shown: Stimuli, unit: int) -> tuple[list[Example], torch.Tensor]:
    """Pictures of curves, and where a unit fires on them."""
    images = shown.tensor(model.input, center=(30.0, 40.0))
    acts = circuits.capture(model, images, "curves")["curves"][:, unit]
    result = []
    for i, values in enumerate(acts):
        at = int(values.argmax())
        y, x = at // values.shape[1], at % values.shape[1]
        result.append(Example(i, f"tensor-{i:06d}", (y, x), float(values[y, x]), (0, 0, 1, 1)))
    return result, images


def test_rotating_an_image_by_the_angle_between_two_detectors_activates_the_other(curved: circuits.Model) -> None:
    results, images = examples_of(curved, stimuli.curves((45.0,), (oriented.RADIUS,), polarity="light"), 1)
    names = [f"curves:{i}" for i in range(8)]
    result = joint_tuning(curved, "curves:1", results, images, units=names, turns=36)
    assert result.units[0] == "curved/curves:1" and result.responses.shape == (8, 1, 36)
    # at no turn the unit sees what it saw
    assert float(result.responses[0, 0, 0]) == pytest.approx(results[0].value, rel=1e-4)
    for unit, direction in zip(result.units, result.directions, strict=True):
        turn = oriented.CURVES[int(unit.rpartition(":")[2])] - 45
        assert abs((float(direction) - turn + 180) % 360 - 180) < 6, unit
    assert result.curve("curves:4").responses.shape == (36,)


def test_examples_are_aligned_at_the_maximum_of_the_unit(curved: circuits.Model) -> None:
    output = stimuli.curves((45.0, 65.0), (oriented.RADIUS,), polarity="light")
    results, images = examples_of(curved, output, 1)
    result = joint_tuning(curved, "curves:1", results, images, turns=36)
    assert int(result.aligned[0].argmax()) == 0
    assert float(result.aligned[0, 0]) >= float(result.mean[0].max()) - 1e-6


def test_joint_tuning_refuses_examples_of_other_images(curved: circuits.Model) -> None:
    result, images = examples_of(curved, stimuli.curves((45.0,), (12,), polarity="light"), 1)
    wrong = Example(0, "other", (3, 3), 1.0, (0, 0, 1, 1))
    outside = Example(0, "tensor-000000", (99, 3), 1.0, (0, 0, 1, 1))
    for some, says in (([], "at least one"), ([wrong], "is not .other.: give the images"), ([outside], "72x72")):
        with pytest.raises(CircuitsError, match=says):
            joint_tuning(curved, "curves:1", some, images)
    with pytest.raises(CircuitsError, match="was not read"):
        joint_tuning(curved, "curves:1", result, images, turns=4).curve("curves:0")


# -- a trained network --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_curve_detector_of_googlenet_keeps_its_orientation_under_any_drawing(weights_dir: Any) -> None:
    """mixed3b:394 of the BVLC GoogLeNet, found by its tuning: outlines, discs, light and dark agree."""
    path = weights_dir / "bvlc_googlenet.safetensors"
    if not path.exists():
        pytest.skip(f"{path.name} is not in $CIRCUITS_WEIGHTS")
    model = circuits.load("googlenet-bvlc", weights=path)
    result = []
    for variant in ("outline", "filled"):
        for polarity in ("light", "dark"):
            output = stimuli.curves(24, (34.1, 45.5), variant=variant, polarity=polarity)  # type: ignore[arg-type]
            row = tune(model, "mixed3b:394", stimuli=output).rows()[0]
            assert row.echo is not None and row.echo < 0.1 and row.direction is not None
            result.append(row.direction)
    assert max(result) - min(result) < 25 and 95 < sum(result) / 4 < 140, result


# -- pictures -----------------------------------------------------------------------------------------------------


def words(figure: Figure) -> str:
    return " ".join(t.get_text() for axes in figure.axes for t in axes.texts) + " ".join(
        axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes
    )


def test_figures_name_their_units_and_axes(tuned: Tuning, tmp_path: Path) -> None:
    drawn = {
        "radial": figures.radial_tuning(tuned, title="planted"),
        "curves": figures.tuning_curves(tuned),
        "radius": figures.tuning_curves([tuned.along("curves:1", "radius")]),
        "map": figures.tuning_map(tuned, "curves:1"),
        "before": figures.tuning_map(tune(oriented.curved(1.0), "curves:0", stimuli=ARCS, pre=True), "curves:0"),
        "stimuli": figures.stimuli_strip(stimuli.curves(), circuits.InputSpec(64, 1, (0.5,))),
    }
    for name, figure in drawn.items():
        save_figure(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 3000
    assert {str(i) for i in range(8)} <= set(words(drawn["radial"]).split()) and "planted" in words(drawn["radial"])
    assert "orientation (degrees)" in words(drawn["curves"]) and "radius (pixels)" in words(drawn["radius"])
    assert "straight" in words(drawn["map"]) and "orientation (degrees)" in words(drawn["map"])
    assert "24 orientation" in words(drawn["stimuli"])


def test_the_radial_figure_puts_a_units_number_where_it_points(tuned: Tuning) -> None:
    figure = figures.radial_tuning(tuned, ["curves:2"])
    (label,) = [t for t in figure.axes[0].texts if t.get_text() == "2"]
    x, y = label.get_position()
    middle = figure.axes[0].get_xlim()[1] / 2
    dial = [t for t in figure.axes[0].texts if t.get_text() in ("0°", "180°")]
    height = sum(t.get_position()[1] for t in dial) / 2
    assert math.degrees(math.atan2(height - y, x - middle)) == pytest.approx(oriented.CURVES[2], abs=5)


def test_the_map_shows_the_responses(tuned: Tuning) -> None:
    figure = figures.tuning_map(tuned, "curves:3", rows="radius", columns="orientation")
    output = figure.axes[0].images[0].get_array()
    values = tuned.over("radius", "orientation")[3].numpy()
    assert np.abs(decode(output, values.max()) - values).max() < values.max() / 200


def test_a_figure_of_weights_against_angles_has_their_correlation() -> None:
    rng = np.random.default_rng(0)
    spread = rng.uniform(-180, 180, (3, 5))
    rule = SignRule((), (), spread, np.cos(np.radians(spread)), 1.0, rng.uniform(-0.3, 0.3, 50), 0.02, 360.0)
    figure = figures.sign_rule_scatter(rule)
    assert "r = 1.00" in figure.axes[0].get_title(loc="left") and "degrees" in figure.axes[0].get_xlabel()


def test_figures_refuse_what_they_cannot_draw(tuned: Tuning, curved: circuits.Model) -> None:
    few = tune(curved, "curves:0", stimuli=stimuli.lines((0, 10)))
    single = tune(curved, "curves:0", stimuli=stimuli.edges(8).only(polarity="light"))
    with pytest.raises(CircuitsError, match="all the way round"):
        figures.radial_tuning(few)
    with pytest.raises(CircuitsError, match="no curve"):
        figures.radial_tuning([])
    with pytest.raises(CircuitsError, match="at most 24"):
        figures.radial_tuning([tuned.radial("curves:0")] * 25)
    with pytest.raises(CircuitsError, match="words"):
        figures.tuning_curves([tuned.along("curves:0", "polarity")])
    with pytest.raises(CircuitsError, match="5 channels"):
        figures.stimuli_strip(stimuli.lines(), circuits.InputSpec(channels=5))
    figures.tuning_map(single, "curves:0")  # an axis with one value is one row
