"""Two sites of a transformer as one of transcoders: what an MLP reads, and what it adds to the residual stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from circuits.errors import CaptureError
from circuits.network.hooks import Stop, hooked
from sae.data.site import Function
from sae.errors import SAEError
from sae.language.chunking import Chunk, Long, padded
from sae.language.hook_points import mlp_path
from sae.language.site import LanguageSite, tensor_of
from zoo.networks.language import LanguageModel


class LanguagePair(LanguageSite):
    """Two sites in a language model as pairs of vectors, one for each token of each text.

    A transcoder of `layers.N.mlp_in` and `layers.N.mlp` takes the place of the MLP of block N.

    Args:
        lm: a model of `zoo.networks.language.load_language`.
        source: `layers.N.mlp_in`, what the MLP of block N reads (after the norm), or any site of `LanguageSite`.
        target: a site of `LanguageSite`, which runs after the source.
        bos, context, long: see `LanguageSite`.

    Raises:
        SAEError: no such sites.

    >>> pair = LanguagePair(load_language("tales"), "layers.2.mlp_in", "layers.2.mlp")  # doctest: +SKIP
    >>> pair.widths  # doctest: +SKIP
    (64, 64)
    """

    def __init__(
        self, lm: LanguageModel, source: str, target: str, *, bos: bool | None = None, context: int | None = None,
        long: Long = "cut",
    ) -> None:  # fmt: skip
        super().__init__(lm, target, bos=bos, context=context, long=long)
        self.source, self.target = source, target
        if source == target:
            raise SAEError(f"{lm.name}/{source}..{target}: name what is read and what is written, two sites")
        block, _, kind = source.rpartition(".")
        self._of_input = kind == "mlp_in"
        if self._of_input:
            self._source_path = mlp_path(lm, block)
        else:
            self._source_path = LanguageSite(lm, source).path
        self.site = f"{source}..{target}"

    def __repr__(self) -> str:
        return f"LanguagePair({self.address!r}, widths={self.widths})"

    @property
    def widths(self) -> tuple[int, int]:
        """Channels of both, which are the residual stream's."""
        return self.lm.width, self.lm.width

    @property
    def d(self) -> int:
        """Width of both together."""
        return sum(self.widths)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata of a transcoder trained here, ready for JSON; it includes the keys of SAELens."""
        names = {"hook_name": self.source, "hook_name_out": self.target, "source": self.source, "target": self.target}
        return {**super().metadata, **names, "source_module": self._source_path}

    def _read(self, batch: list[Chunk]) -> list[Tensor]:
        fed = padded(batch)
        held: list[Tensor] = []
        captured: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, out: Any) -> None:
            captured.append(self._both(held, tensor_of(out, self.target)))
            raise Stop

        with torch.no_grad(), self.lm.lock, self._held(held), hooked(self._module(), keep):
            try:
                self.run(fed)
            except Stop:
                return [captured[0][row, chunk.text] for row, chunk in enumerate(batch)]
        raise CaptureError(f"{self.address} did not run in this forward pass")

    @contextmanager
    def _held(self, held: list[Tensor]) -> Iterator[None]:
        """While open, `held` has what the source gave last."""

        def keep(_module: nn.Module, inputs: Any, out: Any) -> None:
            given = inputs[0] if self._of_input else out
            held[:] = [tensor_of(given, self.source).clone()]

        with hooked(self.lm.module.get_submodule(self._source_path), keep):
            yield

    def _both(self, held: list[Tensor], target: Tensor) -> Tensor:
        if not held or held[0].shape[:-1] != target.shape[:-1]:
            raise CaptureError(f"{self.address}: {self.source} did not run before {self.target}")
        return torch.cat([held.pop(), target], dim=-1)

    @contextmanager
    def replaced(self, function: Function) -> Iterator[None]:
        """While open, the model goes on from `function(pairs)` `(N, tokens, d_out)` at the target.

        Raises:
            SAEError: while running, when the function gives no tensor of the target's shape.
            CaptureError: one of the two did not run in a forward pass, or ran in another order.
        """
        held: list[Tensor] = []

        def of_target(acts: Tensor) -> Tensor:
            return function(self._both(held, acts))

        with self.lm.lock, self._held(held), super().replaced(of_target):
            yield
