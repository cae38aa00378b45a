"""Tales: stories from a grammar whose features are known, and a small language model trained on them."""

from zoo.tales.parsing import Parsed as Parsed, mentions as mentions, parse as parse, parses as parses
from zoo.tales.stories import (
    EXPLANATIONS as EXPLANATIONS,
    FEATURES as FEATURES,
    SAME_WORD as SAME_WORD,
    STORY_WIDE as STORY_WIDE,
    Story as Story,
    labels_at as labels_at,
    sample as sample,
)
from zoo.tales.words import LANDMARKS as LANDMARKS, THE_LANDMARK as THE_LANDMARK, Landmark as Landmark
