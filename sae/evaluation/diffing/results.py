"""Results of model diffing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from circuits.common.examples import Example
from sae.errors import SAEError
from zoo.common.results import HIDDEN, Result

Kind = Literal["shared", "between", "only first", "only second", "not confirmed", "dead"]


@dataclass(frozen=True)
class DiffLatent(Result):
    """A latent of a crosscoder of two networks, on images that it was not trained on.

    Attributes:
        latent: its number.
        kind: "only first" or "only second" where its row is in one network alone and every check confirms it; "not
            confirmed" where the row is and a check does not; "shared" with a share between .3 and .7; "between"; "dead"
            where it is active too rarely to be measured.
        share: of its row's length, in the first network.
        shrinkage, decoupling, twin, twin_correlation: see `LatentScaling`; decoupling only where both networks have one
            basis.
        density: share of positions where it is active; size: root mean square of what it writes, normalized.
        label: the class whose images activate it most on average; auc: how well it tells that class from the others.
        precision: share of its top images that are of that class. All None without classes.
        examples: its top images.
    """

    latent: int
    kind: Kind
    share: float
    shrinkage: float
    decoupling: float | None
    twin: int
    twin_correlation: float
    density: float
    size: float
    label: str | None
    auc: float | None
    precision: float | None
    examples: tuple[Example, ...] = field(default=(), metadata=HIDDEN)


@dataclass(frozen=True)
class ClassEffect(Result):
    """What ablating the latents of one network alone does to one of its classes.

    Attributes:
        network: address of the layer; label: the class; images: held-out images of it.
        latents: how many are ablated, at every position.
        accuracy: of the network as it is; ablated: without the latents.
        control, control_low, control_high: mean, least and largest accuracy without as many shared latents of the same
            size and density, over several draws; None where there are too few shared latents.
        logit_drop: by how much the class's score falls; control_logit_drop: mean over the draws.
    """

    network: str
    label: str
    images: int
    latents: int
    accuracy: float
    ablated: float
    control: float | None
    control_low: float | None
    control_high: float | None
    logit_drop: float
    control_logit_drop: float | None

    @property
    def excess(self) -> float:
        """Accuracy without the latents, less that without the control ones (or, with none, that of the network)."""
        return self.ablated - (self.accuracy if self.control is None else self.control)


@dataclass(frozen=True)
class DiffCounts(Result):
    """How many latents of a crosscoder are of which kind.

    Attributes:
        comparison: of what.
        shared, between, only_first, only_second, not_confirmed, dead: latents of each kind.
        by_length_alone: latents whose row is in one network alone, before any check.
        fvu_first, fvu_second: unexplained share of the variance of each network on held-out images.
        cosine: median cosine of the two rows of shared latents; near 1 where both networks have one basis.
    """

    comparison: str
    shared: int
    between: int
    only_first: int
    only_second: int
    not_confirmed: int
    dead: int
    by_length_alone: int
    fvu_first: float
    fvu_second: float
    cosine: float | None

    @property
    def exclusive(self) -> int:
        """Latents of one network alone."""
        return self.only_first + self.only_second


@dataclass(frozen=True, eq=False)
class ModelDiff(Result):
    """What two networks share at a layer and what only one of them has.

    Attributes:
        first, second: addresses of the layers.
        counts: of the latents of the two networks.
        controls: the same of controls: the first network with itself, and with another seed of it where one was given.
        latents: all of them, those of one network alone first, by size.
        effects: of ablating the latents of one network alone, by class, strongest first; empty without classes.
        aligned: whether both networks have one basis, so that decoupling was checked, too.
        images, held_out: how many the crosscoder was trained on, and judged on.
    """

    first: str
    second: str
    counts: DiffCounts
    controls: tuple[DiffCounts, ...]
    latents: tuple[DiffLatent, ...] = field(metadata=HIDDEN)
    effects: tuple[ClassEffect, ...]
    aligned: bool
    images: int
    held_out: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: a latent each."""
        return [latent.scalars() for latent in self.latents]

    def of(self, kind: str) -> tuple[DiffLatent, ...]:
        """Latents of a kind.

        Raises:
            SAEError: there is no such kind.
        """
        kinds = ("shared", "between", "only first", "only second", "not confirmed", "dead")
        if kind not in kinds:
            raise SAEError(f"no kind {kind!r} of latents; there are {', '.join(kinds)}")
        return tuple(latent for latent in self.latents if latent.kind == kind)

    def describe(self) -> dict[str, Any]:
        """As JSON; of the latents those that are not shared."""
        some = [latent.describe() for latent in self.latents if latent.kind not in ("shared", "between", "dead")]
        return super().describe() | {"latents": some}
