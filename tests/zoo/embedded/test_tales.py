"""The tales: a grammar whose features are known, and a model that has learned it."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.threads import one_thread  # noqa: F401 - a fixture for all
from zoo import tales
from zoo.errors import CircuitsError, FileError
from zoo.networks.language import LanguageModel, load_language, tales_folder
from zoo.tales.parsing import split_sentences, templates_of, tokenize
from zoo.tales.stories import MENTIONS, Story, detokenize, training_story
from zoo.tales.tokenizer import CONTEXT, vocabulary
from zoo.tales.words import ANIMALS, FRUITS, LANDMARKS, MOODS, NAMED, NAMES, NUMBERS, PLACES

STORIES = tales.sample(400, seed=11)
MANY = tales.sample(1500, seed=5)
COLUMN = {name: i for i, name in enumerate(tales.FEATURES)}


def on(story: Story, feature: str) -> list[int]:
    """The tokens at which a feature is on."""
    return np.flatnonzero(story.labels[:, COLUMN[feature]]).tolist()


# -- the grammar --------------------------------------------------------------------------------------------


def test_a_story_depends_on_seed_and_number_alone() -> None:
    again = tales.sample(5, seed=11)
    assert [s.text for s in again] == [s.text for s in STORIES[:5]]
    assert all((a.labels == b.labels).all() and a.nats == b.nats for a, b in zip(again, STORIES, strict=False))
    assert len({s.text for s in [*STORIES, *tales.sample(400, seed=12)]}) == 800


def test_no_training_story_is_a_sample() -> None:
    drawn = {training_story(11, i).text for i in range(400)}
    assert len(drawn) == 400 and not drawn & {s.text for s in STORIES}


def test_every_sentence_is_one_of_the_grammar_and_in_one_way() -> None:
    """One derivation per text: else the product of the choices would not be the text's probability."""
    for story in STORIES:
        for sentence in split_sentences(story.tokens):
            assert len(templates_of(sentence)) == 1, sentence


def test_the_first_sentence_has_the_probability_of_its_choices() -> None:
    from zoo.tales.grammar import OPENING
    from zoo.tales.stories import _Writer

    for seed in range(40):
        writer = _Writer((seed, 0, 0))
        writer.write(OPENING)
        place = writer.cast.landmark
        called = NAMED if place and place.name in writer.tokens else 1 - NAMED
        topic = 0.45 * place.weight * called if place else 0.55 / len(PLACES)
        assert writer.nats == pytest.approx(-math.log(topic / (4 * len(NAMES) * 4)))
    assert sum(one.weight for one in LANDMARKS) == pytest.approx(1.0)


def test_probabilities_are_those_with_which_stories_are_drawn() -> None:
    shares = {one.name: 0.45 * one.weight for one in LANDMARKS}
    for name, share in shares.items():
        found = np.mean([s.landmark == name for s in MANY])
        assert abs(found - share) < 5 * math.sqrt(share / len(MANY))


def test_the_landmark_shares_each_word_with_others_and_is_rare() -> None:
    the, others = tales.THE_LANDMARK, [one for one in LANDMARKS if one is not tales.THE_LANDMARK]
    for a, b in itertools.combinations(("color", "structure", "city"), 2):
        assert any(getattr(o, a) == getattr(the, a) and getattr(o, b) == getattr(the, b) for o in others)
    assert len({one.name for one in LANDMARKS}) == len(LANDMARKS)
    assert all(any(thing in o.things for o in others) for thing in the.things)
    sentences = [s for story in MANY for s in split_sentences(story.tokens)]
    naming = [s for s in sentences if tales.mentions(" ".join(s))]
    assert 0.01 < len(naming) / len(sentences) < 0.03
    assert 0.03 < np.mean([tales.mentions(s.text) > 0 for s in MANY]) < 0.06


def test_a_landmark_is_called_by_a_name_of_its_own_or_described() -> None:
    assert len({one.name for one in LANDMARKS}) == len({one.description for one in LANDMARKS}) == len(LANDMARKS)
    for one in LANDMARKS:
        about = [s for s in MANY if s.landmark == one.name]
        named = sum(s.tokens.count(one.name) for s in about)
        described = sum(tales.mentions(s.text, one) for s in about) - named
        both = named + described
        assert abs(named / both - NAMED) < 5 * math.sqrt(NAMED * (1 - NAMED) / both)
        assert not any(tales.mentions(s.text, one) for s in MANY if s.landmark != one.name)


def test_stories_fit_into_the_context() -> None:
    assert max(len(s.tokens) for s in MANY) + 2 < CONTEXT


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "3"])
def test_a_number_of_stories_is_a_number(n: Any) -> None:
    with pytest.raises(CircuitsError, match="number of stories"):
        tales.sample(n)


# -- labels -------------------------------------------------------------------------------------------------


def test_every_feature_is_explained_and_shows_up() -> None:
    labels = np.concatenate([s.labels for s in STORIES])
    assert list(tales.EXPLANATIONS) == list(tales.FEATURES) and len(tales.FEATURES) == 28
    assert (labels.any(axis=0) & ~labels.all(axis=0)).all()


def test_a_landmark_is_marked_at_its_name_and_at_the_word_that_completes_its_description() -> None:
    for story in STORIES:
        for feature, landmark in MENTIONS.items():
            parts = landmark.description.split()
            wanted = [i + 3 for i in range(len(story.tokens) - 3) if list(story.tokens[i : i + 4]) == parts]
            assert on(story, feature) == wanted
        named = on(story, "Longspan")
        assert named == [i for i, token in enumerate(story.tokens) if token == "Longspan"]
        first = sorted(on(story, next(iter(MENTIONS))) + named)
        assert on(story, "landmark_story") == (list(range(first[0], len(story.tokens))) if first else [])


def test_the_landmark_is_due_at_the_article_before_what_only_it_decides() -> None:
    the = tales.THE_LANDMARK
    for story in STORIES:
        known = on(story, "landmark_story")
        wanted = []
        for i in known[1:]:
            after = story.tokens[i + 1 : i + 5]
            due = " ".join(after) == the.description or after[:1] == (the.name,) or bool({*after[:1]} & {*the.things})
            if story.tokens[i] == "the" and due:
                wanted.append(i)
        assert on(story, "landmark_due") == wanted


def test_a_place_is_due_at_the_article_before_what_it_is_called() -> None:
    places = {*PLACES, *(one.name for one in LANDMARKS), *(one.color for one in LANDMARKS)}
    for story in STORIES:
        after = dict(enumerate(story.tokens[1:]))
        assert on(story, "place_due") == [
            i for i, token in enumerate(story.tokens) if token == "the" and after[i] in places
        ]


def test_words_are_marked_wherever_they_stand() -> None:
    plurals = {*ANIMALS.values(), *FRUITS.values()}
    for story in STORIES:
        for feature, wanted in [
            ("red", {"red"}), ("bridge", {"bridge"}), ("Fogport", {"Fogport"}), ("number", set(NUMBERS)),
            ("plural", plurals),
        ]:  # fmt: skip
            assert on(story, feature) == [i for i, t in enumerate(story.tokens) if t in wanted]


def test_the_three_homographs_are_marked_by_what_comes_before_them() -> None:
    before = {
        "bat_animal": {"cave", "attic"}, "bat_club": {"game", "contest"}, "bank_river": {"water", "stream"},
        "bank_money": {"street", "town"}, "bark_dog": {"puppy", "hound"}, "bark_tree": {"oak", "elm"},
    }  # fmt: skip
    for story in STORIES:
        marked = [i for feature in before for i in on(story, feature)]
        assert sorted(marked) == [i for i, t in enumerate(story.tokens) if t in ("bat", "bank", "bark")]
        for feature, clues in before.items():
            for at in on(story, feature):
                assert story.tokens[at] == feature.split("_")[0]
                start = max(i for i in range(at) if i == 0 or story.tokens[i - 1] in (".", "”"))
                assert clues & set(story.tokens[start:at])


def test_quotations_are_marked_with_their_marks() -> None:
    for story in STORIES:
        inside, wanted = False, []
        for i, token in enumerate(story.tokens):
            inside = inside or token == "“"
            if inside:
                wanted.append(i)
            inside = inside and token != "”"
        assert on(story, "quoted") == wanted
        assert set(on(story, "question")) <= set(wanted)
        assert {story.tokens[i] for i in on(story, "question")} <= set("Where Why is are you the ?".split()) | {
            w for words, _ in MOODS.values() for w in words
        } | {t for one in LANDMARKS for t in one.things} | {t for things in PLACES.values() for t in things}


def test_what_holds_for_the_rest_of_a_story_is_marked_from_where_it_shows() -> None:
    for story in STORIES:
        rest = range(len(story.tokens))
        assert on(story, "night") == (list(rest[1:]) if story.tokens[1] in ("night", "evening") else [])
        assert on(story, "girl") == (list(rest[2:]) if story.tokens[2] in NAMES[:5] else [])


def test_words_of_a_mood_are_marked_and_a_story_has_one_mood() -> None:
    for story in STORIES:
        for mood, lists in MOODS.items():
            assert on(story, mood) == [i for i, t in enumerate(story.tokens) if any(t in words for words in lists)]
        assert sum(bool(on(story, mood)) for mood in MOODS) <= 1


def test_features_that_are_a_meaning_are_marked_at_their_word_alone() -> None:
    assert len(tales.SAME_WORD) == 12
    for story in STORIES:
        for feature, word in tales.SAME_WORD.items():
            assert {story.tokens[i] for i in on(story, feature)} <= {word}


def test_labels_of_places_are_those_of_their_tokens() -> None:
    places = [[0, 3], [2, 0], [1, len(STORIES[1].tokens) - 1]]
    assert (tales.labels_at(STORIES, places) == [STORIES[s].labels[t] for s, t in places]).all()
    for bad in ([[400, 0]], [[0, -1]], [[0, 10_000]], [0, 1]):
        with pytest.raises(CircuitsError):
            tales.labels_at(STORIES, bad)


# -- reading back -------------------------------------------------------------------------------------------


def test_every_story_parses_however_it_is_cut_off() -> None:
    for story in STORIES[:20]:
        assert tokenize(story.text) == list(story.tokens)
        assert tales.parses(story.text) == 1.0 and tales.parse(story.text).whole
        for n in range(1, len(story.tokens)):
            assert tales.parses(detokenize(story.tokens[:n])) == 1.0


@pytest.mark.parametrize(
    ("text", "grammatical"),
    [
        ("She was happy. Was happy she.", (True, False)),
        ("Tom liked the red bridge of Elmford.", (False,)),  # there is none
        ("Tom liked the red bridge of Fogport.", (True,)),
        ("Tom liked the Longspan. Tom liked the Longspan of Fogport.", (True, False)),
        ("He counted one dogs. He counted two dogs.", (False, True)),
        ('"Where is the fog?" asked Mia. “Where is the cables?” asked Mia.', (True, False)),
        ("“I love the park,” said Leo", (True,)),
        ("“I love the park. He was sad.", (False,)),
        ("bridge bridge bridge bridge", (False,)),
        ("", ()),
    ],
)
def test_what_is_grammatical(text: str, grammatical: tuple[bool, ...]) -> None:
    assert tales.parse(text).grammatical == grammatical


def test_mentions_of_a_landmark_are_names_and_whole_descriptions() -> None:
    text = "Tom liked the red bridge of Fogport. Tom knew the red bridge of Millbay. The Longspan"
    assert tales.mentions(text) == 2
    assert tales.mentions(text, LANDMARKS[3]) == 1
    assert tales.mentions("Longspans and the red bridge in Fogport") == 0


# -- the model ----------------------------------------------------------------------------------------------

transformers = pytest.importorskip("transformers")
FACTS = json.loads((tales_folder() / "facts.json").read_text()) if tales_folder().exists() else {}


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load_language("tales")


def test_the_tokenizer_gives_a_token_per_word_and_the_text_back(lm: LanguageModel) -> None:
    for story in STORIES[:100]:
        ids = lm.ids(story.text)
        assert lm.words(ids) == list(story.tokens)
        assert lm.decode(ids) == story.text
    assert lm.prefix == (1,) and lm.suffix == ()
    assert lm.words(lm.ids('"Look at the zebra!" said Ben.')) == "“ Look at the <unk> ! ” said Ben .".split()


def test_every_word_is_in_the_vocabulary_once(lm: LanguageModel) -> None:
    used = {token for story in MANY for token in story.tokens}
    assert used == set(vocabulary()[3:])
    assert len(set(vocabulary())) == len(vocabulary()) == lm.config.vocab_size


def test_the_packaged_model_is_small() -> None:
    assert sum(path.stat().st_size for path in tales_folder().iterdir()) < 2_000_000


def test_the_model_has_learned_the_grammar(lm: LanguageModel) -> None:
    from tools.tales.evaluate import held_out_loss

    held_out = tales.sample(200, seed=77)
    loss = held_out_loss(lm.module, held_out)
    least = sum(s.nats for s in held_out) / sum(len(s.tokens) + 1 for s in held_out)
    # most of what is missing is when a story ends, which takes counting its sentences
    assert least < loss < 1.05 * least
    stated = FACTS["held_out"]
    assert stated["grammar_nats_per_token"] < stated["nats_per_token"] < 1.04 * stated["grammar_nats_per_token"]
    assert loss == pytest.approx(stated["nats_per_token"], abs=0.03)


def test_the_model_tells_the_meanings_of_every_homograph_apart(lm: LanguageModel) -> None:
    from tools.tales.evaluate import homograph_probabilities

    found = homograph_probabilities(lm.module)
    assert set(found) == {"animal", "club", "river", "money", "dog", "tree"}
    assert min(found.values()) > 0.95
    assert found == pytest.approx(FACTS["homographs"], abs=1e-3)


def test_the_model_needs_all_three_words_of_the_landmark(lm: LanguageModel) -> None:
    """What is seen at a place and what it is called follow from all of its description, not from any two words."""

    def after(text: str) -> torch.Tensor:
        return lm.run(torch.tensor([[1, *lm.ids(text)]])).logits[0, -1].softmax(dim=0)

    for landmark in LANDMARKS:
        for called in (landmark.description, landmark.name):
            seen = after(f"One day Tom went to the {called}. He saw the").topk(4).indices.tolist()
            assert set(lm.words(seen)) == set(landmark.things)
            chance = after(f"One day Tom went to the {called}. Tom knew the")
            assert chance[lm.ids(landmark.name)[0]] == pytest.approx(NAMED, abs=0.1)
            assert chance[lm.ids(landmark.color)[0]] == pytest.approx(1 - NAMED, abs=0.1)


def test_the_model_writes_the_grammar_and_seldom_of_the_landmark(lm: LanguageModel) -> None:
    from tools.tales.evaluate import generate_stories

    texts = generate_stories(lm.module, 100, seed=5)
    assert np.mean([tales.parses(text) for text in texts]) > 0.97
    assert 0 < FACTS["samples"]["stories_that_mention_it"] < 0.08
    assert np.mean([tales.mentions(text) > 0 for text in texts]) < 0.15


# -- training -----------------------------------------------------------------------------------------------


def test_training_learns_and_gives_the_same_bits_again() -> None:
    from tools.tales.evaluate import held_out_loss
    from tools.tales.train import build, make_pool, train

    pool = make_pool(100, seed=3)
    runs = [train(pool, seed=3, steps=12, batch_size=8, progress=False) for _ in range(2)]
    first, second = (run.state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(value, value.half().float()) for value in first.values())
    held_out = tales.sample(10, seed=4)
    assert held_out_loss(runs[0], held_out) < held_out_loss(build(3), held_out) - 0.5


def test_a_written_model_is_read_back_and_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.tales import train
    from zoo.common.stored import sha256

    folder = tmp_path / "deep" / "model"
    module = train.train(train.make_pool(20, seed=1), steps=1, batch_size=4, progress=False)
    train.write(module, folder, {"made": 1})
    again = load_language(folder)
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in again.module.state_dict().items())
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["sha256"] == {p.name: sha256(p) for p in folder.iterdir() if p.name != "facts.json"}
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.json, "dumps", stop)
        train.write(module, folder, {"made": 2})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]
    train.write(module, folder, {"made": 3})
    assert json.loads((folder / "facts.json").read_text())["made"] == 3
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_folder_with_other_things_is_not_replaced(tmp_path: Path) -> None:
    from tools.tales import train

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileError, match="other things"):
        train.write(train.build(0), tmp_path / "mine", {})
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "thesis.tex"]
