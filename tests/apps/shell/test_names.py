"""Names with spaces, accents, letters of other scripts, and bytes that are no UTF-8, in every option with a name.

The small runs of all commands have such names for folders of images, stores, SAEs, weights, models and `--out`; here
are the other options.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.apps.small_runs import OWN, SAE, SAES, STORE, SmallRuns, at, run

CARD = "--card 'Karte für 図.json'"
NETZ = OWN.partition(" --input")[0] + f" {CARD}"
OPTIONS = (
    f"label netz {NETZ} --images 'Fotos ü/für Übung' --annotations 'Umrisse é.json' {STORE} "
    "--group 'Räder 図=Rad é,Reifen'",
    f"find netz {NETZ} --part 'Räder 図' {STORE}",
    f"find netz {NETZ} --concept 'für Übung' --images 'Sätze 図'",
    f"trace 'netz/logits:éclair 図' {NETZ} --images 'Fotos ü' --no-score",
    f"trace netz/logits:0 {NETZ} --images 'Fotos ü/rote Punkte' --against 'Fotos ü/Zäune' --random 2",
    f"look netz/relu_2 {NETZ} --images 'Fotos ü/für Übung/éclair 図 0.png' --groups 2 --steps 1 --classes 'éclair 図'",
    f"atlas netz/relu_2 {NETZ} --images 'Archiv é 図.tar' --grid 2 --icon 16 --steps 1",
    f"steer netz/relu_2~teile:1 {NETZ} {SAE} --images 'Fotos ü' --target-class 'éclair 図' --factors 0 1 --random 1",
    f"explain netz/relu_2~mes-éléments:1 {NETZ} --sae 'mes-éléments={SAES}/teile 1' --images 'Fotos ü' "
    "--store 'Läden 図'",
    f"match netz/relu_1 netz/relu_2 {NETZ} --other-weights 'Gewichte ä.pth' --images 'Fotos ü'",
    "sae train tales/layers.2.resid --text 'Texte für 図.txt' --latents 16 --k 2 --steps 2 "
    "--activations 'Aktivierungen é'",
    f"sae search '{SAES}/wörter' --text 'Texte für 図.txt' --against 'Texte für 図.txt' --top 1",
    f"steer tales/layers.2.resid~wörter:1 --sae '{SAES}/wörter' --prompt 'Anna aß ein éclair 図' --random 1 "
    "--factors 0 1",
    f"explore {NETZ} --images 'Fotos ü' --sae 'mes-éléments={SAES}/teile 1' --store 'Läden 図' --port 8599",
    f"figures make E13 --quick --jobs 1 --images 'Fotos ü' {NETZ}",
)


@pytest.fixture(scope="module")
def named(runs: SmallRuns, folder: Path) -> Path:
    """The workspace, with a card file, outlines, an archive and texts whose names are as hard."""
    assert runs["scan"].ran.code == 0
    photos = folder / "Fotos ü" / "für Übung"
    photos.mkdir()
    rows = []
    for number, file in enumerate(sorted((folder / "Fotos ü" / "rote Punkte").glob("*.png"))):
        name = f"éclair 図 {number}.png"
        shutil.copy(file, photos / name)
        rows.append({"id": number, "file_name": name, "width": 24, "height": 24})
    card = {"input": {"size": [24, 24]}, "output": "out", "classes": ["éclair 図", "rote Punkte", "Zäune", "für Übung"]}
    (folder / "Karte für 図.json").write_text(json.dumps(card, ensure_ascii=False), encoding="utf-8")
    outline = [[4, 4, 20, 4, 20, 20, 4, 20]]
    outlines = {
        "images": rows,
        "categories": [{"id": 0, "name": "Rad é"}, {"id": 1, "name": "Reifen"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": n % 2, "segmentation": outline} for n in range(len(rows))
        ],
    }
    (folder / "Umrisse é.json").write_text(json.dumps(outlines, ensure_ascii=False), encoding="utf-8")
    labeled = folder / "Sätze 図"
    shutil.copytree(photos, labeled)
    images = [{"file": row["file_name"], "label": ("für Übung", "éclair 図")[n % 2]} for n, row in enumerate(rows)]
    manifest = {"schema": 1, "kind": "vision-circuits images", "name": "Sätze 図", "images": images}
    manifest["classes"] = ["für Übung", "éclair 図"]
    (labeled / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
    shutil.make_archive(str(folder / "Archiv é 図"), "tar", photos)
    (folder / "Texte für 図.txt").write_text("<|endoftext|>".join(["Anna aß ein éclair 図."] * 30), encoding="utf-8")
    return folder


@pytest.mark.parametrize("line", OPTIONS)
def test_names_of_any_language_work_in_every_option(named: Path, line: str) -> None:
    with at(named):
        ran = run([*shlex.split(line), "--out", f"Ergebnis 図 {OPTIONS.index(line)}"])
    assert ran.code == 0, (line, ran.err)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_files_whose_names_are_no_utf_8_are_images_like_others(named: Path, tmp_path: Path) -> None:
    photos = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(photos)
    for number, file in enumerate(sorted((named / "Fotos ü" / "Zäune").glob("*.png"))):
        shutil.copy(file, photos + b"/\xfcbung \xff" + str(number).encode() + b".png")
    images = os.fsdecode(photos)
    with at(named):
        for line in (
            f"scan netz {NETZ} --store Laden --layers relu_2", f"explain netz/relu_2:4 {NETZ} --store Laden",
            f"trace netz/relu_2:4 {NETZ} --no-score", f"visualize netz/relu_2:4 {NETZ} --steps 2 --retries 0",
            f"sae train netz/relu_2 {NETZ} --latents 12 --k 2 --steps 2 --batch-size 64",
        ):  # fmt: skip
            out = os.fsdecode(os.fsencode(tmp_path) + b"/\xff" + line.partition(" ")[0].encode())
            ran = run([*shlex.split(line), "--images", images, "--out", out])
            assert ran.code == 0, (line, ran.err)
