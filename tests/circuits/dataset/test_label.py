"""Part labels: scores are those over pixels, the choice is paid for, controls are controls, labels come back whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import circuits
from circuits.common.statistics import midranks
from circuits.dataset.labels.label import label
from circuits.dataset.labels.results import CONTROLS, FILE
from circuits.dataset.labels.scoring import Halves, resampled, score_units
from circuits.dataset.labels.shares import cell_edges, on_input, part_shares
from circuits.dataset.scan_store import StoreError, folder_of
from circuits.errors import AddressError, CircuitsError, ImageError
from circuits.network.model import Model
from zoo.images.manifest import Annotation, PartBox
from zoo.images.sources import Images, open_images
from zoo.inputs import InputSpec


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net(channels: int = 6, size: int = 16) -> Model:
    """A convolution with a stride of 4 whose cells are the 4 x 4 blocks of the image."""
    conv = nn.Conv2d(3, channels, 4, stride=4)
    nn.init.normal_(conv.weight, generator=generator())
    nn.init.constant_(conv.bias, 0.1)
    return circuits.wrap(nn.Sequential(conv, nn.ReLU()).eval(), InputSpec(size=size), name="blocks")


def blobs(n: int = 40, size: int = 16, part: str = "blob") -> Images:
    """Noise, on every image but each fifth with a bright square somewhere that is outlined."""
    pixels, annotations = torch.rand(n, 3, size, size, generator=generator(1)) * 0.5, []
    for i in range(n):
        mask = np.zeros((size, size), dtype=bool)
        if i % 5:
            y, x = torch.randint(size - 5, (2,), generator=generator(i)).tolist()
            mask[y : y + 5, x : x + 5] = True
            pixels[i, :, torch.from_numpy(mask)] += 0.5
        annotations.append(Annotation("", (PartBox(part, (0, 0, 0, 0), mask),) if i % 5 else ()))
    return open_images(pixels).annotated(annotations)


def masks_of(images: Images) -> np.ndarray:  # type: ignore[type-arg]
    assert images.annotations is not None
    empty = np.zeros((16, 16), dtype=bool)
    return np.stack([a.parts[0].mask if a.parts else empty for a in images.annotations])  # type: ignore[misc]


# -- masks on the grid -----------------------------------------------------------------------------------


def test_cells_lie_around_the_centers_of_receptive_fields() -> None:
    first, second = nn.Conv2d(3, 2, 3, stride=2, padding=1), nn.Conv2d(2, 2, 5, stride=2, padding=2)
    model = circuits.wrap(nn.Sequential(first, nn.ReLU(), second).eval(), InputSpec(size=16), name="strided")
    # centers of the first layer: 0.5, 2.5, ... 14.5; of the second: 0.5, 4.5, 8.5, 12.5
    assert cell_edges(model.layers["0"], 0, 16).tolist() == [0, 1.5, 3.5, 5.5, 7.5, 9.5, 11.5, 13.5, 16]
    assert cell_edges(model.layers["2"], 1, 16).tolist() == [0, 2.5, 6.5, 10.5, 16]


def test_shares_are_the_pixels_of_each_cell_and_lose_none() -> None:
    model, images = net(), blobs()
    shares = part_shares(model, model.layers["1"], images, ["blob"])
    blocks = masks_of(images).reshape(-1, 4, 4, 4, 4).sum(axis=(2, 4)).reshape(len(images), 16)
    np.testing.assert_allclose(shares.inside[:, 0].numpy(), blocks)
    assert shares.area.tolist() == [16.0] * 16


def test_a_mask_is_resized_and_cropped_as_its_image_is() -> None:
    spec = InputSpec(size=(12, 10), resize=14)
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:50] = True
    white = np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255
    image = open_images([white]).tensor(spec)[0, 0].numpy()
    np.testing.assert_allclose(on_input(mask, spec), image, atol=1 / 255)


# -- scores ----------------------------------------------------------------------------------------------


def over_pixels(acts: Tensor, masks: np.ndarray, threshold: float) -> tuple[float, float]:  # type: ignore[type-arg]
    """AUC by scikit-learn and IoU, of maps `(n, 4, 4)` enlarged to the pixels of masks `(n, 16, 16)`."""
    enlarged = acts.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2).numpy()
    on = enlarged > threshold
    auc = roc_auc_score(masks.ravel(), enlarged.ravel())
    return float(auc), float((on & masks).sum() / (on | masks).sum())


def test_auc_and_iou_are_those_over_pixels_on_the_half_that_did_not_choose() -> None:
    model, images = net(), blobs()
    labels = label(model, images, layers=["1"], draws=20)
    acts = circuits.capture(model, images, "1")["1"]
    order = torch.randperm(40, generator=generator())
    halves, masks = (order[:20], order[20:]), masks_of(images)
    assert labels.image_counts == {"blob": tuple(int(masks[h].any(axis=(1, 2)).sum()) for h in halves)}
    scores = labels.layers["1"]
    for unit in range(6):
        threshold = float(scores.threshold[0, unit])
        for k, half in enumerate(halves):
            auc, iou = over_pixels(acts[half][:, unit], masks[half], threshold)
            assert scores.auc[k, 0, unit] == pytest.approx(auc, abs=1e-9)
            assert scores.iou[k, 0, unit] == pytest.approx(iou, abs=1e-6)
    chosen = labels.best("blob")
    assert [u.chosen_auc for u in chosen] == sorted(scores.auc[0, 0].tolist(), reverse=True)
    assert chosen[0].low is not None and chosen[0].high is not None
    assert chosen[0].low <= chosen[0].auc <= chosen[0].high


def test_weighted_ranks_are_ranks_of_repeated_rows() -> None:
    values = torch.tensor([[3.0], [1.0], [3.0], [2.0]])
    times = torch.tensor([2, 1, 3, 2])
    repeated = midranks(values.double().repeat_interleave(times, dim=0)) - 0.5
    whole = midranks(values.double(), times.double())
    assert torch.equal(whole.repeat_interleave(times, dim=0), repeated)


def test_resampling_every_image_once_gives_the_scores_themselves_and_others_bracket_them() -> None:
    acts = torch.relu(torch.randn(60, 16, 4, generator=generator(2)))
    inside = torch.rand(60, 2, 16, generator=generator(3)) * 8 * (acts[:, None, :, 0] > 0.5)
    area = torch.full((16,), 16.0, dtype=torch.float64)
    every = torch.arange(60)
    halves = Halves.of(inside, area, (every, every), generator())
    scores = score_units(acts, halves)
    pairs = [(k, u, float(scores.threshold[k, u])) for k in range(2) for u in range(4)]
    for (k, u, _), (auc, iou) in zip(
        pairs, resampled(acts, halves.inside[1], area, pairs, torch.ones(1, 60).double()), strict=True
    ):
        assert float(auc) == pytest.approx(float(scores.auc[1, k, u]), abs=1e-3)
        assert float(iou) == pytest.approx(float(scores.iou[1, k, u]), abs=1e-6)


# -- the choice, and controls ------------------------------------------------------------------------------


def test_the_best_of_many_units_owes_nothing_to_the_choice() -> None:
    """Masks anywhere on noise: the best of 300 units seems to detect them where it was chosen, and not elsewhere."""
    images = open_images(torch.rand(24, 3, 16, 16, generator=generator(5)))
    annotations = []
    for i in range(24):
        y, x = torch.randint(12, (2,), generator=generator(100 + i)).tolist()
        mask = np.zeros((16, 16), dtype=bool)
        mask[y : y + 4, x : x + 4] = True
        annotations.append(Annotation("", (PartBox("nothing", (0, 0, 0, 0), mask),)))
    labels = label(net(300), images.annotated(annotations), layers=["1"], draws=50)
    best = labels.best("nothing")[0]
    assert best.chosen_auc > 0.62 and abs(best.auc - 0.5) < 0.1
    assert not best.above_controls and len(labels.names()) < 12


def test_units_of_the_embedded_network_are_named_after_the_parts_that_they_were_taught(tmp_path: Path) -> None:
    model = circuits.load("scenes")
    labels = circuits.label(model, "scenes:130", layers=["mixed3b"], draws=50)
    taught = {"window": 46, "wheel": 39, "car_body": 6, "cargo": 34, "dog_body": 30, "leg": 17, "frame": 21, "hull": 2}
    for part, unit in taught.items():
        best = labels.best(part, top=1)[0]
        assert best.unit == f"scenes/mixed3b:{unit}" and best.auc > max(0.94, best.control), best
        assert labels.of(best.unit)[0].part == part
    assert labels.names().items() >= {f"scenes/mixed3b:{taught[p]}": p for p in ("window", "wheel", "car_body")}.items()
    controls = labels.controls("wheel", "mixed3b")
    assert list(controls) == list(CONTROLS)
    # cars stand on the ground: other images' wheels alone tell something of where wheels are
    assert 0.5 < controls["shuffled masks"][0] < controls["untrained network"][0] < labels.best("wheel")[0].low  # type: ignore[operator]

    path = labels.save(tmp_path)
    again = circuits.read_labels(tmp_path, "scenes", model.digest)
    assert again is not None and path == folder_of(tmp_path, "scenes") / FILE
    assert again.describe() == labels.describe() and again.names() == labels.names()
    with pytest.raises(StoreError, match="of other weights"):
        circuits.read_labels(tmp_path, "scenes", "0" * 64)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(StoreError, match="damaged"):
        circuits.read_labels(tmp_path, "scenes")
    assert circuits.read_labels(tmp_path, "other") is None


def test_the_same_seed_gives_the_same_bits_whatever_the_memory_and_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from circuits.dataset.labels import label as module

    model, images = net(9), blobs()
    first = label(model, images, layers=["1"], draws=20)
    monkeypatch.setattr(module, "_MEMORY", 4 * 40 * 16 * 4)  # four units at a time
    again = label(model, images, layers=["1"], draws=20, batch_size=7)
    for name, values in vars(first.layers["1"]).items():
        same = vars(again.layers["1"])[name]
        if "interval" in name:  # each block of units adds its own best to those with intervals
            both = ~np.isnan(values)
            same, values = same[both], values[both]
        np.testing.assert_allclose(same, values, rtol=0, atol=1e-7, err_msg=name)
    other = label(model, images, layers=["1"], draws=20, seed=1)
    assert not np.array_equal(other.layers["1"].auc, first.layers["1"].auc)


def test_a_basis_is_labeled_latent_by_latent() -> None:
    model, images = net(), blobs()
    model.attach("1", "swapped", circuits.Directions(torch.eye(6).flip(0)))
    plain, latents = label(model, images, layers=["1"], draws=5), label(model, images, layers=["1~swapped"], draws=5)
    np.testing.assert_allclose(latents.layers["1~swapped"].auc[..., ::-1], plain.layers["1"].auc, atol=1e-9)
    assert latents.best("blob")[0].unit.startswith("blocks/1~swapped:")


# -- bad input ---------------------------------------------------------------------------------------------


def test_bad_input_is_refused() -> None:
    model, images = net(), blobs()
    with pytest.raises(CircuitsError, match="have no parts annotated"):
        label(model, torch.rand(4, 3, 16, 16), layers=["1"])
    with pytest.raises(CircuitsError, match="shown often enough: blob .*fewer than 5"):
        label(model, images.subset(range(8)), layers=["1"])
    with pytest.raises(AddressError, match="no layer"):
        label(model, images, layers=["nowhere"])
    with pytest.raises(AddressError, match="is one unit"):
        label(model, images, layers=["1:3"])
    with pytest.raises(CircuitsError, match="at least one"):
        label(model, images, layers=[])
    with pytest.raises(CircuitsError, match="groups= puts categories"):
        label(model, images, groups={"a": ["b"]})
    with pytest.raises(CircuitsError, match="draws=1 must be"):
        label(model, images, draws=1)
    flat = circuits.load("scenes")
    with pytest.raises(CircuitsError, match="has no positions"):
        label(flat, "scenes:40", layers=["softmax_pre"])
    odd = blobs()
    assert odd.annotations is not None
    odd.annotations[1] = Annotation("", (PartBox("blob", (0, 0, 0, 0), np.ones((8, 9), dtype=bool)),))
    with pytest.raises(ImageError, match="has 16 x 16 pixels, and its annotation is of 9 x 8"):
        label(model, odd, layers=["1"])
    labels = label(model, images, layers=["1"], draws=5)
    with pytest.raises(CircuitsError, match="no part 'blub' is labeled. Nearest: blob"):
        labels.best("blub")
    with pytest.raises(AddressError, match="has no part labels"):
        labels.of("blocks/0:1")
    with pytest.raises(AddressError, match="has no part labels"):
        labels.best("blob", layers=["0"])
