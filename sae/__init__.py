"""Dictionary learning on activations: sparse autoencoders (SAEs), their training, metrics and files.

What is learned satisfies the `Basis` protocol of `circuits`, so that a latent of an SAE is a unit like any
other::

    runs = sae.train(activations, [sae.TopK(latents=4096, k=32)], steps=2000)  # (n, d) vectors
    sae.save("mixed4c-topk", runs[0])
    model.attach("mixed4c", "topk", sae.load("mixed4c-topk"))                  # units mixed4c~topk:0, ...
"""

from typing import TYPE_CHECKING

from sae.errors import FormatError as FormatError, SAEError as SAEError, TrainingError as TrainingError
from zoo.common.drawings import drawn_by
from zoo.common.lazy import lazy_names

if TYPE_CHECKING:
    from sae import steering as steering, superposition as superposition
    from sae.architectures.archetypal import Archetypal as Archetypal
    from sae.architectures.base import (
        SAE as SAE,
        SAEConfig as SAEConfig,
        build as build,
        list_architectures as list_architectures,
        register as register,
    )
    from sae.architectures.batchtopk import BatchTopK as BatchTopK
    from sae.architectures.gated import Gated as Gated
    from sae.architectures.grouptopk import GroupTopK as GroupTopK
    from sae.architectures.jumprelu import JumpReLU as JumpReLU
    from sae.architectures.matching_pursuit import MatchingPursuit as MatchingPursuit
    from sae.architectures.matryoshka import Matryoshka as Matryoshka
    from sae.architectures.p_annealing import PAnnealing as PAnnealing
    from sae.architectures.relu import ReLU as ReLU
    from sae.architectures.topk import TopK as TopK
    from sae.data.activations import (
        Activations as Activations,
        Sampling as Sampling,
        SiteStream as SiteStream,
        collect as collect,
    )
    from sae.data.disk_shards import Shards as Shards, open_shards as open_shards, store as store
    from sae.data.rectified_map import rectified_map as rectified_map
    from sae.data.site import Site as Site
    from sae.data.sources import Sources as Sources
    from sae.data.streams import RankShare as RankShare, Stream as Stream, TensorStream as TensorStream
    from sae.data.vision_pair import VisionPair as VisionPair
    from sae.data.vision_site import VisionSite as VisionSite
    from sae.evaluation import metrics as metrics
    from sae.evaluation.diffing.diff import diff as diff
    from sae.evaluation.diffing.results import ModelDiff as ModelDiff
    from sae.evaluation.diffing.settings import DiffSettings as DiffSettings
    from sae.evaluation.evaluate import Evaluation as Evaluation, evaluate as evaluate
    from sae.evaluation.sweep_table import summary as summary
    from sae.evaluation.trust.metric_table import MetricTable as MetricTable, metric_table as metric_table
    from sae.formats import load as load, save as save
    from sae.language import (
        LanguagePair as LanguagePair,
        LanguageSite as LanguageSite,
        open_texts as open_texts,
        read_texts as read_texts,
    )
    from sae.steering import LatentEdit as LatentEdit, Steering as Steering, When as When, steer as steer
    from sae.superposition.geometry import geometry as geometry
    from sae.training import sweeps as sweeps
    from sae.training.predictions import tune_on_predictions as tune_on_predictions
    from sae.training.reporting import Report as Report, tensorboard as tensorboard, wandb as wandb
    from sae.training.settings import TrainingSettings as TrainingSettings
    from sae.training.sweeps import sweep as sweep
    from sae.training.train import Run as Run, Runs as Runs, train as train
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)

drawn_by("sae.evaluation.result_figures")
