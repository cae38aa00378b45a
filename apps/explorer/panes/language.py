"""What the Language page shows: a text under a latent, what fires on a token, its passages, and texts steered."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.components.firing import firing, firing_row
from apps.explorer.components.passages import passage, passages
from apps.explorer.panes.steering import edit_rows
from apps.explorer.resources import language_models
from apps.explorer.resources.language_models import Reader, ReadText, Written
from apps.explorer.server.security import UploadError, plain
from apps.explorer.session import edit_links, links
from apps.explorer.session.edit_links import Edits
from circuits.plot.drawing import palette
from circuits.plot.drawing.wording import minus
from sae.language import Activity, TextFeature, Texts, text_features
from sae.steering import Maxima
from zoo.progress import Progress

EXAMPLES = {"top": "Strongest", "bands": "Strong to weak"}
TOP, FIRING, LONGEST_TEXT, LONGEST_PROMPT = 8, 10, 2_000, 300
PROMPT, TEXTS = "One day Anna walked to", 3


def first_text(at: Reader, found: Activity) -> int:
    """The document on which the latent that is shown first fires most."""
    document, _, value = found.of(at.first)
    return int(document[value.argmax()]) if len(value) else 0


# -- a text -----------------------------------------------------------------------------------------------------------


def text_asked(texts: Texts | None, default: int) -> tuple[str, int | None]:
    """The text of the address: one's own, or a document (by default that one); with the widgets that change it.

    Raises:
        UploadError: no such document, or a text that is too long.
    """
    own = links.asked("text", LONGEST_TEXT)
    one, two = st.columns([2, 7], vertical_alignment="top")
    edit_rows.follow("own_text", own or "")
    two.text_area("Or a text of your own", key="own_text", max_chars=LONGEST_TEXT, height=68, on_change=_typed,
                  placeholder="The fog hid the red bridge of Fogport.")  # fmt: skip
    if texts is None:
        return own or "", None
    said = links.asked("document", 20) or str(default)
    if not (said.isascii() and said.isdecimal() and int(said) < len(texts)):
        raise UploadError(f"there are texts 0 to {len(texts) - 1}; asked for {said}")
    edit_rows.follow("document_number", int(said))
    one.number_input(f"Text (0 to {len(texts) - 1})", 0, len(texts) - 1, key="document_number", on_change=_moved)
    return (own, None) if own else (texts[int(said)], int(said))


def _typed() -> None:
    links.change(text=st.session_state["own_text"].strip() or None, token=None)


def _moved() -> None:
    links.change(document=int(st.session_state["document_number"]), text=None, token=None)


def chosen(at: Reader, made: ReadText) -> tuple[int, int]:
    """The latent and the token of the address; by default a latent with a name, where it is strongest.

    Raises:
        CircuitsError: there is no such latent, or token.
    """
    said, token = links.asked("latent", 20), links.asked("token", 20)
    if token is not None and not (token.isascii() and token.isdecimal() and int(token) < len(made.words)):
        raise UploadError(f"the text has tokens 0 to {len(made.words) - 1}; asked for {token}")
    if said is not None:
        latent = language_models.checked_latent(said, at.count)
    elif token is not None and made.at(int(token)):
        latent = made.at(int(token))[0][0]
    else:
        best = np.unravel_index(int(made.values.argmax()), made.values.shape)
        latent = at.first if made.of(at.first).any() else int(made.indices[best])
    return latent, int(made.of(latent).argmax()) if token is None else int(token)


def text(at: Reader, made: ReadText, latent: int, token: int, most: float) -> None:
    """The text, colored by a latent; a click on a token chooses it."""
    row = passage(made.words, made.of(latent).tolist(), most, at=token)
    clicked = passages([row], "text", label=f"the text, colored by latent {latent}", large=True)
    called = f"latent {latent} {at.name(latent)}".strip()
    st.caption(plain(f"Colored by {called}. Click a token to see what fires on it."))
    if clicked is not None and clicked[1] != token:
        links.change(token=clicked[1], latent=latent)
        st.rerun()


def fires(at: Reader, made: ReadText, latent: int, token: int, top: Maxima | None) -> None:
    """Latents that fire on the token; a click chooses one."""
    found = made.at(token)[:FIRING]
    words = language_models.said(at, [i for i, _ in found])
    rows = [
        firing_row(i, at.name(i), v, v / max(v, float(top.values[i])) if top is not None else 1.0,
                   [word for word, _ in words.get(i, ())][:4], chosen=i == latent)
        for i, v in found
    ]  # fmt: skip
    st.markdown(f"##### What fires on {plain(repr(made.words[token].strip() or made.words[token]))}")
    st.caption("Latent, how strongly (the bar: share of its maximum), and what it makes the model say.")
    clicked = firing(rows, "fires", label="latents that fire on the token")
    if clicked is not None and clicked != latent:
        links.change(latent=clicked, token=token)
        st.rerun()


# -- a latent ---------------------------------------------------------------------------------------------------------


def feature(at: Reader, found: Activity, latent: int) -> TextFeature | None:
    """All that is known of a latent; None while it is being put together."""
    sae = at.sae
    made: TextFeature | None = None if sae is None else page_frame.settled(
        ("text feature", *at.key, found.texts.digest, latent), f"what latent {latent} answers to",
        lambda report: text_features(sae, found, [latent], top=TOP)[0],
    )  # fmt: skip
    return made


def latent_shown(at: Reader, one: TextFeature, latent: int) -> None:
    """A latent: passages, what it makes the model say, and how strongly it fires."""
    st.markdown(f"##### Latent {latent} {plain(at.name(latent))}")
    st.caption(plain(_facts(at, one, latent)))
    if not one.tokens:
        st.info("It never fires on these texts.")
        return
    left, right = st.columns([8, 5], gap="large")
    with left:
        kind = choose("Examples", EXAMPLES, "examples")
        if kind == "top":
            _passages(one.top, one.maximum, "top")
        for i, band in enumerate(reversed(one.bands)) if kind == "bands" else ():
            st.caption(f"{band.low:.3g} to {band.high:.3g}, drawn by lot")
            _passages(band.passages, one.maximum, f"band-{i}")
    with right:
        if one.promoted:
            st.caption("What a step along it adds to the logits of tokens, to first order")
            st.plotly_chart(words_chart(one), key="words", config={"displayModeBar": False},
                            alt="tokens that it makes the model say, and keeps it from saying")  # fmt: skip
        near = [row for row in one.shares_with if row["beyond_chance"]][:5]
        if near:
            listed = ", ".join(f":{str(r['unit']).rpartition(':')[2]} ({r['cosine']:.2f})" for r in near)
            st.caption(plain(minus(f"Latents that write in nearly its direction (cosine): {listed}")))


def _facts(at: Reader, one: TextFeature, latent: int) -> str:
    text = f"fires on {100 * one.density:.3g} % of tokens, strongest {one.maximum:.3g}, mean where on {one.mean:.3g}"
    said = at.names.get(latent)
    if said is not None:
        text += (
            f". Of all latents it reads this feature of the tales best: AUC {said['auc']:.2f} on texts that it was "
            f"not chosen on; the best channel {said['channel_auc']:.2f}, the best of as many random directions "
            f"{said['random_auc']:.2f}"
        )
    return text


def _passages(some: Sequence[Any], most: float, key: str) -> None:
    rows = [passage(p.words, p.values, most, at=p.at, note=f"{p.value:.3g}") for p in some]
    clicked = passages(rows, f"passages-{key}", label="passages")
    if clicked is not None:
        one = some[clicked[0]]
        links.change(document=one.document, token=one.token - one.at + clicked[1], text=None,
                     latent=st.query_params.get("latent"))  # fmt: skip
        st.rerun()


def words_chart(one: TextFeature) -> Any:
    """Tokens whose logits a latent raises and lowers most."""
    rows = [*one.promoted[:7], *reversed(one.suppressed[:5])][::-1]
    values = [v for _, v in rows]
    names = [html.escape(word.strip() or repr(word)) for word, _ in rows]
    places = list(range(len(rows)))
    figure = go.Figure(
        go.Bar(
            y=places, x=values, orientation="h", opacity=0.85, hovertemplate="%{x:.3g}<extra></extra>",
            marker={"color": [palette.EXCITES if v > 0 else palette.INHIBITS for v in values], "line": {"width": 0}},
            text=[minus(f"{v:+.2g}") for v in values], textposition="outside", cliponaxis=False,
        )
    )  # fmt: skip
    reach = 1.25 * max(map(abs, values), default=1.0)
    figure.update_layout(
        height=40 + 22 * len(rows), margin={"l": 4, "r": 8, "t": 4, "b": 4}, bargap=0.25, showlegend=False,
        xaxis={"range": [-reach if min(values, default=0) < 0 else 0, reach], "visible": False},
        yaxis={"tickvals": places, "ticktext": names, "ticksuffix": "  "},
    )  # fmt: skip
    return figure


# -- texts ------------------------------------------------------------------------------------------------------------


def edits_asked(at: Reader, prompt: str) -> Edits:
    """The edits of the address; by default its latent raised by half its maximum.

    Without a latent, where there is one for the landmark: that, at the first token that is written after the prompt;
    there it brings the landmark up without breaking sentences.

    Raises:
        UploadError: edits that are none.
    """
    said = links.asked("edits", 2 * links.LONGEST)
    if said == "none":
        return ()
    if said is None:
        latent = links.asked("latent", 20)
        if latent is None and at.names.get(at.first, {}).get("name") == language_models.FIRST:
            said = f"{at.first}:set:7x@{len(at.lm.ids(prompt))}"
        else:
            said = f"{at.first if latent is None else language_models.checked_latent(latent, at.count)}:add:0.5x"
    return edit_links.parsed(said, at.count, None)


def prompt_asked() -> tuple[str, int, int, int]:
    """Prompt, tokens to write, seed, and which random latents; with the widgets that change them.

    Raises:
        UploadError: numbers that are none.
    """
    one, two, three, four = st.columns([6, 2, 2, 2], vertical_alignment="bottom")
    said = links.asked("prompt", LONGEST_PROMPT) or PROMPT
    edit_rows.follow("prompt_typed", said)
    one.text_input("Prompt", key="prompt_typed", max_chars=LONGEST_PROMPT,
                   on_change=lambda: links.change(prompt=st.session_state["prompt_typed"].strip() or None))  # fmt: skip
    tokens = _number(two, "Tokens", "tokens", 50, 5, 150)
    seed = _number(three, "Seed", "seed", 0, 0, 9_999)
    return said, tokens, seed, _number(four, "Random latent", "draw", 0, 0, 4)


def _number(place: Any, label: str, name: str, default: int, low: int, high: int) -> int:
    said = links.asked(name, 20) or str(default)
    if not (said.isascii() and said.isdecimal() and low <= int(said) <= high):
        raise UploadError(f"{label.lower()} is a number from {low} to {high}; got {said}")
    edit_rows.follow(f"{name}_number", int(said))
    place.number_input(label, low, high, key=f"{name}_number",
                       on_change=lambda: links.change(**{name: st.session_state[f"{name}_number"]}))  # fmt: skip
    return int(said)


def written(at: Reader, edits: Edits, top: Maxima, asked: tuple[str, int, int, int]) -> Written | None:
    """Texts without and with the edits; None while they are being written."""
    prompt, tokens, seed, draw = asked

    def work(report: Progress) -> Written:
        options = {"texts": TEXTS, "tokens": tokens, "seed": seed, "draw": draw}
        return language_models.write(at, edits, top, prompt, **options, progress=report)

    key = ("write", *at.key, edit_links.written(edits), prompt, tokens, seed, draw)
    made: Written | None = page_frame.settled(key, "writing", work)
    return made


def texts_shown(at: Reader, made: Written, prompt: str) -> None:
    """The texts, side by side."""
    others = ", ".join(f"{new} for {old}" for old, new in made.stand_ins.items())
    sides = {"Unsteered": made.before, "Steered": made.after, f"Random: {others}": made.random}
    for place, (title, some) in zip(st.columns(3, gap="medium"), sides.items(), strict=True):
        with place, st.container(border=True, height="stretch"):
            st.markdown(f"##### {plain(title)}")
            for one in some:
                gap = " " if one.text[:1].isspace() else ""
                st.markdown(f":gray[{plain(prompt, LONGEST_PROMPT)}]{gap}{plain(one.text, 2_000)}")
            told = language_models.measured(at, some)
            if told:
                st.caption(plain(told))
