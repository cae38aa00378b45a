"""A configuration and its weights: two files that are replaced as if they were one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.errors import FormatError, shorten
from sae.formats.detect import read_json
from zoo.common.files import write_atomically, write_text_atomically
from zoo.common.stored import sha256

OURS = "vision_circuits"
"""Key of the configuration under which we say how an SAE was trained, and the digest of its weights."""

SCHEMA = 1


@dataclass(frozen=True)
class Pair:
    """Names of the two files.

    The new configuration waits beside the old one, with the digest of the new weights in it, before these take
    their place. Whenever the process is killed, one of the two configurations fits the weights that are there.
    """

    config: str
    weights: str

    @property
    def waiting(self) -> str:
        """Name of the configuration that waits for its weights."""
        return f".{self.config}.next"

    def write(
        self,
        folder: Path,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        about: Mapping[str, Any],
        writer: Callable[[dict[str, Tensor], Path], object],
    ) -> None:
        """Write both, or leave what is there.

        Raises:
            FormatError: values that are not finite, or a configuration that is no JSON.
            FileError: the disk does not take it.
        """
        bad = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
        if bad:
            raise FormatError(f"the SAE has values that are not finite in {', '.join(bad)}: it is not written")
        try:
            json.dumps([config, about], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise FormatError(f"the metadata cannot be written as JSON: {shorten(error)}") from error

        def weights(temporary: Path) -> None:
            writer(dict(tensors), temporary)
            ours = {"schema": SCHEMA, **about, "weights_sha256": sha256(temporary)}
            # not in the metadata: SAELens would carry it on to weights that it changed
            text = json.dumps({**config, OURS: ours}, indent=1, allow_nan=False)
            write_text_atomically(folder / self.waiting, text)

        write_atomically(folder / self.weights, weights)
        os.replace(folder / self.waiting, folder / self.config)

    def read_config(self, folder: Path) -> dict[str, Any]:
        """The configuration that belongs to the weights.

        Raises:
            FormatError: there is none, it is damaged, or it belongs to other weights.
        """
        digest = None
        for name in (self.config, self.waiting):
            if not (folder / name).is_file():
                continue
            try:
                config = read_json(folder / name)
            except FormatError:
                if name == self.config:
                    raise
                continue
            if not isinstance(config.get("metadata", {}), dict):
                raise FormatError(f"{name} is not the configuration of an SAE")
            about = config.get(OURS)
            if not isinstance(about, dict):
                return config
            if about.get("schema") != SCHEMA:
                raise FormatError(f"it has schema {shorten(about.get('schema'), 20)}; this version reads {SCHEMA}")
            stated = about.get("weights_sha256")
            digest = digest or sha256(folder / self.weights)
            if stated is None or stated == digest:
                return config
        if digest is not None:
            raise FormatError(
                f"{self.weights} is damaged: its digest is not the one in {self.config}. If another program wrote "
                f"it on purpose, take {OURS!r} out of {self.config}"
            )
        raise FormatError(f"it has {self.weights}, but no {self.config}")
