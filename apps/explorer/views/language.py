"""A language model: texts under its latents, what fires on a token, and what it writes when latents are turned up."""

from __future__ import annotations

from typing import Any

import streamlit as st

from apps.explorer import frame, languages, recipes
from apps.explorer.components.choose import choose, pick
from apps.explorer.exports import Export
from apps.explorer.languages import Reader
from apps.explorer.panes import edit_rows, language, learning
from apps.explorer.security import UploadError, guarded, plain
from apps.explorer.settings import settings
from circuits.errors import shorten
from sae.language import Texts
from zoo.language import TALES, LanguageModel

SECTIONS = {"read": "Read", "steer": "Steer"}


def main() -> None:
    """The page."""
    top = st.container()
    at: Reader | None = None
    export: Export | None = None
    with guarded():
        at = _opened()
        if at is not None:
            texts = languages.texts_of(at)
            section = choose("Section", SECTIONS, "section")
            export = _read(at, texts) if section == "read" else _steer(at, texts)
    with top:
        frame.show(
            "language", "Language" if at is None else f"Language model {at.lm.name}",
            about="" if at is None else f"{at.count:,} {'channels' if at.given is None else 'latents'} of {at.space}",
            python="" if at is None else _python(at), export=export,
        )  # fmt: skip


def _opened() -> Reader | None:
    """The model and the SAE of the address; None while they are not ready."""
    chosen = settings()
    known = languages.known(chosen)
    said = st.query_params.get("lm", "")
    if said and said not in known:
        raise UploadError(f"no language model {shorten(said, 60)!r} is open here; there are {', '.join(known)}")
    one, two = st.columns(2)
    name = pick("Model", {k: k for k in known}, "lm", one)
    lm: LanguageModel | None = frame.settled(
        ("language model", known[name]), f"opening {name}", lambda report: languages.model(known[name])
    )
    if lm is None:
        return None
    found = languages.fitting(chosen, lm)
    asked = st.query_params.get("sae", "")
    if asked and found and asked not in found:
        raise UploadError(f"no SAE {shorten(asked, 60)!r} of {name} is here; there are {', '.join(found)}")
    if found:
        latents = {k: f"{k}: {one.layer}, {one.sae.latents:,} latents" for k, one in found.items()}
        return languages.reader(lm, found[pick("SAE", latents, "sae", two)])
    if lm.name == TALES:
        learning.wait_for(lm)
        return None
    return languages.reader(lm, None)


def _read(at: Reader, texts: Texts | None) -> Export | None:
    if at.given is None:
        st.info(f"There is no SAE of {plain(at.lm.name)}. Train one on texts, and start the explorer with it:")
        st.code(
            f"circuits sae train {at.site.address} --text FILE --latents {8 * at.site.d} --k 16 --out saes/words\n"
            f"circuits explore --lm {at.lm.name.removeprefix('hf:')} --sae saes/words", language="sh", wrap_lines=True,
        )  # fmt: skip
        return None
    both = None
    if texts is not None:
        both = frame.settled(
            ("activity", *at.key, texts.digest), f"reading {len(texts)} texts",
            lambda report: languages.firing(at, texts, report),
        )  # fmt: skip
        if both is None:
            return None
    words, _ = language.text_asked(texts, 0 if both is None else language.first_text(at, both[0]))
    if not words:
        st.info("Which texts it was trained with is not known here: type one.")
        return None
    made = frame.settled(("read", *at.key, words), "reading", lambda report: languages.read(at, words))
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


def _steer(at: Reader, texts: Texts | None) -> Export | None:
    asked = language.prompt_asked()
    edits = language.edits_asked(at, asked[0])
    with st.container(border=True):
        edit_rows.rows(edits, at.count, at.name, size=None, text=True)
    top = frame.settled(
        ("maxima", *at.key, texts.digest if texts is not None else asked[0]), "how strongly latents fire at most",
        lambda report: languages.top(at, [asked[0]] if texts is None else texts, report),
    )  # fmt: skip
    if top is None or not edits:
        return None
    made = language.written(at, edits, top, asked)
    if made is None:
        return None
    language.texts_shown(at, made, asked[0])
    sides = {"unsteered": made.before, "steered": made.after, "random": made.random}
    rows = [{"side": side, "text": one.whole} for side, some in sides.items() for one in some]
    data: Any = {"edits": recipes.written(edits), "steering": languages.recipe(at, edits, top), "texts": rows}
    return Export(f"steering-{at.space}", None, lambda: data, lambda: rows)


def _python(at: Reader) -> str:
    lines = ["import sae", "from sae.language import LanguageSite"]
    lines += [
        "from sae.steering import LatentEdit, maxima, steer",
        "from zoo.language import load_language",
        "",
        f"lm = load_language({at.lm.name!r})",
    ]
    lines += [f"site = LanguageSite(lm, {at.site.site!r})"]
    lines += ["s = None" if at.given is None else f"s = sae.load({str(at.given.folder)!r})"]
    latent = st.session_state.get("edit0-latent", 0)
    texts = languages.READ if at.lm.name == TALES else "TEXTS.txt"
    lines += [f"known = maxima(s, site, {texts!r})", f'edits = [LatentEdit({latent}, "add", 0.5, unit="max")]']
    lines += ["with steer(site, s, edits, maxima=known):", f"    print(site.generate([{language.PROMPT!r}])[0].whole)"]
    return "\n".join(lines) + "\n"


main()
