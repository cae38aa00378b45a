"""Latents of a language model's SAE: passages that activate them, and tokens whose logits they raise.

One pass over texts stores the active latents only, sparse, so that any number of latents can be examined afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.errors import AddressError
from sae.architectures.base import SAE
from sae.checks import whole
from sae.data.site import ROWS, check_fits
from sae.errors import SAEError
from sae.language.site import LanguageSite
from sae.language.texts import Texts
from sae.seeding import CONTROL
from sae.superposition.geometry import Geometry, geometry
from zoo.common.results import Result, Results
from zoo.progress import Progress

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

QUANTILES = (0.0, 0.5, 0.9, 0.99, 1.0)
"""Quantiles of a latent's activations, over the tokens where it is active, that bound the bands."""


@dataclass(frozen=True)
class Passage:
    """A token at which a latent is active, in its text.

    Attributes:
        document, token: indices; value: activation of the latent there.
        words: the tokens around it as text; values: activation at each of them; at: index of the token among them.
    """

    document: int
    token: int
    value: float
    words: tuple[str, ...]
    values: tuple[float, ...]
    at: int


@dataclass(frozen=True)
class TextBand:
    """A range of a latent's activations, from `low` to `high`, and passages sampled at random from it."""

    low: float
    high: float
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class TextFeature(Result):
    """A latent, described by texts and by the vocabulary of the model.

    Attributes:
        unit: address; tokens: number of tokens at which it is active; density: share of all.
        maximum, mean: of its activation where it is active.
        counts, edges: histogram of the activations above zero.
        top: passages with the strongest activations, one per text; bands: from weak to strong, sampled at random.
        promoted, suppressed: tokens of the vocabulary whose logit a step along it raises or lowers most, and by how
            much (see `logit_effects`). Empty where the model has no head.
        shares_with: latents with the nearest write directions, as of `Geometry.about`.
    """

    unit: str
    tokens: int
    density: float
    maximum: float
    mean: float
    counts: tuple[int, ...]
    edges: tuple[float, ...]
    top: tuple[Passage, ...]
    bands: tuple[TextBand, ...]
    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]
    shares_with: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Activity(Result):
    """All active latents of a set of texts, sparse.

    Attributes:
        site: address; name: of the SAE, as in addresses of latents; texts, ids: the documents and their token ids.
        document, token, latent, value: `(nnz,)` each, sorted by latent.
        starts: `(latents + 1,)` index of the first entry of each latent.
        tokens: number of all tokens.
        provenance: model, texts.
    """

    site: LanguageSite
    name: str
    texts: Texts
    ids: tuple[tuple[int, ...], ...]
    document: Ints
    token: Ints
    latent: Ints
    value: Array
    starts: Ints
    tokens: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def density(self) -> npt.NDArray[np.float64]:
        """Share of the tokens at which each latent is active, `(latents,)`."""
        return np.diff(self.starts) / max(1, self.tokens)

    @property
    def live(self) -> Ints:
        """Latents that are active at any token."""
        return np.flatnonzero(np.diff(self.starts))

    def of(self, latent: int) -> tuple[Ints, Ints, Array]:
        """Documents, tokens and values `(n,)` at which a latent is active.

        Raises:
            AddressError: the number is out of range.
        """
        count = len(self.starts) - 1
        if not 0 <= latent < count:
            raise AddressError(f"{self.site.address}~{self.name} has {count} latents (0 to {count - 1}), no {latent}")
        part = slice(int(self.starts[latent]), int(self.starts[latent + 1]))
        return self.document[part], self.token[part], self.value[part]


@torch.no_grad()
def activity(
    sae: SAE, site: LanguageSite, texts: Any, *, name: str = "sae", batch_size: int = 32, progress: Progress = None
) -> Activity:
    """Active latents of all tokens of texts, in one pass.

    Args:
        sae: the SAE; site: where it reads.
        texts: in any form that `open_texts` takes.
        name: of the SAE in addresses, `layers.2.resid~name:17`.
        batch_size: texts at a time.
        progress: True for a bar, or a function of (done, total) texts.

    Raises:
        SAEError: an SAE of another site, or texts that cannot be fed.
    """
    check_fits(sae, site)
    documents = site.open(texts)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    count = 0
    for block in site.blocks(documents, batch_size=batch_size, progress=progress):
        vectors, positions = block.vectors[:, : sae.d], block.positions  # of pairs, what a transcoder reads
        count += len(vectors)
        for rows, position_rows in zip(torch.split(vectors, ROWS), torch.split(positions, ROWS), strict=True):
            values, indices = sae.encode_sparse(rows)
            fires = values > 0
            row = fires.nonzero()[:, 0].cpu()
            parts.append((position_rows[row], indices[fires].cpu(), values[fires].float().cpu()))
    positions, latents, values = (torch.cat(column) for column in zip(*parts, strict=True))
    order = torch.argsort(latents, stable=True)
    starts = torch.zeros(sae.latents + 1, dtype=torch.long)
    starts[1:] = torch.bincount(latents, minlength=sae.latents).cumsum(0)
    return Activity(
        site=site,
        name=name,
        texts=documents,
        ids=tuple(tuple(site.lm.ids(text)) for text in documents),
        document=positions[order, 0].numpy(),
        token=positions[order, 1].numpy(),
        latent=latents[order].numpy(),
        value=values[order].numpy(),
        starts=starts.numpy(),
        tokens=count,
        provenance=provenance(weights=site.lm.digest, texts=documents.digest),
    )


class TextFeatures(Results[TextFeature]):
    """Latents of a language model, as `text_features` returns them."""


def text_features(
    sae: SAE,
    active: Activity,
    latents: Sequence[int],
    *,
    top: int = 10,
    per_band: int = 4,
    around: int = 12,
    words: int = 8,
    bins: int = 30,
    seed: int = 0,
) -> TextFeatures:
    """Latents, each with passages from strong to weak, its histogram, the tokens it promotes, and its neighbors.

    Args:
        sae: the SAE; active: its active latents, of `activity`.
        latents: their numbers.
        top: strongest passages, at most one per text; per_band: passages sampled at random from each band.
        around: tokens shown on either side.
        words: number of promoted and of suppressed tokens.
        bins: of the histogram.
        seed: of the random samples.

    Raises:
        AddressError: there is no such latent. SAEError: the activity is of another SAE.

    >>> text_features(s, activity(s, site, "tales:200"), [17])[0].promoted  # doctest: +SKIP
    """
    for name, number in (("top", top), ("per_band", per_band), ("words", words), ("bins", bins)):
        whole(name, number)
    if len(active.starts) - 1 != sae.latents:
        raise SAEError(f"the activity is of {len(active.starts) - 1} latents, the SAE has {sae.latents}")
    effects = logit_effects(active.site, sae.write[list(latents)]) if active.site.lm.has_head else None
    shape = geometry(sae.write.detach().cpu(), units=[address(active, i) for i in range(sae.latents)], seed=seed)
    return TextFeatures(
        _feature(
            active, latent, None if effects is None else effects[i], shape, top, per_band, around, words, bins, seed
        )
        for i, latent in enumerate(latents)
    )


def address(active: Activity, latent: int) -> str:
    """The address of a latent."""
    return f"{active.site.address}~{active.name}:{latent}"


@torch.no_grad()
def logit_effects(site: LanguageSite, directions: Tensor) -> Tensor:
    """Effect on every logit of a unit step along directions `(n, d)` of the residual stream: `(n, vocabulary)`.

    Direct logit attribution: `W_U diag(gain) w` with the gain of the last normalization and the unembedding W_U. Later
    layers and the change of the normalization's scale are left out. The mean over the vocabulary is subtracted, since a
    constant added to all logits changes no probability.

    Raises:
        SAEError: a model without a head.
    """
    if not site.lm.has_head:
        raise SAEError(f"{site.lm.name} has no language head: it predicts no tokens")
    rows = directions.detach().float().to(site.lm.device)
    gain = _last_gain(site)
    unembedding = site.lm.module.get_output_embeddings().weight.float()  # type: ignore[operator]
    effects: Tensor = (rows if gain is None else rows * gain) @ unembedding.T
    return (effects - effects.mean(dim=1, keepdim=True)).cpu()


def promoted(site: LanguageSite, directions: Tensor, words: int = 6) -> list[tuple[tuple[str, float], ...]]:
    """Tokens whose logits a unit step along each of `(n, d)` directions raises most, with the effect.

    Empty where the model has no head.
    """
    if not site.lm.has_head or not len(directions):
        return [() for _ in directions]
    return [_strongest(site, effect, words) for effect in logit_effects(site, directions)]


def _strongest(site: LanguageSite, effect: Tensor, words: int, sign: int = 1) -> tuple[tuple[str, float], ...]:
    """Tokens with the largest effects `(vocabulary,)`, or the smallest."""
    best = (sign * effect).topk(min(words, len(effect))).indices.tolist()
    return tuple((site.lm.decode([i]), float(effect[i])) for i in best)


def _last_gain(site: LanguageSite) -> Tensor | None:
    """Gain of the last normalization outside of the blocks, where it has one."""
    norms = [
        module for name, module in site.lm.module.named_modules()
        if "norm" in type(module).__name__.lower() and ".layers." not in f".{name}." and ".h." not in f".{name}."
        and ".layer." not in f".{name}."
    ]  # fmt: skip
    weight = getattr(norms[-1], "weight", None) if norms else None
    return weight.detach().float() if isinstance(weight, Tensor) and weight.shape == (site.d,) else None


def _feature(
    active: Activity, latent: int, effect: Tensor | None, shape: Geometry, top: int, per_band: int, around: int,
    words: int, bins: int, seed: int,
) -> TextFeature:  # fmt: skip
    document, token, value = active.of(latent)
    counts, edges = np.histogram(value, bins=bins, range=(0.0, float(value.max()) if len(value) else 1.0))
    strongest: dict[int, int] = {}
    for i in np.argsort(-value, kind="stable"):
        strongest.setdefault(int(document[i]), int(i))
        if len(strongest) == top:
            break
    tokens_of: dict[str, tuple[tuple[str, float], ...]] = {"promoted": (), "suppressed": ()}
    if effect is not None:
        for name, sign in (("promoted", 1), ("suppressed", -1)):
            tokens_of[name] = _strongest(active.site, effect, words, sign)
    return TextFeature(
        unit=address(active, latent),
        tokens=len(value),
        density=len(value) / max(1, active.tokens),
        maximum=float(value.max()) if len(value) else 0.0,
        mean=float(value.mean()) if len(value) else 0.0,
        counts=tuple(counts.tolist()),
        edges=tuple(edges.tolist()),
        top=tuple(_passage(active, latent, i, around) for i in strongest.values()),
        bands=_bands(active, latent, value, per_band, around, seed),
        shares_with=tuple(shape.about(latent)["shares_with"]),
        **tokens_of,
    )


def _bands(
    active: Activity, latent: int, value: Array, per_band: int, around: int, seed: int
) -> tuple[TextBand, ...]:  # fmt: skip
    if not len(value):
        return ()
    order = np.argsort(value, kind="stable")
    random = np.random.default_rng([seed, CONTROL, latent])
    bands = []
    for low, high in zip(QUANTILES, QUANTILES[1:], strict=False):
        inside = order[int(low * len(value)) : int(np.ceil(high * len(value)))]
        if len(inside):
            sampled = random.permutation(inside)[:per_band]
            passages = tuple(_passage(active, latent, int(i), around) for i in sampled)
            bands.append(TextBand(float(value[inside[0]]), float(value[inside[-1]]), passages))
    return tuple(bands)


def _passage(active: Activity, latent: int, entry: int, around: int) -> Passage:
    document, token, value = active.of(latent)
    at, here = int(document[entry]), int(token[entry])
    ids = active.ids[at]
    first, stop = max(0, here - around), min(len(ids), here + around + 1)
    own = document == at
    fires = dict(zip(token[own].tolist(), value[own].tolist(), strict=True))
    return Passage(
        document=at,
        token=here,
        value=float(value[entry]),
        words=pieces(active.site, ids[first:stop]),
        values=tuple(float(fires.get(i, 0.0)) for i in range(first, stop)),
        at=here - first,
    )


def pieces(site: LanguageSite, ids: Sequence[int]) -> tuple[str, ...]:
    """Tokens as pieces of text whose concatenation is the text, spaces included."""
    parts, before = [], ""
    for stop in range(1, len(ids) + 1):
        text = site.lm.decode(list(ids[:stop]))
        parts.append(text[len(before) :] if text.startswith(before) else site.lm.decode([ids[stop - 1]]))
        before = text
    return tuple(parts)
