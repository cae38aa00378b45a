"""`circuits sae train` and `circuits sae eval`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import Many, ModelOptions, PictureOptions, Result, Session, open_pictures, reporting
from apps.cli.console import clock, table
from apps.cli.errors import UsageError

if TYPE_CHECKING:
    from sae.base import SAEConfig
    from sae.evaluation import Evaluation
    from sae.metrics import Reconstruction
    from zoo.images import Images


@dataclass(frozen=True, kw_only=True)
class TrainSAE(PictureOptions):
    """Train a sparse autoencoder on the activations of a layer, or a sweep of them on one stream.

    --out is the folder of the SAE (SAELens reads it, too); of a sweep, each SAE has a folder in it. What is needed to
    go on after Ctrl-C or a crash lies beside it, in OUT.training, until the training is done: give the same command
    again. A share of the pictures is held out, and every figure is given for both.

    Example:
        circuits sae train scenes/mixed3b --images scenes:2000 --latents 384 --k 8 --out sae/parts
        circuits sae train googlenet-bvlc/mixed4c --images photos --latents 4096 --k 32 --out sae/mixed4c
        circuits sae train scenes/mixed3b --sweep k=4,8,16 seed=0,1 --out sae/sweep
    """

    keeps_out: ClassVar[bool] = True

    address: tyro.conf.Positional[str]
    """The layer, or a branch of it: model/layer."""
    architecture: str = "topk"
    """topk, batchtopk, matryoshka, jumprelu, relu or gated."""
    latents: int = 4096
    """Number of latents."""
    k: int | None = None
    """Active latents per position, of topk, batchtopk and matryoshka (32 by default)."""
    penalty: float | None = None
    """Weight of the sparsity penalty, of relu, gated and jumprelu."""
    sweep: tuple[str, ...] = ()
    """Settings to vary, every combination trained on the same stream: k=16,32 latents=2048,4096 seed=0,1."""
    steps: int = 1000
    """Training steps."""
    batch_size: int = 4096
    """Positions per step."""
    lr: float | None = None
    """Peak learning rate."""
    held_out: float = 0.1
    """Share of the pictures that is not trained on."""
    per_image: int | None = None
    """Positions drawn from each picture; all by default."""
    sampling: Literal["uniform", "magnitude"] = "uniform"
    """How they are drawn: all alike, or in proportion to the length of the activation vector."""
    margin: int = 0
    """Positions at the border of the map that are left out."""
    activations: Path | None = None
    """Keep the activations in this folder, and find them there the next time; by default only in memory."""
    memory: float = 2.0
    """Gigabytes of activations held at a time."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the products; weights are float32."""
    replace: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train again, whatever --out holds."""

    def run(self, session: Session) -> Result:
        """The SAEs, and how they reconstruct what they saw and what they did not."""
        self._check()
        out = self._out()
        from sae.activations import Sampling
        from sae.formats import save
        from sae.vision import VisionSite

        elapsed = clock()
        configs = self._configs()
        model, unit = self.address_of(self.address)
        site = VisionSite(model, unit.short)
        shown, kept = split(self.pictures(model.name), self.held_out, self.seed)
        sampling = Sampling(self.per_image, self.sampling, self.margin, self.seed)
        folder = out.with_name(out.name + ".training")
        if self.replace and folder.exists():
            shutil.rmtree(folder)
        stream = self._stream(site, shown, sampling, session)
        metadata = {**stream.metadata, "images": self._images(model.name)}
        from sae.training import train

        with session.progress(f"training on {site.address}") as report:
            runs = train(
                stream, configs, steps=self.steps, lr=self.lr, precision=self.precision, seed=self.seed,
                device=model.device, checkpoint=folder / "checkpoint.safetensors", checkpoint_every=200,
                log_file=folder / "reports.jsonl", metadata=metadata, **reporting(report),
            )  # fmt: skip
        seconds = elapsed()
        from sae.activations import collect
        from sae.metrics import reconstruction

        found: dict[str, dict[str, Reconstruction]] = {}
        vectors = {name: collect(site, some, sampling=_few(site, some, self.seed)).vectors
                   for name, some in (("training", shown), ("held out", kept)) if some is not None}  # fmt: skip
        for run in runs:
            found[run.name] = {name: reconstruction(run.sae, one, seed=self.seed) for name, one in vectors.items()}
            place = out if len(runs) == 1 else out / run.name
            save(place, run, density=found[run.name]["training"].density)
            shutil.copyfile(folder / "reports.jsonl", place / "reports.jsonl")
        shutil.rmtree(folder)
        document: dict[str, Any] = {
            "site": site.address,
            "d": site.d,
            "images": {"training": len(shown), "held_out": 0 if kept is None else len(kept)},
            "seconds": round(seconds, 2),
            "runs": [
                {
                    **run.describe(),
                    "folder": str(out if len(runs) == 1 else out / run.name),
                    "reconstruction": {name: one.describe() for name, one in found[run.name].items()},
                }
                for run in runs
            ],
        }

        def show(console: Console) -> None:
            for run in runs:
                console.print(Text.assemble((run.name, "bold"), f"  {run.status}, {run.samples:,} vectors"))
                console.print(_reconstructions(found[run.name]))
            console.print(Text(f"{seconds:.0f} s; {site.d} channels, {len(shown)} pictures", style="dim"))
            console.print(Text(f"next: circuits sae eval {out if len(runs) == 1 else out / runs[0].name}", style="dim"))

        return Result(document, show)

    def _check(self) -> None:
        for name in ("latents", "steps", "batch_size", "per_image", "k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} is at least 1, not {value}")
        if not 0 <= self.held_out < 1:
            raise UsageError(f"--held-out is a share from 0 to 1, not {self.held_out}")
        if self.memory <= 0:
            raise UsageError(f"--memory is in gigabytes, above 0, not {self.memory}")

    def _out(self) -> Path:
        if self.out is None:
            raise UsageError("sae train writes an SAE: say where with --out FOLDER")
        out = self.out.expanduser()
        if out.is_file():
            raise UsageError(f"--out {out} is a file; give a folder")
        if (out / "cfg.json").exists() and not self.replace:
            raise UsageError(f"--out {out} holds an SAE: give another folder, or train again with --replace")
        return out

    def _configs(self) -> list[SAEConfig]:
        from sae.base import architecture, config_from_dict
        from sae.sweeps import parse, sweep

        known = architecture(self.architecture).Config.__dataclass_fields__
        settings: dict[str, Any] = {"architecture": self.architecture, "latents": self.latents, "seed": self.seed}
        if self.k is not None or "k" in known:
            settings["k"] = min(self.k or 32, self.latents) if self.k is None else self.k
        if self.penalty is not None:
            settings["coefficient" if "coefficient" in known else "l1"] = self.penalty
        base = config_from_dict(settings)
        return sweep(base, **parse(self.sweep, base)) if self.sweep else [base]

    def _images(self, model: str) -> dict[str, Any]:
        """What `sae eval` needs to find the same pictures, and the same split of them."""
        pictures = self.pictures(model)
        return {
            "origin": pictures.origin, "digest": pictures.digest, "count": len(pictures), "held_out": self.held_out,
            "seed": self.seed,
        }  # fmt: skip

    def _stream(self, site: Any, shown: Images, sampling: Any, session: Session) -> Any:
        memory = int(self.memory * 2**30)
        if self.activations is None:
            return site.stream(shown, sampling=sampling, batch_size=self.batch_size, seed=self.seed, memory=memory)
        from sae.shards import store

        with session.progress(f"activations of {site.address}") as report:
            shards = store(site, shown, self.activations, sampling=sampling, **reporting(report))
        return shards.stream(self.batch_size, self.seed, memory=memory, device=site.model.device)


def split(pictures: Images, share: float, seed: int) -> tuple[Images, Images | None]:
    """Pictures to train on, and those held out, drawn by lot; in their order."""
    import numpy as np

    count = round(share * len(pictures))
    if not count:
        return pictures, None
    if count == len(pictures):
        raise UsageError(f"--held-out {share} leaves none of {len(pictures)} pictures to train on")
    order = np.random.default_rng(seed).permutation(len(pictures)).tolist()
    return pictures.subset(sorted(order[count:])), pictures.subset(sorted(order[:count]))


def _few(site: Any, pictures: Images, seed: int) -> Any:
    """Uniform positions, about 100,000 in all: enough for the figures that a training ends with."""
    from sae.activations import Sampling

    size = site.layer.size or (1, 1)
    each = max(1, 100_000 // len(pictures))
    return Sampling(seed=seed) if each >= size[0] * size[1] else Sampling(each, seed=seed)


def _reconstructions(found: dict[str, Reconstruction]) -> Any:
    rows = [
        [what, one.name, f"{one.fvu:.3f}", f"{one.l0:.1f}", f"{100 * one.dead:.1f} %", f"{one.shrinkage:.3f}"]
        for what, sae in found.items()
        for one in (sae, *sae.baselines.values())
    ]
    return table(["pictures", "dictionary", "FVU", "L0", "dead", "shrinkage"], rows, right="  rrrr")


@dataclass(frozen=True, kw_only=True)
class EvaluateSAE(ModelOptions):
    """What an SAE keeps: of the activations it reads, and of what the network predicts when its reconstruction takes
    their place everywhere. Beside it stand the network as it is, the layer's mean, zero, and the layer's own channels
    and random directions with as many active.

    By default on the pictures it was trained on and, apart from them, on those held out.

    Example:
        circuits sae eval sae/mixed4c
        circuits sae eval sae/mixed4c --images other-photos --out evaluation
    """

    folder: tyro.conf.Positional[Path]
    """Folder of the SAE."""
    address: str | None = None
    """Where it reads, model/layer, if its file does not say."""
    images: Many = ()
    """Pictures to evaluate on, instead of those it was trained with; may be repeated."""
    limit: int | None = None
    """At most so many pictures of a kind, drawn at random with --seed."""
    labels: Literal["auto", "order", "none"] = "auto"
    """The right classes: told by the pictures' names or manifest, in order (one picture per class), or unknown."""

    def run(self, session: Session) -> Result:
        """The figures, on each set of pictures."""
        from sae.evaluation import evaluate
        from sae.formats import load

        elapsed = clock()
        loaded = load(self.folder)
        site = self.site(loaded.metadata)
        loaded = loaded.to(site.model.device)
        found: dict[str, Evaluation] = {}
        for name, (pictures, labels) in self._sets(loaded.metadata, site.model).items():
            with session.progress(f"evaluating on {name} pictures") as report:
                found[name] = evaluate(loaded, site, pictures, labels=labels, seed=self.seed, **reporting(report))
        document = {
            "sae": str(self.folder), "site": site.address,
            "evaluations": {name: one.describe() for name, one in found.items()},
        }  # fmt: skip

        def show(console: Console) -> None:
            for name, one in found.items():
                _show_evaluation(console, name, one)
            console.print(Text(f"{elapsed():.0f} s", style="dim"))

        return Result(document, show)

    def site(self, metadata: dict[str, Any]) -> Any:
        """Where the SAE reads."""
        from sae.vision import VisionSite

        address = self.address
        if address is None:
            model, layer = (metadata.get(key) for key in ("model", "layer"))
            if not isinstance(model, str) or not isinstance(layer, str):
                raise UsageError(f"{self.folder} does not say where it reads: give --address MODEL/LAYER")
            address = f"{model}/{layer}"
        model, unit = self.address_of(address)
        return VisionSite(model, unit.short)

    def _sets(self, metadata: dict[str, Any], model: Any) -> dict[str, tuple[Images, list[int] | None]]:
        if self.images:
            return {"given": self._labelled(open_pictures(self.images, self.limit, self.seed), model)}
        pictures = trained_on(self.folder, metadata)
        known = metadata["images"]
        whole, labels = self._labelled(pictures, model)
        shown, kept = split(_with_labels(whole, labels), float(known["held_out"]), int(known["seed"]))
        sets = {"training": shown} | ({} if kept is None else {"held-out": kept})
        if self.limit is not None:
            from zoo.images import open_images

            sets = {name: open_images(some, limit=self.limit, seed=self.seed) for name, some in sets.items()}
        return {name: (some, some.labels) for name, some in sets.items()}

    def _labelled(self, pictures: Images, model: Any) -> tuple[Images, list[int] | None]:
        from zoo.classes import labels_by_name

        if self.labels == "none":
            return pictures, [-1] * len(pictures)
        if self.labels == "order":
            if len(pictures) != len(model.classes):
                counts = f"{len(pictures)} pictures, {len(model.classes)} classes"
                raise UsageError(f"--labels order takes one picture per class; {counts}")
            return pictures, list(range(len(pictures)))
        if pictures.labels is not None:
            return pictures, None if pictures.classes in (None, model.classes) else [-1] * len(pictures)
        return pictures, labels_by_name(pictures.ids, model.classes)


def _with_labels(pictures: Images, labels: list[int] | None) -> Images:
    import copy

    if labels is None:
        return pictures
    same = copy.copy(pictures)
    same.labels = labels
    return same


def trained_on(folder: Path, metadata: dict[str, Any]) -> Images:
    """The pictures that an SAE was trained with, opened again."""
    from zoo.images import reopen

    known = metadata.get("images")
    if not isinstance(known, dict) or known.get("origin") is None:
        raise UsageError(f"{folder} does not say which pictures it was trained on: give --images FOLDER")
    pictures = reopen(known["origin"])
    if pictures.digest != known.get("digest"):
        raise UsageError(
            f"{pictures.name} does not hold the pictures any more that {folder} was trained on: give --images FOLDER"
        )
    return pictures


def _show_evaluation(console: Console, name: str, one: Evaluation) -> None:
    found = one.reconstruction
    console.print(Text.assemble((f"{name} pictures", "bold"), f"  {one.inputs['count']}, {found.samples:,} positions"))
    console.print(_reconstructions({name: found}))
    rows = []
    for way, said in one.ways.items():
        kept = "" if way in ("clean", "mean", "zero") else f"{100 * one.recovered('top1', way):.1f} %"
        loss = "" if way in ("clean", "mean", "zero") else f"{100 * one.recovered('loss', way):.1f} %"
        rows.append([way, f"{said.top1:.3f}", f"{said.top5:.3f}", kept, f"{said.loss:.3f}", loss,
                     f"{said.agreement:.3f}", f"{said.kl:.3f}"])  # fmt: skip
    columns = ["activations", "top-1", "top-5", "of it kept", "loss", "of it kept", "same choice", "KL"]
    console.print(table(columns, rows, right=" rrrrrrr"))
    if one.branches:
        console.print(
            table(
                ["branch", "FVU", "channels"],
                [[b, f"{v['sae']:.3f}", f"{v.get('channels', float('nan')):.3f}"] for b, v in one.branches.items()],
                right=" rr",
            )
        )
    console.print(Text("kept: of what replacing the layer by its mean loses", style="dim"))
