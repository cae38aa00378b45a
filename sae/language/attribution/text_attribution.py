"""Attribution of a text prediction: latents at tokens that raise the logit of a token, or a latent of a later site.

After Marks et al. 2024, "Sparse Feature Circuits" (arXiv 2403.19647), section 3.1: an activation is split by the SAE
into x = decode(a) + error, the target is differentiated with respect to the latents a (and the error, as one more
node), and the indirect effect of latent i at a token is estimated to first order as a_i * d(target)/d(a_i). The
estimate ignores all nonlinearity on the way, so the strongest latents are also ablated, one at a time, by subtracting
a_i W_i.
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
from sae.data.site import Function, check_fits
from sae.errors import SAEError, shorten
from sae.language.chunking import Padded, chunks, padded
from sae.language.site import LanguageSite
from zoo.common.autograd import outside_inference_mode
from zoo.common.results import Result, plain


@dataclass(frozen=True)
class Cause:
    """A latent at a token.

    Attributes:
        token: index in the text; word: the token as text; latent: index; activation: of the latent at the token.
        attribution: activation times gradient, its effect on the target to first order.
        ablation_effect: fall of the target when the latent is ablated there; NaN where it was not measured.
    """

    token: int
    word: str
    latent: int
    activation: float
    attribution: float
    ablation_effect: float


@dataclass(frozen=True)
class TextAttribution(Result):
    """Result of `attribute_text`.

    Attributes:
        target: description of the target; value: of the target on the text.
        token: at which it is read.
        causes: latents at tokens with the largest absolute attribution, largest first.
        total: sum of the attributions of all latents; error: attribution of the part of the activations that the SAE
            does not explain.
        provenance: model, SAE.
    """

    target: str
    value: float
    token: int
    causes: tuple[Cause, ...]
    total: float
    error: float
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """A row for each cause."""
        return [plain(cause) for cause in self.causes]


@outside_inference_mode
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
    """Latents that raise the logit of the token after a text, or the pre-activation of a latent of a later site.

    Args:
        sae: the SAE; site: its site.
        text: one text, no longer than the context.
        target: a word that is one token of the vocabulary: its logit less the mean logit; or an SAE, its site and a
            latent: the latent's pre-activation.
        token: index in the text at which the target is read; negative ones count from the end.
        n: number of causes; tried: number of these that are ablated, one at a time.

    Raises:
        SAEError: a text that is too long, a word that is no single token, or an SAE of another site.
        AddressError: a token or latent out of range.

    >>> attribute_text(s, site, "The owl sat on the red bridge of", "Fogport").causes[0].word  # doctest: +SKIP
    ' bridge'
    """
    whole("n", n)
    check_fits(sae, site)
    pieces = list(chunks(site.lm, site.open([text]), site.feeding))
    if len(pieces) > 1:
        raise SAEError(f"the text has more tokens than {site.lm.name} takes at once, {site.feeding.room}")
    count, first = pieces[0].count, pieces[0].text.start
    if not -count <= token < count:
        raise AddressError(f"the text has {count} tokens (0 to {count - 1}); asked for token {token}")
    at = token % count
    reader = _Target(site, target, first + at)
    batch = padded(pieces)
    split: dict[str, Tensor] = {}

    def through_sae(acts: Tensor) -> Tensor:
        # detached latents and error are the leaves; their sum is the activation itself, so the target is unchanged
        flat = acts.detach().reshape(-1, acts.shape[-1])
        latents = sae.encode(flat).detach().requires_grad_(True)
        error = (flat - sae.decode(latents)).detach().requires_grad_(True)
        split.update(latents=latents, error=error)
        return (sae.decode(latents) + error).view_as(acts)

    with torch.enable_grad(), site.replaced(through_sae):
        value = reader.read(batch)
    gradients = torch.autograd.grad(value, [split["latents"], split["error"]], allow_unused=True)
    latents = split["latents"].detach()
    attributions = torch.zeros_like(latents) if gradients[0] is None else gradients[0] * latents
    error = 0.0 if gradients[1] is None else float((gradients[1] * split["error"].detach()).sum())
    rows = attributions[first : first + count]
    words = [site.lm.decode([i]) for i in pieces[0].ids[first : first + count]]
    clean = float(value.detach())
    causes = []
    for rank, flat in enumerate(rows.abs().flatten().argsort(descending=True, stable=True)[:n].tolist()):
        position, latent = divmod(flat, sae.latents)
        activation, attribution = float(latents[first + position, latent]), float(rows[position, latent])
        if attribution == 0:
            break
        ablation_effect = float("nan")
        if rank < tried:
            ablated = _ablated(sae.write[latent], first + position, activation)
            with torch.no_grad(), site.replaced(ablated):
                ablation_effect = clean - float(reader.read(batch))
        causes.append(Cause(position, words[position], latent, activation, attribution, ablation_effect))
    return TextAttribution(
        target=reader.name,
        value=clean,
        token=at,
        causes=tuple(causes),
        total=float(rows.sum()),
        error=error,
        provenance=provenance(weights=site.lm.digest, sae=sae.config.to_dict()),
    )


def _ablated(direction: Tensor, position: int, activation: float) -> Function:
    """Removes what a latent writes at one token."""

    def function(acts: Tensor) -> Tensor:
        new = acts.clone()
        new[:, position] -= activation * direction.to(acts)
        return new

    return function


class _Target:
    """Runs the model, with the replacements that are active, and reads the target."""

    def __init__(self, site: LanguageSite, target: str | tuple[SAE, LanguageSite, int], position: int) -> None:
        self.site, self.position = site, position
        self.later: tuple[SAE, LanguageSite, int] | None = None
        self.word = 0
        if isinstance(target, str):
            single = [ids for ids in (site.lm.ids(target), site.lm.ids(f" {target}")) if len(ids) == 1]
            if not single:
                raise SAEError(f"{shorten(target)!r} is no single token of {site.lm.name}")
            self.word, self.name = single[0][0], f"logit of {target!r}"
            return
        later, later_site, latent = target
        check_fits(later, later_site)
        if later_site.lm is not site.lm:
            raise SAEError("the target must be a latent of the same model")
        if not 0 <= latent < later.latents:
            raise AddressError(f"the target's SAE has {later.latents} latents; asked for {latent}")
        self.later, self.name = target, f"{later_site.address}, latent {latent}"

    def read(self, batch: Padded) -> Tensor:
        """The target as a scalar."""
        if self.later is None:
            logits = self.site.run(batch).logits[0, self.position]
            value: Tensor = logits[self.word] - logits.mean()
            return value
        later, later_site, latent = self.later
        captured: list[Tensor] = []

        def capture(acts: Tensor) -> Tensor:
            captured.append(acts)
            return acts

        with later_site.replaced(capture):
            self.site.run(batch)
        value = later.pre_activations(captured[0][0, self.position][None])[0, latent]
        return value
