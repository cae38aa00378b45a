"""How good the packaged language model is: against the grammar it learned from, and on what it must tell apart."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.tales.parsing import mentions, parse
from zoo.tales.stories import Story, detokenize, sample
from zoo.tales.tokenizer import BEGINNING, CONTEXT, END, vocabulary
from zoo.tales.words import THE_LANDMARK

_TOKENS = vocabulary()
_ID = {token: i for i, token in enumerate(_TOKENS)}
_HELD_OUT = 1_000_003  # a seed that nobody else is likely to take

HOMOGRAPHS: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "bat": {
        "animal": ("In the {} he {} a bat . It", ("flew", "slept")),
        "club": ("At the {} he {} a bat . It", ("hit", "lay")),
    },
    "bank": {
        "river": ("By the {} she {} the bank . It was", ("wet", "muddy", "steep")),
        "money": ("In the {} she {} the bank . It was", ("rich", "closed", "full")),
    },
    "bark": {
        "dog": ("The {} was near and he {} its bark . It was", ("loud", "short", "deep")),
        "tree": ("The {} was near and he {} its bark . It was", ("rough", "brown", "thick")),
    },
}
"""Word -> meaning -> what comes before, and the words that can only follow with that meaning."""

FILLINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "animal": (("cave", "attic"), ("found", "saw", "took")),
    "club": (("game", "contest"), ("found", "saw", "took")),
    "river": (("water", "stream"), ("reached", "saw", "left")),
    "money": (("street", "town"), ("reached", "saw", "left")),
    "dog": (("puppy", "hound"), ("noticed", "knew", "liked")),
    "tree": (("oak", "elm"), ("noticed", "knew", "liked")),
}


@torch.no_grad()
def held_out_loss(module: nn.Module, stories: list[Story]) -> float:
    """Nats per token, the end of each story counted as one."""
    total, count = 0.0, 0
    for story in stories:
        ids = torch.tensor([[_ID[BEGINNING], *(_ID[t] for t in story.tokens), _ID[END]]])
        scores = module(input_ids=ids[:, :-1], use_cache=False).logits
        total += float(F.cross_entropy(scores[0], ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    return total / count


@torch.no_grad()
def homograph_probabilities(module: nn.Module) -> dict[str, float]:
    """How well the meaning of each homograph is known after it: meaning -> the least share, over all contexts, that
    its own words have of the probability of the words of both meanings.
    """
    opening = "One day Tom went to the park . ".split()
    least = {}
    for meanings in HOMOGRAPHS.values():
        ids_of = {meaning: [_ID[w] for w in after] for meaning, (_, after) in meanings.items()}
        for meaning, (context, _) in meanings.items():
            shares = []
            for location in FILLINGS[meaning][0]:
                for verb in FILLINGS[meaning][1]:
                    tokens = [BEGINNING, *opening, *context.format(location, verb).split()]
                    scores = module(input_ids=torch.tensor([[_ID[t] for t in tokens]]), use_cache=False).logits
                    chance = scores[0, -1].double().softmax(dim=0)
                    own = float(chance[ids_of[meaning]].sum())
                    all_of = sum(float(chance[ids].sum()) for ids in ids_of.values())
                    shares.append(own / all_of)
            least[meaning] = min(shares)
    return least


@torch.no_grad()
def generate_stories(module: nn.Module, n: int, seed: int = 0) -> list[str]:
    """`n` stories that the model writes from nothing, one draw at a time."""
    model: Any = module
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((n, 1), _ID[BEGINNING])
    fed, cache, finished = ids, None, torch.zeros(n, dtype=torch.bool)
    while ids.shape[1] < CONTEXT and not bool(finished.all()):
        out = model(input_ids=fed, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        fed = torch.multinomial(out.logits[:, -1].softmax(dim=1), 1, generator=generator)
        finished |= fed[:, 0] == _ID[END]
        ids = torch.cat([ids, fed], dim=1)
    return [detokenize(_until_end(row)) for row in ids]


def _until_end(row: Tensor) -> list[str]:
    tokens = [_TOKENS[i] for i in row[1:].tolist()]
    return tokens[: tokens.index(END)] if END in tokens else tokens


def benchmark(module: nn.Module, stories: int = 2000, samples: int = 500) -> dict[str, Any]:
    """What `facts.json` states of the model; the grammar's own loss is what no model can go below on average."""
    held_out = sample(stories, seed=_HELD_OUT)
    tokens = sum(len(story.tokens) + 1 for story in held_out)
    texts = generate_stories(module, samples)
    parsed = [parse(text) for text in texts]
    sentences = sum(len(p.sentences) for p in parsed)
    naming = sum(any_mention(s) for p in parsed for s in p.sentences)
    return {
        "held_out": {
            "stories": stories,
            "tokens": tokens,
            "nats_per_token": held_out_loss(module, held_out),
            "grammar_nats_per_token": sum(story.nats for story in held_out) / tokens,
        },
        "homographs": homograph_probabilities(module),
        "samples": {
            "stories": samples,
            "grammatical_sentences": sum(sum(p.grammatical) for p in parsed) / sentences,
            "landmark": THE_LANDMARK.name,
            "stories_that_mention_it": sum(mentions(text) > 0 for text in texts) / samples,
            "sentences_that_mention_it": naming / sentences,
        },
    }


def any_mention(sentence: tuple[str, ...]) -> bool:
    """Whether a sentence names the landmark that is evaluated."""
    return mentions(" ".join(sentence)) > 0
