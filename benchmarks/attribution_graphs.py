"""Attribution graphs of scenes: completeness, what silencing units does beside what they predict, node CMD of latents.

Of images that no dictionary was trained on, each with the class that the network gives it: channels, dictionaries that
are trained here, untrained ones as the control of the scores, and transcoders of the blocks between. Then circuits of
as many latents as channels on the tasks of the circuit benchmark. With --tales why a language model names a landmark.
With --googlenet the CPU-seconds of a graph, with channels and with four dictionaries.

python benchmarks/attribution_graphs.py --images 50
python benchmarks/attribution_graphs.py --images 0 --tasks 0 --googlenet ../shared/data/cars
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path
from time import process_time

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # a script beside this one has the name of a package

import numpy as np  # noqa: E402
import torch  # noqa: E402

import circuits  # noqa: E402
import sae  # noqa: E402
from benchmarks._tables import header, row  # noqa: E402
from circuits.common.statistics import rank_correlation  # noqa: E402
from sae.language import LanguageModel, LanguageSite, known_features, load_language, text_network  # noqa: E402
from zoo import tales  # noqa: E402
from zoo.images.sources import open_images  # noqa: E402
from zoo.tales.stories import FEATURES  # noqa: E402

LAYERS = ["mixed3a", "mixed3b", "mixed4a", "mixed4b"]
SIZES = (1, 2, 4, 8, 16, 32, 64, 136)
"""Sizes of circuits: up to as many units as the three layers of a task have channels."""


TRANSCODERS = [f"{LAYERS[0]}~trained", *(f"{a}..{b}~block" for a, b in pairwise(LAYERS))]
"""An SAE of the first layer, and the blocks between the layers as transcoders."""


def attach(model: circuits.Model, k: int, steps: int) -> None:
    """Dictionaries "trained" and "untrained", with the same means and scales, and transcoders of 3 x 3 positions."""
    for pair in (sae.VisionPair(model, a, b, patch=3) for a, b in pairwise(LAYERS)):
        began, kind = process_time(), "skip-transcoder"
        config = sae.TopK(latents=8 * pair.target.d, k=k, kind=kind)  # type: ignore[arg-type]
        block = sae.train(pair.stream("scenes:1500", batch_size=1024), config, steps=steps, lr=3e-3)[0].sae
        pair.attach("block", block)
        fvu = sae.evaluate(block, pair, "scenes:60@7").reconstruction.fvu
        print(
            f"{pair.space}: {config.latents} latents, k {k}, FVU {fvu:.4f}, {process_time() - began:.0f} s", flush=True
        )
    for layer in LAYERS:
        began, site = process_time(), sae.VisionSite(model, layer)
        config = sae.TopK(latents=8 * site.d, k=k)
        trained = sae.train(site.stream("scenes:1500", batch_size=1024), config, steps=steps, lr=3e-3)[0].sae
        untrained = sae.build(config, site.d)
        with torch.no_grad():
            for name in ("mean", "scale", "decoder_bias"):
                getattr(untrained, name).copy_(getattr(trained, name))
        site.attach("trained", trained)
        site.attach("untrained", untrained)
        fvu = sae.evaluate(trained, site, "scenes:60@7", controls=False).reconstruction.fvu
        print(f"{layer}: {config.latents} latents, k {k}, FVU {fvu:.4f}, {process_time() - began:.0f} s", flush=True)


def graphs(model: circuits.Model, count: int) -> None:
    """Medians and quartiles over images, of each kind of units."""
    images = open_images(f"scenes:{count}@11")
    header("units", "completeness", "replacement", "rank correlation", "shuffled, size", "strong", "as active", "s")
    for kind in ("channels", "trained", "untrained", "transcoders"):
        layers = {"channels": LAYERS, "transcoders": TRANSCODERS}.get(kind, [f"{layer}~{kind}" for layer in LAYERS])
        rows, seconds = [], 0.0
        for i in range(count):
            image = images.subset([i])
            batch = next(iter(image.batches(model.input, batch_size=1)))[1]
            began = process_time()
            graph = circuits.graph(model, image, f"logits:{int(model(batch)[0].argmax())}", layers=layers)
            seconds += process_time() - began
            check = circuits.check_graph(model, graph, images=image, seed=i)
            order = np.random.default_rng(i).permutation(len(check.units))
            shuffled = abs(rank_correlation(np.array(check.predicted)[order], check.measured))
            scores = (graph.completeness, graph.replacement, check.correlation, shuffled)
            rows.append((*scores, check.strong_size, check.random_size))
        low, middle, high = np.quantile(np.array(rows), [0.25, 0.5, 0.75], axis=0)
        cells = [f"{m:.3f} ({a:.3f} to {b:.3f})" for a, m, b in zip(low, middle, high, strict=True)]
        row(kind, *cells, f"{seconds / count:.2f}")


def node_cmd(model: circuits.Model, count: int) -> None:
    """CMD of circuits of up to 136 units on tasks of the benchmark, ranked by the gradient and at random."""
    tasks = circuits.benchmark.tasks(pairs=24, model=model)[0][:count]
    areas: dict[tuple[str, str], list[float]] = {}
    for task in tasks:
        for kind in ("channels", "latents"):
            layers = list(task.layers) if kind == "channels" else [f"{layer}~trained" for layer in task.layers]
            for method in ("gradient", "random"):
                seen = {"images": task.images, "against": task.against, "share": 1.0}
                ranking = circuits.rank(model, task.target, layers=layers, method=method, **seen)
                curve = circuits.size_curve(
                    model, ranking, images=task.held_out, against=task.held_out_against, sizes=SIZES, random=0
                )
                f = np.abs(1 - np.array([0.0, *curve.f]))
                areas.setdefault((kind, method), []).append(float(np.trapezoid(f, np.array([0, *SIZES]) / SIZES[-1])))
    header("units", "ranked by", "CMD")
    rng = np.random.default_rng(0)
    for (kind, method), values in areas.items():
        means = [np.mean(rng.choice(values, len(values))) for _ in range(2000)]
        low, high = np.quantile(means, [0.025, 0.975])
        row(kind, method, f"{np.mean(values):.3f} ({low:.3f} to {high:.3f})")


def googlenet(folder: Path) -> None:
    """CPU-seconds of a graph of one photograph."""
    model = circuits.load("googlenet-bvlc")
    photographs = open_images(str(folder))
    layers = ["mixed3b", "mixed4a", "mixed4c", "mixed4e"]
    for layer in layers:  # how long it takes does not depend on how well they are trained
        site = sae.VisionSite(model, layer)
        vectors = sae.collect(site, photographs.subset(range(20))).vectors
        site.attach("d", sae.train(vectors, sae.TopK(latents=4096, k=32), steps=20, batch_size=1024)[0].sae)
    header("units", "CPU-seconds")
    for names in (layers, [f"{layer}~d" for layer in layers]):
        began = process_time()
        circuits.graph(model, photographs.subset([0]), "sports car", layers=names)
        row(names[0], f"{process_time() - began:.1f}")


def tales_graphs(count: int) -> None:
    """Why the landmark's name instead of its neighbor's, in stories where it is due: words, latents, silencing."""
    lm, rival = load_language("tales"), tales.LANDMARKS[1]
    saes, due = {}, 0
    for layer in ("layers.1.resid", "layers.2.resid"):
        site = LanguageSite(lm, layer)
        stream = site.stream("tales:2000@2", batch_size=1024)
        trained = sae.train(stream, sae.TopK(latents=256, k=6), steps=600, lr=3e-3)[0].sae
        saes[layer.replace(".", "_")] = trained, site
        known = {f.name: f for f in known_features(trained, site, tales.sample(600, seed=1))}["landmark_due"]
        due = due if layer == "layers.2.resid" else known.latent
        print(f"{layer}: latent {known.latent} detects where the landmark is due, AUC {known.auc:.3f}", flush=True)
    name, rows, effects = tales.THE_LANDMARK.name, dict[str, list[tuple[float, ...]]](), []
    for number, (text, last) in enumerate(due_stories(lm, name, count)):
        model, tokens = text_network(lm, text, saes)
        words = [lm.decode([i]).strip() for i in lm.ids(text)]
        described = [i for i, word in enumerate(words) if word in tales.THE_LANDMARK.description.split()[:2]]
        described += [i for i, word in enumerate(words) if word == tales.THE_LANDMARK.city]
        for kind in ("channels", "latents"):
            layers = [site.site + ("" if kind == "channels" else f"~{key}") for key, (_, site) in saes.items()]
            graph = circuits.graph(
                model, tokens, (name, rival.name), layers=layers, positions=True, patches=tokens.shape[2]
            )
            check = circuits.check_graph(model, graph, images=tokens, seed=number)
            values = np.array([n.value for n in graph.nodes if n.kind == "input"][:-2])
            most = int(values.argmax())
            found = (float(words[most] == tales.THE_LANDMARK.color), float(most in described))
            row_of = (*found, graph.completeness, graph.replacement, check.correlation, check.shuffled)
            rows.setdefault(kind, []).append(row_of)
        first = [n.unit for n in graph.strongest() if n.layer == graph.layers[0]]
        rank = next((i for i, unit in enumerate(first) if unit.endswith(f":{due}@0,{last}")), None)
        if rank is not None:
            effect = circuits.node_effect(model, graph, first[rank], images=tokens, seed=number)
            middle = float(np.median(np.abs(effect.random)))
            effects.append((rank + 1, effect.predicted, effect.measured, middle))
    columns = ("the color first", "a word of the description first", "completeness", "replacement")
    header("units", *columns, "rank correlation", "shuffled")
    for kind, values_of in rows.items():
        low, middle_of, high = np.quantile(np.array(values_of), [0.25, 0.5, 0.75], axis=0)
        shares = [f"{share:.2f}" for share in np.mean(values_of, axis=0)[:2]]
        cells = [f"{m:.3f} ({a:.3f} to {b:.3f})" for a, m, b in zip(low, middle_of, high, strict=True)]
        row(kind, *shares, *cells[2:])
    ranks, *medians = np.array(effects).T
    predicted, measured, others = (float(np.median(column)) for column in medians)
    print(f"its latent, at the last token, is at most number {ranks.max():.0f} of its layer in {len(ranks)} of {count}")
    print(f"silenced: predicted {predicted:.2f}, measured {measured:.2f}, others as active {others:.3f} (medians)")


def due_stories(lm: LanguageModel, name: str, count: int) -> list[tuple[str, int]]:
    """Stories up to the first place where the landmark's name is due and comes, and the number of that token."""
    column, found = FEATURES.index("landmark_due"), list[tuple[str, int]]()
    for story in tales.sample(20_000, seed=7):
        words = list(story.tokens)
        at = [i for i in np.flatnonzero(np.asarray(story.labels)[:, column]).tolist() if name not in words[:i]]
        if len(found) < count and at and words[at[0] + 1] == name:
            ids = lm.ids(story.text)[: at[0] + 1]
            found.append((lm.decode(ids), at[0]))
    return found


def main() -> None:
    """All tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50, help="scenes to explain; 0: none")
    parser.add_argument("--steps", type=int, default=1500, help="that a dictionary is trained for")
    parser.add_argument("--tasks", type=int, default=31, help="tasks of the circuit benchmark; 0: none")
    parser.add_argument("--tales", type=int, default=0, help="stories of the language model to explain; 0: none")
    parser.add_argument("--googlenet", type=Path, help="folder of photographs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.images or options.tasks:
        model = circuits.load("scenes")
        attach(model, 8, options.steps)
        if options.images:
            graphs(model, options.images)
        if options.tasks:
            node_cmd(model, options.tasks)
    if options.tales:
        tales_graphs(options.tales)
    if options.googlenet is not None:
        googlenet(options.googlenet)


if __name__ == "__main__":
    main()
