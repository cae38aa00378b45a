"""The files at a path, and the readers of JSON, safetensors and torch files with errors for users."""

from __future__ import annotations

import json
import pickle
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sae.errors import FormatError, shorten
from zoo.common.reading import bounded_int, check_archive, check_regular, open_file, read_text

_CONFIG_BYTES = 1 << 24


class SavedFiles:
    """A folder with the files of an SAE, or one of the files.

    Attributes:
        path: of the folder or file. folder: the folder, or the folder of the file.
        names: of the files in the folder, or of the one file.
        k: active latents, as the user gives them for files that do not say.
    """

    def __init__(self, path: Path, k: int | None = None) -> None:
        self.path, self.k = path, k
        self.folder = path if path.is_dir() else path.parent
        try:
            self.names = frozenset(p.name for p in path.iterdir()) if path.is_dir() else frozenset([path.name])
        except OSError as error:
            raise FormatError(f"{path} cannot be read: {error.strerror}") from error

    def has(self, *names: str) -> bool:
        """Whether one of these files is there."""
        return any(name in self.names for name in names)

    @property
    def torch_file(self) -> Path | None:
        """The file itself, where it is one of torch's."""
        return self.path if self.path.suffix in (".pt", ".pth") and self.path.is_file() else None

    @cached_property
    def state(self) -> Any:
        """The content of `torch_file`, read once."""
        if self.torch_file is None:
            raise FormatError("it is not a file that torch wrote (.pt)")
        return read_torch(self.torch_file)


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        FormatError: there is none, or it is not an object.
    """
    try:
        # NaN, which JSON does not have, stays readable as text, and can be written again
        content = json.loads(read_text(path, most=_CONFIG_BYTES), parse_constant=str, parse_int=bounded_int)
    except FileNotFoundError as error:
        raise FormatError(f"there is no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path.name} is no JSON, it may be truncated: {shorten(error)}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path.name} is not the configuration of an SAE")
    return content


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        FormatError: there is none, or it is damaged.
    """
    if not path.is_file():
        raise FormatError(f"there is no {path.name}")
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise FormatError(f"{path.name} cannot be read, it may be truncated: {shorten(error, 120)}") from error


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, as long as it is made of tensors and plain values.

    Raises:
        FormatError: there is none, it is damaged, or it holds objects, which only running its code would restore.
    """
    if not path.is_file():
        raise FormatError(f"there is no {path.name}")
    try:
        with open_file(path) as file:
            check_archive(file)
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "damaged, or holds Python objects; these are never unpickled here. Save its state_dict() instead"
        raise FormatError(f"{path.name} is {reason}") from error
    except Exception as error:  # a damaged archive raises whatever its bytes lead to
        raise FormatError(f"{path.name} cannot be read, it may be truncated: {shorten(error, 120)}") from error
