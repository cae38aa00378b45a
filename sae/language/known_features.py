"""Known features of the tales: does an SAE recover them, and better than channels or random directions do?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from circuits.common.statistics import label_auc
from sae.architectures.base import SAE
from sae.data.activations import collect
from sae.data.site import check_fits
from sae.errors import SAEError, did_you_mean, shorten
from sae.language.site import LanguageSite
from sae.language.texts import Texts
from sae.seeding import CONTROL, generator
from sae.steering.edits import When
from sae.steering.max_activations import Maxima
from zoo.common.results import Result, Results
from zoo.progress import Progress
from zoo.tales import FEATURES, SAME_WORD, Story, labels_at

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KnownFeature(Result):
    """How well one known feature is detected, by the best latent and by the controls.

    Areas under the ROC curve. Each unit is chosen on one half of the stories and scored on the other, so that the
    largest of many AUCs is not biased upward. A feature that is one meaning of a word (a landmark, a homograph) is
    scored among the tokens of that word only: among all tokens a detector of the word alone would score nearly 1.

    Attributes:
        name: of the feature; tokens: number of scored tokens with the feature; among: number of scored tokens.
        latent, auc: the best latent, and its AUC.
        channel, channel_auc: the same of the site's channels, of either sign.
        random_auc: of as many random directions as there are latents, of either sign.
        probe_auc: of a linear probe fitted to the feature: roughly the best that one direction can do here.
    """

    name: str
    tokens: int
    among: int
    latent: int
    auc: float
    channel: int
    channel_auc: float
    random_auc: float
    probe_auc: float


@torch.no_grad()
def known_features(
    sae: SAE,
    site: LanguageSite,
    stories: Sequence[Story],
    *,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> Results[KnownFeature]:
    """How well each feature of the tales is detected by one latent, one channel, or one of as many random directions.

    Args:
        sae: an SAE of the site.
        site: where it reads.
        stories: of `zoo.tales.sample`, best not those it was trained on; units are chosen on the first half.
        seed: of the random directions.
        batch_size: stories per forward pass.
        progress: True for a bar, or a function of (done, total) stories.

    Raises:
        SAEError: an SAE of another site, fewer than two stories, or a model that cuts the stories into other tokens.

    >>> known_features(s, site, tales.sample(400, seed=1))[0].name  # doctest: +SKIP
    'red_bridge_of_Fogport'
    """
    if len(stories) < 2:
        raise SAEError("units are chosen on one half of the stories and scored on the other: give two or more")
    x, latents, positions = _read(sae, site, stories, batch_size=batch_size, progress=progress)
    labels, first = labels_at(stories, positions), positions[:, 0] < len(stories) // 2
    tokens = np.array([stories[story].tokens[token] for story, token in positions])
    directions = torch.randn(sae.latents, site.d, generator=generator(seed, CONTROL))
    readers = {"latent": latents, "channel": _signed(x), "random": _signed((x - x.mean(dim=0)) @ directions.T)}
    features: dict[str, KnownFeature] = {}
    for word in dict.fromkeys([None, *SAME_WORD.values()]):
        names = [name for name in FEATURES if SAME_WORD.get(name) == word]
        among = np.ones(len(tokens), dtype=bool) if word is None else tokens == word
        own = labels[:, [FEATURES.index(name) for name in names]]
        halves = np.flatnonzero(first & among), np.flatnonzero(~first & among)
        features |= zip(names, _judged(names, x, readers, own, *halves), strict=True)
    return Results(features[name] for name in FEATURES)


@dataclass(frozen=True)
class Gate(Result):
    """A latent that is active almost only where a known feature is present: a condition for edits.

    Attributes:
        latent: its number; feature: name of the feature.
        above: threshold of activity, in multiples of its maximum.
        precision: share of its active tokens that have the feature; recall: share of the tokens with the feature at
            which it is active.
    """

    latent: int
    feature: str
    above: float
    precision: float
    recall: float

    @property
    def when(self) -> When:
        """The condition that it is active."""
        return When(self.latent, above=self.above, unit="max")


@torch.no_grad()
def gates(
    sae: SAE,
    site: LanguageSite,
    stories: Sequence[Story],
    feature: str,
    maxima: Maxima,
    *,
    above: float = 0.1,
    precision: float = 0.9,
    recall: float = 0.02,
    batch_size: int = 32,
    progress: Progress = None,
) -> list[Gate]:
    """Latents that are active at tokens with a feature of the tales and hardly elsewhere, largest recall first.

    One edit for each, with its `when`, steers wherever any of them is active.

    Args:
        sae: an SAE of the site.
        site: where it reads.
        stories: of `zoo.tales.sample`.
        feature: of `zoo.tales.FEATURES`.
        maxima: of `sae.steering.maxima`.
        above: multiple of its maximum that a latent must exceed to count as active.
        precision, recall: lower limits.
        batch_size: stories per forward pass.
        progress: True for a bar, or a function of (done, total) stories.

    Raises:
        SAEError: no such feature, an SAE or maxima of another site, no stories, or a model that cuts them otherwise.

    >>> gates(s, site, stories, "place_due", maxima(s, site, "tales:500@2"))[0].when  # doctest: +SKIP
    When(latent=128, above=0.1, below=None, unit='max', anywhere=False)
    """
    if feature not in FEATURES:
        raise SAEError(f"the tales have no feature {shorten(feature)!r}.{did_you_mean(str(feature), FEATURES)}")
    maxima.check(site, sae)
    if not stories:
        raise SAEError("no stories: give some of zoo.tales.sample")
    _, latents, positions = _read(sae, site, stories, batch_size=batch_size, progress=progress)
    has = labels_at(stories, positions)[:, [FEATURES.index(feature)]]
    fires = ((latents > above * maxima.values) & (maxima.values > 0)).numpy()
    right = (fires & has).sum(axis=0)
    shares = right / np.maximum(fires.sum(axis=0), 1), right / max(int(has.sum()), 1)
    candidates = [Gate(i, feature, above, float(p), float(r)) for i, (p, r) in enumerate(zip(*shares, strict=True))]
    good = (gate for gate in candidates if gate.recall > 0 and gate.precision >= precision and gate.recall >= recall)
    return sorted(good, key=lambda gate: -gate.recall)


def _read(
    sae: SAE, site: LanguageSite, stories: Sequence[Story], *, batch_size: int, progress: Progress
) -> tuple[Tensor, Tensor, Rows]:
    """Vectors `(n, d)` of all tokens of stories, the latents `(n, m)`, and the story and token of each `(n, 2)`."""
    check_fits(sae, site)
    for story in stories:
        if len(site.lm.ids(story.text)) != len(story.tokens):
            raise SAEError(f"{site.lm.name} has other tokens than the tales; their labels fit the model `tales` only")
    acts = collect(site, Texts(tuple(story.text for story in stories)), batch_size=batch_size, progress=progress)
    x = acts.vectors.float().cpu()
    return x, torch.cat([sae.encode(part) for part in torch.split(x, 8192)]).cpu(), acts.positions.numpy()


def _signed(values: Tensor) -> Tensor:
    return torch.cat([values, -values], dim=1)


def _judged(
    names: Sequence[str], x: Tensor, readers: dict[str, Tensor], labels: Mask, choose: Rows, judge: Rows
) -> Iterator[KnownFeature]:
    """Features `names`, labels `(n, names)`: units chosen on the rows `choose`, scored on the rows `judge`."""
    best = {
        kind: np.nan_to_num(_areas(values[choose], labels[choose])).argmax(axis=1) for kind, values in readers.items()
    }
    for i, name in enumerate(names):
        truth = labels[judge][:, [i]]
        column = {kind: int(columns[i]) for kind, columns in best.items()}
        area = {kind: float(_areas(values[judge][:, [column[kind]]], truth)[0, 0]) for kind, values in readers.items()}
        probe = x.double() @ _probe(x[choose], labels[choose, i])
        yield KnownFeature(
            name=name,
            tokens=int(truth.sum()),
            among=len(judge),
            latent=column["latent"],
            auc=area["latent"],
            channel=column["channel"] % x.shape[1],
            channel_auc=area["channel"],
            random_auc=area["random"],
            probe_auc=float(_areas(probe[judge][:, None], truth)[0, 0]),
        )


def _probe(x: Tensor, labels: Mask) -> Tensor:
    """The direction `(d,)` of a ridge regression on a feature."""
    centered = x.double() - x.double().mean(dim=0)
    square = centered.T @ centered
    ridge = 1e-4 * square.diagonal().mean().clamp_min(1e-12) * torch.eye(len(square), dtype=torch.float64)
    target = torch.from_numpy(labels.astype(np.float64))
    direction: Tensor = torch.linalg.solve(square + ridge, centered.T @ (target - target.mean()))
    return direction


def _areas(values: Tensor, labels: Mask) -> Array:
    """Areas under the ROC curve, `(features, units)`, of values `(n, units)` for labels `(n, features)`."""
    return label_auc(values, torch.from_numpy(labels.T), columns=64).numpy()
