"""Texts cut into chunks that fit into a model's context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sae.errors import SAEError
from sae.language.texts import Texts
from zoo.networks.language import LanguageModel

Long = Literal["cut", "refuse"]


@dataclass(frozen=True)
class Chunk:
    """A stretch of a document as it is fed.

    Attributes:
        document: index of the document; start: its first token, counted in the document without special tokens.
        ids: token ids, special tokens included; text: slice of the text's own tokens.
        last: whether the document ends with it.
    """

    document: int
    start: int
    ids: tuple[int, ...]
    text: slice
    last: bool

    @property
    def count(self) -> int:
        """Tokens of the text in this chunk."""
        return int(self.text.stop - self.text.start)


@dataclass(frozen=True)
class Feeding:
    """How texts are fed.

    Attributes:
        prefix, suffix: special tokens around every chunk; context: tokens of a chunk, these included.
        long: for texts that are longer, "cut" or "refuse".
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    context: int
    long: Long = "cut"

    @property
    def room(self) -> int:
        """Tokens of a text that fit into a chunk."""
        return self.context - len(self.prefix) - len(self.suffix)

    def around(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Ids of a text with the special tokens around them."""
        return (*self.prefix, *ids, *self.suffix)


def chunks(lm: LanguageModel, texts: Texts, feeding: Feeding) -> Iterator[Chunk]:
    """All chunks in the order of the texts; each begins with the prefix and does not see the chunk before.

    Raises:
        SAEError: a text without tokens, or a long one with `long="refuse"`.
    """
    for number, text in enumerate(texts):
        ids = lm.ids(text)
        if not ids:
            raise SAEError(f"text {number} gives no tokens")
        if feeding.long == "refuse" and len(ids) > feeding.room:
            raise SAEError(
                f"text {number} has {len(ids)} tokens; {lm.name} takes {feeding.room} at once "
                "(long='cut' reads it in pieces)"
            )
        first = len(feeding.prefix)
        for start in range(0, len(ids), feeding.room):
            part = ids[start : start + feeding.room]
            last = start + len(part) == len(ids)
            yield Chunk(number, start, feeding.around(part), slice(first, first + len(part)), last)


def batched(source: Iterator[Chunk], size: int) -> Iterator[list[Chunk]]:
    """Chunks, up to `size` at a time."""
    batch: list[Chunk] = []
    for chunk in source:
        batch.append(chunk)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(frozen=True, eq=False)
class Padded:
    """Chunks side by side, padded on the right.

    Attributes:
        ids: `(N, tokens)`; text: True at the texts' own tokens; there: True wherever there is a token.
    """

    ids: Tensor
    text: Tensor
    there: Tensor


def padded(batch: Sequence[Chunk]) -> Padded:
    """Chunks as one batch; the padding repeats a chunk's last token."""
    length = max(len(chunk.ids) for chunk in batch)
    ids = torch.zeros((len(batch), length), dtype=torch.long)
    text, there = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for row, chunk in enumerate(batch):
        ids[row] = chunk.ids[-1]
        ids[row, : len(chunk.ids)] = torch.tensor(chunk.ids)
        text[row, chunk.text] = True
        there[row, : len(chunk.ids)] = True
    return Padded(ids, text, there)
