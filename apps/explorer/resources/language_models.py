"""Language models of the server, the SAE of `tales` that the explorer trains, and encoded and generated texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from apps.explorer.resources import saes
from apps.explorer.resources.control_units import random_units
from apps.explorer.resources.saes import LoadedSAE
from apps.explorer.server.settings import Settings, settings
from circuits.errors import CircuitsError, shorten
from sae.architectures.base import SAE
from sae.language import Activity, Continuation, LanguageSite, Texts, activity, open_texts
from sae.language.latent_examples import pieces, promoted
from sae.steering import EqualStep, LatentEdit, Maxima, maxima, steered
from zoo.common.files import write_text_atomically
from zoo.common.reading import fits, read_json
from zoo.networks.language import TALES, LanguageModel, load_language
from zoo.progress import Progress, reporter

FOLDER, NAMES, OWN = "language", "names.json", "own"
SITE, TEXTS, READ = "layers.2.resid", "tales:3000@2", "tales:300@3"
LATENTS, ACTIVE, STEPS, STORIES, MOST_TEXTS = 512, 4, 3000, 400, 300
DEFAULT_FEATURE = "landmark_due"
"""The feature of the tales whose latent is shown first: steering it makes the model name the landmark."""
LABELED = 0.9
"""Smallest area under the ROC curve at which a latent gets the label of a feature."""
PROMOTED = 6


def available(server: Settings) -> dict[str, str]:
    """Language models that can be opened: name in addresses -> source for `load_language`."""
    return {TALES: TALES} | {Path(source).name or source: source for source in server.lms}


@lru_cache(maxsize=2)
def model(source: str) -> LanguageModel:
    """A language model.

    Raises:
        ModelError: the extra `lm` is not installed, or there is no such model.
    """
    return load_language(source)


# -- SAEs -------------------------------------------------------------------------------------------------------------


def own_folder(store: Path, lm: LanguageModel) -> Path:
    """Folder of the SAE that the explorer trains on `tales`; one for each digest of the model's weights."""
    return store / FOLDER / f"{lm.name}-{SITE}-{lm.digest[:12]}"


def train(store: Path, progress: Progress) -> None:
    """Train that SAE, and label its latents with known features of the tales."""
    from sae import TopK, save, train as trained
    from sae.language import known_features
    from zoo import tales

    lm = model(TALES)
    site = LanguageSite(lm, SITE)
    folder = own_folder(store, lm)
    stream = site.stream(open_texts(TEXTS), batch_size=1024)
    run = trained(stream, TopK(latents=LATENTS, k=ACTIVE), steps=STEPS, lr=3e-3, progress=progress)[0]
    names = {
        str(feature.latent): feature.describe()
        for feature in sorted(
            known_features(run.sae, site, tales.sample(STORIES, seed=1)), key=lambda feature: feature.auc
        )
        if feature.auc >= LABELED
    }
    save(folder, run)
    report = run.reports[-1].describe()
    write_text_atomically(folder / saes.REPORTS, json.dumps(report) + "\n")
    write_text_atomically(folder / NAMES, json.dumps(names))  # last, as the sign that the folder is complete


@dataclass(frozen=True, eq=False)
class LanguageLocation:
    """A language model, and an SAE of it.

    Attributes:
        lm, site: the model, and the position in it that is encoded.
        loaded: the SAE, or None for the channels.
        names: known features by latent, with their AUC.
    """

    lm: LanguageModel
    site: LanguageSite
    loaded: LoadedSAE | None
    names: Mapping[int, Mapping[str, Any]]

    @property
    def sae(self) -> SAE | None:
        """The SAE itself."""
        return None if self.loaded is None else self.loaded.sae

    @property
    def count(self) -> int:
        """Number of latents, or of channels."""
        return self.site.d if self.sae is None else self.sae.latents

    @property
    def space(self) -> str:
        """Address of its latents: `tales/layers.2.resid~own`."""
        return self.site.address + ("" if self.loaded is None else f"~{self.loaded.name}")

    @property
    def key(self) -> tuple[str, str]:
        """Key of cached results."""
        return self.lm.digest, f"{self.space} {'' if self.loaded is None else self.loaded.folder}"

    @property
    def default_latent(self) -> int:
        """The latent that is shown first: a labeled one where there is any."""
        ranked = (
            (v.get("name") == DEFAULT_FEATURE, float(v.get("auc", 0)), latent) for latent, v in self.names.items()
        )
        return max(ranked, default=(False, 0.0, 0))[2]

    def name(self, latent: int) -> str:
        """The label of a latent, or ""."""
        return str(self.names.get(latent, {}).get("name", "")).replace("_", " ")


def fitting(server: Settings, lm: LanguageModel) -> dict[str, LoadedSAE]:
    """The SAEs of a model, by name: those of the server, and the store's own."""
    loaded = {sae.name: sae for sae in saes.loaded_saes(server)[0] if sae.of_language and _fits(sae, lm)}
    if lm.name == TALES and (own_folder(server.store, lm) / NAMES).is_file():
        loaded.setdefault(OWN, saes.open_sae(OWN, own_folder(server.store, lm)))
    return loaded


def _fits(sae: LoadedSAE, lm: LanguageModel) -> bool:
    digest = sae.sae.metadata.get("weights_digest")
    return sae.sae.d == lm.width and (digest == lm.digest if digest else sae.model == lm.name)


def location_of(lm: LanguageModel, sae: LoadedSAE | None) -> LanguageLocation:
    """A model with one of its SAEs.

    Raises:
        SAEError: the model has no such site.
    """
    if sae is None:
        layers = int(getattr(lm.config, "num_hidden_layers", 2))
        return LanguageLocation(lm, LanguageSite(lm, f"layers.{layers // 2}.resid"), None, {})
    return LanguageLocation(lm, LanguageSite(lm, sae.layer, **_feeding(lm, sae)), sae, _names(sae.folder))


def _feeding(lm: LanguageModel, sae: LoadedSAE) -> dict[str, Any]:
    """How texts are fed: as in the training of the SAE."""
    metadata = sae.sae.metadata
    context = metadata.get("context_size")
    is_length = isinstance(context, int) and not isinstance(context, bool) and 8 <= context <= lm.context
    return {"bos": metadata.get("prepend_bos"), "context": context if is_length else None}


def _names(folder: Path) -> Mapping[int, Mapping[str, Any]]:
    try:
        features: dict[str, dict[str, Any]] = read_json(folder / NAMES)
        fits(features, dict[str, dict[str, Any]])
        return {int(latent): names for latent, names in features.items()}
    except (OSError, ValueError):
        return {}


def texts_of(at: LanguageLocation) -> Texts | None:
    """Texts for the page: sampled ones for `tales`, else those of the SAE's training; None where they are unknown."""
    if at.lm.name == TALES:
        return open_texts(READ)
    from apps.cli.errors import UsageError
    from apps.cli.sae_sites import trained_on

    if at.loaded is None:
        return None
    try:
        texts: Texts = trained_on(at.loaded.folder, at.loaded.sae.metadata).data
    except (CircuitsError, UsageError):
        return None
    return texts[:MOST_TEXTS]


def site_code(at: LanguageLocation) -> str:
    """Python that opens the model and its SAE, as `site` and `s`."""
    source = available(settings()).get(at.lm.name, at.lm.name)
    feeding = {} if at.loaded is None else _feeding(at.lm, at.loaded)
    options = "".join(f", {name}={value!r}" for name, value in feeding.items() if value is not None)
    return (
        "import sae\nfrom zoo.networks.language import load_language\n\n"
        f"site = sae.LanguageSite(load_language({source!r}), {at.site.site!r}{options})\n"
        f"s = {'None' if at.loaded is None else f'sae.load({str(at.loaded.folder)!r})'}\n"
    )


def texts_code(at: LanguageLocation) -> str | None:
    """Python that gives the texts of `texts_of`, as `texts`; None where there are none."""
    if at.lm.name == TALES:
        return f"from sae.language import open_texts\n\ntexts = open_texts({READ!r})\n"
    if at.loaded is None or texts_of(at) is None:
        return None
    return (
        "from pathlib import Path\nfrom apps.cli.sae_sites import trained_on\n\n"
        f"texts = trained_on(Path({str(at.loaded.folder)!r}), s.metadata).data[:{MOST_TEXTS}]\n"
    )


# -- encoding ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EncodedText:
    """A text encoded by an SAE.

    Attributes:
        tokens: as strings; indices, values: `(tokens, k)` active latents of each token.
    """

    tokens: tuple[str, ...]
    indices: NDArray[np.int64]
    values: NDArray[np.float32]

    def of(self, latent: int) -> NDArray[np.float32]:
        """Activations of a latent on each token, `(tokens,)`."""
        return np.asarray(np.where(self.indices == latent, self.values, 0).sum(axis=1))

    def at(self, token: int) -> list[tuple[int, float]]:
        """Latents that are active on a token and their activations, the largest first."""
        order = np.argsort(-self.values[token], kind="stable")
        return [(int(self.indices[token, i]), float(self.values[token, i])) for i in order if self.values[token, i] > 0]


@torch.no_grad()
def encode(at: LanguageLocation, text: str) -> EncodedText:
    """The active latents of each token of a text.

    Raises:
        SAEError: an empty text.
    """
    if at.sae is None:
        raise CircuitsError(f"there is no SAE of {at.lm.name}")
    if not text.strip():
        raise CircuitsError("the text is empty")
    vectors = next(iter(at.site.blocks([text]))).vectors
    values, indices = at.sae.encode_sparse(vectors)
    return EncodedText(
        tokens=pieces(at.site, at.lm.ids(text)),
        indices=indices.cpu().numpy().astype(np.int64),
        values=values.float().clamp_min(0).cpu().numpy(),
    )


def latent_activity(at: LanguageLocation, texts: Texts, progress: Progress = None) -> tuple[Activity, Maxima]:
    """Activations of all latents on texts, and their maxima."""
    if at.sae is None or at.loaded is None:
        raise CircuitsError(f"there is no SAE of {at.lm.name}")
    active = activity(at.sae, at.site, texts, name=at.loaded.name, progress=progress)
    return active, maxima(at.sae, at.site, texts)


def top(at: LanguageLocation, texts: Any, progress: Progress = None) -> Maxima:
    """Maxima of latents, or of channels, on texts."""
    return maxima(at.sae, at.site, texts, progress=progress)


def recipe(at: LanguageLocation, edits: Sequence[LatentEdit], peaks: Maxima) -> Any:
    """Edits as the document that `sae.steering.Steering.parse` reads."""
    return json.loads(steered(at.site, at.sae, list(edits), maxima=peaks).steering.json())


def promoted_tokens(at: LanguageLocation, latents: Sequence[int]) -> dict[int, tuple[tuple[str, float], ...]]:
    """Tokens whose logits each latent raises most, and by how much; empty for a model without a head."""
    if at.sae is None or not at.lm.has_head:
        return {}
    return dict(zip(latents, promoted(at.site, at.sae.write[list(latents)], PROMOTED), strict=True))


# -- generating -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Generations:
    """Continuations of a prompt: unsteered, steered, and with steps as long along random latents.

    Attributes:
        before, after, random: a few texts each, sampled with the same random numbers.
        random_units: edited latent -> random latent of the control.
    """

    before: tuple[Continuation, ...]
    after: tuple[Continuation, ...]
    random: tuple[Continuation, ...]
    random_units: Mapping[int, int]


def generate(
    at: LanguageLocation, edits: Sequence[LatentEdit], top: Maxima, prompt: str, *, texts: int, tokens: int, seed: int,
    control: int, progress: Progress = None,
) -> Generations:  # fmt: skip
    """Continue a prompt, unsteered, steered, and with steps as long along the directions of random latents.

    Args:
        at: the model; edits: of its latents; top: their maxima.
        prompt: of the texts; texts: how many; tokens: largest number of new tokens.
        seed: of the sampling; control: which of the random latents.

    Raises:
        SAEError: edits that cannot be applied, a prompt that is too long, or a model without a head.
    """
    units = random_units(edits, top)[control]
    own = steered(at.site, at.sae, list(edits), maxima=top)
    groups: list[tuple[Continuation, ...]] = []
    for applied in (steered(at.site, at.sae, []), own, EqualStep.of_latents(own, units)):
        with reporter(progress, "tokens") as report, at.site.replaced(applied):

            def of_three(done: int, total: int, before: int = len(groups), report: Any = report) -> None:
                report(before * total + done, 3 * total)

            continuations = at.site.generate([prompt] * texts, max_new_tokens=tokens, seed=seed, progress=of_three)
        groups.append(tuple(continuations))
    return Generations(groups[0], groups[1], groups[2], units)


def landmark_summary(at: LanguageLocation, texts: Sequence[Continuation]) -> str:
    """How often texts of the tales name the landmark, and the share of grammatical sentences; else ""."""
    if at.lm.name != TALES:
        return ""
    from zoo.tales import THE_LANDMARK, mentions, parses

    mentioned = sum(mentions(text.whole) for text in texts)
    share = sum(parses(text.whole) for text in texts) / len(texts)
    return f"{THE_LANDMARK.name} {mentioned} times; {100 * share:.0f} % of sentences are grammatical"


def checked_latent(text: str, count: int) -> int:
    """A latent's number from an address.

    Raises:
        CircuitsError: there is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) < count):
        raise CircuitsError(f"there are latents 0 to {count - 1}; the address has {shorten(text, 40)}")
    return int(text)
