"""Dictionary learning on activations: sparse autoencoders (SAEs), their training, metrics and files.

What is learnt satisfies the `Basis` protocol of `circuits`, so that a latent of an SAE is a unit like any
other::

    runs = sae.train(activations, [sae.TopK(latents=4096, k=32)], steps=2000)  # (n, d) vectors
    sae.save("mixed4c-topk", runs[0])
    model.attach("mixed4c", "topk", sae.load("mixed4c-topk"))                  # units mixed4c~topk:0, ...
"""

from __future__ import annotations

from sae import metrics, steering, superposition, sweeps
from sae.activations import Activations, Sampling, SiteStream, collect
from sae.base import SAE, Losses, SAEConfig, architectures, build, register
from sae.batchtopk import BatchTopK
from sae.errors import FormatError, SAEError, TrainingError
from sae.evaluation import Evaluation, evaluate
from sae.formats import load, save
from sae.gated import Gated
from sae.jumprelu import JumpReLU
from sae.language import LanguageSite, open_texts, read_texts
from sae.matryoshka import Matryoshka
from sae.relu import ReLU
from sae.reporting import Report, tensorboard, wandb
from sae.shards import Shards, open_shards, store
from sae.sites import Site
from sae.steering import LatentEdit, Steering, When, steer
from sae.streams import Dealt, Rebatched, Stream, TensorStream
from sae.superposition import geometry
from sae.sweeps import sweep
from sae.topk import TopK
from sae.training import Run, train
from sae.vision import VisionSite

__all__ = [
    "SAE",
    "Activations",
    "BatchTopK",
    "Dealt",
    "Evaluation",
    "FormatError",
    "Gated",
    "JumpReLU",
    "LanguageSite",
    "LatentEdit",
    "Losses",
    "Matryoshka",
    "ReLU",
    "Rebatched",
    "Report",
    "Run",
    "SAEConfig",
    "SAEError",
    "Sampling",
    "Shards",
    "Site",
    "SiteStream",
    "Steering",
    "Stream",
    "TensorStream",
    "TopK",
    "TrainingError",
    "VisionSite",
    "When",
    "architectures",
    "build",
    "collect",
    "evaluate",
    "geometry",
    "load",
    "metrics",
    "open_shards",
    "open_texts",
    "read_texts",
    "register",
    "save",
    "steer",
    "steering",
    "store",
    "superposition",
    "sweep",
    "sweeps",
    "tensorboard",
    "train",
    "wandb",
]
