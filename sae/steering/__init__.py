"""Steering: change latents or channels while the network runs, and measure the effect.

The same edits serve the layers of a CNN and the residual stream of a transformer. `sae.steering.study` measures effect,
side effects and capability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.common.lazy import lazy_names

if TYPE_CHECKING:
    from sae.steering.active_latents import ActiveLatent, Inspection, inspect
    from sae.steering.apply import EqualStep, steer, steered
    from sae.steering.bases import Channels
    from sae.steering.edits import LatentEdit, Steering, When
    from sae.steering.latent_search import (
        LatentFinding,
        LatentFindings,
        Similar,
        chance_cosine,
        search,
        search_label,
        similar,
    )
    from sae.steering.max_activations import Maxima, maxima
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "ActiveLatent",
    "Channels",
    "EqualStep",
    "Inspection",
    "LatentEdit",
    "LatentFinding",
    "LatentFindings",
    "Maxima",
    "Similar",
    "Steering",
    "When",
    "chance_cosine",
    "inspect",
    "maxima",
    "search",
    "search_label",
    "similar",
    "steer",
    "steered",
]
