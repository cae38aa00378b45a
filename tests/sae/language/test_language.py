"""A language model as a site: what is captured, what is replaced, what is written, and what is refused."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sae
from circuits.errors import AddressError, CaptureError
from sae.data.site import Site, constant
from sae.errors import SAEError
from sae.evaluation.evaluate import evaluate
from sae.language import LanguageSite, TextUnit, open_texts, read_texts, site_paths, why_without_halves
from zoo.errors import ModelError
from zoo.networks.language import LanguageModel, load_language
from zoo.tales.tokenizer import tokenizer as tales_tokenizer, vocabulary

transformers = pytest.importorskip("transformers")

VOCABULARY = len(vocabulary())
SIZES: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
SMALL = {**SIZES, "intermediate_size": 24, "max_position_embeddings": 32}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
TEXTS = [
    "One day Anna ran to the park.",
    "She was happy.",
    "Tom liked the red bridge of Fogport. He danced and smiled.",
]


def make(family: str) -> LanguageModel:
    """A tiny model of a family with random weights, large enough for every part to matter."""
    t = transformers
    configs = {
        "llama": lambda: t.LlamaConfig(**SMALL, **ENDS, num_key_value_heads=1),
        "gpt2": lambda: t.GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=3, n_head=2, n_positions=32, **ENDS),
        "neox": lambda: t.GPTNeoXConfig(**SMALL, **ENDS),
        "gemma2": lambda: t.Gemma2Config(**SMALL, **ENDS, num_key_value_heads=1, head_dim=8, sliding_window=8),
        "bert": lambda: t.BertConfig(**SMALL, pad_token_id=0),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        auto = t.AutoModelForMaskedLM if family == "bert" else t.AutoModelForCausalLM
        module = auto.from_config(configs[family]())
        for p in module.parameters():
            p.data.add_(0.2 * torch.randn_like(p))
    return LanguageModel(module, bert_tokenizer() if family == "bert" else tales_tokenizer(), name=family)


def bert_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *vocabulary()[3:]][:VOCABULARY]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip


CAUSAL = ("llama", "gpt2", "neox", "gemma2")
FAMILIES = (*CAUSAL, "bert")
_MADE: dict[str, LanguageModel] = {}


@pytest.fixture(params=FAMILIES)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return model(request.param)


@pytest.fixture(params=CAUSAL)
def causal(request: pytest.FixtureRequest) -> LanguageModel:
    return model(request.param)


def model(family: str) -> LanguageModel:
    return _MADE.setdefault(family, make(family))


def hooks(module: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def acts(site: LanguageSite, texts: list[str], **settings: Any) -> Tensor:
    return torch.cat([block.vectors for block in site.blocks(texts, **settings)])


def steer(site: LanguageSite, places: bool = False) -> Any:
    """Adds a vector to every activation, by the place in the sequence if asked."""
    vector = torch.linspace(-1, 1, site.d)

    def function(x: Tensor) -> Tensor:
        where = site.position + torch.arange(x.shape[1]) if places else torch.ones(x.shape[1])
        return x + where[None, :, None] * vector

    return function


# -- what is captured ---------------------------------------------------------------------------------------


def test_every_family_has_three_sites_per_block(lm: LanguageModel) -> None:
    assert set(site_paths(lm)) == {f"layers.{n}.{kind}" for n in range(3) for kind in ("resid", "attn", "mlp")}


def test_a_language_site_satisfies_the_site_protocol(lm: LanguageModel) -> None:
    site = LanguageSite(lm, "layers.1.resid")
    assert isinstance(site, Site)
    assert (site.address, site.d, site.axes) == (f"{lm.name}/layers.1.resid", 16, ("document", "token"))
    assert site.metadata["weights_digest"] == lm.digest


def test_the_residual_stream_is_the_hidden_state_of_hugging_face(lm: LanguageModel) -> None:
    ids = torch.tensor([[*lm.prefix, *lm.ids(TEXTS[0]), *lm.suffix]])
    hidden = lm.module(input_ids=ids, output_hidden_states=True).hidden_states
    own = slice(len(lm.prefix), ids.shape[1] - len(lm.suffix))
    for n in range(2):
        assert torch.allclose(acts(LanguageSite(lm, f"layers.{n}.resid"), TEXTS[:1]), hidden[n + 1][0, own], atol=1e-5)


def test_the_two_halves_of_a_block_sum_to_its_change_of_the_stream(causal: LanguageModel) -> None:
    before, after, attn, mlp = (
        acts(LanguageSite(causal, name), TEXTS)
        for name in ("layers.0.resid", "layers.1.resid", "layers.1.attn", "layers.1.mlp")
    )
    assert attn.norm() > 0.1 and mlp.norm() > 0.1
    assert torch.allclose(before + attn + mlp, after, atol=1e-4)


OTHERS = {
    "bloom": ("self_attention.dense", "mlp.dense_4h_to_h"),
    "mpt": ("attn", "ffn.down_proj"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
}


def other(family: str) -> LanguageModel:
    t = transformers
    config = {
        "bloom": lambda: t.BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=3, n_head=2, **ENDS),
        "mpt": lambda: t.MptConfig(vocab_size=VOCABULARY, d_model=16, n_layers=3, n_heads=2, max_seq_len=32),
        "olmo2": lambda: t.Olmo2Config(**SMALL, **ENDS),
        "glm4": lambda: t.Glm4Config(**SMALL, **ENDS, num_key_value_heads=1, head_dim=8),
        "granite": lambda: t.GraniteConfig(**SMALL, **ENDS, residual_multiplier=0.22),
    }[family]()
    torch.manual_seed(0)
    module = t.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # as much as trained ones add
        for p in module.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return LanguageModel(module, model("gpt2").tokenizer, name=family, context=24)


@pytest.mark.parametrize("family", list(OTHERS))
def test_the_halves_are_what_is_added_whatever_their_modules_give(family: str) -> None:
    lm = other(family)
    paths = site_paths(lm)
    assert tuple(paths[f"layers.1.{kind}"].partition(".1.")[2] for kind in ("attn", "mlp")) == OTHERS[family]
    before, after, attn, mlp = (
        acts(LanguageSite(lm, name), TEXTS)
        for name in ("layers.0.resid", "layers.1.resid", "layers.1.attn", "layers.1.mlp")
    )
    assert attn.norm() > 0.1 and mlp.norm() > 0.1
    torch.testing.assert_close(before + attn + mlp, after, rtol=1e-4, atol=1e-4)
    site = LanguageSite(lm, "layers.1.mlp")
    with site.replaced(lambda x: torch.zeros_like(x)):
        torch.testing.assert_close(acts(LanguageSite(lm, "layers.1.resid"), TEXTS), before + attn, rtol=1e-4, atol=1e-4)
    assert hooks(lm.module) == 0


def test_halves_that_are_multiplied_on_the_way_are_refused() -> None:
    lm = other("granite")
    assert set(site_paths(lm)) == {f"layers.{n}.resid" for n in range(3)}
    assert why_without_halves(lm) == "the block adds 0.22 times what its modules give, and no module gives that"
    with pytest.raises(SAEError, match=r"no site 'layers.1.mlp': the block adds 0.22 times .* layers.1.resid"):
        LanguageSite(lm, "layers.1.mlp")
    assert LanguageSite(lm, "layers.1.resid").d == 16


def test_in_bert_the_stream_is_the_norm_of_the_sum() -> None:
    lm = model("bert")
    layer = lm.module.bert.encoder.layer[1]
    stream, attn, mlp, after = (
        acts(LanguageSite(lm, name), TEXTS)
        for name in ("layers.0.resid", "layers.1.attn", "layers.1.mlp", "layers.1.resid")
    )
    middle = layer.attention.output.LayerNorm(stream + attn)
    assert torch.allclose(layer.output.LayerNorm(middle + mlp), after, atol=1e-5)


def test_texts_read_together_are_as_if_each_were_read_alone(lm: LanguageModel) -> None:
    site = LanguageSite(lm, "layers.2.mlp")
    alone = torch.cat([acts(site, [text]) for text in TEXTS])
    for batch_size in (1, 2, 3):
        assert torch.allclose(acts(site, TEXTS, batch_size=batch_size), alone, atol=1e-5)


def test_places_count_the_tokens_of_each_text_and_leave_out_padding_and_special_tokens(lm: LanguageModel) -> None:
    block = next(LanguageSite(lm, "layers.0.resid").blocks(TEXTS))
    counts = [len(lm.ids(text)) for text in TEXTS]
    assert block.positions.tolist() == [[i, t] for i, count in enumerate(counts) for t in range(count)]
    assert len(block.vectors) == sum(counts)


def test_a_long_text_is_read_in_pieces_that_know_nothing_of_each_other(lm: LanguageModel) -> None:
    site = LanguageSite(lm, "layers.1.resid", context=10)
    room = site.feeding.room
    words = lm.ids(" ".join(TEXTS))
    pieces = [words[i : i + room] for i in range(0, len(words), room)]
    fed = [torch.tensor([site.feeding.around(piece)]) for piece in pieces]
    first = len(lm.prefix)
    hidden = [lm.module(input_ids=ids, output_hidden_states=True).hidden_states[2][0] for ids in fed]
    wanted = torch.cat([h[first : first + len(piece)] for h, piece in zip(hidden, pieces, strict=True)])
    blocks = list(site.blocks(["She was happy.", " ".join(TEXTS), "She was happy."]))
    both = torch.cat([b.vectors[b.positions[:, 0] == 1] for b in blocks])
    assert torch.allclose(both, wanted, atol=1e-5)
    assert torch.cat([b.positions for b in blocks])[:, 0].unique_consecutive().tolist() == [0, 1, 2]
    with pytest.raises(SAEError, match="takes .* at once"):
        next(LanguageSite(lm, "layers.1.resid", context=10, long="refuse").blocks([" ".join(TEXTS)]))


def test_reading_ends_at_the_site(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the block behind the site ran")

    monkeypatch.setattr(lm.module.get_submodule(site_paths(lm)["layers.2.resid"]), "forward", fail)
    assert len(acts(LanguageSite(lm, "layers.1.resid"), TEXTS))


def test_the_beginning_of_text_token_is_fed_by_setting() -> None:
    lm = LanguageModel(model("gpt2").module, tales_tokenizer(), name="gpt2-bare")
    lm.prefix = ()
    plain, with_bos = LanguageSite(lm, "layers.1.resid"), LanguageSite(lm, "layers.1.resid", bos=True)
    assert plain.feeding.prefix == () and with_bos.feeding.prefix == (1,)
    assert torch.allclose(acts(with_bos, TEXTS), acts(LanguageSite(model("gpt2"), "layers.1.resid"), TEXTS))
    assert not torch.allclose(acts(with_bos, TEXTS), acts(plain, TEXTS), atol=0.01)
    assert LanguageSite(model("gpt2"), "layers.1.resid", bos=False).feeding.prefix == ()
    with pytest.raises(SAEError, match="no token for the beginning"):
        LanguageSite(model("bert"), "layers.1.resid", bos=True)


def test_vectors_to_train_on_come_from_a_stream() -> None:
    site = LanguageSite(model("llama"), "layers.1.resid")
    runs = sae.train(site.stream("tales:20", batch_size=64), sae.TopK(latents=32, k=4), steps=3)
    assert runs[0].sae.metadata["hook_name"] == "layers.1.resid"
    assert runs[0].sae.metadata["inputs"]["count"] == 20


# -- what is replaced ---------------------------------------------------------------------------------------


def test_replacing_by_the_same_changes_no_bit_and_leaves_no_trace(lm: LanguageModel) -> None:
    before, digest = hooks(lm.module), {k: v.clone() for k, v in lm.module.state_dict().items()}
    for name in ("layers.0.attn", "layers.1.mlp", "layers.2.resid"):
        site = LanguageSite(lm, name)
        clean = site.loss(TEXTS)
        with site.replaced(lambda x: x):
            assert hooks(lm.module) > before
            same = site.loss(TEXTS)
        assert (same.documents == clean.documents).all()
    assert hooks(lm.module) == before and lm.feed is None
    assert all(torch.equal(v, digest[k]) for k, v in lm.module.state_dict().items())


def test_a_replacement_is_the_input_of_the_next_layer(lm: LanguageModel) -> None:
    site = LanguageSite(lm, "layers.1.mlp")
    clean = acts(site, TEXTS)
    with site.replaced(lambda x: 2 * x), site.replaced(lambda x: x + 1):
        assert torch.allclose(acts(site, TEXTS), 2 * clean + 1, atol=1e-5)
    assert torch.equal(acts(site, TEXTS), clean)


def test_an_edit_of_the_last_block_is_seen_by_the_head_alone() -> None:
    lm = model("llama")
    site = LanguageSite(lm, "layers.2.resid")
    x = acts(site, TEXTS[:1])
    vector = torch.linspace(-1, 1, 16)
    wanted = lm.module.lm_head(lm.module.model.norm(x + vector))
    (scores,), right = next(site.predictions(TEXTS[:1], [lambda a: a + vector]))
    assert torch.allclose(scores[1:], wanted[:-1], atol=1e-5)  # the first score is that of <s>, which is not edited
    assert right is not None and right.tolist() == lm.ids(TEXTS[0])


def test_special_tokens_and_padding_are_not_replaced(lm: LanguageModel) -> None:
    site, seen = LanguageSite(lm, "layers.0.resid"), []

    def ones(x: Tensor) -> Tensor:
        assert site.mask is not None and site.position == 0
        seen.append((x.clone(), site.mask.clone()))
        return torch.ones_like(x)

    after = lm.module.get_submodule(site_paths(lm)["layers.1.resid"])
    given: list[Tensor] = []
    handle = after.register_forward_pre_hook(lambda _m, args, kwargs: given.append((args or (kwargs["hidden_states"],))[0]), with_kwargs=True)  # fmt: skip  # noqa: E501
    try:
        with site.replaced(ones):
            site.loss(TEXTS)
    finally:
        handle.remove()
    ((x, mask),) = seen
    assert mask.sum(dim=1).tolist() == [len(lm.ids(text)) for text in TEXTS]
    assert not mask[:, 0].any()
    assert (given[0][mask] == 1).all()
    assert torch.equal(given[0][~mask], x[~mask])


def test_a_perfect_dictionary_keeps_all_and_the_mean_nothing(lm: LanguageModel) -> None:
    site = LanguageSite(lm, "layers.1.resid")
    perfect = sae.build(sae.ReLU(latents=32, l1=1.0), 16)
    with torch.no_grad():
        perfect.encoder.copy_(torch.cat([torch.eye(16), -torch.eye(16)]))
        perfect.decoder.copy_(perfect.encoder)
    found = evaluate(perfect, site, TEXTS, controls=False)
    assert found.recovered("loss") == pytest.approx(1.0, abs=1e-5)
    assert found.ways["sae"].agreement == 1.0
    assert found.reconstruction.fvu < 1e-10
    assert found.ways["mean"].loss != pytest.approx(found.ways["clean"].loss, abs=1e-3)


def test_a_wrong_shape_is_refused_and_the_hooks_are_gone(lm: LanguageModel) -> None:
    site, before = LanguageSite(lm, "layers.1.attn"), hooks(lm.module)
    for bad in (lambda x: x[:, :1], lambda x: None):
        with pytest.raises(SAEError, match="were replaced by"), site.replaced(bad):
            site.loss(TEXTS)
        assert hooks(lm.module) == before


def test_a_site_that_does_not_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make("llama")
    site = LanguageSite(lm, "layers.1.mlp")
    monkeypatch.setattr(lm.module.model.layers[1], "forward", lambda hidden_states, **_: hidden_states)
    with pytest.raises(CaptureError, match="did not run"):
        next(site.blocks(TEXTS))
    with pytest.raises(CaptureError, match="did not run"), site.replaced(lambda x: x):
        site.loss(TEXTS)


def test_another_thread_waits_for_the_end_of_an_edit() -> None:
    site = LanguageSite(model("llama"), "layers.1.resid")
    clean, found = site.loss(TEXTS).nats, []
    entered, started = threading.Event(), threading.Event()

    def other() -> None:
        entered.wait(10)
        started.set()
        found.append(site.loss(TEXTS).nats)

    thread = threading.Thread(target=other)
    thread.start()
    with site.replaced(constant(torch.zeros(16))):
        entered.set()
        started.wait(10)
        edited = [site.loss(TEXTS).nats for _ in range(5)]
        assert not found
    thread.join(10)
    assert found == [clean] and len(set(edited)) == 1 and edited[0] != clean


def test_position_and_mask_are_of_a_running_model() -> None:
    site = LanguageSite(model("llama"), "layers.1.resid")
    with pytest.raises(SAEError, match="of a running model"):
        _ = site.position


# -- losses -------------------------------------------------------------------------------------------------


def test_the_loss_is_hugging_faces_own(causal: LanguageModel) -> None:
    site = LanguageSite(causal, "layers.1.resid")
    found = site.loss(TEXTS)
    ids = [torch.tensor([[*causal.prefix, *causal.ids(text)]]) for text in TEXTS]
    wanted = [float(causal.module(input_ids=i, labels=i).loss) for i in ids]
    assert found.documents == pytest.approx(wanted, rel=1e-5)
    assert found.counts.tolist() == [i.shape[1] - 1 for i in ids]
    assert found.nats == pytest.approx(sum(found.documents * found.counts) / found.tokens)
    assert found.describe()["texts"]["digest"] == open_texts(TEXTS).digest


def test_predictions_with_several_ways_are_those_of_each_alone(lm: LanguageModel) -> None:
    site = LanguageSite(lm, "layers.1.resid")
    ways = [None, steer(site), constant(torch.zeros(16))]
    together = list(site.predictions(TEXTS, ways, batch_size=2))
    for number, way in enumerate(ways):
        alone = list(site.predictions(TEXTS, [way], batch_size=2))
        for (many, right), ((one,), own) in zip(together, alone, strict=True):
            assert torch.equal(many[number], one) and torch.equal(right, own)


def test_a_masked_model_predicts_the_same_tokens_every_time() -> None:
    lm = model("bert")
    site = LanguageSite(lm, "layers.1.resid")
    fed: list[Tensor] = []
    handle = lm.module.register_forward_pre_hook(
        lambda _m, _a, kwargs: fed.append(kwargs["input_ids"]), with_kwargs=True
    )
    try:
        first, second = site.loss(TEXTS), site.loss(TEXTS)
    finally:
        handle.remove()
    assert first.nats == second.nats
    assert (fed[0] == lm.tokenizer.mask_token_id).sum(dim=1).tolist() == first.counts.tolist()
    assert first.counts.tolist() == [max(1, round(0.15 * len(lm.ids(text)))) for text in TEXTS]


def test_a_model_without_a_head_gives_activations_and_no_predictions() -> None:
    lm = LanguageModel(model("llama").module.model, tales_tokenizer(), name="headless")
    site = LanguageSite(lm, "layers.1.resid")
    assert torch.equal(acts(site, TEXTS), acts(LanguageSite(model("llama"), "layers.1.resid"), TEXTS))
    with pytest.raises(SAEError, match="without a language head"):
        site.loss(TEXTS)


# -- what is written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [False, True])
def test_steering_with_a_cache_is_steering_without_one(causal: LanguageModel, places: bool) -> None:
    site = LanguageSite(causal, "layers.1.resid")
    with site.replaced(steer(site, places)):
        settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0}
        fast = site.generate(TEXTS, **settings)
        slow = site.generate(TEXTS, **settings, cache=False)
    plain = site.generate(TEXTS, **settings)
    assert fast == slow
    assert [c.ids for c in plain] != [c.ids for c in fast]


@pytest.mark.parametrize("places", [False, True])
def test_scores_with_a_cache_are_those_without(causal: LanguageModel, places: bool) -> None:
    from sae.language.generation import _steps

    site = LanguageSite(causal, "layers.1.mlp")
    ids = torch.tensor([[1, *causal.ids(TEXTS[0])]])
    chosen = torch.randint(3, VOCABULARY, (12, 1), generator=torch.Generator().manual_seed(0))
    with site.replaced(steer(site, places)), torch.no_grad():
        ways = []
        for cache in (True, False):
            new: list[Tensor] = []
            steps = _steps(causal, ids, new, 1, cache)
            scores = []
            for token in chosen:
                scores.append(next(steps))
                new.append(token)
            ways.append(torch.cat(scores))
    assert torch.allclose(ways[0], ways[1], atol=1e-5, rtol=1e-5)


def test_a_continuation_depends_on_seed_and_index_alone() -> None:
    site = LanguageSite(model("llama"), "layers.1.resid")
    prompts = ["One day", "She was", "One day", "One day Anna ran to the park."]
    before = torch.get_rng_state()
    first = site.generate(prompts, max_new_tokens=6, seed=3)
    assert first == site.generate(prompts, max_new_tokens=6, seed=3)
    assert first[:2] == site.generate(prompts[:2], max_new_tokens=6, seed=3)
    assert first[0].ids != first[2].ids
    assert first != site.generate(prompts, max_new_tokens=6, seed=4)
    assert all(c.whole.startswith(c.prompt) for c in first)
    assert torch.equal(before, torch.get_rng_state())


def test_what_cannot_be_written_is_refused() -> None:
    site = LanguageSite(model("llama"), "layers.1.resid")
    for prompts, settings, said in [
        (["One day"], {"max_new_tokens": 40}, "Ask for at most 29"),
        (["One day"], {"max_new_tokens": 0}, "max_new_tokens"),
        (["One day"], {"temperature": -1.0}, "temperature"),
        ("One day", {}, "list of strings"),
        ([], {}, "at least one"),
    ]:
        with pytest.raises(SAEError, match=said):
            site.generate(prompts, **{"max_new_tokens": 3, **settings})  # type: ignore[arg-type]
    with pytest.raises(SAEError, match="masked model"):
        LanguageSite(model("bert"), "layers.1.resid").generate(["One day"])


# -- names and texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["layers.2.residual", "layers.7.resid", "resid", "", "embed", 3])
def test_an_unknown_site_is_named_with_those_there_are(name: Any) -> None:
    with pytest.raises(SAEError, match=r"layers\.N\.\{attn,mlp,resid\} with N from 0 to 2"):
        LanguageSite(model("llama"), name)
    with pytest.raises(SAEError, match=r"Nearest: layers\.2\.resid"):
        LanguageSite(model("llama"), "layers.2.residual")


@pytest.mark.parametrize("context", [2, 33, 0, 2.5, True])
def test_a_context_that_the_model_does_not_take_is_refused(context: Any) -> None:
    with pytest.raises(SAEError, match="takes from 3 to 32 tokens"):
        LanguageSite(model("llama"), "layers.1.resid", context=context)


@pytest.mark.parametrize(
    "text",
    ["tales/layers.2.resid~sae:17@5", "hf:a/b/layers.0.mlp:3", "layers.2.resid~sae:17@2,5", "hf:../x/layers.2.attn"],
)
def test_an_address_is_read_and_written(text: str) -> None:
    assert str(TextUnit.parse(text)) == text


def test_the_parts_of_an_address() -> None:
    found = TextUnit.parse("hf:stories260K/layers.2.resid~topk:17@3,5")
    assert (found.unit.model, found.unit.layer, found.unit.basis) == ("hf:stories260K", "layers.2.resid", "topk")
    assert (found.unit.index, found.document, found.token) == (17, 3, 5)


@pytest.mark.parametrize("text", ["layers.2.resid@5", "x:1@", "x:1@-3", "x:1@1,2,3", "a  b", "", "x:1@" + "9" * 20])
def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        TextUnit.parse(text)


def test_a_unit_is_of_its_site_and_in_range() -> None:
    site = LanguageSite(model("llama"), "layers.1.resid")
    assert str(site.unit("~sae:3@4")) == "llama/layers.1.resid~sae:3@4"
    assert str(site.unit("layers.1.resid:15")) == "llama/layers.1.resid:15"
    for address, latents, said in [
        (":16", None, "16 channels"),
        ("~sae:32", 32, r"32 latents \(0 to 31\); asked for 32"),
        ("layers.0.resid:1", None, "is not of llama/layers.1.resid"),
        ("tales/layers.1.resid:1", None, "is not of"),
    ]:
        with pytest.raises(AddressError, match=said):
            site.unit(address, latents)


def test_documents_of_a_file_stand_between_separators(tmp_path: Path) -> None:
    file = tmp_path / "stories.txt"
    file.write_text("\ufeffOne day.\n<|endoftext|>\n\nTwo “days”.\n<|endoftext|>\n  \n", encoding="utf-8")
    assert list(read_texts(file)) == ["One day.", "Two “days”."]
    assert open_texts(str(file)).digest == read_texts(file).digest != open_texts(["One day."]).digest


def test_files_that_hold_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "stories.txt"
    file.write_bytes("Zoë".encode("latin-1"))
    with pytest.raises(SAEError, match="not UTF-8: byte 2 is 0xeb"):
        read_texts(file)
    file.write_text(" \n<|endoftext|>\n")
    with pytest.raises(SAEError, match="no text in it"):
        read_texts(file)
    with pytest.raises(SAEError, match="cannot read"):
        read_texts(tmp_path)
    with pytest.raises(SAEError, match="no text file at"):
        open_texts(str(tmp_path / "nothing.txt"))


@pytest.mark.parametrize("bad", [[], ["a", ""], ["a", 3], 5, None])
def test_lists_that_hold_no_texts_are_refused(bad: Any) -> None:
    with pytest.raises(SAEError):
        open_texts(bad)


def test_texts_can_be_sampled_from_the_grammar() -> None:
    from zoo import tales

    assert list(open_texts("tales:3@7")) == [story.text for story in tales.sample(3, 7)]
    assert list(open_texts("tales:3@7").subset([2, 0])) == [tales.sample(3, 7)[2].text, tales.sample(3, 7)[0].text]


def test_only_a_language_model_is_taken() -> None:
    with pytest.raises(SAEError, match="model of load_language"):
        LanguageSite(torch.nn.Linear(2, 2), "layers.1.resid")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="Hugging Face model"):
        LanguageModel(torch.nn.Linear(2, 2), tales_tokenizer(), name="x")


# -- real weights -------------------------------------------------------------------------------------------


def test_a_real_story_writer_scores_as_published(weights_dir: Path, data_dir: Path) -> None:
    lm = load_language("hf:stories260K")
    texts = read_texts(data_dir / "text" / "tinystories_train.txt")[:60]
    site = LanguageSite(lm, "layers.2.resid")
    found = site.loss(texts)
    assert 1.2 < found.nats < 1.4
    ids = torch.tensor([[1, *lm.ids(texts[0])]])
    assert found.documents[0] == pytest.approx(float(lm.module(input_ids=ids, labels=ids).loss), rel=1e-5)
    told = site.generate(["Once upon a time"], max_new_tokens=30, temperature=0)[0]
    assert told.whole.startswith("Once upon a time, there was a little")
