"""`circuits audit` on drawn scenes: what it writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.apps.terminal import Cli, is_refused
from zoo.images.manifest import export_scenes


def test_an_audit_is_written_read_again_and_goes_on(cli: Cli, tmp_path: Path) -> None:
    import circuits

    images, out = str(export_scenes(156, tmp_path / "images", 0).parent), tmp_path / "audit"
    words = ("audit", "scenes", "--images", images, "--classes", "sign", "--layers", "mixed4b", "--top", "2",
             "--random", "3", "--describe", "1", "--out", str(out))  # fmt: skip
    document = cli(*words, "--json").json
    assert {"unit", "class", "verdict", "off", "removal", "removal_limit"} <= document["suspects"][0].keys()
    page = (out / "index.html").read_text("utf-8")
    assert "What this can not say" in page and "not shortcuts" in page and 'src="http' not in page
    audit = circuits.Audit.load(out / "audit.result")
    assert [s.unit for s in audit.suspects] == [row["unit"] for row in document["suspects"]]
    before = {path.name: path.read_bytes() for path in out.glob("*.result")}
    assert cli(*words, "--json").json["suspects"] == document["suspects"] and len(before) == 3
    assert all((out / name).read_bytes() == data for name, data in before.items())
    refused = cli("audit", "scenes", "--images", images, "--classes", "zebra")
    assert is_refused(refused) and "has no class 'zebra'" in refused.err


def test_an_sae_is_trained_once_on_the_images_that_suspects_are_found_on(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import circuits
    import sae
    from circuits.dataset.audit.inputs import inputs_of
    from sae.data.attach import attach_folder
    from zoo import open_images

    refused = cli("audit", "scenes", "--images", "scenes:20", "--train-sae", "logits")
    assert is_refused(refused) and "has no positions" in refused.err
    monkeypatch.setattr("apps.cli.commands.audit.SAE_STEPS", 30)
    out = tmp_path / "audit"
    words = ("audit", "scenes", "--images", "scenes:156", "--classes", "sign", "--train-sae", "mixed4b", "--top", "1",
             "--random", "3", "--describe", "0", "--out", str(out), "--json")  # fmt: skip
    document = cli(*words).json
    folder = out / "saes" / "mixed4b"
    weights = (folder / "sae_weights.safetensors").read_bytes()
    assert cli(*words).json == document and (folder / "sae_weights.safetensors").read_bytes() == weights
    model, images = circuits.load("scenes"), open_images("scenes:156")
    given = inputs_of(model, images, labels=None, classes=None, annotations=None, groups=None, seed=0)
    assert sae.load(folder).metadata["inputs"]["digest"] == images.subset(given.finding.tolist()).digest
    attach_folder(model, folder, "own")
    audit = circuits.audit(model, images, classes=["sign"], layers=["mixed4b~own"], top=1, random=3, describe=0)
    assert audit.records() == document["suspects"] and not list(out.glob("training-*"))
    assert "attach_folder(model, " in (out / "index.html").read_text("utf-8")
    other = ["scenes:158" if word == "scenes:156" else word for word in words]
    refused = cli(*other)
    assert is_refused(refused) and "holds an SAE of other images" in refused.err
