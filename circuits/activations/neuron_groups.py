"""Neuron groups: the activations on an image as a sum of a few groups, each a map over the image times a direction.

Non-negative matrix factorization puts channels that are active together into one group, so that the activations of a
layer on an image are summarized by a few maps (Olah et al., *The Building Blocks of Interpretability*, Distill 2018).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.activations.direction_icons import direction_icons
from circuits.activations.layout import shuffled_channels
from circuits.attribution.class_scores import ClassScores, chosen_classes, class_name
from circuits.common.provenance import provenance
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.basis import Directions
from circuits.network.hooks import capture
from circuits.network.model import Model
from circuits.visualization.result import Visualization
from zoo.common.results import Result, remembers
from zoo.images.sources import open_images
from zoo.progress import Progress

_MOST_STEPS = 1000


@dataclass(frozen=True, eq=False)
class Groups(Result):
    """A layer's activations on images as a sum of groups; see `neuron_groups`.

    `maps` times `directions`, summed over groups, approximates the activations.

    Attributes:
        layer: address of the layer.
        ids: names of the images.
        maps: `(k, N, h, w)` strength of each group at each position of each image, at least 0.
        directions: `(k, C)` of each group, at least 0, of length one.
        explained: share of the activations' variance about zero that the groups explain, in [0, 1].
        shuffled: the same of as many groups for activations whose channels were each shuffled over positions: the
            control, in which no channels are active together.
        classes: addresses of class scores; names: of these classes.
        pushes: `(k, N, classes)` what each group adds to each class score, to first order: gradient times the group's
            part of the activations, summed over positions and channels.
        total: `(N, classes)` the same of the whole activations.
        scores: `(N, classes)` the class scores themselves.
        icons: visualization of each group's direction; empty with steps=0.
        provenance: weights, images, seed, versions.
    """

    layer: str
    ids: tuple[str, ...]
    maps: Tensor
    directions: Tensor
    explained: float
    shuffled: float
    classes: tuple[str, ...]
    names: tuple[str, ...]
    pushes: Tensor
    total: Tensor
    scores: Tensor
    icons: tuple[Visualization, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rest(self) -> Tensor:
        """What the groups leave out of each class score's total, `(N, classes)`: groups + rest = total."""
        return self.total - self.pushes.sum(0)

    def basis(self) -> Directions:
        """The groups' directions as a basis to attach: `layer~name:i` is then group `i`, a unit like any other."""
        return Directions(self.directions)

    def units(self, n: int = 5) -> list[list[tuple[str, float]]]:
        """The channels that count most in each group's direction: `[[(address, weight)]]`."""
        ranked = self.directions.argsort(dim=1, descending=True, stable=True)[:, :n].tolist()
        return [
            [(f"{self.layer}:{c}", float(self.directions[g, c])) for c in row if self.directions[g, c] > 0]
            for g, row in enumerate(ranked)
        ]

    def describe(self) -> dict[str, Any]:
        """Everything but maps and pixels, ready for JSON; pushes are means over images."""
        pushes, total = self.pushes.mean(1), self.total.mean(0)
        return {
            "layer": self.layer,
            "pictures": list(self.ids),
            "explained": self.explained,
            "shuffled": self.shuffled,
            "groups": [
                {
                    "group": g,
                    "units": [{"unit": u, "weight": w} for u, w in units],
                    "pushes": [
                        {"unit": c, "class": n, "push": float(pushes[g, k])}
                        for k, (c, n) in enumerate(zip(self.classes, self.names, strict=True))
                    ],
                }
                for g, units in enumerate(self.units())
            ],
            "classes": [
                {
                    "unit": c,
                    "class": n,
                    "score": float(self.scores[:, k].mean()),
                    "total": float(total[k]),
                    "rest": float(self.rest[:, k].mean()),
                }
                for k, (c, n) in enumerate(zip(self.classes, self.names, strict=True))
            ],
            "provenance": dict(self.provenance),
        }


@remembers("model", "images")
def neuron_groups(
    model: Model,
    layer: str,
    images: Any,
    *,
    k: int = 6,
    classes: Sequence[int | str] | int = 3,
    steps: int = 0,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
    **options: Any,
) -> Groups:
    """The activations of a layer on one image, or several, as `k` groups of channels that are active together.

    Non-negative matrix factorization (scikit-learn's, from a deterministic start) of the table of positions by
    channels. Groups are in the order of their squared norm, the largest first.

    Args:
        model: the model.
        layer: a whole layer whose activations are nowhere below zero.
        images: images in any form that `capture` takes.
        k: how many groups.
        classes: class scores to attribute to the groups: class indices or names, or how many of those with the
            largest mean scores; 0 for none.
        steps: of the optimization of icons; 0 for none.
        seed: of icons, and of the shuffled control.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total) in steps of the icons.
        **options: of `circuits.activations.direction_icons.direction_icons`.

    Raises:
        AddressError: an unknown layer. CircuitsError: negative or zero activations, more groups than there are
        positions or channels, an unknown class.

    >>> neuron_groups(load("scenes"), "mixed3b", "scenes:2", k=3).maps.shape
    torch.Size([3, 2, 16, 16])
    """
    site = model.layer(layer)
    source = open_images(images)
    acts = capture(model, source, [site.name], batch_size=batch_size)[site.name].float().cpu()
    n, c, h, w = acts.shape
    table = acts.movedim(1, -1).reshape(-1, c).numpy()
    _check(site.name, table, k)
    strengths, directions, explained = factors(table, k)
    shuffled = shuffled_channels(table, np.random.default_rng(seed))
    maps = torch.from_numpy(strengths).T.reshape(k, n, h, w)
    units = torch.from_numpy(directions)
    chosen = chosen_classes(model, classes, source, batch_size=batch_size)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    if chosen:
        class_scores = ClassScores(model, site.name, chosen)
        for indices, batch in source.batches(model.input, batch_size=batch_size):
            activations, context = class_scores.begin(batch)
            scores, gradient = class_scores.gradients(activations, context)
            gradient, activations = gradient.float().cpu(), activations.float().cpu()
            along = torch.einsum("knchw,gc->gknhw", gradient, units)
            pushes = (along * maps[:, indices][:, None]).sum(dim=(3, 4)).transpose(1, 2)
            parts.append((pushes, (gradient * activations).sum(dim=(2, 3, 4)).T, scores.float().cpu()))
    parts = parts or [(torch.zeros(k, n, 0), torch.zeros(n, 0), torch.zeros(n, 0))]
    icons: list[Visualization] = []
    if steps:
        icons = direction_icons(model, site.name, units, steps=steps, seed=seed, progress=progress, **options)
    return Groups(
        layer=f"{model.name}/{site.name}",
        ids=tuple(source.ids),
        maps=maps.contiguous(),
        directions=units,
        explained=explained,
        shuffled=factors(shuffled, k)[2],
        classes=tuple(str(model.unit(Unit(model.logits, i))) for i in chosen),
        names=tuple(class_name(model, i) for i in chosen),
        pushes=torch.cat([p[0] for p in parts], dim=1),
        total=torch.cat([p[1] for p in parts]),
        scores=torch.cat([p[2] for p in parts]),
        icons=tuple(icons),
        provenance=provenance(
            weights=model.digest, images=source.name, images_digest=source.digest, seed=seed, groups=k
        ),
    )


def factors(table: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """`(n, C)` as `strengths (n, k)` times `directions (k, C)` of length one, and the share of squares explained."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    # nndsvda: a start without zeros from the singular vectors, whose randomized solver has a fixed seed
    solver = NMF(n_components=k, init="nndsvda", max_iter=_MOST_STEPS, tol=1e-5, random_state=0)
    with warnings.catch_warnings():
        # at the tolerance of float32 the last digits may go on moving; the explained share is measured, not assumed
        warnings.simplefilter("ignore", ConvergenceWarning)
        strengths = solver.fit_transform(table.astype(np.float64))
    directions = solver.components_
    residual = float(np.square(table - strengths @ directions).sum() / np.square(table, dtype=np.float64).sum())
    lengths = np.linalg.norm(directions, axis=1)
    strengths = strengths * lengths
    directions = directions / np.maximum(lengths, 1e-30)[:, None]
    order = np.argsort(-np.square(strengths).sum(axis=0), kind="stable")
    return strengths[:, order].astype(np.float32), directions[order].astype(np.float32), 1.0 - residual


def _check(layer: str, table: NDArray[np.float32], k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= min(table.shape):
        raise CircuitsError(
            f"{table.shape[0]} positions of {layer} with {table.shape[1]} channels make 1 to {min(table.shape)} "
            f"groups, not {k!r}"
        )
    if float(table.min()) < 0:
        raise CircuitsError(f"{layer} goes below zero; groups need activations after a ReLU: give the layer after it")
    if not np.isfinite(table).all() or not table.any():
        raise CircuitsError(f"{layer} is all zero on these images, or not finite")
