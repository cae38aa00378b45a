"""Which latents, at which tokens, made the model say a word, or a latent of a later site fire.

Gradient times activation through the site's own SAE, with what the SAE leaves over held as a constant; the strongest
are then taken out one by one, to see whether what they are said to give is really lost. Source: Marks et al., Sparse
Feature Circuits, 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.errors import AddressError
from sae.architectures.base import SAE
from sae.checks import whole
from sae.data.site import check_fits
from sae.errors import SAEError, shorten
from sae.language.chunking import chunks, padded
from sae.language.site import LanguageSite


@dataclass(frozen=True)
class Cause:
    """A latent at a token.

    Attributes:
        token: of the text; word: it as text; latent: index; activation: there.
        given: gradient times activation: what it gives to the target, to first order.
        lost: by how much the target falls when it is taken out there; NaN for those that were not tried.
    """

    token: int
    word: str
    latent: int
    activation: float
    given: float
    lost: float


@dataclass(frozen=True)
class TextAttribution:
    """What `attribute_text` found.

    Attributes:
        target: what was asked about, for people; value: of the target on the text.
        token: at which it was read.
        causes: latents at tokens, those that give most (in size) first.
        total: what all latents give together; error: what the part of the activations gives that the SAE leaves over.
        provenance: model, SAE.
    """

    target: str
    value: float
    token: int
    causes: tuple[Cause, ...]
    total: float
    error: float
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**vars(self), "causes": [vars(c) for c in self.causes], "provenance": dict(self.provenance)}


def attribute_text(
    sae: SAE,
    site: LanguageSite,
    text: str,
    target: str | tuple[SAE, LanguageSite, int],
    *,
    token: int = -1,
    n: int = 10,
    tried: int = 5,
) -> TextAttribution:
    """Latents that made the model say a word after a text, or made a latent of a later site fire.

    Args:
        sae: the SAE; site: where it reads.
        text: one text, no longer than the context.
        target: a word, one token of the vocabulary, whose logit is explained (about the mean over the vocabulary); or
            an SAE, its site and a latent, whose pre-activation is.
        token: of the text, at which the target is read; from the end when below zero.
        n: causes listed; tried: how many of them are taken out, one at a time.

    Raises:
        SAEError: a text that is too long, a word that is no single token, or an SAE of another site.
        AddressError: a token or latent out of range.

    >>> attribute_text(s, site, "The owl sat on the red bridge of", "Fogport").causes[0].word  # doctest: +SKIP
    ' bridge'
    """
    whole("n", n)
    check_fits(sae, site)
    batch = list(chunks(site.lm, site.open([text]), site.feeding))
    if len(batch) > 1:
        raise SAEError(f"the text has more tokens than {site.lm.name} takes at once, {site.feeding.room}")
    count = batch[0].count
    if not -count <= token < count:
        raise AddressError(f"the text has {count} tokens (0 to {count - 1}); asked for token {token}")
    at = token % count
    first = batch[0].text.start
    reader = _Reader(site, target, first + at)
    made = padded(batch)
    kept: dict[str, Tensor] = {}

    def through(acts: Tensor) -> Tensor:
        flat = acts.detach().reshape(-1, acts.shape[-1])
        latents = sae.encode(flat).detach().requires_grad_(True)
        error = (flat - sae.decode(latents)).detach().requires_grad_(True)
        kept.update(latents=latents, error=error)
        return (sae.decode(latents) + error).view_as(acts)

    with torch.enable_grad(), site.replaced(through):
        value = reader.read(made)
    gradients = torch.autograd.grad(value, [kept["latents"], kept["error"]], allow_unused=True)
    latents = kept["latents"].detach()
    given = torch.zeros_like(latents) if gradients[0] is None else gradients[0] * latents
    left = 0.0 if gradients[1] is None else float((gradients[1] * kept["error"].detach()).sum())
    rows = given[first : first + count]
    order = rows.abs().flatten().argsort(descending=True, stable=True)[:n].tolist()
    words = [site.lm.decode([i]) for i in batch[0].ids[first : first + count]]
    clean = float(value.detach())
    causes = []
    for rank, flat in enumerate(order):
        place, latent = divmod(flat, sae.latents)
        if float(rows[place, latent]) == 0:
            break
        lost = float("nan")
        if rank < tried:
            amount = float(latents[first + place, latent])
            with torch.no_grad(), site.replaced(_without(sae.write[latent], first + place, amount)):
                lost = clean - float(reader.read(made))
        causes.append(
            Cause(place, words[place], latent, float(latents[first + place, latent]), float(rows[place, latent]), lost)
        )
    return TextAttribution(
        target=reader.name,
        value=clean,
        token=at,
        causes=tuple(causes),
        total=float(rows.sum()),
        error=left,
        provenance=provenance(weights=site.lm.digest, sae=sae.config.to_dict()),
    )


def _without(direction: Tensor, place: int, amount: float) -> Any:
    def function(acts: Tensor) -> Tensor:
        new = acts.clone()
        new[:, place] -= amount * direction.to(acts)
        return new

    return function


class _Reader:
    """Runs the model and reads the target, with whatever is replaced meanwhile."""

    def __init__(self, site: LanguageSite, target: str | tuple[SAE, LanguageSite, int], place: int) -> None:
        self.site, self.place = site, place
        self.later: tuple[SAE, LanguageSite, int] | None = None
        self.word = 0
        if isinstance(target, str):
            found = [ids for ids in (site.lm.ids(target), site.lm.ids(f" {target}")) if len(ids) == 1]
            if not found:
                raise SAEError(f"{shorten(target)!r} is no single token of {site.lm.name}")
            self.word, self.name = found[0][0], f"logit of {target!r}"
            return
        later, where, latent = target
        check_fits(later, where)
        if where.lm is not site.lm:
            raise SAEError("the target must be a latent of the same model")
        if not 0 <= latent < later.latents:
            raise AddressError(f"the target's SAE has {later.latents} latents; asked for {latent}")
        self.later, self.name = target, f"{where.address}, latent {latent}"

    def read(self, made: Any) -> Tensor:
        """The target as a scalar."""
        if self.later is None:
            logits = self.site.run(made).logits[0, self.place]
            value: Tensor = logits[self.word] - logits.mean()
            return value
        later, where, latent = self.later
        seen: list[Tensor] = []

        def look(acts: Tensor) -> Tensor:
            seen.append(acts)
            return acts

        with where.replaced(look):
            self.site.run(made)
        value = later.pre_activations(seen[0][0, self.place][None])[0, latent]
        return value
