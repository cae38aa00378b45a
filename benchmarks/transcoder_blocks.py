"""Blocks replaced by transcoders: what of the predictions stays, what limits it, and what a trace leaves over.

A tenth of the images is held out. In the block's place stand, everywhere: a skip-transcoder trained on squared errors;
the same tuned on predictions; and as controls a linear map (a skip-transcoder with one latent, tuned likewise), a
transcoder whose targets are shuffled among positions, an SAE of the block's output as large, its own k largest
channels, a tenth to a half of the linear map's error, and the mean. Then the remainder of a trace: what of a unit's
activation its parents do not explain, through the block itself (`circuits.trace`, by weights) and through the
transcoder, on the same held-out images at the same positions. With --rectified the transcoder is not trained on squared
errors but solved (`sae.rectified_map`), then tuned; the shuffled control is left out.

python benchmarks/transcoder_blocks.py scenes mixed3a..mixed3b mixed3b..mixed4a --images scenes:1650 --patch 3
python benchmarks/transcoder_blocks.py googlenet-bvlc mixed3b_maxpool..mixed4a --patch 3 --rectified \
    --images ../shared/data/imagenet-sample ../shared/data/voc-sample --latents 512 --steps 60 --tune 100 --tune-lr 1e-3
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # a script beside this one has the name of a package

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

import circuits  # noqa: E402
import sae  # noqa: E402
from apps.cli.sae_sites import split  # noqa: E402
from apps.images import open_sources  # noqa: E402
from benchmarks._tables import header, row  # noqa: E402
from sae.data.site import constant, reconstructing, target_of, transcoding  # noqa: E402
from sae.data.vision_pair import PairStream  # noqa: E402
from sae.evaluation.evaluate import PredictionTally  # noqa: E402
from zoo.images.classes import labels_by_name  # noqa: E402
from zoo.images.sources import Images  # noqa: E402

Way = Callable[[Tensor], Tensor]
ITSELF = "block itself"


class ShuffledTargets(PairStream):
    """Pairs whose targets are those of other positions: the control that knows how targets are distributed alone."""

    def load(self, epoch: int, window: int) -> Any:
        """The pairs of a window, targets shuffled."""
        pairs = super().load(epoch, window)
        pairs.targets = pairs.targets[
            torch.randperm(len(pairs.targets), generator=torch.Generator().manual_seed(epoch))
        ]
        return pairs


def known_labels(images: Images, model: circuits.Model) -> list[int]:
    """Classes of images: their own labels, or those of the files that are named after a class; -1 of others."""
    if images.labels is not None:
        return [int(label) for label in images.labels]
    named = [i for i, name in enumerate(images.ids) if Path(name).name[:1] == "n"]
    labels = [-1] * len(images)
    for i, label in zip(named, labels_by_name([images.ids[i] for i in named], model.classes) or [], strict=False):
        labels[i] = label
    return labels


def largest(k: int) -> Way:
    """The k largest channels of what the block gives, the others zero."""

    def keep(acts: Tensor) -> Tensor:
        values, indices = acts.topk(k, dim=-1)
        return torch.zeros_like(acts).scatter(-1, indices, values)

    return keep


@dataclass
class Blocks:
    """What is trained to stand in a block's place, and the CPU-seconds that each took."""

    pair: sae.VisionPair
    images: Images
    options: argparse.Namespace
    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, name: str, make: Callable[[], sae.SAE], before: float = 0.0) -> sae.SAE:
        """What is made, with the CPU-seconds that it took besides those before."""
        began = process_time()
        made = make()
        self.seconds[name] = before + process_time() - began
        print(f"{name}: {self.seconds[name]:.0f} CPU-seconds", flush=True)
        return made

    def trained(
        self, name: str, site: Any, stream: Any, kind: str, latents: int | None = None, k: int | None = None
    ) -> sae.SAE:
        """Trained on squared errors."""
        options = self.options
        config = sae.TopK(latents=latents or options.latents, k=k or options.k, kind=kind)  # type: ignore[arg-type]

        def make() -> sae.SAE:
            run = sae.train(stream, config, steps=options.steps, lr=options.lr, distributed=False)[0]
            run.sae.metadata = dict(site.metadata)
            return run.sae

        return self.timed(name, make)

    def tuned(self, name: str, of: sae.SAE, before: float) -> sae.SAE:
        """Tuned on predictions."""
        options = self.options
        counts = {"steps": options.tune, "batch_size": options.tune_images}
        tune = partial(sae.tune_on_predictions, of, self.pair, self.images, lr=options.tune_lr, progress=every(25))
        return self.timed(name, partial(tune, **counts), before)

    def transcoders(self) -> Iterator[tuple[str, sae.SAE]]:
        """The transcoder, and the same tuned."""
        pair, images, options = self.pair, self.images, self.options
        if options.rectified:
            name, config = "rectified map", sae.TopK(latents=options.latents, k=options.k, kind="transcoder")
            solve = partial(sae.rectified_map, pair, images, config, vectors=options.vectors)
            first = self.timed(name, solve)
        else:
            name = "transcoder, squared error"
            first = self.trained(name, pair, pair.stream(images, batch_size=options.batch_size), "skip-transcoder")
        yield name, first
        if options.tune:
            yield f"{name}, tuned", self.tuned(f"{name}, tuned", first, self.seconds[name])

    def controls(self) -> Iterator[tuple[str, Way]]:
        """A linear map, tuned likewise; shuffled targets; an SAE of the output; shares of the linear map's error."""
        pair, images, options, widths = self.pair, self.images, self.options, self.pair.widths
        settings = {"batch_size": options.batch_size}
        name = "linear map, one latent"
        linear = self.trained(name, pair, pair.stream(images, **settings), "skip-transcoder", 1, 1)
        yield name, transcoding(linear, widths)
        if options.tune:
            yield "linear map, tuned", transcoding(self.tuned("linear map, tuned", linear, self.seconds[name]), widths)
        for share in (0.1, 0.25, 0.5):
            yield f"{share} of the linear map's error", mixed(transcoding(linear, widths), widths, share)
        if not options.rectified:
            stream, name = ShuffledTargets(pair, images, **settings), "transcoder, shuffled targets"
            yield name, transcoding(self.trained(name, pair, stream, "transcoder"), widths)
        name = "SAE of the output"
        whole = self.trained(name, pair.target, pair.target.stream(images, **settings), "sae")
        yield name, target_of(reconstructing(whole), widths)

    def untrained(self) -> dict[str, Way | None]:
        """The block itself, its own largest channels, its mean."""
        pair, images, k, widths = self.pair, self.images, self.options.k, self.pair.widths
        sample = pair.target.blocks(images.subset(range(min(64, len(images)))))
        mean = torch.cat([block.acts.flatten(0, -2) for block in sample]).mean(dim=0)
        largest_ones = {f"its own {k} largest channels": target_of(largest(k), widths)}
        return {ITSELF: None, **largest_ones, "mean": target_of(constant(mean), widths)}


def every(steps: int) -> Callable[[int, int], None]:
    """Progress that prints a line now and then."""

    def report(done: int, total: int) -> None:
        if done % steps == 0:
            print(f"  {done} of {total} steps", flush=True)

    return report


def mixed(linear: Way, widths: tuple[int, int], share: float) -> Way:
    """What the block gives, with a share of a stand-in's error."""
    return lambda pairs: pairs[..., widths[0] :] + share * (linear(pairs) - pairs[..., widths[0] :])


@torch.no_grad()
def table(pair: sae.VisionPair, images: Images, ways: dict[str, Way | None], seconds: dict[str, float]) -> None:
    """A row for each way: FVU, top-1 with the network's own beside it, agreement, divergence."""
    labels = known_labels(images, pair.model)
    errors, squares, total, count = dict.fromkeys(ways, 0.0), 0.0, torch.zeros(pair.target.d, dtype=torch.float64), 0
    tallies, right = {name: PredictionTally() for name in ways}, dict[str, list[Tensor]]()

    def measured(name: str, way: Way) -> Way:
        def run(pairs: Tensor) -> Tensor:
            given = way(pairs)
            errors[name] += float((given - pairs[..., pair.widths[0] :]).double().square().sum())
            return given

        return run

    functions = [None if way is None else measured(name, way) for name, way in ways.items()]
    for _, target in pair.maps(images):
        flat = target.movedim(1, -1).flatten(0, -2).double()
        squares, total, count = squares + float(flat.square().sum()), total + flat.sum(dim=0), count + len(flat)
    variance, at = squares - float((total.square() / count).sum()), 0
    for scores, _ in pair.predictions(images, functions, batch_size=8):
        known = torch.tensor(labels[at : at + len(scores[0])])
        at += len(known)
        for (name, tally), own in zip(tallies.items(), scores, strict=True):
            tally.add(own, scores[0].double().log_softmax(dim=1), known)
            right.setdefault(name, []).append((own.argmax(dim=1) == known)[known >= 0].double())
    print()
    header("in its place", "FVU", "top-1", "of the network's own", "agreement", "KL, nats", "CPU-s")
    clean = torch.cat(right[ITSELF]).numpy()
    rng = np.random.default_rng(0)
    for name, tally in tallies.items():
        hits, result = torch.cat(right[name]).numpy(), tally.result()
        draws = [rng.integers(0, len(hits), len(hits)) for _ in range(2000)]
        ratios = [hits[i].mean() / max(clean[i].mean(), 1e-9) for i in draws]
        kept = "{:.3f} ({:.2f} to {:.2f})".format(hits.mean() / clean.mean(), *np.quantile(ratios, [0.025, 0.975]))
        cells = f"{errors[name] / variance:.4f}", f"{hits.mean():.3f} of {len(hits)}", kept
        spent = f"{seconds[name]:.0f}" if name in seconds else ""
        row(name, *cells, f"{result.agreement:.3f}", f"{result.kl:.4f}", spent)
    print(flush=True)


@torch.no_grad()
def remainders(pair: sae.VisionPair, images: Images, transcoder: sae.SAE, units: Sequence[int]) -> None:
    """|remainder| / |activation| of units of the block's output, at their peaks where these are strongest."""
    _, target = next(iter(pair.maps(images, batch_size=len(images))))
    given = torch.cat([
        transcoding(transcoder, pair.widths)(block.acts) for block in pair.blocks(images, batch_size=8)
    ]).movedim(-1, 1)  # fmt: skip
    through_block, through_transcoder = [], []
    for unit in units:
        peaks = target[:, unit].flatten(1).max(dim=1)
        strongest = peaks.values.argsort(descending=True)[:32]
        strongest = strongest[peaks.values[strongest] > 0]  # those that are traced
        if len(strongest) < 8:
            continue
        try:
            traced = circuits.trace(
                pair.model, f"{pair.target.layer.name}:{unit}", images=images, layers=[pair.source.layer.name],
                by="weights", n_examples=1,
            )  # fmt: skip
        except circuits.CircuitsError as error:
            print(f"no trace of {unit}: {error}")
            continue
        through_block.append(traced.rest[0].nonlinear)
        at = strongest, peaks.indices[strongest]
        value, rebuilt = (float(maps[:, unit].flatten(1)[at].double().mean()) for maps in (target, given))
        through_transcoder.append(abs(value - rebuilt) / abs(value))
    if not through_block:
        print("no unit was traced", flush=True)
        return
    block, stand_in = np.array(through_block), np.array(through_transcoder)
    ratios = np.median(block) / np.median(stand_in)
    for name, values in (("the block", block), ("the transcoder", stand_in)):
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        print(f"remainder of a trace through {name}: {middle:.3f} ({low:.3f} to {high:.3f}), {len(values)} units")
    print(
        f"{ratios:.1f} times smaller through the transcoder; smaller of {(stand_in < block).mean():.2f} of the units",
        flush=True,
    )


def main() -> None:
    """A table and the remainders of each pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pairs", nargs="+", help="two layers each: mixed4b..mixed4c")
    parser.add_argument("--images", nargs="+", required=True, help="folders, or scenes:1650")
    parser.add_argument("--patch", type=int, help="positions along each side that are read; by default all of a window")
    parser.add_argument("--latents", type=int, default=2048)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--tune", type=int, default=100, help="steps on predictions; 0: none")
    parser.add_argument("--tune-images", type=int, default=16)
    parser.add_argument("--tune-lr", type=float, default=0.01)
    parser.add_argument("--rectified", action="store_true", help="solve the transcoder, do not train it")
    parser.add_argument("--vectors", type=int, default=100_000, help="positions that a rectified map is solved from")
    parser.add_argument("--save", type=Path, help="folder for the transcoders")
    parser.add_argument("--units", type=int, default=24, help="units that are traced")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = circuits.load(options.model)
    training, held_out = split(open_sources(tuple(options.images), None, 0), 0.1, 0)
    assert held_out is not None, "ten images at least: a tenth is held out"
    for name in options.pairs:
        source, _, target = name.partition("..")
        pair = sae.VisionPair(model, source, target, patch=options.patch)
        print(f"\n{pair}: {len(training)} images, {len(held_out)} held out, {options.latents} latents, k {options.k}\n")
        blocks = Blocks(pair, training, options)
        transcoders = dict(blocks.transcoders())
        own: dict[str, Way | None] = {
            key: transcoding(transcoder, pair.widths) for key, transcoder in transcoders.items()
        }
        table(pair, held_out, blocks.untrained() | own, blocks.seconds)
        last = list(transcoders.values())[-1]
        if options.save is not None:
            sae.save(options.save / pair.space, last)
        random = np.random.default_rng(0)
        units = random.choice(pair.target.d, min(options.units, pair.target.d), replace=False)
        remainders(pair, held_out.subset(range(min(96, len(held_out)))), last, units.tolist())
        table(pair, held_out, {ITSELF: None, **dict(blocks.controls())}, blocks.seconds)


if __name__ == "__main__":
    main()
