"""Language models are found, read from safetensors alone, and refused with a reason."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo.errors import ModelError, WeightsError
from zoo.networks import language
from zoo.networks.language import Feed, LanguageModel, language_names, load_language, tales_folder
from zoo.tales.tokenizer import tokenizer

transformers = pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder with one small model in it, `little`, saved as Hugging Face saves it."""
    monkeypatch.setenv("CIRCUITS_WEIGHTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = transformers.LlamaConfig(
        vocab_size=238, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    little = tmp_path / "little"
    transformers.LlamaForCausalLM(config).save_pretrained(little)
    tokenizer().save_pretrained(little)
    return little


def change(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def change_weights(folder: Path, change: Any) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["little", "hf:little", "./little", "hf:./little"])
def test_a_folder_is_found_by_name_and_by_path(folder: Path, name: str) -> None:
    lm = load_language(name)
    assert lm.name == f"hf:{name.removeprefix('hf:')}"
    assert (lm.causal, lm.context, lm.width, lm.prefix, lm.suffix) == (True, 64, 8, (1,), ())
    assert lm.digest == load_language(folder).digest
    assert not lm.module.training and not any(p.requires_grad for p in lm.module.parameters())


def test_the_models_at_hand_are_listed(folder: Path) -> None:
    assert language_names() == ["tales", "hf:little"]


def test_stored_halves_are_read_as_floats_unless_asked_otherwise(folder: Path) -> None:
    change_weights(folder, lambda state: state.update({k: v.half() for k, v in state.items()}))
    change(folder / "config.json", dtype="float16", torch_dtype="float16")
    assert next(load_language("little").module.parameters()).dtype == torch.float32
    assert next(load_language("little", dtype=None).module.parameters()).dtype == torch.float16


def test_a_name_that_is_nowhere_says_where_it_was_looked_for(folder: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_language("hf:litle")
    said = str(caught.value)
    for part in (str(folder.parent), "working folder", "cache", "Nearest: little", "tales, hf:little"):
        assert part in said


@pytest.mark.parametrize("name", ["litle", "hf:litle", "owner/name", "hf:./owner/name", "hf:a/b/c", "", "hf:", "\0"])
def test_the_hub_is_never_asked_for_what_is_no_hub_id(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(language, "_load", fail)
    with pytest.raises(ModelError, match="no language model"):
        load_language(name)


def test_the_hub_is_asked_for_a_hub_id_only_and_a_folder_never_leaves_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def note(where: str, **options: Any) -> None:
        asked.append((where, options))
        raise OSError("no network here")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", note)
    for name, where, local in (("hf:owner/name", "owner/name", False), ("hf:little", str(folder), True)):
        with pytest.raises(ModelError, match="no network here"):
            load_language(name)
        assert asked.pop() == (where, {"local_files_only": local, "trust_remote_code": False})


def test_a_folder_that_is_no_model_says_what_it_holds(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json.*it holds .*model\.safetensors"):
        load_language("little")
    (folder.parent / "file").write_text("")
    with pytest.raises(ModelError, match="is a file"):
        load_language("file")


def test_a_missing_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer, none of tokenizer\.json"):
        load_language("little")


def test_weights_that_are_pickled_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="no weights in safetensors"):
        load_language("little")


def test_a_weight_that_is_missing_is_never_made_up(folder: Path) -> None:
    change_weights(folder, lambda state: state.pop("model.layers.0.mlp.up_proj.weight"))
    with pytest.raises(WeightsError, match=r"1 missing or of another shape \(model\.layers\.0\.mlp\.up_proj\.weight"):
        load_language("little")


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    change(folder / "config.json", intermediate_size=16)
    with pytest.raises(WeightsError, match=r"3 missing or of another shape \(model\.layers\.0\.mlp"):
        load_language("little")


def test_damaged_weights_are_refused(folder: Path) -> None:
    change_weights(folder, lambda state: state["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(WeightsError, match=r"model\.norm\.weight has values that are not finite"):
        load_language("little")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="truncated"):
        load_language("little")


def test_code_that_comes_with_a_model_is_not_run(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('the code was run')\n")
    change(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_language("little")


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r"pip install 'vision-circuits\[lm\]'"):
        load_language("tales")


def test_the_packaged_model_is_checked_against_its_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tales_folder(), copy)
    monkeypatch.setattr(language, "tales_folder", lambda: copy)
    assert load_language("tales").name == "tales"
    change(copy / "tokenizer_config.json", model_max_length=3)
    with pytest.raises(WeightsError, match=r"tokenizer_config\.json is not the file"):
        load_language("tales")
    (copy / "config.json").unlink()
    with pytest.raises(WeightsError, match="missing from this installation"):
        load_language("tales")


def test_kinds_of_models_are_told_apart(folder: Path) -> None:
    t, small = transformers, {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads: dict[str, Any] = {"num_attention_heads": 1, "vocab_size": 50}
    bert, llama = t.BertConfig(**small, **heads), t.LlamaConfig(**small, **heads, num_key_value_heads=1)
    decoder = t.BertConfig(**small, **heads, is_decoder=True)
    for module, causal, head in [
        (t.LlamaForCausalLM(llama), True, True),
        (t.LlamaModel(llama), True, False),
        (t.BertForMaskedLM(bert), False, True),
        (t.BertModel(bert), False, False),
        (t.BertLMHeadModel(decoder), True, True),
    ]:
        lm = LanguageModel(module, tokenizer(), name="x")
        assert (lm.causal, lm.has_head) == (causal, head), type(module).__name__
    with pytest.raises(ModelError, match="an encoder and a decoder"):
        LanguageModel(
            t.T5Model(t.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)), tokenizer(), name="x"
        )


def test_a_context_that_nobody_states_has_to_be_given() -> None:
    made = tokenizer()
    made.model_max_length = int(1e30)
    config = transformers.BloomConfig(hidden_size=8, n_layer=1, n_head=1, vocab_size=50)
    module = transformers.BloomForCausalLM(config)
    with pytest.raises(ModelError, match="context="):
        LanguageModel(module, made, name="x")
    assert LanguageModel(module, made, name="x", context=7).context == 7


def test_what_is_fed_is_known_while_the_model_runs_and_not_after(folder: Path) -> None:
    lm = load_language("little")
    seen: list[Feed | None] = []
    handle = lm.module.register_forward_hook(lambda *_: seen.append(lm.feed))
    feed = Feed(3)
    lm.run(torch.tensor([[1, 2]]), feed=feed)
    handle.remove()
    assert seen == [feed] and lm.feed is None
    with pytest.raises(IndexError):
        lm.run(torch.tensor([[1, 999]]))
    assert lm.feed is None


def test_a_model_that_only_a_file_names_is_not_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def from_pretrained(path: str, *, local_files_only: bool, **_: object) -> None:
        asked.append(local_files_only)
        raise OSError("no such files in the cache")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", from_pretrained)
    with pytest.raises(ModelError, match="`hf download evil/repo` fetches it"):
        load_language("hf:evil/repo", hub=False)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_language("hf:evil/repo")
    assert asked == [True, False]
