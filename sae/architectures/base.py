"""What every sparse autoencoder (SAE) here is: the contract, and the registry of architectures.

An SAE explains an activation `x` as a base point plus a sum of few directions:
`x = offset + latents @ write`, where `latents` is read from `x - offset` along `read`. It sees tensors
`(N, d)` only: no model, no hook.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sae.checks import at_most_latents, check_activations, whole
from sae.errors import SAEError, did_you_mean, shorten
from sae.seeding import INITIAL, generator

Revive = Literal["auxk", "resample", "none"]


@dataclass(frozen=True, kw_only=True)
class SAEConfig:
    """What is common to the configurations of all architectures.

    Attributes:
        latents: number of latents m.
        name: of the run (default: made of the settings).
        seed: of the initial directions, and of resampling.
        lr: learning rate (default: that of `train`).
        revive: what to do about latents that died: "auxk" lets them explain the residual, "resample" restarts
            them at badly explained inputs, "none" leaves them.
        aux_k: how many dead latents explain the residual of an input (default: the power of two next below
            d / 2, at most 512).
        aux_coefficient: weight of that loss.
    """

    architecture: ClassVar[str] = ""

    latents: int
    name: str | None = None
    seed: int = 0
    lr: float | None = None
    revive: Revive = "none"
    aux_k: int | None = None
    aux_coefficient: float = 1 / 32

    def __post_init__(self) -> None:
        whole("latents", self.latents)
        if self.aux_k is not None:
            whole("aux_k", self.aux_k)
        if self.revive not in ("auxk", "resample", "none"):
            raise SAEError(f"revive={shorten(self.revive)!r}: use 'auxk', 'resample' or 'none'")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise SAEError(f"lr={self.lr} is no learning rate")

    @property
    def title(self) -> str:
        """A name made of the architecture and what sets it apart."""
        return f"{self.architecture}-{self.latents}"

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON."""
        return {"architecture": self.architecture, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Losses:
    """What one training step of one SAE found; all tensors, so that nothing waits for the device.

    Attributes:
        total: what is minimized, a scalar.
        squared_error: sum of squared errors over the batch and the dimensions.
        error: `(N,)` squared error of each input.
        fired: `(m,)` on how many inputs of the batch each latent fired.
        parts: named terms of the total.
    """

    total: Tensor
    squared_error: Tensor
    error: Tensor
    fired: Tensor
    parts: Mapping[str, Tensor]


class SAE(nn.Module):
    """Base of all sparse autoencoders; a `circuits.Basis`, so that a latent is a unit (`layer~name:index`).

    Parameters live in the space of normalized inputs `(x - mean) * scale`; `read`, `write`, `offset` and
    the three verbs `encode`, `decode`, `forward` speak of raw inputs.

    Attributes:
        encoder, decoder: `(m, d)`, a latent per row. encoder_bias: `(m,)`; decoder_bias: `(d,)`.
        mean, scale: `(d,)` and scalar, what inputs are normalized by: buffers, saved with the SAE.
        metadata: where the activations come from, JSON-ready; saved with the SAE.

    >>> s = build(TopK(latents=8, k=2), d=4)  # doctest: +SKIP
    >>> s.encode(torch.randn(3, 4)).shape  # doctest: +SKIP
    torch.Size([3, 8])
    """

    Config: ClassVar[type[SAEConfig]]
    unit_decoder: ClassVar[bool] = True
    """Whether training keeps the decoder's rows at length one."""

    def __init__(self, config: SAEConfig, d: int) -> None:
        super().__init__()
        whole("d", d)
        self.config = config
        self.metadata: dict[str, Any] = {}
        rows = F.normalize(torch.randn(config.latents, d, generator=generator(config.seed, INITIAL)))
        self.encoder = nn.Parameter(rows.clone())  # starts as the decoder's transpose
        self.encoder_bias = nn.Parameter(torch.zeros(config.latents))
        self.decoder = nn.Parameter(rows)
        self.decoder_bias = nn.Parameter(torch.zeros(d))
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("scale", torch.ones(()))

    @property
    def d(self) -> int:
        """Width of an input."""
        return self.encoder.shape[1]

    @property
    def latents(self) -> int:
        """Number of latents m."""
        return self.encoder.shape[0]

    # -- a basis of the layer's activation space ------------------------------------------------------

    @property
    def read(self) -> Tensor:
        """Directions `(m, d)` that latents are read along, for raw inputs."""
        return self.encoder * self.scale

    @property
    def write(self) -> Tensor:
        """Directions `(m, d)` that latents write, in raw activation space."""
        return self.decoder / self.scale

    @property
    def offset(self) -> Tensor:
        """The reconstruction `(d,)` when no latent fires."""
        return self.mean + self.decoder_bias / self.scale

    def pre_activations(self, x: Tensor) -> Tensor:
        """What latents are before their nonlinearity: raw `(N, d)` -> `(N, m)`."""
        return F.linear(x - self.offset, self.read, self.encoder_bias)

    def activate(self, pre: Tensor) -> Tensor:
        """Latents `(N, m)` of pre-activations `(N, m)`, as at inference."""
        raise NotImplementedError

    def encode(self, acts: Tensor) -> Tensor:
        """Latents `(N, m)` of raw activations `(N, d)`.

        Raises:
            SAEError: another width, no rows, or values that are not finite.
        """
        return self.activate(self.pre_activations(self.checked(acts)))

    def encode_sparse(self, acts: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
        """The active latents only: values `(N, k)`, largest first, and their indices `(N, k)`.

        Rows with fewer than `k` active latents are filled with zeros (at indices of silent latents).

        Args:
            acts: raw activations `(N, d)`.
            k: how many to keep (default: as many as the fullest row has, so that nothing is lost).
        """
        latents = self.encode(acts)
        if k is None:
            k = max(1, int((latents != 0).sum(dim=1).max()))
        at_most_latents("k", k, self.latents)
        values, indices = latents.topk(k, dim=1)
        return values, indices

    def decode(self, latents: Tensor) -> Tensor:
        """Raw activations `(N, d)` that latents `(N, m)` stand for."""
        if latents.shape[-1] != self.latents:
            raise SAEError(f"decode takes (N, {self.latents}) latents; got {tuple(latents.shape)}")
        return latents @ self.write + self.offset

    def decode_sparse(self, values: Tensor, indices: Tensor) -> Tensor:
        """Raw activations `(N, d)` of values and indices `(N, k)` as `encode_sparse` gives them."""
        return F.embedding_bag(indices, self.write, per_sample_weights=values, mode="sum") + self.offset

    def forward(self, acts: Tensor) -> Tensor:
        """Reconstruction `(N, d)` of raw activations `(N, d)`."""
        return self.decode(self.encode(acts))

    def reconstruct(self, acts: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions `(N, d)` of raw activations, and on how many of them each latent fired, `(m,)`."""
        latents = self.encode(acts)
        return self.decode(latents), (latents != 0).sum(dim=0)

    def checked(self, acts: Tensor) -> Tensor:
        """Activations in the SAE's type, after a look whether they can be encoded."""
        return check_activations(acts, self.d).to(self.encoder.dtype)

    # -- the same SAE in another form -----------------------------------------------------------------

    @torch.no_grad()
    def folded(self) -> Self:
        """An equal SAE for raw inputs, with mean and scale folded into its weights.

        `encode`, `decode` and `forward` give the same bits; `metadata["input"]` keeps mean and scale.
        """
        same = copy.deepcopy(self).requires_grad_(False)
        same.encoder.copy_(self.read)
        same.decoder.copy_(self.write)
        same.decoder_bias.copy_(self.offset)
        if bool((self.mean != 0).any()) or float(self.scale) != 1.0:
            same.metadata["input"] = {"mean": self.mean.tolist(), "scale": float(self.scale), "folded": True}
        same.mean.zero_()
        same.scale.fill_(1.0)
        return same

    @torch.no_grad()
    def with_unit_decoder(self) -> Self:
        """An equal SAE for raw inputs whose `write` directions have length one; latents are in units of `x`.

        Raises:
            SAEError: a direction of length zero, or (TopK) lengths that differ, because other latents would win.
        """
        same = self.folded()
        norms = same.decoder.norm(dim=1)
        if not bool((norms > 0).all()):
            raise SAEError("a latent whose decoder row is zero has no direction")
        same._stretch(norms)
        return same

    def _stretch(self, by: Tensor) -> None:
        """Multiply every latent by its factor `(m,)`, leaving reconstructions as they are."""
        self.encoder.mul_(by[:, None])
        self.encoder_bias.mul_(by)
        self.decoder.div_(by[:, None])

    # -- training -------------------------------------------------------------------------------------

    def losses(self, x: Tensor, target: Tensor, *, dead: Tensor | None = None, sparsity: float = 1.0) -> Losses:
        """Losses of one batch of normalized inputs.

        Args:
            x: `(N, d)` what is read; target: `(N, d)` what is to be reconstructed (for an SAE, `x` itself).
            dead: indices of latents that count as dead, or None.
            sparsity: factor on the sparsity penalty, from 0 to 1 (its warm-up).
        """
        raise NotImplementedError

    @torch.no_grad()
    def constrain(self) -> None:
        """Put parameters back where they belong, after a step of the optimizer."""
        if self.unit_decoder:
            self.decoder.div_(self.decoder.norm(dim=1, keepdim=True).clamp_min(torch.finfo(self.decoder.dtype).tiny))

    def normalize(self, acts: Tensor) -> Tensor:
        """Raw activations as training sees them."""
        return (acts.to(self.encoder.dtype) - self.mean) * self.scale

    def dense_pre(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Pre-activations of normalized inputs, of all latents or of some."""
        encoder, bias = (
            (self.encoder, self.encoder_bias) if rows is None else (self.encoder[rows], self.encoder_bias[rows])
        )
        return F.linear(x - self.decoder_bias, encoder, bias)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(d={self.d}, {self.config})"


# -- registry -----------------------------------------------------------------------------------------

_REGISTRY: dict[str, type[SAE]] = {}
_Class = TypeVar("_Class", bound=type[SAE])


def register(cls: _Class) -> _Class:
    """Make an architecture known under `cls.Config.architecture` (a class decorator).

    Raises:
        SAEError: the name is taken, or empty.
    """
    name = cls.Config.architecture
    if not name:
        raise SAEError(f"{cls.__name__}: its configuration names no architecture")
    if name in _REGISTRY:
        raise SAEError(f"architecture {name!r} is taken by {_REGISTRY[name].__name__}")
    _REGISTRY[name] = cls
    return cls


def list_architectures() -> dict[str, type[SAE]]:
    """The architectures there are: name -> class (its configuration is `.Config`)."""
    return dict(sorted(_REGISTRY.items()))


def architecture(name: str) -> type[SAE]:
    """The class of an architecture.

    Raises:
        SAEError: there is none of that name.
    """
    if name not in _REGISTRY:
        known = ", ".join(sorted(_REGISTRY))
        raise SAEError(f"no architecture {shorten(name)!r}.{did_you_mean(str(name), _REGISTRY)} There are {known}")
    return _REGISTRY[name]


def build(config: SAEConfig, d: int) -> SAE:
    """A fresh SAE of a configuration for inputs of width `d`.

    >>> build(TopK(latents=8, k=2), d=4).read.shape  # doctest: +SKIP
    torch.Size([8, 4])
    """
    return architecture(config.architecture)(config, d)


def config_from_dict(data: Mapping[str, Any]) -> SAEConfig:
    """The configuration that `SAEConfig.to_dict` wrote.

    Raises:
        SAEError: unknown architecture, or settings it does not have.
    """
    kind = architecture(str(data.get("architecture"))).Config
    settings: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "architecture"
    }
    unknown = settings.keys() - {f.name for f in dataclasses.fields(kind)}
    if unknown:
        raise SAEError(f"{kind.__name__} has no setting {', '.join(shorten(u, 40) for u in sorted(unknown))}")
    try:
        return kind(**settings)
    except TypeError as error:
        raise SAEError(f"settings of {kind.__name__} that do not fit: {shorten(error)}") from error
