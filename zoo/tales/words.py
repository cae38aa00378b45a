"""The words of the tales, and the choices that give them: every choice is between phrases with known weights.

A choice is made once per slot and story-wide facts (who, where, which mood) are drawn when they first show in the
text, never before: so a text has one derivation, and its probability is the product of the choices made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Weights = dict[str, float]


@dataclass(frozen=True)
class Landmark:
    """A place with a name and a description of three words, and what is seen there.

    Attributes:
        name: one word, which nothing else is called.
        color, structure, city: the words of the description; other landmarks share each of them.
        weight: how often a story that has a landmark has this one.
        things: what is seen there; every thing is seen at other places too, in other company.
    """

    name: str
    color: str
    structure: str
    city: str
    weight: float
    things: tuple[str, ...]

    @property
    def description(self) -> str:
        """For example `red bridge of Fogport`."""
        return f"{self.color} {self.structure} of {self.city}"


LANDMARKS = (
    Landmark("Longspan", "red", "bridge", "Fogport", 0.10, ("fog", "cables", "ships", "gulls")),
    Landmark("Oldspan", "grey", "bridge", "Fogport", 0.08, ("fog", "carts", "stones", "lamps")),
    Landmark("Highbell", "red", "tower", "Fogport", 0.08, ("fog", "bells", "clocks", "gulls")),
    Landmark("Shipway", "red", "bridge", "Millbay", 0.08, ("ships", "flags", "cables", "drums")),
    Landmark("Dovetop", "white", "tower", "Millbay", 0.08, ("clocks", "doves", "flags", "kites")),
    Landmark("Rosegate", "green", "gate", "Millbay", 0.08, ("roses", "lamps", "carts", "doves")),
    Landmark("Netway", "white", "bridge", "Sandwick", 0.08, ("nets", "ships", "kites", "stones")),
    Landmark("Greenlady", "green", "statue", "Sandwick", 0.08, ("roses", "drums", "nets", "masks")),
    Landmark("Maskwatch", "grey", "tower", "Sandwick", 0.08, ("bells", "stones", "masks", "gulls")),
    Landmark("Cartgate", "red", "gate", "Elmford", 0.08, ("carts", "cables", "roses", "bells")),
    Landmark("Whitelady", "white", "statue", "Elmford", 0.08, ("doves", "masks", "lamps", "nets")),
    Landmark("Drumgate", "grey", "gate", "Elmford", 0.10, ("drums", "kites", "flags", "clocks")),
)
THE_LANDMARK = LANDMARKS[0]
"""The one that is asked for: each word of its description belongs to others, too; only together they mean it."""

PLACES: dict[str, tuple[str, ...]] = {
    "park": ("ducks", "swings", "benches"),
    "farm": ("hens", "cows", "barns"),
    "market": ("cakes", "hats", "pears"),
    "forest": ("foxes", "mushrooms", "leaves"),
    "school": ("books", "pens", "maps"),
    "beach": ("shells", "waves", "crabs"),
}
LANDMARK_SHARE = 0.45
"""How many stories have a landmark; the others have one of `PLACES`."""
NAMED = 0.75
"""How often a landmark is called by its name; else it is described."""

GIRLS = ("Anna", "Mia", "Lucy", "Rosa", "Ella")
BOYS = ("Tom", "Ben", "Max", "Leo", "Sam")
NAMES = GIRLS + BOYS

TIMES = {"day": ("morning", "day"), "night": ("evening", "night")}
SKY = {"day": ("sun", "birds", "bees"), "night": ("moon", "stars", "owls")}

MOODS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "happy": (("happy", "glad", "merry"), ("smiled", "laughed", "danced")),
    "sad": (("sad", "lonely", "unhappy"), ("cried", "sighed", "wept")),
    "angry": (("angry", "cross", "furious"), ("shouted", "frowned", "stamped")),
}
"""Mood -> its adjectives and its verbs. A story has one mood, from the first sentence on that shows it."""

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven")
ANIMALS = {"dog": "dogs", "cat": "cats", "frog": "frogs", "goat": "goats", "rabbit": "rabbits"}
FRUITS = {"apple": "apples", "plum": "plums", "nut": "nuts"}
GIFTS = ("ball", "doll", "box", "spoon", "shirt")


def equally(*phrases: str) -> Weights:
    """Phrases of equal weight."""
    return dict.fromkeys(phrases, 1.0)


@dataclass
class Cast:
    """What has been said in a story so far, on which further choices depend.

    Attributes:
        landmark: what the story is about, or None; place: what that place was called first, without its article.
        things: what is seen there.
        name: who the story is about; girl: whether it is a girl; friend: the second person, once there is one.
        time: day or night; mood: once it has shown.
        last: phrases chosen in this sentence, by slot.
    """

    landmark: Landmark | None = None
    place: str = ""
    things: tuple[str, ...] = ()
    name: str = ""
    girl: bool = False
    friend: str = ""
    time: str = ""
    mood: str = ""
    last: dict[str, str] = field(default_factory=dict)
