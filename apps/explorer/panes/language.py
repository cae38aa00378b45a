"""Parts of the Language page: a text colored by a latent, active latents of a token, examples, and steered texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.active_latents import active_latents, latent_row
from apps.explorer.components.choose import choose, follow, number
from apps.explorer.components.token_activations import token_activations, token_row
from apps.explorer.panes import charts
from apps.explorer.resources import language_models
from apps.explorer.resources.language_models import EncodedText, Generations, LanguageLocation
from apps.explorer.server.security import UploadError, plain
from apps.explorer.session import edit_links, links
from apps.explorer.session.edit_links import Edits
from circuits.errors import shorten
from circuits.plot.drawing.wording import minus
from sae.language import Activity, TextFeature, Texts, text_features
from sae.steering import Maxima

EXAMPLES = {"top": "Top activating texts", "bands": "Strong to weak"}
TOP, ACTIVE, LONGEST_TEXT, LONGEST_PROMPT = 8, 10, 2_000, 300
PROMPT, TEXTS = "One day Anna walked to", 3


def first_text(at: LanguageLocation, activity: Activity) -> int:
    """The document on which the default latent has its maximum."""
    document, _, value = activity.of(at.default_latent)
    return int(document[value.argmax()]) if len(value) else 0


# -- a text -----------------------------------------------------------------------------------------------------------


def text_of_address(texts: Texts | None, default: int) -> str:
    """The text of the address, typed or number `default` of `texts`, with the widgets that change it.

    Raises:
        UploadError: no such text, or one that is too long.
    """
    typed = links.param("text", LONGEST_TEXT)
    left, right = st.columns([2, 7], vertical_alignment="top")
    follow("own_text", typed or "")
    right.text_area("Or your own text", key="own_text", max_chars=LONGEST_TEXT, height=68, on_change=_typed,
                    placeholder=shorten(texts[0], 60) if texts else "")  # fmt: skip
    if texts is None:
        return typed or ""
    last = len(texts) - 1
    document = number(f"Text (0 to {last})", "document", 0, last, default, left, clear=("text", "token"))
    return typed or texts[document]


def _typed() -> None:
    links.change(text=st.session_state["own_text"].strip() or None, token=None)


def selection(at: LanguageLocation, encoded: EncodedText) -> tuple[int, int]:
    """The latent and the token of the address; by default a labeled latent, and the token of its maximum.

    Raises:
        CircuitsError: there is no such latent, or token.
    """
    latent_text, token = links.param("latent", 20), links.param("token", 20)
    if token is not None and not (token.isascii() and token.isdecimal() and int(token) < len(encoded.tokens)):
        raise UploadError(f"the text has tokens 0 to {len(encoded.tokens) - 1}; asked for {token}")
    if latent_text is not None:
        latent = language_models.checked_latent(latent_text, at.count)
    elif token is not None and encoded.at(int(token)):
        latent = encoded.at(int(token))[0][0]
    else:
        best = np.unravel_index(int(encoded.values.argmax()), encoded.values.shape)
        latent = at.default_latent if encoded.of(at.default_latent).any() else int(encoded.indices[best])
    return latent, int(encoded.of(latent).argmax()) if token is None else int(token)


def show_text(at: LanguageLocation, encoded: EncodedText, latent: int, token: int, maximum: float) -> None:
    """The text, colored by a latent; a click selects a token."""
    row = token_row(encoded.tokens, encoded.of(latent).tolist(), maximum, at=token)
    clicked = token_activations([row], "text", label=f"the text, colored by latent {latent}", large=True)
    title = f"latent {latent} {at.name(latent)}".strip()
    st.caption(plain(f"Colored by {title}. Click a token to see its active latents."))
    if clicked is not None and clicked[1] != token:
        links.change(token=clicked[1], latent=latent)
        st.rerun()


def show_active_latents(
    at: LanguageLocation, encoded: EncodedText, latent: int, token: int, top: Maxima | None
) -> None:
    """Latents that are active on the token; a click selects one."""
    active = encoded.at(token)[:ACTIVE]
    promoted = language_models.promoted_tokens(at, [i for i, _ in active])
    rows = [
        latent_row(i, at.name(i), v, v / max(v, float(top.values[i])) if top is not None else 1.0,
                   [string for string, _ in promoted.get(i, ())][:4], chosen=i == latent)
        for i, v in active
    ]  # fmt: skip
    st.markdown(f"##### Active latents on {plain(repr(encoded.tokens[token].strip() or encoded.tokens[token]))}")
    st.caption("Latent, activation (bar: share of its maximum), and the tokens whose logits it raises most.")
    clicked = active_latents(rows, "active-latents", label="latents that are active on the token")
    if clicked is not None and clicked != latent:
        links.change(latent=clicked, token=token)
        st.rerun()


# -- a latent ---------------------------------------------------------------------------------------------------------


def feature(at: LanguageLocation, activity: Activity, latent: int) -> TextFeature | None:
    """Examples and logit effects of a latent; None while they are computed."""
    sae = at.sae
    if sae is None:
        return None
    return page_frame.background_result(
        ("text feature", *at.key, activity.texts.digest, latent), f"examples of latent {latent}",
        lambda report: text_features(sae, activity, [latent], top=TOP)[0],
    )  # fmt: skip


def show_latent(at: LanguageLocation, feature: TextFeature, latent: int) -> None:
    """A latent: its examples, its effect on the logits, and its activation statistics."""
    st.markdown(f"##### Latent {latent} {plain(at.name(latent))}")
    st.caption(plain(_facts(at, feature, latent)))
    if not feature.tokens:
        st.info("It is never active on these texts.")
        return
    left, right = st.columns([8, 5], gap="large")
    with left:
        kind = choose("Examples", EXAMPLES, "examples")
        if kind == "top":
            _examples(feature.top, feature.maximum, "top")
        for i, band in enumerate(reversed(feature.bands)) if kind == "bands" else ():
            st.caption(f"{band.low:.3g} to {band.high:.3g}: a random sample")
            _examples(band.passages, feature.maximum, f"band-{i}")
    with right:
        if feature.promoted:
            st.caption("Effect of the latent on the logits of tokens, to first order")
            charts.show(charts.logit_chart(feature), "logits", "tokens whose logits it raises and lowers most")
        near = [row for row in feature.shares_with if row["beyond_chance"]][:5]
        if near:
            listed = ", ".join(f":{str(r['unit']).rpartition(':')[2]} ({r['cosine']:.2f})" for r in near)
            st.caption(plain(minus(f"Latents with nearly the same decoder direction (cosine): {listed}")))


def _facts(at: LanguageLocation, feature: TextFeature, latent: int) -> str:
    density, maximum, mean = 100 * feature.density, feature.maximum, feature.mean
    text = f"active on {density:.3g} % of tokens, maximum {maximum:.3g}, mean where active {mean:.3g}"
    label = at.names.get(latent)
    if label is not None:
        text += (
            f". Of all latents it detects this feature of the tales best: AUC {label['auc']:.2f} on "
            f"held-out texts; the best channel {label['channel_auc']:.2f}, the best of as many random directions "
            f"{label['random_auc']:.2f}"
        )
    return text


def _examples(examples: Sequence[Any], maximum: float, key: str) -> None:
    rows = [token_row(e.words, e.values, maximum, at=e.at, note=f"{e.value:.3g}") for e in examples]
    clicked = token_activations(rows, f"examples-{key}", label="examples of the latent")
    if clicked is not None:
        example = examples[clicked[0]]
        links.change(document=example.document, token=example.token - example.at + clicked[1], text=None,
                     latent=st.query_params.get("latent"))  # fmt: skip
        st.rerun()


# -- texts ------------------------------------------------------------------------------------------------------------


def edits_of_address(at: LanguageLocation, prompt: str) -> Edits:
    """The edits of the address; by default half of its maximum added to the latent of the address.

    Where the address names no latent and the SAE has one for the landmark: that latent, at the first token after the
    prompt, where it makes the model name the landmark without breaking sentences.

    Raises:
        UploadError: edits that cannot be read.
    """
    text = links.param("edits", 2 * links.LONGEST)
    if text == "none":
        return ()
    if text is None:
        latent = links.param("latent", 20)
        if latent is None and at.names.get(at.default_latent, {}).get("name") == language_models.DEFAULT_FEATURE:
            text = f"{at.default_latent}:set:7x@{len(at.lm.ids(prompt))}"
        else:
            index = at.default_latent if latent is None else language_models.checked_latent(latent, at.count)
            text = f"{index}:add:0.5x"
    return edit_links.parse_edits(text, at.count, None)


def prompt_of_address() -> tuple[str, int, int, int]:
    """Prompt, number of tokens, seed, and which random latents are the control; with the widgets that change them.

    Raises:
        UploadError: numbers out of range.
    """
    columns = st.columns([6, 2, 2, 2], vertical_alignment="bottom")
    prompt = links.param("prompt", LONGEST_PROMPT) or PROMPT
    follow("prompt_typed", prompt)
    columns[0].text_input("Prompt", key="prompt_typed", max_chars=LONGEST_PROMPT, on_change=_prompted)
    tokens = number("Tokens", "tokens", 5, 150, 50, columns[1])
    seed = number("Seed", "seed", 0, 9_999, 0, columns[2])
    return prompt, tokens, seed, number("Random latent", "control", 0, 4, 0, columns[3])


def _prompted() -> None:
    links.change(prompt=st.session_state["prompt_typed"].strip() or None)


def generations(
    at: LanguageLocation, edits: Edits, top: Maxima, prompt_options: tuple[str, int, int, int]
) -> Generations | None:
    """Texts without and with the edits; None while they are generated."""
    prompt, tokens, seed, control = prompt_options
    options = {"texts": TEXTS, "tokens": tokens, "seed": seed, "control": control}
    key = ("generate", *at.key, edit_links.format_edits(edits), prompt, tokens, seed, control)
    return page_frame.background_result(
        key, "generating texts",
        lambda report: language_models.generate(at, edits, top, prompt, **options, progress=report),
    )  # fmt: skip


def show_generations(at: LanguageLocation, generated: Generations, prompt: str) -> None:
    """The texts, side by side."""
    replaced = ", ".join(f"{new} for {old}" for old, new in generated.random_units.items())
    sides = {
        "Unsteered": generated.before,
        "Steered": generated.after,
        f"Random, a step as long: {replaced}": generated.random,
    }
    for column, (title, texts) in zip(st.columns(3, gap="medium"), sides.items(), strict=True):
        with column, st.container(border=True, height="stretch"):
            st.markdown(f"##### {plain(title)}")
            for text in texts:
                gap = " " if text.text[:1].isspace() else ""
                st.markdown(f":gray[{plain(prompt, LONGEST_PROMPT)}]{gap}{plain(text.text, 2_000)}")
            summary = language_models.landmark_summary(at, texts)
            if summary:
                st.caption(plain(summary))


# -- the same in Python -----------------------------------------------------------------------------------------------


def reading_code(at: LanguageLocation, text: str, latent: int) -> str:
    """Python code that gives the activations of a latent on a text, and what is known of it on the page's texts."""
    texts = language_models.texts_code(at)
    code = (
        f"{language_models.site_code(at)}\n"
        f"vectors = next(iter(site.blocks([{text!r}]))).vectors\n"
        f"print(s.encode(vectors)[:, {latent}])\n"
    )
    if texts is None or at.loaded is None:
        return code
    return code + (
        f"\n{texts}\nfrom sae.language import activity, text_features\n\n"
        f"active = activity(s, site, texts, name={at.loaded.name!r})\n"
        f"feature = text_features(s, active, [{latent}], top={TOP})[0]\n"
        "print(feature.density, feature.maximum, feature.mean)\n"
    )


def steering_code(at: LanguageLocation, edits: Edits, prompt_options: tuple[str, int, int, int]) -> str:
    """Python code that gives the steered texts."""
    prompt, tokens, seed, _ = prompt_options
    texts = language_models.texts_code(at) or f"texts = [{prompt!r}]\n"
    return (
        f"{language_models.site_code(at)}\n{texts}\n"
        "from sae import LatentEdit, When\nfrom sae.steering import maxima\n\n"
        f"edits = {edit_links.as_python(edits)}\n"
        "with sae.steer(site, s, edits, maxima=maxima(s, site, texts)):\n"
        f"    for text in site.generate([{prompt!r}] * {TEXTS}, max_new_tokens={tokens}, seed={seed}):\n"
        "        print(text.whole)\n"
    )
