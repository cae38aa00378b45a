"""Minimal pairs: nothing but the part changes, and what is known of both images is right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo.errors import ImageError
from zoo.images.sources import open_images
from zoo.inputs import InputSpec
from zoo.scenes import CHANGES, CLASSES, PARTS, ScenePair, draw, pair_of, pairs, parts_of
from zoo.scenes.objects import OBJECTS

EVERY = [(kind, part) for kind in OBJECTS for part in parts_of(kind)]


def outside(pair: ScenePair) -> np.ndarray:  # type: ignore[type-arg]
    """Pixels in none of the boxes."""
    mask = np.ones(pair.original.image.shape[:2], dtype=bool)
    for x0, y0, x1, y1 in pair.boxes:
        mask[y0:y1, x0:x1] = False
    return mask


def visible(pair: ScenePair, name: str) -> tuple[int, int]:
    """Pixels that show parts of a name, in the original and in the changed scene."""
    before, after = (sum(int(p.mask.sum()) for p in s.parts if p.name == name) for s in (pair.original, pair.changed))
    return before, after


def test_every_part_belongs_to_a_class() -> None:
    assert parts_of("car") == ("window", "car_body", "wheel") and parts_of("face") == ("hair", "eye", "mouth")
    assert {part for _, part in EVERY} == set(PARTS)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("kind", "part"), EVERY)
def test_nothing_but_the_part_changes(kind: str, part: str, change: str) -> None:
    for pair in pairs(2, kind, part, change, seed=3):
        differs = (pair.original.image != pair.changed.image).any(axis=2)
        assert not differs[outside(pair)].any() and differs.sum() >= 6
        assert (pair.original.label, pair.original.arrangement, pair.original.kind) == (kind, "normal", kind)
        assert (pair.changed.label, pair.changed.arrangement, pair.changed.kind) == ("nothing", change, kind)
        assert pair.changed.label_index == CLASSES.index("nothing")
        assert (pair.original.image == draw(pair.original.seed, kind).image).all()
        before, after = visible(pair, part)
        assert before > 0
        if change != "moved":
            # what is left of that name lies behind the object, and was there before
            assert after < before
        beyond = outside(pair)
        for old, new in ((pair.original, pair.changed), (pair.changed, pair.original)):
            for mask in (p.mask & beyond for p in old.parts):
                same = [q.mask & beyond for q in new.parts]
                assert mask.sum() < 6 or any((mask == m).all() for m in same), "masks beyond the boxes are the same"


def test_a_moved_part_is_seen_where_it_went_and_a_distractor_where_the_part_was() -> None:
    for pair in pairs(4, "car", "wheel", "moved"):
        old, new = pair.boxes[:2], pair.boxes[2:]
        shift = {(n[0] - o[0], n[1] - o[1]) for o, n in zip(old, new, strict=True)}
        assert max(abs(v) for s in shift for v in s) > 8, "it is somewhere else"
        wheels = [p for p in pair.changed.parts if p.name == "wheel"]
        assert sum(any(n[0] <= w.box[0] and w.box[2] <= n[2] and n[1] <= w.box[1] for n in new) for w in wheels) == 2
    for pair in pairs(4, "car", "wheel", "replaced"):
        names = {p.name for p in pair.changed.parts}
        assert not names & {"wheel"} or visible(pair, "wheel")[1] < visible(pair, "wheel")[0]
        others = [p for p in pair.changed.parts if not any((p.mask == q.mask).all() for q in pair.original.parts)]
        inside = [p for p in others if any((p.mask & ~outside(pair)).any() for _ in pair.boxes)]
        assert {p.name for p in inside} - set(parts_of("car")), "parts of another object lie in the boxes"


def test_pairs_change_far_less_than_a_scene_drawn_in_the_wrong_arrangement() -> None:
    """The same seed with `no_wheels` moves and scales the car, and shifts every random number after it."""
    shares = [
        ((p.original.image != p.changed.image).any(axis=2).mean(), (p.original.image != other.image).any(axis=2).mean())
        for p in pairs(12, "car", "wheel")
        for other in (draw(p.original.seed, "car", "no_wheels"),)
    ]
    pair, arrangement = np.median(np.array(shares), axis=0)
    assert pair < 0.09 and arrangement > 2 * pair


def test_the_same_seed_gives_the_same_bytes_and_fewer_pairs_are_the_first_of_more() -> None:
    first, again = list(pairs(3, "face", "eye", "moved", seed=5)), list(pairs(2, "face", "eye", "moved", seed=5))
    for a, b in zip(first, again, strict=False):
        assert a.boxes == b.boxes and (a.changed.image == b.changed.image).all() and a.original.seed == b.original.seed
    assert [p.original.seed for p in pairs(2, "face", "eye", "moved", seed=6)] != [p.original.seed for p in again]
    removed = [p.original.seed for p in pairs(3, "face", "eye", "removed", seed=5)]
    assert removed == [p.original.seed for p in first], "every change has the same originals"


def test_both_sides_have_an_address() -> None:
    before, after = open_images("scenes:pairs/car/wheel:4@7"), open_images("scenes:pairs/car/wheel/removed:4@7")
    made = list(pairs(4, "car", "wheel", "removed", seed=7))
    spec = InputSpec(size=64)
    for images, side in ((before, "original"), (after, "changed")):
        scenes = [getattr(pair, side) for pair in made]
        expected = torch.stack([torch.from_numpy(s.image).permute(2, 0, 1).float() / 255 for s in scenes])
        torch.testing.assert_close(images.tensor(spec), expected)
        assert images.labels == [s.label_index for s in scenes] and images.annotations is not None
        assert [len(a.parts) for a in images.annotations] == [len(s.parts) for s in scenes]
    assert before.ids[0] == "scenes:pairs/car/wheel@7/000000" and not set(before.ids) & set(after.ids)
    assert before.origin is not None and before.origin["sources"] == ["scenes:pairs/car/wheel:4@7"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("scenes:pairs/car:4", "minimal pairs as scenes:pairs/car/wheel:COUNT"),
        ("scenes:pairs/cat/wheel:4", "a cat has no part 'wheel'; its parts: tail, cat_body, cat_head"),
        ("scenes:pairs/cars/wheel:4", "no scene class 'cars' is made of parts. Nearest: car"),
        ("scenes:pairs/nothing/wheel:4", "no scene class 'nothing'"),
        ("scenes:pairs/car/wheel/moves:4", "no change 'moves'; known: removed, moved, replaced. Nearest: moved"),
        ("scenes:pairs/car/wheel:0", "between 1 and"),
    ],
)
def test_bad_addresses_are_refused(address: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        open_images(address)


def test_one_pair_is_that_of_its_seed() -> None:
    pair = pair_of(7, "house", "door", "replaced")
    assert pair.original.seed == pair.changed.seed == 7 and len(pair.boxes) == 1
