"""The base class of sparse autoencoders (SAEs), and the registry of architectures.

An SAE reconstructs an activation `x` as an offset plus a sum of few directions, `x = offset + latents @ write`. The
latents are a nonlinear function of `(x - offset) @ read.T`. An SAE sees tensors `(N, d)` only: no model, no hook.

A transcoder is the same with another target (Dunefsky et al. 2024, arXiv 2406.11944): it reads `x` and reconstructs
the output `y` of the block that `x` goes into, `y = offset + latents @ write + skip @ (x - center)`; the linear skip is
that of Paulo et al. 2025 (arXiv 2501.18823), and zero without it. Every architecture is one under `kind="transcoder"`.

A crosscoder reads and reconstructs vectors of several layers or networks at once, side by side as one vector, each part
normalized by itself (Lindsey et al. 2024, Sparse Crosscoders; see `parts`). A transcoder whose target has several parts
is a cross-layer transcoder.

A new architecture is one module in this folder, or in a package that declares the entry point
`vision_circuits.architectures`: a subclass of `SAEConfig` with its settings, and a subclass of `SAE` under `@register`
that defines `activate` and `losses`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sae.architectures.parts import part_lengths, starting_rows
from sae.checks import at_most_latents, check_activations, whole
from sae.errors import SAEError, shorten
from sae.seeding import INITIAL, generator
from zoo.common.checks import number, one_of, whole_number
from zoo.common.registries import Registry, import_modules

Kind = Literal["sae", "transcoder", "skip-transcoder", "crosscoder"]
Revive = Literal["auxk", "resample", "none"]
Frozen = Literal["encoder", "decoder", "near decoder"]
NEAR = 0.8
"""Least cosine of a decoder row to its random start where the decoder is frozen softly, as in arXiv 2602.14111."""


TensorNames = Mapping[str, tuple[str, str]]
"""Parameter of an SAE -> its name in a file, and its axes there: "md" is `(m, d)`, "dm" the transpose, "m", "d"."""


@dataclass(frozen=True, kw_only=True)
class SAEConfig:
    """Settings that all architectures have.

    Attributes:
        architecture: the name under which the class is registered, the same for all configurations of a class.
        penalty_weight: name of the setting that weighs the sparsity penalty; empty where there is no penalty.
        refused: values of the settings below that an architecture does not have, by name and value, and why.
        latents: number of latents m.
        name: of the run (default: architecture and settings).
        seed: of the initial directions and of resampling.
        lr: peak learning rate (default: that of `train`).
        revive: how dead latents are revived: "auxk" trains them to reconstruct the residual, "resample" restarts
            them at inputs with a large error, "none" leaves them.
        aux_k: how many dead latents reconstruct the residual of an input (default: the largest power of two up to
            d / 2, at most 512).
        aux_coefficient: weight of the AuxK loss.
        frozen: what keeps its random start, so that the SAE is a control of trained ones (arXiv 2602.14111): the rows
            of the "encoder", of the "decoder", or the decoder softly ("near decoder"), each row within a cosine of
            `NEAR` of its start. Biases are trained. None of an SAE that is trained whole.
        kind: what is reconstructed: the input ("sae"), or the second vector of each pair ("transcoder"), where a
            linear map of the input may be added ("skip-transcoder"); "crosscoder" is the input, of several sources.
        written: widths of the vectors that stand side by side in what is reconstructed, where there are several: the
            layers or networks of a crosscoder, the layers of a cross-layer transcoder. `train` takes them from the
            stream.
    """

    architecture: ClassVar[str] = ""
    penalty_weight: ClassVar[str] = ""
    refused: ClassVar[Mapping[tuple[str, str], str]] = {}

    latents: int
    name: str | None = None
    seed: int = 0
    lr: float | None = None
    revive: Revive = "none"
    aux_k: int | None = None
    aux_coefficient: float = 1 / 32
    frozen: Frozen | None = None
    kind: Kind = "sae"
    written: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "latents", whole("latents", self.latents))
        object.__setattr__(self, "seed", whole_number("seed", self.seed, least=0, most=2**63 - 1, error=SAEError))
        number("aux_coefficient", self.aux_coefficient, least=0, error=SAEError)
        if self.name is not None and not isinstance(self.name, str):
            raise SAEError(f"the name of an SAE is a text, not {shorten(self.name)}")
        if self.aux_k is not None:
            object.__setattr__(self, "aux_k", whole("aux_k", self.aux_k))
        one_of("revive", self.revive, get_args(Revive), error=SAEError)
        if self.lr is not None:
            number("lr", self.lr, above=0, error=SAEError)
        if self.frozen is not None:
            one_of("frozen", self.frozen, get_args(Frozen), error=SAEError)
            if self.revive == "resample":
                raise SAEError(f"frozen={self.frozen!r}: resampling would move the rows; use revive='auxk' or 'none'")
        one_of("kind", self.kind, get_args(Kind), error=SAEError)
        if self.kind != "sae" and self.revive == "resample":
            other = (
                "a crosscoder's rows have parts" if self.kind == "crosscoder" else "a transcoder writes something else"
            )
            raise SAEError(f"resampling writes what it reads, and {other}: revive='auxk'")
        object.__setattr__(self, "written", tuple(whole("a width of written", width) for width in self.written))
        if self.written and self.kind == "sae":
            raise SAEError("an SAE reconstructs one vector; of several side by side say kind='crosscoder'")
        if self.frozen == "near decoder" and (self.written or self.kind == "crosscoder"):
            raise SAEError("frozen='near decoder' is of rows of one part; freeze the whole decoder")
        for (name, value), reason in self.refused.items():
            if getattr(self, name) == value:
                raise SAEError(f"{self.architecture} has no {name}={value!r}: {reason}")

    @property
    def title(self) -> str:
        """Name of a run without a name of its own: the architecture and its main settings."""
        frozen = "" if self.frozen is None else f"-frozen-{self.frozen.replace(' ', '-')}"
        kind = "" if self.kind == "sae" else f"-{self.kind}"
        return f"{self.architecture}{kind}{frozen}-{self.latents}"

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON; what crosscoders and controls add only where it says something."""
        values = {"architecture": self.architecture, **dataclasses.asdict(self)}
        for name, usual in (("frozen", None), ("kind", "sae"), ("written", ())):  # files stay what they were
            if values[name] == usual:
                del values[name]
        return values


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The state of a training that a loss may depend on.

    Attributes:
        step: optimizer steps before this one; steps: of the whole training.
        sparsity: factor on the sparsity penalty, from 0 to 1 (its warm-up).
        dead: `(n,)` indices of the dead latents; None while they are not counted.
    """

    step: int = 0
    steps: int = 1
    sparsity: float = 1.0
    dead: Tensor | None = None


START = TrainingState()
"""The first step of a training of one step, with the whole sparsity penalty and no dead latents."""


@dataclass(frozen=True)
class Losses:
    """Losses and counts of one training step; all tensors, so that nothing waits for the device.

    Attributes:
        total: the scalar that is minimized.
        squared_error: sum of squared errors over the batch and the dimensions.
        error: `(N,)` squared error of each input.
        fired: `(m,)` number of inputs of the batch on which each latent is active.
        parts: named terms of the total.
    """

    total: Tensor
    squared_error: Tensor
    error: Tensor
    fired: Tensor
    parts: Mapping[str, Tensor]


class SAE(nn.Module):
    """Base of all sparse autoencoders; a `circuits.Basis`, so that a latent is a unit (`layer~name:index`).

    Parameters belong to normalized inputs `(x - mean) * scale`. `read`, `write`, `offset`, `encode`, `decode` and
    `forward` belong to raw inputs. Below, `d_out` is d, but for a transcoder.

    A subclass defines `activate` and `losses`, and, where they differ from the defaults, how it is written to files:
    `saelens`, `saelens_settings` and `tensor_names`.

    Attributes:
        encoder: `(m, d)`, decoder: `(m, d_out)`, a latent per row. encoder_bias: `(m,)`; decoder_bias: `(d_out,)`.
        mean, scale: `(d,)` and scalar by which inputs are normalized: buffers, saved with the SAE. Of a crosscoder
            scale is `(d,)`: each source has its own.
        target_mean, target_scale: those of a transcoder's targets, `(d_out,)` and scalar, or `(d_out,)` of several
            layers; None of an SAE.
        skip: `(d_out, d)` of a transcoder with a linear skip, else None.
        metadata: origin of the activations, JSON-ready; saved with the SAE.

    >>> s = build(TopK(latents=8, k=2), d=4)  # doctest: +SKIP
    >>> s.encode(torch.randn(3, 4)).shape  # doctest: +SKIP
    torch.Size([3, 8])
    """

    Config: ClassVar[type[SAEConfig]]
    unit_decoder: ClassVar[bool] = True
    """Whether training keeps the decoder's rows at length one."""
    reads_linearly: ClassVar[bool] = True
    """Whether a latent above zero is its row of `read` times the input, plus a constant: weights into it rest on it."""
    constants: ClassVar[tuple[str, ...]] = ("mean", "scale", "target_mean", "target_scale")
    """Buffers that no step changes."""
    examples: ClassVar[int] = 0
    """How many inputs `take_examples` wants."""
    saelens: ClassVar[str | None] = None
    """Architecture of SAELens that encodes and decodes as this class does at inference. None where there is none: files
    then have the architecture "custom" and every tensor of the class, and only this package reads them."""
    saelens_settings: ClassVar[tuple[str, ...]] = ()
    """Settings of the configuration that SAELens keeps in its own configuration, under the same names."""
    tensor_names: ClassVar[TensorNames] = {
        "decoder": ("W_dec", "md"), "encoder": ("W_enc", "dm"), "decoder_bias": ("b_dec", "d"),
        "encoder_bias": ("b_enc", "m"),
    }  # fmt: skip
    """Parameters and buffers that inference needs, with their names in SAELens's files."""

    def __init__(self, config: SAEConfig, d: int) -> None:
        super().__init__()
        whole("d", d)
        self.config = config
        self.metadata: dict[str, Any] = {}
        # float32 whatever torch's default type is: so are the vectors of a training
        rows = F.normalize(
            torch.randn(config.latents, d, generator=generator(config.seed, INITIAL), dtype=torch.float32)
        )
        self.encoder = nn.Parameter(rows.clone())  # starts as the decoder's transpose
        self.encoder_bias = nn.Parameter(rows.new_zeros(config.latents))
        self.decoder = nn.Parameter(rows)
        self.decoder_bias = nn.Parameter(rows.new_zeros(d))
        self._start = rows.clone() if config.frozen == "near decoder" else None  # not in files: the seed gives it
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", rows.new_zeros(d))
        self.register_buffer("scale", rows.new_ones(()))
        self.target_mean: Tensor | None = None
        self.target_scale: Tensor | None = None
        self.skip: Tensor | None = None

    def _aim_at(self, d_out: int) -> None:
        """Make a new SAE a transcoder, whose target has the width `d_out`."""
        whole("d_out", d_out)
        del self.target_mean, self.target_scale, self.skip
        random = generator(self.config.seed, INITIAL, d_out)
        rows = F.normalize(torch.randn(self.latents, d_out, generator=random, dtype=torch.float32))
        if self.config.written:
            rows = starting_rows(rows, self.config.written, self.config.seed)
        self.decoder, self.decoder_bias = nn.Parameter(rows), nn.Parameter(rows.new_zeros(d_out))
        self._start = rows.clone() if self.config.frozen == "near decoder" else None
        self.register_buffer("target_mean", rows.new_zeros(d_out))
        self.register_buffer("target_scale", rows.new_ones(d_out if self.config.written else ()))
        skip = self.config.kind == "skip-transcoder"
        self.register_parameter("skip", nn.Parameter(rows.new_zeros(d_out, self.d)) if skip else None)

    def _join(self) -> None:
        """Make a new SAE a crosscoder: a scale for each source, rows with parts of equal length."""
        if not self.config.written:
            raise SAEError("a crosscoder needs written=, the widths of its sources, or a stream that has them")
        rows = starting_rows(self.decoder.detach(), self.config.written, self.config.seed)
        self.encoder, self.decoder = nn.Parameter(rows.clone()), nn.Parameter(rows)
        self.register_buffer("scale", rows.new_ones(self.d))

    @property
    def d(self) -> int:
        """Width of an input."""
        return self.encoder.shape[1]

    @property
    def d_out(self) -> int:
        """Width of what is reconstructed: `d`, but for a transcoder."""
        return self.decoder.shape[1]

    @property
    def transcodes(self) -> bool:
        """Whether it reconstructs another vector than it reads."""
        return self.config.kind in ("transcoder", "skip-transcoder")

    @property
    def written(self) -> tuple[int, ...]:
        """Widths of the vectors that stand side by side in what is reconstructed; one, of an SAE."""
        return self.config.written or (self.d_out,)

    @property
    def latents(self) -> int:
        """Number of latents m."""
        return self.encoder.shape[0]

    # -- a basis of the layer's activation space ------------------------------------------------------

    @property
    def read(self) -> Tensor:
        """Encoder directions `(m, d)` for raw inputs."""
        return self.encoder * self.scale

    @property
    def write(self) -> Tensor:
        """Decoder directions `(m, d_out)` in raw activation space."""
        return self.decoder / (self.scale if self.target_scale is None else self.target_scale)

    @property
    def offset(self) -> Tensor:
        """The reconstruction `(d_out,)` when no latent is active (of a transcoder with a skip: at `center`)."""
        if self.target_mean is None or self.target_scale is None:
            return self.mean + self.decoder_bias / self.scale
        return self.target_mean + self.decoder_bias / self.target_scale

    @property
    def center(self) -> Tensor:
        """What is taken off an input `(d,)` before it is read: an SAE's offset; of a transcoder the inputs' mean."""
        return self.mean if self.transcodes else self.offset

    def pre_activations(self, x: Tensor) -> Tensor:
        """Latents before their nonlinearity, `(N, m)`, of raw activations `(N, d)`."""
        return F.linear(x - self.center, self.read, self.encoder_bias)

    def linear_part(self, acts: Tensor) -> Tensor | None:
        """What a transcoder's skip adds to the reconstruction, `(N, d_out)`; None without a skip."""
        if self.skip is None or self.target_scale is None:
            return None
        return F.linear(acts.to(self.skip.dtype) - self.center, self._raw_skip())

    def _raw_skip(self) -> Tensor:
        assert self.skip is not None and self.target_scale is not None
        scale = self.target_scale
        return self.skip * (self.scale / (scale[:, None] if scale.ndim else scale))

    def _with_skip(self, acts: Tensor, reconstruction: Tensor) -> Tensor:
        linear = self.linear_part(acts)
        return reconstruction if linear is None else reconstruction + linear

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
        """The largest latents of each input: values `(N, k)`, largest first, and their indices `(N, k)`.

        Rows with fewer than `k` active latents are filled with zeros, at indices of inactive latents.

        Args:
            acts: raw activations `(N, d)`.
            k: latents per input (default: the largest number of active latents of an input, so that none is left
                out).
        """
        latents = self.encode(acts)
        if k is None:
            k = max(1, int((latents != 0).sum(dim=1).max()))
        at_most_latents("k", k, self.latents)
        values, indices = latents.topk(k, dim=1)
        return values, indices

    def decode(self, latents: Tensor) -> Tensor:
        """Raw activations `(N, d_out)` of latents `(N, m)`; a transcoder's `linear_part` is not in them."""
        if latents.shape[-1] != self.latents:
            raise SAEError(f"decode takes (N, {self.latents}) latents; got {tuple(latents.shape)}")
        return latents @ self.write + self.offset

    def decode_sparse(self, values: Tensor, indices: Tensor) -> Tensor:
        """`decode` of values and indices `(N, k)` as `encode_sparse` gives them."""
        return F.embedding_bag(indices, self.write, per_sample_weights=values, mode="sum") + self.offset

    def forward(self, acts: Tensor) -> Tensor:
        """Reconstruction `(N, d_out)` of raw activations `(N, d)`."""
        return self._with_skip(acts, self.decode(self.encode(acts)))

    def reconstruct(self, acts: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions `(N, d_out)` of raw activations, and on how many of them each latent is active, `(m,)`."""
        latents = self.encode(acts)
        return self._with_skip(acts, self.decode(latents)), (latents != 0).sum(dim=0)

    def checked(self, acts: Tensor) -> Tensor:
        """`acts` in the SAE's type, if they can be encoded."""
        return check_activations(acts, self.d).to(self.encoder.dtype)

    # -- the same SAE in another form -----------------------------------------------------------------

    @torch.no_grad()
    def folded(self) -> Self:
        """An equal SAE for raw inputs, with mean and scale folded into its weights.

        `encode`, `decode` and `forward` give the same bits; of a transcoder `decode` does, and the rest is equal up to
        rounding, since its mean moves into `encoder_bias`. `metadata["input"]` keeps mean and scale, `"output"` those
        of a transcoder's targets.
        """
        same = copy.deepcopy(self).requires_grad_(False)
        same.encoder.copy_(self.read)
        same.decoder.copy_(self.write)
        same.decoder_bias.copy_(self.offset)
        if same.target_mean is not None and same.target_scale is not None:
            by = self.read.double() @ self.mean.double()  # in double: behind a ReLU the mean is long
            same._shift(-by)
            if self.skip is not None and same.skip is not None:
                same.skip.copy_(self._raw_skip())
                same.decoder_bias.copy_(self.offset.double() - same.skip.double() @ self.mean.double())
            same._forget("output", same.target_mean, same.target_scale)
        same._forget("input", same.mean, same.scale)
        return same

    def _shift(self, by: Tensor) -> None:
        """Add a constant `(m,)` to what every latent reads, before its bias."""
        self.encoder_bias.copy_(self.encoder_bias.double() + by)

    def _forget(self, name: str, mean: Tensor, scale: Tensor) -> None:
        """Set a normalization to none, after it was folded, and keep it in the metadata."""
        if bool((mean != 0).any()) or bool((scale != 1.0).any()):
            self.metadata[name] = {"mean": mean.tolist(), "scale": scale.tolist(), "folded": True}
        mean.zero_()
        scale.fill_(1.0)

    @torch.no_grad()
    def with_unit_decoder(self) -> Self:
        """An equal SAE for raw inputs whose `write` directions have length one; latents are in units of `x`.

        Of several parts, the mean length of a row's parts becomes one over the root of their number.

        Raises:
            SAEError: a direction of length zero, or (TopK) lengths that differ: other latents would be the k largest.
        """
        same = self.folded()
        norms = same.row_lengths() / len(same.written) ** 0.5
        if not bool((norms > 0).all()):
            raise SAEError("a latent whose decoder row is zero has no direction")
        same._stretch(norms)
        return same

    def _stretch(self, by: Tensor) -> None:
        """Multiply every latent by its factor `(m,)`; reconstructions stay the same."""
        self.encoder.mul_(by[:, None])
        self.encoder_bias.mul_(by)
        self.decoder.div_(by[:, None])

    # -- training -------------------------------------------------------------------------------------

    def losses(self, x: Tensor, target: Tensor, state: TrainingState = START) -> Losses:
        """Losses of one batch of normalized inputs.

        Args:
            x: `(N, d)` inputs; target: `(N, d_out)` what is reconstructed: for an SAE `x` itself, for a transcoder what
                `remaining` leaves.
            state: step, dead latents and warm-up of the sparsity penalty.
        """
        raise NotImplementedError

    @property
    def input_bias(self) -> Tensor | None:
        """What is taken off a normalized input `(d,)` before it is read: an SAE's decoder bias, nothing else."""
        return None if self.transcodes else self.decoder_bias

    def remaining(self, x: Tensor, target: Tensor) -> Tensor:
        """What latents have to reconstruct of normalized pairs: the target, less the linear skip where there is one.

        `|target - skip x - latents W - b|^2` is the error of the whole whichever side the skip stands on, so that no
        architecture has to know of it.
        """
        return target if self.skip is None else target - F.linear(x, self.skip)

    def take_examples(self, x: Tensor) -> None:
        """Look at normalized inputs `(n, d)` before training, of an architecture whose rows start from data."""

    @torch.no_grad()
    def constrain(self) -> None:
        """Project parameters onto their constraints, after a step of the optimizer."""
        if self.unit_decoder and self.config.frozen != "decoder":
            self.decoder.div_(self._lengths())
        if self._start is not None:
            self._stay_near(self._start.to(self.decoder))

    def part_lengths(self) -> Tensor:
        """Lengths `(parts, m)` of the parts of the decoder's rows, in normalized units: one part of an SAE."""
        lengths: Tensor = part_lengths(self.decoder, self.written)
        return lengths

    def row_lengths(self) -> Tensor:
        """Lengths `(m,)` of the decoder's rows, the price of a latent: of several parts the sum of their lengths."""
        lengths: Tensor = self.part_lengths().sum(dim=0) if self.config.written else self.decoder.norm(dim=1)
        return lengths

    def _lengths(self) -> Tensor:
        # a row with S equal parts of this length one is a unit vector
        lengths: Tensor = self.row_lengths()[:, None] / len(self.written) ** 0.5
        return lengths.clamp_min(torch.finfo(self.decoder.dtype).tiny)

    def _stay_near(self, start: Tensor) -> None:
        """Turn every decoder row that left its cone back to the cone's edge, in its plane with the start."""
        lengths = self._lengths()
        rows = self.decoder / lengths
        along = torch.linalg.vecdot(rows, start)[:, None]
        aside = rows - along * start
        edge = NEAR * start + (1 - NEAR**2) ** 0.5 * F.normalize(aside, dim=1)
        self.decoder.copy_(torch.where(along < NEAR, edge * lengths, self.decoder))

    def project_gradients(self) -> None:
        """Change gradients before a step of the optimizer: those of frozen rows become zero."""
        frozen = {"encoder": self.encoder, "decoder": self.decoder}.get(self.config.frozen or "")
        if frozen is not None and frozen.grad is not None:
            frozen.grad.zero_()

    def normalize(self, acts: Tensor) -> Tensor:
        """Normalized inputs of raw activations, as training uses them."""
        return (acts.to(self.encoder.dtype) - self.mean) * self.scale

    def dense_pre(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Pre-activations of normalized inputs, of all latents or of some."""
        encoder, bias = (
            (self.encoder, self.encoder_bias) if rows is None else (self.encoder[rows], self.encoder_bias[rows])
        )
        return F.linear(x if self.input_bias is None else x - self.input_bias, encoder, bias)

    def identity(self) -> dict[str, Any]:
        """All that `encode` and `decode` rest on, equal for an SAE and its file: tensors for raw inputs, settings."""
        state, shared = self.folded().state_dict(), SAEConfig.__dataclass_fields__
        own = {name: value for name, value in self.config.to_dict().items() if name not in shared or name == "kind"}
        return own | {name: state[name] for name in (*self.tensor_names, "skip") if name in state}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(d={self.d}, {self.config})"


# -- registry -----------------------------------------------------------------------------------------

ARCHITECTURES: Registry[type[SAE]] = Registry(
    "architecture",
    group="vision_circuits.architectures",
    load=lambda: import_modules("sae.architectures"),
    error=SAEError,
)
"""Name -> class. Every module of this folder, and of the packages that declare the entry point, adds to it."""

_Class = TypeVar("_Class", bound=type[SAE])


def register(cls: _Class) -> _Class:
    """Register an architecture and its configuration under `cls.Config.architecture` (a class decorator).

    Raises:
        SAEError: another class has that name, or it is empty or inherited.
    """
    name = vars(cls.Config).get("architecture")
    if not name:
        raise SAEError(f"{cls.__name__}: its configuration {cls.Config.__name__} names no architecture of its own")
    return ARCHITECTURES.add(name, cls)  # type: ignore[return-value]


def list_architectures() -> dict[str, type[SAE]]:
    """All architectures, by name; the configuration of a class is its `.Config`."""
    return dict(sorted(ARCHITECTURES.items()))


def build(config: SAEConfig, d: int, d_out: int | None = None) -> SAE:
    """A new SAE of a configuration for inputs of width `d`.

    Args:
        config: its settings; d: width of inputs; d_out: of targets, for a transcoder (default: d).

    Raises:
        SAEError: another `d_out` than `d`, and it is no transcoder.

    >>> build(TopK(latents=8, k=2), d=4).read.shape  # doctest: +SKIP
    torch.Size([8, 4])
    """
    sae = ARCHITECTURES[config.architecture](config, d)
    if sae.transcodes:
        sae._aim_at(d if d_out is None else d_out)
    elif d_out not in (None, d):
        raise SAEError(
            f"an SAE reconstructs what it reads, {d} wide, not {d_out}: kind='transcoder' has another target"
        )
    elif config.kind == "crosscoder":
        sae._join()
    return sae


def config_from_dict(data: Mapping[str, Any]) -> SAEConfig:
    """The configuration that `SAEConfig.to_dict` wrote.

    Raises:
        SAEError: unknown architecture, or settings that it does not have.
    """
    kind = ARCHITECTURES[str(data.get("architecture"))].Config
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
