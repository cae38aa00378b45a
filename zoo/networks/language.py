"""Language models to look into: the packaged `tales`, and any Hugging Face model in a local folder or on the hub.

Weights are read from safetensors only, no code that comes with a model is ever run, and nothing is fetched
unless a hub id was given (`hf:owner/name`). A file that lacks a weight is an error, never a random one.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.common.autograd import outside_inference_mode
from zoo.common.stored import sha256
from zoo.errors import ModelError, WeightsError, did_you_mean, shorten
from zoo.networks.initialization import freeze
from zoo.weights.live_digest import LiveDigest
from zoo.weights.loading import FOLDER_VARIABLE, cache_folder, user_folder

PREFIX = "hf:"
TALES = "tales"
CONFIG = "config.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*", re.ASCII)
_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
_NO_LIMIT = 10**9  # tokenizers without a limit of their own state a number far above this


@dataclass(frozen=True, eq=False)
class Feed:
    """What a language model is being fed while it runs.

    Attributes:
        start: place in the sequence of the first token fed, special tokens counted; above zero when earlier tokens
            are in the cache.
        mask: `(N, tokens)`, True at tokens of the text, False at special ones and padding; None when all are text.
    """

    start: int = 0
    mask: Tensor | None = None


class LanguageModel:
    """A transformer and its tokenizer. Made by `load_language`, or of your own two.

    Args:
        module: a Hugging Face model; put into evaluation mode, its parameters frozen.
        tokenizer: its tokenizer.
        name: the model part of addresses.
        context: tokens that it takes at most (default: that of its configuration and tokenizer).
        source: where it came from, for people.

    Attributes:
        causal: True when a token attends only to those before it; False for a masked model, where it attends to all.
        prefix, suffix: ids of the special tokens that the tokenizer puts around a text.
        lock: held while the model runs or is edited, so that two threads cannot mix their edits.
        feed: what is being fed, while the model runs through `run`.

    Raises:
        ModelError: no Hugging Face model, or no limit to what it takes is known.

    >>> load_language("tales").causal  # doctest: +SKIP
    True
    """

    def __init__(
        self, module: nn.Module, tokenizer: Any, *, name: str, context: int | None = None, source: str = "given"
    ) -> None:
        if not isinstance(module, nn.Module) or not hasattr(module, "config"):
            raise ModelError(f"a language model is a Hugging Face model; got {type(module).__name__}")
        self.module, self.tokenizer, self.name, self.source = freeze(module), tokenizer, name, source
        self.context = _context(self.config, tokenizer) if context is None else context
        self.causal = _is_causal(module)
        self.prefix, self.suffix = _specials(tokenizer)
        self.lock = threading.RLock()
        self.feed: Feed | None = None
        self._digest = LiveDigest(module)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("lock", "feed")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, lock=threading.RLock(), feed=None)

    @property
    def config(self) -> Any:
        """Its Hugging Face configuration."""
        return self.module.config

    @property
    def digest(self) -> str:
        """SHA-256 over names, types, shapes and bytes of all weights, as they are now."""
        return self._digest()

    @property
    def device(self) -> torch.device:
        """Device of the first parameter."""
        return next(self.module.parameters()).device

    @property
    def width(self) -> int:
        """Number of channels of the residual stream."""
        return int(self.config.hidden_size)

    @property
    def has_head(self) -> bool:
        """Whether it predicts the next (or masked) token, instead of giving hidden states only."""
        module: Any = self.module
        return module.get_output_embeddings() is not None

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, special tokens left out; `decode` is the way back."""
        token_ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return token_ids

    def words(self, ids: list[int]) -> list[str]:
        """Token ids as the tokenizer writes them, one string each."""
        return [str(token) for token in self.tokenizer.convert_ids_to_tokens(ids)]

    def decode(self, ids: list[int]) -> str:
        """Token ids as text."""
        return str(self.tokenizer.decode(ids))

    def run(self, ids: Tensor, *, feed: Feed | None = None, **options: Any) -> Any:
        """One forward pass on ids `(N, tokens)`; `options` go to the module. Returns what the module returns."""
        with self.lock:
            before, self.feed = self.feed, feed or Feed()
            try:
                return self.module(input_ids=ids.to(self.device), **options)
            finally:
                self.feed = before

    def __repr__(self) -> str:
        kind = "causal" if self.causal else "masked"
        return f"LanguageModel({self.name!r}, {kind}, width {self.width}, context {self.context}, {self.source})"


@outside_inference_mode
def load_language(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = torch.float32,
    hub: bool = True,
) -> LanguageModel:
    """A language model with its tokenizer, ready to be looked into.

    Args:
        name_or_path: `tales`; the path of a folder with a Hugging Face model, or its name in `$CIRCUITS_WEIGHTS`
            or the cache, with or without `hf:` in front; or `hf:owner/name`, which is fetched from the hub when
            there is no such folder.
        device: where to put it.
        dtype: of its weights; None leaves them as they are stored.
        hub: whether the hub may be asked. False for a name out of a file, which nobody may have looked at: then a model
            of the hub is read from the cache of Hugging Face, or not at all.

    Raises:
        ModelError: no such model (the message lists where it was searched), a folder that is none, no tokenizer, or
            transformers is not installed. WeightsError: weights missing, damaged, or not in safetensors.

    >>> load_language("tales").context  # doctest: +SKIP
    256
    """
    _need_transformers()
    name = os.fspath(name_or_path)
    if name == TALES:
        folder = tales_folder()
        _check_tales(folder)
        return _from_folder(folder, TALES, "in the package", device, dtype)
    plain = name.removeprefix(PREFIX)
    path = _find(plain)
    if path is not None:
        return _from_folder(path, f"{PREFIX}{plain}", str(path), device, dtype)
    if name.startswith(PREFIX) and _HUB_ID.fullmatch(plain):
        try:
            return _load(plain, name, "the Hugging Face hub", device, dtype, local=not hub)
        except ModelError as error:
            if hub:
                raise
            raise ModelError(
                f"{name} is not on this machine, and the hub is not asked because a file names it, not you: "
                f"`hf download {plain}` fetches it ({error})"
            ) from error
    raise ModelError(_not_found(name, plain))


def language_names() -> list[str]:
    """The language models that can be loaded without the network: `tales`, and the folders among the weights."""
    return [TALES, *(f"{PREFIX}{path.name}" for folder in _folders() for path in _models_in(folder))]


def tales_folder() -> Path:
    """The folder of the packaged model."""
    return Path(__file__).parent.parent / "tales" / "model"


def _need_transformers() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "language models need transformers, which is not installed: pip install 'vision-circuits[lm]'"
        ) from error


def _folders() -> list[Path]:
    folder = user_folder()
    return [*([folder] if folder is not None else []), cache_folder()]


def _models_in(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}")) if folder.is_dir() else []


def _find(plain: str) -> Path | None:
    if not plain or "\0" in plain:
        return None
    own = Path(plain).expanduser()
    for path in [own, *(folder / plain for folder in _folders() if not own.is_absolute())]:
        if os.path.exists(path):
            return path.absolute()
    return None


def _not_found(name: str, plain: str) -> str:
    folders = [f"${FOLDER_VARIABLE} ({folder})"] if (folder := user_folder()) is not None else []
    looked = ", ".join(["the working folder", *folders, f"the cache ({cache_folder()})"])
    names = language_names()
    near = did_you_mean(plain, [loadable.removeprefix(PREFIX) for loadable in names])
    hub = f" For a model of the hub write {PREFIX}{plain}." if _HUB_ID.fullmatch(plain) else ""
    if folder is None:
        hub += f" ${FOLDER_VARIABLE} is not set."
    return (
        f"no language model {shorten(name)!r}: looked in {looked}.{near} "
        f"There are {', '.join(names)}, {PREFIX}FOLDER and {PREFIX}owner/name.{hub}"
    )


def _check_tales(folder: Path) -> None:
    facts = folder / "facts.json"
    try:
        stated: dict[str, str] = json.loads(facts.read_text(encoding="utf-8"))["sha256"]
        wrong = [name for name, sha in stated.items() if sha256(folder / name) != sha]
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"the files of {TALES} are missing from this installation or damaged ({shorten(error)}): "
            "reinstall it, or make them with `python -m tools.tales.train`"
        ) from error
    if wrong:
        raise WeightsError(f"{folder}: {', '.join(wrong)} is not the file that facts.json describes: reinstall it")


def _from_folder(
    folder: Path, name: str, source: str, device: str | torch.device, dtype: torch.dtype | None
) -> LanguageModel:
    if not folder.is_dir():
        raise ModelError(f"{folder} is a file; a language model is a folder with {CONFIG}")
    files = sorted(path.name for path in folder.iterdir())
    holds = f"it holds {', '.join(files[:8]) or 'nothing'}{', …' if len(files) > 8 else ''}"
    if CONFIG not in files:
        raise ModelError(f"{folder} has no {CONFIG}, so it is no Hugging Face model; {holds}")
    if not any(file.endswith((".safetensors", ".safetensors.index.json")) for file in files):
        raise WeightsError(f"{folder} has no weights in safetensors, the only form that is read; {holds}")
    if not any(file in files for file in _TOKENIZERS):
        raise ModelError(f"{folder} has no tokenizer, none of {', '.join(_TOKENIZERS)}; {holds}")
    return _load(str(folder), name, source, device, dtype, local=True)


def _load(
    path: str, name: str, source: str, device: str | torch.device, dtype: torch.dtype | None, *, local: bool
) -> LanguageModel:
    import transformers
    from safetensors import SafetensorError

    shared: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    kind = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    try:
        config = transformers.AutoConfig.from_pretrained(path, **shared)
        # what is asked for next is of the same commit, should the repository change in between
        shared["revision"] = getattr(config, "_commit_hash", None) or "main"
        auto_class = getattr(transformers, _auto_class(config))
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **shared)
        # other shapes are let through, to be named below
        options = {kind: dtype or "auto", "use_safetensors": True, "ignore_mismatched_sizes": True, **shared}
        with _quiet():
            module, report = auto_class.from_pretrained(path, config=config, output_loading_info=True, **options)
    except SafetensorError as error:
        raise WeightsError(f"the weights of {name} cannot be read, they may be truncated: {shorten(error)}") from error
    except Exception as error:  # transformers raises nearly anything
        raise ModelError(f"{name} ({source}) cannot be loaded as a language model: {shorten(error, 240)}") from error
    other = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    if absent := sorted({*report["missing_keys"], *other}):
        raise WeightsError(
            f"the weights of {name} do not fit its {CONFIG}: {len(absent)} missing or of another shape "
            f"({', '.join(shorten(key, 60) for key in absent[:3])})"
        )
    for key, value in module.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"the weights of {name} are damaged: {key} has values that are not finite")
    return LanguageModel(module.to(torch.device(device)), tokenizer, name=name, source=source)


def _auto_class(config: Any) -> str:
    """The class of transformers that loads a model with its head; without one if the files have none."""
    stated = " ".join(getattr(config, "architectures", None) or [])
    if "ForMaskedLM" in stated or "ForPreTraining" in stated:
        return "AutoModelForMaskedLM"
    if "ForCausalLM" in stated or "LMHeadModel" in stated:
        return "AutoModelForCausalLM"
    return "AutoModel"


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no advice of transformers; our own errors report what goes wrong."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _context(config: Any, tokenizer: Any) -> int:
    own = next((getattr(config, n) for n in ("max_position_embeddings", "n_positions", "seq_length") if
                isinstance(getattr(config, n, None), int)), None)  # fmt: skip
    stated = getattr(tokenizer, "model_max_length", None)
    limits = [int(n) for n in (own, stated) if isinstance(n, int | float) and 0 < n < _NO_LIMIT]
    if not limits:
        raise ModelError("neither the model's configuration nor its tokenizer states its context: context=TOKENS")
    return min(limits)


def _is_causal(module: nn.Module) -> bool:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    name, config = type(module).__name__, getattr(module, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{name} has an encoder and a decoder; a model with one stack of layers is needed")
    if "MaskedLM" in name or "ForPreTraining" in name:
        return False
    kind = getattr(config, "model_type", "")
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return bool(getattr(config, "is_decoder", False))
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _specials(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that a tokenizer puts before and after a text, found on an example."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start]), tuple(whole[start + len(plain) :])
    raise ModelError("this tokenizer treats a text otherwise when it adds special tokens; it cannot be used here")
