"""Decompositions that are older than SAEs, as dictionaries at equal L0: scikit-learn's, and the channels themselves.

A component without a sign is two latents, one for each side of the mean, since a latent is zero or above.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sae.checks import check_activations, whole
from sae.errors import SAEError
from sae.evaluation.baselines import DirectionDictionary
from sae.seeding import CONTROL, generator
from zoo.common.checks import one_of

DECOMPOSITIONS = ("channels", "pca", "ica", "nmf", "k-means")
MOST_FITTED = 20_000
"""Vectors that a decomposition is fitted on, at most, sampled at random."""


def decompose(acts: Tensor, kind: str, *, k: int, latents: int, seed: int = 0) -> DirectionDictionary:
    """A dictionary that is not an SAE, fitted on activations.

    Args:
        acts: `(N, d)` raw activations.
        kind: "channels": both sides of every channel; "pca": of every principal component; "ica": of every independent
            component (FastICA); "nmf": nonnegative components, at most d, without a mean; "k-means": the directions
            from the mean to `latents` centers.
        k: active latents per input.
        latents: size of the dictionary where the kind has a free size.
        seed: of the sample that is fitted, and of the fit.

    Raises:
        SAEError: unknown kind, activations that cannot be used, or negative ones for "nmf".

    >>> decompose(torch.randn(200, 4), "pca", k=2, latents=8).latents
    8
    """
    one_of("kind", kind, DECOMPOSITIONS, error=SAEError)
    whole("k", k)
    whole("latents", latents)
    acts = check_activations(acts).float()
    dictionary = _fitted(acts, kind, k, latents, seed)
    dictionary.encode(acts[:: max(1, len(acts) // 4096)])  # its gain is fitted on the first vectors
    return dictionary


def _fitted(acts: Tensor, kind: str, k: int, latents: int, seed: int) -> DirectionDictionary:
    mean = acts.mean(dim=0)
    if kind == "channels":
        return _signed(mean, torch.eye(acts.shape[1]), k, name=kind)
    order = torch.randperm(len(acts), generator=generator(seed, CONTROL))[:MOST_FITTED]
    x = acts[order].double().numpy()
    with warnings.catch_warnings():  # a fit that stops at its last iteration is a control all the same
        warnings.simplefilter("ignore")
        if kind == "pca":
            from sklearn.decomposition import PCA

            return _signed(mean, _tensor(PCA(random_state=seed).fit(x).components_), k, name=kind)
        if kind == "ica":
            from sklearn.decomposition import FastICA

            # channels that never vary have no variance to be whitened: only the directions that do
            rank = int(np.linalg.matrix_rank(x - x.mean(axis=0), tol=1e-3 * x.std() * len(x) ** 0.5))
            fit = FastICA(rank, whiten="unit-variance", random_state=seed, max_iter=200, tol=1e-3).fit(x)
            return _signed(mean, _tensor(fit.mixing_.T), k, read=_tensor(fit.components_), name=kind)
        if kind == "nmf":
            return _nonnegative(acts, x, k, latents, seed)
        from sklearn.cluster import MiniBatchKMeans

        fit = MiniBatchKMeans(min(latents, len(x)), random_state=seed, n_init=1, batch_size=4096).fit(x)
        return DirectionDictionary(mean, _unit(_tensor(fit.cluster_centers_) - mean), k, name=kind)


def _nonnegative(acts: Tensor, x: np.ndarray, k: int, latents: int, seed: int) -> DirectionDictionary:
    from sklearn.decomposition import MiniBatchNMF

    if float(acts.min()) < 0:
        raise SAEError("nmf takes activations that are zero or above, as after a ReLU")
    size = min(latents, acts.shape[1])
    fit = MiniBatchNMF(size, random_state=seed, init="nndsvda", max_iter=100, batch_size=4096).fit(x)
    components = _tensor(fit.components_)
    return DirectionDictionary(torch.zeros(acts.shape[1]), _unit(components), k, name="nmf")


def _signed(mean: Tensor, rows: Tensor, k: int, *, read: Tensor | None = None, name: str) -> DirectionDictionary:
    """Both sides of every component, written with length one, so that the largest latents reconstruct the most."""
    lengths = rows.norm(dim=1, keepdim=True)
    write = rows / lengths
    read = write if read is None else read * lengths
    return DirectionDictionary(mean, torch.cat([write, -write]), k, read=torch.cat([read, -read]), name=name)


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows[rows.norm(dim=1) > 0])


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
