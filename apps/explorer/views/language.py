"""A language model: activations of latents on texts, active latents of a token, and texts with latents steered."""

from __future__ import annotations

from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, pick
from apps.explorer.pages import Entry
from apps.explorer.panes import language
from apps.explorer.panes.sae import training
from apps.explorer.panes.steering import edit_rows
from apps.explorer.resources import language_models
from apps.explorer.resources.language_models import LanguageLocation
from apps.explorer.server.security import UploadError, guarded
from apps.explorer.server.settings import settings
from apps.explorer.session import edit_links
from apps.explorer.session.exports import Export
from circuits.errors import shorten
from sae.language import Texts
from zoo.networks.language import TALES

PAGE = Entry("Language", ":material/notes:", "a language model: latents of its tokens, and steered texts", order=80)
SECTIONS = {"read": "Activations", "steer": "Steering"}


def main() -> None:
    """The page."""
    top = st.container()
    at: LanguageLocation | None = None
    result: tuple[Export, str] | None = None
    with guarded():
        at = _opened()
        if at is not None:
            texts = language_models.texts_of(at)
            section = choose("Section", SECTIONS, "section")
            result = _read(at, texts) if section == "read" else _steer(at, texts)
    with top:
        page_frame.header(
            "language", "Language" if at is None else f"Language model {at.lm.name}",
            about="" if at is None else f"{at.count:,} {'channels' if at.loaded is None else 'latents'} of {at.space}",
            python="" if result is None else result[1], export=None if result is None else result[0],
        )  # fmt: skip


def _opened() -> LanguageLocation | None:
    """The model and the SAE of the address; None while they are not ready."""
    server = settings()
    sources = language_models.available(server)
    requested = st.query_params.get("lm", "")
    if requested and requested not in sources:
        raise UploadError(f"no language model {shorten(requested, 60)!r} is open here; there are {', '.join(sources)}")
    left, right = st.columns(2)
    name = pick("Model", {k: k for k in sources}, "lm", left)
    lm = page_frame.background_result(
        ("language model", sources[name]), f"opening {name}", lambda report: language_models.model(sources[name])
    )
    if lm is None:
        return None
    fitting = language_models.fitting(server, lm)
    requested_sae = st.query_params.get("sae", "")
    if fitting:
        if requested_sae and requested_sae not in fitting:
            raise UploadError(f"no SAE {shorten(requested_sae, 60)!r} of {name}; there are {', '.join(fitting)}")
        latents = {k: f"{k}: {sae.layer}, {sae.sae.latents:,} latents" for k, sae in fitting.items()}
        return language_models.location_of(lm, fitting[pick("SAE", latents, "sae", right)])
    if lm.name != TALES:
        return language_models.location_of(lm, None)
    training.wait_for(lm)
    return None


def _read(at: LanguageLocation, texts: Texts | None) -> tuple[Export, str] | None:
    if at.loaded is None:
        training.show_command(at)
        return None
    activity = None
    if texts is not None:
        activity = page_frame.background_result(
            ("activity", *at.key, texts.digest), f"encoding {len(texts)} texts",
            lambda report: language_models.latent_activity(at, texts, report),
        )  # fmt: skip
        if activity is None:
            return None
    text = language.text_of_address(texts, 0 if activity is None else language.first_text(at, activity[0]))
    if not text:
        st.info("The texts of its training are not known here: type a text.")
        return None
    key = ("encode", *at.key, text)
    encoded = page_frame.background_result(key, "encoding the text", lambda report: language_models.encode(at, text))
    if encoded is None:
        return None
    latent, token = language.selection(at, encoded)
    top = None if activity is None else activity[1]
    maximum = max(float(encoded.of(latent).max()), 0.0 if top is None else float(top.values[latent]))
    left, right = st.columns([7, 6], gap="large")
    with left:
        language.show_text(at, encoded, latent, token, maximum)
    with right:
        language.show_active_latents(at, encoded, latent, token, top)
    feature = None if activity is None else language.feature(at, activity[0], latent)
    if feature is not None:
        language.show_latent(at, feature, latent)
    values = encoded.of(latent).tolist()
    rows = [{"token": i, "word": token, "value": values[i]} for i, token in enumerate(encoded.tokens)]
    described = None if feature is None else feature.describe()
    data: Any = {"latent": f"{at.space}:{latent}", "tokens": rows, "feature": described}
    return Export(f"{at.space}-{latent}", None, lambda: data, lambda: rows), language.reading_code(at, text, latent)


def _steer(at: LanguageLocation, texts: Texts | None) -> tuple[Export, str] | None:
    prompt = language.prompt_of_address()
    edits = language.edits_of_address(at, prompt[0])
    with st.container(border=True):
        edit_rows.show(edits, at.count, at.name, size=None, text=True)
    top = page_frame.background_result(
        ("maxima", *at.key, texts.digest if texts is not None else prompt[0]), "maximum activation of each latent",
        lambda report: language_models.top(at, [prompt[0]] if texts is None else texts, report),
    )  # fmt: skip
    if top is None or not edits:
        return None
    generations = language.generations(at, edits, top, prompt)
    if generations is None:
        return None
    language.show_generations(at, generations, prompt[0])
    sides = {"unsteered": generations.before, "steered": generations.after, "random": generations.random}
    rows = [{"side": side, "text": text.whole} for side, group in sides.items() for text in group]
    steering = language_models.recipe(at, edits, top)
    data: Any = {"edits": edit_links.format_edits(edits), "steering": steering, "texts": rows}
    export = Export(f"steering-{at.space}", None, lambda: data, lambda: rows)
    return export, language.steering_code(at, edits, prompt)


main()
