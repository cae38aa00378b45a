"""Finding a model's weights, proving that they are the right ones, and reading them.

Looked for in this order: the path given, the folder `$CIRCUITS_WEIGHTS`, the cache (`$CIRCUITS_HOME`, by default
the platform's user cache), then a verified download. Never a silent random net.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.cards import Card, WeightsFile
from zoo.common.files import home, write_atomically
from zoo.common.reading import LARGEST_WEIGHT, check_archive, check_regular, open_file
from zoo.common.stored import sha256
from zoo.errors import FileError, WeightsError, nearest, shorten
from zoo.progress import Progress
from zoo.weights import download, graphdef

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "CIRCUITS_WEIGHTS"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pb")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class WeightsStatus:
    """Whether a model's weights are here.

    Attributes:
        available: True when they can be loaded without asking anything of the network.
        path: the file, where there is one.
        how: where they are or how to get them, in a few words.
    """

    available: bool
    path: Path | None
    how: str


def cache_folder() -> Path:
    """The folder that downloaded and converted weights are kept in."""
    return home() / "weights"


def user_folder() -> Path | None:
    """The folder `$CIRCUITS_WEIGHTS`, or None when it is not set."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser() if chosen else None


def converted_path(card: Card) -> Path:
    """Where the cache keeps `card`'s weights converted to safetensors."""
    return cache_folder() / f"{card.name.replace('/', '-')}.safetensors"


def find(card: Card) -> tuple[Path, str] | None:
    """The file of `card`'s weights and a word on where it lies, or None; nothing is read or fetched."""
    weights = card.weights
    if weights is None:
        return None
    if card.own:
        return (Path(weights.filename), "the file given") if os.path.isfile(weights.filename) else None
    if weights.packaged:
        path = Path(__file__).parent.parent / weights.filename
        return (path, "in the package") if path.is_file() else None
    folder = user_folder()
    folders = [(folder, f"${FOLDER_VARIABLE}")] if folder is not None else []
    folders.append((cache_folder(), "the cache"))
    if weights.folders is not None:
        folders += [(extra, str(extra)) for extra in weights.folders()]
    for location, description in folders:
        # In the cache a converted file is quicker to read than what it was converted from.
        names = (converted_path(card).name, *weights.names) if card.converts else weights.names
        for name in names:
            if (location / name).is_file():
                return location / name, description
    return None


def status(card: Card) -> WeightsStatus:
    """Whether `card`'s weights are here, and how to get them when they are not."""
    located = find(card)
    if located is not None:
        return WeightsStatus(True, located[0], located[1])
    if card.own and card.weights is None:
        return WeightsStatus(True, None, f"as {card.own} makes them")
    if card.weights is None:
        return WeightsStatus(False, None, "its library's own" if card.fetch else "a file of yours, or random")
    if card.weights.packaged:
        return WeightsStatus(False, None, "missing from this installation")
    if card.weights.url:
        return WeightsStatus(False, None, "downloaded on first use")
    return WeightsStatus(False, None, f"put {card.weights.filename} into {user_folder() or cache_folder()}")


def missing(card: Card, reason: str = "") -> WeightsError:
    """The error for weights that are not here: names the file, the folder and the command."""
    weights = card.weights
    if weights is None:
        return WeightsError(f"{card.name} has no published weights here{reason}: give weights=FILE or weights='random'")
    if weights.packaged:
        return WeightsError(
            f"the weights of {card.name}, zoo/{weights.filename}, are missing from this installation: "
            f"reinstall it, or make them with `{card.source}`"
        )
    folder = user_folder()
    destination = f"{folder} (${FOLDER_VARIABLE})" if folder is not None else f"{cache_folder()}"
    if folder is not None and not folder.is_dir():
        destination += ", which does not exist"
    source = weights.url or card.source
    origin = f" It comes from {source}." if source else ""
    return WeightsError(
        f"the weights of {card.name} are not here{reason}: put {weights.filename} into {destination}, "
        f"or name the file: `--weights FILE` (weights=FILE in Python).{origin}"
    )


def git_blob_id(path: Path) -> str:
    """Git's id of the file's content: `sha1("blob <size>\\0" + bytes)`."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open_file(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def verify(path: Path, wanted: WeightsFile) -> None:
    """Raise `WeightsError` when `path` is not the published file, by the digests that `wanted` carries."""
    for kind, published, measure in (
        ("SHA-256", wanted.sha256, sha256),
        ("git blob id", wanted.git_blob, git_blob_id),
    ):
        if published is not None and not (measured := measure(path)).startswith(published):
            raise WeightsError(
                f"{path} is not the published {Path(wanted.filename).name}: its {kind} is {measured}, "
                f"published is {published}. Damaged or another file: delete it and fetch it again"
            )


def digest(state: Mapping[str, Any]) -> str:
    """SHA-256 over the sorted names, types, shapes and bytes of a state: which weights these are."""
    total = hashlib.sha256()
    for name, value in state_entries(state):
        if isinstance(value, Tensor):
            total.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
            total.update(tensor_bytes(value).data)
        else:
            total.update(f"{name}\0{value}\0".encode())
    return total.hexdigest()


def state_entries(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor | str]]:
    """The tensors of a state, by sorted names; what is no tensor is text: its value, or its type where it has none.

    Quantized layers keep tuples of tensors and types among their weights.
    """
    for name in sorted(state):
        value = state[name]
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, tuple | list):
            yield from state_entries({f"{name}.{i}": item for i, item in enumerate(value)})
        elif isinstance(value, bool | int | float | str | bytes | torch.dtype | torch.Size | None):
            yield name, repr(value)
        else:
            yield name, type(value).__name__


def tensor_bytes(value: Tensor) -> npt.NDArray[np.uint8]:
    """The bytes of a tensor; of a quantized one those of its integers, followed by its scales."""
    if value.is_quantized:
        per_channel = value.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams)
        scales = value.q_per_channel_scales() if per_channel else torch.tensor(value.q_scale(), dtype=torch.float64)
        return np.concatenate([tensor_bytes(value.int_repr()), tensor_bytes(scales)])
    # Flattened to bytes by torch, so that types without a NumPy counterpart (bfloat16) work too.
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def read(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors, PyTorch (.pth, .pt, .bin; tensors only) or TensorFlow (.pb) file, by name."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise WeightsError(f"{path}: weights come as {', '.join(SUFFIXES)}, not {suffix or 'a file without suffix'}")
    try:
        if suffix == ".pb":
            return graphdef.constants(path)
        if suffix == ".safetensors":
            check_regular(path)
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        with open_file(path) as content:
            check_archive(content)
            return _state_in(torch.load(content, map_location="cpu", weights_only=True), path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, or is damaged; only tensors are loaded: "
            "save them with torch.save(model.state_dict(), FILE)"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} cannot be read, it may be truncated: {shorten(error, 160)}") from error


def _state_in(loaded: object, path: Path) -> dict[str, Tensor]:
    # Training scripts wrap the state under one of these keys.
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path} holds a {type(loaded).__name__}, not a state_dict")
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors")
    return tensors


def fit(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load `state` into `module`, naming what does not fit."""
    own = module.state_dict()
    state = unwrapped(state, own)
    absent = [name for name in own if name not in state]
    extra = [name for name in state if name not in own]
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    if absent or extra or wrong:
        parts = []
        if absent:
            parts.append(f"{len(absent)} tensors missing ({_some(absent)}){_nearest(absent, extra, 'the file has')}")
        if extra:
            parts.append(f"{len(extra)} unknown ({_some(extra)}){_nearest(extra, absent, 'the model has')}")
        if wrong:
            first = wrong[0]
            parts.append(
                f"{len(wrong)} of another shape ({first} is {tuple(state[first].shape)}, not {tuple(own[first].shape)})"
            )
        raise WeightsError(f"{source} does not fit the model: {'; '.join(parts)}")
    for name, tensor in state.items():
        if tensor.is_floating_point() != own[name].is_floating_point() or tensor.is_complex() != own[name].is_complex():
            kinds = [str(t.dtype).removeprefix("torch.") for t in (tensor, own[name])]
            raise WeightsError(f"{source} does not fit the model: {name} holds {kinds[0]}, not {kinds[1]}")
        if tensor.is_floating_point() and tensor.numel() and not float(tensor.abs().max()) <= LARGEST_WEIGHT:
            raise WeightsError(
                f"{source} is damaged: {name} has values that are not finite, or above {LARGEST_WEIGHT:g}"
            )
    module.load_state_dict(state)


def unwrapped(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without the prefixes that torch.compile (`_orig_mod.`) and DataParallel (`module.`) put before names.

    A network may have a part called `module`, so they are only taken off where more of its names are met without.
    """
    bare = dict(state)
    for name in list(bare):
        short = name.replace("_orig_mod.", "")
        while short.startswith("module."):
            short = short.removeprefix("module.")
        if short != name:
            bare[short] = bare.pop(name)
    return bare if len(bare.keys() & own.keys()) > len(state.keys() & own.keys()) else dict(state)


def _nearest(names: list[str], others: list[str], text: str) -> str:
    """Which of `others` the first of `names` may be under another spelling."""
    close = nearest(names[0], others, 1)
    return f", {text} {shorten(close[0], 60)}" if close else ""


def _some(names: list[str]) -> str:
    return ", ".join(shorten(name, 60) for name in names[:3]) + (", …" if len(names) > 3 else "")


def _keep_converted(card: Card, state: dict[str, Tensor], original: Path, original_digest: str) -> None:
    """Write a foreign file's tensors to the cache as safetensors; a cache that cannot be written is no error."""
    metadata = {
        "schema": "1",
        "model": card.name,
        "digest": digest(state),
        "converted_from": original.name,
        "converted_from_sha256": original_digest,
    }
    try:
        write_atomically(converted_path(card), lambda path: save_file(state, path, metadata))
    except FileError as error:
        log.warning("cannot keep the converted weights in %s: %s", cache_folder(), error)


def _converted_from(card: Card, original_digest: str) -> Path | None:
    path = converted_path(card)
    if path.is_file():
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
        except (SafetensorError, OSError):
            return None
        if metadata.get("converted_from_sha256") == original_digest:
            return path
    return None


def _read_converted(card: Card, path: Path) -> dict[str, Tensor]:
    """A file that we converted, checked against the digest written into it."""
    state = card.rename(read(path))
    with safe_open(path, framework="pt") as file:
        stated = (file.metadata() or {}).get("digest")
    if stated is not None and digest(state) != stated:
        raise WeightsError(f"{path} is damaged: its tensors do not match the digest written into it. Delete it")
    return state


def locate(
    card: Card, weights: str | os.PathLike[str] | None, *, may_download: bool, progress: Progress = None
) -> tuple[Path, str]:
    """The file to load for `card` and a phrase saying where it came from; fetched if need and leave be."""
    if weights is not None:
        path = Path(weights).expanduser()
        if not os.path.isfile(path):  # unlike Path.is_file, this answers for any string
            raise WeightsError(f"no weights file at {shorten(path, 200)}: give a {', '.join(SUFFIXES)} file")
        return path, "the file given"
    located = find(card)
    if located is not None:
        return located
    published = card.weights
    if published is None or published.packaged or published.url is None:
        raise missing(card)
    if not may_download:
        raise missing(card, " and downloading is off")
    target = cache_folder() / published.filename
    try:
        download.fetch(published.url, target, verify=lambda path: verify(path, published), progress=progress)
    except WeightsError as error:
        raise missing(card, f" ({error})") from error
    return target, f"downloaded from {published.url}"


def load(
    card: Card, weights: str | os.PathLike[str] | None, *, may_download: bool, progress: Progress = None
) -> tuple[dict[str, Tensor], str]:
    """The state of `card`'s module and a phrase saying which file it came from.

    Raises:
        WeightsError: missing, unreadable, or not the published file.
    """
    path, how = locate(card, weights, may_download=may_download, progress=progress)
    published = card.weights
    source = f"{path} ({how})"
    if published is not None and path.name == Path(published.filename).name:
        verify(path, published)
    if not card.converts:
        state = card.rename(read(path))
        card.check(state)
        return state, source
    if path.suffix == ".safetensors":
        state = _read_converted(card, path)
        card.check(state)
        return state, source
    original = sha256(path)
    converted = _converted_from(card, original)
    if converted is not None:
        return _read_converted(card, converted), f"{converted} (converted from {path})"
    state = card.rename(read(path))
    card.check(state)
    _keep_converted(card, state, path, original)
    return state, source
