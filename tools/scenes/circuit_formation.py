"""When a circuit forms: `python -m tools.scenes.circuit_formation FOLDER --out formation.json`.

FOLDER has the checkpoints of `python -m tools.scenes.train_labels --checkpoints 20`, the last of which is the network
as it became. In that one the unit that tells cars best is found and its circuit traced. Measured in each checkpoint:

- how well the unit of that number tells cars (AUC on held-out scenes), and the unit that correlates with it most;
- how much of the unit's response the circuit of the finished network keeps (faithfulness), beside random circuits.

Controls: another unit of the layer that is about as active and tells cars worst, and the same network untrained.
About twenty seconds on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import circuits
from circuits.plot import save_figure
from circuits.plot.drawing import canvas, palette
from zoo.common.files import write_text_atomically
from zoo.images.sources import open_images

LAYER = "mixed4a"
SCENES = "scenes:156@41"
"""What is measured on; the unit is chosen, and its circuit traced, on others."""
CHOICE = "scenes:156@40"
CARD = "scenes-labels"


def car_unit(model: circuits.Model) -> tuple[int, int, float]:
    """The unit of the layer that tells cars best, one about as active that tells them worst, and the best AUC."""
    areas = areas_of(model, CHOICE)
    acts = circuits.capture(model, CHOICE, at=[LAYER])[LAYER].mean(dim=(0, 2, 3)).numpy()
    best = int(areas.argmax())
    as_active = np.flatnonzero((acts > acts[best] / 2) & (acts < acts[best] * 2) & (np.arange(len(acts)) != best))
    pool = as_active if len(as_active) else np.delete(np.arange(len(acts)), best)
    return best, int(pool[np.abs(areas[pool] - 0.5).argmin()]), float(areas[best])


def areas_of(model: circuits.Model, scenes: str = SCENES) -> np.ndarray[Any, Any]:
    """How well each unit of the layer tells cars by its highest activation: AUC, of scenes not trained on."""
    images = open_images(scenes)
    peaks = circuits.capture(model, images, at=[LAYER])[LAYER].amax(dim=(2, 3))
    from circuits.common.statistics import auc

    is_car = np.array(images.labels) == (images.classes or []).index("car")
    return auc(peaks[is_car], peaks[~is_car]).numpy()


def measured(
    model: circuits.Model, final: circuits.Model, circuit: circuits.Circuit, unit: int, control: int
) -> dict[str, Any]:
    """The numbers of one checkpoint."""
    areas = areas_of(model)
    matches = circuits.match(final, LAYER, model, LAYER, images=SCENES, positions=8, controls=False)
    names = {int(pair.unit.rpartition(":")[2]): pair.correlation for pair in matches.pairs}
    score = circuits.score(model, circuit, images=SCENES, random=8, limit=80)
    random = score.random_faithfulness
    return {
        "auc": float(areas[unit]), "best_auc": float(areas.max()), "control_auc": float(areas[control]),
        "match": names.get(unit), "control_match": names.get(control),
        "faithfulness": score.faithfulness, "random_faithfulness": float(np.mean(random)),
        "random_low": min(random), "random_high": max(random),
    }  # fmt: skip


def figure(rows: list[dict[str, Any]]) -> Figure:
    """The course of the three measures over the steps."""
    drawing, page = canvas.page(1080, 380)
    canvas.heading(page, "When the car circuit forms", "over the steps of a training; step 0 is another random start")
    panels = (
        (("auc", "car unit"), ("control_auc", "a unit as active")),
        (("match", "car unit"), ("control_match", "a unit as active")),
        (("faithfulness", "circuit"), ("random_faithfulness", "random circuits")),
    )
    titles = ("AUC for cars", "best correlation with the finished unit", "faithfulness of the finished circuit")
    for i, (lines, title) in enumerate(zip(panels, titles, strict=True)):
        axes = drawing.add_axes((0.06 + 0.32 * i, 0.17, 0.25, 0.56))
        for (name, label), color in zip(lines, (palette.EXCITES, palette.INK), strict=True):
            axes.plot(
                [r["step"] for r in rows], [r[name] for r in rows], marker="o", ms=3, lw=1.4, color=color, label=label
            )
        axes.legend(fontsize=8, frameon=False)
        canvas.strip_spines(axes)
        canvas.name_axes(axes, "step", title)
    return drawing


def main(arguments: list[str] | None = None) -> None:
    """Measure every checkpoint of a folder; write the numbers, a table and a figure."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.scenes.circuit_formation", description="When a circuit forms."
    )
    parser.add_argument("folder", type=Path, help="of checkpoints, step-000045.safetensors and so on")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file of the numbers; a .png beside it")
    options = parser.parse_args(arguments)
    files = sorted(options.folder.glob("step-*.safetensors"))
    final = circuits.load(CARD, weights=files[-1])
    unit, control, _ = car_unit(final)
    circuit = circuits.trace(final, f"{LAYER}:{unit}", images=CHOICE, width=6, n_examples=1)
    rows = [{"step": 0, **measured(circuits.untrained(final), final, circuit, unit, control)}]
    for file in files:
        model = circuits.load(CARD, weights=file)
        rows.append({"step": int(file.stem.rpartition("-")[2]), **measured(model, final, circuit, unit, control)})
        print(json.dumps(rows[-1]), flush=True)
    about = {
        "layer": LAYER,
        "unit": unit,
        "control": control,
        "chosen_on": CHOICE,
        "scenes": SCENES,
        "checkpoints": rows,
    }
    write_text_atomically(options.out, json.dumps(about, indent=1))
    save_figure(figure(rows), options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
