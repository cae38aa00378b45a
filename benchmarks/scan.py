"""A scan over photographs against the plain forward pass on ready tensors, in turn.

The peer gets its images decoded in advance and runs the network alone, as far as the scan needs it. Ours decodes the
files, measures every unit of the layers (histograms, examples, samples) and writes the store. Once for one layer, once
for all of them.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import torch
from _timing import in_turn, report

import circuits
from circuits.dataset.scan_targets import sites_of
from circuits.network.hooks import visit
from zoo.images.sources import open_images

BATCH = 8


def main() -> None:
    """Time both on the same photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default=os.environ.get("CIRCUITS_DATA"), help="folder of photographs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.images is None:
        print("skipped: give --images FOLDER or set CIRCUITS_DATA")
        return
    inner = Path(options.images) / "imagenet-sample"
    images = open_images(inner if inner.is_dir() else options.images, limit=options.n)
    model = circuits.load("googlenet-bvlc", weights="random", device=options.device)
    ready = images.tensor(model.input).to(model.device)
    # work on a GPU shows in no CPU-seconds
    unit, clock = ("CPU-seconds", time.process_time) if options.device == "cpu" else ("seconds", time.perf_counter)
    for layers in (["mixed4c"], None):
        names = [site.read for site in sites_of(model, layers)]

        def plain(last: list[str] = names[-1:]) -> None:
            with torch.no_grad():
                for batch in ready.split(BATCH):
                    visit(model, batch, last, lambda name, acts: None)

        def ours(layers: list[str] | None = layers) -> None:
            with tempfile.TemporaryDirectory() as store:
                circuits.scan(model, images, store, layers=layers, batch_size=BATCH)

        seconds = in_turn({"plain forward": plain, "scan, decoding and writing included": ours}, options.rounds, clock)
        name = "all layers" if layers is None else layers[0]
        report(f"{name} on {len(images)} images, {unit}, median of {options.rounds}", seconds, "plain forward")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
