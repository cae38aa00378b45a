"""Sites: one protocol for a layer of a CNN and for an activation stream of a transformer.

The core sees vectors `(N, d)`; a site converts the activations of a network into such vectors and back.
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
"""From activations `(N, *positions, d)` to their replacement, of the same shape."""


@dataclass(frozen=True, eq=False)
class Block:
    """Activations of consecutive inputs.

    Attributes:
        acts: `(N, *positions, d)`.
        first: index of the first input.
        mask: `(N, *positions)`, False at padding; None without padding.
    """

    acts: Tensor
    first: int
    mask: Tensor | None = None

    @property
    def vectors(self) -> Tensor:
        """The activations `(n, d)` of all positions without padding, input by input."""
        flat = self.acts.reshape(-1, self.acts.shape[-1])
        return flat if self.mask is None else flat[self.mask.flatten()]

    @property
    def positions(self) -> Tensor:
        """Input and position of each vector: `(n, 1 + axes)` int64, the index of the input first."""
        shape = self.acts.shape[:-1]
        indices = torch.cartesian_prod(*[torch.arange(size) for size in shape]).view(-1, len(shape))
        indices[:, 0] += self.first
        return indices if self.mask is None else indices[self.mask.flatten().cpu()]


@runtime_checkable
class Site(Protocol):
    """A layer or stream of a network whose activations an SAE encodes and may replace.

    A pair of sites, for transcoders, is a site whose vectors are those of both side by side. It has `widths`, those of
    the two, and its functions get both and give the second.

    Attributes:
        address: of the site, "scenes/mixed4a" or "hf:PATH/layers.2.resid"; of a pair "scenes/mixed3b..mixed4a".
        d: width of its vectors.
        axes: names of the columns of `Block.positions`: ("image", "y", "x") or ("document", "token").
        metadata: model, digest of its weights, layer, ...: JSON, saved with the SAEs trained here.
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
        """Activations on `inputs` (images, texts), in their order and in constant memory."""

    def replaced(self, function: Function) -> AbstractContextManager[None]:
        """While open, the network continues from `function(acts)` instead of its own activations here."""

    def predictions(
        self, inputs: Any, ways: Sequence[Function | None], *, batch_size: int = 32, progress: Progress = None
    ) -> Iterator[tuple[list[Tensor], Tensor | None]]:
        """Scores of the network's predictions, once per function: batches `(n, classes)`, and the right classes.

        Args:
            inputs: images or texts.
            ways: functions that replace the activations here (None: the network itself).

        Yields:
            A tensor of scores per function, and `(n,)` right classes where they are known (the label of an image, the
            next token).
        """


def chosen(inputs: Any, indices: Sequence[int]) -> Any:
    """Some of the inputs of a site: of images, or of a list."""
    subset = getattr(inputs, "subset", None)
    return subset(list(indices)) if callable(subset) else [inputs[i] for i in indices]


def digest_of(inputs: Any) -> str:
    """Digest of inputs: their own, or that of a list of texts."""
    own = getattr(inputs, "digest", None)
    if isinstance(own, str):
        return own
    try:
        return hashlib.sha256(json.dumps(list(inputs)).encode()).hexdigest()
    except (TypeError, ValueError) as error:
        raise SAEError(f"inputs are images or texts; got {shorten(type(inputs).__name__)}: {shorten(error)}") from error


ROWS = 8192
"""Vectors decoded at a time, so that dense latents stay small."""


def reconstructing(decoded: Function, *, keep_error: bool = False) -> Function:
    """The function that splices a dictionary into a network: activations become their reconstruction.

    Args:
        decoded: from vectors `(n, d)` to their reconstruction, an `SAE` for example.
        keep_error: add the reconstruction error as a constant: values are then those of the clean network, to the bit,
            but gradients pass through the dictionary.
    """

    def function(acts: Tensor) -> Tensor:
        flat = acts.reshape(-1, acts.shape[-1])
        again = torch.cat([decoded(part) for part in torch.split(flat, ROWS)]).to(acts)
        if keep_error:
            again = flat.detach() + (again - again.detach())
        return again.view(*acts.shape[:-1], -1)

    return function


def transcoding(decoded: Function, widths: tuple[int, int]) -> Function:
    """The function that splices a transcoder into a network, of vectors of a pair of sites.

    Args:
        decoded: from vectors `(n, d)` that are read to what is written, `(n, d_out)`.
        widths: `(d, d_out)`.
    """
    spliced = reconstructing(decoded)
    return lambda acts: spliced(acts[..., : widths[0]])


def target_of(function: Function, widths: tuple[int, int]) -> Function:
    """A function of a layer's activations, at a pair of sites of which it is the second."""
    return lambda acts: function(acts[..., widths[0] :])


def constant(vector: Tensor) -> Function:
    """The function that sets every activation to one vector `(d,)`: mean ablation, or zero ablation."""
    return lambda acts: vector.to(acts).expand_as(acts)


def widths_of(site: Site) -> tuple[int, int] | None:
    """Widths of what is read and what is reconstructed at a pair of sites; None of one site."""
    return getattr(site, "widths", None)


def written_of(site: Site) -> tuple[int, ...] | None:
    """Widths of what is reconstructed where that is several vectors side by side; None of one."""
    return getattr(site, "written", None)


def check_fits(sae: SAE, site: Site) -> None:
    """Raise if an SAE cannot have been trained at this site, or a transcoder at this pair of sites.

    Raises:
        SAEError: another width, or its metadata name another layer or other weights.
    """
    widths = widths_of(site)
    if sae.transcodes != (widths is not None):
        mixed = ("a transcoder", "one layer") if sae.transcodes else ("an SAE", "a pair of layers")
        raise SAEError(f"this is {mixed[0]}; {site.address} is {mixed[1]}")
    if (sae.config.written or None) != written_of(site):
        ours, theirs = (", ".join(map(str, parts or ())) or "one" for parts in (sae.config.written, written_of(site)))
        raise SAEError(f"this was trained on vectors of {ours} side by side; {site.address} has {theirs}")
    if widths is not None and (sae.d, sae.d_out) != widths:
        reads = f"this transcoder reads {sae.d} channels and writes {sae.d_out}"
        raise SAEError(f"{reads}; {site.address} has {widths[0]} and {widths[1]}")
    if widths is None and sae.d != site.d:
        raise SAEError(f"this SAE reads {sae.d} channels; {site.address} has {site.d}")
    for key, label in (("layer", "layer"), ("weights_digest", "weights")):
        stated, own = sae.metadata.get(key), site.metadata.get(key)
        if stated is not None and own is not None and stated != own:
            raise SAEError(
                f"this SAE was trained on another {label} ({str(stated)[:16]}); {site.address} is {str(own)[:16]}"
            )
