"""Steering: change latents or channels while the network runs, and measure the effect.

The same edits serve the layers of a CNN and the residual stream of a transformer. `sae.steering.study` measures effect,
side effects and capability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.common.lazy import lazy_names

if TYPE_CHECKING:
    from sae.steering.active_latents import ActiveLatent as ActiveLatent, Inspection as Inspection, inspect as inspect
    from sae.steering.apply import EqualStep as EqualStep, steer as steer, steered as steered
    from sae.steering.bases import Channels as Channels
    from sae.steering.edits import LatentEdit as LatentEdit, Steering as Steering, When as When
    from sae.steering.latent_search import (
        LatentFinding as LatentFinding,
        LatentFindings as LatentFindings,
        Similar as Similar,
        chance_cosine as chance_cosine,
        search as search,
        search_label as search_label,
        similar as similar,
    )
    from sae.steering.max_activations import Maxima as Maxima, maxima as maxima
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
