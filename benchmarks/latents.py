"""Latents against known ground truth: parts of rendered scenes, and curves of every orientation.

    python benchmarks/latents.py --quick                       # parts of `scenes` only
    python benchmarks/latents.py                               # and curve detectors of GoogLeNet mixed3b; see --sae
    python benchmarks/latents.py --sae FOLDER --figures DIR

Parts: three seeds of an SAE on each of three layers of `scenes`, trained on other scenes than those scored. Curves:
an SAE on `mixed3b` of the BVLC GoogLeNet (`$CIRCUITS_WEIGHTS`), trained on photographs or read from a folder
(`$CIRCUITS_DATA/imagenet-sample`, a tenth held out), beside random directions and a dictionary of activations.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # a script beside this one has the name of a package

import torch  # noqa: E402

import circuits  # noqa: E402
import sae  # noqa: E402
from apps.cli.sae_sites import split  # noqa: E402
from benchmarks._tables import header, row  # noqa: E402
from circuits import plot  # noqa: E402
from circuits.common.statistics import Estimate  # noqa: E402
from sae.data.activations import Sampling, collect  # noqa: E402
from sae.data.vision_site import VisionSite  # noqa: E402
from sae.evaluation.curve_detection import CurveComparison, compare as compare_curves  # noqa: E402
from sae.evaluation.part_detection import (  # noqa: E402
    MEASURES,
    Kind,
    PartComparison,
    compare as compare_parts,  # noqa: E402
)
from zoo.images.sources import Images, open_images  # noqa: E402

LAYERS = ("mixed3a", "mixed3b", "mixed4a")
TRAINING, EVALUATED = "scenes:{n}@100", "scenes:{n}@7"
LAYER = "mixed3b"
KINDS: dict[Kind, str] = {
    "channels": "channels",
    "latents": "latents",
    "random": "random directions, as sparse",
    "linear": "random directions, linear",
}


def compared_parts(layer: str, options: argparse.Namespace) -> PartComparison:
    """Several seeds trained and scored."""
    model = circuits.load("scenes", device="cpu")
    site = VisionSite(model, layer)
    stream = site.stream(TRAINING.format(n=options.train), batch_size=1024)
    configs = [sae.TopK(latents=options.factor * site.d, k=options.k, seed=i) for i in range(options.seeds)]
    runs = sae.train(stream, configs, steps=options.steps, lr=2e-3, dead_after=100_000)
    saes = {f"seed{i}": run.sae for i, run in enumerate(runs)}
    result = compare_parts(model, layer, saes, EVALUATED.format(n=options.scenes))
    unexplained = [sae.metrics.reconstruction(s, _held_out_vectors(site, options)).fvu for s in saes.values()]
    print(f"\n### {site.address}: {site.d} channels, {options.factor * site.d} latents, k = {options.k}")
    print(f"\nFVU on scenes not trained on {_several(unexplained)}; {sum(result.positions):,} positions on "
          f"{len(result.parts)} parts in {result.images[1]} scenes that score.\n")  # fmt: skip
    parts_table(result)
    return result


def _held_out_vectors(site: VisionSite, options: argparse.Namespace) -> torch.Tensor:
    return collect(site, EVALUATED.format(n=min(200, options.scenes))).vectors


def parts_table(result: PartComparison) -> None:
    """Means over parts of the best units, in Markdown."""
    header("units", "number", "AUC", "less channels", "IoU", "less channels", "better for, by IoU",
           "IoU of as many as channels")  # fmt: skip
    count = result["channels"].units
    for kind, label in KINDS.items():
        dictionaries = result.of_kind(kind)
        cells: list[str] = []
        for measure in MEASURES:
            cells.append(_several([result.mean(dictionary.name, measure).value for dictionary in dictionaries]))
            cells.append(
                _all([result.difference(dictionary.name, measure=measure) for dictionary in dictionaries])
                if kind != "channels"
                else ""
            )
        wins = [result.wins(dictionary.name, measure="iou") for dictionary in dictionaries]
        better = f"{min(wins)} to {max(wins)} of {len(result.parts)}" if kind != "channels" else ""
        row(
            label,
            dictionaries[0].units,
            *cells,
            better,
            _several([float(dictionary.of_some(count, "iou").mean()) for dictionary in dictionaries]),
        )
    for measure in MEASURES:
        over = [
            result.difference(dictionary.name, f"{dictionary.name} random", measure)
            for dictionary in result.of_kind("latents")
        ]
        print(f"\n{measure}: latents less as many random directions, as sparse: {_all(over)}")


def _several(values: Sequence[float]) -> str:
    """One number, or the mean of several and their range."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{sum(values) / len(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def _all(ones: Sequence[Estimate]) -> str:
    """The mean difference, and the widest of the intervals' ends."""
    mean = sum(o.value for o in ones) / len(ones)
    return f"{mean:+.3f} [{min(o.low for o in ones):+.3f}, {max(o.high for o in ones):+.3f}]".replace("-", "−")


def trained(site: VisionSite, training: Images, options: argparse.Namespace) -> sae.SAE:
    """The SAE of a folder, or one trained now, on positions in proportion to their length."""
    if options.sae is not None and (options.sae / "cfg.json").exists():
        return sae.load(options.sae)
    stream = site.stream(training, sampling=Sampling(200, "magnitude"), batch_size=1024)
    config = sae.TopK(latents=options.latents, k=32)
    checkpoint = None if options.sae is None else options.sae.with_suffix(".checkpoint")
    run = sae.train(stream, config, steps=options.long, lr=1e-3, dead_after=400_000, checkpoint=checkpoint)[0]
    if options.sae is not None:
        sae.save(options.sae, run)
    return run.sae


def of_examples(site: VisionSite, images: Images, like: sae.SAE, k: int) -> sae.SAE:
    """A control dictionary without training: its directions are activations, less their mean."""
    vectors = collect(site, images, sampling=Sampling(40, "magnitude", seed=5)).vectors
    mean = vectors.mean(dim=0)
    rows = torch.nn.functional.normalize(vectors - mean)[
        torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))
    ]
    dictionary = sae.build(sae.TopK(latents=like.latents, k=k), site.d)
    with torch.no_grad():
        dictionary.encoder.copy_(rows[: like.latents])
        dictionary.decoder.copy_(rows[: like.latents])
        dictionary.mean.copy_(mean)
    return dictionary.requires_grad_(False)


def curves(options: argparse.Namespace) -> CurveComparison:
    """Curve detectors among channels, latents and controls of a layer of GoogLeNet."""
    photographs = options.images or [Path(os.environ["CIRCUITS_DATA"]) / "imagenet-sample"]
    model = circuits.load("googlenet-bvlc", device="cpu")
    site = VisionSite(model, options.curve_layer)
    training, held_out = split(open_images(photographs), 0.1, 0)  # as `circuits sae train` does
    assert held_out is not None
    own = trained(site, training, options)
    site.attach("latents", own)
    vectors = collect(site, held_out, sampling=Sampling(100, seed=1)).vectors
    quality = sae.metrics.reconstruction(own, vectors)
    site.attach("examples", of_examples(site, training, own, round(quality.l0)))
    result = compare_curves(model, options.curve_layer, ["latents", "examples"], images=held_out, batch_size=8)
    print(f"\n### {site.address}: {site.d} channels, {own.latents} latents, {quality.l0:.0f} active")
    print(f"\nFVU on held-out photographs, uniform positions: {quality.fvu:.3f}; dead {100 * quality.dead:.1f} %; "
          + "; ".join(f"{name} {baseline.fvu:.3f}" for name, baseline in quality.baselines.items()) + "\n")  # fmt: skip
    curves_table(result)
    return result


def curves_table(result: CurveComparison) -> None:
    """Gaps and coverage, in Markdown."""
    header("detectors", "units", "number", "largest gap", "random, median [95 %]", "more even than", "mean gap",
           "expected gap", f"within {result.within:g}° of one")  # fmt: skip
    units = {coverage.name: f"{coverage.units:,}" for coverage in result.searched}
    for name, coverage in result.coverages.items():
        median, low, high = coverage.chance
        row(name, units.get(name, ""), coverage.count, f"{coverage.largest_gap:.0f}°",
            f"{median:.0f}° [{low:.0f}, {high:.0f}]",
            f"{100 * coverage.more_even:.0f} %", f"{coverage.mean_gap:.1f}°", f"{coverage.expected_gap:.1f}°",
            f"{100 * coverage.covered:.0f} %")  # fmt: skip
    header("\nadded to the channels", "farther from them", "largest gap of both",
           "smaller than with as many random ones",
           "in the channels' largest gap", "expected there", "copies of one channel")  # fmt: skip
    for name, added in result.fillings.items():
        row(name, f"{added.in_gaps} of {len(result[name].detectors)}", f"{added.largest_gap:.0f}°",
            f"{100 * added.chance:.0f} %", added.in_largest, f"{added.expected:.1f}", added.single)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="parts of scenes only")
    parser.add_argument("--layers", nargs="*", default=list(LAYERS), help="of scenes; none at all: curves only")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--factor", type=int, default=8, help="latents per channel")
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--train", type=int, default=800, help="scenes to train on")
    parser.add_argument("--scenes", type=int, default=400, help="scenes to score on, half of them to choose units")
    parser.add_argument("--sae", type=Path, help="folder of the SAE on GoogLeNet; trained and written if not there")
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--long", type=int, default=4000, help="training steps on GoogLeNet")
    parser.add_argument("--curve-layer", default=LAYER, help="layer of GoogLeNet whose curve detectors are searched")
    parser.add_argument("--images", type=Path, action="append",
                        help="photographs, may be repeated (default $CIRCUITS_DATA/imagenet-sample)")  # fmt: skip
    parser.add_argument("--figures", type=Path, help="folder for figures")
    options = parser.parse_args()
    versions = f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}"
    print(f"{datetime.date.today()}; {versions}")
    for layer in options.layers:
        result = compared_parts(layer, options)
        if options.figures is not None:
            plot.save_figure(result.figure(), options.figures / f"parts-{layer}.png")
    if not options.quick:
        dials = curves(options)
        if options.figures is not None:
            plot.save_figure(dials.figure(), options.figures / "curves.png")


if __name__ == "__main__":
    main()
