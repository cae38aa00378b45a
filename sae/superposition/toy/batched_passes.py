"""Forward and backward passes of all models of a sweep, as a few large matrix products.

Models of one law share their examples, so that all their encoders together are one matrix. Examples without a feature
(x = 0), most of them where features are sparse, all give ReLU(b): they are counted, not computed.

Gradients are in closed form, since autograd would cost several times the arithmetic. For one example, with importances
I, hidden layer h = W x, output y = ReLU(V h + b), target t and e = 2 I (y - t) [y > 0], the chain rule gives

    dL/db = e,    dL/dV = e h^T,    dL/dW = (V^T e) x^T,    each summed over the batch and divided by its size.

With ReLU on the hidden layer V^T e is masked by [h > 0]. In tied models V = W^T, so that dL/dW = h e^T + (W e) x^T.
Since h = W x this is W (P + P^T) with P = sum x e^T: one product over the batch instead of three.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sae.superposition.toy.feature_sampler import Draws, Law, Sampler, UniformBatch
from sae.superposition.toy.toy_models import Kind

CACHED = 100_000
"""Size of the outputs computed at a time on a CPU, so that they stay in its cache (measured: half the time)."""
STEP = 32
"""The number of computed examples is a multiple of this, so that few shapes occur."""


class Parameters:
    """Weights of K laws times S models: `encoder (K, S, m, n)`, `bias (K, S, n)`, and `decoder` in untied models.

    All are views of one vector `flat`, the parameter of the optimizer.
    """

    def __init__(self, encoder: Tensor, bias: Tensor, decoder: Tensor | None) -> None:
        tensors = [t for t in (encoder, bias, decoder) if t is not None]
        self.flat = torch.cat([t.flatten() for t in tensors])
        gradient = torch.zeros_like(self.flat)
        self.flat.grad = gradient
        sizes = [t.numel() for t in tensors]
        self.all: list[Tensor] = [p.view(t.shape) for p, t in zip(torch.split(self.flat, sizes), tensors, strict=True)]
        self.gradients: list[Tensor] = [
            part.view(t.shape) for part, t in zip(torch.split(gradient, sizes), tensors, strict=True)
        ]
        self.encoder, self.bias = self.all[:2]
        self.decoder: Tensor | None = None if decoder is None else self.all[2]

    @property
    def written(self) -> Tensor:
        """Weights from the hidden dimensions to the outputs, V: `(K, S, n, m)`."""
        return self.encoder.mT if self.decoder is None else self.decoder


class Passes:
    """Passes of the models of K laws, S to each, over successive batches.

    Args:
        laws: one a row of the parameters.
        chunks: rows that are computed together.
        parameters: weights; importance: `(K, S, n)`.
        kind: of all models.
        which: `TRAINING` or `EVALUATION` examples.
        size: examples of a batch.
        block: batches sampled at a time.
    """

    def __init__(
        self,
        laws: Sequence[Law],
        chunks: Sequence[slice],
        parameters: Parameters,
        importance: Tensor,
        kind: Kind,
        which: int,
        size: int,
        block: int = 1,
    ) -> None:
        self.kind, self.parameters, self.chunks, self.size = kind, parameters, chunks, size
        self.importance = importance
        self.shape = k, s, m, n = parameters.encoder.shape
        self._device, self._dtype = parameters.flat.device, parameters.flat.dtype
        self.draws = Draws(laws, size, which, self._device, self._dtype, block)
        # samplers of each chunk, for those of its rows without sets and those with
        self._samplers = [
            [
                (
                    rows,
                    Sampler(laws[_shifted(rows, chunk)], self.draws, _shifted(rows, chunk), self._device, self._dtype),
                )
                for rows in _runs_of_equal([law.gated for law in laws[chunk]])
            ]
            for chunk in chunks
        ]
        self._batch: UniformBatch | None = None
        # a row of ones in the examples and among the hidden dimensions makes the bias a column of the decoder
        self.x = self._empty(max(c.stop - c.start for c in chunks), n + 1, size).fill_(1)
        self.encode, self.decode = self._empty(k, s, m + 1, n + 1).zero_(), self._empty(k, s, n, m + 1)
        self.encode[:, :, m, n] = 1
        together = max(c.stop - c.start for c in chunks) * s
        self.width = size if self._device.type != "cpu" else max(64, min(size, CACHED // (together * n)))
        self.hidden, self.output, self.error, self.back = (
            self._empty(together * rows * self.width) for rows in (m + 1, n, n, m)
        )
        self.rectified = kind in ("absolute", "privileged")
        # where the n x n matrix P is small, its one product is faster than three with W (measured: a third of a step)
        self.square = kind in ("relu", "linear") and n <= 4 * m
        self.counts, self.nothing = [size] * len(chunks), self._empty(k).zero_()
        self.products = self._empty(k, n + 1, s * n)
        self.to_decoder, self.to_encoder = self._empty(k * s, m + 1, n), self._empty(k, s * m, n)
        self._parts: dict[tuple[int, int], list[_Part]] = {}

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, device=self._device, dtype=self._dtype)

    def draw(self) -> None:
        """Go to the next batch, of which each chunk needs the first `counts` examples."""
        self._batch = batch = self.draws.next()
        self.counts = [min(self.size, -(-max(batch.counts[rows]) // STEP) * STEP) for rows in self.chunks]
        empty = []
        for count, rows in zip(self.counts, self.chunks, strict=True):
            empty += [self.size - count] * (rows.stop - rows.start)
        self.nothing = torch.tensor(empty, device=self._device, dtype=self._dtype)

    def examples(self) -> Tensor:
        """The batch of each law: `(K, n, size)`."""
        k, _, _, n = self.shape
        x = self._empty(k, n, self.size)
        for chunk, rows in enumerate(self.chunks):
            self._fill(chunk, x[rows])
        return x

    def _fill(self, chunk: int, x: Tensor) -> None:
        assert self._batch is not None
        for rows, sampler in self._samplers[chunk]:
            sampler.fill(x[rows], self._batch)

    def _forward(self) -> Iterator[_Part]:
        """Outputs before their ReLU, part by part of the batch."""
        _, _, m, n = self.shape
        self.encode[:, :, :m, :n] = self.parameters.encoder
        self.decode[:, :, :, :m] = self.parameters.written
        self.decode[:, :, :, m] = self.parameters.bias
        for chunk, count in enumerate(self.counts):
            if (chunk, count) not in self._parts:
                self._parts[chunk, count] = self._cut(self.chunks[chunk], count)
            if count:
                rows = self.chunks[chunk]
                self._fill(chunk, self.x[: rows.stop - rows.start, :n, :count])
            for part in self._parts[chunk, count]:
                torch.bmm(part.encode, part.x, out=part.hidden)
                if self.rectified:
                    part.hidden.relu_()
                torch.bmm(part.decode, part.hidden_by_model, out=part.output)
                yield part

    def _cut(self, rows: slice, count: int) -> list[_Part]:
        pieces = -(-count // self.width)
        return [_Part(self, rows, count * i // pieces, count * (i + 1) // pieces) for i in range(pieces)]

    def losses(self) -> Tensor:
        """Mean loss of each model on the batch: `(K, S)`."""
        k, s, _, n = self.shape
        bias = self.parameters.bias if self.kind == "linear" else self.parameters.bias.relu()
        # of an example x = 0 the output is ReLU(b) and the target 0: its error is ReLU(b)^2, `nothing` times
        total = bias.square() * self.nothing[:, None, None]
        for part in self._forward():
            if self.kind != "linear":
                part.output.relu_()
            torch.sub(part.output_by_law, self._target(part), out=part.error_by_law)
            total[part.rows] += part.error_by_law.square_().sum(dim=3)
        mean: Tensor = (total * self.importance).sum(dim=2) / self.size
        return mean

    def gradients(self) -> None:
        """Write the gradients of the mean loss on the batch."""
        k, s, m, n = self.shape
        # Factors that are the same for all examples, 2 I / size, come last, in `_write`: e is (y - t) [y > 0] here. For
        # V^T e, which mixes outputs of different importance, they are in the weights instead.
        weights = self.importance * (2 / self.size)
        for totals in (self.products,) if self.square else (self.to_decoder, self.to_encoder):
            totals.zero_()
        weighted = (self.parameters.written.mT * weights[:, :, None]).reshape(k * s, m, n)
        for part in self._forward():
            torch.sub(part.output_by_law, self._target(part), out=part.error_by_law)
            if self.kind != "linear":
                _gate(part.error, part.output)
            if self.square:
                # P = sum x e^T; the row of ones in x makes its last row sum e, the gradient of the bias
                part.products.baddbmm_(part.x, part.error_columns)
                continue
            part.to_decoder.baddbmm_(part.hidden_by_model, part.error.mT)
            # V^T e, the error of the hidden layer
            torch.bmm(weighted[part.models], part.error, out=part.back)
            if self.rectified:
                _gate(part.back, part.hidden_by_model[:, :m])
            part.to_encoder.baddbmm_(part.back_by_law, part.x[:, :n].mT)
        self._write(weights)

    def _target(self, part: _Part) -> Tensor:
        return part.target.abs() if self.kind == "absolute" else part.target

    def _write(self, weights: Tensor) -> None:
        """Gradients of the parameters from the sums over examples; each x = 0 adds 2 I ReLU(b) / size to the bias."""
        k, s, m, n = self.shape
        bias = self.parameters.bias if self.kind == "linear" else self.parameters.bias.relu()
        empty = bias * self.nothing[:, None, None]
        encoder, to_bias = self.parameters.gradients[:2]
        if self.square:
            # dL/dW = W (P + P^T): the two ways on which W acts in a tied model, as encoder and as decoder
            products = self.products.view(k, n + 1, s, n).transpose(1, 2) * weights[:, :, None]
            torch.matmul(self.parameters.encoder, products[:, :, :n] + products[:, :, :n].mT, out=encoder)
            torch.addcmul(products[:, :, n], empty, weights, out=to_bias)
            return
        # rows: sum h e^T of the hidden dimensions, then sum e by the hidden dimension that is always 1: the bias
        to_decoder = self.to_decoder.view(k, s, m + 1, n) * weights[:, :, None]
        torch.addcmul(to_decoder[:, :, m], empty, weights, out=to_bias)
        encoder.copy_(self.to_encoder.view(k, s, m, n))
        if self.parameters.decoder is None:
            encoder += to_decoder[:, :, :m]
        else:
            self.parameters.gradients[2].copy_(to_decoder[:, :, :m].mT)


class _Part:
    """Buffers of a pass over some examples of a chunk, as views that are created once per number of examples."""

    def __init__(self, passes: Passes, rows: slice, start: int, stop: int) -> None:
        _, s, m, n = passes.shape
        k, high = rows.stop - rows.start, stop - start
        self.rows, self.models = rows, slice(rows.start * s, rows.stop * s)
        self.encode = passes.encode[rows].view(k, s * (m + 1), n + 1)
        self.decode = passes.decode[rows].view(k * s, n, m + 1)
        self.x = passes.x[:k, :, start:stop]
        self.target = self.x[:, None, :n]
        self.hidden = _room(passes.hidden, k, s * (m + 1), high)
        self.hidden_by_model = self.hidden.view(k * s, m + 1, high)
        self.output = _room(passes.output, k * s, n, high)
        self.output_by_law = self.output.view(k, s, n, high)
        self.error = _room(passes.error, k * s, n, high)
        self.error_by_law = self.error.view(k, s, n, high)
        self.error_columns = self.error.view(k, s * n, high).mT
        self.back = _room(passes.back, k * s, m, high)
        self.back_by_law = self.back.view(k, s * m, high)
        self.products, self.to_encoder, self.to_decoder = (
            passes.products[rows],
            passes.to_encoder[rows],
            passes.to_decoder[self.models],
        )


def _room(buffer: Tensor, *shape: int) -> Tensor:
    """The beginning of a buffer, as a view of that shape."""
    return buffer[: math.prod(shape)].view(shape)


def _runs_of_equal(flags: Sequence[bool]) -> list[slice]:
    """Runs of equal values."""
    starts = [i for i in range(len(flags)) if i == 0 or flags[i] != flags[i - 1]]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(flags)], strict=True)]


def _shifted(rows: slice, by: slice) -> slice:
    """Rows of a chunk, counted from the first of all."""
    return slice(by.start + rows.start, by.start + rows.stop)


def _gate(gradient: Tensor, output: Tensor) -> None:
    """Gradient of ReLU, in place: zero where its output is 0. One pass, where a mask and a product are three."""
    torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)
