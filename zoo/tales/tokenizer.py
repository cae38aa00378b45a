"""The tokenizer of the tales: one token per word or mark, `<s>` in front."""

from __future__ import annotations

from typing import Any

from zoo.tales.grammar import SENTENCES, all_phrases

UNKNOWN, BEGINNING, END = "<unk>", "<s>", "</s>"
CONTEXT = 256
"""Tokens that the model takes at most; the longest story has about half as many."""


def vocabulary() -> list[str]:
    """All tokens in the order of their ids: the three special ones, then words and marks by alphabet."""
    words: set[str] = set()
    for sentence in SENTENCES:
        for part in sentence.text.split():
            if part.startswith("{"):
                words.update(word for phrase in all_phrases(part[1:-1]) for word in phrase.split())
            elif not part.startswith("[") and part != "]":
                words.add(part.partition("|")[0])
    return [UNKNOWN, BEGINNING, END, *sorted(words)]


def tokenizer() -> Any:
    """A Hugging Face tokenizer whose `decode` gives running text.

    Straight quotation marks are read as curly ones: one before a word opens, any other closes.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(vocabulary())}
    backend = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r'"(?=\w)'), "“"), normalizers.Replace(Regex('"'), "”")]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[^\w]"), "isolated")]
    )
    spaces = [decoders.Replace(f" {mark}", mark) for mark in ".,!?”"]
    backend.decoder = decoders.Sequence(
        # this decoder is the one that puts spaces between tokens; no token begins with its prefix
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse(), *spaces, decoders.Replace("“ ", "“")]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BEGINNING} $A",
        pair=f"{BEGINNING} $A {BEGINNING} $B",
        special_tokens=[(BEGINNING, ids[BEGINNING])],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        unk_token=UNKNOWN,
        bos_token=BEGINNING,
        eos_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
