"""Random units that stand in for edited ones: what the same edits do when they are of no particular unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sae.errors import SAEError
from sae.steering import LatentEdit, Maxima

RANDOM, SEED = 5, 0


def stand_ins(edits: Sequence[LatentEdit], known: Maxima) -> list[dict[int, int]]:
    """For each edited unit another one that fires, drawn by lot; `RANDOM` times, no unit twice where there are enough.

    Raises:
        SAEError: fewer other units fire than are edited.
    """
    own = sorted({one.latent for one in edits})
    taken = {latent for one in edits for latent in one.latents}
    live = [i for i in (known.values > 0).nonzero().flatten().tolist() if i not in taken]
    if len(live) < len(own):
        raise SAEError("too few other units fire here: there is nothing to compare with")
    drawn = np.random.default_rng(SEED)
    order = drawn.permutation(live).tolist()
    if len(order) >= RANDOM * len(own):
        return [dict(zip(own, order[i * len(own) :], strict=False)) for i in range(RANDOM)]
    return [dict(zip(own, drawn.permutation(live).tolist(), strict=False)) for _ in range(RANDOM)]
