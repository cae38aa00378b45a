"""The examples in the help of every command run, with the built-in network and few images in the place of others.

They run in the order in which the help shows them, in one folder, so that no two of a command ask for the same `--out`.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apps.cli.registry import COMMANDS, load_command
from tests.apps.small_runs import NET, at, run
from tests.circuits.dataset.test_audit import SIDE, photographs
from zoo.scenes.shortcuts.network import WEIGHTS

SMALLER = {
    r"^(audit|repair) mine --model mine.py:make": r"\1 cats --model cats.py:make",
    r"--audit audit\b": "--audit audited",
    r"^explore --audit audited": "explore --audit audited --model cats.py:make",
    r"--train-sae layer4": "--train-sae relu",
    r"--layers layer3 --layers layer4": "--layers relu",
    r"^audit googlenet-bvlc --images photographs .*": "audit scenes --images drawn --classes car --layers mixed4b",
    r"^audit scenes --images scenes:1300": "audit scenes --images drawn --layers mixed4b",
    r"^bench repair$": "bench repair --networks tag-bus-95",
    r"(shortcuts/\S+):800": r"\1:160",
    r"^demo googlenet-bvlc .*": "demo --out cars",  # the photographs' own story is told in test_photo_demo
    r"inceptionv1 --weights \S+": "scenes --weights scenes.safetensors",
    r"googlenet-bvlc/mixed4d_5x5": "scenes/mixed4a_5x5",
    r"googlenet-bvlc/mixed4[c-e]": "scenes/mixed4a",
    r"(scenes/mixed4a):\d+": r"\1:11",
    r"googlenet-bvlc/logits:\d+": "scenes/logits:3",
    r"googlenet-bvlc": "scenes",
    r"squeezenet-1.1/fire5 --layers fire4": "scenes/mixed4b --layers mixed3a",
    r"torchvision/resnet18": "torchvision/resnet18 --weights random",
    r" --lm models/gpt2": "",
    r"--on scenes": "--on scenes --classes car --methods random",
    r"--on planted": "--on planted --methods random",
    r"^scan (.*?)( --store store)?$": r"scan \1 --store scans --replace",
    r"^visualize scenes/mixed4a:11 scenes/mixed4a:11": "visualize scenes/mixed4a:3 scenes/mixed4a:11",
    r"(layers|source) mixed4[b-d]": r"\1 mixed4a",
    r"source mixed4a": "source mixed3b",
    r"hf:stories260K": "tales",
    r"scenes:\d\d+": "scenes:30",
    r"--n \d+": "--n 26",
    r"--latents \d+": "--latents 24",
    r"--k \d+": "--k 4",
    r"--steps \d+": "",
    r"make (all|zoom-in)": "make E13",
    r"--samples \d+": "--samples 2",
    r"~(parts|topk):\d+": r"~\1:3",
    r"--latent \d+": "--latent 5",
    r"--channel \d+": "--channel 11",
    r"--at 5,7": "--at 3,4",
}
"""In the text of an example -> what fits the built-in network, and costs little."""
AUDITED = "audit cats --model cats.py:make --images photographs --annotations outlines.json --describe 0 --out audited"
CHEAPER = {
    "atlas": "--grid 2 --icon 16 --steps 1",
    "bench circuits": "--pairs 4",
    "audit": "--top 1 --random 3 --describe 1",
    "bench repair": "--count 64 --judged 64 --random 2",
    "bench sae": "--steps 2 --seeds 2 --controls untrained --limit 40",
    "demo": "--n 26",
    "repair": "--random 2",
    "polysemantic": "--n 12 --draws 5 --figures 1",
    "sae train": "--steps 3 --batch-size 64 --replace",
    "steer": "--random 1 --limit 6",
    "toy": "--steps 3 --seeds 1",
    "tune": "--orientations 8",
    "visualize": "--steps 2 --retries 0",
    "rank": "--random 2",
    "trace": "--random 2",
    "score": "--random 2",
    "figures": "--jobs 1",
    "look": "--steps 1",
    "graph": "--width 4",
    "diff": "--latents 16 --k 2 --steps 3",
}
"""Command -> options that make it cheaper still."""


def examples() -> Iterator[str]:
    """The commands in the docstrings, without `circuits`, and without what a shell does with their output."""
    for name in COMMANDS:
        text = (load_command(name).__doc__ or "").partition("Example:")[2]
        for line in text.splitlines():
            command = re.sub(r" \| .*|  +# .*", "", line.strip())
            command = re.sub(r"^torchrun .* -m apps\.cli ", "circuits ", command)
            assert not command or command.startswith("circuits "), line
            if command:
                yield command.removeprefix("circuits ")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name: photographs, networks, an audit, texts, a store, SAEs."""
    folder = tmp_path_factory.mktemp("examples")
    with at(folder):
        for line in (
            "images scenes --n 39 --out photos",
            "images scenes --n 156 --out drawn", "images scenes --n 39 --seed 1 --out other-photos",
            "trace scenes/mixed4a:11 --images photos --no-score --out report",
            "label scenes --images scenes:60 --layers mixed4a",
            *(f"trace scenes/mixed4a:11 --images photos --no-score --out {name}" for name in ("first", "second")),
            "sae train scenes/mixed3b --images photos --latents 24 --k 4 --steps 3 --batch-size 64 --out parts",
            "sae train scenes/mixed3b --images photos --latents 24 --k 4 --steps 3 --batch-size 64 --out saes/parts",
            "sae train scenes/mixed4a --images photos --latents 24 --k 4 --steps 3 --batch-size 64 --out saes/mixed4c",
            "sae train scenes/mixed3b..mixed4a --kind skip-transcoder --images photos --latents 24 --k 4 --steps 3 "
            "--batch-size 64 --out saes/block",
            *(
                f"sae train tales/layers.2.resid --text tales:40 --latents 24 --k 4 --steps 3 --out saes/{name}"
                for name in ("topk", "stories", "words")
            ),
        ):  # fmt: skip
            ran = run(shlex.split(line))
            assert ran.code == 0, (line, ran)
        drawn = json.loads(Path("photos/manifest.json").read_text("utf-8"))["images"]
        Path("parts.json").write_text(json.dumps(coco(drawn)), encoding="utf-8")
        (folder / "car-parts").mkdir()
        shutil.copytree("photos", "car-parts/images")
        shutil.copy("parts.json", "car-parts/annotations.json")
        cars = [row["file"] for row in drawn if row["label"] == "car"]
        (folder / "cars").mkdir()
        for file in cars:
            shutil.copy(f"photos/{file}", "cars")
        shutil.copy(f"photos/{cars[0]}", "car.png")
        for name in ("car.jpg", "dog.jpg"):
            shutil.copy(f"photos/{cars[0]}", name)
        shutil.copy(WEIGHTS / "tag-bus-95.safetensors", "other-seed.safetensors")
        cats(folder)
        ran = run(shlex.split(AUDITED))
        assert ran.code == 0, ran
        with tarfile.open("shard-0.tar", "w") as tar:
            for row in drawn:
                tar.add(f"photos/{row['file']}", arcname=row["file"])
        Path("mine.py").write_text(NET, encoding="utf-8")
        namespace: dict[str, object] = {}
        exec(NET, namespace)  # noqa: S102 - the text of our own network
        torch.save(namespace["make"]().state_dict(), "w.pth")  # type: ignore[operator]
        import zoo.scenes

        shutil.copy(Path(zoo.scenes.__file__).with_name("scenes.safetensors"), ".")
        shutil.copy(Path(zoo.scenes.__file__).with_name("scenes_labels.safetensors"), "without-car.safetensors")
        texts = ["A dog ran.", "Anna has a puppy.", "Tom sat."]
        for name, those in (("stories", texts), ("about", texts[1:2]), ("other", texts[2:])):
            Path(f"{name}.txt").write_text("<|endoftext|>".join(those * 20), encoding="utf-8")
    return folder


def cats(folder: Path) -> None:
    """A network of the user's own that knows cats by a red corner too, photographs, their outlines and groups."""
    text = "from tests.circuits.dataset.test_audit import HandMade\n\n\ndef make():\n    return HandMade().eval()\n"
    (folder / "cats.py").write_text(text, encoding="utf-8")
    card = f'classes = ["cat", "dog", "bird"]\n[input]\nsize = {SIDE}\nmean = 0.0\nstd = 1.0\n'
    (folder / "cats.card.toml").write_text(card, encoding="utf-8")
    images = photographs(cue=0.5, elsewhere=0.2)
    assert images.annotations is not None
    rows, groups, outlines = [], ["path,group"], []
    for number, image in enumerate(images):
        file = f"{images.label_name(number)}/{number}.png"
        (folder / "photographs" / file).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / "photographs" / file)
        rows.append({"id": number, "file_name": file, "width": SIDE, "height": SIDE})
        groups.append(f"{file},{'red' if np.asarray(image)[0, -1, 0] > 200 else 'plain'}")
        x0, y0, x1, y1 = map(int, images.annotations[number].parts[0].box)
        outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
        outlines.append({"id": number, "image_id": number, "category_id": 0, "segmentation": outline})
    document = {"images": rows, "categories": [{"id": 0, "name": "thing"}], "annotations": outlines}
    (folder / "outlines.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "groups.csv").write_text("\n".join(groups), encoding="utf-8")


def coco(images: list[dict[str, Any]]) -> dict[str, Any]:
    """The boxes of the parts as a COCO file; those of windows in turn as two categories."""
    annotations = []
    for number, row in enumerate(images):
        for part in row["parts"]:
            x0, y0, x1, y1 = part["box"]
            category = {"wheel": 0, "window": 1 + number % 2}.get(part["name"])
            if category is not None and x1 > x0 and y1 > y0:
                outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
                annotations.append({"image_id": number, "category_id": category, "segmentation": outline})
    return {
        "images": [{"id": n, "file_name": row["file"], "width": 64, "height": 64} for n, row in enumerate(images)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(("wheel", "front_glass", "back_glass"))],
        "annotations": [{"id": n, **row} for n, row in enumerate(annotations)],
    }


@pytest.mark.slow
@pytest.mark.parametrize("example", list(examples()))
def test_an_example_of_the_help_runs(workspace: Path, example: str) -> None:
    name = next(n for n in sorted(COMMANDS, key=len, reverse=True) if example.startswith(n))
    for pattern, smaller in SMALLER.items():
        example = re.sub(pattern, smaller, example)
    with at(workspace):
        ran = run([*shlex.split(example), *shlex.split(CHEAPER.get(name, ""))])
    assert ran.code == 0, (example, ran.err)
