"""Steering: exact edits, in the places and under the conditions asked for, at layers of a CNN and in a transformer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import circuits
import sae
from circuits.common.statistics import auc
from circuits.network.basis import Directions
from sae.data.vision_site import VisionSite
from sae.errors import SAEError
from sae.steering import (
    Channels,
    LatentEdit,
    Maxima,
    Steering,
    When,
    chance_cosine,
    inspect,
    maxima,
    search,
    search_label,
    similar,
    steer,
    steered,
)
from tests import nets
from tests.sae.data.test_vision import scrambled, trained
from zoo.images.sources import open_images

PICTURES = "scenes:6"
Shift = Callable[[Tensor], Tensor]


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    return circuits.load("scenes", device="cpu")


@pytest.fixture(scope="module")
def site(model: circuits.Model) -> VisionSite:
    return VisionSite(model, "mixed3b")


@pytest.fixture(scope="module")
def parts(site: VisionSite) -> sae.SAE:
    """A TopK SAE of little training."""
    return trained(site).sae.requires_grad_(False)


@pytest.fixture(scope="module")
def acts(model: circuits.Model) -> Tensor:
    """`(6, 8, 8, 48)`."""
    return circuits.capture(model, PICTURES, ["mixed3b"])["mixed3b"].movedim(1, -1)


@pytest.fixture(scope="module")
def latents(parts: sae.SAE, acts: Tensor) -> Tensor:
    return parts.encode(acts.reshape(-1, 48)).view(*acts.shape[:-1], -1)


def busy(latents: Tensor, count: int = 2) -> list[int]:
    """The latents that fire at most places."""
    order: list[int] = (latents > 0).flatten(0, 2).sum(dim=0).argsort(descending=True)[:count].tolist()
    return order


def edited(site: VisionSite, s: Any, edits: Any, **options: Any) -> Tensor:
    """The site's activations `(N, h, w, d)` while it is steered."""
    with steer(site, s, edits, **options):
        return circuits.capture(site.model, PICTURES, [site.layer.name])[site.layer.name].movedim(1, -1)


# -- what an edit is --------------------------------------------------------------------------------------


def test_an_empty_edit_changes_no_bit(model: circuits.Model, site: VisionSite, parts: sae.SAE) -> None:
    pictures = open_images(PICTURES).tensor(model.input)
    clean = model(pictures)
    empty: tuple[Any, ...] = ({}, [], Steering(()))
    for edits in empty:
        with steer(site, parts, edits):
            assert torch.equal(model(pictures), clean)


def test_the_shift_is_the_change_of_the_latent_along_its_write_direction(
    site: VisionSite, parts: sae.SAE, acts: Tensor, latents: Tensor
) -> None:
    first, second = busy(latents)
    for edits, change in (
        ({first: 3.0}, (3.0 - latents[..., first, None]) * parts.write[first]),
        ([LatentEdit(first, "add", -0.7)], torch.full((1,), -0.7) * parts.write[first]),
        ([LatentEdit(first, "scale", 2.5)], 1.5 * latents[..., first, None] * parts.write[first]),
        ([LatentEdit(first, "ablate")], -latents[..., first, None] * parts.write[first]),
        (
            {first: 1.0, second: -2.0},
            (1.0 - latents[..., first, None]) * parts.write[first]
            + (-2.0 - latents[..., second, None]) * parts.write[second],
        ),
    ):
        assert torch.allclose(edited(site, parts, edits) - acts, change.expand_as(acts), atol=2e-6)


def test_setting_a_latent_to_its_own_value_changes_no_bit(
    model: circuits.Model, site: VisionSite, parts: sae.SAE, latents: Tensor
) -> None:
    silent = [i for i in range(parts.latents) if float(latents[..., i].abs().max()) == 0][:2]
    pictures = open_images(PICTURES).tensor(model.input)
    clean = model(pictures)
    edits = [*(LatentEdit(i, "ablate") for i in silent), LatentEdit(busy(latents)[0], "scale", 1.0)]
    with steer(site, parts, edits):
        assert torch.equal(model(pictures), clean)


def test_at_one_position_the_clamp_to_the_current_value_changes_nothing_and_to_another_does(
    site: VisionSite, parts: sae.SAE, acts: Tensor, latents: Tensor
) -> None:
    first = busy(latents)[0]
    one = acts[:1]
    n, y, x = (int(v) for v in (latents[:1, ..., first] > 0).nonzero()[0])
    value = float(latents[n, y, x, first])
    function = steered(site, parts, [LatentEdit(first, "set", value, at=((y, x),))])
    assert torch.equal(function(one), one)
    function = steered(site, parts, [LatentEdit(first, "set", value + 1, at=((y, x),))])
    assert torch.allclose((function(one) - one)[n, y, x], parts.write[first], atol=2e-6)


def test_what_was_ablated_can_be_put_back(model: circuits.Model, acts: Tensor, latents: Tensor, parts: sae.SAE) -> None:
    site = VisionSite(model, "mixed3b")
    first = busy(latents)[0]
    pictures = open_images(PICTURES).tensor(model.input)
    clean = model(pictures)
    taken = latents[..., first, None] * parts.write[first]
    # the outer edit runs first: what it takes, the inner puts back
    with steer(site, parts, [LatentEdit(first, "ablate")]):
        assert not torch.allclose(model(pictures), clean, atol=1e-3)
        with site.replaced(lambda a: a + taken):
            assert torch.allclose(model(pictures), clean, atol=1e-5)
    assert torch.equal(model(pictures), clean)
    # and in one list of edits: set to nothing, then to where it was, at a place where that is known
    n, y, x = (int(v) for v in (latents[:1, ..., first] > 0).nonzero()[0])
    there, value = ((y, x),), float(latents[n, y, x, first])
    with steer(site, parts, [LatentEdit(first, "ablate", at=there), LatentEdit(first, "set", value, at=there)]):
        assert torch.equal(model(pictures[:1]), model(pictures[:1]))
        assert torch.equal(model(pictures)[:1], clean[:1])


def test_edits_commute_where_they_should_and_only_there(
    site: VisionSite, parts: sae.SAE, acts: Tensor, latents: Tensor
) -> None:
    first, second = busy(latents)

    def shift(*edits: LatentEdit) -> Tensor:
        return steered(site, parts, list(edits))(acts)

    a, b = LatentEdit(first, "set", 2.0), LatentEdit(second, "scale", -3.0)
    assert torch.equal(shift(a, b), shift(b, a))
    more, less = LatentEdit(first, "add", 1.5), LatentEdit(first, "add", -0.25)
    assert torch.allclose(shift(more, less), shift(less, more), atol=1e-6)
    assert torch.equal(shift(more, a), shift(a)) and not torch.allclose(shift(a, more), shift(a), atol=0.1)


def test_the_decode_form_loses_the_error(site: VisionSite, parts: sae.SAE, acts: Tensor, latents: Tensor) -> None:
    first = busy(latents)[0]
    wanted = latents.clone()
    wanted[..., first] = 2.0
    found = edited(site, parts, {first: 2.0}, form="decode")
    assert torch.allclose(found, parts.decode(wanted.reshape(-1, parts.latents)).view_as(acts), atol=1e-5)
    assert torch.allclose(edited(site, parts, {}, form="decode"), parts(acts.reshape(-1, 48)).view_as(acts), atol=1e-5)
    error = acts - parts(acts.reshape(-1, 48)).view_as(acts)
    assert torch.allclose(edited(site, parts, {first: 2.0}) - found, error, atol=1e-5)


# -- where and when -----------------------------------------------------------------------------------------


def test_positions_and_masks_are_the_same_and_leave_all_other_positions_unchanged(
    site: VisionSite, parts: sae.SAE, acts: Tensor, latents: Tensor
) -> None:
    first = busy(latents)[0]
    mask = np.zeros((8, 8), dtype=bool)
    mask[2, 5] = mask[7, 0] = True
    by_mask = LatentEdit(first, "add", 2.0, at=mask)
    by_place = LatentEdit(first, "add", 2.0, at=((7, 0), (2, 5)))
    assert by_mask.at == by_place.at and by_mask.map == (8, 8)
    found = edited(site, parts, [by_mask])
    assert torch.equal(found, edited(site, parts, [by_place]))
    changed = (found != acts).any(dim=-1)
    assert torch.equal(changed, torch.from_numpy(mask).expand_as(changed))


def test_a_conditional_edit_applies_where_the_condition_holds_and_nowhere_else(
    site: VisionSite, parts: sae.SAE, acts: Tensor, latents: Tensor
) -> None:
    first, second = busy(latents)
    values = latents[..., second]
    threshold = float(values[values > 0].median())
    edit = LatentEdit(first, "add", 2.0, when=When(second, above=threshold))
    changed = (edited(site, parts, [edit]) != acts).any(dim=-1)
    assert torch.equal(changed, values > threshold) and 0 < int(changed.sum()) < changed.numel()
    between = LatentEdit(first, "add", 2.0, when=When(second, above=0.0, below=threshold))
    changed = (edited(site, parts, [between]) != acts).any(dim=-1)
    assert torch.equal(changed, (values > 0) & (values < threshold))
    high = float(values.amax(dim=(1, 2)).median())
    anywhere = LatentEdit(first, "add", 2.0, when=When(second, above=high, anywhere=True))
    changed = (edited(site, parts, [anywhere]) != acts).any(dim=-1)
    assert torch.equal(changed, (values.amax(dim=(1, 2)) > high)[:, None, None].expand_as(changed))
    assert 0 < int(changed.sum()) < changed.numel()


def test_conditions_read_the_activations_before_any_edit(
    site: VisionSite, parts: sae.SAE, acts: Tensor, latents: Tensor
) -> None:
    first, second = busy(latents)
    off, then = LatentEdit(second, "ablate"), LatentEdit(first, "add", 2.0, when=When(second, above=0.0))
    both = steered(site, parts, [off, then])(acts)
    assert torch.equal(both, steered(site, parts, [then, off])(acts))
    where = latents[..., second] > 0
    assert torch.allclose(
        (both - acts)[where],
        (2.0 * parts.write[first] - latents[..., second, None] * parts.write[second])[where],
        atol=2e-6,
    )


# -- units ----------------------------------------------------------------------------------------------------


def test_maxima_are_over_all_positions_and_are_the_unit_of_multiples(
    site: VisionSite, parts: sae.SAE, acts: Tensor, latents: Tensor
) -> None:
    found = maxima(parts, site, PICTURES, batch_size=4)
    assert torch.allclose(found.values, latents.flatten(0, 2).amax(dim=0), atol=1e-6)
    assert found.inputs["count"] == 6 and found.inputs["digest"] == open_images(PICTURES).digest
    first = busy(latents)[0]
    absolute = {first: 3.0 * found.of(first)}
    for edits, options in (
        ({first: 3.0}, {"maxima": found}),
        ([LatentEdit(first, "set", 3.0, unit="max")], {"maxima": found}),
        (absolute, {}),
        (absolute, {"maxima": found, "unit": "absolute"}),
    ):
        assert torch.allclose(edited(site, parts, edits, **options), edited(site, parts, absolute), atol=1e-5)
    level = When(first, above=0.5, unit="max")
    changed = edited(site, parts, [LatentEdit(busy(latents)[1], "add", 2.0, when=level)], maxima=found) != acts
    assert torch.equal(changed.any(dim=-1), latents[..., first] > 0.5 * found.of(first))


def test_a_latent_that_never_fired_has_no_unit(site: VisionSite, parts: sae.SAE, latents: Tensor) -> None:
    silent = next(i for i in range(parts.latents) if float(latents[..., i].max()) == 0)
    found = maxima(parts, site, PICTURES)
    with pytest.raises(SAEError, match="never fired on 6 inputs"):
        steered(site, parts, {silent: 2.0}, maxima=found)
    with pytest.raises(SAEError, match=r"not known: give maxima="):
        steered(site, parts, [LatentEdit(3, "set", 2.0, unit="max")])
    with pytest.raises(SAEError, match="measure them with this basis"):
        steered(site, scrambled(48), {3: 2.0}, maxima=found)


# -- channels and directions ------------------------------------------------------------------------------------


def test_channels_are_steered_like_latents(model: circuits.Model, site: VisionSite, acts: Tensor) -> None:
    pictures = open_images(PICTURES).tensor(model.input)
    with circuits.edit(model, [circuits.Set("mixed3b:7", 2.5), circuits.Scale("mixed3b:9", -1.0)]):
        wanted = model(pictures)
    for s in (None, Channels(48)):
        with steer(site, s, [LatentEdit(7, "set", 2.5), LatentEdit(9, "scale", -1.0)]):
            assert torch.allclose(model(pictures), wanted, atol=1e-5)
    assert torch.equal(maxima(None, site, PICTURES).values, acts.flatten(0, 2).amax(dim=0))


def test_directions_are_steered_along_their_write_directions(site: VisionSite, acts: Tensor) -> None:
    rows = torch.nn.functional.normalize(torch.randn(3, 48, generator=torch.Generator().manual_seed(0)))
    found = edited(site, Directions(rows), {1: 4.0})
    pre = acts @ rows.T
    assert torch.allclose(found - acts, (4.0 - pre[..., 1:2]) * rows.pinverse().T[1], atol=1e-5)
    with pytest.raises(SAEError, match="does not reconstruct"):
        steered(site, Directions(rows), {1: 4.0}, form="decode")


def test_on_the_planted_net_an_edit_has_the_effect_that_its_weights_say() -> None:
    model = nets.planted(torch.float64)
    site = VisionSite(model, "objects")
    pictures = nets.car_pictures(2).double()
    clean, acts = model(pictures), circuits.capture(model, pictures, ["objects"])["objects"]
    with steer(site, None, {nets.CAR: 3.0}):
        found = model(pictures)
    # the logits read the mean of the map: classes weigh the car by +2 and -2
    change = 3.0 - acts[:, nets.CAR].mean(dim=(1, 2))
    assert torch.allclose(found - clean, change[:, None] * torch.tensor([2.0, -2.0]).double(), atol=1e-9)
    with steer(site, None, [LatentEdit(nets.CAR, "add", 6.0, at=(nets.CAR_AT,))]):
        found = model(pictures)
    assert torch.allclose(found - clean, torch.tensor([12.0, -12.0]).double() / 32**2, atol=1e-9)


# -- files --------------------------------------------------------------------------------------------------------


def everything() -> tuple[LatentEdit, ...]:
    return (
        LatentEdit(1, "set", 3.0, unit="max"),
        LatentEdit(2, "add", -0.1, at=((0, 1), (7, 7))),
        LatentEdit(3, "scale", 2.0, at=torch.eye(8, dtype=torch.bool)),
        LatentEdit(4, "ablate", when=(When(5, above=0.5, unit="max"), When(6, below=0.2, anywhere=True))),
    )


def test_steering_survives_json(site: VisionSite, parts: sae.SAE, acts: Tensor) -> None:
    strengths = Maxima(torch.arange(1.0, 97.0), site.address, _digest(parts), {"count": 6})
    function = steered(site, parts, everything(), maxima=strengths)
    text = function.steering.json()
    again = Steering.parse(text)
    assert again == function.steering and again.json() == text
    assert again.strengths == {1: 2.0, 5: 6.0} and json.loads(text)["schema"] == 1
    assert torch.equal(steered(site, parts, again)(acts), function(acts))


def _digest(s: sae.SAE) -> str:
    from circuits.network.basis import basis_digest

    return basis_digest(s)


def test_steering_of_another_dictionary_or_site_is_refused(
    model: circuits.Model, site: VisionSite, parts: sae.SAE
) -> None:
    kept = Steering.parse(steered(site, parts, {3: 1.0}).steering.json())
    with pytest.raises(SAEError, match="another dictionary"):
        steered(site, scrambled(48), kept)
    with pytest.raises(SAEError, match="is for scenes/mixed3b"):
        steered(VisionSite(model, "mixed3a"), None, kept)
    with pytest.raises(SAEError, match="its own unit"):
        steered(site, parts, kept, form="delta")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema=2), "schema 2; 1 can be read"),
        (lambda d: d.update(kind="circuit"), "is no steering"),
        (lambda d: d.update(form="both"), "form='both'"),
        (lambda d: d.update(more=1), "a steering has no 'more'"),
        (lambda d: d.update(edits={}), "a list of edits"),
        (lambda d: d["edits"].append(7), "an edit is an object"),
        (lambda d: d["edits"][0].update(latnet=1), "an edit has no 'latnet'. Nearest: latent"),
        (lambda d: d["edits"][0].update(kind="boost"), "kind='boost'"),
        (lambda d: d["edits"][0].update(value="3"), "a number that is finite"),
        (lambda d: d["edits"][0].update(latent=-1), "whole number of at least 0"),
        (lambda d: d["edits"][0].update(at=[[1, 2, 3]]), "positions are"),
        (lambda d: d["edits"][3]["when"][0].update(above=None), "needs above=, below="),
        (lambda d: d["edits"][2].update(map=[1]), "height and width"),
        (lambda d: d["edits"][0].pop("latent"), "an edit that is none"),
        (lambda d: d["maxima"].update({"x": 1.0}), "no whole number"),
        (lambda d: d["maxima"].update({"1": 0.0}), "above 0"),
    ],
)
def test_a_damaged_document_is_refused(change: Callable[[Any], Any], said: str) -> None:
    document = json.loads(Steering(everything(), strengths={1: 2.0, 5: 6.0}).json())
    change(document)
    with pytest.raises(SAEError, match=said):
        Steering.parse(json.dumps(document))
    with pytest.raises(SAEError, match="no JSON"):
        Steering.parse("{")


# -- what cannot be done --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LatentEdit(-1), "whole number of at least 0"),
        (lambda: LatentEdit(1, "boost", 2.0), "kind='boost': use one of 'set', 'add', 'scale', 'ablate'"),  # type: ignore[arg-type]
        (lambda: LatentEdit(1, "set", float("nan")), "value=nan must be a number that is finite"),
        (lambda: LatentEdit(1, "set"), "value=None must be a number that is finite"),
        (lambda: LatentEdit(1, "ablate", 0.0), "takes no value"),
        (lambda: LatentEdit(1, "scale", 2.0, unit="max"), "takes no unit"),
        (lambda: LatentEdit(1, "set", 2.0, unit="sigma"), "unit='sigma'"),  # type: ignore[arg-type]
        (lambda: LatentEdit(1, "set", 2.0, at=()), "positions are"),
        (lambda: LatentEdit(1, "set", 2.0, at=[[False, False]]), "False everywhere"),
        (lambda: LatentEdit(1, "set", 2.0, when=7), "takes When"),  # type: ignore[arg-type]
        (lambda: When(3), "needs above="),
        (lambda: When(3, above=float("inf")), "a number that is finite"),
    ],
)
def test_edits_that_are_none_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(SAEError, match=said):
        make()


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ({96: 1.0}, "96 latents, 0 to 95; asked for 96"),
        ([LatentEdit(1, "add", 1.0, when=When(96, above=0))], "asked for 96"),
        ([LatentEdit(1, "add", 1.0, at=((8, 0),))], "position 8,0 is outside the 8x8 map of scenes/mixed3b"),
        ([LatentEdit(1, "add", 1.0, at=[[True] * 4] * 4)], r"mask is \(4, 4\); the map of scenes/mixed3b is \(8, 8\)"),
        ([LatentEdit(1, "add", 1.0, at=(3,))], "its positions are"),
        ([LatentEdit(1, "add", 1.0, at="last")], "its positions are"),
        (7, "edits are {latent: value}"),
        ([{3: 1.0}], "edits are {latent: value} or a list"),
        ({1: float("nan")}, "a number that is finite"),
        ({1.5: 1.0}, "whole number"),
    ],
)
def test_edits_that_do_not_fit_are_refused_and_leave_no_hook(
    model: circuits.Model, site: VisionSite, parts: sae.SAE, edits: Any, said: str
) -> None:
    before = nets.state(model)
    with pytest.raises(SAEError, match=said), steer(site, parts, edits):
        model(open_images(PICTURES).tensor(model.input))
    assert nets.state(model) == before


def test_a_dictionary_that_does_not_fit_is_refused(site: VisionSite) -> None:
    with pytest.raises(SAEError, match="reads 47 channels; scenes/mixed3b has 48"):
        steered(site, scrambled(47), {1: 1.0})
    with pytest.raises(SAEError, match="47 wide"):
        steered(site, Channels(47), {1: 1.0})
    with pytest.raises(SAEError, match="got str"):
        steered(site, "parts", {1: 1.0})  # type: ignore[arg-type]
    other = scrambled(48)
    other.metadata = {**site.metadata, "layer": "mixed4a"}
    with pytest.raises(SAEError, match="another layer"):
        steered(site, other, {1: 1.0})


def test_edits_of_two_threads_never_mix(
    model: circuits.Model, site: VisionSite, parts: sae.SAE, latents: Tensor
) -> None:
    pictures = open_images(PICTURES).tensor(model.input)
    edits = [{i: 4.0} for i in busy(latents, 2)]
    alone = []
    for one in edits:
        with steer(site, parts, one):
            alone.append(model(pictures))
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)
    together: dict[int, list[Tensor]] = {0: [], 1: []}
    inside: list[int] = []
    most: list[int] = []

    def run(which: int) -> None:
        for _ in range(5):
            with steer(site, parts, edits[which]):
                inside.append(which)
                most.append(len(inside))
                time.sleep(0.005)  # time for the other to get in, if it could
                together[which].append(model(pictures))
                inside.pop()

    threads = [threading.Thread(target=run, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert all(torch.equal(out, alone[which]) for which in (0, 1) for out in together[which])


def test_latents_are_read_once_for_several_ways_and_anew_when_activations_change(
    site: VisionSite, parts: sae.SAE, acts: Tensor
) -> None:
    from sae.steering.apply import LatentReader, Steered

    calls: list[int] = []

    class Counting:
        read, write = parts.read, parts.write

        def encode(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return parts.encode(x)

    reading = LatentReader(Counting(), {1, 2})
    ways = [Steered(site, parts, Steering((LatentEdit(i, "set", 1.0),)), reading) for i in (1, 2)]
    own = acts.clone()
    for way in ways:
        way(own)
    assert len(calls) == 1
    first = ways[0](own)
    own += 1
    assert len(calls) == 1 and not torch.equal(ways[0](own), first) and len(calls) == 2
    assert torch.equal(ways[0](own), steered(site, parts, {1: 1.0})(own))


# -- which latents --------------------------------------------------------------------------------------------------


def test_search_ranks_by_the_auc_of_the_largest_activation(site: VisionSite, parts: sae.SAE) -> None:
    pictures = open_images("scenes:120@3")
    found = search_label(parts, site, pictures, "wheel")
    assert pictures.annotations is not None
    has = torch.tensor([any(p.name == "wheel" for p in a.parts) for a in pictures.annotations])
    pooled = torch.stack([parts.encode(b.reshape(-1, 48)).amax(0) for b in collect_maps(site, pictures)])
    # one half of either side ranks, the other is reported
    sides = [has.nonzero().flatten(), (~has).nonzero().flatten()]
    orders = [torch.randperm(len(side), generator=torch.Generator().manual_seed(0)) for side in sides]
    first, second = zip(*((pooled[s[o[: len(s) // 2]]], pooled[s[o[len(s) // 2 :]]])
                          for s, o in zip(sides, orders, strict=True)), strict=True)  # fmt: skip
    chosen, areas = auc(*first), auc(*second)
    assert found.best.latent == int(chosen.argmax()) and found.best.chosen_auc == pytest.approx(float(chosen.max()))
    assert all(row.auc == pytest.approx(float(areas[row.latent]), abs=1e-6) for row in found.rows)
    assert found.best.auc > found.chance and (found.n_positive, found.n_negative) == (int(has.sum()), int((~has).sum()))
    assert found.best.unit == f"scenes/mixed3b~sae:{found.best.latent}"
    split = search(
        parts,
        site,
        pictures.subset(has.nonzero().flatten().tolist()),
        pictures.subset((~has).nonzero().flatten().tolist()),
    )
    assert [row.latent for row in split.rows[:10]] == [row.latent for row in found.rows[:10]]
    by_hand = search_label(parts, site, pictures, has.tolist())
    assert by_hand.rows == found.rows


def collect_maps(site: VisionSite, pictures: Any) -> list[Tensor]:
    return [one for block in site.blocks(pictures) for one in block.acts]


def test_search_finds_nothing_where_there_is_nothing(site: VisionSite) -> None:
    drawn = torch.rand(60, generator=torch.Generator().manual_seed(0)) > 0.5
    found = search_label(None, site, "scenes:60@3", drawn.tolist())
    assert found.best.auc < found.chance + 0.05 and found.best.unit.startswith("scenes/mixed3b:")


def test_searches_without_a_result_are_refused(site: VisionSite, parts: sae.SAE) -> None:
    with pytest.raises(SAEError, match="no input is labeled 'wheels'"):
        search_label(parts, site, "scenes:6", "wheels")
    with pytest.raises(SAEError, match="have no labels"):
        search_label(parts, site, torch.rand(3, 3, 64, 64), "car")
    with pytest.raises(SAEError, match="for each of 6 inputs"):
        search_label(parts, site, "scenes:6", [True, False])
    with pytest.raises(SAEError, match="all of 6 inputs"):
        search_label(parts, site, "scenes:6", [True] * 6)
    with pytest.raises(SAEError, match="there is one positive input; a search needs two"):
        search_label(parts, site, "scenes:6", [True] + [False] * 5)


def test_the_best_of_many_latents_is_no_better_than_it_is_on_other_inputs(site: VisionSite, parts: sae.SAE) -> None:
    """With labels that mean nothing the choice has a high AUC where it was made, and chance on the other half."""
    chosen, reported = [], []
    for seed in range(6):
        drawn = torch.rand(60, generator=torch.Generator().manual_seed(seed)) > 0.5
        best = search_label(parts, site, "scenes:60@3", drawn.tolist(), shuffles=1, seed=seed).best
        assert best.chosen_auc is not None
        chosen.append(best.chosen_auc)
        reported.append(best.auc)
    assert min(chosen) > 0.65 and abs(float(np.mean(reported)) - 0.5) < 0.12


def test_similar_latents_are_those_with_the_largest_cosines() -> None:
    one = scrambled(24, latents=40)
    with torch.no_grad():
        one.decoder[7] = -2 * one.decoder[3] + 0.01
    found = similar(one, 3, top=5)
    assert found.rows[0][0] == 7 and found.rows[0][1] < -0.99 and len(found.rows) == 5
    unit = torch.nn.functional.normalize(one.write.detach().double())
    assert found.rows[1][1] == pytest.approx(float((unit @ unit[3])[found.rows[1][0]]))
    assert found.describe()["rows"][0]["beyond_chance"]


def test_the_closed_form_of_chance_holds_for_random_directions() -> None:
    rows = torch.nn.functional.normalize(torch.randn(400, 50, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    nearest = (rows[:, :1] * rows[:, 1:]).sum(dim=-1).abs().amax(dim=1)
    assert float((nearest > chance_cosine(16, 50, 0.1)).float().mean()) == pytest.approx(0.1, abs=0.04)
    assert chance_cosine(2, 2, 0.5) == pytest.approx(np.cos(np.pi / 4), abs=1e-9)


def test_inspection_lists_the_active_latents_and_their_positions(
    site: VisionSite, parts: sae.SAE, acts: Tensor, latents: Tensor
) -> None:
    found = inspect(parts, site, PICTURES, top=3)
    assert len(found.rows) == 6
    for n, row in enumerate(found.rows):
        best = latents[n].flatten(0, 1).amax(dim=0)
        assert [one.value for one in row] == pytest.approx(best.sort(descending=True).values[:3].tolist(), abs=1e-5)
        for one in row:
            assert float(latents[n, one.position[0], one.position[1], one.latent]) == pytest.approx(one.value, abs=1e-5)
            assert one.active == int((latents[n, ..., one.latent] > 0).sum())
    here = inspect(parts, site, PICTURES, at=(2, 3), top=1).rows[1][0]
    assert here.position == (2, 3) and here.latent == int(latents[1, 2, 3].argmax())
    known = maxima(parts, site, PICTURES)
    shares = inspect(parts, site, PICTURES, maxima=known).rows[0]
    assert [one.share for one in shares] == sorted((one.share for one in shares), reverse=True)  # type: ignore[type-var]
    assert shares[0].share is not None and shares[0].share <= 1 + 1e-6
    json.dumps(found.describe(), allow_nan=False)
    with pytest.raises(SAEError, match=r"no position \(8, 0\)"):
        inspect(parts, site, PICTURES, at=(8, 0))
