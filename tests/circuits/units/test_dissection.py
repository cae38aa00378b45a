"""A channel taken apart by a dictionary: sums that add up, and writers that were planted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

import circuits
from circuits.errors import AddressError, CircuitsError
from circuits.network.basis import Directions, basis_digest
from circuits.plot.sae.channel_dissection import dissection_figure
from circuits.units.channel_dissection import Dissection, dissect
from zoo.images.sources import open_images

LAYER = "mixed3b"
PICTURES = "scenes:60"


class Halves:
    """A dictionary that splits channel 0 in two by what channel 1 says; the others are themselves, 2 is left out."""

    def __init__(self, d: int) -> None:
        self.read = torch.eye(d)
        self.write = torch.eye(d)
        self.write[1] = torch.eye(d)[0]
        self.write[2] = 0

    def encode(self, acts: Tensor) -> Tensor:
        latents = acts.clone()
        high = acts[:, 1] > 0.05
        latents[:, 0] = torch.where(high, 0.0, acts[:, 0])
        latents[:, 1] = torch.where(high, acts[:, 0], 0.0)
        return latents


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    model = circuits.load("scenes", device="cpu")
    model.attach(LAYER, "halves", Halves(48))
    return model


@pytest.fixture(scope="module")
def found(model: circuits.Model) -> Dissection:
    return dissect(model, f"{LAYER}:0", "halves", PICTURES, n=20, writers=3, each=5)


def test_parts_add_up_to_the_response(model: circuits.Model, found: Dissection) -> None:
    values = np.array([e.value for e in found.examples])
    assert np.allclose(found.contributions.sum(axis=1) + found.others + found.rest, values, atol=1e-5)
    assert sum(found.shares.values()) == pytest.approx(1)
    acts = circuits.capture(model, PICTURES, [LAYER])[LAYER]
    for example in found.examples:
        assert example.value == pytest.approx(float(acts[example.image, 0].max()), rel=1e-4)


def test_a_channel_in_two_halves_is_found_in_two_halves(found: Dissection) -> None:
    both = {w.unit.rpartition(":")[2] for w in found.writers[:2]}
    assert both == {"0", "1"} and found.basis == "mixed3b~halves"
    assert found.shares["writers"] == pytest.approx(1) and abs(found.shares["rest"]) < 1e-6
    assert sum(w.leads for w in found.writers[:2]) == len(found.examples)
    assert (np.minimum(found.contributions[:, 0], found.contributions[:, 1]) == 0).all()
    assert all(w.weight == 1 for w in found.writers[:2])


def test_what_the_dictionary_leaves_out_is_the_rest(model: circuits.Model) -> None:
    alone = dissect(model, f"{LAYER}:2", "halves", PICTURES, n=10)
    assert alone.shares["rest"] == pytest.approx(1) and alone.shares["writers"] == 0


def test_examples_of_a_writer_are_its_own(model: circuits.Model, found: Dissection) -> None:
    acts = circuits.capture(model, PICTURES, [LAYER])[LAYER]
    latents = Halves(48).encode(acts.movedim(1, -1).flatten(0, 2)).view(60, 8, 8, 48)
    for writer in found.writers[:2]:
        peaks = latents[..., int(writer.unit.rpartition(":")[2])].amax(dim=(1, 2))
        best = peaks.topk(5).values.tolist()
        assert [e.value for e in writer.examples] == pytest.approx([v for v in best if v > 0], rel=1e-4)


def test_it_is_json_and_a_figure(model: circuits.Model, found: Dissection) -> None:
    document = json.loads(json.dumps(found.describe()))
    assert document["unit"] == "scenes/mixed3b:0" and len(document["writers"]) == 3
    figure = dissection_figure(found, PICTURES, model.input, columns=5)
    written = [text.get_text() for text in figure.axes[0].texts]
    assert any("decomposed" in text for text in written) and any("largest on" in text for text in written)
    with pytest.raises(CircuitsError, match="give the images that it was found on"):
        dissection_figure(found, open_images("scenes:60@5"), model.input)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        (("mixed3b~halves:0", "halves"), {}, AddressError, "is a latent"),
        (("mixed3b", "halves"), {}, AddressError, "is a layer"),
        (("mixed3b:0", "wholes"), {}, AddressError, "no basis 'wholes'; attached: mixed3b~halves"),
        (("mixed3b:0", "halves"), {"n": 0}, CircuitsError, "above zero"),
    ],
)
def test_bad_questions_are_refused(
    model: circuits.Model, arguments: tuple[str, str], options: dict[str, int], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        dissect(model, *arguments, PICTURES, **options)


def test_a_channel_that_never_fires_is_refused(model: circuits.Model) -> None:
    gray = torch.zeros(2, 3, 64, 64)
    acts = circuits.capture(model, gray, [LAYER])[LAYER]
    silent = int((acts.amax(dim=(0, 2, 3)) == 0).nonzero()[0])
    with pytest.raises(CircuitsError, match="active on none"):
        dissect(model, f"{LAYER}:{silent}", "halves", gray)


# -- latents as units of the other verbs ---------------------------------------------------------------


def test_weights_from_latents_to_latents_are_those_of_channels_seen_through_both() -> None:
    model = circuits.load("scenes", device="cpu")
    generator = torch.Generator().manual_seed(0)
    below, above = torch.randn(5, 68, generator=generator), torch.randn(7, 48, generator=generator)
    model.attach("mixed3a", "below", Directions(below, below.clone()))
    model.attach("mixed3b", "above", Directions(above, above.clone()))
    plain = circuits.expanded_weights(model, source="mixed3a", target="mixed3b")
    found = circuits.expanded_weights(model, source="mixed3a~below", target="mixed3b~above")
    expected = torch.einsum("tshw,ms,nt->nmhw", plain.kernels, below, above)
    assert found.source == "mixed3a~below" and found.targets[2] == "mixed3b~above:2"
    assert torch.allclose(found.kernels, expected, atol=1e-4)


def test_find_looks_through_a_dictionary() -> None:
    model = circuits.load("scenes", device="cpu")
    swapped = torch.eye(48).flip(0)
    model.attach(LAYER, "swapped", Directions(swapped, swapped.clone()))
    pictures = open_images(PICTURES)
    assert pictures.labels is not None
    side = {
        k: pictures.subset([i for i, label in enumerate(pictures.labels) if (label == 0) == k]) for k in (True, False)
    }
    plain = circuits.find(model, positive=side[True], negative=side[False], layer=LAYER)
    found = circuits.find(model, positive=side[True], negative=side[False], layer=f"{LAYER}~swapped")
    assert {r.unit: r.auc for r in found.rows} == {
        f"scenes/{LAYER}~swapped:{47 - int(r.unit.rpartition(':')[2])}": r.auc for r in plain.rows
    }
    with pytest.raises(AddressError, match="one unit of mixed3b"):
        circuits.find(model, positive=side[True], negative=side[False], layer=f"{LAYER}:3")


def test_another_dictionary_has_another_digest() -> None:
    one, other = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    assert basis_digest(Directions(one)) == basis_digest(Directions(one.clone()))
    assert basis_digest(Directions(one)) != basis_digest(Directions(other))
    assert basis_digest(Directions(one, one)) != basis_digest(Directions(one, other))
