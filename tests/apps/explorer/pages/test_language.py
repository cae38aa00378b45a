"""The Language page, run without a browser: tokens, latents, texts steered, several models, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the extra lm")

from apps.explorer.components.token_activations import token_row
from apps.explorer.panes import language
from apps.explorer.panes.sae import training
from apps.explorer.resources import language_models
from apps.explorer.resources.language_models import LanguageLocation
from apps.explorer.server.settings import Settings
from circuits.errors import CircuitsError
from sae.language import LanguageSite, open_texts
from sae.steering import LatentEdit, maxima
from tests.apps.explorer.conftest import Open, texts
from tests.apps.explorer.pages.test_python import elements, run_code
from zoo.weights.loading import digest

TEXT = "Tom liked the red bridge of Fogport."


@pytest.fixture(scope="module")
def small(made_store: Path) -> Path:
    """The store, with the SAE that the explorer trains, but smaller."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LATENTS": 96, "STEPS": 40, "STORIES": 60, "TEXTS": "tales:200@2"}.items():
            patch.setattr(language_models, name, value)
        language_models.train(made_store, None)
    return made_store


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few texts to look at."""
    monkeypatch.setattr(language_models, "READ", "tales:24@3")


@pytest.fixture
def reader(small: Path) -> LanguageLocation:
    """The built-in model with that SAE."""
    lm = language_models.model("tales")
    return language_models.location_of(lm, language_models.fitting(Settings(store=small), lm)["own"])


@pytest.fixture
def active(reader: LanguageLocation) -> int:
    """The latent with the largest activation."""
    return int(maxima(reader.sae, reader.site, open_texts("tales:10@3")).values.argmax())


def test_a_text_is_read_token_by_token(opened: Open, small: Path) -> None:
    at = opened("language", text=TEXT, token=5, latent=3)
    assert not at.error and not at.exception
    page = texts(at)
    assert "Active latents on" in page
    assert '"red"' in page or " red" in page
    assert "Latent 3" in page


def test_the_first_view_is_of_a_drawn_text_with_all_that_is_known_of_a_latent(opened: Open, small: Path) -> None:
    at = opened("language")
    assert not at.error and not at.exception
    assert at.subheader[0].value == "Language model tales" and "active on" in texts(at)
    at.number_input(key="document_number").set_value(7).run()
    assert at.query_params["document"] in ("7", ["7"]) and not at.error


def test_what_is_shown_of_a_text_is_what_the_sae_says(reader: LanguageLocation) -> None:
    encoded = language_models.encode(reader, TEXT)
    assert "".join(encoded.tokens).strip() == TEXT
    vectors = next(iter(reader.site.blocks([TEXT]))).vectors
    assert reader.sae is not None
    dense = reader.sae.encode(vectors).numpy()
    assert len(encoded.tokens) == len(dense)
    for latent in range(reader.count):
        assert np.allclose(encoded.of(latent), np.maximum(dense[:, latent], 0), atol=1e-5)
    for token, row in enumerate(dense):
        assert [i for i, _ in encoded.at(token)] == sorted(np.flatnonzero(row > 0), key=lambda i: -row[i])


def test_texts_stand_beside_unsteered_ones_and_those_of_a_random_latent(opened: Open, small: Path, active: int) -> None:
    edits = f"{active}:add:2x"
    at = opened("language", section="steer", edits=edits, prompt="One day Anna walked to", tokens=12, seed=4)
    assert not at.error and not at.exception
    page = texts(at)
    assert "Unsteered" in page and "Steered" in page and "Random" in page and f"for {active}" in page
    assert "sentences are grammatical" in page


def test_the_landmark_is_steered_where_a_place_is_due(
    reader: LanguageLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language.links, "param", lambda *_: None)
    named = replace(reader, names={5: {"name": language_models.DEFAULT_FEATURE, "auc": 0.99}})
    assert language.edits_of_address(named, language.PROMPT) == (LatentEdit(5, "set", 7.0, "max", at=(5,)),)
    assert language.edits_of_address(named, "She saw")[0].at == (2,), (
        "the first token after the prompt, whatever that is"
    )
    known = replace(reader, names={6: {"name": "red", "auc": 0.99}})
    assert language.edits_of_address(known, language.PROMPT) == (LatentEdit(6, "add", 0.5, "max"),)


def test_the_python_of_a_text_gives_the_activations_and_the_statistics_of_the_page(
    opened: Open, small: Path, reader: LanguageLocation
) -> None:
    latent = language_models.encode(reader, TEXT).at(3)[0][0]
    at = opened("language", text=TEXT, latent=latent)
    scope = run_code(at)
    dense = scope["s"].encode(scope["vectors"])[:, latent].numpy()
    assert dense.max() > 0
    row = next(data["rows"][0] for data in elements(at) if data.get("label", "").startswith("the text"))
    largest = max(float(scope["feature"].maximum), float(dense.max()))
    assert np.allclose(row["shares"], np.clip(dense / largest, 0, 1), atol=1e-3)
    feature = scope["feature"]
    facts = f"active on {100 * feature.density:.3g} % of tokens, maximum {feature.maximum:.3g}, mean where active"
    assert facts in texts(at).replace("\\", "")


def test_the_python_of_steered_texts_writes_the_texts_of_the_page(opened: Open, small: Path, active: int) -> None:
    prompt = "One day Anna walked to"
    at = opened("language", section="steer", edits=f"{active}:add:2x", prompt=prompt, tokens=9, seed=4)
    lines = run_code(at)["printed"].splitlines()
    shown = texts(at).replace("\\", "")
    steered = shown[shown.index("##### Steered") : shown.index("##### Random")]
    assert len(lines) == language.TEXTS and all(line.removeprefix(prompt).strip() in steered for line in lines)


def test_writing_is_the_librarys_and_an_empty_edit_changes_nothing(reader: LanguageLocation, active: int) -> None:
    top = maxima(reader.sae, reader.site, open_texts("tales:10@3"))
    generated = language_models.generate(
        reader, [LatentEdit(active, "scale", 1.0)], top, "One day", texts=2, tokens=8, seed=1, control=0
    )
    alone = reader.site.generate(["One day"] * 2, max_new_tokens=8, seed=1)
    assert [text.whole for text in generated.before] == [text.whole for text in alone]
    assert [text.whole for text in generated.after] == [text.whole for text in alone], "times one is nothing"
    assert set(generated.random_units) == {active} and generated.random_units[active] != active


def test_the_model_is_as_before(reader: LanguageLocation, active: int) -> None:
    module = reader.lm.module
    before = digest(module.state_dict()), sum(len(part._forward_hooks) for part in module.modules())
    top = maxima(reader.sae, reader.site, open_texts("tales:10@3"))
    language_models.generate(
        reader, [LatentEdit(active, "add", 2.0, "max")], top, "One day", texts=2, tokens=5, seed=1, control=1
    )
    language_models.encode(reader, TEXT)
    assert (digest(module.state_dict()), sum(len(part._forward_hooks) for part in module.modules())) == before


WRONG: list[dict[str, str]] = [
    {"latent": "96"}, {"token": "99999"}, {"lm": "../../etc/passwd"}, {"text": "x" * 40_000},
    {"section": "steer", "edits": "3:jump:2"}, {"section": "steer", "prompt": "x" * 40_000},
]  # fmt: skip
WRONG_TOO: list[dict[str, str]] = [
    {"latent": "-1"}, {"latent": "<script>"}, {"latent": "9" * 40_000}, {"document": "24"},
    {"document": "../../etc/passwd"}, {"lm": "hf:evil/repo"}, {"sae": "../x"},
    {"section": "steer", "edits": "96:ablate"}, {"section": "steer", "seed": "nan"},
    {"section": "steer", "tokens": "9" * 400},
    {"section": "steer", "edits": "3:set:2x@0,0,7,7x"},
]  # fmt: skip


@pytest.mark.parametrize("params", [*WRONG, *(pytest.param(params_, marks=pytest.mark.slow) for params_ in WRONG_TOO)])
def test_what_the_address_cannot_mean_is_one_line(opened: Open, small: Path, params: dict[str, str]) -> None:
    at = opened("language", **params)
    assert not at.exception and len(at.error) == 1, [e.value for e in at.error]
    assert "\n" not in at.error[0].value and "Something went wrong" not in at.error[0].value


def test_a_script_in_a_text_is_text(opened: Open, small: Path) -> None:
    bad = "<script>alert(1)</script> [x](javascript:alert(1)) **red**"
    for params in ({"text": bad}, {"section": "steer", "prompt": bad, "tokens": "5"}):
        at = opened("language", **params)
        assert not at.exception
        assert all("<script" not in block.proto.body for block in at.get("html"))
        for block in (*at.markdown, *at.caption):
            assert "<script>" not in block.value and "](javascript" not in block.value.replace("\\]\\(", "")


def test_an_sae_of_other_weights_is_not_used(small: Path) -> None:
    lm = language_models.model("tales")
    sae = language_models.fitting(Settings(store=small), lm)["own"]
    other = {**sae.sae.metadata, "weights_digest": "0" * 64}
    assert language_models._fits(sae, lm)
    sae.sae.metadata = other
    try:
        assert not language_models._fits(sae, lm)
    finally:
        sae.sae.metadata = {**other, "weights_digest": lm.digest}


def test_without_the_sae_it_is_made_once_by_a_job(
    opened: Open, settings: Callable[..., None], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from apps.explorer.server.jobs import Job

    shutil.rmtree(store / language_models.FOLDER, ignore_errors=True)
    started: list[dict[str, str]] = []

    class Jobs:
        def __init__(self, _store: Path) -> None:
            self.job = Job("x", "dictionary", started[-1] if started else {}, 0.0, "running", 3, 10, "training")

        def all(self) -> list[Job]:
            return [self.job] if started else []

        def get(self, _identity: str) -> Job:
            return self.job

        def start(self, kind: str, options: dict[str, str]) -> Job:
            assert kind == "dictionary"
            started.append(options)
            return self.job

    settings(store)
    monkeypatch.setattr(training, "Jobs", Jobs)
    at = opened("language", settle=False)
    for _ in range(50):
        if started:
            break
        at.run()
    at.run()
    assert "This happens once" in texts(at) and len(started) == 1 and not at.error
    assert started[0]["weights"] == language_models.model("tales").digest


def test_without_the_extra_the_page_says_what_to_install(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.explorer.session import state
    from zoo.errors import ModelError

    def missing(_source: str) -> None:
        raise ModelError("language models need transformers: pip install 'vision-circuits[lm]'")

    state.executor().forget(("language model", "tales"))
    monkeypatch.setattr(language_models, "model", missing)
    at = opened("language")
    assert len(at.error) == 1 and "circuits\\[lm\\]" in at.error[0].value and not at.exception


def test_another_language_model_is_opened_by_its_folders_name(
    opened: Open, settings: Callable[..., None], made_store: Path, tmp_path: Path
) -> None:
    import shutil

    from zoo.networks.language import tales_folder

    shutil.copytree(tales_folder(), tmp_path / "mine")
    settings(made_store, lms=[str(tmp_path / "mine")])
    at = opened("language", lm="mine")
    assert not at.exception and not at.error
    assert "circuits sae train" in texts(at), "it has no SAE: this is how one is trained"
    at = opened("language", lm="mine", section="steer", edits="3:add:1", tokens="6")
    assert not at.exception and not at.error and "64 channels" in texts(at)


def test_colors_are_shares_of_the_maximum() -> None:
    row = token_row(["a", "b", "c"], [0.0, 2.0, 9.0], 4.0, at=1, note="x")
    assert row["shares"] == [0.0, 0.5, 1.0] and row["titles"] == ["", "2", "9"] and row["at"] == 1
    assert token_row(["a"], [1.0], 0.0, at=None)["shares"] == [0.0]


def test_names_of_latents_are_kept_with_how_well_they_are_known(small: Path, reader: LanguageLocation) -> None:
    folder = language_models.own_folder(small, reader.lm)
    names = json.loads((folder / language_models.NAMES).read_text())
    assert all(
        feature["auc"] >= language_models.LABELED and int(k) == feature["latent"] for k, feature in names.items()
    )
    (folder / language_models.NAMES).write_text("{damaged")
    try:
        assert language_models._names(folder) == {}, "damaged names are no names"
    finally:
        (folder / language_models.NAMES).write_text(json.dumps(names))


def test_an_empty_text_says_so(reader: LanguageLocation) -> None:
    with pytest.raises(CircuitsError, match="empty"):
        language_models.encode(reader, "   ")
    assert isinstance(reader.site, LanguageSite)
