"""Predictions of the tokens of texts, and their cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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
from zoo.common.results import HIDDEN, Result, called
from zoo.networks.language import LanguageModel

SCORES = 2**26
"""Scores in memory at a time, of all variants together."""
MASKED_SHARE = 0.15
_MASKING = 1 << 16  # a purpose of its own, so that no other random numbers are repeated


@dataclass(frozen=True, eq=False)
class TextLoss(Result):
    """Mean cross-entropy of texts.

    Attributes:
        nats: per token, over all tokens counted; tokens: their number.
        documents: `(texts,)` nats per token of each text, NaN where none of its tokens was counted.
        counts: `(texts,)` tokens counted of each text.
        digest: of the texts; name: their source.
    """

    nats: float = field(metadata=called("nats_per_token"))
    tokens: int
    documents: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64] = field(metadata=called("tokens_of_documents"))
    digest: str = field(metadata=HIDDEN)
    name: str = field(metadata=HIDDEN)

    def describe(self) -> dict[str, Any]:
        """The numbers as JSON."""
        return super().describe() | {"texts": {"name": self.name, "digest": self.digest}}


@dataclass(frozen=True, eq=False)
class PredictedTokens:
    """Tokens of a batch that are predicted.

    Attributes:
        batch: as it is fed.
        rows, columns: `(n,)` positions of their scores in the batch.
        right: `(n,)` ids of the tokens; documents: `(n,)` index of the text of each.
    """

    batch: Padded
    rows: Tensor
    columns: Tensor
    right: Tensor
    documents: Tensor

    def pick(self, scores: Tensor) -> Tensor:
        """Scores of the predicted tokens: `(N, tokens, vocabulary)` -> `(n, vocabulary)`."""
        return scores[self.rows.to(scores.device), self.columns.to(scores.device)]


def predicted_tokens(lm: LanguageModel, batch: Sequence[Chunk]) -> PredictedTokens:
    """The predicted tokens of some chunks, and the batch that is fed for that.

    Of a causal model every token with one before it, scored one position earlier; of a masked model a random 15 % of
    each chunk, replaced by the mask token: the same in every call, since they depend on document and position alone.

    Raises:
        SAEError: a masked model without a mask token.
    """
    fed = padded(batch)
    documents = torch.tensor([chunk.document for chunk in batch])
    if lm.causal:
        counted = fed.text.clone()
        counted[:, 0] = False  # nothing comes before it
        rows, columns = counted.nonzero(as_tuple=True)
        return PredictedTokens(fed, rows, columns - 1, fed.ids[rows, columns], documents[rows])
    mask = lm.tokenizer.mask_token_id
    if mask is None:
        raise SAEError(f"the tokenizer of {lm.name} has no mask, so it predicts no tokens")
    hidden = torch.zeros_like(fed.text)
    for row, chunk in enumerate(batch):
        noise = torch.rand(chunk.count, generator=generator(0, _MASKING, chunk.document, chunk.start))
        # at least one of each chunk, however short
        few = noise.argsort()[: max(1, round(MASKED_SHARE * chunk.count))]
        hidden[row, chunk.text.start + few] = True
    rows, columns = hidden.nonzero(as_tuple=True)
    right = fed.ids[rows, columns]
    masked = fed.ids.masked_fill(hidden, mask)
    return PredictedTokens(Padded(masked, fed.text, fed.there), rows, columns, right, documents[rows])


def fitting(lm: LanguageModel, context: int, batch_size: int, variants: int) -> int:
    """Chunks at a time, so that the scores of all variants fit into memory."""
    return max(1, min(batch_size, SCORES // (context * int(lm.config.vocab_size) * max(1, variants))))


def cross_entropy(scores: Tensor, right: Tensor) -> Tensor:
    """`(n,)` nats, float64 on the CPU."""
    return F.cross_entropy(scores.float(), right.to(scores.device), reduction="none").double().cpu()


def text_loss(totals: Tensor, counts: Tensor, texts: Texts) -> TextLoss:
    """The result, from total nats and token counts of each text."""
    total = int(counts.sum())
    if not total:
        raise SAEError("none of the texts has a token with another before it: there is nothing to predict")
    return TextLoss(
        nats=float(totals.sum()) / total,
        tokens=total,
        documents=(totals / counts).numpy(),
        counts=counts.numpy(),
        digest=texts.digest,
        name=texts.name,
    )


def check_head(lm: LanguageModel) -> None:
    """Raise unless the model has a language head.

    Raises:
        SAEError: it has none.
    """
    if not lm.has_head:
        raise SAEError(f"{lm.name} is a {type(lm.module).__name__} without a language head: it predicts no tokens")
