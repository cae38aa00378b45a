"""How cost grows: training steps with the latents, scans with the images and with the layers.

    python benchmarks/scale.py                    # all curves
    python benchmarks/scale.py --only latents     # one of them
    python benchmarks/scale.py --quick            # tiny sizes: whether it runs

CPU-seconds of all threads, which a busy machine changes least; run it with OMP_NUM_THREADS=1. The tables
of docs/scale.md come from here.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # a script beside this one has the name of a package
sys.path.append(str(HERE))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from _tables import header, row  # noqa: E402

import circuits  # noqa: E402
import sae  # noqa: E402
from circuits.dataset.scan_targets import sites_of  # noqa: E402
from sae.training.input_normalization import statistics_of  # noqa: E402
from sae.training.sae_trainer import SAETrainer  # noqa: E402
from sae.training.settings import TrainingSettings  # noqa: E402
from zoo.images.sources import open_images  # noqa: E402

LATENTS = tuple(2**n for n in range(10, 17))
CHANNELS, ACTIVE, BATCH = 512, 32, 1024


def cpu(work: Callable[[], object]) -> float:
    """CPU-seconds of some work in this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def latents(counts: tuple[int, ...], steps: int) -> None:
    """A step of a TopK SAE and what it holds in memory, from its tensors."""
    x = torch.randn(BATCH, CHANNELS, generator=torch.Generator().manual_seed(0))
    print(f"\nA step of {BATCH} vectors of {CHANNELS} channels, k = {ACTIVE}, median of {steps}; CPU-seconds\n")
    header("latents", "a step", "per 1,000 latents", "weights and Adam, MB", "bytes a weight")
    for m in counts:
        settings = TrainingSettings(steps=10**6, warmup=0, decay=0.0, lr=1e-3, dead_after=10**12).resolved(BATCH)
        trainer = SAETrainer(sae.TopK(latents=m, k=ACTIVE), "sae", statistics_of(x), settings, torch.device("cpu"))
        trainer.learn(x)
        seconds = float(np.median([cpu(lambda t=trainer: t.learn(x)) for _ in range(steps)]))  # type: ignore[misc]
        moments = [v for state in trainer.optimizer.state.values() for v in state.values() if v.numel() > 1]
        weights = list(trainer.sae.parameters())
        held = sum(t.numel() * t.element_size() for t in (*weights, *moments))
        each = held / sum(w.numel() for w in weights)
        row(f"{m:,}", f"{seconds:.3f}", f"{1000 * seconds / m:.4f}", f"{held / 1e6:.0f}", f"{each:.1f}")


def scan_cost(model: circuits.Model, images: circuits.Images, layers: list[str] | None) -> tuple[float, float, float]:
    """CPU-seconds of a scan, and the megabytes of its store and of memory at most so far."""
    with tempfile.TemporaryDirectory() as store:
        seconds = cpu(lambda: circuits.scan(model, images, store, layers=layers))
        size = sum(f.stat().st_size for f in Path(store).rglob("*") if f.is_file()) / 1e6
    return seconds, size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def images(folder: str, counts: tuple[int, ...]) -> None:
    """A scan of all layers of GoogLeNet, and the line through the counts measured."""
    model = _googlenet()
    _warm(model, folder)
    print("\nA scan of all layers of GoogLeNet; CPU-seconds\n")
    header("images", "scan", "an image", "store, MB", "most memory so far, MB")
    measured = []
    for n in counts:
        seconds, size, peak = scan_cost(model, open_images(folder, limit=n), None)
        measured.append(seconds)
        row(n, f"{seconds:.1f}", f"{seconds / n:.4f}", f"{size:.0f}", f"{peak:.0f}")
    slope, fixed = np.polyfit(counts, measured, 1)
    print(f"\nA line through these: {fixed:.2f} s and {slope:.4f} s an image.")
    for n in (10_000, 1_281_167):
        print(f"Extrapolated to {n:,} images: {(fixed + slope * n) / 3600:.2f} CPU-hours.")


def layers(folder: str, n: int, counts: tuple[int, ...]) -> None:
    """Scans of more and more layers of GoogLeNet; the last of them is always the deepest."""
    model = _googlenet()
    _warm(model, folder)
    names = [site.name for site in sites_of(model, None)]
    data = open_images(folder, limit=n)
    print(f"\nA scan of {n} images by the number of layers, the deepest always among them; CPU-seconds\n")
    header("layers", "units", "scan", "store, MB")
    for count in counts:
        chosen = names[len(names) - min(count, len(names)) :]
        seconds, size, _ = scan_cost(model, data, chosen)
        row(len(chosen), sum(site.units for site in sites_of(model, chosen)), f"{seconds:.1f}", f"{size:.0f}")


def _googlenet() -> circuits.Model:
    return circuits.load("googlenet-bvlc", weights="random", device="cpu")


def _warm(model: circuits.Model, folder: str) -> None:
    scan_cost(model, open_images(folder, limit=8), None)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("latents", "images", "layers"))
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    data = os.environ.get("CIRCUITS_DATA")
    photographs = Path(data or "") / "imagenet-sample"
    parser.add_argument("--images", default=str(photographs if data and photographs.is_dir() else data or "scenes:200"))
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    quick, folder = options.quick, options.images
    curves: dict[str, Callable[[], None]] = {
        "latents": lambda: latents(LATENTS[:2] if quick else LATENTS, 2 if quick else 5),
        "images": lambda: images(folder, (2, 4) if quick else (25, 50, 100, 200)),
        "layers": lambda: layers(folder, 2 if quick else 32, (1, 3) if quick else (1, 4, 8, 16, 31)),
    }  # fmt: skip
    for name, curve in curves.items():
        if options.only in (None, name):
            curve()


if __name__ == "__main__":
    main()
