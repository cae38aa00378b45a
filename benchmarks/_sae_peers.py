"""SAE trainers by others, each used as its users would: its own step, at one shape, on the same batches.

All get the same centered vectors of unit variance. Those trained by Adam get the same learning rate and the same rise
and fall of it; sparsify keeps its own default, schedule-free sign descent.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

import sae
from sae.data.streams import TensorStream
from sae.training.input_normalization import statistics_of
from sae.training.sae_trainer import SAETrainer


@dataclass(frozen=True)
class Shape:
    """One setting: width, latents, active ones, vectors per step, steps, peak learning rate, where."""

    d: int
    m: int
    k: int
    batch: int
    steps: int
    lr: float
    device: str = "cpu"
    seed: int = 0

    def factor(self, step: int) -> float:
        """Of the learning rate: up over a twentieth of the steps, down over the last fifth, as in `sae.train`."""
        warmup, falling = self.steps // 20, 0.2 * self.steps
        return min(1.0, (step + 1) / (warmup + 1)) * min(1.0, (self.steps - step) / falling)


class Contender(Protocol):
    """One SAE in training."""

    name: str
    version: str
    optimizer: str

    def step(self, x: Tensor) -> None:
        """One step on `(batch, d)`."""

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction `(n, d)`, and which latents are on `(n, m)`."""


def version_of(package: str) -> str:
    """Its version; raises ImportError if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(f"{package} is not installed") from error


class Ours:
    """`sae.train` as a whole, reading, checks and reports included, held up between two steps by a gate."""

    name, optimizer = "vision-circuits", "Adam"

    def __init__(self, shape: Shape, raw: Tensor) -> None:
        self.version = importlib.metadata.version("vision-circuits")
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._failed: BaseException | None = None
        self._learn = SAETrainer.learn
        contender = self

        def gated(trainer: SAETrainer, *args: Any) -> None:
            contender._learn(trainer, *args)
            contender.sae, contender.scale = trainer.sae, trainer.sae.scale
            contender._done.release()
            contender._go.acquire()

        def work() -> None:
            try:
                settings = {"steps": shape.steps, "batch_size": shape.batch, "lr": shape.lr, "device": shape.device}
                sae.train(raw, sae.TopK(latents=shape.m, k=shape.k), **settings)  # type: ignore[arg-type]
            except BaseException as error:  # noqa: BLE001 (told to the thread that waits)
                contender._failed = error
            finally:
                contender._done.release()

        SAETrainer.learn = gated  # type: ignore[method-assign]
        self._thread = threading.Thread(target=work, daemon=True)
        self._started = False

    def step(self, x: Tensor) -> None:
        """The next step; its batch is read from the same vectors in the same order."""
        if not self._started:
            self._started = True
            self._thread.start()
        else:
            self._go.release()
        self._done.acquire()
        if self._failed is not None:
            raise self._failed

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.sae.activate(self.sae.dense_pre(x))
        return latents @ self.sae.decoder + self.sae.decoder_bias, latents > 0

    def close(self) -> None:
        """Let it finish."""
        SAETrainer.learn = self._learn  # type: ignore[method-assign]
        self._go.release()
        self._thread.join(60)


class PlainDense:
    """What one writes down in PyTorch in twenty lines; dense autograd, fused Adam."""

    name, optimizer, version = "plain PyTorch, dense", "Adam", str(torch.__version__)

    def __init__(self, shape: Shape) -> None:
        self.shape, self.done = shape, 0
        torch.manual_seed(0)
        rows = torch.nn.functional.normalize(torch.randn(shape.m, shape.d)).to(shape.device)
        self.encoder = torch.nn.Parameter(rows.T.clone())
        self.decoder = torch.nn.Parameter(rows.clone())
        self.bias = torch.nn.Parameter(torch.zeros(shape.m, device=shape.device))
        self.before = torch.nn.Parameter(torch.zeros(shape.d, device=shape.device))
        self.parameters = [self.encoder, self.decoder, self.bias, self.before]
        self.adam = torch.optim.Adam(self.parameters, lr=shape.lr, fused=True)

    def _latents(self, x: Tensor) -> Tensor:
        pre = torch.relu((x - self.before) @ self.encoder + self.bias)
        values, indices = pre.topk(self.shape.k, dim=1, sorted=False)
        return torch.zeros_like(pre).scatter(1, indices, values)

    def step(self, x: Tensor) -> None:
        loss = (x - self._latents(x) @ self.decoder - self.before).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adam.param_groups[0]["lr"] = self.shape.lr * self.shape.factor(self.done)
        self.adam.step()
        self.adam.zero_grad()
        with torch.no_grad():
            self.decoder.div_(self.decoder.norm(dim=1, keepdim=True))
        self.done += 1

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latents = self._latents(x)
        return latents @ self.decoder + self.before, latents > 0


class Codes:
    """What can be measured as a dictionary: latents, what they are decoded to, and directions, of normalized inputs."""

    def codes(self, x: Tensor) -> Tensor:
        """Latents `(n, m)`."""
        raise NotImplementedError

    def decoded(self, codes: Tensor) -> Tensor:
        """Reconstruction `(n, d)` of latents."""
        raise NotImplementedError

    @property
    def rows(self) -> Tensor:
        """Directions `(m, d)` that are written."""
        raise NotImplementedError

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction, and which latents are on."""
        codes = self.codes(x)
        return self.decoded(codes), codes > 0


class SAELens(Codes):
    """`SAETrainer.step` of sae-lens."""

    name, optimizer = "sae-lens", "Adam"
    architecture = "topk"

    def __init__(self, shape: Shape) -> None:
        self.version = version_of("sae-lens")
        from sae_lens import saes
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        torch.manual_seed(shape.seed)
        kind = {"topk": "TopK", "batchtopk": "BatchTopK", "matryoshka": "MatryoshkaBatchTopK"}[self.architecture]
        settings = {"matryoshka_widths": list(sae.Matryoshka(latents=shape.m, k=shape.k).prefixes)}
        config = getattr(saes, f"{kind}TrainingSAEConfig")(
            d_in=shape.d, d_sae=shape.m, k=shape.k, device=shape.device,
            **(settings if self.architecture == "matryoshka" else {}),
        )  # fmt: skip
        self.sae = getattr(saes, f"{kind}TrainingSAE")(config).to(shape.device)
        training = SAETrainerConfig(
            total_training_samples=shape.steps * shape.batch, train_batch_size_samples=shape.batch, lr=shape.lr,
            lr_end=0.0, lr_warm_up_steps=shape.steps // 20, lr_decay_steps=shape.steps // 5, device=shape.device,
        )  # fmt: skip
        self.trainer = SAETrainer(training, self.sae, iter(()))

    def step(self, x: Tensor) -> None:
        self.trainer.maybe_reset_sparsity()
        self.trainer.step(x)
        self.trainer.n_training_steps += 1

    def codes(self, x: Tensor) -> Tensor:
        codes: Tensor = self.sae.encode(x)  # of BatchTopK the largest of these inputs, as in training
        return codes

    def decoded(self, codes: Tensor) -> Tensor:
        decoded: Tensor = self.sae.decode(codes)
        return decoded

    @property
    def rows(self) -> Tensor:
        rows: Tensor = self.sae.W_dec.detach()
        return rows


class SAELensBatchTopK(SAELens):
    """Its BatchTopK."""

    architecture = "batchtopk"


class SAELensMatryoshka(SAELens):
    """Its Matryoshka BatchTopK, with nested dictionaries as large as ours."""

    architecture = "matryoshka"


class DictionaryLearning(Codes):
    """`TopKTrainer.update` of dictionary-learning."""

    name, optimizer = "dictionary-learning", "Adam"

    def __init__(self, shape: Shape) -> None:
        self.version = version_of("dictionary-learning")
        from dictionary_learning.trainers.top_k import TopKTrainer

        self.trainer = TopKTrainer(
            steps=shape.steps, activation_dim=shape.d, dict_size=shape.m, k=shape.k, layer=0, lm_name="", lr=shape.lr,
            warmup_steps=shape.steps // 20, decay_start=shape.steps - shape.steps // 5, seed=shape.seed,
            device=shape.device,
        )  # fmt: skip
        self.done = 0

    def step(self, x: Tensor) -> None:
        self.trainer.update(self.done, x)
        self.done += 1

    def codes(self, x: Tensor) -> Tensor:
        codes: Tensor = self.trainer.ae.encode(x)
        return codes

    def decoded(self, codes: Tensor) -> Tensor:
        decoded: Tensor = self.trainer.ae.decode(codes)
        return decoded

    @property
    def rows(self) -> Tensor:
        rows: Tensor = self.trainer.ae.decoder.weight.detach().T
        return rows


class Overcomplete(Codes):
    """`train_sae` of overcomplete, a batch at a time."""

    name, optimizer = "overcomplete", "Adam"
    architecture = "topk"

    def __init__(self, shape: Shape, points: Tensor | None = None) -> None:
        self.version = version_of("overcomplete")
        import matplotlib

        if not hasattr(matplotlib.cm, "get_cmap"):  # its import needs what newer matplotlib has no longer
            matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap  # type: ignore[attr-defined]
        from overcomplete.sae import MpSAE, RATopKSAE, TopKSAE, train_sae

        torch.manual_seed(shape.seed)
        self.train, self.device = train_sae, shape.device
        if self.architecture == "archetypal":
            self.sae = RATopKSAE(shape.d, shape.m, points, top_k=shape.k, device=shape.device)
        elif self.architecture == "matching_pursuit":
            self.sae = MpSAE(shape.d, shape.m, k=shape.k, device=shape.device)
        else:
            self.sae = TopKSAE(shape.d, shape.m, top_k=shape.k, device=shape.device)
        self.adam = torch.optim.Adam(self.sae.parameters(), lr=shape.lr)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.adam, shape.factor)

    def step(self, x: Tensor) -> None:
        def loss(x: Tensor, x_hat: Tensor, *_: Tensor) -> Tensor:
            return (x - x_hat).square().mean()

        self.train(
            self.sae, [x], loss, self.adam, scheduler=self.schedule, nb_epochs=1, monitoring=0, device=self.device
        )

    def codes(self, x: Tensor) -> Tensor:
        self.sae.eval()
        codes: Tensor = self.sae.encode(x)[1]
        return codes

    def decoded(self, codes: Tensor) -> Tensor:
        decoded: Tensor = self.sae.decode(codes)
        return decoded

    @property
    def rows(self) -> Tensor:
        self.sae.eval()
        rows: Tensor = self.sae.get_dictionary().detach()
        return rows


class OvercompleteArchetypal(Overcomplete):
    """Its relaxed archetypal TopK; `points` are centers of k-means."""

    architecture = "archetypal"


class OvercompletePursuit(Overcomplete):
    """Its matching pursuit."""

    architecture = "matching_pursuit"


class Sparsify:
    """A step of eai-sparsify's trainer: its sparse coder, its default optimizer."""

    name, optimizer = "eai-sparsify", "schedule-free signum"

    def __init__(self, shape: Shape) -> None:
        self.version = version_of("eai-sparsify")
        if shape.device == "cpu":
            os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
        from schedulefree import ScheduleFreeWrapper
        from sparsify import SparseCoder
        from sparsify.config import SparseCoderConfig
        from sparsify.sign_sgd import SignSGD

        torch.manual_seed(0)
        self.sae = SparseCoder(shape.d, SparseCoderConfig(num_latents=shape.m, k=shape.k), device=shape.device)
        self.optimizer = ScheduleFreeWrapper(
            SignSGD([{"params": self.sae.parameters(), "lr": 5e-3 / (shape.m / 2**14) ** 0.5}]), momentum=0.95
        )
        self.optimizer.train()
        self.fired = torch.zeros(shape.m, dtype=torch.bool, device=shape.device)
        self.first = True

    def step(self, x: Tensor) -> None:
        if self.first:
            self.sae.b_dec.data = x.mean(0)
            self.first = False
        self.sae.set_decoder_norm_to_unit_norm()
        out = self.sae(x, total_variance=(x - x.mean(0)).pow(2).sum())
        self.fired[out.latent_indices.flatten()] = True
        out.fvu.backward()
        self.sae.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.fired.zero_()

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.eval()
        self.sae.set_decoder_norm_to_unit_norm()
        values, indices, pre = self.sae.encode(x)
        active = torch.zeros_like(pre).scatter(1, indices, values) > 0
        return self.sae.decode(values, indices), active


PEERS: dict[str, Callable[[Shape], Contender]] = {
    "sae-lens": SAELens,
    "dictionary-learning": DictionaryLearning,
    "overcomplete": Overcomplete,
    "eai-sparsify": Sparsify,
}


@dataclass(frozen=True, eq=False)
class PeerDictionary:
    """A trained peer on raw activations, as `sae.evaluation.controls.dictionary.Dictionary` has it."""

    peer: Codes
    mean: Tensor
    scale: float

    @property
    def latents(self) -> int:
        """How many there are."""
        return len(self.peer.rows)

    @property
    def write(self) -> Tensor:
        """Directions `(m, d)`."""
        return self.peer.rows / self.scale

    @torch.no_grad()
    def encode(self, acts: Tensor) -> Tensor:
        """Latents of raw activations."""
        return self.peer.codes((acts.float() - self.mean) * self.scale)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Raw activations of latents."""
        return self.peer.decoded(latents) / self.scale + self.mean


DICTIONARIES: dict[str, Callable[..., Any]] = {
    "sae-lens batchtopk": SAELensBatchTopK,
    "sae-lens matryoshka": SAELensMatryoshka,
    "dictionary-learning topk": DictionaryLearning,
    "overcomplete archetypal": OvercompleteArchetypal,
    "overcomplete matching pursuit": OvercompletePursuit,
}


def trained(name: str, shape: Shape, x: Tensor, points: Tensor) -> PeerDictionary:
    """A peer's dictionary of vectors `(n, d)`, in the order that `sae.train` reads them.

    Raises:
        ImportError: the library is not installed.
    """
    statistics = statistics_of(x[:65536])
    normalized = (x - statistics.mean) * statistics.scale
    make = DICTIONARIES[name]
    peer = make(shape, points) if make is OvercompleteArchetypal else make(shape)
    batches = TensorStream(normalized, shape.batch, seed=shape.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(shape.steps):
            peer.step(next(batches))
    return PeerDictionary(peer, statistics.mean, statistics.scale)


def peers(shape: Shape) -> tuple[list[Contender], list[str]]:
    """Those that are installed and start, and a line about each that does not."""
    contenders: list[Contender] = []
    missing: list[str] = []
    for name, make in PEERS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                contenders.append(make(shape))
        except Exception as error:  # noqa: BLE001 (a peer that does not start is a line in the table)
            missing.append(f"{name} is missing: {type(error).__name__}: {error}")
            print(missing[-1], file=sys.stderr)
    return contenders, missing
