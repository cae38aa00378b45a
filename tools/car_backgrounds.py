"""What GoogLeNet's car classes take from behind the car: `python -m tools.car_backgrounds --out FOLDER`.

Cars are cut out along the hull of their annotated parts and pasted onto the backgrounds of other photographs, whose own
car is painted over. A grid of every car on every background separates the two: of a class score's variance, the share
that goes with the background, whatever the car. One half of the photographs finds the class and the units; the other
half judges them. docs/repair.md has the results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

import circuits
from circuits.tracing.curves.null_circuits import matched
from zoo.images.coco import open_annotated
from zoo.images.sources import open_images

CLASSES = (
    "sports car", "convertible", "beach wagon", "cab", "limousine", "minivan", "jeep", "racer", "pickup", "tow truck",
    "police van", "Model T", "ambulance",
)  # fmt: skip
SIDE = 9
"""Cars, and backgrounds, of each half."""
UNITS = 5
DRAWS = 1000
Pixels = npt.NDArray[np.uint8]


def chosen(folder: Path, seed: int) -> list[tuple[Pixels, npt.NDArray[np.bool_]]]:
    """Photographs and the hull of the car in each: those whose car takes 12 to 45 % of the image."""
    images = open_annotated(open_images(str(folder / "images")), folder / "annotations.json")
    assert images.annotations is not None
    photographs = []
    for index in np.random.default_rng(seed).permutation(len(images)).tolist():
        masks = [part.mask for part in images.annotations[index].parts if part.mask is not None]
        if len(masks) < 5:
            continue
        points = np.argwhere(np.any(masks, axis=0))[:, ::-1].astype(np.int32)
        hull = np.zeros(masks[0].shape, np.uint8)
        cv2.fillPoly(hull, [cv2.convexHull(points)], 1)
        if 0.12 <= hull.mean() <= 0.45:
            photographs.append(
                (np.asarray(images.pil(index)), cv2.dilate(hull, np.ones((7, 7), np.uint8)).astype(bool))
            )
        if len(photographs) == 2 * SIDE:
            return photographs
    raise SystemExit(f"{folder} has {len(photographs)} photographs with a car of 12 to 45 %, fewer than {2 * SIDE}")


def grid(photographs: list[tuple[Pixels, npt.NDArray[np.bool_]]]) -> Tensor:
    """Every car on every background, `(cars * backgrounds, 3, 224, 224)` in [0, 1], its own too."""
    composites = []
    backgrounds = [cv2.inpaint(image, hull.astype(np.uint8), 5, cv2.INPAINT_TELEA) for image, hull in photographs]
    for image, hull in photographs:
        soft = cv2.GaussianBlur(hull.astype(np.float32), (5, 5), 0)[:, :, None]
        for background in backgrounds:
            mixed = soft * image + (1 - soft) * cv2.resize(background, image.shape[1::-1])
            composites.append(np.asarray(Image.fromarray(mixed.astype(np.uint8)).resize((224, 224))))
    return torch.from_numpy(np.stack(composites)).permute(0, 3, 1, 2).float() / 255


def background_share(values: npt.NDArray[np.float64]) -> float:
    """Share of the variance of `(cars, backgrounds)` that goes with the background alone."""
    return float(values.mean(axis=0).var() / values.var())


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write composites.png and numbers.json."""
    parser = argparse.ArgumentParser(prog="python -m tools.car_backgrounds")
    parser.add_argument("--photographs", type=Path, required=True, help="folder with images/ and annotations.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    model = circuits.load("googlenet-bvlc")
    photographs = chosen(options.photographs, options.seed)
    halves = [grid(photographs[:SIDE]), grid(photographs[SIDE:])]
    features = []
    for images in halves:
        acts = circuits.capture(model, images, at="mixed5b", batch_size=27)["mixed5b"].mean(dim=(2, 3)).double()
        features.append(acts.numpy().reshape(SIDE, SIDE, -1))
    head = model.module.get_submodule("softmax_pre")
    weight, bias = (p.detach().double().numpy() for p in (head.weight, head.bias))
    index = {name: i for i, name in enumerate(model.classes)}
    rows = [index[name] for name in CLASSES if name in index]
    rng = np.random.default_rng(options.seed)
    numbers: dict[str, Any] = {"classes": {}}
    scores = [f @ weight[rows].T + bias[rows] for f in features]  # the head is linear in the means of mixed5b
    for k, row in enumerate(rows):
        shares = [background_share(s[:, :, k]) for s in scores]
        shuffled = [background_share(rng.permuted(scores[1][:, :, k], axis=1)) for _ in range(DRAWS)]
        numbers["classes"][model.classes[row]] = {
            "finding": shares[0], "judging": shares[1], "chance_95": float(np.quantile(shuffled, 0.95)),
        }  # fmt: skip
    best = [s.argmax(axis=2) for s in scores]
    numbers["answers_that_change"] = [
        float(np.mean([b[i, j] != b[i, i] for i in range(SIDE) for j in range(SIDE) if i != j])) for b in best
    ]
    k = int(np.argmax([background_share(scores[0][:, :, k]) for k in range(len(rows))]))
    parts = features[0] * weight[rows[k]]
    effect = scores[0][:, :, k].mean(axis=0)
    carried = np.array([np.cov(parts[:, :, u].mean(axis=0), effect, bias=True)[0, 1] for u in range(parts.shape[2])])
    units = np.argsort(-carried, kind="stable")[:UNITS].tolist()

    def left(held: list[int]) -> dict[str, float]:
        features_held = features[1].copy()
        features_held[:, :, held] = features[0][:, :, held].mean(axis=(0, 1))
        score = features_held @ weight[rows[k]] + bias[rows[k]]
        return {
            "background_sd": float(score.mean(axis=0).std()), "car_sd": float(score.mean(axis=1).std()),
            "share": background_share(score),
        }  # fmt: skip

    means = {"mixed5b": torch.from_numpy(features[0].mean(axis=(0, 1)))}
    control = [left(sorted(matched({"mixed5b": set(units)}, means, rng)["mixed5b"])) for _ in range(100)]
    numbers["found"] = {
        "class": model.classes[rows[k]], "units": units,
        "share_of_effect": float(carried[units].sum() / carried.sum()),
        "before": left([]), "held": left(units),
        "random_background_sd": np.quantile([c["background_sd"] for c in control], (0.025, 0.5, 0.975)).tolist(),
        "feeds": {u: [model.classes[c] for c in np.argsort(-weight[:, u])[:5]] for u in units},
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "numbers.json").write_text(json.dumps(numbers, indent=1))
    order = np.argsort(scores[1][:, :, k].mean(axis=0))
    examples = [halves[1][i * SIDE + int(j)] for j in (*order[:4], *order[-4:]) for i in (0, 1)]
    sheet = torch.cat([torch.cat(examples[i::2], dim=2) for i in (0, 1)], dim=1)
    Image.fromarray((sheet.permute(1, 2, 0) * 255).byte().numpy()).resize((8 * 112, 2 * 112)).save(
        options.out / "composites.png"
    )


if __name__ == "__main__":
    main()
