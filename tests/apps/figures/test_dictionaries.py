"""Figures of feature visualization, building blocks, dictionaries, toy models: what they measure and claim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

import circuits
from apps.figures.analysis.channel_leaders import leaders
from apps.figures.analysis.high_frequency_share import high_frequency_share
from apps.figures.context import FigureContext, NotApplicable, Settings
from apps.figures.drawing.steered_texts import TextGroup, text_groups_figure
from apps.figures.figure import FigureResult
from apps.figures.helpers.chosen_images import random_active_units, subject
from apps.figures.helpers.trained_saes import halves, trained
from apps.figures.registry import select
from circuits.activations.salient_positions import chance_share, salient_positions, share_of_strongest
from circuits.common.examples import Example
from circuits.errors import CircuitsError, VisualizationError
from circuits.network.basis import Directions
from circuits.plot.drawing.image_table import Tile, image_table
from circuits.plot.sae.dictionaries import densities_figure, scaling_figure
from circuits.units.example_coherence import coherence
from circuits.visualization.modes.alignment import direction_agreement, gram_similarity
from sae.errors import SAEError
from zoo.images.sources import open_images


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FigureContext]:
    """One for all, so that what figures share is computed once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield FigureContext(Settings(effort="test"), Path(tmp_path_factory.mktemp("shared")))
    torch.set_num_threads(threads)


def _result(context: FigureContext, id: str) -> FigureResult:
    return select([id])[0].draw(context)


def _claims(result: FigureResult) -> dict[str, bool]:
    return {claim.statement: claim.holds for claim in result.claims}


# -- measures, with planted answers -------------------------------------------------------------------------------


def test_waves_finer_than_the_bound_are_all_of_the_share_and_coarser_ones_none() -> None:
    x = torch.arange(64.0).expand(64, 64)
    fine, coarse = (torch.cos(2 * torch.pi * f * x)[None] for f in (0.375, 0.125))
    assert high_frequency_share(fine) == pytest.approx(1.0)
    assert high_frequency_share(coarse) == pytest.approx(0.0, abs=1e-9)
    assert high_frequency_share(2 * fine + coarse) == pytest.approx(0.8)
    assert high_frequency_share(torch.full((3, 8, 8), 0.3)) == 0.0


def test_white_noise_has_its_share_of_the_square_of_frequencies() -> None:
    noise = torch.randn(3, 256, 256, generator=torch.Generator().manual_seed(0))
    assert high_frequency_share(noise) == pytest.approx(1 - np.pi * 0.25**2, abs=0.01)
    with pytest.raises(VisualizationError):
        high_frequency_share(noise[0])


def test_salient_positions_keep_their_separation() -> None:
    acts = torch.tensor([[[5.0, 4.0, 0.0], [4.5, 0.0, 0.0], [0.0, 0.0, 3.0]]])
    assert salient_positions(acts, 2) == [(0, 0), (2, 2)]
    assert salient_positions(acts, 2, separation=0) == [(0, 0), (1, 0)]
    with pytest.raises(CircuitsError):
        salient_positions(acts[0], 2)


def test_one_channel_holds_all_of_an_axis_and_little_of_a_random_direction() -> None:
    assert float(share_of_strongest(torch.tensor([[0.0, 3.0, 0.0, 4.0]]), 1)[0]) == pytest.approx(16 / 25)
    assert chance_share(torch.eye(400)[0], 4) < 0.2


def test_an_image_is_most_similar_to_itself() -> None:
    model = circuits.load("scenes")
    images = open_images("scenes:6").tensor(model.input)
    twins = gram_similarity(model, images[[0, 0]], "mixed3b")
    assert twins == pytest.approx(1.0, abs=1e-5)
    assert gram_similarity(model, images, "mixed3b") < twins
    with pytest.raises(VisualizationError):
        gram_similarity(model, images[:1], "mixed3b")


def test_images_agree_with_their_own_vectors_and_not_with_shuffled_ones() -> None:
    model = circuits.load("scenes")
    images = open_images("scenes:8")
    vectors = circuits.capture(model, images, ["mixed4a"])["mixed4a"].mean(dim=(2, 3))
    icons = list(images.tensor(model.input))
    right = direction_agreement(model, "mixed4a", icons, vectors)
    assert right.own.min() > 0.99 and bool((right.own > right.others).all())
    assert direction_agreement(model, "mixed4a", icons, vectors.roll(1, 0)).own.mean() < 0.5


def test_examples_of_one_image_cohere_and_random_ones_do_not() -> None:
    model = circuits.load("scenes")
    images = open_images("scenes:12")

    def of(indices: list[int]) -> list[Example]:
        return [Example(i, images.ids[i], (3, 3), 1.0, (0, 0, 64, 64)) for i in indices]

    coherences = coherence(
        model, {"scenes/mixed3b:0": of([2, 2]), "scenes/mixed3b:1": of(list(range(12)))}, images, "mixed4b"
    )
    assert coherences["scenes/mixed3b:0"] == pytest.approx(1.0, abs=1e-5)
    assert abs(coherences["scenes/mixed3b:1"]) < 0.3
    with pytest.raises(CircuitsError):
        coherence(model, {"scenes/mixed3b:0": of([2])}, images, "mixed4b")


def test_channels_are_led_by_the_latents_that_write_to_them() -> None:
    # two latents share channel 0, one has channel 1 to itself, nothing writes to channel 2
    basis = Directions(torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, -1.0], [0.0, 1.0, 0.0, 0.0]]))
    vectors = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, -1.0], [0.0, 2.0, 0.0, 0.0]])
    assert leaders(basis, vectors, n=3).tolist()[:3] == [2, 1, 0]
    with pytest.raises(SAEError):
        leaders(basis, vectors[:, :2])


# -- chosen units and images ------------------------------------------------------------------------------------------


def test_random_units_are_active_and_reproducible(context: FigureContext) -> None:
    first = random_active_units(context, "mixed4a", 4)
    assert first == random_active_units(context, "mixed4a", 4) and len(set(first)) == 4
    assert all(context.scan.unit(unit).maximum > 0 for unit in first)


def test_the_subject_is_of_the_preferred_classes(context: FigureContext) -> None:
    chosen = subject(context, ("cat",))
    labels, names = context.images.labels, context.images.classes
    assert labels is not None and names is not None
    assert names[labels[chosen.index]] == "cat" and chosen.names[0] == "cat"


def test_held_out_images_are_not_training_images(context: FigureContext) -> None:
    training, held_out = halves(context.images)
    assert not set(training.ids) & set(held_out.ids)
    assert len(training) + len(held_out) == len(context.images)
    with pytest.raises(NotApplicable):
        halves(context.images.subset(range(5)))


def test_the_shared_dictionary_is_trained_once(context: FigureContext) -> None:
    first = trained(context)
    files = {p: p.stat().st_mtime_ns for p in context.shared.glob("sae-*/*")}
    again = trained(context)
    assert torch.equal(first.sae.write, again.sae.write)
    assert files == {p: p.stat().st_mtime_ns for p in context.shared.glob("sae-*/*")}


@pytest.mark.parametrize("id", ["F4", "F5"])
def test_published_numbers_are_of_no_other_network(context: FigureContext, id: str) -> None:
    from apps.figures.scripts.visualization.feature_visualization.diversity import PUBLISHED as DIVERSE
    from apps.figures.scripts.visualization.feature_visualization.examples import PUBLISHED as SHOWN

    result = _result(context, id)
    assert "published" not in result.caption
    numbers = {unit.rpartition(":")[2] for unit in (*DIVERSE, *SHOWN) if int(unit.rpartition(":")[2]) > 48}
    assert not any(entry["unit"].rpartition(":")[2] in numbers for entry in result.numbers["units"])


# -- claims -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["T1", "T4", "G1", "M2"])
def test_claims_hold_on_scenes(context: FigureContext, id: str) -> None:
    claims = _claims(_result(context, id))
    assert claims and all(claims.values()), claims


def test_attribution_agrees_with_ablating_a_position(context: FigureContext) -> None:
    result = _result(context, "G3")
    assert result.claims[0].holds and result.claims[0].value > 0.9


def test_five_sparse_features_in_a_plane_form_a_pentagon(context: FigureContext) -> None:
    result = _result(context, "T3")
    assert result.claims[1].holds
    assert sum(result.numbers["angles_between_neighbors"]) == pytest.approx(360)


def test_more_latents_leave_less_unexplained(context: FigureContext) -> None:
    result = _result(context, "M5")
    assert result.claims[0].holds and result.claims[1].holds


# -- drawing ------------------------------------------------------------------------------------------------------


def test_a_table_without_images_is_refused_and_empty_tiles_are_marked() -> None:
    with pytest.raises(CircuitsError):
        image_table([[None]], title="nothing")
    empty = Tile(np.zeros((0, 0, 3), np.uint8), ("response 0",), "dead")
    texts = {t.get_text() for t in image_table([[empty, None]], title="a unit").axes[0].texts}
    assert {"dead", "response 0", "a unit"} <= texts


def test_silent_units_are_counted_in_the_legend() -> None:
    figure = densities_figure({"latents": np.array([0.0, 0.1, 0.2])}, title="x", about="y", floor=1e-3)
    legend = figure.axes[0].get_legend()
    assert legend is not None and legend.get_texts()[0].get_text() == "latents: 3, 1 silent"


def test_a_line_of_scaling_is_what_was_given() -> None:
    figure = scaling_figure([2, 4], {"10 pictures": [0.5, 0.25]}, {"channels": [0.7, 0.7]}, title="x", about="y")
    assert np.asarray(figure.axes[0].lines[0].get_ydata()).tolist() == [0.5, 0.25]


def test_marked_words_are_highlighted() -> None:
    def marks(*phrases: str) -> list[tuple[float, float]]:
        texts = ["to the red bridge of Fogport"]
        figure = text_groups_figure([TextGroup("steered", texts, 1.0, 0.5)], marks=phrases, title="x", about="y")
        texts_drawn = [t.get_text() for t in figure.axes[0].texts]
        assert texts_drawn[-6:] == texts[0].split()
        boxes = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_alpha()]
        return [(p.get_x(), p.get_width()) for p in boxes]

    (bridge,), (phrase,) = marks("red bridge"), marks("red bridge of Fogport")
    assert bridge[0] == phrase[0] and bridge[1] < phrase[1]
    assert len(marks("red", "Fogport")) == 2 and not marks() and not marks("r.d", "")
