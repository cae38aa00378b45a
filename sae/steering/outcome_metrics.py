"""What a network predicts: names of classes and tokens, and by what its capability is measured."""

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


class Known:
    """By what capability is measured on some inputs.

    Args:
        what: "top1", "loss", "agreement", or None for the one that fits.
        site: of the network; inputs: that it is measured on.

    Raises:
        SAEError: the inputs have no labels, or those of other classes.
    """

    def __init__(self, what: str | None, site: Site, inputs: Any) -> None:
        text = "token" in site.axes
        self.what = what or ("loss" if text else "top1")
        if self.what not in ("top1", "loss", "agreement"):
            raise SAEError(f"capability {shorten(self.what)!r}: use 'top1', 'loss' or 'agreement'")
        self._labeled = self.what != "agreement"
        if text or not self._labeled:
            return
        labels, classes = getattr(inputs, "labels", None), getattr(inputs, "classes", None)
        own = getattr(getattr(site, "model", None), "classes", None)
        without = "measure capability on held_out= pictures that have, or by capability='agreement'"
        if labels is None or all(label < 0 for label in labels):
            raise SAEError(f"these pictures have no labels: {without}")
        if classes is not None and own and list(classes) != list(own):
            raise SAEError(f"the labels of these pictures are of other classes than the network's: {without}")

    def labels(self, right: Tensor | None) -> Tensor | None:
        """The right answers, where they count."""
        return right if self._labeled else None

    def values(self, tallies: Sequence[_Tally]) -> NDArray[np.float64]:
        """Capability of each way."""
        return np.array([getattr(one.result(), self.what) for one in tallies], dtype=np.float64)


def names_of(site: Site, count: int) -> list[str]:
    """Names of all that can be predicted: classes, or tokens."""
    model, lm = getattr(site, "model", None), getattr(site, "lm", None)
    if model is not None:
        from circuits.attribution.class_scores import class_name

        return [class_name(model, i) for i in range(count)]
    if lm is not None:
        words: list[str] = lm.words(list(range(min(count, len(lm.tokenizer)))))
        return words + [str(i) for i in range(len(words), count)]  # the head may have more rows than there are tokens
    return [str(i) for i in range(count)]


def indices_of(site: Site, wanted: Sequence[str | int], inputs: Any) -> list[int]:
    """Numbers of the classes or tokens that are named.

    Raises:
        SAEError, CircuitsError: there is no such class, or a text that is not one token.
    """
    if isinstance(wanted, str) or not len(wanted):
        raise SAEError(f"targets are a list of classes or tokens, with at least one; got {shorten(wanted)!r}")
    model, lm = getattr(site, "model", None), getattr(site, "lm", None)
    if model is not None:
        from circuits.attribution.class_scores import chosen_classes

        return sorted(set(chosen_classes(model, list(wanted), inputs)))
    return sorted({_token(lm, one) for one in wanted})


def _token(lm: Any, wanted: str | int) -> int:
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        if wanted < 0 or (lm is not None and wanted >= lm.config.vocab_size):
            raise SAEError(f"there is no outcome {wanted}")
        return wanted
    if lm is None:
        raise SAEError(f"the outcomes here have numbers, not names like {shorten(wanted)!r}")
    ids: list[int] = lm.ids(str(wanted))
    if len(ids) != 1:
        raise SAEError(
            f"{shorten(wanted)!r} is {len(ids)} tokens of {lm.name}; a target is one (mind the space before)"
        )
    return ids[0]
