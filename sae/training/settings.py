"""Settings of a training, and the form in which checkpoints and saved SAEs have them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from sae.architectures.base import SAEConfig
from sae.checks import whole
from sae.errors import SAEError, did_you_mean, shorten
from sae.training.input_normalization import Bias
from sae.training.schedule import Schedule
from zoo.common.checks import number, one_of

DEAD_AFTER = 10_000_000
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of a training, the same for all its SAEs.

    Attributes:
        steps: optimizer steps; or samples: vectors, of all processes (rounded up to whole batches).
        batch_size: vectors per step, of each process (default: 4,096 of a tensor, else the size of the stream's own
            batches).
        lr: peak learning rate (default: `2e-4 * sqrt(2^14 / latents)`); that of a configuration has precedence.
        warmup: steps over which the learning rate rises (default: a twentieth of all, at most 1,000).
        decay: share of the steps, at the end, over which it falls to zero.
        sparsity_warmup: steps over which a sparsity penalty rises (default: as `warmup`).
        clip: largest norm of an SAE's gradient, of the loss summed over dimensions.
        normalize: center inputs and scale them to unit variance; the SAE has both, as `mean` and `scale`.
        bias: initial decoder bias: "geometric_median" or "mean" of the inputs, or "zeros".
        statistics_samples: number of vectors from which mean and scale are computed.
        dead_after: a latent that is inactive for this many samples is dead (default: a fifth of all samples, at most
            ten million).
        resample_every: samples between restarts of dead latents where `revive="resample"` (default: `dead_after`).
        precision: "bfloat16" computes products in bfloat16; weights, thresholds and Adam stay float32.
        seed: of the order of a tensor's vectors; each configuration has the seed of its own initial directions.
        report_every: steps between reports, at which dead latents are counted as well.

    Raises:
        SAEError: a value out of its range.

    >>> TrainingSettings(steps=1000, lr=1e-3).resolved(batch_size=512).warmup
    50
    """

    steps: int | None = None
    samples: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    warmup: int | None = None
    decay: float = 0.2
    sparsity_warmup: int | None = None
    clip: float = 1.0
    normalize: bool = True
    bias: Bias = "geometric_median"
    statistics_samples: int = 65_536
    dead_after: int | None = None
    resample_every: int | None = None
    precision: Precision = "float32"
    seed: int = 0
    report_every: int = 50

    def __post_init__(self) -> None:
        for name in ("report_every", "statistics_samples", "dead_after", "resample_every", "steps", "samples"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole(name, getattr(self, name)))
        if self.lr is not None:
            number("lr", self.lr, above=0, error=SAEError)
        number("clip", self.clip, above=0, error=SAEError)
        one_of("precision", self.precision, get_args(Precision), error=SAEError)

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """The same settings with some changed, by name.

        Raises:
            SAEError: there is no such setting.
        """
        names = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in names:
                raise SAEError(
                    f"train has no setting {shorten(name)!r}.{did_you_mean(name, names)} There are {', '.join(names)}"
                )
        return dataclasses.replace(self, **changes)

    def resolved(self, batch_size: int) -> ResolvedSettings:
        """The settings with all defaults filled in.

        Args:
            batch_size: vectors per step, of all processes together.

        Raises:
            SAEError: neither steps nor samples, or both.
        """
        if (self.steps is None) == (self.samples is None):
            raise SAEError("say how long to train: steps= or samples=")
        steps = self.steps or math.ceil((self.samples or 0) / batch_size)
        warmup = min(1000, steps // 20) if self.warmup is None else self.warmup
        dead_after = self.dead_after or max(1, min(DEAD_AFTER, steps * batch_size // 5))
        defaults = {
            "steps": steps, "samples": None, "batch_size": batch_size, "warmup": warmup, "dead_after": dead_after,
            "sparsity_warmup": warmup if self.sparsity_warmup is None else self.sparsity_warmup,
            "resample_every": self.resample_every or dead_after,
        }  # fmt: skip
        return ResolvedSettings(**{**vars(self), **defaults})


@dataclass(frozen=True, kw_only=True)
class ResolvedSettings(TrainingSettings):
    """Settings without open defaults, as `TrainingSettings.resolved` gives them.

    Attributes:
        batch_size: vectors per step, of all processes together. For the rest see `TrainingSettings`.
    """

    steps: int
    batch_size: int
    warmup: int
    sparsity_warmup: int
    dead_after: int
    resample_every: int

    def __post_init__(self) -> None:
        super().__post_init__()
        Schedule(self.steps, self.warmup, self.decay, self.sparsity_warmup)  # checks them

    @property
    def schedule(self) -> Schedule:
        """The factors on learning rate and sparsity penalty over the steps."""
        return Schedule(self.steps, self.warmup, self.decay, self.sparsity_warmup)

    def stored(self, configs: Sequence[SAEConfig]) -> dict[str, Any]:
        """The settings as files have them, with the configurations of the SAEs; the keys are those of version 0.1."""
        keys = {
            "lr": "lr", "clip": "clip", "dead_after": "dead_after", "resample_every": "resample_every",
            "precision": "precision", "normalise": "normalize", "bias": "bias", "batch_size": "batch_size",
            "statistics_samples": "statistics_samples", "report_every": "report_every",
        }  # fmt: skip
        values = {key: getattr(self, name) for key, name in keys.items()}
        return {"schedule": dataclasses.asdict(self.schedule), **values, "configs": [c.to_dict() for c in configs]}


def flattened(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Settings by the path of their names, joined by dots; tuples and lists are the same, as in JSON."""
    if isinstance(settings, Mapping):
        pairs = [(f"{prefix}{k}", v) for k, v in settings.items()]
    elif isinstance(settings, (list, tuple)):
        pairs = [(f"{prefix}{i}", v) for i, v in enumerate(settings)]
    else:
        return {prefix: settings}
    out: dict[str, Any] = {}
    for name, value in pairs:
        nested = isinstance(value, (Mapping, list, tuple))
        out |= flattened(value, f"{name}.") if nested else {name: value}
    return out
