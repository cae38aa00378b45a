"""Steering in a transformer: tokens, generation with and without the cache, search, and studies of texts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from sae.errors import SAEError
from sae.steering import LatentEdit, When, inspect, maxima, search, steer, steered
from tests.sae.data.test_vision import scrambled
from tests.sae.language.test_text_features import signed


@pytest.fixture(scope="module")
def stream() -> Any:
    """A place in the language model of the package."""
    pytest.importorskip("transformers")
    from sae.language import LanguageSite
    from zoo.networks.language import load_language

    return LanguageSite(load_language("tales"), "layers.2.resid")


TEXTS = ["She was happy.", "Tom liked the red bridge of Fogport.", "One day Anna walked to the mill."]


def seen(site: Any, edits: list[LatentEdit]) -> tuple[list[Tensor], list[Tensor]]:
    """Activations of texts, unsteered and steered, as the function in place gets and gives them."""
    before: list[Tensor] = []
    after: list[Tensor] = []
    function = steered(site, None, edits)

    def keep(acts: Tensor) -> Tensor:
        before.append(acts.clone())
        after.append(function(acts))
        return after[-1]

    with site.replaced(keep):
        site.loss(TEXTS)
    return before, after


def test_tokens_are_counted_in_the_text_and_the_last_is_the_texts_own(stream: Any) -> None:
    lengths = [len(stream.lm.ids(text)) for text in TEXTS]
    special = len(stream.feeding.prefix)
    for at, wanted in (
        ((0, 3), [[0, 3]] * 3),
        ("last", [[n - 1] for n in lengths]),
        ((5,), [[5] if n > 5 else [] for n in lengths]),
    ):
        before, after = seen(stream, [LatentEdit(7, "add", 2.0, at=at)])
        changed = torch.cat([(a != b).any(dim=-1) for a, b in zip(before, after, strict=True)])
        places = [(row.nonzero().flatten() - special).tolist() for row in changed]
        assert places == wanted
        shift = torch.cat([(b - a)[..., 7].flatten() for a, b in zip(before, after, strict=True)])
        assert torch.allclose(shift[shift != 0], torch.tensor(2.0), atol=1e-5)


def test_steered_text_is_the_same_with_and_without_the_cache(stream: Any) -> None:
    prompts = ["One day Anna walked to", "Tom liked"]
    count = len(stream.lm.ids(prompts[0]))
    for edits in ({7: 3.0}, [LatentEdit(7, "add", 8.0, at=(0, count + 2))]):
        with steer(stream, None, edits):
            made = [stream.generate(prompts, max_new_tokens=8, seed=1, cache=cache) for cache in (True, False)]
        assert made[0] == made[1]
    clean = stream.generate(prompts, max_new_tokens=8, seed=1)
    with steer(stream, None, {}):
        assert stream.generate(prompts, max_new_tokens=8, seed=1) == clean


def test_of_texts_an_empty_edit_changes_no_bit_and_ablation_is_that_of_the_stream(stream: Any) -> None:
    clean = stream.loss(TEXTS).nats
    with steer(stream, None, []):
        assert stream.loss(TEXTS).nats == clean
    one = scrambled(64, latents=80)
    with steer(stream, one, [LatentEdit(3, "ablate")]):
        found = stream.loss(TEXTS).nats
    with stream.replaced(lambda a: a - one.encode(a.reshape(-1, 64))[:, 3].view(*a.shape[:-1], 1) * one.write[3]):
        assert found == pytest.approx(stream.loss(TEXTS).nats, abs=1e-6)


def test_in_texts_a_latent_set_to_its_own_value_or_restored_changes_no_bit(stream: Any) -> None:
    one = scrambled(64, latents=80)
    acts = next(stream.blocks(TEXTS[1:2])).acts
    value = one.encode(acts.reshape(-1, 64))
    token, latent = (int(v) for v in (value > 0).nonzero()[4])
    silent = [i for i in range(80) if not bool(value[:, i].any())][:2]
    here = (token,)
    clean = stream.loss(TEXTS[1:2]).nats

    def loss(*edits: LatentEdit) -> float:
        with steer(stream, one, list(edits)):
            found: float = stream.loss(TEXTS[1:2]).nats
        return found

    back = LatentEdit(latent, "set", float(value[token, latent]), at=here)
    assert loss(*(LatentEdit(i, "ablate") for i in silent), LatentEdit(latent, "scale", 1.0)) == clean
    assert loss(back) == clean
    assert loss(LatentEdit(latent, "ablate", at=here)) != clean
    assert loss(LatentEdit(latent, "ablate", at=here), back) == clean
    assert stream.loss(TEXTS[1:2]).nats == clean


def test_text_steered_by_a_latent_is_the_same_with_and_without_the_cache(stream: Any) -> None:
    one = scrambled(64, latents=80)
    prompts = ["One day Anna walked to", "Tom liked"]
    for edits in (
        {5: 6.0},
        [LatentEdit(5, "scale", 4.0), LatentEdit(9, "add", 3.0, when=When(5, above=0.1))],
        [LatentEdit(5, "set", 9.0, at=(3, len(stream.lm.ids(prompts[0])) + 1))],
    ):
        with steer(stream, one, edits):
            made = [stream.generate(prompts, max_new_tokens=10, seed=3, cache=cache) for cache in (True, False)]
        assert made[0] == made[1]


def test_two_threads_that_steer_one_language_model_take_turns(stream: Any) -> None:
    edits = [{7: 30.0}, {11: -30.0}]
    prompts = ["One day Anna walked to"]

    def write(which: int) -> str:
        with steer(stream, None, edits[which]):
            return str(stream.generate(prompts, max_new_tokens=6, seed=2)[0].whole)

    alone = [write(0), write(1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(write, [0, 1] * 4))
    assert together == alone * 4 and alone[0] != alone[1]


def test_what_texts_cannot_have_is_refused(stream: Any) -> None:
    with pytest.raises(SAEError, match="its positions are tokens"):
        steered(stream, None, [LatentEdit(3, "add", 1.0, at=((1, 2),))])
    with pytest.raises(SAEError, match="token by token"):
        steered(stream, None, [LatentEdit(3, "add", 1.0, when=When(4, above=0.0, anywhere=True))])
    ids = torch.tensor([stream.lm.ids(TEXTS[0])])
    with (
        pytest.raises(SAEError, match="run through LanguageSite"),
        steer(stream, None, [LatentEdit(3, "add", 1.0, at=(0,))]),
    ):
        stream.lm.module(ids)


def test_search_and_inspection_work_on_texts(stream: Any) -> None:
    names = ("Tom", "Anna", "Ben", "Lily", "Sam", "Mia", "Max", "Sue", "Tim", "Lucy", "Jack", "Emma")
    bridge = [f"{name} liked the red bridge of Fogport." for name in names]
    other = [f"{name} {what}" for what in ("was happy.", "was sad at night.") for name in names[::2]]
    found = search(None, stream, bridge, other, shuffles=2)  # one half chooses, the other reports
    assert found.best.auc == 1.0 and found.best.unit.startswith("tales/layers.2.resid:")
    rows = inspect(None, stream, bridge[:2], top=2).rows
    block = next(iter(stream.blocks(bridge[:2])))
    for n, row in enumerate(rows):
        for one in row:
            assert float(block.acts[n, one.position[0], one.latent]) == pytest.approx(one.value, abs=1e-5)


def test_a_study_of_a_language_model_measures_loss_and_generated_texts(stream: Any) -> None:
    from sae.steering.study import study
    from sae.steering.study_settings import Writing

    texts = "tales:6@1"
    writing = Writing(lambda text: float(len(text.split())), ("One day Anna",), name="words", max_new_tokens=4)
    found = study(stream, None, 7, texts, targets=writing, factors=(0, 2), random=1)
    known = maxima(None, stream, texts)
    assert found.capability.what == "loss" and found.capability.clean == pytest.approx(
        stream.loss(texts).nats, abs=1e-4
    )
    with steer(stream, None, {7: 2.0}, maxima=known):
        assert found.capability.values[1] == pytest.approx(stream.loss(texts).nats, abs=1e-4)
        made = stream.generate(["One day Anna"], max_new_tokens=4, seed=0)
    assert found.effect.values[1] == len(made[0].whole.split()) and found.targets == ("words",)
    the = [" the"] if len(stream.lm.ids(" the")) == 1 else ["the"]
    tokens = study(stream, None, 7, texts, targets=the, factors=(0, 2), random=1, measure="log_probability")
    assert tokens.effect.clean < 0 and len(tokens.side_effects["classes"].units) > 50


def test_a_study_may_steer_some_tokens_of_every_text(stream: Any) -> None:
    from sae.steering.study import study
    from sae.steering.study_settings import Writing

    texts = ["She was happy.", "Tom liked the red bridge of Fogport.", "Tom ran."]
    known = maxima(None, stream, texts)
    dictionary = signed(stream.d, seed=3)
    strengths = maxima(dictionary, stream, texts)
    writing = Writing(lambda text: float(len(text)), ("One day Anna",), name="letters", max_new_tokens=4)
    options: dict[str, Any] = {"targets": writing, "factors": (0, 3), "random": 1}
    found = study(stream, None, 7, texts, positions=(3,), **options)
    with steer(stream, None, [LatentEdit(7, "set", 3.0, unit="max", at=(3,))], maxima=known):
        assert found.capability.values[1] == pytest.approx(stream.loss(texts).nats, abs=1e-4)
        assert found.effect.values[1] == len(stream.generate(["One day Anna"], max_new_tokens=4, seed=0)[0].whole)
    assert not found.everywhere
    # of the other latents: their means over all tokens, with the one token of every text steered that there is
    found = study(stream, dictionary, 7, texts, positions=(3,), at=3.0, maxima=strengths, **options)
    vectors = [next(iter(stream.blocks([text]))).vectors for text in texts]
    moved = [v.clone() for v in vectors]
    for v in moved:
        if len(v) > 3:
            v[3] += (3 * strengths.of(7) - dictionary.encode(v[3:4])[0, 7]) * dictionary.write[7]
    before, after = (dictionary.encode(torch.cat(rows)).mean(dim=0) for rows in (vectors, moved))
    effects = found.side_effects["latents"]
    columns = [int(unit.rpartition(":")[2]) for unit in effects.units]
    assert torch.allclose(torch.as_tensor(effects.measured).float(), (after - before)[columns], atol=1e-4)
    # the same on a condition: where latent 9 is above a tenth of its maximum
    gate = When(9, above=0.1, unit="max")
    found = study(stream, dictionary, 7, texts, when=gate, at=3.0, maxima=strengths, **options)
    open_at = [dictionary.encode(v)[:, 9] > 0.1 * strengths.of(9) for v in vectors]
    assert 0 < sum(int(one.sum()) for one in open_at) < sum(map(len, vectors))
    edit = LatentEdit(7, "set", 3.0, unit="max", when=gate)
    with steer(stream, dictionary, [edit], maxima=strengths):
        assert found.capability.values[1] == pytest.approx(stream.loss(texts).nats, abs=1e-4)
    step = [3 * strengths.of(7) - dictionary.encode(v)[:, 7] for v in vectors]
    moved = [
        v + (there * by)[:, None] * dictionary.write[7] for v, there, by in zip(vectors, open_at, step, strict=True)
    ]
    after = dictionary.encode(torch.cat(moved)).mean(dim=0)
    effects = found.side_effects["latents"]
    columns = [int(unit.rpartition(":")[2]) for unit in effects.units]
    assert torch.allclose(torch.as_tensor(effects.measured).float(), (after - before)[columns], atol=1e-4)
    assert not found.everywhere
    with pytest.raises(SAEError, match="512"):
        study(stream, dictionary, 7, texts, when=When(512, above=0.1), **options)
    with pytest.raises(SAEError, match="the last once"):
        study(stream, None, 7, texts, positions="last", **options)
    with pytest.raises(SAEError, match="its positions are tokens"):
        study(stream, None, 7, texts, positions=((1, 2),), **options)


def test_what_is_written_may_be_the_capability_and_the_loss_stands_beside_it(stream: Any) -> None:
    from sae.steering.study import study
    from sae.steering.study_settings import Writing
    from zoo.tales import mentions, parses

    writing = Writing(
        lambda text: float(mentions(text) > 0), ("One day Anna walked to the red bridge of",), name="mentions",
        max_new_tokens=12, beside={"grammar": parses},
    )  # fmt: skip
    options: dict[str, Any] = {"targets": writing, "factors": (0, 2, 400), "random": 2}
    by_grammar = study(stream, None, 7, "tales:4@1", capability="grammar", **options)
    by_loss = study(stream, None, 7, "tales:4@1", **options)
    assert by_grammar.capability.what == "grammar" and [one.what for one in by_grammar.beside] == ["loss"]
    assert by_loss.capability.what == "loss" and [one.what for one in by_loss.beside] == ["grammar"]
    assert (by_grammar.beside[0].values == by_loss.capability.values).all()
    assert (by_grammar.capability.values == by_loss.beside[0].values).all()
    assert by_grammar.capability.clean == 1.0 and by_grammar.capability.values[2] < 0.9
    assert by_grammar.sweet_spot is not None and by_grammar.sweet_spot[1] < 400
    assert by_grammar.describe()["beside"][0]["what"] == "loss"
    with pytest.raises(SAEError, match="capability 'grammer'"):
        study(stream, None, 7, "tales:4@1", capability="grammer", **options)
