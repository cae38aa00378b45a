"""Several sites as one, for crosscoders and cross-layer transcoders: layers of a network, or one layer of two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.data.activations import SiteStream
from sae.data.site import Block, Function, Site, chosen
from sae.errors import SAEError
from zoo.progress import Progress, reporter


class Sources:
    """Sites whose vectors stand side by side, position by position, on the same inputs.

    Maps of several sizes are brought to the smallest of them: each of its positions gets the mean of the positions of
    the larger map that it covers (adaptive average pooling, exact where the sizes divide). Positions of different maps
    are taken to lie over each other by their share of the image as its network crops it, not by their receptive fields.
    Texts need sites with the same tokens.

    Args:
        sites: of images (`VisionSite`) or of texts (`LanguageSite`), of one network or of several.
        read_first: a cross-layer transcoder: the first is what is read, the others what is reconstructed of it.

    Attributes:
        written: width of each vector that is reconstructed.
        widths: of what is read and what is reconstructed, of a cross-layer transcoder; else None.

    Raises:
        SAEError: fewer than two sites, pairs of sites, or images and texts together.

    >>> both = Sources(VisionSite(first, "mixed4a"), VisionSite(second, "mixed4a"))  # doctest: +SKIP
    >>> config = sae.BatchTopK(latents=512, k=16, kind="crosscoder")  # doctest: +SKIP
    >>> sae.train(both.stream("scenes:500"), config, steps=500)  # doctest: +SKIP
    """

    def __init__(self, *sites: Site, read_first: bool = False) -> None:
        if len(sites) < 2:
            raise SAEError(f"a crosscoder reads two sites or more; got {len(sites)}")
        for site in sites:
            if getattr(site, "widths", None) is not None or isinstance(site, Sources):
                raise SAEError(f"{site.address} is several sites already; name each by itself")
        if len({site.axes for site in sites}) > 1:
            raise SAEError("sites of images and of texts have no positions in common")
        self.sites = sites
        parts = tuple(site.d for site in sites)
        self.written = parts[1:] if read_first else parts
        self.widths = (parts[0], sum(parts[1:])) if read_first else None

    def __repr__(self) -> str:
        return f"Sources({self.address!r}, written={self.written})"

    @property
    def address(self) -> str:
        """The addresses of all, joined by `+`, or by `..` after what is read."""
        first, *rest = (site.address for site in self.sites)
        return first + (".." if self.widths else "+") + "+".join(rest)

    @property
    def axes(self) -> tuple[str, ...]:
        """Those of each site."""
        return self.sites[0].axes

    @property
    def d(self) -> int:
        """Width of all together."""
        return sum(site.d for site in self.sites)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What each site is, JSON-ready; the digest of the weights is those of all."""
        each = [dict(site.metadata) for site in self.sites]
        digests = [str(about.get("weights_digest")) for about in each]
        return {"site": "sources", "layer": self.address, "weights_digest": "+".join(digests), "sources": each}

    def open(self, inputs: Any) -> Any:
        """Inputs as the first site opens them."""
        opens = getattr(self.sites[0], "open", None)
        return opens(inputs) if callable(opens) else inputs

    def blocks(self, inputs: Any, *, batch_size: int = 32, progress: Progress = None) -> Iterator[Block]:
        """Vectors `(N, *positions, d)` of all sites side by side, batch by batch.

        Raises:
            SAEError: texts that the sites cut into different tokens.
        """
        opened = self.open(inputs)
        with reporter(progress, "inputs") as report:
            for start in range(0, len(opened), batch_size):
                some = chosen(opened, range(start, min(start + batch_size, len(opened))))
                # one after the other, not in turns: sites may be of one network, whose hooks would meet
                each = [list(site.blocks(some, batch_size=batch_size)) for site in self.sites]
                for blocks in zip(*each, strict=True):
                    acts = self._joined([block.acts for block in blocks])
                    yield Block(acts, start + blocks[0].first, self._mask(blocks))
                report(start + len(some), len(opened))

    def _joined(self, acts: list[Tensor]) -> Tensor:
        """Vectors `(N, *positions, d)` side by side, maps at the positions of the smallest."""
        shapes = {tuple(part.shape[:-1]) for part in acts}
        if len(shapes) > 1:
            if "y" not in self.axes or len({shape[0] for shape in shapes}) > 1:
                raise SAEError(f"{self.address}: the sites have different positions on the same inputs")
            size = min((tuple(part.shape[1:-1]) for part in acts), key=math.prod)
            maps = [F.adaptive_avg_pool2d(part.movedim(-1, 1), size) for part in acts]  # type: ignore[arg-type]
            acts = [part.movedim(1, -1) for part in maps]
        return torch.cat([part.to(acts[0]) for part in acts], dim=-1)

    def _mask(self, blocks: tuple[Block, ...]) -> Tensor | None:
        masks = [block.mask for block in blocks]
        first = masks[0]
        if any((mask is None) != (first is None) for mask in masks) or any(
            mask is not None and first is not None and not torch.equal(mask, first) for mask in masks
        ):
            raise SAEError(f"{self.address}: the sites have different tokens on the same texts")
        return first

    def stream(self, inputs: Any, **settings: Any) -> SiteStream:
        """Training vectors, shuffled and without end; for the settings see `SiteStream`."""
        return SiteStream(self, self.open(inputs), **settings)

    def replaced(self, function: Function) -> AbstractContextManager[None]:
        """Refused: several places of several networks are no place that a network continues from."""
        raise SAEError(f"{self.address} is several sites; replace one of them, `sources.sites[0].replaced(...)`")

    def predictions(self, inputs: Any, ways: Any, *, batch_size: int = 32, progress: Progress = None) -> Any:
        """Refused, as `replaced` is."""
        raise SAEError(f"{self.address} is several sites; predict with one, `sources.sites[0].predictions(...)`")
