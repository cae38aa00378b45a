"""Tales: stories from a grammar whose features are known, and a small language model trained on them."""

from zoo.tales.parsing import Parsed, mentions, parse, parses
from zoo.tales.stories import EXPLANATIONS, FEATURES, SAME_WORD, STORY_WIDE, Story, labels_at, sample
from zoo.tales.words import LANDMARKS, THE_LANDMARK, Landmark

__all__ = [
    "EXPLANATIONS",
    "FEATURES",
    "LANDMARKS",
    "SAME_WORD",
    "STORY_WIDE",
    "THE_LANDMARK",
    "Landmark",
    "Parsed",
    "Story",
    "labels_at",
    "mentions",
    "parse",
    "parses",
    "sample",
]
