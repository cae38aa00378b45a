"""Forward and backward passes of many toy models as a few large matrix products.

Models of one law share their examples, so that all their encoders together are one matrix. Gradients are written out:
the network is two matrices, and autograd's bookkeeping would cost several times the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sae.superposition.features import Draws, Law, Sampler
from sae.superposition.models import Kind

CACHED = 400_000
"""Numbers that a batch of outputs may have on a CPU: beyond, passes wait for memory (measured: a third slower)."""


class Parameters:
    """Weights of K laws times S models: `encoder (K, S, m, n)`, `bias (K, S, n)`, and `decoder` where it is its own."""

    def __init__(self, encoder: Tensor, bias: Tensor, decoder: Tensor | None) -> None:
        self.encoder, self.bias, self.decoder = encoder, bias, decoder
        self.all = [t for t in (encoder, bias, decoder) if t is not None]
        for tensor in self.all:
            tensor.grad = torch.zeros_like(tensor)

    @property
    def written(self) -> Tensor:
        """What each feature's output reads of the hidden dimensions: `(K, S, n, m)`."""
        return self.encoder.mT if self.decoder is None else self.decoder


class Batch:
    """One pass of the models of some laws, `rows` of the parameters.

    Batches that run one after the other share their `room`, which then stays in the processor's cache.
    """

    def __init__(
        self,
        laws: Sequence[Law],
        rows: slice,
        parameters: Parameters,
        importance: Tensor,
        kind: Kind,
        draws: Draws,
        size: int,
        room: dict[tuple[str | int, ...], Tensor],
    ) -> None:
        self.kind, self.rows, self.parameters, self.size = kind, rows, parameters, size
        self.importance = importance[rows]
        encoder = parameters.encoder[rows]
        k, s, m, n = encoder.shape
        self.shape = (k, s, m, n)
        self._room, self._make = room, (encoder.device, encoder.dtype)
        self.encode, self.decode = self._empty(k, s, m + 1, n + 1).zero_(), self._empty(k, s, n, m + 1).zero_()
        # a row of ones in the examples and among the hidden dimensions makes the bias a column of the decoder
        self.encode[:, :, m, n] = 1
        self.x = self._shared("x", k, n + 1, size)
        self.hidden = self._shared("hidden", k, s * (m + 1), size)
        self.output = self._shared("output", k * s, n, size)
        self.error = self._shared("error", k, s, n, size)
        self.sampler = Sampler(laws, draws, encoder.device, encoder.dtype)
        self.rectified = kind in ("absolute", "privileged")
        # where W^T W is small, one product for its gradient is faster than three with W (measured: a fifth of a step)
        self.square = kind in ("relu", "linear") and n <= 4 * m

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, device=self._make[0], dtype=self._make[1])

    def _shared(self, name: str, *shape: int) -> Tensor:
        key: tuple[str | int, ...] = (name, *shape)
        if key not in self._room:
            self._room[key] = self._empty(*shape)
        return self._room[key]

    def forward(self, draws: tuple[Tensor, Tensor | None]) -> Tensor:
        """Errors `output - target`, `(K, S, n, batch)`, on new examples."""
        k, s, m, n = self.shape
        examples = self.x[:, :n]
        self.x[:, n] = 1
        self.sampler.fill(examples, draws)
        self.encode[:, :, :m, :n] = self.parameters.encoder[self.rows]
        self.decode[:, :, :, :m] = self.parameters.written[self.rows]
        self.decode[:, :, :, m] = self.parameters.bias[self.rows]
        torch.bmm(self.encode.view(k, s * (m + 1), n + 1), self.x, out=self.hidden)
        if self.rectified:
            self.hidden.relu_()
        hidden = self.hidden.view(k * s, m + 1, self.size)
        torch.bmm(self.decode.view(k * s, n, m + 1), hidden, out=self.output)
        if self.kind != "linear":
            self.output.relu_()
        target = examples.abs() if self.kind == "absolute" else examples
        torch.sub(self.output.view(k, s, n, self.size), target[:, None], out=self.error)
        return self.error

    def losses(self) -> Tensor:
        """Mean loss of each model on the examples of the last `forward`: `(K, S)`."""
        return (self.error.square().mean(dim=3) * self.importance).sum(dim=2)

    def backward(self) -> None:
        """Write the gradients of the mean loss of the last `forward`."""
        k, s, m, n = self.shape
        parameters, rows = self.parameters, self.rows
        error, hidden = self.error.view(k * s, n, self.size), self.hidden.view(k * s, m + 1, self.size)
        if self.kind != "linear":
            _gate(error, self.output)
        weights = (self.importance * (2 / self.size))[..., None]
        assert parameters.encoder.grad is not None and parameters.bias.grad is not None
        if self.square:
            met = torch.bmm(self.x, self.error.view(k, s * n, self.size).mT).view(k, n + 1, s, n).transpose(1, 2)
            met = met * weights.mT  # (K, S, n + 1, n): of each input with each output's error
            both = met[:, :, :n] + met[:, :, :n].mT
            torch.matmul(parameters.encoder[rows], both, out=parameters.encoder.grad[rows])
            parameters.bias.grad[rows] = met[:, :, n]
            return
        to_decoder = torch.bmm(hidden, error.mT).view(k, s, m + 1, n) * weights.mT
        back = torch.bmm((self.decode[..., :m] * weights).view(k * s, n, m).mT, error)
        if self.rectified:
            _gate(back, hidden[:, :m])
        to_encoder = torch.bmm(back.view(k, s * m, self.size), self.x[:, :n].mT).view(k, s, m, n)
        if parameters.decoder is None:
            to_encoder += to_decoder[:, :, :m]
        else:
            assert parameters.decoder.grad is not None
            parameters.decoder.grad[rows] = to_decoder[:, :, :m].mT
        parameters.encoder.grad[rows] = to_encoder
        parameters.bias.grad[rows] = to_decoder[:, :, m]


def _gate(gradient: Tensor, output: Tensor) -> None:
    """Zero, in place, where a rectifier gave nothing: one pass where a mask and a product are three."""
    torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)
