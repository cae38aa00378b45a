"""A finished audit opened again: its held-out half, and suspects removed in full and in part, worked out by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import circuits
from circuits.dataset.audit.audit import INDEX
from circuits.dataset.audit.removal import RESULT, audited_images, read_audit, removal, removal_edits
from circuits.errors import CircuitsError
from tests.circuits.dataset.test_audit import DISTRACTORS, SIDE, HandMade, photographs
from zoo.errors import ImageError


class Pooled(HandMade):
    """The hand-made network with two max pools, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 1, 1)

    def maps(self, x: Tensor) -> Tensor:
        return self.relu(self.colors(x))

    def rest(self, maps: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(maps)))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.second(self.first(self.maps(x))))


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    torch.manual_seed(0)
    spec = circuits.InputSpec(size=SIDE)
    return circuits.wrap(Pooled().eval(), spec, name="pooled", classes=["cat", "dog", "bird"])


@pytest.fixture(scope="module")
def folder(model: circuits.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit")
    groups = ["red" if image.getpixel((SIDE - 1, 0))[0] > 200 else "plain" for image in photographs()]
    result = circuits.audit(
        model,
        photographs(),
        classes=["cat", "dog"],
        layers=["relu"],
        groups=groups,
        top=3,
        random=8,
        describe=0,
        store=out,
    )
    result.save(out / RESULT)
    return out


def test_a_removed_suspect_changes_what_the_audit_says(model: circuits.Model, folder: Path) -> None:
    audited = audited_images(model, folder, photographs())
    audit = audited.audit
    assert audit == read_audit(folder) and len(audited.held_out) == len(audited.inputs.judging)
    for suspect in audit.suspects[:3]:
        if audited.class_of(model.resolve(suspect.unit)) != suspect.class_index:
            continue  # the other class's means stand in for it
        measured = removal(model, audited, {suspect.unit: 1.0}, random=2)
        row = next(row for row in measured.by_class if row["class"] == suspect.class_name)
        own = next(c for c in audit.classes if c.class_name == suspect.class_name)
        assert row["images"] == own.n_held_out and row["top1"] == pytest.approx(own.accuracy.value)
        assert row["edited"] - row["top1"] == pytest.approx(suspect.removal.change.value)
        assert measured.random is not None and len(measured.random) == 2
        by_hand: dict[str, list[bool]] = {}
        for i, answer in zip(audited.inputs.judging.tolist(), measured.answers.tolist(), strict=True):
            by_hand.setdefault((audited.inputs.groups or ())[i], []).append(answer == audited.inputs.labels[i])
        groups = {row["group"]: (row["images"], row["top1"]) for row in measured.by_group}
        assert groups == {name: (len(own), pytest.approx(np.mean(own))) for name, own in by_hand.items()}
    assert removal(model, audited, {}).edited is None


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_share_of_a_unit_is_removed_also_after_max_pools(model: circuits.Model, folder: Path, share: float) -> None:
    audited = audited_images(model, folder, photographs())
    suspect = audited.audit.suspects[0]
    channel, net = model.resolve(suspect.unit).index or 0, model.module
    given = audited.inputs
    rows = given.others(given.finding, audited.class_of(model.resolve(suspect.unit)), 256, audited.audit.seed)

    def batch(numbers: np.ndarray) -> Tensor:
        return model.input.normalize(given.images.subset(numbers.tolist()).tensor(model.input))

    def stages(x: Tensor) -> list[Tensor]:
        maps = net.maps(x)
        return [maps, net.first(maps), net.second(net.first(maps))]

    with torch.no_grad():
        means = [maps[:, channel].mean() for maps in stages(batch(rows))]
        maps = stages(batch(given.judging))[-1].clone()
        maps[:, channel] = (1 - share) * maps[:, channel] + share * means[-1]
        expected = net.rest(maps)
        with circuits.edit(model, removal_edits(model, audited, {suspect.unit: share})):
            logits = circuits.capture(model, audited.held_out, ["logits"])["logits"].flatten(1)
    assert len({round(float(m), 4) for m in means}) == 3, "else the pools would not matter"
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    measured = removal(model, audited, {suspect.unit: share}, random=0)
    right = given.labels[given.judging]
    assert measured.edited is not None and measured.edited.tolist() == expected.argmax(1).tolist()
    confusion = measured.confusion(edited=True)
    by_hand = [[int(((right == i) & (measured.edited == j)).sum()) for j in range(3)] for i in range(3)]
    assert confusion.tolist() == by_hand and measured.confusion().sum() == len(right)


def test_what_is_no_finished_audit_is_refused_in_one_line(model: circuits.Model, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CircuitsError, match="holds no audit: make one, circuits audit"):
        read_audit(tmp_path)
    (tmp_path / "begun").mkdir()
    shutil.copy(folder / INDEX, tmp_path / "begun")
    with pytest.raises(CircuitsError, match="is not finished"):
        read_audit(tmp_path / "begun")
    with pytest.raises(ImageError, match="given in memory"):
        audited_images(model, folder)
    with pytest.raises(ImageError, match="are not those of the audit"):
        audited_images(model, folder, photographs(seed=1))
    other = circuits.wrap(Pooled().eval().double().float(), circuits.InputSpec(size=SIDE), name="other")
    with pytest.raises(CircuitsError, match="is of pooled: audit other anew"):
        audited_images(other, folder, photographs())
    audited = audited_images(model, folder, photographs())
    with pytest.raises(CircuitsError, match=f"relu:{2 + DISTRACTORS} is no suspect of this audit"):
        removal(model, audited, {f"relu:{2 + DISTRACTORS}": 1.0})
    with pytest.raises(CircuitsError, match="must be a number of at least 0"):
        removal(model, audited, {audited.audit.suspects[0].unit: 1.5})
    shutil.copytree(folder, tmp_path / "changed")
    document = json.loads((folder / INDEX).read_text())
    document["settings"]["labels"][0] = 99
    (tmp_path / "changed" / INDEX).write_text(json.dumps(document))
    with pytest.raises(CircuitsError, match="its classes or groups do not fit"):
        audited_images(model, tmp_path / "changed", photographs())
