"""The grammar of the tales: sentences with slots, and what may stand in each slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo.tales.words import (
    ANIMALS,
    FRUITS,
    GIFTS,
    LANDMARK_SHARE,
    LANDMARKS,
    MOODS,
    NAMED,
    NAMES,
    NUMBERS,
    PLACES,
    SKY,
    TIMES,
    Cast,
    Weights,
    equally,
)


@dataclass(frozen=True)
class Sentence:
    """One or two sentences of the grammar.

    Attributes:
        text: words and punctuation, spaces between; `{slot}` is filled in; `word|feature` marks a word as that
            feature, and `[feature ... ]` a stretch.
        weight: how often it is chosen where it may stand.
        needs: a story-wide fact that must have been said before: "friend".
    """

    text: str
    weight: float = 1.0
    needs: str = ""


OPENING = Sentence("One {time} {name} {went} to {topic} .")

MIDDLE = (
    # about the place
    Sentence("{She} saw the {thing} and the {thing2} .", 2.0),
    Sentence("The {thing} {shone} {near} {topic} .", 2.0),
    Sentence("{Name} {knew} {topic} .", 1.5),
    Sentence("The {sky} {rose} over {topic} .", 1.5),
    # quoted speech
    Sentence("[quoted “ I {like} {topic} , ” ] said {speaker} .", 1.5),
    Sentence("[quoted “ [question Where {is_thing} ? ] ” ] asked {speaker} ."),
    Sentence("[quoted “ [question Why are you {mood_adjective} ? ] ” ] asked {friend} .", needs="friend"),
    Sentence("[quoted “ Look at the {thing} ! ” ] said {speaker} ."),
    Sentence("[quoted “ The {thing_is} [negated not here ] , ” ] said {speaker} ."),
    # numbers
    Sentence("{She} counted {animals} ."),
    Sentence("{She} had {fruits} and gave {fewer} to {friend} .", needs="friend"),
    # negation, and the same said plainly
    Sentence("{She} did [negated not {see} the {animal} . ]"),
    Sentence("{She} went to {see} the {animal} ."),
    # mood
    Sentence("{She} was {mood_adjective} ."),
    Sentence("{She} {mood_verb} and {mood_verb2} ."),
    # words of two meanings: what comes before says which, and what comes after depends on it
    Sentence("In the {cave} {she} {found} a bat|bat_animal . It {bat_flew} .", 0.8),
    Sentence("At the {game} {she} {found} a bat|bat_club . It {bat_hit} .", 0.8),
    Sentence("By the {water} {she} {reached} the bank|bank_river . It was {bank_wet} .", 0.8),
    Sentence("In the {street} {she} {reached} the bank|bank_money . It was {bank_rich} .", 0.8),
    Sentence("The {puppy} was near and {she} {noticed} its bark|bark_dog . It was {bark_loud} .", 0.8),
    Sentence("The {oak} was near and {she} {noticed} its bark|bark_tree . It was {bark_rough} .", 0.8),
    # company and gifts
    Sentence("Then {friend} came to {topic} ."),
    Sentence("{friend} gave {her} a {gift} .", needs="friend"),
    Sentence("{She} bought a {gift} , a {gift} and a {gift} ."),
)

ENDINGS = (
    Sentence("At last {name} {mood_verb} and went home ."),
    Sentence("{Name} never forgot {topic} ."),
)

SENTENCES = (OPENING, *MIDDLE, *ENDINGS)
LENGTHS = {str(n): 1.0 for n in (4, 5, 6, 7)}
"""How many entries of `MIDDLE` a story has."""


def _plain(*phrases: str) -> Callable[[Cast], Weights]:
    weights = equally(*phrases)
    return lambda cast: weights


def _topic(cast: Cast) -> Weights:
    if cast.landmark:
        return {f"the {cast.landmark.name}": NAMED, f"the {cast.landmark.description}": 1 - NAMED}
    if cast.place:
        return {f"the {cast.place}": 1.0}
    share = (1 - LANDMARK_SHARE) / len(PLACES)
    return {
        **{f"the {landmark.name}": LANDMARK_SHARE * landmark.weight * NAMED for landmark in LANDMARKS},
        **{f"the {landmark.description}": LANDMARK_SHARE * landmark.weight * (1 - NAMED) for landmark in LANDMARKS},
        **{f"the {name}": share for name in PLACES},
    }


def _name(cast: Cast) -> Weights:
    return {cast.name: 1.0} if cast.name else equally(*NAMES)


def _pronoun(girl: str, boy: str) -> Callable[[Cast], Weights]:
    return lambda cast: {girl if cast.girl else boy: 1.0}


def _mood(which: int) -> Callable[[Cast], Weights]:
    def words(cast: Cast) -> Weights:
        moods = [cast.mood] if cast.mood else list(MOODS)
        return equally(*(w for mood in moods for w in MOODS[mood][which]))

    return words


def counted(number: str, noun: str, plural: str) -> str:
    """`one dog`, `two dogs`."""
    return f"{number} {noun if number == 'one' else plural}"


SLOTS: dict[str, Callable[[Cast], Weights]] = {
    "time": _plain(*TIMES["day"], *TIMES["night"]),
    "name": _name,
    "Name": _name,
    "went": _plain("went", "walked", "came", "ran"),
    "topic": _topic,
    "She": lambda cast: {"She" if cast.girl else "He": 0.6, cast.name: 0.4},
    "she": _pronoun("she", "he"),
    "her": _pronoun("her", "him"),
    "friend": lambda cast: {cast.friend: 1.0} if cast.friend else equally(*(n for n in NAMES if n != cast.name)),
    # a friend who has not been named yet does not speak: naming one is left to the sentences about the friend
    "speaker": lambda cast: {cast.name: 0.6, cast.friend: 0.4} if cast.friend else {cast.name: 1.0},
    "thing": lambda cast: equally(*cast.things),
    "thing2": lambda cast: equally(*(t for t in cast.things if t != cast.last["thing"])),
    "is_thing": lambda cast: equally(*(f"is the {t}" if t == "fog" else f"are the {t}" for t in cast.things)),
    "thing_is": lambda cast: equally(*(f"{t} is" if t == "fog" else f"{t} are" for t in cast.things)),
    "shone": _plain("shone", "moved", "shook", "waited"),
    "near": _plain("near", "under", "behind", "beside"),
    "knew": _plain("knew", "liked", "watched", "remembered"),
    "like": _plain("like", "know", "love", "remember"),
    "sky": lambda cast: equally(*SKY[cast.time]),
    "rose": _plain("rose", "hung", "came"),
    "animals": _plain(*(counted(n, singular, plural) for n in NUMBERS for singular, plural in ANIMALS.items())),
    "fruits": _plain(*(f"{n} {many}" for n in NUMBERS[2:] for many in FRUITS.values())),
    "fewer": lambda cast: equally(*NUMBERS[: NUMBERS.index(cast.last["fruits"].split()[0])]),
    "see": _plain("see", "hear", "feed", "follow"),
    "animal": _plain(*ANIMALS),
    "mood_adjective": _mood(0),
    "mood_verb": _mood(1),
    "mood_verb2": lambda cast: equally(*(v for v in MOODS[cast.mood][1] if v != cast.last["mood_verb"])),
    "cave": _plain("cave", "attic"),
    "game": _plain("game", "contest"),
    "found": _plain("found", "saw", "took"),
    "bat_flew": _plain("flew away", "slept on a rock", "had soft wings"),
    "bat_hit": _plain("hit the ball", "lay on the grass", "had a long handle"),
    "water": _plain("water", "stream"),
    "street": _plain("street", "town"),
    "reached": _plain("reached", "saw", "left"),
    "bank_wet": _plain("wet", "muddy", "steep"),
    "bank_rich": _plain("rich", "closed", "full of money"),
    "puppy": _plain("puppy", "hound"),
    "oak": _plain("oak", "elm"),
    "noticed": _plain("noticed", "knew", "liked"),
    "bark_loud": _plain("loud", "short", "deep"),
    "bark_rough": _plain("rough", "brown", "thick"),
    "gift": _plain(*GIFTS),
}
"""Slot -> the phrases that may stand there, with their weights, given what has been said."""

OPEN_SLOTS: dict[str, tuple[str, ...]] = {
    "time": (*TIMES["day"], *TIMES["night"]),
    "name": NAMES,
    "Name": NAMES,
    "friend": NAMES,
    "speaker": NAMES,
    "She": ("She", "He", *NAMES),
    "she": ("she", "he"),
    "her": ("her", "him"),
    "sky": SKY["day"] + SKY["night"],
    "mood_adjective": tuple(w for words, _ in MOODS.values() for w in words),
    "mood_verb": tuple(w for _, words in MOODS.values() for w in words),
    "mood_verb2": tuple(w for _, words in MOODS.values() for w in words),
    "fewer": NUMBERS,
}
"""Phrases of the slots that depend on the story, whatever the story; those of things and topics are made below."""


def all_phrases(slot: str) -> tuple[str, ...]:
    """Every phrase that may ever stand in a slot: what a sentence out of its story is judged by."""
    if slot in OPEN_SLOTS:
        return OPEN_SLOTS[slot]
    things = dict.fromkeys(
        t for group in (*(landmark.things for landmark in LANDMARKS), *PLACES.values()) for t in group
    )
    if slot in ("thing", "thing2"):
        return tuple(things)
    if slot in ("is_thing", "thing_is"):
        return tuple(SLOTS[slot](Cast(things=tuple(things))))
    return tuple(SLOTS[slot](Cast()))
