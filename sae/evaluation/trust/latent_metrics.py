"""Metrics of single latents on images, as plain functions on tensors.

`monosemanticity`, `spatial_coherence`, `sparse_probing` and `kept_classes` are M5, M1, M4 and M3 of ViSAEBench 0.1,
`cross_domain` and `absorption_rate` M6 and M7, and equal to them on the same tensors; `sparse_probing` with
`ranked_on="all"`. (M2 is the FVU of `sae.metrics`, but for its variance: about one mean of all numbers.)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sae.checks import whole
from sae.errors import SAEError
from zoo.common.checks import one_of

PROBES = (1, 5, 10, 20, 50, 100)
"""Numbers of latents that probes read."""
_CHUNK = 2**25  # numbers of a temporary


def monosemanticity(acts: Tensor, embeddings: Tensor, top: int | None = 16) -> Tensor:
    """How alike the images are that a latent is active on, `(m,)`, in the eyes of another network.

    `MS = sum_{a<b} w_a w_b cos(e_a, e_b) / sum_{a<b} w_a w_b` with the latent's activations as weights, scaled to run
    from 0 to 1 over all images (Pach et al. 2025, arXiv 2504.02821).

    Args:
        acts: `(N, m)` activation of each latent on each image, its largest over positions.
        embeddings: `(N, e)` of the images, of a judge that is not the network itself.
        top: only so many images, those of the largest activations (ViSAEBench's 16); None is all, as in the paper.

    Returns:
        NaN for latents that are active on fewer than two images.

    Raises:
        SAEError: other shapes.

    >>> monosemanticity(torch.tensor([[1.0], [1.0], [0.0]]), torch.eye(3))
    tensor([0.])
    """
    _images(acts, len(embeddings), "embeddings")
    low, high = acts.amin(dim=0), acts.amax(dim=0)
    weights = (acts - low) / torch.where(high > low, high - low, 1.0)
    eyes = F.normalize(embeddings.float(), dim=1).double()
    if top is None:
        # sum over pairs a < b of w_a w_b e_a.e_b is half of |sum w e|^2 less its diagonal
        w = weights.double()
        squares = w.square()
        weighted = (w.T @ eyes).square().sum(dim=1) - squares.T @ eyes.square().sum(dim=1)
        return (weighted / (w.sum(dim=0).square() - squares.sum(dim=0))).float()
    count = min(whole("top", top), len(acts))
    scores = []
    for some in torch.split(weights, max(1, _CHUNK // (count * eyes.shape[1])), dim=1):
        w, rows = some.topk(count, dim=0)  # (count, some)
        w = w.double()
        e = eyes[rows]  # (count, some, e)
        summed = (w[..., None] * e).sum(dim=0).square().sum(dim=1)
        own = (w.square() * e.square().sum(dim=2)).sum(dim=0)
        scores.append((summed - own) / (w.sum(dim=0).square() - w.square().sum(dim=0)))
    return torch.cat(scores).float()


def class_purity(acts: Tensor, labels: Tensor, top: int = 16) -> Tensor:
    """Largest share of one class among the `top` images of the largest activations, `(m,)`.

    Args:
        acts: `(N, m)`; labels: `(N,)` class of each image.
        top: how many images.

    Returns:
        NaN for latents that are active on fewer images than that.

    >>> class_purity(torch.tensor([[3.0], [2.0], [1.0], [0.0]]), torch.tensor([4, 4, 5, 5]), top=2)
    tensor([1.])
    """
    _images(acts, len(labels), "labels")
    count = min(whole("top", top), len(acts))
    values, rows = acts.topk(count, dim=0)
    classes = F.one_hot(labels[rows].long())  # (count, m, classes)
    share = classes.sum(dim=0).amax(dim=1) / count
    return torch.where(values[-1] > 0, share, torch.nan)


def spatial_coherence(
    maps: Tensor, *, least_active: int = 5, most_active: float = 0.9, least_images: int = 50
) -> Tensor:
    """Moran's I of the maps of latents, `(m,)`: 1 where active positions lie together, 0 where they are scattered.

    `I = (P / S) x.W x / x.x` of a map x less its mean, with W the eight neighbors of each of P positions and S their
    number, averaged over the images on which the latent is active at some but not nearly all positions. Controls with
    coherent inputs score high, too: a random direction of a smooth map is smooth.

    Args:
        maps: `(N, h, w, m)` latents.
        least_active: positions, below which an image does not count; most_active: share of positions, above which.
        least_images: latents with fewer such images are NaN.

    >>> spatial_coherence(torch.eye(4)[None, :, :, None], least_active=1, least_images=1) < 0.2
    tensor([True])
    """
    if maps.ndim != 4:
        raise SAEError(f"maps of latents are (N, h, w, m); got {tuple(maps.shape)}")
    n, h, w, m = maps.shape
    neighbors = torch.zeros(h * w, h * w)
    at = torch.cartesian_prod(torch.arange(h), torch.arange(w)).view(-1, 2)
    distance = (at[:, None] - at[None]).abs().amax(dim=2)
    neighbors[distance == 1] = 1.0
    total, count = torch.zeros(m, dtype=torch.float64), torch.zeros(m, dtype=torch.int64)
    for some in torch.split(maps.flatten(1, 2), max(1, _CHUNK // (h * w * m))):
        x = some.float()
        active = (x != 0).sum(dim=1)
        x = x - x.mean(dim=1, keepdim=True)
        variance = x.square().sum(dim=1)
        index = h * w / neighbors.sum() * (x * (neighbors @ x)).sum(dim=1) / variance.clamp_min(1e-10)
        counts = (active >= least_active) & (active <= int(most_active * h * w)) & (variance > 1e-10)
        total += torch.where(counts, index, 0.0).double().sum(dim=0)
        count += counts.sum(dim=0)
    return torch.where(count >= least_images, total / count.clamp_min(1), torch.nan).float()


def sparse_probing(
    acts: Tensor,
    labels: Tensor,
    sizes: Sequence[int] = PROBES,
    *,
    ranked_on: Literal["training", "all"] = "training",
    test: float = 0.2,
    seed: int = 42,
) -> dict[int, float]:
    """Accuracy on held-out images of logistic regressions that read only a few latents.

    Args:
        acts: `(N, m)`; labels: `(N,)` class of each image.
        sizes: numbers of latents, those of the largest F statistic (analysis of variance between the classes); numbers
            above m are left out.
        ranked_on: latents are ranked on the images that the regression is fitted on, or on "all", as in ViSAEBench,
            where the labels of the test images have a say.
        test: share of the images held out, by class where each has two images; seed: of the split.

    Returns:
        Size -> accuracy. `normalized_area` is the area under them.

    Raises:
        SAEError: all images are of one class: there is nothing to tell apart.
    """
    from sklearn.feature_selection import f_classif

    _images(acts, len(labels), "labels")
    one_of("ranked_on", ranked_on, ("training", "all"), error=SAEError)
    x, y = acts.float().cpu().numpy(), labels.long().cpu().numpy()
    if len(np.unique(y)) < 2:
        raise SAEError(f"probing takes images of at least two classes, got {len(y)} images of {len(np.unique(y))}")
    rows, held_out = _split(y, test, seed)
    fitted = rows if ranked_on == "training" else np.arange(len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of latents that never vary
        statistic, _ = f_classif(x[fitted], y[fitted])
    order = np.argsort(np.nan_to_num(statistic, nan=-np.inf))[::-1]
    return {
        size: _accuracy(x[rows][:, order[:size]], y[rows], [(x[held_out][:, order[:size]], y[held_out])], 500)[0]
        for size in sorted(sizes)
        if size <= x.shape[1]
    }


def normalized_area(accuracies: dict[int, float]) -> float:
    """Area under accuracies by the number of latents (trapezoids), from 0 to 1."""
    sizes = sorted(accuracies)
    values = [accuracies[size] for size in sizes]
    return float(np.trapezoid(values, x=sizes) / (sizes[-1] - sizes[0])) if len(sizes) > 1 else values[0]


def kept_classes(acts: Tensor, again: Tensor, labels: Tensor, *, test: float = 0.2, seed: int = 42) -> float:
    """Accuracy of a probe of the activations on their reconstructions, as a share of that on themselves.

    Args:
        acts: `(N, d)` activations of the images, their mean over positions; again: the same of reconstructions.
        labels: `(N,)`; test: share of the images held out; seed: of the split.
    """
    _images(acts, len(labels), "labels")
    x, y = acts.float().cpu().numpy(), labels.long().cpu().numpy()
    if len(np.unique(y)) < 2:
        raise SAEError(f"probing takes images of at least two classes, got {len(y)} images of {len(np.unique(y))}")
    rows, held_out = _split(y, test, seed)
    tried = [(x[held_out], y[held_out]), (again.float().cpu().numpy()[held_out], y[held_out])]
    before, after = _accuracy(x[rows], y[rows], tried, 1000)
    return after / before if before else 0.0


def absorption_rate(
    acts: Tensor, labels: Tensor, groups: Mapping[str, Sequence[int]], *, top: int = 10, gap: float = 0.1
) -> float:
    """Share of the classes in groups of similar classes that count as absorbed, by ViSAEBench's two signs.

    A class is absorbed when four latents tell it from its siblings better than one by an F1 of more than `gap`, or when
    the `top` latents of its mean activation and those of its group overlap by more than half. Both are met without any
    absorption: the first by every class that takes two latents, measured on the images that the probes are fitted on.
    `sae.evaluation.trust.planted` measures what the name says, where it can be known.

    Args:
        acts: `(N, m)`; labels: `(N,)` class of each image.
        groups: name -> classes that are similar, three at least.

    Returns:
        NaN where no group has ten images, or no class three of them, and three others; and where there are no more than
        `top` latents, of which all classes have the same ones (ViSAEBench gives 1 there).
    """
    from sklearn.feature_selection import f_classif
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    _images(acts, len(labels), "labels")
    x, y = acts.float().cpu().numpy(), labels.long().cpu().numpy()
    absorbed = []
    for classes in groups.values() if acts.shape[1] > top else ():
        own, of = x[np.isin(y, classes)], y[np.isin(y, classes)]
        if len(classes) < 3 or len(own) < 10:
            continue
        common = set(np.argsort(own.mean(axis=0))[-top:])
        for number in classes:
            truth = (of == number).astype(np.int64)
            if min(truth.sum(), (1 - truth).sum()) < 3:
                continue
            mine = set(np.argsort(own[truth == 1].mean(axis=0))[-top:])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of latents that never vary
                order = np.argsort(np.nan_to_num(f_classif(own, truth)[0], nan=-np.inf))[::-1]
                scores = []
                for size in (1, 4):
                    some = own[:, order[:size]]
                    fit = LogisticRegression(max_iter=500, C=1.0).fit(some, truth)
                    scores.append(f1_score(truth, fit.predict(some), zero_division=0.0))
            absorbed.append(scores[1] - scores[0] > gap or len(mine & common) / len(mine | common) > 0.5)
    return float(np.mean(absorbed)) if absorbed else float("nan")


def cross_domain(
    acts: Tensor, others: Tensor, labels: Tensor, unexplained: float, *, seed: int = 42
) -> dict[str, float]:
    """How a dictionary does on images of another kind than it was trained on.

    Args:
        acts: `(N, m)` latents of images like those of the training; others: `(n, m)` of the other images.
        labels: `(n,)` class of each of the others.
        unexplained: FVU of the dictionary there. (ViSAEBench's has the variance about one mean of all numbers.)
        seed: of the images that a probe of ten latents is tested on.

    Returns:
        "reconstruction": 1 - FVU, from 0 to 1. "coverage": share of the latents active on the first images that are
        active on some other, too. "overlap": those active on both, as a share of those active on either. "probing":
        held-out accuracy of ten latents. "mean": of the four.
    """
    first, second = (rows.max(dim=0).values > 0 for rows in (acts, others))
    both, either = int((first & second).sum()), int((first | second).sum())
    values = {
        "reconstruction": min(1.0, max(0.0, 1 - unexplained)),
        "coverage": both / int(first.sum()) if bool(first.any()) else 1.0,
        "overlap": both / either if either else 0.0,
        "probing": sparse_probing(others, labels, (min(10, others.shape[1]),), seed=seed)[min(10, others.shape[1])],
    }
    return {**values, "mean": sum(values.values()) / len(values)}


def _split(y: np.ndarray, test: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    counts = np.unique(y, return_counts=True)[1]
    enough = counts.min() >= 2 and len(counts) <= test * len(y)  # or scikit-learn refuses
    stratify = y if enough else None
    rows, held_out = train_test_split(np.arange(len(y)), test_size=test, stratify=stratify, random_state=seed)
    return rows, held_out


def _accuracy(
    x: np.ndarray, y: np.ndarray, tried: Sequence[tuple[np.ndarray, np.ndarray]], iterations: int
) -> list[float]:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that stops at its last iteration
        fit = LogisticRegression(max_iter=iterations, C=1.0).fit(x, y)
    return [float(fit.score(*pair)) for pair in tried]


def _images(acts: Tensor, count: int, what: str) -> None:
    if acts.ndim != 2 or len(acts) != count:
        raise SAEError(f"activations of latents on images are (N, m); got {tuple(acts.shape)}, and {count} {what}")
