"""What a layout of files is, and the registry of layouts.

A new layout is one module in this folder, or in a package that declares the entry point `vision_circuits.formats`: a
subclass of `Layout` under `@register_layout`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from sae.architectures.base import SAE
from sae.errors import FormatError
from sae.formats.detect import SavedFiles
from zoo.common.registries import Registry, import_modules


class Layout(ABC):
    """One way to store an SAE in files.

    Attributes:
        name: the value of `format=`. description: which files it has, for messages.
        weights: the file that a folder must hold before another SAE may be written over it.
        density: whether densities of latents are written beside it, as `sparsity.safetensors`.
        transcoders: whether transcoders can be written in it; crosscoders: and what has several sources or targets.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    weights: ClassVar[str] = ""
    density: ClassVar[bool] = False
    transcoders: ClassVar[bool] = False
    crosscoders: ClassVar[bool] = False

    @property
    def writable(self) -> bool:
        """Whether SAEs are written in this layout, or only read."""
        return type(self).write is not Layout.write

    @abstractmethod
    def detects(self, files: SavedFiles) -> bool:
        """Whether files are of this layout."""

    @abstractmethod
    def read(self, files: SavedFiles) -> SAE:
        """The SAE in these files, for raw inputs.

        Raises:
            FormatError: they cannot be read; the message names the file, without its folder.
        """

    def write(self, folder: Path, sae: SAE, about: dict[str, Any]) -> None:
        """Write a folded SAE, whole or not at all, with `about`, the JSON of its configuration and training.

        Raises:
            FormatError: this layout is only read.
        """
        able = ", ".join(name for name, layout in LAYOUTS.items() if layout.writable)
        raise FormatError(f"{self.name} is only read, not written; write one of {able}")


LAYOUTS: Registry[Layout] = Registry(
    "format", group="vision_circuits.formats", load=lambda: import_modules("sae.formats"), error=FormatError
)
"""Name -> layout. Every module of this folder, and of the packages that declare the entry point, adds to it."""

_Class = TypeVar("_Class", bound=type[Layout])


def register_layout(cls: _Class) -> _Class:
    """Register a layout under its name (a class decorator).

    Raises:
        FormatError: another layout has that name.
    """
    LAYOUTS.add(cls.name, cls())
    return cls
