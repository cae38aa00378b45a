"""`circuits sae train` and `circuits sae eval`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import Many, ModelOptions, Result, Session, reporting
from apps.cli.console import clock, table
from apps.cli.errors import UsageError
from apps.cli.sites import drawn, inputs_for, sampled, site_at, split, trained_on

if TYPE_CHECKING:
    from sae.activations import Sampling
    from sae.base import SAEConfig
    from sae.evaluation import Evaluation
    from sae.metrics import Reconstruction
    from sae.sites import Site
    from zoo.images import Images


@dataclass(frozen=True, kw_only=True)
class TrainSAE(ModelOptions):
    """Train a sparse autoencoder on the activations of a layer, or of a place in a language model; or a sweep of them
    on one stream.

    --out is the folder of the SAE (SAELens reads it, too); of a sweep, each SAE has a folder in it. What is needed to
    go on after Ctrl-C or a crash lies beside it, in OUT.training, until the training is done: give the same command
    again. A share of the pictures or texts is held out, and every figure is given for both.

    Example:
        circuits sae train scenes/mixed3b --images scenes:2000 --latents 384 --k 8 --out saes/parts
        circuits sae train googlenet-bvlc/mixed4c --images photos --latents 4096 --k 32 --out saes/mixed4c
        circuits sae train scenes/mixed3b --sweep k=4,8,16 seed=0,1 --out saes/sweep
        circuits sae train hf:stories260K/layers.2.resid --text stories.txt --latents 1024 --k 16 --out saes/stories
    """

    keeps_out: ClassVar[bool] = True

    address: tyro.conf.Positional[str]
    """The layer, or a branch of it: model/layer. Of a language model tales/layers.2.resid, hf:PATH/layers.2.mlp, ..."""
    images: Many = ()
    """Pictures: a folder, a picture, a manifest of `circuits images`, or scenes:500 (drawn on the fly).
    May be repeated. By default scenes:500 for the model `scenes`."""
    text: str | None = None
    """For a language model: a file of texts, <|endoftext|> between them, or tales:2000."""
    limit: int | None = None
    """At most so many pictures or texts, drawn at random with --seed."""
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
    """Peak learning rate; by default 0.001 * sqrt(16384 / latents), five times what long trainings take."""
    held_out: float = 0.1
    """Share of the pictures or texts that is not trained on."""
    per_input: int | None = None
    """Positions drawn from each picture, or tokens from each text; all by default."""
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

        elapsed = clock()
        configs = self._configs()
        sampling = Sampling(self.per_input, self.sampling, self.margin, self.seed)
        site = site_at(self, self.address)
        given = self.images if self.text is None else (self.text,)
        inputs = inputs_for(str(site.metadata["model"]), given, self.limit, self.seed)
        shown, kept = split(inputs.data, self.held_out, self.seed)
        folder = out.with_name(out.name + ".training")
        if self.replace and folder.exists():
            shutil.rmtree(folder)
        stream = self._stream(site, shown, sampling, session)
        data = {
            "origin": inputs.origin, "digest": inputs.data.digest, "count": len(inputs.data),
            "held_out": self.held_out, "seed": self.seed,
        }  # fmt: skip
        metadata = {**stream.metadata, "data": data}
        from sae.training import train

        with session.progress(f"training on {site.address}") as report:
            runs = train(
                stream, configs, steps=self.steps, lr=self.lr, precision=self.precision, seed=self.seed,
                checkpoint=folder / "checkpoint.safetensors", checkpoint_every=200,
                log_file=folder / "reports.jsonl", metadata=metadata, **reporting(report),
            )  # fmt: skip
        seconds = elapsed()
        from sae.activations import collect
        from sae.metrics import reconstruction

        found: dict[str, dict[str, Reconstruction]] = {}
        sets = {"training": shown, **({} if kept is None else {"held out": kept})}
        vectors = {n: collect(site, some, sampling=sampled(site, some, self.seed)).vectors for n, some in sets.items()}
        for run in runs:
            found[run.name] = {name: reconstruction(run.sae, one, seed=self.seed) for name, one in vectors.items()}
            place = out if len(runs) == 1 else out / run.name
            save(place, run, density=found[run.name]["training"].density)
            shutil.copyfile(folder / "reports.jsonl", place / "reports.jsonl")
        shutil.rmtree(folder)
        document: dict[str, Any] = {
            "site": site.address,
            "d": site.d,
            "inputs": {"training": len(shown), "held_out": 0 if kept is None else len(kept)},
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
            console.print(Text(f"{seconds:.0f} s; {site.d} channels, {len(shown)} {_what(site)}", style="dim"))
            console.print(Text(f"next: circuits sae eval {out if len(runs) == 1 else out / runs[0].name}", style="dim"))

        return Result(document, show)

    def _check(self) -> None:
        for name in ("latents", "steps", "batch_size", "per_input", "k"):
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
        configs = sweep(base, **parse(self.sweep, base)) if self.sweep else [base]
        # a training of minutes sees each vector a few times, and is over long before a small rate has got anywhere
        return [c if c.lr or self.lr else replace(c, lr=1e-3 * (2**14 / c.latents) ** 0.5) for c in configs]

    def _stream(self, site: Any, shown: Any, sampling: Sampling, session: Session) -> Any:
        memory = int(self.memory * 2**30)
        if self.activations is None:
            return site.stream(shown, sampling=sampling, batch_size=self.batch_size, seed=self.seed, memory=memory)
        from sae.shards import store

        with session.progress(f"activations of {site.address}") as report:
            shards = store(site, shown, self.activations, sampling=sampling, **reporting(report))
        return shards.stream(self.batch_size, self.seed, memory=memory)


def _reconstructions(found: dict[str, Reconstruction]) -> Any:
    rows = [
        [what, one.name, f"{one.fvu:.3f}", f"{one.l0:.1f}", f"{100 * one.dead:.1f} %", f"{one.shrinkage:.3f}"]
        for what, sae in found.items()
        for one in (sae, *sae.baselines.values())
    ]
    return table(["on", "dictionary", "FVU", "L0", "dead", "shrinkage"], rows, right="  rrrr")


@dataclass(frozen=True, kw_only=True)
class EvaluateSAE(ModelOptions):
    """What an SAE keeps: of the activations it reads, and of what the network predicts when its reconstruction takes
    their place everywhere. Beside it stand the network as it is, the layer's mean, zero, and the layer's own channels
    and random directions with as many active.

    By default on the pictures or texts it was trained on and, apart from them, on those held out.

    Example:
        circuits sae eval saes/mixed4c
        circuits sae eval saes/mixed4c --images other-photos --out evaluation
    """

    folder: tyro.conf.Positional[Path]
    """Folder of the SAE."""
    address: str | None = None
    """Where it reads, model/layer, if its file does not say."""
    images: Many = ()
    """Pictures to evaluate on, instead of those it was trained with; may be repeated."""
    text: str | None = None
    """A file of texts to evaluate a language model's SAE on, instead of those it was trained with."""
    limit: int | None = None
    """At most so many of a kind, drawn at random with --seed."""
    labels: Literal["auto", "order", "none"] = "auto"
    """The right classes: told by the pictures' names or manifest, in order (one picture per class), or unknown."""

    def run(self, session: Session) -> Result:
        """The figures, on each set of pictures."""
        from sae.evaluation import evaluate
        from sae.formats import load

        elapsed = clock()
        loaded = load(self.folder)
        site = site_at(self, self._address(loaded.metadata))
        found: dict[str, Evaluation] = {}
        for name, (inputs, labels) in self._sets(loaded.metadata, site).items():
            with session.progress(f"evaluating on {name} {_what(site)}") as report:
                found[name] = evaluate(loaded, site, inputs, labels=labels, seed=self.seed, **reporting(report))
        document = {
            "sae": str(self.folder), "site": site.address,
            "evaluations": {name: one.describe() for name, one in found.items()},
        }  # fmt: skip

        def show(console: Console) -> None:
            for name, one in found.items():
                _show_evaluation(console, f"{name} {_what(site)}", one)
            console.print(Text(f"{elapsed():.0f} s", style="dim"))

        return Result(document, show)

    def _address(self, metadata: dict[str, Any]) -> str:
        """Where the SAE reads."""
        if self.address is not None:
            return self.address
        model, layer = (metadata.get(key) for key in ("model", "layer"))
        if not isinstance(model, str) or not isinstance(layer, str):
            raise UsageError(f"{self.folder} does not say where it reads: give --address MODEL/LAYER")
        return f"{model}/{layer}"

    def _sets(self, metadata: dict[str, Any], site: Site) -> dict[str, tuple[Any, list[int] | None]]:
        """What to evaluate on, by name, with the right classes of pictures."""
        given = self.images if self.text is None else (self.text,)
        if given:
            data = inputs_for(str(site.metadata["model"]), given, self.limit, self.seed).data
            return {"given": (data, self._labels(data, site))}
        known = metadata.get("data", {})
        data = trained_on(self.folder, metadata).data
        labels = self._labels(data, site)
        if labels is not None:
            data = _with_labels(data, labels)
        shown, kept = split(data, float(known["held_out"]), int(known["seed"]))
        sets = {"training": shown} | ({} if kept is None else {"held-out": kept})
        if self.limit is not None:
            few = {n: drawn(len(some), min(len(some), self.limit), self.seed) for n, some in sets.items()}
            sets = {n: some.subset(few[n]) for n, some in sets.items()}
        return {name: (some, None if labels is None else some.labels) for name, some in sets.items()}

    def _labels(self, data: Any, site: Site) -> list[int] | None:
        """The right class of each picture, -1 where unknown; None for texts, which have their own."""
        from zoo.classes import labels_by_name

        model = getattr(site, "model", None)
        if model is None:
            return None
        if self.labels == "none":
            return [-1] * len(data)
        if self.labels == "order":
            if len(data) != len(model.classes):
                counts = f"{len(data)} pictures, {len(model.classes)} classes"
                raise UsageError(f"--labels order takes one picture per class; {counts}")
            return list(range(len(data)))
        if data.labels is not None:
            fitting = data.classes is None or list(data.classes) == list(model.classes)
            return list(data.labels) if fitting else [-1] * len(data)
        return labels_by_name(data.ids, model.classes) or [-1] * len(data)


def _what(site: Site) -> str:
    return "pictures" if site.axes[0] == "image" else "texts"


def _with_labels(pictures: Images, labels: list[int]) -> Images:
    import copy

    same = copy.copy(pictures)
    same.labels = labels
    return same


def _show_evaluation(console: Console, name: str, one: Evaluation) -> None:
    found = one.reconstruction
    console.print(Text.assemble((name, "bold"), f"  {one.inputs['count']}, {found.samples:,} positions"))
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
