"""Capturing one layer over photographs against the plain truncated forward pass on ready tensors.

The peer gets its images decoded in advance and runs only the modules up to the layer; ours decodes the
files, captures through hooks and stops at the layer. Both run chunk by chunk in turn.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from _timing import in_turn, report
from torch import Tensor

import circuits
from circuits.network.hooks import stream
from zoo.images.sources import open_images


def main() -> None:
    """Time both on the same photographs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", default=os.environ.get("CIRCUITS_DATA"), help="folder of photographs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--chunk", type=int, default=100, help="photographs per turn")
    options = parser.parse_args()
    if options.images is None:
        print("skipped: give --images FOLDER or set CIRCUITS_DATA")
        return
    inner = Path(options.images) / "imagenet-sample"
    images = open_images(inner if inner.is_dir() else options.images)
    model = circuits.load("googlenet-bvlc", weights="random", device=options.device)
    count = min(options.n, len(images))
    chunks = [range(i, min(i + options.chunk, count)) for i in range(0, count, options.chunk)]
    ready = images.tensor(model.input, list(chunks[0])).to(model.device)
    turn = iter(chunks + chunks[:1])

    @torch.no_grad()
    def truncated(x: Tensor) -> Tensor:
        net = model.module
        x = net.conv2d0_maxpool(net.conv2d0(net.conv2d0_pre(net.pad(x))))
        x = net.conv2d1(net.conv2d1_pre(net.lrn0(x)))
        x = net.conv2d2_maxpool(net.lrn1(net.conv2d2(net.conv2d2_pre(x))))
        for name in ("mixed3a", "mixed3b", "mixed4a", "mixed4b", "mixed4c"):
            x = net._pool(name, net._block(name, x))
        return x

    def plain() -> None:
        for batch in ready.split(32):
            truncated(model.input.normalize(batch))

    def ours() -> None:
        for _ in stream(model, images.subset(next(turn)), ["mixed4c"]):
            pass

    seconds = in_turn({"plain truncated forward": plain, "ours, decoding included": ours}, len(chunks))
    title = f"mixed4c on {options.chunk} photographs, median of {len(chunks)} chunks"
    report(title, seconds, "plain truncated forward")


if __name__ == "__main__":
    main()
