"""Blind naming: contact sheets of latents, channels and controls, mixed, and the score of who names them unseen.

    python benchmarks/blind_naming.py sheets --sae saes/mixed4c --images photos --out naming
    python benchmarks/blind_naming.py score --out naming --answers answers.txt

`sheets` writes `sheet-1.png` and so on, six numbered items each: nine images on which it is strongest, and below them
nine over its whole range, evenly by rank from strong to weak. `keys.json` says what each number is: look at it after
naming. `answers.txt` has a line for each number, `17 dog faces`, or `17 no` for one that is no single thing. `score`
gives the share named of each kind with its exact 95 % interval, and Fisher's test of latents against the others.

The controls are as many random directions as there are latents, as sparse as these, so that they are active as often.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # a script beside this one has the name of a package

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy import sparse  # noqa: E402
from scipy.stats import binomtest, fisher_exact  # noqa: E402
from torch import Tensor  # noqa: E402

import circuits  # noqa: E402
import sae  # noqa: E402
from circuits.network.layer import Layer  # noqa: E402
from circuits.plot import save_figure  # noqa: E402
from circuits.plot.drawing.crops import Crop, cut, pixels  # noqa: E402
from circuits.plot.drawing.unit_rows import UnitLook, unit_rows  # noqa: E402
from sae.data.attach import site_named  # noqa: E402
from sae.evaluation.baselines import RandomDictionary  # noqa: E402
from zoo.images.sources import Images, open_images  # noqa: E402

KINDS = ("latents", "channels", "random directions")
EXAMPLES, A_SHEET, LEAST = 9, 6, 10
NO = "no"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("sheets", "score"))
    parser.add_argument("--sae", type=Path, help="folder of the SAE")
    parser.add_argument("--images", action="append", help="folder of photographs; may be repeated")
    parser.add_argument("--limit", type=int, default=1000, help="so many of them, sampled at random")
    parser.add_argument("--items", type=int, default=30, help="of each kind")
    parser.add_argument("--window", type=int, default=112, help="pixels of a crop, round the receptive field's center")
    parser.add_argument("--answers", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    (write_sheets if options.step == "sheets" else score)(options)


def write_sheets(options: argparse.Namespace) -> None:
    """The sheets and their keys."""
    dictionary = sae.load(options.sae)
    about = dictionary.metadata
    model = circuits.load(str(about["model"]))
    layer = model.layers[site_named(model, str(about["layer"]), about).layer.name]
    images = open_images(options.images, limit=options.limit, seed=options.seed)
    maps = circuits.capture(model, images, [layer.name])[layer.name].movedim(1, -1)
    rows = maps.flatten(0, 2)
    codes = {"latents": _sparse(dictionary.encode, rows), "channels": _sparse(lambda x: x, rows)}
    active = max(1, round(codes["latents"].nnz / len(rows)))
    control = RandomDictionary(rows.mean(dim=0), dictionary.latents, active, options.seed)
    codes["random directions"] = _sparse(control.encode, rows)
    random = np.random.default_rng(options.seed)
    items, census = [], {}
    for kind in KINDS:
        counts = _images_of(codes[kind], len(images))
        live = np.flatnonzero(counts >= LEAST)
        census[kind] = {"units": len(counts), "ever_active": int((counts > 0).sum()), "sampled_from": len(live)}
        items += [(kind, int(unit)) for unit in random.permutation(live)[: options.items]]
    items = [items[i] for i in random.permutation(len(items))]
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = [_examples(codes[kind][:, unit], maps.shape, random) for kind, unit in items]
    crops = _crops(model, layer, images, [at for some in chosen for at in some], options.window)
    for first in range(0, len(items), A_SHEET):
        looks = [
            UnitLook(
                "",
                crops=[crops[at] for at in chosen[i]],
                heading=str(i + 1),
                notes=("above: strongest", "below: whole range"),
            )
            for i in range(first, min(first + A_SHEET, len(items)))
        ]
        figure = unit_rows(looks, columns=EXAMPLES, rows=2, tile=72, title=f"Items {first + 1} to {first + len(looks)}")
        save_figure(figure, options.out / f"sheet-{first // A_SHEET + 1}.png")
    keys = {str(i + 1): {"kind": kind, "unit": unit} for i, (kind, unit) in enumerate(items)}
    document = {
        "sae": str(options.sae), "config": dictionary.config.to_dict(), "address": f"{model.name}/{layer.name}",
        "images": images.name, "active": active, "seed": options.seed, "kinds": census, "keys": keys,
    }  # fmt: skip
    (options.out / "keys.json").write_text(json.dumps(document, indent=1))
    print(f"{len(items)} items on {-(-len(items) // A_SHEET)} sheets in {options.out}")


def _sparse(encode: Callable[[Tensor], Tensor], rows: Tensor) -> sparse.csc_matrix:
    """Activations `(positions, units)` of all units."""
    with torch.no_grad():
        parts = [sparse.csr_matrix(encode(some).clamp_min(0).numpy()) for some in torch.split(rows, 4096)]
    return sparse.vstack(parts).tocsc()


def _images_of(codes: sparse.csc_matrix, images: int) -> np.ndarray:
    """On how many images each unit is active."""
    positions = np.arange(codes.shape[0])
    of_image = sparse.csr_matrix((np.ones(len(positions)), (positions // (len(positions) // images), positions)))
    return np.asarray((of_image @ (codes > 0) > 0).sum(axis=0)).ravel()


def _examples(
    column: sparse.csc_matrix, shape: tuple[int, ...], random: np.random.Generator
) -> list[tuple[int, int, int]]:
    """`(image, y, x)` of the strongest images, and of others evenly by rank over the whole range of activation.

    An image stands in the second row with one of the positions where the unit is active, sampled at random.
    """
    _, h, w, _ = shape
    column = column.tocoo()
    order = random.permutation(len(column.row))
    row, value = column.row[order], column.data[order]
    images = row // (h * w)
    strongest = np.lexsort((-value, images))
    peaks = strongest[np.unique(images[strongest], return_index=True)[1]]
    top = peaks[np.argsort(-value[peaks], kind="stable")][:EXAMPLES]
    anywhere = np.unique(images, return_index=True)[1]  # the first of an image in random order
    ranked = anywhere[np.argsort(-value[anywhere], kind="stable")]
    spread = ranked[np.linspace(0, len(ranked) - 1, EXAMPLES).round().astype(int)]
    return [(int(i), *divmod(int(p), w)) for i, p in zip(*divmod(row[[*top, *spread]], h * w), strict=True)]


def _crops(
    model: circuits.Model, layer: Layer, images: Images, positions: list[tuple[int, int, int]], window: int
) -> dict[tuple[int, int, int], Crop]:
    """A window round the center of each position's receptive field, moved to lie within the image."""
    assert layer.receptive_field is not None
    height, width = model.input.hw
    by_image: dict[int, list[tuple[int, int, int]]] = {}
    for at in positions:
        by_image.setdefault(at[0], []).append(at)
    result = {}
    for indices, batch in images.batches(model.input, batch_size=32, indices=sorted(by_image)):
        for index, image in zip(indices, batch, strict=True):
            whole = pixels(image, len(image))
            for at in by_image[index]:
                top, left, bottom, right = layer.receptive_field.box(at[1], at[2], within=(height, width))
                y = min(max((top + bottom - window) // 2, 0), height - window)
                x = min(max((left + right - window) // 2, 0), width - window)
                result[at] = cut(whole, (y, x, y + window, x + window))
    return result


def score(options: argparse.Namespace) -> None:
    """The share of each kind that was named."""
    keys = json.loads((options.out / "keys.json").read_text())["keys"]
    answers = dict(line.split(maxsplit=1) for line in options.answers.read_text().splitlines() if line.strip())
    if answers.keys() != keys.keys():
        raise SystemExit(f"{options.answers}: a line for each of the {len(keys)} numbers, and no other")
    named = {kind: [answers[n].strip() != NO for n, key in keys.items() if key["kind"] == kind] for kind in KINDS}
    for kind, those in named.items():
        interval = binomtest(sum(those), len(those)).proportion_ci()
        against = ""
        if kind != KINDS[0]:
            table = [[sum(some), len(some) - sum(some)] for some in (named[KINDS[0]], those)]
            against = f"; latents more often, p = {fisher_exact(table, 'greater').pvalue:.2g}"
        share = sum(those) / len(those)
        print(
            f"{kind:18} {sum(those):3} of {len(those)}  {share:.2f} [{interval.low:.2f}, {interval.high:.2f}]{against}"
        )


if __name__ == "__main__":
    main()
