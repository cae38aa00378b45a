"""A language model: texts under its latents, what fires on a token, and what it writes when latents are turned up."""

from __future__ import annotations

from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, pick
from apps.explorer.panes import language, sae_training
from apps.explorer.panes.steering import edit_rows
from apps.explorer.resources import language_models
from apps.explorer.server.security import UploadError, guarded, plain
from apps.explorer.server.settings import settings
from apps.explorer.session import edit_links
from apps.explorer.session.exports import Export
from circuits.errors import shorten
from sae.language import Texts
from zoo.networks.language import TALES, LanguageModel

SECTIONS = {"read": "Read", "steer": "Steer"}


def main() -> None:
    """The page."""
    top = st.container()
    at: language_models.Reader | None = None
    export: Export | None = None
    with guarded():
        at = _opened()
        if at is not None:
            texts = language_models.texts_of(at)
            section = choose("Section", SECTIONS, "section")
            export = _read(at, texts) if section == "read" else _steer(at, texts)
    with top:
        page_frame.show(
            "language", "Language" if at is None else f"Language model {at.lm.name}",
            about="" if at is None else f"{at.count:,} {'channels' if at.given is None else 'latents'} of {at.space}",
            python="" if at is None else _python(at), export=export,
        )  # fmt: skip


def _opened() -> language_models.Reader | None:
    """The model and the SAE of the address; None while they are not ready."""
    chosen = settings()
    known = language_models.known(chosen)
    said = st.query_params.get("lm", "")
    if said and said not in known:
        raise UploadError(f"no language model {shorten(said, 60)!r} is open here; there are {', '.join(known)}")
    one, two = st.columns(2)
    name = pick("Model", {k: k for k in known}, "lm", one)
    lm: LanguageModel | None = page_frame.settled(
        ("language model", known[name]), f"opening {name}", lambda report: language_models.model(known[name])
    )
    if lm is None:
        return None
    found = language_models.fitting(chosen, lm)
    asked = st.query_params.get("sae", "")
    if asked and found and asked not in found:
        raise UploadError(f"no SAE {shorten(asked, 60)!r} of {name} is here; there are {', '.join(found)}")
    if found:
        latents = {k: f"{k}: {one.layer}, {one.sae.latents:,} latents" for k, one in found.items()}
        return language_models.reader(lm, found[pick("SAE", latents, "sae", two)])
    if lm.name == TALES:
        sae_training.wait_for(lm)
        return None
    return language_models.reader(lm, None)


def _read(at: language_models.Reader, texts: Texts | None) -> Export | None:
    if at.given is None:
        st.info(f"There is no SAE of {plain(at.lm.name)}. Train one on texts, and start the explorer with it:")
        st.code(
            f"circuits sae train {at.site.address} --text FILE --latents {8 * at.site.d} --k 16 --out saes/words\n"
            f"circuits explore --lm {at.lm.name.removeprefix('hf:')} --sae saes/words", language="sh", wrap_lines=True,
        )  # fmt: skip
        return None
    both = None
    if texts is not None:
        both = page_frame.settled(
            ("activity", *at.key, texts.digest), f"reading {len(texts)} texts",
            lambda report: language_models.firing(at, texts, report),
        )  # fmt: skip
        if both is None:
            return None
    words, _ = language.text_asked(texts, 0 if both is None else language.first_text(at, both[0]))
    if not words:
        st.info("Which texts it was trained with is not known here: type one.")
        return None
    made = page_frame.settled(("read", *at.key, words), "reading", lambda report: language_models.read(at, words))
    if made is None:
        return None
    latent, token = language.chosen(at, made)
    top = None if both is None else both[1]
    most = max(float(made.of(latent).max()), 0.0 if top is None else float(top.values[latent]))
    left, right = st.columns([7, 6], gap="large")
    with left:
        language.text(at, made, latent, token, most)
    with right:
        language.fires(at, made, latent, token, top)
    one = None if both is None else language.feature(at, both[0], latent)
    if one is not None:
        language.latent_shown(at, one, latent)
    pairs = zip(made.words, made.of(latent).tolist(), strict=True)
    rows = [{"token": i, "word": word, "value": value} for i, (word, value) in enumerate(pairs)]
    data: Any = {"latent": f"{at.space}:{latent}", "tokens": rows, "feature": None if one is None else one.describe()}
    return Export(f"{at.space}-{latent}", None, lambda: data, lambda: rows)


def _steer(at: language_models.Reader, texts: Texts | None) -> Export | None:
    asked = language.prompt_asked()
    edits = language.edits_asked(at, asked[0])
    with st.container(border=True):
        edit_rows.rows(edits, at.count, at.name, size=None, text=True)
    top = page_frame.settled(
        ("maxima", *at.key, texts.digest if texts is not None else asked[0]), "how strongly latents fire at most",
        lambda report: language_models.top(at, [asked[0]] if texts is None else texts, report),
    )  # fmt: skip
    if top is None or not edits:
        return None
    made = language.written(at, edits, top, asked)
    if made is None:
        return None
    language.texts_shown(at, made, asked[0])
    sides = {"unsteered": made.before, "steered": made.after, "random": made.random}
    rows = [{"side": side, "text": one.whole} for side, some in sides.items() for one in some]
    data: Any = {"edits": edit_links.written(edits), "steering": language_models.recipe(at, edits, top), "texts": rows}
    return Export(f"steering-{at.space}", None, lambda: data, lambda: rows)


def _python(at: language_models.Reader) -> str:
    lines = ["import sae", "from sae.language import LanguageSite"]
    lines += [
        "from sae.steering import LatentEdit, maxima, steer",
        "from zoo.networks.language import load_language",
        "",
        f"lm = load_language({at.lm.name!r})",
    ]
    lines += [f"site = LanguageSite(lm, {at.site.site!r})"]
    lines += ["s = None" if at.given is None else f"s = sae.load({str(at.given.folder)!r})"]
    latent = st.session_state.get("edit0-latent", 0)
    texts = language_models.READ if at.lm.name == TALES else "TEXTS.txt"
    lines += [f"known = maxima(s, site, {texts!r})", f'edits = [LatentEdit({latent}, "add", 0.5, unit="max")]']
    lines += ["with steer(site, s, edits, maxima=known):", f"    print(site.generate([{language.PROMPT!r}])[0].whole)"]
    return "\n".join(lines) + "\n"


main()
