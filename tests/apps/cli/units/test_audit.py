"""`circuits audit` on drawn scenes: what it writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

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
