"""Search for latents to steer: by contrast of two sets of inputs, by a label, or by similarity to another latent.

The best of many latents owes part of its AUC to the choice: a random half of the inputs of either side ranks them, and
the AUCs are of the other half, as in `circuits.find`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.common.statistics import label_auc
from circuits.dataset.concept_search import Finding, Findings, halves
from sae.data.activations import opened
from sae.data.site import Site, digest_of
from sae.errors import SAEError, did_you_mean, shorten
from sae.seeding import CONTROL, generator
from sae.steering.bases import Dictionary, address_of, basis_at, check_latent, in_parts
from zoo.common.results import Result
from zoo.progress import Progress


@dataclass(frozen=True)
class LatentFinding(Finding):
    """How well one latent detects a concept, as `circuits.Finding`."""

    @property
    def latent(self) -> int:
        """Its number."""
        return int(self.unit.rpartition(":")[2])


@dataclass(frozen=True)
class LatentFindings(Findings):
    """Latents ranked for a concept, best first by one half of the inputs; their AUCs are of the other half.

    `chance` is the largest AUC of any latent over several permutations of the labels of the half that reports.
    """

    rows: tuple[LatentFinding, ...]

    _inputs: ClassVar[str] = "inputs"

    @property
    def best(self) -> LatentFinding:
        """The latent with the highest AUC on the inputs that rank."""
        return self.rows[0]


def search(
    s: Dictionary,
    site: Site,
    positive: Any,
    negative: Any,
    *,
    top: int = 100,
    name: str = "sae",
    shuffles: int = 10,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> LatentFindings:
    """Latents that separate two sets of inputs, ranked by AUC of their largest activation on each input.

    A random half of the inputs of either side ranks the latents; the AUCs are of the other half.

    Args:
        s: an SAE or another basis of the site; None for its channels.
        site: a `VisionSite` or `LanguageSite`.
        positive, negative: images or texts with the concept, and without; at least two each.
        top: number of latents returned.
        name: what the basis is called in addresses.
        shuffles: permutations of the labels for `chance`.
        seed: of the halves and the permutations.
        batch_size: inputs per forward pass.
        progress: True for a bar, or a function of (done, total) inputs of each set.

    Raises:
        SAEError: fewer than two inputs on one side, or a basis of another site.

    >>> search(s, site, texts_a, texts_b).best.latent  # doctest: +SKIP
    17
    """
    sides = [opened(site, positive), opened(site, negative)]
    for which, side in zip(("positive", "negative"), sides, strict=True):
        if not len(side):
            raise SAEError(f"there are no {which} inputs")
    values = [_pooled(s, site, side, batch_size, progress) for side in sides]
    with_it = np.repeat([True, False], [len(v) for v in values])
    digests = {which: digest_of(side) for which, side in zip(("positive", "negative"), sides, strict=True)}
    return _ranked(s, site, torch.cat(values), with_it, top, name, shuffles, seed, digests)


def search_label(
    s: Dictionary,
    site: Site,
    inputs: Any,
    label: str | int | Sequence[bool],
    *,
    top: int = 100,
    name: str = "sae",
    shuffles: int = 10,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> LatentFindings:
    """Like `search`, for one set of labeled inputs.

    Args:
        s, site, inputs: as for `search`.
        label: a class of the images (its name or number), an annotated part, or True or False for each input.
        top, name, shuffles, seed, batch_size, progress: as for `search`.

    Raises:
        SAEError: the inputs have no labels, no such label, or all have it, or only one has it or lacks it.

    >>> search_label(s, site, "scenes:200", "wheels").best.auc  # doctest: +SKIP
    0.98
    """
    inputs = opened(site, inputs)
    with_it = _labeled(inputs, label)
    if with_it.all() or not with_it.any():
        raise SAEError(f"{'all' if with_it.all() else 'none'} of {len(inputs)} inputs are labeled {shorten(label)!r}")
    values = _pooled(s, site, inputs, batch_size, progress)
    return _ranked(s, site, values, with_it, top, name, shuffles, seed, {"inputs": digest_of(inputs)})


def _labeled(inputs: Any, label: str | int | Sequence[bool]) -> NDArray[np.bool_]:
    if not isinstance(label, str | int):
        flags = np.asarray(label)
        if flags.dtype != bool or flags.shape != (len(inputs),):
            raise SAEError(
                f"labels are True or False for each of {len(inputs)} inputs; got {flags.shape} {flags.dtype}"
            )
        return flags
    labels_of_each: list[set[str | int]] = [set() for _ in range(len(inputs))]
    numbers, classes = getattr(inputs, "labels", None), getattr(inputs, "classes", None)
    if numbers is not None:
        for labels_of, name in zip(labels_of_each, numbers, strict=True):
            labels_of |= {name} if classes is None else {name, classes[name]}
    annotations = getattr(inputs, "annotations", None)
    for labels_of, annotation in zip(labels_of_each, annotations or (), strict=False):
        labels_of.update(part.name for part in annotation.parts)
    names = sorted({str(name) for labels_of in labels_of_each for name in labels_of if isinstance(name, str)})
    if not any(labels_of_each):
        raise SAEError("these inputs have no labels: give True or False for each, or two sets to `search`")
    labeled = np.array([label in labels_of for labels_of in labels_of_each])
    if not labeled.any():
        raise SAEError(f"no input is labeled {shorten(label)!r}.{did_you_mean(str(label), names)}")
    return labeled


def _pooled(s: Dictionary, site: Site, inputs: Any, batch_size: int, progress: Progress) -> Tensor:
    """The largest activation of each latent on each input, `(N, m)`."""
    basis, rows = basis_at(s, site), []
    for block in site.blocks(inputs, batch_size=batch_size, progress=progress):
        for i, acts in enumerate(block.acts):
            own = acts.reshape(-1, acts.shape[-1])
            if block.mask is not None:
                own = own[block.mask[i].flatten()]
            best: list[Tensor] = []
            in_parts(basis, own, lambda latents, best=best: best.append(latents.amax(dim=0)))  # type: ignore[misc]
            rows.append(torch.stack(best).amax(dim=0).float().cpu())
    return torch.stack(rows)


def _ranked(
    s: Dictionary, site: Site, values: Tensor, with_it: NDArray[np.bool_], top: int, name: str, shuffles: int,
    seed: int, digests: dict[str, str],
) -> LatentFindings:  # fmt: skip
    if top < 1 or shuffles < 1:
        raise SAEError(f"top={top} and shuffles={shuffles} are at least 1")
    labels, ranks = torch.from_numpy(with_it), torch.zeros(len(with_it), dtype=torch.bool)
    for flag, which in ((True, "positive"), (False, "negative")):
        side = (labels == flag).nonzero().flatten()
        if len(side) < 2:
            raise SAEError(
                f"there is one {which} input; a search needs two: one half ranks the latents, the other tests"
            )
        ranks[side[halves(len(side), seed)[0]]] = True
    draw = generator(seed, CONTROL)
    tested = labels[~ranks]
    rows = [tested, *(tested[torch.randperm(len(tested), generator=draw)] for _ in range(shuffles))]
    areas = label_auc(values[~ranks], torch.stack(rows))
    chosen = label_auc(values[ranks], labels[ranks][None])[0]
    order = chosen.argsort(descending=True, stable=True)[:top].tolist()
    positive, negative = values[labels].mean(dim=0), values[~labels].mean(dim=0)
    return LatentFindings(
        rows=tuple(
            LatentFinding(
                address_of(i, s, site, name),
                float(areas[0, i]),
                "max",
                float(positive[i]),
                float(negative[i]),
                chosen_auc=float(chosen[i]),
            )
            for i in order
        ),
        layers=(site.address,),
        n_positive=int(with_it.sum()),
        n_negative=int((~with_it).sum()),
        chance=float(areas[1:].max()),
        provenance=provenance(
            weights=site.metadata.get("weights_digest"), seed=seed, latents=values.shape[1], **digests
        ),
    )


@dataclass(frozen=True)
class Similar(Result):
    """Latents with a write direction similar to that of one latent.

    Attributes:
        latent: its number; rows: the others and the cosine of the write directions, largest in size first.
        chance: cosine that the nearest of as many random directions exceeds in one case of a hundred.
    """

    latent: int
    rows: tuple[tuple[int, float], ...]
    chance: float
    provenance: dict[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """A row for each latent."""
        return [{"latent": i, "cosine": c, "beyond_chance": abs(c) > self.chance} for i, c in self.rows]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "latent": self.latent, "chance": self.chance, "provenance": self.provenance,
            "rows": self.records(),
        }  # fmt: skip


def similar(s: Any, latent: int, *, top: int = 10) -> Similar:
    """Latents with a write direction similar to that of one latent: steering it has part of their effect.

    Args:
        s: an SAE or another basis.
        latent: its number.
        top: number of latents returned.

    Raises:
        SAEError: there is no such latent, or its write direction has length 0.

    >>> similar(s, 12).rows[0]  # doctest: +SKIP
    (77, 0.81)
    """
    check_latent(latent, s)
    cosine = cosines(s.write.detach().double().cpu(), latent)
    cosine[latent] = 0
    order = cosine.abs().argsort(descending=True, stable=True)[: min(top, len(cosine) - 1)].tolist()
    rows = tuple((i, float(cosine[i])) for i in order if i != latent)
    return Similar(latent, rows, chance_cosine(s.write.shape[1], len(cosine)), provenance())


def cosines(write: Tensor, latent: int) -> Tensor:
    """Cosines `(m,)` of directions `(m, d)` with one of them; 0 with those of length 0.

    Raises:
        SAEError: it has length 0 itself.
    """
    lengths = write.norm(dim=1)
    if not float(lengths[latent]) > 0:
        raise SAEError(f"latent {latent} has a write direction of length 0")
    cosine: Tensor = (write @ write[latent]) / (lengths * lengths[latent]).clamp_min(torch.finfo(write.dtype).tiny)
    return cosine


def chance_cosine(d: int, count: int, share: float = 0.01) -> float:
    """The absolute cosine that the nearest of `count - 1` random directions of width d reaches in that share of cases.

    In closed form: the squared cosine of two random directions has the distribution Beta(1/2, (d - 1) / 2), and the
    largest of count - 1 independent ones is below t with its distribution function at t to the power count - 1.

    >>> round(chance_cosine(2, 2, 0.5), 3)
    0.707
    """
    from scipy.special import betaincinv  # scipy.stats, which has the distribution by name, takes seconds to import

    if d < 2 or count < 2:
        return 1.0
    return float(np.sqrt(betaincinv(0.5, (d - 1) / 2, (1 - share) ** (1 / (count - 1)))))
