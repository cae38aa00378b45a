"""Dictionary learning on activations: sparse autoencoders (SAEs), their training, metrics and files.

What is learned satisfies the `Basis` protocol of `circuits`, so that a latent of an SAE is a unit like any
other::

    runs = sae.train(activations, [sae.TopK(latents=4096, k=32)], steps=2000)  # (n, d) vectors
    sae.save("mixed4c-topk", runs[0])
    model.attach("mixed4c", "topk", sae.load("mixed4c-topk"))                  # units mixed4c~topk:0, ...
"""

from typing import TYPE_CHECKING

from sae.errors import FormatError, SAEError, TrainingError
from zoo.common.drawings import drawn_by
from zoo.common.lazy import lazy_names

if TYPE_CHECKING:
    from sae import steering, superposition
    from sae.architectures.base import SAE, SAEConfig, build, list_architectures, register
    from sae.architectures.batchtopk import BatchTopK
    from sae.architectures.gated import Gated
    from sae.architectures.jumprelu import JumpReLU
    from sae.architectures.matryoshka import Matryoshka
    from sae.architectures.relu import ReLU
    from sae.architectures.topk import TopK
    from sae.data.activations import Activations, Sampling, SiteStream, collect
    from sae.data.disk_shards import Shards, open_shards, store
    from sae.data.site import Site
    from sae.data.streams import RankShare, Stream, TensorStream
    from sae.data.vision_site import VisionSite
    from sae.evaluation import metrics
    from sae.evaluation.evaluate import Evaluation, evaluate
    from sae.evaluation.sweep_table import summary
    from sae.evaluation.trust.metric_table import MetricTable, metric_table
    from sae.formats import load, save
    from sae.language import LanguageSite, open_texts, read_texts
    from sae.steering import LatentEdit, Steering, When, steer
    from sae.superposition.geometry import geometry
    from sae.training import sweeps
    from sae.training.reporting import Report, tensorboard, wandb
    from sae.training.settings import TrainingSettings
    from sae.training.sweeps import sweep
    from sae.training.train import Run, Runs, train
else:
    __getattr__, __dir__ = lazy_names(__name__)

drawn_by("sae.evaluation.result_figures")

__all__ = [
    "SAE",
    "Activations",
    "BatchTopK",
    "RankShare",
    "Evaluation",
    "FormatError",
    "Gated",
    "JumpReLU",
    "LanguageSite",
    "LatentEdit",
    "Matryoshka",
    "MetricTable",
    "ReLU",
    "Report",
    "Run",
    "Runs",
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
    "TrainingSettings",
    "VisionSite",
    "When",
    "build",
    "collect",
    "evaluate",
    "geometry",
    "list_architectures",
    "load",
    "metric_table",
    "metrics",
    "open_shards",
    "open_texts",
    "read_texts",
    "register",
    "save",
    "steer",
    "steering",
    "store",
    "summary",
    "superposition",
    "sweep",
    "sweeps",
    "tensorboard",
    "train",
    "wandb",
]
