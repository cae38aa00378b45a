"""Where an SAE meets a network: one protocol for a layer of a CNN and for a stream of a transformer.

The core sees vectors `(N, d)`; a site turns what a network does into such vectors and back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from sae.architectures.base import SAE
from sae.errors import SAEError, shorten
from zoo.progress import Progress

Function: TypeAlias = Callable[[Tensor], Tensor]
"""From activations `(N, *positions, d)` to what stands in their place, of the same shape."""


@dataclass(frozen=True, eq=False)
class Block:
    """Activations of some inputs that follow each other.

    Attributes:
        acts: `(N, *positions, d)`.
        first: index of the first input.
        mask: `(N, *positions)`, False where there is nothing (padding); None where all is there.
    """

    acts: Tensor
    first: int
    mask: Tensor | None = None

    @property
    def vectors(self) -> Tensor:
        """The activations `(n, d)` of all positions there are, input by input."""
        flat = self.acts.reshape(-1, self.acts.shape[-1])
        return flat if self.mask is None else flat[self.mask.flatten()]

    @property
    def places(self) -> Tensor:
        """Where each vector comes from: `(n, 1 + positions)` int64, the index of the input first."""
        shape = self.acts.shape[:-1]
        where = torch.cartesian_prod(*[torch.arange(size) for size in shape]).view(-1, len(shape))
        where[:, 0] += self.first
        return where if self.mask is None else where[self.mask.flatten().cpu()]


@runtime_checkable
class Site(Protocol):
    """A place in a network whose activations an SAE reads and may replace.

    Attributes:
        address: of the place, "scenes/mixed4a" or "hf:PATH/layers.2.resid".
        d: width of its vectors.
        axes: what `Block.places` counts: ("image", "y", "x") or ("document", "token").
        metadata: model, digest of its weights, layer, ...: JSON, kept with the SAEs trained here.
    """

    @property
    def address(self) -> str: ...
    @property
    def d(self) -> int: ...
    @property
    def axes(self) -> tuple[str, ...]: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...

    def blocks(self, inputs: Any, *, batch_size: int = 32, progress: Progress = None) -> Iterator[Block]:
        """Activations on `inputs` (pictures, texts), in their order and in constant memory."""

    def replaced(self, function: Function) -> AbstractContextManager[None]:
        """While open, the network goes on from `function(acts)` instead of its own activations here."""

    def predictions(
        self, inputs: Any, ways: Sequence[Function | None], *, batch_size: int = 32, progress: Progress = None
    ) -> Iterator[tuple[list[Tensor], Tensor | None]]:
        """Scores of what the network predicts, once per way: batches of `(n, classes)` each, and the right classes.

        Args:
            inputs: pictures or texts.
            ways: functions that stand in for the activations here (None: the network as it is).

        Yields:
            A tensor of scores per way, and `(n,)` right classes where they are known (a picture's label, the token
            that follows).
        """


def chosen(inputs: Any, indices: Sequence[int]) -> Any:
    """Some of the inputs of a site: of pictures, or of a list."""
    subset = getattr(inputs, "subset", None)
    return subset(list(indices)) if callable(subset) else [inputs[i] for i in indices]


def digest_of(inputs: Any) -> str:
    """Which inputs these are: their own digest, or that of a list of texts."""
    own = getattr(inputs, "digest", None)
    if isinstance(own, str):
        return own
    try:
        return hashlib.sha256(json.dumps(list(inputs)).encode()).hexdigest()
    except (TypeError, ValueError) as error:
        raise SAEError(
            f"inputs are pictures or texts; got {shorten(type(inputs).__name__)}: {shorten(error)}"
        ) from error


ROWS = 8192
"""Vectors decoded at a time, so that dense latents stay small."""


def reconstructing(decoded: Function, *, keep_error: bool = False) -> Function:
    """What splices a dictionary into a network: activations become their reconstruction.

    Args:
        decoded: from vectors `(n, d)` to their reconstruction, an `SAE` for example.
        keep_error: add what is left over as a constant: values are then those of the clean network, to the bit, but
            gradients go through the dictionary.
    """

    def function(acts: Tensor) -> Tensor:
        flat = acts.reshape(-1, acts.shape[-1])
        again = torch.cat([decoded(part) for part in torch.split(flat, ROWS)]).to(acts)
        if keep_error:
            again = flat.detach() + (again - again.detach())
        return again.view_as(acts)

    return function


def constant(vector: Tensor) -> Function:
    """What sets every activation to one vector `(d,)`: mean ablation, or zero ablation."""
    return lambda acts: vector.to(acts).expand_as(acts)


def check_fits(sae: SAE, site: Site) -> None:
    """Raise unless an SAE can have been trained at this site.

    Raises:
        SAEError: another width, or its metadata name another layer or other weights.
    """
    if sae.d != site.d:
        raise SAEError(f"this SAE reads {sae.d} channels; {site.address} has {site.d}")
    for key, what in (("layer", "layer"), ("weights_digest", "weights")):
        stated, own = sae.metadata.get(key), site.metadata.get(key)
        if stated is not None and own is not None and stated != own:
            raise SAEError(
                f"this SAE was trained on another {what} ({str(stated)[:16]}); {site.address} is {str(own)[:16]}"
            )
