"""What a language model says about the tokens of texts, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sae.errors import SAEError
from sae.language.chunking import Chunk, Padded, padded
from sae.language.texts import Texts
from sae.seeding import generator
from zoo.networks.language import LanguageModel

SCORES = 2**26
"""Scores held at a time, of all ways together."""
MASKED_SHARE = 0.15
_MASKING = 1 << 16  # a purpose of its own, so that no other draw is repeated


@dataclass(frozen=True, eq=False)
class TextLoss:
    """Mean cross-entropy of texts.

    Attributes:
        nats: per token, over all tokens counted; tokens: their number.
        documents: `(texts,)` nats per token of each text, NaN where none of its tokens was counted.
        counts: `(texts,)` tokens counted of each text.
        digest: of the texts; name: where they come from.
    """

    nats: float
    tokens: int
    documents: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    digest: str
    name: str

    def describe(self) -> dict[str, Any]:
        """The numbers as JSON."""
        documents = [None if np.isnan(x) else float(x) for x in self.documents]
        return {
            "nats_per_token": self.nats,
            "tokens": self.tokens,
            "documents": documents,
            "tokens_of_documents": self.counts.tolist(),
            "texts": {"name": self.name, "digest": self.digest},
        }


@dataclass(frozen=True, eq=False)
class Asked:
    """Tokens of a batch that are asked for.

    Attributes:
        made: the batch as it is fed.
        rows, columns: `(n,)` where in the batch their scores are found.
        right: `(n,)` ids that are there; documents: `(n,)` which text each is of.
    """

    made: Padded
    rows: Tensor
    columns: Tensor
    right: Tensor
    documents: Tensor

    def pick(self, scores: Tensor) -> Tensor:
        """The scores asked for: `(N, tokens, vocabulary)` -> `(n, vocabulary)`."""
        return scores[self.rows.to(scores.device), self.columns.to(scores.device)]


def asked(lm: LanguageModel, batch: Sequence[Chunk]) -> Asked:
    """Which tokens of some chunks are asked for, and how they are fed for that."""
    made = padded(batch)
    documents = torch.tensor([chunk.document for chunk in batch])
    if lm.causal:
        wanted = made.text.clone()
        wanted[:, 0] = False  # nothing comes before it
        rows, columns = wanted.nonzero(as_tuple=True)
        return Asked(made, rows, columns - 1, made.ids[rows, columns], documents[rows])
    mask = lm.tokenizer.mask_token_id
    if mask is None:
        raise SAEError(f"the tokenizer of {lm.name} has no mask, so the model cannot be asked for a token")
    hidden = torch.zeros_like(made.text)
    for row, chunk in enumerate(batch):
        drawn = torch.rand(chunk.count, generator=generator(0, _MASKING, chunk.document, chunk.start))
        # as many of each chunk, so that a short text has one, too
        few = drawn.argsort()[: max(1, round(MASKED_SHARE * chunk.count))]
        hidden[row, chunk.text.start + few] = True
    rows, columns = hidden.nonzero(as_tuple=True)
    right = made.ids[rows, columns]
    fed = made.ids.masked_fill(hidden, mask)
    return Asked(Padded(fed, made.text, made.there), rows, columns, right, documents[rows])


def fitting(lm: LanguageModel, context: int, batch_size: int, ways: int) -> int:
    """Chunks at a time, so that their scores fit into memory."""
    return max(1, min(batch_size, SCORES // (context * int(lm.config.vocab_size) * max(1, ways))))


def cross_entropy(scores: Tensor, right: Tensor) -> Tensor:
    """`(n,)` nats, float64 on the CPU."""
    return F.cross_entropy(scores.float(), right.to(scores.device), reduction="none").double().cpu()


def text_loss(sums: Tensor, counts: Tensor, texts: Texts) -> TextLoss:
    """Sums of nats and numbers of tokens per text, as a result."""
    total = int(counts.sum())
    if not total:
        raise SAEError("none of the texts has a token with another before it: there is nothing to predict")
    return TextLoss(
        nats=float(sums.sum()) / total,
        tokens=total,
        documents=(sums / counts).numpy(),
        counts=counts.numpy(),
        digest=texts.digest,
        name=texts.name,
    )


def check_head(lm: LanguageModel) -> None:
    """Raise unless the model says which token stands where.

    Raises:
        SAEError: it gives activations only.
    """
    if not lm.has_head:
        raise SAEError(f"{lm.name} is a {type(lm.module).__name__} without a language head: it predicts no tokens")
