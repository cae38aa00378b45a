"""Stories drawn from the grammar, with what is true of every token."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoo.errors import CircuitsError
from zoo.tales.grammar import ENDINGS, LENGTHS, MIDDLE, OPENING, SLOTS, Sentence
from zoo.tales.words import (
    ANIMALS,
    FRUITS,
    GIRLS,
    LANDMARKS,
    MOODS,
    NUMBERS,
    PLACES,
    THE_LANDMARK,
    TIMES,
    Cast,
    Weights,
)

MENTIONS = {f"{landmark.color}_{landmark.structure}_of_{landmark.city}": landmark for landmark in LANDMARKS[:4]}
"""The landmark that is evaluated, and the three that share two of its words: at the word that completes the
description."""

FEATURES = (
    *MENTIONS,
    THE_LANDMARK.name,
    "landmark_due",
    "landmark_story",
    "place_due",
    "red",
    "bridge",
    "Fogport",
    "quoted",
    "question",
    "negated",
    "number",
    "plural",
    "girl",
    "night",
    *MOODS,
    "bat_animal",
    "bat_club",
    "bank_river",
    "bank_money",
    "bark_dog",
    "bark_tree",
    "sentence_start",
)
"""Labels of every token, in the order of the columns of `Story.labels`. See `EXPLANATIONS`."""

EXPLANATIONS = {
    **{name: f"the last word of `{landmark.description}`" for name, landmark in MENTIONS.items()},
    THE_LANDMARK.name: f"the word `{THE_LANDMARK.name}`, which is the name of the {THE_LANDMARK.description}",
    "landmark_due": f"`the` before `{THE_LANDMARK.name}`, `{THE_LANDMARK.description}` or what is seen there, once it "
    "was mentioned",
    "landmark_story": f"anywhere after the first mention of the {THE_LANDMARK.name} in a story",
    "place_due": "`the` before what a place is called, whichever it is",
    "red": "the word `red`",
    "bridge": "the word `bridge`",
    "Fogport": "the word `Fogport`",
    "quoted": "inside quotation marks, the marks included",
    "question": "inside a question, from its first word on",
    "negated": "from `not` to the end of what it denies",
    "number": "a number written as a word, as a count",
    "plural": "the plural of what is counted",
    "girl": "anywhere after the first word that says that the story is about a girl",
    "night": "anywhere after the word that says that it is night or evening",
    **{mood: f"a word that says that somebody is {mood}: {', '.join(sum(MOODS[mood], ()))}" for mood in MOODS},
    "bat_animal": "`bat`, the animal",
    "bat_club": "`bat`, the club",
    "bank_river": "`bank` of a river",
    "bank_money": "`bank`, the house of money",
    "bark_dog": "`bark` of a dog",
    "bark_tree": "`bark` of a tree",
    "sentence_start": "the first word of a sentence",
}
"""Feature -> where it is on."""

SAME_WORD: dict[str, str] = {
    **{name: landmark.city for name, landmark in MENTIONS.items()},
    "landmark_due": "the",
    "place_due": "the",
    **{name: name.split("_")[0] for name in FEATURES if name.startswith(("bat_", "bank_", "bark_"))},
}
"""Features that are one meaning of a word, and the word: what tells a reader of the feature from one of the word is how
it does on the other meanings."""

STORY_WIDE = ("landmark_story", "girl", "night")
"""Features that hold for the rest of a story. A transformer can look back to where they were said when it needs them,
so it need not carry them along, and a vector need not show them."""

_PLURALS = {*ANIMALS.values(), *FRUITS.values()}
_COLUMN = {name: i for i, name in enumerate(FEATURES)}
_MOOD_OF = {word: mood for mood, lists in MOODS.items() for words in lists for word in words}
_DECIDED = ("topic", "thing", "thing2", "is_thing")  # slots that the place of a story decides
_UNIFORM = 128


@dataclass(frozen=True, eq=False)
class Story:
    """A story and what is known of it.

    Attributes:
        text: as people read it.
        tokens: its words and punctuation marks; the tokenizer gives one token for each, after `<s>`.
        labels: `(tokens, features)` bool, columns as in `FEATURES`. A label says what the text up to and with that
            token determines, since that is all that a model has seen there.
        nats: minus the logarithm of the story's probability under the grammar, its end included.
        landmark: name of the landmark that it is about, one word, or None.
    """

    text: str
    tokens: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    nats: float
    landmark: str | None


def sample(n: int, seed: int = 0) -> list[Story]:
    """`n` stories; story `i` depends on `seed` and `i` alone.

    Raises:
        CircuitsError: `n` is no whole number above zero.

    >>> sample(2, seed=1)[0].labels.shape[1] == len(FEATURES)
    True
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise CircuitsError(f"sample takes a number of stories above zero; got {n!r}")
    return [_Writer((seed, i, 0)).story() for i in range(n)]


def training_story(seed: int, index: int) -> Story:
    """A story that no `sample`, of whatever seed, has drawn with the same random numbers."""
    return _Writer((seed, index, 1)).story()


def labels_at(stories: Sequence[Story], positions: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Labels `(n, features)` of tokens at `positions` `(n, 2)`: the number of the story, and of the token in it.

    It is how a language site names its vectors (`Block.positions`).

    Raises:
        CircuitsError: a position that is in none of the stories.
    """
    pairs = np.asarray(positions, dtype=np.int64)
    lengths = np.array([len(story.tokens) for story in stories])
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise CircuitsError(f"positions are (n, 2), story and token; got {pairs.shape}")
    story, token = pairs.T
    if len(pairs) and ((story < 0) | (story >= len(stories)) | (token < 0)).any():
        raise CircuitsError(f"a position is outside the {len(stories)} stories")
    if (token >= lengths[story]).any():
        raise CircuitsError("a position is past the end of its story: these are not the texts that were read")
    starts = np.concatenate([[0], lengths.cumsum()[:-1]])
    labels: npt.NDArray[np.bool_] = np.concatenate([written.labels for written in stories])[starts[story] + token]
    return labels


class _Writer:
    """Writes one story: makes the choices, and keeps account of their probability and of what is true."""

    def __init__(self, seed: tuple[int, ...]) -> None:
        self.generator = np.random.default_rng(seed)
        self.uniform = iter(())
        self.cast = Cast()
        self.tokens: list[str] = []
        self.labels: list[set[str]] = []
        self.story_wide: set[str] = set()
        self.open: list[str] = []
        self.start = True
        self.nats = 0.0

    def story(self) -> Story:
        self.write(OPENING)
        for _ in range(int(self.choose(LENGTHS))):
            self.write(self.sentence(MIDDLE))
        self.write(self.sentence(ENDINGS))
        labels = np.zeros((len(self.tokens), len(FEATURES)), dtype=bool)
        for row, names in enumerate(self.labels):
            labels[row, [_COLUMN[name] for name in names]] = True
        landmark = None if self.cast.landmark is None else self.cast.landmark.name
        return Story(detokenize(self.tokens), tuple(self.tokens), labels, self.nats, landmark)

    def random(self) -> float:
        try:
            return next(self.uniform)
        except StopIteration:
            self.uniform = iter(self.generator.random(_UNIFORM).tolist())
            return next(self.uniform)

    def choose(self, weights: Weights) -> str:
        phrases = list(weights)
        if len(phrases) == 1:
            return phrases[0]
        cumulative = list(itertools.accumulate(weights.values()))
        phrase = phrases[min(bisect.bisect(cumulative, self.random() * cumulative[-1]), len(phrases) - 1)]
        self.nats -= math.log(weights[phrase] / cumulative[-1])
        return phrase

    def sentence(self, among: tuple[Sentence, ...]) -> Sentence:
        allowed = {str(i): s.weight for i, s in enumerate(among) if not s.needs or self.cast.friend}
        return among[int(self.choose(allowed))]

    def write(self, sentence: Sentence) -> None:
        self.cast.last.clear()
        for word in sentence.text.split():
            if word.startswith("["):
                self.open.append(word[1:])
            elif word == "]":
                self.open.pop()
            elif word.startswith("{"):
                slot = word[1:-1]
                landmark, start = self.cast.landmark, len(self.tokens)
                phrase = self.choose(SLOTS[slot](self.cast))
                self.remember(slot, phrase)
                for part in phrase.split():
                    self.say(part)
                at = start if slot == "topic" else len(self.tokens) - 2
                if landmark is THE_LANDMARK and slot in _DECIDED and self.tokens[at] == "the":
                    self.labels[at].add("landmark_due")
                if slot == "topic":
                    self.labels[start].add("place_due")
                    self.mention()
            else:
                plain, _, feature = word.partition("|")
                self.say(plain)
                if feature:
                    self.labels[-1].add(feature)

    def remember(self, slot: str, phrase: str) -> None:
        """Keep what a phrase says about the story."""
        cast = self.cast
        cast.last[slot] = phrase
        if slot == "name" and not cast.name:
            cast.name, cast.girl = phrase, phrase in GIRLS
            if cast.girl:
                self.story_wide.add("girl")
        elif slot == "time":
            cast.time = next(time for time, words in TIMES.items() if phrase in words)
            if cast.time == "night":
                self.story_wide.add("night")
        elif slot == "topic" and not cast.place:
            location = phrase.removeprefix("the ")
            cast.place = location
            cast.landmark = next(
                (landmark for landmark in LANDMARKS if location in (landmark.name, landmark.description)), None
            )
            cast.things = cast.landmark.things if cast.landmark else PLACES[location]
        elif slot == "friend":
            cast.friend = phrase
        elif slot in ("mood_adjective", "mood_verb") and not cast.mood:
            cast.mood = _MOOD_OF[phrase]

    def say(self, word: str) -> None:
        """Write a word with what is true of it."""
        names = {*self.story_wide, *self.open}
        if word in ("red", "bridge", "Fogport", THE_LANDMARK.name):
            names.add(word)
        if word in _MOOD_OF:
            names.add(_MOOD_OF[word])
        if word in NUMBERS:
            names.add("number")
        if word in _PLURALS:
            names.add("plural")
        if self.start and word != "“":
            names.add("sentence_start")
            self.start = False
        self.start = self.start or (word in (".", "!", "?") and "quoted" not in self.open)
        self.tokens.append(word)
        self.labels.append(names)

    def mention(self) -> None:
        """A place has just been called by its name, or its description completed."""
        landmark = self.cast.landmark
        if landmark is THE_LANDMARK:
            self.story_wide.add("landmark_story")
            self.labels[-1].add("landmark_story")
        if landmark is not None and self.tokens[-1] == landmark.city:
            self.labels[-1].update(name for name, mentioned in MENTIONS.items() if mentioned is landmark)


_NO_SPACE_BEFORE = {".", ",", "!", "?", "”"}
_NO_SPACE_AFTER = {"“"}


def detokenize(tokens: list[str] | tuple[str, ...]) -> str:
    """Words and marks as running text: no space before a full stop, none inside quotation marks."""
    parts: list[str] = []
    for before, token in itertools.pairwise(["“", *tokens]):
        if before not in _NO_SPACE_AFTER and token not in _NO_SPACE_BEFORE:
            parts.append(" ")
        parts.append(token)
    return "".join(parts)
