"""Dictionary learning on activations: sparse autoencoders (SAEs), their training, metrics and files.

What is learnt satisfies the `Basis` protocol of `circuits`, so that a latent of an SAE is a unit like any
other::

    runs = sae.train(activations, [sae.TopK(latents=4096, k=32)], steps=2000)  # (n, d) vectors
    sae.save("mixed4c-topk", runs[0])
    model.attach("mixed4c", "topk", sae.load("mixed4c-topk"))                  # units mixed4c~topk:0, ...
"""

from __future__ import annotations

from sae import metrics, superposition
from sae.base import SAE, Losses, SAEConfig, architectures, build, register
from sae.batchtopk import BatchTopK
from sae.errors import FormatError, SAEError, TrainingError
from sae.formats import load, save
from sae.gated import Gated
from sae.jumprelu import JumpReLU
from sae.matryoshka import Matryoshka
from sae.relu import ReLU
from sae.reporting import Report, tensorboard, wandb
from sae.streams import Rebatched, Stream, TensorStream
from sae.superposition import geometry
from sae.topk import TopK
from sae.training import Run, train

__all__ = [
    "SAE",
    "BatchTopK",
    "FormatError",
    "Gated",
    "JumpReLU",
    "Losses",
    "Matryoshka",
    "ReLU",
    "Rebatched",
    "Report",
    "Run",
    "SAEConfig",
    "SAEError",
    "Stream",
    "TensorStream",
    "TopK",
    "TrainingError",
    "architectures",
    "build",
    "geometry",
    "load",
    "metrics",
    "register",
    "save",
    "superposition",
    "tensorboard",
    "train",
    "wandb",
]
