"""Which dictionary pays: architectures, recipes and other libraries' SAEs on equal data, judged on held-out images.

    python benchmarks/sae_recipes.py --out out --part architectures --sites scenes     # about 12 CPU-minutes
    python benchmarks/sae_recipes.py --out out --part architectures --sites mixed4c mixed4e --seeds 3
    python benchmarks/sae_recipes.py --out out --part recipes --sites mixed4c
    python benchmarks/sae_recipes.py --out out --part peers --sites mixed4c             # those that are installed
    python benchmarks/sae_recipes.py --out out --table                                  # what was measured until now

Every dictionary is a line of `--out`/dictionaries.jsonl; what is there is not trained again, so that a run that was
broken off goes on. Its directions are kept beside it, for the stability between seeds. `scenes` are four layers of
`scenes-labels` on 500 scenes, 200 others to measure on; GoogLeNet is trained on nine tenths of the photographs in
`$CIRCUITS_DATA/imagenet-sample` and `voc-sample`, whose activations are kept in `--out`/activations, and measured on
60 of the rest. All SAEs of a layer have the same number of latents, steps and vectors. Those with a penalty get the
one with which a first training (of another seed) has as many active latents as the others, interpolated among
`PENALTIES`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)
sys.path.append(str(HERE))

import torch  # noqa: E402
from _sae_peers import DICTIONARIES, Shape, trained  # noqa: E402
from torch import Tensor  # noqa: E402

import circuits  # noqa: E402
import sae  # noqa: E402
from sae.architectures.base import SAEConfig  # noqa: E402
from sae.data.activations import Sampling, collect  # noqa: E402
from sae.data.disk_shards import Shards, store  # noqa: E402
from sae.data.site import Block  # noqa: E402
from sae.evaluation.controls.dictionary import Dictionary  # noqa: E402
from sae.evaluation.metrics import matched_cosine  # noqa: E402
from sae.evaluation.trust.held_out import HeldOut, held_out  # noqa: E402
from sae.training.input_normalization import statistics_of  # noqa: E402
from sae.training.schedule import short_lr  # noqa: E402
from zoo.images.sources import Images, open_images  # noqa: E402

SCENES = ("mixed3a", "mixed3b", "mixed4a", "mixed4b")
GOOGLENET = ("mixed4c", "mixed4e")
METRICS = ("explained variance", "kept predictions", "part overlap", "targeted removal")
PENALTIES = {
    "relu": (2.0, 8.0, 32.0), "gated": (2.0, 8.0, 32.0), "jumprelu": (1.0, 4.0, 16.0), "p_annealing": (0.5, 2.0, 8.0),
}  # fmt: skip
PILOT = 1000
"""Seed of the first training of those with a penalty, which is not measured."""


@dataclass(frozen=True)
class Recipe:
    """How one training differs from the default of a site; factors multiply, None is as it is."""

    lr: float = 1.0
    steps: float = 1.0
    width: float = 1.0
    batch: float = 1.0
    images: float = 1.0
    k: float = 1.0
    decay: float = 0.2
    aux: float = 1.0
    rule: str = "all"

    @property
    def name(self) -> str:
        """What differs."""
        usual = vars(Recipe())
        return " ".join(f"{key}={value}" for key, value in vars(self).items() if value != usual[key]) or "default"


class Site:
    """A layer with its vectors to train on and its held-out images.

    Attributes:
        latents, k, steps, batch: of the default recipe.
    """

    def __init__(self, layer: str, out: Path) -> None:
        self.layer, self.out = layer, out
        self.scenes = layer in SCENES
        self.model = circuits.load("scenes-labels" if self.scenes else "googlenet-bvlc")
        self.site = sae.VisionSite(self.model, layer)
        self.k, self.steps, self.batch = (4, 300, 1024) if self.scenes else (16, 100, 1024)
        self.latents = 4 * self.site.d if self.scenes else 1024

    @cached_property
    def images(self) -> tuple[Images, Images]:
        """To train on, to measure on."""
        if self.scenes:
            return open_images("scenes:500"), open_images("scenes:200@7")
        folder = Path(os.environ["CIRCUITS_DATA"])
        files = sorted(file for name in ("imagenet-sample", "voc-sample") for file in (folder / name).rglob("*.jpg"))
        images = open_images([str(file) for file in files])
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()
        cut = len(files) // 10
        return images.subset(sorted(order[cut:])), images.subset(sorted(order[: min(cut, 60)]))

    @cached_property
    def shards(self) -> Shards:
        """All positions of the photographs."""
        return store(self.site, self.images[0], self.out / "activations", dtype="float16")

    @cached_property
    def vectors(self) -> Tensor:
        """`(images, positions, d)` to train on."""
        if self.scenes:
            acts = collect(self.site, self.images[0]).vectors
            return acts.view(len(self.images[0]), -1, self.site.d)
        halves = [self.shards.read(i)[0] for i in range(len(self.shards.shards))]
        return torch.cat(halves).view(len(self.images[0]), -1, self.site.d)

    @cached_property
    def tested(self) -> HeldOut:
        """The held-out images, without their classes: probes say nothing (docs/sae-metrics.md), and take longest."""
        judge = circuits.load("scenes") if self.scenes else self.model
        return replace(held_out(self.model, self.layer, self.images[1], judge=judge), labels=None)

    def sample(self, recipe: Recipe, seed: int) -> Tensor:
        """The vectors `(n, d)` of a recipe."""
        maps = self.vectors
        if recipe.images < 1:
            order = torch.randperm(len(maps), generator=torch.Generator().manual_seed(seed))
            maps = maps[order[: round(recipe.images * len(maps))]]
        if recipe.rule == "all":
            return maps.flatten(0, 1).float()
        side = math.isqrt(maps.shape[1])
        block = Block(maps.float().view(len(maps), side, side, -1), 0)
        each = Sampling(maps.shape[1] // 4, recipe.rule, seed=seed)  # type: ignore[arg-type]
        return each.pick(block)[0]

    def train(self, configs: Sequence[SAEConfig], recipe: Recipe, seed: int) -> list[sae.SAE]:
        """The SAEs of some configurations, all on the same batches."""
        configs = [
            replace(
                config, seed=seed, lr=recipe.lr * short_lr(config.latents),
                aux_coefficient=recipe.aux * config.aux_coefficient,
            )
            for config in configs
        ]  # fmt: skip
        settings = {
            "steps": round(recipe.steps * self.steps), "batch_size": round(recipe.batch * self.batch), "seed": seed,
            "decay": recipe.decay,
        }  # fmt: skip
        return [run.sae for run in sae.train(self.sample(recipe, seed), configs, **settings)]  # type: ignore[arg-type]

    def configs(self, names: Sequence[str], recipe: Recipe, penalties: dict[str, float]) -> list[SAEConfig]:
        """Configurations by the names of their architectures."""
        kinds = sae.list_architectures()
        latents, k = round(recipe.width * self.latents), round(recipe.k * self.k)
        made = []
        for name in names:
            kind = kinds[name].Config
            settings: dict[str, Any] = {"k": k} if "k" in kind.__dataclass_fields__ else {}
            if name in penalties:
                settings[kind.penalty_weight] = penalties[name]
            made.append(kind(latents=latents, name=name, **settings))
        return made

    @torch.no_grad()
    def active(self, model: Dictionary) -> float:
        """Active latents of a held-out position."""
        rows = self.tested.maps.flatten(0, 2)[::7]
        return float((model.encode(rows) > 0).sum(dim=1).double().mean())

    def penalty(self, name: str) -> float:
        """The penalty of an architecture with which about k latents are active, on a logarithmic scale."""
        kind = sae.list_architectures()[name].Config
        tried = PENALTIES[name]
        configs = [kind(latents=self.latents, name=f"{name}{p}", **{kind.penalty_weight: p}) for p in tried]
        points = [
            (math.log(max(self.active(model), 1e-3)), math.log(p))
            for model, p in zip(self.train(configs, Recipe(), PILOT), tried, strict=True)
        ]
        points.sort()
        wanted = math.log(self.k)
        below = max([i for i, (log_l0, _) in enumerate(points) if log_l0 <= wanted], default=0)
        (x0, y0), (x1, y1) = points[min(below, len(points) - 2)], points[min(below, len(points) - 2) + 1]
        return math.exp(y0 + (wanted - x0) * (y1 - y0) / (x1 - x0 or 1.0))


class Results:
    """The lines of the results' file, and the directions beside it."""

    def __init__(self, out: Path) -> None:
        self.file, self.folder = out / "dictionaries.jsonl", out / "directions"
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def has(self, **what: Any) -> bool:
        """Whether there is such a dictionary."""
        return any(all(row.get(key) == value for key, value in what.items()) for row in self.rows)

    def add(self, row: dict[str, Any], directions: Tensor) -> None:
        """Write one dictionary."""
        torch.save(directions.half(), self.path(row))
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)

    def path(self, row: dict[str, Any]) -> Path:
        """The file of its directions."""
        name = "-".join(str(row[key]) for key in ("layer", "architecture", "recipe", "seed"))
        return self.folder / (name.replace(" ", "_").replace("/", "_") + ".pt")

    def stability(self, rows: Sequence[dict[str, Any]]) -> float:
        """Mean matched cosine between the seeds of one dictionary."""
        some = [torch.load(self.path(row), weights_only=True).float() for row in rows]
        pairs = [matched_cosine(a, b) for i, a in enumerate(some) for b in some[:i]]
        return sum(pairs) / len(pairs) if pairs else math.nan


def measured(site: Site, dictionaries: dict[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """The metrics of some dictionaries of a site: of parts and concepts where its images have them."""
    tested = site.tested
    kept = tested.predictions(list(dictionaries.values()))
    for (name, model), predictions in zip(dictionaries.items(), kept, strict=True):
        if site.scenes:
            values = tested.measure(model)
        else:
            values = {"explained variance": 1 - tested.unexplained(model)}
        values["kept predictions"] = predictions["kept predictions"]
        yield name, {key: values.get(key, math.nan) for key in METRICS} | {"l0": site.active(model)}


def run(
    site: Site, results: Results, names: Sequence[str], recipe: Recipe, seed: int, penalties: dict[str, float]
) -> None:
    """Train and measure what is missing of one recipe."""
    what = {"layer": site.layer, "recipe": recipe.name, "seed": seed}
    missing = [name for name in names if not results.has(architecture=name, **what)]
    if not missing:
        return
    models = site.train(site.configs(missing, recipe, penalties), recipe, seed)
    for name, values in measured(site, dict(zip(missing, models, strict=True))):
        model = models[missing.index(name)]
        row = {**what, "architecture": name, "latents": model.latents, **values}
        results.add(row, model.write)
        print(json.dumps(row), flush=True)


def run_peers(site: Site, results: Results, seed: int) -> None:
    """Train and measure what is missing of the dictionaries of other libraries, at the same rate, steps and batches."""
    what = {"layer": site.layer, "recipe": "default", "seed": seed}
    acts = site.sample(Recipe(), seed)
    ours = sae.build(sae.Archetypal(latents=site.latents, k=site.k, seed=seed), site.site.d)
    for name in DICTIONARIES:
        if results.has(architecture=name, **what):
            continue
        shape = Shape(site.site.d, site.latents, site.k, site.batch, site.steps, short_lr(site.latents), seed=seed)
        if name == "overcomplete archetypal":  # the same centers as ours
            statistics = statistics_of(acts[:65536])
            ours.take_examples((acts[:: max(1, len(acts) // 20_000)] - statistics.mean) * statistics.scale)
        try:
            dictionary = trained(name, shape, acts, ours.points)  # type: ignore[arg-type]
        except ImportError as error:
            print(f"{name} is missing: {error}", file=sys.stderr)
            continue
        version = {"version": dictionary.peer.version}  # type: ignore[attr-defined]
        for _, values in measured(site, {name: dictionary}):
            row = {**what, "architecture": name, "latents": site.latents, **values}
            results.add(row | version, dictionary.write)
            print(json.dumps(row | version), flush=True)


def table(results: Results, select: Callable[[dict[str, Any]], bool]) -> None:
    """Means and ranges over seeds, a row for each layer, architecture and recipe."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in filter(select, results.rows):
        groups.setdefault((row["layer"], row["architecture"], row["recipe"]), []).append(row)
    columns = ("l0", *METRICS)
    print(f"| layer | architecture | recipe | seeds | {' | '.join(columns)} | stability |")
    print("|---|---|---|" + "--:|" * (len(columns) + 2))
    for key in sorted(groups):
        rows = groups[key]
        cells = []
        for column in columns:
            values = [row[column] for row in rows]
            half = (max(values) - min(values)) / 2
            cells.append(f"{statistics.mean(values):.4g} ± {half:.2g}" if values[0] == values[0] else "-")
        print(f"| {' | '.join(key)} | {len(rows)} | {' | '.join(cells)} | {results.stability(rows):.3f} |")


RECIPES = (
    Recipe(lr=0.3), Recipe(lr=3.0), Recipe(lr=6.0), Recipe(decay=0.6), Recipe(decay=1.0), Recipe(aux=8.0),
    Recipe(images=0.25), Recipe(rule="uniform"), Recipe(rule="magnitude"), Recipe(steps=3.0),
    Recipe(batch=0.5, steps=2.0), Recipe(width=0.5), Recipe(width=2.0), Recipe(k=0.5), Recipe(k=2.0),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=("architectures", "recipes", "peers"), default="architectures")
    parser.add_argument("--sites", nargs="+", default=["scenes"], help="scenes, or layers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--architectures", nargs="+", help="by default all, of recipes topk")
    parser.add_argument("--recipes", nargs="+", help="names of recipes, as tables have them")
    parser.add_argument("--table", action="store_true", help="print what was measured until now")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = Results(options.out)
    layers = [layer for name in options.sites for layer in (SCENES if name == "scenes" else (name,))]
    if options.table:
        table(results, lambda row: row["layer"] in layers)
        return
    torch.set_num_threads(1)
    for layer in layers:
        site = Site(layer, options.out)
        if options.part == "peers":
            for seed in options.seeds:
                run_peers(site, results, seed)
            continue
        recipes = [Recipe()]
        names = options.architectures or list(sae.list_architectures())
        if options.part == "recipes":
            names = options.architectures or ["topk"]
            recipes = [r for r in RECIPES if not options.recipes or r.name in options.recipes]
        missing = {n for n in names if any(not results.has(layer=layer, architecture=n, seed=s) for s in options.seeds)}
        penalties = {name: site.penalty(name) for name in names if name in PENALTIES and name in missing}
        for seed in options.seeds:
            for recipe in recipes:
                run(site, results, names, recipe, seed, penalties)


if __name__ == "__main__":
    main()
