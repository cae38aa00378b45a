"""Responses of units to stimuli: `circuits.tune`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from circuits.common.provenance import provenance
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.stimuli.base import Stimuli, gray
from circuits.tuning.curves import Tuning
from circuits.tuning.placement import Pair, Reader, digests, units_of, view_of
from zoo.common.checks import whole_number
from zoo.progress import Progress, reporter


def tune(
    model: Model,
    what: str | Unit | Sequence[str | Unit],
    *,
    stimuli: Stimuli,
    pre: bool = False,
    reach: int | None = 1,
    size: int | Pair | None = None,
    batch_size: int = 32,
    progress: Progress = None,
) -> Tuning:
    """Responses of units to stimuli whose every property is known.

    Each stimulus is centered on the receptive field of one position of the layer, and units are read there; `reach`
    also reads the positions around it and takes the maximum, since a unit's preferred stimulus need not lie in the
    very center of its field.

    After Cammarata et al., *Curve Detectors*, Distill 2020, and Schubert et al., *High-Low Frequency Detectors*, 2021.

    Args:
        model: the model.
        what: a layer (all of its units), a unit, a latent of an attached basis, or several of one layer.
        stimuli: from `circuits.stimuli`.
        pre: read pre-activations, in which inhibition is visible too.
        reach: positions around that one; 0 for it alone, None for the whole map.
        size: pixels of the stimuli; by default what the receptive field needs, at most the model's input.
        batch_size: images per forward pass, which stops at the layer.
        progress: True for a bar, or a function of (done, total).

    Raises:
        AddressError: unknown units, units of several layers, or of a position of their own.
        CircuitsError: pre-activations that cannot be reached, or a size too small.
        StimuliError: colors for a model without three channels.

    >>> tune(load("scenes"), "mixed3b:4", stimuli=stimuli.lines(orientations=6)).responses.shape
    torch.Size([1, 6, 1, 2])
    """
    model.check_images("tuning")
    if not isinstance(stimuli, Stimuli):
        raise CircuitsError(f"stimuli= takes Stimuli of circuits.stimuli, not a {type(stimuli).__name__}")
    whole_number("batch_size", batch_size)
    layer, units = units_of(model, what)
    view = view_of(model, layer, reach, size)
    reader = Reader(model, layer, units, view, pre=pre)
    background = torch.from_numpy(gray(view.spec)).float()[None, :, None, None].expand(1, *view.spec.shape)
    parts, total = [], len(stimuli)
    with reporter(progress, "img") as report:
        for start in range(0, total, batch_size):
            indices = range(start, min(start + batch_size, total))
            parts.append(reader(stimuli.tensor(view.spec, indices=indices, center=view.center)))
            report(indices.stop, total)
    return Tuning(
        units=tuple(str(u) for u in units),
        axes=stimuli.axes,
        responses=torch.cat(parts).T.reshape(len(units), *stimuli.shape).contiguous(),
        baseline=reader(background)[0],
        layer=layer.name,
        stimuli=stimuli.name,
        pre=pre,
        reach=reach,
        size=view.spec.hw,
        provenance=provenance(**digests(model, stimuli=stimuli.digest, settings=dict(stimuli.settings))),
    )
