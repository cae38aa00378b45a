"""What a unit is set to when it is taken out of a network: its mean, another image's activations, or zero.

A baseline is an object, so that a ranking, an edit and a score can use the same: `circuits.baselines.Mean()`. It is
named in every result. After "mean" a unit keeps its usual size, and no longer tells images apart; after
"counterfactual" it is as in another image, chosen so that the pair differs in what is asked about; after "resample" it
is as in some other image; after "zero" it is off, which for many units is far from what they ever are.

The trap is a max pool after the unit: the pool of its mean is not the mean of its pool. A unit that is held at its
mean is therefore held at the mean of its pooled map after every max pool over its channels (`channel_pools`), and at
its own mean for all other readers. The other baselines are maps of some image, or zero: they are pooled as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from circuits.errors import CircuitsError, EditError
from circuits.network.interventions import Edit
from zoo.common.checks import one_of, whole_number
from zoo.images.sources import Images, open_images


@dataclass(frozen=True)
class Baseline(ABC):
    """Base of all baselines."""

    name: ClassVar[str]

    @abstractmethod
    def paired(self, images: Images) -> Images | None:
        """For each image the one whose activations stand in; None where the values do not depend on the image."""

    @abstractmethod
    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        """Values for `acts` `(N, c, ...)` in an edit, from the activations `reference` of the baseline's images."""


@dataclass(frozen=True)
class Zero(Baseline):
    """Off."""

    name: ClassVar[str] = "zero"

    def paired(self, images: Images) -> Images | None:
        return None

    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        return torch.zeros_like(acts)


@dataclass(frozen=True)
class Mean(Baseline):
    """The mean over images and positions.

    Attributes:
        per_position: a mean for each position instead: for images that are aligned, such as faces.
        images: to average over, in any form that `capture` takes; default those that are analyzed.
    """

    name: ClassVar[str] = "mean"
    per_position: bool = False
    images: Any = None

    def paired(self, images: Images) -> Images | None:
        return None

    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        if not self.per_position:
            mean = reference.mean(dim=(0, *range(2, reference.ndim)))
            return mean.view(1, -1, *[1] * (acts.ndim - 2)).expand_as(acts).to(acts)
        _check_size(acts, reference)
        return reference.mean(dim=0, keepdim=True).expand_as(acts).to(acts)


@dataclass(frozen=True)
class Counterfactual(Baseline):
    """The activations on another image, one for each: image i is paired with the i-th of these.

    Attributes:
        images: as many as are analyzed, and each of the size of its image, in any form that `capture` takes.
    """

    name: ClassVar[str] = "counterfactual"
    images: Any

    def paired(self, images: Images) -> Images:
        """Raises CircuitsError where there are not as many counterfactuals as images, or one is of another size."""
        other = open_images(self.images)
        if len(other) != len(images):
            raise CircuitsError(f"a counterfactual for each image: got {len(other)} for {len(images)} images")
        for i in range(len(images)):
            own, its = images.extent(i), other.extent(i)
            if own != its:  # each would be resized by itself, and the two no longer lie on one another
                raise CircuitsError(
                    f"image {i} is {'x'.join(map(str, own))} pixels and its counterfactual {'x'.join(map(str, its))}: "
                    "give pairs of one size, that differ in what is asked about alone"
                )
        return other

    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        _check_size(acts, reference)
        if len(reference) != len(acts):
            raise EditError(
                f"{len(reference)} counterfactuals for a batch of {len(acts)} images: run all images in one batch, as "
                f"batch_size={len(reference)}, so that each meets its own"
            )
        return reference.to(acts)


@dataclass(frozen=True)
class Resample(Baseline):
    """The activations on another image, sampled at random; the whole map comes from one image.

    Attributes:
        images: to sample from, in any form that `capture` takes; default those that are analyzed, where no image is
            given its own activations.
        seed: of the sample.
    """

    name: ClassVar[str] = "resample"
    images: Any = None
    seed: int = 0

    def paired(self, images: Images) -> Images:
        """Raises CircuitsError for a single image without others to sample from."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.images is not None:
            other = open_images(self.images)
            return other.subset(torch.randint(len(other), (len(images),), generator=generator).tolist())
        if len(images) < 2:
            raise CircuitsError("baseline 'resample' takes the activations of other images: give at least 2 images")
        # along one random cycle, so that none is paired with itself
        cycle = torch.randperm(len(images), generator=generator)
        follower = torch.empty_like(cycle)
        follower[cycle] = cycle.roll(-1)
        return images.subset(follower.tolist())

    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        _check_size(acts, reference)
        chosen = torch.randint(len(reference), (len(acts),), generator=torch.Generator().manual_seed(self.seed))
        return reference[chosen.to(reference.device)].to(acts)


def _check_size(acts: Tensor, reference: Tensor) -> None:
    if reference.shape[2:] != acts.shape[2:]:
        raise EditError(
            f"the baseline's maps are of size {tuple(reference.shape[2:])}, those of the images {tuple(acts.shape[2:])}"
        )


def check_pairs(images: Tensor, others: Tensor, names: Sequence[str]) -> None:
    """Raises CircuitsError where an image, one of `names`, is its own counterfactual."""
    same = (images == others).flatten(1).all(dim=1).nonzero().flatten().tolist()
    if same:
        raise CircuitsError(
            f"image {names[same[0]]} and its counterfactual are the same image: nothing is ablated there"
        )


NAMES = ("mean", "counterfactual", "resample", "zero")


def baseline_of(baseline: str | Baseline, against: Any = None, *, seed: int = 0) -> Baseline:
    """The baseline of a name, or of the counterfactual images `against`.

    Args:
        baseline: a baseline, or "mean", "resample", "zero" or (with `against`) "counterfactual".
        against: a counterfactual image for each image; the baseline is then these.
        seed: of "resample".

    Raises:
        CircuitsError: another name, or two baselines at once.
    """
    whole_number("seed", seed, least=0, most=2**63 - 1)
    if against is not None:
        if isinstance(baseline, Baseline) or baseline not in ("mean", "counterfactual"):
            raise CircuitsError(f"against= gives the baseline: leave out baseline={baseline!r}")
        return Counterfactual(against)
    if isinstance(baseline, Baseline):
        return baseline
    if baseline == "counterfactual":
        raise CircuitsError("baseline 'counterfactual' needs the counterfactual images: against=images")
    one_of("baseline", baseline, NAMES)
    return {"mean": Mean(), "resample": Resample(seed=seed), "zero": Zero()}[baseline]


@dataclass(frozen=True)
class Patch(Edit):
    """Set a unit to a baseline: `Patch("mixed3:4", baselines.Counterfactual(images))`.

    A baseline without images of its own takes those of `edit(..., reference=images)`.

    Attributes:
        baseline: what the unit is set to, or its name.
    """

    baseline: Baseline | str = "mean"

    def __post_init__(self) -> None:
        object.__setattr__(self, "baseline", baseline_of(self.baseline))

    @property
    def _own(self) -> Baseline:
        assert isinstance(self.baseline, Baseline)
        return self.baseline

    @property
    def needs_reference(self) -> bool:
        return not isinstance(self.baseline, Zero)

    @property
    def holds_mean(self) -> bool:
        return isinstance(self.baseline, Mean)

    @property
    def reference_images(self) -> Any:
        return getattr(self.baseline, "images", None)

    def value(self, acts: Tensor, reference: Tensor | None) -> Tensor:
        return self._own.value(acts, reference)
