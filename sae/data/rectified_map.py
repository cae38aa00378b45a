"""A transcoder that is solved, not trained: each channel of a block's output read by its best rectified linear map."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sae.architectures.base import SAE, SAEConfig, build
from sae.data.activations import about, fitting
from sae.data.vision_pair import PairStream, VisionPair
from sae.errors import SAEError
from sae.training.linear_map import fit_rectified_map
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import whole_number
from zoo.progress import Progress

SPARE = 0.01
"""Length of the encoder rows of further latents, of the mean length of the channels' rows."""


@outside_inference_mode
@torch.no_grad()
def rectified_map(
    pair: VisionPair,
    images: Any,
    config: SAEConfig,
    *,
    rounds: int = 2,
    vectors: int = 100_000,
    seed: int = 0,
    progress: Progress = None,
) -> SAE:
    """A transcoder whose first latents are the channels of the block's output, solved by least squares.

    A block ends in a ReLU. Latent c reads, from the window of the input, the linear map that is nearest to what the
    ReLU of channel c reads, and writes channel c: `y = relu(W x + b)`, of which the k largest stay. It costs
    a pass over the images, or `rounds + 2` where they do not fit into memory, and `tune_on_predictions` begins well
    there: a linear map cannot be zero where the block is.

    Args:
        pair: input and output of the block; the output is a ReLU of the model's graph.
        images: that it is fitted on.
        config: a transcoder's `TopK` or `ReLU`, of at least as many latents as the output has channels. The others
            start at random, with rows so short that they add next to nothing.
        rounds: of fitting again without the targets below zero, which no output shows; see `fit_rectified_map`.
        vectors: about how many positions it is fitted on, the same number of each image.
        seed: of the sampled positions.
        progress: True for a bar, or a function of (done, total) images.

    Raises:
        SAEError: another kind or architecture, too few latents, a branch, or a layer that is no ReLU.

    >>> start = rectified_map(pair, "scenes:500", sae.TopK(latents=512, k=64, kind="transcoder"))  # doctest: +SKIP
    >>> better = tune_on_predictions(start, pair, "scenes:500")  # doctest: +SKIP
    """
    whole_number("rounds", rounds, least=0, error=SAEError)
    whole_number("vectors", vectors, error=SAEError)
    whole_number("seed", seed, least=0, error=SAEError)
    channels = pair.target.d
    if config.architecture not in ("topk", "relu") or config.kind != "transcoder" or config.frozen is not None:
        raise SAEError("a rectified map is a TopK or ReLU of kind='transcoder': other architectures learn thresholds")
    if config.latents < channels:
        raise SAEError(
            f"a rectified map has a latent for each of the {channels} channels; got latents={config.latents}"
        )
    inputs = pair.open(images)
    before = VisionPair(pair.model, pair.source.layer.name, _before_relu(pair), patch=list(pair.window.size))
    sampling = fitting(before, inputs, vectors=vectors, seed=seed)
    stream = PairStream(before, inputs, sampling=sampling, progress=progress)
    only = stream.load(0, 0) if stream.windows == 1 else None  # all fit into memory: the network runs once

    def batches() -> Iterator[Tensor]:
        for window in range(stream.windows):
            rows = stream.load(0, window) if only is None else only
            # in the order of the images, so that those of a batch are judged as a whole
            size = max(1, min(ROWS, len(rows) // 10))
            for part in torch.split(torch.arange(len(rows)), size):
                yield rows[part]

    best = fit_rectified_map(batches, before.widths, rounds=rounds)
    squares, count, total = torch.zeros(2, dtype=torch.float64), 0, torch.zeros(channels, dtype=torch.float64)
    for batch in batches():
        x, y = batch[:, : before.widths[0]].cpu() - best.mean, batch[:, before.widths[0] :].cpu().relu().double()
        squares += torch.stack([x.square().sum(dtype=torch.float64), y.square().sum()])
        total, count = total + y.sum(dim=0), count + len(batch)
    squares[1] -= (total / count).square().sum() * count
    sae = build(config, *pair.widths)
    assert sae.target_scale is not None
    sae.mean.copy_(best.mean)
    sae.scale.copy_((squares[0] / count / pair.widths[0]).rsqrt())
    sae.target_scale.copy_((squares[1] / count / channels).rsqrt())
    rows = best.weight * (sae.target_scale / sae.scale)
    sae.encoder.mul_(SPARE * rows.norm(dim=1).mean())
    sae.encoder[:channels] = rows
    sae.encoder_bias[:channels] = best.target_mean * sae.target_scale
    sae.decoder[:channels] = torch.eye(channels)
    sae.requires_grad_(False).eval()
    sae.metadata = {
        **about(pair, inputs, sampling), "rectified_map": {"rounds": rounds, "penalty": best.penalty, "seed": seed}
    }  # fmt: skip
    return sae


ROWS = 4096


def _before_relu(pair: VisionPair) -> str:
    """The layer that the ReLU of a pair's target reads."""
    model, layer = pair.model, pair.target.layer
    if model.graph is None or layer.part is not None:
        raise SAEError(f"{pair.address}: a rectified map is of a whole layer of a network with a graph")
    node = model.node(layer.name)
    before = model.graph.before_relu(node)
    names = [name for name, at in model.layers.items() if at.part is None and model.graph.outputs.get(name) is before]
    if before is node or not names:
        raise SAEError(f"{pair.address}: {layer.name} is no ReLU of a layer; train a transcoder with sae.train")
    return names[0]
