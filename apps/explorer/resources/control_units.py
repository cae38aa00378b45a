"""Control of steering: steps as long, along the directions of random units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sae.errors import SAEError
from sae.steering import LatentEdit, Maxima

RANDOM, SEED = 5, 0


def random_units(edits: Sequence[LatentEdit], peaks: Maxima) -> list[dict[int, int]]:
    """For each edited unit another active one, sampled at random; `RANDOM` times, without repetition if possible.

    Raises:
        SAEError: fewer other units are active than are edited.
    """
    own = sorted({edit.latent for edit in edits})
    excluded = {latent for edit in edits for latent in edit.latents}
    live = [i for i in (peaks.values > 0).nonzero().flatten().tolist() if i not in excluded]
    if len(live) < len(own):
        raise SAEError("too few other units are active here for a control")
    generator = np.random.default_rng(SEED)
    order = generator.permutation(live).tolist()
    if len(order) >= RANDOM * len(own):
        return [dict(zip(own, order[i * len(own) :], strict=False)) for i in range(RANDOM)]
    return [dict(zip(own, generator.permutation(live).tolist(), strict=False)) for _ in range(RANDOM)]
