"""Where an SAE reads, as commands name it: a layer of a CNN, or a place in a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.cli.common import ModelOptions
from apps.cli.errors import UsageError
from apps.cli.output.console import table
from apps.pictures import open_pictures

if TYPE_CHECKING:
    from sae.data.activations import Sampling
    from sae.data.site import Site
    from sae.evaluation.metrics import Reconstruction

DEFAULTS = {"scenes": "scenes:500", "tales": "tales:2000"}
"""What models that draw their own inputs are looked at with."""


def is_language(name: str) -> bool:
    """Whether a model, or the model of an address, is a language model: `tales`, or `hf:` and a path or id."""
    return name.startswith("hf:") or name.partition("/")[0] == "tales"


def model_of(folder: Path, metadata: Mapping[str, Any]) -> str:
    """The model that an SAE was trained on, as its file says."""
    named = metadata.get("model")
    if not isinstance(named, str):
        raise UsageError(f"{folder} does not say of which model it is")
    return named


def site_at(command: ModelOptions, address: str) -> Site:
    """The site at an address, `scenes/mixed3b` or `hf:PATH/layers.2.resid`."""
    if is_language(address):
        from circuits.network.model import best_device
        from sae.language import LanguageSite, TextUnit
        from zoo.networks.language import load_language

        at = TextUnit.parse(address)
        if at.unit.model is None or at.unit.index is not None or at.unit.basis is not None:
            raise UsageError(f"{address!r} is no place in a language model: write tales/layers.2.resid, for example")
        return LanguageSite(load_language(at.unit.model, device=best_device(command.device)), at.unit.layer)
    from sae.data.vision_site import VisionSite

    model, unit = command.address_of(address)
    return VisionSite(model, unit.short)


@dataclass(frozen=True)
class Inputs:
    """Pictures or texts, and where they were, for an SAE's file.

    Attributes:
        data: pictures (`zoo.images.sources.Images`) or texts (`sae.language.Texts`).
        origin: how to open them again; None where that cannot be told.
    """

    data: Any
    origin: Mapping[str, Any] | None


def inputs_for(model: str, sources: Sequence[str], limit: int | None, seed: int) -> Inputs:
    """The pictures or texts that were named for a model, or those it has of its own."""
    language = is_language(model)
    if not sources:
        if model not in DEFAULTS:
            option, what = ("--text FILE", "texts") if language else ("--images FOLDER", "pictures")
            raise UsageError(f"{model} needs {what} to look at: {option}")
        sources = (DEFAULTS[model],)
    if not language:
        pictures = open_pictures(sources, limit, seed)
        return Inputs(pictures, pictures.origin)
    if len(sources) > 1:
        raise UsageError("one file of texts is read at a time: put the others behind it")
    source = sources[0]
    lasting = source if source.startswith("tales:") else str(Path(source).expanduser().absolute())
    return _texts({"texts": lasting, "limit": limit, "seed": seed})


def _texts(origin: Mapping[str, Any]) -> Inputs:
    from sae.language import open_texts

    found = open_texts(origin["texts"])
    limit = origin["limit"]
    if limit is not None and limit < len(found):
        found = found.subset(drawn(len(found), limit, int(origin["seed"])))
    return Inputs(found, origin)


def trained_on(folder: Path, metadata: Mapping[str, Any]) -> Inputs:
    """What an SAE was trained with, opened again."""
    from zoo.images.sources import reopen

    known = metadata.get("data")
    option = "--text FILE" if metadata.get("site") == "language" else "--images FOLDER"
    if not isinstance(known, dict) or not isinstance(known.get("origin"), dict):
        raise UsageError(f"{folder} does not say what it was trained on: give {option}")
    origin = known["origin"]
    found = _texts(origin) if "texts" in origin else Inputs(reopen(origin), origin)
    if found.data.digest != known.get("digest"):
        raise UsageError(f"{found.data.name} is not any more what {folder} was trained on: give {option}")
    return found


def split(data: Any, share: float, seed: int) -> tuple[Any, Any | None]:
    """Inputs to train on, and those held out, drawn by lot; in their order."""
    count = round(share * len(data))
    if not count:
        return data, None
    if count == len(data):
        raise UsageError(f"--held-out {share} leaves none of {len(data)} to train on")
    kept = drawn(len(data), count, seed)
    out = set(kept)
    return data.subset([i for i in range(len(data)) if i not in out]), data.subset(kept)


def drawn(total: int, count: int, seed: int) -> list[int]:
    """So many of the first numbers, drawn by lot, in order."""
    import numpy as np

    return sorted(np.random.default_rng(seed).permutation(total)[:count].tolist())


def sampled(site: Site, data: Any, seed: int) -> Sampling:
    """Uniform positions, about 100,000 in all: enough for the figures that a training ends with."""
    from sae.data.activations import fitting

    return fitting(site, data, vectors=100_000, seed=seed)


def reconstructions_table(found: Mapping[str, Reconstruction]) -> Any:
    """How well dictionaries reconstruct, beside their baselines: one row each."""
    rows = [
        [what, one.name, f"{one.fvu:.3f}", f"{one.l0:.1f}", f"{100 * one.dead:.1f} %", f"{one.shrinkage:.3f}"]
        for what, sae in found.items()
        for one in (sae, *sae.baselines.values())
    ]
    return table(["on", "dictionary", "FVU", "L0", "dead", "shrinkage"], rows, right="  rrrr")


def described(site: Site) -> str:
    """What the site reads: pictures or texts."""
    return "pictures" if site.axes[0] == "image" else "texts"
