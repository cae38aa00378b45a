"""Generation of text, token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae.checks import whole
from sae.errors import SAEError, shorten
from sae.language.chunking import Feeding
from sae.language.loss import check_head
from sae.seeding import generator
from zoo.networks.language import Feed, LanguageModel
from zoo.progress import Progress, reporter

_WRITING = 1 << 17  # a purpose of its own, so that no other random numbers are repeated


@dataclass(frozen=True)
class Continuation:
    """A continuation of a prompt.

    Attributes:
        prompt: the prompt; text: its continuation; whole: both together.
        ids: of the generated tokens, without the one that ends a text.
        ended: whether the model ended the text itself.
    """

    prompt: str
    text: str
    whole: str
    ids: tuple[int, ...]
    ended: bool


def continued(
    lm: LanguageModel,
    feeding: Feeding,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    seed: int,
    temperature: float,
    cache: bool,
    progress: Progress = None,
) -> list[Continuation]:
    """Continuations of prompts; see `LanguageSite.generate`.

    Prompts of one length are batched without padding, so that a continuation does not depend on the other prompts.
    """
    starts = _starts(lm, feeding, prompts, max_new_tokens, temperature)
    groups: dict[int, list[int]] = {}
    for number, ids in enumerate(starts):
        groups.setdefault(len(ids), []).append(number)
    written: dict[int, list[int]] = {}
    ends = _ends(lm)
    with reporter(progress, "tokens") as report, torch.no_grad(), lm.lock:
        for group in groups.values():
            fed = torch.tensor([starts[number] for number in group])
            draws = [generator(seed, _WRITING, number) for number in group]
            new: list[Tensor] = []
            finished = torch.zeros(len(group), dtype=torch.bool)
            for scores in _steps(lm, fed, new, len(feeding.prefix), cache):
                token = _draw(scores, temperature, draws)
                new.append(token)
                finished |= torch.isin(token, ends)
                report(len(written) * max_new_tokens + len(new) * len(group), len(starts) * max_new_tokens)
                if len(new) == max_new_tokens or bool(finished.all()):
                    break
            written.update(zip(group, torch.stack(new, dim=1).tolist(), strict=True))
    stops = set(ends.tolist())
    first = len(feeding.prefix)
    return [_continuation(lm, prompts[i], ids[first:], written[i], stops) for i, ids in enumerate(starts)]


def _starts(
    lm: LanguageModel, feeding: Feeding, prompts: Sequence[str], max_new_tokens: int, temperature: float
) -> list[list[int]]:
    check_head(lm)
    if not lm.causal:
        raise SAEError(f"{lm.name} is a masked model: it fills gaps, and generates no text")
    if isinstance(prompts, str) or not prompts or any(not isinstance(p, str) for p in prompts):
        raise SAEError("prompts are a list of strings, with at least one")
    whole("max_new_tokens", max_new_tokens)
    if not 0 <= temperature < math.inf:
        raise SAEError(f"temperature={shorten(temperature)} must be a number from 0")
    starts = []
    for number, prompt in enumerate(prompts):
        ids = [*feeding.prefix, *lm.ids(prompt)]
        if not ids:
            raise SAEError(f"prompt {number} is empty, and {lm.name} has no token for the beginning (bos=True?)")
        if len(ids) + max_new_tokens > feeding.context:
            raise SAEError(
                f"prompt {number} has {len(ids)} tokens; with {max_new_tokens} more that is over the "
                f"{feeding.context} that {lm.name} takes. Ask for at most {max(0, feeding.context - len(ids))}"
            )
        starts.append(ids)
    return starts


def _steps(lm: LanguageModel, ids: Tensor, new: list[Tensor], prefix: int, cache: bool) -> Any:
    """Scores `(N, vocabulary)` of the next token, step by step; the caller appends the chosen tokens to `new`."""
    count, length = ids.shape
    past: Any = None
    while True:
        fed = torch.cat([ids, *(token[:, None] for token in new)], dim=1)
        start = length + len(new) - 1 if past is not None else 0
        mask = torch.ones((count, fed.shape[1] - start), dtype=torch.bool, device=lm.device)
        mask[:, : max(0, prefix - start)] = False
        options = {"past_key_values": past} if past is not None else {}
        out = lm.run(fed[:, start:], feed=Feed(start, mask), use_cache=cache, **options)
        if cache:
            past = out.past_key_values
        yield out.logits[:, -1].float().cpu()


def _draw(scores: Tensor, temperature: float, draws: Sequence[torch.Generator]) -> Tensor:
    """One token per row, sampled with the row's own generator."""
    if temperature == 0:
        return scores.argmax(dim=1)
    shares = (scores.double() / temperature).softmax(dim=1)
    return torch.cat([torch.multinomial(row, 1, generator=draw) for row, draw in zip(shares, draws, strict=True)])


def _ends(lm: LanguageModel) -> Tensor:
    """Ids that end a text."""
    stated = [getattr(lm.config, "eos_token_id", None), lm.tokenizer.eos_token_id]
    ids = {int(i) for entry in stated if entry is not None for i in (entry if isinstance(entry, list) else [entry])}
    return torch.tensor(sorted(ids), dtype=torch.long)


def _continuation(lm: LanguageModel, prompt: str, start: list[int], new: list[int], ends: set[int]) -> Continuation:
    stop = next((at for at, token in enumerate(new) if token in ends), None)
    body = new if stop is None else new[:stop]
    before, both = lm.decode(start) if start else "", lm.decode([*start, *body])
    # decoding depends on the tokens that follow: the end of the prompt, spaces above all, may differ in running text
    text = both[len(before) :] if both.startswith(before) else lm.decode(body)
    return Continuation(prompt, text, both, tuple(body), stop is not None)
