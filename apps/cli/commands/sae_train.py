"""`circuits sae train`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, Many, ModelOptions, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, show_next
from apps.cli.output.folder import Outputs
from apps.cli.registry import command
from apps.cli.sae_sites import BETWEEN, input_kind, inputs_for, reconstructions_table, sampled, site_at, split

if TYPE_CHECKING:
    from sae.architectures.base import SAEConfig
    from sae.data.activations import Sampling
    from sae.distributed import Ranks
    from sae.evaluation.metrics import Reconstruction
    from sae.training.settings import ResolvedSettings, TrainingSettings
    from sae.training.train import Run


_LOCK = ".lock"
_REPORTS = "reports.jsonl"
_ADVICE = "give another folder, or train again with --replace"
_NO_DIFFERENCE = ("metadata.card", "metadata.data.origin", "metadata.inputs.name", "metadata.hook_name", "config.name")
"""Where the same inputs and the same network lie now, and what other entries say as well."""
_OTHER = {
    "weights_digest": "other weights",
    "inputs.digest": "other images or texts",
    "inputs.count": "other images or texts",
    "data.digest": "other images or texts",
    "data.count": "other images or texts",
    "input_normalisation": "another input size or normalization",
}
"""How a difference in an entry of the metadata is said, where its value says nothing."""
_OURS = frozenset({"checkpoint.safetensors", _REPORTS, _LOCK})
"""What a training that was broken off leaves beside --out."""


@contextlib.contextmanager
def _checkpointed(folder: Path) -> Iterator[None]:
    """Ctrl-C says what is kept of a training."""
    try:
        yield
    except KeyboardInterrupt:
        if not (folder / "checkpoint.safetensors").exists():
            raise
        message = f"interrupted: the training is kept in {folder}, and the same command goes on"
        raise KeyboardInterrupt(message) from None


@command(group="Sparse autoencoders", order=10, summary="train sparse autoencoders on the activations of a layer")
@dataclass(frozen=True, kw_only=True)
class TrainSAE(ModelOptions):
    """Train a sparse autoencoder on the activations of a layer, or of a place in a language model; or a sweep of them
    on one stream.

    --out is the folder of the SAE (SAELens reads it, too); of a sweep, each SAE has a folder in it. What is needed to
    go on after Ctrl-C or a crash lies beside it, in OUT.training, until the training is done: give the same command
    again. Where --out holds the SAE of the same settings, it is not trained again; one of other settings is replaced
    only with --replace. A share of the images or texts is held out, and every figure is given for both. Under
    `torchrun` the processes share the images and train one SAE, which the first evaluates and writes.

    Example:
        circuits sae train scenes/mixed3b --images scenes:2000 --latents 384 --k 8 --out saes/parts
        circuits sae train googlenet-bvlc/mixed4c --images photos --latents 4096 --k 32 --out saes/mixed4c
        circuits sae train scenes/mixed3b --sweep k=4,8,16 seed=0,1 --out saes/sweep
        circuits sae train scenes/mixed3b..mixed4a --kind skip-transcoder --latents 384 --k 16 --out saes/block
        circuits sae train hf:stories260K/layers.2.resid --text stories.txt --latents 1024 --k 16 --out saes/stories
    """

    keeps_out: ClassVar[bool] = True

    def outputs(self) -> Outputs:
        """The SAE; of a sweep, each in a folder of its own."""
        names = ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors", "reports.jsonl")
        inner = "*/" if self.sweep else ""
        return Outputs(tuple(f"{inner}{name}" for name in names), overwrite=self.overwrite or self.replace)

    address: tyro.conf.Positional[str]
    """The layer, or a branch of it: model/layer. Of a language model tales/layers.2.resid, hf:PATH/layers.2.mlp, ...
    Of a transcoder two layers, model/mixed4b..mixed4c."""
    images: Many = ()
    """Images: a folder, an image, a manifest of `circuits images`, or scenes:500 (drawn on the fly).
    May be repeated. By default scenes:500 for the model `scenes`."""
    text: str | None = None
    """For a language model: a file of texts, <|endoftext|> between them, or tales:2000."""
    limit: int | None = None
    """At most so many images or texts, drawn at random with --seed."""
    architecture: str = "topk"
    """topk, batchtopk, matryoshka, matching_pursuit, archetypal, grouptopk, jumprelu, relu, gated, p_annealing, or any
    other that a package registers with `sae.register`."""
    kind: Literal["sae", "transcoder", "skip-transcoder"] = "sae"
    """What is learned: sae, transcoder, or skip-transcoder (with a linear map beside the latents)."""
    patch: int | None = None
    """Of a transcoder of a CNN: positions along each side of the window that it reads; by default all that count."""
    latents: int | None = None
    """Number of latents; by default eight a channel, at most 4096."""
    k: int | None = None
    """Active latents per position, where the architecture has that setting; by default one for 16 channels, from 4
    to 32."""
    penalty: float | None = None
    """Weight of the sparsity penalty, where the architecture has one: relu, gated, jumprelu, p_annealing."""
    sweep: tuple[str, ...] = ()
    """Settings to vary, every combination trained on the same stream: k=16,32 latents=2048,4096 seed=0,1."""
    steps: int | None = None
    """Training steps; by default 1,000, or fewer where there are few vectors, which more steps would learn by heart."""
    batch_size: int = 4096
    """Positions per step, of each process."""
    lr: float | None = None
    """Peak learning rate; by default 0.001 * sqrt(16384 / latents), five times what long trainings take."""
    held_out: float = 0.1
    """Share of the images or texts that is not trained on."""
    per_input: int | None = None
    """Positions drawn from each image, or tokens from each text; all by default."""
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
    """Train again, whatever SAE --out holds."""

    def run(self, session: Session) -> CommandResult:
        """The SAEs, and how they reconstruct what they saw and what they did not."""
        self._check()
        out = self._out()
        import torch

        from sae.distributed import Ranks

        with contextlib.ExitStack() as claims:
            ranks = claims.enter_context(Ranks())
            if torch.cuda.is_available():
                ranks.device(torch.device("cuda"))  # the network, too, runs on the device of this rank
            return self._train(session, claims, out, ranks)

    def _train(self, session: Session, claims: contextlib.ExitStack, out: Path, ranks: Ranks) -> CommandResult:
        from sae.data.activations import Sampling, about, positions_of
        from sae.data.site import widths_of
        from sae.formats import save
        from sae.formats.save_load import check_folder

        elapsed = clock()
        sampling = Sampling(self.per_input, self.sampling, self.margin, self.seed)
        if self.latents is not None:
            self._configs(self.latents)  # what is wrong with them is said before a network is loaded
        site = site_at(self, self.address, named_by_user=True, patch=self.patch)
        sources = self.images if self.text is None else (self.text,)
        inputs = inputs_for(str(site.metadata["model"]), sources, self.limit, self.seed)
        training, held_out = split(inputs.data, self.held_out, self.seed)
        d, available = (widths_of(site) or (site.d,))[-1], len(training) * positions_of(site, training)
        if self.per_input is not None:
            available = min(available, len(training) * self.per_input)
        configs, settings = self._configs(d), self._settings(available)
        if len(configs) == 1:
            check_folder(out)
        # the first rank alone writes there: the others begin once it has the folder, or end with its reason
        folder = out.with_name(out.name + ".training")
        ranks.agreed(lambda: claims.enter_context(self._claimed(out, folder)) if ranks.first else folder)
        data = {
            "origin": inputs.origin, "digest": inputs.data.digest, "count": len(inputs.data),
            "held_out": self.held_out, "seed": self.seed,
        }  # fmt: skip
        metadata = {**about(site, training, sampling), "data": data}
        if (card := getattr(site, "card", None)) is not None:
            metadata["card"] = card  # not among the stream's own metadata, by which shards are found again
        from sae.training.train import run_names, train

        folders = [out] if len(configs) == 1 else [out / name for name in run_names(configs)]
        finished = [] if self.replace else self._finished(folders, configs, settings, metadata, ranks.world)
        if (folder / _REPORTS).exists():  # what wrote them was killed before all of the SAE's files were there
            finished = []
        if finished:
            runs: Sequence[Run] = finished
        else:
            stream = self._stream(site, training, sampling, session, ranks)
            with session.progress(f"training on {site.address}") as report, _checkpointed(folder):
                runs = train(
                    stream, configs, settings=settings, checkpoint=folder / "checkpoint.safetensors",
                    checkpoint_every=200, log_file=folder / _REPORTS, metadata=metadata, **reporting(report),
                )  # fmt: skip
        if not ranks.first:
            raise SystemExit  # the first one evaluates, saves and prints
        seconds = elapsed()
        from sae.data.activations import collect
        from sae.evaluation.metrics import reconstruction
        from zoo.common.files import write_atomically

        widths = widths_of(site)
        reconstructions: dict[str, dict[str, Reconstruction]] = {}
        sets = {"training": training, **({} if held_out is None else {"held out": held_out})}
        vectors = {n: collect(site, some, sampling=sampled(site, some, self.seed)).vectors for n, some in sets.items()}
        for run, run_folder in zip(runs, folders, strict=True):
            reconstructions[run.name] = {
                name: reconstruction(run.sae, split_vectors, seed=self.seed, widths=widths)
                for name, split_vectors in vectors.items()
            }
            if not finished:
                save(run_folder, run, density=reconstructions[run.name]["training"].density)
                write_atomically(run_folder / _REPORTS, partial(shutil.copyfile, folder / _REPORTS))
        (folder / _REPORTS).unlink(missing_ok=True)  # first: by them a training is known that has not come to here
        shutil.rmtree(folder)
        document: dict[str, Any] = {
            "site": site.address,
            "d": site.d,
            "inputs": {"training": len(training), "held_out": 0 if held_out is None else len(held_out)},
            "recipe": self._recipe(configs[0], settings, d, available),
            "seconds": round(seconds, 2),
            "made": not finished,
            "runs": [
                {
                    **run.describe(),
                    "folder": str(run_folder),
                    "reconstruction": {
                        name: split_vectors.describe() for name, split_vectors in reconstructions[run.name].items()
                    },
                }
                for run, run_folder in zip(runs, folders, strict=True)
            ],
        }

        def show(console: Console) -> None:
            for run in runs:
                console.print(Text.assemble((run.name, "bold"), f"  {run.status}, {run.samples:,} vectors"))
                console.print(reconstructions_table(reconstructions[run.name]))
            if document["recipe"]:
                console.print(Text(document["recipe"], style="dim"))
            time = "was there already" if finished else f"{seconds:.0f} s"
            width = f"{site.d}" if widths is None else f"{widths[0]} to {widths[1]}"
            console.print(Text(f"{time}; {width} channels, {len(training)} {input_kind(site)}", style="dim"))
            show_next(console, self.follow_up("sae", "eval", folders[0]))

        return CommandResult(document, show)

    def _recipe(self, config: SAEConfig, settings: TrainingSettings, d: int, vectors: int) -> str:
        """What was chosen for this layer and these vectors, and why; what was asked for is not named."""
        from sae.training.schedule import MOST_STEPS

        swept = {text.partition("=")[0].strip() for text in self.sweep}
        chosen = {
            "latents": f"{config.latents} latents, eight a channel up to 4096",
            "k": f"k={getattr(config, 'k', None)}, one for 16 of {d} channels, from 4 to 32",
            "steps": f"{settings.steps} steps for about {vectors:,} vectors: more would learn them by heart",
        }
        if (settings.steps or 0) >= MOST_STEPS:
            chosen["steps"] = f"{settings.steps} steps, which about {vectors:,} vectors are enough for"
        return "; ".join(
            reason for name, reason in chosen.items()
            if getattr(self, name) is None and name not in swept and (name != "k" or hasattr(config, "k"))
        )  # fmt: skip

    def _check(self) -> None:
        self.check_least("latents", "steps", "batch_size", "per_input", "k", "patch")
        if (self.kind != "sae") != (BETWEEN in self.address):
            raise UsageError(
                f"{self.address} is a pair of layers: say --kind transcoder or skip-transcoder"
                if self.kind == "sae"
                else f"--kind {self.kind} takes two layers, model/mixed4b..mixed4c, not {self.address}"
            )
        first, _, second = self.address.rpartition("/")[2].partition(BETWEEN)
        if self.kind == "skip-transcoder" and first == second:
            raise UsageError(f"{first} is a linear map of itself, and the skip would be all: say --kind transcoder")
        if self.patch is not None and self.kind == "sae":
            raise UsageError("--patch is of a transcoder, which reads a window of a layer")
        if not 0 <= self.held_out < 1:
            raise UsageError(f"--held-out is a share from 0 to 1, not {self.held_out}")
        if self.memory <= 0:
            raise UsageError(f"--memory is in gigabytes, above 0, not {self.memory}")

    def _out(self) -> Path:
        if self.out is None:
            raise UsageError("sae train writes an SAE: say where with --out FOLDER")
        out = self.out
        if out.is_file():
            raise UsageError(f"--out {out} is a file; give a folder")
        if self.sweep and (out / "cfg.json").exists() and not self.replace:
            raise UsageError(f"--out {out} holds an SAE, not a sweep: {_ADVICE}")
        return out

    def _settings(self, vectors: int) -> TrainingSettings:
        from sae.training.schedule import short_steps
        from sae.training.settings import TrainingSettings

        return TrainingSettings(
            steps=self.steps or short_steps(vectors),
            lr=self.lr,
            precision=self.precision,
            seed=self.seed,
            batch_size=self.batch_size,
        )  # fmt: skip

    def _finished(
        self, folders: Sequence[Path], configs: Sequence[SAEConfig], settings: TrainingSettings,
        metadata: Mapping[str, Any], processes: int,
    ) -> list[Run]:  # fmt: skip
        """The runs of an earlier training with the same settings; none where not all of its SAEs are there.

        Raises:
            UsageError: an SAE there was trained with other settings, or does not say how.
        """
        from sae.errors import FormatError
        from sae.formats.save_load import load_run

        runs = []
        for folder, config in zip(folders, configs, strict=True):
            if not (folder / "cfg.json").exists():
                continue
            try:
                run = load_run(folder)
            except FormatError as error:
                raise UsageError(f"{error}: {_ADVICE}") from error
            if other := self._differences(run, config, settings.resolved(self.batch_size * processes), metadata):
                raise UsageError(f"--out {folder} holds an SAE trained with {', '.join(other[:4])}: {_ADVICE}")
            runs.append(run)
        return runs if len(runs) == len(folders) else []

    def _differences(
        self, run: Run, config: SAEConfig, resolved: ResolvedSettings, metadata: Mapping[str, Any]
    ) -> list[str]:
        """In what a run differs from the one that was asked for."""
        from sae.training.settings import flattened
        from zoo.errors import shorten

        settings = resolved.stored(())
        del settings["configs"]
        wanted = flattened({"config": config.to_dict(), "settings": settings, "metadata": metadata})
        former = flattened(
            {"config": run.config.to_dict(), "settings": run.provenance.get("settings"), "metadata": run.sae.metadata}
        )
        differences = []
        for name, value in wanted.items():
            if name.startswith(_NO_DIFFERENCE) or former.get(name) == value:
                continue
            words = [word for word in name.split(".")[1:] if not word.isdecimal()]
            difference = _OTHER.get(
                ".".join(words), f"{words[-1]}={shorten(former.get(name), 30)} instead of {shorten(value, 30)}"
            )
            differences.append(difference)
        return list(dict.fromkeys(differences))

    @contextlib.contextmanager
    def _claimed(self, out: Path, folder: Path) -> Iterator[Path]:
        """The folder in which the training keeps its checkpoint and its reports, while nobody else writes there."""
        from filelock import FileLock, Timeout

        from zoo.common.files import tidy
        from zoo.errors import shorten

        tidy(folder)
        others = sorted({p.name for p in folder.iterdir()} - _OURS) if folder.is_dir() else []
        if others or folder.is_file():
            raise UsageError(
                f"{folder} is where this training would keep its checkpoint, and it "
                f"{f'has {shorten(others[0])} in it' if others else 'is a file'}: give another --out"
            )
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / _LOCK, timeout=0):
                self._out()  # what held the lock may have finished since we looked
                if self.replace:
                    for name in _OURS - {_LOCK}:
                        (folder / name).unlink(missing_ok=True)
                yield folder
                if folder.is_dir() and {p.name for p in folder.iterdir()} <= {_LOCK}:
                    shutil.rmtree(folder)
        except Timeout as error:
            raise UsageError(f"another training is writing {out}; wait for it, or give another --out") from error

    def _configs(self, d: int) -> list[SAEConfig]:
        """The configurations asked for at `d` channels; `--sweep architecture=topk,gated` takes the others for each."""
        rest = [text for text in self.sweep if text.partition("=")[0].strip() != "architecture"]
        listed = [text.partition("=")[2] for text in self.sweep if text not in rest]
        if len(listed) > 1:
            raise UsageError("architecture is swept twice: write its values in one list, architecture=topk,gated")
        names = [name.strip() for name in listed[0].split(",")] if listed else [self.architecture]
        if len(set(names)) < len(names):
            raise UsageError(f"--sweep architecture={listed[0]} names one twice")
        return [config for name in names for config in self._configs_of(name, rest, d)]

    def _configs_of(self, architecture: str, swept: Sequence[str], d: int) -> list[SAEConfig]:
        from sae.architectures.base import ARCHITECTURES, config_from_dict
        from sae.training.schedule import short_lr, short_size
        from sae.training.sweeps import parse, sweep

        kind, (latents, k) = ARCHITECTURES[architecture].Config, short_size(d)
        settings: dict[str, Any] = {
            "architecture": architecture, "latents": self.latents or latents, "seed": self.seed, "kind": self.kind,
        }  # fmt: skip
        if self.k is not None or "k" in kind.__dataclass_fields__:
            settings["k"] = min(k, settings["latents"]) if self.k is None else self.k
        if self.penalty is not None:
            if not kind.penalty_weight:
                raise UsageError(f"--penalty: {architecture} has no sparsity penalty")
            settings[kind.penalty_weight] = self.penalty
        base = config_from_dict(settings)
        configs = sweep(base, **parse(swept, base)) if swept else [base]
        return [c if c.lr or self.lr else replace(c, lr=short_lr(c.latents)) for c in configs]

    def _stream(self, site: Any, training: Any, sampling: Sampling, session: Session, ranks: Ranks) -> Any:
        memory = int(self.memory * 2**30)
        folder = self.activations
        if folder is None:
            return site.stream(training, sampling=sampling, batch_size=self.batch_size, seed=self.seed, memory=memory)
        from sae.data.disk_shards import store

        with session.progress(f"activations of {site.address}") as report:
            shards = ranks.agreed(
                lambda: store(site, training, folder, sampling=sampling, **reporting(report)) if ranks.first else None
            ) or store(site, training, folder, sampling=sampling)
        return shards.stream(self.batch_size, self.seed, memory=memory)
