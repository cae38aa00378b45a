"""Class scores as functions of a layer's activations: their gradients, and which classes to ask about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from circuits.errors import CircuitsError, did_you_mean, shorten
from circuits.network.address import Unit
from circuits.network.hooks import capture, frozen, read
from circuits.network.model import Model
from circuits.network.subnetwork import LayerEdits, Segment
from zoo.images.sources import Images
from zoo.progress import Progress


class ClassScores:
    """The rest of a network, from a whole layer to the class scores, to be differentiated.

    Raises:
        CircuitsError: a branch, which is a part of a layer. ModelError: the model has no class scores.
    """

    def __init__(self, model: Model, layer: str, indices: Sequence[int] | None = None) -> None:
        base = model.layer(layer)
        if base.part is not None:
            raise CircuitsError(f"take the whole layer {base.part[0]}; {base.name} is channels of it")
        self.model, self.layer = model, base
        logits = model.layer("logits")
        chosen = range(logits.channels) if indices is None else indices
        self._segment = Segment(model, base.name, [model.unit(Unit(logits.name, i)) for i in chosen])

    def begin(self, batch: Tensor) -> tuple[Tensor, Any]:
        """Activations `(n, C, h, w)` of the layer, and what `scores` needs besides."""
        with torch.no_grad():
            return self._segment.begin(batch)

    def scores(self, acts: Tensor, context: Any, edits: LayerEdits | None = None) -> Tensor:
        """Class scores `(n, K)` when the layer holds `acts`; `edits` are of layers on the way."""
        return self._segment.respond(acts, context, edits).flatten(2).mean(2)

    def gradients(self, acts: Tensor, context: Any) -> tuple[Tensor, Tensor]:
        """Class scores `(n, K)` and their gradients `(K, n, C, h, w)`."""
        with frozen(self.model.module), torch.enable_grad():
            leaf = acts.detach().clone().requires_grad_(True)
            scores = self.scores(leaf, context)
            each = [torch.autograd.grad(scores[:, k].sum(), leaf, retain_graph=True)[0] for k in range(scores.shape[1])]
        return scores.detach(), torch.stack(each)

    def pushes(
        self, acts: Tensor, context: Any, directions: Tensor, report: Callable[[int, int], None] | None = None
    ) -> Tensor:
        """Directional derivatives of every class score `(n, K)` along some directions `(n, C)`.

        A direction is added at every position with the mean length of the activation vectors; the result is the mean
        over images. One Jacobian-vector product gives it for all classes, and the
        images are the same for all directions, so that differences come from the directions alone.
        """
        length = acts.norm(dim=1).mean()
        units = F.normalize(directions.to(acts), dim=1) * length
        changes = []
        with frozen(self.model.module), torch.enable_grad():
            for i, direction in enumerate(units):
                along = direction[None, :, None, None].expand_as(acts).contiguous()
                _, change = torch.autograd.functional.jvp(  # type: ignore[no-untyped-call]
                    lambda a: self.scores(a, context), acts.detach(), along
                )
                changes.append(change.detach().float().mean(0).cpu())
                if report is not None:
                    report(i + 1, len(units))
        return torch.stack(changes)


def scores_of(model: Model, images: Images, *, batch_size: int = 32, progress: Progress = None) -> Tensor:
    """Class scores `(n, classes)` on images, active edits included; of class maps the mean over positions.

    Raises:
        CircuitsError: scores that are not finite, of which none is the highest. ModelError: no class scores.
    """
    scores = capture(model, images, at="logits", batch_size=batch_size, progress=progress)["logits"]
    scores = scores.flatten(2).mean(dim=2)
    if lost := int((~scores.isfinite()).any(dim=1).sum()):
        raise CircuitsError(
            f"{model.name} gives class scores that are NaN or infinite on {lost} of {len(scores)} images of "
            f"{images.name}: its weights or activations are so, too, or overflow {model.dtype}"
        )
    return scores


def answers_of(model: Model, images: Images, *, batch_size: int = 32, progress: Progress = None) -> NDArray[np.int64]:
    """The class of the highest score of each image, `(n,)`; see `scores_of`."""
    answers: NDArray[np.int64] = (
        scores_of(model, images, batch_size=batch_size, progress=progress).argmax(1).cpu().numpy()
    )
    return answers


def check_classes(model: Model) -> None:
    """Refuse a network of one class score, whose highest score is always the same.

    Raises:
        CircuitsError: it has one.
    """
    if model.layer("logits").channels < 2:
        raise CircuitsError(
            f"{model.name} has one class score ({model.logits}): right answers are of two classes or more"
        )


def class_names(model: Model) -> tuple[str, ...]:
    """Names of the classes, those of the class scores' addresses where they have none; none twice.

    Two classes of one name (ImageNet has two cranes) have their numbers behind it: tables are kept by name.
    """
    names = [class_name(model, i) for i in range(model.layer("logits").channels)]
    count = Counter(names)
    return tuple(name if count[name] == 1 else f"{name} ({i})" for i, name in enumerate(names))


def chosen_classes(
    model: Model, classes: Sequence[int | str] | int, dataset: Images, *, batch_size: int = 32
) -> list[int]:
    """Indices of classes: those named or numbered, or so many with the largest mean score on images.

    Raises:
        CircuitsError: no class has that name or number. ModelError: the model has no class scores.
    """
    if isinstance(classes, bool) or (isinstance(classes, int) and classes < 0):
        raise CircuitsError(f"classes is a number of classes from 0, or a list of them, not {classes!r}")
    if classes == 0 or (not isinstance(classes, int) and len(classes) == 0):
        return []
    logits = model.layer("logits")
    if isinstance(classes, int):
        total = torch.zeros(logits.channels, dtype=torch.float64)
        with torch.no_grad():
            for _, batch in dataset.batches(model.input, batch_size=batch_size):
                total += read(model, batch, [logits])[logits.name].flatten(2).mean(2).sum(0).double().cpu()
        order: list[int] = total.argsort(descending=True, stable=True)[:classes].tolist()
        return order
    return [class_index(model, label) for label in classes]


def class_index(model: Model, label: int | str) -> int:
    """The index of a class by its name, in any case, or its number.

    Raises:
        CircuitsError: no class, or more than one, has that name or number. ModelError: the model has no class scores.
    """
    count = model.layer("logits").channels
    if isinstance(label, int) and not isinstance(label, bool) or (isinstance(label, str) and label.isdigit()):
        if not 0 <= int(label) < count:
            raise CircuitsError(f"{model.name} has classes 0 to {count - 1}; got {label}")
        return int(label)
    wanted = label.casefold() if isinstance(label, str) else None
    named = [i for i, name in enumerate(model.classes) if name.casefold() == wanted]
    if len(named) > 1:  # ImageNet has a crane that flies and one that lifts
        numbers = " and ".join(map(str, named))
        raise CircuitsError(
            f"{model.name} has classes {numbers} named {shorten(label)!r}: give the number ({model.logits}:{named[0]})"
        )
    if named:
        return named[0]
    hint = did_you_mean(str(label), model.classes) if model.classes else " It does not name its classes: give a number."
    raise CircuitsError(f"{model.name} has no class {shorten(label)!r}.{hint}")


def class_of(model: Model, address: str | Unit) -> str | None:
    """The name of the class whose score a unit is; None of any other unit, and where no classes are named."""
    try:
        unit = model.resolve(address)
    except CircuitsError:
        return None  # the name of an objective, the difference of two scores
    if unit.layer != model.class_scores or unit.basis is not None or unit.index is None:
        return None
    return model.classes[unit.index] if unit.index < len(model.classes) else None


def class_name(model: Model, index: int) -> str:
    """The name of a class; where the model names none, the address of its score."""
    return model.classes[index] if index < len(model.classes) else f"{model.logits}:{index}"
