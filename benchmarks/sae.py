"""TopK training steps: ours, the SAE libraries', and plain dense PyTorch, on the same vectors in turn.

    python benchmarks/sae.py                        # 196,000 vectors of GoogLeNet mixed4c, one and two threads
    python benchmarks/sae.py --paths                # dense against sparse by m / k: what the rule on the CPU rests on
    python benchmarks/sae.py --architectures        # steps of every architecture beside TopK's
    python benchmarks/sae.py --transcoders          # a transcoder's step beside an SAE's of the same sizes
    python benchmarks/sae.py --device cuda          # larger shapes on a GPU, against what its memory and units allow

The vectors are all positions of `mixed4c` on the photographs in `$CIRCUITS_DATA/imagenet-sample`; a tenth of the
photographs is held out. Every contender takes its steps in turn with the others, so that a busy machine slows all
alike, and speeds are medians over the steps after the first five. A library that is not installed is said to be.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # this script has the name of the package that it times
sys.path.append(str(HERE))

import torch  # noqa: E402
from _sae_peers import Contender, Ours, PlainDense, Shape, peers  # noqa: E402
from torch import Tensor  # noqa: E402

import circuits  # noqa: E402
import sae  # noqa: E402
from sae.architectures import kernels  # noqa: E402
from sae.architectures.base import Kind, SAEConfig  # noqa: E402
from sae.data.streams import TensorStream  # noqa: E402
from sae.training.input_normalization import statistics_of  # noqa: E402
from sae.training.sae_trainer import SAETrainer  # noqa: E402
from sae.training.schedule import default_lr  # noqa: E402
from sae.training.settings import Precision, TrainingSettings  # noqa: E402
from zoo.images.sources import open_images  # noqa: E402

WARMUP = 5
GPU_SHAPES = ((512, 8192, 32, 32768), (768, 32768, 32, 16384), (2304, 65536, 32, 8192))
MATRIX, MEMORY = 790e12, 4.8e12
"""What an H200 does per second: bfloat16 operations (measured), bytes of memory (its data sheet)."""


def vectors(file: Path | None, photographs: Path) -> Tensor:
    """All positions `(photographs, positions, 512)` of mixed4c, from a file if there is one; else it is made."""
    from safetensors.torch import load_file, save_file

    if file is not None and file.exists():
        return load_file(file)["acts"]
    model = circuits.load("googlenet-bvlc")
    parts = []
    for batch in open_images(photographs).tensor(model.input).split(20):
        acts = circuits.capture(model, batch, at=["mixed4c"])["mixed4c"]
        parts.append(acts.movedim(1, -1).flatten(1, 2).clone())
    acts = torch.cat(parts)
    if file is not None:
        save_file({"acts": acts.contiguous()}, file)
    return acts


def table(*rows: str) -> None:
    """Print rows of cells parted by `;`, the first of them the heads; numbers go to the right."""
    cells = [[cell.strip() for cell in row.split(";")] for row in rows]
    right = [i and all(c[i][:1].isdigit() or not c[i] for c in cells[1:]) for i in range(len(cells[0]))]
    for i, row in enumerate(cells):
        print(f"| {' | '.join(row)} |")
        if not i:
            print(f"|{'|'.join('--:' if r else '---' for r in right)}|")


class Clock:
    """Seconds and CPU seconds of every step."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def __call__(self, work: Callable[[], object]) -> None:
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self._wait()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    @property
    def seconds(self) -> tuple[float, float]:
        """Median wall and CPU seconds, the first steps left out."""
        skip = min(WARMUP, len(self.wall) - 1)
        return statistics.median(self.wall[skip:]), statistics.median(self.cpu[skip:])


@torch.no_grad()
def quality(contender: Contender, train: Tensor, held_out: Tensor) -> tuple[float, float, float]:
    """FVU and L0 on held-out vectors, and the share of latents that fire on no vector trained on."""
    error = active = 0.0
    for x in held_out.split(4096):
        out, on = contender.look(x)
        error += float((x - out).double().square().sum())
        active += float(on.sum())
    fired = torch.stack([contender.look(x)[1].any(dim=0) for x in train.split(4096)]).any(dim=0)
    variance = float((held_out - held_out.mean(dim=0)).double().square().sum())
    return error / variance, active / len(held_out), 1 - float(fired.double().mean())


def compare(acts: Tensor, shape: Shape, threads: int, speed: bool) -> None:
    """Train all in turn and print a table; of speed alone, if asked."""
    torch.set_num_threads(threads)
    order = torch.randperm(len(acts), generator=torch.Generator().manual_seed(0))
    raw, raw_held_out = (
        acts[indices].flatten(0, 1) for indices in (order[len(acts) // 10 :], order[: len(acts) // 10])
    )
    normalization = statistics_of(raw[:65536])
    train, held_out = (((x - normalization.mean) * normalization.scale) for x in (raw, raw_held_out))
    ours = Ours(shape, raw)
    others, missing = peers(shape)
    contenders: list[Contender] = [ours, PlainDense(shape), *others]
    clocks = {c.name: Clock("cpu") for c in contenders}
    product, weight = Clock("cpu"), torch.randn(shape.m, shape.d)
    stream = TensorStream(train, shape.batch, seed=0)
    for step in range(shape.steps):
        x = next(stream)
        for contender in contenders:
            clocks[contender.name](lambda c=contender, x=x: c.step(x))  # type: ignore[misc]
        product(lambda x=x: torch.mm(x, weight.T))  # type: ignore[misc]
        if sys.stderr.isatty():
            print(f"\rstep {step + 1} of {shape.steps}", end="", file=sys.stderr)
    wall, cpu = product.seconds
    rows = {}
    for contender in contenders:
        measured = (math.nan,) * 3 if speed else quality(contender, train, held_out)
        rows[contender.name] = (*clocks[contender.name].seconds, *measured)
    ours.close()
    lr = f"{shape.lr:.1e}"
    print(f"\nd={shape.d}, m={shape.m}, k={shape.k}, batch {shape.batch}, {shape.steps} steps, {len(raw):,} vectors,")
    print(f"{len(held_out):,} held out; {threads} thread(s), torch {torch.__version__}, load {os.getloadavg()[0]:.1f}.")
    print(f"Adam at {lr} with the same schedule wherever Adam is used.\n")
    own, own_cpu = rows[ours.name][:2]
    lines = []
    for c in contenders:
        w, u, fvu, l0, dead = rows[c.name]
        speeds = f"{shape.batch / w:,.0f}; {shape.batch / u:,.0f}; {w / own:.2f}; {u / own_cpu:.2f}"
        lines.append(f"{c.name}; {c.version}; {c.optimizer}; {speeds}; {fvu:.4f}; {l0:.1f}; {dead:.1%}")
    speeds = f"{shape.batch / wall:,.0f}; {shape.batch / cpu:,.0f}; {wall / own:.2f}; {cpu / own_cpu:.2f}"
    lines.append(f"the encoder's product alone; ; ; {speeds}; ; ; ")
    table("; version; optimizer; vectors/s; vectors/CPU-s; ours is x faster; by CPU; FVU; L0; dead", *lines)
    print(f"\nOf a step of ours the encoder's product is {wall / own:.0%} (of its CPU seconds {cpu / own_cpu:.0%}).")
    for line in missing:
        print(line)


def trainer_of(
    shape: Shape, precision: Precision = "float32", kind: Kind = "sae", config: SAEConfig | None = None
) -> tuple[SAETrainer, Tensor]:
    """An SAE (TopK by default) or a transcoder in training, and a batch of noise."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(shape.batch, shape.d, generator=g)
    settings = TrainingSettings(
        steps=10**6, warmup=0, decay=0.0, lr=shape.lr, dead_after=10**12, precision=precision
    ).resolved(shape.batch)
    device = torch.device(shape.device)
    statistics = statistics_of(x)
    if kind != "sae":
        statistics = replace(statistics, target=statistics)
    config = config or sae.TopK(latents=shape.m, k=shape.k, kind=kind)
    return SAETrainer(config, "sae", statistics, settings, device), x.to(device)


def transcoders(threads: int, rounds: int) -> None:
    """Steps of SAEs and transcoders of the same sizes, in turn."""
    torch.set_num_threads(threads)
    print(f"CPU seconds per step, batch 2048, {threads} thread(s), median of {rounds}\n")
    kinds: tuple[Kind, ...] = ("sae", "transcoder", "skip-transcoder")
    lines = []
    for d, m, k in ((512, 2048, 64), (512, 4096, 32)):
        clocks = {kind: Clock("cpu") for kind in kinds}
        trainers = {kind: trainer_of(Shape(d, m, k, 2048, rounds, 1e-3), kind=kind) for kind in kinds}
        target = torch.randn(2048, d, generator=torch.Generator().manual_seed(1))
        for _ in range(rounds + WARMUP):
            for kind, (trainer, x) in trainers.items():
                y = None if kind == "sae" else target
                clocks[kind](lambda trainer=trainer, x=x, y=y: trainer.learn(x, target=y))  # type: ignore[misc]
        own = {kind: clock.seconds[1] for kind, clock in clocks.items()}
        ratios = "; ".join(f"{own[kind] / own['sae']:.2f}" for kind in kinds[1:])
        lines.append(
            f"{d}; {m}; {k}; {own['sae']:.4f}; {own['transcoder']:.4f}; {own['skip-transcoder']:.4f}; {ratios}"
        )
    table("d; m; k; SAE; transcoder; with skip; transcoder / SAE; with skip / SAE", *lines)


def architectures(threads: int, rounds: int) -> None:
    """Steps of every architecture of the same sizes, in turn."""
    torch.set_num_threads(threads)
    print(f"CPU seconds per step, batch 2048, {threads} thread(s), median of {rounds}, load {os.getloadavg()[0]:.1f}\n")
    kinds = sae.list_architectures()
    lines = []
    for d, m, k in ((512, 2048, 32), (512, 4096, 32)):
        configs = {
            name: kind.Config(latents=m, **({"k": k} if "k" in kind.Config.__dataclass_fields__ else {}))
            for name, kind in kinds.items()
        }
        clocks = {name: Clock("cpu") for name in kinds}
        trainers = {n: trainer_of(Shape(d, m, k, 2048, rounds, 1e-3), config=c) for n, c in configs.items()}
        for _ in range(rounds + WARMUP):
            for name, (trainer, x) in trainers.items():
                clocks[name](lambda trainer=trainer, x=x: trainer.learn(x))  # type: ignore[misc]
        own = {name: clock.seconds[1] for name, clock in clocks.items()}
        lines += [f"{name}; {d}; {m}; {k}; {own[name]:.4f}; {own[name] / own['topk']:.2f}" for name in kinds]
    table("architecture; d; m; k; CPU seconds; of TopK's", *lines)


def paths(threads: int, rounds: int) -> None:
    """Steps by both CPU paths for rising m / k, in turn."""
    torch.set_num_threads(threads)
    print(f"CPU seconds per step, batch 2048, {threads} thread(s), median of {rounds}\n")
    lines = []
    for d in (64, 256, 512):
        for m, k in ((64, 32), (96, 32), (128, 32), (256, 32), (512, 32), (1024, 32), (4096, 32), (1024, 4)):
            shape = Shape(d, m, k, 2048, rounds, 1e-3)
            clocks = {name: Clock("cpu") for name in ("dense", "bags")}
            trainers = {name: trainer_of(shape) for name in clocks}
            for _ in range(rounds + WARMUP):
                for name, (trainer, x) in trainers.items():
                    with kernels.using(name):
                        clocks[name](lambda trainer=trainer, x=x: trainer.learn(x))  # type: ignore[misc]
            dense, sparse = (clocks[name].seconds[1] for name in ("dense", "bags"))
            rule = kernels.choose(d, m, k).path
            lines.append(f"{d}; {m}; {k}; {m / k:g}; {dense:.4f}; {sparse:.4f}; {dense / sparse:.2f}; {rule}")
    table("d; m; k; m / k; dense; sparse; dense / sparse; rule", *lines)


def ceiling(d: int, m: int, k: int, batch: int) -> float:
    """Seconds a step takes at least: the product, Adam's 28 bytes per parameter, m pre-activations, 5 k-row passes."""
    product, adam = 2 * d * m * batch / MATRIX, 28 * 2 * d * m / MEMORY
    return product + adam + (4 * m + 5 * k * d * 2) * batch / MEMORY


def by_shape(device: str, steps: int, shapes: Sequence[tuple[int, ...]]) -> None:
    """Steps on a GPU for each shape, by each path; on a CPU to see that they run."""
    on_gpu = device != "cpu"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("no GPU here: torch.cuda.is_available() is False")
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    print(f"{name}, torch {torch.__version__}, bfloat16 products, {steps} steps.")
    print(f"Ceiling: {MATRIX / 1e12:.0f} TFLOP/s and {MEMORY / 1e12:.1f} TB/s, those of an H200.\n")
    lines = []
    for d, m, k, batch in shapes:
        shape = Shape(d, m, k, batch, steps, default_lr(m), device)
        for path in ("triton", "dense") if on_gpu or os.environ.get("TRITON_INTERPRET") else ("bags", "dense"):
            if on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            clock = Clock(device)
            with kernels.using(path):
                trainer, x = trainer_of(shape, "bfloat16")
                for _ in range(WARMUP):
                    trainer.learn(x)
                clock(lambda trainer=trainer, x=x: [trainer.learn(x) for _ in range(steps)])  # type: ignore[misc]
            seconds = clock.wall[0] / steps
            peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
            share = ceiling(d, m, k, batch) / seconds
            speed = f"{batch / seconds:,.0f}; {seconds * 1e3:.2f}; {share:.0%}; {peak:.1f}"
            lines.append(f"{d}; {m}; {k}; {batch}; {path}; {speed}")
            del trainer, x
    table("d; m; k; batch; path; vectors/s; ms/step; of the ceiling; peak GiB", *lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default=os.environ.get("CIRCUITS_DATA"), help="folder of photographs")
    parser.add_argument("--vectors", type=Path, help="safetensors file to keep the vectors in between runs")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--lr", type=float, default=4e-3, help="of all that use Adam; short runs want a high one")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--shapes", type=lambda s: tuple(map(int, s.split(","))), nargs="+", metavar="D,M,K,BATCH",
        help="shapes to time by each path, on --device",
    )  # fmt: skip
    parser.add_argument("--speed", action="store_true", help="leave out how well they reconstruct")
    parser.add_argument("--architectures", action="store_true", help="every architecture against TopK instead")
    parser.add_argument("--transcoders", action="store_true", help="SAEs against transcoders instead")
    parser.add_argument("--paths", action="store_true", help="dense against sparse on the CPU instead")
    options = parser.parse_args()
    if options.device != "cpu" or options.shapes:
        by_shape(options.device, options.steps, options.shapes or GPU_SHAPES)
        return
    if options.architectures:
        architectures(options.threads[0], 8 if options.steps == 120 else options.steps)
        return
    if options.transcoders:
        transcoders(options.threads[0], 20 if options.steps == 120 else options.steps)
        return
    if options.paths:
        paths(options.threads[0], 20 if options.steps == 120 else options.steps)
        return
    if options.images is None and not (options.vectors and options.vectors.exists()):
        print("skipped: give --images FOLDER or set CIRCUITS_DATA")
        return
    folder = Path(options.images or ".")
    inner = folder / "imagenet-sample"
    acts = vectors(options.vectors, inner if inner.is_dir() else folder)
    shape = Shape(acts.shape[2], options.latents, options.k, options.batch, options.steps, options.lr)
    for threads in options.threads:
        compare(acts, shape, threads, options.speed)


if __name__ == "__main__":
    main()
