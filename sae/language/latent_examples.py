"""What the latents of a language model's SAE answer to, and what they make the model say.

One pass over texts keeps the active latents only, so that any number of them can be looked at afterwards.
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
from zoo.progress import Progress

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

QUANTILES = (0.0, 0.5, 0.9, 0.99, 1.0)
"""Shares of the tokens on which a latent fires, at which bands part."""


@dataclass(frozen=True)
class Passage:
    """A token on which a latent fires, in its text.

    Attributes:
        document, token: where; value: the latent there.
        words: the tokens around it as text; values: the latent on each of them; at: which of them is meant.
    """

    document: int
    token: int
    value: float
    words: tuple[str, ...]
    values: tuple[float, ...]
    at: int


@dataclass(frozen=True)
class TextBand:
    """A range of a latent's activations: from `low` to `high`, and passages drawn by lot from it."""

    low: float
    high: float
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class TextFeature:
    """A latent, as texts and the model's own vocabulary show it.

    Attributes:
        unit: address; tokens: on how many tokens it fires; density: share of all.
        maximum, mean: of its activation where it fires.
        counts, edges: histogram of the activations above zero.
        top: passages with the strongest activations, one a text; bands: from weak to strong, drawn by lot.
        promoted, suppressed: tokens of the vocabulary whose logit a step along it raises or lowers most, with how much
            (to first order, through the last normalization at the scale it has on average; about the mean over the
            vocabulary). Empty where the model has no head.
        shares_with: latents whose written directions are nearest, as `Geometry.about` gives them.
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

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            **vars(self),
            "top": [vars(p) for p in self.top],
            "bands": [{"low": b.low, "high": b.high, "passages": [vars(p) for p in b.passages]} for b in self.bands],
            "shares_with": [dict(other) for other in self.shares_with],
        }


@dataclass(frozen=True, eq=False)
class Activity:
    """All active latents of a set of texts, sparse.

    Attributes:
        site: address; name: of the SAE, as latents are called by it; texts, ids: the documents and their token ids.
        document, token, latent, value: `(nnz,)` each, sorted by latent.
        starts: `(latents + 1,)` where the entries of each latent begin.
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
        """Share of the tokens on which each latent fires, `(latents,)`."""
        return np.diff(self.starts) / max(1, self.tokens)

    @property
    def live(self) -> Ints:
        """Latents that fire on any token."""
        return np.flatnonzero(np.diff(self.starts))

    def of(self, latent: int) -> tuple[Ints, Ints, Array]:
        """Documents, tokens and values `(n,)` at which a latent fires.

        Raises:
            AddressError: there is none of that number.
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
    """Which latents fire where: one pass over texts, which keeps what is active.

    Args:
        sae: the SAE; site: where it reads.
        texts: in any form that `open_texts` takes.
        name: what latents are called by, `layers.2.resid~name:17`.
        batch_size: texts at a time.
        progress: True for a bar, or a function of (done, total) texts.

    Raises:
        SAEError: an SAE of another site, or texts that cannot be fed.
    """
    check_fits(sae, site)
    opened = site.open(texts)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    count = 0
    for block in site.blocks(opened, batch_size=batch_size, progress=progress):
        vectors, places = block.vectors, block.positions
        count += len(vectors)
        for rows, where in zip(torch.split(vectors, ROWS), torch.split(places, ROWS), strict=True):
            values, indices = sae.encode_sparse(rows)
            fires = values > 0
            row = fires.nonzero()[:, 0].cpu()
            parts.append((where[row], indices[fires].cpu(), values[fires].float().cpu()))
    places, latents, values = (torch.cat(column) for column in zip(*parts, strict=True))
    order = torch.argsort(latents, stable=True)
    starts = torch.zeros(sae.latents + 1, dtype=torch.long)
    starts[1:] = torch.bincount(latents, minlength=sae.latents).cumsum(0)
    return Activity(
        site=site,
        name=name,
        texts=opened,
        ids=tuple(tuple(site.lm.ids(text)) for text in opened),
        document=places[order, 0].numpy(),
        token=places[order, 1].numpy(),
        latent=latents[order].numpy(),
        value=values[order].numpy(),
        starts=starts.numpy(),
        tokens=count,
        provenance=provenance(weights=site.lm.digest, texts=opened.digest),
    )


def text_features(
    sae: SAE,
    found: Activity,
    latents: Sequence[int],
    *,
    top: int = 10,
    per_band: int = 4,
    around: int = 12,
    words: int = 8,
    bins: int = 30,
    seed: int = 0,
) -> list[TextFeature]:
    """Latents, each with passages from strong to weak, its histogram, what it makes the model say, and its neighbors.

    Args:
        sae: the SAE; found: where its latents fire, of `activity`.
        latents: which.
        top: strongest passages, at most one of a text; per_band: passages drawn by lot from each band.
        around: tokens shown on either side.
        words: tokens promoted and suppressed.
        bins: of the histogram.
        seed: of what is drawn by lot.

    Raises:
        AddressError: there is no such latent. SAEError: the activity is of another SAE.

    >>> text_features(s, activity(s, site, "tales:200"), [17])[0].promoted  # doctest: +SKIP
    """
    for name, number in (("top", top), ("per_band", per_band), ("words", words), ("bins", bins)):
        whole(name, number)
    if len(found.starts) - 1 != sae.latents:
        raise SAEError(f"the activity is of {len(found.starts) - 1} latents, the SAE has {sae.latents}")
    effects = logit_effects(found.site, sae.write[list(latents)]) if found.site.lm.has_head else None
    shape = geometry(sae.write.detach().cpu(), units=[address(found, i) for i in range(sae.latents)], seed=seed)
    return [
        _feature(
            found, latent, None if effects is None else effects[i], shape, top, per_band, around, words, bins, seed
        )
        for i, latent in enumerate(latents)
    ]


def address(found: Activity, latent: int) -> str:
    """The address of a latent."""
    return f"{found.site.address}~{found.name}:{latent}"


@torch.no_grad()
def logit_effects(site: LanguageSite, directions: Tensor) -> Tensor:
    """What a step along directions `(n, d)` at the residual stream adds to every logit: `(n, vocabulary)`.

    The direct path only: through the last normalization's gain, not its changing scale, and the unembedding. About the
    mean over the vocabulary, since all logits together say nothing.

    Raises:
        SAEError: a model without a head.
    """
    if not site.lm.has_head:
        raise SAEError(f"{site.lm.name} has no language head: it says no tokens")
    rows = directions.detach().float().to(site.lm.device)
    gain = _last_gain(site)
    unembedding = site.lm.module.get_output_embeddings().weight.float()  # type: ignore[operator]
    effects: Tensor = (rows if gain is None else rows * gain) @ unembedding.T
    return (effects - effects.mean(dim=1, keepdim=True)).cpu()


def promoted(site: LanguageSite, directions: Tensor, words: int = 6) -> list[tuple[tuple[str, float], ...]]:
    """Tokens whose logits a step along each of `(n, d)` directions raises most, with how much; none without a head."""
    if not site.lm.has_head or not len(directions):
        return [() for _ in directions]
    return [_strongest(site, effect, words) for effect in logit_effects(site, directions)]


def _strongest(site: LanguageSite, effect: Tensor, words: int, sign: int = 1) -> tuple[tuple[str, float], ...]:
    """Tokens with the largest effects `(vocabulary,)`, or the smallest."""
    best = (sign * effect).topk(min(words, len(effect))).indices.tolist()
    return tuple((site.lm.decode([i]), float(effect[i])) for i in best)


def _last_gain(site: LanguageSite) -> Tensor | None:
    """Weights of the normalization before the head, where it has them."""
    norms = [
        module for name, module in site.lm.module.named_modules()
        if "norm" in type(module).__name__.lower() and ".layers." not in f".{name}." and ".h." not in f".{name}."
        and ".layer." not in f".{name}."
    ]  # fmt: skip
    weight = getattr(norms[-1], "weight", None) if norms else None
    return weight.detach().float() if isinstance(weight, Tensor) and weight.shape == (site.d,) else None


def _feature(
    found: Activity, latent: int, effect: Tensor | None, shape: Geometry, top: int, per_band: int, around: int,
    words: int, bins: int, seed: int,
) -> TextFeature:  # fmt: skip
    document, token, value = found.of(latent)
    counts, edges = np.histogram(value, bins=bins, range=(0.0, float(value.max()) if len(value) else 1.0))
    strongest: dict[int, int] = {}
    for i in np.argsort(-value, kind="stable"):
        strongest.setdefault(int(document[i]), int(i))
        if len(strongest) == top:
            break
    said: dict[str, tuple[tuple[str, float], ...]] = {"promoted": (), "suppressed": ()}
    if effect is not None:
        for name, sign in (("promoted", 1), ("suppressed", -1)):
            said[name] = _strongest(found.site, effect, words, sign)
    return TextFeature(
        unit=address(found, latent),
        tokens=len(value),
        density=len(value) / max(1, found.tokens),
        maximum=float(value.max()) if len(value) else 0.0,
        mean=float(value.mean()) if len(value) else 0.0,
        counts=tuple(counts.tolist()),
        edges=tuple(edges.tolist()),
        top=tuple(_passage(found, latent, i, around) for i in strongest.values()),
        bands=_bands(found, latent, value, per_band, around, seed),
        shares_with=tuple(shape.about(latent)["shares_with"]),
        **said,
    )


def _bands(
    found: Activity, latent: int, value: Array, per_band: int, around: int, seed: int
) -> tuple[TextBand, ...]:  # fmt: skip
    if not len(value):
        return ()
    order = np.argsort(value, kind="stable")
    random = np.random.default_rng([seed, CONTROL, latent])
    made = []
    for low, high in zip(QUANTILES, QUANTILES[1:], strict=False):
        inside = order[int(low * len(value)) : int(np.ceil(high * len(value)))]
        if len(inside):
            drawn = random.permutation(inside)[:per_band]
            passages = tuple(_passage(found, latent, int(i), around) for i in drawn)
            made.append(TextBand(float(value[inside[0]]), float(value[inside[-1]]), passages))
    return tuple(made)


def _passage(found: Activity, latent: int, entry: int, around: int) -> Passage:
    document, token, value = found.of(latent)
    at, here = int(document[entry]), int(token[entry])
    ids = found.ids[at]
    first, stop = max(0, here - around), min(len(ids), here + around + 1)
    own = document == at
    fires = dict(zip(token[own].tolist(), value[own].tolist(), strict=True))
    return Passage(
        document=at,
        token=here,
        value=float(value[entry]),
        words=pieces(found.site, ids[first:stop]),
        values=tuple(float(fires.get(i, 0.0)) for i in range(first, stop)),
        at=here - first,
    )


def pieces(site: LanguageSite, ids: Sequence[int]) -> tuple[str, ...]:
    """Tokens as stretches of text that make the whole when put together, spaces included."""
    made, before = [], ""
    for stop in range(1, len(ids) + 1):
        text = site.lm.decode(list(ids[:stop]))
        made.append(text[len(before) :] if text.startswith(before) else site.lm.decode([ids[stop - 1]]))
        before = text
    return tuple(made)
