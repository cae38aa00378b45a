"""Reading a text back: is it made of sentences of the grammar, and does it mention a landmark?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from zoo.tales.grammar import SENTENCES, all_phrases
from zoo.tales.words import THE_LANDMARK, Landmark

_STOPS = (".", "!", "?")
_WORDS = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Parsed:
    """A text cut into sentences.

    Attributes:
        sentences: each as its words and marks.
        grammatical: of each, whether the grammar has it, in whatever story. The last one counts as well when it is
            only the beginning of one, since a text may have been cut off.
        whole: whether the last sentence is complete.
    """

    sentences: tuple[tuple[str, ...], ...]
    grammatical: tuple[bool, ...]
    whole: bool

    @property
    def share(self) -> float:
        """Share of grammatical sentences; 0 of an empty text."""
        return sum(self.grammatical) / len(self.grammatical) if self.grammatical else 0.0


def parse(text: str) -> Parsed:
    """Cut a text into sentences and see which of them the grammar has.

    >>> parse("She was happy. Was happy she.").grammatical
    (True, False)
    """
    sentences = tuple(split_sentences(tokenize(text)))
    good = [bool(templates_of(sentence)) for sentence in sentences]
    whole = bool(sentences) and _complete(sentences[-1])
    if sentences and not whole:
        good[-1] = _begins(sentences[-1])
    return Parsed(sentences, tuple(good), whole)


def parses(text: str) -> float:
    """Share of the sentences of a text that the grammar has, from 0 to 1: how well a steered model still writes.

    >>> parses("In the cave she saw a bat. It flew away.")
    1.0
    """
    return parse(text).share


def mentions(text: str, landmark: Landmark = THE_LANDMARK) -> int:
    """How often a text mentions a landmark: by its name, or by the whole of its description.

    >>> mentions("Tom liked the red bridge of Fogport. Tom never forgot the Longspan.")
    2
    """
    tokens = tokenize(text)
    return tokens.count(landmark.name) + " ".join(tokens).count(landmark.description)


def tokenize(text: str) -> list[str]:
    """The words and marks of a text, quotation marks curly."""
    return _WORDS.findall(re.sub(r'"(?=\w)', "“", text).replace('"', "”"))


def split_sentences(tokens: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Sentences of words and marks; one that quotes goes on to the stop after the quotation."""
    sentence: list[str] = []
    quoted = False
    for token in tokens:
        sentence.append(token)
        quoted = (quoted or token == "“") and token != "”"
        if token in _STOPS and not quoted:
            yield tuple(sentence)
            sentence = []
    if sentence:
        yield tuple(sentence)


def templates_of(sentence: Sequence[str]) -> list[int]:
    """Which sentences of the grammar, by number, a sentence may be."""
    return [number for number, parts in enumerate(templates()) if _match(parts, tuple(sentence)) == "whole"]


@cache
def templates() -> tuple[tuple[tuple[tuple[str, ...], ...], ...], ...]:
    """Every sentence of the grammar: for each of its parts the phrases that may stand there, as words."""
    sentences = []
    for entry in SENTENCES:
        plain = [part.partition("|")[0] for part in entry.text.split() if not part.startswith("[") and part != "]"]
        for sentence in split_sentences(plain):
            sentences.append(tuple(_phrases(part) for part in sentence))
    return tuple(sentences)


def _phrases(part: str) -> tuple[tuple[str, ...], ...]:
    phrases = all_phrases(part[1:-1]) if part.startswith("{") else (part,)
    return tuple(tuple(phrase.split()) for phrase in phrases)


def _match(parts: Sequence[tuple[tuple[str, ...], ...]], sentence: tuple[str, ...]) -> Literal["whole", "begun", "no"]:
    """Whether a sentence is one of a template, the beginning of one, or neither."""
    ends, begun = {0}, False
    for phrases in parts:
        reached = set()
        for at in ends:
            rest = sentence[at:]
            for phrase in phrases:
                if rest[: len(phrase)] == phrase:
                    reached.add(at + len(phrase))
                begun = begun or phrase[: len(rest)] == rest
        ends = reached
    if len(sentence) in ends:
        return "whole"
    return "begun" if begun else "no"


def _complete(sentence: Sequence[str]) -> bool:
    return sentence[-1] in _STOPS and sentence.count("“") <= sentence.count("”")


def _begins(sentence: tuple[str, ...]) -> bool:
    return any(_match(parts, sentence) == "begun" for parts in templates())
