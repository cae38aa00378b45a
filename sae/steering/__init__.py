"""Steering: turn latents or channels up and down, and see what the rest of the network makes of it.

One vocabulary for the layers of a CNN and the stream of a transformer; how well it works is measured in
`sae.steering.study`.
"""

from __future__ import annotations

from sae.steering.active_latents import Firing, Inspection, inspect
from sae.steering.apply import steer, steered
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

__all__ = [
    "Channels",
    "Firing",
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
