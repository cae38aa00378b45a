"""Language models: which are open here, the SAE of `tales` that the store keeps, and texts read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from apps.explorer.resources import saes
from apps.explorer.resources.control_units import stand_ins
from apps.explorer.resources.saes import Given
from apps.explorer.server.settings import Settings
from circuits.errors import CircuitsError, shorten
from sae.architectures.base import SAE
from sae.language import Activity, Continuation, LanguageSite, Texts, activity, open_texts
from sae.language.latent_examples import pieces, promoted
from sae.steering import LatentEdit, Maxima, maxima, steer, steered
from zoo.common.files import write_text_atomically
from zoo.networks.language import TALES, LanguageModel, load_language
from zoo.progress import Progress, reporter

FOLDER, NAMES, OWN = "language", "names.json", "own"
SITE, TEXTS, READ = "layers.2.resid", "tales:3000@2", "tales:300@3"
LATENTS, ACTIVE, STEPS, STORIES = 512, 4, 3000, 400
FIRST = "landmark_due"
"""The feature of the tales whose latent is shown first: turned up, it brings the landmark."""
NAMED = 0.9
"""Area under the ROC curve from which on a latent is called by a feature."""
WORDS = 6


def known(chosen: Settings) -> dict[str, str]:
    """Language models that can be opened: what they are called in addresses, and what loads them."""
    return {TALES: TALES} | {Path(one).name or one: one for one in chosen.lms}


@lru_cache(maxsize=2)
def model(source: str) -> LanguageModel:
    """A language model.

    Raises:
        ModelError: the extra `lm` is not installed, or there is no such model; says what to do.
    """
    return load_language(source)


# -- dictionaries -----------------------------------------------------------------------------------------------------


def own_folder(store: Path, lm: LanguageModel) -> Path:
    """Where the store keeps the SAE that the explorer trains on `tales`; other weights, another folder."""
    return store / FOLDER / f"{lm.name}-{SITE}-{lm.digest[:12]}"


def train(store: Path, progress: Progress) -> None:
    """Train that SAE, and find out which features of the tales its latents are."""
    from sae import TopK, save
    from sae import train as trained
    from sae.language import known_features
    from zoo import tales

    lm = model(TALES)
    site = LanguageSite(lm, SITE)
    folder = own_folder(store, lm)
    stream = site.stream(open_texts(TEXTS), batch_size=1024)
    run = trained(stream, TopK(latents=LATENTS, k=ACTIVE), steps=STEPS, lr=3e-3, progress=progress)[0]
    names = {
        str(one.latent): one.describe()
        for one in sorted(known_features(run.sae, site, tales.sample(STORIES, seed=1)), key=lambda one: one.auc)
        if one.auc >= NAMED
    }
    save(folder, run)
    report = run.reports[-1].describe()
    write_text_atomically(folder / saes.REPORTS, json.dumps(report) + "\n")
    write_text_atomically(folder / NAMES, json.dumps(names))  # last: with it the folder is whole


@dataclass(frozen=True, eq=False)
class Reader:
    """A language model, and the SAE that it is read with.

    Attributes:
        lm, site: the model, and the place in it.
        given: the SAE, or None for the channels.
        names: of latents, with how well they are known.
    """

    lm: LanguageModel
    site: LanguageSite
    given: Given | None
    names: Mapping[int, Mapping[str, Any]]

    @property
    def sae(self) -> SAE | None:
        """The SAE itself."""
        return None if self.given is None else self.given.sae

    @property
    def count(self) -> int:
        """How many latents, or channels."""
        return self.site.d if self.sae is None else self.sae.latents

    @property
    def space(self) -> str:
        """What its latents are called by: `tales/layers.2.resid~own`."""
        return self.site.address + ("" if self.given is None else f"~{self.given.name}")

    @property
    def key(self) -> tuple[str, str]:
        """What results depend on."""
        return self.lm.digest, f"{self.space} {'' if self.given is None else self.given.folder}"

    @property
    def first(self) -> int:
        """The latent that is shown first: one that is known to mean something, where there is any."""
        ranked = ((v.get("name") == FIRST, float(v.get("auc", 0)), latent) for latent, v in self.names.items())
        return max(ranked, default=(False, 0.0, 0))[2]

    def name(self, latent: int) -> str:
        """What a latent is called, empty for nothing."""
        return str(self.names.get(latent, {}).get("name", "")).replace("_", " ")


def fitting(chosen: Settings, lm: LanguageModel) -> dict[str, Given]:
    """The SAEs that read a model, by name: those that were given, and the store's own."""
    found = {one.name: one for one in saes.given(chosen)[0] if one.of_language and _fits(one, lm)}
    if lm.name == TALES and (own_folder(chosen.store, lm) / NAMES).is_file():
        found.setdefault(OWN, saes.opened(OWN, own_folder(chosen.store, lm)))
    return found


def _fits(one: Given, lm: LanguageModel) -> bool:
    digest = one.sae.metadata.get("weights_digest")
    return one.sae.d == lm.width and (digest == lm.digest if digest else one.model == lm.name)


def reader(lm: LanguageModel, one: Given | None) -> Reader:
    """A model with one of its SAEs.

    Raises:
        SAEError: the model has no such place.
    """
    if one is None:
        layers = int(getattr(lm.config, "num_hidden_layers", 2))
        return Reader(lm, LanguageSite(lm, f"layers.{layers // 2}.resid"), None, {})
    said = one.sae.metadata
    context = said.get("context_size")
    options: dict[str, Any] = {"bos": said.get("prepend_bos"), "context": context if _whole(context, lm) else None}
    return Reader(lm, LanguageSite(lm, one.layer, **options), one, _names(one.folder))


def _whole(context: Any, lm: LanguageModel) -> bool:
    return isinstance(context, int) and not isinstance(context, bool) and 8 <= context <= lm.context


def _names(folder: Path) -> Mapping[int, Mapping[str, Any]]:
    try:
        said = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        return {int(k): v for k, v in said.items() if isinstance(v, dict)}
    except (OSError, ValueError, AttributeError):
        return {}


def texts_of(at: Reader) -> Texts | None:
    """Texts to look at a model with: drawn ones for `tales`, else those that its SAE was trained with, if known."""
    if at.lm.name == TALES:
        return open_texts(READ)
    from apps.cli.errors import UsageError
    from apps.cli.sae_sites import trained_on

    if at.given is None:
        return None
    try:
        found: Texts = trained_on(at.given.folder, at.given.sae.metadata).data
    except (CircuitsError, UsageError):
        return None
    return found[:300]


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ReadText:
    """A text as an SAE reads it.

    Attributes:
        words: its tokens, as stretches of text; indices, values: `(tokens, k)` the latents that fire on each.
    """

    words: tuple[str, ...]
    indices: NDArray[np.int64]
    values: NDArray[np.float32]

    def of(self, latent: int) -> NDArray[np.float32]:
        """A latent on each token, `(tokens,)`."""
        return np.asarray(np.where(self.indices == latent, self.values, 0).sum(axis=1))

    def at(self, token: int) -> list[tuple[int, float]]:
        """Latents that fire on a token, the strongest first, with how strongly."""
        order = np.argsort(-self.values[token], kind="stable")
        return [(int(self.indices[token, i]), float(self.values[token, i])) for i in order if self.values[token, i] > 0]


@torch.no_grad()
def read(at: Reader, text: str) -> ReadText:
    """What fires on each token of a text.

    Raises:
        SAEError: an empty text.
    """
    if at.sae is None:
        raise CircuitsError(f"there is no SAE of {at.lm.name}")
    if not text.strip():
        raise CircuitsError("the text is empty: write something")
    vectors = next(iter(at.site.blocks([text]))).vectors
    values, indices = at.sae.encode_sparse(vectors)
    return ReadText(
        words=pieces(at.site, at.lm.ids(text)),
        indices=indices.cpu().numpy().astype(np.int64),
        values=values.float().clamp_min(0).cpu().numpy(),
    )


def firing(at: Reader, texts: Texts, progress: Progress = None) -> tuple[Activity, Maxima]:
    """Where latents fire on texts, and how strongly at most."""
    if at.sae is None or at.given is None:
        raise CircuitsError(f"there is no SAE of {at.lm.name}")
    found = activity(at.sae, at.site, texts, name=at.given.name, progress=progress)
    return found, maxima(at.sae, at.site, texts)


def top(at: Reader, texts: Any, progress: Progress = None) -> Maxima:
    """How strongly latents, or channels, fire at most on texts."""
    return maxima(at.sae, at.site, texts, progress=progress)


def recipe(at: Reader, edits: Sequence[LatentEdit], known: Maxima) -> Any:
    """Edits as the document that `sae.steering.Steering.parse` reads."""
    return json.loads(steered(at.site, at.sae, list(edits), maxima=known).steering.json())


def said(at: Reader, latents: Sequence[int]) -> dict[int, tuple[tuple[str, float], ...]]:
    """Tokens that each latent makes the model say, with how much it raises their logits; empty without a head."""
    if at.sae is None or not at.lm.has_head:
        return {}
    return dict(zip(latents, promoted(at.site, at.sae.write[list(latents)], WORDS), strict=True))


# -- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Written:
    """What a model writes after a prompt, unsteered, steered, and with the same edits of random latents.

    Attributes:
        before, after, random: a few texts each, the same random numbers in each place.
        stand_ins: for each edited latent the random one that stands in for it.
    """

    before: tuple[Continuation, ...]
    after: tuple[Continuation, ...]
    random: tuple[Continuation, ...]
    stand_ins: Mapping[int, int]


def write(
    at: Reader, edits: Sequence[LatentEdit], top: Maxima, prompt: str, *, texts: int, tokens: int, seed: int,
    draw: int, progress: Progress = None,
) -> Written:  # fmt: skip
    """Let a model write.

    Args:
        at: the model; edits: of its latents; top: their maxima.
        prompt: what the texts begin with; texts: how many; tokens: to write at most.
        seed: of the texts; draw: which of the random latents.

    Raises:
        SAEError: edits that cannot be made, a prompt that is too long, or a model that writes nothing.
    """
    units = stand_ins(edits, top)[draw]
    other = [replace(one, latent=units[one.latent]) for one in edits]
    made: list[tuple[Continuation, ...]] = []
    for number, some in enumerate(([], list(edits), other)):
        with reporter(progress, "tokens") as told, steer(at.site, at.sae, some, maxima=top if some else None):

            def report(done: int, total: int, number: int = number, told: Any = told) -> None:
                told(number * total + done, 3 * total)

            found = at.site.generate([prompt] * texts, max_new_tokens=tokens, seed=seed, progress=report)
        made.append(tuple(found))
    return Written(made[0], made[1], made[2], units)


def measured(at: Reader, some: Sequence[Continuation]) -> str:
    """Of texts of the tales: how often the landmark is named, and how many sentences are the grammar's."""
    if at.lm.name != TALES:
        return ""
    from zoo.tales import THE_LANDMARK, mentions, parses

    named = sum(mentions(one.whole) for one in some)
    share = sum(parses(one.whole) for one in some) / len(some)
    return f"{THE_LANDMARK.name} {named} times; {100 * share:.0f} % of sentences are the grammar's"


def checked_latent(text: str, count: int) -> int:
    """A latent's number from an address.

    Raises:
        CircuitsError: there is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) < count):
        raise CircuitsError(f"there are latents 0 to {count - 1}; asked for {shorten(text, 40)}")
    return int(text)
