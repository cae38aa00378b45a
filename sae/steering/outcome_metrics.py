"""Outcomes of a network: names of its classes or tokens, and the metric of its capability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sae.data.site import Site
from sae.errors import SAEError, shorten


class _Tally(Protocol):
    def result(self) -> Any: ...


class CapabilityMetric:
    """The metric of capability on some inputs.

    Args:
        name: "top1", "loss", "agreement", or None: the loss of texts, top-1 accuracy of images.
        site: of the network; inputs: on which it is measured.

    Raises:
        SAEError: the inputs have no labels, or those of other classes.
    """

    def __init__(self, name: str | None, site: Site, inputs: Any) -> None:
        text = "token" in site.axes
        self.name = name or ("loss" if text else "top1")
        if self.name not in ("top1", "loss", "agreement"):
            raise SAEError(f"capability {shorten(self.name)!r}: use 'top1', 'loss' or 'agreement'")
        self._labeled = self.name != "agreement"
        if text or not self._labeled:
            return
        labels, classes = getattr(inputs, "labels", None), getattr(inputs, "classes", None)
        own = getattr(getattr(site, "model", None), "classes", None)
        hint = "measure capability on labeled held_out= images, or by capability='agreement'"
        if labels is None or all(label < 0 for label in labels):
            raise SAEError(f"these images have no labels: {hint}")
        if classes is not None and own and list(classes) != list(own):
            raise SAEError(f"the labels of these images are of other classes than the network's: {hint}")

    def labels(self, labels: Tensor | None) -> Tensor | None:
        """The labels, if this metric uses them."""
        return labels if self._labeled else None

    def values(self, tallies: Sequence[_Tally]) -> NDArray[np.float64]:
        """Capability `(variants,)`, from the predictions of each variant."""
        return np.array([getattr(tally.result(), self.name) for tally in tallies], dtype=np.float64)


def outcome_names(site: Site, count: int) -> list[str]:
    """Names of all outcomes: classes, or tokens."""
    model, lm = getattr(site, "model", None), getattr(site, "lm", None)
    if model is not None:
        from circuits.attribution.class_scores import class_name

        return [class_name(model, i) for i in range(count)]
    if lm is not None:
        names: list[str] = lm.words(list(range(min(count, len(lm.tokenizer)))))
        return names + [str(i) for i in range(len(names), count)]  # the head may have more rows than there are tokens
    return [str(i) for i in range(count)]


def outcome_indices(site: Site, targets: Sequence[str | int], inputs: Any) -> list[int]:
    """Indices of classes or tokens given by name or number, ascending.

    Raises:
        SAEError, CircuitsError: there is no such class, or a text that is not one token.
    """
    if isinstance(targets, str) or not len(targets):
        raise SAEError(f"targets are a list of classes or tokens, with at least one; got {shorten(targets)!r}")
    model, lm = getattr(site, "model", None), getattr(site, "lm", None)
    if model is not None:
        from circuits.attribution.class_scores import chosen_classes

        return sorted(set(chosen_classes(model, list(targets), inputs)))
    return sorted({_token(lm, target) for target in targets})


def _token(lm: Any, target: str | int) -> int:
    if isinstance(target, int) and not isinstance(target, bool):
        if target < 0 or (lm is not None and target >= lm.config.vocab_size):
            raise SAEError(f"there is no outcome {target}")
        return target
    if lm is None:
        raise SAEError(f"the outcomes here have numbers, not names like {shorten(target)!r}")
    ids: list[int] = lm.ids(str(target))
    if len(ids) != 1:
        raise SAEError(
            f"{shorten(target)!r} is {len(ids)} tokens of {lm.name}; a target is one (mind the space before)"
        )
    return ids[0]
